/* metadisk-private - what metadisk.c (users, room, policy) and metadisk-db.c
 * (the SQLite file) share. */
#ifndef METACACHE_METADISK_PRIVATE_H
#define METACACHE_METADISK_PRIVATE_H
#include "metacache/metadisk.h"

#include "base/buf.h"
#include "base/hmap.h"

#include <pthread.h>
#include <sodium.h>
#include <sqlite3.h>

enum { MD_PAGE = 4096, MD_ID = 16 };

struct md_id { unsigned char b[MD_ID]; };	/* keyed hash of a user's name */
struct md_user { int64_t n; uint64_t bytes; };	/* a row */

enum md_stmt { MD_GET, MD_FIND, MD_ADD, MD_OBJECT, MD_INSERT, MD_DELETE, MD_GROW, MD_OLDEST, MD_NAMES, MD_ANY, MD_COLDEST, MD_NOTE, MD_STATE, MD_USED,
	MD_DELETE_USER, MD_STMTS };

/* The file.  All of it under metadisk.lock. */
struct md_db {
	char *dir;
	unsigned char check[MD_ID];	/* of the key: another one's users cannot be found */
	uint64_t pages;			/* at most */
	int dir_fd, lock_fd;
	unsigned steps;			/* of work since somebody asked for something */
	sqlite3 *db;			/* NULL: not open */
	sqlite3_stmt *st[MD_STMTS];
};

/* What is known of a user and not in the catalogue yet, and of all dirty ones.  Under note_lock. */
struct md_note {
	struct md_id id;
	uint64_t epoch, seq;
	int64_t dirty, used;	/* seconds since 1970; dirty 0: clean */
	bool state;		/* epoch, seq and dirty were told */
	bool changed;
};

struct metadisk {
	struct obox_cache base;
	unsigned char key[METADISK_KEY_BYTES];
	uint64_t bytes, user_max;
	unsigned flush_s, retry_s;
	unsigned batch;			/* rows changed in one transaction: its journal has a bound */
	const struct clock *clock;
	pthread_mutex_t lock;		/* before note_lock */
	struct md_db db;
	int64_t closed_until, no_growth_until, last_flush;	/* monotonic us */
	bool told;			/* of this episode of trouble */
	struct metadisk_stats n;	/* the counters of it */
	pthread_mutex_t note_lock;
	struct hmap notes;		/* id -> struct md_note */
	bool pressed;
};

/* 1: the directory's content is used; 0: it starts empty; <0: cannot be used now. */
int md_db_open(struct md_db *d, struct err *err);
void md_db_close(struct md_db *d, bool clean);
int md_db_start_over(struct md_db *d, struct err *err);	/* empty, and the space is given back */
bool md_db_broken(int rc);		/* is the file itself at fault?  (an SQLite code) */
uint64_t md_db_free(struct md_db *d, bool grow);	/* pages that can be had */

/* SQLite codes: SQLITE_OK, SQLITE_DONE = not there, SQLITE_FULL, ... */
int md_db_get(struct md_db *d, const struct md_id *id, const char *name, struct buf *out);
int md_db_find(struct md_db *d, const struct md_id *id, struct md_user *u);
int md_db_put(struct md_db *d, const struct md_id *id, const char *name, const void *data, size_t len, int64_t now);
int md_db_delete(struct md_db *d, const struct md_user *u, const char *name);
int md_db_delete_oldest(struct md_db *d, struct md_user *u);
int md_db_delete_user(struct md_db *d, const struct md_user *u, unsigned batch);
int md_db_keep(struct md_db *d, const struct md_user *u, bool (*named)(void *ctx, const char *name), void *ctx, unsigned batch);
/* Goes through users, the coldest first, until fn says true: SQLITE_ROW, it is *u. */
int md_db_coldest(struct md_db *d, bool (*fn)(void *ctx, const struct md_id *id), void *ctx, struct md_user *u);
int md_db_note(struct md_db *d, const struct md_note *const *notes, size_t n);
void md_db_count(struct md_db *d, struct metadisk_stats *st);
#endif
