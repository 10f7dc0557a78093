/* A GET: blocks that are here, then a flight for what is missing, and again
 * until all is there.
 *
 * One thread at a time carries a GET on.  Who starts a flight leaves when the
 * answer is not there yet (step becomes WAITING), and who brings the answer
 * goes on; when the answer came first (step is DONE), the starter goes on. */
#include "fscache/fscache-private.h"

#include "base/mem.h"

static void finish(struct fsc_get *g)
{
	struct fscache *fc = g->fc;
	struct objstore_op *op = g->op;

	if (!g->fetched)
		FSC_COUNT(fc, hits, 1);
	else if (g->hit)
		FSC_COUNT(fc, partial, 1);
	else
		FSC_COUNT(fc, misses, 1);
	op->rc = g->rc;
	op->size = g->size;
	op->mtime = 0;
	if (op->rc < 0 && !op->out->failed)
		buf_truncate(op->out, g->out_start);
}

/* From the disk as far as it goes; true: the GET is answered. */
static bool serve(struct fsc_get *g)
{
	struct buf *out = g->op->out;

	while (!g->sized || g->pos < g->end) {
		uint32_t from = (uint32_t)(g->pos % FSCACHE_BLOCK), want = FSCACHE_BLOCK - from;
		size_t before = out->len;
		int rc;

		if (g->end - g->pos < want)
			want = (uint32_t)(g->end - g->pos);
		rc = fsc_read(g->fc, &g->id, (uint32_t)(g->pos / FSCACHE_BLOCK), from, want, out, &g->size);
		if (rc == 0)
			return false;
		if (rc < 0) {
			g->rc = err_set(&g->op->err, ERR_LIMIT, "object store: %s is larger than expected", g->op->key);
			return true;
		}
		g->sized = g->hit = true;
		if (g->end > g->size)
			g->end = g->size;
		g->pos += out->len - before;
		FSC_COUNT(g->fc, hit_bytes, out->len - before);
	}
	return true;
}

static void end(struct fsc_get *g)
{
	struct fscache *fc = g->fc;
	struct objstore_op *op = g->op;

	finish(g);
	free(g);
	op->done(op);
	atomic_fetch_sub(&fc->active, 1);
}

static void carry_on(struct fsc_get *g)
{
	while (g->rc == 0 && !serve(g)) {
		atomic_store(&g->step, 0);
		if (fsc_flight_join(g) == 1)
			continue;
		if (atomic_exchange(&g->step, FSC_WAITING) != FSC_DONE)
			return;		/* who brings the answer goes on; g is theirs */
	}
	end(g);
}

void fsc_get_resume(struct fsc_get *g)
{
	if (atomic_exchange(&g->step, FSC_DONE) == FSC_WAITING)
		carry_on(g);
}

void fsc_get_submit(struct fscache *fc, struct objstore_op *op, const struct fsc_id *id, uint64_t owner)
{
	struct fsc_get g = { .fc = fc, .op = op, .id = *id, .owner = owner, .pos = op->off, .end = UINT64_MAX, .out_start = op->out->len }, *heap;

	if (op->len && op->len < UINT64_MAX - op->off)
		g.end = op->off + op->len;
	if (serve(&g)) {
		finish(&g);
		op->done(op);
		return;
	}
	heap = mem_dup(&g, sizeof(g));
	atomic_fetch_add(&fc->active, 1);
	carry_on(heap);
}
