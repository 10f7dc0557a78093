/* The posix driver: an object is a file below one directory.
 *
 *   <dir>/<key>           an object; the key's components are directories
 *   <dir>/.culver/tmp/    files being written: <pid>.<counter>, removed at open when stale
 *   <dir>/.culver/lock/   one lock file a shard, for compare-and-swap
 *
 * Invariants
 *  (1) A file appears under its key only complete, by rename: RENAME_NOREPLACE
 *      for create-only (the kernel picks the winner), plain otherwise.
 *  (2) A durable put syncs the file before that rename and the directory
 *      after it, new directories up to the root included.  A lazy put does
 *      neither; OBJ_SYNC is syncfs() of the whole file system.
 *  (3) What replaces or removes an object holds its key's shard lock (a mutex
 *      among threads, flock among processes) from looking to renaming, so a
 *      compare-and-swap cannot be overtaken.
 *  (4) An etag is the BLAKE2b of the bytes up to ETAG_HASH_MAX, else of size,
 *      inode and time stamp (objects that large are never swapped). */
#include "objstore/objstore.h"

#include "base/b64.h"
#include "base/io.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/fs.h>

enum { SHARDS = 64, ETAG_HASH_MAX = 256 * 1024, TMP_STALE_S = 3600, DIR_MODE = 0700, FILE_MODE = 0600 };

struct shard {
	pthread_mutex_t lock;
	int fd;			/* opened at first use */
};

struct posix_store {
	struct objstore base;
	char *dir;
	int root_fd, tmp_fd, lock_fd;
	atomic_ulong counter;
	struct shard shards[SHARDS];
};

static int sys_rename(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

/* --- shard locks (3) --- */

static struct shard *shard_lock(struct posix_store *s, const char *key, struct err *err)
{
	unsigned char h[crypto_generichash_BYTES_MIN];
	struct shard *sh;
	char name[16];

	crypto_generichash(h, sizeof(h), (const unsigned char *)key, strlen(key), NULL, 0);
	sh = &s->shards[h[0] % SHARDS];
	pthread_mutex_lock(&sh->lock);
	if (sh->fd < 0) {
		snprintf(name, sizeof(name), "%d", h[0] % SHARDS);
		sh->fd = openat(s->lock_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
	}
	while (sh->fd >= 0 && flock(sh->fd, LOCK_EX) < 0) {
		if (errno == EINTR)
			continue;
		break;
	}
	if (sh->fd < 0) {
		err_errno(err, "object store: lock for", key);
		pthread_mutex_unlock(&sh->lock);
		return NULL;
	}
	return sh;
}

static void shard_unlock(struct shard *sh)
{
	flock(sh->fd, LOCK_UN);
	pthread_mutex_unlock(&sh->lock);
}

/* --- etags (4) --- */

static void etag_of_bytes(const struct iovec *iov, int n, char etag[OBJ_ETAG_MAX])
{
	crypto_generichash_state st;
	unsigned char h[16];
	int i;

	crypto_generichash_init(&st, NULL, 0, sizeof(h));
	for (i = 0; i < n; i++)
		crypto_generichash_update(&st, iov[i].iov_base, iov[i].iov_len);
	crypto_generichash_final(&st, h, sizeof(h));
	hex_encode(etag, h, sizeof(h));
}

static int etag_of_file(int fd, const struct stat *st, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct iovec iov;
	int rc = 1;

	if (st->st_size > ETAG_HASH_MAX) {
		snprintf(etag, OBJ_ETAG_MAX, "s%llx-%llx-%llx.%lx", (unsigned long long)st->st_size, (unsigned long long)st->st_ino,
			 (unsigned long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
		return 0;
	}
	iov.iov_len = (size_t)st->st_size;
	iov.iov_base = mem_alloc(iov.iov_len);
	if (iov.iov_len)
		rc = io_pread_full(fd, iov.iov_base, iov.iov_len, 0, err);
	if (rc == 1)
		etag_of_bytes(&iov, 1, etag);
	free(iov.iov_base);
	return rc == 1 ? 0 : err_set(err, ERR_CORRUPT, "object store: file changed while it was read");
}

/* --- directories --- */

static int sync_dir(int root_fd, const char *path, struct err *err)
{
	int fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return err_errno(err, "object store: open directory", path);
	if (fsync(fd) < 0)
		rc = err_errno(err, "object store: sync directory", path);
	close(fd);
	return rc;
}

/* Makes the directories above key; the parent of a new one is synced, so that
 * what is put into it later needs to sync no more than its own directory. */
static int make_parents(struct posix_store *s, const char *key, bool durable, struct err *err)
{
	char path[OBJ_KEY_MAX + 1], parent[OBJ_KEY_MAX + 1] = ".";
	const char *p = key;
	int rc = 0;

	while (rc == 0 && (p = strchr(p, '/')) != NULL) {
		snprintf(path, sizeof(path), "%.*s", (int)(p - key), key);
		if (mkdirat(s->root_fd, path, DIR_MODE) == 0) {
			rc = sync_dir(s->root_fd, parent, err);
		} else if (errno != EEXIST) {
			rc = err_errno(err, "object store: mkdir", path);
		} else if (durable) {
			/* another writer may have made it and not have synced it yet */
			rc = sync_dir(s->root_fd, parent, err);
		}
		memcpy(parent, path, sizeof(parent));
		p++;
	}
	return rc;
}

static int sync_parent(struct posix_store *s, const char *key, struct err *err)
{
	char path[OBJ_KEY_MAX + 1];
	const char *p = strrchr(key, '/');

	if (!p)
		return sync_dir(s->root_fd, ".", err);
	snprintf(path, sizeof(path), "%.*s", (int)(p - key), key);
	return sync_dir(s->root_fd, path, err);
}

/* --- put --- */

static int write_tmp(struct posix_store *s, const struct objstore_op *op, char name[64], struct err *err)
{
	struct iovec small[16], *iov = small;
	int fd, rc;

	snprintf(name, 64, "%d.%lu", (int)getpid(), atomic_fetch_add(&s->counter, 1));
	fd = openat(s->tmp_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
	if (fd < 0)
		return err_errno(err, "object store: create temporary file for", op->key);
	if (op->n_iov > (int)MEM_COUNT(small))
		iov = mem_calloc((size_t)op->n_iov, sizeof(*iov));
	if (op->n_iov)
		memcpy(iov, op->iov, (size_t)op->n_iov * sizeof(*iov));
	rc = io_writev_full(fd, iov, op->n_iov, err);
	if (iov != small)
		free(iov);
	if (rc == 0 && !op->lazy && fdatasync(fd) < 0)
		rc = err_errno(err, "object store: sync", op->key);
	if (close(fd) < 0 && rc == 0)
		rc = err_errno(err, "object store: close", op->key);
	if (rc < 0)
		unlinkat(s->tmp_fd, name, 0);
	return rc;
}

static int publish(struct posix_store *s, const struct objstore_op *op, const char *tmp, struct err *err)
{
	unsigned flags = op->cond == OBJ_CREATE ? RENAME_NOREPLACE : 0;
	bool made = false;
	int rc = 0;

	while (sys_rename(s->tmp_fd, tmp, s->root_fd, op->key, flags) < 0) {
		if (errno == EINVAL && flags && linkat(s->tmp_fd, tmp, s->root_fd, op->key, 0) == 0) {
			unlinkat(s->tmp_fd, tmp, 0);	/* a file system without RENAME_NOREPLACE */
			break;
		}
		if (errno == EEXIST)
			rc = err_set(err, ERR_EXISTS, "object store: %s exists", op->key);
		else if (errno != ENOENT || made)
			rc = err_errno(err, "object store: publish", op->key);
		else
			rc = make_parents(s, op->key, !op->lazy, err);
		if (rc < 0) {
			unlinkat(s->tmp_fd, tmp, 0);
			return rc;
		}
		made = true;
	}
	return op->lazy ? 0 : sync_parent(s, op->key, err);
}

static int check_match(struct posix_store *s, struct objstore_op *op, struct err *err)
{
	char now[OBJ_ETAG_MAX];
	struct stat st;
	int fd, rc;

	fd = openat(s->root_fd, op->key, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? err_set(err, ERR_CONFLICT, "object store: %s is gone", op->key) :
					 err_errno(err, "object store: open", op->key);
	rc = fstat(fd, &st) < 0 ? err_errno(err, "object store: stat", op->key) : etag_of_file(fd, &st, now, err);
	close(fd);
	if (rc == 0 && strcmp(now, op->etag) != 0)
		rc = err_set(err, ERR_CONFLICT, "object store: %s was changed by somebody else", op->key);
	return rc;
}

static int do_put(struct posix_store *s, struct objstore_op *op)
{
	struct shard *sh = NULL;
	char tmp[64];
	int rc;

	rc = write_tmp(s, op, tmp, &op->err);
	if (rc < 0)
		return rc;
	if (op->cond != OBJ_CREATE) {
		sh = shard_lock(s, op->key, &op->err);
		rc = sh ? 0 : op->err.code;
	}
	if (rc == 0 && op->cond == OBJ_MATCH)
		rc = check_match(s, op, &op->err);
	if (rc == 0)
		rc = publish(s, op, tmp, &op->err);
	else
		unlinkat(s->tmp_fd, tmp, 0);
	if (sh)
		shard_unlock(sh);
	if (rc == 0 && (op->want_etag || op->cond != OBJ_CREATE))
		etag_of_bytes(op->iov, op->n_iov, op->etag);
	return rc;
}

/* --- the other verbs --- */

static int do_get(struct posix_store *s, struct objstore_op *op)
{
	uint64_t left;
	struct stat st;
	void *p;
	int fd, rc = 0;

	fd = openat(s->root_fd, op->key, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(&op->err, "object store: open", op->key);
	if (fstat(fd, &st) < 0) {
		rc = err_errno(&op->err, "object store: stat", op->key);
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = err_set(&op->err, ERR_NOTFOUND, "object store: %s is not an object", op->key);
		goto out;
	}
	op->size = (uint64_t)st.st_size;
	op->mtime = st.st_mtim.tv_sec;
	left = op->off < op->size ? op->size - op->off : 0;
	if (op->len && op->len < left)
		left = op->len;
	if (left) {
		p = left < SIZE_MAX / 2 ? buf_reserve(op->out, (size_t)left) : NULL;
		if (!p) {
			rc = err_set(&op->err, ERR_LIMIT, "object store: %s is larger than expected (%llu bytes)", op->key, (unsigned long long)left);
			goto out;
		}
		rc = io_pread_full(fd, p, (size_t)left, (off_t)op->off, &op->err);
		if (rc == 1) {
			op->out->len += (size_t)left;
			rc = 0;
		} else if (rc == 0) {
			rc = err_set(&op->err, ERR_CORRUPT, "object store: %s ends early", op->key);
		}
	}
	if (rc == 0 && op->want_etag)
		rc = etag_of_file(fd, &st, op->etag, &op->err);
out:
	close(fd);
	return rc;
}

static int do_head(struct posix_store *s, struct objstore_op *op)
{
	struct stat st;
	int fd, rc = 0;

	if (fstatat(s->root_fd, op->key, &st, 0) < 0)
		return err_errno(&op->err, "object store: stat", op->key);
	if (!S_ISREG(st.st_mode))
		return err_set(&op->err, ERR_NOTFOUND, "object store: %s is not an object", op->key);
	op->size = (uint64_t)st.st_size;
	op->mtime = st.st_mtim.tv_sec;
	if (op->want_etag) {
		fd = openat(s->root_fd, op->key, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return err_errno(&op->err, "object store: open", op->key);
		rc = etag_of_file(fd, &st, op->etag, &op->err);
		close(fd);
	}
	return rc;
}

static int do_delete(struct posix_store *s, struct objstore_op *op)
{
	struct shard *sh = shard_lock(s, op->key, &op->err);
	int rc = 0;

	if (!sh)
		return op->err.code;
	if (unlinkat(s->root_fd, op->key, 0) < 0 && errno != ENOENT && errno != ENOTDIR)
		rc = err_errno(&op->err, "object store: delete", op->key);
	shard_unlock(sh);
	return rc;
}

static int do_copy(struct posix_store *s, struct objstore_op *op)
{
	struct objstore_op get = { .verb = OBJ_GET, .key = op->key };
	struct objstore_op put = *op;
	struct buf data = BUF_INIT(0);
	struct iovec iov;
	int rc;

	get.out = &data;
	rc = do_get(s, &get);
	if (rc < 0) {
		op->err = get.err;
	} else {
		iov = (struct iovec){ data.data, data.len };
		put.key = op->key_to;
		put.iov = &iov;
		put.n_iov = 1;
		rc = objstore_key_valid(op->key_to) ? do_put(s, &put) : err_set(&put.err, ERR_INVALID, "object store: bad key \"%s\"", op->key_to);
		op->err = put.err;
	}
	buf_free(&data);
	return rc;
}

/* --- list: a walk in key order --- */

struct entry {
	char *name;		/* with '/' behind a directory's, which gives key order */
	bool is_dir;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int read_entries(struct posix_store *s, const char *path, struct entry **list_r, size_t *n_r, struct err *err)
{
	int fd = openat(s->root_fd, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t cap = 0, n = 0;
	struct entry *list = NULL;
	struct dirent *de;
	DIR *d;

	*list_r = NULL;
	*n_r = 0;
	d = fd >= 0 ? fdopendir(fd) : NULL;
	if (!d) {
		int e = errno;

		if (fd >= 0)
			close(fd);
		errno = e;
		return e == ENOENT || e == ENOTDIR ? 0 : err_errno(err, "object store: list", path);
	}
	while ((de = readdir(d)) != NULL) {
		struct stat st;
		bool is_dir = de->d_type == DT_DIR;

		if (de->d_name[0] == '.' && (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..") || (!*path && !strcmp(de->d_name, ".culver"))))
			continue;
		if (de->d_type == DT_UNKNOWN)
			is_dir = fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
		mem_grow(&list, &cap, n + 1, sizeof(*list));
		list[n].name = mem_printf("%s%s", de->d_name, is_dir ? "/" : "");
		list[n++].is_dir = is_dir;
	}
	closedir(d);
	if (n)
		qsort(list, n, sizeof(*list), by_name);
	*list_r = list;
	*n_r = n;
	return 0;
}

/* Can keys below directory path (with its '/') have the prefix and lie behind start_after? */
static bool dir_matters(const struct objstore_op *op, const char *path)
{
	size_t n = strlen(path), p = strlen(op->key);

	if (strncmp(path, op->key, n < p ? n : p) != 0)
		return false;
	return !op->start_after || strncmp(path, op->start_after, n) >= 0;
}

static int walk(struct posix_store *s, struct objstore_op *op, const char *path, size_t max, size_t *cap)
{
	struct entry *list;
	size_t n, i;
	int rc = read_entries(s, path, &list, &n, &op->err);

	for (i = 0; i < n; i++) {
		char key[OBJ_KEY_MAX + 2];
		struct stat st;
		bool fits = snprintf(key, sizeof(key), "%s%s", path, list[i].name) < (int)sizeof(key);

		if (rc == 0 && fits && !op->more) {
			if (list[i].is_dir) {
				if (dir_matters(op, key))
					rc = walk(s, op, key, max, cap);
			} else if (!strncmp(key, op->key, strlen(op->key)) && (!op->start_after || strcmp(key, op->start_after) > 0) &&
				   fstatat(s->root_fd, key, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
				if (op->n_items == max) {
					op->more = true;
				} else {
					mem_grow(&op->items, cap, op->n_items + 1, sizeof(*op->items));
					op->items[op->n_items++] = (struct objstore_list_item){ mem_strdup(key), (uint64_t)st.st_size, st.st_mtim.tv_sec };
				}
			}
		}
		free(list[i].name);
	}
	free(list);
	return rc;
}

static int do_list(struct posix_store *s, struct objstore_op *op)
{
	const char *slash = strrchr(op->key, '/');
	char path[OBJ_KEY_MAX + 1];
	size_t cap = 0;
	int rc;

	op->items = NULL;
	op->n_items = 0;
	op->more = false;
	snprintf(path, sizeof(path), "%.*s", slash ? (int)(slash + 1 - op->key) : 0, op->key);
	rc = walk(s, op, path, op->max_keys ? op->max_keys : 1000, &cap);
	if (rc < 0) {
		objstore_items_free(op->items, op->n_items);
		op->items = NULL;
		op->n_items = 0;
	}
	return rc;
}

static void posix_submit(struct objstore *base, struct objstore_op *op)
{
	struct posix_store *s = (struct posix_store *)base;

	switch (op->verb) {
	case OBJ_PUT:
		op->rc = do_put(s, op);
		break;
	case OBJ_GET:
		op->rc = do_get(s, op);
		break;
	case OBJ_HEAD:
		op->rc = do_head(s, op);
		break;
	case OBJ_DELETE:
		op->rc = do_delete(s, op);
		break;
	case OBJ_LIST:
		op->rc = do_list(s, op);
		break;
	case OBJ_COPY:
		op->rc = do_copy(s, op);
		break;
	case OBJ_SYNC:
		op->rc = syncfs(s->root_fd) < 0 ? err_errno(&op->err, "object store: sync file system of", s->dir) : 0;
		break;
	}
	op->done(op);
}

static void posix_close(struct objstore *base)
{
	struct posix_store *s = (struct posix_store *)base;
	int i;

	for (i = 0; i < SHARDS; i++) {
		io_close(&s->shards[i].fd);
		pthread_mutex_destroy(&s->shards[i].lock);
	}
	io_close(&s->root_fd);
	io_close(&s->tmp_fd);
	io_close(&s->lock_fd);
	free(s->dir);
	free(s);
}

static const struct objstore_ops posix_ops = { "posix", posix_submit, NULL, posix_close, NULL };

/* Temporary files of processes that are no more. */
static void clean_tmp(struct posix_store *s)
{
	DIR *d = fdopendir(dup(s->tmp_fd));
	time_t now = time(NULL);
	struct dirent *de;

	if (!d)
		return;
	while ((de = readdir(d)) != NULL) {
		long pid = strtol(de->d_name, NULL, 10);
		struct stat st;

		if (pid <= 0 || fstatat(s->tmp_fd, de->d_name, &st, 0) < 0)
			continue;
		if ((kill((pid_t)pid, 0) < 0 && errno == ESRCH) || now - st.st_mtim.tv_sec > TMP_STALE_S)
			unlinkat(s->tmp_fd, de->d_name, 0);
	}
	closedir(d);
}

static int open_sub(struct posix_store *s, const char *name, int *fd_r, struct err *err)
{
	if (mkdirat(s->root_fd, name, DIR_MODE) < 0 && errno != EEXIST)
		return err_errno(err, "object store: mkdir", name);
	*fd_r = openat(s->root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *fd_r < 0 ? err_errno(err, "object store: open", name) : 0;
}

int objstore_posix_open(const char *dir, struct objstore **s_r, struct err *err)
{
	struct posix_store *s = MEM_NEW(struct posix_store);
	int rc, i, sub = -1;

	*s_r = NULL;
	s->base.ops = &posix_ops;
	s->base.caps = OBJ_CAP_CREATE | OBJ_CAP_MATCH | OBJ_CAP_RANGE | OBJ_CAP_COPY | OBJ_CAP_LIST | OBJ_CAP_LAZY;
	s->dir = mem_strdup(dir);
	s->root_fd = s->tmp_fd = s->lock_fd = -1;
	for (i = 0; i < SHARDS; i++) {
		s->shards[i].fd = -1;
		pthread_mutex_init(&s->shards[i].lock, NULL);
	}
	if (sodium_init() < 0)
		abort();
	rc = io_mkdirs(dir, DIR_MODE, err);
	if (rc == 0) {
		s->root_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (s->root_fd < 0)
			rc = err_errno(err, "object store: open", dir);
	}
	if (rc == 0)
		rc = open_sub(s, ".culver", &sub, err);
	io_close(&sub);
	if (rc == 0)
		rc = open_sub(s, ".culver/tmp", &s->tmp_fd, err);
	if (rc == 0)
		rc = open_sub(s, ".culver/lock", &s->lock_fd, err);
	if (rc < 0) {
		posix_close(&s->base);
		return rc;
	}
	clean_tmp(s);
	*s_r = &s->base;
	return 0;
}
