/* The S3 driver beside a server that does to it what stores do: lost answers, throttling, resets, stalls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "tests/objstore/s3fix.h"

#include <pthread.h>

static struct s3fix server;

static int setup(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct objstore *s;

	free(s3fix_ask(&server, "POST", "/-/odd", "{\"reset\": true, \"empty\": true}"));
	if (objstore_open(&set, &s, NULL) < 0)
		return -1;
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct objstore *s = *state;

	s3fix_odd(&server, "");
	objstore_close(&s);
	return 0;
}

static struct objstore_verb_stats stats(struct objstore *s, enum objstore_verb v)
{
	struct objstore_stats st;

	assert_true(objstore_stats(s, &st));
	return st.verb[v];
}

static int put(struct objstore *s, const char *key, const char *text, enum objstore_cond cond, char *etag)
{
	return objstore_put(s, key, text, strlen(text), cond, etag, NULL);
}

static void expect(struct objstore *s, const char *key, const char *text)
{
	struct buf b = BUF_INIT(1 << 20);

	assert_int_equal(objstore_get(s, key, &b, NULL, NULL), 0);
	assert_string_equal(buf_str(&b), text);
	buf_free(&b);
}

static int64_t now_ms(void)
{
	return clock_mono_us(&clock_system) / 1000;
}

/* --- what was done and not answered --- */

static void a_create_whose_answer_was_lost_is_no_failure(void **state)
{
	struct objstore *s = *state;

	s3fix_odd(&server, "\"drop_after\": {\"n\": 1, \"method\": \"PUT\"}");
	assert_int_equal(put(s, "k", "mine", OBJ_CREATE, NULL), 0);
	assert_int_equal(stats(s, OBJ_PUT).requests, 1);
	assert_int_equal(stats(s, OBJ_HEAD).requests, 1);
	assert_int_equal(s3fix_seen(&server, "\"method\": \"PUT\""), 1);
	expect(s, "k", "mine");
}

static void a_create_that_was_lost_before_it_was_done_is_done_again(void **state)
{
	struct objstore *s = *state;

	s3fix_odd(&server, "\"drop_before\": {\"n\": 1, \"method\": \"PUT\"}");
	assert_int_equal(put(s, "k", "mine", OBJ_CREATE, NULL), 0);
	assert_int_equal(stats(s, OBJ_PUT).requests, 2);
	assert_int_equal(stats(s, OBJ_PUT).retries, 1);
	expect(s, "k", "mine");
}

static void a_create_answered_500_after_it_was_done_is_no_failure(void **state)
{
	struct objstore *s = *state;

	s3fix_odd(&server, "\"error_after\": {\"n\": 1, \"method\": \"PUT\", \"status\": 500}");
	assert_int_equal(put(s, "k", "mine", OBJ_CREATE, NULL), 0);
	assert_int_equal(stats(s, OBJ_PUT).requests, 1);
	expect(s, "k", "mine");
}

static void somebody_elses_create_is_told_even_with_the_same_bytes(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct objstore *s = *state, *other;

	assert_int_equal(objstore_open(&set, &other, NULL), 0);
	assert_int_equal(put(other, "k", "same", OBJ_CREATE, NULL), 0);
	assert_int_equal(put(s, "k", "same", OBJ_CREATE, NULL), ERR_EXISTS);
	s3fix_odd(&server, "\"drop_before\": {\"n\": 1, \"method\": \"PUT\"}");
	assert_int_equal(put(s, "k", "same", OBJ_CREATE, NULL), ERR_EXISTS);
	objstore_close(&other);
}

static void swaps_whose_answer_was_lost_are_read_back(void **state)
{
	static const char *const odd[] = { "\"drop_after\": {\"n\": 1, \"method\": \"PUT\"}", "\"error_after\": {\"n\": 1, \"method\": \"PUT\", \"status\": 500}",
		"\"error_after\": {\"n\": 1, \"method\": \"PUT\", \"status\": 504}", "\"error_after\": {\"n\": 1, \"method\": \"PUT\", \"status\": 409}" };
	struct objstore *s = *state;
	char etag[OBJ_ETAG_MAX] = "", text[16];
	size_t i;

	assert_int_equal(put(s, "k", "0", OBJ_CREATE, etag), 0);
	for (i = 0; i < MEM_COUNT(odd); i++) {
		s3fix_odd(&server, odd[i]);
		snprintf(text, sizeof(text), "v%zu", i);
		assert_int_equal(put(s, "k", text, OBJ_MATCH, etag), 0);
		assert_int_equal(s3fix_seen(&server, "\"method\": \"PUT\""), 1);
		expect(s, "k", text);
	}
	assert_int_equal(put(s, "k", "end", OBJ_MATCH, etag), 0);	/* the etag of the read-back is the right one */
}

static void a_lost_swap_is_a_conflict_in_every_guise(void **state)
{
	static const char *const odd[] = { "", "\"lost_cas_status\": 409", "\"lost_cas_status\": 500" };
	struct objstore *s = *state;
	char etag[OBJ_ETAG_MAX] = "", old[OBJ_ETAG_MAX];
	size_t i;

	assert_int_equal(put(s, "k", "0", OBJ_CREATE, etag), 0);
	memcpy(old, etag, sizeof(old));
	assert_int_equal(put(s, "k", "1", OBJ_MATCH, etag), 0);
	for (i = 0; i < MEM_COUNT(odd); i++) {
		char mine[OBJ_ETAG_MAX];

		memcpy(mine, old, sizeof(mine));
		s3fix_odd(&server, odd[i]);
		assert_int_equal(put(s, "k", "2", OBJ_MATCH, mine), ERR_CONFLICT);
	}
	expect(s, "k", "1");
}

static void a_passing_conflict_with_nobody_is_tried_again(void **state)
{
	struct objstore *s = *state;

	s3fix_odd(&server, "\"conflict\": {\"n\": 2, \"method\": \"PUT\"}");
	assert_int_equal(put(s, "k", "mine", OBJ_CREATE, NULL), 0);
	expect(s, "k", "mine");
}

static void where_no_metadata_is_kept_bytes_are_compared(void **state)
{
	struct objstore *s = *state;

	s3fix_odd(&server, "\"no_metadata\": true, \"error_after\": {\"n\": 1, \"method\": \"PUT\", \"status\": 502}");
	assert_int_equal(put(s, "k", "mine", OBJ_CREATE, NULL), 0);
	assert_int_equal(stats(s, OBJ_GET).requests, 1);
	assert_int_equal(put(s, "k", "none", OBJ_CREATE, NULL), ERR_EXISTS);
	assert_int_equal(put(s, "k", "of another length", OBJ_CREATE, NULL), ERR_EXISTS);
}

static void the_form_of_if_match_is_found_out(void **state)
{
	struct objstore *s = *state;
	struct objstore_stats st;
	char etag[OBJ_ETAG_MAX] = "", old[OBJ_ETAG_MAX];

	s3fix_odd(&server, "\"unquoted\": true");
	assert_int_equal(put(s, "k", "0", OBJ_CREATE, etag), 0);
	memcpy(old, etag, sizeof(old));
	assert_int_equal(put(s, "k", "1", OBJ_MATCH, etag), 0);
	assert_true(objstore_stats(s, &st));
	assert_int_equal(st.etag_form, 2);
	assert_int_equal(stats(s, OBJ_PUT).requests, 3);
	assert_int_equal(put(s, "k", "2", OBJ_MATCH, etag), 0);
	assert_int_equal(stats(s, OBJ_PUT).requests, 4);	/* known now */
	assert_int_equal(put(s, "k", "3", OBJ_MATCH, old), ERR_CONFLICT);
}

/* --- a store in trouble --- */

static void throttling_is_waited_out_as_the_store_asks(void **state)
{
	struct objstore *s = *state;
	int64_t t = now_ms();

	s3fix_odd(&server, "\"throttle\": {\"n\": 1, \"retry_after\": 1}");
	assert_int_equal(put(s, "k", "x", OBJ_ANY, NULL), 0);
	assert_true(now_ms() - t >= 1000);
	assert_int_equal(stats(s, OBJ_PUT).throttled, 1);
	s3fix_odd(&server, "\"throttle\": {\"n\": 3, \"status\": 429}");
	expect(s, "k", "x");
	assert_int_equal(stats(s, OBJ_GET).throttled, 3);
}

static void throttling_without_end_is_busy(void **state)
{
	struct objstore *s = *state;

	s3fix_odd(&server, "\"throttle\": {\"n\": 1000, \"retry_after\": 30}");
	assert_int_equal(put(s, "k", "x", OBJ_ANY, NULL), ERR_BUSY);	/* it would be past the deadline: told at once */
}

static void a_cut_answer_is_asked_for_again(void **state)
{
	struct objstore *s = *state;

	assert_int_equal(put(s, "k", "0123456789", OBJ_ANY, NULL), 0);
	s3fix_odd(&server, "\"truncate\": {\"n\": 2, \"method\": \"GET\"}");
	expect(s, "k", "0123456789");
	assert_int_equal(stats(s, OBJ_GET).retries, 2);
	assert_int_equal(stats(s, OBJ_GET).errors, 2);
}

static void after_a_reset_a_new_connection_is_used(void **state)
{
	struct objstore *s = *state;
	char *seen, *a, *b;

	assert_int_equal(put(s, "k", "x", OBJ_ANY, NULL), 0);
	s3fix_odd(&server, "\"rst\": {\"n\": 1, \"method\": \"HEAD\", \"skip\": 1}");
	assert_int_equal(objstore_head(s, "k", NULL, NULL), 1);
	assert_int_equal(objstore_head(s, "k", NULL, NULL), 1);
	seen = s3fix_ask(&server, "GET", "/-/seen", "");
	a = strstr(seen, "\"connection\": ");
	b = a;
	while (strstr(b + 1, "\"connection\": "))
		b = strstr(b + 1, "\"connection\": ");
	assert_true(a && b != a);
	assert_int_not_equal(strtol(a + 14, NULL, 10), strtol(b + 14, NULL, 10));
	free(seen);
}

static void a_slow_get_is_hedged(void **state)
{
	struct objstore *s = *state;
	int64_t t;
	int i;

	assert_int_equal(put(s, "k", "x", OBJ_ANY, NULL), 0);
	for (i = 0; i < 60; i++)
		expect(s, "k", "x");
	s3fix_odd(&server, "\"slow\": {\"n\": 1, \"seconds\": 4, \"method\": \"GET\"}");
	t = now_ms();
	expect(s, "k", "x");
	assert_true(now_ms() - t < 3500);
	assert_true(stats(s, OBJ_GET).hedges >= 1);
}

static void writes_are_never_hedged(void **state)
{
	struct objstore *s = *state;
	int i;

	assert_int_equal(put(s, "k", "x", OBJ_ANY, NULL), 0);
	for (i = 0; i < 60; i++)
		expect(s, "k", "x");
	s3fix_odd(&server, "\"slow\": {\"n\": 1, \"seconds\": 1, \"method\": \"PUT\"}");
	assert_int_equal(put(s, "new", "x", OBJ_CREATE, NULL), 0);
	assert_int_equal(s3fix_seen(&server, "\"method\": \"PUT\""), 1);
}

/* --- deadlines and the end --- */

struct waiting {
	struct objstore_op op;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void woken(struct objstore_op *op)
{
	struct waiting *w = op->ctx;

	pthread_mutex_lock(&w->lock);
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static void begin(struct objstore *s, struct waiting *w)
{
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	w->done = false;
	w->op.done = woken;
	w->op.ctx = w;
	objstore_submit(s, &w->op);
}

static int end(struct waiting *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->done)
		pthread_cond_wait(&w->cond, &w->lock);
	pthread_mutex_unlock(&w->lock);
	return w->op.rc;
}

static void a_deadline_is_kept(void **state)
{
	struct iovec iov = { (char *)(uintptr_t)"x", 1 };
	struct waiting w = { .op = { .verb = OBJ_PUT, .key = "k", .cond = OBJ_CREATE, .iov = &iov, .n_iov = 1 } };
	struct objstore *s = *state;
	int64_t t = now_ms();

	s3fix_odd(&server, "\"slow\": {\"n\": 100, \"seconds\": 5}");
	w.op.deadline_us = clock_mono_us(&clock_system) + 300000;
	begin(s, &w);
	assert_int_equal(end(&w), ERR_TIMEOUT);
	assert_true(now_ms() - t < 4000);
}

static void a_cancelled_operation_ends_soon(void **state)
{
	struct buf b = BUF_INIT(100);
	struct waiting w = { .op = { .verb = OBJ_GET, .key = "k", .out = &b } };
	struct objstore *s = *state;
	int64_t t = now_ms();

	s3fix_odd(&server, "\"slow\": {\"n\": 100, \"seconds\": 6}");
	begin(s, &w);
	usleep(20000);
	objstore_cancel(s, &w.op);
	objstore_cancel(s, &w.op);
	assert_int_equal(end(&w), ERR_TIMEOUT);
	assert_true(now_ms() - t < 5000);
	buf_free(&b);
}

static void closing_waits_for_what_is_under_way(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct iovec iov = { (char *)(uintptr_t)"x", 1 };
	struct waiting w[20];
	struct objstore *s;
	char keys[20][8];
	int i;

	assert_int_equal(objstore_open(&set, &s, NULL), 0);
	for (i = 0; i < 20; i++) {
		snprintf(keys[i], sizeof(keys[i]), "c%d", i);
		w[i] = (struct waiting){ .op = { .verb = OBJ_PUT, .key = keys[i], .iov = &iov, .n_iov = 1 } };
		begin(s, &w[i]);
	}
	objstore_close(&s);
	for (i = 0; i < 20; i++) {
		assert_true(w[i].done);
		assert_int_equal(w[i].op.rc, 0);
	}
}

static void when_nothing_answers_requests_pause(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct objstore_stats st;
	struct objstore *s;
	int i, away = 0;

	set.endpoint = "http://127.0.0.1:1";	/* nobody listens there */
	set.timeout_ms = 1500;
	assert_int_equal(objstore_open(&set, &s, NULL), 0);
	for (i = 0; i < 6; i++)
		away += objstore_head(s, "k", NULL, NULL) < 0;
	assert_int_equal(away, 6);
	assert_true(objstore_stats(s, &st));
	assert_true(st.breaker_opened >= 1);
	assert_true(st.verb[OBJ_HEAD].errors < 60);
	objstore_close(&s);
}

/* --- together --- */

struct worker {
	struct objstore *s;
	unsigned won, unknown;
};

static void *count_up(void *p)
{
	struct worker *w = p;
	char etag[OBJ_ETAG_MAX], value[32];
	int i;

	for (i = 0; i < 15;) {
		struct buf b = BUF_INIT(100);
		int rc = objstore_get(w->s, "count", &b, etag, NULL);

		snprintf(value, sizeof(value), "%lu", strtoul(buf_str(&b), NULL, 10) + 1);
		if (rc == 0)
			rc = put(w->s, "count", value, OBJ_MATCH, etag);
		buf_free(&b);
		w->won += rc == 0;
		w->unknown += rc == ERR_TIMEOUT;	/* overtaken after a lost answer: nobody can tell */
		i += rc == 0;
		if (rc != 0 && rc != ERR_CONFLICT && rc != ERR_TIMEOUT)
			break;
	}
	return NULL;
}

static void swaps_are_counted_right_among_faults(void **state)
{
	struct objstore *s = *state;
	struct worker w[4];
	struct buf b = BUF_INIT(100);
	pthread_t t[4];
	unsigned i, won = 0, unknown = 0, value;

	assert_int_equal(put(s, "count", "0", OBJ_CREATE, NULL), 0);
	s3fix_odd(&server, "\"drop_after\": {\"n\": 8, \"method\": \"PUT\", \"skip\": 3}, "
			   "\"throttle\": {\"n\": 5, \"skip\": 20}, \"rst\": {\"n\": 4, \"skip\": 10}, \"lost_cas_status\": 500");
	for (i = 0; i < 4; i++) {
		w[i] = (struct worker){ s, 0, 0 };
		pthread_create(&t[i], NULL, count_up, &w[i]);
	}
	for (i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		won += w[i].won;
		unknown += w[i].unknown;
	}
	assert_int_equal(won, 60);
	assert_int_equal(objstore_get(s, "count", &b, NULL, NULL), 0);
	value = (unsigned)strtoul(buf_str(&b), NULL, 10);
	assert_true(value >= 60 && value <= 60 + unknown);
	buf_free(&b);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_create_whose_answer_was_lost_is_no_failure),
		T(a_create_that_was_lost_before_it_was_done_is_done_again),
		T(a_create_answered_500_after_it_was_done_is_no_failure),
		T(somebody_elses_create_is_told_even_with_the_same_bytes),
		T(swaps_whose_answer_was_lost_are_read_back),
		T(a_lost_swap_is_a_conflict_in_every_guise),
		T(a_passing_conflict_with_nobody_is_tried_again),
		T(where_no_metadata_is_kept_bytes_are_compared),
		T(the_form_of_if_match_is_found_out),
		T(throttling_is_waited_out_as_the_store_asks),
		T(throttling_without_end_is_busy),
		T(a_cut_answer_is_asked_for_again),
		T(after_a_reset_a_new_connection_is_used),
		T(a_slow_get_is_hedged),
		T(writes_are_never_hedged),
		T(a_deadline_is_kept),
		T(a_cancelled_operation_ends_soon),
		T(closing_waits_for_what_is_under_way),
		T(when_nothing_answers_requests_pause),
		T(swaps_are_counted_right_among_faults),
	};
	int rc;

	log_init("t_s3", LOG_ERROR, LOG_FMT_TEXT);
	if (s3fix_start(&server, NULL) < 0)
		return 99;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	s3fix_stop(&server);
	return rc;
}
