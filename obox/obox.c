/* The node: opening, recovery of journals, checkpoints, upkeep. */
#include "obox/obox-private.h"

#include "base/io.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

enum { CHECKPOINT_BYTES = 64 << 20, CHECKPOINT_US = 15 * 60 * 1000000, IDLE_US = 5 * 60 * 1000000, SUMCACHE_BYTES = 64 << 20,
	USERS_BYTES = 256 << 20, UPLOAD_BYTES = 64 << 10, LOCK_TRIES = 1500 /* of 20 ms */ };

/* --- recovery: a dead node's journal goes into the users' logs --- */

struct recovery {
	struct obox *ob;
	struct hmap users;	/* name -> struct obox_tail */
	uint64_t objects, records;
};

/* The object a frame holds must be in the store, byte for byte: a crash may
 * have left it missing, empty or torn. */
static int restore_object(struct obox *ob, const struct journal_object *o, struct err *err)
{
	struct buf there = BUF_INIT(OBOX_JOURNAL_OBJECT + 1);
	struct err quiet = ERR_INIT;
	struct iovec iov = { (void *)(uintptr_t)o->data, o->len };
	int rc = objstore_get(ob->cfg.mail_store, o->key, &there, NULL, &quiet);
	bool same = rc == 0 && there.len == o->len && (!o->len || !memcmp(there.data, o->data, o->len));

	buf_free(&there);
	if (same)
		return 0;
	if (rc != ERR_NOTFOUND)
		objstore_delete(ob->cfg.mail_store, o->key, NULL);
	rc = objstore_put_lazy(ob->cfg.mail_store, o->key, &iov, 1, err);
	return rc == ERR_EXISTS ? 0 : rc;
}

static int take_entry(void *ctx, const struct journal_entry *e)
{
	struct recovery *rec = ctx;
	struct obox_tail *t = hmap_gets(&rec->users, e->user);
	struct err err = ERR_INIT;
	int rc;

	if (e->object.key) {
		rec->objects++;
		rc = restore_object(rec->ob, &e->object, &err);
		if (rc < 0) {
			log_event(LOG_ERROR, "message object cannot be restored from the journal", LF_S("object", e->object.key), LF_ERR(&err), LF_END);
			return rc;
		}
	}
	if (!t) {
		t = obox_tail_new(e->user);
		hmap_put(&rec->users, e->user, strlen(e->user), t);
	}
	obox_tail_add(t, e->epoch, e->lsn, e->rec, e->rec_len);
	rec->records++;
	return 0;
}

/* dir is nodes/<node>, whose lock the caller holds. Idempotent: a crash in the
 * middle is met by doing it again. */
int obox_recover(struct obox *ob, const char *dir, struct err *err)
{
	struct recovery rec = { .ob = ob };
	const char *node = strrchr(dir, '/') + 1;
	char *journal = mem_printf("%s/journal", dir);
	size_t pos = 0, users = 0;
	void *v;
	int rc;

	rc = journal_replay(journal, ob->cfg.keys, take_entry, &rec, err);
	if (rc == 0 && rec.objects)
		rc = objstore_sync(ob->cfg.mail_store, err);
	while (rc == 0 && hmap_next(&rec.users, &pos, NULL, NULL, &v)) {
		rc = obox_tail_replay(ob, v, node, 0, err);
		users++;
	}
	if (rc == 0)
		rc = journal_remove_all(journal, err);
	if (rec.records)
		log_event(rc == 0 ? LOG_INF : LOG_ERROR, rc == 0 ? "journal replayed" : "journal cannot be replayed", LF_S("node", node),
			  LF_U("records", rec.records), LF_U("objects", rec.objects), LF_U("users", users), LF_S("error", rc == 0 ? "" : err->msg), LF_END);
	for (pos = 0; hmap_next(&rec.users, &pos, NULL, NULL, &v);) {
		struct obox_tail *t = v;

		obox_tail_free(&t);
	}
	hmap_free(&rec.users);
	free(journal);
	return rc;
}

/* Journals of other nodes of this state directory whose processes are gone. */
static int recover_others(struct obox *ob, struct err *err)
{
	char *nodes = mem_printf("%s/nodes", ob->state_dir);
	struct dirent *de;
	DIR *d = opendir(nodes);
	int rc = 0;

	while (rc == 0 && d && (de = readdir(d)) != NULL) {
		char *dir, *path;
		int fd;

		if (de->d_name[0] == '.' || !strcmp(de->d_name, ob->node))
			continue;
		dir = mem_printf("%s/%s", nodes, de->d_name);
		path = mem_printf("%s/lock", dir);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			rc = obox_recover(ob, dir, err);
		io_close(&fd);
		free(path);
		free(dir);
	}
	if (d)
		closedir(d);
	free(nodes);
	return rc;
}

/* --- open and close --- */

static int lock_node(struct obox *ob, struct err *err)
{
	char *path = mem_printf("%s/lock", ob->node_dir);
	int rc = 0, i;

	ob->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (ob->lock_fd < 0)
		rc = err_errno(err, "open", path);
	/* a process that was killed a moment ago may still hold it, or another node that replays its journal */
	for (i = 0; rc == 0 && flock(ob->lock_fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (i == LOCK_TRIES)
			rc = err_set(err, ERR_BUSY, "%s is locked: another process runs as node %s", path, ob->node);
		usleep(20000);
	}
	free(path);
	return rc;
}

static int open_dirs(struct obox *ob, struct err *err)
{
	char *tmp = mem_printf("%s/tmp", ob->node_dir);
	int rc = io_mkdirs(tmp, 0700, err);

	if (rc == 0) {
		ob->tmp_fd = open(tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (ob->tmp_fd < 0)
			rc = err_errno(err, "open", tmp);
	}
	free(tmp);
	return rc == 0 ? lock_node(ob, err) : rc;
}

static void obox_free(struct obox *ob)
{
	size_t pos = 0;
	void *u;

	while (hmap_next(&ob->users, &pos, NULL, NULL, &u))	/* those that could not be released: the journal has their records */
		user_destroy(u);
	journal_close(&ob->journal);
	sumcache_free(&ob->sumcache);
	hmap_free(&ob->users);
	io_close(&ob->lock_fd);
	io_close(&ob->tmp_fd);
	pthread_rwlock_destroy(&ob->gate);
	pthread_mutex_destroy(&ob->upkeep_lock);
	pthread_mutex_destroy(&ob->lock);
	pthread_cond_destroy(&ob->cond);
	free(ob->state_dir);
	free(ob->node_dir);
	free(ob->prefix);
	free(ob->node);
	free(ob);
}

static int start_journal(struct obox *ob, struct err *err)
{
	char *dir;
	int rc;

	if (ob->cfg.cluster)
		return ob->cfg.cluster->ops->start(ob->cfg.cluster, ob, &ob->journal, &ob->incarnation, err);
	dir = mem_printf("%s/journal", ob->node_dir);
	rc = journal_open(dir, ob->cfg.keys, &ob->journal, err);
	free(dir);
	return rc;
}

int obox_open(const struct obox_config *cfg, struct obox **ob_r, struct err *err)
{
	struct obox *ob = MEM_NEW(struct obox);
	int rc;

	*ob_r = NULL;
	if (sodium_init() < 0)
		abort();
	ob->cfg = *cfg;
	if (!ob->cfg.clock)
		ob->cfg.clock = &clock_system;
	if (ob->cfg.grace_s == UINT64_MAX)
		ob->cfg.grace_s = 7 * 86400;
	if (!ob->cfg.cache_bytes)
		ob->cfg.cache_bytes = USERS_BYTES;
	if (!ob->cfg.max_message)
		ob->cfg.max_message = 150 << 20;
	ob->state_dir = mem_strdup(cfg->state_dir);
	ob->node = mem_strdup(cfg->node);
	ob->node_dir = mem_printf("%s/nodes/%s", cfg->state_dir, cfg->node);
	ob->prefix = mem_strdup(cfg->prefix ? cfg->prefix : "");
	ob->lock_fd = ob->tmp_fd = -1;
	pthread_mutex_init(&ob->lock, NULL);
	pthread_cond_init(&ob->cond, NULL);
	pthread_mutex_init(&ob->upkeep_lock, NULL);
	pthread_rwlock_init(&ob->gate, NULL);
	do {
		randombytes_buf(&ob->incarnation, sizeof(ob->incarnation));
	} while (!ob->incarnation);
	ob->sumcache = sumcache_new(ob->cfg.cache_bytes > SUMCACHE_BYTES ? ob->cfg.cache_bytes : SUMCACHE_BYTES);
	ob->last_sync_us = ob->last_checkpoint_us = clock_mono_us(ob->cfg.clock);
	rc = open_dirs(ob, err);
	if (rc == 0)
		rc = obox_recover(ob, ob->node_dir, err);
	if (rc == 0)
		rc = recover_others(ob, err);
	if (rc == 0)
		rc = start_journal(ob, err);
	if (rc < 0) {
		obox_free(ob);
		return rc;
	}
	*ob_r = ob;
	return 0;
}

bool obox_fenced(struct obox *ob)
{
	return ob->cfg.cluster && ob->cfg.cluster->ops->fenced(ob->cfg.cluster);
}

void obox_abandon(struct obox **obp)
{
	struct obox *ob = *obp;

	if (!ob)
		return;
	*obp = NULL;
	if (ob->cfg.cluster)
		ob->cfg.cluster->ops->abandon(ob->cfg.cluster);
	obox_free(ob);
}

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
		rc = journal_append(u->ob->journal, &e, 1, &ticket, err);
	}
	pthread_mutex_unlock(&u->lock);
	return rc;
}

static int rewrite_tails(struct obox *ob, struct obox_user **list, size_t n, struct err *err)
{
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < n; i++)
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
		rc = upload_all(ob, list, n, user != NULL, err);
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
		rc = upload_one(u, true, true, &e);
	if (u->lost)
		return 0;
	if (rc < 0)
		log_event(LOG_WARN, "user cannot be released now", LF_S("user", u->name), LF_ERR(&e), LF_END);
	return rc;
}

static uint64_t user_bytes(struct obox_user *u)
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

struct idle { struct obox_user *u; int64_t last_use; };

static int longest_first(const void *a, const void *b)
{
	const struct idle *x = a, *y = b;

	return x->last_use < y->last_use ? -1 : x->last_use > y->last_use;
}

/* Users nobody has open, the longest idle first; they cannot be opened while they are looked at. */
static size_t idle_users(struct obox *ob, struct idle **list_r)
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
		(*list_r)[n++] = (struct idle){ u, u->last_use };
	}
	if (n)
		qsort(*list_r, n, sizeof(**list_r), longest_first);
	pthread_mutex_unlock(&ob->lock);
	return n;
}

/* Claims u for closing unless somebody opened it since. */
static bool claim(struct obox *ob, struct obox_user *u)
{
	bool mine;

	pthread_mutex_lock(&ob->lock);
	mine = u->phase == USER_OPEN && u->refs == 0;
	if (mine)
		u->phase = USER_CLOSING;
	pthread_mutex_unlock(&ob->lock);
	return mine;
}

/* Users nobody has open go back to the store: after idle_us, or as soon as all of
 * them together take more than the memory allowed.  Only this function ever
 * frees users, and under upkeep_lock, so the list stays valid. */
static void evict(struct obox *ob, int64_t idle_us)
{
	int64_t now = clock_mono_us(ob->cfg.clock);
	uint64_t total = 0;
	struct idle *list;
	size_t n = idle_users(ob, &list), i;

	for (i = 0; i < n; i++)
		total += user_bytes(list[i].u);
	for (i = 0; i < n; i++) {
		struct obox_user *u = list[i].u;
		bool clean;

		if (now - list[i].last_use <= idle_us && total <= ob->cfg.cache_bytes)
			break;
		total -= user_bytes(u);
		if (!claim(ob, u))
			continue;
		clean = retire(u) == 0;
		user_retire(u, clean);	/* one that cannot be written stays: the journal has what is missing in its log */
	}
	free(list);
}

/* 0 released or not here, ERR_BUSY open here. */
static int give_up(struct obox *ob, const char *name)
{
	struct obox_user *u;
	int rc = 0;

	pthread_mutex_lock(&ob->upkeep_lock);
	pthread_mutex_lock(&ob->lock);
	u = hmap_gets(&ob->users, name);
	pthread_mutex_unlock(&ob->lock);
	if (u && claim(ob, u)) {
		rc = retire(u);
		user_retire(u, rc == 0);
	} else if (u) {
		rc = ERR_BUSY;
	}
	pthread_mutex_unlock(&ob->upkeep_lock);
	return rc;
}

void obox_evict_user(struct obox *ob, const char *name)
{
	give_up(ob, name);
}

int obox_user_release(struct obox *ob, const char *user, struct err *err)
{
	int rc = give_up(ob, user);

	return rc < 0 ? err_set(err, rc, rc == ERR_BUSY ? "user %s has sessions here" : "user %s cannot be released now", user) : 0;
}

/* Logs that have grown, or wait for long; and users whose root has to be asked whose it is. */
static void upload_due(struct obox *ob, int64_t now)
{
	struct obox_user **list;
	struct err e = ERR_INIT;
	size_t n, i;
	bool due;

	pthread_mutex_lock(&ob->upkeep_lock);
	list = pin_users(ob, NULL, &n);
	for (i = 0; i < n; i++) {
		struct obox_user *u = list[i];

		pthread_mutex_lock(&u->lock);
		if (u->n_late)
			user_settle_late(u);
		due = !u->broken && (u->limbo || u->tail.len > UPLOAD_BYTES || (u->tail.len && now - u->dirty_us > CHECKPOINT_US));
		pthread_mutex_unlock(&u->lock);
		if (!due)
			continue;
		err_clear(&e);
		if (upload_one(u, false, false, &e) < 0) {
			log_event(LOG_WARN, "log cannot be uploaded now", LF_S("user", u->name), LF_ERR(&e), LF_END);
			break;	/* the others would not fare better now */
		}
	}
	unpin_users(ob, list, n);
	pthread_mutex_unlock(&ob->upkeep_lock);
}

static void upkeep_cluster(struct obox *ob, int64_t now)
{
	struct err e = ERR_INIT;

	journal_prepare(ob->journal);
	if (!ob->cfg.cluster->ops->serving(ob->cfg.cluster))
		return;
	upload_due(ob, now);
	if (journal_long_tail(ob->journal) && compact(ob, &e) < 0)
		log_event(LOG_WARN, "journal cannot be shortened now", LF_ERR(&e), LF_END);
}

static void upkeep_local(struct obox *ob, int64_t now)
{
	struct err e = ERR_INIT;

	if (now - ob->last_sync_us >= (int64_t)ob->cfg.flag_commit_delay_ms * 1000) {
		ob->last_sync_us = now;
		journal_sync(ob->journal, &e);	/* a failure is logged there and stops acknowledgements */
	}
	journal_prepare(ob->journal);
}

void obox_stop_tending(struct obox *ob)
{
	atomic_store(&ob->stopping, true);
}

void obox_tend(struct obox *ob)
{
	int64_t now = clock_mono_us(ob->cfg.clock);
	struct err e = ERR_INIT;

	if (journal_bytes(ob->journal) > CHECKPOINT_BYTES || now - ob->last_checkpoint_us > CHECKPOINT_US) {
		if (obox_checkpoint(ob, NULL, &e) < 0)
			log_event(LOG_WARN, "checkpoint failed: the journal is kept and it is tried again", LF_ERR(&e), LF_END);
	}
}

void obox_upkeep(struct obox *ob)
{
	int64_t now = clock_mono_us(ob->cfg.clock);

	if (ob->cfg.cluster)
		upkeep_cluster(ob, now);
	else
		upkeep_local(ob, now);
	pthread_mutex_lock(&ob->upkeep_lock);
	evict(ob, IDLE_US);
	pthread_mutex_unlock(&ob->upkeep_lock);
	obox_collect(ob);
}

void obox_close(struct obox **obp)
{
	struct obox *ob = *obp;
	struct err e = ERR_INIT;
	uint64_t old = 0;
	bool all;

	if (!ob)
		return;
	*obp = NULL;
	obox_checkpoint(ob, NULL, &e);
	pthread_mutex_lock(&ob->upkeep_lock);
	evict(ob, -1);
	pthread_mutex_unlock(&ob->upkeep_lock);
	all = ob->users.n == 0;
	if (all && journal_rotate(ob->journal, &old, &e) == 0)
		journal_drop(ob->journal, old + 1);
	if (!all)
		log_event(LOG_WARN, "some users could not be released: the journal is kept for the next start", LF_U("users", ob->users.n), LF_ERR(&e), LF_END);
	if (ob->cfg.cluster)
		ob->cfg.cluster->ops->stop(ob->cfg.cluster, all);
	obox_free(ob);
}
