/* The journal in the store: objects journal/<node>/<incarnation>/<seq>, each
 * created, never changed.
 *
 *   entries -> the last piece of the queue -> (sealed, named) -> on its way -> stored
 *
 * Invariants
 *  (1) Entries are in pieces in the order of append, pieces get their seq in
 *      that order, and nothing is acknowledged before every earlier piece is
 *      stored: who takes over reads up to the first missing seq, and what lies
 *      behind a gap is void.
 *  (2) A piece keeps its bytes: it may be sent any number of times.  A name
 *      that exists is read back; other bytes than ours are the seal of who took
 *      over, and this incarnation then never acknowledges anything again.
 *  (3) A stored piece is acknowledged only while the node's heartbeat is known
 *      to be unclaimed, for the sake of message objects stored beside it: see
 *      docs/architecture.md.
 *  (4) While the store is away nothing is taken (append fails at once) and who
 *      waits is told; what was taken is sent again and again, in order, for
 *      ever, so that the node goes on by itself when the store is back.
 *
 * No timer makes a batch: an idle journal sends at once what is waited for; a
 * busy one has up to WINDOW pieces on their way, begun a fraction of the
 * measured round trip apart, and what comes meanwhile is the next piece. */
#include "metacache/metacache-private.h"

#include "base/log.h"

#include <errno.h>
#include <time.h>

enum {
	WINDOW = 4, PIECE_BYTES = 4 << 20, QUEUE_BYTES = 64 << 20, ONE_APPEND_MAX = 256 << 20,
	TAIL_PIECES = 256, TAIL_BYTES = 16 << 20,
	BACKOFF_MIN_US = 50000, BACKOFF_MAX_US = 2000000, TROUBLE = 2 /* failures in a row of one piece */,
	LOOK_US = 100000, STEPPED_TRIES = 3
};

struct piece {
	struct piece *next;
	struct store_journal *j;
	enum { QUEUED, READY, FLYING, ASK, STORED } state;	/* ASK: a name that exists is to be read back */
	uint64_t first, upto;		/* tickets */
	uint64_t n, seq;
	struct buf entries, sealed;
	struct iovec iov;
	char *key;
	struct objstore_op op;
	int64_t queued_us, sent_us, retry_us;
	unsigned failures;
};

struct store_journal {
	struct journal base;
	struct metacache *mc;
	pthread_mutex_t lock;
	pthread_cond_t done, work;	/* on CLOCK_MONOTONIC */
	struct piece *head, **end;
	unsigned flying;
	bool stepping, trouble, woken;
	uint64_t queued, durable, wanted;	/* tickets */
	uint64_t queue_bytes;
	uint64_t next_seq, floor, deleted;	/* deleted: pieces below are gone from the store */
	uint64_t bytes, bytes_at_rotate, bytes_again, rotate_seq;
	int64_t rtt_us, last_sent_us;
	uint64_t puts, retries, put_bytes;
};

static struct store_journal *store_of(struct journal *base)
{
	return (struct store_journal *)base;
}

static void wait_us(pthread_cond_t *c, pthread_mutex_t *m, int64_t us)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	us += t.tv_nsec / 1000;
	t.tv_sec += us / 1000000;
	t.tv_nsec = us % 1000000 * 1000;
	pthread_cond_timedwait(c, m, &t);
}

static void piece_free(struct piece *p)
{
	buf_free(&p->entries);
	buf_free(&p->sealed);
	free(p->key);
	free(p);
}

/* --- state; under the lock --- */

static bool degraded(const struct store_journal *j)
{
	const struct piece *p = j->head;

	return j->trouble || !mc_lease(j->mc) ||
	       (p && p->state == FLYING && mc_now(j->mc) - p->sent_us > (int64_t)j->mc->cfg.commit_timeout_ms * 1000);
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
	pthread_cond_broadcast(&j->done);
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
	pthread_cond_broadcast(&j->done);
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
	j->woken = true;
	pthread_cond_signal(&j->work);
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
	if (!j->woken && us > 0)
		wait_us(&j->work, &j->lock, us);
	j->woken = false;
	pthread_mutex_unlock(&j->lock);
}

void store_journal_wake(struct store_journal *j)
{
	pthread_mutex_lock(&j->lock);
	j->woken = true;
	pthread_cond_broadcast(&j->work);
	pthread_cond_broadcast(&j->done);
	pthread_mutex_unlock(&j->lock);
}

/* --- the interface --- */

static struct piece *open_piece(struct store_journal *j, uint64_t need)
{
	struct piece *p;

	for (p = j->head; p && p->next; p = p->next)
		;
	if (p && p->state == QUEUED && p->entries.len + need <= PIECE_BYTES)
		return p;
	p = MEM_NEW(struct piece);
	p->j = j;
	p->first = j->queued + 1;
	p->queued_us = mc_now(j->mc);
	buf_init(&p->entries, ONE_APPEND_MAX);
	*j->end = p;
	j->end = &p->next;
	return p;
}

/* (4) */
static int may_append(struct store_journal *j, uint64_t need, bool force, struct err *err)
{
	if (atomic_load(&j->mc->fenced))
		return err_set(err, ERR_FENCED, "journal: node %s was taken over", j->mc->node);
	if (need > ONE_APPEND_MAX)
		return err_set(err, ERR_LIMIT, "journal: too much at once");
	if (!force && degraded(j))
		return err_set(err, ERR_UNAVAILABLE, "journal: the store cannot be written now");
	if (!force && j->queue_bytes + need > QUEUE_BYTES)
		return err_set(err, ERR_UNAVAILABLE, "journal: the store takes less than comes in");
	return 0;
}

static int store_append(struct journal *base, const struct journal_entry *e, size_t n, bool force, uint64_t *ticket_r, struct err *err)
{
	struct store_journal *j = store_of(base);
	uint64_t need = 0;
	struct piece *p;
	size_t i;
	int rc;

	for (i = 0; i < n; i++)
		need += e[i].rec_len + strlen(e[i].user) + 50;
	pthread_mutex_lock(&j->lock);
	rc = may_append(j, need, force, err);
	if (rc == 0) {
		p = open_piece(j, need);
		j->queue_bytes -= p->entries.len;
		for (i = 0; i < n; i++) {
			buf_putstr(&p->entries, e[i].user);
			buf_putv(&p->entries, e[i].epoch);
			buf_putv(&p->entries, e[i].lsn);
			buf_putv(&p->entries, e[i].landed);
			buf_putblob(&p->entries, e[i].rec, e[i].rec_len);
		}
		j->queue_bytes += p->entries.len;
		p->n += n;
		*ticket_r = p->upto = ++j->queued;
	}
	pthread_mutex_unlock(&j->lock);
	return rc;
}

static void want(struct store_journal *j, uint64_t ticket)
{
	if (ticket <= j->wanted)
		return;
	j->wanted = ticket;
	j->woken = true;
	pthread_cond_signal(&j->work);
}

static void store_start(struct journal *base, uint64_t ticket)
{
	struct store_journal *j = store_of(base);

	pthread_mutex_lock(&j->lock);
	want(j, ticket);
	pthread_mutex_unlock(&j->lock);
	if (j->mc->cfg.stepped)
		store_journal_step(j, 0);
}

static int refusal(struct store_journal *j, struct err *err)
{
	if (atomic_load(&j->mc->fenced))
		return err_set(err, ERR_FENCED, "journal: node %s was taken over", j->mc->node);
	return err_set(err, ERR_UNAVAILABLE, "journal: the store does not take it now");
}

/* Without threads: one who waits does the work, and gives up where a thread would have to wait for time to pass. */
static void step_for(struct store_journal *j, uint64_t ticket)
{
	struct piece *p;
	int i;

	for (i = 0; i < STEPPED_TRIES && j->durable < ticket && !atomic_load(&j->mc->fenced); i++) {
		for (p = j->head; i && p; p = p->next)
			if (p->retry_us != INT64_MAX)
				p->retry_us = 0;
		pthread_mutex_unlock(&j->lock);
		store_journal_step(j, 0);
		pthread_mutex_lock(&j->lock);
		while (j->flying)
			wait_us(&j->done, &j->lock, LOOK_US);
	}
}

static int store_wait(struct journal *base, uint64_t ticket, struct err *err)
{
	struct store_journal *j = store_of(base);
	int64_t end = mc_now(j->mc) + (int64_t)j->mc->cfg.commit_timeout_ms * 1000;
	int rc = 0;

	if (sim_broken("ack-before-journal"))
		return 0;
	pthread_mutex_lock(&j->lock);
	want(j, ticket);
	if (j->mc->cfg.stepped)
		step_for(j, ticket);
	while (j->durable < ticket && !j->mc->cfg.stepped && !degraded(j) && mc_now(j->mc) < end)
		wait_us(&j->done, &j->lock, LOOK_US);
	if (j->durable < ticket || (!mc_lease(j->mc) && !sim_broken("no-lease")))	/* (3) */
		rc = refusal(j, err);
	pthread_mutex_unlock(&j->lock);
	return rc;
}

static bool store_done(struct journal *base, uint64_t ticket)
{
	struct store_journal *j = store_of(base);
	bool done;

	pthread_mutex_lock(&j->lock);
	done = j->durable >= ticket;
	pthread_mutex_unlock(&j->lock);
	return done;
}

/* The journal's thread must know that there is a time to watch. */
static bool store_push(struct journal *base)
{
	struct store_journal *j = store_of(base);
	bool in_time;

	pthread_mutex_lock(&j->lock);
	in_time = !j->head || mc_now(j->mc) - j->head->queued_us <= (int64_t)j->mc->cfg.flag_commit_delay_ms * 1000;
	j->woken = true;
	pthread_cond_signal(&j->work);
	pthread_mutex_unlock(&j->lock);
	return in_time;
}

static int store_sync(struct journal *base, struct err *err)
{
	struct store_journal *j = store_of(base);
	uint64_t upto;

	pthread_mutex_lock(&j->lock);
	upto = j->queued;
	pthread_mutex_unlock(&j->lock);
	return store_wait(base, upto, err);
}

static uint64_t store_bytes(struct journal *base)
{
	struct store_journal *j = store_of(base);
	uint64_t n;

	pthread_mutex_lock(&j->lock);
	n = j->bytes + j->queue_bytes;
	pthread_mutex_unlock(&j->lock);
	return n;
}

static bool store_long_tail(struct journal *base)
{
	struct store_journal *j = store_of(base);
	bool is;

	pthread_mutex_lock(&j->lock);
	/* what was written again the last time does not count: many users' records must not be written over and over */
	is = j->next_seq - j->floor > (j->mc->cfg.tail_pieces ? j->mc->cfg.tail_pieces : TAIL_PIECES) || j->bytes > TAIL_BYTES + 2 * j->bytes_again;
	pthread_mutex_unlock(&j->lock);
	return is;
}

static int store_rotate(struct journal *base, uint64_t *old_r, struct err *err)
{
	struct store_journal *j = store_of(base);

	pthread_mutex_lock(&j->lock);
	*old_r = j->rotate_seq = j->next_seq - 1;
	j->bytes_at_rotate = j->bytes;
	pthread_mutex_unlock(&j->lock);
	return 0;
}

/* The pieces stay until the node's record names the new floor: store_journal_published().  A busy journal does not wait for
 * the next heartbeat that is due: who takes over would have to read all that it wrote until then. */
static void store_drop(struct journal *base, uint64_t upto)
{
	struct store_journal *j = store_of(base);
	bool far;

	pthread_mutex_lock(&j->lock);
	if (upto >= j->next_seq)
		upto = j->next_seq - 1;
	if (upto + 1 > j->floor)
		j->floor = upto + 1;
	far = j->floor - j->deleted > TAIL_PIECES;
	if (upto == j->rotate_seq) {
		j->bytes -= j->bytes_at_rotate;
		j->bytes_again = j->bytes;
		j->bytes_at_rotate = 0;
	}
	pthread_mutex_unlock(&j->lock);
	if (far)
		mc_beat_soon(j->mc);
}

static void store_prepare(struct journal *base)
{
	struct store_journal *j = store_of(base);

	if (j->mc->cfg.stepped)
		store_journal_step(j, 0);
}

static void store_close(struct journal *base)
{
	struct store_journal *j = store_of(base);
	struct piece *p;

	pthread_mutex_lock(&j->lock);
	while (j->flying)
		wait_us(&j->work, &j->lock, LOOK_US);
	pthread_mutex_unlock(&j->lock);
	while ((p = j->head) != NULL) {
		j->head = p->next;
		piece_free(p);
	}
	j->mc->journal = NULL;
	pthread_cond_destroy(&j->done);
	pthread_cond_destroy(&j->work);
	pthread_mutex_destroy(&j->lock);
	free(j);
}

static const struct journal_ops store_ops = {
	false, store_append, store_start, store_wait, store_done, store_push, store_sync, store_bytes, store_long_tail, store_rotate,
	store_drop, store_prepare, store_close,
};

struct store_journal *store_journal_new(struct metacache *mc)
{
	struct store_journal *j = MEM_NEW(struct store_journal);
	pthread_condattr_t attr;

	j->base.ops = &store_ops;
	j->mc = mc;
	j->end = &j->head;
	j->next_seq = j->floor = j->deleted = 1;
	pthread_mutex_init(&j->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&j->done, &attr);
	pthread_cond_init(&j->work, &attr);
	pthread_condattr_destroy(&attr);
	return j;
}

struct journal *store_journal_base(struct store_journal *j)
{
	return &j->base;
}

uint64_t store_journal_floor(struct store_journal *j)
{
	uint64_t n;

	pthread_mutex_lock(&j->lock);
	n = j->floor;
	pthread_mutex_unlock(&j->lock);
	return n;
}

uint64_t store_journal_pieces(struct store_journal *j)
{
	uint64_t n;

	pthread_mutex_lock(&j->lock);
	n = j->next_seq - j->floor;
	pthread_mutex_unlock(&j->lock);
	return n;
}

enum { DELETE_AT_ONCE = 1000 };

bool store_journal_published(struct store_journal *j, uint64_t floor)
{
	uint64_t from, to;

	pthread_mutex_lock(&j->lock);
	from = j->deleted;
	to = floor > from + DELETE_AT_ONCE ? from + DELETE_AT_ONCE : floor;
	if (from < floor)
		j->deleted = to;
	pthread_mutex_unlock(&j->lock);
	if (from < floor)
		journal_delete(j->mc, j->mc->node, j->mc->incarnation, from, to);
	return to < floor;
}

bool store_journal_degraded(struct store_journal *j)
{
	bool is;

	pthread_mutex_lock(&j->lock);
	is = degraded(j);
	pthread_mutex_unlock(&j->lock);
	return is;
}

void store_journal_stats(struct store_journal *j, struct metacache_stats *st)
{
	pthread_mutex_lock(&j->lock);
	st->journal_puts = j->puts;
	st->journal_retries = j->retries;
	st->journal_bytes = j->put_bytes;
	st->degraded = degraded(j);
	pthread_mutex_unlock(&j->lock);
}
