/* Tests of mime/search.c and subject.c */
#include "tests/mime/mimetest.h"

static bool in_pieces(const struct mime_needle *n, const char *text, size_t piece)
{
	struct mime_match *m = mime_match_new(n);
	size_t pos, k, len = strlen(text);
	bool found = false;

	for (pos = 0; pos < len; pos += k) {
		k = len - pos < piece ? len - pos : piece;
		found = mime_match_feed(m, text + pos, k);
	}
	if (!len)
		found = mime_match_feed(m, "", 0);
	mime_match_free(&m);
	assert_null(m);
	return found;
}

static void texts_match_as_unicode_casemap_says(void **state)
{
	static const struct {
		const char *needle, *text;
		bool found;
	} rows[] = {
		{ "abc", "xxABCxx", true }, { "ABC", "xxabcxx", true }, { "abd", "xxABCxx", false }, { "", "x", true }, { "", "", true }, { "a", "", false },
		{ "aab", "aaab", true }, { "abab", "abaabab", true }, { "ababac", "abababac", true },
		{ "ä", "Ä", true }, { "Ä", "xä", true }, { "ä", "a\xcc\x88", true }, { "a\xcc\x88", "Ä", true },	/* composition */
		{ "a", "ä", true },		/* RFC 5051 compares decomposed */
		{ "straße", "STRAßE", true }, { "ПРИВЕТ", "привет", true }, { "σ", "Σ", true }, { "ǆ", "Ǆ", true },
		{ "fi", "\xef\xac\x81", false }, { "\xef\xac\x81", "x\xef\xac\x81", true },	/* title case comes before the decomposition */
		{ "1", "\xef\xbc\x91", true }, { "한", "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", true },
		{ "é", "e", false }, { "x", "\xff\xfex", true }, { "日本", "これは日本です", true }, { "日本", "日 本", false },
	};
	size_t i, piece;

	for (i = 0; i < MEM_COUNT(rows); i++) {
		struct mime_needle *n = mime_needle_new(rows[i].needle, strlen(rows[i].needle));

		if (mime_needle_in(n, rows[i].text, strlen(rows[i].text)) != rows[i].found)
			fail_msg("%s in %s", rows[i].needle, rows[i].text);
		for (piece = 1; piece < 8; piece++)
			if (in_pieces(n, rows[i].text, piece) != rows[i].found)
				fail_msg("%s in %s, pieces of %zu", rows[i].needle, rows[i].text, piece);
		mime_needle_free(&n);
		assert_null(n);
	}
}

/* Random texts over a small alphabet against strstr. */
static void search_agrees_with_strstr(void **state)
{
	unsigned seed = 3, round, i;

	for (round = 0; round < 20000; round++) {
		char text[40], needle[6];
		struct mime_needle *n;
		unsigned len = (unsigned)rand_r(&seed) % 39, nlen = (unsigned)rand_r(&seed) % 5;

		for (i = 0; i < len; i++)
			text[i] = (char)('A' + rand_r(&seed) % 2);
		text[len] = '\0';
		for (i = 0; i < nlen; i++)
			needle[i] = (char)('A' + rand_r(&seed) % 2);
		needle[nlen] = '\0';
		n = mime_needle_new(needle, nlen);
		if (in_pieces(n, text, 1 + round % 7) != (strstr(text, needle) != NULL))
			fail_msg("%s in %s", needle, text);
		mime_needle_free(&n);
	}
}

static void subjects_are_reduced_to_their_base(void **state)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{ "hello", "hello" }, { "Re: hello", "hello" }, { "RE : hello", "hello" }, { "Fwd: hello", "hello" }, { "fw: hello", "hello" },
		{ "Re: Re: Fwd: hello", "hello" }, { "Re[2]: hello", "hello" }, { "[list] hello", "hello" }, { "[list] Re: hello", "hello" },
		{ "Re: [list] hello", "hello" }, { "[a] [b] Re: [c] hello", "hello" }, { "hello (fwd)", "hello" }, { "hello (fwd) (FWD) ", "hello" },
		{ "[fwd: hello]", "hello" }, { "[Fwd: Re: hello (fwd)]", "hello" }, { "Re: [fwd: [fwd: hello]]", "hello" },
		{ "[only]", "[only]" }, { "Re: [only]", "[only]" }, { "[a][b]", "[b]" }, { "[fwd: x", "[fwd: x" }, { "Re:", "" }, { "", "" },
		{ "a\r\n\t b   c", "a b c" }, { "  hello  ", "hello" }, { "reply", "reply" }, { "re[x]y: z", "re[x]y: z" }, { "[a[b] c", "[a[b] c" },
		{ "=?utf-8?Q?Re:_gr=C3=BCn?=", "grün" }, { "=?utf-8?Q?gr=C3=BCn_(fwd)?=", "grün" }, { "Re: =?iso-8859-1?Q?[x]_gr=FCn?=", "grün" },
		{ "(fwd)", "" }, { "[fwd:]", "" },
	};
	struct buf out = BUF_INIT(0);
	size_t i;

	for (i = 0; i < MEM_COUNT(rows); i++) {
		buf_clear(&out);
		mime_base_subject(rows[i].in, strlen(rows[i].in), &out);
		if (out.len != strlen(rows[i].out) || memcmp(buf_str(&out), rows[i].out, out.len))
			fail_msg("%s: %s", rows[i].in, buf_str(&out));
	}
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_match_as_unicode_casemap_says),
		cmocka_unit_test(search_agrees_with_strstr),
		cmocka_unit_test(subjects_are_reduced_to_their_base),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
