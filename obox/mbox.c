/* A mailbox's index: an array of messages sorted by UID, its counters, its
 * keyword table, and what was expunged.
 *
 * Invariants
 *  (1) msgs is sorted by UID; every UID is < uidnext; n, unseen, n_deleted,
 *      size and deleted_size count exactly what is in it.
 *  (2) Keywords are only ever added, so a bit means the same for ever.
 *  (3) pending holds the UIDs whose save is not durable yet.  Nothing from the
 *      smallest of them on is shown to anybody. */
#include "obox/obox-private.h"

#include <strings.h>

struct mbox *mbox_new(void)
{
	return MEM_NEW(struct mbox);
}

void mbox_free(struct mbox **mp)
{
	struct mbox *m = *mp;
	size_t i;

	if (!m)
		return;
	for (i = 0; i < m->n_keywords; i++)
		free(m->keywords[i]);
	free(m->name);
	free(m->msgs);
	free(m->gone);
	free(m->ring);
	free(m->leaving);
	seqset_free(&m->pending);
	free(m);
	*mp = NULL;
}

size_t mbox_lower(const struct mbox *m, uint32_t uid)
{
	size_t lo = 0, hi = m->n;

	/* UIDs are mostly dense at the end: look there first */
	if (hi && m->msgs[hi - 1].uid < uid)
		return hi;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->msgs[mid].uid < uid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct obox_msg *mbox_find(const struct mbox *m, uint32_t uid)
{
	size_t i = mbox_lower(m, uid);

	return i < m->n && m->msgs[i].uid == uid ? &m->msgs[i] : NULL;
}

static void count(struct mbox *m, const struct obox_msg *msg, int by)
{
	m->n += (uint32_t)by;
	m->size += by > 0 ? msg->size : -msg->size;
	if (!(msg->flags & OBOX_SEEN))
		m->unseen += (uint32_t)by;
	if (msg->flags & OBOX_DELETED) {
		m->n_deleted += (uint32_t)by;
		m->deleted_size += by > 0 ? msg->size : -msg->size;
	}
}

void mbox_append(struct mbox *m, const struct obox_msg *msg)
{
	mem_grow(&m->msgs, &m->cap, (size_t)m->n + 1, sizeof(*m->msgs));
	m->msgs[m->n] = *msg;
	count(m, msg, 1);
	if (msg->uid >= m->uidnext)
		m->uidnext = msg->uid + 1;
	mbox_note_modseq(m, msg->modseq);
}

/* Remembers the last modseq of each epoch (see mbox_modseq_known). */
void mbox_note_modseq(struct mbox *m, uint64_t modseq)
{
	if (modseq <= m->highestmodseq)
		return;
	if (m->highestmodseq && obox_modseq_epoch(modseq) != obox_modseq_epoch(m->highestmodseq)) {
		memmove(m->ends + 1, m->ends, sizeof(m->ends) - sizeof(m->ends[0]));
		m->ends[0] = m->highestmodseq;
	}
	m->highestmodseq = modseq;
	m->dirty = true;
}

/* A modseq names its epoch.  In an epoch that ended without its last changes
 * becoming durable, clients may have seen higher ones than the log knows;
 * whoever brings such a number must start afresh.  Epochs that fell out of the
 * short list are answered the same, safe, way.  So is an odd number of an epoch
 * that is over: it was told while a message was hidden, or one shown that was
 * expunged, and changes of flags behind it were seen, which may be lost. */
bool mbox_modseq_known(const struct mbox *m, uint64_t epoch, uint64_t since)
{
	size_t i;

	if ((since & 1) && since > 1 && obox_modseq_epoch(since) != epoch && !sim_broken("odd-modseq-believed"))
		return false;

	if (since <= 1 || sim_broken("modseq-ends-forgotten") || (uint32_t)since == 0)	/* the beginning of an epoch: all of those before it was read from the log */
		return true;
	if (obox_modseq_epoch(since) == obox_modseq_epoch(m->highestmodseq))
		return since <= m->highestmodseq;
	for (i = 0; i < OBOX_ENDS && m->ends[i]; i++)
		if (obox_modseq_epoch(m->ends[i]) == obox_modseq_epoch(since))
			return since <= m->ends[i];
	return false;
}

static void note_gone(struct mbox *m, uint64_t modseq, uint32_t uid)
{
	struct vanished *last = m->n_gone ? &m->gone[m->n_gone - 1] : NULL;

	if (last && last->modseq == modseq && last->hi + 1 == uid) {
		last->hi = uid;
		return;
	}
	if (m->n_gone == OBOX_VANISHED_MAX) {	/* forget the older half */
		m->gone_floor = m->gone[OBOX_VANISHED_MAX / 2 - 1].modseq;
		memmove(m->gone, m->gone + OBOX_VANISHED_MAX / 2, (OBOX_VANISHED_MAX / 2) * sizeof(*m->gone));
		m->n_gone -= OBOX_VANISHED_MAX / 2;
	}
	mem_grow(&m->gone, &m->cap_gone, m->n_gone + 1, sizeof(*m->gone));
	m->gone[m->n_gone++] = (struct vanished){ modseq, uid, uid };
}

void mbox_remove(struct obox_user *u, struct mbox *m, const struct seqset *uids, uint64_t modseq, void (*each)(void *ctx, const struct obox_msg *msg), void *ctx)
{
	size_t to, from, r = 0, end = m->n;

	if (!uids->n || !end)
		return;
	to = from = mbox_lower(m, uids->r[0].lo);
	for (; from < end; from++) {
		struct obox_msg *msg = &m->msgs[from];

		while (r < uids->n && uids->r[r].hi < msg->uid)
			r++;
		if (r == uids->n)
			break;
		if (msg->uid < uids->r[r].lo) {
			m->msgs[to++] = *msg;
			continue;
		}
		view_expunged(u, m, msg, modseq);
		note_gone(m, modseq, msg->uid);
		count(m, msg, -1);
		if (each)
			each(ctx, msg);
	}
	memmove(m->msgs + to, m->msgs + from, (end - from) * sizeof(*m->msgs));
	mbox_note_modseq(m, modseq);
	m->dirty = true;
}

void mbox_note_change(struct mbox *m, uint64_t modseq, const struct seqset *uids)
{
	size_t i;

	if (!m->ring)
		return;
	for (i = 0; i < uids->n; i++) {
		struct change *c = &m->ring[m->ring_n % OBOX_RING];

		if (m->ring_n >= OBOX_RING)
			m->ring_floor = c->modseq;	/* it is overwritten now */
		*c = (struct change){ modseq, uids->r[i].lo, uids->r[i].hi };
		m->ring_n++;
	}
}

void mbox_set_flags(struct mbox *m, struct obox_msg *msg, uint32_t flags, const uint64_t kw[2], uint64_t modseq)
{
	count(m, msg, -1);
	msg->flags = flags;
	msg->kw[0] = kw[0];
	msg->kw[1] = kw[1];
	msg->modseq = modseq;
	count(m, msg, 1);
}

int mbox_keyword(const struct mbox *m, const char *name)
{
	size_t i;

	for (i = 0; i < m->n_keywords; i++)
		if (!strcasecmp(m->keywords[i], name))
			return (int)i;
	return -1;
}

/* --- what may be seen (3) --- */

uint32_t mbox_visible_uidnext(const struct mbox *m)
{
	return m->pending.n ? m->pending.r[0].lo : m->uidnext;
}

size_t mbox_visible_count(const struct mbox *m)
{
	return m->pending.n ? mbox_lower(m, m->pending.r[0].lo) : m->n;
}

/* What may be told as HIGHESTMODSEQ: below that of every message still hidden. */
uint64_t mbox_visible_modseq(const struct mbox *m)
{
	size_t i = mbox_visible_count(m);

	return i < m->n ? modseq_before(m->msgs[i].modseq) : m->highestmodseq;
}

void mbox_unpin(struct mbox *m)
{
	if (--m->pins == 0 && m->deleted && !m->views)
		mbox_free(&m);
}
