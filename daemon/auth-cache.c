#include "daemon/auth-cache.h"

#include "base/hmap.h"
#include "base/mem.h"

#include <sodium.h>

enum { MARK_BYTES = 32 };

struct auth_cache {
	unsigned char key[crypto_generichash_KEYBYTES];
	uint64_t ttl_ms;
	size_t max;
	struct hmap until;	/* mark to when it expires: milliseconds + 1, as a pointer */
};

struct auth_cache *auth_cache_new(uint64_t ttl_ms, size_t max)
{
	struct auth_cache *c = MEM_NEW(struct auth_cache);

	randombytes_buf(c->key, sizeof(c->key));
	c->ttl_ms = ttl_ms;
	c->max = max;
	return c;
}

void auth_cache_free(struct auth_cache **pc)
{
	if (!*pc)
		return;
	sodium_memzero((*pc)->key, sizeof((*pc)->key));
	hmap_free(&(*pc)->until);
	free(*pc);
	*pc = NULL;
}

/* Each text with its NUL, so that no two triples run together. */
static void mark(const struct auth_cache *c, const char *user, const char *password, const char *hash, unsigned char out[MARK_BYTES])
{
	crypto_generichash_state st;

	crypto_generichash_init(&st, c->key, sizeof(c->key), MARK_BYTES);
	crypto_generichash_update(&st, (const unsigned char *)user, strlen(user) + 1);
	crypto_generichash_update(&st, (const unsigned char *)password, strlen(password) + 1);
	crypto_generichash_update(&st, (const unsigned char *)hash, strlen(hash) + 1);
	crypto_generichash_final(&st, out, MARK_BYTES);
	sodium_memzero(&st, sizeof(st));
}

void auth_cache_put(struct auth_cache *c, const char *user, const char *password, const char *hash, int64_t now_ms)
{
	unsigned char m[MARK_BYTES];

	if (!c->ttl_ms)
		return;
	if (c->until.n >= c->max)
		hmap_free(&c->until);
	mark(c, user, password, hash, m);
	hmap_put(&c->until, m, sizeof(m), (void *)(uintptr_t)((uint64_t)now_ms + c->ttl_ms + 1));
}

bool auth_cache_has(struct auth_cache *c, const char *user, const char *password, const char *hash, int64_t now_ms)
{
	unsigned char m[MARK_BYTES];
	uintptr_t until;

	if (!c->ttl_ms)
		return false;
	mark(c, user, password, hash, m);
	until = (uintptr_t)hmap_get(&c->until, m, sizeof(m));
	if (until && (uint64_t)now_ms >= until)
		hmap_del(&c->until, m, sizeof(m));
	return (uint64_t)now_ms < until;
}
