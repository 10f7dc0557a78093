/* Tests of the user database, password hashes and the cache of right passwords. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/err.h"
#include "base/mem.h"
#include "daemon/auth-cache.h"
#include "daemon/auth-db.h"

#include <ftw.h>
#include <sodium.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], path[80];

static int setup(void **state)
{
	struct auth_db *db;
	struct err err = ERR_INIT;

	snprintf(dir, sizeof(dir), "/tmp/culver-auth-XXXXXX");
	if (sodium_init() < 0 || !mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/users.db", dir);
	*state = NULL;
	if (auth_db_open(path, true, &db, &err) < 0)
		return -1;
	*state = db;
	return 0;
}

static int remove_one(const char *file, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(file);
}

static int teardown(void **state)
{
	struct auth_db *db = *state;

	auth_db_close(&db);
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int count(void *ctx, const struct auth_user *u)
{
	++*(int *)ctx;
	return 0;
}

static void users_are_added_found_changed_and_deleted(void **state)
{
	struct auth_db *db = *state;
	struct auth_user u;
	struct err err = ERR_INIT;
	int n = 0;

	assert_int_equal(auth_db_lookup(db, "joe", &u, &err), 0);
	assert_int_equal(auth_db_add(db, "Joe", "secret", &err), 0);
	assert_int_equal(auth_db_add(db, "JOE", "other", &err), ERR_EXISTS);
	assert_string_equal(err.msg, "there is a user joe already");
	err_clear(&err);
	assert_int_equal(auth_db_lookup(db, "jOe", &u, &err), 1);
	assert_string_equal(u.name, "joe");
	assert_true(u.enabled && u.created > 0 && !strncmp(u.hash, "$argon2id$", 10));
	assert_int_equal(auth_hash_verify(u.hash, "secret", &err), 1);
	assert_int_equal(auth_hash_verify(u.hash, "other", &err), 0);
	assert_int_equal(auth_db_set_password(db, "joe", "other", &err), 0);
	assert_int_equal(auth_db_set_enabled(db, "joe", false, &err), 0);
	assert_int_equal(auth_db_lookup(db, "joe", &u, &err), 1);
	assert_false(u.enabled);
	assert_int_equal(auth_hash_verify(u.hash, "other", &err), 1);
	assert_int_equal(auth_db_add(db, "ann", "x", &err), 0);
	assert_int_equal(auth_db_each(db, count, &n, &err), 0);
	assert_int_equal(n, 2);
	assert_int_equal(auth_db_delete(db, "joe", &err), 0);
	assert_int_equal(auth_db_delete(db, "joe", &err), ERR_NOTFOUND);
	err_clear(&err);
	assert_int_equal(auth_db_set_password(db, "joe", "x", &err), ERR_NOTFOUND);
}

static void names_and_passwords_are_checked(void **state)
{
	static const char *const bad[] = { "", "a b", "a\tb", "a\nb", "\x7f" };
	struct auth_db *db = *state;
	char name[AUTH_NAME_MAX + 1], longest[AUTH_NAME_MAX + 2];
	size_t i;

	for (i = 0; i < MEM_COUNT(bad); i++) {
		assert_int_equal(auth_name(bad[i], name, NULL), ERR_INVALID);
		assert_int_equal(auth_db_add(db, bad[i], "x", NULL), ERR_INVALID);
	}
	memset(longest, 'a', sizeof(longest));
	longest[AUTH_NAME_MAX + 1] = '\0';
	assert_int_equal(auth_name(longest, name, NULL), ERR_INVALID);
	longest[AUTH_NAME_MAX] = '\0';
	assert_int_equal(auth_name(longest, name, NULL), 0);
	assert_int_equal(auth_name("J\xc3\x96@X.Y", name, NULL), 0);
	assert_string_equal(name, "j\xc3\x96@x.y");
	assert_int_equal(auth_db_add(db, "joe", "", NULL), ERR_INVALID);
	assert_int_equal(auth_db_add_hash(db, "joe", "nonsense:", NULL), ERR_INVALID);
}

static void addresses_lead_to_users(void **state)
{
	static const struct { const char *address, *domain, *user; } t[] = {
		{ "joe", "", "joe" }, { "joe@any.example", "", "joe" }, { "JOE@ANY.example", "", "joe" }, { "joe@a.example", "a.example", "joe" },
		{ "joe@b.example", "a.example", NULL }, { "ann@a.example", "", "ann@a.example" }, { "ann@b.example", "", NULL },
		{ "ann", "a.example", "ann@a.example" }, { "ann", "", NULL }, { "@a.example", "", NULL }, { "", "", NULL }, { "bob", "a.example", NULL },
	};
	struct auth_db *db = *state;
	struct auth_user u;
	struct err err = ERR_INIT;
	size_t i;

	assert_int_equal(auth_db_add_hash(db, "joe", "$1$aaaaaaaa$0123456789012345678901", &err), 0);
	assert_int_equal(auth_db_add_hash(db, "ann@a.example", "$1$aaaaaaaa$0123456789012345678901", &err), 0);
	for (i = 0; i < MEM_COUNT(t); i++) {
		assert_int_equal(auth_db_resolve(db, t[i].address, t[i].domain, &u, &err), t[i].user ? 1 : 0);
		if (t[i].user)
			assert_string_equal(u.name, t[i].user);
	}
}

static void a_change_is_seen_by_a_handle_that_is_open(void **state)
{
	struct auth_db *db = *state, *other;
	struct auth_user u;
	struct err err = ERR_INIT;

	assert_int_equal(auth_db_open(path, false, &other, &err), 0);
	assert_int_equal(auth_db_lookup(other, "joe", &u, &err), 0);
	assert_int_equal(auth_db_add(db, "joe", "x", &err), 0);
	assert_int_equal(auth_db_lookup(other, "joe", &u, &err), 1);
	auth_db_close(&other);
}

static void what_is_no_user_database_is_refused(void **state)
{
	struct auth_db *db = NULL;
	struct err err = ERR_INIT;
	struct stat st;
	char file[100];
	sqlite3 *sql;
	FILE *f;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	snprintf(file, sizeof(file), "%s/other", dir);
	assert_int_equal(auth_db_open(file, false, &db, &err), ERR_NOTFOUND);
	err_clear(&err);
	f = fopen(file, "w");
	fputs("this is not a database, but it is long enough to be taken for one: 0123456789012345678901234567890123456789", f);
	fclose(f);
	assert_int_equal(auth_db_open(file, true, &db, &err), ERR_CORRUPT);
	assert_null(db);
	assert_int_equal(sqlite3_open(path, &sql), SQLITE_OK);
	assert_int_equal(sqlite3_exec(sql, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(sql);
	err_clear(&err);
	assert_int_equal(auth_db_open(path, true, &db, &err), ERR_INVALID);
	assert_non_null(strstr(err.msg, "version 99 is newer"));
}

static void hashes_of_other_systems_are_verified(void **state)
{
	static const char *const hashes[] = {
		"$6$rounds=1000$culvertest$7xadoDzc4ay2nur9ygBCc2vaKsiq230H0cA6VaCQ3NqxXZRuP9GxWAKEXgFLQnwFcbb/QxeFmWkJGCCYxtSi50",
		"{SHA512-CRYPT}$6$rounds=1000$culvertest$7xadoDzc4ay2nur9ygBCc2vaKsiq230H0cA6VaCQ3NqxXZRuP9GxWAKEXgFLQnwFcbb/QxeFmWkJGCCYxtSi50",
		"{CRYPT}$6$rounds=1000$culvertest$7xadoDzc4ay2nur9ygBCc2vaKsiq230H0cA6VaCQ3NqxXZRuP9GxWAKEXgFLQnwFcbb/QxeFmWkJGCCYxtSi50",
		"$2b$04$abcdefghijklmnopqrstuufznL8bkzdtHwLhca4To/v9Lo9bA7fR6", "$y$j75$culverculver$jZbyspkGRlPbo589mGGUXhhbMX5rwsbDzcKCtIECF5A",
	};
	static const char *const unknown[] = { "", "*", "!", "{PLAIN}pass", "$99$x$y", "$argon2id$nonsense" };
	struct err err = ERR_INIT;
	size_t i;

	for (i = 0; i < MEM_COUNT(hashes); i++) {
		assert_true(auth_hash_known(hashes[i]));
		assert_int_equal(auth_hash_verify(hashes[i], "pass", &err), 1);
		assert_int_equal(auth_hash_verify(hashes[i], "Pass", &err), 0);
		assert_int_equal(auth_hash_verify(hashes[i], "", &err), 0);
	}
	for (i = 0; i < MEM_COUNT(unknown); i++) {
		assert_false(auth_hash_known(unknown[i]));
		assert_true(auth_hash_verify(unknown[i], "pass", NULL) <= 0);
	}
}

static void the_cache_knows_the_exact_password_for_its_time(void **state)
{
	struct auth_cache *c = auth_cache_new(1000, 3), *off = auth_cache_new(0, 3);

	auth_cache_put(c, "joe", "pw", "hash", 5000);
	assert_true(auth_cache_has(c, "joe", "pw", "hash", 5000));
	assert_true(auth_cache_has(c, "joe", "pw", "hash", 6000));
	assert_false(auth_cache_has(c, "joe", "pw", "hash", 6001));
	auth_cache_put(c, "joe", "pw", "hash", 7000);
	assert_false(auth_cache_has(c, "joe", "pw", "hash2", 7000));
	assert_false(auth_cache_has(c, "joe", "pwh", "ash", 7000));
	assert_false(auth_cache_has(c, "joep", "w", "hash", 7000));
	auth_cache_put(c, "1", "", "", 7000);
	auth_cache_put(c, "2", "", "", 7000);
	auth_cache_put(c, "3", "", "", 7000);
	assert_false(auth_cache_has(c, "joe", "pw", "hash", 7000));	/* it was full */
	assert_true(auth_cache_has(c, "3", "", "", 7000));
	auth_cache_put(off, "joe", "pw", "hash", 1);
	assert_false(auth_cache_has(off, "joe", "pw", "hash", 1));
	auth_cache_free(&c);
	auth_cache_free(&off);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(users_are_added_found_changed_and_deleted, setup, teardown),
		cmocka_unit_test_setup_teardown(names_and_passwords_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(addresses_lead_to_users, setup, teardown),
		cmocka_unit_test_setup_teardown(a_change_is_seen_by_a_handle_that_is_open, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_user_database_is_refused, setup, teardown),
		cmocka_unit_test(hashes_of_other_systems_are_verified),
		cmocka_unit_test(the_cache_knows_the_exact_password_for_its_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
