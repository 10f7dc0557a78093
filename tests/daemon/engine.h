/* engine - a session of any protocol engine on the harness of tests/imap. */
#ifndef TESTS_DAEMON_ENGINE_H
#define TESTS_DAEMON_ENGINE_H
#include "base/mem.h"
#include "tests/imap/harness.h"

static inline struct client *engine_new(struct world *w, const struct conn_ops *ops, const char *user)
{
	struct client *c = MEM_NEW(struct client);

	c->conn.ops = ops;
	c->conn.env = &w->env;
	c->conn.user = mem_strdup(user);
	snprintf(c->conn.id, sizeof(c->conn.id), "test");
	client_run(c, CONN_EV_START);
	return c;
}

/* Sends text in pieces of step bytes (0: at once). */
static inline void engine_send(struct client *c, const void *data, size_t len, size_t step)
{
	const char *p = data;
	size_t n;

	for (; len && !c->closed; p += n, len -= n) {
		n = step && step < len ? step : len;
		client_send(c, p, n);
	}
}

/* What came since the last look, owned by the caller. */
static inline char *engine_got(struct client *c)
{
	char *s = mem_strndup(c->got.len ? (char *)c->got.data : "", c->got.len);

	buf_clear(&c->got);
	return s;
}
#endif
