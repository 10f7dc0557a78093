#include "daemon/pool.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

enum { IDLE_SECONDS = 10, STACK_BYTES = 1 << 20, HELPERS_MAX = 16 };

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t work, ended;
	struct pool_task *head, **tail;
	size_t queued, threads, idle, max;
	bool quit;
};

/* With the lock; false: this thread should end. */
static bool wait_for_work(struct pool *p)
{
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_SECONDS;
	p->idle++;
	while (!p->head && !p->quit && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&p->work, &p->lock, &until);
	p->idle--;
	return p->head || (!p->quit && p->threads <= 2);	/* a pair stays */
}

static void *thread(void *arg)
{
	struct pool *p = arg;
	struct pool_task *t;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		if (!p->head && !wait_for_work(p))
			break;
		t = p->head;
		if (!t)
			continue;
		p->head = t->next;
		if (!p->head)
			p->tail = &p->head;
		p->queued--;
		pthread_mutex_unlock(&p->lock);
		t->run(t);
		pthread_mutex_lock(&p->lock);
	}
	p->threads--;
	pthread_cond_signal(&p->ended);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* With the lock. */
static void grow(struct pool *p)
{
	pthread_attr_t attr;
	pthread_t id;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	if (pthread_create(&id, &attr, thread, p) == 0)
		p->threads++;
	else if (!p->threads)
		log_event(LOG_ERROR, "cannot start a thread: work waits", LF_END);
	pthread_attr_destroy(&attr);
}

struct pool *pool_new(size_t max_threads)
{
	struct pool *p = MEM_NEW(struct pool);
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, &attr);
	pthread_cond_init(&p->ended, &attr);
	pthread_condattr_destroy(&attr);
	p->tail = &p->head;
	p->max = max_threads;
	return p;
}

void pool_free(struct pool **pp)
{
	struct pool *p = *pp;

	if (!p)
		return;
	*pp = NULL;
	pthread_mutex_lock(&p->lock);
	p->quit = true;
	pthread_cond_broadcast(&p->work);
	while (p->threads)
		pthread_cond_wait(&p->ended, &p->lock);
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->ended);
	free(p);
}

void pool_add(struct pool *p, struct pool_task *t)
{
	bool wake;

	pthread_mutex_lock(&p->lock);
	t->next = NULL;
	*p->tail = t;
	p->tail = &t->next;
	p->queued++;
	if (p->queued > p->idle && p->threads < p->max)
		grow(p);
	wake = p->idle > 0;
	pthread_mutex_unlock(&p->lock);
	if (wake)	/* without the lock, which it would wait for */
		pthread_cond_signal(&p->work);
}

/* --- pool_each --- */

struct each {
	pthread_mutex_t lock;
	pthread_cond_t done;
	size_t n, next, finished;
	unsigned refs;			/* the caller and the helpers that have not come yet */
	void (*fn)(void *ctx, size_t i);
	void *ctx;
};
struct helper {
	struct pool_task task;
	struct each *e;
};

/* Takes items until there are none; a helper that comes late finds nothing. */
static void work(struct each *e)
{
	pthread_mutex_lock(&e->lock);
	while (e->next < e->n) {
		size_t i = e->next++;

		pthread_mutex_unlock(&e->lock);
		e->fn(e->ctx, i);
		pthread_mutex_lock(&e->lock);
		e->finished++;
	}
	pthread_cond_signal(&e->done);
	pthread_mutex_unlock(&e->lock);
}

static void unref(struct each *e)
{
	bool last;

	pthread_mutex_lock(&e->lock);
	last = --e->refs == 0;
	pthread_mutex_unlock(&e->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&e->lock);
	pthread_cond_destroy(&e->done);
	free(e);
}

static void help(struct pool_task *t)
{
	struct helper *h = (struct helper *)t;
	struct each *e = h->e;

	free(h);
	work(e);
	unref(e);
}

void pool_each(struct pool *p, size_t n, void (*fn)(void *ctx, size_t i), void *ctx)
{
	struct each *e = MEM_NEW(struct each);
	size_t helpers = n > HELPERS_MAX ? HELPERS_MAX : n ? n - 1 : 0, i;

	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->done, NULL);
	e->n = n;
	e->fn = fn;
	e->ctx = ctx;
	e->refs = 1 + (unsigned)helpers;
	for (i = 0; i < helpers; i++) {
		struct helper *h = MEM_NEW(struct helper);

		h->task.run = help;
		h->e = e;
		pool_add(p, &h->task);
	}
	work(e);
	pthread_mutex_lock(&e->lock);
	while (e->finished < e->n)
		pthread_cond_wait(&e->done, &e->lock);
	pthread_mutex_unlock(&e->lock);
	unref(e);
}
