#include "base/io.h"

#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { IO_FDS_MAX = 16 };

static int read_loop(int fd, unsigned char *p, size_t len, off_t off, bool at, struct err *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = at ? pread(fd, p + done, len - done, off + (off_t)done) : read(fd, p + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, "read", NULL);
		if (n == 0)
			return done ? err_set(err, ERR_CORRUPT, "read: file ends after %zu of %zu bytes", done, len) : 0;
		done += (size_t)n;
	}
	return 1;
}

int io_read_full(int fd, void *data, size_t len, struct err *err)
{
	return read_loop(fd, data, len, 0, false, err);
}

int io_pread_full(int fd, void *data, size_t len, off_t off, struct err *err)
{
	return read_loop(fd, data, len, off, true, err);
}

static int write_loop(int fd, const unsigned char *p, size_t len, off_t off, bool at, struct err *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = at ? pwrite(fd, p + done, len - done, off + (off_t)done) : write(fd, p + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, "write", NULL);
		done += (size_t)n;
	}
	return 0;
}

int io_write_full(int fd, const void *data, size_t len, struct err *err)
{
	return write_loop(fd, data, len, 0, false, err);
}

int io_pwrite_full(int fd, const void *data, size_t len, off_t off, struct err *err)
{
	return write_loop(fd, data, len, off, true, err);
}

int io_writev_full(int fd, struct iovec *iov, int n, struct err *err)
{
	while (n > 0) {
		ssize_t w = writev(fd, iov, n < IOV_MAX ? n : IOV_MAX);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return err_errno(err, "writev", NULL);
		while (n > 0 && (size_t)w >= iov->iov_len) {
			w -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (char *)iov->iov_base + w;
			iov->iov_len -= (size_t)w;
		}
	}
	return 0;
}

int io_send_fds(int fd, const void *data, size_t len, const int *fds, size_t n_fds, struct err *err)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * IO_FDS_MAX)];
	} ctl;
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (n_fds > IO_FDS_MAX)
		return err_set(err, ERR_INVALID, "send: too many descriptors");
	if (n_fds) {
		struct cmsghdr *c;

		memset(&ctl, 0, sizeof(ctl));
		m.msg_control = ctl.room;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do {
		n = sendmsg(fd, &m, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno(err, "sendmsg", NULL);
	if ((size_t)n < len)	/* a stream socket took a part: the descriptors went with it */
		return io_write_full(fd, (const char *)data + n, len - (size_t)n, err);
	return 0;
}

int io_recv_fds(int fd, void *data, size_t max, size_t *len_r, int *fds, size_t *n_fds, struct err *err)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * IO_FDS_MAX)];
	} ctl;
	struct iovec iov = { data, max };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.room, .msg_controllen = sizeof(ctl.room) };
	struct cmsghdr *c;
	size_t got = 0, i, k;
	ssize_t n;

	do {
		n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		*n_fds = 0;
		return err_errno(err, "recvmsg", NULL);
	}
	for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		int *sent = (int *)(void *)CMSG_DATA(c);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < k; i++) {
			if (got < *n_fds)
				fds[got++] = sent[i];
			else
				close(sent[i]);
		}
	}
	*n_fds = got;
	*len_r = (size_t)n;
	return n > 0 || got ? 1 : 0;
}

int io_set_nonblock(int fd, bool on)
{
	int fl = fcntl(fd, F_GETFL);

	if (fl < 0)
		return -1;
	return fcntl(fd, F_SETFL, on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK);
}

void io_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

int io_read_file(const char *path, size_t max, char **data_r, size_t *len_r, struct err *err)
{
	struct stat st;
	char *data;
	int fd, rc;

	*data_r = NULL;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, "open", path);
	if (fstat(fd, &st) < 0) {
		rc = err_errno(err, "stat", path);
	} else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max) {
		rc = err_set(err, ERR_LIMIT, "%s: not a file of at most %zu bytes", path, max);
	} else {
		data = mem_alloc((size_t)st.st_size + 1);
		rc = st.st_size ? io_read_full(fd, data, (size_t)st.st_size, err) : 1;
		if (rc == 1) {
			*data_r = data;
			*len_r = (size_t)st.st_size;
			rc = 0;
		} else {
			free(data);
			rc = rc ? err_prefix(err, "%s", path) : err_set(err, ERR_IO, "%s: became shorter while it was read", path);
		}
	}
	close(fd);
	return rc;
}

int io_mkdirs(const char *path, mode_t mode, struct err *err)
{
	char *copy = mem_strdup(path), *p;
	int rc = 0;

	for (p = copy + 1; rc == 0; p++) {
		if (*p != '/' && *p != '\0')
			continue;
		if (*p == '/') {
			*p = '\0';
			if (mkdir(copy, mode) < 0 && errno != EEXIST)
				rc = err_errno(err, "mkdir", copy);
			*p = '/';
		} else {
			if (mkdir(copy, mode) < 0 && errno != EEXIST)
				rc = err_errno(err, "mkdir", copy);
			break;
		}
	}
	free(copy);
	return rc;
}
