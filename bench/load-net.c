#include "bench/load.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void load_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "culverbench: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	exit(2);
}

static int open_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(sa.sun_path))
		load_fail("%s: cannot be used", path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		load_fail("connect to %s: %s", path, strerror(errno));
	return fd;
}

static int open_tcp(const char *host, const char *port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0 || inet_pton(AF_INET, host, &sa.sin_addr) != 1)
		load_fail("%s is not an IPv4 address", host);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		load_fail("connect to %s port %s: %s", host, port, strerror(errno));
	return fd;
}

struct load_conn *load_connect(const struct load_opts *o, const char *port)
{
	/* not zeroed: a quarter of a megabyte for each login would be measured too */
	struct load_conn *c = (struct load_conn *)mem_realloc(NULL, sizeof(*c));

	if (!*port)
		load_fail("no port given for this measurement");
	memset(c, 0, offsetof(struct load_conn, buf));
	c->fd = port[0] == '/' ? open_unix(port) : open_tcp(o->host, port);
	return c;
}

void load_close(struct load_conn **c)
{
	if (!*c)
		return;
	close((*c)->fd);
	free(*c);
	*c = NULL;
}

void load_send(struct load_conn *c, const void *data, size_t len)
{
	const char *p = (const char *)data;

	while (len) {
		ssize_t n = send(c->fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			load_fail("send: %s", strerror(errno));
		p += n;
		len -= (size_t)n;
	}
}

void load_sendf(struct load_conn *c, const char *fmt, ...)
{
	struct buf b = BUF_INIT(0);
	va_list ap;

	va_start(ap, fmt);
	buf_vaddf(&b, fmt, ap);
	va_end(ap);
	load_send(c, b.data, b.len);
	buf_free(&b);
}

/* More bytes behind those that are there; false at the end of the stream. */
static bool more(struct load_conn *c)
{
	ssize_t n;

	if (c->pos) {
		memmove(c->buf, c->buf + c->pos, c->len - c->pos);
		c->len -= c->pos;
		c->pos = 0;
	}
	if (c->len == sizeof(c->buf))
		load_fail("a line of more than %zu octets", sizeof(c->buf));
	do
		n = recv(c->fd, c->buf + c->len, sizeof(c->buf) - c->len, 0);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return false;
	c->len += (size_t)n;
	c->bytes += (uint64_t)n;
	return true;
}

bool load_line_ready(const struct load_conn *c)
{
	return memchr(c->buf + c->pos, '\n', c->len - c->pos) != NULL;
}

bool load_line(struct load_conn *c)
{
	size_t seen = 0;
	char *nl;

	while (!(nl = (char *)memchr(c->buf + c->pos + seen, '\n', c->len - c->pos - seen))) {
		seen = c->len - c->pos;
		if (!more(c))
			return false;
	}
	c->line = c->buf + c->pos;
	c->line_len = (size_t)(nl - c->line);
	c->pos += c->line_len + 1;
	if (c->line_len && c->line[c->line_len - 1] == '\r')
		c->line_len--;
	c->line[c->line_len] = '\0';
	return true;
}

void load_skip(struct load_conn *c, uint64_t len)
{
	while (len > c->len - c->pos) {
		len -= c->len - c->pos;
		c->pos = c->len = 0;
		if (!more(c))
			load_fail("connection closed within a literal");
	}
	c->pos += (size_t)len;
}

bool load_reply(struct load_conn *c, const char *want)
{
	do
		if (!load_line(c))
			load_fail("connection closed by the server");
	while (c->line_len >= 4 && c->line[3] == '-' && c->line[0] >= '2' && c->line[0] <= '5');
	return !strncmp(c->line, want, strlen(want));
}

void load_imap_line(struct load_conn *c)
{
	for (;;) {
		char *open;

		if (!load_line(c))
			load_fail("connection closed by the server");
		if (!c->line_len || c->line[c->line_len - 1] != '}' || !(open = strrchr(c->line, '{')))
			return;
		load_skip(c, strtoull(open + 1, NULL, 10));
	}
}

bool load_imap_answer(struct load_conn *c)
{
	char tag[16];
	int n = snprintf(tag, sizeof(tag), "a%u ", c->tag);

	for (;;) {
		load_imap_line(c);
		if (!strncmp(c->line, tag, (size_t)n))
			return !strncmp(c->line + n, "OK", 2);
		if (c->line[0] == '+')
			load_fail("the server waits for more: %s", c->line);
		c->untagged++;
	}
}

bool load_imap(struct load_conn *c, const char *command)
{
	load_sendf(c, "a%u %s\r\n", ++c->tag, command);
	return load_imap_answer(c);
}

void load_user(const struct load_opts *o, unsigned user, char *out, size_t max)
{
	const char *at = strchr(o->user, '%');

	if (at)
		snprintf(out, max, "%.*s%u%s", (int)(at - o->user), o->user, user, at + 1);
	else
		snprintf(out, max, "%s", o->user);
}

struct load_conn *load_login(const struct load_opts *o, unsigned user)
{
	struct load_conn *c = load_connect(o, o->imap);
	char name[256];

	load_user(o, user, name, sizeof(name));
	load_imap_line(c);
	load_sendf(c, "a%u LOGIN %s %s\r\n", ++c->tag, name, o->pass);
	if (!load_imap_answer(c))
		load_fail("login of %s: %s", name, c->line);
	return c;
}

void load_logout(struct load_conn **c)
{
	load_imap(*c, "LOGOUT");
	load_close(c);
}
