/* The states of an operation.
 *
 *   queue -> MAIN -> end
 *             |  temporary: timer, queue again
 *             |  conditional put answered 409, 412, 5xx or not at all: READ_BACK (HEAD; where the object has no
 *             |  token of a put, READ_BYTES)
 *             |      own token or bytes: success     others: exists / conflict
 *             |      nothing there, or nothing changed: MAIN again (same condition, so it cannot do harm)
 *             |  416: SIZE -> end
 *   multipart: INITIATE -> PARTS (children) -> COMPLETE -> end, or ABORT -> end
 *
 * A get that waits too long for its first byte gets a second request; the
 * first good answer counts and the other is cancelled.  Nothing but gets is
 * hedged. */
#include "objstore/s3-private.h"

#include "base/log.h"
#include "base/mem.h"

enum { SAY_EVERY_US = 10000000, CONFLICTS_MAX = 6, PER_MEGABYTE_US = 1000000 };

static struct s3_op *of(struct http_task *t, size_t off)
{
	return (struct s3_op *)((char *)t - off);
}
#define OP_OF(t, member) of((t), offsetof(struct s3_op, member))

static void add_stats(struct s3_op *o, const struct s3_call *c, const struct s3_answer *a)
{
	struct objstore_verb_stats *v = &o->s->stats.verb[s3_wire_verb(o)];

	pthread_mutex_lock(&o->s->lock);
	v->requests += c->req.sent;
	if (c->attempt > 1)
		v->retries += c->req.sent;
	v->hedges += c->is_hedge;
	v->errors += a->policy == POLICY_FAILED || c->req.status == 500;
	v->throttled += a->policy == POLICY_THROTTLED;
	v->up += c->req.sent ? c->req.up : 0;
	v->down += c->req.down;
	pthread_mutex_unlock(&o->s->lock);
}

static void say_state(struct s3_op *o, const struct s3_answer *a, bool opened)
{
	struct s3_store *s = o->s;
	int64_t now = http_now();

	if (opened) {
		pthread_mutex_lock(&s->lock);
		s->stats.breaker_opened++;
		pthread_mutex_unlock(&s->lock);
	}
	if (opened && now - s->said_down_us > SAY_EVERY_US) {
		s->said_down_us = now;
		log_event(LOG_ERROR, "the object store does not answer: requests pause", LF_S("store", s->url), LF_S("bucket", s->bucket), LF_ERR(&a->err), LF_END);
	}
	if (a->policy == POLICY_THROTTLED && now - s->said_throttled_us > SAY_EVERY_US) {
		s->said_throttled_us = now;
		log_event(LOG_WARN, "the object store asks to slow down", LF_S("bucket", s->bucket), LF_U("window", (unsigned)s->policy.window), LF_ERR(&a->err), LF_END);
	}
}

static void log_request(const struct s3_op *o, const struct s3_call *c, const struct s3_answer *a)
{
	const char *id = http_header(&c->req, "x-amz-request-id");

	log_event(LOG_DBG, "object store request", LF_S("bucket", o->s->bucket), LF_S("key", o->op->key), LF_U("verb", s3_wire_verb(o)), LF_U("phase", o->phase),
		  LF_U("attempt", c->attempt), LF_D("status", c->req.status), LF_S("code", a->x.code), LF_S("request_id", id),
		  LF_D("us", c->req.end_us - c->req.start_us), LF_ERR(&a->err), LF_END);
}

/* --- the end --- */

static void drop_calls(struct s3_op *o)
{
	struct s3_call *c[2] = { o->call, o->second };
	int i;

	o->call = o->second = NULL;
	for (i = 0; i < 2; i++) {
		if (!c[i])
			continue;
		c[i]->loser = true;
		http_cancel(o->s->e, &c[i]->req);	/* frees it */
	}
}

void s3_op_free(struct s3_op *o)
{
	size_t i;

	for (i = 0; o->etags && i < o->n_child; i++)
		free(o->etags[i]);
	free(o->etags);
	for (i = o->next_child; i < o->n_child; i++)	/* prepared and never begun */
		if (o->child && o->child[i])
			s3_op_free(o->child[i]);
	free(o->child);
	free(o->upload_id);
	free(o->own_iov);
	buf_free(&o->text);
	free(o);
}

static void account(struct s3_op *o)
{
	struct s3_store *s = o->s;
	struct objstore_verb_stats *v = &s->stats.verb[o->op->verb];
	int rc = o->op->rc;

	pthread_mutex_lock(&s->lock);
	if (!o->parent) {
		v->ops++;
		v->failed += rc < 0 && rc != ERR_NOTFOUND && rc != ERR_EXISTS && rc != ERR_CONFLICT;
		v->us += (uint64_t)(http_now() - o->begin_us);
	}
	o->op->driver = NULL;
	o->ended = true;
	pthread_mutex_unlock(&s->lock);
}

/* A cancel task that is still queued keeps o; it frees it. */
static void finish(struct s3_op *o)
{
	struct s3_store *s = o->s;
	struct objstore_op *op = o->op;
	bool child = o->parent != NULL, keep;

	account(o);
	pthread_mutex_lock(&s->lock);
	keep = o->cancel_posted;
	pthread_mutex_unlock(&s->lock);
	op->done(op);	/* of a child: s3-multi.c, which frees it */
	if (!child && !keep)
		s3_op_free(o);
	if (child)
		return;
	pthread_mutex_lock(&s->lock);
	if (--s->live == 0)
		pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
}

static void give_up(struct s3_op *o)
{
	drop_calls(o);
	s3_dequeue(o);
	http_timer_cancel(o->s->e, &o->retry);
	http_timer_cancel(o->s->e, &o->limit);
	http_timer_cancel(o->s->e, &o->hedge);
}

void s3_op_end(struct s3_op *o, int rc, const struct err *err)
{
	if (o->ended)
		return;
	give_up(o);
	if (rc < 0 && s3_multi_stop(o, rc, err))
		return;
	o->op->rc = rc;
	if (rc < 0) {
		if (o->in_doubt && rc != ERR_EXISTS && rc != ERR_CONFLICT)
			o->op->rc = ERR_TIMEOUT;	/* it may yet be, or become, there */
		err_set(&o->op->err, o->op->rc, "%s", err->msg);
		o->op->err.code = o->op->rc;
		if (!o->parent && rc != ERR_NOTFOUND && rc != ERR_EXISTS && rc != ERR_CONFLICT && rc != ERR_LIMIT)
			log_event(LOG_WARN, "object store operation failed", LF_S("bucket", o->s->bucket), LF_S("key", o->op->key), LF_U("attempts", o->attempt),
				  LF_D("ms", (http_now() - o->begin_us) / 1000), LF_S("class", err_code_name(o->op->rc)), LF_ERR(err), LF_END);
		if (o->op->verb == OBJ_GET && o->op->out->data)
			buf_truncate(o->op->out, o->out_start);
	}
	finish(o);
}

static void on_limit(struct http_task *t)
{
	struct s3_op *o = OP_OF(t, limit);
	struct err err = ERR_INIT;

	if (o->call && o->call->req.sent && s3_wire_verb(o) == OBJ_PUT)
		o->in_doubt = true;
	err_set(&err, ERR_TIMEOUT, "object store: %s: no result after %lld ms (attempt %u)", o->op->key ? o->op->key : "",
		(long long)((http_now() - o->begin_us) / 1000), o->attempt);
	s3_op_end(o, ERR_TIMEOUT, &err);
}

/* --- sending --- */

static void on_retry(struct http_task *t)
{
	s3_enqueue(OP_OF(t, retry));
}

static void on_hedge(struct http_task *t);

void s3_op_begin(struct s3_op *o)
{
	o->retry.run = on_retry;
	o->limit.run = on_limit;
	o->hedge.run = on_hedge;
	o->attempt = 1;
	http_timer(o->s->e, &o->limit, o->deadline_us);
	s3_enqueue(o);
}

/* Another request of the same operation, at once (behind those that wait). */
void s3_op_phase(struct s3_op *o, enum s3_phase p)
{
	o->phase = p;
	s3_enqueue(o);
}

static void call_done(struct http_req *r);

static struct s3_call *send(struct s3_op *o, const struct s3_keys *keys, bool hedge)
{
	struct s3_call *c = s3_call_new(o, keys, hedge);
	int64_t now = http_now(), limit = o->s->attempt_us;

	if (o->op->verb == OBJ_PUT || o->op->verb == OBJ_GET)
		limit += (int64_t)((o->op->verb == OBJ_PUT ? o->len : o->op->len) >> 20) * PER_MEGABYTE_US;
	c->req.deadline_us = now + limit < o->deadline_us ? now + limit : o->deadline_us;
	if (o->op->verb == OBJ_GET && !o->op->len)
		c->req.deadline_us = o->deadline_us;	/* its size is not known: only a stall ends it earlier */
	c->req.stall_s = (unsigned)((o->s->attempt_us + 999999) / 1000000);
	c->req.done = call_done;
	policy_sent(&o->s->policy);
	return c;
}

void s3_op_send(struct s3_op *o, const struct s3_keys *keys)
{
	int64_t now = http_now(), after;

	s3_multi_build(o);
	o->call = send(o, keys, false);
	if (o->phase == S3_MAIN && o->op->verb == OBJ_GET) {
		after = policy_hedge_after(&o->s->policy, now);
		if (after >= 0)
			http_timer(o->s->e, &o->hedge, now + after);
	}
	http_submit(o->s->e, &o->call->req);	/* may end at once: touch nothing behind it */
}

static void on_hedge(struct http_task *t)
{
	struct s3_op *o = OP_OF(t, hedge);
	struct err err = ERR_INIT;
	struct s3_keys keys;

	if (!o->call || o->second || o->call->req.first_us || s3_cred_get(o->s->cred, &keys, &err) != 1 || !policy_take_hedge(&o->s->policy, http_now()))
		return;
	o->second = send(o, &keys, true);
	http_submit(o->s->e, &o->second->req);
}

/* --- answers --- */

void s3_op_again(struct s3_op *o, const struct s3_answer *a)
{
	int64_t at = policy_retry_at(&o->s->policy, a->policy, o->attempt, a->retry_after_us, http_now(), o->deadline_us);

	if (at < 0) {
		s3_op_end(o, a->rc, &a->err);
		return;
	}
	o->attempt++;
	o->fresh = a->policy == POLICY_FAILED;
	http_timer(o->s->e, &o->retry, at);
}

static void read_back(struct s3_op *o)
{
	pthread_mutex_lock(&o->s->lock);
	o->s->stats.read_backs++;
	pthread_mutex_unlock(&o->s->lock);
	s3_op_phase(o, S3_READ_BACK);
}

static bool own_bytes(const struct s3_op *o, struct s3_call *c)
{
	const char *token = http_header(&c->req, S3_TOKEN_FIELD);
	unsigned char h[EVP_MAX_MD_SIZE];

	if (token)
		return !strcmp(token, o->token);
	if (c->wrong_size || c->req.down != o->len)
		return false;
	EVP_DigestFinal_ex(c->hash, h, NULL);
	return !memcmp(h, o->sha, 32);
}

static bool same_etag(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);

	if (n >= 2 && a[0] == '"' && a[n - 1] == '"')
		a++, n -= 2;
	if (m >= 2 && b[0] == '"' && b[m - 1] == '"')
		b++, m -= 2;
	return n == m && !memcmp(a, b, n);
}

static void lost(struct s3_op *o)
{
	struct err err = ERR_INIT;
	int rc = o->op->cond == OBJ_CREATE ? ERR_EXISTS : ERR_CONFLICT;

	/* a swap without any answer may have been done, and somebody has changed that since */
	if (rc == ERR_CONFLICT && o->unanswered)
		rc = ERR_TIMEOUT;
	err_set(&err, rc, o->op->cond == OBJ_CREATE ? "object store: %s exists" : rc == ERR_TIMEOUT ?
		"object store: %s was changed by somebody else, perhaps after a swap of ours that was not answered" : "object store: %s was changed by somebody else", o->op->key);
	o->in_doubt = false;
	s3_op_end(o, rc, &err);
}

/* Nothing is there, or what was there before: the put did not happen, or not yet. */
static void not_yet(struct s3_op *o, struct s3_answer *a)
{
	o->phase = S3_MAIN;
	if (!o->why.code && ++o->conflicts > CONFLICTS_MAX) {
		lost(o);
		return;
	}
	a->policy = POLICY_FAILED;
	a->err = o->why;
	if (!a->err.code)
		err_set(&a->err, ERR_BUSY, "object store: %s: refused although nothing stands against it", o->op->key);
	a->rc = a->err.code;
	s3_op_again(o, a);
}

static void read_back_answer(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	const char *tag = http_header(&c->req, "etag");

	if (a->verdict == S3_DONE && a->rc == ERR_NOTFOUND) {
		if (o->op->cond == OBJ_CREATE)
			not_yet(o, a);
		else
			lost(o);
		return;
	}
	if (a->verdict != S3_DONE || a->rc < 0) {	/* this was not answered either */
		o->in_doubt = true;
		if (a->verdict == S3_DONE)
			s3_op_end(o, a->rc, &a->err);
		else
			s3_op_again(o, a);
		return;
	}
	if (o->phase == S3_READ_BACK && !http_header(&c->req, S3_TOKEN_FIELD)) {
		s3_op_phase(o, S3_READ_BYTES);
		return;
	}
	if (own_bytes(o, c)) {
		snprintf(o->op->etag, sizeof(o->op->etag), "%s", tag && strlen(tag) < OBJ_ETAG_MAX ? tag : "");
		o->in_doubt = false;
		s3_op_end(o, 0, NULL);
		return;
	}
	if (o->op->cond == OBJ_CREATE || !tag || !same_etag(tag, o->op->etag)) {
		lost(o);
		return;
	}
	if (o->s->match == S3_MATCH_AUTO && !o->other_form) {	/* the etag is right: it may want it without quotes */
		o->other_form = true;
		s3_op_phase(o, S3_MAIN);
		return;
	}
	not_yet(o, a);
}

static void main_answer(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	struct objstore_op *op = o->op;

	switch (a->verdict) {
	case S3_DONE:
		if (a->rc == 0 && op->verb == OBJ_PUT && op->cond == OBJ_MATCH && o->s->match == S3_MATCH_AUTO)
			o->s->match = o->other_form ? S3_MATCH_UNQUOTED : S3_MATCH_QUOTED;
		if (a->rc == 0)
			o->in_doubt = false;
		s3_op_end(o, a->rc, &a->err);
		return;
	case S3_AT_ONCE:
		s3_op_phase(o, o->phase);
		return;
	case S3_DOUBT:
		o->in_doubt |= a->maybe_done;
		o->fresh = a->policy == POLICY_FAILED;
		o->unanswered |= a->policy == POLICY_FAILED;
		o->why = a->err;
		read_back(o);
		return;
	case S3_NO_RANGE:
		op->size = 0;
		if (op->off)
			s3_op_phase(o, S3_SIZE);
		else
			s3_op_end(o, 0, NULL);
		return;
	case S3_AGAIN:
		o->in_doubt |= a->maybe_done && op->verb == OBJ_PUT;
		s3_op_again(o, a);
		return;
	}
}

/* The hedge's bytes become the operation's. */
static void take_own(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	if (o->op->out->data)
		buf_truncate(o->op->out, o->out_start);
	buf_add(o->op->out, c->own.data, c->own.len);
	if (o->op->out->failed)
		a->rc = err_set(&a->err, ERR_LIMIT, "object store: %s is larger than expected", o->op->key);
}

static void op_answer(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	bool good = a->verdict == S3_DONE || a->verdict == S3_NO_RANGE;
	struct s3_call **mine = c == o->call ? &o->call : &o->second, **other = c == o->call ? &o->second : &o->call;

	*mine = NULL;
	if (*other && !good)
		return;		/* the other one may still bring it */
	drop_calls(o);
	http_timer_cancel(o->s->e, &o->hedge);
	if (good && c->is_hedge && a->rc == 0)
		take_own(o, c, a);
	if (o->phase == S3_READ_BACK || o->phase == S3_READ_BYTES)
		read_back_answer(o, c, a);
	else if (s3_multi_phase(o))
		s3_multi_answer(o, c, a);
	else
		main_answer(o, c, a);
}

static void call_done(struct http_req *r)
{
	struct s3_call *c = r->ctx;
	struct s3_op *o = c->o;
	struct s3_store *s = o->s;
	struct s3_answer a;
	bool opened;

	if (c->loser) {
		memset(&a, 0, sizeof(a));
		a.policy = POLICY_NEUTRAL;
	} else {
		s3_answer(o, c, &a);
	}
	opened = policy_ended(&s->policy, a.policy, c->attempt, http_now());
	if (r->first_us && r->method == HTTP_GET && a.policy == POLICY_OK)
		policy_latency(&s->policy, r->first_us - r->start_us);
	add_stats(o, c, &a);
	say_state(o, &a, opened);
	log_request(o, c, &a);
	if (!c->loser)
		op_answer(o, c, &a);
	s3_call_free(c);
	s3_pump_soon(s);
}
