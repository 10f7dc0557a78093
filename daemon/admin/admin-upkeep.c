/* Admin: checking, repairing, bringing back, looking in. */
#include "daemon/admin/admin-private.h"

#include "base/clock.h"
#include "base/mem.h"
#include "fscache/fscache.h"
#include "metacache/metacache.h"
#include "metacache/metadisk.h"

#include <inttypes.h>

enum { PROGRESS_US = 200000 };

static void report(void *ctx, bool damage, const char *text)
{
	admin_line(ctx, json_pack("{s:s, s:b}", "finding", text, "damage", damage));
}

static void progress(void *ctx, uint64_t done, uint64_t total)
{
	struct admin *a = ctx;
	int64_t now = clock_mono_us(&clock_system);

	if (now - a->last_progress < PROGRESS_US)
		return;
	a->last_progress = now;
	admin_line(a, json_pack("{s:I, s:I}", "progress", (json_int_t)done, "total", (json_int_t)total));
	conn_flush(a->c);
}

static void check_done(struct admin *a, const struct obox_check *c)
{
	admin_done(a, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "messages", (json_int_t)c->messages, "damaged", (json_int_t)c->damaged,
				"missing", (json_int_t)c->missing, "orphans", (json_int_t)c->orphans, "repaired", (json_int_t)c->repaired,
				"forgotten", (json_int_t)c->forgotten));
}

int admin_user_check(struct admin *a, struct err *err)
{
	struct obox_check c = { .report = report, .progress = progress, .ctx = a, .bodies = admin_bool(a, "bodies"), .repair = admin_bool(a, "repair") };
	int rc = obox_check(a->user, &c, err);

	if (rc == 0)
		check_done(a, &c);
	return rc;
}

int admin_user_scrub(struct admin *a, struct err *err)
{
	struct obox_scrub s = { .report = report, .progress = progress, .ctx = a, .bodies = admin_bool(a, "bodies"), .repair = admin_bool(a, "repair") };
	const char *user;
	int rc = admin_need_str(a, "user", &user, err);

	if (rc == 0)
		rc = obox_scrub(a->c->env->obox, user, &s, err);
	if (rc == 0)
		admin_done(a, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "user", user, "messages", (json_int_t)s.messages, "objects", (json_int_t)s.objects,
					"bytes", (json_int_t)s.bytes, "missing", (json_int_t)s.missing, "damaged", (json_int_t)s.damaged, "orphans", (json_int_t)s.orphans,
					"bundles", (json_int_t)s.bundles, "repaired", (json_int_t)s.repaired, "served", s.served));
	return rc;
}

static int log_text(void *ctx, const char *text, size_t len)
{
	struct admin *a = ctx;

	admin_line(a, json_pack("{s:I}", "bytes", (json_int_t)len));
	buf_add(&a->c->out, text, len);
	conn_flush(a->c);
	return 0;
}

int admin_user_log(struct admin *a, struct err *err)
{
	int rc = obox_flush(a->c->env->obox, admin_str(a, "user"), err);

	if (rc == 0)
		rc = obox_log_show(a->c->env->obox, admin_str(a, "user"), admin_bool(a, "json"), log_text, a, err);
	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}

int admin_user_rebuild(struct admin *a, struct err *err)
{
	struct obox_check c = { .report = report, .progress = progress, .ctx = a };
	int rc = obox_rebuild(a->c->env->obox, admin_str(a, "user"), admin_bool(a, "force"), &c, err);

	if (rc == 0)
		check_done(a, &c);
	return rc;
}

int admin_user_gc(struct admin *a, struct err *err)
{
	struct obox_gc_stats st;
	int rc = obox_gc(a->user, admin_bool(a, "ignore_grace"), &st, err);

	if (rc == 0)
		admin_done(a, json_pack("{s:I, s:I, s:I}", "objects", (json_int_t)st.objects, "bytes", (json_int_t)st.bytes, "kept", (json_int_t)st.kept));
	return rc;
}

int admin_user_flush(struct admin *a, struct err *err)
{
	/* without a user: all of this worker */
	int rc = obox_flush(a->c->env->obox, admin_str(a, "user"), err);

	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}

int admin_user_expunged(struct admin *a, struct err *err)
{
	struct obox_lost *list;
	size_t n, i;
	int rc = obox_expunged_list(a->user, &list, &n, err);

	if (rc < 0)
		return rc;
	for (i = 0; i < n; i++)
		admin_line(a, json_pack("{s:s, s:I, s:I, s:I}", "mailbox", list[i].mailbox, "uid", (json_int_t)list[i].uid,
					"expunged", (json_int_t)list[i].expunged, "size", (json_int_t)list[i].msg.size));
	obox_expunged_free(list, n);
	admin_done(a, NULL);
	return 0;
}

int admin_user_undelete(struct admin *a, struct err *err)
{
	uint64_t n;
	int rc = obox_undelete(a->user, admin_str(a, "mailbox"), admin_int(a, "since", 0), admin_str(a, "to"), &n, err);

	if (rc == 0)
		admin_done(a, json_pack("{s:I}", "messages", (json_int_t)n));
	return rc;
}

static int one_user(void *ctx, const char *user)
{
	admin_line(ctx, json_pack("{s:s}", "user", user));
	return 0;
}

int admin_users(struct admin *a, struct err *err)
{
	int rc = obox_users(a->c->env->obox, admin_str(a, "after"), one_user, a, err);

	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}

/* Objects of a root that are no bundles are known by their names. */
static bool is_bundle(const char *key)
{
	const char *last = strrchr(key, '/');

	return !(last && !strcmp(last, "/root")) && !strstr(key, "/m/");
}

static int dump(struct admin *a, const char *key, struct buf *text, struct err *err)
{
	int rc = is_bundle(key) ? metacache_dump(a->c->env->obox, key, admin_bool(a, "json"), text, err) : 0;

	return rc == 0 ? obox_dump(a->c->env->obox, key, admin_bool(a, "json"), text, err) : rc < 0 ? rc : 0;
}

int admin_dump(struct admin *a, struct err *err)
{
	struct buf text = BUF_INIT(0);
	const char *key;
	int rc = admin_need_str(a, "key", &key, err);

	if (rc == 0)
		rc = dump(a, key, &text, err);
	if (rc == 0) {
		admin_line(a, json_pack("{s:I}", "bytes", (json_int_t)text.len));
		buf_add(&a->c->out, text.data, text.len);
		admin_done(a, NULL);
	}
	buf_free(&text);
	return rc;
}

static void one_session(void *ctx, const struct conn *c, int64_t since)
{
	json_t *line = json_pack("{s:s, s:s, s:s, s:s, s:b, s:I}", "session", c->id, "protocol", c->ops->name, "user", c->user ? c->user : "",
				 "peer", c->peer, "tls", c->tls, "since", (json_int_t)since);

	if (c->to_node)
		json_object_set_new(line, "to", json_string(c->to_node));
	if (c->from_node)
		json_object_set_new(line, "from", json_string(c->from_node));
	admin_line(ctx, line);
}

int admin_who(struct admin *a, struct err *err)
{
	if (a->c->env->each_session)
		a->c->env->each_session(a->c->env, one_session, a);
	admin_done(a, NULL);
	return 0;
}

int admin_ping(struct admin *a, struct err *err)
{
	admin_done(a, json_pack("{s:s}", "version", a->c->env->version ? a->c->env->version : ""));
	return 0;
}

/* --- the caches on disk: of messages, of indexes --- */

static json_t *cache_line(const struct fscache_stats *st)
{
	return json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "cache", 1, "bytes_max", (json_int_t)st->bytes_max,
			 "bytes_used", (json_int_t)st->bytes_used, "bytes_disk", (json_int_t)st->bytes_disk, "blocks", (json_int_t)st->blocks,
			 "users", (json_int_t)st->owners, "hits", (json_int_t)st->hits, "partial", (json_int_t)st->partial, "misses", (json_int_t)st->misses,
			 "hit_bytes", (json_int_t)st->hit_bytes, "fetched_bytes", (json_int_t)st->fetched_bytes, "fetches", (json_int_t)st->fetches,
			 "admitted", (json_int_t)st->admitted, "refused", (json_int_t)st->refused, "evicted", (json_int_t)st->evicted,
			 "corrupt", (json_int_t)st->corrupt, "io_errors", (json_int_t)st->io_errors, "degraded", st->degraded);
}

static json_t *metadisk_line(const struct metadisk_stats *st)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "bytes_max", (json_int_t)st->bytes_max,
			 "bytes_used", (json_int_t)st->bytes_used, "bytes_disk", (json_int_t)st->bytes_disk, "users", (json_int_t)st->users,
			 "dirty", (json_int_t)st->dirty, "objects", (json_int_t)st->objects, "hits", (json_int_t)st->hits, "misses", (json_int_t)st->misses,
			 "hit_bytes", (json_int_t)st->hit_bytes, "kept", (json_int_t)st->kept, "refused", (json_int_t)st->refused,
			 "evicted", (json_int_t)st->evicted, "dropped", (json_int_t)st->dropped, "io_errors", (json_int_t)st->io_errors, "degraded", st->degraded);
}

int admin_cache_status(struct admin *a, struct err *err)
{
	struct metadisk_stats ms;
	struct fscache_stats st;
	json_t *line;

	if (a->c->env->fscache) {
		fscache_stats(a->c->env->fscache, &st);
		line = cache_line(&st);
	} else {
		line = json_pack("{s:b}", "cache", 0);
	}
	if (a->c->env->metadisk) {
		metadisk_stats(a->c->env->metadisk, &ms);
		json_object_set_new(line, "metacache", metadisk_line(&ms));
	}
	admin_line(a, line);
	admin_done(a, NULL);
	return 0;
}

int admin_cache_clean(struct admin *a, struct err *err)
{
	int rc = a->c->env->fscache ? fscache_clean(a->c->env->fscache, err) : 0;

	if (rc == 0 && a->c->env->metadisk)
		rc = metadisk_clean(a->c->env->metadisk, err);
	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}
