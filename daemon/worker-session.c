/* One session is in one of these states; the edges are the functions below.
 *
 *   parked --session_wake--> queued --session_run--> running --park--> parked
 *                                                    running --finish--> dead --session_bury--> (freed)
 *
 * (1) Only the pool thread that took it from queued to running touches the
 *     connection, its buffers and the engine.
 * (2) epoll is armed (one shot) by park() only, with the lock held.
 * (3) A thread that has run a session waits a moment for its next input itself
 *     (lurk) when the client answers quickly: one wake-up instead of two.
 * (4) A dead session is freed by the loop thread between two batches of
 *     events, so no event or timer meets freed memory. */
#include "daemon/session.h"

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/node.h"
#include "daemon/node-relay.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	TURNS = 16,		/* runs of one session before others get their turn */
	LURK_MS = 3
};

void session_wake(struct session *s, unsigned events)
{
	bool queue = false;

	pthread_mutex_lock(&s->lock);
	if (s->state != SESSION_DEAD) {
		s->pending |= events;
		queue = s->state == SESSION_PARKED;
		if (queue)
			s->state = SESSION_QUEUED;
		lurk_end(&s->lurk);
	}
	pthread_mutex_unlock(&s->lock);
	if (queue)
		pool_add(s->w->pool, &s->task);
}

void conn_wake(struct conn *c)
{
	session_wake(c->worker, CONN_EV_WAKE);
}

/* What the client has not been sent yet. */
static size_t unsent(const struct session *s)
{
	return s->c.out.len + (s->stream ? s->stream->out.len : 0);
}

static void drain_went_on(struct session *s)
{
	if (s->want == CONN_WANT_DRAIN || s->closing)
		s->active_ms = loop_clock_ms();
}

static int send_sealed(struct session *s)
{
	struct buf *out = &s->c.out;
	size_t before, n;
	int rc;

	do {
		before = unsent(s);
		n = node_stream_write(s->stream, out->data, out->len);
		buf_consume(out, n);
		if (s->closing && !out->len)
			node_stream_end(s->stream);
		rc = node_stream_flush(s->stream);
		s->broken |= rc < 0;
		if (unsent(s) < before)
			drain_went_on(s);
	} while (rc == 1 && n && out->len);
	return s->broken ? -1 : 0;
}

/* 0, or -1 when the peer is gone. */
static int send_out(struct session *s)
{
	struct buf *out = &s->c.out;

	if (s->stream)
		return s->broken ? -1 : send_sealed(s);
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
		drain_went_on(s);
	}
	return s->broken ? -1 : 0;
}

size_t conn_flush(struct conn *c)
{
	(void)send_out(c->worker);
	return c->out.len;
}

static unsigned too_full(struct session *s)
{
	log_event(LOG_ERROR, "a session takes no more of its input: closing it", LF_S("protocol", s->c.ops->name), LF_END);
	s->broken = true;
	return 0;
}

static unsigned read_sealed(struct session *s)
{
	struct node_stream *st = s->stream;
	size_t before = s->c.in.len;
	unsigned ev = 0;
	int rc;

	if (CONN_IN_MAX - before < NODE_FRAME_MAX)
		return too_full(s);
	rc = node_stream_read(st, &s->c.in, CONN_IN_MAX);
	s->readable = rc == 1 && (st->more || st->cut || st->link.failed);
	if (rc < 0) {
		s->broken = true;
		node_link_broken(s->w, &s->c, st);
	}
	if (rc <= 0)
		return 0;
	s->active_ms = loop_clock_ms();
	ev |= s->c.in.len > before ? CONN_EV_INPUT : 0;
	ev |= st->stop ? CONN_EV_STOP : 0;
	st->stop = false;
	s->eof = st->link.ended;
	return ev | (s->eof ? CONN_EV_EOF : 0);
}

/* The event reading gives: CONN_EV_INPUT, CONN_EV_EOF or 0. */
static unsigned read_in(struct session *s)
{
	static __thread unsigned char room[CONN_IN_MAX];
	size_t max = CONN_IN_MAX - s->c.in.len;
	ssize_t n;

	if (s->stream)
		return read_sealed(s);
	if (!max)
		return too_full(s);
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

static void end_engine(struct session *s)
{
	relay_free(&s->relay);
	if (s->engine)
		s->c.ops->free(&s->c);
	s->engine = false;
}

static void finish(struct session *s)
{
	struct worker *w = s->w;
	uint64_t one = 1;
	bool first;

	end_engine(s);
	if (!s->broken)
		(void)shutdown(s->src.fd, SHUT_RDWR);
	pthread_mutex_lock(&s->lock);
	s->state = SESSION_DEAD;
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
	if (unsent(s))
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
	if (s->stream)
		node_stream_rest(s->stream);
	if (s->relay)
		relay_watch(s->relay, &s->c);
	pthread_mutex_lock(&s->lock);
	/* What is kept for later (a wake during a drain) does not run it by itself. */
	again = s->pending != 0;
	s->pending |= keep;
	s->state = again ? SESSION_QUEUED : SESSION_PARKED;
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
	s->state = SESSION_QUEUED;
	pthread_mutex_unlock(&s->lock);
	pool_add(s->w->pool, &s->task);
}

/* (3) True: there is input, or (a wake in *ev) something from the user's node. */
static bool lurk(struct session *s, unsigned *ev)
{
	enum lurk_result came;

	if (!s->brisk || s->want != CONN_WANT_INPUT || s->eof || s->readable || s->c.out.len)
		return false;
	came = lurk_wait(&s->lurk, &s->lock, &s->pending, s->src.fd, relay_fd(s->relay), LURK_MS);
	s->readable = came == LURK_SOCK;
	s->brisk = came != LURK_NOTHING;
	*ev |= came == LURK_OTHER ? CONN_EV_WAKE : 0;
	return s->brisk;
}

/* The engine is done: send the rest, for a bounded time. */
static void begin_close(struct session *s)
{
	end_engine(s);
	s->closing = true;
	s->active_ms = loop_clock_ms();
	if (send_out(s) < 0 || !unsent(s))
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

/* Runs whoever has the session: first who finds out where the user is served, then the engine. */
static enum conn_want run_owner(struct session *s, unsigned ev)
{
	struct relay *holder = s->relay;
	struct conn *c = &s->c;
	enum conn_want want;

	if (s->relay && !relay_run(s->relay, c, ev, &want))
		return want;
	if (!s->engine)
		ev |= CONN_EV_START | (c->in.len ? CONN_EV_INPUT : 0) | (s->eof ? CONN_EV_EOF : 0);
	s->engine = true;
	want = c->ops->run(c, ev);
	if (s->relay == holder)		/* has it not become another session meanwhile? */
		relay_free(&s->relay);	/* the engine holds the user by now */
	return want;
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
			if (!(ev & CONN_EV_WAKE) && lurk(s, &ev)) {
				turn = 0;
				continue;
			}
			park(s, ev & CONN_EV_WAKE);
			return;
		}
		s->want = run_owner(s, run);
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

void session_run(struct pool_task *t)
{
	struct session *s = (struct session *)(void *)((char *)t - offsetof(struct session, task));
	unsigned ev;

	pthread_mutex_lock(&s->lock);
	ev = s->pending;
	s->pending = 0;
	s->state = SESSION_RUNNING;
	pthread_mutex_unlock(&s->lock);
	log_set_session(s->c.id);
	if (ev & EV_LEAVE && s->engine && !s->c.to_node)
		ev |= CONN_EV_STOP;
	if (ev & EV_READY) {
		s->readable = true;
		s->brisk = loop_clock_ms() - s->active_ms <= LURK_MS;
	}
	if (ev & EV_KILL || (ev & EV_HUP && s->want == CONN_WANT_WAKE) || (ev & CONN_EV_TIMEOUT && (s->closing || s->want == CONN_WANT_DRAIN)))
		s->broken = true;
	if (s->broken) {
		finish(s);
	} else if (s->closing) {
		if (send_out(s) < 0 || !unsent(s))
			finish(s);
		else
			park(s, 0);
	} else {
		turns(s, ev);
	}
	log_set_session(NULL);
}
