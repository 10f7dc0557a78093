/* culverctl mailbox, fetch. */
#include "ctl/ctl.h"

#include "base/mem.h"
#include "mime/mime.h"

#include <inttypes.h>
#include <unistd.h>

static const char *str(json_t *line, const char *key)
{
	const char *s = json_string_value(json_object_get(line, key));

	return s ? s : "";
}

static json_int_t num(json_t *line, const char *key)
{
	return json_integer_value(json_object_get(line, key));
}

static char *joined(json_t *list, const char *sep)
{
	struct buf b = BUF_INIT(0);
	size_t i;

	for (i = 0; i < json_array_size(list); i++) {
		if (i)
			buf_adds(&b, sep);
		buf_adds(&b, json_string_value(json_array_get(list, i)));
	}
	return buf_detach(&b);
}

static void print_mailbox(struct ctl *c, json_t *line, bool head)
{
	char size[16], *uses;

	if (c->json) {
		ctl_print(c, line);
		return;
	}
	if (head)
		printf("%8s %8s %10s %10s  %s\n", "messages", "unseen", "size", "uidnext", "mailbox");
	uses = joined(json_object_get(line, "special_use"), " ");
	if (json_is_false(json_object_get(line, "exists")))
		printf("%8s %8s %10s %10s  %s (no mailbox)\n", "-", "-", "-", "-", str(line, "mailbox"));
	else
		printf("%8lld %8lld %10s %10lld  %s%s%s\n", (long long)num(line, "messages"), (long long)num(line, "unseen"),
		       ctl_size((uint64_t)num(line, "size"), size), (long long)num(line, "uidnext"), str(line, "mailbox"), *uses ? "  " : "", uses);
	free(uses);
}

static int list(struct ctl *c, const char *user, struct err *err)
{
	json_t *line;
	bool head = true;
	int rc = ctl_send(c, json_pack("{s:s, s:s}", "op", "mailbox.list", "user", user), NULL, 0, err);

	while (rc == 0 && (rc = ctl_next(c, &line, err)) == 1) {
		print_mailbox(c, line, head);
		head = false;
		json_decref(line);
		rc = 0;
	}
	if (rc == 0)
		json_decref(line);
	return rc;
}

int cmd_mailbox(struct ctl *c)
{
	static const struct { const char *verb, *op; int words; } verbs[] = {
		{ "list", "mailbox.list", 2 }, { "status", "mailbox.status", 3 }, { "create", "mailbox.create", 3 }, { "delete", "mailbox.delete", 3 },
		{ "subscribe", "mailbox.subscribe", 3 }, { "unsubscribe", "mailbox.subscribe", 3 }, { "rename", "mailbox.rename", 4 },
	};
	static const char usage[] = "mailbox list USER | status|create|delete|subscribe|unsubscribe USER MAILBOX | rename USER FROM TO [--special-use USE]";
	const char *special = ctl_option(c, "--special-use");
	struct err err = ERR_INIT;
	json_t *req, *last = NULL;
	size_t i;
	int rc;

	if (!ctl_words(c, 2, 4, usage))
		return CTL_USAGE;
	for (i = 0; i < MEM_COUNT(verbs) && strcmp(c->argv[0], verbs[i].verb) != 0; i++)
		;
	if (i == MEM_COUNT(verbs) || c->argc != verbs[i].words) {
		fprintf(stderr, "usage: culverctl %s\n", usage);
		return CTL_USAGE;
	}
	if (i == 0) {
		rc = list(c, c->argv[1], &err);
		return rc < 0 ? ctl_fail(&err) : CTL_OK;
	}
	req = json_pack("{s:s, s:s, s:s}", "op", verbs[i].op, "user", c->argv[1], "mailbox", c->argv[2]);
	if (req && c->argc == 4)
		json_object_set_new(req, "to", json_string(c->argv[3]));
	if (req && special)
		json_object_set_new(req, "special_use", json_string(special));
	if (req)
		json_object_set_new(req, "on", json_boolean(i == 4));
	rc = ctl_call(c, req, &last, &err);
	if (rc < 0)
		return ctl_fail(&err);
	if (c->json)
		ctl_print(c, last);
	else if (i == 1)
		print_mailbox(c, last, true);
	json_decref(last);
	return CTL_OK;
}

/* --- fetch --- */

static int list_messages(struct ctl *c, const char *user, const char *mailbox, struct err *err)
{
	json_int_t uid = 1;
	json_t *line;
	size_t n;
	int rc = 0;

	do {
		rc = ctl_send(c, json_pack("{s:s, s:s, s:s, s:I}", "op", "message.list", "user", user, "mailbox", mailbox, "uid", uid), NULL, 0, err);
		for (n = 0; rc == 0 && (rc = ctl_next(c, &line, err)) == 1; n++) {
			char size[16], when[32], *flags = joined(json_object_get(line, "flags"), " "), *kw = joined(json_object_get(line, "keywords"), " ");

			if (c->json)
				ctl_print(c, line);
			else
				printf("%10lld %10s  %s  %s%s%s\n", (long long)num(line, "uid"), ctl_size((uint64_t)num(line, "size"), size),
				       ctl_time(num(line, "date"), when), flags, *kw ? " " : "", kw);
			uid = num(line, "uid") + 1;
			free(flags);
			free(kw);
			json_decref(line);
			rc = 0;
		}
		if (rc == 0)
			json_decref(line);
	} while (rc == 0 && n);
	return rc;
}

static enum mime_encoding encoding_of(const char *name)
{
	if (!strcmp(name, "base64"))
		return MIME_BASE64;
	return !strcmp(name, "quoted-printable") ? MIME_QP : !strcmp(name, "x-uuencode") ? MIME_UUENCODE : MIME_BINARY;
}

/* One piece of at most 1 MiB; its size in *n, the whole in *size. */
static int fetch_piece(struct ctl *c, json_t *base, uint64_t off, struct buf *out, uint64_t *size, char enc[32], struct err *err)
{
	json_t *req = json_deep_copy(base), *line;
	json_int_t n = 0;
	int rc;

	json_object_set_new(req, "off", json_integer((json_int_t)off));
	rc = ctl_send(c, req, NULL, 0, err);
	while (rc == 0 && (rc = ctl_next(c, &line, err)) == 1) {
		*size = (uint64_t)num(line, "size");
		n = num(line, "bytes");
		snprintf(enc, 32, "%s", str(line, "encoding"));
		buf_clear(out);
		rc = buf_reserve(out, (size_t)n) ? ctl_bytes(c, out->data, (size_t)n, err) : err_set(err, ERR_LIMIT, "answer is too large");
		out->len = rc == 0 ? (size_t)n : 0;
		json_decref(line);
	}
	if (rc == 0)
		json_decref(line);
	return rc;
}

static int write_out(const struct buf *b, struct err *err)
{
	return fwrite(b->data, 1, b->len, stdout) == b->len ? 0 : err_errno(err, "write", NULL);
}

static int fetch_bytes(struct ctl *c, json_t *base, bool decode, struct err *err)
{
	struct buf piece = BUF_INIT(4 << 20), plain = BUF_INIT(16 << 20);
	struct mime_cte *cte = NULL;
	uint64_t off = 0, size = 0;
	char enc[32] = "";
	int rc;

	do {
		rc = fetch_piece(c, base, off, &piece, &size, enc, err);
		off += piece.len;
		if (rc == 0 && decode) {
			if (!cte)
				cte = mime_cte_new(encoding_of(enc));
			buf_clear(&plain);
			mime_cte_feed(cte, piece.data, piece.len, &plain);
			if (off == size)
				mime_cte_finish(cte, &plain);
			rc = write_out(&plain, err);
		} else if (rc == 0) {
			rc = write_out(&piece, err);
		}
	} while (rc == 0 && off < size && piece.len);
	mime_cte_free(&cte);
	buf_free(&piece);
	buf_free(&plain);
	return rc;
}

int cmd_fetch(struct ctl *c)
{
	const char *part = ctl_option(c, "--part");
	bool decode = ctl_flag(c, "--decode");
	struct err err = ERR_INIT;
	json_t *req, *last;
	int rc;

	if (!ctl_words(c, 2, 3, "fetch USER MAILBOX [UID] [--part N.N] [--decode] [--json]"))
		return CTL_USAGE;
	if (c->argc == 2) {
		rc = list_messages(c, c->argv[0], c->argv[1], &err);
		return rc < 0 ? ctl_fail(&err) : CTL_OK;
	}
	req = json_pack("{s:s, s:s, s:s, s:I}", "op", c->json ? "message.info" : "message.fetch", "user", c->argv[0], "mailbox", c->argv[1],
			"uid", (json_int_t)strtoull(c->argv[2], NULL, 10));
	if (!req)
		return CTL_USAGE;
	if (c->json) {
		rc = ctl_call(c, req, &last, &err);
		if (rc == 0) {
			ctl_print(c, last);
			json_decref(last);
		}
	} else {
		if (part)
			json_object_set_new(req, "part", json_string(part));
		rc = fetch_bytes(c, req, decode && part, &err);
		json_decref(req);
	}
	return rc < 0 ? ctl_fail(&err) : CTL_OK;
}
