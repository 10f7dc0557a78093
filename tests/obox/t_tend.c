/* What is done without being asked, by a clock turned by hand: mail whose grace period is over goes, a
 * store that hangs holds up no flag change, a damaged copy is read again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "obox/obox-private.h"

#include <ftw.h>
#include <unistd.h>

struct fix {
	struct objstore gate;		/* in front of mem; first, so that ops find the rest */
	struct objstore *mem;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool shut, large_only;		/* puts wait; only those of large objects */
	unsigned waiting;
	unsigned rotten;		/* so many GETs give damaged bytes, but not those past the cache */
	int64_t wall_us, mono_us;
	struct clock clock;
	char dir[64];
	struct seal_keys *keys;
	struct obox *ob;
	struct obox_user *u;
	struct err err;
};

static int64_t wall(void *ctx)
{
	return ((struct fix *)ctx)->wall_us;
}

static int64_t mono(void *ctx)
{
	return ((struct fix *)ctx)->mono_us;
}

static void gate_submit(struct objstore *s, struct objstore_op *op)
{
	struct fix *f = (struct fix *)s;

	pthread_mutex_lock(&f->lock);
	while (f->shut && op->verb == OBJ_PUT && (!f->large_only || (op->n_iov && op->iov[0].iov_len > 200000))) {
		f->waiting++;
		pthread_cond_broadcast(&f->cond);
		pthread_cond_wait(&f->cond, &f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	if (op->verb == OBJ_GET && !op->want_etag && f->rotten) {
		f->rotten--;
		op->rc = objstore_get_range(f->mem, op->key, op->off, op->len, op->out, &op->size, &op->err);
		if (op->rc == 0 && op->out->len)
			op->out->data[op->out->len - 1] ^= 1;
		op->done(op);
		return;
	}
	objstore_submit(f->mem, op);
}

static void gate_set(struct fix *f, bool shut)
{
	pthread_mutex_lock(&f->lock);
	f->shut = shut;
	f->waiting = 0;
	pthread_cond_broadcast(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

static const struct objstore_ops gate_ops = { .name = "gate", .submit = gate_submit };

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static int setup(void **state)
{
	struct fix *f = MEM_NEW(struct fix);
	struct obox_config cfg = { .mail_store = &f->gate, .index_store = &f->gate, .prefix = "t", .node = "n1", .flag_commit_delay_ms = 1000,
				   .grace_s = 7 * 86400 };

	log_set_level(LOG_ERROR);
	f->mem = objstore_mem_new();
	f->gate = (struct objstore){ &gate_ops, f->mem->caps };
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->cond, NULL);
	f->wall_us = INT64_C(1790000000) * 1000000;
	f->mono_us = 1000000;
	f->clock = (struct clock){ wall, mono, f };
	snprintf(f->dir, sizeof(f->dir), "/tmp/t_tend.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	f->keys = seal_keys_ephemeral();
	cfg.state_dir = f->dir;
	cfg.keys = f->keys;
	cfg.clock = &f->clock;
	assert_int_equal(obox_open(&cfg, &f->ob, &f->err), 0);
	assert_int_equal(obox_user_open(f->ob, "joe", &f->u, &f->err), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	obox_user_close(&f->u);
	obox_close(&f->ob);
	objstore_close(&f->mem);
	seal_keys_free(&f->keys);
	pthread_cond_destroy(&f->cond);
	pthread_mutex_destroy(&f->lock);
	nftw(f->dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void save(struct fix *f)
{
	struct obox_save s = { .idate = INT64_MIN };

	assert_int_equal(obox_msgin_new(f->ob, &s.msg, &f->err), 0);
	assert_int_equal(obox_msgin_write(s.msg, "Subject: x\r\n\r\nbody\r\n", 20, &f->err), 0);
	assert_int_equal(obox_msgin_finish(s.msg, &f->err), 0);
	assert_int_equal(obox_save(f->u, "INBOX", &s, 1, NULL, &f->err), 0);
	obox_msgin_free(&s.msg);
}

static int count_one(void *ctx, const struct objstore_list_item *item)
{
	*(int *)ctx += strstr(item->key, "/m/") != NULL;
	return 0;
}

static int objects(struct fix *f)
{
	int n = 0;

	assert_int_equal(objstore_each(f->mem, "", count_one, &n, &f->err), 0);
	return n;
}

static struct obox_view *view(struct fix *f)
{
	struct obox_view *v;

	assert_int_equal(obox_view_open(f->u, "INBOX", false, NULL, NULL, &v, &f->err), 0);
	return v;
}

static void pass(struct fix *f, int64_t seconds)
{
	f->wall_us += seconds * 1000000;
	f->mono_us += seconds * 1000000;
}

static void mail_goes_when_its_grace_period_is_over(void **state)
{
	struct fix *f = *state;
	struct seqset first = SEQSET_INIT;
	struct obox_view *v;

	save(f);
	save(f);
	seqset_add(&first, 1, 1);
	v = view(f);
	assert_int_equal(obox_expunge(v, &first, true, NULL, &f->err), 0);
	obox_view_close(&v);
	seqset_free(&first);
	obox_tend(f->ob);
	pass(f, 6 * 86400);
	obox_tend(f->ob);
	assert_int_equal(objects(f), 2);
	pass(f, 86400 + 3600);
	obox_tend(f->ob);
	assert_int_equal(objects(f), 1);
}

static void nothing_is_begun_when_tending_was_stopped(void **state)
{
	struct fix *f = *state;
	struct seqset first = SEQSET_INIT;
	struct obox_view *v;

	save(f);
	seqset_add(&first, 1, 1);
	v = view(f);
	assert_int_equal(obox_expunge(v, &first, true, NULL, &f->err), 0);
	obox_view_close(&v);
	seqset_free(&first);
	pass(f, 30 * 86400);
	obox_stop_tending(f->ob);
	obox_tend(f->ob);
	assert_int_equal(objects(f), 1);
}

static void *tend(void *ctx)
{
	obox_tend(ctx);
	return NULL;
}

static void a_store_that_hangs_holds_up_no_flag_change(void **state)
{
	struct fix *f = *state;
	struct obox_flag_change seen = { .how = OBOX_FLAGS_ADD, .flags = OBOX_SEEN, .unchangedsince = UINT64_MAX };
	struct seqset one = SEQSET_INIT;
	struct obox_view *v;
	uint64_t modseq;
	pthread_t t;

	save(f);
	gate_set(f, true);
	pass(f, 3600);		/* a checkpoint is due */
	assert_int_equal(pthread_create(&t, NULL, tend, f->ob), 0);
	pthread_mutex_lock(&f->lock);
	while (!f->waiting)
		pthread_cond_wait(&f->cond, &f->lock);
	pthread_mutex_unlock(&f->lock);
	seqset_add(&one, 1, 1);
	v = view(f);
	assert_int_equal(obox_store(v, &one, &seen, NULL, NULL, &modseq, &f->err), 0);
	obox_view_close(&v);
	pass(f, 2);
	obox_upkeep(f->ob);	/* waits for ever when it waits for the store */
	assert_true(f->ob->last_sync_us == f->mono_us);
	gate_set(f, false);
	pthread_join(t, NULL);
	seqset_free(&one);
}

/* --- a mailbox that is deleted while saves into it are under way --- */

struct saver { struct fix *f; size_t size; int rc; };

static void *save_into_tmp(void *ctx)
{
	struct saver *sv = ctx;
	struct obox_save s = { .idate = INT64_MIN };
	struct err err = ERR_INIT;
	char *text = mem_alloc(sv->size);
	size_t i;

	randombytes_buf(text, sv->size);	/* not to be packed to nothing */
	for (i = 0; i < sv->size; i++)
		text[i] = (char)('a' + (unsigned char)text[i] % 26);
	memcpy(text, "Subject: x\r\n\r\n", 14);
	if (obox_msgin_new(sv->f->ob, &s.msg, &err) < 0 || obox_msgin_write(s.msg, text, sv->size, &err) < 0 || obox_msgin_finish(s.msg, &err) < 0)
		abort();
	sv->rc = obox_save(sv->f->u, "Tmp", &s, 1, NULL, &err);
	obox_msgin_free(&s.msg);
	free(text);
	return NULL;
}

/* The second save waits to be shown behind the first, which ends with "no such mailbox". */
static void saves_into_a_mailbox_that_is_deleted_end(void **state)
{
	struct fix *f = *state;
	struct saver large = { f, 900000, 1 }, small = { f, 100, 1 };
	pthread_t a, b;

	assert_int_equal(obox_mailbox_create(f->u, "Tmp", 0, &f->err), 0);
	f->large_only = true;
	gate_set(f, true);
	assert_int_equal(pthread_create(&a, NULL, save_into_tmp, &large), 0);
	pthread_mutex_lock(&f->lock);
	while (!f->waiting)
		pthread_cond_wait(&f->cond, &f->lock);
	pthread_mutex_unlock(&f->lock);
	assert_int_equal(pthread_create(&b, NULL, save_into_tmp, &small), 0);
	usleep(300000);			/* it waits by now; if it does not, less is tried */
	assert_int_equal(obox_mailbox_delete(f->u, "Tmp", &f->err), 0);
	gate_set(f, false);
	pthread_join(a, NULL);
	pthread_join(b, NULL);		/* for ever, when nobody wakes it */
	assert_int_equal(large.rc, ERR_NOTFOUND);
	assert_true(small.rc == 0 || small.rc == ERR_NOTFOUND);
}

/* Such as a cache on a disk that goes bad, where its own checksum does not see it. */
static void a_damaged_copy_is_read_again_from_the_store_itself(void **state)
{
	struct fix *f = *state;
	struct obox_body *b = NULL;
	struct obox_view *v;
	struct obox_msg m;
	char text[20];
	unsigned n;

	save(f);
	v = view(f);
	assert_int_equal(obox_view_read(v, 1, &m, 1), 1);
	obox_view_close(&v);
	for (n = 0; n < 4; n++) {
		f->rotten = n;
		assert_int_equal(obox_body_open(f->u, &m, &b, &f->err), 0);
		memset(text, 0, sizeof(text));
		assert_int_equal(obox_body_read(b, 0, text, 20, &f->err), 0);
		assert_memory_equal(text, "Subject: x\r\n\r\nbody\r\n", 20);
		obox_body_close(&b);
	}
	f->rotten = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(mail_goes_when_its_grace_period_is_over, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_begun_when_tending_was_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(a_store_that_hangs_holds_up_no_flag_change, setup, teardown),
		cmocka_unit_test_setup_teardown(saves_into_a_mailbox_that_is_deleted_end, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_copy_is_read_again_from_the_store_itself, setup, teardown),
	};

	alarm(120);
	return cmocka_run_group_tests_name("what is done by itself", tests, NULL, NULL);
}
