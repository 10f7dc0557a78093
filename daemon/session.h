/* session - one connection of a worker, for the files worker-session*.c. */
#ifndef DAEMON_SESSION_H
#define DAEMON_SESSION_H
#include "daemon/lurk.h"
#include "daemon/node-stream.h"
#include "daemon/worker.h"

enum {
	EV_READY = 1 << 16,	/* the socket can be read or written, or is broken */
	EV_KILL = 1 << 17,	/* cut off */
	EV_HUP = 1 << 18,	/* the peer is gone in both directions */
	EV_LEAVE = 1 << 19,	/* CONN_EV_STOP, if it is served here */
	STALL_MS = 60000,	/* a peer that takes no output for so long is gone */
	CLOSE_MS = 10000	/* what the last output may take */
};

enum session_state { SESSION_PARKED, SESSION_QUEUED, SESSION_RUNNING, SESSION_DEAD };

struct session {
	struct conn c;
	struct node_stream *stream;	/* over the socket; NULL: the bytes go as they are */
	struct relay *relay;		/* until it is known that the user is served here */
	struct pool_task task;
	struct loop_src src;
	struct loop_timer timer;
	struct worker *w;
	struct session *next, *prev;	/* all sessions: changed by the loop thread, with worker.lock */
	int64_t since;			/* seconds UTC */
	struct session *next_dead;
	pthread_mutex_t lock;		/* of state, pending */
	enum session_state state;
	unsigned pending;
	enum conn_want want;
	int64_t active_ms;		/* last input, or end of a drain */
	struct lurk lurk;		/* with lock */
	bool brisk;			/* the last input came within LURK_MS */
	bool readable;			/* recv may have something */
	bool engine;			/* ops->run was called: ops->free is due */
	bool eof, broken, closing;
};

/* worker-session.c */
void session_run(struct pool_task *t);
void session_wake(struct session *s, unsigned events);	/* any thread */
/* worker-sessions.c */
const struct conn_ops *session_engine(unsigned proto);	/* NULL: no such protocol */
/* Any thread. The session is nobody's yet: session_add() or session_release() it. */
struct session *session_make(struct worker *w, const struct conn_ops *ops, const struct msg_conn *m);
void session_add_stream(struct session *s, int fd, bool connected);	/* it will speak as a node over fd */
void session_release(struct session *s);
int session_add(struct session *s, int fd);	/* loop thread; takes fd in any case. 0, or -1: release it */
/* From ops->run: the session is another one from now on, which runs from its start. With m it is that user's, from
 * the client on from_node.  To be followed by CONN_WANT_AGAIN. */
void session_become(struct conn *c, const struct conn_ops *ops, const struct msg_conn *m, const char *from_node);
/* From whoever runs it: another node serves it (NULL: it does not). */
void session_served_at(struct conn *c, const char *node);
#endif
