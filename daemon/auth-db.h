/* auth-db - the users and their password hashes: one SQLite file.
 *
 * Used by the auth process (reading) and by culverctl (changing); changes
 * count at once, without a signal (a deleted name is taken by LMTP for one second more).
 *
 *   users(name TEXT PRIMARY KEY, hash TEXT, enabled INTEGER, created INTEGER, changed INTEGER)
 *   PRAGMA user_version = AUTH_DB_VERSION; a higher one is refused.
 *
 * Names are kept lower-cased (ASCII), 1..255 bytes without spaces and control
 * characters: auth_name() makes them so.
 * Errors:  as everywhere: look-ups 1/0/<0, actions 0/<0, text in *err.
 * Threads: one at a time per handle.  Blocks: on the disk. */
#ifndef DAEMON_AUTH_DB_H
#define DAEMON_AUTH_DB_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AUTH_DB_VERSION = 1, AUTH_NAME_MAX = 255, AUTH_HASH_MAX = 512, AUTH_PASSWORD_MAX = 1024 };

struct err;
struct auth_db;
struct auth_user {
	char name[AUTH_NAME_MAX + 1];
	char hash[AUTH_HASH_MAX];
	bool enabled;
	int64_t created, changed;	/* seconds UTC */
};

/* Opens the file, making it (mode 0600) when create is set. */
int auth_db_open(const char *path, bool create, struct auth_db **db_r, struct err *err);
void auth_db_close(struct auth_db **db);
/* password is hashed (argon2id); auth_db_add_hash takes what another system made. ERR_EXISTS: there is such a user. */
int auth_db_add(struct auth_db *db, const char *name, const char *password, struct err *err);
int auth_db_add_hash(struct auth_db *db, const char *name, const char *hash, struct err *err);
int auth_db_set_password(struct auth_db *db, const char *name, const char *password, struct err *err);	/* ERR_NOTFOUND */
int auth_db_set_enabled(struct auth_db *db, const char *name, bool enabled, struct err *err);
int auth_db_delete(struct auth_db *db, const char *name, struct err *err);
int auth_db_lookup(struct auth_db *db, const char *name, struct auth_user *out, struct err *err);	/* 1/0/<0, exact after auth_name() */
/* By login name or address: exactly; then without its domain when that is
 * default_domain or default_domain is ""; a name without a domain also with default_domain. */
int auth_db_resolve(struct auth_db *db, const char *address, const char *default_domain, struct auth_user *out, struct err *err);
/* In the order of names until fn returns non-zero (which is returned). */
int auth_db_each(struct auth_db *db, int (*fn)(void *ctx, const struct auth_user *u), void *ctx, struct err *err);

/* Lower-cases and checks; 0 or ERR_INVALID. */
int auth_name(const char *in, char out[AUTH_NAME_MAX + 1], struct err *err);

/* --- hashes --- */
/* argon2id, interactive limits of libsodium. */
int auth_hash_make(const char *password, char out[AUTH_HASH_MAX], struct err *err);
/* Argon2 and everything libxcrypt knows (yescrypt, bcrypt, sha512crypt...),
 * with or without a {SCHEME} before it.  1 right, 0 wrong, <0 no such scheme.
 * Takes time on purpose; any thread. */
int auth_hash_verify(const char *hash, const char *password, struct err *err);
bool auth_hash_known(const char *hash);	/* is it of a scheme that can be verified? */
#endif
