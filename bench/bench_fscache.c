/* bench_fscache - what the cache costs: hits, misses, saves, restarts.
 *
 *   bench_fscache [DIRECTORY]     (default: a new one in /var/tmp; removed at the end)
 *
 * The store below is in memory, so a miss shows the cache's own work.  Prints
 * one line per measurement. */
#include "base/mem.h"
#include "fscache/fscache-private.h"
#include "fscache/fscache.h"

#include <ftw.h>
#include <unistd.h>

enum { MAILS = 2000 };
static _Atomic unsigned long calls;

static ssize_t counted_pread(int fd, void *p, size_t n, off_t off)
{
	calls++;
	return pread(fd, p, n, off);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const struct err *err)
{
	fprintf(stderr, "bench_fscache: %s\n", err->msg);
	exit(1);
}

static void key_of(char key[OBJ_KEY_MAX], const char *owner, unsigned n)
{
	snprintf(key, OBJ_KEY_MAX, "mail/u/0ab/%s%%40example.org/m/%08x-%08x", owner, 1u, n);
}

static struct objstore *cache(struct objstore *below, const char *dir, uint64_t bytes, const struct fsc_sys *sys)
{
	struct fscache_config cfg = { .dir = dir, .bytes = bytes, .cacheable = fscache_keys_mail };
	struct err err = ERR_INIT;
	struct objstore *s;

	if (fsc_open_with(below, &cfg, sys, &s, &err) < 0)
		die(&err);
	return s;
}

struct job {
	struct objstore *s;
	const char *owner;
	uint64_t off, len;
	unsigned from, n, rounds;
};

static void *reader(void *arg)
{
	const struct job *j = arg;
	struct buf b = BUF_INIT(0);
	struct err err = ERR_INIT;
	char key[OBJ_KEY_MAX];
	unsigned i, r;

	for (r = 0; r < j->rounds; r++) {
		for (i = 0; i < j->n; i++) {
			key_of(key, j->owner, j->from + i);
			buf_clear(&b);
			if (objstore_get_range(j->s, key, j->off, j->len, &b, NULL, &err) < 0)
				die(&err);
		}
	}
	buf_free(&b);
	return NULL;
}

static void measure(const char *what, struct job j, unsigned threads)
{
	pthread_t t[16];
	unsigned long before = calls;
	double start = now(), used = cpu(), took;
	double ops = (double)j.n * j.rounds * threads;
	unsigned i;

	for (i = 0; i < threads; i++)
		pthread_create(&t[i], NULL, reader, &j);
	for (i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	took = now() - start;
	used = cpu() - used;
	printf("%-36s %2u thread%s %8.0f ns/op %8.0f ns CPU/op %9.0f op/s  %.2f preads/op\n", what, threads, threads > 1 ? "s" : " ",
	       took / (j.n * (double)j.rounds) * 1e9, used / ops * 1e9, ops / took, (double)(calls - before) / ops);
}

static void fill(struct objstore *s, const char *owner, unsigned n, size_t size)
{
	unsigned char *data = mem_alloc(size);
	struct err err = ERR_INIT;
	char key[OBJ_KEY_MAX];
	unsigned i;

	for (i = 0; i < n; i++) {
		key_of(key, owner, i);
		if (objstore_put(s, key, data, size, OBJ_CREATE, NULL, &err) < 0)
			die(&err);
	}
	free(data);
}

static void timed_fill(const char *what, struct objstore *s, const char *owner, unsigned n, size_t size)
{
	double start = now(), used = cpu();

	fill(s, owner, n, size);
	printf("%-36s            %8.0f ns/op %8.0f ns CPU/op\n", what, (now() - start) / n * 1e9, (cpu() - used) / n * 1e9);
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

int main(int argc, char **argv)
{
	struct fsc_sys sys = fsc_sys_default;
	struct objstore *mem = objstore_mem_new(), *s;
	char dir[] = "/var/tmp/bench_fscache.XXXXXX";
	const char *at = argc > 1 ? argv[1] : mkdtemp(dir);
	struct fscache_stats st;
	double start;

	sys.pread = counted_pread;
	if (!at)
		return 1;
	fill(mem, "small", MAILS, 5000);
	fill(mem, "large", 100, 1 << 20);
	measure("store in memory: 5 KB", (struct job){ mem, "small", 0, 65536, 0, MAILS, 50 }, 1);
	measure("store in memory: 128 KiB", (struct job){ mem, "large", 70003, 131088, 0, 100, 100 }, 1);
	s = cache(mem, at, UINT64_C(512) << 20, &sys);
	measure("miss: 5 KB", (struct job){ s, "small", 0, 65536, 0, MAILS, 1 }, 1);
	measure("miss: 128 KiB", (struct job){ s, "large", 70003, 131088, 0, 100, 1 }, 1);
	fscache_flush(s);
	measure("hit: 5 KB", (struct job){ s, "small", 0, 65536, 0, MAILS, 50 }, 1);
	measure("hit: 5 KB", (struct job){ s, "small", 0, 65536, 0, MAILS, 50 }, 2);
	measure("hit: 64 KiB in two blocks", (struct job){ s, "large", 65536 * 2, 65536, 0, 100, 200 }, 1);
	measure("hit: 128 KiB somewhere", (struct job){ s, "large", 70003, 131088, 0, 100, 200 }, 1);
	measure("hit: 128 KiB somewhere", (struct job){ s, "large", 70003, 131088, 0, 100, 200 }, 2);
	timed_fill("save into the store alone: 5 KB", mem, "alone", 20000, 5000);
	timed_fill("save through the cache: 5 KB", s, "saved", 20000, 5000);
	start = now();
	fscache_flush(s);
	fscache_stats(s, &st);
	printf("%-36s            %8.0f ns/block (%.0f bytes of disk for %.0f used)\n", "catalogue: writing", (now() - start) / 20000 * 1e9, (double)st.bytes_disk,
	       (double)st.bytes_used);
	objstore_close(&s);
	mem = objstore_mem_new();
	start = now();
	s = cache(mem, at, UINT64_C(512) << 20, &sys);
	fscache_stats(s, &st);
	printf("%-36s            %8.0f ns/block (%.0f blocks)\n", "restart: reading the catalogue", (now() - start) / (double)st.blocks * 1e9, (double)st.blocks);
	objstore_close(&s);
	nftw(at, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
