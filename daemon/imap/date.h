/* date - the dates of IMAP: date, date-time (RFC 9051 section 9).
 * No time zone of the process is involved: times are seconds since 1970 UTC,
 * days are days since 1970-01-01. */
#ifndef DAEMON_IMAP_DATE_H
#define DAEMON_IMAP_DATE_H
#include <stddef.h>
#include <stdint.h>

struct buf;

/* "17-Jul-1996" (one or two digits of day); 0 with the day number, or -1. */
int imap_date_parse(const char *s, size_t len, int32_t *day_r);
/* "17-Jul-1996 02:44:25 -0700", or a space for the first digit of the day. 0 or -1. */
int imap_datetime_parse(const char *s, size_t len, int64_t *utc_r);
/* Appends the date-time with its quotes, in UTC. */
void imap_datetime_put(struct buf *out, int64_t utc);
/* The day a time falls on (rounds down, before 1970 too). */
int32_t imap_day_of(int64_t utc);

#endif
