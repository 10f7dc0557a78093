/* The columns of a mailbox snapshot: what went in comes out, damage is told,
 * and snapshots of the first version are still read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "obox/obox-private.h"

static uint64_t seed;

static uint64_t draw(void)	/* xorshift64* */
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * 0x2545f4914f6cdd1d;
}

static struct mbox *box(size_t n, void (*fill)(struct obox_msg *m, size_t i))
{
	struct mbox *m = mbox_new();
	size_t i;

	m->uidvalidity = 7;
	m->uidnext = UINT32_MAX;
	m->highestmodseq = 99;
	m->msgs = mem_calloc(n + 1, sizeof(*m->msgs));
	for (i = 0; i < n; i++)
		fill(&m->msgs[i], i);
	m->n = (uint32_t)n;
	return m;
}

static void like_mail(struct obox_msg *m, size_t i)
{
	*m = (struct obox_msg){ .uid = (uint32_t)(i + 1), .flags = draw() % 3 ? OBOX_SEEN : 0, .modseq = (uint64_t)3 << 32 | (i + 5), .size = 800 + draw() % 90000,
		.idate = 1700000000 + (int64_t)(draw() % 90000000), .sdate = 1790000000 + (int64_t)(i / 4), .oid = { 3, i + 1 },
		.sum_block = (uint32_t)(i / 300), .sum_slot = (uint32_t)(i % 300) };
}

static uint64_t any_width(void)
{
	static const unsigned shift[] = { 64, 56, 48, 32, 1, 0 };
	unsigned by = shift[draw() % 6];

	return by == 64 ? 0 : draw() >> by;
}

static void wild(struct obox_msg *m, size_t i)
{
	*m = (struct obox_msg){ .uid = (uint32_t)(i * 7 + 1 + draw() % 7), .flags = (uint32_t)any_width(), .modseq = any_width(), .kw = { any_width(), any_width() },
		.size = any_width(), .idate = (int64_t)any_width(), .sdate = (int64_t)any_width(), .oid = { any_width(), any_width() },
		.sum_block = (uint32_t)any_width(), .sum_slot = (uint32_t)any_width() };
}

static void there_and_back(size_t n, void (*fill)(struct obox_msg *m, size_t i), struct buf *b)
{
	struct mbox *m = box(n, fill), *back = mbox_new();
	struct err err = ERR_INIT;

	buf_clear(b);
	mbox_encode(m, b);
	assert_int_equal(mbox_decode(back, b->data, b->len, &err), 0);
	assert_int_equal(back->n, n);
	if (n)
		assert_memory_equal(back->msgs, m->msgs, n * sizeof(*m->msgs));
	mbox_free(&m);
	mbox_free(&back);
}

static void what_goes_in_comes_out(void **state)
{
	static const size_t sizes[] = { 0, 1, 2, 1023, 1024, 1025, 5000 };
	struct buf b = BUF_INIT(0);
	size_t i, k;

	for (k = 0; k < 20; k++) {
		for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			seed = k * 100 + i + 1;
			there_and_back(sizes[i], like_mail, &b);
			there_and_back(sizes[i], wild, &b);
		}
	}
	buf_free(&b);
}

static void a_message_costs_few_bytes(void **state)
{
	struct buf b = BUF_INIT(0);

	seed = 5;
	there_and_back(20000, like_mail, &b);
	assert_true(b.len < 20000 * 14);	/* flags, size, date, save date, place; of 80 */
	buf_free(&b);
}

static void every_cut_is_told(void **state)
{
	struct buf b = BUF_INIT(0);
	struct mbox *back;
	struct err err = ERR_INIT;
	size_t len;

	seed = 9;
	there_and_back(1500, wild, &b);
	for (len = 0; len < b.len; len += 1 + len / 50) {
		back = mbox_new();
		assert_int_equal(mbox_decode(back, b.data, len, &err), ERR_CORRUPT);
		mbox_free(&back);
	}
	buf_put8(&b, 0);
	back = mbox_new();
	assert_int_equal(mbox_decode(back, b.data, b.len, &err), ERR_CORRUPT);
	mbox_free(&back);
	buf_free(&b);
}

static void numbers_too_large_for_a_field_are_told(void **state)
{
	struct mbox *m = box(3, like_mail), *back = mbox_new();
	struct buf b = BUF_INIT(0);
	struct err err = ERR_INIT;
	size_t at;

	mbox_encode(m, &b);
	/* the first column is UID: 1 byte how, 8 bytes base right behind the count */
	for (at = 8; at < b.len; at++)
		if (b.data[at - 8] == 3 && !memcmp(b.data + at - 7, "\0\0\0\0\0\0\0", 7) && b.data[at] == COLUMN_STEPS)
			break;
	assert_true(at < b.len);
	b.data[at + 1 + 4] = 1;		/* base + 2^32 */
	assert_int_equal(mbox_decode(back, b.data, b.len, &err), ERR_CORRUPT);
	mbox_free(&m);
	mbox_free(&back);
	buf_free(&b);
}

/* A snapshot of version 1, made here as format.md says. */
static void version_1_is_read(void **state)
{
	struct mbox *m, *back = mbox_new();
	struct buf b = BUF_INIT(0);
	struct err err = ERR_INIT;
	size_t i;

	seed = 3;
	m = box(700, wild);
	buf_adds(&b, "CULI");
	buf_put8(&b, 1);
	buf_add(&b, m->guid.b, sizeof(m->guid.b));
	buf_put32(&b, 7);
	buf_put32(&b, UINT32_MAX);
	buf_put64(&b, 99);
	for (i = 0; i < 16; i++)
		buf_put64(&b, 0);
	buf_put64(&b, 0);
	buf_putv(&b, 0);
	buf_putv(&b, 0);
	buf_put64(&b, m->n);
	buf_add(&b, m->msgs, (size_t)m->n * 80);
	assert_int_equal(mbox_decode(back, b.data, b.len, &err), 0);
	assert_int_equal(back->n, m->n);
	assert_memory_equal(back->msgs, m->msgs, (size_t)m->n * 80);
	mbox_free(&m);
	mbox_free(&back);
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_goes_in_comes_out),
		cmocka_unit_test(a_message_costs_few_bytes),
		cmocka_unit_test(every_cut_is_told),
		cmocka_unit_test(numbers_too_large_for_a_field_are_told),
		cmocka_unit_test(version_1_is_read),
	};

	return cmocka_run_group_tests_name("columns of a mailbox snapshot", tests, NULL, NULL);
}
