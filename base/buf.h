/* buf - a growable run of bytes with a ceiling set at birth.
 *
 * Adding beyond the ceiling does nothing and marks the buffer as failed, so a
 * caller checks once at the end.  data is always followed by a NUL that is
 * not counted once anything was added.
 * Threads: one at a time. */
#ifndef BASE_BUF_H
#define BASE_BUF_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	unsigned char *data;
	size_t len;		/* bytes in use */
	size_t cap;
	size_t max;		/* ceiling in bytes; 0 = 1 GiB */
	bool failed;		/* something did not fit */
};

#define BUF_INIT(max_bytes) { NULL, 0, 0, (max_bytes), false }

void buf_init(struct buf *b, size_t max);
void buf_free(struct buf *b);		/* releases the memory; the buffer may be used again */
void buf_clear(struct buf *b);		/* forgets the content, keeps the memory, clears failed */
/* Room for len more bytes behind the content, or NULL (failed).  After
 * writing there, add to b->len by hand. */
void *buf_reserve(struct buf *b, size_t len);
void buf_add(struct buf *b, const void *data, size_t len);
void buf_addc(struct buf *b, int c);
void buf_adds(struct buf *b, const char *s);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vaddf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
void buf_addu(struct buf *b, uint64_t n);	/* decimal, quickly */
void buf_consume(struct buf *b, size_t len);	/* drops len bytes from the front */
void buf_truncate(struct buf *b, size_t len);
char *buf_detach(struct buf *b);	/* the content as a NUL-terminated string, owned by the caller */
const char *buf_str(struct buf *b);	/* content as a string; "" when empty; borrowed */

/* Little-endian fixed-size and LEB128 integers, for formats. */
void buf_put8(struct buf *b, uint8_t v);
void buf_put16(struct buf *b, uint16_t v);
void buf_put32(struct buf *b, uint32_t v);
void buf_put64(struct buf *b, uint64_t v);
void buf_putv(struct buf *b, uint64_t v);			/* varint */
void buf_putblob(struct buf *b, const void *p, size_t len);	/* varint length, bytes */
void buf_putstr(struct buf *b, const char *s);			/* NULL as "" */

/* Reading them back, bounds-checked: after the first overrun every call gives
 * zero or an empty blob and failed stays true. */
struct rd {
	const unsigned char *p, *end;
	bool failed;
};
static inline struct rd rd_init(const void *data, size_t len)	/* NULL with 0 is fine */
{
	const unsigned char *p = data ? data : "";
	struct rd r = { p, p + (data ? len : 0), false };

	return r;
}
uint8_t rd_8(struct rd *r);
uint16_t rd_16(struct rd *r);
uint32_t rd_32(struct rd *r);
uint64_t rd_64(struct rd *r);
uint64_t rd_v(struct rd *r);
const void *rd_bytes(struct rd *r, size_t len);		/* borrowed; NULL on overrun */
const void *rd_blob(struct rd *r, size_t *len_r);	/* borrowed; "" and 0 on overrun */
char *rd_strdup(struct rd *r);				/* owned; "" on overrun; stops at an inner NUL */
static inline size_t rd_left(const struct rd *r)
{
	return r->failed ? 0 : (size_t)(r->end - r->p);
}
#endif
