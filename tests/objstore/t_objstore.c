/* One contract, every driver: posix, memory, a fault wrapper that does nothing, S3 and sproxyd with their test servers,
 * libs3 with a store that knows Signature V2 only.
 * What a store says that it cannot do (its capabilities) is then refused, in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "objstore/objstore.h"
#include "objstore/probe.h"
#include "tests/objstore/sproxydfix.h"

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static struct s3fix server;
static struct sproxydfix ring;

struct fix {
	char dir[64];
	struct objstore *s;
	struct err err;
};

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static struct fix *fix_new(void)
{
	struct fix *f = MEM_NEW(struct fix);

	snprintf(f->dir, sizeof(f->dir), "/tmp/t_objstore.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	return f;
}

static int setup_posix(void **state)
{
	struct fix *f = fix_new();

	*state = f;
	return objstore_posix_open(f->dir, &f->s, &f->err);
}

static int setup_mem(void **state)
{
	struct fix *f = fix_new();

	f->s = objstore_mem_new();
	*state = f;
	return 0;
}

static int setup_fault(void **state)
{
	struct objstore_faults none = { .fail_after = -1 };
	struct fix *f = fix_new();

	f->s = objstore_fault_new(objstore_mem_new(), &none);
	*state = f;
	return 0;
}

static int setup_s3(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct fix *f = fix_new();

	free(s3fix_ask(&server, "POST", "/-/odd", "{\"reset\": true, \"empty\": true}"));
	*state = f;
	return objstore_open(&set, &f->s, &f->err);
}

#ifdef HAVE_LIBS3
static int setup_libs3(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct fix *f = fix_new();

	set.driver = "libs3";
	free(s3fix_ask(&server, "POST", "/-/odd", "{\"reset\": true, \"empty\": true, \"v2_only\": true}"));
	*state = f;
	return objstore_open(&set, &f->s, &f->err);
}
#define LIBS3_TESTS CONTRACT(setup_libs3), cmocka_unit_test_setup_teardown(many_are_deleted_at_once, setup_libs3, teardown),
#else
#define LIBS3_TESTS
#endif

static int setup_ring(void **state, const char *profile, const char *odd)
{
	struct objstore_settings set = sproxydfix_settings(&ring, profile, SPROXYD_CONNECTORS);
	struct fix *f = fix_new();

	sproxydfix_odd(&ring, odd);
	*state = f;
	return objstore_open(&set, &f->s, &f->err);
}

static int setup_sproxyd(void **state)
{
	return setup_ring(state, "chord", "");
}

static int setup_sproxyd_arc(void **state)
{
	return setup_ring(state, "arc", "");
}

static int setup_sproxyd_path(void **state)
{
	return setup_ring(state, "bpchord", "");
}

/* All that a ring does on a bad day, at once. */
static int setup_sproxyd_odd(void **state)
{
	return setup_ring(state, "chord", "\"locked_ms\": 60, \"lag_ms\": 200, \"split_threshold\": 8, \"ghosts\": true, \"dead\": [1], "
		"\"ring_error\": {\"every\": 7}, \"error\": {\"every\": 11}, \"error_after\": {\"every\": 13, \"method\": \"PUT\", \"status\": 503}, "
		"\"drop_after\": {\"every\": 9, \"method\": \"PUT\"}, \"drop_before\": {\"every\": 17}, \"truncate\": {\"every\": 5}, "
		"\"slow\": {\"every\": 19, \"seconds\": 0.05}, \"locked\": {\"every\": 6}");
}

static int teardown(void **state)
{
	struct fix *f = *state;

	objstore_close(&f->s);
	nftw(f->dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void what_is_put_is_got(void **state)
{
	struct fix *f = *state;
	struct buf b = BUF_INIT(0);
	char etag[OBJ_ETAG_MAX] = "", etag2[OBJ_ETAG_MAX];
	uint64_t size;

	assert_int_equal(objstore_put(f->s, "a/b/c", "hello", 5, OBJ_CREATE, etag, &f->err), 0);
	assert_true(etag[0]);
	assert_int_equal(objstore_get(f->s, "a/b/c", &b, etag2, &f->err), 0);
	assert_int_equal(b.len, 5);
	assert_memory_equal(b.data, "hello", 5);
	assert_string_equal(etag, etag2);
	buf_clear(&b);
	assert_int_equal(objstore_get_range(f->s, "a/b/c", 1, 3, &b, &size, &f->err), 0);
	assert_int_equal(size, 5);
	assert_memory_equal(b.data, "ell", 3);
	buf_clear(&b);
	assert_int_equal(objstore_get_range(f->s, "a/b/c", 3, 100, &b, NULL, &f->err), 0);
	assert_int_equal(b.len, 2);
	buf_clear(&b);
	assert_int_equal(objstore_get_range(f->s, "a/b/c", 99, 1, &b, NULL, &f->err), 0);
	assert_int_equal(b.len, 0);
	assert_int_equal(objstore_head(f->s, "a/b/c", &size, &f->err), 1);
	assert_int_equal(objstore_head(f->s, "a/b", &size, &f->err), 0);
	assert_int_equal(objstore_head(f->s, "a/x", &size, &f->err), 0);
	assert_int_equal(objstore_get(f->s, "a/x", &b, NULL, NULL), ERR_NOTFOUND);
	assert_int_equal(objstore_put(f->s, "empty", "", 0, OBJ_ANY, NULL, &f->err), 0);
	assert_int_equal(objstore_head(f->s, "empty", &size, &f->err), 1);
	assert_int_equal(size, 0);
	buf_free(&b);
}

static void an_object_larger_than_expected_is_refused(void **state)
{
	struct fix *f = *state;
	struct buf b = BUF_INIT(10);

	assert_int_equal(objstore_put(f->s, "big", "0123456789abcdef", 16, OBJ_CREATE, NULL, &f->err), 0);
	assert_int_equal(objstore_get(f->s, "big", &b, NULL, NULL), ERR_LIMIT);
	buf_free(&b);
}

static void conditions_hold(void **state)
{
	struct fix *f = *state;
	char etag[OBJ_ETAG_MAX], old[OBJ_ETAG_MAX];
	struct buf b = BUF_INIT(0);

	assert_int_equal(objstore_put(f->s, "k", "1", 1, OBJ_CREATE, etag, &f->err), 0);
	assert_int_equal(objstore_put(f->s, "k", "2", 1, OBJ_CREATE, NULL, NULL), ERR_EXISTS);
	memcpy(old, etag, sizeof(old));
	if (!(f->s->caps & OBJ_CAP_MATCH)) {
		assert_int_equal(objstore_put(f->s, "k", "3", 1, OBJ_MATCH, etag, &f->err), ERR_INVALID);
		assert_non_null(strstr(f->err.msg, "no compare-and-swap"));
		err_clear(&f->err);
		assert_int_equal(objstore_put(f->s, "k", "3", 1, OBJ_ANY, etag, &f->err), 0);
		assert_string_not_equal(old, etag);
		goto unconditional;
	}
	assert_int_equal(objstore_put(f->s, "k", "3", 1, OBJ_MATCH, etag, &f->err), 0);
	assert_string_not_equal(old, etag);
	assert_int_equal(objstore_put(f->s, "k", "4", 1, OBJ_MATCH, old, NULL), ERR_CONFLICT);
	assert_int_equal(objstore_put(f->s, "gone", "4", 1, OBJ_MATCH, old, NULL), ERR_CONFLICT);
	assert_int_equal(objstore_put(f->s, "k", "5", 1, OBJ_ANY, NULL, &f->err), 0);
	assert_int_equal(objstore_put(f->s, "k", "6", 1, OBJ_MATCH, etag, NULL), ERR_CONFLICT);
unconditional:
	assert_int_equal(objstore_put(f->s, "k", "5", 1, OBJ_ANY, NULL, &f->err), 0);
	assert_int_equal(objstore_get(f->s, "k", &b, NULL, &f->err), 0);
	assert_memory_equal(b.data, "5", 1);
	assert_int_equal(objstore_delete(f->s, "k", &f->err), 0);
	assert_int_equal(objstore_delete(f->s, "k", &f->err), 0);
	assert_int_equal(objstore_put(f->s, "k", "7", 1, OBJ_CREATE, NULL, &f->err), 0);
	buf_free(&b);
}

static void bad_keys_are_refused(void **state)
{
	static const char *const bad[] = { "", "/a", "a/", "a//b", "..", "a/../b", ".", "a\n", "a b", "\xc3\xa9" };
	struct fix *f = *state;
	size_t i;

	for (i = 0; i < MEM_COUNT(bad); i++)
		assert_int_equal(objstore_put(f->s, bad[i], "", 0, OBJ_ANY, NULL, NULL), ERR_INVALID);
}


static int see(void *ctx, const struct objstore_list_item *item)
{
	struct buf *b = ctx;

	buf_addf(b, "%s ", item->key);
	return 0;
}

static void lists_are_in_key_order(void **state)
{
	static const char *const keys[] = { "p/b/2", "p/a", "p/b.x", "p/b/1", "q/z", "p/b-", "p/c/d/e" };
	struct fix *f = *state;
	struct buf b = BUF_INIT(0);
	struct objstore_list_item *items;
	size_t i, n;

	if (!(f->s->caps & OBJ_CAP_LIST)) {
		assert_int_equal(objstore_each(f->s, "p/", see, &b, &f->err), ERR_INVALID);
		assert_non_null(strstr(f->err.msg, "cannot list"));
		assert_int_equal(objstore_list(f->s, "", NULL, 0, &items, &n, NULL), ERR_INVALID);
		assert_true(!items && !n);
		return;
	}
	for (i = 0; i < MEM_COUNT(keys); i++)
		assert_int_equal(objstore_put(f->s, keys[i], "", 0, OBJ_CREATE, NULL, &f->err), 0);
	assert_int_equal(objstore_each(f->s, "p/", see, &b, &f->err), 0);
	assert_string_equal(buf_str(&b), "p/a p/b- p/b.x p/b/1 p/b/2 p/c/d/e ");
	buf_clear(&b);
	assert_int_equal(objstore_each(f->s, "p/b", see, &b, &f->err), 0);
	assert_string_equal(buf_str(&b), "p/b- p/b.x p/b/1 p/b/2 ");
	assert_int_equal(objstore_list(f->s, "", "p/b/1", 2, &items, &n, &f->err), 0);
	assert_int_equal(n, 2);
	assert_string_equal(items[0].key, "p/b/2");
	assert_string_equal(items[1].key, "p/c/d/e");
	objstore_items_free(items, n);
	buf_free(&b);
}

struct racer { struct fix *f; int won; int swaps; };

static void *race(void *p)
{
	struct racer *r = p;
	char etag[OBJ_ETAG_MAX], value[32];
	int i;

	r->won = objstore_put(r->f->s, "race", "0", 1, OBJ_CREATE, NULL, NULL) == 0;
	for (i = 0; i < 50 && r->f->s->caps & OBJ_CAP_MATCH;) {
		struct buf b = BUF_INIT(0);

		if (objstore_get(r->f->s, "race", &b, etag, NULL) == 0) {
			snprintf(value, sizeof(value), "%ld", strtol(buf_str(&b), NULL, 10) + 1);
			if (objstore_put(r->f->s, "race", value, strlen(value), OBJ_MATCH, etag, NULL) == 0)
				i++;
		}
		buf_free(&b);
	}
	return NULL;
}

static void racing_writers_have_one_winner_a_round(void **state)
{
	struct fix *f = *state;
	struct racer r[8];
	struct buf b = BUF_INIT(0);
	pthread_t t[8];
	int i, won = 0;

	for (i = 0; i < 8; i++) {
		r[i] = (struct racer){ f, 0, 0 };
		pthread_create(&t[i], NULL, race, &r[i]);
	}
	for (i = 0; i < 8; i++) {
		pthread_join(t[i], NULL);
		won += r[i].won;
	}
	assert_true(won == 1 || (won > 1 && !(f->s->caps & OBJ_CAP_CREATE)));
	assert_int_equal(objstore_get(f->s, "race", &b, NULL, &f->err), 0);
	assert_string_equal(buf_str(&b), f->s->caps & OBJ_CAP_MATCH ? "400" : "0");	/* no increment was lost */
	buf_free(&b);
}

static void many_are_deleted_at_once(void **state)
{
	static const char *const keys[] = { "d/1", "d/2", "d/none", "d/3" };
	struct fix *f = *state;
	struct objstore_list_item *items;
	size_t i, n;

	for (i = 0; i < MEM_COUNT(keys); i++)
		if (i != 2)
			assert_int_equal(objstore_put(f->s, keys[i], "x", 1, OBJ_CREATE, NULL, &f->err), 0);
	assert_int_equal(objstore_put(f->s, "d/kept", "x", 1, OBJ_CREATE, NULL, &f->err), 0);
	assert_int_equal(objstore_delete_many(f->s, keys, MEM_COUNT(keys), &f->err), 0);
	for (i = 0; i < MEM_COUNT(keys); i++)
		assert_int_equal(objstore_head(f->s, keys[i], NULL, &f->err), 0);
	assert_int_equal(objstore_head(f->s, "d/kept", NULL, &f->err), 1);
	if (!(f->s->caps & OBJ_CAP_LIST))
		return;
	assert_int_equal(objstore_list(f->s, "d/", NULL, 0, &items, &n, &f->err), 0);
	assert_int_equal(n, 1);
	assert_string_equal(items[0].key, "d/kept");
	objstore_items_free(items, n);
}

static void processes_swap_without_losing_one(void **state)
{
	struct fix *f = *state;
	struct racer r = { f, 0, 0 };
	struct buf b = BUF_INIT(0);
	int i, st;

	for (i = 0; i < 4; i++) {
		if (fork() == 0) {
			struct fix own = { .s = NULL };

			r.f = &own;
			_exit(objstore_posix_open(f->dir, &own.s, &own.err) == 0 && race(&r) == NULL ? 0 : 1);
		}
	}
	for (i = 0; i < 4; i++) {
		assert_true(wait(&st) > 0);
		assert_int_equal(st, 0);
	}
	assert_int_equal(objstore_get(f->s, "race", &b, NULL, &f->err), 0);
	assert_string_equal(buf_str(&b), "200");
	buf_free(&b);
}

static void left_over_temporary_files_are_removed(void **state)
{
	struct fix *f = *state;
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/.culver/tmp/999999999.1", f->dir);	/* no such process */
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	objstore_close(&f->s);
	assert_int_equal(objstore_posix_open(f->dir, &f->s, &f->err), 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void lazy_puts_are_durable_after_sync_only(void **state)
{
	struct fix *f = *state;
	struct iovec iov = { (char *)(uintptr_t)"x", 1 };
	char key[16];
	int i, left = 0;

	for (i = 0; i < 40; i++) {
		snprintf(key, sizeof(key), "lazy/%d", i);
		assert_int_equal(objstore_put_lazy(f->s, key, &iov, 1, &f->err), 0);
		if (i == 19)
			assert_int_equal(objstore_sync(f->s, &f->err), 0);
	}
	objstore_mem_crash(f->s, 42);
	for (i = 0; i < 40; i++) {
		snprintf(key, sizeof(key), "lazy/%d", i);
		left += objstore_head(f->s, key, NULL, &f->err);
		if (i == 19)
			assert_int_equal(left, 20);
	}
	assert_true(left > 20 && left < 40);
}

static void faults_come_from_the_seed(void **state)
{
	struct fix *f = *state;
	struct objstore_faults faults = { .seed = 7, .error = 100, .lost_answer = 100, .late = 100, .throttle = 100, .fail_after = -1 };
	int round, i, outcome[2][200], kinds = 0, lost = 0;
	char key[32];

	for (round = 0; round < 2; round++) {
		objstore_fault_set(f->s, &faults);
		for (i = 0; i < 200; i++) {
			snprintf(key, sizeof(key), "r%d/%d", round, i);
			outcome[round][i] = objstore_put(f->s, key, "x", 1, OBJ_CREATE, NULL, NULL);
		}
	}
	for (i = 0; i < 200; i++)
		kinds |= 1 << -outcome[0][i];
	assert_memory_equal(outcome[0], outcome[1], sizeof(outcome[0]));
	assert_true(kinds & 1 << -ERR_UNAVAILABLE && kinds & 1 << -ERR_TIMEOUT && kinds & 1 << -ERR_BUSY && kinds & 1);
	faults = (struct objstore_faults){ .fail_after = -1 };
	objstore_fault_set(f->s, &faults);
	for (i = 0; i < 200; i++) {	/* a time-out says nothing: some of those are there */
		snprintf(key, sizeof(key), "r0/%d", i);
		if (outcome[0][i] == ERR_TIMEOUT)
			lost += objstore_head(f->s, key, NULL, NULL);
	}
	assert_true(lost > 0);
}

#define CONTRACT(setup) \
	cmocka_unit_test_setup_teardown(what_is_put_is_got, setup, teardown), \
	cmocka_unit_test_setup_teardown(an_object_larger_than_expected_is_refused, setup, teardown), \
	cmocka_unit_test_setup_teardown(conditions_hold, setup, teardown), \
	cmocka_unit_test_setup_teardown(bad_keys_are_refused, setup, teardown), \
	cmocka_unit_test_setup_teardown(lists_are_in_key_order, setup, teardown), \
	cmocka_unit_test_setup_teardown(racing_writers_have_one_winner_a_round, setup, teardown)

static void the_probe_does_not_blame_a_store_for_its_network(void **state)
{
	struct objstore_faults faults = { .error = 40, .lost_answer = 40, .late = 40, .throttle = 40, .fail_after = -1 };
	struct probe_result *r = MEM_NEW(struct probe_result);
	struct fix *f = *state;
	int i, c, ended = 0;

	for (i = 1; i <= 8; i++) {
		faults.seed = (uint64_t)i;
		objstore_fault_set(f->s, &faults);
		ended += probe_run(f->s, "faulty", 1, r, NULL) == 0;
		for (c = 0; c < PROBE_N; c++)
			if (r->state[c] == PROBE_FAILS)
				fail_msg("seed %d: %s: %s", i, probe_check_name((enum probe_check)c), r->text[c]);
	}
	assert_in_range(ended, 4, 8);
	free(r);
}

static void a_probe_that_is_cut_short_has_seen_what_it_has_seen(void **state)
{
	struct objstore_faults faults = { .ignore_cond = 1000, .fail_after = 3 };
	struct probe_result *r = MEM_NEW(struct probe_result);
	struct fix *f = *state;
	struct err err = ERR_INIT;

	objstore_fault_set(f->s, &faults);
	assert_int_equal(probe_run(f->s, "flawed", 1, r, &err), ERR_UNAVAILABLE);
	assert_int_equal(r->state[PROBE_CREATE], PROBE_FAILS);
	assert_int_equal(r->state[PROBE_READ], PROBE_NOT_TRIED);
	assert_int_equal(probe_fails(r, PROBE_FOR_MAIL, "mail_store", NULL), 0);
	assert_int_equal(probe_fails(r, PROBE_FOR_INDEX, "index_store", NULL), ERR_INVALID);
	faults.fail_after = 1;		/* nothing seen */
	objstore_fault_set(f->s, &faults);
	assert_int_equal(probe_run(f->s, "flawed", 1, r, NULL), ERR_UNAVAILABLE);
	assert_int_equal(probe_fails(r, PROBE_FOR_INDEX, "index_store", NULL), 0);
	assert_int_equal(probe_judge(r, PROBE_FOR_INDEX, "index_store", NULL), ERR_INVALID);
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONTRACT(setup_posix), CONTRACT(setup_mem), CONTRACT(setup_fault), CONTRACT(setup_s3),
		CONTRACT(setup_sproxyd), CONTRACT(setup_sproxyd_arc), CONTRACT(setup_sproxyd_path), CONTRACT(setup_sproxyd_odd),
		LIBS3_TESTS
		cmocka_unit_test_setup_teardown(many_are_deleted_at_once, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(many_are_deleted_at_once, setup_s3, teardown),
		cmocka_unit_test_setup_teardown(many_are_deleted_at_once, setup_sproxyd, teardown),
		cmocka_unit_test_setup_teardown(many_are_deleted_at_once, setup_sproxyd_path, teardown),
		cmocka_unit_test_setup_teardown(many_are_deleted_at_once, setup_sproxyd_odd, teardown),
		cmocka_unit_test_setup_teardown(processes_swap_without_losing_one, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(left_over_temporary_files_are_removed, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(lazy_puts_are_durable_after_sync_only, setup_mem, teardown),
		cmocka_unit_test_setup_teardown(faults_come_from_the_seed, setup_fault, teardown),
		cmocka_unit_test_setup_teardown(the_probe_does_not_blame_a_store_for_its_network, setup_fault, teardown),
		cmocka_unit_test_setup_teardown(a_probe_that_is_cut_short_has_seen_what_it_has_seen, setup_fault, teardown),
	};

	int rc;

	if (s3fix_start(&server, NULL) < 0 || sproxydfix_start(&ring) < 0)
		return 99;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	s3fix_stop(&server);
	sproxydfix_stop(&ring);
	return rc;
}
