/* The list of connectors.
 *
 * It is shuffled once; its head is asked until it fails, then the next that
 * is not marked.  A marked one is asked for its profile's .conf about each
 * second and comes back when that is answered; meanwhile it gets nothing,
 * unless all are marked: then the one that failed the fewest times in a row
 * is tried, and its first answer brings it back. */
#include "objstore/sproxyd-private.h"

#include "base/log.h"
#include "base/mem.h"

enum { CHECK_US = 1000000, CHECK_TIMEOUT_US = 2000000, CONNECTORS_MAX = 256 };

static struct sp_connector *of_timer(struct http_task *t)
{
	return (struct sp_connector *)((char *)t - offsetof(struct sp_connector, timer));
}

static void check_later(struct sp_connector *c)
{
	/* each at its own pace, so that processes do not ask together */
	int64_t jitter = (int64_t)(c->s->policy.rng % (CHECK_US / 4));

	http_timer(c->s->e, &c->timer, http_now() + CHECK_US - CHECK_US / 8 + jitter);
}

static void come_back(struct sp_connector *c)
{
	c->down = false;
	c->failures = 0;
	http_timer_cancel(c->s->e, &c->timer);
	log_event(LOG_INF, "sproxyd connector is back", LF_S("url", c->url), LF_D("after_ms", (http_now() - c->down_us) / 1000), LF_END);
	sp_pump_soon(c->s);
}

static void checked(struct http_req *r)
{
	struct sp_connector *c = r->ctx;
	bool good = r->fail == HTTP_ANSWERED && r->status == 200;

	c->checking = false;
	if (r->fail == HTTP_CANCELLED)	/* the end */
		return;
	http_req_free(r);
	if (!c->down)
		return;		/* it answered something else meanwhile */
	if (good) {
		come_back(c);
	} else {
		c->failures++;
		check_later(c);
	}
}

static void check_now(struct http_task *t)
{
	struct sp_connector *c = of_timer(t);

	if (c->checking)
		return;
	c->checking = true;
	http_req_init(&c->check);
	c->check.method = HTTP_GET;
	c->check.url = c->check_url;
	c->check.fresh = true;
	c->check.deadline_us = http_now() + CHECK_TIMEOUT_US;
	c->check.done = checked;
	c->check.ctx = c;
	http_submit(c->s->e, &c->check);
}

bool sp_connector_other(const struct sp_store *s)
{
	size_t i;

	for (i = 0; i < s->n_connectors; i++)
		if (!s->connector[i].down)
			return true;
	return false;
}

struct sp_connector *sp_connector_pick(struct sp_store *s)
{
	struct sp_connector *c, *best = NULL;
	size_t i;

	for (i = 0; i < s->n_connectors; i++) {
		c = &s->connector[(s->head + i) % s->n_connectors];
		if (!c->down) {
			s->head = (size_t)(c - s->connector);
			return c;
		}
		if (!best || c->failures < best->failures)
			best = c;
	}
	return best;
}

void sp_connector_failed(struct sp_connector *c, const struct err *err)
{
	c->failures++;
	if (c->down)
		return;
	c->down = true;
	c->down_us = http_now();
	check_later(c);
	log_event(LOG_WARN, "sproxyd connector is marked: others are asked until it answers again", LF_S("url", c->url), LF_ERR(err), LF_END);
}

void sp_connector_answered(struct sp_connector *c, int64_t sent_us)
{
	if (!c->down)
		c->failures = 0;
	else if (sent_us > c->down_us)	/* earlier ones say nothing */
		come_back(c);
}

static void shuffle(struct sp_connector *c, size_t n, uint64_t seed)
{
	size_t i, k;

	for (i = n; i > 1; i--) {
		struct sp_connector tmp;

		seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		k = (size_t)((seed >> 33) % i);
		tmp = c[i - 1];
		c[i - 1] = c[k];
		c[k] = tmp;
	}
}

int sp_connectors_init(struct sp_store *s, const char *const *urls, size_t n, uint64_t seed, struct err *err)
{
	size_t i, len;

	if (n == 0 || n > CONNECTORS_MAX)
		return err_set(err, ERR_INVALID, "driver sproxyd needs url, a list of 1 to %d connectors like http://10.0.0.1:81", CONNECTORS_MAX);
	s->connector = mem_calloc(n, sizeof(*s->connector));
	for (i = 0; i < n; i++) {
		struct sp_connector *c = &s->connector[i];
		bool https = !strncmp(urls[i], "https://", 8);

		if ((!https && strncmp(urls[i], "http://", 7)) || !urls[i][https ? 8 : 7] || strpbrk(urls[i], "?#@ ") || strlen(urls[i]) > 512)
			return err_set(err, ERR_INVALID, "url \"%.200s\": write it like http://10.0.0.1:81", urls[i]);
		len = strlen(urls[i]);
		while (urls[i][len - 1] == '/')
			len--;
		c->s = s;
		c->timer.run = check_now;
		/* what stands behind the host is the proxy's base: /proxy where nothing is said */
		c->url = mem_printf("%.*s%s/%s/", (int)len, urls[i], memchr(urls[i] + 8, '/', len > 8 ? len - 8 : 0) ? "" : "/proxy", s->profile);
		c->check_url = mem_printf("%s.conf", c->url);
		s->n_connectors++;
	}
	shuffle(s->connector, n, seed);
	return 0;
}

void sp_connectors_free(struct sp_store *s)
{
	size_t i;

	for (i = 0; i < s->n_connectors; i++) {
		http_req_free(&s->connector[i].check);
		free(s->connector[i].url);
		free(s->connector[i].check_url);
	}
	free(s->connector);
}
