/* journal-private - what the journal's files share: journal.c writes frames,
 * journal-file.c makes and recycles files, journal-replay.c reads them back. */
#ifndef OBOX_JOURNAL_PRIVATE_H
#define OBOX_JOURNAL_PRIVATE_H
#include "obox/obox-private.h"

#include <sys/uio.h>

enum { JOURNAL_FILE_HEAD = 24, JOURNAL_FRAME_HEAD = 16 };

struct queue {
	struct buf meta;		/* encoded entries */
	struct iovec *objects;
	size_t n_objects, cap_objects;
	size_t object_bytes;
	uint64_t n;
};

struct journal_waiter;

struct file_journal {
	struct journal base;
	char *dir;
	const struct seal_keys *keys;
	pthread_mutex_t lock;
	pthread_cond_t cond;		/* idle: not busy or not zeroing any more */
	int fd;
	uint64_t file_no, frame_no;
	unsigned char file_id[16];
	uint64_t off, allocated;	/* written; allocated in the file */
	uint64_t zeroed;		/* written with zeros, or frames, up to here */
	uint64_t zero_from, zero_to;	/* being zeroed now; zero_to 0: nothing is */
	uint64_t inflight;		/* at most so many bytes are being written behind off */
	struct queue q, spare;
	uint64_t queued, written, durable;	/* tickets */
	struct journal_waiter *waiters, **waiters_end;
	unsigned idle_waiters;		/* wait on cond */
	bool busy;			/* somebody writes or syncs */
	bool failed;
	struct err cause;
};

/* --- journal-file.c; those with j are called with its lock held --- */
int journal_sync_directory(const char *dir, struct err *err);
char *journal_file_path(const char *dir, uint64_t no);
/* Room up to an offset. ERR_LIMIT: the disk is full. */
int journal_allocate(struct file_journal *j, uint64_t upto, struct err *err);
/* Goes on in file no; the one before stays current after an error. */
int journal_start_file(struct file_journal *j, uint64_t no, struct err *err);
/* Marks where the frames of the current file end. */
int journal_end_file(struct file_journal *j, struct err *err);
void journal_file_prepare(struct journal *base);	/* these two take the lock */
void journal_file_drop(struct journal *base, uint64_t upto);
size_t journal_list_files(const char *dir, uint64_t **list_r);	/* numbers, ascending; free the list */

/* --- journal.c --- */
void journal_frame_aad(const unsigned char id[16], uint64_t frame, char out[96]);
void journal_hash_objects(const struct iovec *iov, size_t n, unsigned char h[16]);
/* With the lock: waits until nobody writes and nothing is being zeroed. */
void journal_quiet(struct file_journal *j);
#endif
