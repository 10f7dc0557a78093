#include "base/hmap.h"

#include "base/mem.h"

#include <pthread.h>
#include <sodium.h>

struct hmap_slot {
	uint64_t hash;
	unsigned char *key;	/* NULL = free */
	size_t len;
	void *value;
};

static unsigned char hash_key[crypto_shorthash_KEYBYTES];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void make_hash_key(void)
{
	if (sodium_init() < 0)
		abort();
	randombytes_buf(hash_key, sizeof(hash_key));
}

static uint64_t hash_of(const void *key, size_t len)
{
	unsigned char out[crypto_shorthash_BYTES];
	uint64_t h;

	pthread_once(&hash_once, make_hash_key);
	crypto_shorthash(out, key, len, hash_key);
	memcpy(&h, out, sizeof(h));
	return h;
}

void hmap_free(struct hmap *m)
{
	size_t i;

	for (i = 0; i < m->cap; i++)
		free(m->slots[i].key);
	free(m->slots);
	memset(m, 0, sizeof(*m));
}

static struct hmap_slot *find(const struct hmap *m, const void *key, size_t len, uint64_t h)
{
	size_t i;

	if (!m->cap)
		return NULL;
	for (i = h & (m->cap - 1); m->slots[i].key; i = (i + 1) & (m->cap - 1)) {
		struct hmap_slot *s = &m->slots[i];

		if (s->hash == h && s->len == len && !memcmp(s->key, key, len))
			return s;
	}
	return NULL;
}

void *hmap_get(const struct hmap *m, const void *key, size_t len)
{
	struct hmap_slot *s = m->n ? find(m, key, len, hash_of(key, len)) : NULL;

	return s ? s->value : NULL;
}

static void insert(struct hmap *m, struct hmap_slot s)
{
	size_t i = s.hash & (m->cap - 1);

	while (m->slots[i].key)
		i = (i + 1) & (m->cap - 1);
	m->slots[i] = s;
}

static void grow(struct hmap *m)
{
	struct hmap_slot *old = m->slots;
	size_t cap = m->cap, i;

	m->cap = cap ? cap * 2 : 16;
	m->slots = mem_calloc(m->cap, sizeof(*m->slots));
	for (i = 0; i < cap; i++)
		if (old[i].key)
			insert(m, old[i]);
	free(old);
}

void *hmap_put(struct hmap *m, const void *key, size_t len, void *value)
{
	uint64_t h = hash_of(key, len);
	struct hmap_slot *s = find(m, key, len, h);
	void *old;

	if (s) {
		old = s->value;
		s->value = value;
		return old;
	}
	if ((m->n + 1) * 4 > m->cap * 3)
		grow(m);
	insert(m, (struct hmap_slot){ h, (unsigned char *)mem_strndup(key, len), len, value });
	m->n++;
	return NULL;
}

void *hmap_del(struct hmap *m, const void *key, size_t len)
{
	struct hmap_slot *s = m->n ? find(m, key, len, hash_of(key, len)) : NULL;
	size_t hole, i;
	void *value;

	if (!s)
		return NULL;
	value = s->value;
	free(s->key);
	hole = (size_t)(s - m->slots);
	m->slots[hole].key = NULL;
	/* Close the gap: move back every entry that may not be found over it. */
	for (i = (hole + 1) & (m->cap - 1); m->slots[i].key; i = (i + 1) & (m->cap - 1)) {
		size_t home = m->slots[i].hash & (m->cap - 1);

		if (((i - home) & (m->cap - 1)) >= ((i - hole) & (m->cap - 1))) {
			m->slots[hole] = m->slots[i];
			m->slots[i].key = NULL;
			hole = i;
		}
	}
	m->n--;
	return value;
}

bool hmap_next(const struct hmap *m, size_t *pos, const void **key_r, size_t *len_r, void **value_r)
{
	for (; *pos < m->cap; (*pos)++) {
		struct hmap_slot *s = &m->slots[*pos];

		if (!s->key)
			continue;
		if (key_r)
			*key_r = s->key;
		if (len_r)
			*len_r = s->len;
		if (value_r)
			*value_r = s->value;
		(*pos)++;
		return true;
	}
	return false;
}
