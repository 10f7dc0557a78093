/* STORE and UID STORE, with UNCHANGEDSINCE (RFC 9051 section 6.4.6, RFC 7162
 * section 3.1.3). */
#include <strings.h>

#include "base/mem.h"
#include "daemon/imap/imap.h"

struct store {
	struct seqset seqs;		/* to be told */
	struct seqset changed;		/* UIDs */
	uint32_t next;
	bool silent;			/* only the mod-sequence is told */
	bool changed_only;
};

static void store_free(void *p)
{
	struct store *st = p;

	seqset_free(&st->seqs);
	seqset_free(&st->changed);
	free(st);
}

struct store_args {
	struct lex_set set;
	struct lex_flags flags;
	enum obox_flag_how how;
	bool silent;
	uint64_t unchangedsince;
};

static bool parse_modifier(struct lex *lx, struct store_args *a)
{
	if (!lex_at(lx, '('))
		return true;
	lx->p++;
	if (!lex_word_is(lx, "UNCHANGEDSINCE"))
		return lex_fail(lx, "UNCHANGEDSINCE is the only modifier of STORE");
	return lex_sp(lx) && lex_number(lx, "A mod-sequence", INT64_MAX, &a->unchangedsince) && lex_char(lx, ')') && lex_sp(lx);
}

static bool parse_store(struct lex *lx, struct store_args *a)
{
	memset(a, 0, sizeof(*a));
	a->unchangedsince = UINT64_MAX;
	if (!lex_sp(lx) || !lex_set(lx, &a->set) || !lex_sp(lx) || !parse_modifier(lx, a))
		return false;
	a->how = lex_at(lx, '+') ? OBOX_FLAGS_ADD : lex_at(lx, '-') ? OBOX_FLAGS_REMOVE : OBOX_FLAGS_REPLACE;
	if (a->how != OBOX_FLAGS_REPLACE)
		lx->p++;
	if (lex_word_is(lx, "FLAGS.SILENT"))
		a->silent = true;
	else if (!lex_word_is(lx, "FLAGS"))
		return lex_fail(lx, "FLAGS or FLAGS.SILENT is expected");
	return lex_sp(lx) && lex_flags(lx, true, &a->flags) && lex_end(lx);
}

static void put_one(struct imap_session *s, const struct store *st, uint32_t seq, const struct obox_msg *m)
{
	struct buf *out = &s->c->out;
	bool uid = s->cmd.uid || s->condstore || s->rev2;
	const char *before = "";

	buf_adds(out, "* ");
	buf_addu(out, seq);
	buf_adds(out, " FETCH (");
	if (uid) {
		buf_adds(out, "UID ");
		buf_addu(out, m->uid);
		before = " ";
	}
	if (s->condstore) {
		buf_adds(out, before);
		buf_adds(out, "MODSEQ (");
		buf_addu(out, m->modseq);
		buf_addc(out, ')');
		before = " ";
	}
	if (!st->silent) {
		buf_adds(out, before);
		buf_adds(out, "FLAGS ");
		imap_put_flags(s, out, m);
	}
	buf_adds(out, ")\r\n");
}

static void put_run(struct imap_session *s, const struct store *st, uint32_t seq, const struct obox_msg *m, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (!seqset_contains(&st->seqs, seq + (uint32_t)i) || (m[i].flags & OBOX_GONE))
			continue;
		if (!st->changed_only || seqset_contains(&st->changed, m[i].uid))
			put_one(s, st, seq + (uint32_t)i, &m[i]);
	}
}

static enum imap_step store_step(struct imap_session *s)
{
	struct store *st = s->cmd.ctx;
	struct obox_msg batch[64];

	while (st->next) {
		uint32_t seq = seqset_next(&st->seqs, st->next);
		size_t n = seq ? obox_view_read(s->view, seq, batch, MEM_COUNT(batch)) : 0;

		if (!n)
			break;
		imap_announce_keywords_of(s, batch, n);
		put_run(s, st, seq, batch, n);
		st->next = seq + (uint32_t)n;
		if (imap_should_pause(s))
			return IMAP_MORE;
	}
	return IMAP_DONE;
}

static void store_reply(struct imap_session *s, const struct seqset *modified, uint32_t gone)
{
	struct seqset seqs = SEQSET_INIT;

	if (!modified->n) {
		imap_reply(s, "%s", gone ? "NO [EXPUNGEISSUED] Some of the messages were expunged already" : "OK Store completed");
		return;
	}
	imap_reply(s, "%s [MODIFIED ", gone ? "NO" : "OK");
	if (!s->cmd.uid)
		imap_uids_to_seqs(s, modified, &seqs);
	seqset_format(s->cmd.uid ? modified : &seqs, &s->cmd.reply);
	buf_adds(&s->cmd.reply, gone ? "] Some of the messages were expunged already" : "] Some were changed by others meanwhile");
	seqset_free(&seqs);
}

/* The messages that failed the condition are told by news, if they are news. */
static void run_store(struct imap_session *s, struct store *st, const struct store_args *a, const struct seqset *uids, uint32_t gone)
{
	struct obox_flag_change change = { a->how, a->flags.flags, a->flags.keywords, a->flags.n_keywords, a->unchangedsince };
	bool conditional = a->unchangedsince != UINT64_MAX;
	struct seqset modified = SEQSET_INIT, failed = SEQSET_INIT;
	struct err err = ERR_INIT;
	uint64_t modseq;
	size_t i;
	int rc = obox_store(s->view, uids, &change, &modified, &st->changed, &modseq, &err);

	if (rc == ERR_LIMIT) {
		imap_reply(s, "NO [LIMIT] A mailbox has at most %d keywords", OBOX_KEYWORDS_MAX);
	} else if (rc < 0) {
		imap_reply_err(s, rc, &err, NULL);
	} else {
		imap_announce_keywords(s);
		store_reply(s, &modified, s->cmd.uid ? 0 : gone);
		imap_uids_to_seqs(s, &modified, &failed);
		for (i = 0; i < failed.n; i++)
			seqset_remove(&st->seqs, failed.r[i].lo, failed.r[i].hi);
		st->silent = a->silent;
		/* RFC 7162: a silent STORE still tells new mod-sequences to who knows them */
		st->changed_only = a->silent && !conditional;
		if (!a->silent || s->condstore)
			s->cmd.step = store_step;
	}
	seqset_free(&modified);
	seqset_free(&failed);
}

void imap_cmd_store(struct imap_session *s, struct lex *lx)
{
	struct store_args a;
	struct seqset uids = SEQSET_INIT;
	struct store *st;
	uint32_t gone;

	if (!parse_store(lx, &a)) {
		imap_reply_bad(s, lx);
		return;
	}
	st = MEM_NEW(struct store);
	st->next = 1;
	s->cmd.ctx = st;
	s->cmd.ctx_free = store_free;
	if (!imap_set_resolve(s, &a.set, s->cmd.uid, true, &st->seqs))
		return;
	if (a.unchangedsince != UINT64_MAX)
		imap_enable_condstore(s);
	if (obox_view_read_only(s->view)) {
		imap_reply(s, "NO [READ-ONLY] The mailbox is selected read-only");
		return;
	}
	imap_seqs_to_uids(s, &st->seqs, &uids, s->cmd.uid ? NULL : &gone);
	if (uids.n)
		run_store(s, st, &a, &uids, s->cmd.uid ? 0 : gone);
	else
		imap_reply(s, "OK Store completed, there was no such message");
	seqset_free(&uids);
}
