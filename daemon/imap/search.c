/* SEARCH and UID SEARCH: the run over the mailbox and the answer. */
#include "daemon/imap/search.h"

#include "base/log.h"
#include "base/mem.h"
#include "daemon/imap/imap.h"

enum { SAVED_RANGES_MAX = 200000 };	/* of "$" */
enum { PHASE_READ, PHASE_TEXT };

static void search_free(void *p)
{
	struct search *q = p;
	struct search_key *k;

	for (k = q->owned; k; k = k->next_text) {
		mime_needle_free(&k->needle);
		seqset_free(&k->seqs);
	}
	free(q->batch);
	free(q->state);
	seqset_free(&q->found);
	seqset_free(&q->found_uids);
	seqset_free(&q->lost);
	free(q);
}

/* --- the run --- */

static void read_batch(struct imap_session *s, struct search *q)
{
	struct search_msg x = { .level = 0 };
	size_t i;

	q->n = obox_view_read(s->view, q->next, q->batch, IMAP_BATCH);
	q->batch_seq = q->next;
	q->next = q->n == IMAP_BATCH ? q->next + IMAP_BATCH : 0;
	q->i = 0;
	for (i = 0; i < q->n; i++) {
		x.seq = q->batch_seq + (uint32_t)i;
		x.m = &q->batch[i];
		q->state[i] = x.m->flags & OBOX_GONE ? 0 : (signed char)search_eval(q->root, &x);
	}
}

struct summaries_ctx {
	struct search *q;
	const size_t *index;	/* in the batch, of each asked for */
};

static bool on_summary(void *ctx, size_t i, const void *data, size_t len)
{
	struct summaries_ctx *c = ctx;
	struct search *q = c->q;
	size_t at = c->index[i];
	struct mime_summary sum;
	struct search_msg x = { q->batch_seq + (uint32_t)at, &q->batch[at], &sum, 1, NULL };

	/* one that cannot be had stays open, the next phase finds out why */
	if (data && mime_summary_open(data, len, &sum) == 0)
		q->state[at] = (signed char)search_eval(q->root, &x);
	return true;
}

static void summaries(struct imap_session *s, struct search *q)
{
	struct obox_msg *open = mem_calloc(q->n + 1, sizeof(*open));
	size_t *index = mem_calloc(q->n + 1, sizeof(*index)), n = 0, i;
	struct summaries_ctx c = { q, index };

	for (i = 0; i < q->n; i++) {
		if (q->state[i] < 0) {
			open[n] = q->batch[i];
			index[n++] = i;
		}
	}
	if (n)
		obox_summaries(s->user, open, n, on_summary, &c);
	free(open);
	free(index);
}

static void lose(struct imap_session *s, struct search *q, const struct obox_msg *m, int rc, const struct err *err)
{
	if (!q->lost.n || err_is_temporary(rc))
		q->lost_rc = rc;
	seqset_add(&q->lost, m->uid, m->uid);
	log_event(err_is_temporary(rc) ? LOG_WARN : LOG_ERROR, "message cannot be searched", LF_S("user", s->c->user),
		  LF_S("mailbox", s->mailbox), LF_U("uid", m->uid), LF_S("code", err_code_name(rc)), LF_ERR(err), LF_END);
}

/* --- looking into messages, several at a time --- */

enum { GROUP_MAX = 64, GROUP_BYTES = 1 << 20 };

struct group {
	struct imap_session *s;
	struct search *q;
	size_t n;
	struct reading {
		size_t i;		/* in the batch */
		int rc;
		struct err err;
	} of[GROUP_MAX];
};

static void read_one(void *ctx, size_t nth)
{
	struct group *g = ctx;
	struct reading *r = &g->of[nth];
	struct search *q = g->q;
	const struct obox_msg *m = &q->batch[r->i];
	struct buf bytes = BUF_INIT(0);
	struct mime_summary sum;
	bool *hits = mem_calloc(q->n_keys + 1, sizeof(*hits));
	struct search_msg x = { q->batch_seq + (uint32_t)r->i, m, &sum, 2, hits };

	r->rc = obox_summary(g->s->user, m, &bytes, &r->err);
	if (r->rc == 0 && mime_summary_open(bytes.data, bytes.len, &sum) < 0)
		r->rc = err_set(&r->err, ERR_CORRUPT, "the summary of the message cannot be understood");
	if (r->rc == 0)
		r->rc = search_text(g->s, q, m, &sum, hits, &r->err);
	q->state[r->i] = r->rc < 0 ? 0 : (signed char)search_eval(q->root, &x);
	free(hits);
	buf_free(&bytes);
}

/* Settles the messages of the batch that are open from the current one on, so many as make a turn. */
static void read_group(struct imap_session *s, struct search *q)
{
	struct group *g = MEM_NEW(struct group);
	uint64_t bytes = 0;
	size_t i;

	g->s = s;
	g->q = q;
	for (i = q->i; i < q->n && g->n < GROUP_MAX && bytes < GROUP_BYTES; i++) {
		if (q->state[i] >= 0)
			continue;
		g->of[g->n++].i = i;
		bytes += q->batch[i].size;
	}
	if (s->c->env->each && g->n > 1)
		s->c->env->each(s->c->env, g->n, read_one, g);
	else
		for (i = 0; i < g->n; i++)
			read_one(g, i);
	for (i = 0; i < g->n; i++)
		if (g->of[i].rc < 0)
			lose(s, q, &q->batch[g->of[i].i], g->of[i].rc, &g->of[i].err);
	free(g);
}

static void add_found(struct imap_session *s, struct search *q, uint32_t seq, const struct obox_msg *m)
{
	uint32_t n = s->cmd.uid ? m->uid : seq;

	if (!q->count++) {
		q->min = n;
		q->min_uid = m->uid;
		q->min_modseq = m->modseq;
	}
	q->max = n;
	q->max_uid = m->uid;
	q->max_modseq = m->modseq;
	if (m->modseq > q->modseq)
		q->modseq = m->modseq;
	if (!q->esearch || (q->returns & RETURN_ALL))
		seqset_add(&q->found, n, n);
	if (q->returns & RETURN_SAVE)
		seqset_add(&q->found_uids, m->uid, m->uid);
}

/* Only the smallest is wanted and is known? */
static bool enough(const struct search *q)
{
	return q->count && q->esearch && (q->returns & ~(unsigned)RETURN_SAVE) == RETURN_MIN;
}

/* False: pause. */
static bool run(struct imap_session *s, struct search *q)
{
	size_t i;

	while (q->phase == PHASE_TEXT || q->next) {
		if (q->phase == PHASE_READ) {
			read_batch(s, q);
			if (q->root->level > 0)
				summaries(s, q);
			q->phase = PHASE_TEXT;
		}
		while (q->i < q->n) {
			if (q->state[q->i] < 0) {
				if (imap_should_pause(s))
					return false;
				read_group(s, q);
			}
			i = q->i++;
			if (q->state[i] > 0)
				add_found(s, q, q->batch_seq + (uint32_t)i, &q->batch[i]);
			if (enough(q))
				return true;
		}
		q->phase = PHASE_READ;
		if (imap_should_pause(s) && q->next)
			return false;
	}
	return true;
}

/* --- the answer --- */

/* RFC 5182 sections 2.1 and 2.4: what "$" is from now on. */
static bool save_result(struct imap_session *s, struct search *q)
{
	seqset_free(&s->saved);
	if (q->lost.n && err_is_temporary(q->lost_rc))
		return true;	/* the search fails: "$" is empty */
	if (!(q->returns & (RETURN_ALL | RETURN_COUNT)) && (q->returns & (RETURN_MIN | RETURN_MAX))) {
		if (q->count && (q->returns & RETURN_MIN))
			seqset_add(&s->saved, q->min_uid, q->min_uid);
		if (q->count && (q->returns & RETURN_MAX))
			seqset_add(&s->saved, q->max_uid, q->max_uid);
		return true;
	}
	if (q->found_uids.n > SAVED_RANGES_MAX)
		return false;
	seqset_copy(&s->saved, &q->found_uids);
	return true;
}

static uint64_t answer_modseq(const struct search *q)
{
	/* RFC 4731 section 3.2: of the messages that are named */
	switch (q->returns & (RETURN_MIN | RETURN_MAX | RETURN_ALL | RETURN_COUNT)) {
	case RETURN_MIN:
		return q->min_modseq;
	case RETURN_MAX:
		return q->max_modseq;
	case RETURN_MIN | RETURN_MAX:
		return q->min_modseq > q->max_modseq ? q->min_modseq : q->max_modseq;
	default:
		return q->modseq;
	}
}

static void begin_answer(struct imap_session *s, struct search *q)
{
	struct buf *out = &s->c->out;

	q->writing = true;
	q->range = 0;
	q->member = q->found.n ? q->found.r[0].lo : 0;
	if (!q->esearch) {
		buf_adds(out, "* SEARCH");
		return;
	}
	buf_adds(out, "* ESEARCH (TAG ");
	mime_imap_string(out, s->cmd.tag, strlen(s->cmd.tag));
	buf_adds(out, s->cmd.uid ? ") UID" : ")");
	if (q->count && (q->returns & RETURN_MIN))
		buf_addf(out, " MIN %u", q->min);
	if (q->count && (q->returns & RETURN_MAX))
		buf_addf(out, " MAX %u", q->max);
	if (q->returns & RETURN_COUNT)
		buf_addf(out, " COUNT %llu", (unsigned long long)q->count);
	if (q->found.n && (q->returns & RETURN_ALL))
		buf_adds(out, " ALL ");
}

/* False: pause in the middle of the line. */
static bool put_numbers(struct imap_session *s, struct search *q)
{
	struct buf *out = &s->c->out;

	while (q->range < q->found.n) {
		const struct seqrange *r = &q->found.r[q->range];

		if (q->esearch) {
			if (q->range)
				buf_addc(out, ',');
			buf_addu(out, r->lo);
			if (r->hi != r->lo) {
				buf_addc(out, ':');
				buf_addu(out, r->hi);
			}
			q->range++;
		} else {
			buf_addc(out, ' ');
			buf_addu(out, q->member);
			if (q->member == r->hi) {
				q->range++;
				q->member = q->range < q->found.n ? q->found.r[q->range].lo : 0;
			} else {
				q->member++;
			}
		}
		if (out->len > CONN_OUT_HIGH) {
			s->mid_line = true;
			return false;
		}
	}
	s->mid_line = false;
	return true;
}

static void end_answer(struct imap_session *s, struct search *q)
{
	struct buf *out = &s->c->out;

	if (q->uses_modseq && q->count)
		buf_addf(out, q->esearch ? " MODSEQ %llu" : " (MODSEQ %llu)",
			 (unsigned long long)(q->esearch ? answer_modseq(q) : q->modseq));
	buf_adds(out, "\r\n");
}

static void final_reply(struct imap_session *s, struct search *q, bool saved)
{
	if (!saved) {
		imap_reply(s, "NO [NOTSAVED] The result is too large to be saved");
	} else if (q->lost.n) {
		imap_reply(s, "%s but messages could not be read: UID ", err_is_temporary(q->lost_rc) ?
			   "NO [UNAVAILABLE] Searched what could be reached," : "OK Search completed,");
		if (q->lost.n > 10)
			q->lost.n = 10;
		seqset_format(&q->lost, &s->cmd.reply);
	} else {
		imap_reply(s, "OK Search completed");
	}
}

static enum imap_step search_step(struct imap_session *s)
{
	struct search *q = s->cmd.ctx;
	bool saved = true;

	if (!q->writing) {
		if (!run(s, q))
			return IMAP_MORE;
		if (q->returns & RETURN_SAVE)
			saved = save_result(s, q);
		final_reply(s, q, saved);
		/* SAVE alone answers nothing: RFC 5182 section 2.1 */
		if (!saved || (q->esearch && q->returns == RETURN_SAVE))
			return IMAP_DONE;
		begin_answer(s, q);
	}
	if (!put_numbers(s, q))
		return IMAP_MORE;
	end_answer(s, q);
	return IMAP_DONE;
}

static void start(struct imap_session *s, struct search *q)
{
	if (!q->esearch && s->rev2) {	/* RFC 9051: the SEARCH response is gone */
		q->esearch = true;
		q->returns = RETURN_ALL;
	}
	if (q->uses_modseq)
		imap_enable_condstore(s);
	if (q->uses_seqs)
		s->cmd.news = NEWS_NO_EXPUNGE;	/* RFC 7162 section 3.2.10.2 */
	q->batch = mem_calloc(IMAP_BATCH, sizeof(*q->batch));
	q->state = mem_calloc(IMAP_BATCH, sizeof(*q->state));
	q->next = 1;
	s->cmd.step = search_step;
}

void imap_cmd_search(struct imap_session *s, struct lex *lx)
{
	struct search *q = MEM_NEW(struct search);

	s->cmd.ctx = q;
	s->cmd.ctx_free = search_free;
	imap_announce_keywords(s);
	if (!search_parse(s, lx, q)) {
		imap_reply_bad(s, lx);
	} else if (q->bad_charset) {
		if (q->returns & RETURN_SAVE)
			seqset_free(&s->saved);
		imap_reply(s, "NO [BADCHARSET (US-ASCII UTF-8)] That charset is not known");
	} else {
		start(s, q);
	}
}
