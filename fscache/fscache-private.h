/* fscache-private - what the files of this room share; see README.md for who
 * holds which lock. */
#ifndef FSCACHE_PRIVATE_H
#define FSCACHE_PRIVATE_H
#include "fscache/fscache.h"

#include "base/clock.h"

#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <sys/types.h>

enum {
	FSC_UNIT = 512,				/* bytes; space is given out in these */
	FSC_BLOCK_UNITS = FSCACHE_BLOCK / FSC_UNIT,
	FSC_SHARDS_MAX = 16,
	FSC_STRIPES = 64,
	FSC_SHARD_BYTES = 16 << 20,		/* a cache has a shard for each of these, up to the most */
	FSC_GROW = 1 << 20,			/* a data file grows by this */
	FSC_FETCH_MAX = 8 << 20,		/* bytes of one range asked for */
	FSC_BRIDGE = 8,				/* blocks: shorter cached runs within a range are fetched along */
	FSC_BACKLOG = 32 << 20,			/* fetched bytes that wait to be written */
	FSC_OBJECT_PART = 4,			/* one object gets at most this part of the cache */
	FSC_SAVE_PART = 16,			/* of what is written through, at most this part is kept */
	FSC_WRITING_PART = 8,			/* of a shard may be under way at a time */
	FSC_FREQ_MAX = 3,
	FSC_SECRET = 48
};
#define FSC_NONE 0u				/* entry and owner indexes start at 1 */

struct fscache;
struct sqlite3;

/* System calls of the data files, for tests to fail. */
struct fsc_sys {
	ssize_t (*pread)(int fd, void *p, size_t n, off_t off);
	ssize_t (*pwrite)(int fd, const void *p, size_t n, off_t off);
	int (*fallocate)(int fd, int mode, off_t off, off_t len);
	const struct clock *clock;
};
extern const struct fsc_sys fsc_sys_default;

struct fsc_id {			/* keyed hash of an object's key */
	uint64_t a, b;
};
static inline bool fsc_id_is(const struct fsc_id *x, const struct fsc_id *y)
{
	return x->a == y->a && x->b == y->b;
}

/* --- space.c: units of one data file; under the shard's lock --- */

struct fsc_extent {
	uint32_t at, n;		/* units */
};
struct fsc_where {
	uint32_t n;		/* extents; 0 = none */
	union {
		struct fsc_extent one;		/* n == 1 */
		struct fsc_extent *many;	/* owned */
	};
};
struct fsc_space {
	int fd;			/* -1: no file */
	uint64_t *map;		/* bit set = unit in use */
	uint32_t units, max;	/* of the file now; at most */
	uint32_t free;
	uint32_t cursor;
};

void fsc_space_init(struct fsc_space *sp, uint32_t max_units);
void fsc_space_release(struct fsc_space *sp);	/* not the descriptor */
void fsc_space_set(struct fsc_space *sp, uint32_t units);	/* an empty file of so many units */
/* One step larger.  0, or ERR_LIMIT: the disk is full; ERR_IO. */
int fsc_space_grow(struct fsc_space *sp, const struct fsc_sys *sys, struct err *err);
void fsc_space_take(struct fsc_space *sp, uint32_t n, struct fsc_where *w);	/* sp->free >= n */
bool fsc_space_claim(struct fsc_space *sp, const struct fsc_where *w);	/* false, nothing done: not all free */
void fsc_space_give(struct fsc_space *sp, struct fsc_where *w);
static inline const struct fsc_extent *fsc_extents(const struct fsc_where *w)
{
	return w->n == 1 ? &w->one : w->many;
}
static inline uint32_t fsc_units(size_t len)
{
	return (uint32_t)((len + FSC_UNIT - 1) / FSC_UNIT);
}

/* --- shard.c, policy.c --- */

enum { FSC_SMALL, FSC_MAIN };	/* queues: on probation; proved */
enum { FSC_DIRTY = 1 /* the catalogue has to hear of it */, FSC_SAVED = 2 /* it has a row */, FSC_LIVE = 4, FSC_SUSPECT = 8 /* from before a crash */,
	FSC_READ = 16 /* read since it was written to the catalogue */ };

struct fsc_entry {		/* a cached block */
	struct fsc_id id;
	uint64_t size;		/* of the object */
	uint64_t tag;		/* checksum over all that says what this is, and the bytes */
	struct fsc_where where;
	uint32_t block;
	uint32_t owner;
	uint32_t next;		/* of the hash chain, newest first; or of the free list */
	uint32_t newer, older;	/* in its owner's queue */
	uint32_t used;		/* seconds since 1970, last read */
	uint16_t len;		/* 1..FSCACHE_BLOCK */
	uint8_t freq, queue, flags;
};
struct fsc_ownq {
	uint32_t newest, oldest;	/* entries */
	uint32_t units;
	uint32_t pos;			/* in the heap, from 1; 0 = not there */
};
struct fsc_owner {
	uint64_t hash;
	uint32_t next;			/* of the hash chain, or of the free list */
	struct fsc_ownq q[2];
};
struct fsc_heap {			/* owners, the one with most units first */
	uint32_t *v;
	size_t n, cap;
};
struct fsc_ghost {
	uint32_t mark, seq;
};
struct fsc_shard {
	pthread_mutex_t lock;
	struct fscache *fc;
	unsigned no;
	struct fsc_space space;
	bool open;			/* takes blocks */
	unsigned writing, writing_units; /* blocks that have units and are not in yet */
	struct fsc_entry *e;
	size_t e_cap;
	uint32_t e_used, e_free, e_live, e_max;	/* e[1..e_used] were used; list of free ones; in use; most */
	uint32_t *chain;		/* by id */
	uint32_t chain_mask;
	struct fsc_owner *o;
	size_t o_cap;
	uint32_t o_used, o_free, o_live;
	uint32_t *o_chain;
	uint32_t o_mask;
	struct fsc_heap heap[2];
	uint64_t q_units[2];
	struct fsc_ghost *ghost;
	uint32_t ghost_mask, ghost_seq;
	uint32_t hand;
	int64_t no_growth_until;	/* microseconds: the disk was full */
};

/* A block with its place on the disk that is not in the index yet. */
struct fsc_staged {
	struct fsc_shard *sh;		/* NULL: refused */
	struct fsc_id id;
	uint64_t owner, size, tag;
	struct fsc_where where;
	uint32_t block;
	uint16_t len;
	uint8_t freq;			/* reads it had already */
};

void fsc_shard_init(struct fscache *fc, struct fsc_shard *sh, unsigned no, uint64_t bytes, uint32_t e_max);
void fsc_shard_release(struct fsc_shard *sh);
struct fsc_shard *fsc_shard_of(struct fscache *fc, const struct fsc_id *id, uint32_t block);
bool fsc_has(struct fscache *fc, const struct fsc_id *id, uint32_t block);
/* Bytes [from, from+len) of a block, cut at its end, appended to out.  1, 0
 * not here (or damaged and dropped), ERR_LIMIT (out is full).  *size: the
 * object's when that is not 0, else set. */
int fsc_read(struct fscache *fc, const struct fsc_id *id, uint32_t block, uint32_t from, uint32_t len, struct buf *out, uint64_t *size);
/* Finds room for a block and writes it there. */
void fsc_stage(struct fscache *fc, const struct fsc_id *id, uint64_t owner, uint64_t size, uint32_t block, const void *data, size_t len,
	       struct fsc_staged *st);
/* Takes it into the index, or gives its room back when !keep or *voided. */
void fsc_publish(struct fscache *fc, struct fsc_staged *st, bool keep, const atomic_bool *voided);
/* Drops all of an object, beyond what a crash could bring back. */
void fsc_drop_object(struct fscache *fc, const struct fsc_id *id);
void fsc_shard_clean(struct fsc_shard *sh);	/* drops everything, empties the file */
/* A block from the catalogue, at index idx; where is taken over.  False: it cannot be. */
bool fsc_shard_restore(struct fsc_shard *sh, uint32_t idx, const struct fsc_entry *from, uint64_t owner);
void fsc_shard_restored(struct fsc_shard *sh);	/* after the last */

/* All under the shard's lock. */
uint32_t fsc_find(struct fsc_shard *sh, const struct fsc_id *id, uint32_t block);
void fsc_unlink(struct fsc_shard *sh, uint32_t idx);	/* out of the index; its units are free */
void fsc_q_add(struct fsc_shard *sh, uint32_t idx, uint64_t owner_hash);
void fsc_q_del(struct fsc_shard *sh, uint32_t idx);
bool fsc_evict(struct fsc_shard *sh, uint32_t now);	/* one block less; false: there was none */
bool fsc_ghost_take(struct fsc_shard *sh, const struct fsc_id *id, uint32_t block);
void fsc_policy_release(struct fsc_shard *sh);

/* --- get.c, flight.c --- */

struct fsc_get {
	struct fscache *fc;
	struct objstore_op *op;
	struct fsc_id id;
	uint64_t owner;
	uint64_t pos, end;	/* next byte; behind the last, UINT64_MAX = to the end */
	uint64_t size;		/* of the object when sized */
	size_t out_start;
	unsigned restarts;
	bool sized, hit, fetched, leads, over;
	/* while it waits, under the stripe's lock until it is taken off the list */
	struct fsc_get *next;
	struct fsc_flight *flight;
	atomic_int step;
	int rc;
};
struct fsc_flight {
	struct fsc_flight *next, *queued;
	struct fscache *fc;
	atomic_int refs;
	struct fsc_id id;
	uint64_t owner;
	uint32_t lo, hi;	/* blocks; UINT32_MAX = to the end */
	bool landed;
	_Atomic unsigned joined;	/* by so many GETs besides the first */
	atomic_bool voided;	/* the object was changed: not to be kept */
	struct objstore_op inner;
	char *key;
	struct buf data;
	struct fsc_get *waiters;
};
/* PUT, DELETE, COPY of a cacheable object, and a GET past the cache. */
struct fsc_change {
	struct fsc_change *next;
	struct fscache *fc;
	struct objstore_op *op, inner;
	struct fsc_id id;	/* of the object that changes */
	bool bars;		/* fetches of the object are not kept meanwhile */
	atomic_int refs, left;
	struct fsc_staged *staged;
	size_t n_staged;
};
struct fsc_stripe {
	pthread_mutex_t lock;
	struct fsc_flight *flights;
	struct fsc_change *changes;
};

void fsc_get_submit(struct fscache *fc, struct objstore_op *op, const struct fsc_id *id, uint64_t owner);
void fsc_get_resume(struct fsc_get *g);
struct fsc_stripe *fsc_stripe_of(struct fscache *fc, const struct fsc_id *id);
/* g needs its pos: 1 look again, it is cached by now; 0 g waits for a flight
 * (and may be over already: see g->step). */
int fsc_flight_join(struct fsc_get *g);
void fsc_flight_unref(struct fsc_flight *f);
void fsc_flight_store(struct fsc_flight *f);	/* writes it to the disk and ends it */
bool fsc_flight_cancel(struct fscache *fc, const struct objstore_op *op);	/* false: no such GET */
void fsc_flight_expire(struct fscache *fc, int64_t now);
void fsc_change_submit(struct fscache *fc, struct objstore_op *op, const struct fsc_id *id, uint64_t owner);
/* OBJ_DELETE with keys. It cannot be cancelled. */
void fsc_delete_many(struct fscache *fc, struct objstore_op *op);
bool fsc_change_cancel(struct fscache *fc, const struct objstore_op *op);
void fsc_void(struct fscache *fc, const struct fsc_id *id);	/* fetches under way are not kept; drops what is here */
enum { FSC_WAITING = 1, FSC_DONE = 2 };	/* fsc_get.step */

/* --- catalogue.c: under fc->disk_lock --- */

void fsc_catalogue_secret(struct fscache *fc);	/* the keys, from the directory or new */
int fsc_catalogue_open(struct fscache *fc, struct err *err);	/* and the data files; loads */
int fsc_catalogue_flush(struct fscache *fc, bool last, struct err *err);
int fsc_catalogue_clean(struct fscache *fc, struct err *err);
void fsc_catalogue_close(struct fscache *fc, bool clean);

/* --- keeper.c: the cache's own thread --- */

int fsc_keeper_start(struct fscache *fc);
void fsc_keeper_stop(struct fscache *fc);
void fsc_keeper_store(struct fscache *fc, struct fsc_flight *f);	/* takes the reference */
void fsc_keeper_deadline(struct fscache *fc, int64_t us);
void fsc_keeper_drain(struct fscache *fc);
/* The disk failed: code ERR_LIMIT = full.  stop: leave it alone for a while.  Logs once an episode. */
void fsc_disk_failed(struct fscache *fc, int code, bool stop, const struct err *err);

struct fscache {
	struct objstore base;
	struct objstore *below;
	struct fsc_sys sys;
	char *dir;
	uint64_t bytes, data_bytes, db_bytes, journal_bytes;
	fscache_keys_fn *cacheable;
	unsigned idle_s, flush_s, retry_s;
	const unsigned char *hash_key, *mac_key;	/* both in secret */
	struct fsc_shard *shards;
	unsigned n_shards;
	struct fsc_stripe stripes[FSC_STRIPES];
	atomic_long active;		/* operations that others carry on */

	pthread_mutex_t disk_lock;	/* over a shard's lock */
	int dir_fd, lock_fd;		/* -1: the disk is not in use */
	struct sqlite3 *db;
	_Atomic int64_t no_write_until;	/* microseconds */
	_Atomic int64_t failed_at;
	atomic_bool degraded;
	atomic_bool changed;		/* an object was dropped before there was a disk */
	unsigned char secret[FSC_SECRET];

	pthread_t keeper;
	pthread_mutex_t keep_lock;
	pthread_cond_t keep_cond, keep_idle;
	struct fsc_flight *queue, **queue_tail;
	uint64_t backlog;
	bool stop, storing;
	_Atomic int64_t deadline;	/* the next of a waiting GET; INT64_MAX = none */

	struct {
		_Atomic uint64_t hits, partial, misses, hit_bytes, fetched_bytes, fetches, shared, admitted, refused, evicted, corrupt, stale, io_errors;
	} n;
};
#define FSC_COUNT(fc, what, by) atomic_fetch_add_explicit(&(fc)->n.what, (by), memory_order_relaxed)

static inline uint32_t fsc_now_s(const struct fscache *fc)
{
	return (uint32_t)clock_wall_s(fc->sys.clock);
}
static inline int64_t fsc_now_us(const struct fscache *fc)
{
	return clock_mono_us(fc->sys.clock);
}
/* May it be cached?  Then also whose it is. */
bool fsc_known(struct fscache *fc, const char *key, struct fsc_id *id_r, uint64_t *owner_r);
void fsc_id_of(const struct fscache *fc, const char *key, struct fsc_id *id_r);
int fsc_open_with(struct objstore *below, const struct fscache_config *cfg, const struct fsc_sys *sys, struct objstore **s_r, struct err *err);
#endif
