/* Listening sockets, and what happens to a connection first. */
#include "daemon/gate.h"

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPT_BATCH = 64, SWEEP_MS = 60000 };

static bool from_here(const struct sockaddr_storage *a)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)a;

	if (a->ss_family == AF_INET)
		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	if (a->ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) || (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) && in6->sin6_addr.s6_addr[12] == 127);
	return true;	/* a unix socket */
}

static void begin(struct gconn *g, enum conf_tls tls)
{
	struct gate *gate = g->gate;

	if (gate_ip_full(gate, g->ip) || gate->n_conns > gate->max_conns || gate->n_conns + gate->n_relays > gate->max_fds) {
		if (tls != CONF_TLS_IMPLICIT)
			g->proto->bye(g, "Too many connections");
		gate_end(g);
		gate_update(g);
	} else if (tls == CONF_TLS_IMPLICIT) {
		if (gate_tls_begin(g) < 0)
			gate_close(g);
		else
			gate_handshake(g);
	} else if (g->proto->greet) {
		g->starttls_ok = tls == CONF_TLS_STARTTLS && gate->tls;
		gate_greet(g);
		gate_update(g);
	} else {
		g->state = G_HANDOVER;
		g->worker = gate->next_lmtp++ % (unsigned)gate->p.conf.worker_count;
		gate_ip_put(gate, g);
		gate_update(g);
	}
}

static void accepted(struct gate *gate, const struct gate_listener *l, int fd, const struct sockaddr_storage *from)
{
	struct gconn *g = MEM_NEW(struct gconn);
	int one = 1;

	g->gate = gate;
	g->proto = l->proto;
	g->src.ready = gate_on_client;
	g->src.owner = g;
	g->src.fd = -1;
	g->timer.fire = gate_on_timer;
	g->timer.owner = g;
	g->serial = ++gate->next_serial;
	g->accepted_ms = gate->p.loop.now_ms;
	g->loopback = from_here(from);
	buf_init(&g->in, GATE_IN_MAX);
	buf_init(&g->out, GATE_OUT_MAX);
	if (from->ss_family != AF_UNIX) {
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));	/* an idle client may be gone without a word */
	}
	if (loop_add(&gate->p.loop, &g->src, fd, EPOLLIN) < 0) {
		close(fd);
		free(g);
		return;
	}
	g->ip = gate_ip_get(gate, from);
	g->next = gate->conns;
	if (g->next)
		g->next->prev = g;
	gate->conns = g;
	gate->n_conns++;
	loop_timer_set(&gate->p.loop, &g->timer, (int64_t)gate->p.conf.limits.prelogin_timeout);
	begin(g, l->tls);
}

static void on_listener(struct loop_src *src, uint32_t events)
{
	struct gate_listener *l = src->owner;
	struct gate *gate = l->gate;
	struct sockaddr_storage from;
	socklen_t len;
	int fd, i;

	for (i = 0; i < ACCEPT_BATCH; i++) {
		len = sizeof(from);
		memset(&from, 0, sizeof(from));
		fd = accept4(src->fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			accepted(gate, l, fd, &from);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log_event(LOG_ERROR, "connections wait: no file descriptors or memory", LF_S("why", strerror(errno)), LF_U("connections", gate->n_conns), LF_END);
			loop_del(&gate->p.loop, src);
			l->paused = true;	/* until the next sweep */
			loop_timer_set(&gate->p.loop, &gate->sweep, 1000);
		}
		return;
	}
}

void gate_close_listeners(struct gate *gate)
{
	struct gate_listener *l;

	while ((l = gate->listeners)) {
		gate->listeners = l->next;
		loop_del(&gate->p.loop, &l->src);
		io_close(&l->fd);
		loop_free_later(&gate->p.loop, l);
	}
}

void gate_on_sweep(struct loop_timer *t)
{
	struct gate *gate = t->owner;
	struct gate_listener *l;

	for (l = gate->listeners; l; l = l->next)
		if (l->paused)
			l->paused = loop_add(&gate->p.loop, &l->src, l->fd, EPOLLIN | EPOLLEXCLUSIVE) < 0;
	gate_ip_sweep(gate);
	loop_timer_set(&gate->p.loop, t, SWEEP_MS);
}

void gate_on_listen(struct proc *p, struct rd *r, int fd)
{
	static const struct gate_proto *const protos[] = { NULL, &gate_imap, &gate_imap, &gate_pop3, &gate_pop3, &gate_lmtp };
	struct gate *gate = p->owner;
	struct gate_listener *l;
	unsigned protocol = rd_8(r), tls = rd_8(r);

	if (r->failed || protocol < CONF_IMAP || protocol > CONF_LMTP) {
		close(fd);
		return;
	}
	l = MEM_NEW(struct gate_listener);
	l->gate = gate;
	l->proto = protos[protocol];
	l->tls = (enum conf_tls)tls;
	l->fd = fd;
	l->src.fd = -1;
	l->src.ready = on_listener;
	l->src.owner = l;
	l->paused = true;	/* until MSG_GO */
	l->next = gate->listeners;
	gate->listeners = l;
}
