/* chan - a message channel between two of culverd's processes: datagrams in
 * order over a unix SOCK_SEQPACKET, each with at most one descriptor.
 *
 * What the peer does not take at once is queued and sent from the loop, so
 * sending never blocks.
 * Threads: chan_send from any; the rest from the loop's thread. */
#ifndef DAEMON_CHAN_H
#define DAEMON_CHAN_H
#include <pthread.h>

#include "base/buf.h"
#include "daemon/loop.h"

enum { CHAN_MSG_MAX = 60 * 1024 };

struct chan;
struct chan_ops {
	/* One message; fd is -1 or the receiver's to close. */
	void (*message)(struct chan *ch, struct rd *r, int fd);
	/* The peer is gone: the handler may chan_free(). */
	void (*closed)(struct chan *ch);
};
struct chan_item;
struct chan {
	struct loop_src src;
	struct loop *loop;
	const struct chan_ops *ops;
	void *owner;
	unsigned peer;			/* index of the process at the other end */
	pthread_mutex_t lock;		/* of what follows */
	struct chan_item *head, **tail;
	size_t queued;			/* messages */
	bool dead;
};

/* Takes fd over; NULL with errno when it cannot be watched. */
struct chan *chan_new(struct loop *l, int fd, const struct chan_ops *ops, void *owner, unsigned peer);
/* Closes; queued messages and their descriptors are dropped.  From within ops too. */
void chan_free(struct chan **ch);
/* 0, or -1 when the peer is gone or the message too large.  fd (or -1) is
 * the channel's from now on, whatever is returned. */
int chan_send(struct chan *ch, const struct buf *msg, int fd);
#endif
