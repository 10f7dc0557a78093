/* err - one error: what class it is of, if a retry can help, and the text for
 * the operator.
 *
 * Functions that can fail return 0 (actions) or 1/0 (look-ups: found/absent),
 * and a negative enum err_code on failure with *err filled in.  The first
 * cause wins: err_set on an err that is already set keeps the first text.
 * Texts for clients are chosen by the protocol engines from the code alone.
 * Threads: a struct err belongs to its caller. */
#ifndef BASE_ERR_H
#define BASE_ERR_H
#include <stdbool.h>
#include <stdarg.h>

enum err_code {
	ERR_NOTFOUND = -1,	/* the named thing does not exist */
	ERR_EXISTS = -2,	/* it exists already */
	ERR_CONFLICT = -3,	/* precondition failed: somebody else was first */
	ERR_BUSY = -4,		/* throttled or locked: try again later */
	ERR_TIMEOUT = -5,	/* no answer in time: the outcome is not known */
	ERR_DENIED = -6,	/* credentials or rights are missing */
	ERR_CORRUPT = -7,	/* data failed its check or cannot be understood */
	ERR_UNAVAILABLE = -8,	/* store, process or network is away */
	ERR_INVALID = -9,	/* the request makes no sense; a retry cannot help */
	ERR_LIMIT = -10,	/* a ceiling was reached (size, count, quota) */
	ERR_IO = -11,		/* local disk or system call */
	ERR_FENCED = -12,	/* this node is no longer the owner */
	ERR_CLOSED = -13	/* shutting down, or the peer is gone */
};

enum { ERR_MSG_MAX = 480 };

struct err {
	int code;		/* 0 = not set */
	int sys;		/* errno where that was the cause, else 0 */
	char msg[ERR_MSG_MAX];	/* for the log: call, object and cause */
};

#define ERR_INIT { 0, 0, "" }

/* Sets *err (NULL is fine) unless it is set already; returns code. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int err_vset(struct err *err, int code, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
/* From errno, which is read first: "what object: No such file or directory".
 * Maps ENOENT, EEXIST, EACCES, ENOSPC, EAGAIN... to codes; returns the code. */
int err_errno(struct err *err, const char *what, const char *object);
/* Puts "fmt: " before the text (which call of ours met the error). */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void err_clear(struct err *err);
/* May the same call succeed later without anybody mending anything? */
bool err_is_temporary(int code);
const char *err_code_name(int code);	/* "not-found", "conflict", ... */
#endif
