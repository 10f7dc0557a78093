/* pop3, idle and notify. */
#include "bench/load.h"

#include "base/mem.h"

#include <poll.h>
#include <unistd.h>

/* --- pop3: log in and RETR everything, one after the other --- */
static uint64_t retrieve(struct load_conn *c, unsigned n)
{
	uint64_t before = c->bytes;

	load_sendf(c, "RETR %u\r\n", n);
	if (!load_reply(c, "+OK"))
		load_fail("RETR %u: %s", n, c->line);
	do
		if (!load_line(c))
			load_fail("connection closed within a message");
	while (c->line_len != 1 || c->line[0] != '.');
	return c->bytes - before;
}

static void pop3_thread(void *ctx, unsigned i, struct load_stat *s)
{
	const struct load_opts *o = (const struct load_opts *)ctx;
	struct load_conn *c = load_connect(o, o->pop3);
	char name[256];
	unsigned n, all;

	load_user(o, o->first_user + i % o->users, name, sizeof(name));
	if (!load_reply(c, "+OK"))
		load_fail("greeting: %s", c->line);
	load_sendf(c, "USER %s\r\n", name);
	load_reply(c, "+OK");
	load_sendf(c, "PASS %s\r\n", o->pass);
	if (!load_reply(c, "+OK"))
		load_fail("PASS: %s", c->line);
	load_sendf(c, "STAT\r\n");
	if (!load_reply(c, "+OK"))
		load_fail("STAT: %s", c->line);
	all = (unsigned)strtoul(c->line + 3, NULL, 10);
	for (n = 1; n <= all; n++) {
		double t = load_now();

		s->bytes += retrieve(c, n);
		load_stat_add(s, load_now() - t);
	}
	load_sendf(c, "QUIT\r\n");
	load_line(c);
	load_close(&c);
}

int load_pop3(const struct load_opts *o)
{
	struct load_opts mine = *o;
	struct load_stat all = { 0 };
	struct load_usage from, to;

	load_usage(o, &from);
	load_threads(o->conns, pop3_thread, &mine, &all);
	load_usage(o, &to);
	load_report(o, "pop3", &all, &from, &to, NULL);
	free(all.v);
	return all.errors ? 1 : 0;
}

/* --- idle: memory of connections that wait --- */
static void idle_begin(struct load_conn *c)
{
	load_sendf(c, "a%u IDLE\r\n", ++c->tag);
	do
		load_imap_line(c);
	while (c->line[0] == '*');
	if (c->line[0] != '+')
		load_fail("IDLE: %s", c->line);
}

static void idle_end(struct load_conn **c)
{
	load_sendf(*c, "DONE\r\n");
	load_imap_answer(*c);
	load_logout(c);
}

static void open_idle(const struct load_opts *o, struct load_conn **c, struct load_stat *s)
{
	unsigned i;

	for (i = 0; i < o->conns; i++) {
		double t = load_now();

		c[i] = load_login(o, o->first_user + i % o->users);
		if (!load_imap(c[i], "SELECT INBOX"))
			load_fail("SELECT: %s", c[i]->line);
		idle_begin(c[i]);
		load_stat_add(s, load_now() - t);
	}
}

int load_idle(const struct load_opts *o)
{
	struct load_conn **c = (struct load_conn **)mem_calloc(o->conns, sizeof(struct load_conn *)), *first;
	struct load_stat all = { 0 };
	struct load_usage from, to;
	unsigned before_n, after_n, i;
	uint64_t before, after;
	char extra[256];

	if (!o->pid)
		load_fail("idle needs --pid");
	/* what the first session costs once is not the price of a connection */
	first = load_login(o, o->first_user);
	load_imap(first, "SELECT INBOX");
	load_logout(&first);
	usleep(300000);
	before = load_tree_pss(o->pid, &before_n);
	load_usage(o, &from);
	open_idle(o, c, &all);
	usleep((useconds_t)(o->settle * 1e6));
	after = load_tree_pss(o->pid, &after_n);
	load_usage(o, &to);
	for (i = 0; i < o->conns; i++)
		idle_end(&c[i]);
	snprintf(extra, sizeof(extra), ",\"pss_before\":%llu,\"pss_after\":%llu,\"kib_per_conn\":%.2f,\"processes_before\":%u,\"processes_after\":%u",
		 (unsigned long long)before, (unsigned long long)after, ((double)after - (double)before) / 1024 / o->conns, before_n, after_n);
	load_report(o, "idle", &all, &from, &to, extra);
	free(all.v);
	free(c);
	return 0;
}

/* --- notify: from the 250 of a delivery to EXISTS in a client that idles --- */
static void send_one(struct load_conn *lmtp, const struct load_opts *o, const char *name, const struct buf *m)
{
	load_sendf(lmtp, "MAIL FROM:<sender@example.org>\r\nRCPT TO:<%s@%s>\r\nDATA\r\n", name, o->domain);
	if (!load_reply(lmtp, "250") || !load_reply(lmtp, "250") || !load_reply(lmtp, "354"))
		load_fail("delivery: %s", lmtp->line);
	load_send(lmtp, m->data, m->len);
}

/* Waits for both; the time from the 250 to EXISTS, below 0 when EXISTS came first, -1e9 for neither. */
static double wait_both(struct load_conn *lmtp, struct load_conn *imap)
{
	double answered = 0, exists = 0, end = load_now() + 40;

	while ((!answered || !exists) && load_now() < end) {
		struct pollfd p[2] = { { .fd = lmtp->fd, .events = POLLIN }, { .fd = imap->fd, .events = POLLIN } };

		poll(p, 2, 1000);
		if (p[0].revents && !answered) {
			if (!load_reply(lmtp, "250"))
				load_fail("delivery: %s", lmtp->line);
			answered = load_now();
		}
		while (load_line_ready(imap) || p[1].revents) {
			p[1].revents = 0;
			load_imap_line(imap);
			if (strstr(imap->line, " EXISTS") && !exists)
				exists = load_now();
		}
	}
	return answered && exists ? exists - answered : -1e9;
}

int load_notify(const struct load_opts *o)
{
	struct load_conn *lmtp = load_connect(o, o->lmtp), *imap = load_login(o, o->first_user);
	struct load_stat all = { 0 };
	struct load_usage from, to;
	struct buf m = BUF_INIT(0);
	struct load_gen g;
	char name[256];
	unsigned i, early = 0;
	char extra[64];

	load_user(o, o->first_user, name, sizeof(name));
	load_gen_init(&g, o->seed);
	load_reply(lmtp, "220");
	load_sendf(lmtp, "LHLO bench.example\r\n");
	load_reply(lmtp, "250");
	load_imap(imap, "SELECT INBOX");
	idle_begin(imap);
	usleep(300000);
	load_usage(o, &from);
	for (i = 0; i < (o->repeat ? o->repeat : 20); i++) {
		double t;

		buf_clear(&m);
		load_message(&g, o->size, &m);
		buf_adds(&m, ".\r\n");
		send_one(lmtp, o, name, &m);
		t = wait_both(lmtp, imap);
		if (t < -1e8)
			all.errors++;
		else
			load_stat_add(&all, t < 0 ? 0 : t);
		early += t < 0 && t > -1e8;
		usleep((useconds_t)(o->settle * 1e6));
	}
	load_usage(o, &to);
	idle_end(&imap);
	load_sendf(lmtp, "QUIT\r\n");
	load_line(lmtp);
	load_close(&lmtp);
	snprintf(extra, sizeof(extra), ",\"before_250\":%u", early);
	load_report(o, "notify", &all, &from, &to, extra);
	buf_free(&m);
	free(all.v);
	return all.errors ? 1 : 0;
}
