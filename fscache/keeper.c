/* The cache's own thread: writes what was fetched, answers waits whose time
 * is over, brings changes to the catalogue now and then, and looks after a
 * disk that failed. */
#include "fscache/fscache-private.h"

#include "base/log.h"
#include "base/mem.h"

enum { SECOND = 1000000 };

void fsc_disk_failed(struct fscache *fc, int code, bool stop, const struct err *err)
{
	int64_t now = fsc_now_us(fc);

	atomic_store(&fc->failed_at, now);
	if (stop)
		atomic_store(&fc->no_write_until, now + (int64_t)fc->retry_s * SECOND);
	if (atomic_exchange(&fc->degraded, true))
		return;
	if (code == ERR_LIMIT)
		log_event(LOG_WARN, "cache: the disk is full; mail is served, but kept only as far as there is room: free space or set a smaller cache",
			  LF_S("dir", fc->dir), LF_ERR(err), LF_END);
	else if (code == ERR_BUSY)
		log_event(LOG_WARN, "cache: another process holds the directory; mail is served without it until that one ends", LF_S("dir", fc->dir),
			  LF_ERR(err), LF_END);
	else
		log_event(LOG_WARN, "cache: the disk cannot be used; mail is served from the object store without being kept: check the disk and the "
			  "directory's rights", LF_S("dir", fc->dir), LF_ERR(err), LF_END);
}

static void recover(struct fscache *fc)
{
	int64_t quiet = fsc_now_us(fc) - atomic_load(&fc->failed_at);

	if (!atomic_load(&fc->degraded) || quiet < 2 * (int64_t)fc->retry_s * SECOND)
		return;
	atomic_store(&fc->degraded, false);
	log_event(LOG_INF, "cache: no more trouble with the disk", LF_S("dir", fc->dir), LF_END);
}

/* Opens the disk when it is not, else brings the catalogue up to date. */
static void tend(struct fscache *fc)
{
	struct err err = ERR_INIT;
	int rc = 0;

	pthread_mutex_lock(&fc->disk_lock);
	if (fc->lock_fd < 0)
		rc = fsc_catalogue_open(fc, &err);
	else if (fsc_now_us(fc) >= fc->no_write_until)
		rc = fsc_catalogue_flush(fc, false, &err);
	pthread_mutex_unlock(&fc->disk_lock);
	if (rc < 0)
		fsc_disk_failed(fc, rc, false, &err);
	recover(fc);
}

static void sleep_until(struct fscache *fc, int64_t us)
{
	struct timespec ts;
	int64_t left = us - fsc_now_us(fc);

	if (left <= 0)
		return;
	if (left > 3600 * (int64_t)SECOND)
		left = 3600 * (int64_t)SECOND;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	left += ts.tv_nsec / 1000;
	ts.tv_sec += left / SECOND;
	ts.tv_nsec = left % SECOND * 1000;
	pthread_cond_timedwait(&fc->keep_cond, &fc->keep_lock, &ts);
}

static void store_next(struct fscache *fc)
{
	struct fsc_flight *f = fc->queue;
	size_t len = f->data.len;

	fc->queue = f->queued;
	if (!fc->queue)
		fc->queue_tail = &fc->queue;
	fc->storing = true;
	pthread_mutex_unlock(&fc->keep_lock);
	fsc_flight_store(f);
	pthread_mutex_lock(&fc->keep_lock);
	fc->storing = false;
	fc->backlog -= len;
	if (!fc->queue)
		pthread_cond_broadcast(&fc->keep_idle);
}

static void *keeper(void *arg)
{
	struct fscache *fc = arg;
	unsigned every = fc->flush_s < fc->retry_s ? fc->flush_s : fc->retry_s;
	int64_t next = fsc_now_us(fc) + (int64_t)every * SECOND, now, wake;

	pthread_mutex_lock(&fc->keep_lock);
	for (;;) {
		now = fsc_now_us(fc);
		if (atomic_load(&fc->deadline) <= now || now >= next) {
			pthread_mutex_unlock(&fc->keep_lock);
			if (atomic_load(&fc->deadline) <= now)
				fsc_flight_expire(fc, now);
			if (now >= next) {
				tend(fc);
				next = fsc_now_us(fc) + (int64_t)every * SECOND;
			}
			pthread_mutex_lock(&fc->keep_lock);
		} else if (fc->queue) {
			store_next(fc);
		} else if (fc->stop) {
			break;
		} else {
			wake = atomic_load(&fc->deadline);
			sleep_until(fc, wake < next ? wake : next);
		}
	}
	pthread_mutex_unlock(&fc->keep_lock);
	return NULL;
}

int fsc_keeper_start(struct fscache *fc)
{
	pthread_condattr_t a;

	pthread_mutex_init(&fc->keep_lock, NULL);
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&fc->keep_cond, &a);
	pthread_condattr_destroy(&a);
	pthread_cond_init(&fc->keep_idle, NULL);
	fc->queue_tail = &fc->queue;
	return pthread_create(&fc->keeper, NULL, keeper, fc) == 0 ? 0 : ERR_LIMIT;
}

void fsc_keeper_stop(struct fscache *fc)
{
	pthread_mutex_lock(&fc->keep_lock);
	fc->stop = true;
	pthread_cond_signal(&fc->keep_cond);
	pthread_mutex_unlock(&fc->keep_lock);
	pthread_join(fc->keeper, NULL);
	pthread_cond_destroy(&fc->keep_cond);
	pthread_cond_destroy(&fc->keep_idle);
	pthread_mutex_destroy(&fc->keep_lock);
}

void fsc_keeper_store(struct fscache *fc, struct fsc_flight *f)
{
	bool queued = false;

	pthread_mutex_lock(&fc->keep_lock);
	if (fc->backlog + f->data.len <= FSC_BACKLOG) {
		fc->backlog += f->data.len;
		f->queued = NULL;
		*fc->queue_tail = f;
		fc->queue_tail = &f->queued;
		pthread_cond_signal(&fc->keep_cond);
		queued = true;
	}
	pthread_mutex_unlock(&fc->keep_lock);
	if (!queued)
		fsc_flight_store(f);	/* whoever reads faster than the disk writes helps */
}

void fsc_keeper_deadline(struct fscache *fc, int64_t us)
{
	int64_t old = atomic_load(&fc->deadline);

	while (us < old && !atomic_compare_exchange_weak(&fc->deadline, &old, us))
		;
	if (us >= old)
		return;
	pthread_mutex_lock(&fc->keep_lock);
	pthread_cond_signal(&fc->keep_cond);
	pthread_mutex_unlock(&fc->keep_lock);
}

void fsc_keeper_drain(struct fscache *fc)
{
	pthread_mutex_lock(&fc->keep_lock);
	while (fc->queue || fc->storing)
		pthread_cond_wait(&fc->keep_idle, &fc->keep_lock);
	pthread_mutex_unlock(&fc->keep_lock);
}
