/* lurk - a thread that has served a socket waits a moment for its next
 * input itself, which saves the way through the loop and another thread.
 * Few do so at one time, so that other work never waits for them for long. */
#ifndef DAEMON_LURK_H
#define DAEMON_LURK_H
#include <pthread.h>

struct lurk {
	int fd;		/* wakes the thread that lurks; -1: nobody does */
};

enum lurk_result { LURK_NOTHING, LURK_SOCK, LURK_OTHER };
/* Waits at most ms milliseconds until sock or other (-1: none) can be read, or
 * lurk_end() is called.  lock is taken for a moment: nothing is waited for when
 * *events is not 0 under it. */
enum lurk_result lurk_wait(struct lurk *l, pthread_mutex_t *lock, const unsigned *events, int sock, int other, int ms);
/* With that lock, after *events became other than 0. */
void lurk_end(struct lurk *l);
#endif
