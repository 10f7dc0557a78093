/* Parameters of Content-Type and Content-Disposition: RFC 2045 section 5.1,
 * continuations and charsets of RFC 2231 sections 3 and 4. */
#include "mime/mime-private.h"

#include "base/mem.h"

void params_free(struct params *p)
{
	buf_free(&p->text);
	free(p->e);
	memset(p, 0, sizeof(*p));
}

/* "name==?charset?...?=", seen often enough: all up to the next space or ";". */
static void bare_encoded_word(struct tok *t, struct buf *out)
{
	const unsigned char *start = t->p;

	while (t->p < t->end && *t->p != ';' && !(tok_class[*t->p] & CH_LWSP))
		t->p++;
	buf_add(out, start, (size_t)(t->p - start));
}

/* One ";attribute=value".  1 with *e filled in, 0 at the end, -1 broken here. */
static int read_one(struct tok *t, struct buf *text, struct params_entry *e)
{
	int ret;

	if (t->p == t->end)
		return 0;
	if (*t->p != ';')
		return -1;
	t->p++;
	if (tok_cfws(t) <= 0)
		return -1;
	e->key = (uint32_t)text->len;
	if (tok_mime_token(t, text) <= 0 || *t->p != '=')
		return -1;
	e->key_len = (uint32_t)text->len - e->key;
	e->value = (uint32_t)text->len;
	t->p++;
	ret = tok_cfws(t);
	if (ret > 0) {
		if (*t->p == '"')
			ret = tok_quoted(t, text);
		else if (*t->p == '=')
			bare_encoded_word(t, text);
		else
			ret = tok_mime_token(t, text);
	}
	e->value_len = (uint32_t)text->len - e->value;
	return ret < 0 ? -1 : 1;
}

/* "key*2", "key*2*" and "key*" (as section 0 of an encoded value). */
static void split_name(const struct params *p, struct params_entry *e)
{
	const char *key = (const char *)p->text.data + e->key, *end = key + e->key_len;
	const char *star = e->key_len ? memchr(key, '*', e->key_len) : NULL, *s;
	uint32_t index = 0;

	if (!star)
		return;
	for (s = star + 1; s < end && *s >= '0' && *s <= '9' && index < 100000; s++)
		index = index * 10 + (uint32_t)(*s - '0');
	if (s == end && s == star + 1)
		e->extended = true;
	if (s < end && *s == '*') {
		e->extended = true;
		s++;
	}
	if (s < end || star == key) {
		e->extended = false;
		return;
	}
	e->continued = true;
	e->index = index;
	e->key_len = (uint32_t)(star - key);
}

static int compare_names(const struct params *p, const struct params_entry *a, const struct params_entry *b)
{
	uint32_t i, n = a->key_len < b->key_len ? a->key_len : b->key_len;

	for (i = 0; i < n; i++) {
		int d = ascii_lower(p->text.data[a->key + i]) - ascii_lower(p->text.data[b->key + i]);

		if (d)
			return d;
	}
	return (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

/* Simple parameters first, in order; then continuations by name and number. */
static bool goes_after(const struct params *p, const struct params_entry *a, const struct params_entry *b)
{
	int d;

	if (a->continued != b->continued)
		return a->continued;
	if (!a->continued)
		return false;
	d = compare_names(p, a, b);
	return d ? d > 0 : a->index > b->index;
}

static void sort(struct params *p)
{
	size_t i, j;

	for (i = 1; i < p->n; i++) {
		struct params_entry e = p->e[i];

		for (j = i; j > 0 && goes_after(p, &p->e[j - 1], &e); j--)
			p->e[j] = p->e[j - 1];
		p->e[j] = e;
	}
}

/* Appends text[from, from + len) to text itself, %-encoded for escape. */
static void append_own(struct buf *text, uint32_t from, uint32_t len, bool escape)
{
	static const char hex[] = "0123456789abcdef";
	uint32_t i;

	for (i = 0; i < len; i++) {
		unsigned char c = text->data[from + i];

		if (!escape || (c > ' ' && c < 0x80 && c != '%' && c != '*' && c != '\'' && !(tok_class[c] & CH_TSPECIAL))) {
			buf_addc(text, c);
			continue;
		}
		buf_addc(text, '%');
		buf_addc(text, hex[c >> 4]);
		buf_addc(text, hex[c & 15]);
	}
}

/* Joins entries [i, j) into entry i. */
static void join(struct params *p, size_t i, size_t j)
{
	struct params_entry *e = p->e, r = e[i];
	bool extended = false;
	size_t k;

	for (k = i; k < j; k++)
		extended |= e[k].extended;
	r.key = (uint32_t)p->text.len;
	append_own(&p->text, e[i].key, e[i].key_len, false);
	if (extended)
		buf_addc(&p->text, '*');
	r.key_len = (uint32_t)p->text.len - r.key;
	r.value = (uint32_t)p->text.len;
	if (extended && !e[i].extended)
		buf_adds(&p->text, "''");
	for (k = i; k < j; k++)
		append_own(&p->text, e[k].value, e[k].value_len, extended && !e[k].extended);
	r.value_len = (uint32_t)p->text.len - r.value;
	e[i] = r;
}

/* A run of pieces that is not numbered 0, 1, 2... is shown piece by piece,
 * under the names it came with. */
static void keep_pieces(struct params *p, size_t i, size_t j)
{
	for (; i < j; i++)
		p->e[i].key_len = p->e[i].value - p->e[i].key;	/* read_one puts them side by side */
}

static void join_continuations(struct params *p)
{
	size_t i, j, n = 0;
	bool whole;

	sort(p);
	for (i = 0; i < p->n; i = j) {
		j = i + 1;
		if (!p->e[i].continued) {
			p->e[n++] = p->e[i];
			continue;
		}
		whole = p->e[i].index == 0;
		for (; j < p->n && !compare_names(p, &p->e[i], &p->e[j]); j++)
			whole &= p->e[j].index == j - i;
		if (whole) {
			join(p, i, j);
			p->e[n++] = p->e[i];
			continue;
		}
		keep_pieces(p, i, j);
		memmove(p->e + n, p->e + i, (j - i) * sizeof(*p->e));
		n += j - i;
	}
	p->n = n;
}

void params_read(struct params *p, struct tok *t, bool lenient)
{
	struct params_entry e;
	bool continued = false;
	int ret;

	buf_clear(&p->text);
	(void)buf_reserve(&p->text, 64);	/* so that it is never NULL */
	p->n = 0;
	for (;;) {
		memset(&e, 0, sizeof(e));
		ret = read_one(t, &p->text, &e);
		if (!ret || (ret < 0 && t->p >= t->end) || p->n == PARAMS_MAX)
			break;
		if (ret < 0) {
			if (*t->p != ';' || !lenient)
				t->p++;		/* on to the next ";" */
			continue;
		}
		split_name(p, &e);
		continued |= e.continued;
		mem_grow(&p->e, &p->cap, p->n + 1, sizeof(*p->e));
		p->e[p->n++] = e;
	}
	if (continued)
		join_continuations(p);
}

bool params_is(const struct params *p, size_t i, const char *name)
{
	return ascii_is((const char *)p->text.data + p->e[i].key, p->e[i].key_len, name);
}

const char *params_find(const struct params *p, const char *name, size_t *len_r)
{
	size_t i;

	for (i = 0; i < p->n; i++) {
		if (!params_is(p, i, name))
			continue;
		*len_r = p->e[i].value_len;
		return (const char *)p->text.data + p->e[i].value;
	}
	return NULL;
}

void params_render(const struct params *p, bool for_text, struct buf *out)
{
	bool charset = !for_text;
	size_t i;

	if (!p->n && !for_text) {
		mime_imap_string(out, NULL, 0);
		return;
	}
	buf_addc(out, '(');
	for (i = 0; i < p->n; i++) {
		const struct params_entry *e = &p->e[i];

		if (i)
			buf_addc(out, ' ');
		imap_unfolded(out, p->text.data + e->key, e->key_len);
		buf_addc(out, ' ');
		imap_unfolded(out, p->text.data + e->value, e->value_len);
		charset |= params_is(p, i, "charset");
	}
	if (!charset)
		buf_adds(out, p->n ? " \"charset\" \"us-ascii\"" : "\"charset\" \"us-ascii\"");
	buf_addc(out, ')');
}

/* charset'language'%XX... to UTF-8. */
static void decode_extended(const char *value, size_t len, struct buf *out)
{
	const char *end = value + len, *q1 = memchr(value, '\'', len), *q2;
	struct mime_charset *cs;
	struct buf raw = BUF_INIT(0);
	char name[NAME_MAX_LEN] = "";
	const char *s = value;

	q2 = q1 ? memchr(q1 + 1, '\'', (size_t)(end - q1 - 1)) : NULL;
	if (q2) {
		if ((size_t)(q1 - value) < sizeof(name))
			memcpy(name, value, (size_t)(q1 - value));
		s = q2 + 1;
	}
	for (; s < end; s++) {
		if (*s == '%' && end - s > 2 && hex_digit((unsigned char)s[1]) >= 0 && hex_digit((unsigned char)s[2]) >= 0) {
			buf_addc(&raw, hex_digit((unsigned char)s[1]) << 4 | hex_digit((unsigned char)s[2]));
			s += 2;
		} else {
			buf_addc(&raw, *s);
		}
	}
	cs = mime_charset_new(name);
	mime_charset_feed(cs, buf_str(&raw), raw.len, out);
	mime_charset_finish(cs, out);
	mime_charset_free(&cs);
	buf_free(&raw);
}

int mime_param(const char *value, size_t len, const char *name, struct buf *out)
{
	struct params p = { .n = 0 };
	struct buf skip = BUF_INIT(0);
	struct tok t = tok_init(value, len);
	const char *plain = NULL, *v;
	size_t i, n = 0;
	int found = 0;

	if (tok_cfws(&t) > 0 && tok_mime_token(&t, &skip) > 0 && *t.p == '/') {
		t.p++;
		if (tok_cfws(&t) > 0)
			(void)tok_mime_token(&t, &skip);
	}
	buf_free(&skip);
	params_read(&p, &t, true);
	for (i = 0; i < p.n && !found; i++) {
		const struct params_entry *e = &p.e[i];

		v = (const char *)p.text.data + e->key;
		if (!plain && params_is(&p, i, name)) {
			plain = (const char *)p.text.data + e->value;
			n = e->value_len;
		} else if (e->key_len && v[e->key_len - 1] == '*' && ascii_is(v, e->key_len - 1, name)) {
			decode_extended((const char *)p.text.data + e->value, e->value_len, out);
			found = 1;
		}
	}
	if (!found && plain) {
		mime_header_decode(plain, n, out);
		found = 1;
	}
	params_free(&p);
	return found;
}
