/* obox-private - the inside of obox/: the state of a root, its records, the
 * journal, and how they hang together.  See obox/README.md for the picture.
 *
 * Locks, in the order in which they may be taken:
 *   obox.lock (table of users)  >  obox_user.lock (one root's state)  >
 *   journal.lock, sumcache.lock, seal_keys' own, the disk cache's.
 * No lock is held while a journal is synced.  obox_user.lock is held while a
 * bundle of that root is read. */
#ifndef OBOX_PRIVATE_H
#define OBOX_PRIVATE_H
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>

#include "base/hmap.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "objstore/objstore.h"
#include "obox/cache.h"
#include "obox/cluster.h"
#include "obox/obox.h"

enum {
	OBOX_CHUNK = 128 * 1024,	/* plaintext bytes of one chunk of a message */
	OBOX_JOURNAL_OBJECT = 256 * 1024,	/* message objects up to this ride in the local journal */
	OBOX_ENDS = 16,
	OBOX_RING = 1024,
	OBOX_VANISHED_MAX = 65536,
	OBOX_BUNDLE_MAX = 1 << 30,
	OBOX_SUMBLOCK_BYTES = 256 * 1024
};

/* ---------------------------------------------------------------- records */

enum rec_type {
	REC_MBOX_CREATE = 1, REC_MBOX_DELETE, REC_MBOX_RENAME, REC_SUBSCRIBE, REC_SAVE, REC_KEYWORD, REC_FLAGS, REC_COPY,
	REC_EXPUNGE, REC_PURGE, REC_UNDELETE, REC_FENCE
};

/* A record being built or read; which fields count depends on the type (docs/format.md, "records"). */
struct rec {
	enum rec_type type;
	struct obox_guid guid;		/* the mailbox; COPY: the source */
	struct obox_guid to;		/* COPY, UNDELETE: the destination */
	const char *name;		/* CREATE, RENAME, SUBSCRIBE, KEYWORD; NUL-terminated */
	uint32_t uidvalidity, special, bit;
	uint64_t modseq, to_modseq;
	int64_t time;
	struct obox_msg msg;		/* SAVE (without the place of the summary) */
	const void *summary;
	size_t summary_len;
	enum obox_flag_how how;
	uint32_t flags;
	uint64_t kw[2];
	uint32_t to_uid;		/* COPY, UNDELETE: first UID in the destination */
	bool on;			/* SUBSCRIBE; COPY: a move; EXPUNGE: keep nothing for undelete */
	const struct seqset *uids;	/* writing */
	struct seqset uids_read;	/* reading: owned, rec_release */
	char *name_read;
};
void rec_encode(const struct rec *r, struct buf *out);		/* length-prefixed */
int rec_decode(struct rd *in, struct rec *r);			/* 1 one record, 0 end, ERR_CORRUPT */
void rec_release(struct rec *r);
void rec_describe(const struct rec *r, bool json, struct buf *out);	/* one line */

/* ------------------------------------------------------- state of one root */

struct vanished { uint64_t modseq; uint32_t lo, hi; };
struct change { uint64_t modseq; uint32_t lo, hi; };
struct snapshot_ref { uint64_t lsn, epoch; unsigned char hash[32]; };	/* lsn 0: none */

struct mbox {
	struct obox_guid guid;
	char *name;
	uint32_t uidvalidity, uidnext, special;
	uint64_t highestmodseq;
	struct snapshot_ref snap;
	bool deleted;
	/* counters of all messages, hidden ones included; right even when not loaded */
	uint32_t n, unseen, n_deleted;
	uint64_t size, deleted_size;
	/* valid when loaded */
	bool loaded;
	bool dirty;			/* differs from its snapshot */
	struct obox_msg *msgs;		/* by UID */
	size_t cap;
	char *keywords[OBOX_KEYWORDS_MAX];
	size_t n_keywords;
	uint64_t ends[OBOX_ENDS];	/* last modseq of earlier epochs, newest first; 0 = none */
	struct vanished *gone;		/* by modseq */
	size_t n_gone, cap_gone;
	uint64_t gone_floor;		/* expunges up to this modseq are forgotten */
	/* live only */
	struct change *ring;		/* the last OBOX_RING flag changes; NULL before the first view */
	uint64_t ring_n;		/* ever added */
	uint64_t ring_floor;		/* changes up to this modseq are not in the ring */
	struct seqset pending;		/* UIDs saved or copied but not yet durable */
	uint64_t gone_ticket;		/* of the last record that took messages out of it */
	struct gone *leaving;		/* what was shown and is expunged, by records that may not be durable yet, in their order (view.c) */
	size_t n_leaving, cap_leaving;
	unsigned pins;			/* calls that hold the pointer without the lock; a deleted mailbox waits for them */
	struct obox_view *views;
};

struct trash {	/* an expunged message within its grace period; holds a reference to its object */
	struct obox_guid guid;
	int64_t time;
	struct obox_msg msg;
};

struct dead { struct obox_guid guid; char *name; };	/* a deleted mailbox with mail in the trash */

struct sumblock {	/* an immutable block of summaries */
	uint64_t epoch, n;	/* object sum/<epoch>-<n>; n 0 and not open: given up */
	uint32_t count, bytes;
	struct sumopen *open;	/* its content while not in the store */
};
struct sumopen { struct buf data; uint32_t *off; size_t cap; bool stored; };

struct root_state {
	uint64_t epoch;			/* of the newest record */
	uint64_t lsn;			/* records applied */
	uint32_t last_uidvalidity;
	struct mbox **boxes;
	size_t n_boxes, cap_boxes;
	char **subs;			/* sorted */
	size_t n_subs, cap_subs;
	struct trash *trash;
	size_t n_trash, cap_trash;
	struct dead *dead;
	size_t n_dead, cap_dead;
	struct hmap shared;		/* oid (16 bytes) -> count >= 2 as a pointer-sized number */
	struct sumblock *blocks;
	size_t n_blocks, cap_blocks;
	uint64_t list_version;
	/* where mailboxes and summaries are read from; see root_load_mbox */
	struct obox_user *user;
};

void root_init(struct root_state *s, struct obox_user *u);
void root_release(struct root_state *s);
/* The state machine: pure but for loading the mailboxes a record touches. ERR_CORRUPT: the record cannot follow this state. */
int root_apply(struct root_state *s, const struct rec *r, struct err *err);
struct mbox *root_by_name(struct root_state *s, const char *name);
struct mbox *root_by_guid(struct root_state *s, const struct obox_guid *g);
uint64_t root_next_modseq(const struct root_state *s, const struct mbox *m);
int root_subscription(const struct root_state *s, const char *name, size_t *at_r);	/* 1/0; where it is or would be */
uint64_t root_refs(struct root_state *s, const struct obox_oid *oid);	/* references to an object that has at least one */
void root_drop_ref(struct root_state *s, const struct obox_oid *oid, bool *last_r);

/* mailbox arrays (mbox.c) */
struct mbox *mbox_new(void);
void mbox_free(struct mbox **m);
size_t mbox_lower(const struct mbox *m, uint32_t uid);		/* first index with UID >= uid */
struct obox_msg *mbox_find(const struct mbox *m, uint32_t uid);
void mbox_append(struct mbox *m, const struct obox_msg *msg);
/* u: whose record is applied */
void mbox_remove(struct obox_user *u, struct mbox *m, const struct seqset *uids, uint64_t modseq, void (*each)(void *ctx, const struct obox_msg *msg), void *ctx);
void mbox_note_modseq(struct mbox *m, uint64_t modseq);
void mbox_note_change(struct mbox *m, uint64_t modseq, const struct seqset *uids);
void mbox_set_flags(struct mbox *m, struct obox_msg *msg, uint32_t flags, const uint64_t kw[2], uint64_t modseq);
int mbox_keyword(const struct mbox *m, const char *name);	/* bit, or -1 (any case matches) */
bool mbox_modseq_known(const struct mbox *m, uint64_t epoch /* now */, uint64_t since);
uint32_t mbox_visible_uidnext(const struct mbox *m);
size_t mbox_visible_count(const struct mbox *m);
uint64_t mbox_visible_modseq(const struct mbox *m);
void mbox_unpin(struct mbox *m);

/* bundles of a root (bundle.c): plain bytes <-> state */
void mbox_encode(const struct mbox *m, struct buf *out);
int mbox_decode(struct mbox *m, const void *data, size_t len, struct err *err);	/* fills in what is valid when loaded */
/* the records of a snapshot (columns.c) */
enum { COLUMN_STEPS = 16 };
void columns_encode(const struct obox_msg *m, size_t n, struct buf *out);
bool columns_fit(const struct rd *r, uint64_t n);		/* could n records be behind r?  (before making room for them) */
int columns_decode(struct rd *r, struct obox_msg *m, size_t n, struct err *err);
void root_encode(const struct root_state *s, struct buf *out);
int root_decode(struct root_state *s, const void *data, size_t len, struct err *err);

/* ---------------------------------------------------------------- journal */

/* The local one.  dir is created; old files must have been replayed and removed before. */
int journal_open(const char *dir, const struct seal_keys *keys, struct journal **j_r, struct err *err);
/* All entries of the files in dir, in order; a torn end of the last file ends it. */
int journal_replay(const char *dir, const struct seal_keys *keys, int (*fn)(void *ctx, const struct journal_entry *e), void *ctx, struct err *err);
int journal_remove_all(const char *dir, struct err *err);

/* --------------------------------------------------------- node and users */

struct manifest {	/* the object "root" */
	uint64_t epoch;
	char node[64];
	uint64_t incarnation;	/* 0 = released */
	uint64_t log_seq, log_lsn;	/* last uploaded segment and the record it ends with */
	unsigned char log_hash[32];
	struct snapshot_ref snap;	/* user snapshot; covers segments <= snap_seq */
	uint64_t snap_seq;
	uint64_t snap_bytes;
	unsigned char snap_hash_of_log[32];	/* log_hash as of snap_seq: what the next segment must name */
};

struct obox {
	struct obox_config cfg;
	char *state_dir, *node_dir, *prefix, *node;
	int lock_fd, tmp_fd;
	uint64_t incarnation;
	struct journal *journal;
	pthread_mutex_t lock;
	pthread_cond_t cond;		/* a user finished opening or closing */
	struct hmap users;
	atomic_bool stopping;
	int64_t last_sync_us;
	struct sumcache *sumcache;
	pthread_mutex_t upkeep_lock;	/* one checkpoint at a time; before all others */
	pthread_rwlock_t gate;		/* held for reading from a save's journal entry to its object's put */
	int64_t last_checkpoint_us;
	int64_t last_used_us;		/* note_used's */
};

struct obox_user {
	struct obox *ob;
	char *name, *prefix;		/* of its keys: .../u/xxx/user/ */
	unsigned refs;			/* obox.lock */
	bool leaving;			/* obox.lock: who opens it waits */
	enum { USER_OPENING, USER_OPEN, USER_CLOSING } phase;	/* obox.lock */
	int64_t last_use;		/* monotonic us; obox.lock */
	bool cached;			/* through ob->cfg.cache: this node owns it */
	pthread_mutex_t lock;		/* all below */
	pthread_cond_t visible;
	struct root_state st;
	struct manifest man;
	char etag[OBJ_ETAG_MAX];
	uint64_t applying;		/* ticket of the record that is being applied; 0: one from the log */
	struct buf tail;		/* encoded records since log_lsn */
	uint64_t tail_bytes_since_snap;
	atomic_uint_least64_t next_oid;
	uint64_t next_block;
	bool broken;			/* journal failed: nothing more is acknowledged */
	atomic_bool lost;		/* broken, because another node owns the user now */
	bool limbo;			/* the answer to a release was lost: nothing is begun until root says whose it is */
	struct started {		/* a segment that may be in the store though root does not name it: its slot keeps these bytes */
		size_t len;
		uint64_t lsn;		/* 0: none */
	} started;
	struct flying {			/* saves whose objects are not in the store: log segments end before the first of them, */
		uint64_t lsn, undone;	/* or have the record that takes it back, too; 0: there is none yet */
	} *flying;
	size_t n_flying, cap_flying;
	struct late {			/* UIDs that stay hidden until the journal has a record: of a move that may happen after all, of taking back;
					 * 0 to 0: an expunge that is not told until then */
		uint64_t ticket;
		struct obox_guid guid;
		uint32_t lo, hi;
	} *late;
	size_t n_late, cap_late;
	int64_t dirty_us;		/* since when tail is not empty */
	pthread_mutex_t upload_lock;	/* one upload at a time; before lock */
	int64_t last_gc_us;		/* obox_collect's; 0 = not yet */
};

/* Appends n records to the journal, together, and applies them, under u->lock.
 * objs (NULL = none) is parallel to r.  The mailboxes concerned are loaded. */
int user_commit(struct obox_user *u, const struct rec *r, const struct journal_object *objs, size_t n, uint64_t *ticket_r, struct err *err);
/* The same for what takes back a record that cannot be acknowledged: taken while the store is away, too. */
int user_commit_forced(struct obox_user *u, const struct rec *r, uint64_t *ticket_r, struct err *err);
/* Saves below it have their objects, or a record that is there expunges them; under the lock. */
uint64_t user_landed(const struct obox_user *u);
int user_wait(struct obox_user *u, uint64_t ticket, struct err *err);	/* not under u->lock */
/* Shows what became durable after its caller had given up; under u->lock. */
void user_settle_late(struct obox_user *u);
void user_late(struct obox_user *u, uint64_t ticket, const struct obox_guid *g, uint32_t lo, uint32_t hi);
int user_load_mbox(struct obox_user *u, struct mbox *m, struct err *err);	/* under u->lock */
/* Finds a mailbox by its name as a client gave it and loads it; under u->lock. */
int user_mbox(struct obox_user *u, const char *name, bool load, struct mbox **m_r, struct err *err);
/* Uploading is two steps with one objstore_sync for many users between them. */
struct upload {
	struct obox_user *u;
	struct manifest man;	/* what root becomes */
	size_t tail_len;	/* bytes of u->tail that are in the log then */
	bool release;
	char **obsolete;	/* keys of replaced snapshots */
	size_t n_obsolete, cap_obsolete;
	bool any, snap;		/* there is something to write; snapshots are among it */
};
int upload_prepare(struct obox_user *u, bool release, bool force_snapshot, struct upload *up, struct err *err);	/* takes u->upload_lock when 0 */
int upload_commit(struct upload *up, struct err *err);	/* releases it, always */
void upload_abandon(struct upload *up);			/* the same without a root */
int obox_checkpoint(struct obox *ob, const char *user, struct err *err);
void obox_collect(struct obox *ob);	/* obox_gc for open users with mail that is due */
int user_load(struct obox_user *u, const struct manifest *man, struct err *err);
/* the keys of snapshots and segments; the caller frees */
char *segment_key(const struct obox_user *u, uint64_t seq);
char *mbox_key(const struct obox_user *u, const struct obox_guid *g, const struct snapshot_ref *ref);
char *root_snapshot_key(const struct obox_user *u, const struct snapshot_ref *ref);
int user_activate(struct obox_user *u, struct obox_owner *o, struct err *err);	/* ERR_BUSY: *o is a live node that owns it */
struct obox_user *user_new(struct obox *ob, const char *name);
void user_destroy(struct obox_user *u);
void user_retire(struct obox_user *u, bool clean);	/* ownership and loading */
char *user_key(const struct obox_user *u, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int obox_name_normalise(const char *name, char **out_r, struct err *err);
char *obox_user_prefix(const char *prefix, const char *user);
/* 0 released or not here, ERR_BUSY open here. */
int user_give_up(struct obox *ob, const char *name, bool *here_r);
uint64_t user_bytes(struct obox_user *u);	/* of memory, about */
void obox_evict_user(struct obox *ob, const char *name);	/* gives the user back unless somebody has it open */
/* fn for 0 .. n-1, several at once where each has to wait for a store that is far away. */
void obox_each(struct obox *ob, size_t n, void (*fn)(void *ctx, size_t i), void *ctx);
void obox_evict(struct obox *ob, int64_t idle_us);	/* under upkeep_lock; -1: everybody who can be */
bool obox_may_delete(struct obox_user *u);	/* is it certain that no other node has taken this user? */
int obox_recover_others(struct obox *ob, struct err *err);	/* journals of other nodes of this state directory whose processes are gone */
int obox_recover(struct obox *ob, const char *dir, struct err *err);
/* The root object. get: 1 there, 0 not. put: swaps, see obox_swap. */
int root_get(struct obox *ob, const char *prefix, struct manifest *man, char etag[OBJ_ETAG_MAX], struct err *err);
int root_put(struct obox *ob, const char *prefix, const struct manifest *man, char etag[OBJ_ETAG_MAX], struct err *err);
/* Puts behind the log that man describes what it lacks of t's records of that epoch, or (fence) a fence of man's
 * epoch; man then describes the longer log, and the caller makes it the root.  ERR_CONFLICT: a later owner is at it. */
int log_extend(struct obox *ob, const char *prefix, struct manifest *man, uint64_t epoch, struct obox_tail *t, bool fence, struct err *err);
int body_open_uncached(struct obox_user *u, const struct obox_msg *m, struct obox_body **b_r, struct err *err);	/* of the store, past any cache */
int check_body(struct obox_user *u, const struct obox_msg *m, struct err *err);	/* every byte against the save record's SHA-256 */
int manifest_encode(const struct manifest *m, const struct seal_keys *k, const char *key, struct buf *out, struct err *err);
int manifest_decode(struct manifest *m, const struct seal_keys *k, const char *key, const void *data, size_t len, struct err *err);
/* packs and seals; the reverse, which appends to plain */
int bundle_seal(struct obox *ob, const char *key, const void *plain, size_t len, struct buf *sealed, struct err *err);
int bundle_unseal(struct obox *ob, const char *key, const struct buf *sealed, struct buf *plain, unsigned char hash_r[32], struct err *err);
int bundle_put(struct obox *ob, const char *key, const void *plain, size_t len, struct err *err);	/* lazily */
int bundle_get(struct obox *ob, const char *key, struct buf *plain, unsigned char hash_r[32], struct err *err);
void segment_encode_head(uint64_t seq, uint64_t epoch, uint64_t first_lsn, uint64_t count, const unsigned char prev[32], struct buf *out);
int segment_decode_head(struct rd *r, uint64_t *seq, uint64_t *epoch, uint64_t *first_lsn, uint64_t *count, const unsigned char **prev, struct err *err);

/* ------------------------------------------------ the cache on disk (cached.c) */

bool cached_get(struct obox_user *u, const char *key, struct buf *sealed);	/* appends */
void cached_put(struct obox_user *u, const char *key, const struct buf *sealed);
void cached_forget(struct obox_user *u);
/* The plain bytes of a bundle that is named with its hash, from the cache or the store (and then cached). */
int cached_bundle(struct obox_user *u, const char *key, const unsigned char hash[32], struct buf *plain, struct err *err);
void cached_tidy(struct obox_user *u);	/* drops what root and its snapshot no longer name; takes u->lock */
void cached_note(struct obox_user *u);	/* owner, log and whether it is dirty may have changed; under u->lock */
void cached_used(struct obox_user *u);
void cached_tend(struct obox *ob);
void cached_evict(struct obox *ob, const char *user);	/* who is not in memory */
bool cached_pressed(struct obox *ob);

/* ---------------------------------------------------------- message objects */

struct mobj_head {	/* decoded fixed part */
	uint32_t header_len, record_len, summary_len, n_chunks;
	uint64_t size;
	unsigned char wrap[SEAL_WRAP_BYTES];
};
struct mobj_chunk { uint32_t plain, sealed; bool packed; };
struct mobj;	/* one message object being made */
/* Seals body and summary; everything but the save record. */
int mobj_seal(struct obox *ob, const char *key, struct obox_msgin *in, const char *prepend, const void *summary, size_t summary_len,
	      struct mobj **o_r, struct err *err);
/* Completes it with its save record; after this mobj_iov gives the whole object. */
int mobj_finish(struct obox *ob, struct mobj *o, const struct obox_origin *origin, const struct obox_guid *mailbox_guid, struct err *err);
const unsigned char *mobj_sha256(const struct mobj *o);
uint64_t mobj_message_size(const struct mobj *o);
void mobj_data(const struct mobj *o, const void **data_r, size_t *len_r);
void mobj_free(struct mobj **o);
int mobj_parse_head(const void *data, size_t len, struct mobj_head *h, struct err *err);
int mobj_parse_chunks(const void *header, const struct mobj_head *h, struct mobj_chunk *chunks, struct err *err);
enum { MOBJ_FIXED = 36 + SEAL_WRAP_BYTES, MOBJ_AAD = 36, MOBJ_FIRST_READ = 64 * 1024 };
int mobj_open_record(struct obox *ob, const char *key, const void *header, const struct mobj_head *h, struct obox_origin *o,
		     struct obox_guid *guid_r, struct err *err);
int mobj_open_summary(struct obox *ob, const char *key, const void *header, const struct mobj_head *h, struct buf *out, struct err *err);

/* packing: zstd where it helps. method byte 0 raw, 1 zstd */
bool pack_zstd(const void *data, size_t len, void *out, size_t cap, size_t *len_r);	/* false: not smaller */
size_t pack_bound(size_t len);
int unpack_zstd(const void *data, size_t len, void *out, size_t plain_len, struct err *err);

/* msgin internals */
struct msgin_chunk { uint32_t plain, stored; bool packed; uint64_t off; };
size_t msgin_chunks(const struct obox_msgin *in, const struct msgin_chunk **list_r);
int msgin_chunk_read(const struct obox_msgin *in, size_t i, void *stored_r, struct err *err);	/* stored form */
int msgin_chunk_plain(const struct obox_msgin *in, size_t i, void *plain_r, struct err *err);
int tmp_file(struct obox *ob, struct err *err);

/* summaries (summary.c) */
struct sumcache *sumcache_new(size_t bytes);
void sumcache_free(struct sumcache **c);
void sum_add(struct root_state *s, const void *summary, size_t len, uint32_t *block_r, uint32_t *slot_r);
/* Writes full blocks that are not in the store yet; under u->upload_lock, not u->lock. */
int sum_store_full(struct obox_user *u, struct err *err);
/* Closes and encodes one block that is not in the store, under both locks: its key (owned) and index, or NULL. */
char *sum_take(struct obox_user *u, bool full_only, struct buf *plain, size_t *at_r);
void sum_stored(struct obox_user *u, size_t at, bool ok);	/* the put that follows sum_take; takes u->lock */
void sumblock_release(struct sumblock *b);
/* A stored block's summaries by slot; they stay valid until sumslots_close. */
struct sumslots;
int sumslots_open(struct obox_user *u, const struct sumblock *b, struct sumslots **s_r, struct err *err);
uint32_t sumslots_count(const struct sumslots *s);
void sumslots_get(const struct sumslots *s, uint32_t slot, const void **p_r, size_t *len_r);
void sumslots_close(struct obox_user *u, struct sumslots **s);
/* Empties blocks that few messages need (compact.c); *n_r blocks were given up: an upload with snapshots must follow before their objects go. */
int user_compact(struct obox_user *u, size_t *n_r, struct err *err);

void view_mailbox_changed(struct mbox *m, const struct obox_view *except);	/* calls the notify functions */
void view_expunged(struct obox_user *u, struct mbox *m, const struct obox_msg *msg, uint64_t modseq);	/* before the message leaves the array */
void view_mailbox_deleted(struct mbox *m);

void view_own_change(struct obox_view *v, uint64_t before, uint64_t after);
struct mbox *view_mbox(struct obox_view *v, struct obox_user **u_r);
uint32_t view_known_uidnext(const struct obox_view *v);
int user_keyword_bits(struct obox_user *u, struct mbox *m, const char *const *names, size_t n, bool create, uint64_t kw[2], struct err *err);
void user_stop(struct obox_user *u);
void user_show(struct obox_user *u, struct mbox *m, uint32_t lo, uint32_t hi);	/* under u->lock, which it may release meanwhile */

/* A modseq is the epoch of its change and a count that steps by two.  The odd ones between are told as HIGHESTMODSEQ where
 * something is not told yet that a crash could take back: see mbox_modseq_known(). */
static inline uint64_t obox_modseq_epoch(uint64_t modseq)
{
	return modseq >> 32;
}
static inline uint64_t modseq_first(uint64_t epoch)
{
	return epoch << 32 | 2;
}
static inline uint64_t modseq_after(uint64_t modseq)
{
	return (modseq | 1) + 1;
}
static inline uint64_t modseq_before(uint64_t modseq)
{
	return modseq - 1;
}
#endif
