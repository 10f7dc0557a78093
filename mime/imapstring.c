/* Strings of IMAP answers (RFC 3501 and 9051 section 4.3). */
#include "mime/mime-private.h"

/* U+FFFD: neither kind of string can hold a NUL (RFC 9051 section 4.3). */
static const char replacement[] = "\xef\xbf\xbd";

static void put_literal(struct buf *out, const unsigned char *s, size_t len, size_t nuls)
{
	size_t i, start = 0;

	buf_addc(out, '{');
	buf_addu(out, len + nuls * (sizeof(replacement) - 2));
	buf_add(out, "}\r\n", 3);
	for (i = 0; nuls && i < len; i++) {
		if (s[i])
			continue;
		buf_add(out, s + start, i - start);
		buf_add(out, replacement, sizeof(replacement) - 1);
		start = i + 1;
		nuls--;
	}
	buf_add(out, s + start, len - start);
}

static void put_quoted(struct buf *out, const unsigned char *s, size_t len)
{
	size_t i, start = 0;

	buf_addc(out, '"');
	for (i = 0; i < len; i++) {
		if (s[i] != '"' && s[i] != '\\')
			continue;
		buf_add(out, s + start, i - start);
		buf_addc(out, '\\');
		start = i;
	}
	buf_add(out, s + start, len - start);
	buf_addc(out, '"');
}

void mime_imap_string(struct buf *out, const char *str, size_t len)
{
	const unsigned char *s = (const unsigned char *)str;
	bool literal = false, escape = false;
	size_t i, nuls = 0;
	char *p;

	if (!s) {
		buf_add(out, "NIL", 3);
		return;
	}
	for (i = 0; i < len; i++) {
		nuls += !s[i];
		literal |= s[i] >= 0x80 || s[i] == '\r' || s[i] == '\n' || !s[i];
		escape |= s[i] == '"' || s[i] == '\\';
	}
	if (literal) {
		put_literal(out, s, len, nuls);
	} else if (escape) {
		put_quoted(out, s, len);
	} else {
		p = buf_reserve(out, len + 2);
		if (!p)
			return;
		p[0] = '"';
		memcpy(p + 1, s, len);
		p[len + 1] = '"';
		out->len += len + 2;
	}
}

void imap_unfolded(struct buf *out, const void *str, size_t len)
{
	const char *s = str;
	struct buf tmp = BUF_INIT(0);
	size_t i, start = 0, stop;

	if (!memchr(s, '\n', len)) {
		mime_imap_string(out, s, len);
		return;
	}
	for (i = 0; i < len; i++) {
		if (s[i] != '\n')
			continue;
		for (stop = i; stop > start && s[stop - 1] == '\r'; stop--)
			;
		buf_add(&tmp, s + start, stop - start);
		start = i + 1;
	}
	buf_add(&tmp, s + start, len - start);
	mime_imap_string(out, buf_str(&tmp), tmp.len);
	buf_free(&tmp);
}

void imap_for_humans(struct buf *out, const void *str, size_t len)
{
	const unsigned char *s = str;
	struct buf tmp = BUF_INIT(0);
	bool space = true, plain = true;
	size_t i;

	for (i = 0; i < len && plain; i++) {
		plain = !(tok_class[s[i]] & CH_LWSP) || (s[i] == ' ' && !space);
		space = s[i] == ' ';
	}
	if (plain && (!len || !space)) {
		mime_imap_string(out, (const char *)s, len);
		return;
	}
	for (space = false, i = 0; i < len; i++) {
		if (tok_class[s[i]] & CH_LWSP) {
			space = tmp.len > 0;
			continue;
		}
		if (space)
			buf_addc(&tmp, ' ');
		space = false;
		buf_addc(&tmp, s[i]);
	}
	mime_imap_string(out, buf_str(&tmp), tmp.len);
	buf_free(&tmp);
}
