#include "objstore/sproxyd-private.h"

#include "base/mem.h"

#include <openssl/rand.h>
#include <sodium.h>

enum { CONCURRENCY = 128, TIMEOUT_MS = 30000, ATTEMPT_MS = 10000, CONNECT_MS = 3000, DEFAULT_CLASS = 2, DEFAULT_SERVICE = 0xC4 };

/* --- the queue (event thread) --- */

static struct sp_op *take_first(struct sp_store *s)
{
	struct sp_op *o = s->first;

	s->first = o->next;
	if (!s->first)
		s->last = &s->first;
	o->queued = false;
	return o;
}

/* While the breaker is open: short pauses are waited for, in longer ones nobody is kept. */
static void breaker_open(struct sp_store *s, int64_t until)
{
	struct err err = ERR_INIT;

	http_timer(s->e, &s->pump_timer, until);
	if (until - http_now() <= SP_BREAKER_PATIENCE_US)
		return;
	err_set(&err, ERR_UNAVAILABLE, "object store: no sproxyd connector answers (profile %s); they are tried again in a moment", s->profile);
	while (s->first)
		sp_op_end(take_first(s), ERR_UNAVAILABLE, &err);
}

static void pump(struct sp_store *s)
{
	while (s->first) {
		int64_t wait = policy_may_send(&s->policy, http_now());

		if (wait > 0)
			breaker_open(s, wait);
		if (wait != 0)
			return;
		sp_op_send(take_first(s));
	}
}

static void pump_task(struct http_task *t)
{
	struct sp_store *s = (struct sp_store *)((char *)t - offsetof(struct sp_store, pump));

	s->pumping = false;	/* here alone: while it is posted it must not be posted again */
	pump(s);
}

static void pump_timer(struct http_task *t)
{
	pump((struct sp_store *)((char *)t - offsetof(struct sp_store, pump_timer)));
}

void sp_pump_soon(struct sp_store *s)
{
	if (s->pumping || !s->first)
		return;
	s->pumping = true;
	http_post(s->e, &s->pump);
}

void sp_enqueue(struct sp_op *o)
{
	struct sp_store *s = o->s;

	o->next = NULL;
	o->queued = true;
	*s->last = o;
	s->last = &o->next;
	sp_pump_soon(s);
}

void sp_dequeue(struct sp_op *o)
{
	struct sp_op **p = &o->s->first;

	if (!o->queued)
		return;
	while (*p != o)
		p = &(*p)->next;
	*p = o->next;
	if (!o->next)
		o->s->last = p;
	o->queued = false;
}

/* --- the ways in (any thread) --- */

static void start_op(struct http_task *t)
{
	sp_op_begin((struct sp_op *)((char *)t - offsetof(struct sp_op, start)));
}

static void sp_submit(struct objstore *base, struct objstore_op *op)
{
	struct sp_store *s = (struct sp_store *)base;
	struct sp_op *o;

	op->items = NULL;
	op->n_items = 0;
	op->more = false;
	if (op->verb == OBJ_SYNC) {	/* nothing here is lazy */
		op->done(op);
		return;
	}
	o = sp_op_new(s, op);
	pthread_mutex_lock(&s->lock);
	op->driver = o;
	s->live++;
	pthread_mutex_unlock(&s->lock);
	o->start.run = start_op;
	http_post(s->e, &o->start);
}

static void cancel_task(struct http_task *t)
{
	struct sp_op *o = (struct sp_op *)((char *)t - offsetof(struct sp_op, cancel));
	struct sp_store *s = o->s;
	struct err err = ERR_INIT;
	bool ended;

	pthread_mutex_lock(&s->lock);
	o->cancel_posted = false;
	ended = o->ended;
	pthread_mutex_unlock(&s->lock);
	if (ended) {
		sp_op_free(o);
		return;
	}
	if (o->call && o->call->req.sent && sp_wire_verb(o) == OBJ_PUT)
		o->in_doubt = true;
	err_set(&err, ERR_TIMEOUT, "object store: %s: given up by the caller", o->op->key);
	sp_op_end(o, ERR_TIMEOUT, &err);
}

static void sp_cancel(struct objstore *base, struct objstore_op *op)
{
	struct sp_store *s = (struct sp_store *)base;
	struct sp_op *o;

	pthread_mutex_lock(&s->lock);
	o = op->driver;
	if (o && !o->cancel_posted) {
		o->cancel_posted = true;
		o->cancel.run = cancel_task;
		http_post(s->e, &o->cancel);	/* behind o->start */
	}
	pthread_mutex_unlock(&s->lock);
}

static void sp_stats(struct objstore *base, struct objstore_stats *out)
{
	struct sp_store *s = (struct sp_store *)base;

	pthread_mutex_lock(&s->lock);
	*out = s->stats;
	pthread_mutex_unlock(&s->lock);
}

/* --- life --- */

static void sp_close(struct objstore *base)
{
	struct sp_store *s = (struct sp_store *)base;

	pthread_mutex_lock(&s->lock);
	while (s->live)
		pthread_cond_wait(&s->idle, &s->lock);
	pthread_mutex_unlock(&s->lock);
	http_engine_free(&s->e);
	sp_connectors_free(s);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->idle);
	free(s->profile);
	free(s);
}

static const struct objstore_ops sp_ops = { "sproxyd", sp_submit, sp_cancel, sp_close, sp_stats };

static int set_keys(struct sp_store *s, const struct objstore_settings *set, struct err *err)
{
	const char *profile = set->profile && *set->profile ? set->profile : "chord";

	s->profile = mem_strdup(profile);
	s->by_path = !strncmp(profile, "bp", 2);
	s->service = set->service_id ? set->service_id : DEFAULT_SERVICE;
	s->class = set->copies ? set->copies - 1 : DEFAULT_CLASS;
	if (strspn(profile, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != strlen(profile) || strlen(profile) > 64)
		return err_set(err, ERR_INVALID, "profile \"%.100s\": it is a name of sproxyd's configuration like chord, arc, bpchord or bparc", profile);
	if (s->service < SPROXYD_SERVICE_MIN || s->service > SPROXYD_SERVICE_MAX || s->service == SPROXYD_SERVICE_BY_PATH)
		return err_set(err, ERR_INVALID, "service_id 0x%X: it must be above 0xC0, at most 0xFF and not 0xC3, which is that of paths", s->service);
	if (s->class > SPROXYD_CLASS_MAX)
		return err_set(err, ERR_INVALID, "class %u: it is 0 to 5, the number of copies beside the first", s->class);
	return 0;
}

int objstore_sproxyd_open(const struct objstore_settings *set, struct objstore **s_r, struct err *err)
{
	struct http_config http = { .ca_file = set->ca_file, .cert_file = set->cert_file, .key_file = set->key_file, .proxy = set->proxy };
	struct policy_config policy = { .seed = set->seed };
	struct sp_store *s = MEM_NEW(struct sp_store);
	int rc;

	if (sodium_init() < 0)
		abort();
	s->base.ops = &sp_ops;
	s->base.caps = OBJ_CAP_CREATE | OBJ_CAP_RANGE | OBJ_CAP_DELETE_MANY | OBJ_CAP_REMOTE;
	s->last = &s->first;
	s->pump.run = pump_task;
	s->pump_timer.run = pump_timer;
	s->said_down_us = INT64_MIN / 2;
	s->timeout_us = (int64_t)(set->timeout_ms ? set->timeout_ms : TIMEOUT_MS) * 1000;
	s->attempt_us = (int64_t)(set->attempt_timeout_ms ? set->attempt_timeout_ms : ATTEMPT_MS) * 1000;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->idle, NULL);
	policy.window_max = set->concurrency ? (unsigned)(set->concurrency < 1024 ? set->concurrency : 1024) : CONCURRENCY;
	if (!policy.seed)
		RAND_bytes((unsigned char *)&policy.seed, sizeof(policy.seed));
	policy_init(&s->policy, &policy);
	http.connections = policy.window_max + 4;
	http.connect_timeout_ms = set->connect_timeout_ms ? (unsigned)set->connect_timeout_ms : CONNECT_MS;
	rc = set_keys(s, set, err);
	if (rc == 0)
		rc = sp_connectors_init(s, set->urls, set->n_urls, policy.seed, err);
	if (rc == 0)
		rc = http_engine_new(&http, &s->e, err);
	if (rc < 0) {
		sp_close(&s->base);
		return rc;
	}
	*s_r = &s->base;
	return 0;
}
