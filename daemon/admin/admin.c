/* The admin engine: reads requests, finds the user, dispatches. */
#include "daemon/admin/admin-private.h"

#include "base/log.h"
#include "base/mem.h"

enum place {
	ANYWHERE,		/* in any worker */
	AT_WORKER,		/* in the worker that the user belongs to on this machine */
	AT_OWNER,		/* there, or on the node that owns the user now; nobody is taken */
	OPENED			/* there, or on the node that owns him; the user is open */
};
static const struct {
	const char *name;
	admin_fn fn;
	enum place place;
} ops[] = {
	{ "mailbox.list", admin_mailbox_list, OPENED },
	{ "mailbox.status", admin_mailbox_status, OPENED },
	{ "mailbox.create", admin_mailbox_create, OPENED },
	{ "mailbox.delete", admin_mailbox_delete, OPENED },
	{ "mailbox.rename", admin_mailbox_rename, OPENED },
	{ "mailbox.subscribe", admin_mailbox_subscribe, OPENED },
	{ "message.list", admin_message_list, OPENED },
	{ "message.fetch", admin_message_fetch, OPENED },
	{ "message.info", admin_message_info, OPENED },
	{ "message.append", admin_message_append, OPENED },
	{ "user.check", admin_user_check, OPENED },
	{ "user.rebuild", admin_user_rebuild, AT_OWNER },
	{ "user.gc", admin_user_gc, OPENED },
	{ "user.flush", admin_user_flush, AT_OWNER },
	{ "user.evict", admin_user_evict, AT_OWNER },
	{ "user.where", admin_user_where, AT_WORKER },
	{ "user.move", admin_user_move, AT_WORKER },
	{ "user.release", admin_user_release, AT_OWNER },
	{ "user.take", admin_user_take, AT_WORKER },
	{ "node.flush", admin_user_flush, ANYWHERE },
	{ "node.evict", admin_user_evict, ANYWHERE },
	{ "node.drain", admin_node_drain, ANYWHERE },
	{ "node.adopt", admin_node_adopt, ANYWHERE },
	{ "user.expunged", admin_user_expunged, OPENED },
	{ "user.undelete", admin_user_undelete, OPENED },
	{ "user.scrub", admin_user_scrub, ANYWHERE },
	{ "user.log", admin_user_log, OPENED },
	{ "users", admin_users, ANYWHERE },
	{ "dump", admin_dump, ANYWHERE },
	{ "who", admin_who, ANYWHERE },
	{ "cache.status", admin_cache_status, ANYWHERE },
	{ "cache.clean", admin_cache_clean, ANYWHERE },
	{ "ping", admin_ping, ANYWHERE },
};

/* --- answers --- */

void admin_line(struct admin *a, json_t *line)
{
	char *text = json_dumps(line, JSON_COMPACT | JSON_ENSURE_ASCII);

	json_decref(line);
	if (text) {
		buf_adds(&a->c->out, text);
		buf_addc(&a->c->out, '\n');
		free(text);
	}
	if (a->c->out.len > CONN_OUT_HIGH)
		conn_flush(a->c);
}

void admin_done(struct admin *a, json_t *extra)
{
	json_t *line = extra ? extra : json_object();

	json_object_set_new(line, "done", json_true());
	admin_line(a, line);
}

static void answer_error(struct admin *a, const struct err *err)
{
	admin_line(a, json_pack("{s:s, s:s}", "error", err->msg[0] ? err->msg : err_code_name(err->code), "code", err_code_name(err->code)));
}

/* --- arguments --- */

const char *admin_str(struct admin *a, const char *key)
{
	return json_string_value(json_object_get(a->req, key));
}

int admin_need_str(struct admin *a, const char *key, const char **out, struct err *err)
{
	*out = admin_str(a, key);
	return *out ? 0 : err_set(err, ERR_INVALID, "request lacks the text \"%s\"", key);
}

int64_t admin_int(struct admin *a, const char *key, int64_t absent)
{
	json_t *v = json_object_get(a->req, key);

	return json_is_integer(v) ? json_integer_value(v) : absent;
}

bool admin_bool(struct admin *a, const char *key)
{
	return json_is_true(json_object_get(a->req, key));
}

/* --- dispatch --- */

static int right_worker(struct admin *a, struct err *err)
{
	struct conn_env *env = a->c->env;
	const char *user = admin_str(a, "user");
	unsigned worker = 0;

	if (!env->owner || !user || a->c->from_node || env->owner(env, user, &worker))
		return 0;
	admin_line(a, json_pack("{s:s, s:s, s:i}", "error", "another worker serves this user", "code", "wrong-worker", "worker", (int)worker));
	return err_set(err, ERR_DENIED, "wrong worker");
}

static void run_op(struct admin *a, size_t i)
{
	struct err err = ERR_INIT;
	struct obox_owner owner = { .node = "" };
	struct obox_where where;
	const char *user = NULL;
	int rc = 0;

	if (ops[i].place != ANYWHERE) {
		rc = admin_need_str(a, "user", &user, &err);
		if (rc == 0 && right_worker(a, &err) < 0)
			return;
	}
	if (rc == 0 && ops[i].place == OPENED)
		rc = obox_user_locate(a->c->env->obox, user, &a->user, &owner, &err);
	else if (rc == 0 && ops[i].place == AT_OWNER && admin_owner(a, user, &where, &owner, &err) == 1)	/* who cannot be asked about is dealt with here */
		rc = err_set(&err, ERR_BUSY, "user %s is served by node %s", user, owner.node);
	if (rc == ERR_BUSY && *owner.node && a->c->from_node) {
		admin_moved(a, &owner);
		return;
	}
	if (rc == ERR_BUSY && *owner.node && a->c->env->node_key) {
		err_clear(&err);
		rc = admin_forward(a, &owner, &err);
	} else if (rc == 0) {
		err_clear(&err);
		rc = ops[i].fn(a, &err);
	}
	if (rc < 0)
		answer_error(a, &err);
	obox_user_close(&a->user);
}

static size_t find_op(const char *name)
{
	size_t i;

	for (i = 0; i < MEM_COUNT(ops) && strcmp(ops[i].name, name) != 0; i++)
		;
	return i;
}

static void finish_request(struct admin *a)
{
	const char *op = admin_str(a, "op");
	size_t i = op ? find_op(op) : MEM_COUNT(ops);
	struct err err = ERR_INIT;

	if (i == MEM_COUNT(ops)) {
		err_set(&err, ERR_INVALID, op ? "unknown operation \"%s\"" : "request lacks an \"op\"", op);
		answer_error(a, &err);
	} else {
		run_op(a, i);
	}
	obox_msgin_free(&a->in);
	json_decref(a->req);
	a->req = NULL;
}

/* Payload goes straight into a message; without one (wrong op) it is skipped. */
static void take_payload(struct admin *a)
{
	struct buf *in = &a->c->in;
	size_t n = in->len < a->left ? in->len : (size_t)a->left;

	if (a->in && !a->payload_err.code)
		obox_msgin_write(a->in, in->data, n, &a->payload_err);
	buf_consume(in, n);
	a->left -= n;
}

/* 1 a request was read, 0 more input is needed, -1 the stream makes no sense. */
static int read_request(struct admin *a)
{
	struct buf *in = &a->c->in;
	unsigned char *nl = in->len ? memchr(in->data, '\n', in->len) : NULL;
	struct err err = ERR_INIT;
	json_error_t je;
	int64_t size;

	if (!nl) {
		if (in->len < ADMIN_LINE_MAX)
			return 0;
		err_set(&err, ERR_LIMIT, "request line is longer than %d bytes", ADMIN_LINE_MAX);
		answer_error(a, &err);
		return -1;
	}
	a->req = json_loadb((char *)in->data, (size_t)(nl - in->data), 0, &je);
	buf_consume(in, (size_t)(nl - in->data) + 1);
	if (!json_is_object(a->req)) {
		err_set(&err, ERR_INVALID, "request is not a JSON object: %s", je.text);
		answer_error(a, &err);
		json_decref(a->req);
		a->req = NULL;
		return -1;
	}
	size = admin_int(a, "size", 0);
	a->left = size > 0 ? (uint64_t)size : 0;
	err_clear(&a->payload_err);
	if (admin_str(a, "op") && !strcmp(admin_str(a, "op"), "message.append"))
		obox_msgin_new(a->c->env->obox, &a->in, &a->payload_err);
	return 1;
}

static enum conn_want admin_run(struct conn *c, unsigned events)
{
	struct admin *a = c->session;
	int rc;

	if (!a) {
		a = c->session = MEM_NEW(struct admin);
		a->c = c;
		c->timeout_ms = 0;
	}
	if (events & CONN_EV_STOP)
		return CONN_CLOSE;
	for (;;) {
		if (a->req) {
			take_payload(a);
			if (a->left)
				return events & CONN_EV_EOF ? CONN_CLOSE : CONN_WANT_INPUT;
			finish_request(a);
			if (c->out.len > CONN_OUT_HIGH)
				return CONN_WANT_DRAIN;
			continue;
		}
		rc = read_request(a);
		if (rc < 0)
			return CONN_CLOSE;
		if (rc == 0)
			return events & CONN_EV_EOF ? CONN_CLOSE : CONN_WANT_INPUT;
	}
}

static void admin_free(struct conn *c)
{
	struct admin *a = c->session;

	if (!a)
		return;
	obox_msgin_free(&a->in);
	json_decref(a->req);
	free(a);
	c->session = NULL;
}

const struct conn_ops admin_conn_ops = { "admin", admin_run, admin_free };
