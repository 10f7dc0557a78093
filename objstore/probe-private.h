/* probe-private - how the checks of probe-checks.c ask, and what they show. */
#ifndef OBJSTORE_PROBE_PRIVATE_H
#define OBJSTORE_PROBE_PRIVATE_H
#include "objstore/probe.h"

/* Deliberate breakages that the simulator (tests/sim/) has to catch: its build alone has them. */
#ifdef CULVER_SIM
bool sim_broken(const char *name);
#else
#define sim_broken(name) false
#endif

/* What one try of a check showed.  Requests may be lost, answers too, a put may be carried out twice and the second time
 * late: what that explains is NOTHING, and the check is tried again under other names. */
enum probe_shown { PROBE_SHOWED_NOTHING, PROBE_SHOWED_GOOD, PROBE_SHOWED_BAD };

struct probe {
	struct objstore *s;
	struct probe_result *r;
	struct err *err;
	char id[17];			/* of this run */
	unsigned serial;		/* makes every body its own */
	unsigned turn;			/* of this try: its objects' names are new */
	char key[128];
	char **used;			/* keys of objects there may be: not every store can list them */
	size_t n_used, cap_used;
	unsigned unanswered, conflicts;	/* in a row */
	int64_t heard_us;		/* when the store last answered */
	char why[240];			/* of PROBE_SHOWED_BAD */
	int rc;				/* <0: the store cannot be tried */
};

typedef enum probe_shown probe_try(struct probe *p, enum probe_check c);

enum probe_shown probe_bad(struct probe *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool probe_holds(const struct probe *p, enum probe_check c);
const char *probe_key(struct probe *p, const char *name);	/* until the next call */
size_t probe_body(struct probe *p, char out[64]);
/* Is rc an answer?  What is none may be asked again, after a pause, unless the store has been silent for too long (p->rc). */
bool probe_answered(struct probe *p, int rc, const struct err *e);
/* Who may not put or get at all has the wrong keys, which says nothing of the store and ends the probe. */
bool probe_denied(struct probe *p, int rc, const struct err *e);
/* A conflict with nobody there: stores answer so now and then. May it be asked again? */
bool probe_tolerates(struct probe *p);
int probe_put(struct probe *p, const char *name, enum objstore_cond cond, char *etag, char text[64], struct err *e);
/* GOOD: the object holds text (NULL: is absent); BAD: it does not, without a reason given. */
enum probe_shown probe_reads(struct probe *p, const char *name, const char *text, char *etag);
/* Makes an object; by a create where creates hold, since one that is carried out again later changes nothing then. */
enum probe_shown probe_make(struct probe *p, const char *name, char *etag, char text[64]);
enum probe_shown probe_swap(struct probe *p, const char *name, char *etag, char text[64]);	/* etag: the current one, then the new one */

/* probe-checks.c */
probe_try probe_try_read, probe_try_create, probe_try_match, probe_try_stale, probe_try_race, probe_try_range, probe_try_list, probe_try_delete,
	probe_try_delete_many, probe_try_copy;
#endif
