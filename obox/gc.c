/* What happens to mail after it was expunged: kept for the grace period,
 * brought back on demand, and in the end its objects are deleted. */
#include "obox/obox-private.h"

#include "base/b64.h"
#include "base/log.h"

#include <inttypes.h>

enum { UNNAMED_AGE_S = 86400 };
#define COLLECT_US (INT64_C(3600) * 1000000)

/* --- the trash --- */

static const char *guid_name(struct root_state *s, const struct obox_guid *g)
{
	struct mbox *m = root_by_guid(s, g);
	size_t i;

	if (m)
		return m->name;
	for (i = 0; i < s->n_dead; i++)
		if (!memcmp(s->dead[i].guid.b, g->b, sizeof(g->b)))
			return s->dead[i].name;
	return "";
}

int obox_expunged_list(struct obox_user *u, struct obox_lost **list_r, size_t *n_r, struct err *err)
{
	struct obox_lost *list;
	size_t i;

	pthread_mutex_lock(&u->lock);
	list = mem_calloc(u->st.n_trash, sizeof(*list));
	for (i = 0; i < u->st.n_trash; i++) {
		const struct trash *t = &u->st.trash[i];

		list[i] = (struct obox_lost){ mem_strdup(guid_name(&u->st, &t->guid)), t->msg.uid, t->time, t->msg };
	}
	*n_r = u->st.n_trash;
	pthread_mutex_unlock(&u->lock);
	*list_r = list;
	return 0;
}

void obox_expunged_free(struct obox_lost *list, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		free(list[i].mailbox);
	free(list);
}

/* One mailbox's worth of trash, picked under the lock. */
static bool pick_guid(struct root_state *s, const char *mailbox, int64_t since, struct obox_guid *g_r, struct seqset *uids)
{
	bool found = false;
	size_t i;

	seqset_clear(uids);
	for (i = 0; i < s->n_trash; i++) {
		const struct trash *t = &s->trash[i];

		if (t->time < since || (mailbox && strcmp(guid_name(s, &t->guid), mailbox) != 0))
			continue;
		if (!found)
			*g_r = t->guid;
		else if (memcmp(g_r->b, t->guid.b, sizeof(g_r->b)) != 0)
			continue;
		found = true;
		seqset_add(uids, t->msg.uid, t->msg.uid);
	}
	return found;
}

static int undelete_some(struct obox_user *u, const struct obox_guid *g, const struct seqset *uids, const char *to_name, uint64_t *n_r, struct err *err)
{
	struct rec r = { .type = REC_UNDELETE, .guid = *g, .uids = uids };
	uint64_t ticket = 0, n = seqset_count(uids);
	struct mbox *to = NULL;
	uint32_t first = 0;
	int rc;

	pthread_mutex_lock(&u->lock);
	rc = user_mbox(u, to_name, true, &to, err);
	if (rc == 0) {
		r.to = to->guid;
		r.to_uid = first = to->uidnext;
		r.to_modseq = root_next_modseq(&u->st, to);
		r.time = clock_wall_s(u->ob->cfg.clock);
		rc = user_commit(u, &r, NULL, 1, &ticket, err);
	}
	if (rc == 0) {
		seqset_add(&to->pending, first, first + (uint32_t)n - 1);
		to->pins++;
	}
	pthread_mutex_unlock(&u->lock);
	if (rc < 0)
		return rc;
	rc = user_wait(u, ticket, err);
	pthread_mutex_lock(&u->lock);
	if (rc == 0)
		user_show(u, to, first, first + (uint32_t)n - 1);
	else if (rc == ERR_UNAVAILABLE)
		user_late(u, ticket, &to->guid, first, first + (uint32_t)n - 1);
	else
		user_stop(u);
	mbox_unpin(to);
	pthread_mutex_unlock(&u->lock);
	*n_r += n;
	return rc;
}

int obox_undelete(struct obox_user *u, const char *mailbox, int64_t since, const char *to, uint64_t *n_r, struct err *err)
{
	struct seqset uids = SEQSET_INIT;
	char *name = NULL, *norm = NULL;
	struct obox_guid g;
	int rc = mailbox ? obox_name_normalise(mailbox, &norm, err) : 0;

	*n_r = 0;
	while (rc == 0) {
		bool more;

		pthread_mutex_lock(&u->lock);
		more = pick_guid(&u->st, norm, since, &g, &uids);
		free(name);
		name = more ? mem_strdup(to ? to : guid_name(&u->st, &g)) : NULL;
		pthread_mutex_unlock(&u->lock);
		if (!more)
			break;
		if (!*name) {
			free(name);
			name = mem_strdup("Recovered");
		}
		rc = obox_mailbox_create(u, name, 0, err);
		if (rc == ERR_EXISTS) {
			err_clear(err);
			rc = 0;
		}
		if (rc == 0)
			rc = undelete_some(u, &g, &uids, name, n_r, err);
	}
	free(name);
	free(norm);
	seqset_free(&uids);
	return rc;
}

/* --- collecting --- */

struct doomed { struct obox_oid *oids; size_t n, cap; uint64_t bytes; };

/* Objects whose every reference is trash up to cutoff. */
static void pick_doomed(struct root_state *s, int64_t cutoff, struct doomed *d)
{
	struct hmap dropped = HMAP_INIT;
	size_t i;

	for (i = 0; i < s->n_trash; i++) {
		const struct obox_oid *oid = &s->trash[i].msg.oid;
		uintptr_t n;

		if (s->trash[i].time > cutoff)
			continue;
		n = (uintptr_t)hmap_get(&dropped, oid, sizeof(*oid)) + 1;
		hmap_put(&dropped, oid, sizeof(*oid), (void *)n);
		if (n < root_refs(s, oid))
			continue;
		mem_grow(&d->oids, &d->cap, d->n + 1, sizeof(*d->oids));
		d->oids[d->n++] = *oid;
		d->bytes += s->trash[i].msg.size;
	}
	hmap_free(&dropped);
}

/* The record first: a crash between leaves objects nobody refers to, which
 * obox_check finds; never a reference to nothing. */
static int purge(struct obox_user *u, int64_t cutoff, struct obox_gc_stats *st, struct err *err)
{
	struct rec r = { .type = REC_PURGE, .time = cutoff };
	struct doomed d = { NULL, 0, 0, 0 };
	uint64_t ticket = 0;
	size_t i, before;
	int rc = 0;

	pthread_mutex_lock(&u->lock);
	before = u->st.n_trash;
	pick_doomed(&u->st, cutoff, &d);
	for (i = 0; i < before && u->st.trash[i].time > cutoff; i++)
		;
	if (i < before)
		rc = user_commit(u, &r, NULL, 1, &ticket, err);
	st->kept = u->st.n_trash;
	pthread_mutex_unlock(&u->lock);
	if (rc == 0 && i < before)
		rc = user_wait(u, ticket, err);
	for (i = 0; rc == 0 && i < d.n; i++) {
		char *key = user_key(u, "m/%08" PRIx64 "-%08" PRIx64, d.oids[i].epoch, d.oids[i].n);

		rc = objstore_delete(u->ob->cfg.mail_store, key, err);
		st->objects++;
		free(key);
	}
	st->bytes += d.bytes;
	free(d.oids);
	return rc;
}

struct sweep {
	struct obox_user *u;
	struct hmap keep;
	int64_t older;
	uint64_t snap_seq;
	struct obox_gc_stats *st;
	struct err *err;
};

static void keep(struct sweep *w, char *key)
{
	hmap_put(&w->keep, key, strlen(key), w);
	free(key);
}

static int sweep_one(void *ctx, const struct objstore_list_item *item)
{
	struct sweep *w = ctx;
	const char *rest = item->key + strlen(w->u->prefix);
	bool old = item->mtime < w->older;

	if (!strncmp(rest, "log/", 4))
		old = old && strtoull(rest + 4, NULL, 10) <= w->snap_seq;
	if (!old || hmap_gets(&w->keep, item->key))
		return 0;
	if (!obox_may_delete(w->u))	/* what is there may be the next owner's */
		return err_set(w->err, ERR_UNAVAILABLE, "user %s: it is not certain now whose it is", w->u->name);
	w->st->objects++;
	w->st->bytes += item->size;
	return objstore_delete(w->u->ob->cfg.index_store, item->key, w->err);
}

/* Snapshots, segments and summary blocks that the root no longer needs. */
static int sweep(struct obox_user *u, int64_t older, struct obox_gc_stats *st, struct err *err)
{
	static const char *const kinds[] = { "log/", "idx/", "sum/" };
	struct sweep w = { .u = u, .older = older, .st = st, .err = err };
	size_t i;
	int rc = 0;

	pthread_mutex_lock(&u->upload_lock);	/* nothing is being written meanwhile */
	pthread_mutex_lock(&u->lock);
	w.snap_seq = u->man.snap_seq;
	keep(&w, user_key(u, "idx/user/%010" PRIx64 ".%08" PRIx64, u->man.snap.lsn, u->man.snap.epoch));
	for (i = 0; i < u->st.n_boxes; i++) {
		const struct mbox *m = u->st.boxes[i];
		char hex[33];

		hex_encode(hex, m->guid.b, sizeof(m->guid.b));
		keep(&w, user_key(u, "idx/%s/%010" PRIx64 ".%08" PRIx64, hex, m->snap.lsn, m->snap.epoch));
	}
	for (i = 0; i < u->st.n_blocks; i++)
		if (u->st.blocks[i].n)
			keep(&w, user_key(u, "sum/%08" PRIx64 "-%08" PRIx64, u->st.blocks[i].epoch, u->st.blocks[i].n));
	pthread_mutex_unlock(&u->lock);
	for (i = 0; i < MEM_COUNT(kinds) && rc == 0; i++) {
		char *prefix = user_key(u, "%s", kinds[i]);

		rc = objstore_each(u->ob->cfg.index_store, prefix, sweep_one, &w, err);
		free(prefix);
	}
	pthread_mutex_unlock(&u->upload_lock);
	hmap_free(&w.keep);
	return rc;
}

/* Saves on their way keep a snapshot from being taken. */
static int flush_snapshots(struct obox_user *u, struct err *err)
{
	uint64_t lsn;
	int rc;

	pthread_mutex_lock(&u->lock);
	lsn = u->st.lsn;
	pthread_mutex_unlock(&u->lock);
	rc = obox_flush(u->ob, u->name, err);
	pthread_mutex_lock(&u->lock);
	if (rc == 0 && u->man.snap.lsn < lsn)
		rc = err_set(err, ERR_BUSY, "user %s: mail is being saved: try again", u->name);
	pthread_mutex_unlock(&u->lock);
	return rc;
}

int obox_gc(struct obox_user *u, bool ignore_grace, struct obox_gc_stats *st, struct err *err)
{
	int64_t now = clock_wall_s(u->ob->cfg.clock);
	int64_t cutoff = ignore_grace ? now : now - (int64_t)u->ob->cfg.grace_s;
	size_t blocks = 0;
	int rc;

	memset(st, 0, sizeof(*st));
	rc = purge(u, cutoff, st, err);
	if (rc == 0)
		rc = user_compact(u, &blocks, err);
	if (rc == 0 && blocks)
		rc = flush_snapshots(u, err);	/* none in the store names them any more */
	if (rc == 0)
		rc = sweep(u, now - (ignore_grace ? 0 : UNNAMED_AGE_S), st, err);
	return rc;
}

/* --- by itself --- */

static bool is_due(struct obox_user *u)
{
	int64_t cutoff = clock_wall_s(u->ob->cfg.clock) - (int64_t)u->ob->cfg.grace_s;
	bool any = false;
	size_t i;

	pthread_mutex_lock(&u->lock);
	for (i = 0; i < u->st.n_trash && !any && !u->broken; i++)
		any = u->st.trash[i].time <= cutoff;
	pthread_mutex_unlock(&u->lock);
	return any;
}

/* Open users that were not looked at for an hour, each with a reference. */
static struct obox_user **pin_unseen(struct obox *ob, size_t *n_r)
{
	int64_t now = clock_mono_us(ob->cfg.clock);
	struct obox_user **list = NULL;
	size_t cap = 0, n = 0, pos = 0;
	void *v;

	pthread_mutex_lock(&ob->lock);
	while (hmap_next(&ob->users, &pos, NULL, NULL, &v)) {
		struct obox_user *u = v;

		if (u->phase != USER_OPEN || (u->last_gc_us && now - u->last_gc_us < COLLECT_US))
			continue;
		u->last_gc_us = now;
		u->refs++;
		mem_grow(&list, &cap, n + 1, sizeof(struct obox_user *));
		list[n++] = u;
	}
	pthread_mutex_unlock(&ob->lock);
	*n_r = n;
	return list;
}

void obox_collect(struct obox *ob)
{
	struct obox_user **list;
	size_t n, i;

	list = pin_unseen(ob, &n);
	for (i = 0; i < n; i++) {
		struct obox_gc_stats st;
		struct err e = ERR_INIT;

		if (!atomic_load(&ob->stopping) && is_due(list[i])) {
			if (obox_gc(list[i], false, &st, &e) < 0)
				log_event(LOG_WARN, "expunged mail cannot be deleted now: it is tried again", LF_S("user", list[i]->name), LF_ERR(&e), LF_END);
			else
				log_event(LOG_INF, "expunged mail deleted", LF_S("user", list[i]->name), LF_U("objects", st.objects), LF_U("bytes", st.bytes),
					  LF_END);
		}
		obox_user_close(&list[i]);
	}
	free(list);
}
