/* The relay of a TLS connection: gate has the keys, the worker has the other
 * end of a socketpair.
 *
 * Each direction reads only when what it read before is written, so a side
 * that does not take its data stops the other, and the buffers are bounded
 * by one piece each.  The client's end of data is passed on; the worker's,
 * once the client has all of it, ends the connection.
 *
 * Both descriptors are watched edge-triggered: a hang-up of a side that is not
 * read now would otherwise be reported without end.  So a step goes on until
 * nothing moves, or asks to come again. */
#include "daemon/gate.h"

#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE = 16 * 1024, BUDGET = 16 };

struct gate_relay {
	struct loop_src src;		/* the worker's side */
	struct gconn *g;
	struct buf to_worker, to_client;	/* what could not be written yet */
	bool client_eof, worker_eof;	/* read to its end */
	bool worker_shut, client_shut;	/* and passed on */
};

static void on_worker(struct loop_src *src, uint32_t events)
{
	struct gate_relay *r = src->owner;

	gate_relay_step(r->g);
}

int gate_relay_start(struct gconn *g, int fd)
{
	struct gate_relay *r = MEM_NEW(struct gate_relay);

	r->src.ready = on_worker;
	r->src.owner = r;
	r->g = g;
	if (io_set_nonblock(fd, true) < 0 || loop_add(&g->gate->p.loop, &r->src, fd, EPOLLIN | EPOLLET) < 0) {
		close(fd);
		free(r);
		return -1;
	}
	g->relay = r;
	g->gate->n_relays++;
	g->state = G_RELAY;
	return 0;
}

void gate_relay_free(struct gconn *g)
{
	struct gate_relay *r = g->relay;
	int fd;

	if (!r)
		return;
	g->relay = NULL;
	g->gate->n_relays--;
	fd = r->src.fd;
	loop_del(&g->gate->p.loop, &r->src);
	io_close(&fd);
	buf_free(&r->to_worker);
	buf_free(&r->to_client);
	loop_free_later(&g->gate->p.loop, r);
}

static ssize_t worker_write(struct gate_relay *r, const void *data, size_t len)
{
	ssize_t n;

	do {
		n = send(r->src.fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n;
}

static ssize_t worker_read(struct gate_relay *r, void *data, size_t len)
{
	ssize_t n;

	do {
		n = recv(r->src.fd, data, len, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	return n;
}

static ssize_t side_read(struct gate_relay *r, bool up, void *data, size_t len)
{
	return up ? gate_read(r->g, data, len) : worker_read(r, data, len);
}

static ssize_t side_write(struct gate_relay *r, bool up, const void *data, size_t len)
{
	return up ? worker_write(r, data, len) : gate_write(r->g, data, len);
}

/* Writes what is pending; 1 nothing is left, 0 something is, -1 broken. */
static int drain(struct gate_relay *r, bool up)
{
	struct buf *b = up ? &r->to_worker : &r->to_client;

	while (b->len) {
		ssize_t n = side_write(r, up, b->data, b->len);

		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
			return 0;
		if (n <= 0)
			return -1;
		buf_consume(b, (size_t)n);
	}
	buf_free(b);
	return 1;
}

/* One direction; 1 moved something, 0 nothing to do now, -1 broken. */
static int move(struct gate_relay *r, bool up)
{
	static unsigned char piece[PIECE];
	bool *eof = up ? &r->client_eof : &r->worker_eof;
	struct buf *b = up ? &r->to_worker : &r->to_client;
	ssize_t n, put;
	int rc = drain(r, up);

	if (rc <= 0 || *eof)
		return rc < 0 ? -1 : 0;
	n = side_read(r, up, piece, sizeof(piece));
	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	if (n == 0) {
		*eof = true;
		return 1;
	}
	put = side_write(r, up, piece, (size_t)n);
	if (put < 0 && errno != EAGAIN && errno != ENOBUFS)
		return -1;
	if (put < n) {
		buf_add(b, piece + (put > 0 ? put : 0), (size_t)(n - (put > 0 ? put : 0)));
		return 0;
	}
	return 1;
}

static void pass_ends(struct gate_relay *r)
{
	if (r->client_eof && !r->to_worker.len && !r->worker_shut) {
		(void)shutdown(r->src.fd, SHUT_WR);
		r->worker_shut = true;
	}
	if (r->worker_eof && !r->to_client.len && !r->client_shut) {
		(void)SSL_shutdown(r->g->ssl);
		(void)shutdown(r->g->src.fd, SHUT_WR);
		r->client_shut = true;
	}
}

static void watch(struct gate_relay *r, bool again)
{
	struct loop *l = &r->g->gate->p.loop;
	uint32_t client = EPOLLET, worker = EPOLLET;

	if (r->to_worker.len)
		worker |= EPOLLOUT;
	else if (!r->client_eof)
		client |= EPOLLIN;
	if (r->to_client.len)
		client |= EPOLLOUT;
	else if (!r->worker_eof)
		worker |= EPOLLIN;
	if (again) {	/* a changed mask is looked at afresh */
		worker |= EPOLLOUT;
		r->src.events = 0;
	}
	loop_mod(l, &r->g->src, client);
	loop_mod(l, &r->src, worker);
}

void gate_relay_step(struct gconn *g)
{
	struct gate_relay *r = g->relay;
	int up = 1, down = 1, budget = BUDGET;

	while ((up == 1 || down == 1) && budget--) {
		up = up == 1 ? move(r, true) : up;
		down = down == 1 ? move(r, false) : down;
		if (up < 0 || down < 0) {
			gate_close(g);
			return;
		}
	}
	pass_ends(r);
	/* A worker that closed will not read what the client may still send. */
	if (r->client_shut) {
		gate_close(g);
		return;
	}
	watch(r, up == 1 || down == 1);
}
