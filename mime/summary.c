/* The serialised summary, format 1 (docs/format-summary.md):
 *
 *   "MS", u8 version
 *   varint flags, varint size, varint header size
 *   u64 date, u16 zone (two's complement)
 *   blob envelope, bodystructure, body, preview, headers, parts
 *   bytes behind are ignored: room for sections to come
 *
 * A part, in "parts":
 *   u8 kind | encoding << 2
 *   varint header offset (from the start of the parent's body), header length, body length, lines
 *   u8 type code, and for 0: type NUL subtype NUL
 *   u8 charset code, and for 0: charset NUL
 *   varint n, n bytes: its parts in order
 *
 * Readers trust nothing: a part that does not fit is no part. */
#include "mime/mime-private.h"

#include "base/mem.h"

enum { FORMAT = 1, NESTING_MAX = 256, FEW = 64 };

static size_t varint_len(uint64_t v)
{
	size_t n = 1;

	while (v >= 0x80) {
		v >>= 7;
		n++;
	}
	return n;
}

static uint64_t relative_off(const struct part *parts, size_t i)
{
	return i ? parts[i].header_off - parts[parts[i].parent].body_off : parts[i].header_off;
}

static size_t own_len(const struct part *parts, size_t i)
{
	const struct part *p = &parts[i];

	return 1 + varint_len(relative_off(parts, i)) + varint_len(p->body_off - p->header_off) + varint_len(p->end - p->body_off) +
		varint_len(p->lines) + 2 + p->names_len;
}

/* Type NUL subtype NUL of the names, when there. */
static size_t type_names_len(const struct part *p, const unsigned char *names)
{
	size_t n;

	if (p->type_code)
		return 0;
	n = strlen((const char *)names) + 1;
	return n + strlen((const char *)names + n) + 1;
}

static void put_part(struct buf *out, const struct summary_parts *s, size_t i, uint64_t children)
{
	const struct part *p = &s->parts[i];
	const unsigned char *names = s->pool->data + p->names;
	size_t n = type_names_len(p, names);

	buf_put8(out, (uint8_t)(p->kind | p->encoding << 2));
	buf_putv(out, relative_off(s->parts, i));
	buf_putv(out, p->body_off - p->header_off);
	buf_putv(out, p->end - p->body_off);
	buf_putv(out, p->lines);
	buf_put8(out, p->type_code);
	buf_add(out, names, n);
	buf_put8(out, p->charset_code);
	buf_add(out, names + n, p->names_len - n);
	buf_putv(out, children);
}

/* Parts come in message order, so children stand behind their parent and
 * their lengths are known when the parent's turn comes from behind. */
static void put_parts(const struct summary_parts *s, struct buf *out)
{
	uint64_t few[FEW], *children = s->n <= FEW ? few : mem_calloc(s->n, sizeof(*children));
	uint64_t whole;
	size_t i;

	memset(children, 0, s->n * sizeof(*children));
	for (i = s->n; i-- > 1;)
		children[s->parts[i].parent] += own_len(s->parts, i) + varint_len(children[i]) + children[i];
	whole = own_len(s->parts, 0) + varint_len(children[0]) + children[0];
	buf_putv(out, whole);
	for (i = 0; i < s->n; i++)
		put_part(out, s, i, children[i]);
	if (children != few)
		free(children);
}

void summary_write(const struct summary_parts *s, struct buf *out)
{
	struct buf text = BUF_INIT(0);

	buf_add(out, "MS", 2);
	buf_put8(out, FORMAT);
	buf_putv(out, s->flags);
	buf_putv(out, s->size);
	buf_putv(out, s->parts[0].body_off);
	buf_put64(out, (uint64_t)s->date);
	buf_put16(out, (uint16_t)s->zone);
	buf_putblob(out, s->envelope, s->envelope_len);
	bodystructure_render(s->parts, s->n, s->pool, true, &text);
	buf_putblob(out, text.data, text.len);
	buf_clear(&text);
	bodystructure_render(s->parts, s->n, s->pool, false, &text);
	buf_putblob(out, text.data, text.len);
	buf_free(&text);
	buf_putblob(out, s->preview, s->preview_len);
	buf_putblob(out, s->headers, s->headers_len);
	put_parts(s, out);
}

int mime_summary_open(const void *data, size_t len, struct mime_summary *out)
{
	struct rd r = rd_init(data ? data : "", data ? len : 0);
	const char *magic = rd_bytes(&r, 2);
	uint64_t flags;

	memset(out, 0, sizeof(*out));
	if (!magic || memcmp(magic, "MS", 2) || rd_8(&r) != FORMAT)
		return -1;
	flags = rd_v(&r);
	out->flags = (uint32_t)flags;
	out->size = rd_v(&r);
	out->header_size = rd_v(&r);
	out->date = (int64_t)rd_64(&r);
	out->date_zone = (int16_t)rd_16(&r);
	out->envelope = rd_blob(&r, &out->envelope_len);
	out->bodystructure = rd_blob(&r, &out->bodystructure_len);
	out->body = rd_blob(&r, &out->body_len);
	out->preview = rd_blob(&r, &out->preview_len);
	out->headers = rd_blob(&r, &out->headers_len);
	out->parts = rd_blob(&r, &out->parts_len);
	if (r.failed || flags > UINT32_MAX || out->size > INT64_MAX || out->header_size > out->size)
		return -1;
	return 0;
}

/* A NUL-terminated string inside r, borrowed; "" and failed without a NUL. */
static const char *rd_name(struct rd *r)
{
	size_t left = rd_left(r);
	const unsigned char *p = r->p, *nul = left ? memchr(p, '\0', left) : NULL;

	if (!nul) {
		r->failed = true;
		return "";
	}
	r->p = nul + 1;
	return (const char *)p;
}

/* Reads the part at r, which moves behind it; its parts go to *children. */
static bool read_part(struct rd *r, uint64_t base, uint64_t size, struct mime_part *out, struct rd *children)
{
	uint8_t head = rd_8(r), code;
	const void *p;
	size_t len;

	memset(out, 0, sizeof(*out));
	out->kind = head & 3;
	out->encoding = head >> 2;
	out->header_off = rd_v(r);
	out->header_len = rd_v(r);
	out->body_len = rd_v(r);
	out->lines = rd_v(r);
	out->type = out->subtype = out->charset = "";
	code = rd_8(r);
	if (!code) {
		out->type = rd_name(r);
		out->subtype = rd_name(r);
	} else if (!names_type(code, &out->type, &out->subtype)) {
		return false;
	}
	code = rd_8(r);
	if (!code)
		out->charset = rd_name(r);
	else if (!names_charset(code, &out->charset))
		return false;
	p = rd_blob(r, &len);
	if (r->failed || out->kind > MIME_MESSAGE || out->encoding > MIME_ENC_UNKNOWN)
		return false;
	if (out->header_off > size || base > size - out->header_off)
		return false;
	out->header_off += base;
	size -= out->header_off;
	if (out->header_len > size || out->body_len > size - out->header_len)
		return false;
	out->body_off = out->header_off + out->header_len;
	*children = rd_init(p, len);
	return true;
}

/* The message inside a message/rfc822 part. */
static bool read_inner(struct mime_part *part, const struct rd *children, uint64_t size, struct mime_part *inner, struct rd *inner_children)
{
	struct rd r = *children;

	if (!read_part(&r, part->body_off, size, inner, inner_children))
		return false;
	part->inner_header_off = inner->header_off;
	part->inner_header_len = inner->header_len;
	part->inner_body_off = inner->body_off;
	part->inner_body_len = inner->body_len;
	return true;
}

int mime_summary_part(const struct mime_summary *s, const uint32_t *path, size_t depth, struct mime_part *out)
{
	struct rd r = rd_init(s->parts, s->parts_len), children;
	struct mime_part inner;
	bool message = true;	/* is *out a whole message, whose part 1 may be its own body? */
	uint32_t n;
	size_t i;

	if (!read_part(&r, 0, s->size, out, &children))
		return 0;
	for (i = 0; i < depth; i++) {
		if (!path[i])
			return 0;
		if (!message && out->kind == MIME_MESSAGE) {
			if (!read_inner(out, &children, s->size, &inner, &r))
				return 0;
			*out = inner;
			children = r;
			message = true;
		}
		if (out->kind == MIME_MULTIPART) {
			uint64_t base = out->body_off;

			for (r = children, n = path[i]; n > 0; n--)
				if (!read_part(&r, base, s->size, out, &children))
					return 0;
		} else if (!message || path[i] != 1) {
			return 0;
		}
		message = false;
	}
	if (out->kind == MIME_MESSAGE && !read_inner(out, &children, s->size, &inner, &r))
		return 0;
	return 1;
}

struct walk {
	bool (*fn)(void *ctx, const struct mime_part *part, const uint32_t *path, size_t depth);
	void *ctx;
	uint64_t size;
	uint32_t path[NESTING_MAX + 1];
};

/* part: a message (root or inner) or a part; depth: numbers in w->path so far.
 * A message that is no multipart is its own part 1. */
static bool walk(struct walk *w, const struct mime_part *part, struct rd children, size_t depth, bool message, unsigned level)
{
	struct mime_part sub;
	struct rd r;

	if (level >= NESTING_MAX || depth >= NESTING_MAX)
		return true;
	if (message && part->kind != MIME_MULTIPART)
		w->path[depth++] = 1;
	if (part->kind == MIME_LEAF)
		return w->fn(w->ctx, part, w->path, depth);
	if (part->kind == MIME_MESSAGE) {
		if (!read_part(&children, part->body_off, w->size, &sub, &r))
			return true;
		return walk(w, &sub, r, depth, true, level + 1);
	}
	for (w->path[depth] = 1; rd_left(&children); w->path[depth]++) {
		if (!read_part(&children, part->body_off, w->size, &sub, &r))
			break;
		if (!walk(w, &sub, r, depth + 1, false, level + 1))
			return false;
	}
	return true;
}

void mime_summary_each_leaf(const struct mime_summary *s,
	bool (*fn)(void *ctx, const struct mime_part *part, const uint32_t *path, size_t depth), void *ctx)
{
	struct walk w = { .fn = fn, .ctx = ctx, .size = s->size };
	struct rd r = rd_init(s->parts, s->parts_len), children;
	struct mime_part root;

	if (read_part(&r, 0, s->size, &root, &children))
		walk(&w, &root, children, 0, true, 0);
}
