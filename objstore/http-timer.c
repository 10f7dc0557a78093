/* The timers: a binary heap by time, each task knowing its place. */
#include "objstore/http-private.h"

#include "base/mem.h"

static void heap_set(struct http_engine *e, size_t i, struct http_task *t)
{
	e->heap[i] = t;
	t->slot = i + 1;
}

static void heap_up(struct http_engine *e, size_t i)
{
	struct http_task *t = e->heap[i];

	while (i && e->heap[(i - 1) / 2]->at_us > t->at_us) {
		heap_set(e, i, e->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_set(e, i, t);
}

static void heap_down(struct http_engine *e, size_t i)
{
	struct http_task *t = e->heap[i];
	size_t c;

	while ((c = 2 * i + 1) < e->n_heap) {
		if (c + 1 < e->n_heap && e->heap[c + 1]->at_us < e->heap[c]->at_us)
			c++;
		if (e->heap[c]->at_us >= t->at_us)
			break;
		heap_set(e, i, e->heap[c]);
		i = c;
	}
	heap_set(e, i, t);
}

void http_timer_cancel(struct http_engine *e, struct http_task *t)
{
	size_t i = t->slot - 1;
	struct http_task *last;

	if (!t->slot)
		return;
	t->slot = 0;
	last = e->heap[--e->n_heap];
	if (last == t)
		return;
	heap_set(e, i, last);
	heap_up(e, i);
	heap_down(e, last->slot - 1);
}

void http_timer(struct http_engine *e, struct http_task *t, int64_t at_us)
{
	http_timer_cancel(e, t);
	t->at_us = at_us;
	mem_grow(&e->heap, &e->heap_cap, e->n_heap + 1, sizeof(struct http_task *));
	heap_set(e, e->n_heap++, t);
	heap_up(e, e->n_heap - 1);
}
