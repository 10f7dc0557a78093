/* One request on the wire. */
#include "objstore/sproxyd-private.h"

#include "base/mem.h"
#include "objstore/s3-sign.h"

#include <inttypes.h>

enum { FIELDS_MAX = 16 * 1024, URL_MAX = 8 * 1024, IDLE_S = 20 /* the server ends them after 25 s */ };

enum objstore_verb sp_wire_verb(const struct sp_op *o)
{
	if (o->phase == SP_READ_BYTES)
		return OBJ_GET;
	return o->phase == SP_SIZE || o->phase == SP_READ_BACK ? OBJ_HEAD : o->op->verb;
}

static void field(struct sp_call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void field(struct sp_call *c, const char *fmt, ...)
{
	va_list ap;

	if (c->n == MEM_COUNT(c->at))
		return;
	c->at[c->n++] = c->fields.len;
	va_start(ap, fmt);
	buf_vaddf(&c->fields, fmt, ap);
	va_end(ap);
	buf_addc(&c->fields, '\0');
}

static void build_put(struct sp_call *c)
{
	struct sp_op *o = c->o;
	struct buf md = BUF_INIT(FIELDS_MAX);

	c->req.method = HTTP_PUT;
	/* Never without a condition: the key may be another name's.  What is overwritten was looked at. */
	field(c, o->overwrite ? "If-Match: *" : "If-None-Match: *");
	field(c, "Content-Type: application/octet-stream");
	sproxyd_usermd_put(&md, o->op->key, o->token);
	field(c, "X-Scal-Usermd: %s", buf_str(&md));
	buf_free(&md);
	c->req.iov = o->op->iov;
	c->req.n_iov = o->op->n_iov;
	c->req.once = true;
}

/* What is asked for: replicas that agree.  The default of the profile may be another. */
static void consistent(struct sp_call *c)
{
	field(c, "X-Scal-Replica-Policy: consistent");
}

static void build_get(struct sp_call *c)
{
	const struct objstore_op *op = c->o->op;

	c->req.method = HTTP_GET;
	consistent(c);
	if (c->o->phase == SP_READ_BYTES || (!op->off && !op->len))
		return;
	if (op->len && op->off <= UINT64_MAX - op->len)
		field(c, "Range: bytes=%" PRIu64 "-%" PRIu64, op->off, op->off + op->len - 1);
	else
		field(c, "Range: bytes=%" PRIu64 "-", op->off);
}

static void build(struct sp_call *c)
{
	struct sp_op *o = c->o;

	field(c, "X-Scal-Request-Uids: %s", o->uid);
	switch (sp_wire_verb(o)) {
	case OBJ_PUT:
		build_put(c);
		return;
	case OBJ_GET:
		build_get(c);
		return;
	case OBJ_HEAD:
		c->req.method = HTTP_HEAD;
		consistent(c);
		return;
	default:
		break;
	}
	c->req.method = HTTP_DELETE;
	if (o->phase != SP_BATCH)
		return;
	c->req.method = HTTP_POST;
	field(c, "Content-Type: application/json");
	o->text_iov = (struct iovec){ o->text.data, o->text.len };
	c->req.iov = &o->text_iov;
	c->req.n_iov = 1;
}

static void set_url(struct sp_call *c)
{
	struct sp_op *o = c->o;
	char key[SPROXYD_KEY];

	buf_adds(&c->url, c->connector->url);
	if (o->phase == SP_BATCH) {
		buf_adds(&c->url, ".batch_delete");
	} else if (o->s->by_path) {
		s3_uri_encode(&c->url, o->op->key, strlen(o->op->key), 1);
	} else {
		sproxyd_key(o->op->key, o->s->service, o->s->class, key);
		buf_adds(&c->url, key);
	}
}

/* --- where the body of the answer goes --- */

bool sp_call_names(struct sp_call *c)
{
	const char *text = http_header(&c->req, "x-scal-usermd");

	if (!c->checked) {
		c->checked = true;
		c->named = text && sproxyd_usermd_parse(text, &c->md) == 1;
		c->wrong_name = !c->named || strcmp(c->md.name, c->o->op->key) != 0;
	}
	return !c->wrong_name;
}

static int hash_body(struct http_req *r, const void *data, size_t len)
{
	struct sp_call *c = r->ctx;

	if (!sp_call_names(c))
		return -1;
	if (r->down > c->o->len) {
		c->wrong_size = true;
		return -1;
	}
	EVP_DigestUpdate(c->hash, data, len);
	return 0;
}

static int keep_body(struct http_req *r, const void *data, size_t len)
{
	struct sp_call *c = r->ctx;
	const struct objstore_op *op = c->o->op;
	struct buf *out = op->out;
	const char *p = data;

	if (!c->checked) {
		if (!sp_call_names(c))
			return -1;
		/* the whole object may come where a range was asked for */
		c->skip = r->status == 200 ? op->off : 0;
		c->left = r->status == 200 && op->len ? op->len : UINT64_MAX;
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

static void set_sink(struct sp_call *c)
{
	struct sp_op *o = c->o;

	if (o->phase == SP_READ_BYTES) {
		c->hash = EVP_MD_CTX_new();
		EVP_DigestInit_ex(c->hash, EVP_sha256(), NULL);
		c->req.on_body = hash_body;
	} else if (sp_wire_verb(o) == OBJ_GET) {
		c->req.on_body = keep_body;
		if (o->op->out->data)
			buf_truncate(o->op->out, o->out_start);
	}
}

struct sp_call *sp_call_new(struct sp_op *o)
{
	struct sp_call *c = MEM_NEW(struct sp_call);
	size_t i;

	http_req_init(&c->req);
	buf_init(&c->fields, FIELDS_MAX);
	buf_init(&c->url, URL_MAX);
	c->o = o;
	c->attempt = o->attempt;
	c->connector = sp_connector_pick(o->s);
	build(c);
	set_url(c);
	for (i = 0; i < c->n; i++)
		c->lines[i] = (char *)c->fields.data + c->at[i];
	c->req.url = buf_str(&c->url);
	c->req.headers = c->lines;
	c->req.n_headers = c->n;
	c->req.fresh = o->fresh;
	c->req.max_idle_s = IDLE_S;
	c->req.ctx = c;
	set_sink(c);
	return c;
}

void sp_call_free(struct sp_call *c)
{
	if (!c)
		return;
	EVP_MD_CTX_free(c->hash);
	http_req_free(&c->req);
	buf_free(&c->url);
	buf_free(&c->fields);
	free(c);
}
