/* The driver on libs3, against a store that knows Signature V2 only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "objstore/probe.h"
#include "tests/objstore/s3fix.h"

#include <pthread.h>

static struct s3fix server;

static struct objstore *open_store(const char *odd, uint64_t timeout_ms, uint64_t attempt_ms)
{
	struct objstore_settings set = s3fix_settings(&server);
	char *body = mem_printf("{\"reset\": true, \"empty\": true, \"v2_only\": true%s%s}", *odd ? ", " : "", odd);
	struct err err = ERR_INIT;
	struct objstore *s;

	free(s3fix_ask(&server, "POST", "/-/odd", body));
	free(body);
	set.driver = "libs3";
	set.timeout_ms = timeout_ms;
	set.attempt_timeout_ms = attempt_ms;
	if (objstore_open(&set, &s, &err) < 0)
		fail_msg("%s", err.msg);
	return s;
}

static int put(struct objstore *s, const char *key, const char *text, struct err *err)
{
	return objstore_put(s, key, text, strlen(text), OBJ_CREATE, NULL, err);
}

static void assert_reads(struct objstore *s, const char *key, const char *text)
{
	struct buf b = BUF_INIT(1 << 24);
	struct err err = ERR_INIT;

	if (objstore_get(s, key, &b, NULL, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(b.len, strlen(text));
	assert_memory_equal(b.data, text, b.len);
	buf_free(&b);
}

static void requests_are_signed_the_old_way(void **state)
{
	struct objstore *s = open_store("", 5000, 2000);
	struct err err = ERR_INIT;

	assert_int_equal(put(s, "dir/a+b=c@d%e.f", "x", &err), 0);	/* names are encoded once, and signed as sent */
	assert_reads(s, "dir/a+b=c@d%e.f", "x");
	assert_int_equal(s3fix_seen(&server, "\"method\": "), 4);	/* two are the put's looks */
	assert_true(s3fix_seen(&server, "\"AWS AKIDTEST:") >= 4);
	assert_int_equal(s3fix_seen(&server, "content-md5"), 2);	/* sent, and kept with the object */
	objstore_close(&s);
}

static void large_bodies_come_and_go_whole(void **state)
{
	struct objstore *s = open_store("", 20000, 10000);
	char *big = mem_alloc(5000001);
	struct iovec iov[3];
	struct err err = ERR_INIT;
	struct buf b = BUF_INIT(0);
	uint64_t size = 0;
	size_t i;

	for (i = 0; i < 5000000; i++)
		big[i] = (char)('a' + i * 7919 % 26);
	assert_int_equal(objstore_put(s, "big", big, 5000000, OBJ_ANY, NULL, &err), 0);
	assert_reads(s, "big", big);
	assert_int_equal(objstore_get_range(s, "big", 4999990, 100, &b, &size, &err), 0);
	assert_int_equal(b.len, 10);
	assert_int_equal(size, 5000000);
	iov[0] = (struct iovec){ big, 3 };	/* pieces of any size */
	iov[1] = (struct iovec){ NULL, 0 };
	iov[2] = (struct iovec){ big + 3, 4999997 };
	assert_int_equal(objstore_put_lazy(s, "pieces", iov, 3, &err), 0);
	assert_reads(s, "pieces", big);
	buf_free(&b);
	free(big);
	objstore_close(&s);
}

static void bad_moments_are_outlasted(void **state)
{
	static const char *const odds[] = { "\"throttle\": {\"n\": 2}", "\"error\": {\"n\": 2}", "\"drop_before\": {\"n\": 2}", "\"drop_after\": {\"n\": 2}",
		"\"truncate\": {\"n\": 1}", "\"slow\": {\"seconds\": 1.5, \"n\": 1}" };
	size_t i;

	for (i = 0; i < MEM_COUNT(odds); i++) {
		struct objstore *s = open_store(odds[i], 15000, 800);
		struct err err = ERR_INIT;

		if (put(s, "moment", "0123456789", &err) < 0)
			fail_msg("%s: %s", odds[i], err.msg);
		assert_reads(s, "moment", "0123456789");
		assert_int_equal(objstore_delete(s, "moment", &err), 0);
		assert_int_equal(objstore_head(s, "moment", NULL, &err), 0);
		objstore_close(&s);
	}
}

/* libs3 takes either for a success or a failure of its own making. */
static void the_word_of_libs3_on_puts_is_not_taken(void **state)
{
	struct objstore *s = open_store("\"no_continue\": true", 5000, 3000);
	struct err err = ERR_INIT;

	assert_int_equal(put(s, "late", "stored", &err), 0);	/* "connection failed" */
	assert_reads(s, "late", "stored");
	objstore_close(&s);
	s = open_store("\"error\": {\"method\": \"PUT\", \"silent\": true}", 2000, 1000);
	assert_true(put(s, "lost", "not stored", &err) < 0);	/* "OK" */
	objstore_close(&s);
}

static void a_store_that_stays_away_ends_in_time(void **state)
{
	struct objstore *s = open_store("\"slow\": {\"seconds\": 20}", 1500, 600);
	int64_t t = clock_mono_us(&clock_system);
	struct err err = ERR_INIT;
	struct buf b = BUF_INIT(0);

	assert_int_equal(objstore_get(s, "x", &b, NULL, &err), ERR_TIMEOUT);
	assert_int_equal(objstore_put(s, "x", "x", 1, OBJ_ANY, NULL, &err), ERR_TIMEOUT);
	assert_true(clock_mono_us(&clock_system) - t < 5000000);
	buf_free(&b);
	objstore_close(&s);
}

static void errors_have_their_class(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct objstore *s = open_store("", 5000, 2000), *other;
	struct err err = ERR_INIT;
	struct buf b = BUF_INIT(0);

	assert_int_equal(objstore_get(s, "absent", &b, NULL, NULL), ERR_NOTFOUND);
	assert_int_equal(objstore_copy(s, "absent", "to", NULL), ERR_NOTFOUND);
	assert_int_equal(objstore_delete(s, "absent", &err), 0);
	assert_int_equal(objstore_put(s, "k", "x", 1, OBJ_MATCH, (char[OBJ_ETAG_MAX]){ "\"x\"" }, NULL), ERR_INVALID);
	set.driver = "libs3";
	set.secret_key = "wrong";
	assert_int_equal(objstore_open(&set, &other, &err), 0);
	assert_int_equal(objstore_get(other, "absent", &b, NULL, &err), ERR_DENIED);
	objstore_close(&other);
	err_clear(&err);
	set.bucket = NULL;
	assert_int_equal(objstore_open(&set, &other, &err), ERR_INVALID);
	err_clear(&err);
	set.bucket = "testbucket";
	set.endpoint = "ftp://x";
	assert_int_equal(objstore_open(&set, &other, &err), ERR_INVALID);
	buf_free(&b);
	objstore_close(&s);
}

static void copies_are_made_by_the_store(void **state)
{
	struct objstore *s = open_store("", 5000, 2000);
	struct err err = ERR_INIT;

	assert_int_equal(put(s, "from", "copied", &err), 0);
	assert_int_equal(objstore_copy(s, "from", "to", &err), 0);
	assert_reads(s, "to", "copied");
	objstore_close(&s);
}

static void the_probe_takes_it_for_mail_and_refuses_it_as_index(void **state)
{
	struct probe_result *r = MEM_NEW(struct probe_result);
	struct objstore *s = open_store("", 5000, 2000);
	struct err err = ERR_INIT;

	assert_int_equal(probe_run(s, "old", 2, r, &err), 0);
	assert_int_equal(r->caps & (OBJ_CAP_MATCH | OBJ_CAP_RANGE | OBJ_CAP_LIST | OBJ_CAP_COPY), OBJ_CAP_RANGE | OBJ_CAP_LIST | OBJ_CAP_COPY);
	assert_int_equal(probe_judge(r, PROBE_FOR_MAIL, "mail_store", &err), 0);
	assert_int_equal(probe_judge(r, PROBE_FOR_INDEX, "index_store", &err), ERR_INVALID);
	free(r);
	objstore_close(&s);
}

static void never_done(struct objstore_op *op)
{
	*(volatile int *)op->ctx = op->rc ? op->rc : 1;
}

static void what_is_cancelled_ends_soon(void **state)
{
	struct objstore *s = open_store("\"slow\": {\"seconds\": 10}", 20000, 10000);
	struct buf b = BUF_INIT(0);
	volatile int rc = 0;
	struct objstore_op op = { .verb = OBJ_GET, .key = "c", .out = &b, .done = never_done, .ctx = (void *)(uintptr_t)&rc };
	int64_t t = clock_mono_us(&clock_system);

	objstore_submit(s, &op);
	usleep(200000);
	objstore_cancel(s, &op);
	objstore_close(&s);
	assert_true(clock_mono_us(&clock_system) - t < 2000000);
	assert_int_equal(rc, ERR_TIMEOUT);
	buf_free(&b);
}

static void *come(void *p)
{
	struct objstore *s = p;
	char key[40];
	int i, failed = 0;

	for (i = 0; i < 20; i++) {
		struct buf b = BUF_INIT(0);

		snprintf(key, sizeof(key), "crowd/%lx/%d", (unsigned long)pthread_self(), i);
		failed += put(s, key, key, NULL) < 0 || objstore_get(s, key, &b, NULL, NULL) < 0 || strcmp(buf_str(&b), key);
		buf_free(&b);
	}
	return (void *)(intptr_t)failed;
}

static void many_threads_share_a_few_connections(void **state)
{
	struct objstore *s = open_store("", 20000, 5000);
	pthread_t t[32];
	void *failed;
	int i;

	for (i = 0; i < 32; i++)
		pthread_create(&t[i], NULL, come, s);
	for (i = 0; i < 32; i++) {
		pthread_join(t[i], &failed);
		assert_int_equal((intptr_t)failed, 0);
	}
	objstore_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_signed_the_old_way),
		cmocka_unit_test(large_bodies_come_and_go_whole),
		cmocka_unit_test(bad_moments_are_outlasted),
		cmocka_unit_test(the_word_of_libs3_on_puts_is_not_taken),
		cmocka_unit_test(a_store_that_stays_away_ends_in_time),
		cmocka_unit_test(errors_have_their_class),
		cmocka_unit_test(copies_are_made_by_the_store),
		cmocka_unit_test(the_probe_takes_it_for_mail_and_refuses_it_as_index),
		cmocka_unit_test(what_is_cancelled_ends_soon),
		cmocka_unit_test(many_threads_share_a_few_connections),
	};
	int rc;

	log_set_level(LOG_ERROR);
	if (s3fix_start(&server, NULL) < 0)
		return 99;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	s3fix_stop(&server);
	return rc;
}
