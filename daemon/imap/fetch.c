#include "daemon/imap/fetch.h"

#include "base/log.h"
#include "base/mem.h"
#include "daemon/imap/imap.h"

enum { BODY_BATCH = 32 };	/* messages marked \Seen before their bodies are sent */

struct fetch *fetch_new(void)
{
	struct fetch *f = MEM_NEW(struct fetch);

	buf_init(&f->tmp, 0);
	buf_init(&f->summary_bytes, 0);
	buf_init(&f->stream.decoded, 0);
	return f;
}

void fetch_free(void *p)
{
	struct fetch *f = p;

	if (!f)
		return;
	fetch_body_drop(f);
	fetch_ahead_drop(f);
	buf_free(&f->tmp);
	buf_free(&f->summary_bytes);
	buf_free(&f->stream.decoded);
	seqset_free(&f->seqs);
	seqset_free(&f->lost);
	free(f->batch);
	free(f->batch_seq);
	free(f->batch_seen);
	free(f);
}

void fetch_lost(struct imap_session *s, struct fetch *f, const struct obox_msg *m, int rc, const struct err *err)
{
	if (!f->lost.n)
		f->lost_rc = rc;
	seqset_add(&f->lost, m->uid, m->uid);
	log_event(err_is_temporary(rc) ? LOG_WARN : LOG_ERROR, "message cannot be read", LF_S("user", s->c->user),
		  LF_S("mailbox", s->mailbox), LF_U("uid", m->uid), LF_U("oid_epoch", m->oid.epoch), LF_U("oid_n", m->oid.n),
		  LF_S("code", err_code_name(rc)), LF_ERR(err), LF_END);
}

/* --- batches --- */

/* Marks what is about to be fetched; the flags told are those after it. */
static void set_seen(struct imap_session *s, struct fetch *f)
{
	struct obox_flag_change change = { .how = OBOX_FLAGS_ADD, .flags = OBOX_SEEN, .unchangedsince = UINT64_MAX };
	struct seqset uids = SEQSET_INIT, changed = SEQSET_INIT;
	struct err err = ERR_INIT;
	uint64_t modseq = 0;
	size_t i;

	for (i = 0; i < f->n; i++)
		if (!(f->batch[i].flags & OBOX_SEEN))
			seqset_add(&uids, f->batch[i].uid, f->batch[i].uid);
	if (uids.n) {
		int rc = obox_store(s->view, &uids, &change, NULL, &changed, &modseq, &err);

		if (rc < 0) {
			f->seen_failed = true;
			log_event(LOG_WARN, "\\Seen could not be stored", LF_S("user", s->c->user), LF_S("mailbox", s->mailbox),
				  LF_ERR(&err), LF_END);
		}
	}
	for (i = 0; changed.n && i < f->n; i++) {
		struct obox_msg now;

		if (!seqset_contains(&changed, f->batch[i].uid))
			continue;
		/* read again: others may have changed flags since, and flags and mod-sequence must be of one moment */
		if (obox_view_read(s->view, f->batch_seq[i], &now, 1) == 1)
			f->batch[i] = now;
		f->batch_seen[i] = true;
	}
	seqset_free(&uids);
	seqset_free(&changed);
}

/* Takes the messages to be answered to the front of what was read. */
static void filter(struct fetch *f, size_t from, uint32_t seq, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		const struct obox_msg *m = &f->batch[from + i];

		if (m->flags & OBOX_GONE) {
			f->gone = true;
			continue;
		}
		if (f->changedsince && m->modseq <= f->changedsince)
			continue;
		f->batch_seq[f->n] = seq + (uint32_t)i;
		f->batch_seen[f->n] = false;
		if (f->n != from + i)
			f->batch[f->n] = *m;
		f->n++;
	}
}

/* Fills the batch from the set; false: nothing is left. */
static bool read_batch(struct imap_session *s, struct fetch *f)
{
	f->n = f->i = 0;
	while (f->next && f->n < f->batch_max) {
		uint32_t seq = seqset_next(&f->seqs, f->next);
		size_t room = f->batch_max - f->n, want = 1, n;

		if (!seq) {
			f->next = 0;
			break;
		}
		while (want < room && seqset_contains(&f->seqs, seq + (uint32_t)want))
			want++;
		n = obox_view_read(s->view, seq, f->batch + f->n, want);
		filter(f, f->n, seq, n);
		f->next = n == want && seq + want != 0 ? seq + (uint32_t)want : 0;
		if (f->n == 0 && imap_should_pause(s))
			break;		/* CHANGEDSINCE may skip very many */
	}
	if (f->n) {
		if (f->sets_seen && !obox_view_read_only(s->view))
			set_seen(s, f);
		imap_announce_keywords(s);	/* behind what is read last */
	}
	return f->n > 0 || f->next != 0;
}

/* --- messages that need no body --- */

static void put_message(struct imap_session *s, struct fetch *f, size_t i, const struct mime_summary *sum)
{
	size_t k;

	fetch_put_begin(s, f->batch_seq[i]);
	for (k = 0; k < f->n_items; k++) {
		if (k)
			buf_addc(&s->c->out, ' ');
		fetch_put_item(s, f, &f->items[k], &f->batch[i], sum);
	}
	fetch_put_end(s, f, i);
}

/* All items are of the index. */
static bool index_batch(struct imap_session *s, struct fetch *f)
{
	while (f->i < f->n)
		put_message(s, f, f->i++, NULL);
	return !imap_should_pause(s);
}

struct summaries_ctx {
	struct imap_session *s;
	struct fetch *f;
	size_t base;
	bool slow;	/* message f->i needs its body after all */
};

static bool on_summary(void *ctx, size_t i, const void *data, size_t len)
{
	struct summaries_ctx *x = ctx;
	struct fetch *f = x->f;
	struct mime_summary sum;

	f->i = x->base + i;
	if (!data || mime_summary_open(data, len, &sum) < 0) {
		x->slow = true;		/* asks again, for the reason */
		return false;
	}
	if (sum.flags & MIME_F_TRUNCATED) {
		x->slow = true;
		return false;
	}
	put_message(x->s, f, f->i, &sum);
	f->i++;
	return x->s->c->out.len <= CONN_OUT_HIGH;
}

/* False: pause. */
static bool summary_batch(struct imap_session *s, struct fetch *f)
{
	while (f->i < f->n) {
		struct summaries_ctx x = { s, f, f->i, false };

		if (!f->in_message)
			obox_summaries(s->user, f->batch + f->i, f->n - f->i, on_summary, &x);
		if ((x.slow || f->in_message) && !fetch_body_message(s, f))
			return false;
		if (imap_should_pause(s))
			return false;
	}
	return true;
}

static bool body_batch(struct imap_session *s, struct fetch *f)
{
	while (f->i < f->n) {
		if (!fetch_body_message(s, f))
			return false;
		if (imap_should_pause(s))
			return false;
	}
	return true;
}

/* --- the command --- */

static void put_uids(struct buf *out, const struct seqset *uids)
{
	struct buf b = BUF_INIT(0);

	seqset_format(uids, &b);
	buf_add(out, b.data, b.len > 200 ? 200 : b.len);
	buf_adds(out, b.len > 200 ? "..." : "");
	buf_free(&b);
}

static void final_reply(struct imap_session *s, struct fetch *f)
{
	if (f->lost.n) {
		const char *code = err_is_temporary(f->lost_rc) || f->lost_rc == ERR_IO ? "UNAVAILABLE" :
			f->lost_rc == ERR_NOTFOUND ? "EXPUNGEISSUED" : "SERVERBUG";

		/* an object that should be there and is not is a fault of ours */
		if (f->lost_rc == ERR_NOTFOUND && !f->gone)
			code = "SERVERBUG";
		imap_reply(s, "NO [%s] Some messages could not be read, all others were sent: UID ", code);
		put_uids(&s->cmd.reply, &f->lost);
	} else if (f->unknown_cte) {
		imap_reply(s, "NO [UNKNOWN-CTE] A part has a content transfer encoding that cannot be decoded");
	} else if (f->gone && f->by_number) {
		imap_reply(s, "NO [EXPUNGEISSUED] Some of the messages were expunged already");
	} else if (f->seen_failed) {
		imap_reply(s, "NO [UNAVAILABLE] The messages were sent, but could not be marked \\Seen");
	} else {
		imap_reply(s, "OK %s", f->done);
	}
}

static enum imap_step fetch_step(struct imap_session *s)
{
	struct fetch *f = s->cmd.ctx;

	for (;;) {
		bool go_on;

		if (f->i == f->n && !f->in_message && !read_batch(s, f))
			break;
		go_on = f->needs_body ? body_batch(s, f) : f->needs_summary ? summary_batch(s, f) : index_batch(s, f);
		if (!go_on || (s->closing && s->mid_line))
			return IMAP_MORE;
	}
	final_reply(s, f);
	return IMAP_DONE;
}

/* Whole messages are sent without looking at what they are made of. */
static bool wants_parts(const struct fetch *f)
{
	size_t i;

	for (i = 0; i < f->n_items; i++) {
		const struct fetch_item *it = &f->items[i];

		if (it->kind >= FETCH_ENVELOPE && (it->kind != FETCH_SECTION || it->depth || it->section != SECTION_ALL || it->binary))
			return true;
	}
	return false;
}

void fetch_run(struct imap_session *s, struct fetch *f, const char *done)
{
	f->needs_parts = wants_parts(f);
	f->done = done;
	f->batch_max = f->sets_seen || f->needs_body ? BODY_BATCH : IMAP_BATCH;
	f->batch = mem_calloc(f->batch_max, sizeof(*f->batch));
	f->batch_seq = mem_calloc(f->batch_max, sizeof(*f->batch_seq));
	f->batch_seen = mem_calloc(f->batch_max, sizeof(*f->batch_seen));
	f->next = 1;
	s->cmd.ctx = f;
	s->cmd.ctx_free = fetch_free;
	s->cmd.step = fetch_step;
}

/* UID FETCH ... (CHANGEDSINCE n VANISHED): before any FETCH response (RFC 7162 section 3.2.6). */
static void put_vanished(struct imap_session *s, const struct lex_set *set, uint64_t since)
{
	struct seqset known = SEQSET_INIT, gone = SEQSET_INIT;
	uint32_t last = obox_view_count(s->view), star;
	size_t i;

	star = last ? obox_view_uid(s->view, last) : 1;
	if (set->dollar)
		seqset_copy(&known, &s->saved);
	for (i = 0; i < set->n; i++) {
		uint32_t lo = set->r[i].lo ? set->r[i].lo : star, hi = set->r[i].hi ? set->r[i].hi : star;

		seqset_add(&known, lo < hi ? lo : hi, lo < hi ? hi : lo);
	}
	obox_view_vanished(s->view, since, &known, &gone);
	if (gone.n) {
		buf_adds(&s->c->out, "* VANISHED (EARLIER) ");
		seqset_format(&gone, &s->c->out);
		buf_adds(&s->c->out, "\r\n");
	}
	seqset_free(&known);
	seqset_free(&gone);
}

void imap_cmd_fetch(struct imap_session *s, struct lex *lx)
{
	struct fetch *f = fetch_new();
	struct lex_set set;

	if (!(lex_sp(lx) && lex_set(lx, &set) && lex_sp(lx) && fetch_parse(s, lx, f))) {
		imap_reply_bad(s, lx);
		fetch_free(f);
		return;
	}
	if (!imap_set_resolve(s, &set, s->cmd.uid, true, &f->seqs)) {
		fetch_free(f);
		return;
	}
	if (f->has_modseq || f->changedsince)
		imap_enable_condstore(s);
	if (f->changedsince && !obox_view_modseq_known(s->view, f->changedsince))
		f->changedsince = 0;	/* a crash took back changes: tell all */
	f->by_number = !s->cmd.uid;
	if (f->vanished)
		put_vanished(s, &set, f->changedsince);
	fetch_run(s, f, "Fetch completed");
}
