#include "daemon/imap/lex.h"

#include <stdarg.h>
#include <strings.h>

#include "base/mem.h"
#include "daemon/imap/utf7.h"
#include "mime/mime.h"

void lex_init(struct lex *lx, struct arena *arena, const void *cmd, size_t len, bool utf8)
{
	memset(lx, 0, sizeof(*lx));
	lx->start = lx->p = cmd;
	lx->end = lx->p + len;
	lx->arena = arena;
	lx->utf8 = utf8;
}

bool lex_fail(struct lex *lx, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	if (lx->failed)
		return false;
	lx->failed = true;
	va_start(ap, fmt);
	vsnprintf(lx->error, sizeof(lx->error), fmt, ap);
	va_end(ap);
	n = strlen(lx->error);
	snprintf(lx->error + n, sizeof(lx->error) - n, " (at octet %zu of the command)", (size_t)(lx->p - lx->start) + 1);
	return false;
}

bool lex_at(const struct lex *lx, char c)
{
	return !lx->failed && lx->p < lx->end && *lx->p == (unsigned char)c;
}

bool lex_at_end(const struct lex *lx)
{
	return lx->p == lx->end;
}

bool lex_char(struct lex *lx, char c)
{
	if (!lex_at(lx, c))
		return lex_fail(lx, "'%c' is expected", c);
	lx->p++;
	return true;
}

bool lex_sp(struct lex *lx)
{
	if (!lex_at(lx, ' '))
		return lex_fail(lx, lex_at_end(lx) ? "The command is incomplete" : "A space is expected");
	lx->p++;
	if (lex_at(lx, ' '))
		return lex_fail(lx, "One space too many");
	return !lx->failed;
}

bool lex_end(struct lex *lx)
{
	if (lx->failed)
		return false;
	return lex_at_end(lx) || lex_fail(lx, "Nothing more is expected");
}

/* Character classes of the formal syntax. */
static bool is_atom(unsigned char c)
{
	return c > 0x20 && c < 0x7f && !strchr("(){%*\"\\]", c);
}

static bool is_astring(unsigned char c)
{
	return is_atom(c) || c == ']';
}

static bool is_list(unsigned char c)
{
	return is_astring(c) || c == '%' || c == '*';
}

static bool is_tag(unsigned char c)
{
	return is_astring(c) && c != '+';
}

static size_t run(const struct lex *lx, bool (*in)(unsigned char))
{
	const unsigned char *p = lx->p;

	while (p < lx->end && in(*p))
		p++;
	return (size_t)(p - lx->p);
}

bool lex_word_is(struct lex *lx, const char *word)
{
	size_t n = strlen(word);

	if (lx->failed || (size_t)(lx->end - lx->p) < n || strncasecmp((const char *)lx->p, word, n))
		return false;
	if (lx->p + n < lx->end && is_atom(lx->p[n]) && lx->p[n] != '[' && lx->p[n] != '<')
		return false;
	lx->p += n;
	return true;
}

static bool take_run(struct lex *lx, bool (*in)(unsigned char), const char *what, char **out)
{
	size_t n = lx->failed ? 0 : run(lx, in);

	if (!n)
		return lex_fail(lx, "%s is expected", what);
	*out = arena_strndup(lx->arena, lx->p, n);
	lx->p += n;
	return true;
}

bool lex_tag(struct lex *lx, char **out)
{
	return take_run(lx, is_tag, "A tag", out);
}

bool lex_atom(struct lex *lx, const char *what, char **out)
{
	return take_run(lx, is_atom, what, out);
}

static bool take_quoted(struct lex *lx, char **out, size_t *len_r)
{
	const unsigned char *p = lx->p + 1;
	char *s, *to;

	while (p < lx->end && *p != '"')
		p += *p == '\\' ? 2 : 1;
	if (p >= lx->end)
		return lex_fail(lx, "The closing quote is missing");
	s = to = arena_alloc(lx->arena, (size_t)(p - lx->p));
	for (lx->p++; *lx->p != '"'; lx->p++) {
		if (*lx->p == '\\' && *++lx->p != '"' && *lx->p != '\\')
			return lex_fail(lx, "In a quoted string only \\\" and \\\\ may follow a backslash");
		if (*lx->p == '\r' || *lx->p == '\n' || !*lx->p)
			return lex_fail(lx, "A quoted string cannot hold CR, LF or NUL");
		*to++ = (char)*lx->p;
	}
	lx->p++;
	*out = s;
	*len_r = (size_t)(to - s);
	return true;
}

/* "{5}" or "{5+}", line end, five octets.  The reader has seen to the line
 * end and the octets where this is the end of a line. */
static bool take_literal(struct lex *lx, char **out, size_t *len_r)
{
	const unsigned char *p = lx->p + 1;
	uint64_t n = 0;

	while (p < lx->end && *p >= '0' && *p <= '9' && n <= UINT32_MAX)
		n = n * 10 + (uint64_t)(*p++ - '0');
	if (p < lx->end && *p == '+')
		p++;
	if (p == lx->p + 1 || p >= lx->end || *p++ != '}')
		return lex_fail(lx, "This is not a literal");
	if (p < lx->end && *p == '\r')
		p++;
	if (p >= lx->end || *p++ != '\n' || (uint64_t)(lx->end - p) < n)
		return lex_fail(lx, "A literal must end its line");
	if (memchr(p, '\0', (size_t)n))
		return lex_fail(lx, "A literal here cannot hold NUL");
	*out = arena_strndup(lx->arena, p, (size_t)n);
	*len_r = (size_t)n;
	lx->p = p + n;
	return true;
}

bool lex_string(struct lex *lx, const char *what, char **out, size_t *len_r)
{
	if (lex_at(lx, '"'))
		return take_quoted(lx, out, len_r);
	if (lex_at(lx, '{'))
		return take_literal(lx, out, len_r);
	return lex_fail(lx, "%s is expected: a quoted string or a literal", what);
}

bool lex_astring(struct lex *lx, const char *what, char **out, size_t *len_r)
{
	size_t len;

	if (!len_r)
		len_r = &len;
	if (lex_at(lx, '"') || lex_at(lx, '{'))
		return lex_string(lx, what, out, len_r);
	if (!take_run(lx, is_astring, what, out))
		return false;
	*len_r = strlen(*out);
	return true;
}

bool lex_number(struct lex *lx, const char *what, uint64_t max, uint64_t *out)
{
	uint64_t n = 0;

	if (lx->failed || lx->p == lx->end || *lx->p < '0' || *lx->p > '9')
		return lex_fail(lx, "%s is expected", what);
	for (; lx->p < lx->end && *lx->p >= '0' && *lx->p <= '9'; lx->p++) {
		unsigned d = (unsigned)(*lx->p - '0');

		if (n > (max - d) / 10)
			return lex_fail(lx, "%s is too large", what);
		n = n * 10 + d;
	}
	*out = n;
	return true;
}

bool lex_nz_number(struct lex *lx, const char *what, uint64_t max, uint64_t *out)
{
	if (lex_at(lx, '0'))
		return lex_fail(lx, "%s cannot begin with 0", what);
	return lex_number(lx, what, max, out);
}

/* Appends the UTF-8 of a name as it came; 0 or -1. */
static int name_to_utf8(const struct lex *lx, const char *raw, size_t len, struct buf *out)
{
	if (!lx->utf8)
		return utf7_decode(raw, len, out);
	if (!mime_utf8_valid(raw, len))
		return -1;
	buf_add(out, raw, len);
	return out->failed ? -1 : 0;
}

static bool name_in_arena(struct lex *lx, const char *raw, size_t len, char **out)
{
	struct buf b = BUF_INIT(0);
	int rc = name_to_utf8(lx, raw, len, &b);

	*out = rc < 0 ? NULL : arena_strndup(lx->arena, b.data, b.len);
	buf_free(&b);
	return rc == 0;
}

bool lex_mailbox(struct lex *lx, char **out)
{
	size_t len;
	char *raw;

	if (!lex_astring(lx, "A mailbox name", &raw, &len))
		return false;
	if (!name_in_arena(lx, raw, len, out)) {
		lx->bad_name = !lx->failed;
		return lex_fail(lx, lx->utf8 ? "The mailbox name is not valid UTF-8" :
				"The mailbox name is not valid modified UTF-7 (RFC 3501 section 5.1.3)");
	}
	if (!strcasecmp(*out, "INBOX"))
		*out = arena_strndup(lx->arena, "INBOX", 5);
	return true;
}

bool lex_pattern(struct lex *lx, char **out)
{
	size_t len = 0;
	char *raw = NULL;

	if (lex_at(lx, '"') || lex_at(lx, '{')) {
		if (!lex_string(lx, "A mailbox pattern", &raw, &len))
			return false;
	} else {
		if (!take_run(lx, is_list, "A mailbox pattern", &raw))
			return false;
		len = strlen(raw);
	}
	name_in_arena(lx, raw, len, out);
	return true;
}
