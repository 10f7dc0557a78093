/* reader - cuts what a client sends into commands.
 *
 * A command is collected whole: its lines and the literals within, as they
 * came, without the last line end.  At each literal the caller decides: collect
 * it, have it streamed (APPEND), or refuse it.  After a refusal a
 * non-synchronising literal (RFC 7888) and what follows it is skipped, so
 * that the connection stays in step; a synchronising one ends the command.
 *
 * Owns no socket and no session.  Memory: max bytes at most.  Lines end in
 * CRLF or a bare LF. */
#ifndef DAEMON_IMAP_READER_H
#define DAEMON_IMAP_READER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum reader_event {
	READER_MORE,		/* all was taken, more input is needed */
	READER_COMMAND,		/* cmd holds one; reader_reset when done with it */
	READER_LITERAL,		/* literal_size and so on are set: collect, stream or refuse it */
	READER_DATA,		/* data: a piece of a streamed literal; borrowed from the input */
	READER_TOO_LONG,	/* the command passed the ceiling; the rest is being skipped */
	READER_SKIPPED		/* the end of what was skipped: the answer may be sent now */
};

enum reader_state { READER_LINE, READER_IN_LITERAL, READER_IN_STREAM, READER_SKIP_LITERAL, READER_SKIP_LINE, READER_DECIDE };

struct reader {
	enum reader_state state;
	size_t max;		/* ceiling of a command in bytes */
	struct buf cmd;		/* the command so far; a streamed literal leaves only its announcement */
	size_t line;		/* where in cmd the last line begins */
	bool has_nul;		/* a NUL was in a line */
	/* READER_LITERAL */
	uint64_t literal_size;
	bool literal_sync;	/* the client waits for "+" */
	bool literal8;
	uint64_t left;		/* of the literal under way */
	/* READER_DATA */
	const unsigned char *data;
	size_t data_len;
	char tail[32];		/* end of a line that is skipped, to see a literal there */
	size_t tail_len;
};

void reader_init(struct reader *r, size_t max);
void reader_free(struct reader *r);
/* Takes bytes from in[0..len) (how many: *used_r) until there is an event. */
enum reader_event reader_feed(struct reader *r, const unsigned char *in, size_t len, size_t *used_r);
/* After READER_LITERAL, one of: */
bool reader_collect(struct reader *r);		/* false: with it the command would be too long; refuse it then */
void reader_stream(struct reader *r);
/* True: skipping; READER_SKIPPED will come.  False (synchronising): the
 * command is over now. */
bool reader_refuse(struct reader *r);
/* Is nothing of a command read yet? */
bool reader_idle(const struct reader *r);
/* Forgets the command; releases its memory when it was large. */
void reader_reset(struct reader *r);

#endif
