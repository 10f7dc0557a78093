/* msgin-private - a message coming in, for msgin.c and msgin-pass.c. */
#ifndef OBOX_MSGIN_PRIVATE_H
#define OBOX_MSGIN_PRIVATE_H
#include "mime/mime.h"
#include "obox/obox-private.h"

struct obox_msgin {
	struct obox *ob;
	struct mime_parser *parser;
	struct buf summary;
	uint64_t size;
	unsigned char *chunk;		/* being filled: OBOX_CHUNK bytes */
	size_t fill;
	struct msgin_chunk *chunks;
	size_t n, cap;
	struct buf mem;			/* packed chunks, until they are too many */
	int fd;				/* then an unnamed file */
	uint64_t stored;
	bool finished;
};
#endif
