/* A whole POP3 session on a store in memory, cut anywhere. */
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "daemon/pop3/pop3-private.h"
#include "tests/daemon/engine.h"

enum { WORLD_AGE = 300 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world world;
static unsigned age, user_number;

static void close_world(void)
{
	if (age)
		world_close(&world);
	age = 0;
}

static void fresh_user(char *user, size_t len)
{
	static const char one[] = "Subject: one\r\n\r\n.dot\r\n..\r\n", two[] = "Subject: two\n\nno\n.\nend";

	if (age >= WORLD_AGE)
		close_world();
	if (!age++) {
		if (!user_number) {
			log_init("fuzz", LOG_ERROR + 1, LOG_FMT_TEXT);
			atexit(close_world);
		}
		world_open(&world);
	}
	snprintf(user, len, "u%u", user_number++);
	world_deliver(&world, user, "INBOX", one, sizeof(one) - 1, 0);
	world_deliver(&world, user, "INBOX", two, sizeof(two) - 1, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct client *c;
	char user[32];

	fresh_user(user, sizeof(user));
	c = engine_new(&world, &pop3_conn_ops, user);
	engine_send(c, data, size, size ? 1 + data[0] : 0);
	if (!c->closed)
		client_run(c, CONN_EV_EOF);
	if (!c->closed || c->got.len < 5 || memcmp(c->got.data + c->got.len - 2, "\r\n", 2))
		abort();
	client_free(&c);
	return 0;
}
