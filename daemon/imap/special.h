/* special - the special uses of mailboxes by name (RFC 6154, RFC 8457). */
#ifndef DAEMON_IMAP_SPECIAL_H
#define DAEMON_IMAP_SPECIAL_H
#include <stdint.h>

struct buf;

uint32_t special_use_bit(const char *name);	/* name without '\'; 0: none of ours */
/* Appends "\Sent \Junk" for the bits of enum obox_special, each behind a space when there is something before it. */
void special_use_put(struct buf *out, uint32_t bits, const char *before);

#endif
