#include "objstore/libs3-private.h"

#include "base/b64.h"
#include "base/log.h"
#include "base/mem.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <unistd.h>

enum { THREADS = 16, TIMEOUT_MS = 30000, ATTEMPT_MS = 10000, ATTEMPTS = 5, BACKOFF_US = 100000, PER_MEGABYTE_US = 1000000, NAP_US = 20000 };

struct l3_store {
	struct objstore base;
	char *host, *bucket, *access, *secret;
	S3BucketContext context;
	int64_t timeout_us, attempt_us;
	pthread_t thread[THREADS];
	unsigned n_threads;
	bool initialised;
	/* under lock */
	pthread_mutex_t lock;
	pthread_cond_t work, idle;
	struct l3_op *first, **last;
	bool stop;
	unsigned live;
	uint64_t rng;
	struct objstore_stats stats;
};

/* libs3 is initialised once for the process. */
static pthread_mutex_t global_lock = PTHREAD_MUTEX_INITIALIZER;

/* --- what a status means --- */

static bool is_absent(S3Status s)
{
	return s == S3StatusErrorNoSuchKey || s == S3StatusHttpErrorNotFound;
}

static bool is_temporary(S3Status s)
{
	return S3_status_is_retryable(s) || s == S3StatusInternalError || s == S3StatusInterrupted || s == S3StatusNameLookupError || s == S3StatusFailedToConnect ||
	       s == S3StatusConnectionFailed || s == S3StatusErrorSlowDown || s == S3StatusErrorInternalError || s == S3StatusHttpErrorUnknown ||
	       s == S3StatusErrorBadDigest || s == S3StatusErrorIncompleteBody || s == S3StatusErrorUnknown;
}

static int code_of(const struct l3_call *c)
{
	switch (c->status) {
	case S3StatusErrorAccessDenied:
	case S3StatusErrorInvalidAccessKeyId:
	case S3StatusErrorSignatureDoesNotMatch:
	case S3StatusErrorRequestTimeTooSkewed:
	case S3StatusHttpErrorForbidden:
		return ERR_DENIED;
	case S3StatusErrorSlowDown:
		return ERR_BUSY;
	case S3StatusErrorEntityTooLarge:
		return ERR_LIMIT;
	default:
		if (c->slow)
			return ERR_TIMEOUT;
		return is_temporary(c->status) || c->status == S3StatusErrorNoSuchBucket ? ERR_UNAVAILABLE : ERR_INVALID;
	}
}

static int say(const struct l3_store *s, const struct l3_op *o, const struct l3_call *c, struct err *err)
{
	static const char *const verbs[] = { "put", "get", "head", "delete", "list", "copy", "sync" };

	return err_set(err, code_of(c), "object store: %s %s: %s%s%s%s", verbs[o->op->verb], o->op->key && *o->op->key ? o->op->key : s->bucket, S3_get_status_name(c->status),
		       *c->message ? ": " : "", c->message, c->slow ? " (no answer in time)" : "");
}

/* --- one operation --- */

static void add_stats(struct l3_store *s, enum objstore_verb verb, const struct l3_call *c, bool again)
{
	struct objstore_verb_stats *v = &s->stats.verb[verb];

	pthread_mutex_lock(&s->lock);
	v->requests++;
	v->retries += again;
	v->errors += is_temporary(c->status);
	v->throttled += c->status == S3StatusErrorSlowDown;
	v->up += c->up;
	v->down += c->down;
	pthread_mutex_unlock(&s->lock);
}

static void items_drop(struct l3_call *c)
{
	objstore_items_free(c->items, c->n_items);
	c->items = NULL;
	c->n_items = 0;
}

/* A jittered pause; false: there is no time for it. */
static bool pause_before_retry(struct l3_store *s, struct l3_op *o, unsigned attempt)
{
	int64_t us = (int64_t)BACKOFF_US << attempt, end;

	pthread_mutex_lock(&s->lock);
	s->rng = s->rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	us = us / 2 + (int64_t)((s->rng >> 33) % (uint64_t)us);
	pthread_mutex_unlock(&s->lock);
	end = clock_mono_us(&clock_system) + us;
	if (end >= o->deadline_us)
		return false;
	while (clock_mono_us(&clock_system) < end && !atomic_load(&o->cancelled))
		usleep(NAP_US);
	return !atomic_load(&o->cancelled);
}

static void send(struct l3_store *s, struct l3_op *o, S3RequestContext **context, enum objstore_verb verb, bool again, struct l3_call *c)
{
	int64_t limit = s->attempt_us;

	if (verb == OBJ_PUT || verb == OBJ_GET)
		limit += (int64_t)((verb == OBJ_PUT ? o->len : o->op->len) >> 20) * PER_MEGABYTE_US;
	*c = (struct l3_call){ .o = o, .bucket = &s->context, .context = context, .deadline_us = clock_mono_us(&clock_system) + limit };
	if (c->deadline_us > o->deadline_us || (verb == OBJ_GET && !o->op->len))
		c->deadline_us = o->deadline_us;
	if (verb == OBJ_GET && o->op->out->data)
		buf_truncate(o->op->out, o->out_start);
	l3_call(c, verb);
	add_stats(s, verb, c, again);
}

/* Sends until there is an answer that counts; *c holds it. 0, or <0: there is none. */
static int ask(struct l3_store *s, struct l3_op *o, S3RequestContext **context, enum objstore_verb verb, struct l3_call *c, struct err *err)
{
	unsigned attempt;

	for (attempt = 0;; attempt++) {
		send(s, o, context, verb, attempt > 0, c);
		if (c->limit || !is_temporary(c->status))
			return 0;
		items_drop(c);
		if (attempt + 1 < ATTEMPTS && pause_before_retry(s, o, attempt))
			continue;
		say(s, o, c, err);
		return verb == OBJ_COPY ? ERR_TIMEOUT : err->code;	/* nobody knows what became of a write */
	}
}

static int absent(const struct l3_op *o, struct err *err)
{
	return err_set(err, ERR_NOTFOUND, "object store: %s: no such object", o->op->key);
}

static int run_head(struct l3_store *s, struct l3_op *o, S3RequestContext **context, struct err *err)
{
	struct l3_call c;
	int rc = ask(s, o, context, OBJ_HEAD, &c, err);

	o->op->size = 0;
	if (rc < 0)
		return rc;
	if (is_absent(c.status))
		return absent(o, err);
	if (c.status != S3StatusOK)
		return say(s, o, &c, err);
	o->op->size = c.size;
	o->op->mtime = c.mtime;
	if (o->op->verb != OBJ_GET)
		memcpy(o->op->etag, c.etag, sizeof(c.etag));
	return 0;
}

/* Is what is there now what was put?  By its length, and its MD5 where the etag is one. 1, 0, <0 */
static int is_stored(struct l3_store *s, struct l3_op *o, S3RequestContext **context, struct err *err)
{
	struct err quiet = ERR_INIT;
	const char *tag = o->op->etag;
	int rc = run_head(s, o, context, &quiet);

	if (rc == ERR_NOTFOUND)
		return 0;
	if (rc < 0)
		return err_set(err, ERR_TIMEOUT, "object store: put %s: it is not known whether it was stored: %s", o->op->key, quiet.msg);
	tag += *tag == '"';
	return o->op->size == o->len && (strspn(tag, "0123456789abcdef") != 32 || !strncmp(tag, o->md5_hex, 32));
}

/* libs3 takes the status of a put before the store has answered when that
 * says "100 Continue" late or not at all, and then reports success or failure
 * whatever came: so what was put is always looked at. */
static int write_and_look(struct l3_store *s, struct l3_op *o, S3RequestContext **context, struct err *err)
{
	struct l3_call c;
	unsigned attempt;
	int rc;

	for (attempt = 0;; attempt++) {
		send(s, o, context, OBJ_PUT, attempt > 0, &c);
		if (c.status != S3StatusOK && !is_temporary(c.status))
			return say(s, o, &c, err);
		rc = is_stored(s, o, context, err);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		if (o->op->size && o->op->cond == OBJ_CREATE)	/* others' */
			return err_set(err, ERR_EXISTS, "object store: %s exists", o->op->key);
		if (attempt + 1 == ATTEMPTS || !pause_before_retry(s, o, attempt))
			break;
	}
	say(s, o, &c, err);
	return c.slow || c.status == S3StatusOK ? ERR_TIMEOUT : err->code;
}

/* There are no conditional writes: looking first keeps from overwriting by mistake, not from a race (OBJ_CAP_CREATE is absent). */
static int run_put(struct l3_store *s, struct l3_op *o, S3RequestContext **context, struct err *err)
{
	struct err quiet = ERR_INIT;
	int rc;

	if (o->op->cond == OBJ_CREATE) {
		rc = run_head(s, o, context, &quiet);
		if (rc == 0)
			return err_set(err, ERR_EXISTS, "object store: %s exists", o->op->key);
		if (rc != ERR_NOTFOUND)
			return err_set(err, rc, "%s", quiet.msg);
	}
	return write_and_look(s, o, context, err);
}

/* Of a range the answer tells its own length: where it came whole the object's is asked for. */
static int run_get(struct l3_store *s, struct l3_op *o, S3RequestContext **context, struct err *err)
{
	struct objstore_op *op = o->op;
	struct l3_call c;
	int rc = ask(s, o, context, OBJ_GET, &c, err);

	if (rc < 0)
		return rc;
	if (c.limit)
		return err_set(err, ERR_LIMIT, "object store: %s is larger than expected", op->key);
	if (is_absent(c.status))
		return absent(o, err);
	if (c.status == S3StatusErrorInvalidRange) {
		if (op->out->data)
			buf_truncate(op->out, o->out_start);
		return op->off ? run_head(s, o, context, err) : 0;
	}
	if (c.status != S3StatusOK)
		return say(s, o, &c, err);
	if (op->len && c.down > op->len)
		return err_set(err, ERR_CORRUPT, "object store: %s: the store gives other ranges than it is asked for", op->key);
	memcpy(op->etag, c.etag, sizeof(c.etag));
	op->mtime = c.mtime;
	op->size = op->off + c.down;
	return op->len && c.down == op->len ? run_head(s, o, context, err) : 0;
}

static int run_other(struct l3_store *s, struct l3_op *o, S3RequestContext **context, struct err *err)
{
	struct objstore_op *op = o->op;
	struct l3_call c;
	int rc = ask(s, o, context, op->verb, &c, err);

	if (rc < 0)
		return rc;
	if (op->verb == OBJ_DELETE && is_absent(c.status))
		return 0;
	if (op->verb == OBJ_COPY && is_absent(c.status))
		return absent(o, err);
	if (c.status != S3StatusOK) {
		items_drop(&c);
		return say(s, o, &c, err);
	}
	op->items = c.items;
	op->n_items = c.n_items;
	op->more = c.more;
	return 0;
}

static void run_op(struct l3_store *s, struct l3_op *o, S3RequestContext **context)
{
	struct objstore_op *op = o->op;
	struct objstore_verb_stats *v = &s->stats.verb[op->verb];
	struct err err = ERR_INIT;
	int rc;

	if (atomic_load(&o->cancelled) || clock_mono_us(&clock_system) >= o->deadline_us)
		rc = err_set(&err, ERR_TIMEOUT, "object store: %s: no time left before it began", op->key);
	else if (op->verb == OBJ_PUT)
		rc = run_put(s, o, context, &err);
	else if (op->verb == OBJ_GET)
		rc = run_get(s, o, context, &err);
	else if (op->verb == OBJ_HEAD)
		rc = run_head(s, o, context, &err);
	else
		rc = run_other(s, o, context, &err);
	if (rc < 0 && op->verb == OBJ_GET && op->out->data)
		buf_truncate(op->out, o->out_start);
	if (rc < 0 && rc != ERR_NOTFOUND && rc != ERR_EXISTS)
		log_event(LOG_WARN, "object store operation failed", LF_S("bucket", s->bucket), LF_S("key", op->key), LF_S("class", err_code_name(rc)), LF_ERR(&err), LF_END);
	op->rc = rc;
	if (rc < 0)
		err_set(&op->err, rc, "%s", err.msg);
	pthread_mutex_lock(&s->lock);
	v->ops++;
	v->failed += rc < 0 && rc != ERR_NOTFOUND && rc != ERR_EXISTS;
	v->us += (uint64_t)(clock_mono_us(&clock_system) - o->begin_us);
	op->driver = NULL;
	pthread_mutex_unlock(&s->lock);
	op->done(op);
	free(o);
	pthread_mutex_lock(&s->lock);
	if (--s->live == 0)
		pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
}

/* --- threads --- */

static struct l3_op *next_op(struct l3_store *s)
{
	struct l3_op *o;

	pthread_mutex_lock(&s->lock);
	while (!s->first && !s->stop)
		pthread_cond_wait(&s->work, &s->lock);
	o = s->first;
	if (o) {
		s->first = o->next;
		if (!s->first)
			s->last = &s->first;
	}
	pthread_mutex_unlock(&s->lock);
	return o;
}

static void *serve(void *arg)
{
	S3RequestContext *context = NULL;
	struct l3_store *s = arg;
	struct l3_op *o;

	while ((o = next_op(s)) != NULL)
		run_op(s, o, &context);
	if (context)
		S3_destroy_request_context(context);
	return NULL;
}

/* --- the ways in --- */

static void hash_body(struct l3_op *o)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char h[EVP_MAX_MD_SIZE];
	struct buf b64 = BUF_INIT(sizeof(o->md5));
	int i;

	EVP_DigestInit_ex(ctx, EVP_md5(), NULL);
	for (i = 0; i < o->op->n_iov; i++) {
		o->len += o->op->iov[i].iov_len;
		if (o->op->iov[i].iov_len)
			EVP_DigestUpdate(ctx, o->op->iov[i].iov_base, o->op->iov[i].iov_len);
	}
	EVP_DigestFinal_ex(ctx, h, NULL);
	EVP_MD_CTX_free(ctx);
	hex_encode(o->md5_hex, h, 16);
	b64_encode(&b64, h, 16);
	snprintf(o->md5, sizeof(o->md5), "%s", buf_str(&b64));
	buf_free(&b64);
}

static void l3_submit(struct objstore *base, struct objstore_op *op)
{
	struct l3_store *s = (struct l3_store *)base;
	struct l3_op *o;

	op->items = NULL;
	op->n_items = 0;
	op->more = false;
	if (op->verb == OBJ_SYNC) {	/* nothing here is lazy */
		op->done(op);
		return;
	}
	o = MEM_NEW(struct l3_op);
	o->op = op;
	o->begin_us = clock_mono_us(&clock_system);
	o->deadline_us = op->deadline_us ? op->deadline_us : o->begin_us + s->timeout_us;
	if (op->verb == OBJ_PUT)
		hash_body(o);
	if (op->verb == OBJ_GET)
		o->out_start = op->out->len;
	pthread_mutex_lock(&s->lock);
	op->driver = o;
	s->live++;
	*s->last = o;
	s->last = &o->next;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
}

static void l3_cancel(struct objstore *base, struct objstore_op *op)
{
	struct l3_store *s = (struct l3_store *)base;
	struct l3_op *o;

	pthread_mutex_lock(&s->lock);
	o = op->driver;
	if (o)
		atomic_store(&o->cancelled, true);
	pthread_mutex_unlock(&s->lock);
}

static void l3_stats(struct objstore *base, struct objstore_stats *out)
{
	struct l3_store *s = (struct l3_store *)base;

	pthread_mutex_lock(&s->lock);
	*out = s->stats;
	pthread_mutex_unlock(&s->lock);
}

/* --- life --- */

static void l3_close(struct objstore *base)
{
	struct l3_store *s = (struct l3_store *)base;
	unsigned i;

	pthread_mutex_lock(&s->lock);
	while (s->live)
		pthread_cond_wait(&s->idle, &s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
	for (i = 0; i < s->n_threads; i++)
		pthread_join(s->thread[i], NULL);
	pthread_mutex_lock(&global_lock);
	if (s->initialised)
		S3_deinitialize();
	pthread_mutex_unlock(&global_lock);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->work);
	pthread_cond_destroy(&s->idle);
	if (s->secret)
		OPENSSL_cleanse(s->secret, strlen(s->secret));
	free(s->host);
	free(s->bucket);
	free(s->access);
	free(s->secret);
	free(s);
}

static const struct objstore_ops l3_ops = { "libs3", l3_submit, l3_cancel, l3_close, l3_stats };

static bool is_set(const char *text)
{
	return text && *text;
}

static int set_all(struct l3_store *s, const struct objstore_settings *set, struct err *err)
{
	const char *at = is_set(set->endpoint) ? set->endpoint : "", *style = is_set(set->addressing) ? set->addressing : "auto";
	bool https = !strncmp(at, "https://", 8), virtual = !strcmp(style, "virtual");

	if (!is_set(set->bucket) || !is_set(set->access_key) || !is_set(set->secret_key))
		return err_set(err, ERR_INVALID, "driver libs3 needs endpoint, bucket, access_key and secret_key");
	if ((!https && strncmp(at, "http://", 7)) || !at[https ? 8 : 7] || strpbrk(at + (https ? 8 : 7), "/?#@ ") || strlen(at) > S3_MAX_HOSTNAME_SIZE)
		return err_set(err, ERR_INVALID, "endpoint \"%.200s\": libs3 wants it like https://s3.example.org or http://10.0.0.1:8080", at);
	if (!virtual && strcmp(style, "auto") && strcmp(style, "path"))
		return err_set(err, ERR_INVALID, "addressing \"%s\": it can be auto, path or virtual", style);
	s->host = mem_strdup(at + (https ? 8 : 7));
	s->bucket = mem_strdup(set->bucket);
	s->access = mem_strdup(set->access_key);
	s->secret = mem_strdup(set->secret_key);
	s->context = (S3BucketContext){ s->host, s->bucket, https ? S3ProtocolHTTPS : S3ProtocolHTTP, virtual ? S3UriStyleVirtualHost : S3UriStylePath, s->access, s->secret };
	if (S3_validate_bucket_name(s->bucket, s->context.uriStyle) != S3StatusOK)
		return err_set(err, ERR_INVALID, "bucket \"%.100s\": that is no name of a bucket", s->bucket);
	s->timeout_us = (int64_t)(set->timeout_ms ? set->timeout_ms : TIMEOUT_MS) * 1000;
	s->attempt_us = (int64_t)(set->attempt_timeout_ms ? set->attempt_timeout_ms : ATTEMPT_MS) * 1000;
	if (https)
		log_event(LOG_WARN, "libs3 encrypts but does not verify the store's certificate: use the driver only in a network you trust", LF_S("endpoint", at), LF_END);
	return 0;
}

static int start(struct l3_store *s, unsigned threads, struct err *err)
{
	S3Status st;

	pthread_mutex_lock(&global_lock);
	st = S3_initialize("culver", S3_INIT_ALL, s->host);
	s->initialised = st == S3StatusOK;
	pthread_mutex_unlock(&global_lock);
	if (st != S3StatusOK)
		return err_set(err, ERR_UNAVAILABLE, "libs3 cannot be used: %s", S3_get_status_name(st));
	while (s->n_threads < threads && pthread_create(&s->thread[s->n_threads], NULL, serve, s) == 0)
		s->n_threads++;
	return s->n_threads ? 0 : err_set(err, ERR_LIMIT, "libs3: no thread can be started");
}

int objstore_libs3_open(const struct objstore_settings *set, struct objstore **s_r, struct err *err)
{
	unsigned threads = set->concurrency && set->concurrency < THREADS ? (unsigned)set->concurrency : THREADS;
	struct l3_store *s = MEM_NEW(struct l3_store);
	int rc;

	s->base.ops = &l3_ops;
	s->base.caps = OBJ_CAP_RANGE | OBJ_CAP_COPY | OBJ_CAP_LIST | OBJ_CAP_REMOTE;
	s->last = &s->first;
	s->rng = set->seed ? set->seed : (uint64_t)clock_mono_us(&clock_system);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->work, NULL);
	pthread_cond_init(&s->idle, NULL);
	rc = set_all(s, set, err);
	if (rc == 0)
		rc = start(s, threads, err);
	if (rc < 0) {
		l3_close(&s->base);
		return rc;
	}
	*s_r = &s->base;
	return 0;
}
