#include "daemon/imap/date.h"

#include "base/buf.h"

#include <strings.h>

static const char month_names[12][4] = {
	"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
};

enum { DAY_S = 86400, YEAR_MAX = 9999 };

/* Proleptic Gregorian calendar in eras of 400 years that begin on 1 March. */
static int32_t days_from_civil(int32_t y, int32_t m, int32_t d)
{
	int32_t era, yoe, doy;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = y - era * 400;
	doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static void civil_from_days(int64_t z, int64_t *y, unsigned *m, unsigned *d)
{
	int64_t era;
	unsigned doe, yoe, doy, mp;

	z += 719468;
	era = (z >= 0 ? z : z - 146096) / 146097;
	doe = (unsigned)(z - era * 146097);
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	mp = (5 * doy + 2) / 153;
	*d = doy - (153 * mp + 2) / 5 + 1;
	*m = mp < 10 ? mp + 3 : mp - 9;
	*y = (int64_t)yoe + era * 400 + (*m <= 2);
}

int32_t imap_day_of(int64_t utc)
{
	int64_t day = utc / DAY_S - (utc % DAY_S < 0);

	if (day > INT32_MAX)
		return INT32_MAX;
	return day < INT32_MIN ? INT32_MIN : (int32_t)day;
}

/* Exactly n digits; -1 when they are not. */
static int digits(const char *s, size_t n)
{
	int v = 0;

	while (n--) {
		if (*s < '0' || *s > '9')
			return -1;
		v = v * 10 + (*s++ - '0');
	}
	return v;
}

static int month_days(int y, int m)
{
	static const unsigned char len[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	if (m == 2 && y % 4 == 0 && (y % 100 != 0 || y % 400 == 0))
		return 29;
	return len[m - 1];
}

int imap_date_parse(const char *s, size_t len, int32_t *day_r)
{
	int d, m, y;

	if (len != 10 && len != 11)
		return -1;
	if (len == 11 && s[0] == ' ') {
		s++;
		len--;
	}
	d = digits(s, len - 9);
	s += len - 9;
	if (s[0] != '-' || s[4] != '-')
		return -1;
	for (m = 0; m < 12; m++)
		if (!strncasecmp(s + 1, month_names[m], 3))
			break;
	y = digits(s + 5, 4);
	if (m == 12 || y < 1 || d < 1 || d > month_days(y, m + 1))
		return -1;
	*day_r = days_from_civil(y, m + 1, d);
	return 0;
}

int imap_datetime_parse(const char *s, size_t len, int64_t *utc_r)
{
	int32_t day;
	int h, mi, sec, zone;

	if (len != 26 || s[11] != ' ' || s[14] != ':' || s[17] != ':' || s[20] != ' ')
		return -1;
	if (imap_date_parse(s, 11, &day) < 0)
		return -1;
	h = digits(s + 12, 2);
	mi = digits(s + 15, 2);
	sec = digits(s + 18, 2);
	zone = digits(s + 22, 4);
	if (h < 0 || h > 23 || mi < 0 || mi > 59 || sec < 0 || sec > 60 || zone < 0 || zone % 100 > 59)
		return -1;
	if (s[21] != '+' && s[21] != '-')
		return -1;
	zone = (zone / 100 * 60 + zone % 100) * 60;
	*utc_r = (int64_t)day * DAY_S + h * 3600 + mi * 60 + sec - (s[21] == '+' ? zone : -zone);
	return 0;
}

static char *put2(char *p, unsigned v, char after)
{
	*p++ = (char)('0' + v / 10);
	*p++ = (char)('0' + v % 10);
	*p++ = after;
	return p;
}

void imap_datetime_put(struct buf *out, int64_t utc)
{
	int64_t days = utc / DAY_S - (utc % DAY_S < 0), y;
	unsigned sec = (unsigned)(utc - days * DAY_S), m, d;
	char text[32], *p = text;

	civil_from_days(days, &y, &m, &d);
	if (y < 1 || y > YEAR_MAX) {	/* four digits is all the syntax has */
		buf_adds(out, y < 1 ? "\"01-Jan-0001 00:00:00 +0000\"" : "\"31-Dec-9999 23:59:59 +0000\"");
		return;
	}
	*p++ = '"';
	p = put2(p, d, '-');
	memcpy(p, month_names[m - 1], 3);
	p += 3;
	*p++ = '-';
	*p++ = (char)('0' + y / 1000);
	*p++ = (char)('0' + y / 100 % 10);
	p = put2(p, (unsigned)(y % 100), ' ');
	p = put2(p, sec / 3600, ':');
	p = put2(p, sec / 60 % 60, ':');
	p = put2(p, sec % 60, ' ');
	memcpy(p, "+0000\"", 6);
	buf_add(out, text, (size_t)(p + 6 - text));
}
