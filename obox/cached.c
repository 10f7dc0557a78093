/* obox's side of the cache on disk (cache.h): what is read through it, and
 * what of a user stays in it.
 *
 * Only users that this node owns are cached.  Whatever comes from the cache
 * goes through the same checks as what comes from the store: unsealing, with
 * the key's own name, and the hash by which something nearer to root names it. */
#include "obox/obox-private.h"

#include "base/log.h"

#include <inttypes.h>

static struct obox_cache *cache_of(const struct obox_user *u)
{
	return u->cached ? u->ob->cfg.cache : NULL;
}

static const char *name_of(const struct obox_user *u, const char *key)
{
	return key + strlen(u->prefix);
}

bool cached_get(struct obox_user *u, const char *key, struct buf *sealed)
{
	struct obox_cache *c = cache_of(u);

	return c && c->ops->get(c, u->name, name_of(u, key), sealed) == 1;
}

void cached_put(struct obox_user *u, const char *key, const struct buf *sealed)
{
	struct obox_cache *c = cache_of(u);

	if (c)
		c->ops->put(c, u->name, name_of(u, key), sealed->data, sealed->len);
}

void cached_forget(struct obox_user *u)
{
	struct obox_cache *c = cache_of(u);

	if (c)
		c->ops->drop(c, u->name, NULL);
}

/* 1: plain has the bytes of that hash; 0: not to be had from the cache. */
static int from_cache(struct obox_user *u, const char *key, const unsigned char want[32], struct buf *plain)
{
	struct buf sealed = BUF_INIT(OBOX_BUNDLE_MAX);
	struct obox_cache *c = cache_of(u);
	struct err e = ERR_INIT;
	unsigned char hash[32];
	int rc = 0;

	if (cached_get(u, key, &sealed)) {
		rc = bundle_unseal(u->ob, key, &sealed, plain, hash, &e);
		if (rc == 0 && memcmp(hash, want, sizeof(hash)) != 0)
			rc = err_set(&e, ERR_CORRUPT, "%s: not the one that is named", key);
		if (rc < 0) {
			log_event(LOG_INF, "what was cached on disk is of no use: it is read from the store", LF_S("user", u->name), LF_ERR(&e), LF_END);
			c->ops->drop(c, u->name, name_of(u, key));
			buf_clear(plain);
		}
		rc = rc == 0;
	}
	buf_free(&sealed);
	return rc;
}

int cached_bundle(struct obox_user *u, const char *key, const unsigned char want[32], struct buf *plain, struct err *err)
{
	struct buf sealed = BUF_INIT(OBOX_BUNDLE_MAX);
	unsigned char hash[32];
	int rc;

	if (from_cache(u, key, want, plain))
		return 0;
	rc = objstore_get(u->ob->cfg.index_store, key, &sealed, NULL, err);
	if (rc < 0)
		err_prefix(err, "%s", key);
	else
		rc = bundle_unseal(u->ob, key, &sealed, plain, hash, err);
	if (rc == 0 && memcmp(hash, want, sizeof(hash)) != 0)
		rc = err_set(err, ERR_CORRUPT, "%s: not the snapshot that the root names", key);
	if (rc == 0)
		cached_put(u, key, &sealed);
	buf_free(&sealed);
	return rc;
}

/* --- what stays --- */

static void add_name(struct hmap *names, char *key, const char *prefix)
{
	const char *name = key + strlen(prefix);

	hmap_put(names, name, strlen(name), names);
	free(key);
}

static bool is_named(void *names, const char *name)
{
	return hmap_gets(names, name) != NULL;
}

void cached_tidy(struct obox_user *u)
{
	struct obox_cache *c = cache_of(u);
	struct hmap names = HMAP_INIT;
	uint64_t seq;
	size_t i;

	if (!c)
		return;
	pthread_mutex_lock(&u->lock);
	add_name(&names, root_snapshot_key(u, &u->man.snap), u->prefix);
	for (seq = u->man.snap_seq + 1; seq <= u->man.log_seq; seq++)
		add_name(&names, segment_key(u, seq), u->prefix);
	for (i = 0; i < u->st.n_boxes; i++)
		add_name(&names, mbox_key(u, &u->st.boxes[i]->guid, &u->st.boxes[i]->snap), u->prefix);
	pthread_mutex_unlock(&u->lock);
	c->ops->keep(c, u->name, is_named, &names);
	hmap_free(&names);
}

/* --- what is known of the user --- */

void cached_note(struct obox_user *u)
{
	struct obox_cache *c = cache_of(u);
	struct obox_cache_note n = { u->man.epoch, u->man.log_seq, u->tail.len > 0 && !u->lost };

	if (c)
		c->ops->note(c, u->name, &n);
}

void cached_used(struct obox_user *u)
{
	struct obox_cache *c = cache_of(u);

	if (c)
		c->ops->used(c, u->name);
}

void cached_tend(struct obox *ob)
{
	if (ob->cfg.cache)
		ob->cfg.cache->ops->tend(ob->cfg.cache);
}

bool cached_pressed(struct obox *ob)
{
	return ob->cfg.cache && ob->cfg.cache->ops->pressed(ob->cfg.cache);
}

void cached_evict(struct obox *ob, const char *user)
{
	if (ob->cfg.cache)
		ob->cfg.cache->ops->drop(ob->cfg.cache, user, NULL);
}
