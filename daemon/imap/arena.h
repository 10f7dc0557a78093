/* arena - memory that lives as long as one command.
 *
 * Everything the parser makes of a command is allocated here and goes at
 * once when the command is over.  What a command can allocate is bounded by
 * its length, which the reader bounds.
 * Threads: one at a time. */
#ifndef DAEMON_IMAP_ARENA_H
#define DAEMON_IMAP_ARENA_H
#include <stddef.h>

struct arena_block;
struct arena {
	struct arena_block *head;
	size_t used;		/* bytes of head in use */
};

#define ARENA_INIT { NULL, 0 }

void *arena_alloc(struct arena *a, size_t size);	/* zeroed, aligned for any object */
char *arena_strndup(struct arena *a, const void *s, size_t len);
void arena_free(struct arena *a);	/* all of it; the arena may be used again */

#endif
