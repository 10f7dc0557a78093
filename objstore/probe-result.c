/* What the probe's result means, and keeping it. */
#include "objstore/probe.h"

#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>

enum { FILE_MAX = 64 * 1024 };

static const struct {
	const char *name, *title;
	bool mail, index;	/* needed for */
} checks[PROBE_N] = {
	[PROBE_READ] = { "read", "what was put is read, at once", true, true },
	[PROBE_CREATE] = { "create", "a second create is refused (If-None-Match)", false, true },
	[PROBE_CREATE_RACE] = { "create-race", "of 20 racing creators one wins", false, true },
	[PROBE_MATCH] = { "match", "a swap with the current ETag is taken (If-Match)", false, true },
	[PROBE_STALE] = { "stale-match", "a swap with an old ETag is refused", false, true },
	[PROBE_MATCH_RACE] = { "match-race", "of 20 racing swaps one wins", false, true },
	[PROBE_RANGE] = { "range", "ranges are read", true, false },
	[PROBE_LIST] = { "list", "listings are complete and in order", false, false },
	[PROBE_DELETE] = { "delete", "what is deleted is gone", true, true },
	[PROBE_DELETE_MANY] = { "delete-many", "many are deleted at once", false, false },
	[PROBE_COPY] = { "copy", "objects are copied by the store", false, false },
};

const char *probe_check_name(enum probe_check c)
{
	return checks[c].name;
}

const char *probe_check_title(enum probe_check c)
{
	return checks[c].title;
}

const char *probe_state_name(enum probe_state s)
{
	static const char *const names[] = { "not-tried", "holds", "fails" };

	return names[s];
}

static bool needed(enum probe_role role, int c)
{
	return role == PROBE_FOR_INDEX ? checks[c].index : checks[c].mail;
}

int probe_fails(const struct probe_result *r, enum probe_role role, const char *name, struct err *err)
{
	bool conditional;
	int c;

	for (c = 0; c < PROBE_N; c++) {
		if (!needed(role, c) || r->state[c] != PROBE_FAILS)
			continue;
		conditional = c >= PROBE_CREATE && c <= PROBE_MATCH_RACE;
		return err_set(err, ERR_INVALID, "%s: %.100s cannot be used: %.170s. %s", name, r->store, r->text[c],
			       conditional ? "Two servers could undo each other's changes there. Use a store with conditional writes (AWS S3, Ceph RGW), or driver = posix"
					   : "Use another store; culverctl store probe tells more");
	}
	return 0;
}

int probe_judge(const struct probe_result *r, enum probe_role role, const char *name, struct err *err)
{
	int c, rc = probe_fails(r, role, name, err);

	for (c = 0; c < PROBE_N && rc == 0; c++)
		if (needed(role, c) && r->state[c] != PROBE_HOLDS)
			rc = err_set(err, ERR_INVALID, "%s: %.200s: \"%s\" could not be tried: run culverctl store probe", name, r->store, checks[c].title);
	return rc;
}

static json_t *to_json(const struct probe_result *r)
{
	json_t *o = json_pack("{s:s, s:I, s:I, s:i, s:I, s:I}", "store", r->store, "time", (json_int_t)r->time, "caps", (json_int_t)r->caps,
			      "etag_form", (int)r->etag_form, "put_us", (json_int_t)r->put_us, "get_us", (json_int_t)r->get_us);
	json_t *all = json_object();
	int c;

	for (c = 0; c < PROBE_N; c++)
		json_object_set_new(all, checks[c].name, json_pack("{s:s, s:s}", "state", probe_state_name(r->state[c]), "text", r->text[c]));
	json_object_set_new(o, "checks", all);
	return o;
}

void probe_json(const struct probe_result *r, struct buf *out)
{
	json_t *o = to_json(r);
	char *text = json_dumps(o, JSON_COMPACT);

	buf_adds(out, text ? text : "{}");
	free(text);
	json_decref(o);
}

int probe_save(const struct probe_result *r, const char *path, struct err *err)
{
	char *tmp = mem_printf("%s.new", path);
	struct buf b = BUF_INIT(FILE_MAX);
	int fd = open(tmp, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600), rc;

	probe_json(r, &b);
	buf_addc(&b, '\n');
	rc = fd < 0 ? err_errno(err, "open", tmp) : io_write_full(fd, b.data, b.len, err);
	io_close(&fd);
	if (rc == 0 && rename(tmp, path) < 0)
		rc = err_errno(err, "rename", tmp);
	buf_free(&b);
	free(tmp);
	return rc;
}

static void text_of(const json_t *o, const char *name, char *out, size_t size)
{
	const char *s = json_string_value(json_object_get(o, name));

	snprintf(out, size, "%s", s ? s : "");
}

int probe_load(struct probe_result *r, const char *path, struct err *err)
{
	char *text = NULL, state[16];
	size_t len = 0;
	json_t *o, *one;
	int c, s;

	memset(r, 0, sizeof(*r));
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	if (io_read_file(path, FILE_MAX, &text, &len, err) < 0)
		return err ? err->code : ERR_IO;
	o = json_loadb(text, len, 0, NULL);
	free(text);
	if (!o)
		return 0;
	text_of(o, "store", r->store, sizeof(r->store));
	r->time = json_integer_value(json_object_get(o, "time"));
	r->caps = (unsigned)json_integer_value(json_object_get(o, "caps"));
	r->etag_form = (unsigned)json_integer_value(json_object_get(o, "etag_form"));
	r->put_us = (uint64_t)json_integer_value(json_object_get(o, "put_us"));
	r->get_us = (uint64_t)json_integer_value(json_object_get(o, "get_us"));
	for (c = 0; c < PROBE_N; c++) {
		one = json_object_get(json_object_get(o, "checks"), checks[c].name);
		text_of(one, "state", state, sizeof(state));
		text_of(one, "text", r->text[c], sizeof(r->text[c]));
		for (s = PROBE_NOT_TRIED; s <= PROBE_FAILS; s++)
			if (!strcmp(state, probe_state_name((enum probe_state)s)))
				r->state[c] = (enum probe_state)s;
	}
	json_decref(o);
	return 1;
}
