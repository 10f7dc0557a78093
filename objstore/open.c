/* A store as settings name it. */
#include "objstore/objstore.h"

int objstore_open(const struct objstore_settings *set, struct objstore **s_r, struct err *err)
{
	*s_r = NULL;
	if (!strcmp(set->driver, "posix"))
		return objstore_posix_open(set->path, s_r, err);
	if (!strcmp(set->driver, "s3"))
		return objstore_s3_open(set, s_r, err);
	if (!strcmp(set->driver, "sproxyd"))
		return objstore_sproxyd_open(set, s_r, err);
#ifdef HAVE_LIBS3
	if (!strcmp(set->driver, "libs3"))
		return objstore_libs3_open(set, s_r, err);
#else
	if (!strcmp(set->driver, "libs3"))
		return err_set(err, ERR_INVALID, "driver libs3: this Culver was built without libs3 (configure --with-libs3)");
#endif
	return err_set(err, ERR_INVALID, "object store: there is no driver \"%s\"", set->driver);
}
