/* Nodes that share a store: who serves whom, hand-over, and what it costs. */
#include "tests/metacache/cluster.h"

static void a_user_of_a_live_node_is_sent_there(void **state)
{
	struct cluster *c = *state;
	struct obox_user *a, *b;
	struct obox_owner o;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	assert_int_equal(do_open(c, 0, "joe", &a), 0);
	assert_int_equal(do_open(c, 1, "ann", &b), 0);
	assert_int_equal(do_save(c, 0, a, "INBOX", 1, NULL), 0);
	assert_int_equal(do_save(c, 1, b, "INBOX", 1, NULL), 0);
	obox_user_close(&b);
	assert_int_equal(obox_user_locate(c->node[1].ob, "joe", &b, &o, &c->err), ERR_BUSY);
	assert_null(b);
	assert_string_equal(o.node, "n0");
	assert_string_equal(o.address, "host0:4190");
	assert_true(o.incarnation != 0);
	obox_user_close(&a);
}

static void a_released_user_goes_on_elsewhere(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	uint32_t uid, last = 0;
	int round;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	for (round = 0; round < 6; round++) {
		int i = round % 2, k;

		assert_int_equal(do_open(c, i, "joe", &u), 0);
		assert_int_equal(count_of(u, "INBOX"), round);
		for (k = 1; k <= round; k++)
			assert_true(has_message(c, u, "INBOX", (uint32_t)k, k));
		assert_int_equal(do_save(c, i, u, "INBOX", round + 1, &uid), 0);
		assert_int_equal(uid, last + 1);
		last = uid;
		assert_int_equal(do_flag(u, "INBOX", uid, OBOX_SEEN), 0);
		assert_int_equal(obox_user_release(c->node[i].ob, "joe", &c->err), ERR_BUSY);
		err_clear(&c->err);
		obox_user_close(&u);
		assert_int_equal(obox_user_release(c->node[i].ob, "joe", &c->err), 0);
	}
}

static void a_stopped_node_leaves_nothing_to_do(void **state)
{
	struct cluster *c = *state;
	struct metacache_stats st;
	struct obox_user *u;
	int i;

	for (i = 0; i < 4; i++) {
		assert_int_equal(node_open(c, i % 2), 0);
		assert_int_equal(do_open(c, i % 2, "joe", &u), 0);
		assert_int_equal(count_of(u, "INBOX"), i);
		assert_int_equal(do_save(c, i % 2, u, "INBOX", i, NULL), 0);
		obox_user_close(&u);
		metacache_stats(c->node[i % 2].mc, &st);
		assert_int_equal(st.takeovers, 0);
		node_close(c, i % 2);
	}
}

static void fill(struct cluster *c, int i, struct obox_user *u, int n)
{
	struct obox_save *s = mem_calloc((size_t)n, sizeof(*s));
	struct obox_msgin *in;
	int k;

	assert_int_equal(obox_msgin_new(c->node[i].ob, &in, &c->err), 0);
	assert_int_equal(obox_msgin_write(in, "Subject: x\r\n\r\ny\r\n", 17, &c->err), 0);
	assert_int_equal(obox_msgin_finish(in, &c->err), 0);
	for (k = 0; k < n; k++)
		s[k] = (struct obox_save){ .msg = in, .idate = 1000 };
	assert_int_equal(obox_save(u, "INBOX", s, (size_t)n, NULL, &c->err), 0);
	obox_msgin_free(&in);
	free(s);
}

static void hot_paths_cost_few_requests(void **state)
{
	struct cluster *c = *state;
	struct obox_status st;
	struct obox_user *u;
	struct gate_count n;
	struct obox_view *v;
	int k;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	fill(c, 0, u, 1600);
	for (k = 1600; k < 100000; k *= 2)
		assert_int_equal(do_copy(u, "INBOX", 1, (uint32_t)k, "INBOX", false), 0);
	assert_int_equal(obox_mailbox_create(u, "there", 0, &c->err), 0);
	gate_reset(c->node[0].gate);
	assert_int_equal(do_save(c, 0, u, "INBOX", 1, NULL), 0);
	n = gate_count(c->node[0].gate);
	print_message("# delivery: %d requests (its object, the journal's)\n", (int)n.total);
	assert_int_equal(n.put, 2);
	assert_int_equal(n.total, 2);
	gate_reset(c->node[0].gate);
	assert_int_equal(do_copy(u, "INBOX", 1, 1000, "there", false), 0);
	assert_int_equal(do_copy(u, "INBOX", 1, 1000, "there", true), 0);
	n = gate_count(c->node[0].gate);
	print_message("# COPY and MOVE of 1000: %d requests (the journal's)\n", (int)n.total);
	assert_int_equal(n.total, 2);
	obox_user_close(&u);
	assert_int_equal(obox_user_release(c->node[0].ob, "joe", &c->err), 0);

	gate_reset(c->node[1].gate);
	assert_int_equal(do_open(c, 1, "joe", &u), 0);
	assert_int_equal(obox_view_open(u, "INBOX", false, NULL, NULL, &v, &c->err), 0);
	obox_view_status(v, &st);
	n = gate_count(c->node[1].gate);
	print_message("# cold login and SELECT of %u messages: %d requests\n", st.messages, (int)n.total);
	assert_int_equal(st.messages, k + 1 - 1000);
	assert_true(n.total <= 5);
	assert_int_equal(n.list, 0);
	obox_view_close(&v);
	obox_user_close(&u);
	gate_reset(c->node[1].gate);
	assert_int_equal(obox_user_release(c->node[1].ob, "joe", &c->err), 0);
	n = gate_count(c->node[1].gate);
	print_message("# release of an unchanged user: %d requests\n", (int)n.total);
	assert_int_equal(n.total, 1);
}

/* The journal is shortened while users are open, and nothing is lost by it. */
static void a_long_journal_is_shortened(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u[3], *v;
	struct gate_count n;
	int i, k;

	assert_int_equal(node_open(c, 0), 0);
	for (k = 0; k < 3; k++) {
		char name[16];

		snprintf(name, sizeof(name), "u%d", k);
		assert_int_equal(do_open(c, 0, name, &u[k]), 0);
	}
	for (i = 0; i < 80; i++) {
		for (k = 0; k < 3; k++)
			assert_int_equal(do_save(c, 0, u[k], "INBOX", i + 1, NULL), 0);
		obox_upkeep(c->node[0].ob);
		obox_tend(c->node[0].ob);
		cluster_pass(c, 50);
	}
	cluster_pass(c, 1000);
	for (k = 0; k < 3; k++)
		obox_user_close(&u[k]);
	node_kill(c, 0);
	assert_int_equal(node_open(c, 1), 0);
	cluster_pass(c, c->ttl_ms + 500);
	gate_reset(c->node[1].gate);
	for (k = 0; k < 3; k++) {
		char name[16];

		snprintf(name, sizeof(name), "u%d", k);
		assert_int_equal(do_open(c, 1, name, &v), 0);
		assert_int_equal(count_of(v, "INBOX"), 80);
		for (i = 0; i < 80; i++)
			assert_true(has_message(c, v, "INBOX", (uint32_t)i + 1, i + 1));
		obox_user_close(&v);
	}
	n = gate_count(c->node[1].gate);
	assert_int_equal(n.list, 0);
}

/* A store may take its time with thousands of journal objects that nobody needs any more; the node lives on meanwhile. */
static void deletes_hold_up_no_heartbeat(void **state)
{
	struct cluster *c = *state;
	struct metacache_stats before, after;
	struct obox_user *u;
	int i;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	gate_hold_journal_deletes(c->node[0].gate, true);
	for (i = 0; i < 150; i++) {
		assert_int_equal(do_save(c, 0, u, "INBOX", i + 1, NULL), 0);
		obox_upkeep(c->node[0].ob);
		obox_tend(c->node[0].ob);
	}
	cluster_pass(c, c->ttl_ms);
	metacache_stats(c->node[0].mc, &before);
	cluster_pass(c, c->ttl_ms * 3);
	metacache_stats(c->node[0].mc, &after);
	assert_true(after.beats >= before.beats + 3);
	assert_false(after.fenced);
	assert_int_equal(do_save(c, 0, u, "INBOX", i + 1, NULL), 0);
	assert_int_equal(gate_count(c->node[0].gate).del, 0);	/* they do wait */
	gate_hold_journal_deletes(c->node[0].gate, false);
	obox_user_close(&u);
	cluster_pass(c, c->ttl_ms);
	assert_true(gate_count(c->node[0].gate).del > 0);
}

static bool is_message(const char *key)
{
	return strstr(key, "/m/") != NULL;
}

static int see_key(void *ctx, const struct objstore_list_item *item)
{
	assert_int_equal(is_message(item->key), ctx != NULL);
	return 0;
}

/* Messages in a store that keeps no conditions, all else in one that does. */
static void mail_may_be_in_a_store_of_its_own(void **state)
{
	struct cluster *c = *state;
	struct obox_check check = { .bodies = true };
	struct obox_user *u;
	int i;

	c->mail = objstore_mem_new();
	c->mail->caps &= ~(unsigned)(OBJ_CAP_CREATE | OBJ_CAP_MATCH | OBJ_CAP_LAZY);
	for (i = 0; i < 3; i++) {
		assert_int_equal(node_open(c, i % 2), 0);
		cluster_pass(c, c->ttl_ms * 3);
		assert_int_equal(do_open(c, i % 2, "joe", &u), 0);
		assert_int_equal(count_of(u, "INBOX"), i);
		assert_int_equal(do_save(c, i % 2, u, "INBOX", i, NULL), 0);
		assert_int_equal(obox_check(u, &check, &c->err), 0);
		assert_int_equal(check.missing + check.damaged, 0);
		obox_user_close(&u);
		node_kill(c, i % 2);
	}
	assert_int_equal(objstore_each(c->mail, "", see_key, c, &c->err), 0);
	assert_int_equal(objstore_each(c->mem, "", see_key, NULL, &c->err), 0);
}

static void a_store_without_conditions_is_refused(void **state)
{
	struct cluster *c = *state;

	c->mem->caps &= ~(unsigned)OBJ_CAP_MATCH;
	assert_int_equal(node_open(c, 0), ERR_INVALID);
	assert_non_null(strstr(c->err.msg, "conditions"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_user_of_a_live_node_is_sent_there, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_released_user_goes_on_elsewhere, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_stopped_node_leaves_nothing_to_do, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(hot_paths_cost_few_requests, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(mail_may_be_in_a_store_of_its_own, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_store_without_conditions_is_refused, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(deletes_hold_up_no_heartbeat, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_long_journal_is_shortened, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_user_of_a_live_node_is_sent_there, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_released_user_goes_on_elsewhere, cluster_setup_stepped, cluster_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
