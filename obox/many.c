/* Store operations that several places need: many users or objects at once, and writes whose
 * answer may be lost.
 *
 * A lost answer is not an answer: after anything but success the key is read
 * back, and its own bytes mean success.  The bytes are sealed under a fresh
 * nonce each time they are made, so nobody else can have written the same. */
#include "obox/obox-private.h"

enum { AT_ONCE = 32, CROWD = 15, TRIES = 3 };

/* --- many users at once --- */

struct crowd {
	atomic_size_t next;
	size_t n;
	void (*fn)(void *ctx, size_t i);
	void *ctx;
};

static void *one_of_crowd(void *arg)
{
	struct crowd *c = arg;
	size_t i;

	while ((i = atomic_fetch_add(&c->next, 1)) < c->n)
		c->fn(c->ctx, i);
	return NULL;
}

void obox_each(struct obox *ob, size_t n, void (*fn)(void *ctx, size_t i), void *ctx)
{
	struct crowd c = { .n = n, .fn = fn, .ctx = ctx };
	pthread_t threads[CROWD];
	size_t started = 0;

	if (ob->cfg.cluster && !ob->cfg.cluster->single)
		while (started < CROWD && started + 1 < n && pthread_create(&threads[started], NULL, one_of_crowd, &c) == 0)
			started++;
	one_of_crowd(&c);
	while (started)
		pthread_join(threads[--started], NULL);
}

/* --- many operations at once --- */

struct many {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	size_t flying;
};

static void landed(struct objstore_op *op)
{
	struct many *m = op->ctx;

	pthread_mutex_lock(&m->lock);
	m->flying--;
	pthread_cond_signal(&m->cond);
	pthread_mutex_unlock(&m->lock);
}

void obox_run_many(struct objstore *s, struct objstore_op *ops, size_t n)
{
	struct many m = { .flying = 0 };
	size_t i;

	pthread_mutex_init(&m.lock, NULL);
	pthread_cond_init(&m.cond, NULL);
	for (i = 0; i < n; i++) {
		ops[i].done = landed;
		ops[i].ctx = &m;
		pthread_mutex_lock(&m.lock);
		while (m.flying >= AT_ONCE)
			pthread_cond_wait(&m.cond, &m.lock);
		m.flying++;
		pthread_mutex_unlock(&m.lock);
		objstore_submit(s, &ops[i]);
	}
	pthread_mutex_lock(&m.lock);
	while (m.flying)
		pthread_cond_wait(&m.cond, &m.lock);
	pthread_mutex_unlock(&m.lock);
	pthread_cond_destroy(&m.cond);
	pthread_mutex_destroy(&m.lock);
}

int obox_seal(struct obox *ob, const char *key, const struct buf *plain, struct buf *sealed, struct err *err)
{
	return bundle_seal(ob, key, plain->data, plain->len, sealed, err);
}

int obox_unseal(struct obox *ob, const char *key, const struct buf *sealed, struct buf *plain, struct err *err)
{
	return bundle_unseal(ob, key, sealed, plain, NULL, err);
}

int obox_get_bundle(struct obox *ob, const char *key, struct buf *plain, struct err *err)
{
	return bundle_get(ob, key, plain, NULL, err);
}

const struct seal_keys *obox_keys(struct obox *ob)
{
	return ob->cfg.keys;
}

static bool worth_another_try(int rc)
{
	return rc == ERR_TIMEOUT || rc == ERR_UNAVAILABLE || rc == ERR_BUSY || rc == ERR_IO;
}

int obox_put_once(struct objstore *s, const char *key, const void *data, size_t len, struct buf *there, struct err *err)
{
	struct buf b = BUF_INIT(OBOX_BUNDLE_MAX);
	struct err e = ERR_INIT;
	int i, rc, got;

	for (i = 0; i < TRIES; i++) {
		err_clear(&e);
		rc = objstore_put(s, key, data, len, OBJ_CREATE, NULL, &e);
		if (rc == 0 || (rc != ERR_EXISTS && rc != ERR_CONFLICT && !worth_another_try(rc)))
			break;
		buf_clear(&b);
		got = objstore_get(s, key, &b, NULL, NULL);
		if (got == 0) {
			rc = b.len == len && (!len || !memcmp(b.data, data, len)) ? 0 : ERR_EXISTS;
			break;
		}
		if (got != ERR_NOTFOUND)
			break;
		rc = rc == ERR_EXISTS || rc == ERR_CONFLICT ? ERR_UNAVAILABLE : rc;	/* somebody deleted it just now */
	}
	if (rc == ERR_EXISTS && there)
		buf_add(there, b.data, b.len);
	buf_free(&b);
	return rc < 0 ? err_set(err, rc, "%s", e.msg[0] ? e.msg : key) : 0;
}

int obox_run_one(struct objstore *s, struct objstore_op *op, int64_t within_us)
{
	if (within_us)
		op->deadline_us = clock_mono_us(&clock_system) + within_us;
	obox_run_many(s, op, 1);
	return op->rc;
}

/* What is there after a swap that was not answered with success: 0 what was written, ERR_CONFLICT something of
 * another etag, ERR_NOTFOUND what was there before (or nothing, where nothing was), else it cannot be said. */
static int look_again(struct objstore *s, const char *key, const void *data, size_t len, char etag[OBJ_ETAG_MAX], int64_t within_us)
{
	struct buf b = BUF_INIT(OBOX_BUNDLE_MAX);
	struct objstore_op op = { .verb = OBJ_GET, .key = key, .out = &b, .want_etag = true };
	int rc = obox_run_one(s, &op, within_us);

	if (rc == 0 && b.len == len && !memcmp(b.data, data, len))
		memcpy(etag, op.etag, sizeof(op.etag));
	else if (rc == 0 && *etag && !strcmp(op.etag, etag))
		rc = ERR_NOTFOUND;
	else if (rc == 0 || (rc == ERR_NOTFOUND && *etag))
		rc = ERR_CONFLICT;
	buf_free(&b);
	return rc;
}

int obox_swap(struct objstore *s, const char *key, const void *data, size_t len, char etag[OBJ_ETAG_MAX], int64_t within_us, struct err *err)
{
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct objstore_op op;
	int i, rc = ERR_UNAVAILABLE, now;

	for (i = 0; i < TRIES; i++) {
		op = (struct objstore_op){ .verb = OBJ_PUT, .key = key, .cond = sim_broken("swap-overwrites") ? OBJ_ANY : *etag ? OBJ_MATCH : OBJ_CREATE, .iov = &iov, .n_iov = 1, .want_etag = true };
		memcpy(op.etag, etag, sizeof(op.etag));
		rc = obox_run_one(s, &op, within_us);
		if (rc == 0)
			memcpy(etag, op.etag, sizeof(op.etag));
		if (rc == 0 || (rc != ERR_EXISTS && rc != ERR_CONFLICT && !worth_another_try(rc)))
			break;
		now = look_again(s, key, data, len, etag, within_us);
		if (now == 0 || now == ERR_CONFLICT) {
			rc = now;
			break;
		}
		if (rc == ERR_CONFLICT || rc == ERR_EXISTS)
			rc = now == ERR_NOTFOUND ? ERR_BUSY /* a race of two requests in the store */ : ERR_UNAVAILABLE;
		if (now != ERR_NOTFOUND)
			break;
	}
	return rc < 0 ? err_set(err, rc, "%s", op.err.msg[0] ? op.err.msg : key) : 0;
}
