/* mem - memory that is there or ends the process.
 *
 * For small sizes decided by this program.  A length that comes from the
 * network, a file or a setting is bounded before it gets here (see buf.h for
 * buffers with a ceiling).
 * Threads: all functions may be called from any thread. */
#ifndef BASE_MEM_H
#define BASE_MEM_H
#include <stddef.h>

void *mem_alloc(size_t size);			/* zeroed */
void *mem_calloc(size_t n, size_t size);	/* zeroed; n * size is checked */
/* As mem_calloc, for arrays of megabytes that are filled at once: asks for large pages. */
void *mem_calloc_large(size_t n, size_t size);
void *mem_realloc(void *p, size_t size);
/* Grows *p (elements of elem bytes, capacity *cap) to hold at least want
 * elements; doubles.  The new part is not zeroed. */
void mem_grow(void *p, size_t *cap, size_t want, size_t elem);
char *mem_strdup(const char *s);		/* NULL gives NULL */
char *mem_strndup(const char *s, size_t len);	/* copies exactly len bytes and adds NUL */
void *mem_dup(const void *p, size_t len);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define MEM_NEW(type) ((type *)mem_alloc(sizeof(type)))
#define MEM_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#endif
