/* culverctl: the admin tool.  Finds the command and runs it. */
#include "ctl/ctl.h"

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"

#include <signal.h>
#include <sodium.h>

static const struct {
	const char *name;
	int (*run)(struct ctl *c);
	const char *help;
} commands[] = {
	{ "user", cmd_user, "add|passwd|delete|enable|disable NAME, list\tusers and passwords; where USER, move USER NODE, flush|evict USER|--all" },
	{ "node", cmd_node, "list, drain [NODE] [--undo], adopt NODE [--force]\tthe backends that share the store" },
	{ "mailbox", cmd_mailbox, "list USER, status|create|delete|subscribe|unsubscribe USER MAILBOX, rename USER FROM TO" },
	{ "fetch", cmd_fetch, "USER MAILBOX [UID] [--part N] [--decode]\ta message, a part, or the list of messages" },
	{ "import", cmd_import, "USER PATH [--mailbox NAME] [--format mbox|maildir|eml] [--exact]" },
	{ "export", cmd_export, "USER PATH [--mailbox NAME] [--format mbox|maildir|eml] [--uid N]" },
	{ "check", cmd_check, "USER|--all [--bodies] [--repair]\tis every message there and whole?" },
	{ "rebuild", cmd_rebuild, "USER|--all [--force]\tall of a user from the message objects alone" },
	{ "scrub", cmd_scrub, "USER|--all [--bodies] [--repair] [--resume FILE]\tthe store against the logs, without taking users over" },
	{ "log", cmd_log, "show USER\tthe records of a user's log" },
	{ "gc", cmd_gc, "USER|--all [--now]\tdelete what was expunged before the grace period" },
	{ "undelete", cmd_undelete, "USER [--list] [--mailbox NAME] [--since TIME] [--to NAME]\tbring expunged mail back" },
	{ "flush", cmd_flush, "USER|--all\tupload logs and snapshots now" },
	{ "who", cmd_who, "\twho is logged in" },
	{ "dump", cmd_dump, "KEY\tan object of the store, readable" },
	{ "store", cmd_store, "get|put|list|delete|probe|bench [--store mail|index] ...\tthe object store itself" },
	{ "cache", cmd_cache, "status|clean\tthe copies of messages on this machine's disk" },
	{ "config", cmd_config, "\tthe effective settings" },
};

static void help(FILE *out)
{
	size_t i;

	fputs("usage: culverctl [-c FILE] [--json] [--quiet] COMMAND ...\n\n", out);
	for (i = 0; i < MEM_COUNT(commands); i++)
		fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].help);
	fputs("\nExit status: 0 done, 1 failed, 2 usage, 3 no such thing, 4 damage found, 5 try again later. See culverctl(8).\n", out);
}

static void drop_args(struct ctl *c, int at, int n)
{
	memmove(c->argv + at, c->argv + at + n, (size_t)(c->argc - at - n + 1) * sizeof(*c->argv));
	c->argc -= n;
}

bool ctl_flag(struct ctl *c, const char *name)
{
	int i;

	for (i = 0; i < c->argc && strcmp(c->argv[i], "--") != 0; i++) {
		if (strcmp(c->argv[i], name) != 0)
			continue;
		drop_args(c, i, 1);
		return true;
	}
	return false;
}

const char *ctl_option(struct ctl *c, const char *name)
{
	size_t len = strlen(name);
	const char *value = NULL;
	int i;

	for (i = 0; i < c->argc && strcmp(c->argv[i], "--") != 0; i++) {
		if (!strncmp(c->argv[i], name, len) && c->argv[i][len] == '=') {
			value = c->argv[i] + len + 1;
			drop_args(c, i, 1);
			break;
		}
		if (!strcmp(c->argv[i], name) && i + 1 < c->argc) {
			value = c->argv[i + 1];
			drop_args(c, i, 2);
			break;
		}
	}
	return value;
}

bool ctl_words(struct ctl *c, int min, int max, const char *usage)
{
	int i;

	for (i = 0; i < c->argc; i++) {
		if (!strcmp(c->argv[i], "--")) {
			drop_args(c, i, 1);
			break;
		}
		if (c->argv[i][0] == '-' && c->argv[i][1]) {
			fprintf(stderr, "culverctl: unknown option %s, or its value is missing\nusage: culverctl %s\n", c->argv[i], usage);
			return false;
		}
	}
	if (c->argc >= min && c->argc <= max)
		return true;
	fprintf(stderr, "usage: culverctl %s\n", usage);
	return false;
}

static int run(struct ctl *c, const char *name)
{
	struct buf complaints = BUF_INIT(64 * 1024);
	size_t i;
	int rc = CTL_USAGE;

	for (i = 0; i < MEM_COUNT(commands) && strcmp(commands[i].name, name) != 0; i++)
		;
	if (i == MEM_COUNT(commands)) {
		fprintf(stderr, "culverctl: unknown command \"%s\"\n", name);
		help(stderr);
	} else if (conf_load(c->config_path, &c->conf, &complaints) < 0) {
		fprintf(stderr, "culverctl: %s", buf_str(&complaints));
		conf_free(&c->conf);
	} else {
		rc = commands[i].run(c);
		ctl_disconnect(c);
		conf_free(&c->conf);
	}
	buf_free(&complaints);
	return rc;
}

int main(int argc, char **argv)
{
	struct ctl c = { .argc = argc - 1 };
	char **words = mem_dup(argv + 1, (size_t)argc * sizeof(*argv));
	const char *name;
	int rc;

	if (sodium_init() < 0)
		return CTL_FAILED;
	signal(SIGPIPE, SIG_IGN);
	log_init("culverctl", LOG_WARN, LOG_FMT_TEXT);
	c.argv = words;
	c.json = ctl_flag(&c, "--json");
	c.quiet = ctl_flag(&c, "--quiet");
	c.config_path = ctl_option(&c, "-c");
	if (!c.config_path)
		c.config_path = getenv("CULVER_CONFIG");
	if (!c.config_path)
		c.config_path = SYSCONFDIR "/culver/culver.conf";
	if (ctl_flag(&c, "--help") || ctl_flag(&c, "-h")) {
		help(stdout);
		rc = CTL_OK;
	} else if (c.argc == 0) {
		help(stderr);
		rc = CTL_USAGE;
	} else {
		name = c.argv[0];
		drop_args(&c, 0, 1);
		rc = run(&c, name);
	}
	free(words);
	return rc;
}
