/* PUT, DELETE and COPY onto cacheable objects, and GETs past the cache.
 *
 * A create-only PUT is written through: its blocks go to the disk in the
 * caller's thread while the store works, and into the index when it said yes.
 * The others bar their object: from before they start until they are done
 * what is fetched of it is not kept, and at the end nothing of it is here. */
#include "fscache/fscache-private.h"

#include "base/mem.h"

static void change_unref(struct fsc_change *c)
{
	struct fscache *fc = c->fc;

	if (atomic_fetch_sub(&c->refs, 1) > 1)
		return;
	free(c);
	atomic_fetch_sub(&fc->active, 1);
}

static bool creates(const struct objstore_op *op)
{
	return op->verb == OBJ_PUT && op->cond == OBJ_CREATE;
}

static void conclude(struct fsc_change *c)
{
	struct fsc_stripe *st = fsc_stripe_of(c->fc, &c->id);
	struct objstore_op *op = c->op;
	void (*done)(struct objstore_op *) = op->done;
	struct fsc_change **p = &st->changes;
	void *ctx = op->ctx;
	size_t i;

	if (c->bars || (creates(op) && c->inner.rc == 0))
		fsc_drop_object(c->fc, &c->id);
	for (i = 0; i < c->n_staged; i++)
		fsc_publish(c->fc, &c->staged[i], c->inner.rc == 0, NULL);
	free(c->staged);
	pthread_mutex_lock(&st->lock);
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	pthread_mutex_unlock(&st->lock);
	*op = c->inner;
	op->done = done;
	op->ctx = ctx;
	op->done(op);
	change_unref(c);
}

static void part_done(struct fsc_change *c)
{
	if (atomic_fetch_sub(&c->left, 1) == 1)
		conclude(c);
}

static void answered(struct objstore_op *inner)
{
	part_done(inner->ctx);
}

/* The next len bytes of op's iovecs: where they lie together, or copied to room. */
static const unsigned char *gather(const struct objstore_op *op, int *i, size_t *off, size_t len, unsigned char *room)
{
	const unsigned char *p = (const unsigned char *)op->iov[*i].iov_base + *off;
	size_t got = 0, n;

	if (op->iov[*i].iov_len - *off >= len) {
		*off += len;
		return p;
	}
	while (got < len) {
		n = op->iov[*i].iov_len - *off;
		if (n > len - got)
			n = len - got;
		if (n)
			memcpy(room + got, (const unsigned char *)op->iov[*i].iov_base + *off, n);
		got += n;
		*off += n;
		if (got < len) {
			(*i)++;
			*off = 0;
		}
	}
	return room;
}

static void stage_all(struct fsc_change *c, uint64_t owner, const struct objstore_op *op)
{
	unsigned char *room = mem_realloc(NULL, FSCACHE_BLOCK);
	uint64_t size = 0, at, most = c->fc->data_bytes / FSC_SAVE_PART;
	size_t off = 0, n;
	int i;

	for (i = 0; i < op->n_iov; i++)
		size += op->iov[i].iov_len;
	if (most > size)
		most = size;
	c->staged = mem_calloc((size_t)(most / FSCACHE_BLOCK) + 1, sizeof(*c->staged));
	i = 0;
	for (at = 0; at < most; at += n) {
		n = size - at < FSCACHE_BLOCK ? (size_t)(size - at) : FSCACHE_BLOCK;
		fsc_stage(c->fc, &c->id, owner, size, (uint32_t)(at / FSCACHE_BLOCK), gather(op, &i, &off, n, room), n, &c->staged[c->n_staged++]);
	}
	free(room);
}

void fsc_change_submit(struct fscache *fc, struct objstore_op *op, const struct fsc_id *id, uint64_t owner)
{
	struct fsc_change *c = MEM_NEW(struct fsc_change);
	struct fsc_stripe *st = fsc_stripe_of(fc, id);
	bool through = creates(op);
	struct objstore_op bytes;

	c->fc = fc;
	c->op = op;
	c->id = *id;
	c->inner = *op;
	c->inner.done = answered;
	c->inner.ctx = c;
	c->bars = op->verb != OBJ_GET && !through;
	atomic_init(&c->refs, 1);
	atomic_init(&c->left, 2);
	atomic_fetch_add(&fc->active, 1);
	pthread_mutex_lock(&st->lock);
	c->next = st->changes;
	st->changes = c;
	pthread_mutex_unlock(&st->lock);
	if (!through)
		fsc_void(fc, id);
	bytes = *op;			/* iov stays until we are done too */
	objstore_submit(fc->below, &c->inner);
	if (through)
		stage_all(c, owner, &bytes);
	part_done(c);
}

/* --- many at once --- */

struct many {
	struct fscache *fc;
	struct objstore_op *op, inner;
};

static void void_all(struct fscache *fc, const struct objstore_op *op)
{
	struct fsc_id id;
	uint64_t owner;
	size_t i;

	for (i = 0; i < op->n_keys; i++)
		if (fsc_known(fc, op->keys[i], &id, &owner))
			fsc_void(fc, &id);
}

static void many_answered(struct objstore_op *inner)
{
	struct many *m = inner->ctx;
	struct fscache *fc = m->fc;
	struct objstore_op *op = m->op;

	void_all(fc, op);	/* what was read meanwhile */
	op->rc = inner->rc;
	op->err = inner->err;
	free(m);
	op->done(op);
	atomic_fetch_sub(&fc->active, 1);
}

void fsc_delete_many(struct fscache *fc, struct objstore_op *op)
{
	struct many *m = MEM_NEW(struct many);

	m->fc = fc;
	m->op = op;
	m->inner = *op;
	m->inner.done = many_answered;
	m->inner.ctx = m;
	atomic_fetch_add(&fc->active, 1);
	void_all(fc, op);
	objstore_submit(fc->below, &m->inner);
}

bool fsc_change_cancel(struct fscache *fc, const struct objstore_op *op)
{
	struct fsc_change *c = NULL;
	int i;

	for (i = 0; i < FSC_STRIPES && !c; i++) {
		pthread_mutex_lock(&fc->stripes[i].lock);
		for (c = fc->stripes[i].changes; c && c->op != op; c = c->next)
			;
		if (c)
			atomic_fetch_add(&c->refs, 1);
		pthread_mutex_unlock(&fc->stripes[i].lock);
	}
	if (!c)
		return false;
	objstore_cancel(fc->below, &c->inner);
	change_unref(c);
	return true;
}
