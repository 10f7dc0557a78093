/* One request by libs3.  Its request contexts are driven here rather than its
 * blocking calls used, because those know no deadline. */
#include "objstore/libs3-private.h"

#include "base/mem.h"

#include <sys/select.h>
#include <unistd.h>

enum { TURN_US = 50000, IDLE_US = 5000 };

static S3Status on_properties(const S3ResponseProperties *p, void *ctx)
{
	struct l3_call *c = ctx;
	const char *tag = p->eTag ? p->eTag : "";

	c->size = p->contentLength;
	c->mtime = p->lastModified > 0 ? p->lastModified : 0;
	if (strlen(tag) < sizeof(c->etag))	/* one that is too long must not be cut and then compared */
		memcpy(c->etag, tag, strlen(tag) + 1);
	return S3StatusOK;
}

static void on_complete(S3Status status, const S3ErrorDetails *e, void *ctx)
{
	struct l3_call *c = ctx;

	c->status = status;
	c->done = true;
	if (e && e->message)
		snprintf(c->message, sizeof(c->message), "%s", e->message);
}

static int on_put_data(int room, char *out, void *ctx)
{
	struct l3_call *c = ctx;
	const struct objstore_op *op = c->o->op;
	size_t left = room > 0 ? (size_t)room : 0, done = 0, n;

	while (left && c->iov_at < op->n_iov) {
		const struct iovec *v = &op->iov[c->iov_at];

		n = v->iov_len - c->iov_off < left ? v->iov_len - c->iov_off : left;
		if (n)
			memcpy(out + done, (const char *)v->iov_base + c->iov_off, n);
		done += n;
		left -= n;
		c->iov_off += n;
		if (c->iov_off == v->iov_len) {
			c->iov_at++;
			c->iov_off = 0;
		}
	}
	c->up += done;
	return (int)done;
}

static S3Status on_get_data(int len, const char *data, void *ctx)
{
	struct l3_call *c = ctx;
	struct buf *out = c->o->op->out;

	if (len > 0)
		buf_add(out, data, (size_t)len);
	c->down += len > 0 ? (uint64_t)len : 0;
	c->limit = out->failed;
	return out->failed ? S3StatusAbortedByCallback : S3StatusOK;
}

static S3Status on_list(int truncated, const char *marker, int n, const S3ListBucketContent *contents, int n_prefixes, const char **prefixes, void *ctx)
{
	struct l3_call *c = ctx;
	int i;

	c->more = truncated;
	if (n < 0 || c->n_items + (size_t)n > L3_LIST_MAX)
		return S3StatusAbortedByCallback;
	mem_grow(&c->items, &c->items_cap, c->n_items + (size_t)n, sizeof(*c->items));
	for (i = 0; i < n; i++)
		c->items[c->n_items++] = (struct objstore_list_item){ mem_strdup(contents[i].key), contents[i].size, contents[i].lastModified > 0 ? contents[i].lastModified : 0 };
	return S3StatusOK;
}

/* Begins the request; callbacks come while the context is driven. */
static void begin(struct l3_call *c, enum objstore_verb verb)
{
	static const S3ResponseHandler plain = { on_properties, on_complete };
	static const S3PutObjectHandler put = { { on_properties, on_complete }, on_put_data };
	static const S3GetObjectHandler get = { { on_properties, on_complete }, on_get_data };
	static const S3ListBucketHandler list = { { on_properties, on_complete }, on_list };
	const S3PutProperties props = { .contentType = "application/octet-stream", .md5 = c->o->md5, .expires = -1, .cannedAcl = S3CannedAclPrivate };
	const struct objstore_op *op = c->o->op;

	switch (verb) {
	case OBJ_PUT:
		S3_put_object(c->bucket, op->key, c->o->len, &props, *c->context, &put, c);
		return;
	case OBJ_GET:
		S3_get_object(c->bucket, op->key, NULL, op->off, op->len, *c->context, &get, c);
		return;
	case OBJ_HEAD:
		S3_head_object(c->bucket, op->key, *c->context, &plain, c);
		return;
	case OBJ_DELETE:
		S3_delete_object(c->bucket, op->key, *c->context, &plain, c);
		return;
	case OBJ_LIST:
		S3_list_bucket(c->bucket, op->key, op->start_after, NULL, op->max_keys && op->max_keys < L3_LIST_MAX ? (int)op->max_keys : L3_LIST_MAX, *c->context, &list, c);
		return;
	case OBJ_COPY:
		S3_copy_object(c->bucket, op->key, NULL, op->key_to, NULL, &c->mtime, sizeof(c->etag), c->etag, *c->context, &plain, c);
		return;
	default:
		on_complete(S3StatusInternalError, NULL, c);
		return;
	}
}

/* Waits until something can move, for a moment at most. */
static bool wait_turn(S3RequestContext *context)
{
	fd_set r, w, x;
	int max = -1;
	int64_t ms = S3_get_request_context_timeout(context), us = ms < 0 || ms * 1000 > TURN_US ? TURN_US : ms * 1000;
	struct timeval tv = { 0, (suseconds_t)us };

	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&x);
	if (S3_get_request_context_fdsets(context, &r, &w, &x, &max) != S3StatusOK)
		return false;
	if (max < 0)	/* none yet, or beyond what select() takes */
		usleep(IDLE_US);
	else
		select(max + 1, &r, &w, &x, &tv);
	return true;
}

static void drop_context(struct l3_call *c)
{
	S3_destroy_request_context(*c->context);	/* ends the request: on_complete */
	*c->context = NULL;
}

/* libs3 dates what it signs by gmtime(), whose result all threads share. */
static pthread_mutex_t sign_lock = PTHREAD_MUTEX_INITIALIZER;

void l3_call(struct l3_call *c, enum objstore_verb verb)
{
	int left = 1;

	if (!*c->context && S3_create_request_context(c->context) != S3StatusOK) {
		*c->context = NULL;
		on_complete(S3StatusOutOfMemory, NULL, c);
		return;
	}
	pthread_mutex_lock(&sign_lock);
	begin(c, verb);
	pthread_mutex_unlock(&sign_lock);
	while (!c->done) {
		if (S3_runonce_request_context(*c->context, &left) != S3StatusOK)
			break;
		if (c->done || !left)
			break;
		c->slow = clock_mono_us(&clock_system) >= c->deadline_us || atomic_load(&c->o->cancelled);
		if (c->slow || !wait_turn(*c->context))
			break;
	}
	if (c->done)
		return;
	drop_context(c);
	if (!c->done)
		on_complete(S3StatusInterrupted, NULL, c);
}
