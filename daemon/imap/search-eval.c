/* Is a message found?  Decided from what is known of it so far. */
#include <strings.h>

#include "daemon/imap/search.h"

static bool between(int64_t v, const struct search_key *k)
{
	return v >= k->lo && v <= k->hi;
}

static int64_t sent_day(const struct mime_summary *sum)
{
	int64_t local;

	if (sum->date == INT64_MIN)
		return INT64_MIN;
	local = sum->date + 60 * (int64_t)sum->date_zone;
	return local / 86400 - (local % 86400 < 0);
}

/* In the cached fields; 1, 0, or -1 when not all of the header is cached. */
static int header(const struct search_key *k, const struct mime_summary *sum)
{
	size_t pos = 0, len = strlen(k->field);
	struct mime_field f;
	struct buf text = BUF_INIT(0);
	int found = 0;

	while (!found && mime_header_next(sum->headers, sum->headers_len, &pos, &f) == 1) {
		if (f.name_len != len || strncasecmp(f.name, k->field, len))
			continue;
		buf_clear(&text);
		mime_header_decode(f.value, f.value_len, &text);
		found = !k->needle || mime_needle_in(k->needle, buf_str(&text), text.len);
	}
	buf_free(&text);
	return found ? 1 : sum->flags & MIME_F_TRUNCATED ? -1 : 0;
}

static int eval_level0(const struct search_key *k, const struct search_msg *x)
{
	switch (k->kind) {
	case KEY_ALL: return 1;
	case KEY_NONE: return 0;
	case KEY_SET: return seqset_contains(&k->seqs, x->seq);
	case KEY_FLAGS: return (x->m->flags & k->flags) == k->flags;
	case KEY_KEYWORD: return x->m->kw[k->bit / 64] >> k->bit % 64 & 1;
	case KEY_SIZE: return between((int64_t)x->m->size, k);
	case KEY_IDATE: return between(x->m->idate, k);
	case KEY_SDATE: return between(x->m->sdate, k);
	default: return between((int64_t)x->m->modseq, k);
	}
}

static int eval_many(const struct search_key *k, const struct search_msg *x)
{
	int decides = k->kind == KEY_OR ? 1 : 0, result = !decides;
	const struct search_key *kid;

	for (kid = k->kids; kid; kid = kid->next) {
		int r = search_eval(kid, x);

		if (r == decides)
			return decides;
		if (r < 0)
			result = -1;
	}
	return result;
}

int search_eval(const struct search_key *k, const struct search_msg *x)
{
	int r;

	switch (k->kind) {
	case KEY_AND:
	case KEY_OR:
		return eval_many(k, x);
	case KEY_NOT:
		r = search_eval(k->kids, x);
		return r < 0 ? -1 : !r;
	case KEY_SENT:
		/* a message without a date is in none of the ranges */
		return x->level < 1 ? -1 : between(sent_day(x->sum), k);
	case KEY_HEADER:
		r = x->level < 1 || !k->cached ? -1 : header(k, x->sum);
		return r < 0 && x->level == 2 ? x->hits[k->nr] : r;
	case KEY_BODY:
	case KEY_TEXT:
		return x->level < 2 ? -1 : x->hits[k->nr];
	default:
		return eval_level0(k, x);
	}
}
