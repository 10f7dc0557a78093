/* One request as libcurl sees it: options, callbacks, and what its result
 * means for the caller. */
#include "objstore/http-private.h"

#include "base/mem.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>

enum { HEAD_MAX = 64 * 1024, BUFFER = 64 * 1024, STALL_S = 20 };

const char *http_header(const struct http_req *r, const char *name)
{
	const char *p = (const char *)r->head.data, *end = p ? p + r->head.len : NULL;

	while (p < end) {
		const char *value = p + strlen(p) + 1;

		if (!strcmp(p, name))
			return value;
		p = value + strlen(value) + 1;
	}
	return NULL;
}

/* The head is kept as name NUL value NUL ... */
static void keep_field(struct http_req *r, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len);
	size_t i, n;

	while (len && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' ' || line[len - 1] == '\t'))
		len--;
	if (!colon || memchr(line, '\0', len))
		return;
	n = (size_t)(colon - line);
	for (i = 0; i < n; i++)
		buf_addc(&r->head, line[i] >= 'A' && line[i] <= 'Z' ? line[i] + 32 : line[i]);
	buf_addc(&r->head, '\0');
	for (i = n + 1; i < len && (line[i] == ' ' || line[i] == '\t'); i++)
		;
	buf_add(&r->head, line + i, i < len ? len - i : 0);
	buf_addc(&r->head, '\0');
}

static void head_complete(struct http_req *r)
{
	curl_off_t length = -1;
	int one = 1;

	r->first_us = http_now();
	curl_easy_getinfo(r->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	r->length = length;
	/* See the header: lets a server with Nagle's algorithm send the body now. */
	if (r->fd >= 0 && length > 0)
		setsockopt(r->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
}

static size_t on_header(char *data, size_t one, size_t len, void *ctx)
{
	struct http_req *r = ctx;

	if (len >= 5 && !memcmp(data, "HTTP/", 5)) {
		long status = 0;

		buf_clear(&r->head);
		curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
		r->status = (int)status;
	} else if (len <= 2) {
		head_complete(r);
	} else {
		keep_field(r, data, len);
	}
	return r->head.failed ? 0 : len;
}

static size_t on_write(char *data, size_t one, size_t len, void *ctx)
{
	struct http_req *r = ctx;

	r->down += len;
	if (r->on_body && r->status >= 200 && r->status < 300)
		return r->on_body(r, data, len) < 0 ? 0 : len;
	buf_add(&r->body, data, len);
	return r->body.failed ? 0 : len;
}

static size_t on_read(char *out, size_t one, size_t room, void *ctx)
{
	struct http_req *r = ctx;
	size_t done = 0, n;

	while (done < room && r->iov_at < r->n_iov) {
		const struct iovec *v = &r->iov[r->iov_at];

		n = v->iov_len - r->iov_off;
		if (n > room - done)
			n = room - done;
		if (n)
			memcpy(out + done, (const char *)v->iov_base + r->iov_off, n);
		done += n;
		r->iov_off += n;
		if (r->iov_off == v->iov_len) {
			r->iov_at++;
			r->iov_off = 0;
		}
	}
	return done;
}

static int on_seek(void *ctx, curl_off_t off, int origin)
{
	struct http_req *r = ctx;

	if (origin != SEEK_SET || off != 0)
		return CURL_SEEKFUNC_CANTSEEK;
	r->iov_at = 0;
	r->iov_off = 0;
	return CURL_SEEKFUNC_OK;
}

/* Called before each sending, libcurl's own second one included. */
static int on_send(void *ctx, char *ip, char *local, int port, int local_port)
{
	struct http_req *r = ctx;

	if (r->once && r->sent)
		return CURL_PREREQFUNC_ABORT;
	r->sent++;
	return CURL_PREREQFUNC_OK;
}

static size_t body_size(const struct http_req *r)
{
	size_t n = 0;
	int i;

	for (i = 0; i < r->n_iov; i++)
		n += r->iov[i].iov_len;
	return n;
}

static void set_body(struct http_req *r, CURL *easy)
{
	size_t len = body_size(r);

	r->up = len;
	curl_easy_setopt(easy, CURLOPT_POST, 1L);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
	if (r->n_iov <= 1) {	/* head and a small body leave in one packet */
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, len ? (const char *)r->iov[0].iov_base : "");
	} else {
		curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(easy, CURLOPT_READDATA, r);
		curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(easy, CURLOPT_SEEKDATA, r);
	}
}

static void set_method(struct http_req *r, CURL *easy)
{
	switch (r->method) {
	case HTTP_GET:
		break;
	case HTTP_HEAD:
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
		break;
	case HTTP_PUT:
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "PUT");
		set_body(r, easy);
		break;
	case HTTP_POST:
		set_body(r, easy);
		break;
	case HTTP_DELETE:
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
		break;
	}
}

static void set_network(const struct http_engine *e, const struct http_req *r, CURL *easy)
{
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)e->connect_timeout_ms);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, r->stall_s ? (long)r->stall_s : (long)STALL_S);
	if (r->deadline_us) {
		int64_t ms = (r->deadline_us - http_now() + 999) / 1000;

		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(ms < 1 ? 1 : ms));
	}
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
	if (r->fresh) {
		curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, 0L);
	}
	if (r->max_idle_s)
		curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)r->max_idle_s);
	curl_easy_setopt(easy, CURLOPT_PROXY, e->proxy && !r->direct ? e->proxy : "");
	if (e->ca_file) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, e->ca_file);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
	if (e->cert_file) {
		curl_easy_setopt(easy, CURLOPT_SSLCERT, e->cert_file);
		curl_easy_setopt(easy, CURLOPT_SSLKEY, e->key_file ? e->key_file : e->cert_file);
	}
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
}

CURLcode http_transfer_prepare(struct http_engine *e, struct http_req *r, CURL *easy)
{
	static const char *const quiet[] = { "Expect:", "Accept:" };
	struct curl_slist *list = NULL;
	CURLcode rc;
	size_t i;

	curl_easy_reset(easy);
	for (i = 0; i < MEM_COUNT(quiet); i++)
		list = curl_slist_append(list, quiet[i]);
	for (i = 0; i < r->n_headers; i++)
		list = curl_slist_append(list, r->headers[i]);
	r->slist = list;
	curl_easy_setopt(easy, CURLOPT_PRIVATE, r);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "culver/" PACKAGE_VERSION);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)BUFFER);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)BUFFER);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_send);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, r);
	set_network(e, r, easy);
	set_method(r, easy);
	rc = curl_easy_setopt(easy, CURLOPT_URL, r->url);
	buf_clear(&r->head);
	buf_clear(&r->body);
	r->head.max = HEAD_MAX;
	r->body.max = HTTP_BODY_MAX;
	r->iov_at = 0;
	r->iov_off = 0;
	return rc;
}

static enum http_fail classify(const struct http_req *r, CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return HTTP_ANSWERED;
	case CURLE_OPERATION_TIMEDOUT:
		return r->sent ? HTTP_SLOW : HTTP_NOT_SENT;
	case CURLE_WRITE_ERROR:
		return HTTP_STOPPED;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_PROXY:
		return HTTP_REFUSED;
	default:
		return r->sent ? HTTP_LOST : HTTP_NOT_SENT;
	}
}

void http_transfer_result(struct http_req *r, CURL *easy, CURLcode code)
{
	r->fail = classify(r, code);
	r->end_us = http_now();
	if (r->fail == HTTP_ANSWERED)
		return;
	err_set(&r->err, r->fail == HTTP_SLOW ? ERR_TIMEOUT : ERR_UNAVAILABLE, "%s", curl_easy_strerror(code));
}
