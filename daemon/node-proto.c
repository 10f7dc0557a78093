/* The first messages of a link between nodes. */
#include "daemon/node.h"

#include "base/err.h"
#include "base/io.h"
#include "base/mem.h"
#include "daemon/msg.h"
#include "daemon/node-stream.h"

#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for the length; returns where it goes. */
static size_t begin(struct buf *out)
{
	buf_put16(out, 0);
	return out->len;
}

static void end(struct buf *out, size_t at)
{
	size_t len = out->len - at;

	out->data[at - 2] = (unsigned char)len;
	out->data[at - 1] = (unsigned char)(len >> 8);
}

void node_owner_put(struct buf *out, const struct obox_owner *o)
{
	msg_put_str(out, o->node);
	msg_put_str(out, o->address);
	buf_put64(out, o->incarnation);
}

int node_owner_get(struct rd *r, struct obox_owner *o)
{
	const char *node = msg_get_str(r), *address = msg_get_str(r);

	o->incarnation = rd_64(r);
	if (r->failed || strlen(node) >= sizeof(o->node) || strlen(address) >= sizeof(o->address)) {
		memset(o, 0, sizeof(*o));
		return -1;
	}
	snprintf(o->node, sizeof(o->node), "%s", node);
	snprintf(o->address, sizeof(o->address), "%s", address);
	return 0;
}

void node_hello_put(struct buf *out, enum node_kind kind, const char *node, const struct msg_conn *m)
{
	size_t at = begin(out);

	buf_put8(out, (uint8_t)kind);
	msg_put_str(out, PACKAGE_VERSION);
	msg_put_str(out, node);
	if (m)
		msg_conn_put(out, m);
	end(out, at);
}

void node_answer_put(struct buf *out, enum node_code code, const char *node, const struct obox_owner *owner)
{
	size_t at = begin(out);

	buf_put8(out, (uint8_t)code);
	msg_put_str(out, PACKAGE_VERSION);
	msg_put_str(out, node);
	if (code == NODE_MOVED)
		node_owner_put(out, owner);
	end(out, at);
}

static int whole(const struct buf *in, struct rd *r, size_t *used_r)
{
	size_t len;

	if (in->len < 2)
		return 0;
	len = in->data[0] | (size_t)in->data[1] << 8;
	if (len > NODE_MESSAGE_MAX)
		return -1;
	if (in->len < 2 + len)
		return 0;
	*r = rd_init(in->data + 2, len);
	*used_r = 2 + len;
	return 1;
}

int node_hello_get(const struct buf *in, struct node_hello *h, size_t *used_r)
{
	struct rd r;
	int rc = whole(in, &r, used_r);

	if (rc != 1)
		return rc;
	h->kind = rd_8(&r);
	h->version = msg_get_str(&r);
	h->node = msg_get_str(&r);
	if (h->kind == NODE_SESSION && rd_8(&r) != MSG_CONN)
		return -1;
	h->rest = r;
	return r.failed || h->kind < NODE_SESSION || h->kind > NODE_ADMIN ? -1 : 1;
}

int node_answer_get(const struct buf *in, struct node_answer *a, size_t *used_r)
{
	struct rd r;
	int rc = whole(in, &r, used_r);

	memset(&a->owner, 0, sizeof(a->owner));
	if (rc != 1)
		return rc;
	a->code = rd_8(&r);
	a->version = msg_get_str(&r);
	a->node = msg_get_str(&r);
	if (a->code == NODE_MOVED && node_owner_get(&r, &a->owner) < 0)
		return -1;
	return r.failed || a->code > NODE_GONE ? -1 : 1;
}

void node_message_head(struct buf *out, enum node_message type, uint32_t id, size_t len)
{
	buf_put8(out, (uint8_t)type);
	buf_put32(out, id);
	buf_put32(out, (uint32_t)len);
}

static int try_address(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), e;

	if (fd < 0)
		return -1;
	node_socket_options(fd);
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 && errno != EINPROGRESS) {
		e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

int node_connect(const char *address, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *list, *ai;
	const char *colon = strrchr(address, ':');
	bool bracket = *address == '[' && colon && colon > address + 1 && colon[-1] == ']';
	char *host;
	int fd = -1, rc;

	if (!colon || colon == address)
		return err_set(err, ERR_INVALID, "\"%s\" is no address of a node", address);
	host = mem_strndup(address + bracket, (size_t)(colon - address) - 2 * bracket);
	rc = getaddrinfo(host, colon + 1, &hints, &list);
	free(host);
	if (rc != 0)
		return err_set(err, ERR_UNAVAILABLE, "%s: %s", address, gai_strerror(rc));
	for (ai = list; ai && fd < 0; ai = ai->ai_next)
		fd = try_address(ai);
	if (fd < 0)
		rc = err_errno(err, "connect", address);
	freeaddrinfo(list);
	return fd < 0 ? (rc < 0 ? ERR_UNAVAILABLE : rc) : fd;
}
