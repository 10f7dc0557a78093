/* Deliveries: those for users of this worker run side by side on the delivery
 * pool, so that they share the journal's commits; those for others go to
 * their workers, or to the nodes that have the users, in one request each,
 * with the message parsed and packed.
 *
 * MSG_DELIVER    id, sender, count, count times (user, address, mailbox, prepend), the message (obox_msgin_export);
 *                descriptor: a large message
 * MSG_DELIVERED  id, results (deliver.h)
 *
 * Who has a user shows only when the user is opened, and may change while mail
 * is on its way: so there are a few rounds of asking here and sending there.
 * A delivery that came from elsewhere is never sent on, only answered with
 * who has the user: threads that deliver for others never wait for others. */
#include "daemon/deliver.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "obox/obox.h"

#include <sys/stat.h>
#include <unistd.h>

enum {
	DELIVER_MS = 300000,	/* RFC 5321, 4.5.3.2.6 gives the client's patience as ten minutes */
	INLINE_MAX = 24 * 1024,		/* so much of a message goes with the request itself */
	HEAD_MAX = CHAN_MSG_MAX - INLINE_MAX - 64,
	RCPTS_PER_REQUEST = 64,
	ROUNDS = 4, ROUND_WAIT_MS = 150
};

/* --- for this worker's users --- */

struct here {
	struct worker *w;
	struct lmtp_delivery *d;
	struct deliver_place *place;
	const size_t *which;
};

static void deliver_nth(void *ctx, size_t nth)
{
	struct here *h = ctx;
	size_t i = h->which ? h->which[nth] : nth;
	struct lmtp_target *t = &h->d->to[i];
	struct obox_owner owner;
	struct obox_user *u = NULL;
	struct err err = ERR_INIT;
	int rc = worker_user_open(h->w, t->user, &u, &owner, &err);

	if (rc == ERR_BUSY && *owner.node) {
		t->rc = rc;
		deliver_moved(&h->place[i], &owner);
		return;
	}
	h->place[i].state = DELIVER_DONE;
	lmtp_deliver_one(&h->w->env, h->d->msg, h->d->from, t);
	obox_user_close(&u);
}

void deliver_here(struct worker *w, struct lmtp_delivery *d, struct deliver_place *place, const size_t *which, size_t n)
{
	struct here h = { w, d, place, which };

	if (n == 1)
		deliver_nth(&h, 0);
	else if (n)
		pool_each(w->deliveries, n, deliver_nth, &h);
}

/* --- to others --- */

/* A delivery on its way: which targets go where in this round. */
struct trip {
	struct worker *w;
	struct lmtp_delivery *d;
	struct deliver_place *place;
	size_t *order;			/* targets, those of one group together */
	size_t *begin;			/* where the n-th group begins; one more at the end */
	unsigned *worker;		/* of the n-th group */
	pthread_mutex_t lock;		/* of making what follows */
	struct deliver_message packed, raw;
};

static void fail_all(struct trip *t, const size_t *which, size_t n, int rc)
{
	for (; n--; which++) {
		t->d->to[*which].rc = rc;
		t->place[*which].state = DELIVER_DONE;
	}
}

/* Nothing was sent: who has these users is to be asked again. */
static void ask_again(struct trip *t, const size_t *which, size_t n)
{
	for (; n--; which++) {
		t->d->to[*which].rc = ERR_UNAVAILABLE;
		t->place[*which].state = DELIVER_HERE;
	}
}

/* As many of which[0..n) as one request takes, appended to msg; returns how many. */
static size_t put_targets(struct lmtp_delivery *d, const size_t *which, size_t n, struct buf *msg)
{
	size_t count = 0, good, at;

	msg_put_str(msg, d->from);
	at = msg->len;
	buf_put16(msg, 0);
	while (count < n && count < RCPTS_PER_REQUEST) {
		const struct lmtp_target *t = &d->to[which[count]];

		good = msg->len;
		msg_put_str(msg, t->user);
		msg_put_str(msg, t->address);
		msg_put_str(msg, t->mailbox);
		msg_put_str(msg, t->prepend);
		if (msg->failed || msg->len > HEAD_MAX) {
			msg->failed = false;
			buf_truncate(msg, good);
			break;
		}
		count++;
	}
	msg->data[at] = (unsigned char)count;
	return count;
}

/* The message as another process of this version takes it, or (raw) as any does. */
static const struct deliver_message *message_for(struct trip *t, bool raw)
{
	struct deliver_message *m = raw ? &t->raw : &t->packed;
	struct stat st = { 0 };
	struct err err = ERR_INIT;
	int rc = 0;

	pthread_mutex_lock(&t->lock);
	if (!m->made) {
		m->made = true;
		buf_init(&m->head, INLINE_MAX + 64);
		m->fd = -1;
		rc = raw ? deliver_raw(t->d->msg, INLINE_MAX, m, &err) : obox_msgin_export(t->d->msg, INLINE_MAX, &m->head, &m->fd, &err);
		if (rc == 0 && m->fd >= 0)
			rc = fstat(m->fd, &st) < 0 ? err_errno(&err, "fstat", NULL) : 0;
		m->file_len = m->fd >= 0 ? (uint64_t)st.st_size : 0;
		m->failed = rc < 0;
		if (rc < 0)
			log_event(LOG_ERROR, "a message cannot be handed on", LF_ERR(&err), LF_END);
	}
	pthread_mutex_unlock(&t->lock);
	return m->failed ? NULL : m;
}

static void message_free(struct deliver_message *m)
{
	if (!m->made)
		return;
	io_close(&m->fd);
	buf_free(&m->head);
}

/* --- to other workers --- */

static void to_worker(struct trip *t, unsigned worker, const size_t *which, size_t n)
{
	const struct deliver_message *m = message_for(t, false);
	struct buf msg = BUF_INIT(CHAN_MSG_MAX);
	struct worker_call call;
	size_t count;
	int fd = -1, rc;

	for (; n; n -= count, which += count) {
		struct rd r;

		buf_clear(&msg);
		buf_put8(&msg, MSG_DELIVER);
		buf_put32(&msg, 0);
		count = put_targets(t->d, which, n, &msg);
		if (m && m->fd >= 0)
			fd = dup(m->fd);
		if (!count || !m || (m->fd >= 0 && fd < 0)) {
			io_close(&fd);
			fail_all(t, which, n, ERR_UNAVAILABLE);
			break;
		}
		buf_add(&msg, m->head.data, m->head.len);
		rc = worker_call(t->w, false, worker, &msg, fd, DELIVER_MS, &call);
		fail_all(t, which, count, rc < 0 ? rc : ERR_UNAVAILABLE);
		r = rd_init(call.answer.data, call.answer.len);
		if (rc == 0)
			deliver_results_get(&r, t->d, t->place, which, count);
		buf_free(&call.answer);
	}
	buf_free(&msg);
}

static void worker_group(void *ctx, size_t g)
{
	struct trip *t = ctx;
	const size_t *which = t->order + t->begin[g];
	size_t n = t->begin[g + 1] - t->begin[g];

	if (t->worker[g] == t->w->p.index)
		deliver_here(t->w, t->d, t->place, which, n);
	else
		to_worker(t, t->worker[g], which, n);
}

/* Sorts the targets to be asked for here by worker; returns the number of groups. */
static size_t group_by_worker(struct trip *t)
{
	unsigned n_workers = (unsigned)t->w->p.conf.worker_count, k;
	unsigned *of = mem_calloc(t->d->n, sizeof(*of));
	size_t groups = 0, n = 0, i;

	for (i = 0; i < t->d->n; i++)
		of[i] = t->place[i].state == DELIVER_HERE ? msg_worker_of(t->d->to[i].user, n_workers) : n_workers;
	for (k = 0; k < n_workers; k++) {
		t->begin[groups] = n;
		for (i = 0; i < t->d->n; i++)
			if (of[i] == k)
				t->order[n++] = i;
		t->worker[groups] = k;
		groups += n > t->begin[groups];
	}
	t->begin[groups] = n;
	free(of);
	return groups;
}

/* --- to other nodes --- */

/* One request; how many of which[0..n) it had. */
static size_t node_request(struct trip *t, const char *address, bool same, const size_t *which, size_t n)
{
	const struct deliver_message *m = message_for(t, !same);
	struct node_request rq = { .head = BUF_INIT(CHAN_MSG_MAX), .fd = -1, .file_len = m ? m->file_len : 0 };
	struct buf answer = BUF_INIT(CHAN_MSG_MAX);
	bool sent = false;
	size_t count;
	struct rd r;
	int rc = ERR_UNAVAILABLE;

	buf_put8(&rq.head, same ? DELIVER_PACKED : DELIVER_RAW);
	msg_put_str(&rq.head, PACKAGE_VERSION);
	count = put_targets(t->d, which, n, &rq.head);
	if (m && m->fd >= 0)
		rq.fd = dup(m->fd);
	if (!count || !m || (m->fd >= 0 && rq.fd < 0)) {
		io_close(&rq.fd);
		buf_free(&rq.head);
		fail_all(t, which, n, ERR_UNAVAILABLE);
		return n;
	}
	buf_add(&rq.head, m->head.data, m->head.len);
	rc = node_peer_call(t->w, address, &rq, DELIVER_MS, &answer, &sent);
	if (rc < 0 && !sent)
		ask_again(t, which, count);
	else
		fail_all(t, which, count, rc < 0 ? rc : ERR_UNAVAILABLE);
	r = rd_init(answer.data, answer.len);
	if (rc == 0)
		deliver_results_get(&r, t->d, t->place, which, count);
	else
		log_event(LOG_WARN, "mail could not be handed to its node", LF_S("address", address), LF_S("class", err_code_name(rc)),
			  LF_S("sent", sent ? "yes" : "no"), LF_U("recipients", count), LF_END);
	buf_free(&answer);
	return count;
}

static void node_group(void *ctx, size_t g)
{
	struct trip *t = ctx;
	const size_t *which = t->order + t->begin[g];
	size_t n = t->begin[g + 1] - t->begin[g], count;
	char *address = mem_strdup(t->place[which[0]].owner->address);	/* an answer may change the owner */
	struct err err = ERR_INIT;
	bool same;

	if (node_peer_up(t->w, address, &same, &err) < 0) {
		log_event(LOG_WARN, "the node that has the user cannot be reached", LF_S("node", t->place[which[0]].owner->node), LF_S("address", address), LF_ERR(&err), LF_END);
		ask_again(t, which, n);
		n = 0;
	}
	for (; n; n -= count, which += count)
		count = node_request(t, address, same, which, n);
	free(address);
}

/* Sorts the targets that are away by their nodes; a thousand recipients on as
 * many nodes would be a million comparisons, which is nothing beside the deliveries. */
static size_t group_by_node(struct trip *t)
{
	size_t groups = 0, n = 0, i, k;
	bool *taken = mem_calloc(t->d->n, sizeof(*taken));

	for (i = 0; i < t->d->n; i++) {
		if (t->place[i].state != DELIVER_AWAY || taken[i])
			continue;
		t->begin[groups++] = n;
		for (k = i; k < t->d->n; k++) {
			if (t->place[k].state != DELIVER_AWAY || taken[k] || strcmp(t->place[k].owner->address, t->place[i].owner->address) != 0)
				continue;
			taken[k] = true;
			t->order[n++] = k;
		}
	}
	t->begin[groups] = n;
	free(taken);
	return groups;
}

/* --- all --- */

static void run_groups(struct trip *t, size_t groups, void (*fn)(void *ctx, size_t g))
{
	if (groups == 1)
		fn(t, 0);
	else if (groups)
		pool_each(t->w->pool, groups, fn, t);
}

static bool all_done(const struct trip *t)
{
	size_t i;

	for (i = 0; i < t->d->n; i++)
		if (t->place[i].state != DELIVER_DONE)
			return false;
	return true;
}

static void log_undelivered(struct trip *t)
{
	size_t i;

	for (i = 0; i < t->d->n; i++)
		if (t->place[i].state != DELIVER_DONE)
			log_event(LOG_WARN, "mail could not be stored", LF_S("user", t->d->to[i].user), LF_S("from", t->d->from), LF_S("to", t->d->to[i].address),
				  LF_S("error", "the node that has the user cannot be reached"), LF_S("node", t->place[i].owner ? t->place[i].owner->node : ""), LF_END);
}

void worker_deliver(struct conn_env *env, struct lmtp_delivery *d)
{
	struct trip t = { .w = env->worker, .d = d, .lock = PTHREAD_MUTEX_INITIALIZER };
	size_t max = d->n + WORKERS_MAX + 1, i;
	unsigned round;

	t.place = mem_calloc(d->n, sizeof(*t.place));
	t.order = mem_calloc(d->n, sizeof(*t.order));
	t.begin = mem_calloc(max, sizeof(*t.begin));
	t.worker = mem_calloc(WORKERS_MAX + 1, sizeof(*t.worker));
	for (round = 0; round < ROUNDS && !all_done(&t); round++) {
		if (round)
			usleep(ROUND_WAIT_MS * 1000 * round);
		run_groups(&t, group_by_worker(&t), worker_group);
		run_groups(&t, group_by_node(&t), node_group);
	}
	log_undelivered(&t);
	for (i = 0; i < d->n; i++)
		free(t.place[i].owner);
	message_free(&t.packed);
	message_free(&t.raw);
	free(t.place);
	free(t.order);
	free(t.begin);
	free(t.worker);
	pthread_mutex_destroy(&t.lock);
}

/* --- for another worker --- */

struct remote {
	struct pool_task task;
	struct worker *w;
	unsigned index;
	uint64_t serial;
	uint32_t id;
	struct deliver_in in;
};

static void remote_run(struct pool_task *task)
{
	struct remote *m = (struct remote *)task;
	struct buf msg = BUF_INIT(CHAN_MSG_MAX);

	deliver_in_run(m->w, &m->in);
	buf_put8(&msg, MSG_DELIVERED);
	buf_put32(&msg, m->id);
	deliver_results_put(&msg, &m->in);
	worker_answer(m->w, m->index, m->serial, &msg);
	buf_free(&msg);
	deliver_in_free(&m->in);
	free(m);
}

void worker_deliver_request(struct worker *w, unsigned index, uint64_t serial, uint32_t id, struct rd *in, int fd)
{
	struct remote *m = MEM_NEW(struct remote);
	size_t len = rd_left(in);

	m->w = w;
	m->index = index;
	m->serial = serial;
	m->id = id;
	m->task.run = remote_run;
	if (deliver_in_parse(&m->in, mem_dup(in->p, len), len, false, fd) == 0) {
		pool_add(w->deliveries, &m->task);
	} else {
		deliver_in_free(&m->in);
		free(m);
	}
}
