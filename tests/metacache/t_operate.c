/* What operators ask of nodes: who is there, emptying one, taking one over now. */
#include "tests/metacache/cluster.h"

#include "base/b64.h"
#include "metacache/metacache-private.h"

static struct metacache_reader reader(struct cluster *c)
{
	return (struct metacache_reader){ c->mem, "t", c->keys };
}

static const struct metacache_node *find(const struct metacache_node *list, size_t n, const char *name)
{
	while (n--)
		if (!strcmp(list[n].node, name))
			return &list[n];
	return NULL;
}

static enum metacache_state state_of(struct cluster *c, const char *name)
{
	struct metacache_reader rd = reader(c);
	struct metacache_node n;

	err_clear(&c->err);
	assert_int_equal(metacache_node(&rd, name, &n, &c->err), 1);
	return n.state;
}

/* docs/format.md, 10, has these bytes, too. */
static const char vector[] = "43554c4e01" "026e31" "efcdab8967452301" "09686f73743a34313930" "00e4006700000000" "904e" "07" "03" "00" "00" "0000000000000000"
			     "01" "05" "02" "03e4006700000000" "03302e31";
enum { FIRST_VERSION_BYTES = 48 };

static void a_node_record_has_the_bytes_of_the_document(void **state)
{
	struct node_record rec = { .node = "n1", .incarnation = 0x0123456789abcdef, .address = "host:4190", .started = 1728111616, .ttl_ms = 10000, .beat = 7, .floor = 3,
				   .draining = true, .users = 5, .pieces = 2, .beat_time = 1728111619, .version = "0.1" }, again;
	struct buf out = BUF_INIT(0);
	char hex[256];
	struct err err = ERR_INIT;

	node_encode(&rec, &out);
	hex_encode(hex, out.data, out.len);
	assert_string_equal(hex, vector);
	assert_int_equal(node_decode(&again, &out, "n", &err), 0);
	assert_memory_equal(&again, &rec, sizeof(rec));
	buf_free(&out);
}

static void a_record_without_the_later_fields_is_read(void **state)
{
	struct buf b = BUF_INIT(0);
	unsigned char bytes[sizeof(vector) / 2];
	struct node_record rec;
	struct err err = ERR_INIT;
	size_t len = strlen(vector) / 2, cut;

	assert_int_equal(hex_decode(bytes, len, vector), 0);
	buf_add(&b, bytes, FIRST_VERSION_BYTES);
	assert_int_equal(node_decode(&rec, &b, "n", &err), 0);
	assert_true(rec.floor == 3 && !rec.draining && rec.beat_time == 0 && !*rec.version);
	for (cut = 5; cut < len; cut++) {
		buf_clear(&b);
		buf_add(&b, bytes, cut);
		assert_int_equal(node_decode(&rec, &b, "n", &err), cut == FIRST_VERSION_BYTES ? 0 : ERR_CORRUPT);
	}
	buf_free(&b);
}

static void nodes_are_seen_by_reading_alone(void **state)
{
	struct cluster *c = *state;
	struct metacache_reader rd = reader(c);
	struct metacache_node *list;
	struct gate *g = gate_new(c->mem);
	struct obox_user *u;
	size_t n;

	rd.store = gate_store(g);
	assert_int_equal(metacache_nodes(&rd, &list, &n, &c->err), 0);
	assert_int_equal(n, 0);
	free(list);
	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	assert_int_equal(do_open(c, 1, "joe", &u), 0);
	obox_user_close(&u);
	cluster_pass(c, c->ttl_ms);
	gate_reset(g);
	assert_int_equal(metacache_nodes(&rd, &list, &n, &c->err), 0);
	assert_true(gate_count(g).put == 0 && gate_count(g).list == 0 && gate_count(g).del == 0);
	assert_int_equal(n, 2);
	assert_int_equal(find(list, n, "n0")->state, METACACHE_LIVE);
	assert_string_equal(find(list, n, "n0")->address, "host0:4190");
	assert_true(find(list, n, "n1")->users == 1 && find(list, n, "n0")->users == 0 && find(list, n, "n1")->pieces > 0);
	free(list);
	node_kill(c, 1);
	assert_int_equal(metacache_nodes(&rd, &list, &n, &c->err), 0);
	assert_non_null(find(list, n, "n0"));
	free(list);
	node_close(c, 0);
	assert_int_equal(metacache_nodes(&rd, &list, &n, &c->err), 0);
	assert_null(find(list, n, "n0"));
	free(list);
	gate_free(&g);
}

static void a_damaged_record_is_listed_as_such_and_told_what_to_do(void **state)
{
	static const char junk[] = "not a sealed bundle at all";
	struct iovec iov = { (void *)(uintptr_t)junk, sizeof(junk) };
	struct objstore_op op = { .verb = OBJ_PUT, .key = "t/node/n1", .iov = &iov, .n_iov = 1 };
	struct cluster *c = *state;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	node_kill(c, 1);
	assert_int_equal(obox_run_one(c->mem, &op, 0), 0);
	assert_int_equal(state_of(c, "n1"), METACACHE_DAMAGED);
	assert_int_equal(metacache_adopt(c->node[0].mc, "n1", false, NULL, NULL, &c->err), ERR_CORRUPT);
	assert_non_null(strstr(c->err.msg, "culverctl store delete"));
}

/* --- draining --- */

static void a_draining_node_sends_new_users_elsewhere(void **state)
{
	struct cluster *c = *state;
	struct obox_user *mine, *u;
	struct obox_owner o;
	size_t n;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(metacache_drain(c->node[0].mc, true, false, &c->err), ERR_UNAVAILABLE);
	assert_false(metacache_draining(c->node[0].mc));
	assert_int_equal(node_open(c, 1), 0);
	assert_int_equal(do_open(c, 0, "joe", &mine), 0);
	err_clear(&c->err);
	assert_int_equal(metacache_drain(c->node[0].mc, true, false, &c->err), 0);
	assert_int_equal(state_of(c, "n0"), METACACHE_DRAINING);
	assert_int_equal(obox_user_locate(c->node[0].ob, "ann", &u, &o, &c->err), ERR_BUSY);
	assert_string_equal(o.node, "n1");
	assert_string_equal(o.address, "host1:4190");
	assert_int_equal(do_save(c, 0, mine, "INBOX", 1, NULL), 0);	/* who is here is served */
	obox_user_close(&mine);
	assert_int_equal(obox_user_evict(c->node[0].ob, NULL, &n, &c->err), 0);
	assert_int_equal(n, 1);
	assert_int_equal(obox_user_locate(c->node[0].ob, "joe", &u, &o, &c->err), ERR_BUSY);
	assert_int_equal(do_open(c, 1, "joe", &u), 0);
	assert_true(has_message(c, u, "INBOX", 1, 1));
	obox_user_close(&u);
	/* both: nobody would take anybody */
	err_clear(&c->err);
	assert_int_equal(metacache_drain(c->node[1].mc, true, false, &c->err), ERR_UNAVAILABLE);
	assert_int_equal(metacache_drain(c->node[0].mc, false, false, &c->err), 0);
	assert_int_equal(state_of(c, "n0"), METACACHE_LIVE);
	assert_int_equal(do_open(c, 0, "ann", &u), 0);
	obox_user_close(&u);
}

static void the_last_node_serves_even_when_it_is_drained(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	assert_int_equal(metacache_drain(c->node[0].mc, true, false, &c->err), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), ERR_BUSY);
	node_close(c, 1);
	cluster_pass(c, c->ttl_ms);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	obox_user_close(&u);
}

/* --- adopting --- */

struct told { char text[4096]; };

static void hear(void *ctx, const char *text)
{
	struct told *t = ctx;
	size_t n = strlen(t->text);

	snprintf(t->text + n, sizeof(t->text) - n, "%s\n", text);
}

static void a_dead_node_is_adopted_and_a_live_one_refused(void **state)
{
	struct cluster *c = *state;
	struct told told = { "" };
	struct obox_user *u;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	assert_int_equal(do_open(c, 1, "joe", &u), 0);
	assert_int_equal(do_save(c, 1, u, "INBOX", 1, NULL), 0);
	assert_int_equal(metacache_adopt(c->node[0].mc, "n1", false, hear, &told, &c->err), ERR_BUSY);
	assert_non_null(strstr(c->err.msg, "lives"));
	assert_int_equal(state_of(c, "n1"), METACACHE_LIVE);
	obox_user_close(&u);
	node_kill(c, 1);
	err_clear(&c->err);
	assert_int_equal(metacache_adopt(c->node[0].mc, "n1", false, hear, &told, &c->err), 0);
	assert_non_null(strstr(told.text, "is taken over"));
	assert_int_equal(state_of(c, "n1"), METACACHE_RELEASED);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	assert_true(has_message(c, u, "INBOX", 1, 1));
	obox_user_close(&u);
	assert_int_equal(metacache_adopt(c->node[0].mc, "n0", false, hear, &told, &c->err), ERR_INVALID);
	assert_int_equal(metacache_adopt(c->node[0].mc, "n7", false, hear, &told, &c->err), ERR_NOTFOUND);
	assert_int_equal(metacache_adopt(c->node[0].mc, "a/b", false, hear, &told, &c->err), ERR_INVALID);
}

/* What it says while it is fenced is kept, and nothing is said after the replay has begun. */
static void a_live_node_adopted_by_force_is_fenced_after_its_lease(void **state)
{
	struct cluster *c = *state;
	struct told told = { "" };
	int64_t start = real_ms();
	struct obox_user *u, *after;
	int n = 0, i;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	assert_int_equal(do_open(c, 1, "joe", &u), 0);
	while (n < 5)
		assert_int_equal(do_save(c, 1, u, "INBOX", ++n, NULL), 0);
	start = real_ms();
	assert_int_equal(metacache_adopt(c->node[0].mc, "n1", true, hear, &told, &c->err), 0);
	assert_true(real_ms() - start >= c->ttl_ms - 50);
	assert_non_null(strstr(told.text, "waited out"));
	assert_true(obox_fenced(c->node[1].ob));
	assert_true(do_save(c, 1, u, "INBOX", 99, NULL) < 0);
	assert_int_equal(do_open(c, 0, "joe", &after), 0);
	assert_int_equal(count_of(after, "INBOX"), n);
	for (i = 1; i <= n; i++)
		assert_true(has_message(c, after, "INBOX", (uint32_t)i, i));
	obox_user_close(&after);
	obox_user_close(&u);
}

/* --- a user's place --- */

static void a_user_that_leaves_keeps_who_comes_waiting(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	struct obox_where w;
	size_t n;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(obox_user_where(c->node[0].ob, "joe", &w, &c->err), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	assert_int_equal(do_save(c, 0, u, "INBOX", 1, NULL), 0);
	assert_int_equal(obox_user_where(c->node[0].ob, "joe", &w, &c->err), 1);
	assert_true(w.mine && w.loaded && w.opened == 1 && w.bytes > 0 && w.tail > 0 && w.epoch == 1);
	assert_string_equal(w.node, "n0");
	assert_int_equal(obox_user_evict(c->node[0].ob, "joe", &n, &c->err), ERR_BUSY);
	obox_user_leave(c->node[0].ob, "joe", true);
	obox_user_close(&u);
	err_clear(&c->err);
	assert_int_equal(obox_user_release(c->node[0].ob, "joe", &c->err), 0);
	assert_int_equal(obox_user_where(c->node[0].ob, "joe", &w, &c->err), 1);
	assert_true(!w.mine && !w.loaded && w.incarnation == 0 && w.log_seq == 1);
	obox_user_leave(c->node[0].ob, "joe", false);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	assert_true(has_message(c, u, "INBOX", 1, 1));
	obox_user_close(&u);
}

static void a_release_that_says_it_is_done_is(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	struct obox_where w;
	int ops, done = 0, failed = 0;

	assert_int_equal(node_open(c, 0), 0);
	for (ops = 0; ops < 14; ops++) {	/* the opening fails at each of its calls once */
		assert_int_equal(do_open(c, 0, "joe", &u), 0);
		assert_int_equal(do_save(c, 0, u, "INBOX", ops, NULL), 0);
		obox_user_close(&u);
		assert_int_equal(obox_user_release(c->node[0].ob, "joe", &c->err), 0);
		gate_fail_after(c->node[0].gate, ops);
		if (do_open(c, 0, "joe", &u) == 0)
			obox_user_close(&u);
		else
			failed++;
		gate_fail_after(c->node[0].gate, -1);
		cluster_pass(c, c->ttl_ms);
		err_clear(&c->err);
		assert_int_equal(obox_user_release(c->node[0].ob, "joe", &c->err), 0);
		assert_int_equal(obox_user_where(c->node[0].ob, "joe", &w, &c->err), 1);
		assert_true(!w.mine && w.incarnation == 0);
		done++;
	}
	assert_true(done == 14 && failed > 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_record_has_the_bytes_of_the_document),
		cmocka_unit_test(a_record_without_the_later_fields_is_read),
		cmocka_unit_test_setup_teardown(nodes_are_seen_by_reading_alone, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_damaged_record_is_listed_as_such_and_told_what_to_do, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_draining_node_sends_new_users_elsewhere, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(the_last_node_serves_even_when_it_is_drained, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_dead_node_is_adopted_and_a_live_one_refused, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_live_node_adopted_by_force_is_fenced_after_its_lease, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_user_that_leaves_keeps_who_comes_waiting, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_release_that_says_it_is_done_is, cluster_setup_stepped, cluster_teardown),
	};

	return cmocka_run_group_tests_name("operate", tests, NULL, NULL);
}
