#include "tests/imap/script.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/hmap.h"
#include "base/io.h"
#include "base/mem.h"
#include "tests/imap/harness.h"

enum { CLIENTS = 10 };

struct value {
	char *data;
	size_t len;
};

struct script {
	const struct script_case *sc;
	unsigned line;
	struct world world;
	struct client *clients[CLIENTS];
	struct hmap values;		/* name -> struct value */
	char *error;
};

static void fail(struct script *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct script *s, const char *fmt, ...)
{
	struct buf b = BUF_INIT(0);
	va_list ap;

	if (s->error)
		return;
	buf_addf(&b, "%s:%u (%s): ", s->sc->file, s->line, s->sc->name);
	va_start(ap, fmt);
	buf_vaddf(&b, fmt, ap);
	va_end(ap);
	s->error = buf_detach(&b);
}

static void set_value(struct script *s, const char *name, size_t name_len, const char *data, size_t len)
{
	struct value *v = MEM_NEW(struct value), *old;

	v->data = mem_strndup(data, len);
	v->len = len;
	old = hmap_put(&s->values, name, name_len, v);
	if (old) {
		free(old->data);
		free(old);
	}
}

/* Replaces ${x}, ${#x} and {{crlf}}. */
static void expand(struct script *s, const char *text, struct buf *out)
{
	while (*text) {
		const char *end = text[0] == '$' && text[1] == '{' ? strchr(text, '}') : NULL;
		bool length = end && text[2] == '#';
		const char *name = text + 2 + length;
		struct value *v;

		if (!strncmp(text, "{{nul}}", 7)) {
			buf_addc(out, 0);
			text += 7;
			continue;
		}
		if (!strncmp(text, "{{lf}}", 6)) {
			buf_addc(out, '\n');
			text += 6;
			continue;
		}
		if (!strncmp(text, "{{crlf}}", 8)) {
			buf_adds(out, "\r\n");
			text += 8;
			continue;
		}
		if (!end) {
			buf_addc(out, *text++);
			continue;
		}
		v = hmap_get(&s->values, name, (size_t)(end - name));
		if (!v)
			fail(s, "there is no ${%.*s}", (int)(end - name), name);
		else if (length)
			buf_addu(out, v->len);
		else
			buf_add(out, v->data, v->len);
		text = end + 1;
	}
}

static bool match(struct script *s, const char *p, size_t p_len, const char *t, size_t t_len);

/* p is behind "{{": "*}}", "n}}", "x=n}}", "x=*}}". */
static bool match_token(struct script *s, const char *p, size_t p_len, const char *t, size_t t_len)
{
	const char *eq = memchr(p, '=', p_len), *end = memmem(p, p_len, "}}", 2), *name = NULL;
	size_t name_len = 0, max = t_len, n;
	bool number;

	if (!end)
		return false;
	if (eq && eq < end) {
		name = p;
		name_len = (size_t)(eq - p);
		p_len -= name_len + 1;
		p = eq + 1;
	}
	number = *p == 'n';
	p_len -= (size_t)(end + 2 - p);
	p = end + 2;
	if (number)
		for (max = 0; max < t_len && isdigit((unsigned char)t[max]); max++)
			;
	for (n = number ? max : 0; n <= max; n++) {
		if (number && !n)
			return false;
		if (match(s, p, p_len, t + n, t_len - n)) {
			if (name)
				set_value(s, name, name_len, t, n);
			return true;
		}
	}
	return false;
}

static bool match(struct script *s, const char *p, size_t p_len, const char *t, size_t t_len)
{
	while (p_len) {
		if (p_len > 4 && p[0] == '{' && p[1] == '{')
			return match_token(s, p + 2, p_len - 2, t, t_len);
		if (!t_len || *p != *t)
			return false;
		p++;
		p_len--;
		t++;
		t_len--;
	}
	return !t_len;
}

static struct client *client(struct script *s, unsigned n)
{
	if (!s->clients[n]) {
		size_t len;
		char *line;

		s->clients[n] = client_new(&s->world, "joe", "login");
		line = client_line(s->clients[n], &len);
		if (!line || strncmp(line, "login OK [CAPABILITY ", 21) != 0)
			fail(s, "the login was answered with: %s", line ? line : "nothing");
		free(line);
	}
	return s->clients[n];
}

static void expect_read(struct script *s, struct client *c)
{
	size_t len;
	char *line = client_line(c, &len);

	if (line)
		fail(s, "this was not expected: %s", line);
	else if (c->got.len)
		fail(s, "half a response was sent: %s", buf_str(&c->got));
	free(line);
}

static void send_line(struct script *s, unsigned n, char how, const char *text)
{
	struct client *c = client(s, n);
	struct buf b = BUF_INIT(0);

	expand(s, text, &b);
	if (how != '-')
		buf_adds(&b, "\r\n");
	if (how != '+')
		expect_read(s, c);
	if (c->closed)
		fail(s, "session %u is closed", n);
	else if (how == '+')
		client_queue(c, b.data, b.len);
	else
		client_send(c, b.data, b.len);
	buf_free(&b);
}

static void expect_line(struct script *s, unsigned n, char how, const char *text)
{
	struct client *c = client(s, n);
	struct buf b = BUF_INIT(0);
	bool found = false;
	size_t len;
	char *line;

	client_run(c, 0);
	if (how == '-') {
		expect_read(s, c);
		return;
	}
	expand(s, text, &b);
	do {
		line = client_line(c, &len);
		if (!line) {
			fail(s, "expected: %s\n  but there is no more%s%s", buf_str(&b), c->got.len ? ", only a piece: " : "",
			     c->got.len ? buf_str(&c->got) : "");
			break;
		}
		found = match(s, buf_str(&b), b.len, line, len);
		if (!found && how != '~')
			fail(s, "expected: %s\n  was told: %s", buf_str(&b), line);
		free(line);
	} while (!found && how == '~');
	buf_free(&b);
}

static void read_message(struct script *s, const char *name, const char **rest)
{
	struct buf b = BUF_INIT(0);
	const char *p = *rest;

	for (;;) {
		size_t n = strcspn(p, "\n");

		if (!*p) {
			fail(s, "@end is missing");
			break;
		}
		s->line++;
		if (n == 4 && !strncmp(p, "@end", 4)) {
			p += n + (p[n] != 0);
			break;
		}
		buf_add(&b, p, n);
		buf_adds(&b, "\r\n");
		p += n + (p[n] != 0);
	}
	*rest = p;
	set_value(s, name, strlen(name), buf_str(&b), b.len);
	buf_free(&b);
}

static void repeat(struct script *s, const char *args)
{
	char *text;
	unsigned long n = strtoul(args, &text, 10);
	struct buf b = BUF_INIT(0);

	while (n--)
		buf_adds(&b, text + 1);
	buf_adds(&b, "\r\n");
	client_send(client(s, 1), b.data, b.len);
	buf_free(&b);
}

static void event(struct script *s, const char *word, unsigned n)
{
	if (!strcmp(word, "timeout"))
		client_run(client(s, n), CONN_EV_TIMEOUT);
	else if (!strcmp(word, "stop"))
		client_run(client(s, n), CONN_EV_STOP);
	else if (!strcmp(word, "eof"))
		client_run(client(s, n), CONN_EV_EOF);
	else if (!strcmp(word, "closed") && !client(s, n)->closed)
		fail(s, "session %u is not closed", n);
}

static void directive(struct script *s, const char *text, const char **rest)
{
	char word[32] = "", a[64] = "", b[64] = "";

	if (sscanf(text, "%31s %63s %63s", word, a, b) < 1)
		return;
	if (!strcmp(word, "message")) {
		read_message(s, a, rest);
	} else if (!strcmp(word, "deliver")) {
		struct value *v = hmap_get(&s->values, b, strlen(b));

		if (v)
			world_deliver(&s->world, "joe", a, v->data, v->len, 0);
		else
			fail(s, "there is no message %s", b);
	} else if (!strcmp(word, "store")) {
		world_store_down(&s->world, !strcmp(a, "down"));
	} else if (!strcmp(word, "repeat")) {
		repeat(s, text + 7);
	} else {
		event(s, word, a[0] ? (unsigned)(a[0] - '0') : 1);
	}
}

static void run_line(struct script *s, const char *line, const char **rest)
{
	unsigned n = 1;
	char side = line[0], how = 0;

	if (!side || side == '#')
		return;
	if (side == '@') {
		directive(s, line + 1, rest);
		return;
	}
	line++;
	if (isdigit((unsigned char)*line))
		n = (unsigned)(*line++ - '0');
	if (*line == '+' || *line == '-' || *line == '~')
		how = *line++;
	if (*line != ':' || (side != 'C' && side != 'S')) {
		fail(s, "what is this line?");
		return;
	}
	line++;
	if (*line == ' ')
		line++;
	if (side == 'C')
		send_line(s, n, how, line);
	else
		expect_line(s, n, how, line);
}

static void finish(struct script *s)
{
	size_t pos = 0, len, i;
	const void *key;
	void *v;

	for (i = 0; i < CLIENTS; i++) {
		if (s->clients[i] && !s->error)
			expect_read(s, s->clients[i]);
		client_free(&s->clients[i]);
	}
	while (hmap_next(&s->values, &pos, &key, &len, &v)) {
		free(((struct value *)v)->data);
		free(v);
	}
	hmap_free(&s->values);
	world_store_down(&s->world, false);
	world_close(&s->world);
}

char *script_run(const struct script_case *sc)
{
	struct script s = { .sc = sc, .line = sc->line };
	const char *p = sc->text;

	world_open(&s.world);
	while (*p && !s.error) {
		size_t n = strcspn(p, "\n");
		char *line = mem_strndup(p, n);

		s.line++;
		p += n + (p[n] != 0);
		run_line(&s, line, &p);
		free(line);
	}
	finish(&s);
	return s.error;
}

struct script_case *script_load(const char *path, unsigned *n_r)
{
	struct err err = ERR_INIT;
	struct script_case *cases = NULL;
	size_t cap = 0, len;
	unsigned line = 0;
	char *text, *p, *body = NULL;

	*n_r = 0;
	if (io_read_file(path, 1 << 20, &text, &len, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		abort();
	}
	for (p = text; *p;) {
		char *end = strchrnul(p, '\n');
		bool last = !*end;

		line++;
		*end = '\0';
		if (!strncmp(p, "== ", 3)) {
			mem_grow(&cases, &cap, *n_r + 1, sizeof(*cases));
			cases[*n_r] = (struct script_case){ mem_strdup(p + 3), mem_strdup(strrchr(path, '/') ? strrchr(path, '/') + 1 : path), line, NULL };
			body = end + !last;
			cases[(*n_r)++].text = body;
		} else if (body) {
			*end = last ? '\0' : '\n';
		}
		if (body && !strncmp(end + !last, "== ", 3))
			*end = '\0';
		p = end + !last;
	}
	for (unsigned i = 0; i < *n_r; i++)
		cases[i].text = mem_strdup(cases[i].text);
	free(text);
	return cases;
}
