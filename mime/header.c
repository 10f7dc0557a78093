/* Header blocks: walking, filtering, and the index of the fields this room
 * knows by name. */
#include "mime/mime-private.h"

#include "base/mem.h"

struct field_name {
	const char *name;
	uint8_t id;
	bool cached;
};

/* Grouped by length; by_length below points into it. */
static const struct field_name names[] = {
	{ "To", F_TO, true }, { "Cc", F_CC, true },
	{ "Bcc", F_BCC, true },
	{ "Date", F_DATE, true }, { "From", F_FROM, true },
	{ "Sender", F_SENDER, true },
	{ "Subject", F_SUBJECT, true }, { "List-Id", F_OTHER, true },
	{ "Reply-To", F_REPLY_TO, true }, { "Priority", F_OTHER, true },
	{ "List-Post", F_OTHER, true },
	{ "Message-ID", F_MESSAGE_ID, true }, { "References", F_OTHER, true }, { "Newsgroups", F_OTHER, true },
	{ "X-Priority", F_OTHER, true }, { "Importance", F_OTHER, true }, { "Content-ID", F_CONTENT_ID, false },
	{ "In-Reply-To", F_IN_REPLY_TO, true }, { "Return-Path", F_OTHER, true }, { "X-Spam-Flag", F_OTHER, true },
	{ "Content-MD5", F_MD5, false }, { "Followup-To", F_OTHER, true },
	{ "MIME-Version", F_MIME_VERSION, true }, { "Content-Type", F_CONTENT_TYPE, true }, { "Delivered-To", F_OTHER, true },
	{ "List-Archive", F_OTHER, true }, { "Thread-Topic", F_OTHER, true },
	{ "Mail-Reply-To", F_OTHER, true }, { "X-Spam-Status", F_OTHER, true },
	{ "Auto-Submitted", F_OTHER, true }, { "X-Draft-Info", F_OTHER, true },
	{ "Mail-Followup-To", F_OTHER, true }, { "List-Unsubscribe", F_OTHER, true }, { "Content-Language", F_LANGUAGE, false },
	{ "Content-Location", F_LOCATION, false },
	{ "Content-Disposition", F_DISPOSITION, true }, { "Content-Description", F_DESCRIPTION, false },
	{ "Return-Receipt-To", F_OTHER, true },
	{ "List-Unsubscribe-Post", F_OTHER, true },
	{ "Content-Transfer-Encoding", F_CTE, true },
	{ "Disposition-Notification-To", F_OTHER, true },
};

const char *const mime_cached_fields[] = {
	"To", "Cc", "Bcc", "Date", "From", "Sender", "Subject", "List-Id", "Reply-To", "Priority", "List-Post", "Message-ID",
	"References", "Newsgroups", "X-Priority", "Importance", "In-Reply-To", "Return-Path", "X-Spam-Flag", "Followup-To",
	"MIME-Version", "Content-Type", "Delivered-To", "List-Archive", "Thread-Topic", "Mail-Reply-To", "X-Spam-Status",
	"Auto-Submitted", "X-Draft-Info", "Mail-Followup-To", "List-Unsubscribe", "Content-Disposition", "Return-Receipt-To",
	"List-Unsubscribe-Post", "Content-Transfer-Encoding", "Disposition-Notification-To", NULL
};

/* A byte that tells most names apart, so that few are compared in full. */
static unsigned name_hash(const char *s, size_t len)
{
	return (unsigned)(len * 7 + ascii_lower((unsigned char)s[0]) * 3 + ascii_lower((unsigned char)s[len - 1])) & 127;
}

/* Heads of chains through names[], +1; filled once before main's threads. */
static uint8_t hash_head[128], hash_next[MEM_COUNT(names)];

__attribute__((constructor)) static void hash_fill(void)
{
	size_t i;

	for (i = 0; i < MEM_COUNT(names); i++) {
		unsigned h = name_hash(names[i].name, strlen(names[i].name));

		hash_next[i] = hash_head[h];
		hash_head[h] = (uint8_t)(i + 1);
	}
}

static const struct field_name *field_lookup(const char *name, size_t len)
{
	uint8_t i;

	if (!len)
		return NULL;
	for (i = hash_head[name_hash(name, len)]; i; i = hash_next[i - 1])
		if (ascii_is(name, len, names[i - 1].name))
			return &names[i - 1];
	return NULL;
}

bool mime_header_is_cached(const char *name)
{
	const struct field_name *f = field_lookup(name, strlen(name));

	return f && f->cached;
}

/* The byte after the line at s. */
static const char *line_next(const char *s, const char *end)
{
	const char *nl = memchr(s, '\n', (size_t)(end - s));

	return nl ? nl + 1 : end;
}

static bool is_empty_line(const char *s, const char *next)
{
	return next - s == 0 || s[0] == '\n' || (s[0] == '\r' && next - s == 2 && s[1] == '\n');
}

int mime_header_next(const void *header, size_t len, size_t *pos, struct mime_field *out)
{
	const char *end = (const char *)header + len, *s = (const char *)header + *pos, *next, *colon, *stop;

	if (*pos >= len)
		return 0;
	next = line_next(s, end);
	if (is_empty_line(s, next)) {
		*pos = len;
		return 0;
	}
	colon = memchr(s, ':', (size_t)(next - s));
	while (next < end && (*next == ' ' || *next == '\t'))
		next = line_next(next, end);
	out->raw = s;
	out->raw_len = (size_t)(next - s);
	*pos = (size_t)(next - (const char *)header);
	stop = next;
	if (stop > s && stop[-1] == '\n')
		stop--;
	while (stop > s && stop[-1] == '\r' && stop < next)
		stop--;
	if (!colon || colon > stop) {	/* a line that is no field: all name, no value */
		out->name = s;
		out->name_len = 0;
		out->value = stop;
		out->value_len = 0;
		return 1;
	}
	out->name = s;
	out->name_len = (size_t)(colon - s);
	while (out->name_len && (s[out->name_len - 1] == ' ' || s[out->name_len - 1] == '\t'))
		out->name_len--;
	for (colon++; colon < stop && (*colon == ' ' || *colon == '\t');)
		colon++;
	out->value = colon;
	out->value_len = (size_t)(stop - colon);
	return 1;
}

void mime_header_filter(const void *header, size_t len, const char *const *wanted, size_t n, bool invert, struct buf *out)
{
	struct mime_field f;
	size_t pos = 0, i;

	while (mime_header_next(header, len, &pos, &f)) {
		for (i = 0; i < n; i++)
			if (ascii_is(f.name, f.name_len, wanted[i]) && f.name_len)
				break;
		if ((i < n) == invert)
			continue;
		buf_add(out, f.raw, f.raw_len);
		if (f.raw_len && f.raw[f.raw_len - 1] != '\n')
			buf_add(out, "\r\n", 2);	/* the message ended inside it */
	}
	buf_add(out, "\r\n", 2);
}

static void index_add(struct hindex *ix, const char *header, const struct mime_field *f, const struct field_name *known)
{
	struct hindex_field *e;

	if (ix->n >= HINDEX_MAX) {
		ix->truncated = true;
		return;
	}
	mem_grow(&ix->f, &ix->cap, ix->n + 1, sizeof(*ix->f));
	e = &ix->f[ix->n++];
	e->id = known->id;
	e->cached = known->cached;
	e->raw = (uint32_t)(f->raw - header);
	e->raw_len = (uint32_t)f->raw_len;
	e->value = (uint32_t)(f->value - header);
	e->value_len = (uint32_t)f->value_len;
	if (known->cached)
		ix->cached_len += f->raw_len;
}

void hindex_build(struct hindex *ix, const void *header, size_t len, bool drop_last)
{
	const struct field_name *known;
	struct mime_field f;
	size_t pos = 0;

	if (len > UINT32_MAX) {
		len = UINT32_MAX;
		drop_last = true;
	}
	ix->n = ix->cached_len = 0;
	ix->truncated = drop_last;
	while (mime_header_next(header, len, &pos, &f)) {
		if (drop_last && pos >= len)
			break;
		known = field_lookup(f.name, f.name_len);
		if (known)
			index_add(ix, header, &f, known);
	}
}

void hindex_free(struct hindex *ix)
{
	free(ix->f);
	memset(ix, 0, sizeof(*ix));
}

const struct hindex_field *hindex_first(const struct hindex *ix, enum field_id id)
{
	size_t i;

	for (i = 0; i < ix->n; i++)
		if (ix->f[i].id == id)
			return &ix->f[i];
	return NULL;
}
