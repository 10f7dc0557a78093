/* Reading a message: one ranged read gets the header with the chunk table and,
 * for most mail, the whole body; later chunks are read as they are asked for.
 * What does not open is read once more, past any cache.
 *
 * Behind a network waiting costs more than bytes: reads are begun before they are
 * needed, and several chunks that will be read in order (obox_body_expect) are
 * one request, the next one on its way meanwhile. */
#include "obox/obox-private.h"

#include <inttypes.h>

enum { SPAN_MAX = 512 * 1024, N_SPANS = 2, WHOLE_READ = 256 * 1024 };

/* Sealed bytes of the object that were asked for. */
struct span {
	struct obox_body *b;
	struct objstore_op op;
	struct buf buf;
	uint32_t from, to;		/* chunks; none when equal */
	bool flying;
};

struct obox_body {
	struct obox *ob;
	char *key;
	uint64_t size;			/* as the index says */
	bool remote;
	uint32_t first_read;		/* octets to begin with */
	struct span first;		/* bytes 0.. of the object */
	struct mobj_head head;
	struct mobj_chunk *chunks;
	uint64_t *at;			/* plaintext offset of each chunk; at[n] is the size */
	uint64_t *off;			/* offset of each sealed chunk in the object */
	struct seal_dkey dkey;
	unsigned char *plain, *tmp;	/* the chunk `have`, unpacked; scratch */
	uint32_t have;
	bool fresh;			/* this is the second try */
	bool uncached;			/* it is the store that is looked at */
	uint32_t expect_from, expect_to;	/* chunks that will be read in order */
	struct span *spans;		/* N_SPANS, when there was need */
	pthread_mutex_t lock;		/* for `flying` of all spans */
	pthread_cond_t cond;
};

/* --- asking --- */

static void landed(struct objstore_op *op)
{
	struct span *sp = op->ctx;
	struct obox_body *b = sp->b;

	pthread_mutex_lock(&b->lock);
	sp->flying = false;
	pthread_cond_broadcast(&b->cond);
	pthread_mutex_unlock(&b->lock);
}

static void ask(struct obox_body *b, struct span *sp, uint64_t off, uint64_t len)
{
	sp->b = b;
	sp->flying = true;
	buf_clear(&sp->buf);
	sp->op = (struct objstore_op){ .verb = OBJ_GET, .key = b->key, .out = &sp->buf, .off = off, .len = len, .want_etag = b->fresh,
				       .uncached = b->uncached, .done = landed, .ctx = sp };
	objstore_submit(b->ob->cfg.mail_store, &sp->op);
}

static int wait_for(struct span *sp, struct err *err)
{
	pthread_mutex_lock(&sp->b->lock);
	while (sp->flying)
		pthread_cond_wait(&sp->b->cond, &sp->b->lock);
	pthread_mutex_unlock(&sp->b->lock);
	return sp->op.rc < 0 ? err_set(err, sp->op.rc, "%s", sp->op.err.msg[0] ? sp->op.err.msg : err_code_name(sp->op.rc)) : 0;
}

static int get(struct obox_body *b, uint64_t off, uint64_t len, struct buf *out, struct err *err)
{
	struct objstore *store = b->ob->cfg.mail_store;

	if (b->uncached)
		return objstore_get_uncached(store, b->key, off, len, out, err);
	return b->fresh ? objstore_get_fresh(store, b->key, off, len, out, err) : objstore_get_range(store, b->key, off, len, out, NULL, err);
}

/* --- opening --- */

static int read_header(struct obox_body *b, struct err *err)
{
	struct buf *first = &b->first.buf;
	int rc;

	if (!b->first.b)
		ask(b, &b->first, 0, b->first_read);
	rc = wait_for(&b->first, err);
	if (rc == 0)
		rc = mobj_parse_head(first->data, first->len, &b->head, err);
	if (rc == 0 && b->head.header_len > first->len) {
		rc = get(b, first->len, b->head.header_len - first->len, first, err);
		if (rc == 0 && b->head.header_len > first->len)
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
	rc = mobj_parse_chunks(b->first.buf.data, &b->head, b->chunks, err);
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

static int open_head(struct obox_body *b, struct err *err)
{
	int rc = read_header(b, err);

	if (rc == 0)
		rc = read_table(b, err);
	if (rc == 0 && b->head.size != b->size)
		rc = err_set(err, ERR_CORRUPT, "object holds %" PRIu64 " octets, the index says %" PRIu64, b->head.size, b->size);
	if (rc == 0)
		rc = seal_unwrap(b->ob->cfg.keys, b->key, b->head.wrap, &b->dkey, err);
	return rc < 0 ? err_prefix(err, "message object %s", b->key) : 0;
}

/* To try again: nothing of what was read is kept. */
static void forget_head(struct obox_body *b)
{
	buf_clear(&b->first.buf);
	b->first.b = NULL;
	free(b->chunks);
	free(b->at);
	free(b->off);
	b->chunks = NULL;
	b->at = b->off = NULL;
}

static struct obox_body *begin(struct obox_user *u, const struct obox_msg *m, bool whole, bool uncached)
{
	struct obox_body *b = MEM_NEW(struct obox_body);

	b->ob = u->ob;
	b->key = user_key(u, "m/%08" PRIx64 "-%08" PRIx64, m->oid.epoch, m->oid.n);
	b->size = m->size;
	b->have = UINT32_MAX;
	b->remote = u->ob->cfg.mail_store->caps & OBJ_CAP_REMOTE;
	b->uncached = uncached;
	b->first_read = whole && b->remote ? WHOLE_READ : MOBJ_FIRST_READ;
	buf_init(&b->first.buf, 256 << 20);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->cond, NULL);
	if (b->remote)
		ask(b, &b->first, 0, b->first_read);
	return b;
}

struct obox_body *obox_body_begin(struct obox_user *u, const struct obox_msg *m, bool whole)
{
	return begin(u, m, whole, false);
}

int obox_body_wait(struct obox_body **bp, struct err *err)
{
	struct obox_body *b = *bp;
	struct err first = ERR_INIT;
	int rc = open_head(b, &first);

	if (rc == ERR_CORRUPT) {
		forget_head(b);
		b->fresh = true;
		rc = open_head(b, err);
	} else if (rc < 0) {
		err_set(err, rc, "%s", first.msg);
	}
	if (rc < 0)
		obox_body_close(bp);
	return rc;
}

int obox_body_open(struct obox_user *u, const struct obox_msg *m, struct obox_body **b_r, struct err *err)
{
	*b_r = obox_body_begin(u, m, false);
	return obox_body_wait(b_r, err);
}

int body_open_uncached(struct obox_user *u, const struct obox_msg *m, struct obox_body **b_r, struct err *err)
{
	*b_r = begin(u, m, true, true);
	return obox_body_wait(b_r, err);
}

static void end_span(struct span *sp)
{
	bool flying;

	if (!sp->b)
		return;
	pthread_mutex_lock(&sp->b->lock);
	flying = sp->flying;
	pthread_mutex_unlock(&sp->b->lock);
	if (flying)
		objstore_cancel(sp->b->ob->cfg.mail_store, &sp->op);
	wait_for(sp, NULL);
	buf_free(&sp->buf);
}

void obox_body_close(struct obox_body **bp)
{
	struct obox_body *b = *bp;
	int i;

	if (!b)
		return;
	end_span(&b->first);
	for (i = 0; b->spans && i < N_SPANS; i++)
		end_span(&b->spans[i]);
	free(b->spans);
	seal_dkey_wipe(&b->dkey);
	free(b->chunks);
	free(b->at);
	free(b->off);
	free(b->plain);
	free(b->tmp);
	free(b->key);
	pthread_cond_destroy(&b->cond);
	pthread_mutex_destroy(&b->lock);
	free(b);
	*bp = NULL;
}

uint64_t obox_body_size(const struct obox_body *b)
{
	return b->head.size;
}

/* --- chunks --- */

static bool in_first(const struct obox_body *b, uint32_t i)
{
	return b->off[i + 1] <= b->first.buf.len;
}

/* Chunks from on, as many as will be read and a span takes. */
static void ask_span(struct obox_body *b, struct span *sp, uint32_t from)
{
	uint32_t to = from + 1;

	while (from >= b->expect_from && to < b->expect_to && b->off[to + 1] - b->off[from] <= SPAN_MAX)
		to++;
	sp->from = from;
	sp->to = to;
	ask(b, sp, b->off[from], b->off[to] - b->off[from]);
}

static struct span *span_of(struct obox_body *b, uint32_t i)
{
	int k;

	if (!b->spans) {
		b->spans = mem_calloc(N_SPANS, sizeof(*b->spans));
		for (k = 0; k < N_SPANS; k++)
			buf_init(&b->spans[k].buf, SPAN_MAX + OBOX_CHUNK + SEAL_CHUNK_OVERHEAD);
	}
	for (k = 0; k < N_SPANS; k++)
		if (i >= b->spans[k].from && i < b->spans[k].to)
			return &b->spans[k];
	return NULL;
}

/* Chunk i in a span, with the span behind it begun when it will be read. */
static int chunk_in_span(struct obox_body *b, uint32_t i, const unsigned char **p_r, struct err *err)
{
	struct span *sp = span_of(b, i), *other;
	int rc;

	if (!sp) {
		sp = &b->spans[0];
		if (sp->b)
			wait_for(sp, NULL);
		ask_span(b, sp, i);
	}
	other = &b->spans[sp == b->spans];
	rc = wait_for(sp, err);
	if (rc == 0 && sp->to < b->expect_to && sp->from >= b->expect_from && !span_of(b, sp->to)) {
		if (other->b)
			wait_for(other, NULL);
		ask_span(b, other, sp->to);
	}
	if (rc == 0 && sp->buf.len != b->off[sp->to] - b->off[sp->from])
		rc = err_set(err, ERR_CORRUPT, "object is cut");
	if (rc < 0)
		sp->from = sp->to = 0;	/* asked for again, if it is wanted again */
	else
		*p_r = sp->buf.data + (b->off[i] - b->off[sp->from]);
	return rc;
}

/* The sealed bytes of chunk i: from the first read, or read now. */
static int sealed_chunk(struct obox_body *b, uint32_t i, struct buf *room, const unsigned char **p_r, struct err *err)
{
	int rc;

	if (in_first(b, i) && !b->fresh) {
		*p_r = b->first.buf.data + b->off[i];
		return 0;
	}
	if (b->remote && !b->fresh)
		return chunk_in_span(b, i, p_r, err);
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
	const unsigned char *p = NULL;
	int rc = sealed_chunk(b, i, &room, &p, err);

	if (c->packed) {
		if (!b->tmp)
			b->tmp = mem_realloc(NULL, OBOX_CHUNK + SEAL_CHUNK_OVERHEAD);
		to = b->tmp;
	}
	if (rc == 0)
		rc = seal_piece_open(&b->dkey, i, b->first.buf.data, MOBJ_AAD, p, c->sealed, to, err);
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

void obox_body_expect(struct obox_body *b, uint64_t off, uint64_t len)
{
	uint32_t i;

	if (!len || off >= b->head.size)
		return;
	i = b->expect_from = chunk_of(b, off);
	b->expect_to = chunk_of(b, len < b->head.size - off ? off + len - 1 : b->head.size - 1) + 1;
	if (!b->remote || b->fresh)
		return;
	while (i < b->expect_to && in_first(b, i))
		i++;
	if (i < b->expect_to && !span_of(b, i) && !b->spans[0].b)
		ask_span(b, &b->spans[0], i);
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
	if (len && (chunk_of(b, off) < b->expect_from || chunk_of(b, off + len - 1) >= b->expect_to))
		obox_body_expect(b, off, len);
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

	return mobj_open_record(b->ob, b->key, b->first.buf.data, &b->head, o, &guid, err);
}
