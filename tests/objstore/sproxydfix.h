/* sproxydfix - tests with the small sproxyd of sproxyd-server.py beside them. */
#ifndef TESTS_OBJSTORE_SPROXYDFIX_H
#define TESTS_OBJSTORE_SPROXYDFIX_H
#include "tests/objstore/s3fix.h"

enum { SPROXYD_CONNECTORS = 3 };

struct sproxydfix {
	pid_t pid;
	int to;			/* the server lives until this is closed */
	unsigned port[SPROXYD_CONNECTORS];
	char url[SPROXYD_CONNECTORS][48];
	const char *urls[SPROXYD_CONNECTORS];
};

static inline int sproxydfix_start(struct sproxydfix *f)
{
	const char *top = getenv("top_srcdir");
	char *script = mem_printf("%s/tests/objstore/sproxyd-server.py", top ? top : "."), line[64] = "", *p = line;
	char count[] = "3";
	int in[2], out[2], i;

	if (pipe(in) < 0 || pipe(out) < 0)
		return -1;
	signal(SIGPIPE, SIG_IGN);
	f->pid = fork();
	if (f->pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		close(out[0]);
		execlp("python3", "python3", script, count, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	f->to = in[1];
	for (i = 0; i < (int)sizeof(line) - 1 && read(out[0], line + i, 1) == 1 && line[i] != '\n'; i++)
		;
	close(out[0]);
	free(script);
	for (i = 0; i < SPROXYD_CONNECTORS; i++) {
		f->port[i] = (unsigned)strtoul(p, &p, 10);
		snprintf(f->url[i], sizeof(f->url[i]), "http://127.0.0.1:%u", f->port[i]);
		f->urls[i] = f->url[i];
		if (!f->port[i])
			return -1;
	}
	return 0;
}

static inline void sproxydfix_stop(struct sproxydfix *f)
{
	close(f->to);
	kill(f->pid, SIGTERM);
	waitpid(f->pid, NULL, 0);
}

static inline struct s3fix sproxydfix_door(const struct sproxydfix *f)
{
	return (struct s3fix){ .port = f->port[0] };
}

/* Forgets all oddities, objects and what was seen, then sets these (JSON, "" for none). */
static inline void sproxydfix_odd(const struct sproxydfix *f, const char *json)
{
	struct s3fix door = sproxydfix_door(f);
	char *body = mem_printf("{\"reset\": true, \"empty\": true%s%s}", *json ? ", " : "", json);

	free(s3fix_ask(&door, "POST", "/-/odd", body));
	free(body);
}

/* Adds to them. */
static inline void sproxydfix_more(const struct sproxydfix *f, const char *json)
{
	struct s3fix door = sproxydfix_door(f);

	free(s3fix_ask(&door, "POST", "/-/odd", json));
}

static inline unsigned sproxydfix_seen(const struct sproxydfix *f, const char *text)
{
	struct s3fix door = sproxydfix_door(f);

	return s3fix_seen(&door, text);
}

static inline struct objstore_settings sproxydfix_settings(const struct sproxydfix *f, const char *profile, size_t connectors)
{
	return (struct objstore_settings){ .driver = "sproxyd", .urls = f->urls, .n_urls = connectors, .profile = profile, .seed = 1,
		.timeout_ms = 20000, .attempt_timeout_ms = 5000 };
}
#endif
