/* Admin: messages in and out. */
#include "daemon/admin/admin-private.h"

#include "base/b64.h"
#include "base/mem.h"
#include "mime/mime.h"

#include <inttypes.h>
#include <strings.h>

static const struct { const char *name; uint32_t bit; } flag_names[] = {
	{ "\\Answered", OBOX_ANSWERED }, { "\\Deleted", OBOX_DELETED }, { "\\Draft", OBOX_DRAFT }, { "\\Flagged", OBOX_FLAGGED }, { "\\Seen", OBOX_SEEN },
};

static json_t *flags_json(uint32_t flags)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < MEM_COUNT(flag_names); i++)
		if (flags & flag_names[i].bit)
			json_array_append_new(list, json_string(flag_names[i].name));
	return list;
}

static json_t *keywords_json(char **names, size_t n, const uint64_t kw[2])
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < n; i++)
		if (kw[i / 64] >> (i % 64) & 1)
			json_array_append_new(list, json_string(names[i]));
	return list;
}

static int open_view(struct admin *a, struct obox_view **v, struct err *err)
{
	const char *name;
	int rc = admin_need_str(a, "mailbox", &name, err);

	*v = NULL;
	return rc == 0 ? obox_view_open(a->user, name, true, NULL, NULL, v, err) : rc;
}

int admin_message_list(struct admin *a, struct err *err)
{
	int64_t from = admin_int(a, "uid", 1), max = admin_int(a, "max", ADMIN_LIST_MAX);
	char *names[OBOX_KEYWORDS_MAX];
	struct obox_msg *msgs;
	struct obox_view *v;
	size_t n, n_names, i;
	int rc = open_view(a, &v, err);

	if (rc < 0)
		return rc;
	if (max < 1 || max > ADMIN_LIST_MAX)
		max = ADMIN_LIST_MAX;
	msgs = mem_calloc((size_t)max, sizeof(*msgs));
	n_names = obox_view_keywords(v, names, 0);
	n = from > 0 && from <= UINT32_MAX ? obox_view_read(v, obox_view_seq(v, (uint32_t)from, true), msgs, (size_t)max) : 0;
	for (i = 0; i < n; i++)
		admin_line(a, json_pack("{s:I, s:o, s:o, s:I, s:I, s:I, s:I}", "uid", (json_int_t)msgs[i].uid, "flags", flags_json(msgs[i].flags),
					"keywords", keywords_json(names, n_names, msgs[i].kw), "size", (json_int_t)msgs[i].size,
					"date", (json_int_t)msgs[i].idate, "saved", (json_int_t)msgs[i].sdate, "modseq", (json_int_t)msgs[i].modseq));
	for (i = 0; i < n_names; i++)
		free(names[i]);
	free(msgs);
	admin_done(a, json_pack("{s:I}", "total", (json_int_t)obox_view_count(v)));
	obox_view_close(&v);
	return 0;
}

static int find_message(struct admin *a, struct obox_view *v, struct obox_msg *m, struct err *err)
{
	int64_t uid = admin_int(a, "uid", 0);
	uint32_t seq = uid > 0 && uid <= UINT32_MAX ? obox_view_seq(v, (uint32_t)uid, false) : 0;

	if (!seq || !obox_view_read(v, seq, m, 1))
		return err_set(err, ERR_NOTFOUND, "mailbox has no message with UID %" PRId64, uid);
	return 0;
}

static int parse_part(const char *text, uint32_t *path, size_t max, size_t *depth, struct err *err)
{
	char *end;

	for (*depth = 0; *depth < max; text = end + 1) {
		unsigned long n = strtoul(text, &end, 10);

		if (end == text || !n || n > UINT32_MAX || (*end && *end != '.'))
			break;
		path[(*depth)++] = (uint32_t)n;
		if (!*end)
			return 0;
	}
	return err_set(err, ERR_INVALID, "part must be numbers with dots between them, like 2.1");
}

/* Narrows *off, *size to a part's body; *enc is how it is encoded. */
static int part_range(struct admin *a, const struct obox_msg *m, const char *text, uint64_t *off, uint64_t *size, enum mime_encoding *enc, struct err *err)
{
	struct buf b = BUF_INIT(0);
	struct mime_summary s;
	struct mime_part part;
	uint32_t path[64];
	size_t depth;
	int rc = parse_part(text, path, MEM_COUNT(path), &depth, err);

	if (rc == 0)
		rc = obox_summary(a->user, m, &b, err);
	if (rc == 0 && mime_summary_open(b.data, b.len, &s) < 0)
		rc = err_set(err, ERR_CORRUPT, "summary of the message cannot be read");
	if (rc == 0 && mime_summary_part(&s, path, depth, &part) != 1)
		rc = err_set(err, ERR_NOTFOUND, "message has no part %s", text);
	if (rc == 0) {
		*off = part.body_off;
		*size = part.body_len;
		*enc = part.encoding;
	}
	buf_free(&b);
	return rc;
}

static const char *const encodings[] = { "7bit", "8bit", "binary", "quoted-printable", "base64", "x-uuencode", "unknown" };

int admin_message_fetch(struct admin *a, struct err *err)
{
	const char *part = admin_str(a, "part");
	int64_t off = admin_int(a, "off", 0), len = admin_int(a, "len", ADMIN_FETCH_MAX);
	enum mime_encoding enc = MIME_BINARY;
	struct obox_body *b = NULL;
	struct obox_view *v;
	struct obox_msg m;
	uint64_t base = 0, size = 0;
	void *data = NULL;
	int rc = open_view(a, &v, err);

	if (rc == 0)
		rc = find_message(a, v, &m, err);
	if (rc == 0) {
		size = m.size;
		if (part)
			rc = part_range(a, &m, part, &base, &size, &enc, err);
	}
	if (rc == 0 && (off < 0 || (uint64_t)off > size || len < 0))
		rc = err_set(err, ERR_INVALID, "off is beyond the %" PRIu64 " bytes there are", size);
	if (rc == 0)
		rc = obox_body_open(a->user, &m, &b, err);
	if (rc == 0) {
		if (len > ADMIN_FETCH_MAX)
			len = ADMIN_FETCH_MAX;
		if ((uint64_t)len > size - (uint64_t)off)
			len = (int64_t)(size - (uint64_t)off);
		data = mem_alloc((size_t)len);
		rc = obox_body_read(b, base + (uint64_t)off, data, (size_t)len, err);
	}
	if (rc == 0) {
		admin_line(a, json_pack("{s:I, s:I, s:s}", "size", (json_int_t)size, "bytes", (json_int_t)len, "encoding", encodings[enc]));
		buf_add(&a->c->out, data, (size_t)len);
		admin_done(a, NULL);
	}
	free(data);
	obox_body_close(&b);
	obox_view_close(&v);
	return rc;
}

static json_t *text_json(const char *s, size_t len)
{
	json_t *v = json_stringn(s, len);
	struct buf b = BUF_INIT(0);
	size_t i;

	if (v)
		return v;
	for (i = 0; i < len; i++)	/* not UTF-8: as Latin-1 */
		if ((unsigned char)s[i] < 0x80) {
			buf_addc(&b, s[i]);
		} else {
			buf_addc(&b, 0xc0 | (unsigned char)s[i] >> 6);
			buf_addc(&b, 0x80 | ((unsigned char)s[i] & 0x3f));
		}
	v = json_stringn((char *)b.data, b.len);
	buf_free(&b);
	return v;
}

static json_t *headers_json(const struct mime_summary *s)
{
	json_t *list = json_array();
	struct mime_field f;
	size_t pos = 0;

	while (mime_header_next(s->headers, s->headers_len, &pos, &f) == 1) {
		struct buf value = BUF_INIT(0);

		mime_header_decode(f.value, f.value_len, &value);
		json_array_append_new(list, json_pack("[o, o]", text_json(f.name, f.name_len), text_json(buf_str(&value), value.len)));
		buf_free(&value);
	}
	return list;
}

int admin_message_info(struct admin *a, struct err *err)
{
	struct buf b = BUF_INIT(0);
	struct obox_origin o = { 0 };
	struct obox_body *body = NULL;
	struct mime_summary s;
	struct obox_view *v;
	struct obox_msg m;
	char sha[65];
	int rc = open_view(a, &v, err);

	if (rc == 0)
		rc = find_message(a, v, &m, err);
	if (rc == 0)
		rc = obox_summary(a->user, &m, &b, err);
	if (rc == 0 && mime_summary_open(b.data, b.len, &s) < 0)
		rc = err_set(err, ERR_CORRUPT, "summary of the message cannot be read");
	if (rc == 0)
		rc = obox_body_open(a->user, &m, &body, err);
	if (rc == 0)
		rc = obox_origin(body, &o, err);
	if (rc == 0) {
		json_t *line = json_pack("{s:I, s:o, s:I, s:I, s:I}", "uid", (json_int_t)m.uid, "flags", flags_json(m.flags), "size", (json_int_t)m.size,
					 "date", (json_int_t)m.idate, "modseq", (json_int_t)m.modseq);

		hex_encode(sha, o.sha256, 32);
		json_object_set_new(line, "object", json_sprintf("%08" PRIx64 "-%08" PRIx64, m.oid.epoch, m.oid.n));
		json_object_set_new(line, "headers", headers_json(&s));
		json_object_set_new(line, "envelope", text_json(s.envelope, s.envelope_len));
		json_object_set_new(line, "bodystructure", text_json(s.bodystructure, s.bodystructure_len));
		json_object_set_new(line, "preview", text_json(s.preview, s.preview_len));
		json_object_set_new(line, "sha256", json_string(sha));
		json_object_set_new(line, "saved_as", json_pack("{s:s, s:s, s:I, s:s, s:s}", "user", o.user, "mailbox", o.mailbox,
								"uid", (json_int_t)o.uid, "envelope_from", o.env_from, "envelope_to", o.env_to));
		admin_done(a, line);
	}
	obox_origin_free(&o);
	obox_body_close(&body);
	obox_view_close(&v);
	buf_free(&b);
	return rc;
}

static uint32_t flags_of(json_t *list)
{
	uint32_t flags = 0;
	size_t i, k;

	for (i = 0; i < json_array_size(list); i++) {
		const char *name = json_string_value(json_array_get(list, i));

		for (k = 0; name && k < MEM_COUNT(flag_names); k++)
			if (!strcasecmp(name, flag_names[k].name))
				flags |= flag_names[k].bit;
	}
	return flags;
}

int admin_message_append(struct admin *a, struct err *err)
{
	json_t *kw = json_object_get(a->req, "keywords");
	const char *keywords[OBOX_KEYWORDS_MAX], *mailbox;
	struct obox_save s = { .msg = a->in, .flags = flags_of(json_object_get(a->req, "flags")), .keywords = keywords };
	uint32_t uidvalidity;
	size_t i;
	int rc = admin_need_str(a, "mailbox", &mailbox, err);

	if (rc == 0 && a->payload_err.code)
		rc = err_set(err, a->payload_err.code, "%s", a->payload_err.msg);
	for (i = 0; i < json_array_size(kw) && s.n_keywords < OBOX_KEYWORDS_MAX; i++)
		if (json_is_string(json_array_get(kw, i)))
			keywords[s.n_keywords++] = json_string_value(json_array_get(kw, i));
	s.idate = admin_int(a, "date", INT64_MIN);
	s.pop3_uidl = admin_str(a, "pop3_uidl");
	if (rc == 0)
		rc = obox_msgin_finish(a->in, err);
	if (rc == 0)
		rc = obox_save(a->user, mailbox, &s, 1, &uidvalidity, err);
	if (rc == ERR_NOTFOUND && admin_bool(a, "create")) {
		err_clear(err);
		rc = obox_mailbox_create(a->user, mailbox, 0, err);
		if (rc == 0)
			rc = obox_save(a->user, mailbox, &s, 1, &uidvalidity, err);
	}
	if (rc == 0)
		admin_done(a, json_pack("{s:I, s:I}", "uid", (json_int_t)s.uid_r, "uidvalidity", (json_int_t)uidvalidity));
	return rc;
}
