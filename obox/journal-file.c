/* The journal's files: made ahead of need and used again.
 *
 * Writing into blocks that the file system has only reserved makes every
 * fdatasync commit the file system's own journal too, which costs several
 * times the write itself.  So
 *  (1) the first stretch of a new file is written with zeros when it is made,
 *      and journal_prepare() writes the next ones ahead of the frames, in the
 *      background; frames that get ahead of it are right, only slower;
 *  (2) a file that is no longer needed becomes "spare", and the next file
 *      begins as that one under a new id.
 * So what lies behind the last frame may be frames of an earlier life: they
 * are sealed with another id and never open.  A file that is left ends with
 * zeros where the next frame would be. */
#include "obox/journal-private.h"

#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ALLOC_STEP = 16 << 20, ZERO_FIRST = 1 << 20, ZERO_STEP = 24 << 20, ZERO_LOW = 8 << 20, ZERO_PIECE = 512 << 10, SPARE_MAX = 96 << 20 };

static unsigned char zeros[ZERO_PIECE];	/* never written: no memory */

int journal_sync_directory(const char *dir, struct err *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || fsync(fd) < 0)
		rc = err_errno(err, "journal: sync directory", dir);
	if (fd >= 0)
		close(fd);
	return rc;
}

char *journal_file_path(const char *dir, uint64_t no)
{
	return mem_printf("%s/%010llu.j", dir, (unsigned long long)no);
}

static char *spare_path(const char *dir)
{
	return mem_printf("%s/spare", dir);
}

int journal_allocate(struct file_journal *j, uint64_t upto, struct err *err)
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

/* Zeros from .. to, piece by piece, so that a sync of frames has little of it to wait for. */
static int write_zeros(int fd, uint64_t from, uint64_t to)
{
	while (from < to) {
		size_t n = to - from < ZERO_PIECE ? (size_t)(to - from) : ZERO_PIECE;

		if (io_pwrite_full(fd, zeros, n, (off_t)from, NULL) < 0)
			return -1;
		(void)sync_file_range(fd, (off_t)from, (off_t)n, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
		from += n;
	}
	return fdatasync(fd);
}

/* The spare file, open, or -1. */
static int open_spare(struct file_journal *j, const char *spare, uint64_t *size_r)
{
	int fd = open(spare, O_RDWR | O_CLOEXEC);
	struct stat st;

	*size_r = 0;
	if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_size < ALLOC_STEP)) {
		unlink(spare);
		io_close(&fd);
	}
	if (fd >= 0)
		*size_r = (uint64_t)st.st_size;
	return fd;
}

/* Opens or makes the file under the name path; j->fd, allocated and zeroed are its. */
static int make_file(struct file_journal *j, const char *path, const char *spare, const unsigned char head[JOURNAL_FILE_HEAD], struct err *err)
{
	bool used = true;
	int rc = 0;

	j->fd = open_spare(j, spare, &j->allocated);
	if (j->fd < 0) {
		used = false;
		j->fd = open(spare, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	}
	if (j->fd < 0)
		return err_errno(err, "journal: create", spare);
	if (!used)
		rc = journal_allocate(j, 0, err);
	/* not even the first frame of an earlier life is left where this one's will be */
	if (rc == 0)
		rc = io_pwrite_full(j->fd, head, JOURNAL_FILE_HEAD, 0, err);
	if (rc == 0)
		rc = io_pwrite_full(j->fd, zeros, JOURNAL_FRAME_HEAD, JOURNAL_FILE_HEAD, err);
	if (rc == 0 && !used && write_zeros(j->fd, JOURNAL_FILE_HEAD + JOURNAL_FRAME_HEAD, ZERO_FIRST) < 0)
		rc = err_errno(err, "journal: write", path);
	j->zeroed = used ? j->allocated : ZERO_FIRST;
	if (rc == 0 && fsync(j->fd) < 0)
		rc = err_errno(err, "journal: sync", path);
	if (rc == 0 && rename(spare, path) < 0)
		rc = err_errno(err, "journal: create", path);
	if (rc == 0)
		rc = journal_sync_directory(j->dir, err);
	return rc;
}

int journal_start_file(struct file_journal *j, uint64_t no, struct err *err)
{
	unsigned char head[JOURNAL_FILE_HEAD] = "CULJ\1";
	char *path = journal_file_path(j->dir, no), *spare = spare_path(j->dir);
	uint64_t old_alloc = j->allocated, old_zeroed = j->zeroed;
	int rc, old = j->fd;

	randombytes_buf(head + 8, sizeof(j->file_id));
	j->allocated = 0;
	rc = make_file(j, path, spare, head, err);
	if (rc < 0) {
		unlink(path);
		unlink(spare);
		io_close(&j->fd);
		j->fd = old;
		j->allocated = old_alloc;
		j->zeroed = old_zeroed;
	} else {
		io_close(&old);
		memcpy(j->file_id, head + 8, sizeof(j->file_id));
		j->file_no = no;
		j->frame_no = 0;
		j->off = JOURNAL_FILE_HEAD;
	}
	free(path);
	free(spare);
	return rc;
}

int journal_end_file(struct file_journal *j, struct err *err)
{
	if (j->off < j->allocated && (io_pwrite_full(j->fd, zeros, JOURNAL_FRAME_HEAD, (off_t)j->off, err) < 0 || fdatasync(j->fd) < 0))
		return err_errno(err, "journal: end", j->dir);
	return 0;
}

void journal_file_prepare(struct journal *base)
{
	struct file_journal *j = (struct file_journal *)base;
	struct err e = ERR_INIT;
	uint64_t from, to;
	int fd, rc;

	pthread_mutex_lock(&j->lock);
	from = j->off + j->inflight + ZERO_LOW;
	if (j->failed || j->zero_to || j->off < ZERO_FIRST / 2 || j->zeroed >= from) {
		pthread_mutex_unlock(&j->lock);
		return;
	}
	/* not right before the frames, who would have to wait */
	if (j->off + j->inflight < j->zeroed)
		from = j->zeroed;
	to = from + ZERO_STEP;
	if (to > j->allocated && journal_allocate(j, to, &e) < 0) {	/* appending says so when it matters */
		pthread_mutex_unlock(&j->lock);
		return;
	}
	j->zero_from = from;
	j->zero_to = to;
	fd = j->fd;
	pthread_mutex_unlock(&j->lock);
	rc = write_zeros(fd, from, to);
	pthread_mutex_lock(&j->lock);
	if (rc == 0 && to > j->zeroed)
		j->zeroed = to;
	j->zero_to = 0;
	pthread_cond_broadcast(&j->cond);
	pthread_mutex_unlock(&j->lock);
}

/* The last file that goes is kept as the spare one, within bounds. */
static bool keep_spare(const char *dir, const char *path)
{
	char *spare = spare_path(dir);
	struct stat st;
	bool kept = false;

	if (access(spare, F_OK) < 0 && stat(path, &st) == 0 && st.st_size >= ALLOC_STEP &&
	    (st.st_size <= SPARE_MAX || truncate(path, SPARE_MAX) == 0))
		kept = rename(path, spare) == 0;
	free(spare);
	return kept;
}

void journal_file_drop(struct journal *base, uint64_t upto)
{
	struct file_journal *j = (struct file_journal *)base;
	uint64_t *list;
	size_t n = journal_list_files(j->dir, &list), i;

	while (n && list[n - 1] > upto)
		n--;
	for (i = 0; i < n; i++) {	/* oldest first: what is left is always a tail */
		char *path = journal_file_path(j->dir, list[i]);

		if (i + 1 < n || !keep_spare(j->dir, path))
			unlink(path);
		free(path);
	}
	free(list);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

size_t journal_list_files(const char *dir, uint64_t **list_r)
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

int journal_remove_all(const char *dir, struct err *err)
{
	uint64_t *list;
	size_t n = journal_list_files(dir, &list), i;
	int rc = 0;

	for (i = 0; i < n; i++) {	/* oldest first: what is left is always a tail */
		char *path = journal_file_path(dir, list[i]);

		if (unlink(path) < 0 && errno != ENOENT)
			rc = err_errno(err, "journal: remove", path);
		free(path);
	}
	free(list);
	if (rc == 0) {	/* whose node it was may never come back */
		char *spare = spare_path(dir);

		unlink(spare);
		free(spare);
	}
	return rc < 0 ? rc : n ? journal_sync_directory(dir, err) : 0;
}
