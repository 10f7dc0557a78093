/* Disks that lie, fill up, refuse or vanish, and processes that are killed:
 * the bytes read are the store's, always, and nothing fails. */
#include "tests/fscache/fix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAILS = 120, FLIPS = 40 };

static size_t size_of(unsigned n)
{
	return n % 10 ? 500 + (size_t)n * 61 : 150000 + (size_t)n * 100;
}

static void make(struct fix *f)
{
	unsigned i;

	for (i = 0; i < MAILS; i++)
		mail_put(f, i % 3 ? "ann" : "bob", i, size_of(i));
}

static void read_all(struct fix *f)
{
	unsigned i;

	for (i = 0; i < MAILS; i++)
		assert_int_equal(mail_check(f->s, i % 3 ? "ann" : "bob", i, size_of(i), 0, 0), 0);
}

static uint64_t roll(uint64_t *x)
{
	*x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *x >> 20;
}

/* Calls fn for every file of the cache. */
static unsigned each_file(struct fix *f, void (*fn)(const char *path, uint64_t *x), uint64_t *x)
{
	struct dirent *e;
	char path[400];
	unsigned n = 0;
	DIR *d = opendir(f->cache);

	assert_non_null(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", f->cache, e->d_name);
		fn(path, x);
		n++;
	}
	closedir(d);
	return n;
}

static void flip(const char *path, uint64_t *x)
{
	int fd = open(path, O_RDWR), i;
	struct stat sb;
	unsigned char c;

	assert_true(fd >= 0 && fstat(fd, &sb) == 0);
	for (i = 0; i < FLIPS && sb.st_size > 0; i++) {
		off_t at = (off_t)(roll(x) % (uint64_t)sb.st_size);

		assert_int_equal(pread(fd, &c, 1, at), 1);
		c ^= (unsigned char)(1 << roll(x) % 8);
		assert_int_equal(pwrite(fd, &c, 1, at), 1);
	}
	close(fd);
}

static void cut(const char *path, uint64_t *x)
{
	struct stat sb;

	assert_int_equal(stat(path, &sb), 0);
	assert_int_equal(truncate(path, sb.st_size ? (off_t)(roll(x) % (uint64_t)sb.st_size) : 0), 0);
}

static void drop_some(const char *path, uint64_t *x)
{
	if (roll(x) % 2)
		assert_int_equal(unlink(path), 0);
}

static void fill_with_noise(const char *path, uint64_t *x)
{
	unsigned char noise[4096];
	int fd = open(path, O_WRONLY | O_TRUNC), i, k;

	for (i = 0; i < 20; i++) {
		for (k = 0; k < 4096; k++)
			noise[k] = (unsigned char)roll(x);
		assert_int_equal(write(fd, noise, sizeof(noise)), sizeof(noise));
	}
	close(fd);
}

static void damaged_while_closed(struct fix *f, void (*harm)(const char *path, uint64_t *x), unsigned seeds)
{
	uint64_t x;
	unsigned s;

	make(f);
	for (s = 0; s < seeds; s++) {
		fix_open(f, 8 * MIB);
		read_all(f);
		fscache_flush(f->s);
		fix_shut(f);
		x = s * 77 + 5;
		assert_true(each_file(f, harm, &x) >= 4);
		fix_open(f, 8 * MIB);
		read_all(f);
		fscache_flush(f->s);
		f->probe->n_get = 0;
		read_all(f);
		assert_int_equal(f->probe->n_get, 0);	/* and it works again */
		assert_in_range(dir_bytes(f->cache), 1, 8 * MIB);
		fix_shut(f);
	}
}

static void flipped_bits_are_survived(void **state)
{
	damaged_while_closed(*state, flip, 15);
}

static void cut_files_are_survived(void **state)
{
	damaged_while_closed(*state, cut, 10);
}

static void missing_files_are_survived(void **state)
{
	damaged_while_closed(*state, drop_some, 10);
}

static void noise_is_survived(void **state)
{
	damaged_while_closed(*state, fill_with_noise, 3);
}

static void flip_data(const char *path, uint64_t *x)
{
	if (strstr(path, "/data."))
		flip(path, x);
}

static void cut_data(const char *path, uint64_t *x)
{
	if (strstr(path, "/data."))
		cut(path, x);
}

static void damage_under_way_is_found_counted_and_mended(void **state)
{
	struct fix *f = *state;
	struct fscache_stats st;
	uint64_t x = 3;
	int i;

	make(f);
	fix_open(f, 8 * MIB);
	read_all(f);
	fscache_flush(f->s);
	for (i = 0; i < 5; i++) {
		each_file(f, i == 3 ? cut_data : flip_data, &x);
		f->probe->n_get = 0;
		read_all(f);
		assert_true(f->probe->n_get > 0);
		fscache_flush(f->s);
		read_all(f);		/* finds what was fetched along the last time, unseen */
		fscache_flush(f->s);
		f->probe->n_get = 0;
		read_all(f);
		assert_int_equal(f->probe->n_get, 0);
	}
	fscache_stats(f->s, &st);
	assert_true(st.corrupt > 0);
	each_file(f, flip, &x);		/* the open catalogue as well */
	read_all(f);
	fscache_flush(f->s);
	read_all(f);
}

static void a_deleted_directory_is_survived(void **state)
{
	struct fix *f = *state;

	make(f);
	fix_open(f, 8 * MIB);
	read_all(f);
	fscache_flush(f->s);
	remove_tree(f->cache);
	read_all(f);
	fscache_flush(f->s);
	read_all(f);
	fix_shut(f);
	fix_open(f, 8 * MIB);
	read_all(f);
}

/* --- system calls that fail --- */

static _Atomic int fail_at, fail_errno, calls;

static bool failing(void)
{
	int n = ++calls;

	if (!fail_at || n < fail_at)
		return false;
	errno = fail_errno;
	return true;
}

static ssize_t bad_pread(int fd, void *p, size_t n, off_t off)
{
	return failing() ? -1 : pread(fd, p, n, off);
}

static ssize_t bad_pwrite(int fd, const void *p, size_t n, off_t off)
{
	return failing() ? -1 : pwrite(fd, p, n > 3000 ? 3000 : n, off);
}

static int bad_fallocate(int fd, int mode, off_t off, off_t len)
{
	return failing() ? -1 : fallocate(fd, mode, off, len);
}

static const struct fsc_sys bad_sys = { bad_pread, bad_pwrite, bad_fallocate, &clock_system };

/* From the n-th call on everything fails, for each n that matters and each reason. */
static void a_disk_that_begins_to_fail_is_survived(void **state)
{
	struct fix *f = *state;
	static const int why[] = { ENOSPC, EIO, EROFS, EDQUOT };
	size_t k;
	int n;

	make(f);
	for (k = 0; k < MEM_COUNT(why); k++) {
		for (n = 1; n < 600; n = n * 3 / 2 + 1) {
			calls = 0;
			fail_errno = why[k];
			fail_at = n;
			fix_open_sys(f, 8 * MIB, &bad_sys);
			read_all(f);
			fscache_flush(f->s);
			read_all(f);
			fail_at = 0;
			fix_shut(f);
			remove_tree(f->cache);
		}
	}
}

static void a_disk_that_recovers_is_used_again(void **state)
{
	struct fix *f = *state;
	struct fscache_stats st;

	make(f);
	calls = 0;
	fail_at = 1;
	fail_errno = ENOSPC;
	fix_open_sys(f, 8 * MIB, &bad_sys);
	read_all(f);
	fscache_flush(f->s);
	fscache_stats(f->s, &st);
	assert_true(st.degraded);
	assert_int_equal(st.blocks, 0);
	fail_at = 0;
	sleep(2);
	read_all(f);
	fscache_flush(f->s);
	f->probe->n_get = 0;
	read_all(f);
	assert_int_equal(f->probe->n_get, 0);
	sleep(4);
	fscache_stats(f->s, &st);
	assert_false(st.degraded);
}

/* --- real disks --- */

static bool mount_small(struct fix *f, const char *options, unsigned long flags)
{
	mkdir(f->cache, 0700);
	return mount("fscache-test", f->cache, "tmpfs", flags, options) == 0;
}

static void a_full_disk_is_survived(void **state)
{
	struct fix *f = *state;
	struct fscache_stats st;
	int i;

	if (!mount_small(f, "size=3m", 0))
		skip();		/* mounting needs root */
	make(f);
	for (i = 0; i < 3; i++) {
		fix_open(f, 64 * MIB);
		read_all(f);
		fscache_flush(f->s);
		read_all(f);
		fscache_stats(f->s, &st);
		assert_true(st.degraded && st.blocks > 0);
		fix_shut(f);
	}
	assert_int_equal(umount2(f->cache, MNT_DETACH), 0);
}

static void a_disk_that_turns_read_only_is_survived(void **state)
{
	struct fix *f = *state;
	struct fscache_stats st;

	if (!mount_small(f, "size=20m", 0))
		skip();		/* mounting needs root */
	make(f);
	fix_open(f, 8 * MIB);
	read_all(f);
	fscache_flush(f->s);
	fix_shut(f);
	assert_int_equal(mount("fscache-test", f->cache, "tmpfs", MS_REMOUNT | MS_RDONLY, "size=20m"), 0);
	fix_open(f, 8 * MIB);
	read_all(f);
	fscache_flush(f->s);
	fscache_stats(f->s, &st);
	assert_true(st.degraded);
	assert_int_equal(st.blocks, 0);
	assert_int_equal(mount("fscache-test", f->cache, "tmpfs", MS_REMOUNT, "size=20m"), 0);
	sleep(3);			/* it is tried again */
	read_all(f);
	fscache_flush(f->s);
	f->probe->n_get = 0;
	read_all(f);
	assert_int_equal(f->probe->n_get, 0);
	fix_shut(f);
	assert_int_equal(umount2(f->cache, MNT_DETACH), 0);
}

static void a_file_size_limit_is_survived(void **state)
{
	struct fix *f = *state;
	struct rlimit old, small;

	make(f);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 300 * KIB;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	fix_open(f, 8 * MIB);
	read_all(f);
	fscache_flush(f->s);
	read_all(f);
	fix_shut(f);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	fix_open(f, 8 * MIB);
	read_all(f);
}

static void a_place_that_is_no_directory_is_survived(void **state)
{
	struct fix *f = *state;
	int fd = open(f->cache, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	close(fd);
	make(f);
	fix_open(f, 8 * MIB);
	read_all(f);
	fscache_flush(f->s);
	assert_int_equal(fscache_clean(f->s, &f->err), 0);
	read_all(f);
	assert_int_equal(f->probe->n_get, 2 * MAILS);
}

static void a_directory_in_use_is_left_alone_until_it_is_free(void **state)
{
	struct fix *f = *state;
	struct objstore *first;
	struct probe *p;

	make(f);
	fix_open(f, 8 * MIB);
	read_all(f);
	first = f->s;
	p = f->probe;
	fix_open(f, 8 * MIB);
	read_all(f);
	assert_int_equal(f->probe->n_get, MAILS);
	assert_int_equal(p->n_get, MAILS);
	objstore_close(&first);
	sleep(3);
	f->probe->n_get = 0;
	read_all(f);
	assert_int_equal(f->probe->n_get, 0);	/* what the first one left is used */
}

/* What was deleted while another process held the directory is not found in what that one left. */
static void a_directory_taken_over_late_brings_nothing_back(void **state)
{
	struct fix *f = *state;
	struct objstore *first;

	make(f);
	fix_open(f, 8 * MIB);
	read_all(f);
	first = f->s;
	fix_open(f, 8 * MIB);
	assert_int_equal(objstore_delete(f->s, "p/u/0ab/bob/m/00000001-00000000", &f->err), 0);
	objstore_close(&first);
	sleep(3);
	assert_int_equal(mail_check(f->s, "bob", 0, size_of(0), 0, 0), ERR_NOTFOUND);
	assert_int_equal(mail_check(f->s, "bob", 3, size_of(3), 0, 0), 0);
}

/* --- kill -9 --- */

static void child(struct fix *f, unsigned seed)
{
	uint64_t x = seed;
	unsigned n;

	fix_open(f, 8 * MIB);
	for (;;) {
		n = (unsigned)(roll(&x) % MAILS);
		mail_check(f->s, n % 3 ? "ann" : "bob", n, size_of(n), roll(&x) % size_of(n), 0);
		if (roll(&x) % 64 == 0)
			fscache_flush(f->s);
		if (roll(&x) % 300 == 0)
			fscache_forget(f->s, "p/u/0ab/bob/m/00000001-00000000");
	}
}

static void a_killed_process_leaves_nothing_wrong(void **state)
{
	struct fix *f = *state;
	struct fscache_stats st;
	uint64_t warm = 0;
	unsigned round;
	int status;
	pid_t pid;

	make(f);
	for (round = 0; round < 25; round++) {
		pid = fork();
		if (pid == 0)
			child(f, round + 1);
		usleep(20000 + round * 7919 % 60000);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		fix_open(f, 8 * MIB);
		fscache_stats(f->s, &st);
		warm += st.blocks;
		read_all(f);
		fscache_stats(f->s, &st);
		assert_int_equal(st.corrupt, 0);	/* old, perhaps, but not wrong */
		assert_in_range(dir_bytes(f->cache), 1, 8 * MIB);
		if (round % 2) {
			fix_shut(f);
		} else {		/* some find what another crash left */
			fscache_clean(f->s, NULL);
			fix_shut(f);
		}
	}
	assert_true(warm > 0);
}

/* The machine went down: a catalogue of another boot, not closed. */
static void after_a_crash_of_the_machine_everything_is_dropped(void **state)
{
	struct fix *f = *state;
	struct fscache_stats st;
	char cmd[300];
	int status;
	pid_t pid;

	make(f);
	pid = fork();
	if (pid == 0) {
		fix_open(f, 8 * MIB);
		read_all(f);
		fscache_flush(f->s);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	fix_open(f, 8 * MIB);
	fscache_stats(f->s, &st);
	assert_true(st.blocks > MAILS / 2);
	fix_shut(f);
	for (pid = 0; pid < 2; pid++) {
		struct sqlite3 *db;

		snprintf(cmd, sizeof(cmd), "%s/catalogue.db", f->cache);
		assert_int_equal(sqlite3_open(cmd, &db), 0);
		assert_int_equal(sqlite3_exec(db, pid ? "UPDATE meta SET clean = 0, boot = 'another'" : "UPDATE meta SET boot = 'another'", NULL, NULL, NULL), 0);
		sqlite3_close(db);
		fix_open(f, 8 * MIB);
		fscache_stats(f->s, &st);
		assert_int_equal(st.blocks > 0, pid == 0);
		read_all(f);
		fix_shut(f);
	}
}

static int teardown(void **state)
{
	umount2(((struct fix *)*state)->cache, MNT_DETACH);
	return fix_teardown(state);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fix_setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(flipped_bits_are_survived), T(cut_files_are_survived), T(missing_files_are_survived), T(noise_is_survived),
		T(damage_under_way_is_found_counted_and_mended), T(a_deleted_directory_is_survived), T(a_disk_that_begins_to_fail_is_survived),
		T(a_disk_that_recovers_is_used_again), T(a_full_disk_is_survived), T(a_disk_that_turns_read_only_is_survived),
		T(a_file_size_limit_is_survived), T(a_place_that_is_no_directory_is_survived), T(a_directory_in_use_is_left_alone_until_it_is_free),
		T(a_directory_taken_over_late_brings_nothing_back), T(a_killed_process_leaves_nothing_wrong), T(after_a_crash_of_the_machine_everything_is_dropped),
	};

	return cmocka_run_group_tests_name("damage", tests, NULL, NULL);
}
