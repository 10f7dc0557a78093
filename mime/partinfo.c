/* What the header of a message or body part says of its content: RFC 2045,
 * RFC 2183 (disposition), RFC 1864 (MD5), RFC 3282 (language), RFC 2557 (location). */
#include "mime/mime-private.h"

struct type {
	const char *type, *subtype;
	size_t type_len, subtype_len;
};

void partinfo_free(struct partinfo *pi)
{
	params_free(&pi->params);
	buf_free(&pi->basic);
	buf_free(&pi->ext);
	buf_free(&pi->names);
	buf_free(&pi->type);
	buf_free(&pi->word);
}

static struct tok field_tok(const char *header, const struct hindex_field *f)
{
	return tok_init(header + f->value, f->value_len);
}

/* type "/" subtype into pi->type, the cursor behind it.  False for what is
 * not a type: RFC 2045 section 5.2 then reads it as text/plain.  Something
 * else than ";" behind a good type does not make it less of a type. */
static bool read_type(struct partinfo *pi, struct tok *t, struct type *ty)
{
	int ret;

	buf_clear(&pi->type);
	if (tok_cfws(t) <= 0 || tok_mime_token(t, &pi->type) <= 0 || *t->p != '/' || !pi->type.len)
		return false;
	t->p++;
	ty->type_len = pi->type.len;
	if (tok_cfws(t) <= 0)
		return false;
	ret = tok_mime_token(t, &pi->type);
	if (ret < 0 || pi->type.len == ty->type_len)
		return false;
	ty->type = (const char *)pi->type.data;
	ty->subtype = ty->type + ty->type_len;
	ty->subtype_len = pi->type.len - ty->type_len;
	return true;
}

static void set_type(struct type *ty, const char *type, const char *subtype)
{
	ty->type = type;
	ty->type_len = strlen(type);
	ty->subtype = subtype;
	ty->subtype_len = strlen(subtype);
}

static void put_nstring(const char *header, const struct hindex_field *f, struct buf *out)
{
	if (f)
		imap_unfolded(out, header + f->value, f->value_len);
	else
		mime_imap_string(out, NULL, 0);
}

/* A mechanism is one token and nothing else (RFC 2045 section 6.1): clients
 * are told just that, while our own reading believes a first word that is known. */
static void read_encoding(struct partinfo *pi, const char *header, const struct hindex *ix, struct part *p)
{
	struct buf *word = &pi->word;
	struct tok t;
	size_t i;

	p->encoding = MIME_7BIT;
	for (i = 0; i < ix->n; i++) {
		if (ix->f[i].id != F_CTE)
			continue;
		t = field_tok(header, &ix->f[i]);
		buf_clear(word);
		if (tok_cfws(&t) <= 0)
			continue;
		if (tok_mime_token(&t, word) == 0 && word->len) {
			p->encoding = (uint8_t)encoding_from_name((const char *)word->data, word->len);
			mime_imap_string(&pi->basic, (const char *)word->data, word->len);
			return;
		}
		if (word->len && p->encoding == MIME_7BIT) {
			p->encoding = (uint8_t)encoding_from_name((const char *)word->data, word->len);
			if (p->encoding == MIME_ENC_UNKNOWN)
				p->encoding = MIME_7BIT;
		}
	}
	buf_adds(&pi->basic, "\"7bit\"");
}

/* (type params) or NIL; tells if it is an attachment. */
static bool put_disposition(struct partinfo *pi, const char *header, const struct hindex_field *f, bool *named_r)
{
	struct buf *word = &pi->word;
	struct tok t;
	bool attachment, inlined;
	size_t len;

	buf_clear(word);
	if (!f) {
		mime_imap_string(&pi->ext, NULL, 0);
		return false;
	}
	t = field_tok(header, f);
	if (tok_cfws(&t) > 0)
		(void)tok_mime_token(&t, word);
	params_read(&pi->params, &t, false);
	buf_addc(&pi->ext, '(');
	mime_imap_string(&pi->ext, buf_str(word), word->len);
	buf_addc(&pi->ext, ' ');
	params_render(&pi->params, false, &pi->ext);
	buf_addc(&pi->ext, ')');
	attachment = ascii_is(buf_str(word), word->len, "attachment");
	inlined = ascii_is(buf_str(word), word->len, "inline");
	*named_r = !inlined && (*named_r || params_find(&pi->params, "filename", &len) || params_find(&pi->params, "filename*", &len));
	return attachment;
}

/* 1#language-tag: ("en" "de"), NIL when there is none. */
static void put_language(struct partinfo *pi, const char *header, const struct hindex_field *f)
{
	struct buf *word = &pi->word;
	struct tok t;
	bool any = false;

	buf_clear(word);
	if (f) {
		t = field_tok(header, f);
		if (tok_cfws(&t) > 0)
			while (tok_atom(&t, word) >= 0) {
				buf_addc(&pi->ext, any ? ' ' : '(');
				mime_imap_string(&pi->ext, buf_str(word), word->len);
				any = true;
				buf_clear(word);
				if (t.p == t.end || *t.p != ',')
					break;
				t.p++;
				if (tok_cfws(&t) <= 0)
					break;
			}
	}
	buf_adds(&pi->ext, any ? ")" : "NIL");
}

/* Codes, or the names themselves, lower case, each with its NUL. */
static void put_name(struct buf *out, const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < len && s[i]; i++)
		buf_addc(out, ascii_lower((unsigned char)s[i]));
	buf_addc(out, '\0');
}

static void set_names(struct partinfo *pi, struct part *p, const struct type *ty)
{
	const char *charset;
	size_t len = 0;

	p->type_code = names_type_code(ty->type, ty->type_len, ty->subtype, ty->subtype_len);
	if (!p->type_code && (ty->type_len > NAME_MAX_LEN || ty->subtype_len > NAME_MAX_LEN))
		p->type_code = names_type_code("application", 11, "octet-stream", 12);
	if (!p->type_code) {
		put_name(&pi->names, ty->type, ty->type_len);
		put_name(&pi->names, ty->subtype, ty->subtype_len);
	}
	charset = params_find(&pi->params, "charset", &len);
	if (!charset || len > NAME_MAX_LEN)
		len = 0;
	p->charset_code = names_charset_code(charset ? charset : "", len);
	if (!p->charset_code)
		put_name(&pi->names, charset, len);
}

static void set_boundary(struct partinfo *pi)
{
	size_t len;
	const char *b = params_find(&pi->params, "boundary", &len);

	pi->boundary_given = b != NULL;
	pi->boundary_len = 0;
	if (!b)
		return;
	pi->boundary_len = len < BOUNDARY_MAX ? len : BOUNDARY_MAX;
	memcpy(pi->boundary, b, pi->boundary_len);
}

static bool is_signature(const struct type *ty)
{
	return ascii_is(ty->type, ty->type_len, "application") && (ascii_is(ty->subtype, ty->subtype_len, "pgp-signature") ||
		ascii_is(ty->subtype, ty->subtype_len, "pkcs7-signature") || ascii_is(ty->subtype, ty->subtype_len, "x-pkcs7-signature"));
}

/* Type, subtype and parameters, with the defaults where the field is absent
 * or nonsense; sets kind. */
static void content_type(struct partinfo *pi, const char *header, const struct hindex_field *f, const struct part *parent,
	bool nested, struct part *p, struct type *ty)
{
	struct tok t = tok_init("", 0);

	if (f)
		t = field_tok(header, f);
	if (!f || !read_type(pi, &t, ty)) {
		bool digest = !f && parent && parent->digest;

		t = tok_init("", 0);
		set_type(ty, digest ? "message" : "text", digest ? "rfc822" : "plain");
	}
	params_read(&pi->params, &t, false);
	p->kind = MIME_LEAF;
	if (ascii_is(ty->type, ty->type_len, "multipart"))
		p->kind = MIME_MULTIPART;
	else if (ascii_is(ty->type, ty->type_len, "message") &&
		(ascii_is(ty->subtype, ty->subtype_len, "rfc822") || ascii_is(ty->subtype, ty->subtype_len, "global")))
		p->kind = MIME_MESSAGE;
	if (p->kind != MIME_LEAF && !nested) {
		p->kind = MIME_LEAF;
		set_type(ty, "application", "octet-stream");
	}
	if (p->kind == MIME_MESSAGE && ascii_is(ty->subtype, ty->subtype_len, "rfc822"))
		set_type(ty, "message", "rfc822");	/* a constant of the grammar, so in its spelling */
	p->is_text = ascii_is(ty->type, ty->type_len, "text");
	p->digest = p->kind == MIME_MULTIPART && ascii_is(ty->subtype, ty->subtype_len, "digest");
	pi->boundary_given = false;
	pi->boundary_len = 0;
	if (p->kind == MIME_MULTIPART)
		set_boundary(pi);
}

void partinfo_read(struct partinfo *pi, const char *header, const struct hindex *ix, const struct part *parent,
	bool nested, struct part *p)
{
	const struct hindex_field *ct = hindex_first(ix, F_CONTENT_TYPE);
	/* In a message the other fields count only beside a sign of MIME (RFC 2045
	 * section 4); in a part of a multipart they always do. */
	bool is_mime = parent || ct || hindex_first(ix, F_MIME_VERSION), named;
	struct type ty;
	size_t len;

#define FIELD(id) (is_mime ? hindex_first(ix, (id)) : NULL)
	buf_clear(&pi->basic);
	buf_clear(&pi->ext);
	buf_clear(&pi->names);
	content_type(pi, header, ct, parent, nested, p, &ty);
	set_names(pi, p, &ty);
	named = params_find(&pi->params, "name", &len) != NULL;
	if (p->kind == MIME_MULTIPART) {
		mime_imap_string(&pi->basic, ty.subtype, ty.subtype_len);
		params_render(&pi->params, false, &pi->ext);
		p->encoding = MIME_7BIT;
	} else {
		mime_imap_string(&pi->basic, ty.type, ty.type_len);
		buf_addc(&pi->basic, ' ');
		mime_imap_string(&pi->basic, ty.subtype, ty.subtype_len);
		buf_addc(&pi->basic, ' ');
		params_render(&pi->params, p->is_text, &pi->basic);
		buf_addc(&pi->basic, ' ');
		put_nstring(header, FIELD(F_CONTENT_ID), &pi->basic);
		buf_addc(&pi->basic, ' ');
		put_nstring(header, FIELD(F_DESCRIPTION), &pi->basic);
		buf_addc(&pi->basic, ' ');
		if (is_mime) {
			read_encoding(pi, header, ix, p);
		} else {
			p->encoding = MIME_7BIT;
			buf_adds(&pi->basic, "\"7bit\"");
		}
		put_nstring(header, FIELD(F_MD5), &pi->ext);
	}
	buf_addc(&pi->ext, ' ');
	p->attachment = put_disposition(pi, header, FIELD(F_DISPOSITION), &named);
	p->attachment = (p->attachment || (named && !p->is_text)) && p->kind != MIME_MULTIPART && !is_signature(&ty);
	buf_addc(&pi->ext, ' ');
	put_language(pi, header, FIELD(F_LANGUAGE));
	buf_addc(&pi->ext, ' ');
	put_nstring(header, FIELD(F_LOCATION), &pi->ext);
#undef FIELD
}

void partinfo_octets(struct partinfo *pi, struct part *p)
{
	buf_clear(&pi->basic);
	buf_clear(&pi->ext);
	buf_clear(&pi->names);
	buf_adds(&pi->basic, "\"application\" \"octet-stream\" NIL NIL NIL \"7bit\"");
	buf_adds(&pi->ext, "NIL NIL NIL NIL");
	p->kind = MIME_LEAF;
	p->encoding = MIME_ENC_UNKNOWN;
	p->is_text = p->digest = false;
	p->type_code = names_type_code("application", 11, "octet-stream", 12);
	p->charset_code = names_charset_code("", 0);
}
