/* The streaming pass: bytes in any cuts, one summary out.
 *
 * The message is a tree of parts that are open from the root down to the
 * current one; boundaries[] has the delimiters that can end them, innermost
 * last.  At the start of a line that begins with "--" the line is compared
 * with them (RFC 2046 section 5.1.1); everything else of a body is only
 * counted.  Header blocks are collected, bounded, and read when they end.
 *
 *   HEADER --empty line--> BODY (leaf, multipart preamble)
 *     |  ^  `--message/rfc822--> HEADER of the message inside
 *     |  |
 *     | SKIP (rest of a delimiter line) --closing delimiter--> BODY (epilogue)
 *     |  ^                                                       |
 *     `--+------------------- delimiter -------------------------'
 *
 * The line end before a delimiter belongs to it, so bodies end before it.
 * Nothing depends on where the input was cut: bytes that may begin a
 * delimiter wait in held[] until the line is long enough to tell. */
#include "mime/mime-private.h"

#include "base/mem.h"

enum { HELD_MAX = 2 + BOUNDARY_MAX + 3, DEPTH_CEILING = 200 };
enum state { HEADER, BODY, SKIP };

struct boundary {
	uint32_t part;
	uint16_t len;
	char text[BOUNDARY_MAX];
};

struct mime_parser {
	struct mime_limits lim;
	uint64_t pos;			/* of the next byte; held bytes are still to come */
	uint64_t lines;			/* LFs so far */
	uint32_t flags;
	enum state state;
	bool bol;			/* at the start of a line, which was not looked at yet */
	bool cr;			/* the byte before was CR */
	bool closing;			/* SKIP: the delimiter was the last of its multipart */
	bool full;			/* no more parts: a limit was reached */
	unsigned eol;			/* length of the line end before this line */
	uint32_t current;		/* part */

	struct part *parts;
	size_t n_parts, cap_parts;
	struct boundary *boundaries;
	size_t n_boundaries, cap_boundaries;
	size_t structure;		/* bytes that rendering the parts will take, about */

	struct buf header;		/* of the current part, in state HEADER */
	bool header_cut;
	uint64_t header_line;		/* length of its last, unfinished line */
	struct hindex index;
	struct partinfo info;
	struct buf pool;		/* texts of all parts; then of the message */
	size_t headers, headers_len;	/* of the message, in pool */
	size_t envelope, envelope_len;
	int64_t date;
	int32_t zone;

	struct buf preview;		/* first bytes of the part to preview */
	uint32_t preview_part;
	enum { PREVIEW_NONE, PREVIEW_HTML, PREVIEW_TEXT } preview_kind;
	size_t preview_want;		/* bytes still to take, while current == preview_part */
	char preview_charset[NAME_MAX_LEN + 1];

	unsigned char held[HELD_MAX];
	size_t n_held;
};

static void set_limits(struct mime_limits *l, const struct mime_limits *given)
{
	static const struct mime_limits defaults = { 100, 10000, 1 << 20, 512 << 10, 200 };

	*l = given ? *given : defaults;
#define DEFAULT(m) if (!l->m) l->m = defaults.m
	DEFAULT(max_depth);
	DEFAULT(max_parts);
	DEFAULT(max_header);
	DEFAULT(max_summary);
	DEFAULT(preview_chars);
#undef DEFAULT
	if (l->max_depth > DEPTH_CEILING)
		l->max_depth = DEPTH_CEILING;
	if (l->max_summary < 4096)
		l->max_summary = 4096;
	if (l->preview_chars > 256)
		l->preview_chars = 256;
}

/* Caller has made sure of the room.  The new part's header starts at pos. */
static void open_part(struct mime_parser *p, uint32_t parent)
{
	struct part *n;

	mem_grow(&p->parts, &p->cap_parts, p->n_parts + 1, sizeof(*p->parts));
	n = &p->parts[p->n_parts];
	memset(n, 0, sizeof(*n));
	n->parent = parent;
	n->depth = p->n_parts ? (uint16_t)(p->parts[parent].depth + 1) : 0;
	n->header_off = n->body_off = p->pos;
	p->current = (uint32_t)p->n_parts++;
	p->state = HEADER;
	buf_clear(&p->header);
	p->header_cut = false;
	p->header_line = 0;
}

struct mime_parser *mime_parser_new(const struct mime_limits *limits)
{
	struct mime_parser *p = MEM_NEW(struct mime_parser);

	set_limits(&p->lim, limits);
	buf_init(&p->header, p->lim.max_header + 1);
	buf_init(&p->pool, (size_t)p->lim.max_summary * 2);
	p->date = INT64_MIN;
	p->bol = true;
	open_part(p, 0);
	return p;
}

void mime_parser_free(struct mime_parser **pp)
{
	struct mime_parser *p = *pp;

	if (!p)
		return;
	free(p->parts);
	free(p->boundaries);
	buf_free(&p->header);
	hindex_free(&p->index);
	partinfo_free(&p->info);
	buf_free(&p->pool);
	buf_free(&p->preview);
	free(p);
	*pp = NULL;
}

/* --- the end of a header --- */

static void store(struct mime_parser *p, const struct buf *text, uint32_t *off, uint32_t *len)
{
	*off = (uint32_t)p->pool.len;
	*len = (uint32_t)text->len;
	buf_add(&p->pool, text->data, text->len);
}

/* Cached fields, dates and ENVELOPE of the message itself. */
static void message_header(struct mime_parser *p, const char *header)
{
	const struct hindex *ix = &p->index;
	size_t share = p->lim.max_summary / 4, i;

	p->headers = p->pool.len;
	if (ix->truncated || ix->cached_len > share)
		p->flags |= MIME_F_TRUNCATED;
	else
		for (i = 0; i < ix->n; i++)
			if (ix->f[i].cached)
				buf_add(&p->pool, header + ix->f[i].raw, ix->f[i].raw_len);
	p->headers_len = p->pool.len - p->headers;
	p->envelope = p->pool.len;
	if (!envelope_render(header, ix, &p->pool, share))
		p->flags |= MIME_F_TRUNCATED;
	p->envelope_len = p->pool.len - p->envelope;
	for (i = ix->n; i-- > 0;) {
		if (ix->f[i].id != F_DATE)
			continue;
		if (mime_parse_date(header + ix->f[i].value, ix->f[i].value_len, &p->date, &p->zone) < 0)
			p->date = INT64_MIN;
		break;
	}
}

/* Puts the texts of the part into the pool, unless they are too many. */
static void keep_part(struct mime_parser *p, struct part *part, bool inner, struct buf *envelope)
{
	struct partinfo *pi = &p->info;
	size_t cost = 2 * (pi->basic.len + envelope->len + 80) + pi->ext.len + pi->names.len, share = p->lim.max_summary / 2;

	if (cost > share / 4 || p->structure + cost > share) {
		partinfo_octets(pi, part);
		buf_clear(envelope);
		buf_adds(envelope, "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
		cost = 400;
		p->flags |= MIME_F_TRUNCATED;
		p->full |= p->structure + cost > share - share / 8;
	}
	p->structure += cost;
	store(p, &pi->basic, &part->basic, &part->basic_len);
	store(p, &pi->ext, &part->ext, &part->ext_len);
	store(p, &pi->names, &part->names, &part->names_len);
	if (inner)		/* the envelope is shown by the message/rfc822 part around */
		store(p, envelope, &p->parts[part->parent].envelope, &p->parts[part->parent].envelope_len);
}

static bool has_8bit(const unsigned char *s, size_t len)
{
	uint64_t w, any = 0;
	size_t i;

	for (i = 0; i + 8 <= len; i += 8) {
		memcpy(&w, s + i, 8);
		any |= w;
	}
	for (; i < len; i++)
		any |= (uint64_t)s[i] << 56;
	return any & 0x8080808080808080u;
}

/* Is this leaf what a preview is taken from?  The first text/plain; until one
 * comes, the first text/html. */
static void choose_preview(struct mime_parser *p, const struct part *part)
{
	const char *type, *sub, *charset;
	bool html;

	if (part->kind != MIME_LEAF || part->attachment || !names_type(part->type_code, &type, &sub) || strcmp(type, "text"))
		return;
	html = !strcmp(sub, "html");
	if ((!html && strcmp(sub, "plain")) || p->preview_kind == PREVIEW_TEXT || (html && p->preview_kind == PREVIEW_HTML))
		return;
	if (!names_charset(part->charset_code, &charset))
		charset = (const char *)p->info.names.data;	/* no type before it: that has a code */
	snprintf(p->preview_charset, sizeof(p->preview_charset), "%s", charset);
	buf_clear(&p->preview);
	p->preview_part = p->current;
	p->preview_kind = html ? PREVIEW_HTML : PREVIEW_TEXT;
	p->preview_want = html ? PREVIEW_HTML_BYTES : PREVIEW_TEXT_BYTES;
}

static void push_boundary(struct mime_parser *p)
{
	struct boundary *b;

	if (!p->info.boundary_given)
		return;
	mem_grow(&p->boundaries, &p->cap_boundaries, p->n_boundaries + 1, sizeof(*p->boundaries));
	b = &p->boundaries[p->n_boundaries++];
	b->part = p->current;
	b->len = (uint16_t)p->info.boundary_len;
	memcpy(b->text, p->info.boundary, b->len);
}

/* The header of the current part is complete; its body starts at pos. */
static void end_header(struct mime_parser *p)
{
	struct part *part = &p->parts[p->current];
	const char *header = buf_str(&p->header);
	bool inner = p->current && p->parts[part->parent].kind == MIME_MESSAGE;
	bool nested = part->depth < p->lim.max_depth && p->n_parts < p->lim.max_parts && !p->full;
	struct buf envelope = BUF_INIT(0);

	if (has_8bit(p->header.data, p->header.len))
		p->flags |= MIME_F_HAS_8BIT_HEADER;
	hindex_build(&p->index, header, p->header.len, p->header_cut);
	if (p->index.truncated)
		p->flags |= MIME_F_TRUNCATED;
	if (!p->current)
		message_header(p, header);
	if (inner && !envelope_render(header, &p->index, &envelope, p->lim.max_summary / 16))
		p->flags |= MIME_F_TRUNCATED;
	partinfo_read(&p->info, header, &p->index, inner || !p->current ? NULL : &p->parts[part->parent], nested, part);
	keep_part(p, part, inner, &envelope);
	buf_free(&envelope);
	if (part->attachment)
		p->flags |= MIME_F_HAS_ATTACHMENT;
	part->body_off = p->pos;
	part->first_line = p->lines;
	p->state = BODY;
	choose_preview(p, part);
	if (part->kind == MIME_MULTIPART)
		push_boundary(p);
	else if (part->kind == MIME_MESSAGE)
		open_part(p, p->current);
}

/* --- bytes --- */

/* Notes the LF at nl of a run that began at s; the line before it ends there. */
static void line_end(struct mime_parser *p, const unsigned char *s, const unsigned char *nl)
{
	p->lines++;
	p->eol = (nl > s ? nl[-1] == '\r' : p->cr) ? 2 : 1;
	if (p->eol == 1)
		p->flags |= MIME_F_BARE_LF;
	p->cr = false;
}

/* Do lines have to be compared with delimiters? */
static inline bool looking(const struct mime_parser *p)
{
	return p->n_boundaries && p->n_parts < p->lim.max_parts && !p->full;
}

/* Takes bytes of a body up to the next line that could be a delimiter. */
static size_t run_body(struct mime_parser *p, const unsigned char *s, size_t len)
{
	const unsigned char *start = s, *end = s + len, *nl;
	bool look = looking(p);
	size_t n;

	p->bol = false;
	while (s < end) {
		nl = memchr(s, '\n', (size_t)(end - s));
		if (!nl) {
			p->cr = end[-1] == '\r';
			s = end;
			break;
		}
		line_end(p, s, nl);
		s = nl + 1;
		if (s == end || (look && *s == '-')) {
			p->bol = true;
			break;
		}
	}
	n = (size_t)(s - start);
	if (p->preview_want && p->current == p->preview_part) {
		size_t take = n < p->preview_want ? n : p->preview_want;

		buf_add(&p->preview, start, take);
		p->preview_want -= take;
	}
	p->pos += n;
	return n;
}

/* Takes up to the end of a header line. */
static size_t run_header(struct mime_parser *p, const unsigned char *s, size_t len)
{
	const unsigned char *nl = memchr(s, '\n', len);
	size_t n = nl ? (size_t)(nl - s) + 1 : len;
	bool empty;

	if (!p->header_cut && n > p->lim.max_header - p->header.len) {
		p->header_cut = true;
		buf_add(&p->header, s, p->lim.max_header - p->header.len);
	} else if (!p->header_cut) {
		buf_add(&p->header, s, n);
	}
	p->header_line += n;
	p->pos += n;
	p->bol = nl != NULL;
	if (!nl) {
		p->cr = s[len - 1] == '\r';
		return n;
	}
	line_end(p, s, nl);
	empty = p->header_line == p->eol;
	p->header_line = 0;
	if (empty)
		end_header(p);
	return n;
}

/* Takes the rest of a delimiter line. */
static size_t run_skip(struct mime_parser *p, const unsigned char *s, size_t len)
{
	const unsigned char *nl = memchr(s, '\n', len);
	size_t n = nl ? (size_t)(nl - s) + 1 : len;

	p->pos += n;
	p->bol = nl != NULL;
	if (!nl) {
		p->cr = s[len - 1] == '\r';
		return n;
	}
	line_end(p, s, nl);
	p->state = BODY;
	if (!p->closing)
		open_part(p, p->current);
	return n;
}

static size_t run(struct mime_parser *p, const unsigned char *s, size_t len)
{
	if (p->state == BODY)
		return run_body(p, s, len);
	return p->state == HEADER ? run_header(p, s, len) : run_skip(p, s, len);
}

/* --- delimiters --- */

/* Which boundary a line (without "--" and its line end) begins with, -1 for
 * none: the innermost of the longest, so that one that is the beginning of
 * another does not hide it; one that fits exactly is taken at once. */
static ptrdiff_t find_boundary(const struct mime_parser *p, const unsigned char *s, size_t len, bool *closing)
{
	const struct boundary *best = NULL, *b;

	for (b = p->boundaries + p->n_boundaries; b-- > p->boundaries;) {
		if (b->len > len || (best && b->len <= best->len) || memcmp(s, b->text, b->len))
			continue;
		best = b;
		if (len == b->len || (len == b->len + 2u && !memcmp(s + b->len, "--", 2)))
			break;
	}
	if (!best)
		return -1;
	*closing = len >= best->len + 2u && !memcmp(s + best->len, "--", 2);
	return best - p->boundaries;
}

static void close_part(struct mime_parser *p, struct part *part)
{
	part->end = p->pos;
	part->lines = p->lines - part->first_line;
}

/* The line at pos is a delimiter of the multipart of boundary i: ends the parts
 * in it, before the line end that precedes it.  Even that of a header: by the
 * grammar a header directly before a delimiter has no empty line. */
static void delimiter(struct mime_parser *p, size_t i, bool closing)
{
	uint32_t multipart = p->boundaries[i].part, k;
	uint64_t pos = p->pos, lines = p->lines;
	struct part *part = &p->parts[p->current];

	if (p->state != HEADER || pos > part->header_off) {
		p->pos -= p->eol;
		p->lines--;
	}
	while (p->state == HEADER)
		end_header(p);
	part = &p->parts[p->current];
	if (p->current != multipart && part->body_off > p->pos) {
		part->body_off = p->pos;
		part->first_line = p->lines;
	}
	for (k = p->current; k != multipart; k = p->parts[k].parent)
		close_part(p, &p->parts[k]);
	p->pos = pos;
	p->lines = lines;
	p->n_boundaries = closing ? i : i + 1;
	p->current = multipart;
	p->closing = closing;
	p->state = SKIP;
}

/* Judges the line at pos, of which s has the first len bytes: all that can
 * matter.  Those bytes are still to be taken. */
static void judge(struct mime_parser *p, const unsigned char *s, size_t len)
{
	bool closing = false;
	ptrdiff_t i;

	p->bol = false;
	if (len < 2 || s[0] != '-' || s[1] != '-')
		return;
	if (s[len - 1] == '\n')
		len--;
	if (len > 2 && s[len - 1] == '\r')
		len--;
	i = find_boundary(p, s + 2, len - 2, &closing);
	if (i >= 0)
		delimiter(p, (size_t)i, closing);
}

/* Takes the held bytes, which end with a line or in one. */
static void drain(struct mime_parser *p)
{
	size_t pos, n = p->n_held;

	p->n_held = 0;
	for (pos = 0; pos < n;)
		pos += run(p, p->held + pos, n - pos);
}

/* At the start of a line: judges it, or holds bytes until there are enough.
 * Gives how many were taken. */
static size_t look(struct mime_parser *p, const unsigned char *s, size_t len)
{
	size_t room = HELD_MAX - p->n_held, n = len < room ? len : room;
	const unsigned char *nl;

	if (!p->n_held && (s[0] != '-' || (len > 1 && s[1] != '-'))) {
		p->bol = false;
		return 0;
	}
	nl = memchr(s, '\n', n);
	if (nl)
		n = (size_t)(nl - s) + 1;
	if (!p->n_held && (nl || n == room)) {
		judge(p, s, n);
		return 0;
	}
	memcpy(p->held + p->n_held, s, n);
	p->n_held += n;
	if (nl || n == room || (p->n_held > 1 && p->held[1] != '-')) {
		judge(p, p->held, p->n_held);
		drain(p);
	}
	return n;
}

void mime_parser_feed(struct mime_parser *p, const void *data, size_t len)
{
	const unsigned char *s = data, *end = s + len;

	if (!len)
		return;
	if (!(p->flags & MIME_F_HAS_NUL) && memchr(s, '\0', len))
		p->flags |= MIME_F_HAS_NUL;
	while (s < end) {
		if (p->bol && looking(p))
			s += look(p, s, (size_t)(end - s));
		if (s < end && !p->n_held && !(p->bol && looking(p)))
			s += run(p, s, (size_t)(end - s));
	}
}

void mime_parser_finish(struct mime_parser *p, struct buf *out)
{
	struct summary_parts s = { 0 };
	struct buf preview = BUF_INIT(0);
	uint32_t k;

	if (p->n_held) {
		judge(p, p->held, p->n_held);
		drain(p);
	}
	while (p->state == HEADER)
		end_header(p);
	for (k = p->current; k; k = p->parts[k].parent)
		close_part(p, &p->parts[k]);
	close_part(p, &p->parts[0]);
	if (p->preview_kind != PREVIEW_NONE)
		preview_render(p->preview.data, p->preview.len, p->parts[p->preview_part].encoding, p->preview_charset,
			p->preview_kind == PREVIEW_HTML, p->lim.preview_chars, &preview);
	s.parts = p->parts;
	s.n = p->n_parts;
	s.pool = &p->pool;
	s.envelope = (const char *)p->pool.data + p->envelope;
	s.envelope_len = p->envelope_len;
	s.headers = (const char *)p->pool.data + p->headers;
	s.headers_len = p->headers_len;
	s.preview = buf_str(&preview);
	s.preview_len = preview.len;
	s.size = p->pos;
	s.date = p->date;
	s.zone = p->date == INT64_MIN ? 0 : p->zone;
	s.flags = p->flags;
	summary_write(&s, out);
	buf_free(&preview);
}
