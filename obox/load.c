/* Loading: what root names becomes a state in memory.
 *
 * Root names the last segment of the log by the hash of its bytes, and each
 * segment the one before it, back to the one that the user snapshot covers.
 * Only that chain is the log.  Between its members may lie segments of owners
 * who were taken over (a put that arrived late, a taker that was overtaken):
 * nobody's hash leads to them, so they are void, whatever they say, and
 * whether they can be read does not matter. */
#include "obox/obox-private.h"

#include "base/b64.h"
#include "base/log.h"

#include <inttypes.h>

enum { SEGMENTS_MAX = 1 << 20 };

char *segment_key(const struct obox_user *u, uint64_t seq)
{
	return user_key(u, "log/%010" PRIu64, seq);
}

char *mbox_key(const struct obox_user *u, const struct obox_guid *g, const struct snapshot_ref *ref)
{
	char hex[33];

	hex_encode(hex, g->b, sizeof(g->b));
	return user_key(u, "idx/%s/%010" PRIx64 ".%08" PRIx64, hex, ref->lsn, ref->epoch);
}

char *root_snapshot_key(const struct obox_user *u, const struct snapshot_ref *ref)
{
	return user_key(u, "idx/user/%010" PRIx64 ".%08" PRIx64, ref->lsn, ref->epoch);
}

int user_load_mbox(struct obox_user *u, struct mbox *m, struct err *err)
{
	struct buf plain = BUF_INIT(OBOX_BUNDLE_MAX);
	char *key;
	int rc;

	if (m->loaded)
		return 0;
	if (m->snap.lsn == 0)
		return err_set(err, ERR_CORRUPT, "mailbox %s of %s has no snapshot: run culverctl rebuild", m->name, u->name);
	key = mbox_key(u, &m->guid, &m->snap);
	rc = cached_bundle(u, key, m->snap.hash, &plain, err);
	if (rc == 0)
		rc = mbox_decode(m, plain.data, plain.len, err);
	if (rc < 0)	/* a store that is away is no damage */
		log_event(err_is_temporary(rc) ? LOG_WARN : LOG_ERROR,
			  err_is_temporary(rc) ? "mailbox index cannot be read now" : "mailbox index cannot be read: run culverctl rebuild",
			  LF_S("user", u->name), LF_S("mailbox", m->name), LF_S("object", key), LF_ERR(err), LF_END);
	buf_free(&plain);
	free(key);
	return rc;
}

/* A member of the chain; r stands at its first record. */
static int apply_records(struct obox_user *u, uint64_t seq, struct rd r, uint64_t first, uint64_t count, struct err *err)
{
	struct rec rec;
	int rc = 0;

	if (first != u->st.lsn + 1)
		return err_set(err, ERR_CORRUPT, "log segment %" PRIu64 " begins with record %" PRIu64 ", expected %" PRIu64, seq, first, u->st.lsn + 1);
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

struct piece {
	char *key;
	struct buf sealed, plain;
	bool cached;
	int rc;			/* <0: it could not be read, and why */
	struct err err;
	unsigned char hash[32];
	/* of a segment */
	bool member;		/* of the chain */
	uint64_t first, count;
	const unsigned char *prev;
	struct rd records;
};
struct fetch {	/* what a root is made of: the snapshot (or none), then segments */
	struct piece *p;
	size_t n, n_cached;
	bool snap;
};

/* What the cache does not have comes from the store, all at once. */
static void fetch_start(struct obox_user *u, const struct manifest *man, bool cache, struct fetch *f)
{
	struct objstore_op *ops;
	size_t i, k = 0;

	f->n_cached = 0;
	f->snap = man->snap.lsn != 0;
	f->n = (size_t)(man->log_seq - man->snap_seq) + f->snap;
	f->p = mem_calloc(f->n, sizeof(*f->p));
	ops = mem_calloc(f->n, sizeof(*ops));
	for (i = 0; i < f->n; i++) {
		struct piece *p = &f->p[i];

		buf_init(&p->sealed, OBOX_BUNDLE_MAX);
		buf_init(&p->plain, OBOX_BUNDLE_MAX);
		p->key = f->snap && i == 0 ? root_snapshot_key(u, &man->snap) : segment_key(u, man->snap_seq + 1 + i - f->snap);
		p->cached = cache && cached_get(u, p->key, &p->sealed);
		f->n_cached += p->cached;
		if (!p->cached)
			ops[k++] = (struct objstore_op){ .verb = OBJ_GET, .key = p->key, .out = &p->sealed };
	}
	obox_run_many(u->ob->cfg.index_store, ops, k);
	for (i = k = 0; i < f->n; i++) {
		if (f->p[i].cached)
			continue;
		f->p[i].rc = ops[k].rc;
		f->p[i].err = ops[k++].err;
	}
	free(ops);
}

/* Opens each; what a segment says of itself. */
static void fetch_open(struct obox_user *u, const struct manifest *man, struct fetch *f)
{
	size_t i;

	for (i = 0; i < f->n; i++) {
		struct piece *p = &f->p[i];
		uint64_t seq, epoch;

		if (p->rc == 0)
			p->rc = bundle_unseal(u->ob, p->key, &p->sealed, &p->plain, p->hash, &p->err);
		if (p->rc < 0 || (f->snap && i == 0))
			continue;
		p->records = rd_init(p->plain.data, p->plain.len);
		p->rc = segment_decode_head(&p->records, &seq, &epoch, &p->first, &p->count, &p->prev, &p->err);
		if (p->rc == 0 && seq != man->snap_seq + 1 + i - f->snap)
			p->rc = err_set(&p->err, ERR_CORRUPT, "log segment says that it is number %" PRIu64, seq);
	}
}

/* Follows the hashes from what root names back to what the snapshot covers. */
static int fetch_chain(const struct obox_user *u, const struct manifest *man, struct fetch *f, struct err *err)
{
	const unsigned char *want = man->log_hash;
	size_t i = f->n, bad = f->n;

	while (i-- > f->snap && memcmp(want, man->snap_hash_of_log, 32) != 0) {
		struct piece *p = &f->p[i];

		if (p->rc == 0 && !memcmp(p->hash, want, 32)) {
			p->member = true;
			want = p->prev;
			bad = f->n;	/* those it leads past are void */
		} else if (p->rc < 0 && bad == f->n) {
			bad = i;
		}
	}
	if (!memcmp(want, man->snap_hash_of_log, 32))
		return 0;
	if (bad < f->n)
		return err_set(err, f->p[bad].rc, "%s: %s", f->p[bad].key, f->p[bad].err.msg);
	return err_set(err, ERR_CORRUPT, "log of %s: its segments do not lead from the root's, %" PRIu64 ", back to that of the snapshot, %" PRIu64,
		       u->name, man->log_seq, man->snap_seq);
}

/* They led to what root names. */
static void fetch_keep(struct obox_user *u, const struct fetch *f)
{
	size_t i;

	for (i = 0; i < f->n; i++)
		if (!f->p[i].cached && f->p[i].rc == 0)
			cached_put(u, f->p[i].key, &f->p[i].sealed);
}

static void fetch_end(struct fetch *f)
{
	size_t i;

	for (i = 0; i < f->n; i++) {
		buf_free(&f->p[i].sealed);
		buf_free(&f->p[i].plain);
		free(f->p[i].key);
	}
	free(f->p);
}

/* Snapshot, then the segments behind it. */
static int load_pieces(struct obox_user *u, const struct manifest *man, struct fetch *f, struct err *err)
{
	const struct piece *snap = f->snap ? &f->p[0] : NULL;
	size_t i;
	int rc = 0;

	fetch_open(u, man, f);
	if (snap && snap->rc < 0)
		rc = err_set(err, snap->rc, "%s: %s", snap->key, snap->err.msg);
	else if (snap && memcmp(snap->hash, man->snap.hash, sizeof(snap->hash)) != 0)
		rc = err_set(err, ERR_CORRUPT, "%s: not the snapshot that the root names", snap->key);
	if (rc == 0 && snap)
		rc = root_decode(&u->st, snap->plain.data, snap->plain.len, err);
	if (rc == 0)
		rc = fetch_chain(u, man, f, err);
	for (i = f->snap; rc == 0 && i < f->n; i++) {
		const struct piece *p = &f->p[i];

		if (!p->member)
			continue;
		rc = apply_records(u, man->snap_seq + 1 + i - f->snap, p->records, p->first, p->count, err);
		u->tail_bytes_since_snap += p->plain.len;
	}
	if (rc == 0 && u->st.lsn != man->log_lsn)
		rc = err_set(err, ERR_CORRUPT, "log of %s ends with record %" PRIu64 ", root says %" PRIu64, u->name, u->st.lsn, man->log_lsn);
	return rc;
}

/* *doubt_r: it failed, and may do better without the cache. */
static int load_with(struct obox_user *u, const struct manifest *man, bool cache, bool *doubt_r, struct err *err)
{
	struct fetch f;
	int rc;

	fetch_start(u, man, cache, &f);
	rc = load_pieces(u, man, &f, err);
	*doubt_r = rc < 0 && f.n_cached && (rc == ERR_CORRUPT || rc == ERR_LIMIT);
	if (rc == 0)
		fetch_keep(u, &f);
	fetch_end(&f);
	return rc;
}

int user_load(struct obox_user *u, const struct manifest *man, struct err *err)
{
	struct err e = ERR_INIT;
	bool doubt;
	int rc;

	if (man->log_seq < man->snap_seq || man->log_seq - man->snap_seq > SEGMENTS_MAX)
		return err_set(err, ERR_CORRUPT, "root of %s names impossible segments", u->name);
	rc = load_with(u, man, true, &doubt, &e);
	if (doubt) {
		log_event(LOG_INF, "what was cached on disk is of no use: it is read from the store", LF_S("user", u->name), LF_ERR(&e), LF_END);
		cached_forget(u);
		root_release(&u->st);
		root_init(&u->st, u);
		u->tail_bytes_since_snap = 0;
		err_clear(&e);
		rc = load_with(u, man, false, &doubt, &e);
	}
	if (rc < 0)
		return err_set(err, rc, "%s", e.msg);
	cached_tidy(u);
	return 0;
}
