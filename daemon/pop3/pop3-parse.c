#include "daemon/pop3/pop3-private.h"

#include "base/mem.h"

#include <ctype.h>

static const struct {
	const char *name;
	enum pop3_verb verb;
	unsigned min, max;
} verbs[] = {
	{ "STAT", POP3_STAT, 0, 0 }, { "LIST", POP3_LIST, 0, 1 }, { "RETR", POP3_RETR, 1, 1 }, { "DELE", POP3_DELE, 1, 1 },
	{ "NOOP", POP3_NOOP, 0, 0 }, { "RSET", POP3_RSET, 0, 0 }, { "QUIT", POP3_QUIT, 0, 0 }, { "TOP", POP3_TOP, 2, 2 },
	{ "UIDL", POP3_UIDL, 0, 1 }, { "CAPA", POP3_CAPA, 0, 0 },
};

static int number(const char **pp, uint32_t *out_r)
{
	const char *p = *pp;
	uint64_t n = 0;

	if (!isdigit((unsigned char)*p))
		return -1;
	for (; isdigit((unsigned char)*p); p++) {
		n = n * 10 + (uint64_t)(*p - '0');
		if (n > UINT32_MAX)
			return -1;
	}
	*pp = p;
	*out_r = (uint32_t)n;
	return *p && *p != ' ' ? -1 : 0;
}

const char *pop3_parse(const char *line, struct pop3_command *out)
{
	size_t n = strcspn(line, " "), i;
	const char *p = line + n;

	memset(out, 0, sizeof(*out));
	for (i = 0; i < MEM_COUNT(verbs); i++)
		if (strlen(verbs[i].name) == n && !strncasecmp(line, verbs[i].name, n))
			break;
	if (i == MEM_COUNT(verbs))
		return "Unknown command";
	while (*p == ' ')
		p++;
	while (*p) {
		if (out->n_args == verbs[i].max)
			return verbs[i].max ? "Too many arguments" : "This command takes no argument";
		if (number(&p, &out->arg[out->n_args]) < 0)
			return "The argument is not a number";
		out->n_args++;
		while (*p == ' ')
			p++;
	}
	if (out->n_args < verbs[i].min)
		return verbs[i].min == 2 ? "Say TOP message lines" : "Say which message";
	out->verb = verbs[i].verb;
	return NULL;
}

bool pop3_lines_add(struct pop3_lines *l, const void *data, size_t len, struct buf *out)
{
	const char *p = data, *end = p + len, *nl;
	bool empty;

	while (p < end) {
		if (!l->middle && l->body && l->limited && !l->lines)
			return false;
		if (!l->middle && *p == '.')
			buf_addc(out, '.');
		nl = memchr(p, '\n', (size_t)(end - p));
		/* An empty line is a line end where a line begins, perhaps with its CR in the piece before. */
		empty = nl && ((nl == p && (!l->middle || l->cr)) || (nl == p + 1 && *p == '\r' && !l->middle));
		if (nl) {
			buf_add(out, p, (size_t)(nl + 1 - p));
			if (l->body && l->limited)
				l->lines--;
			l->body |= empty;
			l->middle = l->cr = false;
			p = nl + 1;
		} else {
			buf_add(out, p, (size_t)(end - p));
			l->cr = !l->middle && end - p == 1 && *p == '\r';
			l->middle = true;
			p = end;
		}
	}
	return true;
}

void pop3_lines_end(struct pop3_lines *l, struct buf *out)
{
	buf_adds(out, l->middle ? "\r\n.\r\n" : ".\r\n");
}
