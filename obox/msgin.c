/* A message coming in: parsed and packed chunk by chunk while it streams, so
 * that its size costs disk and not memory, and saving it for a hundred
 * recipients costs one pass. */
#include "obox/msgin-private.h"

#include "base/io.h"
#include "mime/mime.h"

#include <fcntl.h>
#include <unistd.h>

enum { SPOOL_MEMORY = 1 << 20 };

int tmp_file(struct obox *ob, struct err *err)
{
	int fd = openat(ob->tmp_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char name[64];
	static atomic_ulong counter;

	if (fd >= 0)
		return fd;
	/* a file system without O_TMPFILE */
	snprintf(name, sizeof(name), "spool.%d.%lu", (int)getpid(), atomic_fetch_add(&counter, 1));
	fd = openat(ob->tmp_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, "spool: create file in", ob->node_dir);
	unlinkat(ob->tmp_fd, name, 0);
	return fd;
}

int obox_msgin_new(struct obox *ob, struct obox_msgin **in_r, struct err *err)
{
	struct obox_msgin *in = MEM_NEW(struct obox_msgin);

	in->ob = ob;
	in->parser = mime_parser_new(NULL);
	in->fd = -1;
	buf_init(&in->mem, 0);
	buf_init(&in->summary, 0);
	*in_r = in;
	return 0;
}

void obox_msgin_free(struct obox_msgin **inp)
{
	struct obox_msgin *in = *inp;

	if (!in)
		return;
	mime_parser_free(&in->parser);
	buf_free(&in->summary);
	buf_free(&in->mem);
	io_close(&in->fd);
	free(in->chunk);
	free(in->chunks);
	free(in);
	*inp = NULL;
}

static int spool(struct obox_msgin *in, const void *data, size_t len, struct err *err)
{
	int rc = 0;

	if (in->fd < 0 && in->stored + len > SPOOL_MEMORY) {
		in->fd = tmp_file(in->ob, err);
		if (in->fd < 0)
			return in->fd;
		rc = io_pwrite_full(in->fd, in->mem.data, in->mem.len, 0, err);
		buf_free(&in->mem);
	}
	if (rc == 0 && in->fd >= 0)
		rc = io_pwrite_full(in->fd, data, len, (off_t)in->stored, err);
	else if (rc == 0)
		buf_add(&in->mem, data, len);
	in->stored += len;
	return rc;
}

static int end_chunk(struct obox_msgin *in, const void *data, size_t len, struct err *err)
{
	unsigned char small[8192], *out = small;
	struct msgin_chunk c = { .plain = (uint32_t)len, .off = in->stored };
	size_t n = 0, cap = pack_bound(len);
	int rc;

	if (cap > sizeof(small))
		out = mem_alloc(cap);
	c.packed = pack_zstd(data, len, out, cap, &n);
	c.stored = (uint32_t)(c.packed ? n : len);
	rc = spool(in, c.packed ? out : data, c.stored, err);
	mem_grow(&in->chunks, &in->cap, in->n + 1, sizeof(*in->chunks));
	in->chunks[in->n++] = c;
	if (out != small)
		free(out);
	return rc;
}

int obox_msgin_write(struct obox_msgin *in, const void *data, size_t len, struct err *err)
{
	const unsigned char *p = data;
	int rc = 0;

	if (len > in->ob->cfg.max_message || in->size > in->ob->cfg.max_message - len)
		return err_set(err, ERR_LIMIT, "message is larger than %llu octets", (unsigned long long)in->ob->cfg.max_message);
	in->size += len;
	mime_parser_feed(in->parser, data, len);
	while (len > 0 && rc == 0) {
		size_t n = OBOX_CHUNK - in->fill;

		if (in->fill == 0 && len >= OBOX_CHUNK) {	/* whole chunks need no copy */
			rc = end_chunk(in, p, OBOX_CHUNK, err);
			p += OBOX_CHUNK;
			len -= OBOX_CHUNK;
			continue;
		}
		if (n > len)
			n = len;
		if (!in->chunk)
			in->chunk = mem_realloc(NULL, OBOX_CHUNK);
		memcpy(in->chunk + in->fill, p, n);
		in->fill += n;
		p += n;
		len -= n;
		if (in->fill == OBOX_CHUNK) {
			rc = end_chunk(in, in->chunk, OBOX_CHUNK, err);
			in->fill = 0;
		}
	}
	return rc;
}

int obox_msgin_finish(struct obox_msgin *in, struct err *err)
{
	int rc = 0;

	if (in->finished)
		return 0;
	if (in->fill)
		rc = end_chunk(in, in->chunk, in->fill, err);
	free(in->chunk);
	in->chunk = NULL;
	mime_parser_finish(in->parser, &in->summary);
	mime_parser_free(&in->parser);
	in->finished = true;
	return rc;
}

uint64_t obox_msgin_size(const struct obox_msgin *in)
{
	return in->size;
}

const void *obox_msgin_summary(const struct obox_msgin *in, size_t *len_r)
{
	*len_r = in->summary.len;
	return in->summary.data;
}

size_t msgin_chunks(const struct obox_msgin *in, const struct msgin_chunk **list_r)
{
	*list_r = in->chunks;
	return in->n;
}

int msgin_chunk_read(const struct obox_msgin *in, size_t i, void *stored_r, struct err *err)
{
	const struct msgin_chunk *c = &in->chunks[i];

	if (in->fd < 0) {
		memcpy(stored_r, in->mem.data + c->off, c->stored);
		return 0;
	}
	return io_pread_full(in->fd, stored_r, c->stored, (off_t)c->off, err) == 1 ? 0 : err_set(err, ERR_IO, "spool file ends early");
}

int msgin_chunk_plain(const struct obox_msgin *in, size_t i, void *plain_r, struct err *err)
{
	const struct msgin_chunk *c = &in->chunks[i];
	unsigned char *tmp;
	int rc;

	if (!c->packed)
		return msgin_chunk_read(in, i, plain_r, err);
	if (in->fd < 0)
		return unpack_zstd(in->mem.data + c->off, c->stored, plain_r, c->plain, err);
	tmp = mem_realloc(NULL, c->stored);
	rc = msgin_chunk_read(in, i, tmp, err);
	if (rc == 0)
		rc = unpack_zstd(tmp, c->stored, plain_r, c->plain, err);
	free(tmp);
	return rc;
}

int obox_msgin_read(const struct obox_msgin *in, uint64_t off, void *data, size_t len, struct err *err)
{
	unsigned char *plain, *out = data;
	uint64_t at = 0;
	size_t i, n;
	int rc = 0;

	if (off > in->size || len > in->size - off)
		return err_set(err, ERR_INVALID, "read beyond the message");
	plain = mem_realloc(NULL, OBOX_CHUNK);
	for (i = 0; i < in->n && len > 0 && rc == 0; at += in->chunks[i++].plain) {
		if (off >= at + in->chunks[i].plain)
			continue;
		rc = msgin_chunk_plain(in, i, plain, err);
		n = (size_t)(at + in->chunks[i].plain - off);
		if (n > len)
			n = len;
		if (rc == 0)
			memcpy(out, plain + (off - at), n);
		out += n;
		off += n;
		len -= n;
	}
	free(plain);
	return rc;
}
