/* imap - one logged-in IMAP session: what its files share.
 *
 * A session runs one command at a time, in these steps (session.c):
 *
 *   read -> start (parse and begin) -> step, step, ... -> news -> answer
 *
 * start() either sets the answer with imap_reply*() or sets cmd.step, which is
 * called until it gives IMAP_DONE.  A step gives IMAP_MORE when
 * imap_should_pause() says so; it is called again when output went out or
 * other sessions had a turn.  News are what obox_view_sync() has to tell;
 * the sequence numbers of the view change only there, never during steps.
 *
 * Whatever is allocated for a command lives in cmd.arena or is freed by
 * cmd.ctx_free; between commands a session holds no batch and no result. */
#ifndef DAEMON_IMAP_IMAP_H
#define DAEMON_IMAP_IMAP_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/seqset.h"
#include "daemon/conn.h"
#include "daemon/imap/arena.h"
#include "daemon/imap/lex.h"
#include "daemon/imap/reader.h"
#include "obox/obox.h"

enum {
	IMAP_TIMEOUT_MS = 30 * 60 * 1000,	/* RFC 9051 section 5.4: at least 30 minutes */
	IMAP_BATCH = 256,			/* messages read from the view at a time */
	IMAP_SLICE_US = 20000,			/* of one run before other sessions get a turn */
	IMAP_BAD_MAX = 20			/* bad commands in a row */
};

struct imap_session;
struct append;
enum imap_step { IMAP_DONE, IMAP_MORE };

/* Which news may be told with a command's answer. */
enum imap_news { NEWS_NONE, NEWS_NO_EXPUNGE, NEWS_ALL };

struct imap_command {
	const char *name;
	void (*start)(struct imap_session *s, struct lex *lx);
	enum imap_news news;
	bool selected;		/* needs a selected mailbox */
	bool uid;		/* exists as UID <name> too; then all news may be told */
};

struct imap_cmd {
	const struct imap_command *def;
	char *tag;			/* in the arena */
	bool uid;
	enum imap_news news;
	struct arena arena;
	struct lex lex;
	enum imap_step (*step)(struct imap_session *s);
	void *ctx;
	void (*ctx_free)(void *ctx);
	struct buf reply;		/* "OK [CODE] text" */
	bool reply_modseq;		/* put [HIGHESTMODSEQ n] into an OK */
	bool bad;			/* counts as a bad command */
};

/* What is being told to the client of what others did; see news.c. */
struct imap_telling {
	bool active;
	int stage;
	size_t pos;
	struct obox_sync sync;
};

struct imap_session {
	struct conn *c;
	struct obox_user *user;		/* NULL until it could be opened */
	struct obox_view *view;		/* NULL: no mailbox is selected */
	char *mailbox;			/* its name, for the log */
	char **keywords;		/* of the selected mailbox, by bit */
	size_t n_keywords;
	uint64_t told_modseq;		/* the client knows all changes of the mailbox up to this */
	struct seqset saved;		/* "$": UIDs */
	struct reader reader;
	size_t in_pos;			/* consumed of c->in in this run */
	struct imap_cmd cmd;
	struct imap_telling tell;
	struct append *append;		/* an APPEND that is being read */
	int64_t slice_end;		/* monotonic microseconds */
	unsigned bad_in_row;
	atomic_bool idling;		/* IDLE: the notify callback wakes us */
	bool active;			/* a command is being carried out */
	bool rev2;			/* ENABLE IMAP4rev2 */
	bool condstore, qresync;
	bool closing;			/* the connection is to end */
	bool eof;			/* the client sent its last byte */
	bool mid_line;			/* output stands in the middle of a line or literal */
	bool drained;			/* output moved since the last time-out */
};

/* --- session.c --- */
bool imap_should_pause(struct imap_session *s);
/* The user's root, opened when it is not yet; NULL with the answer set. */
struct obox_user *imap_user(struct imap_session *s);
/* "* BYE text" and close after what is pending. */
void imap_bye(struct imap_session *s, const char *text);
/* Leaves the selected mailbox, if any. */
void imap_unselect(struct imap_session *s);

/* --- command.c --- */
const struct imap_command *imap_command_find(const char *name);
/* Starts the command in s->reader.cmd. */
void imap_command_start(struct imap_session *s);
void imap_command_free(struct imap_cmd *cmd);

/* --- response.c --- */
void imap_reply(struct imap_session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void imap_reply_bad(struct imap_session *s, const struct lex *lx);	/* from the lexer's error */
/* NO with the response code for rc; logs what an operator should know. */
void imap_reply_err(struct imap_session *s, int rc, const struct err *err, const char *mailbox);
const char *imap_err_code(int rc);	/* "UNAVAILABLE"... of enum err_code */
void imap_untagged(struct imap_session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void imap_put_mailbox(const struct imap_session *s, struct buf *out, const char *name);
void imap_put_astring(struct buf *out, const char *str, size_t len);
void imap_put_flags(const struct imap_session *s, struct buf *out, const struct obox_msg *m);	/* "(\Seen x)" */
/* "FLAGS ..." and "OK [PERMANENTFLAGS ...": all that the mailbox has. */
void imap_put_flag_list(struct imap_session *s);
/* Learns keywords that appeared since; true when there are new ones. */
bool imap_learn_keywords(struct imap_session *s);
/* The same, and tells the client. Only where an untagged response may stand. */
void imap_announce_keywords(struct imap_session *s);
/* The same where messages that were just read have one of them: others may have added it since the last time. */
void imap_announce_keywords_of(struct imap_session *s, const struct obox_msg *m, size_t n);
void imap_forget_keywords(struct imap_session *s);
/* RFC 7162 section 3.1: the first CONDSTORE enabling command. */
void imap_enable_condstore(struct imap_session *s);

/* --- set.c --- */
/* The messages of raw as sequence numbers of the view.  uid: raw holds UIDs.
 * strict: a sequence number beyond the view is an error (answer set, false). */
bool imap_set_resolve(struct imap_session *s, const struct lex_set *raw, bool uid, bool strict, struct seqset *seqs);
/* Their UIDs.  gone_r (may be NULL): how many of them are expunged already. */
void imap_seqs_to_uids(struct imap_session *s, const struct seqset *seqs, struct seqset *uids, uint32_t *gone_r);
void imap_uids_to_seqs(struct imap_session *s, const struct seqset *uids, struct seqset *seqs);

/* --- news.c --- */
void imap_news_start(struct imap_session *s, bool expunges);
enum imap_step imap_news_step(struct imap_session *s);
void imap_news_free(struct imap_session *s);

/* --- append.c: the part of APPEND that runs while it is being read --- */
bool imap_is_append(const struct imap_session *s);
void imap_append_literal(struct imap_session *s);
void imap_append_data(struct imap_session *s, const void *data, size_t len);
void imap_append_finish(struct imap_session *s);	/* the command is complete */
void imap_append_free(struct imap_session *s);

/* --- the commands --- */
void imap_cmd_append(struct imap_session *s, struct lex *lx);
void imap_cmd_close(struct imap_session *s, struct lex *lx);
void imap_cmd_copy(struct imap_session *s, struct lex *lx);
void imap_cmd_create(struct imap_session *s, struct lex *lx);
void imap_cmd_delete(struct imap_session *s, struct lex *lx);
void imap_cmd_examine(struct imap_session *s, struct lex *lx);
void imap_cmd_expunge(struct imap_session *s, struct lex *lx);
void imap_cmd_fetch(struct imap_session *s, struct lex *lx);
void imap_cmd_idle(struct imap_session *s, struct lex *lx);
void imap_idle_line(struct imap_session *s);
void imap_cmd_list(struct imap_session *s, struct lex *lx);
void imap_cmd_lsub(struct imap_session *s, struct lex *lx);
void imap_cmd_move(struct imap_session *s, struct lex *lx);
void imap_cmd_rename(struct imap_session *s, struct lex *lx);
void imap_cmd_search(struct imap_session *s, struct lex *lx);
void imap_cmd_select(struct imap_session *s, struct lex *lx);
void imap_cmd_status(struct imap_session *s, struct lex *lx);
void imap_cmd_store(struct imap_session *s, struct lex *lx);
void imap_cmd_subscribe(struct imap_session *s, struct lex *lx);
void imap_cmd_unselect(struct imap_session *s, struct lex *lx);
void imap_cmd_unsubscribe(struct imap_session *s, struct lex *lx);

#endif
