/* Sends deliveries to other nodes: one link to each, made when it is first
 * needed, closed when it is idle for long; an engine that sends what threads
 * ask for and wakes them with the answers. */
#include "daemon/deliver.h"
#include "daemon/session.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

enum { UP_MS = 5000, IDLE_MS = 300000, RESULT_MAX = CHAN_MSG_MAX };

/* Of the thread that waits and of the link. */
struct node_call {
	struct node_call *next;		/* in the queue */
	struct wake done;
	unsigned refs;
	uint32_t id;
	struct node_request rq;
	bool begun;			/* some of it was sent */
	uint64_t at;			/* of the file */
	int rc;
	struct buf answer;
};
enum peer_state { PEER_CONNECTING, PEER_UP, PEER_GONE };
/* One link. All under worker.node.lock but what is the session's. */
struct node_peer {
	struct worker_job job;
	struct session *fresh;		/* to be added by the loop thread */
	int fd;
	char *address;
	unsigned refs;			/* the map's, the session's, a thread's that looks */
	enum peer_state state;
	bool same, leaving;
	int rc;				/* why it did not come up */
	struct conn *conn;
	struct node_call *queue, **tail;
	struct hmap calls;		/* id to what was begun and waits for its answer */
	/* the session's */
	struct node_call *sending;
	bool bad;
};

/* --- with the lock --- */

static void call_unref(struct node_call *k)
{
	if (--k->refs)
		return;
	buf_free(&k->rq.head);
	io_close(&k->rq.fd);
	buf_free(&k->answer);
	free(k);
}

/* The link is done with it; its thread may go on. */
static void call_done(struct node_call *k, int rc)
{
	k->rc = rc;
	wake_up(&k->done);
	call_unref(k);
}

static void peer_unref(struct node_peer *p)
{
	if (--p->refs)
		return;
	hmap_free(&p->calls);
	free(p->address);
	free(p);
}

/* New requests go elsewhere. */
static void peer_leave(struct worker *w, struct node_peer *p)
{
	p->leaving = true;
	if (hmap_gets(&w->node.peers, p->address) != p)
		return;
	hmap_del(&w->node.peers, p->address, strlen(p->address));
	peer_unref(p);
}

static void fail_queue(struct node_peer *p)
{
	struct node_call *k;

	while ((k = p->queue)) {
		p->queue = k->next;
		call_done(k, ERR_UNAVAILABLE);
	}
	p->tail = &p->queue;
}

static void peer_gone(struct worker *w, struct node_peer *p, int rc)
{
	size_t pos = 0;
	void *v;

	p->state = PEER_GONE;
	p->rc = rc;
	p->conn = NULL;
	peer_leave(w, p);
	fail_queue(p);
	if (p->sending)
		call_unref(p->sending);
	p->sending = NULL;
	while (hmap_next(&p->calls, &pos, NULL, NULL, &v)) {
		struct node_call *k = v;

		hmap_del(&p->calls, &k->id, sizeof(k->id));
		call_done(k, ERR_UNAVAILABLE);
		pos = 0;
	}
	pthread_cond_broadcast(&w->node.changed);
}

/* --- the engine --- */

static void on_message(struct worker *w, struct node_peer *p, unsigned type, uint32_t id, const void *data, size_t len)
{
	struct node_call *k;

	pthread_mutex_lock(&w->node.lock);
	if (type == NODE_RESULT) {
		k = hmap_del(&p->calls, &id, sizeof(id));
		if (k) {
			buf_add(&k->answer, data, len);
			call_done(k, 0);
		}
	} else if (type == NODE_BYE) {
		peer_leave(w, p);
		fail_queue(p);
	} else {
		p->bad = true;
	}
	pthread_mutex_unlock(&w->node.lock);
}

static void take_answers(struct worker *w, struct node_peer *p, struct buf *in)
{
	while (!p->bad && in->len >= NODE_MESSAGE_HEAD) {
		struct rd r = rd_init(in->data, in->len);
		unsigned type = rd_8(&r);
		uint32_t id = rd_32(&r);
		size_t len = rd_32(&r);

		p->bad |= len > RESULT_MAX / 2;
		if (p->bad || rd_left(&r) < len)
			return;
		on_message(w, p, type, id, r.p, len);
		buf_consume(in, NODE_MESSAGE_HEAD + len);
	}
}

static struct node_call *next_call(struct worker *w, struct node_peer *p)
{
	struct node_call *k;

	pthread_mutex_lock(&w->node.lock);
	k = p->queue;
	if (k) {
		p->queue = k->next;
		if (!p->queue)
			p->tail = &p->queue;
		k->begun = true;
		k->refs++;	/* p->sending, besides p->calls */
		hmap_put(&p->calls, &k->id, sizeof(k->id), k);
	}
	pthread_mutex_unlock(&w->node.lock);
	return k;
}

static void send_head(struct node_call *k, struct buf *out)
{
	node_message_head(out, NODE_REQUEST, k->id, 8 + k->rq.head.len);
	buf_put64(out, k->rq.file_len);
	buf_add(out, k->rq.head.data, k->rq.head.len);
}

static int send_piece(struct node_call *k, struct buf *out)
{
	uint64_t left = k->rq.file_len - k->at;
	size_t n = left < NODE_PIECE_MAX ? (size_t)left : NODE_PIECE_MAX;
	struct err err = ERR_INIT;
	void *room;

	node_message_head(out, NODE_PIECE, k->id, n);
	room = buf_reserve(out, n);
	if (!room || io_pread_full(k->rq.fd, room, n, (off_t)k->at, &err) != 1)
		return -1;
	out->len += n;
	k->at += n;
	return 0;
}

static void send_requests(struct worker *w, struct node_peer *p, struct conn *c)
{
	while (!p->bad && (c->out.len <= CONN_OUT_HIGH || conn_flush(c) <= CONN_OUT_HIGH)) {
		struct node_call *k = p->sending;

		if (!k) {
			k = p->sending = next_call(w, p);
			if (!k)
				return;
			send_head(k, &c->out);
		} else if (k->at < k->rq.file_len) {
			p->bad |= send_piece(k, &c->out) < 0;
		}
		if (k->at == k->rq.file_len) {
			pthread_mutex_lock(&w->node.lock);
			p->sending = NULL;
			call_unref(k);
			pthread_mutex_unlock(&w->node.lock);
		}
	}
}

static bool is_idle(struct worker *w, struct node_peer *p, bool leave)
{
	bool idle;

	pthread_mutex_lock(&w->node.lock);
	idle = !p->queue && !p->calls.n && !p->sending;
	if (idle && leave)
		peer_leave(w, p);
	pthread_mutex_unlock(&w->node.lock);
	return idle;
}

static enum conn_want peer_run(struct conn *c, unsigned events)
{
	struct worker *w = c->env->worker;
	struct node_peer *p = c->session;

	pthread_mutex_lock(&w->node.lock);
	p->conn = c;
	c->timeout_ms = IDLE_MS;
	if (events & CONN_EV_STOP)
		peer_leave(w, p);
	pthread_mutex_unlock(&w->node.lock);
	take_answers(w, p, &c->in);
	send_requests(w, p, c);
	if (p->bad || events & CONN_EV_EOF) {
		if (p->bad)
			log_event(LOG_ERROR, "another node's answer makes no sense", LF_S("node", c->to_node), LF_S("address", p->address), LF_END);
		return CONN_CLOSE;
	}
	if (c->out.len > CONN_OUT_HIGH)
		return CONN_WANT_DRAIN;
	if (is_idle(w, p, events & CONN_EV_TIMEOUT) && p->leaving)
		return CONN_CLOSE;
	return CONN_WANT_INPUT;
}

static void peer_free(struct conn *c)
{
	struct worker *w = c->env->worker;
	struct node_peer *p = c->session;

	c->session = NULL;
	pthread_mutex_lock(&w->node.lock);
	peer_gone(w, p, ERR_UNAVAILABLE);
	peer_unref(p);
	pthread_mutex_unlock(&w->node.lock);
}

static const struct conn_ops node_peer_ops = { "node", peer_run, peer_free };

/* --- connecting --- */

/* Hello and answer, waiting for the socket until the time is up. */
static int introduce(struct worker *w, struct session *s, struct node_answer *a, struct err *err)
{
	struct node_stream *st = s->stream;
	int64_t end = loop_clock_ms() + UP_MS, left;
	bool asked = false;
	size_t used = 0;
	int rc = 0;

	while (rc == 0) {
		struct pollfd pf = { .fd = st->fd, .events = POLLIN };

		if (node_stream_flush(st) < 0 || node_stream_read(st, &s->c.in, CONN_IN_MAX) < 0)
			return err_set(err, ERR_UNAVAILABLE, "%s", node_stream_why(st));
		if (st->link.up && !asked) {
			struct buf hello = BUF_INIT(NODE_MESSAGE_MAX);

			node_hello_put(&hello, NODE_DELIVER, w->node.name, NULL);
			(void)node_stream_write(st, hello.data, hello.len);
			buf_free(&hello);
			asked = true;
			continue;
		}
		rc = node_answer_get(&s->c.in, a, &used);
		left = end - loop_clock_ms();
		if (rc == 0 && (left <= 0 || st->link.ended))
			return err_set(err, ERR_TIMEOUT, "no answer in time");
		pf.events |= st->out.len ? POLLOUT : 0;
		if (rc == 0)
			(void)poll(&pf, 1, (int)left);
	}
	if (rc < 0 || a->code != NODE_HERE)
		return err_set(err, ERR_UNAVAILABLE, "that node takes no deliveries");
	session_served_at(&s->c, a->node);
	buf_consume(&s->c.in, used);
	return 0;
}

/* The loop thread takes the link over. */
static void add_link(struct worker *w, struct worker_job *j)
{
	struct node_peer *p = (struct node_peer *)j;
	struct session *s = p->fresh;
	int rc = -1;

	if (w->stopping)
		close(p->fd);
	else
		rc = session_add(s, p->fd);
	if (rc < 0) {
		peer_free(&s->c);
		session_release(s);
	}
}

static int connect_peer(struct worker *w, struct node_peer *p, struct err *err)
{
	char id[24];
	struct msg_conn m = { .id = id, .peer = p->address, .local = "" };
	struct node_answer a;
	struct session *s;
	int rc;

	p->fd = node_connect(p->address, err);
	if (p->fd < 0)
		return p->fd;
	pthread_mutex_lock(&w->node.lock);
	snprintf(id, sizeof(id), "node-out.%u", ++w->node.next_id);
	pthread_mutex_unlock(&w->node.lock);
	s = session_make(w, &node_peer_ops, &m);
	session_add_stream(s, p->fd, true);
	rc = introduce(w, s, &a, err);
	if (rc < 0) {
		session_release(s);
		io_close(&p->fd);
		return rc;
	}
	p->same = !strcmp(a.version, PACKAGE_VERSION);
	s->engine = true;	/* free is due */
	s->c.session = p;
	p->fresh = s;
	p->job.run = add_link;
	return 0;
}

/* With the lock, which is released meanwhile. */
static int bring_up(struct worker *w, const char *address, bool *same_r, struct err *err)
{
	struct node_peer *p = MEM_NEW(struct node_peer);
	int rc;

	p->address = mem_strdup(address);
	p->tail = &p->queue;
	p->refs = 2;		/* the map's and the session's */
	hmap_put(&w->node.peers, address, strlen(address), p);
	pthread_mutex_unlock(&w->node.lock);
	rc = connect_peer(w, p, err);
	pthread_mutex_lock(&w->node.lock);
	if (rc < 0) {
		peer_gone(w, p, rc);
		peer_unref(p);
		return rc;
	}
	*same_r = p->same;
	p->state = PEER_UP;
	pthread_cond_broadcast(&w->node.changed);
	worker_post(w, &p->job);
	return 0;
}

int node_peer_up(struct worker *w, const char *address, bool *same_r, struct err *err)
{
	struct node_peer *p;
	int rc;

	pthread_mutex_lock(&w->node.lock);
	p = hmap_gets(&w->node.peers, address);
	if (!p) {
		rc = bring_up(w, address, same_r, err);
	} else {
		p->refs++;
		while (p->state == PEER_CONNECTING)
			pthread_cond_wait(&w->node.changed, &w->node.lock);
		rc = p->state == PEER_UP ? 0 : err_set(err, p->rc, "the connection that was tried failed");
		*same_r = p->same;
		peer_unref(p);
	}
	pthread_mutex_unlock(&w->node.lock);
	return rc;
}

/* With the lock: its thread does not wait any longer.  False: it was done at that moment. */
static bool withdraw(struct node_peer *p, struct node_call *k)
{
	struct node_call **at;

	for (at = &p->queue; *at && *at != k; at = &(*at)->next)
		;
	if (*at) {
		*at = k->next;
		if (!k->next)
			p->tail = at;
	} else if (hmap_get(&p->calls, &k->id, sizeof(k->id)) == k) {
		hmap_del(&p->calls, &k->id, sizeof(k->id));
	} else {
		return false;
	}
	call_unref(k);
	return true;
}

int node_peer_call(struct worker *w, const char *address, struct node_request *rq, int timeout_ms, struct buf *answer, bool *sent_r)
{
	struct node_call *k = MEM_NEW(struct node_call);
	struct node_peer *p;
	bool in_time;
	int rc;

	k->refs = 2;
	k->rq = *rq;
	k->rc = ERR_UNAVAILABLE;
	wake_init(&k->done);
	buf_init(&rq->head, CHAN_MSG_MAX);
	rq->fd = -1;
	pthread_mutex_lock(&w->node.lock);
	p = hmap_gets(&w->node.peers, address);
	if (!p || p->state != PEER_UP) {
		*sent_r = false;
		k->refs = 1;
		call_unref(k);
		pthread_mutex_unlock(&w->node.lock);
		return ERR_UNAVAILABLE;
	}
	p->refs++;
	k->id = ++w->node.next_id;
	*p->tail = k;
	p->tail = &k->next;
	if (p->conn)
		conn_wake(p->conn);
	pthread_mutex_unlock(&w->node.lock);
	in_time = wake_wait(&k->done, timeout_ms);
	pthread_mutex_lock(&w->node.lock);
	if (!in_time && withdraw(p, k))
		k->rc = ERR_TIMEOUT;
	rc = k->rc;
	*sent_r = k->begun;
	buf_add(answer, k->answer.data, k->answer.len);
	call_unref(k);
	peer_unref(p);
	pthread_mutex_unlock(&w->node.lock);
	return rc;
}
