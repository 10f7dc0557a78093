/* culverctl log show: the records of a user's log, readable. */
#include "ctl/ctl.h"

#include "base/mem.h"

int cmd_log(struct ctl *c)
{
	struct err err = ERR_INIT;
	json_t *line;
	int rc;

	if (!ctl_words(c, 2, 2, "log show USER") || strcmp(c->argv[0], "show") != 0) {
		if (c->argc == 2)
			fputs("usage: culverctl log show USER\n", stderr);
		return CTL_USAGE;
	}
	rc = ctl_send(c, json_pack("{s:s, s:s, s:b}", "op", "user.log", "user", c->argv[1], "json", c->json), NULL, 0, &err);
	while (rc == 0 && (rc = ctl_next(c, &line, &err)) == 1) {
		size_t n = (size_t)json_integer_value(json_object_get(line, "bytes"));
		char *data = mem_alloc(n + 1);

		rc = ctl_bytes(c, data, n, &err);
		if (rc == 0)
			fwrite(data, 1, n, stdout);
		free(data);
		json_decref(line);
	}
	if (rc == 0)
		json_decref(line);
	return rc < 0 ? ctl_fail(&err) : CTL_OK;
}
