/* lmtp: deliveries per second.  Each connection sends one message after the
 * other, the envelope pipelined as mail servers do, and waits for the 250. */
#include "bench/load.h"

enum { POOL_BYTES = 24 * 1024 * 1024, POOL_MIN = 4, POOL_MAX = 256 };

struct pool {
	const struct load_opts *o;
	struct load_stat warm;
	unsigned n;
	struct buf message[POOL_MAX];
	double until;
};

static void make_pool(struct pool *p, const struct load_opts *o)
{
	unsigned i, each = o->size ? o->size : 8192;
	struct load_gen g;

	p->o = o;
	p->n = POOL_BYTES / each < POOL_MIN ? POOL_MIN : POOL_BYTES / each > POOL_MAX ? POOL_MAX : POOL_BYTES / each;
	load_gen_init(&g, o->seed);
	for (i = 0; i < p->n; i++) {
		buf_init(&p->message[i], 0);
		load_message(&g, o->size, &p->message[i]);
		buf_adds(&p->message[i], ".\r\n");
	}
}

static void deliver(struct load_conn *c, const struct load_opts *o, unsigned user, const struct buf *m, struct load_stat *s)
{
	char name[256];
	double t = load_now();

	load_user(o, user, name, sizeof(name));
	load_sendf(c, "MAIL FROM:<sender@example.org>\r\nRCPT TO:<%s@%s>\r\nDATA\r\n", name, o->domain);
	if (!load_reply(c, "250"))
		load_fail("MAIL: %s", c->line);
	if (!load_reply(c, "250"))
		load_fail("RCPT %s: %s", name, c->line);
	if (!load_reply(c, "354"))
		load_fail("DATA: %s", c->line);
	load_send(c, m->data, m->len);
	if (load_reply(c, "250")) {
		load_stat_add(s, load_now() - t);
		s->bytes += m->len;
	} else if (!s->errors++) {
		fprintf(stderr, "culverbench: delivery to %s: %s\n", name, c->line);
	}
}

static void connection(void *ctx, unsigned i, struct load_stat *s)
{
	const struct pool *p = (const struct pool *)ctx;
	const struct load_opts *o = p->o;
	struct load_conn *c = load_connect(o, o->lmtp);
	struct buf mine = BUF_INIT(0);
	uint64_t n;
	struct load_gen g;

	load_gen_init(&g, o->seed * 1000 + i);
	if (!load_reply(c, "220"))
		load_fail("greeting: %s", c->line);
	load_sendf(c, "LHLO bench.example\r\n");
	if (!load_reply(c, "250"))
		load_fail("LHLO: %s", c->line);
	for (n = 0; o->repeat ? n < o->repeat : load_now() < p->until; n++) {
		const struct buf *m = &p->message[load_random(&g) % p->n];
		/* a given number of repetitions visits the users in turn, as in login */
		unsigned k = o->repeat ? (unsigned)((i + n * o->conns) % o->users) : (unsigned)(load_random(&g) % o->users);

		buf_clear(&mine);
		buf_add(&mine, m->data, m->len);
		load_renumber(&mine, o->seed * 100000000 + i * 1000000 + n);
		deliver(c, o, o->first_user + k, &mine, s);
	}
	load_sendf(c, "QUIT\r\n");
	load_line(c);
	load_close(&c);
	buf_free(&mine);
}

int load_lmtp(const struct load_opts *o)
{
	static struct pool p;
	struct load_stat all = { 0 };
	struct load_usage from, to;
	unsigned i;

	make_pool(&p, o);
	load_usage(o, &from);
	p.until = load_now() + o->secs;
	load_threads(o->conns, connection, &p, &all);
	load_usage(o, &to);
	load_report(o, "lmtp", &all, &from, &to, NULL);
	for (i = 0; i < p.n; i++)
		buf_free(&p.message[i]);
	free(all.v);
	return all.errors ? 1 : 0;
}
