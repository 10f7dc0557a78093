/* Links between nodes: handshake, frames, what strangers and a man in the
 * middle can do, the first messages, and streams over real sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "daemon/deliver.h"
#include "daemon/msg.h"
#include "daemon/node.h"
#include "daemon/node-stream.h"
#include "objstore/objstore.h"
#include "obox/obox.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static const unsigned char key[32] = "the key of this deployment......", other_key[32] = "the key of another deployment...";

struct side {
	struct node_link l;
	struct buf out;			/* to the other */
	struct buf got;
	bool ended;
	int rc;
};

static void side_init(struct side *s, const unsigned char *k, bool connected)
{
	memset(s, 0, sizeof(*s));
	node_link_init(&s->l, k, connected, &s->out);
}

static void side_free(struct side *s)
{
	node_link_free(&s->l);
	buf_free(&s->out);
	buf_free(&s->got);
}

static void take(struct side *s)
{
	static unsigned char frame[NODE_FRAME_MAX];
	enum node_tag tag;
	size_t len;

	while ((s->rc = node_link_next(&s->l, frame, &len, &tag)) == 1) {
		buf_add(&s->got, frame, len);
		s->ended |= tag == NODE_END;
	}
}

/* Gives len bytes at p to s, in pieces of step. */
static int give(struct side *s, const unsigned char *p, size_t len, size_t step)
{
	while (len && s->rc >= 0) {
		size_t n = len < step ? len : step;

		s->rc = node_link_feed(&s->l, p, n, &s->out);
		if (s->rc == 0)
			take(s);
		p += n;
		len -= n;
	}
	return s->rc;
}

/* All that from has to say. */
static int move(struct side *from, struct side *to, size_t step)
{
	int rc = give(to, from->out.data, from->out.len, step);

	buf_clear(&from->out);
	return rc;
}

static void pair(struct side *a, struct side *b)
{
	side_init(a, key, true);
	side_init(b, key, false);
	assert_int_equal(move(a, b, 1000), 0);
	assert_int_equal(move(b, a, 1000), 0);
	assert_true(a->l.up && b->l.up);
}

static void push(struct side *s, enum node_tag tag, const char *text)
{
	node_link_push(&s->l, tag, text, strlen(text), &s->out);
}

static void two_with_the_key_talk_in_both_directions_at_once(void **state)
{
	static unsigned char big[NODE_FRAME_MAX];
	size_t steps[] = { 1, 7, 1000, 65536 }, i, k;
	struct side a, b;

	for (i = 0; i < MEM_COUNT(steps); i++) {
		side_init(&a, key, true);
		side_init(&b, key, false);
		assert_int_equal(a.out.len, NODE_ASK_BYTES);
		assert_int_equal(move(&a, &b, steps[i]), 0);
		assert_true(b.l.up && !b.l.pulling && !a.l.up);
		push(&b, NODE_DATA, "early");	/* the answer and data in one go */
		assert_int_equal(move(&b, &a, steps[i]), 0);
		assert_memory_equal(a.got.data, "early", 5);
		buf_clear(&a.got);
		for (k = 0; k < 200; k++) {
			memset(big, (int)k, sizeof(big));
			node_link_push(&a.l, NODE_DATA, big, k * 80, &a.out);
			node_link_push(&b.l, NODE_DATA, big, NODE_FRAME_MAX - k, &b.out);
			if (k % 3 == 0)
				assert_int_equal(move(&a, &b, steps[i]), 0);
			if (k % 4 == 0)
				assert_int_equal(move(&b, &a, steps[i]), 0);
		}
		push(&a, NODE_END, "");
		assert_int_equal(move(&a, &b, steps[i]), 0);
		assert_int_equal(move(&b, &a, steps[i]), 0);
		assert_true(b.ended && !a.ended && a.l.end_sent);
		assert_int_equal(b.got.len, 80 * 199 * 200 / 2);
		assert_int_equal(a.got.len, 200 * NODE_FRAME_MAX - 199 * 200 / 2);
		assert_int_equal(b.got.data[b.got.len - 1], 199);
		assert_int_equal(a.got.data[a.got.len - 1], 199);
		side_free(&a);
		side_free(&b);
	}
}

static void nothing_on_the_wire_shows_or_repeats(void **state)
{
	struct side a, b, c, d;
	size_t i;

	pair(&a, &b);
	pair(&c, &d);
	push(&a, NODE_DATA, "SELECT INBOX");
	push(&c, NODE_DATA, "SELECT INBOX");
	assert_null(memmem(a.out.data, a.out.len, "SELECT", 6));
	assert_memory_not_equal(a.out.data, c.out.data, a.out.len);
	assert_int_equal(move(&a, &b, 1000), 0);
	/* The two directions have keys of their own: what a said is nothing when it comes back. */
	for (i = 0; i < 2; i++) {
		struct side *s = i ? &b : &a;

		buf_clear(&s->out);
		push(s, NODE_DATA, "x");
		assert_int_equal(give(s, s->out.data, s->out.len, 100), ERR_CORRUPT);
	}
	side_free(&a);
	side_free(&b);
	side_free(&c);
	side_free(&d);
}

static void who_does_not_have_the_key_gets_no_answer(void **state)
{
	struct side a, b;

	side_init(&a, other_key, true);
	side_init(&b, key, false);
	assert_int_equal(move(&a, &b, 1000), ERR_DENIED);
	assert_int_equal(b.out.len, 0);
	assert_int_equal(node_link_feed(&b.l, "x", 1, &b.out), ERR_DENIED);	/* and it stays so */
	side_free(&a);
	side_free(&b);
}

static void who_connects_does_not_trust_an_answer_without_the_key(void **state)
{
	struct side a, b, c;
	unsigned char fake[NODE_ANSWER_BYTES + NODE_START_BYTES];

	side_init(&a, key, true);
	randombytes_buf(fake, sizeof(fake));
	assert_int_equal(give(&a, fake, sizeof(fake), 1000), ERR_DENIED);
	assert_false(a.l.up);
	side_free(&a);
	/* its own words thrown back */
	side_init(&a, key, true);
	assert_int_equal(give(&a, a.out.data, a.out.len, 1000), ERR_DENIED);
	side_free(&a);
	/* an answer to another's question */
	side_init(&a, key, true);
	side_init(&c, key, true);
	side_init(&b, key, false);
	assert_int_equal(move(&c, &b, 1000), 0);
	assert_int_equal(move(&b, &a, 1000), ERR_DENIED);
	side_free(&a);
	side_free(&b);
	side_free(&c);
}

static void a_recorded_conversation_says_nothing_the_second_time(void **state)
{
	struct side a, b, again;
	struct buf record = BUF_INIT(0);

	side_init(&a, key, true);
	side_init(&b, key, false);
	buf_add(&record, a.out.data, a.out.len);
	assert_int_equal(move(&a, &b, 1000), 0);
	assert_int_equal(move(&b, &a, 1000), 0);
	push(&a, NODE_DATA, "deliver this");
	buf_add(&record, a.out.data, a.out.len);
	assert_int_equal(move(&a, &b, 1000), 0);
	assert_memory_equal(b.got.data, "deliver this", 12);
	side_init(&again, key, false);
	assert_int_equal(give(&again, record.data, record.len, 1000), ERR_CORRUPT);
	assert_int_equal(again.got.len, 0);
	buf_free(&record);
	side_free(&a);
	side_free(&b);
	side_free(&again);
}

static void garbage_is_known_by_its_first_byte(void **state)
{
	struct side b;

	side_init(&b, key, false);
	assert_int_equal(give(&b, (const unsigned char *)"c", 1, 1), 0);
	assert_int_equal(give(&b, (const unsigned char *)"ulvernX", 7, 7), ERR_DENIED);
	side_free(&b);
	side_init(&b, key, false);
	assert_int_equal(give(&b, (const unsigned char *)"GET / HTTP/1.0\r\n\r\n", 18, 1), ERR_DENIED);
	assert_int_equal(b.out.len, 0);
	side_free(&b);
}

static void any_flipped_bit_ends_the_link(void **state)
{
	struct side a, b;
	size_t i, n;

	pair(&a, &b);
	push(&a, NODE_DATA, "twelve bytes");
	n = a.out.len;
	side_free(&a);
	side_free(&b);
	for (i = 0; i < 8 * n; i += 3) {
		pair(&a, &b);
		push(&a, NODE_DATA, "twelve bytes");
		push(&a, NODE_DATA, "and more, so that a longer length finds bytes");
		a.out.data[i / 8] ^= (unsigned char)(1 << i % 8);
		/* a length that grew beyond what came waits for more; it must not give data */
		if (move(&a, &b, 1000) == 0)
			assert_in_range(i / 8, NODE_START_BYTES, NODE_START_BYTES + 1);
		else
			assert_int_equal(b.rc, ERR_CORRUPT);
		assert_int_equal(b.got.len, 0);
		side_free(&a);
		side_free(&b);
	}
	for (i = 0; i < 8 * NODE_ASK_BYTES; i += 5) {
		side_init(&a, key, true);
		side_init(&b, key, false);
		a.out.data[i / 8] ^= (unsigned char)(1 << i % 8);
		assert_int_equal(move(&a, &b, 1000), ERR_DENIED);
		side_free(&a);
		side_free(&b);
	}
	for (i = 0; i < 8 * NODE_ANSWER_BYTES; i += 5) {
		side_init(&a, key, true);
		side_init(&b, key, false);
		assert_int_equal(move(&a, &b, 1000), 0);
		b.out.data[i / 8] ^= (unsigned char)(1 << i % 8);
		assert_int_equal(move(&b, &a, 1000), ERR_DENIED);
		side_free(&a);
		side_free(&b);
	}
}

static void frames_cannot_be_repeated_dropped_or_swapped(void **state)
{
	struct side a, b;
	struct buf one = BUF_INIT(0), two = BUF_INIT(0);
	int how;

	for (how = 0; how < 3; how++) {
		pair(&a, &b);
		assert_int_equal(move(&a, &b, 1000), 0);
		buf_clear(&one);
		buf_clear(&two);
		node_link_push(&a.l, NODE_DATA, "one", 3, &one);
		node_link_push(&a.l, NODE_DATA, "two", 3, &two);
		if (how == 0) {
			assert_int_equal(give(&b, one.data, one.len, 100), 0);
			assert_int_equal(give(&b, one.data, one.len, 100), ERR_CORRUPT);
			assert_int_equal(b.got.len, 3);
		} else {
			assert_int_equal(give(&b, two.data, two.len, 100), ERR_CORRUPT);
			assert_int_equal(b.got.len, 0);
		}
		if (how == 2)
			assert_int_equal(give(&b, one.data, one.len, 100), ERR_CORRUPT);
		side_free(&a);
		side_free(&b);
	}
	buf_free(&one);
	buf_free(&two);
}

static void oversized_frames_and_words_behind_the_end_are_refused(void **state)
{
	unsigned char head[2] = { 0xff, 0xff };
	struct side a, b;

	pair(&a, &b);
	assert_int_equal(move(&a, &b, 1000), 0);
	assert_int_equal(give(&b, head, 2, 2), ERR_CORRUPT);
	side_free(&a);
	side_free(&b);
	pair(&a, &b);
	push(&a, NODE_END, "");
	node_link_push(&a.l, NODE_DATA, "more", 4, &a.out);
	assert_int_equal(move(&a, &b, 1000), ERR_CORRUPT);
	assert_true(b.ended);
	assert_int_equal(b.got.len, 0);
	side_free(&a);
	side_free(&b);
}

static void an_idle_link_keeps_no_buffers(void **state)
{
	struct side a, b;

	pair(&a, &b);
	push(&a, NODE_DATA, "x");
	assert_int_equal(move(&a, &b, 1000), 0);
	node_link_rest(&b.l);
	assert_null(b.l.in.data);
	assert_null(b.l.hs);
	assert_true(sizeof(struct node_link) < 300);
	push(&a, NODE_DATA, "y");
	assert_int_equal(move(&a, &b, 1), 0);
	assert_memory_equal(b.got.data, "xy", 2);
	side_free(&a);
	side_free(&b);
}

/* --- the first messages --- */

static void the_first_messages_come_back_as_they_were(void **state)
{
	struct msg_conn m = { .proto = PROTO_IMAP, .tls = true, .id = "abc.1", .peer = "[::1]:9", .local = "10.0.0.1:143", .user = "joe", .tag = "a1" }, n;
	struct obox_owner o = { .node = "b-w3", .address = "[fe80::1]:4011", .incarnation = UINT64_MAX - 5 };
	struct buf b = BUF_INIT(0), part = BUF_INIT(0);
	struct node_hello h;
	struct node_answer a;
	size_t used, i;

	node_hello_put(&b, NODE_SESSION, "a-w0", &m);
	for (i = 0; i < b.len; i++) {
		buf_clear(&part);
		buf_add(&part, b.data, i);
		assert_int_equal(node_hello_get(&part, &h, &used), 0);
	}
	buf_adds(&b, "rest");
	assert_int_equal(node_hello_get(&b, &h, &used), 1);
	assert_int_equal(used, b.len - 4);
	assert_string_equal(h.node, "a-w0");
	assert_string_equal(h.version, PACKAGE_VERSION);
	assert_int_equal(msg_conn_get(&h.rest, &n), 0);
	assert_string_equal(n.user, "joe");
	assert_string_equal(n.tag, "a1");
	assert_true(n.tls && !n.loopback);
	buf_clear(&b);
	node_answer_put(&b, NODE_MOVED, "b-w1", &o);
	assert_int_equal(node_answer_get(&b, &a, &used), 1);
	assert_int_equal(a.code, NODE_MOVED);
	assert_memory_equal(&a.owner.incarnation, &o.incarnation, sizeof(o.incarnation));
	assert_string_equal(a.owner.address, o.address);
	b.data[2] = 99;
	assert_int_equal(node_answer_get(&b, &a, &used), -1);
	b.data[1] = 0xff;
	assert_int_equal(node_hello_get(&b, &h, &used), -1);
	buf_free(&b);
	buf_free(&part);
}

/* --- streams --- */

static void streams(struct node_stream *a, struct node_stream *b, int sv[2])
{
	struct buf none = BUF_INIT(0);
	int i;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	node_stream_init(a, sv[0], key, true);
	node_stream_init(b, sv[1], key, false);
	for (i = 0; i < 3; i++) {
		assert_int_equal(node_stream_flush(a), 1);
		assert_int_equal(node_stream_read(b, &none, NODE_FRAME_MAX), 0);
		assert_int_equal(node_stream_read(a, &none, NODE_FRAME_MAX), 0);
	}
	assert_true(a->link.pulling && b->link.pulling);
	buf_free(&none);
}

static void a_stream_is_bounded_when_the_other_side_does_not_read(void **state)
{
	static unsigned char data[1 << 20], back[1 << 20];
	struct node_stream a, b;
	struct buf got = BUF_INIT(sizeof(back));
	size_t sent = 0, n, stuck;
	int sv[2], rc;

	streams(&a, &b, sv);
	randombytes_buf(data, sizeof(data));
	do {
		n = node_stream_write(&a, data + sent, sizeof(data) - sent);
		sent += n;
	} while (node_stream_flush(&a) == 1);
	sent += node_stream_write(&a, data + sent, sizeof(data) - sent);
	stuck = node_stream_write(&a, data + sent, sizeof(data) - sent);
	assert_int_equal(stuck, 0);
	assert_true(a.out.len < NODE_OUT_HIGH + NODE_FRAME_MAX + 100 && sent < sizeof(data));
	while (got.len < sizeof(data)) {
		/* little room: frames stay whole, and it says that there is more */
		size_t max = got.len + NODE_FRAME_MAX + 10 < sizeof(data) ? got.len + NODE_FRAME_MAX + 10 : sizeof(data);

		if (max - got.len < NODE_FRAME_MAX)
			break;
		rc = node_stream_read(&b, &got, max);
		assert_true(rc >= 0);
		sent += node_stream_write(&a, data + sent, sizeof(data) - sent);
		assert_true(node_stream_flush(&a) >= 0);
	}
	assert_true(got.len > sizeof(data) - 2 * NODE_FRAME_MAX);
	assert_memory_equal(got.data, data, got.len);
	buf_free(&got);
	node_stream_free(&a);
	node_stream_free(&b);
	close(sv[0]);
	close(sv[1]);
}

static void a_connection_that_is_cut_is_not_an_end(void **state)
{
	struct node_stream a, b;
	struct buf got = BUF_INIT(0);
	int sv[2], cut;

	for (cut = 0; cut < 2; cut++) {
		streams(&a, &b, sv);
		buf_clear(&got);
		assert_int_equal(node_stream_write(&a, "hello", 5), 5);
		node_stream_control(&a, NODE_STOP);
		if (!cut)
			node_stream_end(&a);
		assert_int_equal(node_stream_flush(&a), 1);
		close(sv[0]);
		assert_int_equal(node_stream_read(&b, &got, NODE_IN_MAX), 1);
		assert_memory_equal(got.data, "hello", 5);
		assert_true(b.stop);
		assert_true(b.link.ended == !cut);
		if (cut)
			assert_int_equal(node_stream_read(&b, &got, NODE_IN_MAX), -1);
		node_stream_free(&a);
		node_stream_free(&b);
		close(sv[1]);
	}
	buf_free(&got);
}

/* --- deliveries --- */

struct fixture {
	char dir[64];
	struct objstore *store;
	struct seal_keys *keys;
	struct worker w;
};

static void fixture_open(struct fixture *f)
{
	struct obox_config cfg = { .state_dir = f->dir, .prefix = "", .node = "t-w0" };
	struct err err = ERR_INIT;

	memset(f, 0, sizeof(*f));
	snprintf(f->dir, sizeof(f->dir), "/tmp/t_node.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->keys = seal_keys_ephemeral();
	assert_int_equal(objstore_posix_open(f->dir, &f->store, &err), 0);
	cfg.mail_store = cfg.index_store = f->store;
	cfg.keys = f->keys;
	assert_int_equal(obox_open(&cfg, &f->w.env.obox, &err), 0);
	f->w.node.name = mem_strdup("t-w0");
	f->w.deliveries = pool_new(4);
}

static void fixture_close(struct fixture *f)
{
	char *cmd = mem_printf("rm -r %s", f->dir);

	pool_free(&f->w.deliveries);
	obox_close(&f->w.env.obox);
	objstore_close(&f->store);
	seal_keys_free(&f->keys);
	free(f->w.node.name);
	assert_int_equal(system(cmd), 0);
	free(cmd);
}

static void put_target(struct buf *text, const char *user, const char *prepend)
{
	msg_put_str(text, user);
	msg_put_str(text, user);
	msg_put_str(text, "");
	msg_put_str(text, prepend);
}

/* One message of size bytes to two users and one who cannot be, in the given form. */
static void hand_over(struct fixture *f, size_t size, bool raw, const unsigned char *data)
{
	struct deliver_message m = { .head = BUF_INIT(64 * 1024), .fd = -1 };
	struct buf text = BUF_INIT(0), results = BUF_INIT(0);
	struct lmtp_target to[3] = { { .rc = 1 }, { .rc = 1 }, { .rc = 1 } };
	struct lmtp_delivery d = { .to = to, .n = 3 };
	struct deliver_place place[3] = { { 0 }, { 0 }, { 0 } };
	size_t which[3] = { 0, 1, 2 }, i;
	struct obox_msgin *msg;
	struct err err = ERR_INIT;
	struct deliver_in in;
	struct rd r;

	assert_int_equal(obox_msgin_new(f->w.env.obox, &msg, &err), 0);
	assert_int_equal(obox_msgin_write(msg, data, size, &err), 0);
	assert_int_equal(obox_msgin_finish(msg, &err), 0);
	assert_int_equal(raw ? deliver_raw(msg, 24 * 1024, &m, &err) : obox_msgin_export(msg, 24 * 1024, &m.head, &m.fd, &err), 0);
	assert_true((m.fd >= 0) == (size > 24 * 1024));
	msg_put_str(&text, "sender@example.org");
	buf_put16(&text, 3);
	put_target(&text, "joe", "X-To: joe\r\n");
	put_target(&text, "bad\001name", "");
	put_target(&text, "ann", "");
	buf_add(&text, m.head.data, m.head.len);
	i = text.len;
	assert_int_equal(deliver_in_parse(&in, (unsigned char *)buf_detach(&text), i, raw, m.fd), 0);
	deliver_in_run(&f->w, &in);
	deliver_results_put(&results, &in);
	deliver_in_free(&in);
	r = rd_init(results.data, results.len);
	deliver_results_get(&r, &d, place, which, 3);
	assert_false(r.failed);
	assert_int_equal(to[0].rc, 0);
	assert_int_equal(to[1].rc, ERR_INVALID);
	assert_int_equal(to[2].rc, 0);
	for (i = 0; i < 3; i++)
		assert_int_equal(place[i].state, DELIVER_DONE);
	obox_msgin_free(&msg);
	buf_free(&m.head);
	buf_free(&results);
}

static void assert_stored(struct fixture *f, const char *user, uint32_t n, const char *prepend, const unsigned char *data, size_t size)
{
	size_t head = strlen(prepend);
	struct obox_user *u = NULL;
	struct obox_view *v = NULL;
	struct obox_body *b = NULL;
	struct err err = ERR_INIT;
	struct obox_msg m;
	unsigned char *got = mem_alloc(head + size);

	assert_int_equal(obox_user_open(f->w.env.obox, user, &u, &err), 0);
	assert_int_equal(obox_view_open(u, "INBOX", true, NULL, NULL, &v, &err), 0);
	assert_int_equal(obox_view_count(v), n);
	assert_int_equal(obox_view_read(v, n, &m, 1), 1);
	assert_int_equal(m.size, head + size);
	assert_int_equal(obox_body_open(u, &m, &b, &err), 0);
	assert_int_equal(obox_body_read(b, 0, got, head + size, &err), 0);
	assert_memory_equal(got, prepend, head);
	assert_memory_equal(got + head, data, size);
	free(got);
	obox_body_close(&b);
	obox_view_close(&v);
	obox_user_close(&u);
}

static void mail_arrives_whole_packed_and_raw(void **state)
{
	size_t sizes[] = { 20, 20000, 700000 }, i;
	static unsigned char data[700000];
	struct fixture f;
	uint32_t n = 0;
	int raw;

	fixture_open(&f);
	randombytes_buf(data, sizeof(data));	/* does not pack */
	for (i = 0; i < sizeof(data); i++)
		data[i] = i % 72 == 70 ? '\r' : i % 72 == 71 ? '\n' : (unsigned char)(' ' + data[i] % 90);
	memcpy(data, "Subject: x\r\n\r\n", 14);
	for (i = 0; i < MEM_COUNT(sizes); i++) {
		for (raw = 0; raw < 2; raw++) {
			hand_over(&f, sizes[i], raw, data);
			n++;
			assert_stored(&f, "joe", n, "X-To: joe\r\n", data, sizes[i]);
			assert_stored(&f, "ann", n, "", data, sizes[i]);
		}
	}
	fixture_close(&f);
}

static void results_that_are_cut_short_acknowledge_nothing(void **state)
{
	struct lmtp_target to[4];
	struct lmtp_delivery d = { .to = to, .n = 4 };
	struct obox_owner o = { .node = "b-w1", .address = "127.0.0.1:1" };
	struct deliver_in in = { .d = d };
	struct deliver_place place[4] = { { 0 }, { 0 }, { 0 }, { 0 } }, got[4];
	size_t which[4] = { 0, 1, 2, 3 }, len, i;
	struct buf b = BUF_INIT(0);

	to[0].rc = to[3].rc = 0;
	to[1].rc = ERR_LIMIT;
	place[0].state = place[1].state = place[3].state = DELIVER_DONE;
	deliver_moved(&place[2], &o);
	in.place = place;
	deliver_results_put(&b, &in);
	for (len = 0; len <= b.len; len++) {
		struct rd r = rd_init(b.data, len);

		memset(got, 0, sizeof(got));
		for (i = 0; i < 4; i++)
			to[i].rc = ERR_UNAVAILABLE;
		deliver_results_get(&r, &d, got, which, 4);
		assert_int_equal(to[0].rc, len < 3 ? ERR_UNAVAILABLE : 0);
		assert_int_equal(to[1].rc, len < 4 ? ERR_UNAVAILABLE : ERR_LIMIT);
		assert_int_equal(to[2].rc, len < b.len - 1 ? ERR_UNAVAILABLE : ERR_BUSY);
		assert_int_equal(to[3].rc, len < b.len ? ERR_UNAVAILABLE : 0);
		if (len == b.len)
			assert_string_equal(got[2].owner->address, o.address);
		free(got[2].owner);
	}
	free(place[2].owner);
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_with_the_key_talk_in_both_directions_at_once),
		cmocka_unit_test(nothing_on_the_wire_shows_or_repeats),
		cmocka_unit_test(who_does_not_have_the_key_gets_no_answer),
		cmocka_unit_test(who_connects_does_not_trust_an_answer_without_the_key),
		cmocka_unit_test(a_recorded_conversation_says_nothing_the_second_time),
		cmocka_unit_test(garbage_is_known_by_its_first_byte),
		cmocka_unit_test(any_flipped_bit_ends_the_link),
		cmocka_unit_test(frames_cannot_be_repeated_dropped_or_swapped),
		cmocka_unit_test(oversized_frames_and_words_behind_the_end_are_refused),
		cmocka_unit_test(an_idle_link_keeps_no_buffers),
		cmocka_unit_test(the_first_messages_come_back_as_they_were),
		cmocka_unit_test(a_stream_is_bounded_when_the_other_side_does_not_read),
		cmocka_unit_test(a_connection_that_is_cut_is_not_an_end),
		cmocka_unit_test(mail_arrives_whole_packed_and_raw),
		cmocka_unit_test(results_that_are_cut_short_acknowledge_nothing),
	};

	if (sodium_init() < 0)
		return 1;
	log_init("test", LOG_ERROR + 1, LOG_FMT_TEXT);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}
