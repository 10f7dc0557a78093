#include "tests/fscache/fix.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- the probe --- */

struct watch {
	struct probe *p;
	struct objstore_op *op, inner;
};

static void passed(struct objstore_op *inner)
{
	struct watch *w = inner->ctx;
	struct objstore_op *op = w->op;
	void (*done)(struct objstore_op *) = op->done;
	void *ctx = op->ctx;

	if (inner->verb == OBJ_GET && inner->rc == 0)
		w->p->bytes += inner->out->len;
	*op = *inner;
	op->done = done;
	op->ctx = ctx;
	free(w);
	op->done(op);
}

static void carry_out(struct probe *p, struct objstore_op *op)
{
	struct watch *w = MEM_NEW(struct watch);

	*w = (struct watch){ p, op, *op };
	w->inner.done = passed;
	w->inner.ctx = w;
	objstore_submit(p->below, &w->inner);
}

static void probe_submit(struct objstore *base, struct objstore_op *op)
{
	struct probe *p = (struct probe *)base;
	bool hold;

	if (op->verb == OBJ_GET)
		p->n_get++;
	else if (op->verb == OBJ_PUT)
		p->puts++;
	else
		p->others++;
	if (p->fail) {
		op->rc = err_set(&op->err, p->fail, "injected");
		op->done(op);
		return;
	}
	pthread_mutex_lock(&p->lock);
	hold = p->hold && op->verb == OBJ_GET;
	if (hold) {
		struct held *h = MEM_NEW(struct held);

		*h = (struct held){ p->list, op };
		p->list = h;
		p->held++;
		pthread_cond_broadcast(&p->cond);
	}
	pthread_mutex_unlock(&p->lock);
	if (!hold)
		carry_out(p, op);
}

static void probe_cancel(struct objstore *base, struct objstore_op *op)
{
	struct probe *p = (struct probe *)base;
	struct held **h, *found = NULL;

	pthread_mutex_lock(&p->lock);
	for (h = &p->list; *h; h = &(*h)->next) {
		if ((*h)->op == op) {
			found = *h;
			*h = found->next;
			break;
		}
	}
	pthread_mutex_unlock(&p->lock);
	if (!found)
		return;
	free(found);
	op->rc = err_set(&op->err, ERR_TIMEOUT, "cancelled below");
	op->done(op);
}

static void probe_close(struct objstore *base)
{
	struct probe *p = (struct probe *)base;

	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->cond);
	free(p);		/* the store below is the fixture's */
}

static const struct objstore_ops probe_ops = { "probe", probe_submit, probe_cancel, probe_close, NULL };

struct objstore *probe_new(struct objstore *below, struct probe **p_r)
{
	struct probe *p = MEM_NEW(struct probe);

	p->base = (struct objstore){ &probe_ops, below->caps };
	p->below = below;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->cond, NULL);
	*p_r = p;
	return &p->base;
}

void probe_hold(struct probe *p, bool on)
{
	struct held *h, *next;

	pthread_mutex_lock(&p->lock);
	p->hold = on;
	h = on ? NULL : p->list;
	if (!on) {
		p->list = NULL;
		p->held = 0;
	}
	pthread_mutex_unlock(&p->lock);
	for (; h; h = next) {
		next = h->next;
		carry_out(p, h->op);
		free(h);
	}
}

void probe_wait(struct probe *p, unsigned n)
{
	pthread_mutex_lock(&p->lock);
	while (p->held < n)
		pthread_cond_wait(&p->cond, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

/* --- fixture --- */

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

void remove_tree(const char *dir)
{
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static _Thread_local uint64_t sum;

static int add_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	sum += (uint64_t)st->st_blocks * 512;
	return 0;
}

uint64_t dir_bytes(const char *dir)
{
	sum = 0;
	nftw(dir, add_one, 16, FTW_PHYS);
	return sum;
}

struct fix *fix_new(void)
{
	struct fix *f = MEM_NEW(struct fix);

	snprintf(f->dir, sizeof(f->dir), "/tmp/t_fscache.XXXXXX");
	if (!mkdtemp(f->dir))
		abort();
	snprintf(f->cache, sizeof(f->cache), "%s/cache", f->dir);
	f->mem = objstore_mem_new();
	return f;
}

void fix_open_sys(struct fix *f, uint64_t bytes, const struct fsc_sys *sys)
{
	struct fscache_config cfg = { .dir = f->cache, .bytes = bytes, .cacheable = fscache_keys_mail, .retry_s = 1 };
	struct objstore *p = probe_new(f->mem, &f->probe);

	if (fsc_open_with(p, &cfg, sys, &f->s, &f->err) < 0)
		fail_msg("%s", f->err.msg);
}

void fix_open(struct fix *f, uint64_t bytes)
{
	fix_open_sys(f, bytes, &fsc_sys_default);
}

void fix_shut(struct fix *f)
{
	objstore_close(&f->s);
	f->probe = NULL;
}

int fix_setup(void **state)
{
	*state = fix_new();
	return 0;
}

int fix_teardown(void **state)
{
	struct fix *f = *state;

	if (f->s && f->probe)
		probe_hold(f->probe, false);
	objstore_close(&f->s);
	objstore_close(&f->mem);
	remove_tree(f->dir);
	free(f);
	return 0;
}

/* --- mail --- */

void mail_key(char *key, const char *owner, unsigned n)
{
	snprintf(key, OBJ_KEY_MAX, "p/u/0ab/%s/m/%08x-%08x", owner, 1u, n);
}

static uint64_t word(uint64_t seed, uint64_t i)
{
	uint64_t x = (seed ^ i) * UINT64_C(0xD6E8FEB86659FD93);

	x ^= x >> 32;
	return x * UINT64_C(0xD6E8FEB86659FD93);
}

static uint64_t seed_of(const char *key)
{
	uint64_t h = UINT64_C(14695981039346656037);

	for (; *key; key++)
		h = (h ^ (unsigned char)*key) * UINT64_C(1099511628211);
	return h;
}

void mail_fill(const char *key, uint64_t off, unsigned char *to, size_t len)
{
	uint64_t seed = seed_of(key), w = 0;
	size_t i;

	for (i = 0; i < len; i++, off++) {
		if (i == 0 || off % 8 == 0)
			w = word(seed, off / 8);
		to[i] = (unsigned char)(w >> (off % 8 * 8));
	}
}

void mail_put(struct fix *f, const char *owner, unsigned n, size_t size)
{
	char key[OBJ_KEY_MAX];
	unsigned char *data = mem_realloc(NULL, size + 1);
	int rc;

	mail_key(key, owner, n);
	mail_fill(key, 0, data, size);
	rc = objstore_put(f->mem, key, data, size, OBJ_ANY, NULL, &f->err);
	free(data);
	assert_int_equal(rc, 0);
}

int mail_check(struct objstore *s, const char *owner, unsigned n, size_t size, uint64_t off, uint64_t len)
{
	struct buf b = BUF_INIT(0);
	struct err err = ERR_INIT;
	char key[OBJ_KEY_MAX];
	uint64_t got_size = 0, want = off < size ? size - off : 0;
	unsigned char *right;
	bool same;
	int rc;

	mail_key(key, owner, n);
	rc = objstore_get_range(s, key, off, len, &b, &got_size, &err);
	if (len && len < want)
		want = len;
	right = mem_realloc(NULL, (size_t)want + 1);
	mail_fill(key, off, right, (size_t)want);
	same = rc < 0 || (b.len == want && got_size == size && (!want || !memcmp(b.data, right, (size_t)want)));
	free(right);
	buf_free(&b);
	if (!same) {
		fprintf(stderr, "%s: wrong bytes at %llu+%llu of %zu\n", key, (unsigned long long)off, (unsigned long long)len, size);
		abort();
	}
	return rc;
}
