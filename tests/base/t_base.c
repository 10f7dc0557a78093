/* Tests of base/: buffers, numbers in formats, sets, maps, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/b64.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hmap.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/seqset.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static void buf_stops_at_its_ceiling(void **state)
{
	struct buf b = BUF_INIT(10);

	buf_adds(&b, "0123456789");
	assert_false(b.failed);
	buf_addc(&b, 'x');
	assert_true(b.failed);
	assert_int_equal(b.len, 10);
	assert_string_equal(buf_str(&b), "0123456789");
	buf_free(&b);
}

static void buf_formats_and_consumes(void **state)
{
	struct buf b = BUF_INIT(0);
	int i;

	for (i = 0; i < 1000; i++)
		buf_addf(&b, "%d,", i);
	buf_addu(&b, UINT64_MAX);
	assert_memory_equal(b.data + b.len - 20, "18446744073709551615", 20);
	buf_consume(&b, 4);
	assert_memory_equal(b.data, "2,3,", 4);
	buf_consume(&b, SIZE_MAX);
	assert_int_equal(b.len, 0);
	buf_free(&b);
}

static void numbers_come_back(void **state)
{
	static const uint64_t v[] = { 0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX };
	struct buf b = BUF_INIT(0);
	struct rd r;
	size_t i, n;

	for (i = 0; i < MEM_COUNT(v); i++) {
		buf_putv(&b, v[i]);
		buf_put64(&b, v[i]);
		buf_put16(&b, (uint16_t)v[i]);
	}
	buf_putstr(&b, "hello");
	r = rd_init(b.data, b.len);
	for (i = 0; i < MEM_COUNT(v); i++) {
		assert_true(rd_v(&r) == v[i]);
		assert_true(rd_64(&r) == v[i]);
		assert_true(rd_16(&r) == (uint16_t)v[i]);
	}
	assert_memory_equal(rd_blob(&r, &n), "hello", 5);
	assert_int_equal(n, 5);
	assert_false(r.failed);
	assert_int_equal(rd_8(&r), 0);
	assert_true(r.failed);
	for (i = 0; i < b.len; i++) {	/* every cut is noticed, none is read over */
		r = rd_init(b.data, i);
		while (!r.failed) {
			rd_v(&r);
			rd_64(&r);
			rd_16(&r);
		}
	}
	buf_free(&b);
}

static void varints_that_do_not_fit_fail(void **state)
{
	struct rd r = rd_init("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10);

	assert_true(rd_v(&r) == 0);
	assert_true(r.failed);
}

/* Against a plain array of bits, by a seeded walk. */
static void seqset_equals_a_bitmap(void **state)
{
	struct seqset s = SEQSET_INIT;
	unsigned char bits[300] = { 0 };
	struct buf text = BUF_INIT(0);
	unsigned seed = 7, step, i;

	for (step = 0; step < 20000; step++) {
		unsigned lo = 1 + (unsigned)rand_r(&seed) % 290, hi = lo + (unsigned)rand_r(&seed) % 9, add = (unsigned)rand_r(&seed) % 2;

		if (add)
			seqset_add(&s, lo, hi);
		else
			seqset_remove(&s, lo, hi);
		for (i = lo; i <= hi; i++)
			bits[i] = (unsigned char)add;
		for (i = 1; i + 1 < s.n; i++)
			assert_true(s.r[i - 1].hi + 1 < s.r[i].lo);
		if (step % 50)
			continue;
		for (i = 1; i < 300; i++)
			assert_int_equal(seqset_contains(&s, i), bits[i]);
	}
	seqset_clear(&s);
	seqset_add(&s, 5, 5);
	seqset_add(&s, 1, 3);
	seqset_add(&s, 4294967295u, 4294967295u);
	seqset_format(&s, &text);
	assert_string_equal(buf_str(&text), "1:3,5,4294967295");
	assert_int_equal(seqset_next(&s, 4), 5);
	assert_int_equal(seqset_next(&s, 6), 4294967295u);
	seqset_add(&s, 4, 4);
	assert_int_equal(s.n, 2);
	seqset_free(&s);
	buf_free(&text);
}

static void hmap_keeps_what_it_is_given(void **state)
{
	struct hmap m = HMAP_INIT;
	uintptr_t i, n = 0;
	size_t pos = 0;
	void *v;

	for (i = 1; i <= 5000; i++)
		assert_null(hmap_put(&m, &i, sizeof(i), (void *)i));
	for (i = 1; i <= 5000; i += 3)
		assert_ptr_equal(hmap_del(&m, &i, sizeof(i)), (void *)i);
	for (i = 1; i <= 5000; i++)
		assert_ptr_equal(hmap_get(&m, &i, sizeof(i)), i % 3 == 1 ? NULL : (void *)i);
	while (hmap_next(&m, &pos, NULL, NULL, &v))
		n++;
	assert_int_equal(n, m.n);
	hmap_free(&m);
}

static void err_keeps_the_first_cause(void **state)
{
	struct err e = ERR_INIT;

	assert_int_equal(err_set(&e, ERR_CORRUPT, "first %d", 1), ERR_CORRUPT);
	assert_int_equal(err_set(&e, ERR_IO, "second"), ERR_IO);
	err_prefix(&e, "while %s", "reading");
	assert_string_equal(e.msg, "while reading: first 1");
	assert_int_equal(e.code, ERR_CORRUPT);
}

static void base64_is_strict(void **state)
{
	struct buf b = BUF_INIT(0);

	b64_encode(&b, "any carnal pleas", 16);
	assert_string_equal(buf_str(&b), "YW55IGNhcm5hbCBwbGVhcw==");
	buf_clear(&b);
	assert_int_equal(b64_decode(&b, "YW55IGNhcm5hbCBwbGVhcw==", 24), 0);
	assert_int_equal(b.len, 16);
	assert_int_equal(b64_decode(&b, "YW55IGNh cm5h", 13), -1);
	assert_int_equal(b64_decode(&b, "YW5", 3), -1);
	assert_int_equal(b64_decode(&b, "", 0), 0);
	buf_free(&b);
}

static void descriptors_travel(void **state)
{
	int sv[2], fds[2], p[2];
	size_t n = 2, len;
	char text[8];
	struct err e = ERR_INIT;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(io_send_fds(sv[0], "hi", 2, p, 2, &e), 0);
	assert_int_equal(io_recv_fds(sv[1], text, sizeof(text), &len, fds, &n, &e), 1);
	assert_int_equal(len, 2);
	assert_int_equal(n, 2);
	assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(read(p[0], text, 1), 1);
	close(sv[0]);
	n = 2;
	assert_int_equal(io_recv_fds(sv[1], text, sizeof(text), &len, fds, &n, &e), 0);
	close(sv[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buf_stops_at_its_ceiling),
		cmocka_unit_test(buf_formats_and_consumes),
		cmocka_unit_test(numbers_come_back),
		cmocka_unit_test(varints_that_do_not_fit_fail),
		cmocka_unit_test(seqset_equals_a_bitmap),
		cmocka_unit_test(hmap_keeps_what_it_is_given),
		cmocka_unit_test(err_keeps_the_first_cause),
		cmocka_unit_test(base64_is_strict),
		cmocka_unit_test(descriptors_travel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
