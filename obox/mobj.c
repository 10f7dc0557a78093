/* Message objects, format version 1.
 *
 *     0   4  magic "CULM"
 *     4   1  version 1
 *     5   1  sealing of the pieces: 1 = AES-256-GCM
 *     6   2  zero
 *     8   8  size of the message in octets
 *    16   4  number of chunks N
 *    20   4  size of a full chunk's plaintext (131072)
 *    24   4  length S of the sealed summary
 *    28   8  zero
 *    36 113  wrapped data key (crypt/keys.c); context: the object's key
 *   149   4  length R of the sealed save record
 *   153   R  save record: sealed bundle under the index key, associated data: the object's key
 *         S  summary: piece SEAL_PIECE_SUMMARY of method byte, 4 bytes plain length, bytes
 *        8N  chunk table: plain length (bit 31 = packed by zstd), sealed length
 *         -  chunks: piece i of the (packed) bytes
 * Pieces have bytes 0..35 as associated data.
 *
 * Everything before the save record is known before the UID is, so that under
 * the user's lock only a few hundred bytes are sealed. */
#include "obox/obox-private.h"

#include "base/io.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOBJ_VERSION = 1, ALG_GCM = 1, PACKED_BIT = 1 << 30, IN_MEMORY = 4 << 20, RECORD_LEN_AT = MOBJ_FIXED, RECORD_AT = MOBJ_FIXED + 4,
	RECORD_MAX = 64 * 1024, SUMMARY_HEAD = 5 };

struct mobj {
	unsigned char fixed[MOBJ_FIXED];
	struct seal_dkey dkey;
	char *key;
	unsigned char sha[32];
	uint64_t size;
	struct buf rest;	/* sealed summary and chunk table */
	unsigned char *body;	/* sealed chunks: malloc'ed, or mapped from an unnamed file */
	size_t body_len;
	bool body_mapped;
	void *whole;		/* the finished object, as body */
	size_t whole_len;
	bool whole_mapped;
};

static void put32(unsigned char *p, uint32_t v)
{
	int i;

	for (i = 0; i < 4; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

static void put64(unsigned char *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

/* Memory for the object: from the heap, or for large ones from an unnamed
 * file, so that a hundred deliveries of 100 MB do not need 10 GB. */
static void *room(struct obox *ob, size_t len, bool *mapped_r, struct err *err)
{
	void *p;
	int fd;

	*mapped_r = len > IN_MEMORY;
	if (!*mapped_r)
		return mem_realloc(NULL, len);
	fd = tmp_file(ob, err);
	if (fd < 0)
		return NULL;
	if (posix_fallocate(fd, 0, (off_t)len) != 0) {
		close(fd);
		err_set(err, ERR_LIMIT, "spool: no room for %zu bytes in %s", len, ob->node_dir);
		return NULL;
	}
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED) {
		err_errno(err, "spool: map", NULL);
		return NULL;
	}
	return p;
}

static int seal_summary(struct mobj *o, const void *summary, size_t len, struct err *err)
{
	unsigned char *plain = mem_realloc(NULL, SUMMARY_HEAD + pack_bound(len) + len), *out;
	size_t n = 0;
	int rc;

	plain[0] = pack_zstd(summary, len, plain + SUMMARY_HEAD, pack_bound(len), &n) ? 1 : 0;
	if (!plain[0]) {
		memcpy(plain + SUMMARY_HEAD, summary, len);
		n = len;
	}
	put32(plain + 1, (uint32_t)len);
	out = buf_reserve(&o->rest, SUMMARY_HEAD + n + SEAL_CHUNK_OVERHEAD);
	put32(o->fixed + 24, (uint32_t)(SUMMARY_HEAD + n + SEAL_CHUNK_OVERHEAD));
	rc = out ? seal_piece(&o->dkey, SEAL_PIECE_SUMMARY, o->fixed, MOBJ_AAD, plain, SUMMARY_HEAD + n, out, err) :
		   err_set(err, ERR_LIMIT, "summary is too large");
	if (rc == 0)
		o->rest.len += SUMMARY_HEAD + n + SEAL_CHUNK_OVERHEAD;
	free(plain);
	return rc;
}

static void table_entry(struct mobj *o, uint32_t plain, uint32_t sealed, bool packed)
{
	buf_put32(&o->rest, plain | (packed ? PACKED_BIT : 0));
	buf_put32(&o->rest, sealed);
}

struct body_work {
	struct mobj *o;
	EVP_MD_CTX *md;
	unsigned char *at;
	uint64_t n;		/* piece number */
	unsigned char *stored, *plain;
};

static int seal_chunk(struct body_work *w, struct obox_msgin *in, size_t i, const struct msgin_chunk *c, struct err *err)
{
	int rc = msgin_chunk_read(in, i, w->stored, err);

	if (rc == 0 && c->packed)
		rc = unpack_zstd(w->stored, c->stored, w->plain, c->plain, err);
	if (rc < 0)
		return rc;
	EVP_DigestUpdate(w->md, c->packed ? w->plain : w->stored, c->plain);
	rc = seal_piece(&w->o->dkey, w->n++, w->o->fixed, MOBJ_AAD, w->stored, c->stored, w->at, err);
	w->at += c->stored + SEAL_CHUNK_OVERHEAD;
	table_entry(w->o, c->plain, c->stored + SEAL_CHUNK_OVERHEAD, c->packed);
	return rc;
}

/* The lines put before the message are a chunk of their own, so that the
 * packed chunks serve every recipient. */
static int seal_body(struct obox *ob, struct mobj *o, struct obox_msgin *in, const char *prepend, size_t pre_len, struct err *err)
{
	const struct msgin_chunk *chunks;
	size_t n = msgin_chunks(in, &chunks), i;
	struct body_work w = { .o = o, .md = EVP_MD_CTX_new() };
	bool mapped = false;
	int rc = 0;

	o->body_len = pre_len ? pre_len + SEAL_CHUNK_OVERHEAD : 0;
	for (i = 0; i < n; i++)
		o->body_len += chunks[i].stored + SEAL_CHUNK_OVERHEAD;
	o->body = o->body_len ? room(ob, o->body_len, &mapped, err) : NULL;
	o->body_mapped = mapped;
	if (!w.md || EVP_DigestInit_ex(w.md, EVP_sha256(), NULL) != 1 || (o->body_len && !o->body)) {
		EVP_MD_CTX_free(w.md);
		return err_set(err, ERR_IO, "seal: out of resources");
	}
	w.at = o->body;
	w.stored = mem_realloc(NULL, OBOX_CHUNK);
	w.plain = mem_realloc(NULL, OBOX_CHUNK);
	if (pre_len) {
		EVP_DigestUpdate(w.md, prepend, pre_len);
		rc = seal_piece(&o->dkey, w.n++, o->fixed, MOBJ_AAD, prepend, pre_len, w.at, err);
		w.at += pre_len + SEAL_CHUNK_OVERHEAD;
		table_entry(o, (uint32_t)pre_len, (uint32_t)pre_len + SEAL_CHUNK_OVERHEAD, false);
	}
	for (i = 0; i < n && rc == 0; i++)
		rc = seal_chunk(&w, in, i, &chunks[i], err);
	EVP_DigestFinal_ex(w.md, o->sha, NULL);
	EVP_MD_CTX_free(w.md);
	free(w.stored);
	free(w.plain);
	return rc;
}

int mobj_seal(struct obox *ob, const char *key, struct obox_msgin *in, const char *prepend, const void *summary, size_t summary_len,
	      struct mobj **o_r, struct err *err)
{
	size_t pre_len = prepend ? strlen(prepend) : 0, n;
	struct mobj *o = MEM_NEW(struct mobj);
	const struct msgin_chunk *chunks;
	int rc;

	*o_r = NULL;
	n = msgin_chunks(in, &chunks) + (pre_len > 0);
	o->key = mem_strdup(key);
	o->size = pre_len + obox_msgin_size(in);
	buf_init(&o->rest, 0);
	memcpy(o->fixed, "CULM", 4);
	o->fixed[4] = MOBJ_VERSION;
	o->fixed[5] = ALG_GCM;
	put64(o->fixed + 8, o->size);
	put32(o->fixed + 16, (uint32_t)n);
	put32(o->fixed + 20, OBOX_CHUNK);
	seal_dkey_random(&o->dkey);
	/* the summary's sealed length is associated data, so its plain form comes first */
	rc = pre_len > OBOX_CHUNK ? err_set(err, ERR_LIMIT, "lines before the message are too long") : 0;
	if (rc == 0)
		rc = seal_wrap(ob->cfg.keys, key, &o->dkey, o->fixed + 36, err);
	if (rc == 0)
		rc = seal_summary(o, summary, summary_len, err);
	if (rc == 0)
		rc = seal_body(ob, o, in, prepend, pre_len, err);
	seal_dkey_wipe(&o->dkey);
	if (rc < 0)
		mobj_free(&o);
	*o_r = o;
	return rc;
}

static void encode_record(const struct obox_origin *g, const struct obox_guid *guid, struct buf *out)
{
	size_t i;

	buf_put8(out, 1);
	buf_putstr(out, g->user);
	buf_add(out, guid->b, sizeof(guid->b));
	buf_putstr(out, g->mailbox);
	buf_put32(out, g->uidvalidity);
	buf_putv(out, g->uid);
	buf_putv(out, g->modseq);
	buf_putv(out, g->flags);
	buf_putv(out, g->n_keywords);
	for (i = 0; i < g->n_keywords; i++)
		buf_putstr(out, g->keywords[i]);
	buf_put64(out, (uint64_t)g->idate);
	buf_put64(out, (uint64_t)g->sdate);
	buf_putstr(out, g->env_from);
	buf_putstr(out, g->env_to);
	buf_putstr(out, g->pop3_uidl);
	buf_add(out, g->sha256, sizeof(g->sha256));
}

int mobj_finish(struct obox *ob, struct mobj *o, const struct obox_origin *g, const struct obox_guid *guid, struct err *err)
{
	struct buf plain = BUF_INIT(RECORD_MAX), sealed = BUF_INIT(RECORD_MAX);
	unsigned char *p;
	int rc;

	encode_record(g, guid, &plain);
	rc = plain.failed ? err_set(err, ERR_LIMIT, "save record is too large") : seal_bundle(ob->cfg.keys, o->key, plain.data, plain.len, &sealed, err);
	buf_free(&plain);
	if (rc == 0) {
		o->whole_len = MOBJ_FIXED + 4 + sealed.len + o->rest.len + o->body_len;
		o->whole = p = room(ob, o->whole_len, &o->whole_mapped, err);
		if (!p) {
			rc = err_set(err, ERR_IO, "seal: out of resources");
		} else {
			memcpy(p, o->fixed, MOBJ_FIXED);
			put32(p + RECORD_LEN_AT, (uint32_t)sealed.len);
			p += RECORD_AT;
			memcpy(p, sealed.data, sealed.len);
			memcpy(p + sealed.len, o->rest.data, o->rest.len);
			if (o->body_len)
				memcpy(p + sealed.len + o->rest.len, o->body, o->body_len);
		}
	}
	buf_free(&sealed);
	return rc;
}

const unsigned char *mobj_sha256(const struct mobj *o)
{
	return o->sha;
}

uint64_t mobj_message_size(const struct mobj *o)
{
	return o->size;
}

void mobj_data(const struct mobj *o, const void **data_r, size_t *len_r)
{
	*data_r = o->whole;
	*len_r = o->whole_len;
}

static void drop(void *p, size_t len, bool mapped)
{
	if (mapped && p)
		munmap(p, len);
	else
		free(p);
}

void mobj_free(struct mobj **op)
{
	struct mobj *o = *op;

	if (!o)
		return;
	drop(o->body, o->body_len, o->body_mapped);
	drop(o->whole, o->whole_len, o->whole_mapped);
	buf_free(&o->rest);
	free(o->key);
	free(o);
	*op = NULL;
}

/* --- reading --- */

int mobj_parse_head(const void *data, size_t len, struct mobj_head *h, struct err *err)
{
	struct rd r = rd_init(data, len);
	const void *magic = rd_bytes(&r, 4), *wrap;
	uint64_t total;

	memset(h, 0, sizeof(*h));
	if (!magic || memcmp(magic, "CULM", 4) != 0)
		return err_set(err, ERR_CORRUPT, "not a message object");
	if (rd_8(&r) != MOBJ_VERSION || rd_8(&r) != ALG_GCM)
		return err_set(err, ERR_CORRUPT, "message object of an unknown version");
	rd_16(&r);
	h->size = rd_64(&r);
	h->n_chunks = rd_32(&r);
	if (rd_32(&r) != OBOX_CHUNK)
		return err_set(err, ERR_CORRUPT, "message object with an unknown chunk size");
	h->summary_len = rd_32(&r);
	rd_64(&r);
	wrap = rd_bytes(&r, SEAL_WRAP_BYTES);
	h->record_len = rd_32(&r);
	if (r.failed || h->record_len > RECORD_MAX || h->summary_len > (64 << 20) || h->n_chunks > h->size / (OBOX_CHUNK / 2) + 16)
		return err_set(err, ERR_CORRUPT, "message object with an impossible header");
	memcpy(h->wrap, wrap, SEAL_WRAP_BYTES);
	total = RECORD_AT + (uint64_t)h->record_len + h->summary_len + 8 * (uint64_t)h->n_chunks;
	if (total > UINT32_MAX)
		return err_set(err, ERR_CORRUPT, "message object with an impossible header");
	h->header_len = (uint32_t)total;
	return 0;
}

int mobj_parse_chunks(const void *header, const struct mobj_head *h, struct mobj_chunk *chunks, struct err *err)
{
	const unsigned char *p = (const unsigned char *)header + RECORD_AT + h->record_len + h->summary_len;
	struct rd r = rd_init(p, 8 * (size_t)h->n_chunks);
	uint64_t sum = 0;
	uint32_t i, v;

	for (i = 0; i < h->n_chunks; i++) {
		v = rd_32(&r);
		chunks[i].plain = v & ~(uint32_t)PACKED_BIT;
		chunks[i].packed = v & PACKED_BIT;
		chunks[i].sealed = rd_32(&r);
		if (chunks[i].plain > OBOX_CHUNK || chunks[i].sealed < SEAL_CHUNK_OVERHEAD || chunks[i].sealed > OBOX_CHUNK + SEAL_CHUNK_OVERHEAD ||
		    (!chunks[i].packed && chunks[i].sealed != chunks[i].plain + SEAL_CHUNK_OVERHEAD))
			return err_set(err, ERR_CORRUPT, "message object with an impossible chunk %u", i);
		sum += chunks[i].plain;
	}
	return sum == h->size ? 0 : err_set(err, ERR_CORRUPT, "message object's chunks do not add up to its size");
}

static void decode_record(struct rd *r, struct obox_origin *g, struct obox_guid *guid_r)
{
	const void *p;
	uint64_t n;

	if (rd_8(r) != 1)
		r->failed = true;
	g->user = rd_strdup(r);
	p = rd_bytes(r, sizeof(guid_r->b));
	if (p && guid_r)
		memcpy(guid_r->b, p, sizeof(guid_r->b));
	g->mailbox = rd_strdup(r);
	g->uidvalidity = rd_32(r);
	g->uid = (uint32_t)rd_v(r);
	g->modseq = rd_v(r);
	g->flags = (uint32_t)rd_v(r) & OBOX_FLAGS_ALL;
	n = rd_v(r);
	if (n > OBOX_KEYWORDS_MAX)
		r->failed = true;
	if (!r->failed && n) {
		g->keywords = mem_calloc((size_t)n, sizeof(*g->keywords));
		while (g->n_keywords < n)
			g->keywords[g->n_keywords++] = rd_strdup(r);
	}
	g->idate = (int64_t)rd_64(r);
	g->sdate = (int64_t)rd_64(r);
	g->env_from = rd_strdup(r);
	g->env_to = rd_strdup(r);
	g->pop3_uidl = rd_strdup(r);
	p = rd_bytes(r, sizeof(g->sha256));
	if (p)
		memcpy(g->sha256, p, sizeof(g->sha256));
}

int mobj_open_record(struct obox *ob, const char *key, const void *header, const struct mobj_head *h, struct obox_origin *g,
		     struct obox_guid *guid_r, struct err *err)
{
	struct buf plain = BUF_INIT(RECORD_MAX);
	struct rd r;
	int rc;

	memset(g, 0, sizeof(*g));
	rc = seal_bundle_open(ob->cfg.keys, key, (const unsigned char *)header + RECORD_AT, h->record_len, &plain, err);
	if (rc == 0) {
		r = rd_init(plain.data, plain.len);
		decode_record(&r, g, guid_r);
		if (r.failed) {
			rc = err_set(err, ERR_CORRUPT, "%s: save record cannot be read", key);
			obox_origin_free(g);
		}
	}
	buf_free(&plain);
	return rc;
}

void obox_origin_free(struct obox_origin *g)
{
	size_t i;

	for (i = 0; i < g->n_keywords; i++)
		free(g->keywords[i]);
	free(g->keywords);
	free(g->user);
	free(g->mailbox);
	free(g->env_from);
	free(g->env_to);
	free(g->pop3_uidl);
	memset(g, 0, sizeof(*g));
}

int mobj_open_summary(struct obox *ob, const char *key, const void *header, const struct mobj_head *h, struct buf *out, struct err *err)
{
	const unsigned char *sealed = (const unsigned char *)header + RECORD_AT + h->record_len;
	unsigned char *plain;
	struct seal_dkey d;
	uint32_t len;
	void *p;
	int rc;

	if (h->summary_len < SUMMARY_HEAD + SEAL_CHUNK_OVERHEAD)
		return err_set(err, ERR_CORRUPT, "%s: no summary", key);
	rc = seal_unwrap(ob->cfg.keys, key, h->wrap, &d, err);
	if (rc < 0)
		return rc;
	plain = mem_realloc(NULL, h->summary_len);
	rc = seal_piece_open(&d, SEAL_PIECE_SUMMARY, header, MOBJ_AAD, sealed, h->summary_len, plain, err);
	seal_dkey_wipe(&d);
	if (rc == 0) {
		struct rd r = rd_init(plain + 1, 4);

		len = rd_32(&r);
		p = len < (64 << 20) ? buf_reserve(out, len) : NULL;
		if (!p)
			rc = err_set(err, ERR_CORRUPT, "%s: summary of an impossible size", key);
		else if (plain[0] == 1)
			rc = unpack_zstd(plain + SUMMARY_HEAD, h->summary_len - SUMMARY_HEAD - SEAL_CHUNK_OVERHEAD, p, len, err);
		else if (len == h->summary_len - SUMMARY_HEAD - SEAL_CHUNK_OVERHEAD)
			memcpy(p, plain + SUMMARY_HEAD, len);
		else
			rc = err_set(err, ERR_CORRUPT, "%s: summary is cut", key);
		if (rc == 0)
			out->len += len;
	}
	free(plain);
	return rc;
}
