/* The states of an operation.
 *
 *   queue -> MAIN -> end
 *             |  the connector's fault: at once to another one, each once
 *             |  temporary: timer, queue again          423: timer of its own, shorter at first
 *             |  put answered 412, 422, 5xx or not at all: READ_BACK (HEAD; where the metadata does not
 *             |  tell, READ_BYTES)
 *             |      own token: success               others' name: error, and nothing is touched
 *             |      other token of this name: exists; an unconditional put goes on with If-Match: *
 *             |      nothing there: MAIN again (with the same condition, so it cannot do harm)
 *             |  416: SIZE -> end
 *   many: BATCH... -> end, or EACH (children) -> end
 *
 * A put in doubt is never followed by a delete: what is there may be somebody
 * else's. */
#include "objstore/sproxyd-private.h"

#include "base/b64.h"
#include "base/log.h"
#include "base/mem.h"

#include <openssl/rand.h>

enum { SAY_EVERY_US = 10000000, CONFLICTS_MAX = 6, PER_MEGABYTE_US = 1000000, LOCKED_MAX = 12, LOCKED_MIN_US = 50000, LOCKED_TOP_US = 2000000 };

static struct sp_op *of(struct http_task *t, size_t off)
{
	return (struct sp_op *)((char *)t - off);
}
#define OP_OF(t, member) of((t), offsetof(struct sp_op, member))

static void add_stats(struct sp_op *o, const struct sp_call *c, const struct sp_answer *a)
{
	struct objstore_verb_stats *v = &o->s->stats.verb[sp_wire_verb(o)];

	pthread_mutex_lock(&o->s->lock);
	v->requests += c->req.sent;
	if (c->attempt > 1 || o->failovers || o->locked)
		v->retries += c->req.sent;
	v->errors += c->req.fail != HTTP_ANSWERED ? c->req.fail != HTTP_STOPPED : c->req.status >= 500 || c->req.status == 422;
	v->throttled += c->req.status == 503 || c->req.status == 423;
	v->up += c->req.sent ? c->req.up : 0;
	v->down += c->req.down;
	pthread_mutex_unlock(&o->s->lock);
}

static void say_opened(struct sp_op *o, const struct sp_answer *a)
{
	struct sp_store *s = o->s;
	int64_t now = http_now();

	pthread_mutex_lock(&s->lock);
	s->stats.breaker_opened++;
	pthread_mutex_unlock(&s->lock);
	if (now - s->said_down_us <= SAY_EVERY_US)
		return;
	s->said_down_us = now;
	log_event(LOG_ERROR, "no sproxyd connector answers: requests pause", LF_S("profile", s->profile), LF_ERR(&a->err), LF_END);
}

static void log_request(const struct sp_op *o, const struct sp_call *c, const struct sp_answer *a)
{
	log_event(LOG_DBG, "sproxyd request", LF_S("url", c->req.url), LF_S("key", o->op->key), LF_U("verb", sp_wire_verb(o)), LF_U("phase", o->phase),
		  LF_U("attempt", c->attempt), LF_D("status", c->req.status), LF_S("request", o->uid), LF_S("ring_key", http_header(&c->req, "x-scal-ring-key")),
		  LF_D("us", c->req.end_us - c->req.start_us), LF_ERR(&a->err), LF_END);
}

/* --- the end --- */

struct sp_op *sp_op_new(struct sp_store *s, struct objstore_op *op)
{
	struct sp_op *o = MEM_NEW(struct sp_op);
	unsigned char token[16], uid[10];
	EVP_MD_CTX *ctx;
	int i;

	o->s = s;
	o->op = op;
	o->begin_us = http_now();
	o->deadline_us = op->deadline_us ? op->deadline_us : o->begin_us + s->timeout_us;
	RAND_bytes(uid, sizeof(uid));
	hex_encode(o->uid, uid, sizeof(uid));
	if (op->verb == OBJ_GET)
		o->out_start = op->out->len;
	if (op->verb != OBJ_PUT)
		return o;
	RAND_bytes(token, sizeof(token));
	hex_encode(o->token, token, sizeof(token));
	ctx = EVP_MD_CTX_new();
	EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	for (i = 0; i < op->n_iov; i++) {
		o->len += op->iov[i].iov_len;
		if (op->iov[i].iov_len)
			EVP_DigestUpdate(ctx, op->iov[i].iov_base, op->iov[i].iov_len);
	}
	EVP_DigestFinal_ex(ctx, o->sha, NULL);
	EVP_MD_CTX_free(ctx);
	return o;
}

void sp_op_free(struct sp_op *o)
{
	buf_free(&o->text);
	free(o);
}

static void account(struct sp_op *o)
{
	struct sp_store *s = o->s;
	struct objstore_verb_stats *v = &s->stats.verb[o->op->verb];
	int rc = o->op->rc;

	pthread_mutex_lock(&s->lock);
	if (!o->parent) {
		v->ops++;
		v->failed += rc < 0 && rc != ERR_NOTFOUND && rc != ERR_EXISTS;
		v->us += (uint64_t)(http_now() - o->begin_us);
	}
	o->op->driver = NULL;
	o->ended = true;
	pthread_mutex_unlock(&s->lock);
}

/* A cancel task that is still queued keeps o; it frees it. */
static void finish(struct sp_op *o)
{
	struct sp_store *s = o->s;
	struct objstore_op *op = o->op;
	bool child = o->parent != NULL, kept;

	account(o);
	pthread_mutex_lock(&s->lock);
	kept = o->cancel_posted;
	pthread_mutex_unlock(&s->lock);
	op->done(op);	/* of a child: sproxyd-many.c, which frees it */
	if (child)
		return;
	if (!kept)
		sp_op_free(o);
	pthread_mutex_lock(&s->lock);
	if (--s->live == 0)
		pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
}

static void give_up(struct sp_op *o)
{
	struct sp_call *c = o->call;

	o->call = NULL;
	if (c) {
		c->o = NULL;
		http_cancel(o->s->e, &c->req);	/* frees it */
	}
	sp_dequeue(o);
	http_timer_cancel(o->s->e, &o->retry);
	http_timer_cancel(o->s->e, &o->limit);
}

void sp_op_end(struct sp_op *o, int rc, const struct err *err)
{
	if (o->ended)
		return;
	give_up(o);
	if (rc < 0 && sp_many_stop(o, rc, err))
		return;
	o->op->rc = rc;
	if (rc < 0) {
		if (o->in_doubt && rc != ERR_EXISTS && rc != ERR_CORRUPT)
			o->op->rc = ERR_TIMEOUT;	/* it may yet be, or become, there */
		err_set(&o->op->err, o->op->rc, "%s", err->msg);
		if (!o->parent && rc != ERR_NOTFOUND && rc != ERR_EXISTS)
			log_event(LOG_WARN, "object store operation failed", LF_S("key", o->op->key), LF_U("attempts", o->attempt), LF_S("request", o->uid),
				  LF_D("ms", (http_now() - o->begin_us) / 1000), LF_S("class", err_code_name(o->op->rc)), LF_ERR(err), LF_END);
		if (o->op->verb == OBJ_GET && o->op->out->data)
			buf_truncate(o->op->out, o->out_start);
	}
	finish(o);
}

static void on_limit(struct http_task *t)
{
	struct sp_op *o = OP_OF(t, limit);
	struct err err = ERR_INIT;

	if (o->call && o->call->req.sent && sp_wire_verb(o) == OBJ_PUT)
		o->in_doubt = true;
	err_set(&err, ERR_TIMEOUT, "object store: %s: no result after %lld ms (attempt %u, request %s)%s%s", o->op->key, (long long)((http_now() - o->begin_us) / 1000),
		o->attempt, o->uid, o->last.code ? "; before: " : "", o->last.msg);
	sp_op_end(o, ERR_TIMEOUT, &err);
}

/* --- sending --- */

static void on_retry(struct http_task *t)
{
	sp_enqueue(OP_OF(t, retry));
}

void sp_op_begin(struct sp_op *o)
{
	o->retry.run = on_retry;
	o->limit.run = on_limit;
	o->attempt = 1;
	http_timer(o->s->e, &o->limit, o->deadline_us);
	if (o->op->n_keys)
		sp_many_begin(o);
	else
		sp_enqueue(o);
}

/* Another request of the same operation, at once (behind those that wait). */
void sp_op_phase(struct sp_op *o, enum sp_phase p)
{
	o->phase = p;
	sp_enqueue(o);
}

static void call_done(struct http_req *r);

void sp_op_send(struct sp_op *o)
{
	int64_t now = http_now(), limit = o->s->attempt_us;
	struct sp_call *c;

	sp_many_build(o);
	c = sp_call_new(o);
	if (o->op->verb == OBJ_PUT || o->op->verb == OBJ_GET)
		limit += (int64_t)((o->op->verb == OBJ_PUT ? o->len : o->op->len) >> 20) * PER_MEGABYTE_US;
	c->req.deadline_us = now + limit < o->deadline_us ? now + limit : o->deadline_us;
	if (o->op->verb == OBJ_GET && !o->op->len && o->phase == SP_MAIN)
		c->req.deadline_us = o->deadline_us;	/* its size is not known: a stall ends it */
	c->req.stall_s = (unsigned)((o->s->attempt_us + 999999) / 1000000);
	c->req.done = call_done;
	policy_sent(&o->s->policy);
	o->call = c;
	http_submit(o->s->e, &c->req);	/* may end at once: touch nothing behind it */
}

/* --- answers --- */

void sp_op_again(struct sp_op *o, const struct sp_answer *a)
{
	int64_t at;

	o->last = a->err;
	o->fresh = a->away;
	if (a->away && o->failovers + 1 < o->s->n_connectors && sp_connector_other(o->s)) {
		o->failovers++;
		sp_enqueue(o);
		return;
	}
	at = policy_retry_at(&o->s->policy, a->policy == POLICY_OK ? POLICY_FAILED : a->policy, o->attempt, 0, http_now(), o->deadline_us);
	if (at < 0) {
		sp_op_end(o, a->rc, &a->err);
		return;
	}
	o->failovers = 0;
	o->attempt++;
	http_timer(o->s->e, &o->retry, at);
}

/* 423: another request is at this key, often our own of a moment ago that the
 * ring has not let go of.  It costs no tokens: the store is well. */
void sp_op_locked(struct sp_op *o, const struct sp_answer *a)
{
	int64_t wait = (int64_t)LOCKED_MIN_US << (o->locked < 6 ? o->locked : 6), now = http_now();

	o->last = a->err;
	wait = wait > LOCKED_TOP_US ? LOCKED_TOP_US : wait;
	wait = wait / 2 + (int64_t)(o->s->policy.rng % (uint64_t)wait);
	o->s->policy.rng = o->s->policy.rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	if (++o->locked > LOCKED_MAX || now + wait >= o->deadline_us) {
		sp_op_end(o, a->rc, &a->err);
		return;
	}
	http_timer(o->s->e, &o->retry, now + wait);
}

static void read_back(struct sp_op *o)
{
	pthread_mutex_lock(&o->s->lock);
	o->s->stats.read_backs++;
	pthread_mutex_unlock(&o->s->lock);
	sp_op_phase(o, SP_READ_BACK);
}

static bool own_bytes(const struct sp_op *o, struct sp_call *c)
{
	unsigned char h[EVP_MAX_MD_SIZE];

	if (c->wrong_size || c->req.down != o->len)
		return false;
	EVP_DigestFinal_ex(c->hash, h, NULL);
	return !memcmp(h, o->sha, sizeof(o->sha));
}

/* Nothing is there: the put did not happen, or not yet. */
static void not_yet(struct sp_op *o, struct sp_answer *a)
{
	o->phase = SP_MAIN;
	o->overwrite = false;
	if (!o->why.code && ++o->conflicts > CONFLICTS_MAX) {
		a->rc = err_set(&a->err, ERR_BUSY, "object store: %s: refused as if it were there (request %s)", o->op->key, o->uid);
		sp_op_end(o, a->rc, &a->err);
		return;
	}
	a->policy = POLICY_FAILED;
	a->away = false;
	a->err = o->why;
	if (!a->err.code)
		err_set(&a->err, ERR_BUSY, "object store: %s: refused as if it were there", o->op->key);
	a->rc = a->err.code;
	sp_op_again(o, a);
}

static void is_there(struct sp_op *o, bool ours)
{
	struct err err = ERR_INIT;

	if (ours) {
		o->in_doubt = false;
		memcpy(o->op->etag, o->token, sizeof(o->token));
		sp_op_end(o, 0, NULL);
	} else if (o->op->cond == OBJ_CREATE) {
		o->in_doubt = false;
		err_set(&err, ERR_EXISTS, "object store: %s exists", o->op->key);
		sp_op_end(o, ERR_EXISTS, &err);
	} else {
		o->overwrite = true;
		sp_op_phase(o, SP_MAIN);
	}
}

static void read_back_answer(struct sp_op *o, struct sp_call *c, struct sp_answer *a)
{
	if (a->verdict != SP_DONE) {	/* this was not answered either */
		if (a->verdict == SP_LOCKED)
			sp_op_locked(o, a);
		else
			sp_op_again(o, a);
	} else if (a->rc == ERR_NOTFOUND) {
		not_yet(o, a);
	} else if (a->rc < 0) {
		sp_op_end(o, a->rc, &a->err);
	} else if (o->phase == SP_READ_BYTES) {
		is_there(o, own_bytes(o, c));
	} else if (strcmp(c->md.token, o->token) != 0) {
		is_there(o, false);
	} else {	/* ours by its token; by its bytes? */
		sp_op_phase(o, SP_READ_BYTES);
	}
}

static void main_answer(struct sp_op *o, struct sp_answer *a)
{
	switch (a->verdict) {
	case SP_DONE:
		if (a->rc == 0)
			o->in_doubt = false;
		sp_op_end(o, a->rc, &a->err);
		return;
	case SP_DOUBT:
		o->in_doubt |= a->maybe_done;
		o->why = a->err;
		o->fresh = a->away;
		read_back(o);
		return;
	case SP_NO_RANGE:
		o->op->size = 0;
		sp_op_phase(o, SP_SIZE);
		return;
	case SP_LOCKED:
		sp_op_locked(o, a);
		return;
	case SP_AGAIN:
		sp_op_again(o, a);
		return;
	}
}

static void call_done(struct http_req *r)
{
	struct sp_call *c = r->ctx;
	struct sp_op *o = c->o;
	struct sp_store *s = c->connector->s;
	struct sp_answer a;
	bool opened;

	if (!o) {	/* given up */
		policy_ended(&s->policy, POLICY_NEUTRAL, 1, http_now());
		sp_call_free(c);
		sp_pump_soon(s);
		return;
	}
	o->call = NULL;
	sp_answer(o, c, &a);
	opened = policy_ended(&s->policy, a.policy, c->attempt, http_now());
	add_stats(o, c, &a);
	if (opened)
		say_opened(o, &a);
	log_request(o, c, &a);
	if (o->phase == SP_READ_BACK || o->phase == SP_READ_BYTES)
		read_back_answer(o, c, &a);
	else if (o->phase == SP_BATCH)
		sp_many_answer(o, c, &a);
	else
		main_answer(o, &a);
	sp_call_free(c);
	sp_pump_soon(s);
}
