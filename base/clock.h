/* clock - the time, as something that can be handed in.
 *
 * Code whose result depends on time takes a struct clock, so that tests and
 * the simulator can turn it by hand. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H
#include <stdint.h>

struct clock {
	int64_t (*wall_us)(void *ctx);	/* microseconds since 1970, UTC; may jump */
	int64_t (*mono_us)(void *ctx);	/* microseconds, never goes back */
	void *ctx;
};

extern const struct clock clock_system;

static inline int64_t clock_wall_us(const struct clock *c)
{
	return c->wall_us(c->ctx);
}
static inline int64_t clock_mono_us(const struct clock *c)
{
	return c->mono_us(c->ctx);
}
static inline int64_t clock_wall_s(const struct clock *c)
{
	return c->wall_us(c->ctx) / 1000000;
}
#endif
