#include "daemon/node-stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum { DEAD_AFTER_MS = 60000, PROBE_S = 20 };

void node_stream_init(struct node_stream *s, int fd, const unsigned char key[NODE_KEY_BYTES], bool connected)
{
	memset(s, 0, sizeof(*s));
	s->fd = fd;
	buf_init(&s->out, 2 * NODE_OUT_HIGH);
	node_link_init(&s->link, key, connected, &s->out);
}

void node_stream_free(struct node_stream *s)
{
	node_link_free(&s->link);
	buf_free(&s->out);
}

void node_socket_options(int fd)
{
	int on = 1, probe = PROBE_S, n = 3;
	unsigned dead = DEAD_AFTER_MS;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &probe, sizeof(probe));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe, sizeof(probe));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &n, sizeof(n));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead, sizeof(dead));
}

int node_stream_flush(struct node_stream *s)
{
	size_t done = 0;
	ssize_t n = 0;

	while (done < s->out.len) {
		n = send(s->fd, s->out.data + done, s->out.len - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		done += (size_t)n;
	}
	buf_consume(&s->out, done);
	if (n < 0 && errno != EAGAIN && errno != ENOBUFS) {
		s->sys = s->sys ? s->sys : errno;	/* the first says why, later ones only that it is broken */
		return -1;
	}
	return !s->out.len;
}

/* Frames that are there; true: something came of it. */
static bool take_frames(struct node_stream *s, struct buf *into, size_t max)
{
	bool came = false;
	enum node_tag tag;
	size_t len;

	for (;;) {
		unsigned char *room;

		s->more = max - into->len < NODE_FRAME_MAX;
		room = s->more ? NULL : buf_reserve(into, NODE_FRAME_MAX);
		if (!room || node_link_next(&s->link, room, &len, &tag) != 1)
			return came;
		if (tag == NODE_CONTROL)
			s->stop |= room[0] == NODE_STOP;
		else
			into->len += len;
		came |= tag != NODE_DATA || len;
	}
}

int node_stream_read(struct node_stream *s, struct buf *into, size_t max)
{
	static __thread unsigned char room[NODE_IN_MAX];
	bool came = take_frames(s, into, max);
	size_t len;
	ssize_t n;

	while (!s->more && !s->link.failed && !s->link.ended) {
		len = node_link_room(&s->link);
		n = recv(s->fd, room, len, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		s->cut = n <= 0;
		if (n < 0 && !s->sys)
			s->sys = errno;
		if (n <= 0 || node_link_feed(&s->link, room, (size_t)n, &s->out) < 0)
			break;
		came |= take_frames(s, into, max);
		if ((size_t)n < len)
			break;
	}
	if (s->out.len && node_stream_flush(s) < 0)
		s->cut = true;
	/* What came before the cut is handed out first: reading again meets it again. */
	if (came)
		return 1;
	return s->link.failed || s->cut ? -1 : 0;
}

size_t node_stream_write(struct node_stream *s, const void *data, size_t len)
{
	const unsigned char *p = data;
	size_t done = 0, n;

	while (s->link.up && done < len && s->out.len < NODE_OUT_HIGH) {
		n = len - done < NODE_FRAME_MAX ? len - done : NODE_FRAME_MAX;
		node_link_push(&s->link, NODE_DATA, p + done, n, &s->out);
		done += n;
	}
	return done;
}

void node_stream_control(struct node_stream *s, enum node_control what)
{
	unsigned char b = (unsigned char)what;

	if (s->link.up && !s->link.end_sent)
		node_link_push(&s->link, NODE_CONTROL, &b, 1, &s->out);
}

void node_stream_end(struct node_stream *s)
{
	if (s->link.up && !s->link.end_sent)
		node_link_push(&s->link, NODE_END, NULL, 0, &s->out);
}

void node_stream_rest(struct node_stream *s)
{
	node_link_rest(&s->link);
	if (!s->out.len)
		buf_free(&s->out);
}

const char *node_stream_why(const struct node_stream *s)
{
	if (s->link.failed == ERR_DENIED)
		return "the other side does not have this deployment's key, or is no node";
	if (s->link.failed)
		return "a frame is damaged";
	return s->sys ? strerror(s->sys) : "the connection was cut";
}
