#include "daemon/node-relay.h"

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/node-stream.h"
#include "daemon/session.h"
#include "metacache/metacache.h"
#include "obox/obox.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
	LINK_MS = 5000,		/* connection, handshake and answer */
	DOUBT_MS = 1000,	/* so long without an answer: is it still the one that has the user? */
	GIVE_UP_MS = 20000,	/* all tries together */
	PAUSE_FIRST_MS = 100, PAUSE_MAX_MS = 1000,
	NEWS_MS = 200, ROOT_MS = 2000,	/* of a node that cannot be reached: is it as it was, and does it have the user still? */
	FOLLOW_MAX = 2, BUDGET = 16
};

enum relay_state { PLACE, LINK, PASS, PAUSE };

/* What wakes a relay: the link to another node, or only the time.  The
 * session's thread makes, uses and retires it; the loop thread watches it and
 * frees it, so that no event meets freed memory. */
struct waker {
	struct worker_job job;		/* with worker.lock: due_ms, posted, retired */
	int64_t due_ms;			/* 0: no time limit */
	bool posted, retired;
	struct loop_timer timer;	/* the loop thread's */
	struct loop_src src;
	_Atomic(struct conn *) conn;	/* NULL: retired */
	atomic_bool late;
	int fd;				/* -1: only the time */
	struct node_stream st;		/* the session's thread's */
};

struct relay {
	struct worker *w;
	bool guest;
	enum relay_state state;
	struct obox_user *user;
	struct obox_owner *owner;	/* until it has answered */
	struct waker *wk;
	struct buf answer;
	int64_t begun_ms, place_ms, link_ms;	/* the first try; when the store was asked who has the user, and the link begun */
	unsigned pauses, followed;
	bool asked, client_eof, unreachable;
};

/* --- waking --- */

static void wake(struct waker *k)
{
	struct conn *c = atomic_load(&k->conn);

	if (c)
		conn_wake(c);
}

static void on_ready(struct loop_src *src, uint32_t events)
{
	wake(src->owner);
}

static void on_time(struct loop_timer *t)
{
	struct waker *k = t->owner;

	atomic_store(&k->late, true);
	wake(k);
}

static void waker_job(struct worker *w, struct worker_job *j)
{
	struct waker *k = (struct waker *)j;
	bool retired;
	int64_t due;

	pthread_mutex_lock(&w->lock);
	k->posted = false;
	retired = k->retired;
	due = k->due_ms;
	pthread_mutex_unlock(&w->lock);
	loop_timer_clear(&w->p.loop, &k->timer);
	if (!retired) {
		if (due)
			loop_timer_set(&w->p.loop, &k->timer, due - w->p.loop.now_ms);
		return;
	}
	if (k->fd >= 0) {
		loop_del(&w->p.loop, &k->src);
		close(k->fd);
		node_stream_free(&k->st);
	}
	loop_free_later(&w->p.loop, k);
}

/* retire: it is not the relay's any more. */
static void waker_tell(struct worker *w, struct waker *k, int64_t due_ms, bool retire)
{
	bool post;

	if (retire)
		atomic_store(&k->conn, NULL);
	pthread_mutex_lock(&w->lock);
	k->due_ms = due_ms;
	k->retired |= retire;
	post = !k->posted;
	k->posted = true;
	pthread_mutex_unlock(&w->lock);
	if (post)
		worker_post(w, &k->job);
}

static void waker_drop(struct relay *r)
{
	if (r->wk)
		waker_tell(r->w, r->wk, 0, true);
	r->wk = NULL;
}

/* fd -1: only the time.  Takes fd. */
static int waker_make(struct relay *r, struct conn *c, int fd, int64_t ms)
{
	struct waker *k = MEM_NEW(struct waker);

	k->job.run = waker_job;
	k->timer.fire = on_time;
	k->timer.owner = k;
	k->src.ready = on_ready;
	k->src.owner = k;
	k->src.fd = -1;
	k->fd = fd;
	atomic_init(&k->conn, c);
	if (fd >= 0 && loop_add(&r->w->p.loop, &k->src, fd, EPOLLONESHOT) < 0) {
		close(fd);
		free(k);
		return -1;
	}
	if (fd >= 0)
		node_stream_init(&k->st, fd, r->w->node.key, true);
	r->wk = k;
	waker_tell(r->w, k, loop_clock_ms() + ms, false);
	return 0;
}

int relay_fd(const struct relay *r)
{
	return r && r->wk ? r->wk->fd : -1;
}

void relay_watch(struct relay *r, struct conn *c)
{
	uint32_t events = EPOLLONESHOT;
	struct waker *k = r->wk;

	if (!k || k->fd < 0)
		return;
	node_stream_rest(&k->st);
	if (c->out.len <= CONN_OUT_HIGH)
		events |= EPOLLIN;
	if (k->st.out.len)
		events |= EPOLLOUT;
	k->src.events = 0;	/* the one shot may be over */
	loop_mod(&r->w->p.loop, &k->src, events);
}

/* --- finding the place --- */

struct relay *relay_new(struct worker *w, bool guest)
{
	struct relay *r = MEM_NEW(struct relay);

	r->w = w;
	r->guest = guest;
	r->begun_ms = loop_clock_ms();
	buf_init(&r->answer, NODE_IN_MAX);
	return r;
}

static void free_placing(struct relay *r)
{
	free(r->owner);
	r->owner = NULL;
	buf_free(&r->answer);
}

void relay_free(struct relay **pr)
{
	struct relay *r = *pr;

	if (!r)
		return;
	*pr = NULL;
	waker_drop(r);
	obox_user_close(&r->user);
	free_placing(r);
	free(r);
}

static enum conn_want refuse(struct conn *c)
{
	if (c->tag)
		buf_addf(&c->out, "%s NO [UNAVAILABLE] Mail cannot be reached now, try again later\r\n* BYE Please connect again\r\n", c->tag);
	else
		buf_adds(&c->out, "-ERR [SYS/TEMP] Mail cannot be reached now, try again later\r\n");
	return CONN_CLOSE;
}

/* This try led nowhere: another one after a pause, or the end. */
static enum conn_want try_later(struct relay *r, struct conn *c, const char *why)
{
	int64_t ms = r->unreachable ? NEWS_MS : r->pauses < 4 ? PAUSE_FIRST_MS << r->pauses : PAUSE_MAX_MS;
	bool end = r->w->stopping || loop_clock_ms() - r->begun_ms + ms > GIVE_UP_MS;

	log_event(end ? LOG_ERROR : r->pauses ? LOG_DBG : LOG_WARN, "session cannot be passed to the user's node", LF_S("user", c->user), LF_S("node", r->owner ? r->owner->node : ""),
		  LF_S("address", r->owner ? r->owner->address : ""), LF_S("why", why), LF_END);
	waker_drop(r);
	r->pauses++;
	r->followed = 0;
	r->state = PAUSE;
	if (end || waker_make(r, c, -1, ms) < 0)
		return refuse(c);
	return CONN_WANT_WAKE;
}

/* That node itself is the trouble.  (One that the owner named is not known here.) */
static enum conn_want cannot_reach(struct relay *r, struct conn *c, const char *why)
{
	r->unreachable = !r->followed;
	return try_later(r, c, why);
}

/* Thousands may wait for the users of one dead node: only what is known of the node is looked at often, not each user's root. */
static bool is_as_before(const struct relay *r)
{
	return r->unreachable && r->w->cluster && loop_clock_ms() - r->place_ms < ROOT_MS && !metacache_news(r->w->cluster, r->owner->node, r->owner->incarnation);
}

static enum conn_want link_to_owner(struct relay *r, struct conn *c)
{
	struct err err = ERR_INIT;
	int fd;

	waker_drop(r);
	r->asked = false;
	buf_clear(&r->answer);
	if (!*r->owner->address)
		return try_later(r, c, "that node takes no connections: it has no \"listen node\"");
	fd = node_connect(r->owner->address, &err);
	if (fd < 0)
		return cannot_reach(r, c, err.msg);
	if (waker_make(r, c, fd, DOUBT_MS) < 0)
		return try_later(r, c, strerror(errno));
	r->link_ms = loop_clock_ms();
	r->state = LINK;
	(void)node_stream_flush(&r->wk->st);	/* what is wrong with it the loop will tell */
	return CONN_WANT_WAKE;
}

/* True: the engine is to run. */
static bool place(struct relay *r, struct conn *c, enum conn_want *want)
{
	struct obox_owner owner;
	struct err err = ERR_INIT;
	int rc = worker_user_open(r->w, c->user, &r->user, &owner, &err);
	bool here = rc != ERR_BUSY || !*owner.node;

	r->place_ms = loop_clock_ms();
	r->unreachable = false;
	if (r->guest) {
		node_answer_put(&c->out, here ? NODE_HERE : NODE_MOVED, r->w->node.name, &owner);
		*want = CONN_CLOSE;
		return here;
	}
	if (here)	/* even if it failed: the engine knows how to say so, and tries again */
		return true;
	if (!r->owner)
		r->owner = MEM_NEW(struct obox_owner);
	*r->owner = owner;
	*want = link_to_owner(r, c);
	return false;
}

/* No answer for a while: a node that is frozen takes connections and says nothing, and others may have taken its users over by now. */
static bool moved_meanwhile(struct relay *r, struct conn *c)
{
	struct obox_owner now;
	struct err err = ERR_INIT;
	struct obox_user *u;
	bool moved = false;
	int rc;

	if (!r->followed) {
		rc = worker_user_open(r->w, c->user, &u, &now, &err);
		moved = rc == 0 || (rc == ERR_BUSY && *now.node && (strcmp(now.node, r->owner->node) != 0 || now.incarnation != r->owner->incarnation));
		obox_user_close(&u);
	}
	if (!moved) {
		atomic_store(&r->wk->late, false);
		waker_tell(r->w, r->wk, loop_clock_ms() + DOUBT_MS, false);
	}
	return moved;
}

static void ask(struct relay *r, struct conn *c)
{
	unsigned proto = c->ops == &imap_conn_ops ? PROTO_IMAP : PROTO_POP3;
	struct msg_conn m = { .proto = proto, .tls = c->tls, .loopback = c->loopback, .id = c->id, .peer = c->peer, .local = c->local, .user = c->user, .tag = c->tag };
	struct buf hello = BUF_INIT(NODE_MESSAGE_MAX);

	node_hello_put(&hello, NODE_SESSION, r->w->node.name, &m);
	(void)node_stream_write(&r->wk->st, hello.data, hello.len);	/* it is new: there is room */
	buf_free(&hello);
	r->asked = true;
}

static enum conn_want pass(struct relay *r, struct conn *c);

static enum conn_want on_answer(struct relay *r, struct conn *c, const struct node_answer *a, size_t used)
{
	if (a->code == NODE_GONE)
		return try_later(r, c, "that node does not have the user any more");
	if (a->code == NODE_MOVED) {
		*r->owner = a->owner;
		if (++r->followed > FOLLOW_MAX || !strcmp(a->owner.node, r->w->node.name))
			return try_later(r, c, "the nodes do not agree yet who has the user");
		return link_to_owner(r, c);
	}
	log_event(LOG_INF, "session is passed to the user's node", LF_S("user", c->user), LF_S("node", a->node), LF_S("address", r->owner->address),
		  LF_D("ms", loop_clock_ms() - r->begun_ms), LF_END);
	session_served_at(c, a->node);
	waker_tell(r->w, r->wk, 0, false);
	buf_add(&c->out, r->answer.data + used, r->answer.len - used);
	free_placing(r);
	c->timeout_ms = 0;	/* the other node knows when it is time */
	r->state = PASS;
	return pass(r, c);
}

static enum conn_want on_link(struct relay *r, struct conn *c)
{
	struct node_stream *st = &r->wk->st;
	struct node_answer a;
	size_t used;
	int rc = node_stream_flush(st) < 0 ? -1 : node_stream_read(st, &r->answer, NODE_IN_MAX);

	if (rc < 0)
		return cannot_reach(r, c, node_stream_why(st));
	if (st->link.up && !r->asked)
		ask(r, c);
	rc = node_answer_get(&r->answer, &a, &used);
	if (rc == 1)
		return on_answer(r, c, &a, used);
	if (rc < 0 || st->link.ended)
		return try_later(r, c, "its answer makes no sense");
	if (atomic_load(&r->wk->late) && loop_clock_ms() - r->link_ms >= LINK_MS)
		return cannot_reach(r, c, "no answer in time");
	if (atomic_load(&r->wk->late) && moved_meanwhile(r, c))
		return try_later(r, c, "no answer, and it does not have the user any more");
	(void)node_stream_flush(st);
	return CONN_WANT_WAKE;
}

/* --- passing on --- */

/* 1 something moved, 0 nothing can now, -1 the link is broken. */
static int move(struct relay *r, struct conn *c)
{
	struct node_stream *st = &r->wk->st;
	size_t n = node_stream_write(st, c->in.data, c->in.len);
	int rc;

	buf_consume(&c->in, n);
	if (r->client_eof && !c->in.len)
		node_stream_end(st);
	if (node_stream_flush(st) < 0)
		return -1;
	if (c->out.len > CONN_OUT_HIGH && conn_flush(c) > CONN_OUT_HIGH)
		return 0;
	rc = node_stream_read(st, &c->out, 2 * CONN_OUT_HIGH);
	if (rc == 1)
		conn_flush(c);
	/* Input that waited for room which flushing has made must not wait for an event. */
	return rc < 0 ? -1 : rc || n || (c->in.len && st->out.len < NODE_OUT_HIGH);
}

static enum conn_want pass(struct relay *r, struct conn *c)
{
	struct node_stream *st = &r->wk->st;
	int budget = BUDGET, rc;

	do {
		rc = move(r, c);
	} while (rc == 1 && !st->link.ended && --budget);
	if (rc < 0) {
		log_event(LOG_WARN, "the link to the user's node broke: session ends", LF_S("user", c->user), LF_S("node", c->to_node),
			  LF_S("why", node_stream_why(st)), LF_END);
		return CONN_CLOSE;
	}
	if (st->link.ended)	/* what is left in c->out is still sent */
		return CONN_CLOSE;
	if (!budget)
		return CONN_WANT_AGAIN;
	if (c->out.len > CONN_OUT_HIGH)
		return CONN_WANT_DRAIN;
	return c->in.len || r->client_eof ? CONN_WANT_WAKE : CONN_WANT_INPUT;
}

bool relay_run(struct relay *r, struct conn *c, unsigned events, enum conn_want *want)
{
	bool stop = events & CONN_EV_STOP;

	r->client_eof |= (events & CONN_EV_EOF) != 0;
	if (r->state == PASS) {
		if (stop)	/* only the engine there knows where a goodbye can stand */
			node_stream_control(&r->wk->st, NODE_STOP);
		*want = pass(r, c);
	} else if (stop) {
		if (r->guest)
			node_answer_put(&c->out, NODE_GONE, r->w->node.name, NULL);
		*want = r->guest ? CONN_CLOSE : refuse(c);
	} else if (r->state == LINK) {
		*want = on_link(r, c);
	} else if (r->state == PAUSE && atomic_load(&r->wk->late) && is_as_before(r)) {
		*want = try_later(r, c, "that node cannot be reached, and is as it was");
	} else if (r->state == PLACE || atomic_load(&r->wk->late)) {
		return place(r, c, want);
	} else {
		*want = CONN_WANT_WAKE;
	}
	return false;
}
