/* Three nodes, a store that fails, loses answers and lets writes arrive late,
 * nodes that die, sleep past their TTL and wake: from a seed, on a virtual
 * clock, without threads.  A model knows what was acknowledged.
 *
 *   t_sim [first seed] [seeds]		the seeds of a failure are printed */
#include "tests/metacache/cluster.h"

#include <stdlib.h>

enum { USERS = 3, UIDS = 600, STEPS = 160 };

enum fate { NONE, THERE, MAYBE_GONE, GONE };	/* of a UID that was acknowledged */
struct model {
	enum fate fate[UIDS];
	int number[UIDS];	/* what the UID names; 0: never told */
	uint32_t last;		/* the highest UID that was acknowledged */
	uint32_t uidvalidity;
	uint32_t boxed;		/* copies and moves to "box" that were acknowledged */
};

struct sim {
	struct cluster *c;
	uint64_t rng;
	bool asleep[NODES];
	struct model m[USERS];
	int next_number;
	uint64_t seed, acked, refused, checks, takeovers;
};

static uint64_t first_seed = 1, n_seeds = 60;
static bool verbose;	/* a third argument: what happens, with the log */

static uint32_t roll(struct sim *s, uint32_t n)
{
	s->rng = s->rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(s->rng >> 33) % n;
}

static const char *user_name(uint32_t k)
{
	static const char *const names[] = { "ann", "bob", "cid" };

	return names[k];
}

static void wrong(struct sim *s, uint32_t k, uint32_t uid, const char *what)
{
	fail_msg("seed %llu: user %s UID %u: %s", (unsigned long long)s->seed, user_name(k), uid, what);
}

/* Is what the node shows compatible with what was acknowledged? */
static void compare(struct sim *s, uint32_t k, struct obox_user *u)
{
	struct model *m = &s->m[k];
	struct obox_view *v;
	struct obox_status st;
	struct obox_msg list[UIDS];
	bool seen[UIDS] = { false };
	size_t n, i;
	uint32_t uid;

	if (obox_view_open(u, "INBOX", true, NULL, NULL, &v, &s->c->err) < 0) {
		err_clear(&s->c->err);
		return;
	}
	obox_view_status(v, &st);
	if (m->uidvalidity && m->uidvalidity != st.uidvalidity && m->last)
		wrong(s, k, 0, "UIDVALIDITY changed");
	m->uidvalidity = st.uidvalidity;
	n = obox_view_read(v, 1, list, UIDS);
	obox_view_close(&v);
	for (i = 0; i < n; i++) {
		seen[list[i].uid] = true;
		if (m->fate[list[i].uid] == GONE)
			wrong(s, k, list[i].uid, "expunged and acknowledged, and there again");
	}
	for (uid = 1; uid < UIDS; uid++)
		if (m->fate[uid] == THERE && !seen[uid])
			wrong(s, k, uid, "acknowledged and not there");
	s->checks++;
}

/* Once the store answers: every message has its bytes. */
static void compare_bytes(struct sim *s, uint32_t k, struct obox_user *u)
{
	struct model *m = &s->m[k];
	struct obox_check c = { .bodies = true };
	uint32_t uid;

	for (uid = 1; uid < UIDS; uid++)
		if (m->fate[uid] == THERE && !has_message(s->c, u, "INBOX", uid, m->number[uid]))
			wrong(s, k, uid, "names other bytes, or none");
	if (m->boxed && (count_of(u, "box") == UINT32_MAX || count_of(u, "box") < m->boxed))
		wrong(s, k, 0, "copies are missing");
	if (obox_check(u, &c, &s->c->err) < 0)
		fail_msg("seed %llu: check: %s", (unsigned long long)s->seed, s->c->err.msg);
	if (c.missing || c.damaged)
		wrong(s, k, 0, "check finds damage");
}

static void save(struct sim *s, int i, uint32_t k, struct obox_user *u)
{
	struct model *m = &s->m[k];
	int number = ++s->next_number;
	uint32_t uid;

	if (do_save(s->c, i, u, "INBOX", number, &uid) < 0) {
		s->refused++;
		return;
	}
	s->acked++;
	if (verbose)
		print_message("# t %lld node %d %s: UID %u is message %d\n", (long long)s->c->now_us / 1000, i, user_name(k), uid, number);
	assert_true(uid < UIDS);
	if (m->fate[uid] != NONE)
		wrong(s, k, uid, "given out twice");
	if (uid <= m->last)
		wrong(s, k, uid, "given out behind a greater one");
	m->fate[uid] = THERE;
	m->number[uid] = number;
	m->last = uid;
}

/* A node that slept shows what it had: what it does not know it cannot change. */
static bool known_here(struct obox_user *u, uint32_t uid)
{
	struct err err = ERR_INIT;
	struct obox_view *v;
	bool known;

	if (obox_view_open(u, "INBOX", true, NULL, NULL, &v, &err) < 0)
		return false;
	known = obox_view_seq(v, uid, false) != 0;
	obox_view_close(&v);
	return known;
}

static void expunge(struct sim *s, uint32_t k, struct obox_user *u)
{
	struct model *m = &s->m[k];
	uint32_t uid = m->last ? 1 + roll(s, m->last) : 0;
	int rc;

	if (!uid || m->fate[uid] != THERE || !known_here(u, uid))
		return;
	rc = do_expunge(u, "INBOX", uid, uid);
	m->fate[uid] = rc == 0 ? GONE : MAYBE_GONE;
}

static void move(struct sim *s, uint32_t k, struct obox_user *u)
{
	struct model *m = &s->m[k];
	uint32_t uid = m->last ? 1 + roll(s, m->last) : 0;
	bool is_move = roll(s, 2);
	int rc = obox_mailbox_create(u, "box", 0, &s->c->err);

	err_clear(&s->c->err);
	if (!uid || m->fate[uid] != THERE || !known_here(u, uid) || (rc < 0 && rc != ERR_EXISTS))
		return;
	rc = do_copy(u, "INBOX", uid, uid, "box", is_move);
	if (is_move)
		m->fate[uid] = rc == 0 ? GONE : MAYBE_GONE;
	if (rc == 0 && ++m->boxed)
		s->acked++;
}

static void use(struct sim *s, int i)
{
	uint32_t k = roll(s, USERS), what = roll(s, 20);
	struct cluster *c = s->c;
	struct obox_owner o;
	struct obox_user *u;
	int rc, n = (int)roll(s, 4);

	err_clear(&c->err);
	rc = obox_user_locate(c->node[i].ob, user_name(k), &u, &o, &c->err);
	err_clear(&c->err);
	if (rc < 0) {
		if (rc == ERR_BUSY && o.node[0] && roll(s, 2)) {	/* ask for it */
			int owner = o.node[1] - '0';

			if (c->node[owner].ob && !s->asleep[owner])
				obox_user_release(c->node[owner].ob, user_name(k), &c->err);
			err_clear(&c->err);
		}
		return;
	}
	if (!obox_fenced(c->node[i].ob) && do_flag(u, "INBOX", 1 + roll(s, 20), OBOX_SEEN) == 0 && s->m[k].last == 0)
		compare(s, k, u);
	while (n-- > 0)
		save(s, i, k, u);
	if (what < 4)
		expunge(s, k, u);
	else if (what < 6)
		move(s, k, u);
	else if (what < 8)
		obox_flush(c->node[i].ob, user_name(k), &c->err);
	err_clear(&c->err);
	obox_user_close(&u);
	if (what == 9)
		obox_flush(c->node[i].ob, NULL, &c->err);
	if (what == 8)
		obox_user_release(c->node[i].ob, user_name(k), &c->err);
	err_clear(&c->err);
}

static void pass(struct sim *s, int64_t ms)
{
	struct cluster *c = s->c;
	int64_t end = c->now_us + ms * 1000;
	int i;

	while (c->now_us < end) {
		c->now_us += c->ttl_ms * 1000 / 20;
		for (i = 0; i < 3; i++)
			if (c->node[i].ob && !s->asleep[i]) {
				metacache_step(c->node[i].mc);
				obox_upkeep(c->node[i].ob);
				obox_tend(c->node[i].ob);
			}
	}
}

static void step(struct sim *s)
{
	struct cluster *c = s->c;
	int i = (int)roll(s, 3);
	uint32_t what = roll(s, 100);

	if (verbose)
		print_message("# t %lld node %d %s%s%u\n", (long long)c->now_us / 1000, i, c->node[i].ob ? "" : "(down) ", s->asleep[i] ? "(asleep) " : "", what);
	if (!c->node[i].ob) {
		if (what < 30 && node_open(c, i) == 0)
			s->asleep[i] = false;
	} else if (obox_fenced(c->node[i].ob) && !s->asleep[i]) {
		node_kill(c, i);	/* as a daemon starts it anew */
	} else if (what < 3) {
		node_kill(c, i);
	} else if (what < 6) {
		s->asleep[i] = !s->asleep[i];
	} else if (what < 8 && !s->asleep[i]) {
		node_close(c, i);
	} else if (what < 70 && !s->asleep[i]) {
		use(s, i);
	} else {
		pass(s, roll(s, what < 97 ? c->ttl_ms / 2 : 3 * c->ttl_ms));
	}
}

/* The store is well again: everybody is served, and all of it is there. */
static void settle(struct sim *s)
{
	struct objstore_faults none = { .fail_after = -1 };
	struct cluster *c = s->c;
	struct metacache_stats st;
	struct obox_user *u;
	uint32_t k;
	int i, tries;

	objstore_fault_set(c->between, &none);
	for (i = 0; i < 3; i++) {
		s->asleep[i] = false;
		if (c->node[i].ob)
			metacache_stats(c->node[i].mc, &st);
		else
			st.takeovers = 0;
		s->takeovers += st.takeovers;
	}
	pass(s, 4 * c->ttl_ms);
	for (i = 0; i < 3; i++)
		if (c->node[i].ob && obox_fenced(c->node[i].ob))
			node_kill(c, i);
	for (i = 0; i < 3; i++)
		if (c->node[i].ob)
			node_close(c, i);
	if (node_open(c, 3) < 0)
		fail_msg("seed %llu: no node can be opened: %s", (unsigned long long)s->seed, c->err.msg);
	cluster_pass(c, 4 * c->ttl_ms);
	for (k = 0; k < USERS; k++) {
		for (tries = 0; do_open(c, 3, user_name(k), &u) < 0; tries++) {
			if (tries == 20)
				fail_msg("seed %llu: %s cannot be opened: %s", (unsigned long long)s->seed, user_name(k), c->err.msg);
			cluster_pass(c, c->ttl_ms);
		}
		compare(s, k, u);
		compare_bytes(s, k, u);
		obox_user_close(&u);
	}
	node_close(c, 3);
}


static void run(struct sim *s, uint64_t seed)
{
	struct objstore_faults f = { .seed = seed, .fail_after = -1 };
	void *state;
	int i;

	assert_int_equal(cluster_setup_stepped(&state), 0);
	s->c = state;
	if (verbose)
		log_set_level(LOG_DBG);
	s->rng = s->seed = seed;
	for (i = 0; i < 3; i++)
		roll(s, 2);
	memset(s->m, 0, sizeof(s->m));
	memset(s->asleep, 0, sizeof(s->asleep));
	s->c->between = objstore_fault_new(s->c->mem, &f);
	if (seed % 4) {
		f.error = roll(s, seed % 3 ? 30 : 120);
		f.lost_answer = roll(s, seed % 3 ? 30 : 120);
		f.late = roll(s, seed % 3 ? 30 : 120);
		f.throttle = roll(s, seed % 3 ? 30 : 120);
	}
	for (i = 0; i < 3; i++)
		if (node_open(s->c, i) < 0)
			fail_msg("seed %llu: %s", (unsigned long long)seed, s->c->err.msg);
	objstore_fault_set(s->c->between, &f);
	for (i = 0; i < STEPS; i++)
		step(s);
	settle(s);
	cluster_teardown(&state);
}

static void what_is_acknowledged_is_kept(void **state)
{
	struct sim s = { .next_number = 0 };
	uint64_t i;

	for (i = 0; i < n_seeds; i++)
		run(&s, first_seed + i);
	print_message("# %llu seeds: %llu saves acknowledged, %llu refused, %llu takeovers seen\n", (unsigned long long)n_seeds,
		      (unsigned long long)s.acked, (unsigned long long)s.refused, (unsigned long long)s.takeovers);
	assert_true(s.acked > n_seeds * 20);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(what_is_acknowledged_is_kept) };

	if (argc > 1)
		first_seed = strtoull(argv[1], NULL, 10);
	verbose = argc > 3;
	if (argc > 2)
		n_seeds = strtoull(argv[2], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
