/* culverctl cache: the copies of messages and of indexes on this machine's disk: of the culverd that runs here, or
 * what it left. */
#include "ctl/ctl.h"

#include "base/mem.h"
#include "fscache/fscache.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static const char *const places[] = { "fscache", "metacache" };

static json_int_t num(json_t *line, const char *key)
{
	return json_integer_value(json_object_get(line, key));
}

static const char *trouble(json_t *line)
{
	return json_is_true(json_object_get(line, "degraded")) ? "; the disk is in trouble, see the log" : "";
}

static void print_messages(json_t *line)
{
	json_int_t asked = num(line, "hits") + num(line, "partial") + num(line, "misses");
	char max[16], used[16], hit[16], fetched[16];

	if (!json_is_true(json_object_get(line, "cache"))) {
		printf("messages: no cache: mail_store is a directory, or fscache_size is 0\n");
		return;
	}
	printf("messages: %s of %s used, %lld users; %lld reads, %lld%% from the cache (%s), %s from the store; %lld blocks in, %lld refused, %lld out; %lld damaged%s\n",
	       ctl_size((uint64_t)num(line, "bytes_used"), used), ctl_size((uint64_t)num(line, "bytes_max"), max), (long long)num(line, "users"),
	       (long long)asked, (long long)(asked ? num(line, "hits") * 100 / asked : 0), ctl_size((uint64_t)num(line, "hit_bytes"), hit),
	       ctl_size((uint64_t)num(line, "fetched_bytes"), fetched), (long long)num(line, "admitted"), (long long)num(line, "refused"),
	       (long long)num(line, "evicted"), (long long)num(line, "corrupt"), trouble(line));
}

static void print_indexes(json_t *line)
{
	json_int_t asked = num(line, "hits") + num(line, "misses");
	char max[16], used[16], hit[16];

	if (!line) {
		printf("indexes:  no cache: index_store is a directory, or metacache_size is 0\n");
		return;
	}
	printf("indexes:  %s of %s used, %lld users, %lld of them dirty; %lld reads, %lld%% from the cache (%s); %lld objects in, %lld refused; %lld users out; %lld dropped%s\n",
	       ctl_size((uint64_t)num(line, "bytes_disk"), used), ctl_size((uint64_t)num(line, "bytes_max"), max), (long long)num(line, "users"),
	       (long long)num(line, "dirty"), (long long)asked, (long long)(asked ? num(line, "hits") * 100 / asked : 0),
	       ctl_size((uint64_t)num(line, "hit_bytes"), hit), (long long)num(line, "kept"), (long long)num(line, "refused"),
	       (long long)num(line, "evicted"), (long long)num(line, "dropped"), trouble(line));
}

static void print_worker(struct ctl *c, json_t *line)
{
	if (c->json) {
		ctl_print(c, line);
		return;
	}
	print_messages(line);
	print_indexes(json_object_get(line, "metacache"));
}

/* --- without culverd --- */

static uint64_t disk_bytes(const char *dir)
{
	struct dirent *e;
	struct stat sb;
	uint64_t sum = 0;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		if (fstatat(dirfd(d), e->d_name, &sb, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(sb.st_mode))
			sum += (uint64_t)sb.st_blocks * 512;
	if (d)
		closedir(d);
	return sum;
}

static void print_place(struct ctl *c, const char *place, const char *worker)
{
	char *dir = mem_printf("%s/%s/%s", c->conf.state_dir, place, worker), size[16];
	uint64_t bytes = disk_bytes(dir);
	json_t *line = json_pack("{s:s, s:s, s:I}", "place", place, "worker", worker, "bytes_disk", (json_int_t)bytes);

	if (c->json)
		ctl_print(c, line);
	else
		printf("%s of worker %s: %s on disk; culverd does not run\n", place, worker, ctl_size(bytes, size));
	json_decref(line);
	free(dir);
}

static int offline(struct ctl *c, bool clean, struct err *err)
{
	struct dirent *e;
	size_t i;
	int rc = 0;

	for (i = 0; i < MEM_COUNT(places) && rc == 0; i++) {
		char *base = mem_printf("%s/%s", c->conf.state_dir, places[i]);
		DIR *d = clean ? NULL : opendir(base);

		if (clean)
			rc = fscache_trim(base, 0, err);
		while (d && (e = readdir(d)))
			if (e->d_name[0] >= '0' && e->d_name[0] <= '9')
				print_place(c, places[i], e->d_name);
		if (d)
			closedir(d);
		free(base);
	}
	return rc;
}

int cmd_cache(struct ctl *c)
{
	bool clean = c->argc == 1 && !strcmp(c->argv[0], "clean");
	struct err err = ERR_INIT;
	json_t *req;
	int rc;

	if (!ctl_words(c, 1, 1, "cache status|clean"))
		return CTL_USAGE;
	if (!clean && strcmp(c->argv[0], "status") != 0) {
		fputs("usage: culverctl cache status|clean\n", stderr);
		return CTL_USAGE;
	}
	req = json_pack("{s:s}", "op", clean ? "cache.clean" : "cache.status");
	rc = ctl_each_worker(c, req, print_worker, &err);
	json_decref(req);
	if (rc == ERR_UNAVAILABLE && !strcmp(err.msg, CTL_NO_CULVERD)) {
		err_clear(&err);
		rc = offline(c, clean, &err);
	}
	return rc < 0 ? ctl_fail(&err) : CTL_OK;
}
