/* Many at once: one fetch for all, waits that end early, and bytes that stay right among threads. */
#include "tests/fscache/fix.h"

#include <unistd.h>

enum { READERS = 16 };

struct call {
	struct objstore_op op;
	struct buf out;
	char key[OBJ_KEY_MAX];
	_Atomic int over;
};

static void called(struct objstore_op *op)
{
	struct call *c = op->ctx;

	c->over++;
}

static void call(struct objstore *s, struct call *c, unsigned n, uint64_t off, uint64_t len, int64_t deadline)
{
	*c = (struct call){ .over = 0 };
	buf_init(&c->out, 0);
	mail_key(c->key, "joe", n);
	c->op = (struct objstore_op){ .verb = OBJ_GET, .key = c->key, .off = off, .len = len, .out = &c->out, .deadline_us = deadline, .done = called, .ctx = c };
	objstore_submit(s, &c->op);
}

static void await(struct call *c)
{
	while (!c->over)
		usleep(100);
	assert_int_equal(c->over, 1);
}

static void right(struct call *c, uint64_t off, size_t len)
{
	unsigned char *want = mem_realloc(NULL, len + 1);

	await(c);
	assert_int_equal(c->op.rc, 0);
	mail_fill(c->key, off, want, len);
	assert_int_equal(c->out.len, len);
	assert_memory_equal(c->out.data, want, len);
	free(want);
	buf_free(&c->out);
}

static void misses_of_one_object_share_a_fetch(void **state)
{
	struct fix *f = *state;
	struct call c[READERS];
	struct fscache_stats st;
	int i;

	fix_open(f, 8 * MIB);
	mail_put(f, "joe", 1, 50000);
	probe_hold(f->probe, true);
	for (i = 0; i < READERS; i++)
		call(f->s, &c[i], 1, (uint64_t)i * 1000, 0, 0);
	assert_int_equal(f->probe->n_get, 1);
	probe_hold(f->probe, false);
	for (i = 0; i < READERS; i++)
		right(&c[i], (uint64_t)i * 1000, 50000 - (size_t)i * 1000);
	assert_int_equal(f->probe->n_get, 1);
	fscache_stats(f->s, &st);
	assert_int_equal(st.shared, READERS - 1);
}

static void overlapping_misses_fetch_each_block_once(void **state)
{
	struct fix *f = *state;
	static const struct { uint64_t from, n; } r[] = { { 10, 5 }, { 12, 10 }, { 8, 4 }, { 0, 40 }, { 14, 2 }, { 30, 20 } };
	struct call c[MEM_COUNT(r)];
	size_t i;

	fix_open(f, 32 * MIB);
	mail_put(f, "joe", 1, 60 * 32768);
	probe_hold(f->probe, true);
	for (i = 0; i < MEM_COUNT(r); i++)
		call(f->s, &c[i], 1, r[i].from * 32768, r[i].n * 32768, 0);
	probe_hold(f->probe, false);
	for (i = 0; i < MEM_COUNT(r); i++)
		right(&c[i], r[i].from * 32768, (size_t)r[i].n * 32768);
	assert_int_equal(f->probe->bytes, 50 * 32768);
}

static void a_failure_is_everybodys_and_the_next_tries_again(void **state)
{
	struct fix *f = *state;
	struct call c[READERS];
	int i;

	fix_open(f, 8 * MIB);
	probe_hold(f->probe, true);
	for (i = 0; i < READERS; i++)
		call(f->s, &c[i], 1, 0, 0, 0);
	probe_hold(f->probe, false);
	for (i = 0; i < READERS; i++) {
		await(&c[i]);
		assert_int_equal(c[i].op.rc, ERR_NOTFOUND);
	}
	assert_int_equal(f->probe->n_get, 1);
	mail_put(f, "joe", 1, 500);
	assert_int_equal(mail_check(f->s, "joe", 1, 500, 0, 0), 0);
}

static void a_cancelled_wait_ends_and_the_others_go_on(void **state)
{
	struct fix *f = *state;
	struct call c[3];

	fix_open(f, 8 * MIB);
	mail_put(f, "joe", 1, 500);
	probe_hold(f->probe, true);
	call(f->s, &c[0], 1, 0, 0, 0);
	call(f->s, &c[1], 1, 0, 0, 0);
	call(f->s, &c[2], 1, 0, 0, 0);
	objstore_cancel(f->s, &c[0].op);	/* the one who asked the store */
	await(&c[0]);
	assert_int_equal(c[0].op.rc, ERR_TIMEOUT);
	objstore_cancel(f->s, &c[2].op);
	await(&c[2]);
	assert_int_equal(c[2].op.rc, ERR_TIMEOUT);
	probe_hold(f->probe, false);
	right(&c[1], 0, 500);
	assert_int_equal(f->probe->n_get, 1);
}

static void the_last_one_to_cancel_cancels_the_fetch(void **state)
{
	struct fix *f = *state;
	struct call c;

	fix_open(f, 8 * MIB);
	mail_put(f, "joe", 1, 500);
	probe_hold(f->probe, true);
	call(f->s, &c, 1, 0, 0, 0);
	objstore_cancel(f->s, &c.op);
	await(&c);
	assert_int_equal(c.op.rc, ERR_TIMEOUT);
	assert_null(f->probe->list);		/* it is not held any more */
	probe_hold(f->probe, false);
	assert_int_equal(mail_check(f->s, "joe", 1, 500, 0, 0), 0);
}

static void a_wait_has_its_own_deadline(void **state)
{
	struct fix *f = *state;
	int64_t now = clock_mono_us(&clock_system);
	struct call c[3];

	fix_open(f, 8 * MIB);
	mail_put(f, "joe", 1, 500);
	probe_hold(f->probe, true);
	call(f->s, &c[0], 1, 0, 0, 0);
	call(f->s, &c[1], 1, 0, 0, now + 60000000);
	call(f->s, &c[2], 1, 0, 0, now + 50000);
	await(&c[2]);
	assert_int_equal(c[2].op.rc, ERR_TIMEOUT);
	assert_true(clock_mono_us(&clock_system) >= now + 50000);
	assert_int_equal(c[0].over + c[1].over, 0);
	probe_hold(f->probe, false);
	right(&c[0], 0, 500);
	right(&c[1], 0, 500);
}

/* The fetch was cancelled with the time of the one who asked; who joined has time left. */
static void anothers_deadline_is_not_mine(void **state)
{
	struct fix *f = *state;
	struct call c[2];

	fix_open(f, 8 * MIB);
	mail_put(f, "joe", 1, 500);
	probe_hold(f->probe, true);
	call(f->s, &c[0], 1, 0, 0, 0);
	call(f->s, &c[1], 1, 0, 0, 0);
	objstore_cancel(&f->probe->base, f->probe->list->op);	/* as the store would at its deadline */
	await(&c[0]);
	assert_int_equal(c[0].op.rc, ERR_TIMEOUT);
	probe_hold(f->probe, false);
	right(&c[1], 0, 500);
	assert_int_equal(f->probe->n_get, 2);
}

static void a_fetch_that_a_delete_overtakes_is_not_kept(void **state)
{
	struct fix *f = *state;
	struct call c;

	fix_open(f, 8 * MIB);
	mail_put(f, "joe", 1, 500);
	probe_hold(f->probe, true);
	call(f->s, &c, 1, 0, 0, 0);
	mail_put(f, "joe", 2, 500);
	objstore_cancel(f->s, NULL);
	fscache_forget(f->s, c.key);
	probe_hold(f->probe, false);
	right(&c, 0, 500);
	fscache_flush(f->s);
	assert_int_equal(objstore_delete(f->s, c.key, &f->err), 0);
	assert_int_equal(mail_check(f->s, "joe", 1, 500, 0, 0), ERR_NOTFOUND);
}

/* --- threads --- */

enum { THREADS = 8, OBJECTS = 400, ROUNDS = 3000 };

struct crowd {
	struct fix *f;
	_Atomic unsigned char there[OBJECTS];	/* 1: put and not deleted; 2: being deleted; 0: gone or not yet */
	pthread_rwlock_t lock[OBJECTS];
	unsigned seed;
	_Atomic uint64_t reads;
};
struct member {
	struct crowd *c;
	unsigned no;
};

static size_t size_of(unsigned n)
{
	return 1 + (size_t)n * n * 7 % 200000;
}

static unsigned roll(uint64_t *x)
{
	*x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(*x >> 33);
}

static void create(struct crowd *c, unsigned n)
{
	char key[OBJ_KEY_MAX];
	unsigned char *data = mem_realloc(NULL, size_of(n));
	struct err err = ERR_INIT;

	mail_key(key, n % 2 ? "ann" : "bob", n);
	mail_fill(key, 0, data, size_of(n));
	if (objstore_put(c->f->s, key, data, size_of(n), OBJ_CREATE, NULL, &err) < 0)
		abort();
	free(data);
}

static void step(struct crowd *c, uint64_t *x)
{
	unsigned n = roll(x) % OBJECTS, what = roll(x) % 100;
	const char *owner = n % 2 ? "ann" : "bob";
	char key[OBJ_KEY_MAX];
	int rc;

	mail_key(key, owner, n);
	if (what < 3) {
		pthread_rwlock_wrlock(&c->lock[n]);
		if (c->there[n]) {
			if (objstore_delete(c->f->s, key, NULL) < 0)
				abort();
		} else {
			create(c, n);
		}
		c->there[n] = !c->there[n];
		pthread_rwlock_unlock(&c->lock[n]);
	} else if (what == 3) {
		fscache_forget(c->f->s, key);
	} else {
		uint64_t off = roll(x) % size_of(n), len = roll(x) % 3 ? 0 : 1 + roll(x) % 140000;

		pthread_rwlock_rdlock(&c->lock[n]);
		rc = mail_check(c->f->s, owner, n, size_of(n), what % 2 ? 0 : off, len);
		if (rc != (c->there[n] ? 0 : ERR_NOTFOUND))
			abort();
		pthread_rwlock_unlock(&c->lock[n]);
		c->reads++;
	}
}

static void *member(void *arg)
{
	struct member *m = arg;
	uint64_t x = m->c->seed * 1000 + m->no;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		step(m->c, &x);
		if (m->no == 0 && i % 500 == 250)
			fscache_flush(m->c->f->s);
		if (m->no == 0 && i == ROUNDS / 2 && fscache_clean(m->c->f->s, NULL) < 0)
			abort();
	}
	return NULL;
}

static void a_crowd_reads_what_the_store_has(void **state)
{
	struct fix *f = *state;
	struct crowd *c = MEM_NEW(struct crowd);
	struct member m[THREADS];
	pthread_t t[THREADS];
	struct fscache_stats st;
	unsigned i;

	fix_open(f, 4 * MIB);		/* a tenth of what there is */
	c->f = f;
	c->seed = 1;
	for (i = 0; i < OBJECTS; i++)
		pthread_rwlock_init(&c->lock[i], NULL);
	for (i = 0; i < THREADS; i++) {
		m[i] = (struct member){ c, i };
		assert_int_equal(pthread_create(&t[i], NULL, member, &m[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	fscache_stats(f->s, &st);
	assert_true(st.hits > 0 && st.misses > 0 && st.evicted > 0);
	assert_int_equal(st.corrupt + st.io_errors + st.stale, 0);
	for (i = 0; i < OBJECTS; i++)
		pthread_rwlock_destroy(&c->lock[i]);
	free(c);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fix_setup, fix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(misses_of_one_object_share_a_fetch), T(overlapping_misses_fetch_each_block_once), T(a_failure_is_everybodys_and_the_next_tries_again),
		T(a_cancelled_wait_ends_and_the_others_go_on), T(the_last_one_to_cancel_cancels_the_fetch), T(a_wait_has_its_own_deadline),
		T(anothers_deadline_is_not_mine), T(a_fetch_that_a_delete_overtakes_is_not_kept), T(a_crowd_reads_what_the_store_has),
	};

	return cmocka_run_group_tests_name("flights", tests, NULL, NULL);
}
