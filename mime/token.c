/* Lexical analysis of structured field bodies, forgiving where mail is. */
#include "mime/mime-private.h"

#define A CH_ATEXT
#define T CH_TSPECIAL
#define W CH_LWSP
const unsigned char tok_class[256] = {
	['\t'] = W, ['\n'] = W, ['\r'] = W, [' '] = W,
	['!'] = A, ['#' ... '\''] = A, ['*' ... '+'] = A, ['-'] = A, ['/'] = A | T, ['0' ... '9'] = A, ['='] = A | T, ['?'] = A | T,
	['A' ... 'Z'] = A, ['^' ... '~'] = A, [0x80 ... 0xff] = A,
};

/* "(" ... ")" with nesting and quoted pairs.  False when it does not end. */
static bool skip_comment(struct tok *t)
{
	unsigned level = 1;

	if (t->comment)
		buf_clear(t->comment);
	for (t->p++; t->p < t->end; t->p++) {
		unsigned char c = *t->p;

		if (c == '(') {
			level++;
		} else if (c == ')') {
			if (!--level) {
				t->p++;
				return true;
			}
		} else if (c == '\\') {
			if (t->p + 1 == t->end)
				break;
			c = *++t->p;
		} else if (c == '\r' && t->p + 1 < t->end && t->p[1] == '\n') {
			continue;
		} else if (c == '\n') {
			continue;
		}
		if (t->comment)
			buf_addc(t->comment, c);
	}
	t->p = t->end;
	if (t->comment)
		buf_clear(t->comment);
	return false;
}

int tok_cfws(struct tok *t)
{
	while (t->p < t->end) {
		if (tok_class[*t->p] & CH_LWSP)
			t->p++;
		else if (*t->p != '(')
			return 1;
		else if (!skip_comment(t))
			return -1;
	}
	return 0;
}

int tok_atom(struct tok *t, struct buf *out)
{
	const unsigned char *start = t->p;

	while (t->p < t->end && tok_is_atext(*t->p))
		t->p++;
	if (t->p == start)
		return -1;
	buf_add(out, start, (size_t)(t->p - start));
	return tok_cfws(t);
}

int tok_quoted(struct tok *t, struct buf *out)
{
	const unsigned char *start = ++t->p;

	for (; t->p < t->end; t->p++) {
		switch (*t->p) {
		case '"':
			buf_add(out, start, (size_t)(t->p - start));
			t->p++;
			return tok_cfws(t);
		case '\n':
			buf_add(out, start, (size_t)(t->p - start) - (t->p > start && t->p[-1] == '\r'));
			start = t->p + 1;
			break;
		case '\\':
			if (t->p + 1 == t->end)
				return -1;
			buf_add(out, start, (size_t)(t->p - start));
			start = ++t->p;
			break;
		default:
			break;
		}
	}
	return -1;
}

/* A run of atext and dots, perhaps empty. */
static int atom_or_dot(struct tok *t, struct buf *out)
{
	const unsigned char *start = t->p;

	while (t->p < t->end && (tok_is_atext(*t->p) || *t->p == '.'))
		t->p++;
	buf_add(out, start, (size_t)(t->p - start));
	return tok_cfws(t);
}

int tok_phrase(struct tok *t, struct buf *out)
{
	int ret;

	if (t->p == t->end)
		return 0;
	if (*t->p == '.')
		return -1;
	for (;;) {
		ret = *t->p == '"' ? tok_quoted(t, out) : atom_or_dot(t, out);
		if (ret <= 0)
			return ret;
		if (!tok_is_atext(*t->p) && *t->p != '"' && *t->p != '.')
			return 1;
		buf_addc(out, ' ');
	}
}

int tok_local_part(struct tok *t, struct buf *out)
{
	const unsigned char *start;
	int ret;

	if (t->p == t->end || (!tok_is_atext(*t->p) && *t->p != '.'))
		return -1;
	for (;;) {
		start = t->p;
		while (t->p < t->end && (tok_is_atext(*t->p) || *t->p == '.'))
			t->p++;
		buf_add(out, start, (size_t)(t->p - start));
		if (t->p[-1] == '.') {
			if (t->p == t->end || *t->p == '@')
				return t->p < t->end;
			(void)tok_cfws(t);
			if (t->comment)
				buf_clear(t->comment);
			return -1;
		}
		ret = tok_cfws(t);
		if (ret <= 0 || *t->p != '.')
			return ret;
	}
}

int tok_obs_local_part(struct tok *t, struct buf *out)
{
	int ret;

	for (;;) {
		ret = t->p < t->end && *t->p == '"' ? tok_quoted(t, out) : tok_atom(t, out);
		if (ret <= 0 || *t->p != '.')
			return ret;
		buf_addc(out, '.');
		t->p++;
		if (tok_cfws(t) <= 0)
			return -1;
	}
}

/* atom *("." atom), CFWS round the dots dropped (obs-domain). */
static int dot_atom(struct tok *t, struct buf *out)
{
	int ret;

	for (;;) {
		ret = tok_atom(t, out);
		if (ret <= 0 || *t->p != '.')
			return ret;
		buf_addc(out, '.');
		t->p++;
		if (tok_cfws(t) <= 0)
			return -1;
	}
}

/* "[" ... "]": kept with its brackets, CFWS inside as it is. */
static int domain_literal(struct tok *t, struct buf *out)
{
	const unsigned char *start = t->p;

	for (t->p++; t->p < t->end; t->p++) {
		if (*t->p == '\\' && t->p + 1 < t->end) {
			t->p++;
		} else if (*t->p == ']') {
			t->p++;
			buf_add(out, start, (size_t)(t->p - start));
			return tok_cfws(t);
		} else if (*t->p == '[') {
			break;
		}
	}
	return -1;
}

int tok_domain(struct tok *t, struct buf *out)
{
	t->p++;
	if (tok_cfws(t) <= 0)
		return -1;
	if (*t->p == '[')
		return domain_literal(t, out);
	return dot_atom(t, out);
}

int tok_mime_token(struct tok *t, struct buf *out)
{
	const unsigned char *start = t->p;

	while (t->p < t->end && ((tok_class[*t->p] & (CH_ATEXT | CH_TSPECIAL)) == CH_ATEXT || *t->p == '.'))
		t->p++;
	buf_add(out, start, (size_t)(t->p - start));
	return tok_cfws(t);
}

bool ascii_is(const char *s, size_t len, const char *word)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (!word[i] || ascii_lower((unsigned char)s[i]) != ascii_lower((unsigned char)word[i]))
			return false;
	return !word[len];
}
