/* Reading a message: one ranged read gets the header with the chunk table and,
 * for most mail, the whole body; later chunks are read as they are asked for.
 * What does not open is read once more, past any cache. */
#include "obox/obox-private.h"

#include <inttypes.h>

struct obox_body {
	struct obox *ob;
	char *key;
	struct buf first;		/* bytes 0.. of the object */
	struct mobj_head head;
	struct mobj_chunk *chunks;
	uint64_t *at;			/* plaintext offset of each chunk; at[n] is the size */
	uint64_t *off;			/* offset of each sealed chunk in the object */
	struct seal_dkey dkey;
	unsigned char *plain, *tmp;	/* the chunk `have`, unpacked; scratch */
	uint32_t have;
	bool fresh;			/* this is the second try */
};

static int get(struct obox_body *b, uint64_t off, uint64_t len, struct buf *out, struct err *err)
{
	struct objstore *store = b->ob->cfg.mail_store;

	return b->fresh ? objstore_get_fresh(store, b->key, off, len, out, err) : objstore_get_range(store, b->key, off, len, out, NULL, err);
}

static int read_header(struct obox_body *b, struct err *err)
{
	int rc = get(b, 0, MOBJ_FIRST_READ, &b->first, err);

	if (rc == 0)
		rc = mobj_parse_head(b->first.data, b->first.len, &b->head, err);
	if (rc == 0 && b->head.header_len > b->first.len) {
		rc = get(b, b->first.len, b->head.header_len - b->first.len, &b->first, err);
		if (rc == 0 && b->head.header_len > b->first.len)
			rc = err_set(err, ERR_CORRUPT, "object is cut");
	}
	return rc;
}

static int read_table(struct obox_body *b, struct err *err)
{
	uint64_t at = 0, off = b->head.header_len;
	uint32_t i, n = b->head.n_chunks;
	int rc;

	b->chunks = mem_calloc(n, sizeof(*b->chunks));
	b->at = mem_calloc((size_t)n + 1, sizeof(*b->at));
	b->off = mem_calloc((size_t)n + 1, sizeof(*b->off));
	rc = mobj_parse_chunks(b->first.data, &b->head, b->chunks, err);
	for (i = 0; rc == 0 && i < n; i++) {
		b->at[i] = at;
		b->off[i] = off;
		at += b->chunks[i].plain;
		off += b->chunks[i].sealed;
	}
	b->at[n] = at;
	b->off[n] = off;
	return rc;
}

static int body_open(struct obox_user *u, const struct obox_msg *m, bool fresh, struct obox_body **b_r, struct err *err)
{
	struct obox_body *b = MEM_NEW(struct obox_body);
	int rc;

	b->ob = u->ob;
	b->key = user_key(u, "m/%08" PRIx64 "-%08" PRIx64, m->oid.epoch, m->oid.n);
	b->have = UINT32_MAX;
	b->fresh = fresh;
	buf_init(&b->first, 256 << 20);
	rc = read_header(b, err);
	if (rc == 0)
		rc = read_table(b, err);
	if (rc == 0 && b->head.size != m->size)
		rc = err_set(err, ERR_CORRUPT, "object holds %" PRIu64 " octets, the index says %" PRIu64, b->head.size, m->size);
	if (rc == 0)
		rc = seal_unwrap(b->ob->cfg.keys, b->key, b->head.wrap, &b->dkey, err);
	if (rc < 0) {
		err_prefix(err, "message object %s", b->key);
		obox_body_close(&b);
	}
	*b_r = b;
	return rc;
}

int obox_body_open(struct obox_user *u, const struct obox_msg *m, struct obox_body **b_r, struct err *err)
{
	struct err first = ERR_INIT;
	int rc = body_open(u, m, false, b_r, &first);

	return rc == ERR_CORRUPT ? body_open(u, m, true, b_r, err) : rc < 0 ? err_set(err, rc, "%s", first.msg) : 0;
}

void obox_body_close(struct obox_body **bp)
{
	struct obox_body *b = *bp;

	if (!b)
		return;
	seal_dkey_wipe(&b->dkey);
	buf_free(&b->first);
	free(b->chunks);
	free(b->at);
	free(b->off);
	free(b->plain);
	free(b->tmp);
	free(b->key);
	free(b);
	*bp = NULL;
}

uint64_t obox_body_size(const struct obox_body *b)
{
	return b->head.size;
}

/* The sealed bytes of chunk i: from the first read, or read now. */
static int sealed_chunk(struct obox_body *b, uint32_t i, struct buf *room, const unsigned char **p_r, struct err *err)
{
	int rc;

	if (b->off[i + 1] <= b->first.len && !b->fresh) {
		*p_r = b->first.data + b->off[i];
		return 0;
	}
	rc = get(b, b->off[i], b->chunks[i].sealed, room, err);
	if (rc == 0 && room->len != b->chunks[i].sealed)
		rc = err_set(err, ERR_CORRUPT, "object is cut");
	*p_r = room->data;
	return rc;
}

static int try_chunk(struct obox_body *b, uint32_t i, unsigned char *out, struct err *err)
{
	const struct mobj_chunk *c = &b->chunks[i];
	struct buf room = BUF_INIT(OBOX_CHUNK + SEAL_CHUNK_OVERHEAD);
	unsigned char *to = out;
	const unsigned char *p;
	int rc = sealed_chunk(b, i, &room, &p, err);

	if (c->packed) {
		if (!b->tmp)
			b->tmp = mem_realloc(NULL, OBOX_CHUNK + SEAL_CHUNK_OVERHEAD);
		to = b->tmp;
	}
	if (rc == 0)
		rc = seal_piece_open(&b->dkey, i, b->first.data, MOBJ_AAD, p, c->sealed, to, err);
	if (rc == 0 && c->packed)
		rc = unpack_zstd(to, c->sealed - SEAL_CHUNK_OVERHEAD, out, c->plain, err);
	buf_free(&room);
	return rc;
}

/* Opens chunk i into out, which has room for its plain bytes. */
static int open_chunk(struct obox_body *b, uint32_t i, unsigned char *out, struct err *err)
{
	struct err first = ERR_INIT;
	bool before = b->fresh;
	int rc = try_chunk(b, i, out, &first);

	if (rc == 0)
		return 0;
	if (rc != ERR_CORRUPT || before)
		return err_set(err, rc, "%s", first.msg);
	b->fresh = true;
	rc = try_chunk(b, i, out, err);
	b->fresh = before;
	return rc;
}

static uint32_t chunk_of(const struct obox_body *b, uint64_t off)
{
	uint32_t lo = 0, hi = b->head.n_chunks;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (b->at[mid] <= off)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* Chunk i into b->plain. */
static int have_chunk(struct obox_body *b, uint32_t i, struct err *err)
{
	int rc;

	if (b->have == i)
		return 0;
	if (!b->plain)
		b->plain = mem_realloc(NULL, b->head.size < OBOX_CHUNK ? (size_t)b->head.size : OBOX_CHUNK);
	b->have = UINT32_MAX;
	rc = open_chunk(b, i, b->plain, err);
	if (rc == 0)
		b->have = i;
	return rc;
}

int obox_body_load(struct obox_body *b, struct err *err)
{
	int rc = b->head.size ? have_chunk(b, 0, err) : 0;

	return rc < 0 ? err_prefix(err, "message object %s", b->key) : 0;
}

int obox_body_read(struct obox_body *b, uint64_t off, void *data, size_t len, struct err *err)
{
	unsigned char *out = data;
	int rc = 0;

	if (off > b->head.size || len > b->head.size - off)
		return err_set(err, ERR_INVALID, "message object %s: read beyond its end", b->key);
	while (len > 0 && rc == 0) {
		uint32_t i = chunk_of(b, off);
		size_t n = (size_t)(b->at[i + 1] - off);

		if (n > len)
			n = len;
		if (n == b->chunks[i].plain && b->have != i) {	/* whole chunks go straight to the caller */
			rc = open_chunk(b, i, out, err);
		} else {
			rc = have_chunk(b, i, err);
			if (rc == 0)
				memcpy(out, b->plain + (off - b->at[i]), n);
		}
		out += n;
		off += n;
		len -= n;
	}
	return rc < 0 ? err_prefix(err, "message object %s", b->key) : 0;
}

int obox_origin(struct obox_body *b, struct obox_origin *o, struct err *err)
{
	struct obox_guid guid;

	return mobj_open_record(b->ob, b->key, b->first.data, &b->head, o, &guid, err);
}
