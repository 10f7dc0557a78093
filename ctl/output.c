/* What culverctl prints: errors, tables, progress. */
#include "ctl/ctl.h"

#include "base/clock.h"
#include "base/mem.h"

#include <inttypes.h>
#include <unistd.h>

int ctl_fail(const struct err *err)
{
	fprintf(stderr, "culverctl: %s\n", err->msg[0] ? err->msg : err_code_name(err->code));
	if (err->code == ERR_NOTFOUND)
		return CTL_NOTFOUND;
	return err_is_temporary(err->code) && err->code != ERR_CONFLICT ? CTL_TEMPORARY : CTL_FAILED;
}

void ctl_print(struct ctl *c, json_t *line)
{
	char *text = json_dumps(line, JSON_COMPACT);

	if (text)
		puts(text);
	free(text);
}

void ctl_progress(struct ctl *c, const char *what, uint64_t done, uint64_t total)
{
	static int64_t last;
	int64_t now = clock_mono_us(&clock_system);
	int i, n;

	if (c->quiet || !isatty(2) || (now - last < 100000 && done != total))
		return;
	last = now;
	if (!total) {
		fprintf(stderr, "\r%s %" PRIu64 " \033[K", what, done);
		return;
	}
	n = (int)(done * 40 / total);
	fprintf(stderr, "\r%s [", what);
	for (i = 0; i < 40; i++)
		fputc(i < n ? '#' : '.', stderr);
	fprintf(stderr, "] %" PRIu64 "/%" PRIu64 " \033[K", done, total);	/* another bar, a longer one, may have stood here */
}

void ctl_progress_end(struct ctl *c)
{
	if (!c->quiet && isatty(2))
		fputs("\r\033[K", stderr);
}

char *ctl_size(uint64_t bytes, char out[16])
{
	static const char units[] = "kMGTP";
	double v = (double)bytes;
	int u = -1;

	while (v >= 1000 && u < 4) {
		v /= 1000;
		u++;
	}
	if (u < 0)
		snprintf(out, 16, "%" PRIu64 " B", bytes);
	else
		snprintf(out, 16, "%.1f %cB", v, units[u]);
	return out;
}

char *ctl_time(int64_t t, char out[32])
{
	time_t tt = (time_t)t;
	struct tm tm;

	localtime_r(&tt, &tm);
	strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm);
	return out;
}

int ctl_parse_time(const char *text, int64_t *out)
{
	static const char *const formats[] = { "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d" };
	static const char units[] = "smhdw";
	static const int seconds[] = { 1, 60, 3600, 86400, 7 * 86400 };
	const char *u;
	char *end;
	size_t i;
	int64_t n;

	if (*text == '@') {
		*out = strtoll(text + 1, &end, 10);
		return *end || end == text + 1 ? -1 : 0;
	}
	n = strtoll(text, &end, 10);
	if (end > text && *end && !end[1] && (u = strchr(units, *end)) != NULL) {
		*out = clock_wall_s(&clock_system) - n * seconds[u - units];
		return 0;
	}
	for (i = 0; i < MEM_COUNT(formats); i++) {
		struct tm tm = { .tm_isdst = -1 };
		const char *rest = strptime(text, formats[i], &tm);

		if (rest && !*rest) {
			*out = mktime(&tm);
			return 0;
		}
	}
	return -1;
}
