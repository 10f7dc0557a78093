/* settings-private - what settings.c and settings-value.c share. */
#ifndef BASE_SETTINGS_PRIVATE_H
#define BASE_SETTINGS_PRIVATE_H
#include "base/settings.h"

union set_value {
	uint64_t n;
	bool b;
	unsigned choice;
};
/* The value text means for o; 0, or -1 with the reason and a suggestion in
 * why (may be NULL).  Strings and list entries are always right. */
int settings_value(const struct set_opt *o, const char *text, union set_value *v, struct buf *why);
#endif
