/* libs3-private - the inside of the driver on Debian's libs3, for stores that
 * know Signature Version 2 only.
 *
 *   libs3.c       settings, life, the queue and its threads, retries
 *   libs3-call.c  one request by libs3, with a deadline
 *
 * Each thread has a libs3 request context of its own (its connections are
 * kept there) and carries out one operation at a time. */
#ifndef OBJSTORE_LIBS3_PRIVATE_H
#define OBJSTORE_LIBS3_PRIVATE_H
#include "objstore/objstore.h"

#include <libs3.h>
#include <pthread.h>
#include <stdatomic.h>

enum { L3_MESSAGE = 200, L3_LIST_MAX = 1000 };

/* One operation under way. */
struct l3_op {
	struct l3_op *next;
	struct objstore_op *op;
	atomic_bool cancelled;
	int64_t begin_us, deadline_us;
	size_t len, out_start;		/* PUT: of the body; GET: op->out's length before */
	char md5[32], md5_hex[33];	/* PUT; md5 in base64 */
};

/* One request. */
struct l3_call {
	struct l3_op *o;
	const S3BucketContext *bucket;
	S3RequestContext **context;	/* of the thread; made when missing */
	int64_t deadline_us;
	/* filled in */
	S3Status status;
	bool done, slow;		/* slow: ended by the deadline or a cancel */
	char message[L3_MESSAGE];
	uint64_t size;			/* Content-Length */
	int64_t mtime;
	char etag[OBJ_ETAG_MAX];
	uint64_t up, down;
	bool limit;			/* more came than fits */
	/* moving */
	int iov_at;
	size_t iov_off, items_cap;
	struct objstore_list_item *items;
	size_t n_items;
	bool more;
};

/* Carries out verb (of the operation, or OBJ_HEAD for one of its keys) and
 * waits for its end: c->status.  What was collected belongs to the caller. */
void l3_call(struct l3_call *c, enum objstore_verb verb);
#endif
