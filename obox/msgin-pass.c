/* Passing a message that came in to another process: packed and parsed as it
 * is, so that the work is done once.
 *
 *   varint size, stored bytes S, rest's length R, 1 byte where: inline or file
 *   then S bytes of packed chunks and R bytes of the rest, there
 *   rest: varint chunks; for each varint plain, stored, packed; the summary */
#include "obox/msgin-private.h"

#include "base/io.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INLINE, IN_FILE };
enum { CHUNKS_MAX = 1 << 24 };

static void encode_rest(const struct obox_msgin *in, struct buf *out)
{
	size_t i;

	buf_putv(out, in->n);
	for (i = 0; i < in->n; i++) {
		buf_putv(out, in->chunks[i].plain);
		buf_putv(out, in->chunks[i].stored);
		buf_put8(out, in->chunks[i].packed);
	}
	buf_putblob(out, in->summary.data, in->summary.len);
}

/* The file with chunks and rest: the spool file itself, or one in memory. */
static int fill_file(struct obox_msgin *in, const struct buf *rest, struct err *err)
{
	int fd = in->fd >= 0 ? dup(in->fd) : memfd_create("message", MFD_CLOEXEC), rc = 0;

	if (fd < 0)
		return err_errno(err, "hand over a message", NULL);
	if (in->fd < 0)
		rc = io_pwrite_full(fd, in->mem.data, in->mem.len, 0, err);
	if (rc == 0)
		rc = io_pwrite_full(fd, rest->data, rest->len, (off_t)in->stored, err);
	if (rc < 0)
		io_close(&fd);
	return rc < 0 ? rc : fd;
}

int obox_msgin_export(struct obox_msgin *in, size_t max, struct buf *out, int *fd_r, struct err *err)
{
	struct buf rest = BUF_INIT(0);
	bool file;
	int rc = 0;

	*fd_r = -1;
	encode_rest(in, &rest);
	file = in->fd >= 0 || in->stored + rest.len > max;
	buf_putv(out, in->size);
	buf_putv(out, in->stored);
	buf_putv(out, rest.len);
	buf_put8(out, file ? IN_FILE : INLINE);
	if (file) {
		rc = fill_file(in, &rest, err);
		*fd_r = rc < 0 ? -1 : rc;
	} else {
		buf_add(out, in->mem.data, in->mem.len);
		buf_add(out, rest.data, rest.len);
	}
	buf_free(&rest);
	if (rc >= 0 && out->failed)
		rc = err_set(err, ERR_LIMIT, "message is too large to be handed over");
	if (rc < 0)
		io_close(fd_r);
	return rc < 0 ? rc : 0;
}

/* 0, or ERR_CORRUPT: the chunks are not what was announced. */
static int decode_rest(struct obox_msgin *in, struct rd *r, struct err *err)
{
	uint64_t n = rd_v(r), plain = 0, stored = 0;
	const void *summary;
	size_t len;

	if (r->failed || n > CHUNKS_MAX || n > rd_left(r))
		return err_set(err, ERR_CORRUPT, "handed-over message has an impossible number of chunks");
	mem_grow(&in->chunks, &in->cap, (size_t)n, sizeof(*in->chunks));
	for (; in->n < n; in->n++) {
		struct msgin_chunk *c = &in->chunks[in->n];

		*c = (struct msgin_chunk){ .off = stored };
		c->plain = (uint32_t)rd_v(r);
		c->stored = (uint32_t)rd_v(r);
		c->packed = rd_8(r);
		if (r->failed || c->plain > OBOX_CHUNK || c->stored > OBOX_CHUNK || (!c->packed && c->plain != c->stored))
			return err_set(err, ERR_CORRUPT, "handed-over message has an impossible chunk");
		plain += c->plain;
		stored += c->stored;
	}
	summary = rd_blob(r, &len);
	buf_add(&in->summary, summary, len);
	if (r->failed || plain != in->size || stored != in->stored)
		return err_set(err, ERR_CORRUPT, "handed-over message does not add up");
	return 0;
}

static int read_file(struct obox_msgin *in, size_t rest_len, struct err *err)
{
	char *rest;
	struct stat st;
	struct rd r;
	int rc;

	if (fstat(in->fd, &st) < 0)
		return err_errno(err, "hand over a message", NULL);
	if (in->stored > (uint64_t)st.st_size || rest_len > (uint64_t)st.st_size - in->stored)
		return err_set(err, ERR_CORRUPT, "handed-over message ends early");
	rest = mem_alloc(rest_len);
	rc = io_pread_full(in->fd, rest, rest_len, (off_t)in->stored, err);
	r = rd_init(rest, rest_len);
	rc = rc == 1 ? decode_rest(in, &r, err) : err_set(err, ERR_CORRUPT, "handed-over message ends early");
	free(rest);
	return rc;
}

int obox_msgin_import(struct obox *ob, struct rd *r, int fd, struct obox_msgin **in_r, struct err *err)
{
	struct obox_msgin *in = MEM_NEW(struct obox_msgin);
	uint64_t rest;
	bool file;
	int rc;

	*in_r = NULL;
	in->ob = ob;
	in->fd = fd;
	in->finished = true;
	buf_init(&in->mem, 0);
	buf_init(&in->summary, 0);
	in->size = rd_v(r);
	in->stored = rd_v(r);
	rest = rd_v(r);
	file = rd_8(r) == IN_FILE;
	if (r->failed || file != (fd >= 0) || rest > SIZE_MAX / 2 || (!file && (in->stored > rd_left(r) || rest > rd_left(r) - in->stored))) {
		rc = err_set(err, ERR_CORRUPT, "handed-over message cannot be read");
	} else if (file) {
		rc = read_file(in, (size_t)rest, err);
	} else {
		buf_add(&in->mem, rd_bytes(r, (size_t)in->stored), (size_t)in->stored);
		rc = decode_rest(in, r, err);
	}
	if (rc < 0)
		obox_msgin_free(&in);
	*in_r = in;
	return rc;
}
