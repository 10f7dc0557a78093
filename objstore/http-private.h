/* http-private - what http.c (threads, tasks, events) and http-transfer.c
 * (libcurl's view of one request) share. */
#ifndef OBJSTORE_HTTP_PRIVATE_H
#define OBJSTORE_HTTP_PRIVATE_H
#include "objstore/http.h"

#include <curl/curl.h>
#include <pthread.h>

enum { HTTP_EASY_MAX = 128 };	/* idle handles kept */

struct http_engine {
	pthread_t thread;
	pthread_mutex_t lock;
	struct http_task *posted, **posted_tail;	/* under lock */
	bool stop;			/* under lock */
	int epfd, evfd;
	CURLM *multi;
	int64_t curl_due;		/* libcurl's own timer; -1 = none */
	struct http_task **heap;
	size_t n_heap, heap_cap;
	CURL *idle[HTTP_EASY_MAX];
	size_t n_idle;
	struct http_req **live;		/* for the end */
	size_t n_live, live_cap;
	char *ca_file, *cert_file, *key_file, *proxy;
	unsigned connect_timeout_ms;
};

/* Event thread only. */
CURLcode http_transfer_prepare(struct http_engine *e, struct http_req *r, CURL *easy);
void http_transfer_result(struct http_req *r, CURL *easy, CURLcode code);
#endif
