/* msg - what culverd's processes say to each other, one message per datagram.
 *
 * Every message begins with a byte, enum msg_type.  Sender and receiver are
 * the same program file, so there are no versions.
 *
 *   master to child     MSG_GO, MSG_STOP, MSG_DRAIN, MSG_CONF + memfd, MSG_LOG + descriptor, MSG_CERT + memfd (gate),
 *                       MSG_LISTEN + socket (gate, worker), MSG_PEER + socket
 *   child to master     MSG_READY; MSG_IDLE (a stopping worker: no sessions any more)
 *   gate, master to worker   MSG_CONN + the client's (or a relay's) descriptor
 *   gate, worker to auth     MSG_VERIFY, MSG_EXISTS;  back: MSG_ANSWER
 *   worker to worker    MSG_DELIVER + file of a large message; back: MSG_DELIVERED */
#ifndef DAEMON_MSG_H
#define DAEMON_MSG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum msg_type {
	MSG_GO = 1, MSG_STOP, MSG_DRAIN, MSG_CONF, MSG_LOG, MSG_CERT, MSG_LISTEN, MSG_PEER, MSG_READY, MSG_IDLE,
	MSG_CONN, MSG_VERIFY, MSG_EXISTS, MSG_ANSWER, MSG_DELIVER, MSG_DELIVERED
};
enum msg_role { ROLE_MASTER, ROLE_GATE, ROLE_AUTH, ROLE_WORKER, ROLE_COUNT };
enum msg_proto { PROTO_IMAP = 1, PROTO_POP3, PROTO_LMTP, PROTO_ADMIN };
enum msg_answer { ANSWER_NO, ANSWER_YES, ANSWER_LATER };

enum { MSG_USER_MAX = 255, MSG_TAG_MAX = 255, MSG_PASS_MAX = 1024 };

extern const char *const msg_role_name[ROLE_COUNT];

/* A connection that goes to a worker.  Strings are borrowed on sending; after
 * msg_conn_get they point into the message. */
struct msg_conn {
	unsigned proto;			/* enum msg_proto */
	bool tls, loopback;
	const char *id, *peer, *local;
	const char *user, *tag;		/* "" = none */
	const void *in;			/* input read already */
	size_t in_len;
};
void msg_conn_put(struct buf *out, const struct msg_conn *m);	/* with the type byte */
int msg_conn_get(struct rd *r, struct msg_conn *m);		/* after the type byte; 0 or -1 */

/* Strings in messages carry their NUL, so that they can be used in place. */
void msg_put_str(struct buf *out, const char *s);
const char *msg_get_str(struct rd *r);	/* borrowed; "" on overrun */

/* Index of the worker that a user's sessions and mail go to. */
unsigned msg_worker_of(const char *user, unsigned n_workers);
#endif
