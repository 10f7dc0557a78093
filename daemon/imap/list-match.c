#include "daemon/imap/list-match.h"

#include <stddef.h>
#include <strings.h>

static bool under_inbox(const char *name)
{
	return !strncasecmp(name, "INBOX", 5) && (!name[5] || name[5] == '/');
}

static bool same(const char *name, const char *at, char want, bool inbox)
{
	if (*at == want)
		return true;
	return inbox && at - name < 5 && (*at | 0x20) == (want | 0x20);
}

/* Where to go on after a mismatch: the pattern behind a wildcard and the
 * first octet of the name that it has not taken yet.  Only the last of each
 * kind matters: an earlier '%' cannot help where a later one could not, as
 * both stop at the same separator, and nothing before a '*' can help behind it. */
struct retry {
	const char *pattern, *name;
};

bool list_match(const char *pattern, const char *name)
{
	struct retry star = { NULL, NULL }, percent = { NULL, NULL };
	const char *p = pattern, *n = name;
	bool inbox = under_inbox(name);

	for (;;) {
		if (*p == '*') {
			star = (struct retry){ ++p, n };
			percent.pattern = NULL;
			continue;
		}
		if (*p == '%') {
			percent = (struct retry){ ++p, n };
			continue;
		}
		if (!*n && !*p)
			return true;
		if (*n && *p && same(name, n, *p, inbox)) {
			p++;
			n++;
			continue;
		}
		if (percent.pattern && *percent.name && *percent.name != '/') {
			p = percent.pattern;
			n = ++percent.name;
		} else if (star.pattern && *star.name) {
			percent.pattern = NULL;
			p = star.pattern;
			n = ++star.name;
		} else {
			return false;
		}
	}
}
