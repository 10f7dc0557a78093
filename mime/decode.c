/* Field bodies to UTF-8: RFC 2047 encoded words, and what people send instead. */
#include "mime/mime-private.h"

struct word {
	const unsigned char *charset, *text, *end;	/* end: behind "?=" */
	size_t charset_len, text_len;
	unsigned char enc;	/* 'q' or 'b' */
};

static bool is_blank(unsigned char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* "=?charset[*language]?B|Q?text?=" at s.  Text with spaces in it is taken:
 * section 2 forbids it, but it occurs and there is nothing else it could mean. */
static bool read_word(const unsigned char *s, const unsigned char *end, struct word *w)
{
	const unsigned char *q, *star, *stop;

	if (end - s < 8 || s[0] != '=' || s[1] != '?')
		return false;
	w->charset = s + 2;
	q = memchr(w->charset, '?', (size_t)(end - w->charset) < 80 ? (size_t)(end - w->charset) : 80);
	if (!q || end - q < 5 || q[2] != '?' || q == w->charset)
		return false;
	star = memchr(w->charset, '*', (size_t)(q - w->charset));
	w->charset_len = (size_t)((star ? star : q) - w->charset);
	w->enc = ascii_lower(q[1]);
	if (w->enc != 'q' && w->enc != 'b')
		return false;
	w->text = q + 3;
	for (stop = w->text; (stop = memchr(stop, '?', (size_t)(end - stop))); stop++)
		if (stop + 1 < end && stop[1] == '=')
			break;
	if (!stop)
		return false;
	w->text_len = (size_t)(stop - w->text);
	w->end = stop + 2;
	return true;
}

/* The bytes of a word in its own charset. */
static void word_bytes(const struct word *w, struct buf *out)
{
	uint32_t bits = 0;
	unsigned n = 0;
	size_t i;

	if (w->enc == 'b') {
		base64_feed(out, w->text, w->text_len, &bits, &n);
		return;
	}
	for (i = 0; i < w->text_len; i++) {
		unsigned char c = w->text[i];

		if (c == '=' && i + 2 < w->text_len && hex_digit(w->text[i + 1]) >= 0 && hex_digit(w->text[i + 2]) >= 0) {
			buf_addc(out, hex_digit(w->text[i + 1]) << 4 | hex_digit(w->text[i + 2]));
			i += 2;
		} else if (c != '\r' && c != '\n') {
			buf_addc(out, c == '_' ? ' ' : c);
		}
	}
}

/* Decoded text: no NUL and no line end gets through, or a header line could
 * be made of a header value. */
static void put_clean(const struct buf *text, struct buf *out)
{
	size_t i, start = 0;

	if (!text->len)
		return;
	for (i = 0; i < text->len; i++) {
		unsigned char c = text->data[i];

		if (c && c != '\r' && c != '\n')
			continue;
		buf_add(out, text->data + start, i - start);
		buf_addc(out, ' ');
		start = i + 1;
	}
	buf_add(out, text->data + start, text->len - start);
}

/* A run of words in one charset is converted as a whole: some senders cut
 * them inside a character.  Gives where the run ends. */
static const unsigned char *decode_run(const unsigned char *end, struct word *w, struct buf *out)
{
	struct buf raw = BUF_INIT(0), text = BUF_INIT(0);
	const unsigned char *stop;
	struct mime_charset *cs;
	struct word next;
	char name[81];

	memcpy(name, w->charset, w->charset_len);
	name[w->charset_len] = '\0';
	for (;;) {
		word_bytes(w, &raw);
		for (stop = w->end; stop < end && is_blank(*stop); stop++)
			;
		if (stop == end || !read_word(stop, end, &next)) {
			stop = w->end;
			break;
		}
		if (!ascii_is((const char *)next.charset, next.charset_len, name))
			break;		/* white space between two words goes, whatever their charsets */
		*w = next;
	}
	cs = mime_charset_new(name);
	mime_charset_feed(cs, buf_str(&raw), raw.len, &text);
	mime_charset_finish(cs, &text);
	mime_charset_free(&cs);
	put_clean(&text, out);
	buf_free(&raw);
	buf_free(&text);
	return stop;
}

/* Text that is not in words, its folds taken out. */
static void put_raw(const unsigned char *s, const unsigned char *end, struct buf *out)
{
	const unsigned char *start = s;

	for (; s < end; s++) {
		if (*s != '\n' && !(*s == '\r' && s + 1 < end && s[1] == '\n'))
			continue;
		utf8_or_latin(out, start, (size_t)(s - start));
		start = s + 1;
	}
	utf8_or_latin(out, start, (size_t)(end - start));
}

void mime_header_decode(const char *value, size_t len, struct buf *out)
{
	const unsigned char *s = (const unsigned char *)value, *end = s + len, *start = s;
	struct word w;

	while (s < end) {
		s = memchr(s, '=', (size_t)(end - s));
		if (!s)
			break;
		if (!read_word(s, end, &w)) {
			s++;
			continue;
		}
		put_raw(start, s, out);
		s = start = decode_run(end, &w, out);
	}
	put_raw(start, end, out);
}
