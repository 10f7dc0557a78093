/* Everything of obox/ that reads bytes from a store or a journal: records,
 * snapshots, segments, message object headers.  The first byte chooses. */
#include "obox/obox-private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void records(const uint8_t *p, size_t len)
{
	struct rd r = rd_init(p, len);
	struct buf out = BUF_INIT(1 << 20);
	struct rec rec;

	while (rec_decode(&r, &rec) == 1) {
		struct buf again = BUF_INIT(1 << 24);

		rec_describe(&rec, rec.type & 1, &out);
		rec_encode(&rec, &again);
		buf_free(&again);
		rec_release(&rec);
		buf_clear(&out);
	}
	buf_free(&out);
}

/* A state machine fed with any records refuses or applies, and its snapshot decodes to the same. */
static void state(const uint8_t *p, size_t len)
{
	struct rd r = rd_init(p, len);
	struct root_state s, t;
	struct buf a = BUF_INIT(1 << 24), b = BUF_INIT(1 << 24);
	struct err err = ERR_INIT;
	struct rec rec;
	size_t i;
	int rc = 0, n;

	root_init(&s, NULL);
	root_init(&t, NULL);
	for (n = 0; rc == 0 && n < 64 && rec_decode(&r, &rec) == 1; n++) {
		rc = root_apply(&s, &rec, &err);
		rec_release(&rec);
	}
	root_encode(&s, &a);
	for (i = 0; i < s.n_boxes; i++)
		mbox_encode(s.boxes[i], &b);
	if (root_decode(&t, a.data, a.len, &err) < 0)
		abort();
	root_release(&s);
	root_release(&t);
	buf_free(&a);
	buf_free(&b);
}

static void snapshots(const uint8_t *p, size_t len)
{
	struct err err = ERR_INIT;
	struct root_state s;
	struct mbox *m = mbox_new();

	if (len > 21)
		memcpy(m->guid.b, p + 5, sizeof(m->guid.b));
	mbox_decode(m, p, len, &err);
	mbox_free(&m);
	root_init(&s, NULL);
	root_decode(&s, p, len, &err);
	root_release(&s);
}

static void objects(const uint8_t *p, size_t len)
{
	struct mobj_chunk *chunks;
	struct err err = ERR_INIT;
	struct mobj_head h;

	if (mobj_parse_head(p, len, &h, &err) < 0 || h.header_len > len)
		return;
	chunks = mem_calloc(h.n_chunks, sizeof(*chunks));
	mobj_parse_chunks(p, &h, chunks, &err);
	free(chunks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static void (*const kinds[])(const uint8_t *, size_t) = { records, state, snapshots, objects };

	if (len)
		kinds[data[0] % MEM_COUNT(kinds)](data + 1, len - 1);
	return 0;
}
