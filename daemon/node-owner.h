/* node-owner - which node has a user. */
#ifndef DAEMON_NODE_OWNER_H
#define DAEMON_NODE_OWNER_H
#include <stdint.h>

struct obox_owner {
	char node[64];
	char address[256];		/* "host:port"; "" when it takes no connections */
	uint64_t incarnation;
};
#endif
