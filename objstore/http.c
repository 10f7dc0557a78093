#include "objstore/http-private.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENTS = 64, CONNECT_TIMEOUT_MS = 5000, CONNECTIONS = 64 };

int64_t http_now(void)
{
	return clock_mono_us(&clock_system);
}

bool http_on_thread(const struct http_engine *e)
{
	return pthread_equal(pthread_self(), e->thread);
}

/* --- tasks and timers --- */

void http_post(struct http_engine *e, struct http_task *t)
{
	uint64_t one = 1;
	bool first;

	t->next = NULL;
	pthread_mutex_lock(&e->lock);
	first = !e->posted;
	*e->posted_tail = t;
	e->posted_tail = &t->next;
	pthread_mutex_unlock(&e->lock);
	/* a full counter wakes the thread just as well */
	if (first && !http_on_thread(e) && write(e->evfd, &one, sizeof(one)) < 0)
		return;
}

static void run_timers(struct http_engine *e)
{
	int64_t now = http_now();

	while (e->n_heap && e->heap[0]->at_us <= now) {
		struct http_task *t = e->heap[0];

		http_timer_cancel(e, t);
		t->run(t);
	}
}

static bool run_posted(struct http_engine *e)
{
	struct http_task *t, *next;
	bool stop;

	for (;;) {
		pthread_mutex_lock(&e->lock);
		t = e->posted;
		e->posted = NULL;
		e->posted_tail = &e->posted;
		stop = e->stop;
		pthread_mutex_unlock(&e->lock);
		if (!t)
			return stop;
		for (; t; t = next) {
			next = t->next;
			t->run(t);
		}
	}
}

/* --- requests --- */

void http_req_init(struct http_req *r)
{
	memset(r, 0, sizeof(*r));
	r->fd = -1;
	r->length = -1;
}

void http_req_free(struct http_req *r)
{
	buf_free(&r->head);
	buf_free(&r->body);
}

static void forget_live(struct http_engine *e, const struct http_req *r)
{
	size_t i;

	for (i = 0; i < e->n_live && e->live[i] != r; i++)
		;
	if (i < e->n_live)
		e->live[i] = e->live[--e->n_live];
}

/* A cancel that is still in the queue of posted tasks keeps r alive: done() waits for it. */
static void finish(struct http_engine *e, struct http_req *r)
{
	bool wait;

	pthread_mutex_lock(&e->lock);
	r->finished = true;
	wait = r->cancel_posted;
	pthread_mutex_unlock(&e->lock);
	if (!wait)
		r->done(r);
}

static void release(struct http_engine *e, struct http_req *r)
{
	curl_multi_remove_handle(e->multi, r->easy);
	curl_slist_free_all(r->slist);
	r->slist = NULL;
	if (e->n_idle < HTTP_EASY_MAX)
		e->idle[e->n_idle++] = r->easy;
	else
		curl_easy_cleanup(r->easy);
	r->easy = NULL;
	r->active = false;
	forget_live(e, r);
}

static void start(struct http_engine *e, struct http_req *r)
{
	CURLMcode mrc = CURLM_OUT_OF_MEMORY;
	CURLcode rc = CURLE_OUT_OF_MEMORY;

	r->start_us = http_now();
	r->easy = e->n_idle ? e->idle[--e->n_idle] : curl_easy_init();
	if (r->easy) {
		rc = http_transfer_prepare(e, r, r->easy);
		mrc = rc == CURLE_OK ? curl_multi_add_handle(e->multi, r->easy) : CURLM_INTERNAL_ERROR;
	}
	if (mrc == CURLM_OK) {
		r->active = true;
		mem_grow(&e->live, &e->live_cap, e->n_live + 1, sizeof(struct http_req *));
		e->live[e->n_live++] = r;
		return;
	}
	curl_slist_free_all(r->slist);
	r->slist = NULL;
	curl_easy_cleanup(r->easy);
	r->easy = NULL;
	r->end_us = http_now();
	r->fail = HTTP_REFUSED;
	err_set(&r->err, ERR_INVALID, "%s: %s", r->url, rc != CURLE_OK ? curl_easy_strerror(rc) : curl_multi_strerror(mrc));
	finish(e, r);
}

static void start_task(struct http_task *t)
{
	struct http_req *r = (struct http_req *)((char *)t - offsetof(struct http_req, task));

	start(r->engine, r);
}

void http_submit(struct http_engine *e, struct http_req *r)
{
	r->engine = e;
	r->fail = HTTP_ANSWERED;
	err_clear(&r->err);
	r->status = 0;
	r->length = -1;
	r->fd = -1;
	r->sent = 0;
	r->up = r->down = 0;
	r->first_us = r->end_us = 0;
	r->finished = r->cancel_posted = r->active = false;
	r->task = (struct http_task){ .run = start_task };
	if (http_on_thread(e))
		start(e, r);
	else
		http_post(e, &r->task);
}

static void cancel_now(struct http_engine *e, struct http_req *r)
{
	if (r->finished)
		return;
	if (r->active)
		release(e, r);
	r->fail = HTTP_CANCELLED;
	r->end_us = http_now();
	err_set(&r->err, ERR_TIMEOUT, "cancelled");
	finish(e, r);
}

static void cancel_task(struct http_task *t)
{
	struct http_req *r = (struct http_req *)((char *)t - offsetof(struct http_req, cancel_task));
	bool finished;

	pthread_mutex_lock(&r->engine->lock);
	r->cancel_posted = false;
	finished = r->finished;
	pthread_mutex_unlock(&r->engine->lock);
	if (finished)
		r->done(r);
	else
		cancel_now(r->engine, r);
}

void http_cancel(struct http_engine *e, struct http_req *r)
{
	bool post;

	if (http_on_thread(e)) {
		cancel_now(e, r);
		return;
	}
	pthread_mutex_lock(&e->lock);
	post = !r->cancel_posted && !r->finished;
	r->cancel_posted |= post;
	pthread_mutex_unlock(&e->lock);
	if (post) {
		r->cancel_task = (struct http_task){ .run = cancel_task };
		http_post(e, &r->cancel_task);	/* behind the request itself, should that still be in the queue */
	}
}

/* --- events --- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *known)
{
	struct http_engine *e = ctx;
	struct epoll_event ev = { .data.fd = fd };
	struct http_req *r = NULL;

	if (what == CURL_POLL_REMOVE) {
		epoll_ctl(e->epfd, EPOLL_CTL_DEL, fd, NULL);	/* it may be closed already */
		curl_multi_assign(e->multi, fd, NULL);
		return 0;
	}
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &r);
	if (r && r->easy == easy)
		r->fd = fd;
	if (what != CURL_POLL_OUT)
		ev.events |= EPOLLIN;
	if (what != CURL_POLL_IN)
		ev.events |= EPOLLOUT;
	if (epoll_ctl(e->epfd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) < 0)
		epoll_ctl(e->epfd, known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &ev);
	curl_multi_assign(e->multi, fd, e);
	return 0;
}

static int on_timer(CURLM *multi, long ms, void *ctx)
{
	struct http_engine *e = ctx;

	e->curl_due = ms < 0 ? -1 : http_now() + ms * 1000;
	return 0;
}

static void reap(struct http_engine *e)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(e->multi, &left)) != NULL) {
		struct http_req *r = NULL;
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &r);
		http_transfer_result(r, m->easy_handle, code);
		release(e, r);
		finish(e, r);
	}
}

/* Starts what libcurl wants started now; new requests are sent from here. */
static void run_curl_timer(struct http_engine *e)
{
	int running;

	while (e->curl_due >= 0 && e->curl_due <= http_now()) {
		e->curl_due = -1;
		curl_multi_socket_action(e->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		reap(e);
	}
}

static int wait_ms(const struct http_engine *e)
{
	int64_t due = e->curl_due, us;

	if (e->n_heap && (due < 0 || e->heap[0]->at_us < due))
		due = e->heap[0]->at_us;
	if (due < 0)
		return -1;
	us = due - http_now();
	if (us <= 0)
		return 0;
	return us > 3600 * INT64_C(1000000) ? 3600000 : (int)((us + 999) / 1000);
}

static void run_events(struct http_engine *e, bool busy)
{
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(e->epfd, ev, EVENTS, busy ? 0 : wait_ms(e)), i, running;
	uint64_t count;

	for (i = 0; i < n; i++) {
		int mask = 0;

		if (ev[i].data.fd == e->evfd) {
			if (read(e->evfd, &count, sizeof(count)) < 0)
				continue;
			continue;
		}
		if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			mask |= CURL_CSELECT_IN;
		if (ev[i].events & EPOLLOUT)
			mask |= CURL_CSELECT_OUT;
		if (ev[i].events & EPOLLERR)
			mask |= CURL_CSELECT_ERR;
		curl_multi_socket_action(e->multi, ev[i].data.fd, mask, &running);
	}
	reap(e);
}

static void *event_thread(void *arg)
{
	struct http_engine *e = arg;
	bool stop = false, busy;

	/* e->thread is set before anything can be posted: the creator holds the lock meanwhile */
	pthread_mutex_lock(&e->lock);
	pthread_mutex_unlock(&e->lock);
	while (!stop) {
		stop = run_posted(e);
		run_timers(e);
		run_curl_timer(e);
		pthread_mutex_lock(&e->lock);
		stop |= e->stop;
		busy = e->posted != NULL;	/* posted from this thread, which wakes nobody */
		pthread_mutex_unlock(&e->lock);
		if (!stop)
			run_events(e, busy);
	}
	while (e->n_live)
		cancel_now(e, e->live[0]);
	run_posted(e);
	return NULL;
}

/* --- life --- */

static void global_init(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static char *some(const char *s)
{
	return s && *s ? mem_strdup(s) : NULL;
}

static void engine_release(struct http_engine *e)
{
	size_t i;

	for (i = 0; i < e->n_idle; i++)
		curl_easy_cleanup(e->idle[i]);
	if (e->multi)
		curl_multi_cleanup(e->multi);
	io_close(&e->epfd);
	io_close(&e->evfd);
	pthread_mutex_destroy(&e->lock);
	free(e->heap);
	free(e->live);
	free(e->ca_file);
	free(e->cert_file);
	free(e->key_file);
	free(e->proxy);
	free(e);
}

static int engine_start(struct http_engine *e, unsigned connections, struct err *err)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int rc;

	e->multi = curl_multi_init();
	e->epfd = epoll_create1(EPOLL_CLOEXEC);
	e->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ev.data.fd = e->evfd;
	if (!e->multi || e->epfd < 0 || e->evfd < 0 || epoll_ctl(e->epfd, EPOLL_CTL_ADD, e->evfd, &ev) < 0)
		return err_errno(err, "http engine", NULL);
	curl_multi_setopt(e->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(e->multi, CURLMOPT_SOCKETDATA, e);
	curl_multi_setopt(e->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(e->multi, CURLMOPT_TIMERDATA, e);
	curl_multi_setopt(e->multi, CURLMOPT_MAXCONNECTS, (long)connections);
	curl_multi_setopt(e->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	pthread_mutex_lock(&e->lock);
	rc = pthread_create(&e->thread, NULL, event_thread, e);
	pthread_mutex_unlock(&e->lock);
	return rc ? err_set(err, ERR_LIMIT, "http engine: no thread to be had") : 0;
}

int http_engine_new(const struct http_config *cfg, struct http_engine **e_r, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct http_engine *e = MEM_NEW(struct http_engine);
	int rc;

	pthread_once(&once, global_init);
	pthread_mutex_init(&e->lock, NULL);
	e->posted_tail = &e->posted;
	e->epfd = e->evfd = -1;
	e->curl_due = -1;
	e->ca_file = some(cfg->ca_file);
	e->cert_file = some(cfg->cert_file);
	e->key_file = some(cfg->key_file);
	e->proxy = some(cfg->proxy);
	e->connect_timeout_ms = cfg->connect_timeout_ms ? cfg->connect_timeout_ms : CONNECT_TIMEOUT_MS;
	rc = engine_start(e, cfg->connections ? cfg->connections : CONNECTIONS, err);
	if (rc < 0)
		engine_release(e);
	*e_r = rc < 0 ? NULL : e;
	return rc;
}

void http_engine_free(struct http_engine **ep)
{
	struct http_engine *e = *ep;
	uint64_t one = 1;

	*ep = NULL;
	if (!e)
		return;
	pthread_mutex_lock(&e->lock);
	e->stop = true;
	pthread_mutex_unlock(&e->lock);
	while (write(e->evfd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(e->thread, NULL);
	engine_release(e);
}
