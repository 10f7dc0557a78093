/* Uploading: a user's records go from the journal to the user's own log, and
 * snapshots take the place of a log tail that has grown.
 *
 * Order of effects: segment, summary blocks and snapshots are put (lazily),
 * the store is synced, and only then root points at them.  A crash before
 * that leaves objects nobody refers to, and the journal still has the records. */
#include "obox/obox-private.h"

#include "base/log.h"

#include <inttypes.h>

enum { SNAP_MIN = 256 * 1024, SNAP_SEGMENTS = 32, SLOTS_MAX = 64 };

/* --- snapshots --- */

static void obsolete(struct upload *up, char *key)
{
	mem_grow(&up->obsolete, &up->cap_obsolete, up->n_obsolete + 1, sizeof(*up->obsolete));
	up->obsolete[up->n_obsolete++] = key;
}

struct pending_put { char *key; struct buf plain; struct obox_guid guid; size_t block; bool is_mbox, is_block, is_segment; };

struct snapshot_work {
	struct pending_put *puts;
	size_t n, cap;
};

static struct buf *add_put(struct snapshot_work *w, char *key)
{
	mem_grow(&w->puts, &w->cap, w->n + 1, sizeof(*w->puts));
	w->puts[w->n] = (struct pending_put){ .key = key, .plain = BUF_INIT(OBOX_BUNDLE_MAX) };
	return &w->puts[w->n++].plain;
}

/* Under u->lock: the bytes of every snapshot that is due, and the references to them. */
static void snapshot_encode(struct obox_user *u, struct upload *up, struct snapshot_work *w)
{
	struct buf *b, block = BUF_INIT(0);
	struct root_state *s = &u->st;
	size_t i, at;
	char *key;

	while ((key = sum_take(u, false, &block, &at)) != NULL) {
		*add_put(w, key) = block;
		w->puts[w->n - 1].block = at;
		w->puts[w->n - 1].is_block = true;
		buf_init(&block, 0);
	}
	for (i = 0; i < s->n_boxes; i++) {
		struct mbox *m = s->boxes[i];

		if (!m->loaded || !m->dirty)
			continue;
		/* not when an attempt that failed had this very name */
		if (m->snap.lsn && (m->snap.lsn != s->lsn || m->snap.epoch != u->man.epoch))
			obsolete(up, mbox_key(u, &m->guid, &m->snap));
		m->snap.lsn = s->lsn;
		m->snap.epoch = u->man.epoch;
		b = add_put(w, mbox_key(u, &m->guid, &m->snap));
		mbox_encode(m, b);
		crypto_generichash(m->snap.hash, 32, b->data, b->len, NULL, 0);
		m->dirty = false;
		w->puts[w->n - 1].guid = m->guid;
		w->puts[w->n - 1].is_mbox = true;
	}
	if (u->man.snap.lsn)
		obsolete(up, root_snapshot_key(u, &u->man.snap));
	up->man.snap.lsn = s->lsn;
	up->man.snap.epoch = u->man.epoch;
	b = add_put(w, root_snapshot_key(u, &up->man.snap));
	root_encode(s, b);
	crypto_generichash(up->man.snap.hash, 32, b->data, b->len, NULL, 0);
	up->man.snap_bytes = b->len;
}

/* --- segments --- */

/* How much of the tail may go: not behind a save whose object is not stored (nobody could say later that it
 * was not acknowledged) unless the record that takes it back goes along, and what was begun for this slot goes first. */
static uint64_t upload_cut(const struct obox_user *u, size_t *len_r)
{
	struct rd r = rd_init(u->tail.data, u->tail.len);
	uint64_t stop = u->st.lsn, lsn;
	size_t i, len;
	bool again = true;

	if (u->started.lsn) {
		*len_r = u->started.len;
		return u->started.lsn;
	}
	while (again)
		for (again = false, i = 0; i < u->n_flying && !sim_broken("flying-save-uploaded"); i++) {
			const struct flying *f = &u->flying[i];

			if (f->lsn > stop || (f->undone && f->undone <= stop))
				continue;
			stop = f->lsn - 1;
			again = true;	/* what takes an earlier one back may now be left out */
		}
	*len_r = u->tail.len;
	if (stop == u->st.lsn)
		return stop;
	for (lsn = u->man.log_lsn; lsn < stop; lsn++)
		rd_blob(&r, &len);
	*len_r = (size_t)(r.p - u->tail.data);
	return stop;
}

static void segment_encode(struct obox_user *u, struct upload *up, uint64_t lsn, size_t len, struct buf *out)
{
	segment_encode_head(u->man.log_seq + 1, u->man.epoch, u->man.log_lsn + 1, lsn - u->man.log_lsn, u->man.log_hash, out);
	buf_add(out, u->tail.data, len);
	u->started = (struct started){ len, lsn };
	up->tail_len = len;
	up->man.log_seq = u->man.log_seq + 1;
	up->man.log_lsn = lsn;
	crypto_generichash(up->man.log_hash, 32, out->data, out->len, NULL, 0);
}

/* What is in the slot: 1 our own bytes, 0 a void segment of an owner before us (which came late, or whose taker was overtaken by a
 * release) or nothing that can be read, ERR_FENCED somebody takes this user over or has done so. */
static int segment_there(struct upload *up, const char *key, struct err *err)
{
	struct buf there = BUF_INIT(OBOX_BUNDLE_MAX);
	uint64_t seq, epoch = 0, first, count;
	const unsigned char *prev;
	unsigned char hash[32];
	struct rd r;
	int rc = bundle_get(up->u->ob, key, &there, hash, err);

	if (rc == ERR_CORRUPT) {	/* of nobody's; whose this log is decides the swap of root */
		err_clear(err);
		buf_free(&there);
		return 0;
	}
	if (rc == 0 && !memcmp(hash, up->man.log_hash, 32)) {
		rc = 1;
	} else if (rc == 0) {
		r = rd_init(there.data, there.len);
		rc = segment_decode_head(&r, &seq, &epoch, &first, &count, &prev, err);
		if (rc == 0 && epoch >= up->man.epoch)
			rc = err_set(err, ERR_FENCED, "%s was written by another node: this one is no longer the owner", key);
	}
	buf_free(&there);
	return rc;
}

/* The slot of the segment is taken: its bytes go into the first behind it that is not held by a void one. */
static int segment_settle(struct upload *up, struct pending_put *p, struct buf *sealed, struct err *err)
{
	struct obox_user *u = up->u;
	struct rd r = rd_init(p->plain.data, p->plain.len);
	struct buf seg = BUF_INIT(OBOX_BUNDLE_MAX);
	uint64_t seq, epoch, first, count;
	const unsigned char *prev;
	int rc = segment_decode_head(&r, &seq, &epoch, &first, &count, &prev, err), i;

	for (i = 0; rc == 0 && i < SLOTS_MAX; i++) {
		rc = segment_there(up, p->key, err);
		if (rc != 0)
			break;
		log_event(LOG_INF, "log slot holds a segment that is void: the next one is used", LF_S("user", u->name),
			  LF_S("object", p->key), LF_END);
		free(p->key);
		p->key = segment_key(u, ++up->man.log_seq);
		buf_clear(&seg);
		segment_encode_head(up->man.log_seq, epoch, first, count, prev, &seg);
		buf_add(&seg, r.p, rd_left(&r));
		crypto_generichash(up->man.log_hash, 32, seg.data, seg.len, NULL, 0);
		buf_clear(sealed);
		rc = bundle_seal(u->ob, p->key, seg.data, seg.len, sealed, err);
		if (rc == 0)
			rc = obox_put_once(u->ob->cfg.index_store, p->key, sealed->data, sealed->len, NULL, err);
		if (rc == 0)
			rc = 1;
		else if (rc == ERR_EXISTS)
			rc = 0;
	}
	buf_free(&seg);
	return rc == 0 ? err_set(err, ERR_BUSY, "%s: no free slot", p->key) : rc < 0 ? rc : 0;
}

/* --- putting --- */

static int put_result(struct upload *up, struct pending_put *p, const struct objstore_op *op, struct buf *sealed, struct err *err)
{
	int rc = op->rc;

	if (rc == ERR_EXISTS && p->is_segment)
		return segment_settle(up, p, sealed, err);
	if (rc == ERR_EXISTS)	/* same epoch, same record: an earlier attempt of ours */
		return 0;
	return rc < 0 ? err_set(err, rc, "%s: %s", p->key, op->err.msg) : 0;
}

/* Its snapshot is not there; it may have been deleted meanwhile. */
static void dirty_again(struct obox_user *u, const struct obox_guid *guid)
{
	struct mbox *m;

	pthread_mutex_lock(&u->lock);
	m = root_by_guid(&u->st, guid);
	if (m)
		m->dirty = true;
	pthread_mutex_unlock(&u->lock);
}

/* All of them at once. */
static int put_all(struct snapshot_work *w, struct upload *up, struct err *err)
{
	struct obox_user *u = up->u;
	struct objstore_op *ops = mem_calloc(w->n, sizeof(*ops));
	struct buf *sealed = mem_calloc(w->n, sizeof(*sealed));
	struct iovec *iov = mem_calloc(w->n, sizeof(*iov));
	size_t i;
	int rc = 0, r;

	for (i = 0; i < w->n && rc == 0; i++) {
		buf_init(&sealed[i], OBOX_BUNDLE_MAX);
		rc = bundle_seal(u->ob, w->puts[i].key, w->puts[i].plain.data, w->puts[i].plain.len, &sealed[i], err);
		iov[i] = (struct iovec){ sealed[i].data, sealed[i].len };
		ops[i] = (struct objstore_op){ .verb = OBJ_PUT, .key = w->puts[i].key, .cond = OBJ_CREATE, .iov = &iov[i], .n_iov = 1, .lazy = true };
	}
	if (rc == 0)
		obox_run_many(u->ob->cfg.index_store, ops, w->n);
	for (i = 0, r = rc; i < w->n; i++) {
		struct pending_put *p = &w->puts[i];
		int one = r < 0 ? r : put_result(up, p, &ops[i], &sealed[i], err);

		if (one < 0 && (rc == 0 || one == ERR_FENCED))
			rc = one;
		if (one == 0 && !p->is_block)
			cached_put(u, p->key, &sealed[i]);
		if (one < 0 && p->is_mbox)
			dirty_again(u, &p->guid);
		if (p->is_block)
			sum_stored(u, p->block, one == 0);
		buf_free(&p->plain);
		buf_free(&sealed[i]);
		free(p->key);
	}
	free(w->puts);
	free(ops);
	free(sealed);
	free(iov);
	return rc;
}

static void upload_release(struct upload *up)
{
	size_t i;

	for (i = 0; i < up->n_obsolete; i++)
		free(up->obsolete[i]);
	free(up->obsolete);
	pthread_mutex_unlock(&up->u->upload_lock);
}

void upload_abandon(struct upload *up)
{
	upload_release(up);
}

static void stop_user(struct obox_user *u, const struct err *err)
{
	log_event(LOG_ERROR, "another node took this user: nothing more is acknowledged here", LF_S("user", u->name), LF_ERR(err), LF_END);
	pthread_mutex_lock(&u->lock);
	u->lost = true;
	user_stop(u);
	pthread_mutex_unlock(&u->lock);
}

/* Under both locks: what goes, as bytes. */
static int upload_encode(struct obox_user *u, bool force_snapshot, struct upload *up, struct snapshot_work *w, struct err *err)
{
	struct buf *seg;
	uint64_t lsn;
	size_t len;
	bool snap;

	if (u->broken)
		return err_set(err, ERR_FENCED, "user %s: an earlier error stopped writing", u->name);
	lsn = upload_cut(u, &len);
	snap = force_snapshot || u->tail.len + u->tail_bytes_since_snap > SNAP_MIN + u->man.snap_bytes / 2 ||
	       u->man.log_seq - u->man.snap_seq >= SNAP_SEGMENTS;
	if (lsn > u->man.log_lsn) {
		seg = add_put(w, segment_key(u, u->man.log_seq + 1));
		w->puts[w->n - 1].is_segment = true;
		segment_encode(u, up, lsn, len, seg);
		up->any = true;
	}
	if (snap && lsn == u->st.lsn && u->st.lsn > u->man.snap.lsn) {
		snapshot_encode(u, up, w);
		up->snap = up->any = true;
	}
	if (up->release && lsn != u->st.lsn)
		return err_set(err, ERR_BUSY, "user %s: records are left", u->name);
	return 0;
}

int upload_prepare(struct obox_user *u, bool release, bool force_snapshot, struct upload *up, struct err *err)
{
	struct snapshot_work w = { NULL, 0, 0 };
	int rc, rc2;

	memset(up, 0, sizeof(*up));
	up->u = u;
	up->release = release;
	pthread_mutex_lock(&u->upload_lock);
	rc = sum_store_full(u, err);
	pthread_mutex_lock(&u->lock);
	up->man = u->man;
	up->any = u->limbo;
	if (rc == 0)
		rc = upload_encode(u, force_snapshot, up, &w, err);
	if (release) {
		up->man.incarnation = 0;
		up->any = true;
	}
	pthread_mutex_unlock(&u->lock);
	if (w.n) {
		rc2 = put_all(&w, up, err);
		rc = rc < 0 ? rc : rc2;
		if (rc2 == ERR_FENCED)
			stop_user(u, err);
	}
	if (up->snap) {
		up->man.snap_seq = up->man.log_seq;
		memcpy(up->man.snap_hash_of_log, up->man.log_hash, 32);
	}
	if (rc < 0)
		upload_abandon(up);
	return rc;
}

/* Is what is there an earlier write of ours, whose answer was lost?  1: then *etag is its; 0 somebody else's, <0 not known. */
static int own_earlier_root(struct obox_user *u, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct manifest man;
	char now[OBJ_ETAG_MAX];
	int rc = root_get(u->ob, u->prefix, &man, now, err);

	if (rc < 0)
		return rc;
	if (rc == 0 || man.epoch != u->man.epoch || strcmp(man.node, u->man.node) != 0 ||
	    (man.incarnation && man.incarnation != u->man.incarnation))
		return 0;
	memcpy(etag, now, sizeof(now));
	return 1;
}

static int swap_root(struct upload *up, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct obox_user *u = up->u;
	struct err e = ERR_INIT;
	int rc, own, i;

	for (i = 0; i < 3; i++) {
		err_clear(&e);
		rc = root_put(u->ob, u->prefix, &up->man, etag, &e);
		if (rc != ERR_CONFLICT)
			break;
		err_clear(&e);
		own = own_earlier_root(u, etag, &e);
		if (own == 0)
			break;
		rc = own < 0 ? own : ERR_BUSY;
	}
	return rc < 0 ? err_set(err, rc, "%s", e.msg) : 0;
}

/* Those that the log has, with what takes them back. */
static void forget_undone(struct obox_user *u)
{
	size_t i, n = 0;

	for (i = 0; i < u->n_flying; i++)
		if (!u->flying[i].undone || u->flying[i].undone > u->man.log_lsn)
			u->flying[n++] = u->flying[i];
	u->n_flying = n;
}

static void took(struct upload *up, const char *etag)
{
	struct obox_user *u = up->u;

	pthread_mutex_lock(&u->lock);
	memcpy(u->etag, etag, sizeof(u->etag));
	if (up->man.snap.lsn != u->man.snap.lsn)
		u->tail_bytes_since_snap = 0;
	else
		u->tail_bytes_since_snap += up->tail_len;
	u->man = up->man;
	u->limbo = false;
	u->started = (struct started){ 0, 0 };
	forget_undone(u);
	u->dirty_us = clock_mono_us(u->ob->cfg.clock);
	buf_consume(&u->tail, up->tail_len);
	cached_note(u);
	pthread_mutex_unlock(&u->lock);
}

int upload_commit(struct upload *up, struct err *err)
{
	struct obox_user *u = up->u;
	char etag[OBJ_ETAG_MAX];
	struct err e = ERR_INIT;
	int rc = 0;

	memcpy(etag, u->etag, sizeof(etag));
	if (up->any) {
		if (up->release) {	/* until the answer is here, root may already be anybody's */
			pthread_mutex_lock(&u->lock);
			u->limbo = true;
			pthread_mutex_unlock(&u->lock);
		}
		rc = swap_root(up, etag, &e);
		if (rc == ERR_CONFLICT)
			stop_user(u, &e);
		if (rc == 0) {
			bool snap = up->man.snap.lsn != u->man.snap.lsn;

			took(up, etag);
			if (snap)
				cached_tidy(u);
			objstore_delete_many(u->ob->cfg.index_store, (const char *const *)up->obsolete, up->n_obsolete, NULL);
		}
	}
	upload_release(up);
	return rc < 0 ? err_set(err, rc, "%s", e.msg) : 0;
}
