/* The cache on disk by itself: its bound, who goes, and a disk that fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "metacache/metadisk.h"
#include "tests/metacache/badvfs.h"

#include <fcntl.h>
#include <ftw.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
enum { SLACK = 64 * 1024 };

static struct fix {
	char dir[64];
	unsigned char key[METADISK_KEY_BYTES];
	struct obox_cache *c;
	int64_t now_us;
	struct clock clock;
	uint64_t seed;
} F;

static int64_t fix_now(void *ctx)
{
	return F.now_us;
}

static uint64_t chance(uint64_t below)
{
	F.seed ^= F.seed << 13;
	F.seed ^= F.seed >> 7;
	F.seed ^= F.seed << 17;
	return F.seed % below;
}

static int setup(void **state)
{
	memset(&F, 0, sizeof(F));
	snprintf(F.dir, sizeof(F.dir), "%s/t_disk.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");	/* each clean stop is a sync */
	F.now_us = INT64_C(1800000000000000);
	F.clock = (struct clock){ fix_now, fix_now, NULL };
	F.seed = 0x9e3779b97f4a7c15;
	memset(F.key, 7, sizeof(F.key));
	log_set_level(LOG_ERROR + 1);
	badvfs_reset();
	return mkdtemp(F.dir) ? 0 : -1;
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static int teardown(void **state)
{
	badvfs_reset();
	metadisk_close(&F.c);
	nftw(F.dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}

static char *sub(const char *name)
{
	return mem_printf("%s/cache%s", F.dir, name);
}

static void start(uint64_t bytes)
{
	char *dir = sub("");
	struct metadisk_config cfg = { .dir = dir, .bytes = bytes, .key = F.key, .clock = &F.clock, .retry_s = 2 };
	struct err err = ERR_INIT;

	assert_int_equal(metadisk_open(&cfg, &F.c, &err), 0);
	free(dir);
}

/* Bytes that name and length give. */
static void *content(const char *user, const char *name, size_t len)
{
	unsigned char *p = mem_alloc(len + 1);
	uint64_t x = len * 31 + (unsigned char)name[0];
	size_t i;

	for (i = 0; user[i]; i++)
		x = x * 131 + (unsigned char)user[i];
	for (i = 0; name[i]; i++)
		x = x * 131 + (unsigned char)name[i];
	for (i = 0; i < len; i++) {
		x = x * 6364136223846793005 + 1442695040888963407;
		p[i] = (unsigned char)(x >> 56);
	}
	return p;
}

static void put(const char *user, const char *name, size_t len)
{
	void *p = content(user, name, len);

	F.c->ops->put(F.c, user, name, p, len);
	free(p);
}

/* Is it there?  Then with its very bytes. */
static bool has(const char *user, const char *name, size_t len)
{
	struct buf b = BUF_INIT(0);
	void *p = content(user, name, len);
	int rc = F.c->ops->get(F.c, user, name, &b);

	if (rc == 1) {
		assert_int_equal(b.len, len);
		assert_memory_equal(b.data, p, len);
	} else {
		assert_int_equal(b.len, 0);
	}
	buf_free(&b);
	free(p);
	return rc == 1;
}

static void note(const char *user, bool dirty)
{
	struct obox_cache_note n = { 3, 9, dirty };

	F.c->ops->note(F.c, user, &n);
}

static struct metadisk_stats stats(void)
{
	struct metadisk_stats st;

	metadisk_stats(F.c, &st);
	return st;
}

static void pass(int seconds)
{
	F.now_us += seconds * INT64_C(1000000);
}

static void what_was_kept_is_there_after_a_stop_and_after_a_kill(void **state)
{
	start(4 * MIB);
	put("joe", "idx/user/1.1", 3000);
	put("joe", "idx/aa/1.1", 300000);
	put("ann", "idx/user/1.1", 0);
	metadisk_close(&F.c);
	start(4 * MIB);
	assert_true(has("joe", "idx/user/1.1", 3000) && has("joe", "idx/aa/1.1", 300000) && has("ann", "idx/user/1.1", 0));
	assert_false(has("joe", "idx/user/1.2", 3000));
	put("joe", "idx/user/1.1", 4000);
	put("joe", "log/1", 70000);
	metadisk_abandon(&F.c);
	start(4 * MIB);
	assert_true(has("joe", "idx/user/1.1", 4000) && has("joe", "log/1", 70000));
	assert_int_equal(stats().bytes_used, 4000 + 300000 + 70000);
}

static bool only_log(void *ctx, const char *name)
{
	return !strncmp(name, "log/", 4);
}

static void what_is_no_longer_named_goes(void **state)
{
	char name[32];
	int i;

	start(4 * MIB);
	for (i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "%s/%d", i % 3 ? "idx" : "log", i);
		put("joe", name, 500);
		put("ann", name, 500);
	}
	F.c->ops->keep(F.c, "joe", only_log, NULL);
	assert_int_equal(stats().objects, 400);
	assert_true(has("joe", "log/0", 500) && !has("joe", "idx/1", 500) && has("ann", "idx/1", 500));
	F.c->ops->drop(F.c, "joe", "log/0");
	assert_false(has("joe", "log/0", 500));
	F.c->ops->drop(F.c, "joe", NULL);
	assert_int_equal(stats().objects, 300);
	assert_int_equal(stats().users, 1);
}

/* Whatever is put in whatever order: the files, the journal in the middle of a transaction included. */
static void the_bound_is_never_exceeded(void **state)
{
	static const uint64_t sizes[] = { 1 * MIB, 2 * MIB, 5 * MIB, 40 * MIB };
	char user[16], name[16];
	size_t k;
	int i;

	for (k = 0; k < MEM_COUNT(sizes); k++) {
		badvfs_reset();
		start(sizes[k]);
		for (i = 0; i < 2500; i++) {
			snprintf(user, sizeof(user), "u%d", (int)chance(300));
			snprintf(name, sizeof(name), "o%d", (int)chance(20));
			switch (chance(20)) {
			case 0:
				F.c->ops->drop(F.c, user, chance(3) ? name : NULL);
				break;
			case 1:
				F.c->ops->keep(F.c, user, only_log, NULL);
				break;
			case 2:
				put(user, name, (size_t)chance(sizes[k] / 3));
				break;
			default:
				put(user, name, (size_t)chance(chance(10) ? 3000 : 200000));
				break;
			}
			note(user, chance(3) == 0);
			pass(1);
			if (!chance(50))
				F.c->ops->tend(F.c);
			assert_true(badvfs_peak + SLACK <= (int64_t)sizes[k]);
		}
		assert_true(stats().evicted > 0);
		assert_true(stats().bytes_disk <= sizes[k]);
		assert_true((uint64_t)badvfs_peak > sizes[k] / 2);	/* and it is made use of */
		metadisk_close(&F.c);
		nftw(F.dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	}
}

static void fill(int n, size_t len)
{
	char user[16];
	int i;

	for (i = 0; i < n; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		put(user, "idx/user/1.1", len);
		pass(1);
	}
}

static bool user_has(int i, size_t len)
{
	char user[16];

	snprintf(user, sizeof(user), "u%d", i);
	return has(user, "idx/user/1.1", len);
}

static void the_coldest_clean_users_go_first(void **state)
{
	int i;

	start(2 * MIB);
	fill(16, 80000);
	assert_int_equal(stats().evicted, 0);
	F.c->ops->used(F.c, "u0");	/* somebody comes back */
	note("u1", true);
	pass(1);
	note("u2", false);
	metadisk_close(&F.c);	/* all of that is known after a restart */
	start(2 * MIB);
	note("u1", true);
	pass(1);
	for (i = 0; i < 5; i++) {
		char user[16];

		snprintf(user, sizeof(user), "new%d", i);
		put(user, "idx/user/1.1", 80000);
		pass(1);
	}
	assert_true(stats().evicted >= 1 && stats().evicted <= 8);
	assert_true(has("u0", "idx/user/1.1", 80000) && has("u1", "idx/user/1.1", 80000) && has("u2", "idx/user/1.1", 80000));
	assert_false(user_has(3, 80000));
	assert_true(user_has(15, 80000));
}

static void dirty_users_never_go_and_uploads_are_asked_for(void **state)
{
	char user[16];
	int i;

	start(2 * MIB);
	for (i = 0; i < 16; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		put(user, "idx/user/1.1", 80000);
		note(user, true);
		pass(1);
	}
	assert_int_equal(stats().dirty, 16);
	assert_false(F.c->ops->pressed(F.c));
	for (i = 0; i < 6; i++) {
		snprintf(user, sizeof(user), "new%d", i);
		note(user, true);
		put(user, "a", 200000);
	}
	for (i = 0; i < 20; i++) {	/* and the last gaps */
		snprintf(user, sizeof(user), "s%d", i);
		note(user, true);
		put(user, "a", 30000);
	}
	for (i = 0; i < 16; i++)
		assert_true(user_has(i, 80000));
	assert_true(stats().refused > 0);
	assert_true(F.c->ops->pressed(F.c));
	assert_false(F.c->ops->pressed(F.c));	/* told once */
	note("u3", false);
	put("new", "c", 80000);
	assert_false(user_has(3, 80000));
	assert_true(has("new", "c", 80000));
	for (i = 4; i < 16; i++)
		assert_true(user_has(i, 80000));
}

/* The catalogue of more users than there is room for is no trouble, and no reason to keep nothing. */
static void very_many_users_fit(void **state)
{
	char user[24];
	int i;

	start(1 * MIB);
	for (i = 0; i < 30000; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		note(user, i % 10 == 0);
		if (i % 100 == 0)
			put(user, "a", 1000);
		if (i % 4000 == 0) {
			pass(40);
			F.c->ops->tend(F.c);
		}
	}
	assert_false(stats().degraded);
	assert_int_equal(stats().io_errors, 0);
	assert_int_equal(stats().dirty, 3000);
	for (i = 0; i < 30000; i += 10) {
		snprintf(user, sizeof(user), "u%d", i);
		note(user, false);
	}
	put("joe", "a", 100000);
	assert_true(has("joe", "a", 100000));
	assert_true(badvfs_peak + SLACK <= (int64_t)MIB);
}

/* One with more than a quarter of the room displaces itself, nobody else. */
static void one_large_user_does_not_displace_the_others(void **state)
{
	char name[16];
	int i;

	start(5 * MIB);
	fill(100, 20000);
	for (i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "idx/%d", i);
		put("large", name, 100000);
	}
	put("large", "whole", 3 * MIB);
	assert_int_equal(stats().evicted, 0);
	for (i = 0; i < 100; i++)
		assert_true(user_has(i, 20000));
	assert_false(has("large", "idx/0", 100000));
	assert_false(has("large", "whole", 3 * MIB));
	assert_true(stats().bytes_used <= 100 * 20000 + 5 * MIB / 4);
}

/* --- disks that fail --- */

static void some_work(int rounds)
{
	char user[16], name[16];
	int i;

	for (i = 0; i < rounds; i++) {
		snprintf(user, sizeof(user), "u%d", (int)chance(8));
		snprintf(name, sizeof(name), "o%d", (int)chance(4));
		if (chance(2))
			put(user, name, (size_t)(5000 + 40000 * (name[1] - '0')));
		else
			(void)has(user, name, (size_t)(5000 + 40000 * (name[1] - '0')));
		note(user, chance(2));
		if (!chance(20))
			F.c->ops->drop(F.c, user, NULL);
		pass((int)chance(2));
		F.c->ops->tend(F.c);
	}
}

/* From the n-th call on everything fails, for each n that matters and each reason; then the disk is well again. */
static void a_disk_that_begins_to_fail_is_survived(void **state)
{
	static const int why[] = { SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_READONLY };
	size_t k;
	int n;

	for (k = 0; k < MEM_COUNT(why); k++) {
		for (n = 1; n < 3000; n = n * 3 / 2 + 1) {
			badvfs_reset();
			badvfs_fail_code = why[k];
			badvfs_fail_at = n;
			start(1 * MIB);
			some_work(80);
			badvfs_fail_at = 0;
			pass(3);
			some_work(40);
			put("well", "again", 1000);
			assert_true(has("well", "again", 1000));
			if (chance(2))
				metadisk_close(&F.c);
			else
				metadisk_abandon(&F.c);
			start(1 * MIB);
			some_work(10);
			metadisk_close(&F.c);
		}
	}
}

static void a_full_disk_keeps_what_there_is(void **state)
{
	start(8 * MIB);
	fill(20, 50000);
	badvfs_fail_code = SQLITE_FULL;
	badvfs_fail_at = 1;
	badvfs_calls = 0;
	put("more", "a", 200000);
	assert_true(stats().degraded);
	badvfs_fail_at = 0;
	assert_true(user_has(0, 50000) && user_has(19, 50000));
	assert_true(stats().evicted <= 1);
	pass(3);
	put("more", "a", 200000);
	assert_true(has("more", "a", 200000));
}

static void a_directory_that_cannot_be_used_is_tried_again(void **state)
{
	char *path = sub(""), *lock = sub("/lock");
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	close(fd);	/* a file in its place */
	start(1 * MIB);
	put("joe", "a", 100);
	assert_false(has("joe", "a", 100));
	assert_true(stats().degraded);
	unlink(path);
	put("joe", "a", 100);
	assert_false(has("joe", "a", 100));	/* not at once */
	pass(3);
	put("joe", "a", 100);
	assert_true(has("joe", "a", 100));
	assert_false(stats().degraded);
	metadisk_close(&F.c);
	fd = open(lock, O_RDWR);	/* another process */
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	start(1 * MIB);
	assert_false(has("joe", "a", 100));
	close(fd);
	pass(3);
	assert_true(has("joe", "a", 100));
	free(path);
	free(lock);
}

static void sql(const char *text)
{
	char *path = sub("/metacache.db");
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	free(path);
}

static void a_machine_that_went_down_starts_it_empty(void **state)
{
	start(1 * MIB);
	put("joe", "a", 100);
	metadisk_close(&F.c);
	sql("UPDATE meta SET boot = 'another', clean = 0");
	start(1 * MIB);
	assert_false(has("joe", "a", 100));
	put("joe", "a", 100);
	metadisk_close(&F.c);
	sql("UPDATE meta SET boot = 'another'");	/* but it had stopped before */
	start(1 * MIB);
	assert_true(has("joe", "a", 100));
}

static void other_keys_another_format_and_a_smaller_bound_start_it_empty(void **state)
{
	start(8 * MIB);
	fill(30, 100000);
	metadisk_close(&F.c);
	start(1 * MIB);
	assert_int_equal(stats().objects, 0);
	assert_true(stats().bytes_disk < MIB);
	put("joe", "a", 100);
	metadisk_close(&F.c);
	F.key[0]++;
	start(1 * MIB);
	assert_int_equal(stats().objects, 0);
	put("joe", "a", 100);
	metadisk_close(&F.c);
	sql("UPDATE meta SET version = 99");
	start(1 * MIB);
	assert_int_equal(stats().objects, 0);
}

/* Cut anywhere, bits turned anywhere: it opens, takes and gives (what it gives is for obox to check: t_disk.c). */
static void a_damaged_file_is_survived(void **state)
{
	char *path = sub("/metacache.db");
	struct buf b = BUF_INIT(0);
	char user[16];
	int round, i, fd;
	struct stat sb;

	for (round = 0; round < 160; round++) {
		if (round % 20 == 0) {
			start(1 * MIB);
			for (i = 0; i < 60; i++) {
				snprintf(user, sizeof(user), "u%d", i);
				put(user, "idx/user/1.1", (size_t)chance(6000));
				put(user, "log/1", (size_t)chance(300));
			}
			metadisk_close(&F.c);
		}
		fd = open(path, O_RDWR);
		assert_true(fd >= 0 && fstat(fd, &sb) == 0);
		if (round % 10 == 9) {
			assert_int_equal(ftruncate(fd, (off_t)chance((uint64_t)sb.st_size)), 0);
		} else {
			for (i = 0; i < 1 << round % 7; i++) {
				off_t at = (off_t)(round % 3 ? chance((uint64_t)sb.st_size) : chance(8192));
				unsigned char c = 0;

				if (pread(fd, &c, 1, at) == 1) {
					c ^= (unsigned char)(1 << chance(8));
					assert_int_equal(pwrite(fd, &c, 1, at), 1);
				}
			}
		}
		close(fd);
		start(1 * MIB);
		for (i = 0; i < 60; i++) {
			snprintf(user, sizeof(user), "u%d", i);
			buf_clear(&b);
			F.c->ops->get(F.c, user, "idx/user/1.1", &b);
			if (i % 7 == 0)
				put(user, "idx/user/1.1", 2000);
			if (i % 11 == 0)
				F.c->ops->keep(F.c, user, only_log, NULL);
			note(user, i % 2);
		}
		pass(60);
		F.c->ops->tend(F.c);
		(void)stats();
		metadisk_close(&F.c);
	}
	buf_free(&b);
	free(path);
}

static void cleaning_gives_the_space_back(void **state)
{
	struct err err = ERR_INIT;

	start(8 * MIB);
	fill(30, 100000);
	assert_true(stats().bytes_disk > 3000000);
	assert_int_equal(metadisk_clean(F.c, &err), 0);
	assert_int_equal(stats().objects, 0);
	assert_true(stats().bytes_disk < 100000);
	put("joe", "a", 100);
	assert_true(has("joe", "a", 100));
}

static void nonsense_settings_are_refused(void **state)
{
	struct metadisk_config cfg = { .dir = "", .bytes = MIB, .key = F.key };
	struct err err = ERR_INIT;

	assert_int_equal(metadisk_open(&cfg, &F.c, &err), ERR_INVALID);
	cfg.dir = F.dir;
	cfg.bytes = MIB - 1;
	assert_int_equal(metadisk_open(&cfg, &F.c, &err), ERR_INVALID);
	assert_null(F.c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_kept_is_there_after_a_stop_and_after_a_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_longer_named_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(the_bound_is_never_exceeded, setup, teardown),
		cmocka_unit_test_setup_teardown(the_coldest_clean_users_go_first, setup, teardown),
		cmocka_unit_test_setup_teardown(dirty_users_never_go_and_uploads_are_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(very_many_users_fit, setup, teardown),
		cmocka_unit_test_setup_teardown(one_large_user_does_not_displace_the_others, setup, teardown),
		cmocka_unit_test_setup_teardown(a_disk_that_begins_to_fail_is_survived, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_keeps_what_there_is, setup, teardown),
		cmocka_unit_test_setup_teardown(a_directory_that_cannot_be_used_is_tried_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_machine_that_went_down_starts_it_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(other_keys_another_format_and_a_smaller_bound_start_it_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_file_is_survived, setup, teardown),
		cmocka_unit_test_setup_teardown(cleaning_gives_the_space_back, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense_settings_are_refused, setup, teardown),
	};

	badvfs_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
