/* log - one line per event, for operators and their tools.
 *
 *   log_event(LOG_WARN, "message object is missing: run culverctl check",
 *             LF_S("user", u), LF_U("uid", uid), LF_END);
 *
 * gives  2026-11-22T10:00:00.123Z warn worker/2[4711] "message object ..." user=joe uid=7
 * or, with LOG_FMT_JSON, the same as one JSON object.  A line is one write(2).
 * A session id that was set for this thread is added as session=.
 * Never log keys, passwords or message content.
 * Threads: any; log_init and log_set_* before threads are started. */
#ifndef BASE_LOG_H
#define BASE_LOG_H
#include <stdbool.h>
#include <stdint.h>

struct err;

enum log_level { LOG_DBG, LOG_INF, LOG_WARN, LOG_ERROR };
enum log_format { LOG_FMT_TEXT, LOG_FMT_JSON };

struct log_field {
	const char *key;	/* NULL ends the list */
	const char *s;		/* used when not NULL */
	int64_t n;
	bool is_unsigned;
};
static inline const char *log_text(const char *s)
{
	return s ? s : "";
}
#define LF_S(k, v) ((struct log_field){ (k), log_text(v), 0, false })
#define LF_U(k, v) ((struct log_field){ (k), NULL, (int64_t)(uint64_t)(v), true })
#define LF_D(k, v) ((struct log_field){ (k), NULL, (int64_t)(v), false })
#define LF_ERR(e) ((struct log_field){ "error", (e)->msg, 0, false })
#define LF_END ((struct log_field){ NULL, NULL, 0, false })

/* role: "master", "worker/1"...; fd 2 until log_set_fd. */
void log_init(const char *role, enum log_level min, enum log_format format);
void log_set_fd(int fd);	/* borrowed; writes to the old one end */
void log_set_level(enum log_level min);
/* fd: a datagram socket connected to the system's log; lines then go there
 * with its priorities, without time and process (it adds its own).  -1: no more. */
void log_set_syslog(int fd);
void log_set_session(const char *id);	/* this thread; NULL for none; borrowed */
bool log_enabled(enum log_level level);

void log_emit(enum log_level level, const char *msg, const struct log_field *fields);
#define log_event(level, msg, ...) \
	do { \
		if (log_enabled(level)) \
			log_emit((level), (msg), (const struct log_field[]){ __VA_ARGS__ }); \
	} while (0)
int log_level_parse(const char *name, enum log_level *out_r);	/* 0, or -1 for an unknown name */
#endif
