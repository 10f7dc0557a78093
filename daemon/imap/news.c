/* What changed in the selected mailbox since the client was last told
 * (RFC 9051 section 7.5, RFC 7162 section 3.2.10).  Told in pieces, so that a
 * hundred thousand changes do not need a buffer of their own. */
#include "daemon/imap/imap.h"

enum { TELL_GONE, TELL_EXISTS, TELL_CHANGED, TELL_DONE };

void imap_news_free(struct imap_session *s)
{
	if (s->tell.active)
		obox_sync_free(&s->tell.sync);
	memset(&s->tell, 0, sizeof(s->tell));
}

void imap_news_start(struct imap_session *s, bool expunges)
{
	if (!s->view || s->tell.active)
		return;
	s->tell.active = obox_view_sync(s->view, expunges, &s->tell.sync);
	if (expunges)	/* what is kept back has mod-sequences too: RFC 7162 section 3.2 */
		s->told_modseq = s->tell.sync.highestmodseq;
	if (!s->tell.active) {
		obox_sync_free(&s->tell.sync);
		return;
	}
	s->tell.stage = TELL_GONE;
	s->tell.pos = 0;
}

static void put_vanished(struct imap_session *s, const struct obox_sync *n)
{
	struct seqset uids = SEQSET_INIT;
	size_t i;

	for (i = 0; i < n->n_expunged; i++)
		seqset_add(&uids, n->expunged[i], n->expunged[i]);
	buf_adds(&s->c->out, "* VANISHED ");
	seqset_format(&uids, &s->c->out);
	buf_adds(&s->c->out, "\r\n");
	seqset_free(&uids);
}

/* False: pause. */
static bool tell_gone(struct imap_session *s)
{
	struct imap_telling *t = &s->tell;
	struct buf *out = &s->c->out;

	if (!t->sync.n_expunged)
		return true;
	if (s->qresync) {
		put_vanished(s, &t->sync);
		return true;
	}
	while (t->pos < t->sync.n_expunged) {
		buf_adds(out, "* ");
		buf_addu(out, t->sync.expunged_seq[t->pos++]);
		buf_adds(out, " EXPUNGE\r\n");
		if ((t->pos & 255) == 0 && imap_should_pause(s))
			return false;
	}
	return true;
}

static void put_change(struct imap_session *s, uint32_t seq, const struct obox_msg *m)
{
	struct buf *out = &s->c->out;

	buf_adds(out, "* ");
	buf_addu(out, seq);
	buf_adds(out, " FETCH (");
	if (s->condstore || s->rev2) {	/* RFC 7162 section 3.2.4, RFC 9051 appendix E (21) */
		buf_adds(out, "UID ");
		buf_addu(out, m->uid);
		buf_addc(out, ' ');
	}
	buf_adds(out, "FLAGS ");
	imap_put_flags(s, out, m);
	if (s->condstore) {
		buf_adds(out, " MODSEQ (");
		buf_addu(out, m->modseq);
		buf_addc(out, ')');
	}
	buf_adds(out, ")\r\n");
}

static bool tell_changed(struct imap_session *s)
{
	struct imap_telling *t = &s->tell;
	struct obox_msg m;

	while (t->pos < t->sync.n_changed) {
		uint32_t seq = t->sync.changed[t->pos++];

		if (obox_view_read(s->view, seq, &m, 1) == 1 && !(m.flags & OBOX_GONE)) {
			imap_announce_keywords_of(s, &m, 1);
			put_change(s, seq, &m);
		}
		if ((t->pos & 63) == 0 && imap_should_pause(s))
			return false;
	}
	return true;
}

enum imap_step imap_news_step(struct imap_session *s)
{
	struct imap_telling *t = &s->tell;

	if (!t->active)
		return IMAP_DONE;
	if (t->stage == TELL_GONE) {
		if (!tell_gone(s))
			return IMAP_MORE;
		t->stage = TELL_EXISTS;
	}
	if (t->stage == TELL_EXISTS) {
		if (t->sync.new_messages) {
			imap_untagged(s, "%u EXISTS", t->sync.exists);
			if (!s->rev2)
				imap_untagged(s, "0 RECENT");
		}
		imap_announce_keywords(s);
		t->pos = 0;
		t->stage = TELL_CHANGED;
	}
	if (t->stage == TELL_CHANGED) {
		if (!tell_changed(s))
			return IMAP_MORE;
		t->stage = TELL_DONE;
	}
	imap_news_free(s);
	return IMAP_DONE;
}
