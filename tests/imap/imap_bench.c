/* imap_bench - how long commands over a large mailbox take, in process and
 * without a network.  Usage: imap_bench [messages] [COMMAND...] */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "tests/imap/harness.h"

enum { SEED = 1000 };

static void seed_message(struct world *w, unsigned n)
{
	struct buf b = BUF_INIT(0);
	unsigned i;

	buf_addf(&b, "Return-Path: <sender%u@example.org>\r\nReceived: from a.example.org by b.example.org; Mon, 7 Feb 2022 21:52:25 +0000\r\n"
		 "From: \"Sender Number %u\" <sender%u@example.org>\r\nTo: \"Joe Doe\" <joe@example.com>, ann@example.net\r\n"
		 "Subject: message number %u about things\r\nDate: Mon, 7 Feb 2022 21:52:25 +0000\r\nMessage-ID: <%u.abc@example.org>\r\n"
		 "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", n, n, n % 97, n, n);
	for (i = 0; i < 40; i++)
		buf_addf(&b, "This is line %u of message %u, and it says nothing of interest.\r\n", i, n);
	world_deliver(w, "joe", "INBOX", b.data, b.len, n % 3 ? OBOX_SEEN : 0);
	buf_free(&b);
}

static double timed(struct client *c, const char *cmd, size_t *bytes)
{
	int64_t t0;
	struct buf b = BUF_INIT(0);

	buf_addf(&b, "x %s\r\n", cmd);
	buf_clear(&c->got);
	t0 = clock_mono_us(&clock_system);
	client_send(c, b.data, b.len);
	buf_free(&b);
	*bytes = c->got.len;
	return (double)(clock_mono_us(&clock_system) - t0) / 1000;
}

static void report(struct client *c, const char *cmd)
{
	size_t bytes;
	unsigned runs = c->runs, drains = c->drains;
	double best = 0;
	int i;

	c->out_peak = 0;
	for (i = 0; i < 3; i++) {
		double ms = timed(c, cmd, &bytes);

		if (!i || ms < best)
			best = ms;
	}
	printf("%9.2f ms  %10zu bytes  %5u runs  %4u drains  out <= %6zu  %s\n", best, bytes, c->runs - runs, c->drains - drains, c->out_peak, cmd);
}

int main(int argc, char **argv)
{
	static const char *const standard[] = { "NOOP", "SELECT INBOX", "FETCH 1:* (FLAGS)", "UID FETCH 1:* (FLAGS)", "FETCH 1:* (UID FLAGS)",
		"FETCH 1:* FAST", "FETCH 1:* (ENVELOPE)", "FETCH 1:* (BODYSTRUCTURE)", "FETCH 1:* ALL",
		"FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (From To Subject Date)])", "FETCH 1:* PREVIEW",
		"SEARCH UNSEEN", "SEARCH RETURN (COUNT) ALL", "SEARCH SUBJECT \"number 77\"", "SEARCH FROM nobody", "SEARCH HEADER Message-ID zzz",
		"SEARCH UID 1:* LARGER 100", "STORE 1:* +FLAGS.SILENT (\\Flagged)", "STORE 1:* -FLAGS (\\Flagged)", "FETCH 1:1000 BODY.PEEK[]",
		"FETCH 1:1000 BODY.PEEK[HEADER]", "SEARCH 1:10000 BODY nowhere" };
	struct world w;
	struct client *c;
	unsigned long want = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000, have;
	size_t bytes;
	unsigned i;

	log_init("bench", LOG_WARN, LOG_FMT_TEXT);
	world_open(&w);
	for (have = 0; have < SEED && have < want; have++)
		seed_message(&w, (unsigned)have);
	c = client_new(&w, "joe", "login");
	timed(c, "SELECT INBOX", &bytes);
	while (have < want) {
		char cmd[64];
		unsigned long n = want - have < have ? want - have : have;

		snprintf(cmd, sizeof(cmd), "COPY 1:%lu INBOX", n);
		timed(c, cmd, &bytes);
		have += n;
	}
	printf("%lu messages\n", have);
	if (argc > 2)
		for (i = 2; i < (unsigned)argc; i++)
			report(c, argv[i]);
	else
		for (i = 0; i < MEM_COUNT(standard); i++)
			report(c, standard[i]);
	client_free(&c);
	world_close(&w);
	return 0;
}
