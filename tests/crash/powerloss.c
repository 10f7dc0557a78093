/* powerloss - preloaded into culverd, keeps a second copy of its state folder
 * as a power loss would leave it: only what was synced.
 *
 *   CULVER_STATE   the folder watched
 *   CULVER_SHADOW  where the copy is kept
 *
 * What counts as durable, more severe than most file systems:
 *   fsync, fdatasync of a file      its bytes as they are now
 *   fsync of a directory            its entries; a file that was never synced itself comes out empty
 *   syncfs                          everything below the folder
 * A removal is kept back until its directory or the file system is synced.
 *
 * Copies are made under one lock file, so the shadow is whole at any moment
 * the lock is free. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *state, *shadow;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_syncfs)(int);

static void __attribute__((constructor)) init(void)
{
	state = getenv("CULVER_STATE");
	shadow = getenv("CULVER_SHADOW");
	real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
	real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	real_syncfs = (int (*)(int))dlsym(RTLD_NEXT, "syncfs");
}

static void path_make(char out[PATH_MAX], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void path_make(char out[PATH_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(out, PATH_MAX, fmt, ap);	/* the test's paths are short */
	va_end(ap);
}

static int lock(void)
{
	char path[PATH_MAX];
	int fd;

	pthread_mutex_lock(&mutex);
	path_make(path, "%s/lock", shadow);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	while (fd >= 0 && flock(fd, LOCK_EX) < 0 && errno == EINTR)
		;
	return fd;
}

static void unlock(int fd)
{
	close(fd);
	pthread_mutex_unlock(&mutex);
}

/* Where fd is, below the state folder; NULL: somewhere else, or without a name. */
static const char *inside(int fd, char path[PATH_MAX])
{
	char link[64];
	ssize_t n;
	size_t len = state ? strlen(state) : 0;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = len && shadow ? readlink(link, path, PATH_MAX - 1) : -1;
	if (n < 0)
		return NULL;
	path[n] = '\0';
	if (strncmp(path, state, len) != 0 || (path[len] != '/' && path[len]) || strstr(path, " (deleted)"))
		return NULL;
	return path[len] ? path + len + 1 : "";
}

static void copy_bytes(int from, const char *to)
{
	int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char buf[65536];
	off_t at = 0;
	ssize_t n;

	if (out < 0)
		return;
	while ((n = pread(from, buf, sizeof(buf), at)) > 0) {
		(void)!write(out, buf, (size_t)n);
		at += n;
	}
	close(out);
}

/* Names a file for its life: inode numbers are used again, so its birth time is part of it. */
static void inode_path(int dir, const char *name, char out[PATH_MAX])
{
	struct statx st;

	if (statx(dir, name, *name ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &st) < 0)
		memset(&st, 0, sizeof(st));
	path_make(out, "%s/ino/%llu.%lld.%u", shadow, (unsigned long long)st.stx_ino, (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
}

static void make_dirs(char *path)
{
	char *p;

	for (p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		(void)mkdir(path, 0700);
		*p = '/';
	}
}

/* The file's synced bytes become visible in the shadow tree under this name. */
static void publish(const char *from, const char *rel)
{
	char to[PATH_MAX];
	int fd;

	path_make(to, "%s/tree/%s", shadow, rel);
	make_dirs(to);
	fd = open(from, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		copy_bytes(fd, to);
		close(fd);
	} else {
		fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);	/* a name without bytes */
		if (fd >= 0)
			close(fd);
	}
}

static void sync_dir(const char *rel, int everything)
{
	char path[PATH_MAX], name[PATH_MAX], there[PATH_MAX];
	struct dirent *de;
	struct stat st;
	DIR *d;

	path_make(there, "%s/tree/%s/.", shadow, rel);
	make_dirs(there);
	d = opendir(there);
	while (d && (de = readdir(d)) != NULL) {	/* removals */
		path_make(path, "%s/%s/%s", state, rel, de->d_name);
		path_make(name, "%s/tree/%s/%s", shadow, rel, de->d_name);
		if (de->d_name[0] != '.' && lstat(path, &st) < 0)
			(void)unlink(name);
	}
	if (d)
		closedir(d);
	path_make(path, "%s/%s", state, rel);
	d = opendir(path);
	while (d && (de = readdir(d)) != NULL) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..") || fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		path_make(name, "%s%s%s", rel, *rel ? "/" : "", de->d_name);
		if (S_ISDIR(st.st_mode)) {
			path_make(there, "%s/tree/%s/.", shadow, name);
			make_dirs(there);
			if (everything)
				sync_dir(name, 1);
		} else if (S_ISREG(st.st_mode)) {
			char ino[PATH_MAX];

			inode_path(dirfd(d), de->d_name, ino);
			if (everything) {
				int fd = openat(dirfd(d), de->d_name, O_RDONLY | O_CLOEXEC);

				if (fd >= 0) {
					copy_bytes(fd, ino);
					close(fd);
				}
			}
			publish(ino, name);
		}
	}
	if (d)
		closedir(d);
}

static void sync_file(int fd, const char *rel)
{
	char ino[PATH_MAX], there[PATH_MAX], link[64];
	struct stat st, old;
	int in;

	if (fstat(fd, &st) < 0)
		return;
	if (S_ISDIR(st.st_mode)) {
		sync_dir(rel, 0);
		return;
	}
	inode_path(fd, "", ino);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);	/* fd itself may be write-only */
	in = open(link, O_RDONLY | O_CLOEXEC);
	if (in < 0)
		return;
	copy_bytes(in, ino);
	close(in);
	path_make(there, "%s/tree/%s", shadow, rel);
	if (lstat(there, &old) == 0)	/* its name is durable already */
		publish(ino, rel);
}

static void after(int fd, int everything)
{
	char path[PATH_MAX];
	const char *rel = inside(fd, path);
	int l, e = errno;

	if (!rel)
		return;
	l = lock();
	if (everything)
		sync_dir("", 1);
	else
		sync_file(fd, rel);
	unlock(l);
	errno = e;
}

int fsync(int fd)
{
	int rc = real_fsync(fd);

	if (rc == 0)
		after(fd, 0);
	return rc;
}

int fdatasync(int fd)
{
	int rc = real_fdatasync(fd);

	if (rc == 0)
		after(fd, 0);
	return rc;
}

int syncfs(int fd)
{
	int rc = real_syncfs(fd);

	if (rc == 0)
		after(fd, 1);
	return rc;
}
