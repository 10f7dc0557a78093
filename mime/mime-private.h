/* mime-private - what the files of this room share and nobody else needs. */
#ifndef MIME_MIME_PRIVATE_H
#define MIME_MIME_PRIVATE_H
#include "mime/mime.h"

/* --- lexical analysis (token.c): RFC 5322 section 3.2, RFC 2045 section 5.1 ---
 * A cursor over a field body.  The functions below skip the CFWS that follows
 * what they read and give 1 when something is left, 0 at the end, -1 when the
 * input does not fit (the cursor then stands where it stopped fitting). */
struct tok {
	const unsigned char *p, *end;
	struct buf *comment;	/* NULL, or takes the text of the last comment */
};
static inline struct tok tok_init(const void *s, size_t len)
{
	struct tok t = { (const unsigned char *)s, (const unsigned char *)s + len, NULL };

	return t;
}
enum { CH_ATEXT = 1, CH_TSPECIAL = 2, CH_LWSP = 4 };
extern const unsigned char tok_class[256];
static inline bool tok_is_atext(unsigned char c)
{
	return tok_class[c] & CH_ATEXT;
}
int tok_cfws(struct tok *t);
int tok_atom(struct tok *t, struct buf *out);		/* at least one atext */
int tok_quoted(struct tok *t, struct buf *out);		/* the cursor is on the opening quote; folds are taken out */
int tok_phrase(struct tok *t, struct buf *out);		/* words joined by one space; dots are taken */
int tok_local_part(struct tok *t, struct buf *out);	/* atoms with dots anywhere, as people write them */
int tok_obs_local_part(struct tok *t, struct buf *out);	/* word *("." word), RFC 5322 section 4.4 */
int tok_domain(struct tok *t, struct buf *out);		/* the cursor is on "@" */
int tok_mime_token(struct tok *t, struct buf *out);	/* may be empty */

/* --- parameters (params.c) --- */
struct params_entry {
	uint32_t key, key_len, value, value_len;	/* in text */
	uint32_t index;
	bool extended, continued;
};
enum { PARAMS_MAX = 256 };	/* of one field; more are ignored */
struct params {
	struct buf text;
	struct params_entry *e;
	size_t n, cap;
};
void params_free(struct params *p);
/* Reads ";attribute=value" pairs at the cursor, jumping over what is broken,
 * and joins RFC 2231 continuations; a joined value with encoded pieces keeps
 * its encoding and a "*" at the end of its name.  Behind something broken, a
 * ";" that stands there at once is lost unless lenient: structures are to be
 * those that other servers show. */
void params_read(struct params *p, struct tok *t, bool lenient);
/* Entry i when its name is name, else NULL. */
bool params_is(const struct params *p, size_t i, const char *name);
const char *params_find(const struct params *p, const char *name, size_t *len_r);
/* As a BODYSTRUCTURE list; for_text adds the charset that RFC 2045 section 5.2 implies. */
void params_render(const struct params *p, bool for_text, struct buf *out);

/* --- header index (header.c) --- */
enum field_id {
	F_NONE, F_DATE, F_SUBJECT, F_FROM, F_SENDER, F_REPLY_TO, F_TO, F_CC, F_BCC, F_IN_REPLY_TO, F_MESSAGE_ID,
	F_MIME_VERSION, F_CONTENT_TYPE, F_CTE, F_CONTENT_ID, F_DESCRIPTION, F_MD5, F_DISPOSITION, F_LANGUAGE, F_LOCATION,
	F_OTHER		/* cached, but of no use to the parser */
};
struct hindex_field {
	uint8_t id;
	bool cached;
	uint32_t raw, raw_len, value, value_len;	/* in the header block */
};
enum { HINDEX_MAX = 4096 };
struct hindex {
	struct hindex_field *f;
	size_t n, cap;
	size_t cached_len;	/* bytes of all cached fields */
	bool truncated;
};
/* drop_last: the block was cut, its last field may not be whole. */
void hindex_build(struct hindex *ix, const void *header, size_t len, bool drop_last);
void hindex_free(struct hindex *ix);
/* The first field of that kind, NULL when absent. */
const struct hindex_field *hindex_first(const struct hindex *ix, enum field_id id);

/* --- rendering --- */
/* Like mime_imap_string, with folds taken out and NUL as U+FFFD. */
void imap_unfolded(struct buf *out, const void *s, size_t len);
/* Also every run of white space as one space and none at the ends. */
void imap_for_humans(struct buf *out, const void *s, size_t len);
/* Appends the addresses of one field body to out ("(...)(...)", no outer
 * parentheses).  Gives false when out would have grown beyond max bytes: the
 * addresses from there on are left out. */
bool address_render(const void *value, size_t len, struct buf *out, size_t max);
bool envelope_render(const char *header, const struct hindex *ix, struct buf *out, size_t max);

/* --- parts --- */
/* A part while the message is being read. */
struct part {
	uint32_t parent;	/* index; the root is its own */
	uint16_t depth;
	uint8_t kind, encoding;
	uint8_t type_code, charset_code;	/* 0: spelled out in names */
	bool is_text, digest, attachment;
	uint64_t header_off, body_off, end;
	uint64_t first_line, lines;
	/* Pieces of rendered text in the pool: "type" ... "encoding"; the
	 * extension data; ENVELOPE of the message inside; names for the table. */
	uint32_t basic, basic_len, ext, ext_len, envelope, envelope_len, names, names_len;
};
enum { BOUNDARY_MAX = 250 };
/* What a part's header says, before it is stored (partinfo.c). */
struct partinfo {
	struct params params;
	struct buf basic, ext, names, type, word;
	char boundary[BOUNDARY_MAX];
	size_t boundary_len;		/* 0 = none */
	bool boundary_given;
};
void partinfo_free(struct partinfo *pi);
/* Fills kind, encoding, codes and flags of p and the texts of pi from a header.
 * parent: NULL for a message (root or inside message/rfc822); nested: p may contain parts. */
void partinfo_read(struct partinfo *pi, const char *header, const struct hindex *ix, const struct part *parent,
	bool nested, struct part *p);
void partinfo_octets(struct partinfo *pi, struct part *p);	/* forget it all: application/octet-stream */

void bodystructure_render(const struct part *parts, size_t n, const struct buf *pool, bool extended, struct buf *out);

/* Known names of the part table; code 0 is never valid. */
uint8_t names_type_code(const char *type, size_t type_len, const char *sub, size_t sub_len);
uint8_t names_charset_code(const char *charset, size_t len);
bool names_type(uint8_t code, const char **type_r, const char **subtype_r);
bool names_charset(uint8_t code, const char **charset_r);
enum { NAME_MAX_LEN = 64 };	/* of a type, subtype or charset in the table */

struct summary_parts {		/* what the serialiser puts together */
	const struct part *parts;
	size_t n;
	const struct buf *pool;
	const char *envelope; size_t envelope_len;
	const char *headers; size_t headers_len;
	const char *preview; size_t preview_len;
	uint64_t size;
	int64_t date;
	int32_t zone;
	uint32_t flags;
};
void summary_write(const struct summary_parts *s, struct buf *out);

/* --- preview (preview.c) --- */
enum { PREVIEW_TEXT_BYTES = 4096, PREVIEW_HTML_BYTES = 16384 };
/* At most chars characters of readable text out of the first bytes of a part. */
void preview_render(const void *raw, size_t len, enum mime_encoding enc, const char *charset, bool html, uint32_t chars,
	struct buf *out);

/* --- text helpers --- */
static inline unsigned char ascii_lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}
bool ascii_is(const char *s, size_t len, const char *word);		/* equal, any case */
enum mime_encoding encoding_from_name(const char *s, size_t len);
const unsigned char *utf8_skip_ascii(const unsigned char *s, const unsigned char *end);	/* the first byte that is not ASCII */
size_t utf8_length(const unsigned char *s, size_t len);		/* of the well-formed character at s, 0 when there is none */
bool utf8_cut(const unsigned char *s, size_t len);		/* s is the beginning of a character that the end cut; len > 0 */
void utf8_put(struct buf *out, uint32_t c);
uint32_t utf8_get(const unsigned char *s, size_t n);		/* n from utf8_length */
void utf8_or_latin(struct buf *out, const unsigned char *s, size_t len);	/* keeps UTF-8, reads the rest as windows-1252 */
extern const uint16_t windows_1252[32];				/* 0x80-0x9f */
/* Base64 that skips what does not belong; *bits and *n carry over, 0 at first. */
void base64_feed(struct buf *out, const unsigned char *s, size_t len, uint32_t *bits, unsigned *n);
int hex_digit(unsigned char c);		/* -1: none */
#endif
