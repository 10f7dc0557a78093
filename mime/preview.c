/* Preview text (RFC 8970): the first readable words of a message. */
#include "mime/mime-private.h"

#include "base/mem.h"

enum { CHARS_MAX = 256, FIRST_TRY = 1024 };

/* Collects characters: white space becomes single spaces, controls vanish. */
struct sink {
	unsigned char text[4 * CHARS_MAX + 1];	/* and the NUL of struct buf */
	size_t len;
	uint32_t left;		/* characters */
	bool space;		/* one is due before the next character */
};

static void sink_start(struct sink *k, uint32_t chars)
{
	k->len = 0;
	k->left = chars < CHARS_MAX ? chars : CHARS_MAX;
	k->space = false;
}

static void sink_utf8(struct sink *k, uint32_t c)
{
	struct buf b = { k->text + k->len, 0, sizeof(k->text) - k->len, sizeof(k->text) - k->len - 1, false };

	if (c < 0x80) {
		k->text[k->len++] = (unsigned char)c;
	} else {
		utf8_put(&b, c);
		k->len += b.len;
	}
}

static void sink_put(struct sink *k, uint32_t c)
{
	if (c <= ' ' || c == 0xa0 || c == 0x3000 || (c >= 0x2000 && c <= 0x200b) || c == 0x2028 || c == 0x2029) {
		k->space = k->len > 0;
		return;
	}
	if ((c >= 0x7f && c < 0xa0) || c == 0xfeff || c == 0xad || c == 0x200c || c == 0x200d || c == 0x34f || !k->left)
		return;
	if (k->space) {
		k->text[k->len++] = ' ';
		k->space = false;
		if (!--k->left)
			return;
	}
	sink_utf8(k, c);
	k->left--;
}

/* --- plain text --- */

/* Lines of a quoted message say little about this one. */
static bool is_quoted(const unsigned char *s, const unsigned char *end)
{
	while (s < end && (*s == ' ' || *s == '\t'))
		s++;
	return s < end && *s == '>';
}

static void put_plain(struct sink *k, const unsigned char *s, size_t len, bool quoted)
{
	const unsigned char *end = s + len, *line_end;
	size_t n;

	while (s < end && k->left) {
		line_end = memchr(s, '\n', (size_t)(end - s));
		line_end = line_end ? line_end + 1 : end;
		if (!quoted && is_quoted(s, line_end)) {
			s = line_end;
			continue;
		}
		if (line_end - s >= 3 && !memcmp(s, "-- ", 3) && (line_end - s == 3 || s[3] == '\r' || s[3] == '\n'))
			return;		/* the signature */
		for (; s < line_end && k->left; s += n) {
			n = utf8_length(s, (size_t)(line_end - s));
			sink_put(k, n ? utf8_get(s, n) : 0xfffd);
			n += !n;
		}
		s = line_end;
		k->space = k->len > 0;
	}
}

/* --- HTML --- */

static const struct {
	char name[7];
	uint16_t c;
} entities[] = {
	{ "amp", '&' }, { "lt", '<' }, { "gt", '>' }, { "quot", '"' }, { "apos", '\'' }, { "nbsp", 0xa0 }, { "copy", 0xa9 },
	{ "reg", 0xae }, { "shy", 0xad }, { "auml", 0xe4 }, { "ouml", 0xf6 }, { "uuml", 0xfc }, { "Auml", 0xc4 }, { "Ouml", 0xd6 },
	{ "Uuml", 0xdc }, { "szlig", 0xdf }, { "agrave", 0xe0 }, { "aacute", 0xe1 }, { "acirc", 0xe2 }, { "ccedil", 0xe7 },
	{ "egrave", 0xe8 }, { "eacute", 0xe9 }, { "ecirc", 0xea }, { "iacute", 0xed }, { "ntilde", 0xf1 }, { "oacute", 0xf3 },
	{ "ocirc", 0xf4 }, { "ndash", 0x2013 }, { "mdash", 0x2014 }, { "lsquo", 0x2018 }, { "rsquo", 0x2019 }, { "ldquo", 0x201c },
	{ "rdquo", 0x201d }, { "bull", 0x2022 }, { "hellip", 0x2026 }, { "euro", 0x20ac }, { "trade", 0x2122 }, { "zwnj", 0x200c },
};

/* "&name;" or "&#n;" at s; its length to *n.  False: just an ampersand. */
static bool entity(const unsigned char *s, const unsigned char *end, uint32_t *c, size_t *n)
{
	const unsigned char *semi = memchr(s, ';', (size_t)(end - s) < 12 ? (size_t)(end - s) : 12), *p = s + 1;
	uint32_t v = 0;
	size_t i;

	if (!semi)
		return false;
	*n = (size_t)(semi - s) + 1;
	if (*p != '#') {
		for (i = 0; i < MEM_COUNT(entities); i++)
			if (strlen(entities[i].name) == (size_t)(semi - p) && !memcmp(p, entities[i].name, (size_t)(semi - p))) {
				*c = entities[i].c;
				return true;
			}
		return false;
	}
	if (++p < semi && (*p == 'x' || *p == 'X')) {
		for (p++; p < semi && hex_digit(*p) >= 0; p++)
			v = v << 4 | (uint32_t)hex_digit(*p);
	} else {
		for (; p < semi && *p >= '0' && *p <= '9' && v < 0x200000; p++)
			v = v * 10 + (*p - '0');
	}
	if (p != semi || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
		return false;
	*c = v;
	return true;
}

static const unsigned char *find(const unsigned char *s, const unsigned char *end, const char *what)
{
	size_t n = strlen(what);

	for (; s < end && (size_t)(end - s) >= n; s++)
		if (ascii_is((const char *)s, n, what))
			return s;
	return end;
}

/* Skips the tag at s, and for elements without text what is in them. */
static const unsigned char *skip_tag(const unsigned char *s, const unsigned char *end, bool *inlined)
{
	static const char *const silent[] = { "style", "script", "head", "title", "noscript", "template" };
	static const char *const within[] = { "b", "i", "u", "em", "strong", "span", "a", "font", "small", "big", "sub", "sup", "code" };
	const unsigned char *name = s + 1, *p, *gt;
	char closing[16];
	size_t len, i;

	*inlined = false;
	if (end - s >= 4 && !memcmp(s, "<!--", 4)) {
		p = find(s + 4, end, "-->");
		return p == end ? end : p + 3;
	}
	gt = memchr(s, '>', (size_t)(end - s));
	if (!gt)
		return end;
	if (*name == '/')
		name++;
	for (len = 0; name + len < gt && (tok_class[name[len]] & CH_ATEXT) && name[len] != '/'; len++)
		;
	for (i = 0; i < MEM_COUNT(within); i++)
		*inlined |= ascii_is((const char *)name, len, within[i]);
	for (i = 0; i < MEM_COUNT(silent) && name == s + 1; i++) {
		if (!ascii_is((const char *)name, len, silent[i]) || gt[-1] == '/')
			continue;
		snprintf(closing, sizeof(closing), "</%s", silent[i]);
		p = find(gt + 1, end, closing);
		gt = p == end ? NULL : memchr(p, '>', (size_t)(end - p));
		return gt ? gt + 1 : end;
	}
	return gt + 1;
}

static void put_html(struct sink *k, const unsigned char *s, size_t len)
{
	const unsigned char *end = s + len;
	bool inlined;
	uint32_t c;
	size_t n;

	while (s < end && k->left) {
		if (*s == '<' && s + 1 < end && (tok_is_atext(s[1]) || s[1] == '/' || s[1] == '!')) {
			s = skip_tag(s, end, &inlined);
			if (!inlined)
				k->space = k->len > 0;
			continue;
		}
		if (*s == '&' && entity(s, end, &c, &n)) {
			sink_put(k, c);
			s += n;
			continue;
		}
		n = utf8_length(s, (size_t)(end - s));
		sink_put(k, n ? utf8_get(s, n) : 0xfffd);
		s += n ? n : 1;
	}
}

static void render(const void *raw, size_t len, enum mime_encoding enc, const char *charset, bool html, uint32_t chars, struct sink *k)
{
	struct mime_cte *cte = mime_cte_new(enc);
	struct mime_charset *cs = mime_charset_new(charset);
	struct buf plain = BUF_INIT(0), text = BUF_INIT(0);

	sink_start(k, chars);
	mime_cte_feed(cte, raw, len, &plain);
	if (plain.len)
		mime_charset_feed(cs, plain.data, plain.len, &text);
	if (text.len && html) {
		put_html(k, text.data, text.len);
	} else if (text.len) {
		put_plain(k, text.data, text.len, false);
		if (!k->len) {
			sink_start(k, chars);
			put_plain(k, text.data, text.len, true);
		}
	}
	mime_cte_free(&cte);
	mime_charset_free(&cs);
	buf_free(&plain);
	buf_free(&text);
}

void preview_render(const void *raw, size_t len, enum mime_encoding enc, const char *charset, bool html, uint32_t chars,
	struct buf *out)
{
	struct sink k;

	if (!len)
		return;
	render(raw, len < FIRST_TRY ? len : FIRST_TRY, enc, charset, html, chars, &k);
	if (k.left && len > FIRST_TRY)
		render(raw, len, enc, charset, html, chars, &k);
	while (k.len && k.text[k.len - 1] == ' ')
		k.len--;
	buf_add(out, k.text, k.len);
}
