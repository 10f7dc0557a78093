/* Reading messages from a store behind a network: what is asked for ahead is right, and costs few requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "obox/obox.h"
#include "objstore/objstore.h"

#include <ftw.h>
#include <pthread.h>
#include <unistd.h>

/* --- a store that answers GETs later, from a thread of its own, in any order --- */

struct far {
	struct objstore base;
	struct objstore *below;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct objstore_op **ops;
	size_t n, cap, most;		/* waiting; most of them at one time */
	bool end, hold;
	unsigned asked, fail, damage;	/* the next so many fail, or come with a byte changed unless they ask past caches */
	uint64_t bytes, dice;
	pthread_t thread;
};

static void carry_out(struct far *f, struct objstore_op *op)
{
	size_t had = op->out->len;
	bool fail, damage;

	pthread_mutex_lock(&f->lock);
	fail = f->fail && f->fail--;
	damage = !op->want_etag && f->damage && f->damage--;
	pthread_mutex_unlock(&f->lock);
	op->rc = fail ? err_set(&op->err, ERR_UNAVAILABLE, "far away") :
		objstore_get_range(f->below, op->key, op->off, op->len, op->out, &op->size, &op->err);
	if (op->rc == 0 && damage && op->out->len > had)
		op->out->data[op->out->len - 1] ^= 1;
	pthread_mutex_lock(&f->lock);
	f->bytes += op->out->len - had;
	pthread_mutex_unlock(&f->lock);
	op->done(op);
}

static void *answer(void *arg)
{
	struct far *f = arg;
	struct objstore_op *op;
	size_t i;

	pthread_mutex_lock(&f->lock);
	while (!f->end || f->n) {
		if (!f->n || f->hold) {
			pthread_cond_wait(&f->cond, &f->lock);
			continue;
		}
		f->dice = f->dice * 6364136223846793005u + 1442695040888963407u;
		i = (size_t)(f->dice >> 33) % f->n;
		op = f->ops[i];
		f->ops[i] = f->ops[--f->n];
		pthread_mutex_unlock(&f->lock);
		carry_out(f, op);
		pthread_mutex_lock(&f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void far_submit(struct objstore *s, struct objstore_op *op)
{
	struct far *f = (struct far *)s;

	if (op->verb != OBJ_GET || !strstr(op->key, "/m/")) {
		objstore_submit(f->below, op);
		return;
	}
	pthread_mutex_lock(&f->lock);
	f->asked++;
	mem_grow(&f->ops, &f->cap, f->n + 1, sizeof(*f->ops));
	f->ops[f->n++] = op;
	if (f->n > f->most)
		f->most = f->n;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

static void far_cancel(struct objstore *s, struct objstore_op *op)
{
	struct far *f = (struct far *)s;
	size_t i;

	pthread_mutex_lock(&f->lock);
	for (i = 0; i < f->n && f->ops[i] != op; i++)
		;
	if (i == f->n)
		op = NULL;
	else
		f->ops[i] = f->ops[--f->n];
	pthread_mutex_unlock(&f->lock);
	if (op) {
		op->rc = err_set(&op->err, ERR_TIMEOUT, "cancelled");
		op->done(op);
	}
}

static void far_close(struct objstore *s)
{
	struct far *f = (struct far *)s;

	pthread_mutex_lock(&f->lock);
	f->end = true;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
	pthread_join(f->thread, NULL);
	objstore_close(&f->below);
	free(f->ops);
	free(f);
}

static const struct objstore_ops far_ops = { .name = "far", .submit = far_submit, .cancel = far_cancel, .close = far_close };

static void far_hold(struct far *f, bool on)
{
	pthread_mutex_lock(&f->lock);
	f->hold = on;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

static void far_reset(struct far *f, unsigned fail, unsigned damage)
{
	pthread_mutex_lock(&f->lock);
	f->asked = 0;
	f->bytes = 0;
	f->most = 0;
	f->fail = fail;
	f->damage = damage;
	pthread_mutex_unlock(&f->lock);
}

/* --- messages --- */

struct fix {
	char dir[64];
	struct far *far;
	struct objstore *store;
	struct seal_keys *keys;
	struct obox *ob;
	struct obox_user *u;
	struct err err;
	struct obox_msg m;
};

static int setup(void **state)
{
	struct fix *f = MEM_NEW(struct fix);
	struct far *far = MEM_NEW(struct far);
	struct obox_config cfg = { .state_dir = f->dir, .prefix = "t", .node = "n1", .flag_commit_delay_ms = 1000, .grace_s = UINT64_MAX };

	log_set_level(LOG_ERROR + 1);
	snprintf(f->dir, sizeof(f->dir), "/tmp/t_body.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	far->below = objstore_mem_new();
	far->base = (struct objstore){ &far_ops, far->below->caps | OBJ_CAP_REMOTE };
	far->dice = 7;
	pthread_mutex_init(&far->lock, NULL);
	pthread_cond_init(&far->cond, NULL);
	if (pthread_create(&far->thread, NULL, answer, far) != 0)
		return -1;
	f->far = far;
	f->store = &far->base;
	f->keys = seal_keys_ephemeral();
	cfg.keys = f->keys;
	cfg.mail_store = cfg.index_store = f->store;
	if (obox_open(&cfg, &f->ob, &f->err) < 0 || obox_user_open(f->ob, "joe", &f->u, &f->err) < 0)
		return -1;
	*state = f;
	return 0;
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *w)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct fix *f = *state;

	far_hold(f->far, false);
	obox_user_close(&f->u);
	obox_close(&f->ob);
	objstore_close(&f->store);
	seal_keys_free(&f->keys);
	nftw(f->dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* A message of that size whose every byte can be told from its offset; it does not compress. */
static unsigned char byte_at(uint64_t off)
{
	uint64_t z = (off / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (unsigned char)((z >> (off % 8 * 8)) | 0x80);
}

static void save(struct fix *f, uint64_t size)
{
	struct obox_save s = { .idate = 1000 };
	unsigned char piece[4096];
	struct obox_view *v;
	uint64_t at;
	size_t i, n;

	assert_int_equal(obox_msgin_new(f->ob, &s.msg, &f->err), 0);
	for (at = 0; at < size; at += n) {
		n = size - at < sizeof(piece) ? (size_t)(size - at) : sizeof(piece);
		for (i = 0; i < n; i++)
			piece[i] = at + i < 2 ? "\r\n"[at + i] : byte_at(at + i);
		assert_int_equal(obox_msgin_write(s.msg, piece, n, &f->err), 0);
	}
	assert_int_equal(obox_msgin_finish(s.msg, &f->err), 0);
	assert_int_equal(obox_save(f->u, "INBOX", &s, 1, NULL, &f->err), 0);
	obox_msgin_free(&s.msg);
	assert_int_equal(obox_view_open(f->u, "INBOX", true, NULL, NULL, &v, &f->err), 0);
	assert_int_equal(obox_view_read(v, obox_view_count(v), &f->m, 1), 1);
	obox_view_close(&v);
}

static void expect_bytes(struct fix *f, struct obox_body *b, uint64_t off, uint64_t len, size_t step)
{
	unsigned char *got = mem_alloc(step + 1);
	uint64_t end = off + len;
	size_t i, n;

	for (; off < end; off += n) {
		n = end - off < step ? (size_t)(end - off) : step;
		if (obox_body_read(b, off, got, n, &f->err) < 0)
			fail_msg("read at %llu: %s", (unsigned long long)off, f->err.msg);
		for (i = 0; i < n; i++)
			if (got[i] != (off + i < 2 ? "\r\n"[off + i] : byte_at(off + i)))
				fail_msg("another byte at %llu", (unsigned long long)(off + i));
	}
	free(got);
}

/* --- tests --- */

static void whole_messages_of_any_size_come_back(void **state)
{
	static const uint64_t sizes[] = { 2, 100, 60000, 65536, 131072, 131073, 262144, 300000, 1000000, 5000001 };
	static const size_t steps[] = { 1000, 65536, 200000, 1 << 20 };
	struct fix *f = *state;
	struct obox_body *b;
	size_t i, k;

	for (i = 0; i < MEM_COUNT(sizes); i++) {
		save(f, sizes[i]);
		for (k = 0; k < MEM_COUNT(steps); k++) {
			b = obox_body_begin(f->u, &f->m, k % 2);
			assert_int_equal(obox_body_wait(&b, &f->err), 0);
			assert_int_equal(obox_body_size(b), sizes[i]);
			if (k > 1)
				obox_body_expect(b, 0, sizes[i]);
			expect_bytes(f, b, 0, sizes[i], steps[k]);
			obox_body_close(&b);
		}
	}
}

static void what_is_expected_comes_in_large_requests(void **state)
{
	struct fix *f = *state;
	struct obox_body *b;

	save(f, 20 << 20);
	far_reset(f->far, 0, 0);
	b = obox_body_begin(f->u, &f->m, true);
	assert_int_equal(obox_body_wait(&b, &f->err), 0);
	obox_body_expect(b, 0, 20 << 20);
	expect_bytes(f, b, 0, 20 << 20, 65536);
	obox_body_close(&b);
	print_message("# 20 MiB: %u requests\n", f->far->asked);
	assert_true(f->far->asked <= 60);
	assert_true(f->far->bytes < (21 << 20) + (1 << 18));
}

static void a_part_of_a_large_message_is_two_requests(void **state)
{
	struct fix *f = *state;
	uint64_t off = UINT64_C(30) << 20;
	struct obox_body *b;

	save(f, 50 << 20);
	for (; off < (UINT64_C(30) << 20) + 300000; off += 50000) {
		far_reset(f->far, 0, 0);
		assert_int_equal(obox_body_open(f->u, &f->m, &b, &f->err), 0);
		obox_body_expect(b, off, 65536);
		expect_bytes(f, b, off, 65536, 65536);
		obox_body_close(&b);
		assert_int_equal(f->far->asked, 2);
		assert_true(f->far->bytes < 400000);
	}
}

static void expectations_are_hints(void **state)
{
	struct fix *f = *state;
	struct obox_body *b;
	uint64_t off, dice = 1;
	int i;

	save(f, 3000000);
	assert_int_equal(obox_body_open(f->u, &f->m, &b, &f->err), 0);
	for (i = 0; i < 300; i++) {
		dice = dice * 6364136223846793005u + 1442695040888963407u;
		off = (dice >> 33) % 2900000;
		if (dice >> 20 & 1)
			obox_body_expect(b, (dice >> 40) % 4000000, (dice >> 10) % 5000000);
		expect_bytes(f, b, off, (dice >> 50) * 6 % 100000, 30000);
	}
	obox_body_close(&b);
}

static void many_are_on_their_way_at_once(void **state)
{
	struct obox_body *b[64];
	struct fix *f = *state;
	int i;

	save(f, 5000);
	far_hold(f->far, true);
	far_reset(f->far, 0, 0);
	for (i = 0; i < 64; i++)
		b[i] = obox_body_begin(f->u, &f->m, true);
	assert_int_equal(f->far->most, 64);
	for (i = 32; i < 64; i++)
		obox_body_close(&b[i]);		/* who does not want them any more does not wait for them */
	far_hold(f->far, false);
	for (i = 0; i < 32; i++) {
		assert_int_equal(obox_body_wait(&b[i], &f->err), 0);
		expect_bytes(f, b[i], 0, 5000, 5000);
		obox_body_close(&b[i]);
	}
	assert_int_equal(f->far->asked, 64);
}

static void a_failure_is_told_and_can_pass(void **state)
{
	unsigned char got[1000];
	struct fix *f = *state;
	struct obox_body *b;

	save(f, 3000000);
	far_reset(f->far, 1, 0);
	b = obox_body_begin(f->u, &f->m, false);
	assert_int_equal(obox_body_wait(&b, &f->err), ERR_UNAVAILABLE);
	assert_null(b);
	assert_int_equal(obox_body_open(f->u, &f->m, &b, &f->err), 0);
	far_reset(f->far, 1, 0);
	assert_int_equal(obox_body_read(b, 2000000, got, sizeof(got), &f->err), ERR_UNAVAILABLE);
	expect_bytes(f, b, 2000000, sizeof(got), sizeof(got));
	obox_body_close(&b);
}

static void damaged_bytes_are_asked_for_past_any_cache(void **state)
{
	struct fix *f = *state;
	struct obox_body *b;

	save(f, 100);
	far_reset(f->far, 0, 1);	/* the first read of a message that fits into it */
	assert_int_equal(obox_body_open(f->u, &f->m, &b, &f->err), 0);
	expect_bytes(f, b, 0, 100, 100);
	obox_body_close(&b);
	save(f, 3000000);
	assert_int_equal(obox_body_open(f->u, &f->m, &b, &f->err), 0);
	far_reset(f->far, 0, 3);	/* spans */
	obox_body_expect(b, 0, 3000000);
	expect_bytes(f, b, 0, 3000000, 65536);
	obox_body_close(&b);
	assert_int_equal(f->far->damage, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(whole_messages_of_any_size_come_back), T(what_is_expected_comes_in_large_requests), T(a_part_of_a_large_message_is_two_requests),
		T(expectations_are_hints), T(many_are_on_their_way_at_once), T(a_failure_is_told_and_can_pass), T(damaged_bytes_are_asked_for_past_any_cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
