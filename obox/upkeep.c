/* What is done without being asked: uploads, checkpoints, eviction, and the
 * shortening of a journal in the store. */
#include "obox/obox-private.h"

#include "base/log.h"

enum { CHECKPOINT_BYTES = 64 << 20, CHECKPOINT_US = 15 * 60 * 1000000, UPLOAD_BYTES = 64 << 10, USED_US = 60 * 1000000 };
/* Opening a user costs four reads and a PUT, and the end of one several; being kept costs nothing but memory, which has a bound of its own. */
static const int64_t IDLE_LOCAL_US = INT64_C(5) * 60 * 1000000, IDLE_CLUSTER_US = INT64_C(60) * 60 * 1000000, FOLD_US = INT64_C(30) * 60 * 1000000;

/* --- checkpoints --- */

/* A user being opened may have its first records in the journal file that is
 * to go: each that is at it now is waited for.  Under ob->lock. */
static void wait_for_opening(struct obox *ob)
{
	char **names = NULL;
	size_t cap = 0, n = 0, pos = 0, i;
	struct obox_user *u;
	void *v;

	while (hmap_next(&ob->users, &pos, NULL, NULL, &v)) {
		u = v;
		if (u->phase != USER_OPENING)
			continue;
		mem_grow(&names, &cap, n + 1, sizeof(*names));
		names[n++] = mem_strdup(u->name);
	}
	for (i = 0; i < n; i++) {
		while ((u = hmap_gets(&ob->users, names[i])) != NULL && u->phase == USER_OPENING)
			pthread_cond_wait(&ob->cond, &ob->lock);
		free(names[i]);
	}
	free(names);
}

/* Users to be uploaded now; each gets a reference. */
static struct obox_user **pin_users(struct obox *ob, const char *name, size_t *n_r)
{
	struct obox_user **list = NULL;
	size_t cap = 0, n = 0, pos = 0;
	void *v;

	pthread_mutex_lock(&ob->lock);
	if (!name)
		wait_for_opening(ob);
	while (hmap_next(&ob->users, &pos, NULL, NULL, &v)) {
		struct obox_user *u = v;

		if (u->phase != USER_OPEN || (name && strcmp(name, u->name) != 0))
			continue;
		mem_grow(&list, &cap, n + 1, sizeof(*list));
		list[n++] = u;
		u->refs++;
	}
	pthread_mutex_unlock(&ob->lock);
	*n_r = n;
	return list;
}

static int sync_stores(struct obox *ob, struct err *err)
{
	int rc = 0;

	if (ob->cfg.mail_store->caps & OBJ_CAP_LAZY)
		rc = objstore_sync(ob->cfg.mail_store, err);
	if (rc == 0 && ob->cfg.index_store != ob->cfg.mail_store && (ob->cfg.index_store->caps & OBJ_CAP_LAZY))
		rc = objstore_sync(ob->cfg.index_store, err);
	return rc;
}

/* One user, with a sync of its own where the store needs one. */
static int upload_one(struct obox_user *u, bool release, bool snapshot, struct err *err)
{
	struct upload up;
	int rc = upload_prepare(u, release, snapshot, &up, err);

	if (rc < 0)
		return rc;
	if (up.man.log_seq != u->man.log_seq || up.man.snap.lsn != u->man.snap.lsn) {
		rc = sync_stores(u->ob, err);
		if (rc < 0) {
			upload_abandon(&up);
			return rc;
		}
	}
	return upload_commit(&up, err);
}

struct uploads {
	struct obox_user **list;
	bool force, stop;		/* stop: when one fails, the others would not fare better now */
	pthread_mutex_t lock;
	int rc;
	struct err err;
};

static void upload_nth(void *ctx, size_t i)
{
	struct uploads *x = ctx;
	struct err e = ERR_INIT;
	bool stop;
	int rc;

	pthread_mutex_lock(&x->lock);
	stop = x->stop && x->rc < 0;
	pthread_mutex_unlock(&x->lock);
	if (stop)
		return;
	rc = upload_one(x->list[i], false, x->force, &e);
	if (rc == 0 || x->list[i]->lost)
		return;
	log_event(LOG_WARN, "log cannot be uploaded now", LF_S("user", x->list[i]->name), LF_ERR(&e), LF_END);
	pthread_mutex_lock(&x->lock);
	x->rc = rc;
	x->err = e;
	pthread_mutex_unlock(&x->lock);
}

static int upload_many(struct obox *ob, struct obox_user **list, size_t n, bool force, struct err *err)
{
	struct uploads x = { .list = list, .force = force };

	pthread_mutex_init(&x.lock, NULL);
	obox_each(ob, n, upload_nth, &x);
	pthread_mutex_destroy(&x.lock);
	return x.rc < 0 ? err_set(err, x.rc, "%s", x.err.msg) : 0;
}

/* Uploads many users with one sync of the store. */
static int upload_all(struct obox *ob, struct obox_user **list, size_t n, bool force, struct err *err)
{
	struct upload *ups = mem_calloc(n, sizeof(*ups));
	size_t i, k = 0;
	int rc = 0, r;

	for (i = 0; i < n; i++) {
		struct err e = ERR_INIT;

		r = upload_prepare(list[i], false, force, &ups[k], &e);
		if (r == 0) {
			k++;
		} else {
			log_event(LOG_WARN, "log cannot be uploaded now", LF_S("user", list[i]->name), LF_ERR(&e), LF_END);
			rc = err_set(err, r, "%s", e.msg);
		}
	}
	r = sync_stores(ob, err);
	for (i = 0; i < k; i++) {
		if (r < 0) {
			upload_abandon(&ups[i]);
		} else {
			int c = upload_commit(&ups[i], err);

			rc = rc < 0 ? rc : c;
		}
	}
	free(ups);
	return r < 0 ? r : rc;
}

/* Not obox_user_close(): nobody used them. */
static void unpin_users(struct obox *ob, struct obox_user **list, size_t n)
{
	size_t i;

	pthread_mutex_lock(&ob->lock);
	for (i = 0; i < n; i++)
		list[i]->refs--;
	pthread_mutex_unlock(&ob->lock);
	free(list);
}

/* Every record that is not in its user's log goes into the journal once more. */
static int rewrite_tail(struct obox_user *u, struct err *err)
{
	struct journal_entry e = { .user = u->name };
	uint64_t ticket;
	struct rd r;
	int rc = 0;

	pthread_mutex_lock(&u->lock);
	r = rd_init(u->tail.data, u->tail.len);
	e.epoch = u->man.epoch;
	for (e.lsn = u->man.log_lsn + 1; rc == 0 && !u->lost && rd_left(&r); e.lsn++) {
		e.rec = rd_blob(&r, &e.rec_len);
		if (e.lsn == u->st.lsn)	/* only with all of them it says what is true now */
			e.landed = user_landed(u);
		rc = journal_append(u->ob->journal, &e, 1, &ticket, err);
	}
	pthread_mutex_unlock(&u->lock);
	return rc;
}

static int rewrite_tails(struct obox *ob, struct obox_user **list, size_t n, struct err *err)
{
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < n && !sim_broken("tail-not-rewritten"); i++)
		rc = rewrite_tail(list[i], err);
	return rc == 0 ? journal_sync(ob->journal, err) : rc;
}

/* After this every record so far is in its user's log, and the journal is short. */
int obox_checkpoint(struct obox *ob, const char *user, struct err *err)
{
	struct obox_user **list;
	uint64_t old = 0;
	size_t n;
	int rc = 0;

	pthread_mutex_lock(&ob->upkeep_lock);
	if (!user)
		rc = journal_rotate(ob->journal, &old, err);
	else
		rc = journal_sync(ob->journal, err);
	if (rc == 0) {
		/* saves that are in the old file have put their objects when the gate was ours */
		pthread_rwlock_wrlock(&ob->gate);
		pthread_rwlock_unlock(&ob->gate);
		list = pin_users(ob, user, &n);
		rc = ob->cfg.cluster ? upload_many(ob, list, n, user != NULL, err) : upload_all(ob, list, n, user != NULL, err);
		/* what is left: saves on their way, a segment begun before them */
		if (rc == 0 && !user && ob->cfg.cluster)
			rc = rewrite_tails(ob, list, n, err);
		unpin_users(ob, list, n);
	}
	if (rc == 0 && !user)
		journal_drop(ob->journal, old);
	ob->last_checkpoint_us = clock_mono_us(ob->cfg.clock);
	pthread_mutex_unlock(&ob->upkeep_lock);
	return rc;
}

/* The journal's old pieces are given up: what is still needed of them is written again, at its end. */
static int compact(struct obox *ob, struct err *err)
{
	struct obox_user **list;
	uint64_t old = 0;
	size_t n;
	int rc;

	pthread_mutex_lock(&ob->upkeep_lock);
	rc = journal_rotate(ob->journal, &old, err);
	if (rc == 0) {
		list = pin_users(ob, NULL, &n);
		rc = rewrite_tails(ob, list, n, err);
		unpin_users(ob, list, n);
	}
	if (rc == 0)
		journal_drop(ob->journal, old);
	pthread_mutex_unlock(&ob->upkeep_lock);
	return rc;
}

int obox_flush(struct obox *ob, const char *user, struct err *err)
{
	return obox_checkpoint(ob, user, err);
}

/* --- upkeep --- */

/* Is it time for snapshots, now that the user goes?  Who opens it next reads one segment behind them for a GET; snapshots are three
 * PUTs or more, each the price of a dozen.  A local journal's segments are files and cost more to read than to leave out. */
static bool wants_snapshots(struct obox_user *u)
{
	uint64_t segments;

	pthread_mutex_lock(&u->lock);
	segments = u->man.log_seq - u->man.snap_seq + (u->tail.len > 0);
	pthread_mutex_unlock(&u->lock);
	return !u->ob->cfg.cluster || segments > 1 || u->man.snap.lsn == 0;
}

static int retire(struct obox_user *u)
{
	struct err e = ERR_INIT;
	bool begun;
	int rc = 0;

	if (u->lost)
		return 0;	/* there is nothing here that is still ours to write */
	pthread_mutex_lock(&u->lock);
	begun = u->started.lsn && u->started.lsn != u->st.lsn;
	pthread_mutex_unlock(&u->lock);
	if (begun)	/* its slot keeps what was begun; the rest goes into the next */
		rc = upload_one(u, false, false, &e);
	if (rc == 0)
		rc = upload_one(u, true, wants_snapshots(u), &e);
	if (u->lost)
		return 0;
	if (rc < 0)
		log_event(LOG_WARN, "user cannot be released now", LF_S("user", u->name), LF_ERR(&e), LF_END);
	return rc;
}

uint64_t user_bytes(struct obox_user *u)
{
	uint64_t n = sizeof(*u);
	size_t i;

	pthread_mutex_lock(&u->lock);
	n += u->tail.cap + u->st.cap_trash * sizeof(*u->st.trash);
	for (i = 0; i < u->st.n_boxes; i++)
		n += sizeof(struct mbox) + u->st.boxes[i]->cap * sizeof(struct obox_msg);
	for (i = 0; i < u->st.n_blocks; i++)
		n += u->st.blocks[i].open ? u->st.blocks[i].bytes : 0;
	pthread_mutex_unlock(&u->lock);
	return n;
}

struct aged { struct obox_user *u; int64_t since; uint64_t bytes; };	/* idle or dirty since */

static int longest_first(const void *a, const void *b)
{
	const struct aged *x = a, *y = b;

	return x->since < y->since ? -1 : x->since > y->since;
}

/* Users nobody has open, the longest idle first; they cannot be opened while they are looked at. */
static size_t idle_users(struct obox *ob, struct aged **list_r)
{
	size_t cap = 0, n = 0, pos = 0;
	void *v;

	*list_r = NULL;
	pthread_mutex_lock(&ob->lock);
	while (hmap_next(&ob->users, &pos, NULL, NULL, &v)) {
		struct obox_user *u = v;

		if (u->phase != USER_OPEN || u->refs)
			continue;
		mem_grow(list_r, &cap, n + 1, sizeof(**list_r));
		(*list_r)[n++] = (struct aged){ u, u->last_use, 0 };
	}
	if (n)
		qsort(*list_r, n, sizeof(**list_r), longest_first);
	pthread_mutex_unlock(&ob->lock);
	return n;
}

/* Claims u for closing unless somebody has it open. */
static bool claim_locked(struct obox_user *u)
{
	bool mine = u->phase == USER_OPEN && u->refs == 0;

	if (mine)
		u->phase = USER_CLOSING;
	return mine;
}

static bool claim(struct obox *ob, struct obox_user *u)
{
	bool mine;

	pthread_mutex_lock(&ob->lock);
	mine = claim_locked(u);
	pthread_mutex_unlock(&ob->lock);
	return mine;
}

static void evict_nth(void *ctx, size_t i)
{
	struct obox_user *u = ((struct aged *)ctx)[i].u;

	if (claim(u->ob, u))
		user_retire(u, retire(u) == 0);	/* one that cannot be written stays: the journal has what is missing in its log */
}

/* Users nobody has open go back to the store: after idle_us, or as soon as all of
 * them together take more than the memory allowed.  Only this function ever
 * frees users, and under upkeep_lock, so the list stays valid. */
void obox_evict(struct obox *ob, int64_t idle_us)
{
	int64_t now = clock_mono_us(ob->cfg.clock);
	uint64_t total = 0;
	struct aged *list;
	size_t n = idle_users(ob, &list), i;

	for (i = 0; i < n; i++)
		total += list[i].bytes = user_bytes(list[i].u);
	for (i = 0; i < n; i++) {
		if (now - list[i].since <= idle_us && total <= ob->cfg.cache_bytes)
			break;
		total -= list[i].bytes;
	}
	obox_each(ob, i, evict_nth, list);
	free(list);
}

int user_give_up(struct obox *ob, const char *name, bool *here_r)
{
	struct obox_user *u;
	bool mine;
	int rc = 0;

	pthread_mutex_lock(&ob->upkeep_lock);
	pthread_mutex_lock(&ob->lock);
	u = hmap_gets(&ob->users, name);
	*here_r = u != NULL;
	mine = u && claim_locked(u);	/* one that is being opened may be gone when the lock is */
	pthread_mutex_unlock(&ob->lock);
	if (mine) {
		rc = retire(u);
		user_retire(u, rc == 0);
	} else if (*here_r) {
		rc = ERR_BUSY;
	}
	pthread_mutex_unlock(&ob->upkeep_lock);
	return rc;
}

void obox_evict_user(struct obox *ob, const char *name)
{
	bool here;

	user_give_up(ob, name, &here);
}

/* Logs that have grown, or wait for long; users whose root has to be asked whose it is; and all that are dirty
 * when the cache on disk can give up nobody else.  The longest dirty first. */
static void upload_due(struct obox *ob, int64_t now)
{
	bool pressed = cached_pressed(ob), due;
	struct uploads x = { .stop = true };
	struct obox_user **list;
	struct aged *order;
	size_t n, i, k = 0;

	pthread_mutex_lock(&ob->upkeep_lock);
	list = pin_users(ob, NULL, &n);
	order = mem_calloc(n, sizeof(*order));
	for (i = 0; i < n; i++) {
		struct obox_user *u = list[i];

		pthread_mutex_lock(&u->lock);
		if (u->n_late)
			user_settle_late(u);
		due = !u->broken && (u->limbo || u->tail.len > UPLOAD_BYTES || (u->tail.len && (pressed || now - u->dirty_us > FOLD_US)));
		if (due)
			order[k++] = (struct aged){ u, u->dirty_us, 0 };
		pthread_mutex_unlock(&u->lock);
	}
	if (k)
		qsort(order, k, sizeof(*order), longest_first);
	x.list = mem_calloc(k, sizeof(*x.list));
	for (i = 0; i < k; i++)
		x.list[i] = order[i].u;
	pthread_mutex_init(&x.lock, NULL);
	obox_each(ob, k, upload_nth, &x);
	pthread_mutex_destroy(&x.lock);
	free(x.list);
	free(order);
	unpin_users(ob, list, n);
	pthread_mutex_unlock(&ob->upkeep_lock);
}

static void tend_cluster(struct obox *ob, int64_t now)
{
	struct err e = ERR_INIT;

	upload_due(ob, now);
	if (journal_long_tail(ob->journal) && compact(ob, &e) < 0)
		log_event(LOG_WARN, "journal cannot be shortened now", LF_ERR(&e), LF_END);
}

static void tend_local(struct obox *ob, int64_t now)
{
	struct err e = ERR_INIT;

	if (cached_pressed(ob) || journal_bytes(ob->journal) > CHECKPOINT_BYTES || now - ob->last_checkpoint_us > CHECKPOINT_US) {
		if (obox_checkpoint(ob, NULL, &e) < 0)
			log_event(LOG_WARN, "checkpoint failed: the journal is kept and it is tried again", LF_ERR(&e), LF_END);
	}
}

void obox_upkeep(struct obox *ob)
{
	int64_t now = clock_mono_us(ob->cfg.clock);
	struct err e = ERR_INIT;

	/* the store's journal sees to flag changes itself */
	if (!ob->cfg.cluster && now - ob->last_sync_us >= (int64_t)ob->cfg.flag_commit_delay_ms * 1000) {
		ob->last_sync_us = now;
		journal_sync(ob->journal, &e);	/* a failure is logged there and stops acknowledgements */
	}
	journal_prepare(ob->journal);
}

void obox_stop_tending(struct obox *ob)
{
	atomic_store(&ob->stopping, true);
}

/* Who is in use does not grow cold, however long a session lasts. */
static void note_used(struct obox *ob, int64_t now)
{
	size_t pos = 0;
	void *v;

	if (!ob->cfg.cache || now - ob->last_used_us < USED_US)
		return;
	ob->last_used_us = now;
	pthread_mutex_lock(&ob->lock);
	while (hmap_next(&ob->users, &pos, NULL, NULL, &v))
		if (((struct obox_user *)v)->phase == USER_OPEN && ((struct obox_user *)v)->refs)
			cached_used(v);
	pthread_mutex_unlock(&ob->lock);
}

void obox_tend(struct obox *ob)
{
	int64_t now = clock_mono_us(ob->cfg.clock);

	note_used(ob, now);
	cached_tend(ob);
	if (ob->cfg.cluster && !ob->cfg.cluster->ops->serving(ob->cfg.cluster))
		return;	/* nothing of it could be done */
	if (ob->cfg.cluster)
		tend_cluster(ob, now);
	else
		tend_local(ob, now);
	pthread_mutex_lock(&ob->upkeep_lock);
	obox_evict(ob, ob->cfg.cluster ? IDLE_CLUSTER_US : IDLE_LOCAL_US);
	pthread_mutex_unlock(&ob->upkeep_lock);
	obox_collect(ob);
}
