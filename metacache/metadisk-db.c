/* The file of the cache on disk:
 *
 *   <dir>/lock           held while it is open
 *   <dir>/metacache.db   SQLite: meta (one row), user (a row each), object (a row each, with its bytes)
 *
 *  (1) It never grows beyond its pages (max_page_count), and no transaction
 *      changes more than a bounded number of pages that had content before: so
 *      the rollback journal has a bound, too.  That is why an object is deleted in one
 *      transaction and put in the next: pages taken from the free list are not journaled, those
 *      freed within the same transaction are.
 *  (2) No transaction is synced.  After kill -9 the journal makes the file good; when the
 *      machine went down (another boot id, no clean stop) it starts empty.
 *  (3) When SQLite finds fault with the file, it starts empty: so it does when what is deleted does not go, or
 *      when a statement takes longer than any table that fits could explain (a damaged tree can be walked for ever). */
#include "metacache/metadisk-private.h"

#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORMAT = 1, CLEAN_BATCH = 8, BOOT_MAX = 64, OPS = 10000, OPS_MAX = 5000 /* times OPS: some seconds */ };

static const char *const sql[MD_STMTS] = {
	[MD_GET] = "SELECT o.data FROM user u, object o WHERE u.id = ?1 AND o.user = u.n AND o.name = ?2",
	[MD_FIND] = "SELECT n, bytes FROM user WHERE id = ?1",
	[MD_ADD] = "INSERT INTO user(id, epoch, seq, dirty, bytes, used) VALUES(?1, 0, 0, 0, 0, ?2)",
	[MD_OBJECT] = "SELECT n, len FROM object WHERE user = ?1 AND name = ?2",
	[MD_INSERT] = "INSERT INTO object(user, name, len, data) VALUES(?1, ?2, ?3, ?4)",
	[MD_DELETE] = "DELETE FROM object WHERE n = ?1",
	[MD_GROW] = "UPDATE user SET bytes = bytes + ?2 WHERE n = ?1",
	[MD_OLDEST] = "SELECT n, len FROM object WHERE user = ?1 ORDER BY n LIMIT 1",
	[MD_NAMES] = "SELECT n, len, name FROM object WHERE user = ?1",
	[MD_ANY] = "SELECT n, len FROM object WHERE user = ?1 LIMIT ?2",
	[MD_COLDEST] = "SELECT n, bytes, id FROM user WHERE dirty = 0 ORDER BY used",
	[MD_NOTE] = ("INSERT INTO user(id, used, epoch, seq, dirty, bytes) VALUES(?1, ?2, ?3, ?4, ?5, 0)"
		     " ON CONFLICT(id) DO UPDATE SET used = ?2, epoch = ?3, seq = ?4, dirty = ?5"),
	[MD_STATE] = "UPDATE user SET used = ?2, epoch = ?3, seq = ?4, dirty = ?5 WHERE id = ?1",
	[MD_USED] = "UPDATE user SET used = ?2 WHERE id = ?1",
	[MD_DELETE_USER] = "DELETE FROM user WHERE n = ?1",
};

static int db_err(struct md_db *d, struct err *err, const char *what)
{
	return err_set(err, ERR_IO, "metacache: %s/metacache.db: %s: %s", d->dir, what, d->db ? sqlite3_errmsg(d->db) : "cannot be opened");
}

static int exec(struct md_db *d, const char *text)
{
	return sqlite3_exec(d->db, text, NULL, NULL, NULL);
}

bool md_db_broken(int rc)
{
	rc &= 0xff;
	return rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB || rc == SQLITE_FORMAT || rc == SQLITE_MISMATCH || rc == SQLITE_CONSTRAINT || rc == SQLITE_ERROR ||
	       rc == SQLITE_INTERRUPT;
}

/* (3) */
static int too_long(void *ctx)
{
	struct md_db *d = ctx;

	return ++d->steps > OPS_MAX;
}

/* --- opening and closing --- */

/* Of the running kernel; "" when it cannot be had. */
static void boot_id(char id[BOOT_MAX])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, id, BOOT_MAX - 1) : 0;

	id[n > 0 ? n : 0] = '\0';
	id[strcspn(id, "\n")] = '\0';
	io_close(&fd);
}

static int lock_dir(struct md_db *d, struct err *err)
{
	int rc = io_mkdirs(d->dir, 0700, err);

	if (rc < 0)
		return rc;
	d->dir_fd = open(d->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->dir_fd < 0)
		return err_errno(err, "metacache: open", d->dir);
	d->lock_fd = openat(d->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d->lock_fd < 0)
		return err_errno(err, "metacache: open lock in", d->dir);
	if (flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? err_set(err, ERR_BUSY, "metacache: %s is in use", d->dir) : err_errno(err, "metacache: lock", d->dir);
	return 0;
}

static void file_close(struct md_db *d)
{
	int i;

	for (i = 0; i < MD_STMTS; i++) {
		sqlite3_finalize(d->st[i]);
		d->st[i] = NULL;
	}
	sqlite3_close(d->db);
	d->db = NULL;
}

static int file_open(struct md_db *d, struct err *err)
{
	char *path = mem_printf("%s/metacache.db", d->dir), *setup;
	int rc;

	rc = sqlite3_open_v2(path, &d->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	free(path);
	setup = mem_printf("PRAGMA page_size=%d; PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=OFF; PRAGMA secure_delete=OFF; PRAGMA auto_vacuum=NONE;"
			   "PRAGMA temp_store=MEMORY; PRAGMA cache_size=-2048; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0;"
			   "PRAGMA locking_mode=EXCLUSIVE; PRAGMA max_page_count=%llu;", MD_PAGE, (unsigned long long)d->pages);
	if (rc == SQLITE_OK) {
		sqlite3_progress_handler(d->db, OPS, too_long, d);
		rc = exec(d, setup);
	}
	free(setup);
	return rc == SQLITE_OK ? 0 : db_err(d, err, "open");
}

static int prepare_all(struct md_db *d, struct err *err)
{
	int i;

	for (i = 0; i < MD_STMTS; i++)
		if (sqlite3_prepare_v3(d->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &d->st[i], NULL) != SQLITE_OK)
			return db_err(d, err, sql[i]);
	return 0;
}

static int meta_write(struct md_db *d, bool clean)
{
	sqlite3_stmt *st = NULL;
	char boot[BOOT_MAX];
	int rc = sqlite3_prepare_v2(d->db, "INSERT OR REPLACE INTO meta VALUES(1, ?1, ?2, ?3, ?4)", -1, &st, NULL);

	boot_id(boot);
	if (rc == SQLITE_OK) {
		sqlite3_bind_int(st, 1, FORMAT);
		sqlite3_bind_int(st, 2, clean);
		sqlite3_bind_text(st, 3, boot, -1, SQLITE_STATIC);
		sqlite3_bind_blob(st, 4, d->check, MD_ID, SQLITE_STATIC);
		rc = sqlite3_step(st);
	}
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int64_t pragma(struct md_db *d, const char *text)
{
	sqlite3_stmt *st = NULL;
	int64_t n = -1;

	if (sqlite3_prepare_v2(d->db, text, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
		n = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return n;
}

/* May what the file holds be used?  (2), and it has to fit. */
static bool meta_good(struct md_db *d)
{
	sqlite3_stmt *st = NULL;
	char boot[BOOT_MAX];
	bool good = false;

	boot_id(boot);
	if (sqlite3_prepare_v2(d->db, "SELECT version, clean, boot, secret FROM meta WHERE id = 1", -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
		const char *then = (const char *)sqlite3_column_text(st, 2);
		const void *check = sqlite3_column_blob(st, 3);

		good = sqlite3_column_int(st, 0) == FORMAT && check && sqlite3_column_bytes(st, 3) == MD_ID && !memcmp(check, d->check, MD_ID) &&
		       (sqlite3_column_int(st, 1) == 1 || (then && *boot && !strcmp(then, boot)));
	}
	sqlite3_finalize(st);
	return good && pragma(d, "PRAGMA page_size") == MD_PAGE && (uint64_t)pragma(d, "PRAGMA page_count") <= d->pages;
}

/* Nobody is dirty any more: the journal was replayed, or is about to be. */
static int all_clean(struct md_db *d)
{
	int64_t left = pragma(d, "SELECT sum(dirty <> 0) FROM user");
	int rc = SQLITE_OK;

	for (; rc == SQLITE_OK && left > 0; left -= CLEAN_BATCH)
		rc = exec(d, "UPDATE user SET dirty = 0 WHERE n IN (SELECT n FROM user WHERE dirty <> 0 LIMIT 8)");
	return rc;
}

int md_db_start_over(struct md_db *d, struct err *err)
{
	static const char *const names[] = { "metacache.db", "metacache.db-journal", "metacache.db-wal", "metacache.db-shm" };
	size_t i;
	int rc;

	file_close(d);
	for (i = 0; i < MEM_COUNT(names); i++)
		if (unlinkat(d->dir_fd, names[i], 0) < 0 && errno != ENOENT)
			return err_errno(err, "metacache: remove", names[i]);
	rc = file_open(d, err);
	if (rc == 0 && exec(d, "BEGIN;"
			    "CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK(id = 1), version INT, clean INT, boot TEXT, secret BLOB);"
			    "CREATE TABLE user(n INTEGER PRIMARY KEY, id BLOB UNIQUE NOT NULL, epoch INT, seq INT, dirty INT, bytes INT, used INT);"
			    "CREATE INDEX user_used ON user(dirty, used);"
			    "CREATE TABLE object(n INTEGER PRIMARY KEY, user INT NOT NULL, name TEXT NOT NULL, len INT, data BLOB, UNIQUE(user, name)); COMMIT;") != SQLITE_OK)
		rc = db_err(d, err, "create");
	if (rc == 0)
		rc = prepare_all(d, err);
	if (rc == 0 && meta_write(d, false) != SQLITE_OK)
		rc = db_err(d, err, "create");
	return rc;
}

int md_db_open(struct md_db *d, struct err *err)
{
	int rc = lock_dir(d, err);
	struct err quiet = ERR_INIT;

	if (rc == 0 && file_open(d, &quiet) == 0 && meta_good(d) && prepare_all(d, &quiet) == 0 && all_clean(d) == SQLITE_OK && meta_write(d, false) == SQLITE_OK)
		return 1;
	if (rc == 0)
		rc = md_db_start_over(d, err);
	if (rc < 0)
		md_db_close(d, false);
	return rc;
}

void md_db_close(struct md_db *d, bool clean)
{
	if (d->db && clean && exec(d, "PRAGMA synchronous=FULL") == SQLITE_OK)
		(void)meta_write(d, true);	/* if not, it starts empty after a loss of power */
	file_close(d);
	io_close(&d->lock_fd);
	io_close(&d->dir_fd);
}

uint64_t md_db_free(struct md_db *d, bool grow)
{
	int64_t used = pragma(d, "PRAGMA page_count"), unused = pragma(d, "PRAGMA freelist_count");

	if (used < 0 || unused < 0)
		return 0;
	return (uint64_t)unused + (grow && (uint64_t)used < d->pages ? d->pages - (uint64_t)used : 0);
}

/* --- statements --- */

/* One step of a statement that gives no rows. */
static int run(sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static void done(sqlite3_stmt *st)
{
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
}

static int commit(struct md_db *d, int rc)
{
	if (rc == SQLITE_OK)
		rc = exec(d, "COMMIT");
	if (rc != SQLITE_OK && !sqlite3_get_autocommit(d->db))
		(void)exec(d, "ROLLBACK");
	return rc;
}

int md_db_get(struct md_db *d, const struct md_id *id, const char *name, struct buf *out)
{
	sqlite3_stmt *st = d->st[MD_GET];
	const void *data;
	int rc;

	sqlite3_bind_blob(st, 1, id, MD_ID, SQLITE_STATIC);
	sqlite3_bind_text(st, 2, name, -1, SQLITE_STATIC);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		data = sqlite3_column_blob(st, 0);
		if (data)
			buf_add(out, data, (size_t)sqlite3_column_bytes(st, 0));
		else if (sqlite3_errcode(d->db) != SQLITE_ROW && sqlite3_errcode(d->db) != SQLITE_OK)
			rc = sqlite3_errcode(d->db);
	}
	done(st);
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

int md_db_find(struct md_db *d, const struct md_id *id, struct md_user *u)
{
	sqlite3_stmt *st = d->st[MD_FIND];
	int64_t bytes;
	int rc;

	sqlite3_bind_blob(st, 1, id, MD_ID, SQLITE_STATIC);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		u->n = sqlite3_column_int64(st, 0);
		bytes = sqlite3_column_int64(st, 1);
		u->bytes = bytes > 0 ? (uint64_t)bytes : 0;
	}
	done(st);
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

/* n and len of the one row that st gives. */
static int one_object(sqlite3_stmt *st, int64_t *n, int64_t *len)
{
	int rc = sqlite3_step(st);

	*n = *len = 0;
	if (rc == SQLITE_ROW) {
		*n = sqlite3_column_int64(st, 0);
		*len = sqlite3_column_int64(st, 1);
	}
	done(st);
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int grow(struct md_db *d, int64_t user, int64_t by)
{
	sqlite3_bind_int64(d->st[MD_GROW], 1, user);
	sqlite3_bind_int64(d->st[MD_GROW], 2, by);
	return run(d->st[MD_GROW]);
}

static int delete_n(struct md_db *d, enum md_stmt which, int64_t n)
{
	int rc;

	sqlite3_bind_int64(d->st[which], 1, n);
	rc = run(d->st[which]);
	return rc == SQLITE_OK && sqlite3_changes(d->db) != 1 ? SQLITE_CORRUPT : rc;	/* (3) */
}

static int delete_one(struct md_db *d, int64_t user, int64_t n, int64_t len)
{
	int rc = exec(d, "BEGIN");

	if (rc == SQLITE_OK)
		rc = delete_n(d, MD_DELETE, n);
	if (rc == SQLITE_OK)
		rc = grow(d, user, -len);
	return commit(d, rc);
}

/* (1): the room of what is replaced is free already. */
int md_db_put(struct md_db *d, const struct md_id *id, const char *name, const void *data, size_t len, int64_t now)
{
	struct md_user u = { 0, 0 };
	int rc = exec(d, "BEGIN");

	if (rc == SQLITE_OK)
		rc = md_db_find(d, id, &u);
	if (rc == SQLITE_DONE) {
		sqlite3_bind_blob(d->st[MD_ADD], 1, id, MD_ID, SQLITE_STATIC);
		sqlite3_bind_int64(d->st[MD_ADD], 2, now);
		rc = run(d->st[MD_ADD]);
		u.n = sqlite3_last_insert_rowid(d->db);
	}
	if (rc == SQLITE_OK) {
		sqlite3_bind_int64(d->st[MD_INSERT], 1, u.n);
		sqlite3_bind_text(d->st[MD_INSERT], 2, name, -1, SQLITE_STATIC);
		sqlite3_bind_int64(d->st[MD_INSERT], 3, (int64_t)len);
		sqlite3_bind_blob64(d->st[MD_INSERT], 4, data, len, SQLITE_STATIC);
		rc = run(d->st[MD_INSERT]);
	}
	if (rc == SQLITE_OK)
		rc = grow(d, u.n, (int64_t)len);
	return commit(d, rc);
}

int md_db_delete(struct md_db *d, const struct md_user *u, const char *name)
{
	sqlite3_stmt *st = d->st[MD_OBJECT];
	int64_t n, len;
	int rc;

	sqlite3_bind_int64(st, 1, u->n);
	sqlite3_bind_text(st, 2, name, -1, SQLITE_STATIC);
	rc = one_object(st, &n, &len);
	return rc == SQLITE_OK ? delete_one(d, u->n, n, len) : rc;
}

int md_db_delete_oldest(struct md_db *d, struct md_user *u)
{
	int64_t n, len;
	int rc;

	sqlite3_bind_int64(d->st[MD_OLDEST], 1, u->n);
	rc = one_object(d->st[MD_OLDEST], &n, &len);
	if (rc == SQLITE_OK)
		rc = delete_one(d, u->n, n, len);
	if (rc == SQLITE_OK)
		u->bytes = len > 0 && (uint64_t)len < u->bytes ? u->bytes - (uint64_t)len : 0;
	return rc;
}

/* --- many objects, a batch a transaction --- */

struct doomed { int64_t *n, len; size_t count, cap; };

static void doom(struct doomed *l, int64_t n, int64_t len)
{
	mem_grow(&l->n, &l->cap, l->count + 1, sizeof(*l->n));
	l->n[l->count++] = n;
	l->len += len;
}

static int delete_list(struct md_db *d, int64_t user, struct doomed *l)
{
	size_t i;
	int rc = exec(d, "BEGIN");

	for (i = 0; rc == SQLITE_OK && i < l->count; i++)
		rc = delete_n(d, MD_DELETE, l->n[i]);
	if (rc == SQLITE_OK && l->count)
		rc = grow(d, user, -l->len);
	l->count = 0;
	l->len = 0;
	return commit(d, rc);
}

int md_db_delete_user(struct md_db *d, const struct md_user *u, unsigned batch)
{
	sqlite3_stmt *st = d->st[MD_ANY];
	struct doomed l = { NULL, 0, 0, 0 };
	size_t found;
	int rc;

	do {
		sqlite3_bind_int64(st, 1, u->n);
		sqlite3_bind_int64(st, 2, batch);
		while ((rc = sqlite3_step(st)) == SQLITE_ROW)
			doom(&l, sqlite3_column_int64(st, 0), sqlite3_column_int64(st, 1));
		done(st);
		found = l.count;
		if (rc == SQLITE_DONE)
			rc = delete_list(d, u->n, &l);
	} while (rc == SQLITE_OK && found == batch);
	free(l.n);
	return rc == SQLITE_OK ? delete_n(d, MD_DELETE_USER, u->n) : rc;
}

int md_db_keep(struct md_db *d, const struct md_user *u, bool (*named)(void *ctx, const char *name), void *ctx, unsigned batch)
{
	struct doomed all = { NULL, 0, 0, 0 }, part = { NULL, 0, 0, 0 };
	sqlite3_stmt *st = d->st[MD_NAMES];
	int64_t *lens = NULL;
	size_t cap = 0, i;
	int rc;

	sqlite3_bind_int64(st, 1, u->n);
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		const char *name = (const char *)sqlite3_column_text(st, 2);

		if (name && named(ctx, name))
			continue;
		mem_grow(&lens, &cap, all.count + 1, sizeof(*lens));
		lens[all.count] = sqlite3_column_int64(st, 1);
		doom(&all, sqlite3_column_int64(st, 0), 0);
	}
	done(st);
	rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
	for (i = 0; i < all.count && rc == SQLITE_OK; i++) {
		doom(&part, all.n[i], lens[i]);
		if (part.count == batch || i + 1 == all.count)
			rc = delete_list(d, u->n, &part);
	}
	free(all.n);
	free(part.n);
	free(lens);
	return rc;
}

int md_db_coldest(struct md_db *d, bool (*fn)(void *ctx, const struct md_id *id), void *ctx, struct md_user *u)
{
	sqlite3_stmt *st = d->st[MD_COLDEST];
	struct md_id id;
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		const void *p = sqlite3_column_blob(st, 2);

		memset(&id, 0, sizeof(id));
		if (p && sqlite3_column_bytes(st, 2) == MD_ID)
			memcpy(&id, p, MD_ID);
		if (!fn(ctx, &id))
			continue;
		*u = (struct md_user){ sqlite3_column_int64(st, 0), (uint64_t)sqlite3_column_int64(st, 1) };
		break;
	}
	done(st);
	return rc;
}

/* --- the catalogue --- */

int md_db_note(struct md_db *d, const struct md_note *const *notes, size_t n)
{
	int rc = exec(d, "BEGIN");
	size_t i;

	for (i = 0; i < n && rc == SQLITE_OK; i++) {
		sqlite3_stmt *st = d->st[notes[i]->dirty ? MD_NOTE : notes[i]->state ? MD_STATE : MD_USED];	/* a row of its own for dirty ones alone */

		sqlite3_bind_blob(st, 1, &notes[i]->id, MD_ID, SQLITE_STATIC);
		sqlite3_bind_int64(st, 2, notes[i]->used);
		if (notes[i]->state) {
			sqlite3_bind_int64(st, 3, (int64_t)notes[i]->epoch);
			sqlite3_bind_int64(st, 4, (int64_t)notes[i]->seq);
			sqlite3_bind_int64(st, 5, notes[i]->dirty);
		}
		rc = run(st);
	}
	return commit(d, rc);
}

static uint64_t disk_bytes(struct md_db *d)
{
	static const char *const names[] = { "lock", "metacache.db", "metacache.db-journal" };
	uint64_t sum = 0;
	struct stat sb;
	size_t i;

	for (i = 0; i < MEM_COUNT(names); i++)
		if (fstatat(d->dir_fd, names[i], &sb, AT_SYMLINK_NOFOLLOW) == 0)
			sum += (uint64_t)sb.st_blocks * 512;
	return sum;
}

void md_db_count(struct md_db *d, struct metadisk_stats *st)
{
	int64_t v[3] = { pragma(d, "SELECT sum(1) FROM user"), pragma(d, "SELECT sum(1) FROM object"), pragma(d, "SELECT sum(bytes) FROM user") };

	st->users = v[0] > 0 ? (uint64_t)v[0] : 0;
	st->objects = v[1] > 0 ? (uint64_t)v[1] : 0;
	st->bytes_used = v[2] > 0 ? (uint64_t)v[2] : 0;
	st->bytes_disk = disk_bytes(d);
}
