/* COPY, MOVE, EXPUNGE and their UID forms (RFC 9051 sections 6.4.3, 6.4.7 to
 * 6.4.9, RFC 4315, RFC 6851, RFC 7162 section 3.2.7). */
#include "daemon/imap/imap.h"

static void put_copyuid(struct buf *out, const struct obox_copy_result *res)
{
	buf_addf(out, "[COPYUID %u ", res->uidvalidity);
	seqset_format(&res->src, out);
	buf_addc(out, ' ');
	seqset_format(&res->dst, out);
	buf_addc(out, ']');
}

static void copied(struct imap_session *s, const struct obox_copy_result *res, bool move)
{
	if (!res->src.n) {
		imap_reply(s, "OK %s completed, there was no such message", move ? "Move" : "Copy");
	} else if (move) {
		/* before the EXPUNGE responses: RFC 6851 section 4.3 */
		buf_adds(&s->c->out, "* OK ");
		put_copyuid(&s->c->out, res);
		buf_adds(&s->c->out, " Moved\r\n");
		imap_reply(s, "OK Move completed");
		s->cmd.reply_modseq = s->qresync;
	} else {
		imap_reply(s, "OK ");
		put_copyuid(&s->cmd.reply, res);
		buf_adds(&s->cmd.reply, " Copy completed");
	}
}

static void run_copy(struct imap_session *s, const struct seqset *uids, const char *to, bool move)
{
	struct obox_copy_result res = { 0, SEQSET_INIT, SEQSET_INIT };
	struct obox_status st;
	struct err err = ERR_INIT;
	int rc;

	if (uids->n) {
		rc = obox_copy(s->view, uids, to, move, &res, &err);
	} else {	/* "$" or UIDs that match nothing: only the mailbox must be there */
		rc = obox_mailbox_status(s->user, to, &st, &err);
	}
	if (rc == ERR_NOTFOUND)
		imap_reply(s, "NO [TRYCREATE] No such mailbox");
	else if (rc < 0)
		imap_reply_err(s, rc, &err, to);
	else
		copied(s, &res, move);
	obox_copy_result_free(&res);
}

static void copy_or_move(struct imap_session *s, struct lex *lx, bool move)
{
	struct seqset seqs = SEQSET_INIT, uids = SEQSET_INIT;
	struct lex_set set;
	uint32_t gone = 0;
	char *to;

	if (!(lex_sp(lx) && lex_set(lx, &set) && lex_sp(lx) && lex_mailbox(lx, &to) && lex_end(lx))) {
		imap_reply_bad(s, lx);
		return;
	}
	if (move && obox_view_read_only(s->view)) {
		imap_reply(s, "NO [READ-ONLY] The mailbox is selected read-only");
		return;
	}
	if (imap_set_resolve(s, &set, s->cmd.uid, true, &seqs)) {
		imap_seqs_to_uids(s, &seqs, &uids, s->cmd.uid ? NULL : &gone);
		if (gone)
			imap_reply(s, "NO [EXPUNGEISSUED] Some of the messages were expunged already, nothing was done");
		else
			run_copy(s, &uids, to, move);
	}
	seqset_free(&seqs);
	seqset_free(&uids);
}

void imap_cmd_copy(struct imap_session *s, struct lex *lx)
{
	copy_or_move(s, lx, false);
}

void imap_cmd_move(struct imap_session *s, struct lex *lx)
{
	copy_or_move(s, lx, true);
}

/* Of the given messages, or of all when the set is NULL. */
static void run_expunge(struct imap_session *s, const struct lex_set *set)
{
	struct seqset seqs = SEQSET_INIT, uids = SEQSET_INIT;
	struct obox_status before, after;
	struct err err = ERR_INIT;
	uint64_t modseq;
	int rc = 0;

	obox_view_status(s->view, &before);
	if (set && imap_set_resolve(s, set, true, false, &seqs))
		imap_seqs_to_uids(s, &seqs, &uids, NULL);
	if (!set || uids.n)
		rc = obox_expunge(s->view, set ? &uids : NULL, false, &modseq, &err);
	if (rc < 0) {
		imap_reply_err(s, rc, &err, NULL);
	} else {
		obox_view_status(s->view, &after);
		imap_reply(s, "OK Expunge completed");
		s->cmd.reply_modseq = s->qresync && after.highestmodseq > before.highestmodseq;
	}
	seqset_free(&seqs);
	seqset_free(&uids);
}

void imap_cmd_expunge(struct imap_session *s, struct lex *lx)
{
	struct lex_set set;
	bool good = !s->cmd.uid || (lex_sp(lx) && lex_set(lx, &set));

	if (!good || !lex_end(lx))
		imap_reply_bad(s, lx);
	else if (obox_view_read_only(s->view))
		imap_reply(s, "NO [READ-ONLY] The mailbox is selected read-only");
	else
		run_expunge(s, s->cmd.uid ? &set : NULL);
}
