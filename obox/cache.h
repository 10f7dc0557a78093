/* cache - what obox asks of whoever keeps copies of users' snapshots and log
 * segments on this machine's disk (metacache/metadisk.h).
 *
 * Copies only, sealed as the store has them, each under its name within the
 * user ("idx/...", "log/..."; docs/format.md).  The cache is believed in
 * nothing: root, read from the store at every opening, names the user snapshot and the
 * end of the log by hash, the user snapshot names every mailbox's, and segments name each other;
 * what does not fit is dropped and read from the store.  So a cache may
 * lose, tear, mix up or bring back anything, at any time.
 *
 * Errors:  none; what cannot be read is not there, what cannot be kept is not.
 * Threads: any; they may wait for the disk, note() and used() do not. */
#ifndef OBOX_CACHE_H
#define OBOX_CACHE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct obox_cache;
struct obox_cache_note {	/* a user that this node owns */
	uint64_t epoch, seq;	/* of root; the last segment of the log it names */
	bool dirty;		/* there are records that are not in that log */
};
struct obox_cache_ops {
	/* Appends to sealed.  1 there, 0 not. */
	int (*get)(struct obox_cache *c, const char *user, const char *name, struct buf *sealed);
	/* Takes the place of what has that name.  May make room by giving up other users, the coldest first, never dirty ones. */
	void (*put)(struct obox_cache *c, const char *user, const char *name, const void *sealed, size_t len);
	/* name NULL: all of the user. */
	void (*drop)(struct obox_cache *c, const char *user, const char *name);
	/* Drops what named() says no to; it must not call the cache. */
	void (*keep)(struct obox_cache *c, const char *user, bool (*named)(void *ctx, const char *name), void *ctx);
	void (*note)(struct obox_cache *c, const char *user, const struct obox_cache_note *n);
	void (*used)(struct obox_cache *c, const char *user);	/* somebody has it open, or had until now */
	void (*tend)(struct obox_cache *c);	/* every second or so */
	/* Was something not kept because only dirty users could have gone?  Then the longest dirty are uploaded now. */
	bool (*pressed)(struct obox_cache *c);
};
struct obox_cache {
	const struct obox_cache_ops *ops;
};
#endif
