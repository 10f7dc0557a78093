/* What strangers send before they logged in: IMAP or POP3 (by the first byte)
 * over a connection whose other end is a socket nobody reads. */
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/mem.h"
#include "daemon/gate.h"

#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct gate gate;

static struct gconn *open_conn(const struct gate_proto *proto)
{
	struct gconn *g = MEM_NEW(struct gconn);

	if (!gate.p.loop.ep) {
		log_init("fuzz", LOG_ERROR + 1, LOG_FMT_TEXT);
		loop_init(&gate.p.loop);
		gate.p.conf.hostname = mem_strdup("fuzz");
		gate.p.conf.limits.login_attempts = 5;
		gate.p.conf.worker_count = 2;
	}
	g->gate = &gate;
	g->proto = proto;
	g->src.fd = -1;
	g->state = G_COMMAND;
	g->loopback = g->starttls_ok = true;
	buf_init(&g->in, GATE_IN_MAX);
	buf_init(&g->out, GATE_OUT_MAX);
	proto->greet(g);
	return g;
}

static void close_conn(struct gconn *g)
{
	loop_timer_clear(&gate.p.loop, &g->timer);
	buf_free(&g->in);
	buf_free(&g->out);
	free(g->user);
	free(g->tag);
	free(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gconn *g;
	size_t at = 1, step;

	if (size < 2)
		return 0;
	g = open_conn(data[0] & 1 ? &gate_imap : &gate_pop3);
	step = 1 + data[0] / 2;
	while (at < size && g->state == G_COMMAND && !g->starttls_now) {
		size_t n = size - at < step ? size - at : step;

		if (g->in.len + n > GATE_IN_MAX)
			abort();	/* input() must not let it grow so far */
		buf_add(&g->in, data + at, n);
		at += n;
		while (g->state == G_COMMAND && !g->starttls_now && g->in.len && g->proto->input(g))
			;
		if (g->out.len && memcmp(g->out.data + g->out.len - 2, "\r\n", 2))
			abort();
		buf_clear(&g->out);
	}
	close_conn(g);
	return 0;
}
