/* One session is in one of these states; the edges are the functions below.
 *
 *   parked --ready_to_run--> queued --session_run--> running --park--> parked
 *                                                    running --finish--> dead --session_bury--> (freed)
 *
 * (1) Only the pool thread that took it from queued to running touches the
 *     connection, its buffers and the engine.
 * (2) epoll is armed (one shot) by park() only, with the lock held.
 * (3) A thread that has run a session waits a moment for its next input itself
 *     (lurk) when the client answers quickly: one wake-up instead of two.
 * (4) A dead session is freed by the loop thread between two batches of
 *     events, so no event or timer meets freed memory. */
#include "daemon/worker.h"

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/lurk.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	EV_READY = 1 << 16,	/* the socket can be read or written, or is broken */
	EV_KILL = 1 << 17,	/* cut off */
	TIMER_MAX_MS = 16000,	/* so long can a shortened timeout go unnoticed */
	STALL_MS = 60000,	/* a peer that takes no output for so long is gone */
	CLOSE_MS = 10000,	/* what the last output may take */
	TURNS = 16,		/* runs of one session before others get their turn */
	LURK_MS = 3
};

enum state { PARKED, QUEUED, RUNNING, DEAD };

struct session {
	struct conn c;
	struct pool_task task;
	struct loop_src src;
	struct loop_timer timer;
	struct worker *w;
	struct session *next, *prev;	/* all sessions: changed by the loop thread, with worker.lock */
	int64_t since;			/* seconds UTC */
	struct session *next_dead;
	pthread_mutex_t lock;		/* of state, pending */
	enum state state;
	unsigned pending;
	enum conn_want want;
	int64_t active_ms;		/* last input, or end of a drain */
	struct lurk lurk;		/* with lock */
	bool brisk;			/* the last input came within LURK_MS */
	bool readable;			/* recv may have something */
	bool started, eof, broken, closing;
};

static void session_run(struct pool_task *t);

static void ready_to_run(struct session *s, unsigned events)
{
	bool queue = false;

	pthread_mutex_lock(&s->lock);
	if (s->state != DEAD) {
		s->pending |= events;
		queue = s->state == PARKED;
		if (queue)
			s->state = QUEUED;
		lurk_end(&s->lurk);
	}
	pthread_mutex_unlock(&s->lock);
	if (queue)
		pool_add(s->w->pool, &s->task);
}

void conn_wake(struct conn *c)
{
	ready_to_run(c->worker, CONN_EV_WAKE);
}

/* 0, or -1 when the peer is gone. */
static int send_out(struct session *s)
{
	struct buf *out = &s->c.out;

	while (out->len && !s->broken) {
		ssize_t n = send(s->src.fd, out->data, out->len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
			return 0;
		if (n < 0) {
			s->broken = true;
			return -1;
		}
		buf_consume(out, (size_t)n);
		s->active_ms = s->want == CONN_WANT_DRAIN || s->closing ? loop_clock_ms() : s->active_ms;
	}
	return s->broken ? -1 : 0;
}

size_t conn_flush(struct conn *c)
{
	(void)send_out(c->worker);
	return c->out.len;
}

/* The event reading gives: CONN_EV_INPUT, CONN_EV_EOF or 0. */
static unsigned read_in(struct session *s)
{
	static __thread unsigned char room[CONN_IN_MAX];
	size_t max = CONN_IN_MAX - s->c.in.len;
	ssize_t n;

	if (!max) {
		log_event(LOG_ERROR, "a session takes no more of its input: closing it", LF_S("protocol", s->c.ops->name), LF_END);
		s->broken = true;
		return 0;
	}
	do {
		n = recv(s->src.fd, room, max, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	s->readable = n == (ssize_t)max;
	if (n > 0) {
		buf_add(&s->c.in, room, (size_t)n);
		s->active_ms = loop_clock_ms();
		return CONN_EV_INPUT;
	}
	if (n == 0) {
		s->eof = true;
		return CONN_EV_EOF;
	}
	if (errno != EAGAIN)
		s->broken = true;
	return 0;
}

static void finish(struct session *s)
{
	struct worker *w = s->w;
	uint64_t one = 1;
	bool first;

	if (s->started && !s->closing)
		s->c.ops->free(&s->c);
	if (!s->broken)
		(void)shutdown(s->src.fd, SHUT_RDWR);
	pthread_mutex_lock(&s->lock);
	s->state = DEAD;
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_lock(&w->lock);
	first = !w->graveyard;
	s->next_dead = w->graveyard;
	w->graveyard = s;
	pthread_mutex_unlock(&w->lock);
	if (first)
		(void)!write(w->wake_src.fd, &one, sizeof(one));
}

static uint32_t wanted_events(const struct session *s)
{
	uint32_t ev = EPOLLONESHOT;

	if (s->want == CONN_WANT_INPUT && !s->eof && !s->closing && s->c.out.len <= CONN_OUT_HIGH)
		ev |= EPOLLIN;
	if (s->c.out.len)
		ev |= EPOLLOUT;
	return ev;
}

static void park(struct session *s, unsigned keep)
{
	bool again;

	if (!s->c.in.len)
		buf_free(&s->c.in);
	if (!s->c.out.len)
		buf_free(&s->c.out);
	pthread_mutex_lock(&s->lock);
	/* What is kept for later (a wake during a drain) does not run it by itself. */
	again = s->pending != 0;
	s->pending |= keep;
	s->state = again ? QUEUED : PARKED;
	if (!again)
		loop_mod(&s->w->p.loop, &s->src, wanted_events(s));
	pthread_mutex_unlock(&s->lock);
	if (again)
		pool_add(s->w->pool, &s->task);
}

static void requeue(struct session *s, unsigned events)
{
	pthread_mutex_lock(&s->lock);
	s->pending |= events;
	s->state = QUEUED;
	pthread_mutex_unlock(&s->lock);
	pool_add(s->w->pool, &s->task);
}

/* (3) True: there is input. */
static bool lurk(struct session *s)
{
	if (!s->brisk || s->want != CONN_WANT_INPUT || s->eof || s->readable || s->c.out.len)
		return false;
	s->brisk = s->readable = lurk_wait(&s->lurk, &s->lock, &s->pending, s->src.fd, LURK_MS);
	return s->readable;
}

/* The engine is done: send the rest, for a bounded time. */
static void begin_close(struct session *s)
{
	s->c.ops->free(&s->c);
	s->closing = true;
	s->active_ms = loop_clock_ms();
	if (send_out(s) < 0 || !s->c.out.len)
		finish(s);
	else
		park(s, 0);
}

/* What there is for the engine now, given the events of this turn. */
static unsigned events_for_engine(struct session *s, unsigned *ev)
{
	unsigned run = 0;

	if (s->want == CONN_WANT_INPUT && s->readable && !s->eof && s->c.out.len <= CONN_OUT_HIGH)
		run |= read_in(s);
	if (s->want == CONN_WANT_DRAIN && s->c.out.len) {
		run |= *ev & CONN_EV_STOP;	/* the rest waits for the drain */
		*ev &= ~(unsigned)CONN_EV_STOP;
		return run;
	}
	if (s->want == CONN_WANT_DRAIN)
		run |= CONN_EV_DRAINED;
	run |= *ev & (CONN_EV_START | CONN_EV_WAKE | CONN_EV_TIMEOUT | CONN_EV_STOP);
	if (*ev & CONN_EV_START && s->c.in.len)
		run |= CONN_EV_INPUT;
	*ev = 0;
	return run;
}

static void turns(struct session *s, unsigned ev)
{
	unsigned run, turn;

	for (turn = 0; turn < TURNS; turn++) {
		if (send_out(s) < 0)
			break;
		run = events_for_engine(s, &ev);
		if (s->broken)
			break;
		if (!run && s->want != CONN_WANT_AGAIN) {
			if (!(ev & CONN_EV_WAKE) && lurk(s)) {
				turn = 0;
				continue;
			}
			park(s, ev & CONN_EV_WAKE);
			return;
		}
		s->started = true;
		s->want = s->c.ops->run(&s->c, run);
		if (s->c.out.failed) {
			log_event(LOG_ERROR, "too much output at once: closing the session", LF_S("protocol", s->c.ops->name), LF_END);
			break;
		}
		if (s->want == CONN_CLOSE || (s->eof && s->want == CONN_WANT_INPUT)) {
			begin_close(s);
			return;
		}
		if (s->want == CONN_WANT_AGAIN) {
			if (send_out(s) < 0)
				break;
			requeue(s, ev);
			return;
		}
	}
	if (turn < TURNS)
		finish(s);
	else
		requeue(s, ev);
}

static void session_run(struct pool_task *t)
{
	struct session *s = (struct session *)(void *)((char *)t - offsetof(struct session, task));
	unsigned ev;

	pthread_mutex_lock(&s->lock);
	ev = s->pending;
	s->pending = 0;
	s->state = RUNNING;
	pthread_mutex_unlock(&s->lock);
	log_set_session(s->c.id);
	if (ev & EV_READY) {
		s->readable = true;
		s->brisk = loop_clock_ms() - s->active_ms <= LURK_MS;
	}
	if (ev & EV_KILL || (ev & CONN_EV_TIMEOUT && (s->closing || s->want == CONN_WANT_DRAIN)))
		s->broken = true;
	if (s->broken) {
		finish(s);
	} else if (s->closing) {
		if (send_out(s) < 0 || !s->c.out.len)
			finish(s);
		else
			park(s, 0);
	} else {
		turns(s, ev);
	}
	log_set_session(NULL);
}

/* --- the loop thread's side --- */

static void on_ready(struct loop_src *src, uint32_t events)
{
	struct session *s = src->owner;

	pthread_mutex_lock(&s->lock);
	src->events = 0;	/* the one shot was this */
	pthread_mutex_unlock(&s->lock);
	ready_to_run(s, EV_READY);
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
	if (s->state == PARKED) {
		limit = limit_of(s);
		if (limit)
			left = limit - (l->now_ms - s->active_ms);
		late = left <= 0;
	}
	pthread_mutex_unlock(&s->lock);
	if (late)
		ready_to_run(s, CONN_EV_TIMEOUT);
	loop_timer_set(l, t, late ? 1000 : left < TIMER_MAX_MS ? left : TIMER_MAX_MS);
}

static const struct conn_ops *engine(unsigned proto)
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

static struct session *session_make(struct worker *w, const struct conn_ops *ops, const struct msg_conn *m)
{
	struct session *s = MEM_NEW(struct session);
	struct conn *c = &s->c;

	buf_init(&c->in, CONN_IN_MAX);
	snprintf(c->id, sizeof(c->id), "%s", m->id);
	snprintf(c->peer, sizeof(c->peer), "%s", m->peer);
	snprintf(c->local, sizeof(c->local), "%s", m->local);
	c->tls = m->tls;
	c->loopback = m->loopback;
	c->user = *m->user ? mem_strdup(m->user) : NULL;
	c->tag = *m->tag ? mem_strdup(m->tag) : NULL;
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
	s->state = PARKED;
	s->want = CONN_WANT_INPUT;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

static void session_release(struct session *s)
{
	buf_free(&s->c.in);
	buf_free(&s->c.out);
	free(s->c.user);
	free(s->c.tag);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void session_new(struct worker *w, const struct msg_conn *m, int fd)
{
	const struct conn_ops *ops = engine(m->proto);
	struct session *s;

	if (!ops || w->stopping || w->n_sessions >= w->max_sessions) {
		if (ops && !w->stopping)
			log_event(LOG_WARN, "too many sessions: connection closed", LF_S("session", m->id), LF_U("sessions", w->n_sessions), LF_END);
		close(fd);
		return;
	}
	s = session_make(w, ops, m);
	if (io_set_nonblock(fd, true) < 0 || loop_add(&w->p.loop, &s->src, fd, EPOLLONESHOT) < 0) {
		log_event(LOG_ERROR, "a connection cannot be watched", LF_S("session", m->id), LF_S("why", strerror(errno)), LF_END);
		close(fd);
		session_release(s);
		return;
	}
	pthread_mutex_lock(&w->lock);
	s->next = w->sessions;
	if (s->next)
		s->next->prev = s;
	w->sessions = s;
	w->n_sessions++;
	pthread_mutex_unlock(&w->lock);
	loop_timer_set(&w->p.loop, &s->timer, TIMER_MAX_MS);
	ready_to_run(s, CONN_EV_START);
}

void session_stop_all(struct worker *w, bool now)
{
	struct session *s;

	for (s = w->sessions; s; s = s->next)
		ready_to_run(s, now ? EV_KILL : CONN_EV_STOP);
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
