/* pool - threads that run small tasks; as many as there is work for, up to a
 * maximum, and fewer again when there is not.
 * Threads: any. */
#ifndef DAEMON_POOL_H
#define DAEMON_POOL_H
#include <stddef.h>

struct pool;
struct pool_task {			/* embedded in what the task works on */
	struct pool_task *next;
	void (*run)(struct pool_task *t);
};

struct pool *pool_new(size_t max_threads);
/* Runs what is queued, ends the threads and waits for them. */
void pool_free(struct pool **p);
/* A task may be added again once its run() began; not while it is queued. */
void pool_add(struct pool *p, struct pool_task *t);

/* Runs fn(ctx, i) for i = 0..n-1 and returns when all have returned.  The
 * caller works too, so this cannot deadlock however busy the pool is. */
void pool_each(struct pool *p, size_t n, void (*fn)(void *ctx, size_t i), void *ctx);
#endif
