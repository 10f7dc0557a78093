/* seqset - sets of message numbers or UIDs as sorted, disjoint ranges.
 *
 * Adding in increasing order is O(1) per number; adding elsewhere merges.
 * Threads: one at a time. */
#ifndef BASE_SEQSET_H
#define BASE_SEQSET_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct seqrange {
	uint32_t lo, hi;	/* both are members; 1 <= lo <= hi */
};
struct seqset {
	struct seqrange *r;
	size_t n, cap;
};
struct buf;

#define SEQSET_INIT { NULL, 0, 0 }

void seqset_free(struct seqset *s);
void seqset_clear(struct seqset *s);
void seqset_add(struct seqset *s, uint32_t lo, uint32_t hi);
void seqset_remove(struct seqset *s, uint32_t lo, uint32_t hi);
void seqset_copy(struct seqset *to, const struct seqset *from);	/* to is replaced */
bool seqset_contains(const struct seqset *s, uint32_t n);
uint64_t seqset_count(const struct seqset *s);
/* The first member >= n, or 0. */
uint32_t seqset_next(const struct seqset *s, uint32_t n);
/* "1:3,7" in the syntax of RFC 9051's sequence-set; nothing for the empty set. */
void seqset_format(const struct seqset *s, struct buf *out);
#endif
