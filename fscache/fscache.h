/* fscache - local disk copies of immutable remote objects, as a store around
 * a store.
 *
 * Copies only: the store below stays the truth, so losing the directory costs
 * latency and never mail.  Bytes are kept as the store has them (sealed).
 *
 * What is cached are blocks of FSCACHE_BLOCK bytes of objects that the
 * predicate accepts; such objects must never change once they are there.
 *  - GET: blocks that are here are read here, the rest is fetched in as few
 *    ranges as can be and kept; concurrent GETs of the same blocks share one
 *    fetch.  A GET with want_etag always asks the store and drops what is
 *    cached of the object: the way to read again what turned out damaged.
 *    A GET with uncached is passed on: the way to look at the store itself.
 *  - PUT create-only: kept while it is written through.
 *  - Other PUTs, DELETE, COPY onto: what is cached of the object is dropped.
 *  - HEAD, LIST, SYNC and other objects: passed to the store as they are.
 *
 * Bounds:  blocks in use on the disk in the directory never exceed `bytes`,
 *          the catalogue and its journal included.
 * Errors:  of the disk never reach a caller: what cannot be read is fetched,
 *          what cannot be written is not kept.
 * Threads: any number.  A hit is answered in the caller's thread (a small
 *          pread a block, a checksum); done() of the rest comes from threads
 *          of the store below or from the cache's own. */
#ifndef FSCACHE_FSCACHE_H
#define FSCACHE_FSCACHE_H
#include "objstore/objstore.h"

enum { FSCACHE_BLOCK = 32 * 1024 };
#define FSCACHE_BYTES_MIN (UINT64_C(4) << 20)

/* True when key may be cached; *owner_r is then the part of it that names
 * whose it is (borrowed from key).  Called often, from any thread. */
typedef bool fscache_keys_fn(const char *key, const char **owner_r, size_t *len_r);

struct fscache_config {
	const char *dir;		/* this process's alone; made when missing; copied */
	uint64_t bytes;			/* at least FSCACHE_BYTES_MIN */
	fscache_keys_fn *cacheable;
	unsigned idle_s;		/* what nobody read for so long goes first; 0 = six hours */
	unsigned flush_s;		/* how often changes go to the catalogue; 0 = 30 s */
	unsigned retry_s;		/* how long to leave a failing disk alone; 0 = 60 s */
};

struct fscache_stats {
	uint64_t bytes_max;	/* the bound */
	uint64_t bytes_used;	/* of cached blocks, as they lie on the disk */
	uint64_t bytes_disk;	/* of the data files and the catalogue */
	uint64_t blocks, owners;
	uint64_t hits, partial, misses;	/* GETs answered without, partly with, and only with the store */
	uint64_t hit_bytes, fetched_bytes;
	uint64_t fetches;	/* GETs sent to the store */
	uint64_t shared;	/* GETs that waited for another one's fetch */
	uint64_t admitted, refused, evicted;	/* blocks */
	uint64_t corrupt;	/* blocks that failed their checksum */
	uint64_t stale;		/* the same after a crash: the catalogue was older than the data */
	uint64_t io_errors;
	bool degraded;		/* the disk is left alone, or full: see the log */
};

/* Wraps below, which the wrapper then owns and closes.  0, or ERR_INVALID for
 * a bad config (below then stays the caller's).  A disk that cannot be used,
 * or a directory still held by another process, is no error: a line is logged,
 * all is passed through and the disk is tried again every retry_s.
 * Blocks: reads the catalogue.  Starts a thread. */
int fscache_open(struct objstore *below, const struct fscache_config *cfg, struct objstore **s_r, struct err *err);

/* For `culverctl cache status` and metrics; s is a store of fscache_open. */
void fscache_stats(struct objstore *s, struct fscache_stats *st);
/* For `culverctl cache clean`: forgets all and gives the space back.  0 or ERR_IO. */
int fscache_clean(struct objstore *s, struct err *err);
/* Drops what is cached of one object. */
void fscache_forget(struct objstore *s, const char *key);
/* Waits until everything fetched so far is on the disk and in the catalogue (tests, tools). */
void fscache_flush(struct objstore *s);
/* Deletes the cache directories <base>/<n> for n >= keep, n a decimal number:
 * of workers that are no more.  Those in use are left.  0 or ERR_IO. */
int fscache_trim(const char *base, unsigned keep, struct err *err);

/* A ready predicate: keys that end in /<owner>/m/<name>. */
bool fscache_keys_mail(const char *key, const char **owner_r, size_t *len_r);
#endif
