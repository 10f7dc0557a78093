#include "base/err.h"

#include <errno.h>

int err_vset(struct err *err, int code, const char *fmt, va_list ap)
{
	if (err && !err->code) {
		err->code = code;
		err->sys = 0;
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	}
	return code;
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(err, code, fmt, ap);
	va_end(ap);
	return code;
}

static int code_of_errno(int e)
{
	switch (e) {
	case ENOENT:
	case ENOTDIR:
		return ERR_NOTFOUND;
	case EEXIST:
		return ERR_EXISTS;
	case EACCES:
	case EPERM:
		return ERR_DENIED;
	case EAGAIN:
	case EBUSY:
		return ERR_BUSY;
	case ETIMEDOUT:
		return ERR_TIMEOUT;
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE:
		return ERR_UNAVAILABLE;
	case EINVAL:
	case ENAMETOOLONG:
		return ERR_INVALID;
	default:
		return ERR_IO;
	}
}

int err_errno(struct err *err, const char *what, const char *object)
{
	int e = errno, code = code_of_errno(e);
	bool first = err && !err->code;

	err_set(err, code, "%s%s%s: %s", what, object ? " " : "", object ? object : "", strerror(e));
	if (first)
		err->sys = e;
	return code;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
	char head[ERR_MSG_MAX], whole[2 * ERR_MSG_MAX + 2];
	va_list ap;

	if (!err)
		return ERR_INVALID;
	va_start(ap, fmt);
	vsnprintf(head, sizeof(head), fmt, ap);
	va_end(ap);
	snprintf(whole, sizeof(whole), "%s: %s", head, err->msg);
	memcpy(err->msg, whole, sizeof(err->msg) - 1);
	err->msg[sizeof(err->msg) - 1] = '\0';
	return err->code;
}

void err_clear(struct err *err)
{
	err->code = 0;
	err->sys = 0;
	err->msg[0] = '\0';
}

bool err_is_temporary(int code)
{
	return code == ERR_BUSY || code == ERR_TIMEOUT || code == ERR_UNAVAILABLE || code == ERR_IO ||
	       code == ERR_FENCED || code == ERR_CLOSED || code == ERR_CONFLICT;
}

const char *err_code_name(int code)
{
	static const char *const names[] = {
		"ok", "not-found", "exists", "conflict", "busy", "timeout", "denied", "corrupt",
		"unavailable", "invalid", "limit", "io", "fenced", "closed",
	};

	if (code > 0 || -code >= (int)(sizeof(names) / sizeof(names[0])))
		return "unknown";
	return names[-code];
}
