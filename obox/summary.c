/* Summaries live in immutable blocks of some 256 KiB, many messages each, so
 * that reading the envelopes of a whole mailbox is a few large reads and
 * selecting it is none.
 *
 * A block is filled as saves are applied, closed when full, written to the
 * store as sum/<epoch>-<n> and then read back through a cache.  Blocks are
 * derived: the log's save records hold the same summaries until a snapshot
 * takes their place, and the message objects hold them for ever.
 *
 * Plain bytes of a block: "CULS", version, varint count, count+1 offsets of 4
 * bytes from the end of the table, the summaries. */
#include "obox/obox-private.h"

#include <inttypes.h>

/* --- filling --- */

static struct sumblock *open_block(struct root_state *s)
{
	struct sumblock *b = s->n_blocks ? &s->blocks[s->n_blocks - 1] : NULL;

	if (b && b->open && b->n == 0 && b->bytes < OBOX_SUMBLOCK_BYTES)
		return b;
	mem_grow(&s->blocks, &s->cap_blocks, s->n_blocks + 1, sizeof(*s->blocks));
	b = &s->blocks[s->n_blocks++];
	memset(b, 0, sizeof(*b));
	b->open = MEM_NEW(struct sumopen);
	return b;
}

void sum_add(struct root_state *s, const void *summary, size_t len, uint32_t *block_r, uint32_t *slot_r)
{
	struct sumblock *b = open_block(s);
	struct sumopen *o = b->open;

	mem_grow(&o->off, &o->cap, (size_t)b->count + 2, sizeof(*o->off));
	o->off[b->count] = b->bytes;
	buf_add(&o->data, summary, len);
	*block_r = (uint32_t)(s->n_blocks - 1);
	*slot_r = b->count++;
	b->bytes += (uint32_t)len;
	o->off[b->count] = b->bytes;
}

void sumblock_release(struct sumblock *b)
{
	if (!b->open)
		return;
	buf_free(&b->open->data);
	free(b->open->off);
	free(b->open);
	b->open = NULL;
}

static void block_encode(const struct sumblock *b, struct buf *out)
{
	uint32_t i;

	buf_adds(out, "CULS");
	buf_put8(out, 1);
	buf_putv(out, b->count);
	for (i = 0; i <= b->count; i++)
		buf_put32(out, b->open->off[i]);
	buf_add(out, b->open->data.data, b->open->data.len);
}

static char *block_key(const struct obox_user *u, uint64_t epoch, uint64_t n)
{
	return user_key(u, "sum/%08" PRIx64 "-%08" PRIx64, epoch, n);
}

char *sum_take(struct obox_user *u, bool full_only, struct buf *plain, size_t *at_r)
{
	struct root_state *s = &u->st;
	size_t i;

	for (i = s->n_blocks; i-- > 0;) {
		struct sumblock *b = &s->blocks[i];

		if (!b->open)
			return NULL;	/* blocks are stored in order, so all before it are */
		if (b->open->stored || (full_only && b->n == 0 && b->bytes < OBOX_SUMBLOCK_BYTES))
			continue;
		if (i > 0 && s->blocks[i - 1].open && !s->blocks[i - 1].open->stored)
			continue;	/* the older one first */
		if (b->n == 0)
			b->n = ++u->next_block;
		b->epoch = u->man.epoch;
		b->open->stored = true;	/* not twice */
		block_encode(b, plain);
		*at_r = i;
		return block_key(u, b->epoch, b->n);
	}
	return NULL;
}

void sum_stored(struct obox_user *u, size_t at, bool ok)
{
	pthread_mutex_lock(&u->lock);
	if (ok)
		sumblock_release(&u->st.blocks[at]);
	else
		u->st.blocks[at].open->stored = false;
	pthread_mutex_unlock(&u->lock);
}

int sum_store_full(struct obox_user *u, struct err *err)
{
	struct buf plain = BUF_INIT(0);
	char *key;
	size_t at;
	int rc = 0;

	while (rc == 0) {
		pthread_mutex_lock(&u->lock);
		buf_clear(&plain);
		key = sum_take(u, true, &plain, &at);
		pthread_mutex_unlock(&u->lock);
		if (!key)
			break;
		rc = bundle_put(u->ob, key, plain.data, plain.len, err);
		if (rc == ERR_EXISTS)	/* an earlier attempt whose answer was lost: the name is this epoch's */
			rc = 0;
		sum_stored(u, at, rc == 0);
		free(key);
	}
	buf_free(&plain);
	return rc;
}

/* --- the cache of unpacked blocks, one for the node ---
 * When it is full a block taken at random goes.  A client that reads a mailbox
 * larger than the cache from end to end, again and again, would never find
 * anything if the oldest went. */

struct cached {
	char *key;
	struct buf plain;
	uint32_t count;
	const unsigned char *table, *data;
	unsigned refs;
	size_t at;		/* in sumcache.all */
};

struct sumcache {
	pthread_mutex_t lock;
	struct hmap map;
	struct cached **all;
	size_t n, cap;
	size_t bytes, max;
};

struct sumcache *sumcache_new(size_t bytes)
{
	struct sumcache *c = MEM_NEW(struct sumcache);

	pthread_mutex_init(&c->lock, NULL);
	c->max = bytes;
	return c;
}

static void cached_free(struct cached *e)
{
	buf_free(&e->plain);
	free(e->key);
	free(e);
}

void sumcache_free(struct sumcache **cp)
{
	struct sumcache *c = *cp;

	if (!c)
		return;
	while (c->n)
		cached_free(c->all[--c->n]);
	free(c->all);
	hmap_free(&c->map);
	pthread_mutex_destroy(&c->lock);
	free(c);
	*cp = NULL;
}

static void add(struct sumcache *c, struct cached *e)
{
	hmap_put(&c->map, e->key, strlen(e->key), e);
	mem_grow(&c->all, &c->cap, c->n + 1, sizeof(struct cached *));
	e->at = c->n;
	c->all[c->n++] = e;
	c->bytes += e->plain.len;
}

static void take_out(struct sumcache *c, struct cached *e)
{
	hmap_del(&c->map, e->key, strlen(e->key));
	c->all[e->at] = c->all[--c->n];
	c->all[e->at]->at = e->at;
	c->bytes -= e->plain.len;
	cached_free(e);
}

/* Makes room; blocks in use stay, so it may not succeed when all are. */
static void trim(struct sumcache *c)
{
	size_t tries;

	for (tries = 2 * c->n; c->bytes > c->max && tries; tries--) {
		struct cached *e = c->all[randombytes_uniform((uint32_t)c->n)];

		if (!e->refs)
			take_out(c, e);
	}
}

static int block_check(struct cached *e, struct err *err)
{
	struct rd r = rd_init(e->plain.data, e->plain.len);
	const void *magic = rd_bytes(&r, 4);
	uint64_t count;
	uint32_t i, last = 0, v;

	if (!magic || memcmp(magic, "CULS", 4) != 0 || rd_8(&r) != 1)
		return err_set(err, ERR_CORRUPT, "%s: not a summary block of a known version", e->key);
	count = rd_v(&r);
	if (r.failed || count > rd_left(&r) / 4)
		return err_set(err, ERR_CORRUPT, "%s: summary block is cut", e->key);
	e->count = (uint32_t)count;
	e->table = r.p;
	for (i = 0; i <= count; i++) {
		v = rd_32(&r);
		if (v < last)
			r.failed = true;
		last = v;
	}
	if (r.failed || last != rd_left(&r))
		return err_set(err, ERR_CORRUPT, "%s: summary block is cut", e->key);
	e->data = r.p;
	return 0;
}

/* Takes ownership of key.  The result is pinned: cache_unpin. */
static int cache_get(struct obox *ob, char *key, struct cached **e_r, struct err *err)
{
	struct sumcache *c = ob->sumcache;
	struct cached *e, *other;
	int rc;

	pthread_mutex_lock(&c->lock);
	e = hmap_gets(&c->map, key);
	if (e)
		e->refs++;
	pthread_mutex_unlock(&c->lock);
	*e_r = e;
	if (e) {
		free(key);
		return 0;
	}
	e = MEM_NEW(struct cached);
	e->key = key;
	rc = bundle_get(ob, key, &e->plain, NULL, err);
	if (rc == 0)
		rc = block_check(e, err);
	if (rc < 0) {
		cached_free(e);
		return rc;
	}
	pthread_mutex_lock(&c->lock);
	other = hmap_gets(&c->map, key);
	if (other) {	/* somebody was quicker */
		cached_free(e);
		e = other;
	} else {
		add(c, e);
	}
	e->refs++;
	trim(c);
	pthread_mutex_unlock(&c->lock);
	*e_r = e;
	return 0;
}

static void cache_unpin(struct obox *ob, struct cached *e)
{
	pthread_mutex_lock(&ob->sumcache->lock);
	e->refs--;
	pthread_mutex_unlock(&ob->sumcache->lock);
}

static uint32_t table_at(const struct cached *e, uint32_t i)
{
	struct rd r = rd_init(e->table + 4 * (size_t)i, 4);

	return rd_32(&r);
}

/* --- all of one block --- */

struct sumslots { struct cached *e; };

int sumslots_open(struct obox_user *u, const struct sumblock *b, struct sumslots **s_r, struct err *err)
{
	struct cached *e;
	int rc = cache_get(u->ob, block_key(u, b->epoch, b->n), &e, err);

	if (rc < 0)
		return rc;
	*s_r = MEM_NEW(struct sumslots);
	(*s_r)->e = e;
	return 0;
}

uint32_t sumslots_count(const struct sumslots *s)
{
	return s->e->count;
}

void sumslots_get(const struct sumslots *s, uint32_t slot, const void **p_r, size_t *len_r)
{
	uint32_t off = table_at(s->e, slot);

	*p_r = s->e->data + off;
	*len_r = table_at(s->e, slot + 1) - off;
}

void sumslots_close(struct obox_user *u, struct sumslots **s)
{
	cache_unpin(u->ob, (*s)->e);
	free(*s);
	*s = NULL;
}

/* --- reading --- */

/* The summary in the message object itself: what is left when its block is not. */
static int from_object(struct obox_user *u, const struct obox_msg *m, struct buf *out, struct err *err)
{
	char *key = user_key(u, "m/%08" PRIx64 "-%08" PRIx64, m->oid.epoch, m->oid.n);
	struct buf head = BUF_INIT(128 << 20);
	struct mobj_head h;
	int rc;

	rc = objstore_get_range(u->ob->cfg.mail_store, key, 0, MOBJ_FIRST_READ, &head, NULL, err);
	if (rc == 0)
		rc = mobj_parse_head(head.data, head.len, &h, err);
	if (rc == 0 && h.header_len > head.len) {
		buf_clear(&head);
		rc = objstore_get_range(u->ob->cfg.mail_store, key, 0, h.header_len, &head, NULL, err);
		if (rc == 0 && head.len < h.header_len)
			rc = err_set(err, ERR_CORRUPT, "%s: object is cut", key);
	}
	if (rc == 0)
		rc = mobj_open_summary(u->ob, key, head.data, &h, out, err);
	buf_free(&head);
	free(key);
	return rc;
}

/* 1: copied from a block still in memory; 0: *key_r (owned) is the stored block's; -1: no such block. */
static int locate(struct obox_user *u, const struct obox_msg *m, struct buf *copy, char **key_r)
{
	struct sumblock *b;
	int rc = -1;

	*key_r = NULL;
	pthread_mutex_lock(&u->lock);
	if (m->sum_block < u->st.n_blocks) {
		b = &u->st.blocks[m->sum_block];
		if (m->sum_slot >= b->count) {
			rc = -1;
		} else if (b->open) {
			uint32_t off = b->open->off[m->sum_slot];

			buf_add(copy, b->open->data.data + off, b->open->off[m->sum_slot + 1] - off);
			rc = 1;
		} else {
			*key_r = block_key(u, b->epoch, b->n);
			rc = 0;
		}
	}
	pthread_mutex_unlock(&u->lock);
	return rc;
}

struct cursor {	/* the block of the message before, still pinned */
	uint32_t block;
	struct cached *e;
};

static int summary_at(struct obox_user *u, const struct obox_msg *m, struct cursor *cur, struct buf *scratch,
		      const void **p_r, size_t *len_r, struct err *err)
{
	struct err quiet = ERR_INIT;
	char *key = NULL;
	int rc;

	if (!cur->e || cur->block != m->sum_block) {
		if (cur->e)
			cache_unpin(u->ob, cur->e);
		cur->e = NULL;
		buf_clear(scratch);
		rc = locate(u, m, scratch, &key);
		if (rc == 1) {
			*p_r = scratch->data ? scratch->data : (const unsigned char *)"";
			*len_r = scratch->len;
			return 0;
		}
		if (rc == 0 && cache_get(u->ob, key, &cur->e, &quiet) < 0)
			cur->e = NULL;
		cur->block = m->sum_block;
	}
	if (cur->e && m->sum_slot < cur->e->count) {
		uint32_t off = table_at(cur->e, m->sum_slot);

		*p_r = cur->e->data + off;
		*len_r = table_at(cur->e, m->sum_slot + 1) - off;
		return 0;
	}
	buf_clear(scratch);
	rc = from_object(u, m, scratch, err);
	*p_r = scratch->data;
	*len_r = scratch->len;
	return rc;
}

int obox_summary(struct obox_user *u, const struct obox_msg *m, struct buf *out, struct err *err)
{
	struct buf scratch = BUF_INIT(0);
	struct cursor cur = { 0, NULL };
	const void *p;
	size_t len;
	int rc = summary_at(u, m, &cur, &scratch, &p, &len, err);

	if (rc == 0)
		buf_add(out, p, len);
	if (cur.e)
		cache_unpin(u->ob, cur.e);
	buf_free(&scratch);
	return rc;
}

void obox_summaries(struct obox_user *u, const struct obox_msg *m, size_t n,
	bool (*fn)(void *ctx, size_t i, const void *summary, size_t len), void *ctx)
{
	struct buf scratch = BUF_INIT(0);
	struct cursor cur = { 0, NULL };
	bool go = true;
	size_t i;

	for (i = 0; i < n && go; i++) {
		struct err err = ERR_INIT;
		const void *p;
		size_t len;

		if (summary_at(u, &m[i], &cur, &scratch, &p, &len, &err) == 0)
			go = fn(ctx, i, p, len);
		else
			go = fn(ctx, i, NULL, 0);
	}
	if (cur.e)
		cache_unpin(u->ob, cur.e);
	buf_free(&scratch);
}
