/* store - what the files of culverctl store share. */
#ifndef CTL_STORE_H
#define CTL_STORE_H
#include "ctl/ctl.h"
#include "daemon/stores.h"

struct store_run {
	struct ctl *c;
	struct objstore *s;
	const struct conf_store *cs;
	const char *name;		/* of the section */
};

/* These return a status of ctl_status, or <0 with *err. */
int store_bench(struct store_run *r, struct err *err);
int store_stats(struct ctl *c, struct err *err);
#endif
