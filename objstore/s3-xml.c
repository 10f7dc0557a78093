/* A walker over expat tells of each element that has text and of each end;
 * the documents below pick by the path of names ("ListBucketResult/Contents/Key"). */
#include "objstore/s3-xml.h"

#include "base/mem.h"

#include <expat.h>

enum { DEPTH_MAX = 16, PATH_MAX_ = 512, TEXT_MAX = 16 * 1024 };

struct walk {
	XML_Parser parser;
	char path[PATH_MAX_];
	size_t path_len;
	unsigned depth;
	struct buf text;
	bool failed;
	/* an element ended; text is what stood directly in it, without blanks around */
	void (*on_end)(void *ctx, const char *path, const char *text);
	void *ctx;
};

static void stop(struct walk *w)
{
	w->failed = true;
	XML_StopParser(w->parser, XML_FALSE);
}

static void on_start(void *ctx, const XML_Char *name, const XML_Char **attrs)
{
	struct walk *w = ctx;
	const char *local = strrchr(name, ':');
	size_t len;

	local = local ? local + 1 : name;
	len = strlen(local);
	if (++w->depth > DEPTH_MAX || w->path_len + len + 2 > sizeof(w->path)) {
		stop(w);
		return;
	}
	if (w->path_len)
		w->path[w->path_len++] = '/';
	memcpy(w->path + w->path_len, local, len + 1);
	w->path_len += len;
	buf_clear(&w->text);
}

static void on_text(void *ctx, const XML_Char *s, int len)
{
	struct walk *w = ctx;

	buf_add(&w->text, s, (size_t)len);
	if (w->text.failed)
		stop(w);
}

static const char *trimmed(struct buf *b)
{
	size_t at = 0;

	while (b->len && strchr(" \t\r\n", b->data[b->len - 1]))
		buf_truncate(b, b->len - 1);
	while (at < b->len && strchr(" \t\r\n", b->data[at]))
		at++;
	return buf_str(b) + at;
}

static void on_end(void *ctx, const XML_Char *name)
{
	struct walk *w = ctx;
	char *slash;

	if (w->failed)
		return;
	w->on_end(w->ctx, w->path, trimmed(&w->text));
	buf_clear(&w->text);
	slash = strrchr(w->path, '/');
	w->path_len = slash ? (size_t)(slash - w->path) : 0;
	w->path[w->path_len] = '\0';
	w->depth--;
}

static void on_doctype(void *ctx, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid, int internal)
{
	stop(ctx);
}

/* 0, or -1: not well formed, or refused. */
static int walk(const void *data, size_t len, void (*fn)(void *ctx, const char *path, const char *text), void *ctx)
{
	struct walk w = { .on_end = fn, .ctx = ctx, .text = BUF_INIT(TEXT_MAX) };
	const char *p = data;
	int rc = -1;

	/* blanks keep the connection alive while a store puts an upload together; the declaration comes behind them */
	for (; len && strchr(" \t\r\n", *p) && *p; p++)
		len--;
	if (len > INT32_MAX || !len)
		return -1;
	w.parser = XML_ParserCreate(NULL);
	if (!w.parser)
		return -1;
	XML_SetUserData(w.parser, &w);
	XML_SetElementHandler(w.parser, on_start, on_end);
	XML_SetCharacterDataHandler(w.parser, on_text);
	XML_SetStartDoctypeDeclHandler(w.parser, on_doctype);
	if (XML_Parse(w.parser, p, (int)len, 1) == XML_STATUS_OK && !w.failed)
		rc = 0;
	XML_ParserFree(w.parser);
	buf_free(&w.text);
	return rc;
}

/* Is path want, with anything before it? */
static bool is(const char *path, const char *want)
{
	size_t n = strlen(path), m = strlen(want);

	return n >= m && !strcmp(path + n - m, want) && (n == m || path[n - m - 1] == '/');
}

static void take(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text);
}

/* --- errors --- */

struct error_ctx {
	struct s3_xml_error *e;
	bool seen;
};

static void error_end(void *ctx, const char *path, const char *text)
{
	struct error_ctx *c = ctx;
	const char *slash = strchr(path, '/');
	size_t root = slash ? (size_t)(slash - path) : strlen(path);

	if (!(root == 5 && !memcmp(path, "Error", 5)) && !(root == 13 && !memcmp(path, "ErrorResponse", 13)))
		return;
	c->seen = true;
	if (is(path, "Error/Code"))
		take(c->e->code, sizeof(c->e->code), text);
	else if (is(path, "Error/Message"))
		take(c->e->message, sizeof(c->e->message), text);
	else if (is(path, "Error/Region"))
		take(c->e->region, sizeof(c->e->region), text);
	else if (is(path, "Error/Endpoint"))
		take(c->e->endpoint, sizeof(c->e->endpoint), text);
	else if (is(path, "RequestId"))
		take(c->e->request_id, sizeof(c->e->request_id), text);
}

int s3_xml_error(const void *data, size_t len, struct s3_xml_error *e)
{
	struct error_ctx c = { e, false };

	memset(e, 0, sizeof(*e));
	return walk(data, len, error_end, &c) == 0 && c.seen ? 1 : 0;
}

/* --- listings --- */

struct list_ctx {
	struct s3_xml_list *l;
	struct objstore_list_item item;
	size_t cap, max;
	bool encoded, seen, bad;
};

static int hex_digit(int c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place.  False: a NUL or half an escape.  '+' stays: some servers leave it as it is, and no key of ours has a blank. */
static bool url_decode(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (*s == '%') {
			int hi = hex_digit(s[1]), lo = hi < 0 ? -1 : hex_digit(s[2]);

			if (lo < 0 || (hi | lo) == 0)
				return false;
			*out++ = (char)(hi << 4 | lo);
			s += 2;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
	return true;
}

static int64_t parse_iso(const char *text)
{
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	return rest ? (int64_t)timegm(&tm) : 0;
}

static uint64_t parse_number(const char *text, bool *bad)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	if (*text < '0' || *text > '9' || *end)
		*bad = true;
	return n;
}

static void add_item(struct list_ctx *c)
{
	if (!c->item.key) {
		c->bad = true;
	} else if (c->l->n >= c->max) {
		c->l->more = true;
		free(c->item.key);
	} else {
		mem_grow(&c->l->items, &c->cap, c->l->n + 1, sizeof(c->item));
		c->l->items[c->l->n++] = c->item;
	}
	memset(&c->item, 0, sizeof(c->item));
}

static void list_end(void *ctx, const char *path, const char *text)
{
	struct list_ctx *c = ctx;

	if (strncmp(path, "ListBucketResult", 16) != 0)
		return;
	path += 16;
	if (!*path)
		c->seen = true;
	else if (!strcmp(path, "/Contents/Key")) {
		free(c->item.key);
		c->item.key = mem_strdup(text);
	} else if (!strcmp(path, "/Contents/Size"))
		c->item.size = parse_number(text, &c->bad);
	else if (!strcmp(path, "/Contents/LastModified"))
		c->item.mtime = parse_iso(text);
	else if (!strcmp(path, "/Contents"))
		add_item(c);
	else if (!strcmp(path, "/IsTruncated"))
		c->l->more |= !strcmp(text, "true");
	else if (!strcmp(path, "/EncodingType"))
		c->encoded = !strcmp(text, "url");
}

int s3_xml_list(const void *data, size_t len, size_t max, struct s3_xml_list *l, struct err *err)
{
	struct list_ctx c = { .l = l, .max = max };
	int rc;
	size_t i;

	memset(l, 0, sizeof(*l));
	rc = walk(data, len, list_end, &c);
	free(c.item.key);
	/* EncodingType may stand behind the keys */
	for (i = 0; c.encoded && i < l->n; i++)
		c.bad |= !url_decode(l->items[i].key);
	if (rc == 0 && c.seen && !c.bad)
		return 0;
	objstore_items_free(l->items, l->n);
	memset(l, 0, sizeof(*l));
	return err_set(err, ERR_CORRUPT, "object store: the listing is not what S3 answers");
}

/* --- the rest --- */

struct deleted_ctx {
	void (*fn)(void *ctx, const char *key, const char *code, const char *message);
	void *ctx;
	char key[OBJ_KEY_MAX + 1], code[64], message[256];
	bool seen;
};

static void deleted_end(void *ctx, const char *path, const char *text)
{
	struct deleted_ctx *c = ctx;

	if (!strcmp(path, "DeleteResult"))
		c->seen = true;
	else if (!strcmp(path, "DeleteResult/Error/Key"))
		take(c->key, sizeof(c->key), text);
	else if (!strcmp(path, "DeleteResult/Error/Code"))
		take(c->code, sizeof(c->code), text);
	else if (!strcmp(path, "DeleteResult/Error/Message"))
		take(c->message, sizeof(c->message), text);
	else if (!strcmp(path, "DeleteResult/Error")) {
		c->fn(c->ctx, c->key, c->code, c->message);
		c->key[0] = c->code[0] = c->message[0] = '\0';
	}
}

int s3_xml_deleted(const void *data, size_t len, void (*fn)(void *ctx, const char *key, const char *code, const char *message), void *ctx, struct err *err)
{
	struct deleted_ctx c = { .fn = fn, .ctx = ctx };

	if (walk(data, len, deleted_end, &c) == 0 && c.seen)
		return 0;
	return err_set(err, ERR_CORRUPT, "object store: the answer to a multi-delete is not what S3 answers");
}

struct value_ctx {
	const char *want, *want2;
	char *out;
	size_t size;
	bool seen;
};

static void value_end(void *ctx, const char *path, const char *text)
{
	struct value_ctx *c = ctx;

	if ((strcmp(path, c->want) && (!c->want2 || strcmp(path, c->want2))) || !*text || strlen(text) >= c->size)
		return;
	take(c->out, c->size, text);
	c->seen = true;
}

int s3_xml_upload_id(const void *data, size_t len, char *id, size_t size, struct err *err)
{
	struct value_ctx c = { "InitiateMultipartUploadResult/UploadId", NULL, id, size, false };

	if (walk(data, len, value_end, &c) == 0 && c.seen)
		return 0;
	return err_set(err, ERR_CORRUPT, "object store: no id for the multipart upload in the answer");
}

int s3_xml_etag(const void *data, size_t len, char *etag, size_t size, struct err *err)
{
	struct value_ctx c = { "CompleteMultipartUploadResult/ETag", "CopyObjectResult/ETag", etag, size, false };

	if (walk(data, len, value_end, &c) == 0 && c.seen)
		return 0;
	return err_set(err, ERR_CORRUPT, "object store: no ETag in the answer");
}

static void role_end(void *ctx, const char *path, const char *text)
{
	struct s3_xml_role *r = ctx;

	if (is(path, "Credentials/AccessKeyId"))
		take(r->access, sizeof(r->access), text);
	else if (is(path, "Credentials/SecretAccessKey"))
		take(r->secret, sizeof(r->secret), text);
	else if (is(path, "Credentials/SessionToken"))
		take(r->token, sizeof(r->token), text);
	else if (is(path, "Credentials/Expiration"))
		take(r->expiration, sizeof(r->expiration), text);
}

int s3_xml_role(const void *data, size_t len, struct s3_xml_role *r, struct err *err)
{
	memset(r, 0, sizeof(*r));
	if (walk(data, len, role_end, r) == 0 && *r->access && *r->secret)
		return 0;
	return err_set(err, ERR_CORRUPT, "STS: no credentials in the answer");
}

/* --- requests --- */

void s3_xml_put_text(struct buf *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '&')
			buf_adds(out, "&amp;");
		else if (*text == '<')
			buf_adds(out, "&lt;");
		else if (*text == '>')
			buf_adds(out, "&gt;");
		else if (*text == '"')
			buf_adds(out, "&quot;");
		else
			buf_addc(out, *text);
	}
}

void s3_xml_delete(struct buf *out, const char *const *keys, size_t n)
{
	size_t i;

	buf_adds(out, "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
	for (i = 0; i < n; i++) {
		buf_adds(out, "<Object><Key>");
		s3_xml_put_text(out, keys[i]);
		buf_adds(out, "</Key></Object>");
	}
	buf_adds(out, "</Delete>");
}

void s3_xml_complete(struct buf *out, const char *const *etags, size_t n)
{
	size_t i;

	buf_adds(out, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
	for (i = 0; i < n; i++) {
		buf_addf(out, "<Part><PartNumber>%zu</PartNumber><ETag>", i + 1);
		s3_xml_put_text(out, etags[i]);
		buf_adds(out, "</ETag></Part>");
	}
	buf_adds(out, "</CompleteMultipartUpload>");
}
