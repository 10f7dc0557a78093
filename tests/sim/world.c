/* The driver: nodes live, die, sleep and are cut off while clients work. */
#include "tests/sim/sim.h"

#include "crypt/seal.h"
#include "metacache/metacache.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NODES_MAX = 5, LIVES_MAX = 512, CLIENTS_MAX = 6, HEAL_S = 300, PROBE_ROUNDS = 5 };
#define WALL_BASE INT64_C(1800000000000000)

uint64_t sim_seed, sim_step;
const char *sim_break;
char sim_dir[64];

static struct world {
	struct seal_keys *keys;
	struct node nodes[NODES_MAX];
	unsigned n_nodes, n_lives, served_by[USERS];
	unsigned ttl_ms, timeout_ms, flag_ms;
	uint64_t grace_s, cache_bytes;
	bool disks;			/* nodes keep copies there */
	int64_t step_us;
	unsigned violence, skew;	/* how often something happens to nodes; clock rates */
	unsigned probe_rounds;		/* each start tries the store: so many races; 0: it does not */
	uint64_t takeovers;
} W;

bool sim_broken(const char *name)
{
	const char *p = sim_break;
	size_t n = strlen(name);

	for (; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
		if (!strncmp(p, name, n) && (p[n] == '\0' || p[n] == ','))
			return true;
	return false;
}

/* --- clocks --- */

int64_t node_mono(const struct node *n)
{
	return n->mono_offset + sim_now * n->rate / 1000;
}

int64_t node_wall(const struct node *n)
{
	return WALL_BASE + n->wall_offset + sim_now * n->rate / 1000;
}

int64_t node_mono_at(const struct node *n, int64_t mono)
{
	int64_t at = (mono - n->mono_offset) * 1000 / n->rate + 1;

	return at > sim_now ? at : sim_now;
}

static int64_t clock_wall(void *ctx)
{
	return node_wall(ctx);
}

static int64_t clock_mono(void *ctx)
{
	return node_mono(ctx);
}

/* --- lives --- */

void life_trouble(struct life *l)
{
	l->trouble = sim_now;
}

void life_crash(struct life *l)
{
	if (sim_task) {
		l->dying = true;
		sched_block();
		abort();
	}
	trace("node %s (life %u) dies", l->node->name, l->id);
	l->dead = true;
	sched_drop(l);
	model_life_over(l);
	if (l->node->life == l)
		l->node->life = NULL;
	l->node->start_at = sim_now + (rnd_below(3) ? rnd_exp(500000) : rnd_exp(W.ttl_ms * 3000));
	l->node->paused_until = 0;
}

static void on_fenced(void *ctx)
{
	struct life *l = ctx;

	l->fenced = true;
}

static void *upkeep_main(void *arg)
{
	struct life *l = arg;

	while (!l->closing) {
		obox_upkeep(l->ob);
		sched_sleep(500000 + rnd_exp(500000));
	}
	l->clients--;
	return NULL;
}

static void *tend_main(void *arg)
{
	struct life *l = arg;

	while (!l->closing) {
		sched_sleep(500000 + rnd_exp(500000));
		obox_tend(l->ob);
	}
	l->clients--;
	return NULL;
}

static void *life_main(void *arg)
{
	struct life *l = arg;
	char dir[96];
	struct clock *clock = mem_dup(&(struct clock){ clock_wall, clock_mono, l->node }, sizeof(*clock));
	struct metacache_config m = { .tail_pieces = 64, .store = l->store, .prefix = "s", .node = l->node->name, .address = l->node->name, .ttl_ms = W.ttl_ms,
				      .commit_timeout_ms = W.timeout_ms, .flag_commit_delay_ms = W.flag_ms, .clock = clock, .fenced = on_fenced, .ctx = l };
	struct obox_config cfg = { .state_dir = dir, .mail_store = l->store, .index_store = l->store, .prefix = "s", .node = l->node->name,
				   .keys = W.keys, .flag_commit_delay_ms = W.flag_ms, .grace_s = W.grace_s, .cache_bytes = W.cache_bytes, .clock = clock };
	struct err err = ERR_INIT;
	int rc;

	if (W.probe_rounds && !life_probes(l, W.probe_rounds))
		life_crash(l);
	rc = metacache_new(&m, &l->mc, &err);
	snprintf(dir, sizeof(dir), "%s/%u", sim_dir, l->id);	/* nothing local survives a life but a cache */
	cfg.cluster = l->mc;
	if (W.disks)
		cfg.cache = cache_of_life(l);
	if (rc == 0)
		rc = obox_open(&cfg, &l->ob, &err);
	if (rc < 0) {
		trace("node %s cannot start: %s", l->node->name, err.msg);
		life_crash(l);
	}
	trace("node %s is up", l->node->name);
	l->up = true;
	l->clients += 2;
	sched_task(l, "upkeep", upkeep_main, l)->may_list = true;
	sched_task(l, "tend", tend_main, l)->may_list = true;
	return NULL;
}

static void start(struct node *n)
{
	struct life *l;

	if (W.n_lives == LIVES_MAX)
		return;
	l = MEM_NEW(struct life);
	l->id = ++W.n_lives;
	l->node = n;
	l->crash_in = -1;
	l->trouble = sim_now;
	n->life = l;
	n->mono_offset = (int64_t)rnd_below(INT64_C(100000000000));
	n->rate = 1000 - W.skew / 2 + (unsigned)rnd_below(W.skew + 1);
	trace("node %s starts (life %u), clock rate %u/1000", n->name, l->id, n->rate);
	l->store = store_of_life(l);
	sched_task(l, "start", life_main, l);
}

static void *close_main(void *arg)
{
	struct life *l = arg;

	l->closing = true;
	while (l->clients)
		sched_sleep(5000);
	obox_close(&l->ob);
	metacache_free(&l->mc);
	trace("node %s ended by itself", l->node->name);
	life_crash(l);	/* there is nothing left of it */
	return NULL;
}

static void pause_node(struct node *n, int64_t us)
{
	n->frozen_since = rnd_below(2) ? sim_now : 0;	/* as a suspended machine's, whose monotonic clock stands still */
	trace("node %s is stopped for %.3f s%s", n->name, (double)us / 1e6, n->frozen_since ? ", its clock too" : "");
	life_trouble(n->life);
	n->life->paused = true;
	n->paused_until = sim_now + us;
}

static void cut(struct node *n, enum link how, int64_t us)
{
	trace("node %s: %s for %.3f s", n->name, how == LINK_DOWN ? "cut off" : "hears no answers", (double)us / 1e6);
	if (n->life)
		life_trouble(n->life);
	n->link = how;
	n->link_until = sim_now + us;
}

/* What ends or begins by itself. */
static void tick_node(struct node *n)
{
	if (n->life && n->life->paused && sim_now >= n->paused_until) {
		trace("node %s goes on", n->name);
		life_trouble(n->life);
		n->life->paused = false;
		if (n->frozen_since)
			n->mono_offset -= (sim_now - n->frozen_since) * n->rate / 1000;
		sched_unpark(n->life);
	}
	if (n->link != LINK_UP) {
		if (n->life)
			life_trouble(n->life);
		if (sim_now >= n->link_until) {
			n->link = LINK_UP;
			trace("node %s: link is up", n->name);
		}
	}
	if (n->life && n->life->fenced && !n->life->paused && rnd_permille(20))
		life_crash(n->life);
	if (!n->life && sim_now >= n->start_at)
		start(n);
}

static void tick(void)
{
	unsigned i;

	for (i = 0; i < W.n_nodes; i++)
		tick_node(&W.nodes[i]);
}

int64_t sim_flag_delay(void)
{
	return W.flag_ms * INT64_C(1000000) / (1000 - W.skew / 2);
}

/* --- what happens --- */

static int64_t some_time(void)
{
	switch (rnd_below(3)) {
	case 0:
		return rnd_exp(W.ttl_ms * 200);
	case 1:
		return rnd_exp(W.ttl_ms * 1000);
	default:
		return W.ttl_ms * 1000 + rnd_exp(W.ttl_ms * 2000);
	}
}

static void harm(struct node *n)
{
	struct life *l = n->life;

	if (!l)
		return;
	switch (rnd_below(10)) {
	case 8:
	case 9:
		if (l->up && !l->closing && l->clients < CLIENTS_MAX)
			client_operate(l, rnd_below(3) ? W.nodes[rnd_below(W.n_nodes)].name : NULL, rnd_below(2));
		break;
	case 0:
	case 1:
		l->crash_in = (int)rnd_below(rnd_below(2) ? 6 : 40);
		l->crash_after = rnd_below(2);
		trace("node %s will die at its store call %d", n->name, l->crash_in);
		break;
	case 2:
		life_crash(l);
		break;
	case 3:
	case 4:
		if (!l->paused)
			pause_node(n, some_time());
		break;
	case 5:
		cut(n, rnd_below(2) ? LINK_DOWN : LINK_NO_ANSWERS, some_time());
		break;
	case 6:
		n->wall_offset += rnd_exp(rnd_below(2) ? 3600000000 : 5000000) * (rnd_below(2) ? 1 : -1);
		trace("node %s: wall clock jumps", n->name);
		break;
	default:
		if (l->up && !l->closing)
			sched_task(l, "close", close_main, l);
	}
}

static struct life *pick_life(unsigned user, bool stray)
{
	struct life *l = W.nodes[stray ? rnd_below(W.n_nodes) : W.served_by[user]].life;

	if (!l || !l->up || l->closing || l->dead || l->clients >= CLIENTS_MAX + 2)
		return NULL;
	return l;
}

void world_served(unsigned user, const char *node)
{
	unsigned i;

	for (i = 0; i < W.n_nodes; i++)
		if (!strcmp(W.nodes[i].name, node))
			W.served_by[user] = i;
}

void world_release(unsigned user)
{
	struct life *l = pick_life(user, false);

	if (l)
		client_release(l, user);
}

static void client(void)
{
	unsigned user = (unsigned)rnd_below(USERS);
	struct life *l = pick_life(user, rnd_permille(150));
	unsigned what = (unsigned)rnd_below(100);
	bool ok;

	if (!l || (what >= 8 && what < 17 && rnd_below(2)))
		l = pick_life(user, true);
	if (!l)
		return;
	if (what < 8)
		client_check(l, user, false, &ok);
	else if (what < 12)
		client_release(l, user);
	else if (what < 17)
		client_flush(l, user, rnd_below(4) == 0);
	else
		client_start(l, user);
}

static void step(void)
{
	tick();
	if (rnd_permille(W.violence))
		harm(&W.nodes[rnd_below(W.n_nodes)]);
	else
		client();
	sched_run(rnd_permille(5) ? rnd_exp(W.ttl_ms * 1000) : rnd_exp(W.step_us));
}

/* --- a seed --- */

static unsigned one_of(unsigned a, unsigned b, unsigned c, unsigned d)
{
	unsigned v[] = { a, b, c, d };

	return v[rnd_below(4)];
}

static void choose_faults(void)
{
	unsigned level = one_of(0, 1, 1, 4);
	struct store_faults *f = &store_faults;

	f->latency_us = one_of(1000, 4000, 4000, 15000);
	f->slow = one_of(0, 5, 20, 50);
	f->slow_us = one_of(50000, 200000, 200000, 1000000);
	f->lost = level * (unsigned)rnd_below(8);
	f->lost_answer = level * (unsigned)rnd_below(10);
	f->late = level * (unsigned)rnd_below(8);
	f->duplicate = level * (unsigned)rnd_below(10);
	f->throttle = level * (unsigned)rnd_below(8);
	f->error = level * (unsigned)rnd_below(8);
	f->error_after = level * (unsigned)rnd_below(8);
	f->conflict = level * (unsigned)rnd_below(8);
	if (sim_broken("store-ignores-conditions"))	/* from when it was tried on */
		f->kind = STORE_IGNORES_BOTH;
	else if (sim_store >= 0)
		f->kind = sim_store == STORE_KINDS ? (enum store_kind)(sim_seed % STORE_KINDS) : (enum store_kind)sim_store;
}

static void create_world(void)
{
	unsigned i;

	memset(&W, 0, sizeof(W));
	W.keys = seal_keys_ephemeral();
	W.n_nodes = 2 + (unsigned)rnd_below(3);
	W.ttl_ms = one_of(1500, 3000, 3000, 6000);
	W.timeout_ms = one_of(400, 1000, 1000, 2500);
	W.flag_ms = one_of(0, 300, 1000, 1000);
	W.grace_s = one_of(1, 5, 604800, 604800);
	W.cache_bytes = rnd_below(4) ? 0 : 1;
	W.disks = rnd_below(4) != 0;
	W.step_us = one_of(2000, 10000, 10000, 40000);
	W.violence = one_of(0, 20, 40, 100);
	W.skew = one_of(0, 2, 100, 500);
	sched_set_preempt(one_of(0, 50, 200, 500));
	choose_faults();
	for (i = 0; i < W.n_nodes; i++) {
		snprintf(W.nodes[i].name, sizeof(W.nodes[i].name), "n%u", i + 1);
		W.nodes[i].rate = 1000;
		if (i)
			W.nodes[i].start_at = sim_now + rnd_exp(300000);
	}
	trace("world: %u nodes, TTL %u ms, commit timeout %u ms, flags %u ms, step %d us, violence %u, skew %u", W.n_nodes, W.ttl_ms,
	      W.timeout_ms, W.flag_ms, (int)W.step_us, W.violence, W.skew);
}

/* Everything is well again. */
static void heal(void)
{
	struct store_faults calm = { .latency_us = store_faults.latency_us, .kind = store_faults.kind };
	unsigned i;

	store_faults = calm;
	for (i = 0; i < W.n_nodes; i++) {
		W.nodes[i].link_until = W.nodes[i].paused_until = sim_now;
		if (W.nodes[i].life)
			W.nodes[i].life->crash_in = -1;
	}
	tick();
}

static void end_nodes(unsigned how)
{
	unsigned i;

	for (i = 0; i < W.n_nodes; i++) {
		struct life *l = W.nodes[i].life;

		W.nodes[i].start_at = INT64_MAX;
		if (!l)
			continue;
		if (how == 0 || !l->up)
			life_crash(l);
		else if (how == 1 && !l->closing)
			sched_task(l, "close", close_main, l);
		else if (how == 2)
			pause_node(&W.nodes[i], INT64_C(3600000000));
		W.nodes[i].start_at = INT64_MAX;
	}
}

/* A machine that has seen nothing so far finds everything in the store. */
static void read_all_afresh(void)
{
	struct node *n = &W.nodes[W.n_nodes++];
	bool ok[USERS] = { false };
	int64_t end = sim_now + HEAL_S * INT64_C(1000000);
	unsigned i, left = USERS;

	snprintf(n->name, sizeof(n->name), "fresh");
	n->rate = 1000;
	start(n);
	while (left && sim_now < end && violated_promise < 0) {
		sched_run(500000);
		if (!n->life && sim_now >= n->start_at)
			start(n);
		for (i = left = 0; i < USERS; i++) {
			left += !ok[i];
			if (!ok[i] && n->life && n->life->up && n->life->clients <= 2)
				client_check(n->life, i, true, &ok[i]);
		}
	}
	for (i = 0; i < USERS && violated_promise < 0; i++)
		if (!ok[i])
			sched_tell(), violation(1, "user %s cannot be read %d s after everything was mended", user_name_of(i), HEAL_S);
}

/* On a store that is not good a machine that comes now refuses it, too. */
static void refused_afresh(void)
{
	struct node *n = &W.nodes[W.n_nodes++];
	uint64_t before = sim_probes.refused;
	int64_t end = sim_now + HEAL_S * INT64_C(1000000);

	snprintf(n->name, sizeof(n->name), "fresh");
	n->rate = 1000;
	n->start_at = sim_now;
	while (sim_probes.refused == before && sim_now < end && violated_promise < 0) {
		if (!n->life && sim_now >= n->start_at)
			start(n);
		sched_run(500000);
	}
	if (sim_probes.refused == before && violated_promise < 0)
		violation(6, "a store of the kind %s is not refused %d s after everything was mended", store_kinds[store_faults.kind], HEAL_S);
}

static void begin(uint64_t seed)
{
	rnd_seed(seed);
	sched_reset();
	store_reset();
	model_reset();
	create_world();
}

/* The first node tries the store, again and again while the network does not let it, and whatever happens to it.  Then the world
 * begins anew: its chances are its own, so that a seed's world is the same whatever the probe asks for. */
static void first_start(uint64_t seed)
{
	struct node *n = &W.nodes[0];
	int64_t end;

	begin(~seed);
	store_faults.kind = STORE_GOOD;
	W.probe_rounds = 1;
	end = sim_now + HEAL_S * INT64_C(1000000);
	while (!sim_probes.passed && violated_promise < 0) {
		if (sim_now >= end)
			heal();		/* a network may be too bad for ever */
		if (sim_now >= 2 * end)
			violation(6, "a good store could not be tried within %d s after everything was mended", HEAL_S);
		tick_node(n);
		if (rnd_permille(W.violence / 4))
			harm(n);
		sched_run(rnd_exp(50000));
	}
}

void world_run(uint64_t seed, unsigned steps, struct sim_result *r)
{
	unsigned how;

	sim_seed = seed;
	sim_step = 0;
	violated_promise = -1;
	if (sim_store < 0)
		first_start(seed);
	begin(seed);
	W.probe_rounds = sim_store < 0 ? 0 : PROBE_ROUNDS;
	for (sim_step = 1; sim_step <= steps && violated_promise < 0; sim_step++)
		step();
	heal();
	sched_run(rnd_below(2) ? rnd_exp(2000000) : 3000000);
	how = (unsigned)rnd_below(4);
	end_nodes(how);
	if (sim_store < 0 || store_faults.kind == STORE_GOOD)
		read_all_afresh();
	else
		refused_afresh();
	memset(r, 0, sizeof(*r));
	r->steps = sim_step - 1;
	r->switches = sim_switches;
	r->requests = store_requests;
	r->faults = store_faulted;
	r->acked = sim_counts.acked;
	r->failed = sim_counts.failed;
	r->checks = sim_counts.checks;
	r->lives = W.n_lives;
	r->probes = sim_probes;
	r->virtual_us = sim_now;
	r->promise = violated_promise;
	snprintf(r->text, sizeof(r->text), "%s", violated);
}
