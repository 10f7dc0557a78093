#include "daemon/auth-db.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUSY_MS = 5000 };

struct auth_db {
	sqlite3 *sql;
	sqlite3_stmt *by_name;
	char *path;
};

static int sql_error(struct auth_db *db, const char *what, struct err *err)
{
	int rc = db->sql ? sqlite3_errcode(db->sql) & 0xff : SQLITE_NOMEM;
	int code = rc == SQLITE_BUSY || rc == SQLITE_LOCKED ? ERR_BUSY : rc == SQLITE_CONSTRAINT ? ERR_EXISTS :
		   rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB ? ERR_CORRUPT : rc == SQLITE_PERM || rc == SQLITE_READONLY ? ERR_DENIED : ERR_IO;

	return err_set(err, code, "user database %s: %s: %s", db->path, what, db->sql ? sqlite3_errmsg(db->sql) : "out of memory");
}

static int run(struct auth_db *db, const char *text, struct err *err)
{
	return sqlite3_exec(db->sql, text, NULL, NULL, NULL) == SQLITE_OK ? 0 : sql_error(db, text, err);
}

static int version_of(struct auth_db *db, int *version_r, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int rc = 0;

	if (sqlite3_prepare_v2(db->sql, "PRAGMA user_version", -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW)
		rc = sql_error(db, "reading its version", err);
	else
		*version_r = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return rc;
}

static int schema(struct auth_db *db, bool create, struct err *err)
{
	int version = 0, rc = version_of(db, &version, err);

	if (rc < 0)
		return rc;
	if (version > AUTH_DB_VERSION)
		return err_set(err, ERR_INVALID, "user database %s: its version %d is newer than this program's %d", db->path, version, AUTH_DB_VERSION);
	if (version == AUTH_DB_VERSION)
		return 0;
	if (!create)
		return err_set(err, ERR_INVALID, "user database %s: is not one", db->path);
	rc = run(db, "PRAGMA journal_mode = WAL", err);
	if (rc == 0)
		rc = run(db, "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS users(name TEXT PRIMARY KEY NOT NULL, hash TEXT NOT NULL,"
			 " enabled INTEGER NOT NULL DEFAULT 1, created INTEGER NOT NULL, changed INTEGER NOT NULL) WITHOUT ROWID;"
			 " PRAGMA user_version = 1; COMMIT", err);
	return rc;
}

int auth_db_open(const char *path, bool create, struct auth_db **db_r, struct err *err)
{
	struct auth_db *db = MEM_NEW(struct auth_db);
	int rc, fd;

	*db_r = NULL;
	db->path = mem_strdup(path);
	fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);	/* SQLite would make it readable for all */
	if (fd < 0) {
		rc = err_errno(err, "open", path);
		goto fail;
	}
	close(fd);
	if (sqlite3_open_v2(path, &db->sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
		rc = sql_error(db, "open", err);
		goto fail;
	}
	sqlite3_busy_timeout(db->sql, BUSY_MS);
	rc = schema(db, create, err);
	if (rc < 0)
		goto fail;
	if (sqlite3_prepare_v3(db->sql, "SELECT name, hash, enabled, created, changed FROM users WHERE name = ?1", -1,
			       SQLITE_PREPARE_PERSISTENT, &db->by_name, NULL) != SQLITE_OK) {
		rc = sql_error(db, "prepare", err);
		goto fail;
	}
	*db_r = db;
	return 0;
fail:
	auth_db_close(&db);
	return rc;
}

void auth_db_close(struct auth_db **pdb)
{
	struct auth_db *db = *pdb;

	if (!db)
		return;
	*pdb = NULL;
	sqlite3_finalize(db->by_name);
	sqlite3_close(db->sql);
	free(db->path);
	free(db);
}

static void copy_column(sqlite3_stmt *st, int col, char *out, size_t room)
{
	const unsigned char *s = sqlite3_column_text(st, col);

	snprintf(out, room, "%s", s ? (const char *)s : "");
}

static void read_row(sqlite3_stmt *st, struct auth_user *out)
{
	copy_column(st, 0, out->name, sizeof(out->name));
	copy_column(st, 1, out->hash, sizeof(out->hash));
	out->enabled = sqlite3_column_int(st, 2) != 0;
	out->created = sqlite3_column_int64(st, 3);
	out->changed = sqlite3_column_int64(st, 4);
}

static int lookup_exact(struct auth_db *db, const char *name, struct auth_user *out, struct err *err)
{
	int rc;

	sqlite3_bind_text(db->by_name, 1, name, -1, SQLITE_STATIC);
	rc = sqlite3_step(db->by_name);
	if (rc == SQLITE_ROW)
		read_row(db->by_name, out);
	else if (rc != SQLITE_DONE)
		sql_error(db, "look-up", err);
	sqlite3_reset(db->by_name);
	sqlite3_clear_bindings(db->by_name);
	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : err ? err->code : ERR_IO;
}

int auth_db_lookup(struct auth_db *db, const char *name, struct auth_user *out, struct err *err)
{
	char low[AUTH_NAME_MAX + 1];

	if (auth_name(name, low, NULL) < 0)
		return 0;
	return lookup_exact(db, low, out, err);
}

int auth_db_resolve(struct auth_db *db, const char *address, const char *default_domain, struct auth_user *out, struct err *err)
{
	char low[AUTH_NAME_MAX + 1], *at, *whole;
	int rc;

	if (auth_name(address, low, NULL) < 0)
		return 0;
	rc = lookup_exact(db, low, out, err);
	if (rc != 0)
		return rc;
	at = strrchr(low, '@');
	if (at) {
		if (*default_domain && strcasecmp(at + 1, default_domain))
			return 0;
		*at = '\0';
		return *low ? lookup_exact(db, low, out, err) : 0;
	}
	if (!*default_domain)
		return 0;
	whole = mem_printf("%s@%s", low, default_domain);
	rc = auth_db_lookup(db, whole, out, err);
	free(whole);
	return rc;
}

/* --- changes --- */

static int change(struct auth_db *db, const char *text, const char *name, const char *hash, int64_t number, struct err *err)
{
	char low[AUTH_NAME_MAX + 1];
	sqlite3_stmt *st = NULL;
	int rc = auth_name(name, low, err);

	if (rc < 0)
		return rc;
	if (sqlite3_prepare_v2(db->sql, text, -1, &st, NULL) != SQLITE_OK)
		return sql_error(db, "prepare", err);
	sqlite3_bind_text(st, 1, low, -1, SQLITE_STATIC);
	if (hash)
		sqlite3_bind_text(st, 2, hash, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 3, clock_wall_s(&clock_system));
	sqlite3_bind_int64(st, 4, number);
	rc = sqlite3_step(st);
	if (rc == SQLITE_DONE)
		rc = sqlite3_changes(db->sql) ? 0 : err_set(err, ERR_NOTFOUND, "there is no user %s", low);
	else if (rc == SQLITE_CONSTRAINT)
		rc = err_set(err, ERR_EXISTS, "there is a user %s already", low);
	else
		rc = sql_error(db, "change", err);
	sqlite3_finalize(st);
	return rc;
}

int auth_db_add_hash(struct auth_db *db, const char *name, const char *hash, struct err *err)
{
	if (!auth_hash_known(hash))
		return err_set(err, ERR_INVALID, "the password hash is of no scheme that is known here");
	return change(db, "INSERT INTO users(name, hash, enabled, created, changed) VALUES(?1, ?2, 1, ?3, ?3)", name, hash, 0, err);
}

int auth_db_add(struct auth_db *db, const char *name, const char *password, struct err *err)
{
	char hash[AUTH_HASH_MAX];
	int rc = auth_hash_make(password, hash, err);

	return rc < 0 ? rc : auth_db_add_hash(db, name, hash, err);
}

int auth_db_set_password(struct auth_db *db, const char *name, const char *password, struct err *err)
{
	char hash[AUTH_HASH_MAX];
	int rc = auth_hash_make(password, hash, err);

	return rc < 0 ? rc : change(db, "UPDATE users SET hash = ?2, changed = ?3 WHERE name = ?1", name, hash, 0, err);
}

int auth_db_set_enabled(struct auth_db *db, const char *name, bool enabled, struct err *err)
{
	return change(db, "UPDATE users SET enabled = ?4, changed = ?3 WHERE name = ?1", name, NULL, enabled, err);
}

int auth_db_delete(struct auth_db *db, const char *name, struct err *err)
{
	return change(db, "DELETE FROM users WHERE name = ?1", name, NULL, 0, err);
}

int auth_db_each(struct auth_db *db, int (*fn)(void *ctx, const struct auth_user *u), void *ctx, struct err *err)
{
	struct auth_user u;
	sqlite3_stmt *st = NULL;
	int rc, step;

	if (sqlite3_prepare_v2(db->sql, "SELECT name, hash, enabled, created, changed FROM users ORDER BY name", -1, &st, NULL) != SQLITE_OK)
		return sql_error(db, "prepare", err);
	rc = 0;
	while (rc == 0 && (step = sqlite3_step(st)) == SQLITE_ROW) {
		read_row(st, &u);
		rc = fn(ctx, &u);
	}
	if (rc == 0 && step != SQLITE_DONE)
		rc = sql_error(db, "list", err);
	sqlite3_finalize(st);
	return rc;
}
