/* Looking into messages: their whole header and their decoded text. */
#include <strings.h>

#include "base/mem.h"
#include "daemon/imap/imap.h"
#include "daemon/imap/search.h"

enum { CHUNK = 64 * 1024, HEADER_MAX = 4 * 1024 * 1024, PATH_MAX_DEPTH = 128 };

struct scan {
	const struct search *q;
	bool *hits;
	const struct mime_summary *sum;
	struct obox_body *body;
	struct buf raw, decoded, text;
	uint32_t path[PATH_MAX_DEPTH];	/* of the leaf before */
	size_t depth;
	int rc;
	struct err *err;
};

/* Is anything left to be found by reading on? */
static bool all_hit(const struct scan *sc)
{
	const struct search_key *k;

	for (k = sc->q->owned; k; k = k->next_text)
		if ((k->kind == KEY_BODY || k->kind == KEY_TEXT) && !sc->hits[k->nr])
			return false;
	return true;
}

static int read_raw(struct scan *sc, uint64_t off, uint64_t len)
{
	uint64_t size = obox_body_size(sc->body);
	void *p;

	buf_clear(&sc->raw);
	if (off >= size)
		return 0;
	if (len > size - off)
		len = size - off;
	p = buf_reserve(&sc->raw, (size_t)len);
	if (!p)
		return ERR_LIMIT;
	sc->rc = len ? obox_body_read(sc->body, off, p, (size_t)len, sc->err) : 0;
	if (sc->rc == 0)
		sc->raw.len = (size_t)len;
	return sc->rc;
}

/* One header field against the keys that look at headers of this kind. */
static void match_field(struct scan *sc, const struct mime_field *f, bool main_header, bool body_too)
{
	struct search_key *k;
	bool decoded = false;
	size_t value = 0;

	for (k = sc->q->owned; k; k = k->next_text) {
		bool named = k->kind == KEY_HEADER && main_header && f->name_len == strlen(k->field) &&
			!strncasecmp(f->name, k->field, f->name_len);

		bool *hit = &sc->hits[k->nr];

		if (*hit || !(named || k->kind == KEY_TEXT || (body_too && k->kind == KEY_BODY)))
			continue;
		if (!decoded) {
			buf_clear(&sc->text);
			buf_add(&sc->text, f->name, f->name_len);
			buf_adds(&sc->text, ": ");
			value = sc->text.len;
			mime_header_decode(f->value, f->value_len, &sc->text);
			decoded = true;
		}
		if (!k->needle)
			*hit = true;
		else if (named)
			*hit = mime_needle_in(k->needle, buf_str(&sc->text) + value, sc->text.len - value);
		else
			*hit = mime_needle_in(k->needle, buf_str(&sc->text), sc->text.len);
	}
}

static int scan_header(struct scan *sc, uint64_t off, uint64_t len, bool main_header, bool body_too)
{
	struct mime_field f;
	size_t pos = 0;

	if (read_raw(sc, off, len < HEADER_MAX ? len : HEADER_MAX) < 0)
		return sc->rc;
	while (sc->raw.len && mime_header_next(sc->raw.data, sc->raw.len, &pos, &f) == 1)
		match_field(sc, &f, main_header, body_too);
	return 0;
}

struct leaf {
	struct mime_cte *cte;
	struct mime_charset *charset;
	bool **hits;			/* of the keys that are still open */
	struct mime_match **matches;
	size_t n;
};

/* Feeds decoded text to the keys still open; false when none is. */
static bool feed_matches(struct leaf *l, const struct buf *text)
{
	bool open = false;
	size_t i;

	for (i = 0; i < l->n; i++) {
		if (!*l->hits[i] && text->len)
			*l->hits[i] = mime_match_feed(l->matches[i], (const char *)text->data, text->len);
		open |= !*l->hits[i];
	}
	return open;
}

static void open_leaf(struct scan *sc, struct leaf *l, const struct mime_part *part)
{
	struct search_key *k;

	l->cte = mime_cte_new(part->encoding);
	l->charset = mime_charset_new(part->charset);
	l->hits = mem_calloc(sc->q->n_keys + 1, sizeof(*l->hits));
	l->matches = mem_calloc(sc->q->n_keys + 1, sizeof(*l->matches));
	l->n = 0;
	for (k = sc->q->owned; k; k = k->next_text) {
		if (sc->hits[k->nr] || (k->kind != KEY_BODY && k->kind != KEY_TEXT))
			continue;
		l->hits[l->n] = &sc->hits[k->nr];
		l->matches[l->n++] = mime_match_new(k->needle);
	}
}

static void close_leaf(struct leaf *l)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		mime_match_free(&l->matches[i]);
	free(l->matches);
	free(l->hits);
	mime_cte_free(&l->cte);
	mime_charset_free(&l->charset);
}

static void scan_leaf(struct scan *sc, const struct mime_part *part)
{
	uint64_t pos = part->body_off, end = part->body_off + part->body_len;
	struct leaf l;
	bool open = true;

	open_leaf(sc, &l, part);
	while (open && pos < end) {
		if (read_raw(sc, pos, end - pos < CHUNK ? end - pos : CHUNK) < 0 || !sc->raw.len)
			break;
		pos += sc->raw.len;
		buf_clear(&sc->decoded);
		buf_clear(&sc->text);
		mime_cte_feed(l.cte, sc->raw.data, sc->raw.len, &sc->decoded);
		mime_charset_feed(l.charset, sc->decoded.data, sc->decoded.len, &sc->text);
		open = feed_matches(&l, &sc->text);
	}
	if (open && sc->rc == 0) {
		buf_clear(&sc->decoded);
		buf_clear(&sc->text);
		mime_cte_finish(l.cte, &sc->decoded);
		if (sc->decoded.len)
			mime_charset_feed(l.charset, sc->decoded.data, sc->decoded.len, &sc->text);
		mime_charset_finish(l.charset, &sc->text);
		feed_matches(&l, &sc->text);
	}
	close_leaf(&l);
}

/* The headers of forwarded messages on the way to a leaf, each once. */
static bool scan_inner_headers(struct scan *sc, const uint32_t *path, size_t depth)
{
	struct mime_part part;
	size_t d, known = 0;

	while (known < depth && known < sc->depth && path[known] == sc->path[known])
		known++;
	for (d = known + 1; d <= depth; d++)
		if (mime_summary_part(sc->sum, path, d, &part) == 1 && part.kind == MIME_MESSAGE &&
		    scan_header(sc, part.inner_header_off, part.inner_header_len, false, true) < 0)
			return false;
	sc->depth = depth < PATH_MAX_DEPTH ? depth : PATH_MAX_DEPTH;
	memcpy(sc->path, path, sc->depth * sizeof(*path));
	return true;
}

static bool on_leaf(void *ctx, const struct mime_part *part, const uint32_t *path, size_t depth)
{
	struct scan *sc = ctx;

	if (!scan_inner_headers(sc, path, depth))
		return false;
	/* its own header (file names): only for TEXT; that of the message itself was read before */
	if (part->header_off && scan_header(sc, part->header_off, part->header_len, false, false) < 0)
		return false;
	if (!strcmp(part->type, "text") || !strcmp(part->type, "message"))
		scan_leaf(sc, part);
	return sc->rc == 0 && !all_hit(sc);
}

int search_text(struct imap_session *s, const struct search *q, const struct obox_msg *m, const struct mime_summary *sum, bool *hits, struct err *err)
{
	struct scan *sc;
	int rc;

	sc = MEM_NEW(struct scan);
	sc->q = q;
	sc->hits = hits;
	sc->sum = sum;
	sc->err = err;
	rc = obox_body_open(s->user, m, &sc->body, err);
	if (rc == 0) {
		rc = scan_header(sc, 0, sum->header_size, true, false);
		if (rc == 0 && !all_hit(sc)) {
			mime_summary_each_leaf(sum, on_leaf, sc);
			rc = sc->rc;
		}
	}
	obox_body_close(&sc->body);
	buf_free(&sc->raw);
	buf_free(&sc->decoded);
	buf_free(&sc->text);
	free(sc);
	return rc;
}
