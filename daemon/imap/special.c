#include "daemon/imap/special.h"

#include <strings.h>

#include "base/buf.h"
#include "base/mem.h"
#include "obox/obox.h"

static const struct { const char *name; uint32_t bit; } uses[] = {
	{ "All", OBOX_USE_ALL }, { "Archive", OBOX_USE_ARCHIVE }, { "Drafts", OBOX_USE_DRAFTS },
	{ "Flagged", OBOX_USE_FLAGGED }, { "Important", OBOX_USE_IMPORTANT }, { "Junk", OBOX_USE_JUNK },
	{ "Sent", OBOX_USE_SENT }, { "Trash", OBOX_USE_TRASH }
};

uint32_t special_use_bit(const char *name)
{
	size_t i;

	for (i = 0; i < MEM_COUNT(uses); i++)
		if (!strcasecmp(uses[i].name, name))
			return uses[i].bit;
	return 0;
}

void special_use_put(struct buf *out, uint32_t bits, const char *before)
{
	size_t i;

	for (i = 0; i < MEM_COUNT(uses); i++) {
		if (bits & uses[i].bit) {
			buf_adds(out, before);
			buf_addc(out, '\\');
			buf_adds(out, uses[i].name);
			before = " ";
		}
	}
}
