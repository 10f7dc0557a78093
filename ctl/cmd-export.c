/* culverctl export: mbox (mboxrd), Maildir++ or single messages.
 *
 * .eml files hold the bytes exactly.  mbox and Maildir have LF line ends, as
 * their readers expect, where a message has CRLF throughout. */
#include "ctl/ctl.h"

#include "base/io.h"
#include "base/mem.h"
#include "daemon/imap/utf7.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

struct export {
	struct ctl *c;
	const char *user, *path;
	enum { F_MBOX, F_MAILDIR, F_EML } format;
	json_int_t only_uid;
	uint64_t done, total;
	struct buf text, lf;
};

static int fetch_whole(struct export *ex, const char *mailbox, json_int_t uid, struct err *err)
{
	uint64_t off = 0, size = 0;
	json_t *line;
	int rc;

	buf_clear(&ex->text);
	do {
		rc = ctl_send(ex->c, json_pack("{s:s, s:s, s:s, s:I, s:I}", "op", "message.fetch", "user", ex->user, "mailbox", mailbox, "uid", uid,
					       "off", (json_int_t)off), NULL, 0, err);
		while (rc == 0 && (rc = ctl_next(ex->c, &line, err)) == 1) {
			json_int_t n = json_integer_value(json_object_get(line, "bytes"));
			void *room = buf_reserve(&ex->text, (size_t)n);

			size = (uint64_t)json_integer_value(json_object_get(line, "size"));
			rc = room ? ctl_bytes(ex->c, room, (size_t)n, err) : err_set(err, ERR_LIMIT, "message is too large");
			if (rc == 0)
				ex->text.len += (size_t)n;
			json_decref(line);
		}
		if (rc == 0)
			json_decref(line);
		if (rc == 0 && ex->text.len == off && off < size)
			rc = err_set(err, ERR_CORRUPT, "message ends early");
		off = ex->text.len;
	} while (rc == 0 && off < size);
	return rc;
}

/* The text with LF line ends, when every one of its is CRLF. */
static const struct buf *with_lf(struct export *ex)
{
	const char *p = buf_str(&ex->text), *end = p + ex->text.len, *nl;

	buf_clear(&ex->lf);
	for (; p < end; p = nl + 1) {
		nl = memchr(p, '\n', (size_t)(end - p));
		if (!nl) {
			buf_add(&ex->lf, p, (size_t)(end - p));
			break;
		}
		if (nl == p || nl[-1] != '\r')
			return &ex->text;
		buf_add(&ex->lf, p, (size_t)(nl - p) - 1);
		buf_addc(&ex->lf, '\n');
	}
	return &ex->lf;
}

static bool has_flag(json_t *msg, const char *name)
{
	json_t *v, *flags = json_object_get(msg, "flags");
	size_t i;

	json_array_foreach(flags, i, v)
		if (!strcmp(json_string_value(v), name))
			return true;
	return false;
}

/* --- mbox --- */

static void mbox_status(json_t *msg, struct buf *out)
{
	json_t *v, *kw = json_object_get(msg, "keywords");
	size_t i;

	buf_addf(out, "Status: %sO\n", has_flag(msg, "\\Seen") ? "R" : "");
	if (has_flag(msg, "\\Answered") || has_flag(msg, "\\Flagged") || has_flag(msg, "\\Draft") || has_flag(msg, "\\Deleted"))
		buf_addf(out, "X-Status: %s%s%s%s\n", has_flag(msg, "\\Answered") ? "A" : "", has_flag(msg, "\\Flagged") ? "F" : "",
			 has_flag(msg, "\\Draft") ? "T" : "", has_flag(msg, "\\Deleted") ? "D" : "");
	if (json_array_size(kw)) {
		buf_adds(out, "X-Keywords:");
		json_array_foreach(kw, i, v)
			buf_addf(out, " %s", json_string_value(v));
		buf_addc(out, '\n');
	}
}

static int write_mbox(struct export *ex, FILE *f, json_t *msg, const struct buf *text)
{
	time_t date = (time_t)json_integer_value(json_object_get(msg, "date"));
	const char *p = (const char *)text->data, *end = p + text->len;
	struct buf out = BUF_INIT(0);
	char when[40];
	struct tm tm;
	bool header = true;

	gmtime_r(&date, &tm);
	strftime(when, sizeof(when), "%a %b %e %H:%M:%S %Y", &tm);
	buf_addf(&out, "From MAILER-DAEMON %s\n", when);
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = nl ? (size_t)(nl - p) + 1 : (size_t)(end - p), k;

		if (header && (len == 1 || (len == 2 && *p == '\r'))) {
			mbox_status(msg, &out);
			header = false;
		}
		for (k = 0; k < len && p[k] == '>'; k++)
			;
		if (len - k > 5 && !memcmp(p + k, "From ", 5))
			buf_addc(&out, '>');
		buf_add(&out, p, len);
		p += len;
	}
	if (header)
		mbox_status(msg, &out);
	if (out.len && out.data[out.len - 1] != '\n')
		buf_addc(&out, '\n');
	buf_addc(&out, '\n');
	fwrite(out.data, 1, out.len, f);
	buf_free(&out);
	return ferror(f) ? -1 : 0;
}

/* --- files --- */

static int write_file(const char *path, const struct buf *text, int64_t date, struct err *err)
{
	struct timespec times[2] = { { .tv_sec = date }, { .tv_sec = date } };
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return err_errno(err, "create", path);
	rc = io_write_full(fd, text->data, text->len, err);
	futimens(fd, times);
	if (close(fd) < 0 && rc == 0)
		rc = err_errno(err, "close", path);
	return rc;
}

/* The name of a Maildir++ directory, without its first dot. */
static char *maildir_name(const char *name)
{
	struct buf b = BUF_INIT(0);
	size_t i;

	utf7_encode(name, strlen(name), &b);
	for (i = 0; i < b.len; i++)
		if (b.data[i] == '/')
			b.data[i] = '.';
	return buf_detach(&b);
}

struct maildir { char *dir; json_t *keywords; };

static int maildir_open(struct export *ex, const char *mailbox, struct maildir *md, struct err *err)
{
	static const char *const subs[] = { "cur", "new", "tmp" };
	char *name = maildir_name(mailbox);
	size_t i;
	int rc = 0;

	md->dir = strcmp(mailbox, "INBOX") ? mem_printf("%s/.%s", ex->path, name) : mem_strdup(ex->path);
	md->keywords = json_array();
	free(name);
	for (i = 0; i < MEM_COUNT(subs) && rc == 0; i++) {
		char *sub = mem_printf("%s/%s", md->dir, subs[i]);

		rc = io_mkdirs(sub, 0700, err);
		free(sub);
	}
	return rc;
}

static int letter_of(struct maildir *md, const char *keyword)
{
	json_t *v;
	size_t i;

	json_array_foreach(md->keywords, i, v)
		if (!strcmp(json_string_value(v), keyword))
			return 'a' + (int)i;
	if (json_array_size(md->keywords) == 26)
		return 0;
	json_array_append_new(md->keywords, json_string(keyword));
	return 'a' + (int)json_array_size(md->keywords) - 1;
}

static int maildir_add(struct export *ex, struct maildir *md, json_t *msg, const struct buf *text, struct err *err)
{
	json_t *v, *kw = json_object_get(msg, "keywords");
	int64_t date = json_integer_value(json_object_get(msg, "date"));
	struct buf path = BUF_INIT(0);
	size_t i;
	int rc;

	buf_addf(&path, "%s/cur/%" PRId64 ".U%lld.culver,S=%zu:2,%s%s%s%s%s", md->dir, date,
		 (long long)json_integer_value(json_object_get(msg, "uid")), text->len, has_flag(msg, "\\Draft") ? "D" : "",
		 has_flag(msg, "\\Flagged") ? "F" : "", has_flag(msg, "\\Answered") ? "R" : "", has_flag(msg, "\\Seen") ? "S" : "",
		 has_flag(msg, "\\Deleted") ? "T" : "");
	json_array_foreach(kw, i, v) {
		int letter = letter_of(md, json_string_value(v));

		if (letter)
			buf_addc(&path, letter);
	}
	rc = write_file(buf_str(&path), text, date, err);
	buf_free(&path);
	return rc;
}

static int maildir_close(struct maildir *md, struct err *err)
{
	struct buf b = BUF_INIT(0);
	char *path = mem_printf("%s/dovecot-keywords", md->dir);
	json_t *v;
	size_t i;
	int rc = 0;

	json_array_foreach(md->keywords, i, v)
		buf_addf(&b, "%zu %s\n", i, json_string_value(v));
	if (b.len) {
		unlink(path);
		rc = write_file(path, &b, 0, err);
	}
	buf_free(&b);
	free(path);
	free(md->dir);
	json_decref(md->keywords);
	return rc;
}

/* --- mailboxes --- */

static int list_messages(struct export *ex, const char *mailbox, json_t *out, struct err *err)
{
	json_int_t uid = 1;
	json_t *line;
	size_t n;
	int rc;

	do {
		rc = ctl_send(ex->c, json_pack("{s:s, s:s, s:s, s:I}", "op", "message.list", "user", ex->user, "mailbox", mailbox, "uid", uid), NULL, 0, err);
		for (n = 0; rc == 0 && (rc = ctl_next(ex->c, &line, err)) == 1; n++) {
			uid = json_integer_value(json_object_get(line, "uid")) + 1;
			json_array_append_new(out, line);
			rc = 0;
		}
		if (rc == 0)
			json_decref(line);
	} while (rc == 0 && n);
	return rc;
}

static int export_message(struct export *ex, const char *mailbox, json_t *msg, FILE *mbox, struct maildir *md, struct err *err)
{
	json_int_t uid = json_integer_value(json_object_get(msg, "uid"));
	char *path;
	int rc = fetch_whole(ex, mailbox, uid, err);

	if (rc < 0)
		return rc;
	if (ex->format == F_MBOX)
		rc = write_mbox(ex, mbox, msg, with_lf(ex)) < 0 ? err_errno(err, "write", ex->path) : 0;
	else if (ex->format == F_MAILDIR)
		rc = maildir_add(ex, md, msg, with_lf(ex), err);
	else if (ex->only_uid) {
		rc = write_file(ex->path, &ex->text, json_integer_value(json_object_get(msg, "date")), err);
	} else {
		path = mem_printf("%s/%lld.eml", ex->path, (long long)uid);
		rc = write_file(path, &ex->text, json_integer_value(json_object_get(msg, "date")), err);
		free(path);
	}
	ex->done += rc == 0;
	ctl_progress(ex->c, "export", ex->done, ex->total);
	return rc;
}

static int export_mailbox(struct export *ex, const char *mailbox, FILE *mbox, struct err *err)
{
	struct maildir md = { NULL, NULL };
	json_t *list = json_array(), *msg;
	size_t i;
	int rc = list_messages(ex, mailbox, list, err);

	if (rc == 0 && ex->format == F_MAILDIR)
		rc = maildir_open(ex, mailbox, &md, err);
	if (rc == 0 && ex->format == F_EML && !ex->only_uid)
		rc = io_mkdirs(ex->path, 0700, err);
	ex->total += ex->only_uid ? 1 : json_array_size(list);
	json_array_foreach(list, i, msg) {
		if (rc < 0)
			break;
		if (ex->only_uid && json_integer_value(json_object_get(msg, "uid")) != ex->only_uid)
			continue;
		rc = export_message(ex, mailbox, msg, mbox, &md, err);
	}
	if (rc == 0 && ex->only_uid && !ex->done)
		rc = err_set(err, ERR_NOTFOUND, "mailbox has no message with UID %lld", (long long)ex->only_uid);
	if (md.dir && maildir_close(&md, err) < 0 && rc == 0)
		rc = err->code;
	json_decref(list);
	return rc;
}

static int export_all(struct export *ex, struct err *err)
{
	json_t *names = json_array(), *line, *v;
	size_t i;
	int rc = ctl_send(ex->c, json_pack("{s:s, s:s}", "op", "mailbox.list", "user", ex->user), NULL, 0, err);

	while (rc == 0 && (rc = ctl_next(ex->c, &line, err)) == 1) {
		if (json_is_true(json_object_get(line, "exists")))
			json_array_append(names, json_object_get(line, "mailbox"));
		json_decref(line);
		rc = 0;
	}
	if (rc == 0)
		json_decref(line);
	json_array_foreach(names, i, v) {
		if (rc < 0)
			break;
		rc = export_mailbox(ex, json_string_value(v), NULL, err);
	}
	json_decref(names);
	return rc;
}

static int run(struct export *ex, const char *mailbox, struct err *err)
{
	FILE *f = NULL;
	int rc;

	if (ex->format == F_MAILDIR && !mailbox)
		return export_all(ex, err);
	if (ex->format == F_MBOX) {
		f = strcmp(ex->path, "-") ? fopen(ex->path, "wxe") : stdout;
		if (!f)
			return err_errno(err, "create", ex->path);
	}
	rc = export_mailbox(ex, mailbox ? mailbox : "INBOX", f, err);
	if (f && (f == stdout ? fflush(f) : fclose(f)) != 0 && rc == 0)
		rc = err_errno(err, "write", ex->path);
	return rc;
}

int cmd_export(struct ctl *c)
{
	static const char usage[] = "export USER PATH [--mailbox NAME] [--format mbox|maildir|eml] [--uid N]";
	const char *mailbox = ctl_option(c, "--mailbox"), *format = ctl_option(c, "--format"), *uid = ctl_option(c, "--uid");
	struct export ex = { .c = c };
	struct err err = ERR_INIT;
	int rc;

	if (!ctl_words(c, 2, 2, usage))
		return CTL_USAGE;
	ex.user = c->argv[0];
	ex.path = c->argv[1];
	buf_init(&ex.text, 1 << 30);
	buf_init(&ex.lf, 1 << 30);
	ex.only_uid = uid ? strtoll(uid, NULL, 10) : 0;
	if (!format)
		format = uid ? "eml" : "mbox";
	ex.format = !strcmp(format, "maildir") ? F_MAILDIR : !strcmp(format, "eml") ? F_EML : F_MBOX;
	if (ex.format == F_MBOX && strcmp(format, "mbox") != 0) {
		fprintf(stderr, "culverctl: unknown format \"%s\": mbox, maildir or eml\n", format);
		return CTL_USAGE;
	}
	rc = run(&ex, mailbox, &err);
	ctl_progress_end(c);
	buf_free(&ex.text);
	buf_free(&ex.lf);
	if (c->json)
		printf("{\"messages\":%" PRIu64 ",\"done\":%s}\n", ex.done, rc == 0 ? "true" : "false");
	else if (!c->quiet && strcmp(ex.path, "-") != 0)
		printf("%" PRIu64 " messages exported\n", ex.done);
	return rc < 0 ? ctl_fail(&err) : CTL_OK;
}
