/* Tests of mime/decode.c, charset.c, cte.c and utf8.c */
#include "tests/mime/mimetest.h"

#include <pthread.h>

struct row {
	const char *in, *out;
};

static void headers_decode_to_utf8(void **state)
{
	static const struct row rows[] = {
		/* RFC 2047 section 8 */
		{ "(=?ISO-8859-1?Q?a?=)", "(a)" },
		{ "(=?ISO-8859-1?Q?a?= b)", "(a b)" },
		{ "(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)" },
		{ "(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)" },
		{ "(=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=)", "(ab)" },
		{ "(=?ISO-8859-1?Q?a_b?=)", "(a b)" },
		{ "(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)" },
		{ "=?iso-8859-1?q?this=20is=20some=20text?=", "this is some text" },
		{ "=?US-ASCII*EN?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>" },	/* RFC 2231 section 5 */
		{ "=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=\r\n =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
			"If you can read this you understand the example." },
		/* as met */
		{ "plain", "plain" }, { "", "" },
		{ "fold\r\n ed\r\n\tagain", "fold ed\tagain" },
		{ "=?utf-8?B?w6Q=?= =?utf-8?B?w7Y=?=", "äö" },
		{ "=?utf-8?B?4oI=?= =?utf-8?B?rA==?=", "€" },		/* cut inside a character */
		{ "=?utf-8?Q?=E2?= =?utf-8?B?gqw=?=", "€" },
		{ "=?utf-8?Q?a b c?=", "a b c" },
		{ "=?utf-8?Q?=E2=82=AC?=", "€" },
		{ "=?utf-8?Q?bad=?=", "bad=" }, { "=?utf-8?Q?bad=4?=", "bad=4" }, { "=?utf-8?Q?bad=zz?=", "bad=zz" },
		{ "=?utf-8?B?!w6Q?=", "ä" },				/* no padding, and what is not base64 */
		{ "=?utf-8?B?w6Q=w7Y=?=", "äö" },
		{ "=?nonsense?Q?a=E4?=", "aä" },				/* windows-1252 */
		{ "=?nonsense?Q?=C3=A4?=", "ä" },				/* but UTF-8 where it is */
		{ "=?iso-8859-1?Q?=80?=", "€" },				/* windows-1252 by another name */
		{ "=?utf-8?Q?=E4?=", "\xef\xbf\xbd" },
		{ "=?utf-8?X?abc?=", "=?utf-8?X?abc?=" }, { "=?utf-8?Q?abc", "=?utf-8?Q?abc" }, { "=??Q?a?=", "=??Q?a?=" },
		{ "=?utf-8?Q?" "?=x", "x" }, { "a=?utf-8?Q?b?=c", "abc" }, { "=?=?utf-8?Q?b?=", "=?b" },
		{ "r\xe4w", "räw" }, { "r\xc3\xa4w", "räw" }, { "\x93q\x94", "“q”" },
		{ "=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本" },
		{ "=?gb2312?B?1tDOxA==?=", "中文" }, { "=?ks_c_5601-1987?B?x9GxuQ==?=", "한국" }, { "=?koi8-r?B?0NLJ18XU?=", "привет" },
		{ "=?utf-8?Q?a=0D=0Ab?=", "a  b" }, { "=?utf-8?Q?a=00b?=", "a b" },	/* no header injection */
	};
	struct buf out = BUF_INIT(0);
	size_t i;

	for (i = 0; i < MEM_COUNT(rows); i++) {
		buf_clear(&out);
		mime_header_decode(rows[i].in, strlen(rows[i].in), &out);
		if (strcmp(out.len ? buf_str(&out) : "", rows[i].out))
			fail_msg("%s: %s", rows[i].in, buf_str(&out));
	}
	buf_free(&out);
}

static void decode_cte(enum mime_encoding enc, const char *in, size_t len, size_t piece, struct buf *out)
{
	struct mime_cte *c = mime_cte_new(enc);
	size_t pos, n;

	buf_clear(out);
	buf_add(out, "", 0);
	for (pos = 0; pos < len; pos += n) {
		n = len - pos < piece ? len - pos : piece;
		mime_cte_feed(c, in + pos, n, out);
	}
	mime_cte_finish(c, out);
	mime_cte_free(&c);
	assert_null(c);
}

static void encodings_decode_in_any_pieces(void **state)
{
	static const struct {
		enum mime_encoding enc;
		const char *in, *out;
	} rows[] = {
		{ MIME_QP, "a=20b", "a b" }, { MIME_QP, "soft=\r\nbreak", "softbreak" }, { MIME_QP, "soft=\nbreak", "softbreak" },
		{ MIME_QP, "soft=  \t\r\nbreak", "softbreak" }, { MIME_QP, "trail  \t\r\nnext", "trail\r\nnext" },
		{ MIME_QP, "trail \nnext ", "trail\nnext" }, { MIME_QP, "lower=c3=a4", "lowerä" }, { MIME_QP, "odd=zz=4", "odd=zz=4" },
		{ MIME_QP, "end=", "end" }, { MIME_QP, "==41", "=A" }, { MIME_QP, "a = b", "a = b" }, { MIME_QP, "=\r\r\nx", "x" },
		{ MIME_QP, "a\rb", "a\rb" }, { MIME_QP, "=3D=3D", "==" }, { MIME_QP, "=4=41", "=4A" }, { MIME_QP, "", "" },
		{ MIME_BASE64, "SGVsbG8=", "Hello" }, { MIME_BASE64, "SGVs\r\nbG8=\r\n", "Hello" }, { MIME_BASE64, "S-G.V s\tbG8", "Hello" },
		{ MIME_BASE64, "SGVsbG8=SGVsbG8=", "HelloHello" }, { MIME_BASE64, "SGVsbG", "Hell" }, { MIME_BASE64, "====", "" },
		{ MIME_BASE64, "S", "" }, { MIME_BASE64, "SG", "H" },
		{ MIME_UUENCODE, "junk\r\nbegin 644 x\r\n#86)C\r\n#9&5F\r\n`\r\nend\r\njunk\r\n", "abcdef" },
		{ MIME_UUENCODE, "begin 644 x\n%86)C9&4 \n`\nend\n", "abcde" }, { MIME_UUENCODE, "begin 644 x\n%86)C9&4", "abcde" },
		{ MIME_UUENCODE, "no data", "" },
		{ MIME_8BIT, "as=20it is", "as=20it is" }, { MIME_7BIT, "x", "x" }, { MIME_ENC_UNKNOWN, "x=41", "x=41" },
	};
	struct buf out = BUF_INIT(0);
	size_t i, piece;

	for (i = 0; i < MEM_COUNT(rows); i++)
		for (piece = 1; piece < 40; piece += 3) {
			decode_cte(rows[i].enc, rows[i].in, strlen(rows[i].in), piece, &out);
			if (strcmp(buf_str(&out), rows[i].out))
				fail_msg("%s in %zu: %s", rows[i].in, piece, buf_str(&out));
		}
	buf_free(&out);
}

static void long_runs_of_blanks_are_kept_in_bounds(void **state)
{
	struct buf out = BUF_INIT(0);
	char in[3000];

	memset(in, ' ', sizeof(in));
	in[2999] = 'x';
	decode_cte(MIME_QP, in, sizeof(in), 7, &out);
	assert_int_equal(out.len, sizeof(in));
	assert_memory_equal(out.data, in, sizeof(in));
	buf_free(&out);
}

static void convert(const char *name, const char *in, size_t piece, struct buf *out)
{
	struct mime_charset *c = mime_charset_new(name);
	size_t pos, n, len = strlen(in);

	buf_clear(out);
	for (pos = 0; pos < len; pos += n) {
		n = len - pos < piece ? len - pos : piece;
		mime_charset_feed(c, in + pos, n, out);
	}
	mime_charset_finish(c, out);
	mime_charset_free(&c);
	assert_null(c);
}

static void charsets_convert_in_any_pieces(void **state)
{
	static const struct {
		const char *charset, *in, *out;
	} rows[] = {
		{ "UTF-8", "aä€😀", "aä€😀" }, { "utf-8", "a\xff" "b", "a\xef\xbf\xbd" "b" }, { "utf-8", "a\xe2\x82", "a\xef\xbf\xbd\xef\xbf\xbd" },
		{ "utf-8", "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, { "utf-8", "\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd" },
		{ "us-ascii", "a\xe4", "aä" }, { "US-ASCII", "aä", "aä" }, { "", "\x80", "€" },
		{ "iso-8859-1", "\xe4\x80", "ä€" }, { "windows-1251", "\xef\xf0", "пр" }, { "ISO-8859-15", "\xa4", "€" },
		{ "iso-2022-jp", "\x1b$BF|K\\\x1b(B!", "日本!" }, { "gb2312", "\xd6\xd0\xce\xc4", "中文" }, { "shift_jis", "\x93\xfa\x96\x7b", "日本" },
		{ "big5", "\xa4\xa4\xa4\xe5", "中文" }, { "euc-kr", "\xc7\xd1\xb1\xb9", "한국" }, { "utf-7", "+AOQ-x", "äx" },
		{ "gb2312", "\xd6", "\xef\xbf\xbd" }, { "x-nonsense", "a\xe4", "aä" }, { "utf-8//IGNORE", "\xff", "ÿ" },
	};
	struct buf out = BUF_INIT(0);
	size_t i, piece;

	for (i = 0; i < MEM_COUNT(rows); i++)
		for (piece = 1; piece < 20; piece++) {
			convert(rows[i].charset, rows[i].in, piece, &out);
			if (strcmp(buf_str(&out), rows[i].out))
				fail_msg("%s %s in %zu: %s", rows[i].charset, rows[i].in, piece, buf_str(&out));
		}
	buf_free(&out);
}

static void charsets_are_known_or_not(void **state)
{
	static const char *const known[] = { "utf-8", "US-ASCII", "iso-8859-1", "KOI8-R", "gb2312", "iso-2022-jp", "windows-1250", "ks_c_5601-1987" };
	static const char *const unknown[] = { "", "x-nonsense", "utf-8//TRANSLIT", "unknown-8bit", "a b", "utf-8," };
	size_t i;

	for (i = 0; i < MEM_COUNT(known); i++)
		if (!mime_charset_known(known[i]))
			fail_msg("%s", known[i]);
	for (i = 0; i < MEM_COUNT(unknown); i++)
		if (mime_charset_known(unknown[i]))
			fail_msg("%s", unknown[i]);
}

/* For the thread sanitizer: iconv opens its modules under locks of the C
 * library's loader, which it cannot see. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:_dl_close_worker\nrace:_dl_new_object\nrace:_dl_check_map_versions\n";
}

/* More converters at once than are cached, in two threads. */
static void *many_converters(void *arg)
{
	static const char *const names[] = { "iso-8859-2", "iso-8859-3", "iso-8859-4", "iso-8859-5", "iso-8859-6", "iso-8859-7", "iso-8859-8",
		"iso-8859-10", "iso-8859-13", "iso-8859-14", "iso-8859-16", "koi8-u" };
	struct mime_charset *c[MEM_COUNT(names)];
	struct buf out = BUF_INIT(0);
	size_t i, round;

	for (round = 0; round < 20; round++) {
		for (i = 0; i < MEM_COUNT(names); i++)
			c[i] = mime_charset_new(names[i]);
		for (i = 0; i < MEM_COUNT(names); i++) {
			buf_clear(&out);
			mime_charset_feed(c[i], "x", 1, &out);
			if (strcmp(buf_str(&out), "x"))
				return (void *)1;
			mime_charset_free(&c[i]);
		}
	}
	buf_free(&out);
	return NULL;
}

static void threads_have_converters_of_their_own(void **state)
{
	pthread_t t[2];
	void *ret;
	size_t i;

	for (i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, many_converters, NULL), 0);
	for (i = 0; i < 2; i++) {
		pthread_join(t[i], &ret);
		assert_null(ret);
	}
}

static void utf8_is_judged_strictly(void **state)
{
	static const char *const good[] = { "", "abc", "ä", "€", "😀", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf", "12345678ä" };
	static const char *const bad[] = { "\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80", "\xff", "12345678\xff", "\xe2\x82", "a\xe2\x28\xa1" };
	size_t i;

	for (i = 0; i < MEM_COUNT(good); i++)
		assert_true(mime_utf8_valid(good[i], strlen(good[i])));
	for (i = 0; i < MEM_COUNT(bad); i++)
		assert_false(mime_utf8_valid(bad[i], strlen(bad[i])));
}

static void names_are_composed(void **state)
{
	struct buf out = BUF_INIT(0);

	assert_int_equal(mime_utf8_nfc("INBOX", 5, &out), 0);
	assert_buf(&out, "INBOX");
	buf_clear(&out);
	assert_int_equal(mime_utf8_nfc("Entwu\xcc\x88rfe", 10, &out), 0);
	assert_buf(&out, "Entwürfe");
	buf_clear(&out);
	assert_int_equal(mime_utf8_nfc("\xe2\x84\xab", 3, &out), 0);	/* ANGSTROM SIGN */
	assert_buf(&out, "Å");
	assert_int_equal(mime_utf8_nfc("\xff", 1, &out), -1);
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers_decode_to_utf8),
		cmocka_unit_test(encodings_decode_in_any_pieces),
		cmocka_unit_test(long_runs_of_blanks_are_kept_in_bounds),
		cmocka_unit_test(charsets_convert_in_any_pieces),
		cmocka_unit_test(charsets_are_known_or_not),
		cmocka_unit_test(threads_have_converters_of_their_own),
		cmocka_unit_test(utf8_is_judged_strictly),
		cmocka_unit_test(names_are_composed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
