#include "base/seqset.h"

#include "base/buf.h"
#include "base/mem.h"

void seqset_free(struct seqset *s)
{
	free(s->r);
	memset(s, 0, sizeof(*s));
}

void seqset_clear(struct seqset *s)
{
	s->n = 0;
}

void seqset_copy(struct seqset *to, const struct seqset *from)
{
	mem_grow(&to->r, &to->cap, from->n, sizeof(*to->r));
	if (from->n)
		memcpy(to->r, from->r, from->n * sizeof(*from->r));
	to->n = from->n;
}

/* Index of the first range whose hi is >= n. */
static size_t lower(const struct seqset *s, uint32_t n)
{
	size_t lo = 0, hi = s->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->r[mid].hi < n)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void seqset_add(struct seqset *s, uint32_t lo, uint32_t hi)
{
	size_t first, last;

	if (s->n && lo > s->r[s->n - 1].hi && lo - 1 == s->r[s->n - 1].hi) {
		s->r[s->n - 1].hi = hi;
		return;
	}
	first = lower(s, lo > 1 ? lo - 1 : lo);	/* may touch the range that ends at lo - 1 */
	for (last = first; last < s->n && s->r[last].lo <= (hi < UINT32_MAX ? hi + 1 : hi); last++) {
		if (s->r[last].lo < lo)
			lo = s->r[last].lo;
		if (s->r[last].hi > hi)
			hi = s->r[last].hi;
	}
	if (last == first) {
		mem_grow(&s->r, &s->cap, s->n + 1, sizeof(*s->r));
		memmove(s->r + first + 1, s->r + first, (s->n - first) * sizeof(*s->r));
		s->n++;
	} else if (last - first > 1) {
		memmove(s->r + first + 1, s->r + last, (s->n - last) * sizeof(*s->r));
		s->n -= last - first - 1;
	}
	s->r[first] = (struct seqrange){ lo, hi };
}

void seqset_remove(struct seqset *s, uint32_t lo, uint32_t hi)
{
	size_t i = lower(s, lo);

	while (i < s->n && s->r[i].lo <= hi) {
		struct seqrange r = s->r[i];

		if (r.lo < lo && r.hi > hi) {
			mem_grow(&s->r, &s->cap, s->n + 1, sizeof(*s->r));
			memmove(s->r + i + 1, s->r + i, (s->n - i) * sizeof(*s->r));
			s->n++;
			s->r[i].hi = lo - 1;
			s->r[i + 1].lo = hi + 1;
			return;
		}
		if (r.lo < lo) {
			s->r[i++].hi = lo - 1;
		} else if (r.hi > hi) {
			s->r[i].lo = hi + 1;
			return;
		} else {
			memmove(s->r + i, s->r + i + 1, (s->n - i - 1) * sizeof(*s->r));
			s->n--;
		}
	}
}

bool seqset_contains(const struct seqset *s, uint32_t n)
{
	size_t i = lower(s, n);

	return i < s->n && s->r[i].lo <= n;
}

uint64_t seqset_count(const struct seqset *s)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < s->n; i++)
		n += (uint64_t)s->r[i].hi - s->r[i].lo + 1;
	return n;
}

uint32_t seqset_next(const struct seqset *s, uint32_t n)
{
	size_t i = lower(s, n);

	if (i >= s->n)
		return 0;
	return s->r[i].lo > n ? s->r[i].lo : n;
}

void seqset_format(const struct seqset *s, struct buf *out)
{
	size_t i;

	for (i = 0; i < s->n; i++) {
		if (i)
			buf_addc(out, ',');
		buf_addu(out, s->r[i].lo);
		if (s->r[i].hi != s->r[i].lo) {
			buf_addc(out, ':');
			buf_addu(out, s->r[i].hi);
		}
	}
}
