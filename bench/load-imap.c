/* login, fill and cmd: IMAP. */
#include "bench/load.h"

#include "base/mem.h"

/* --- login: connect, log in, select INBOX, log out --- */
struct logins {
	const struct load_opts *o;
	double until;
};

static void log_in_and_out(const struct load_opts *o, unsigned user, struct load_stat *s)
{
	double t = load_now();
	struct load_conn *c = load_login(o, user);

	if (!load_imap(c, "SELECT INBOX") && !s->errors++)
		fprintf(stderr, "culverbench: SELECT: %s\n", c->line);
	load_logout(&c);
	load_stat_add(s, load_now() - t);
}

static void login_thread(void *ctx, unsigned i, struct load_stat *s)
{
	const struct logins *l = (const struct logins *)ctx;
	const struct load_opts *o = l->o;
	struct load_gen g;
	unsigned n;

	load_gen_init(&g, o->seed * 1000 + i);
	for (n = 0; o->repeat ? n < o->repeat : load_now() < l->until; n++) {
		/* a given number of repetitions visits the users in turn: that is how all are warmed up */
		unsigned k = o->repeat ? (i + n * o->conns) % o->users : (unsigned)(load_random(&g) % o->users);

		log_in_and_out(o, o->first_user + k, s);
	}
}

int load_logins(const struct load_opts *o)
{
	struct logins l = { o, load_now() + o->secs };
	struct load_stat all = { 0 };
	struct load_usage from, to;

	load_usage(o, &from);
	load_threads(o->conns, login_thread, &l, &all);
	load_usage(o, &to);
	load_report(o, "login", &all, &from, &to, NULL);
	free(all.v);
	return all.errors ? 1 : 0;
}

/* --- fill: many messages into one mailbox of each user, MULTIAPPEND and LITERAL+ --- */
static const char *some_flags(struct load_gen *g)
{
	switch (load_random(g) % 20) {
	case 0: return " (\\Seen \\Flagged)";
	case 1: return " (\\Seen \\Answered $Forwarded)";
	case 2: case 3: case 4: case 5: case 6: return "";
	default: return " (\\Seen)";
	}
}

static void append_batch(struct load_conn *c, const struct load_opts *o, struct load_gen *g, unsigned n, struct load_stat *s)
{
	struct buf b = BUF_INIT(0), m = BUF_INIT(0);
	double t;
	unsigned i;

	buf_addf(&b, "a%u APPEND %s", ++c->tag, o->mailbox);
	for (i = 0; i < n; i++) {
		buf_clear(&m);
		load_message(g, o->size, &m);
		buf_addf(&b, "%s {%zu+}\r\n", some_flags(g), m.len);
		buf_add(&b, m.data, m.len);
		s->bytes += m.len;
	}
	buf_adds(&b, "\r\n");
	t = load_now();
	load_send(c, b.data, b.len);
	if (!load_imap_answer(c) && !s->errors++)
		fprintf(stderr, "culverbench: APPEND: %s\n", c->line);
	t = load_now() - t;
	for (i = 0; i < n; i++)
		load_stat_add(s, t / n);
	buf_free(&m);
	buf_free(&b);
}

static void fill_thread(void *ctx, unsigned i, struct load_stat *s)
{
	const struct load_opts *o = (const struct load_opts *)ctx;
	unsigned u, n, left;
	struct load_gen g;

	for (u = i; u < o->users; u += o->conns) {
		struct load_conn *c = load_login(o, o->first_user + u);

		load_gen_init(&g, o->seed * 1000 + u);
		for (left = o->msgs; left; left -= n) {
			n = left < o->multi ? left : o->multi;
			append_batch(c, o, &g, n, s);
		}
		load_logout(&c);
	}
}

int load_fill(const struct load_opts *o)
{
	struct load_opts mine = *o;
	struct load_stat all = { 0 };
	struct load_usage from, to;

	load_usage(o, &from);
	load_threads(o->conns, fill_thread, &mine, &all);
	load_usage(o, &to);
	load_report(o, "fill", &all, &from, &to, NULL);
	free(all.v);
	return all.errors ? 1 : 0;
}

/* --- cmd: one command, timed --- */
static void run_pre(struct load_conn *c, const char *pre)
{
	char command[1024];

	while (*pre) {
		size_t n = strcspn(pre, ";");

		if (n >= sizeof(command))
			load_fail("a command of --pre is too long");
		memcpy(command, pre, n);
		command[n] = '\0';
		load_imap(c, command);	/* may fail: DELETE of what is not there yet */
		pre += n + (pre[n] == ';');
	}
}

/* @n@ becomes the number of the repetition. */
static char *expand(const char *command, unsigned n)
{
	struct buf b = BUF_INIT(0);
	const char *at;

	while ((at = strstr(command, "@n@"))) {
		buf_add(&b, command, (size_t)(at - command));
		buf_addu(&b, n);
		command = at + 3;
	}
	buf_adds(&b, command);
	return buf_detach(&b);
}

static struct load_conn *open_for_cmd(const struct load_opts *o)
{
	struct load_conn *c = load_login(o, o->first_user);
	char select[512];

	snprintf(select, sizeof(select), "SELECT %s", o->mailbox);
	if (!o->nosel && !load_imap(c, select))
		load_fail("%s: %s", select, c->line);
	return c;
}

int load_cmd(const struct load_opts *o)
{
	struct load_conn *c = NULL;
	struct load_stat all = { 0 };
	struct load_usage from, to;
	uint64_t bytes = 0, untagged = 0;
	double spent = 0, t;
	char extra[128];
	unsigned i;

	load_usage(o, &from);
	for (i = 1; i <= (o->repeat ? o->repeat : 1); i++) {
		char *command = expand(o->command, i);

		if (!c)
			c = open_for_cmd(o);
		run_pre(c, o->pre);
		c->bytes = c->untagged = 0;
		t = load_now();
		if (!load_imap(c, command) && !all.errors++)
			fprintf(stderr, "culverbench: %s: %s\n", command, c->line);
		t = load_now() - t;
		load_stat_add(&all, t);
		spent += t;
		bytes = c->bytes;
		untagged = c->untagged;
		all.bytes += c->bytes;
		if (o->fresh)
			load_logout(&c);
		free(command);
	}
	if (c)
		load_logout(&c);
	load_usage(o, &to);
	snprintf(extra, sizeof(extra), ",\"bytes\":%llu,\"untagged\":%llu,\"cmd_mb_s\":%.2f", (unsigned long long)bytes, (unsigned long long)untagged,
		 spent > 0 ? (double)all.bytes / spent / 1e6 : 0);
	load_report(o, "cmd", &all, &from, &to, extra);
	free(all.v);
	return all.errors ? 1 : 0;
}
