/* lmtp - local delivery: the protocol engine (lmtp_conn_ops in conn.h) and
 * what a finished message's delivery is.
 *
 * Threads: any; a delivery belongs to its caller.
 * Blocks:  on the disk and the store, until every target is durable or failed. */
#ifndef DAEMON_LMTP_LMTP_H
#define DAEMON_LMTP_LMTP_H
#include <stddef.h>

struct conn_env;
struct obox_msgin;

struct lmtp_target {
	const char *user;	/* whose mail it is */
	const char *address;	/* as the client wrote it */
	const char *mailbox;	/* to be used when it exists; NULL: INBOX */
	const char *prepend;	/* header lines for this recipient, with CRLF */
	int rc;			/* out: 0 durable, or an enum err_code */
};
struct lmtp_delivery {
	struct obox_msgin *msg;	/* finished */
	const char *from;	/* envelope sender, "" for the null one */
	struct lmtp_target *to;
	size_t n;
};

/* To users of this worker, one after the other; sets rc of each. */
void lmtp_deliver_here(struct conn_env *env, struct lmtp_delivery *d);
/* One target. */
void lmtp_deliver_one(struct conn_env *env, struct obox_msgin *msg, const char *from, struct lmtp_target *t);
#endif
