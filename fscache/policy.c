/* Who has to go.
 *
 * Two queues, as in S3-FIFO: a new block is on probation (SMALL); one that was
 * read again while there moves to MAIN, the rest leaves and is remembered for
 * a while (ghosts), so that what comes back soon goes to MAIN at once.  MAIN
 * is a clock: what was read since gets another round.
 *
 * Each owner has queues of its own, and it is always the owner with most in
 * a queue who loses from it.  So a download of a whole mailbox displaces its
 * owner's blocks once they are the most, and never those of somebody who has
 * less.  An owner with more than an equal share of MAIN has to read a block
 * twice again before it is taken there.
 *
 * What nobody read for idle_s goes before all that: else owners who left
 * would keep their part for ever.
 *
 * Everything here is under the shard's lock. */
#include "fscache/fscache-private.h"

#include "base/mem.h"

enum { STEPS_MAX = 256, IDLE_LOOKS = 2, SMALL_PART = 10, GHOST_WAYS = 4 };

/* --- the heap of owners --- */

static uint32_t weight(const struct fsc_shard *sh, int q, size_t i)
{
	return sh->o[sh->heap[q].v[i]].q[q].units;
}

static void heap_set(struct fsc_shard *sh, int q, size_t i, uint32_t owner)
{
	sh->heap[q].v[i] = owner;
	sh->o[owner].q[q].pos = (uint32_t)i + 1;
}

static void heap_swap(struct fsc_shard *sh, int q, size_t i, size_t j)
{
	uint32_t a = sh->heap[q].v[i], b = sh->heap[q].v[j];

	heap_set(sh, q, i, b);
	heap_set(sh, q, j, a);
}

/* Puts what stands at i where its weight belongs. */
static void heap_fix(struct fsc_shard *sh, int q, size_t i)
{
	struct fsc_heap *h = &sh->heap[q];
	size_t c;

	while (i > 0 && weight(sh, q, i) > weight(sh, q, (i - 1) / 2)) {
		heap_swap(sh, q, i, (i - 1) / 2);
		i = (i - 1) / 2;
	}
	while ((c = 2 * i + 1) < h->n) {
		if (c + 1 < h->n && weight(sh, q, c + 1) > weight(sh, q, c))
			c++;
		if (weight(sh, q, c) <= weight(sh, q, i))
			break;
		heap_swap(sh, q, i, c);
		i = c;
	}
}

static void heap_add(struct fsc_shard *sh, int q, uint32_t owner)
{
	struct fsc_heap *h = &sh->heap[q];

	mem_grow(&h->v, &h->cap, h->n + 1, sizeof(*h->v));
	heap_set(sh, q, h->n++, owner);
	heap_fix(sh, q, h->n - 1);
}

static void heap_del(struct fsc_shard *sh, int q, uint32_t owner)
{
	struct fsc_heap *h = &sh->heap[q];
	size_t i = sh->o[owner].q[q].pos - 1;

	sh->o[owner].q[q].pos = 0;
	h->n--;
	if (i < h->n) {
		heap_set(sh, q, i, h->v[h->n]);
		heap_fix(sh, q, i);
	}
}

/* --- owners --- */

static void owners_rehash(struct fsc_shard *sh)
{
	uint32_t size = sh->o_mask ? (sh->o_mask + 1) * 2 : 64, i, *head;

	free(sh->o_chain);
	sh->o_chain = mem_calloc(size, sizeof(*sh->o_chain));
	sh->o_mask = size - 1;
	for (i = 1; i <= sh->o_used; i++) {
		if (!sh->o[i].q[0].pos && !sh->o[i].q[1].pos)
			continue;	/* on the free list, whose links stay */
		head = &sh->o_chain[sh->o[i].hash & sh->o_mask];
		sh->o[i].next = *head;
		*head = i;
	}
}

static uint32_t owner_get(struct fsc_shard *sh, uint64_t hash)
{
	uint32_t i, *head;

	if (!sh->o_mask || sh->o_live > sh->o_mask)
		owners_rehash(sh);
	head = &sh->o_chain[hash & sh->o_mask];
	for (i = *head; i != FSC_NONE; i = sh->o[i].next)
		if (sh->o[i].hash == hash)
			return i;
	i = sh->o_free;
	if (i != FSC_NONE) {
		sh->o_free = sh->o[i].next;
	} else {
		i = ++sh->o_used;
		mem_grow(&sh->o, &sh->o_cap, (size_t)i + 1, sizeof(*sh->o));
	}
	sh->o[i] = (struct fsc_owner){ .hash = hash, .next = *head };
	*head = i;
	sh->o_live++;
	return i;
}

static void owner_drop(struct fsc_shard *sh, uint32_t owner)
{
	uint32_t *p = &sh->o_chain[sh->o[owner].hash & sh->o_mask];

	while (*p != owner)
		p = &sh->o[*p].next;
	*p = sh->o[owner].next;
	sh->o[owner].next = sh->o_free;
	sh->o_free = owner;
	sh->o_live--;
}

/* --- queues --- */

static uint32_t units_of(const struct fsc_entry *e)
{
	return fsc_units(e->len);
}

/* As the newest of its owner in queue e->queue. */
static void q_link(struct fsc_shard *sh, uint32_t idx)
{
	struct fsc_entry *e = &sh->e[idx];
	struct fsc_ownq *q = &sh->o[e->owner].q[e->queue];

	e->newer = FSC_NONE;
	e->older = q->newest;
	if (q->newest != FSC_NONE)
		sh->e[q->newest].newer = idx;
	else
		q->oldest = idx;
	q->newest = idx;
	q->units += units_of(e);
	sh->q_units[e->queue] += units_of(e);
	if (q->pos)
		heap_fix(sh, e->queue, q->pos - 1);
	else
		heap_add(sh, e->queue, e->owner);
}

static void q_unlink(struct fsc_shard *sh, uint32_t idx)
{
	struct fsc_entry *e = &sh->e[idx];
	struct fsc_ownq *q = &sh->o[e->owner].q[e->queue];

	if (e->newer != FSC_NONE)
		sh->e[e->newer].older = e->older;
	else
		q->newest = e->older;
	if (e->older != FSC_NONE)
		sh->e[e->older].newer = e->newer;
	else
		q->oldest = e->newer;
	q->units -= units_of(e);
	sh->q_units[e->queue] -= units_of(e);
	if (q->newest == FSC_NONE)
		heap_del(sh, e->queue, e->owner);
	else
		heap_fix(sh, e->queue, q->pos - 1);
}

void fsc_q_add(struct fsc_shard *sh, uint32_t idx, uint64_t owner_hash)
{
	sh->e[idx].owner = owner_get(sh, owner_hash);
	q_link(sh, idx);
}

void fsc_q_del(struct fsc_shard *sh, uint32_t idx)
{
	uint32_t owner = sh->e[idx].owner;

	q_unlink(sh, idx);
	if (!sh->o[owner].q[FSC_SMALL].pos && !sh->o[owner].q[FSC_MAIN].pos)
		owner_drop(sh, owner);
}

static void q_move(struct fsc_shard *sh, uint32_t idx, uint8_t queue)
{
	q_unlink(sh, idx);	/* the owner stays, for it is linked again at once */
	sh->e[idx].queue = queue;
	q_link(sh, idx);
}

/* --- ghosts: marks of what left SMALL lately --- */

static struct fsc_ghost *ghosts(struct fsc_shard *sh, const struct fsc_id *id, uint32_t block, uint32_t *mark_r)
{
	uint64_t h = (id->b ^ block) * UINT64_C(0x9E3779B97F4A7C15);

	*mark_r = (uint32_t)(h >> 32) | 1;
	return &sh->ghost[(uint32_t)h & sh->ghost_mask & ~(uint32_t)(GHOST_WAYS - 1)];
}

static void ghost_add(struct fsc_shard *sh, const struct fsc_entry *e)
{
	struct fsc_ghost *g, *oldest;
	uint32_t mark;
	int i;

	oldest = g = ghosts(sh, &e->id, e->block, &mark);
	sh->ghost_seq++;
	for (i = 1; i < GHOST_WAYS; i++)
		if (sh->ghost_seq - g[i].seq > sh->ghost_seq - oldest->seq)
			oldest = &g[i];
	*oldest = (struct fsc_ghost){ mark, sh->ghost_seq };
}

bool fsc_ghost_take(struct fsc_shard *sh, const struct fsc_id *id, uint32_t block)
{
	struct fsc_ghost *g;
	uint32_t mark;
	int i;

	g = ghosts(sh, id, block, &mark);
	for (i = 0; i < GHOST_WAYS; i++) {
		if (g[i].mark == mark && sh->ghost_seq - g[i].seq <= sh->ghost_mask / 2) {
			g[i].mark = 0;
			return true;
		}
	}
	return false;
}

/* --- eviction --- */

static void drop(struct fsc_shard *sh, uint32_t idx)
{
	if (sh->e[idx].queue == FSC_SMALL)
		ghost_add(sh, &sh->e[idx]);
	fsc_unlink(sh, idx);
	FSC_COUNT(sh->fc, evicted, 1);
}

static bool evict_idle(struct fsc_shard *sh, uint32_t now)
{
	int i;

	for (i = 0; i < IDLE_LOOKS && sh->e_used; i++) {
		struct fsc_entry *e;

		sh->hand = sh->hand % sh->e_used + 1;
		e = &sh->e[sh->hand];
		if ((e->flags & FSC_LIVE) && now > e->used && now - e->used > sh->fc->idle_s) {
			drop(sh, sh->hand);
			return true;
		}
	}
	return false;
}

/* Read again often enough to be kept? */
static bool proved(const struct fsc_shard *sh, const struct fsc_entry *e)
{
	uint64_t share = sh->space.max / sh->o_live;

	return e->freq >= (sh->o[e->owner].q[FSC_MAIN].units <= share ? 1 : 2);
}

bool fsc_evict(struct fsc_shard *sh, uint32_t now)
{
	uint32_t idx = FSC_NONE;
	int steps, q;

	if (evict_idle(sh, now))
		return true;
	for (steps = 0; steps < STEPS_MAX; steps++) {
		struct fsc_entry *e;

		q = sh->q_units[FSC_SMALL] > sh->space.max / SMALL_PART || !sh->q_units[FSC_MAIN] ? FSC_SMALL : FSC_MAIN;
		if (!sh->heap[q].n)
			return false;
		idx = sh->o[sh->heap[q].v[0]].q[q].oldest;
		e = &sh->e[idx];
		if (q == FSC_SMALL && proved(sh, e)) {
			e->freq = 0;
			q_move(sh, idx, FSC_MAIN);
		} else if (q == FSC_MAIN && e->freq > 0) {
			e->freq--;
			q_move(sh, idx, FSC_MAIN);
		} else {
			break;
		}
	}
	drop(sh, idx);
	return true;
}

void fsc_policy_release(struct fsc_shard *sh)
{
	free(sh->o);
	free(sh->o_chain);
	free(sh->heap[0].v);
	free(sh->heap[1].v);
	free(sh->ghost);
}
