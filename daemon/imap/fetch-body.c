/* FETCH of one message with parts of its body.
 *
 * A message whose data cannot be had is answered as a whole or not at all as
 * long as nothing of its line was sent; at least the first CONN_OUT_HIGH octets
 * are read before that.  When the store fails later, in the middle of a
 * literal that was announced with its length:
 *  - damaged for good: the rest is filled with spaces and the tagged answer
 *    names the message, so that one broken object cannot lock a client out of
 *    its mailbox;
 *  - the store is away: the connection ends in the literal, because a client
 *    would keep the filling as the message. */
#include "base/mem.h"
#include "daemon/imap/fetch.h"
#include "daemon/imap/imap.h"

enum {
	CHUNK = 64 * 1024,
	DECODE_IN_MEMORY = 256 * 1024,	/* octets of a part that is decoded at once */
	HEADER_READ_MAX = 4 * 1024 * 1024	/* octets of a header that are looked at for HEADER.FIELDS */
};

/* What a section is made of. */
struct range {
	uint64_t off, len;
	enum mime_encoding enc;
};

void fetch_body_drop(struct fetch *f)
{
	obox_body_close(&f->body);
	mime_cte_free(&f->stream.cte);
	f->stream.active = f->stream.broken = false;
	buf_clear(&f->stream.decoded);
	f->in_message = f->sent = false;
	if (f->tmp.cap > CHUNK * 2)
		buf_free(&f->tmp);
	if (f->stream.decoded.cap > CHUNK * 4)
		buf_free(&f->stream.decoded);
	buf_clear(&f->tmp);
	buf_clear(&f->summary_bytes);
}

static int open_body(struct imap_session *s, struct fetch *f, struct err *err)
{
	if (!f->body)
		f->body = fetch_ahead_take(s, f);
	return f->body ? 0 : obox_body_open(s->user, &f->batch[f->i], &f->body, err);
}

static int begin_message(struct imap_session *s, struct fetch *f, struct err *err)
{
	int rc = 0;

	buf_clear(&f->summary_bytes);
	if (f->needs_parts)
		rc = obox_summary(s->user, &f->batch[f->i], &f->summary_bytes, err);
	if (rc < 0)
		return rc;
	if (!f->needs_parts)
		memset(&f->summary, 0, sizeof(f->summary));
	else if (f->summary_bytes.failed || mime_summary_open(f->summary_bytes.data, f->summary_bytes.len, &f->summary) < 0)
		return err_set(err, ERR_CORRUPT, "the summary of the message cannot be understood");
	f->mark = s->c->out.len;
	f->in_message = true;
	f->sent = false;
	f->item = 0;
	fetch_put_begin(s, f->batch_seq[f->i]);
	return 0;
}

/* --- what a section is --- */

static bool part_range(const struct mime_part *p, enum fetch_section section, struct range *r)
{
	switch (section) {
	case SECTION_ALL:
		*r = (struct range){ p->body_off, p->body_len, p->kind == MIME_LEAF ? p->encoding : MIME_BINARY };
		return true;
	case SECTION_MIME:
		*r = (struct range){ p->header_off, p->header_len, MIME_BINARY };
		return true;
	case SECTION_TEXT:
		*r = (struct range){ p->inner_body_off, p->inner_body_len, MIME_BINARY };
		return p->kind == MIME_MESSAGE;
	default:
		*r = (struct range){ p->inner_header_off, p->inner_header_len, MIME_BINARY };
		return p->kind == MIME_MESSAGE;
	}
}

/* False: there is no such section. */
static bool section_range(const struct fetch *f, const struct fetch_item *it, struct range *r)
{
	uint64_t size = obox_body_size(f->body);
	struct mime_part part;

	if (it->depth) {
		if (mime_summary_part(&f->summary, it->path, it->depth, &part) != 1 || !part_range(&part, it->section, r))
			return false;
	} else if (it->section == SECTION_ALL) {
		*r = (struct range){ 0, size, MIME_BINARY };
	} else if (it->section == SECTION_TEXT) {
		*r = (struct range){ f->summary.header_size, UINT64_MAX, MIME_BINARY };
	} else {
		*r = (struct range){ 0, f->summary.header_size, MIME_BINARY };
	}
	if (r->off > size)
		r->off = size;
	if (r->len > size - r->off)
		r->len = size - r->off;
	return true;
}

/* --- streams --- */

static void put_literal(struct buf *out, const struct fetch_item *it, uint64_t len, bool nul)
{
	buf_add(out, it->label, it->label_len);
	if (it->binary && nul)
		buf_addc(out, '~');
	buf_addc(out, '{');
	buf_addu(out, len);
	buf_add(out, "}\r\n", 3);
}

/* Cuts a section of len octets to the partial of the item. */
static void cut(const struct fetch_item *it, uint64_t len, uint64_t *skip, uint64_t *left)
{
	*skip = it->off < len ? it->off : len;
	*left = len - *skip < it->len ? len - *skip : it->len;
}

static void put_from_memory(struct buf *out, const struct fetch_item *it, struct buf *b)
{
	const char *data = buf_str(b);
	uint64_t skip, left;

	cut(it, b->len, &skip, &left);
	put_literal(out, it, left, left && memchr(data + skip, '\0', (size_t)left));
	buf_add(out, data + skip, (size_t)left);
}

static int read_into(struct fetch *f, uint64_t off, uint64_t len, struct buf *b, struct err *err)
{
	void *p = buf_reserve(b, (size_t)len);
	int rc;

	if (!p)
		return err_set(err, ERR_LIMIT, "no room for %llu octets", (unsigned long long)len);
	rc = obox_body_read(f->body, off, p, (size_t)len, err);
	if (rc < 0)
		return rc;
	b->len += (size_t)len;
	b->data[b->len] = '\0';
	return 0;
}

static int put_fields(struct imap_session *s, struct fetch *f, const struct fetch_item *it, const struct range *r, struct err *err)
{
	struct buf header = BUF_INIT(0);
	int rc = read_into(f, r->off, r->len < HEADER_READ_MAX ? r->len : HEADER_READ_MAX, &header, err);

	if (rc == 0) {
		buf_clear(&f->tmp);
		mime_header_filter(header.data, header.len, it->fields, it->n_fields, it->section == SECTION_FIELDS_NOT, &f->tmp);
		put_from_memory(&s->c->out, it, &f->tmp);
	}
	buf_free(&header);
	return rc;
}

/* Decodes a range and counts what comes out, or keeps it when all is not NULL. */
static int decode_range(struct fetch *f, const struct range *r, struct buf *all, uint64_t *size_r, bool *nul_r, struct err *err)
{
	struct mime_cte *cte = mime_cte_new(r->enc);
	struct buf raw = BUF_INIT(0), piece = BUF_INIT(0), *out = all ? all : &piece;
	uint64_t pos = r->off, end = r->off + r->len;
	int rc = 0;

	*size_r = 0;
	*nul_r = false;
	obox_body_expect(f->body, r->off, r->len);
	for (;;) {
		uint64_t n = end - pos < CHUNK ? end - pos : CHUNK;
		size_t before = all ? all->len : 0;

		buf_clear(&raw);
		buf_clear(&piece);
		if (n)
			rc = read_into(f, pos, n, &raw, err);
		if (rc < 0)
			break;
		if (n)
			mime_cte_feed(cte, raw.data, raw.len, out);
		else
			mime_cte_finish(cte, out);
		*size_r += out->len - before;
		*nul_r |= out->len > before && memchr(out->data + before, '\0', out->len - before);
		pos += n;
		if (!n)
			break;
	}
	mime_cte_free(&cte);
	buf_free(&raw);
	buf_free(&piece);
	return rc;
}

static void start_stream(struct fetch *f, const struct range *r, uint64_t skip, uint64_t left, bool decode)
{
	struct fetch_stream *st = &f->stream;

	st->active = true;
	st->broken = false;
	st->pos = r->off;
	st->end = r->off + r->len;
	st->skip = skip;
	st->left = left;
	buf_clear(&st->decoded);
	if (decode) {
		st->cte = mime_cte_new(r->enc);
		obox_body_expect(f->body, r->off, r->len);
	} else {
		st->pos += skip;
		st->skip = 0;
		obox_body_expect(f->body, st->pos, left);
	}
}

static int start_decoded(struct imap_session *s, struct fetch *f, const struct fetch_item *it, const struct range *r, struct err *err)
{
	bool small = r->len <= DECODE_IN_MEMORY && it->kind == FETCH_SECTION, nul;
	uint64_t size, skip, left;
	int rc;

	buf_clear(&f->tmp);
	rc = decode_range(f, r, small ? &f->tmp : NULL, &size, &nul, err);
	if (rc < 0)
		return rc;
	if (it->kind == FETCH_BINARY_SIZE) {
		buf_add(&s->c->out, it->label, it->label_len);
		buf_addu(&s->c->out, size);
	} else if (small) {
		put_from_memory(&s->c->out, it, &f->tmp);
	} else {
		cut(it, size, &skip, &left);
		put_literal(&s->c->out, it, left, nul);
		start_stream(f, r, skip, left, true);
	}
	return 0;
}

static bool needs_decoding(enum mime_encoding enc)
{
	return enc == MIME_QP || enc == MIME_BASE64 || enc == MIME_UUENCODE;
}

/* The item under way, which needs the body: its value, or the literal's
 * announcement and a stream. */
static int start_section(struct imap_session *s, struct fetch *f, const struct fetch_item *it, struct err *err)
{
	struct range r;
	uint64_t skip, left;
	int rc = open_body(s, f, err);

	if (rc < 0)
		return rc;
	if (!section_range(f, it, &r))
		r = (struct range){ 0, 0, MIME_BINARY };	/* answered as an empty one */
	if (it->section == SECTION_FIELDS || it->section == SECTION_FIELDS_NOT)
		return r.len ? put_fields(s, f, it, &r, err) : (put_literal(&s->c->out, it, 0, false), 0);
	if (it->binary && r.enc == MIME_ENC_UNKNOWN) {
		f->unknown_cte = true;
		return err_set(err, ERR_INVALID, "the content transfer encoding is not known");
	}
	if (it->binary && needs_decoding(r.enc))
		return start_decoded(s, f, it, &r, err);
	if (it->kind == FETCH_BINARY_SIZE) {
		buf_add(&s->c->out, it->label, it->label_len);
		buf_addu(&s->c->out, r.len);
		return 0;
	}
	cut(it, r.len, &skip, &left);
	put_literal(&s->c->out, it, left, f->summary.flags & MIME_F_HAS_NUL);
	start_stream(f, &r, skip, left, false);
	return 0;
}

static int pump_raw(struct imap_session *s, struct fetch *f, struct err *err)
{
	struct fetch_stream *st = &f->stream;
	uint64_t n = st->left < CHUNK ? st->left : CHUNK;
	int rc = read_into(f, st->pos, n, &s->c->out, err);

	if (rc < 0)
		return rc;
	st->pos += n;
	st->left -= n;
	return 0;
}

static int pump_decoded(struct imap_session *s, struct fetch *f, struct err *err)
{
	struct fetch_stream *st = &f->stream;
	uint64_t n = st->end - st->pos < CHUNK ? st->end - st->pos : CHUNK, drop, take;
	int rc = 0;

	buf_clear(&f->tmp);
	if (n)
		rc = read_into(f, st->pos, n, &f->tmp, err);
	if (rc < 0)
		return rc;
	buf_clear(&st->decoded);
	if (n)
		mime_cte_feed(st->cte, f->tmp.data, f->tmp.len, &st->decoded);
	else
		mime_cte_finish(st->cte, &st->decoded);
	st->pos += n;
	drop = st->skip < st->decoded.len ? st->skip : st->decoded.len;
	take = st->decoded.len - drop < st->left ? st->decoded.len - drop : st->left;
	buf_add(&s->c->out, buf_str(&st->decoded) + drop, (size_t)take);
	st->skip -= drop;
	st->left -= take;
	if (!n && st->left)	/* cannot be: the same bytes were counted before */
		return err_set(err, ERR_CORRUPT, "a part decoded to less than before");
	return 0;
}

/* The store failed in a literal that was announced. */
static void broken_literal(struct imap_session *s, struct fetch *f, int rc, const struct err *err)
{
	fetch_lost(s, f, &f->batch[f->i], rc, err);
	if (err_is_temporary(rc) || rc == ERR_IO || rc == ERR_FENCED || rc == ERR_CLOSED)
		s->closing = true;
	f->stream.broken = true;
}

/* 1 all sent, 0 pause, <0 failed with nothing sent. */
static int pump(struct imap_session *s, struct fetch *f, struct err *err)
{
	static const char spaces[1024] = { [0 ... 1023] = ' ' };
	struct fetch_stream *st = &f->stream;

	while (st->left) {
		int rc;

		if (imap_should_pause(s) || s->closing) {
			f->sent = s->mid_line = true;
			return 0;
		}
		if (st->broken) {
			size_t n = st->left < sizeof(spaces) ? (size_t)st->left : sizeof(spaces);

			buf_add(&s->c->out, spaces, n);
			st->left -= n;
			continue;
		}
		rc = st->cte ? pump_decoded(s, f, err) : pump_raw(s, f, err);
		if (rc < 0 && !f->sent)
			return rc;
		if (rc < 0)
			broken_literal(s, f, rc, err);
	}
	mime_cte_free(&st->cte);
	st->active = st->broken = false;
	s->mid_line = false;
	return 1;
}

/* 1 done, 0 pause, <0 this message cannot be answered. */
static int run_item(struct imap_session *s, struct fetch *f, struct err *err)
{
	const struct fetch_item *it = &f->items[f->item];
	struct buf *out = &s->c->out;
	size_t before = out->len;
	int rc;

	if (!f->stream.active) {
		if (f->item)
			buf_addc(out, ' ');
		if (fetch_put_item(s, f, it, &f->batch[f->i], &f->summary))
			return 1;
		rc = start_section(s, f, it, err);
		if (rc < 0) {
			buf_truncate(out, before);
			return rc;
		}
	}
	return f->stream.active ? pump(s, f, err) : 1;
}

static void lose_message(struct imap_session *s, struct fetch *f, int rc, const struct err *err)
{
	if (!f->unknown_cte || rc != ERR_INVALID)
		fetch_lost(s, f, &f->batch[f->i], rc, err);
	if (f->in_message && f->sent)
		fetch_put_end(s, f, f->i);	/* what was answered so far stands */
	else if (f->in_message)
		buf_truncate(&s->c->out, f->mark);
	fetch_body_drop(f);
	f->i++;
}

bool fetch_body_message(struct imap_session *s, struct fetch *f)
{
	struct err err = ERR_INIT;
	int rc = f->in_message ? 0 : begin_message(s, f, &err);

	if (rc < 0) {
		lose_message(s, f, rc, &err);
		return true;
	}
	for (; f->item < f->n_items; f->item++) {
		rc = run_item(s, f, &err);
		if (rc == 0)
			return false;
		if (rc < 0) {
			lose_message(s, f, rc, &err);
			return true;
		}
	}
	fetch_put_end(s, f, f->i);
	fetch_body_drop(f);
	f->i++;
	return true;
}
