/* Content-Transfer-Encodings, decoding as a stream (RFC 2045 section 6). */
#include "mime/mime-private.h"

#include "base/mem.h"

enum { BLANKS_MAX = 256, UU_LINE_MAX = 128 };

struct mime_cte {
	enum mime_encoding enc;
	/* base64 */
	uint32_t bits;
	unsigned n;
	/* quoted-printable */
	enum { QP_TEXT, QP_EQUAL, QP_HEX, QP_SOFT } qp;
	unsigned char first;			/* QP_HEX: the first digit */
	unsigned char blanks[BLANKS_MAX];	/* white space (and CR) that may end a line */
	size_t n_blanks;
	/* uuencode */
	bool inside;
	unsigned char line[UU_LINE_MAX];
	size_t n_line;
};

struct mime_cte *mime_cte_new(enum mime_encoding enc)
{
	struct mime_cte *c = MEM_NEW(struct mime_cte);

	c->enc = enc;
	return c;
}

void mime_cte_free(struct mime_cte **c)
{
	free(*c);
	*c = NULL;
}

int hex_digit(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* -1: not of the alphabet */
static const signed char base64_value[256] = {
	-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
	-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 62, -1, -1, -1, 63, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, -1, -1, -1, -1, -1, -1,
	-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, -1, -1, -1, -1, -1,
	-1, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, -1, -1, -1, -1, -1,
	-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
	-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
	-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
	-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
};

/* A "=" ends a group and what follows begins anew: some senders encode line
 * by line and concatenate. */
void base64_feed(struct buf *out, const unsigned char *s, size_t len, uint32_t *bits, unsigned *n)
{
	const unsigned char *end = s + len;
	unsigned char *o = buf_reserve(out, len / 4 * 3 + 3), *first = o;
	int v;

	if (!o)
		return;
	for (; s < end; s++) {
		while (!*n && end - s >= 4) {
			int a = base64_value[s[0]], b = base64_value[s[1]], c = base64_value[s[2]], d = base64_value[s[3]];

			if ((a | b | c | d) < 0)
				break;
			*o++ = (unsigned char)(a << 2 | b >> 4);
			*o++ = (unsigned char)(b << 4 | c >> 2);
			*o++ = (unsigned char)(c << 6 | d);
			s += 4;
		}
		if (s == end)
			break;
		v = base64_value[*s];
		if (v < 0) {
			if (*s == '=')
				*n = 0;
			continue;
		}
		*bits = *bits << 6 | (uint32_t)v;
		if (*n)
			*o++ = (unsigned char)(*bits >> (6 - 2 * *n));
		*n = (*n + 1) & 3;
	}
	out->len += (size_t)(o - first);
	out->data[out->len] = '\0';
}

static void qp_flush_blanks(struct mime_cte *c, struct buf *out)
{
	buf_add(out, c->blanks, c->n_blanks);
	c->n_blanks = 0;
}

static void qp_hold(struct mime_cte *c, unsigned char ch, struct buf *out)
{
	if (c->n_blanks == BLANKS_MAX)
		qp_flush_blanks(c, out);
	c->blanks[c->n_blanks++] = ch;
}

/* White space before a line end was added in transport (rule 3): it goes, the
 * line end stays as it came. */
static void qp_newline(struct mime_cte *c, struct buf *out)
{
	if (c->n_blanks && c->blanks[c->n_blanks - 1] == '\r')
		buf_addc(out, '\r');
	buf_addc(out, '\n');
	c->n_blanks = 0;
}

static bool qp_is_blank(unsigned char ch)
{
	return ch == ' ' || ch == '\t' || ch == '\r';
}

static void qp_text(struct mime_cte *c, unsigned char ch, struct buf *out)
{
	if (qp_is_blank(ch)) {
		qp_hold(c, ch, out);
	} else if (ch == '\n') {
		qp_newline(c, out);
	} else {
		qp_flush_blanks(c, out);
		if (ch == '=')
			c->qp = QP_EQUAL;
		else
			buf_addc(out, ch);
	}
}

/* After "=" and what may have come behind it. */
static void qp_escape(struct mime_cte *c, unsigned char ch, struct buf *out)
{
	int hi, lo;

	switch (c->qp) {
	case QP_EQUAL:
		if (ch == '\n') {
			c->qp = QP_TEXT;
		} else if (qp_is_blank(ch)) {
			c->qp = QP_SOFT;
			qp_hold(c, ch, out);
		} else if (hex_digit(ch) >= 0) {
			c->qp = QP_HEX;
			c->first = ch;
		} else {	/* "=" that means nothing stands for itself */
			buf_addc(out, '=');
			c->qp = QP_TEXT;
			qp_text(c, ch, out);
		}
		break;
	case QP_HEX:
		hi = hex_digit(c->first);
		lo = hex_digit(ch);
		c->qp = QP_TEXT;
		if (lo >= 0) {
			buf_addc(out, hi << 4 | lo);
			break;
		}
		buf_addc(out, '=');
		buf_addc(out, c->first);
		qp_text(c, ch, out);
		break;
	default:	/* QP_SOFT: white space up to the line end goes with the "=" */
		if (ch == '\n') {
			c->n_blanks = 0;
			c->qp = QP_TEXT;
		} else if (qp_is_blank(ch) && c->n_blanks < BLANKS_MAX) {
			qp_hold(c, ch, out);
		} else {
			buf_addc(out, '=');
			c->qp = QP_TEXT;
			qp_text(c, ch, out);
		}
		break;
	}
}

static void qp_feed(struct mime_cte *c, const unsigned char *s, size_t len, struct buf *out)
{
	const unsigned char *end = s + len, *run;

	while (s < end) {
		if (c->qp != QP_TEXT) {
			qp_escape(c, *s++, out);
			continue;
		}
		for (run = s; s < end && *s > ' ' && *s != '='; s++)
			;
		if (s > run) {
			qp_flush_blanks(c, out);
			buf_add(out, run, (size_t)(s - run));
		}
		if (s < end)
			qp_text(c, *s++, out);
	}
}

/* One line, without its end: "begin 644 name", data, "end". */
static void uu_line(struct mime_cte *c, struct buf *out)
{
	const unsigned char *s = c->line, *end = s + c->n_line;
	unsigned n;

	if (c->n_line && end[-1] == '\r')
		end--;
	if (!c->inside) {
		c->inside = end - s > 6 && !memcmp(s, "begin ", 6) && s[6] >= '0' && s[6] <= '7';
		return;
	}
	if (end - s == 3 && !memcmp(s, "end", 3)) {
		c->inside = false;
		return;
	}
	if (s == end || *s < ' ' || *s > '`')
		return;
	for (n = (unsigned)(*s++ - ' ') & 63; n > 0; s += 4) {
		unsigned v[4], i;

		for (i = 0; i < 4; i++)		/* a line may have lost its trailing spaces */
			v[i] = s + i < end ? (unsigned)(s[i] - ' ') & 63 : 0;
		buf_addc(out, (int)(v[0] << 2 | v[1] >> 4));
		if (n > 1)
			buf_addc(out, (int)((v[1] << 4 | v[2] >> 2) & 255));
		if (n > 2)
			buf_addc(out, (int)((v[2] << 6 | v[3]) & 255));
		n -= n > 3 ? 3 : n;
		if (s + 4 > end)
			break;
	}
}

static void uu_feed(struct mime_cte *c, const unsigned char *s, size_t len, struct buf *out)
{
	size_t i;

	for (i = 0; i < len; i++) {
		if (s[i] == '\n') {
			uu_line(c, out);
			c->n_line = 0;
		} else if (c->n_line < UU_LINE_MAX) {
			c->line[c->n_line++] = s[i];
		}
	}
}

void mime_cte_feed(struct mime_cte *c, const void *data, size_t len, struct buf *out)
{
	switch (c->enc) {
	case MIME_BASE64:
		base64_feed(out, data, len, &c->bits, &c->n);
		break;
	case MIME_QP:
		qp_feed(c, data, len, out);
		break;
	case MIME_UUENCODE:
		uu_feed(c, data, len, out);
		break;
	default:
		buf_add(out, data, len);
		break;
	}
}

void mime_cte_finish(struct mime_cte *c, struct buf *out)
{
	if (c->enc == MIME_UUENCODE) {
		uu_line(c, out);
		c->n_line = 0;
	}
	if (c->enc != MIME_QP)
		return;
	if (c->qp == QP_HEX) {
		buf_addc(out, '=');
		buf_addc(out, c->first);
	}
	c->qp = QP_TEXT;	/* "=" at the very end is a soft line break */
	c->n_blanks = 0;
}
