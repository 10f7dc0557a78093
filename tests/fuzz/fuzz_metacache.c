/* What nodes read of each other: journal objects, node records, the ring.  The first byte chooses. */
#include "metacache/metacache-private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void see(void *ctx, const struct journal_entry *e)
{
	size_t *n = ctx;

	*n += strlen(e->user) + e->rec_len;
}

static void piece(const uint8_t *p, size_t len)
{
	struct buf plain = BUF_INIT(0);
	struct err err = ERR_INIT;
	enum piece_kind kind;
	size_t n = 0;

	buf_add(&plain, p, len);
	if (piece_decode(&plain, &kind, see, &n, &err) == 0 && n > len)
		abort();
	buf_free(&plain);
}

/* What is understood is written the same way again. */
static void record(const uint8_t *p, size_t len)
{
	struct buf plain = BUF_INIT(0), again = BUF_INIT(0), third = BUF_INIT(0);
	struct node_record rec;
	struct err err = ERR_INIT;

	buf_add(&plain, p, len);
	if (node_decode(&rec, &plain, "node", &err) == 0) {
		node_encode(&rec, &again);
		if (node_decode(&rec, &again, "node", &err) < 0)
			abort();
		node_encode(&rec, &third);
		if (third.len != again.len || memcmp(third.data, again.data, again.len) != 0)
			abort();
	}
	buf_free(&plain);
	buf_free(&again);
	buf_free(&third);
}

static void ring(const uint8_t *p, size_t len)
{
	struct buf plain = BUF_INIT(0);
	struct err err = ERR_INIT;
	struct ring r;

	buf_add(&plain, p, len);
	if (ring_decode(&r, &plain, "nodes", &err) == 0)
		ring_free(&r);
	buf_free(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	if (data[0] % 3 == 0)
		piece(data + 1, len - 1);
	else if (data[0] % 3 == 1)
		record(data + 1, len - 1);
	else
		ring(data + 1, len - 1);
	return 0;
}
