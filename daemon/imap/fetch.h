/* fetch - FETCH in its parts: the program a command is parsed into, and the
 * iterator that runs it over any number of messages in bounded memory.
 *
 * The iterator reads the view in batches.  For each message of a batch it
 * writes one untagged FETCH; what needs only the index or the summary is
 * formatted straight into the output, bodies are streamed in chunks from the
 * store.  It can stop between any two messages and inside any literal. */
#ifndef DAEMON_IMAP_FETCH_H
#define DAEMON_IMAP_FETCH_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/seqset.h"
#include "mime/mime.h"
#include "obox/obox.h"

struct imap_session;
struct lex;

enum fetch_kind { FETCH_UID, FETCH_FLAGS, FETCH_INTERNALDATE, FETCH_SIZE, FETCH_MODSEQ, FETCH_SAVEDATE,
	FETCH_ENVELOPE, FETCH_BODY, FETCH_BODYSTRUCTURE, FETCH_PREVIEW, FETCH_SECTION, FETCH_BINARY_SIZE };
enum { FETCH_AHEAD = 128 };
enum fetch_section { SECTION_ALL, SECTION_HEADER, SECTION_FIELDS, SECTION_FIELDS_NOT, SECTION_TEXT, SECTION_MIME };

struct fetch_item {
	enum fetch_kind kind;
	const char *label;		/* what stands before the value: "BODY[1.2]<0>" */
	size_t label_len;
	/* FETCH_SECTION, FETCH_BINARY_SIZE */
	enum fetch_section section;
	uint32_t *path;
	size_t depth;
	const char **fields;
	size_t n_fields;
	uint64_t off, len;		/* of the section; UINT64_MAX = to its end */
	bool binary;			/* decoded */
	bool cached;			/* the fields are all in the summary */
	bool lazy;			/* PREVIEW (LAZY) */
};

/* What is being streamed into the literal of one item. */
struct fetch_stream {
	bool active;
	bool broken;			/* the store failed: spaces follow, see fetch-body.c */
	uint64_t pos, end;		/* of the message, raw octets still to read */
	uint64_t skip, left;		/* of what comes out: to drop first, to send */
	struct mime_cte *cte;		/* NULL: as it is */
	struct buf decoded;		/* of cte, not sent yet */
};

struct fetch {
	/* the program; strings in the command's arena */
	struct fetch_item *items;
	size_t n_items;
	struct seqset seqs;
	uint64_t changedsince;		/* 0 = all */
	bool vanished;
	bool needs_summary, needs_body;
	bool needs_parts;		/* bodies: the summary too */
	bool sets_seen;
	bool by_number;			/* the client must hear that a message is expunged already */
	bool has_uid, has_flags, has_modseq;
	const char *done;		/* the OK at the end */
	/* where it is */
	uint32_t next;			/* sequence number to go on with; 0 = end */
	struct obox_msg *batch;
	uint32_t *batch_seq;
	bool *batch_seen;		/* \Seen was set by this command: tell the flags */
	size_t batch_max, n, i;		/* size, messages in it, the current one */
	/* the current message, when bodies are needed */
	bool in_message;		/* its line was begun */
	size_t item;			/* the one under way */
	size_t mark;			/* where its line begins in c->out */
	bool sent;			/* part of the line may be gone: it cannot be taken back */
	struct buf summary_bytes;
	struct mime_summary summary;
	struct obox_body *body;
	struct fetch_ahead {
		struct fetch_ahead_slot {
			uint32_t seq;
			size_t bytes;		/* that it may hold at once */
			bool load;		/* its beginning is wanted in any case */
			struct obox_body *body;	/* NULL: it could not be opened */
			bool opened;
		} slot[FETCH_AHEAD];
		size_t head, n;			/* a ring, in the order of sequence numbers */
		uint32_t next;			/* the number to go on with; 0: there are no more */
		size_t bytes;
	} ahead;
	struct fetch_stream stream;
	struct buf tmp;
	/* what went wrong */
	struct seqset lost;		/* UIDs whose data could not be had */
	int lost_rc;			/* why the first */
	bool gone, unknown_cte, seen_failed;
};

/* --- fetch-parse.c --- */
/* The items after the message set; with changedsince and the like. */
bool fetch_parse(struct imap_session *s, struct lex *lx, struct fetch *f);

/* --- fetch.c --- */
struct fetch *fetch_new(void);
void fetch_free(void *f);
/* Makes f (owned now) the rest of the running command; done is its OK. */
void fetch_run(struct imap_session *s, struct fetch *f, const char *done);
/* The response of QRESYNC: UID, FLAGS and MODSEQ of messages changed since. */
void fetch_changes_program(struct imap_session *s, struct fetch *f, uint64_t since);
/* Notes that message i of the batch cannot be answered, and logs it. */
void fetch_lost(struct imap_session *s, struct fetch *f, const struct obox_msg *m, int rc, const struct err *err);

/* --- fetch-item.c --- */
/* "* 12 FETCH (" */
void fetch_put_begin(struct imap_session *s, uint32_t seq);
/* One item that index and summary (may be NULL when not needed) answer; false: it needs the body. */
bool fetch_put_item(struct imap_session *s, struct fetch *f, const struct fetch_item *it, const struct obox_msg *m,
		    const struct mime_summary *sum);
/* ")" with FLAGS, UID and MODSEQ before it when \Seen was set on the way. */
void fetch_put_end(struct imap_session *s, struct fetch *f, size_t i);

/* --- fetch-body.c --- */
/* One message with parts of its body; false: pause. */
bool fetch_body_message(struct imap_session *s, struct fetch *f);
void fetch_body_drop(struct fetch *f);	/* what it holds of the current message */


/* --- fetch-ahead.c --- */
/* The body of the current message, opened with those of the messages behind
 * it, or NULL: open it and see why.  Owned by the caller. */
struct obox_body *fetch_ahead_take(struct imap_session *s, struct fetch *f);
void fetch_ahead_drop(struct fetch *f);
#endif
