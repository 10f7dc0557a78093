/* s3mem - an S3 server in memory with a set delay, for benchmarks: how Culver behaves when the store is far away, not how fast
 * some store is.
 *
 *   s3mem [--delay MS] [--bucket NAME]
 *
 * Prints its port (on 127.0.0.1) and runs until its standard input ends.  Every request that is not to /-/... is answered MS
 * milliseconds after its last byte.  Signatures are not looked at.  GET /-/counts gives what was asked for since the
 * last /-/reset; PUT /-/delay?ms=N changes the delay.  Conditional puts, ranges, multi-delete and ListObjectsV2
 * behave as AWS documents them; multipart is not there. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/hmap.h"
#include "base/mem.h"

#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BODY_MAX (UINT64_C(128) << 20)
enum { LIST_MAX = 1000, TOKEN_MAX = 96 };

enum kind { PUT, GET, HEAD, DELETE, LIST, POST, N_KINDS };
static const char *const kind_names[N_KINDS] = { "put", "get", "head", "delete", "list", "post" };
/* What Culver keeps under such names (docs/format.md). */
enum group { MESSAGES, JOURNAL, NODES, INDEX, N_GROUPS };
static const char *const group_names[N_GROUPS] = { "messages", "journal", "nodes", "index" };

/* Immutable but for its references: the map's, and each answer's that is being sent. */
struct object {
	atomic_uint refs;
	uint64_t serial;		/* its ETag */
	char token[TOKEN_MAX];		/* x-amz-meta-culver-put */
	size_t len;
	char data[];
};

struct request {
	struct buf body;
	struct MHD_Response *answer;	/* made, and waiting for its time */
	unsigned status;
	int64_t due;
	struct MHD_Connection *conn;
	struct request *next;		/* in the queue of those that wait: the delay is the same for all, so due grows */
};

static struct {
	pthread_mutex_t lock;
	struct hmap objects;
	uint64_t serial, requests[N_GROUPS][N_KINDS], up, down;
} s = { .lock = PTHREAD_MUTEX_INITIALIZER };
static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct request *head, **tail;
} late = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
static atomic_int_least64_t delay_us;
static const char *bucket = "bench";

/* --- objects --- */

static void object_drop(void *p)
{
	struct object *o = p;

	if (o && atomic_fetch_sub(&o->refs, 1) == 1)
		free(o);
}

/* A reference of the caller's, or NULL. */
static struct object *object_get(const char *key)
{
	struct object *o;

	pthread_mutex_lock(&s.lock);
	o = hmap_gets(&s.objects, key);
	if (o)
		atomic_fetch_add(&o->refs, 1);
	pthread_mutex_unlock(&s.lock);
	return o;
}

static void object_delete(const char *key, size_t len)
{
	pthread_mutex_lock(&s.lock);
	object_drop(hmap_del(&s.objects, key, len));
	pthread_mutex_unlock(&s.lock);
}

static uint64_t etag_number(const char *text)
{
	return strtoull(text + (*text == '"'), NULL, 16);
}

/* 200, 404 or 412. */
static unsigned object_put(const char *key, const struct buf *body, const char *none_match, const char *match, const char *token, uint64_t *serial_r)
{
	struct object *o = mem_alloc(sizeof(*o) + body->len), *old;
	unsigned status = 200;

	atomic_init(&o->refs, 1);
	o->len = body->len;
	memcpy(o->data, body->data ? (const char *)body->data : "", body->len);
	snprintf(o->token, sizeof(o->token), "%s", token ? token : "");
	pthread_mutex_lock(&s.lock);
	old = hmap_gets(&s.objects, key);
	if (old && none_match)
		status = 412;
	else if (match && !old)
		status = 404;
	else if (match && old->serial != etag_number(match))
		status = 412;
	if (status == 200) {
		*serial_r = o->serial = ++s.serial;
		old = hmap_put(&s.objects, key, strlen(key), o);
		o = NULL;
		object_drop(old);
	}
	pthread_mutex_unlock(&s.lock);
	free(o);
	return status;
}

/* --- answers --- */

static struct MHD_Response *whole(const char *text)
{
	return MHD_create_response_from_buffer(strlen(text), (char *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
}

static void refuse(struct request *r, unsigned status)
{
	const char *code = status == 404 ? "NoSuchKey" : status == 412 ? "PreconditionFailed" : status == 416 ? "InvalidRange" : "NotImplemented";

	char text[256];

	snprintf(text, sizeof(text), "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>s3mem</Message></Error>", code);
	r->status = status;
	r->answer = whole(text);
}

static void add_etag(struct MHD_Response *a, const struct object *o, uint64_t serial)
{
	char etag[48];

	snprintf(etag, sizeof(etag), "\"%032" PRIx64 "\"", serial);
	MHD_add_response_header(a, "ETag", etag);
	if (o && o->token[0])
		MHD_add_response_header(a, "x-amz-meta-culver-put", o->token);
	if (o)
		MHD_add_response_header(a, "Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT");
}

/* The bytes asked for by "Range: bytes=a-b"; false: there are none. */
static bool range_of(const char *range, const struct object *o, size_t *off, size_t *len)
{
	char *end;
	uint64_t a, b;

	*off = 0;
	*len = o->len;
	if (!range || strncmp(range, "bytes=", 6) != 0)
		return true;
	a = strtoull(range + 6, &end, 10);
	b = *end == '-' && end[1] ? strtoull(end + 1, NULL, 10) : UINT64_MAX;
	if (a >= o->len || b < a)
		return false;
	*off = a;
	*len = (b < o->len ? b + 1 : o->len) - a;
	return true;
}

struct sending { struct object *o; size_t off; };

static ssize_t send_some(void *ctx, uint64_t pos, char *out, size_t max)
{
	struct sending *x = ctx;

	memcpy(out, x->o->data + x->off + pos, max);
	return (ssize_t)max;
}

static void sent(void *ctx)
{
	object_drop(((struct sending *)ctx)->o);
	free(ctx);
}

static void do_get(struct request *r, struct MHD_Connection *c, const char *key)
{
	const char *range = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Range");
	struct object *o = object_get(key);
	struct sending *x;
	size_t off, len;
	char text[80];

	if (!o)
		return refuse(r, 404);
	if (!range_of(range, o, &off, &len)) {
		object_drop(o);
		return refuse(r, 416);
	}
	pthread_mutex_lock(&s.lock);
	s.down += len;
	pthread_mutex_unlock(&s.lock);
	x = MEM_NEW(struct sending);
	*x = (struct sending){ o, off };
	r->answer = MHD_create_response_from_callback(len, 65536, send_some, x, sent);
	r->status = range ? 206 : 200;
	add_etag(r->answer, o, o->serial);
	if (range) {
		snprintf(text, sizeof(text), "bytes %zu-%zu/%zu", off, off + len - 1, o->len);
		MHD_add_response_header(r->answer, "Content-Range", text);
	}
}

static void do_put(struct request *r, struct MHD_Connection *c, const char *key)
{
	uint64_t serial = 0;
	unsigned status = object_put(key, &r->body, MHD_lookup_connection_value(c, MHD_HEADER_KIND, "If-None-Match"),
				     MHD_lookup_connection_value(c, MHD_HEADER_KIND, "If-Match"),
				     MHD_lookup_connection_value(c, MHD_HEADER_KIND, "x-amz-meta-culver-put"), &serial);

	if (status != 200)
		return refuse(r, status);
	r->status = 200;
	r->answer = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	add_etag(r->answer, NULL, serial);
}

/* Keys have no characters that XML would write otherwise. */
static void do_delete_many(struct request *r)
{
	const char *p = buf_str(&r->body), *end;

	while ((p = strstr(p, "<Key>")) && (end = strstr(p, "</Key>"))) {
		object_delete(p + 5, (size_t)(end - p - 5));
		p = end;
	}
	r->status = 200;
	r->answer = whole("<?xml version=\"1.0\"?><DeleteResult></DeleteResult>");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names under prefix behind after, sorted; the caller's. */
static char **names_of(const char *prefix, const char *after, size_t *n_r)
{
	char **names = NULL;
	size_t n = 0, cap = 0, pos = 0, len;
	const void *key;
	void *value;

	pthread_mutex_lock(&s.lock);
	while (hmap_next(&s.objects, &pos, &key, &len, &value)) {
		char *name = mem_strndup(key, len);

		if (strncmp(name, prefix, strlen(prefix)) != 0 || strcmp(name, after) <= 0) {
			free(name);
			continue;
		}
		mem_grow(&names, &cap, n + 1, sizeof(*names));
		names[n++] = name;
	}
	pthread_mutex_unlock(&s.lock);
	if (n)
		qsort(names, n, sizeof(*names), by_name);
	*n_r = n;
	return names;
}

static void do_list(struct request *r, struct MHD_Connection *c)
{
	const char *prefix = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "prefix");
	const char *after = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "start-after");
	const char *max = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "max-keys");
	size_t n, i, most = max ? strtoul(max, NULL, 10) : LIST_MAX;
	char **names = names_of(prefix ? prefix : "", after ? after : "", &n);
	struct buf b = BUF_INIT(BODY_MAX);

	buf_addf(&b, "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>%s</IsTruncated>", n > most ? "true" : "false");
	for (i = 0; i < n; i++) {
		if (i < most)
			buf_addf(&b, "<Contents><Key>%s</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size></Contents>", names[i]);
		free(names[i]);
	}
	free(names);
	buf_addf(&b, "</ListBucketResult>");
	r->status = 200;
	r->answer = MHD_create_response_from_buffer(b.len, b.data, MHD_RESPMEM_MUST_COPY);
	buf_free(&b);
}

static enum kind kind_of(struct MHD_Connection *c, const char *method, bool has_key)
{
	if (!strcmp(method, "PUT"))
		return PUT;
	if (!strcmp(method, "HEAD"))
		return HEAD;
	if (!strcmp(method, "DELETE"))
		return DELETE;
	if (!strcmp(method, "GET"))
		return has_key || !MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "list-type") ? GET : LIST;
	return POST;
}

static enum group group_of(const char *key)
{
	if (strstr(key, "/m/"))
		return MESSAGES;
	if (!strncmp(key, "journal/", 8))
		return JOURNAL;
	return !strncmp(key, "node", 4) ? NODES : INDEX;
}

static void carry_out(struct request *r, struct MHD_Connection *c, const char *method, const char *path)
{
	size_t n = strlen(bucket);
	const char *key = *path == '/' && !strncmp(path + 1, bucket, n) && path[n + 1] == '/' ? path + n + 2 : "";
	enum kind k = kind_of(c, method, *key);

	pthread_mutex_lock(&s.lock);
	s.requests[group_of(key)][k]++;
	s.up += r->body.len;
	pthread_mutex_unlock(&s.lock);
	switch (k) {
	case PUT: do_put(r, c, key); break;
	case GET: case HEAD: do_get(r, c, key); break;
	case LIST: do_list(r, c); break;
	case POST: do_delete_many(r); break;
	default:
		object_delete(key, strlen(key));
		r->status = 204;
		r->answer = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	}
}

/* --- what the benchmark asks --- */

static void control(struct request *r, struct MHD_Connection *c, const char *what)
{
	const char *ms = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "ms");
	struct buf b = BUF_INIT(4096);
	int g, k;

	if (!strcmp(what, "delay") && ms)
		atomic_store(&delay_us, strtoll(ms, NULL, 10) * 1000);
	pthread_mutex_lock(&s.lock);
	buf_addf(&b, "{");
	for (g = 0; g < N_GROUPS; g++) {
		buf_addf(&b, "\"%s\": {", group_names[g]);
		for (k = 0; k < N_KINDS; k++)
			buf_addf(&b, "%s\"%s\": %" PRIu64, k ? ", " : "", kind_names[k], s.requests[g][k]);
		buf_addf(&b, "}, ");
	}
	buf_addf(&b, "\"up\": %" PRIu64 ", \"down\": %" PRIu64 "}\n", s.up, s.down);
	if (!strcmp(what, "reset")) {
		memset(s.requests, 0, sizeof(s.requests));
		s.up = s.down = 0;
	}
	pthread_mutex_unlock(&s.lock);
	r->status = 200;
	r->answer = MHD_create_response_from_buffer(b.len, b.data, MHD_RESPMEM_MUST_COPY);
	buf_free(&b);
}

/* --- HTTP --- */

static void wait_until(struct request *r, struct MHD_Connection *c)
{
	r->conn = c;
	r->due = clock_mono_us(&clock_system) + atomic_load(&delay_us);
	r->next = NULL;
	MHD_suspend_connection(c);
	pthread_mutex_lock(&late.lock);
	*late.tail = r;
	late.tail = &r->next;
	pthread_cond_signal(&late.cond);
	pthread_mutex_unlock(&late.lock);
}

/* The delay is measured from here: one thread wakes up whoever is due. */
static _Noreturn void *waker(void *arg)
{
	struct request *r;
	int64_t wait;

	(void)arg;
	pthread_mutex_lock(&late.lock);
	for (;;) {
		if (!late.head) {
			pthread_cond_wait(&late.cond, &late.lock);
			continue;
		}
		r = late.head;
		wait = r->due - clock_mono_us(&clock_system);
		if (wait > 0) {
			pthread_mutex_unlock(&late.lock);
			usleep((useconds_t)wait);
			pthread_mutex_lock(&late.lock);
			continue;
		}
		late.head = r->next;
		if (!late.head)
			late.tail = &late.head;
		pthread_mutex_unlock(&late.lock);
		MHD_resume_connection(r->conn);
		pthread_mutex_lock(&late.lock);
	}
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *c, const char *path, const char *method, const char *version, const char *data, size_t *n, void **ctx)
{
	struct request *r = *ctx;
	enum MHD_Result rc;

	(void)cls;
	(void)version;
	if (!r) {
		*ctx = r = MEM_NEW(struct request);
		r->body = (struct buf)BUF_INIT(BODY_MAX);
		return MHD_YES;
	}
	if (*n) {
		buf_add(&r->body, data, *n);
		*n = 0;
		return r->body.failed ? MHD_NO : MHD_YES;
	}
	if (!r->answer && !strncmp(path, "/-/", 3)) {
		control(r, c, path + 3);
	} else if (!r->answer) {
		carry_out(r, c, method, path);
		if (atomic_load(&delay_us) > 0) {
			wait_until(r, c);
			return MHD_YES;
		}
	}
	rc = MHD_queue_response(c, r->status, r->answer);
	MHD_destroy_response(r->answer);
	r->answer = NULL;
	return rc;
}

static void ended(void *cls, struct MHD_Connection *c, void **ctx, enum MHD_RequestTerminationCode why)
{
	struct request *r = *ctx;

	(void)cls;
	(void)c;
	(void)why;
	if (!r)
		return;
	if (r->answer)
		MHD_destroy_response(r->answer);
	buf_free(&r->body);
	free(r);
	*ctx = NULL;
}

int main(int argc, char **argv)
{
	struct MHD_Daemon *d;
	pthread_t t;
	char c;
	int i;

	for (i = 1; i + 1 < argc; i += 2)
		if (!strcmp(argv[i], "--delay"))
			atomic_store(&delay_us, strtoll(argv[i + 1], NULL, 10) * 1000);
		else if (!strcmp(argv[i], "--bucket"))
			bucket = argv[i + 1];
		else
			break;
	if (i < argc) {
		fprintf(stderr, "usage: s3mem [--delay MS] [--bucket NAME]\n");
		return 2;
	}
	late.tail = &late.head;
	d = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, handle, NULL,
			     MHD_OPTION_NOTIFY_COMPLETED, ended, NULL, MHD_OPTION_CONNECTION_LIMIT, 4096u,
			     MHD_OPTION_SOCK_ADDR, &(struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, MHD_OPTION_END);
	if (!d || pthread_create(&t, NULL, waker, NULL) != 0) {
		fprintf(stderr, "s3mem: cannot start\n");
		return 1;
	}
	printf("%u\n", MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT)->port);
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	/* connections that wait would have to be woken up first; nothing here outlives the process */
	_exit(0);
}
