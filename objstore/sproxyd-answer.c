/* What an answer means: for the operation, for its caller, for the connector and for the policy. */
#include "objstore/sproxyd-private.h"

#include "base/clock.h"
#include "base/log.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <strings.h>

static const char *const verbs[] = { "put", "get", "head", "delete", "list", "copy", "sync" };

static const char *ring_status(const struct sp_call *c)
{
	const char *text = http_header(&c->req, "x-scal-ring-status");

	return text ? text : "";
}

static int say(struct sp_op *o, struct sp_call *c, struct sp_answer *a, int rc, const char *advice)
{
	const struct http_req *r = &c->req;
	const char *ring = ring_status(c);

	a->rc = rc;
	if (r->fail != HTTP_ANSWERED)
		return err_set(&a->err, rc, "object store: %s %s: %s: %s (request %s)%s", verbs[sp_wire_verb(o)], o->op->key, c->connector->url, r->err.msg, o->uid, advice);
	return err_set(&a->err, rc, "object store: %s %s: %s: status %d%s%.120s (request %s)%s", verbs[sp_wire_verb(o)], o->op->key, c->connector->url, r->status,
		       *ring ? ", ring: " : "", ring, o->uid, advice);
}

/* --- good answers --- */

static uint64_t number(const char *text, uint64_t otherwise)
{
	return text && *text >= '0' && *text <= '9' ? strtoull(text, NULL, 10) : otherwise;
}

/* Sizes of what is split are told by X-Scal-Size only. */
static void take_size(struct sp_op *o, struct sp_call *c)
{
	const struct http_req *r = &c->req;
	const char *range = http_header(r, "content-range"), *slash = range ? strchr(range, '/') : NULL;
	const char *mtime = http_header(r, "x-scal-mtime"), *date = http_header(r, "last-modified");
	uint64_t size = r->status == 206 ? o->op->off + r->down : r->length >= 0 ? (uint64_t)r->length : r->down;

	size = number(slash ? slash + 1 : NULL, size);
	o->op->size = number(http_header(r, "x-scal-size"), size);
	o->op->mtime = (int64_t)number(mtime, 0);
	if (!o->op->mtime && (mtime || date))
		o->op->mtime = (int64_t)curl_getdate(mtime ? mtime : date, NULL);
	if (o->op->mtime < 0)
		o->op->mtime = 0;
	memcpy(o->op->etag, c->md.token, sizeof(c->md.token));
}

static bool said_deleted(const struct sp_call *c)
{
	const char *text = http_header(&c->req, "x-scal-attr-is-deleted");

	return text && (!strcasecmp(text, "true") || !strcmp(text, "1"));
}

static enum sp_verdict absent(struct sp_op *o, struct sp_answer *a)
{
	a->rc = err_set(&a->err, ERR_NOTFOUND, "object store: %s: no such object", o->op->key);
	return SP_DONE;
}

static enum sp_verdict stranger(struct sp_op *o, struct sp_call *c, struct sp_answer *a)
{
	char key[SPROXYD_KEY];

	sproxyd_key(o->op->key, o->s->service, o->s->class, key);
	a->rc = err_set(&a->err, ERR_CORRUPT, "object store: %s: under its key %s is another object%s%.200s: it is left alone (request %s)", o->op->key,
			o->s->by_path ? "path" : key, c->named ? ", " : " that is not ours", c->md.name, o->uid);
	log_event(LOG_ERROR, "two objects have one sproxyd key", LF_S("key", o->op->key), LF_S("ring_key", key), LF_S("there", c->md.name), LF_END);
	return SP_DONE;
}

static enum sp_verdict good(struct sp_op *o, struct sp_call *c, struct sp_answer *a)
{
	enum objstore_verb verb = sp_wire_verb(o);

	if (verb == OBJ_GET || verb == OBJ_HEAD) {
		if (said_deleted(c))
			return absent(o, a);
		if (!sp_call_names(c))
			return stranger(o, c, a);
	}
	if (o->phase == SP_SIZE || (o->phase == SP_MAIN && verb != OBJ_PUT && verb != OBJ_DELETE))
		take_size(o, c);
	if (verb == OBJ_PUT)
		memcpy(o->op->etag, o->token, sizeof(o->token));
	a->rc = 0;
	return SP_DONE;
}

/* --- bad ones --- */

/* No answer, or one that says nothing of what was done. */
static enum sp_verdict unclear(struct sp_op *o, struct sp_call *c, struct sp_answer *a, int rc)
{
	a->maybe_done = sp_wire_verb(o) == OBJ_PUT && c->req.sent;
	say(o, c, a, rc, "");
	return a->maybe_done ? SP_DOUBT : SP_AGAIN;
}

static enum sp_verdict ring_error(struct sp_op *o, struct sp_call *c, struct sp_answer *a)
{
	log_event(LOG_WARN, "the ring could not do it: it is tried again", LF_S("verb", verbs[sp_wire_verb(o)]), LF_S("key", o->op->key), LF_S("ring_status", ring_status(c)),
		  LF_S("url", c->connector->url), LF_S("request", o->uid), LF_U("attempt", o->attempt), LF_END);
	return unclear(o, c, a, ERR_UNAVAILABLE);
}

static enum sp_verdict other_status(struct sp_op *o, struct sp_call *c, struct sp_answer *a)
{
	int status = c->req.status;

	if (status >= 500 || status == 408 || status == 429) {
		a->away = status >= 500;
		return unclear(o, c, a, status == 429 ? ERR_BUSY : ERR_UNAVAILABLE);
	}
	if (status == 401 || status == 403)
		say(o, c, a, ERR_DENIED, "");
	else if (status == 413)
		say(o, c, a, ERR_LIMIT, "");
	else
		say(o, c, a, ERR_INVALID, "; check url and profile");
	return SP_DONE;
}

static enum sp_verdict by_status(struct sp_op *o, struct sp_call *c, struct sp_answer *a)
{
	switch (c->req.status) {
	case 404:
		a->unknown = o->phase == SP_BATCH;
		if (sp_wire_verb(o) == OBJ_DELETE && !a->unknown) {
			a->rc = 0;
			return SP_DONE;
		}
		if (sp_wire_verb(o) == OBJ_PUT || a->unknown) {
			say(o, c, a, ERR_INVALID, "; check the profile");
			return SP_DONE;
		}
		return absent(o, a);
	case 400:
	case 405:
	case 501:
		a->unknown = o->phase == SP_BATCH;
		say(o, c, a, ERR_INVALID, "");
		return SP_DONE;
	case 412:
		if (sp_wire_verb(o) == OBJ_PUT)
			return SP_DOUBT;
		say(o, c, a, ERR_INVALID, "");
		return SP_DONE;
	case 416:
		return SP_NO_RANGE;
	case 422:
		return ring_error(o, c, a);
	case 423:
		say(o, c, a, ERR_BUSY, "");
		return SP_LOCKED;
	default:
		return other_status(o, c, a);
	}
}

static enum sp_verdict stopped(struct sp_op *o, struct sp_call *c, struct sp_answer *a)
{
	if (c->wrong_name)
		return stranger(o, c, a);
	if (c->wrong_size) {
		a->rc = 0;
		return SP_DONE;
	}
	a->rc = err_set(&a->err, ERR_LIMIT, "object store: %s is larger than expected", o->op->key);
	return SP_DONE;
}

static enum sp_verdict judge(struct sp_op *o, struct sp_call *c, struct sp_answer *a)
{
	switch (c->req.fail) {
	case HTTP_ANSWERED:
		return c->req.status >= 200 && c->req.status < 300 ? good(o, c, a) : by_status(o, c, a);
	case HTTP_STOPPED:
		return stopped(o, c, a);
	case HTTP_REFUSED:
		a->away = true;
		say(o, c, a, ERR_UNAVAILABLE, "; check url, ca_file and proxy");
		return sp_connector_other(o->s) ? SP_AGAIN : SP_DONE;
	case HTTP_CANCELLED:
		a->policy = POLICY_NEUTRAL;
		say(o, c, a, ERR_TIMEOUT, "");
		return SP_AGAIN;
	case HTTP_NOT_SENT:
	case HTTP_LOST:
		a->away = true;
		return unclear(o, c, a, ERR_UNAVAILABLE);
	case HTTP_SLOW:
	default:
		a->away = true;
		return unclear(o, c, a, ERR_TIMEOUT);
	}
}

void sp_answer(struct sp_op *o, struct sp_call *c, struct sp_answer *a)
{
	memset(a, 0, sizeof(*a));
	a->policy = POLICY_OK;
	a->verdict = judge(o, c, a);
	if (a->away)
		sp_connector_failed(c->connector, &a->err);
	else if (c->req.fail == HTTP_ANSWERED)
		sp_connector_answered(c->connector, c->req.start_us);
	/* one connector's failure says nothing of the store while there are others */
	if (a->away && c->req.fail != HTTP_CANCELLED)
		a->policy = sp_connector_other(o->s) ? POLICY_NEUTRAL : POLICY_FAILED;
}
