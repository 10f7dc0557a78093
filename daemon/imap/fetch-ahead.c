/* Reading ahead: the bodies of the messages that come next are begun early and
 * opened, checked and unpacked side by side, so that a client that fetches a mailbox
 * gets more than one core's and one request's worth.
 *
 * On a local disk what is held at one time is as much as may wait in the output anyway.  Behind a
 * network as many are on their way as the store's driver sends at one time, however small they are. */
#include "base/mem.h"
#include "daemon/imap/fetch.h"
#include "daemon/imap/imap.h"

enum { FIRST = 64 * 1024, FIRST_WHOLE = 256 * 1024, NEAR_MAX = 32, FAR_BYTES = 4 << 20 };

struct work {
	struct imap_session *s;
	struct fetch_ahead *a;
};

static struct fetch_ahead_slot *slot(struct fetch_ahead *a, size_t i)
{
	return &a->slot[(a->head + i) % FETCH_AHEAD];
}

static void pop(struct fetch_ahead *a)
{
	a->bytes -= slot(a, 0)->bytes;
	a->head = (a->head + 1) % FETCH_AHEAD;
	a->n--;
}

static bool room(const struct fetch_ahead *a, bool far)
{
	return far ? a->n < FETCH_AHEAD && a->bytes < FAR_BYTES : a->n < NEAR_MAX && a->bytes <= CONN_OUT_HIGH;
}

/* Begins the next messages of the command. */
static void begin_some(struct imap_session *s, struct fetch *f)
{
	struct fetch_ahead *a = &f->ahead;
	bool far = obox_view_remote(s->view);
	size_t most = f->needs_parts ? FIRST : FIRST_WHOLE;
	struct obox_msg m;

	while (a->next && room(a, far)) {
		uint32_t seq = seqset_next(&f->seqs, a->next);
		struct fetch_ahead_slot *sl = slot(a, a->n);

		if (!seq || obox_view_read(s->view, seq, &m, 1) != 1) {
			a->next = 0;
			break;
		}
		a->next = seq + 1;
		if (m.flags & OBOX_GONE || (f->changedsince && m.modseq <= f->changedsince))
			continue;
		*sl = (struct fetch_ahead_slot){ .seq = seq, .bytes = m.size < most || !far ? (size_t)m.size : most,
						  .load = !f->needs_parts || m.size <= FIRST };
		sl->body = obox_body_begin(s->user, &m, !f->needs_parts);
		a->bytes += sl->bytes;
		a->n++;
	}
}

static void open_one(void *ctx, size_t i)
{
	struct work *w = ctx;
	struct fetch_ahead_slot *sl = slot(w->a, i);
	struct err err = ERR_INIT;

	if (obox_body_wait(&sl->body, &err) == 0 && sl->load && obox_body_load(sl->body, &err) < 0)
		obox_body_close(&sl->body);
	sl->opened = true;
}

/* How many from the front on are opened together. */
static size_t together(struct fetch_ahead *a)
{
	size_t n = 0, bytes = 0;

	while (n < a->n && n < NEAR_MAX && !slot(a, n)->opened) {
		bytes += slot(a, n)->bytes;
		if (n && bytes > CONN_OUT_HIGH)
			break;
		n++;
	}
	return n;
}

struct obox_body *fetch_ahead_take(struct imap_session *s, struct fetch *f)
{
	struct fetch_ahead *a = &f->ahead;
	struct work w = { s, a };
	uint32_t seq = f->batch_seq[f->i];
	struct obox_body *b;
	size_t n;

	if (!s->c->env->each)
		return NULL;
	while (a->n && slot(a, 0)->seq < seq) {
		obox_body_close(&slot(a, 0)->body);
		pop(a);
	}
	if (a->n && slot(a, 0)->seq != seq)
		return NULL;	/* it went before its turn to be begun came: what is first here is another message */
	if (!a->n)
		a->next = seq;
	if (!a->n || !slot(a, 0)->opened) {
		begin_some(s, f);
		if (!a->n || slot(a, 0)->seq != seq)
			return NULL;	/* it is gone meanwhile */
		n = together(a);
		if (n > 1)
			s->c->env->each(s->c->env, n, open_one, &w);
		else
			open_one(&w, 0);
	}
	b = slot(a, 0)->body;
	pop(a);
	return b;
}

void fetch_ahead_drop(struct fetch *f)
{
	struct fetch_ahead *a = &f->ahead;

	while (a->n) {
		obox_body_close(&slot(a, 0)->body);
		pop(a);
	}
}
