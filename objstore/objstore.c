#include "objstore/objstore.h"

#include "base/mem.h"

#include <pthread.h>

static int check_keys(const struct objstore *s, struct objstore_op *op)
{
	size_t i;

	if (op->n_keys) {
		if (op->verb != OBJ_DELETE || !(s->caps & OBJ_CAP_DELETE_MANY))
			return err_set(&op->err, ERR_INVALID, "object store: %s takes one key", s->ops->name);
		for (i = 0; i < op->n_keys; i++)
			if (!objstore_key_valid(op->keys[i]))
				return err_set(&op->err, ERR_INVALID, "object store: bad key \"%s\"", op->keys[i] ? op->keys[i] : "");
		op->key = op->keys[0];
	}
	if (op->verb != OBJ_LIST && op->verb != OBJ_SYNC && !objstore_key_valid(op->key))
		return err_set(&op->err, ERR_INVALID, "object store: bad key \"%s\"", op->key ? op->key : "");
	if (op->verb == OBJ_COPY && !objstore_key_valid(op->key_to))
		return err_set(&op->err, ERR_INVALID, "object store: bad key \"%s\"", op->key_to ? op->key_to : "");
	if (op->verb == OBJ_LIST && !(s->caps & OBJ_CAP_LIST))
		return err_set(&op->err, ERR_INVALID, "object store: %s cannot list", s->ops->name);
	if (op->verb == OBJ_COPY && !(s->caps & OBJ_CAP_COPY))
		return err_set(&op->err, ERR_INVALID, "object store: %s cannot copy", s->ops->name);
	if (op->verb == OBJ_PUT && op->cond == OBJ_MATCH && !(s->caps & OBJ_CAP_MATCH))
		return err_set(&op->err, ERR_INVALID, "object store: %s has no compare-and-swap", s->ops->name);
	if (op->put && (op->put->retain_until || op->put->legal_hold) && !(s->caps & OBJ_CAP_LOCK))
		return err_set(&op->err, ERR_INVALID, "object store: %s cannot keep objects from deletion", s->ops->name);
	return 0;
}

void objstore_submit(struct objstore *s, struct objstore_op *op)
{
	err_clear(&op->err);
	op->rc = check_keys(s, op);
	if (op->rc < 0)
		op->done(op);
	else
		s->ops->submit(s, op);
}

bool objstore_stats(struct objstore *s, struct objstore_stats *out)
{
	memset(out, 0, sizeof(*out));
	if (s->ops->stats)
		s->ops->stats(s, out);
	return s->ops->stats != NULL;
}

void objstore_cancel(struct objstore *s, struct objstore_op *op)
{
	if (s->ops->cancel)
		s->ops->cancel(s, op);
}

void objstore_close(struct objstore **s)
{
	if (*s)
		(*s)->ops->close(*s);
	*s = NULL;
}

bool objstore_key_valid(const char *key)
{
	static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._%=@+-";
	size_t total = 0, n;

	if (!key)
		return false;
	for (;; key++) {
		n = strspn(key, plain);
		total += n + 1;
		if (n == 0 || n > 255 || total > OBJ_KEY_MAX + 1)
			return false;
		if (key[0] == '.' && (n == 1 || (n == 2 && key[1] == '.')))
			return false;
		key += n;
		if (*key == '\0')
			return true;
		if (*key != '/')
			return false;
	}
}

void objstore_items_free(struct objstore_list_item *items, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		free(items[i].key);
	free(items);
}

/* --- blocking forms --- */

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void wake_waiter(struct objstore_op *op)
{
	struct waiter *w = op->ctx;

	pthread_mutex_lock(&w->lock);
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static int run(struct objstore *s, struct objstore_op *op, struct err *err)
{
	struct waiter w = { .done = false };

	pthread_mutex_init(&w.lock, NULL);
	pthread_cond_init(&w.cond, NULL);
	op->done = wake_waiter;
	op->ctx = &w;
	objstore_submit(s, op);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	pthread_cond_destroy(&w.cond);
	pthread_mutex_destroy(&w.lock);
	if (op->rc < 0)
		err_set(err, op->rc, "%s", op->err.msg[0] ? op->err.msg : err_code_name(op->rc));
	return op->rc;
}

int objstore_put(struct objstore *s, const char *key, const void *data, size_t len, enum objstore_cond cond,
		 char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct objstore_op op = { .verb = OBJ_PUT, .key = key, .cond = cond, .iov = &iov, .n_iov = 1, .want_etag = etag != NULL };
	int rc;

	if (etag && cond == OBJ_MATCH)
		memcpy(op.etag, etag, sizeof(op.etag));
	rc = run(s, &op, err);
	if (rc == 0 && etag)
		memcpy(etag, op.etag, sizeof(op.etag));
	return rc;
}

int objstore_put_lazy(struct objstore *s, const char *key, const struct iovec *iov, int n, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_PUT, .key = key, .cond = OBJ_CREATE, .iov = iov, .n_iov = n, .lazy = true };

	return run(s, &op, err);
}

int objstore_get(struct objstore *s, const char *key, struct buf *out, char etag_r[OBJ_ETAG_MAX], struct err *err)
{
	struct objstore_op op = { .verb = OBJ_GET, .key = key, .out = out, .want_etag = etag_r != NULL };
	int rc = run(s, &op, err);

	if (rc == 0 && etag_r)
		memcpy(etag_r, op.etag, sizeof(op.etag));
	return rc;
}

int objstore_get_range(struct objstore *s, const char *key, uint64_t off, uint64_t len, struct buf *out, uint64_t *size_r, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_GET, .key = key, .out = out, .off = off, .len = len };
	int rc = run(s, &op, err);

	if (rc == 0 && size_r)
		*size_r = op.size;
	return rc;
}

int objstore_get_fresh(struct objstore *s, const char *key, uint64_t off, uint64_t len, struct buf *out, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_GET, .key = key, .out = out, .off = off, .len = len, .want_etag = true };

	return run(s, &op, err);
}

int objstore_get_uncached(struct objstore *s, const char *key, uint64_t off, uint64_t len, struct buf *out, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_GET, .key = key, .out = out, .off = off, .len = len, .uncached = true };

	return run(s, &op, err);
}

int objstore_head(struct objstore *s, const char *key, uint64_t *size_r, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_HEAD, .key = key };
	int rc = run(s, &op, NULL);

	if (rc == ERR_NOTFOUND)
		return 0;
	if (rc < 0)
		return err_set(err, rc, "%s", op.err.msg);
	if (size_r)
		*size_r = op.size;
	return 1;
}

int objstore_delete(struct objstore *s, const char *key, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_DELETE, .key = key };

	return run(s, &op, err);
}

int objstore_delete_many(struct objstore *s, const char *const *keys, size_t n, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_DELETE, .keys = keys, .n_keys = n };
	size_t i;
	int rc = 0, one;

	if (n == 0)
		return 0;
	if (s->caps & OBJ_CAP_DELETE_MANY)
		return run(s, &op, err);
	for (i = 0; i < n; i++) {
		one = objstore_delete(s, keys[i], err);
		rc = rc ? rc : one;
	}
	return rc;
}

int objstore_copy(struct objstore *s, const char *from, const char *to, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_COPY, .key = from, .key_to = to };

	return run(s, &op, err);
}

int objstore_sync(struct objstore *s, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_SYNC };

	return run(s, &op, err);
}

int objstore_list(struct objstore *s, const char *prefix, const char *after, size_t max, struct objstore_list_item **items_r, size_t *n_r, struct err *err)
{
	struct objstore_op op = { .verb = OBJ_LIST, .key = prefix, .start_after = after, .max_keys = max };
	int rc = run(s, &op, err);

	*items_r = op.items;
	*n_r = op.n_items;
	return rc;
}

int objstore_each(struct objstore *s, const char *prefix, int (*fn)(void *ctx, const struct objstore_list_item *item), void *ctx, struct err *err)
{
	char *after = NULL;
	bool more = true;
	int rc = 0;

	while (rc == 0 && more) {
		struct objstore_op op = { .verb = OBJ_LIST, .key = prefix, .start_after = after };
		size_t i;

		rc = run(s, &op, err);
		if (rc < 0)
			break;
		for (i = 0; i < op.n_items && rc == 0; i++)
			rc = fn(ctx, &op.items[i]);
		more = op.more && op.n_items;
		free(after);
		after = op.n_items ? mem_strdup(op.items[op.n_items - 1].key) : NULL;
		objstore_items_free(op.items, op.n_items);
	}
	free(after);
	return rc;
}
