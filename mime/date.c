/* Dates of messages: RFC 5322 section 3.3 with the obsolete forms of section
 * 4.3, and what else is met: no day of week, "2004-01-31", ctime order
 * ("Mon Jan  5 10:00:00 2004"), am/pm, missing seconds, time or zone. */
#include "mime/mime-private.h"

#include "base/mem.h"

enum { DATE_MAX = 256 };	/* longer than this is no date */

struct date {
	int64_t year;
	int month, day, hour, minute, second;	/* month 1-12; -1 = not seen */
	int zone;
	bool have_time, have_zone, have_year;
};

static const char months[] = "janfebmaraprmayjunjulaugsepoctnovdec";

/* Military letters mean nothing reliable (section 4.3): they are UTC. */
static const struct {
	char name[6];
	int16_t minutes;
} zones[] = {
	{ "ut", 0 }, { "utc", 0 }, { "gmt", 0 }, { "z", 0 }, { "est", -300 }, { "edt", -240 }, { "cst", -360 }, { "cdt", -300 },
	{ "mst", -420 }, { "mdt", -360 }, { "pst", -480 }, { "pdt", -420 }, { "wet", 0 }, { "west", 60 }, { "bst", 60 }, { "met", 60 },
	{ "mez", 60 }, { "cet", 60 }, { "mest", 120 }, { "mesz", 120 }, { "cest", 120 }, { "eet", 120 }, { "eest", 180 }, { "msk", 180 },
	{ "jst", 540 }, { "kst", 540 }, { "hkt", 480 }, { "sgt", 480 }, { "aest", 600 }, { "aedt", 660 }, { "nzst", 720 }, { "nzdt", 780 },
};

/* Copies the value without comments, folds and doubled blanks. */
static bool clean(const char *s, size_t len, char out[DATE_MAX])
{
	size_t n = 0, i;
	int level = 0;

	for (i = 0; i < len; i++) {
		char c = s[i];

		if (level && c == '\\') {
			i++;
			continue;
		}
		if (c == '(' || c == ')') {
			level += c == '(' ? 1 : level ? -1 : 0;
			c = ' ';
		} else if (level) {
			continue;
		}
		if (tok_class[(unsigned char)c] & CH_LWSP || c == '"')
			c = ' ';
		if (c == ' ' && (!n || out[n - 1] == ' '))
			continue;
		if (n + 1 == DATE_MAX || !c)
			return false;
		out[n++] = c;
	}
	out[n] = '\0';
	return true;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_alpha(char c)
{
	c = (char)ascii_lower((unsigned char)c);
	return c >= 'a' && c <= 'z';
}

/* Digits at *s; their count to *n.  Stops being exact past nine digits. */
static int number(const char **s, size_t *n)
{
	int v = 0;

	for (*n = 0; is_digit(**s); (*s)++, (*n)++)
		if (*n < 9)
			v = v * 10 + (**s - '0');
	return v;
}

static int month_of(const char *s, size_t len)
{
	int m;

	if (len < 3)
		return 0;
	for (m = 0; m < 12; m++)
		if (ascii_lower((unsigned char)s[0]) == (unsigned char)months[3 * m] &&
			ascii_lower((unsigned char)s[1]) == (unsigned char)months[3 * m + 1] &&
			ascii_lower((unsigned char)s[2]) == (unsigned char)months[3 * m + 2])
			return m + 1;
	return 0;
}

/* ":mm[:ss[.fraction]]" or with dots, the hour was read. */
static bool read_time(const char **s, int hour, struct date *d)
{
	const char *p = *s;
	size_t n;

	d->hour = hour;
	d->second = 0;
	for (p++; *p == ' '; p++)
		;
	d->minute = number(&p, &n);
	if (!n || n > 2)
		return false;
	while (*p == ' ' && (p[1] == ':'))
		p++;
	if (*p == ':' || (*p == '.' && is_digit(p[1]))) {
		for (p++; *p == ' '; p++)
			;
		d->second = number(&p, &n);
		if (!n || n > 2)
			return false;
		if (*p == '.' || *p == ',')
			for (p++; is_digit(*p); p++)
				;
	}
	d->have_time = true;
	*s = p;
	return true;
}

/* "+hhmm", "+hh:mm", "+hh" */
static bool read_offset(const char **s, struct date *d)
{
	int sign = **s == '-' ? -1 : 1, v, minutes;
	const char *p = *s + 1;
	size_t n;

	v = number(&p, &n);
	if (!n || n > 4)
		return false;
	if (n <= 2 && *p == ':') {
		p++;
		minutes = number(&p, &n);
		if (n != 2)
			return false;
		v = v * 100 + minutes;
	} else if (n <= 2) {
		v *= 100;
	}
	if (v % 100 > 59 || v / 100 > 23)
		return false;
	d->zone = sign * (v / 100 * 60 + v % 100);
	d->have_zone = true;
	*s = p;
	return true;
}

static void set_year(struct date *d, int v, size_t digits)
{
	d->year = v;
	if (digits <= 2)	/* section 4.3 */
		d->year += v < 50 ? 2000 : 1900;
	else if (digits == 3)
		d->year += 1900;
	d->have_year = true;
}

/* "2004-01-31", "2004/01/31" and an optional "T" before the time */
static bool read_iso(const char **s, int year, struct date *d)
{
	const char *p = *s;
	char sep = *p++;
	size_t n;
	int month = number(&p, &n), day;

	if (!n || n > 2 || *p++ != sep)
		return false;
	day = number(&p, &n);
	if (!n || n > 2)
		return false;
	set_year(d, year, 4);
	d->month = month;
	d->day = day;
	if ((*p == 'T' || *p == 't') && is_digit(p[1]))
		p++;
	*s = p;
	return true;
}

static bool read_digits(const char **s, struct date *d)
{
	const char *colon;
	size_t n;
	int v = number(s, &n);

	for (colon = *s; *colon == ' '; colon++)
		;
	if (!d->have_time && n <= 2 && *colon == ':')
		*s = colon;
	if (!d->have_time && n <= 2 && (**s == ':' || (**s == '.' && d->have_year && is_digit((*s)[1]))))
		return read_time(s, v, d);
	if (n == 4 && (**s == '-' || **s == '/') && d->day < 0 && is_digit((*s)[1]))
		return read_iso(s, v, d);
	if (d->day < 0 && n <= 2)
		d->day = v;
	else if (!d->have_year && n >= 2 && n <= 4)
		set_year(d, v, n);
	else
		return false;
	return true;
}

static bool read_letters(const char **s, struct date *d)
{
	const char *p = *s;
	size_t len = 0, i;
	int m;

	while (is_alpha(p[len]))
		len++;
	*s += len;
	m = month_of(p, len);
	if (m && d->month < 0) {
		d->month = m;
		return true;
	}
	if (d->have_time && len == 2 && (ascii_is(p, 2, "pm") || ascii_is(p, 2, "am")) && d->hour <= 12) {
		d->hour = d->hour % 12 + (ascii_is(p, 2, "pm") ? 12 : 0);
		return true;
	}
	if (!d->have_time || d->have_zone)
		return true;		/* a day of week, or a zone's name behind its offset */
	for (i = 0; i < MEM_COUNT(zones); i++)
		if (ascii_is(p, len, zones[i].name))
			d->zone = zones[i].minutes;
	/* "GMT+0200": the offset behind the name is what counts */
	d->have_zone = **s != '+' && **s != '-';
	return true;
}

/* Days from 1970-01-01 in the proleptic Gregorian calendar. */
static int64_t days_from(int64_t y, int m, int d)
{
	int64_t era, yoe, doy;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = y - era * 400;
	doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static bool plausible(const struct date *d)
{
	static const unsigned char days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	if (!d->have_year || d->month < 1 || d->month > 12 || d->day < 1 || d->day > days[d->month - 1])
		return false;
	if (d->month == 2 && d->day == 29 && (d->year % 4 || (d->year % 100 == 0 && d->year % 400)))
		return false;
	return d->year >= 1900;
}

int mime_parse_date(const char *value, size_t len, int64_t *utc_r, int32_t *zone_minutes_r)
{
	struct date d = { .month = -1, .day = -1 };
	char text[DATE_MAX];
	const char *s = text;

	if (!clean(value, len, text))
		return -1;
	while (*s) {
		bool ok = true;

		if (is_digit(*s))
			ok = read_digits(&s, &d);
		else if (is_alpha(*s))
			ok = read_letters(&s, &d);
		else if ((*s != '+' && *s != '-') || !d.have_time || d.have_zone || !read_offset(&s, &d))
			s++;
		if (ok)
			continue;
		if (!plausible(&d))
			return -1;
		break;		/* enough is known: the rest is noise */
	}
	if (!plausible(&d))
		return -1;
	/* An impossible time counts as 00:00:00, an impossible zone as UTC (RFC 5256 section 2.2). */
	if (!d.have_time || d.hour > 24 || d.minute > 59 || d.second > 60)
		d.hour = d.minute = d.second = 0;
	*zone_minutes_r = d.zone;
	*utc_r = days_from(d.year, d.month, d.day) * 86400 + d.hour * 3600 + d.minute * 60 + d.second - d.zone * 60;
	return 0;
}
