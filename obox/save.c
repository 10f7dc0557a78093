/* Saving: sealed without the lock, numbered and logged under it, durable and
 * visible after it.
 *
 *   seal       body and summary of each message: the costly part, in parallel
 *   lock       UID and modseq; save record; one journal frame for all; applied but hidden
 *   unlock     objects into the store (small ones lazily: the journal holds them too)
 *   wait       the journal is durable
 *   lock       shown, in UID order; views are woken
 * A failure after the journal entry is undone by an expunge record, so what
 * was not acknowledged never appears. */
#include "obox/obox-private.h"

#include "base/log.h"
#include "mime/mime.h"

#include <inttypes.h>

struct saving {
	char *key;
	struct obox_oid oid;
	struct mobj *obj;
	struct buf summary;	/* only when lines were put before the message */
	const void *sum;
	size_t sum_len;
	bool put;		/* its object is in the store */
};

static int seal_one(struct obox_user *u, const struct obox_save *sv, struct saving *s, struct err *err)
{
	s->sum = obox_msgin_summary(sv->msg, &s->sum_len);
	if (sv->prepend && *sv->prepend) {
		if (mime_summary_prepend(s->sum, s->sum_len, sv->prepend, strlen(sv->prepend), &s->summary) < 0)
			return err_set(err, ERR_INVALID, "lines before the message are not header fields");
		s->sum = s->summary.data;
		s->sum_len = s->summary.len;
	}
	s->oid.epoch = u->st.epoch;	/* does not change while the user is open: no lock is held here */
	s->oid.n = atomic_fetch_add(&u->next_oid, 1) + 1;
	s->key = user_key(u, "m/%08" PRIx64 "-%08" PRIx64, s->oid.epoch, s->oid.n);
	return mobj_seal(u->ob, s->key, sv->msg, sv->prepend, s->sum, s->sum_len, &s->obj, err);
}

static void saving_free(struct saving *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		mobj_free(&s[i].obj);
		buf_free(&s[i].summary);
		free(s[i].key);
	}
	free(s);
}

static int finish_object(struct obox_user *u, struct mbox *m, const struct obox_save *sv, struct saving *s, const struct obox_msg *msg, struct err *err)
{
	struct obox_origin g = {
		.user = u->name, .mailbox = m->name, .env_from = (char *)(uintptr_t)sv->env_from, .env_to = (char *)(uintptr_t)sv->env_to,
		.pop3_uidl = (char *)(uintptr_t)sv->pop3_uidl, .uidvalidity = m->uidvalidity, .uid = msg->uid, .modseq = msg->modseq, .flags = msg->flags,
		.keywords = (char **)(uintptr_t)sv->keywords, .n_keywords = sv->n_keywords, .idate = msg->idate, .sdate = msg->sdate,
	};

	memcpy(g.sha256, mobj_sha256(s->obj), sizeof(g.sha256));
	return mobj_finish(u->ob, s->obj, &g, &m->guid, err);
}

/* Under the lock: bits for keywords, with records for new ones. */
int user_keyword_bits(struct obox_user *u, struct mbox *m, const char *const *names, size_t n, bool create, uint64_t kw[2], struct err *err)
{
	uint64_t ticket;
	size_t i;
	int bit, rc;

	kw[0] = kw[1] = 0;
	for (i = 0; i < n; i++) {
		bit = mbox_keyword(m, names[i]);
		if (bit < 0 && create) {
			struct rec r = { .type = REC_KEYWORD, .guid = m->guid, .name = names[i], .bit = (uint32_t)m->n_keywords };

			if (m->n_keywords == OBOX_KEYWORDS_MAX)
				return err_set(err, ERR_LIMIT, "mailbox has %d keywords already: \"%s\" cannot be added", OBOX_KEYWORDS_MAX, names[i]);
			if (!*names[i] || strlen(names[i]) > OBOX_KEYWORD_LEN_MAX)
				return err_set(err, ERR_INVALID, "keyword is empty or longer than %d bytes", OBOX_KEYWORD_LEN_MAX);
			bit = (int)m->n_keywords;
			rc = user_commit(u, &r, NULL, 1, &ticket, err);
			if (rc < 0)
				return rc;
		}
		if (bit >= 0)
			kw[bit / 64] |= UINT64_C(1) << (bit % 64);
	}
	return 0;
}

struct batch {
	struct obox_user *u;
	struct mbox *m;
	struct obox_save *msgs;
	struct saving *s;
	size_t n;
	uint32_t first;		/* UIDs first .. first + n - 1 */
	uint64_t ticket;
};

/* Under the lock: numbers, records, one frame; hidden until batch_show. */
static int batch_commit(struct batch *b, struct err *err)
{
	struct rec *recs = mem_calloc(b->n, sizeof(*recs));
	struct journal_object *objs = mem_calloc(b->n, sizeof(*objs));
	int64_t now = clock_wall_s(b->u->ob->cfg.clock);
	uint64_t modseq;
	size_t i;
	int rc = 0;

	if (b->n > UINT32_MAX - b->m->uidnext)
		rc = err_set(err, ERR_LIMIT, "mailbox has used up its UIDs");
	b->first = b->m->uidnext;
	for (i = 0; i < b->n && rc == 0; i++) {
		struct obox_save *sv = &b->msgs[i];
		struct obox_msg *msg = &recs[i].msg;

		rc = user_keyword_bits(b->u, b->m, sv->keywords, sv->n_keywords, true, msg->kw, err);
		if (rc < 0)
			break;
		recs[i].type = REC_SAVE;
		recs[i].guid = b->m->guid;
		recs[i].summary = b->s[i].sum;
		recs[i].summary_len = b->s[i].sum_len;
		msg->uid = b->first + (uint32_t)i;
		msg->flags = sv->flags & OBOX_FLAGS_ALL;
		msg->size = mobj_message_size(b->s[i].obj);
		msg->idate = sv->idate == INT64_MIN ? now : sv->idate;
		msg->sdate = now;
		msg->oid = b->s[i].oid;
	}
	modseq = root_next_modseq(&b->u->st, b->m);	/* behind the keywords' */
	for (i = 0; i < b->n && rc == 0; i++) {
		const void *data;
		size_t len;

		recs[i].msg.modseq = modseq + i;
		rc = finish_object(b->u, b->m, &b->msgs[i], &b->s[i], &recs[i].msg, err);
		mobj_data(b->s[i].obj, &data, &len);
		if (rc == 0 && len <= OBOX_JOURNAL_OBJECT)
			objs[i] = (struct journal_object){ b->s[i].key, data, len };
		b->msgs[i].uid_r = recs[i].msg.uid;
		b->msgs[i].modseq_r = recs[i].msg.modseq;
	}
	if (rc == 0)
		rc = user_commit(b->u, recs, objs, b->n, &b->ticket, err);
	if (rc == 0)
		seqset_add(&b->m->pending, b->first, b->first + (uint32_t)b->n - 1);
	free(recs);
	free(objs);
	return rc;
}

static int put_objects(struct batch *b, struct err *err)
{
	struct objstore *store = b->u->ob->cfg.mail_store;
	int rc = 0;
	size_t i;

	for (i = 0; i < b->n && rc == 0; i++) {
		const void *data;
		struct iovec iov;
		size_t len;

		mobj_data(b->s[i].obj, &data, &len);
		iov = (struct iovec){ (void *)(uintptr_t)data, len };
		rc = len <= OBOX_JOURNAL_OBJECT ? objstore_put_lazy(store, b->s[i].key, &iov, 1, err) :
						  objstore_put(store, b->s[i].key, data, len, OBJ_CREATE, NULL, err);
		/* after any error what is there, or will be, may be somebody else's: it is not ours to delete */
		b->s[i].put = rc == 0;
	}
	return rc;
}

/* What was applied cannot be made durable: nothing more is taken for this user, and what is hidden stays so; under the lock. */
void user_stop(struct obox_user *u)
{
	u->broken = true;
	pthread_cond_broadcast(&u->visible);
}

/* Takes back what was applied but cannot be acknowledged; under the lock. */
static int batch_undo(struct batch *b)
{
	struct seqset uids = SEQSET_INIT;
	struct rec r = { .type = REC_EXPUNGE, .guid = b->m->guid, .on = true, .uids = &uids };
	struct err e = ERR_INIT;
	uint64_t ticket;
	int rc = 0;

	seqset_add(&uids, b->first, b->first + (uint32_t)b->n - 1);
	r.modseq = root_next_modseq(&b->u->st, b->m);
	r.time = clock_wall_s(b->u->ob->cfg.clock);
	if (!b->m->deleted)
		rc = user_commit(b->u, &r, NULL, 1, &ticket, &e);
	if (rc < 0) {
		log_event(LOG_WARN, "unacknowledged message stays in the log, hidden: it may appear after a restart", LF_S("user", b->u->name),
			  LF_ERR(&e), LF_END);
		user_stop(b->u);
	}
	seqset_free(&uids);
	return rc;
}

/* Shows UIDs lo..hi and waits until everything before them is shown too; under the lock. */
void user_show(struct obox_user *u, struct mbox *m, uint32_t lo, uint32_t hi)
{
	seqset_remove(&m->pending, lo, hi);
	view_mailbox_changed(m, NULL);
	pthread_cond_broadcast(&u->visible);
	while (m->pending.n && m->pending.r[0].lo < lo && !u->broken)
		pthread_cond_wait(&u->visible, &u->lock);
}

static int batch_run(struct batch *b, const char *mailbox, uint32_t *uidvalidity_r, struct err *err)
{
	struct obox_user *u = b->u;
	size_t i;
	int rc;

	pthread_rwlock_rdlock(&u->ob->gate);
	pthread_mutex_lock(&u->lock);
	rc = user_mbox(u, mailbox, true, &b->m, err);
	if (rc == 0)
		rc = batch_commit(b, err);
	if (rc == 0) {
		b->m->pins++;
		if (uidvalidity_r)
			*uidvalidity_r = b->m->uidvalidity;
	}
	pthread_mutex_unlock(&u->lock);
	if (rc < 0) {
		pthread_rwlock_unlock(&u->ob->gate);
		return rc;
	}
	rc = put_objects(b, err);
	pthread_rwlock_unlock(&u->ob->gate);
	if (rc == 0)
		rc = user_wait(u, b->ticket, err);
	else
		user_wait(u, b->ticket, NULL);	/* the journal borrows the objects until then */
	pthread_mutex_lock(&u->lock);
	if (rc == 0 && b->m->deleted)
		rc = err_set(err, ERR_NOTFOUND, "mailbox was deleted meanwhile");
	if (rc == 0 || batch_undo(b) == 0)
		user_show(u, b->m, b->first, b->first + (uint32_t)b->n - 1);
	mbox_unpin(b->m);
	pthread_mutex_unlock(&u->lock);
	for (i = 0; rc < 0 && i < b->n; i++)
		if (b->s[i].put)
			objstore_delete(u->ob->cfg.mail_store, b->s[i].key, NULL);
	return rc;
}

int obox_save(struct obox_user *u, const char *mailbox, struct obox_save *msgs, size_t n, uint32_t *uidvalidity_r, struct err *err)
{
	struct batch b = { .u = u, .msgs = msgs, .n = n };
	struct mbox *m;
	size_t i;
	int rc;

	if (n == 0)
		return err_set(err, ERR_INVALID, "nothing to save");
	pthread_mutex_lock(&u->lock);	/* before the work: is there such a mailbox? */
	rc = user_mbox(u, mailbox, false, &m, err);
	pthread_mutex_unlock(&u->lock);
	if (rc < 0)
		return rc;
	b.s = mem_calloc(n, sizeof(*b.s));
	for (i = 0; i < n && rc == 0; i++)
		rc = seal_one(u, &msgs[i], &b.s[i], err);
	if (rc == 0)
		rc = batch_run(&b, mailbox, uidvalidity_r, err);
	saving_free(b.s, n);
	return rc;
}
