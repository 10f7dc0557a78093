#include "base/buf.h"

#include "base/mem.h"

enum { BUF_DEFAULT_MAX = 1 << 30, BUF_FIRST = 256 };

void buf_init(struct buf *b, size_t max)
{
	memset(b, 0, sizeof(*b));
	b->max = max;
}

void buf_free(struct buf *b)
{
	size_t max = b->max;

	free(b->data);
	buf_init(b, max);
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	b->failed = false;
}

void *buf_reserve(struct buf *b, size_t len)
{
	size_t max = b->max ? b->max : BUF_DEFAULT_MAX, want, cap;

	if (b->failed || len > max || b->len > max - len) {
		b->failed = true;
		return NULL;
	}
	want = b->len + len + 1;	/* the NUL */
	if (want > b->cap) {
		cap = b->cap ? b->cap : BUF_FIRST;
		while (cap < want)
			cap *= 2;
		b->data = mem_realloc(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
	void *p;

	if (!len)
		return;
	p = buf_reserve(b, len);
	if (!p)
		return;
	memcpy(p, data, len);
	b->len += len;
	b->data[b->len] = '\0';
}

void buf_addc(struct buf *b, int c)
{
	unsigned char ch = (unsigned char)c;

	buf_add(b, &ch, 1);
}

void buf_adds(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_vaddf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	char small[512], *p;
	int n;

	va_copy(again, ap);
	n = vsnprintf(small, sizeof(small), fmt, ap);
	if (n < 0) {
		b->failed = true;
	} else if ((size_t)n < sizeof(small)) {
		buf_add(b, small, (size_t)n);
	} else {
		p = buf_reserve(b, (size_t)n);
		if (p) {
			vsnprintf(p, (size_t)n + 1, fmt, again);
			b->len += (size_t)n;
		}
	}
	va_end(again);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_vaddf(b, fmt, ap);
	va_end(ap);
}

void buf_addu(struct buf *b, uint64_t n)
{
	char digits[20];
	size_t i = sizeof(digits);

	do {
		digits[--i] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	buf_add(b, digits + i, sizeof(digits) - i);
}

void buf_consume(struct buf *b, size_t len)
{
	if (len >= b->len) {
		b->len = 0;
		return;
	}
	memmove(b->data, b->data + len, b->len - len);
	b->len -= len;
	b->data[b->len] = '\0';
}

void buf_truncate(struct buf *b, size_t len)
{
	if (len < b->len) {
		b->len = len;
		b->data[len] = '\0';
	}
}

char *buf_detach(struct buf *b)
{
	char *s;

	if (!b->data)
		return mem_strdup("");
	b->data[b->len] = '\0';
	s = (char *)b->data;
	buf_init(b, b->max);
	return s;
}

const char *buf_str(struct buf *b)
{
	if (!b->data)
		return "";
	b->data[b->len] = '\0';
	return (const char *)b->data;
}

void buf_put8(struct buf *b, uint8_t v)
{
	buf_add(b, &v, 1);
}

static void put_le(struct buf *b, uint64_t v, size_t n)
{
	unsigned char raw[8];
	size_t i;

	for (i = 0; i < n; i++)
		raw[i] = (unsigned char)(v >> (8 * i));
	buf_add(b, raw, n);
}

void buf_put16(struct buf *b, uint16_t v)
{
	put_le(b, v, 2);
}

void buf_put32(struct buf *b, uint32_t v)
{
	put_le(b, v, 4);
}

void buf_put64(struct buf *b, uint64_t v)
{
	put_le(b, v, 8);
}

void buf_putv(struct buf *b, uint64_t v)
{
	unsigned char raw[10];
	size_t n = 0;

	while (v >= 0x80) {
		raw[n++] = (unsigned char)(v | 0x80);
		v >>= 7;
	}
	raw[n++] = (unsigned char)v;
	buf_add(b, raw, n);
}

void buf_putblob(struct buf *b, const void *p, size_t len)
{
	buf_putv(b, len);
	buf_add(b, p, len);
}

void buf_putstr(struct buf *b, const char *s)
{
	buf_putblob(b, s ? s : "", s ? strlen(s) : 0);
}

const void *rd_bytes(struct rd *r, size_t len)
{
	const unsigned char *p = r->p;

	if (r->failed || (size_t)(r->end - r->p) < len) {
		r->failed = true;
		return NULL;
	}
	r->p += len;
	return p;
}

static uint64_t get_le(struct rd *r, size_t n)
{
	const unsigned char *p = rd_bytes(r, n);
	uint64_t v = 0;
	size_t i;

	if (!p)
		return 0;
	for (i = n; i-- > 0;)
		v = v << 8 | p[i];
	return v;
}

uint8_t rd_8(struct rd *r)
{
	return (uint8_t)get_le(r, 1);
}

uint16_t rd_16(struct rd *r)
{
	return (uint16_t)get_le(r, 2);
}

uint32_t rd_32(struct rd *r)
{
	return (uint32_t)get_le(r, 4);
}

uint64_t rd_64(struct rd *r)
{
	return get_le(r, 8);
}

uint64_t rd_v(struct rd *r)
{
	uint64_t v = 0;
	unsigned shift = 0;

	while (!r->failed) {
		const unsigned char *p = rd_bytes(r, 1);

		if (!p || shift > 63 || (shift == 63 && *p > 1)) {
			r->failed = true;
			break;
		}
		v |= (uint64_t)(*p & 0x7f) << shift;
		if (!(*p & 0x80))
			return v;
		shift += 7;
	}
	return 0;
}

const void *rd_blob(struct rd *r, size_t *len_r)
{
	uint64_t len = rd_v(r);
	const void *p = NULL;

	if (!r->failed && len <= (uint64_t)(r->end - r->p))
		p = rd_bytes(r, (size_t)len);
	else
		r->failed = true;
	*len_r = p ? (size_t)len : 0;
	return p ? p : "";
}

char *rd_strdup(struct rd *r)
{
	size_t len;
	const char *p = rd_blob(r, &len);

	return mem_strndup(p, strnlen(p, len));
}
