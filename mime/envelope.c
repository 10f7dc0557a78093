/* ENVELOPE (RFC 3501 section 7.4.2, RFC 9051 section 7.5.2). */
#include "mime/mime-private.h"

/* One structure list from every field of that kind; false when some did not fit. */
static bool put_addresses(const char *header, const struct hindex *ix, enum field_id id, struct buf *out, size_t max)
{
	size_t start = out->len, i;
	bool whole = true;

	buf_addc(out, '(');
	for (i = 0; i < ix->n; i++)
		if (ix->f[i].id == id)
			whole &= address_render(header + ix->f[i].value, ix->f[i].value_len, out, max);
	if (out->len == start + 1) {
		buf_truncate(out, start);
		buf_add(out, "NIL", 3);
	} else {
		buf_addc(out, ')');
	}
	return whole;
}

/* The last one of that kind: a later field is what other servers show, too. */
static bool put_text(const char *header, const struct hindex *ix, enum field_id id, struct buf *out, size_t max)
{
	size_t i;

	for (i = ix->n; i-- > 0;) {
		const struct hindex_field *f = &ix->f[i];

		if (f->id != id)
			continue;
		if (max && (out->len > max || f->value_len > max - out->len)) {
			mime_imap_string(out, NULL, 0);
			return false;
		}
		if (id == F_SUBJECT)
			imap_for_humans(out, header + f->value, f->value_len);
		else
			imap_unfolded(out, header + f->value, f->value_len);
		return true;
	}
	mime_imap_string(out, NULL, 0);
	return true;
}

/* Sender and Reply-To are From where they are absent or empty. */
static bool put_or_from(const char *header, const struct hindex *ix, enum field_id id, struct buf *out, size_t max,
	size_t from, size_t from_len)
{
	size_t start = out->len;
	bool whole = put_addresses(header, ix, id, out, max);
	void *p;

	if (out->len - start == 3 && !out->failed) {
		buf_truncate(out, start);
		p = buf_reserve(out, from_len);
		if (p) {
			memcpy(p, out->data + from, from_len);
			out->len += from_len;
		}
	}
	return whole;
}

bool envelope_render(const char *header, const struct hindex *ix, struct buf *out, size_t max)
{
	size_t from, from_len, share = max / 8;
	bool ok;

#define CEILING (max ? out->len + share : 0)
	buf_addc(out, '(');
	ok = put_text(header, ix, F_DATE, out, CEILING);
	buf_addc(out, ' ');
	ok &= put_text(header, ix, F_SUBJECT, out, CEILING);
	buf_addc(out, ' ');
	from = out->len;
	ok &= put_addresses(header, ix, F_FROM, out, CEILING);
	from_len = out->len - from;
	buf_addc(out, ' ');
	ok &= put_or_from(header, ix, F_SENDER, out, CEILING, from, from_len);
	buf_addc(out, ' ');
	ok &= put_or_from(header, ix, F_REPLY_TO, out, CEILING, from, from_len);
	buf_addc(out, ' ');
	share = max / 4;
	ok &= put_addresses(header, ix, F_TO, out, CEILING);
	share = max / 8;
	buf_addc(out, ' ');
	ok &= put_addresses(header, ix, F_CC, out, CEILING);
	buf_addc(out, ' ');
	ok &= put_addresses(header, ix, F_BCC, out, CEILING);
	buf_addc(out, ' ');
	share = max / 16;
	ok &= put_text(header, ix, F_IN_REPLY_TO, out, CEILING);
	buf_addc(out, ' ');
	ok &= put_text(header, ix, F_MESSAGE_ID, out, CEILING);
	buf_addc(out, ')');
#undef CEILING
	return ok;
}

void mime_envelope(const void *header, size_t len, struct buf *out)
{
	struct hindex ix = { 0 };

	hindex_build(&ix, header, len, false);
	envelope_render(header, &ix, out, 0);
	hindex_free(&ix);
}
