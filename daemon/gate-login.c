/* Logins: asking auth, answering failures late, giving the connection to the
 * user's worker. */
#include "daemon/gate.h"

#include "base/b64.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HANDOVER_MS = 15000 };

bool gate_plaintext_ok(const struct gconn *g)
{
	unsigned how = g->gate->p.conf.auth.allow_plaintext;

	return g->tls || how == CONF_PLAIN_ANYWHERE || (how == CONF_PLAIN_LOOPBACK && g->loopback);
}

static void log_login(struct gconn *g, enum log_level level, const char *what, const char *user)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);
	char id[24], peer[64];

	(void)getpeername(g->src.fd, (struct sockaddr *)&ss, &len);
	gate_address(&ss, peer);
	gate_id(g, id);
	log_event(level, what, LF_S("session", id), LF_S("protocol", g->proto->name), LF_S("user", user), LF_S("peer", peer),
		  LF_S("tls", g->tls ? SSL_get_version(g->ssl) : "no"), LF_END);
}

void gate_login(struct gconn *g, const char *tag, const char *user, char *password)
{
	struct gate *gate = g->gate;
	struct buf msg = BUF_INIT(CHAN_MSG_MAX);
	int rc = -1;

	free(g->tag);
	g->tag = mem_strdup(tag);
	if (g->user != user) {
		free(g->user);
		g->user = mem_strdup(user);
	}
	g->sasl = SASL_NONE;
	g->auth_id = ++gate->next_auth;
	if (gate->auth) {
		buf_put8(&msg, MSG_VERIFY);
		buf_put32(&msg, g->auth_id);
		msg_put_str(&msg, g->user);
		msg_put_str(&msg, password);
		rc = chan_send(gate->auth, &msg, -1);
		if (msg.data)
			sodium_memzero(msg.data, msg.len);
	}
	buf_free(&msg);
	sodium_memzero(password, strlen(password));
	g->state = G_AUTH;
	if (rc == 0)
		hmap_put(&gate->asking, &g->auth_id, sizeof(g->auth_id), g);
	else
		gate_fail_login(g, ANSWER_LATER);
}

void gate_fail_login(struct gconn *g, enum msg_answer why)
{
	g->state = G_COMMAND;
	free(g->user);
	g->user = NULL;
	g->proto->login_failed(g, why);
	if (why == ANSWER_NO && ++g->failures >= g->gate->p.conf.limits.login_attempts) {
		g->proto->bye(g, "Too many failed logins");
		gate_end(g);
	}
}

/* SASL PLAIN (RFC 4616): [authzid] NUL authcid NUL passwd. */
static int sasl_plain(struct gconn *g, const char *tag, char *msg, size_t len)
{
	char *authz = msg, *authc, *pass;
	size_t n = strlen(authz);

	if (n >= len)
		return -1;
	authc = authz + n + 1;
	n += 1 + strlen(authc);
	if (n >= len)
		return -1;
	pass = authc + strlen(authc) + 1;
	if (n + 1 + strlen(pass) != len || !*authc || strlen(authc) > MSG_USER_MAX || strlen(pass) > MSG_PASS_MAX)
		return -1;
	/* Nobody may act for another; such a wish fails like a wrong password. */
	if (*authz && strcmp(authz, authc))
		*pass = '\0';
	gate_login(g, tag, authc, pass);
	return 1;
}

static int sasl_login(struct gconn *g, const char *tag, char *msg, size_t len)
{
	if (strlen(msg) != len || len > MSG_PASS_MAX)
		return -1;
	if (g->sasl == SASL_LOGIN_USER) {
		if (!len || len > MSG_USER_MAX)
			return -1;
		free(g->user);
		g->user = mem_strdup(msg);
		g->sasl = SASL_LOGIN_PASS;
		return 0;
	}
	gate_login(g, tag, g->user, msg);
	return 1;
}

int gate_sasl_line(struct gconn *g, const char *tag, const char *line, size_t len)
{
	struct buf plain = BUF_INIT(GATE_LINE_MAX);
	int rc = -1;

	if (b64_decode(&plain, line, len) == 0) {
		char *msg = mem_strndup((const char *)(plain.data ? plain.data : (const unsigned char *)""), plain.len);

		rc = g->sasl == SASL_PLAIN ? sasl_plain(g, tag, msg, plain.len) : sasl_login(g, tag, msg, plain.len);
		sodium_memzero(msg, plain.len);
		free(msg);
	}
	if (plain.data)
		sodium_memzero(plain.data, plain.cap);
	buf_free(&plain);
	if (rc < 0)
		g->sasl = SASL_NONE;
	return rc;
}

void gate_on_auth(struct chan *ch, struct rd *r, int fd)
{
	struct gate *gate = ch->owner;
	unsigned type = rd_8(r), result;
	uint32_t id = rd_32(r);
	struct gconn *g = hmap_del(&gate->asking, &id, sizeof(id));
	const char *name;

	result = rd_8(r);
	name = msg_get_str(r);
	if (fd >= 0)
		close(fd);
	if (type != MSG_ANSWER || !g || r->failed)
		return;
	if (result == ANSWER_YES) {
		log_login(g, LOG_INF, "login", name);
		free(g->user);
		g->user = mem_strdup(name);
		g->worker = msg_worker_of(name, (unsigned)gate->p.conf.worker_count);
		g->state = G_HANDOVER;
		gate_ip_put(gate, g);
		gate_update(g);
	} else if (result == ANSWER_NO) {
		log_login(g, LOG_WARN, "login failed", g->user);
		g->state = G_DELAY;
		loop_timer_set(&gate->p.loop, &g->timer, gate_ip_failed(gate, g->ip));
	} else {
		gate_fail_login(g, ANSWER_LATER);
		gate_pump(g);
	}
}

void gate_auth_gone(struct gate *gate)
{
	size_t pos = 0;
	void *v;

	for (;;) {
		struct gconn *g;

		pos = 0;
		if (!hmap_next(&gate->asking, &pos, NULL, NULL, &v))
			return;
		g = v;
		hmap_del(&gate->asking, &g->auth_id, sizeof(g->auth_id));
		gate_fail_login(g, ANSWER_LATER);
		gate_pump(g);
	}
}

/* --- handing over --- */

static void fill(struct gconn *g, struct buf *out)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);
	char id[24], peer[64], local[64];
	struct msg_conn m = {
		.proto = g->proto->proto, .tls = g->tls, .loopback = g->loopback, .id = id, .peer = peer, .local = local,
		.user = g->user, .tag = g->tag, .in = g->in.data, .in_len = g->in.len,
	};

	gate_id(g, id);
	(void)getpeername(g->src.fd, (struct sockaddr *)&ss, &len);
	gate_address(&ss, peer);
	memset(&ss, 0, sizeof(ss));
	len = sizeof(ss);
	(void)getsockname(g->src.fd, (struct sockaddr *)&ss, &len);
	gate_address(&ss, local);
	msg_conn_put(out, &m);
}

/* Both: 0 done, 1 the worker is no more, -1 with errno. */
static int hand_over_relay(struct gconn *g, struct chan *worker, const struct buf *msg)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -1;
	if (chan_send(worker, msg, sv[1]) < 0) {
		close(sv[0]);
		return 1;
	}
	return gate_relay_start(g, sv[0]);
}

static int hand_over_socket(struct gconn *g, struct chan *worker, const struct buf *msg)
{
	struct loop *l = &g->gate->p.loop;
	int fd = g->src.fd, copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (copy < 0)
		return -1;
	loop_del(l, &g->src);	/* before it goes: epoll would go on watching it in the worker */
	if (chan_send(worker, msg, copy) < 0) {
		if (loop_add(l, &g->src, fd, 0) == 0)
			return 1;
		io_close(&fd);
		return -1;
	}
	io_close(&fd);
	return 0;
}

/* The worker is away; it is being started again. */
static void wait_for_worker(struct gconn *g)
{
	g->waiting = true;
	loop_timer_set(&g->gate->p.loop, &g->timer, HANDOVER_MS);
}

void gate_handover(struct gconn *g)
{
	struct gate *gate = g->gate;
	struct chan *worker = gate->workers[g->worker % GATE_WORKERS_MAX];
	struct buf msg = BUF_INIT(CHAN_MSG_MAX);
	int rc;

	if (!worker) {
		wait_for_worker(g);
		return;
	}
	g->waiting = false;
	loop_timer_clear(&gate->p.loop, &g->timer);
	fill(g, &msg);
	rc = g->ssl ? hand_over_relay(g, worker, &msg) : hand_over_socket(g, worker, &msg);
	buf_free(&msg);
	if (rc == 0) {
		buf_free(&g->in);
		if (g->ssl)
			gate_relay_step(g);
		else
			gate_close(g);
	} else if (rc == 1) {
		wait_for_worker(g);	/* it has just ended, which the loop is about to hear */
	} else {
		char id[24];

		gate_id(g, id);
		log_event(LOG_ERROR, "a connection cannot be handed to its worker", LF_S("session", id), LF_S("why", strerror(errno)), LF_END);
		gate_close(g);
	}
}

void gate_handover_waiting(struct gate *gate, unsigned worker)
{
	struct gconn *g, *next;

	for (g = gate->conns; g; g = next) {
		next = g->next;
		if (g->waiting && g->worker == worker)
			gate_handover(g);
	}
}
