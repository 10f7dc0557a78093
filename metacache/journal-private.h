/* The journal in the store, inside: journal-store.c (what the rest of Culver
 * calls) and journal-send.c (pieces on their way).  The invariants are at the
 * top of journal-store.c.  Everything here is called with store_journal.lock. */
#ifndef METACACHE_JOURNAL_PRIVATE_H
#define METACACHE_JOURNAL_PRIVATE_H
#include "metacache/metacache-private.h"

#include "base/wake.h"

enum { ONE_APPEND_MAX = 256 << 20, LOOK_US = 100000 };

struct piece {
	struct piece *next;
	struct store_journal *j;
	enum { QUEUED, READY, FLYING, ASK, STORED } state;	/* ASK: a name that exists is to be read back */
	uint64_t first, upto;		/* tickets */
	uint64_t n, seq;
	struct buf entries, sealed;
	struct iovec iov;
	char *key;
	struct objstore_op op;
	int64_t queued_us, sent_us, retry_us;
	unsigned failures;
};

/* A thread in store_wait(), on its stack; off the list means: woken, or about to be. */
struct waiter {
	struct waiter *next, **at;
	uint64_t ticket;
	struct wake wake;
};

struct store_journal {
	struct journal base;
	struct metacache *mc;
	pthread_mutex_t lock;
	pthread_cond_t landed, work;	/* on CLOCK_MONOTONIC: for who steps without threads; for the journal's thread */
	struct piece *head, **end;
	struct waiter *waiters;
	unsigned flying;
	bool stepping, trouble, woken;
	int64_t sleeps_until_us;	/* the journal's thread; 0: it is awake */
	uint64_t queued, durable, wanted;	/* tickets */
	uint64_t queue_bytes;
	uint64_t next_seq, floor, deleted;	/* deleted: pieces below are gone from the store */
	uint64_t bytes, bytes_at_rotate, bytes_again, rotate_seq;
	int64_t rtt_us, last_sent_us;
	uint64_t puts, retries, put_bytes;
};

void piece_free(struct piece *p);
void journal_wait_us(pthread_cond_t *c, pthread_mutex_t *m, int64_t us);
bool journal_degraded(const struct store_journal *j);
/* Wakes those whose tickets are durable, or all: each looks for itself what that means. */
void journal_tell(struct store_journal *j, bool all);
/* Wakes the journal's thread if it sleeps past what there is to do. */
void journal_nudge(struct store_journal *j);
#endif
