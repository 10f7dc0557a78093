/* CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 9051 section 6.3). */
#include "daemon/imap/imap.h"

#include <strings.h>

#include "base/mem.h"
#include "daemon/imap/special.h"
#include "mime/mime.h"

/* One mailbox name and the end of the command. */
static bool one_name(struct imap_session *s, struct lex *lx, char **name)
{
	if (lex_sp(lx) && lex_mailbox(lx, name) && lex_end(lx))
		return true;
	imap_reply_bad(s, lx);
	return false;
}

static void answer(struct imap_session *s, int rc, const struct err *err, const char *name, const char *done)
{
	if (rc < 0)
		imap_reply_err(s, rc, err, name);
	else
		imap_reply(s, "OK %s completed", done);
}

/* A '/' at the end only says that children are to come (RFC 9051 section 6.3.4). */
static void drop_separator(char *name)
{
	size_t len = strlen(name);

	if (len > 1 && name[len - 1] == '/')
		name[len - 1] = '\0';
}

/* RFC 9051 section 6.3.9.7: tells a client of IMAP4rev2 how its name is spelt here. */
static void tell_normalised(struct imap_session *s, const char *name)
{
	struct buf nfc = BUF_INIT(0);

	if (s->rev2 && mime_utf8_nfc(name, strlen(name), &nfc) == 0 && strcmp(buf_str(&nfc), name) != 0) {
		buf_adds(&s->c->out, "* LIST () \"/\" ");
		imap_put_mailbox(s, &s->c->out, buf_str(&nfc));
		buf_adds(&s->c->out, " (\"OLDNAME\" (");
		imap_put_mailbox(s, &s->c->out, name);
		buf_adds(&s->c->out, "))\r\n");
	}
	buf_free(&nfc);
}

/* "(USE (\Sent \Junk))" of RFC 6154 section 3; *known is false for a use that is not ours. */
static bool parse_use(struct lex *lx, uint32_t *special, bool *known)
{
	char *name;

	if (!lex_char(lx, '('))
		return false;
	if (!lex_word_is(lx, "USE"))
		return lex_fail(lx, "USE is the only parameter");
	if (!lex_sp(lx) || !lex_char(lx, '('))
		return false;
	while (!lex_at(lx, ')')) {
		uint32_t bit;

		if (!lex_char(lx, '\\') || !lex_atom(lx, "A special use", &name))
			return false;
		bit = special_use_bit(name);
		*special |= bit;
		if (!bit)
			*known = false;
		if (!lex_at(lx, ')') && !lex_sp(lx))
			return false;
	}
	return lex_char(lx, ')') && lex_char(lx, ')');
}

void imap_cmd_create(struct imap_session *s, struct lex *lx)
{
	struct obox_user *u;
	struct err err = ERR_INIT;
	uint32_t special = 0;
	bool known = true;
	char *name;
	int rc;

	if (lex_sp(lx) && lex_mailbox(lx, &name) && lex_at(lx, ' ') && lex_sp(lx))
		parse_use(lx, &special, &known);
	if (!lex_end(lx)) {
		imap_reply_bad(s, lx);
		return;
	}
	if (!known) {
		imap_reply(s, "NO [USEATTR] There is no such special use");
		return;
	}
	drop_separator(name);
	u = imap_user(s);
	if (!u)
		return;
	rc = obox_mailbox_create(u, name, special, &err);
	answer(s, rc, &err, name, "Create");
	if (rc == 0)
		tell_normalised(s, name);
}

void imap_cmd_delete(struct imap_session *s, struct lex *lx)
{
	struct obox_user *u;
	struct err err = ERR_INIT;
	char *name;
	int rc;

	if (!one_name(s, lx, &name))
		return;
	if (!strcmp(name, "INBOX")) {
		imap_reply(s, "NO [CANNOT] INBOX cannot be deleted");
		return;
	}
	u = imap_user(s);
	if (!u)
		return;
	rc = obox_mailbox_delete(u, name, &err);
	answer(s, rc, &err, name, "Delete");
	if (rc == 0 && s->view && obox_view_deleted(s->view)) {
		imap_unselect(s);
		imap_untagged(s, "OK [CLOSED] The deleted mailbox was the selected one");
	}
}

void imap_cmd_rename(struct imap_session *s, struct lex *lx)
{
	struct obox_user *u;
	struct err err = ERR_INIT;
	char *from, *to;
	int rc;

	if (!(lex_sp(lx) && lex_mailbox(lx, &from)) || !one_name(s, lx, &to)) {
		imap_reply_bad(s, lx);
		return;
	}
	drop_separator(to);
	u = imap_user(s);
	if (!u)
		return;
	rc = obox_mailbox_rename(u, from, to, &err);
	answer(s, rc, &err, from, "Rename");
	if (rc == 0)
		tell_normalised(s, to);
}

static void subscribe(struct imap_session *s, struct lex *lx, bool on)
{
	struct obox_user *u;
	struct err err = ERR_INIT;
	char *name;

	if (!one_name(s, lx, &name))
		return;
	drop_separator(name);
	u = imap_user(s);
	if (u)
		answer(s, obox_mailbox_subscribe(u, name, on, &err), &err, name, on ? "Subscribe" : "Unsubscribe");
}

void imap_cmd_subscribe(struct imap_session *s, struct lex *lx)
{
	subscribe(s, lx, true);
}

void imap_cmd_unsubscribe(struct imap_session *s, struct lex *lx)
{
	subscribe(s, lx, false);
}
