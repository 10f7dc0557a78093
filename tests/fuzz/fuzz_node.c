/* What comes at the node port and over links.  The first byte chooses:
 *   0  a stranger's bytes          1  an answer to one who asked
 *   2  bytes in a stream with the key (the rest is put into true frames: first message and requests)
 *   3  damaged frames of a true stream */
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/mem.h"
#include "daemon/deliver.h"
#include "daemon/node-link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const unsigned char key[32] = "fuzz";

/* Feeds in pieces; what frames come. */
static void feed(struct node_link *l, const uint8_t *data, size_t size, size_t step, struct buf *got)
{
	static unsigned char frame[NODE_FRAME_MAX];
	struct buf out = BUF_INIT(1 << 16);
	enum node_tag tag;
	size_t len;

	while (size && !l->failed) {
		size_t n = size < step ? size : step;

		if (node_link_feed(l, data, n, &out) == 0)
			while (node_link_next(l, frame, &len, &tag) == 1)
				buf_add(got, frame, len);
		data += n;
		size -= n;
	}
	buf_free(&out);
}

static void stranger(const uint8_t *data, size_t size, bool connected)
{
	struct buf out = BUF_INIT(1 << 16), got = BUF_INIT(1 << 20);
	struct node_link l;

	node_link_init(&l, key, connected, &out);
	feed(&l, data, size, 1 + size % 7, &got);
	if (got.len || l.up)
		abort();	/* nobody guesses the key */
	node_link_free(&l);
	buf_free(&out);
	buf_free(&got);
}

static void messages(const uint8_t *data, size_t size)
{
	struct buf in = BUF_INIT(0);
	struct node_hello h;
	struct node_answer a;
	struct deliver_in req;
	struct lmtp_target t[3] = { { .rc = 1 }, { .rc = 1 }, { .rc = 1 } };
	struct lmtp_delivery d = { .to = t, .n = 3 };
	struct deliver_place place[3] = { { 0 }, { 0 }, { 0 } };
	size_t which[3] = { 0, 1, 2 }, used, i;
	struct rd r = rd_init(data, size);
	struct msg_conn m;

	buf_add(&in, data, size);
	if (node_hello_get(&in, &h, &used) == 1 && h.kind == NODE_SESSION)
		(void)msg_conn_get(&h.rest, &m);
	(void)node_answer_get(&in, &a, &used);
	deliver_results_get(&r, &d, place, which, 3);
	for (i = 0; i < 3; i++)
		free(place[i].owner);
	(void)deliver_in_parse(&req, mem_dup(data, size), size, false, -1);
	deliver_in_free(&req);
	buf_free(&in);
}

static void damaged(const uint8_t *data, size_t size)
{
	struct buf a_out = BUF_INIT(1 << 20), b_out = BUF_INIT(1 << 20), got = BUF_INIT(1 << 20);
	struct node_link a, b;
	size_t i, n;

	node_link_init(&a, key, true, &a_out);
	node_link_init(&b, key, false, &b_out);
	if (node_link_feed(&b, a_out.data, a_out.len, &b_out) < 0 || node_link_feed(&a, b_out.data, b_out.len, &a_out) < 0)
		abort();
	buf_consume(&a_out, NODE_ASK_BYTES);
	for (i = 0; i < 4; i++)
		node_link_push(&a, NODE_DATA, "0123456789abcdef", 16, &a_out);
	n = size < a_out.len ? size : a_out.len;
	for (i = 0; i < n; i++)
		a_out.data[i] ^= data[i];
	feed(&b, a_out.data, a_out.len, 1 + size % 50, &got);
	for (i = 0; i + 16 <= got.len; i += 16)
		if (memcmp(got.data + i, "0123456789abcdef", 16) != 0)
			abort();
	node_link_free(&a);
	node_link_free(&b);
	buf_free(&a_out);
	buf_free(&b_out);
	buf_free(&got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (sodium_init() < 0 || !size)
		return 0;
	switch (data[0] % 4) {
	case 0:
	case 1:
		stranger(data + 1, size - 1, data[0] % 4 == 1);
		break;
	case 2:
		messages(data + 1, size - 1);
		break;
	default:
		damaged(data + 1, size - 1);
	}
	return 0;
}
