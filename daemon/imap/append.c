/* APPEND and MULTIAPPEND (RFC 9051 section 6.3.12, RFC 3502, RFC 3516, RFC
 * 7888, RFC 7889).
 *
 * The message goes from the connection straight into obox_msgin_write(); the
 * command line is parsed at each literal that is announced, so that a client
 * is told to go on only when the mailbox is there and the size will do.
 * Nothing is saved before the whole command was read; then all or nothing. */
#include "daemon/imap/imap.h"

#include <strings.h>

#include "base/mem.h"

enum { APPEND_MAX = 256 };	/* messages in one command */

struct append_msg {
	struct obox_msgin *in;
	struct lex_flags flags;
	int64_t idate;
};

struct append {
	char *mailbox;		/* in the command's arena */
	struct append_msg *msgs;
	size_t n, cap;
	size_t parsed;		/* of reader.cmd: up to behind the last announcement */
	bool failed;		/* the answer is set, what still comes is dropped */
};

void imap_append_free(struct imap_session *s)
{
	struct append *a = s->append;
	size_t i;

	if (!a)
		return;
	for (i = 0; i < a->n; i++)
		obox_msgin_free(&a->msgs[i].in);
	free(a->msgs);
	free(a);
	s->append = NULL;
}

bool imap_is_append(const struct imap_session *s)
{
	const struct buf *cmd = &s->reader.cmd;
	const unsigned char *sp = memchr(cmd->data, ' ', cmd->len);
	size_t left;

	if (s->append)
		return true;
	left = sp ? cmd->len - (size_t)(sp - cmd->data) : 0;
	return left > 8 && !strncasecmp((const char *)sp, " APPEND ", 8);
}

/* Is the literal that was just announced the next word? */
static bool at_announced(const struct lex *lx)
{
	const unsigned char *p = lx->p + (lex_at(lx, '~') ? 1 : 0);

	return p < lx->end && *p == '{' && memchr(p, '\n', (size_t)(lx->end - p)) == lx->end - 1;
}

static bool parse_options(struct lex *lx, struct append_msg *m)
{
	m->idate = INT64_MIN;
	if (lex_at(lx, '(') && !(lex_flags(lx, false, &m->flags) && lex_sp(lx)))
		return false;
	if (lex_at(lx, '"') && !(lex_datetime(lx, &m->idate) && lex_sp(lx)))
		return false;
	return at_announced(lx) || lex_fail(lx, "A message literal is expected");
}

/* "tag APPEND mailbox": 1 parsed, 0 the announced literal is the mailbox's
 * name, -1 wrong. */
static int parse_head(struct imap_session *s, struct lex *lx, char **mailbox)
{
	char *name;

	s->cmd.def = imap_command_find("APPEND");
	if (!lex_tag(lx, &s->cmd.tag) || !lex_sp(lx)) {
		s->cmd.tag = NULL;
		return -1;
	}
	if (!lex_atom(lx, "APPEND", &name) || !lex_sp(lx))
		return -1;
	if (at_announced(lx))
		return 0;
	return lex_mailbox(lx, mailbox) && lex_sp(lx) ? 1 : -1;
}

static void refuse_literal(struct imap_session *s)
{
	if (!reader_refuse(&s->reader))
		s->active = true;
}

static void go_on(struct imap_session *s)
{
	if (s->reader.literal_sync)
		buf_adds(&s->c->out, "+ OK\r\n");
}

/* Sets the answer and returns false when this message cannot be taken. */
static bool acceptable(struct imap_session *s, const struct append *a)
{
	uint64_t size = s->reader.literal_size;

	if (!size) {
		imap_reply(s, "NO [CANNOT] A message of no octets is not saved; nothing was");
		return false;
	}
	if (size > s->c->env->max_message) {
		imap_reply(s, "NO [TOOBIG] A message has at most %llu octets", (unsigned long long)s->c->env->max_message);
		return false;
	}
	if (a->n == APPEND_MAX) {
		imap_reply(s, "NO [LIMIT] At most %d messages in one APPEND", APPEND_MAX);
		return false;
	}
	return true;
}

static bool mailbox_there(struct imap_session *s, const char *mailbox)
{
	struct obox_user *u = imap_user(s);
	struct obox_status st;
	struct err err = ERR_INIT;
	int rc;

	if (!u)
		return false;
	rc = obox_mailbox_status(u, mailbox, &st, &err);
	if (rc == ERR_NOTFOUND)
		imap_reply(s, "NO [TRYCREATE] No such mailbox");
	else if (rc < 0)
		imap_reply_err(s, rc, &err, mailbox);
	return rc == 0;
}

static bool begin_message(struct imap_session *s, struct append *a, const struct append_msg *m)
{
	struct err err = ERR_INIT;
	int rc;

	if (!acceptable(s, a))
		return false;
	if (!a->n && !mailbox_there(s, a->mailbox))
		return false;
	mem_grow(&a->msgs, &a->cap, a->n + 1, sizeof(*a->msgs));
	a->msgs[a->n] = *m;
	rc = obox_msgin_new(s->c->env->obox, &a->msgs[a->n].in, &err);
	if (rc < 0) {
		imap_reply_err(s, rc, &err, a->mailbox);
		return false;
	}
	a->n++;
	return true;
}

void imap_append_literal(struct imap_session *s)
{
	struct reader *r = &s->reader;
	struct append *a = s->append;
	struct append_msg m = { .idate = INT64_MIN };
	struct lex lx;
	char *mailbox = NULL;
	int rc = 1;

	lex_init(&lx, &s->cmd.arena, r->cmd.data, r->cmd.len, s->rev2);
	if (!a) {
		rc = parse_head(s, &lx, &mailbox);
		if (rc == 0 && reader_collect(r)) {
			go_on(s);
			return;
		}
		if (rc == 0)
			lex_fail(&lx, "The mailbox name is too long");
		a = s->append = MEM_NEW(struct append);
		a->mailbox = mailbox;
		s->cmd.news = NEWS_ALL;
	} else if (!a->failed) {
		lx.p += a->parsed;
		lex_sp(&lx);
	}
	if (!a->failed && (lx.failed || r->has_nul || !parse_options(&lx, &m))) {
		lex_fail(&lx, "A command line cannot hold NUL");
		imap_reply_bad(s, &lx);
		a->failed = true;
	}
	if (!a->failed && !begin_message(s, a, &m))
		a->failed = true;
	if (a->failed) {
		refuse_literal(s);
		return;
	}
	a->parsed = r->cmd.len;
	reader_stream(r);
	go_on(s);
}

void imap_append_data(struct imap_session *s, const void *data, size_t len)
{
	struct append *a = s->append;
	struct obox_msgin *in = a->failed ? NULL : a->msgs[a->n - 1].in;
	struct err err = ERR_INIT;
	int rc;

	if (!in)
		return;
	rc = obox_msgin_write(in, data, len, &err);
	if (rc == 0 && !s->reader.left)
		rc = obox_msgin_finish(in, &err);
	if (rc < 0) {
		if (rc == ERR_LIMIT)
			imap_reply(s, "NO [TOOBIG] The message is too large");
		else
			imap_reply_err(s, rc, &err, a->mailbox);
		a->failed = true;
	}
}

static void save(struct imap_session *s, struct append *a)
{
	struct obox_save *saves = arena_alloc(&s->cmd.arena, a->n * sizeof(*saves));
	struct seqset uids = SEQSET_INIT;
	struct err err = ERR_INIT;
	uint32_t uidvalidity;
	size_t i;
	int rc;

	for (i = 0; i < a->n; i++) {
		saves[i].msg = a->msgs[i].in;
		saves[i].flags = a->msgs[i].flags.flags;
		saves[i].keywords = a->msgs[i].flags.keywords;
		saves[i].n_keywords = a->msgs[i].flags.n_keywords;
		saves[i].idate = a->msgs[i].idate;
	}
	rc = obox_save(s->user, a->mailbox, saves, a->n, &uidvalidity, &err);
	if (rc == ERR_NOTFOUND) {
		imap_reply(s, "NO [TRYCREATE] No such mailbox");
		return;
	}
	if (rc < 0) {
		imap_reply_err(s, rc, &err, a->mailbox);
		return;
	}
	for (i = 0; i < a->n; i++)
		seqset_add(&uids, saves[i].uid_r, saves[i].uid_r);
	imap_reply(s, "OK [APPENDUID %u ", uidvalidity);
	seqset_format(&uids, &s->cmd.reply);
	buf_adds(&s->cmd.reply, "] Append completed");
	seqset_free(&uids);
}

void imap_append_finish(struct imap_session *s)
{
	struct append *a = s->append;
	struct lex lx;

	if (a->failed)
		return;
	lex_init(&lx, &s->cmd.arena, s->reader.cmd.data, s->reader.cmd.len, s->rev2);
	lx.p += a->parsed;
	if (s->reader.has_nul)
		lex_fail(&lx, "A command line cannot hold NUL");
	if (lex_end(&lx))
		save(s, a);
	else
		imap_reply_bad(s, &lx);
}

/* Got here without a message literal. */
void imap_cmd_append(struct imap_session *s, struct lex *lx)
{
	struct append_msg m;
	char *mailbox;

	if (lex_sp(lx) && lex_mailbox(lx, &mailbox) && lex_sp(lx))
		parse_options(lx, &m);
	lex_fail(lx, "A message literal is expected");
	imap_reply_bad(s, lx);
}
