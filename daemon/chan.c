#include "daemon/chan.h"

#include "base/err.h"
#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

struct chan_item {
	struct chan_item *next;
	int fd;
	size_t len;
	unsigned char data[];
};

static void drop_queue(struct chan *ch)
{
	struct chan_item *it;

	while ((it = ch->head)) {
		ch->head = it->next;
		io_close(&it->fd);
		free(it);
	}
	ch->tail = &ch->head;
	ch->queued = 0;
}

/* With the lock.  1 sent, 0 would block, -1 gone. */
static int send_now(struct chan *ch, const void *data, size_t len, int fd)
{
	struct err err = ERR_INIT;
	int rc = io_send_fds(ch->src.fd, data, len, &fd, fd >= 0 ? 1 : 0, &err);

	if (rc == 0)
		return 1;
	return rc == ERR_BUSY || err.sys == ENOBUFS ? 0 : -1;
}

static void flush(struct chan *ch)
{
	pthread_mutex_lock(&ch->lock);
	while (ch->head) {
		struct chan_item *it = ch->head;
		int rc = send_now(ch, it->data, it->len, it->fd);

		if (rc == 0)
			break;
		if (rc < 0) {
			ch->dead = true;
			drop_queue(ch);
			break;
		}
		ch->head = it->next;
		if (!ch->head)
			ch->tail = &ch->head;
		ch->queued--;
		io_close(&it->fd);
		free(it);
	}
	if (!ch->head)
		loop_mod(ch->loop, &ch->src, EPOLLIN);
	pthread_mutex_unlock(&ch->lock);
}

static void ready(struct loop_src *src, uint32_t events)
{
	static __thread unsigned char room[CHAN_MSG_MAX];
	struct chan *ch = src->owner;
	struct err err = ERR_INIT;
	int fds[1], rc = 1, budget = 64;

	if (events & EPOLLOUT)
		flush(ch);
	while (src->fd >= 0 && budget--) {
		size_t len, n = 1;
		struct rd r;

		rc = io_recv_fds(src->fd, room, sizeof(room), &len, fds, &n, &err);
		if (rc != 1)
			break;
		r = rd_init(room, len);
		ch->ops->message(ch, &r, n ? fds[0] : -1);
	}
	if (src->fd >= 0 && rc != 1 && rc != ERR_BUSY)
		ch->ops->closed(ch);
}

struct chan *chan_new(struct loop *l, int fd, const struct chan_ops *ops, void *owner, unsigned peer)
{
	struct chan *ch = MEM_NEW(struct chan);

	ch->loop = l;
	ch->ops = ops;
	ch->owner = owner;
	ch->peer = peer;
	ch->tail = &ch->head;
	ch->src.ready = ready;
	ch->src.owner = ch;
	pthread_mutex_init(&ch->lock, NULL);
	if (io_set_nonblock(fd, true) < 0 || loop_add(l, &ch->src, fd, EPOLLIN) < 0) {
		int e = errno;

		close(fd);
		free(ch);
		errno = e;
		return NULL;
	}
	return ch;
}

void chan_free(struct chan **pch)
{
	struct chan *ch = *pch;
	int fd;

	if (!ch)
		return;
	*pch = NULL;
	pthread_mutex_lock(&ch->lock);
	fd = ch->src.fd;
	loop_del(ch->loop, &ch->src);
	io_close(&fd);
	drop_queue(ch);
	ch->dead = true;
	pthread_mutex_unlock(&ch->lock);
	pthread_mutex_destroy(&ch->lock);
	loop_free_later(ch->loop, ch);
}

int chan_send(struct chan *ch, const struct buf *msg, int fd)
{
	struct chan_item *it;
	int rc = 0;

	pthread_mutex_lock(&ch->lock);
	if (ch->dead || ch->src.fd < 0 || msg->failed || msg->len > CHAN_MSG_MAX) {
		rc = -1;
	} else if (!ch->head) {
		rc = send_now(ch, msg->data, msg->len, fd);
		if (rc < 0)
			ch->dead = true;
	}
	if (rc == 0) {
		it = mem_alloc(sizeof(*it) + msg->len);
		memcpy(it->data, msg->data, msg->len);
		it->len = msg->len;
		it->fd = fd;
		fd = -1;
		*ch->tail = it;
		ch->tail = &it->next;
		ch->queued++;
		loop_mod(ch->loop, &ch->src, EPOLLIN | EPOLLOUT);
	}
	pthread_mutex_unlock(&ch->lock);
	io_close(&fd);
	return rc < 0 ? -1 : 0;
}
