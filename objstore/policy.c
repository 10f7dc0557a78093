#include "objstore/policy.h"

#include <string.h>

enum {
	WINDOW = 64, WINDOW_START = 16, BASE_US = 50000, CAP_US = 10000000, THROTTLE_BASE_US = 200000,
	/* a node whose store is back must get its heartbeat through within its TTL: one try in three seconds is no burden */
	BREAKER_AFTER = 10, BREAKER_MIN_US = 500000, BREAKER_MAX_US = 3000000,
	TOKENS_MAX = 500, TOKENS_RETRY = 5, TOKENS_TIMEOUT = 10,
	CUT_EVERY_US = 100000, QUIET_US = 10000000,
	HEDGE_SAMPLES = 50, HEDGE_MIN_US = 10000, HEDGE_MAX_US = 5000000, HEDGE_TOKENS_MAX = 10,
	SAMPLES_MAX = 2048, LATENCY_MIN_US = 256, SUB = 8
};
#define CUT 0.7
#define HEDGE_SHARE 0.05

static void fill(unsigned *v, unsigned def)
{
	if (!*v)
		*v = def;
}

void policy_init(struct policy *p, const struct policy_config *cfg)
{
	memset(p, 0, sizeof(*p));
	p->cfg = *cfg;
	fill(&p->cfg.window_max, WINDOW);
	fill(&p->cfg.base_us, BASE_US);
	fill(&p->cfg.cap_us, CAP_US);
	fill(&p->cfg.breaker_after, BREAKER_AFTER);
	fill(&p->cfg.breaker_min_us, BREAKER_MIN_US);
	fill(&p->cfg.breaker_max_us, BREAKER_MAX_US);
	p->rng = cfg->seed;
	p->window = p->cfg.window_max < WINDOW_START ? p->cfg.window_max : WINDOW_START;
	p->tokens = TOKENS_MAX;
	p->cut_us = INT64_MIN / 2;
}

/* 0 <= x < 1 */
static double dice(struct policy *p)
{
	uint64_t z = (p->rng += UINT64_C(0x9e3779b97f4a7c15));	/* splitmix64 */

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

int64_t policy_may_send(struct policy *p, int64_t now_us)
{
	if (p->open_until_us) {
		if (now_us < p->open_until_us)
			return p->open_until_us;
		return p->trying ? -1 : 0;
	}
	return p->in_flight < (unsigned)p->window ? 0 : -1;
}

void policy_sent(struct policy *p)
{
	p->in_flight++;
	if (p->open_until_us)
		p->trying = true;
}

static void cut(struct policy *p, int64_t now_us)
{
	if (now_us - p->cut_us < CUT_EVERY_US)	/* one burst of 503 is one sign */
		return;
	p->cut_us = now_us;
	p->window *= CUT;
	if (p->window < 1)
		p->window = 1;
}

static bool failed(struct policy *p, int64_t now_us)
{
	bool was_open = p->open_until_us != 0;

	p->failures++;
	if (was_open) {
		p->open_us = p->open_us * 2 < p->cfg.breaker_max_us ? p->open_us * 2 : p->cfg.breaker_max_us;
	} else {
		if (p->failures < p->cfg.breaker_after)
			return false;
		p->open_us = p->cfg.breaker_min_us;
	}
	p->open_until_us = now_us + (int64_t)((double)p->open_us * (0.8 + 0.4 * dice(p)));
	return !was_open;
}

bool policy_ended(struct policy *p, enum policy_result r, unsigned attempt, int64_t now_us)
{
	bool opened = false, tried = p->trying;

	p->in_flight--;
	switch (r) {
	case POLICY_OK:
		p->failures = 0;
		p->open_until_us = 0;
		p->tokens += attempt > 1 ? TOKENS_RETRY : 1;
		if (p->tokens > TOKENS_MAX)
			p->tokens = TOKENS_MAX;
		p->window += 1 / p->window;
		if (p->window > p->cfg.window_max)
			p->window = p->cfg.window_max;
		break;
	case POLICY_THROTTLED:	/* it is there, and too busy: the window's business, not the breaker's */
		p->open_until_us = 0;
		cut(p, now_us);
		break;
	case POLICY_FAILED:
		/* stragglers of an outage that is known do not prolong it */
		if (!p->open_until_us || tried)
			opened = failed(p, now_us);
		break;
	case POLICY_NEUTRAL:
		break;
	}
	p->trying = false;
	return opened;
}

int64_t policy_retry_at(struct policy *p, enum policy_result r, unsigned attempt, int64_t retry_after_us, int64_t now_us, int64_t deadline_us)
{
	double cost = r == POLICY_FAILED ? TOKENS_TIMEOUT : TOKENS_RETRY;
	double top = r == POLICY_THROTTLED ? THROTTLE_BASE_US : p->cfg.base_us;
	unsigned i;
	int64_t at;

	if (r == POLICY_THROTTLED && top < p->cfg.base_us)
		top = p->cfg.base_us;
	for (i = 1; i < attempt && top < p->cfg.cap_us; i++)
		top *= 2;
	if (top > p->cfg.cap_us)
		top = p->cfg.cap_us;
	/* half fixed, half by chance: spread out, and never at once */
	at = now_us + (int64_t)(top / 2 + top / 2 * dice(p));
	if (retry_after_us && at < now_us + retry_after_us)
		at = now_us + retry_after_us + (int64_t)(p->cfg.base_us * dice(p));
	if (at < p->open_until_us)
		at = p->open_until_us;
	if (at >= deadline_us || p->tokens < cost)
		return -1;
	p->tokens -= cost;
	return at;
}

/* --- hedging --- */

static size_t bucket_of(int64_t us)
{
	size_t octave = 0;

	if (us < LATENCY_MIN_US)
		us = LATENCY_MIN_US;
	while (us >= 2 * LATENCY_MIN_US && octave < POLICY_BUCKETS / SUB - 1) {
		us /= 2;
		octave++;
	}
	us = us >= 2 * LATENCY_MIN_US ? SUB - 1 : (us - LATENCY_MIN_US) * SUB / LATENCY_MIN_US;
	return octave * SUB + (size_t)us;
}

static int64_t bucket_top(size_t b)
{
	return ((int64_t)LATENCY_MIN_US << (b / SUB)) / SUB * (int64_t)(SUB + b % SUB + 1);
}

void policy_latency(struct policy *p, int64_t us)
{
	size_t i;

	p->latency[bucket_of(us)]++;
	p->hedge_tokens += p->hedge_tokens < HEDGE_TOKENS_MAX ? HEDGE_SHARE : 0;
	if (++p->samples < SAMPLES_MAX)
		return;
	for (p->samples = 0, i = 0; i < POLICY_BUCKETS; i++) {	/* old ones weigh half */
		p->latency[i] /= 2;
		p->samples += p->latency[i];
	}
}

int64_t policy_hedge_after(const struct policy *p, int64_t now_us)
{
	uint32_t left = p->samples / 20;
	size_t b = POLICY_BUCKETS;
	int64_t us;

	if (!p->cfg.hedge || p->samples < HEDGE_SAMPLES || p->open_until_us || now_us - p->cut_us < QUIET_US)
		return -1;
	while (b > 1 && p->latency[b - 1] <= left)
		left -= p->latency[--b];
	us = bucket_top(b - 1);
	return us < HEDGE_MIN_US ? HEDGE_MIN_US : us > HEDGE_MAX_US ? HEDGE_MAX_US : us;
}

bool policy_take_hedge(struct policy *p, int64_t now_us)
{
	if (p->hedge_tokens < 1 || policy_hedge_after(p, now_us) < 0 || policy_may_send(p, now_us) != 0)
		return false;
	p->hedge_tokens -= 1;
	return true;
}
