/* auth-cache - which passwords were right lately.
 *
 * Holds nothing but BLAKE2b hashes of (user, password, password hash of the
 * database), keyed with random bytes of this process.  The password hash is
 * part of it, so a changed password is not found.  Bounded: it forgets all
 * when it is full.
 * Threads: one at a time. */
#ifndef DAEMON_AUTH_CACHE_H
#define DAEMON_AUTH_CACHE_H
#include <stdbool.h>
#include <stdint.h>

struct auth_cache;
struct auth_cache *auth_cache_new(uint64_t ttl_ms, size_t max);	/* ttl 0: remembers nothing */
void auth_cache_free(struct auth_cache **c);
void auth_cache_put(struct auth_cache *c, const char *user, const char *password, const char *hash, int64_t now_ms);
bool auth_cache_has(struct auth_cache *c, const char *user, const char *password, const char *hash, int64_t now_ms);
#endif
