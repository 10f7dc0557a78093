/* The connection to an admin engine: a worker's socket, or the engine in this
 * process when culverd does not run. */
#include "ctl/ctl.h"

#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct client {
	int fd;
	bool local;
	struct buf in;
	size_t at;
	json_t *sent;		/* to say it again to the right worker */
	const void *payload;	/* borrowed from the caller until the last line */
	size_t payload_len;
	int redirects;
};

static int connect_socket(const char *path, struct err *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(err, ERR_INVALID, "%s: path is too long for a socket", path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(err, "socket", NULL);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		int e = errno;

		close(fd);
		errno = e;
		return e == ENOENT || e == ECONNREFUSED ? err_set(err, ERR_NOTFOUND, "culverd does not run") : err_errno(err, "connect to", path);
	}
	return fd;
}

static int connect_worker(struct ctl *c, int worker, struct err *err)
{
	char *path = worker < 0 ? mem_printf("%s/admin.sock", c->conf.run_dir) : mem_printf("%s/admin.%d.sock", c->conf.run_dir, worker);
	int fd = connect_socket(path, err);

	free(path);
	return fd;
}

static int attach(struct ctl *c, int fd, bool local)
{
	struct client *cl = MEM_NEW(struct client);

	cl->fd = fd;
	cl->local = local;
	buf_init(&cl->in, 64 << 20);
	c->client = cl;
	return 0;
}

static int ctl_connect(struct ctl *c, struct err *err)
{
	struct err e = ERR_INIT;
	int fd;

	if (c->client)
		return 0;
	fd = connect_worker(c, -1, &e);
	if (fd >= 0)
		return attach(c, fd, false);
	if (fd != ERR_NOTFOUND)
		return err_set(err, fd, "%s", e.msg);
	fd = -1;
	return local_start(&c->conf, &fd, err) < 0 ? err->code : attach(c, fd, true);
}

void ctl_disconnect(struct ctl *c)
{
	struct client *cl = c->client;

	if (!cl)
		return;
	io_close(&cl->fd);
	if (cl->local)
		local_stop();
	buf_free(&cl->in);
	json_decref(cl->sent);
	free(cl);
	c->client = NULL;
}

static int send_now(struct client *cl, struct err *err)
{
	char *text = json_dumps(cl->sent, JSON_COMPACT | JSON_ENSURE_ASCII);
	int rc;

	if (!text)
		return err_set(err, ERR_INVALID, "request cannot be written as JSON: is every argument valid UTF-8?");
	rc = io_write_full(cl->fd, text, strlen(text), err);
	if (rc == 0)
		rc = io_write_full(cl->fd, "\n", 1, err);
	if (rc == 0 && cl->payload_len)
		rc = io_write_full(cl->fd, cl->payload, cl->payload_len, err);
	free(text);
	return rc;
}

int ctl_send(struct ctl *c, json_t *req, const void *payload, size_t len, struct err *err)
{
	int rc = req ? ctl_connect(c, err) : err_set(err, ERR_INVALID, "arguments must be valid UTF-8");

	if (rc < 0) {
		json_decref(req);
		return rc;
	}
	json_decref(c->client->sent);
	c->client->sent = req;
	c->client->redirects = 0;
	c->client->payload = payload;
	c->client->payload_len = len;
	return send_now(c->client, err);
}

static int fill(struct client *cl, struct err *err)
{
	ssize_t n;
	void *room;

	if (cl->at) {
		buf_consume(&cl->in, cl->at);
		cl->at = 0;
	}
	room = buf_reserve(&cl->in, 64 * 1024);
	if (!room)
		return err_set(err, ERR_LIMIT, "answer is too large");
	do {
		n = read(cl->fd, room, 64 * 1024);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno(err, "read from culverd", NULL);
	if (n == 0)
		return err_set(err, ERR_CLOSED, "culverd closed the connection");
	cl->in.len += (size_t)n;
	return 0;
}

/* Another worker serves the user: go there and ask again. */
static int redirect(struct ctl *c, int worker, struct err *err)
{
	struct client *cl = c->client;
	int fd = ++cl->redirects > 2 ? err_set(err, ERR_UNAVAILABLE, "the workers do not agree who serves this user") : connect_worker(c, worker, err);

	if (fd < 0)
		return fd;
	io_close(&cl->fd);
	cl->fd = fd;
	buf_clear(&cl->in);
	cl->at = 0;
	return send_now(cl, err);
}

static int code_by_name(const char *name)
{
	int code;

	for (code = -1; name && code >= ERR_CLOSED; code--)
		if (!strcmp(err_code_name(code), name))
			return code;
	return ERR_IO;
}

static int read_line(struct client *cl, json_t **line, struct err *err)
{
	unsigned char *nl;
	json_error_t je;
	int rc;

	while (!(nl = cl->in.len > cl->at ? memchr(cl->in.data + cl->at, '\n', cl->in.len - cl->at) : NULL)) {
		rc = fill(cl, err);
		if (rc < 0)
			return rc;
	}
	*line = json_loadb((char *)cl->in.data + cl->at, (size_t)(nl - cl->in.data) - cl->at, 0, &je);
	cl->at = (size_t)(nl - cl->in.data) + 1;
	return *line ? 0 : err_set(err, ERR_CORRUPT, "answer is not JSON: %s", je.text);
}

int ctl_next(struct ctl *c, json_t **line, struct err *err)
{
	const char *text, *code;
	int rc;

	for (;;) {
		*line = NULL;
		rc = read_line(c->client, line, err);
		if (rc < 0)
			return rc;
		text = json_string_value(json_object_get(*line, "error"));
		if (!text)
			return json_is_true(json_object_get(*line, "done")) ? 0 : 1;
		code = json_string_value(json_object_get(*line, "code"));
		if (code && !strcmp(code, "wrong-worker"))
			rc = redirect(c, (int)json_integer_value(json_object_get(*line, "worker")), err);
		else
			rc = err_set(err, code_by_name(code), "%s", text);
		json_decref(*line);
		*line = NULL;
		if (rc < 0)
			return rc;
	}
}

int ctl_bytes(struct ctl *c, void *data, size_t len, struct err *err)
{
	struct client *cl = c->client;
	unsigned char *out = data;
	int rc;

	while (len > 0) {
		size_t n = cl->in.len - cl->at;

		if (!n) {
			rc = fill(cl, err);
			if (rc < 0)
				return rc;
			continue;
		}
		if (n > len)
			n = len;
		memcpy(out, cl->in.data + cl->at, n);
		cl->at += n;
		out += n;
		len -= n;
	}
	return 0;
}

int ctl_call(struct ctl *c, json_t *req, json_t **last, struct err *err)
{
	json_t *line = NULL;
	int rc = ctl_send(c, req, NULL, 0, err);

	while (rc == 0 && (rc = ctl_next(c, &line, err)) == 1) {
		json_decref(line);
		rc = 0;
	}
	if (rc == 0 && last)
		*last = line;
	else if (rc == 0)
		json_decref(line);
	return rc;
}

static int each_worker(struct ctl *c, json_t *req, bool last, void (*fn)(struct ctl *c, json_t *line), struct err *err)
{
	json_t *line;
	int worker, fd, rc = 0;

	for (worker = 0; rc == 0; worker++) {
		struct err e = ERR_INIT;

		ctl_disconnect(c);
		fd = connect_worker(c, worker, &e);
		if (fd == ERR_NOTFOUND)
			return worker ? 0 : err_set(err, ERR_UNAVAILABLE, "culverd does not run");
		if (fd < 0)
			return err_set(err, fd, "%s", e.msg);
		attach(c, fd, false);
		rc = ctl_send(c, json_incref(req), NULL, 0, err);
		while (rc == 0 && (rc = ctl_next(c, &line, err)) == 1) {
			fn(c, line);
			json_decref(line);
			rc = 0;
		}
		if (rc == 0 && last)
			fn(c, line);
		if (rc == 0)
			json_decref(line);
	}
	return rc;
}

int ctl_each_worker(struct ctl *c, json_t *req, void (*fn)(struct ctl *c, json_t *line), struct err *err)
{
	return each_worker(c, req, false, fn, err);
}

int ctl_each_worker_last(struct ctl *c, json_t *req, void (*fn)(struct ctl *c, json_t *line), struct err *err)
{
	return each_worker(c, req, true, fn, err);
}
