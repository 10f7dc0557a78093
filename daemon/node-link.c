#include "daemon/node-link.h"

#include "base/mem.h"

enum { ASK_MAC = 8 + 32, ANSWER_MAC = 32 };

static const unsigned char magic[8] = { 'c', 'u', 'l', 'v', 'e', 'r', 'n', '1' };

struct node_handshake {
	unsigned char key[NODE_KEY_BYTES];
	unsigned char secret[crypto_scalarmult_SCALARBYTES];
	unsigned char ask[NODE_ASK_BYTES], answer[NODE_ANSWER_BYTES];
};

static int fail(struct node_link *l, int code)
{
	l->failed = code;
	return code;
}

static void drop_handshake(struct node_link *l)
{
	if (l->hs)
		sodium_memzero(l->hs, sizeof(*l->hs));
	free(l->hs);
	l->hs = NULL;
}

/* BLAKE2b of label | a | b under the node key. */
static void mac(const struct node_handshake *hs, const char *label, const void *a, size_t a_len, const void *b, size_t b_len, unsigned char *out, size_t out_len)
{
	crypto_generichash_state st;

	crypto_generichash_init(&st, hs->key, sizeof(hs->key), out_len);
	crypto_generichash_update(&st, (const unsigned char *)label, strlen(label));
	crypto_generichash_update(&st, a, a_len);
	crypto_generichash_update(&st, b, b_len);
	crypto_generichash_final(&st, out, out_len);
	sodium_memzero(&st, sizeof(st));
}

void node_link_init(struct node_link *l, const unsigned char key[NODE_KEY_BYTES], bool connected, struct buf *out)
{
	struct node_handshake *hs = MEM_NEW(struct node_handshake);

	memset(l, 0, sizeof(*l));
	buf_init(&l->in, NODE_IN_MAX);
	l->connected = connected;
	l->hs = hs;
	memcpy(hs->key, key, sizeof(hs->key));
	if (!connected)
		return;
	randombytes_buf(hs->secret, sizeof(hs->secret));
	memcpy(hs->ask, magic, sizeof(magic));
	crypto_scalarmult_base(hs->ask + sizeof(magic), hs->secret);
	mac(hs, "ask", hs->ask, ASK_MAC, NULL, 0, hs->ask + ASK_MAC, 32);
	buf_add(out, hs->ask, sizeof(hs->ask));
}

void node_link_free(struct node_link *l)
{
	drop_handshake(l);
	buf_free(&l->in);
	sodium_memzero(&l->push, sizeof(l->push));
	sodium_memzero(&l->pull, sizeof(l->pull));
}

/* Both have the other's point: the keys of the two directions, and this one's beginning. */
static int make_keys(struct node_link *l, const unsigned char their_point[32], struct buf *out)
{
	struct node_handshake *hs = l->hs;
	unsigned char seed[32 + NODE_ASK_BYTES], keys[64], start[NODE_START_BYTES];

	if (crypto_scalarmult(seed, hs->secret, their_point) < 0)
		return fail(l, ERR_DENIED);
	memcpy(seed + 32, hs->ask, sizeof(hs->ask));
	mac(hs, "keys", seed, sizeof(seed), hs->answer, sizeof(hs->answer), keys, sizeof(keys));
	crypto_secretstream_xchacha20poly1305_init_push(&l->push, start, keys + (l->connected ? 0 : 32));
	buf_add(out, start, sizeof(start));
	/* Kept where the other's beginning will need it. */
	memcpy(hs->key, keys + (l->connected ? 32 : 0), sizeof(hs->key));
	sodium_memzero(seed, sizeof(seed));
	sodium_memzero(keys, sizeof(keys));
	l->up = true;
	return 1;
}

static int take_ask(struct node_link *l, const unsigned char *p, struct buf *out)
{
	struct node_handshake *hs = l->hs;
	unsigned char want[32], both[NODE_ASK_BYTES];

	memcpy(hs->ask, p, sizeof(hs->ask));
	mac(hs, "ask", p, ASK_MAC, NULL, 0, want, sizeof(want));
	if (memcmp(p, magic, sizeof(magic)) != 0 || sodium_memcmp(want, p + ASK_MAC, sizeof(want)) != 0)
		return fail(l, ERR_DENIED);
	randombytes_buf(hs->secret, sizeof(hs->secret));
	crypto_scalarmult_base(hs->answer, hs->secret);
	memcpy(both, hs->ask, sizeof(both));
	mac(hs, "answer", both, sizeof(both), hs->answer, ANSWER_MAC, hs->answer + ANSWER_MAC, 32);
	buf_add(out, hs->answer, sizeof(hs->answer));
	return make_keys(l, hs->ask + sizeof(magic), out);
}

static int take_answer(struct node_link *l, const unsigned char *p, struct buf *out)
{
	struct node_handshake *hs = l->hs;
	unsigned char want[32];

	memcpy(hs->answer, p, sizeof(hs->answer));
	mac(hs, "answer", hs->ask, sizeof(hs->ask), hs->answer, ANSWER_MAC, want, sizeof(want));
	if (sodium_memcmp(want, hs->answer + ANSWER_MAC, sizeof(want)) != 0)
		return fail(l, ERR_DENIED);
	return make_keys(l, hs->answer, out);
}

static int take_start(struct node_link *l, const unsigned char *p)
{
	int rc = crypto_secretstream_xchacha20poly1305_init_pull(&l->pull, p, l->hs->key);

	drop_handshake(l);
	l->pulling = true;
	return rc < 0 ? fail(l, ERR_DENIED) : 1;
}

/* One step of the handshake; 1 done, 0 more bytes are needed, <0. */
static int step(struct node_link *l, struct buf *out)
{
	size_t need = l->up ? NODE_START_BYTES : l->connected ? NODE_ANSWER_BYTES : NODE_ASK_BYTES, have = l->in.len - l->in_pos;
	const unsigned char *p;

	if (!have)
		return 0;
	p = l->in.data + l->in_pos;
	/* A stranger is recognised by its first bytes, not only when it has sent enough of them. */
	if (!l->up && !l->connected && memcmp(p, magic, have < sizeof(magic) ? have : sizeof(magic)) != 0)
		return fail(l, ERR_DENIED);
	if (have < need)
		return 0;
	l->in_pos += need;
	return l->up ? take_start(l, p) : l->connected ? take_answer(l, p, out) : take_ask(l, p, out);
}

size_t node_link_room(const struct node_link *l)
{
	return NODE_IN_MAX - (l->in.len - l->in_pos);
}

int node_link_feed(struct node_link *l, const void *data, size_t len, struct buf *out)
{
	int rc = 1;

	if (l->failed)
		return l->failed;
	if (l->in_pos) {
		buf_consume(&l->in, l->in_pos);
		l->in_pos = 0;
	}
	buf_add(&l->in, data, len);
	if (l->in.failed)
		return fail(l, ERR_LIMIT);
	while (l->hs && rc == 1)
		rc = step(l, out);
	return rc < 0 ? rc : 0;
}

static int open_frame(struct node_link *l, const unsigned char *p, size_t len, unsigned char *frame, size_t *len_r, enum node_tag *tag_r)
{
	unsigned long long got;
	unsigned char tag;

	if (crypto_secretstream_xchacha20poly1305_pull(&l->pull, frame, &got, &tag, p, len, NULL, 0) < 0)
		return fail(l, ERR_CORRUPT);
	if ((tag != NODE_DATA && tag != NODE_CONTROL && tag != NODE_END) || (tag == NODE_END && got) || (tag == NODE_CONTROL && got != 1))
		return fail(l, ERR_CORRUPT);
	l->ended = tag == NODE_END;
	*len_r = (size_t)got;
	*tag_r = (enum node_tag)tag;
	return 1;
}

int node_link_next(struct node_link *l, unsigned char frame[NODE_FRAME_MAX], size_t *len_r, enum node_tag *tag_r)
{
	size_t have = l->in.len - l->in_pos, len;
	const unsigned char *p;

	if (l->failed)
		return l->failed;
	if (!l->pulling || !have)
		return 0;
	p = l->in.data + l->in_pos;
	if (l->ended)	/* something behind the end */
		return fail(l, ERR_CORRUPT);
	if (have < 2)
		return 0;
	len = p[0] | (size_t)p[1] << 8;
	if (len < NODE_FRAME_EXTRA - 2 || len > NODE_FRAME_MAX + NODE_FRAME_EXTRA - 2)
		return fail(l, ERR_CORRUPT);
	if (have < 2 + len)
		return 0;
	l->in_pos += 2 + len;
	return open_frame(l, p + 2, len, frame, len_r, tag_r);
}

void node_link_push(struct node_link *l, enum node_tag tag, const void *data, size_t len, struct buf *out)
{
	size_t sealed = len + NODE_FRAME_EXTRA - 2;
	unsigned char *p = buf_reserve(out, 2 + sealed);

	if (!p)
		return;
	p[0] = (unsigned char)sealed;
	p[1] = (unsigned char)(sealed >> 8);
	crypto_secretstream_xchacha20poly1305_push(&l->push, p + 2, NULL, data, len, NULL, 0, (unsigned char)tag);
	out->len += 2 + sealed;
	l->end_sent |= tag == NODE_END;
}

void node_link_rest(struct node_link *l)
{
	if (l->in_pos == l->in.len) {
		l->in_pos = 0;
		buf_free(&l->in);
	}
}
