#include "daemon/imap/status.h"

#include "base/mem.h"
#include "daemon/imap/imap.h"

enum { ST_MESSAGES = 1, ST_RECENT = 2, ST_UIDNEXT = 4, ST_UIDVALIDITY = 8, ST_UNSEEN = 16, ST_DELETED = 32,
	ST_SIZE = 64, ST_HIGHESTMODSEQ = 128, ST_APPENDLIMIT = 256 };

static const struct { const char *name; uint32_t bit; } items_known[] = {
	{ "MESSAGES", ST_MESSAGES }, { "RECENT", ST_RECENT }, { "UIDNEXT", ST_UIDNEXT }, { "UIDVALIDITY", ST_UIDVALIDITY },
	{ "UNSEEN", ST_UNSEEN }, { "DELETED", ST_DELETED }, { "SIZE", ST_SIZE }, { "HIGHESTMODSEQ", ST_HIGHESTMODSEQ },
	{ "APPENDLIMIT", ST_APPENDLIMIT }
};

bool status_parse_items(struct lex *lx, uint32_t *items)
{
	*items = 0;
	if (!lex_char(lx, '('))
		return false;
	do {
		size_t i;

		for (i = 0; i < MEM_COUNT(items_known); i++)
			if (lex_word_is(lx, items_known[i].name))
				break;
		if (i == MEM_COUNT(items_known))
			return lex_fail(lx, "A STATUS item is expected");
		*items |= items_known[i].bit;
	} while (lex_at(lx, ' ') && lex_sp(lx));
	return lex_char(lx, ')');
}

bool status_wants_modseq(uint32_t items)
{
	return items & ST_HIGHESTMODSEQ;
}

static uint64_t item_value(const struct imap_session *s, const struct obox_status *st, uint32_t bit)
{
	switch (bit) {
	case ST_MESSAGES: return st->messages;
	case ST_UIDNEXT: return st->uidnext;
	case ST_UIDVALIDITY: return st->uidvalidity;
	case ST_UNSEEN: return st->unseen;
	case ST_DELETED: return st->deleted;
	case ST_SIZE: return st->size;
	case ST_HIGHESTMODSEQ: return st->highestmodseq;
	case ST_APPENDLIMIT: return s->c->env->max_message;
	default: return 0;	/* RECENT */
	}
}

int status_put(struct imap_session *s, const char *name, uint32_t items, struct err *err)
{
	struct buf *out = &s->c->out;
	struct obox_status st;
	const char *before = "";
	size_t i;
	int rc = obox_mailbox_status(s->user, name, &st, err);

	if (rc < 0)
		return rc;
	buf_adds(out, "* STATUS ");
	imap_put_mailbox(s, out, name);
	buf_adds(out, " (");
	for (i = 0; i < MEM_COUNT(items_known); i++) {
		if (!(items & items_known[i].bit))
			continue;
		buf_adds(out, before);
		buf_adds(out, items_known[i].name);
		buf_addc(out, ' ');
		buf_addu(out, item_value(s, &st, items_known[i].bit));
		before = " ";
	}
	buf_adds(out, ")\r\n");
	return 0;
}

void imap_cmd_status(struct imap_session *s, struct lex *lx)
{
	struct err err = ERR_INIT;
	uint32_t items;
	char *name;
	int rc;

	if (!(lex_sp(lx) && lex_mailbox(lx, &name) && lex_sp(lx) && status_parse_items(lx, &items) && lex_end(lx))) {
		imap_reply_bad(s, lx);
		return;
	}
	if (!imap_user(s))
		return;
	if (status_wants_modseq(items))
		imap_enable_condstore(s);
	rc = status_put(s, name, items, &err);
	if (rc < 0)
		imap_reply_err(s, rc, &err, name);
	else
		imap_reply(s, "OK Status completed");
}
