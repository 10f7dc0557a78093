/* harness - IMAP sessions in one process, without sockets: a store in memory,
 * an obox on a temporary directory, and connections that are only buffers. */
#ifndef TESTS_IMAP_HARNESS_H
#define TESTS_IMAP_HARNESS_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "daemon/conn.h"
#include "objstore/objstore.h"
#include "obox/obox.h"

struct world {
	char dir[64];
	struct objstore *store;		/* the fault wrapper */
	struct seal_keys *keys;
	struct obox *obox;
	struct conn_env env;
};

void world_open(struct world *w);
void world_close(struct world *w);
/* As after a restart with an empty disk: what is left is what the store has.  No sessions may be open. */
void world_reopen(struct world *w);
/* Nothing of the store can be reached, or all again. */
void world_store_down(struct world *w, bool down);

struct client {
	struct conn conn;	/* first: conn_wake and conn_flush get this */
	struct buf got;		/* what the server sent and nobody looked at yet */
	size_t sent_ahead;	/* of conn.out: taken by conn_flush */
	atomic_bool woken;
	bool slow;		/* conn_flush takes nothing */
	bool closed;
	bool started;
	unsigned runs, drains, agains;	/* how often it ran; how it paused */
	size_t out_peak;
};

struct client *client_new(struct world *w, const char *user, const char *tag);
void client_free(struct client **c);
void client_send(struct client *c, const void *data, size_t len);	/* and runs until it waits */
void client_queue(struct client *c, const void *data, size_t len);	/* without running */
/* Runs with the events until the session waits for input. */
void client_run(struct client *c, unsigned events);
/* The next response, whole lines with their literals, without the last line
 * end; NULL when there is none.  Freed by the caller. */
char *client_line(struct client *c, size_t *len_r);

/* Puts a message into a mailbox from outside; returns its UID. */
uint32_t world_deliver(struct world *w, const char *user, const char *mailbox, const void *msg, size_t len, uint32_t flags);
#endif
