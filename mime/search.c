/* Substring search under i;unicode-casemap (RFC 5051): both sides are mapped
 * to title case and decomposed, then compared as UTF-8 bytes by Knuth, Morris
 * and Pratt, which needs no look back and so works on a stream. */
#include "mime/mime-private.h"

#include "base/mem.h"

#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>

struct mime_needle {
	unsigned char *s;	/* mapped */
	uint32_t *fail;		/* longest border of s[0, i) */
	size_t len;
	bool begin[256];	/* bytes of a text that cannot be skipped outside a match */
};

struct mime_match {
	const struct mime_needle *n;
	size_t at;		/* bytes of the needle matched */
	bool found;
	unsigned char cut[4];	/* a character cut by the end of a piece */
	size_t n_cut;
};

/* Decomposes fully; nested mappings are few and short. */
static void decompose(uint32_t c, unsigned level, struct buf *out)
{
	ucs4_t parts[UC_DECOMPOSITION_MAX_LENGTH];
	int tag, n = -1, i;

	if (c >= 0xa0 && level < 8)
		n = uc_decomposition(c, &tag, parts);
	if (n <= 0) {
		utf8_put(out, c);
		return;
	}
	for (i = 0; i < n; i++)
		decompose(parts[i], level + 1, out);
}

static void map_char(uint32_t c, struct buf *out)
{
	decompose(uc_totitle(c), 0, out);
}

static inline unsigned char map_ascii(unsigned char c)
{
	return c >= 'a' && c <= 'z' ? (unsigned char)(c - 32) : c;
}

/* Bytes that are no UTF-8 compare as U+FFFD. */
static void map_text(const unsigned char *s, size_t len, struct buf *out)
{
	const unsigned char *end = s + len;
	size_t n;

	for (; s < end; s += n) {
		n = utf8_length(s, (size_t)(end - s));
		if (n == 1)
			buf_addc(out, map_ascii(*s));
		else
			map_char(n ? utf8_get(s, n) : 0xfffd, out);
		n += !n;
	}
}

struct mime_needle *mime_needle_new(const char *utf8, size_t len)
{
	struct mime_needle *n = MEM_NEW(struct mime_needle);
	struct buf mapped = BUF_INIT(0);
	size_t i, k = 0, c;

	map_text((const unsigned char *)utf8, len, &mapped);
	n->len = mapped.len;
	n->s = mem_dup(buf_str(&mapped), mapped.len);
	buf_free(&mapped);
	n->fail = mem_calloc(n->len + 1, sizeof(*n->fail));
	for (i = 1; i < n->len; i++) {
		while (k && n->s[i] != n->s[k])
			k = n->fail[k];
		if (n->s[i] == n->s[k])
			k++;
		n->fail[i + 1] = (uint32_t)k;
	}
	for (c = 0; c < 256; c++)
		n->begin[c] = c >= 0x80 || (n->len && map_ascii((unsigned char)c) == n->s[0]);
	return n;
}

void mime_needle_free(struct mime_needle **np)
{
	struct mime_needle *n = *np;

	if (!n)
		return;
	free(n->s);
	free(n->fail);
	free(n);
	*np = NULL;
}

static inline bool step(struct mime_match *m, unsigned char c)
{
	const struct mime_needle *n = m->n;

	while (m->at && n->s[m->at] != c)
		m->at = n->fail[m->at];
	if (n->s[m->at] == c)
		m->at++;
	return m->at == n->len;
}

static bool step_char(struct mime_match *m, uint32_t c)
{
	unsigned char room[256];
	struct buf mapped = { room, 0, sizeof(room), sizeof(room) - 1, false };
	size_t i;

	map_char(c, &mapped);
	for (i = 0; i < mapped.len; i++)
		if (step(m, mapped.data[i]))
			return true;
	return false;
}

/* Takes what it can of s; *cut tells how many bytes at the end were not. */
static bool search(struct mime_match *m, const unsigned char *s, size_t len, bool last, size_t *cut)
{
	const unsigned char *end = s + len;
	const bool *begin = m->n->begin;
	size_t n;

	*cut = 0;
	while (s < end) {
		if (!m->at)
			while (s < end && !begin[*s])
				s++;
		if (s == end)
			return false;
		if (*s < 0x80) {
			if (step(m, map_ascii(*s++)))
				return true;
			continue;
		}
		n = utf8_length(s, (size_t)(end - s));
		if (!n && !last && utf8_cut(s, (size_t)(end - s))) {
			*cut = (size_t)(end - s);
			return false;
		}
		if (step_char(m, n ? utf8_get(s, n) : 0xfffd))
			return true;
		s += n ? n : 1;
	}
	return false;
}

bool mime_needle_in(const struct mime_needle *n, const char *utf8, size_t len)
{
	struct mime_match m = { .n = n };
	size_t cut;

	return !n->len || search(&m, (const unsigned char *)utf8, len, true, &cut);
}

struct mime_match *mime_match_new(const struct mime_needle *n)
{
	struct mime_match *m = MEM_NEW(struct mime_match);

	m->n = n;
	m->found = !n->len;
	return m;
}

void mime_match_free(struct mime_match **m)
{
	free(*m);
	*m = NULL;
}

bool mime_match_feed(struct mime_match *m, const char *utf8, size_t len)
{
	const unsigned char *s = (const unsigned char *)utf8;
	size_t cut;

	while (m->n_cut && len && !m->found) {
		m->cut[m->n_cut++] = *s++;
		len--;
		m->found = search(m, m->cut, m->n_cut, false, &cut);
		memmove(m->cut, m->cut + m->n_cut - cut, cut);
		m->n_cut = cut;
	}
	if (m->found || !len)
		return m->found;
	m->found = search(m, s, len, false, &cut);
	if (!m->found) {
		memcpy(m->cut, s + len - cut, cut);
		m->n_cut = cut;
	}
	return m->found;
}
