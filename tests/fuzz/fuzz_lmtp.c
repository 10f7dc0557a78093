/* A whole LMTP session on a store in memory, cut anywhere, and its parsers. */
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "daemon/lmtp/lmtp-private.h"
#include "tests/daemon/engine.h"

enum { WORLD_AGE = 300 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world world;
static unsigned age;

static int user_exists(struct conn_env *env, const char *address, char **user_r, struct err *err)
{
	*user_r = NULL;
	if (strchr(address, '?'))
		return err_set(err, ERR_UNAVAILABLE, "away");
	if (!*address || *address > 'm')
		return 0;
	*user_r = mem_printf("u%c", *address);
	return 1;
}

static void close_world(void)
{
	if (age)
		world_close(&world);
	age = 0;
}

static void open_world(void)
{
	static bool first = true;

	if (age >= WORLD_AGE)
		close_world();
	if (!age++) {
		if (first) {
			log_init("fuzz", LOG_ERROR + 1, LOG_FMT_TEXT);
			atexit(close_world);
			first = false;
		}
		world_open(&world);
		world.env.max_message = 5000;
		world.env.max_recipients = 10;
		world.env.user_exists = user_exists;
		world.env.detail_mailbox = true;
	}
}

static void parsers(const char *text)
{
	struct lmtp_mail_params p;
	struct lmtp_reply why;
	char addr[LMTP_PATH_MAX], plain[LMTP_PATH_MAX];
	const char *at = text;
	uint64_t n;
	bool last;

	if (!lmtp_parse_path(&at, true, addr)) {
		lmtp_plain_address(addr, plain);
		if (strlen(plain) > strlen(addr) || at <= text)
			abort();
	}
	(void)lmtp_mail_params(text, &p, &why);
	(void)lmtp_rcpt_params(text, &why);
	(void)lmtp_parse_bdat(text, &n, &last);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = mem_strndup((const char *)data, size), *got, *line;
	struct client *c;

	parsers(text);
	free(text);
	open_world();
	c = engine_new(&world, &lmtp_conn_ops, NULL);
	engine_send(c, "LHLO f\r\n", 8, 0);
	engine_send(c, data, size, size ? 1 + data[0] : 0);
	if (!c->closed)
		client_run(c, CONN_EV_EOF);
	if (!c->closed)
		abort();
	got = engine_got(c);
	for (line = got; *line; line = strstr(line, "\r\n") + 2)	/* whole lines, each with a code */
		if (!strstr(line, "\r\n") || strspn(line, "0123456789") != 3)
			abort();
	free(got);
	client_free(&c);
	return 0;
}
