/* Bytes from a client through the reader and the parsers, without a store. */
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/mem.h"
#include "daemon/imap/fetch.h"
#include "daemon/imap/imap.h"
#include "daemon/imap/list-match.h"
#include "daemon/imap/status.h"
#include "daemon/imap/utf7.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What decodes must encode to the same bytes. */
static void utf7(const char *name, size_t len)
{
	struct buf u = BUF_INIT(0), again = BUF_INIT(0);

	if (utf7_decode(name, len, &u) == 0) {
		utf7_encode(buf_str(&u), u.len, &again);
		if (again.len != len || memcmp(buf_str(&again), name, len) != 0)
			abort();
	}
	buf_free(&u);
	buf_free(&again);
}

static void parse_fetch(struct imap_session *s, struct lex *lx)
{
	struct fetch *f = fetch_new();
	struct lex_set set;

	if (lex_sp(lx) && lex_set(lx, &set) && lex_sp(lx))
		fetch_parse(s, lx, f);
	fetch_free(f);
}

static void parse_words(struct lex *lx)
{
	char *name, *pattern;
	struct lex_flags flags;
	struct seqset set = SEQSET_INIT;
	uint32_t items;
	int64_t t;
	int32_t day;

	while (!lx->failed && lex_sp(lx)) {
		char what = lx->p < lx->end ? (char)*lx->p : 0;

		if (what && strchr("[#!-", what))
			lx->p++;
		if (what == '(')
			lex_flags(lx, false, &flags);
		else if (what == '[')
			status_parse_items(lx, &items);
		else if (what == '#')
			lex_plain_set(lx, "A set", &set);
		else if (what == '!')
			lex_datetime(lx, &t);
		else if (what == '-')
			lex_date(lx, &day);
		else if (lex_mailbox(lx, &name) && lex_at(lx, ' ') && lex_sp(lx) && lex_pattern(lx, &pattern) && pattern)
			list_match(pattern, name);
	}
	seqset_free(&set);
}

static void parse_command(struct imap_session *s)
{
	const struct buf *cmd = &s->reader.cmd;
	struct arena arena = ARENA_INIT;
	struct lex lx;
	char *tag, *name;

	utf7((const char *)cmd->data, cmd->len);
	lex_init(&lx, &arena, cmd->data, cmd->len, s->rev2);
	if (lex_tag(&lx, &tag) && lex_sp(&lx) && lex_atom(&lx, "A command", &name)) {
		const struct imap_command *def = imap_command_find(name);

		s->cmd.uid = tag[0] == 'u';
		s->qresync = tag[0] == 'q' || s->cmd.uid;
		s->rev2 = tag[0] == '2';
		if (def && !strcmp(def->name, "FETCH"))
			parse_fetch(s, &lx);
		else
			parse_words(&lx);
	}
	if (lx.failed && !lx.error[0])
		abort();
	arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct imap_session *s = MEM_NEW(struct imap_session);
	size_t at = 0, step = size ? 1 + data[0] % 64 : 1, used;

	reader_init(&s->reader, 2048);
	while (at < size) {
		size_t n = size - at < step ? size - at : step;
		enum reader_event ev = reader_feed(&s->reader, data + at, n, &used);

		at += used;
		if (ev == READER_LITERAL) {
			if (s->reader.literal_size % 3 == 0)
				reader_stream(&s->reader);
			else if (!reader_collect(&s->reader))
				reader_refuse(&s->reader);
		} else if (ev == READER_COMMAND) {
			parse_command(s);
			reader_reset(&s->reader);
		} else if (ev == READER_SKIPPED) {
			reader_reset(&s->reader);
		}
		if (s->reader.cmd.len > 2048)
			abort();
	}
	reader_free(&s->reader);
	free(s);
	return 0;
}
