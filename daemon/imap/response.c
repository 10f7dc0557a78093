/* What goes to the client: answers, untagged responses, names and flags. */
#include "daemon/imap/imap.h"

#include <stdarg.h>

#include "base/log.h"
#include "base/mem.h"
#include "daemon/imap/utf7.h"
#include "mime/mime.h"

void imap_reply(struct imap_session *s, const char *fmt, ...)
{
	va_list ap;

	buf_clear(&s->cmd.reply);
	va_start(ap, fmt);
	buf_vaddf(&s->cmd.reply, fmt, ap);
	va_end(ap);
}

void imap_untagged(struct imap_session *s, const char *fmt, ...)
{
	va_list ap;

	buf_adds(&s->c->out, "* ");
	va_start(ap, fmt);
	buf_vaddf(&s->c->out, fmt, ap);
	va_end(ap);
	buf_adds(&s->c->out, "\r\n");
}

/* Texts hold pieces of what the client sent: nothing but printable ASCII goes back. */
static void add_text(struct buf *out, const char *text)
{
	for (; *text; text++)
		buf_addc(out, *text >= 0x20 && *text < 0x7f ? *text : '?');
}

void imap_reply_bad(struct imap_session *s, const struct lex *lx)
{
	buf_clear(&s->cmd.reply);
	buf_adds(&s->cmd.reply, lx->bad_name ? "NO [CANNOT] " : "BAD ");
	if (s->cmd.def && !lx->bad_name)
		buf_addf(&s->cmd.reply, "%s%s: ", s->cmd.uid ? "UID " : "", s->cmd.def->name);
	add_text(&s->cmd.reply, lx->error);
	s->cmd.bad = !lx->bad_name;
}

const char *imap_err_code(int rc)
{
	switch (rc) {
	case ERR_NOTFOUND: return "NONEXISTENT";
	case ERR_EXISTS: return "ALREADYEXISTS";
	case ERR_CONFLICT: return "INUSE";
	case ERR_DENIED: return "NOPERM";
	case ERR_CORRUPT: return "SERVERBUG";
	case ERR_INVALID: return "CANNOT";
	case ERR_LIMIT: return "LIMIT";
	default: return "UNAVAILABLE";	/* busy, timeout, unavailable, io, fenced, closed */
	}
}

static const char *err_text(int rc)
{
	switch (rc) {
	case ERR_NOTFOUND: return "No such mailbox";
	case ERR_EXISTS: return "A mailbox of that name exists already";
	case ERR_CONFLICT: return "Somebody else is changing this just now, try again";
	case ERR_DENIED: return "Not allowed";
	case ERR_CORRUPT: return "Damaged data was found and logged, please tell the administrator";
	case ERR_INVALID: return "This cannot be done";
	case ERR_LIMIT: return "Too large or too many";
	default: return "The mail store cannot be reached just now, nothing was changed; try again later";
	}
}

void imap_reply_err(struct imap_session *s, int rc, const struct err *err, const char *mailbox)
{
	buf_clear(&s->cmd.reply);
	buf_addf(&s->cmd.reply, "NO [%s] ", imap_err_code(rc));
	if (rc == ERR_INVALID && err->msg[0])	/* says what is wrong with a name */
		add_text(&s->cmd.reply, err->msg);
	else
		buf_adds(&s->cmd.reply, err_text(rc));
	if (rc == ERR_CORRUPT || err_is_temporary(rc) || rc == ERR_IO || rc == ERR_FENCED)
		log_event(rc == ERR_CORRUPT || rc == ERR_IO ? LOG_ERROR : LOG_WARN, "imap command failed",
			  LF_S("user", s->c->user), LF_S("mailbox", mailbox ? mailbox : s->mailbox),
			  LF_S("command", s->cmd.def ? s->cmd.def->name : ""), LF_S("code", err_code_name(rc)), LF_ERR(err), LF_END);
	if (rc == ERR_FENCED || rc == ERR_CLOSED)
		s->closing = true;
}

static bool is_atom_text(const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (s[i] <= 0x20 || s[i] >= 0x7f || strchr("(){%*\"\\", s[i]))
			return false;
	return len > 0 && !(len == 3 && (s[0] | 0x20) == 'n' && (s[1] | 0x20) == 'i' && (s[2] | 0x20) == 'l');
}

void imap_put_astring(struct buf *out, const char *str, size_t len)
{
	if (is_atom_text(str, len))
		buf_add(out, str, len);
	else
		mime_imap_string(out, str, len);
}

/* UTF-8 may stand in a quoted string once IMAP4rev2 is enabled. */
static void put_quoted_utf8(struct buf *out, const char *s)
{
	buf_addc(out, '"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_addc(out, '\\');
		buf_addc(out, *s);
	}
	buf_addc(out, '"');
}

void imap_put_mailbox(const struct imap_session *s, struct buf *out, const char *name)
{
	size_t len = strlen(name);
	struct buf b = BUF_INIT(0);

	if (is_atom_text(name, len) && !strchr(name, '&')) {
		buf_add(out, name, len);
	} else if (s->rev2) {
		put_quoted_utf8(out, name);
	} else {
		utf7_encode(name, len, &b);
		imap_put_astring(out, (const char *)b.data, b.len);
	}
	buf_free(&b);
}

static const struct { uint32_t flag; const char *name; size_t len; } flag_names[] = {
	{ OBOX_ANSWERED, "\\Answered ", 10 }, { OBOX_FLAGGED, "\\Flagged ", 9 }, { OBOX_DELETED, "\\Deleted ", 9 },
	{ OBOX_SEEN, "\\Seen ", 6 }, { OBOX_DRAFT, "\\Draft ", 7 }
};

void imap_put_flags(const struct imap_session *s, struct buf *out, const struct obox_msg *m)
{
	size_t i, w, start;

	buf_addc(out, '(');
	start = out->len;
	if (m->flags & OBOX_FLAGS_ALL)
		for (i = 0; i < MEM_COUNT(flag_names); i++)
			if (m->flags & flag_names[i].flag)
				buf_add(out, flag_names[i].name, flag_names[i].len);
	for (w = 0; w < 2; w++) {
		uint64_t bits = m->kw[w];

		for (; bits; bits &= bits - 1) {
			i = w * 64 + (size_t)__builtin_ctzll(bits);
			if (i < s->n_keywords) {
				buf_adds(out, s->keywords[i]);
				buf_addc(out, ' ');
			}
		}
	}
	if (out->len > start)
		out->data[out->len - 1] = ')';
	else
		buf_addc(out, ')');
}

static void put_all_flags(struct imap_session *s, struct buf *out)
{
	size_t i;

	buf_adds(out, "(\\Answered \\Flagged \\Deleted \\Seen \\Draft");
	for (i = 0; i < s->n_keywords; i++) {
		buf_addc(out, ' ');
		buf_adds(out, s->keywords[i]);
	}
}

void imap_put_flag_list(struct imap_session *s)
{
	struct buf *out = &s->c->out;

	buf_adds(out, "* FLAGS ");
	put_all_flags(s, out);
	buf_adds(out, ")\r\n* OK [PERMANENTFLAGS ");
	if (obox_view_read_only(s->view)) {
		buf_adds(out, "()] The mailbox is read-only\r\n");
		return;
	}
	put_all_flags(s, out);
	buf_adds(out, s->n_keywords < OBOX_KEYWORDS_MAX ? " \\*)] Flags that are kept\r\n" : ")] Flags that are kept\r\n");
}

bool imap_learn_keywords(struct imap_session *s)
{
	char *more[OBOX_KEYWORDS_MAX];
	size_t n = obox_view_keyword_count(s->view), i;

	if (n <= s->n_keywords)
		return false;
	n = obox_view_keywords(s->view, more, s->n_keywords);
	s->keywords = mem_realloc(s->keywords, n * sizeof(*s->keywords));
	for (i = s->n_keywords; i < n; i++)
		s->keywords[i] = more[i];
	s->n_keywords = n;
	return true;
}

void imap_announce_keywords(struct imap_session *s)
{
	if (imap_learn_keywords(s))
		imap_put_flag_list(s);
}

void imap_announce_keywords_of(struct imap_session *s, const struct obox_msg *m, size_t n)
{
	uint64_t kw[2] = { 0, 0 };
	size_t i, w, top = 0;

	for (i = 0; i < n; i++)
		for (w = 0; w < 2; w++)
			kw[w] |= m[i].kw[w];
	for (w = 0; w < 2; w++)
		if (kw[w])
			top = w * 64 + 64 - (size_t)__builtin_clzll(kw[w]);
	if (top > s->n_keywords)
		imap_announce_keywords(s);
}

void imap_forget_keywords(struct imap_session *s)
{
	while (s->n_keywords)
		free(s->keywords[--s->n_keywords]);
	free(s->keywords);
	s->keywords = NULL;
}

void imap_enable_condstore(struct imap_session *s)
{
	if (s->condstore)
		return;
	s->condstore = true;
	if (s->view)
		imap_untagged(s, "OK [HIGHESTMODSEQ %llu] Highest", (unsigned long long)s->told_modseq);
}
