/* Flights: fetches under way.  All GETs that need blocks of one wait for it
 * and take their bytes from its buffer; what lands is given to the keeper,
 * which writes it to the disk.  A flight stays in its stripe's list until its
 * blocks are in the index, so between "not in the index" and "not in flight"
 * nobody fetches twice.
 *
 * Locks: a stripe's before a shard's.  Nothing is called back under them. */
#include "fscache/fscache-private.h"

#include "base/mem.h"

struct fsc_stripe *fsc_stripe_of(struct fscache *fc, const struct fsc_id *id)
{
	return &fc->stripes[id->a % FSC_STRIPES];
}

void fsc_flight_unref(struct fsc_flight *f)
{
	struct fscache *fc = f->fc;

	if (atomic_fetch_sub(&f->refs, 1) > 1)
		return;
	buf_free(&f->data);
	free(f->key);
	free(f);
	atomic_fetch_sub(&fc->active, 1);	/* the cache may be gone from here on */
}

static void list_del(struct fsc_stripe *st, struct fsc_flight *f)
{
	struct fsc_flight **p = &st->flights;

	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
}

/* --- giving the waiters theirs --- */

static void restart(struct fsc_get *g)
{
	fsc_void(g->fc, &g->id);
	if (++g->restarts > 2) {
		g->rc = err_set(&g->op->err, ERR_CORRUPT, "object store: %s changed while it was read", g->op->key);
		return;
	}
	buf_truncate(g->op->out, g->out_start);
	g->pos = g->op->off;
	g->end = g->op->len && g->op->len < UINT64_MAX - g->pos ? g->pos + g->op->len : UINT64_MAX;
	g->sized = false;
	g->size = 0;
}

static void give_error(struct fsc_get *g, const struct fsc_flight *f)
{
	int rc = f->inner.rc;

	/* the deadline or the room of another: then fetch for ourselves */
	if (!g->leads && (rc == ERR_TIMEOUT || rc == ERR_LIMIT))
		return;
	g->rc = rc;
	g->op->err = f->inner.err;
}

static void give(struct fsc_get *g, const struct fsc_flight *f)
{
	uint64_t start = (uint64_t)f->lo * FSCACHE_BLOCK, have = start + f->data.len, size = f->inner.size, to;

	if (g->over)
		return;
	if (f->inner.rc < 0) {
		give_error(g, f);
		return;
	}
	if (g->sized && g->size != size) {
		restart(g);
		return;
	}
	g->sized = true;
	g->size = size;
	if (g->end > size)
		g->end = size;
	if (g->pos >= g->end)
		return;
	to = g->end < have ? g->end : have;
	if (g->pos < start || to <= g->pos) {
		g->rc = err_set(&g->op->err, ERR_CORRUPT, "object store: %s: the answer is cut", g->op->key);
		return;
	}
	buf_add(g->op->out, f->data.data + (g->pos - start), (size_t)(to - g->pos));
	if (g->op->out->failed)
		g->rc = err_set(&g->op->err, ERR_LIMIT, "object store: %s is larger than expected", g->op->key);
	g->pos = to;
}

/* Has the store given what a block-wise copy needs? */
static bool whole(const struct fsc_flight *f)
{
	uint64_t start = (uint64_t)f->lo * FSCACHE_BLOCK, end = (uint64_t)f->hi * FSCACHE_BLOCK;

	if (f->hi == UINT32_MAX || end > f->inner.size)
		end = f->inner.size;
	return f->inner.rc == 0 && f->data.len > 0 && end > start && f->data.len == end - start;
}

static void landed(struct objstore_op *inner)
{
	struct fsc_flight *f = inner->ctx;
	struct fsc_stripe *st = fsc_stripe_of(f->fc, &f->id);
	struct fsc_get *g, *next;
	bool keep;

	FSC_COUNT(f->fc, fetched_bytes, f->data.len);
	pthread_mutex_lock(&st->lock);
	keep = whole(f) && !atomic_load(&f->voided);
	f->landed = true;
	g = f->waiters;
	f->waiters = NULL;
	if (!keep)
		list_del(st, f);
	pthread_mutex_unlock(&st->lock);
	for (; g; g = next) {
		next = g->next;
		give(g, f);
		fsc_get_resume(g);
	}
	if (keep)
		fsc_keeper_store(f->fc, f);
	else
		fsc_flight_unref(f);
}

void fsc_flight_store(struct fsc_flight *f)
{
	struct fscache *fc = f->fc;
	struct fsc_stripe *st = fsc_stripe_of(fc, &f->id);
	struct fsc_staged s;
	unsigned joined;
	size_t at, n;

	for (at = 0; at < f->data.len && !atomic_load(&f->voided); at += n) {
		n = f->data.len - at < FSCACHE_BLOCK ? f->data.len - at : FSCACHE_BLOCK;
		fsc_stage(fc, &f->id, f->owner, f->inner.size, f->lo + (uint32_t)(at / FSCACHE_BLOCK), f->data.data + at, n, &s);
		joined = atomic_load(&f->joined);
		s.freq = joined < FSC_FREQ_MAX ? (uint8_t)joined : FSC_FREQ_MAX;
		fsc_publish(fc, &s, true, &f->voided);
	}
	pthread_mutex_lock(&st->lock);
	list_del(st, f);
	pthread_mutex_unlock(&st->lock);
	fsc_flight_unref(f);
}

/* --- taking off --- */

/* Under the stripe's lock. */
static bool barred(const struct fsc_stripe *st, const struct fsc_id *id)
{
	const struct fsc_change *c;

	for (c = st->changes; c; c = c->next)
		if (c->bars && fsc_id_is(&c->id, id))
			return true;
	return false;
}

/* Where a fetch from block lo may end: before what flies already, and before
 * cached blocks that end it or are too many to fetch along. */
static uint32_t fetch_end(struct fsc_get *g, uint32_t lo, uint32_t hi)
{
	uint32_t b, last = lo + 1;

	if (hi == UINT32_MAX)
		return hi;
	if (hi - lo > FSC_FETCH_MAX / FSCACHE_BLOCK)
		hi = lo + FSC_FETCH_MAX / FSCACHE_BLOCK;
	for (b = lo + 1; b < hi && b - last < FSC_BRIDGE; b++)
		if (!fsc_has(g->fc, &g->id, b))
			last = b + 1;
	return last;
}

static struct fsc_flight *flight_new(struct fsc_get *g, uint32_t lo, uint32_t hi, bool voided)
{
	struct fsc_flight *f = MEM_NEW(struct fsc_flight);
	size_t room = g->op->out->max;

	f->fc = g->fc;
	atomic_init(&f->refs, 2);	/* the list's, and the caller's until it has submitted */
	f->id = g->id;
	f->owner = g->owner;
	f->lo = lo;
	f->hi = hi;
	atomic_init(&f->voided, voided);
	f->key = mem_strdup(g->op->key);
	if (hi != UINT32_MAX)
		room = (size_t)(hi - lo) * FSCACHE_BLOCK;
	else if (room)
		room += FSCACHE_BLOCK;
	buf_init(&f->data, room);
	f->inner = (struct objstore_op){ .verb = OBJ_GET, .key = f->key, .off = (uint64_t)lo * FSCACHE_BLOCK, .out = &f->data,
					 .deadline_us = g->op->deadline_us, .done = landed, .ctx = f };
	if (hi != UINT32_MAX)
		f->inner.len = (uint64_t)(hi - lo) * FSCACHE_BLOCK;
	atomic_fetch_add(&g->fc->active, 1);
	return f;
}

static void wait_for(struct fsc_get *g, struct fsc_flight *f)
{
	g->flight = f;
	g->next = f->waiters;
	f->waiters = g;
}

/* Under the stripe's lock: the flight that has block b; cuts *hi where another begins. */
static struct fsc_flight *flight_of(struct fsc_stripe *st, const struct fsc_id *id, uint32_t b, uint32_t *hi)
{
	struct fsc_flight *f;

	for (f = st->flights; f; f = f->next) {
		if (!fsc_id_is(&f->id, id) || atomic_load(&f->voided))
			continue;
		if (f->lo <= b && b < f->hi)
			return f;
		if (f->lo > b && f->lo < *hi)
			*hi = f->lo;
	}
	return NULL;
}

static void join(struct fsc_get *g, struct fsc_stripe *st, struct fsc_flight *f)
{
	struct fscache *fc = g->fc;
	int64_t deadline = g->op->deadline_us;
	bool there = f->landed;

	g->fetched = true;
	g->leads = false;
	atomic_fetch_add(&f->joined, 1);
	if (there)
		atomic_fetch_add(&f->refs, 1);
	else
		wait_for(g, f);
	pthread_mutex_unlock(&st->lock);
	FSC_COUNT(fc, shared, 1);	/* unless it is there, g and f may be over by now */
	if (!there && deadline)
		fsc_keeper_deadline(fc, deadline);
	if (there) {
		give(g, f);
		atomic_store(&g->step, FSC_DONE);
		fsc_flight_unref(f);
	}
}

int fsc_flight_join(struct fsc_get *g)
{
	struct fscache *fc = g->fc;
	struct fsc_stripe *st = fsc_stripe_of(fc, &g->id);
	uint32_t lo = (uint32_t)(g->pos / FSCACHE_BLOCK);
	uint32_t hi = g->end == UINT64_MAX ? UINT32_MAX : (uint32_t)((g->end + FSCACHE_BLOCK - 1) / FSCACHE_BLOCK);
	struct fsc_flight *f;

	pthread_mutex_lock(&st->lock);
	f = flight_of(st, &g->id, lo, &hi);
	if (f) {
		join(g, st, f);
		return 0;
	}
	if (fsc_has(fc, &g->id, lo)) {		/* its flight ended since we looked */
		pthread_mutex_unlock(&st->lock);
		return 1;
	}
	hi = fetch_end(g, lo, hi);
	f = flight_new(g, lo, hi, barred(st, &g->id));
	f->next = st->flights;
	st->flights = f;
	g->fetched = g->leads = true;
	wait_for(g, f);
	pthread_mutex_unlock(&st->lock);
	FSC_COUNT(fc, fetches, 1);
	objstore_submit(fc->below, &f->inner);
	fsc_flight_unref(f);
	return 0;
}

/* --- what ends a wait early --- */

static void end_wait(struct fsc_get *g, const char *why)
{
	g->rc = err_set(&g->op->err, ERR_TIMEOUT, "object store: %s: %s", g->op->key, why);
	g->over = true;
	fsc_get_resume(g);
}

/* The wait of op, off its flight's list; the flight too, with a reference, when nobody waits for it any more. */
static struct fsc_get *find_wait(struct fsc_stripe *st, const struct objstore_op *op, struct fsc_flight **idle_r)
{
	struct fsc_flight *f;
	struct fsc_get **p, *g;

	for (f = st->flights; f; f = f->next) {
		for (p = &f->waiters; (g = *p) != NULL; p = &g->next) {
			if (g->op != op)
				continue;
			*p = g->next;
			if (!f->waiters) {
				atomic_fetch_add(&f->refs, 1);
				*idle_r = f;
			}
			return g;
		}
	}
	return NULL;
}

bool fsc_flight_cancel(struct fscache *fc, const struct objstore_op *op)
{
	struct fsc_flight *idle = NULL;
	struct fsc_get *g = NULL;
	int i;

	for (i = 0; i < FSC_STRIPES && !g; i++) {
		pthread_mutex_lock(&fc->stripes[i].lock);
		g = find_wait(&fc->stripes[i], op, &idle);
		pthread_mutex_unlock(&fc->stripes[i].lock);
	}
	if (!g)
		return false;
	if (idle) {
		objstore_cancel(fc->below, &idle->inner);
		fsc_flight_unref(idle);
	}
	end_wait(g, "cancelled");
	return true;
}

/* Takes the waits off that are over at now; the deadline of the next otherwise. */
static struct fsc_get *overdue(struct fsc_stripe *st, int64_t now, int64_t *next)
{
	struct fsc_get **p, *g, *list = NULL;
	struct fsc_flight *f;

	for (f = st->flights; f; f = f->next) {
		for (p = &f->waiters; (g = *p) != NULL;) {
			int64_t d = g->leads ? 0 : g->op->deadline_us;

			if (d && d <= now) {
				*p = g->next;
				g->next = list;
				list = g;
				continue;
			}
			if (d && d < *next)
				*next = d;
			p = &g->next;
		}
	}
	return list;
}

void fsc_flight_expire(struct fscache *fc, int64_t now)
{
	struct fsc_get *g, *after;
	int64_t next = INT64_MAX;
	int i;

	atomic_store(&fc->deadline, INT64_MAX);
	for (i = 0; i < FSC_STRIPES; i++) {
		pthread_mutex_lock(&fc->stripes[i].lock);
		g = overdue(&fc->stripes[i], now, &next);
		pthread_mutex_unlock(&fc->stripes[i].lock);
		for (; g; g = after) {
			after = g->next;
			end_wait(g, "no answer in time");
		}
	}
	if (next < INT64_MAX)
		fsc_keeper_deadline(fc, next);
}

void fsc_void(struct fscache *fc, const struct fsc_id *id)
{
	struct fsc_stripe *st = fsc_stripe_of(fc, id);
	struct fsc_flight *f;

	pthread_mutex_lock(&st->lock);
	for (f = st->flights; f; f = f->next)
		if (fsc_id_is(&f->id, id))
			atomic_store(&f->voided, true);
	pthread_mutex_unlock(&st->lock);
	pthread_mutex_lock(&fc->shards[0].lock);
	if (!fc->shards[0].open)	/* what a catalogue says that is opened later may be older than this */
		atomic_store(&fc->changed, true);
	pthread_mutex_unlock(&fc->shards[0].lock);
	fsc_drop_object(fc, id);
}
