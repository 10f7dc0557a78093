/* What is a user's log, and what is not: segments of earlier owners that
 * arrive late, and saves that failed. */
#include "tests/metacache/cluster.h"

#include "obox/obox-private.h"

#include <inttypes.h>
#include <pthread.h>
#include <unistd.h>

/* --- a store that keeps some puts waiting, and answers them as it is told --- */

enum { HELD_MAX = 32 };

struct keeper {
	struct objstore base;
	struct objstore *below;
	pthread_mutex_t lock;
	const char *hold[2];	/* puts of keys with these are held; NULL: none */
	struct objstore_op *held[HELD_MAX];
	size_t n;
};

static void keeper_submit(struct objstore *base, struct objstore_op *op)
{
	struct keeper *k = (struct keeper *)base;
	bool hold = false;
	size_t i;

	pthread_mutex_lock(&k->lock);
	for (i = 0; i < MEM_COUNT(k->hold); i++)
		hold |= op->verb == OBJ_PUT && k->hold[i] && strstr(op->key, k->hold[i]);
	if (hold) {
		assert_true(k->n < HELD_MAX);
		k->held[k->n++] = op;
	}
	pthread_mutex_unlock(&k->lock);
	if (!hold)
		objstore_submit(k->below, op);
}

static void keeper_close(struct objstore *s)
{
	objstore_close(&((struct keeper *)s)->below);
	free(s);
}

static const struct objstore_ops keeper_ops = { .name = "keeper", .submit = keeper_submit, .close = keeper_close };

static struct keeper *keeper_put_between(struct cluster *c)
{
	struct keeper *k = MEM_NEW(struct keeper);

	k->base.ops = &keeper_ops;
	k->base.caps = c->mem->caps;
	k->below = c->mem;
	pthread_mutex_init(&k->lock, NULL);
	c->between = &k->base;
	return k;
}

static void keeper_hold(struct keeper *k, const char *one, const char *other)
{
	pthread_mutex_lock(&k->lock);
	k->hold[0] = one;
	k->hold[1] = other;
	pthread_mutex_unlock(&k->lock);
}

static size_t keeper_count(struct keeper *k, const char *part)
{
	size_t n = 0, i;

	pthread_mutex_lock(&k->lock);
	for (i = 0; i < k->n; i++)
		n += strstr(k->held[i]->key, part) != NULL;
	pthread_mutex_unlock(&k->lock);
	return n;
}

/* The first put that is held and has part in its key fails; false: there is none. */
static bool keeper_fail(struct keeper *k, const char *part)
{
	struct objstore_op *op = NULL;
	size_t i;

	pthread_mutex_lock(&k->lock);
	for (i = 0; i < k->n && !op; i++)
		if (strstr(k->held[i]->key, part)) {
			op = k->held[i];
			memmove(k->held + i, k->held + i + 1, (--k->n - i) * sizeof(*k->held));
		}
	pthread_mutex_unlock(&k->lock);
	if (!op)
		return false;
	op->rc = err_set(&op->err, ERR_DENIED, "%s: denied", op->key);
	op->done(op);
	return true;
}

/* --- segments of earlier owners --- */

/* Behind the log, as it is now, lies what its last owner, or one who took that over, may have put there: all of INBOX expunged. */
static void put_late_segment(struct cluster *c, int i, const char *user)
{
	char *prefix = obox_user_prefix("t", user), *key, etag[OBJ_ETAG_MAX];
	struct rec r = { .type = REC_EXPUNGE, .modseq = UINT64_C(1) << 40 };
	struct buf seg = BUF_INIT(4096), sealed = BUF_INIT(8192);
	struct seqset all = SEQSET_INIT;
	struct manifest man;
	struct obox_status st;
	struct obox_user *u;

	u = NULL;
	assert_int_equal(do_open(c, i, user, &u), 0);
	assert_int_equal(obox_mailbox_status(u, "INBOX", &st, &c->err), 0);
	obox_user_close(&u);
	assert_int_equal(obox_user_release(c->node[i].ob, user, &c->err), 0);
	assert_int_equal(root_get(c->node[i].ob, prefix, &man, etag, &c->err), 1);
	seqset_add(&all, 1, st.uidnext - 1);
	r.guid = st.guid;
	r.uids = &all;
	segment_encode_head(man.log_seq + 1, man.epoch, man.log_lsn + 1, 1, man.log_hash, &seg);
	rec_encode(&r, &seg);
	key = mem_printf("%slog/%010" PRIu64, prefix, man.log_seq + 1);
	assert_int_equal(bundle_seal(c->node[i].ob, key, seg.data, seg.len, &sealed, &c->err), 0);
	assert_int_equal(objstore_put(c->mem, key, sealed.data, sealed.len, OBJ_CREATE, NULL, &c->err), 0);
	seqset_free(&all);
	buf_free(&seg);
	buf_free(&sealed);
	free(prefix);
	free(key);
}

static struct obox_user *must_open(struct cluster *c, int i)
{
	struct obox_user *u = NULL;
	int k;

	for (k = 0; k < 100 && do_open(c, i, "joe", &u) < 0; k++)
		cluster_pass(c, c->ttl_ms / 4);
	if (!u)
		fail_msg("node %d cannot open joe: %s", i, c->err.msg);
	return u;
}

static void begin(struct cluster *c)
{
	struct obox_user *u;
	int k;

	for (k = 0; k < 3; k++)
		assert_int_equal(node_open(c, k), 0);
	u = must_open(c, 0);
	for (k = 1; k <= 3; k++)
		assert_int_equal(do_save(c, 0, u, "INBOX", k, NULL), 0);
	obox_user_close(&u);
	put_late_segment(c, 0, "joe");
}

static void assert_all(struct cluster *c, struct obox_user *u, uint32_t n)
{
	struct obox_check check = { .bodies = true };
	uint32_t k;

	assert_int_equal(count_of(u, "INBOX"), n);
	for (k = 1; k <= n; k++)
		assert_true(has_message(c, u, "INBOX", k, (int)k));
	assert_int_equal(obox_check(u, &check, &c->err), 0);
	assert_int_equal(check.missing + check.damaged, 0);
}

static int add_text(void *ctx, const char *text, size_t len)
{
	buf_add(ctx, text, len);
	return 0;
}

static void an_owner_writes_past_a_late_segment(void **state)
{
	struct buf shown = BUF_INIT(0);
	struct cluster *c = *state;
	struct obox_user *u;
	int k;

	begin(c);
	u = must_open(c, 1);
	assert_int_equal(do_save(c, 1, u, "INBOX", 4, NULL), 0);
	assert_int_equal(obox_flush(c->node[1].ob, "joe", &c->err), 0);
	assert_int_equal(obox_log_show(c->node[1].ob, "joe", false, add_text, &shown, &c->err), 0);
	assert_non_null(strstr(buf_str(&shown), "void log segment: t/u/"));
	assert_null(strstr(buf_str(&shown), "expunge"));	/* that is in it, and did not happen */
	buf_free(&shown);
	assert_int_equal(do_save(c, 1, u, "INBOX", 5, NULL), 0);
	obox_user_close(&u);
	assert_int_equal(obox_user_release(c->node[1].ob, "joe", &c->err), 0);
	for (k = 2; k >= 0; k -= 2) {
		u = must_open(c, k);
		assert_all(c, u, 5);
		obox_user_close(&u);
		assert_int_equal(obox_user_release(c->node[k].ob, "joe", &c->err), 0);
	}
}

static void a_taker_passes_over_a_late_segment(void **state)
{
	struct cluster *c = *state;
	struct obox_user *u;

	begin(c);
	u = must_open(c, 1);
	assert_int_equal(do_save(c, 1, u, "INBOX", 4, NULL), 0);
	obox_user_close(&u);
	node_kill(c, 1);
	u = must_open(c, 2);
	assert_all(c, u, 4);
	obox_user_close(&u);
}

static void a_late_segment_that_cannot_be_read_is_passed_over_by_readers(void **state)
{
	struct cluster *c = *state;
	char *prefix = obox_user_prefix("t", "joe"), *key = NULL, etag[OBJ_ETAG_MAX];
	struct manifest man;
	struct obox_user *u;
	struct upload up;

	begin(c);
	u = must_open(c, 1);
	assert_int_equal(do_save(c, 1, u, "INBOX", 4, NULL), 0);
	assert_int_equal(upload_prepare(u, false, false, &up, &c->err), 0);
	assert_int_equal(upload_commit(&up, &c->err), 0);
	obox_user_close(&u);
	assert_int_equal(root_get(c->node[1].ob, prefix, &man, etag, &c->err), 1);
	assert_true(man.snap_seq + 2 <= man.log_seq);	/* it lies among what is loaded */
	key = mem_printf("%slog/%010" PRIu64, prefix, man.log_seq - 1);
	assert_int_equal(objstore_head(c->mem, key, NULL, &c->err), 1);
	assert_int_equal(objstore_put(c->mem, key, "damaged", 7, OBJ_ANY, NULL, &c->err), 0);
	node_kill(c, 1);
	u = must_open(c, 2);
	assert_all(c, u, 4);
	obox_user_close(&u);
	node_kill(c, 2);
	assert_int_equal(objstore_delete(c->mem, key, &c->err), 0);
	u = must_open(c, 0);
	assert_all(c, u, 4);
	obox_user_close(&u);
	free(prefix);
	free(key);
}

/* Neither the owner nor who takes over stumbles over it. */
static void a_slot_with_rubbish_is_passed_over(void **state)
{
	struct cluster *c = *state;
	char *prefix = obox_user_prefix("t", "joe"), *key, etag[OBJ_ETAG_MAX];
	struct manifest man;
	struct obox_user *u;
	int k;

	for (k = 0; k < 3; k++)
		assert_int_equal(node_open(c, k), 0);
	for (k = 0; k < 2; k++) {
		u = must_open(c, k);
		assert_int_equal(do_save(c, k, u, "INBOX", 2 * k + 1, NULL), 0);
		assert_int_equal(root_get(c->node[k].ob, prefix, &man, etag, &c->err), 1);
		key = mem_printf("%slog/%010" PRIu64, prefix, man.log_seq + 1);
		assert_int_equal(objstore_put(c->mem, key, "rubbish", 7, OBJ_CREATE, NULL, &c->err), 0);
		free(key);
		if (k == 0)
			assert_int_equal(obox_flush(c->node[k].ob, "joe", &c->err), 0);
		assert_int_equal(do_save(c, k, u, "INBOX", 2 * k + 2, NULL), 0);
		obox_user_close(&u);
		node_kill(c, k);
	}
	u = must_open(c, 2);
	assert_all(c, u, 4);
	obox_user_close(&u);
	free(prefix);
}

static void a_log_with_a_segment_missing_is_an_error_that_names_it(void **state)
{
	struct cluster *c = *state;
	char *prefix = obox_user_prefix("t", "joe"), *key, etag[OBJ_ETAG_MAX];
	struct manifest man = { .log_seq = 0 };
	struct obox_user *u;
	int k;

	assert_int_equal(node_open(c, 0), 0);
	assert_int_equal(node_open(c, 1), 0);
	for (k = 1; k < 10 && man.log_seq == man.snap_seq; k++) {	/* until there is a segment behind the snapshots */
		u = must_open(c, 0);
		assert_int_equal(do_save(c, 0, u, "INBOX", k, NULL), 0);
		obox_user_close(&u);
		assert_int_equal(obox_user_release(c->node[0].ob, "joe", &c->err), 0);
		assert_int_equal(root_get(c->node[0].ob, prefix, &man, etag, &c->err), 1);
	}
	key = mem_printf("%slog/%010" PRIu64, prefix, man.log_seq);
	assert_int_equal(objstore_delete(c->mem, key, &c->err), 0);
	assert_true(do_open(c, 1, "joe", &u) < 0);
	assert_non_null(strstr(c->err.msg, key));
	free(prefix);
	free(key);
}

/* --- saves that failed --- */

struct saver { struct cluster *c; struct obox_user *u; int number, rc; pthread_t thread; };

static void *save_one(void *arg)
{
	struct saver *s = arg;

	s->rc = do_save(s->c, 0, s->u, "INBOX", s->number, NULL);
	return NULL;
}

static void start_saver(struct saver *s, struct keeper *k)
{
	size_t before = keeper_count(k, "/m/");

	assert_int_equal(pthread_create(&s->thread, NULL, save_one, s), 0);
	while (keeper_count(k, "/m/") == before)
		usleep(1000);
}

/* Its message has no object, and what takes it back is not durable: a log that has the one must have the other, though
 * another save, whose object is on its way, lies between them. */
static void a_save_that_failed_is_in_no_log_without_what_takes_it_back(void **state)
{
	struct cluster *c = *state;
	struct keeper *k = keeper_put_between(c);
	struct saver failing = { .c = c, .number = 2 }, slow = { .c = c, .number = 3 };
	struct obox_user *u;
	struct upload up;

	assert_int_equal(node_open(c, 0), 0);
	u = must_open(c, 0);
	assert_int_equal(do_save(c, 0, u, "INBOX", 1, NULL), 0);
	failing.u = slow.u = u;
	keeper_hold(k, "/m/", "/journal/");
	start_saver(&failing, k);
	start_saver(&slow, k);
	assert_true(keeper_fail(k, "/m/"));
	pthread_join(failing.thread, NULL);
	assert_true(failing.rc < 0);
	assert_int_equal(upload_prepare(u, false, false, &up, &c->err), 0);
	assert_int_equal(upload_commit(&up, &c->err), 0);
	gate_cut(c->node[0].gate, true);
	while (keeper_fail(k, "/"))
		;
	pthread_join(slow.thread, NULL);
	assert_true(slow.rc < 0);
	obox_user_close(&u);
	node_kill(c, 0);
	keeper_hold(k, NULL, NULL);
	assert_int_equal(node_open(c, 1), 0);
	u = must_open(c, 1);
	assert_all(c, u, 1);
	obox_user_close(&u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_owner_writes_past_a_late_segment, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_taker_passes_over_a_late_segment, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_late_segment_that_cannot_be_read_is_passed_over_by_readers, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_slot_with_rubbish_is_passed_over, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_log_with_a_segment_missing_is_an_error_that_names_it, cluster_setup, cluster_teardown),
		cmocka_unit_test_setup_teardown(a_save_that_failed_is_in_no_log_without_what_takes_it_back, cluster_setup, cluster_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
