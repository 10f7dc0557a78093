/* LIST with its extensions, and LSUB (RFC 9051 section 6.3.9, RFC 3501
 * section 6.3.9, RFC 5258, RFC 5819, RFC 6154, RFC 3348). */
#include <strings.h>

#include "base/hmap.h"
#include "base/mem.h"
#include "daemon/imap/imap.h"
#include "daemon/imap/list-match.h"
#include "daemon/imap/special.h"
#include "daemon/imap/status.h"

enum { PATTERNS_MAX = 100 };
enum { SEL_SUBSCRIBED = 1, SEL_REMOTE = 2, SEL_RECURSIVE = 4, SEL_SPECIAL = 8 };
enum { RET_SUBSCRIBED = 1, RET_CHILDREN = 2, RET_SPECIAL = 4, RET_STATUS = 8 };

struct list {
	bool lsub;
	bool extended;			/* an extended LIST: extended data may be sent */
	uint32_t select, give, status;
	char *patterns[PATTERNS_MAX];
	size_t n_patterns;
	struct obox_mailbox *boxes;
	size_t n, i;
	bool *child;			/* has a descendant that meets the selection criteria */
	bool *child_unlisted;		/* and one of these is not listed itself */
	bool root;			/* LIST "" "": only the separator is wanted */
};

static void list_free(void *p)
{
	struct list *l = p;

	obox_mailboxes_free(l->boxes, l->n);
	free(l->child);
	free(l->child_unlisted);
	free(l);
}

/* --- the command --- */

static bool parse_select_options(struct lex *lx, struct list *l)
{
	static const struct { const char *word; uint32_t bit; } options[] = {
		{ "SUBSCRIBED", SEL_SUBSCRIBED }, { "REMOTE", SEL_REMOTE }, { "RECURSIVEMATCH", SEL_RECURSIVE }, { "SPECIAL-USE", SEL_SPECIAL }
	};
	size_t i;

	l->extended = true;
	lx->p++;
	while (!lex_at(lx, ')')) {
		for (i = 0; i < MEM_COUNT(options) && !lex_word_is(lx, options[i].word); i++)
			;
		if (i == MEM_COUNT(options))
			return lex_fail(lx, "There is no such selection option");
		l->select |= options[i].bit;
		if (!lex_at(lx, ')') && !lex_sp(lx))
			return false;
	}
	if ((l->select & SEL_RECURSIVE) && !(l->select & (SEL_SUBSCRIBED | SEL_SPECIAL)))
		return lex_fail(lx, "RECURSIVEMATCH needs another selection option");
	return lex_char(lx, ')') && lex_sp(lx);
}

static bool parse_return_options(struct lex *lx, struct list *l)
{
	l->extended = true;
	if (!lex_word_is(lx, "RETURN"))
		return lex_fail(lx, "RETURN is expected");
	if (!lex_sp(lx) || !lex_char(lx, '('))
		return false;
	while (!lex_at(lx, ')')) {
		if (lex_word_is(lx, "SUBSCRIBED")) {
			l->give |= RET_SUBSCRIBED;
		} else if (lex_word_is(lx, "CHILDREN")) {
			l->give |= RET_CHILDREN;
		} else if (lex_word_is(lx, "SPECIAL-USE")) {
			l->give |= RET_SPECIAL;
		} else if (lex_word_is(lx, "STATUS")) {
			l->give |= RET_STATUS;
			if (!lex_sp(lx) || !status_parse_items(lx, &l->status))
				return false;
		} else {
			return lex_fail(lx, "There is no such return option");
		}
		if (!lex_at(lx, ')') && !lex_sp(lx))
			return false;
	}
	return lex_char(lx, ')');
}

/* Reference and pattern, one after the other, make the pattern that is matched. */
static bool parse_pattern(struct lex *lx, struct list *l, const char *ref)
{
	size_t ref_len = strlen(ref), len;
	char *pattern, *whole;

	if (!lex_pattern(lx, &pattern))
		return false;
	if (!pattern)		/* matches no name: RFC 5258 section 3 */
		return true;
	len = strlen(pattern);
	if (l->n_patterns == PATTERNS_MAX)
		return lex_fail(lx, "More than %d patterns", PATTERNS_MAX);
	if (ref_len + len > 2 * OBOX_NAME_MAX)
		return true;
	whole = arena_alloc(lx->arena, ref_len + len + 1);
	memcpy(whole, ref, ref_len);
	memcpy(whole + ref_len, pattern, len + 1);
	l->patterns[l->n_patterns++] = whole;
	return true;
}

static bool parse_patterns(struct lex *lx, struct list *l, const char *ref)
{
	if (!lex_at(lx, '(')) {
		if (!parse_pattern(lx, l, ref))
			return false;
		l->root = l->n_patterns && !l->patterns[0][strlen(ref)];
		return true;
	}
	l->extended = true;
	lx->p++;
	do {
		if (!parse_pattern(lx, l, ref))
			return false;
	} while (lex_at(lx, ' ') && lex_sp(lx));
	return lex_char(lx, ')');
}

static bool parse_list(struct lex *lx, struct list *l)
{
	char *ref;

	if (!lex_sp(lx) || (!l->lsub && lex_at(lx, '(') && !parse_select_options(lx, l)))
		return false;
	if (!lex_mailbox(lx, &ref) || !lex_sp(lx) || !parse_patterns(lx, l, ref))
		return false;
	if (!l->lsub && lex_at(lx, ' ') && !(lex_sp(lx) && parse_return_options(lx, l)))
		return false;
	return lex_end(lx);
}

/* --- which mailboxes --- */

static bool matches(const struct list *l, const char *name)
{
	size_t i;

	for (i = 0; i < l->n_patterns; i++)
		if (list_match(l->patterns[i], name))
			return true;
	return false;
}

/* Does it meet all the criteria that select by themselves? */
static bool selected(const struct list *l, const struct obox_mailbox *b)
{
	if ((l->select & SEL_SUBSCRIBED) && !b->subscribed)
		return false;
	if ((l->select & SEL_SPECIAL) && !b->special)
		return false;
	return true;
}

static void mark_parents(struct list *l, const struct hmap *by_name, const char *name, bool listed)
{
	const char *sep = name;

	while ((sep = strchr(sep, '/')) != NULL) {
		struct obox_mailbox *parent = hmap_get(by_name, name, (size_t)(sep - name));

		if (parent)
			l->child[parent - l->boxes] = true;
		if (parent && !listed)
			l->child_unlisted[parent - l->boxes] = true;
		sep++;
	}
}

/* For CHILDINFO, and for the parents that LSUB lists as \Noselect. */
static void find_selected_children(struct list *l)
{
	struct hmap by_name = HMAP_INIT;
	size_t i;

	l->child = mem_calloc(l->n + 1, sizeof(*l->child));
	l->child_unlisted = mem_calloc(l->n + 1, sizeof(*l->child_unlisted));
	for (i = 0; i < l->n; i++)
		hmap_put(&by_name, l->boxes[i].name, strlen(l->boxes[i].name), &l->boxes[i]);
	for (i = 0; i < l->n; i++)
		if (selected(l, &l->boxes[i]))
			mark_parents(l, &by_name, l->boxes[i].name, matches(l, l->boxes[i].name));
	hmap_free(&by_name);
}

/* --- responses --- */

struct words {
	struct buf *out;
	const char *before;
};

static void word(struct words *w, const char *text)
{
	buf_adds(w->out, w->before);
	buf_adds(w->out, text);
	w->before = " ";
}

static void put_childinfo(const struct list *l, struct buf *out)
{
	struct words w = { out, "" };

	buf_adds(out, " (\"CHILDINFO\" (");
	if (l->select & SEL_SUBSCRIBED)
		word(&w, "\"SUBSCRIBED\"");
	if (l->select & SEL_SPECIAL)
		word(&w, "\"SPECIAL-USE\"");
	buf_adds(out, "))");
}

static void put_mailbox(struct imap_session *s, const struct list *l, const struct obox_mailbox *b, bool childinfo)
{
	struct buf *out = &s->c->out;
	struct words w = { out, "" };

	buf_adds(out, "* LIST (");
	if (!b->exists)
		word(&w, l->extended || s->rev2 ? "\\NonExistent" : "\\Noselect");
	word(&w, b->has_children ? "\\HasChildren" : "\\HasNoChildren");
	if (b->subscribed && ((l->select & SEL_SUBSCRIBED) || (l->give & RET_SUBSCRIBED)))
		word(&w, "\\Subscribed");
	special_use_put(out, b->special, w.before);
	buf_adds(out, ") \"/\" ");
	imap_put_mailbox(s, out, b->name);
	if (childinfo)
		put_childinfo(l, out);
	buf_adds(out, "\r\n");
}

/* One name of LIST; RFC 5258 section 3.5 has the table. */
static void list_one(struct imap_session *s, struct list *l)
{
	const struct obox_mailbox *b = &l->boxes[l->i];
	bool meets = selected(l, b), recursive = l->select & SEL_RECURSIVE;
	struct err err = ERR_INIT;

	/* what is only there for its children is left out when all of them are listed */
	if (!meets && !(recursive && l->child_unlisted[l->i]))
		return;
	/* a name that does not exist is listed for its children, or because it is what was asked for */
	if (!b->exists && !b->has_children && !(l->select & SEL_SUBSCRIBED))
		return;
	if (!matches(l, b->name))
		return;
	put_mailbox(s, l, b, recursive && l->child[l->i]);
	if ((l->give & RET_STATUS) && b->exists)
		status_put(s, b->name, l->status, &err);	/* one that cannot be had is left out: RFC 5819 section 2 */
}

static void lsub_one(struct imap_session *s, struct list *l)
{
	const struct obox_mailbox *b = &l->boxes[l->i];

	if ((!b->subscribed && !l->child_unlisted[l->i]) || !matches(l, b->name))
		return;
	buf_adds(&s->c->out, b->subscribed ? "* LSUB () \"/\" " : "* LSUB (\\Noselect) \"/\" ");
	imap_put_mailbox(s, &s->c->out, b->name);
	buf_adds(&s->c->out, "\r\n");
}

static enum imap_step list_step(struct imap_session *s)
{
	struct list *l = s->cmd.ctx;

	for (; l->i < l->n; l->i++) {
		if (imap_should_pause(s))
			return IMAP_MORE;
		if (l->lsub)
			lsub_one(s, l);
		else
			list_one(s, l);
	}
	imap_reply(s, "OK %s completed", l->lsub ? "Lsub" : "List");
	return IMAP_DONE;
}

static void run_list(struct imap_session *s, struct list *l)
{
	struct err err = ERR_INIT;
	int rc;

	/* LIST "" "": what is the separator? */
	if (l->root && !l->extended) {
		imap_untagged(s, "%s (\\Noselect) \"/\" \"\"", l->lsub ? "LSUB" : "LIST");
		imap_reply(s, "OK %s completed", l->lsub ? "Lsub" : "List");
		return;
	}
	if (!imap_user(s))
		return;
	rc = obox_mailboxes(s->user, &l->boxes, &l->n, &err);
	if (rc < 0) {
		l->n = 0;
		imap_reply_err(s, rc, &err, NULL);
		return;
	}
	if ((l->give & RET_STATUS) && status_wants_modseq(l->status))
		imap_enable_condstore(s);
	if (l->lsub || (l->select & SEL_RECURSIVE))
		find_selected_children(l);
	s->cmd.step = list_step;
}

static void list_or_lsub(struct imap_session *s, struct lex *lx, bool lsub)
{
	struct list *l = MEM_NEW(struct list);

	l->lsub = lsub;
	if (lsub)
		l->select = SEL_SUBSCRIBED;
	s->cmd.ctx = l;
	s->cmd.ctx_free = list_free;
	if (parse_list(lx, l))
		run_list(s, l);
	else
		imap_reply_bad(s, lx);
}

void imap_cmd_list(struct imap_session *s, struct lex *lx)
{
	list_or_lsub(s, lx, false);
}

void imap_cmd_lsub(struct imap_session *s, struct lex *lx)
{
	list_or_lsub(s, lx, true);
}
