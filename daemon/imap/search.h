/* search - SEARCH in its parts: the tree a command is parsed into, its
 * evaluation in three levels of cost, and the answer.
 *
 * Level 0 needs the index record alone, level 1 the summary, level 2 reads
 * the message.  A tree is first tried at level 0 for a whole batch of
 * messages, then at level 1 for those still open, and only what is open
 * after that is read, once for all words together. */
#ifndef DAEMON_IMAP_SEARCH_H
#define DAEMON_IMAP_SEARCH_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/seqset.h"
#include "mime/mime.h"
#include "obox/obox.h"

struct imap_session;
struct lex;

enum search_kind { KEY_ALL, KEY_NONE, KEY_SET, KEY_FLAGS, KEY_KEYWORD, KEY_SIZE, KEY_IDATE, KEY_SDATE, KEY_MODSEQ,
	KEY_SENT, KEY_HEADER, KEY_BODY, KEY_TEXT, KEY_AND, KEY_OR, KEY_NOT };

struct search_key {
	enum search_kind kind;
	int level;
	struct search_key *next, *kids;		/* AND, OR, NOT */
	int64_t lo, hi;				/* size, seconds, days, mod-sequence: both are members */
	uint32_t flags;				/* KEY_FLAGS: all of these set */
	unsigned bit;				/* KEY_KEYWORD */
	struct seqset seqs;			/* KEY_SET */
	const char *field;			/* KEY_HEADER */
	bool cached;				/* the field is in the summary */
	struct mime_needle *needle;		/* NULL: the field need only be there */
	struct search_key *next_text;		/* of those with a needle or seqs: search->owned */
	unsigned nr;				/* below search.n_keys; of its hit at level 2 */
};

enum { RETURN_MIN = 1, RETURN_MAX = 2, RETURN_ALL = 4, RETURN_COUNT = 8, RETURN_SAVE = 16 };

struct search {
	struct search_key *root;
	struct search_key *owned;	/* keys that hold memory of their own, and all of level 2 */
	unsigned n_keys;
	const char *charset;		/* of the strings; NULL = UTF-8 */
	unsigned returns;
	bool esearch;			/* answer with ESEARCH */
	bool bad_charset;
	bool uses_modseq, uses_seqs;
	/* where it is */
	uint32_t next;
	struct obox_msg *batch;
	signed char *state;		/* of each message of the batch: 1, 0, or -1 not known yet */
	uint32_t batch_seq;		/* sequence number of the first */
	size_t n, i;
	int phase;
	/* found */
	struct seqset found;		/* sequence numbers, or UIDs for UID SEARCH */
	struct seqset found_uids;	/* for SAVE */
	uint32_t min, max, min_uid, max_uid;
	uint64_t count, modseq, min_modseq, max_modseq;
	struct seqset lost;		/* UIDs that could not be read */
	int lost_rc;
	/* the answer being written */
	bool writing;
	size_t range;
	uint32_t member;
};

/* What a key is evaluated against; the parts above level are not looked at. */
struct search_msg {
	uint32_t seq;
	const struct obox_msg *m;
	const struct mime_summary *sum;
	int level;
	const bool *hits;			/* level 2: by key number */
};

/* --- search-parse.c --- */
bool search_parse(struct imap_session *s, struct lex *lx, struct search *q);
/* --- search-eval.c --- */
int search_eval(const struct search_key *k, const struct search_msg *x);	/* 1, 0, -1 not known at this level */
/* --- search-text.c --- */
/* Reads the message and sets the hits (search.n_keys of them, zeroed) of all keys of level 2; 0 or <0.
 * Different messages may be read on different threads. */
int search_text(struct imap_session *s, const struct search *q, const struct obox_msg *m, const struct mime_summary *sum, bool *hits, struct err *err);

#endif
