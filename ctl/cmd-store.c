/* culverctl store: the object store itself, below everything Culver keeps in it. */
#include "ctl/ctl.h"
#include "ctl/store.h"

#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

enum { LIST_MAX = 1000 };
#define OBJECT_MAX (UINT64_C(1) << 30)

static const char usage[] =
	"store get KEY [FILE] | put KEY [FILE] [--create] | list [PREFIX] [--after KEY] [--max N] | delete KEY... | probe [--rounds N] | "
	"bench [--size 4K] [--concurrency 1] [--count 1000] [--get|--put] [--keep]   [--store mail|index] | stats";

static int take_stdin(struct buf *b, struct err *err)
{
	ssize_t n = 1;

	while (n != 0) {
		void *p = buf_reserve(b, 65536);

		if (!p)
			return err_set(err, ERR_LIMIT, "standard input is larger than 1 GiB");
		n = read(0, p, 65536);
		if (n < 0 && errno != EINTR)
			return err_errno(err, "read", "standard input");
		b->len += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int take_file(const char *path, struct buf *b, struct err *err)
{
	char *data = NULL;
	size_t len = 0;
	int rc;

	if (!path || !strcmp(path, "-"))
		return take_stdin(b, err);
	rc = io_read_file(path, OBJECT_MAX, &data, &len, err);
	if (rc == 0)
		buf_add(b, data, len);
	free(data);
	return rc;
}

static int give_file(const char *path, const struct buf *b, struct err *err)
{
	bool out = !path || !strcmp(path, "-");
	int fd = out ? 1 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return err_errno(err, "open", path);
	rc = b->len ? io_write_full(fd, b->data, b->len, err) : 0;
	if (!out && close(fd) < 0 && rc == 0)
		rc = err_errno(err, "close", path);
	return rc;
}

static int store_get(struct store_run *r, struct err *err)
{
	struct buf b = BUF_INIT(OBJECT_MAX);
	int rc;

	if (!ctl_words(r->c, 1, 2, "store get KEY [FILE]"))
		return CTL_USAGE;
	rc = objstore_get(r->s, r->c->argv[0], &b, NULL, err);
	if (rc == 0)
		rc = give_file(r->c->argc > 1 ? r->c->argv[1] : NULL, &b, err);
	buf_free(&b);
	return rc;
}

static int store_put(struct store_run *r, struct err *err)
{
	bool create = ctl_flag(r->c, "--create");
	struct buf b = BUF_INIT(OBJECT_MAX);
	char etag[OBJ_ETAG_MAX] = "";
	int rc;

	if (!ctl_words(r->c, 1, 2, "store put KEY [FILE] [--create]"))
		return CTL_USAGE;
	rc = take_file(r->c->argc > 1 ? r->c->argv[1] : NULL, &b, err);
	if (rc == 0)
		rc = objstore_put(r->s, r->c->argv[0], b.data, b.len, create ? OBJ_CREATE : OBJ_ANY, etag, err);
	if (rc == 0 && r->c->json)
		printf("{\"key\":\"%s\",\"size\":%zu}\n", r->c->argv[0], b.len);
	buf_free(&b);
	return rc;
}

static void print_item(struct ctl *c, const struct objstore_list_item *i)
{
	char when[32] = "-";

	if (c->json) {
		printf("{\"key\":\"%s\",\"size\":%" PRIu64 ",\"time\":%" PRId64 "}\n", i->key, i->size, i->mtime);
		return;
	}
	if (i->mtime)
		ctl_time(i->mtime, when);
	printf("%12" PRIu64 "  %-19s  %s\n", i->size, when, i->key);
}

static int store_list(struct store_run *r, struct err *err)
{
	const char *after = ctl_option(r->c, "--after"), *max = ctl_option(r->c, "--max");
	uint64_t left = max ? strtoull(max, NULL, 10) : UINT64_MAX;
	char *from = mem_strdup(after ? after : "");
	size_t n = 1, i;
	int rc = 0;

	if (!ctl_words(r->c, 0, 1, "store list [PREFIX] [--after KEY] [--max N]")) {
		free(from);
		return CTL_USAGE;
	}
	while (rc == 0 && left && n) {
		struct objstore_list_item *items;

		rc = objstore_list(r->s, r->c->argc ? r->c->argv[0] : "", *from ? from : NULL, left < LIST_MAX ? (size_t)left : LIST_MAX, &items, &n, err);
		for (i = 0; i < n; i++)
			print_item(r->c, &items[i]);
		left -= n;
		if (n) {
			free(from);
			from = mem_strdup(items[n - 1].key);
		}
		objstore_items_free(items, n);
	}
	free(from);
	return rc;
}

static int store_delete(struct store_run *r, struct err *err)
{
	if (!ctl_words(r->c, 1, 1000, "store delete KEY..."))
		return CTL_USAGE;
	return objstore_delete_many(r->s, (const char *const *)r->c->argv, (size_t)r->c->argc, err);
}

static void print_probe(const struct probe_result *r)
{
	static const char *const marks[] = { "-", "yes", "NO" };
	int i;

	printf("%s\n\n", r->store);
	for (i = 0; i < PROBE_N; i++)
		printf("  %-3s  %-46s  %s\n", marks[r->state[i]], probe_check_title((enum probe_check)i), r->text[i]);
	printf("\n  put %.1f ms, get %.1f ms (median of a few small ones)\n", (double)r->put_us / 1000, (double)r->get_us / 1000);
}

static int verdict(const struct probe_result *r, enum probe_role role, const char *name, bool quiet)
{
	struct err e = ERR_INIT;

	if (probe_judge(r, role, name, &e) == 0) {
		if (!quiet)
			printf("  %s: can be used\n", name);
		return 0;
	}
	if (!quiet)
		printf("  %s: refused\n", name);
	fprintf(stderr, "culverctl: %s\n", e.msg);
	return 1;
}

static int store_probe(struct store_run *r, struct err *err)
{
	const char *rounds = ctl_option(r->c, "--rounds");
	struct probe_result *p = MEM_NEW(struct probe_result);
	struct buf b = BUF_INIT(64 * 1024);
	bool index;
	int rc, bad;

	if (!ctl_words(r->c, 0, 0, "store probe [--store mail|index] [--rounds N]")) {
		free(p);
		return CTL_USAGE;
	}
	index = !strcmp(r->name, "index_store") || r->c->conf.index_store.driver == CONF_STORE_MAIL;
	rc = stores_probe(&r->c->conf, r->name, r->cs, r->s, rounds ? (unsigned)strtoul(rounds, NULL, 10) : 0, p, err);
	if (rc == 0) {
		if (r->c->json) {
			probe_json(p, &b);
			puts(buf_str(&b));
		} else {
			print_probe(p);
		}
		bad = verdict(p, PROBE_FOR_MAIL, r->name, r->c->json);
		if (index)
			bad |= verdict(p, PROBE_FOR_INDEX, "index_store", r->c->json);
		rc = bad ? CTL_FAILED : CTL_OK;
	}
	buf_free(&b);
	free(p);
	return rc;
}

static const struct {
	const char *name;
	int (*run)(struct store_run *r, struct err *err);
} verbs[] = {
	{ "get", store_get }, { "put", store_put }, { "list", store_list }, { "delete", store_delete }, { "probe", store_probe }, { "bench", store_bench },
};

static int open_store(struct store_run *r, const char *which, struct err *err)
{
	struct conf *c = &r->c->conf;
	struct objstore_settings set;
	bool index = which && !strcmp(which, "index") && c->index_store.driver != CONF_STORE_MAIL;

	if (which && strcmp(which, "index") && strcmp(which, "mail"))
		return err_set(err, ERR_INVALID, "--store %s: it can be mail or index", which);
	r->cs = index ? &c->index_store : &c->mail_store;
	r->name = index ? "index_store" : "mail_store";
	stores_settings(r->cs, &set);
	return objstore_open(&set, &r->s, err);
}

int cmd_store(struct ctl *c)
{
	struct store_run r = { .c = c };
	const char *which = ctl_option(c, "--store"), *verb = c->argc ? c->argv[0] : "";
	struct err err = ERR_INIT;
	size_t i;
	int rc;

	if (!strcmp(verb, "stats")) {	/* asks culverd, not the store */
		memmove(c->argv, c->argv + 1, (size_t)c->argc * sizeof(*c->argv));
		c->argc--;
		rc = store_stats(c, &err);
		return rc < 0 ? ctl_fail(&err) : rc;
	}
	for (i = 0; i < MEM_COUNT(verbs) && strcmp(verbs[i].name, verb); i++)
		;
	if (i == MEM_COUNT(verbs)) {
		fprintf(stderr, "usage: culverctl %s\n", usage);
		return CTL_USAGE;
	}
	memmove(c->argv, c->argv + 1, (size_t)c->argc * sizeof(*c->argv));
	c->argc--;
	rc = open_store(&r, which, &err);
	if (rc == 0)
		rc = verbs[i].run(&r, &err);
	objstore_close(&r.s);
	return rc < 0 ? ctl_fail(&err) : rc;
}
