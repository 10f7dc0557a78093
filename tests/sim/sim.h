/* sim - one world: nodes with the real obox and metacache code, one faulty
 * store, one virtual clock, one seed.  See README.md for the picture.
 *
 * Everything here runs on one real thread.  A task is a coroutine: a thread of
 * a node, or a client of it.  The driver (world.c) is no task: it lets tasks run
 * with sched_run(). */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/hmap.h"
#include "base/mem.h"
#include "objstore/objstore.h"
#include "obox/obox.h"

/* --- rnd.c: all chance comes from the seed --- */

void rnd_seed(uint64_t seed);
uint64_t rnd(void);
uint64_t rnd_below(uint64_t n);			/* 0..n-1; n > 0 */
bool rnd_permille(unsigned p);
int64_t rnd_exp(int64_t mean);			/* of an exponential distribution, at most 20 times the mean */
void rnd_install(void);				/* libsodium's randomness, too */

/* --- trace.c --- */

void trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void trace_print(int fd, size_t last);		/* the last so many lines */
extern bool trace_live;				/* every line goes to stderr at once */
/* A promise is broken: told once, with what led to it; the seed ends. promise: 1..6, 0 = the simulation itself. */
void violation(int promise, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
extern char violated[1024];
extern int violated_promise;

/* --- sched.c --- */

struct life;
struct task {
	const char *name;
	struct life *life;		/* NULL: of nobody */
	void *(*fn)(void *arg);
	void *arg;
	enum { TASK_READY, TASK_BLOCKED, TASK_PARKED, TASK_DONE } state;
	const void *waits_for;		/* simt_wake_wait() */
	size_t at;			/* in the list of ready tasks */
	uint64_t gen;			/* grows whenever it stops being blocked: older alarms are void */
	struct task *next;		/* in the queue of what it waits for */
	bool timed_out;
	unsigned nopreempt;
	bool may_list;			/* collection: LIST is allowed */
	uint64_t trips, requests;	/* to the store; trips: times it began to wait for answers */
	unsigned outstanding;
	struct task *joiner;
	int64_t ran;			/* last */
	void *stack[12];		/* where it waits; only with trace_live */
	int depth;
	struct ctx *ctx;
};
extern int64_t sim_now;			/* us of virtual time */
extern uint64_t sim_switches;
extern struct task *sim_task;		/* running, or NULL: the driver */
struct task *sched_task(struct life *l, const char *name, void *(*fn)(void *), void *arg);
void sched_wake(const void *what);	/* makes the task ready that waits for this */
void sched_block(void);			/* until sched_ready */
void sched_ready(struct task *t);
void sched_sleep(int64_t us);		/* of virtual time */
void sched_alarm(struct task *t, int64_t at);	/* makes it ready at that time when it is still blocked, with timed_out */
void sched_at(int64_t at, void (*fn)(void *arg), void *arg);	/* called from the driver's context */
void sched_preempt(void);		/* somebody else may run now */
void sched_run(int64_t us);		/* driver: lets so much time pass */
void sched_set_preempt(unsigned permille);
void sched_drop(struct life *l);	/* driver: all tasks of a life are no more */
void sched_unpark(struct life *l);
void sched_reset(void);
void sched_tell(void);		/* every task, into the trace */

/* --- store.c --- */

/* What a store may be that nobody should serve from; the names are store_kinds[]. */
enum store_kind {
	STORE_GOOD, STORE_IGNORES_CREATE, STORE_IGNORES_MATCH, STORE_IGNORES_BOTH,
	STORE_CHECKS_THEN_WRITES,	/* others may come in between */
	STORE_REFUSES_CONDITIONS,	/* as not implemented */
	STORE_SWAPS_NOTHING,		/* If-Match creates what is not there */
	STORE_STALE,			/* for a while what was overwritten is read, now and then */
	STORE_KINDS
};
extern const char *const store_kinds[];
struct store_faults {	/* in 1/1000 of the requests */
	unsigned lost, lost_answer, late, duplicate, throttle, error, error_after, conflict;
	int64_t latency_us, slow_us;	/* usual mean; of one in slow_permille */
	unsigned slow;
	enum store_kind kind;
};
extern struct store_faults store_faults;
void store_reset(void);
struct objstore *store_of_life(struct life *l);	/* this life's way to it */
/* Without time and faults, for the checker; as objstore_get. */
bool store_peek(const char *key, struct buf *out);
extern uint64_t store_requests, store_faulted;

/* --- cache.c --- */

struct obox_cache *cache_of_life(struct life *l);	/* at its start: the node's, and what became of it meanwhile */

/* --- world.c --- */

enum link { LINK_UP, LINK_DOWN, LINK_NO_ANSWERS };
struct node {
	char name[16];
	int64_t mono_offset, wall_offset;
	unsigned rate;		/* its clocks' speed in 1/1000 */
	enum link link;
	int64_t link_until, paused_until, frozen_since, start_at;
	struct life *life;	/* NULL: down */
	struct sim_cache *cache;	/* what is on its disk; NULL: nothing yet */
};
struct life {	/* one incarnation: from start to end of a process */
	struct node *node;
	unsigned id;
	bool dead, dying, paused, closing, up;
	struct task **parked;
	size_t n_parked, cap_parked;
	int crash_in;			/* store calls; -1 not */
	bool crash_after;		/* that call: the request is on its way */
	int64_t cache_lied;		/* when its disk last gave what was not put there */
	int64_t trouble;		/* when its way to the store, or itself, was last not as it should be */
	struct obox_cluster *mc;
	struct obox *ob;
	struct objstore *store;
	unsigned clients;
	bool fenced;			/* it knows that it was taken over */
	struct net *net;		/* store.c */
	struct oplock { bool structure, flags; unsigned others; } locks[4];	/* of users: client.c */
};
int64_t node_mono(const struct node *n);
int64_t node_wall(const struct node *n);
int64_t node_mono_at(const struct node *n, int64_t mono);	/* when its monotonic clock will say that */
void life_trouble(struct life *l);
void life_crash(struct life *l);	/* from one of its tasks: does not return */

/* --- probing.c --- */

/* -1: the first start of a world tries the store, which is good; STORE_KINDS: a kind by the seed; otherwise that kind, and every start tries it. */
extern int sim_store;
extern struct sim_probes { uint64_t passed, refused, unfinished; } sim_probes;
/* What culverd does first (daemon/stores.c): may this life go on?  Says if the verdict is not what the store is. */
bool life_probes(struct life *l, unsigned rounds);

struct sim_result {
	uint64_t steps, switches, requests, faults, acked, failed, checks, lives, takeovers, unfinished;
	int64_t virtual_us;
	struct sim_probes probes;
	int promise;		/* -1: none broken */
	char text[1024];
};
extern uint64_t sim_seed, sim_step;
int64_t sim_flag_delay(void);		/* us, on the slowest clock */
void world_served(unsigned user, const char *node);	/* that node says that it serves the user */
void world_release(unsigned user);	/* who serves the user is asked to hand over */
void world_run(uint64_t seed, unsigned steps, struct sim_result *r);
bool sim_broken(const char *name);
extern const char *sim_break;	/* the breakage that is switched on, or NULL */

/* --- client.c --- */

enum { USERS = 3 };
extern struct sim_counts { uint64_t acked, failed, checks; } sim_counts;
void client_start(struct life *l, unsigned user);	/* something random */
void client_check(struct life *l, unsigned user, bool final, bool *ok);	/* a full reading; ok: set when it could be done */
void client_release(struct life *l, unsigned user);
void client_operate(struct life *l, const char *node, bool force);	/* takes that node over; NULL: begins or ends draining */
void client_flush(struct life *l, unsigned user, bool collect);
const char *user_name_of(unsigned user);
void model_reset(void);
void model_life_over(struct life *l);	/* what its clients had begun is uncertain from now on */
#endif
