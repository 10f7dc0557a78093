/* Message sets of commands: from what was written to messages of the view. */
#include "daemon/imap/imap.h"

#include "base/mem.h"

static uint32_t last_uid(struct imap_session *s)
{
	uint32_t n = obox_view_count(s->view);

	return n ? obox_view_uid(s->view, n) : 0;
}

/* Adds the messages with UIDs lo..hi, in order of calls. */
static void add_uid_range(struct imap_session *s, uint32_t lo, uint32_t hi, struct seqset *seqs)
{
	uint32_t from = obox_view_seq(s->view, lo, true), to;

	if (!from)
		return;
	to = hi < UINT32_MAX ? obox_view_seq(s->view, hi + 1, true) : 0;
	to = to ? to - 1 : obox_view_count(s->view);
	if (from <= to)
		seqset_add(seqs, from, to);
}

void imap_uids_to_seqs(struct imap_session *s, const struct seqset *uids, struct seqset *seqs)
{
	size_t i;

	seqset_clear(seqs);
	for (i = 0; i < uids->n; i++)
		add_uid_range(s, uids->r[i].lo, uids->r[i].hi, seqs);
}

static bool resolve_uids(struct imap_session *s, const struct lex_set *raw, struct seqset *seqs)
{
	uint32_t star = last_uid(s);
	size_t i;

	for (i = 0; star && i < raw->n; i++) {
		uint32_t lo = raw->r[i].lo ? raw->r[i].lo : star, hi = raw->r[i].hi ? raw->r[i].hi : star;

		/* 1000:* holds the last message even when its UID is lower */
		if (lo > hi) {
			uint32_t swap = lo;

			lo = hi;
			hi = swap;
		}
		add_uid_range(s, lo, hi, seqs);
	}
	return true;
}

static bool resolve_seqs(struct imap_session *s, const struct lex_set *raw, bool strict, struct seqset *seqs)
{
	uint32_t count = obox_view_count(s->view);
	size_t i;

	for (i = 0; i < raw->n; i++) {
		uint32_t lo = raw->r[i].lo ? raw->r[i].lo : count, hi = raw->r[i].hi ? raw->r[i].hi : count;

		if (lo > hi) {
			uint32_t swap = lo;

			lo = hi;
			hi = swap;
		}
		if (strict && (!count || hi > count)) {
			if (count)
				imap_reply(s, "BAD There is no message %u, the mailbox has %u", hi, count);
			else
				imap_reply(s, "BAD The mailbox has no messages");
			s->cmd.bad = true;
			return false;
		}
		if (hi > count)
			hi = count;
		if (lo && lo <= hi)
			seqset_add(seqs, lo, hi);
	}
	return true;
}

bool imap_set_resolve(struct imap_session *s, const struct lex_set *raw, bool uid, bool strict, struct seqset *seqs)
{
	seqset_clear(seqs);
	if (raw->dollar) {
		imap_uids_to_seqs(s, &s->saved, seqs);
		return true;
	}
	return uid ? resolve_uids(s, raw, seqs) : resolve_seqs(s, raw, strict, seqs);
}

static uint32_t count_gone(struct imap_session *s, uint32_t lo, uint32_t hi)
{
	struct obox_msg *batch = mem_calloc(IMAP_BATCH, sizeof(*batch));
	uint32_t gone = 0;

	while (lo <= hi) {
		size_t want = hi - lo + 1 < IMAP_BATCH ? hi - lo + 1 : IMAP_BATCH, n, i;

		n = obox_view_read(s->view, lo, batch, want);
		for (i = 0; i < n; i++)
			gone += (batch[i].flags & OBOX_GONE) != 0;
		if (n < want || hi - lo < n)
			break;
		lo += (uint32_t)n;
	}
	free(batch);
	return gone;
}

void imap_seqs_to_uids(struct imap_session *s, const struct seqset *seqs, struct seqset *uids, uint32_t *gone_r)
{
	size_t i;

	seqset_clear(uids);
	if (gone_r)
		*gone_r = 0;
	for (i = 0; i < seqs->n; i++) {
		uint32_t lo = obox_view_uid(s->view, seqs->r[i].lo), hi = obox_view_uid(s->view, seqs->r[i].hi);

		/* nothing the client does not know has a UID between two that it knows */
		if (lo && hi)
			seqset_add(uids, lo, hi);
		if (gone_r)
			*gone_r += count_gone(s, seqs->r[i].lo, seqs->r[i].hi);
	}
}
