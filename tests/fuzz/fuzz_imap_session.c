/* A whole session on a store in memory: bytes from a client, cut anywhere.
 * Every answer must be whole lines, and the session must end. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "tests/imap/harness.h"

enum { WORLD_AGE = 300 };	/* inputs that share one, each with a user of its own */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world world;
static unsigned age, user_number;

static const char message[] =
	"From: Ann <ann@example.org>\r\nTo: joe@example.org\r\nSubject: =?utf-8?q?J=C3=B6rg?=\r\nMIME-Version: 1.0\r\n"
	"Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\n"
	"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninner text\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--b--\r\n";

static void close_world(void)
{
	if (age)
		world_close(&world);
	age = 0;
}

static void fresh_user(char *user, size_t len)
{
	if (age >= WORLD_AGE)
		close_world();
	if (!age) {
		if (!user_number) {
			log_init("fuzz", LOG_ERROR + 1, LOG_FMT_TEXT);
			atexit(close_world);
		}
		world_open(&world);
		world.env.max_message = 20000;
		world.env.max_command = 3000;
	}
	age++;
	snprintf(user, len, "u%u", user_number++);
	world_deliver(&world, user, "INBOX", message, sizeof(message) - 1, 0);
	world_deliver(&world, user, "INBOX", message, sizeof(message) - 1, OBOX_SEEN | OBOX_DELETED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t at = 0, step = size ? 1 + data[0] : 1, len;
	struct client *c;
	char user[32], *line;

	fresh_user(user, sizeof(user));
	c = client_new(&world, user, "t");
	client_send(c, "s SELECT INBOX\r\n", 16);
	while (at < size && !c->closed) {
		size_t n = size - at < step ? size - at : step;

		client_send(c, (const char *)data + at, n);
		at += n;
	}
	client_run(c, CONN_EV_EOF);
	if (!c->closed)
		abort();
	while ((line = client_line(c, &len)) != NULL)
		free(line);
	if (c->got.len)
		abort();
	client_free(&c);
	return 0;
}
