/* culverctl store bench: what the store does at a given size and concurrency. */
#include "ctl/store.h"

#include "base/b64.h"
#include "base/clock.h"
#include "base/mem.h"

#include <inttypes.h>
#include <pthread.h>
#include <sodium.h>

enum { COUNT = 1000, CONCURRENCY_MAX = 1000, DELETE_AT_ONCE = 1000 };

struct bench {
	struct objstore *s;
	char id[17];
	size_t size;
	unsigned char *body;
	uint64_t count;
	/* under lock: operations are started from the completions of earlier ones */
	pthread_mutex_t lock;
	pthread_cond_t done;
	uint64_t next, ended, failed;
	uint32_t *us;			/* of each operation */
	struct err err;			/* the first */
	enum objstore_verb verb;
};

struct lane {
	struct bench *b;
	struct objstore_op op;
	struct iovec iov;
	struct buf out;
	char key[96];
	int64_t began;
};

static void key_of(const struct bench *b, uint64_t n, char out[96])
{
	snprintf(out, 96, "culver-bench/%s/%08" PRIu64, b->id, n);
}

static bool take(struct bench *b, uint64_t *n_r)
{
	bool some;

	pthread_mutex_lock(&b->lock);
	some = b->next < b->count;
	*n_r = b->next;
	b->next += some;
	pthread_mutex_unlock(&b->lock);
	return some;
}

static void lane_go(struct lane *l, uint64_t n);

static void lane_done(struct objstore_op *op)
{
	struct lane *l = op->ctx;
	struct bench *b = l->b;
	bool wrong = op->rc == 0 && op->verb == OBJ_GET && (l->out.len != b->size || memcmp(l->out.data, b->body, b->size) != 0), more;
	uint64_t n;

	more = take(b, &n);
	pthread_mutex_lock(&b->lock);
	b->us[b->ended++] = (uint32_t)(clock_mono_us(&clock_system) - l->began);
	if (op->rc < 0 || wrong) {
		b->failed++;
		err_set(&b->err, wrong ? ERR_CORRUPT : op->rc, "%s", wrong ? "the store gives other bytes than it got" : op->err.msg);
	}
	if (b->ended == b->count)
		pthread_cond_signal(&b->done);
	pthread_mutex_unlock(&b->lock);
	if (more)	/* otherwise l and b may be gone */
		lane_go(l, n);
}

static void lane_go(struct lane *l, uint64_t n)
{
	struct bench *b = l->b;

	key_of(b, b->verb == OBJ_GET ? n * 7919 % b->count : n, l->key);
	buf_clear(&l->out);
	l->iov = (struct iovec){ b->body, b->size };
	l->op = (struct objstore_op){ .verb = b->verb, .key = l->key, .iov = &l->iov, .n_iov = 1, .out = &l->out, .done = lane_done, .ctx = l };
	l->began = clock_mono_us(&clock_system);
	objstore_submit(b->s, &l->op);
}

/* Drivers that answer at once would go down one lane by recursion: those get a thread for each lane and blocking calls. */
static void *lane_thread(void *arg)
{
	struct lane *l = arg;
	struct bench *b = l->b;
	struct err e = ERR_INIT;
	uint64_t n;
	int rc;

	while (take(b, &n)) {
		key_of(b, b->verb == OBJ_GET ? n * 7919 % b->count : n, l->key);
		buf_clear(&l->out);
		l->began = clock_mono_us(&clock_system);
		err_clear(&e);
		rc = b->verb == OBJ_PUT ? objstore_put(b->s, l->key, b->body, b->size, OBJ_ANY, NULL, &e) : objstore_get(b->s, l->key, &l->out, NULL, &e);
		pthread_mutex_lock(&b->lock);
		b->us[b->ended++] = (uint32_t)(clock_mono_us(&clock_system) - l->began);
		b->failed += rc < 0;
		if (rc < 0)
			err_set(&b->err, rc, "%s", e.msg);
		pthread_mutex_unlock(&b->lock);
	}
	return NULL;
}

static void run_lanes(struct bench *b, struct lane *lanes, unsigned n, bool threads)
{
	pthread_t *t = mem_calloc(n, sizeof(*t));
	unsigned i, began = 0;
	uint64_t first;

	for (i = 0; i < n; i++) {
		if (!threads && take(b, &first))
			lane_go(&lanes[i], first);
		else if (threads && pthread_create(&t[began], NULL, lane_thread, &lanes[i]) == 0)
			began++;
	}
	if (threads && !began)
		lane_thread(&lanes[0]);
	for (i = 0; i < began; i++)
		pthread_join(t[i], NULL);
	pthread_mutex_lock(&b->lock);
	while (b->ended < b->count)
		pthread_cond_wait(&b->done, &b->lock);
	pthread_mutex_unlock(&b->lock);
	free(t);
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void report(const struct ctl *c, struct bench *b, unsigned lanes, double s)
{
	double p50, p99, ops = (double)b->count / s, mb = ops * (double)b->size / 1e6;
	const char *name = b->verb == OBJ_PUT ? "put" : "get";

	qsort(b->us, b->count, sizeof(*b->us), by_number);
	p50 = b->us[b->count / 2] / 1000.0;
	p99 = b->us[b->count * 99 / 100] / 1000.0;
	if (c->json)
		printf("{\"verb\":\"%s\",\"size\":%zu,\"concurrency\":%u,\"count\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"ops\":%.1f,\"mb\":%.2f,\"p50_ms\":%.3f,\"p99_ms\":%.3f}\n",
		       name, b->size, lanes, b->count, b->failed, ops, mb, p50, p99);
	else
		printf("%s  %zu octets, %u at a time: %.0f/s, %.2f MB/s, p50 %.2f ms, p99 %.2f ms%s\n", name, b->size, lanes, ops, mb, p50, p99, b->failed ? ", WITH FAILURES" : "");
	fflush(stdout);
}

static int bench_verb(const struct ctl *c, struct bench *b, enum objstore_verb verb, unsigned n, bool threads)
{
	struct lane *lanes = mem_calloc(n, sizeof(*lanes));
	int64_t began = clock_mono_us(&clock_system);
	unsigned i;

	b->verb = verb;
	b->next = b->ended = b->failed = 0;
	for (i = 0; i < n; i++) {
		lanes[i].b = b;
		buf_init(&lanes[i].out, b->size + 1);
	}
	run_lanes(b, lanes, n, threads);
	report(c, b, n, (double)(clock_mono_us(&clock_system) - began) / 1e6);
	for (i = 0; i < n; i++)
		buf_free(&lanes[i].out);
	free(lanes);
	return b->failed ? b->err.code : 0;
}

/* By their names: not every store can list. */
static void clean(struct bench *b)
{
	char (*names)[96] = mem_calloc(DELETE_AT_ONCE, sizeof(*names));
	const char **keys = mem_calloc(DELETE_AT_ONCE, sizeof(*keys));
	uint64_t at = 0;
	size_t n;

	while (at < b->count) {
		for (n = 0; n < DELETE_AT_ONCE && at < b->count; n++, at++) {
			key_of(b, at, names[n]);
			keys[n] = names[n];
		}
		if (objstore_delete_many(b->s, keys, n, NULL) < 0)
			break;
	}
	free(keys);
	free(names);
}

static void print_stats(const struct ctl *c, struct objstore *s)
{
	static const char *const names[] = { "put", "get", "head", "delete", "list", "copy", "sync" };
	struct objstore_stats st;
	int i;

	if (c->json || c->quiet || !objstore_stats(s, &st))
		return;
	for (i = 0; i < OBJ_N_VERBS; i++)
		if (st.verb[i].requests)
			printf("  %-6s %" PRIu64 " operations, %" PRIu64 " requests, %" PRIu64 " retries, %" PRIu64 " hedges, %" PRIu64 " throttled, %" PRIu64 " errors\n",
			       names[i], st.verb[i].ops, st.verb[i].requests, st.verb[i].retries, st.verb[i].hedges, st.verb[i].throttled, st.verb[i].errors);
}

static bool number(struct ctl *c, const char *option, uint64_t max, uint64_t *n)
{
	const char *text = ctl_option(c, option);
	char *end;

	if (!text)
		return true;
	*n = strtoull(text, &end, 10);
	if (*end || end == text || *n < 1 || *n > max) {
		fprintf(stderr, "culverctl: %s %s: a number from 1 to %" PRIu64 "\n", option, text, max);
		return false;
	}
	return true;
}

int store_bench(struct store_run *r, struct err *err)
{
	struct bench b = { .s = r->s, .size = 4096 };
	const char *size = ctl_option(r->c, "--size");
	bool put = ctl_flag(r->c, "--put"), get = ctl_flag(r->c, "--get"), keep = ctl_flag(r->c, "--keep");
	bool threads = r->cs->driver == CONF_STORE_POSIX;
	uint64_t lanes = 1, octets = 4096;
	unsigned char id[8];
	int rc;

	b.count = COUNT;
	if (!number(r->c, "--concurrency", CONCURRENCY_MAX, &lanes) || !number(r->c, "--count", 100000000, &b.count) ||
	    !ctl_words(r->c, 0, 0, "store bench [--size 4K] [--concurrency 1] [--count 1000] [--get|--put] [--keep]"))
		return CTL_USAGE;
	if (size && (settings_parse_size(size, &octets) < 0 || octets > 1 << 30))
		return err_set(err, ERR_INVALID, "--size %s: a size like 4K, at most 1G", size);
	b.size = (size_t)octets;
	b.body = mem_alloc(b.size + 1);
	randombytes_buf(b.body, b.size);
	randombytes_buf(id, sizeof(id));
	hex_encode(b.id, id, sizeof(id));
	b.us = mem_calloc(b.count, sizeof(*b.us));
	pthread_mutex_init(&b.lock, NULL);
	pthread_cond_init(&b.done, NULL);
	rc = bench_verb(r->c, &b, OBJ_PUT, (unsigned)lanes, threads);
	if (rc == 0 && (get || !put))
		rc = bench_verb(r->c, &b, OBJ_GET, (unsigned)lanes, threads);
	print_stats(r->c, r->s);
	if (!keep)
		clean(&b);
	if (rc < 0)
		err_set(err, rc, "%s", b.err.msg);
	pthread_cond_destroy(&b.done);
	pthread_mutex_destroy(&b.lock);
	free(b.us);
	free(b.body);
	return rc;
}
