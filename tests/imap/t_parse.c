/* The engine's parsers by themselves: names, patterns, dates, the reader, the lexer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "base/buf.h"
#include "base/mem.h"
#include "daemon/imap/arena.h"
#include "daemon/imap/date.h"
#include "daemon/imap/lex.h"
#include "daemon/imap/list-match.h"
#include "daemon/imap/reader.h"
#include "daemon/imap/utf7.h"
#include "obox/obox.h"

/* --- modified UTF-7 --- */

static void utf7_names_go_both_ways(void **state)
{
	static const struct { const char *wire, *utf8; } pairs[] = {
		{ "INBOX", "INBOX" }, { "", "" }, { "&-", "&" }, { "a&-b&-", "a&b&" }, { "Entw&APw-rfe", "Entwürfe" },
		{ "~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語" }, { "&AOQA9gD8-", "äöü" }, { "&2D3eAA-", "\xf0\x9f\x98\x80" },
		{ "&2D3eANg93gE-x", "\xf0\x9f\x98\x80\xf0\x9f\x98\x81x" }, { "&Jjo-!", "☺!" }, { "&AAo-", "\n" }
	};
	struct buf b = BUF_INIT(0);
	size_t i;

	for (i = 0; i < MEM_COUNT(pairs); i++) {
		buf_clear(&b);
		assert_int_equal(utf7_decode(pairs[i].wire, strlen(pairs[i].wire), &b), 0);
		assert_string_equal(buf_str(&b), pairs[i].utf8);
		buf_clear(&b);
		utf7_encode(pairs[i].utf8, strlen(pairs[i].utf8), &b);
		assert_string_equal(buf_str(&b), pairs[i].wire);
		buf_truncate(&b, 0);
	}
	buf_free(&b);
}

static void utf7_has_one_spelling_only(void **state)
{
	static const char *const bad[] = {
		"&", "&A", "&AGE", "&AGE-", "&AOQ", "&AOQ-&APY-", "&2D0-", "&3gA-", "&2D0A4Q-", "&AOR-", "&AO-", "&AOQ=-", "&AOQ/-", "a\x80",
		"\xc3\xa4", "tab\t", "&AOQA-", "&AOQAA-"
	};
	struct buf b = BUF_INIT(0);
	size_t i;

	for (i = 0; i < MEM_COUNT(bad); i++) {
		buf_clear(&b);
		if (utf7_decode(bad[i], strlen(bad[i]), &b) == 0)
			print_error("taken: %s\n", bad[i]);
		buf_clear(&b);
		assert_int_equal(utf7_decode(bad[i], strlen(bad[i]), &b), -1);
	}
	buf_free(&b);
}

/* --- LIST patterns --- */

static void patterns_match_as_the_rfc_says(void **state)
{
	static const struct { const char *pattern, *name; bool match; } t[] = {
		{ "*", "a/b/c", true }, { "%", "a", true }, { "%", "a/b", false }, { "%/%", "a/b", true }, { "%/%", "a/b/c", false },
		{ "a*c", "a/b/c", true }, { "a%c", "a/c", false }, { "a%c", "abbbc", true }, { "", "", true }, { "", "a", false }, { "*", "", true },
		{ "inbox", "INBOX", true }, { "InBoX/*", "INBOX/a", true }, { "inboxes", "INBOXES", false }, { "*box", "INBOX", true },
		{ "a/inbox", "a/INBOX", false }, { "%a%b", "xaxb", true }, { "%a/%b", "xa/yb", true }, { "%a/%b", "xa/ya/zb", false },
		{ "*a/%b", "xa/ya/zb", true }, { "*%", "a/b", true }, { "%*", "a/b", true }, { "**", "x", true }, { "%%", "x/", false },
		{ "*/%/c", "a/b/c", true }, { "*/%/c", "a/c", false }, { "%b*", "ab/c", true }, { "*b%d*f", "a/bcd/e/f", true }, { "a", "A", false }
	};
	size_t i;

	for (i = 0; i < MEM_COUNT(t); i++) {
		if (list_match(t[i].pattern, t[i].name) != t[i].match)
			print_error("%s against %s\n", t[i].pattern, t[i].name);
		assert_int_equal(list_match(t[i].pattern, t[i].name), t[i].match);
	}
}

/* The definition, as slow as it is obvious. */
static bool slow_match(const char *p, const char *n)
{
	if (!*p)
		return !*n;
	if (*p == '*' || *p == '%')
		return slow_match(p + 1, n) || (*n && (*p == '*' || *n != '/') && slow_match(p, n + 1));
	return *n && *p == *n && slow_match(p + 1, n + 1);
}

static void patterns_match_as_their_definition(void **state)
{
	static const char pattern_chars[] = "ab/%*", name_chars[] = "ab/";
	unsigned seed = 1;
	int round;

	for (round = 0; round < 200000; round++) {
		char p[9], n[11];
		size_t pl = (size_t)(rand_r(&seed) % 9), nl = (size_t)(rand_r(&seed) % 11), i;

		for (i = 0; i < pl; i++)
			p[i] = pattern_chars[rand_r(&seed) % 5];
		p[pl] = '\0';
		for (i = 0; i < nl; i++)
			n[i] = name_chars[rand_r(&seed) % 3];
		n[nl] = '\0';
		if (list_match(p, n) != slow_match(p, n))
			print_error("%s against %s\n", p, n);
		assert_int_equal(list_match(p, n), slow_match(p, n));
	}
}

static void a_hostile_pattern_takes_no_long_time(void **state)
{
	char pattern[2001], name[1001];
	struct timespec a, b;
	size_t i;

	for (i = 0; i < 2000; i++)
		pattern[i] = "*a%a"[i % 4];
	pattern[1999] = 'b';
	pattern[2000] = '\0';
	memset(name, 'a', 1000);
	for (i = 100; i < 1000; i += 100)
		name[i] = '/';
	name[1000] = '\0';
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_false(list_match(pattern, name));
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_true((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 < 1000);
}

/* --- dates --- */

static void dates_are_read_and_written(void **state)
{
	struct buf b = BUF_INIT(0);
	int64_t t;
	int32_t day;

	assert_int_equal(imap_datetime_parse("17-Jul-1996 02:44:25 -0700", 26, &t), 0);
	assert_true(t == 837596665);
	imap_datetime_put(&b, t);
	assert_string_equal(buf_str(&b), "\"17-Jul-1996 09:44:25 +0000\"");
	assert_int_equal(imap_datetime_parse(" 1-jan-1970 00:00:00 +0000", 26, &t), 0);
	assert_true(t == 0);
	assert_int_equal(imap_datetime_parse("29-Feb-2000 23:59:59 +0130", 26, &t), 0);
	buf_clear(&b);
	imap_datetime_put(&b, t);
	assert_string_equal(buf_str(&b), "\"29-Feb-2000 22:29:59 +0000\"");
	buf_clear(&b);
	imap_datetime_put(&b, -1);
	assert_string_equal(buf_str(&b), "\"31-Dec-1969 23:59:59 +0000\"");
	buf_clear(&b);
	imap_datetime_put(&b, INT64_MIN / 2);
	imap_datetime_put(&b, INT64_MAX / 2);
	assert_string_equal(buf_str(&b), "\"01-Jan-0001 00:00:00 +0000\"\"31-Dec-9999 23:59:59 +0000\"");
	assert_int_equal(imap_date_parse("1-Jan-1970", 10, &day), 0);
	assert_int_equal(day, 0);
	assert_int_equal(imap_date_parse("01-Mar-2000", 11, &day), 0);
	assert_int_equal(day, 11017);
	assert_int_equal(imap_day_of(-1), -1);
	buf_free(&b);
}

static void bad_dates_are_refused(void **state)
{
	static const char *const bad[] = { "", "1-Jan-70", "32-Jan-1970", "0-Jan-1970", "29-Feb-1900", "1-Foo-1970", "1 Jan 1970", "1-Jan-0000", "x1-Jan-1970", "+1-Jan-1970" };
	static const char *const bad_times[] = { "17-Jul-1996 24:44:25 -0700", "17-Jul-1996 02:60:25 -0700", "17-Jul-1996 02:44:61 -0700",
		"17-Jul-1996 02:44:25  0700", "17-Jul-1996 02:44:25 -0760", "17-Jul-1996T02:44:25 -0700", "17-Jul-1996 02:44:25 -070" };
	int64_t t;
	int32_t day;
	size_t i;

	for (i = 0; i < MEM_COUNT(bad); i++)
		assert_int_equal(imap_date_parse(bad[i], strlen(bad[i]), &day), -1);
	for (i = 0; i < MEM_COUNT(bad_times); i++)
		assert_int_equal(imap_datetime_parse(bad_times[i], strlen(bad_times[i]), &t), -1);
}

/* --- the reader --- */

/* Feeds text in pieces of step bytes, collecting every literal; events as letters. */
static void read_events(const char *text, size_t len, size_t step, size_t max, struct buf *events)
{
	struct reader r;
	size_t at = 0, used;

	reader_init(&r, max);
	while (at < len) {
		size_t n = len - at < step ? len - at : step;
		enum reader_event ev = reader_feed(&r, (const unsigned char *)text + at, n, &used);

		at += used;
		if (ev == READER_COMMAND) {
			buf_addf(events, "C(%s)", buf_str(&r.cmd));
			reader_reset(&r);
		} else if (ev == READER_LITERAL) {
			buf_addf(events, "L%llu%s%s", (unsigned long long)r.literal_size, r.literal_sync ? "s" : "", r.literal8 ? "8" : "");
			if (!reader_collect(&r) && !reader_refuse(&r))
				buf_adds(events, "R");
		} else if (ev == READER_TOO_LONG) {
			buf_adds(events, "T");
		} else if (ev == READER_SKIPPED) {
			buf_adds(events, "S");
			reader_reset(&r);
		}
	}
	reader_free(&r);
}

static void reader_cuts_commands(void **state)
{
	static const char text[] = "a NOOP\r\nb X {3+}\r\na\nb y ~{2}\r\n\r\n\r\nc {0+}\r\n\nd {5\r\ne }\r\nf {}\r\ng {1x}\r\n{99999999999999999999+}\r\n";
	static const char want[] = "C(a NOOP)L3L2s8C(b X {3+}\r\na\nb y ~{2}\r\n\r\n)L0C(c {0+}\r\n)C(d {5)C(e })C(f {})C(g {1x})C({99999999999999999999+})";
	struct buf b = BUF_INIT(0);
	size_t step;

	for (step = 1; step < sizeof(text); step++) {
		buf_clear(&b);
		read_events(text, sizeof(text) - 1, step, 1000, &b);
		assert_string_equal(buf_str(&b), want);
	}
	buf_free(&b);
}

static void reader_skips_what_is_too_long(void **state)
{
	static const char text[] = "a 12345678901234567890\r\nb NOOP\r\nc {50+}\r\n12345678901234567890123456789012345678901234567890 {2+}\r\nxy rest\r\nd {50}\r\ne NOOP\r\n"
		"f 12345678901234567890 {3+}\r\nabc\r\ng NOOP\r\nh 12345678901234567890 {3}\r\ni NOOP\r\n";
	static const char want[] = "TSC(b NOOP)L50SL50sRC(e NOOP)TSC(g NOOP)TSC(i NOOP)";
	struct buf b = BUF_INIT(0);
	size_t step;

	for (step = 1; step < sizeof(text); step++) {
		buf_clear(&b);
		read_events(text, sizeof(text) - 1, step, 20, &b);
		assert_string_equal(buf_str(&b), want);
	}
	buf_free(&b);
}

static void reader_streams_a_literal(void **state)
{
	static const char text[] = "a APPEND x {5+}\r\nhello (y) {2}\r\nhi\r\nb\r\n";
	struct buf b = BUF_INIT(0);
	struct reader r;
	size_t at = 0, used;

	reader_init(&r, 100);
	while (at < sizeof(text) - 1) {
		enum reader_event ev = reader_feed(&r, (const unsigned char *)text + at, sizeof(text) - 1 - at < 3 ? 1 : 3, &used);

		at += used;
		if (ev == READER_LITERAL) {
			reader_stream(&r);
		} else if (ev == READER_DATA) {
			buf_add(&b, r.data, r.data_len);
			buf_adds(&b, r.left ? "" : ";");
		} else if (ev == READER_COMMAND) {
			buf_addf(&b, "C(%s)", buf_str(&r.cmd));
			reader_reset(&r);
		}
	}
	assert_string_equal(buf_str(&b), "hello;hi;C(a APPEND x {5+}\r\n (y) {2}\r\n)C(b)");
	reader_free(&r);
	buf_free(&b);
}

/* --- the lexer --- */

static void sets_are_ordered_and_bounded(void **state)
{
	struct arena arena = ARENA_INIT;
	struct lex lx;
	struct lex_set set;
	struct seqset plain = SEQSET_INIT;
	struct buf b = BUF_INIT(0);
	unsigned i;

	lex_init(&lx, &arena, "9,4:2,*:7,1", 11, false);
	assert_true(lex_set(&lx, &set) && lex_end(&lx));
	assert_int_equal(set.n, 4);
	assert_int_equal(set.r[0].lo, 1);
	assert_int_equal(set.r[1].lo, 2);
	assert_int_equal(set.r[1].hi, 4);
	assert_int_equal(set.r[2].lo, 7);
	assert_int_equal(set.r[2].hi, 0);
	lex_init(&lx, &arena, "5,1:3,2", 7, false);
	assert_true(lex_plain_set(&lx, "A set", &plain));
	seqset_format(&plain, &b);
	assert_string_equal(buf_str(&b), "1:3,5");
	buf_clear(&b);
	for (i = 0; i < 100001; i++)
		buf_addf(&b, "%s%u", i ? "," : "", 1000000 - i);
	lex_init(&lx, &arena, b.data, b.len, false);
	assert_false(lex_set(&lx, &set));
	assert_non_null(strstr(lx.error, "ranges"));
	seqset_free(&plain);
	buf_free(&b);
	arena_free(&arena);
}

static void flag_lists_are_bounded(void **state)
{
	struct arena arena = ARENA_INIT;
	struct lex_flags flags;
	struct buf b = BUF_INIT(0);
	struct lex lx;
	unsigned i;

	lex_init(&lx, &arena, "(\\seen $a $A \\Draft)", 20, false);
	assert_true(lex_flags(&lx, false, &flags) && lex_end(&lx));
	assert_int_equal(flags.flags, OBOX_SEEN | OBOX_DRAFT);
	assert_int_equal(flags.n_keywords, 1);
	buf_addc(&b, '(');
	for (i = 0; i < 300; i++)
		buf_addf(&b, "k%u ", i);
	lex_init(&lx, &arena, b.data, b.len, false);
	assert_false(lex_flags(&lx, false, &flags));
	assert_non_null(strstr(lx.error, "More than 200 keywords"));
	buf_clear(&b);
	buf_addc(&b, '(');
	for (i = 0; i < 256; i++)
		buf_addc(&b, 'k');
	lex_init(&lx, &arena, b.data, b.len, false);
	assert_false(lex_flags(&lx, false, &flags));
	assert_non_null(strstr(lx.error, "255"));
	buf_free(&b);
	arena_free(&arena);
}

static void strings_are_taken_as_they_are_written(void **state)
{
	static const char cmd[] = "\"a\\\"b\\\\c\" {3}\r\nx\ry {2+}\n\"\" atom]x";
	struct arena arena = ARENA_INIT;
	struct lex lx;
	char *s;
	size_t len;

	lex_init(&lx, &arena, cmd, sizeof(cmd) - 1, false);
	assert_true(lex_astring(&lx, "x", &s, &len));
	assert_string_equal(s, "a\"b\\c");
	assert_true(lex_sp(&lx) && lex_astring(&lx, "x", &s, &len));
	assert_string_equal(s, "x\ry");
	assert_true(lex_sp(&lx) && lex_astring(&lx, "x", &s, &len));
	assert_string_equal(s, "\"\"");
	assert_true(lex_sp(&lx) && lex_astring(&lx, "x", &s, &len) && lex_end(&lx));
	assert_string_equal(s, "atom]x");
	lex_init(&lx, &arena, "{3}\r\na\0b", 8, false);
	assert_false(lex_string(&lx, "x", &s, &len));
	lex_init(&lx, &arena, "{4}\r\nabc", 8, false);
	assert_false(lex_string(&lx, "x", &s, &len));
	lex_init(&lx, &arena, "\"abc\\", 5, false);
	assert_false(lex_string(&lx, "x", &s, &len));
	arena_free(&arena);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(utf7_names_go_both_ways),
		cmocka_unit_test(utf7_has_one_spelling_only),
		cmocka_unit_test(patterns_match_as_the_rfc_says),
		cmocka_unit_test(patterns_match_as_their_definition),
		cmocka_unit_test(a_hostile_pattern_takes_no_long_time),
		cmocka_unit_test(dates_are_read_and_written),
		cmocka_unit_test(bad_dates_are_refused),
		cmocka_unit_test(reader_cuts_commands),
		cmocka_unit_test(reader_skips_what_is_too_long),
		cmocka_unit_test(reader_streams_a_literal),
		cmocka_unit_test(sets_are_ordered_and_bounded),
		cmocka_unit_test(flag_lists_are_bounded),
		cmocka_unit_test(strings_are_taken_as_they_are_written),
	};

	return cmocka_run_group_tests_name("imap parsers", tests, NULL, NULL);
}
