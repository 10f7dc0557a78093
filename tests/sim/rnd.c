/* Chance: xoshiro256**, seeded by splitmix64. */
#include "tests/sim/sim.h"

#include <math.h>
#include <sodium.h>
#include <string.h>

static uint64_t s[4];

void rnd_seed(uint64_t seed)
{
	int i;

	for (i = 0; i < 4; i++) {
		uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);

		z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
		s[i] = z ^ z >> 31;
	}
}

static uint64_t rotl(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

uint64_t rnd(void)
{
	uint64_t r = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return r;
}

uint64_t rnd_below(uint64_t n)
{
	return rnd() % n;
}

bool rnd_permille(unsigned p)
{
	return p && rnd() % 1000 < p;
}

int64_t rnd_exp(int64_t mean)
{
	double u = (double)(rnd() >> 11) / 9007199254740992.0, x = -log(1.0 - u);

	return (int64_t)((double)mean * (x < 20 ? x : 20));
}

/* --- libsodium's --- */

static const char *name(void)
{
	return "simulation";
}

static uint32_t random32(void)
{
	return (uint32_t)rnd();
}

static void fill(void *const p, const size_t size)
{
	unsigned char *b = p;
	uint64_t v;
	size_t i;

	for (i = 0; i < size; i += sizeof(v)) {
		v = rnd();
		memcpy(b + i, &v, size - i < sizeof(v) ? size - i : sizeof(v));
	}
}

void rnd_install(void)
{
	static randombytes_implementation impl = { name, random32, NULL, NULL, fill, NULL };

	randombytes_set_implementation(&impl);
}
