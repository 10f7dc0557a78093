/* The records of a mailbox index as columns, for its snapshot.
 *
 * A million records of 80 bytes are quick to use in memory and slow to move:
 * most fields of most messages follow from the message before.  So the
 * snapshot holds frames of 1024 messages, in each one column a field, and a
 * column says in one byte how its numbers are made:
 *
 *   low four bits   w, bytes of each stored number: 0, 1, 2, 4 or 8
 *   bit 4           set: each number is the one before + step + the stored one
 *                   clear: base + the stored one
 *
 * then 8 bytes base (the first number when bit 4 is set), 8 bytes step (only
 * then), then w bytes for each message.  All arithmetic is modulo 2^64, all
 * numbers little-endian.  UIDs without gaps and keywords nobody uses cost
 * nothing, sizes and dates two to four bytes.  docs/format.md section 8. */
#include "obox/obox-private.h"

enum { FRAME = 1024, COLUMNS = 12, COL_HEAD = 9 };

static const struct column { uint8_t at, width; } columns[COLUMNS] = {
#define COL(field) { offsetof(struct obox_msg, field), sizeof(((struct obox_msg *)0)->field) }
	COL(uid), COL(flags), COL(modseq), COL(kw[0]), COL(kw[1]), COL(size), COL(idate), COL(sdate), COL(oid.epoch), COL(oid.n),
	COL(sum_block), COL(sum_slot)
#undef COL
};

static void gather(const struct obox_msg *m, size_t n, const struct column *c, uint64_t *v)
{
	const unsigned char *p = (const unsigned char *)m + c->at;
	size_t i;
	uint32_t x;

	for (i = 0; i < n; i++, p += sizeof(*m)) {
		if (c->width == 8) {
			memcpy(&v[i], p, 8);
		} else {
			memcpy(&x, p, 4);
			v[i] = x;
		}
	}
}

/* False: a number does not fit the field. */
static bool scatter(struct obox_msg *m, size_t n, const struct column *c, const uint64_t *v)
{
	unsigned char *p = (unsigned char *)m + c->at;
	uint64_t all = 0;
	size_t i;

	if (c->width == 8) {
		for (i = 0; i < n; i++, p += sizeof(*m))
			memcpy(p, &v[i], 8);
		return true;
	}
	for (i = 0; i < n; i++, p += sizeof(*m)) {
		uint32_t x = (uint32_t)v[i];

		memcpy(p, &x, 4);
		all |= v[i];
	}
	return all <= UINT32_MAX;
}

static unsigned bytes_for(uint64_t range)
{
	return range == 0 ? 0 : range <= 0xff ? 1 : range <= 0xffff ? 2 : range <= 0xffffffff ? 4 : 8;
}

static void put_numbers(const uint64_t *v, size_t n, uint64_t base, unsigned w, struct buf *out)
{
	size_t i;

	for (i = 0; i < n && w; i++) {
		uint64_t d = v[i] - base;

		buf_add(out, &d, w);	/* little-endian: the low bytes */
	}
}

static void put_column(const uint64_t *v, size_t n, struct buf *out)
{
	uint64_t lo = v[0], hi = v[0], d[FRAME], step, spread;
	int64_t dlo = 0, dhi = 0;
	unsigned w, wd;
	size_t i;

	for (i = 1; i < n; i++) {
		int64_t by = (int64_t)(v[i] - v[i - 1]);

		lo = v[i] < lo ? v[i] : lo;
		hi = v[i] > hi ? v[i] : hi;
		dlo = i == 1 || by < dlo ? by : dlo;
		dhi = i == 1 || by > dhi ? by : dhi;
	}
	w = bytes_for(hi - lo);
	step = (uint64_t)dlo;
	spread = (uint64_t)dhi - (uint64_t)dlo;
	wd = bytes_for(spread);
	if (w <= wd) {
		buf_put8(out, (uint8_t)w);
		buf_put64(out, lo);
		put_numbers(v, n, lo, w, out);
		return;
	}
	buf_put8(out, (uint8_t)(COLUMN_STEPS | wd));
	buf_put64(out, v[0]);
	buf_put64(out, step);
	d[0] = 0;
	for (i = 1; i < n; i++)
		d[i] = v[i] - v[i - 1] - step;
	put_numbers(d, n, 0, wd, out);
}

void columns_encode(const struct obox_msg *m, size_t n, struct buf *out)
{
	uint64_t v[FRAME];
	size_t i, k, c;

	for (i = 0; i < n; i += k) {
		k = n - i < FRAME ? n - i : FRAME;
		for (c = 0; c < COLUMNS; c++) {
			gather(m + i, k, &columns[c], v);
			put_column(v, k, out);
		}
	}
}

static void stored_numbers(const unsigned char *p, size_t n, unsigned w, uint64_t *v)
{
	size_t i;

	switch (w) {
	case 1:
		for (i = 0; i < n; i++)
			v[i] = p[i];
		break;
	case 2:
		for (i = 0; i < n; i++) {
			uint16_t x;

			memcpy(&x, p + 2 * i, 2);
			v[i] = x;
		}
		break;
	case 4:
		for (i = 0; i < n; i++) {
			uint32_t x;

			memcpy(&x, p + 4 * i, 4);
			v[i] = x;
		}
		break;
	case 8:
		memcpy(v, p, 8 * n);
		break;
	default:
		memset(v, 0, n * sizeof(*v));
		break;
	}
}

static bool get_column(struct rd *r, size_t n, uint64_t *v)
{
	unsigned how = rd_8(r), w = how & 15;
	uint64_t base = rd_64(r), step = how & COLUMN_STEPS ? rd_64(r) : 0, last = base - step;
	const void *p = rd_bytes(r, n * w);
	size_t i;

	if (r->failed || how > (COLUMN_STEPS | 8) || (w & (w - 1)) != 0)
		return false;
	stored_numbers(p, n, w, v);
	if (how & COLUMN_STEPS) {
		for (i = 0; i < n; i++)
			v[i] = last += step + v[i];
	} else {
		for (i = 0; i < n; i++)
			v[i] += base;
	}
	return true;
}

bool columns_fit(const struct rd *r, uint64_t n)
{
	return n <= UINT32_MAX && (n + FRAME - 1) / FRAME <= rd_left(r) / (COLUMNS * COL_HEAD);
}

int columns_decode(struct rd *r, struct obox_msg *m, size_t n, struct err *err)
{
	uint64_t v[FRAME];
	size_t i, k, c;

	for (i = 0; i < n; i += k) {
		k = n - i < FRAME ? n - i : FRAME;
		for (c = 0; c < COLUMNS; c++)
			if (!get_column(r, k, v) || !scatter(m + i, k, &columns[c], v))
				return err_set(err, ERR_CORRUPT, "mailbox snapshot: column %zu of the messages from number %zu on is damaged", c, i);
	}
	return 0;
}
