/* cluster - what obox asks of whoever knows the other nodes (metacache/), and
 * what it gives them for taking over a dead node's users.
 *
 * obox itself knows one node.  With obox_config.cluster set, the journal, the
 * node's incarnation and the question "does the owner of this root live?"
 * come from there; without it they are a local file, a random number and a
 * lock file (owner.c). */
#ifndef OBOX_CLUSTER_H
#define OBOX_CLUSTER_H
#include "objstore/objstore.h"
#include "obox/journal.h"
#include "obox/obox.h"

/* Deliberate breakages, by name, which the simulator (tests/sim/) has to catch: its build alone has them. */
#ifdef CULVER_SIM
bool sim_broken(const char *name);
#else
#define sim_broken(name) false
#endif

struct obox_cluster;
struct obox_cluster_ops {
	/* From obox_open: replays this node's earlier life, makes it known under a new incarnation and opens its journal. Blocks. */
	int (*start)(struct obox_cluster *c, struct obox *ob, struct journal **j_r, uint64_t *incarnation_r, struct err *err);
	/* Whose is the root of that user, which names (node, incarnation)?  1: a live node's (*o_r filled in), 0: nobody's, what that node's journal
	 * had of the user is replayed (a dead one is taken over here: blocks), <0: cannot be said now. */
	int (*owner)(struct obox_cluster *c, const char *node, uint64_t incarnation, const char *user, struct obox_owner *o_r, struct err *err);
	/* A user who is nobody's, but whose root may still name a dead (node, incarnation), is about to be taken: should another node
	 * take him (*o_r)?  Only where this one is being emptied. */
	bool (*elsewhere)(struct obox_cluster *c, const char *node, uint64_t incarnation, const char *user, struct obox_owner *o_r);
	bool (*fenced)(struct obox_cluster *c);		/* taken over: this incarnation never acknowledges anything again */
	bool (*serving)(struct obox_cluster *c);	/* may writes be begun now? */
	/* The journal is about to be closed; clean: no user is owned any more and nothing is in the journal that is not in a log. */
	void (*stop)(struct obox_cluster *c, bool clean);
	void (*abandon)(struct obox_cluster *c);	/* the same without a word to the store */
};
struct obox_cluster {
	const struct obox_cluster_ops *ops;
	bool single;	/* no threads are made for it: the same seed gives the same calls */
};

/* --- for taking over --- */

/* Records of one user of a dead node, in any order, repetitions allowed. */
struct obox_tail;
struct obox_tail *obox_tail_new(const char *user);
const char *obox_tail_user(const struct obox_tail *t);
void obox_tail_add(struct obox_tail *t, uint64_t epoch, uint64_t lsn, uint64_t landed /* journal_entry.landed */, const void *rec, size_t len);
void obox_tail_free(struct obox_tail **t);
/* Puts into the user's log what it does not have yet, provided that its root
 * still names (node, incarnation; 0 = any of that node) as its owner, and releases the root.  Any number
 * of nodes may do so at once or after one another, each going on where the last one
 * stopped.  No root, or another owner: nothing is done, 0. */
int obox_tail_replay(struct obox *ob, struct obox_tail *t, const char *node, uint64_t incarnation, struct err *err);

/* Runs n operations at once (some tens at a time) and waits for all; results are in each op. done and ctx are used. */
void obox_run_many(struct objstore *s, struct objstore_op *ops, size_t n);

/* The same bytes are to be under key however often this is asked for: creates, and where the answer is anything
 * but success reads the key back.  0: these bytes are there; ERR_EXISTS: others are (appended to *there unless NULL);
 * else it is not known (retry). */
int obox_put_once(struct objstore *s, const char *key, const void *data, size_t len, struct buf *there, struct err *err);
/* One of them, with a deadline from now (0: the store's own); its rc. */
int obox_run_one(struct objstore *s, struct objstore_op *op, int64_t within_us);
/* Swaps with If-Match etag ("" = create); within_us for each request, 0 the store's own.  0 done, *etag is the new one; ERR_CONFLICT: what is there now was not
 * written by this call and has another etag; else it is not known, and it may still happen later. */
int obox_swap(struct objstore *s, const char *key, const void *data, size_t len, char etag[OBJ_ETAG_MAX], int64_t within_us, struct err *err);

/* Packed and sealed as every bundle (docs/format.md, 2), and the reverse; both append. */
int obox_seal(struct obox *ob, const char *key, const struct buf *plain, struct buf *sealed, struct err *err);
const struct seal_keys *obox_keys(struct obox *ob);
int obox_unseal_with(const struct seal_keys *keys, const char *key, const struct buf *sealed, struct buf *plain, struct err *err);
int obox_get_bundle(struct obox *ob, const char *key, struct buf *plain, struct err *err);	/* from the index store */
/* A record as a journal holds it, as a line of text or JSON. */
int obox_record_text(const void *rec, size_t len, bool json, struct buf *out, struct err *err);
int obox_unseal(struct obox *ob, const char *key, const struct buf *sealed, struct buf *plain, struct err *err);
#endif
