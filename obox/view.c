/* Views: one session's picture of a mailbox.
 *
 * A view knows the messages with UIDs below known_uidnext, less those it was
 * told are gone.  What was expunged since is kept in `gone` (whole records), so
 * message sequence numbers stay as the client believes them until the next
 * sync that may tell of it: one when the journal has the expunge, for what a
 * crash can take back must not have been told.  So a view that is opened
 * before that shows the message, too: mbox.leaving has those.  A view in step
 * with its mailbox is a few dozen bytes.
 *
 *   sequence number of a known UID = index in the array + gone ones before it + 1 */
#include "obox/obox-private.h"

struct gone {
	struct obox_msg msg;
	uint64_t ticket, modseq;	/* of the expunge */
};

struct obox_view {
	struct obox_user *u;
	struct mbox *m;
	struct obox_view *next;		/* of the same mailbox */
	bool read_only;
	uint32_t known_uidnext;
	uint64_t told;			/* modseq up to which flag changes were reported */
	struct gone *gone;		/* by UID */
	size_t n_gone, cap_gone;
	void (*notify)(void *ctx);
	void *ctx;
};

/* --- what is expunged and not told yet --- */

static size_t gone_lower(const struct obox_view *v, uint32_t uid)
{
	size_t lo = 0, hi = v->n_gone;

	if (hi && v->gone[hi - 1].msg.uid < uid)
		return hi;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (v->gone[mid].msg.uid < uid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void add_gone(struct obox_view *v, const struct gone *g)
{
	size_t at = gone_lower(v, g->msg.uid);

	mem_grow(&v->gone, &v->cap_gone, v->n_gone + 1, sizeof(*v->gone));
	memmove(v->gone + at + 1, v->gone + at, (v->n_gone - at) * sizeof(*v->gone));
	v->gone[at] = *g;
	v->n_gone++;
}

/* The journal has those at the front, mostly all of them. */
static void drop_lasting(const struct obox_user *u, struct mbox *m)
{
	size_t n = 0;

	while (n < m->n_leaving && journal_done(u->ob->journal, m->leaving[n].ticket))
		n++;
	if (!n)
		return;
	m->n_leaving -= n;
	memmove(m->leaving, m->leaving + n, m->n_leaving * sizeof(*m->leaving));
	if (!m->n_leaving) {
		free(m->leaving);
		m->leaving = NULL;
		m->cap_leaving = 0;
	}
}

/* HIGHESTMODSEQ as it may be told: below what is hidden, and below expunges that are not durable; not below the epoch's own first number, though nothing changed in it yet.  The epoch
 * before may have told higher ones than are in the log, and what was told never goes back. */
static uint64_t told_modseq(const struct obox_user *u, struct mbox *m)
{
	uint64_t modseq, first = u->st.epoch << 32;

	drop_lasting(u, m);
	modseq = mbox_visible_modseq(m);
	if (m->n_leaving && m->leaving[0].modseq <= modseq)
		modseq = modseq_before(m->leaving[0].modseq);

	return modseq > first || sim_broken("modseq-goes-back") ? modseq : first;
}

int obox_view_open(struct obox_user *u, const char *mailbox, bool read_only, void (*notify)(void *ctx), void *ctx,
		   struct obox_view **v_r, struct err *err)
{
	struct obox_view *v;
	struct mbox *m;
	size_t i;
	int rc;

	*v_r = NULL;
	pthread_mutex_lock(&u->lock);
	rc = user_mbox(u, mailbox, true, &m, err);
	if (rc == 0) {
		if (!m->ring) {
			m->ring = mem_calloc(OBOX_RING, sizeof(*m->ring));
			m->ring_n = 0;
			m->ring_floor = m->highestmodseq;
		}
		v = MEM_NEW(struct obox_view);
		v->u = u;
		v->m = m;
		v->read_only = read_only;
		v->known_uidnext = mbox_visible_uidnext(m);
		v->told = told_modseq(u, m);
		v->notify = notify;
		v->ctx = ctx;
		v->next = m->views;
		m->views = v;
		for (i = 0; i < m->n_leaving; i++)	/* told_modseq() left those that are not durable */
			if (m->leaving[i].msg.uid < v->known_uidnext)
				add_gone(v, &m->leaving[i]);
		*v_r = v;
	}
	pthread_mutex_unlock(&u->lock);
	if (rc == 0) {
		pthread_mutex_lock(&u->ob->lock);
		u->refs++;
		pthread_mutex_unlock(&u->ob->lock);
	}
	return rc;
}

void obox_view_close(struct obox_view **vp)
{
	struct obox_view *v = *vp, **p;
	struct obox_user *u;
	struct mbox *m;

	if (!v)
		return;
	*vp = NULL;
	u = v->u;
	m = v->m;
	pthread_mutex_lock(&u->lock);
	for (p = &m->views; *p != v; p = &(*p)->next)
		;
	*p = v->next;
	if (!m->views && !m->deleted) {
		free(m->ring);
		m->ring = NULL;
	}
	if (!m->views && m->deleted && !m->pins)
		mbox_free(&m);
	pthread_mutex_unlock(&u->lock);
	free(v->gone);
	free(v);
	obox_user_close(&u);
}

/* --- what the mailbox tells its views; under the lock --- */

void view_mailbox_changed(struct mbox *m, const struct obox_view *except)
{
	struct obox_view *v;

	for (v = m->views; v; v = v->next)
		if (v->notify && v != except)
			v->notify(v->ctx);
}

void view_mailbox_deleted(struct mbox *m)
{
	view_mailbox_changed(m, NULL);
}

void view_expunged(struct obox_user *u, struct mbox *m, const struct obox_msg *msg, uint64_t modseq)
{
	struct gone gone = { *msg, u->applying, modseq };
	struct obox_view *v;

	if (u->applying && msg->uid < mbox_visible_uidnext(m)) {
		drop_lasting(u, m);
		mem_grow(&m->leaving, &m->cap_leaving, m->n_leaving + 1, sizeof(*m->leaving));
		m->leaving[m->n_leaving++] = gone;
	}
	for (v = m->views; v; v = v->next)
		if (msg->uid < v->known_uidnext)
			add_gone(v, &gone);
}

/* --- looking --- */

static size_t live(const struct obox_view *v)	/* known messages still there */
{
	return mbox_lower(v->m, v->known_uidnext);
}

static void status_of(const struct obox_user *u, struct mbox *m, struct obox_status *st)
{
	size_t i;

	memset(st, 0, sizeof(*st));
	st->guid = m->guid;
	st->uidvalidity = m->uidvalidity;
	st->uidnext = mbox_visible_uidnext(m);
	st->messages = m->n;
	st->unseen = m->unseen;
	st->deleted = m->n_deleted;
	st->size = m->size;
	st->deleted_size = m->deleted_size;
	st->highestmodseq = told_modseq(u, m);
	if (!m->pending.n)
		return;
	for (i = mbox_visible_count(m); i < m->n; i++) {
		st->messages--;
		st->size -= m->msgs[i].size;
		st->unseen -= !(m->msgs[i].flags & OBOX_SEEN);
		if (m->msgs[i].flags & OBOX_DELETED) {
			st->deleted--;
			st->deleted_size -= m->msgs[i].size;
		}
	}
}

int obox_mailbox_status(struct obox_user *u, const char *name, struct obox_status *st, struct err *err)
{
	struct mbox *m;
	int rc;

	pthread_mutex_lock(&u->lock);
	rc = user_mbox(u, name, false, &m, err);
	if (rc == 0)
		status_of(u, m, st);
	pthread_mutex_unlock(&u->lock);
	return rc;
}

/* HIGHESTMODSEQ must stay below what the view has still to be told. */
static uint64_t below_gone(const struct obox_view *v, uint64_t modseq)
{
	size_t i;

	for (i = 0; i < v->n_gone; i++)
		if (v->gone[i].modseq <= modseq)
			modseq = modseq_before(v->gone[i].modseq);
	return modseq;
}

void obox_view_status(struct obox_view *v, struct obox_status *st)
{
	pthread_mutex_lock(&v->u->lock);
	status_of(v->u, v->m, st);
	pthread_mutex_unlock(&v->u->lock);
}

bool obox_view_remote(const struct obox_view *v)
{
	return v->u->ob->cfg.mail_store->caps & OBJ_CAP_REMOTE;
}

bool obox_view_read_only(const struct obox_view *v)
{
	return v->read_only;
}

bool obox_view_deleted(struct obox_view *v)
{
	bool deleted;

	pthread_mutex_lock(&v->u->lock);
	deleted = v->m->deleted;
	pthread_mutex_unlock(&v->u->lock);
	return deleted;
}

uint32_t obox_view_count(const struct obox_view *v)
{
	uint32_t n;

	pthread_mutex_lock(&v->u->lock);
	n = (uint32_t)(live(v) + v->n_gone);
	pthread_mutex_unlock(&v->u->lock);
	return n;
}

uint32_t obox_view_first_unseen(struct obox_view *v)
{
	uint32_t seq = 0;
	size_t i, n;

	pthread_mutex_lock(&v->u->lock);
	for (i = 0, n = v->m->unseen ? live(v) : 0; i < n; i++) {
		if (!(v->m->msgs[i].flags & OBOX_SEEN)) {
			seq = (uint32_t)(i + gone_lower(v, v->m->msgs[i].uid)) + 1;
			break;
		}
	}
	pthread_mutex_unlock(&v->u->lock);
	return seq;
}

uint32_t obox_view_seq(struct obox_view *v, uint32_t uid, bool next)
{
	size_t i, g, n;
	uint32_t seq = 0;
	bool there;

	pthread_mutex_lock(&v->u->lock);
	n = live(v);
	i = mbox_lower(v->m, uid);
	g = gone_lower(v, uid);
	there = (i < n && v->m->msgs[i].uid == uid) || (g < v->n_gone && v->gone[g].msg.uid == uid);
	if (there || (next && (i < n || g < v->n_gone)))
		seq = (uint32_t)((i < n ? i : n) + g) + 1;
	pthread_mutex_unlock(&v->u->lock);
	return seq;
}

/* Where position pos (0-based) of the view lies: *i live and *g gone messages come before it. */
static void split(const struct obox_view *v, size_t pos, size_t *i, size_t *g)
{
	size_t lo = 0, hi = v->n_gone;

	while (lo < hi) {	/* the first gone one whose place is >= pos */
		size_t mid = lo + (hi - lo) / 2;

		if (mbox_lower(v->m, v->gone[mid].msg.uid) + mid < pos)
			lo = mid + 1;
		else
			hi = mid;
	}
	*g = lo;
	*i = pos - lo;
}

static struct obox_msg gone_read(const struct obox_view *v, const struct gone *g)
{
	struct obox_msg m = g->msg;

	if (journal_done(v->u->ob->journal, g->ticket))
		m.flags |= OBOX_GONE;
	return m;
}

size_t obox_view_read(struct obox_view *v, uint32_t seq, struct obox_msg *out, size_t max)
{
	size_t i, g, n, got = 0, k;

	if (seq == 0)
		return 0;
	pthread_mutex_lock(&v->u->lock);
	n = live(v);
	split(v, seq - 1, &i, &g);
	while (got < max && (i < n || g < v->n_gone)) {
		if (g == v->n_gone) {
			k = n - i < max - got ? n - i : max - got;
			memcpy(out + got, v->m->msgs + i, k * sizeof(*out));
			i += k;
			got += k;
		} else if (i < n && v->m->msgs[i].uid < v->gone[g].msg.uid) {
			out[got++] = v->m->msgs[i++];
		} else {
			out[got++] = gone_read(v, &v->gone[g++]);
		}
	}
	pthread_mutex_unlock(&v->u->lock);
	return got;
}

uint32_t obox_view_uid(struct obox_view *v, uint32_t seq)
{
	struct obox_msg m;

	return obox_view_read(v, seq, &m, 1) ? m.uid : 0;
}

size_t obox_view_keywords(struct obox_view *v, char **out, size_t from)
{
	size_t n;

	pthread_mutex_lock(&v->u->lock);
	for (n = from; n < v->m->n_keywords; n++)
		out[n] = mem_strdup(v->m->keywords[n]);
	pthread_mutex_unlock(&v->u->lock);
	return n;
}

size_t obox_view_keyword_count(struct obox_view *v)
{
	size_t n;

	pthread_mutex_lock(&v->u->lock);
	n = v->m->n_keywords;
	pthread_mutex_unlock(&v->u->lock);
	return n;
}

/* --- syncing --- */

/* Those that are durable. */
static void take_expunged(struct obox_view *v, struct obox_sync *out)
{
	size_t i, kept = 0;

	out->expunged = mem_calloc(v->n_gone, sizeof(*out->expunged));
	out->expunged_seq = mem_calloc(v->n_gone, sizeof(*out->expunged_seq));
	for (i = 0; i < v->n_gone; i++) {
		const struct gone *g = &v->gone[i];

		if (!journal_done(v->u->ob->journal, g->ticket)) {
			v->gone[kept++] = *g;
			continue;
		}
		out->expunged[out->n_expunged] = g->msg.uid;
		/* those told before it are no longer counted */
		out->expunged_seq[out->n_expunged++] = (uint32_t)(mbox_lower(v->m, g->msg.uid) + kept) + 1;
	}
	v->n_gone = kept;
	if (!kept) {
		free(v->gone);
		v->gone = NULL;
		v->cap_gone = 0;
	}
}

static void add_changed(struct obox_sync *out, size_t *cap, uint32_t seq)
{
	mem_grow(&out->changed, cap, out->n_changed + 1, sizeof(*out->changed));
	out->changed[out->n_changed++] = seq;
}

/* Of the messages that are there: from the ring of recent changes, or by looking at all. */
static void take_live_changes(struct obox_view *v, size_t known, struct obox_sync *out, size_t *cap)
{
	struct mbox *m = v->m;
	struct seqset uids = SEQSET_INIT;
	size_t i, k;
	uint64_t n;

	if (v->told < m->ring_floor) {
		for (i = 0; i < known; i++)
			if (m->msgs[i].modseq > v->told)
				add_changed(out, cap, (uint32_t)(i + gone_lower(v, m->msgs[i].uid)) + 1);
		return;
	}
	for (n = m->ring_n; n > 0 && m->ring_n - n < OBOX_RING; n--) {
		const struct change *c = &m->ring[(n - 1) % OBOX_RING];

		if (c->modseq <= v->told)
			break;
		seqset_add(&uids, c->lo, c->hi);
	}
	for (k = 0; k < uids.n; k++)
		for (i = mbox_lower(m, uids.r[k].lo); i < known && m->msgs[i].uid <= uids.r[k].hi; i++)
			if (m->msgs[i].modseq > v->told)
				add_changed(out, cap, (uint32_t)(i + gone_lower(v, m->msgs[i].uid)) + 1);
	seqset_free(&uids);
}

/* Known messages with a modseq above told; those whose expunge is not told yet changed before it, too, and what is told as
 * HIGHESTMODSEQ lies between. */
static void take_changed(struct obox_view *v, size_t known, struct obox_sync *out)
{
	size_t cap = 0, i;

	if (v->m->highestmodseq <= v->told)
		return;
	take_live_changes(v, known, out, &cap);
	for (i = 0; i < v->n_gone; i++)
		if (v->gone[i].msg.modseq > v->told)
			add_changed(out, &cap, (uint32_t)(mbox_lower(v->m, v->gone[i].msg.uid) + i) + 1);
}

int obox_view_sync(struct obox_view *v, bool expunges_ok, struct obox_sync *out)
{
	uint32_t visible;
	size_t known;

	memset(out, 0, sizeof(*out));
	pthread_mutex_lock(&v->u->lock);
	known = live(v);
	visible = mbox_visible_uidnext(v->m);
	if (expunges_ok && v->n_gone)
		take_expunged(v, out);
	take_changed(v, known, out);
	if (visible > v->known_uidnext) {
		v->known_uidnext = visible;
		out->new_messages = live(v) > known;
	}
	out->exists = (uint32_t)(live(v) + v->n_gone);
	v->told = told_modseq(v->u, v->m);
	out->highestmodseq = below_gone(v, v->told);
	pthread_mutex_unlock(&v->u->lock);
	return out->n_expunged || out->n_changed || out->new_messages;
}

void obox_sync_free(struct obox_sync *s)
{
	free(s->expunged);
	free(s->expunged_seq);
	free(s->changed);
	memset(s, 0, sizeof(*s));
}

/* An own flag change: the view is in step with it when it was with all before. */
void view_own_change(struct obox_view *v, uint64_t before, uint64_t after)
{
	drop_lasting(v->u, v->m);
	if (v->told >= before && !v->m->pending.n && !v->m->n_leaving)
		v->told = after;
}

struct mbox *view_mbox(struct obox_view *v, struct obox_user **u_r)
{
	*u_r = v->u;
	return v->m;
}

uint32_t view_known_uidnext(const struct obox_view *v)
{
	return v->known_uidnext;
}

/* --- CONDSTORE and QRESYNC --- */

static void not_there(const struct mbox *m, const struct seqset *known, uint32_t below, struct seqset *out)
{
	uint32_t at;
	size_t i, k;

	if (known)
		for (i = 0; i < known->n; i++)
			if (known->r[i].lo < below)
				seqset_add(out, known->r[i].lo, known->r[i].hi < below ? known->r[i].hi : below - 1);
	if (!known && below > 1)
		seqset_add(out, 1, below - 1);
	/* take out what is there: gaps between live UIDs remain */
	for (i = 0; i < m->n; i = k) {
		at = m->msgs[i].uid;
		for (k = i + 1; k < m->n && m->msgs[k].uid == at + (k - i); k++)
			;
		seqset_remove(out, at, m->msgs[k - 1].uid);
	}
}

void obox_view_vanished(struct obox_view *v, uint64_t since, const struct seqset *known, struct seqset *out)
{
	struct mbox *m = v->m;
	size_t i;

	seqset_clear(out);
	pthread_mutex_lock(&v->u->lock);
	if (since < m->gone_floor || !mbox_modseq_known(m, v->u->st.epoch, since)) {
		not_there(m, known, v->known_uidnext, out);
	} else {
		for (i = m->n_gone; i-- > 0 && m->gone[i].modseq > since;) {
			uint32_t lo = m->gone[i].lo, hi = m->gone[i].hi, uid;

			if (!known) {
				seqset_add(out, lo, hi);
				continue;
			}
			for (uid = seqset_next(known, lo); uid && uid <= hi; uid = seqset_next(known, uid + 1)) {
				seqset_add(out, uid, uid);
				if (uid == UINT32_MAX)
					break;
			}
		}
	}
	/* expunged since but not told to this view yet: they follow as EXPUNGE or VANISHED of their own */
	for (i = 0; i < v->n_gone; i++)
		seqset_remove(out, v->gone[i].msg.uid, v->gone[i].msg.uid);
	pthread_mutex_unlock(&v->u->lock);
}

bool obox_view_modseq_known(struct obox_view *v, uint64_t since)
{
	bool known;

	pthread_mutex_lock(&v->u->lock);
	known = mbox_modseq_known(v->m, v->u->st.epoch, since);
	pthread_mutex_unlock(&v->u->lock);
	return known;
}
