/* Tests of daemon/pop3: its parser, the multi-line form, whole dialogues. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/pop3/pop3-private.h"
#include "tests/daemon/engine.h"

static void commands_are_read_and_their_arguments_checked(void **state)
{
	static const struct { const char *in; enum pop3_verb verb; unsigned n; uint32_t a, b; } good[] = {
		{ "STAT", POP3_STAT, 0, 0, 0 }, { "list", POP3_LIST, 0, 0, 0 }, { "LIST 7", POP3_LIST, 1, 7, 0 }, { "uidl 4294967295", POP3_UIDL, 1, UINT32_MAX, 0 },
		{ "RETR  1 ", POP3_RETR, 1, 1, 0 }, { "TOP 1 0", POP3_TOP, 2, 1, 0 }, { "DELE 3", POP3_DELE, 1, 3, 0 }, { "QUIT", POP3_QUIT, 0, 0, 0 },
		{ "NOOP", POP3_NOOP, 0, 0, 0 }, { "RSET", POP3_RSET, 0, 0, 0 }, { "CAPA", POP3_CAPA, 0, 0, 0 },
	};
	static const char *const bad[] = { "", " ", "STATS", "STAT 1", "LIST x", "LIST 1 2", "LIST -1", "RETR", "RETR 4294967296", "TOP 1", "TOP 1 2 3",
		"DELE 1x", "QUIT now", "USER joe", "PASS x", "RETR 1,2" };
	struct pop3_command cmd;
	size_t i;

	for (i = 0; i < MEM_COUNT(good); i++) {
		assert_null(pop3_parse(good[i].in, &cmd));
		assert_int_equal(cmd.verb, good[i].verb);
		assert_int_equal(cmd.n_args, good[i].n);
		assert_int_equal(cmd.arg[0], good[i].a);
		assert_int_equal(cmd.arg[1], good[i].b);
	}
	for (i = 0; i < MEM_COUNT(bad); i++)
		assert_non_null(pop3_parse(bad[i], &cmd));
}

static void lines_are_stuffed_and_counted_however_they_are_cut(void **state)
{
	static const struct { const char *in, *out; bool limited; uint32_t lines; } t[] = {
		{ "", ".\r\n", false, 0 }, { "a", "a\r\n.\r\n", false, 0 }, { "a\r\n", "a\r\n.\r\n", false, 0 },
		{ ".\r\n..\r\n.a", "..\r\n...\r\n..a\r\n.\r\n", false, 0 }, { "a\n.\nb", "a\n..\nb\r\n.\r\n", false, 0 },
		{ "H: 1\r\n\r\nb1\r\nb2\r\n", "H: 1\r\n\r\n.\r\n", true, 0 }, { "H: 1\r\n\r\nb1\r\nb2\r\n", "H: 1\r\n\r\nb1\r\n.\r\n", true, 1 },
		{ "H: 1\r\n\r\nb1\r\nb2\r\n", "H: 1\r\n\r\nb1\r\nb2\r\n.\r\n", true, 9 }, { "H: 1\n\nb1\nb2", "H: 1\n\nb1\n.\r\n", true, 1 },
		{ "\r\nb1\r\nb2\r\n", "\r\nb1\r\n.\r\n", true, 1 }, { "H: 1\r\n\r\n\r\n\r\nx", "H: 1\r\n\r\n\r\n.\r\n", true, 1 },
		{ "H\r\n\rx\r\nb", "H\r\n\rx\r\nb\r\n.\r\n", true, 0 },
	};
	size_t i, step, at;

	for (i = 0; i < MEM_COUNT(t); i++) {
		for (step = 1; step <= strlen(t[i].in) + 1; step++) {
			struct pop3_lines l = { .limited = t[i].limited, .lines = t[i].lines };
			struct buf out = BUF_INIT(0);
			size_t len = strlen(t[i].in);

			for (at = 0; at < len; at += step)
				if (!pop3_lines_add(&l, t[i].in + at, len - at < step ? len - at : step, &out))
					break;
			pop3_lines_end(&l, &out);
			assert_string_equal(buf_str(&out), t[i].out);
			buf_free(&out);
		}
	}
}

static int setup(void **state)
{
	static const char one[] = "Subject: one\r\n\r\n.dot\r\n", two[] = "Subject: two\r\n\r\nno end of line", three[] = "Subject: three\r\n\r\n3\r\n";
	struct world *w = MEM_NEW(struct world);

	world_open(w);
	world_deliver(w, "joe", "INBOX", one, sizeof(one) - 1, 0);
	world_deliver(w, "joe", "INBOX", two, sizeof(two) - 1, 0);
	world_deliver(w, "joe", "INBOX", three, sizeof(three) - 1, 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	world_close(*state);
	free(*state);
	return 0;
}

static void assert_got(struct client *c, const char *want)
{
	char *got = engine_got(c);

	assert_string_equal(got, want);
	free(got);
}

static void talk(struct client *c, const char *text, const char *want)
{
	engine_send(c, text, strlen(text), 0);
	assert_got(c, want);
}

static struct client *login(struct world *w, const char *want)
{
	struct client *c = engine_new(w, &pop3_conn_ops, "joe");

	assert_got(c, want);
	return c;
}

static uint32_t count(struct world *w, uint32_t flags)
{
	struct obox_user *u = NULL;
	struct obox_view *v = NULL;
	struct obox_msg m[8];
	struct err err = ERR_INIT;
	uint32_t n = 0;
	size_t i, got;

	assert_int_equal(obox_user_open(w->obox, "joe", &u, &err), 0);
	assert_int_equal(obox_view_open(u, "INBOX", true, NULL, NULL, &v, &err), 0);
	got = obox_view_read(v, 1, m, 8);
	for (i = 0; i < got; i++)
		n += (m[i].flags & flags) == flags;
	obox_view_close(&v);
	obox_user_close(&u);
	return n;
}

static void a_mailbox_is_listed_and_read(void **state)
{
	struct client *c = login(*state, "+OK 3 messages\r\n");
	char *got, *want;
	unsigned uidvalidity;

	talk(c, "STAT\r\nLIST\r\nLIST 2\r\nLIST 4\r\nLIST 0\r\n", "+OK 3 73\r\n+OK\r\n1 22\r\n2 30\r\n3 21\r\n.\r\n+OK 2 30\r\n-ERR There is no message 4\r\n-ERR There is no message 0\r\n");
	talk(c, "RETR 1\r\nRETR 2\r\n", "+OK 22 octets\r\nSubject: one\r\n\r\n..dot\r\n.\r\n+OK 30 octets\r\nSubject: two\r\n\r\nno end of line\r\n.\r\n");
	talk(c, "TOP 3 0\r\nTOP 3 1\r\n", "+OK 21 octets\r\nSubject: three\r\n\r\n.\r\n+OK 21 octets\r\nSubject: three\r\n\r\n3\r\n.\r\n");
	engine_send(c, "UIDL\r\nUIDL 3\r\n", 14, 1);
	got = engine_got(c);
	assert_int_equal(sscanf(got, "+OK\r\n1 %x.1\r\n", &uidvalidity), 1);
	want = mem_printf("+OK\r\n1 %x.1\r\n2 %x.2\r\n3 %x.3\r\n.\r\n+OK 3 %x.3\r\n", uidvalidity, uidvalidity, uidvalidity, uidvalidity);
	assert_string_equal(got, want);
	free(got);
	free(want);
	talk(c, "FROB\r\nSTAT x\r\nNOOP\r\nQUIT\r\nNOOP\r\n", "-ERR Unknown command\r\n-ERR This command takes no argument\r\n+OK\r\n+OK Bye\r\n");
	assert_true(c->closed);
	client_free(&c);
	assert_int_equal(count(*state, OBOX_SEEN), 2);
}

static void what_is_deleted_is_out_of_sight_and_gone_after_quit(void **state)
{
	struct client *c = login(*state, "+OK 3 messages\r\n");

	talk(c, "DELE 2\r\nDELE 2\r\nRETR 2\r\nTOP 2 1\r\nLIST 2\r\nLIST\r\nSTAT\r\n",
	     "+OK Message 2 will be deleted\r\n-ERR Message 2 is deleted\r\n-ERR Message 2 is deleted\r\n-ERR Message 2 is deleted\r\n-ERR Message 2 is deleted\r\n"
	     "+OK\r\n1 22\r\n3 21\r\n.\r\n+OK 2 43\r\n");
	talk(c, "RSET\r\nSTAT\r\nDELE 1\r\nDELE 3\r\nQUIT\r\n", "+OK\r\n+OK 3 73\r\n+OK Message 1 will be deleted\r\n+OK Message 3 will be deleted\r\n+OK Bye\r\n");
	client_free(&c);
	assert_int_equal(count(*state, 0), 1);
	world_reopen(*state);
	c = login(*state, "+OK 1 messages\r\n");
	talk(c, "RETR 1\r\n", "+OK 30 octets\r\nSubject: two\r\n\r\nno end of line\r\n.\r\n");
	client_free(&c);
}

static void nothing_is_deleted_without_quit(void **state)
{
	static const unsigned ends[] = { CONN_EV_EOF, CONN_EV_STOP, CONN_EV_TIMEOUT };
	size_t i;

	for (i = 0; i < MEM_COUNT(ends); i++) {
		struct client *c = login(*state, "+OK 3 messages\r\n");

		talk(c, "DELE 1\r\n", "+OK Message 1 will be deleted\r\n");
		client_run(c, ends[i]);
		assert_true(c->closed);
		assert_got(c, ends[i] == CONN_EV_STOP ? "-ERR [SYS/TEMP] The server is stopping\r\n" : "");
		client_free(&c);
	}
	assert_int_equal(count(*state, 0), 3);
}

static void a_message_that_cannot_be_read_now_is_told_from_one_that_is_gone(void **state)
{
	struct client *c = login(*state, "+OK 3 messages\r\n");

	world_store_down(*state, true);
	talk(c, "RETR 2\r\n", "-ERR [SYS/TEMP] The message cannot be read\r\n");
	world_store_down(*state, false);
	talk(c, "RETR 2\r\n", "+OK 30 octets\r\nSubject: two\r\n\r\nno end of line\r\n.\r\n");
	client_free(&c);
}

static void one_session_has_the_mailbox(void **state)
{
	struct client *a = login(*state, "+OK 3 messages\r\n"), *b = login(*state, "-ERR [IN-USE] Another session has the mailbox\r\n");

	assert_true(b->closed);
	client_free(&b);
	client_free(&a);
	a = login(*state, "+OK 3 messages\r\n");
	client_free(&a);
}

static void long_lines_are_refused_and_skipped(void **state)
{
	struct client *c = login(*state, "+OK 3 messages\r\n");
	char line[3000];
	size_t step;

	memset(line, 'x', sizeof(line));
	memcpy(line + sizeof(line) - 2, "\r\n", 2);
	for (step = 0; step < 3000; step += 999) {
		engine_send(c, line, sizeof(line), step);
		talk(c, "NOOP\r\n", "-ERR The line is too long\r\n+OK\r\n");
	}
	client_free(&c);
}

static void a_large_message_to_a_slow_client_costs_a_buffer(void **state)
{
	struct world *w = *state;
	struct client *c;
	size_t len = 900000;
	char *big = mem_alloc(len), *got;

	memset(big, 'x', len);
	memcpy(big, "S: x\r\n\r\n", 8);
	memcpy(big + len - 2, "\r\n", 2);
	world_deliver(w, "joe", "INBOX", big, len, 0);
	c = login(w, "+OK 4 messages\r\n");
	c->slow = true;
	engine_send(c, "RETR 4\r\nNOOP\r\n", 14, 0);
	assert_true(c->drains > 5);
	assert_true(c->out_peak <= CONN_OUT_HIGH + 65536);
	got = engine_got(c);
	assert_int_equal(strlen(got), 19 + len + 3 + 5);
	assert_memory_equal(got + 19, big, len);
	assert_string_equal(got + 19 + len, ".\r\n+OK\r\n");
	free(got);
	free(big);
	client_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands_are_read_and_their_arguments_checked),
		cmocka_unit_test(lines_are_stuffed_and_counted_however_they_are_cut),
		cmocka_unit_test_setup_teardown(a_mailbox_is_listed_and_read, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_deleted_is_out_of_sight_and_gone_after_quit, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_deleted_without_quit, setup, teardown),
		cmocka_unit_test_setup_teardown(a_message_that_cannot_be_read_now_is_told_from_one_that_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(one_session_has_the_mailbox, setup, teardown),
		cmocka_unit_test_setup_teardown(long_lines_are_refused_and_skipped, setup, teardown),
		cmocka_unit_test_setup_teardown(a_large_message_to_a_slow_client_costs_a_buffer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
