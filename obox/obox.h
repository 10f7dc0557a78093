/* obox - the mailbox format: message objects, one log of records per user,
 * mailbox indexes; saving, fetching, copying, expunging, and what changed.
 *
 * struct obox is one node: its stores, keys and journal.  struct obox_user is
 * one root (DESIGN section 4) opened for writing by this node; all sessions
 * of a user share it.  struct obox_view is one session's picture of one
 * mailbox: its message sequence numbers change only in obox_view_sync().
 *
 * Errors:  0 or <0 (enum err_code), look-ups 1/0/<0, text in *err.
 *          ERR_NOTFOUND no such mailbox, ERR_EXISTS, ERR_INVALID bad name,
 *          ERR_DENIED read-only view, ERR_LIMIT too large or too many,
 *          ERR_UNAVAILABLE/BUSY/TIMEOUT/IO the store: not acknowledged, the
 *          change may be retried.
 * Threads: any thread may call anything; one view is used by one thread at a
 *          time.  Strings handed out are owned by the caller unless said.
 * Blocks:  calls marked (durable) return when the change would survive power
 *          loss; they and everything that opens or reads objects may wait
 *          for the disk or the store.  The rest takes a lock for microseconds. */
#ifndef OBOX_OBOX_H
#define OBOX_OBOX_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/seqset.h"

struct objstore;
struct seal_keys;
struct obox_cluster;
struct obox_cache;
struct obox;
struct obox_user;
struct obox_view;
struct obox_msgin;
struct obox_body;

/* System flags; the values are part of the format. */
enum obox_flags {
	OBOX_SEEN = 1, OBOX_ANSWERED = 2, OBOX_FLAGGED = 4, OBOX_DELETED = 8, OBOX_DRAFT = 16,
	OBOX_FLAGS_ALL = 31,
	OBOX_GONE = 1 << 16	/* not stored: in a view, expunged but not yet told */
};
enum { OBOX_KEYWORDS_MAX = 128, OBOX_NAME_MAX = 1000 /* bytes of a mailbox name, UTF-8 */, OBOX_KEYWORD_LEN_MAX = 255 };
/* Special-use bits (RFC 6154) of a mailbox. */
enum obox_special { OBOX_USE_ARCHIVE = 1, OBOX_USE_DRAFTS = 2, OBOX_USE_JUNK = 4, OBOX_USE_SENT = 8, OBOX_USE_TRASH = 16,
	OBOX_USE_FLAGGED = 32, OBOX_USE_ALL = 64, OBOX_USE_IMPORTANT = 128 };

/* Names an object of this root: m/<epoch>-<n>. */
struct obox_oid { uint64_t epoch, n; };
struct obox_guid { unsigned char b[16]; };

/* One message in one mailbox. */
struct obox_msg {
	uint32_t uid;
	uint32_t flags;			/* enum obox_flags */
	uint64_t modseq;
	uint64_t kw[2];			/* bit i: keyword i of the mailbox (obox_view_keyword) */
	uint64_t size;			/* octets, RFC822.SIZE */
	int64_t idate;			/* INTERNALDATE, seconds UTC */
	int64_t sdate;			/* saved into this mailbox */
	struct obox_oid oid;
	uint32_t sum_block, sum_slot;	/* where the summary is */
};

/* --- the node --- */
struct obox_config {
	const char *state_dir;		/* journals and caches of all nodes of this machine live below it
					 * (nodes/<node>/...); created.  Journals that dead nodes left there are replayed at open. */
	struct objstore *mail_store;	/* borrowed: must outlive the obox; see objstore.h */
	struct objstore *index_store;	/* may be the same */
	const char *prefix;		/* of all keys in the stores: "" or "culver" */
	const char *node;		/* name of this node (worker), unique among all that share the store */
	const struct seal_keys *keys;	/* borrowed */
	const struct clock *clock;	/* NULL = the system's */
	unsigned flag_commit_delay_ms;	/* 0 = flag changes are durable before they return; default 1000 */
	uint64_t grace_s;		/* how long expunged mail is kept before obox_tend deletes it; default 7 days; UINT64_MAX = that default */
	uint64_t max_message;		/* octets; 0 = 150 MiB */
	uint64_t cache_bytes;		/* memory for users nobody uses now; 0 = 256 MiB */
	struct obox_cluster *cluster;	/* borrowed; NULL: journal = local, this machine alone.  Else journal = store:
					 * see metacache/metacache.h */
	struct obox_cache *cache;	/* borrowed; copies of snapshots and logs on this machine's disk, see metacache/metadisk.h; NULL: none */
};
int obox_open(const struct obox_config *cfg, struct obox **ob_r, struct err *err);
/* Uploads what is not in the logs yet, releases all users.  All users, views and messages must be closed. */
void obox_close(struct obox **ob);

/* Did another node take over this one's users?  Then nothing is ever acknowledged here again, and the process should
 * start anew (a new incarnation). */
bool obox_fenced(struct obox *ob);
/* Ends without a word to the store, as a killed process does: for tests of what others then do. Users and views must be closed. */
void obox_abandon(struct obox **ob);

/* --- users --- */
struct obox_owner {	/* another node that serves a user */
	char node[64];
	char address[256];	/* as it was given there */
	uint64_t incarnation;
};
/* Takes ownership of the root, creating it with an INBOX when new.  user: 1..255 bytes, no control characters, lower-cased by the caller. */
int obox_user_open(struct obox *ob, const char *user, struct obox_user **u_r, struct err *err);
/* The same; ERR_BUSY with o->node set: that live node has the user, and the session should go there. */
int obox_user_locate(struct obox *ob, const char *user, struct obox_user **u_r, struct obox_owner *o, struct err *err);
/* Hand-over: everything of the user goes to the store and the root is released, so that any node may take it.
 * ERR_BUSY: somebody has it open here (end its sessions first).  0 also when the user is not this node's; never while root still names it. */
int obox_user_release(struct obox *ob, const char *user, struct err *err);
/* Whoever opens a user that is here waits until it is off again, or the user gone: to be held for seconds only, while its sessions are ended. */
void obox_user_leave(struct obox *ob, const char *user, bool on);
void obox_user_close(struct obox_user **u);
const char *obox_user_name(const struct obox_user *u);

/* --- mailboxes ---
 * Names are UTF-8 (stored as NFC), hierarchy separator '/'; INBOX in any
 * case is INBOX.  ERR_INVALID with a text that says what is wrong. */
struct obox_mailbox {
	char *name;
	struct obox_guid guid;
	uint32_t uidvalidity;
	uint32_t special;		/* enum obox_special */
	bool exists;			/* false: only a parent of others, or only subscribed */
	bool subscribed;
	bool has_children;		/* existing ones */
};
struct obox_status {
	struct obox_guid guid;
	uint32_t uidvalidity, uidnext;
	uint32_t messages, unseen, deleted, recent /* always 0: see docs/architecture.md */;
	uint64_t highestmodseq;
	uint64_t size;			/* sum of sizes, octets */
	uint64_t deleted_size;		/* of messages with \Deleted */
};
/* All mailboxes, missing parents and subscribed names without a mailbox,
 * INBOX first, then by name with '/' before every other byte.  *list_r of
 * *n_r; obox_mailboxes_free. */
int obox_mailboxes(struct obox_user *u, struct obox_mailbox **list_r, size_t *n_r, struct err *err);
void obox_mailboxes_free(struct obox_mailbox *list, size_t n);
int obox_mailbox_status(struct obox_user *u, const char *name, struct obox_status *st, struct err *err);
int obox_mailbox_create(struct obox_user *u, const char *name, uint32_t special, struct err *err);	/* (durable); missing parents are made too */
int obox_mailbox_delete(struct obox_user *u, const char *name, struct err *err);	/* (durable); children stay */
int obox_mailbox_rename(struct obox_user *u, const char *from, const char *to, struct err *err);	/* (durable); with children; INBOX: RFC 3501 6.3.5 */
int obox_mailbox_subscribe(struct obox_user *u, const char *name, bool on, struct err *err);	/* (durable) */
/* Grows whenever the set of mailboxes, subscriptions or roles changed. */
uint64_t obox_mailboxes_version(struct obox_user *u);

/* --- messages coming in ---
 * Fed once, parsed, hashed and compressed once, saved any number of times
 * (recipients, users, mailboxes).  Spools to memory, then to an unnamed file. */
int obox_msgin_new(struct obox *ob, struct obox_msgin **in_r, struct err *err);
int obox_msgin_write(struct obox_msgin *in, const void *data, size_t len, struct err *err);	/* ERR_LIMIT: over max_message */
int obox_msgin_finish(struct obox_msgin *in, struct err *err);
uint64_t obox_msgin_size(const struct obox_msgin *in);
/* After finish: the serialised summary of mime.h, and the message's bytes. Borrowed. */
const void *obox_msgin_summary(const struct obox_msgin *in, size_t *len_r);
int obox_msgin_read(const struct obox_msgin *in, uint64_t off, void *data, size_t len, struct err *err);
void obox_msgin_free(struct obox_msgin **in);
/* After finish: the message, parsed and packed as it is, for another process of this version.  Up to max bytes are
 * appended to out and *fd_r is -1; a larger one is (for the most part) behind *fd_r, which is the caller's to close. */
int obox_msgin_export(struct obox_msgin *in, size_t max, struct buf *out, int *fd_r, struct err *err);
/* The other end: reads what export appended from r.  fd (or -1) is taken whatever is returned. */
int obox_msgin_import(struct obox *ob, struct rd *r, int fd, struct obox_msgin **in_r, struct err *err);

struct obox_save {
	struct obox_msgin *msg;		/* finished; borrowed */
	uint32_t flags;
	const char *const *keywords;	/* n_keywords of them */
	size_t n_keywords;
	int64_t idate;			/* INT64_MIN = now */
	const char *env_from, *env_to;	/* envelope addresses, NULL when none */
	const char *prepend;		/* header lines put before the message (Return-Path: ...), each with CRLF; NULL = none.
					 * They are part of the stored message; the summary is adjusted. */
	const char *pop3_uidl;		/* migrated UIDL, or NULL */
	uint32_t uid_r;			/* out */
	uint64_t modseq_r;		/* out */
};
/* (durable) All of them or none, UIDs in order.  After an error nothing is
 * acknowledged and nothing stays visible.  uidvalidity_r may be NULL. */
int obox_save(struct obox_user *u, const char *mailbox, struct obox_save *msgs, size_t n, uint32_t *uidvalidity_r, struct err *err);

/* --- views --- */
/* Selects a mailbox.  notify (may be NULL) is called from any thread, with
 * locks held, whenever obox_view_sync() would have news: it may only wake
 * somebody. */
int obox_view_open(struct obox_user *u, const char *mailbox, bool read_only, void (*notify)(void *ctx), void *ctx,
		   struct obox_view **v_r, struct err *err);
void obox_view_close(struct obox_view **v);
/* The mailbox's counters now; uidnext etc. may be ahead of the view. */
void obox_view_status(struct obox_view *v, struct obox_status *st);
/* True: messages are read over a network; begin many. */
bool obox_view_remote(const struct obox_view *v);
bool obox_view_read_only(const struct obox_view *v);
/* Was the mailbox deleted under the view?  Then messages can no longer be read and the session should leave it. */
bool obox_view_deleted(struct obox_view *v);
uint32_t obox_view_count(const struct obox_view *v);	/* messages the session knows */
uint32_t obox_view_first_unseen(struct obox_view *v);	/* sequence number or 0 */
/* Sequence number of uid, or 0; with next: of the first known message with a UID >= uid, or 0. */
uint32_t obox_view_seq(struct obox_view *v, uint32_t uid, bool next);
uint32_t obox_view_uid(struct obox_view *v, uint32_t seq);	/* 0: no such message */
/* Copies the messages seq, seq+1, ... into out; returns how many (fewer than
 * max only at the end).  Expunged ones not yet told have OBOX_GONE. */
size_t obox_view_read(struct obox_view *v, uint32_t seq, struct obox_msg *out, size_t max);
/* The mailbox's keywords by bit number; they are only ever added, so index < count stays valid. Copied into out (free each). */
size_t obox_view_keywords(struct obox_view *v, char **out /* OBOX_KEYWORDS_MAX */, size_t from);
size_t obox_view_keyword_count(struct obox_view *v);

/* What is new since the last call (or open).  Free with obox_sync_free. */
struct obox_sync {
	uint32_t *expunged;		/* UIDs, ascending */
	uint32_t *expunged_seq;		/* to be told in this order: each number is right after the ones before it were told */
	size_t n_expunged;
	uint32_t exists;		/* count after the expunges and the new ones */
	bool new_messages;		/* exists grew */
	uint32_t *changed;		/* sequence numbers (after all of the above) whose flags changed, ascending */
	size_t n_changed;		/* new messages are not among them */
	uint64_t highestmodseq;		/* up to where the view now is */
};
/* expunges_ok false: keeps expunges back (commands during which they must not be sent). 1 news, 0 none.
 * An expunge that a crash could take back is kept back, too: until then the message is there, as if nothing had happened. */
int obox_view_sync(struct obox_view *v, bool expunges_ok, struct obox_sync *out);
void obox_sync_free(struct obox_sync *s);
/* CONDSTORE/QRESYNC: UIDs expunged with a modseq > since, out of known (NULL
 * = all below uidnext).  When since is before what the log remembers (or in a
 * range lost by a crash) all UIDs that are not there. */
void obox_view_vanished(struct obox_view *v, uint64_t since, const struct seqset *known, struct seqset *out);
/* Is since a modseq from which changes are known?  If not a client must be
 * told of every message as if since were 0 (a crash took back flag changes it may have seen). */
bool obox_view_modseq_known(struct obox_view *v, uint64_t since);

/* --- changes through a view --- */
enum obox_flag_how { OBOX_FLAGS_ADD, OBOX_FLAGS_REMOVE, OBOX_FLAGS_REPLACE };
struct obox_flag_change {
	enum obox_flag_how how;
	uint32_t flags;
	const char *const *keywords;	/* created when new; ERR_LIMIT: more than OBOX_KEYWORDS_MAX */
	size_t n_keywords;
	uint64_t unchangedsince;	/* UINT64_MAX = no condition */
};
/* uids: those not in the mailbox are skipped.  modified_r (may be NULL): UIDs
 * that failed UNCHANGEDSINCE.  changed_r (may be NULL): UIDs whose flags are
 * now different, all with modseq *modseq_r.  The view's next sync does not
 * report these changes again unless others came between. */
int obox_store(struct obox_view *v, const struct seqset *uids, const struct obox_flag_change *c,
	       struct seqset *modified_r, struct seqset *changed_r, uint64_t *modseq_r, struct err *err);
/* (durable) COPY or MOVE of the messages that exist, in UID order.  The result
 * pairs are src and dst in the same order as lists (RFC 4315). ERR_NOTFOUND: no such destination. */
struct obox_copy_result {
	uint32_t uidvalidity;
	struct seqset src, dst;		/* same count; ascending both */
};
int obox_copy(struct obox_view *v, const struct seqset *uids, const char *to, bool move, struct obox_copy_result *res, struct err *err);
void obox_copy_result_free(struct obox_copy_result *res);
/* (durable) Removes the messages with \Deleted, of uids only when that is not
 * NULL; with any: the given uids whatever their flags (POP3, REPLACE). */
int obox_expunge(struct obox_view *v, const struct seqset *uids, bool any, uint64_t *modseq_r, struct err *err);

/* --- reading --- */
/* The serialised summary (mime.h) of m, appended to out.  ERR_CORRUPT or
 * ERR_NOTFOUND damage this message only.  Runs of messages in UID order are cheap. */
int obox_summary(struct obox_user *u, const struct obox_msg *m, struct buf *out, struct err *err);
/* Many at once without copies: fn gets each summary (borrowed for the call),
 * or NULL where it cannot be had; it stops when fn returns false. */
void obox_summaries(struct obox_user *u, const struct obox_msg *m, size_t n,
	bool (*fn)(void *ctx, size_t i, const void *summary, size_t len), void *ctx);

int obox_body_open(struct obox_user *u, const struct obox_msg *m, struct obox_body **b_r, struct err *err);
/* The same in two steps.  The first asks for the message without waiting where the store is behind a network, so that many
 * may be on their way at once; what can go wrong is told by the second, which closes *b then (NULL). Until then only close may be called. */
struct obox_body *obox_body_begin(struct obox_user *u, const struct obox_msg *m, bool whole /* all of it will be read */);
int obox_body_wait(struct obox_body **b, struct err *err);
uint64_t obox_body_size(const struct obox_body *b);
/* len bytes from off on will be read, in order: a store behind a network is asked for more at a time, and ahead. No more than a hint. */
void obox_body_expect(struct obox_body *b, uint64_t off, uint64_t len);
/* len bytes at off exactly (both within the size); reads and checks only the chunks concerned. */
int obox_body_read(struct obox_body *b, uint64_t off, void *data, size_t len, struct err *err);
/* Reads and checks what the first 128 KiB are in now, so that reading them waits for nothing. */
int obox_body_load(struct obox_body *b, struct err *err);
void obox_body_close(struct obox_body **b);
/* The save record of a message object: where it came from. */
struct obox_origin {
	char *user, *mailbox, *env_from, *env_to, *pop3_uidl;
	uint32_t uidvalidity, uid;
	uint64_t modseq;
	uint32_t flags;
	char **keywords;
	size_t n_keywords;
	int64_t idate, sdate;
	unsigned char sha256[32];
};
int obox_origin(struct obox_body *b, struct obox_origin *o, struct err *err);
void obox_origin_free(struct obox_origin *o);

/* --- upkeep (culverctl, timers) --- */
/* Call both every second or so, from a thread each: obox_upkeep commits flag changes and waits for the journal's disk only;
 * obox_tend uploads, evicts and collects, and may wait for the store for long. */
void obox_upkeep(struct obox *ob);
void obox_tend(struct obox *ob);
void obox_stop_tending(struct obox *ob);	/* obox_tend, under way or called later, begins nothing that takes long */
int obox_flush(struct obox *ob, const char *user /* NULL = all */, struct err *err);	/* uploads logs and snapshots now */
/* The memory a user takes is given back now, as it is after minutes without use: what is not in the store goes there, and the root is released.
 * Of a user that is named nothing stays in the cache on disk either, be it in memory or not.  ERR_BUSY: somebody has it open here.
 * user NULL: everybody who can be, from memory alone; *n_r how many that were. */
int obox_user_evict(struct obox *ob, const char *user, size_t *n_r, struct err *err);
size_t obox_users_held(struct obox *ob);	/* in memory, being opened or closed */
void obox_users_here(struct obox *ob, void (*fn)(void *ctx, const char *user), void *ctx);	/* fn may call anything */
struct obox_where {	/* as root says, which is read and not taken */
	char node[64];
	uint64_t incarnation;		/* 0: nobody owns it; node: who had it last ("" after a takeover) */
	uint64_t epoch, log_seq, log_lsn;
	bool mine;			/* this very node owns it */
	bool loaded;			/* it is in memory here, and */
	unsigned opened;		/* so many have it open */
	uint64_t bytes, tail;		/* of memory; of records that are not in its log yet */
};
int obox_user_where(struct obox *ob, const char *user, struct obox_where *w, struct err *err);	/* 1, 0 there is no such root, <0 */
struct obox_gc_stats { uint64_t objects, bytes, kept; };
int obox_gc(struct obox_user *u, bool ignore_grace, struct obox_gc_stats *st, struct err *err);
struct obox_lost {	/* expunged, within the grace period */
	char *mailbox; uint32_t uid; int64_t expunged; struct obox_msg msg;
};
int obox_expunged_list(struct obox_user *u, struct obox_lost **list_r, size_t *n_r, struct err *err);
void obox_expunged_free(struct obox_lost *list, size_t n);
/* (durable) Brings messages expunged since a time back into mailbox `to` (NULL = their own, made again when missing) under new UIDs. */
int obox_undelete(struct obox_user *u, const char *mailbox, int64_t since, const char *to, uint64_t *n_r, struct err *err);
struct obox_check {
	void (*report)(void *ctx, bool damage, const char *text);	/* each finding */
	void (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
	bool bodies;		/* read and verify every byte, not only that the object is there */
	bool repair;
	uint64_t messages, damaged, missing, orphans;		/* out */
	uint64_t repaired, forgotten;	/* orphans deleted and messages forgotten; the latter alone */
};
int obox_check(struct obox_user *u, struct obox_check *c, struct err *err);
/* Compares the store with what user's root names, without opening (owning) the user: for any user, from any node, with
 * what the owner has not uploaded yet taken into account.  Repair deletes old objects of nobody where no node serves the user. */
struct obox_scrub {
	void (*report)(void *ctx, bool damage, const char *text);
	void (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
	bool bodies, repair;
	uint64_t messages, objects, bytes;				/* out: in mailboxes; in the store */
	uint64_t missing, damaged, orphans, bundles /* indexes, logs or summary blocks missing or damaged */, repaired;
	bool served;		/* some node has the user: it alone may repair more, by obox_check */
};
int obox_scrub(struct obox *ob, const char *user, struct obox_scrub *s, struct err *err);
/* The records of a user's log that are in the store, as text or JSON lines, a segment a call; fn's non-zero ends it. */
int obox_log_show(struct obox *ob, const char *user, bool json, int (*fn)(void *ctx, const char *text, size_t len), void *ctx, struct err *err);
/* Makes user's root anew from its message objects alone; refuses while a readable root exists unless force. */
int obox_rebuild(struct obox *ob, const char *user, bool force, struct obox_check *c, struct err *err);
/* Users that have a root or message objects in the mail store (or where it cannot list, a root in the index), in the order of their keys; only those behind
 * the user after (NULL = all). */
int obox_users(struct obox *ob, const char *after, int (*fn)(void *ctx, const char *user), void *ctx, struct err *err);
/* Any object of the store as readable text lines or JSON. */
int obox_dump(struct obox *ob, const char *key, bool json, struct buf *out, struct err *err);
#endif
