/* io - system calls with their loops: whole reads and writes, descriptors
 * over sockets.
 * Blocks: yes, until done, unless said otherwise.  Threads: any. */
#ifndef BASE_IO_H
#define BASE_IO_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

/* Reads len bytes; 1 all read, 0 end of file before the first byte,
 * <0 error (ERR_CORRUPT when it ended in the middle). */
int io_read_full(int fd, void *data, size_t len, struct err *err);
int io_pread_full(int fd, void *data, size_t len, off_t off, struct err *err);	/* as above */
int io_write_full(int fd, const void *data, size_t len, struct err *err);
int io_pwrite_full(int fd, const void *data, size_t len, off_t off, struct err *err);
struct iovec;
/* Writes all of iov (which is changed while it goes on). */
int io_writev_full(int fd, struct iovec *iov, int n, struct err *err);

/* One datagram or one small stream message with up to n_fds descriptors.
 * fd must be a unix socket.  0, or <0 (ERR_BUSY: would block). */
int io_send_fds(int fd, const void *data, size_t len, const int *fds, size_t n_fds, struct err *err);
/* Receives at most max bytes and at most *n_fds descriptors (close-on-exec).
 * 1 with *len_r bytes, 0 at the end of the stream, <0 (ERR_BUSY: would block). */
int io_recv_fds(int fd, void *data, size_t max, size_t *len_r, int *fds, size_t *n_fds, struct err *err);

int io_set_nonblock(int fd, bool on);
void io_close(int *fd);		/* closes *fd unless it is -1 and sets it to -1 */
/* A whole file of at most max bytes; *data_r is malloc'ed, NUL-terminated. */
int io_read_file(const char *path, size_t max, char **data_r, size_t *len_r, struct err *err);
/* mkdir -p with mode for each new directory. */
int io_mkdirs(const char *path, mode_t mode, struct err *err);
#endif
