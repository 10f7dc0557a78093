/* What operators ask of a node: to give its users away, and to take over another now. */
#include "metacache/metacache-private.h"

#include "base/log.h"

#include <sodium.h>
#include <unistd.h>

enum { ADOPT_SLACK_MS = 60000 };

static struct metacache *mc_of(struct obox_cluster *c)
{
	return (struct metacache *)c;
}

/* --- draining --- */

/* May it get users of this one?  Whether it gives signs is seen from one look to the next. */
static bool takes_users(const struct metacache *mc, const struct peer *p)
{
	return p->rec.state == NODE_LIVE && !p->rec.draining && *p->rec.address && strcmp(p->rec.node, mc->node) != 0 && !watch_silent(mc, p);
}

/* What cannot be read now leaves the list as it was. */
int operate_look_around(struct metacache *mc, size_t *n_r, struct err *err)
{
	struct obox_owner *list, *old;
	char etag[OBJ_ETAG_MAX];
	struct ring ring;
	size_t n = 0, i;
	int rc = ring_get(mc, &ring, etag, err);

	if (rc < 0)
		return rc;
	list = mem_calloc(ring.n + 1, sizeof(*list));
	for (i = 0; i < ring.n; i++) {
		struct err e = ERR_INIT;
		struct peer p;

		if (!strcmp(ring.names[i], mc->node) || watch_observe(mc, ring.names[i], &p, &e) != 1 || !takes_users(mc, &p))
			continue;
		memcpy(list[n].node, p.rec.node, sizeof(list[n].node));
		memcpy(list[n].address, p.rec.address, sizeof(list[n].address));
		list[n++].incarnation = p.rec.incarnation;
	}
	ring_free(&ring);
	pthread_mutex_lock(&mc->peers_lock);
	old = mc->others;
	mc->others = list;
	mc->n_others = n;
	pthread_mutex_unlock(&mc->peers_lock);
	free(old);
	*n_r = n;
	return 0;
}

/* The highest wins: each user goes to one and the same node as long as that one is there. */
static uint64_t weight(const char *user, const char *node)
{
	unsigned char h[16];
	crypto_generichash_state st;
	uint64_t w;

	crypto_generichash_init(&st, NULL, 0, sizeof(h));
	crypto_generichash_update(&st, (const unsigned char *)user, strlen(user) + 1);
	crypto_generichash_update(&st, (const unsigned char *)node, strlen(node));
	crypto_generichash_final(&st, h, sizeof(h));
	memcpy(&w, h, sizeof(w));
	return w;
}

/* A user of a node that is being taken over right here stays: the root may still name that node, so the others would only send
 * whoever asks back to this one. */
bool operate_elsewhere(struct metacache *mc, const char *node, uint64_t incarnation, const char *user, struct obox_owner *o)
{
	uint64_t best = 0;
	size_t i;

	if (!atomic_load(&mc->draining) || takeover_runs(mc, node, incarnation))
		return false;
	pthread_mutex_lock(&mc->peers_lock);
	for (i = 0; i < mc->n_others; i++) {
		uint64_t w = weight(user, mc->others[i].node);

		if (i && w <= best)
			continue;
		best = w;
		*o = mc->others[i];
	}
	i = mc->n_others;
	pthread_mutex_unlock(&mc->peers_lock);
	return i > 0;
}

bool metacache_draining(struct obox_cluster *c)
{
	return atomic_load(&mc_of(c)->draining);
}

int metacache_drain(struct obox_cluster *c, bool on, bool force, struct err *err)
{
	struct metacache *mc = mc_of(c);
	bool was = atomic_load(&mc->draining);
	size_t n = 0;
	int rc = 0;

	if (on)
		rc = operate_look_around(mc, &n, err);
	if (rc == 0 && on && !n && !force)
		rc = err_set(err, ERR_UNAVAILABLE, "there is no other node that takes users: each needs \"listen node\", and must not be draining itself");
	if (rc < 0)
		return rc;
	atomic_store(&mc->draining, on);
	rc = mc_beat(mc, err);
	if (rc < 0)
		atomic_store(&mc->draining, was);
	if (rc == 0 && was != on)
		log_event(LOG_INF, on ? "node is being drained: it takes no new users" : "node takes users again", LF_S("node", mc->node), LF_END);
	return rc;
}

/* --- adopting --- */

struct adopt {
	struct metacache *mc;
	const char *node;
	bool force;
	void (*say)(void *ctx, const char *text);
	void *ctx;
	uint64_t incarnation, beat;	/* as it was first seen */
};

static void say(const struct adopt *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(const struct adopt *a, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	a->say(a->ctx, text);
}

static int look(const struct adopt *a, struct peer *p, struct err *err)
{
	struct err e = ERR_INIT;
	int rc = watch_observe(a->mc, a->node, p, &e);

	if (atomic_load(&a->mc->fenced))
		return err_set(err, ERR_FENCED, "this node itself was taken over");
	if (rc == ERR_CORRUPT)
		return err_set(err, rc, "the record of node %s is damaged (%.150s), and without it nobody can tell where its journal begins: its users wait. Stop that node if it runs and "
			       "start it again once it is repaired; bring the object back from a backup of the store if there is one; else culverctl store delete --store index KEY "
			       "gives its journal up: what it acknowledged in its last minutes may be lost, mail can be found again by culverctl rebuild USER", a->node, e.msg);
	if (rc == 0)
		return err_set(err, ERR_NOTFOUND, "there is no node %s: culverctl node list names them", a->node);
	return rc < 0 ? err_set(err, rc, "%s", e.msg) : 0;
}

/* Until it has given no sign for a TTL; <0 it lives. */
static int wait_for_silence(struct adopt *a, struct peer *p, struct err *err)
{
	int rc = 0;

	say(a, "watching node %s for %llu s: does it give a sign of life?", a->node, (unsigned long long)(p->rec.ttl_ms + 999) / 1000);
	while (rc == 0 && p->rec.state == NODE_LIVE && !watch_silent(a->mc, p)) {
		usleep((useconds_t)mc_ttl_us(a->mc) / 40);
		rc = look(a, p, err);
		if (rc == 0 && p->rec.state == NODE_LIVE && (p->rec.incarnation != a->incarnation || p->rec.beat != a->beat))
			return err_set(err, ERR_BUSY, "node %s lives: it wrote its heartbeat just now. Stop it, drain it, or use --force to fence it", a->node);
	}
	return rc;
}

/* Its record is claimed: until somebody has replayed its journal. */
static int wait_for_replay(struct adopt *a, struct err *err)
{
	int64_t end = mc_now(a->mc) + 2 * mc_ttl_us(a->mc) + ADOPT_SLACK_MS * INT64_C(1000);
	struct peer p;
	int rc;

	while ((rc = watch_settle(a->mc, a->node, a->incarnation, &p, err)) == 0) {
		if (atomic_load(&a->mc->fenced))
			return err_set(err, ERR_FENCED, "this node itself was taken over");
		if (mc_now(a->mc) > end)
			return err_set(err, ERR_BUSY, "node %s is not taken over yet: %s is at it", a->node, p.rec.claimer);
		usleep((useconds_t)mc_ttl_us(a->mc) / 40);
	}
	return rc < 0 ? rc : 0;
}

static int adopt(struct adopt *a, struct err *err)
{
	struct peer p;
	int rc = look(a, &p, err);

	if (rc < 0)
		return rc;
	a->incarnation = p.rec.incarnation;
	a->beat = p.rec.beat;
	if (p.rec.state == NODE_STOPPED || p.rec.state == NODE_DONE) {
		say(a, "node %s has ended; there is nothing of it to take over", a->node);
		return 0;
	}
	if (p.rec.state == NODE_LIVE && !a->force)
		rc = wait_for_silence(a, &p, err);
	if (rc == 0 && p.rec.state == NODE_LIVE && a->force) {
		rc = watch_claim(a->mc, a->node, &p, err);
		if (rc == 0 && !watch_silent(a->mc, &p))
			say(a, "node %s is claimed; its lease is waited out for %llu s", a->node, (unsigned long long)(p.rec.ttl_ms + 999) / 1000);
		if (rc == ERR_CONFLICT)
			return err_set(err, ERR_BUSY, "node %s changed its record at that moment: try again", a->node);
	}
	if (rc == 0 && p.rec.state == NODE_CLAIMED && strcmp(p.rec.claimer, a->mc->node) != 0)
		say(a, "node %s is being taken over by %s", a->node, p.rec.claimer);
	if (rc == 0)
		rc = wait_for_replay(a, err);
	if (rc == 0)
		say(a, "node %s is taken over: its users can be served by any node", a->node);
	return rc;
}

int metacache_adopt(struct obox_cluster *c, const char *node, bool force, void (*tell)(void *ctx, const char *text), void *ctx, struct err *err)
{
	struct adopt a = { .mc = mc_of(c), .node = node, .force = force, .say = tell, .ctx = ctx };
	char *key = node_key(a.mc, node);
	bool valid = *node && strlen(node) < 64 && !strchr(node, '/') && objstore_key_valid(key);

	free(key);
	if (!valid)
		return err_set(err, ERR_INVALID, "\"%s\" is no name of a node", node);
	if (!strcmp(node, a.mc->node))
		return err_set(err, ERR_INVALID, "node %s is this very node", node);
	return adopt(&a, err);
}
