/* Users of a dead node are served while its journal is still replayed: those first who are asked for. */
#include "tests/metacache/cluster.h"

#include "metacache/metacache-private.h"
#include "obox/obox-private.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MANY = 800, ASKERS = 8, DELAY_US = 20000, PATIENCE_MS = 30000 };

/* --- a node that dies with many users --- */

static const char *name_of(int k)
{
	static char name[24];

	snprintf(name, sizeof(name), "user%d", k);
	return name;
}

/* Node 0 acknowledged a message to each of so many, and to nobody of "idle": whose records are all in his log. */
static void die_with(struct cluster *c, int users)
{
	struct obox_user *u;
	int k;

	assert_int_equal(node_open(c, 3), 0);
	assert_int_equal(do_open(c, 3, "idle", &u), 0);
	assert_int_equal(do_save(c, 3, u, "INBOX", 7, NULL), 0);
	obox_user_close(&u);
	node_close(c, 3);
	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(do_open(c, 0, "idle", &u), 0);
	obox_user_close(&u);
	for (k = 0; k < users; k++) {
		assert_int_equal(do_open(c, 0, name_of(k), &u), 0);
		assert_int_equal(do_save(c, 0, u, "INBOX", k, NULL), 0);
		obox_user_close(&u);
	}
	node_kill(c, 0);
}

static struct obox_user *must_open(struct cluster *c, int i, const char *user)
{
	int64_t end = real_ms() + PATIENCE_MS;
	struct obox_user *u = NULL;

	while (do_open(c, i, user, &u) < 0 && real_ms() < end) {
		assert_true(err_is_temporary(c->err.code));
		usleep(2000);
	}
	if (!u)
		fail_msg("node %d does not serve %s: %s", i, user, c->err.msg);
	return u;
}

/* Until node i serves him, with his message. */
static void must_be_served(struct cluster *c, int i, const char *user, int number)
{
	struct obox_user *u = must_open(c, i, user);

	if (!has_message(c, u, "INBOX", 1, number))
		fail_msg("node %d has lost the message of %s", i, user);
	obox_user_close(&u);
}

static uint64_t replayed(struct cluster *c, int i)
{
	struct metacache_stats st;

	metacache_stats(c->node[i].mc, &st);
	return st.users_replayed;
}

static void record_of_dead(struct cluster *c, struct metacache_node *n)
{
	struct metacache_reader rd = { c->mem, "t", c->keys };

	err_clear(&c->err);
	assert_int_equal(metacache_node(&rd, "n0", n, &c->err), 1);
}

/* Until somebody has claimed it; who. */
static int claimer(struct cluster *c)
{
	struct metacache_node n;
	int64_t end = real_ms() + PATIENCE_MS;

	for (record_of_dead(c, &n); n.state != METACACHE_TAKEN && real_ms() < end; record_of_dead(c, &n))
		usleep(2000);
	assert_int_equal(n.state, METACACHE_TAKEN);
	return n.claimer[1] - '0';
}

static void must_end(struct cluster *c, int i, uint64_t users)
{
	int64_t end = real_ms() + PATIENCE_MS;
	struct metacache_node n;

	for (record_of_dead(c, &n); n.state != METACACHE_RELEASED && real_ms() < end; record_of_dead(c, &n))
		usleep(5000);
	assert_int_equal(n.state, METACACHE_RELEASED);
	assert_int_equal(replayed(c, i), users);
}

static void open_far(struct cluster *c, int i)
{
	assert_int_equal(node_open(c, i), 0);
	gate_delay(c->node[i].gate, DELAY_US);
}

/* --- one node takes over --- */

static void users_asked_for_are_served_before_the_replay_of_all_ends(void **state)
{
	struct cluster *c = *state;
	int64_t start, ms[5];
	uint64_t before;
	int k;

	die_with(c, MANY);
	open_far(c, 1);
	assert_int_equal(do_open(c, 1, "user0", &(struct obox_user *){ NULL }), ERR_BUSY);	/* it may live */
	assert_int_equal(claimer(c), 1);
	for (k = 0; k < 5; k++) {
		start = real_ms();
		must_be_served(c, 1, name_of(MANY - 1 - 70 * k), MANY - 1 - 70 * k);
		ms[k] = real_ms() - start;
	}
	start = real_ms();
	must_be_served(c, 1, "idle", 7);	/* has nothing to wait for */
	before = replayed(c, 1);
	print_message("# a round trip takes %d ms; served after %d (with the seal), %d, %d, %d, %d ms, %d ms without records; %d of %d replayed\n", DELAY_US / 1000,
		      (int)ms[0], (int)ms[1], (int)ms[2], (int)ms[3], (int)ms[4], (int)(real_ms() - start), (int)before, MANY);
	assert_true(before < MANY);
	must_end(c, 1, MANY);
	gate_delay(c->node[1].gate, 0);
	for (k = 0; k < MANY; k += 9)
		must_be_served(c, 1, name_of(k), k);
}

struct asker { struct cluster *c; uint64_t incarnation; const char *user; int rc; };

static void *ask_cluster(void *arg)
{
	struct asker *a = arg;
	struct obox_cluster *mc = a->c->node[1].mc;
	struct obox_owner o;
	struct err e = ERR_INIT;

	do {
		err_clear(&e);
		a->rc = mc->ops->owner(mc, "n0", a->incarnation, a->user, &o, &e);
	} while (a->rc == ERR_BUSY);
	return NULL;
}

static void several_may_ask_for_the_same_user_who_is_replayed_once(void **state)
{
	struct cluster *c = *state;
	struct asker a[ASKERS];
	struct metacache_node n;
	pthread_t t[ASKERS];
	int k;

	die_with(c, MANY);
	record_of_dead(c, &n);
	open_far(c, 1);
	assert_int_equal(claimer(c), 1);
	for (k = 0; k < ASKERS; k++) {
		a[k] = (struct asker){ c, n.incarnation, k % 4 ? "user123" : "user321", 1 };
		assert_int_equal(pthread_create(&t[k], NULL, ask_cluster, &a[k]), 0);
	}
	for (k = 0; k < ASKERS; k++) {
		pthread_join(t[k], NULL);
		assert_int_equal(a[k].rc, 0);
	}
	assert_true(replayed(c, 1) < MANY);
	must_be_served(c, 1, "user123", 123);
	must_be_served(c, 1, "user321", 321);
	must_end(c, 1, MANY);
}

/* Whichever call to the store fails while a user is replayed, he is served only when all that was acknowledged is there. */
static void a_replay_that_fails_at_any_call_is_tried_again(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	char *prefix;
	int n, failed = 0;

	die_with(c, MANY);
	open_far(c, 1);
	assert_int_equal(claimer(c), 1);
	for (n = 0; n < 10; n++) {
		prefix = obox_user_prefix("t", name_of(n * 30));
		gate_fail_key(c->node[1].gate, prefix, n);
		u = must_open(c, 1, name_of(n * 30));
		failed += gate_failed(c->node[1].gate);
		gate_fail_key(c->node[1].gate, "", INT64_MAX);
		must_be_served(c, 1, name_of(n * 30), n * 30);
		obox_user_close(&u);
		free(prefix);
	}
	print_message("# %d of %d users were replayed or opened with an error first\n", failed, n);
	assert_true(failed > 3);
	must_end(c, 1, MANY);
}

/* The store fails for one user all the time: he is not served, nor is the node done; all others are served. */
static void a_user_who_cannot_be_replayed_holds_up_only_himself(void **state)
{
	struct cluster *c = *state;
	char *prefix = obox_user_prefix("t", "user5");
	struct metacache_node n;
	struct obox_user *u;
	int64_t end;
	int k;

	die_with(c, 20);
	assert_int_equal(node_open(c, 1), 0);
	gate_fail_key(c->node[1].gate, prefix, -1);
	assert_int_equal(claimer(c), 1);
	for (end = real_ms() + 600; real_ms() < end; usleep(3000)) {
		assert_true(do_open(c, 1, "user5", &u) < 0);
		assert_true(err_is_temporary(c->err.code));
	}
	for (k = 0; k < 20; k++)
		if (k != 5)
			must_be_served(c, 1, name_of(k), k);
	free(prefix);
	record_of_dead(c, &n);
	assert_int_equal(n.state, METACACHE_TAKEN);
	gate_fail_key(c->node[1].gate, "", INT64_MAX);
	must_be_served(c, 1, "user5", 5);
	for (end = real_ms() + PATIENCE_MS; n.state != METACACHE_RELEASED && real_ms() < end; record_of_dead(c, &n))
		usleep(5000);
	assert_int_equal(n.state, METACACHE_RELEASED);
}

/* --- a third node --- */

static void a_third_node_names_the_claimer_until_that_dies(void **state)
{
	struct cluster *c = *state;
	struct obox_owner o;
	struct obox_user *u;
	char node[8], address[32];
	int taker, third;

	die_with(c, MANY);
	open_far(c, 1);
	open_far(c, 2);
	taker = claimer(c);
	third = 3 - taker;
	snprintf(node, sizeof(node), "n%d", taker);
	snprintf(address, sizeof(address), "host%d:4190", taker);
	do {	/* what it saw a moment ago may be from before the claim */
		err_clear(&c->err);
		assert_int_equal(obox_user_locate(c->node[third].ob, "user300", &u, &o, &c->err), ERR_BUSY);
	} while (!strcmp(o.node, "n0"));
	assert_string_equal(o.node, node);
	assert_string_equal(o.address, address);
	must_be_served(c, taker, "user300", 300);
	assert_true(replayed(c, taker) < MANY);
	node_kill(c, taker);
	must_be_served(c, third, "user300", 300);
	must_be_served(c, third, "user8", 8);
	must_be_served(c, third, "idle", 7);
}

/* Else the others, who name the claimer, and it would send whoever asks to and fro. */
static void a_claimer_that_is_drained_serves_whom_only_it_can(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u = NULL;
	struct obox_owner o;
	int taker;

	die_with(c, MANY);
	open_far(c, 1);
	open_far(c, 2);
	taker = claimer(c);
	err_clear(&c->err);
	assert_int_equal(metacache_drain(c->node[taker].mc, true, false, &c->err), 0);
	must_be_served(c, taker, "idle", 7);
	err_clear(&c->err);
	assert_int_equal(obox_user_locate(c->node[taker].ob, "user300", &u, &o, &c->err), ERR_BUSY);	/* his root is nobody's now */
	assert_int_equal(o.node[1] - '0', 3 - taker);
	must_be_served(c, 3 - taker, "user300", 300);
	assert_true(replayed(c, taker) < MANY);
}

/* --- when --- */

/* Whenever it dies, a step after its TTL it has been claimed; and seeing to that costs hardly more looks than it gives signs. */
static void a_dead_node_is_noticed_in_time_by_few_looks(void **state)
{
	struct cluster *c = *state;
	struct metacache_node n;
	struct gate_count looks;
	struct metacache_stats st;
	int64_t longest = 0, killed;
	int round;

	assert_int_equal(node_open(c, 1), 0);
	for (round = 0; round < 20; round++) {
		assert_int_equal(node_open(c, 0), 0);
		cluster_pass(c, c->ttl_ms * 8 + (unsigned)round * 37);
		gate_reset(c->node[1].gate);
		cluster_pass(c, c->ttl_ms * 10);
		metacache_stats(c->node[0].mc, &st);
		looks = gate_count(c->node[1].gate);
		assert_true(looks.get <= 10 * 3 * 5 / 4 + 16);	/* signs and a quarter, and the ring */
		killed = c->now_us;
		node_kill(c, 0);
		for (record_of_dead(c, &n); n.state != METACACHE_RELEASED && c->now_us < killed + 5000000; record_of_dead(c, &n))
			cluster_pass(c, 1);
		if (c->now_us - killed > longest)
			longest = c->now_us - killed;
	}
	print_message("# taken over %d ms after its death at the latest, TTL %u ms\n", (int)(longest / 1000), c->ttl_ms);
	assert_true(longest <= (c->ttl_ms + c->ttl_ms / 10 + 2 * c->ttl_ms / 20) * 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(users_asked_for_are_served_before_the_replay_of_all_ends, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(several_may_ask_for_the_same_user_who_is_replayed_once, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_replay_that_fails_at_any_call_is_tried_again, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_user_who_cannot_be_replayed_holds_up_only_himself, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_third_node_names_the_claimer_until_that_dies, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_claimer_that_is_drained_serves_whom_only_it_can, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_dead_node_is_noticed_in_time_by_few_looks, cluster_setup_stepped, cluster_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
