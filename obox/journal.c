/* The local journal: an append-only file of sealed frames, group-committed.
 *
 * File <dir>/<number>.j
 *      0   4  magic "CULJ"
 *      4   1  version 1
 *      5   3  zero
 *      8  16  file id, random
 *     24   -  frames, then zeros (the file is allocated ahead)
 * Frame
 *      0   4  magic "CJF1"
 *      4   4  length S of the sealed part
 *      8   4  length O of the message objects behind it
 *     12   4  zero
 *     16   S  sealed bundle; associated data "journal/<file id>/<frame number>":
 *             varint entries; for each: user, epoch, lsn, record, key, object length;
 *             then 16 bytes BLAKE2b of the objects
 *   16+S   O  message objects as they go into the store (sealed themselves)
 *
 * Invariants
 *  (1) Frames are written in the order of journal_append().
 *  (2) Room is allocated before an entry is taken, so a full disk refuses the
 *      change and never half a frame.
 *  (3) One thread at a time writes: the first that waits takes everything
 *      queued, writes it as one frame and syncs; the others sleep meanwhile
 *      and the next of them takes what came in the meantime.  So an idle journal
 *      commits at once and a busy one commits in groups, without a timer.
 *  (4) An error of write or sync is final: what the file holds is then not
 *      known, so nothing more is acknowledged until a restart replays it. */
#include "obox/obox-private.h"

#include "base/b64.h"
#include "base/io.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_HEAD = 24, FRAME_HEAD = 16, ALLOC_STEP = 16 << 20, FRAME_SLACK = 512, ENTRY_SLACK = 400 };

struct queue {
	struct buf meta;		/* encoded entries */
	struct iovec *objects;
	size_t n_objects, cap_objects;
	size_t object_bytes;
	uint64_t n;
};

struct journal {
	char *dir;
	const struct seal_keys *keys;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int fd;
	uint64_t file_no, frame_no;
	unsigned char file_id[16];
	uint64_t off, allocated;	/* written; allocated in the file */
	uint64_t inflight;		/* bytes being written behind off */
	struct queue q, spare;
	uint64_t queued, written, durable;	/* tickets */
	bool busy;			/* somebody writes or syncs */
	bool failed;
	struct err cause;
};

static int sync_directory(const char *dir, struct err *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || fsync(fd) < 0)
		rc = err_errno(err, "journal: sync directory", dir);
	if (fd >= 0)
		close(fd);
	return rc;
}

static char *file_path(const char *dir, uint64_t no)
{
	return mem_printf("%s/%010llu.j", dir, (unsigned long long)no);
}

static int allocate(struct journal *j, uint64_t upto, struct err *err)
{
	uint64_t want = (upto / ALLOC_STEP + 1) * ALLOC_STEP;
	int rc;

	do {
		rc = posix_fallocate(j->fd, (off_t)j->allocated, (off_t)(want - j->allocated));
	} while (rc == EINTR);
	if (rc) {
		errno = rc;
		err_errno(err, "journal: allocate room in", j->dir);
		if (err)
			err->code = rc == ENOSPC || rc == EDQUOT ? ERR_LIMIT : err->code;
		return rc == ENOSPC || rc == EDQUOT ? ERR_LIMIT : ERR_IO;
	}
	j->allocated = want;
	return 0;
}

static int start_file(struct journal *j, uint64_t no, struct err *err)
{
	unsigned char head[FILE_HEAD] = "CULJ\1";
	char *path = file_path(j->dir, no);
	int fd, rc, old = j->fd;
	uint64_t old_alloc = j->allocated;

	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		rc = err_errno(err, "journal: create", path);
		free(path);
		return rc;
	}
	randombytes_buf(head + 8, sizeof(j->file_id));
	j->fd = fd;
	j->allocated = 0;
	rc = allocate(j, 0, err);
	if (rc == 0)
		rc = io_pwrite_full(fd, head, sizeof(head), 0, err);
	if (rc == 0 && fsync(fd) < 0)
		rc = err_errno(err, "journal: sync", path);
	if (rc == 0)
		rc = sync_directory(j->dir, err);
	if (rc < 0) {
		unlink(path);
		close(fd);
		j->fd = old;
		j->allocated = old_alloc;
	} else {
		io_close(&old);
		memcpy(j->file_id, head + 8, sizeof(j->file_id));
		j->file_no = no;
		j->frame_no = 0;
		j->off = FILE_HEAD;
	}
	free(path);
	return rc;
}

static uint64_t highest_file(const char *dir)
{
	uint64_t max = 0, n;
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d)) != NULL) {
		n = strtoull(de->d_name, NULL, 10);
		if (n > max)
			max = n;
	}
	if (d)
		closedir(d);
	return max;
}

int journal_open(const char *dir, const struct seal_keys *keys, struct journal **j_r, struct err *err)
{
	struct journal *j;
	int rc = io_mkdirs(dir, 0700, err);

	*j_r = NULL;
	if (rc < 0)
		return rc;
	j = MEM_NEW(struct journal);
	j->dir = mem_strdup(dir);
	j->keys = keys;
	j->fd = -1;
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->cond, NULL);
	rc = start_file(j, highest_file(dir) + 1, err);
	if (rc < 0)
		journal_close(&j);
	*j_r = j;
	return rc;
}

static void queue_free(struct queue *q)
{
	buf_free(&q->meta);
	free(q->objects);
}

void journal_close(struct journal **jp)
{
	struct journal *j = *jp;

	if (!j)
		return;
	queue_free(&j->q);
	queue_free(&j->spare);
	io_close(&j->fd);
	pthread_cond_destroy(&j->cond);
	pthread_mutex_destroy(&j->lock);
	free(j->dir);
	free(j);
	*jp = NULL;
}

/* --- writing --- */

static void frame_aad(const unsigned char id[16], uint64_t frame, char out[96])
{
	char hex[33];

	hex_encode(hex, id, 16);
	snprintf(out, 96, "journal/%s/%llu", hex, (unsigned long long)frame);
}

static void hash_objects(const struct iovec *iov, size_t n, unsigned char h[16])
{
	crypto_generichash_state st;
	size_t i;

	crypto_generichash_init(&st, NULL, 0, 16);
	for (i = 0; i < n; i++)
		crypto_generichash_update(&st, iov[i].iov_base, iov[i].iov_len);
	crypto_generichash_final(&st, h, 16);
}

static void head32(unsigned char *p, uint32_t v)
{
	int i;

	for (i = 0; i < 4; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

/* Writes q as one frame; not under the lock, but only by the busy one. */
static int write_frame(struct journal *j, struct queue *q, uint64_t off, uint64_t frame, uint64_t *len_r, struct err *err)
{
	struct buf plain = BUF_INIT(0), sealed = BUF_INIT(0);
	unsigned char head[FRAME_HEAD] = "CJF1", h[16];
	struct iovec *iov;
	char aad[96];
	int rc;

	buf_putv(&plain, q->n);
	buf_add(&plain, q->meta.data, q->meta.len);
	hash_objects(q->objects, q->n_objects, h);
	buf_add(&plain, h, sizeof(h));
	frame_aad(j->file_id, frame, aad);
	rc = seal_bundle(j->keys, aad, plain.data, plain.len, &sealed, err);
	if (rc == 0) {
		head32(head + 4, (uint32_t)sealed.len);
		head32(head + 8, (uint32_t)q->object_bytes);
		iov = mem_calloc(q->n_objects + 2, sizeof(*iov));
		iov[0] = (struct iovec){ head, sizeof(head) };
		iov[1] = (struct iovec){ sealed.data, sealed.len };
		if (q->n_objects)
			memcpy(iov + 2, q->objects, q->n_objects * sizeof(*iov));
		if (lseek(j->fd, (off_t)off, SEEK_SET) < 0)
			rc = err_errno(err, "journal: seek", j->dir);
		else
			rc = io_writev_full(j->fd, iov, (int)(q->n_objects + 2), err);
		free(iov);
		*len_r = sizeof(head) + sealed.len + q->object_bytes;
	}
	buf_free(&plain);
	buf_free(&sealed);
	return rc;
}

static void fail(struct journal *j, const struct err *e)
{
	j->failed = true;
	j->cause = *e;
	log_event(LOG_ERROR, "journal cannot be written: nothing more is acknowledged; mend the disk and restart", LF_S("dir", j->dir), LF_ERR(e), LF_END);
}

/* Takes the queue and writes it; under the lock, which is released meanwhile. */
static void lead(struct journal *j, bool sync)
{
	struct err e = ERR_INIT;
	struct queue q = j->q;
	uint64_t upto = j->queued, off = j->off, frame = j->frame_no, len = 0;
	int rc = 0;

	j->busy = true;
	j->inflight = q.meta.len + q.object_bytes + FRAME_SLACK;
	j->q = j->spare;
	memset(&j->spare, 0, sizeof(j->spare));
	pthread_mutex_unlock(&j->lock);
	if (q.n)
		rc = write_frame(j, &q, off, frame, &len, &e);
	if (rc == 0 && sync && fdatasync(j->fd) < 0)
		rc = err_errno(&e, "journal: sync", j->dir);
	pthread_mutex_lock(&j->lock);
	j->inflight = 0;
	if (rc < 0) {
		fail(j, &e);
	} else {
		j->off += len;
		j->frame_no += q.n > 0;
		j->written = upto;
		if (sync)
			j->durable = upto;
	}
	buf_clear(&q.meta);
	q.n_objects = 0;
	q.object_bytes = 0;
	q.n = 0;
	j->spare = q;
	j->busy = false;
	pthread_cond_broadcast(&j->cond);
}

static int failure(struct journal *j, struct err *err)
{
	return err_set(err, ERR_IO, "%s", j->cause.msg);
}

static void queue_entry(struct queue *q, const struct journal_entry *e)
{
	buf_putstr(&q->meta, e->user);
	buf_putv(&q->meta, e->epoch);
	buf_putv(&q->meta, e->lsn);
	buf_putblob(&q->meta, e->rec, e->rec_len);
	buf_putstr(&q->meta, e->object.key);
	buf_putv(&q->meta, e->object.key ? e->object.len : 0);
	if (e->object.key) {
		mem_grow(&q->objects, &q->cap_objects, q->n_objects + 1, sizeof(*q->objects));
		q->objects[q->n_objects++] = (struct iovec){ (void *)(uintptr_t)e->object.data, e->object.len };
		q->object_bytes += e->object.len;
	}
	q->n++;
}

int journal_append(struct journal *j, const struct journal_entry *e, size_t n, uint64_t *ticket_r, struct err *err)
{
	uint64_t need = 0;
	size_t i;
	int rc = 0;

	for (i = 0; i < n; i++)
		need += e[i].rec_len + e[i].object.len + strlen(e[i].user) + ENTRY_SLACK;
	pthread_mutex_lock(&j->lock);
	need += j->inflight + j->q.meta.len + j->q.object_bytes + FRAME_SLACK;
	if (j->failed)
		rc = failure(j, err);
	else if (need > UINT32_MAX / 2)
		rc = err_set(err, ERR_LIMIT, "journal: too much at once");
	else if (j->off + need > j->allocated)
		rc = allocate(j, j->off + need, err);
	if (rc == 0) {
		for (i = 0; i < n; i++)
			queue_entry(&j->q, &e[i]);
		*ticket_r = ++j->queued;
	}
	pthread_mutex_unlock(&j->lock);
	return rc;
}

int journal_wait(struct journal *j, uint64_t ticket, struct err *err)
{
	int rc = 0;

	pthread_mutex_lock(&j->lock);
	while (j->durable < ticket && !j->failed) {
		if (j->busy)
			pthread_cond_wait(&j->cond, &j->lock);
		else
			lead(j, true);
	}
	if (j->durable < ticket)
		rc = failure(j, err);
	pthread_mutex_unlock(&j->lock);
	return rc;
}

void journal_push(struct journal *j)
{
	pthread_mutex_lock(&j->lock);
	if (!j->busy && !j->failed && j->q.n)
		lead(j, false);	/* a busy one takes it along */
	pthread_mutex_unlock(&j->lock);
}

int journal_sync(struct journal *j, struct err *err)
{
	uint64_t upto;

	pthread_mutex_lock(&j->lock);
	upto = j->queued;
	pthread_mutex_unlock(&j->lock);
	return journal_wait(j, upto, err);
}

uint64_t journal_bytes(struct journal *j)
{
	uint64_t n;

	pthread_mutex_lock(&j->lock);
	n = j->off;
	pthread_mutex_unlock(&j->lock);
	return n;
}

int journal_rotate(struct journal *j, uint64_t *old_r, struct err *err)
{
	int rc = 0;

	pthread_mutex_lock(&j->lock);
	while ((j->busy || j->durable < j->queued) && !j->failed) {
		if (j->busy)
			pthread_cond_wait(&j->cond, &j->lock);
		else
			lead(j, true);
	}
	*old_r = j->file_no;
	if (j->failed)
		rc = failure(j, err);
	else if (ftruncate(j->fd, (off_t)j->off) < 0)	/* gives back what was allocated ahead */
		rc = err_errno(err, "journal: truncate", j->dir);
	else
		rc = start_file(j, j->file_no + 1, err);
	pthread_mutex_unlock(&j->lock);
	return rc;
}

void journal_drop(struct journal *j, uint64_t upto)
{
	DIR *d = opendir(j->dir);
	struct dirent *de;

	while (d && (de = readdir(d)) != NULL) {
		uint64_t n = strtoull(de->d_name, NULL, 10);

		if (n && n <= upto)
			unlinkat(dirfd(d), de->d_name, 0);
	}
	if (d)
		closedir(d);
}

/* --- reading --- */

static int replay_entries(struct buf *plain, const unsigned char *objects, size_t objects_len,
			  int (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err)
{
	struct rd r = rd_init(plain->data, plain->len - 16);
	struct iovec all = { (void *)(uintptr_t)objects, objects_len };
	unsigned char h[16];
	uint64_t n, len;
	int rc = 0;

	hash_objects(&all, 1, h);
	if (memcmp(h, plain->data + plain->len - 16, 16) != 0)
		return err_set(err, ERR_CORRUPT, "journal: objects of a frame are damaged");
	for (n = rd_v(&r); n > 0 && rc == 0; n--) {
		struct journal_entry e;
		char *user = rd_strdup(&r), *key;

		e.user = user;
		e.epoch = rd_v(&r);
		e.lsn = rd_v(&r);
		e.rec = rd_blob(&r, &e.rec_len);
		key = rd_strdup(&r);
		len = rd_v(&r);
		if (r.failed || len > objects_len) {
			rc = err_set(err, ERR_CORRUPT, "journal: frame cannot be read");
		} else {
			e.object = (struct journal_object){ *key ? key : NULL, objects, (size_t)len };
			objects += len;
			objects_len -= (size_t)len;
			rc = fn(ctx, &e);
		}
		free(user);
		free(key);
	}
	return rc;
}

/* 1 one frame done, 0 no valid frame here, <0 from fn. */
static int replay_frame(const unsigned char *p, size_t left, const unsigned char id[16], uint64_t frame, const struct seal_keys *keys, size_t *used_r,
			int (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err)
{
	struct buf plain = BUF_INIT(0);
	uint32_t sealed, objects;
	struct rd r = rd_init(p, left);
	struct err quiet = ERR_INIT;
	const void *magic = rd_bytes(&r, 4);
	char aad[96];
	int rc = 0;

	sealed = rd_32(&r);
	objects = rd_32(&r);
	rd_32(&r);
	if (!magic || memcmp(magic, "CJF1", 4) != 0 || r.failed || (uint64_t)sealed + objects > rd_left(&r))
		return 0;
	frame_aad(id, frame, aad);
	if (seal_bundle_open(keys, aad, r.p, sealed, &plain, &quiet) == 0 && plain.len >= 17) {
		rc = replay_entries(&plain, r.p + sealed, objects, fn, ctx, err);
		rc = rc == 0 ? 1 : rc == ERR_CORRUPT ? 0 : rc;
		*used_r = FRAME_HEAD + (size_t)sealed + objects;
	}
	buf_free(&plain);
	return rc;
}

static int replay_file(const char *path, bool last, const struct seal_keys *keys, int (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 1;
	uint64_t frame = 0;
	size_t at = FILE_HEAD, used = 0;
	unsigned char *p;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		rc = err_errno(err, "journal: open", path);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	if (st.st_size < FILE_HEAD) {	/* a crash while it was made: nothing was in it */
		close(fd);
		return 0;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return err_errno(err, "journal: map", path);
	if (memcmp(p, "CULJ\1", 5) != 0 && memcmp(p, "\0\0\0\0\0", 5) != 0)
		rc = err_set(err, ERR_CORRUPT, "journal: %s is not a journal of a known version", path);
	while (rc == 1) {
		rc = replay_frame(p + at, (size_t)st.st_size - at, p + 8, frame++, keys, &used, fn, ctx, err);
		if (rc == 1)
			at += used;
	}
	if (rc == 0 && !last && at < (size_t)st.st_size && p[at])
		log_event(LOG_ERROR, "journal is damaged in the middle: changes behind this place may be lost; restore the file or run culverctl check",
			  LF_S("file", path), LF_U("offset", at), LF_END);
	munmap(p, (size_t)st.st_size);
	return rc;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static size_t list_files(const char *dir, uint64_t **list_r)
{
	size_t n = 0, cap = 0;
	DIR *d = opendir(dir);
	struct dirent *de;

	*list_r = NULL;
	while (d && (de = readdir(d)) != NULL) {
		char *end;
		uint64_t no = strtoull(de->d_name, &end, 10);

		if (!no || strcmp(end, ".j") != 0)
			continue;
		mem_grow(list_r, &cap, n + 1, sizeof(**list_r));
		(*list_r)[n++] = no;
	}
	if (d)
		closedir(d);
	if (n)
		qsort(*list_r, n, sizeof(**list_r), by_number);
	return n;
}

int journal_replay(const char *dir, const struct seal_keys *keys, int (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err)
{
	uint64_t *list;
	size_t n = list_files(dir, &list), i;
	int rc = 0;

	for (i = 0; i < n && rc == 0; i++) {
		char *path = file_path(dir, list[i]);

		rc = replay_file(path, i + 1 == n, keys, fn, ctx, err);
		free(path);
	}
	free(list);
	return rc;
}

int journal_remove_all(const char *dir, struct err *err)
{
	uint64_t *list;
	size_t n = list_files(dir, &list), i;
	int rc = 0;

	for (i = 0; i < n; i++) {	/* oldest first: what is left is always a tail */
		char *path = file_path(dir, list[i]);

		if (unlink(path) < 0 && errno != ENOENT)
			rc = err_errno(err, "journal: remove", path);
		free(path);
	}
	free(list);
	return rc < 0 ? rc : n ? sync_directory(dir, err) : 0;
}
