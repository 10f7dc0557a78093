/* Takes deliveries from another node: an engine whose requests run on the
 * delivery pool and are answered when every target is durable or failed. */
#include "daemon/deliver.h"
#include "daemon/session.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum {
	REQUEST_MAX = CHAN_MSG_MAX + 1024,
	RUNNING_MAX = 64,		/* requests of one link at a time; the rest waits in the socket */
	FILE_SLACK = 64 << 20		/* what a packed message may have beyond the largest message */
};

struct serve {
	struct worker *w;
	/* the session's */
	bool bye, bad;
	size_t left;			/* of the message being read */
	unsigned type;
	uint32_t id;			/* of the request being read */
	struct buf head;
	int fd;				/* its file */
	uint64_t file_len, file_at;
	/* shared with the deliveries */
	pthread_mutex_t lock;
	struct conn *c;			/* NULL: gone */
	unsigned running;
	struct buf done;		/* answers */
};
struct serve_call {
	struct pool_task task;
	struct serve *s;
	uint32_t id;
	bool here;			/* it can be run */
	struct deliver_in in;
};

static void serve_release(struct serve *s)
{
	buf_free(&s->head);
	buf_free(&s->done);
	io_close(&s->fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* --- running --- */

static void call_run(struct pool_task *t)
{
	struct serve_call *k = (struct serve_call *)t;
	struct serve *s = k->s;
	struct buf result = BUF_INIT(CHAN_MSG_MAX);
	bool last;

	if (k->here)	/* otherwise every place is still DELIVER_HERE: ask again */
		deliver_in_run(s->w, &k->in);
	deliver_results_put(&result, &k->in);
	pthread_mutex_lock(&s->lock);
	node_message_head(&s->done, NODE_RESULT, k->id, result.len);
	buf_add(&s->done, result.data, result.len);
	s->running--;
	last = !s->c && !s->running;
	if (s->c)
		conn_wake(s->c);
	pthread_mutex_unlock(&s->lock);
	if (last)
		serve_release(s);
	buf_free(&result);
	deliver_in_free(&k->in);
	free(k);
}

/* The request is all there. */
static void start_call(struct serve *s)
{
	struct serve_call *k = MEM_NEW(struct serve_call);
	struct rd r = rd_init(s->head.data, s->head.len);
	const char *version;
	unsigned form;
	size_t len;

	(void)rd_64(&r);
	form = rd_8(&r);
	version = msg_get_str(&r);
	len = rd_left(&r);
	k->task.run = call_run;
	k->s = s;
	k->id = s->id;
	/* A packed message of another version: the sender asks for our version again and sends it raw. */
	k->here = !s->w->stopping && (form == DELIVER_RAW || (form == DELIVER_PACKED && !strcmp(version, PACKAGE_VERSION)));
	s->bad |= r.failed || deliver_in_parse(&k->in, mem_dup(r.p, len), len, form == DELIVER_RAW, s->fd) < 0;
	if (!r.failed)
		s->fd = -1;
	s->file_len = s->file_at = 0;
	buf_free(&s->head);
	if (s->bad) {
		deliver_in_free(&k->in);
		free(k);
		return;
	}
	pthread_mutex_lock(&s->lock);
	s->running++;
	pthread_mutex_unlock(&s->lock);
	pool_add(s->w->deliveries, &k->task);
}

/* --- reading --- */

static void open_file(struct serve *s)
{
	struct rd r = rd_init(s->head.data, s->head.len);

	s->file_len = rd_64(&r);
	s->file_at = 0;
	if (r.failed || s->file_len > 2 * s->w->env.max_message + FILE_SLACK) {
		s->bad = true;
	} else if (!s->file_len) {
		start_call(s);
	} else {
		s->fd = open(s->w->p.conf.state_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (s->fd < 0)
			log_event(LOG_ERROR, "a message from another node cannot be spooled", LF_S("why", strerror(errno)), LF_END);
		s->bad |= s->fd < 0;
	}
}

static void take_piece(struct serve *s, const void *data, size_t len)
{
	struct err err = ERR_INIT;

	if (io_pwrite_full(s->fd, data, len, (off_t)s->file_at, &err) < 0) {
		log_event(LOG_ERROR, "a message from another node cannot be spooled", LF_ERR(&err), LF_END);
		s->bad = true;
	}
	s->file_at += len;
}

static void begin_message(struct serve *s, struct buf *in)
{
	struct rd r = rd_init(in->data, NODE_MESSAGE_HEAD);
	uint32_t id;

	s->type = rd_8(&r);
	id = rd_32(&r);
	s->left = rd_32(&r);
	buf_consume(in, NODE_MESSAGE_HEAD);
	if (s->type == NODE_REQUEST)
		s->bad |= s->fd >= 0 || !s->left || s->left > REQUEST_MAX;
	else
		s->bad |= s->type != NODE_PIECE || s->fd < 0 || id != s->id || !s->left || s->left > s->file_len - s->file_at;
	s->id = id;
}

/* One step of what is in in; false: there is no more, or it makes no sense. */
static bool take(struct serve *s, struct buf *in)
{
	size_t n = in->len < s->left ? in->len : s->left;

	if (!s->left) {
		if (in->len < NODE_MESSAGE_HEAD)
			return false;
		begin_message(s, in);
		return !s->bad;
	}
	if (s->type == NODE_REQUEST)
		buf_add(&s->head, in->data, n);
	else
		take_piece(s, in->data, n);
	buf_consume(in, n);
	s->left -= n;
	if (!s->left && s->type == NODE_REQUEST)
		open_file(s);
	else if (!s->left && s->file_at == s->file_len)
		start_call(s);
	return in->len && !s->bad;
}

/* --- the engine --- */

static struct serve *serve_new(struct conn *c)
{
	struct serve *s = MEM_NEW(struct serve);

	s->w = c->env->worker;
	s->fd = -1;
	s->c = c;
	buf_init(&s->head, REQUEST_MAX);
	pthread_mutex_init(&s->lock, NULL);
	c->session = s;
	return s;
}

/* Moves answers to the output; how many requests still run. */
static unsigned take_answers(struct serve *s, struct conn *c)
{
	unsigned running;

	pthread_mutex_lock(&s->lock);
	running = s->running;
	buf_add(&c->out, s->done.data, s->done.len);
	buf_free(&s->done);
	pthread_mutex_unlock(&s->lock);
	return running;
}

static enum conn_want serve_run(struct conn *c, unsigned events)
{
	struct serve *s = c->session ? c->session : serve_new(c);
	unsigned running = take_answers(s, c);

	if (events & CONN_EV_STOP && !s->bye) {
		s->bye = true;
		node_message_head(&c->out, NODE_BYE, 0, 0);
	}
	while (running < RUNNING_MAX && take(s, &c->in))
		running = take_answers(s, c);
	running = take_answers(s, c);
	if (s->bad) {
		log_event(LOG_ERROR, "another node's request makes no sense", LF_S("node", c->from_node), LF_S("peer", c->peer), LF_END);
		return CONN_CLOSE;
	}
	if (events & CONN_EV_EOF)
		s->bye = true;
	if (s->bye && !running)
		return CONN_CLOSE;
	return s->bye || running >= RUNNING_MAX ? CONN_WANT_WAKE : CONN_WANT_INPUT;
}

static void serve_free(struct conn *c)
{
	struct serve *s = c->session;
	bool last;

	if (!s)
		return;
	c->session = NULL;
	pthread_mutex_lock(&s->lock);
	s->c = NULL;
	last = !s->running;
	pthread_mutex_unlock(&s->lock);
	if (last)
		serve_release(s);
}

const struct conn_ops node_serve_ops = { "node", serve_run, serve_free };
