/* What an answer means: for the operation, for its caller, and for the policy. */
#include "objstore/s3-private.h"

#include "base/b64.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <strings.h>

enum { RETRY_AFTER_MAX_S = 60, SKEW_MIN_S = 60 };

enum objstore_verb s3_wire_verb(const struct s3_op *o)
{
	if (o->phase == S3_READ_BYTES)
		return OBJ_GET;
	return o->phase == S3_SIZE || o->phase == S3_READ_BACK ? OBJ_HEAD : o->op->verb;
}

static const char *request_id(const struct s3_call *c, const struct s3_answer *a)
{
	const char *id = http_header(&c->req, "x-amz-request-id");

	return id ? id : a->x.request_id;
}

static bool conditional(const struct s3_op *o)
{
	return o->phase == S3_MAIN && (o->op->verb == OBJ_PUT || o->op->verb == OBJ_COPY) && o->op->cond != OBJ_ANY;
}

/* Copies are not looked up: their bytes are not here to compare. */
static bool can_read_back(const struct s3_op *o)
{
	return conditional(o) && o->op->verb == OBJ_PUT;
}

static int say(struct s3_op *o, struct s3_call *c, struct s3_answer *a, int rc, const char *advice)
{
	static const char *const verbs[] = { "put", "get", "head", "delete", "list", "copy", "sync" };
	const struct http_req *r = &c->req;
	const char *id = request_id(c, a);
	const char *target = o->op->key && *o->op->key ? o->op->key : o->s->bucket;

	a->rc = rc;
	if (r->fail != HTTP_ANSWERED)
		return err_set(&a->err, rc, "object store: %s %s: %s%s", verbs[o->op->verb], target, r->err.msg, advice);
	return err_set(&a->err, rc, "object store: %s %s: %d %s%s%.120s%s%s%s%s", verbs[o->op->verb], target, r->status, a->x.code,
		       *a->x.message ? ": " : "", a->x.message, *id ? " (request " : "", id, *id ? ")" : "", advice);
}

static int64_t retry_after(const struct http_req *r)
{
	const char *text = http_header(r, "retry-after");
	char *end;
	int64_t n;

	if (!text)
		return 0;
	n = strtoll(text, &end, 10);
	if (end == text)
		n = curl_getdate(text, NULL) - clock_wall_s(&clock_system);
	return n <= 0 ? 0 : (n > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : n) * INT64_C(1000000);
}

/* --- good answers --- */

static void take_etag(struct objstore_op *op, const struct http_req *r)
{
	const char *tag = http_header(r, "etag");

	if (!tag || strlen(tag) >= OBJ_ETAG_MAX)
		tag = "";	/* one that is too long must not be cut and then compared */
	memmove(op->etag, tag, strlen(tag) + 1);
}

static void take_size(struct s3_op *o, const struct http_req *r)
{
	const char *range = http_header(r, "content-range"), *slash = range ? strchr(range, '/') : NULL;
	const char *date = http_header(r, "last-modified");

	if (r->length >= 0)
		o->op->size = (uint64_t)r->length;
	if (slash && slash[1] >= '0' && slash[1] <= '9')
		o->op->size = strtoull(slash + 1, NULL, 10);
	else if (r->status == 206)
		o->op->size = o->op->off + r->down;
	if (r->length < 0 && r->status == 200)
		o->op->size = r->down;
	o->op->mtime = date ? (int64_t)curl_getdate(date, NULL) : 0;
	take_etag(o->op, r);
}

/* The store's own checksum of the whole object, where it keeps one ("...-2" is that of parts). */
static bool bytes_differ(struct s3_call *c)
{
	const char *told = http_header(&c->req, "x-amz-checksum-sha256");
	unsigned char h[EVP_MAX_MD_SIZE];
	struct buf b = BUF_INIT(256);
	bool differ;

	if (!c->hash || !told || strchr(told, '-'))
		return false;
	EVP_DigestFinal_ex(c->hash, h, NULL);
	b64_encode(&b, h, 32);
	differ = strcmp(buf_str(&b), told) != 0;
	buf_free(&b);
	return differ;
}

static int list_answer(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	struct s3_xml_list l;

	a->rc = s3_xml_list(c->req.body.data, c->req.body.len, o->op->max_keys && o->op->max_keys < 1000 ? o->op->max_keys : 1000, &l, &a->err);
	if (a->rc < 0)
		return S3_AGAIN;
	o->op->items = l.items;
	o->op->n_items = l.n;
	o->op->more = l.more;
	return S3_DONE;
}

/* Status 200 may come with an <Error> body when copying took long. */
static bool error_in_200(struct s3_call *c, struct s3_answer *a)
{
	return c->req.body.len && s3_xml_error(c->req.body.data, c->req.body.len, &a->x) == 1;
}

static enum s3_verdict good(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	a->policy = POLICY_OK;
	if (o->phase == S3_MAIN) {
		switch (o->op->verb) {
		case OBJ_PUT:
			take_etag(o->op, &c->req);
			break;
		case OBJ_GET:
			if (bytes_differ(c)) {
				a->policy = POLICY_FAILED;
				say(o, c, a, ERR_CORRUPT, "the bytes are not those of the store's checksum");
				return S3_AGAIN;
			}
			take_size(o, &c->req);
			break;
		case OBJ_HEAD:
			take_size(o, &c->req);
			break;
		case OBJ_LIST:
			return (enum s3_verdict)list_answer(o, c, a);
		case OBJ_COPY:
			if (!error_in_200(c, a))
				break;
			say(o, c, a, ERR_UNAVAILABLE, "");
			return S3_AGAIN;
		default:
			break;
		}
	} else if (o->phase == S3_SIZE) {
		take_size(o, &c->req);
	} else if (o->phase == S3_COMPLETE && error_in_200(c, a)) {
		say(o, c, a, ERR_UNAVAILABLE, "");
		return S3_AGAIN;
	}
	a->rc = 0;
	return S3_DONE;
}

/* --- bad ones --- */

/* A remedy for a clock that is wrong: the store's own Date. */
static bool fix_skew(struct s3_op *o, const struct http_req *r)
{
	const char *date = http_header(r, "date");
	time_t t = date ? curl_getdate(date, NULL) : -1;
	int64_t skew = (int64_t)t - clock_wall_s(&clock_system);

	if (t < 0 || o->fixed_skew || (skew - o->s->skew_s < SKEW_MIN_S && o->s->skew_s - skew < SKEW_MIN_S))
		return false;
	log_event(LOG_WARN, "the object store's clock and ours differ: requests are signed with its time; set this machine's clock",
		  LF_D("seconds", skew), LF_S("bucket", o->s->bucket), LF_END);
	o->s->skew_s = skew;
	o->fixed_skew = true;
	return true;
}

static bool refresh_keys(struct s3_op *o, const struct s3_call *c)
{
	if (o->new_keys || !s3_cred_refused(o->s->cred, c->access))
		return false;
	o->new_keys = true;
	return true;
}

static enum s3_verdict denied(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	static const char *const stale[] = { "ExpiredToken", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId", "InvalidClientTokenId" };
	const char *advice = "";
	char region[128];
	size_t i;

	if (!strcmp(a->x.code, "RequestTimeTooSkewed") && fix_skew(o, &c->req))
		return S3_AT_ONCE;
	for (i = 0; i < MEM_COUNT(stale); i++)
		if (!strcmp(a->x.code, stale[i]) && refresh_keys(o, c))
			return S3_AT_ONCE;
	if (!strcmp(a->x.code, "SignatureDoesNotMatch"))
		advice = "; check secret_key and region";
	else if (!strcmp(a->x.code, "InvalidAccessKeyId"))
		advice = "; check access_key";
	if (*a->x.region) {
		snprintf(region, sizeof(region), "; the bucket is in region %.60s: set region", a->x.region);
		advice = region;
	}
	say(o, c, a, ERR_DENIED, advice);
	return S3_DONE;
}

static enum s3_verdict absent(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	if (!strcmp(a->x.code, "NoSuchBucket")) {
		say(o, c, a, ERR_UNAVAILABLE, "; make the bucket, or set another");
		return S3_DONE;
	}
	if (conditional(o)) {	/* If-Match on nothing */
		a->rc = err_set(&a->err, ERR_CONFLICT, "object store: %s is gone", o->op->key);
		return S3_DONE;
	}
	if (o->op->verb == OBJ_DELETE && o->phase != S3_ABORT) {
		a->rc = 0;
		return S3_DONE;
	}
	a->rc = err_set(&a->err, ERR_NOTFOUND, "object store: %s: no such object", o->op->key);
	return S3_DONE;
}

static enum s3_verdict moved(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	const char *region = http_header(&c->req, "x-amz-bucket-region");
	char advice[256];

	if (!region)
		region = a->x.region;
	snprintf(advice, sizeof(advice), "; the bucket is elsewhere%s%.60s%s%.100s: set region and endpoint", *region ? ", region " : "", region,
		 *a->x.endpoint ? ", endpoint " : "", a->x.endpoint);
	say(o, c, a, c->req.status == 307 ? ERR_UNAVAILABLE : ERR_INVALID, advice);
	return c->req.status == 307 ? S3_AGAIN : S3_DONE;
}

static enum s3_verdict bad_request(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	static const char *const again[] = { "RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "XAmzContentChecksumMismatch" };
	size_t i;

	for (i = 0; i < MEM_COUNT(again); i++) {
		if (strcmp(a->x.code, again[i]))
			continue;
		say(o, c, a, ERR_UNAVAILABLE, "");
		a->policy = POLICY_FAILED;
		return S3_AGAIN;
	}
	if (!strcmp(a->x.code, "ExpiredToken") || !strcmp(a->x.code, "InvalidToken") || *a->x.region)
		return denied(o, c, a);
	if (!strcmp(a->x.code, "NotImplemented"))
		a->not_implemented = true;
	say(o, c, a, !strcmp(a->x.code, "EntityTooLarge") ? ERR_LIMIT : ERR_INVALID, "");
	return S3_DONE;
}

/* No answer, or one that says nothing of what was done. */
static enum s3_verdict unclear(struct s3_op *o, struct s3_call *c, struct s3_answer *a, int rc)
{
	/* Ceph answers lost swaps so: the read-back will tell */
	a->policy = can_read_back(o) && c->req.status == 500 && c->req.fail == HTTP_ANSWERED ? POLICY_NEUTRAL : POLICY_FAILED;
	a->maybe_done = s3_wire_verb(o) == OBJ_PUT || s3_wire_verb(o) == OBJ_COPY;
	say(o, c, a, rc, "");
	return can_read_back(o) ? S3_DOUBT : S3_AGAIN;
}

static enum s3_verdict conflict(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	if (can_read_back(o))
		return S3_DOUBT;
	if (conditional(o)) {
		a->rc = err_set(&a->err, o->op->cond == OBJ_CREATE ? ERR_EXISTS : ERR_CONFLICT, "object store: %s: somebody was first", o->op->key);
		return S3_DONE;
	}
	say(o, c, a, ERR_BUSY, "");
	return c->req.status == 409 ? S3_AGAIN : S3_DONE;
}

static enum s3_verdict by_status(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	int status = c->req.status;

	a->policy = POLICY_OK;
	switch (status) {
	case 301:
	case 307:
		return moved(o, c, a);
	case 400:
		return bad_request(o, c, a);
	case 401:
	case 403:
		return denied(o, c, a);
	case 404:
		return absent(o, c, a);
	case 409:
	case 412:
		return conflict(o, c, a);
	case 416:
		return S3_NO_RANGE;
	case 429:
	case 503:
		a->policy = POLICY_THROTTLED;
		a->retry_after_us = retry_after(&c->req);
		say(o, c, a, ERR_BUSY, "");
		return S3_AGAIN;
	case 405:
	case 501:
		a->not_implemented = true;
		say(o, c, a, ERR_INVALID, conditional(o) ? "; the store refuses conditional writes" : "; the store cannot do this");
		return S3_DONE;
	default:
		if (status == 408 || status >= 500)
			return unclear(o, c, a, ERR_UNAVAILABLE);
		say(o, c, a, ERR_INVALID, "");
		return S3_DONE;
	}
}

static enum s3_verdict read_back_stopped(struct s3_call *c, struct s3_answer *a)
{
	a->policy = POLICY_OK;	/* not our length: not our bytes */
	a->rc = 0;
	return S3_DONE;
}

void s3_answer(struct s3_op *o, struct s3_call *c, struct s3_answer *a)
{
	struct http_req *r = &c->req;

	memset(a, 0, sizeof(*a));
	switch (r->fail) {
	case HTTP_ANSWERED:
		if (r->status >= 200 && r->status < 300) {
			a->verdict = good(o, c, a);
			return;
		}
		if (r->body.len)
			s3_xml_error(r->body.data, r->body.len, &a->x);
		a->verdict = by_status(o, c, a);
		return;
	case HTTP_STOPPED:
		if (c->wrong_size) {
			a->verdict = read_back_stopped(c, a);
			return;
		}
		a->policy = POLICY_OK;
		a->verdict = S3_DONE;
		a->rc = err_set(&a->err, ERR_LIMIT, "object store: %s is larger than expected", o->op->key);
		return;
	case HTTP_REFUSED:
		a->policy = POLICY_FAILED;
		a->verdict = S3_DONE;
		say(o, c, a, ERR_UNAVAILABLE, "; check endpoint, ca_file, cert_file and proxy");
		return;
	case HTTP_NOT_SENT:
		a->policy = POLICY_FAILED;
		a->verdict = S3_AGAIN;
		say(o, c, a, ERR_UNAVAILABLE, "");
		return;
	case HTTP_CANCELLED:
		a->policy = POLICY_NEUTRAL;
		a->verdict = S3_AGAIN;
		a->maybe_done = true;
		say(o, c, a, ERR_TIMEOUT, "");
		return;
	case HTTP_LOST:
	case HTTP_SLOW:
		a->verdict = unclear(o, c, a, r->fail == HTTP_SLOW ? ERR_TIMEOUT : ERR_UNAVAILABLE);
		return;
	}
}
