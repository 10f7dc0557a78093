/* The gate process: the life of a connection before its login, what master
 * tells it. */
#include "daemon/gate.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	FD_RESERVE = 128, CLOSE_MS = 5000, BAD_MAX = 20, READ_PIECE = 4096, OUT_HIGH = 32 * 1024
};

void gate_id(const struct gconn *g, char out[24])
{
	snprintf(out, 24, "%08x.%x.%x", g->gate->start, g->gate->p.generation, g->serial);
}

void gate_address(const struct sockaddr_storage *a, char out[64])
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)a;
	char ip[INET6_ADDRSTRLEN] = "";

	if (a->ss_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip));
		snprintf(out, 64, "%s:%u", ip, ntohs(in->sin_port));
	} else if (a->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, ip, sizeof(ip));
		snprintf(out, 64, "%s:%u", ip, ntohs(in6->sin6_port));
	} else if (a->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip));
		snprintf(out, 64, "[%s]:%u", ip, ntohs(in6->sin6_port));
	} else {
		snprintf(out, 64, "unix");
	}
}

/* --- the life of a connection --- */

void gate_close(struct gconn *g)
{
	struct gate *gate = g->gate;
	int fd = g->src.fd;

	gate_relay_free(g);
	if (g->ssl) {
		SSL_set_quiet_shutdown(g->ssl, 1);
		SSL_free(g->ssl);
	}
	loop_del(&gate->p.loop, &g->src);
	io_close(&fd);
	loop_timer_clear(&gate->p.loop, &g->timer);
	if (g->state == G_AUTH)
		hmap_del(&gate->asking, &g->auth_id, sizeof(g->auth_id));
	gate_ip_put(gate, g);
	if (g->in.data)
		sodium_memzero(g->in.data, g->in.cap);
	buf_free(&g->in);
	buf_free(&g->out);
	free(g->user);
	free(g->tag);
	if (g->next)
		g->next->prev = g->prev;
	*(g->prev ? &g->prev->next : &gate->conns) = g->next;
	gate->n_conns--;
	loop_free_later(&gate->p.loop, g);
}

void gate_end(struct gconn *g)
{
	g->state = G_CLOSING;
	loop_timer_set(&g->gate->p.loop, &g->timer, CLOSE_MS);
}

void gate_bad(struct gconn *g)
{
	if (++g->bad < BAD_MAX)
		return;
	g->proto->bye(g, "Too many commands that make no sense");
	gate_end(g);
}

/* 1 all is sent, 0 not all, -1 broken. */
static int send_out(struct gconn *g)
{
	while (g->out.len) {
		ssize_t n = gate_write(g, g->out.data, g->out.len);

		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
			return 0;
		if (n <= 0)
			return -1;
		buf_consume(&g->out, (size_t)n);
	}
	buf_free(&g->out);
	return 1;
}

/* RFC 3207 section 4.2 and its like: nothing from before TLS is believed,
 * so what was sent behind STARTTLS is forgotten. */
static int start_tls(struct gconn *g)
{
	g->starttls_now = false;
	buf_free(&g->in);
	g->sasl = SASL_NONE;
	free(g->user);
	g->user = NULL;
	return gate_tls_begin(g);
}

static void last_goodbye(struct gconn *g)
{
	if (g->tls)
		(void)SSL_shutdown(g->ssl);
	(void)shutdown(g->src.fd, SHUT_WR);
	gate_close(g);
}

void gate_update(struct gconn *g)
{
	uint32_t events = 0;
	int rc;

	if (g->state == G_RELAY) {
		gate_relay_step(g);
		return;
	}
	rc = g->state == G_HANDSHAKE ? 1 : send_out(g);
	if (rc == 1 && g->starttls_now)
		rc = start_tls(g);
	if (rc < 0) {
		gate_close(g);
		return;
	}
	if (!g->out.len && g->state == G_CLOSING) {
		last_goodbye(g);
		return;
	}
	if (!g->out.len && g->state == G_HANDOVER && !g->waiting) {
		loop_mod(&g->gate->p.loop, &g->src, 0);
		gate_handover(g);
		return;
	}
	if (!g->in.len)
		buf_free(&g->in);
	if (g->state == G_HANDSHAKE || (g->state == G_COMMAND && g->out.len < OUT_HIGH))
		events |= EPOLLIN;
	if (g->out.len)
		events |= EPOLLOUT;
	loop_mod(&g->gate->p.loop, &g->src, events);
}

/* 1 read some, 0 nothing there now, -1 the client is gone. */
static int read_in(struct gconn *g)
{
	static unsigned char piece[READ_PIECE];
	ssize_t n;

	if (g->in.len + sizeof(piece) > GATE_IN_MAX)
		return 0;
	n = gate_read(g, piece, sizeof(piece));
	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	if (n == 0)
		return -1;
	buf_add(&g->in, piece, (size_t)n);
	sodium_memzero(piece, (size_t)n);
	return 1;
}

void gate_pump(struct gconn *g)
{
	int rc = 1;

	while (rc == 1 && g->state == G_COMMAND && !g->starttls_now) {
		while (g->state == G_COMMAND && !g->starttls_now && g->in.len && g->out.len < OUT_HIGH && g->proto->input(g))
			;
		if (g->state != G_COMMAND || g->starttls_now || g->out.len >= OUT_HIGH)
			break;
		rc = read_in(g);
	}
	if (rc < 0 && g->state == G_COMMAND) {
		(void)send_out(g);
		gate_close(g);
		return;
	}
	gate_update(g);
}

void gate_greet(struct gconn *g)
{
	g->greeted = true;
	g->state = G_COMMAND;
	g->proto->greet(g);
}

void gate_handshake(struct gconn *g)
{
	uint32_t events = EPOLLIN;
	int rc = gate_tls_handshake(g, &events);

	if (rc < 0) {
		gate_close(g);
	} else if (rc == 0) {
		loop_mod(&g->gate->p.loop, &g->src, events);
	} else {
		if (g->greeted)
			g->state = G_COMMAND;
		else
			gate_greet(g);
		gate_pump(g);
	}
}

void gate_on_client(struct loop_src *src, uint32_t events)
{
	struct gconn *g = src->owner;

	switch (g->state) {
	case G_HANDSHAKE:
		gate_handshake(g);
		break;
	case G_COMMAND:
		gate_pump(g);
		break;
	case G_RELAY:
		gate_relay_step(g);
		break;
	default:	/* nothing is read now; a hang-up would be reported for ever */
		if (events & (EPOLLHUP | EPOLLERR))
			gate_close(g);
		else
			gate_update(g);
	}
}

void gate_on_timer(struct loop_timer *t)
{
	struct gconn *g = t->owner;
	struct gate *gate = g->gate;
	int64_t left = (int64_t)gate->p.conf.limits.prelogin_timeout - (gate->p.loop.now_ms - g->accepted_ms);

	if (g->state == G_DELAY) {
		loop_timer_set(&gate->p.loop, t, left);
		gate_fail_login(g, ANSWER_NO);
		gate_pump(g);
	} else if (g->state == G_CLOSING || g->state == G_HANDSHAKE) {
		gate_close(g);
	} else if (g->state == G_HANDOVER && g->user) {
		g->waiting = false;
		loop_timer_set(&gate->p.loop, t, left);
		gate_fail_login(g, ANSWER_LATER);
		gate_pump(g);
	} else {
		g->proto->bye(g, g->state == G_HANDOVER ? "is starting, try again" : "No login for too long");
		gate_end(g);
		gate_update(g);
	}
}

/* --- master's messages --- */

static void on_cert(struct proc *p, int fd)
{
	struct gate *gate = p->owner;
	struct err err = ERR_INIT;

	SSL_CTX_free(gate->tls);
	if (gate_tls_context(&p->conf, fd, &gate->tls, &err) < 0)
		log_event(LOG_ERROR, "TLS cannot be offered", LF_ERR(&err), LF_END);
}

static void on_worker_message(struct chan *ch, struct rd *r, int fd)
{
	io_close(&fd);	/* workers have nothing to say to a gate */
}

static void on_worker_closed(struct chan *ch)
{
	struct gate *gate = ch->owner;

	if (gate->workers[ch->peer] == ch)
		gate->workers[ch->peer] = NULL;
	chan_free(&ch);
}

static void on_auth_closed(struct chan *ch)
{
	struct gate *gate = ch->owner;

	if (gate->auth == ch)
		gate->auth = NULL;
	chan_free(&ch);
	if (!gate->auth)
		gate_auth_gone(gate);
}

static const struct chan_ops auth_ops = { gate_on_auth, on_auth_closed }, worker_ops = { on_worker_message, on_worker_closed };

static void on_peer(struct proc *p, enum msg_role role, unsigned index, int fd)
{
	struct gate *gate = p->owner;
	struct chan **slot = role == ROLE_AUTH ? &gate->auth : &gate->workers[index % GATE_WORKERS_MAX];
	struct chan *ch = chan_new(&p->loop, fd, role == ROLE_AUTH ? &auth_ops : &worker_ops, gate, index % GATE_WORKERS_MAX), *old = *slot;

	if (!ch)
		return;
	*slot = ch;
	chan_free(&old);
	if (role == ROLE_AUTH)
		gate_auth_gone(gate);	/* what the old one was asked */
	else
		gate_handover_waiting(gate, index);
}

static void on_go(struct proc *p)
{
	struct gate *gate = p->owner;
	struct err err = ERR_INIT;

	if (gate_sandbox(&p->conf, &err) < 0) {
		log_event(LOG_ERROR, "the gate cannot give up its rights", LF_ERR(&err), LF_END);
		_exit(1);
	}
	gate_on_sweep(&gate->sweep);
	proc_tell(p, MSG_READY);
}

static void on_drain(struct proc *p)
{
	struct gate *gate = p->owner;

	gate_close_listeners(gate);
	gate->draining = true;
}

static void on_stop(struct proc *p)
{
	struct gate *gate = p->owner;
	struct gconn *g, *next;

	gate_close_listeners(gate);
	gate->stopping = true;
	for (g = gate->conns; g; g = next) {
		next = g->next;
		if (g->state == G_RELAY || g->state == G_CLOSING)
			continue;
		if (g->state == G_HANDSHAKE) {
			gate_close(g);
			continue;
		}
		if (g->state == G_AUTH)
			hmap_del(&gate->asking, &g->auth_id, sizeof(g->auth_id));
		g->proto->bye(g, "The server is stopping");
		gate_end(g);
		gate_update(g);
	}
}

static void check_end(struct loop *l)
{
	struct gate *gate = l->owner;

	if ((gate->draining || gate->stopping) && !gate->n_conns)
		l->stop = true;
}

static const struct proc_ops gate_ops = { .go = on_go, .stop = on_stop, .drain = on_drain, .cert = on_cert, .listen = gate_on_listen, .peer = on_peer };

static void set_limits(struct gate *gate)
{
	struct rlimit rl = { 1024, 1024 };

	(void)getrlimit(RLIMIT_NOFILE, &rl);
	gate->max_fds = rl.rlim_cur > 2 * FD_RESERVE ? rl.rlim_cur - FD_RESERVE : FD_RESERVE;
	gate->max_conns = gate->p.conf.limits.connections ? gate->p.conf.limits.connections : SIZE_MAX;
}

static void release(struct gate *gate)
{
	size_t pos = 0;
	unsigned i;
	void *v;

	while (gate->conns)
		gate_close(gate->conns);
	gate_close_listeners(gate);
	loop_timer_clear(&gate->p.loop, &gate->sweep);
	chan_free(&gate->auth);
	for (i = 0; i < GATE_WORKERS_MAX; i++)
		chan_free(&gate->workers[i]);
	while (hmap_next(&gate->ips, &pos, NULL, NULL, &v))
		free(v);
	hmap_free(&gate->ips);
	hmap_free(&gate->asking);
	SSL_CTX_free(gate->tls);
}

int gate_main(unsigned index, unsigned generation)
{
	static struct gate gate;
	struct err err = ERR_INIT;

	if (proc_start(&gate.p, ROLE_GATE, index, generation, &gate_ops, &gate, &err) < 0) {
		log_event(LOG_ERROR, "gate cannot start", LF_ERR(&err), LF_END);
		return 1;
	}
	gate.p.loop.owner = &gate;
	gate.p.loop.idle = check_end;
	gate.sweep.fire = gate_on_sweep;
	gate.sweep.owner = &gate;
	set_limits(&gate);
	gate.start = (uint32_t)time(NULL);
	loop_run(&gate.p.loop);
	release(&gate);
	proc_release(&gate.p);
	return 0;
}
