/* One shard: the index of its blocks and their bytes in its data file.
 *
 * Invariants
 *  (1) Bytes are written before their block is in the index, into units that
 *      are nobody else's.
 *  (2) A reader takes place and checksum from the index under the lock and
 *      reads without it.  The units may be another's by then; so nothing is
 *      used before its checksum, which covers the object's id and size, the
 *      block's number and length, and the bytes, was found right.
 *  (3) Of a block that is dropped because its object changed, the bytes are
 *      spoilt too: an older catalogue must not bring it back. */
#include "fscache/fscache-private.h"

#include "base/mem.h"

#include <errno.h>
#include <unistd.h>

enum { GHOST_BYTES = 8192, CHAIN_FIRST = 1024, TRIES = 3, SPOILT = 64 };

static uint64_t tag_of(const struct fscache *fc, const struct fsc_id *id, uint64_t size, uint32_t block, const void *data, size_t len)
{
	const struct { uint64_t a, b, size; uint32_t block, len; } head = { id->a, id->b, size, block, (uint32_t)len };
	crypto_onetimeauth_state st;
	unsigned char mac[crypto_onetimeauth_BYTES];
	uint64_t tag;

	crypto_onetimeauth_init(&st, fc->mac_key);
	crypto_onetimeauth_update(&st, (const unsigned char *)&head, sizeof(head));
	crypto_onetimeauth_update(&st, data, len);
	crypto_onetimeauth_final(&st, mac);
	memcpy(&tag, mac, sizeof(tag));
	return tag;
}

/* How many bytes a block has in an object of size. */
static uint64_t block_len(uint64_t size, uint32_t block)
{
	uint64_t at = (uint64_t)block * FSCACHE_BLOCK;

	if (at >= size)
		return 0;
	return size - at < FSCACHE_BLOCK ? size - at : FSCACHE_BLOCK;
}

static uint32_t pow2(uint64_t n)
{
	uint32_t p = 16;

	while (p < n && p < UINT32_C(1) << 30)
		p *= 2;
	return p;
}

void fsc_shard_init(struct fscache *fc, struct fsc_shard *sh, unsigned no, uint64_t bytes, uint32_t e_max)
{
	*sh = (struct fsc_shard){ .fc = fc, .no = no, .e_max = e_max };
	pthread_mutex_init(&sh->lock, NULL);
	fsc_space_init(&sh->space, (uint32_t)(bytes / FSC_UNIT));
	mem_grow(&sh->e, &sh->e_cap, 1, sizeof(*sh->e));	/* e[0] is nobody's */
	sh->e[0] = (struct fsc_entry){ .flags = 0 };
	sh->chain = mem_calloc(CHAIN_FIRST, sizeof(*sh->chain));
	sh->chain_mask = CHAIN_FIRST - 1;
	sh->ghost_mask = pow2(bytes / GHOST_BYTES) - 1;
	sh->ghost = mem_calloc((size_t)sh->ghost_mask + 1, sizeof(*sh->ghost));
}

void fsc_shard_release(struct fsc_shard *sh)
{
	uint32_t i;

	for (i = 1; i <= sh->e_used; i++)
		if (sh->e[i].where.n > 1)
			free(sh->e[i].where.many);
	free(sh->e);
	free(sh->chain);
	fsc_policy_release(sh);
	fsc_space_release(&sh->space);
	pthread_mutex_destroy(&sh->lock);
}

struct fsc_shard *fsc_shard_of(struct fscache *fc, const struct fsc_id *id, uint32_t block)
{
	uint64_t h = (id->a ^ block) * UINT64_C(0x9E3779B97F4A7C15);

	return &fc->shards[(h >> 32) * fc->n_shards >> 32];
}

/* --- the index, under the lock --- */

uint32_t fsc_find(struct fsc_shard *sh, const struct fsc_id *id, uint32_t block)
{
	uint32_t i = sh->chain[id->b & sh->chain_mask];

	while (i != FSC_NONE && !(sh->e[i].block == block && fsc_id_is(&sh->e[i].id, id)))
		i = sh->e[i].next;
	return i;
}

/* Chains keep their order, newest first. */
static void rehash(struct fsc_shard *sh)
{
	uint32_t size = (sh->chain_mask + 1) * 2, *chain = mem_calloc(size, sizeof(*chain)), *tail = mem_calloc(size, sizeof(*tail)), i, c, next, h;

	for (c = 0; c <= sh->chain_mask; c++) {
		for (i = sh->chain[c]; i != FSC_NONE; i = next) {
			next = sh->e[i].next;
			sh->e[i].next = FSC_NONE;
			h = (uint32_t)sh->e[i].id.b & (size - 1);
			if (tail[h] != FSC_NONE)
				sh->e[tail[h]].next = i;
			else
				chain[h] = i;
			tail[h] = i;
		}
	}
	free(tail);
	free(sh->chain);
	sh->chain = chain;
	sh->chain_mask = size - 1;
}

/* Makes e[idx], of which everything but owner and links is set, live. */
static void link_entry(struct fsc_shard *sh, uint32_t idx, uint64_t owner)
{
	uint32_t *head;

	if (sh->e_live > sh->chain_mask)
		rehash(sh);
	head = &sh->chain[sh->e[idx].id.b & sh->chain_mask];
	sh->e[idx].next = *head;
	*head = idx;
	sh->e[idx].flags |= FSC_LIVE;
	sh->e_live++;
	fsc_q_add(sh, idx, owner);
}

void fsc_unlink(struct fsc_shard *sh, uint32_t idx)
{
	struct fsc_entry *e = &sh->e[idx];
	uint32_t *p = &sh->chain[e->id.b & sh->chain_mask];

	while (*p != idx)
		p = &sh->e[*p].next;
	*p = e->next;
	fsc_q_del(sh, idx);
	fsc_space_give(&sh->space, &e->where);
	e->flags = (e->flags & FSC_SAVED) | FSC_DIRTY;
	e->next = sh->e_free;
	sh->e_free = idx;
	sh->e_live--;
}

static uint32_t entry_new(struct fsc_shard *sh)
{
	uint32_t i = sh->e_free;

	if (i != FSC_NONE) {
		sh->e_free = sh->e[i].next;
		return i;
	}
	if (sh->e_used >= sh->e_max)
		return FSC_NONE;
	i = ++sh->e_used;
	mem_grow(&sh->e, &sh->e_cap, (size_t)i + 1, sizeof(*sh->e));
	sh->e[i] = (struct fsc_entry){ .flags = 0 };
	return i;
}

/* --- bytes --- */

static int read_extents(const struct fsc_shard *sh, const struct fsc_extent *x, size_t len, unsigned char *to)
{
	while (len > 0) {
		size_t n = (size_t)x->n * FSC_UNIT, done = 0;

		if (n > len)
			n = len;
		while (done < n) {
			ssize_t r = sh->fc->sys.pread(sh->space.fd, to + done, n - done, (off_t)x->at * FSC_UNIT + (off_t)done);

			if (r < 0 && errno == EINTR)
				continue;
			if (r <= 0)
				return r < 0 ? ERR_IO : ERR_CORRUPT;
			done += (size_t)r;
		}
		to += n;
		len -= n;
		x++;
	}
	return 0;
}

static int write_extents(const struct fsc_shard *sh, const struct fsc_where *w, size_t len, const unsigned char *from)
{
	const struct fsc_extent *x = fsc_extents(w);

	while (len > 0) {
		size_t n = (size_t)x->n * FSC_UNIT, done = 0;

		if (n > len)
			n = len;
		while (done < n) {
			ssize_t r = sh->fc->sys.pwrite(sh->space.fd, from + done, n - done, (off_t)x->at * FSC_UNIT + (off_t)done);

			if (r < 0 && errno == EINTR)
				continue;
			if (r <= 0)
				return -1;
			done += (size_t)r;
		}
		from += n;
		len -= n;
		x++;
	}
	return 0;
}

bool fsc_has(struct fscache *fc, const struct fsc_id *id, uint32_t block)
{
	struct fsc_shard *sh = fsc_shard_of(fc, id, block);
	bool there;

	pthread_mutex_lock(&sh->lock);
	there = fsc_find(sh, id, block) != FSC_NONE;
	pthread_mutex_unlock(&sh->lock);
	return there;
}

/* --- reading --- */

struct place {			/* a copy of what a reader needs */
	uint64_t size, tag;
	uint32_t n;
	struct fsc_extent x[FSC_BLOCK_UNITS];
	uint16_t len;
};

static bool look(struct fsc_shard *sh, const struct fsc_id *id, uint32_t block, uint64_t size, struct place *p)
{
	struct fsc_entry *e;
	uint32_t idx;

	pthread_mutex_lock(&sh->lock);
	idx = fsc_find(sh, id, block);
	e = &sh->e[idx];
	if (idx != FSC_NONE && size && e->size != size) {
		fsc_unlink(sh, idx);
		idx = FSC_NONE;
	}
	if (idx != FSC_NONE) {
		p->size = e->size;
		p->tag = e->tag;
		p->len = e->len;
		p->n = e->where.n;
		memcpy(p->x, fsc_extents(&e->where), p->n * sizeof(p->x[0]));
		if (e->freq < FSC_FREQ_MAX)
			e->freq++;
		e->used = fsc_now_s(sh->fc);
		e->flags |= FSC_READ;
	}
	pthread_mutex_unlock(&sh->lock);
	return idx != FSC_NONE;
}

/* The bytes at p were not right.  False: p was out of date, look again. */
static bool bad(struct fsc_shard *sh, const struct fsc_id *id, uint32_t block, const struct place *p, int rc)
{
	struct fsc_entry *e;
	bool same, suspect = false;
	uint32_t idx;

	pthread_mutex_lock(&sh->lock);
	idx = fsc_find(sh, id, block);
	e = &sh->e[idx];
	same = idx != FSC_NONE && e->tag == p->tag && e->where.n == p->n && !memcmp(fsc_extents(&e->where), p->x, p->n * sizeof(p->x[0]));
	if (same) {
		suspect = e->flags & FSC_SUSPECT;
		fsc_unlink(sh, idx);
	}
	pthread_mutex_unlock(&sh->lock);
	if (same && rc == ERR_IO)
		FSC_COUNT(sh->fc, io_errors, 1);
	else if (same && suspect)
		FSC_COUNT(sh->fc, stale, 1);
	else if (same)
		FSC_COUNT(sh->fc, corrupt, 1);
	return same || idx == FSC_NONE;
}

/* The whole block, checked, to `to`. */
static int fetch(struct fsc_shard *sh, const struct fsc_id *id, uint32_t block, const struct place *p, unsigned char *to)
{
	int rc = read_extents(sh, p->x, p->len, to);

	if (rc == 0 && tag_of(sh->fc, id, p->size, block, to, p->len) != p->tag)
		rc = ERR_CORRUPT;
	return rc;
}

/* Bytes from.. of the block at p behind out's. */
static int take(struct fsc_shard *sh, const struct fsc_id *id, uint32_t block, const struct place *p, uint32_t from, uint32_t len, struct buf *out)
{
	unsigned char *to, *whole = NULL;
	int rc;

	if (from >= p->len)
		len = 0;
	else if (len > p->len - from)
		len = p->len - from;
	to = buf_reserve(out, len);
	if (!to)
		return ERR_LIMIT;
	if (len < p->len)
		whole = mem_realloc(NULL, p->len);
	rc = fetch(sh, id, block, p, whole ? whole : to);
	if (rc == 0 && whole)
		memcpy(to, whole + from, len);
	free(whole);
	if (rc == 0) {
		out->len += len;
		out->data[out->len] = '\0';
	}
	return rc;
}

int fsc_read(struct fscache *fc, const struct fsc_id *id, uint32_t block, uint32_t from, uint32_t len, struct buf *out, uint64_t *size)
{
	struct fsc_shard *sh = fsc_shard_of(fc, id, block);
	struct place p;
	int rc, tries;

	for (tries = 0; tries < TRIES; tries++) {
		if (!look(sh, id, block, *size, &p))
			return 0;
		rc = take(sh, id, block, &p, from, len, out);
		if (rc == 0) {
			*size = p.size;
			return 1;
		}
		if (rc == ERR_LIMIT)
			return rc;
		if (bad(sh, id, block, &p, rc))
			return 0;
	}
	return 0;
}

/* --- writing --- */

/* One object gets its part of the shard and no more: its oldest blocks go. */
static void confine(struct fsc_shard *sh, const struct fsc_id *id, uint32_t need)
{
	uint32_t i, oldest, units;

	for (;;) {
		units = 0;
		oldest = FSC_NONE;
		for (i = sh->chain[id->b & sh->chain_mask]; i != FSC_NONE; i = sh->e[i].next) {
			if (fsc_id_is(&sh->e[i].id, id)) {
				units += fsc_units(sh->e[i].len);
				oldest = i;
			}
		}
		if (oldest == FSC_NONE || units + need <= sh->space.max / FSC_OBJECT_PART)
			return;
		fsc_unlink(sh, oldest);
		FSC_COUNT(sh->fc, evicted, 1);
	}
}

/* Room for need units and an index entry.  0, ERR_BUSY (all is being written), or of growing. */
static int make_room(struct fsc_shard *sh, uint32_t need, struct err *err)
{
	struct fscache *fc = sh->fc;
	uint32_t now = fsc_now_s(fc);
	int rc = 0, full = 0;

	while (sh->e_live + sh->writing >= sh->e_max)
		if (!fsc_evict(sh, now))
			return ERR_BUSY;
	while (sh->space.free < need) {
		if (sh->space.units < sh->space.max && fsc_now_us(fc) >= sh->no_growth_until) {
			rc = fsc_space_grow(&sh->space, &fc->sys, err);
			if (rc == 0)
				continue;
			sh->no_growth_until = fsc_now_us(fc) + (int64_t)fc->retry_s * 1000000;
			full = rc;
		}
		if (!fsc_evict(sh, now))
			return full ? full : ERR_BUSY;
	}
	return full;
}

/* Units for st. */
static bool reserve(struct fsc_shard *sh, struct fsc_staged *st)
{
	struct err err = ERR_INIT;
	uint32_t need = fsc_units(st->len);
	bool got;
	int rc;

	if (sh->writing_units + need > sh->space.max / FSC_WRITING_PART)
		return false;
	confine(sh, &st->id, need);
	rc = make_room(sh, need, &err);
	got = sh->space.free >= need && sh->e_live + sh->writing < sh->e_max;
	if (got) {
		fsc_space_take(&sh->space, need, &st->where);
		sh->writing++;
		sh->writing_units += need;
	}
	if (rc < 0 && rc != ERR_BUSY) {
		pthread_mutex_unlock(&sh->lock);
		fsc_disk_failed(sh->fc, rc, rc != ERR_LIMIT, &err);
		pthread_mutex_lock(&sh->lock);
	}
	return got;
}

static void give_back(struct fsc_shard *sh, struct fsc_staged *st)
{
	sh->writing--;
	sh->writing_units -= fsc_units(st->len);
	fsc_space_give(&sh->space, &st->where);
	st->sh = NULL;
}

void fsc_stage(struct fscache *fc, const struct fsc_id *id, uint64_t owner, uint64_t size, uint32_t block, const void *data, size_t len,
	       struct fsc_staged *st)
{
	struct fsc_shard *sh = fsc_shard_of(fc, id, block);
	struct err err = ERR_INIT;
	bool known, got = false, full;

	*st = (struct fsc_staged){ .sh = NULL, .id = *id, .owner = owner, .size = size, .block = block, .len = (uint16_t)len };
	if (len == 0 || len > FSCACHE_BLOCK || len != block_len(size, block))
		return;
	if (fsc_now_us(fc) < fc->no_write_until) {
		FSC_COUNT(fc, refused, 1);
		return;
	}
	st->tag = tag_of(fc, id, size, block, data, len);
	pthread_mutex_lock(&sh->lock);
	known = fsc_find(sh, id, block) != FSC_NONE;
	if (!known && sh->open)
		got = reserve(sh, st);
	pthread_mutex_unlock(&sh->lock);
	if (!got) {
		if (!known)
			FSC_COUNT(fc, refused, 1);
		return;
	}
	st->sh = sh;
	if (write_extents(sh, &st->where, len, data) == 0)
		return;
	full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
	err_errno(&err, "fscache: write", "data file");
	pthread_mutex_lock(&sh->lock);
	give_back(sh, st);
	pthread_mutex_unlock(&sh->lock);
	FSC_COUNT(fc, refused, 1);
	FSC_COUNT(fc, io_errors, 1);
	fsc_disk_failed(fc, full ? ERR_LIMIT : ERR_IO, true, &err);
}

static void enter(struct fsc_shard *sh, uint32_t idx, struct fsc_staged *st)
{
	struct fsc_entry *e = &sh->e[idx];

	*e = (struct fsc_entry){ .id = st->id, .size = st->size, .tag = st->tag, .where = st->where, .block = st->block, .len = st->len,
				 .freq = st->freq, .used = fsc_now_s(sh->fc), .flags = (e->flags & FSC_SAVED) | FSC_DIRTY };
	e->queue = fsc_ghost_take(sh, &st->id, st->block) ? FSC_MAIN : FSC_SMALL;
	link_entry(sh, idx, st->owner);
}

void fsc_publish(struct fscache *fc, struct fsc_staged *st, bool keep, const atomic_bool *voided)
{
	struct fsc_shard *sh = st->sh;
	uint32_t idx = FSC_NONE;

	if (!sh)
		return;
	pthread_mutex_lock(&sh->lock);
	if (keep && sh->open && !(voided && atomic_load(voided)) && fsc_find(sh, &st->id, st->block) == FSC_NONE)
		idx = entry_new(sh);
	if (idx != FSC_NONE) {
		enter(sh, idx, st);
		sh->writing--;
		sh->writing_units -= fsc_units(st->len);
		st->sh = NULL;
	} else {
		give_back(sh, st);
	}
	pthread_mutex_unlock(&sh->lock);
	if (idx != FSC_NONE)
		FSC_COUNT(fc, admitted, 1);
}

/* --- dropping --- */

/* (3) What cannot be spoilt is on a disk that cannot be written: then the catalogue cannot be opened either. */
static void spoil(struct fsc_shard *sh, const struct fsc_entry *e)
{
	static const unsigned char nothing[SPOILT];

	if (sh->fc->sys.pwrite(sh->space.fd, nothing, e->len < SPOILT ? e->len : SPOILT, (off_t)fsc_extents(&e->where)->at * FSC_UNIT) < 0)
		FSC_COUNT(sh->fc, io_errors, 1);
}

void fsc_drop_object(struct fscache *fc, const struct fsc_id *id)
{
	unsigned s;

	for (s = 0; s < fc->n_shards; s++) {
		struct fsc_shard *sh = &fc->shards[s];
		uint32_t i, next;

		pthread_mutex_lock(&sh->lock);
		for (i = sh->chain[id->b & sh->chain_mask]; i != FSC_NONE; i = next) {
			next = sh->e[i].next;
			if (!fsc_id_is(&sh->e[i].id, id))
				continue;
			spoil(sh, &sh->e[i]);
			fsc_unlink(sh, i);
		}
		pthread_mutex_unlock(&sh->lock);
	}
}

void fsc_shard_clean(struct fsc_shard *sh)
{
	uint32_t i;
	bool was;

	pthread_mutex_lock(&sh->lock);
	was = sh->open;
	sh->open = false;
	while (sh->writing) {		/* each is one write long; none begins */
		pthread_mutex_unlock(&sh->lock);
		usleep(200);
		pthread_mutex_lock(&sh->lock);
	}
	for (i = 1; i <= sh->e_used; i++)
		if (sh->e[i].flags & FSC_LIVE)
			fsc_unlink(sh, i);
	for (i = 1; i <= sh->e_used; i++)
		sh->e[i].flags = 0;
	sh->e_used = sh->e_free = 0;
	if (sh->space.fd >= 0 && ftruncate(sh->space.fd, 0) == 0)
		fsc_space_set(&sh->space, 0);
	sh->open = was;
	pthread_mutex_unlock(&sh->lock);
}

/* --- from the catalogue, before anybody else is here --- */

bool fsc_shard_restore(struct fsc_shard *sh, uint32_t idx, const struct fsc_entry *from, uint64_t owner)
{
	struct fsc_entry *e;

	if (idx == FSC_NONE || idx > sh->e_max || !from->len || from->len != block_len(from->size, from->block) || fsc_find(sh, &from->id, from->block) != FSC_NONE)
		return false;
	if (idx > sh->e_used) {
		mem_grow(&sh->e, &sh->e_cap, (size_t)idx + 1, sizeof(*sh->e));
		memset(&sh->e[sh->e_used + 1], 0, (idx - sh->e_used) * sizeof(*sh->e));
		sh->e_used = idx;
	}
	e = &sh->e[idx];
	if ((e->flags & FSC_LIVE) || !fsc_space_claim(&sh->space, &from->where))
		return false;
	*e = *from;
	link_entry(sh, idx, owner);
	return true;
}

void fsc_shard_restored(struct fsc_shard *sh)
{
	uint32_t i;

	sh->e_free = FSC_NONE;
	for (i = sh->e_used; i > 0; i--) {
		if (sh->e[i].flags & FSC_LIVE)
			continue;
		sh->e[i].flags = FSC_SAVED | FSC_DIRTY;	/* there may be a row that was refused */
		sh->e[i].next = sh->e_free;
		sh->e_free = i;
	}
	sh->open = true;
}
