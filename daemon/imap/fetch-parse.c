/* The FETCH command line: items, sections, modifiers (RFC 9051 sections 6.4.5
 * and 9, RFC 3516, RFC 7162, RFC 8514, RFC 8970). */
#include <strings.h>

#include "base/mem.h"
#include "daemon/imap/fetch.h"
#include "daemon/imap/imap.h"

enum { ITEMS_MAX = 100, FIELDS_MAX = 200, PATH_MAX_DEPTH = 100 };

static struct fetch_item *add_item(struct lex *lx, struct fetch *f, enum fetch_kind kind, const char *label)
{
	struct fetch_item *it;

	if (f->n_items == ITEMS_MAX) {
		lex_fail(lx, "More than %d items", ITEMS_MAX);
		return NULL;
	}
	if (!f->items)
		f->items = arena_alloc(lx->arena, ITEMS_MAX * sizeof(*f->items));
	it = &f->items[f->n_items++];
	it->kind = kind;
	it->label = label;
	it->label_len = strlen(label);
	it->len = UINT64_MAX;
	f->has_uid |= kind == FETCH_UID;
	f->has_flags |= kind == FETCH_FLAGS;
	f->has_modseq |= kind == FETCH_MODSEQ;
	f->needs_summary |= kind >= FETCH_ENVELOPE;
	return it;
}

/* Items that are one word; longer names before their beginnings. */
static const struct { const char *word; enum fetch_kind kind; } simple_items[] = {
	{ "FLAGS", FETCH_FLAGS }, { "UID", FETCH_UID }, { "INTERNALDATE", FETCH_INTERNALDATE },
	{ "RFC822.SIZE", FETCH_SIZE }, { "ENVELOPE", FETCH_ENVELOPE }, { "BODYSTRUCTURE", FETCH_BODYSTRUCTURE },
	{ "MODSEQ", FETCH_MODSEQ }, { "SAVEDATE", FETCH_SAVEDATE }
};

static const struct { const char *word; enum fetch_kind kinds[5]; size_t n; } macros[] = {
	{ "ALL", { FETCH_FLAGS, FETCH_INTERNALDATE, FETCH_SIZE, FETCH_ENVELOPE }, 4 },
	{ "FAST", { FETCH_FLAGS, FETCH_INTERNALDATE, FETCH_SIZE }, 3 },
	{ "FULL", { FETCH_FLAGS, FETCH_INTERNALDATE, FETCH_SIZE, FETCH_ENVELOPE, FETCH_BODY }, 5 }
};

static const char *const kind_labels[] = { "UID ", "FLAGS ", "INTERNALDATE ", "RFC822.SIZE ", "MODSEQ (", "SAVEDATE ",
	"ENVELOPE ", "BODY ", "BODYSTRUCTURE ", "PREVIEW " };

static bool add_simple(struct lex *lx, struct fetch *f, enum fetch_kind kind)
{
	return add_item(lx, f, kind, kind_labels[kind]) != NULL;
}

static bool header_list(struct lex *lx, struct fetch_item *it)
{
	size_t len;
	char *name;

	it->fields = arena_alloc(lx->arena, FIELDS_MAX * sizeof(*it->fields));
	it->cached = it->section == SECTION_FIELDS && !it->depth;
	if (!lex_sp(lx) || !lex_char(lx, '('))
		return false;
	do {
		if (it->n_fields == FIELDS_MAX)
			return lex_fail(lx, "More than %d header fields", FIELDS_MAX);
		if (!lex_astring(lx, "The name of a header field", &name, &len))
			return false;
		it->fields[it->n_fields++] = name;
		if (!mime_header_is_cached(name))
			it->cached = false;
	} while (lex_at(lx, ' ') && lex_sp(lx));
	return lex_char(lx, ')');
}

/* "1.2.3." before the text part; *dot: a dot was last, so that a word must follow. */
static bool section_path(struct lex *lx, struct fetch_item *it, bool *dot)
{
	uint64_t n;

	*dot = false;
	while (lx->p < lx->end && *lx->p >= '0' && *lx->p <= '9') {
		if (it->depth == PATH_MAX_DEPTH)
			return lex_fail(lx, "A section has at most %d numbers", PATH_MAX_DEPTH);
		if (!it->path)
			it->path = arena_alloc(lx->arena, PATH_MAX_DEPTH * sizeof(*it->path));
		if (!lex_nz_number(lx, "A part number", UINT32_MAX, &n))
			return false;
		it->path[it->depth++] = (uint32_t)n;
		*dot = lex_at(lx, '.');
		if (!*dot)
			return true;
		lx->p++;
	}
	return !lx->failed;
}

static bool section_text(struct lex *lx, struct fetch_item *it)
{
	if (lex_word_is(lx, "HEADER.FIELDS.NOT")) {
		it->section = SECTION_FIELDS_NOT;
		return header_list(lx, it);
	}
	if (lex_word_is(lx, "HEADER.FIELDS")) {
		it->section = SECTION_FIELDS;
		return header_list(lx, it);
	}
	if (lex_word_is(lx, "HEADER"))
		it->section = SECTION_HEADER;
	else if (lex_word_is(lx, "TEXT"))
		it->section = SECTION_TEXT;
	else if (it->depth && lex_word_is(lx, "MIME"))
		it->section = SECTION_MIME;
	else
		return lex_fail(lx, "There is no such section");
	return true;
}

static bool parse_partial(struct lex *lx, struct fetch_item *it)
{
	if (!lex_at(lx, '<'))
		return !lx->failed;
	return lex_char(lx, '<') && lex_number(lx, "The offset of a partial fetch", INT64_MAX, &it->off) && lex_char(lx, '.') &&
		lex_nz_number(lx, "The length of a partial fetch", INT64_MAX, &it->len) && lex_char(lx, '>');
}

static const char *const section_names[] = { "", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME" };

/* "BODY[1.HEADER.FIELDS (From)]<0> " as it stands in the response. */
static void make_label(struct lex *lx, struct fetch_item *it, const char *name)
{
	struct buf b = BUF_INIT(0);
	size_t i;

	buf_adds(&b, name);
	buf_addc(&b, '[');
	for (i = 0; i < it->depth; i++)
		buf_addf(&b, "%s%u", i ? "." : "", it->path[i]);
	if (it->depth && it->section != SECTION_ALL)
		buf_addc(&b, '.');
	buf_adds(&b, section_names[it->section]);
	for (i = 0; i < it->n_fields; i++) {
		buf_adds(&b, i ? " " : " (");
		imap_put_astring(&b, it->fields[i], strlen(it->fields[i]));
	}
	buf_adds(&b, it->n_fields ? ")]" : "]");
	if (it->len != UINT64_MAX)
		buf_addf(&b, "<%llu>", (unsigned long long)it->off);
	buf_addc(&b, ' ');
	it->label = arena_strndup(lx->arena, b.data, b.len);
	it->label_len = b.len;
	buf_free(&b);
}

/* What follows BODY, BODY.PEEK, BINARY, BINARY.PEEK, BINARY.SIZE: at '['. */
static bool parse_section(struct lex *lx, struct fetch *f, const char *name, enum fetch_kind kind)
{
	struct fetch_item *it = add_item(lx, f, kind, "");
	bool dot;

	if (!it || !lex_char(lx, '[') || !section_path(lx, it, &dot))
		return false;
	it->binary = name[1] == 'I';
	if (dot || (!it->depth && !lex_at(lx, ']'))) {
		if (it->binary)
			return lex_fail(lx, "Only part numbers may stand in BINARY[]");
		if (!section_text(lx, it))
			return false;
	}
	if (!lex_char(lx, ']') || (kind == FETCH_SECTION && !parse_partial(lx, it)))
		return false;
	make_label(lx, it, name);
	if (!it->cached)
		f->needs_body = true;
	return true;
}

/* RFC822, RFC822.HEADER, RFC822.TEXT: BODY[...] under another name. */
static bool add_rfc822(struct lex *lx, struct fetch *f, enum fetch_section section, const char *label)
{
	struct fetch_item *it = add_item(lx, f, FETCH_SECTION, label);

	if (!it)
		return false;
	it->section = section;
	f->needs_body = true;
	f->sets_seen |= section != SECTION_HEADER;
	return true;
}

static bool parse_preview(struct lex *lx, struct fetch *f)
{
	struct fetch_item *it = add_item(lx, f, FETCH_PREVIEW, kind_labels[FETCH_PREVIEW]);

	if (!it)
		return false;
	if (lx->end - lx->p < 2 || lx->p[0] != ' ' || lx->p[1] != '(')
		return true;
	lx->p += 2;
	do {
		if (!lex_word_is(lx, "LAZY"))
			return lex_fail(lx, "LAZY is the only modifier of PREVIEW");
	} while (lex_at(lx, ' ') && lex_sp(lx));
	it->lazy = true;
	return lex_char(lx, ')');
}

static bool parse_body_item(struct lex *lx, struct fetch *f)
{
	if (lex_word_is(lx, "BODY.PEEK") && lex_at(lx, '['))
		return parse_section(lx, f, "BODY", FETCH_SECTION);
	if (lex_word_is(lx, "BODY")) {
		if (!lex_at(lx, '['))
			return add_simple(lx, f, FETCH_BODY);
		f->sets_seen = true;
		return parse_section(lx, f, "BODY", FETCH_SECTION);
	}
	if (lex_word_is(lx, "BINARY.PEEK"))
		return parse_section(lx, f, "BINARY", FETCH_SECTION);
	if (lex_word_is(lx, "BINARY.SIZE"))
		return parse_section(lx, f, "BINARY.SIZE", FETCH_BINARY_SIZE);
	if (lex_word_is(lx, "BINARY")) {
		f->sets_seen = true;
		return parse_section(lx, f, "BINARY", FETCH_SECTION);
	}
	return lex_fail(lx, "There is no such FETCH item");
}

static bool parse_item(struct lex *lx, struct fetch *f)
{
	size_t i;

	for (i = 0; i < MEM_COUNT(simple_items); i++)
		if (lex_word_is(lx, simple_items[i].word))
			return add_simple(lx, f, simple_items[i].kind);
	if (lex_word_is(lx, "PREVIEW"))
		return parse_preview(lx, f);
	if (lex_word_is(lx, "RFC822.HEADER"))
		return add_rfc822(lx, f, SECTION_HEADER, "RFC822.HEADER ");
	if (lex_word_is(lx, "RFC822.TEXT"))
		return add_rfc822(lx, f, SECTION_TEXT, "RFC822.TEXT ");
	if (lex_word_is(lx, "RFC822"))
		return add_rfc822(lx, f, SECTION_ALL, "RFC822 ");
	return parse_body_item(lx, f);
}

static bool parse_items(struct lex *lx, struct fetch *f)
{
	size_t i, k;

	for (i = 0; i < MEM_COUNT(macros); i++) {
		if (lex_word_is(lx, macros[i].word)) {
			for (k = 0; k < macros[i].n; k++)
				add_simple(lx, f, macros[i].kinds[k]);
			return !lx->failed;
		}
	}
	if (!lex_at(lx, '('))
		return parse_item(lx, f);
	lx->p++;
	do {
		if (!parse_item(lx, f))
			return false;
	} while (lex_at(lx, ' ') && lex_sp(lx));
	return lex_char(lx, ')');
}

/* "(CHANGEDSINCE 12345 VANISHED)": RFC 7162 sections 3.1.4.1 and 3.2.6. */
static bool parse_modifiers(struct imap_session *s, struct lex *lx, struct fetch *f)
{
	bool changedsince = false;

	if (!lex_char(lx, '('))
		return false;
	do {
		if (lex_word_is(lx, "CHANGEDSINCE")) {
			if (!lex_sp(lx) || !lex_number(lx, "A mod-sequence", INT64_MAX, &f->changedsince))
				return false;
			changedsince = true;
		} else if (lex_word_is(lx, "VANISHED")) {
			f->vanished = true;
		} else {
			return lex_fail(lx, "There is no such modifier of FETCH");
		}
	} while (lex_at(lx, ' ') && lex_sp(lx));
	if (f->vanished && !s->cmd.uid)
		return lex_fail(lx, "VANISHED is only for UID FETCH");
	if (f->vanished && !s->qresync)
		return lex_fail(lx, "VANISHED needs ENABLE QRESYNC first");
	if (f->vanished && !changedsince)
		return lex_fail(lx, "VANISHED needs CHANGEDSINCE");
	if (changedsince && !f->has_modseq)
		add_simple(lx, f, FETCH_MODSEQ);
	return lex_char(lx, ')');
}

bool fetch_parse(struct imap_session *s, struct lex *lx, struct fetch *f)
{
	if (!parse_items(lx, f))
		return false;
	if (lex_at(lx, ' ') && !(lex_sp(lx) && parse_modifiers(s, lx, f)))
		return false;
	if (s->cmd.uid && !f->has_uid) {	/* first, as clients expect it */
		if (!add_simple(lx, f, FETCH_UID))
			return false;
		memmove(f->items + 1, f->items, (f->n_items - 1) * sizeof(*f->items));
		memset(f->items, 0, sizeof(*f->items));
		f->items[0].kind = FETCH_UID;
		f->items[0].label = kind_labels[FETCH_UID];
		f->items[0].label_len = strlen(kind_labels[FETCH_UID]);
	}
	return lex_end(lx);
}

void fetch_changes_program(struct imap_session *s, struct fetch *f, uint64_t since)
{
	add_simple(&s->cmd.lex, f, FETCH_UID);
	add_simple(&s->cmd.lex, f, FETCH_FLAGS);
	add_simple(&s->cmd.lex, f, FETCH_MODSEQ);
	f->changedsince = since;
}
