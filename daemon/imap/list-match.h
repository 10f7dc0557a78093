/* list-match - LIST patterns against mailbox names.
 *
 * '*' matches anything, '%' anything but the separator '/'.  The first level
 * INBOX is compared without case.  Time: at most the product of the lengths
 * times the number of separators, whatever the pattern. */
#ifndef DAEMON_IMAP_LIST_MATCH_H
#define DAEMON_IMAP_LIST_MATCH_H
#include <stdbool.h>

bool list_match(const char *pattern, const char *name);

#endif
