#include "base/clock.h"

#include <stddef.h>

static int64_t now_us(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t system_wall(void *ctx)
{
	return now_us(CLOCK_REALTIME);
}

static int64_t system_mono(void *ctx)
{
	return now_us(CLOCK_MONOTONIC);
}

const struct clock clock_system = { system_wall, system_mono, NULL };
