/* What the cache promises when all goes well: bytes, requests, bounds, fairness, restarts. */
#include "tests/fscache/fix.h"

#include <sys/stat.h>
#include <unistd.h>

static void mail_keys_name_their_owner(void **state)
{
	static const struct { const char *key, *owner; } t[] = {
		{ "p/u/0ab/joe/m/1-2", "joe" },	 { "joe/m/1", "joe" },	 { "p/u/0ab/a%40b.c/m/00000001-00000002", "a%40b.c" },
		{ "p/u/0ab/joe/root", NULL },	 { "p/u/0ab/joe/log/1", NULL },	 { "m/1", NULL },	{ "p/u/0ab/joe/mm/1", NULL },
		{ "x", NULL },			 { "p/u/0ab/joe/m/1/2", NULL },
	};
	const char *owner;
	size_t i, len;

	for (i = 0; i < MEM_COUNT(t); i++) {
		bool is = fscache_keys_mail(t[i].key, &owner, &len);

		assert_int_equal(is, t[i].owner != NULL);
		if (is) {
			assert_int_equal(len, strlen(t[i].owner));
			assert_memory_equal(owner, t[i].owner, len);
		}
	}
}

static const size_t sizes[] = { 1, 100, 511, 512, 513, 5000, 32767, 32768, 32769, 65536, 100000, 300000 };

static void what_was_read_once_needs_no_request(void **state)
{
	struct fix *f = *state;
	uint64_t before;
	size_t i;

	fix_open(f, 64 * MIB);
	for (i = 0; i < MEM_COUNT(sizes); i++) {
		mail_put(f, "joe", (unsigned)i, sizes[i]);
		assert_int_equal(mail_check(f->s, "joe", (unsigned)i, sizes[i], 0, 0), 0);
	}
	assert_int_equal(f->probe->n_get, MEM_COUNT(sizes));
	before = f->probe->n_get;
	for (i = 0; i < MEM_COUNT(sizes); i++) {
		size_t n = sizes[i], k;
		const struct { uint64_t off, len; } r[] = { { 0, 0 }, { 0, 65536 }, { 0, 1 }, { n / 2, 0 }, { n / 3, n / 3 }, { n - 1, 1 }, { n - 1, 500000 },
							     { 0, n }, { 32768, 1 }, { 32767, 2 }, { 40000, 131088 } };

		for (k = 0; k < MEM_COUNT(r); k++)
			if (r[k].off < n)
				assert_int_equal(mail_check(f->s, "joe", (unsigned)i, n, r[k].off, r[k].len), 0);
	}
	assert_int_equal(f->probe->n_get, before);
}

static void a_save_is_kept_and_a_refused_one_is_not(void **state)
{
	struct fix *f = *state;
	unsigned char data[100000];
	struct iovec iov[4] = { { data, 10 }, { data + 10, 0 }, { data + 10, 50000 }, { data + 50010, 49990 } };
	char key[OBJ_KEY_MAX];

	fix_open(f, 64 * MIB);
	mail_key(key, "joe", 1);
	mail_fill(key, 0, data, sizeof(data));
	assert_int_equal(objstore_put_lazy(f->s, key, iov, 4, &f->err), 0);
	assert_int_equal(mail_check(f->s, "joe", 1, sizeof(data), 0, 0), 0);
	assert_int_equal(f->probe->n_get, 0);
	memset(data, 'x', sizeof(data));
	assert_int_equal(objstore_put(f->s, key, data, sizeof(data), OBJ_CREATE, NULL, NULL), ERR_EXISTS);
	assert_int_equal(mail_check(f->s, "joe", 1, sizeof(data), 0, 0), 0);
	mail_key(key, "joe", 2);
	f->probe->fail = ERR_UNAVAILABLE;
	assert_int_equal(objstore_put(f->s, key, data, sizeof(data), OBJ_CREATE, NULL, NULL), ERR_UNAVAILABLE);
	f->probe->fail = 0;
	assert_int_equal(mail_check(f->s, "joe", 2, sizeof(data), 0, 0), ERR_NOTFOUND);
}

static void other_objects_pass_as_they_are(void **state)
{
	struct fix *f = *state;
	char etag[OBJ_ETAG_MAX] = "", now[OBJ_ETAG_MAX];
	struct buf b = BUF_INIT(0);
	int i;

	fix_open(f, 8 * MIB);
	assert_int_equal(objstore_put(f->s, "p/u/0ab/joe/root", "one", 3, OBJ_CREATE, etag, &f->err), 0);
	for (i = 0; i < 3; i++) {
		buf_clear(&b);
		assert_int_equal(objstore_get(f->s, "p/u/0ab/joe/root", &b, now, &f->err), 0);
		assert_string_equal(now, etag);
	}
	buf_free(&b);
	assert_int_equal(f->probe->n_get, 3);
	assert_int_equal(objstore_put(f->s, "p/u/0ab/joe/root", "two", 3, OBJ_MATCH, etag, &f->err), 0);
}

static void copied(struct objstore_op *op)
{
	*(_Atomic bool *)op->ctx = true;
}

static void copy(struct objstore *s, const char *from, const char *to)
{
	_Atomic bool over = false;
	struct objstore_op op = { .verb = OBJ_COPY, .key = from, .key_to = to, .done = copied, .ctx = (void *)&over };

	objstore_submit(s, &op);
	while (!over)
		usleep(100);
	assert_int_equal(op.rc, 0);
}

static void what_changes_is_dropped(void **state)
{
	struct fix *f = *state;
	char key[OBJ_KEY_MAX], key2[OBJ_KEY_MAX];
	struct buf b = BUF_INIT(0);
	struct fscache_stats st;

	fix_open(f, 64 * MIB);
	mail_put(f, "joe", 1, 200000);
	mail_key(key, "joe", 1);
	mail_key(key2, "joe", 2);
	assert_int_equal(mail_check(f->s, "joe", 1, 200000, 0, 0), 0);
	assert_int_equal(objstore_put(f->s, key, "new", 3, OBJ_ANY, NULL, &f->err), 0);
	assert_int_equal(objstore_get(f->s, key, &b, NULL, &f->err), 0);
	assert_string_equal(buf_str(&b), "new");
	mail_put(f, "joe", 2, 70000);
	assert_int_equal(mail_check(f->s, "joe", 2, 70000, 0, 0), 0);
	copy(f->s, key, key2);
	buf_clear(&b);
	assert_int_equal(objstore_get(f->s, key2, &b, NULL, &f->err), 0);
	assert_string_equal(buf_str(&b), "new");
	assert_int_equal(objstore_delete(f->s, key2, &f->err), 0);
	assert_int_equal(mail_check(f->s, "joe", 2, 70000, 0, 0), ERR_NOTFOUND);
	assert_int_equal(mail_check(f->s, "joe", 2, 70000, 40000, 10), ERR_NOTFOUND);
	buf_free(&b);
	fscache_flush(f->s);
	fscache_stats(f->s, &st);
	assert_int_equal(st.blocks, 1);
}

/* The way to get rid of bytes that were already wrong when they came. */
static void a_get_with_etag_asks_the_store_again(void **state)
{
	struct fix *f = *state;
	struct objstore_faults torn = { .torn = 1000, .fail_after = -1 }, none = { .fail_after = -1 };
	struct fscache_config cfg = { .dir = f->cache, .bytes = 8 * MIB, .cacheable = fscache_keys_mail };
	struct objstore *fault = objstore_fault_new(objstore_mem_new(), &torn);
	char key[OBJ_KEY_MAX], etag[OBJ_ETAG_MAX];
	struct buf b = BUF_INIT(0);

	assert_int_equal(fscache_open(fault, &cfg, &f->s, &f->err), 0);
	mail_key(key, "joe", 1);
	assert_int_equal(objstore_put(fault, key, "right", 5, OBJ_ANY, NULL, &f->err), 0);
	assert_int_equal(objstore_get(f->s, key, &b, NULL, &f->err), 0);
	assert_string_not_equal(buf_str(&b), "right");
	objstore_fault_set(fault, &none);
	buf_clear(&b);
	assert_int_equal(objstore_get(f->s, key, &b, etag, &f->err), 0);
	assert_string_equal(buf_str(&b), "right");
	buf_clear(&b);
	assert_int_equal(objstore_get(f->s, key, &b, NULL, &f->err), 0);
	assert_string_equal(buf_str(&b), "right");
	buf_free(&b);
}

static void a_look_at_the_store_changes_nothing(void **state)
{
	struct fix *f = *state;
	struct fscache_config cfg = { .dir = f->cache, .bytes = 8 * MIB, .cacheable = fscache_keys_mail };
	struct objstore *below = objstore_mem_new();
	char key[OBJ_KEY_MAX];
	struct buf b = BUF_INIT(0);

	assert_int_equal(fscache_open(below, &cfg, &f->s, &f->err), 0);
	mail_key(key, "joe", 1);
	assert_int_equal(objstore_put(f->s, key, "right", 5, OBJ_CREATE, NULL, &f->err), 0);
	assert_int_equal(objstore_put(below, key, "wrong", 5, OBJ_ANY, NULL, &f->err), 0);
	assert_int_equal(objstore_get_uncached(f->s, key, 1, 0, &b, &f->err), 0);
	assert_string_equal(buf_str(&b), "rong");
	buf_clear(&b);
	assert_int_equal(objstore_get(f->s, key, &b, NULL, &f->err), 0);
	assert_string_equal(buf_str(&b), "right");
	assert_int_equal(objstore_delete(below, key, &f->err), 0);
	assert_int_equal(objstore_get_uncached(f->s, key, 0, 0, &b, NULL), ERR_NOTFOUND);
	buf_free(&b);
}

static void a_part_of_a_large_message_costs_two_requests(void **state)
{
	struct fix *f = *state;
	const size_t size = 50 << 20;
	const uint64_t chunk = 131072 + 16;
	unsigned i;

	fix_open(f, 100 * MIB);
	mail_put(f, "joe", 1, size);
	for (i = 0; i < 40; i++) {	/* 64 KiB of plain text that lie in two chunks, wherever these begin */
		uint64_t at = 5003 + (20 + 7 * i) * chunk + i;

		fscache_forget(f->s, "p/u/0ab/joe/m/00000001-00000001");
		f->probe->n_get = f->probe->bytes = 0;
		assert_int_equal(mail_check(f->s, "joe", 1, size, 0, 65536), 0);
		assert_int_equal(mail_check(f->s, "joe", 1, size, at, 2 * chunk), 0);
		assert_in_range(f->probe->n_get, 1, 2);
		assert_in_range(f->probe->bytes, 1, 399999);
		assert_int_equal(mail_check(f->s, "joe", 1, size, at, chunk), 0);
		assert_int_equal(mail_check(f->s, "joe", 1, size, at + chunk, chunk), 0);
		assert_in_range(f->probe->n_get, 1, 2);
	}
}

static void a_hole_is_fetched_and_the_rest_is_not(void **state)
{
	struct fix *f = *state;

	fix_open(f, 64 * MIB);
	mail_put(f, "joe", 1, 2000000);
	assert_int_equal(mail_check(f->s, "joe", 1, 2000000, 0, 20 * 32768), 0);
	assert_int_equal(mail_check(f->s, "joe", 1, 2000000, 40 * 32768, 5 * 32768), 0);
	f->probe->n_get = f->probe->bytes = 0;
	assert_int_equal(mail_check(f->s, "joe", 1, 2000000, 0, 45 * 32768), 0);
	assert_int_equal(f->probe->n_get, 1);
	assert_int_equal(f->probe->bytes, 20 * 32768);
	fscache_flush(f->s);
	assert_int_equal(mail_check(f->s, "joe", 1, 2000000, 46 * 32768, 32768), 0);
	fscache_flush(f->s);
	f->probe->n_get = f->probe->bytes = 0;
	assert_int_equal(mail_check(f->s, "joe", 1, 2000000, 44 * 32768, 6 * 32768), 0);	/* 45 missing, 46 here, 47..49 missing */
	assert_int_equal(f->probe->n_get, 1);
}

static void the_readers_ceiling_holds(void **state)
{
	struct fix *f = *state;
	struct buf small = BUF_INIT(1000);
	char key[OBJ_KEY_MAX];
	int i;

	fix_open(f, 64 * MIB);
	mail_put(f, "joe", 1, 100000);
	mail_key(key, "joe", 1);
	for (i = 0; i < 2; i++) {	/* from the store, then from the cache */
		buf_clear(&small);
		assert_int_equal(objstore_get(f->s, key, &small, NULL, NULL), ERR_LIMIT);
		assert_int_equal(mail_check(f->s, "joe", 1, 100000, 0, 0), 0);
	}
	buf_free(&small);
}

static void failures_are_told_and_not_kept(void **state)
{
	struct fix *f = *state;

	fix_open(f, 64 * MIB);
	assert_int_equal(mail_check(f->s, "joe", 1, 5000, 0, 0), ERR_NOTFOUND);
	mail_put(f, "joe", 1, 5000);
	f->probe->fail = ERR_BUSY;
	assert_int_equal(mail_check(f->s, "joe", 1, 5000, 0, 0), ERR_BUSY);
	f->probe->fail = 0;
	assert_int_equal(mail_check(f->s, "joe", 1, 5000, 0, 0), 0);
}

/* --- one owner's download and the others --- */

struct watcher {
	pthread_t thread;
	const char *dir;
	uint64_t bound, most;
	_Atomic bool stop;
};

static void *watch(void *arg)
{
	struct watcher *w = arg;

	while (!w->stop) {
		uint64_t n = dir_bytes(w->dir);

		if (n > w->most)
			w->most = n;
		usleep(500);
	}
	return NULL;
}

static void watch_start(struct watcher *w, const char *dir, uint64_t bound)
{
	*w = (struct watcher){ .dir = dir, .bound = bound };
	assert_int_equal(pthread_create(&w->thread, NULL, watch, w), 0);
}

static void watch_end(struct watcher *w)
{
	w->stop = true;
	pthread_join(w->thread, NULL);
	assert_in_range(w->most, 1, w->bound);
}

/* owner's mail n = from.. of sizes around `size`, `times` times each in a row. */
static void read_mail(struct fix *f, const char *owner, unsigned from, unsigned n, size_t size, unsigned times)
{
	unsigned i, k;

	for (i = from; i < from + n; i++)
		for (k = 0; k < times; k++)
			assert_int_equal(mail_check(f->s, owner, i, size + i * 7 % 1000, 0, 0), 0);
}

static void make_mail(struct fix *f, const char *owner, unsigned from, unsigned n, size_t size)
{
	unsigned i;

	for (i = from; i < from + n; i++)
		mail_put(f, owner, i, size + i * 7 % 1000);
}

static void lose_mail(struct fix *f, const char *owner, unsigned from, unsigned n)
{
	char key[OBJ_KEY_MAX];
	unsigned i;

	for (i = from; i < from + n; i++) {
		mail_key(key, owner, i);
		assert_int_equal(objstore_delete(f->mem, key, &f->err), 0);
	}
}

/* bob reads batches of 10 MB, every mail `times` times. */
static void scan_spares_the_others(struct fix *f, uint64_t mib, unsigned batches, unsigned times)
{
	struct watcher w;
	unsigned i;

	fix_open(f, mib * MIB);
	watch_start(&w, f->cache, mib * MIB);
	make_mail(f, "ann", 0, 1000, 4000);	/* 4 MB hot: read twice */
	read_mail(f, "ann", 0, 1000, 4000, 2);
	make_mail(f, "eve", 0, 20, 60000);	/* and a few delivered and read once */
	read_mail(f, "eve", 0, 20, 60000, 1);
	for (i = 0; i < batches; i++) {
		make_mail(f, "bob", i * 100, 100, 100000);
		read_mail(f, "bob", i * 100, 100, 100000, times);
		lose_mail(f, "bob", i * 100, 100);
	}
	fscache_flush(f->s);
	f->probe->n_get = 0;
	read_mail(f, "ann", 0, 1000, 4000, 1);
	read_mail(f, "eve", 0, 20, 60000, 1);
	assert_int_equal(f->probe->n_get, 0);
	watch_end(&w);
}

static void a_download_evicts_nobody_elses_mail(void **state)
{
	scan_spares_the_others(*state, 32, 40, 1);
}

static void nor_does_one_that_reads_everything_twice(void **state)
{
	scan_spares_the_others(*state, 32, 40, 2);
}

/* A sanitizer takes its time: a fifth of it there. */
#if defined(__SANITIZE_ADDRESS__)
#define SCALE 5
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SCALE 5
#endif
#endif
#ifndef SCALE
#define SCALE 1
#endif

static void nor_do_two_gigabytes(void **state)
{
	scan_spares_the_others(*state, 100 / SCALE, 205 / SCALE, 1);
}

static void hot_mail_of_the_one_who_downloads_stays_too(void **state)
{
	struct fix *f = *state;

	fix_open(f, 32 * MIB);
	make_mail(f, "bob", 0, 100, 60000);
	read_mail(f, "bob", 0, 100, 60000, 3);
	make_mail(f, "bob", 1000, 1000, 100000);
	read_mail(f, "bob", 1000, 1000, 100000, 1);
	fscache_flush(f->s);
	f->probe->n_get = 0;
	read_mail(f, "bob", 0, 100, 60000, 1);
	assert_in_range(f->probe->n_get, 0, 2);
}

static void the_bound_holds_for_tiny_mail(void **state)
{
	struct fix *f = *state;
	struct watcher w;
	struct fscache_stats st;
	unsigned i;

	fix_open(f, 4 * MIB);
	watch_start(&w, f->cache, 4 * MIB);
	for (i = 0; i < 20; i++) {
		make_mail(f, "joe", i * 500, 500, 600);
		read_mail(f, "joe", i * 500, 500, 600, 1);
		fscache_flush(f->s);
	}
	for (i = 0; i < 10; i++) {
		make_mail(f, "kim", i * 20, 20, 150000);
		read_mail(f, "kim", i * 20, 20, 150000, 1);
		fscache_flush(f->s);
	}
	fscache_stats(f->s, &st);
	assert_true(st.evicted > 0 && st.bytes_disk <= st.bytes_max);
	fix_shut(f);
	watch_end(&w);
	fix_open(f, 4 * MIB);
	assert_in_range(dir_bytes(f->cache), 1, 4 * MIB);
}

static void a_huge_message_gets_its_part_and_no_more(void **state)
{
	struct fix *f = *state;
	struct fscache_stats st;
	struct watcher w;

	fix_open(f, 16 * MIB);
	watch_start(&w, f->cache, 16 * MIB);
	mail_put(f, "joe", 1, 60 << 20);
	assert_int_equal(mail_check(f->s, "joe", 1, 60 << 20, 0, 0), 0);
	fscache_flush(f->s);
	fscache_stats(f->s, &st);
	assert_in_range(st.bytes_used, 1, 4 * MIB);
	watch_end(&w);
}

static void who_left_makes_room(void **state)
{
	struct fix *f = *state;
	struct fscache_config cfg = { .dir = f->cache, .bytes = 4 * MIB, .cacheable = fscache_keys_mail, .idle_s = 1 };
	struct fscache_stats st;

	assert_int_equal(fscache_open(probe_new(f->mem, &f->probe), &cfg, &f->s, &f->err), 0);
	make_mail(f, "ann", 0, 200, 4000);
	read_mail(f, "ann", 0, 200, 4000, 3);
	sleep(3);
	make_mail(f, "bob", 0, 400, 60000);
	read_mail(f, "bob", 0, 400, 60000, 1);
	fscache_flush(f->s);
	fscache_stats(f->s, &st);
	assert_int_equal(st.owners, 1);
}

/* --- restarts --- */

static void a_restart_is_warm(void **state)
{
	struct fix *f = *state;
	struct fscache_stats st, was;

	fix_open(f, 32 * MIB);
	make_mail(f, "ann", 0, 300, 5000);
	make_mail(f, "bob", 0, 20, 300000);
	read_mail(f, "ann", 0, 300, 5000, 2);
	read_mail(f, "bob", 0, 20, 300000, 1);
	fscache_flush(f->s);
	fscache_stats(f->s, &was);
	fix_shut(f);
	fix_open(f, 32 * MIB);
	fscache_stats(f->s, &st);
	assert_int_equal(st.blocks, was.blocks);
	assert_int_equal(st.bytes_used, was.bytes_used);
	read_mail(f, "ann", 0, 300, 5000, 1);
	read_mail(f, "bob", 0, 20, 300000, 1);
	assert_int_equal(f->probe->n_get, 0);
}

static void a_smaller_setting_is_kept_to_at_once(void **state)
{
	struct fix *f = *state;
	static const uint64_t mib[] = { 60, 30, 18, 17, 4, 40 };
	size_t i;

	for (i = 0; i < MEM_COUNT(mib); i++) {
		fix_open(f, mib[i] * MIB);
		assert_in_range(dir_bytes(f->cache), 1, mib[i] * MIB);
		make_mail(f, "bob", 0, 400, 100000);
		read_mail(f, "bob", 0, 400, 100000, 1);
		fscache_flush(f->s);
		assert_in_range(dir_bytes(f->cache), 1, mib[i] * MIB);
		fix_shut(f);
	}
}

static void what_was_deleted_before_a_restart_stays_so(void **state)
{
	struct fix *f = *state;
	char key[OBJ_KEY_MAX];

	fix_open(f, 8 * MIB);
	make_mail(f, "ann", 0, 10, 5000);
	read_mail(f, "ann", 0, 10, 5000, 1);
	fscache_flush(f->s);
	mail_key(key, "ann", 3);
	assert_int_equal(objstore_delete(f->s, key, &f->err), 0);
	fix_shut(f);
	fix_open(f, 8 * MIB);
	assert_int_equal(mail_check(f->s, "ann", 3, 5021, 0, 0), ERR_NOTFOUND);
	assert_int_equal(mail_check(f->s, "ann", 4, 5028, 0, 0), 0);
	assert_int_equal(f->probe->n_get, 1);
}

static void cleaning_gives_the_space_back(void **state)
{
	struct fix *f = *state;
	struct fscache_stats st;

	fix_open(f, 32 * MIB);
	make_mail(f, "bob", 0, 100, 100000);
	read_mail(f, "bob", 0, 100, 100000, 1);
	fscache_flush(f->s);
	assert_true(dir_bytes(f->cache) > 9 * MIB);
	assert_int_equal(fscache_clean(f->s, &f->err), 0);
	assert_in_range(dir_bytes(f->cache), 0, 200 * KIB);
	fscache_stats(f->s, &st);
	assert_int_equal(st.blocks, 0);
	assert_int_equal(st.bytes_used, 0);
	read_mail(f, "bob", 0, 100, 100000, 1);
	fscache_flush(f->s);
	f->probe->n_get = 0;
	read_mail(f, "bob", 0, 100, 100000, 1);
	assert_int_equal(f->probe->n_get, 0);
}

static void directories_of_workers_that_are_no_more_go(void **state)
{
	struct fix *f = *state;
	struct fscache_config cfg = { .bytes = 4 * MIB, .cacheable = fscache_keys_mail };
	struct objstore *s[4];
	char dir[128];
	struct stat sb;
	int i;

	for (i = 0; i < 4; i++) {
		snprintf(dir, sizeof(dir), "%s/%d", f->cache, i);
		cfg.dir = dir;
		assert_int_equal(fscache_open(probe_new(f->mem, &f->probe), &cfg, &s[i], &f->err), 0);
	}
	f->probe = NULL;
	for (i = 0; i < 3; i++)
		objstore_close(&s[i]);
	assert_int_equal(fscache_trim(f->cache, 1, &f->err), 0);
	for (i = 0; i < 4; i++) {
		snprintf(dir, sizeof(dir), "%s/%d", f->cache, i);
		assert_int_equal(stat(dir, &sb) == 0, i == 0 || i == 3);	/* 3 is in use */
	}
	objstore_close(&s[3]);
	assert_int_equal(fscache_trim(f->dir, 0, &f->err), 0);
	assert_int_equal(stat(f->cache, &sb), 0);	/* not a number */
}

static void impossible_settings_are_refused(void **state)
{
	struct fix *f = *state;
	struct fscache_config cfg = { .dir = f->cache, .bytes = 4 * MIB - 1, .cacheable = fscache_keys_mail };
	struct objstore *s;

	assert_int_equal(fscache_open(f->mem, &cfg, &s, &f->err), ERR_INVALID);
	assert_null(s);
	cfg.bytes = 4 * MIB;
	cfg.cacheable = NULL;
	assert_int_equal(fscache_open(f->mem, &cfg, &s, &f->err), ERR_INVALID);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fix_setup, fix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(mail_keys_name_their_owner), T(what_was_read_once_needs_no_request), T(a_save_is_kept_and_a_refused_one_is_not),
		T(other_objects_pass_as_they_are), T(what_changes_is_dropped), T(a_get_with_etag_asks_the_store_again), T(a_look_at_the_store_changes_nothing),
		T(a_part_of_a_large_message_costs_two_requests), T(a_hole_is_fetched_and_the_rest_is_not), T(the_readers_ceiling_holds),
		T(failures_are_told_and_not_kept), T(a_download_evicts_nobody_elses_mail), T(nor_does_one_that_reads_everything_twice), T(nor_do_two_gigabytes),
		T(hot_mail_of_the_one_who_downloads_stays_too), T(the_bound_holds_for_tiny_mail), T(a_huge_message_gets_its_part_and_no_more),
		T(who_left_makes_room), T(a_restart_is_warm), T(a_smaller_setting_is_kept_to_at_once), T(what_was_deleted_before_a_restart_stays_so),
		T(cleaning_gives_the_space_back), T(directories_of_workers_that_are_no_more_go), T(impossible_settings_are_refused),
	};

	return cmocka_run_group_tests_name("fscache", tests, NULL, NULL);
}
