/* Operations of several requests.
 *
 * Multipart is for unconditional puts above a size only.  A conditional put
 * is always one PUT (up to the store's 5 GiB): several stores ignore the
 * condition of CompleteMultipartUpload, and mail is far smaller. */
#include "objstore/s3-private.h"

#include "base/log.h"
#include "base/mem.h"

/* --- children --- */

static void begin_children(struct s3_op *o);

static void child_done(struct objstore_op *op)
{
	struct s3_op *child = op->ctx, *o = child->parent;

	if (op->rc < 0 && !o->child_rc) {
		o->child_rc = op->rc;
		o->child_err = op->err;
	}
	if (op->rc == 0 && child->part)
		o->etags[child->part - 1] = mem_strdup(op->etag);
	s3_op_free(child);
	o->running--;
	begin_children(o);
}

static struct s3_op *new_child(struct s3_op *o, enum objstore_verb verb, const char *key)
{
	struct s3_op *child = MEM_NEW(struct s3_op);

	child->s = o->s;
	child->op = &child->own;
	child->parent = o;
	child->deadline_us = o->deadline_us;
	child->begin_us = o->begin_us;
	child->own.verb = verb;
	child->own.key = key;
	child->own.done = child_done;
	child->own.ctx = child;
	return child;
}

static void children_ended(struct s3_op *o)
{
	if (o->child_rc < 0 || o->phase == S3_EACH)
		s3_op_end(o, o->child_rc, &o->child_err);
	else
		s3_op_phase(o, S3_COMPLETE);
}

static void begin_children(struct s3_op *o)
{
	struct s3_op *child;

	/* one key that cannot be deleted does not spare the others; one part that fails ends the upload */
	while (o->running < S3_CHILDREN && o->next_child < o->n_child && (!o->child_rc || o->phase == S3_EACH)) {
		if (o->phase == S3_PARTS) {
			child = o->child[o->next_child];
			o->child[o->next_child] = NULL;
		} else {
			child = new_child(o, OBJ_DELETE, o->op->keys[o->next_child]);
		}
		o->next_child++;
		o->running++;
		s3_op_begin(child);
	}
	if (o->running == 0)
		children_ended(o);
}

void s3_delete_each(struct s3_op *o)
{
	o->phase = S3_EACH;
	o->n_child = o->op->n_keys;
	o->next_child = o->at;
	begin_children(o);
}

/* --- multipart --- */

/* The part [off, off + len) of the operation's bytes, without copying them. */
static void slice(struct s3_op *child, const struct objstore_op *op, size_t off, size_t len)
{
	int i, n = 0;

	child->own_iov = mem_calloc((size_t)op->n_iov, sizeof(struct iovec));
	for (i = 0; i < op->n_iov && len; i++) {
		size_t here = op->iov[i].iov_len, take;

		if (off >= here) {
			off -= here;
			continue;
		}
		take = here - off < len ? here - off : len;
		child->own_iov[n++] = (struct iovec){ (char *)op->iov[i].iov_base + off, take };
		len -= take;
		off = 0;
	}
	child->own.iov = child->own_iov;
	child->own.n_iov = n;
}

void s3_multi_prepare(struct s3_op *o)
{
	uint64_t part = o->s->part_size;
	size_t i;

	if (o->len / part >= S3_PARTS_MAX)
		part = o->len / (S3_PARTS_MAX - 1) + 1;
	o->phase = S3_INITIATE;
	o->n_child = (size_t)((o->len + part - 1) / part);
	o->child = mem_calloc(o->n_child, sizeof(struct s3_op *));
	o->etags = mem_calloc(o->n_child, sizeof(char *));
	for (i = 0; i < o->n_child; i++) {
		struct s3_op *child = new_child(o, OBJ_PUT, o->op->key);
		size_t off = i * (size_t)part;

		child->part = (unsigned)i + 1;
		child->len = o->len - off < part ? o->len - off : (size_t)part;
		slice(child, o->op, off, child->len);
		s3_hash_iov(child->own.iov, child->own.n_iov, child->sha);
		o->child[i] = child;
	}
}

static void initiated(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	char id[S3_UPLOAD_ID];

	if (a->rc == 0)
		a->rc = s3_xml_upload_id(c->req.body.data, c->req.body.len, id, sizeof(id), &a->err);
	if (a->rc < 0) {
		s3_op_end(o, a->rc, &a->err);
		return;
	}
	o->upload_id = mem_strdup(id);
	o->phase = S3_PARTS;
	begin_children(o);
}

static void completed(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	/* asked twice: the first may have been carried out, its answer lost.  Ceph tells an empty ETag */
	if ((a->rc == ERR_NOTFOUND && o->attempt > 1) ||
	    (a->rc == 0 && s3_xml_etag(c->req.body.data, c->req.body.len, o->op->etag, sizeof(o->op->etag), NULL) < 0)) {
		s3_op_phase(o, S3_SIZE);
		return;
	}
	if (a->rc == 0)
		o->in_doubt = false;
	s3_op_end(o, a->rc, &a->err);
}

static void sized(struct s3_op *o, struct s3_answer *a)
{
	if (a->rc == 0 && o->op->size == o->len) {
		o->in_doubt = false;
		s3_op_end(o, 0, NULL);
		return;
	}
	if (a->rc == 0)
		a->rc = err_set(&a->err, ERR_UNAVAILABLE, "object store: %s: the multipart upload is gone and its object is not there", o->op->key);
	s3_op_end(o, a->rc, &a->err);
}

static void abort_upload(struct s3_op *o)
{
	o->phase = S3_ABORT;
	o->deadline_us = http_now() + S3_ABORT_US;
	http_timer(o->s->e, &o->limit, o->deadline_us);
	s3_enqueue(o);
}

static void aborted(struct s3_op *o, const struct s3_answer *a)
{
	if (a->rc < 0 && a->rc != ERR_NOTFOUND)
		log_event(LOG_WARN, "a multipart upload could not be aborted: let the bucket's lifecycle rules delete incomplete uploads",
			  LF_S("bucket", o->s->bucket), LF_S("key", o->op->key), LF_S("upload_id", o->upload_id), LF_ERR(&a->err), LF_END);
	s3_op_end(o, o->child_rc, &o->child_err);
}

bool s3_multi_stop(struct s3_op *o, int rc, const struct err *err)
{
	if (o->phase == S3_ABORT || (!o->running && !o->upload_id))
		return false;
	if (!o->child_rc) {
		o->child_rc = rc;
		o->child_err = *err;
	}
	if (o->running) {	/* they have the same deadline; the last one leads here again */
		o->next_child = o->phase == S3_EACH ? o->n_child : o->next_child;
		return true;
	}
	abort_upload(o);
	return true;
}

/* --- multi-delete --- */

static void key_failed(void *ctx, const char *key, const char *code, const char *message)
{
	static const char *const temporary[] = { "InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted", "RequestTimeout" };
	struct s3_op *o = ctx;
	size_t i;

	if (!strcmp(code, "NoSuchKey"))
		return;
	for (i = 0; i < MEM_COUNT(temporary); i++)
		if (!strcmp(code, temporary[i]))
			o->child_temporary = true;
	if (!o->child_rc && !o->child_temporary)
		o->child_rc = err_set(&o->child_err, !strcmp(code, "AccessDenied") ? ERR_DENIED : ERR_UNAVAILABLE, "object store: delete %.200s: %s %.120s", key, code, message);
}

static void chunk_deleted(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	if (a->not_implemented) {
		log_event(LOG_INF, "the object store has no multi-delete: objects are deleted one by one", LF_S("bucket", o->s->bucket), LF_END);
		o->s->no_multi_delete = true;
		s3_delete_each(o);
		return;
	}
	o->child_temporary = false;
	if (a->rc == 0)
		a->rc = s3_xml_deleted(c->req.body.data, c->req.body.len, key_failed, o, &a->err);
	if (a->rc < 0) {
		s3_op_end(o, a->rc, &a->err);
		return;
	}
	if (o->child_temporary) {	/* the whole chunk again: what is gone stays gone */
		a->policy = POLICY_THROTTLED;
		a->rc = err_set(&a->err, ERR_BUSY, "object store: a multi-delete was done in part");
		s3_op_again(o, a);
		return;
	}
	o->at += S3_DELETE_MAX;
	if (o->at < o->op->n_keys)
		s3_op_phase(o, S3_MAIN);
	else
		s3_op_end(o, o->child_rc, &o->child_err);
}

/* --- both --- */

bool s3_multi_phase(const struct s3_op *o)
{
	return o->phase >= S3_INITIATE || o->op->n_keys || (o->phase == S3_SIZE && o->op->verb == OBJ_PUT);
}

void s3_multi_build(struct s3_op *o)
{
	size_t left = o->op->n_keys - o->at;

	if (o->phase != S3_COMPLETE && !(o->phase == S3_MAIN && o->op->n_keys))
		return;
	buf_clear(&o->text);
	o->text.max = 8 << 20;
	if (o->phase == S3_COMPLETE)
		s3_xml_complete(&o->text, (const char *const *)o->etags, o->n_child);
	else
		s3_xml_delete(&o->text, o->op->keys + o->at, left < S3_DELETE_MAX ? left : S3_DELETE_MAX);
}

void s3_multi_answer(struct s3_op *o, struct s3_call *c, const struct s3_answer *answer)
{
	struct s3_answer a = *answer;

	if (a.verdict == S3_AT_ONCE) {
		s3_op_phase(o, o->phase);
		return;
	}
	if (a.verdict == S3_AGAIN && !a.not_implemented) {
		o->in_doubt |= o->phase == S3_COMPLETE && a.maybe_done;
		s3_op_again(o, &a);
		return;
	}
	switch (o->phase) {
	case S3_INITIATE:
		initiated(o, c, &a);
		return;
	case S3_COMPLETE:
		completed(o, c, &a);
		return;
	case S3_SIZE:
		sized(o, &a);
		return;
	case S3_ABORT:
		aborted(o, &a);
		return;
	default:
		chunk_deleted(o, c, &a);
		return;
	}
}
