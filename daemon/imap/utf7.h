/* utf7 - modified UTF-7 of mailbox names (RFC 3501 section 5.1.3).
 *
 * The decoder is strict: one name has one spelling, so what is decoded and
 * encoded again is what came in.  Wildcards of LIST are ordinary characters. */
#ifndef DAEMON_IMAP_UTF7_H
#define DAEMON_IMAP_UTF7_H
#include <stddef.h>

struct buf;

/* Appends name as UTF-8; 0, or -1 when it is not valid modified UTF-7. */
int utf7_decode(const char *name, size_t len, struct buf *out);
/* utf8 must be valid UTF-8. */
void utf7_encode(const char *utf8, size_t len, struct buf *out);

#endif
