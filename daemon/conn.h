/* conn - one client connection as a protocol engine sees it: bytes in, bytes
 * out, no socket.
 *
 * The worker runs an engine's session on a borrowed pool thread whenever it
 * has something to do; between runs a session is only memory and a place in
 * epoll.  An engine never waits for the client: it consumes what is in c->in,
 * appends to c->out and returns what it is waiting for.  It may block on the
 * disk and the store.
 *
 * Rules
 *  (1) At most one thread runs a session at a time.
 *  (2) c->out is sent after run() returns (and by conn_flush as far as the
 *      socket takes it at once, without waiting).  When more than
 *      CONN_OUT_HIGH bytes are pending an engine should return CONN_WANT_DRAIN
 *      and go on where it was when it is run with CONN_EV_DRAINED.
 *  (3) Input is read only while the engine returned CONN_WANT_INPUT, so a
 *      client that pipelines without reading costs one buffer of CONN_IN_MAX.
 *  (4) conn_wake() may be called by any thread, with locks held; the session
 *      is then run with CONN_EV_WAKE soon, exactly once for any number of calls.
 *  (5) After CONN_CLOSE (pending output is still sent, for a bounded time) or
 *      when the peer is gone, ops->free is called once, by a pool thread. */
#ifndef DAEMON_CONN_H
#define DAEMON_CONN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct conn;
struct obox;
struct obox_user;
struct lmtp_delivery;
struct metacache_reader;
struct obox_cluster;

enum { CONN_IN_MAX = 64 * 1024, CONN_OUT_HIGH = 128 * 1024 };

enum conn_events {
	CONN_EV_START = 1,	/* first run: greet, or go on after the login */
	CONN_EV_INPUT = 2,	/* c->in has new bytes */
	CONN_EV_DRAINED = 4,	/* c->out is empty again after CONN_WANT_DRAIN */
	CONN_EV_WAKE = 8,	/* conn_wake was called */
	CONN_EV_EOF = 16,	/* the client sent its last byte; c->in may still hold some */
	CONN_EV_TIMEOUT = 32,	/* c->timeout_ms went by with no input */
	CONN_EV_STOP = 64	/* the server is stopping: say goodbye and return CONN_CLOSE */
};
enum conn_want {
	CONN_WANT_INPUT,	/* run again when there is more input */
	CONN_WANT_DRAIN,	/* run again when the output was sent */
	CONN_WANT_AGAIN,	/* more to do at once, but give other sessions a turn */
	CONN_WANT_WAKE,		/* run again when conn_wake was called; input is not read */
	CONN_CLOSE		/* send what is pending, then close */
};

struct conn_ops {
	const char *name;	/* "imap", "pop3", "lmtp", "admin" */
	enum conn_want (*run)(struct conn *c, unsigned events);
	void (*free)(struct conn *c);
};

struct conn {
	/* the engine's */
	void *session;
	int timeout_ms;		/* without input; 0 = none; may be changed in run() */
	struct buf in;		/* unread input; the engine consumes from the front */
	struct buf out;
	/* set by the worker before the first run */
	const struct conn_ops *ops;
	struct conn_env *env;
	char id[24];		/* session id for the log */
	char peer[64], local[64];	/* "127.0.0.1:4711"; "unix" */
	bool tls;		/* the client's side is encrypted */
	bool loopback;		/* the client is on this machine */
	char *user;		/* logged in as; NULL for LMTP and admin */
	char *to_node;		/* it is served there, this node passes it on; NULL: it is served here */
	char *from_node;	/* the client is connected to that node; NULL: to this one */
	char *tag;		/* IMAP: tag of the LOGIN or AUTHENTICATE that is still to be answered OK */
	void *worker;		/* the worker's own */
};

/* What engines get of the process they run in. */
struct conn_env {
	struct obox *obox;
	struct objstore *fscache;	/* the mail store, when there is a cache on disk in front of it; else NULL */
	const char *hostname;
	const char *version;
	uint64_t max_message;		/* octets */
	uint32_t max_command;		/* IMAP: bytes of one command line with its non-streamed literals */
	const char *recipient_delimiter;	/* "+" */
	/* LMTP: is there such a user?  1 yes, with the name to use in *user_r
	 * (owned by the caller); 0 no; <0 not known now (temporary). Blocks. */
	int (*user_exists)(struct conn_env *env, const char *address, char **user_r, struct err *err);
	/* Does this worker own user?  false: another one does (its number in *worker_r). NULL: there is only this one. */
	bool (*owner)(struct conn_env *env, const char *user, unsigned *worker_r);
	/* Calls fn for each session of this worker; since: seconds UTC. NULL: not known.
	 * fn must not wait and not end sessions. */
	void (*each_session)(struct conn_env *env, void (*fn)(void *ctx, const struct conn *c, int64_t since), void *ctx);
	uint32_t max_recipients;	/* LMTP: of one transaction */
	bool detail_mailbox;		/* LMTP: user+detail goes to the mailbox detail when there is one */
	/* LMTP: delivers to users of this worker and of others, see lmtp/lmtp.h. Blocks. */
	void (*deliver)(struct conn_env *env, struct lmtp_delivery *d);
	/* Calls fn(ctx, 0..n-1), some of them on other threads, and returns when all have
	 * returned; fn may wait for the disk. NULL: call them one after the other. */
	void (*each)(struct conn_env *env, size_t n, void (*fn)(void *ctx, size_t i), void *ctx);
	/* admin: the other nodes on this store (NULL: journal = local, there are none), and what a link to one needs */
	struct obox_cluster *cluster;
	const struct metacache_reader *registry;
	const char *node_name;
	const unsigned char *node_key;
	/* Ends the sessions of user that are served here, with a goodbye; waits for nothing. NULL: there are none. */
	void (*end_sessions)(struct conn_env *env, const char *user);
	bool (*stopping)(struct conn_env *env);	/* is the process told to stop? NULL: never */
	void *worker;
};

void conn_wake(struct conn *c);
/* Sends what the socket takes now; returns the bytes still pending. For long
 * answers made in one run, so that memory stays bounded: see rule (2). */
size_t conn_flush(struct conn *c);

extern const struct conn_ops imap_conn_ops;	/* daemon/imap/ */
extern const struct conn_ops pop3_conn_ops;	/* daemon/pop3/ */
extern const struct conn_ops lmtp_conn_ops;	/* daemon/lmtp/ */
extern const struct conn_ops admin_conn_ops;	/* daemon/admin/ */
#endif
