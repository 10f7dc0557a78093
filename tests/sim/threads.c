/* What interpose.h makes of POSIX threads.  The state lives in the memory of
 * the real objects, so that it goes with the node that owns it.  Waking is
 * at random, and sometimes for no reason, as the standard allows. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <string.h>
#include <time.h>
#include "tests/sim/interpose.h"

struct mutex { struct task *owner, *head; };
struct cond { struct task *head; };
struct rwlock { struct task *writer, *head; unsigned readers; };
_Static_assert(sizeof(struct mutex) <= sizeof(pthread_mutex_t) && sizeof(struct cond) <= sizeof(pthread_cond_t) &&
	       sizeof(struct rwlock) <= sizeof(pthread_rwlock_t), "room for the state");

static void enqueue(struct task **head)
{
	sim_task->next = *head;
	*head = sim_task;
}

static void dequeue(struct task **head, struct task *t)
{
	for (; *head; head = &(*head)->next)
		if (*head == t) {
			*head = t->next;
			return;
		}
}

static void wake_all(struct task **head)
{
	struct task *t;

	while ((t = *head) != NULL) {
		*head = t->next;
		sched_ready(t);
	}
}

int simt_mutex_init(pthread_mutex_t *m)
{
	memset(m, 0, sizeof(*m));
	return 0;
}

int simt_mutex_lock(pthread_mutex_t *pm)
{
	struct mutex *m = (struct mutex *)pm;

	sched_preempt();
	if (m->owner == sim_task)
		violation(0, "task %s locks a mutex that it holds", sim_task->name);
	while (m->owner) {
		enqueue(&m->head);
		sched_block();
	}
	m->owner = sim_task;
	return 0;
}

int simt_mutex_unlock(pthread_mutex_t *pm)
{
	struct mutex *m = (struct mutex *)pm;

	if (m->owner != sim_task)
		violation(0, "task %s unlocks a mutex that it does not hold", sim_task->name);
	m->owner = NULL;
	wake_all(&m->head);
	sched_preempt();	/* m may be gone now */
	return 0;
}

int simt_cond_init(pthread_cond_t *c)
{
	memset(c, 0, sizeof(*c));
	return 0;
}

static int cond_wait(struct cond *c, pthread_mutex_t *m, int64_t at)
{
	bool timed_out;

	enqueue(&c->head);
	((struct mutex *)m)->owner = NULL;
	wake_all(&((struct mutex *)m)->head);
	if (rnd_permille(5))
		sched_alarm(sim_task, sim_now + rnd_exp(2000));
	if (at)
		sched_alarm(sim_task, at);
	sched_block();
	timed_out = sim_task->timed_out;
	if (timed_out)
		dequeue(&c->head, sim_task);
	simt_mutex_lock(m);
	return timed_out && at && sim_now >= at ? ETIMEDOUT : 0;
}

int simt_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	return cond_wait((struct cond *)c, m, 0);
}

int simt_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t)
{
	return cond_wait((struct cond *)c, m, node_mono_at(sim_task->life->node, (int64_t)t->tv_sec * 1000000 + t->tv_nsec / 1000));
}

int simt_cond_signal(pthread_cond_t *pc)
{
	struct cond *c = (struct cond *)pc;
	struct task *t;
	size_t n = 0;

	for (t = c->head; t; t = t->next)
		n++;
	if (!n)
		return 0;
	n = rnd_below(n);
	for (t = c->head; n; t = t->next)
		n--;
	dequeue(&c->head, t);
	sched_ready(t);
	return 0;
}

int simt_cond_broadcast(pthread_cond_t *c)
{
	wake_all(&((struct cond *)c)->head);
	return 0;
}

void simt_wake_init(struct wake *w)
{
	w->n = 0;
}

void simt_wake_up(struct wake *w)
{
	w->n = 1;
	sched_wake(w);
	sched_preempt();	/* w may be gone now */
}

bool simt_wake_wait(struct wake *w, int ms)
{
	int64_t at = ms < 0 ? 0 : sim_now + (int64_t)ms * 1000000 / sim_task->life->node->rate;

	sched_preempt();
	while (!w->n) {
		if (at && sim_now >= at)
			return false;
		sim_task->waits_for = w;
		if (at)
			sched_alarm(sim_task, at);
		sched_block();
		sim_task->waits_for = NULL;
	}
	return true;
}

int simt_rwlock_init(pthread_rwlock_t *l)
{
	memset(l, 0, sizeof(*l));
	return 0;
}

int simt_rwlock_rdlock(pthread_rwlock_t *pl)
{
	struct rwlock *l = (struct rwlock *)pl;

	sched_preempt();
	while (l->writer) {
		enqueue(&l->head);
		sched_block();
	}
	l->readers++;
	return 0;
}

int simt_rwlock_wrlock(pthread_rwlock_t *pl)
{
	struct rwlock *l = (struct rwlock *)pl;

	sched_preempt();
	while (l->writer || l->readers) {
		enqueue(&l->head);
		sched_block();
	}
	l->writer = sim_task;
	return 0;
}

int simt_rwlock_unlock(pthread_rwlock_t *pl)
{
	struct rwlock *l = (struct rwlock *)pl;

	if (l->writer)
		l->writer = NULL;
	else
		l->readers--;
	wake_all(&l->head);
	return 0;
}

int simt_create(pthread_t *t, void *(*fn)(void *), void *arg)
{
	struct task *n = sched_task(sim_task->life, "thread", fn, arg);

	n->may_list = sim_task->may_list;
	*t = (pthread_t)(uintptr_t)n;
	return 0;
}

int simt_join(pthread_t t)
{
	struct task *n = (struct task *)(uintptr_t)t;

	while (n->state != TASK_DONE) {
		n->joiner = sim_task;
		sched_block();
	}
	return 0;
}

int simt_usleep(useconds_t us)
{
	sched_sleep((int64_t)us * 1000 / sim_task->life->node->rate);
	return 0;
}

int simt_clock_gettime(clockid_t id, struct timespec *t)
{
	int64_t us = id == CLOCK_REALTIME ? clock_wall_us(&clock_system) : clock_mono_us(&clock_system);

	t->tv_sec = us / 1000000;
	t->tv_nsec = us % 1000000 * 1000;
	return 0;
}

int simt_random(unsigned char *out, int n)
{
	randombytes_buf(out, (size_t)n);
	return 1;
}
