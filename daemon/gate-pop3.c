/* POP3 before the login: RFC 1939, CAPA (2449), STLS (2595), AUTH (5034);
 * and LMTP, which goes to a worker at once. */
#include "daemon/gate.h"

#include "base/mem.h"

#include <sodium.h>

static void say(struct gconn *g, const char *text)
{
	buf_addf(&g->out, "%s\r\n", text);
}

static void pop3_greet(struct gconn *g)
{
	buf_addf(&g->out, "+OK %s Culver ready\r\n", g->gate->p.conf.hostname);
}

static void pop3_bye(struct gconn *g, const char *why)
{
	buf_addf(&g->out, "-ERR [SYS/TEMP] %s\r\n", why);
}

static void pop3_login_failed(struct gconn *g, enum msg_answer why)
{
	say(g, why == ANSWER_NO ? "-ERR [AUTH] Wrong user name or password" : "-ERR [SYS/TEMP] Cannot log in now, try again later");
}

static void wrong(struct gconn *g, const char *text)
{
	buf_addf(&g->out, "-ERR %s\r\n", text);
	gate_bad(g);
}

static bool privacy_missing(struct gconn *g)
{
	if (gate_plaintext_ok(g))
		return false;
	say(g, "-ERR Use TLS first");
	return true;
}

static void cmd_capa(struct gconn *g, char *arg)
{
	say(g, "+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE");
	if (gate_plaintext_ok(g))
		say(g, "USER\r\nSASL PLAIN");
	if (g->starttls_ok && !g->tls)
		say(g, "STLS");
	say(g, "IMPLEMENTATION Culver-" PACKAGE_VERSION "\r\n.");
}

static void cmd_user(struct gconn *g, char *arg)
{
	if (privacy_missing(g))
		return;
	if (!*arg || strlen(arg) > MSG_USER_MAX) {
		wrong(g, "Say USER and a name");
		return;
	}
	free(g->user);
	g->user = mem_strdup(arg);
	say(g, "+OK");
}

static void cmd_pass(struct gconn *g, char *arg)
{
	if (privacy_missing(g))
		return;
	if (!g->user)
		wrong(g, "USER first");
	else if (strlen(arg) > MSG_PASS_MAX)
		wrong(g, "The password is too long");
	else
		gate_login(g, NULL, g->user, arg);
}

static void sasl_input(struct gconn *g, const char *line)
{
	if (gate_sasl_line(g, NULL, line, strlen(line)) < 0)
		wrong(g, "The response is malformed");
}

static void cmd_auth(struct gconn *g, char *arg)
{
	size_t n = strcspn(arg, " ");

	if (!*arg) {
		say(g, gate_plaintext_ok(g) ? "+OK\r\nPLAIN\r\n." : "+OK\r\n.");
		return;
	}
	if (n != 5 || strncasecmp(arg, "PLAIN", 5)) {
		say(g, "-ERR There is no such mechanism here");
		return;
	}
	if (privacy_missing(g))
		return;
	g->sasl = SASL_PLAIN;
	if (!arg[n])
		say(g, "+ ");
	else
		sasl_input(g, strcmp(arg + n + 1, "=") ? arg + n + 1 : "");
}

static void cmd_stls(struct gconn *g, char *arg)
{
	if (g->tls || !g->starttls_ok) {
		wrong(g, g->tls ? "TLS is on already" : "There is no TLS here");
		return;
	}
	say(g, "+OK Begin TLS now");
	g->starttls_now = true;
}

static void cmd_quit(struct gconn *g, char *arg)
{
	say(g, "+OK Bye");
	gate_end(g);
}

static const struct {
	const char *name;
	void (*run)(struct gconn *g, char *arg);
} commands[] = {
	{ "CAPA", cmd_capa }, { "USER", cmd_user }, { "PASS", cmd_pass }, { "AUTH", cmd_auth }, { "STLS", cmd_stls }, { "QUIT", cmd_quit },
};

static void run_command(struct gconn *g, char *line)
{
	size_t n = strcspn(line, " "), i;
	char *arg = line[n] ? line + n + 1 : line + n;

	if (g->sasl != SASL_NONE) {
		if (strcmp(line, "*")) {
			sasl_input(g, line);
		} else {
			g->sasl = SASL_NONE;
			say(g, "-ERR Cancelled");
		}
		return;
	}
	for (i = 0; i < MEM_COUNT(commands); i++) {
		if (n == strlen(commands[i].name) && !strncasecmp(line, commands[i].name, n)) {
			commands[i].run(g, arg);
			return;
		}
	}
	wrong(g, "Not a command that can be used before the login");
}

static bool pop3_input(struct gconn *g)
{
	const char *in = (const char *)g->in.data, *nl = g->in.len ? memchr(in, '\n', g->in.len) : NULL;
	size_t len, used;
	char *line;

	if ((nl ? (size_t)(nl - in) : g->in.len) > GATE_LINE_MAX) {
		pop3_bye(g, "The line is too long");
		gate_end(g);
		return false;
	}
	if (!nl)
		return false;
	used = (size_t)(nl - in) + 1;
	len = used - 1;
	len -= len && in[len - 1] == '\r';
	line = mem_strndup(in, len);
	sodium_memzero(g->in.data, used);
	buf_consume(&g->in, used);
	if (strlen(line) == len)
		run_command(g, line);
	else
		wrong(g, "There is a NUL in the command");
	sodium_memzero(line, len);
	free(line);
	return true;
}

const struct gate_proto gate_pop3 = { "pop3", PROTO_POP3, pop3_greet, pop3_input, pop3_login_failed, pop3_bye };

static void lmtp_bye(struct gconn *g, const char *why)
{
	buf_addf(&g->out, "421 4.3.2 %s %s\r\n", g->gate->p.conf.hostname, why);
}

const struct gate_proto gate_lmtp = { "lmtp", PROTO_LMTP, NULL, NULL, NULL, lmtp_bye };
