/* metacache-private - the inside of metacache/.
 *
 * Locks: beat_lock > peers_lock > the journal's.  takeovers_lock is held alone.  Store calls
 * are made under beat_lock only. */
#ifndef METACACHE_PRIVATE_H
#define METACACHE_PRIVATE_H
#include <pthread.h>
#include <stdatomic.h>

#include "base/hmap.h"
#include "base/mem.h"
#include "metacache/metacache.h"
#include "obox/cluster.h"

/* --- node.c: what nodes tell of themselves --- */

enum node_state { NODE_LIVE, NODE_STOPPED, NODE_CLAIMED, NODE_DONE };
struct node_record {	/* the object node/<node> */
	char node[64];
	uint64_t incarnation;
	char address[256];
	int64_t started;
	uint64_t ttl_ms;
	uint64_t beat;		/* grows with every write */
	uint64_t floor;		/* first journal object that counts */
	enum node_state state;
	char claimer[64];
	uint64_t claimer_incarnation;
	/* for people and for who looks for a node to send users to; nothing that must be right depends on it */
	bool draining;
	uint64_t users, pieces;	/* that it owns; of its journal, from the floor on */
	int64_t beat_time;	/* of its own wall clock; 0: a version that does not tell */
	char version[32];
};
struct metacache;
void node_encode(const struct node_record *rec, struct buf *out);
int node_decode(struct node_record *rec, const struct buf *plain, const char *key, struct err *err);	/* key: for the error's text */
char *node_key(const struct metacache *mc, const char *node);
char *journal_key(const struct metacache *mc, const char *node, uint64_t incarnation, uint64_t seq);
/* Pieces from .. below to; what cannot be deleted stays behind as litter below every floor. */
void journal_delete(struct metacache *mc, const char *node, uint64_t incarnation, uint64_t from, uint64_t to);
int node_get(struct metacache *mc, const char *node, struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err);	/* 1/0/<0 */
int node_swap(struct metacache *mc, const struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err);	/* as obox_swap */
/* The names of all nodes that are not known to be done, one object: so that the next in it watches each, without LIST. */
struct ring { char **names; size_t n; };
int ring_decode(struct ring *r, const struct buf *plain, const char *key, struct err *err);
int ring_get(struct metacache *mc, struct ring *r, char etag[OBJ_ETAG_MAX], struct err *err);
int ring_change(struct metacache *mc, const char *node, bool in, struct err *err);
void ring_free(struct ring *r);

/* --- journal-store.c --- */

struct store_journal;
/* seq 1 is the first. */
struct store_journal *store_journal_new(struct metacache *mc);
struct journal *store_journal_base(struct store_journal *j);
/* Does what is due; when something will be, in us from now (at most max). */
int64_t store_journal_step(struct store_journal *j, int64_t max);
void store_journal_wake(struct store_journal *j);	/* fenced or stopping: whoever waits looks again */
uint64_t store_journal_floor(struct store_journal *j);
uint64_t store_journal_pieces(struct store_journal *j);	/* from the floor on */
/* The floor is in the node's record: deletes of what is below as much as one request takes; true: there is more. */
bool store_journal_published(struct store_journal *j, uint64_t floor);
void store_journal_sleep(struct store_journal *j, int64_t us);	/* until there is something to do */
bool store_journal_degraded(struct store_journal *j);
void store_journal_stats(struct store_journal *j, struct metacache_stats *st);

/* Bytes of a journal object: records, or the seal that ends it. */
enum piece_kind { PIECE_RECORDS, PIECE_SEAL };
void piece_encode(enum piece_kind kind, uint64_t n, const struct buf *entries, struct buf *out);
/* Calls fn for each record; *kind_r. */
int piece_decode(const struct buf *plain, enum piece_kind *kind_r, void (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err);

/* --- takeover.c --- */

enum tail_state { TAIL_TODO, TAIL_DOING, TAIL_DONE };
struct tail {	/* of one user, in a dead node's journal */
	struct obox_tail *records;	/* NULL when done */
	enum tail_state state;
	int rc;				/* of the last try */
};
struct takeover {	/* a dead node, from its claim until its record says that it is done */
	struct metacache *mc;
	char node[64];
	uint64_t incarnation;
	struct node_record rec;	/* of whoever works on it, as the next few */
	char etag[OBJ_ETAG_MAX];
	int64_t begun_us, sealed_us, claimed_us;
	uint64_t seq;		/* the next to read; in the end the seal's */
	uint64_t records;
	bool sealed;
	atomic_bool damaged;	/* something of it could not be used: it is kept for who mends it */
	struct hmap tails;	/* user -> struct tail; complete, and with takeovers_lock, from TAKEOVER_OPEN on */
	/* with takeovers_lock: */
	struct takeover *next;	/* of mc->taking */
	unsigned refs;
	enum { TAKEOVER_READING, TAKEOVER_OPEN, TAKEOVER_OVER } phase;	/* open: sealed, users may be asked for */
	bool working;		/* a thread has it, and makes its next step */
	bool lost;		/* another node has claimed it meanwhile, and goes on */
	size_t left;		/* tails that are not done */
	uint64_t asked, asking;	/* users replayed because somebody asked for them; askers right now */
};

/* All of it: rec, as found under etag, is claimed, its journal sealed and replayed, and marked done.  ERR_CONFLICT: its record changed; ERR_BUSY: this
 * process is at it already. */
int take_over(struct metacache *mc, struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err);
/* The same in the background: its users are served one by one as they are asked for (takeover_user). */
void take_over_soon(struct metacache *mc, const struct node_record *rec, const char *etag);
int node_claim(struct metacache *mc, struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err);	/* its first step */
bool takeover_runs(struct metacache *mc, const char *node, uint64_t incarnation);	/* in this process */
/* If this process is taking it over: what it left of that user is replayed before anything else.  1 done, 0 this process is not at it, <0 not now. */
int takeover_user(struct metacache *mc, const char *node, uint64_t incarnation, const char *user, struct err *err);
void takeover_work(struct metacache *mc);	/* a thread for the background, until mc->quit */
void takeovers_free(struct metacache *mc);

/* --- replay.c --- */

void tail_add(struct takeover *t, const struct journal_entry *e);
void tails_free(struct takeover *t);
int replay_user(struct takeover *t, const char *user, struct err *err);	/* one asked for; takeovers_lock is held, and released meanwhile */
int replay_all(struct takeover *t, struct err *err);

/* --- watch.c --- */

struct peer;
/* The node's record now and since when it has not changed; 1, 0 there is none, <0. */
int watch_observe(struct metacache *mc, const char *node, struct peer *out, struct err *err);
/* Takes node over if it may be.  1 it is nobody's now (*p: as it was last seen, when it was there), 0 not yet (p->rec.claimer may be this node). */
int watch_settle(struct metacache *mc, const char *node, uint64_t incarnation, struct peer *p, struct err *err);
bool watch_silent(const struct metacache *mc, const struct peer *p);	/* no sign for a whole TTL of its own */
/* It is claimed whether it lives or not; it is replayed when it has been claimed for a whole TTL: watch_settle says when. */
int watch_claim(struct metacache *mc, const char *node, struct peer *p, struct err *err);
int64_t watch_step(struct metacache *mc);	/* what is due; in us until more is */
int watch_owner(struct metacache *mc, const char *node, uint64_t incarnation, const char *user, struct obox_owner *o, struct err *err);	/* obox_cluster_ops.owner */

/* --- operate.c --- */

int operate_look_around(struct metacache *mc, size_t *n_r, struct err *err);	/* the watch's, while this node is draining: who takes users? */
bool operate_elsewhere(struct metacache *mc, const char *node, uint64_t incarnation, const char *user, struct obox_owner *o_r);	/* obox_cluster_ops.elsewhere */

/* --- metacache.c --- */

int mc_beat(struct metacache *mc, struct err *err);	/* a heartbeat now */
struct timespec mc_deadline(int64_t us);	/* so long from now, for the conditions here */

struct peer {	/* a node as this one has seen it */
	struct node_record rec;
	char etag[OBJ_ETAG_MAX];
	int64_t since_us;	/* unchanged since, on this node's clock */
	int64_t looked_us;	/* last looked at */
	int64_t late_us;	/* when it was seen to have changed, it had at most so long before */
	bool forced;		/* claimed here while its lease may have run: to be waited out */
	bool looking;		/* somebody is */
};

struct metacache {
	struct obox_cluster base;
	struct metacache_config cfg;
	char *prefix, *node, *address;
	struct obox *ob;
	const struct seal_keys *keys;
	uint64_t incarnation;
	struct store_journal *journal;
	atomic_bool fenced, quit, beat_soon;
	atomic_int_least64_t lease_until_us;
	pthread_mutex_t beat_lock;
	struct node_record rec;
	char etag[OBJ_ETAG_MAX];
	int64_t next_beat_us;
	_Atomic uint64_t floor_told;	/* in the record in the store */
	pthread_mutex_t peers_lock;
	struct hmap peers;
	struct ring ring;	/* the watch's */
	int64_t next_ring_us, next_watch_us;
	pthread_mutex_t takeovers_lock;
	pthread_cond_t takeovers_cond;	/* anything about them is different */
	struct takeover *taking;	/* those that this process is at */
	atomic_bool draining;
	struct obox_owner *others;	/* where a draining node sends users; with peers_lock */
	size_t n_others;
	pthread_mutex_t sleep_lock;
	pthread_cond_t sleep_cond;
	pthread_t threads[8];
	unsigned n_threads;
	_Atomic uint64_t beats, beats_failed, takeovers, users_replayed;
};

static inline int64_t mc_now(const struct metacache *mc)
{
	return clock_mono_us(mc->cfg.clock);
}
static inline int64_t mc_ttl_us(const struct metacache *mc)
{
	return (int64_t)mc->cfg.ttl_ms * 1000;
}
/* Nobody can have claimed this node before this is false. */
static inline bool mc_lease(const struct metacache *mc)
{
	return !atomic_load(&mc->fenced) && mc_now(mc) < atomic_load(&mc->lease_until_us);
}
void mc_fence(struct metacache *mc, const char *why);
void mc_beat_soon(struct metacache *mc);	/* the record has news that should not wait for the next heartbeat */
#endif
