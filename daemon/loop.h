/* loop - a thread's event loop: descriptors in epoll and timers in a wheel.
 *
 * A source is embedded in what it belongs to.  After loop_del() its ready()
 * is not called again, but the memory must live until the batch of events
 * under way is through: give it to loop_free_later().
 * Threads: one per loop, except loop_stop() and the loop_ctl family, which
 *          any thread may call for a source that no other touches meanwhile.
 * Blocks:  loop_run() only, waiting for events. */
#ifndef DAEMON_LOOP_H
#define DAEMON_LOOP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop_src {
	int fd;			/* -1: not in the loop */
	uint32_t events;	/* EPOLL* */
	void (*ready)(struct loop_src *src, uint32_t events);
	void *owner;
};
/* Fires no earlier than due and at most LOOP_TICK_MS + the batch under way late. */
struct loop_timer {
	struct loop_timer *next, *prev;	/* NULL: not set */
	int64_t due_ms;
	void (*fire)(struct loop_timer *t);
	void *owner;
};
enum { LOOP_TICK_MS = 100, LOOP_SLOTS = 512 };

struct loop {
	int ep;
	volatile bool stop;
	int64_t now_ms;		/* at the last return of epoll_wait; monotonic */
	int64_t tick;
	size_t n_timers;
	struct loop_timer slots[LOOP_SLOTS];
	void **dead;
	size_t n_dead, cap_dead;
	void (*idle)(struct loop *l);	/* after each batch; may be NULL */
	void *owner;
};

int loop_init(struct loop *l);		/* 0, or -1 with errno */
void loop_release(struct loop *l);
void loop_run(struct loop *l);		/* until stop */
int loop_add(struct loop *l, struct loop_src *src, int fd, uint32_t events);	/* 0, or -1 with errno */
void loop_mod(struct loop *l, struct loop_src *src, uint32_t events);		/* no system call when nothing changes */
void loop_del(struct loop *l, struct loop_src *src);	/* does not close the descriptor */
void loop_free_later(struct loop *l, void *p);
void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t delay_ms);	/* again: moves it */
void loop_timer_clear(struct loop *l, struct loop_timer *t);
int64_t loop_clock_ms(void);
#endif
