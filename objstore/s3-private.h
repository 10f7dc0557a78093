/* s3-private - the inside of the S3 driver.
 *
 *   s3.c        settings, life, the ways in (any thread) and the queue
 *   s3-call.c   one request on the wire: URL, fields, signature, where the body goes
 *   s3-answer.c what an answer means
 *   s3-op.c     the states of an operation
 *   s3-multi.c  multipart uploads and multi-deletes: operations with children
 *
 * All but s3.c's ways in runs on the engine's event thread, so nothing here
 * is locked but the counters and the end. */
#ifndef OBJSTORE_S3_PRIVATE_H
#define OBJSTORE_S3_PRIVATE_H
#include "objstore/http.h"
#include "objstore/objstore.h"
#include "objstore/policy.h"
#include "objstore/s3-cred.h"
#include "objstore/s3-sign.h"
#include "objstore/s3-xml.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>

enum s3_match { S3_MATCH_AUTO, S3_MATCH_QUOTED, S3_MATCH_UNQUOTED };
enum s3_sse { S3_SSE_NONE, S3_SSE_S3, S3_SSE_KMS, S3_SSE_CUSTOMER };
enum s3_checksum { S3_SUM_NONE, S3_SUM_SHA256, S3_SUM_MD5 };
enum {
	S3_DELETE_MAX = 1000, S3_CHILDREN = 8, S3_PARTS_MAX = 10000, S3_UPLOAD_ID = 1024,
	S3_ABORT_US = 10000000, S3_BREAKER_PATIENCE_US = 2000000
};

#define S3_TOKEN_FIELD "x-amz-meta-culver-put"

struct s3_store {
	struct objstore base;
	struct http_engine *e;
	struct s3_cred *cred;
	struct policy policy;
	struct s3_signer signer;
	/* settings */
	char *url, *host, *path;	/* scheme and authority; Host; what stands before "/key" */
	char *region, *bucket, *storage_class, *kms_key;
	char sse_key[48], sse_key_md5[32];	/* base64 */
	enum s3_sse sse;
	enum s3_checksum checksum;
	int64_t timeout_us, attempt_us;
	uint64_t multipart_size, part_size;
	/* found out */
	_Atomic int match;		/* enum s3_match */
	unsigned char token[8];		/* of this process and store; with a number it marks a conditional put as ours */
	_Atomic uint64_t n_tokens;
	bool no_multi_delete;
	int64_t skew_s;			/* the store's clock is so far ahead of ours */
	int64_t said_throttled_us, said_down_us;	/* last time it was logged */
	/* the queue of operations that wait for the window, keys or the breaker */
	struct s3_op *first, **last;
	struct http_task pump, pump_timer;
	bool pumping;
	/* under lock */
	pthread_mutex_t lock;
	pthread_cond_t idle;
	unsigned live;
	struct objstore_stats stats;
};

enum s3_phase {
	S3_MAIN,		/* the operation's own request */
	S3_READ_BACK,		/* a conditional put is in doubt: whose is what is there? HEAD for its token, */
	S3_READ_BYTES,		/* or GET and compare where no token was kept */
	S3_SIZE,		/* HEAD for the size after 416 */
	S3_INITIATE, S3_PARTS, S3_COMPLETE, S3_ABORT,	/* multipart */
	S3_EACH			/* deletes one by one */
};

struct s3_op {
	struct s3_store *s;
	struct objstore_op *op;
	struct s3_op *next;		/* in the queue */
	struct http_task start, retry, limit, cancel, hedge;
	enum s3_phase phase;
	unsigned attempt;		/* of the whole operation, from 1 */
	unsigned conflicts;		/* times the store spoke of a conflict while nothing had changed */
	int64_t begin_us, deadline_us;
	size_t len;			/* PUT: of the body */
	unsigned char sha[32];
	char token[33];			/* of a conditional put, kept as metadata */
	struct err why;			/* a put in doubt: what its request ended with; code 0: a conflict */
	size_t out_start;		/* GET: op->out's length before */
	bool fresh;			/* next request over a new connection */
	bool in_doubt;			/* a put that may have been carried out, and nobody knows */
	bool unanswered;		/* a swap: once there was no answer at all */
	bool other_form;		/* If-Match goes without quotes this time */
	bool fixed_skew, new_keys;	/* those remedies are used up */
	bool queued, ended, cancel_posted, too_large;
	struct s3_call *call, *second;	/* on the wire; the hedge */
	/* s3-multi.c */
	struct s3_op *parent;
	struct objstore_op own;		/* of a child */
	struct iovec *own_iov;
	unsigned part;			/* number of a multipart upload's part, from 1 */
	char *upload_id;
	char **etags;
	struct s3_op **child;		/* parts, prepared */
	size_t n_child, next_child, running;
	size_t at;			/* multi-delete: first key of the chunk; count of deletes begun one by one */
	struct buf text;		/* body of a request that is made here */
	struct iovec text_iov;
	int child_rc;			/* first error of a child, or of a key */
	struct err child_err;
	bool child_temporary;
};

struct s3_call {
	struct http_req req;
	struct s3_op *o;
	unsigned attempt;
	bool loser;			/* the other one of a hedged pair has answered */
	bool is_hedge;
	char access[160];		/* key it was signed with */
	struct buf url, fields;
	size_t at[S3_HEADERS_MAX][3];	/* name, value, "name: value" in fields */
	size_t n;
	const char *lines[S3_HEADERS_MAX];
	struct iovec iov;
	/* where the body goes */
	struct buf own;			/* of a hedge */
	uint64_t skip, left;
	bool began, wrong_size, limit;
	EVP_MD_CTX *hash;		/* read-back */
};

/* How an answer is to be taken. */
enum s3_verdict {
	S3_DONE,		/* rc is the result */
	S3_AGAIN,		/* temporary: rc is the result should it stay so */
	S3_AT_ONCE,		/* a remedy was found: again without waiting */
	S3_DOUBT,		/* conditional put: read back */
	S3_NO_RANGE		/* 416 */
};
struct s3_answer {
	enum s3_verdict verdict;
	enum policy_result policy;
	int rc;
	struct err err;
	struct s3_xml_error x;
	int64_t retry_after_us;
	bool maybe_done;	/* a put may have been carried out */
	bool not_implemented;
};

/* s3-call.c */
struct s3_call *s3_call_new(struct s3_op *o, const struct s3_keys *keys, bool hedge);
void s3_call_free(struct s3_call *c);
/* s3-answer.c */
void s3_answer(struct s3_op *o, struct s3_call *c, struct s3_answer *a);
enum objstore_verb s3_wire_verb(const struct s3_op *o);
/* s3-op.c */
void s3_op_begin(struct s3_op *o);		/* event thread; deadline_us is set */
void s3_op_send(struct s3_op *o, const struct s3_keys *keys);	/* the queue lets it go */
void s3_op_end(struct s3_op *o, int rc, const struct err *err);
void s3_op_phase(struct s3_op *o, enum s3_phase p);	/* sends that phase's request */
void s3_op_again(struct s3_op *o, const struct s3_answer *a);
void s3_op_free(struct s3_op *o);
/* s3-multi.c */
void s3_multi_prepare(struct s3_op *o);		/* caller's thread: parts and their hashes */
void s3_multi_answer(struct s3_op *o, struct s3_call *c, const struct s3_answer *a);
bool s3_multi_phase(const struct s3_op *o);
bool s3_multi_stop(struct s3_op *o, int rc, const struct err *err);	/* true: it ends later */
void s3_multi_build(struct s3_op *o);		/* o->text for the next request */
void s3_delete_each(struct s3_op *o);
/* s3.c */
struct s3_op *s3_op_new(struct s3_store *s, struct objstore_op *op);
void s3_enqueue(struct s3_op *o);
void s3_dequeue(struct s3_op *o);
void s3_pump_soon(struct s3_store *s);
void s3_hash_iov(const struct iovec *iov, int n, unsigned char out[32]);
#endif
