/* The cache on disk: who may stay, what is known of users, and a disk in trouble.
 *
 * Of the bytes set, a part is for SQLite's journal (JOURNAL_*) and for what the
 * file system adds (SLACK); the database cannot grow beyond the rest.  Room is
 * made by giving up whole users, those not used for longest first; one with
 * records that are not in its log yet never goes. */
#include "metacache/metadisk-private.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { SLACK = 64 * 1024, JOURNAL_MIN = 256 * 1024, JOURNAL_MAX = 2 << 20, JOURNAL_PART = 8, USER_PART = 4, PAGES_MORE = 24, NOTES_MAX = 4096,
	ROW_PAGES = 8 /* that one changed row may touch */, FLUSH_S = 30, RETRY_S = 60 };

static int64_t mono(const struct metadisk *m)
{
	return clock_mono_us(m->clock);
}

static struct md_id id_of(const struct metadisk *m, const char *user)
{
	struct md_id id;

	crypto_generichash(id.b, MD_ID, (const unsigned char *)user, strlen(user), m->key, METADISK_KEY_BYTES);
	return id;
}

/* --- the disk, well or not; all under m->lock --- */

static void trouble(struct metadisk *m, const char *what, const struct err *err)
{
	m->n.degraded = true;
	if (!m->told)
		log_event(LOG_WARN, what, LF_S("dir", m->db.dir), LF_ERR(err), LF_END);
	m->told = true;
}

static void leave_alone(struct metadisk *m, const struct err *err)
{
	md_db_close(&m->db, false);
	m->closed_until = mono(m) + (int64_t)m->retry_s * 1000000;
	trouble(m, "cache of indexes: the disk cannot be used; it is tried again", err);
}

/* Is there a file to work with? */
static bool ready(struct metadisk *m)
{
	struct err e = ERR_INIT;

	m->db.steps = 0;
	if (m->db.db)
		return true;
	if (mono(m) < m->closed_until)
		return false;
	if (md_db_open(&m->db, &e) < 0) {
		leave_alone(m, &e);
		return false;
	}
	if (m->told)
		log_event(LOG_INF, "cache of indexes: the disk can be used again", LF_S("dir", m->db.dir), LF_END);
	m->told = m->n.degraded = false;
	m->no_growth_until = 0;
	return true;
}

/* After any answer of the database: what is to be done about it.  True: it was good. */
static bool well(struct metadisk *m, int rc)
{
	struct err e = ERR_INIT;

	if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW)
		return true;
	m->n.io_errors++;
	err_set(&e, ERR_IO, "metacache.db: %s", m->db.db ? sqlite3_errmsg(m->db.db) : sqlite3_errstr(rc));
	if ((rc & 0xff) == SQLITE_FULL) {
		m->no_growth_until = mono(m) + (int64_t)m->retry_s * 1000000;
		trouble(m, "cache of indexes: the disk is full; it does not grow now", &e);
	} else if (md_db_broken(rc)) {
		log_event(LOG_WARN, "cache of indexes is damaged: it starts empty", LF_S("dir", m->db.dir), LF_ERR(&e), LF_END);
		err_clear(&e);
		if (md_db_start_over(&m->db, &e) < 0)
			leave_alone(m, &e);
	} else {
		leave_alone(m, &e);
	}
	return false;
}

/* --- notes --- */

/* Under note_lock. */
static struct md_note *note_of(struct metadisk *m, const struct md_id *id)
{
	struct md_note *n = hmap_get(&m->notes, id, sizeof(*id));

	if (!n) {
		n = MEM_NEW(struct md_note);
		n->id = *id;
		hmap_put(&m->notes, id, sizeof(*id), n);
	}
	n->used = clock_wall_s(m->clock);
	n->changed = true;
	return n;
}

static void disk_note(struct obox_cache *c, const char *user, const struct obox_cache_note *told)
{
	struct metadisk *m = (struct metadisk *)c;
	struct md_id id = id_of(m, user);
	struct md_note *n;

	pthread_mutex_lock(&m->note_lock);
	n = note_of(m, &id);
	n->state = true;
	n->epoch = told->epoch;
	n->seq = told->seq;
	n->dirty = !told->dirty ? 0 : n->dirty ? n->dirty : n->used > 0 ? n->used : 1;
	pthread_mutex_unlock(&m->note_lock);
}

static void disk_used(struct obox_cache *c, const char *user)
{
	struct metadisk *m = (struct metadisk *)c;
	struct md_id id = id_of(m, user);

	pthread_mutex_lock(&m->note_lock);
	note_of(m, &id);
	pthread_mutex_unlock(&m->note_lock);
}

static bool is_dirty(struct metadisk *m, const struct md_id *id)
{
	struct md_note *n;
	bool dirty;

	pthread_mutex_lock(&m->note_lock);
	n = hmap_get(&m->notes, id, sizeof(*id));
	dirty = n && n->dirty;
	pthread_mutex_unlock(&m->note_lock);
	return dirty;
}

/* Those that changed, as a list of copies; the clean ones are forgotten here. */
static struct md_note *take_changed(struct metadisk *m, size_t *n_r)
{
	struct md_note *list = NULL;
	size_t cap = 0, n = 0, pos = 0, i;
	void *v;

	pthread_mutex_lock(&m->note_lock);
	while (hmap_next(&m->notes, &pos, NULL, NULL, &v)) {
		struct md_note *note = v;

		if (!note->changed)
			continue;
		note->changed = false;
		mem_grow(&list, &cap, n + 1, sizeof(*list));
		list[n++] = *note;
	}
	for (i = 0; i < n; i++)
		if (!list[i].dirty)
			free(hmap_del(&m->notes, &list[i].id, sizeof(list[i].id)));
	pthread_mutex_unlock(&m->note_lock);
	*n_r = n;
	return list;
}

/* --- room --- */

struct victim { struct metadisk *m; const struct md_id *not; };

static bool may_go(void *ctx, const struct md_id *id)
{
	struct victim *v = ctx;

	return memcmp(id, v->not, sizeof(*id)) != 0 && !is_dirty(v->m, id);
}

/* One user less.  False: there is none that may go. */
static bool evict_one(struct metadisk *m, const struct md_id *not)
{
	struct victim v = { m, not };
	struct md_user u;
	int rc = md_db_coldest(&m->db, may_go, &v, &u);

	if (rc == SQLITE_DONE) {
		pthread_mutex_lock(&m->note_lock);
		m->pressed = true;
		pthread_mutex_unlock(&m->note_lock);
		return false;
	}
	if (!well(m, rc) || !well(m, md_db_delete_user(&m->db, &u, m->batch)))
		return false;
	m->n.evicted++;
	return true;
}

static bool may_grow(const struct metadisk *m)
{
	return mono(m) >= m->no_growth_until;
}

static bool room_for_rows(struct metadisk *m)
{
	static const struct md_id nobody;

	while (m->db.db && md_db_free(&m->db, may_grow(m)) < PAGES_MORE)
		if (!evict_one(m, &nobody))
			return false;
	return m->db.db != NULL;
}

/* Those that could not be written are for the next time, unless something newer is known by then. */
static void take_back(struct metadisk *m, const struct md_note *list, size_t n)
{
	struct md_note *now;
	size_t i;

	pthread_mutex_lock(&m->note_lock);
	for (i = 0; i < n; i++) {
		now = hmap_get(&m->notes, &list[i].id, sizeof(list[i].id));
		if (!now && !m->db.db && !list[i].dirty)
			continue;	/* a disk that is away for long: when it was used last is not worth the memory */
		if (!now) {
			now = mem_dup(&list[i], sizeof(list[i]));
			hmap_put(&m->notes, &now->id, sizeof(now->id), now);
		}
		now->changed = true;
	}
	pthread_mutex_unlock(&m->note_lock);
}

static int clean_first(const void *a, const void *b)
{
	const struct md_note *x = a, *y = b;

	return (x->dirty != 0) - (y->dirty != 0);
}

/* Brings the catalogue up to date; a batch of clean ones needs no room, their rows are there.  Dirty ones for whom there
 * is none are kept in mind. */
static void flush(struct metadisk *m)
{
	const struct md_note **part;
	struct md_note *list;
	size_t n, i, k;

	m->last_flush = mono(m);
	list = take_changed(m, &n);
	if (n)
		qsort(list, n, sizeof(*list), clean_first);
	part = mem_calloc(m->batch, sizeof(*part));
	for (i = 0; i < n && ready(m); i += k) {
		for (k = 0; k < m->batch && i + k < n; k++)
			part[k] = &list[i + k];
		if ((part[k - 1]->dirty && !room_for_rows(m)) || !well(m, md_db_note(&m->db, part, k)))
			break;
	}
	if (i < n)
		take_back(m, list + i, n - i);
	free(part);
	free(list);
}

static bool make_room(struct metadisk *m, const struct md_id *id, size_t len)
{
	uint64_t need = len / (MD_PAGE - 4) + PAGES_MORE;
	bool first = true;

	while (m->db.db && md_db_free(&m->db, may_grow(m)) < need) {
		if (first)
			flush(m);	/* so that it is known who is cold */
		first = false;
		if (!m->db.db || !evict_one(m, id))
			return false;
	}
	return m->db.db != NULL;
}

/* Within what one user may have: its oldest objects go for newer ones. */
static bool fit_user(struct metadisk *m, const struct md_id *id, const char *name, size_t len)
{
	struct md_user u = { 0, 0 };
	int rc = md_db_find(&m->db, id, &u);

	if (rc == SQLITE_OK) {
		rc = md_db_delete(&m->db, &u, name);
		if (rc == SQLITE_OK)
			rc = md_db_find(&m->db, id, &u);
		while ((rc == SQLITE_OK || rc == SQLITE_DONE) && u.bytes && u.bytes + len > m->user_max)
			if ((rc = md_db_delete_oldest(&m->db, &u)) == SQLITE_DONE)
				break;
	}
	return well(m, rc) && len <= m->user_max;
}

/* --- what obox asks for --- */

static int disk_get(struct obox_cache *c, const char *user, const char *name, struct buf *sealed)
{
	struct metadisk *m = (struct metadisk *)c;
	struct md_id id = id_of(m, user);
	size_t before = sealed->len;
	int rc = SQLITE_DONE;
	bool hit;

	pthread_mutex_lock(&m->lock);
	if (ready(m) && !well(m, rc = md_db_get(&m->db, &id, name, sealed)))
		rc = SQLITE_DONE;
	hit = rc == SQLITE_OK && !sealed->failed;
	m->n.hits += hit;
	m->n.misses += !hit;
	m->n.hit_bytes += hit ? sealed->len - before : 0;
	pthread_mutex_unlock(&m->lock);
	if (!hit) {
		buf_truncate(sealed, before);
		sealed->failed = false;
		return 0;
	}
	disk_used(c, user);
	return 1;
}

static void disk_put(struct obox_cache *c, const char *user, const char *name, const void *sealed, size_t len)
{
	struct metadisk *m = (struct metadisk *)c;
	struct md_id id = id_of(m, user);
	int rc = SQLITE_FULL;

	pthread_mutex_lock(&m->lock);
	if (ready(m) && fit_user(m, &id, name, len) && make_room(m, &id, len)) {
		rc = md_db_put(&m->db, &id, name, sealed, len, clock_wall_s(m->clock));
		if (!well(m, rc))
			rc = SQLITE_FULL;
	}
	m->n.kept += rc == SQLITE_OK;
	m->n.refused += rc != SQLITE_OK;
	pthread_mutex_unlock(&m->lock);
	disk_used(c, user);
}

static void disk_drop(struct obox_cache *c, const char *user, const char *name)
{
	struct metadisk *m = (struct metadisk *)c;
	struct md_id id = id_of(m, user);
	struct md_user u;
	int rc = SQLITE_DONE;

	pthread_mutex_lock(&m->lock);
	if (ready(m))
		rc = md_db_find(&m->db, &id, &u);
	if (rc == SQLITE_OK)
		rc = name ? md_db_delete(&m->db, &u, name) : md_db_delete_user(&m->db, &u, m->batch);
	m->n.dropped += rc == SQLITE_OK;
	well(m, rc);
	pthread_mutex_unlock(&m->lock);
}

static void disk_keep(struct obox_cache *c, const char *user, bool (*named)(void *ctx, const char *name), void *ctx)
{
	struct metadisk *m = (struct metadisk *)c;
	struct md_id id = id_of(m, user);
	struct md_user u;
	int rc = SQLITE_DONE;

	pthread_mutex_lock(&m->lock);
	if (ready(m))
		rc = md_db_find(&m->db, &id, &u);
	if (rc == SQLITE_OK)
		rc = md_db_keep(&m->db, &u, named, ctx, m->batch);
	well(m, rc);
	pthread_mutex_unlock(&m->lock);
}

static void disk_tend(struct obox_cache *c)
{
	struct metadisk *m = (struct metadisk *)c;
	size_t waiting;

	pthread_mutex_lock(&m->note_lock);
	waiting = m->notes.n;
	pthread_mutex_unlock(&m->note_lock);
	pthread_mutex_lock(&m->lock);
	if (waiting && (waiting > NOTES_MAX || mono(m) - m->last_flush >= (int64_t)m->flush_s * 1000000))
		flush(m);
	pthread_mutex_unlock(&m->lock);
}

static bool disk_pressed(struct obox_cache *c)
{
	struct metadisk *m = (struct metadisk *)c;
	bool pressed;

	pthread_mutex_lock(&m->note_lock);
	pressed = m->pressed;
	m->pressed = false;
	pthread_mutex_unlock(&m->note_lock);
	return pressed;
}

static const struct obox_cache_ops disk_ops = {
	.get = disk_get, .put = disk_put, .drop = disk_drop, .keep = disk_keep, .note = disk_note, .used = disk_used, .tend = disk_tend, .pressed = disk_pressed,
};

/* --- life --- */

static void layout(struct metadisk *m)
{
	uint64_t journal = m->bytes / JOURNAL_PART;

	journal = journal < JOURNAL_MIN ? JOURNAL_MIN : journal > JOURNAL_MAX ? JOURNAL_MAX : journal;
	m->db.pages = (m->bytes - journal - SLACK) / MD_PAGE;
	m->user_max = m->db.pages * MD_PAGE / USER_PART;
	m->batch = (unsigned)(journal / MD_PAGE / ROW_PAGES);
}

int metadisk_open(const struct metadisk_config *cfg, struct obox_cache **c_r, struct err *err)
{
	static const char check[] = "check";
	struct metadisk *m;

	*c_r = NULL;
	if (!cfg->dir || !*cfg->dir || !cfg->key)
		return err_set(err, ERR_INVALID, "cache of indexes: no directory or no key");
	if (cfg->bytes < METADISK_BYTES_MIN || cfg->bytes > UINT64_C(1) << 43)
		return err_set(err, ERR_INVALID, "cache of indexes: %llu bytes: 1 MiB to 8 TiB are possible", (unsigned long long)cfg->bytes);
	if (sodium_init() < 0)
		return err_set(err, ERR_IO, "cache of indexes: libsodium does not start");
	m = MEM_NEW(struct metadisk);
	m->base.ops = &disk_ops;
	m->bytes = cfg->bytes;
	m->flush_s = cfg->flush_s ? cfg->flush_s : FLUSH_S;
	m->retry_s = cfg->retry_s ? cfg->retry_s : RETRY_S;
	m->clock = cfg->clock ? cfg->clock : &clock_system;
	memcpy(m->key, cfg->key, sizeof(m->key));
	crypto_generichash(m->db.check, MD_ID, (const unsigned char *)check, sizeof(check), m->key, sizeof(m->key));
	m->db.dir = mem_strdup(cfg->dir);
	m->db.dir_fd = m->db.lock_fd = -1;
	m->last_flush = mono(m);
	m->closed_until = INT64_MIN;
	pthread_mutex_init(&m->lock, NULL);
	pthread_mutex_init(&m->note_lock, NULL);
	layout(m);
	pthread_mutex_lock(&m->lock);
	(void)ready(m);
	pthread_mutex_unlock(&m->lock);
	*c_r = &m->base;
	return 0;
}

static void end(struct obox_cache **c, bool clean)
{
	struct metadisk *m = (struct metadisk *)*c;
	size_t pos = 0;
	void *v;

	if (!m)
		return;
	*c = NULL;
	if (clean && m->db.db)
		flush(m);
	md_db_close(&m->db, clean);
	while (hmap_next(&m->notes, &pos, NULL, NULL, &v))
		free(v);
	hmap_free(&m->notes);
	pthread_mutex_destroy(&m->note_lock);
	pthread_mutex_destroy(&m->lock);
	sodium_memzero(m->key, sizeof(m->key));
	free(m->db.dir);
	free(m);
}

void metadisk_close(struct obox_cache **c)
{
	end(c, true);
}

void metadisk_abandon(struct obox_cache **c)
{
	end(c, false);
}

void metadisk_stats(struct obox_cache *c, struct metadisk_stats *st)
{
	struct metadisk *m = (struct metadisk *)c;
	size_t pos = 0;
	void *v;

	pthread_mutex_lock(&m->lock);
	*st = m->n;
	st->bytes_max = m->bytes;
	m->db.steps = 0;
	if (m->db.db)
		md_db_count(&m->db, st);
	pthread_mutex_unlock(&m->lock);
	pthread_mutex_lock(&m->note_lock);
	while (hmap_next(&m->notes, &pos, NULL, NULL, &v))
		st->dirty += ((struct md_note *)v)->dirty != 0;
	pthread_mutex_unlock(&m->note_lock);
}

int metadisk_clean(struct obox_cache *c, struct err *err)
{
	struct metadisk *m = (struct metadisk *)c;
	int rc = 0;

	pthread_mutex_lock(&m->lock);
	if (ready(m))
		rc = md_db_start_over(&m->db, err);
	if (rc < 0)
		leave_alone(m, err);
	pthread_mutex_unlock(&m->lock);
	return rc;
}
