/* What happened: a ring of lines, shown when a promise is broken.  Takes the
 * place of base/log.c in the simulator, so that events of the nodes are in it. */
#include "tests/sim/sim.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINES = 4096, LINE = 240 };

bool trace_live;
char violated[1024];
int violated_promise;
static char ring[LINES][LINE];
static size_t n_lines;

static void add(const char *text)
{
	char *line = ring[n_lines++ % LINES];
	const struct life *l = sim_task ? sim_task->life : NULL;

	snprintf(line, LINE, "%5" PRIu64 " %11.6f %-4s %-8s %s\n", sim_step, (double)sim_now / 1e6, l ? l->node->name : "-",
		 sim_task ? sim_task->name : "world", text);
	line[LINE - 2] = '\n';
	if (trace_live)
		(void)!write(2, line, strlen(line));
}

void trace(const char *fmt, ...)
{
	char text[LINE];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	add(text);
}

void trace_print(int fd, size_t last)
{
	size_t i = n_lines > LINES ? n_lines - LINES : 0;

	if (n_lines - i > last)
		i = n_lines - last;
	for (; i < n_lines; i++)
		(void)!write(fd, ring[i % LINES], strlen(ring[i % LINES]));
}

void violation(int promise, const char *fmt, ...)
{
	va_list ap;

	if (violated_promise >= 0)
		return;
	violated_promise = promise;
	va_start(ap, fmt);
	vsnprintf(violated, sizeof(violated), fmt, ap);
	va_end(ap);
	trace("VIOLATION of promise %d: %s", promise, violated);
}

/* --- base/log.h --- */

bool log_enabled(enum log_level level)
{
	return level >= LOG_INF;
}

void log_emit(enum log_level level, const char *msg, const struct log_field *f)
{
	char text[LINE];
	int n = snprintf(text, sizeof(text), "log: %s", msg);

	for (; f->key && n > 0 && n < (int)sizeof(text); f++) {
		if (f->s)
			n += snprintf(text + n, sizeof(text) - (size_t)n, " %s=%s", f->key, f->s);
		else
			n += snprintf(text + n, sizeof(text) - (size_t)n, " %s=%" PRId64, f->key, f->n);
	}
	add(text);
}

/* --- base/clock.h: the clocks of whoever runs --- */

static int64_t wall(void *ctx)
{
	return sim_task && sim_task->life ? node_wall(sim_task->life->node) : sim_now;
}

static int64_t mono(void *ctx)
{
	return sim_task && sim_task->life ? node_mono(sim_task->life->node) : sim_now;
}

const struct clock clock_system = { wall, mono, NULL };
