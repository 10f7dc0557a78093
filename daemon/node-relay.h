/* node-relay - from a login to where its user is served: here, or on the node
 * that has the user, to which the session is then passed on.
 *
 *   PLACE --mine--> (the engine runs here)
 *     |  \--another node's--> LINK --HERE--> PASS
 *     |                        |  \--MOVED--> LINK to that one (at most twice in a row)
 *     +<------- PAUSE <--------+--GONE, no connection, no answer in time
 *
 * A session that came from another node is never passed on: it is answered
 * with who has the user.  So no session runs in circles.
 * Threads: the session's. */
#ifndef DAEMON_NODE_RELAY_H
#define DAEMON_NODE_RELAY_H
#include "daemon/conn.h"

struct relay;
struct worker;
/* guest: the session came over a link from another node. */
struct relay *relay_new(struct worker *w, bool guest);
/* As conn_ops.run.  True: the engine is to run now; the relay holds the user until it is freed. False: *want_r. */
bool relay_run(struct relay *r, struct conn *c, unsigned events, enum conn_want *want_r);
/* Before the session is parked: conn_wake() is called when there is something to do. */
void relay_watch(struct relay *r, struct conn *c);
int relay_fd(const struct relay *r);	/* the link's socket, -1: there is none; r may be NULL */
void relay_free(struct relay **r);
#endif
