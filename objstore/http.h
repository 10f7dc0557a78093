/* http - HTTP/1.1 requests by one event thread over libcurl's multi interface.
 *
 * Knows nothing of object stores: a driver builds requests and reads answers.
 * The event thread also runs a driver's own small tasks and timers, so that a
 * driver's state needs no locks: all callbacks come on that thread, one at a
 * time, and must not block.
 *
 * Connections are kept and used again; a request may demand a new one.
 * Redirects are not followed, proxies of the environment are not used.
 * Small answers on a kept connection wait 40 ms for a delayed ACK when the
 * server has Nagle's algorithm on (radosgw's default): the engine acknowledges
 * at once when a head came without its whole body.
 *
 * Threads: http_submit, http_cancel, http_post from any thread; the rest says
 * so where it is not. */
#ifndef OBJSTORE_HTTP_H
#define OBJSTORE_HTTP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/err.h"

struct http_engine;

struct http_config {
	const char *ca_file;		/* PEM; NULL or "" = the system's */
	const char *cert_file, *key_file;	/* client certificate, PEM; NULL or "" = none */
	const char *proxy;		/* URL of a proxy (http, https, socks5h...); NULL or "" = none */
	unsigned connections;		/* idle ones kept at most; 0 = 64 */
	unsigned connect_timeout_ms;	/* 0 = 5000 */
};

/* Something to be done on the event thread.  The memory is the caller's and
 * must last until run() was called or the timer was cancelled. */
struct http_task {
	void (*run)(struct http_task *t);
	/* the engine's */
	struct http_task *next;
	int64_t at_us;
	size_t slot;		/* in the timer heap + 1; 0 = not set */
};

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_PUT, HTTP_POST, HTTP_DELETE };
enum http_fail {
	HTTP_ANSWERED,		/* there is a status, head and body are whole */
	HTTP_NOT_SENT,		/* no connection: the server has not seen the request */
	HTTP_REFUSED,		/* like it, and will not change by itself: certificate, URL, proxy's no */
	HTTP_LOST,		/* it may have been carried out: reset, or the answer is cut short */
	HTTP_SLOW,		/* the same: deadline */
	HTTP_CANCELLED,		/* the same: http_cancel, or the engine stops */
	HTTP_STOPPED		/* on_body did not want more */
};

struct http_req {
	/* set by the caller; all borrowed until done() */
	enum http_method method;
	const char *url;
	const char *const *headers;	/* "Name: value"; "Name;" for an empty value */
	size_t n_headers;
	const struct iovec *iov;	/* PUT, POST: the body */
	int n_iov;
	/* The body of a 2xx answer; <0 stops the transfer.  NULL: it is collected in body. */
	int (*on_body)(struct http_req *r, const void *data, size_t len);
	int64_t deadline_us;		/* monotonic; 0 = none */
	unsigned stall_s;		/* ended when nothing moves for so long; 0 = 20 */
	bool fresh;			/* over a new connection, names resolved again */
	bool once;			/* never sent a second time by libcurl, which does so when a kept connection turns out dead */
	bool direct;			/* not through the proxy */
	unsigned max_idle_s;		/* a kept connection idle for longer is not used; 0 = libcurl's own limit */
	void (*done)(struct http_req *r);	/* exactly once, on the event thread */
	void *ctx;
	/* filled in */
	enum http_fail fail;
	struct err err;			/* when fail is not HTTP_ANSWERED */
	int status;			/* once the head is there, else 0 */
	struct buf body;		/* whole answer but a 2xx that went to on_body; its owner is the caller: http_req_free */
	int64_t length;			/* Content-Length, -1 = not told */
	unsigned sent;			/* times the request went onto a wire */
	uint64_t up, down;		/* octets of bodies */
	int64_t start_us, first_us, end_us;	/* monotonic; first_us: head complete, or 0 */
	/* the engine's */
	struct buf head;
	struct http_task task, cancel_task;
	void *easy, *slist;
	int fd, iov_at;
	size_t iov_off;
	bool active, cancel_posted, finished;
	struct http_engine *engine;
};
enum { HTTP_BODY_MAX = 16 << 20 };	/* of http_req.body */

int http_engine_new(const struct http_config *cfg, struct http_engine **e_r, struct err *err);
/* Cancels what is under way (done() comes), runs what was posted, ends the thread.  Not from the event thread. */
void http_engine_free(struct http_engine **e);

void http_req_init(struct http_req *r);
void http_req_free(struct http_req *r);		/* what was collected; not while under way */
void http_submit(struct http_engine *e, struct http_req *r);
/* done() comes soon, with HTTP_CANCELLED unless it was under way already.  On
 * the event thread it comes before this returns.  r must not be done yet. */
void http_cancel(struct http_engine *e, struct http_req *r);
/* A field of the answer's head by its name in lower case; NULL = absent; borrowed. */
const char *http_header(const struct http_req *r, const char *name);

void http_post(struct http_engine *e, struct http_task *t);
/* Event thread only.  Sets or moves a timer; cancelling one not set is fine. */
void http_timer(struct http_engine *e, struct http_task *t, int64_t at_us);
void http_timer_cancel(struct http_engine *e, struct http_task *t);
bool http_on_thread(const struct http_engine *e);
int64_t http_now(void);		/* monotonic microseconds */
#endif
