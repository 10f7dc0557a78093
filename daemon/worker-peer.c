/* The worker's channels to auth and the other workers, and requests over them
 * that a pool thread waits for. */
#include "daemon/worker.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>

enum { EXISTS_MS = 10000, RESTART_MS = 5000, TRIES = 3 };

static struct timespec after_ms(int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000L;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static struct worker_peer *peer_at(struct worker *w, bool auth, unsigned index)
{
	return auth ? &w->auth : &w->workers[index % WORKERS_MAX];
}

/* --- the loop thread's side --- */

/* With the lock: nobody will answer what was asked on that channel. */
static void fail_calls(struct worker *w, uint64_t serial)
{
	struct worker_call *c;
	size_t pos = 0;
	void *v;

	while (hmap_next(&w->calls, &pos, NULL, NULL, &v)) {
		c = v;
		if (c->serial != serial)
			continue;
		hmap_del(&w->calls, &c->id, sizeof(c->id));
		c->rc = ERR_UNAVAILABLE;
		wake_up(&c->done);
		pos = 0;	/* the table has changed */
	}
}

static void on_answer(struct worker *w, struct rd *r)
{
	uint32_t id = rd_32(r);
	struct worker_call *c = NULL;

	pthread_mutex_lock(&w->lock);
	if (!r->failed)
		c = hmap_get(&w->calls, &id, sizeof(id));
	if (c)
		hmap_del(&w->calls, &id, sizeof(id));
	pthread_mutex_unlock(&w->lock);
	if (c) {
		buf_add(&c->answer, r->p, rd_left(r));
		wake_up(&c->done);
	}
}

static uint64_t serial_of(struct worker *w, unsigned index)
{
	return w->workers[index].serial;
}

static void on_message(struct chan *ch, struct rd *r, int fd)
{
	struct worker *w = ch->owner;
	unsigned type = rd_8(r);
	struct msg_conn m;

	if (type == MSG_ANSWER || type == MSG_DELIVERED) {
		on_answer(w, r);
	} else if (type == MSG_CONN && fd >= 0) {
		if (msg_conn_get(r, &m) == 0) {
			session_new(w, &m, fd);
			fd = -1;
		}
	} else if (type == MSG_DELIVER && ch->peer < WORKERS_MAX) {
		uint32_t id = rd_32(r);

		worker_deliver_request(w, ch->peer, serial_of(w, ch->peer), id, r, fd);
		fd = -1;
	}
	io_close(&fd);
}

static void on_closed(struct chan *ch)
{
	struct worker *w = ch->owner;
	struct worker_peer *p = NULL;
	unsigned i;

	pthread_rwlock_wrlock(&w->peers);
	pthread_mutex_lock(&w->lock);
	if (w->auth.ch == ch)
		p = &w->auth;
	for (i = 0; i < WORKERS_MAX && !p; i++)
		if (w->workers[i].ch == ch)
			p = &w->workers[i];
	if (p) {
		fail_calls(w, p->serial);
		chan_free(&p->ch);
	}
	pthread_mutex_unlock(&w->lock);
	pthread_rwlock_unlock(&w->peers);
	for (i = 0; i < w->n_gates && !p; i++) {
		if (w->gates[i] != ch)
			continue;
		w->gates[i] = w->gates[--w->n_gates];
		chan_free(&ch);
		break;
	}
}

static const struct chan_ops peer_ops = { on_message, on_closed };

void worker_peer_set(struct worker *w, enum msg_role role, unsigned index, int fd)
{
	struct worker_peer *p = role == ROLE_GATE ? NULL : peer_at(w, role == ROLE_AUTH, index);
	struct chan *ch = chan_new(&w->p.loop, fd, &peer_ops, w, index);

	if (!ch) {
		log_event(LOG_ERROR, "a channel cannot be watched", LF_S("why", strerror(errno)), LF_END);
		return;
	}
	if (!p) {
		mem_grow(&w->gates, &w->cap_gates, w->n_gates + 1, sizeof(*w->gates));
		w->gates[w->n_gates++] = ch;
		return;
	}
	pthread_rwlock_wrlock(&w->peers);
	pthread_mutex_lock(&w->lock);
	if (p->ch) {
		fail_calls(w, p->serial);
		chan_free(&p->ch);
	}
	p->ch = ch;
	p->serial = ++w->serial;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_rwlock_unlock(&w->peers);
}

void worker_peers_close(struct worker *w)
{
	unsigned i;

	pthread_rwlock_wrlock(&w->peers);
	pthread_mutex_lock(&w->lock);
	chan_free(&w->auth.ch);
	for (i = 0; i < WORKERS_MAX; i++)
		chan_free(&w->workers[i].ch);
	pthread_mutex_unlock(&w->lock);
	pthread_rwlock_unlock(&w->peers);
	while (w->n_gates)
		chan_free(&w->gates[--w->n_gates]);
	free(w->gates);
}

/* --- the pool threads' side --- */

/* It is being started again: waits for it, for a bounded time. */
static void await_peer(struct worker *w, struct worker_peer *p)
{
	struct timespec until = after_ms(RESTART_MS);
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	while (!p->ch && !w->quit && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&w->changed, &w->lock, &until);
	pthread_mutex_unlock(&w->lock);
}

/* Enters the call and sends its message; takes fd.  False: there is nobody. */
static bool ask(struct worker *w, struct worker_peer *p, struct buf *msg, int fd, struct worker_call *call)
{
	bool sent = false;

	pthread_rwlock_rdlock(&w->peers);
	if (!p->ch) {
		io_close(&fd);
	} else {
		pthread_mutex_lock(&w->lock);
		if (!++w->next_id)	/* 0 is no call's */
			w->next_id = 1;
		call->id = w->next_id;
		call->serial = p->serial;
		hmap_put(&w->calls, &call->id, sizeof(call->id), call);
		pthread_mutex_unlock(&w->lock);
		memcpy(msg->data + 1, &call->id, sizeof(call->id));
		sent = chan_send(p->ch, msg, fd) == 0;
	}
	pthread_rwlock_unlock(&w->peers);
	return sent;
}

/* Takes the call back; false when it is being answered at this moment. */
static bool withdraw(struct worker *w, struct worker_call *call)
{
	bool there;

	pthread_mutex_lock(&w->lock);
	there = call->id && hmap_get(&w->calls, &call->id, sizeof(call->id)) == call;
	if (there)
		hmap_del(&w->calls, &call->id, sizeof(call->id));
	pthread_mutex_unlock(&w->lock);
	return there || !call->id;
}

int worker_call(struct worker *w, bool to_auth, unsigned index, struct buf *msg, int fd, int timeout_ms, struct worker_call *call)
{
	struct worker_peer *p = peer_at(w, to_auth, index);
	bool there;

	memset(call, 0, sizeof(*call));
	wake_init(&call->done);
	pthread_rwlock_rdlock(&w->peers);
	there = p->ch != NULL;
	pthread_rwlock_unlock(&w->peers);
	if (!there)
		await_peer(w, p);
	if (!ask(w, p, msg, fd, call)) {
		if (withdraw(w, call))
			call->rc = ERR_UNAVAILABLE;
		else
			wake_wait(&call->done, -1);
	} else if (!wake_wait(&call->done, timeout_ms)) {
		if (withdraw(w, call))
			call->rc = ERR_TIMEOUT;
		else
			wake_wait(&call->done, -1);
	}
	return call->rc;
}

void worker_answer(struct worker *w, unsigned index, uint64_t serial, const struct buf *msg)
{
	struct worker_peer *p = peer_at(w, false, index);

	pthread_rwlock_rdlock(&w->peers);
	if (p->ch && p->serial == serial)	/* who asked has not been replaced */
		(void)chan_send(p->ch, msg, -1);
	pthread_rwlock_unlock(&w->peers);
}

bool worker_owns(struct conn_env *env, const char *user, unsigned *worker_r)
{
	struct worker *w = env->worker;

	*worker_r = msg_worker_of(user, (unsigned)w->p.conf.worker_count);
	return *worker_r == w->p.index;
}

/* 1 with the user, 0, <0. */
static int ask_auth(struct worker *w, const char *address, char **user_r)
{
	struct worker_call call;
	struct buf msg = BUF_INIT(CHAN_MSG_MAX);
	int tries, rc = ERR_UNAVAILABLE;

	buf_put8(&msg, MSG_EXISTS);
	buf_put32(&msg, 0);
	msg_put_str(&msg, address);
	/* time may also be up because the machine was asleep: then auth has it ready */
	for (tries = 0; tries < TRIES && (rc == ERR_UNAVAILABLE || (rc == ERR_TIMEOUT && tries == 1)); tries++) {
		rc = worker_call(w, true, 0, &msg, -1, EXISTS_MS, &call);
		if (rc == 0) {
			struct rd r = rd_init(call.answer.data, call.answer.len);
			unsigned result = rd_8(&r);

			rc = result == ANSWER_YES ? 1 : result == ANSWER_NO ? 0 : ERR_BUSY;
			if (rc == 1)
				*user_r = mem_strdup(msg_get_str(&r));
		}
		buf_free(&call.answer);
	}
	buf_free(&msg);
	return rc;
}

int worker_user_exists(struct conn_env *env, const char *address, char **user_r, struct err *err)
{
	struct worker *w = env->worker;
	int rc;

	*user_r = worker_known_get(&w->known, address, loop_clock_ms());
	if (*user_r)
		return 1;
	rc = ask_auth(w, address, user_r);
	if (rc == 1)
		worker_known_put(&w->known, address, *user_r, loop_clock_ms());
	return rc < 0 ? err_set(err, rc, "asking auth for a user: %s", err_code_name(rc)) : rc;
}
