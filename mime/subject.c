/* Base subject of RFC 5256 section 2.1; the names are those of its ABNF. */
#include "mime/mime-private.h"

/* s[0, len) shrinks from both ends. */
struct subject {
	const char *s;
	size_t len;
};

static void drop_left(struct subject *x, size_t n)
{
	x->s += n;
	x->len -= n;
}

/* Step 1: tabs, continuations and runs of spaces to one space. */
static void squeeze(struct buf *b)
{
	size_t i, n = 0;

	for (i = 0; i < b->len; i++) {
		unsigned char c = b->data[i];

		if (tok_class[c] & CH_LWSP)
			c = ' ';
		if (c == ' ' && n && b->data[n - 1] == ' ')
			continue;
		b->data[n++] = c;
	}
	buf_truncate(b, n);
}

/* Step 2: *( "(fwd)" / WSP ) at the end. */
static void trailers(struct subject *x)
{
	for (;;) {
		if (x->len && x->s[x->len - 1] == ' ')
			x->len--;
		else if (x->len >= 5 && ascii_is(x->s + x->len - 5, 5, "(fwd)"))
			x->len -= 5;
		else
			return;
	}
}

/* Length of a subj-blob at the beginning, 0 when there is none. */
static size_t blob(const struct subject *x)
{
	size_t i;

	if (!x->len || x->s[0] != '[')
		return 0;
	for (i = 1; i < x->len && x->s[i] != ']'; i++)
		if (x->s[i] == '[')
			return 0;
	if (i == x->len)
		return 0;
	for (i++; i < x->len && x->s[i] == ' '; i++)
		;
	return i;
}

/* Length of a subj-refwd at the beginning. */
static size_t refwd(struct subject x)
{
	size_t n, start = x.len;

	if (x.len >= 2 && ascii_is(x.s, 2, "re"))
		n = 2;
	else if (x.len >= 3 && ascii_is(x.s, 3, "fwd"))
		n = 3;
	else if (x.len >= 2 && ascii_is(x.s, 2, "fw"))
		n = 2;
	else
		return 0;
	drop_left(&x, n);
	while (x.len && x.s[0] == ' ')
		drop_left(&x, 1);
	drop_left(&x, blob(&x));
	return x.len && x.s[0] == ':' ? start - x.len + 1 : 0;
}

/* Step 3: a subj-leader; false when there is none. */
static bool leader(struct subject *x)
{
	struct subject y = *x;
	size_t n;

	if (x->len && x->s[0] == ' ') {
		drop_left(x, 1);
		return true;
	}
	while ((n = blob(&y)))
		drop_left(&y, n);
	n = refwd(y);
	if (!n)
		return false;
	drop_left(&y, n);
	*x = y;
	return true;
}

/* Step 4: one subj-blob that leaves something. */
static bool prefix_blob(struct subject *x)
{
	size_t n = blob(x);

	if (!n || n == x->len)
		return false;
	drop_left(x, n);
	return true;
}

/* Step 6 */
static bool forward(struct subject *x)
{
	if (x->len < 6 || !ascii_is(x->s, 5, "[fwd:") || x->s[x->len - 1] != ']')
		return false;
	drop_left(x, 5);
	x->len--;
	return true;
}

void mime_base_subject(const char *value, size_t len, struct buf *out)
{
	struct buf text = BUF_INIT(0);
	struct subject x;

	mime_header_decode(value, len, &text);
	if (text.len)
		squeeze(&text);
	x = (struct subject){ buf_str(&text), text.len };
	do {
		trailers(&x);
		do {
			while (leader(&x))
				;
		} while (prefix_blob(&x));
	} while (forward(&x));
	buf_add(out, x.s, x.len);
	buf_free(&text);
}
