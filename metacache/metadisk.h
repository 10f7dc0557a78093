/* metadisk - what this machine's disk holds of users' snapshots and logs, so
 * that a restart, or a user who comes back, costs the store one read of root
 * and no snapshot.
 *
 * Copies only, sealed as the store has them, in one SQLite file that is also
 * the catalogue: users (owner's epoch, last uploaded segment, dirty since,
 * bytes, last use) and their objects.  obox believes nothing of it: see obox/cache.h.
 *
 * Bounds:  blocks in use on the disk in the directory never exceed `bytes`,
 *          SQLite's journal included.  One user gets at most a quarter.
 * Errors:  of the disk never reach a caller: what cannot be read is not there,
 *          what cannot be written is not kept.
 * Threads: any.  note() and used() take a lock for microseconds, the rest may
 *          wait for the disk. */
#ifndef METACACHE_METADISK_H
#define METACACHE_METADISK_H
#include "base/clock.h"
#include "base/err.h"
#include "obox/cache.h"

#define METADISK_BYTES_MIN (UINT64_C(1) << 20)
enum { METADISK_KEY_BYTES = 32 };
#define METADISK_KEY_LABEL "culver metacache 1"	/* for seal_derive */

struct metadisk_config {
	const char *dir;		/* this process's alone; made when missing; copied */
	uint64_t bytes;			/* at least METADISK_BYTES_MIN */
	const unsigned char *key;	/* METADISK_KEY_BYTES: users' names are kept as hashes under it */
	unsigned flush_s;		/* how often last uses go to the catalogue; 0 = 30 s */
	unsigned retry_s;		/* how long to leave a failing disk alone; 0 = 60 s */
	const struct clock *clock;	/* NULL = the system's */
};

struct metadisk_stats {
	uint64_t bytes_max;	/* the bound */
	uint64_t bytes_used;	/* of objects */
	uint64_t bytes_disk;	/* of the files */
	uint64_t users, dirty, objects;
	uint64_t hits, misses, hit_bytes;	/* objects asked for */
	uint64_t kept, refused;	/* objects; refused: too large, or only dirty users could have gone */
	uint64_t evicted;	/* users */
	uint64_t dropped;	/* users or objects given up by obox: of no use any more, damaged, evicted by hand */
	uint64_t io_errors;
	bool degraded;		/* the disk is left alone, or full: see the log */
};

/* 0, or ERR_INVALID for a bad config.  A disk that cannot be used, or a
 * directory held by another process, is no error: a line is logged, nothing is
 * cached and it is tried again every retry_s. */
int metadisk_open(const struct metadisk_config *cfg, struct obox_cache **c_r, struct err *err);
void metadisk_close(struct obox_cache **c);
void metadisk_abandon(struct obox_cache **c);	/* the same as a killed process leaves it: for tests */
void metadisk_stats(struct obox_cache *c, struct metadisk_stats *st);
/* For `culverctl cache clean`: forgets all and gives the space back.  0 or ERR_IO. */
int metadisk_clean(struct obox_cache *c, struct err *err);
#endif
