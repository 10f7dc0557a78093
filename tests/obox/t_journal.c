/* The journal from inside: what was waited for is read back, whatever file it
 * went to and whatever that file held before. */
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
	char dir[64];
	struct seal_keys *keys;
	struct journal *j;
	struct err err;
	/* read back */
	uint64_t n, sum, bytes;
};

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static int setup(void **state)
{
	struct fix *f = MEM_NEW(struct fix);

	log_set_level(LOG_ERROR);
	snprintf(f->dir, sizeof(f->dir), "/tmp/t_journal.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	f->keys = seal_keys_ephemeral();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	journal_close(&f->j);
	seal_keys_free(&f->keys);
	nftw(f->dir, rm_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void open_journal(struct fix *f)
{
	assert_int_equal(journal_open(f->dir, f->keys, &f->j, &f->err), 0);
}

static uint64_t append(struct fix *f, uint64_t lsn, const void *object, size_t len)
{
	struct journal_entry e = { .user = "joe", .epoch = 1, .lsn = lsn, .rec = "record", .rec_len = 6 };
	uint64_t ticket = 0;

	if (object)
		e.object = (struct journal_object){ "key", object, len };
	assert_int_equal(journal_append(f->j, &e, 1, &ticket, &f->err), 0);
	return ticket;
}

static int count(void *ctx, const struct journal_entry *e)
{
	struct fix *f = ctx;

	assert_string_equal(e->user, "joe");
	assert_int_equal(e->rec_len, 6);
	f->n++;
	f->sum += e->lsn;
	f->bytes += e->object.key ? e->object.len : 0;
	return 0;
}

static void replay(struct fix *f)
{
	f->n = f->sum = f->bytes = 0;
	assert_int_equal(journal_replay(f->dir, f->keys, count, f, &f->err), 0);
}

static void what_was_waited_for_is_read_back(void **state)
{
	struct fix *f = *state;
	char object[5000] = "x";
	uint64_t i, ticket = 0;

	open_journal(f);
	for (i = 1; i <= 100; i++)
		ticket = append(f, i, i % 2 ? object : NULL, sizeof(object));
	assert_int_equal(journal_wait(f->j, ticket, &f->err), 0);
	replay(f);	/* as after a crash: the file is still open and longer than its frames */
	assert_int_equal(f->n, 100);
	assert_int_equal(f->sum, 5050);
	assert_int_equal(f->bytes, 50 * sizeof(object));
}

static bool is_there(struct fix *f, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	return access(path, F_OK) == 0;
}

static void a_file_that_is_dropped_is_used_again_without_its_frames(void **state)
{
	struct fix *f = *state;
	uint64_t i, old, ticket = 0;

	open_journal(f);
	for (i = 1; i <= 50; i++)
		ticket = append(f, i, NULL, 0);
	assert_int_equal(journal_wait(f->j, ticket, &f->err), 0);
	assert_int_equal(journal_rotate(f->j, &old, &f->err), 0);
	assert_int_equal(old, 1);
	replay(f);
	assert_int_equal(f->n, 50);
	journal_drop(f->j, old);
	assert_true(is_there(f, "spare"));
	replay(f);
	assert_int_equal(f->n, 0);
	/* the next file is that one: what it held must not come back, with and without frames of its own */
	assert_int_equal(journal_rotate(f->j, &old, &f->err), 0);
	assert_false(is_there(f, "spare"));
	replay(f);
	assert_int_equal(f->n, 0);
	assert_int_equal(journal_wait(f->j, append(f, 1000, NULL, 0), &f->err), 0);
	replay(f);
	assert_int_equal(f->n, 1);
	assert_int_equal(f->sum, 1000);
	/* and when it is left early, frames of its earlier life lie behind its end */
	assert_int_equal(journal_rotate(f->j, &old, &f->err), 0);
	assert_int_equal(journal_wait(f->j, append(f, 2000, NULL, 0), &f->err), 0);
	replay(f);
	assert_int_equal(f->n, 2);
	assert_int_equal(f->sum, 3000);
}

static void removing_all_leaves_nothing(void **state)
{
	struct fix *f = *state;
	uint64_t old;

	open_journal(f);
	journal_wait(f->j, append(f, 1, NULL, 0), &f->err);
	assert_int_equal(journal_rotate(f->j, &old, &f->err), 0);
	journal_drop(f->j, old);
	journal_close(&f->j);
	assert_int_equal(journal_remove_all(f->dir, &f->err), 0);
	assert_false(is_there(f, "spare"));
	replay(f);
	assert_int_equal(f->n, 0);
	open_journal(f);
	journal_wait(f->j, append(f, 7, NULL, 0), &f->err);
	replay(f);
	assert_int_equal(f->sum, 7);
}

enum { THREADS = 8, EACH = 200 };

static void *appender(void *arg)
{
	struct fix *f = arg;
	char object[3000] = "y";
	int i;

	for (i = 0; i < EACH; i++) {
		struct err err = ERR_INIT;
		struct journal_entry e = { .user = "joe", .epoch = 1, .lsn = 1, .rec = "record", .rec_len = 6, .object = { "key", object, sizeof(object) } };
		uint64_t ticket;

		if (journal_append(f->j, &e, 1, &ticket, &err) < 0 || journal_wait(f->j, ticket, &err) < 0)
			return f;
	}
	return NULL;
}

static void threads_wait_preparing_and_rotating_lose_nothing(void **state)
{
	struct fix *f = *state;
	pthread_t t[THREADS];
	uint64_t old;
	void *bad;
	int i;

	open_journal(f);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, appender, f), 0);
	for (i = 0; i < 20; i++) {
		journal_prepare(f->j);
		journal_push(f->j);
		if (i % 5 == 4)
			assert_int_equal(journal_rotate(f->j, &old, &f->err), 0);
		usleep(5000);
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	replay(f);
	assert_int_equal(f->n, THREADS * EACH);
	assert_int_equal(f->bytes, THREADS * EACH * 3000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_waited_for_is_read_back, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_is_dropped_is_used_again_without_its_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(removing_all_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(threads_wait_preparing_and_rotating_lose_nothing, setup, teardown),
	};

	return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
