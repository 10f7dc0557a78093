/* policy - when to send, to wait, to send again, to hedge and to give up, for
 * one remote store.
 *
 *   concurrency  a window of requests on the wire: one more per window's worth of successes, x 0.7 when throttled
 *   retries      jittered exponential back-off, never past the operation's deadline, paid from a token bucket that
 *                successes fill (so an outage is not answered with a multiple of the load)
 *   breaker      after a run of failures nothing is sent for a while, then one request tries
 *   hedging      a second GET when the first byte takes longer than 95 % of the recent ones did, for one GET in 20
 *
 * Deterministic: time and seed are handed in.  Threads: one at a time. */
#ifndef OBJSTORE_POLICY_H
#define OBJSTORE_POLICY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum policy_result {
	POLICY_OK,		/* the store answered as it should (404 and 412 too) */
	POLICY_THROTTLED,	/* 429, 503 */
	POLICY_FAILED,		/* 5xx, reset, time-out, no connection */
	POLICY_NEUTRAL		/* cancelled, or our own mistake: says nothing of the store */
};

struct policy_config {
	unsigned window_max;		/* requests on the wire at most; 0 = 64 */
	unsigned base_us, cap_us;	/* of back-off; 0 = 50 ms, 10 s */
	unsigned breaker_after;		/* failures in a row; 0 = 10 */
	unsigned breaker_min_us, breaker_max_us;	/* 0 = 500 ms, 3 s */
	bool hedge;
	uint64_t seed;
};

enum { POLICY_BUCKETS = 96 };	/* of latency: 8 for each doubling, from 256 us on */

struct policy {
	struct policy_config cfg;
	uint64_t rng;
	/* window */
	double window;
	unsigned in_flight;
	int64_t cut_us;			/* last time it was cut */
	/* retry tokens */
	double tokens;
	/* breaker */
	unsigned failures;		/* in a row */
	int64_t open_until_us;		/* 0 = closed */
	unsigned open_us;
	bool trying;			/* the one request of a half-open breaker is under way */
	/* hedging */
	double hedge_tokens;
	uint32_t latency[POLICY_BUCKETS];
	uint32_t samples;
};

void policy_init(struct policy *p, const struct policy_config *cfg);

/* May a request be sent now?  0 yes; < 0 wait for another to end; > 0 the breaker is open until then (us). */
int64_t policy_may_send(struct policy *p, int64_t now_us);
void policy_sent(struct policy *p);			/* one more is on the wire */
/* It ended.  attempt: 1 for an operation's first; true when the breaker opened by it. */
bool policy_ended(struct policy *p, enum policy_result r, unsigned attempt, int64_t now_us);

/* When to send again after attempt (1...) ended so; -1: not at all (no tokens,
 * or it would be past the deadline).  retry_after_us: what the store asked for, 0 = nothing. */
int64_t policy_retry_at(struct policy *p, enum policy_result r, unsigned attempt, int64_t retry_after_us, int64_t now_us, int64_t deadline_us);

void policy_latency(struct policy *p, int64_t us);	/* time to the first byte of a GET */
/* How long to wait for the first byte before a second GET is sent; -1: no hedge. */
int64_t policy_hedge_after(const struct policy *p, int64_t now_us);
bool policy_take_hedge(struct policy *p, int64_t now_us);	/* is one in the budget, now that the time has come? */
#endif
