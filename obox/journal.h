/* journal - what a node promises before it answers: records of all its users,
 * in the order in which they were applied, durable when journal_wait() says so.
 *
 * Two drivers: a file of this machine (journal.c), and objects in the store
 * (metacache/).  A journal belongs to one incarnation of one node.
 *
 * Tickets: every append gives one, in order; what is durable is a prefix of them.
 * Threads: any thread may call anything; none of these holds a lock that the
 * caller of another needs. */
#ifndef OBOX_JOURNAL_H
#define OBOX_JOURNAL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct journal_object { const char *key; const void *data; size_t len; };
struct journal_entry {	/* everything borrowed for the call */
	const char *user;
	uint64_t epoch, lsn;
	uint64_t landed;		/* saves of this user below that lsn have their objects in the store, or a record up to this one expunges them; 0: not said */
	const void *rec;
	size_t rec_len;
	struct journal_object object;	/* key NULL: none */
};

struct journal;
struct journal_ops {
	bool holds_objects;	/* small message objects may ride in it */
	int (*append)(struct journal *j, const struct journal_entry *e, size_t n, bool force, uint64_t *ticket_r, struct err *err);
	void (*start)(struct journal *j, uint64_t ticket);
	int (*wait)(struct journal *j, uint64_t ticket, struct err *err);
	bool (*done)(struct journal *j, uint64_t ticket);
	bool (*push)(struct journal *j);
	int (*sync)(struct journal *j, struct err *err);
	uint64_t (*bytes)(struct journal *j);
	bool (*long_tail)(struct journal *j);
	int (*rotate)(struct journal *j, uint64_t *old_r, struct err *err);
	void (*drop)(struct journal *j, uint64_t upto);
	void (*prepare)(struct journal *j);
	void (*close)(struct journal *j);
};
struct journal { const struct journal_ops *ops; };	/* a driver's own structure begins with it */

/* Appends n entries, in call order and all or none; they are copied but for the object's bytes, which
 * stay borrowed until journal_wait().  *ticket_r is for journal_wait.
 * ERR_LIMIT, ERR_IO, ERR_UNAVAILABLE (the store takes nothing now), ERR_FENCED: nothing was appended. */
static inline int journal_append(struct journal *j, const struct journal_entry *e, size_t n, uint64_t *ticket_r, struct err *err)
{
	return j->ops->append(j, e, n, false, ticket_r, err);
}
/* The same for what must follow an entry that cannot be acknowledged: taken even while the store is away. */
static inline int journal_append_forced(struct journal *j, const struct journal_entry *e, size_t n, uint64_t *ticket_r, struct err *err)
{
	return j->ops->append(j, e, n, true, ticket_r, err);
}
/* Everything up to ticket is wanted durable soon; does not wait. */
static inline void journal_start(struct journal *j, uint64_t ticket)
{
	j->ops->start(j, ticket);
}
/* Blocks until everything up to ticket is durable and may be acknowledged.  ERR_UNAVAILABLE: it may still
 * become durable later (journal_done), behind what was appended before and before what is appended from
 * now on, but this caller must not acknowledge it.  ERR_FENCED, ERR_IO: never. */
static inline int journal_wait(struct journal *j, uint64_t ticket, struct err *err)
{
	return j->ops->wait(j, ticket, err);
}
static inline bool journal_done(struct journal *j, uint64_t ticket)
{
	return j->ops->done(j, ticket);
}
/* Flags were appended: a local journal hands them to the kernel, so that they survive the process; the
 * store's is written within flag_commit_delay.  Does not wait.  False: something taken before is later than
 * that already, so these must not be acknowledged before journal_wait(). */
static inline bool journal_push(struct journal *j)
{
	return j->ops->push(j);
}
static inline int journal_sync(struct journal *j, struct err *err)		/* everything so far is durable */
{
	return j->ops->sync(j, err);
}
static inline uint64_t journal_bytes(struct journal *j)			/* that a recovery would have to read */
{
	return j->ops->bytes(j);
}
/* Has it become so many pieces that what is still needed should be written anew? */
static inline bool journal_long_tail(struct journal *j)
{
	return j->ops->long_tail(j);
}
/* Entries appended from now on are in pieces > *old_r.  journal_drop(n) gives up the pieces <= n: all their
 * entries are in their users' logs, or were appended again and are durable. */
static inline int journal_rotate(struct journal *j, uint64_t *old_r, struct err *err)
{
	return j->ops->rotate(j, old_r, err);
}
static inline void journal_drop(struct journal *j, uint64_t upto)
{
	j->ops->drop(j, upto);
}
/* Upkeep of the driver's own; call it every second or so.  May wait for the disk. */
static inline void journal_prepare(struct journal *j)
{
	j->ops->prepare(j);
}
/* What was not durable may be lost. */
static inline void journal_close(struct journal **j)
{
	if (*j)
		(*j)->ops->close(*j);
	*j = NULL;
}
#endif
