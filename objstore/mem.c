/* The in-memory driver, for tests: the same promises as posix, plus a power
 * loss on demand. */
#include "objstore/objstore.h"

#include "base/hmap.h"
#include "base/mem.h"

#include <pthread.h>

struct object {
	char *key;
	unsigned char *data;
	size_t len;
	uint64_t version;
	bool synced;
};

struct mem_store {
	struct objstore base;
	pthread_mutex_t lock;
	struct hmap map;
	uint64_t version;
};

static void object_free(struct object *o)
{
	if (!o)
		return;
	free(o->key);
	free(o->data);
	free(o);
}

static void set_etag(const struct object *o, char etag[OBJ_ETAG_MAX])
{
	snprintf(etag, OBJ_ETAG_MAX, "v%llu", (unsigned long long)o->version);
}

static int mem_put(struct mem_store *s, const char *key, struct objstore_op *op)
{
	struct object *o = hmap_gets(&s->map, key);
	char now[OBJ_ETAG_MAX] = "";
	size_t at = 0;
	int i;

	if (o)
		set_etag(o, now);
	if (op->cond == OBJ_CREATE && o)
		return err_set(&op->err, ERR_EXISTS, "object store: %s exists", key);
	if (op->cond == OBJ_MATCH && strcmp(now, op->etag) != 0)
		return err_set(&op->err, ERR_CONFLICT, "object store: %s was changed by somebody else", key);
	if (!o) {
		o = MEM_NEW(struct object);
		o->key = mem_strdup(key);
		hmap_put(&s->map, key, strlen(key), o);
	}
	free(o->data);
	for (o->len = 0, i = 0; i < op->n_iov; i++)
		o->len += op->iov[i].iov_len;
	o->data = mem_alloc(o->len);
	for (i = 0; i < op->n_iov; at += op->iov[i++].iov_len)
		if (op->iov[i].iov_len)
			memcpy(o->data + at, op->iov[i].iov_base, op->iov[i].iov_len);
	o->version = ++s->version;
	o->synced = !op->lazy;
	set_etag(o, op->etag);
	return 0;
}

static int mem_read(struct mem_store *s, struct objstore_op *op)
{
	struct object *o = hmap_gets(&s->map, op->key);
	uint64_t left;

	if (!o)
		return err_set(&op->err, ERR_NOTFOUND, "object store: %s: no such object", op->key);
	op->size = o->len;
	set_etag(o, op->etag);
	if (op->verb == OBJ_HEAD)
		return 0;
	left = op->off < o->len ? o->len - op->off : 0;
	if (op->len && op->len < left)
		left = op->len;
	buf_add(op->out, o->data + (left ? op->off : 0), (size_t)left);
	return op->out->failed ? err_set(&op->err, ERR_LIMIT, "object store: %s is larger than expected", op->key) : 0;
}

static int mem_copy(struct mem_store *s, struct objstore_op *op)
{
	struct object *o = hmap_gets(&s->map, op->key);
	struct iovec iov;
	int rc;

	if (!o)
		return err_set(&op->err, ERR_NOTFOUND, "object store: %s: no such object", op->key);
	iov = (struct iovec){ mem_dup(o->data, o->len), o->len };
	op->iov = &iov;
	op->n_iov = 1;
	rc = mem_put(s, op->key_to, op);
	free(iov.iov_base);
	return rc;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct objstore_list_item *)a)->key, ((const struct objstore_list_item *)b)->key);
}

static int mem_list(struct mem_store *s, struct objstore_op *op)
{
	size_t pos = 0, cap = 0, max = op->max_keys ? op->max_keys : 1000, i;
	void *v;

	op->items = NULL;
	op->n_items = 0;
	while (hmap_next(&s->map, &pos, NULL, NULL, &v)) {
		struct object *o = v;

		if (strncmp(o->key, op->key, strlen(op->key)) != 0 || (op->start_after && strcmp(o->key, op->start_after) <= 0))
			continue;
		mem_grow(&op->items, &cap, op->n_items + 1, sizeof(*op->items));
		op->items[op->n_items++] = (struct objstore_list_item){ mem_strdup(o->key), o->len, 0 };
	}
	if (op->n_items)
		qsort(op->items, op->n_items, sizeof(*op->items), by_key);
	op->more = op->n_items > max;
	for (i = max; i < op->n_items; i++)
		free(op->items[i].key);
	if (op->more)
		op->n_items = max;
	return 0;
}

static void sync_all(struct mem_store *s)
{
	size_t pos = 0;
	void *v;

	while (hmap_next(&s->map, &pos, NULL, NULL, &v))
		((struct object *)v)->synced = true;
}

static void mem_submit(struct objstore *base, struct objstore_op *op)
{
	struct mem_store *s = (struct mem_store *)base;

	pthread_mutex_lock(&s->lock);
	switch (op->verb) {
	case OBJ_PUT:
		op->rc = mem_put(s, op->key, op);
		break;
	case OBJ_GET:
	case OBJ_HEAD:
		op->rc = mem_read(s, op);
		break;
	case OBJ_DELETE:
		object_free(hmap_del(&s->map, op->key, strlen(op->key)));
		break;
	case OBJ_LIST:
		op->rc = mem_list(s, op);
		break;
	case OBJ_COPY:
		op->rc = mem_copy(s, op);
		break;
	case OBJ_SYNC:
		sync_all(s);
		break;
	}
	pthread_mutex_unlock(&s->lock);
	op->done(op);
}

static void mem_close(struct objstore *base)
{
	struct mem_store *s = (struct mem_store *)base;
	size_t pos = 0;
	void *v;

	while (hmap_next(&s->map, &pos, NULL, NULL, &v))
		object_free(v);
	hmap_free(&s->map);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static const struct objstore_ops mem_ops = { "memory", mem_submit, NULL, mem_close, NULL };

struct objstore *objstore_mem_new(void)
{
	struct mem_store *s = MEM_NEW(struct mem_store);

	s->base.ops = &mem_ops;
	s->base.caps = OBJ_CAP_CREATE | OBJ_CAP_MATCH | OBJ_CAP_RANGE | OBJ_CAP_COPY | OBJ_CAP_LIST | OBJ_CAP_LAZY;
	pthread_mutex_init(&s->lock, NULL);
	return &s->base;
}

void objstore_mem_crash(struct objstore *base, uint64_t seed)
{
	struct mem_store *s = (struct mem_store *)base;
	struct hmap kept = HMAP_INIT;
	size_t pos = 0;
	void *v;

	pthread_mutex_lock(&s->lock);
	while (hmap_next(&s->map, &pos, NULL, NULL, &v)) {
		struct object *o = v;

		seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		if (!o->synced && seed >> 63) {
			object_free(o);
			continue;
		}
		o->synced = true;
		hmap_put(&kept, o->key, strlen(o->key), o);
	}
	hmap_free(&s->map);
	s->map = kept;
	pthread_mutex_unlock(&s->lock);
}
