/* culverd - the server. */
#include "daemon/proc.h"

#include "base/err.h"

#include <getopt.h>
#include <sodium.h>
#include <unistd.h>

static const struct option options[] = {
	{ "config", required_argument, NULL, 'c' }, { "foreground", no_argument, NULL, 'f' }, { "print", no_argument, NULL, 'n' },
	{ "print-all", no_argument, NULL, 'a' }, { "test", no_argument, NULL, 't' }, { "version", no_argument, NULL, 'V' }, { "help", no_argument, NULL, 'h' },
	{ "settings-reference", no_argument, NULL, 'D' },
	{ "role", required_argument, NULL, 'R' }, { "index", required_argument, NULL, 'I' }, { "generation", required_argument, NULL, 'G' },
	{ "address", required_argument, NULL, 'A' },
	{ NULL, 0, NULL, 0 }
};

static void usage(FILE *out)
{
	fputs("culverd [-c FILE] [-f]     serve; -f: in the foreground\n"
	      "culverd [-c FILE] -t       check the settings\n"
	      "culverd [-c FILE] -n       print the settings that differ from the defaults (-a: all)\n"
	      "culverd --version\n", out);
}

/* Without -c the standard place, and without a file there the defaults. */
static const char *conf_path(const char *given)
{
	if (given)
		return given;
	return access(SYSCONFDIR "/culver/culver.conf", F_OK) == 0 ? SYSCONFDIR "/culver/culver.conf" : NULL;
}

static int print_settings(const char *path, bool print, bool all)
{
	struct buf complaints = BUF_INIT(0), out = BUF_INIT(0);
	struct conf c;
	int rc = conf_load(path, &c, &complaints);

	fputs(buf_str(&complaints), stderr);
	if (rc == 0 && print) {
		settings_print(conf_table, &c, !all, &out);
		fputs(buf_str(&out), stdout);
	}
	buf_free(&complaints);
	buf_free(&out);
	conf_free(&c);
	return rc < 0;
}

static int print_reference(void)
{
	struct buf out = BUF_INIT(0);

	settings_doc(conf_table, &out);
	fputs(buf_str(&out), stdout);
	buf_free(&out);
	return 0;
}

static int run_role(const char *role, unsigned index, unsigned generation, const char *address)
{
	if (!strcmp(role, "gate"))
		return gate_main(index, generation);
	if (!strcmp(role, "auth"))
		return auth_main(index, generation);
	if (!strcmp(role, "worker"))
		return worker_main(index, generation, address);
	fprintf(stderr, "culverd: there is no role %s\n", role);
	return 2;
}

int main(int argc, char **argv)
{
	const char *conf = NULL, *role = NULL, *address = "";
	unsigned index = 0, generation = 0;
	bool foreground = false;
	int c, what = 0;

	if (sodium_init() < 0)
		return 1;
	while ((c = getopt_long(argc, argv, "c:fnatVh", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			conf = optarg;
			break;
		case 'f':
			foreground = true;
			break;
		case 'R':
			role = optarg;
			break;
		case 'I':
			index = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'A':
			address = optarg;
			break;
		case 'G':
			generation = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case '?':
			usage(stderr);
			return 2;
		default:
			what = c;
		}
	}
	if (role)
		return run_role(role, index, generation, address);
	if (what == 'h')
		usage(stdout);
	if (what == 'V')
		puts("culverd " PACKAGE_VERSION);
	if (what == 'h' || what == 'V')
		return 0;
	if (what == 'D')
		return print_reference();
	if (what)
		return print_settings(conf_path(conf), what != 't', what == 'a');
	return master_main(conf_path(conf), foreground);
}
