/* status - STATUS data items, for STATUS and LIST RETURN (STATUS ...). */
#ifndef DAEMON_IMAP_STATUS_H
#define DAEMON_IMAP_STATUS_H
#include <stdbool.h>
#include <stdint.h>

struct imap_session;
struct lex;
struct err;

/* "(MESSAGES UNSEEN ...)": a bit for each item in *items. */
bool status_parse_items(struct lex *lx, uint32_t *items);
/* Does asking for these make the client CONDSTORE-aware (RFC 7162 section 3.1)? */
bool status_wants_modseq(uint32_t items);
/* "* STATUS name (...)"; 0, or <0 with nothing sent. */
int status_put(struct imap_session *s, const char *name, uint32_t items, struct err *err);

#endif
