/* objstore - one interface to every object store.
 *
 * An object has a key ("a/b/c": 1..1024 bytes of [0-9A-Za-z._%=@+-] and '/',
 * no empty, "." or ".." component), bytes, and an opaque etag that changes
 * with them.  Objects are written whole and at once; a reader sees a whole
 * old one, a whole new one or none.
 *
 * Every operation is asynchronous: objstore_submit() starts it and done() is
 * called exactly once from a thread of the driver (or, when the driver can
 * answer at once, from the caller's) with op->rc and the result fields
 * filled in.  The blocking calls below wait for that.
 *
 * Results: 0, or ERR_NOTFOUND, ERR_EXISTS (create-only: the key is there),
 * ERR_CONFLICT (if-match: changed or gone), ERR_BUSY (throttled), ERR_TIMEOUT
 * (deadline: a put may or may not have happened), ERR_DENIED, ERR_CORRUPT,
 * ERR_UNAVAILABLE, ERR_INVALID.
 * Threads: a store may be used from any number of threads. */
#ifndef OBJSTORE_OBJSTORE_H
#define OBJSTORE_OBJSTORE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"

enum objstore_verb { OBJ_PUT, OBJ_GET, OBJ_HEAD, OBJ_DELETE, OBJ_LIST, OBJ_COPY, OBJ_SYNC };
enum objstore_cond { OBJ_ANY, OBJ_CREATE /* If-None-Match: * */, OBJ_MATCH /* If-Match */ };
enum objstore_caps {
	OBJ_CAP_CREATE = 1,	/* create-only holds among racing writers */
	OBJ_CAP_MATCH = 2,	/* compare-and-swap holds */
	OBJ_CAP_RANGE = 4,
	OBJ_CAP_COPY = 8,
	OBJ_CAP_LIST = 16,
	OBJ_CAP_LAZY = 32,	/* put_lazy is cheaper than put */
	OBJ_CAP_DELETE_MANY = 64,	/* OBJ_DELETE takes keys; otherwise they are refused */
	OBJ_CAP_LOCK = 128,	/* objects can be kept from deletion (struct objstore_put_opts) */
	OBJ_CAP_REMOTE = 256	/* answers come over a network: begin many requests rather than one after the other */
};
enum { OBJ_KEY_MAX = 1024, OBJ_ETAG_MAX = 80 };
enum { OBJ_N_VERBS = OBJ_SYNC + 1 };

struct objstore;
struct objstore_list_item {
	char *key;
	uint64_t size;
	int64_t mtime;		/* seconds */
};

/* For single puts, where the store knows such things (OBJ_CAP_LOCK for all but the class). */
struct objstore_put_opts {
	const char *storage_class;	/* NULL: the store's setting */
	int64_t retain_until;		/* Object Lock: seconds since 1970, 0 = no retention */
	bool governance;		/* who has the right may shorten it; otherwise nobody (compliance) */
	bool legal_hold;
};

struct objstore_op {
	/* set by the caller */
	enum objstore_verb verb;
	const char *key;		/* OBJ_LIST: prefix, "" for all */
	const char *const *keys;	/* OBJ_DELETE of many at once; key is then set to the first of them */
	size_t n_keys;
	const struct objstore_put_opts *put;	/* NULL: nothing special */
	const char *key_to;		/* OBJ_COPY */
	enum objstore_cond cond;
	char etag[OBJ_ETAG_MAX];	/* in: for OBJ_MATCH; out: of the object put, got or headed */
	const struct iovec *iov;	/* OBJ_PUT: the bytes, borrowed until done */
	int n_iov;
	bool want_etag;			/* GET, HEAD: fill in etag (a driver may have to read for it) */
	bool uncached;			/* OBJ_GET: the store's own bytes; caches on the way are neither asked nor changed */
	bool lazy;			/* OBJ_PUT: atomic at once, durable only by a later OBJ_SYNC */
	uint64_t off, len;		/* OBJ_GET: range; len 0 = to the end.  Beyond the end: what is there */
	struct buf *out;		/* OBJ_GET: appended to; its ceiling bounds what is taken (else ERR_LIMIT) */
	const char *start_after;	/* OBJ_LIST: keys behind this one; NULL from the first */
	size_t max_keys;		/* OBJ_LIST: 0 = 1000 */
	int64_t deadline_us;		/* on clock_system's monotonic clock; 0 = the store's own */
	void (*done)(struct objstore_op *op);
	void *ctx;
	/* set by the store before done() */
	int rc;
	struct err err;
	uint64_t size;			/* whole size of the object (GET, HEAD) */
	int64_t mtime;
	struct objstore_list_item *items;	/* OBJ_LIST: in key order; owned by the caller: objstore_items_free */
	size_t n_items;
	bool more;			/* OBJ_LIST: ask again with start_after */
	void *driver;			/* the store's while under way */
};

/* What went over the wire: every attempt, hedge and read-back counts where it
 * belongs by its kind (uploads and what completes them: OBJ_PUT). */
struct objstore_stats {
	struct objstore_verb_stats {
		uint64_t ops;		/* operations that ended */
		uint64_t failed;	/* of them badly; not found, exists and conflict are answers */
		uint64_t requests;	/* sent */
		uint64_t retries, hedges;	/* of the requests */
		uint64_t errors;	/* requests that ended without an answer or with 5xx */
		uint64_t throttled;	/* requests answered 429 or 503 */
		uint64_t up, down;	/* octets of bodies */
		uint64_t us;		/* operations' times added up */
	} verb[OBJ_N_VERBS];
	uint64_t breaker_opened, read_backs;
	unsigned etag_form;		/* of If-Match as found out: 0 not known, 1 quoted, 2 unquoted */
};

/* The table a driver or a wrapper fills in. */
struct objstore_ops {
	const char *name;
	void (*submit)(struct objstore *s, struct objstore_op *op);
	/* Wishes op away: done() still comes, early, with ERR_TIMEOUT where nothing is known. NULL: not needed. */
	void (*cancel)(struct objstore *s, struct objstore_op *op);
	void (*close)(struct objstore *s);
	void (*stats)(struct objstore *s, struct objstore_stats *out);	/* NULL: none are kept */
};
struct objstore {
	const struct objstore_ops *ops;
	unsigned caps;
};

void objstore_submit(struct objstore *s, struct objstore_op *op);
void objstore_cancel(struct objstore *s, struct objstore_op *op);
void objstore_close(struct objstore **s);	/* waits for what is under way */
bool objstore_key_valid(const char *key);
void objstore_items_free(struct objstore_list_item *items, size_t n);

/* Blocking forms.  err may be NULL. */
int objstore_put(struct objstore *s, const char *key, const void *data, size_t len, enum objstore_cond cond,
		 char etag[OBJ_ETAG_MAX] /* in for OBJ_MATCH, out; NULL = none */, struct err *err);
/* Create-only and lazy: there at once, durable by a later objstore_sync. */
int objstore_put_lazy(struct objstore *s, const char *key, const struct iovec *iov, int n, struct err *err);
int objstore_get(struct objstore *s, const char *key, struct buf *out, char etag_r[OBJ_ETAG_MAX], struct err *err);
int objstore_get_range(struct objstore *s, const char *key, uint64_t off, uint64_t len, struct buf *out, uint64_t *size_r, struct err *err);
/* The same from the store itself, past any cache: what to do when cached bytes turned out damaged. */
int objstore_get_fresh(struct objstore *s, const char *key, uint64_t off, uint64_t len, struct buf *out, struct err *err);
/* The same and the caches stay as they are: what the store has. */
int objstore_get_uncached(struct objstore *s, const char *key, uint64_t off, uint64_t len, struct buf *out, struct err *err);
int objstore_head(struct objstore *s, const char *key, uint64_t *size_r, struct err *err);	/* 1 there, 0 not, <0 */
int objstore_delete(struct objstore *s, const char *key, struct err *err);	/* absent is fine */
/* All are tried; the first error. Any store; in as few requests as it can. */
int objstore_delete_many(struct objstore *s, const char *const *keys, size_t n, struct err *err);
/* False (and zeroes): the store counts nothing. */
bool objstore_stats(struct objstore *s, struct objstore_stats *out);
/* Within the store, over what is there. */
int objstore_copy(struct objstore *s, const char *from, const char *to, struct err *err);
/* Everything put lazily before is durable when this returns 0. */
int objstore_sync(struct objstore *s, struct err *err);
/* At most max keys under prefix that lie behind after (NULL = from the first); objstore_items_free. */
int objstore_list(struct objstore *s, const char *prefix, const char *after, size_t max, struct objstore_list_item **items_r, size_t *n_r, struct err *err);
/* Calls fn for every key under prefix in key order until it returns non-zero (which is returned). */
int objstore_each(struct objstore *s, const char *prefix, int (*fn)(void *ctx, const struct objstore_list_item *item), void *ctx, struct err *err);

/* --- drivers --- */
/* A store as settings name it.  Strings may be NULL or "" for the default; all are copied. */
struct objstore_settings {
	const char *driver;		/* "posix", "s3", "sproxyd", "libs3" (not in every build) */
	const char *path;		/* posix: the directory */
	/* s3 */
	const char *endpoint;		/* "https://host:port"; default: that of AWS for region */
	const char *region, *bucket;	/* default region us-east-1 */
	const char *addressing;		/* "auto" (virtual with AWS, path elsewhere), "path", "virtual" */
	const char *credentials;	/* "auto", "settings", "environment", "file", "imds", "web-identity" */
	const char *access_key, *secret_key, *session_token;
	const char *credentials_file, *profile, *role_arn, *web_identity_token_file, *imds_endpoint, *sts_endpoint;
	const char *ca_file, *cert_file, *key_file, *proxy;
	const char *storage_class;
	const char *sse;		/* "none", "AES256", "aws:kms", "customer" */
	const char *sse_kms_key;	/* its id */
	const char *sse_customer_key;	/* file of 32 octets, or of their base64 */
	const char *checksum;		/* "none", "sha256", "md5": sent beside the signed hash of the body */
	const char *etag_match;		/* "auto" (found out), "quoted", "unquoted": the form of If-Match */
	uint64_t concurrency;		/* requests at one time, most; 0 = 128 */
	uint64_t timeout_ms;		/* of an operation; 0 = 30 s */
	uint64_t attempt_timeout_ms;	/* of one request, its body's time at 1 MB/s added; 0 = 10 s */
	uint64_t connect_timeout_ms;	/* 0 = 3 s */
	uint64_t multipart_size;	/* unconditional puts larger than this go in parts; 0 = 64 MiB */
	uint64_t part_size;		/* 0 = 16 MiB */
	bool no_hedge;
	/* sproxyd; profile is that of the proxy: "chord" (default), "arc", by path what begins with "bp" */
	const char *const *urls;	/* its connectors, "http://host:81" */
	size_t n_urls;
	unsigned service_id;		/* in its keys: 0xC1..0xFF; 0 = 0xC4 */
	unsigned copies;		/* of each object, 1..6: class of service + 1; 0 = 3 */
	uint64_t seed;			/* of chance, for tests; 0 = random */
};
int objstore_open(const struct objstore_settings *set, struct objstore **s_r, struct err *err);
/* Message objects on Scality's proxy: no listing, no compare-and-swap, no copies. */
int objstore_sproxyd_open(const struct objstore_settings *set, struct objstore **s_r, struct err *err);
/* Message objects on a store that knows Signature V2 only (where built with libs3): no conditional writes; OBJ_CREATE looks
 * first and then writes, which a race can beat (OBJ_CAP_CREATE is absent).  Needs endpoint, bucket and the keys in the settings. */
int objstore_libs3_open(const struct objstore_settings *set, struct objstore **s_r, struct err *err);
int objstore_s3_open(const struct objstore_settings *set, struct objstore **s_r, struct err *err);
/* A directory, created when missing.  Safe among any number of processes. */
int objstore_posix_open(const char *dir, struct objstore **s_r, struct err *err);
/* Objects in memory, for tests; "durable" means synced: see objstore_mem_crash. */
struct objstore *objstore_mem_new(void);
/* What a power loss leaves: lazy puts that were not synced are dropped, each
 * by its own toss of the seeded coin. */
void objstore_mem_crash(struct objstore *mem, uint64_t seed);

/* Seeded faults around any store (which it then owns). Rates in 1/1000 of the operations. */
struct objstore_faults {
	uint64_t seed;
	unsigned error;		/* fails, nothing done (ERR_UNAVAILABLE) */
	unsigned lost_answer;	/* done, but ERR_TIMEOUT is answered */
	unsigned late;		/* answered ERR_TIMEOUT now, done later */
	unsigned throttle;	/* ERR_BUSY */
	unsigned duplicate;	/* a put is carried out twice */
	unsigned torn;		/* a get gives damaged bytes */
	unsigned ignore_cond;	/* the store takes conditions and ignores them */
	unsigned delay_us_max;	/* each operation takes 0..this longer */
	int64_t fail_after;	/* >= 0: after so many operations every one fails (a crash of the store) */
};
struct objstore *objstore_fault_new(struct objstore *below, const struct objstore_faults *f);
void objstore_fault_set(struct objstore *fault, const struct objstore_faults *f);
uint64_t objstore_fault_count(const struct objstore *fault);	/* operations so far */
#endif
