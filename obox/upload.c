/* Uploading: a user's records go from the journal to the user's own log, and
 * snapshots take the place of a log tail that has grown.
 *
 * Order of effects: segment, summary blocks and snapshots are put (lazily),
 * the store is synced, and only then root points at them.  A crash before
 * that leaves objects nobody refers to, and the journal still has the records. */
#include "obox/obox-private.h"

#include "base/b64.h"
#include "base/log.h"

#include <inttypes.h>

enum { SNAP_MIN = 256 * 1024 };

static char *segment_key(const struct obox_user *u, uint64_t seq)
{
	return user_key(u, "log/%010" PRIu64, seq);
}

static char *mbox_key(const struct obox_user *u, const struct obox_guid *g, const struct snapshot_ref *ref)
{
	char hex[33];

	hex_encode(hex, g->b, sizeof(g->b));
	return user_key(u, "idx/%s/%010" PRIx64 ".%08" PRIx64, hex, ref->lsn, ref->epoch);
}

static char *root_snapshot_key(const struct obox_user *u, const struct snapshot_ref *ref)
{
	return user_key(u, "idx/user/%010" PRIx64 ".%08" PRIx64, ref->lsn, ref->epoch);
}

/* --- loading --- */

int user_load_mbox(struct obox_user *u, struct mbox *m, struct err *err)
{
	struct buf plain = BUF_INIT(OBOX_BUNDLE_MAX);
	unsigned char hash[32];
	char *key;
	int rc;

	if (m->loaded)
		return 0;
	if (m->snap.lsn == 0)
		return err_set(err, ERR_CORRUPT, "mailbox %s of %s has no snapshot: run culverctl rebuild", m->name, u->name);
	key = mbox_key(u, &m->guid, &m->snap);
	rc = bundle_get(u->ob, key, &plain, hash, err);
	if (rc == 0 && memcmp(hash, m->snap.hash, sizeof(hash)) != 0)
		rc = err_set(err, ERR_CORRUPT, "%s: not the snapshot that the root names", key);
	if (rc == 0)
		rc = mbox_decode(m, plain.data, plain.len, err);
	if (rc < 0)
		log_event(LOG_ERROR, "mailbox index cannot be read: run culverctl rebuild", LF_S("user", u->name), LF_S("mailbox", m->name),
			  LF_S("object", key), LF_ERR(err), LF_END);
	buf_free(&plain);
	free(key);
	return rc;
}

static int apply_segment(struct obox_user *u, uint64_t want_seq, struct buf *plain, struct err *err)
{
	struct rd r = rd_init(plain->data, plain->len);
	const unsigned char *prev;
	uint64_t seq, epoch, first, count;
	struct rec rec;
	int rc = segment_decode_head(&r, &seq, &epoch, &first, &count, &prev, err);

	if (rc == 0 && (seq != want_seq || memcmp(prev, u->man.log_hash, 32) != 0))
		rc = err_set(err, ERR_CORRUPT, "log segment %" PRIu64 " does not follow the one before", want_seq);
	if (rc == 0 && first != u->st.lsn + 1)
		rc = err_set(err, ERR_CORRUPT, "log segment %" PRIu64 " begins with record %" PRIu64 ", expected %" PRIu64, seq, first, u->st.lsn + 1);
	while (rc == 0) {
		rc = rec_decode(&r, &rec);
		if (rc < 0)
			err_set(err, rc, "log segment %" PRIu64 ": record cannot be read", seq);
		if (rc <= 0)
			break;
		rc = root_apply(&u->st, &rec, err);
		rec_release(&rec);
		count--;
	}
	if (rc == 0 && count != 0)
		rc = err_set(err, ERR_CORRUPT, "log segment %" PRIu64 " has another number of records than it says", seq);
	return rc;
}

/* Snapshot, then the segments behind it; man is the root as it was found. */
int user_load(struct obox_user *u, const struct manifest *man, struct err *err)
{
	struct buf plain = BUF_INIT(OBOX_BUNDLE_MAX);
	unsigned char hash[32];
	uint64_t seq;
	char *key;
	int rc = 0;

	if (man->snap.lsn) {
		key = root_snapshot_key(u, &man->snap);
		rc = bundle_get(u->ob, key, &plain, hash, err);
		if (rc == 0 && memcmp(hash, man->snap.hash, sizeof(hash)) != 0)
			rc = err_set(err, ERR_CORRUPT, "%s: not the snapshot that the root names", key);
		if (rc == 0)
			rc = root_decode(&u->st, plain.data, plain.len, err);
		free(key);
	}
	memcpy(u->man.log_hash, man->snap_hash_of_log, 32);
	for (seq = man->snap_seq + 1; rc == 0 && seq <= man->log_seq; seq++) {
		key = segment_key(u, seq);
		buf_clear(&plain);
		rc = bundle_get(u->ob, key, &plain, hash, err);
		if (rc == 0)
			rc = apply_segment(u, seq, &plain, err);
		memcpy(u->man.log_hash, hash, 32);
		u->tail_bytes_since_snap += plain.len;
		free(key);
	}
	if (rc == 0 && u->st.lsn != man->log_lsn)
		rc = err_set(err, ERR_CORRUPT, "log of %s ends with record %" PRIu64 ", root says %" PRIu64, u->name, u->st.lsn, man->log_lsn);
	buf_free(&plain);
	return rc;
}

/* --- snapshots --- */

static void obsolete(struct upload *up, char *key)
{
	mem_grow(&up->obsolete, &up->cap_obsolete, up->n_obsolete + 1, sizeof(*up->obsolete));
	up->obsolete[up->n_obsolete++] = key;
}

struct pending_put { char *key; struct buf plain; struct mbox *m; size_t block; bool is_block; };

struct snapshot_work {
	struct pending_put *puts;
	size_t n, cap;
};

static struct buf *add_put(struct snapshot_work *w, char *key)
{
	mem_grow(&w->puts, &w->cap, w->n + 1, sizeof(*w->puts));
	w->puts[w->n] = (struct pending_put){ key, BUF_INIT(OBOX_BUNDLE_MAX), NULL, 0, false };
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
		if (m->snap.lsn)
			obsolete(up, mbox_key(u, &m->guid, &m->snap));
		m->snap.lsn = s->lsn;
		m->snap.epoch = u->man.epoch;
		b = add_put(w, mbox_key(u, &m->guid, &m->snap));
		mbox_encode(m, b);
		crypto_generichash(m->snap.hash, 32, b->data, b->len, NULL, 0);
		m->dirty = false;
		w->puts[w->n - 1].m = m;
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

static int snapshot_put(struct obox_user *u, struct snapshot_work *w, struct err *err)
{
	size_t i;
	int rc = 0;

	for (i = 0; i < w->n; i++) {
		struct pending_put *p = &w->puts[i];

		if (rc == 0)
			rc = bundle_put(u->ob, p->key, p->plain.data, p->plain.len, true, NULL, err);
		if (rc == ERR_EXISTS)	/* same epoch, same record: an earlier attempt of ours */
			rc = 0;
		if (rc < 0 && p->m) {
			pthread_mutex_lock(&u->lock);
			p->m->dirty = true;
			pthread_mutex_unlock(&u->lock);
		}
		if (p->is_block)
			sum_stored(u, p->block, rc == 0);
		buf_free(&p->plain);
		free(p->key);
	}
	free(w->puts);
	return rc;
}

/* --- segments --- */

static void segment_encode(struct obox_user *u, struct upload *up, struct buf *out)
{
	segment_encode_head(u->man.log_seq + 1, u->man.epoch, u->man.log_lsn + 1, u->st.lsn - u->man.log_lsn, u->man.log_hash, out);
	buf_add(out, u->tail.data, u->tail.len);
	up->tail_len = u->tail.len;
	up->man.log_seq = u->man.log_seq + 1;
	up->man.log_lsn = u->st.lsn;
	crypto_generichash(up->man.log_hash, 32, out->data, out->len, NULL, 0);
}

/* A name that exists is ours when it holds these bytes; otherwise somebody else writes this log. */
static int segment_put(struct obox *ob, const char *key, const struct buf *plain, const unsigned char hash[32], struct err *err)
{
	struct buf there = BUF_INIT(OBOX_BUNDLE_MAX);
	unsigned char other[32];
	int rc = bundle_put(ob, key, plain->data, plain->len, true, NULL, err);

	if (rc != ERR_EXISTS)
		return rc;
	err_clear(err);
	rc = bundle_get(ob, key, &there, other, err);
	if (rc == 0 && memcmp(hash, other, 32) != 0)
		rc = err_set(err, ERR_FENCED, "%s was written by another node: this one is no longer the owner", key);
	buf_free(&there);
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

static void stop_user(struct obox_user *u)
{
	pthread_mutex_lock(&u->lock);
	user_stop(u);
	pthread_mutex_unlock(&u->lock);
}

int upload_prepare(struct obox_user *u, bool release, bool force_snapshot, struct upload *up, struct err *err)
{
	struct snapshot_work w = { NULL, 0, 0 };
	struct buf seg = BUF_INIT(OBOX_BUNDLE_MAX);
	bool snap;
	char *key;
	int rc;

	memset(up, 0, sizeof(*up));
	up->u = u;
	pthread_mutex_lock(&u->upload_lock);
	rc = sum_store_full(u, err);
	pthread_mutex_lock(&u->lock);
	snap = force_snapshot || u->tail.len + u->tail_bytes_since_snap > SNAP_MIN + u->man.snap_bytes / 2;
	up->man = u->man;
	if (rc == 0 && u->broken)
		rc = err_set(err, ERR_FENCED, "user %s: an earlier error stopped writing", u->name);
	if (rc == 0 && u->st.lsn > u->man.log_lsn) {
		segment_encode(u, up, &seg);
		up->any = true;
	}
	if (rc == 0 && snap && u->st.lsn > u->man.snap.lsn) {
		snapshot_encode(u, up, &w);
		up->man.snap_seq = up->man.log_seq;
		memcpy(up->man.snap_hash_of_log, up->man.log_hash, 32);
		up->any = true;
	}
	if (release) {
		up->man.incarnation = 0;
		up->any = true;
	}
	pthread_mutex_unlock(&u->lock);
	if (rc == 0 && seg.len) {
		key = segment_key(u, up->man.log_seq);
		rc = segment_put(u->ob, key, &seg, up->man.log_hash, err);
		free(key);
		if (rc == ERR_FENCED)
			stop_user(u);
	}
	buf_free(&seg);
	if (w.n) {
		int rc2 = snapshot_put(u, &w, err);

		rc = rc < 0 ? rc : rc2;
	}
	if (rc < 0)
		upload_abandon(up);
	return rc;
}

int upload_commit(struct upload *up, struct err *err)
{
	struct obox_user *u = up->u;
	struct buf root = BUF_INIT(8192);
	char *key = user_key(u, "root"), etag[OBJ_ETAG_MAX];
	size_t i;
	int rc;

	memcpy(etag, u->etag, sizeof(etag));
	rc = up->any ? manifest_encode(&up->man, u->ob->cfg.keys, key, &root, err) : 0;
	if (rc == 0 && up->any)
		rc = objstore_put(u->ob->cfg.index_store, key, root.data, root.len, OBJ_MATCH, etag, err);
	if (rc == ERR_CONFLICT) {
		stop_user(u);
		log_event(LOG_ERROR, "another node took this user: nothing more is acknowledged here", LF_S("user", u->name), LF_ERR(err), LF_END);
	}
	if (rc == 0 && up->any) {
		pthread_mutex_lock(&u->lock);
		memcpy(u->etag, etag, sizeof(etag));
		if (up->man.snap.lsn != u->man.snap.lsn)
			u->tail_bytes_since_snap = 0;
		else
			u->tail_bytes_since_snap += up->tail_len;
		u->man = up->man;
		buf_consume(&u->tail, up->tail_len);
		pthread_mutex_unlock(&u->lock);
		for (i = 0; i < up->n_obsolete; i++)
			objstore_delete(u->ob->cfg.index_store, up->obsolete[i], NULL);
	}
	buf_free(&root);
	free(key);
	upload_release(up);
	return rc;
}
