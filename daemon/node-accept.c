/* Connections from other nodes up to their hello; and what the node as such has. */
#include "daemon/node-stream.h"
#include "daemon/session.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "crypt/seal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS = 16, COMPLAIN_MS = 60000 };

/* --- strangers --- */

/* Anybody can make this happen: one line a minute, which says how many there were. */
static void complain(struct worker *w, const char *peer, const char *why)
{
	long long last = atomic_load(&w->node.complained_ms), now = loop_clock_ms();
	unsigned n = atomic_fetch_add(&w->node.refused, 1) + 1;

	if ((last && now - last < COMPLAIN_MS) || !atomic_compare_exchange_strong(&w->node.complained_ms, &last, now))
		return;
	atomic_fetch_sub(&w->node.refused, n);
	log_event(LOG_WARN, "refused at the node port", LF_S("peer", peer), LF_S("why", why), LF_U("connections", n), LF_END);
}

void node_link_broken(struct worker *w, const struct conn *c, const struct node_stream *st)
{
	if (c->ops == &node_accept_ops)
		complain(w, c->peer, node_stream_why(st));
	else if (c->from_node || c->to_node)
		log_event(LOG_WARN, "the link to another node broke", LF_S("protocol", c->ops->name), LF_S("node", c->from_node ? c->from_node : c->to_node),
			  LF_S("peer", c->peer), LF_S("why", node_stream_why(st)), LF_END);
}

/* --- the hello --- */

static enum conn_want become_session(struct conn *c, struct node_hello *h, size_t used)
{
	struct worker *w = c->env->worker;
	const struct conn_ops *ops = NULL;
	struct msg_conn m;

	if (msg_conn_get(&h->rest, &m) == 0 && (m.proto == PROTO_IMAP || m.proto == PROTO_POP3))
		ops = session_engine(m.proto);
	if (!ops || !*m.user || (m.proto == PROTO_IMAP && !*m.tag)) {
		log_event(LOG_ERROR, "another node's request makes no sense", LF_S("node", h->node), LF_S("peer", c->peer), LF_END);
		return CONN_CLOSE;
	}
	atomic_fetch_sub(&w->node.strangers, 1);
	session_become(c, ops, &m, h->node);
	buf_consume(&c->in, used);
	log_set_session(c->id);
	log_event(LOG_INF, "session from another node", LF_S("protocol", ops->name), LF_S("user", c->user), LF_S("node", c->from_node), LF_S("peer", c->peer), LF_END);
	return CONN_WANT_AGAIN;
}

static enum conn_want on_hello(struct conn *c, struct node_hello *h, size_t used)
{
	struct worker *w = c->env->worker;

	if (h->kind == NODE_SESSION)
		return become_session(c, h, used);
	atomic_fetch_sub(&w->node.strangers, 1);
	session_become(c, &node_serve_ops, NULL, h->node);
	buf_consume(&c->in, used);
	node_answer_put(&c->out, NODE_HERE, w->node.name, NULL);
	return CONN_WANT_AGAIN;
}

static enum conn_want accept_run(struct conn *c, unsigned events)
{
	struct worker *w = c->env->worker;
	struct node_hello h;
	size_t used;
	int rc;

	if (events & CONN_EV_TIMEOUT)
		complain(w, c->peer, "it did not say what it wants in time");
	if (events & (CONN_EV_TIMEOUT | CONN_EV_STOP))
		return CONN_CLOSE;
	rc = node_hello_get(&c->in, &h, &used);
	if (rc == 1)
		return on_hello(c, &h, used);
	if (rc < 0)
		complain(w, c->peer, "its request makes no sense");
	return rc < 0 ? CONN_CLOSE : CONN_WANT_INPUT;
}

static void accept_free(struct conn *c)
{
	struct worker *w = c->env->worker;

	atomic_fetch_sub(&w->node.strangers, 1);
}

const struct conn_ops node_accept_ops = { "node", accept_run, accept_free };

/* --- accepting --- */

static void peer_text(const struct sockaddr_storage *ss, char out[64])
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;
	const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
	bool six = ss->ss_family == AF_INET6;
	char host[INET6_ADDRSTRLEN] = "?";

	(void)inet_ntop(ss->ss_family, six ? (const void *)&in6->sin6_addr : (const void *)&in->sin_addr, host, sizeof(host));
	snprintf(out, 64, six ? "[%s]:%u" : "%s:%u", host, ntohs(six ? in6->sin6_port : in->sin_port));
}

static void accepted(struct worker *w, int fd, const struct sockaddr_storage *from)
{
	char id[24], peer[64];
	struct msg_conn m = { .id = id, .peer = peer, .local = "" };
	struct session *s;

	peer_text(from, peer);
	if (w->stopping || atomic_load(&w->node.strangers) >= NODE_STRANGERS_MAX) {
		if (!w->stopping)
			complain(w, peer, "too many connections that have not shown who they are");
		close(fd);
		return;
	}
	snprintf(id, sizeof(id), "node.%u", ++w->node.next_serial);
	node_socket_options(fd);
	s = session_make(w, &node_accept_ops, &m);
	s->c.timeout_ms = NODE_HELLO_MS;
	session_add_stream(s, fd, false);
	atomic_fetch_add(&w->node.strangers, 1);
	if (session_add(s, fd) < 0) {
		atomic_fetch_sub(&w->node.strangers, 1);
		session_release(s);
	}
}

static void on_listen(struct loop_src *src, uint32_t events)
{
	struct sockaddr_storage ss;
	int i, fd;

	for (i = 0; i < ACCEPTS; i++) {
		socklen_t len = sizeof(ss);

		memset(&ss, 0, sizeof(ss));
		fd = accept4(src->fd, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			return;
		accepted(src->owner, fd, &ss);
	}
}

void node_listen(struct worker *w, int fd)
{
	struct loop_src *src = &w->node.listen[w->node.n_listen];

	if (w->node.n_listen == NODE_LISTEN_MAX || loop_add(&w->p.loop, src, fd, EPOLLIN) < 0) {
		log_event(LOG_ERROR, "the node port cannot be watched", LF_S("why", strerror(errno)), LF_END);
		close(fd);
		return;
	}
	src->ready = on_listen;
	src->owner = w;
	w->node.n_listen++;
}

void node_init(struct worker *w, const char *address)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&w->node.lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->node.changed, &attr);
	pthread_condattr_destroy(&attr);
	w->node.name = mem_printf("%s-w%u", w->p.conf.hostname, w->p.index);
	w->node.address = mem_strdup(address);
}

void node_release(struct worker *w)
{
	while (w->node.n_listen) {
		struct loop_src *src = &w->node.listen[--w->node.n_listen];
		int fd = src->fd;

		loop_del(&w->p.loop, src);
		io_close(&fd);
	}
	free(w->node.name);
	free(w->node.address);
	sodium_memzero(w->node.key, sizeof(w->node.key));
}
