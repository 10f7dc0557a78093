/* What the tests of the cache share: a directory, a store that counts, holds
 * and slows, and mail whose bytes follow from its key. */
#ifndef TESTS_FSCACHE_FIX_H
#define TESTS_FSCACHE_FIX_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "fscache/fscache-private.h"
#include "fscache/fscache.h"
#include "objstore/objstore.h"

#define MIB (UINT64_C(1) << 20)
#define KIB (UINT64_C(1) << 10)

/* A store around a store. */
struct probe {
	struct objstore base;
	struct objstore *below;
	_Atomic uint64_t n_get, bytes, puts, others;
	_Atomic int fail;		/* != 0: every operation answers this */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool hold;			/* GETs wait for release or cancel */
	unsigned held;
	struct held *list;
};
struct held {
	struct held *next;
	struct objstore_op *op;
};
struct objstore *probe_new(struct objstore *below, struct probe **p_r);
void probe_hold(struct probe *p, bool on);	/* off: carries out what waits */
void probe_wait(struct probe *p, unsigned n);	/* until n are held */

struct fix {
	char dir[64], cache[80];
	struct objstore *mem, *s;	/* mem is owned by s by way of probe */
	struct probe *probe;
	struct err err;
};
struct fix *fix_new(void);
void fix_open(struct fix *f, uint64_t bytes);		/* around the store that is there, or a new one */
void fix_open_sys(struct fix *f, uint64_t bytes, const struct fsc_sys *sys);
void fix_shut(struct fix *f);				/* closes the cache, keeps the objects */
int fix_teardown(void **state);
int fix_setup(void **state);

/* Objects of the simulated users: sizes and bytes follow from owner and n. */
void mail_key(char *key, const char *owner, unsigned n);
unsigned char mail_byte(const char *key, uint64_t off);
void mail_fill(const char *key, uint64_t off, unsigned char *to, size_t len);
void mail_put(struct fix *f, const char *owner, unsigned n, size_t size);	/* straight into the store below */
/* Reads a range through the cache and compares; the GET's result. */
int mail_check(struct objstore *s, const char *owner, unsigned n, size_t size, uint64_t off, uint64_t len);
uint64_t dir_bytes(const char *dir);		/* blocks in use below dir, dir included */
void remove_tree(const char *dir);
#endif
