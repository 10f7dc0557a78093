/* Mail on a ring that can neither list nor swap, with its oddities on, the index somewhere else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "crypt/seal.h"
#include "obox/obox.h"
#include "tests/objstore/sproxydfix.h"

#include <ftw.h>

static struct sproxydfix ring;

struct fix {
	char dir[64], index_dir[80];
	struct objstore *mail, *index;
	struct seal_keys *keys;
	struct obox *ob;
	struct obox_user *u;
	struct err err;
};

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static void open_box(struct fix *f)
{
	struct obox_config cfg = {
		.state_dir = f->dir, .mail_store = f->mail, .index_store = f->index, .prefix = "t", .node = "n1", .keys = f->keys,
		.flag_commit_delay_ms = 1000, .grace_s = UINT64_MAX,
	};

	if (obox_open(&cfg, &f->ob, &f->err) < 0 || obox_user_open(f->ob, "joe", &f->u, &f->err) < 0)
		fail_msg("%s", f->err.msg);
}

static void close_box(struct fix *f)
{
	obox_user_close(&f->u);
	obox_close(&f->ob);
}

static int setup_odd(void **state, const char *profile, const char *odd)
{
	struct objstore_settings set = sproxydfix_settings(&ring, profile, SPROXYD_CONNECTORS);
	struct fix *f = MEM_NEW(struct fix);

	sproxydfix_odd(&ring, odd);
	snprintf(f->dir, sizeof(f->dir), "/tmp/t_apart.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->index_dir, sizeof(f->index_dir), "%s/index", f->dir);
	f->keys = seal_keys_ephemeral();
	if (objstore_open(&set, &f->mail, &f->err) < 0 || objstore_posix_open(f->index_dir, &f->index, &f->err) < 0)
		return -1;
	open_box(f);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_odd(state, "chord", "");
}

static int setup_path(void **state)
{
	return setup_odd(state, "bpchord", "");
}

static int setup_bad_day(void **state)
{
	return setup_odd(state, "chord", "\"locked_ms\": 60, \"lag_ms\": 200, \"split_threshold\": 60000, \"ghosts\": true, \"dead\": [1], "
		"\"ring_error\": {\"every\": 7}, \"error\": {\"every\": 11}, \"error_after\": {\"every\": 13, \"method\": \"PUT\", \"status\": 503}, "
		"\"drop_after\": {\"every\": 9, \"method\": \"PUT\"}, \"drop_before\": {\"every\": 17}, \"truncate\": {\"every\": 5}, \"locked\": {\"every\": 6}");
}

static int teardown(void **state)
{
	struct fix *f = *state;

	if (f->ob)
		close_box(f);
	objstore_close(&f->mail);
	objstore_close(&f->index);
	seal_keys_free(&f->keys);
	nftw(f->dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static struct obox_msgin *message(struct fix *f, const char *text)
{
	struct obox_msgin *in;

	assert_int_equal(obox_msgin_new(f->ob, &in, &f->err), 0);
	assert_int_equal(obox_msgin_write(in, text, strlen(text), &f->err), 0);
	assert_int_equal(obox_msgin_finish(in, &f->err), 0);
	return in;
}

static int try_save(struct fix *f, const char *box, const char *text)
{
	struct obox_save s = { .msg = message(f, text), .idate = 1000 };
	int rc = obox_save(f->u, box, &s, 1, NULL, &f->err);

	obox_msgin_free(&s.msg);
	return rc;
}

static void save(struct fix *f, const char *box, const char *text)
{
	if (try_save(f, box, text) < 0)
		fail_msg("save: %s", f->err.msg);
}

/* Small ones go through the journal, large ones do not; these do not shrink when packed. */
static char *numbered(int n)
{
	struct buf b = BUF_INIT(0);
	uint32_t x = (uint32_t)n + 1;
	int i;

	buf_addf(&b, "From: a@example.org\r\nSubject: number %d\r\n\r\n", n);
	for (i = 0; n % 5 == 4 && i < 200000; i++) {
		x = x * 1103515245 + 12345;
		buf_addc(&b, i % 70 == 69 ? '\n' : 33 + (int)(x >> 16) % 94);
	}
	buf_addf(&b, "end of %d\r\n", n);
	return buf_detach(&b);
}

static void assert_bodies(struct fix *f, const char *box, int first, int n)
{
	struct obox_view *v;
	struct obox_msg m[64];
	int i;

	if (obox_view_open(f->u, box, true, NULL, NULL, &v, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	assert_int_equal(obox_view_read(v, 1, m, 64), n);
	for (i = 0; i < n; i++) {
		char *want = numbered(first + i), *got = mem_alloc(m[i].size + 1);
		struct obox_body *b;

		if (obox_body_open(f->u, &m[i], &b, &f->err) < 0 || obox_body_read(b, 0, got, (size_t)m[i].size, &f->err) < 0)
			fail_msg("body %d: %s", i, f->err.msg);
		assert_string_equal(got, want);
		obox_body_close(&b);
		free(want);
		free(got);
	}
	obox_view_close(&v);
}

static void expunge_first(struct fix *f, uint32_t n)
{
	struct seqset uids = SEQSET_INIT;
	struct obox_view *v;

	seqset_add(&uids, 1, n);
	assert_int_equal(obox_view_open(f->u, "INBOX", false, NULL, NULL, &v, &f->err), 0);
	assert_int_equal(obox_expunge(v, &uids, true, NULL, &f->err), 0);
	obox_view_close(&v);
	seqset_free(&uids);
}

static void mail_lives_its_life(void **state)
{
	struct fix *f = *state;
	struct obox_gc_stats st;
	int i;

	for (i = 0; i < 20; i++) {
		char *text = numbered(i);

		save(f, "INBOX", text);
		free(text);
	}
	assert_bodies(f, "INBOX", 0, 20);
	assert_int_equal(obox_flush(f->ob, "joe", &f->err), 0);
	close_box(f);
	open_box(f);
	assert_bodies(f, "INBOX", 0, 20);
	expunge_first(f, 7);
	if (obox_gc(f->u, true, &st, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	assert_true(st.objects >= 7);
	assert_bodies(f, "INBOX", 7, 13);
}

struct said { struct buf text; unsigned damage; };

static void hear(void *ctx, bool damage, const char *text)
{
	struct said *s = ctx;

	buf_addf(&s->text, "%s\n", text);
	s->damage += damage;
}

static int hear_user(void *ctx, const char *user)
{
	buf_addf(ctx, "%s ", user);
	return 0;
}

static void tools_say_that_the_store_cannot_list(void **state)
{
	struct fix *f = *state;
	struct said said = { BUF_INIT(0), 0 };
	struct obox_check c = { .report = hear, .ctx = &said, .bodies = true, .repair = true };
	struct obox_scrub s = { .report = hear, .ctx = &said, .bodies = true, .repair = true };
	struct buf users = BUF_INIT(0);
	struct err e = ERR_INIT;
	int i;

	for (i = 0; i < 6; i++) {
		char *text = numbered(i);

		save(f, "INBOX", text);
		free(text);
	}
	if (obox_check(f->u, &c, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	assert_non_null(strstr(buf_str(&said.text), "cannot list"));
	assert_int_equal(c.messages, 6);
	assert_int_equal(c.missing + c.damaged + c.orphans + c.repaired + said.damage, 0);
	close_box(f);
	open_box(f);
	assert_int_equal(obox_flush(f->ob, NULL, &f->err), 0);
	buf_clear(&said.text);
	if (obox_scrub(f->ob, "joe", &s, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	assert_non_null(strstr(buf_str(&said.text), "cannot list"));
	assert_int_equal(s.messages, 6);
	assert_int_equal(s.missing + s.damaged + s.orphans + s.repaired + said.damage, 0);
	if (obox_users(f->ob, NULL, hear_user, &users, &f->err) < 0)	/* of the index */
		fail_msg("%s", f->err.msg);
	assert_string_equal(buf_str(&users), "joe ");
	obox_user_close(&f->u);
	assert_int_equal(obox_rebuild(f->ob, "joe", true, &c, &e), ERR_INVALID);
	assert_non_null(strstr(e.msg, "cannot list"));
	assert_int_equal(obox_user_open(f->ob, "joe", &f->u, &f->err), 0);
	assert_bodies(f, "INBOX", 0, 6);	/* the root was not touched */
	buf_free(&said.text);
	buf_free(&users);
}

static void a_missing_object_is_found_by_its_name(void **state)
{
	struct fix *f = *state;
	struct said said = { BUF_INIT(0), 0 };
	struct obox_scrub s = { .report = hear, .ctx = &said };
	struct obox_check c = { .report = hear, .ctx = &said };

	save(f, "INBOX", "a: b\r\n\r\nc\r\n");
	sproxydfix_odd(&ring, "");	/* the ring forgets */
	assert_int_equal(obox_check(f->u, &c, &f->err), 0);
	assert_int_equal(c.missing, 1);
	assert_int_equal(obox_flush(f->ob, NULL, &f->err), 0);
	assert_int_equal(obox_scrub(f->ob, "joe", &s, &f->err), 0);
	assert_int_equal(s.missing, 1);
	buf_free(&said.text);
}

static void a_ring_that_is_away_refuses_mail_and_takes_it_later(void **state)
{
	struct fix *f = *state;

	sproxydfix_more(&ring, "{\"down\": [0, 1, 2]}");
	assert_true(err_is_temporary(try_save(f, "INBOX", "a: b\r\n\r\nrefused\r\n")));
	sproxydfix_more(&ring, "{\"down\": []}");
	assert_int_equal(sproxydfix_seen(&ring, "\"DELETE\""), 0);
	usleep(1300000);
	err_clear(&f->err);
	close_box(f);
	open_box(f);
	save(f, "INBOX", "a: b\r\n\r\ntaken\r\n");
}

static void a_key_that_is_anothers_fails_the_save_and_stays(void **state)
{
	struct fix *f = *state;
	struct s3fix door = sproxydfix_door(&ring);
	char *seen;

	sproxydfix_more(&ring, "{\"collide\": true}");
	free(s3fix_ask(&door, "POST", "/-/plant", "{\"key\": \"CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC\", \"data\": \"theirs\"}"));
	assert_int_equal(try_save(f, "INBOX", "a: b\r\n\r\nc\r\n"), ERR_CORRUPT);
	err_clear(&f->err);
	close_box(f);	/* its journal is replayed */
	open_box(f);
	seen = s3fix_ask(&door, "GET", "/-/seen", "");
	assert_non_null(strstr(seen, "\"CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC\": \"dGhlaXJz\""));
	free(seen);
	assert_int_equal(sproxydfix_seen(&ring, "\"DELETE\""), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(mail_lives_its_life, setup, teardown),
		cmocka_unit_test_setup_teardown(mail_lives_its_life, setup_path, teardown),
		cmocka_unit_test_setup_teardown(mail_lives_its_life, setup_bad_day, teardown),
		cmocka_unit_test_setup_teardown(tools_say_that_the_store_cannot_list, setup, teardown),
		cmocka_unit_test_setup_teardown(tools_say_that_the_store_cannot_list, setup_bad_day, teardown),
		cmocka_unit_test_setup_teardown(a_missing_object_is_found_by_its_name, setup, teardown),
		cmocka_unit_test_setup_teardown(a_ring_that_is_away_refuses_mail_and_takes_it_later, setup, teardown),
		cmocka_unit_test_setup_teardown(a_key_that_is_anothers_fails_the_save_and_stays, setup, teardown),
	};
	int rc;

	log_set_level(LOG_ERROR);
	if (sproxydfix_start(&ring) < 0)
		return 99;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	sproxydfix_stop(&ring);
	return rc;
}
