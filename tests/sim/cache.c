/* A node's disk, as far as obox keeps copies there (obox/cache.h): it stays from life to life, and is not to be believed.
 *
 * While a node lives, things are refused or forgotten. Between two lives the disk may be lost, some bits of it may turn, two
 * objects of a user may change places, and what it held some lives ago may come back. */
#include "tests/sim/sim.h"

#include "base/buf.h"
#include "obox/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct copy {
	char *user, *name;
	struct buf data;
	bool bad;		/* not what was put there last */
};
struct disk {
	struct copy *all;
	size_t n, cap;
};
struct sim_cache {
	struct obox_cache base;
	struct life *life;
	struct disk now, then;
	unsigned refuse, forget;	/* in 1/1000 */
};

/* --- a disk --- */

static void copy_free(struct copy *c)
{
	buf_free(&c->data);
	free(c->user);
	free(c->name);
}

static void disk_clear(struct disk *d)
{
	while (d->n)
		copy_free(&d->all[--d->n]);
}

static struct copy *disk_find(struct disk *d, const char *user, const char *name)
{
	size_t i;

	for (i = 0; i < d->n; i++)
		if (!strcmp(d->all[i].user, user) && !strcmp(d->all[i].name, name))
			return &d->all[i];
	return NULL;
}

static void disk_remove(struct disk *d, struct copy *c)
{
	copy_free(c);
	*c = d->all[--d->n];
}

static void disk_add(struct disk *d, const char *user, const char *name, const void *data, size_t len, bool bad)
{
	struct copy *c = disk_find(d, user, name);

	if (c)
		disk_remove(d, c);
	mem_grow(&d->all, &d->cap, d->n + 1, sizeof(*d->all));
	c = &d->all[d->n++];
	*c = (struct copy){ .user = mem_strdup(user), .name = mem_strdup(name), .bad = bad };
	buf_init(&c->data, 0);
	buf_add(&c->data, data, len);
}

static void disk_copy(struct disk *to, const struct disk *from, bool bad)
{
	size_t i;

	for (i = 0; i < from->n; i++)
		disk_add(to, from->all[i].user, from->all[i].name, from->all[i].data.data, from->all[i].data.len, bad || from->all[i].bad);
}

/* --- what obox asks for --- */

static int cache_get(struct obox_cache *base, const char *user, const char *name, struct buf *sealed)
{
	struct sim_cache *c = (struct sim_cache *)base;
	struct copy *it;

	sched_preempt();
	it = disk_find(&c->now, user, name);
	if (!it)
		return 0;
	if (rnd_permille(c->forget)) {
		disk_remove(&c->now, it);
		return 0;
	}
	if (it->bad)
		c->life->cache_lied = sim_now;
	buf_add(sealed, it->data.data, it->data.len);
	return 1;
}

static void cache_put(struct obox_cache *base, const char *user, const char *name, const void *sealed, size_t len)
{
	struct sim_cache *c = (struct sim_cache *)base;

	sched_preempt();
	if (!rnd_permille(c->refuse))
		disk_add(&c->now, user, name, sealed, len, false);
}

static void cache_drop(struct obox_cache *base, const char *user, const char *name)
{
	struct sim_cache *c = (struct sim_cache *)base;
	size_t i;

	sched_preempt();
	for (i = c->now.n; i-- > 0;)
		if (!strcmp(c->now.all[i].user, user) && (!name || !strcmp(c->now.all[i].name, name)))
			disk_remove(&c->now, &c->now.all[i]);
}

static void cache_keep(struct obox_cache *base, const char *user, bool (*named)(void *ctx, const char *name), void *ctx)
{
	struct sim_cache *c = (struct sim_cache *)base;
	size_t i;

	sched_preempt();
	for (i = c->now.n; i-- > 0;)
		if (!strcmp(c->now.all[i].user, user) && !named(ctx, c->now.all[i].name))
			disk_remove(&c->now, &c->now.all[i]);
}

static void cache_note(struct obox_cache *base, const char *user, const struct obox_cache_note *n)
{
}

static void cache_used(struct obox_cache *base, const char *user)
{
}

static void cache_tend(struct obox_cache *base)
{
}

static bool cache_pressed(struct obox_cache *base)
{
	return rnd_permille(20);
}

static const struct obox_cache_ops ops = { cache_get, cache_put, cache_drop, cache_keep, cache_note, cache_used, cache_tend, cache_pressed };

/* --- between two lives --- */

static void turn_bits(struct disk *d)
{
	size_t i;

	for (i = 0; i < d->n; i++) {
		struct copy *c = &d->all[i];

		if (!c->data.len || rnd_below(3))
			continue;
		c->bad = true;
		if (rnd_below(4))
			c->data.data[rnd_below(c->data.len)] ^= (unsigned char)(1 << rnd_below(8));
		else
			buf_truncate(&c->data, (size_t)rnd_below(c->data.len));
	}
}

static void swap_two(struct disk *d)
{
	struct copy *a, *b;
	struct buf data;

	if (d->n < 2)
		return;
	a = &d->all[rnd_below(d->n)];
	b = &d->all[rnd_below(d->n)];
	data = a->data;
	a->data = b->data;
	b->data = data;
	a->bad = b->bad = true;
}

struct obox_cache *cache_of_life(struct life *l)
{
	struct sim_cache *c = l->node->cache;

	if (!c) {
		c = l->node->cache = MEM_NEW(struct sim_cache);
		c->base.ops = &ops;
		c->refuse = rnd_below(3) ? 0 : (unsigned)rnd_below(300);
		c->forget = rnd_below(3) ? 0 : (unsigned)rnd_below(300);
	}
	c->life = l;
	switch (rnd_below(12)) {
	case 0:
		trace("node %s: its disk is lost", l->node->name);
		disk_clear(&c->now);
		break;
	case 1:
	case 2:
		trace("node %s: bits of its disk turned", l->node->name);
		turn_bits(&c->now);
		break;
	case 3:
		trace("node %s: objects on its disk changed places", l->node->name);
		swap_two(&c->now);
		break;
	case 4:
	case 5:
		trace("node %s: its disk is as it was before", l->node->name);
		if (!rnd_below(2))
			disk_clear(&c->now);
		disk_copy(&c->now, &c->then, true);
		break;
	default:
		break;
	}
	if (!rnd_below(3)) {
		disk_clear(&c->then);
		disk_copy(&c->then, &c->now, true);
	}
	return &c->base;
}
