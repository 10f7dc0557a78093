/* The other nodes: who is silent, whose a root is, when to take over. */
#include "metacache/metacache-private.h"

#include "base/log.h"

#include <unistd.h>

enum { WATCHED = 2, BUSY_TRIES = 40, BUSY_WAIT_US = 50000, NEWS_US = 200000, LOOK_US = 1000000, CLAIM_TTLS = 4 };

static int64_t ttl_us(const struct peer *p)
{
	return (int64_t)p->rec.ttl_ms * 1000;
}

static bool differs(const struct peer *a, const struct peer *b)
{
	return a->rec.incarnation != b->rec.incarnation || a->rec.beat != b->rec.beat || a->rec.state != b->rec.state || strcmp(a->etag, b->etag) != 0;
}

/* How long what is seen now may have been there: since the look before; or, as it comes a third of the TTL after the sign before it, what that
 * one leaves of it. */
static int64_t lateness(const struct peer *before, const struct peer *now)
{
	int64_t gap = now->since_us - before->looked_us, late = now->since_us - before->since_us + before->late_us - ttl_us(now) / 3;

	return now->rec.beat == before->rec.beat + 1 && late > 0 && late < gap ? late : gap;
}

int watch_observe(struct metacache *mc, const char *node, struct peer *out, struct err *err)
{
	struct peer now = { 0 }, *p;
	int rc = node_get(mc, node, &now.rec, now.etag, err);

	if (rc <= 0)
		return rc;
	now.since_us = now.looked_us = mc_now(mc);
	pthread_mutex_lock(&mc->peers_lock);
	p = hmap_gets(&mc->peers, node);
	if (!p) {
		now.late_us = ttl_us(&now) / 3;
		p = mem_dup(&now, sizeof(now));
		hmap_put(&mc->peers, node, strlen(node), p);
	}
	if (differs(p, &now)) {
		now.forced = p->forced && p->rec.incarnation == now.rec.incarnation;
		now.late_us = lateness(p, &now);
		*p = now;
	}
	p->looked_us = now.looked_us;
	*out = *p;
	pthread_mutex_unlock(&mc->peers_lock);
	return 1;
}

/* Has it given no sign for so many of its TTLs? */
static bool silent_for(const struct metacache *mc, const struct peer *p, int ttls)
{
	return mc_now(mc) - p->since_us >= (int64_t)p->rec.ttl_ms * 1000 * ttls;
}

bool watch_silent(const struct metacache *mc, const struct peer *p)
{
	return silent_for(mc, p, 1);
}

/* May this node claim it now?  1, 0 not yet, <0. */
static int claimable(struct metacache *mc, const struct peer *p, struct err *err)
{
	struct peer claimer;
	int rc;

	if (p->rec.state == NODE_LIVE)
		return watch_silent(mc, p);
	if (p->rec.state != NODE_CLAIMED)
		return 0;
	if (!strcmp(p->rec.claimer, mc->node) && p->rec.claimer_incarnation == mc->incarnation)
		return !p->forced || watch_silent(mc, p);	/* an attempt of this node's that was cut short */
	if (!watch_silent(mc, p))
		return 0;
	/* a claimer that lives may have given up half-way, and nothing need ever bring it back to it; two at work do no harm */
	if (!strcmp(p->rec.claimer, p->rec.node) || silent_for(mc, p, CLAIM_TTLS))
		return 1;
	rc = watch_observe(mc, p->rec.claimer, &claimer, err);
	if (rc < 0)
		return rc;
	return rc == 0 || claimer.rec.incarnation != p->rec.claimer_incarnation || claimer.rec.state != NODE_LIVE || watch_silent(mc, &claimer);
}

static bool is_over(const struct peer *p)
{
	return p->rec.state == NODE_STOPPED || p->rec.state == NODE_DONE;
}

/* As watch_settle, of what was just observed. */
static int settle(struct metacache *mc, struct peer *p, struct err *err)
{
	int rc;

	if (takeover_runs(mc, p->rec.node, p->rec.incarnation))
		return 0;
	rc = claimable(mc, p, err);
	if (rc <= 0 || !mc_lease(mc))	/* who is cut off himself has seen nothing */
		return rc < 0 ? rc : 0;
	if (!mc->cfg.stepped) {
		take_over_soon(mc, &p->rec, p->etag);
		return 0;
	}
	rc = take_over(mc, &p->rec, p->etag, err);
	if (rc == ERR_CONFLICT) {
		err_clear(err);
		return 0;
	}
	return rc < 0 ? rc : 1;
}

int watch_settle(struct metacache *mc, const char *node, uint64_t incarnation, struct peer *p, struct err *err)
{
	int rc;

	memset(p, 0, sizeof(*p));
	rc = watch_observe(mc, node, p, err);
	if (rc < 0)
		return rc;
	return rc == 0 || p->rec.incarnation != incarnation || is_over(p) ? 1 : settle(mc, p, err);
}

/* From before the swap on, as its answer may be lost: nothing may follow it before the claimed node's lease has run out. */
static void mark_forced(struct metacache *mc, const char *node)
{
	struct peer *p;

	pthread_mutex_lock(&mc->peers_lock);
	p = hmap_gets(&mc->peers, node);
	if (p)
		p->forced = true;
	pthread_mutex_unlock(&mc->peers_lock);
}

int watch_claim(struct metacache *mc, const char *node, struct peer *p, struct err *err)
{
	int rc;

	rc = watch_observe(mc, node, p, err);
	if (rc == 1 && p->rec.state == NODE_LIVE && !watch_silent(mc, p)) {
		mark_forced(mc, node);
		rc = mc_lease(mc) ? node_claim(mc, &p->rec, p->etag, err) : err_set(err, ERR_UNAVAILABLE, "the store cannot be written now");
	}
	return rc < 0 ? rc : 0;
}

/* --- this node's share of watching --- */

static int64_t step_us(const struct metacache *mc)
{
	return mc_ttl_us(mc) / 10 < 500000 ? mc_ttl_us(mc) / 10 : 500000;
}

/* When to look at it again.  Its next sign is due a third of its TTL after the last one, and when that one was given is known only from when
 * it was seen.  So the look comes a little earlier each time, until it comes too early and has to be repeated after a step: then signs are
 * seen within a step of when they were given, for a look in eight more than there are signs.  And at the end of its TTL, whatever that
 * makes of the steps. */
static int64_t look_due(const struct metacache *mc, const struct peer *p)
{
	int64_t step = step_us(mc), end = p->since_us + ttl_us(p), due = p->since_us + ttl_us(p) / 3 - (p->late_us > step ? p->late_us / 2 : step / 8);

	if (p->rec.state != NODE_LIVE || p->looked_us >= due)
		due = p->looked_us + step;
	return p->looked_us < end && due > end ? end : due;
}

/* One look, if it is time; when the next will be. */
static int64_t watch_one(struct metacache *mc, const char *node)
{
	int64_t now = mc_now(mc), due = 0;
	const struct peer *known;
	struct err e = ERR_INIT;
	struct peer p;
	int rc;

	pthread_mutex_lock(&mc->peers_lock);
	known = hmap_gets(&mc->peers, node);
	if (known)
		due = look_due(mc, known);
	pthread_mutex_unlock(&mc->peers_lock);
	if (due > now)
		return due;
	rc = watch_observe(mc, node, &p, &e);
	if (rc == 1)
		rc = is_over(&p) ? 0 : settle(mc, &p, &e) < 0 ? e.code : 1;
	if (rc == 0)
		rc = ring_change(mc, node, false, &e);
	if (rc < 0)
		log_event(LOG_DBG, "node cannot be watched now", LF_S("node", node), LF_ERR(&e), LF_END);
	due = rc == 1 ? look_due(mc, &p) : 0;
	return due > now ? due : now + step_us(mc);
}

/* Those that come next in the ring are this node's to watch.  When there is something to look at. */
static int64_t watch_next(struct metacache *mc)
{
	int64_t next = mc_now(mc) + mc_ttl_us(mc), due;
	size_t i, at = 0;

	while (at < mc->ring.n && strcmp(mc->ring.names[at], mc->node) <= 0)
		at++;
	for (i = 0; i < WATCHED && i < mc->ring.n; i++) {
		const char *node = mc->ring.names[(at + i) % mc->ring.n];

		if (!strcmp(node, mc->node))
			break;
		due = watch_one(mc, node);
		if (due < next)
			next = due;
	}
	return next;
}

int64_t watch_step(struct metacache *mc)
{
	int64_t now = mc_now(mc);
	char etag[OBJ_ETAG_MAX];
	struct err e = ERR_INIT;
	struct ring r;
	size_t n;

	if (atomic_load(&mc->fenced))
		return step_us(mc);
	if (now >= mc->next_ring_us) {
		mc->next_ring_us = now + mc_ttl_us(mc) * 2 / 3;
		if (atomic_load(&mc->draining) && operate_look_around(mc, &n, &e) < 0)
			log_event(LOG_WARN, "the other nodes cannot be looked up now", LF_ERR(&e), LF_END);
		err_clear(&e);
		if (ring_get(mc, &r, etag, &e) == 0) {
			ring_free(&mc->ring);
			mc->ring = r;
			mc->next_watch_us = now;
		}
	}
	if (now >= mc->next_watch_us)
		mc->next_watch_us = watch_next(mc);
	now = (mc->next_watch_us < mc->next_ring_us ? mc->next_watch_us : mc->next_ring_us) - mc_now(mc);
	return now > 0 ? now : 0;
}

/* --- whose a root is --- */

static bool lives(const struct metacache *mc, const struct peer *p, uint64_t incarnation)
{
	return p->rec.incarnation == incarnation && p->rec.state == NODE_LIVE && !watch_silent(mc, p);
}

/* Its record as it was seen a moment ago, if it is still about that incarnation, else as the store has it: many may ask at once. */
static int glance(struct metacache *mc, const char *node, uint64_t incarnation, int64_t age_us, struct peer *out, struct err *err)
{
	struct peer *p;
	bool fresh;
	int rc;

	pthread_mutex_lock(&mc->peers_lock);
	p = hmap_gets(&mc->peers, node);
	fresh = p && p->rec.incarnation == incarnation && !is_over(p) && mc_now(mc) - p->looked_us < (p->looking ? LOOK_US : age_us);
	if (fresh)
		*out = *p;
	else if (p)
		p->looking = true;
	pthread_mutex_unlock(&mc->peers_lock);
	if (fresh)
		return 1;
	rc = watch_observe(mc, node, out, err);
	pthread_mutex_lock(&mc->peers_lock);
	p = hmap_gets(&mc->peers, node);
	if (p)
		p->looking = false;
	pthread_mutex_unlock(&mc->peers_lock);
	return rc;
}

bool metacache_news(struct obox_cluster *c, const char *node, uint64_t incarnation)
{
	struct metacache *mc = (struct metacache *)c;
	struct err e = ERR_INIT;
	struct peer p;
	int rc = glance(mc, node, incarnation, NEWS_US, &p, &e);

	return rc == 0 || (rc == 1 && !lives(mc, &p, incarnation));
}

/* Who serves the users of that node, which is not over: itself, or another one that lives, has claimed it and can be reached. */
static bool served_by(struct metacache *mc, const struct peer *p, struct obox_owner *o)
{
	struct err e = ERR_INIT;
	struct peer claimer;

	if (p->rec.state == NODE_CLAIMED) {
		if (!strcmp(p->rec.claimer, mc->node) || !strcmp(p->rec.claimer, p->rec.node))
			return false;
		if (glance(mc, p->rec.claimer, p->rec.claimer_incarnation, BUSY_WAIT_US, &claimer, &e) != 1 || !lives(mc, &claimer, p->rec.claimer_incarnation) || !*claimer.rec.address)
			return false;
		p = &claimer;
	}
	snprintf(o->node, sizeof(o->node), "%s", p->rec.node);
	snprintf(o->address, sizeof(o->address), "%s", p->rec.address);
	o->incarnation = p->rec.incarnation;
	return true;
}

/* 1 what it left of the user is where it belongs, 0 not yet (*p), <0. */
static int settle_user(struct metacache *mc, const char *node, uint64_t incarnation, const char *user, struct peer *p, struct err *err)
{
	int rc = takeover_user(mc, node, incarnation, user, err);

	if (rc != 0)
		return rc;
	rc = glance(mc, node, incarnation, BUSY_WAIT_US, p, err);
	if (rc < 0)
		return rc;
	if (rc == 0 || p->rec.incarnation != incarnation || is_over(p))
		return 1;
	rc = settle(mc, p, err);
	return rc != 0 ? rc : takeover_user(mc, node, incarnation, user, err);
}

int watch_owner(struct metacache *mc, const char *node, uint64_t incarnation, const char *user, struct obox_owner *o, struct err *err)
{
	struct peer p;
	int rc, i;

	if (!strcmp(node, mc->node) || sim_broken("no-takeover"))
		return 0;	/* an earlier life, replayed at the start of this one */
	for (i = 0; i < BUSY_TRIES; i++) {
		rc = settle_user(mc, node, incarnation, user, &p, err);
		if (rc < 0)
			return rc;
		if (rc == 1)
			return 0;
		if (served_by(mc, &p, o))
			return 1;
		if (mc->cfg.stepped)
			break;
		usleep(BUSY_WAIT_US);	/* its claimer is itself, or this node that has to wait, or dead */
	}
	return err_set(err, ERR_BUSY, "node %s is being taken over by %s", node, p.rec.claimer);
}
