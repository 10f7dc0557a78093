/* Messages in any cuts give one summary; summaries of any bytes are safe to read.
 * First byte: how to cut, its top bit: the rest is a summary, not a message. */
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "mime/mime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct mime_limits tight = { .max_depth = 4, .max_parts = 8, .max_header = 256, .max_summary = 4096, .preview_chars = 40 };

static void parse(const struct mime_limits *l, const uint8_t *data, size_t size, size_t cut, struct buf *out)
{
	struct mime_parser *p = mime_parser_new(l);
	size_t pos = 0, n, step = cut;

	while (pos < size) {
		n = cut ? step % 13 + 1 : size;
		step = step * 1103515245 + 12345;
		if (n > size - pos)
			n = size - pos;
		mime_parser_feed(p, data + pos, n);
		pos += n;
	}
	mime_parser_finish(p, out);
	mime_parser_free(&p);
}

struct seen {
	const struct mime_summary *s;
	size_t n;
};

static bool leaf(void *ctx, const struct mime_part *part, const uint32_t *path, size_t depth)
{
	struct seen *seen = ctx;
	struct mime_part again;

	if (mime_summary_part(seen->s, path, depth, &again) != 1 || again.body_off != part->body_off || again.body_len != part->body_len)
		abort();
	if (part->body_off + part->body_len > seen->s->size || strlen(part->type) > 64 * 1024)
		abort();
	return ++seen->n < 1000;
}

static void read_all(const struct buf *summary)
{
	static const uint32_t paths[][4] = { { 1, 1, 1, 1 }, { 2, 1, 2, 1 }, { 0, 1, 0, 0 }, { 4000000000u, 1, 0, 0 } };
	struct mime_summary s;
	struct mime_part part;
	struct seen seen = { &s, 0 };
	struct mime_field f;
	size_t pos = 0, i, d;

	if (mime_summary_open(summary->data, summary->len, &s))
		return;
	mime_summary_each_leaf(&s, leaf, &seen);
	for (i = 0; i < 4; i++)
		for (d = 0; d <= 4; d++)
			mime_summary_part(&s, paths[i], d, &part);
	while (mime_header_next(s.headers, s.headers_len, &pos, &f))
		if (f.name_len + f.value_len > f.raw_len)
			abort();
}

/* Header lines put in front: refused, or a summary of so many bytes more. */
static void prepended(const struct buf *summary, const char *prefix, size_t len)
{
	struct buf longer = BUF_INIT(0);
	struct mime_summary s, t;
	bool ok = !mime_summary_open(summary->data, summary->len, &s);

	if (mime_summary_prepend(summary->data, summary->len, prefix, len, &longer) == 0) {
		if (!ok || mime_summary_open(longer.data, longer.len, &t) || t.size != s.size + len)
			abort();
		read_all(&longer);
	}
	buf_free(&longer);
}

static void same(const struct mime_limits *l, const uint8_t *data, size_t size, size_t cut)
{
	struct buf whole = BUF_INIT(0), pieces = BUF_INIT(0);
	struct mime_summary s;

	parse(l, data, size, 0, &whole);
	parse(l, data, size, cut + 1, &pieces);
	if (whole.len != pieces.len || memcmp(whole.data, pieces.data, whole.len))
		abort();
	if (mime_summary_open(whole.data, whole.len, &s) || s.size != size || s.bodystructure[s.bodystructure_len - 1] != ')')
		abort();
	if (l && whole.len > 2 * l->max_summary)
		abort();
	read_all(&whole);
	prepended(&whole, "Return-Path: <a@b>\r\nDelivered-To: c\r\n", 37);
	buf_free(&whole);
	buf_free(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf b = BUF_INIT(0);

	if (!size)
		return 0;
	if (data[0] & 0x80) {
		buf_add(&b, data + 1, size - 1);
		if (b.len) {
			read_all(&b);
			prepended(&b, "Subject: x\n", 11);
			prepended(&b, (const char *)data + 1 + (size - 1) / 2, size - 1 - (size - 1) / 2);
		}
		buf_free(&b);
		return 0;
	}
	same(NULL, data + 1, size - 1, data[0]);
	same(&tight, data + 1, size - 1, data[0]);
	return 0;
}
