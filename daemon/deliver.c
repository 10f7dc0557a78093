#include "daemon/deliver.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "obox/obox.h"

#include <sys/mman.h>
#include <unistd.h>

enum { COPY_STEP = 128 * 1024 };

void deliver_moved(struct deliver_place *p, const struct obox_owner *owner)
{
	if (!p->owner)
		p->owner = MEM_NEW(struct obox_owner);
	*p->owner = *owner;
	p->state = DELIVER_AWAY;
}

/* --- raw messages --- */

static int copy_out(struct obox_msgin *msg, int fd, struct err *err)
{
	uint64_t size = obox_msgin_size(msg), at;
	char *step = mem_alloc(COPY_STEP);
	int rc = 0;

	for (at = 0; at < size && rc == 0; at += COPY_STEP) {
		size_t n = size - at < COPY_STEP ? (size_t)(size - at) : COPY_STEP;

		rc = obox_msgin_read(msg, at, step, n, err);
		if (rc == 0)
			rc = io_pwrite_full(fd, step, n, (off_t)at, err);
	}
	free(step);
	return rc;
}

int deliver_raw(struct obox_msgin *msg, size_t max, struct deliver_message *m, struct err *err)
{
	uint64_t size = obox_msgin_size(msg);
	void *room;
	int rc;

	buf_putv(&m->head, size);
	if (size <= max) {
		room = buf_reserve(&m->head, (size_t)size);
		if (!room)
			return err_set(err, ERR_LIMIT, "message does not fit");
		rc = size ? obox_msgin_read(msg, 0, room, (size_t)size, err) : 0;
		m->head.len += (size_t)size;
		return rc;
	}
	m->fd = memfd_create("message", MFD_CLOEXEC);
	if (m->fd < 0)
		return err_errno(err, "memfd", NULL);
	rc = copy_out(msg, m->fd, err);
	if (rc < 0)
		io_close(&m->fd);
	return rc;
}

static int copy_in(struct obox_msgin *msg, int fd, uint64_t size, struct err *err)
{
	char *step = mem_alloc(COPY_STEP);
	uint64_t at;
	int rc = 0;

	for (at = 0; at < size && rc == 0; at += COPY_STEP) {
		size_t n = size - at < COPY_STEP ? (size_t)(size - at) : COPY_STEP;

		rc = io_pread_full(fd, step, n, (off_t)at, err);
		rc = rc == 1 ? obox_msgin_write(msg, step, n, err) : rc < 0 ? rc : err_set(err, ERR_CORRUPT, "a message from another node is cut short");
	}
	free(step);
	return rc;
}

static int take_raw(struct worker *w, struct deliver_in *in, struct err *err)
{
	uint64_t size = rd_v(&in->message);
	const void *p = in->fd < 0 ? rd_bytes(&in->message, (size_t)size) : NULL;
	int rc = obox_msgin_new(w->env.obox, &in->d.msg, err);

	if (rc == 0 && (in->message.failed || rd_left(&in->message)))
		rc = err_set(err, ERR_CORRUPT, "a message from another node does not add up");
	if (rc == 0)
		rc = in->fd >= 0 ? copy_in(in->d.msg, in->fd, size, err) : obox_msgin_write(in->d.msg, p, (size_t)size, err);
	if (rc == 0)
		rc = obox_msgin_finish(in->d.msg, err);
	return rc;
}

/* --- a request that came --- */

static const char *or_null(const char *s)
{
	return *s ? s : NULL;
}

int deliver_in_parse(struct deliver_in *in, unsigned char *text, size_t len, bool raw, int fd)
{
	struct rd r = rd_init(text, len);
	size_t i;

	memset(in, 0, sizeof(*in));
	in->text = text;
	in->raw = raw;
	in->fd = fd;
	in->d.from = msg_get_str(&r);
	in->d.n = rd_16(&r);
	in->d.to = mem_calloc(in->d.n, sizeof(*in->d.to));
	in->place = mem_calloc(in->d.n, sizeof(*in->place));
	for (i = 0; i < in->d.n; i++) {
		in->d.to[i].user = msg_get_str(&r);
		in->d.to[i].address = msg_get_str(&r);
		in->d.to[i].mailbox = or_null(msg_get_str(&r));
		in->d.to[i].prepend = or_null(msg_get_str(&r));
		in->d.to[i].rc = ERR_UNAVAILABLE;
	}
	in->message = r;
	return r.failed ? -1 : 0;
}

void deliver_in_run(struct worker *w, struct deliver_in *in)
{
	struct err err = ERR_INIT;
	size_t i;
	int rc;

	if (in->raw) {
		rc = take_raw(w, in, &err);
	} else {
		rc = obox_msgin_import(w->env.obox, &in->message, in->fd, &in->d.msg, &err);
		in->fd = -1;
	}
	for (i = 0; i < in->d.n; i++) {
		in->d.to[i].rc = rc;
		in->place[i].state = DELIVER_DONE;
	}
	if (rc == 0)
		deliver_here(w, &in->d, in->place, NULL, in->d.n);
	else
		log_event(LOG_ERROR, "a message from another process cannot be taken", LF_ERR(&err), LF_END);
}

void deliver_in_free(struct deliver_in *in)
{
	size_t i;

	for (i = 0; in->place && i < in->d.n; i++)
		free(in->place[i].owner);
	obox_msgin_free(&in->d.msg);
	io_close(&in->fd);
	free(in->place);
	free(in->d.to);
	free(in->text);
}

/* --- results --- */

void deliver_results_put(struct buf *out, const struct deliver_in *in)
{
	size_t i;

	buf_put16(out, (uint16_t)in->d.n);
	for (i = 0; i < in->d.n; i++) {
		switch (in->place[i].state) {
		case DELIVER_AWAY:
			buf_put8(out, DELIVER_MOVED);
			node_owner_put(out, in->place[i].owner);
			break;
		case DELIVER_HERE:
			buf_put8(out, DELIVER_AGAIN);
			break;
		case DELIVER_DONE:
			buf_put8(out, (uint8_t)-in->d.to[i].rc);
		}
	}
}

void deliver_results_get(struct rd *r, struct lmtp_delivery *d, struct deliver_place *place, const size_t *which, size_t n)
{
	size_t count = rd_16(r), i;
	struct obox_owner owner;

	for (i = 0; i < n && i < count; i++) {
		unsigned result = rd_8(r);
		struct lmtp_target *t = &d->to[which[i]];

		if (r->failed || (result == DELIVER_MOVED && node_owner_get(r, &owner) < 0))
			return;
		t->rc = result < DELIVER_AGAIN ? -(int)result : ERR_BUSY;
		place[which[i]].state = result == DELIVER_AGAIN ? DELIVER_HERE : DELIVER_DONE;
		if (result == DELIVER_MOVED)
			deliver_moved(&place[which[i]], &owner);
	}
}
