/* Decoders, dates, addresses, parameters, search: the first byte chooses. */
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "mime/mime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decoded(const char *s, size_t n)
{
	struct buf out = BUF_INIT(0);

	mime_header_decode(s, n, &out);
	if (!mime_utf8_valid(buf_str(&out), out.len))
		abort();
	buf_clear(&out);
	mime_base_subject(s, n, &out);
	if (!mime_utf8_valid(buf_str(&out), out.len))
		abort();
	buf_clear(&out);
	if (mime_param(s, n, "filename", &out) && !mime_utf8_valid(buf_str(&out), out.len))
		abort();
	buf_free(&out);
}

static void cte(enum mime_encoding enc, const char *s, size_t n)
{
	struct mime_cte *one = mime_cte_new(enc), *bytes = mime_cte_new(enc);
	struct buf a = BUF_INIT(0), b = BUF_INIT(0);
	size_t i;

	mime_cte_feed(one, s, n, &a);
	mime_cte_finish(one, &a);
	for (i = 0; i < n; i++)
		mime_cte_feed(bytes, s + i, 1, &b);
	mime_cte_finish(bytes, &b);
	if (a.len != b.len || (a.len && memcmp(a.data, b.data, a.len)))
		abort();
	mime_cte_free(&one);
	mime_cte_free(&bytes);
	buf_free(&a);
	buf_free(&b);
}

static void charset(const char *name, const char *s, size_t n)
{
	struct mime_charset *one = mime_charset_new(name), *bytes = mime_charset_new(name);
	struct buf a = BUF_INIT(0), b = BUF_INIT(0);
	size_t i;

	mime_charset_feed(one, s, n, &a);
	mime_charset_finish(one, &a);
	for (i = 0; i < n; i++)
		mime_charset_feed(bytes, s + i, 1, &b);
	mime_charset_finish(bytes, &b);
	if (!mime_utf8_valid(buf_str(&a), a.len) || !mime_utf8_valid(buf_str(&b), b.len))
		abort();
	mime_charset_free(&one);
	mime_charset_free(&bytes);
	buf_free(&a);
	buf_free(&b);
}

/* The needle is a piece of the text itself, so it must be found where the text is UTF-8. */
static void search(const char *s, size_t n)
{
	size_t from = n / 3, len = n / 4, i;
	struct mime_needle *needle;
	struct mime_match *m;
	bool whole, streamed = false;

	needle = mime_needle_new(s + from, len);
	m = mime_match_new(needle);
	whole = mime_needle_in(needle, s, n);
	for (i = 0; i < n && !streamed; i++)
		streamed = mime_match_feed(m, s + i, 1);
	if (mime_utf8_valid(s, n) && mime_utf8_valid(s + from, len) && n && (!whole || !streamed))
		abort();
	mime_match_free(&m);
	mime_needle_free(&needle);
}

static void other(const char *s, size_t n)
{
	struct buf out = BUF_INIT(0);
	int64_t utc;
	int32_t zone;

	if (!mime_parse_date(s, n, &utc, &zone) && (zone < -1440 || zone > 1440))
		abort();
	mime_envelope(s, n, &out);
	buf_clear(&out);
	mime_imap_string(&out, s, n);
	buf_clear(&out);
	if (!mime_utf8_nfc(s, n, &out) && !mime_utf8_valid(buf_str(&out), out.len))
		abort();
	buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "utf-8", "us-ascii", "iso-8859-1", "iso-2022-jp", "utf-7", "gb2312", "big5", "shift_jis",
		"x-nonsense", "utf-16", "euc-jp", "koi8-r", "iso-2022-kr", "//TRANSLIT" };
	const char *s = (const char *)data + 1;
	size_t n = size - 1;

	if (!size)
		return 0;
	switch (data[0] % 6) {
	case 0:
		decoded(s, n);
		break;
	case 1:
		cte((enum mime_encoding)(data[0] / 6 % (MIME_ENC_UNKNOWN + 1)), s, n);
		break;
	case 2:
		charset(names[data[0] / 6 % 14], s, n);
		break;
	case 3:
		search(s, n);
		break;
	default:
		other(s, n);
		break;
	}
	return 0;
}
