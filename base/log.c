#include "base/log.h"

#include "base/buf.h"

#include <inttypes.h>
#include <unistd.h>

enum { LOG_LINE_MAX = 8192 };

static const char *const level_names[] = { "debug", "info", "warn", "error" };

static struct {
	char role[32];
	enum log_level min;
	enum log_format format;
	int fd, syslog_fd;
} L = { "culver", LOG_INF, LOG_FMT_TEXT, 2, -1 };

static __thread const char *session_id;

void log_init(const char *role, enum log_level min, enum log_format format)
{
	snprintf(L.role, sizeof(L.role), "%s", role);
	L.min = min;
	L.format = format;
}

void log_set_fd(int fd)
{
	L.fd = fd;
}

void log_set_syslog(int fd)
{
	L.syslog_fd = fd;
}

void log_set_level(enum log_level min)
{
	L.min = min;
}

void log_set_session(const char *id)
{
	session_id = id;
}

bool log_enabled(enum log_level level)
{
	return level >= L.min;
}

int log_level_parse(const char *name, enum log_level *out_r)
{
	unsigned i;

	for (i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (!strcmp(name, level_names[i])) {
			*out_r = (enum log_level)i;
			return 0;
		}
	}
	return -1;
}

static void add_quoted(struct buf *b, const char *s)
{
	buf_addc(b, '"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\') {
			buf_addc(b, '\\');
			buf_addc(b, c);
		} else if (c == '\n') {
			buf_adds(b, "\\n");
		} else if (c < 0x20 || c == 0x7f) {
			buf_addf(b, "\\u%04x", c);
		} else {
			buf_addc(b, c);
		}
	}
	buf_addc(b, '"');
}

static void add_value(struct buf *b, const struct log_field *f, bool json)
{
	if (!f->s) {
		if (f->is_unsigned)
			buf_addu(b, (uint64_t)f->n);
		else
			buf_addf(b, "%" PRId64, f->n);
	} else if (json || !*f->s || f->s[strcspn(f->s, " \t\"=\\\r\n")]) {
		add_quoted(b, f->s);
	} else {
		buf_adds(b, f->s);
	}
}

/* RFC 3164 as /dev/log takes it: facility mail, then the program's name. */
static void add_syslog_head(struct buf *b, enum log_level level)
{
	static const int severity[] = { 7, 6, 4, 3 };

	buf_addf(b, "<%d>culverd[%d]: ", 2 << 3 | severity[level], (int)getpid());
}

static void add_head(struct buf *b, enum log_level level, const char *msg, bool json)
{
	struct timespec ts;
	struct tm tm;
	char when[32];

	if (L.syslog_fd >= 0) {
		add_syslog_head(b, level);
		if (!json) {
			buf_addf(b, "%s %s ", level_names[level], L.role);
			add_quoted(b, msg);
			return;
		}
	}
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	if (json) {
		buf_addf(b, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"role\":\"%s\",\"pid\":%d,\"msg\":",
			 when, ts.tv_nsec / 1000000, level_names[level], L.role, (int)getpid());
		add_quoted(b, msg);
	} else {
		buf_addf(b, "%s.%03ldZ %s %s[%d] ", when, ts.tv_nsec / 1000000, level_names[level], L.role, (int)getpid());
		add_quoted(b, msg);
	}
}

void log_emit(enum log_level level, const char *msg, const struct log_field *f)
{
	struct log_field session = LF_S("session", session_id);
	struct buf b = BUF_INIT(LOG_LINE_MAX);
	bool json = L.format == LOG_FMT_JSON;

	if (!log_enabled(level))
		return;
	add_head(&b, level, msg, json);
	if (session_id) {
		buf_adds(&b, json ? ",\"session\":" : " session=");
		add_value(&b, &session, json);
	}
	for (; f->key; f++) {
		buf_addf(&b, json ? ",\"%s\":" : " %s=", f->key);
		add_value(&b, f, json);
	}
	b.failed = false;	/* a cut line still ends */
	if (b.len > LOG_LINE_MAX - 2)
		buf_truncate(&b, LOG_LINE_MAX - 2);
	buf_adds(&b, json ? "}\n" : "\n");
	(void)!write(L.syslog_fd >= 0 ? L.syslog_fd : L.fd, b.data, b.len);
	buf_free(&b);
}
