/* Pieces of the journal in the store on their way: sealed, sent, sent again,
 * read back, acknowledged in order.  The numbers in brackets are the
 * invariants at the top of journal-store.c. */
#include "metacache/journal-private.h"

#include "base/log.h"

enum { WINDOW = 8, BACKOFF_MIN_US = 50000, BACKOFF_MAX_US = 2000000, TROUBLE = 2 /* failures in a row of one piece */ };

void journal_wait_us(pthread_cond_t *c, pthread_mutex_t *m, int64_t us)
{
	struct timespec t = mc_deadline(us);

	pthread_cond_timedwait(c, m, &t);
}

void piece_free(struct piece *p)
{
	buf_free(&p->entries);
	buf_free(&p->sealed);
	free(p->key);
	free(p);
}

/* --- state; under the lock --- */

bool journal_degraded(const struct store_journal *j)
{
	const struct piece *p = j->head;

	return j->trouble || !mc_lease(j->mc) ||
	       (p && p->state == FLYING && mc_now(j->mc) - p->sent_us > (int64_t)j->mc->cfg.commit_timeout_ms * 1000);
}

void journal_tell(struct store_journal *j, bool all)
{
	struct waiter *w, *next;

	for (w = j->waiters; w; w = next) {
		next = w->next;
		if (!all && w->ticket > j->durable)
			continue;
		*w->at = next;
		if (next)
			next->at = w->at;
		w->at = NULL;
		wake_up(&w->wake);	/* w is its thread's again */
	}
}

/* (1) */
static void retire(struct store_journal *j)
{
	struct piece *p;

	while ((p = j->head) != NULL && p->state == STORED) {
		j->head = p->next;
		if (!j->head)
			j->end = &j->head;
		j->durable = p->upto;
		j->queue_bytes -= p->entries.len;
		j->bytes += p->sealed.len;
		if (j->trouble)
			log_event(LOG_INF, "journal is written again", LF_S("node", j->mc->node), LF_END);
		j->trouble = false;
		piece_free(p);
	}
	journal_tell(j, false);
}

static void failed(struct store_journal *j, struct piece *p, const struct err *e)
{
	int64_t wait = BACKOFF_MIN_US;
	unsigned i;

	for (i = 0; i < p->failures && wait < BACKOFF_MAX_US; i++)
		wait *= 2;
	p->retry_us = mc_now(j->mc) + wait;
	j->retries++;
	/* what took so long to fail was tried several times by the store's driver: no second time before that is said */
	p->failures += mc_now(j->mc) - p->sent_us >= (int64_t)j->mc->cfg.commit_timeout_ms * 200 ? TROUBLE : 1;
	if (p->failures < TROUBLE || j->trouble)
		return;
	j->trouble = true;
	log_event(LOG_ERROR, "journal cannot be written: nothing is taken until the store answers", LF_S("object", p->key), LF_ERR(e), LF_END);
	journal_tell(j, true);
}

static void landed(struct objstore_op *op)
{
	struct piece *p = op->ctx;
	struct store_journal *j = p->j;
	int64_t rtt;

	pthread_mutex_lock(&j->lock);
	j->flying--;
	if (op->rc == 0 || (sim_broken("no-read-back") && op->rc == ERR_EXISTS)) {
		rtt = mc_now(j->mc) - p->sent_us;
		j->rtt_us = j->rtt_us ? (j->rtt_us * 7 + rtt) / 8 : rtt;
		p->state = STORED;
		if (sim_broken("ack-behind-gap") && j->durable < p->upto)
			j->durable = p->upto;
		retire(j);
	} else if (op->rc == ERR_EXISTS || op->rc == ERR_CONFLICT) {
		p->state = ASK;
	} else {
		p->state = READY;
		failed(j, p, &op->err);
	}
	pthread_cond_broadcast(&j->landed);
	journal_nudge(j);
	pthread_mutex_unlock(&j->lock);
}

/* --- steps; by one thread at a time, which lets go of the lock for what takes long --- */

static int seal_piece(struct store_journal *j, struct piece *p)
{
	struct buf plain = BUF_INIT(ONE_APPEND_MAX + 64);
	struct err e = ERR_INIT;
	int rc;

	p->key = journal_key(j->mc, j->mc->node, j->mc->incarnation, p->seq);
	piece_encode(PIECE_RECORDS, p->n, &p->entries, &plain);
	rc = obox_seal(j->mc->ob, p->key, &plain, &p->sealed, &e);
	buf_free(&plain);
	if (rc < 0)
		log_event(LOG_ERROR, "journal cannot be sealed", LF_S("object", p->key), LF_ERR(&e), LF_END);
	return rc;
}

static void send_piece(struct store_journal *j, struct piece *p)
{
	bool fresh = p->state == QUEUED;

	if (fresh) {
		p->seq = j->next_seq++;
		buf_init(&p->sealed, ONE_APPEND_MAX + 4096);
	}
	p->state = FLYING;
	p->sent_us = j->last_sent_us = mc_now(j->mc);
	j->flying++;
	j->puts++;
	j->put_bytes += p->entries.len;
	pthread_mutex_unlock(&j->lock);
	if (fresh && seal_piece(j, p) < 0)
		abort();	/* only for want of memory or a broken library: the queue cannot go on without this piece */
	p->iov = (struct iovec){ p->sealed.data, p->sealed.len };
	p->op = (struct objstore_op){ .verb = OBJ_PUT, .key = p->key, .cond = OBJ_CREATE, .iov = &p->iov, .n_iov = 1, .done = landed, .ctx = p,
				      .deadline_us = clock_mono_us(&clock_system) + (int64_t)j->mc->cfg.commit_timeout_ms * 1000 };
	objstore_submit(j->mc->cfg.store, &p->op);
	pthread_mutex_lock(&j->lock);
}

/* (2) */
static void ask(struct store_journal *j, struct piece *p)
{
	struct buf there = BUF_INIT(p->sealed.len + 1);
	struct err e = ERR_INIT;
	int rc;

	pthread_mutex_unlock(&j->lock);
	rc = objstore_get(j->mc->cfg.store, p->key, &there, NULL, &e);
	if ((rc == 0 && (there.len != p->sealed.len || memcmp(there.data, p->sealed.data, there.len) != 0)) || rc == ERR_LIMIT) {
		mc_fence(j->mc, "the journal was sealed");
		pthread_mutex_lock(&j->lock);
		p->retry_us = INT64_MAX;
	} else {
		pthread_mutex_lock(&j->lock);
		if (rc == 0) {
			p->state = STORED;
			retire(j);
		} else {
			if (rc == ERR_NOTFOUND)
				p->state = READY;
			failed(j, p, &e);
		}
	}
	buf_free(&there);
}

static bool may_start(const struct store_journal *j, const struct piece *p, int64_t now)
{
	int64_t delay = (int64_t)j->mc->cfg.flag_commit_delay_ms * 500;	/* half of it: the rest is for the store */

	if (j->flying >= WINDOW || j->head->failures || (j->flying && now - j->last_sent_us < j->rtt_us / WINDOW))
		return false;
	return j->wanted >= p->first || now - p->queued_us >= delay;
}

/* When it may be sent, for the sleeper. */
static int64_t start_in(const struct store_journal *j, const struct piece *p, int64_t now)
{
	int64_t flags = p->queued_us + (int64_t)j->mc->cfg.flag_commit_delay_ms * 500 - now, spacing = j->last_sent_us + j->rtt_us / WINDOW - now;

	if (j->flying >= WINDOW || j->head->failures)
		return INT64_MAX;	/* an answer wakes */
	if (j->wanted >= p->first)
		flags = 0;
	return flags > spacing || !j->flying ? flags : spacing;
}

/* The next piece with something to do, or NULL and *in_r. */
static struct piece *pick(struct store_journal *j, int64_t now, int64_t *in_r)
{
	struct piece *p;
	int64_t in;

	for (p = j->head; p; p = p->next) {
		if ((p->state == READY || p->state == ASK) && p->retry_us <= now)
			return p;
		if (p->state == QUEUED && may_start(j, p, now))
			return p;
		in = p->state == READY || p->state == ASK ? p->retry_us - now : p->state == QUEUED ? start_in(j, p, now) : INT64_MAX;
		if (in < *in_r)
			*in_r = in;
		if (p->state == QUEUED)
			break;	/* in order */
	}
	return NULL;
}

void journal_nudge(struct store_journal *j)
{
	int64_t now = mc_now(j->mc), in = INT64_MAX;

	if (j->sleeps_until_us && !pick(j, now, &in) && (in == INT64_MAX || now + in >= j->sleeps_until_us))
		return;
	j->woken = true;
	if (j->sleeps_until_us)
		pthread_cond_signal(&j->work);
}

int64_t store_journal_step(struct store_journal *j, int64_t in)
{
	struct piece *p;

	pthread_mutex_lock(&j->lock);
	if (!j->stepping && !atomic_load(&j->mc->fenced)) {
		j->stepping = true;
		while (!atomic_load(&j->mc->fenced) && (p = pick(j, mc_now(j->mc), &in)) != NULL) {
			if (p->state == ASK)
				ask(j, p);
			else
				send_piece(j, p);
		}
		j->stepping = false;
	}
	pthread_mutex_unlock(&j->lock);
	return in < 0 ? 0 : in;
}

void store_journal_sleep(struct store_journal *j, int64_t us)
{
	pthread_mutex_lock(&j->lock);
	if (!j->woken && us > 0) {
		j->sleeps_until_us = mc_now(j->mc) + us;
		journal_wait_us(&j->work, &j->lock, us);
		j->sleeps_until_us = 0;
	}
	j->woken = false;
	pthread_mutex_unlock(&j->lock);
}

void store_journal_wake(struct store_journal *j)
{
	pthread_mutex_lock(&j->lock);
	j->woken = true;
	pthread_cond_broadcast(&j->work);
	journal_tell(j, true);
	pthread_mutex_unlock(&j->lock);
}
