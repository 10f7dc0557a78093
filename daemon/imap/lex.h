/* lex - the words of one IMAP command (RFC 9051 section 9, RFC 3501 section 9).
 *
 * Works on a whole command: its lines with the literals in place, as reader.h
 * collects it.  Owns no session: the fuzzer drives it alone.
 *
 * Every function returns true, or false after an error; the first error is
 * kept with its place, and after it every call fails, so that a parser can be
 * a chain of &&.  Strings are NUL-terminated, hold no NUL themselves, and live
 * in the arena. */
#ifndef DAEMON_IMAP_LEX_H
#define DAEMON_IMAP_LEX_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/seqset.h"
#include "daemon/imap/arena.h"

enum {
	LEX_ERROR_MAX = 200,
	LEX_FLAGS_MAX = 200,		/* flags in one list */
	LEX_KEYWORD_MAX = 255,		/* octets of one keyword */
	LEX_DEPTH_MAX = 32		/* parentheses, NOT and OR within each other */
};

struct lex {
	const unsigned char *start, *p, *end;
	struct arena *arena;
	bool failed;
	bool bad_name;			/* the error is a mailbox name that cannot be: NO, not BAD */
	bool utf8;			/* mailbox names are UTF-8, not modified UTF-7 */
	char error[LEX_ERROR_MAX];	/* what was wrong, and at which octet */
};

void lex_init(struct lex *lx, struct arena *arena, const void *cmd, size_t len, bool utf8);
/* Records the error unless there is one; false. */
bool lex_fail(struct lex *lx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

bool lex_at(const struct lex *lx, char c);		/* is this the next octet? */
bool lex_at_end(const struct lex *lx);
bool lex_char(struct lex *lx, char c);			/* exactly this octet */
bool lex_sp(struct lex *lx);				/* exactly one space */
bool lex_end(struct lex *lx);				/* nothing more */
/* If the next word is this (any case) and is not part of a longer one: takes it. */
bool lex_word_is(struct lex *lx, const char *word);

bool lex_tag(struct lex *lx, char **out);
bool lex_atom(struct lex *lx, const char *what, char **out);
bool lex_string(struct lex *lx, const char *what, char **out, size_t *len_r);	/* quoted or literal */
bool lex_astring(struct lex *lx, const char *what, char **out, size_t *len_r);	/* len_r may be NULL */
bool lex_number(struct lex *lx, const char *what, uint64_t max, uint64_t *out);
bool lex_nz_number(struct lex *lx, const char *what, uint64_t max, uint64_t *out);

/* A mailbox name as UTF-8; INBOX in any case is "INBOX". */
bool lex_mailbox(struct lex *lx, char **out);
/* A LIST pattern as UTF-8.  *out is NULL for one that can match no name. */
bool lex_pattern(struct lex *lx, char **out);

/* A sequence set as it was written: 0 stands for '*'; in order of lo after
 * lo and hi were put in order; dollar: it was "$" (RFC 5182). */
struct lex_set {
	struct seqrange *r;
	size_t n;
	bool dollar;
};
bool lex_set(struct lex *lx, struct lex_set *out);
/* A set of plain numbers (no '*', no '$'); out is cleared first. */
bool lex_plain_set(struct lex *lx, const char *what, struct seqset *out);

struct lex_flags {
	uint32_t flags;			/* enum obox_flags */
	const char **keywords;
	size_t n_keywords;
};
/* "(\Seen $x)"; bare: the parentheses may be left out (STORE). */
bool lex_flags(struct lex *lx, bool bare, struct lex_flags *out);
bool lex_keyword(struct lex *lx, char **out);
bool lex_date(struct lex *lx, int32_t *day_r);
bool lex_datetime(struct lex *lx, int64_t *utc_r);

#endif
