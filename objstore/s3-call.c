/* One request on the wire. */
#include "objstore/s3-private.h"

#include "base/b64.h"
#include "base/clock.h"
#include "base/mem.h"

#include <inttypes.h>

enum { FIELDS_MAX = 64 * 1024, URL_MAX = 16 * 1024 };

/* --- fields: name NUL value NUL line NUL in one buffer, pointers at the end --- */

static void field(struct s3_call *c, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void field(struct s3_call *c, const char *name, const char *fmt, ...)
{
	struct buf *b = &c->fields;
	char *value;
	va_list ap;

	if (c->n == S3_HEADERS_MAX)
		return;
	c->at[c->n][0] = b->len;
	buf_add(b, name, strlen(name) + 1);
	c->at[c->n][1] = b->len;
	va_start(ap, fmt);
	buf_vaddf(b, fmt, ap);
	va_end(ap);
	buf_addc(b, '\0');
	c->at[c->n][2] = b->len;
	value = mem_strdup((char *)b->data + c->at[c->n][1]);
	buf_addf(b, "%s: %s", name, value);
	buf_addc(b, '\0');
	free(value);
	c->n++;
}

static void field_b64(struct s3_call *c, const char *name, const void *data, size_t len)
{
	struct buf b = BUF_INIT(256);

	b64_encode(&b, data, len);
	field(c, name, "%s", buf_str(&b));
	buf_free(&b);
}

static void customer_key(struct s3_call *c, const char *what)
{
	const struct s3_store *s = c->o->s;
	char name[80];

	if (s->sse != S3_SSE_CUSTOMER)
		return;
	snprintf(name, sizeof(name), "x-amz-%sserver-side-encryption-customer-algorithm", what);
	field(c, name, "AES256");
	snprintf(name, sizeof(name), "x-amz-%sserver-side-encryption-customer-key", what);
	field(c, name, "%s", s->sse_key);
	snprintf(name, sizeof(name), "x-amz-%sserver-side-encryption-customer-key-md5", what);
	field(c, name, "%s", s->sse_key_md5);
}

static void encryption(struct s3_call *c)
{
	const struct s3_store *s = c->o->s;

	if (s->sse == S3_SSE_S3)
		field(c, "x-amz-server-side-encryption", "AES256");
	if (s->sse == S3_SSE_KMS)
		field(c, "x-amz-server-side-encryption", "aws:kms");
	if (s->sse == S3_SSE_KMS && *s->kms_key)
		field(c, "x-amz-server-side-encryption-aws-kms-key-id", "%s", s->kms_key);
	customer_key(c, "");
}

/* What belongs to an object that is being made: by PUT, COPY or the begin of a multipart upload. */
static void object_fields(struct s3_call *c)
{
	const struct objstore_put_opts *p = c->o->op->put;
	const char *class = p && p->storage_class ? p->storage_class : c->o->s->storage_class;
	char date[S3_DATE];

	if (*class)
		field(c, "x-amz-storage-class", "%s", class);
	encryption(c);
	if (p && p->retain_until) {
		s3_date(p->retain_until, date);
		field(c, "x-amz-object-lock-mode", "%s", p->governance ? "GOVERNANCE" : "COMPLIANCE");
		field(c, "x-amz-object-lock-retain-until-date", "%.4s-%.2s-%.2sT%.2s:%.2s:%.2sZ", date, date + 4, date + 6, date + 9, date + 11, date + 13);
	}
	if (p && p->legal_hold)
		field(c, "x-amz-object-lock-legal-hold", "ON");
}

static void md5_field(struct s3_call *c, const struct iovec *iov, int n)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char h[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	int i;

	EVP_DigestInit_ex(ctx, EVP_md5(), NULL);
	for (i = 0; i < n; i++)
		EVP_DigestUpdate(ctx, iov[i].iov_base, iov[i].iov_len);
	EVP_DigestFinal_ex(ctx, h, &len);
	EVP_MD_CTX_free(ctx);
	field_b64(c, "content-md5", h, len);
}

static void condition(struct s3_call *c)
{
	const struct s3_op *o = c->o;
	const char *tag = o->op->etag;
	size_t len = strlen(tag);
	bool quoted = len >= 2 && tag[len - 1] == '"';

	if (o->op->cond == OBJ_CREATE)
		field(c, "if-none-match", "*");
	if (o->op->cond != OBJ_MATCH)
		return;
	if (o->s->match == S3_MATCH_UNQUOTED || o->other_form)
		field(c, "if-match", "%.*s", (int)(quoted && *tag == '"' ? len - 2 : len), quoted && *tag == '"' ? tag + 1 : tag);
	else
		field(c, "if-match", quoted ? "%s" : "\"%s\"", tag);
}

/* --- the requests --- */

static void build_put(struct s3_call *c)
{
	const struct s3_op *o = c->o;
	const struct objstore_put_opts *p = o->op->put;
	bool locked = p && (p->retain_until || p->legal_hold);	/* S3 wants a checksum with those */

	field(c, "content-type", "application/octet-stream");
	if (o->part) {
		customer_key(c, "");
	} else {
		condition(c);
		object_fields(c);
		if (o->op->cond != OBJ_ANY)
			field(c, S3_TOKEN_FIELD, "%s", o->token);
	}
	if (o->s->checksum == S3_SUM_SHA256 || (locked && o->s->checksum == S3_SUM_NONE))
		field_b64(c, "x-amz-checksum-sha256", o->sha, 32);
	if (o->s->checksum == S3_SUM_MD5 || locked)
		md5_field(c, o->op->iov, o->op->n_iov);
	c->req.iov = o->op->iov;
	c->req.n_iov = o->op->n_iov;
}

static void build_get(struct s3_call *c)
{
	const struct objstore_op *op = c->o->op;

	customer_key(c, "");
	if (c->o->phase == S3_READ_BYTES)
		return;
	if (!op->off && !op->len) {
		if (c->o->s->checksum == S3_SUM_SHA256)
			field(c, "x-amz-checksum-mode", "ENABLED");
		return;
	}
	if (op->len && op->off <= UINT64_MAX - op->len)
		field(c, "range", "bytes=%" PRIu64 "-%" PRIu64, op->off, op->off + op->len - 1);
	else
		field(c, "range", "bytes=%" PRIu64 "-", op->off);
}

static size_t build_list(const struct objstore_op *op, struct s3_param *q, char number[24])
{
	size_t n = 0, max = op->max_keys && op->max_keys < 1000 ? op->max_keys : 1000;

	snprintf(number, 24, "%zu", max);
	q[n++] = (struct s3_param){ "list-type", "2" };
	q[n++] = (struct s3_param){ "encoding-type", "url" };
	q[n++] = (struct s3_param){ "max-keys", number };
	if (op->key && *op->key)
		q[n++] = (struct s3_param){ "prefix", op->key };
	if (op->start_after && *op->start_after)
		q[n++] = (struct s3_param){ "start-after", op->start_after };
	return n;
}

static void build_copy(struct s3_call *c)
{
	const struct s3_store *s = c->o->s;
	struct buf source = BUF_INIT(URL_MAX);

	buf_addf(&source, "/%s/", s->bucket);
	s3_uri_encode(&source, c->o->op->key, strlen(c->o->op->key), 1);
	field(c, "x-amz-copy-source", "%s", buf_str(&source));
	buf_free(&source);
	condition(c);
	object_fields(c);
	customer_key(c, "copy-source-");
}

static void text_body(struct s3_call *c)
{
	struct s3_op *o = c->o;

	o->text_iov = (struct iovec){ o->text.data, o->text.len };
	c->req.iov = &o->text_iov;
	c->req.n_iov = 1;
}

/* The method, query and fields of what o is about to ask. */
static size_t build(struct s3_call *c, struct s3_param *q, char number[24])
{
	struct s3_op *o = c->o;
	struct http_req *r = &c->req;

	if (o->phase == S3_READ_BYTES || (o->phase == S3_MAIN && o->op->verb == OBJ_GET)) {
		r->method = HTTP_GET;
		build_get(c);
		return 0;
	}
	if (o->phase == S3_SIZE || o->phase == S3_READ_BACK || o->op->verb == OBJ_HEAD) {
		r->method = HTTP_HEAD;
		customer_key(c, "");
		return 0;
	}
	q[0] = (struct s3_param){ "uploadId", o->parent && o->parent->upload_id ? o->parent->upload_id : o->upload_id };
	switch (o->phase) {
	case S3_INITIATE:
		r->method = HTTP_POST;
		field(c, "content-type", "application/octet-stream");
		object_fields(c);
		q[0] = (struct s3_param){ "uploads", "" };
		return 1;
	case S3_COMPLETE:
		r->method = HTTP_POST;
		field(c, "content-type", "application/xml");
		text_body(c);
		return 1;
	case S3_ABORT:
		r->method = HTTP_DELETE;
		return 1;
	default:
		break;
	}
	switch (o->op->verb) {
	case OBJ_PUT:
		r->method = HTTP_PUT;
		build_put(c);
		if (!o->part)
			return 0;
		snprintf(number, 24, "%u", o->part);
		q[1] = (struct s3_param){ "partNumber", number };
		return 2;
	case OBJ_COPY:
		r->method = HTTP_PUT;
		build_copy(c);
		return 0;
	case OBJ_LIST:
		r->method = HTTP_GET;
		return build_list(o->op, q, number);
	case OBJ_DELETE:
		r->method = o->op->n_keys ? HTTP_POST : HTTP_DELETE;
		if (!o->op->n_keys)
			return 0;
		field(c, "content-type", "application/xml");
		text_body(c);
		md5_field(c, &o->text_iov, 1);
		q[0] = (struct s3_param){ "delete", "" };
		return 1;
	default:
		return 0;
	}
}

static const char *key_of(const struct s3_op *o)
{
	if (o->op->verb == OBJ_LIST || o->op->n_keys)
		return NULL;
	return o->op->verb == OBJ_COPY && o->phase == S3_MAIN ? o->op->key_to : o->op->key;
}

static void payload_hash(const struct s3_call *c, char out[S3_HASH_HEX])
{
	const struct s3_op *o = c->o;

	if (c->req.iov == &o->text_iov)
		s3_sha256_hex(o->text.data, o->text.len, out);
	else if (c->req.n_iov)
		hex_encode(out, o->sha, 32);
	else
		s3_sha256_hex("", 0, out);
}

static void sign(struct s3_call *c, const struct s3_keys *keys, const char *path, const char *query)
{
	static const char *const methods[] = { "GET", "HEAD", "PUT", "POST", "DELETE" };
	struct s3_store *s = c->o->s;
	struct s3_param h[S3_HEADERS_MAX];
	struct buf auth = BUF_INIT(8192);
	char hash[S3_HASH_HEX], date[S3_DATE];
	size_t i;

	payload_hash(c, hash);
	s3_date(clock_wall_s(&clock_system) + s->skew_s, date);
	field(c, "host", "%s", s->host);
	field(c, "x-amz-date", "%s", date);
	field(c, "x-amz-content-sha256", "%s", hash);
	if (keys->token && *keys->token)
		field(c, "x-amz-security-token", "%s", keys->token);
	for (i = 0; i < c->n; i++)
		h[i] = (struct s3_param){ (char *)c->fields.data + c->at[i][0], (char *)c->fields.data + c->at[i][1] };
	s3_sign(&s->signer, keys, &(struct s3_to_sign){ .method = methods[c->req.method], .path = path, .query = query, .headers = h, .n_headers = c->n,
		.payload_hash = hash, .date = date, .region = s->region, .service = "s3" }, &auth);
	field(c, "authorization", "%s", buf_str(&auth));
	buf_free(&auth);
}

/* --- where the body of the answer goes --- */

static int hash_body(struct http_req *r, const void *data, size_t len)
{
	struct s3_call *c = r->ctx;

	if (!c->began && r->length >= 0 && (uint64_t)r->length != c->o->len)
		c->wrong_size = true;
	c->began = true;
	if (c->wrong_size || r->down > c->o->len) {
		c->wrong_size = true;
		return -1;
	}
	EVP_DigestUpdate(c->hash, data, len);
	return 0;
}

/* A store may give the whole object where a range was asked for. */
static void begin_body(struct s3_call *c)
{
	const struct objstore_op *op = c->o->op;
	bool whole = c->req.status == 200;

	c->began = true;
	c->skip = whole ? op->off : 0;
	c->left = whole && op->len ? op->len : UINT64_MAX;
}

static int keep_body(struct http_req *r, const void *data, size_t len)
{
	struct s3_call *c = r->ctx;
	struct buf *out = c->is_hedge ? &c->own : c->o->op->out;
	const char *p = data;

	if (c->hash)
		EVP_DigestUpdate(c->hash, data, len);
	if (!c->began) {
		begin_body(c);
		if (!c->skip && r->length > 0 && c->left == UINT64_MAX)
			buf_reserve(out, (size_t)r->length);
	}
	if (c->skip >= len) {
		c->skip -= len;
		return 0;
	}
	p += c->skip;
	len -= (size_t)c->skip;
	c->skip = 0;
	if (len > c->left)
		len = (size_t)c->left;
	c->left -= len;
	if (len)
		buf_add(out, p, len);
	c->limit = out->failed;
	return out->failed ? -1 : 0;
}

static void set_sink(struct s3_call *c)
{
	struct s3_op *o = c->o;

	if (o->phase == S3_READ_BYTES || (o->op->verb == OBJ_GET && o->s->checksum == S3_SUM_SHA256 && !o->op->off && !o->op->len)) {
		c->hash = EVP_MD_CTX_new();
		EVP_DigestInit_ex(c->hash, EVP_sha256(), NULL);
	}
	if (o->phase == S3_READ_BYTES) {
		c->req.on_body = hash_body;
	} else if (o->phase == S3_MAIN && o->op->verb == OBJ_GET) {
		c->req.on_body = keep_body;
		buf_init(&c->own, o->op->out->max ? o->op->out->max - o->out_start : 0);
		if (!c->is_hedge && o->op->out->data)
			buf_truncate(o->op->out, o->out_start);
	}
}

struct s3_call *s3_call_new(struct s3_op *o, const struct s3_keys *keys, bool hedge)
{
	struct s3_call *c = MEM_NEW(struct s3_call);
	struct buf path = BUF_INIT(URL_MAX), query = BUF_INIT(URL_MAX);
	struct s3_param q[S3_QUERY_MAX];
	const char *key = key_of(o);
	char number[24];
	size_t i, n;

	http_req_init(&c->req);
	buf_init(&c->fields, FIELDS_MAX);
	buf_init(&c->url, 2 * URL_MAX);
	c->o = o;
	c->attempt = o->attempt;
	c->is_hedge = hedge;
	snprintf(c->access, sizeof(c->access), "%s", keys->access);
	n = build(c, q, number);
	s3_query(&query, q, n);
	buf_adds(&path, o->s->path);
	if (key || !*o->s->path)
		buf_addc(&path, '/');
	if (key)
		s3_uri_encode(&path, key, strlen(key), 1);
	sign(c, keys, buf_str(&path), buf_str(&query));
	buf_addf(&c->url, "%s%s%s%s", o->s->url, buf_str(&path), n ? "?" : "", buf_str(&query));
	for (i = 0; i < c->n; i++)
		c->lines[i] = (char *)c->fields.data + c->at[i][2];
	c->req.url = buf_str(&c->url);
	c->req.headers = c->lines;
	c->req.n_headers = c->n;
	c->req.once = c->req.method == HTTP_POST || (o->op->verb == OBJ_PUT && o->op->cond != OBJ_ANY);
	c->req.fresh = o->fresh;
	c->req.ctx = c;
	set_sink(c);
	buf_free(&path);
	buf_free(&query);
	return c;
}

void s3_call_free(struct s3_call *c)
{
	if (!c)
		return;
	EVP_MD_CTX_free(c->hash);
	http_req_free(&c->req);
	buf_free(&c->url);
	buf_free(&c->fields);
	buf_free(&c->own);
	free(c);
}
