/* The larger words of a command: sets, flags, dates. */
#include "daemon/imap/lex.h"

#include <strings.h>

#include "base/mem.h"
#include "daemon/imap/date.h"
#include "obox/obox.h"

enum { SETS_MAX = 100000 };	/* ranges in one set */

/* seq-number: 0 stands for '*'. */
static bool set_number(struct lex *lx, uint32_t *out)
{
	uint64_t n;

	if (lex_at(lx, '*')) {
		lx->p++;
		*out = 0;
		return true;
	}
	if (!lex_nz_number(lx, "A message number", UINT32_MAX, &n))
		return false;
	*out = (uint32_t)n;
	return true;
}

static size_t count_ranges(const struct lex *lx)
{
	const unsigned char *p = lx->p;
	size_t n = 1;

	for (; p < lx->end && ((*p >= '0' && *p <= '9') || *p == '*' || *p == ':' || *p == ','); p++)
		n += *p == ',';
	return n;
}

static int by_lo(const void *a, const void *b)
{
	const struct seqrange *x = a, *y = b;

	return (x->lo > y->lo) - (x->lo < y->lo);
}

bool lex_set(struct lex *lx, struct lex_set *out)
{
	size_t room, n = 0;

	memset(out, 0, sizeof(*out));
	if (lex_at(lx, '$')) {
		lx->p++;
		out->dollar = true;
		return true;
	}
	room = lx->failed ? 0 : count_ranges(lx);
	if (room > SETS_MAX)
		return lex_fail(lx, "More than %d ranges in a set", SETS_MAX);
	out->r = arena_alloc(lx->arena, room * sizeof(*out->r));
	do {
		struct seqrange *r = out->r + n++;

		if (n > room || !set_number(lx, &r->lo))
			return lex_fail(lx, "A message set is expected");
		r->hi = r->lo;
		if (lex_at(lx, ':')) {
			lx->p++;
			if (!set_number(lx, &r->hi))
				return false;
		}
		if (r->hi && (!r->lo || r->lo > r->hi))		/* 4:2 is 2:4, *:2 is 2:* */
			*r = (struct seqrange){ r->hi, r->lo };
	} while (lex_at(lx, ',') && lex_char(lx, ','));
	qsort(out->r, n, sizeof(*out->r), by_lo);	/* so that adding them one by one is cheap */
	out->n = n;
	return true;
}

bool lex_plain_set(struct lex *lx, const char *what, struct seqset *out)
{
	struct lex_set raw;
	size_t i;

	seqset_clear(out);
	if (!lex_set(lx, &raw))
		return false;
	if (raw.dollar)
		return lex_fail(lx, "%s cannot be $", what);
	for (i = 0; i < raw.n; i++) {
		if (!raw.r[i].lo || !raw.r[i].hi)
			return lex_fail(lx, "%s cannot hold *", what);
		seqset_add(out, raw.r[i].lo, raw.r[i].hi);
	}
	return true;
}

static const struct { const char *name; uint32_t flag; } system_flags[] = {
	{ "Seen", OBOX_SEEN }, { "Answered", OBOX_ANSWERED }, { "Flagged", OBOX_FLAGGED },
	{ "Deleted", OBOX_DELETED }, { "Draft", OBOX_DRAFT }
};

static bool system_flag(struct lex *lx, uint32_t *flags)
{
	char *name;
	size_t i;

	lx->p++;
	if (!lex_atom(lx, "The name of a system flag", &name))
		return false;
	for (i = 0; i < MEM_COUNT(system_flags); i++) {
		if (!strcasecmp(name, system_flags[i].name)) {
			*flags |= system_flags[i].flag;
			return true;
		}
	}
	if (!strcasecmp(name, "Recent"))
		return lex_fail(lx, "\\Recent cannot be changed by a client");
	return lex_fail(lx, "There is no system flag \\%.40s", name);
}

bool lex_keyword(struct lex *lx, char **out)
{
	if (!lex_atom(lx, "A keyword", out))
		return false;
	if (strlen(*out) > LEX_KEYWORD_MAX)
		return lex_fail(lx, "A keyword has at most %d octets", LEX_KEYWORD_MAX);
	return true;
}

static bool one_flag(struct lex *lx, struct lex_flags *out)
{
	char *kw;
	size_t i;

	if (lex_at(lx, '\\'))
		return system_flag(lx, &out->flags);
	if (!lex_keyword(lx, &kw))
		return false;
	for (i = 0; i < out->n_keywords; i++)
		if (!strcasecmp(out->keywords[i], kw))
			return true;
	if (out->n_keywords == LEX_FLAGS_MAX)
		return lex_fail(lx, "More than %d keywords in one list", LEX_FLAGS_MAX);
	if (!out->keywords)
		out->keywords = arena_alloc(lx->arena, LEX_FLAGS_MAX * sizeof(*out->keywords));
	out->keywords[out->n_keywords++] = kw;
	return true;
}

bool lex_flags(struct lex *lx, bool bare, struct lex_flags *out)
{
	bool list = lex_at(lx, '(');

	memset(out, 0, sizeof(*out));
	if (!list && !bare)
		return lex_fail(lx, "A list of flags in parentheses is expected");
	if (list) {
		lx->p++;
		if (lex_at(lx, ')'))
			return lex_char(lx, ')');
	}
	do {
		if (!one_flag(lx, out))
			return false;
	} while (lex_at(lx, ' ') && lex_sp(lx));
	return list ? lex_char(lx, ')') : !lx->failed;
}

bool lex_date(struct lex *lx, int32_t *day_r)
{
	char *s;
	size_t len;

	if (lex_at(lx, '"')) {
		if (!lex_string(lx, "A date", &s, &len))
			return false;
	} else {
		if (!lex_atom(lx, "A date", &s))
			return false;
		len = strlen(s);
	}
	if (imap_date_parse(s, len, day_r) < 0)
		return lex_fail(lx, "This is not a date like 17-Jul-1996");
	return true;
}

bool lex_datetime(struct lex *lx, int64_t *utc_r)
{
	char *s;
	size_t len;

	if (!lex_string(lx, "A date and time", &s, &len))
		return false;
	if (imap_datetime_parse(s, len, utc_r) < 0)
		return lex_fail(lx, "This is not a date and time like \"17-Jul-1996 02:44:25 -0700\"");
	return true;
}
