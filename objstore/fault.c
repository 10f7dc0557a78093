/* The fault wrapper: what real stores do to their clients, from a seed. */
#include "objstore/objstore.h"

#include "base/mem.h"

#include <pthread.h>
#include <unistd.h>

struct fault_store {
	struct objstore base;
	struct objstore *below;
	pthread_mutex_t lock;
	struct objstore_faults f;
	uint64_t rng, count;
	struct late *late;	/* puts answered with a time-out, carried out after some more operations */
};

struct late {
	struct late *next;
	struct objstore_op op;
	struct iovec iov;
	uint64_t at;		/* operation count at which it happens */
};

struct relay {
	struct fault_store *s;
	struct objstore_op *outer, inner;
	bool lose, tear;
	uint64_t dice;
};

static uint64_t dice(struct fault_store *s)
{
	s->rng = s->rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return s->rng >> 33;
}

static bool hit(struct fault_store *s, unsigned rate)
{
	return dice(s) % 1000 < rate;
}

static void nothing(struct objstore_op *op)
{
}

static void run_late(struct fault_store *s)
{
	struct late **p = &s->late, *due = NULL, *l;

	pthread_mutex_lock(&s->lock);
	while (*p) {
		if ((*p)->at <= s->count) {
			l = *p;
			*p = l->next;
			l->next = due;
			due = l;
		} else {
			p = &(*p)->next;
		}
	}
	pthread_mutex_unlock(&s->lock);
	while ((l = due) != NULL) {
		due = l->next;
		l->op.done = nothing;
		objstore_submit(s->below, &l->op);	/* the drivers this wraps in tests answer at once */
		free((char *)(uintptr_t)l->op.key);
		free(l->iov.iov_base);
		free(l);
	}
}

static void queue_late(struct fault_store *s, const struct objstore_op *op, uint64_t when)
{
	struct late *l = MEM_NEW(struct late);
	size_t len = 0, at = 0;
	int i;

	for (i = 0; i < op->n_iov; i++)
		len += op->iov[i].iov_len;
	l->op = *op;
	l->op.key = mem_strdup(op->key);
	l->iov = (struct iovec){ mem_alloc(len), len };
	for (i = 0; i < op->n_iov; at += op->iov[i++].iov_len)
		memcpy((char *)l->iov.iov_base + at, op->iov[i].iov_base, op->iov[i].iov_len);
	l->op.iov = &l->iov;
	l->op.n_iov = 1;
	l->at = when;
	pthread_mutex_lock(&s->lock);
	l->next = s->late;
	s->late = l;
	pthread_mutex_unlock(&s->lock);
}

static void relayed(struct objstore_op *inner)
{
	struct relay *r = inner->ctx;
	struct objstore_op *op = r->outer;
	void (*done)(struct objstore_op *) = op->done;
	void *ctx = op->ctx;

	*op = *inner;
	op->done = done;
	op->ctx = ctx;
	if (r->tear && op->rc == 0 && op->verb == OBJ_GET && op->out->len)
		op->out->data[r->dice % op->out->len] ^= (unsigned char)(1 + r->dice % 255);
	if (r->lose) {
		op->rc = err_set(&op->err, ERR_TIMEOUT, "object store: no answer for %s", op->key ? op->key : "");
	}
	free(r);
	op->done(op);
}

static void answer(struct objstore_op *op, int code, const char *text)
{
	op->rc = err_set(&op->err, code, "object store: %s: %s (injected)", op->key ? op->key : "", text);
	op->done(op);
}

static void fault_submit(struct objstore *base, struct objstore_op *op)
{
	struct fault_store *s = (struct fault_store *)base;
	bool fail, throttle, late, duplicate;
	struct relay *r = MEM_NEW(struct relay);
	unsigned delay;
	uint64_t when;

	run_late(s);
	pthread_mutex_lock(&s->lock);
	s->count++;
	fail = hit(s, s->f.error) || (s->f.fail_after >= 0 && s->count > (uint64_t)s->f.fail_after);
	throttle = hit(s, s->f.throttle);
	late = op->verb == OBJ_PUT && hit(s, s->f.late);
	duplicate = op->verb == OBJ_PUT && op->cond == OBJ_ANY && hit(s, s->f.duplicate);
	*r = (struct relay){ .s = s, .outer = op, .inner = *op, .lose = hit(s, s->f.lost_answer), .tear = hit(s, s->f.torn), .dice = dice(s) };
	delay = s->f.delay_us_max ? (unsigned)(dice(s) % s->f.delay_us_max) : 0;
	if (s->f.ignore_cond && hit(s, s->f.ignore_cond))
		r->inner.cond = OBJ_ANY;
	when = s->count + 1 + dice(s) % 20;
	pthread_mutex_unlock(&s->lock);
	if (delay)
		usleep(delay);
	if (fail || throttle) {
		free(r);
		answer(op, fail ? ERR_UNAVAILABLE : ERR_BUSY, fail ? "store is away" : "slow down");
		return;
	}
	if (late) {
		free(r);
		queue_late(s, op, when);
		answer(op, ERR_TIMEOUT, "no answer");
		return;
	}
	r->inner.done = relayed;
	r->inner.ctx = r;
	if (duplicate) {
		struct objstore_op again = *op;

		again.done = nothing;
		objstore_submit(s->below, &again);
	}
	objstore_submit(s->below, &r->inner);
}

static void fault_close(struct objstore *base)
{
	struct fault_store *s = (struct fault_store *)base;
	struct late *l;

	while ((l = s->late) != NULL) {
		s->late = l->next;
		free((char *)(uintptr_t)l->op.key);
		free(l->iov.iov_base);
		free(l);
	}
	objstore_close(&s->below);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static void fault_stats(struct objstore *base, struct objstore_stats *out)
{
	objstore_stats(((struct fault_store *)base)->below, out);
}

static const struct objstore_ops fault_ops = { "fault", fault_submit, NULL, fault_close, fault_stats };

struct objstore *objstore_fault_new(struct objstore *below, const struct objstore_faults *f)
{
	struct fault_store *s = MEM_NEW(struct fault_store);

	s->base.ops = &fault_ops;
	s->base.caps = below->caps;
	s->below = below;
	pthread_mutex_init(&s->lock, NULL);
	objstore_fault_set(&s->base, f);
	return &s->base;
}

void objstore_fault_set(struct objstore *base, const struct objstore_faults *f)
{
	struct fault_store *s = (struct fault_store *)base;

	pthread_mutex_lock(&s->lock);
	s->f = *f;
	s->rng = f->seed;
	s->count = 0;
	pthread_mutex_unlock(&s->lock);
}

uint64_t objstore_fault_count(const struct objstore *base)
{
	return ((const struct fault_store *)base)->count;
}
