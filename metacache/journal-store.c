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
#include "metacache/journal-private.h"

#include "base/log.h"

enum { PIECE_BYTES = 4 << 20, QUEUE_BYTES = 64 << 20, TAIL_PIECES = 256, TAIL_BYTES = 16 << 20, STEPPED_TRIES = 3 };

static struct store_journal *store_of(struct journal *base)
{
	return (struct store_journal *)base;
}

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
	if (!force && journal_degraded(j))
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
	journal_nudge(j);
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
			journal_wait_us(&j->landed, &j->lock, LOOK_US);
	}
}

/* Until somebody has news for w, or LOOK_US; with the lock, which it lets go of meanwhile. */
static void wait_for_news(struct store_journal *j, struct waiter *w)
{
	wake_init(&w->wake);
	w->next = j->waiters;
	w->at = &j->waiters;
	if (w->next)
		w->next->at = &w->next;
	j->waiters = w;
	pthread_mutex_unlock(&j->lock);
	(void)wake_wait(&w->wake, LOOK_US / 1000);
	pthread_mutex_lock(&j->lock);
	if (!w->at)
		return;
	*w->at = w->next;
	if (w->next)
		w->next->at = w->at;
}

static int store_wait(struct journal *base, uint64_t ticket, struct err *err)
{
	struct store_journal *j = store_of(base);
	int64_t end = mc_now(j->mc) + (int64_t)j->mc->cfg.commit_timeout_ms * 1000;
	struct waiter w = { .ticket = ticket };
	int rc = 0;

	if (sim_broken("ack-before-journal"))
		return 0;
	pthread_mutex_lock(&j->lock);
	want(j, ticket);
	if (j->mc->cfg.stepped)
		step_for(j, ticket);
	while (j->durable < ticket && !j->mc->cfg.stepped && !journal_degraded(j) && mc_now(j->mc) < end)
		wait_for_news(j, &w);
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
	journal_nudge(j);
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
		journal_wait_us(&j->landed, &j->lock, LOOK_US);
	pthread_mutex_unlock(&j->lock);
	while ((p = j->head) != NULL) {
		j->head = p->next;
		piece_free(p);
	}
	j->mc->journal = NULL;
	pthread_cond_destroy(&j->landed);
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
	pthread_cond_init(&j->landed, &attr);
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
	is = journal_degraded(j);
	pthread_mutex_unlock(&j->lock);
	return is;
}

void store_journal_stats(struct store_journal *j, struct metacache_stats *st)
{
	pthread_mutex_lock(&j->lock);
	st->journal_puts = j->puts;
	st->journal_retries = j->retries;
	st->journal_bytes = j->put_bytes;
	st->degraded = journal_degraded(j);
	pthread_mutex_unlock(&j->lock);
}
