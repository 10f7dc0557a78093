#include "daemon/loop.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BATCH = 128 };

int64_t loop_clock_ms(void)
{
	return clock_mono_us(&clock_system) / 1000;
}

int loop_init(struct loop *l)
{
	size_t i;

	memset(l, 0, sizeof(*l));
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	if (l->ep < 0)
		return -1;
	for (i = 0; i < LOOP_SLOTS; i++)
		l->slots[i].next = l->slots[i].prev = &l->slots[i];
	l->now_ms = loop_clock_ms();
	l->tick = l->now_ms / LOOP_TICK_MS;
	return 0;
}

static void bury(struct loop *l)
{
	size_t i;

	for (i = 0; i < l->n_dead; i++)
		free(l->dead[i]);
	l->n_dead = 0;
}

void loop_release(struct loop *l)
{
	bury(l);
	free(l->dead);
	l->dead = NULL;
	close(l->ep);
	l->ep = -1;
}

int loop_add(struct loop *l, struct loop_src *src, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = src };

	src->fd = fd;
	src->events = events;
	if (epoll_ctl(l->ep, EPOLL_CTL_ADD, fd, &ev) < 0) {
		src->fd = -1;
		return -1;
	}
	return 0;
}

void loop_mod(struct loop *l, struct loop_src *src, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = src };

	if (src->fd < 0 || src->events == events)
		return;
	src->events = events;
	(void)epoll_ctl(l->ep, EPOLL_CTL_MOD, src->fd, &ev);
}

void loop_del(struct loop *l, struct loop_src *src)
{
	if (src->fd < 0)
		return;
	(void)epoll_ctl(l->ep, EPOLL_CTL_DEL, src->fd, NULL);
	src->fd = -1;
}

void loop_free_later(struct loop *l, void *p)
{
	mem_grow(&l->dead, &l->cap_dead, l->n_dead + 1, sizeof(*l->dead));
	l->dead[l->n_dead++] = p;
}

/* A timer beyond the wheel's horizon stays in its slot for another round. */
void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t delay_ms)
{
	struct loop_timer *slot;

	loop_timer_clear(l, t);
	t->due_ms = l->now_ms + (delay_ms > 0 ? delay_ms : 0);
	slot = &l->slots[(uint64_t)(t->due_ms / LOOP_TICK_MS + 1) % LOOP_SLOTS];
	t->next = slot;
	t->prev = slot->prev;
	slot->prev->next = t;
	slot->prev = t;
	l->n_timers++;
}

void loop_timer_clear(struct loop *l, struct loop_timer *t)
{
	if (!t->next)
		return;
	t->prev->next = t->next;
	t->next->prev = t->prev;
	t->next = t->prev = NULL;
	l->n_timers--;
}

static void fire_slot(struct loop *l, struct loop_timer *slot)
{
	struct loop_timer todo = { .next = &todo, .prev = &todo }, *t;

	/* Moved aside first: what fires may set timers into this slot again. */
	if (slot->next == slot)
		return;
	todo.next = slot->next;
	todo.prev = slot->prev;
	todo.next->prev = todo.prev->next = &todo;
	slot->next = slot->prev = slot;
	while ((t = todo.next) != &todo) {
		int64_t left = t->due_ms - l->now_ms;

		loop_timer_clear(l, t);
		if (left > 0)
			loop_timer_set(l, t, left);
		else
			t->fire(t);
	}
}

static void fire_timers(struct loop *l)
{
	int64_t now = l->now_ms / LOOP_TICK_MS;

	if (now - l->tick > LOOP_SLOTS)
		l->tick = now - LOOP_SLOTS;
	while (l->tick < now) {
		l->tick++;
		fire_slot(l, &l->slots[(uint64_t)l->tick % LOOP_SLOTS]);
	}
}

void loop_run(struct loop *l)
{
	struct epoll_event ev[BATCH];
	int i, n;

	while (!l->stop) {
		n = epoll_wait(l->ep, ev, BATCH, l->n_timers ? LOOP_TICK_MS : -1);
		l->now_ms = loop_clock_ms();
		if (n < 0 && errno != EINTR)
			return;
		for (i = 0; i < n; i++) {
			struct loop_src *src = ev[i].data.ptr;

			if (src->fd >= 0)
				src->ready(src, ev[i].events);
		}
		fire_timers(l);
		if (l->idle)
			l->idle(l);
		bury(l);
	}
}
