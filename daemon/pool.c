#include "daemon/pool.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/wake.h"

#include <pthread.h>
#include <stdbool.h>

enum { IDLE_MS = 10000, STACK_BYTES = 1 << 20, HELPERS_MAX = 16 };

/* A thread that waits; the one that came last is woken first, so that the
 * others can end and few stacks are warm. */
struct idler {
	struct idler *next;
	struct pool_task *task;
	bool taken;		/* off the list: it will be woken */
	struct wake wake;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	struct pool_task *head, **tail;
	struct idler *idle;
	size_t threads, max;
	bool quit;
};

/* With the lock. */
static struct idler *take_idler(struct pool *p, struct pool_task *t)
{
	struct idler *i = p->idle;

	if (i) {
		p->idle = i->next;
		i->task = t;
		i->taken = true;
	}
	return i;
}

static void leave_list(struct pool *p, struct idler *self)
{
	struct idler **at = &p->idle;

	while (*at != self)
		at = &(*at)->next;
	*at = self->next;
}

/* With the lock, which is released meanwhile.  A task, or NULL to look again; *end: this thread should end. */
static struct pool_task *wait_for_work(struct pool *p, bool *end)
{
	struct idler self = { .next = p->idle };

	wake_init(&self.wake);
	p->idle = &self;
	pthread_mutex_unlock(&p->lock);
	if (wake_wait(&self.wake, IDLE_MS)) {
		pthread_mutex_lock(&p->lock);
		return self.task;
	}
	pthread_mutex_lock(&p->lock);
	if (self.taken) {
		pthread_mutex_unlock(&p->lock);
		wake_wait(&self.wake, -1);
		pthread_mutex_lock(&p->lock);
		return self.task;
	}
	leave_list(p, &self);
	*end = p->threads > 2;	/* a pair stays */
	return NULL;
}

static struct pool_task *next_queued(struct pool *p)
{
	struct pool_task *t = p->head;

	if (t) {
		p->head = t->next;
		if (!p->head)
			p->tail = &p->head;
	}
	return t;
}

static void *thread(void *arg)
{
	struct pool *p = arg;
	struct pool_task *t;
	bool end = false;

	pthread_mutex_lock(&p->lock);
	while (!end) {
		t = next_queued(p);
		if (!t && p->quit)
			break;
		if (!t)
			t = wait_for_work(p, &end);
		if (!t)
			continue;
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

	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->ended, NULL);
	p->tail = &p->head;
	p->max = max_threads;
	return p;
}

void pool_free(struct pool **pp)
{
	struct pool *p = *pp;
	struct idler *i;

	if (!p)
		return;
	*pp = NULL;
	pthread_mutex_lock(&p->lock);
	p->quit = true;
	while ((i = take_idler(p, NULL)) != NULL)
		wake_up(&i->wake);
	while (p->threads)
		pthread_cond_wait(&p->ended, &p->lock);
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->ended);
	free(p);
}

void pool_add(struct pool *p, struct pool_task *t)
{
	struct idler *i;

	t->next = NULL;
	pthread_mutex_lock(&p->lock);
	i = take_idler(p, t);
	if (!i) {
		*p->tail = t;
		p->tail = &t->next;
		if (p->threads < p->max)
			grow(p);
	}
	pthread_mutex_unlock(&p->lock);
	if (i)
		wake_up(&i->wake);
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
