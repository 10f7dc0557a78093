/* The bytes of a journal object: docs/format.md, 13. */
#include "metacache/metacache-private.h"

void piece_encode(enum piece_kind kind, uint64_t n, const struct buf *entries, struct buf *out)
{
	buf_adds(out, "CULJ");
	buf_put8(out, 2);
	buf_put8(out, kind);
	buf_putv(out, n);
	if (entries)
		buf_add(out, entries->data, entries->len);
}

int piece_decode(const struct buf *plain, enum piece_kind *kind_r, void (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err)
{
	struct rd r = rd_init(plain->data, plain->len);
	const void *magic = rd_bytes(&r, 4);
	struct journal_entry e;
	unsigned version = magic && !memcmp(magic, "CULJ", 4) ? rd_8(&r) : 0;
	uint64_t n;
	char *user;

	if (version != 1 && version != 2)
		return err_set(err, ERR_CORRUPT, "not a journal object of a known version");
	*kind_r = rd_8(&r);
	for (n = rd_v(&r); n > 0 && !r.failed && *kind_r == PIECE_RECORDS; n--) {
		memset(&e, 0, sizeof(e));
		e.user = user = rd_strdup(&r);
		e.epoch = rd_v(&r);
		e.lsn = rd_v(&r);
		e.landed = version > 1 ? rd_v(&r) : 0;
		e.rec = rd_blob(&r, &e.rec_len);
		if (!r.failed && fn)
			fn(ctx, &e);
		free(user);
	}
	if (r.failed || *kind_r > PIECE_SEAL || (*kind_r == PIECE_RECORDS && r.p != r.end))
		return err_set(err, ERR_CORRUPT, "journal object is cut");
	return 0;
}
