/* The LMTP engine: RFC 2033 over RFC 5321, with PIPELINING (2920),
 * ENHANCEDSTATUSCODES (2034), 8BITMIME (6152), CHUNKING and BINARYMIME
 * (3030), SMTPUTF8 (6531), SIZE (1870).
 *
 * DSN (3461) is not announced, because nothing here could send a report; its
 * parameters are checked and taken, and the client keeps that duty.
 *
 * A message goes through obox_msgin as it arrives, whatever it is made of;
 * one that cannot be taken is read to its end and refused there. */
#include "daemon/conn.h"

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/lmtp/lmtp-private.h"
#include "daemon/lmtp/lmtp.h"
#include "obox/obox.h"

#include <ctype.h>

enum { TIMEOUT_MS = 300000, BAD_COMMANDS_MAX = 50 };

enum mode { COMMAND, SKIP_LINE, DATA, BDAT };

struct rcpt {
	char *address;		/* as written, without brackets */
	char *user;
	char *mailbox;		/* the detail, or NULL */
};
struct lmtp {
	struct conn *c;
	enum mode mode;
	bool greeted, in_mail, used_bdat, last;
	unsigned bad;
	char *from;
	struct lmtp_mail_params params;
	struct rcpt *rcpts;
	size_t n_rcpts, cap_rcpts;
	struct obox_msgin *msg;
	struct lmtp_dot dot;
	uint64_t bdat_left, bdat_size, received;
	int failed;		/* enum err_code of the message, or 0 */
};

static void reply(struct lmtp *l, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void reply(struct lmtp *l, const char *code, const char *fmt, ...)
{
	va_list ap;

	buf_adds(&l->c->out, code);
	buf_addc(&l->c->out, ' ');
	va_start(ap, fmt);
	buf_vaddf(&l->c->out, fmt, ap);
	va_end(ap);
	buf_adds(&l->c->out, "\r\n");
	if (*code == '5')
		l->bad++;
}

static void reset(struct lmtp *l)
{
	size_t i;

	for (i = 0; i < l->n_rcpts; i++) {
		free(l->rcpts[i].address);
		free(l->rcpts[i].user);
		free(l->rcpts[i].mailbox);
	}
	l->n_rcpts = 0;
	free(l->from);
	l->from = NULL;
	if (l->msg)
		obox_msgin_free(&l->msg);
	l->in_mail = l->used_bdat = l->last = false;
	l->failed = 0;
	l->received = 0;
}

/* --- the message --- */

static void take(void *ctx, const void *data, size_t len)
{
	struct lmtp *l = ctx;
	struct err err = ERR_INIT;

	l->received += len;
	if (l->failed || !len)
		return;
	if (l->received > l->c->env->max_message)
		l->failed = ERR_LIMIT;
	else
		l->failed = obox_msgin_write(l->msg, data, len, &err);
	if (l->failed && l->failed != ERR_LIMIT)
		log_event(LOG_ERROR, "a message cannot be taken in", LF_ERR(&err), LF_END);
}

static void open_message(struct lmtp *l)
{
	struct err err = ERR_INIT;

	if (l->msg)
		return;
	l->failed = obox_msgin_new(l->c->env->obox, &l->msg, &err);
	if (l->failed)
		log_event(LOG_ERROR, "a message cannot be taken in", LF_ERR(&err), LF_END);
}

/* address NULL: the answer is to no recipient. */
static void reply_failure(struct lmtp *l, int rc, const char *address)
{
	char who[LMTP_PATH_MAX + 4] = "";

	if (address)
		snprintf(who, sizeof(who), "<%s> ", address);
	if (rc == ERR_LIMIT && l->failed)
		reply(l, "552 5.3.4", "%sThe message is larger than %llu octets", who, (unsigned long long)l->c->env->max_message);
	else if (rc == ERR_LIMIT)
		reply(l, "452 4.2.2", "%sThe mailbox is full", who);
	else
		reply(l, "451 4.3.0", "%sCannot store it now, try again later", who);
}

static void deliver(struct lmtp *l, char **prepends)
{
	struct conn_env *env = l->c->env;
	struct lmtp_delivery d = { .msg = l->msg, .from = l->from, .n = l->n_rcpts };
	size_t i;

	d.to = mem_calloc(d.n, sizeof(*d.to));
	for (i = 0; i < d.n; i++) {
		struct rcpt *r = &l->rcpts[i];

		prepends[i] = mem_printf("Return-Path: <%s>\r\nDelivered-To: %s\r\n", l->from, r->address);
		d.to[i] = (struct lmtp_target){ .user = r->user, .address = r->address, .mailbox = r->mailbox, .prepend = prepends[i], .rc = ERR_UNAVAILABLE };
	}
	if (env->deliver)
		env->deliver(env, &d);
	else
		lmtp_deliver_here(env, &d);
	for (i = 0; i < d.n; i++) {
		if (d.to[i].rc == 0)
			reply(l, "250 2.0.0", "<%s> %s Saved", d.to[i].address, l->c->id);
		else
			reply_failure(l, d.to[i].rc, d.to[i].address);
		free(prepends[i]);
	}
	free(d.to);
}

/* The last byte is here: store, answer once for each recipient (RFC 2033 section 4.2). */
static void end_message(struct lmtp *l)
{
	char **prepends = mem_calloc(l->n_rcpts, sizeof(*prepends));
	struct err err = ERR_INIT;
	size_t i;

	if (!l->failed) {
		l->failed = obox_msgin_finish(l->msg, &err);
		if (l->failed)
			log_event(LOG_ERROR, "a message cannot be taken in", LF_ERR(&err), LF_END);
	}
	if (!l->failed)
		deliver(l, prepends);
	else
		for (i = 0; i < l->n_rcpts; i++)
			reply_failure(l, l->failed, l->rcpts[i].address);
	free(prepends);
	l->bad = 0;
	reset(l);
	l->mode = COMMAND;
}

static void data_input(struct lmtp *l)
{
	struct buf *in = &l->c->in;

	buf_consume(in, lmtp_dot_feed(&l->dot, in->data, in->len, take, l));
	if (l->dot.state == DOT_END)
		end_message(l);
}

static void end_chunk(struct lmtp *l)
{
	l->mode = COMMAND;
	if (!l->in_mail || !l->n_rcpts)
		reply(l, "503 5.5.1", "BDAT needs MAIL and RCPT before it");
	else if (l->last)
		end_message(l);
	else if (l->failed)
		reply_failure(l, l->failed, NULL);
	else
		reply(l, "250 2.0.0", "%llu octets received", (unsigned long long)l->bdat_size);
}

static void bdat_input(struct lmtp *l)
{
	struct buf *in = &l->c->in;
	size_t n = in->len < l->bdat_left ? in->len : (size_t)l->bdat_left;

	if (l->in_mail && l->n_rcpts)
		take(l, in->data, n);
	buf_consume(in, n);
	l->bdat_left -= n;
	if (!l->bdat_left)
		end_chunk(l);
}

/* --- commands --- */

static void cmd_lhlo(struct lmtp *l, const char *arg)
{
	struct buf *out = &l->c->out;

	if (!*arg) {
		reply(l, "501 5.5.4", "Say LHLO and your name");
		return;
	}
	reset(l);
	l->greeted = true;
	buf_addf(out, "250-%s\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-BINARYMIME\r\n250-CHUNKING\r\n250-SMTPUTF8\r\n250 SIZE %llu\r\n",
		 l->c->env->hostname, (unsigned long long)l->c->env->max_message);
}

static void cmd_hello(struct lmtp *l, const char *arg)
{
	reply(l, "500 5.5.1", "This is LMTP: say LHLO");
}

static void cmd_mail(struct lmtp *l, const char *arg)
{
	char addr[LMTP_PATH_MAX];
	struct lmtp_reply why;
	const char *bad;

	if (!l->greeted || l->in_mail) {
		reply(l, "503 5.5.1", l->in_mail ? "There was a MAIL command already: RSET first" : "LHLO first");
		return;
	}
	if (strncasecmp(arg, "FROM:", 5)) {
		reply(l, "501 5.5.4", "Say MAIL FROM:<address>");
		return;
	}
	arg += 5;
	bad = lmtp_parse_path(&arg, true, addr);
	if (bad) {
		reply(l, "501 5.1.7", "MAIL FROM: %s", bad);
	} else if (lmtp_mail_params(arg, &l->params, &why) < 0) {
		reply(l, why.code, "%s", why.text);
	} else if (lmtp_has_8bit(addr) && !l->params.smtputf8) {
		reply(l, "553 5.6.7", "An address that is not ASCII needs SMTPUTF8");
	} else if (l->params.size > l->c->env->max_message) {
		reply(l, "552 5.3.4", "At most %llu octets are taken", (unsigned long long)l->c->env->max_message);
	} else {
		l->from = mem_strdup(addr);
		l->in_mail = true;
		reply(l, "250 2.1.0", "Sender ok");
	}
}

/* 1 with the user (and the detail that was taken off, or NULL), 0, <0. */
static int find_user(struct lmtp *l, const char *addr, char **user_r, char **detail_r)
{
	struct conn_env *env = l->c->env;
	char plain[LMTP_PATH_MAX], *at, *cut;
	struct err err = ERR_INIT;
	int rc;

	*detail_r = NULL;
	lmtp_plain_address(addr, plain);
	rc = env->user_exists(env, plain, user_r, &err);
	if (rc == 0 && *env->recipient_delimiter) {
		cut = strchr(plain, env->recipient_delimiter[0]);
		at = strrchr(plain, '@');
		if (cut && cut > plain && (!at || cut < at)) {
			*detail_r = mem_strndup(cut + 1, at ? (size_t)(at - cut - 1) : strlen(cut + 1));
			memmove(cut, at ? at : "", strlen(at ? at : "") + 1);
			rc = env->user_exists(env, plain, user_r, &err);
		}
	}
	if (rc < 0)
		log_event(LOG_ERROR, "a recipient cannot be looked up", LF_S("to", addr), LF_ERR(&err), LF_END);
	return rc;
}

static void add_rcpt(struct lmtp *l, const char *addr)
{
	char *user = NULL, *detail;
	int rc = find_user(l, addr, &user, &detail);

	if (rc == 1) {
		mem_grow(&l->rcpts, &l->cap_rcpts, l->n_rcpts + 1, sizeof(*l->rcpts));
		l->rcpts[l->n_rcpts++] = (struct rcpt){ mem_strdup(addr), user, l->c->env->detail_mailbox && detail && *detail ? mem_strdup(detail) : NULL };
		reply(l, "250 2.1.5", "Recipient ok");
	} else if (rc == 0) {
		reply(l, "550 5.1.1", "<%s> There is no such user here", addr);
	} else {
		reply(l, "451 4.3.0", "<%s> Cannot look up users now, try again later", addr);
	}
	free(detail);
}

static void cmd_rcpt(struct lmtp *l, const char *arg)
{
	char addr[LMTP_PATH_MAX];
	struct lmtp_reply why;
	const char *bad;

	if (!l->in_mail || l->used_bdat) {
		reply(l, "503 5.5.1", l->in_mail ? "The message has begun" : "MAIL first");
		return;
	}
	if (strncasecmp(arg, "TO:", 3)) {
		reply(l, "501 5.5.4", "Say RCPT TO:<address>");
		return;
	}
	arg += 3;
	bad = lmtp_parse_path(&arg, false, addr);
	if (bad)
		reply(l, "501 5.1.3", "RCPT TO: %s", bad);
	else if (lmtp_rcpt_params(arg, &why) < 0)
		reply(l, why.code, "%s", why.text);
	else if (lmtp_has_8bit(addr) && !l->params.smtputf8)
		reply(l, "553 5.6.7", "An address that is not ASCII needs SMTPUTF8");
	else if (l->n_rcpts >= l->c->env->max_recipients)
		reply(l, "452 4.5.3", "Too many recipients");
	else
		add_rcpt(l, addr);
}

static void cmd_data(struct lmtp *l, const char *arg)
{
	if (*arg)
		reply(l, "501 5.5.4", "DATA takes no argument");
	else if (!l->in_mail || !l->n_rcpts)
		reply(l, "503 5.5.1", l->in_mail ? "No valid recipients" : "MAIL first");
	else if (l->used_bdat || l->params.body == LMTP_BINARYMIME)
		reply(l, "503 5.5.1", "This message must be sent with BDAT");
	else {
		open_message(l);
		l->dot = (struct lmtp_dot){ DOT_LINE_START, false };
		l->mode = DATA;
		buf_adds(&l->c->out, "354 Send the message, end with <CRLF>.<CRLF>\r\n");
	}
}

static void cmd_bdat(struct lmtp *l, const char *arg)
{
	if (lmtp_parse_bdat(arg, &l->bdat_size, &l->last) < 0) {
		reply(l, "501 5.5.4", "Say BDAT size, or BDAT size LAST");
		return;
	}
	if (l->in_mail && l->n_rcpts) {
		open_message(l);
		l->used_bdat = true;
	}
	l->bdat_left = l->bdat_size;
	l->mode = BDAT;
	if (!l->bdat_left)
		end_chunk(l);
}

static void cmd_rset(struct lmtp *l, const char *arg)
{
	reset(l);
	reply(l, "250 2.0.0", "Ok");
}

static void cmd_noop(struct lmtp *l, const char *arg)
{
	reply(l, "250 2.0.0", "Ok");
}

static void cmd_vrfy(struct lmtp *l, const char *arg)
{
	if (*arg)
		reply(l, "252 2.5.0", "Send some mail and see");
	else
		reply(l, "501 5.5.4", "Say VRFY and a name");
}

static void cmd_help(struct lmtp *l, const char *arg)
{
	reply(l, "214 2.0.0", "LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT: see RFC 2033");
}

static const struct command {
	const char *name;
	void (*run)(struct lmtp *l, const char *arg);
} commands[] = {
	{ "LHLO", cmd_lhlo }, { "HELO", cmd_hello }, { "EHLO", cmd_hello }, { "MAIL", cmd_mail }, { "RCPT", cmd_rcpt }, { "DATA", cmd_data },
	{ "BDAT", cmd_bdat }, { "RSET", cmd_rset }, { "NOOP", cmd_noop }, { "VRFY", cmd_vrfy }, { "HELP", cmd_help },
};

/* false: QUIT. */
static bool command(struct lmtp *l, char *line)
{
	size_t n = strcspn(line, " "), i;
	char *arg = line + n, *end;

	while (*arg == ' ')
		arg++;
	end = arg + strlen(arg);
	while (end > arg && end[-1] == ' ')
		*--end = '\0';
	if (n == 4 && !strncasecmp(line, "QUIT", 4)) {
		reply(l, "221 2.0.0", "%s Bye", l->c->env->hostname);
		return false;
	}
	for (i = 0; i < MEM_COUNT(commands); i++) {
		if (n != 4 || strncasecmp(line, commands[i].name, 4))
			continue;
		commands[i].run(l, arg);
		return true;
	}
	reply(l, "500 5.5.1", "Unknown command \"%.*s\"", (int)(n < 32 ? n : 32), line);
	return true;
}

/* One line from the input: 1 run, 0 not there yet, -1 QUIT. */
static int line_input(struct lmtp *l)
{
	struct buf *in = &l->c->in;
	unsigned char *nl = memchr(in->data, '\n', in->len < LMTP_LINE_MAX ? in->len : LMTP_LINE_MAX);
	size_t len, used;
	bool go_on;
	char *line;

	if (!nl) {
		if (in->len < LMTP_LINE_MAX)
			return 0;
		reply(l, "500 5.5.2", "The line is longer than %d octets", LMTP_LINE_MAX);
		l->mode = SKIP_LINE;
		return 1;
	}
	used = (size_t)(nl - in->data) + 1;
	len = used - 1;
	if (len && nl[-1] == '\r')
		len--;
	line = mem_strndup((char *)in->data, len);
	buf_consume(in, used);
	go_on = true;
	if (strlen(line) != len || strcspn(line, "\r\x7f\b\v\f\t\x1b") != len)
		reply(l, "500 5.5.2", "There are control characters in the command");
	else
		go_on = command(l, line);
	free(line);
	return go_on ? 1 : -1;
}

static void skip_input(struct lmtp *l)
{
	struct buf *in = &l->c->in;
	unsigned char *nl = memchr(in->data, '\n', in->len);

	buf_consume(in, nl ? (size_t)(nl - in->data) + 1 : in->len);
	if (nl)
		l->mode = COMMAND;
}

static int step(struct lmtp *l)
{
	switch (l->mode) {
	case DATA:
		data_input(l);
		return 1;
	case BDAT:
		bdat_input(l);
		return 1;
	case SKIP_LINE:
		skip_input(l);
		return 1;
	default:
		return line_input(l);
	}
}

static void start(struct conn *c)
{
	struct lmtp *l = MEM_NEW(struct lmtp);

	c->session = l;
	c->timeout_ms = TIMEOUT_MS;
	l->c = c;
	buf_addf(&c->out, "220 %s LMTP Culver ready\r\n", c->env->hostname);
}

static enum conn_want run(struct conn *c, unsigned events)
{
	struct lmtp *l = c->session;
	int rc = 1;

	if (events & CONN_EV_START) {
		start(c);
		l = c->session;
	}
	if (events & (CONN_EV_STOP | CONN_EV_TIMEOUT)) {
		reply(l, events & CONN_EV_STOP ? "421 4.3.2" : "421 4.4.2", "%s %s", c->env->hostname, events & CONN_EV_STOP ? "is stopping" : "waited too long");
		return CONN_CLOSE;
	}
	while (rc == 1 && c->in.len) {
		rc = step(l);
		if (l->bad > BAD_COMMANDS_MAX) {
			reply(l, "421 4.7.0", "%s Too many errors", c->env->hostname);
			return CONN_CLOSE;
		}
		if (c->out.len > CONN_OUT_HIGH)
			return CONN_WANT_DRAIN;
	}
	if (rc < 0 || events & CONN_EV_EOF)
		return CONN_CLOSE;
	return CONN_WANT_INPUT;
}

static void lmtp_free(struct conn *c)
{
	struct lmtp *l = c->session;

	if (!l)
		return;
	reset(l);
	free(l->rcpts);
	free(l);
	c->session = NULL;
}

const struct conn_ops lmtp_conn_ops = { "lmtp", run, lmtp_free };
