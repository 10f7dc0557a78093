/* metacache - this node among the others on one store: its heartbeat, its
 * journal in the store, and taking over those that died.
 *
 * A node is one process: it has a name, unique among all that share the store
 * and kept across restarts, and an incarnation, new at every start.  Make one
 * of these, put it into obox_config.cluster, open the obox, and close the obox
 * before freeing this.
 *
 * Threads: three of its own (journal, heartbeat, watch), or none with `stepped`:
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

struct metacache_stats {
	uint64_t journal_puts, journal_retries, journal_bytes;
	uint64_t beats, beats_failed;
	uint64_t takeovers, users_replayed;
	bool fenced, degraded;
};
void metacache_stats(struct obox_cluster *c, struct metacache_stats *st);
#endif
