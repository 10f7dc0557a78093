#include "base/wake.h"

#include "base/clock.h"

#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

void wake_init(struct wake *w)
{
	atomic_store_explicit(&w->n, 0, memory_order_relaxed);
}

void wake_up(struct wake *w)
{
	atomic_store_explicit(&w->n, 1, memory_order_release);
	syscall(SYS_futex, &w->n, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

bool wake_wait(struct wake *w, int ms)
{
	int64_t end = ms < 0 ? 0 : clock_mono_us(&clock_system) + ms * INT64_C(1000);

	while (!atomic_load_explicit(&w->n, memory_order_acquire)) {
		int64_t left = ms < 0 ? 0 : end - clock_mono_us(&clock_system);
		struct timespec t = { left / 1000000, left % 1000000 * 1000 };

		if (ms >= 0 && left <= 0)
			return false;
		syscall(SYS_futex, &w->n, FUTEX_WAIT_PRIVATE, 0, ms < 0 ? NULL : &t, NULL, 0);
	}
	return true;
}
