/* sproxyd-private - the inside of the sproxyd driver.
 *
 *   sproxyd.c            settings, life, the ways in (any thread) and the queue
 *   sproxyd-connector.c  the list of connectors: which one is asked, which one is away
 *   sproxyd-call.c       one request on the wire, and where its answer's body goes
 *   sproxyd-answer.c     what an answer means
 *   sproxyd-op.c         the states of an operation
 *   sproxyd-many.c       deleting many
 *   sproxyd-text.c       keys, user metadata, batch answers
 *
 * All but sproxyd.c's ways in runs on the engine's event thread, so nothing
 * here is locked but the counters and the end. */
#ifndef OBJSTORE_SPROXYD_PRIVATE_H
#define OBJSTORE_SPROXYD_PRIVATE_H
#include "objstore/http.h"
#include "objstore/objstore.h"
#include "objstore/policy.h"
#include "objstore/sproxyd-text.h"

#include <openssl/evp.h>
#include <pthread.h>

enum { SP_CHILDREN = 8, SP_UID = 21, SP_BREAKER_PATIENCE_US = 2000000 };

struct sp_connector {
	struct sp_store *s;
	char *url;			/* http://host:81/proxy/profile/ */
	char *check_url;
	bool down, checking;
	int64_t down_us;		/* when it was marked */
	unsigned failures;		/* in a row */
	struct http_req check;
	struct http_task timer;
};

struct sp_store {
	struct objstore base;
	struct http_engine *e;
	struct policy policy;
	/* settings */
	char *profile;
	bool by_path;			/* the profile hashes paths itself */
	unsigned service, class;
	int64_t timeout_us, attempt_us;
	/* found out */
	bool no_batch;
	struct sp_connector *connector;
	size_t n_connectors, head;	/* head: the one that is asked */
	int64_t said_down_us;
	/* the queue of operations that wait for the window or the breaker */
	struct sp_op *first, **last;
	struct http_task pump, pump_timer;
	bool pumping;
	/* under lock */
	pthread_mutex_t lock;
	pthread_cond_t idle;
	unsigned live;
	struct objstore_stats stats;
};

enum sp_phase {
	SP_MAIN,		/* the operation's own request */
	SP_READ_BACK,		/* a put was refused or is in doubt: HEAD, whose is what is there? */
	SP_READ_BYTES,		/* its metadata does not say: GET and compare */
	SP_SIZE,		/* HEAD for the size after 416 */
	SP_BATCH, SP_EACH	/* deleting many: in batches, one by one */
};

struct sp_op {
	struct sp_store *s;
	struct objstore_op *op;
	struct sp_op *next;		/* in the queue */
	struct http_task start, retry, limit, cancel;
	enum sp_phase phase;
	unsigned attempt;		/* of the whole operation, from 1 */
	unsigned failovers;		/* in a row, each at once and to another connector */
	unsigned locked;		/* times 423 was answered */
	unsigned conflicts;		/* times 412 was answered and nothing was there */
	int64_t begin_us, deadline_us;
	size_t len;			/* PUT: of the body */
	unsigned char sha[32];
	char token[SPROXYD_TOKEN];	/* of a put: kept as metadata, and the etag */
	char uid[SP_UID];		/* X-Scal-Request-Uids */
	struct err last;		/* what the last temporary failure was */
	struct err why;			/* a put in doubt: what its request ended with; code 0: 412 */
	size_t out_start;		/* GET: op->out's length before */
	bool fresh;			/* next request over a new connection */
	bool in_doubt;			/* a put that may have been carried out, and nobody knows */
	bool overwrite;			/* unconditional put: the object there has this name and may be replaced */
	bool queued, ended, cancel_posted;
	struct sp_call *call;		/* on the wire */
	/* deleting many */
	struct sp_op *parent;
	struct objstore_op own;		/* of a child */
	size_t next_child, running;
	size_t at, chunk;		/* the batch under way: from, how many */
	struct buf text;		/* its body */
	struct iovec text_iov;
	int child_rc;			/* first error of a key */
	struct err child_err;
	bool again;			/* the batch is to be sent again */
};

struct sp_call {
	struct http_req req;
	struct sp_op *o;
	struct sp_connector *connector;
	unsigned attempt;
	struct buf url;
	struct buf fields;		/* lines, each with its NUL */
	size_t at[8], n;
	const char *lines[8];
	/* where the body goes */
	struct sproxyd_usermd md;
	bool named, checked;		/* md is there; it was looked at */
	bool wrong_name, wrong_size, limit;
	uint64_t skip, left;
	EVP_MD_CTX *hash;		/* read-back */
};

/* How an answer is to be taken. */
enum sp_verdict {
	SP_DONE,		/* rc is the result */
	SP_AGAIN,		/* temporary: rc is the result should it stay so */
	SP_LOCKED,		/* 423: somebody else is at this key */
	SP_DOUBT,		/* put: read back */
	SP_NO_RANGE		/* 416 */
};
struct sp_answer {
	enum sp_verdict verdict;
	enum policy_result policy;
	int rc;
	struct err err;
	bool maybe_done;	/* a put may have been carried out */
	bool away;		/* it is the connector's fault: ask another */
	bool unknown;		/* the request is not known there (batch) */
};

/* sproxyd-connector.c */
int sp_connectors_init(struct sp_store *s, const char *const *urls, size_t n, uint64_t seed, struct err *err);
void sp_connectors_free(struct sp_store *s);	/* after the engine's end */
struct sp_connector *sp_connector_pick(struct sp_store *s);
void sp_connector_failed(struct sp_connector *c, const struct err *err);
void sp_connector_answered(struct sp_connector *c, int64_t sent_us);
bool sp_connector_other(const struct sp_store *s);	/* is there one that is not marked? */
/* sproxyd-call.c */
struct sp_call *sp_call_new(struct sp_op *o);
void sp_call_free(struct sp_call *c);
bool sp_call_names(struct sp_call *c);	/* reads the answer's metadata, once; false: it names another object or none */
enum objstore_verb sp_wire_verb(const struct sp_op *o);
/* sproxyd-answer.c */
void sp_answer(struct sp_op *o, struct sp_call *c, struct sp_answer *a);
/* sproxyd-op.c */
struct sp_op *sp_op_new(struct sp_store *s, struct objstore_op *op);
void sp_op_begin(struct sp_op *o);		/* event thread; deadline_us is set */
void sp_op_send(struct sp_op *o);		/* the queue lets it go */
void sp_op_end(struct sp_op *o, int rc, const struct err *err);
void sp_op_phase(struct sp_op *o, enum sp_phase p);	/* sends that phase's request */
void sp_op_again(struct sp_op *o, const struct sp_answer *a);
void sp_op_locked(struct sp_op *o, const struct sp_answer *a);
void sp_op_free(struct sp_op *o);
/* sproxyd-many.c */
void sp_many_begin(struct sp_op *o);
void sp_many_build(struct sp_op *o);		/* o->text for the next batch */
void sp_many_answer(struct sp_op *o, struct sp_call *c, const struct sp_answer *a);
bool sp_many_stop(struct sp_op *o, int rc, const struct err *err);	/* true: it ends later */
/* sproxyd.c */
void sp_enqueue(struct sp_op *o);
void sp_dequeue(struct sp_op *o);
void sp_pump_soon(struct sp_store *s);
#endif
