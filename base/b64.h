/* b64 - base64 (RFC 4648, section 4) and hexadecimal. */
#ifndef BASE_B64_H
#define BASE_B64_H
#include <stddef.h>

struct buf;

void b64_encode(struct buf *out, const void *data, size_t len);
/* Strict: no white space, correct padding.  0, or -1 (out is then partial). */
int b64_decode(struct buf *out, const char *text, size_t len);
void hex_encode(char *out, const void *data, size_t len);	/* 2 * len + 1 bytes, lower case */
int hex_decode(void *out, size_t len, const char *hex);		/* 2 * len digits; 0 or -1 */
#endif
