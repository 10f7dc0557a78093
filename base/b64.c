#include "base/b64.h"

#include "base/buf.h"

#include <sodium.h>

void b64_encode(struct buf *out, const void *data, size_t len)
{
	size_t n = sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL);
	char *p = buf_reserve(out, n);

	if (!p)
		return;
	sodium_bin2base64(p, n, data, len, sodium_base64_VARIANT_ORIGINAL);
	out->len += n - 1;
}

int b64_decode(struct buf *out, const char *text, size_t len)
{
	unsigned char *p = buf_reserve(out, len / 4 * 3 + 3);
	size_t n = 0;

	if (!p || sodium_base642bin(p, len / 4 * 3 + 3, text, len, NULL, &n, NULL, sodium_base64_VARIANT_ORIGINAL) < 0)
		return -1;
	out->len += n;
	return 0;
}

void hex_encode(char *out, const void *data, size_t len)
{
	sodium_bin2hex(out, 2 * len + 1, data, len);
}

int hex_decode(void *out, size_t len, const char *hex)
{
	size_t n = 0;

	if (sodium_hex2bin(out, len, hex, 2 * len, NULL, &n, NULL) < 0 || n != len)
		return -1;
	return 0;
}
