/* Several nodes in one process on one store in memory, each behind a gate of
 * its own that counts, cuts, holds, delays and fails what passes. */
#ifndef TESTS_METACACHE_CLUSTER_H
#define TESTS_METACACHE_CLUSTER_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "metacache/metacache.h"
#include "metacache/metadisk.h"
#include "objstore/objstore.h"
#include "obox/obox.h"

enum { NODES = 4 };

struct gate;
struct gate *gate_new(struct objstore *below);
struct objstore *gate_store(struct gate *g);
void gate_free(struct gate **g);
void gate_cut(struct gate *g, bool on);		/* every operation fails at once: ERR_UNAVAILABLE */
void gate_hold(struct gate *g, bool on);	/* puts, deletes and reads wait until it is off again (a stopped process, a stalled network) */
void gate_hold_journal_deletes(struct gate *g, bool on);	/* only these wait */
void gate_fail_after(struct gate *g, int64_t n);	/* after so many operations all fail; -1: none */
void gate_fail_key(struct gate *g, const char *part, int64_t n);	/* of the operations whose key has that part, the n-th fails (0: the first; -1: each) */
bool gate_failed(struct gate *g);		/* that one did */
void gate_delay(struct gate *g, int64_t us);	/* so long does each take from now on */
struct gate_count { uint64_t put, get, head, del, list, total, deepest; };
void gate_reset(struct gate *g);
struct gate_count gate_count(struct gate *g);

struct cluster {
	char dir[64];
	struct objstore *mem;		/* what is durable */
	struct objstore *between;	/* a fault store around it, or mem */
	struct objstore *mail;		/* the mail store where that is another one; NULL */
	struct seal_keys *keys;
	struct node {
		struct gate *gate;
		struct obox_cluster *mc;
		struct obox *ob;
		struct obox_cache *cache;
	} node[NODES];
	uint64_t disk;			/* bytes of the cache on disk of each node that is opened; 0: none */
	bool stepped;
	unsigned ttl_ms, timeout_ms, flag_ms;
	int64_t now_us;			/* the virtual clock of stepped clusters */
	struct clock clock;
	struct err err;
};
int cluster_setup(void **state);		/* threads */
int cluster_setup_stepped(void **state);	/* none, virtual clock */
int cluster_teardown(void **state);
int node_open(struct cluster *c, int i);	/* 0 or the error */
void node_close(struct cluster *c, int i);
void node_kill(struct cluster *c, int i);	/* nothing more of it reaches the store */
void cluster_pass(struct cluster *c, int64_t ms);	/* time passes (stepped: every node that is open steps) */

/* What clients do; results as the calls of obox. */
int do_open(struct cluster *c, int i, const char *user, struct obox_user **u_r);
int do_save(struct cluster *c, int i, struct obox_user *u, const char *box, int number, uint32_t *uid_r);
int do_copy(struct obox_user *u, const char *from, uint32_t lo, uint32_t hi, const char *to, bool move);
int do_expunge(struct obox_user *u, const char *box, uint32_t lo, uint32_t hi);
int do_flag(struct obox_user *u, const char *box, uint32_t uid, uint32_t flags);
uint32_t count_of(struct obox_user *u, const char *box);	/* UINT32_MAX: no such mailbox */
bool has_message(struct cluster *c, struct obox_user *u, const char *box, uint32_t uid, int number);	/* with its very bytes */
int64_t real_ms(void);
#endif
