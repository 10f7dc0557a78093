#include "daemon/imap/utf7.h"

#include "base/buf.h"

#include <stdbool.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

static int b64_value(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == ',' ? 63 : -1;
}

static void put_utf8(struct buf *out, uint32_t c)
{
	unsigned char b[4];
	size_t n;

	if (c < 0x80) {
		b[0] = (unsigned char)c;
		n = 1;
	} else if (c < 0x800) {
		b[0] = (unsigned char)(0xc0 | c >> 6);
		b[1] = (unsigned char)(0x80 | (c & 0x3f));
		n = 2;
	} else if (c < 0x10000) {
		b[0] = (unsigned char)(0xe0 | c >> 12);
		b[1] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
		b[2] = (unsigned char)(0x80 | (c & 0x3f));
		n = 3;
	} else {
		b[0] = (unsigned char)(0xf0 | c >> 18);
		b[1] = (unsigned char)(0x80 | (c >> 12 & 0x3f));
		b[2] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
		b[3] = (unsigned char)(0x80 | (c & 0x3f));
		n = 4;
	}
	buf_add(out, b, n);
}

/* One UTF-16 unit; *high is a surrogate that waits for its other half. */
static int take_unit(uint32_t unit, uint32_t *high, struct buf *out)
{
	if (*high) {
		if (unit < 0xdc00 || unit > 0xdfff)
			return -1;
		put_utf8(out, 0x10000 + ((*high - 0xd800) << 10) + (unit - 0xdc00));
		*high = 0;
		return 0;
	}
	if (unit >= 0xdc00 && unit <= 0xdfff)
		return -1;
	if (unit >= 0xd800 && unit <= 0xdbff) {
		*high = unit;
		return 0;
	}
	if (unit >= 0x20 && unit <= 0x7e)	/* must stand for itself */
		return -1;
	put_utf8(out, unit);
	return 0;
}

/* What is between '&' and '-'.  Returns its length, or -1. */
static long decode_shifted(const char *s, size_t len, struct buf *out)
{
	uint32_t acc = 0, high = 0;
	unsigned bits = 0;
	size_t i;

	for (i = 0; i < len && s[i] != '-'; i++) {
		int v = b64_value((unsigned char)s[i]);

		if (v < 0)
			return -1;
		acc = acc << 6 | (uint32_t)v;
		bits += 6;
		if (bits >= 16) {
			bits -= 16;
			if (take_unit(acc >> bits & 0xffff, &high, out) < 0)
				return -1;
			acc &= (1u << bits) - 1;
		}
	}
	/* the rest must be less than a digit's worth of zero bits */
	if (i == len || high || bits >= 6 || acc)
		return -1;
	return (long)i;
}

int utf7_decode(const char *name, size_t len, struct buf *out)
{
	bool after_shift = false;
	size_t i;

	for (i = 0; i < len; i++) {
		unsigned char c = (unsigned char)name[i];
		long n;

		if (c != '&') {
			if (c < 0x20 || c > 0x7e)
				return -1;
			buf_addc(out, c);
			after_shift = false;
			continue;
		}
		if (i + 1 < len && name[i + 1] == '-') {
			buf_addc(out, '&');
			i++;
			after_shift = false;
			continue;
		}
		if (after_shift)	/* "&...-&...-" could have been one */
			return -1;
		n = decode_shifted(name + i + 1, len - i - 1, out);
		if (n <= 0)
			return -1;
		i += (size_t)n + 1;
		after_shift = true;
	}
	return out->failed ? -1 : 0;
}

/* The code point at s[*i], which is moved behind it. */
static uint32_t next_utf8(const unsigned char *s, size_t len, size_t *i)
{
	uint32_t c = s[(*i)++];
	unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;

	if (more)
		c &= 0x3fu >> more;
	while (more-- && *i < len)
		c = c << 6 | (s[(*i)++] & 0x3f);
	return c;
}

struct b64_out {
	struct buf *out;
	uint32_t acc;
	unsigned bits;
};

static void put_unit(struct b64_out *b, uint32_t unit)
{
	b->acc = b->acc << 16 | unit;
	b->bits += 16;
	while (b->bits >= 6) {
		b->bits -= 6;
		buf_addc(b->out, alphabet[b->acc >> b->bits & 0x3f]);
	}
	b->acc &= (1u << b->bits) - 1;
}

void utf7_encode(const char *utf8, size_t len, struct buf *out)
{
	const unsigned char *s = (const unsigned char *)utf8;
	size_t i = 0;

	while (i < len) {
		struct b64_out b = { out, 0, 0 };

		if (s[i] >= 0x20 && s[i] <= 0x7e) {
			buf_addc(out, s[i]);
			if (s[i++] == '&')
				buf_addc(out, '-');
			continue;
		}
		buf_addc(out, '&');
		while (i < len && (s[i] < 0x20 || s[i] > 0x7e)) {
			uint32_t c = next_utf8(s, len, &i);

			if (c >= 0x10000) {
				put_unit(&b, 0xd800 + ((c - 0x10000) >> 10 & 0x3ff));
				put_unit(&b, 0xdc00 + (c & 0x3ff));
			} else {
				put_unit(&b, c);
			}
		}
		if (b.bits)
			buf_addc(out, alphabet[b.acc << (6 - b.bits) & 0x3f]);
		buf_addc(out, '-');
	}
}
