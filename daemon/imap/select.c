/* SELECT, EXAMINE, CLOSE, UNSELECT (RFC 9051 section 6.3.2, 6.4.1, 6.4.2;
 * CONDSTORE and QRESYNC: RFC 7162 sections 3.1.8 and 3.2.5). */
#include <strings.h>

#include "base/mem.h"
#include "daemon/imap/fetch.h"
#include "daemon/imap/imap.h"
#include "daemon/imap/special.h"
#include "mime/mime.h"

struct select_args {
	char *name;
	bool condstore, qresync;
	uint32_t uidvalidity;
	uint64_t modseq;
	bool has_known, has_match;
	struct seqset known;			/* UIDs */
	struct seqset match_seqs, match_uids;	/* the n-th numbers belong together */
};

static void args_free(struct select_args *a)
{
	seqset_free(&a->known);
	seqset_free(&a->match_seqs);
	seqset_free(&a->match_uids);
}

/* Optional parts of "(QRESYNC (67890007 20050715194045000 41:211,214:541 (1:4 5:8)))". */
static bool parse_known(struct lex *lx, struct select_args *a)
{
	if (lex_at(lx, ' ') && lx->p + 1 < lx->end && lx->p[1] != '(') {
		a->has_known = true;
		if (!lex_sp(lx) || !lex_plain_set(lx, "The set of known UIDs", &a->known))
			return false;
	}
	if (!lex_at(lx, ' '))
		return !lx->failed;
	a->has_match = true;
	if (!(lex_sp(lx) && lex_char(lx, '(') && lex_plain_set(lx, "The set of known sequence numbers", &a->match_seqs) &&
	      lex_sp(lx) && lex_plain_set(lx, "The set of their UIDs", &a->match_uids) && lex_char(lx, ')')))
		return false;
	return seqset_count(&a->match_seqs) == seqset_count(&a->match_uids) ||
		lex_fail(lx, "The sets of sequence numbers and UIDs differ in length");
}

static bool parse_qresync(struct imap_session *s, struct lex *lx, struct select_args *a)
{
	uint64_t n;

	if (!s->qresync)
		return lex_fail(lx, "QRESYNC needs ENABLE QRESYNC first");
	a->qresync = true;
	if (!(lex_sp(lx) && lex_char(lx, '(') && lex_nz_number(lx, "A UIDVALIDITY", UINT32_MAX, &n) && lex_sp(lx) &&
	      lex_nz_number(lx, "A mod-sequence", INT64_MAX, &a->modseq)))
		return false;
	a->uidvalidity = (uint32_t)n;
	return parse_known(lx, a) && lex_char(lx, ')');
}

static bool parse_select(struct imap_session *s, struct lex *lx, struct select_args *a)
{
	if (!lex_sp(lx) || !lex_mailbox(lx, &a->name))
		return false;
	if (!lex_at(lx, ' '))
		return lex_end(lx);
	if (!lex_sp(lx) || !lex_char(lx, '('))
		return false;
	do {
		if (lex_word_is(lx, "CONDSTORE"))
			a->condstore = true;
		else if (!lex_word_is(lx, "QRESYNC"))
			return lex_fail(lx, "There is no such parameter of SELECT");
		else if (!parse_qresync(s, lx, a))
			return false;
	} while (lex_at(lx, ' ') && lex_sp(lx));
	return lex_char(lx, ')') && lex_end(lx);
}

/* The untagged LIST of IMAP4rev2. */
static void put_list(struct imap_session *s, const char *asked)
{
	struct buf *out = &s->c->out, nfc = BUF_INIT(0);
	struct obox_mailbox *list;
	struct err err = ERR_INIT;
	const char *name;
	size_t n, i;

	name = mime_utf8_nfc(asked, strlen(asked), &nfc) == 0 ? buf_str(&nfc) : asked;
	if (obox_mailboxes(s->user, &list, &n, &err) == 0) {
		for (i = 0; i < n && strcmp(list[i].name, name) != 0; i++)
			;
		buf_adds(out, "* LIST (");
		if (i < n) {
			buf_adds(out, list[i].has_children ? "\\HasChildren" : "\\HasNoChildren");
			buf_adds(out, list[i].subscribed ? " \\Subscribed" : "");
			special_use_put(out, list[i].special, " ");
		}
		buf_adds(out, ") \"/\" ");
		imap_put_mailbox(s, out, name);
		if (strcmp(name, asked) != 0) {
			buf_adds(out, " (\"OLDNAME\" (");
			imap_put_mailbox(s, out, asked);
			buf_adds(out, "))");
		}
		buf_adds(out, "\r\n");
		obox_mailboxes_free(list, n);
	}
	buf_free(&nfc);
}

/* UIDNEXT and HIGHESTMODSEQ may only be behind what the view shows, never
 * ahead of it: a client takes them for "I know all below". */
static void view_status(struct imap_session *s, struct obox_status *st)
{
	struct obox_sync sync;
	uint32_t last;

	obox_view_status(s->view, st);
	memset(&sync, 0, sizeof(sync));
	obox_view_sync(s->view, true, &sync);	/* nothing was told yet: no news */
	if (sync.highestmodseq < st->highestmodseq)
		st->highestmodseq = sync.highestmodseq;
	obox_sync_free(&sync);
	last = obox_view_count(s->view);
	if (last)
		last = obox_view_uid(s->view, last);
	if (last >= st->uidnext)
		st->uidnext = last + 1;
}

static void put_selected(struct imap_session *s, const char *name, struct obox_status *st)
{
	uint32_t unseen;

	view_status(s, st);
	s->told_modseq = st->highestmodseq;
	imap_learn_keywords(s);
	imap_put_flag_list(s);
	imap_untagged(s, "%u EXISTS", obox_view_count(s->view));
	if (!s->rev2) {
		imap_untagged(s, "0 RECENT");
		unseen = obox_view_first_unseen(s->view);
		if (unseen)
			imap_untagged(s, "OK [UNSEEN %u] First unseen", unseen);
	}
	imap_untagged(s, "OK [UIDVALIDITY %u] UIDs valid", st->uidvalidity);
	imap_untagged(s, "OK [UIDNEXT %u] Predicted next UID", st->uidnext);
	imap_untagged(s, "OK [HIGHESTMODSEQ %llu] Highest", (unsigned long long)st->highestmodseq);
	if (s->rev2)
		put_list(s, name);
}

/* Iterates over the members of a set. */
static uint32_t nth_next(const struct seqset *set, size_t *range, uint32_t *off)
{
	uint32_t v;

	if (*range >= set->n)
		return 0;
	v = set->r[*range].lo + *off;
	if (v == set->r[*range].hi) {
		(*range)++;
		*off = 0;
	} else {
		(*off)++;
	}
	return v;
}

/* RFC 7162 section 3.2.5.2: up to which UID the client knows every expunge. */
static uint32_t matched_uid(struct imap_session *s, const struct select_args *a)
{
	size_t r1 = 0, r2 = 0;
	uint32_t o1 = 0, o2 = 0, best = 0, count = obox_view_count(s->view);

	for (;;) {
		uint32_t seq = nth_next(&a->match_seqs, &r1, &o1), uid = nth_next(&a->match_uids, &r2, &o2);

		if (!seq || seq > count || obox_view_uid(s->view, seq) != uid)
			return best;
		best = uid;
	}
}

/* What changed since the client was here; the FETCH part becomes the step. */
static void resync(struct imap_session *s, struct select_args *a, const struct obox_status *st, const char *done)
{
	struct seqset gone = SEQSET_INIT;
	struct fetch *f;
	uint32_t matched;

	if (!a->has_known && st->uidnext > 1)
		seqset_add(&a->known, 1, st->uidnext - 1);
	f = fetch_new();
	imap_uids_to_seqs(s, &a->known, &f->seqs);
	fetch_changes_program(s, f, obox_view_modseq_known(s->view, a->modseq) ? a->modseq : 0);
	matched = a->has_match ? matched_uid(s, a) : 0;
	if (matched)
		seqset_remove(&a->known, 1, matched);
	if (a->known.n)
		obox_view_vanished(s->view, a->modseq, &a->known, &gone);
	if (gone.n) {
		buf_adds(&s->c->out, "* VANISHED (EARLIER) ");
		seqset_format(&gone, &s->c->out);
		buf_adds(&s->c->out, "\r\n");
	}
	seqset_free(&gone);
	fetch_run(s, f, done);
}

static void wake(void *ctx)
{
	struct imap_session *s = ctx;

	if (atomic_load(&s->idling))
		conn_wake(s->c);
}

static void run_select(struct imap_session *s, struct select_args *a, bool read_only)
{
	const char *done = read_only ? "[READ-ONLY] Examine completed" : "[READ-WRITE] Select completed";
	struct obox_status st;
	struct err err = ERR_INIT;
	int rc;

	if (s->view) {
		imap_unselect(s);
		imap_untagged(s, "OK [CLOSED] Previous mailbox closed");
	}
	if (!imap_user(s))
		return;
	rc = obox_view_open(s->user, a->name, read_only, wake, s, &s->view, &err);
	if (rc < 0) {
		imap_reply_err(s, rc, &err, a->name);
		return;
	}
	s->mailbox = mem_strdup(a->name);
	s->condstore |= a->condstore;
	put_selected(s, a->name, &st);
	if (a->qresync && a->uidvalidity == st.uidvalidity)
		resync(s, a, &st, done);
	else
		imap_reply(s, "OK %s", done);
}

static void select_or_examine(struct imap_session *s, struct lex *lx, bool read_only)
{
	struct select_args a;

	memset(&a, 0, sizeof(a));
	if (parse_select(s, lx, &a))
		run_select(s, &a, read_only);
	else
		imap_reply_bad(s, lx);
	args_free(&a);
}

void imap_cmd_select(struct imap_session *s, struct lex *lx)
{
	select_or_examine(s, lx, false);
}

void imap_cmd_examine(struct imap_session *s, struct lex *lx)
{
	select_or_examine(s, lx, true);
}

void imap_cmd_close(struct imap_session *s, struct lex *lx)
{
	struct err err = ERR_INIT;
	uint64_t modseq;
	int rc = 0;

	if (!lex_end(lx)) {
		imap_reply_bad(s, lx);
		return;
	}
	if (!obox_view_read_only(s->view) && !obox_view_deleted(s->view))
		rc = obox_expunge(s->view, NULL, false, &modseq, &err);
	if (rc < 0) {	/* stays selected, or the client would think the messages gone */
		imap_reply_err(s, rc, &err, NULL);
		return;
	}
	imap_unselect(s);
	imap_reply(s, "OK Close completed");
}

void imap_cmd_unselect(struct imap_session *s, struct lex *lx)
{
	if (!lex_end(lx)) {
		imap_reply_bad(s, lx);
		return;
	}
	imap_unselect(s);
	imap_reply(s, "OK Unselect completed");
}
