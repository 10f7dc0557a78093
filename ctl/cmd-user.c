/* culverctl user: the SQLite user database. */
#include "ctl/ctl.h"

#include "base/io.h"
#include "base/mem.h"
#include "daemon/auth-db.h"

#include <sodium.h>
#include <termios.h>
#include <unistd.h>

static const char usage[] = "user add|passwd NAME [--password-stdin | --hash HASH], user delete|enable|disable NAME, user list,\n"
	"                  user where USER, user move USER NODE, user flush|evict USER|--all";

/* From the terminal twice, or one line of standard input. */
static int read_password(struct ctl *c, char out[AUTH_PASSWORD_MAX], struct err *err)
{
	bool tty = isatty(0) && !ctl_flag(c, "--password-stdin");
	struct termios old, quiet;
	char again[AUTH_PASSWORD_MAX] = "";
	int rc = 0;

	(void)ctl_flag(c, "--password-stdin");
	if (tty && tcgetattr(0, &old) == 0) {
		quiet = old;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(0, TCSAFLUSH, &quiet);
		fputs("Password: ", stderr);
	}
	if (!fgets(out, AUTH_PASSWORD_MAX, stdin))
		rc = err_set(err, ERR_INVALID, "no password on standard input");
	if (tty) {
		fputs("\nAgain: ", stderr);
		if (!fgets(again, sizeof(again), stdin) || strcmp(again, out) != 0)
			rc = err_set(err, ERR_INVALID, "the two passwords differ");
		fputc('\n', stderr);
		tcsetattr(0, TCSAFLUSH, &old);
	}
	sodium_memzero(again, sizeof(again));
	out[strcspn(out, "\r\n")] = '\0';
	return rc == 0 && !*out ? err_set(err, ERR_INVALID, "the password is empty") : rc;
}

static int list_one(void *ctx, const struct auth_user *u)
{
	struct ctl *c = ctx;
	char when[32];

	if (c->json) {
		json_t *line = json_pack("{s:s, s:b, s:I, s:I}", "user", u->name, "enabled", u->enabled, "created", (json_int_t)u->created,
					 "changed", (json_int_t)u->changed);
		ctl_print(c, line);
		json_decref(line);
	} else {
		printf("%-40s %-9s %s\n", u->name, u->enabled ? "enabled" : "disabled", ctl_time(u->created, when));
	}
	return 0;
}

static int change(struct ctl *c, struct auth_db *db, const char *what, const char *name, struct err *err)
{
	bool add = !strcmp(what, "add");
	const char *hash = ctl_option(c, "--hash");
	char password[AUTH_PASSWORD_MAX];
	int rc;

	if (!strcmp(what, "delete"))
		return auth_db_delete(db, name, err);
	if (!strcmp(what, "enable") || !strcmp(what, "disable"))
		return auth_db_set_enabled(db, name, what[0] == 'e', err);
	if (hash && add)
		return auth_db_add_hash(db, name, hash, err);
	rc = read_password(c, password, err);
	if (rc == 0)
		rc = add ? auth_db_add(db, name, password, err) : auth_db_set_password(db, name, password, err);
	sodium_memzero(password, sizeof(password));
	return rc;
}

int cmd_user(struct ctl *c)
{
	static const char *const verbs[] = { "add", "passwd", "delete", "enable", "disable" };
	struct err err = ERR_INIT;
	struct auth_db *db;
	const char *verb;
	size_t i;
	int rc;

	if (c->argc < 1) {
		fprintf(stderr, "usage: culverctl %s\n", usage);
		return CTL_USAGE;
	}
	verb = c->argv[0];
	if (!strcmp(verb, "where") || !strcmp(verb, "move") || !strcmp(verb, "flush") || !strcmp(verb, "evict"))
		return cmd_user_place(c, verb);
	for (i = 0; i < MEM_COUNT(verbs) && strcmp(verb, verbs[i]) != 0; i++)
		;
	if ((i == MEM_COUNT(verbs) && strcmp(verb, "list") != 0) || c->argc < (i < MEM_COUNT(verbs) ? 2 : 1)) {
		fprintf(stderr, "usage: culverctl %s\n", usage);
		return CTL_USAGE;
	}
	rc = io_mkdirs(c->conf.state_dir, 0700, &err);
	if (rc == 0)
		rc = auth_db_open(c->conf.auth.database, true, &db, &err);
	if (rc < 0)
		return ctl_fail(&err);
	if (i == MEM_COUNT(verbs))
		rc = auth_db_each(db, list_one, c, &err);
	else
		rc = change(c, db, verb, c->argv[1], &err);
	auth_db_close(&db);
	if (rc < 0)
		return ctl_fail(&err);
	if (i < MEM_COUNT(verbs) && c->json)
		printf("{\"done\":true}\n");
	else if (i == 2 && !c->quiet)
		fputs("The account is gone; the mail is still in the store.\n", stderr);
	return CTL_OK;
}
