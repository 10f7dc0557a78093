/* badvfs - SQLite's way to the disk, with a counter in it: how large the files
 * of a cache ever were, and a call from which on all fail. */
#ifndef TESTS_METACACHE_BADVFS_H
#define TESTS_METACACHE_BADVFS_H
#include <stdint.h>

extern int64_t badvfs_peak;	/* bytes of database and journal together, at most */
extern int badvfs_fail_at;	/* calls; 0: never */
extern int badvfs_fail_code;	/* an SQLite code */
extern int badvfs_calls;
void badvfs_install(void);	/* as the default */
void badvfs_reset(void);	/* nothing fails, nothing was counted */
#endif
