/* The items of a FETCH response that the index and the summary answer. */
#include "daemon/imap/date.h"
#include "daemon/imap/fetch.h"
#include "daemon/imap/imap.h"

void fetch_put_begin(struct imap_session *s, uint32_t seq)
{
	struct buf *out = &s->c->out;

	buf_add(out, "* ", 2);
	buf_addu(out, seq);
	buf_add(out, " FETCH (", 8);
}

/* A literal of what is in memory, cut to the item's partial. */
static void put_partial(struct buf *out, const struct fetch_item *it, const void *data, size_t len)
{
	size_t off = it->off < len ? (size_t)it->off : len;

	len -= off;
	if (it->len < len)
		len = (size_t)it->len;
	buf_addc(out, '{');
	buf_addu(out, len);
	buf_add(out, "}\r\n", 3);
	buf_add(out, (const char *)data + off, len);
}

static void put_cached_fields(struct buf *out, struct fetch *f, const struct fetch_item *it, const struct mime_summary *sum)
{
	buf_clear(&f->tmp);
	mime_header_filter(sum->headers, sum->headers_len, it->fields, it->n_fields, false, &f->tmp);
	put_partial(out, it, buf_str(&f->tmp), f->tmp.len);
}

static void put_summary_item(struct buf *out, struct fetch *f, const struct fetch_item *it, const struct mime_summary *sum)
{
	switch (it->kind) {
	case FETCH_ENVELOPE:
		buf_add(out, sum->envelope, sum->envelope_len);
		break;
	case FETCH_BODY:
		buf_add(out, sum->body, sum->body_len);
		break;
	case FETCH_BODYSTRUCTURE:
		buf_add(out, sum->bodystructure, sum->bodystructure_len);
		break;
	case FETCH_PREVIEW:
		mime_imap_string(out, sum->preview ? sum->preview : "", sum->preview_len);
		break;
	default:
		put_cached_fields(out, f, it, sum);
		break;
	}
}

bool fetch_put_item(struct imap_session *s, struct fetch *f, const struct fetch_item *it, const struct obox_msg *m,
		    const struct mime_summary *sum)
{
	struct buf *out = &s->c->out;

	if (it->kind >= FETCH_SECTION && (!it->cached || (sum->flags & MIME_F_TRUNCATED)))
		return false;
	buf_add(out, it->label, it->label_len);
	switch (it->kind) {
	case FETCH_UID:
		buf_addu(out, m->uid);
		break;
	case FETCH_FLAGS:
		imap_put_flags(s, out, m);
		break;
	case FETCH_INTERNALDATE:
		imap_datetime_put(out, m->idate);
		break;
	case FETCH_SIZE:
		buf_addu(out, m->size);
		break;
	case FETCH_MODSEQ:
		buf_addu(out, m->modseq);
		buf_addc(out, ')');
		break;
	case FETCH_SAVEDATE:
		imap_datetime_put(out, m->sdate);
		break;
	default:
		put_summary_item(out, f, it, sum);
		break;
	}
	return true;
}

void fetch_put_end(struct imap_session *s, struct fetch *f, size_t i)
{
	struct buf *out = &s->c->out;
	const struct obox_msg *m = &f->batch[i];

	if (f->batch_seen[i]) {
		if (!f->has_flags) {
			buf_adds(out, " FLAGS ");
			imap_put_flags(s, out, m);
		}
		if (s->condstore && !f->has_uid) {
			buf_adds(out, " UID ");
			buf_addu(out, m->uid);
		}
		if (s->condstore && !f->has_modseq) {
			buf_adds(out, " MODSEQ (");
			buf_addu(out, m->modseq);
			buf_addc(out, ')');
		}
	}
	buf_add(out, ")\r\n", 3);
}
