/* node-stream - a node link on its socket.
 *
 * Bytes as over a socket, with an end in each direction; a connection that is
 * cut without its end is broken, so nothing cut short passes for whole.
 * Threads: one at a time.  Blocks: never (node_stream_await: for its time). */
#ifndef DAEMON_NODE_STREAM_H
#define DAEMON_NODE_STREAM_H
#include "daemon/node-link.h"

enum { NODE_OUT_HIGH = 64 * 1024 };	/* sealed bytes that wait for the socket, when writing stops */

struct node_stream {
	struct node_link link;
	struct buf out;			/* sealed */
	int fd;				/* borrowed */
	bool stop;			/* NODE_STOP came */
	bool more;			/* reading stopped for lack of room */
	bool cut;			/* the socket ended without NODE_END */
	int sys;			/* errno of that, or 0 */
};

void node_stream_init(struct node_stream *s, int fd, const unsigned char key[NODE_KEY_BYTES], bool connected);
void node_stream_free(struct node_stream *s);
/* Sets what a socket between nodes needs: no delay, and dead peers are noticed. */
void node_socket_options(int fd);
/* Goes on with the handshake too.  1 something came (bytes appended to into, the end, a stop), 0 nothing now, -1 broken.
 * into holds at most max bytes afterwards; max is NODE_FRAME_MAX more than it holds at least. */
int node_stream_read(struct node_stream *s, struct buf *into, size_t max);
/* Takes as much as fits; 0 before the handshake is done. */
size_t node_stream_write(struct node_stream *s, const void *data, size_t len);
void node_stream_control(struct node_stream *s, enum node_control what);
void node_stream_end(struct node_stream *s);
int node_stream_flush(struct node_stream *s);	/* 1 all is sent, 0 some waits, -1 broken */
void node_stream_rest(struct node_stream *s);	/* gives back memory that an idle one does not need */
const char *node_stream_why(const struct node_stream *s);	/* it is broken: for the log */
#endif
