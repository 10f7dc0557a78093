/* Deleting many: batches of keys, or one by one, a few at a time, where the
 * proxy has no batches (profiles by path, older releases). */
#include "objstore/sproxyd-private.h"

#include "base/log.h"
#include "base/mem.h"

static void begin_children(struct sp_op *o);

static void child_done(struct objstore_op *op)
{
	struct sp_op *child = op->ctx, *o = child->parent;

	if (op->rc < 0 && !o->child_rc) {
		o->child_rc = op->rc;
		o->child_err = op->err;
	}
	sp_op_free(child);
	o->running--;
	begin_children(o);
}

static void begin_child(struct sp_op *o, const char *key)
{
	struct sp_op *child = MEM_NEW(struct sp_op);

	child->s = o->s;
	child->op = &child->own;
	child->parent = o;
	child->begin_us = o->begin_us;
	child->deadline_us = o->deadline_us;
	memcpy(child->uid, o->uid, sizeof(o->uid));
	child->own.verb = OBJ_DELETE;
	child->own.key = key;
	child->own.done = child_done;
	child->own.ctx = child;
	o->running++;
	sp_op_begin(child);
}

/* One key that cannot be deleted does not spare the others. */
static void begin_children(struct sp_op *o)
{
	while (o->running < SP_CHILDREN && o->next_child < o->op->n_keys)
		begin_child(o, o->op->keys[o->next_child++]);
	if (o->running == 0)
		sp_op_end(o, o->child_rc, &o->child_err);
}

static void one_by_one(struct sp_op *o)
{
	o->phase = SP_EACH;
	o->next_child = o->at;
	begin_children(o);
}

void sp_many_begin(struct sp_op *o)
{
	if (o->s->by_path || o->s->no_batch)
		one_by_one(o);
	else
		sp_op_phase(o, SP_BATCH);
}

void sp_many_build(struct sp_op *o)
{
	char (*keys)[SPROXYD_KEY];
	size_t left, i;

	if (o->phase != SP_BATCH)
		return;
	left = o->op->n_keys - o->at;
	o->chunk = left < SPROXYD_BATCH_MAX ? left : SPROXYD_BATCH_MAX;
	keys = mem_calloc(o->chunk, sizeof(*keys));
	for (i = 0; i < o->chunk; i++)
		sproxyd_key(o->op->keys[o->at + i], o->s->service, o->s->class, keys[i]);
	buf_clear(&o->text);
	sproxyd_batch_body(&o->text, (const char (*)[SPROXYD_KEY])keys, o->chunk);
	free(keys);
}

/* In the batch under way; what the answer says of others does not matter. */
static const char *name_of(const struct sp_op *o, const char *ring_key)
{
	char key[SPROXYD_KEY];
	size_t i;

	for (i = 0; i < o->chunk; i++) {
		sproxyd_key(o->op->keys[o->at + i], o->s->service, o->s->class, key);
		if (!strcmp(key, ring_key))
			return o->op->keys[o->at + i];
	}
	return NULL;
}

static void key_failed(void *ctx, const char *ring_key, int status)
{
	struct sp_op *o = ctx;
	const char *name;

	if (o->again)
		return;
	name = name_of(o, ring_key);
	if (!name)
		return;
	if (status == 423 || status == 422 || status >= 500)
		o->again = true;
	else if (!o->child_rc)
		o->child_rc = err_set(&o->child_err, status == 403 ? ERR_DENIED : ERR_INVALID, "object store: delete %s: status %d (request %s)", name, status, o->uid);
}

static void batch_done(struct sp_op *o, struct sp_call *c)
{
	struct sp_answer a = { .policy = POLICY_OK };

	o->again = false;
	sproxyd_batch_failed(c->req.body.data, c->req.body.len, key_failed, o);
	if (o->again) {	/* all of it: what is gone stays gone */
		a.rc = err_set(&a.err, ERR_BUSY, "object store: a batch was deleted in part (request %s)", o->uid);
		sp_op_locked(o, &a);
		return;
	}
	o->at += o->chunk;
	o->locked = 0;
	if (o->at < o->op->n_keys)
		sp_op_phase(o, SP_BATCH);
	else
		sp_op_end(o, o->child_rc, &o->child_err);
}

void sp_many_answer(struct sp_op *o, struct sp_call *c, const struct sp_answer *a)
{
	if (a->unknown) {
		log_event(LOG_INF, "sproxyd has no batch delete: objects are deleted one by one", LF_S("url", c->connector->url), LF_END);
		o->s->no_batch = true;
		one_by_one(o);
	} else if (a->verdict == SP_LOCKED) {
		sp_op_locked(o, a);
	} else if (a->verdict == SP_AGAIN) {
		sp_op_again(o, a);
	} else if (a->rc < 0) {
		sp_op_end(o, a->rc, &a->err);
	} else {
		batch_done(o, c);
	}
}

bool sp_many_stop(struct sp_op *o, int rc, const struct err *err)
{
	if (!o->running)
		return false;
	if (!o->child_rc) {
		o->child_rc = rc;
		o->child_err = *err;
	}
	o->next_child = o->op->n_keys;	/* those that run have the same deadline; the last one leads to the end */
	return true;
}
