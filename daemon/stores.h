/* stores - the object stores the settings name, opened and tried.
 *
 * The result of the probe is kept in state_dir (probe-mail_store.json...):
 * processes that start together share one run, and a start while the store is
 * away goes on with what was found before.
 * Blocks: yes. */
#ifndef DAEMON_STORES_H
#define DAEMON_STORES_H
#include "base/buf.h"
#include "daemon/conf.h"
#include "objstore/objstore.h"
#include "objstore/probe.h"

struct stores {
	struct objstore *mail, *index;	/* may be one */
};

void stores_settings(const struct conf_store *cs, struct objstore_settings *set);	/* borrows from cs */
/* Where it is, for people: "s3 bucket mail at https://..." */
void stores_describe(const struct conf_store *cs, struct buf *out);

/* Opens both; with probe a store that does not do what its part needs is
 * refused (ERR_INVALID, in words that say what to do).  0/<0; stores_close either way. */
int stores_open(const struct conf *c, bool probe, struct stores *s, struct err *err);
void stores_close(struct stores *s);
/* 1: nothing was kept in them yet.  Only then may keys be made: a store whose keys are lost must not get new ones.  0, <0 */
int stores_are_new(const struct conf *c, struct err *err);

/* Tries one store and keeps the result; name is that of its section. */
int stores_probe(const struct conf *c, const char *name, const struct conf_store *cs, struct objstore *s, unsigned rounds, struct probe_result *r, struct err *err);
#endif
