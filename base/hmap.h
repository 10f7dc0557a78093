/* hmap - a hash map from byte strings or 64-bit numbers to pointers.
 *
 * Open addressing with linear probing; keys are hashed with a per-process
 * random SipHash key, so clients cannot choose collisions.
 * Ownership: string keys are copied; values are the caller's.
 * Threads: one at a time (readers too). */
#ifndef BASE_HMAP_H
#define BASE_HMAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hmap {
	struct hmap_slot *slots;
	size_t n, cap;		/* entries; slots (power of two, or 0) */
};

#define HMAP_INIT { NULL, 0, 0 }

void hmap_free(struct hmap *m);		/* not the values */
void *hmap_get(const struct hmap *m, const void *key, size_t len);	/* NULL = absent */
/* Sets; returns the value that was there, or NULL.  value must not be NULL. */
void *hmap_put(struct hmap *m, const void *key, size_t len, void *value);
void *hmap_del(struct hmap *m, const void *key, size_t len);		/* the value, or NULL */
static inline void *hmap_gets(const struct hmap *m, const char *key)
{
	return hmap_get(m, key, __builtin_strlen(key));
}
/* Walks in no order: start with *pos = 0; false at the end.  The map must not
 * change meanwhile. */
bool hmap_next(const struct hmap *m, size_t *pos, const void **key_r, size_t *len_r, void **value_r);
#endif
