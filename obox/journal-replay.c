/* Reading a journal back after a crash. */
#include "obox/journal-private.h"

#include "base/log.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int replay_entries(struct buf *plain, const unsigned char *objects, size_t objects_len,
			  int (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err)
{
	struct rd r = rd_init(plain->data, plain->len - 16);
	struct iovec all = { (void *)(uintptr_t)objects, objects_len };
	unsigned char h[16];
	uint64_t n, len;
	int rc = 0;

	journal_hash_objects(&all, 1, h);
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
	journal_frame_aad(id, frame, aad);
	if (seal_bundle_open(keys, aad, r.p, sealed, &plain, &quiet) == 0 && plain.len >= 17) {
		rc = replay_entries(&plain, r.p + sealed, objects, fn, ctx, err);
		rc = rc == 0 ? 1 : rc == ERR_CORRUPT ? 0 : rc;
		*used_r = JOURNAL_FRAME_HEAD + (size_t)sealed + objects;
	}
	buf_free(&plain);
	return rc;
}

static int replay_file(const char *path, bool last, const struct seal_keys *keys, int (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 1;
	uint64_t frame = 0;
	size_t at = JOURNAL_FILE_HEAD, used = 0;
	unsigned char *p;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		rc = err_errno(err, "journal: open", path);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	if (st.st_size < JOURNAL_FILE_HEAD) {	/* a crash while it was made: nothing was in it */
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

int journal_replay(const char *dir, const struct seal_keys *keys, int (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err)
{
	uint64_t *list;
	size_t n = journal_list_files(dir, &list), i;
	int rc = 0;

	for (i = 0; i < n && rc == 0; i++) {
		char *path = journal_file_path(dir, list[i]);

		rc = replay_file(path, i + 1 == n, keys, fn, ctx, err);
		free(path);
	}
	free(list);
	return rc;
}
