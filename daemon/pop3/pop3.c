/* The POP3 engine after the login: RFC 1939 with CAPA (2449), UIDL and TOP.
 *
 * One session a user: a second is told [IN-USE].  What DELE marked goes away
 * at QUIT and nowhere else, and QUIT is answered when that is durable.
 * Answers of many lines are made in pieces as the client takes them. */
#include "daemon/conn.h"

#include "base/err.h"
#include "base/hmap.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/pop3/pop3-private.h"
#include "obox/obox.h"

#include <inttypes.h>
#include <pthread.h>

enum { TIMEOUT_MS = 600000, PIECE = 32 * 1024, BATCH = 128 };

enum sending { NOTHING, LISTING, UIDLISTING, BODY };

struct pop3 {
	struct conn *c;
	bool locked, skip_line;
	struct obox_user *user;
	struct obox_view *view;
	uint32_t uidvalidity;
	uint32_t count;			/* messages at the login */
	struct seqset deleted, seen;	/* UIDs */
	/* the answer under way */
	enum sending sending;
	uint32_t pos;			/* of a listing */
	struct obox_body *body;
	uint64_t off;
	struct pop3_lines lines;
	char *piece;
};

/* --- one session a user: all sessions of a user are in one worker --- */

static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER;
static struct hmap users = HMAP_INIT;

static bool user_lock(const char *name)
{
	bool free_now;

	pthread_mutex_lock(&users_lock);
	free_now = !hmap_gets(&users, name);
	if (free_now)
		hmap_put(&users, name, strlen(name), &users);
	pthread_mutex_unlock(&users_lock);
	return free_now;
}

static void user_unlock(const char *name)
{
	pthread_mutex_lock(&users_lock);
	hmap_del(&users, name, strlen(name));
	if (!users.n)
		hmap_free(&users);
	pthread_mutex_unlock(&users_lock);
}

/* --- messages --- */

static bool read_msg(struct pop3 *p, uint32_t seq, struct obox_msg *m)
{
	return seq && seq <= p->count && obox_view_read(p->view, seq, m, 1) == 1;
}

/* Message seq when it is there and not deleted; else it answers. */
static bool want_msg(struct pop3 *p, uint32_t seq, struct obox_msg *m)
{
	if (!read_msg(p, seq, m))
		buf_addf(&p->c->out, "-ERR There is no message %" PRIu32 "\r\n", seq);
	else if (seqset_contains(&p->deleted, m->uid))
		buf_addf(&p->c->out, "-ERR Message %" PRIu32 " is deleted\r\n", seq);
	else
		return true;
	return false;
}

static void add_list_line(struct pop3 *p, uint32_t seq, const struct obox_msg *m, bool uidl)
{
	if (uidl)
		buf_addf(&p->c->out, "%" PRIu32 " %" PRIx32 ".%" PRIx32 "\r\n", seq, p->uidvalidity, m->uid);
	else
		buf_addf(&p->c->out, "%" PRIu32 " %" PRIu64 "\r\n", seq, m->size);
}

/* true: enough output for now. */
static bool send_list(struct pop3 *p)
{
	struct obox_msg m[BATCH];
	size_t n, i;

	while (p->pos <= p->count) {
		n = obox_view_read(p->view, p->pos, m, BATCH);
		for (i = 0; i < n && p->pos <= p->count; i++, p->pos++)
			if (!seqset_contains(&p->deleted, m[i].uid))
				add_list_line(p, p->pos, &m[i], p->sending == UIDLISTING);
		if (!n)
			break;
		if (p->c->out.len > CONN_OUT_HIGH / 2 && conn_flush(p->c) > CONN_OUT_HIGH / 2)
			return true;
	}
	buf_adds(&p->c->out, ".\r\n");
	p->sending = NOTHING;
	return false;
}

static void body_end(struct pop3 *p)
{
	obox_body_close(&p->body);
	free(p->piece);
	p->piece = NULL;
	p->sending = NOTHING;
}

/* true: enough output for now.  Throws the connection away (in closing) when
 * the message fails in the middle: there is no other way to tell then. */
static bool send_body(struct pop3 *p, bool *closing)
{
	uint64_t size = obox_body_size(p->body);
	struct err err = ERR_INIT;

	while (p->off < size) {
		size_t len = size - p->off < PIECE ? (size_t)(size - p->off) : PIECE;

		if (obox_body_read(p->body, p->off, p->piece, len, &err) < 0) {
			log_event(LOG_ERROR, "a message cannot be read", LF_S("user", p->c->user), LF_ERR(&err), LF_END);
			body_end(p);
			*closing = true;
			return false;
		}
		p->off += len;
		if (!pop3_lines_add(&p->lines, p->piece, len, &p->c->out))
			break;
		if (p->c->out.len > CONN_OUT_HIGH / 2 && conn_flush(p->c) > CONN_OUT_HIGH / 2)
			return true;
	}
	pop3_lines_end(&p->lines, &p->c->out);
	body_end(p);
	return false;
}

/* --- commands --- */

static void cmd_stat(struct pop3 *p)
{
	struct obox_msg m[BATCH];
	uint64_t size = 0, count = 0;
	uint32_t seq = 1;
	size_t n, i;

	while (seq <= p->count && (n = obox_view_read(p->view, seq, m, BATCH)) > 0) {
		for (i = 0; i < n && seq <= p->count; i++, seq++) {
			if (seqset_contains(&p->deleted, m[i].uid))
				continue;
			count++;
			size += m[i].size;
		}
	}
	buf_addf(&p->c->out, "+OK %" PRIu64 " %" PRIu64 "\r\n", count, size);
}

static void cmd_list(struct pop3 *p, const struct pop3_command *cmd)
{
	bool uidl = cmd->verb == POP3_UIDL;
	struct obox_msg m;

	if (!cmd->n_args) {
		buf_adds(&p->c->out, "+OK\r\n");
		p->sending = uidl ? UIDLISTING : LISTING;
		p->pos = 1;
	} else if (want_msg(p, cmd->arg[0], &m)) {
		buf_adds(&p->c->out, "+OK ");
		add_list_line(p, cmd->arg[0], &m, uidl);
	}
}

static void cmd_retr(struct pop3 *p, const struct pop3_command *cmd)
{
	struct err err = ERR_INIT;
	struct obox_msg m;
	int rc;

	if (!want_msg(p, cmd->arg[0], &m))
		return;
	p->body = obox_body_begin(p->user, &m, cmd->verb != POP3_TOP);
	rc = obox_body_wait(&p->body, &err);
	if (rc < 0) {
		log_event(LOG_ERROR, "a message cannot be read", LF_S("user", p->c->user), LF_U("uid", m.uid), LF_ERR(&err), LF_END);
		buf_addf(&p->c->out, "-ERR [SYS/%s] The message cannot be read\r\n", err_is_temporary(rc) ? "TEMP" : "PERM");
		return;
	}
	if (cmd->verb != POP3_TOP)
		obox_body_expect(p->body, 0, m.size);
	buf_addf(&p->c->out, "+OK %" PRIu64 " octets\r\n", obox_body_size(p->body));
	memset(&p->lines, 0, sizeof(p->lines));
	p->lines.limited = cmd->verb == POP3_TOP;
	p->lines.lines = cmd->arg[1];
	p->piece = mem_realloc(NULL, PIECE);
	p->off = 0;
	p->sending = BODY;
	if (cmd->verb == POP3_RETR)
		seqset_add(&p->seen, m.uid, m.uid);
}

static void cmd_dele(struct pop3 *p, const struct pop3_command *cmd)
{
	struct obox_msg m;

	if (!want_msg(p, cmd->arg[0], &m))
		return;
	seqset_add(&p->deleted, m.uid, m.uid);
	buf_addf(&p->c->out, "+OK Message %" PRIu32 " will be deleted\r\n", cmd->arg[0]);
}

static void cmd_capa(struct pop3 *p)
{
	buf_addf(&p->c->out, "+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\nUSER\r\nSASL PLAIN\r\nIMPLEMENTATION Culver-%s\r\n.\r\n", p->c->env->version);
}

/* What was fetched has been seen, also for IMAP. */
static void mark_seen(struct pop3 *p)
{
	const struct obox_flag_change change = { .how = OBOX_FLAGS_ADD, .flags = OBOX_SEEN, .unchangedsince = UINT64_MAX };
	struct err err = ERR_INIT;
	uint64_t modseq;

	if (p->seen.n && obox_store(p->view, &p->seen, &change, NULL, NULL, &modseq, &err) < 0)
		log_event(LOG_WARN, "messages could not be marked as seen", LF_S("user", p->c->user), LF_ERR(&err), LF_END);
	seqset_clear(&p->seen);
}

static void cmd_quit(struct pop3 *p)
{
	struct err err = ERR_INIT;
	uint64_t modseq;
	int rc = 0;

	mark_seen(p);
	if (p->deleted.n)
		rc = obox_expunge(p->view, &p->deleted, true, &modseq, &err);
	if (rc < 0) {
		log_event(err_is_temporary(rc) ? LOG_WARN : LOG_ERROR, "messages could not be deleted", LF_S("user", p->c->user), LF_ERR(&err), LF_END);
		buf_adds(&p->c->out, "-ERR [SYS/TEMP] The deleted messages are still there\r\n");
		return;
	}
	if (p->deleted.n)
		log_event(LOG_INF, "messages deleted", LF_S("user", p->c->user), LF_U("messages", seqset_count(&p->deleted)), LF_END);
	user_unlock(p->c->user);	/* who reads the answer may come again at once */
	p->locked = false;
	buf_adds(&p->c->out, "+OK Bye\r\n");
}

/* false: the session is over. */
static bool command(struct pop3 *p, const char *line)
{
	struct pop3_command cmd;
	const char *wrong = pop3_parse(line, &cmd);

	if (wrong) {
		buf_addf(&p->c->out, "-ERR %s\r\n", wrong);
		return true;
	}
	switch (cmd.verb) {
	case POP3_STAT:
		cmd_stat(p);
		break;
	case POP3_LIST:
	case POP3_UIDL:
		cmd_list(p, &cmd);
		break;
	case POP3_RETR:
	case POP3_TOP:
		cmd_retr(p, &cmd);
		break;
	case POP3_DELE:
		cmd_dele(p, &cmd);
		break;
	case POP3_RSET:
		seqset_clear(&p->deleted);
		buf_adds(&p->c->out, "+OK\r\n");
		break;
	case POP3_CAPA:
		cmd_capa(p);
		break;
	case POP3_QUIT:
		cmd_quit(p);
		return false;
	default:
		buf_adds(&p->c->out, "+OK\r\n");
	}
	return true;
}

/* 1 a line was run, 0 there is none, -1 the session is over. */
static int line_input(struct pop3 *p)
{
	struct buf *in = &p->c->in;
	unsigned char *nl = in->len ? memchr(in->data, '\n', in->len) : NULL;
	size_t used = nl ? (size_t)(nl - in->data) + 1 : in->len, len = used;
	bool too_long = used > POP3_LINE_MAX, go_on;
	char *line;

	if (!nl && !too_long && !p->skip_line)
		return 0;
	if (p->skip_line || too_long) {
		if (!p->skip_line)
			buf_adds(&p->c->out, "-ERR The line is too long\r\n");
		p->skip_line = !nl;
		buf_consume(in, used);
		return in->len ? 1 : 0;
	}
	len -= len > 1 && nl[-1] == '\r' ? 2 : 1;
	line = mem_strndup((char *)in->data, len);
	buf_consume(in, used);
	go_on = command(p, line);
	free(line);
	return go_on ? 1 : -1;
}

/* --- the session --- */

static bool login_failed(struct pop3 *p, int rc, const struct err *err)
{
	log_event(err_is_temporary(rc) ? LOG_WARN : LOG_ERROR, "the mailbox cannot be opened", LF_S("user", p->c->user), LF_ERR(err), LF_END);
	buf_addf(&p->c->out, "-ERR [SYS/%s] The mailbox cannot be opened\r\n", err_is_temporary(rc) ? "TEMP" : "PERM");
	return false;
}

static bool start(struct conn *c)
{
	struct pop3 *p = MEM_NEW(struct pop3);
	struct obox_status st;
	struct err err = ERR_INIT;
	int rc;

	c->session = p;
	c->timeout_ms = TIMEOUT_MS;
	p->c = c;
	p->locked = user_lock(c->user);
	if (!p->locked) {
		buf_adds(&c->out, "-ERR [IN-USE] Another session has the mailbox\r\n");
		return false;
	}
	rc = obox_user_open(c->env->obox, c->user, &p->user, &err);
	if (rc == 0)
		rc = obox_view_open(p->user, "INBOX", false, NULL, NULL, &p->view, &err);
	if (rc < 0)
		return login_failed(p, rc, &err);
	obox_view_status(p->view, &st);
	p->uidvalidity = st.uidvalidity;
	p->count = obox_view_count(p->view);
	buf_addf(&c->out, "+OK %" PRIu32 " messages\r\n", p->count);
	return true;
}

/* Goes on with an answer under way; true when the client must take some first. */
static bool go_on(struct pop3 *p, bool *closing)
{
	if (p->sending == BODY)
		return send_body(p, closing);
	return p->sending != NOTHING && send_list(p);
}

static enum conn_want run(struct conn *c, unsigned events)
{
	struct pop3 *p = c->session;
	bool closing = false;
	int rc;

	if (events & CONN_EV_START) {
		if (!start(c))
			return CONN_CLOSE;
		p = c->session;
	}
	if (events & CONN_EV_TIMEOUT)
		return CONN_CLOSE;	/* RFC 1939 section 3: silently, and without deleting */
	if (events & CONN_EV_STOP) {
		if (p->sending == NOTHING)
			buf_adds(&c->out, "-ERR [SYS/TEMP] The server is stopping\r\n");
		return CONN_CLOSE;
	}
	do {
		if (go_on(p, &closing))
			return CONN_WANT_DRAIN;
		if (closing)
			return CONN_CLOSE;
		if (c->out.len > CONN_OUT_HIGH)
			return CONN_WANT_DRAIN;
		rc = line_input(p);
	} while (rc == 1);
	return rc < 0 || events & CONN_EV_EOF ? CONN_CLOSE : CONN_WANT_INPUT;
}

static void pop3_free(struct conn *c)
{
	struct pop3 *p = c->session;

	if (!p)
		return;
	c->session = NULL;
	if (p->body)
		body_end(p);
	if (p->view) {
		mark_seen(p);
		obox_view_close(&p->view);
	}
	if (p->user)
		obox_user_close(&p->user);
	if (p->locked)
		user_unlock(c->user);
	seqset_free(&p->deleted);
	seqset_free(&p->seen);
	free(p);
}

const struct conn_ops pop3_conn_ops = { "pop3", run, pop3_free };
