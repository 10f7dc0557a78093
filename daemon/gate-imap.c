/* IMAP before the login: RFC 9051 section 6.1 and 6.2, LITERAL+ (7888),
 * SASL-IR (4959), ID (2971). */
#include "daemon/gate.h"

#include "base/mem.h"
#include "daemon/imap/imap-capability.h"

#include <ctype.h>
#include <inttypes.h>
#include <sodium.h>

static void add_capabilities(struct gconn *g)
{
	buf_adds(&g->out, "CAPABILITY " IMAP_CAPS_BEFORE);
	if (g->starttls_ok && !g->tls)
		buf_adds(&g->out, " STARTTLS");
	buf_adds(&g->out, gate_plaintext_ok(g) ? " AUTH=PLAIN AUTH=LOGIN" : " LOGINDISABLED");
}

static void imap_greet(struct gconn *g)
{
	buf_adds(&g->out, "* OK [");
	add_capabilities(g);
	buf_addf(&g->out, "] %s Culver ready\r\n", g->gate->p.conf.hostname);
}

static void imap_bye(struct gconn *g, const char *why)
{
	buf_addf(&g->out, "* BYE %s\r\n", why);
}

static void imap_login_failed(struct gconn *g, enum msg_answer why)
{
	if (why == ANSWER_NO)
		buf_addf(&g->out, "%s NO [AUTHENTICATIONFAILED] Wrong user name or password\r\n", g->tag);
	else
		buf_addf(&g->out, "%s NO [UNAVAILABLE] Cannot log in now, try again later\r\n", g->tag);
}

/* --- reading --- */

/* Octets of the literal announced at the end of the line, or -1. */
static int64_t literal_of(const char *line, size_t len, bool *sync_r)
{
	size_t end = len, i;
	int64_t n = 0;

	if (!len || line[len - 1] != '}')
		return -1;
	end--;
	*sync_r = !(end && line[end - 1] == '+');
	end -= !*sync_r;
	for (i = end; i && isdigit((unsigned char)line[i - 1]); i--)
		;
	if (i == end || end - i > 10 || i < 2 || line[i - 1] != '{' || line[i - 2] != ' ')
		return -1;
	for (; i < end; i++)
		n = n * 10 + (line[i] - '0');
	return n;
}

static size_t line_len(const char *p, size_t nl)
{
	return nl && p[nl - 1] == '\r' ? nl - 1 : nl;
}

/* A whole command at the front of g->in: its length with the last line end;
 * 0: not there yet; -1: it was refused (and is gone, or the connection ends). */
static ssize_t whole_command(struct gconn *g)
{
	const char *in = (const char *)g->in.data;
	size_t pos = 0, nl, len = g->in.len;
	const char *q;
	int64_t lit;
	bool sync = true;

	for (;;) {
		q = len > pos ? memchr(in + pos, '\n', len - pos) : NULL;
		if ((q ? (size_t)(q - in) : len) > GATE_LINE_MAX) {
			imap_bye(g, "The command is too long");
			gate_end(g);
			return -1;
		}
		if (!q)
			return 0;
		nl = (size_t)(q - in);
		lit = literal_of(in + pos, line_len(in + pos, nl - pos), &sync);
		if (lit < 0)
			return (ssize_t)nl + 1;
		if (lit > GATE_LITERAL_MAX) {
			imap_bye(g, "[TOOBIG] The literal is too long before a login");
			gate_end(g);
			return -1;
		}
		if (sync && g->literal_at != nl + 1) {
			g->literal_at = (uint32_t)nl + 1;
			buf_adds(&g->out, "+ Go on\r\n");
		}
		pos = nl + 1 + (size_t)lit;
		if (pos > len)
			return 0;
	}
}

struct cursor { const char *p, *end; };

static bool skip_space(struct cursor *c)
{
	if (c->p >= c->end || *c->p != ' ')
		return false;
	c->p++;
	return true;
}

static bool at_end(const struct cursor *c)
{
	return c->p == c->end;
}

static bool is_atom_char(char ch)
{
	return (unsigned char)ch > ' ' && ch != 0x7f && !strchr("(){%*\"\\", ch);
}

static bool add_char(char *out, size_t *n, size_t room, char ch)
{
	if (!ch || *n + 1 >= room)
		return false;
	out[(*n)++] = ch;
	out[*n] = '\0';
	return true;
}

static bool quoted(struct cursor *c, char *out, size_t room)
{
	size_t n = 0;

	for (c->p++; c->p < c->end && *c->p != '"'; c->p++) {
		if (*c->p == '\\' && (++c->p == c->end || !strchr("\"\\", *c->p)))
			return false;
		if (*c->p == '\r' || *c->p == '\n' || !add_char(out, &n, room, *c->p))
			return false;
	}
	return c->p < c->end && c->p++;
}

static bool literal(struct cursor *c, char *out, size_t room)
{
	const char *nl = memchr(c->p, '\n', (size_t)(c->end - c->p));
	size_t n = 0, len = 0;

	for (c->p++; c->p < c->end && isdigit((unsigned char)*c->p); c->p++)
		len = len * 10 + (size_t)(*c->p - '0');
	if (!nl || len > (size_t)(c->end - nl - 1))
		return false;
	for (c->p = nl + 1; len; len--, c->p++)
		if (!add_char(out, &n, room, *c->p))
			return false;
	return true;
}

/* astring of RFC 9051 section 9 into out; false: there is none, or it is too long or holds NUL. */
static bool astring(struct cursor *c, char *out, size_t room)
{
	size_t n = 0;

	*out = '\0';
	if (at_end(c))
		return false;
	if (*c->p == '"')
		return quoted(c, out, room);
	if (*c->p == '{')
		return literal(c, out, room);
	while (c->p < c->end && is_atom_char(*c->p))
		if (!add_char(out, &n, room, *c->p++))
			return false;
	return n > 0;
}

static bool atom(struct cursor *c, char *out, size_t room)
{
	size_t n = 0;

	*out = '\0';
	while (c->p < c->end && is_atom_char(*c->p))
		if (!add_char(out, &n, room, *c->p++))
			return false;
	return n > 0;
}

/* --- commands --- */

static void answer(struct gconn *g, const char *tag, const char *text)
{
	buf_addf(&g->out, "%s %s\r\n", tag, text);
}

static bool privacy_missing(struct gconn *g, const char *tag)
{
	if (gate_plaintext_ok(g))
		return false;
	answer(g, tag, "NO [PRIVACYREQUIRED] Use TLS first");
	return true;
}

static void cmd_capability(struct gconn *g, const char *tag, struct cursor *c)
{
	buf_adds(&g->out, "* ");
	add_capabilities(g);
	buf_adds(&g->out, "\r\n");
	answer(g, tag, "OK Done");
}

static void cmd_id(struct gconn *g, const char *tag, struct cursor *c)
{
	buf_adds(&g->out, "* ID (\"name\" \"Culver\" \"version\" \"" PACKAGE_VERSION "\")\r\n");
	answer(g, tag, "OK Done");
}

static void cmd_noop(struct gconn *g, const char *tag, struct cursor *c)
{
	answer(g, tag, "OK Done");
}

static void cmd_logout(struct gconn *g, const char *tag, struct cursor *c)
{
	imap_bye(g, "Goodbye");
	answer(g, tag, "OK Done");
	gate_end(g);
}

static void cmd_starttls(struct gconn *g, const char *tag, struct cursor *c)
{
	if (g->tls || !g->starttls_ok) {
		answer(g, tag, g->tls ? "BAD TLS is on already" : "BAD There is no TLS here");
		gate_bad(g);
		return;
	}
	answer(g, tag, "OK Begin TLS now");
	g->starttls_now = true;
}

static void cmd_login(struct gconn *g, const char *tag, struct cursor *c)
{
	char user[GATE_LITERAL_MAX + 1], pass[GATE_LITERAL_MAX + 1];

	if (privacy_missing(g, tag))
		return;
	if (!skip_space(c) || !astring(c, user, sizeof(user)) || !skip_space(c) || !astring(c, pass, sizeof(pass)) || !at_end(c)) {
		answer(g, tag, "BAD Say LOGIN user password");
		gate_bad(g);
	} else if (!*user || strlen(user) > MSG_USER_MAX) {
		free(g->tag);
		g->tag = mem_strdup(tag);
		gate_fail_login(g, ANSWER_NO);
	} else {
		gate_login(g, tag, user, pass);
	}
	sodium_memzero(pass, sizeof(pass));
}

static void sasl_prompt(struct gconn *g)
{
	static const char *const prompts[] = { [SASL_PLAIN] = "", [SASL_LOGIN_USER] = "VXNlcm5hbWU6", [SASL_LOGIN_PASS] = "UGFzc3dvcmQ6" };

	buf_addf(&g->out, "+ %s\r\n", prompts[g->sasl]);
}

static void sasl_input(struct gconn *g, const char *tag, const char *line, size_t len)
{
	int rc = gate_sasl_line(g, tag, line, len);

	if (rc == 0)
		sasl_prompt(g);
	if (rc >= 0)
		return;
	answer(g, tag, "BAD The response is malformed");
	gate_bad(g);
}

static void cmd_authenticate(struct gconn *g, const char *tag, struct cursor *c)
{
	char mech[32];

	if (!skip_space(c) || !atom(c, mech, sizeof(mech))) {
		answer(g, tag, "BAD Say AUTHENTICATE mechanism");
		gate_bad(g);
		return;
	}
	if (strcasecmp(mech, "PLAIN") && strcasecmp(mech, "LOGIN")) {
		answer(g, tag, "NO [CANNOT] There is no such mechanism here");
		return;
	}
	if (privacy_missing(g, tag))
		return;
	g->sasl = strcasecmp(mech, "PLAIN") ? SASL_LOGIN_USER : SASL_PLAIN;
	if (at_end(c)) {
		free(g->tag);
		g->tag = mem_strdup(tag);
		sasl_prompt(g);
	} else if (skip_space(c)) {
		bool empty = c->end - c->p == 1 && *c->p == '=';
		char *mine = mem_strdup(tag);

		free(g->tag);
		g->tag = mine;
		mine = mem_strdup(tag);
		sasl_input(g, mine, c->p, empty ? 0 : (size_t)(c->end - c->p));
		free(mine);
	} else {
		g->sasl = SASL_NONE;
		answer(g, tag, "BAD Say AUTHENTICATE mechanism");
		gate_bad(g);
	}
}

static const struct {
	const char *name;
	void (*run)(struct gconn *g, const char *tag, struct cursor *c);
	bool args;
} commands[] = {
	{ "CAPABILITY", cmd_capability, false }, { "ID", cmd_id, true }, { "NOOP", cmd_noop, false }, { "LOGOUT", cmd_logout, false },
	{ "STARTTLS", cmd_starttls, false }, { "LOGIN", cmd_login, true }, { "AUTHENTICATE", cmd_authenticate, true },
};

static void run_command(struct gconn *g, const char *p, size_t len)
{
	struct cursor c = { p, p + len };
	char tag[MSG_TAG_MAX + 1], name[32];
	size_t i;

	if (!atom(&c, tag, sizeof(tag)) || strchr(tag, '+') || strchr(tag, ']') || !skip_space(&c)) {
		buf_adds(&g->out, "* BAD A command begins with a tag\r\n");
		gate_bad(g);
		return;
	}
	if (!atom(&c, name, sizeof(name)))
		name[0] = '\0';
	for (i = 0; i < MEM_COUNT(commands); i++)
		if (!strcasecmp(name, commands[i].name))
			break;
	if (i == MEM_COUNT(commands)) {
		answer(g, tag, "BAD Not a command that can be used before the login");
		gate_bad(g);
	} else if (!commands[i].args && !at_end(&c)) {
		buf_addf(&g->out, "%s BAD %s takes no argument\r\n", tag, commands[i].name);
		gate_bad(g);
	} else {
		commands[i].run(g, tag, &c);
	}
}

static bool sasl_response(struct gconn *g)
{
	const char *in = (const char *)g->in.data, *nl = g->in.len ? memchr(in, '\n', g->in.len) : NULL;
	size_t len;
	char *line, *tag;

	if ((nl ? (size_t)(nl - in) : g->in.len) > GATE_LINE_MAX) {
		imap_bye(g, "The line is too long");
		gate_end(g);
		return false;
	}
	if (!nl)
		return false;
	len = line_len(in, (size_t)(nl - in));
	line = mem_strndup(in, len);
	sodium_memzero(g->in.data, len);
	buf_consume(&g->in, (size_t)(nl - in) + 1);
	tag = mem_strdup(g->tag);
	if (len == 1 && *line == '*') {
		g->sasl = SASL_NONE;
		answer(g, tag, "BAD Cancelled");
	} else {
		sasl_input(g, tag, line, len);
	}
	sodium_memzero(line, len);
	free(line);
	free(tag);
	return true;
}

static bool imap_input(struct gconn *g)
{
	ssize_t len;
	char *copy;

	if (g->sasl != SASL_NONE)
		return sasl_response(g);
	len = whole_command(g);
	if (len <= 0)
		return false;
	copy = mem_strndup((const char *)g->in.data, (size_t)len);
	sodium_memzero(g->in.data, (size_t)len);
	buf_consume(&g->in, (size_t)len);
	g->literal_at = 0;
	run_command(g, copy, line_len(copy, (size_t)len - 1));
	sodium_memzero(copy, (size_t)len);
	free(copy);
	return true;
}

const struct gate_proto gate_imap = { "imap", PROTO_IMAP, imap_greet, imap_input, imap_login_failed, imap_bye };
