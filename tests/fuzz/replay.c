/* replay - runs a fuzz target over files and folders, for make check.
 *
 *   fuzz_NAME [PATH...]   without arguments: tests/fuzz/corpus/NAME of the source tree
 *
 * Prints TAP: one test per target, for a crash ends the program. */
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t files;

static int run_file(const char *path)
{
	struct buf b = BUF_INIT(0);
	FILE *f = fopen(path, "rb");
	uint8_t *copy;
	void *room;
	size_t n;

	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	while ((room = buf_reserve(&b, 65536)) && (n = fread(room, 1, 65536, f)) > 0)
		b.len += n;
	fclose(f);
	copy = malloc(b.len ? b.len : 1);	/* exactly as long, so that a sanitizer sees reads beyond */
	if (!copy)
		return -1;
	if (b.len)
		memcpy(copy, b.data, b.len);
	LLVMFuzzerTestOneInput(copy, b.len);
	free(copy);
	buf_free(&b);
	files++;
	return 0;
}

static int run_path(const char *path)
{
	struct stat st;
	struct dirent *e;
	char name[4096];
	DIR *d;
	int ret = 0;

	if (stat(path, &st) < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(st.st_mode))
		return run_file(path);
	d = opendir(path);
	if (!d)
		return -1;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		ret |= run_path(name);
	}
	closedir(d);
	return ret;
}

int main(int argc, char **argv)
{
	const char *top = getenv("top_srcdir"), *name = strrchr(argv[0], '/');
	char corpus[4096];
	int i, ret = 0;

	name = name ? name + 1 : argv[0];
	if (!strncmp(name, "lt-", 3))
		name += 3;
	if (!strncmp(name, "fuzz_", 5))
		name += 5;
	puts("1..1");
	for (i = 1; i < argc; i++)
		ret |= run_path(argv[i]);
	if (argc == 1) {
		snprintf(corpus, sizeof(corpus), "%s/tests/fuzz/corpus/%s", top ? top : ".", name);
		ret = run_path(corpus);
	}
	printf("%sok 1 - %s survives %zu inputs\n", ret || !files ? "not " : "", name, files);
	return ret || !files;
}
