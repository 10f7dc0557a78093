#include "daemon/imap/arena.h"

#include <stdalign.h>

#include "base/mem.h"

enum { ARENA_FIRST = 2048 - 64 };

struct arena_block {
	struct arena_block *next;
	size_t size;
	alignas(max_align_t) unsigned char data[];
};

void *arena_alloc(struct arena *a, size_t size)
{
	struct arena_block *b = a->head;
	size_t want = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	void *p;

	if (!b || b->size - a->used < want) {
		size_t n = b ? b->size * 2 : ARENA_FIRST;

		if (n < want)
			n = want;
		b = mem_alloc(sizeof(*b) + n);
		b->size = n;
		b->next = a->head;
		a->head = b;
		a->used = 0;
	}
	p = b->data + a->used;
	a->used += want;
	return p;
}

char *arena_strndup(struct arena *a, const void *s, size_t len)
{
	char *p = arena_alloc(a, len + 1);

	if (len)
		memcpy(p, s, len);
	p[len] = '\0';
	return p;
}

void arena_free(struct arena *a)
{
	while (a->head) {
		struct arena_block *b = a->head;

		a->head = b->next;
		free(b);
	}
	a->used = 0;
}
