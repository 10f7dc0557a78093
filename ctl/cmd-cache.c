/* culverctl cache: the copies of messages on this machine's disk, of the culverd that runs here. */
#include "ctl/ctl.h"

#include <stdio.h>

static json_int_t num(json_t *line, const char *key)
{
	return json_integer_value(json_object_get(line, key));
}

static void print_worker(struct ctl *c, json_t *line)
{
	json_int_t asked = num(line, "hits") + num(line, "partial") + num(line, "misses");
	char max[16], used[16], hit[16], fetched[16];

	if (c->json) {
		ctl_print(c, line);
	} else if (!json_is_true(json_object_get(line, "cache"))) {
		printf("no cache: mail_store is a directory, or fscache_size is 0\n");
	} else {
		printf("%s of %s used, %lld users; %lld reads, %lld%% from the cache (%s), %s from the store; %lld blocks in, %lld refused, %lld out; %lld damaged%s\n",
		       ctl_size((uint64_t)num(line, "bytes_used"), used), ctl_size((uint64_t)num(line, "bytes_max"), max), (long long)num(line, "users"),
		       (long long)asked, (long long)(asked ? num(line, "hits") * 100 / asked : 0), ctl_size((uint64_t)num(line, "hit_bytes"), hit),
		       ctl_size((uint64_t)num(line, "fetched_bytes"), fetched), (long long)num(line, "admitted"), (long long)num(line, "refused"),
		       (long long)num(line, "evicted"), (long long)num(line, "corrupt"),
		       json_is_true(json_object_get(line, "degraded")) ? "; the disk is in trouble, see the log" : "");
	}
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
	return rc < 0 ? ctl_fail(&err) : CTL_OK;
}
