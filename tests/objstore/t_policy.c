/* The policy with a clock turned by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "objstore/policy.h"

enum { MS = 1000, S = 1000000 };

static struct policy fresh(void)
{
	struct policy_config cfg = { .window_max = 32, .hedge = true, .seed = 1 };
	struct policy p;

	policy_init(&p, &cfg);
	return p;
}

static void one(struct policy *p, enum policy_result r, int64_t now)
{
	policy_sent(p);
	policy_ended(p, r, 1, now);
}

static void the_window_grows_with_success_and_shrinks_when_throttled(void **state)
{
	struct policy p = fresh();
	double before;
	int i;

	for (i = 0; i < 2000; i++)
		one(&p, POLICY_OK, i * MS);
	assert_true(p.window > 31.9);
	for (i = 0; i < 32; i++) {
		assert_int_equal(policy_may_send(&p, 3 * S), 0);
		policy_sent(&p);
	}
	assert_int_equal(policy_may_send(&p, 3 * S), -1);
	before = p.window;
	for (i = 0; i < 10; i++)	/* one burst is one sign */
		policy_ended(&p, POLICY_THROTTLED, 1, 3 * S + i * MS);
	assert_true(p.window > before * 0.69 && p.window < before * 0.71);
	for (i = 0; i < 100; i++)
		one(&p, POLICY_THROTTLED, 4 * S + i * S);
	assert_true(p.window >= 1 && p.window < 1.01);
	assert_int_equal(p.in_flight, 22);
	p.in_flight = 0;
	assert_int_equal(policy_may_send(&p, 200 * S), 0);
}

static void back_off_doubles_with_jitter_and_stays_in_the_deadline(void **state)
{
	struct policy p = fresh();
	int64_t at, low = INT64_MAX, high = 0;
	unsigned a, i;

	for (a = 1; a < 5; a++) {
		for (i = 0; i < 10; i++) {
			at = policy_retry_at(&p, POLICY_FAILED, a, 0, 0, 60 * S);
			assert_true(at >= 25 * MS << (a - 1) && at <= 50 * MS << (a - 1));
			p.tokens = 500;
		}
	}
	for (i = 0; i < 20; i++) {
		at = policy_retry_at(&p, POLICY_FAILED, 30, 0, 0, 60 * S);
		low = at < low ? at : low;
		high = at > high ? at : high;
		p.tokens = 500;
	}
	assert_true(low >= 5 * S && high <= 10 * S && high - low > S);
	assert_int_equal(policy_retry_at(&p, POLICY_FAILED, 30, 0, 0, 4 * S), -1);
}

static void retry_after_is_heeded(void **state)
{
	struct policy p = fresh();
	int64_t at = policy_retry_at(&p, POLICY_THROTTLED, 1, 3 * S, 10 * S, 60 * S);

	assert_true(at >= 13 * S && at < 14 * S);
	assert_int_equal(policy_retry_at(&p, POLICY_THROTTLED, 1, 30 * S, 0, 20 * S), -1);
}

static void retries_end_with_the_tokens_and_come_back_with_success(void **state)
{
	struct policy p = fresh();
	unsigned n = 0, i;

	while (policy_retry_at(&p, POLICY_FAILED, 1, 0, 0, S) >= 0)
		n++;
	assert_int_equal(n, 50);
	for (i = 0; i < 10; i++)
		one(&p, POLICY_OK, 0);
	assert_true(policy_retry_at(&p, POLICY_FAILED, 1, 0, 0, S) >= 0);
	assert_int_equal(policy_retry_at(&p, POLICY_FAILED, 1, 0, 0, S), -1);
}

static void the_breaker_opens_tries_and_closes(void **state)
{
	struct policy p = fresh();
	int64_t until, next;
	unsigned i;

	for (i = 0; i < 9; i++)
		one(&p, POLICY_FAILED, S);
	assert_int_equal(policy_may_send(&p, S), 0);
	policy_sent(&p);
	assert_true(policy_ended(&p, POLICY_FAILED, 1, S));
	until = policy_may_send(&p, S);
	assert_true(until >= S + 400 * MS && until <= S + 600 * MS);
	assert_int_equal(policy_may_send(&p, until), 0);
	policy_sent(&p);
	assert_int_equal(policy_may_send(&p, until), -1);	/* one at a time tries */
	assert_false(policy_ended(&p, POLICY_FAILED, 1, until));
	next = policy_may_send(&p, until);
	assert_true(next - until >= 800 * MS && next - until <= 1200 * MS);
	for (i = 0; i < 8; i++) {	/* however long it lasts: a node must be heard of again within its TTL */
		assert_int_equal(policy_may_send(&p, next), 0);
		policy_sent(&p);
		policy_ended(&p, POLICY_FAILED, 1, next);
		until = next;
		next = policy_may_send(&p, until);
		assert_true(next > until && next - until <= 3600 * MS);
	}
	assert_int_equal(policy_may_send(&p, next), 0);
	policy_sent(&p);
	policy_ended(&p, POLICY_OK, 1, next);
	assert_int_equal(policy_may_send(&p, next), 0);
	for (i = 0; i < 30; i++)	/* a store that throttles is there */
		one(&p, POLICY_THROTTLED, next);
	assert_int_equal(policy_may_send(&p, next), 0);
}

static void a_retry_waits_for_the_breaker(void **state)
{
	struct policy p = fresh();
	unsigned i;

	for (i = 0; i < 10; i++)
		one(&p, POLICY_FAILED, S);
	assert_true(policy_retry_at(&p, POLICY_FAILED, 1, 0, S, 60 * S) >= policy_may_send(&p, S));
}

static void hedges_come_after_p95_and_are_few(void **state)
{
	struct policy p = fresh();
	int i, n = 0;
	int64_t after;

	assert_int_equal(policy_hedge_after(&p, S), -1);
	for (i = 0; i < 1000; i++)
		policy_latency(&p, i % 100 < 94 ? 20 * MS : 300 * MS);
	after = policy_hedge_after(&p, S);
	assert_true(after >= 300 * MS && after < 400 * MS);
	for (i = 0; i < 4000; i++)
		policy_latency(&p, i % 100 < 97 ? 20 * MS : 300 * MS);
	after = policy_hedge_after(&p, S);
	assert_true(after >= 20 * MS && after < 30 * MS);
	while (policy_take_hedge(&p, S))
		n++;
	assert_true(n >= 9 && n <= 11);
	one(&p, POLICY_THROTTLED, S);	/* a store that is too busy gets no more work */
	assert_int_equal(policy_hedge_after(&p, 2 * S), -1);
	assert_true(policy_hedge_after(&p, 20 * S) > 0);
}

static void the_same_seed_gives_the_same_decisions(void **state)
{
	struct policy a = fresh(), b = fresh();
	int i;

	for (i = 1; i < 50; i++)
		assert_int_equal(policy_retry_at(&a, POLICY_THROTTLED, (unsigned)i, 0, i, 100 * S), policy_retry_at(&b, POLICY_THROTTLED, (unsigned)i, 0, i, 100 * S));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_window_grows_with_success_and_shrinks_when_throttled),
		cmocka_unit_test(back_off_doubles_with_jitter_and_stays_in_the_deadline),
		cmocka_unit_test(retry_after_is_heeded),
		cmocka_unit_test(retries_end_with_the_tokens_and_come_back_with_success),
		cmocka_unit_test(the_breaker_opens_tries_and_closes),
		cmocka_unit_test(a_retry_waits_for_the_breaker),
		cmocka_unit_test(hedges_come_after_p95_and_are_few),
		cmocka_unit_test(the_same_seed_gives_the_same_decisions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
