/* culverctl scrub: the store against the logs, of one user or of all, to be
 * stopped and gone on with at will. */
#include "ctl/ctl.h"

#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct scrub {
	bool bodies, repair;
	const char *resume;	/* file that names the last user done; NULL: none */
	json_int_t users, messages, objects, bytes, missing, damaged, orphans, bundles, repaired, forgotten;
};

static json_int_t num(json_t *line, const char *key)
{
	return json_integer_value(json_object_get(line, key));
}

/* --- where an earlier run stopped: one line, the last user that was done --- */

static int resume_read(const char *path, char **user_r, struct err *err)
{
	char line[512];
	FILE *f = fopen(path, "re");

	*user_r = NULL;
	if (!f)
		return errno == ENOENT ? 0 : err_errno(err, "open", path);
	if (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (*line)
			*user_r = mem_strdup(line);
	}
	fclose(f);
	return 0;
}

static int resume_write(const char *path, const char *user, struct err *err)
{
	char *tmp = mem_printf("%s.new", path);
	FILE *f = fopen(tmp, "we");
	int rc = 0;

	if (!f || fprintf(f, "%s\n", user) < 0 || fflush(f) != 0 || rename(tmp, path) < 0)
		rc = err_errno(err, "write", tmp);
	if (f)
		fclose(f);
	free(tmp);
	return rc;
}

/* --- scrubbing --- */

static void add(struct scrub *s, json_t *line)
{
	s->users++;
	s->messages += num(line, "messages");
	s->objects += num(line, "objects");
	s->bytes += num(line, "bytes");
	s->missing += num(line, "missing");
	s->damaged += num(line, "damaged");
	s->orphans += num(line, "orphans");
	s->bundles += num(line, "bundles");
	s->repaired += num(line, "repaired");
	s->forgotten += num(line, "forgotten");
}

/* Only who has the user may change the log: the node that serves it, or else this one for a moment. */
static void repair_at_owner(struct ctl *c, const char *user, json_t *line)
{
	struct err err = ERR_INIT;
	json_t *check = NULL;

	if (!num(line, "missing") && (!json_is_true(json_object_get(line, "served")) || num(line, "orphans") <= num(line, "repaired")))
		return;
	if (ctl_call(c, json_pack("{s:s, s:s, s:b, s:b}", "op", "user.check", "user", user, "bodies", false, "repair", true), &check, &err) < 0) {
		fprintf(stderr, "culverctl: user %s: not repaired: %s; run culverctl check %s --repair\n", user, err.msg[0] ? err.msg : err_code_name(err.code), user);
		return;
	}
	json_object_set_new(line, "repaired", json_integer(num(line, "repaired") + num(check, "repaired")));
	json_object_set_new(line, "forgotten", json_integer(num(check, "forgotten")));
	if (num(check, "repaired") && !c->json)
		printf("note: user %s: %lld messages whose objects are gone were forgotten, %lld objects of no message deleted\n", user,
		       (long long)num(check, "forgotten"), (long long)(num(check, "repaired") - num(check, "forgotten")));
	json_decref(check);
}

static int one(struct ctl *c, struct scrub *s, const char *user, struct err *err)
{
	json_t *last;
	int rc = ctl_run_long(c, user, json_pack("{s:s, s:s, s:b, s:b}", "op", "user.scrub", "user", user, "bodies", s->bodies, "repair", s->repair), &last, err);

	if (rc < 0)
		return rc;
	if (s->repair)
		repair_at_owner(c, user, last);
	add(s, last);
	if (c->json)
		ctl_print(c, last);
	json_decref(last);
	return 0;
}

static int all(struct ctl *c, struct scrub *s, struct err *err)
{
	char *after = NULL;
	json_t *users, *v;
	size_t i;
	int rc = s->resume ? resume_read(s->resume, &after, err) : 0;

	if (rc == 0)
		rc = ctl_users(c, after, &users, err);
	free(after);
	if (rc < 0)
		return rc;
	for (i = 0; i < json_array_size(users) && rc == 0; i++) {
		v = json_array_get(users, i);
		ctl_progress(c, "users", i, json_array_size(users));
		rc = one(c, s, json_string_value(v), err);
		if (rc == 0 && s->resume && fflush(stdout) != 0)	/* what was found is out before its user counts as done */
			rc = err_errno(err, "write", "standard output");
		if (rc == 0 && s->resume)
			rc = resume_write(s->resume, json_string_value(v), err);
	}
	ctl_progress_end(c);
	json_decref(users);
	if (rc == 0 && s->resume && unlink(s->resume) < 0 && errno != ENOENT)
		rc = err_errno(err, "remove", s->resume);
	return rc;
}

static void print_sums(const struct scrub *s)
{
	char size[16];

	printf("%lld users, %lld messages, %lld objects (%s); %lld missing, %lld damaged, %lld indexes or logs damaged, %lld of nobody, %lld repaired\n",
	       (long long)s->users, (long long)s->messages, (long long)s->objects, ctl_size((uint64_t)s->bytes, size), (long long)s->missing,
	       (long long)s->damaged, (long long)s->bundles, (long long)s->orphans, (long long)s->repaired);
}

int cmd_scrub(struct ctl *c)
{
	struct scrub s = { .bodies = ctl_flag(c, "--bodies"), .repair = ctl_flag(c, "--repair"), .resume = ctl_option(c, "--resume") };
	bool everybody = ctl_flag(c, "--all");
	struct err err = ERR_INIT;
	int rc;

	if (!ctl_words(c, everybody ? 0 : 1, everybody ? 0 : 1, "scrub USER|--all [--bodies] [--repair] [--resume FILE]"))
		return CTL_USAGE;
	rc = everybody ? all(c, &s, &err) : one(c, &s, c->argv[0], &err);
	if (!c->json)
		print_sums(&s);
	if (rc < 0)
		return ctl_fail(&err);
	return s.missing + s.damaged + s.bundles > s.forgotten ? CTL_DAMAGE : CTL_OK;
}
