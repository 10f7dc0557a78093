/* pop3-private - the engine's parsing, for its files and their tests. */
#ifndef DAEMON_POP3_POP3_PRIVATE_H
#define DAEMON_POP3_POP3_PRIVATE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { POP3_LINE_MAX = 512 };	/* RFC 2449 section 4: 255 octets; some clients send more */

enum pop3_verb { POP3_UNKNOWN, POP3_STAT, POP3_LIST, POP3_RETR, POP3_DELE, POP3_NOOP, POP3_RSET, POP3_QUIT, POP3_TOP, POP3_UIDL, POP3_CAPA };
struct pop3_command {
	enum pop3_verb verb;
	unsigned n_args;
	uint32_t arg[2];
};
/* One line without its line end.  NULL, or the text of a -ERR. */
const char *pop3_parse(const char *line, struct pop3_command *out);

/* Puts stored bytes into a multi-line response: a dot before each line that
 * begins with one (after a bare LF as well, because some clients take that
 * for a line's end), and for TOP no more than lines lines of the body.
 * Returns false when TOP has enough. */
struct pop3_lines {
	bool middle;		/* not at the start of a line */
	bool cr;		/* the last byte was CR */
	bool body;		/* the header's empty line has passed */
	bool limited;		/* TOP */
	uint32_t lines;		/* body lines still wanted */
};
bool pop3_lines_add(struct pop3_lines *l, const void *data, size_t len, struct buf *out);
void pop3_lines_end(struct pop3_lines *l, struct buf *out);	/* ends the last line, and the response */
#endif
