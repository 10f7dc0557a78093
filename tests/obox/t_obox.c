/* The mailbox format from outside: what is acknowledged is there, UIDs keep
 * their meaning, views change only when they are synced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "mime/mime.h"
#include "objstore/objstore.h"
#include "obox/obox.h"

#include <ftw.h>
#include <sys/wait.h>
#include <pthread.h>
#include <unistd.h>

struct fix {
	char dir[64];
	struct objstore *store;
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
		.state_dir = f->dir, .mail_store = f->store, .index_store = f->store, .prefix = "t", .node = "n1", .keys = f->keys,
		.flag_commit_delay_ms = 1000, .grace_s = UINT64_MAX,
	};

	assert_int_equal(obox_open(&cfg, &f->ob, &f->err), 0);
	assert_int_equal(obox_user_open(f->ob, "joe", &f->u, &f->err), 0);
}

static void close_box(struct fix *f)
{
	obox_user_close(&f->u);
	obox_close(&f->ob);
}

static int setup(void **state)
{
	struct fix *f = MEM_NEW(struct fix);

	log_set_level(LOG_ERROR);
	snprintf(f->dir, sizeof(f->dir), "/tmp/t_obox.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	f->store = objstore_mem_new();
	f->keys = seal_keys_ephemeral();
	open_box(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	if (f->ob)
		close_box(f);
	objstore_close(&f->store);
	seal_keys_free(&f->keys);
	nftw(f->dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static struct obox_msgin *message(struct fix *f, const char *text, size_t len)
{
	struct obox_msgin *in;

	assert_int_equal(obox_msgin_new(f->ob, &in, &f->err), 0);
	assert_int_equal(obox_msgin_write(in, text, len, &f->err), 0);
	assert_int_equal(obox_msgin_finish(in, &f->err), 0);
	return in;
}

static uint32_t save(struct fix *f, const char *box, const char *text, uint32_t flags)
{
	struct obox_save s = { .msg = message(f, text, strlen(text)), .flags = flags, .idate = 1000 };
	int rc = obox_save(f->u, box, &s, 1, NULL, &f->err);

	if (rc < 0)
		fail_msg("save: %s", f->err.msg);
	obox_msgin_free(&s.msg);
	return s.uid_r;
}

static char *numbered(int n)
{
	return mem_printf("From: a@example.org\r\nSubject: number %d\r\n\r\nbody of number %d\r\n", n, n);
}

static void fill(struct fix *f, const char *box, int n)
{
	int i;

	for (i = 1; i <= n; i++) {
		char *text = numbered(i);

		save(f, box, text, 0);
		free(text);
	}
}

static void assert_body(struct fix *f, const struct obox_msg *m, const char *want, size_t len)
{
	struct obox_body *b;
	char *got = mem_alloc(len + 1);

	if (obox_body_open(f->u, m, &b, &f->err) < 0)
		fail_msg("body: %s", f->err.msg);
	assert_int_equal(obox_body_size(b), len);
	assert_int_equal(obox_body_read(b, 0, got, len, &f->err), 0);
	assert_memory_equal(got, want, len);
	obox_body_close(&b);
	free(got);
}

static struct obox_view *view(struct fix *f, const char *box)
{
	struct obox_view *v;

	if (obox_view_open(f->u, box, false, NULL, NULL, &v, &f->err) < 0)
		fail_msg("view %s: %s", box, f->err.msg);
	return v;
}

static struct seqset *set(uint32_t lo, uint32_t hi)
{
	static struct seqset s;

	seqset_clear(&s);
	seqset_add(&s, lo, hi);
	return &s;
}

static void saved_bytes_come_back_exactly(void **state)
{
	struct fix *f = *state;
	static const char text[] = "Subject: x\r\n\r\nbare \r and \n and \0 and \xff\r\n";
	struct obox_save s = { .msg = message(f, text, sizeof(text) - 1), .idate = INT64_MIN, .prepend = "Return-Path: <a@b>\r\n" };
	struct mime_summary sum;
	struct buf b = BUF_INIT(0);
	struct obox_view *v;
	struct obox_msg m;
	char *want = mem_alloc(sizeof(text) + 20);

	assert_int_equal(obox_save(f->u, "inbox", &s, 1, NULL, &f->err), 0);
	obox_msgin_free(&s.msg);
	v = view(f, "INBOX");
	assert_int_equal(obox_view_count(v), 1);
	assert_int_equal(obox_view_read(v, 1, &m, 1), 1);
	memcpy(want, "Return-Path: <a@b>\r\n", 20);
	memcpy(want + 20, text, sizeof(text) - 1);
	assert_body(f, &m, want, sizeof(text) - 1 + 20);
	assert_int_equal(obox_summary(f->u, &m, &b, &f->err), 0);
	assert_int_equal(mime_summary_open(b.data, b.len, &sum), 0);
	assert_int_equal(sum.size, m.size);
	assert_int_equal(sum.header_size, 20 + 14);
	buf_free(&b);
	free(want);
	obox_view_close(&v);
}

static void sizes_from_nothing_to_many_chunks(void **state)
{
	static const size_t sizes[] = { 0, 1, 131071, 131072, 131073, 300000, 1048576 + 17, 5000001 };
	struct fix *f = *state;
	struct obox_view *v;
	size_t i, k;

	for (i = 0; i < MEM_COUNT(sizes); i++) {
		unsigned char *text = mem_alloc(sizes[i] + 1);
		uint64_t x = i + 1;
		struct obox_save s = { .idate = INT64_MIN };
		struct obox_msg m;

		for (k = 0; k < sizes[i]; k++) {
			x = x * UINT64_C(6364136223846793005) + 1;
			text[k] = (unsigned char)(k & 4096 ? x >> 56 : 'a' + (x >> 60));
		}
		s.msg = message(f, (char *)text, sizes[i]);
		assert_int_equal(obox_save(f->u, "INBOX", &s, 1, NULL, &f->err), 0);
		obox_msgin_free(&s.msg);
		v = view(f, "INBOX");
		assert_int_equal(obox_view_read(v, (uint32_t)i + 1, &m, 1), 1);
		assert_int_equal(m.size, sizes[i]);
		assert_body(f, &m, (char *)text, sizes[i]);
		if (sizes[i] > 140000) {	/* a piece across a chunk border */
			struct obox_body *b;
			char piece[200];

			assert_int_equal(obox_body_open(f->u, &m, &b, &f->err), 0);
			assert_int_equal(obox_body_read(b, 131000, piece, 200, &f->err), 0);
			assert_memory_equal(piece, text + 131000, 200);
			assert_int_equal(obox_body_read(b, sizes[i], piece, 1, &f->err), ERR_INVALID);
			obox_body_close(&b);
		}
		obox_view_close(&v);
		free(text);
	}
}

static void views_change_only_when_synced(void **state)
{
	struct fix *f = *state;
	struct obox_view *a, *b;
	struct obox_flag_change del = { .how = OBOX_FLAGS_ADD, .flags = OBOX_DELETED, .unchangedsince = UINT64_MAX };
	struct obox_sync s;
	struct obox_msg m[10];

	fill(f, "INBOX", 6);
	a = view(f, "INBOX");
	b = view(f, "INBOX");
	assert_int_equal(obox_store(a, set(2, 3), &del, NULL, NULL, NULL, &f->err), 0);
	assert_int_equal(obox_expunge(a, NULL, false, NULL, &f->err), 0);
	assert_int_equal(save(f, "INBOX", "late\r\n\r\n", 0), 7);
	assert_int_equal(obox_view_count(b), 6);
	assert_int_equal(obox_view_uid(b, 3), 3);
	assert_int_equal(obox_view_uid(b, 4), 4);
	assert_int_equal(obox_view_uid(b, 7), 0);
	assert_int_equal(obox_view_read(b, 1, m, 10), 6);
	assert_true(m[1].flags & OBOX_GONE);
	assert_false(m[3].flags & OBOX_GONE);
	assert_int_equal(obox_view_seq(b, 5, false), 5);
	assert_int_equal(obox_view_sync(b, false, &s), 1);	/* expunges held back */
	assert_int_equal(s.n_expunged, 0);
	assert_int_equal(s.exists, 7);
	obox_sync_free(&s);
	assert_int_equal(obox_view_uid(b, 7), 7);
	assert_int_equal(obox_view_sync(b, true, &s), 1);
	assert_int_equal(s.n_expunged, 2);
	assert_int_equal(s.expunged_seq[0], 2);
	assert_int_equal(s.expunged_seq[1], 2);
	assert_int_equal(s.exists, 5);
	obox_sync_free(&s);
	assert_int_equal(obox_view_sync(b, true, &s), 0);
	obox_sync_free(&s);
	assert_int_equal(obox_view_seq(b, 4, false), 2);
	assert_int_equal(obox_view_seq(b, 3, false), 0);
	assert_int_equal(obox_view_seq(b, 3, true), 2);
	obox_view_close(&a);
	obox_view_close(&b);
}

static void flags_are_heard_of_once(void **state)
{
	struct fix *f = *state;
	static const char *const kw[] = { "$Label1" };
	struct obox_flag_change add = { .how = OBOX_FLAGS_ADD, .flags = OBOX_FLAGGED, .keywords = kw, .n_keywords = 1, .unchangedsince = UINT64_MAX };
	struct seqset changed = SEQSET_INIT, modified = SEQSET_INIT;
	struct obox_view *a, *b;
	struct obox_sync s;
	struct obox_msg m;
	uint64_t modseq;
	char *names[OBOX_KEYWORDS_MAX];

	fill(f, "INBOX", 3);
	a = view(f, "INBOX");
	b = view(f, "INBOX");
	assert_int_equal(obox_store(a, set(2, 9), &add, NULL, &changed, &modseq, &f->err), 0);
	assert_int_equal(seqset_count(&changed), 2);
	assert_int_equal(obox_view_sync(a, true, &s), 0);	/* own change */
	obox_sync_free(&s);
	assert_int_equal(obox_view_sync(b, true, &s), 1);
	assert_int_equal(s.n_changed, 2);
	assert_int_equal(s.changed[0], 2);
	assert_int_equal(s.highestmodseq, modseq);
	obox_sync_free(&s);
	assert_int_equal(obox_view_keywords(b, names, 0), 1);
	assert_string_equal(names[0], "$Label1");
	free(names[0]);
	assert_int_equal(obox_view_read(b, 3, &m, 1), 1);
	assert_int_equal(m.flags, OBOX_FLAGGED);
	assert_int_equal(m.kw[0], 1);
	add.unchangedsince = modseq - 1;
	add.flags = OBOX_SEEN;
	assert_int_equal(obox_store(b, set(1, 3), &add, &modified, &changed, &modseq, &f->err), 0);
	assert_int_equal(modified.r[0].lo, 2);
	assert_int_equal(modified.r[0].hi, 3);
	assert_int_equal(seqset_count(&changed), 1);
	seqset_free(&changed);
	seqset_free(&modified);
	obox_view_close(&a);
	obox_view_close(&b);
}

static void everything_survives_a_restart(void **state)
{
	struct fix *f = *state;
	static const char *const kw[] = { "work" };
	struct obox_flag_change add = { .how = OBOX_FLAGS_ADD, .flags = OBOX_SEEN, .keywords = kw, .n_keywords = 1, .unchangedsince = UINT64_MAX };
	struct obox_copy_result res;
	struct obox_status st, st2;
	struct obox_sync sync;
	struct obox_view *v;
	struct obox_msg m[20];
	struct seqset gone = SEQSET_INIT;
	uint64_t before;
	char *text;
	int round;

	fill(f, "INBOX", 10);
	assert_int_equal(obox_mailbox_create(f->u, "a/b/c", 0, &f->err), 0);
	v = view(f, "INBOX");
	assert_int_equal(obox_store(v, set(4, 5), &add, NULL, NULL, NULL, &f->err), 0);
	assert_int_equal(obox_copy(v, set(3, 6), "a/b/c", false, &res, &f->err), 0);
	assert_int_equal(res.dst.r[0].hi, 4);
	obox_copy_result_free(&res);
	assert_int_equal(obox_copy(v, set(9, 10), "a/b/c", true, &res, &f->err), 0);
	obox_copy_result_free(&res);
	obox_view_status(v, &st);
	assert_int_equal(obox_view_sync(v, true, &sync), 1);
	assert_int_equal(sync.highestmodseq, st.highestmodseq);
	obox_sync_free(&sync);
	before = st.highestmodseq;
	assert_int_equal(obox_expunge(v, set(1, 1), true, NULL, &f->err), 0);
	assert_int_equal(obox_view_sync(v, true, &sync), 1);
	obox_sync_free(&sync);
	assert_int_equal(obox_mailbox_rename(f->u, "a", "z", &f->err), 0);
	assert_int_equal(obox_mailbox_subscribe(f->u, "z/b", true, &f->err), 0);
	obox_view_status(v, &st);
	obox_view_close(&v);
	for (round = 0; round < 3; round++) {
		close_box(f);
		open_box(f);
		v = view(f, "INBOX");
		obox_view_status(v, &st2);
		assert_true(st2.highestmodseq > st.highestmodseq);	/* a new epoch begins above all that was told */
		assert_true(obox_view_modseq_known(v, st.highestmodseq));
		st.highestmodseq = st2.highestmodseq;
		assert_memory_equal(&st, &st2, sizeof(st));
		assert_int_equal(st.messages, 7);
		assert_int_equal(obox_view_read(v, 1, m, 20), 7);
		assert_int_equal(m[0].uid, 2);
		assert_true(m[2].flags & OBOX_SEEN);
		obox_view_vanished(v, before, NULL, &gone);
		assert_int_equal(seqset_count(&gone), 1);
		assert_int_equal(gone.r[0].lo, 1);
		obox_view_close(&v);
		v = view(f, "z/b/c");
		assert_int_equal(obox_view_read(v, 1, m, 20), 6);
		assert_int_equal(m[1].kw[0], 1);
		text = numbered(9);
		assert_body(f, &m[4], text, strlen(text));
		free(text);
		obox_view_close(&v);
	}
	seqset_free(&gone);
}

/* The process dies without a word: a second node on the same state directory finds everything acknowledged. */
static void a_killed_node_is_replayed(void **state)
{
	struct fix *f = *state;
	struct obox_view *v;
	struct obox_msg m[8];
	struct obox_flag_change add = { .how = OBOX_FLAGS_ADD, .flags = OBOX_SEEN, .unchangedsince = UINT64_MAX };
	char *text;
	pid_t pid;
	int round, st;

	close_box(f);
	f->ob = NULL;
	objstore_close(&f->store);
	for (round = 0; round < 3; round++) {
		char *store = mem_printf("%s/store", f->dir);

		pid = fork();
		if (pid == 0) {
			assert_int_equal(objstore_posix_open(store, &f->store, &f->err), 0);
			open_box(f);
			fill(f, "INBOX", 2);
			v = view(f, "INBOX");
			obox_store(v, set(1, 1), &add, NULL, NULL, NULL, &f->err);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &st, 0), pid);
		assert_int_equal(st, 0);
		free(store);
	}
	text = mem_printf("%s/store", f->dir);
	assert_int_equal(objstore_posix_open(text, &f->store, &f->err), 0);
	free(text);
	open_box(f);
	v = view(f, "INBOX");
	assert_int_equal(obox_view_read(v, 1, m, 8), 6);
	assert_int_equal(m[5].uid, 6);
	assert_int_equal(m[0].flags, OBOX_SEEN);
	text = numbered(2);
	assert_body(f, &m[5], text, strlen(text));
	free(text);
	obox_view_close(&v);
}

struct deliverer { struct fix *f; int n; };

static void *deliver(void *p)
{
	struct deliverer *d = p;
	struct err err = ERR_INIT;
	int i;

	for (i = 0; i < d->n; i++) {
		struct obox_msgin *in;
		struct obox_save s = { .idate = INT64_MIN };

		obox_msgin_new(d->f->ob, &in, &err);
		obox_msgin_write(in, "Subject: t\r\n\r\nx\r\n", 17, &err);
		obox_msgin_finish(in, &err);
		s.msg = in;
		if (obox_save(d->f->u, "INBOX", &s, 1, NULL, &err) < 0)
			abort();
		obox_msgin_free(&in);
	}
	return NULL;
}

static void parallel_deliveries_publish_uids_in_order(void **state)
{
	struct fix *f = *state;
	struct deliverer d = { f, 100 };
	struct obox_view *v = view(f, "INBOX");
	uint32_t last = 0, n = 0, i;
	pthread_t t[8];
	struct obox_sync s;

	for (i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&t[i], NULL, deliver, &d), 0);
	while (n < 800) {
		if (obox_view_sync(v, true, &s))
			for (; n < s.exists; n++) {
				uint32_t uid = obox_view_uid(v, n + 1);

				assert_int_equal(uid, last + 1);	/* no UID appears behind a greater one */
				last = uid;
			}
		obox_sync_free(&s);
	}
	for (i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	obox_view_close(&v);
}

/* Its threads are for the thread sanitizer as much as for the asserts. */
static void checkpoints_go_on_while_mail_is_saved(void **state)
{
	struct fix *f = *state;
	struct deliverer d = { f, 100 };
	struct obox_status st;
	pthread_t t[4];
	int i;

	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, deliver, &d), 0);
	do {
		assert_int_equal(obox_flush(f->ob, NULL, &f->err), 0);
		assert_int_equal(obox_mailbox_status(f->u, "INBOX", &st, &f->err), 0);
	} while (st.messages < 400);
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	close_box(f);
	open_box(f);
	assert_int_equal(obox_mailbox_status(f->u, "INBOX", &st, &f->err), 0);
	assert_int_equal(st.messages, 400);
	assert_int_equal(st.uidnext, 401);
}

static void mailbox_names_are_checked(void **state)
{
	static const char *const bad[] = { "", "/", "a//b", "a/", "/a", "a\x01", "\xff\xfe", "INBOX" };
	struct fix *f = *state;
	struct obox_mailbox *list;
	size_t i, n;

	for (i = 0; i < MEM_COUNT(bad); i++) {
		err_clear(&f->err);
		assert_true(obox_mailbox_create(f->u, bad[i], 0, &f->err) < 0);
		assert_true(f->err.msg[0]);
	}
	err_clear(&f->err);
	assert_int_equal(obox_mailbox_create(f->u, "Re\xcc\x81sume\xcc\x81", OBOX_USE_SENT, &f->err), 0);
	assert_int_equal(obox_mailbox_create(f->u, "R\xc3\xa9sum\xc3\xa9", 0, &f->err), ERR_EXISTS);
	assert_int_equal(obox_mailbox_create(f->u, "x/y", 0, &f->err), 0);
	assert_int_equal(obox_mailbox_delete(f->u, "x", &f->err), 0);
	assert_int_equal(obox_mailboxes(f->u, &list, &n, &f->err), 0);
	assert_int_equal(n, 4);
	assert_string_equal(list[0].name, "INBOX");
	assert_string_equal(list[1].name, "R\xc3\xa9sum\xc3\xa9");
	assert_int_equal(list[1].special, OBOX_USE_SENT);
	assert_string_equal(list[2].name, "x");
	assert_false(list[2].exists);
	assert_true(list[2].has_children);
	obox_mailboxes_free(list, n);
}

static void renamed_inbox_starts_anew(void **state)
{
	struct fix *f = *state;
	struct obox_status a, b;

	fill(f, "INBOX", 3);
	assert_int_equal(obox_mailbox_status(f->u, "INBOX", &a, &f->err), 0);
	assert_int_equal(obox_mailbox_rename(f->u, "INBOX", "old/mail", &f->err), 0);
	assert_int_equal(obox_mailbox_status(f->u, "old/mail", &b, &f->err), 0);
	assert_int_equal(b.messages, 3);
	assert_int_equal(b.uidvalidity, a.uidvalidity);
	assert_int_equal(obox_mailbox_status(f->u, "inbox", &b, &f->err), 0);
	assert_int_equal(b.messages, 0);
	assert_true(b.uidvalidity > a.uidvalidity);
	assert_int_equal(obox_mailbox_delete(f->u, "INBOX", &f->err), ERR_INVALID);
}

static void copies_keep_the_object_until_the_last_is_gone(void **state)
{
	struct fix *f = *state;
	struct obox_copy_result res;
	struct obox_gc_stats st;
	struct obox_check c = { .bodies = true };
	struct obox_lost *lost;
	struct obox_view *v;
	struct obox_msg m;
	uint64_t n;
	size_t n_lost;
	char *text = numbered(1);

	fill(f, "INBOX", 3);
	assert_int_equal(obox_mailbox_create(f->u, "copy", 0, &f->err), 0);
	v = view(f, "INBOX");
	assert_int_equal(obox_copy(v, set(1, 1), "copy", false, &res, &f->err), 0);
	obox_copy_result_free(&res);
	assert_int_equal(obox_expunge(v, set(1, 2), true, NULL, &f->err), 0);
	obox_view_close(&v);
	assert_int_equal(obox_gc(f->u, true, &st, &f->err), 0);
	v = view(f, "copy");
	assert_int_equal(obox_view_read(v, 1, &m, 1), 1);
	assert_body(f, &m, text, strlen(text));
	obox_view_close(&v);
	assert_int_equal(obox_check(f->u, &c, &f->err), 0);
	assert_int_equal(c.messages, 2);
	assert_int_equal(c.missing + c.damaged, 0);
	assert_int_equal(obox_mailbox_delete(f->u, "copy", &f->err), 0);
	assert_int_equal(obox_expunged_list(f->u, &lost, &n_lost, &f->err), 0);
	assert_int_equal(n_lost, 1);
	assert_string_equal(lost[0].mailbox, "copy");
	obox_expunged_free(lost, n_lost);
	close_box(f);	/* the trash and the dead mailbox's name survive */
	open_box(f);
	assert_int_equal(obox_undelete(f->u, NULL, 0, NULL, &n, &f->err), 0);
	assert_int_equal(n, 1);
	v = view(f, "copy");
	assert_int_equal(obox_view_read(v, 1, &m, 1), 1);
	assert_body(f, &m, text, strlen(text));
	obox_view_close(&v);
	free(text);
}

/* --- summary blocks --- */

static int forget_objects(void *ctx, const struct objstore_list_item *item)
{
	struct fix *f = ctx;

	return strstr(item->key, "/m/") ? objstore_delete(f->store, item->key, &f->err) : 0;
}

static int count_block(void *ctx, const struct objstore_list_item *item)
{
	*(int *)ctx += strstr(item->key, "/sum/") != NULL;
	return 0;
}

static int blocks(struct fix *f)
{
	int n = 0;

	assert_int_equal(objstore_each(f->store, "", count_block, &n, &f->err), 0);
	return n;
}

static void save_long_subject(struct fix *f, int i)
{
	char *text = mem_alloc(10000);
	size_t n = (size_t)snprintf(text, 10000, "Subject: %d", i);

	memset(text + n, 'x', 8000);
	memcpy(text + n + 8000, "\r\n\r\nb\r\n", 8);
	save(f, "INBOX", text, 0);
	free(text);
}

/* Each message of the mailbox has the summary of its own subject. */
static void assert_subjects(struct fix *f, size_t want)
{
	struct obox_view *v = view(f, "INBOX");
	struct obox_msg m[256];
	size_t n = obox_view_read(v, 1, m, 256), i;

	assert_int_equal(n, want);
	for (i = 0; i < n; i++) {
		struct buf b = BUF_INIT(0);
		char subject[32];

		assert_int_equal(obox_summary(f->u, &m[i], &b, &f->err), 0);
		snprintf(subject, sizeof(subject), "Subject: %uxxxx", m[i].uid);
		assert_non_null(memmem(b.data, b.len, subject, strlen(subject)));
		buf_free(&b);
	}
	obox_view_close(&v);
}

static void blocks_of_summaries_shrink_with_the_mail(void **state)
{
	struct fix *f = *state;
	struct obox_gc_stats st;
	struct obox_view *v;
	struct seqset gone = SEQSET_INIT;
	int i, before;

	for (i = 1; i <= 200; i++)
		save_long_subject(f, i);
	assert_int_equal(obox_flush(f->ob, "joe", &f->err), 0);
	before = blocks(f);
	assert_true(before >= 5);
	for (i = 1; i <= 200; i++)	/* the first 100 but a few, and all of the next 60 */
		if ((i <= 100 && i % 20 != 0) || (i > 100 && i <= 160))
			seqset_add(&gone, (uint32_t)i, (uint32_t)i);
	v = view(f, "INBOX");
	assert_int_equal(obox_expunge(v, &gone, true, NULL, &f->err), 0);
	obox_view_close(&v);
	assert_int_equal(obox_gc(f->u, true, &st, &f->err), 0);
	assert_true(blocks(f) < before);
	assert_subjects(f, 45);
	close_box(f);
	open_box(f);
	assert_subjects(f, 45);
	assert_int_equal(objstore_each(f->store, "t/u/", forget_objects, f, &f->err), 0);	/* the blocks alone answer */
	assert_subjects(f, 45);
	seqset_free(&gone);
}

static int count_user(void *ctx, const char *user)
{
	assert_string_equal(user, "joe");
	++*(int *)ctx;
	return 0;
}

static int forget(void *ctx, const struct objstore_list_item *item)
{
	struct fix *f = ctx;

	return strstr(item->key, "/m/") ? 0 : objstore_delete(f->store, item->key, &f->err);
}

/* Everything but the message objects is lost. */
static void message_objects_alone_are_enough(void **state)
{
	struct fix *f = *state;
	static const char *const kw[] = { "$Forwarded", "blue" };
	struct obox_save s = { .flags = OBOX_ANSWERED, .keywords = kw, .n_keywords = 2, .idate = 77 };
	struct obox_check c = { .bodies = true };
	struct obox_status before, after;
	struct obox_view *v;
	struct obox_msg m[8];
	char *names[OBOX_KEYWORDS_MAX], *text;
	int users = 0;
	size_t i, n;

	fill(f, "INBOX", 5);
	assert_int_equal(obox_mailbox_create(f->u, "Work/2026", 0, &f->err), 0);
	s.msg = message(f, "Subject: w\r\n\r\n", 14);
	assert_int_equal(obox_save(f->u, "Work/2026", &s, 1, NULL, &f->err), 0);
	obox_msgin_free(&s.msg);
	assert_int_equal(obox_mailbox_status(f->u, "INBOX", &before, &f->err), 0);
	obox_user_close(&f->u);
	obox_close(&f->ob);
	assert_int_equal(objstore_each(f->store, "", forget, f, &f->err), 0);
	open_box(f);
	obox_user_close(&f->u);
	assert_int_equal(obox_users(f->ob, NULL, count_user, &users, &f->err), 0);
	assert_int_equal(users, 1);
	obox_close(&f->ob);
	assert_int_equal(objstore_each(f->store, "", forget, f, &f->err), 0);
	{
		struct obox_config cfg = { .state_dir = f->dir, .mail_store = f->store, .index_store = f->store, .prefix = "t", .node = "n1",
					   .keys = f->keys, .grace_s = UINT64_MAX };

		assert_int_equal(obox_open(&cfg, &f->ob, &f->err), 0);
	}
	if (obox_rebuild(f->ob, "joe", false, &c, &f->err) < 0)
		fail_msg("rebuild: %s", f->err.msg);
	assert_int_equal(c.messages, 6);
	assert_int_equal(obox_rebuild(f->ob, "joe", false, &c, &f->err), ERR_EXISTS);
	err_clear(&f->err);
	assert_int_equal(obox_user_open(f->ob, "joe", &f->u, &f->err), 0);
	assert_int_equal(obox_mailbox_status(f->u, "INBOX", &after, &f->err), 0);
	assert_int_equal(after.messages, 5);
	assert_int_equal(after.uidvalidity, before.uidvalidity);
	assert_true(after.uidnext > before.uidnext);
	assert_true(after.highestmodseq > before.highestmodseq);
	v = view(f, "INBOX");
	assert_int_equal(obox_view_read(v, 1, m, 8), 5);
	text = numbered(4);
	assert_int_equal(m[3].uid, 4);
	assert_body(f, &m[3], text, strlen(text));
	free(text);
	assert_false(obox_view_modseq_known(v, before.highestmodseq));	/* clients start afresh */
	obox_view_close(&v);
	v = view(f, "Work/2026");
	assert_int_equal(obox_view_read(v, 1, m, 8), 1);
	assert_int_equal(m[0].flags, OBOX_ANSWERED);
	assert_int_equal(m[0].idate, 77);
	assert_int_equal(m[0].kw[0], 3);
	n = obox_view_keywords(v, names, 0);
	assert_int_equal(n, 2);
	assert_string_equal(names[1], "blue");
	for (i = 0; i < n; i++)
		free(names[i]);
	obox_view_close(&v);
	assert_int_equal(obox_check(f->u, &c, &f->err), 0);
	assert_int_equal(c.missing + c.damaged + c.orphans, 0);
}

static int damage_one(void *ctx, const struct objstore_list_item *item)
{
	struct fix *f = ctx;
	struct buf b = BUF_INIT(0);

	if (!strstr(item->key, "/m/"))
		return 0;
	assert_int_equal(objstore_get(f->store, item->key, &b, NULL, &f->err), 0);
	b.data[b.len - 3] ^= 1;
	assert_int_equal(objstore_put(f->store, item->key, b.data, b.len, OBJ_ANY, NULL, &f->err), 0);
	buf_free(&b);
	return 1;
}

static void a_damaged_object_damages_that_message_only(void **state)
{
	struct fix *f = *state;
	struct obox_check c = { .bodies = true };
	struct obox_body *b;
	struct obox_view *v;
	struct obox_msg m[4];
	char *text = numbered(2);
	char got[200];

	fill(f, "INBOX", 2);
	assert_int_equal(objstore_each(f->store, "", damage_one, f, &f->err), 1);
	v = view(f, "INBOX");
	assert_int_equal(obox_view_read(v, 1, m, 4), 2);
	assert_int_equal(obox_body_open(f->u, &m[0], &b, &f->err), 0);
	assert_int_equal(obox_body_read(b, 0, got, 10, &f->err), ERR_CORRUPT);
	obox_body_close(&b);
	err_clear(&f->err);
	assert_body(f, &m[1], text, strlen(text));
	free(text);
	obox_view_close(&v);
	assert_int_equal(obox_check(f->u, &c, &f->err), 0);
	assert_int_equal(c.damaged, 1);
}

static int dump_one(void *ctx, const struct objstore_list_item *item)
{
	struct fix *f = ctx;
	struct buf text = BUF_INIT(0);
	int json;

	for (json = 0; json < 2; json++) {
		buf_clear(&text);
		if (obox_dump(f->ob, item->key, json, &text, &f->err) < 0)
			fail_msg("dump %s: %s", item->key, f->err.msg);
		assert_true(text.len > 20);
	}
	buf_free(&text);
	return 0;
}

static void every_object_can_be_dumped(void **state)
{
	struct fix *f = *state;

	fill(f, "INBOX", 3);
	assert_int_equal(obox_mailbox_subscribe(f->u, "INBOX", true, &f->err), 0);
	close_box(f);
	open_box(f);
	fill(f, "INBOX", 1);
	assert_int_equal(obox_flush(f->ob, NULL, &f->err), 0);
	assert_int_equal(objstore_each(f->store, "", dump_one, f, &f->err), 0);
}

/* Each store call fails once: nothing acknowledged is lost, nothing else breaks. */
static void any_store_call_may_fail(void **state)
{
	struct fix *f = *state;
	struct objstore_faults faults = { .fail_after = -1 };
	struct objstore *fault;
	int64_t n;
	uint32_t acked = 0;
	struct obox_view *v;

	close_box(f);
	fault = f->store = objstore_fault_new(f->store, &faults);
	log_set_level(LOG_ERROR + 1);
	for (n = 0; n < 40; n++) {
		struct obox_save s = { .idate = 1 };
		char *text = numbered((int)n);

		err_clear(&f->err);
		faults.fail_after = -1;
		objstore_fault_set(fault, &faults);
		open_box(f);
		faults.fail_after = n;
		objstore_fault_set(fault, &faults);
		s.msg = message(f, text, strlen(text));
		if (obox_save(f->u, "INBOX", &s, 1, NULL, &f->err) == 0)
			acked++;
		obox_msgin_free(&s.msg);
		free(text);
		close_box(f);	/* uploads fail at call n: the journal is kept */
	}
	faults.fail_after = -1;
	objstore_fault_set(fault, &faults);
	err_clear(&f->err);
	open_box(f);
	log_set_level(LOG_ERROR);
	v = view(f, "INBOX");
	assert_true(acked > 30);
	assert_int_equal(obox_view_count(v), acked);
	obox_view_close(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(saved_bytes_come_back_exactly, setup, teardown),
		cmocka_unit_test_setup_teardown(sizes_from_nothing_to_many_chunks, setup, teardown),
		cmocka_unit_test_setup_teardown(views_change_only_when_synced, setup, teardown),
		cmocka_unit_test_setup_teardown(flags_are_heard_of_once, setup, teardown),
		cmocka_unit_test_setup_teardown(everything_survives_a_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(a_killed_node_is_replayed, setup, teardown),
		cmocka_unit_test_setup_teardown(parallel_deliveries_publish_uids_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(checkpoints_go_on_while_mail_is_saved, setup, teardown),
		cmocka_unit_test_setup_teardown(mailbox_names_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(renamed_inbox_starts_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(blocks_of_summaries_shrink_with_the_mail, setup, teardown),
		cmocka_unit_test_setup_teardown(copies_keep_the_object_until_the_last_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(message_objects_alone_are_enough, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_object_damages_that_message_only, setup, teardown),
		cmocka_unit_test_setup_teardown(every_object_can_be_dumped, setup, teardown),
		cmocka_unit_test_setup_teardown(any_store_call_may_fail, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
