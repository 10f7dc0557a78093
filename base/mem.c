#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LARGE_PAGE = 2 << 20 };

static void out_of_memory(void)
{
	static const char msg[] = "culver: out of memory\n";

	(void)!write(2, msg, sizeof(msg) - 1);
	abort();
}

void *mem_alloc(size_t size)
{
	void *p = calloc(1, size ? size : 1);

	if (!p)
		out_of_memory();
	return p;
}

void *mem_calloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		out_of_memory();
	return p;
}

void *mem_calloc_large(size_t n, size_t size)
{
	unsigned char *p = mem_calloc(n, size);
	uintptr_t from = ((uintptr_t)p + LARGE_PAGE - 1) & ~(uintptr_t)(LARGE_PAGE - 1), to = ((uintptr_t)p + n * size) & ~(uintptr_t)(LARGE_PAGE - 1);

	if (to > from)
		(void)madvise((void *)from, to - from, MADV_HUGEPAGE);
	return p;
}

void *mem_realloc(void *old, size_t size)
{
	void *p = realloc(old, size ? size : 1);

	if (!p)
		out_of_memory();
	return p;
}

void mem_grow(void *pp, size_t *cap, size_t want, size_t elem)
{
	void **p = pp;
	size_t n = *cap ? *cap : 8;

	if (want <= *cap)
		return;
	while (n < want) {
		if (n > SIZE_MAX / 2 / elem)
			out_of_memory();
		n *= 2;
	}
	*p = mem_realloc(*p, n * elem);
	*cap = n;
}

void *mem_dup(const void *src, size_t len)
{
	void *p = malloc(len ? len : 1);

	if (!p)
		out_of_memory();
	if (len)
		memcpy(p, src, len);
	return p;
}

char *mem_strndup(const char *s, size_t len)
{
	char *p = malloc(len + 1);

	if (!p)
		out_of_memory();
	if (len)
		memcpy(p, s, len);
	p[len] = '\0';
	return p;
}

char *mem_strdup(const char *s)
{
	return s ? mem_strndup(s, strlen(s)) : NULL;
}

char *mem_printf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		out_of_memory();
	return s;
}
