#include "fscache/fscache.h"

#include "fscache/fscache-private.h"

#include "base/io.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* What of the bytes is not for data: the catalogue, its journal while a batch
 * is written, and what the file system needs besides the files' bytes. */
enum { OTHER_PART = 16, OTHER_MIN = 512 * 1024, SLACK = 64 * 1024, SLACK_SHARD = 16 * 1024, JOURNAL_MAX = 1 << 20, ROW_BYTES = 110,
	IDLE_S = 6 * 3600, FLUSH_S = 30, RETRY_S = 60 };
static const uint64_t OFFSET_MAX = (uint64_t)UINT32_MAX * FSCACHE_BLOCK / 2;	/* block numbers are 32 bits */

static int sys_fallocate(int fd, int mode, off_t off, off_t len)
{
	return fallocate(fd, mode, off, len);
}

static ssize_t sys_pread(int fd, void *p, size_t n, off_t off)
{
	return pread(fd, p, n, off);
}

static ssize_t sys_pwrite(int fd, const void *p, size_t n, off_t off)
{
	return pwrite(fd, p, n, off);
}

const struct fsc_sys fsc_sys_default = { sys_pread, sys_pwrite, sys_fallocate, &clock_system };

void fsc_id_of(const struct fscache *fc, const char *key, struct fsc_id *id_r)
{
	unsigned char h[crypto_shorthash_siphashx24_BYTES];

	crypto_shorthash_siphashx24(h, (const unsigned char *)key, strlen(key), fc->hash_key);
	memcpy(&id_r->a, h, 8);
	memcpy(&id_r->b, h + 8, 8);
}

bool fsc_known(struct fscache *fc, const char *key, struct fsc_id *id_r, uint64_t *owner_r)
{
	unsigned char h[crypto_shorthash_BYTES];
	const char *owner = key;
	size_t len = 0;

	if (!fc->cacheable(key, &owner, &len))
		return false;
	crypto_shorthash(h, (const unsigned char *)owner, len, fc->hash_key);
	memcpy(owner_r, h, sizeof(*owner_r));
	fsc_id_of(fc, key, id_r);
	return true;
}

static void fscache_submit(struct objstore *base, struct objstore_op *op)
{
	struct fscache *fc = (struct fscache *)base;
	struct fsc_id id;
	uint64_t owner;

	if (op->verb == OBJ_DELETE && op->keys) {
		fsc_delete_many(fc, op);
		return;
	}
	switch (op->verb) {
	case OBJ_GET:
		if (op->uncached || op->off > OFFSET_MAX || op->len > OFFSET_MAX || !fsc_known(fc, op->key, &id, &owner))
			break;
		if (op->want_etag)
			fsc_change_submit(fc, op, &id, owner);
		else
			fsc_get_submit(fc, op, &id, owner);
		return;
	case OBJ_PUT:
	case OBJ_DELETE:
	case OBJ_COPY:
		if (!fsc_known(fc, op->verb == OBJ_COPY ? op->key_to : op->key, &id, &owner))
			break;
		fsc_change_submit(fc, op, &id, owner);
		return;
	default:
		break;
	}
	objstore_submit(fc->below, op);
}

static void fscache_cancel(struct objstore *base, struct objstore_op *op)
{
	struct fscache *fc = (struct fscache *)base;

	if (!fsc_flight_cancel(fc, op) && !fsc_change_cancel(fc, op))
		objstore_cancel(fc->below, op);
}

static void release(struct fscache *fc)
{
	unsigned i;

	for (i = 0; i < fc->n_shards; i++)
		fsc_shard_release(&fc->shards[i]);
	for (i = 0; i < FSC_STRIPES; i++)
		pthread_mutex_destroy(&fc->stripes[i].lock);
	pthread_mutex_destroy(&fc->disk_lock);
	sodium_memzero(fc->secret, sizeof(fc->secret));
	free(fc->shards);
	free(fc->dir);
	free(fc);
}

static void fscache_close(struct objstore *base)
{
	struct fscache *fc = (struct fscache *)base;
	struct objstore *below = fc->below;

	/* Who counts active down touches nothing afterwards, so it is looked at rather than waited for. */
	while (atomic_load(&fc->active) > 0)
		usleep(500);
	fsc_keeper_stop(fc);
	pthread_mutex_lock(&fc->disk_lock);
	fsc_catalogue_close(fc, true);
	pthread_mutex_unlock(&fc->disk_lock);
	release(fc);
	objstore_close(&below);
}

static void below_stats(struct objstore *base, struct objstore_stats *out)
{
	objstore_stats(((struct fscache *)base)->below, out);
}

static const struct objstore_ops fscache_ops = { "cache", fscache_submit, fscache_cancel, fscache_close, below_stats };

static void layout(struct fscache *fc)
{
	uint64_t other = fc->bytes / OTHER_PART, slack, rows;
	unsigned i;

	fc->n_shards = fc->bytes / FSC_SHARD_BYTES < 1 ? 1 : fc->bytes / FSC_SHARD_BYTES > FSC_SHARDS_MAX ? FSC_SHARDS_MAX : (unsigned)(fc->bytes / FSC_SHARD_BYTES);
	if (other < OTHER_MIN)
		other = OTHER_MIN;
	slack = SLACK + (uint64_t)fc->n_shards * SLACK_SHARD;
	fc->journal_bytes = other / 4 < JOURNAL_MAX ? other / 4 : JOURNAL_MAX;
	fc->db_bytes = other - slack - fc->journal_bytes;
	fc->data_bytes = fc->bytes - other;
	rows = fc->db_bytes / ROW_BYTES / fc->n_shards;
	fc->shards = mem_calloc(fc->n_shards, sizeof(*fc->shards));
	for (i = 0; i < fc->n_shards; i++)
		fsc_shard_init(fc, &fc->shards[i], i, fc->data_bytes / fc->n_shards & ~UINT64_C(4095), (uint32_t)(rows < UINT32_MAX / 2 ? rows : UINT32_MAX / 2));
}

static int check_config(const struct fscache_config *cfg, struct err *err)
{
	if (!cfg->dir || !*cfg->dir || !cfg->cacheable)
		return err_set(err, ERR_INVALID, "cache: no directory or no predicate");
	if (cfg->bytes < FSCACHE_BYTES_MIN || cfg->bytes > UINT64_C(1) << 44)
		return err_set(err, ERR_INVALID, "cache: %llu bytes: 4 MiB to 16 TiB are possible", (unsigned long long)cfg->bytes);
	if (sodium_init() < 0)
		return err_set(err, ERR_IO, "cache: libsodium does not start");
	return 0;
}

int fsc_open_with(struct objstore *below, const struct fscache_config *cfg, const struct fsc_sys *sys, struct objstore **s_r, struct err *err)
{
	struct err disk = ERR_INIT;
	struct fscache *fc;
	int rc = check_config(cfg, err), i;

	*s_r = NULL;
	if (rc < 0)
		return rc;
	fc = MEM_NEW(struct fscache);
	fc->base = (struct objstore){ &fscache_ops, below->caps };
	fc->below = below;
	fc->sys = *sys;
	fc->dir = mem_strdup(cfg->dir);
	fc->bytes = cfg->bytes;
	fc->cacheable = cfg->cacheable;
	fc->idle_s = cfg->idle_s ? cfg->idle_s : IDLE_S;
	fc->flush_s = cfg->flush_s ? cfg->flush_s : FLUSH_S;
	fc->retry_s = cfg->retry_s ? cfg->retry_s : RETRY_S;
	fc->hash_key = fc->secret;
	fc->mac_key = fc->secret + crypto_shorthash_siphashx24_KEYBYTES;
	fc->dir_fd = fc->lock_fd = -1;
	atomic_init(&fc->deadline, INT64_MAX);
	pthread_mutex_init(&fc->disk_lock, NULL);
	for (i = 0; i < FSC_STRIPES; i++)
		pthread_mutex_init(&fc->stripes[i].lock, NULL);
	layout(fc);
	fsc_catalogue_secret(fc);
	pthread_mutex_lock(&fc->disk_lock);
	rc = fsc_catalogue_open(fc, &disk);
	pthread_mutex_unlock(&fc->disk_lock);
	if (rc < 0)
		fsc_disk_failed(fc, rc, false, &disk);
	if (fsc_keeper_start(fc) < 0) {
		pthread_mutex_lock(&fc->disk_lock);
		fsc_catalogue_close(fc, true);
		pthread_mutex_unlock(&fc->disk_lock);
		release(fc);
		return err_set(err, ERR_LIMIT, "cache: no thread");
	}
	*s_r = &fc->base;
	return 0;
}

int fscache_open(struct objstore *below, const struct fscache_config *cfg, struct objstore **s_r, struct err *err)
{
	return fsc_open_with(below, cfg, &fsc_sys_default, s_r, err);
}

/* --- for tools --- */

static uint64_t disk_bytes(struct fscache *fc)
{
	struct dirent *e;
	struct stat sb;
	uint64_t sum = 0;
	DIR *d = opendir(fc->dir);

	while (d && (e = readdir(d)))
		if (fstatat(dirfd(d), e->d_name, &sb, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(sb.st_mode))
			sum += (uint64_t)sb.st_blocks * 512;
	if (d)
		closedir(d);
	return sum;
}

void fscache_stats(struct objstore *s, struct fscache_stats *st)
{
	struct fscache *fc = (struct fscache *)s;
	unsigned i;

	*st = (struct fscache_stats){
		.bytes_max = fc->bytes, .hits = fc->n.hits, .partial = fc->n.partial, .misses = fc->n.misses, .hit_bytes = fc->n.hit_bytes,
		.fetched_bytes = fc->n.fetched_bytes, .fetches = fc->n.fetches, .shared = fc->n.shared, .admitted = fc->n.admitted,
		.refused = fc->n.refused, .evicted = fc->n.evicted, .corrupt = fc->n.corrupt, .stale = fc->n.stale, .io_errors = fc->n.io_errors,
		.degraded = fc->degraded,
	};
	for (i = 0; i < fc->n_shards; i++) {
		struct fsc_shard *sh = &fc->shards[i];

		pthread_mutex_lock(&sh->lock);
		st->bytes_used += (uint64_t)(sh->space.units - sh->space.free) * FSC_UNIT;
		st->blocks += sh->e_live;
		if (sh->o_live > st->owners)
			st->owners = sh->o_live;
		pthread_mutex_unlock(&sh->lock);
	}
	st->bytes_disk = disk_bytes(fc);
}

int fscache_clean(struct objstore *s, struct err *err)
{
	struct fscache *fc = (struct fscache *)s;
	int rc;

	fsc_keeper_drain(fc);
	pthread_mutex_lock(&fc->disk_lock);
	rc = fc->lock_fd < 0 ? 0 : fsc_catalogue_clean(fc, err);
	pthread_mutex_unlock(&fc->disk_lock);
	return rc;
}

void fscache_forget(struct objstore *s, const char *key)
{
	struct fscache *fc = (struct fscache *)s;
	struct fsc_id id;

	fsc_id_of(fc, key, &id);
	fsc_void(fc, &id);
}

void fscache_flush(struct objstore *s)
{
	struct fscache *fc = (struct fscache *)s;
	struct err err = ERR_INIT;
	int rc = 0;

	fsc_keeper_drain(fc);
	pthread_mutex_lock(&fc->disk_lock);
	if (fc->lock_fd >= 0)
		rc = fsc_catalogue_flush(fc, false, &err);
	pthread_mutex_unlock(&fc->disk_lock);
	if (rc < 0)
		fsc_disk_failed(fc, rc, false, &err);
}

/* --- what workers left --- */

/* A whole decimal number as a directory's name, or -1. */
static long number(const char *name)
{
	char *end;
	long n;

	if (*name < '0' || *name > '9')
		return -1;
	errno = 0;
	n = strtol(name, &end, 10);
	return errno || *end ? -1 : n;
}

static int remove_one(int base, const char *name, struct err *err)
{
	int fd = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), lock;
	struct dirent *e;
	DIR *d;

	if (fd < 0)
		return errno == ENOTDIR ? 0 : err_errno(err, "cache: open", name);
	lock = openat(fd, "lock", O_RDWR | O_CLOEXEC);
	if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) < 0) {	/* in use */
		close(lock);
		close(fd);
		return 0;
	}
	d = fdopendir(fd);
	if (!d)
		close(fd);
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	if (lock >= 0)
		close(lock);
	return unlinkat(base, name, AT_REMOVEDIR) < 0 ? err_errno(err, "cache: remove", name) : 0;
}

int fscache_trim(const char *base, unsigned keep, struct err *err)
{
	DIR *d = opendir(base);
	struct dirent *e;
	int rc = 0;

	if (!d)
		return errno == ENOENT ? 0 : err_errno(err, "cache: open", base);
	while ((e = readdir(d)))
		if (number(e->d_name) >= (long)keep && remove_one(dirfd(d), e->d_name, err) < 0)
			rc = ERR_IO;
	closedir(d);
	return rc;
}

bool fscache_keys_mail(const char *key, const char **owner_r, size_t *len_r)
{
	const char *end = strrchr(key, '/'), *start;

	if (!end || end - key < 3 || end[-1] != 'm' || end[-2] != '/' || !end[1])
		return false;
	end -= 2;			/* behind the owner */
	for (start = end; start > key && start[-1] != '/'; start--)
		;
	*owner_r = start;
	*len_r = (size_t)(end - start);
	return *len_r > 0;
}
