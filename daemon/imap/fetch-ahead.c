/* Reading ahead: the bodies of the next messages of the batch are opened,
 * checked and unpacked side by side, so that a client that fetches a mailbox
 * gets more than one core's and one request's worth.  What is held at one
 * time is as much as may wait in the output anyway. */
#include "base/mem.h"
#include "daemon/imap/fetch.h"
#include "daemon/imap/imap.h"

struct work {
	struct imap_session *s;
	struct fetch *f;
};

static void open_one(void *ctx, size_t i)
{
	struct work *w = ctx;
	struct err err = ERR_INIT;
	struct obox_body **b = &w->f->ahead[i];

	if (obox_body_open(w->s->user, &w->f->batch[w->f->ahead_from + i], b, &err) < 0 || obox_body_load(*b, &err) < 0)
		obox_body_close(b);
}

/* How many messages from the current one on fit; 0 or 1: not worth it. */
static size_t fitting(const struct fetch *f)
{
	uint64_t bytes = 0;
	size_t n;

	for (n = 0; f->i + n < f->n && n < FETCH_AHEAD; n++) {
		bytes += f->batch[f->i + n].size;
		if (bytes > CONN_OUT_HIGH)
			break;
	}
	return n;
}

struct obox_body *fetch_ahead_take(struct imap_session *s, struct fetch *f)
{
	struct work w = { s, f };
	struct obox_body *b;
	size_t n;

	if (f->i >= f->ahead_from + f->ahead_n) {
		n = s->c->env->each ? fitting(f) : 0;
		fetch_ahead_drop(f);
		if (n < 2)
			return NULL;
		f->ahead_from = f->i;
		f->ahead_n = n;
		s->c->env->each(s->c->env, n, open_one, &w);
	}
	b = f->ahead[f->i - f->ahead_from];
	f->ahead[f->i - f->ahead_from] = NULL;
	return b;
}

void fetch_ahead_drop(struct fetch *f)
{
	size_t i;

	for (i = 0; i < f->ahead_n; i++)
		obox_body_close(&f->ahead[i]);
	f->ahead_from = f->ahead_n = 0;
}
