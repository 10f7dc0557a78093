/* Records: the unit of the log.  The byte format is in docs/format.md. */
#include "obox/obox-private.h"

#include "base/b64.h"

#include <inttypes.h>

static void put_guid(struct buf *out, const struct obox_guid *g)
{
	buf_add(out, g->b, sizeof(g->b));
}

static void get_guid(struct rd *in, struct obox_guid *g)
{
	const void *p = rd_bytes(in, sizeof(g->b));

	if (p)
		memcpy(g->b, p, sizeof(g->b));
}

static void put_uids(struct buf *out, const struct seqset *s)
{
	uint32_t at = 0;
	size_t i;

	buf_putv(out, s->n);
	for (i = 0; i < s->n; i++) {
		buf_putv(out, s->r[i].lo - at);
		buf_putv(out, s->r[i].hi - s->r[i].lo);
		at = s->r[i].hi;
	}
}

static void get_uids(struct rd *in, struct seqset *s)
{
	uint64_t n = rd_v(in), at = 0, lo, hi;

	for (; n > 0 && !in->failed; n--) {
		lo = at + rd_v(in);
		hi = lo + rd_v(in);
		if (in->failed || lo <= at || lo > UINT32_MAX || hi < lo || hi > UINT32_MAX) {
			in->failed = true;
			return;
		}
		seqset_add(s, (uint32_t)lo, (uint32_t)hi);
		at = hi;
	}
}

static void put_msg(struct buf *out, const struct obox_msg *m)
{
	buf_putv(out, m->uid);
	buf_putv(out, m->flags & OBOX_FLAGS_ALL);
	buf_putv(out, m->modseq);
	buf_putv(out, m->kw[0]);
	buf_putv(out, m->kw[1]);
	buf_putv(out, m->size);
	buf_put64(out, (uint64_t)m->idate);
	buf_put64(out, (uint64_t)m->sdate);
	buf_putv(out, m->oid.epoch);
	buf_putv(out, m->oid.n);
}

static void get_msg(struct rd *in, struct obox_msg *m)
{
	memset(m, 0, sizeof(*m));
	m->uid = (uint32_t)rd_v(in);
	m->flags = (uint32_t)rd_v(in) & OBOX_FLAGS_ALL;
	m->modseq = rd_v(in);
	m->kw[0] = rd_v(in);
	m->kw[1] = rd_v(in);
	m->size = rd_v(in);
	m->idate = (int64_t)rd_64(in);
	m->sdate = (int64_t)rd_64(in);
	m->oid.epoch = rd_v(in);
	m->oid.n = rd_v(in);
}

static void encode_body(const struct rec *r, struct buf *out)
{
	buf_put8(out, (uint8_t)r->type);
	switch (r->type) {
	case REC_MBOX_CREATE:
		put_guid(out, &r->guid);
		buf_putstr(out, r->name);
		buf_put32(out, r->uidvalidity);
		buf_putv(out, r->special);
		buf_putv(out, r->modseq);
		break;
	case REC_MBOX_DELETE:
		put_guid(out, &r->guid);
		buf_put64(out, (uint64_t)r->time);
		break;
	case REC_MBOX_RENAME:
		put_guid(out, &r->guid);
		buf_putstr(out, r->name);
		break;
	case REC_SUBSCRIBE:
		buf_put8(out, r->on);
		buf_putstr(out, r->name);
		break;
	case REC_SAVE:
		put_guid(out, &r->guid);
		put_msg(out, &r->msg);
		buf_putblob(out, r->summary, r->summary_len);
		break;
	case REC_KEYWORD:
		put_guid(out, &r->guid);
		buf_putv(out, r->bit);
		buf_putstr(out, r->name);
		break;
	case REC_FLAGS:
		put_guid(out, &r->guid);
		buf_put8(out, (uint8_t)r->how);
		buf_putv(out, r->flags);
		buf_putv(out, r->kw[0]);
		buf_putv(out, r->kw[1]);
		buf_putv(out, r->modseq);
		put_uids(out, r->uids);
		break;
	case REC_COPY:
		put_guid(out, &r->guid);
		put_guid(out, &r->to);
		buf_put8(out, r->on);
		buf_putv(out, r->modseq);
		buf_putv(out, r->to_modseq);
		buf_putv(out, r->to_uid);
		buf_put64(out, (uint64_t)r->time);
		put_uids(out, r->uids);
		break;
	case REC_EXPUNGE:
		put_guid(out, &r->guid);
		buf_put8(out, r->on);
		buf_putv(out, r->modseq);
		buf_put64(out, (uint64_t)r->time);
		put_uids(out, r->uids);
		break;
	case REC_PURGE:
		buf_put64(out, (uint64_t)r->time);
		break;
	case REC_UNDELETE:
		put_guid(out, &r->guid);
		put_guid(out, &r->to);
		buf_putv(out, r->to_modseq);
		buf_putv(out, r->to_uid);
		buf_put64(out, (uint64_t)r->time);
		put_uids(out, r->uids);
		break;
	case REC_FENCE:
		buf_putv(out, r->modseq);
		break;
	}
}

void rec_encode(const struct rec *r, struct buf *out)
{
	struct buf body = BUF_INIT(0);

	encode_body(r, &body);
	buf_putblob(out, body.data, body.len);
	if (body.failed)
		out->failed = true;
	buf_free(&body);
}

static void decode_body(struct rd *in, struct rec *r)
{
	r->type = rd_8(in);
	if (r->type != REC_SUBSCRIBE && r->type != REC_PURGE && r->type != REC_FENCE)
		get_guid(in, &r->guid);
	switch (r->type) {
	case REC_MBOX_CREATE:
		r->name = r->name_read = rd_strdup(in);
		r->uidvalidity = rd_32(in);
		r->special = (uint32_t)rd_v(in);
		r->modseq = rd_v(in);
		break;
	case REC_MBOX_DELETE:
		r->time = (int64_t)rd_64(in);
		break;
	case REC_MBOX_RENAME:
		r->name = r->name_read = rd_strdup(in);
		break;
	case REC_SUBSCRIBE:
		r->on = rd_8(in);
		r->name = r->name_read = rd_strdup(in);
		break;
	case REC_SAVE:
		get_msg(in, &r->msg);
		r->summary = rd_blob(in, &r->summary_len);
		break;
	case REC_KEYWORD:
		r->bit = (uint32_t)rd_v(in);
		r->name = r->name_read = rd_strdup(in);
		break;
	case REC_FLAGS:
		r->how = rd_8(in);
		r->flags = (uint32_t)rd_v(in) & OBOX_FLAGS_ALL;
		r->kw[0] = rd_v(in);
		r->kw[1] = rd_v(in);
		r->modseq = rd_v(in);
		get_uids(in, &r->uids_read);
		break;
	case REC_COPY:
		get_guid(in, &r->to);
		r->on = rd_8(in);
		r->modseq = rd_v(in);
		r->to_modseq = rd_v(in);
		r->to_uid = (uint32_t)rd_v(in);
		r->time = (int64_t)rd_64(in);
		get_uids(in, &r->uids_read);
		break;
	case REC_EXPUNGE:
		r->on = rd_8(in);
		r->modseq = rd_v(in);
		r->time = (int64_t)rd_64(in);
		get_uids(in, &r->uids_read);
		break;
	case REC_PURGE:
		r->time = (int64_t)rd_64(in);
		break;
	case REC_UNDELETE:
		get_guid(in, &r->to);
		r->to_modseq = rd_v(in);
		r->to_uid = (uint32_t)rd_v(in);
		r->time = (int64_t)rd_64(in);
		get_uids(in, &r->uids_read);
		break;
	case REC_FENCE:
		r->modseq = rd_v(in);
		break;
	default:
		in->failed = true;
	}
	r->uids = &r->uids_read;
}

int rec_decode(struct rd *in, struct rec *r)
{
	const void *p;
	struct rd body;
	size_t len;

	memset(r, 0, sizeof(*r));
	if (!in->failed && in->p == in->end)
		return 0;
	p = rd_blob(in, &len);
	body = rd_init(p, len);
	if (!in->failed)
		decode_body(&body, r);
	if (in->failed || body.failed || r->how > OBOX_FLAGS_REPLACE) {
		rec_release(r);
		return ERR_CORRUPT;
	}
	return 1;
}

void rec_release(struct rec *r)
{
	seqset_free(&r->uids_read);
	free(r->name_read);
	r->name = r->name_read = NULL;
}

static const char *const type_names[] = { "?", "create", "delete", "rename", "subscribe", "save", "keyword", "flags", "copy", "expunge",
	"purge", "undelete", "fence" };

void rec_describe(const struct rec *r, bool json, struct buf *out)
{
	const char *sep = json ? ",\"" : " ", *eq = json ? "\":" : "=", *q = json ? "\"" : "";
	char guid[33];

	buf_addf(out, json ? "{\"type\":\"%s\"" : "%s", type_names[r->type]);
	if (r->type != REC_SUBSCRIBE && r->type != REC_PURGE && r->type != REC_FENCE) {
		hex_encode(guid, r->guid.b, sizeof(r->guid.b));
		buf_addf(out, "%smailbox%s%s%s%s", sep, eq, q, guid, q);
	}
	if (r->type == REC_COPY || r->type == REC_UNDELETE) {
		hex_encode(guid, r->to.b, sizeof(r->to.b));
		buf_addf(out, "%sto%s%s%s%s%sfirst_uid%s%u", sep, eq, q, guid, q, sep, eq, r->to_uid);
	}
	if (r->name) {
		const char *p;

		buf_addf(out, "%sname%s\"", sep, eq);
		for (p = r->name; *p; p++)
			buf_addf(out, *p == '"' || *p == '\\' ? "\\%c" : (unsigned char)*p < 0x20 ? "?" : "%c", *p);
		buf_adds(out, "\"");
	}
	if (r->type == REC_SAVE)
		buf_addf(out, "%suid%s%u%sobject%s%s%" PRIx64 "-%" PRIx64 "%s%ssize%s%" PRIu64 "%sflags%s%u", sep, eq, r->msg.uid, sep, eq, q,
			 r->msg.oid.epoch, r->msg.oid.n, q, sep, eq, r->msg.size, sep, eq, r->msg.flags);
	if (r->type == REC_FLAGS)
		buf_addf(out, "%show%s%s%s%s%sflags%s%u", sep, eq, q, r->how == OBOX_FLAGS_ADD ? "add" : r->how == OBOX_FLAGS_REMOVE ? "remove" : "replace", q,
			 sep, eq, r->flags);
	if (r->uids && r->uids->n) {
		buf_addf(out, "%suids%s%s", sep, eq, q);
		seqset_format(r->uids, out);
		buf_adds(out, q);
	}
	if (r->modseq)
		buf_addf(out, "%smodseq%s%" PRIu64, sep, eq, r->modseq);
	if (r->time)
		buf_addf(out, "%stime%s%" PRId64, sep, eq, r->time);
	buf_adds(out, json ? "}\n" : "\n");
}
