/* Changes through a view: flags, copies, moves, expunges.  Each is one record,
 * whatever the number of messages. */
#include "obox/obox-private.h"

static int writable(struct obox_view *v, struct err *err)
{
	struct obox_user *u;

	if (obox_view_read_only(v))
		return err_set(err, ERR_DENIED, "mailbox is selected read-only");
	if (view_mbox(v, &u)->deleted)
		return err_set(err, ERR_NOTFOUND, "mailbox was deleted");
	return 0;
}

/* --- flags --- */

static bool would_change(const struct obox_msg *m, const struct obox_flag_change *c, const uint64_t kw[2])
{
	uint32_t f = c->flags & OBOX_FLAGS_ALL;

	switch (c->how) {
	case OBOX_FLAGS_ADD:
		return (m->flags & f) != f || (m->kw[0] & kw[0]) != kw[0] || (m->kw[1] & kw[1]) != kw[1];
	case OBOX_FLAGS_REMOVE:
		return (m->flags & f) || (m->kw[0] & kw[0]) || (m->kw[1] & kw[1]);
	default:
		return m->flags != f || m->kw[0] != kw[0] || m->kw[1] != kw[1];
	}
}

static void pick(struct obox_view *v, const struct mbox *m, const struct seqset *uids, const struct obox_flag_change *c, const uint64_t kw[2],
		 struct seqset *changed, struct seqset *modified)
{
	uint32_t below = view_known_uidnext(v);
	size_t i, k;

	for (k = 0; k < uids->n; k++) {
		for (i = mbox_lower(m, uids->r[k].lo); i < m->n && m->msgs[i].uid <= uids->r[k].hi && m->msgs[i].uid < below; i++) {
			const struct obox_msg *msg = &m->msgs[i];

			if (c->unchangedsince != UINT64_MAX && msg->modseq > c->unchangedsince) {
				if (modified)
					seqset_add(modified, msg->uid, msg->uid);
			} else if (would_change(msg, c, kw)) {
				seqset_add(changed, msg->uid, msg->uid);
			}
		}
	}
}

static int store_locked(struct obox_view *v, struct obox_user *u, const struct seqset *uids, const struct obox_flag_change *c,
			struct seqset *modified, struct seqset *changed, uint64_t *ticket, struct err *err)
{
	struct mbox *m = view_mbox(v, &u);
	struct rec r = { .type = REC_FLAGS, .guid = m->guid, .how = c->how, .flags = c->flags & OBOX_FLAGS_ALL, .uids = changed };
	uint64_t before = m->highestmodseq;
	int rc = writable(v, err);

	if (rc == 0)
		rc = user_keyword_bits(u, m, c->keywords, c->n_keywords, c->how != OBOX_FLAGS_REMOVE, r.kw, err);
	if (rc < 0)
		return rc;
	pick(v, m, uids, c, r.kw, changed, modified);
	if (!changed->n)
		return 0;
	r.modseq = root_next_modseq(&u->st, m);
	rc = user_commit(u, &r, NULL, 1, ticket, err);
	if (rc < 0)
		return rc;
	view_own_change(v, before, m->highestmodseq);
	view_mailbox_changed(m, v);
	return 1;
}

int obox_store(struct obox_view *v, const struct seqset *uids, const struct obox_flag_change *c,
	       struct seqset *modified_r, struct seqset *changed_r, uint64_t *modseq_r, struct err *err)
{
	struct seqset own = SEQSET_INIT, *changed = changed_r ? changed_r : &own;
	struct obox_user *u;
	uint64_t ticket = 0;
	struct mbox *m;
	int rc;

	m = view_mbox(v, &u);
	if (modified_r)
		seqset_clear(modified_r);
	seqset_clear(changed);
	pthread_mutex_lock(&u->lock);
	rc = store_locked(v, u, uids, c, modified_r, changed, &ticket, err);
	if (modseq_r)
		*modseq_r = m->highestmodseq;
	pthread_mutex_unlock(&u->lock);
	seqset_free(&own);
	if (rc <= 0)
		return rc;
	if (u->ob->cfg.flag_commit_delay_ms == 0)
		return user_wait(u, ticket, err);
	/* a store that is slow makes flag changes wait rather than be lost in numbers */
	return journal_push(u->ob->journal) ? 0 : user_wait(u, ticket, err);
}

/* What somebody else's expunge or move took out of the mailbox is gone for who asks for the same, but the answer is a
 * promise, too: it waits for the journal. */
static int wait_for_gone(struct obox_user *u, uint64_t ticket, struct err *err)
{
	return ticket && !journal_done(u->ob->journal, ticket) ? user_wait(u, ticket, err) : 0;
}

/* --- copy and move --- */

static uint32_t existing(struct obox_view *v, const struct mbox *m, const struct seqset *uids, struct seqset *out)
{
	uint32_t below = view_known_uidnext(v), n = 0;
	size_t i, k;

	for (k = 0; k < uids->n; k++)
		for (i = mbox_lower(m, uids->r[k].lo); i < m->n && m->msgs[i].uid <= uids->r[k].hi && m->msgs[i].uid < below; i++) {
			seqset_add(out, m->msgs[i].uid, m->msgs[i].uid);
			n++;
		}
	return n;
}

static int copy_locked(struct obox_view *v, struct obox_user *u, const struct seqset *uids, const char *to_name, bool move,
		       struct obox_copy_result *res, struct mbox **to_r, uint32_t *first, uint32_t *n_r, uint64_t *ticket, struct err *err)
{
	struct mbox *m = view_mbox(v, &u), *to;
	struct rec r = { .type = REC_COPY, .guid = m->guid, .on = move, .uids = &res->src };
	uint32_t n;
	int rc;

	rc = user_mbox(u, to_name, true, &to, err);
	if (rc == 0 && m->deleted)
		rc = err_set(err, ERR_NOTFOUND, "mailbox was deleted");
	if (rc == 0 && move)
		rc = writable(v, err);
	if (rc < 0)
		return rc;
	res->uidvalidity = to->uidvalidity;
	n = existing(v, m, uids, &res->src);
	if (!n) {
		*ticket = move ? m->gone_ticket : 0;
		return 0;
	}
	if (n > UINT32_MAX - to->uidnext)
		return err_set(err, ERR_LIMIT, "mailbox has used up its UIDs");
	r.to = to->guid;
	r.to_uid = *first = to->uidnext;
	r.to_modseq = root_next_modseq(&u->st, to);
	r.modseq = to == m ? modseq_after(r.to_modseq) : root_next_modseq(&u->st, m);
	r.time = clock_wall_s(u->ob->cfg.clock);
	rc = user_commit(u, &r, NULL, 1, ticket, err);
	if (rc < 0)
		return rc;
	if (move)
		m->gone_ticket = *ticket;
	seqset_add(&res->dst, *first, *first + n - 1);
	seqset_add(&to->pending, *first, *first + n - 1);
	to->pins++;
	*to_r = to;
	*n_r = n;
	return 1;
}

/* Views tell an expunge when the journal has it; under the lock. */
static void tell_expunged(struct obox_view *v, struct obox_user *u, uint64_t ticket, int rc)
{
	struct mbox *m = view_mbox(v, &u);

	if (rc == 0)
		view_mailbox_changed(m, v);
	else if (rc == ERR_UNAVAILABLE && u->ob->cfg.cluster)
		user_late(u, ticket, &m->guid, 0, 0);
}

/* The store is away: copies are taken back, because they will be tried again; what was moved is shown when the
 * journal has the record after all.  Otherwise the journal has failed for good.  Under the lock. */
static void not_acknowledged(struct obox_user *u, struct mbox *to, uint32_t first, uint32_t n, bool move, uint64_t ticket)
{
	struct seqset uids = SEQSET_INIT;
	struct rec r = { .type = REC_EXPUNGE, .guid = to->guid, .on = true, .uids = &uids, .time = clock_wall_s(u->ob->cfg.clock) };
	uint64_t t;

	if (!u->ob->cfg.cluster || u->broken) {
		user_stop(u);
		return;
	}
	seqset_add(&uids, first, first + n - 1);
	r.modseq = root_next_modseq(&u->st, to);
	if (to->deleted)
		user_show(u, to, first, first + n - 1);
	else if (move)
		user_late(u, ticket, &to->guid, first, first + n - 1);
	else if (user_commit_forced(u, &r, &t, NULL) == 0)
		user_late(u, t, &to->guid, first, first + n - 1);	/* as batch_undo() in save.c */
	else
		user_stop(u);
	seqset_free(&uids);
}

int obox_copy(struct obox_view *v, const struct seqset *uids, const char *to_name, bool move, struct obox_copy_result *res, struct err *err)
{
	uint32_t first = 0, n = 0;
	struct mbox *to = NULL;
	struct obox_user *u;
	uint64_t ticket = 0;
	int rc;

	memset(res, 0, sizeof(*res));
	view_mbox(v, &u);
	pthread_mutex_lock(&u->lock);
	rc = copy_locked(v, u, uids, to_name, move, res, &to, &first, &n, &ticket, err);
	pthread_mutex_unlock(&u->lock);
	if (rc == 0)
		return wait_for_gone(u, ticket, err);
	if (rc < 0)
		return rc;
	rc = user_wait(u, ticket, err);	/* on failure the journal is broken, and nothing is acknowledged any more */
	pthread_mutex_lock(&u->lock);
	if (move)
		tell_expunged(v, u, ticket, rc);
	if (rc == 0)
		user_show(u, to, first, first + n - 1);
	else
		not_acknowledged(u, to, first, n, move, ticket);
	mbox_unpin(to);
	pthread_mutex_unlock(&u->lock);
	return rc;
}

void obox_copy_result_free(struct obox_copy_result *res)
{
	seqset_free(&res->src);
	seqset_free(&res->dst);
}

/* --- expunge --- */

int obox_expunge(struct obox_view *v, const struct seqset *uids, bool any, uint64_t *modseq_r, struct err *err)
{
	struct seqset gone = SEQSET_INIT;
	struct obox_user *u;
	struct mbox *m = view_mbox(v, &u);
	struct rec r = { .type = REC_EXPUNGE, .guid = m->guid, .uids = &gone };
	uint64_t ticket = 0;
	uint32_t below;
	size_t i;
	int rc;

	pthread_mutex_lock(&u->lock);
	rc = writable(v, err);
	below = view_known_uidnext(v);
	if (rc == 0 && any && uids) {
		existing(v, m, uids, &gone);
	} else if (rc == 0 && m->n_deleted) {
		for (i = 0; i < m->n && m->msgs[i].uid < below; i++)
			if ((m->msgs[i].flags & OBOX_DELETED) && (!uids || seqset_contains(uids, m->msgs[i].uid)))
				seqset_add(&gone, m->msgs[i].uid, m->msgs[i].uid);
	}
	if (rc == 0 && gone.n) {
		r.modseq = root_next_modseq(&u->st, m);
		r.time = clock_wall_s(u->ob->cfg.clock);
		rc = user_commit(u, &r, NULL, 1, &ticket, err);
		if (rc == 0)
			m->gone_ticket = ticket;
	} else {
		ticket = m->gone_ticket;
	}
	if (modseq_r)
		*modseq_r = m->highestmodseq;
	pthread_mutex_unlock(&u->lock);
	if (rc == 0 && !gone.n)
		rc = wait_for_gone(u, ticket, err);
	if (rc == 0 && gone.n) {
		rc = user_wait(u, ticket, err);
		pthread_mutex_lock(&u->lock);
		tell_expunged(v, u, ticket, rc);
		pthread_mutex_unlock(&u->lock);
	}
	seqset_free(&gone);
	return rc;
}
