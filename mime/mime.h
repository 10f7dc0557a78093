/* mime - what a mail server must know of a message: one streaming pass over
 * its bytes gives header fields, MIME structure with offsets, ENVELOPE,
 * BODYSTRUCTURE and a preview; later calls answer from that summary.
 *
 * No I/O, no sockets, no clock.  Every input is a message: malformed mail
 * degrades (RFC 2045 section 5.2 and 6.4 defaults), it never fails.  Lines may
 * end in CRLF or a bare LF; a bare CR is data; NUL and 8-bit are data.
 *
 * Memory: bounded by struct mime_limits, not by the size of the message.
 * Threads: one per handle; the pure functions may be called from any.
 * Blocks: never.  (RFC 5322, 2045-2047, 2231, 3501/9051 section 7.5.2.) */
#ifndef MIME_MIME_H
#define MIME_MIME_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Zero means the default in brackets.  Beyond a limit: multiparts and messages
 * nested too deep are application/octet-stream; when there are max_parts parts,
 * the last one takes all that is left; header bytes beyond max_header are not
 * read, and of the summary what does not fit is left out (MIME_F_TRUNCATED; all
 * cached header fields are then absent or all there). */
struct mime_limits {
	uint32_t max_depth;		/* nesting of multiparts and message/rfc822 [100, at most 200] */
	uint32_t max_parts;		/* in the whole message [10000] */
	uint32_t max_header;		/* bytes of one header block that are parsed [1 MiB] */
	uint32_t max_summary;		/* bytes of the finished summary [512 KiB] */
	uint32_t preview_chars;		/* characters of preview text [200, RFC 8970: at most 256] */
};

/* --- the streaming pass --- */
struct mime_parser;
struct mime_parser *mime_parser_new(const struct mime_limits *limits);	/* NULL: defaults */
void mime_parser_free(struct mime_parser **p);
void mime_parser_feed(struct mime_parser *p, const void *data, size_t len);	/* any cuts give the same result */
/* Ends the message and appends the serialised summary to out (format: see
 * docs/format.md, "summary").  Once per parser. */
void mime_parser_finish(struct mime_parser *p, struct buf *out);

/* --- reading a summary --- */
enum mime_encoding { MIME_7BIT, MIME_8BIT, MIME_BINARY, MIME_QP, MIME_BASE64, MIME_UUENCODE, MIME_ENC_UNKNOWN };
enum mime_part_kind { MIME_LEAF, MIME_MULTIPART, MIME_MESSAGE /* message/rfc822 or message/global */ };
/* TRUNCATED: a limit was reached, so header fields must be read from the message.
 * HAS_8BIT_HEADER: in any header, that of a part included. */
enum mime_summary_flags { MIME_F_TRUNCATED = 1, MIME_F_HAS_8BIT_HEADER = 2, MIME_F_HAS_NUL = 4, MIME_F_HAS_ATTACHMENT = 8,
	MIME_F_BARE_LF = 16 };

/* Views into the serialised bytes, borrowed.  Rendered texts are complete
 * IMAP syntax with 8-bit or control bytes only inside literals. */
struct mime_summary {
	const char *envelope;		size_t envelope_len;		/* "(...)" of FETCH ENVELOPE */
	const char *bodystructure;	size_t bodystructure_len;	/* "(...)" of FETCH BODYSTRUCTURE */
	const char *body;		size_t body_len;		/* "(...)" of FETCH BODY, no extension data */
	const char *preview;		size_t preview_len;		/* UTF-8, no line breaks */
	const char *headers;		size_t headers_len;		/* raw cached header fields, in message order, each whole with its line ends */
	const void *parts;		size_t parts_len;
	uint64_t size;			/* of the message, octets */
	uint64_t header_size;		/* offset of the body: header and the empty line */
	int64_t date;			/* Date: field, seconds UTC; INT64_MIN when absent or not a date */
	int32_t date_zone;		/* its zone, minutes east; date + 60 * date_zone is what the sender saw (SENTBEFORE...) */
	uint32_t flags;
};
/* 0, or -1 when the bytes are not a summary of a known version. */
int mime_summary_open(const void *data, size_t len, struct mime_summary *out);

struct mime_part {
	enum mime_part_kind kind;
	enum mime_encoding encoding;
	uint64_t header_off, header_len;	/* MIME header of this part, with its empty line; for the message and its part 1: the message header */
	uint64_t body_off, body_len;		/* without the line end that belongs to the boundary */
	uint64_t lines;				/* of the body, as in BODYSTRUCTURE */
	const char *type, *subtype;		/* lower case, borrowed NUL-terminated ("text", "plain") */
	const char *charset;			/* lower case, "" when none */
	/* kind == MIME_MESSAGE: the header and body of the inner message */
	uint64_t inner_header_off, inner_header_len, inner_body_off, inner_body_len;
};
/* The part with this IMAP section number (path 1-based; depth 0 = the message
 * itself), by the rules of RFC 9051 section 6.4.5.1: in a message whose top
 * level is not multipart, part 1 is its body; a message/rfc822 part's
 * children are those of the message inside.  1 found, 0 no such part. */
int mime_summary_part(const struct mime_summary *s, const uint32_t *path, size_t depth, struct mime_part *out);
/* Calls fn for every leaf part in message order with its path (BODY search,
 * full-text indexing), those of messages inside too.  Stops when fn returns false. */
void mime_summary_each_leaf(const struct mime_summary *s,
	bool (*fn)(void *ctx, const struct mime_part *part, const uint32_t *path, size_t depth), void *ctx);

/* The summary of prefix followed by the message: sizes and offsets moved on, the
 * cached fields among prefix (whole header lines with their line ends) added in
 * front.  0, or -1 when either is not what it should be. */
int mime_summary_prepend(const void *summary, size_t len, const char *prefix, size_t prefix_len, struct buf *out);
/* Is every occurrence of field name (any case) in s->headers?  The list of
 * cached fields is fixed: mime_cached_fields below, NULL-terminated. */
bool mime_header_is_cached(const char *name);
extern const char *const mime_cached_fields[];

/* --- headers --- */
/* Appends from a raw header block the fields whose names are in names (or are
 * not, for invert), whole and unchanged, in order, then the empty line
 * (BODY[HEADER.FIELDS ...]: RFC 9051 section 6.4.5.1). */
void mime_header_filter(const void *header, size_t len, const char *const *names, size_t n, bool invert, struct buf *out);
/* Walks over the fields of a raw header block, up to its empty line.  *pos
 * starts at 0; 1 with the field, 0 at the end.  name: without the blanks before
 * the colon, empty (name_len 0) for a line that has no colon.  value: after the
 * colon and the blanks behind it, up to the line end (folds in).  raw: all of
 * it with its line end.  Views, borrowed. */
struct mime_field { const char *name; size_t name_len; const char *value; size_t value_len; const char *raw; size_t raw_len; };
int mime_header_next(const void *header, size_t len, size_t *pos, struct mime_field *out);
/* Unfolds and decodes a field body into UTF-8: RFC 2047 encoded words, raw
 * UTF-8 kept, other raw 8-bit taken as windows-1252. */
void mime_header_decode(const char *value, size_t len, struct buf *out);
/* RFC 2231 / 2047 parameter of a Content-Type or Content-Disposition body,
 * decoded to UTF-8.  Reads over broken parameters.  1 found, 0 absent. */
int mime_param(const char *value, size_t len, const char *name, struct buf *out);
/* ENVELOPE of an arbitrary raw header block, rendered. */
void mime_envelope(const void *header, size_t len, struct buf *out);
/* "Fri, 21 Nov 1997 09:55:06 -0600" and what is sent instead of it. 0 or -1. */
int mime_parse_date(const char *value, size_t len, int64_t *utc_r, int32_t *zone_minutes_r);
/* Base subject of RFC 5256 section 2.1, from a raw Subject body, UTF-8. */
void mime_base_subject(const char *value, size_t len, struct buf *out);
/* Appends s as IMAP nstring/string: NIL for NULL, quoted when it may be (7-bit
 * without CR, LF, NUL), else a literal; a NUL becomes U+FFFD. */
void mime_imap_string(struct buf *out, const char *s, size_t len);

/* --- bodies --- */
/* Content-transfer-decoding, streaming.  Malformed input decodes as far as it
 * makes sense (RFC 2045 section 6.7/6.8 robustness notes). */
struct mime_cte;
struct mime_cte *mime_cte_new(enum mime_encoding enc);
void mime_cte_free(struct mime_cte **c);
void mime_cte_feed(struct mime_cte *c, const void *data, size_t len, struct buf *out);
void mime_cte_finish(struct mime_cte *c, struct buf *out);

/* Charset to UTF-8, streaming; unknown charsets are read as windows-1252 (UTF-8
 * where it is valid), undecodable bytes become U+FFFD. */
struct mime_charset;
struct mime_charset *mime_charset_new(const char *charset);
void mime_charset_free(struct mime_charset **c);
void mime_charset_feed(struct mime_charset *c, const void *data, size_t len, struct buf *out);
void mime_charset_finish(struct mime_charset *c, struct buf *out);
bool mime_charset_known(const char *charset);

/* --- search --- */
/* A substring search that ignores case and composition the way
 * i;unicode-casemap does (RFC 5051), over UTF-8 fed in pieces. */
struct mime_needle;
struct mime_needle *mime_needle_new(const char *utf8, size_t len);
void mime_needle_free(struct mime_needle **n);
bool mime_needle_in(const struct mime_needle *n, const char *utf8, size_t len);	/* one whole text */
struct mime_match;	/* state of one streaming text */
struct mime_match *mime_match_new(const struct mime_needle *n);
void mime_match_free(struct mime_match **m);
bool mime_match_feed(struct mime_match *m, const char *utf8, size_t len);	/* true once found */

/* Unicode: Net-Unicode NFC of a mailbox name or the like; 0, or -1 for bad UTF-8. */
int mime_utf8_nfc(const char *utf8, size_t len, struct buf *out);
bool mime_utf8_valid(const void *data, size_t len);
#endif
