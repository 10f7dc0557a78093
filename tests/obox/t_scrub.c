/* Scrubbing: what is lost is named, all of it, and what an owner changes meanwhile is not taken for loss. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "objstore/objstore.h"
#include "obox/obox.h"

#include <ftw.h>
#include <unistd.h>

struct fix {
	struct objstore gate;		/* in front of mem; first, so that ops find the rest */
	struct objstore *mem;
	int64_t age_s;			/* of all objects that are listed */
	void (*before_index)(struct fix *f);	/* called once, before an index is read */
	char dir[64], said[8192];
	unsigned damage;
	struct seal_keys *keys;
	struct obox *ob;
	struct obox_user *u;
	struct err err;
};

static void gate_submit(struct objstore *s, struct objstore_op *op)
{
	struct fix *f = (struct fix *)s;
	void (*before)(struct fix *) = f->before_index;
	size_t i;

	if (op->verb == OBJ_LIST) {
		op->rc = objstore_list(f->mem, op->key, op->start_after, op->max_keys, &op->items, &op->n_items, &op->err);
		for (i = 0; i < op->n_items; i++)
			op->items[i].mtime = clock_wall_s(&clock_system) - f->age_s;
		op->done(op);
		return;
	}
	if (before && op->verb == OBJ_GET && strstr(op->key, "/idx/")) {
		f->before_index = NULL;
		before(f);
	}
	objstore_submit(f->mem, op);
}

static const struct objstore_ops gate_ops = { .name = "gate", .submit = gate_submit };

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static void open_box(struct fix *f, bool user)
{
	struct obox_config cfg = { .state_dir = f->dir, .mail_store = &f->gate, .index_store = &f->gate, .prefix = "t", .node = "n1", .keys = f->keys,
				   .flag_commit_delay_ms = 1000, .grace_s = 7 * 86400 };

	if (obox_open(&cfg, &f->ob, &f->err) < 0 || (user && obox_user_open(f->ob, "joe", &f->u, &f->err) < 0))
		fail_msg("%s", f->err.msg);
}

static void close_box(struct fix *f)
{
	if (f->u)
		obox_user_close(&f->u);
	obox_close(&f->ob);
}

static int setup(void **state)
{
	struct fix *f = MEM_NEW(struct fix);

	log_set_level(LOG_ERROR);
	f->mem = objstore_mem_new();
	f->gate = (struct objstore){ &gate_ops, f->mem->caps };
	snprintf(f->dir, sizeof(f->dir), "/tmp/t_scrub.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	f->keys = seal_keys_ephemeral();
	open_box(f, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	if (f->ob)
		close_box(f);
	objstore_close(&f->mem);
	seal_keys_free(&f->keys);
	nftw(f->dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void save(struct fix *f, const char *text)
{
	struct obox_save s = { .idate = 1000 };

	if (obox_msgin_new(f->ob, &s.msg, &f->err) < 0 || obox_msgin_write(s.msg, text, strlen(text), &f->err) < 0 ||
	    obox_msgin_finish(s.msg, &f->err) < 0 || obox_save(f->u, "INBOX", &s, 1, NULL, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	obox_msgin_free(&s.msg);
}

static void flush(struct fix *f)
{
	if (obox_flush(f->ob, NULL, &f->err) < 0)
		fail_msg("%s", f->err.msg);
}

/* The n-th key that holds part. */
static char *key_with(struct fix *f, const char *part, int n)
{
	struct objstore_list_item *items;
	char *key = NULL;
	size_t i, count;

	assert_int_equal(objstore_list(f->mem, "", NULL, 1000, &items, &count, NULL), 0);
	for (i = 0; i < count && !key; i++)
		if (strstr(items[i].key, part) && n-- == 0)
			key = mem_strdup(items[i].key);
	objstore_items_free(items, count);
	assert_non_null(key);
	return key;
}

static void lose(struct fix *f, const char *part, int n)
{
	char *key = key_with(f, part, n);

	assert_int_equal(objstore_delete(f->mem, key, NULL), 0);
	free(key);
}

static void hear(void *ctx, bool damage, const char *text)
{
	struct fix *f = ctx;
	size_t n = strlen(f->said);

	f->damage += damage;
	snprintf(f->said + n, sizeof(f->said) - n, "%s\n", text);
}

static struct obox_scrub scrub(struct fix *f, bool bodies, bool repair)
{
	struct obox_scrub s = { .report = hear, .ctx = f, .bodies = bodies, .repair = repair };

	f->said[0] = '\0';
	f->damage = 0;
	if (obox_scrub(f->ob, "joe", &s, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	return s;
}

static void assert_said(struct fix *f, const char *text)
{
	if (!strstr(f->said, text))
		fail_msg("\"%s\" is not in:\n%s", text, f->said);
}

static void copy_all(struct fix *f, const char *to, uint32_t first, uint32_t last)
{
	struct obox_copy_result res;
	struct seqset uids = SEQSET_INIT;
	struct obox_view *v = NULL;

	if (obox_mailbox_create(f->u, to, 0, &f->err) < 0 || obox_view_open(f->u, "INBOX", false, NULL, NULL, &v, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	seqset_add(&uids, first, last);
	assert_int_equal(obox_copy(v, &uids, to, false, &res, &f->err), 0);
	obox_copy_result_free(&res);
	seqset_free(&uids);
	obox_view_close(&v);
}

/* --- */

static void a_message_and_all_its_copies_are_named(void **state)
{
	struct fix *f = *state;
	struct obox_scrub s;
	char *key;

	save(f, "a: b\r\n\r\nfirst\r\n");
	save(f, "a: b\r\n\r\nsecond\r\n");
	copy_all(f, "there", 2, 2);
	copy_all(f, "and there", 1, 2);
	flush(f);
	s = scrub(f, true, false);
	assert_int_equal(s.messages, 5);
	assert_int_equal(s.objects, 2);
	assert_int_equal(s.missing + s.damaged + f->damage, 0);
	key = key_with(f, "/m/", 1);
	lose(f, "/m/", 1);
	s = scrub(f, true, false);
	assert_int_equal(s.missing, 3);
	assert_int_equal(f->damage, 3);
	assert_said(f, "user joe mailbox INBOX UID 2: object ");
	assert_said(f, "user joe mailbox there UID 1: object ");
	assert_said(f, "user joe mailbox and there UID 2: object ");
	assert_said(f, key);
	assert_int_equal(objstore_put(f->mem, key, "noise", 5, OBJ_ANY, NULL, NULL), 0);
	s = scrub(f, true, false);
	assert_int_equal(s.damaged, 3);
	assert_int_equal(s.missing, 0);
	assert_said(f, key);
	free(key);
}

static void repairing_does_not_hide_what_stays_damaged(void **state)
{
	struct fix *f = *state;
	struct obox_check c = { .report = hear, .ctx = f, .bodies = true, .repair = true };
	char *key, *orphan;

	save(f, "a: b\r\n\r\nfirst\r\n");
	save(f, "a: b\r\n\r\nsecond\r\n");
	save(f, "a: b\r\n\r\nthird\r\n");
	lose(f, "/m/", 0);
	key = key_with(f, "/m/", 0);
	assert_int_equal(objstore_put(f->mem, key, "noise", 5, OBJ_ANY, NULL, NULL), 0);
	orphan = mem_printf("%.*s000000ff-00000001", (int)(strstr(key, "/m/") + 3 - key), key);
	assert_int_equal(objstore_put(f->mem, orphan, "noise", 5, OBJ_ANY, NULL, NULL), 0);
	f->age_s = 7200;
	assert_int_equal(obox_check(f->u, &c, &f->err), 0);
	assert_int_equal(c.missing, 1);
	assert_int_equal(c.forgotten, 1);
	assert_int_equal(c.damaged, 1);
	assert_int_equal(c.orphans, 1);
	assert_int_equal(c.repaired, 2);
	assert_said(f, key);
	assert_int_equal(objstore_head(f->mem, orphan, NULL, NULL), 0);
	free(key);
	free(orphan);
}

static void replace_snapshots(struct fix *f)
{
	struct obox_gc_stats st;
	char *old = key_with(f, "/idx/user/", 0);
	int i;

	for (i = 0; i < 40; i++) {	/* so many segments are worth a snapshot */
		save(f, "a: b\r\n\r\nmore\r\n");
		flush(f);
	}
	assert_int_equal(obox_gc(f->u, true, &st, &f->err), 0);
	assert_int_equal(objstore_head(f->mem, old, NULL, NULL), 0);
	free(old);
}

static void a_snapshot_that_its_owner_replaces_is_not_lost(void **state)
{
	struct fix *f = *state;
	struct obox_scrub s;

	save(f, "a: b\r\n\r\nfirst\r\n");
	save(f, "a: b\r\n\r\nsecond\r\n");
	close_box(f);		/* writes snapshots */
	open_box(f, true);
	f->before_index = replace_snapshots;
	s = scrub(f, false, false);
	assert_null(f->before_index);
	assert_int_equal(s.bundles + f->damage, 0);
	assert_int_equal(s.messages, 42);
}

static void a_lost_index_is_told_with_what_makes_it_anew(void **state)
{
	struct fix *f = *state;
	struct obox_scrub s;

	save(f, "a: b\r\n\r\nfirst\r\n");
	close_box(f);
	open_box(f, false);
	lose(f, "/idx/user/", 0);
	s = scrub(f, false, true);
	assert_int_equal(s.bundles, 1);
	assert_int_equal(s.orphans, 0);
	assert_said(f, "run culverctl rebuild joe --force");	/* root can be read, so without it nothing is done */
	lose(f, "/root", 0);
	s = scrub(f, false, true);
	assert_int_equal(s.bundles, 1);
	assert_said(f, "run culverctl rebuild joe\n");
}

static void what_belongs_to_nobody_goes_when_it_is_old_and_nobody_serves_the_user(void **state)
{
	struct fix *f = *state;
	struct obox_scrub s;
	char *key, *orphan;

	save(f, "a: b\r\n\r\nfirst\r\n");
	flush(f);
	key = key_with(f, "/m/", 0);
	orphan = mem_printf("%.*s000000ff-00000001", (int)(strstr(key, "/m/") + 3 - key), key);
	assert_int_equal(objstore_put(f->mem, orphan, "noise", 5, OBJ_ANY, NULL, NULL), 0);
	f->age_s = 3000;
	s = scrub(f, false, true);
	assert_int_equal(s.orphans + s.repaired, 0);
	f->age_s = 2 * 86400;
	s = scrub(f, false, true);
	assert_true(s.served);
	assert_int_equal(s.orphans, 1);
	assert_int_equal(s.repaired, 0);
	assert_said(f, "is served by node n1");
	assert_said(f, "culverctl check joe --repair");
	close_box(f);
	open_box(f, false);
	f->age_s = 7200;
	s = scrub(f, false, true);
	assert_false(s.served);
	assert_int_equal(s.orphans, 1);
	assert_int_equal(s.repaired, 0);
	f->age_s = 2 * 86400;
	s = scrub(f, false, false);
	assert_int_equal(s.repaired, 0);
	assert_int_equal(objstore_head(f->mem, orphan, NULL, NULL), 1);
	s = scrub(f, false, true);
	assert_int_equal(s.repaired, 1);
	assert_int_equal(objstore_head(f->mem, orphan, NULL, NULL), 0);
	assert_int_equal(objstore_head(f->mem, key, NULL, NULL), 1);
	free(key);
	free(orphan);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_message_and_all_its_copies_are_named), T(repairing_does_not_hide_what_stays_damaged), T(a_snapshot_that_its_owner_replaces_is_not_lost),
		T(a_lost_index_is_told_with_what_makes_it_anew), T(what_belongs_to_nobody_goes_when_it_is_old_and_nobody_serves_the_user),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
