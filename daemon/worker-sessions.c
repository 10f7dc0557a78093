/* The loop thread's side of the sessions: events, timers, making and burying them. */
#include "daemon/session.h"

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/node.h"
#include "daemon/node-relay.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { TIMER_MAX_MS = 16000 /* so long can a shortened timeout go unnoticed */ };

static void on_ready(struct loop_src *src, uint32_t events)
{
	struct session *s = src->owner;

	pthread_mutex_lock(&s->lock);
	src->events = 0;	/* the one shot was this */
	pthread_mutex_unlock(&s->lock);
	session_wake(s, EV_READY | (events & (EPOLLHUP | EPOLLERR) ? EV_HUP : 0));
}

/* Milliseconds until a parked session's time is up; 0 = never. */
static int64_t limit_of(const struct session *s)
{
	if (s->closing)
		return CLOSE_MS;
	if (s->want == CONN_WANT_DRAIN)
		return s->c.timeout_ms > STALL_MS ? s->c.timeout_ms : STALL_MS;
	return s->c.timeout_ms;
}

static void on_timer(struct loop_timer *t)
{
	struct session *s = t->owner;
	struct loop *l = &s->w->p.loop;
	int64_t left = TIMER_MAX_MS, limit;
	bool late = false;

	pthread_mutex_lock(&s->lock);
	if (s->state == SESSION_PARKED) {
		limit = limit_of(s);
		if (limit)
			left = limit - (l->now_ms - s->active_ms);
		late = left <= 0;
	}
	pthread_mutex_unlock(&s->lock);
	if (late)
		session_wake(s, CONN_EV_TIMEOUT);
	loop_timer_set(l, t, late ? 1000 : left < TIMER_MAX_MS ? left : TIMER_MAX_MS);
}

const struct conn_ops *session_engine(unsigned proto)
{
	switch (proto) {
	case PROTO_IMAP:
		return &imap_conn_ops;
	case PROTO_POP3:
		return &pop3_conn_ops;
	case PROTO_LMTP:
		return &lmtp_conn_ops;
	case PROTO_ADMIN:
		return &admin_conn_ops;
	default:
		return NULL;
	}
}

struct session *session_make(struct worker *w, const struct conn_ops *ops, const struct msg_conn *m)
{
	struct session *s = MEM_NEW(struct session);
	struct conn *c = &s->c;

	buf_init(&c->in, CONN_IN_MAX);
	snprintf(c->id, sizeof(c->id), "%s", m->id);
	snprintf(c->peer, sizeof(c->peer), "%s", m->peer);
	snprintf(c->local, sizeof(c->local), "%s", m->local);
	c->tls = m->tls;
	c->loopback = m->loopback;
	c->user = m->user && *m->user ? mem_strdup(m->user) : NULL;
	c->tag = m->tag && *m->tag ? mem_strdup(m->tag) : NULL;
	c->ops = ops;
	c->env = &w->env;
	c->worker = s;
	buf_add(&c->in, m->in, m->in_len);
	s->w = w;
	s->task.run = session_run;
	s->src.ready = on_ready;
	s->src.owner = s;
	s->src.fd = s->lurk.fd = -1;
	s->brisk = true;
	s->timer.fire = on_timer;
	s->timer.owner = s;
	s->since = (int64_t)time(NULL);
	s->active_ms = loop_clock_ms();
	s->state = SESSION_PARKED;
	s->want = CONN_WANT_INPUT;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

void session_release(struct session *s)
{
	if (s->stream)
		node_stream_free(s->stream);
	free(s->stream);
	buf_free(&s->c.in);
	buf_free(&s->c.out);
	free(s->c.user);
	free(s->c.tag);
	free(s->c.to_node);
	free(s->c.from_node);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void session_add_stream(struct session *s, int fd, bool connected)
{
	s->stream = MEM_NEW(struct node_stream);
	node_stream_init(s->stream, fd, s->w->node.key, connected);
}

int session_add(struct session *s, int fd)
{
	struct worker *w = s->w;
	int rc = -1;

	if (w->n_sessions >= w->max_sessions)
		log_event(LOG_WARN, "too many sessions: connection closed", LF_S("session", s->c.id), LF_U("sessions", w->n_sessions), LF_END);
	else if (io_set_nonblock(fd, true) < 0 || loop_add(&w->p.loop, &s->src, fd, EPOLLONESHOT) < 0)
		log_event(LOG_ERROR, "a connection cannot be watched", LF_S("session", s->c.id), LF_S("why", strerror(errno)), LF_END);
	else
		rc = 0;
	if (rc < 0) {
		close(fd);
		return rc;
	}
	pthread_mutex_lock(&w->lock);
	s->next = w->sessions;
	if (s->next)
		s->next->prev = s;
	w->sessions = s;
	w->n_sessions++;
	pthread_mutex_unlock(&w->lock);
	loop_timer_set(&w->p.loop, &s->timer, s->c.timeout_ms && s->c.timeout_ms < TIMER_MAX_MS ? s->c.timeout_ms : TIMER_MAX_MS);
	session_wake(s, CONN_EV_START);
	return 0;
}

void session_new(struct worker *w, const struct msg_conn *m, int fd)
{
	const struct conn_ops *ops = session_engine(m->proto);
	struct session *s;

	if (!ops || w->stopping) {
		close(fd);
		return;
	}
	s = session_make(w, ops, m);
	if (s->c.user)
		s->relay = relay_new(w, false);
	if (session_add(s, fd) < 0) {
		relay_free(&s->relay);
		session_release(s);
	}
}

void session_become(struct conn *c, const struct conn_ops *ops, const struct msg_conn *m, const char *from_node)
{
	struct session *s = c->worker;
	struct worker *w = s->w;

	pthread_mutex_lock(&w->lock);
	c->ops = ops;
	c->from_node = mem_strdup(from_node);
	if (m) {
		snprintf(c->id, sizeof(c->id), "%s", m->id);
		snprintf(c->peer, sizeof(c->peer), "%s", m->peer);
		snprintf(c->local, sizeof(c->local), "%s", m->local);
		c->tls = m->tls;
		c->loopback = m->loopback;
		c->user = mem_strdup(m->user);
		c->tag = *m->tag ? mem_strdup(m->tag) : NULL;
		s->relay = relay_new(w, true);
	}
	pthread_mutex_unlock(&w->lock);
	c->timeout_ms = 0;
	s->engine = false;
}

void session_served_at(struct conn *c, const char *node)
{
	struct worker *w = c->env->worker;
	char *old, *name = mem_strdup(node);

	pthread_mutex_lock(&w->lock);
	old = c->to_node;
	c->to_node = name;
	pthread_mutex_unlock(&w->lock);
	free(old);
}

void session_stop_all(struct worker *w, bool now)
{
	struct session *s;

	for (s = w->sessions; s; s = s->next)
		session_wake(s, now ? EV_KILL : CONN_EV_STOP);
}

struct leaving {
	struct worker_job job;
	char *user;
};

static void end_user(struct worker *w, struct worker_job *j)
{
	struct leaving *l = (struct leaving *)j;
	struct session **list = NULL, *s;
	size_t cap = 0, n = 0;

	pthread_mutex_lock(&w->lock);
	for (s = w->sessions; s; s = s->next) {
		if (!s->c.user || strcmp(s->c.user, l->user) != 0)
			continue;
		mem_grow(&list, &cap, n + 1, sizeof(*list));
		list[n++] = s;
	}
	pthread_mutex_unlock(&w->lock);
	while (n)	/* this thread alone frees sessions */
		session_wake(list[--n], EV_LEAVE);
	free(list);
	free(l->user);
	free(l);
}

void session_end_user(struct conn_env *env, const char *user)
{
	struct leaving *l = MEM_NEW(struct leaving);

	l->job.run = end_user;
	l->user = mem_strdup(user);
	worker_post(env->worker, &l->job);
}

void session_bury(struct worker *w)
{
	struct session *s, *dead;

	pthread_mutex_lock(&w->lock);
	dead = w->graveyard;
	w->graveyard = NULL;
	for (s = dead; s; s = s->next_dead) {
		if (s->next)
			s->next->prev = s->prev;
		*(s->prev ? &s->prev->next : &w->sessions) = s->next;
		w->n_sessions--;
	}
	pthread_mutex_unlock(&w->lock);
	for (s = dead; s; s = dead) {
		int fd = s->src.fd;

		dead = s->next_dead;
		loop_del(&w->p.loop, &s->src);
		io_close(&fd);
		loop_timer_clear(&w->p.loop, &s->timer);
		session_release(s);
	}
}

void session_each(struct conn_env *env, void (*fn)(void *ctx, const struct conn *c, int64_t since), void *ctx)
{
	struct worker *w = env->worker;
	struct session *s;

	pthread_mutex_lock(&w->lock);
	for (s = w->sessions; s; s = s->next)
		fn(ctx, &s->c, s->since);
	pthread_mutex_unlock(&w->lock);
}
