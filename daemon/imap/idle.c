/* IDLE (RFC 2177, RFC 9051 section 6.3.13).  While idling a session holds no
 * thread and no buffer; what others do wakes it (session.c tells it then). */
#include "daemon/imap/imap.h"

#include <strings.h>

/* One step that never ends the command: the line "DONE" does. */
void imap_cmd_idle(struct imap_session *s, struct lex *lx)
{
	if (!lex_end(lx)) {
		imap_reply_bad(s, lx);
		return;
	}
	buf_adds(&s->c->out, "+ idling\r\n");
	s->active = false;
	reader_reset(&s->reader);
	atomic_store(&s->idling, true);
}

void imap_idle_line(struct imap_session *s)
{
	const struct buf *line = &s->reader.cmd;

	atomic_store(&s->idling, false);
	s->active = true;
	if (line->len == 4 && !strncasecmp((const char *)line->data, "DONE", 4)) {
		imap_reply(s, "OK Idle completed");
	} else {
		imap_reply(s, "BAD IDLE: DONE is expected");
		s->cmd.bad = true;
	}
}
