/* culverctl check, rebuild, gc, undelete, flush, who, dump, config. */
#include "ctl/ctl.h"

#include "base/mem.h"

#include <inttypes.h>

static json_int_t num(json_t *line, const char *key)
{
	return json_integer_value(json_object_get(line, key));
}

static const char *str(json_t *line, const char *key)
{
	const char *s = json_string_value(json_object_get(line, key));

	return s ? s : "";
}

int ctl_run_long(struct ctl *c, const char *what, json_t *req, json_t **last, struct err *err)
{
	json_t *line;
	int rc = ctl_send(c, req, NULL, 0, err);

	while (rc == 0 && (rc = ctl_next(c, &line, err)) == 1) {
		if (json_object_get(line, "progress")) {
			ctl_progress(c, what, (uint64_t)num(line, "progress"), (uint64_t)num(line, "total"));
		} else if (c->json) {
			ctl_print(c, line);
		} else if (json_object_get(line, "finding")) {
			ctl_progress_end(c);
			printf("%s: %s\n", json_is_true(json_object_get(line, "damage")) ? "damage" : "note", str(line, "finding"));
		}
		json_decref(line);
		rc = 0;
	}
	ctl_progress_end(c);
	if (rc == 0)
		*last = line;
	return rc;
}

int ctl_users(struct ctl *c, const char *after, json_t **users, struct err *err)
{
	json_t *req = json_pack("{s:s}", "op", "users"), *line;
	int rc;

	if (after)
		json_object_set_new(req, "after", json_string(after));
	*users = json_array();
	rc = ctl_send(c, req, NULL, 0, err);
	while (rc == 0 && (rc = ctl_next(c, &line, err)) == 1) {
		json_array_append(*users, json_object_get(line, "user"));
		json_decref(line);
		rc = 0;
	}
	if (rc == 0) {
		json_decref(line);
		return 0;
	}
	json_decref(*users);
	*users = NULL;
	return rc;
}

/* The users a command is for: one named, or with --all everybody in the store. */
static int each_user(struct ctl *c, bool all, int (*fn)(struct ctl *c, const char *user, struct err *err), struct err *err)
{
	int status = CTL_OK, s, rc;
	json_t *users, *v;
	size_t i;

	if (!all)
		return fn(c, c->argv[0], err);
	rc = ctl_users(c, NULL, &users, err);
	if (rc < 0)
		return rc;
	json_array_foreach(users, i, v) {
		struct err e = ERR_INIT;

		s = fn(c, json_string_value(v), &e);
		if (s < 0)
			s = ctl_fail(&e);
		if (s > status)
			status = s;
	}
	json_decref(users);
	return status;
}

static int run_for_users(struct ctl *c, const char *usage, int (*fn)(struct ctl *c, const char *user, struct err *err))
{
	bool all = ctl_flag(c, "--all");
	struct err err = ERR_INIT;
	int rc;

	if (!ctl_words(c, all ? 0 : 1, all ? 0 : 1, usage))
		return CTL_USAGE;
	rc = each_user(c, all, fn, &err);
	return rc < 0 ? ctl_fail(&err) : rc;
}

static struct { bool bodies, repair, force, now; } opt;

static int sums(struct ctl *c, const char *user, json_t *last)
{
	if (c->json)
		ctl_print(c, last);
	else
		printf("%s: %lld messages, %lld damaged, %lld missing, %lld orphans, %lld repaired\n", user, (long long)num(last, "messages"),
		       (long long)num(last, "damaged"), (long long)num(last, "missing"), (long long)num(last, "orphans"), (long long)num(last, "repaired"));
	return num(last, "damaged") + num(last, "missing") > num(last, "forgotten") ? CTL_DAMAGE : CTL_OK;
}

static int check_one(struct ctl *c, const char *user, struct err *err)
{
	json_t *last;
	int rc = ctl_run_long(c, user, json_pack("{s:s, s:s, s:b, s:b}", "op", "user.check", "user", user, "bodies", opt.bodies, "repair", opt.repair), &last, err);

	if (rc == 0) {
		rc = sums(c, user, last);
		json_decref(last);
	}
	return rc;
}

int cmd_check(struct ctl *c)
{
	opt.bodies = ctl_flag(c, "--bodies");
	opt.repair = ctl_flag(c, "--repair");
	return run_for_users(c, "check USER|--all [--bodies] [--repair]", check_one);
}

static int rebuild_one(struct ctl *c, const char *user, struct err *err)
{
	json_t *last;
	int rc = ctl_run_long(c, user, json_pack("{s:s, s:s, s:b}", "op", "user.rebuild", "user", user, "force", opt.force), &last, err);

	if (rc == 0) {
		rc = sums(c, user, last);
		json_decref(last);
	}
	return rc;
}

int cmd_rebuild(struct ctl *c)
{
	opt.force = ctl_flag(c, "--force");
	return run_for_users(c, "rebuild USER|--all [--force]", rebuild_one);
}

static int gc_one(struct ctl *c, const char *user, struct err *err)
{
	json_t *last;
	char size[16];
	int rc = ctl_run_long(c, user, json_pack("{s:s, s:s, s:b}", "op", "user.gc", "user", user, "ignore_grace", opt.now), &last, err);

	if (rc < 0)
		return rc;
	if (c->json)
		ctl_print(c, last);
	else
		printf("%s: %lld objects deleted (%s), %lld expunged messages kept\n", user, (long long)num(last, "objects"),
		       ctl_size((uint64_t)num(last, "bytes"), size), (long long)num(last, "kept"));
	json_decref(last);
	return CTL_OK;
}

int cmd_gc(struct ctl *c)
{
	opt.now = ctl_flag(c, "--now");
	return run_for_users(c, "gc USER|--all [--now]", gc_one);
}

static int flush_one(struct ctl *c, const char *user, struct err *err)
{
	return ctl_call(c, json_pack("{s:s, s:s}", "op", "user.flush", "user", user), NULL, err);
}

int cmd_flush(struct ctl *c)
{
	return run_for_users(c, "flush USER|--all", flush_one);
}

/* --- undelete --- */

static int list_expunged(struct ctl *c, struct err *err)
{
	json_t *line;
	int rc = ctl_send(c, json_pack("{s:s, s:s}", "op", "user.expunged", "user", c->argv[0]), NULL, 0, err);

	while (rc == 0 && (rc = ctl_next(c, &line, err)) == 1) {
		char when[32], size[16];

		if (c->json)
			ctl_print(c, line);
		else
			printf("%s  %10lld %10s  %s\n", ctl_time(num(line, "expunged"), when), (long long)num(line, "uid"),
			       ctl_size((uint64_t)num(line, "size"), size), str(line, "mailbox"));
		json_decref(line);
		rc = 0;
	}
	if (rc == 0)
		json_decref(line);
	return rc;
}

int cmd_undelete(struct ctl *c)
{
	const char *mailbox = ctl_option(c, "--mailbox"), *since = ctl_option(c, "--since"), *to = ctl_option(c, "--to");
	bool only_list = ctl_flag(c, "--list");
	struct err err = ERR_INIT;
	json_t *req, *last;
	int64_t t = 0;
	int rc;

	if (!ctl_words(c, 1, 1, "undelete USER [--list] [--mailbox NAME] [--since TIME] [--to NAME]"))
		return CTL_USAGE;
	if (since && ctl_parse_time(since, &t) < 0) {
		fprintf(stderr, "culverctl: --since %s: a time is 2h, 3d, 2026-11-22, \"2026-11-22 10:00\" or @SECONDS\n", since);
		return CTL_USAGE;
	}
	if (only_list) {
		rc = list_expunged(c, &err);
		return rc < 0 ? ctl_fail(&err) : CTL_OK;
	}
	req = json_pack("{s:s, s:s, s:I}", "op", "user.undelete", "user", c->argv[0], "since", (json_int_t)t);
	if (req && mailbox)
		json_object_set_new(req, "mailbox", json_string(mailbox));
	if (req && to)
		json_object_set_new(req, "to", json_string(to));
	rc = ctl_call(c, req, &last, &err);
	if (rc < 0)
		return ctl_fail(&err);
	if (c->json)
		ctl_print(c, last);
	else
		printf("%lld messages are back\n", (long long)num(last, "messages"));
	json_decref(last);
	return CTL_OK;
}

/* --- who, dump, config --- */

static void print_session(struct ctl *c, json_t *line)
{
	char when[32];

	if (c->json)
		ctl_print(c, line);
	else
		printf("%-24s %-6s %-30s %-24s %s %s%s%s%s%s\n", str(line, "session"), str(line, "protocol"), str(line, "user"), str(line, "peer"),
		       json_is_true(json_object_get(line, "tls")) ? "tls  " : "plain", ctl_time(num(line, "since"), when),
		       json_object_get(line, "to") ? " to " : "", str(line, "to"), json_object_get(line, "from") ? " from " : "", str(line, "from"));
}

int cmd_who(struct ctl *c)
{
	json_t *req = json_pack("{s:s}", "op", "who");
	struct err err = ERR_INIT;
	int rc;

	if (!ctl_words(c, 0, 0, "who"))
		rc = CTL_USAGE;
	else
		rc = ctl_each_worker(c, req, print_session, &err);
	json_decref(req);
	return rc < 0 ? ctl_fail(&err) : rc;
}

int cmd_dump(struct ctl *c)
{
	struct err err = ERR_INIT;
	json_t *line;
	char *data;
	int rc;

	if (!ctl_words(c, 1, 1, "dump KEY"))
		return CTL_USAGE;
	rc = ctl_send(c, json_pack("{s:s, s:s, s:b}", "op", "dump", "key", c->argv[0], "json", c->json), NULL, 0, &err);
	while (rc == 0 && (rc = ctl_next(c, &line, &err)) == 1) {
		size_t n = (size_t)num(line, "bytes");

		data = mem_alloc(n + 1);
		rc = ctl_bytes(c, data, n, &err);
		if (rc == 0)
			fwrite(data, 1, n, stdout);
		free(data);
		json_decref(line);
	}
	if (rc == 0)
		json_decref(line);
	return rc < 0 ? ctl_fail(&err) : CTL_OK;
}

/* What is printed is pasted into reports. */
static void hide(struct conf_store *s)
{
	char **secret[] = { &s->secret_key, &s->session_token };
	size_t i;

	for (i = 0; i < MEM_COUNT(secret); i++) {
		if (!**secret[i])
			continue;
		free(*secret[i]);
		*secret[i] = mem_strdup("(set)");
	}
}

int cmd_config(struct ctl *c)
{
	struct buf b = BUF_INIT(1 << 20);

	if (!ctl_words(c, 0, 0, "config"))
		return CTL_USAGE;
	hide(&c->conf.mail_store);
	hide(&c->conf.index_store);
	settings_print(conf_table, &c->conf, false, &b);
	fputs(buf_str(&b), stdout);
	buf_free(&b);
	return CTL_OK;
}
