/* Space in a data file: a bit for each unit.  A block may lie in several
 * extents, so that as long as enough units are free there is room: nothing is
 * evicted, moved or lost to fragmentation.  Runs are preferred. */
#include "fscache/fscache-private.h"

#include "base/mem.h"

#include <errno.h>
#include <unistd.h>

enum { LOOK = 64 * 1024 };	/* units searched for one run before pieces will do */

static bool used(const struct fsc_space *sp, uint32_t u)
{
	return sp->map[u / 64] >> (u % 64) & 1;
}

static void mark(struct fsc_space *sp, uint32_t at, uint32_t n, bool on)
{
	for (; n > 0; at++, n--) {
		if (on)
			sp->map[at / 64] |= UINT64_C(1) << (at % 64);
		else
			sp->map[at / 64] &= ~(UINT64_C(1) << (at % 64));
	}
}

void fsc_space_init(struct fsc_space *sp, uint32_t max_units)
{
	*sp = (struct fsc_space){ .fd = -1, .max = max_units };
	sp->map = mem_calloc(max_units / 64 + 1, sizeof(*sp->map));
}

void fsc_space_release(struct fsc_space *sp)
{
	free(sp->map);
	sp->map = NULL;
}

void fsc_space_set(struct fsc_space *sp, uint32_t units)
{
	sp->units = sp->free = units;
	sp->cursor = 0;
	memset(sp->map, 0, (sp->max / 64 + 1) * sizeof(*sp->map));
}

int fsc_space_grow(struct fsc_space *sp, const struct fsc_sys *sys, struct err *err)
{
	uint32_t step = sp->max - sp->units;
	off_t at = (off_t)sp->units * FSC_UNIT;
	int rc;

	if (step > FSC_GROW / FSC_UNIT)
		step = FSC_GROW / FSC_UNIT;
	if (!step)
		return ERR_LIMIT;
	do {
		rc = sys->fallocate(sp->fd, 0, at, (off_t)step * FSC_UNIT);
	} while (rc < 0 && errno == EINTR);
	if (rc < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))	/* then a write may meet the full disk */
		rc = ftruncate(sp->fd, at + (off_t)step * FSC_UNIT);
	if (rc < 0) {
		bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
		int saved = errno;

		if (ftruncate(sp->fd, at) < 0)	/* what was got of it */
			errno = saved;
		errno = saved;
		rc = err_errno(err, "fscache: grow", "data file");
		return full ? ERR_LIMIT : rc == ERR_LIMIT ? ERR_IO : rc;
	}
	sp->cursor = sp->units;
	sp->units += step;
	sp->free += step;
	return 0;
}

/* The next free run at or behind *at: its length, at most max; 0 none up to end. */
static uint32_t next_run(const struct fsc_space *sp, uint32_t *at, uint32_t end, uint32_t max)
{
	uint32_t u = *at, n = 0;

	while (u < end && used(sp, u)) {
		if (u % 64 == 0 && end - u >= 64 && sp->map[u / 64] == UINT64_MAX)
			u += 64;
		else
			u++;
	}
	*at = u;
	while (u < end && n < max && !used(sp, u)) {
		u++;
		n++;
	}
	return n;
}

static bool take_run(struct fsc_space *sp, uint32_t n, struct fsc_where *w, uint32_t from, uint32_t end)
{
	uint32_t at = from, got;

	if (end - from > LOOK)
		end = from + LOOK;
	while ((got = next_run(sp, &at, end, n)) > 0) {
		if (got == n) {
			mark(sp, at, n, true);
			*w = (struct fsc_where){ .n = 1, .one = { at, n } };
			sp->cursor = at + n;
			sp->free -= n;
			return true;
		}
		at += got;
	}
	return false;
}

static void take_pieces(struct fsc_space *sp, uint32_t n, struct fsc_where *w)
{
	struct fsc_extent e[FSC_BLOCK_UNITS];
	uint32_t at = sp->cursor, got, k = 0;

	sp->free -= n;
	while (n > 0) {
		got = next_run(sp, &at, sp->units, n);
		if (!got) {
			at = 0;
			continue;
		}
		mark(sp, at, got, true);
		e[k++] = (struct fsc_extent){ at, got };
		at += got;
		n -= got;
	}
	sp->cursor = at;
	w->n = k;
	if (k == 1)
		w->one = e[0];
	else
		w->many = mem_dup(e, k * sizeof(e[0]));
}

void fsc_space_take(struct fsc_space *sp, uint32_t n, struct fsc_where *w)
{
	if (sp->cursor >= sp->units)
		sp->cursor = 0;
	if (!take_run(sp, n, w, sp->cursor, sp->units) && !take_run(sp, n, w, 0, sp->cursor))
		take_pieces(sp, n, w);
}

bool fsc_space_claim(struct fsc_space *sp, const struct fsc_where *w)
{
	const struct fsc_extent *e = fsc_extents(w);
	uint32_t i, j, u, done = 0;

	for (i = 0; i < w->n; i++) {
		for (u = 0; u < e[i].n; u++, done++) {
			if (e[i].at >= sp->units || e[i].n > sp->units - e[i].at || used(sp, e[i].at + u))
				goto undo;
			mark(sp, e[i].at + u, 1, true);
		}
	}
	sp->free -= done;
	return true;
undo:
	for (j = 0; j < w->n && done > 0; j++)
		for (u = 0; u < e[j].n && done > 0; u++, done--)
			mark(sp, e[j].at + u, 1, false);
	return false;
}

void fsc_space_give(struct fsc_space *sp, struct fsc_where *w)
{
	const struct fsc_extent *e = fsc_extents(w);
	uint32_t i;

	for (i = 0; i < w->n; i++) {
		mark(sp, e[i].at, e[i].n, false);
		sp->free += e[i].n;
	}
	if (w->n)
		sp->cursor = e[0].at;
	if (w->n > 1)
		free(w->many);
	w->n = 0;
}
