/* s3fix - tests with the small S3 server of s3server.py beside them. */
#ifndef TESTS_OBJSTORE_S3FIX_H
#define TESTS_OBJSTORE_S3FIX_H
#include "base/mem.h"
#include "objstore/objstore.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct s3fix {
	pid_t pid;
	int to;			/* the server lives until this is closed */
	unsigned port;
	char endpoint[64];
};

/* args: NULL-terminated, behind the program's name (certificate, key...). */
static inline int s3fix_start(struct s3fix *f, const char *const *args)
{
	const char *top = getenv("top_srcdir"), *argv[8] = { "python3", NULL };
	int in[2], out[2], i;
	char line[16] = "";
	char *script = mem_printf("%s/tests/objstore/s3server.py", top ? top : ".");

	argv[1] = script;
	for (i = 0; args && args[i] && i < 5; i++)
		argv[2 + i] = args[i];
	argv[2 + i] = NULL;
	if (pipe(in) < 0 || pipe(out) < 0)
		return -1;
	signal(SIGPIPE, SIG_IGN);
	f->pid = fork();
	if (f->pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		close(out[0]);
		execvp("python3", (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	f->to = in[1];
	for (i = 0; i < 15 && read(out[0], line + i, 1) == 1 && line[i] != '\n'; i++)
		;
	close(out[0]);
	free(script);
	f->port = (unsigned)strtoul(line, NULL, 10);
	snprintf(f->endpoint, sizeof(f->endpoint), "http%s://127.0.0.1:%u", args ? "s" : "", f->port);
	return f->port ? 0 : -1;
}

static inline void s3fix_stop(struct s3fix *f)
{
	close(f->to);
	kill(f->pid, SIGTERM);
	waitpid(f->pid, NULL, 0);
}

/* A plain request to the server's own pages; the answer's body as a string the caller frees. */
static inline char *s3fix_ask(const struct s3fix *f, const char *method, const char *path, const char *body)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)f->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct buf b = BUF_INIT(0);
	char *text, *at;
	ssize_t n;

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return NULL;
	buf_addf(&b, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", method, path, strlen(body), body);
	n = write(fd, b.data, b.len);
	buf_clear(&b);
	while (n > 0) {
		void *p = buf_reserve(&b, 65536);

		n = read(fd, p, 65536);
		if (n > 0)
			b.len += (size_t)n;
	}
	close(fd);
	at = strstr(buf_str(&b), "\r\n\r\n");
	text = mem_strdup(at ? at + 4 : "");
	buf_free(&b);
	return text;
}

/* Forgets all oddities and what was seen, then sets these (JSON, "" for none). */
static inline void s3fix_odd(const struct s3fix *f, const char *json)
{
	char *body = mem_printf("{\"reset\": true%s%s}", *json ? ", " : "", json);

	free(s3fix_ask(f, "POST", "/-/odd", body));
	free(body);
}

/* How often text stands in the list of requests seen. */
static inline unsigned s3fix_seen(const struct s3fix *f, const char *text)
{
	char *all = s3fix_ask(f, "GET", "/-/seen", ""), *p = all;
	unsigned n = 0;

	while (p && (p = strstr(p, text)) != NULL) {
		p += strlen(text);
		n++;
	}
	free(all);
	return n;
}

static inline struct objstore_settings s3fix_settings(const struct s3fix *f)
{
	return (struct objstore_settings){ .driver = "s3", .endpoint = f->endpoint, .bucket = "testbucket", .credentials = "settings",
		.access_key = "AKIDTEST", .secret_key = "testSecret/Key+0123456789", .seed = 1, .timeout_ms = 20000, .attempt_timeout_ms = 5000 };
}
#endif
