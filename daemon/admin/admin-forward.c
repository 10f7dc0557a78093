/* Requests to the admin engine of another node, over a link between nodes
 * (docs/architecture.md, "Nodes"), by the thread that wants the answer.
 *
 * What came over a link itself is never sent on: it is answered with who has
 * the user, and the asker goes there. */
#include "daemon/admin/admin-private.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "daemon/node-stream.h"
#include "daemon/node.h"
#include "metacache/metacache.h"

#include <poll.h>
#include <unistd.h>

enum {
	UP_MS = 5000, TICK_MS = 500,
	STALL_MS = 60000,	/* so long our own client, or the other node, may take nothing */
	FAR_LINE_MAX = 64 << 20, PAYLOAD_STEP = 64 * 1024,
	FOLLOW_MAX = 2
};

struct far {
	struct conn_env *env;
	struct node_stream st;
	struct buf in;
	int fd;
};

static int64_t now_ms(void)
{
	return clock_mono_us(&clock_system) / 1000;
}

static bool stopping(const struct far *f)
{
	return f->env->stopping && f->env->stopping(f->env);
}

/* Until something can be read (or, with output, written), for at most ms. */
static void far_wait(struct far *f, int64_t ms)
{
	struct pollfd pf = { .fd = f->fd, .events = POLLIN };

	if (f->st.out.len)
		pf.events |= POLLOUT;
	(void)poll(&pf, 1, (int)(ms < 0 ? 0 : ms < TICK_MS ? ms : TICK_MS));
}

static int broken(struct far *f, struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "%s", node_stream_why(&f->st));
}

static int introduce(struct far *f, struct err *err)
{
	int64_t end = now_ms() + UP_MS;
	struct node_answer a;
	bool asked = false;
	size_t used = 0;
	int rc = 0;

	while (rc == 0) {
		if (node_stream_flush(&f->st) < 0 || node_stream_read(&f->st, &f->in, NODE_IN_MAX) < 0)
			return broken(f, err);
		if (f->st.link.up && !asked) {
			struct buf hello = BUF_INIT(NODE_MESSAGE_MAX);

			node_hello_put(&hello, NODE_ADMIN, f->env->node_name, NULL);
			(void)node_stream_write(&f->st, hello.data, hello.len);	/* it is new: there is room */
			buf_free(&hello);
			asked = true;
			continue;
		}
		rc = node_answer_get(&f->in, &a, &used);
		if (rc == 0 && (now_ms() > end || f->st.link.ended))
			return err_set(err, ERR_TIMEOUT, "no answer in time");
		if (rc == 0)
			far_wait(f, end - now_ms());
	}
	if (rc < 0 || a.code != NODE_HERE)
		return err_set(err, ERR_UNAVAILABLE, "it takes no requests");
	buf_consume(&f->in, used);
	return 0;
}

static void far_close(struct far *f)
{
	node_stream_end(&f->st);
	(void)node_stream_flush(&f->st);
	node_stream_free(&f->st);
	buf_free(&f->in);
	io_close(&f->fd);
}

static int far_open(struct far *f, struct conn_env *env, const struct obox_owner *to, struct err *err)
{
	int rc;

	memset(f, 0, sizeof(*f));
	f->env = env;
	buf_init(&f->in, FAR_LINE_MAX);
	if (!*to->address)
		return err_set(err, ERR_UNAVAILABLE, "it takes no connections, as it has no \"listen node\" section: run culverctl on that server");
	f->fd = node_connect(to->address, err);
	if (f->fd < 0)
		return ERR_UNAVAILABLE;
	node_stream_init(&f->st, f->fd, env->node_key, true);
	rc = introduce(f, err);
	if (rc < 0)
		far_close(f);
	return rc;
}

/* --- sending --- */

static int far_write(struct far *f, const void *data, size_t len, struct err *err)
{
	int64_t active = now_ms();
	const char *p = data;
	size_t n;

	while (len || f->st.out.len) {
		n = node_stream_write(&f->st, p, len);
		p += n;
		len -= n;
		if (node_stream_flush(&f->st) < 0)
			return broken(f, err);
		if (n)
			active = now_ms();
		if (stopping(f) || now_ms() - active > STALL_MS)
			return err_set(err, ERR_TIMEOUT, "it takes nothing");
		if (f->st.out.len)
			far_wait(f, TICK_MS);
	}
	return 0;
}

static int far_request(struct far *f, json_t *req, struct err *err)
{
	char *text = json_dumps(req, JSON_COMPACT | JSON_ENSURE_ASCII);
	int rc = text ? far_write(f, text, strlen(text), err) : err_set(err, ERR_INVALID, "the request cannot be written");

	free(text);
	return rc < 0 ? rc : far_write(f, "\n", 1, err);
}

static int far_payload(struct far *f, const struct obox_msgin *in, struct err *err)
{
	uint64_t size = obox_msgin_size(in), at;
	char *step = mem_alloc(PAYLOAD_STEP);
	int rc = 0;

	for (at = 0; at < size && rc == 0; at += PAYLOAD_STEP) {
		size_t n = size - at < PAYLOAD_STEP ? (size_t)(size - at) : PAYLOAD_STEP;

		rc = obox_msgin_read(in, at, step, n, err);
		if (rc == 0)
			rc = far_write(f, step, n, err);
	}
	free(step);
	return rc;
}

/* --- reading --- */

/* More bytes; the link's own keepalive finds out whether the other node is still there. */
static int far_more(struct far *f, struct err *err)
{
	size_t before = f->in.len;

	for (;;) {
		if (node_stream_flush(&f->st) < 0 || node_stream_read(&f->st, &f->in, f->in.len + 2 * NODE_IN_MAX) < 0)
			return broken(f, err);
		if (f->in.len > before)
			return 0;
		if (f->in.failed)
			return err_set(err, ERR_LIMIT, "its answer is too long");
		if (f->st.link.ended)
			return err_set(err, ERR_UNAVAILABLE, "it closed the connection");
		if (stopping(f))
			return err_set(err, ERR_UNAVAILABLE, "this server is stopping");
		far_wait(f, TICK_MS);
	}
}

/* The next line, its end included, as *len_r bytes at the front of f->in. */
static int far_line(struct far *f, size_t *len_r, json_t **line_r, struct err *err)
{
	unsigned char *nl;
	json_error_t je;
	int rc;

	while (!(nl = f->in.len ? memchr(f->in.data, '\n', f->in.len) : NULL)) {
		rc = far_more(f, err);
		if (rc < 0)
			return rc;
	}
	*len_r = (size_t)(nl - f->in.data) + 1;
	*line_r = json_loadb((char *)f->in.data, *len_r, 0, &je);
	return json_is_object(*line_r) ? 0 : err_set(err, ERR_CORRUPT, "its answer makes no sense");
}

/* To our own client, which may be slow. */
static int hand_out(struct admin *a, struct far *f, size_t len, struct err *err)
{
	int64_t active = now_ms();
	size_t left, last = 0;

	buf_add(&a->c->out, f->in.data, len);
	buf_consume(&f->in, len);
	while (a->c->out.len > CONN_OUT_HIGH && (left = conn_flush(a->c)) > CONN_OUT_HIGH) {
		active = left != last ? now_ms() : active;
		last = left;
		if (stopping(f) || now_ms() - active > STALL_MS)
			return err_set(err, ERR_TIMEOUT, "the answer is not read");
		usleep(2000);
	}
	return 0;
}

static int hand_out_bytes(struct admin *a, struct far *f, uint64_t n, struct err *err)
{
	int rc = 0;

	while (rc == 0 && n) {
		size_t some = f->in.len < n ? f->in.len : (size_t)n;

		rc = some ? hand_out(a, f, some, err) : far_more(f, err);
		n -= some;
	}
	return rc;
}

/* Is it the last line, that says that another node has the user? */
static bool is_moved(json_t *line, struct obox_owner *o)
{
	const char *code = json_string_value(json_object_get(line, "code")), *node = json_string_value(json_object_get(line, "node")),
		   *address = json_string_value(json_object_get(line, "address"));

	if (!code || strcmp(code, "moved") != 0 || !node || !address)
		return false;
	memset(o, 0, sizeof(*o));
	snprintf(o->node, sizeof(o->node), "%s", node);
	snprintf(o->address, sizeof(o->address), "%s", address);
	return true;
}

/* 0 all of the answer was handed out, 1 *to has the user now, <0 (*begun_r: some of the answer was handed out). */
static int pass_answer(struct admin *a, struct far *f, struct obox_owner *to, bool *begun_r, struct err *err)
{
	bool last = false;
	json_t *line;
	size_t len;
	int rc = 0;

	while (rc == 0 && !last) {
		json_int_t bytes;

		line = NULL;
		rc = far_line(f, &len, &line, err);
		last = json_object_get(line, "error") || json_is_true(json_object_get(line, "done"));
		bytes = json_integer_value(json_object_get(line, "bytes"));
		if (rc == 0 && is_moved(line, to)) {
			rc = 1;
		} else if (rc == 0) {
			*begun_r = true;
			rc = hand_out(a, f, len, err);
		}
		if (rc == 0 && !last && bytes > 0)
			rc = hand_out_bytes(a, f, (uint64_t)bytes, err);
		json_decref(line);
	}
	if (rc == 0)
		conn_flush(a->c);
	return rc;
}

static int try_one(struct admin *a, struct obox_owner *to, bool *begun_r, struct err *err)
{
	struct far f;
	int rc = far_open(&f, a->c->env, to, err);

	if (rc < 0)
		return rc;
	rc = far_request(&f, a->req, err);
	if (rc == 0 && a->in)
		rc = far_payload(&f, a->in, err);
	if (rc == 0)
		rc = pass_answer(a, &f, to, begun_r, err);
	far_close(&f);
	return rc;
}

int admin_unreachable(const struct obox_owner *o, const char *what, const struct err *why, struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "node %s, which %s, cannot be reached at %s: %.200s. culverctl node list shows whether it lives; culverctl node adopt %s takes a dead one over",
		       o->node, what, *o->address ? o->address : "any address", why->msg, o->node);
}

int admin_forward(struct admin *a, const struct obox_owner *owner, struct err *err)
{
	struct obox_owner to = *owner;
	struct err why = ERR_INIT;
	bool begun = false;
	int rc, i;

	if (a->payload_err.code)
		return err_set(err, a->payload_err.code, "%s", a->payload_err.msg);
	rc = a->in ? obox_msgin_finish(a->in, err) : 0;
	if (rc < 0)
		return rc;
	rc = 1;
	for (i = 0; i <= FOLLOW_MAX && rc == 1; i++)
		rc = try_one(a, &to, &begun, &why);
	if (rc == 1)
		return err_set(err, ERR_BUSY, "the nodes do not agree yet who has the user: try again");
	if (rc < 0 && begun)
		return err_set(err, rc, "the connection to node %s broke in the middle of its answer: %.200s", to.node, why.msg);
	return rc < 0 ? admin_unreachable(&to, admin_str(a, "user") ? "has the user" : "was asked", &why, err) : 0;
}

static int code_by_name(const char *name)
{
	int code;

	for (code = -1; name && code >= ERR_CLOSED; code--)
		if (!strcmp(err_code_name(code), name))
			return code;
	return ERR_IO;
}

int admin_ask(struct admin *a, const struct obox_owner *to, json_t *req, void (*each)(struct admin *a, json_t *line), json_t **last_r, struct err *err)
{
	const char *text;
	struct far f;
	json_t *line;
	size_t len;
	bool last = false;
	int rc = far_open(&f, a->c->env, to, err);

	if (last_r)
		*last_r = NULL;
	if (rc < 0) {
		json_decref(req);
		return rc;
	}
	rc = far_request(&f, req, err);
	json_decref(req);
	while (rc == 0 && !last) {
		line = NULL;
		rc = far_line(&f, &len, &line, err);
		if (rc == 0) {
			buf_consume(&f.in, len);
			text = json_string_value(json_object_get(line, "error"));
			last = text || json_is_true(json_object_get(line, "done"));
			if (text)
				rc = err_set(err, code_by_name(json_string_value(json_object_get(line, "code"))), "%s", text);
			else if (!last && each)
				each(a, line);
			else if (last && last_r)
				*last_r = json_incref(line);
		}
		json_decref(line);
	}
	far_close(&f);
	return rc;
}
