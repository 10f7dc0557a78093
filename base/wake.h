/* wake - one thread waits for one event of another: a futex word.
 *
 * Cheaper than a mutex with a condition: no lock to take again after waking.
 * The waiter may go on, and the memory of the word may be gone, before the
 * waker's system call ends; that is then a stray wake-up of whoever has the
 * address, which every user of futexes expects.
 * Threads: one waits, one wakes, once for each wake_init. */
#ifndef BASE_WAKE_H
#define BASE_WAKE_H
#include <stdbool.h>
#include <stdint.h>

struct wake {
	_Atomic uint32_t n;
};

void wake_init(struct wake *w);
void wake_up(struct wake *w);
/* Until woken, or ms milliseconds have passed (-1 = no limit).  False: it was time. */
bool wake_wait(struct wake *w, int ms);
#endif
