/* metacache - this node among the others on one store: its heartbeat, its
 * journal in the store, and taking over those that died.
 *
 * A node is one process: it has a name, unique among all that share the store
 * and kept across restarts, and an incarnation, new at every start.  Make one
 * of these, put it into obox_config.cluster, open the obox, and close the obox
 * before freeing this.
 *
 * Threads: eight of its own (journal, heartbeat, watch, deletes, four for takeovers), or none with `stepped`:
 * then metacache_step() does what is due, by the clock given, and waiting for
 * the journal does it too.
 * What it needs of the store: create-only and compare-and-swap that hold. */
#ifndef METACACHE_METACACHE_H
#define METACACHE_METACACHE_H
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"

struct objstore;
struct obox_cluster;

struct metacache_config {
	struct objstore *store;		/* the index store; borrowed, must outlive this */
	const char *prefix;		/* as in obox_config */
	const char *node;		/* as in obox_config: 1..63 bytes of [0-9A-Za-z_-] */
	const char *address;		/* told to other nodes, to send sessions to; up to 255 bytes; NULL = none */
	const struct clock *clock;	/* NULL = the system's */
	unsigned ttl_ms;		/* a node that gives no sign for so long is taken over; 0 = 10000 */
	unsigned commit_timeout_ms;	/* who waits for the journal gets ERR_UNAVAILABLE after so long; 0 = 5000 */
	unsigned flag_commit_delay_ms;	/* as in obox_config */
	unsigned tail_pieces;		/* journal objects above the floor before it is moved; 0 = 256 */
	bool stepped;			/* no threads */
	void (*fenced)(void *ctx);	/* may be NULL: called once, from any thread, when this incarnation was taken over */
	void *ctx;
};

/* ERR_INVALID: the store's conditions do not hold (then journal = local, one node), or a bad name. */
int metacache_new(const struct metacache_config *cfg, struct obox_cluster **c_r, struct err *err);
void metacache_free(struct obox_cluster **c);	/* after obox_close */
/* Everything that is due now: journal, heartbeat, watch; in stepped mode only. */
void metacache_step(struct obox_cluster *c);
/* The name for worker `index` of this machine: an identity kept in state_dir (made at first), and the index. */
int metacache_node_name(const char *state_dir, unsigned index, char **name_r, struct err *err);

/* Is that node, which has a user and could not be reached, not simply as it was?  Asked by everybody who waits for one of its users, as often as they like:
 * its record is read five times a second at most.  Blocks. */
bool metacache_news(struct obox_cluster *c, const char *node, uint64_t incarnation);

struct metacache_stats {
	uint64_t journal_puts, journal_retries, journal_bytes;
	uint64_t beats, beats_failed;
	uint64_t takeovers, users_replayed;
	bool fenced, degraded;
};
void metacache_stats(struct obox_cluster *c, struct metacache_stats *st);

/* --- who is there: by reading alone, for whoever has the keys --- */
struct seal_keys;
struct metacache_reader {
	struct objstore *store;		/* the index store; borrowed, as the rest */
	const char *prefix;
	const struct seal_keys *keys;
};
enum metacache_state {
	METACACHE_LIVE,
	METACACHE_DRAINING,		/* live, and gives its users away */
	METACACHE_SILENT,		/* no sign of life in its time */
	METACACHE_TAKEN,		/* dead; claimer replays its journal */
	METACACHE_RELEASED,		/* it ended by itself, or its users have been taken over */
	METACACHE_DAMAGED		/* its record cannot be read: see problem */
};
struct metacache_node {
	enum metacache_state state;
	char node[64], address[256], version[32], claimer[64], problem[256];	/* address "": takes no connections */
	uint64_t incarnation, ttl_ms, beat, floor, pieces, users;
	int64_t started, beat_time;	/* seconds UTC, by that node's clock; 0: not told */
};
/* The nodes in the ring, by name.  Those whose last heartbeat looks old by the clocks are looked at again after a third of their
 * TTL before they are called silent.  *list_r: free() it.  Blocks. */
int metacache_nodes(const struct metacache_reader *rd, struct metacache_node **list_r, size_t *n_r, struct err *err);
int metacache_node(const struct metacache_reader *rd, const char *node, struct metacache_node *out, struct err *err);	/* 1, 0 there is none, <0 */
const char *metacache_state_name(enum metacache_state s);

/* --- what operators ask --- */
/* on: users who are nobody's are not taken here any more but sent to another live node, as long as there is one; others see it at once.  Giving away
 * those that are here is the caller's.  ERR_UNAVAILABLE: nobody is there to take them (and force is not set).  Lasts until off, or the node's end. */
int metacache_drain(struct obox_cluster *c, bool on, bool force, struct err *err);
bool metacache_draining(struct obox_cluster *c);
/* Takes over a node that is dead: as soon as it has been silent for its TTL.  ERR_BUSY: it lives, or somebody else is at it.  force: it is claimed
 * although it may live; it can acknowledge nothing more when it has noticed or its lease has run out, which is waited for.  What happens is told by say.  Blocks. */
int metacache_adopt(struct obox_cluster *c, const char *node, bool force, void (*say)(void *ctx, const char *text), void *ctx, struct err *err);
/* Objects of nodes as text lines or JSON: 1, 0 the object is none of them, <0. */
struct buf;
struct obox;
int metacache_dump(struct obox *ob, const char *key, bool json, struct buf *out, struct err *err);
#endif
