#include "objstore/s3-private.h"

#include "base/b64.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

enum {
	CONCURRENCY = 128, TIMEOUT_MS = 30000, ATTEMPT_MS = 10000, CONNECT_MS = 3000, KEY_FILE_MAX = 4096,
	MULTIPART = 64 << 20, PART = 16 << 20, PART_MIN = 5 << 20
};

/* --- the queue (event thread) --- */

static void fail_op(struct s3_op *o, const struct err *err)
{
	s3_op_end(o, err->code, err);
}

static struct s3_op *take_first(struct s3_store *s)
{
	struct s3_op *o = s->first;

	s->first = o->next;
	if (!s->first)
		s->last = &s->first;
	o->queued = false;
	return o;
}

/* While the breaker is open: short pauses are waited for, in longer ones nobody is kept. */
static void breaker_open(struct s3_store *s, int64_t until)
{
	struct err err = ERR_INIT;

	http_timer(s->e, &s->pump_timer, until);
	if (until - http_now() <= S3_BREAKER_PATIENCE_US)
		return;
	err_set(&err, ERR_UNAVAILABLE, "object store: %s does not answer; it is tried again in a moment", s->url);
	while (s->first)
		fail_op(take_first(s), &err);
}

static void pump(struct s3_store *s)
{
	struct s3_keys keys;

	while (s->first) {
		struct err err = ERR_INIT;
		int64_t wait = policy_may_send(&s->policy, http_now());
		int rc;

		if (wait > 0)
			breaker_open(s, wait);
		if (wait != 0)
			return;
		rc = s3_cred_get(s->cred, &keys, &err);
		if (rc == 0)
			return;
		if (rc < 0)
			fail_op(take_first(s), &err);
		else
			s3_op_send(take_first(s), &keys);
	}
}

static void pump_task(struct http_task *t)
{
	struct s3_store *s = (struct s3_store *)((char *)t - offsetof(struct s3_store, pump));

	s->pumping = false;	/* here alone: while it is posted it must not be posted again */
	pump(s);
}

static void pump_timer(struct http_task *t)
{
	pump((struct s3_store *)((char *)t - offsetof(struct s3_store, pump_timer)));
}

void s3_pump_soon(struct s3_store *s)
{
	if (s->pumping || !s->first)
		return;
	s->pumping = true;
	http_post(s->e, &s->pump);
}

static void keys_changed(void *ctx)
{
	s3_pump_soon(ctx);
}

void s3_enqueue(struct s3_op *o)
{
	struct s3_store *s = o->s;

	o->next = NULL;
	o->queued = true;
	*s->last = o;
	s->last = &o->next;
	s3_pump_soon(s);
}

void s3_dequeue(struct s3_op *o)
{
	struct s3_op **p = &o->s->first;

	if (!o->queued)
		return;
	while (*p != o)
		p = &(*p)->next;
	*p = o->next;
	if (!o->next)
		o->s->last = p;
	o->queued = false;
}

/* --- the ways in (any thread) --- */

void s3_hash_iov(const struct iovec *iov, int n, unsigned char out[32])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int i;

	EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	for (i = 0; i < n; i++)
		if (iov[i].iov_len)
			EVP_DigestUpdate(ctx, iov[i].iov_base, iov[i].iov_len);
	EVP_DigestFinal_ex(ctx, out, NULL);
	EVP_MD_CTX_free(ctx);
}

/* Never the same twice: 64 random bits of the store's opening, then a count. */
static void new_token(struct s3_store *s, char token[33])
{
	uint64_t n = atomic_fetch_add(&s->n_tokens, 1);

	hex_encode(token, s->token, sizeof(s->token));
	hex_encode(token + 2 * sizeof(s->token), &n, sizeof(n));
}

static void start_op(struct http_task *t)
{
	struct s3_op *o = (struct s3_op *)((char *)t - offsetof(struct s3_op, start));

	if (o->op->n_keys && o->s->no_multi_delete) {
		http_timer(o->s->e, &o->limit, o->deadline_us);
		s3_delete_each(o);
		return;
	}
	s3_op_begin(o);
}

struct s3_op *s3_op_new(struct s3_store *s, struct objstore_op *op)
{
	struct s3_op *o = MEM_NEW(struct s3_op);
	int i;

	o->s = s;
	o->op = op;
	o->begin_us = http_now();
	o->deadline_us = op->deadline_us ? op->deadline_us : o->begin_us + s->timeout_us;
	if (op->verb == OBJ_GET)
		o->out_start = op->out->len;
	if (op->verb != OBJ_PUT)
		return o;
	if (op->cond != OBJ_ANY)
		new_token(s, o->token);
	for (i = 0; i < op->n_iov; i++)
		o->len += op->iov[i].iov_len;
	if (op->cond == OBJ_ANY && o->len > s->multipart_size)
		s3_multi_prepare(o);
	else
		s3_hash_iov(op->iov, op->n_iov, o->sha);
	return o;
}

static void s3_submit(struct objstore *base, struct objstore_op *op)
{
	struct s3_store *s = (struct s3_store *)base;
	struct s3_op *o;

	op->items = NULL;
	op->n_items = 0;
	op->more = false;
	if (op->verb == OBJ_SYNC) {	/* nothing here is lazy */
		op->done(op);
		return;
	}
	o = s3_op_new(s, op);
	pthread_mutex_lock(&s->lock);
	op->driver = o;
	s->live++;
	pthread_mutex_unlock(&s->lock);
	o->start.run = start_op;
	http_post(s->e, &o->start);
}

static void cancel_task(struct http_task *t)
{
	struct s3_op *o = (struct s3_op *)((char *)t - offsetof(struct s3_op, cancel));
	struct s3_store *s = o->s;
	struct err err = ERR_INIT;
	bool ended;

	pthread_mutex_lock(&s->lock);
	o->cancel_posted = false;
	ended = o->ended;
	pthread_mutex_unlock(&s->lock);
	if (ended) {
		s3_op_free(o);
		return;
	}
	if (o->call && o->call->req.sent && s3_wire_verb(o) == OBJ_PUT)
		o->in_doubt = true;
	err_set(&err, ERR_TIMEOUT, "object store: %s: given up by the caller", o->op->key);
	s3_op_end(o, ERR_TIMEOUT, &err);
}

static void s3_cancel(struct objstore *base, struct objstore_op *op)
{
	struct s3_store *s = (struct s3_store *)base;
	struct s3_op *o;

	pthread_mutex_lock(&s->lock);
	o = op->driver;
	if (o && !o->cancel_posted) {
		o->cancel_posted = true;
		o->cancel.run = cancel_task;
		http_post(s->e, &o->cancel);	/* behind o->start */
	}
	pthread_mutex_unlock(&s->lock);
}

static void s3_stats(struct objstore *base, struct objstore_stats *out)
{
	struct s3_store *s = (struct s3_store *)base;

	pthread_mutex_lock(&s->lock);
	*out = s->stats;
	out->etag_form = (unsigned)s->match;
	pthread_mutex_unlock(&s->lock);
}

/* --- life --- */

static void s3_close(struct objstore *base)
{
	struct s3_store *s = (struct s3_store *)base;

	pthread_mutex_lock(&s->lock);
	while (s->live)
		pthread_cond_wait(&s->idle, &s->lock);
	pthread_mutex_unlock(&s->lock);
	http_engine_free(&s->e);
	s3_cred_free(&s->cred);
	s3_signer_wipe(&s->signer);
	OPENSSL_cleanse(s->sse_key, sizeof(s->sse_key));
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->idle);
	free(s->url);
	free(s->host);
	free(s->path);
	free(s->region);
	free(s->bucket);
	free(s->storage_class);
	free(s->kms_key);
	free(s);
}

static const struct objstore_ops s3_ops = { "s3", s3_submit, s3_cancel, s3_close, s3_stats };

static bool is_set(const char *text)
{
	return text && *text;
}

static const char *or_default(const char *text, const char *def)
{
	return is_set(text) ? text : def;
}

/* Index of text in names; the first for none; -1 unknown. */
static int one_of(const char *text, const char *const *names)
{
	int i;

	if (!is_set(text))
		return 0;
	for (i = 0; names[i]; i++)
		if (!strcmp(text, names[i]))
			return i;
	return -1;
}

static bool bucket_valid(const char *b)
{
	size_t n = strlen(b);

	return n >= 3 && n <= 63 && strspn(b, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == n;
}

/* Splits "scheme://authority/path/" and decides where the bucket goes. */
static int set_endpoint(struct s3_store *s, const struct objstore_settings *set, struct err *err)
{
	static const char *const styles[] = { "auto", "path", "virtual", NULL };
	char *own = is_set(set->endpoint) ? mem_strdup(set->endpoint) : mem_printf("https://s3.%s.amazonaws.com", s->region);
	bool https = !strncmp(own, "https://", 8), http = !strncmp(own, "http://", 7);
	char *host = own + (https ? 8 : 7), *slash = https || http ? strchr(host, '/') : NULL;
	int style = one_of(set->addressing, styles), rc = 0;
	const char *port = https ? ":443" : ":80";
	size_t len;

	if (slash)
		*slash++ = '\0';
	len = slash ? strlen(slash) : 0;
	if (len && slash[len - 1] == '/')
		slash[len - 1] = '\0';
	if ((!https && !http) || !*host || strpbrk(host, "@?# "))
		rc = err_set(err, ERR_INVALID, "endpoint \"%s\": write it like https://s3.example.org or http://10.0.0.1:8080", set->endpoint);
	else if (style < 0)
		rc = err_set(err, ERR_INVALID, "addressing \"%s\": it can be auto, path or virtual", set->addressing);
	if (rc == 0) {
		len = strlen(host);
		if (len > strlen(port) && !strcmp(host + len - strlen(port), port))
			host[len - strlen(port)] = '\0';
		if (style == 0)
			style = is_set(set->endpoint) || (https && strchr(s->bucket, '.')) ? 1 : 2;
		s->host = style == 2 ? mem_printf("%s.%s", s->bucket, host) : mem_strdup(host);
		s->url = mem_printf("%s://%s", https ? "https" : "http", s->host);
		s->path = mem_printf("%s%s%s%s", slash && *slash ? "/" : "", slash ? slash : "", style == 2 ? "" : "/", style == 2 ? "" : s->bucket);
	}
	free(own);
	return rc;
}

/* The key of SSE-C: 32 octets, or their base64. */
static int set_customer_key(struct s3_store *s, const char *file, struct err *err)
{
	struct buf raw = BUF_INIT(KEY_FILE_MAX), b64 = BUF_INIT(256);
	unsigned char md5[EVP_MAX_MD_SIZE];
	char *text = NULL;
	size_t len = 0;
	int rc;

	if (!is_set(file))
		return err_set(err, ERR_INVALID, "sse = customer needs sse_customer_key, a file");
	rc = io_read_file(file, KEY_FILE_MAX, &text, &len, err);
	if (rc < 0)
		return rc;
	if (len == 32) {
		buf_add(&raw, text, len);
	} else {
		while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
			len--;
		if (b64_decode(&raw, text, len) < 0 || raw.len != 32)
			rc = err_set(err, ERR_INVALID, "%s: an SSE-C key is 32 octets, or their base64", file);
	}
	if (rc == 0) {
		b64_encode(&b64, raw.data, raw.len);
		snprintf(s->sse_key, sizeof(s->sse_key), "%s", buf_str(&b64));
		buf_clear(&b64);
		EVP_Digest(raw.data, raw.len, md5, NULL, EVP_md5(), NULL);
		b64_encode(&b64, md5, 16);
		snprintf(s->sse_key_md5, sizeof(s->sse_key_md5), "%s", buf_str(&b64));
	}
	OPENSSL_cleanse(text, len);
	if (raw.data)
		OPENSSL_cleanse(raw.data, raw.cap);
	free(text);
	buf_free(&raw);
	buf_free(&b64);
	return rc;
}

static int set_choices(struct s3_store *s, const struct objstore_settings *set, struct err *err)
{
	static const char *const sse[] = { "none", "AES256", "aws:kms", "customer", NULL }, *const sums[] = { "none", "sha256", "md5", NULL };
	static const char *const forms[] = { "auto", "quoted", "unquoted", NULL };
	int a = one_of(set->sse, sse), b = one_of(set->checksum, sums), c = one_of(set->etag_match, forms);

	if (a < 0)
		return err_set(err, ERR_INVALID, "sse \"%s\": it can be none, AES256, aws:kms or customer", set->sse);
	if (b < 0)
		return err_set(err, ERR_INVALID, "checksum \"%s\": it can be none, sha256 or md5", set->checksum);
	if (c < 0)
		return err_set(err, ERR_INVALID, "etag_match \"%s\": it can be auto, quoted or unquoted", set->etag_match);
	s->sse = (enum s3_sse)a;
	s->checksum = (enum s3_checksum)b;
	s->match = c;
	return s->sse == S3_SSE_CUSTOMER ? set_customer_key(s, set->sse_customer_key, err) : 0;
}

static int set_all(struct s3_store *s, const struct objstore_settings *set, struct err *err)
{
	int rc;

	s->region = mem_strdup(or_default(set->region, "us-east-1"));
	s->bucket = mem_strdup(or_default(set->bucket, ""));
	s->storage_class = mem_strdup(or_default(set->storage_class, ""));
	s->kms_key = mem_strdup(or_default(set->sse_kms_key, ""));
	s->timeout_us = (int64_t)(set->timeout_ms ? set->timeout_ms : TIMEOUT_MS) * 1000;
	s->attempt_us = (int64_t)(set->attempt_timeout_ms ? set->attempt_timeout_ms : ATTEMPT_MS) * 1000;
	s->multipart_size = set->multipart_size ? set->multipart_size : MULTIPART;
	s->part_size = set->part_size ? set->part_size : PART;
	if (s->part_size < PART_MIN)
		s->part_size = PART_MIN;
	if (!*s->bucket)
		return err_set(err, ERR_INVALID, "driver s3 needs a bucket");
	if (!bucket_valid(s->bucket))
		return err_set(err, ERR_INVALID, "bucket \"%s\": that is no name of a bucket", s->bucket);
	rc = set_choices(s, set, err);
	return rc < 0 ? rc : set_endpoint(s, set, err);
}

static int set_credentials(struct s3_store *s, const struct objstore_settings *set, struct err *err)
{
	static const char *const sources[] = { "auto", "settings", "environment", "file", "imds", "web-identity", NULL };
	int source = one_of(set->credentials, sources);
	struct s3_cred_config cfg = {
		.source = (enum s3_cred_source)source, .access = set->access_key, .secret = set->secret_key, .token = set->session_token,
		.file = set->credentials_file, .profile = set->profile, .role_arn = set->role_arn, .token_file = set->web_identity_token_file,
		.imds_endpoint = set->imds_endpoint, .sts_endpoint = set->sts_endpoint, .region = s->region
	};

	if (source < 0)
		return err_set(err, ERR_INVALID, "credentials \"%s\": it can be auto, settings, environment, file, imds or web-identity", set->credentials);
	if (is_set(set->access_key) != is_set(set->secret_key))
		return err_set(err, ERR_INVALID, "access_key and secret_key belong together");
	s->cred = s3_cred_new(s->e, &cfg, keys_changed, s);
	return 0;
}

int objstore_s3_open(const struct objstore_settings *set, struct objstore **s_r, struct err *err)
{
	struct http_config http = { set->ca_file, set->cert_file, set->key_file, set->proxy, 0, 0 };
	struct policy_config policy = { .hedge = !set->no_hedge, .seed = set->seed };
	struct s3_store *s = MEM_NEW(struct s3_store);
	int rc;

	s->base.ops = &s3_ops;
	s->base.caps = OBJ_CAP_CREATE | OBJ_CAP_MATCH | OBJ_CAP_RANGE | OBJ_CAP_COPY | OBJ_CAP_LIST | OBJ_CAP_DELETE_MANY | OBJ_CAP_LOCK | OBJ_CAP_REMOTE;
	s->last = &s->first;
	s->pump.run = pump_task;
	s->pump_timer.run = pump_timer;
	s->said_throttled_us = s->said_down_us = INT64_MIN / 2;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->idle, NULL);
	policy.window_max = set->concurrency ? (unsigned)(set->concurrency < 1024 ? set->concurrency : 1024) : CONCURRENCY;
	RAND_bytes(s->token, sizeof(s->token));
	if (!policy.seed)
		RAND_bytes((unsigned char *)&policy.seed, sizeof(policy.seed));
	policy_init(&s->policy, &policy);
	http.connections = policy.window_max + 4;
	http.connect_timeout_ms = set->connect_timeout_ms ? (unsigned)set->connect_timeout_ms : CONNECT_MS;
	rc = set_all(s, set, err);
	if (rc == 0)
		rc = http_engine_new(&http, &s->e, err);
	if (rc == 0)
		rc = set_credentials(s, set, err);
	if (rc < 0) {
		s3_close(&s->base);
		return rc;
	}
	*s_r = &s->base;
	return 0;
}
