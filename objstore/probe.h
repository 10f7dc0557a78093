/* probe - tries on a store what the promises depend on, because several
 * stores take conditional headers and ignore them, or check and then write.
 *
 * Works on any struct objstore, below keys of its own that it deletes again.
 * Blocks: some seconds.  Threads: starts racing ones of its own. */
#ifndef OBJSTORE_PROBE_H
#define OBJSTORE_PROBE_H
#include "objstore/objstore.h"

enum probe_check {
	PROBE_READ,		/* what was put is got, at once, also after an absence was seen and over an older one */
	PROBE_CREATE,		/* a second create is refused and changes nothing */
	PROBE_CREATE_RACE,	/* of racing creators one wins */
	PROBE_MATCH,		/* a swap with the right etag is done */
	PROBE_STALE,		/* with an old one, or on nothing, it is refused and changes nothing */
	PROBE_MATCH_RACE,	/* of racing swaps one wins */
	PROBE_RANGE,
	PROBE_LIST,		/* at once, in order, start-after */
	PROBE_DELETE,
	PROBE_DELETE_MANY,
	PROBE_COPY,
	PROBE_N
};
enum probe_state { PROBE_NOT_TRIED, PROBE_HOLDS, PROBE_FAILS };
enum probe_role { PROBE_FOR_MAIL, PROBE_FOR_INDEX };

struct probe_result {
	char store[512];		/* which: driver, endpoint, bucket... */
	int64_t time;			/* seconds since 1970 */
	enum probe_state state[PROBE_N];
	char text[PROBE_N][240];	/* of what fails: how; of what holds: "" or a remark */
	unsigned caps;			/* enum objstore_caps that hold */
	unsigned etag_form;		/* as in objstore_stats */
	uint64_t put_us, get_us;	/* of a small object, median of a few */
};

enum { PROBE_RACERS = 20 };
/* 0 however it came out; <0: it could not be tried to its end (no access, no answer, cannot be written to), and what was
 * found until then counts. Lost requests and answers, late ones and what is carried out twice are told from what a store
 * does wrong: such a check is tried again, or stays "not tried". rounds: of each race, 0 = 5. */
int probe_run(struct objstore *s, const char *store, unsigned rounds, struct probe_result *r, struct err *err);
/* Was anything found that forbids it?  0, or ERR_INVALID as below; also of a probe that did not come to its end. */
int probe_fails(const struct probe_result *r, enum probe_role role, const char *name, struct err *err);
/* Is the store good enough?  0, or ERR_INVALID with a text that says what is wrong and what to do. name: of the section, "index_store". */
int probe_judge(const struct probe_result *r, enum probe_role role, const char *name, struct err *err);

const char *probe_check_name(enum probe_check c);	/* "create-race" */
const char *probe_check_title(enum probe_check c);	/* "one of 20 racing creators wins" */
const char *probe_state_name(enum probe_state s);

/* Kept as JSON; written whole or not at all. */
void probe_json(const struct probe_result *r, struct buf *out);
int probe_save(const struct probe_result *r, const char *path, struct err *err);
int probe_load(struct probe_result *r, const char *path, struct err *err);	/* 1, 0 none (or unreadable), <0 */
#endif
