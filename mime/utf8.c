/* UTF-8 (RFC 3629) and Net-Unicode. */
#include "mime/mime-private.h"

#include <uninorm.h>

const uint16_t windows_1252[32] = {
	0x20ac, 0x0081, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0x008d, 0x017d, 0x008f,
	0x0090, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x009d, 0x017e, 0x0178,
};

static inline bool is_tail(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

size_t utf8_length(const unsigned char *s, size_t len)
{
	unsigned char c = *s;

	if (c < 0x80)
		return 1;
	if (c < 0xc2 || c > 0xf4 || len < 2 || !is_tail(s[1]))
		return 0;
	if (c < 0xe0)
		return 2;
	if (len < 3 || !is_tail(s[2]))
		return 0;
	if (c < 0xf0)
		return (c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) ? 0 : 3;
	if (len < 4 || !is_tail(s[3]) || (c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] > 0x8f))
		return 0;
	return 4;
}

bool utf8_cut(const unsigned char *s, size_t len)
{
	unsigned char full[4] = { 0x80, 0x80, 0x80, 0x80 };

	if (len >= 4 || *s < 0xc2)
		return false;
	memcpy(full, s, len);
	if (len == 1)		/* the lowest second byte of each lead */
		full[1] = *s == 0xe0 ? 0xa0 : *s == 0xf0 ? 0x90 : 0x80;
	return utf8_length(full, 4) > len;
}

uint32_t utf8_get(const unsigned char *s, size_t n)
{
	switch (n) {
	case 1:
		return s[0];
	case 2:
		return (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
	case 3:
		return (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
	default:
		return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
	}
}

void utf8_put(struct buf *out, uint32_t c)
{
	unsigned char s[4];
	size_t n = 0;

	if (c < 0x80) {
		buf_addc(out, (int)c);
		return;
	}
	if (c < 0x800) {
		s[n++] = (unsigned char)(0xc0 | c >> 6);
	} else if (c < 0x10000) {
		s[n++] = (unsigned char)(0xe0 | c >> 12);
		s[n++] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
	} else {
		s[n++] = (unsigned char)(0xf0 | c >> 18);
		s[n++] = (unsigned char)(0x80 | (c >> 12 & 0x3f));
		s[n++] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
	}
	s[n++] = (unsigned char)(0x80 | (c & 0x3f));
	buf_add(out, s, n);
}

const unsigned char *utf8_skip_ascii(const unsigned char *s, const unsigned char *end)
{
	uint64_t w;

	while (end - s >= 8) {
		memcpy(&w, s, 8);
		if (w & 0x8080808080808080u)
			break;
		s += 8;
	}
	while (s < end && *s < 0x80)
		s++;
	return s;
}

bool mime_utf8_valid(const void *data, size_t len)
{
	const unsigned char *s = data, *end = s + len;
	size_t n;

	while ((s = utf8_skip_ascii(s, end)) < end) {
		n = utf8_length(s, (size_t)(end - s));
		if (!n)
			return false;
		s += n;
	}
	return true;
}

void utf8_or_latin(struct buf *out, const unsigned char *s, size_t len)
{
	const unsigned char *end = s + len, *start = s;
	size_t n;

	while (s < end) {
		n = *s ? utf8_length(s, (size_t)(end - s)) : 0;
		if (n) {
			s += n;
			continue;
		}
		buf_add(out, start, (size_t)(s - start));
		utf8_put(out, !*s ? 0xfffd : *s < 0xa0 ? windows_1252[*s - 0x80] : *s);
		start = ++s;
	}
	buf_add(out, start, (size_t)(s - start));
}

int mime_utf8_nfc(const char *utf8, size_t len, struct buf *out)
{
	size_t i, n = 0;
	uint8_t *r;

	for (i = 0; i < len && !((unsigned char)utf8[i] & 0x80); i++)
		;
	if (i == len) {		/* ASCII is its own NFC */
		buf_add(out, utf8, len);
		return 0;
	}
	if (!mime_utf8_valid(utf8, len))
		return -1;
	r = u8_normalize(UNINORM_NFC, (const uint8_t *)utf8, len, NULL, &n);
	if (!r)
		return -1;
	buf_add(out, r, n);
	free(r);
	return 0;
}
