/* Runs the dialogues in tests/imap/scripts/: see script.h for their form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>

#include "base/log.h"
#include "base/mem.h"
#include "tests/imap/script.h"

static void run_case(void **state)
{
	char *error = script_run(*state);

	if (error) {
		print_error("%s\n", error);
		free(error);
		fail();
	}
}

static int is_script(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return n > 5 && !strcmp(d->d_name + n - 5, ".imap");
}

static struct CMUnitTest *tests;
static size_t n_tests, cap_tests;

static void add_file(const char *dir, const char *name)
{
	char *path = mem_printf("%s/%s", dir, name);
	unsigned n, i;
	struct script_case *cases = script_load(path, &n);

	for (i = 0; i < n; i++) {
		mem_grow(&tests, &cap_tests, n_tests + 1, sizeof(*tests));
		tests[n_tests++] = (struct CMUnitTest){ mem_printf("%s: %s", name, cases[i].name), run_case, NULL, NULL, &cases[i] };
	}
	free(path);
}

int main(int argc, char **argv)
{
	const char *src = getenv("top_srcdir");
	char *dir = mem_printf("%s/tests/imap/scripts", src ? src : ".");
	struct dirent **names;
	int n, i;

	log_init("test", LOG_ERROR + 1, LOG_FMT_TEXT);
	if (argc > 1) {
		for (i = 1; i < argc; i++)
			add_file(".", argv[i]);
	} else {
		n = scandir(dir, &names, is_script, alphasort);
		if (n <= 0)
			return 1;
		for (i = 0; i < n; i++) {
			add_file(dir, names[i]->d_name);
			free(names[i]);
		}
		free(names);
	}
	free(dir);
	return _cmocka_run_group_tests("imap scripts", tests, n_tests, NULL, NULL);
}
