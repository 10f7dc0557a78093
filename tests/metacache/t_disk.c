/* Users' snapshots and logs on this machine's disk: what a restart, a user who
 * comes back and a small cache cost the store, and that nothing of it is
 * believed. */
#include "tests/metacache/cluster.h"

#include "base/buf.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static struct metadisk_stats stats(struct cluster *c, int i)
{
	struct metadisk_stats st;

	metadisk_stats(c->node[i].cache, &st);
	return st;
}

/* n messages in INBOX, with sizes and dates as mail has them: the index is as large as a real one. */
static void fill(struct cluster *c, int i, struct obox_user *u, const char *box, uint32_t n)
{
	enum { PART = 2000 };
	struct obox_save *s = mem_calloc(PART, sizeof(*s));
	struct obox_msgin *in[8];
	char text[3000];
	uint32_t k, part, x = 1;

	memset(text, 'x', sizeof(text));
	memcpy(text, "Subject: x\r\n\r\n", 14);
	for (k = 0; k < 8; k++) {
		assert_int_equal(obox_msgin_new(c->node[i].ob, &in[k], &c->err), 0);
		assert_int_equal(obox_msgin_write(in[k], text, 100 + 360 * k, &c->err), 0);
		assert_int_equal(obox_msgin_finish(in[k], &c->err), 0);
	}
	for (; n; n -= part) {
		part = n < PART ? n : PART;
		for (k = 0; k < part; k++) {
			x = x * 1664525 + 1013904223;
			s[k] = (struct obox_save){ .msg = in[x >> 29], .idate = 1700000000 + (x >> 8), .flags = x >> 28 & 1 };
		}
		assert_int_equal(obox_save(u, box, s, part, NULL, &c->err), 0);
	}
	for (k = 0; k < 8; k++)
		obox_msgin_free(&in[k]);
	free(s);
}

/* Doubles what is there by copies, cheaper for the test, until it has n. */
static void grow(struct obox_user *u, uint32_t n)
{
	uint32_t have;

	while ((have = count_of(u, "INBOX")) < n)
		assert_int_equal(do_copy(u, "INBOX", 1, n - have < have ? n - have : have, "INBOX", false), 0);
}

static struct gate_count cost_of_select(struct cluster *c, int i, const char *user, uint32_t want, int64_t *us_r)
{
	struct gate_count before = gate_count(c->node[i].gate), after;
	int64_t t = clock_mono_us(&clock_system);
	struct obox_status st;
	struct obox_user *u;
	struct obox_view *v;

	assert_int_equal(do_open(c, i, user, &u), 0);
	assert_int_equal(obox_view_open(u, "INBOX", false, NULL, NULL, &v, &c->err), 0);
	obox_view_status(v, &st);
	assert_int_equal(st.messages, want);
	*us_r = clock_mono_us(&clock_system) - t;
	after = gate_count(c->node[i].gate);
	obox_view_close(&v);
	obox_user_close(&u);
	after.total -= before.total;
	after.get -= before.get;
	after.put -= before.put;
	return after;
}

static void a_restart_is_warm(void **state)
{
	struct cluster *c = *state;
	struct gate_count n;
	struct obox_user *u;
	int64_t us;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	fill(c, 0, u, "INBOX", 10000);
	grow(u, 100000);
	obox_user_close(&u);
	node_close(c, 0);
	c->disk = 0;
	assert_int_equal(node_open(c, 0), 0);
	n = cost_of_select(c, 0, "joe", 100000, &us);
	print_message("# without a cache: login and SELECT of 100000 messages: %d requests, %d of them GETs, %.1f ms\n", (int)n.total, (int)n.get, (double)us / 1000);
	assert_int_equal(n.total, 4);
	node_close(c, 0);
	c->disk = 32 * MIB;
	assert_int_equal(node_open(c, 0), 0);
	n = cost_of_select(c, 0, "joe", 100000, &us);	/* what was written in the first life was cached then, and is what root names still */
	print_message("# after a restart: %d requests, %d of them GETs, %.1f ms; %d KiB cached\n", (int)n.total, (int)n.get, (double)us / 1000,
		      (int)(stats(c, 0).bytes_used / 1024));
	assert_int_equal(n.total, 2);	/* root, and its swap */
	assert_int_equal(n.get, 1);
	node_close(c, 0);
	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	assert_int_equal(do_save(c, 0, u, "INBOX", 7, NULL), 0);
	obox_user_close(&u);
	assert_int_equal(obox_user_release(c->node[0].ob, "joe", &c->err), 0);
	n = cost_of_select(c, 0, "joe", 100001, &us);	/* a user who comes back */
	assert_int_equal(n.total, 2);
	assert_int_equal(stats(c, 0).objects, 3);	/* nothing old is kept: user, INBOX, the segment behind them */
}

static void after_a_crash_the_rest_of_the_log_alone_is_fetched(void **state)
{
	struct cluster *c = *state;
	struct gate_count n;
	struct obox_user *u;
	int64_t us;
	int k;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	fill(c, 0, u, "INBOX", 3000);
	obox_user_close(&u);
	assert_int_equal(obox_user_release(c->node[0].ob, "joe", &c->err), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	for (k = 0; k < 5; k++)
		assert_int_equal(do_save(c, 0, u, "INBOX", k, NULL), 0);
	assert_int_equal(stats(c, 0).dirty, 1);
	obox_user_close(&u);
	node_kill(c, 0);
	assert_int_equal(node_open(c, 0), 0);	/* replays its own journal */
	n = cost_of_select(c, 0, "joe", 3005, &us);
	print_message("# after a crash: %d requests, %d GETs\n", (int)n.total, (int)n.get);
	assert_true(n.get <= 4);	/* root, again, the new segments; neither snapshot */
	assert_int_equal(stats(c, 0).dirty, 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	for (k = 0; k < 5; k++)
		assert_true(has_message(c, u, "INBOX", 3001 + (uint32_t)k, k));
	obox_user_close(&u);
}

static void what_another_node_wrote_meanwhile_is_seen(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	int round, k;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	for (round = 0; round < 12; round++) {
		int i = round % 3 == 1;

		assert_int_equal(do_open(c, i, "joe", &u), 0);
		assert_int_equal(count_of(u, "INBOX"), round);
		for (k = 1; k <= round; k++)
			assert_true(has_message(c, u, "INBOX", (uint32_t)k, k));
		assert_int_equal(do_save(c, i, u, "INBOX", round + 1, NULL), 0);
		assert_int_equal(do_flag(u, "INBOX", 1, round % 2 ? OBOX_SEEN : 0), 0);
		obox_user_close(&u);
		if (round % 4 == 3)
			assert_int_equal(obox_flush(c->node[i].ob, "joe", &c->err), 0);
		if (round % 4 == 2) {
			node_kill(c, i);
			assert_int_equal(node_open(c, i), 0);
		} else {
			assert_int_equal(obox_user_release(c->node[i].ob, "joe", &c->err), 0);
		}
		cluster_pass(c, c->ttl_ms * 2);
	}
	assert_true(stats(c, 0).hits > 0);
}

/* --- the files --- */

static char *file_of(struct cluster *c, int i)
{
	return mem_printf("%s/%d/metacache/metacache.db", c->dir, i);
}

static void copy_file(const char *from, const char *to)
{
	char block[65536];
	ssize_t n;
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, block, sizeof(block))) > 0)
		assert_int_equal(write(out, block, (size_t)n), n);
	close(in);
	close(out);
}

/* The file of days ago comes back: nothing in it is served. */
static void an_old_cache_that_comes_back_is_not_believed(void **state)
{
	struct cluster *c = *state;
	char *path = file_of(c, 0), *old = mem_printf("%s/old.db", c->dir);
	struct obox_user *u;
	int round, k;

	for (round = 0; round < 10; round++) {
		assert_int_equal(node_open(c, 0), 0);
		assert_int_equal(do_open(c, 0, "joe", &u), 0);
		assert_int_equal(count_of(u, "INBOX"), round);
		for (k = 1; k <= round; k++)
			assert_true(has_message(c, u, "INBOX", (uint32_t)k, k));
		assert_int_equal(do_save(c, 0, u, "INBOX", round + 1, NULL), 0);
		assert_int_equal(do_flag(u, "INBOX", 1 + (uint32_t)round / 2, OBOX_FLAGGED), 0);
		obox_user_close(&u);
		if (round % 2)
			node_kill(c, 0);
		else
			node_close(c, 0);
		if (round % 3 == 0)
			copy_file(path, old);
		else if (round % 3 == 2)
			copy_file(old, path);
	}
	free(path);
	free(old);
}

/* Bits turned in what is cached of this user, each time elsewhere: mail is as it was. */
static void damage_is_dropped_and_read_from_the_store(void **state)
{
	struct cluster *c = *state;
	char *path = file_of(c, 0);
	uint64_t dropped = 0;
	struct gate_count n;
	struct obox_user *u;
	struct stat sb;
	uint32_t x = 1;
	int64_t us;
	int round, k, fd;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	fill(c, 0, u, "INBOX", 3000);
	obox_user_close(&u);
	node_close(c, 0);
	for (round = 0; round < 60; round++) {
		fd = open(path, O_RDWR);
		assert_true(fd >= 0 && fstat(fd, &sb) == 0);
		for (k = 0; k < 1 + round % 4; k++) {
			unsigned char b = 0;
			off_t at;

			x = x * 1664525 + 1013904223;
			at = (off_t)(x % (uint64_t)sb.st_size);
			assert_int_equal(pread(fd, &b, 1, at), 1);
			b ^= (unsigned char)(1 << (x >> 29));
			assert_int_equal(pwrite(fd, &b, 1, at), 1);
		}
		if (round % 10 == 9)
			assert_int_equal(ftruncate(fd, sb.st_size / 2), 0);
		close(fd);
		assert_int_equal(node_open(c, 0), 0);
		n = cost_of_select(c, 0, "joe", 3000 + (uint32_t)round, &us);
		assert_true(n.total <= 7);	/* five, and what was fetched in vain beside something damaged */
		dropped += stats(c, 0).dropped;
		assert_int_equal(do_open(c, 0, "joe", &u), 0);
		for (k = 0; k < round; k++)
			assert_true(has_message(c, u, "INBOX", 3001 + (uint32_t)k, k));
		assert_int_equal(do_save(c, 0, u, "INBOX", round, NULL), 0);
		obox_user_close(&u);
		node_close(c, 0);
		assert_int_equal(node_open(c, 0), 0);
		(void)cost_of_select(c, 0, "joe", 3001 + (uint32_t)round, &us);	/* what had to start over while something was kept lacks the rest */
		node_close(c, 0);
		assert_int_equal(node_open(c, 0), 0);
		assert_int_equal(cost_of_select(c, 0, "joe", 3001 + (uint32_t)round, &us).total, 2);	/* and warm again */
		node_close(c, 0);
	}
	print_message("# %d times something damaged was dropped\n", (int)dropped);
	assert_true(dropped > 5);
	free(path);
}

/* A mailbox far larger than the cache works, and leaves the others where they are. */
static void a_large_mailbox_leaves_other_users_cached(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	char name[16], box[16];
	uint64_t bytes;
	int64_t us;
	int i;

	c->disk = 2 * MIB;
	assert_int_equal(node_open(c, 0), 0);
	for (i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		assert_int_equal(do_open(c, 0, name, &u), 0);
		fill(c, 0, u, "INBOX", 200);
		obox_user_close(&u);
		assert_int_equal(obox_user_release(c->node[0].ob, name, &c->err), 0);
	}
	for (i = 0; i < 3; i++) {
		assert_int_equal(do_open(c, 0, "large", &u), 0);
		fill(c, 0, u, "INBOX", 40000);
		snprintf(box, sizeof(box), "box%d", i);
		assert_int_equal(obox_mailbox_create(u, box, 0, &c->err), 0);
		assert_int_equal(do_copy(u, "INBOX", 1, 40000, box, false), 0);
		assert_int_equal(count_of(u, "INBOX"), 40000 * (i + 1));
		assert_int_equal(count_of(u, box), 40000);
		obox_user_close(&u);
		assert_int_equal(obox_user_release(c->node[0].ob, "large", &c->err), 0);
	}
	bytes = stats(c, 0).bytes_disk;
	print_message("# %d KiB of %d on disk, %d objects refused\n", (int)(bytes / 1024), (int)(c->disk / 1024), (int)stats(c, 0).refused);
	assert_true(bytes <= c->disk);
	assert_true(stats(c, 0).refused > 0);
	assert_int_equal(stats(c, 0).evicted, 0);
	for (i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		assert_int_equal(cost_of_select(c, 0, name, 200, &us).total, 2);
	}
	assert_true(cost_of_select(c, 0, "large", 120000, &us).total <= 4);
}

static void an_evicted_user_leaves_nothing_behind(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;
	int64_t us;
	size_t n;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(do_open(c, 0, "joe", &u), 0);
	fill(c, 0, u, "INBOX", 100);
	assert_int_equal(obox_user_evict(c->node[0].ob, "joe", &n, &c->err), ERR_BUSY);
	err_clear(&c->err);
	obox_user_close(&u);
	assert_int_equal(obox_user_evict(c->node[0].ob, "joe", &n, &c->err), 0);
	assert_int_equal(stats(c, 0).users, 0);
	assert_int_equal(stats(c, 0).objects, 0);
	assert_int_equal(cost_of_select(c, 0, "joe", 100, &us).total, 4);
	assert_int_equal(obox_user_evict(c->node[0].ob, "nobody", &n, &c->err), 0);
}

/* The catalogue knows who is dirty, and with the cache full of them they are uploaded. */
static void dirty_users_are_uploaded_when_the_cache_needs_room(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u[60];
	char name[16];
	int i;

	c->disk = 1 * MIB;
	assert_int_equal(node_open(c, 0), 0);
	for (i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		assert_int_equal(do_open(c, 0, name, &u[i]), 0);
		fill(c, 0, u[i], "INBOX", 1500);
		assert_int_equal(obox_flush(c->node[0].ob, name, &c->err), 0);
		assert_int_equal(do_save(c, 0, u[i], "INBOX", 1, NULL), 0);
	}
	assert_true(stats(c, 0).refused > 0);
	assert_int_equal(stats(c, 0).evicted, 0);
	assert_int_equal(stats(c, 0).dirty, 60);
	obox_tend(c->node[0].ob);
	assert_int_equal(stats(c, 0).dirty, 0);
	for (i = 0; i < 60; i++)
		obox_user_close(&u[i]);
	assert_true(stats(c, 0).bytes_disk <= MIB);
}

/* --- threads --- */

enum { THREADS = 6, ROUNDS = 25 };
struct worker { struct cluster *c; int n; pthread_t t; };

static void *work(void *arg)
{
	struct worker *w = arg;
	struct err err = ERR_INIT;
	struct obox_user *u;
	char name[16];
	size_t n;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		snprintf(name, sizeof(name), "u%d", w->n);	/* each its own: counts are certain */
		err_clear(&err);
		if (obox_user_open(w->c->node[0].ob, name, &u, &err) < 0 || count_of(u, "INBOX") != (uint32_t)i || do_save(w->c, 0, u, "INBOX", i, NULL) < 0)
			abort();
		obox_user_close(&u);
		if (i % 3 == 0)
			(void)obox_user_release(w->c->node[0].ob, name, &err);
		if (i % 5 == 0)
			(void)obox_user_evict(w->c->node[0].ob, name, &n, &err);
		if (w->n == 0 && i % 4 == 0)
			obox_tend(w->c->node[0].ob);
	}
	return NULL;
}

static void many_threads_share_it(void **state)
{
	struct cluster *c = *state;
	struct worker w[THREADS];
	struct obox_user *u;
	char name[16];
	int i;

	c->disk = 1 * MIB;
	assert_int_equal(node_open(c, 0), 0);
	for (i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .c = c, .n = i };
		assert_int_equal(pthread_create(&w[i].t, NULL, work, &w[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(w[i].t, NULL);
	for (i = 0; i < THREADS; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		assert_int_equal(do_open(c, 0, name, &u), 0);
		assert_int_equal(count_of(u, "INBOX"), ROUNDS);
		obox_user_close(&u);
	}
}

static int with_disk(void **state)
{
	int rc = cluster_setup_stepped(state);

	((struct cluster *)*state)->disk = 32 * MIB;
	return rc;
}

static int with_disk_and_threads(void **state)
{
	int rc = cluster_setup(state);

	((struct cluster *)*state)->disk = 32 * MIB;
	return rc;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_restart_is_warm, with_disk, cluster_teardown),
		cmocka_unit_test_setup_teardown(after_a_crash_the_rest_of_the_log_alone_is_fetched, with_disk, cluster_teardown),
		cmocka_unit_test_setup_teardown(what_another_node_wrote_meanwhile_is_seen, with_disk, cluster_teardown),
		cmocka_unit_test_setup_teardown(an_old_cache_that_comes_back_is_not_believed, with_disk, cluster_teardown),
		cmocka_unit_test_setup_teardown(damage_is_dropped_and_read_from_the_store, with_disk, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_large_mailbox_leaves_other_users_cached, with_disk, cluster_teardown),
		cmocka_unit_test_setup_teardown(an_evicted_user_leaves_nothing_behind, with_disk, cluster_teardown),
		cmocka_unit_test_setup_teardown(dirty_users_are_uploaded_when_the_cache_needs_room, with_disk, cluster_teardown),
		cmocka_unit_test_setup_teardown(many_threads_share_it, with_disk_and_threads, cluster_teardown),
	};

	if (argc > 1)	/* by name: the sanitizer of threads has one to look at */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
