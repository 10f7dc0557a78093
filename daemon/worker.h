/* worker - the process that owns a share of the users: its inner parts, for
 * the files worker*.c and their tests.
 *
 *   loop thread   descriptors, timers, messages from other processes
 *   pool          borrows a session while it has something to do
 *   deliveries    a second pool: deliveries for other workers, helpers of
 *                 large ones, and reading ahead.  These wait for the disk only, never for another
 *                 worker, so two workers full of sessions cannot block each other.
 *   upkeep, tend  obox_upkeep and obox_tend every second
 *
 * Locks, in this order: node.lock, session.lock, worker.peers, worker.lock, pool's own. */
#ifndef DAEMON_WORKER_H
#define DAEMON_WORKER_H
#include <pthread.h>

#include "base/hmap.h"
#include "base/wake.h"
#include "daemon/conn.h"
#include "daemon/node.h"
#include "daemon/pool.h"
#include "daemon/stores.h"
#include "daemon/proc.h"
#include "metacache/metacache.h"

enum { WORKERS_MAX = 64 };

struct session;
struct obox_cluster;
struct obox_owner;
struct obox_user;
struct seal_keys;

/* A request to another process that a thread waits for. */
struct worker_call {
	struct wake done;
	uint32_t id;
	uint64_t serial;		/* of the channel it went to */
	int rc;				/* of the call itself: 0 or ERR_* */
	struct buf answer;		/* what came behind type and id */
};
struct worker_peer {
	struct chan *ch;
	uint64_t serial;		/* of this channel; never used again */
};

/* worker-known.c: addresses that auth knew within the last second, and whose they are. */
struct worker_known {
	pthread_mutex_t lock;
	struct hmap users;		/* address to struct known */
};

/* Something for the loop thread to do, embedded in what it is about. */
struct worker_job {
	struct worker_job *next;
	void (*run)(struct worker *w, struct worker_job *j);
};

struct worker {
	struct proc p;
	struct conn_env env;
	struct stores stores;
	struct seal_keys *keys;
	struct obox_cluster *cluster;	/* NULL: alone */
	struct pool *pool, *deliveries;
	size_t cores;
	int lock_fd;
	/* changed by the loop thread only, with lock */
	struct session *sessions;
	size_t n_sessions;
	/* loop thread only */
	size_t max_sessions;
	struct chan **gates;		/* only talk to us */
	size_t n_gates, cap_gates;
	atomic_bool stopping;		/* set by it, read by all */
	bool idle;
	struct worker_node node;	/* as others see it: node.h */
	struct metacache_reader registry;
	struct loop_timer stop_timer;
	struct loop_src wake_src;
	pthread_t upkeep, tend;
	bool upkeep_on, tend_on;
	struct worker_known known;
	pthread_rwlock_t peers;		/* auth and workers stay as they are; changed with lock too */
	/* under lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;		/* a peer came */
	struct session *graveyard;	/* ended; the loop thread buries them */
	struct worker_peer auth, workers[WORKERS_MAX];
	uint64_t serial;
	struct worker_job *jobs, **jobs_tail;
	uint32_t next_id;
	struct hmap calls;		/* id to struct worker_call; whoever takes one out wakes its thread */
	bool quit;
};

/* worker.c */
/* To be run by the loop thread soon; a job is posted again only after it has begun to run. */
void worker_post(struct worker *w, struct worker_job *j);
/* obox_user_open; when another live node has the user ERR_BUSY with *owner_r filled in, else owner_r->node is "". */
int worker_user_open(struct worker *w, const char *user, struct obox_user **u_r, struct obox_owner *owner_r, struct err *err);
/* worker-sessions.c */
void session_new(struct worker *w, const struct msg_conn *m, int fd);	/* takes fd */
void session_stop_all(struct worker *w, bool now);	/* CONN_EV_STOP to all; now: cut them off */
void session_end_user(struct conn_env *env, const char *user);	/* any thread: CONN_EV_STOP to those that are served here */
void session_bury(struct worker *w);			/* loop thread, between batches */
void session_each(struct conn_env *env, void (*fn)(void *ctx, const struct conn *c, int64_t since), void *ctx);
/* worker-peer.c */
void worker_peer_set(struct worker *w, enum msg_role role, unsigned index, int fd);
void worker_peers_close(struct worker *w);
bool worker_owns(struct conn_env *env, const char *user, unsigned *worker_r);
int worker_user_exists(struct conn_env *env, const char *address, char **user_r, struct err *err);
/* Sends msg (whose id, at offset 1, is filled in) and waits.  call->answer is the caller's to free. */
int worker_call(struct worker *w, bool to_auth, unsigned index, struct buf *msg, int fd, int timeout_ms, struct worker_call *call);
void worker_answer(struct worker *w, unsigned index, uint64_t serial, const struct buf *msg);
/* worker-known.c: any thread; now_ms by loop_clock_ms() */
void worker_known_init(struct worker_known *k);
void worker_known_free(struct worker_known *k);
char *worker_known_get(struct worker_known *k, const char *address, int64_t now_ms);	/* the caller's to free; NULL: ask auth */
void worker_known_put(struct worker_known *k, const char *address, const char *user, int64_t now_ms);
/* worker-deliver.c */
void worker_deliver(struct conn_env *env, struct lmtp_delivery *d);
void worker_deliver_request(struct worker *w, unsigned index, uint64_t serial, uint32_t id, struct rd *r, int fd);
#endif
