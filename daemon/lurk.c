#include "daemon/lurk.h"

#include "base/io.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LURK_MAX = 16 };

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_uint lurking;

static void close_eventfd(void *p)
{
	close((int)(intptr_t)p - 1);
}

static void make_key(void)
{
	if (pthread_key_create(&key, close_eventfd) != 0)
		abort();
}

/* This thread's own, made at first use, or -1. */
static int thread_eventfd(void)
{
	int fd;

	pthread_once(&once, make_key);
	fd = (int)(intptr_t)pthread_getspecific(key) - 1;
	if (fd < 0) {
		fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (fd >= 0 && pthread_setspecific(key, (void *)(intptr_t)(fd + 1)) != 0)
			io_close(&fd);
	}
	return fd;
}

static enum lurk_result wait_briefly(struct lurk *l, pthread_mutex_t *lock, const unsigned *events, int sock, int other, int efd, int ms)
{
	struct pollfd p[3] = { { .fd = sock, .events = POLLIN }, { .fd = efd, .events = POLLIN }, { .fd = other, .events = POLLIN } };
	uint64_t n;

	pthread_mutex_lock(lock);
	if (*events) {
		pthread_mutex_unlock(lock);
		return LURK_NOTHING;
	}
	l->fd = efd;
	pthread_mutex_unlock(lock);
	(void)poll(p, other >= 0 ? 3 : 2, ms);
	pthread_mutex_lock(lock);
	l->fd = -1;
	pthread_mutex_unlock(lock);
	/* an end that came after the poll is seen by the next one, which ends early: harmless */
	if (p[1].revents)
		(void)!read(efd, &n, sizeof(n));
	return p[0].revents ? LURK_SOCK : p[2].revents ? LURK_OTHER : LURK_NOTHING;
}

enum lurk_result lurk_wait(struct lurk *l, pthread_mutex_t *lock, const unsigned *events, int sock, int other, int ms)
{
	int efd = thread_eventfd();
	enum lurk_result came = LURK_NOTHING;

	if (efd < 0)
		return came;
	if (atomic_fetch_add(&lurking, 1) < LURK_MAX)
		came = wait_briefly(l, lock, events, sock, other, efd, ms);
	atomic_fetch_sub(&lurking, 1);
	return came;
}

void lurk_end(struct lurk *l)
{
	uint64_t one = 1;

	if (l->fd >= 0)
		(void)!write(l->fd, &one, sizeof(one));
}
