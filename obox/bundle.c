/* Bundles: the plain bytes of snapshots, manifests and log segments, and
 * putting them into the store packed and sealed.  Byte tables: docs/format.md.
 *
 * A mailbox snapshot holds the index in columns (columns.c); the first
 * version held the records as they are in memory, and is still read. */
#include "obox/obox-private.h"

_Static_assert(sizeof(struct obox_msg) == 80, "the record layout is part of the format");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bundles hold little-endian records");

enum { BUNDLE_VERSION = 1, MAILBOX_RECORDS = 1, MAILBOX_COLUMNS = 2, PACK_RAW = 0, PACK_ZSTD = 1 };

static void hash_bytes(const void *p, size_t len, unsigned char hash[32])
{
	crypto_generichash(hash, 32, p, len, NULL, 0);
}

/* --- objects: method byte, 8 bytes plain length, bytes; all of that sealed --- */

int bundle_seal(struct obox *ob, const char *key, const void *plain, size_t len, struct buf *sealed, struct err *err)
{
	struct buf packed = BUF_INIT(OBOX_BUNDLE_MAX);
	size_t n = 0;
	void *room;
	int rc;

	buf_put8(&packed, PACK_ZSTD);
	buf_put64(&packed, len);
	room = buf_reserve(&packed, pack_bound(len));
	if (!room) {
		buf_free(&packed);
		return err_set(err, ERR_LIMIT, "%s: bundle of %zu bytes is too large", key, len);
	}
	if (pack_zstd(plain, len, room, pack_bound(len), &n)) {
		packed.len += n;
	} else {
		packed.data[0] = PACK_RAW;
		buf_add(&packed, plain, len);
	}
	rc = seal_bundle(ob->cfg.keys, key, packed.data, packed.len, sealed, err);
	buf_free(&packed);
	return rc;
}

int bundle_put(struct obox *ob, const char *key, const void *plain, size_t len, struct err *err)
{
	struct buf sealed = BUF_INIT(OBOX_BUNDLE_MAX);
	int rc = bundle_seal(ob, key, plain, len, &sealed, err);

	if (rc == 0) {
		struct iovec iov = { sealed.data, sealed.len };

		rc = objstore_put_lazy(ob->cfg.index_store, key, &iov, 1, err);
	}
	buf_free(&sealed);
	return rc;
}

int obox_unseal_with(const struct seal_keys *keys, const char *key, const struct buf *sealed, struct buf *plain, struct err *err)
{
	struct buf packed = BUF_INIT(OBOX_BUNDLE_MAX);
	struct rd r;
	uint64_t len;
	uint8_t method;
	void *room;
	int rc = seal_bundle_open(keys, key, sealed->data, sealed->len, &packed, err);

	if (rc == 0) {
		r = rd_init(packed.data, packed.len);
		method = rd_8(&r);
		len = rd_64(&r);
		if (r.failed || method > PACK_ZSTD || (method == PACK_RAW && len != rd_left(&r))) {
			rc = err_set(err, ERR_CORRUPT, "%s: unknown packing", key);
		} else if (method == PACK_RAW) {
			buf_add(plain, r.p, (size_t)len);
		} else if (!(room = len < OBOX_BUNDLE_MAX ? buf_reserve(plain, (size_t)len) : NULL)) {
			rc = err_set(err, ERR_LIMIT, "%s: bundle of %llu bytes is too large", key, (unsigned long long)len);
		} else {
			rc = unpack_zstd(r.p, rd_left(&r), room, (size_t)len, err);
			if (rc == 0)
				plain->len += (size_t)len;
		}
	}
	buf_free(&packed);
	if (rc < 0)
		err_prefix(err, "%s", key);
	return rc;
}

int bundle_unseal(struct obox *ob, const char *key, const struct buf *sealed, struct buf *plain, unsigned char hash_r[32], struct err *err)
{
	int rc = obox_unseal_with(ob->cfg.keys, key, sealed, plain, err);

	if (rc == 0 && hash_r)
		hash_bytes(plain->data, plain->len, hash_r);
	return rc;
}

int bundle_get(struct obox *ob, const char *key, struct buf *plain, unsigned char hash_r[32], struct err *err)
{
	struct buf sealed = BUF_INIT(OBOX_BUNDLE_MAX);
	int rc = objstore_get(ob->cfg.index_store, key, &sealed, NULL, err);

	if (rc == 0)
		rc = bundle_unseal(ob, key, &sealed, plain, hash_r, err);
	else
		err_prefix(err, "%s", key);
	buf_free(&sealed);
	return rc;
}

/* --- mailbox snapshot --- */

void mbox_encode(const struct mbox *m, struct buf *out)
{
	size_t i;

	buf_adds(out, "CULI");
	buf_put8(out, MAILBOX_COLUMNS);
	buf_add(out, m->guid.b, sizeof(m->guid.b));
	buf_put32(out, m->uidvalidity);
	buf_put32(out, m->uidnext);
	buf_put64(out, m->highestmodseq);
	for (i = 0; i < OBOX_ENDS; i++)
		buf_put64(out, m->ends[i]);
	buf_put64(out, m->gone_floor);
	buf_putv(out, m->n_keywords);
	for (i = 0; i < m->n_keywords; i++)
		buf_putstr(out, m->keywords[i]);
	buf_putv(out, m->n_gone);
	for (i = 0; i < m->n_gone; i++) {
		buf_putv(out, m->gone[i].modseq);
		buf_putv(out, m->gone[i].lo);
		buf_putv(out, m->gone[i].hi - m->gone[i].lo);
	}
	buf_put64(out, m->n);
	columns_encode(m->msgs, m->n, out);
}

static int check_msgs(const struct mbox *m, struct err *err)
{
	uint32_t last = 0;
	size_t i;

	for (i = 0; i < m->n; i++) {
		if (m->msgs[i].uid <= last || m->msgs[i].uid >= m->uidnext)
			return err_set(err, ERR_CORRUPT, "mailbox snapshot: UIDs are not in order");
		last = m->msgs[i].uid;
	}
	return 0;
}

/* The messages follow: n of them, up to the end. */
static int get_msgs(struct mbox *m, struct rd *r, unsigned version, uint64_t n, struct err *err)
{
	const void *records;

	if (r->failed || !(version == MAILBOX_COLUMNS ? columns_fit(r, n) : n <= UINT32_MAX && n * sizeof(*m->msgs) == rd_left(r)))
		return err_set(err, ERR_CORRUPT, "mailbox snapshot is cut");
	m->msgs = mem_calloc_large((size_t)n, sizeof(*m->msgs));
	m->cap = (size_t)n;
	if (version == MAILBOX_COLUMNS) {
		if (columns_decode(r, m->msgs, (size_t)n, err) < 0)
			return ERR_CORRUPT;
	} else if ((records = rd_bytes(r, (size_t)n * sizeof(*m->msgs))) != NULL) {
		memcpy(m->msgs, records, (size_t)n * sizeof(*m->msgs));
	}
	m->n = (uint32_t)n;
	return r->p == r->end ? 0 : err_set(err, ERR_CORRUPT, "mailbox snapshot goes on behind its end");
}

static void count_msgs(struct mbox *m)
{
	size_t i;

	m->unseen = m->n_deleted = 0;
	m->size = m->deleted_size = 0;
	for (i = 0; i < m->n; i++) {
		m->size += m->msgs[i].size;
		m->unseen += !(m->msgs[i].flags & OBOX_SEEN);
		if (m->msgs[i].flags & OBOX_DELETED) {
			m->n_deleted++;
			m->deleted_size += m->msgs[i].size;
		}
	}
}

int mbox_decode(struct mbox *m, const void *data, size_t len, struct err *err)
{
	struct rd r = rd_init(data, len);
	const void *magic = rd_bytes(&r, 4), *guid;
	unsigned version = rd_8(&r);
	uint64_t n, i;
	int rc;

	if (!magic || memcmp(magic, "CULI", 4) != 0 || (version != MAILBOX_RECORDS && version != MAILBOX_COLUMNS))
		return err_set(err, ERR_CORRUPT, "not a mailbox snapshot of a known version");
	guid = rd_bytes(&r, sizeof(m->guid.b));
	if (!guid || memcmp(guid, m->guid.b, sizeof(m->guid.b)) != 0)
		return err_set(err, ERR_CORRUPT, "snapshot of another mailbox");
	m->uidvalidity = rd_32(&r);
	m->uidnext = rd_32(&r);
	m->highestmodseq = rd_64(&r);
	for (i = 0; i < OBOX_ENDS; i++)
		m->ends[i] = rd_64(&r);
	m->gone_floor = rd_64(&r);
	n = rd_v(&r);
	if (n > OBOX_KEYWORDS_MAX)
		r.failed = true;
	for (i = 0; i < n && !r.failed; i++)
		m->keywords[m->n_keywords++] = rd_strdup(&r);
	n = rd_v(&r);
	if (n > OBOX_VANISHED_MAX)
		r.failed = true;
	for (i = 0; i < n && !r.failed; i++) {
		struct vanished v = { .modseq = rd_v(&r) };

		v.lo = (uint32_t)rd_v(&r);
		v.hi = v.lo + (uint32_t)rd_v(&r);
		mem_grow(&m->gone, &m->cap_gone, m->n_gone + 1, sizeof(*m->gone));
		m->gone[m->n_gone++] = v;
	}
	n = rd_64(&r);
	rc = get_msgs(m, &r, version, n, err);
	if (rc < 0)
		return rc;
	count_msgs(m);
	m->loaded = true;
	m->dirty = false;
	return check_msgs(m, err);
}

/* --- user snapshot --- */

static void put_ref(struct buf *out, const struct snapshot_ref *ref)
{
	buf_putv(out, ref->lsn);
	buf_putv(out, ref->epoch);
	buf_add(out, ref->hash, sizeof(ref->hash));
}

static void get_ref(struct rd *r, struct snapshot_ref *ref)
{
	const void *p;

	ref->lsn = rd_v(r);
	ref->epoch = rd_v(r);
	p = rd_bytes(r, sizeof(ref->hash));
	if (p)
		memcpy(ref->hash, p, sizeof(ref->hash));
}

static void encode_box(const struct mbox *m, struct buf *out)
{
	buf_add(out, m->guid.b, sizeof(m->guid.b));
	buf_putstr(out, m->name);
	buf_put32(out, m->uidvalidity);
	buf_putv(out, m->uidnext);
	buf_putv(out, m->special);
	buf_putv(out, m->highestmodseq);
	buf_putv(out, m->n);
	buf_putv(out, m->unseen);
	buf_putv(out, m->n_deleted);
	buf_putv(out, m->size);
	buf_putv(out, m->deleted_size);
	put_ref(out, &m->snap);
}

static struct mbox *decode_box(struct rd *r)
{
	struct mbox *m = mbox_new();
	const void *guid = rd_bytes(r, sizeof(m->guid.b));

	if (guid)
		memcpy(m->guid.b, guid, sizeof(m->guid.b));
	m->name = rd_strdup(r);
	m->uidvalidity = rd_32(r);
	m->uidnext = (uint32_t)rd_v(r);
	m->special = (uint32_t)rd_v(r);
	m->highestmodseq = rd_v(r);
	m->n = (uint32_t)rd_v(r);
	m->unseen = (uint32_t)rd_v(r);
	m->n_deleted = (uint32_t)rd_v(r);
	m->size = rd_v(r);
	m->deleted_size = rd_v(r);
	get_ref(r, &m->snap);
	return m;
}

void root_encode(const struct root_state *s, struct buf *out)
{
	const void *key;
	size_t i, pos = 0, len;
	void *v;

	buf_adds(out, "CULU");
	buf_put8(out, BUNDLE_VERSION);
	buf_putv(out, s->epoch);
	buf_putv(out, s->lsn);
	buf_put32(out, s->last_uidvalidity);
	buf_putv(out, s->n_boxes);
	for (i = 0; i < s->n_boxes; i++)
		encode_box(s->boxes[i], out);
	buf_putv(out, s->n_subs);
	for (i = 0; i < s->n_subs; i++)
		buf_putstr(out, s->subs[i]);
	buf_putv(out, s->n_blocks);
	for (i = 0; i < s->n_blocks; i++) {
		buf_putv(out, s->blocks[i].epoch);
		buf_putv(out, s->blocks[i].n);
		buf_putv(out, s->blocks[i].count);
		buf_putv(out, s->blocks[i].bytes);
	}
	buf_putv(out, s->shared.n);
	while (hmap_next(&s->shared, &pos, &key, &len, &v)) {
		buf_add(out, key, sizeof(struct obox_oid));
		buf_putv(out, (uint64_t)(uintptr_t)v);
	}
	buf_putv(out, s->n_trash);
	for (i = 0; i < s->n_trash; i++) {
		buf_add(out, s->trash[i].guid.b, sizeof(s->trash[i].guid.b));
		buf_put64(out, (uint64_t)s->trash[i].time);
		buf_add(out, &s->trash[i].msg, sizeof(s->trash[i].msg));
	}
	buf_putv(out, s->n_dead);
	for (i = 0; i < s->n_dead; i++) {
		buf_add(out, s->dead[i].guid.b, sizeof(s->dead[i].guid.b));
		buf_putstr(out, s->dead[i].name);
	}
}

static void decode_tail(struct root_state *s, struct rd *r)
{
	const void *p;
	uint64_t n;

	for (n = rd_v(r); n > 0 && !r->failed; n--) {
		struct sumblock b = { .epoch = rd_v(r) };

		b.n = rd_v(r);
		b.count = (uint32_t)rd_v(r);
		b.bytes = (uint32_t)rd_v(r);
		mem_grow(&s->blocks, &s->cap_blocks, s->n_blocks + 1, sizeof(*s->blocks));
		s->blocks[s->n_blocks++] = b;
	}
	for (n = rd_v(r); n > 0 && !r->failed; n--) {
		uint64_t count;

		p = rd_bytes(r, sizeof(struct obox_oid));
		count = rd_v(r);
		if (p && count > 1)
			hmap_put(&s->shared, p, sizeof(struct obox_oid), (void *)(uintptr_t)count);
	}
	for (n = rd_v(r); n > 0 && !r->failed; n--) {
		struct trash t;

		p = rd_bytes(r, sizeof(t.guid.b));
		if (p)
			memcpy(t.guid.b, p, sizeof(t.guid.b));
		t.time = (int64_t)rd_64(r);
		p = rd_bytes(r, sizeof(t.msg));
		if (!p)
			return;
		memcpy(&t.msg, p, sizeof(t.msg));
		mem_grow(&s->trash, &s->cap_trash, s->n_trash + 1, sizeof(*s->trash));
		s->trash[s->n_trash++] = t;
	}
	for (n = rd_v(r); n > 0 && !r->failed; n--) {
		struct dead d;

		p = rd_bytes(r, sizeof(d.guid.b));
		if (!p)
			return;
		memcpy(d.guid.b, p, sizeof(d.guid.b));
		d.name = rd_strdup(r);
		mem_grow(&s->dead, &s->cap_dead, s->n_dead + 1, sizeof(*s->dead));
		s->dead[s->n_dead++] = d;
	}
}

int root_decode(struct root_state *s, const void *data, size_t len, struct err *err)
{
	struct rd r = rd_init(data, len);
	const void *magic = rd_bytes(&r, 4);
	uint64_t n;

	if (!magic || memcmp(magic, "CULU", 4) != 0 || rd_8(&r) != BUNDLE_VERSION)
		return err_set(err, ERR_CORRUPT, "not a user snapshot of a known version");
	s->epoch = rd_v(&r);
	s->lsn = rd_v(&r);
	s->last_uidvalidity = rd_32(&r);
	for (n = rd_v(&r); n > 0 && !r.failed; n--) {
		mem_grow(&s->boxes, &s->cap_boxes, s->n_boxes + 1, sizeof(*s->boxes));
		s->boxes[s->n_boxes++] = decode_box(&r);
	}
	for (n = rd_v(&r); n > 0 && !r.failed; n--) {
		mem_grow(&s->subs, &s->cap_subs, s->n_subs + 1, sizeof(*s->subs));
		s->subs[s->n_subs++] = rd_strdup(&r);
	}
	if (!r.failed)
		decode_tail(s, &r);
	if (r.failed || r.p != r.end)
		return err_set(err, ERR_CORRUPT, "user snapshot is cut");
	return 0;
}

/* --- root manifest: sealed, not packed --- */

int manifest_encode(const struct manifest *m, const struct seal_keys *k, const char *key, struct buf *out, struct err *err)
{
	struct buf b = BUF_INIT(4096);
	int rc;

	buf_adds(&b, "CULR");
	buf_put8(&b, BUNDLE_VERSION);
	buf_putv(&b, m->epoch);
	buf_putstr(&b, m->node);
	buf_put64(&b, m->incarnation);
	buf_putv(&b, m->log_seq);
	buf_putv(&b, m->log_lsn);
	buf_add(&b, m->log_hash, sizeof(m->log_hash));
	put_ref(&b, &m->snap);
	buf_putv(&b, m->snap_seq);
	buf_putv(&b, m->snap_bytes);
	buf_add(&b, m->snap_hash_of_log, sizeof(m->snap_hash_of_log));
	rc = seal_bundle(k, key, b.data, b.len, out, err);
	buf_free(&b);
	return rc;
}

int manifest_decode(struct manifest *m, const struct seal_keys *k, const char *key, const void *data, size_t len, struct err *err)
{
	struct buf b = BUF_INIT(4096);
	const void *magic, *p;
	struct rd r;
	char *node;
	int rc;

	memset(m, 0, sizeof(*m));
	rc = seal_bundle_open(k, key, data, len, &b, err);
	if (rc < 0) {
		buf_free(&b);
		return rc;
	}
	r = rd_init(b.data, b.len);
	magic = rd_bytes(&r, 4);
	if (!magic || memcmp(magic, "CULR", 4) != 0 || rd_8(&r) != BUNDLE_VERSION)
		r.failed = true;
	m->epoch = rd_v(&r);
	node = rd_strdup(&r);
	snprintf(m->node, sizeof(m->node), "%s", node);
	free(node);
	m->incarnation = rd_64(&r);
	m->log_seq = rd_v(&r);
	m->log_lsn = rd_v(&r);
	p = rd_bytes(&r, sizeof(m->log_hash));
	if (p)
		memcpy(m->log_hash, p, sizeof(m->log_hash));
	get_ref(&r, &m->snap);
	m->snap_seq = rd_v(&r);
	m->snap_bytes = rd_v(&r);
	p = rd_bytes(&r, sizeof(m->snap_hash_of_log));
	if (p)
		memcpy(m->snap_hash_of_log, p, sizeof(m->snap_hash_of_log));
	if (r.failed)
		rc = err_set(err, ERR_CORRUPT, "%s: not a root of a known version", key);
	buf_free(&b);
	return rc;
}

/* --- log segment: head, then records --- */

int segment_decode_head(struct rd *r, uint64_t *seq, uint64_t *epoch, uint64_t *first_lsn, uint64_t *count, const unsigned char **prev, struct err *err)
{
	const void *magic = rd_bytes(r, 4);

	if (!magic || memcmp(magic, "CULL", 4) != 0 || rd_8(r) != BUNDLE_VERSION)
		return err_set(err, ERR_CORRUPT, "not a log segment of a known version");
	*seq = rd_v(r);
	*epoch = rd_v(r);
	*first_lsn = rd_v(r);
	*count = rd_v(r);
	*prev = rd_bytes(r, 32);
	return *prev ? 0 : err_set(err, ERR_CORRUPT, "log segment is cut");
}

void segment_encode_head(uint64_t seq, uint64_t epoch, uint64_t first_lsn, uint64_t count, const unsigned char prev[32], struct buf *out)
{
	buf_adds(out, "CULL");
	buf_put8(out, BUNDLE_VERSION);
	buf_putv(out, seq);
	buf_putv(out, epoch);
	buf_putv(out, first_lsn);
	buf_putv(out, count);
	buf_add(out, prev, 32);
}
