/* The local journal: an append-only file of sealed frames, group-committed.
 *
 * File <dir>/<number>.j
 *      0   4  magic "CULJ"
 *      4   1  version 1
 *      5   3  zero
 *      8  16  file id, random
 *     24   -  frames, then zeros (the file is allocated ahead)
 * Frame
 *      0   4  magic "CJF1"
 *      4   4  length S of the sealed part
 *      8   4  length O of the message objects behind it
 *     12   4  zero
 *     16   S  sealed bundle; associated data "journal/<file id>/<frame number>":
 *             varint entries; for each: user, epoch, lsn, record, key, object length;
 *             then 16 bytes BLAKE2b of the objects
 *   16+S   O  message objects as they go into the store (sealed themselves)
 *
 * Invariants
 *  (1) Frames are written in the order of journal_append().
 *  (2) Room is allocated before an entry is taken, so a full disk refuses the
 *      change and never half a frame.
 *  (3) One thread at a time writes: the first that waits takes everything
 *      queued, writes it as one frame and syncs; the others sleep meanwhile
 *      and the next of them takes what came in the meantime.  So an idle journal
 *      commits at once and a busy one commits in groups, without a timer.
 *  (4) An error of write or sync is final: what the file holds is then not
 *      known, so nothing more is acknowledged until a restart replays it. */
#include "obox/journal-private.h"

#include "base/b64.h"
#include "base/io.h"
#include "base/log.h"
#include "base/wake.h"

#include <errno.h>
#include <unistd.h>

enum { FRAME_SLACK = 512, ENTRY_SLACK = 400 };

/* A thread that waits for the disk, each on a word of its own: a commit wakes
 * those it is done for and the next to lead, and nobody else. */
struct journal_waiter {
	struct journal_waiter *next;
	uint64_t ticket;
	struct wake wake;
};

static const struct journal_ops file_ops;

static struct file_journal *file_of(struct journal *base)
{
	return (struct file_journal *)base;
}

int journal_open(const char *dir, const struct seal_keys *keys, struct journal **j_r, struct err *err)
{
	struct file_journal *j;
	uint64_t *list = NULL;
	size_t n;
	int rc = io_mkdirs(dir, 0700, err);

	*j_r = NULL;
	if (rc < 0)
		return rc;
	j = MEM_NEW(struct file_journal);
	j->base.ops = &file_ops;
	j->dir = mem_strdup(dir);
	j->keys = keys;
	j->fd = -1;
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->cond, NULL);
	j->waiters_end = &j->waiters;
	n = journal_list_files(dir, &list);
	rc = journal_start_file(j, n ? list[n - 1] + 1 : 1, err);
	free(list);
	*j_r = &j->base;
	if (rc < 0)
		journal_close(j_r);
	return rc;
}

static void queue_free(struct queue *q)
{
	buf_free(&q->meta);
	free(q->objects);
}

static void file_close(struct journal *base)
{
	struct file_journal *j = file_of(base);

	queue_free(&j->q);
	queue_free(&j->spare);
	io_close(&j->fd);
	pthread_cond_destroy(&j->cond);
	pthread_mutex_destroy(&j->lock);
	free(j->dir);
	free(j);
}

/* --- writing --- */

void journal_frame_aad(const unsigned char id[16], uint64_t frame, char out[96])
{
	char hex[33];

	hex_encode(hex, id, 16);
	snprintf(out, 96, "journal/%s/%llu", hex, (unsigned long long)frame);
}

void journal_hash_objects(const struct iovec *iov, size_t n, unsigned char h[16])
{
	crypto_generichash_state st;
	size_t i;

	crypto_generichash_init(&st, NULL, 0, 16);
	for (i = 0; i < n; i++)
		crypto_generichash_update(&st, iov[i].iov_base, iov[i].iov_len);
	crypto_generichash_final(&st, h, 16);
}

static void head32(unsigned char *p, uint32_t v)
{
	int i;

	for (i = 0; i < 4; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

/* Writes q as one frame; not under the lock, but only by the busy one. */
static int write_frame(struct file_journal *j, struct queue *q, uint64_t off, uint64_t frame, uint64_t *len_r, struct err *err)
{
	struct buf plain = BUF_INIT(0), sealed = BUF_INIT(0);
	unsigned char head[JOURNAL_FRAME_HEAD] = "CJF1", h[16];
	struct iovec *iov;
	char aad[96];
	int rc;

	buf_putv(&plain, q->n);
	buf_add(&plain, q->meta.data, q->meta.len);
	journal_hash_objects(q->objects, q->n_objects, h);
	buf_add(&plain, h, sizeof(h));
	journal_frame_aad(j->file_id, frame, aad);
	rc = seal_bundle(j->keys, aad, plain.data, plain.len, &sealed, err);
	if (rc == 0) {
		head32(head + 4, (uint32_t)sealed.len);
		head32(head + 8, (uint32_t)q->object_bytes);
		iov = mem_calloc(q->n_objects + 2, sizeof(*iov));
		iov[0] = (struct iovec){ head, sizeof(head) };
		iov[1] = (struct iovec){ sealed.data, sealed.len };
		if (q->n_objects)
			memcpy(iov + 2, q->objects, q->n_objects * sizeof(*iov));
		if (lseek(j->fd, (off_t)off, SEEK_SET) < 0)
			rc = err_errno(err, "journal: seek", j->dir);
		else
			rc = io_writev_full(j->fd, iov, (int)(q->n_objects + 2), err);
		free(iov);
		*len_r = sizeof(head) + sealed.len + q->object_bytes;
	}
	buf_free(&plain);
	buf_free(&sealed);
	return rc;
}

static void fail(struct file_journal *j, const struct err *e)
{
	j->failed = true;
	j->cause = *e;
	log_event(LOG_ERROR, "journal cannot be written: nothing more is acknowledged; mend the disk and restart", LF_S("dir", j->dir), LF_ERR(e), LF_END);
}

/* Off the list: those that are done, and the first that is not, who leads next. */
static struct journal_waiter *take_waiters(struct file_journal *j)
{
	struct journal_waiter *woken = NULL, **at = &j->waiters, *w;
	bool leader = false;

	while ((w = *at) != NULL) {
		bool done = j->failed || w->ticket <= j->durable;

		if (!done && leader) {
			at = &w->next;
			continue;
		}
		leader = leader || !done;
		*at = w->next;
		w->next = woken;
		woken = w;
	}
	j->waiters_end = at;
	return woken;
}

/* Without j's lock, which they would have to wait for. */
static void wake_all(struct journal_waiter *w)
{
	struct journal_waiter *next;

	for (; w; w = next) {
		next = w->next;	/* w is gone once it knows */
		wake_up(&w->wake);
	}
}

/* Until a leader is done; the lock is released meanwhile. */
static void wait_turn(struct file_journal *j, uint64_t ticket)
{
	struct journal_waiter w = { .ticket = ticket };

	wake_init(&w.wake);
	*j->waiters_end = &w;
	j->waiters_end = &w.next;
	pthread_mutex_unlock(&j->lock);
	wake_wait(&w.wake, -1);
	pthread_mutex_lock(&j->lock);
}

static void lead_done(struct file_journal *j, int rc, uint64_t len, bool frame, uint64_t upto, bool sync, const struct err *e)
{
	j->inflight = 0;
	if (rc < 0) {
		fail(j, e);
		return;
	}
	j->off += len;
	if (j->off > j->zeroed)
		j->zeroed = j->off;
	j->frame_no += frame;
	j->written = upto;
	if (sync)
		j->durable = upto;
}

/* Takes the queue and writes it; under the lock, which is released meanwhile. */
static void lead(struct file_journal *j, bool sync)
{
	struct journal_waiter *woken;
	struct err e = ERR_INIT;
	uint64_t upto, off = j->off, frame = j->frame_no, len = 0;
	struct queue q;
	int rc = 0;

	j->busy = true;
	while (j->zero_to && off + j->q.meta.len + j->q.object_bytes + FRAME_SLACK > j->zero_from)
		pthread_cond_wait(&j->cond, &j->lock);
	q = j->q;
	upto = j->queued;
	j->inflight = q.meta.len + q.object_bytes + FRAME_SLACK;
	j->q = j->spare;
	memset(&j->spare, 0, sizeof(j->spare));
	pthread_mutex_unlock(&j->lock);
	if (q.n)
		rc = write_frame(j, &q, off, frame, &len, &e);
	if (rc == 0 && sync && fdatasync(j->fd) < 0)
		rc = err_errno(&e, "journal: sync", j->dir);
	pthread_mutex_lock(&j->lock);
	lead_done(j, rc, len, q.n > 0, upto, sync, &e);
	buf_clear(&q.meta);
	q.n_objects = 0;
	q.object_bytes = 0;
	q.n = 0;
	j->spare = q;
	j->busy = false;
	woken = take_waiters(j);
	if (j->idle_waiters)
		pthread_cond_broadcast(&j->cond);
	if (woken) {
		pthread_mutex_unlock(&j->lock);
		wake_all(woken);
		pthread_mutex_lock(&j->lock);
	}
}

void journal_quiet(struct file_journal *j)
{
	while ((j->busy || j->zero_to || j->durable < j->queued) && !(j->failed && !j->busy && !j->zero_to)) {
		if (j->busy || j->zero_to) {
			j->idle_waiters++;
			pthread_cond_wait(&j->cond, &j->lock);
			j->idle_waiters--;
		} else {
			lead(j, true);
		}
	}
}

static int failure(struct file_journal *j, struct err *err)
{
	return err_set(err, ERR_IO, "%s", j->cause.msg);
}

static void queue_entry(struct queue *q, const struct journal_entry *e)
{
	buf_putstr(&q->meta, e->user);
	buf_putv(&q->meta, e->epoch);
	buf_putv(&q->meta, e->lsn);
	buf_putblob(&q->meta, e->rec, e->rec_len);
	buf_putstr(&q->meta, e->object.key);
	buf_putv(&q->meta, e->object.key ? e->object.len : 0);
	if (e->object.key) {
		mem_grow(&q->objects, &q->cap_objects, q->n_objects + 1, sizeof(*q->objects));
		q->objects[q->n_objects++] = (struct iovec){ (void *)(uintptr_t)e->object.data, e->object.len };
		q->object_bytes += e->object.len;
	}
	q->n++;
}

static int file_append(struct journal *base, const struct journal_entry *e, size_t n, bool force, uint64_t *ticket_r, struct err *err)
{
	struct file_journal *j = file_of(base);
	uint64_t need = 0;
	size_t i;
	int rc = 0;

	for (i = 0; i < n; i++)
		need += e[i].rec_len + e[i].object.len + strlen(e[i].user) + ENTRY_SLACK;
	pthread_mutex_lock(&j->lock);
	need += j->inflight + j->q.meta.len + j->q.object_bytes + FRAME_SLACK;
	if (j->failed)
		rc = failure(j, err);
	else if (need > UINT32_MAX / 2)
		rc = err_set(err, ERR_LIMIT, "journal: too much at once");
	else if (j->off + need > j->allocated)
		rc = journal_allocate(j, j->off + need, err);
	if (rc == 0) {
		for (i = 0; i < n; i++)
			queue_entry(&j->q, &e[i]);
		*ticket_r = ++j->queued;
	}
	pthread_mutex_unlock(&j->lock);
	return rc;
}

static int file_wait(struct journal *base, uint64_t ticket, struct err *err)
{
	struct file_journal *j = file_of(base);
	int rc = 0;

	pthread_mutex_lock(&j->lock);
	while (j->durable < ticket && !j->failed) {
		if (j->busy)
			wait_turn(j, ticket);
		else
			lead(j, true);
	}
	if (j->durable < ticket)
		rc = failure(j, err);
	pthread_mutex_unlock(&j->lock);
	return rc;
}

/* Whoever waits leads: there is nobody else to begin. */
static void file_start(struct journal *base, uint64_t ticket)
{
}

static bool file_done(struct journal *base, uint64_t ticket)
{
	struct file_journal *j = file_of(base);
	bool done;

	pthread_mutex_lock(&j->lock);
	done = j->durable >= ticket;
	pthread_mutex_unlock(&j->lock);
	return done;
}

static bool file_push(struct journal *base)
{
	struct file_journal *j = file_of(base);

	pthread_mutex_lock(&j->lock);
	if (!j->busy && !j->failed && j->q.n)
		lead(j, false);	/* a busy one takes it along */
	pthread_mutex_unlock(&j->lock);
	return true;
}

static int file_sync(struct journal *base, struct err *err)
{
	struct file_journal *j = file_of(base);
	uint64_t upto;

	pthread_mutex_lock(&j->lock);
	upto = j->queued;
	pthread_mutex_unlock(&j->lock);
	return file_wait(base, upto, err);
}

static uint64_t file_bytes(struct journal *base)
{
	struct file_journal *j = file_of(base);
	uint64_t n;

	pthread_mutex_lock(&j->lock);
	n = j->off;
	pthread_mutex_unlock(&j->lock);
	return n;
}

/* A piece that is too large is given up whole: users are uploaded instead of writing their records anew. */
static bool file_long_tail(struct journal *base)
{
	return false;
}

static int file_rotate(struct journal *base, uint64_t *old_r, struct err *err)
{
	struct file_journal *j = file_of(base);
	int rc = 0;

	pthread_mutex_lock(&j->lock);
	journal_quiet(j);
	*old_r = j->file_no;
	if (j->failed)
		rc = failure(j, err);
	else
		rc = journal_end_file(j, err);
	if (rc == 0)
		rc = journal_start_file(j, j->file_no + 1, err);
	pthread_mutex_unlock(&j->lock);
	return rc;
}

static const struct journal_ops file_ops = {
	true, file_append, file_start, file_wait, file_done, file_push, file_sync, file_bytes, file_long_tail, file_rotate,
	journal_file_drop, journal_file_prepare, file_close,
};
