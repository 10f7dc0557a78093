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

/* An address, which of IPv6 is a /64: whoever has one has all of it. */
struct node_host {
	unsigned char key[9];		/* 4 or 6; the address's first bytes */
	unsigned n;
};

static void host_key(const struct sockaddr_storage *from, unsigned char key[9])
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
	bool six = from->ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

	memset(key, 0, 9);
	key[0] = six ? 6 : 4;
	if (six)
		memcpy(key + 1, &in6->sin6_addr, 8);
	else
		memcpy(key + 1, from->ss_family == AF_INET6 ? in6->sin6_addr.s6_addr + 12 : (const unsigned char *)&in->sin_addr, 4);
}

/* Counts one more from there; NULL: there are too many, and *why_r. */
static struct node_host *stranger_came(struct worker *w, const struct sockaddr_storage *from, const char **why_r)
{
	unsigned char key[9];
	struct node_host *h;

	host_key(from, key);
	pthread_mutex_lock(&w->node.lock);
	h = hmap_get(&w->node.hosts, key, sizeof(key));
	if (w->node.strangers >= NODE_STRANGERS_MAX || (h && h->n >= NODE_STRANGERS_PER_HOST)) {
		*why_r = h && h->n >= NODE_STRANGERS_PER_HOST ? "too many connections from one address that have not shown who they are" :
								  "too many connections that have not shown who they are";
		pthread_mutex_unlock(&w->node.lock);
		return NULL;
	}
	if (!h) {
		h = MEM_NEW(struct node_host);
		memcpy(h->key, key, sizeof(key));
		hmap_put(&w->node.hosts, h->key, sizeof(h->key), h);
	}
	h->n++;
	w->node.strangers++;
	pthread_mutex_unlock(&w->node.lock);
	return h;
}

/* It has ended, or shown who it is. */
static void stranger_went(struct worker *w, struct node_host *h)
{
	pthread_mutex_lock(&w->node.lock);
	w->node.strangers--;
	if (!--h->n) {
		hmap_del(&w->node.hosts, h->key, sizeof(h->key));
		free(h);
	}
	pthread_mutex_unlock(&w->node.lock);
}

static void stranger_known(struct conn *c)
{
	stranger_went(c->env->worker, c->session);
	c->session = NULL;
}

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
	const struct conn_ops *ops = NULL;
	struct msg_conn m;

	if (msg_conn_get(&h->rest, &m) == 0 && (m.proto == PROTO_IMAP || m.proto == PROTO_POP3))
		ops = session_engine(m.proto);
	if (!ops || !*m.user || (m.proto == PROTO_IMAP && !*m.tag)) {
		log_event(LOG_ERROR, "another node's request makes no sense", LF_S("node", h->node), LF_S("peer", c->peer), LF_END);
		return CONN_CLOSE;
	}
	stranger_known(c);
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
	stranger_known(c);
	session_become(c, h->kind == NODE_ADMIN ? &admin_conn_ops : &node_serve_ops, NULL, h->node);
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
	if (c->session)
		stranger_known(c);
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
	struct node_host *host;
	const char *why = NULL;
	struct session *s;

	peer_text(from, peer);
	host = w->stopping ? NULL : stranger_came(w, from, &why);
	if (!host) {
		if (why)
			complain(w, peer, why);
		close(fd);
		return;
	}
	snprintf(id, sizeof(id), "node.%u", ++w->node.next_serial);
	node_socket_options(fd);
	s = session_make(w, &node_accept_ops, &m);
	s->c.timeout_ms = NODE_HELLO_MS;
	s->c.session = host;
	session_add_stream(s, fd, false);
	if (session_add(s, fd) < 0) {
		stranger_went(w, host);
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
	hmap_free(&w->node.hosts);
	free(w->node.name);
	free(w->node.address);
	sodium_memzero(w->node.key, sizeof(w->node.key));
}
