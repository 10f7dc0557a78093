/* culverctl import: mbox, Maildir and Maildir++, single messages.
 *
 * Mail in files mostly has bare LF line ends; it is stored with CRLF, as it
 * would be sent, unless --exact asks for the bytes as they are. */
#include "ctl/ctl.h"

#include "base/io.h"
#include "base/mem.h"
#include "daemon/imap/utf7.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MESSAGE_MAX = 1 << 30 };

struct import {
	struct ctl *c;
	const char *user;
	bool exact;
	uint64_t done, total, failed;
	struct buf crlf;
};

struct one {
	const char *mailbox;
	json_t *flags, *keywords;	/* borrowed */
	int64_t date;			/* INT64_MIN: now */
	const char *what;		/* for complaints */
};

/* Bare LF to CRLF, when the text has no CRLF at all. */
static void to_crlf(const char *p, size_t len, struct buf *out)
{
	const char *end = p + len, *nl;

	buf_clear(out);
	for (; p < end; p = nl + 1) {
		nl = memchr(p, '\n', (size_t)(end - p));
		if (!nl) {
			buf_add(out, p, (size_t)(end - p));
			break;
		}
		buf_add(out, p, (size_t)(nl - p));
		buf_add(out, "\r\n", 2);
	}
}

static bool has_crlf(const char *p, size_t len)
{
	const char *nl = memchr(p, '\n', len);

	return nl && nl > p && nl[-1] == '\r';
}

static int append(struct import *im, const struct one *o, const char *text, size_t len, struct err *err)
{
	json_t *req, *line;
	int rc;

	if (!im->exact && !has_crlf(text, len)) {
		to_crlf(text, len, &im->crlf);
		if (im->crlf.failed)
			return err_set(err, ERR_LIMIT, "%s: message is too large", o->what);
		text = (char *)im->crlf.data;
		len = im->crlf.len;
	}
	req = json_pack("{s:s, s:s, s:s, s:I, s:b}", "op", "message.append", "user", im->user, "mailbox", o->mailbox, "size", (json_int_t)len, "create", 1);
	if (req && o->flags)
		json_object_set(req, "flags", o->flags);
	if (req && o->keywords)
		json_object_set(req, "keywords", o->keywords);
	if (req && o->date != INT64_MIN)
		json_object_set_new(req, "date", json_integer(o->date));
	rc = ctl_send(im->c, req, text, len, err);
	while (rc == 0 && (rc = ctl_next(im->c, &line, err)) == 1) {
		json_decref(line);
		rc = 0;
	}
	if (rc == 0)
		json_decref(line);
	if (rc < 0)
		err_prefix(err, "%s", o->what);
	else
		im->done++;
	ctl_progress(im->c, "import", im->done, im->total);
	return rc;
}

/* A whole file mapped; *p_r is NULL for an empty one. */
static int map_file(const char *path, const char **p_r, size_t *len_r, struct stat *st, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	void *p = NULL;

	if (fd < 0 || fstat(fd, st) < 0)
		rc = err_errno(err, "open", path);
	else if (!S_ISREG(st->st_mode))
		rc = err_set(err, ERR_INVALID, "%s is not a file", path);
	else if (st->st_size > 0) {
		p = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED)
			rc = err_errno(err, "map", path);
	}
	io_close(&fd);
	*p_r = rc == 0 ? p : NULL;
	*len_r = rc == 0 ? (size_t)st->st_size : 0;
	return rc;
}

static void unmap(const char *p, size_t len)
{
	if (p)
		munmap((void *)(uintptr_t)p, len);
}

static int import_eml(struct import *im, const char *path, const char *mailbox, struct err *err)
{
	struct one o = { .mailbox = mailbox, .date = INT64_MIN, .what = path };
	struct stat st;
	const char *p;
	size_t len;
	int rc = map_file(path, &p, &len, &st, err);

	if (rc == 0)
		rc = append(im, &o, p ? p : "", len, err);
	unmap(p, len);
	return rc;
}

/* --- mbox --- */

static size_t line_len(const char *p, const char *end)
{
	const char *nl = memchr(p, '\n', (size_t)(end - p));

	return nl ? (size_t)(nl - p) + 1 : (size_t)(end - p);
}

static bool is_from(const char *p, const char *end)
{
	return end - p > 5 && !memcmp(p, "From ", 5);
}

/* "From address Sat Jan  3 01:05:34 1996": the date, or INT64_MIN. */
static int64_t from_date(const char *p, const char *end)
{
	size_t len = line_len(p, end);
	char line[200], *d;
	struct tm tm = { 0 };

	snprintf(line, sizeof(line), "%.*s", (int)(len < sizeof(line) ? len : sizeof(line) - 1), p);
	d = strchr(line + 5, ' ');
	return d && strptime(d, " %a %b %d %H:%M:%S %Y", &tm) ? (int64_t)timegm(&tm) : INT64_MIN;
}

/* The value of a header field within [p, end), or NULL. */
static const char *field(const char *p, const char *end, const char *name, size_t *len)
{
	size_t n = strlen(name), l;

	for (; p < end; p += l) {
		l = line_len(p, end);
		if (l <= 2 && (*p == '\n' || *p == '\r'))
			return NULL;
		if (l > n && !strncasecmp(p, name, n) && p[n] == ':') {
			p += n + 1;
			l -= n + 1;
			while (l && (*p == ' ' || *p == '\t'))
				p++, l--;
			while (l && (p[l - 1] == '\n' || p[l - 1] == '\r' || p[l - 1] == ' '))
				l--;
			*len = l;
			return p;
		}
	}
	return NULL;
}

/* Where the message that begins at p (behind its From line) ends. */
static const char *message_end(const char *p, const char *end)
{
	const char *v, *body = p, *q;
	bool blank = false;
	size_t len, l;

	v = field(p, end, "Content-Length", &len);
	if (v) {	/* trusted only when a From line or the end of the file stands there */
		unsigned long long n = strtoull(v, NULL, 10);

		for (; body < end; body += l) {
			l = line_len(body, end);
			if (l <= 2 && (*body == '\n' || *body == '\r')) {
				body += l;
				break;
			}
		}
		if (n <= (unsigned long long)(end - body)) {
			q = body + n;
			while (q < end && (*q == '\n' || *q == '\r'))
				q++;
			if (q == end || is_from(q, end))
				return body + n;
		}
	}
	for (q = p; q < end; q += l) {
		l = line_len(q, end);
		if (blank && is_from(q, end))
			return q;
		blank = l <= 2 && (*q == '\n' || *q == '\r');
	}
	return end;
}

/* ">From " loses one mark (mboxrd); the blank line before the next From line goes. */
static void unquote(const char *p, const char *end, bool last, struct buf *out)
{
	size_t l, k;

	if (!last && end - p >= 1 && end[-1] == '\n')
		end -= end - p >= 2 && end[-2] == '\r' ? 2 : 1;
	for (; p < end; p += l) {
		l = line_len(p, end);
		for (k = 0; k < l && p[k] == '>'; k++)
			;
		if (k && is_from(p + k, end))
			buf_add(out, p + 1, l - 1);
		else
			buf_add(out, p, l);
	}
}

static void add_flag(json_t *flags, const char *letters, size_t len, char letter, const char *name)
{
	if (letters && memchr(letters, letter, len))
		json_array_append_new(flags, json_string(name));
}

/* Status, X-Status and X-Keywords, as mutt, Dovecot and others write them. */
static void mbox_flags(const char *p, const char *end, json_t *flags, json_t *keywords)
{
	const char *v;
	size_t len, n;

	v = field(p, end, "Status", &len);
	add_flag(flags, v, v ? len : 0, 'R', "\\Seen");
	v = field(p, end, "X-Status", &len);
	add_flag(flags, v, v ? len : 0, 'A', "\\Answered");
	add_flag(flags, v, v ? len : 0, 'F', "\\Flagged");
	add_flag(flags, v, v ? len : 0, 'T', "\\Draft");
	add_flag(flags, v, v ? len : 0, 'D', "\\Deleted");
	for (v = field(p, end, "X-Keywords", &len); v && len; v += n, len -= n) {
		for (n = 0; n < len && v[n] != ' ' && v[n] != ','; n++)
			;
		if (n)
			json_array_append_new(keywords, json_stringn(v, n));
		else
			n = 1;
	}
}

static int import_mbox(struct import *im, const char *path, const char *mailbox, struct err *err)
{
	const char *p, *end, *at, *stop;
	struct buf text = BUF_INIT(MESSAGE_MAX);
	struct stat st;
	size_t len;
	int rc = map_file(path, &p, &len, &st, err), n = 0;

	for (at = p, end = p ? p + len : NULL; rc == 0 && at && at < end; at = stop) {
		struct one o = { .mailbox = mailbox, .date = INT64_MIN, .flags = json_array(), .keywords = json_array() };
		char what[512];

		snprintf(what, sizeof(what), "%s: message %d", path, ++n);
		o.what = what;
		if (is_from(at, end)) {
			o.date = from_date(at, end);
			at += line_len(at, end);
		}
		stop = message_end(at, end);
		buf_clear(&text);
		unquote(at, stop, stop == end, &text);
		mbox_flags(at, stop, o.flags, o.keywords);
		rc = append(im, &o, buf_str(&text), text.len, err);
		json_decref(o.flags);
		json_decref(o.keywords);
		while (stop < end && !is_from(stop, end))	/* blank lines behind a counted body */
			stop += line_len(stop, end);
	}
	unmap(p, len);
	buf_free(&text);
	return rc;
}

/* --- Maildir --- */

struct keyword_names { char *name[26]; };

/* Dovecot's "dovecot-keywords": "0 $Label1"; number n is the letter 'a' + n. */
static void read_keywords(const char *dir, struct keyword_names *k)
{
	char *path = mem_printf("%s/dovecot-keywords", dir), *text = NULL, *line, *save;
	size_t len;

	memset(k, 0, sizeof(*k));
	if (io_read_file(path, 1 << 20, &text, &len, NULL) == 0) {
		for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
			char *end;
			unsigned long n = strtoul(line, &end, 10);

			if (*end == ' ' && n < 26 && !k->name[n])
				k->name[n] = mem_strdup(end + 1);
		}
	}
	free(text);
	free(path);
}

static void maildir_flags(const char *name, const struct keyword_names *k, json_t *flags, json_t *keywords)
{
	const char *info = strstr(name, ":2,"), *p;

	if (!info)
		return;
	info += 3;
	add_flag(flags, info, strlen(info), 'S', "\\Seen");
	add_flag(flags, info, strlen(info), 'R', "\\Answered");
	add_flag(flags, info, strlen(info), 'F', "\\Flagged");
	add_flag(flags, info, strlen(info), 'T', "\\Deleted");
	add_flag(flags, info, strlen(info), 'D', "\\Draft");
	for (p = info; *p; p++) {
		if (*p == 'P')
			json_array_append_new(keywords, json_string("$Forwarded"));
		else if (*p >= 'a' && *p <= 'z' && k->name[*p - 'a'])
			json_array_append_new(keywords, json_string(k->name[*p - 'a']));
	}
}

struct file { char *path, *name; struct timespec mtime; };

static int by_time(const void *a, const void *b)
{
	const struct file *x = a, *y = b;

	if (x->mtime.tv_sec != y->mtime.tv_sec)
		return x->mtime.tv_sec < y->mtime.tv_sec ? -1 : 1;
	if (x->mtime.tv_nsec != y->mtime.tv_nsec)
		return x->mtime.tv_nsec < y->mtime.tv_nsec ? -1 : 1;
	return strcmp(x->name, y->name);
}

static void list_files(const char *dir, const char *sub, struct file **list, size_t *n, size_t *cap)
{
	char *path = mem_printf("%s/%s", dir, sub);
	DIR *d = opendir(path);
	struct dirent *de;
	struct stat st;

	while (d && (de = readdir(d)) != NULL) {
		if (de->d_name[0] == '.' || fstatat(dirfd(d), de->d_name, &st, 0) < 0 || !S_ISREG(st.st_mode))
			continue;
		mem_grow(list, cap, *n + 1, sizeof(**list));
		(*list)[(*n)++] = (struct file){ mem_printf("%s/%s", path, de->d_name), mem_strdup(de->d_name), st.st_mtim };
	}
	if (d)
		closedir(d);
	free(path);
}

static int import_file(struct import *im, const struct file *f, const struct keyword_names *k, const char *mailbox, struct err *err)
{
	struct one o = { .mailbox = mailbox, .date = f->mtime.tv_sec, .flags = json_array(), .keywords = json_array(), .what = f->path };
	struct stat st;
	const char *p;
	size_t len;
	int rc = map_file(f->path, &p, &len, &st, err);

	maildir_flags(f->name, k, o.flags, o.keywords);
	if (rc == 0)
		rc = append(im, &o, p ? p : "", len, err);
	unmap(p, len);
	json_decref(o.flags);
	json_decref(o.keywords);
	return rc;
}

static int import_folder(struct import *im, const char *dir, const char *mailbox, struct err *err)
{
	struct keyword_names k;
	struct file *list = NULL;
	size_t n = 0, cap = 0, i;
	int rc = 0;

	read_keywords(dir, &k);
	list_files(dir, "cur", &list, &n, &cap);
	list_files(dir, "new", &list, &n, &cap);
	if (n)
		qsort(list, n, sizeof(*list), by_time);
	im->total += n;
	for (i = 0; i < n; i++) {
		if (rc == 0)
			rc = import_file(im, &list[i], &k, mailbox, err);
		free(list[i].path);
		free(list[i].name);
	}
	free(list);
	for (i = 0; i < 26; i++)
		free(k.name[i]);
	if (rc == 0 && !n) {	/* an empty folder is a mailbox too */
		rc = ctl_call(im->c, json_pack("{s:s, s:s, s:s}", "op", "mailbox.create", "user", im->user, "mailbox", mailbox), NULL, err);
		if (rc == ERR_EXISTS) {
			err_clear(err);
			rc = 0;
		}
	}
	return rc;
}

/* A Maildir++ directory name without its first dot, in modified UTF-7; what is not is taken as it is. */
static char *folder_name(const char *base, const char *name)
{
	struct buf b = BUF_INIT(0);
	size_t i, start;

	if (strcasecmp(base, "INBOX") != 0)
		buf_addf(&b, "%s/", base);
	start = b.len;
	if (utf7_decode(name, strlen(name), &b) < 0) {
		buf_truncate(&b, start);
		buf_adds(&b, name);
	}
	for (i = start; i < b.len; i++)
		if (b.data[i] == '.')
			b.data[i] = '/';
	return buf_detach(&b);
}

static int import_maildir(struct import *im, const char *path, const char *mailbox, struct err *err)
{
	int rc = import_folder(im, path, mailbox, err);
	DIR *d = opendir(path);
	struct dirent *de;
	struct stat st;

	while (rc == 0 && d && (de = readdir(d)) != NULL) {
		char *dir, *cur, *name;

		if (de->d_name[0] != '.' || !de->d_name[1] || !strcmp(de->d_name, ".."))
			continue;
		dir = mem_printf("%s/%s", path, de->d_name);
		cur = mem_printf("%s/cur", dir);
		if (stat(cur, &st) == 0 && S_ISDIR(st.st_mode)) {
			name = folder_name(mailbox, de->d_name + 1);
			rc = import_folder(im, dir, name, err);
			free(name);
		}
		free(cur);
		free(dir);
	}
	if (d)
		closedir(d);
	return rc;
}

/* --- the command --- */

static const char *guess(const char *path, struct err *err)
{
	char *cur = mem_printf("%s/cur", path), head[5] = "";
	struct stat st;
	bool maildir = stat(cur, &st) == 0 && S_ISDIR(st.st_mode);
	int fd;

	free(cur);
	if (maildir)
		return "maildir";
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		err_errno(err, "open", path);
		io_close(&fd);
		return NULL;
	}
	if (S_ISDIR(st.st_mode)) {
		close(fd);
		err_set(err, ERR_INVALID, "%s is a directory without cur/: not a Maildir", path);
		return NULL;
	}
	(void)!read(fd, head, sizeof(head));
	close(fd);
	return !memcmp(head, "From ", 5) ? "mbox" : "eml";
}

int cmd_import(struct ctl *c)
{
	static const char usage[] = "import USER PATH [--mailbox NAME] [--format mbox|maildir|eml] [--exact]";
	const char *mailbox = ctl_option(c, "--mailbox"), *format = ctl_option(c, "--format");
	struct import im = { .c = c, .exact = ctl_flag(c, "--exact") };
	struct err err = ERR_INIT;
	int rc;

	if (!ctl_words(c, 2, 2, usage))
		return CTL_USAGE;
	im.user = c->argv[0];
	buf_init(&im.crlf, MESSAGE_MAX);
	if (!mailbox)
		mailbox = "INBOX";
	if (!format)
		format = guess(c->argv[1], &err);
	if (!format)
		return ctl_fail(&err);
	if (!strcmp(format, "maildir"))
		rc = import_maildir(&im, c->argv[1], mailbox, &err);
	else if (!strcmp(format, "mbox"))
		rc = import_mbox(&im, c->argv[1], mailbox, &err);
	else if (!strcmp(format, "eml"))
		rc = import_eml(&im, c->argv[1], mailbox, &err);
	else
		rc = err_set(&err, ERR_INVALID, "unknown format \"%s\": mbox, maildir or eml", format);
	ctl_progress_end(c);
	buf_free(&im.crlf);
	if (c->json)
		printf("{\"messages\":%" PRIu64 ",\"done\":%s}\n", im.done, rc == 0 ? "true" : "false");
	else if (!c->quiet)
		printf("%" PRIu64 " messages imported\n", im.done);
	return rc < 0 ? ctl_fail(&err) : CTL_OK;
}
