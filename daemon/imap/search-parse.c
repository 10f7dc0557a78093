/* The SEARCH command line (RFC 9051 section 6.4.4, RFC 4731, RFC 5032, RFC
 * 5182, RFC 7162 section 3.1.5, RFC 8514). */
#include <strings.h>

#include "base/clock.h"
#include "base/mem.h"
#include "daemon/imap/imap.h"
#include "daemon/imap/search.h"

enum { KEYS_MAX = 1000, DAY = 86400 };

struct parse {
	struct imap_session *s;
	struct lex *lx;
	struct search *q;
	unsigned depth;
};

static bool parse_key(struct parse *p, struct search_key **out);

static struct search_key *new_key(struct parse *p, enum search_kind kind)
{
	struct search_key *k;

	if (p->q->n_keys == KEYS_MAX) {
		lex_fail(p->lx, "More than %d search keys", KEYS_MAX);
		return NULL;
	}
	k = arena_alloc(p->lx->arena, sizeof(*k));
	k->kind = kind;
	k->nr = p->q->n_keys++;
	return k;
}

static void own(struct search *q, struct search_key *k)
{
	k->next_text = q->owned;
	q->owned = k;
}

/* A string of the command in UTF-8. */
static bool utf8_string(struct parse *p, char **out, size_t *len)
{
	struct buf b = BUF_INIT(0);
	struct mime_charset *cs;

	if (!lex_astring(p->lx, "A string to look for", out, len))
		return false;
	if (p->q->charset) {
		cs = mime_charset_new(p->q->charset);
		mime_charset_feed(cs, *out, *len, &b);
		mime_charset_finish(cs, &b);
		mime_charset_free(&cs);
		*len = b.len;
		*out = arena_strndup(p->lx->arena, buf_str(&b), b.len);
		buf_free(&b);
	}
	return mime_utf8_valid(*out, *len) || lex_fail(p->lx, "The string is not valid in the given charset");
}

static bool text_key(struct parse *p, enum search_kind kind, const char *field, struct search_key **out)
{
	struct search_key *k = new_key(p, kind);
	size_t len;
	char *str;

	if (!k || !lex_sp(p->lx) || !utf8_string(p, &str, &len))
		return false;
	*out = k;
	if (kind != KEY_HEADER && !len) {	/* is in every text */
		k->kind = KEY_ALL;
		return true;
	}
	k->field = field;
	k->cached = kind == KEY_HEADER && mime_header_is_cached(field);
	k->level = k->cached ? 1 : 2;
	if (len)
		k->needle = mime_needle_new(str, len);
	own(p->q, k);
	return true;
}

static bool header_key(struct parse *p, struct search_key **out)
{
	char *field;

	return lex_sp(p->lx) && lex_astring(p->lx, "The name of a header field", &field, NULL) &&
		text_key(p, KEY_HEADER, field, out);
}

static bool set_key(struct parse *p, bool uid, struct search_key **out)
{
	struct search_key *k = new_key(p, KEY_SET);
	struct lex_set raw;

	if (!k || !lex_set(p->lx, &raw))
		return false;
	own(p->q, k);
	imap_set_resolve(p->s, &raw, uid, false, &k->seqs);
	p->q->uses_seqs |= !uid && !raw.dollar;
	*out = k;
	return true;
}

static bool keyword_key(struct parse *p, struct search_key **out)
{
	struct search_key *k = new_key(p, KEY_NONE);
	char *name;
	size_t i;

	if (!k || !lex_sp(p->lx) || !lex_keyword(p->lx, &name))
		return false;
	for (i = 0; i < p->s->n_keywords; i++) {
		if (!strcasecmp(p->s->keywords[i], name)) {
			k->kind = KEY_KEYWORD;
			k->bit = (unsigned)i;
		}
	}
	*out = k;
	return true;
}

/* how: '<' before the day, '=' on it, '>' on it or later. */
static bool date_key(struct parse *p, enum search_kind kind, char how, struct search_key **out)
{
	struct search_key *k = new_key(p, kind);
	int64_t unit = kind == KEY_SENT ? 1 : DAY;
	int32_t day;

	if (!k || !lex_sp(p->lx) || !lex_date(p->lx, &day))
		return false;
	k->level = kind == KEY_SENT ? 1 : 0;
	k->lo = how == '<' ? INT64_MIN : day * unit;
	k->hi = how == '<' ? day * unit - 1 : how == '=' ? (day + 1) * unit - 1 : INT64_MAX;
	if (kind == KEY_SENT && how == '<')
		k->lo = INT64_MIN + 1;		/* INT64_MIN: has no date */
	*out = k;
	return true;
}

static bool number_key(struct parse *p, const char *name, struct search_key **out)
{
	bool within = name[0] == 'O' || name[0] == 'Y';
	struct search_key *k = new_key(p, within ? KEY_IDATE : KEY_SIZE);
	uint64_t n;
	int64_t now;

	if (!k || !lex_sp(p->lx) || !(within ? lex_nz_number(p->lx, "An interval in seconds", INT32_MAX, &n) :
				      lex_number(p->lx, "A number of octets", INT64_MAX, &n)))
		return false;
	k->lo = INT64_MIN;
	k->hi = INT64_MAX;
	now = clock_wall_s(&clock_system);
	if (name[0] == 'O')		/* OLDER */
		k->hi = now - (int64_t)n;
	else if (name[0] == 'Y')	/* YOUNGER */
		k->lo = now - (int64_t)n;
	else if (name[0] == 'L')	/* LARGER */
		k->lo = n < INT64_MAX ? (int64_t)n + 1 : INT64_MAX;
	else				/* SMALLER */
		k->hi = (int64_t)n - 1;
	*out = k;
	return true;
}

/* MODSEQ ["/flags/\\draft" all] 620162338 */
static bool modseq_key(struct parse *p, struct search_key **out)
{
	struct search_key *k = new_key(p, KEY_MODSEQ);
	struct lex *lx = p->lx;
	uint64_t n;
	char *entry;
	size_t len;

	if (!k || !lex_sp(lx))
		return false;
	if (lex_at(lx, '"')) {
		if (!lex_string(lx, "A metadata entry", &entry, &len) || !lex_sp(lx))
			return false;
		if (!lex_word_is(lx, "all") && !lex_word_is(lx, "priv") && !lex_word_is(lx, "shared"))
			return lex_fail(lx, "all, priv or shared is expected");
		if (!lex_sp(lx))
			return false;
	}
	if (!lex_number(lx, "A mod-sequence", INT64_MAX, &n))
		return false;
	k->lo = (int64_t)n;
	k->hi = INT64_MAX;
	p->q->uses_modseq = true;
	*out = k;
	return true;
}

static bool not_key(struct parse *p, struct search_key **out)
{
	struct search_key *k = new_key(p, KEY_NOT);

	if (!k || !lex_sp(p->lx) || !parse_key(p, &k->kids))
		return false;
	k->level = k->kids->level;
	*out = k;
	return true;
}

/* Puts kid among the others, the cheap ones first. */
static void add_kid(struct search_key *k, struct search_key *kid)
{
	struct search_key **at = &k->kids;

	while (*at && (*at)->level <= kid->level)
		at = &(*at)->next;
	kid->next = *at;
	*at = kid;
	if (kid->level > k->level)
		k->level = kid->level;
}

static bool or_key(struct parse *p, struct search_key **out)
{
	struct search_key *k = new_key(p, KEY_OR), *a, *b;

	if (!k || !lex_sp(p->lx) || !parse_key(p, &a) || !lex_sp(p->lx) || !parse_key(p, &b))
		return false;
	add_kid(k, a);
	add_kid(k, b);
	*out = k;
	return true;
}

/* Keys one after the other: all must match. */
static bool and_keys(struct parse *p, struct search_key **out)
{
	struct search_key *k = new_key(p, KEY_AND), *kid;

	if (!k)
		return false;
	do {
		if (!parse_key(p, &kid))
			return false;
		add_kid(k, kid);
	} while (lex_at(p->lx, ' ') && lex_sp(p->lx));
	*out = k;
	return true;
}

static bool negate(struct parse *p, struct search_key **k)
{
	struct search_key *n = new_key(p, KEY_NOT);

	if (!n)
		return false;
	n->kids = *k;
	n->level = (*k)->level;
	*k = n;
	return true;
}

static const struct { const char *name; uint32_t flag; bool negated; } flag_keys[] = {
	{ "ANSWERED", OBOX_ANSWERED, false }, { "DELETED", OBOX_DELETED, false }, { "DRAFT", OBOX_DRAFT, false },
	{ "FLAGGED", OBOX_FLAGGED, false }, { "SEEN", OBOX_SEEN, false },
	{ "UNANSWERED", OBOX_ANSWERED, true }, { "UNDELETED", OBOX_DELETED, true }, { "UNDRAFT", OBOX_DRAFT, true },
	{ "UNFLAGGED", OBOX_FLAGGED, true }, { "UNSEEN", OBOX_SEEN, true }
};
static const struct { const char *name; enum search_kind kind; } constant_keys[] = {
	/* no message is \Recent here: see README.md */
	{ "ALL", KEY_ALL }, { "OLD", KEY_ALL }, { "SAVEDATESUPPORTED", KEY_ALL }, { "NEW", KEY_NONE }, { "RECENT", KEY_NONE }
};
static const struct { const char *name; enum search_kind kind; char how; } date_keys[] = {
	{ "BEFORE", KEY_IDATE, '<' }, { "ON", KEY_IDATE, '=' }, { "SINCE", KEY_IDATE, '>' },
	{ "SENTBEFORE", KEY_SENT, '<' }, { "SENTON", KEY_SENT, '=' }, { "SENTSINCE", KEY_SENT, '>' },
	{ "SAVEDBEFORE", KEY_SDATE, '<' }, { "SAVEDON", KEY_SDATE, '=' }, { "SAVEDSINCE", KEY_SDATE, '>' }
};
static const char *const field_keys[] = { "BCC", "CC", "FROM", "SUBJECT", "TO" };
static const char *const number_keys[] = { "LARGER", "SMALLER", "OLDER", "YOUNGER" };

/* Keys without arguments. */
static bool plain_key(struct parse *p, struct search_key **out, bool *found)
{
	struct lex *lx = p->lx;
	size_t i;

	*found = true;
	for (i = 0; i < MEM_COUNT(constant_keys); i++)
		if (lex_word_is(lx, constant_keys[i].name))
			return (*out = new_key(p, constant_keys[i].kind)) != NULL;
	for (i = 0; i < MEM_COUNT(flag_keys); i++) {
		if (!lex_word_is(lx, flag_keys[i].name))
			continue;
		*out = new_key(p, KEY_FLAGS);
		if (!*out)
			return false;
		(*out)->flags = flag_keys[i].flag;
		return !flag_keys[i].negated || negate(p, out);
	}
	*found = false;
	return true;
}

static bool word_key(struct parse *p, struct search_key **out)
{
	struct lex *lx = p->lx;
	bool found;
	size_t i;

	if (!plain_key(p, out, &found) || found)
		return !lx->failed;
	for (i = 0; i < MEM_COUNT(field_keys); i++)
		if (lex_word_is(lx, field_keys[i]))
			return text_key(p, KEY_HEADER, field_keys[i], out);
	for (i = 0; i < MEM_COUNT(date_keys); i++)
		if (lex_word_is(lx, date_keys[i].name))
			return date_key(p, date_keys[i].kind, date_keys[i].how, out);
	for (i = 0; i < MEM_COUNT(number_keys); i++)
		if (lex_word_is(lx, number_keys[i]))
			return number_key(p, number_keys[i], out);
	if (lex_word_is(lx, "HEADER"))
		return header_key(p, out);
	if (lex_word_is(lx, "BODY"))
		return text_key(p, KEY_BODY, NULL, out);
	if (lex_word_is(lx, "TEXT"))
		return text_key(p, KEY_TEXT, NULL, out);
	if (lex_word_is(lx, "KEYWORD"))
		return keyword_key(p, out);
	if (lex_word_is(lx, "UNKEYWORD"))
		return keyword_key(p, out) && negate(p, out);
	if (lex_word_is(lx, "UID"))
		return lex_sp(lx) && set_key(p, true, out);
	if (lex_word_is(lx, "MODSEQ"))
		return modseq_key(p, out);
	if (lex_word_is(lx, "NOT"))
		return not_key(p, out);
	if (lex_word_is(lx, "OR"))
		return or_key(p, out);
	return lex_fail(lx, "There is no such search key");
}

static bool parse_key(struct parse *p, struct search_key **out)
{
	struct lex *lx = p->lx;
	bool ok;

	if (p->depth == LEX_DEPTH_MAX)
		return lex_fail(lx, "Search keys are nested deeper than %d", LEX_DEPTH_MAX);
	p->depth++;
	if (lex_at(lx, '(')) {
		lx->p++;
		ok = and_keys(p, out) && lex_char(lx, ')');
	} else if (lex_at(lx, '*') || lex_at(lx, '$') || (lx->p < lx->end && *lx->p >= '0' && *lx->p <= '9')) {
		ok = set_key(p, false, out);
	} else {
		ok = word_key(p, out);
	}
	p->depth--;
	return ok;
}

static bool parse_return(struct lex *lx, struct search *q)
{
	static const struct { const char *word; unsigned bit; } options[] = {
		{ "MIN", RETURN_MIN }, { "MAX", RETURN_MAX }, { "ALL", RETURN_ALL }, { "COUNT", RETURN_COUNT }, { "SAVE", RETURN_SAVE }
	};
	size_t i;

	q->esearch = true;
	if (!lex_sp(lx) || !lex_char(lx, '('))
		return false;
	while (!lex_at(lx, ')')) {
		for (i = 0; i < MEM_COUNT(options) && !lex_word_is(lx, options[i].word); i++)
			;
		if (i == MEM_COUNT(options))
			return lex_fail(lx, "There is no such result option");
		q->returns |= options[i].bit;
		if (!lex_at(lx, ')') && !lex_sp(lx))
			return false;
	}
	if (!q->returns)
		q->returns = RETURN_ALL;	/* RFC 4731 section 3.1 */
	return lex_char(lx, ')') && lex_sp(lx);
}

static bool parse_charset(struct lex *lx, struct search *q)
{
	char *name;

	if (!lex_sp(lx) || !lex_astring(lx, "The name of a charset", &name, NULL) || !lex_sp(lx))
		return false;
	if (!strcasecmp(name, "UTF-8") || !strcasecmp(name, "US-ASCII") || !strcasecmp(name, "ASCII"))
		return true;
	q->charset = name;
	q->bad_charset = !mime_charset_known(name);
	return true;
}

bool search_parse(struct imap_session *s, struct lex *lx, struct search *q)
{
	struct parse p = { s, lx, q, 0 };

	if (!lex_sp(lx))
		return false;
	if (lex_word_is(lx, "RETURN") && !parse_return(lx, q))
		return false;
	if (lex_word_is(lx, "CHARSET") && !parse_charset(lx, q))
		return false;
	if (q->bad_charset)
		return true;
	return and_keys(&p, &q->root) && lex_end(lx);
}
