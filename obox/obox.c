/* The node: opening, recovery of journals, checkpoints, upkeep. */
#include "obox/obox-private.h"

#include "base/io.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <unistd.h>

enum { CHECKPOINT_BYTES = 64 << 20, CHECKPOINT_US = 15 * 60 * 1000000, IDLE_US = 5 * 60 * 1000000, SUMCACHE_BYTES = 64 << 20,
	USERS_BYTES = 256 << 20, LOCK_TRIES = 1500 /* of 20 ms */ };

/* --- recovery: a dead node's journal goes into the users' logs --- */

struct dirty {	/* one user's records in the journal */
	char *name;
	struct buf records;	/* each: epoch, lsn, record */
};

struct recovery {
	struct obox *ob;
	struct hmap users;
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
	if (rc == ERR_CORRUPT) {	/* the store knows that it is another's */
		log_event(LOG_ERROR, "message object cannot be restored from the journal", LF_S("object", o->key), LF_ERR(&quiet), LF_END);
		return 0;
	}
	if (rc != ERR_NOTFOUND)
		objstore_delete(ob->cfg.mail_store, o->key, NULL);
	rc = objstore_put_lazy(ob->cfg.mail_store, o->key, &iov, 1, err);
	return rc == ERR_EXISTS ? 0 : rc;
}

static int take_entry(void *ctx, const struct journal_entry *e)
{
	struct recovery *rec = ctx;
	struct dirty *d = hmap_gets(&rec->users, e->user);
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
	if (!d) {
		d = MEM_NEW(struct dirty);
		d->name = mem_strdup(e->user);
		buf_init(&d->records, 0);
		hmap_put(&rec->users, e->user, strlen(e->user), d);
	}
	buf_putv(&d->records, e->epoch);
	buf_putv(&d->records, e->lsn);
	buf_putblob(&d->records, e->rec, e->rec_len);
	rec->records++;
	return 0;
}

/* The records that the log does not have yet, as one segment. */
static uint64_t missing_records(struct dirty *d, const struct manifest *man, struct buf *out, bool *gap_r)
{
	struct rd r = rd_init(d->records.data, d->records.len);
	uint64_t n = 0, epoch, lsn;
	const void *rec;
	size_t len;

	*gap_r = false;
	while (rd_left(&r)) {
		epoch = rd_v(&r);
		lsn = rd_v(&r);
		rec = rd_blob(&r, &len);
		if (r.failed || epoch != man->epoch || lsn <= man->log_lsn)
			continue;	/* another owner went on, or uploaded already */
		if (lsn != man->log_lsn + n + 1) {
			*gap_r = true;
			break;
		}
		buf_putblob(out, rec, len);
		n++;
	}
	return n;
}

static int append_segment(struct obox *ob, const char *prefix, struct manifest *man, uint64_t n, const struct buf *records, struct err *err)
{
	char *key = mem_printf("%slog/%010" PRIu64, prefix, man->log_seq + 1);
	struct buf seg = BUF_INIT(OBOX_BUNDLE_MAX), there = BUF_INIT(OBOX_BUNDLE_MAX);
	unsigned char hash[32], other[32];
	int rc;

	segment_encode_head(man->log_seq + 1, man->epoch, man->log_lsn + 1, n, man->log_hash, &seg);
	buf_add(&seg, records->data, records->len);
	rc = bundle_put(ob, key, seg.data, seg.len, true, hash, err);
	if (rc == ERR_EXISTS) {
		/* an upload that was cut short of its root: nobody has read it, so it gives way to the whole tail */
		err_clear(err);
		rc = bundle_get(ob, key, &there, other, err);
		if (rc < 0 || memcmp(hash, other, 32) != 0) {
			err_clear(err);
			rc = objstore_delete(ob->cfg.index_store, key, err);
			if (rc == 0)
				rc = bundle_put(ob, key, seg.data, seg.len, true, hash, err);
		}
	}
	if (rc == 0) {
		man->log_seq++;
		man->log_lsn += n;
		memcpy(man->log_hash, hash, 32);
	}
	buf_free(&seg);
	buf_free(&there);
	free(key);
	return rc;
}

static int recover_user(struct obox *ob, struct dirty *d, const char *node, struct err *err)
{
	char *prefix = obox_user_prefix(ob->prefix, d->name), *key = mem_printf("%sroot", prefix), etag[OBJ_ETAG_MAX];
	struct buf root = BUF_INIT(8192), records = BUF_INIT(OBOX_BUNDLE_MAX);
	struct manifest man;
	uint64_t n = 0;
	bool gap = false;
	int rc;

	rc = objstore_get(ob->cfg.index_store, key, &root, etag, err);
	if (rc == 0)
		rc = manifest_decode(&man, ob->cfg.keys, key, root.data, root.len, err);
	if (rc == 0 && !strcmp(man.node, node) && man.incarnation)
		n = missing_records(d, &man, &records, &gap);
	if (gap)
		log_event(LOG_ERROR, "journal has a gap: changes behind it are lost; run culverctl check", LF_S("user", d->name), LF_END);
	if (rc == 0 && n) {
		rc = append_segment(ob, prefix, &man, n, &records, err);
		if (rc == 0)
			rc = objstore_sync(ob->cfg.index_store, err);
		if (rc == 0) {
			man.incarnation = 0;
			buf_clear(&root);
			rc = manifest_encode(&man, ob->cfg.keys, key, &root, err);
		}
		if (rc == 0)
			rc = objstore_put(ob->cfg.index_store, key, root.data, root.len, OBJ_MATCH, etag, err);
	}
	if (rc == ERR_NOTFOUND) {	/* the root's first put never happened: nothing was acknowledged */
		err_clear(err);
		rc = 0;
	}
	buf_free(&root);
	buf_free(&records);
	free(prefix);
	free(key);
	return rc;
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
		rc = recover_user(ob, v, node, err);
		users++;
	}
	if (rc == 0)
		rc = journal_remove_all(journal, err);
	if (rec.records)
		log_event(rc == 0 ? LOG_INF : LOG_ERROR, rc == 0 ? "journal replayed" : "journal cannot be replayed", LF_S("node", node),
			  LF_U("records", rec.records), LF_U("objects", rec.objects), LF_U("users", users), LF_S("error", rc == 0 ? "" : err->msg), LF_END);
	for (pos = 0; hmap_next(&rec.users, &pos, NULL, NULL, &v);) {
		struct dirty *d = v;

		buf_free(&d->records);
		free(d->name);
		free(d);
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

int obox_open(const struct obox_config *cfg, struct obox **ob_r, struct err *err)
{
	struct obox *ob = MEM_NEW(struct obox);
	char *journal;
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
	if (rc == 0) {
		journal = mem_printf("%s/journal", ob->node_dir);
		rc = journal_open(journal, ob->cfg.keys, &ob->journal, err);
		free(journal);
	}
	if (rc < 0) {
		obox_free(ob);
		return rc;
	}
	*ob_r = ob;
	return 0;
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
	int rc = objstore_sync(ob->cfg.mail_store, err);

	if (rc == 0 && ob->cfg.index_store != ob->cfg.mail_store)
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

/* After this every record so far is in its user's log, and the journal is short. */
int obox_checkpoint(struct obox *ob, const char *user, struct err *err)
{
	struct obox_user **list;
	uint64_t old = 0;
	size_t n, i;
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
		for (i = 0; i < n; i++)
			obox_user_close(&list[i]);
		free(list);
	}
	if (rc == 0 && !user)
		journal_drop(ob->journal, old);
	ob->last_checkpoint_us = clock_mono_us(ob->cfg.clock);
	pthread_mutex_unlock(&ob->upkeep_lock);
	return rc;
}

int obox_flush(struct obox *ob, const char *user, struct err *err)
{
	return obox_checkpoint(ob, user, err);
}

/* --- upkeep --- */

static int retire(struct obox_user *u)
{
	struct upload up;
	struct err e = ERR_INIT;
	int rc = upload_prepare(u, true, true, &up, &e);

	if (rc == 0 && (up.man.log_seq != u->man.log_seq || up.man.snap.lsn != u->man.snap.lsn)) {
		rc = sync_stores(u->ob, &e);
		if (rc < 0)
			upload_abandon(&up);
	}
	if (rc == 0)
		rc = upload_commit(&up, &e);
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

void obox_evict_user(struct obox *ob, const char *name)
{
	struct obox_user *u;

	pthread_mutex_lock(&ob->upkeep_lock);
	pthread_mutex_lock(&ob->lock);
	u = hmap_gets(&ob->users, name);
	pthread_mutex_unlock(&ob->lock);
	if (u && claim(ob, u))
		user_retire(u, retire(u) == 0);
	pthread_mutex_unlock(&ob->upkeep_lock);
}

void obox_upkeep(struct obox *ob)
{
	int64_t now = clock_mono_us(ob->cfg.clock);
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
	obox_free(ob);
}
