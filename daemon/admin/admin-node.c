/* Admin: nodes, and which of them has a user. */
#include "daemon/admin/admin-private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "metacache/metacache.h"

#include <inttypes.h>
#include <unistd.h>

enum { LEAVE_MS = 10000, LEAVE_POLL_US = 50000, DRAIN_MS = 60000, DRAIN_ROUND_MS = 3000, MOVES = 3 };

static int64_t now_ms(void)
{
	return clock_mono_us(&clock_system) / 1000;
}

static int need_cluster(struct admin *a, struct err *err)
{
	return a->c->env->cluster ? 0 : err_set(err, ERR_INVALID, "this server is alone with its store: the journal is local, there are no other nodes");
}

/* --- who has a user --- */

int admin_owner(struct admin *a, const char *user, struct obox_where *w, struct obox_owner *o, struct err *err)
{
	const struct metacache_reader *reg = a->c->env->registry;
	struct metacache_node n;
	int rc = obox_user_where(a->c->env->obox, user, w, err);

	memset(o, 0, sizeof(*o));
	if (rc <= 0 || !w->incarnation || w->mine || !reg)
		return rc < 0 ? rc : 0;
	rc = metacache_node(reg, w->node, &n, err);
	if (rc <= 0 || n.incarnation != w->incarnation || (n.state != METACACHE_LIVE && n.state != METACACHE_DRAINING))
		return rc < 0 ? rc : 0;
	memcpy(o->node, n.node, sizeof(o->node));
	memcpy(o->address, n.address, sizeof(o->address));
	o->incarnation = n.incarnation;
	return 1;
}

void admin_moved(struct admin *a, const struct obox_owner *o)
{
	admin_line(a, json_pack("{s:s, s:s, s:s, s:s}", "error", "another node has the user", "code", "moved", "node", o->node, "address", o->address));
}

static json_t *where_line(const char *user, const struct obox_where *w)
{
	char hex[17];

	snprintf(hex, sizeof(hex), "%016" PRIx64, w->incarnation);
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "user", user, "node", w->incarnation ? w->node : "", "incarnation", hex,
			 "epoch", (json_int_t)w->epoch, "log_segment", (json_int_t)w->log_seq, "log_record", (json_int_t)w->log_lsn);
}

static void put_memory(json_t *line, const struct obox_where *w)
{
	json_object_set_new(line, "loaded", json_boolean(w->loaded));
	json_object_set_new(line, "opened", json_integer(w->opened));
	json_object_set_new(line, "cached_bytes", json_integer((json_int_t)w->bytes));
	json_object_set_new(line, "tail_bytes", json_integer((json_int_t)w->tail));
}

/* What only the owner knows; that it does not answer is part of the answer. */
static void ask_memory(struct admin *a, const char *user, const struct obox_owner *o, json_t *line)
{
	static const char *const names[] = { "loaded", "opened", "cached_bytes", "tail_bytes" };
	struct err why = ERR_INIT;
	json_t *far = NULL;
	size_t i;

	if (admin_ask(a, o, json_pack("{s:s, s:s}", "op", "user.where", "user", user), NULL, &far, &why) < 0)
		json_object_set_new(line, "unreachable", json_string(why.msg));
	for (i = 0; far && i < MEM_COUNT(names); i++)
		json_object_set(line, names[i], json_object_get(far, names[i]));
	json_decref(far);
}

/* How the node that root names is doing. */
static void put_node(struct admin *a, const struct obox_where *w, json_t *line)
{
	struct metacache_node n;
	struct err e = ERR_INIT;
	const char *state = "unknown";
	int rc = a->c->env->registry ? metacache_node(a->c->env->registry, w->node, &n, &e) : 0;

	if (w->mine)
		state = a->c->env->cluster && metacache_draining(a->c->env->cluster) ? "draining" : "live";
	else if (rc == 1)
		state = n.incarnation == w->incarnation ? metacache_state_name(n.state) : "gone";
	json_object_set_new(line, "state", json_string(w->incarnation ? state : "released"));
	json_object_set_new(line, "address", json_string(w->incarnation && rc == 1 && n.incarnation == w->incarnation ? n.address : ""));
}

int admin_user_where(struct admin *a, struct err *err)
{
	const char *user = admin_str(a, "user");
	struct obox_where w;
	struct obox_owner o;
	json_t *line;
	int rc = obox_user_where(a->c->env->obox, user, &w, err), other = 0;

	if (rc == 0)
		return err_set(err, ERR_NOTFOUND, "user %s has no mail in the store", user);
	if (rc < 0)
		return rc;
	line = where_line(user, &w);
	put_node(a, &w, line);
	if (!a->c->from_node && a->c->env->node_key)
		other = admin_owner(a, user, &w, &o, err);
	if (other == 1)
		ask_memory(a, user, &o, line);
	else
		put_memory(line, &w);
	err_clear(err);
	admin_done(a, line);
	return 0;
}

/* --- giving a user away --- */

/* Its sessions end with a goodbye; who comes meanwhile waits, and is then sent to where it went. */
static int give_away(struct admin *a, const char *user, struct err *err)
{
	struct conn_env *env = a->c->env;
	int64_t end = now_ms() + LEAVE_MS;
	int rc;

	obox_user_leave(env->obox, user, true);
	if (env->end_sessions)
		env->end_sessions(env, user);
	while ((rc = obox_user_release(env->obox, user, err)) == ERR_BUSY && now_ms() < end) {
		err_clear(err);
		usleep(LEAVE_POLL_US);
	}
	obox_user_leave(env->obox, user, false);
	return rc;
}

int admin_user_release(struct admin *a, struct err *err)
{
	int rc = give_away(a, admin_str(a, "user"), err);

	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}

int admin_user_take(struct admin *a, struct err *err)
{
	struct conn_env *env = a->c->env;
	struct obox_owner o;
	struct obox_user *u = NULL;
	int rc = obox_user_locate(env->obox, admin_str(a, "user"), &u, &o, err);

	if (rc == ERR_BUSY && *o.node)
		return err_set(err, ERR_BUSY, env->cluster && metacache_draining(env->cluster) ? "that node is being drained: it takes nobody" :
			       "node %s has the user", o.node);
	obox_user_close(&u);
	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}

static int target(struct admin *a, const char *name, struct obox_owner *to, struct err *err)
{
	struct metacache_node n;
	int rc = metacache_node(a->c->env->registry, name, &n, err);

	if (rc < 0)
		return rc;
	if (rc == 0 || n.state != METACACHE_LIVE)
		return err_set(err, rc == 0 ? ERR_NOTFOUND : ERR_INVALID, rc == 0 ? "there is no node %s: culverctl node list names them" : "node %s is %s: it takes nobody", name,
			       rc == 0 ? "" : metacache_state_name(n.state));
	memset(to, 0, sizeof(*to));
	memcpy(to->node, n.node, sizeof(to->node));
	memcpy(to->address, n.address, sizeof(to->address));
	return 0;
}

static bool is_self(struct admin *a, const struct obox_owner *o)
{
	return !strcmp(o->node, a->c->env->node_name);
}

/* One try: released where it is, then opened there.  ERR_BUSY: a third one was faster. */
static int move(struct admin *a, const char *user, const struct obox_owner *to, struct err *err)
{
	struct conn_env *env = a->c->env;
	struct err why = ERR_INIT;
	struct obox_user *u = NULL;
	struct obox_where w;
	struct obox_owner from;
	int rc = admin_owner(a, user, &w, &from, err);

	if (rc == 1 && !strcmp(from.node, to->node))
		return 0;
	if (rc == 1) {
		rc = admin_ask(a, &from, json_pack("{s:s, s:s}", "op", "user.release", "user", user), NULL, NULL, &why);
		if (rc < 0)
			return rc == ERR_UNAVAILABLE || rc == ERR_TIMEOUT ? admin_unreachable(&from, "has the user", &why, err) : err_set(err, rc, "%s", why.msg);
	} else if (rc == 0 && w.mine && !is_self(a, to)) {
		rc = give_away(a, user, err);
	}
	if (rc == 0 && is_self(a, to)) {
		rc = obox_user_open(env->obox, user, &u, err);
		obox_user_close(&u);
	} else if (rc == 0) {
		rc = admin_ask(a, to, json_pack("{s:s, s:s}", "op", "user.take", "user", user), NULL, NULL, &why);
		if (rc < 0)
			rc = rc == ERR_UNAVAILABLE || rc == ERR_TIMEOUT ? admin_unreachable(to, "is to take the user", &why, err) : err_set(err, rc, "%s", why.msg);
	}
	return rc;
}

int admin_user_move(struct admin *a, struct err *err)
{
	const char *user = admin_str(a, "user"), *name;
	struct obox_owner to;
	int rc = admin_need_str(a, "node", &name, err), i;

	if (rc == 0)
		rc = need_cluster(a, err);
	if (rc == 0)
		rc = target(a, name, &to, err);
	if (rc < 0)
		return rc;
	for (i = 0, rc = ERR_BUSY; i < MOVES && rc == ERR_BUSY; i++) {
		err_clear(err);
		rc = move(a, user, &to, err);
	}
	if (rc == 0) {
		log_event(LOG_INF, "user was moved", LF_S("user", user), LF_S("node", to.node), LF_END);
		admin_done(a, json_pack("{s:s, s:s}", "user", user, "node", to.node));
	}
	return rc;
}

int admin_user_evict(struct admin *a, struct err *err)
{
	size_t n;
	int rc = obox_user_evict(a->c->env->obox, admin_str(a, "user"), &n, err);

	if (rc == 0)
		admin_done(a, json_pack("{s:I, s:I}", "evicted", (json_int_t)n, "left", (json_int_t)obox_users_held(a->c->env->obox)));
	return rc;
}

/* --- draining --- */

struct drain {
	struct admin *a;
	char **names;
	size_t n, cap;
};

static void leave_one(void *ctx, const char *user)
{
	struct drain *d = ctx;
	struct conn_env *env = d->a->c->env;

	obox_user_leave(env->obox, user, true);
	if (env->end_sessions)
		env->end_sessions(env, user);
	mem_grow(&d->names, &d->cap, d->n + 1, sizeof(*d->names));
	d->names[d->n++] = mem_strdup(user);
}

static void progress(struct admin *a, size_t left, size_t total)
{
	admin_line(a, json_pack("{s:I, s:I}", "progress", (json_int_t)(total > left ? total - left : 0), "total", (json_int_t)total));
	conn_flush(a->c);
}

/* Those that somebody has open are asked to end, a few seconds at a time. */
static int drain_round(struct admin *a, size_t total, struct err *err)
{
	struct obox *ob = a->c->env->obox;
	int64_t end = now_ms() + DRAIN_ROUND_MS;
	struct drain d = { .a = a };
	size_t gone;
	int rc = obox_user_evict(ob, NULL, &gone, err);

	if (rc == 0 && obox_users_held(ob))
		obox_users_here(ob, leave_one, &d);
	while (rc == 0 && obox_users_held(ob) && now_ms() < end) {
		progress(a, obox_users_held(ob), total);
		usleep(LEAVE_POLL_US);
		rc = obox_user_evict(ob, NULL, &gone, err);
	}
	while (d.n) {
		obox_user_leave(ob, d.names[--d.n], false);
		free(d.names[d.n]);
	}
	free(d.names);
	return rc;
}

static int drain_here(struct admin *a, struct err *err)
{
	struct conn_env *env = a->c->env;
	bool undo = admin_bool(a, "undo");
	int64_t end = now_ms() + DRAIN_MS;
	size_t total = obox_users_held(env->obox);
	struct err quiet = ERR_INIT;
	int rc = metacache_drain(env->cluster, !undo, admin_bool(a, "force"), err);

	while (rc == 0 && !undo && obox_users_held(env->obox) && now_ms() < end && !(env->stopping && env->stopping(env)))
		rc = drain_round(a, total, err);
	if (rc < 0)
		return rc;
	if (!undo && obox_users_held(env->obox))
		return err_set(err, ERR_BUSY, "node %s takes no new users, but %zu could not be given away yet: run it again", env->node_name, obox_users_held(env->obox));
	if (!undo)	/* others see at once that nobody is left */
		(void)metacache_drain(env->cluster, true, true, &quiet);
	admin_done(a, json_pack("{s:s, s:b, s:I}", "node", env->node_name, "draining", !undo, "users", (json_int_t)total));
	return 0;
}

int admin_node_drain(struct admin *a, struct err *err)
{
	const char *name = admin_str(a, "node");
	struct metacache_node n;
	struct obox_owner to = { .node = "" };
	int rc = need_cluster(a, err);

	if (rc < 0)
		return rc;
	if (!name || !strcmp(name, a->c->env->node_name))
		return drain_here(a, err);
	if (a->c->from_node)
		return err_set(err, ERR_INVALID, "this is node %s, not %s", a->c->env->node_name, name);
	rc = metacache_node(a->c->env->registry, name, &n, err);
	if (rc == 0)
		return err_set(err, ERR_NOTFOUND, "there is no node %s: culverctl node list names them", name);
	if (rc == 1 && n.state == METACACHE_RELEASED)
		return err_set(err, ERR_INVALID, "node %s does not run, and has nothing to give away", name);
	if (rc < 0)
		return rc;
	memcpy(to.node, n.node, sizeof(to.node));
	memcpy(to.address, n.address, sizeof(to.address));
	return admin_forward(a, &to, err);
}

static void tell(void *ctx, const char *text)
{
	struct admin *a = ctx;

	admin_line(a, json_pack("{s:s, s:b}", "finding", text, "damage", 0));
	conn_flush(a->c);
}

int admin_node_adopt(struct admin *a, struct err *err)
{
	const char *name;
	int rc = admin_need_str(a, "node", &name, err);

	if (rc == 0)
		rc = need_cluster(a, err);
	if (rc == 0)
		rc = metacache_adopt(a->c->env->cluster, name, admin_bool(a, "force"), tell, a, err);
	if (rc == 0)
		admin_done(a, json_pack("{s:s}", "node", name));
	return rc;
}
