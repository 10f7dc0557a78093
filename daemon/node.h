/* node - a worker as one of the nodes that share a store: what it says to the
 * others and hears from them.
 *
 *   accepted -> handshake -> hello --SESSION--> an engine's session, over the link
 *                                  \-DELIVER--> node-serve.c
 *   a login whose user lives elsewhere -> node-relay.c
 *   mail for such a user               -> node-peer.c
 *
 * All of these but the relay's link are sessions like others (worker-session.c). */
#ifndef DAEMON_NODE_H
#define DAEMON_NODE_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/hmap.h"
#include "daemon/loop.h"
#include "obox/obox.h"

struct conn;
struct conn_ops;
struct err;
struct msg_conn;
struct node_stream;
struct worker;

enum { NODE_LISTEN_MAX = 16, NODE_STRANGERS_MAX = 256, NODE_STRANGERS_PER_HOST = 32, NODE_HELLO_MS = 5000, NODE_MESSAGE_MAX = 8 * 1024 };

struct worker_node {
	unsigned char key[32];
	char *name;			/* this node's */
	char *address;			/* where the others reach it; "": nowhere */
	struct loop_src listen[NODE_LISTEN_MAX];
	unsigned n_listen;
	unsigned strangers;		/* connections that have not shown that they have the key; under lock */
	struct hmap hosts;		/* how many of them each address has: struct node_host */
	atomic_llong complained_ms;
	atomic_uint refused;		/* since then */
	/* node-peer.c */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct hmap peers;		/* address to struct node_peer */
	uint32_t next_id, next_serial;
};

/* --- node-proto.c: messages at the beginning of a link: a 16-bit length, then --- */
enum node_kind { NODE_SESSION = 1, NODE_DELIVER, NODE_ADMIN };
enum node_code {
	NODE_HERE,		/* go on */
	NODE_MOVED,		/* another node has the user */
	NODE_GONE		/* not now: ask again who has the user */
};
struct node_hello {
	unsigned kind;
	const char *version, *node;	/* the sender's; as all strings here borrowed from what was read */
	struct rd rest;			/* SESSION: MSG_CONN without its type */
};
struct node_answer {
	unsigned code;
	const char *version, *node;
	struct obox_owner owner;	/* NODE_MOVED */
};
void node_hello_put(struct buf *out, enum node_kind kind, const char *node, const struct msg_conn *m);
void node_answer_put(struct buf *out, enum node_code code, const char *node, const struct obox_owner *owner);
/* 1 with how many bytes it has in *used_r, 0 it is not all there, -1 it makes no sense. */
int node_hello_get(const struct buf *in, struct node_hello *h, size_t *used_r);
int node_answer_get(const struct buf *in, struct node_answer *a, size_t *used_r);
void node_owner_put(struct buf *out, const struct obox_owner *o);
int node_owner_get(struct rd *r, struct obox_owner *o);
/* A socket that is connecting to "host:port", non-blocking, or <0.  Blocks for names that are not numbers. */
int node_connect(const char *address, struct err *err);

/* --- node-accept.c --- */
void node_init(struct worker *w, const char *address);	/* name and key are set; takes a copy */
void node_listen(struct worker *w, int fd);		/* loop thread; takes fd */
void node_release(struct worker *w);
/* A link that this node accepted or made is broken: says so in the log, of strangers not more than once a minute. */
void node_link_broken(struct worker *w, const struct conn *c, const struct node_stream *st);
extern const struct conn_ops node_accept_ops;

/* --- node-serve.c: deliveries from other nodes ---
 * Messages both ways: type (8 bits), id of the request (32), length (32), so many bytes.
 * A request is NODE_REQUEST (length of the file (64), enum deliver_form, version, what deliver_in_parse takes) and
 * its file, if any, in pieces; the next begins when it is complete.  Answers come in any order. */
enum node_message {
	NODE_REQUEST = 1, NODE_PIECE,
	NODE_RESULT,		/* deliver_results_put */
	NODE_BYE		/* no more requests, please: this node is stopping */
};
enum { NODE_MESSAGE_HEAD = 9, NODE_PIECE_MAX = 16 * 1024 - NODE_MESSAGE_HEAD };
void node_message_head(struct buf *out, enum node_message type, uint32_t id, size_t len);
extern const struct conn_ops node_serve_ops;

/* --- node-peer.c: deliveries to other nodes --- */
struct node_call;
/* What one request carries; see node-serve.c.  head is emptied, fd (or -1) taken. */
struct node_request {
	struct buf head;
	int fd;
	uint64_t file_len;
};
/* Makes sure that there is a connection.  0; <0: nothing can be sent there now. same_r: the node runs this very version. Blocks. */
int node_peer_up(struct worker *w, const char *address, bool *same_r, struct err *err);
/* Sends and waits.  0 with the answer; ERR_UNAVAILABLE, ERR_TIMEOUT: the outcome is not known unless *sent_r is false. */
int node_peer_call(struct worker *w, const char *address, struct node_request *rq, int timeout_ms, struct buf *answer, bool *sent_r);
#endif
