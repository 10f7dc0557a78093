/* Tests of mime/date.c */
#include "tests/mime/mimetest.h"

struct row {
	const char *text;
	int64_t utc;
	int32_t zone;
};

static void check(const struct row *r, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		int64_t utc = -1;
		int32_t zone = -1;

		if (mime_parse_date(r[i].text, strlen(r[i].text), &utc, &zone))
			fail_msg("no date: %s", r[i].text);
		if (utc != r[i].utc || zone != r[i].zone)
			fail_msg("%s: %lld %d", r[i].text, (long long)utc, (int)zone);
	}
}

static void rfc_5322_dates_are_read(void **state)
{
	static const struct row rows[] = {
		{ "Fri, 21 Nov 1997 09:55:06 -0600", 880127706, -360 },
		{ "21 Nov 97 09:55:06 GMT", 880106106, 0 },		/* appendix A.6.2 */
		{ "Thu,\r\n      13\r\n        Feb\r\n          1969\r\n      23:32\r\n               -0330 (Newfoundland Time)",
			-27723480, -210 },				/* appendix A.5 */
		{ "Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", 880127706, -360 },
		{ "1 Jan 1970 00:00:00 +0000", 0, 0 },
		{ "Tue, 1 Jul 2003 10:52:37 +0200", 1057049557, 120 },
		{ "29 Feb 2000 12:00 +0000", 951825600, 0 },
		{ "31 Dec 1999 23:59:60 +0000", 946684800, 0 },
		{ "1 Jan 1900 00:00:00 +0000", -2208988800, 0 },
	};

	check(rows, MEM_COUNT(rows));
}

static void obsolete_years_and_zones_are_read(void **state)
{
	static const struct row rows[] = {
		{ "1 Jan 00 00:00:00 UT", 946684800, 0 },
		{ "1 Jan 49 00:00:00 UT", 2493072000, 0 },
		{ "1 Jan 50 00:00:00 UT", -631152000, 0 },
		{ "1 Jan 103 00:00:00 UT", 1041379200, 0 },
		{ "1 Jan 2004 12:00:00 EST", 1072976400, -300 },
		{ "1 Jul 2004 12:00:00 PDT", 1088708400, -420 },
		{ "1 Jan 2004 12:00:00 Z", 1072958400, 0 },
		{ "1 Jan 2004 12:00:00 A", 1072958400, 0 },		/* section 4.3: as -0000 */
		{ "1 Jan 2004 12:00:00 XYZ", 1072958400, 0 },
		{ "1 Jan 2004 12:00:00 -0000", 1072958400, 0 },
	};

	check(rows, MEM_COUNT(rows));
}

static void junk_that_is_clear_is_read(void **state)
{
	static const struct row rows[] = {
		{ "Mon Jan  5 10:00:00 2004", 1073296800, 0 },
		{ "Mon Jan  5 10:00:00 EST 2004", 1073314800, -300 },
		{ "2004-01-31T10:00:00Z", 1075543200, 0 },
		{ "2004-01-31 10:00:00 +0100", 1075539600, 60 },
		{ "2004/01/31", 1075507200, 0 },
		{ "5 January 2004 10:00", 1073296800, 0 },
		{ "Mon, 05 Jan 2004 10:00:00 GMT+0200", 1073289600, 120 },
		{ "Mon, 05 Jan 2004 10:00:00 +02:00", 1073289600, 120 },
		{ "Mon, 05 Jan 2004 10:00:00 +2", 1073289600, 120 },
		{ "5 Jan 2004 10:00:00.123 +0200", 1073289600, 120 },
		{ "5-Jan-2004 10:00:00 +0200", 1073289600, 120 },
		{ "5 Jan 2004 03:00:00 PM +0000", 1073314800, 0 },
		{ "5 Jan 2004 12:00:00 AM +0000", 1073260800, 0 },
		{ "\"Mon, 05 Jan 2004 10:00:00 +0200\"", 1073289600, 120 },
		{ "Mon, 05 Jan 2004 10.00.00 +0200", 1073289600, 120 },
		{ "5 Jan 2004", 1073260800, 0 },
		{ "5 Jan 2004 77:00:00 +0000", 1073260800, 0 },		/* RFC 5256 section 2.2 */
		{ "5 Jan 2004 10:00:00 +9999", 1073296800, 0 },
		{ "Mon, 5 Jan 2004 10:00:00 +0200 what else 17 99999", 1073289600, 120 },
	};

	check(rows, MEM_COUNT(rows));
}

static void what_is_no_date_is_refused(void **state)
{
	static const char *const rows[] = {
		"", "x", "yesterday", "Jan", "32 Jan 2004 10:00:00", "30 Feb 2004", "29 Feb 1900 10:00 +0000", "0 Jan 2004", "5 Foo 2004 10:00",
		"10:00:00 +0100", "1 Jan 1899", "123456789012345678901234567890", "+0100", "5 Jan +", "(5 Jan 2004)", "5 Jan 20045 10:00",
	};
	char longer[1000];
	int64_t utc;
	int32_t zone;
	size_t i;

	for (i = 0; i < MEM_COUNT(rows); i++)
		if (!mime_parse_date(rows[i], strlen(rows[i]), &utc, &zone))
			fail_msg("a date: %s", rows[i]);
	memset(longer, 'x', sizeof(longer));
	assert_int_equal(mime_parse_date(longer, sizeof(longer), &utc, &zone), -1);
	assert_int_equal(mime_parse_date("5 Jan 2004\0 10:00", 17, &utc, &zone), -1);
}

/* Every day of 130 years against the C library. */
static void days_agree_with_the_c_library(void **state)
{
	static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	int64_t utc;
	int32_t zone;
	time_t t;

	for (t = 0; t < (time_t)130 * 366 * 86400; t += 86400) {
		struct tm tm;
		char text[64];

		gmtime_r(&t, &tm);
		snprintf(text, sizeof(text), "%d %s %d 00:00:00 +0000", tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900);
		assert_int_equal(mime_parse_date(text, strlen(text), &utc, &zone), 0);
		assert_true(utc == t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc_5322_dates_are_read),
		cmocka_unit_test(obsolete_years_and_zones_are_read),
		cmocka_unit_test(junk_that_is_clear_is_read),
		cmocka_unit_test(what_is_no_date_is_refused),
		cmocka_unit_test(days_agree_with_the_c_library),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
