/* Saving: sealed without the lock, numbered and logged under it, durable and
 * visible after it.
 *
 *   seal       body and summary of each message: the costly part, in parallel
 *   lock       UID and modseq; save record; one journal frame for all; applied but hidden
 *   unlock     objects into the store (a local journal: small ones lazily, because it holds them too;
 *              the store's journal: at the same time as its own object)
 *   wait       the journal is durable
 *   lock       shown, in UID order; views are woken
 * A failure after the journal entry is undone by an expunge record, so what
 * was not acknowledged never appears. */
#include "obox/obox-private.h"

#include "base/log.h"
#include "base/wake.h"
#include "mime/mime.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <unistd.h>

/* A message has so long on its way, and as long again for each so many bytes: a store that is slower than that is one
 * that is away, and whoever brings mail is told so. */
enum { SEND_TRIES = 2, LATE_POLL_US = 50000, SEND_US = 5000000, SEND_BYTES = 4 << 20 };

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
	uint64_t ticket, lsn;	/* lsn: of the first save */
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

		recs[i].msg.modseq = modseq;
		modseq = modseq_after(modseq);
		rc = finish_object(b->u, b->m, &b->msgs[i], &b->s[i], &recs[i].msg, err);
		mobj_data(b->s[i].obj, &data, &len);
		if (rc == 0 && len <= OBOX_JOURNAL_OBJECT)
			objs[i] = (struct journal_object){ b->s[i].key, data, len };
		b->msgs[i].uid_r = recs[i].msg.uid;
		b->msgs[i].modseq_r = recs[i].msg.modseq;
	}
	if (rc == 0)
		rc = user_commit(b->u, recs, objs, b->n, &b->ticket, err);
	if (rc == 0 && !sim_broken("shown-before-durable"))
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

/* --- objects beside the journal: both on their way at once --- */

struct sending {
	struct wake all;
	atomic_size_t flying;
	struct objstore_op *ops;
	struct iovec *iov;
};

static void sent(struct objstore_op *op)
{
	struct sending *x = op->ctx;

	if (atomic_fetch_sub(&x->flying, 1) == 1)
		wake_up(&x->all);
}

static void send_objects(struct batch *b, struct sending *x)
{
	int64_t now = clock_mono_us(&clock_system);
	const void *data;
	size_t i, len;

	memset(x, 0, sizeof(*x));
	wake_init(&x->all);
	x->ops = mem_calloc(b->n, sizeof(*x->ops));
	x->iov = mem_calloc(b->n, sizeof(*x->iov));
	atomic_init(&x->flying, b->n);
	for (i = 0; i < b->n; i++) {
		mobj_data(b->s[i].obj, &data, &len);
		x->iov[i] = (struct iovec){ (void *)(uintptr_t)data, len };
		x->ops[i] = (struct objstore_op){ .verb = OBJ_PUT, .key = b->s[i].key, .cond = OBJ_CREATE, .iov = &x->iov[i], .n_iov = 1,
						  .deadline_us = now + SEND_US + (int64_t)(len / SEND_BYTES) * SEND_US, .done = sent, .ctx = x };
		objstore_submit(b->u->ob->cfg.mail_store, &x->ops[i]);
	}
}

/* Is the object that is there this one, or a tombstone (tail.c) or nothing? */
static bool same_object(struct batch *b, size_t i)
{
	struct buf there = BUF_INIT(MOBJ_FIXED);
	const void *data;
	size_t len;
	bool same;

	mobj_data(b->s[i].obj, &data, &len);
	same = objstore_get_range(b->u->ob->cfg.mail_store, b->s[i].key, 0, MOBJ_FIXED, &there, NULL, NULL) == 0 &&
	       there.len == MOBJ_FIXED && len >= MOBJ_FIXED && !memcmp(there.data, data, MOBJ_FIXED);
	buf_free(&there);
	return same;
}

static int settle_sent(struct batch *b, size_t i, const struct objstore_op *op, struct err *err)
{
	struct objstore *store = b->u->ob->cfg.mail_store;
	int rc = op->rc, tries;
	struct err e = op->err;
	const void *data;
	size_t len;

	mobj_data(b->s[i].obj, &data, &len);
	for (tries = 0; rc < 0 && tries < SEND_TRIES && clock_mono_us(&clock_system) < op->deadline_us; tries++) {
		if (rc == ERR_EXISTS || rc == ERR_CONFLICT || rc == ERR_TIMEOUT) {
			if (same_object(b, i))
				return 0;
			if (rc == ERR_EXISTS)
				return err_set(err, ERR_FENCED, "%s: another node gave this message up", b->s[i].key);
		} else if (!err_is_temporary(rc)) {
			break;
		}
		err_clear(&e);
		rc = objstore_put(store, b->s[i].key, data, len, OBJ_CREATE, NULL, &e);
	}
	return rc < 0 ? err_set(err, rc, "%s", e.msg) : 0;
}

static int sent_all(struct batch *b, struct sending *x, struct err *err)
{
	size_t i;
	int rc = 0;

	if (b->n)
		wake_wait(&x->all, -1);
	for (i = 0; i < b->n && rc == 0; i++)
		rc = settle_sent(b, i, &x->ops[i], err);
	free(x->ops);
	free(x->iov);
	return rc;
}

static int send_and_wait(struct batch *b, struct err *err)
{
	struct sending x;
	int rc;

	journal_start(b->u->ob->journal, b->ticket);
	send_objects(b, &x);
	rc = sent_all(b, &x, err);
	/* last, because this is what says that nobody has taken over meanwhile */
	return rc == 0 ? user_wait(b->u, b->ticket, err) : rc;
}

static int put_and_wait(struct batch *b, struct err *err)
{
	int rc = put_objects(b, err);

	pthread_rwlock_unlock(&b->u->ob->gate);
	if (rc == 0)
		return user_wait(b->u, b->ticket, err);
	user_wait(b->u, b->ticket, NULL);	/* the journal borrows the objects until then */
	return rc;
}

static void take_off(struct obox_user *u, uint64_t lsn)
{
	mem_grow(&u->flying, &u->cap_flying, u->n_flying + 1, sizeof(*u->flying));
	u->flying[u->n_flying++] = (struct flying){ lsn, 0 };
}

/* Its object is there; or, undone, it will never be, and records up to that one say so. */
static void land(struct obox_user *u, uint64_t lsn, uint64_t undone)
{
	size_t i;

	for (i = 0; i < u->n_flying && u->flying[i].lsn != lsn; i++)
		;
	if (i == u->n_flying)
		return;
	if (undone)
		u->flying[i].undone = undone;
	else
		u->flying[i] = u->flying[--u->n_flying];
}

/* What was applied cannot be made durable: nothing more is taken for this user, and what is hidden stays so; under the lock. */
void user_stop(struct obox_user *u)
{
	u->broken = true;
	pthread_cond_broadcast(&u->visible);
}

/* What is hidden until the journal has a record: asks the journal for the first; under the lock, which is released meanwhile. */
static int wait_for_late(struct obox_user *u)
{
	uint64_t ticket = u->late[0].ticket;
	int rc;

	pthread_mutex_unlock(&u->lock);
	rc = user_wait(u, ticket, NULL);
	if (rc == ERR_UNAVAILABLE)
		usleep(LATE_POLL_US);
	pthread_mutex_lock(&u->lock);
	user_settle_late(u);
	return rc == ERR_UNAVAILABLE ? 0 : rc;
}

/* Shows UIDs lo..hi and waits until everything before them is shown too; under the lock.  In a mailbox that was deleted
 * meanwhile nobody waits for anybody. */
void user_show(struct obox_user *u, struct mbox *m, uint32_t lo, uint32_t hi)
{
	seqset_remove(&m->pending, lo, hi);
	view_mailbox_changed(m, NULL);
	pthread_cond_broadcast(&u->visible);
	if (u->n_late)
		user_settle_late(u);
	while (!m->deleted && m->pending.n && m->pending.r[0].lo < lo && !u->broken) {
		if (!u->n_late)
			pthread_cond_wait(&u->visible, &u->lock);
		else if (wait_for_late(u) < 0)
			user_stop(u);
	}
}

/* Takes back what was applied but cannot be acknowledged; under the lock, which is released meanwhile.  The UIDs stay
 * hidden until the journal has it: a UIDNEXT behind them must not be told while a crash may still make them new again. */
static void batch_undo(struct batch *b)
{
	struct seqset uids = SEQSET_INIT;
	struct rec r = { .type = REC_EXPUNGE, .guid = b->m->guid, .on = true, .uids = &uids };
	uint32_t last = b->first + (uint32_t)b->n - 1;
	struct obox_user *u = b->u;
	struct err e = ERR_INIT;
	uint64_t ticket;
	int rc;

	seqset_add(&uids, b->first, last);
	r.modseq = root_next_modseq(&u->st, b->m);
	r.time = clock_wall_s(u->ob->cfg.clock);
	rc = user_commit_forced(u, &r, &ticket, &e);
	seqset_free(&uids);
	if (rc == 0) {
		land(u, b->lsn, u->st.lsn);
		pthread_mutex_unlock(&u->lock);
		rc = sim_broken("uidnext-given-back") ? 0 : user_wait(u, ticket, &e);
		pthread_mutex_lock(&u->lock);
		if (rc == 0)
			user_show(u, b->m, b->first, last);
		else if (rc == ERR_UNAVAILABLE && u->ob->cfg.cluster)
			user_late(u, ticket, &b->m->guid, b->first, last);
	}
	if (rc < 0 && !(rc == ERR_UNAVAILABLE && u->ob->cfg.cluster)) {
		log_event(LOG_WARN, "unacknowledged message stays in the log, hidden: it may appear after a restart", LF_S("user", u->name),
			  LF_ERR(&e), LF_END);
		user_stop(u);
	}
}

static int batch_begin(struct batch *b, const char *mailbox, uint32_t *uidvalidity_r, struct err *err)
{
	struct obox_user *u = b->u;
	int rc;

	pthread_mutex_lock(&u->lock);
	rc = user_mbox(u, mailbox, true, &b->m, err);
	if (rc == 0)
		rc = batch_commit(b, err);
	if (rc == 0) {
		b->lsn = u->st.lsn - b->n + 1;
		take_off(u, b->lsn);
		b->m->pins++;
		if (uidvalidity_r)
			*uidvalidity_r = b->m->uidvalidity;
	}
	pthread_mutex_unlock(&u->lock);
	return rc;
}

static int batch_run(struct batch *b, const char *mailbox, uint32_t *uidvalidity_r, struct err *err)
{
	struct obox_user *u = b->u;
	bool beside = !u->ob->journal->ops->holds_objects;
	size_t i;
	int rc;

	if (!beside)
		pthread_rwlock_rdlock(&u->ob->gate);
	rc = batch_begin(b, mailbox, uidvalidity_r, err);
	if (rc < 0) {
		if (!beside)
			pthread_rwlock_unlock(&u->ob->gate);
		return rc;
	}
	rc = beside ? send_and_wait(b, err) : put_and_wait(b, err);
	pthread_mutex_lock(&u->lock);
	if (rc == 0 && b->m->deleted)
		rc = err_set(err, ERR_NOTFOUND, "mailbox was deleted meanwhile");
	if (rc == 0 || b->m->deleted) {
		land(u, b->lsn, rc < 0 ? u->st.lsn : 0);	/* what deleted the mailbox takes it back, too */
		user_show(u, b->m, b->first, b->first + (uint32_t)b->n - 1);
	} else {
		batch_undo(b);
	}
	mbox_unpin(b->m);
	pthread_mutex_unlock(&u->lock);
	/* beside the journal an object may still be on its way, and deleting what may come back is no good */
	for (i = 0; rc < 0 && !beside && i < b->n; i++)
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
