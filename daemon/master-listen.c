#include "daemon/master.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096, BUSY_TRIES = 250, BUSY_WAIT_MS = 20 };

static int bind_unix(const char *path, mode_t mode, struct err *err)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct stat st;
	int fd, rc = 0;

	if (strlen(path) >= sizeof(sun.sun_path))
		return err_set(err, ERR_INVALID, "%s: too long a path for a unix socket", path);
	memcpy(sun.sun_path, path, strlen(path));
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		(void)unlink(path);	/* a dead server's: the lock on state_dir says so */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(err, "socket", path);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
		rc = err_errno(err, "bind", path);
	else if (chmod(path, mode) < 0)
		rc = err_errno(err, "chmod", path);
	else if (listen(fd, BACKLOG) < 0)
		rc = err_errno(err, "listen", path);
	if (rc < 0)
		io_close(&fd);
	return rc < 0 ? rc : fd;
}

static socklen_t make_address(const char *address, unsigned port, bool v4_only, struct sockaddr_storage *ss)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
	bool any = !strcmp(address, "*");

	memset(ss, 0, sizeof(*ss));
	if ((any && !v4_only) || strchr(address, ':')) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		if (!any)
			(void)inet_pton(AF_INET6, address, &in6->sin6_addr);
		return sizeof(*in6);
	}
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)port);
	if (!any)
		(void)inet_pton(AF_INET, address, &in->sin_addr);
	return sizeof(*in);
}

/* At a start the gates of a master that was killed may still hold the address
 * for the moment they need to notice. */
static int bind_patiently(int fd, const struct sockaddr_storage *ss, socklen_t len, const char *where, bool wait)
{
	int tries;

	for (tries = 0; bind(fd, (const struct sockaddr *)ss, len) < 0; tries++) {
		if (errno != EADDRINUSE || !wait || tries == BUSY_TRIES)
			return -1;
		if (tries == 0)
			log_event(LOG_WARN, "address is in use: waiting for the process that has it to end", LF_S("address", where), LF_END);
		usleep(BUSY_WAIT_MS * 1000);
	}
	return 0;
}

static int bind_inet(const char *address, unsigned port, bool v4_only, const char *where, bool wait, struct err *err)
{
	struct sockaddr_storage ss;
	socklen_t len = make_address(address, port, v4_only, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, only6 = strcmp(address, "*") != 0, rc = 0;

	if (fd < 0 && errno == EAFNOSUPPORT && !strcmp(address, "*") && !v4_only)
		return bind_inet(address, port, true, where, wait, err);
	if (fd < 0)
		return err_errno(err, "socket", where);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ss.ss_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only6, sizeof(only6));
	if (bind_patiently(fd, &ss, len, where, wait) < 0)
		rc = err_errno(err, "bind", where);
	else if (listen(fd, BACKLOG) < 0)
		rc = err_errno(err, "listen", where);
	if (rc < 0)
		io_close(&fd);
	return rc < 0 ? rc : fd;
}

static int open_one(const struct conf_listen *l, const char *address, const struct bound *old, struct bound **tail, struct err *err)
{
	bool path = *address == '/', v6 = strchr(address, ':'), starting = !old;
	struct bound *b = MEM_NEW(struct bound);

	b->where = path ? mem_strdup(address) : mem_printf(v6 ? "[%s]:%u" : "%s:%u", address, (unsigned)l->port);
	b->protocol = l->protocol;
	b->tls = l->tls;
	for (; old; old = old->next)
		if (!strcmp(old->where, b->where))
			break;
	if (old)
		b->fd = old->fd;
	else if (path)
		b->fd = bind_unix(address, (mode_t)strtoul(l->mode, NULL, 8), err);
	else
		b->fd = bind_inet(address, (unsigned)l->port, false, b->where, starting, err);
	*tail = b;
	return b->fd < 0 ? b->fd : 0;
}

int listen_open(const struct conf *c, const struct bound *old, struct bound **bound_r, struct err *err)
{
	struct bound **tail = bound_r;
	size_t i, k;
	int rc = 0;

	*bound_r = NULL;
	for (i = 0; i < c->listen.n && rc == 0; i++) {
		const struct conf_listen *l = conf_listener(c, i);

		if (l->protocol == CONF_NODE)
			continue;
		for (k = 0; k < l->address.n && rc == 0; k++) {
			rc = open_one(l, l->address.v[k], old, tail, err);
			tail = &(*tail)->next;
		}
	}
	if (rc < 0)
		listen_close(bound_r, old);
	return rc;
}

/* --- node ports --- */

/* The port a socket has, which the kernel may have chosen. */
static unsigned port_of(int fd)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);

	(void)getsockname(fd, (struct sockaddr *)&ss, &len);
	return ntohs(ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&ss)->sin6_port : ((struct sockaddr_in *)&ss)->sin_port);
}

static char *with_port(const char *address, unsigned port)
{
	return mem_printf(strchr(address, ':') ? "[%s]:%u" : "%s:%u", address, port);
}

static int open_node(const char *address, unsigned port, unsigned worker, struct bound **tail, struct err *err)
{
	struct bound *b = MEM_NEW(struct bound);

	b->where = with_port(address, port);
	b->protocol = CONF_NODE;
	b->tls = CONF_TLS_NO;
	b->worker = worker;
	b->fd = bind_inet(address, port, false, b->where, true, err);
	*tail = b;
	if (b->fd < 0)
		return b->fd;
	free(b->where);
	b->where = with_port(address, port_of(b->fd));
	return 0;
}

int listen_nodes(const struct conf *c, struct bound **bound_r, struct err *err)
{
	struct bound **tail = bound_r;
	size_t i, k;
	unsigned n;
	int rc = 0;

	*bound_r = NULL;
	for (i = 0; i < c->listen.n; i++) {
		const struct conf_listen *l = conf_listener(c, i);

		for (k = 0; k < l->address.n && l->protocol == CONF_NODE; k++) {
			for (n = 0; n < c->worker_count && rc == 0; n++) {
				rc = open_node(l->address.v[k], l->port ? (unsigned)l->port + n : 0, n, tail, err);
				tail = &(*tail)->next;
			}
		}
	}
	if (rc < 0)
		listen_close(bound_r, NULL);
	return rc;
}

char *listen_node_address(const struct conf *c, const struct bound *nodes, unsigned worker)
{
	const char *host = c->node_address;

	while (nodes && nodes->worker != worker)
		nodes = nodes->next;
	if (!nodes)
		return mem_strdup("");
	if (!*host && *nodes->where != '*')
		return mem_strdup(nodes->where);
	return with_port(*host ? host : c->hostname, port_of(nodes->fd));
}

void listen_close(struct bound **pb, const struct bound *but)
{
	const struct bound *o;
	struct bound *b;

	while ((b = *pb)) {
		*pb = b->next;
		for (o = but; o && o->fd != b->fd; o = o->next)
			;
		if (!o)
			io_close(&b->fd);
		free(b->where);
		free(b);
	}
}

void listen_log(const struct bound *b)
{
	for (; b; b = b->next)
		log_event(LOG_INF, "listening", LF_S("protocol", conf_protocol_name(b->protocol)), LF_S("address", b->where),
			  LF_S("tls", conf_tls_name(b->tls)), LF_END);
}

/* --- the admin sockets: admin.sock for worker 0, admin.N.sock for worker N --- */

static void on_admin(struct loop_src *src, uint32_t events)
{
	struct admin *a = src->owner;
	struct master *m = a->m;
	struct child *c;
	char id[24];
	int fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC);
	struct msg_conn conn = { .proto = PROTO_ADMIN, .loopback = true, .id = id, .peer = "unix", .local = a->path };
	struct buf msg = BUF_INIT(CHAN_MSG_MAX);

	if (fd < 0)
		return;
	snprintf(id, sizeof(id), "admin.%u", ++m->next_admin);
	msg_conn_put(&msg, &conn);
	for (c = m->children; c; c = c->next)
		if (c->role == ROLE_WORKER && c->index == a->worker && c->slot && c->ctl)
			break;
	if (c)
		(void)chan_send(c->ctl, &msg, fd);
	else
		close(fd);
	buf_free(&msg);
}

static int admin_add(struct master *m, char *path, unsigned worker, struct err *err)
{
	struct admin *a = &m->admin[m->n_admin];
	int fd = bind_unix(path, 0600, err);

	if (fd < 0) {
		free(path);
		return fd;
	}
	m->n_admin++;
	a->m = m;
	a->worker = worker;
	a->path = path;
	a->src.ready = on_admin;
	a->src.owner = a;
	return loop_add(&m->loop, &a->src, fd, EPOLLIN) < 0 ? err_errno(err, "epoll", path) : 0;
}

int admin_open(struct master *m, struct err *err)
{
	unsigned i;
	int rc = admin_add(m, mem_printf("%s/admin.sock", m->conf.run_dir), 0, err);

	for (i = 0; i < m->conf.worker_count && rc == 0; i++)
		rc = admin_add(m, mem_printf("%s/admin.%u.sock", m->conf.run_dir, i), i, err);
	return rc;
}

void admin_close(struct master *m)
{
	while (m->n_admin) {
		struct admin *a = &m->admin[--m->n_admin];
		int fd = a->src.fd;

		loop_del(&m->loop, &a->src);
		io_close(&fd);
		(void)unlink(a->path);
		free(a->path);
	}
}
