/* node-link - the encrypted connection between two nodes, without its socket:
 * bytes go in, bytes come out.  docs/architecture.md, "Nodes", has the bytes.
 *
 * Both sides prove that they know the deployment's key before anything one of
 * them sends is acted upon: the side that connected by its first frame.
 * Errors:  ERR_DENIED the other side does not know the key, or is no node;
 *          ERR_CORRUPT a frame that was changed, cut, repeated or left out.
 *          A link that failed stays failed.
 * Threads: one at a time.  Never blocks. */
#ifndef DAEMON_NODE_LINK_H
#define DAEMON_NODE_LINK_H
#include <sodium.h>

#include "base/buf.h"
#include "base/err.h"

#define NODE_KEY_LABEL "culver node 1"	/* seal_derive() makes the key of it */

enum {
	NODE_KEY_BYTES = 32,
	NODE_FRAME_MAX = 16 * 1024,	/* bytes in one frame */
	NODE_FRAME_EXTRA = 2 + 17,	/* length; libsodium's tag and authenticator */
	NODE_START_BYTES = 24,		/* of each direction's stream */
	NODE_ASK_BYTES = 8 + 32 + 32, NODE_ANSWER_BYTES = 32 + 32,
	NODE_IN_MAX = 64 * 1024		/* bytes fed and not taken yet */
};
/* What a frame is; libsodium's own tags. */
enum node_tag {
	NODE_DATA = 0,
	NODE_CONTROL = 1,		/* one byte, enum node_control, beside the data */
	NODE_END = 3			/* the last frame of its direction, empty */
};
enum node_control { NODE_STOP = 1 /* the client's node is stopping: end the session */ };

struct node_handshake;
struct node_link {
	crypto_secretstream_xchacha20poly1305_state push, pull;
	struct node_handshake *hs;	/* until both streams have begun */
	struct buf in;
	size_t in_pos;			/* taken so far */
	bool connected;			/* this side did: it asks */
	bool up;			/* frames can be sent */
	bool pulling;			/* the other's stream has begun */
	bool ended, end_sent;		/* NODE_END came, went */
	int failed;			/* enum err_code, or 0 */
};

/* The side that connected puts its first bytes into out; the other adds nothing. */
void node_link_init(struct node_link *l, const unsigned char key[NODE_KEY_BYTES], bool connected, struct buf *out);
void node_link_free(struct node_link *l);
/* At most node_link_room() bytes that came; what they ask for is appended to out. */
size_t node_link_room(const struct node_link *l);
int node_link_feed(struct node_link *l, const void *data, size_t len, struct buf *out);
/* The next frame: 1 with its bytes in frame, 0 it is not all there, <0. */
int node_link_next(struct node_link *l, unsigned char frame[NODE_FRAME_MAX], size_t *len_r, enum node_tag *tag_r);
/* Appends a frame of at most NODE_FRAME_MAX bytes to out; the link must be up and not ended by this side. */
void node_link_push(struct node_link *l, enum node_tag tag, const void *data, size_t len, struct buf *out);
void node_link_rest(struct node_link *l);	/* gives back memory that an idle link does not need */
#endif
