/* Nodes that die, sleep, or lose the store: what was acknowledged is there,
 * and nobody acknowledges what is not. */
#include "tests/metacache/cluster.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static struct obox_user *must_open(struct cluster *c, int i, const char *user)
{
	struct obox_user *u;
	int rc = do_open(c, i, user, &u);

	if (rc < 0)
		fail_msg("node %d cannot open %s: %s", i, user, c->err.msg);
	return u;
}

/* A little of everything, acknowledged. */
static void live_a_little(struct cluster *c, int i, struct obox_user *u)
{
	int k;

	for (k = 1; k <= 6; k++)
		assert_int_equal(do_save(c, i, u, "INBOX", k, NULL), 0);
	assert_int_equal(obox_mailbox_create(u, "a/b", 0, &c->err), 0);
	assert_int_equal(obox_mailbox_create(u, "gone", 0, &c->err), 0);
	assert_int_equal(do_copy(u, "INBOX", 1, 2, "a/b", false), 0);
	assert_int_equal(do_copy(u, "INBOX", 3, 3, "a/b", true), 0);
	assert_int_equal(do_expunge(u, "INBOX", 4, 4), 0);
	assert_int_equal(obox_mailbox_rename(u, "a", "z", &c->err), 0);
	assert_int_equal(obox_mailbox_delete(u, "gone", &c->err), 0);
	assert_int_equal(do_flag(u, "INBOX", 5, OBOX_FLAGGED), 0);
	assert_int_equal(do_save(c, i, u, "INBOX", 7, NULL), 0);	/* takes the flags along */
}

static void assert_lived(struct cluster *c, struct obox_user *u)
{
	struct obox_view *v;
	struct obox_msg m;

	assert_int_equal(count_of(u, "INBOX"), 5);
	assert_int_equal(count_of(u, "z/b"), 3);
	assert_int_equal(count_of(u, "gone"), UINT32_MAX);
	assert_true(has_message(c, u, "INBOX", 1, 1));
	assert_true(has_message(c, u, "INBOX", 5, 5));
	assert_true(has_message(c, u, "INBOX", 7, 7));
	assert_true(has_message(c, u, "z/b", 1, 1));
	assert_true(has_message(c, u, "z/b", 2, 2));
	assert_true(has_message(c, u, "z/b", 3, 3));
	assert_int_equal(obox_view_open(u, "INBOX", true, NULL, NULL, &v, &c->err), 0);
	assert_int_equal(obox_view_read(v, obox_view_seq(v, 5, false), &m, 1), 1);
	assert_int_equal(m.flags, OBOX_FLAGGED);
	obox_view_close(&v);
}

static void users_of_a_killed_node_are_served_after_the_ttl(void **state)
{
	struct cluster *c = *state;
	struct metacache_stats st;
	struct obox_user *u;
	int64_t killed, ms;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	u = must_open(c, 0, "joe");
	live_a_little(c, 0, u);
	cluster_pass(c, 2 * c->ttl_ms);	/* the other one watches */
	obox_user_close(&u);
	killed = real_ms();
	node_kill(c, 0);
	while (do_open(c, 1, "joe", &u) < 0 && real_ms() - killed < 10000)
		cluster_pass(c, 5);
	ms = real_ms() - killed;
	print_message("# served again after %d ms, TTL %u ms\n", (int)ms, c->ttl_ms);
	assert_non_null(u);
	assert_true(ms < c->ttl_ms + 2000);
	assert_lived(c, u);
	obox_user_close(&u);
	do {	/* whoever is asked for is served before all is done */
		cluster_pass(c, 5);
		metacache_stats(c->node[1].mc, &st);
	} while (!st.takeovers && real_ms() - killed < 10000);
	assert_int_equal(st.takeovers, 1);
	/* as a new node, because its state is lost, or as the old one: both are welcome */
	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), ERR_BUSY);
}

/* A crash and its restart need no TTL. */
static void a_node_that_starts_again_takes_over_itself(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	int round;

	for (round = 0; round < 4; round++) {
		assert_int_equal(node_open(c, 0), 0);
		u = must_open(c, 0, "joe");
		if (round == 0)
			live_a_little(c, 0, u);
		assert_lived(c, u);
		obox_user_close(&u);
		node_kill(c, 0);
	}
}

/* --- sleepers --- */

struct saver { struct cluster *c; int i, number; struct obox_user *u; atomic_int rc; };

static void *save_one(void *arg)
{
	struct saver *s = arg;

	s->rc = do_save(s->c, s->i, s->u, "INBOX", s->number, NULL);
	return NULL;
}

/* It is stopped with a delivery on its way, past its TTL, and goes on when its users are served elsewhere. */
static void a_sleeper_that_wakes_acknowledges_nothing(void **state)
{
	struct cluster *c = *state;
	struct obox_user *a, *b;
	struct saver s;
	pthread_t t;
	int i, k;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	a = must_open(c, 0, "joe");
	live_a_little(c, 0, a);
	gate_hold(c->node[0].gate, true);
	s = (struct saver){ c, 0, 50, a, 1 };
	assert_int_equal(pthread_create(&t, NULL, save_one, &s), 0);
	for (i = 0; i < 500 && do_open(c, 1, "joe", &b) < 0; i++)
		cluster_pass(c, 20);
	assert_non_null(b);
	assert_lived(c, b);
	assert_int_equal(do_save(c, 1, b, "INBOX", 8, NULL), 0);
	gate_hold(c->node[0].gate, false);	/* all that was held arrives now */
	pthread_join(t, NULL);
	assert_true(s.rc < 0);
	for (i = 0; i < 100 && !obox_fenced(c->node[0].ob); i++)
		cluster_pass(c, 20);
	assert_true(obox_fenced(c->node[0].ob));
	assert_true(do_save(c, 0, a, "INBOX", 51, NULL) < 0);
	assert_true(obox_mailbox_create(a, "late", 0, &c->err) < 0);
	assert_true(do_expunge(a, "INBOX", 1, 7) < 0);
	assert_int_equal(count_of(b, "INBOX"), 6);
	obox_user_close(&a);
	node_close(c, 0);
	for (k = 9; k < 12; k++)
		assert_int_equal(do_save(c, 1, b, "INBOX", k, NULL), 0);
	assert_int_equal(obox_flush(c->node[1].ob, "joe", &c->err), 0);
	obox_user_close(&b);
	node_close(c, 1);
	assert_int_equal(node_open(c, 2), 0);
	b = must_open(c, 2, "joe");
	assert_int_equal(count_of(b, "INBOX"), 9);
	for (k = 8; k < 12; k++)
		assert_true(has_message(c, b, "INBOX", (uint32_t)k, k));
	obox_user_close(&b);
}

/* --- everything at once, with threads --- */

enum { CLIENTS = 4, SOAK_UIDS = 20000, SOAK_MS = 6000 };

struct client {
	struct cluster *c;
	int number;
	pthread_rwlock_t *alive;	/* of each node: held for reading by who uses it */
	atomic_bool *stop;
	int of_uid[SOAK_UIDS];		/* what was acknowledged */
	unsigned acked, refused;
};

/* Each has a user of its own and goes to whatever node serves it. */
static void *deliver_for_long(void *arg)
{
	struct client *k = arg;
	char user[24];
	uint32_t uid;
	int i = 0;

	snprintf(user, sizeof(user), "user%d", k->number);
	while (!atomic_load(k->stop)) {
		struct err err = ERR_INIT;
		struct obox_owner o = { .node = "" };
		struct obox_user *u = NULL;
		int number = k->number * 100000 + (int)k->acked, n;

		pthread_rwlock_rdlock(&k->alive[i]);
		if (k->c->node[i].ob && obox_user_locate(k->c->node[i].ob, user, &u, &o, &err) == 0) {
			for (n = 0; n < 5; n++, number++) {
				if (do_save(k->c, i, u, "INBOX", number, &uid) < 0 || uid >= SOAK_UIDS) {
					k->refused++;
					break;
				}
				if (k->of_uid[uid])
					abort();	/* a UID was given out twice */
				k->of_uid[uid] = number + 1;
				k->acked++;
			}
			obox_user_close(&u);
		}
		pthread_rwlock_unlock(&k->alive[i]);
		i = o.node[0] ? o.node[1] - '0' : (i + 1) % 3;
		usleep(2000);
	}
	return NULL;
}

static void kill_and_restart(struct cluster *c, pthread_rwlock_t *alive)
{
	int64_t end = real_ms() + SOAK_MS;
	int i = 0;

	for (; real_ms() < end; i = (i + 1) % 3) {
		cluster_pass(c, 250);
		if (c->node[i].gate)
			gate_cut(c->node[i].gate, true);	/* some time before it dies */
		pthread_rwlock_wrlock(&alive[i]);
		if (c->node[i].ob)
			node_kill(c, i);
		pthread_rwlock_unlock(&alive[i]);
		cluster_pass(c, i == 1 ? c->ttl_ms + 200 : 50);
		pthread_rwlock_wrlock(&alive[i]);
		node_open(c, i);
		pthread_rwlock_unlock(&alive[i]);
	}
}

static void deliveries_go_on_while_nodes_die(void **state)
{
	struct objstore_faults f = { .seed = 7, .fail_after = -1, .error = 10, .lost_answer = 10, .late = 10, .throttle = 10, .delay_us_max = 2000 };
	struct objstore_faults none = { .fail_after = -1 };
	struct cluster *c = *state;
	struct client *k = mem_calloc(CLIENTS, sizeof(*k));
	pthread_rwlock_t alive[3] = { PTHREAD_RWLOCK_INITIALIZER, PTHREAD_RWLOCK_INITIALIZER, PTHREAD_RWLOCK_INITIALIZER };
	pthread_t t[CLIENTS];
	atomic_bool stop = false;
	unsigned acked = 0, refused = 0;
	struct obox_user *u;
	uint32_t uid;
	int i;

	c->between = objstore_fault_new(c->mem, &f);
	for (i = 0; i < 3; i++)
		node_open(c, i);
	for (i = 0; i < CLIENTS; i++) {
		k[i].c = c;
		k[i].number = i;
		k[i].alive = alive;
		k[i].stop = &stop;
		assert_int_equal(pthread_create(&t[i], NULL, deliver_for_long, &k[i]), 0);
	}
	kill_and_restart(c, alive);
	atomic_store(&stop, true);
	for (i = 0; i < CLIENTS; i++)
		pthread_join(t[i], NULL);
	objstore_fault_set(c->between, &none);
	for (i = 0; i < 3; i++)
		if (c->node[i].ob)
			node_kill(c, i);
	assert_int_equal(node_open(c, 3), 0);
	cluster_pass(c, 3 * c->ttl_ms);
	for (i = 0; i < CLIENTS; i++) {
		char user[24];

		snprintf(user, sizeof(user), "user%d", i);
		u = must_open(c, 3, user);
		for (uid = 1; uid < SOAK_UIDS; uid++)
			if (k[i].of_uid[uid] && !has_message(c, u, "INBOX", uid, k[i].of_uid[uid] - 1))
				fail_msg("%s UID %u is not message %d", user, uid, k[i].of_uid[uid] - 1);
		acked += k[i].acked;
		refused += k[i].refused;
		obox_user_close(&u);
	}
	print_message("# %u deliveries acknowledged, %u refused\n", acked, refused);
	assert_true(acked > 100);
	free(k);
}

/* --- the store goes away --- */

/* Only this node has lost it: the other serves its users, and it finds that out when the network is back. */
static void a_node_cut_off_is_taken_over(void **state)
{
	struct cluster *c = *state;
	struct obox_user *a, *b;
	int i;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	a = must_open(c, 0, "joe");
	live_a_little(c, 0, a);
	gate_cut(c->node[0].gate, true);
	for (i = 0; i < 500 && do_open(c, 1, "joe", &b) < 0; i++)
		cluster_pass(c, 20);
	assert_lived(c, b);
	assert_int_equal(count_of(a, "INBOX"), 5);	/* sessions there read on */
	assert_int_equal(do_save(c, 0, a, "INBOX", 60, NULL), ERR_UNAVAILABLE);
	assert_int_equal(do_save(c, 1, b, "INBOX", 8, NULL), 0);
	gate_cut(c->node[0].gate, false);
	for (i = 0; i < 100 && !obox_fenced(c->node[0].ob); i++)
		cluster_pass(c, 20);
	assert_true(obox_fenced(c->node[0].ob));
	assert_int_equal(do_save(c, 0, a, "INBOX", 61, NULL), ERR_FENCED);
	obox_user_close(&a);
	node_close(c, 0);
	assert_int_equal(node_open(c, 0), 0);	/* a new incarnation */
	a = must_open(c, 0, "ann");
	assert_int_equal(do_save(c, 0, a, "INBOX", 1, NULL), 0);
	obox_user_close(&a);
	assert_int_equal(count_of(b, "INBOX"), 6);
	obox_user_close(&b);
}


static int flip_flag(struct obox_view *v, uint32_t uid, bool on)
{
	struct obox_flag_change c = { .how = on ? OBOX_FLAGS_ADD : OBOX_FLAGS_REMOVE, .flags = OBOX_FLAGGED, .unchangedsince = UINT64_MAX };
	struct seqset one = SEQSET_INIT;
	int rc;

	seqset_add(&one, uid, uid);
	rc = obox_store(v, &one, &c, NULL, NULL, NULL, NULL);
	seqset_free(&one);
	return rc;
}

/* A store that does not answer: what is not durable within flag_commit_delay is not acknowledged, and what a takeover
 * would bring back is not told. */
static void a_stalled_store_is_not_promised_anything(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	struct obox_view *v, *w, *fresh;
	struct obox_status before, st;
	struct obox_sync s;
	struct obox_msg m;
	struct seqset one = SEQSET_INIT;
	uint64_t expunge;
	int64_t start, last = 0;
	uint32_t uid;
	int i;

	assert_int_equal(node_open(c, 0), 0);
	u = must_open(c, 0, "joe");
	for (i = 1; i <= 3; i++)
		assert_int_equal(do_save(c, 0, u, "INBOX", i, &uid), 0);
	assert_int_equal(obox_view_open(u, "INBOX", false, NULL, NULL, &v, &c->err), 0);
	assert_int_equal(obox_view_open(u, "INBOX", false, NULL, NULL, &w, &c->err), 0);
	obox_view_sync(w, true, &s);
	obox_sync_free(&s);
	obox_view_status(w, &before);
	gate_hold(c->node[0].gate, true);
	start = real_ms();
	assert_int_equal(do_flag(u, "INBOX", 1, OBOX_SEEN), 0);
	for (i = 0; real_ms() - start < 600 && flip_flag(v, 1, i % 2) == 0; i++) {
		last = real_ms() - start;
		usleep(10000);
	}
	print_message("# flags were acknowledged for %d of %u ms\n", (int)last, c->flag_ms);
	assert_true(last < c->flag_ms + 100);
	assert_int_equal(do_flag(u, "INBOX", 2, OBOX_SEEN), ERR_UNAVAILABLE);
	gate_hold(c->node[0].gate, false);
	for (i = 0; i < 300 && do_flag(u, "INBOX", 3, OBOX_SEEN) < 0; i++)
		cluster_pass(c, 10);
	obox_view_sync(w, true, &s);
	obox_sync_free(&s);
	gate_hold(c->node[0].gate, true);
	assert_int_equal(flip_flag(v, 2, true), 0);
	seqset_add(&one, 2, 2);
	assert_int_equal(obox_expunge(v, &one, true, &expunge, &c->err), ERR_UNAVAILABLE);
	obox_view_sync(w, true, &s);
	assert_int_equal(s.n_expunged, 0);	/* a takeover would bring it back */
	assert_true(s.n_changed == 1 && s.changed[0] == 2);	/* what became of it before is told as ever */
	obox_view_status(w, &st);
	assert_true(s.highestmodseq < expunge && st.highestmodseq < expunge);	/* nor may a client think that it has heard of it */
	obox_sync_free(&s);
	assert_int_equal(obox_view_count(w), 3);
	/* nor is it missing in a mailbox that is opened now */
	assert_int_equal(obox_view_open(u, "INBOX", false, NULL, NULL, &fresh, &c->err), 0);
	obox_view_sync(fresh, true, &s);
	assert_int_equal(s.n_expunged, 0);
	assert_int_equal(s.exists, 3);
	assert_true(s.highestmodseq < expunge);
	obox_sync_free(&s);
	assert_int_equal(obox_view_read(fresh, 2, &m, 1), 1);
	assert_true(m.uid == 2 && !(m.flags & OBOX_GONE));
	gate_hold(c->node[0].gate, false);
	for (i = 0; i < 300 && obox_view_count(w) == 3; i++) {
		cluster_pass(c, 10);
		obox_view_sync(w, true, &s);
		assert_true(s.n_expunged == 0 || (s.n_expunged == 1 && s.expunged[0] == 2 && s.expunged_seq[0] == 2));
		obox_sync_free(&s);
	}
	assert_int_equal(obox_view_count(w), 2);
	obox_view_sync(fresh, true, &s);
	assert_true(s.n_expunged == 1 && s.expunged[0] == 2 && s.expunged_seq[0] == 2 && s.highestmodseq >= expunge);
	obox_sync_free(&s);
	obox_view_close(&fresh);
	obox_view_status(w, &st);
	assert_true(st.highestmodseq > before.highestmodseq);
	seqset_free(&one);
	obox_view_close(&v);
	obox_view_close(&w);
	obox_user_close(&u);
}

static void an_outage_is_told_at_once_and_ends_by_itself(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u, *v;
	int64_t start, ms;
	int round, i, acked = 0;
	uint32_t uid = 0, last = 0;

	assert_int_equal(node_open(c, 0), 0);
	u = must_open(c, 0, "joe");
	assert_int_equal(obox_mailbox_create(u, "other", 0, &c->err), 0);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < 3; i++) {
			assert_int_equal(do_save(c, 0, u, "INBOX", acked + 1, &uid), 0);
			assert_true(uid > last);
			last = uid;
			acked++;
		}
		gate_cut(c->node[0].gate, true);
		do_save(c, 0, u, "INBOX", 1000, NULL);	/* the one that finds out */
		do_copy(u, "INBOX", 1, 1, "other", false);
		cluster_pass(c, round * 700);		/* in the last round longer than the TTL */
		start = real_ms();
		for (i = 0; i < 20; i++)
			assert_int_equal(do_save(c, 0, u, "INBOX", 1001 + i, NULL), ERR_UNAVAILABLE);
		ms = real_ms() - start;
		assert_true(ms < 500);
		assert_true(obox_mailbox_create(u, "no", 0, &c->err) < 0);
		assert_int_equal(do_open(c, 0, "ann", &v), ERR_UNAVAILABLE);
		assert_int_equal(count_of(u, "INBOX"), acked);	/* reading goes on, and shows nothing that is not there */
		gate_cut(c->node[0].gate, false);
		start = real_ms();
		while (do_flag(u, "INBOX", 1, 1u << round) < 0 && real_ms() - start < 5000)
			cluster_pass(c, 10);
		print_message("# writing again %d ms after the store\n", (int)(real_ms() - start));
		assert_true(real_ms() - start < 4000);
	}
	assert_false(obox_fenced(c->node[0].ob));
	assert_int_equal(count_of(u, "INBOX"), acked);
	assert_int_equal(count_of(u, "other"), 0);	/* what could not be acknowledged was taken back */
	obox_user_close(&u);
	node_close(c, 0);
	assert_int_equal(node_open(c, 1), 0);
	u = must_open(c, 1, "joe");
	assert_int_equal(count_of(u, "INBOX"), acked);
	obox_user_close(&u);
}

/* --- takers that die --- */

/* Node 1 takes over and dies at store call n; node 2 resumes, and so on until one call more is not needed. */
static void a_taker_may_die_at_any_call(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	int64_t n;
	bool done = false;
	int rc;

	for (n = 0; !done && n < 400; n++) {
		char user[24];

		snprintf(user, sizeof(user), "joe%d", (int)n);
		assert_int_equal(node_open(c, 0), 0);
		u = must_open(c, 0, user);
		live_a_little(c, 0, u);
		obox_user_close(&u);
		node_kill(c, 0);
		assert_int_equal(node_open(c, 1), 0);
		cluster_pass(c, 50);
		gate_fail_after(c->node[1].gate, n);
		c->now_us += c->ttl_ms * 1000 * 2;
		metacache_step(c->node[1].mc);
		rc = do_open(c, 1, user, &u);
		if (rc == 0) {
			done = do_save(c, 1, u, "INBOX", 8, NULL) == 0;
			obox_user_close(&u);
		}
		node_kill(c, 1);
		assert_int_equal(node_open(c, 2), 0);
		cluster_pass(c, c->ttl_ms * 3);
		u = must_open(c, 2, user);
		if (done)
			assert_true(has_message(c, u, "INBOX", 8, 8));
		if (count_of(u, "INBOX") == 6)	/* it was stored, and perhaps not answered */
			assert_int_equal(do_expunge(u, "INBOX", 8, 8), 0);
		assert_lived(c, u);
		obox_user_close(&u);
		node_close(c, 2);
	}
	print_message("# %d store calls, each the last one once\n", (int)n);
	assert_true(done);
}

/* Dies at any store call while it serves: what was acknowledged is there. */
static void an_owner_may_die_at_any_call(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	int64_t n;
	int k, acked, tried = 0;

	for (n = 0; n < 60; n++) {
		char user[24];
		uint32_t uid, uids[4] = { 0 };
		bool moved, flagged;

		snprintf(user, sizeof(user), "ann%d", (int)n);
		assert_int_equal(node_open(c, 0), 0);
		u = must_open(c, 0, user);
		assert_int_equal(obox_mailbox_create(u, "box", 0, &c->err), 0);
		gate_fail_after(c->node[0].gate, n);
		for (k = acked = 0; k < 4; k++)
			if (do_save(c, 0, u, "INBOX", k, &uid) == 0)
				uids[acked++] = uid;
		moved = acked == 4 && do_copy(u, "INBOX", uids[0], uids[0], "box", true) == 0;
		flagged = moved && do_flag(u, "INBOX", uids[1], OBOX_SEEN) == 0 && do_expunge(u, "INBOX", uids[3], uids[3]) == 0;
		obox_flush(c->node[0].ob, user, &c->err);
		err_clear(&c->err);
		obox_user_close(&u);
		if (n % 2)
			obox_user_release(c->node[0].ob, user, &c->err);
		node_kill(c, 0);
		assert_int_equal(node_open(c, 1), 0);
		cluster_pass(c, c->ttl_ms * 3);
		u = must_open(c, 1, user);
		for (k = 0; k < acked; k++)
			if (k != 0 && k != 3)
				assert_true(has_message(c, u, "INBOX", uids[k], k));
		if (moved)
			assert_int_equal(count_of(u, "box"), 1);
		if (flagged)
			assert_int_equal(count_of(u, "INBOX"), 2);
		assert_int_equal(do_save(c, 1, u, "INBOX", 9, &uid), 0);
		for (k = 0; k < acked; k++)
			assert_true(uid > uids[k]);
		tried += acked;
		obox_user_close(&u);
		node_close(c, 1);
	}
	assert_true(tried > 150);
}

/* A save whose object never arrived was not acknowledged; it does not appear, and the numbering goes on. */
static void a_record_without_its_object_is_dropped(void **state)
{
	struct cluster *c = *state;
	struct obox_check check = { .bodies = true };
	struct obox_user *u;
	uint32_t uid;

	assert_int_equal(node_open(c, 0), 0);
	u = must_open(c, 0, "joe");
	assert_int_equal(do_save(c, 0, u, "INBOX", 1, NULL), 0);
	gate_fail_after(c->node[0].gate, 1);	/* the journal's object goes first, then the message's */
	assert_true(do_save(c, 0, u, "INBOX", 2, NULL) < 0);
	obox_user_close(&u);
	node_kill(c, 0);
	assert_int_equal(node_open(c, 1), 0);
	cluster_pass(c, c->ttl_ms * 3);
	u = must_open(c, 1, "joe");
	assert_int_equal(count_of(u, "INBOX"), 1);
	assert_int_equal(do_save(c, 1, u, "INBOX", 3, &uid), 0);
	assert_int_equal(uid, 3);	/* 2 was given out, and names nothing for ever */
	assert_true(has_message(c, u, "INBOX", 3, 3));
	assert_int_equal(obox_check(u, &check, &c->err), 0);
	assert_int_equal(check.missing + check.damaged, 0);
	obox_user_close(&u);
}

static int damage_third(void *ctx, const struct objstore_list_item *item)
{
	struct cluster *c = ctx;
	struct buf b = BUF_INIT(0);

	if (!strstr(item->key, "/0000000003"))
		return 0;
	assert_int_equal(objstore_get(c->mem, item->key, &b, NULL, &c->err), 0);
	b.data[b.len / 2] ^= 1;
	assert_int_equal(objstore_put(c->mem, item->key, b.data, b.len, OBJ_ANY, NULL, &c->err), 0);
	buf_free(&b);
	return 0;
}

/* One journal object is damaged: what was before it is there, others do not suffer, and everybody is served. */
static void a_damaged_journal_object_holds_up_nobody(void **state)
{
	struct cluster *c = *state;
	struct obox_user *joe, *ann;

	assert_int_equal(node_open(c, 0), 0);
	joe = must_open(c, 0, "joe");	/* object 1 */
	ann = must_open(c, 0, "ann");	/* 2 */
	assert_int_equal(do_save(c, 0, joe, "INBOX", 1, NULL), 0);	/* 3 */
	assert_int_equal(do_save(c, 0, ann, "INBOX", 1, NULL), 0);
	assert_int_equal(do_save(c, 0, joe, "INBOX", 2, NULL), 0);
	assert_int_equal(do_save(c, 0, ann, "INBOX", 2, NULL), 0);
	obox_user_close(&joe);
	obox_user_close(&ann);
	node_kill(c, 0);
	assert_int_equal(objstore_each(c->mem, "t/journal/", damage_third, c, &c->err), 0);
	assert_int_equal(node_open(c, 1), 0);
	cluster_pass(c, c->ttl_ms * 3);
	ann = must_open(c, 1, "ann");
	assert_int_equal(count_of(ann, "INBOX"), 2);
	joe = must_open(c, 1, "joe");
	assert_int_equal(count_of(joe, "INBOX"), 0);
	assert_int_equal(do_save(c, 1, joe, "INBOX", 3, NULL), 0);
	obox_user_close(&joe);
	obox_user_close(&ann);
}

/* A client looks for new mail at UIDNEXT and above: what lies below what it was told must not become new. */
static void a_uidnext_that_was_told_stays(void **state)
{
	struct cluster *c = *state;
	struct obox_status told, now;
	struct obox_user *u;

	assert_int_equal(node_open(c, 0), 0);
	u = must_open(c, 0, "joe");
	assert_int_equal(do_save(c, 0, u, "INBOX", 1, NULL), 0);
	gate_fail_after(c->node[0].gate, 0);
	assert_true(do_save(c, 0, u, "INBOX", 2, NULL) < 0);
	assert_int_equal(obox_mailbox_status(u, "INBOX", &told, &c->err), 0);
	obox_user_close(&u);
	node_kill(c, 0);
	assert_int_equal(node_open(c, 1), 0);
	cluster_pass(c, c->ttl_ms * 3);
	u = must_open(c, 1, "joe");
	assert_int_equal(obox_mailbox_status(u, "INBOX", &now, &c->err), 0);
	assert_true(now.uidnext >= told.uidnext);
	assert_true(now.highestmodseq > told.highestmodseq);
	obox_user_close(&u);
}

/* A client that saw a flag change which was lost with its node is told to start afresh. */
static void a_lost_flag_change_is_known_to_be_lost(void **state)
{
	struct cluster *c = *state;
	struct obox_status st;
	struct obox_view *v;
	struct obox_user *u;

	assert_int_equal(node_open(c, 0), 0);
	u = must_open(c, 0, "joe");
	assert_int_equal(do_save(c, 0, u, "INBOX", 1, NULL), 0);
	assert_int_equal(obox_mailbox_status(u, "INBOX", &st, &c->err), 0);
	assert_int_equal(do_flag(u, "INBOX", 1, OBOX_SEEN), 0);	/* time stands still: nothing writes it */
	obox_user_close(&u);
	node_kill(c, 0);
	assert_int_equal(node_open(c, 1), 0);
	cluster_pass(c, c->ttl_ms * 3);
	u = must_open(c, 1, "joe");
	assert_int_equal(obox_view_open(u, "INBOX", false, NULL, NULL, &v, &c->err), 0);
	assert_true(obox_view_modseq_known(v, st.highestmodseq));
	assert_false(obox_view_modseq_known(v, st.highestmodseq + 1));
	obox_view_close(&v);
	assert_int_equal(do_flag(u, "INBOX", 1, OBOX_FLAGGED), 0);
	assert_int_equal(obox_view_open(u, "INBOX", false, NULL, NULL, &v, &c->err), 0);
	assert_false(obox_view_modseq_known(v, st.highestmodseq + 1));
	obox_view_close(&v);
	obox_user_close(&u);
}

/* Flags reach the store within flag_commit_delay without anybody asking. */
static void flags_are_written_in_time(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	struct obox_view *v;
	struct obox_msg m;

	assert_int_equal(node_open(c, 0), 0);
	u = must_open(c, 0, "joe");
	assert_int_equal(do_save(c, 0, u, "INBOX", 1, NULL), 0);
	assert_int_equal(do_flag(u, "INBOX", 1, OBOX_SEEN), 0);
	cluster_pass(c, c->flag_ms);
	obox_user_close(&u);
	node_kill(c, 0);
	assert_int_equal(node_open(c, 0), 0);
	u = must_open(c, 0, "joe");
	assert_int_equal(obox_view_open(u, "INBOX", true, NULL, NULL, &v, &c->err), 0);
	assert_int_equal(obox_view_read(v, 1, &m, 1), 1);
	assert_int_equal(m.flags, OBOX_SEEN);
	obox_view_close(&v);
	obox_user_close(&u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(users_of_a_killed_node_are_served_after_the_ttl, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_node_that_starts_again_takes_over_itself, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_sleeper_that_wakes_acknowledges_nothing, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_node_cut_off_is_taken_over, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(deliveries_go_on_while_nodes_die, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_stalled_store_is_not_promised_anything, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(an_outage_is_told_at_once_and_ends_by_itself, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(flags_are_written_in_time, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_taker_may_die_at_any_call, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(an_owner_may_die_at_any_call, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_record_without_its_object_is_dropped, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_damaged_journal_object_holds_up_nobody, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_uidnext_that_was_told_stays, cluster_setup_stepped, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_lost_flag_change_is_known_to_be_lost, cluster_setup_stepped, cluster_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
