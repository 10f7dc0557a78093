/* Deliveries: those for users of this worker run side by side on the delivery
 * pool, so that they share the journal's commits; those for others go to
 * their workers in one request each, with the message parsed and packed.
 *
 * MSG_DELIVER    id, sender, count, count times (user, address, mailbox, prepend), the message (obox_msgin_export);
 *                descriptor: a large message
 * MSG_DELIVERED  id, count, count times one byte: -rc */
#include "daemon/worker.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/lmtp/lmtp.h"
#include "obox/obox.h"

#include <unistd.h>

enum {
	DELIVER_MS = 300000,	/* RFC 5321, 4.5.3.2.6 gives the client's patience as ten minutes */
	INLINE_MAX = 24 * 1024,		/* so much of a message goes with the request itself */
	HEAD_MAX = CHAN_MSG_MAX - INLINE_MAX - 64,
	RCPTS_PER_REQUEST = 64
};

/* --- for this worker's users --- */

struct here {
	struct conn_env *env;
	struct lmtp_delivery *d;
	const size_t *which;
};

static void deliver_nth(void *ctx, size_t i)
{
	struct here *h = ctx;

	lmtp_deliver_one(h->env, h->d->msg, h->d->from, &h->d->to[h->which[i]]);
}

static void deliver_here(struct worker *w, struct lmtp_delivery *d, const size_t *which, size_t n)
{
	struct here h = { &w->env, d, which };

	if (n == 1)
		deliver_nth(&h, 0);
	else if (n)
		pool_each(w->deliveries, n, deliver_nth, &h);
}

/* --- to other workers --- */

static int put_target(struct buf *msg, const struct lmtp_target *t)
{
	msg_put_str(msg, t->user);
	msg_put_str(msg, t->address);
	msg_put_str(msg, t->mailbox);
	msg_put_str(msg, t->prepend);
	return msg->failed ? -1 : 0;
}

/* As many of which[0..n) as one request takes; returns how many. */
static size_t request(struct lmtp_delivery *d, const size_t *which, size_t n, struct buf *msg)
{
	size_t count = 0, good, at;

	buf_clear(msg);
	buf_put8(msg, MSG_DELIVER);
	buf_put32(msg, 0);
	msg_put_str(msg, d->from);
	at = msg->len;
	buf_put16(msg, 0);
	while (count < n && count < RCPTS_PER_REQUEST) {
		good = msg->len;
		if (put_target(msg, &d->to[which[count]]) < 0 || msg->len > HEAD_MAX) {
			msg->failed = false;
			buf_truncate(msg, good);
			break;
		}
		count++;
	}
	msg->data[at] = (unsigned char)count;
	return count;
}

static void take_results(struct lmtp_delivery *d, const size_t *which, size_t n, int rc, struct worker_call *call)
{
	struct rd r = rd_init(call->answer.data, call->answer.len);
	size_t count = rc == 0 ? rd_16(&r) : 0, i;

	for (i = 0; i < n; i++)
		d->to[which[i]].rc = rc < 0 ? rc : i < count ? -(int)rd_8(&r) : ERR_UNAVAILABLE;
}

struct there {
	struct worker *w;
	struct lmtp_delivery *d;
	const size_t *order;		/* targets, those of one worker together */
	const size_t *begin;		/* where the n-th group begins; one more at the end */
	const unsigned *worker;
	struct buf message;		/* exported, when there is another worker to have it */
	int fd;				/* of a large one */
};

static void fail_all(struct lmtp_delivery *d, const size_t *which, size_t n, int rc)
{
	while (n--)
		d->to[*which++].rc = rc;
}

static void deliver_group(void *ctx, size_t g)
{
	struct there *t = ctx;
	const size_t *which = t->order + t->begin[g];
	size_t n = t->begin[g + 1] - t->begin[g], count;
	struct buf msg = BUF_INIT(CHAN_MSG_MAX);
	struct worker_call call;
	int fd = -1, rc;

	if (t->worker[g] == t->w->p.index) {
		deliver_here(t->w, t->d, which, n);
		return;
	}
	for (; n; n -= count, which += count) {
		count = request(t->d, which, n, &msg);
		buf_add(&msg, t->message.data, t->message.len);
		if (t->fd >= 0)
			fd = dup(t->fd);
		if (!count || !t->message.len || (t->fd >= 0 && fd < 0)) {
			io_close(&fd);
			fail_all(t->d, which, n, ERR_UNAVAILABLE);
			break;
		}
		rc = worker_call(t->w, false, t->worker[g], &msg, fd, DELIVER_MS, &call);
		take_results(t->d, which, count, rc, &call);
		buf_free(&call.answer);
	}
	buf_free(&msg);
}

/* Sorts targets by worker into order; returns the number of groups. */
static size_t group(struct worker *w, struct lmtp_delivery *d, size_t *order, size_t *begin, unsigned *worker)
{
	unsigned n_workers = (unsigned)w->p.conf.worker_count, k;
	unsigned *of = mem_calloc(d->n, sizeof(*of));
	size_t groups = 0, n = 0, i;

	for (i = 0; i < d->n; i++)
		of[i] = msg_worker_of(d->to[i].user, n_workers);
	for (k = 0; k < n_workers; k++) {
		begin[groups] = n;
		for (i = 0; i < d->n; i++)
			if (of[i] == k)
				order[n++] = i;
		worker[groups] = k;
		groups += n > begin[groups];
	}
	begin[groups] = n;
	free(of);
	return groups;
}

/* The message as another worker can take it, made when there is one to. */
static void export_for(struct there *t, size_t groups)
{
	struct err err = ERR_INIT;
	size_t g;

	for (g = 0; g < groups && t->worker[g] == t->w->p.index; g++)
		;
	if (g < groups && obox_msgin_export(t->d->msg, INLINE_MAX, &t->message, &t->fd, &err) < 0) {
		log_event(LOG_ERROR, "a message cannot be handed to another worker", LF_ERR(&err), LF_END);
		buf_clear(&t->message);
	}
}

void worker_deliver(struct conn_env *env, struct lmtp_delivery *d)
{
	struct worker *w = env->worker;
	size_t begin[WORKERS_MAX + 1], groups, *order = mem_calloc(d->n, sizeof(*order));
	unsigned worker[WORKERS_MAX + 1];
	struct there t = { w, d, order, begin, worker, BUF_INIT(INLINE_MAX + 64), -1 };

	groups = group(w, d, order, begin, worker);
	export_for(&t, groups);
	if (groups == 1)
		deliver_group(&t, 0);
	else
		pool_each(w->pool, groups, deliver_group, &t);
	io_close(&t.fd);
	buf_free(&t.message);
	free(order);
}

/* --- for another worker --- */

struct remote {
	struct pool_task task;
	struct worker *w;
	unsigned index;
	uint64_t serial;
	uint32_t id;
	int fd;
	unsigned char *text;		/* the request, which the targets point into */
	struct rd message;
	struct lmtp_delivery d;
};

static void remote_run(struct pool_task *task)
{
	struct remote *m = (struct remote *)task;
	struct err err = ERR_INIT;
	struct buf msg = BUF_INIT(CHAN_MSG_MAX);
	struct here h = { &m->w->env, &m->d, NULL };
	size_t *which = mem_calloc(m->d.n, sizeof(*which)), i;
	int rc = obox_msgin_import(m->w->env.obox, &m->message, m->fd, &m->d.msg, &err);

	if (rc < 0)
		log_event(LOG_ERROR, "a message from another worker cannot be taken", LF_ERR(&err), LF_END);
	for (i = 0; i < m->d.n; i++) {
		which[i] = i;
		m->d.to[i].rc = rc;
	}
	h.which = which;
	if (rc == 0)
		pool_each(m->w->deliveries, m->d.n, deliver_nth, &h);
	buf_put8(&msg, MSG_DELIVERED);
	buf_put32(&msg, m->id);
	buf_put16(&msg, (uint16_t)m->d.n);
	for (i = 0; i < m->d.n; i++)
		buf_put8(&msg, (uint8_t)-m->d.to[i].rc);
	worker_answer(m->w, m->index, m->serial, &msg);
	buf_free(&msg);
	if (m->d.msg)
		obox_msgin_free(&m->d.msg);
	free(which);
	free(m->d.to);
	free(m->text);
	free(m);
}

static const char *or_null(const char *s)
{
	return *s ? s : NULL;
}

void worker_deliver_request(struct worker *w, unsigned index, uint64_t serial, uint32_t id, struct rd *in, int fd)
{
	struct remote *m = MEM_NEW(struct remote);
	size_t len = rd_left(in), i;
	struct rd r;

	m->text = mem_dup(in->p, len);
	r = rd_init(m->text, len);
	m->w = w;
	m->index = index;
	m->serial = serial;
	m->id = id;
	m->fd = fd;
	m->task.run = remote_run;
	m->d.from = msg_get_str(&r);
	m->d.n = rd_16(&r);
	m->d.to = mem_calloc(m->d.n, sizeof(*m->d.to));
	for (i = 0; i < m->d.n; i++) {
		m->d.to[i].user = msg_get_str(&r);
		m->d.to[i].address = msg_get_str(&r);
		m->d.to[i].mailbox = or_null(msg_get_str(&r));
		m->d.to[i].prepend = or_null(msg_get_str(&r));
	}
	m->message = r;
	if (r.failed || in->failed) {
		io_close(&fd);
		free(m->d.to);
		free(m->text);
		free(m);
		return;
	}
	pool_add(w->deliveries, &m->task);
}
