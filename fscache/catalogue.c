/* The catalogue: what lies where in the data files, for the next start.
 *
 *   <dir>/lock           held while the cache is open
 *   <dir>/secret         48 random bytes: keys of the hashes and checksums
 *   <dir>/catalogue.db   SQLite: meta (one row), block (one for each cached block)
 *   <dir>/data.NN        a shard's units
 *
 * The index in memory is what counts; the catalogue follows it every flush_s
 * and at a clean stop, a few rows a transaction, without a sync until the last.
 * It may be behind the data, and nothing in it is believed:
 *  (1) a row that makes no sense, or claims units that another one has, is
 *      left out; its bytes are served only when the checksum over them and
 *      all that the row says is right;
 *  (2) after a clean stop, or a crash of the process alone, it is loaded;
 *      when the machine went down (another boot id, no clean stop) everything
 *      is dropped, for then a deleted object might come back;
 *  (3) when SQLite finds fault with the file, everything is dropped. */
#include "fscache/fscache-private.h"

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORMAT = 1, PAGE = 4096, LOOK = 4096, BATCH_MAX = 512, BOOT_MAX = 64 };

static int db_err(struct fscache *fc, struct err *err, const char *what)
{
	int code = fc->db ? sqlite3_errcode(fc->db) : SQLITE_CANTOPEN;

	return err_set(err, code == SQLITE_FULL || code == SQLITE_IOERR ? ERR_LIMIT : ERR_IO, "cache: catalogue: %s: %s", what,
		       fc->db ? sqlite3_errmsg(fc->db) : sqlite3_errstr(code));
}

static int db_exec(struct fscache *fc, const char *sql, struct err *err)
{
	return sqlite3_exec(fc->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_err(fc, err, sql);
}

static void db_close(struct fscache *fc)
{
	sqlite3_close(fc->db);
	fc->db = NULL;
}

/* Of the running kernel; "" when it cannot be had. */
static void boot_id(char id[BOOT_MAX])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, id, BOOT_MAX - 1) : 0;

	id[n > 0 ? n : 0] = '\0';
	id[strcspn(id, "\n")] = '\0';
	io_close(&fd);
}

/* --- the secret --- */

static int secret_read(struct fscache *fc, unsigned char s[FSC_SECRET])
{
	char *path = mem_printf("%s/secret", fc->dir), *text = NULL;
	size_t len = 0;
	int rc = io_read_file(path, FSC_SECRET, &text, &len, NULL);

	free(path);
	if (rc == 0 && len == FSC_SECRET)
		memcpy(s, text, FSC_SECRET);
	free(text);
	return rc == 0 && len == FSC_SECRET ? 0 : -1;
}

void fsc_catalogue_secret(struct fscache *fc)
{
	if (secret_read(fc, fc->secret) < 0)
		randombytes_buf(fc->secret, FSC_SECRET);
}

static int secret_write(struct fscache *fc, struct err *err)
{
	int fd = openat(fc->dir_fd, "secret", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return err_errno(err, "cache: create", "secret");
	rc = io_write_full(fd, fc->secret, FSC_SECRET, err);
	close(fd);
	return rc < 0 ? rc : 0;
}

/* --- the database --- */

static int db_open(struct fscache *fc, bool fresh, struct err *err)
{
	char *path = mem_printf("%s/catalogue.db", fc->dir), *sql;
	int rc;

	if (fresh) {
		unlinkat(fc->dir_fd, "catalogue.db", 0);
		unlinkat(fc->dir_fd, "catalogue.db-journal", 0);
		unlinkat(fc->dir_fd, "catalogue.db-wal", 0);
		unlinkat(fc->dir_fd, "catalogue.db-shm", 0);
	}
	rc = sqlite3_open_v2(path, &fc->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK ? 0 : db_err(fc, err, path);
	free(path);
	sql = mem_printf("PRAGMA page_size=%d; PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=OFF; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-1024;"
			 "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA locking_mode=EXCLUSIVE; PRAGMA max_page_count=%llu;",
			 PAGE, (unsigned long long)(fc->db_bytes / PAGE));
	if (rc == 0)
		rc = db_exec(fc, sql, err);
	free(sql);
	if (rc == 0 && fresh)
		rc = db_exec(fc, "BEGIN;"
			     "CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK(id = 1), version INT, shards INT, clean INT, boot TEXT);"
			     "CREATE TABLE block(n INTEGER PRIMARY KEY, obj BLOB, block INT, size INT, len INT, tag INT, owner INT, queue INT, freq INT,"
			     " used INT, at BLOB); COMMIT;", err);
	return rc;
}

static int meta_write(struct fscache *fc, bool clean, struct err *err)
{
	char boot[BOOT_MAX], *sql;
	int rc;

	boot_id(boot);
	sql = sqlite3_mprintf("INSERT OR REPLACE INTO meta VALUES(1, %d, %u, %d, %Q)", FORMAT, fc->n_shards, clean, boot);
	rc = sql ? db_exec(fc, sql, err) : err_set(err, ERR_LIMIT, "cache: out of memory");
	sqlite3_free(sql);
	return rc;
}

/* Does the catalogue say something that may be used?  *clean_r: it was closed. */
static bool meta_good(struct fscache *fc, bool *clean_r)
{
	sqlite3_stmt *st = NULL;
	char boot[BOOT_MAX];
	bool good = false;

	boot_id(boot);
	if (sqlite3_prepare_v2(fc->db, "SELECT version, shards, clean, boot FROM meta WHERE id = 1", -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
		const char *then = (const char *)sqlite3_column_text(st, 3);

		*clean_r = sqlite3_column_int(st, 2) == 1;
		good = sqlite3_column_int(st, 0) == FORMAT && sqlite3_column_int64(st, 1) == fc->n_shards &&
		       (*clean_r || (then && *boot && strcmp(then, boot) == 0));
	}
	sqlite3_finalize(st);
	return good;
}

/* --- rows --- */

static bool where_parse(const void *data, size_t len, uint32_t need, struct fsc_where *w)
{
	struct fsc_extent x[FSC_BLOCK_UNITS];
	struct rd r = rd_init(data, len);
	uint32_t n = 0, sum = 0;

	while (rd_left(&r) && n < FSC_BLOCK_UNITS) {
		uint64_t at = rd_v(&r), units = rd_v(&r);

		if (r.failed || at > UINT32_MAX || units == 0 || units > FSC_BLOCK_UNITS)
			return false;
		x[n++] = (struct fsc_extent){ (uint32_t)at, (uint32_t)units };
		sum += (uint32_t)units;
	}
	if (rd_left(&r) || !n || sum != need)
		return false;
	w->n = n;
	if (n == 1)
		w->one = x[0];
	else
		w->many = mem_dup(x, n * sizeof(x[0]));
	return true;
}

static void where_put(const struct fsc_where *w, struct buf *b)
{
	const struct fsc_extent *x = fsc_extents(w);
	uint32_t i;

	for (i = 0; i < w->n; i++) {
		buf_putv(b, x[i].at);
		buf_putv(b, x[i].n);
	}
}

/* One row into its shard; what makes no sense is left out. */
static void row_load(struct fscache *fc, sqlite3_stmt *st, bool suspect)
{
	uint64_t n = (uint64_t)sqlite3_column_int64(st, 0), block = (uint64_t)sqlite3_column_int64(st, 2);
	int64_t len = sqlite3_column_int64(st, 4), freq = sqlite3_column_int64(st, 8), used = sqlite3_column_int64(st, 9);
	const void *obj = sqlite3_column_blob(st, 1), *at = sqlite3_column_blob(st, 10);
	struct fsc_entry e = { .size = (uint64_t)sqlite3_column_int64(st, 3), .tag = (uint64_t)sqlite3_column_int64(st, 5), .flags = FSC_SAVED };
	struct fsc_shard *sh;
	bool in;

	if (n >> 32 >= fc->n_shards || !obj || sqlite3_column_bytes(st, 1) != sizeof(e.id) || block > UINT32_MAX || len < 1 || len > FSCACHE_BLOCK ||
	    !where_parse(at, (size_t)sqlite3_column_bytes(st, 10), fsc_units((size_t)len), &e.where))
		return;
	memcpy(&e.id, obj, sizeof(e.id));
	e.block = (uint32_t)block;
	e.len = (uint16_t)len;
	e.queue = sqlite3_column_int(st, 7) == FSC_MAIN ? FSC_MAIN : FSC_SMALL;
	e.freq = freq > 0 && freq <= FSC_FREQ_MAX ? (uint8_t)freq : 0;
	e.used = used > 0 && used <= UINT32_MAX ? (uint32_t)used : 0;
	if (suspect)
		e.flags |= FSC_SUSPECT;
	sh = &fc->shards[n >> 32];
	pthread_mutex_lock(&sh->lock);
	in = fsc_shard_of(fc, &e.id, e.block) == sh && fsc_shard_restore(sh, (uint32_t)n, &e, (uint64_t)sqlite3_column_int64(st, 6));
	pthread_mutex_unlock(&sh->lock);
	if (!in && e.where.n > 1)
		free(e.where.many);
}

static int load(struct fscache *fc, bool suspect, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(fc->db, "SELECT n, obj, block, size, len, tag, owner, queue, freq, used, at FROM block ORDER BY n", -1, &st, NULL);

	while (rc == SQLITE_OK || rc == SQLITE_ROW) {
		rc = sqlite3_step(st);
		if (rc == SQLITE_ROW)
			row_load(fc, st, suspect);
	}
	if (rc != SQLITE_DONE)
		db_err(fc, err, "load");
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? 0 : ERR_CORRUPT;
}

/* --- data files --- */

static void drop_strangers(struct fscache *fc)
{
	DIR *d = opendir(fc->dir);
	struct dirent *e;
	unsigned long no;
	char *end;

	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, "data.", 5) != 0)
			continue;
		no = strtoul(e->d_name + 5, &end, 10);
		if (*end || no >= fc->n_shards || strlen(e->d_name) != 7)
			unlinkat(fc->dir_fd, e->d_name, 0);
	}
	if (d)
		closedir(d);
}

static int data_open(struct fscache *fc, struct fsc_shard *sh, struct err *err)
{
	uint64_t max = (uint64_t)sh->space.max * FSC_UNIT;
	char name[16];
	struct stat sb;
	int fd;

	snprintf(name, sizeof(name), "data.%02u", sh->no);
	fd = openat(fc->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(err, "cache: open", name);
	if (fstat(fd, &sb) < 0 || !S_ISREG(sb.st_mode) || ((uint64_t)sb.st_size > max && ftruncate(fd, (off_t)max) < 0)) {
		close(fd);
		return err_errno(err, "cache: size of", name);
	}
	pthread_mutex_lock(&sh->lock);
	sh->space.fd = fd;
	fsc_space_set(&sh->space, (uint32_t)(((uint64_t)sb.st_size > max ? max : (uint64_t)sb.st_size) / FSC_UNIT));
	pthread_mutex_unlock(&sh->lock);
	return 0;
}

static void data_close(struct fscache *fc)
{
	unsigned i;

	for (i = 0; i < fc->n_shards; i++) {
		struct fsc_shard *sh = &fc->shards[i];

		pthread_mutex_lock(&sh->lock);
		sh->open = false;
		io_close(&sh->space.fd);
		pthread_mutex_unlock(&sh->lock);
	}
}

/* --- opening --- */

static int dir_lock(struct fscache *fc, struct err *err)
{
	int rc = io_mkdirs(fc->dir, 0700, err), fd;

	if (rc < 0)
		return rc;
	fc->dir_fd = open(fc->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fc->dir_fd < 0)
		return err_errno(err, "cache: open", fc->dir);
	fd = openat(fc->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(err, "cache: open lock in", fc->dir);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		rc = errno == EWOULDBLOCK ? err_set(err, ERR_BUSY, "cache: %s is in use", fc->dir) : err_errno(err, "cache: lock", fc->dir);
		close(fd);
		return rc;
	}
	fc->lock_fd = fd;
	return 0;
}

static void forget_all(struct fscache *fc)
{
	unsigned i;

	for (i = 0; i < fc->n_shards; i++)
		fsc_shard_clean(&fc->shards[i]);
}

static int start_over(struct fscache *fc, struct err *err)
{
	int rc;

	db_close(fc);
	forget_all(fc);
	rc = secret_write(fc, err);
	if (rc == 0)
		rc = db_open(fc, true, err);
	return rc;
}

/* The catalogue's content, or an empty one. */
static int load_or_start(struct fscache *fc, struct err *err)
{
	unsigned char s[FSC_SECRET];
	struct err quiet = ERR_INIT;
	bool clean = false, good;

	good = secret_read(fc, s) == 0 && memcmp(s, fc->secret, FSC_SECRET) == 0 && !fc->changed && faccessat(fc->dir_fd, "catalogue.db", F_OK, 0) == 0;
	good = good && db_open(fc, false, &quiet) == 0 && meta_good(fc, &clean) && load(fc, !clean, &quiet) == 0;
	if (good && !atomic_load(&fc->changed))
		return 0;
	if (quiet.code)
		log_event(LOG_WARN, "cache: the catalogue cannot be read; the cache starts empty", LF_S("dir", fc->dir), LF_ERR(&quiet), LF_END);
	return start_over(fc, err);
}

static void undo_open(struct fscache *fc)
{
	db_close(fc);
	forget_all(fc);
	data_close(fc);
	io_close(&fc->lock_fd);
	io_close(&fc->dir_fd);
}

int fsc_catalogue_open(struct fscache *fc, struct err *err)
{
	int rc = dir_lock(fc, err);
	unsigned i;

	if (rc < 0) {
		io_close(&fc->dir_fd);
		return rc;
	}
	drop_strangers(fc);
	for (i = 0; i < fc->n_shards && rc == 0; i++)
		rc = data_open(fc, &fc->shards[i], err);
	if (rc == 0)
		rc = load_or_start(fc, err);
	if (rc == 0)
		rc = meta_write(fc, false, err);
	if (rc < 0) {
		undo_open(fc);
		return rc;
	}
	for (i = 0; i < fc->n_shards; i++) {
		pthread_mutex_lock(&fc->shards[i].lock);
		fsc_shard_restored(&fc->shards[i]);
		pthread_mutex_unlock(&fc->shards[i].lock);
	}
	return 0;
}

/* --- flushing --- */

struct batch {
	struct fsc_entry *e;
	uint64_t *owner;
	uint32_t *idx;
	struct buf where;	/* of all, one behind the other */
	size_t *where_end;
	size_t n, max;
};

static void batch_init(struct batch *b, uint64_t journal_bytes)
{
	size_t max = (size_t)(journal_bytes / PAGE / 4);	/* a row may touch that many pages */

	max = max > 8 ? max - 4 : 4;
	*b = (struct batch){ .max = max > BATCH_MAX ? BATCH_MAX : max };
	b->e = mem_calloc(b->max, sizeof(*b->e));
	b->owner = mem_calloc(b->max, sizeof(*b->owner));
	b->idx = mem_calloc(b->max, sizeof(*b->idx));
	b->where_end = mem_calloc(b->max, sizeof(*b->where_end));
	buf_init(&b->where, 0);
}

static void batch_free(struct batch *b)
{
	free(b->e);
	free(b->owner);
	free(b->idx);
	free(b->where_end);
	buf_free(&b->where);
}

/* What changed from *pos on; false: that was all. */
static bool collect(struct fsc_shard *sh, uint32_t *pos, uint8_t want, struct batch *b)
{
	uint32_t stop;
	bool more;

	b->n = 0;
	buf_clear(&b->where);
	pthread_mutex_lock(&sh->lock);
	stop = *pos + LOOK;
	for (; *pos <= sh->e_used && *pos < stop && b->n < b->max; (*pos)++) {
		struct fsc_entry *e = &sh->e[*pos];

		if (!(e->flags & want))
			continue;
		b->e[b->n] = *e;
		b->owner[b->n] = 0;
		if (e->flags & FSC_LIVE) {
			b->owner[b->n] = sh->o[e->owner].hash;
			where_put(&e->where, &b->where);
		}
		b->where_end[b->n] = b->where.len;
		b->idx[b->n++] = *pos;
		e->flags = (uint8_t)((e->flags & ~(FSC_DIRTY | FSC_READ | FSC_SAVED)) | (e->flags & FSC_LIVE ? FSC_SAVED : 0));
	}
	more = *pos <= sh->e_used;
	pthread_mutex_unlock(&sh->lock);
	return more;
}

static void uncollect(struct fsc_shard *sh, const struct batch *b)
{
	size_t i;

	pthread_mutex_lock(&sh->lock);
	for (i = 0; i < b->n; i++)
		if (b->idx[i] <= sh->e_used)
			sh->e[b->idx[i]].flags |= FSC_DIRTY | FSC_SAVED;
	pthread_mutex_unlock(&sh->lock);
}

static int row_write(sqlite3_stmt *put, sqlite3_stmt *del, const struct fsc_shard *sh, const struct batch *b, size_t i)
{
	const struct fsc_entry *e = &b->e[i];
	size_t start = i ? b->where_end[i - 1] : 0;
	sqlite3_int64 n = (sqlite3_int64)((uint64_t)sh->no << 32 | b->idx[i]);
	sqlite3_stmt *st = e->flags & FSC_LIVE ? put : del;
	int rc;

	if (st == del && !(e->flags & FSC_SAVED))
		return SQLITE_OK;
	sqlite3_bind_int64(st, 1, n);
	if (st == put) {
		sqlite3_bind_blob(st, 2, &e->id, sizeof(e->id), SQLITE_STATIC);
		sqlite3_bind_int64(st, 3, e->block);
		sqlite3_bind_int64(st, 4, (sqlite3_int64)e->size);
		sqlite3_bind_int(st, 5, e->len);
		sqlite3_bind_int64(st, 6, (sqlite3_int64)e->tag);
		sqlite3_bind_int64(st, 7, (sqlite3_int64)b->owner[i]);
		sqlite3_bind_int(st, 8, e->queue);
		sqlite3_bind_int(st, 9, e->freq);
		sqlite3_bind_int64(st, 10, e->used);
		sqlite3_bind_blob(st, 11, b->where.data + start, (int)(b->where_end[i] - start), SQLITE_STATIC);
	}
	rc = sqlite3_step(st);
	sqlite3_reset(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int batch_write(struct fscache *fc, const struct fsc_shard *sh, const struct batch *b, struct err *err)
{
	sqlite3_stmt *put = NULL, *del = NULL;
	int rc = 0;
	size_t i;

	if (!b->n)
		return 0;
	if (sqlite3_prepare_v2(fc->db, "INSERT OR REPLACE INTO block VALUES(?,?,?,?,?,?,?,?,?,?,?)", -1, &put, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(fc->db, "DELETE FROM block WHERE n = ?", -1, &del, NULL) != SQLITE_OK)
		rc = db_err(fc, err, "prepare");
	if (rc == 0)
		rc = db_exec(fc, "BEGIN", err);
	if (rc == 0) {
		for (i = 0; i < b->n && rc == 0; i++)
			if (row_write(put, del, sh, b, i) != SQLITE_OK)
				rc = db_err(fc, err, "write");
		if (rc == 0)
			rc = db_exec(fc, "COMMIT", err);
		if (rc < 0 && !sqlite3_get_autocommit(fc->db))
			sqlite3_exec(fc->db, "ROLLBACK", NULL, NULL, NULL);
	}
	sqlite3_finalize(put);
	sqlite3_finalize(del);
	return rc;
}

static int flush_all(struct fscache *fc, uint8_t want, struct err *err)
{
	struct batch b;
	uint32_t pos;
	unsigned i;
	bool more;
	int rc = 0;

	batch_init(&b, fc->journal_bytes);
	for (i = 0; i < fc->n_shards && rc == 0; i++) {
		more = true;
		for (pos = 1; more && rc == 0;) {
			more = collect(&fc->shards[i], &pos, want, &b);
			rc = batch_write(fc, &fc->shards[i], &b, err);
			if (rc < 0)
				uncollect(&fc->shards[i], &b);
		}
	}
	batch_free(&b);
	return rc;
}

/* A new catalogue of all there is, rows in order: they take least room so. */
static int write_anew(struct fscache *fc, struct err *err)
{
	uint32_t j;
	unsigned i;
	int rc;

	db_close(fc);
	rc = db_open(fc, true, err);
	for (i = 0; i < fc->n_shards; i++) {
		struct fsc_shard *sh = &fc->shards[i];

		pthread_mutex_lock(&sh->lock);
		for (j = 1; j <= sh->e_used; j++) {
			sh->e[j].flags &= (uint8_t)~(FSC_SAVED | FSC_DIRTY);
			if (sh->e[j].flags & FSC_LIVE)
				sh->e[j].flags |= FSC_DIRTY;
		}
		pthread_mutex_unlock(&sh->lock);
	}
	if (rc == 0)
		rc = meta_write(fc, false, err);
	return rc == 0 ? flush_all(fc, FSC_DIRTY, err) : rc;
}

int fsc_catalogue_flush(struct fscache *fc, bool last, struct err *err)
{
	struct err first = ERR_INIT;

	if (flush_all(fc, last ? FSC_DIRTY | FSC_READ : FSC_DIRTY, &first) == 0)
		return 0;
	return write_anew(fc, err);	/* it was damaged, deleted or full of holes */
}

int fsc_catalogue_clean(struct fscache *fc, struct err *err)
{
	int rc;

	db_close(fc);
	forget_all(fc);
	rc = db_open(fc, true, err);
	return rc == 0 ? meta_write(fc, false, err) : rc;
}

void fsc_catalogue_close(struct fscache *fc, bool clean)
{
	struct err err = ERR_INIT;

	if (fc->lock_fd < 0)
		return;
	if (clean && fsc_catalogue_flush(fc, true, &err) == 0 && db_exec(fc, "PRAGMA synchronous=FULL", &err) == 0)
		meta_write(fc, true, &err);
	if (err.code)
		log_event(LOG_WARN, "cache: the catalogue cannot be written; the cache starts empty next time, or nearly", LF_S("dir", fc->dir), LF_ERR(&err), LF_END);
	db_close(fc);
	data_close(fc);
	io_close(&fc->lock_fd);
	io_close(&fc->dir_fd);
}
