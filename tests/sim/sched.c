/* Tasks and time.  A task runs until it blocks, sleeps or is preempted where
 * another may go on; which one of those that are ready does is decided by the seed.  Time
 * stands still while anybody is ready, but for a microsecond or so a turn. */
#include "tests/sim/sim.h"

#include <execinfo.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#elif __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif
/* The sanitizers want to be told of each switch, and then see through swapcontext() only. */
#if defined(WITH_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
enum { STACK = 1 << 20 };
#elif defined(WITH_TSAN)
#include <sanitizer/tsan_interface.h>
enum { STACK = 1 << 20 };
#else
enum { STACK = 256 << 10 };
#endif

struct ctx {
	ucontext_t uc;
	sigjmp_buf jb;
	void *stack;
	bool started;
	void *fake;	/* what a sanitizer knows this stack by */
};

struct alarm { int64_t at; uint64_t order; void (*fn)(void *); void *arg; uint64_t gen; };

int64_t sim_now;
uint64_t sim_switches;
struct task *sim_task;
static struct task **ready, **all;
static size_t n_ready, cap_ready, n_all, cap_all;
static struct alarm *heap;
static size_t n_heap, cap_heap;
static uint64_t order;
static unsigned preempt_permille;
static void *free_stacks[4096];
static size_t n_free;
static ucontext_t main_uc;
#if defined(WITH_ASAN)
static const void *main_stack;
static size_t main_size;
static void *main_fake;
#elif defined(WITH_TSAN)
static void *main_fiber;
#else
static sigjmp_buf main_jb;
#endif

/* --- alarms: a heap by time --- */

static bool earlier(const struct alarm *a, const struct alarm *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct alarm a)
{
	size_t i;

	mem_grow(&heap, &cap_heap, n_heap + 1, sizeof(*heap));
	for (i = n_heap++; i > 0 && earlier(&a, &heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = a;
}

static struct alarm pop(void)
{
	struct alarm top = heap[0], last = heap[--n_heap];
	size_t i = 0, k;

	while ((k = 2 * i + 1) < n_heap) {
		if (k + 1 < n_heap && earlier(&heap[k + 1], &heap[k]))
			k++;
		if (!earlier(&heap[k], &last))
			break;
		heap[i] = heap[k];
		i = k;
	}
	heap[i] = last;
	return top;
}

void sched_at(int64_t at, void (*fn)(void *), void *arg)
{
	push((struct alarm){ at, order++, fn, arg, 0 });
}

void sched_alarm(struct task *t, int64_t at)
{
	push((struct alarm){ at, order++, NULL, t, t->gen });
}

static void fire(const struct alarm *a)
{
	struct task *t = a->arg;

	if (a->fn) {
		a->fn(a->arg);
	} else if (t->state == TASK_BLOCKED && t->gen == a->gen) {
		t->timed_out = true;
		sched_ready(t);
	}
}

/* --- switching --- */

static void switched_back(void)
{
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(main_fake, NULL, NULL);
#endif
}

static void into(struct task *t)
{
	struct ctx *c = t->ctx;

	sim_task = t;
	sim_switches++;
#if defined(WITH_ASAN)
	c->started = true;
	__sanitizer_start_switch_fiber(&main_fake, c->stack, STACK);
	swapcontext(&main_uc, &c->uc);
#elif defined(WITH_TSAN)
	main_fiber = __tsan_get_current_fiber();
	if (!c->started)
		c->fake = __tsan_create_fiber(0);
	c->started = true;
	__tsan_switch_to_fiber(c->fake, 0);
	swapcontext(&main_uc, &c->uc);
#else
	if (sigsetjmp(main_jb, 0) == 0) {
		if (!c->started) {
			c->started = true;
			swapcontext(&main_uc, &c->uc);
		}
		siglongjmp(c->jb, 1);
	}
#endif
	switched_back();
	sim_task = NULL;
}

static void out(void)
{
	struct ctx *c = sim_task->ctx;

#if defined(WITH_ASAN)
	__sanitizer_start_switch_fiber(sim_task->state == TASK_DONE ? NULL : &c->fake, main_stack, main_size);
	swapcontext(&c->uc, &main_uc);
	__sanitizer_finish_switch_fiber(c->fake, &main_stack, &main_size);
#elif defined(WITH_TSAN)
	__tsan_switch_to_fiber(main_fiber, 0);
	swapcontext(&c->uc, &main_uc);
#else
	if (sigsetjmp(c->jb, 0) == 0)
		siglongjmp(main_jb, 1);
#endif
}

static void entry(void)
{
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(NULL, &main_stack, &main_size);
#endif
	sim_task->fn(sim_task->arg);
	sim_task->state = TASK_DONE;
	if (sim_task->joiner)
		sched_ready(sim_task->joiner);
	out();
	abort();
}

static void *stack_new(void)
{
	void *p;

	if (n_free)
		return free_stacks[--n_free];
	p = mmap(NULL, STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED || mprotect(p, 4096, PROT_NONE) < 0)
		abort();
	return (char *)p + 4096;
}

static void stack_free(struct task *t)
{
#ifdef WITH_ASAN
	__asan_unpoison_memory_region(t->ctx->stack, STACK);
#endif
#ifdef WITH_TSAN
	if (t->ctx->fake)
		__tsan_destroy_fiber(t->ctx->fake);
#endif
	if (n_free < MEM_COUNT(free_stacks))
		free_stacks[n_free++] = t->ctx->stack;
	free(t->ctx);
	t->ctx = NULL;
}

struct task *sched_task(struct life *l, const char *name, void *(*fn)(void *), void *arg)
{
	struct task *t = MEM_NEW(struct task);

	t->name = name;
	t->life = l;
	t->fn = fn;
	t->arg = arg;
	t->ctx = MEM_NEW(struct ctx);
	t->ctx->stack = stack_new();
	getcontext(&t->ctx->uc);
	t->ctx->uc.uc_stack.ss_sp = t->ctx->stack;
	t->ctx->uc.uc_stack.ss_size = STACK;
	makecontext(&t->ctx->uc, entry, 0);
	mem_grow(&all, &cap_all, n_all + 1, sizeof(*all));
	all[n_all++] = t;
	t->state = TASK_BLOCKED;
	sched_ready(t);
	return t;
}

/* --- states --- */

void sched_wake(const void *what)
{
	size_t i;

	for (i = 0; i < n_all; i++)
		if (all[i]->waits_for == what) {
			all[i]->waits_for = NULL;
			sched_ready(all[i]);
		}
}

void sched_ready(struct task *t)
{
	if (t->state != TASK_BLOCKED && t->state != TASK_PARKED)
		return;
	t->state = TASK_READY;
	t->gen++;
	t->at = n_ready;
	mem_grow(&ready, &cap_ready, n_ready + 1, sizeof(*ready));
	ready[n_ready++] = t;
}

static void unready(struct task *t)
{
	ready[t->at] = ready[--n_ready];
	ready[t->at]->at = t->at;
}

void sched_block(void)
{
	if (!sim_task)
		abort();	/* the driver waits for nobody */
	sim_task->state = TASK_BLOCKED;
	sim_task->timed_out = false;
	if (trace_live)
		sim_task->depth = backtrace(sim_task->stack, (int)MEM_COUNT(sim_task->stack));
	out();
}

void sched_sleep(int64_t us)
{
	sched_alarm(sim_task, sim_now + (us > 0 ? us : 0));
	sched_block();
}

void sched_set_preempt(unsigned permille)
{
	preempt_permille = permille;
}

void sched_preempt(void)
{
	if (!sim_task || sim_task->nopreempt || !rnd_permille(preempt_permille))
		return;
	sim_task->state = TASK_BLOCKED;
	sched_ready(sim_task);
	out();
}

static void run_one(void)
{
	struct task *t = ready[rnd_below(n_ready)];

	unready(t);
	if (t->life && t->life->paused) {
		t->state = TASK_PARKED;
		mem_grow(&t->life->parked, &t->life->cap_parked, t->life->n_parked + 1, sizeof(struct task *));
		t->life->parked[t->life->n_parked++] = t;
		return;
	}
	t->ran = sim_now;
	into(t);
	sim_now += 1 + (int64_t)rnd_below(3);
	if (t->life && t->life->dying) {
		t->life->dying = false;
		life_crash(t->life);
	} else if (t->state == TASK_DONE) {
		stack_free(t);
	}
}

void sched_run(int64_t us)
{
	int64_t end = sim_now + us;

	while (violated_promise < 0) {
		if (n_heap && heap[0].at <= sim_now) {
			struct alarm a = pop();

			fire(&a);
		} else if (sim_now >= end) {
			break;
		} else if (n_ready) {
			run_one();
		} else {
			sim_now = n_heap && heap[0].at < end ? heap[0].at : end;
		}
	}
}

void sched_unpark(struct life *l)
{
	while (l->n_parked)
		sched_ready(l->parked[--l->n_parked]);
}

void sched_drop(struct life *l)
{
	size_t i, n = 0;

	for (i = 0; i < n_all; i++) {
		struct task *t = all[i];

		if (t->life == l && t->state != TASK_DONE) {
			if (t->state == TASK_READY && t != sim_task)
				unready(t);
			t->state = TASK_DONE;
			stack_free(t);
		}
		if (t->state != TASK_DONE)
			all[n++] = t;
	}
	n_all = n;
	l->n_parked = 0;
}

void sched_tell(void)
{
	size_t i;

	for (i = 0; i < n_all; i++)
		if (all[i]->state != TASK_DONE && all[i]->life && strcmp(all[i]->name, "thread") != 0)
			trace("task %s of %s: %s since %.6f%s", all[i]->name, all[i]->life->node->name, all[i]->state == TASK_READY ? "ready" :
			      all[i]->state == TASK_PARKED ? "parked" : "waits", (double)all[i]->ran / 1e6, all[i]->outstanding ? " for the store" : "");
	for (i = 0; i < n_all && trace_live; i++)
		if (all[i]->state == TASK_BLOCKED && all[i]->life && strcmp(all[i]->name, "thread") != 0)
			backtrace_symbols_fd(all[i]->stack, all[i]->depth, 2);
}

void sched_reset(void)
{
	sim_now = 1000000;
	sim_switches = 0;
	n_ready = n_all = n_heap = 0;
	order = 0;
}
