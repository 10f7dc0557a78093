/* script - dialogues with the IMAP engine, read from files.
 *
 *   == selects and searches        begins a case, in a world of its own
 *   # a comment
 *   C: a1 SELECT INBOX             sends a line (session 1)
 *   C2: b1 NOOP                    session 2, and so on to 9; made at first use
 *   C+: a2 FETCH 1 FLAGS           queued: sent together with the next line
 *   C-: raw text                   without a line end behind it
 *   S: a1 OK {{*}}                 the next response must be this
 *   S~: a1 OK {{*}}                skips responses until this one
 *   S-:                            there is no further response
 *   @message NAME ... @end         a message; lines get CRLF
 *   @deliver MAILBOX NAME          saved from outside the sessions
 *   @store down | up
 *   @timeout N | @stop N | @eof N  events for session N
 *   @closed N                      session N has been closed
 *   @repeat N TEXT                 sends TEXT N times, as one line
 *
 * In C and S lines ${NAME} is a message or a captured value and ${#NAME} its
 * length; {{crlf}}, {{lf}} and {{nul}} are those octets.  In S lines {{*}} matches any text, {{n}} a
 * number, {{x=n}} and {{x=*}} keep what they match as x.  Before a session sends
 * again, all it was told must have been expected. */
#ifndef TESTS_IMAP_SCRIPT_H
#define TESTS_IMAP_SCRIPT_H

struct script_case {
	char *name;
	char *file;
	unsigned line;
	char *text;	/* its lines */
};

/* The cases of a file; *n_r of them. */
struct script_case *script_load(const char *path, unsigned *n_r);
/* NULL, or what went wrong (freed by the caller). */
char *script_run(const struct script_case *sc);
#endif
