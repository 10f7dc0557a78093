/* The other nodes: who is silent, whose a root is, when to take over. */
#include "metacache/metacache-private.h"

#include "base/log.h"

#include <unistd.h>

enum { WATCHED = 2, BUSY_TRIES = 40, BUSY_WAIT_US = 50000, CLAIM_TTLS = 4 };

int watch_observe(struct metacache *mc, const char *node, struct peer *out, struct err *err)
{
	struct peer now = { 0 }, *p;
	int rc = node_get(mc, node, &now.rec, now.etag, err);

	if (rc <= 0)
		return rc;
	now.since_us = mc_now(mc);
	pthread_mutex_lock(&mc->peers_lock);
	p = hmap_gets(&mc->peers, node);
	if (!p) {
		p = mem_dup(&now, sizeof(now));
		hmap_put(&mc->peers, node, strlen(node), p);
	}
	if (p->rec.incarnation != now.rec.incarnation || p->rec.beat != now.rec.beat || p->rec.state != now.rec.state || strcmp(p->etag, now.etag) != 0) {
		now.forced = p->forced && p->rec.incarnation == now.rec.incarnation;
		*p = now;
	}
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

int watch_settle(struct metacache *mc, const char *node, uint64_t incarnation, struct peer *p, struct err *err)
{
	int rc;

	pthread_mutex_lock(&mc->takeover_lock);
	memset(p, 0, sizeof(*p));
	rc = watch_observe(mc, node, p, err);
	if (rc == 0 || (rc == 1 && (p->rec.incarnation != incarnation || p->rec.state == NODE_STOPPED || p->rec.state == NODE_DONE))) {
		pthread_mutex_unlock(&mc->takeover_lock);
		return 1;
	}
	if (rc == 1)
		rc = claimable(mc, p, err);
	if (rc == 1 && !mc_lease(mc))
		rc = 0;	/* who is cut off himself has seen nothing */
	if (rc == 1) {
		rc = take_over(mc, &p->rec, p->etag, err);
		rc = rc < 0 ? rc : 1;
	}
	pthread_mutex_unlock(&mc->takeover_lock);
	if (rc == ERR_CONFLICT) {
		err_clear(err);
		rc = 0;
	}
	return rc;
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

	pthread_mutex_lock(&mc->takeover_lock);
	rc = watch_observe(mc, node, p, err);
	if (rc == 1 && p->rec.state == NODE_LIVE && !watch_silent(mc, p)) {
		mark_forced(mc, node);
		rc = mc_lease(mc) ? node_claim(mc, &p->rec, p->etag, err) : err_set(err, ERR_UNAVAILABLE, "the store cannot be written now");
	}
	pthread_mutex_unlock(&mc->takeover_lock);
	return rc < 0 ? rc : 0;
}

/* It gave a sign less than a third of its TTL ago, so the next one is not due: looking now would tell nothing. */
static bool heard_of(struct metacache *mc, const char *node)
{
	const struct peer *p;
	bool heard;

	pthread_mutex_lock(&mc->peers_lock);
	p = hmap_gets(&mc->peers, node);
	heard = p && p->rec.state == NODE_LIVE && mc_now(mc) - p->since_us < (int64_t)p->rec.ttl_ms * 1000 / 3;
	pthread_mutex_unlock(&mc->peers_lock);
	return heard;
}

/* Those that come next in the ring are this node's to watch. */
static void watch_next(struct metacache *mc)
{
	size_t i, at = 0;
	struct peer p;

	while (at < mc->ring.n && strcmp(mc->ring.names[at], mc->node) <= 0)
		at++;
	for (i = 0; i < WATCHED && i < mc->ring.n; i++) {
		const char *node = mc->ring.names[(at + i) % mc->ring.n];
		struct err e = ERR_INIT;
		int rc;

		if (!strcmp(node, mc->node))
			break;
		if (heard_of(mc, node))
			continue;
		rc = watch_observe(mc, node, &p, &e);
		if (rc == 1 && claimable(mc, &p, &e) == 1)
			rc = watch_settle(mc, node, p.rec.incarnation, &p, &e);
		if (rc == 0 || (rc == 1 && (p.rec.state == NODE_STOPPED || p.rec.state == NODE_DONE)))
			rc = ring_change(mc, node, false, &e);
		if (rc < 0)
			log_event(LOG_DBG, "node cannot be watched now", LF_S("node", node), LF_ERR(&e), LF_END);
	}
}

int64_t watch_step(struct metacache *mc)
{
	int64_t now = mc_now(mc), step = mc_ttl_us(mc) / 10 < 500000 ? mc_ttl_us(mc) / 10 : 500000;
	char etag[OBJ_ETAG_MAX];
	struct err e = ERR_INIT;
	struct ring r;
	size_t n;

	if (atomic_load(&mc->fenced))
		return step;
	if (now >= mc->next_ring_us) {
		mc->next_ring_us = now + mc_ttl_us(mc) / 2;
		if (atomic_load(&mc->draining) && operate_look_around(mc, &n, &e) < 0)
			log_event(LOG_WARN, "the other nodes cannot be looked up now", LF_ERR(&e), LF_END);
		err_clear(&e);
		if (ring_get(mc, &r, etag, &e) == 0) {
			ring_free(&mc->ring);
			mc->ring = r;
		}
	}
	if (now >= mc->next_watch_us) {
		mc->next_watch_us = now + step;
		watch_next(mc);
	}
	now = mc->next_watch_us - mc_now(mc);
	return now > 0 ? now : 0;
}

int watch_owner(struct metacache *mc, const char *node, uint64_t incarnation, struct obox_owner *o, struct err *err)
{
	struct peer p;
	int rc, i;

	if (!strcmp(node, mc->node) || sim_broken("no-takeover"))
		return 0;	/* an earlier life, replayed at the start of this one */
	for (i = 0; i < BUSY_TRIES; i++) {
		rc = watch_settle(mc, node, incarnation, &p, err);
		if (rc < 0)
			return rc;
		if (rc == 1)
			return 0;
		if (p.rec.state == NODE_LIVE) {
			snprintf(o->node, sizeof(o->node), "%s", node);
			snprintf(o->address, sizeof(o->address), "%s", p.rec.address);
			o->incarnation = incarnation;
			return 1;
		}
		if (mc->cfg.stepped)
			break;
		usleep(BUSY_WAIT_US);	/* somebody is taking it over right now */
	}
	return err_set(err, ERR_BUSY, "node %s is being taken over by %s", node, p.rec.claimer);
}
