/* What the tests of this room share. */
#ifndef TESTS_MIME_MIMETEST_H
#define TESTS_MIME_MIMETEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "mime/mime.h"

/* The summary of a message, fed in pieces of at most piece bytes (0: at once). */
static inline void parse_message(const struct mime_limits *l, const void *m, size_t len, size_t piece, struct buf *out)
{
	struct mime_parser *p = mime_parser_new(l);
	size_t pos, n;

	for (pos = 0; pos < len; pos += n) {
		n = piece && len - pos > piece ? piece : len - pos;
		mime_parser_feed(p, (const char *)m + pos, n);
	}
	mime_parser_finish(p, out);
	mime_parser_free(&p);
	assert_null(p);
}

static inline void open_summary(const struct buf *b, struct mime_summary *s)
{
	assert_int_equal(mime_summary_open(b->data, b->len, s), 0);
}

#define assert_buf(b, text) assert_string_equal(buf_str(b), (text))
#define assert_view(p, n, text) do { \
		assert_int_equal((n), strlen(text)); \
		assert_memory_equal((p), (text), (n)); \
	} while (0)
#endif
