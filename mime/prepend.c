/* The summary of a message that had header lines put before it (Return-Path,
 * Delivered-To): parts are kept relative to their parent's body, so only the
 * root's header grows. */
#include "mime/mime-private.h"

#include "base/mem.h"

#include <ctype.h>

static bool is_cached_field(const struct mime_field *f)
{
	char name[80];

	if (f->name_len >= sizeof(name))
		return false;
	memcpy(name, f->name, f->name_len);
	name[f->name_len] = '\0';
	return mime_header_is_cached(name);
}

static int cached_lines(const char *prefix, size_t len, struct buf *out)
{
	struct mime_field f;
	size_t pos = 0;

	if (len < 2 || prefix[len - 1] != '\n')
		return -1;
	while (mime_header_next(prefix, len, &pos, &f))
		if (is_cached_field(&f))
			buf_add(out, f.raw, f.raw_len);
	return pos == len ? 0 : -1;
}

/* The parts with the root's header longer by more. */
static int longer_root(const struct mime_summary *s, size_t more, struct buf *out)
{
	struct rd r = rd_init(s->parts, s->parts_len);
	uint8_t head = rd_8(&r);
	uint64_t off = rd_v(&r), header_len = rd_v(&r);

	if (r.failed || off != 0)
		return -1;
	buf_put8(out, head);
	buf_putv(out, off);
	buf_putv(out, header_len + more);
	buf_add(out, r.p, rd_left(&r));
	return 0;
}

int mime_summary_prepend(const void *summary, size_t len, const char *prefix, size_t prefix_len, struct buf *out)
{
	struct buf headers = BUF_INIT(0), parts = BUF_INIT(0);
	struct mime_summary s;
	int rc = mime_summary_open(summary, len, &s);

	if (rc == 0)
		rc = cached_lines(prefix, prefix_len, &headers);
	if (rc == 0 && s.flags & MIME_F_TRUNCATED && !s.headers_len)
		buf_clear(&headers);	/* all of the fields or none */
	if (rc == 0)
		rc = longer_root(&s, prefix_len, &parts);
	if (rc == 0) {
		buf_add(&headers, s.headers, s.headers_len);
		buf_add(out, summary, 3);	/* magic and version */
		buf_putv(out, s.flags);
		buf_putv(out, s.size + prefix_len);
		buf_putv(out, s.header_size + prefix_len);
		buf_put64(out, (uint64_t)s.date);
		buf_put16(out, (uint16_t)s.date_zone);
		buf_putblob(out, s.envelope, s.envelope_len);
		buf_putblob(out, s.bodystructure, s.bodystructure_len);
		buf_putblob(out, s.body, s.body_len);
		buf_putblob(out, s.preview, s.preview_len);
		buf_putblob(out, headers.data, headers.len);
		buf_putblob(out, parts.data, parts.len);
	}
	buf_free(&headers);
	buf_free(&parts);
	return rc;
}
