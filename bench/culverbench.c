/* culverbench - load for any IMAP, POP3 or LMTP server, one measurement a
 * run, one line of JSON each.  bench/README.md says what the figures mean. */
#include "bench/load.h"

#include "base/mem.h"

#include <getopt.h>
#include <signal.h>
#include <sys/resource.h>

static const char usage[] =
	"usage: culverbench MEASUREMENT [OPTION...] [IMAP COMMAND]\n"
	"  lmtp     deliveries: --conns --users --size --secs\n"
	"  login    log in, SELECT INBOX, log out: --conns --users --secs\n"
	"  fill     APPEND --msgs messages to --mailbox of each of --users, --multi at a time\n"
	"  cmd      time the IMAP command --repeat times; --pre C;C before each, --fresh connections, --nosel without SELECT\n"
	"  pop3     RETR everything, one after the other: --conns --users\n"
	"  idle     memory for each of --conns connections in IDLE after --settle seconds; needs --pid\n"
	"  notify   from the 250 of LMTP to EXISTS in a client in IDLE, --repeat times, --settle seconds between\n"
	"Options: --host ADDRESS --imap PORT --pop3 PORT --lmtp PORT (or the path of a unix socket) --user NAME% --domain D --pass P\n"
	"  --first-user N --mailbox M --seed N --pid SERVER --label L --op NAME; with --repeat lmtp and login do so many per connection\n";

enum { UINT, TEXT, SECONDS, NUMBER64, FLAG };
static const struct known {
	const char *name;
	int type;
	size_t off;
} known[] = {
	{ "--label", TEXT, offsetof(struct load_opts, label) }, { "--host", TEXT, offsetof(struct load_opts, host) },
	{ "--imap", TEXT, offsetof(struct load_opts, imap) }, { "--pop3", TEXT, offsetof(struct load_opts, pop3) },
	{ "--lmtp", TEXT, offsetof(struct load_opts, lmtp) }, { "--user", TEXT, offsetof(struct load_opts, user) },
	{ "--domain", TEXT, offsetof(struct load_opts, domain) }, { "--pass", TEXT, offsetof(struct load_opts, pass) },
	{ "--mailbox", TEXT, offsetof(struct load_opts, mailbox) }, { "--op", TEXT, offsetof(struct load_opts, op) },
	{ "--pre", TEXT, offsetof(struct load_opts, pre) }, { "--conns", UINT, offsetof(struct load_opts, conns) },
	{ "--users", UINT, offsetof(struct load_opts, users) }, { "--first-user", UINT, offsetof(struct load_opts, first_user) },
	{ "--size", UINT, offsetof(struct load_opts, size) }, { "--msgs", UINT, offsetof(struct load_opts, msgs) },
	{ "--multi", UINT, offsetof(struct load_opts, multi) }, { "--repeat", UINT, offsetof(struct load_opts, repeat) },
	{ "--secs", SECONDS, offsetof(struct load_opts, secs) }, { "--settle", SECONDS, offsetof(struct load_opts, settle) },
	{ "--seed", NUMBER64, offsetof(struct load_opts, seed) }, { "--pid", UINT, offsetof(struct load_opts, pid) },
	{ "--fresh", FLAG, offsetof(struct load_opts, fresh) }, { "--nosel", FLAG, offsetof(struct load_opts, nosel) },
};

static const struct {
	const char *name;
	int (*run)(const struct load_opts *o);
} measurements[] = {
	{ "lmtp", load_lmtp }, { "login", load_logins }, { "fill", load_fill }, { "cmd", load_cmd },
	{ "pop3", load_pop3 }, { "idle", load_idle }, { "notify", load_notify },
};

static int wrong(const char *what, const char *about)
{
	fprintf(stderr, "culverbench: %s: %s\n%s", about, what, usage);
	return -1;
}

static int set_option(struct load_opts *o, const struct known *k, const char *value)
{
	void *at = (char *)o + k->off;
	char *end = NULL;
	unsigned long long n;
	unsigned u;

	switch (k->type) {
	case TEXT:
		memcpy(at, &value, sizeof(value));
		return 0;
	case SECONDS:
		*(double *)at = strtod(value, &end);
		return *end ? wrong("not a number of seconds", value) : 0;
	default:
		n = strtoull(value, &end, 10);
		if (*end || value[0] == '-' || !*value)
			return wrong("not a number", value);
		u = (unsigned)n;
		memcpy(at, k->type == UINT ? (void *)&u : (void *)&n, k->type == UINT ? sizeof(u) : sizeof(n));
		return 0;
	}
}

static int parse(int argc, char **argv, struct load_opts *o)
{
	size_t k;
	int i;

	for (i = 2; i < argc; i++) {
		for (k = 0; k < MEM_COUNT(known) && strcmp(argv[i], known[k].name); k++)
			;
		if (k == MEM_COUNT(known)) {
			if (argv[i][0] == '-' || *o->command)
				return wrong("not understood", argv[i]);
			o->command = argv[i];
		} else if (known[k].type == FLAG) {
			*(bool *)((char *)o + known[k].off) = true;
		} else if (++i == argc) {
			return wrong("needs a value", known[k].name);
		} else if (set_option(o, &known[k], argv[i]) < 0) {
			return -1;
		}
	}
	if (!o->conns || o->conns > LOAD_CONNS_MAX || !o->users || !o->multi)
		return wrong("must be from 1", "--conns, --users and --multi");
	return 0;
}

int main(int argc, char **argv)
{
	struct load_opts o = { .label = "", .host = "127.0.0.1", .imap = "", .pop3 = "", .lmtp = "", .user = "u%", .domain = "bench.example", .pass = "pass",
		.mailbox = "INBOX", .op = "", .pre = "", .command = "", .conns = 1, .users = 1, .first_user = 1, .msgs = 1000, .multi = 50,
		.secs = 5, .settle = 1, .seed = 1 };
	struct rlimit files;
	size_t i;

	if (argc < 2 || parse(argc, argv, &o) < 0) {
		if (argc < 2)
			fputs(usage, stderr);
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
	for (i = 0; i < MEM_COUNT(measurements); i++)
		if (!strcmp(argv[1], measurements[i].name))
			return measurements[i].run(&o);
	wrong("no such measurement", argv[1]);
	return 2;
}
