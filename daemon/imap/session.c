/* The life of a session: input to commands, steps, news, answers, the end. */
#include "daemon/imap/imap.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/imap/imap-capability.h"

enum { IN_KEEP = 4096 };	/* an input buffer up to this size is kept by an idle session */

static bool slice_over(const struct imap_session *s)
{
	return clock_mono_us(&clock_system) >= s->slice_end;
}

bool imap_should_pause(struct imap_session *s)
{
	return s->c->out.len > CONN_OUT_HIGH || slice_over(s);
}

static int open_user(struct imap_session *s, struct err *err)
{
	return s->user ? 0 : obox_user_open(s->c->env->obox, s->c->user, &s->user, err);
}

struct obox_user *imap_user(struct imap_session *s)
{
	struct err err = ERR_INIT;
	int rc = open_user(s, &err);

	if (rc < 0)
		imap_reply_err(s, rc, &err, NULL);
	return rc < 0 ? NULL : s->user;
}

void imap_bye(struct imap_session *s, const char *text)
{
	s->closing = true;
	if (!s->mid_line)
		imap_untagged(s, "BYE %s", text);
}

void imap_unselect(struct imap_session *s)
{
	imap_news_free(s);
	obox_view_close(&s->view);
	imap_forget_keywords(s);
	seqset_free(&s->saved);
	free(s->mailbox);
	s->mailbox = NULL;
}

static void session_start(struct conn *c)
{
	struct imap_session *s = MEM_NEW(struct imap_session);
	struct err err = ERR_INIT;

	s->c = c;
	c->session = s;
	c->timeout_ms = IMAP_TIMEOUT_MS;
	reader_init(&s->reader, c->env->max_command);
	buf_init(&s->cmd.reply, 0);
	/* A store that is away must not keep a client from logging in: it is tried again at each command. */
	if (open_user(s, &err) < 0)
		log_event(LOG_WARN, "mail of the user cannot be opened now", LF_S("user", c->user), LF_ERR(&err), LF_END);
	if (c->tag)
		buf_addf(&c->out, "%s OK [CAPABILITY " IMAP_CAPS_AFTER " APPENDLIMIT=%llu] Logged in\r\n", c->tag,
			 (unsigned long long)c->env->max_message);
}

/* --- the end of a command --- */

static void put_reply(struct imap_session *s)
{
	struct buf *out = &s->c->out, *reply = &s->cmd.reply;
	size_t skip = 0;

	buf_adds(out, s->cmd.tag ? s->cmd.tag : "*");
	buf_addc(out, ' ');
	if (s->cmd.reply_modseq && s->view && reply->len > 3 && !memcmp(reply->data, "OK ", 3)) {
		buf_addf(out, "OK [HIGHESTMODSEQ %llu] ", (unsigned long long)s->told_modseq);
		skip = 3;
	}
	buf_adds(out, buf_str(reply) + skip);
	buf_adds(out, "\r\n");
}

static void check_deleted(struct imap_session *s)
{
	if (s->view && !s->closing && obox_view_deleted(s->view)) {
		imap_bye(s, "The selected mailbox was deleted, please connect again");
		imap_unselect(s);
	}
}

static void finish_command(struct imap_session *s)
{
	bool bad = s->cmd.bad, fenced = s->closing && !(s->cmd.def && !strcmp(s->cmd.def->name, "LOGOUT"));

	put_reply(s);
	imap_append_free(s);
	imap_command_free(&s->cmd);
	reader_reset(&s->reader);
	s->active = false;
	s->mid_line = false;
	if (fenced)
		imap_untagged(s, "BYE [UNAVAILABLE] This account is served elsewhere now, please connect again");
	s->bad_in_row = bad ? s->bad_in_row + 1 : 0;
	if (s->bad_in_row >= IMAP_BAD_MAX && !s->closing)
		imap_bye(s, "Too many bad commands");
	check_deleted(s);
}

static enum imap_step run_command(struct imap_session *s)
{
	if (s->cmd.step) {
		if (s->cmd.step(s) == IMAP_MORE)
			return IMAP_MORE;
		s->cmd.step = NULL;
	}
	if (s->closing && s->mid_line)	/* a message broke off: there is nothing more to say */
		return IMAP_DONE;
	if (s->cmd.news != NEWS_NONE) {
		imap_news_start(s, s->cmd.news == NEWS_ALL);
		s->cmd.news = NEWS_NONE;
	}
	if (imap_news_step(s) == IMAP_MORE)
		return IMAP_MORE;
	finish_command(s);
	return IMAP_DONE;
}

/* --- input --- */

/* The command being read cannot be taken. */
static void refuse(struct imap_session *s)
{
	if (!reader_refuse(&s->reader))
		s->active = true;	/* to be answered now */
}

static void on_literal(struct imap_session *s)
{
	struct reader *r = &s->reader;
	uint64_t limit = s->c->env->max_message + (UINT64_C(256) << 20);

	if (!r->literal_sync && r->literal_size > limit) {
		imap_bye(s, "[TOOBIG] Nobody would wait for the end of that literal");
		return;
	}
	if (s->idling || !imap_is_append(s)) {
		if (!s->idling && reader_collect(r)) {
			if (r->literal_sync)
				buf_adds(&s->c->out, "+ OK\r\n");
			return;
		}
		if (!s->cmd.tag) {
			struct lex lx;

			lex_init(&lx, &s->cmd.arena, r->cmd.data, r->cmd.len, false);
			if (!lex_tag(&lx, &s->cmd.tag))
				s->cmd.tag = NULL;
		}
		imap_reply(s, "BAD [TOOBIG] A command has at most %u octets", s->c->env->max_command);
		s->cmd.bad = true;
		atomic_store(&s->idling, false);
		refuse(s);
		return;
	}
	imap_append_literal(s);
}

static void on_too_long(struct imap_session *s)
{
	struct lex lx;

	lex_init(&lx, &s->cmd.arena, s->reader.cmd.data, s->reader.cmd.len, false);
	if (!s->cmd.tag && (!lex_tag(&lx, &s->cmd.tag) || !lex_at(&lx, ' ')))
		s->cmd.tag = NULL;
	imap_reply(s, "BAD [TOOBIG] A command has at most %u octets", s->c->env->max_command);
	s->cmd.bad = true;
	atomic_store(&s->idling, false);
}

static void on_command(struct imap_session *s)
{
	if (s->idling) {
		imap_idle_line(s);
		return;
	}
	s->active = true;
	if (s->append)
		imap_append_finish(s);
	else
		imap_command_start(s);
}

/* Takes input up to one event; false: there is no more. */
static bool take_input(struct imap_session *s)
{
	struct conn *c = s->c;
	size_t used;
	enum reader_event ev;

	if (s->in_pos == c->in.len)
		return false;
	ev = reader_feed(&s->reader, c->in.data + s->in_pos, c->in.len - s->in_pos, &used);
	s->in_pos += used;
	switch (ev) {
	case READER_MORE:
		break;
	case READER_COMMAND:
		on_command(s);
		break;
	case READER_LITERAL:
		on_literal(s);
		break;
	case READER_DATA:
		imap_append_data(s, s->reader.data, s->reader.data_len);
		break;
	case READER_TOO_LONG:
		on_too_long(s);
		break;
	case READER_SKIPPED:
		s->active = true;
		break;
	}
	return true;
}

/* --- running --- */

static enum conn_want pause_or_go(struct imap_session *s)
{
	if (s->c->out.len > CONN_OUT_HIGH && conn_flush(s->c) > CONN_OUT_HIGH)
		return CONN_WANT_DRAIN;
	return slice_over(s) ? CONN_WANT_AGAIN : CONN_WANT_INPUT;
}

/* IDLE: what happened since.  True when it could all be told. */
static bool tell_idle(struct imap_session *s)
{
	if (!s->tell.active)
		imap_news_start(s, true);
	if (imap_news_step(s) == IMAP_MORE)
		return false;
	check_deleted(s);
	return true;
}

static enum conn_want run_until_waiting(struct imap_session *s)
{
	bool told = false;

	for (;;) {
		enum conn_want want = pause_or_go(s);
		bool more = false;

		if (s->closing && !s->active)
			return CONN_CLOSE;
		if (want != CONN_WANT_INPUT)
			return want;
		if (s->active) {
			run_command(s);
			if (s->closing && s->mid_line)
				return CONN_CLOSE;
			continue;
		}
		if (s->idling && !told) {
			told = tell_idle(s);
			continue;
		}
		more = take_input(s);
		if (!more)
			return CONN_WANT_INPUT;
	}
}

/* What an event asks for besides going on. */
static void on_events(struct imap_session *s, unsigned events)
{
	if (events & CONN_EV_EOF)
		s->eof = true;
	if (events & CONN_EV_STOP) {
		imap_bye(s, "[UNAVAILABLE] Server shutting down, please connect again");
		s->active = false;
		return;
	}
	if (!(events & CONN_EV_TIMEOUT)) {
		s->drained |= (events & CONN_EV_DRAINED) != 0;
		return;
	}
	if (s->active && s->drained) {	/* a long download goes on */
		s->drained = false;
		return;
	}
	imap_bye(s, "Disconnected for inactivity");
	s->active = false;
}

static enum conn_want imap_run(struct conn *c, unsigned events)
{
	struct imap_session *s;
	enum conn_want want;

	if (!c->session)
		session_start(c);
	s = c->session;
	s->slice_end = clock_mono_us(&clock_system) + IMAP_SLICE_US;
	on_events(s, events);
	want = run_until_waiting(s);
	if (s->in_pos) {
		buf_consume(&c->in, s->in_pos);
		s->in_pos = 0;
	}
	if (want == CONN_WANT_INPUT) {
		if (c->out.failed) {
			log_event(LOG_ERROR, "answer does not fit the output buffer", LF_S("user", c->user), LF_END);
			return CONN_CLOSE;
		}
		if (s->eof)
			return CONN_CLOSE;
		if (c->in.len == 0 && c->in.cap > IN_KEEP && reader_idle(&s->reader))
			buf_free(&c->in);
	}
	return want;
}

static void imap_free(struct conn *c)
{
	struct imap_session *s = c->session;

	if (!s)
		return;
	atomic_store(&s->idling, false);
	imap_append_free(s);
	imap_command_free(&s->cmd);
	imap_unselect(s);
	obox_user_close(&s->user);
	reader_free(&s->reader);
	free(s);
	c->session = NULL;
}

const struct conn_ops imap_conn_ops = { "imap", imap_run, imap_free };
