/* The table of commands, their start, and the ones that need no file of
 * their own: CAPABILITY, NOOP, CHECK, LOGOUT, ENABLE, ID, NAMESPACE. */
#include "daemon/imap/imap.h"

#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "daemon/imap/imap-capability.h"

static bool only_end(struct imap_session *s, struct lex *lx)
{
	if (lex_end(lx))
		return true;
	imap_reply_bad(s, lx);
	return false;
}

static void cmd_capability(struct imap_session *s, struct lex *lx)
{
	if (!only_end(s, lx))
		return;
	imap_untagged(s, "CAPABILITY " IMAP_CAPS_AFTER " APPENDLIMIT=%llu", (unsigned long long)s->c->env->max_message);
	imap_reply(s, "OK Capability completed");
}

static void cmd_noop(struct imap_session *s, struct lex *lx)
{
	if (only_end(s, lx))
		imap_reply(s, "OK %s completed", s->cmd.def->name[0] == 'N' ? "Noop" : "Check");
}

static void cmd_logout(struct imap_session *s, struct lex *lx)
{
	if (!only_end(s, lx))
		return;
	imap_bye(s, "Logging out");
	imap_reply(s, "OK Logout completed");
}

/* What the gate does is over when this engine has the connection. */
static void cmd_login(struct imap_session *s, struct lex *lx)
{
	imap_reply(s, "BAD You are logged in already");
	s->cmd.bad = true;
}

static void enable_one(struct imap_session *s, const char *name, struct buf *told)
{
	if (!strcasecmp(name, "CONDSTORE")) {
		imap_enable_condstore(s);
		buf_adds(told, " CONDSTORE");
	} else if (!strcasecmp(name, "QRESYNC")) {
		imap_enable_condstore(s);
		s->qresync = true;
		buf_adds(told, " QRESYNC");
	} else if (!strcasecmp(name, "IMAP4rev2")) {
		s->rev2 = true;
		buf_adds(told, " IMAP4rev2");
	}
	/* what is not known is ignored: RFC 5161 section 3.1 */
}

static void cmd_enable(struct imap_session *s, struct lex *lx)
{
	char *names[32];
	size_t n = 0, i;
	struct buf told = BUF_INIT(0);

	do {
		if (n == MEM_COUNT(names))
			lex_fail(lx, "More than %zu capabilities", MEM_COUNT(names));
		else if (lex_sp(lx) && lex_atom(lx, "A capability", &names[n]))
			n++;
	} while (!lx->failed && !lex_at_end(lx));
	if (!only_end(s, lx))
		return;
	for (i = 0; i < n; i++)
		enable_one(s, names[i], &told);
	imap_untagged(s, "ENABLED%s", buf_str(&told));
	buf_free(&told);
	imap_reply(s, "OK Enabled");
}

/* One field-value pair of ID; the text for the log in *text. */
static bool id_pair(struct lex *lx, struct buf *text)
{
	char *field, *value = NULL;
	size_t len;

	if (!lex_string(lx, "The name of an ID field", &field, &len) || !lex_sp(lx))
		return false;
	if (!lex_word_is(lx, "NIL") && !lex_string(lx, "The value of an ID field", &value, &len))
		return false;
	if (text->len < 400 && value)
		buf_addf(text, "%s%.40s=%.80s", text->len ? ", " : "", field, value);
	return !lx->failed;
}

/* RFC 2971: at most 30 pairs. */
static bool id_list(struct lex *lx, struct buf *text)
{
	unsigned n = 0;

	if (lex_word_is(lx, "NIL"))
		return true;
	if (!lex_char(lx, '('))
		return false;
	while (!lex_at(lx, ')')) {
		if (n && !lex_sp(lx))
			return false;
		if (++n > 30)
			return lex_fail(lx, "More than 30 fields");
		if (!id_pair(lx, text))
			return false;
	}
	return lex_char(lx, ')');
}

static void cmd_id(struct imap_session *s, struct lex *lx)
{
	struct buf text = BUF_INIT(1024);

	lex_sp(lx);
	id_list(lx, &text);
	if (only_end(s, lx)) {
		if (text.len)
			log_event(LOG_INF, "imap client", LF_S("user", s->c->user), LF_S("id", buf_str(&text)), LF_END);
		imap_untagged(s, "ID (\"name\" \"Culver\" \"version\" \"%s\")", s->c->env->version ? s->c->env->version : "");
		imap_reply(s, "OK ID completed");
	}
	buf_free(&text);
}

static void cmd_namespace(struct imap_session *s, struct lex *lx)
{
	if (!only_end(s, lx))
		return;
	imap_untagged(s, "NAMESPACE ((\"\" \"/\")) NIL NIL");
	imap_reply(s, "OK Namespace completed");
}

static const struct imap_command commands[] = {
	/* name, start, news, selected, uid */
	{ "APPEND", imap_cmd_append, NEWS_ALL, false, false },
	{ "AUTHENTICATE", cmd_login, NEWS_NONE, false, false },
	{ "CAPABILITY", cmd_capability, NEWS_ALL, false, false },
	{ "CHECK", cmd_noop, NEWS_ALL, true, false },
	{ "CLOSE", imap_cmd_close, NEWS_NONE, true, false },
	{ "COPY", imap_cmd_copy, NEWS_ALL, true, true },
	{ "CREATE", imap_cmd_create, NEWS_ALL, false, false },
	{ "DELETE", imap_cmd_delete, NEWS_ALL, false, false },
	{ "ENABLE", cmd_enable, NEWS_ALL, false, false },
	{ "EXAMINE", imap_cmd_examine, NEWS_NONE, false, false },
	{ "EXPUNGE", imap_cmd_expunge, NEWS_ALL, true, true },
	{ "FETCH", imap_cmd_fetch, NEWS_NO_EXPUNGE, true, true },
	{ "ID", cmd_id, NEWS_ALL, false, false },
	{ "IDLE", imap_cmd_idle, NEWS_ALL, false, false },
	{ "LIST", imap_cmd_list, NEWS_ALL, false, false },
	{ "LOGIN", cmd_login, NEWS_NONE, false, false },
	{ "LOGOUT", cmd_logout, NEWS_NONE, false, false },
	{ "LSUB", imap_cmd_lsub, NEWS_ALL, false, false },
	{ "MOVE", imap_cmd_move, NEWS_ALL, true, true },
	{ "NAMESPACE", cmd_namespace, NEWS_ALL, false, false },
	{ "NOOP", cmd_noop, NEWS_ALL, false, false },
	{ "RENAME", imap_cmd_rename, NEWS_ALL, false, false },
	{ "SEARCH", imap_cmd_search, NEWS_NO_EXPUNGE, true, true },
	{ "SELECT", imap_cmd_select, NEWS_NONE, false, false },
	{ "STARTTLS", cmd_login, NEWS_NONE, false, false },
	{ "STATUS", imap_cmd_status, NEWS_ALL, false, false },
	{ "STORE", imap_cmd_store, NEWS_NO_EXPUNGE, true, true },
	{ "SUBSCRIBE", imap_cmd_subscribe, NEWS_ALL, false, false },
	{ "UNSELECT", imap_cmd_unselect, NEWS_NONE, true, false },
	{ "UNSUBSCRIBE", imap_cmd_unsubscribe, NEWS_ALL, false, false }
};

const struct imap_command *imap_command_find(const char *name)
{
	size_t i;

	for (i = 0; i < MEM_COUNT(commands); i++)
		if (!strcasecmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static void bad(struct imap_session *s, const char *text)
{
	imap_reply(s, "BAD %s", text);
	s->cmd.bad = true;
}

/* Tag and name; false with the answer set. */
static bool take_head(struct imap_session *s, struct lex *lx)
{
	char *name;

	if (!lex_tag(lx, &s->cmd.tag) || !lex_at(lx, ' ')) {
		s->cmd.tag = NULL;
		bad(s, lx->p == lx->end && lx->p != lx->start ? "A command is expected after the tag" : "A tag is expected");
		return false;
	}
	if (s->reader.has_nul) {
		bad(s, "A command line cannot hold NUL");
		return false;
	}
	if (!lex_sp(lx) || !lex_atom(lx, "The name of a command", &name)) {
		imap_reply_bad(s, lx);
		return false;
	}
	if (!strcasecmp(name, "UID")) {
		s->cmd.uid = true;
		if (!lex_sp(lx) || !lex_atom(lx, "The name of a command after UID", &name)) {
			imap_reply_bad(s, lx);
			return false;
		}
	}
	s->cmd.def = imap_command_find(name);
	if (!s->cmd.def || (s->cmd.uid && !s->cmd.def->uid)) {
		s->cmd.def = NULL;
		bad(s, s->cmd.uid ? "There is no such UID command" : "There is no such command");
		return false;
	}
	return true;
}

void imap_command_start(struct imap_session *s)
{
	struct lex *lx = &s->cmd.lex;

	lex_init(lx, &s->cmd.arena, s->reader.cmd.data, s->reader.cmd.len, s->rev2);
	s->cmd.news = NEWS_ALL;
	if (!take_head(s, lx))
		return;
	s->cmd.news = s->cmd.uid ? NEWS_ALL : s->cmd.def->news;
	if (s->cmd.def->selected && !s->view) {
		bad(s, "No mailbox is selected");
		return;
	}
	s->cmd.def->start(s, lx);
}

void imap_command_free(struct imap_cmd *cmd)
{
	if (cmd->ctx_free && cmd->ctx)
		cmd->ctx_free(cmd->ctx);
	arena_free(&cmd->arena);
	buf_free(&cmd->reply);
	memset(cmd, 0, sizeof(*cmd));
}
