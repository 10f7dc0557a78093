/* lmtp-private - the engine's inner parts, for its files and their tests. */
#ifndef DAEMON_LMTP_LMTP_PRIVATE_H
#define DAEMON_LMTP_LMTP_PRIVATE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { LMTP_LINE_MAX = 4096, LMTP_PATH_MAX = 1024, LMTP_ENVID_MAX = 100, LMTP_ORCPT_MAX = 500 };

/* --- parsing: pure functions --- */
/* Reverse- or forward-path of RFC 5321 section 4.1.2 at *pp ("<...>").  The
 * address without source route and angle brackets goes to addr; *pp moves
 * behind the '>'.  NULL, or what is wrong with it. */
const char *lmtp_parse_path(const char **pp, bool null_ok, char addr[LMTP_PATH_MAX]);
/* The address as it is looked up: a quoted local part without its quoting. */
void lmtp_plain_address(const char *addr, char out[LMTP_PATH_MAX]);
bool lmtp_has_8bit(const char *s);

enum lmtp_body { LMTP_7BIT, LMTP_8BITMIME, LMTP_BINARYMIME };
struct lmtp_mail_params { uint64_t size; enum lmtp_body body; bool smtputf8, has_size; };
struct lmtp_reply { const char *code; char text[160]; };	/* code "501 5.5.4" */
/* The parameters behind MAIL FROM:<> and RCPT TO:<>: 0, or -1 with the reply. */
int lmtp_mail_params(const char *text, struct lmtp_mail_params *p, struct lmtp_reply *why);
int lmtp_rcpt_params(const char *text, struct lmtp_reply *why);
/* "123" or "123 LAST": 0 or -1. */
int lmtp_parse_bdat(const char *text, uint64_t *size_r, bool *last_r);

/* --- the dot, RFC 5321 section 4.5.2 --- */
enum lmtp_dot_state { DOT_LINE_START, DOT_TEXT, DOT_DOT, DOT_DOT_CR, DOT_END };
struct lmtp_dot {
	enum lmtp_dot_state state;	/* starts as DOT_LINE_START */
	bool cr;			/* the last byte of DOT_TEXT was CR */
};
/* Feeds data; the message's bytes go to sink in pieces.  Only CRLF.CRLF ends
 * (then state is DOT_END); bare CR, bare LF and NUL are data.  Returns the
 * bytes used: all, or up to the end. */
size_t lmtp_dot_feed(struct lmtp_dot *d, const void *data, size_t len, void (*sink)(void *ctx, const void *data, size_t len), void *ctx);
#endif
