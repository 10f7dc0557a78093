/* Tests of daemon/lmtp: its parsers, and whole dialogues on a store in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/lmtp/lmtp-private.h"
#include "daemon/lmtp/lmtp.h"
#include "tests/daemon/engine.h"

/* --- parsers --- */

static void paths_are_read_as_rfc_5321_writes_them(void **state)
{
	static const struct { const char *in, *addr, *rest; bool null_ok; } good[] = {
		{ "<joe@example.org>", "joe@example.org", "", false }, { "<>", "", "", true }, { " <joe>", "joe", "", false },
		{ "<@a.example,@b.example:joe@c.example> SIZE=1", "joe@c.example", " SIZE=1", false },
		{ "<\"a b\\\"c>\"@x>", "\"a b\\\"c>\"@x", "", false }, { "<joe@[127.0.0.1]>", "joe@[127.0.0.1]", "", false },
		{ "<joe@[IPv6:::1]>", "joe@[IPv6:::1]", "", false }, { "<j\xc3\xb6@b\xc3\xbc.de>", "j\xc3\xb6@b\xc3\xbc.de", "", false },
		{ "<a+b=c@x>", "a+b=c@x", "", false }, { "<.a..b.@x>", ".a..b.@x", "", false }, { "<Postmaster>", "Postmaster", "", false },
	};
	static const struct { const char *in; bool null_ok; } bad[] = {
		{ "joe@x", true }, { "", true }, { "<", true }, { "<joe", false }, { "<joe@>", false }, { "<@x>", false }, { "<>", false },
		{ "<joe@x y>", false }, { "<jo e@x>", false }, { "<\"joe@x>", false }, { "<joe@[1.2.3.4>", false }, { "<joe@x@y>", false },
		{ "<@a,@b joe@x>", false }, { "<joe@x>", true },
	};
	char addr[LMTP_PATH_MAX];
	size_t i;

	for (i = 0; i < MEM_COUNT(good); i++) {
		const char *p = good[i].in;

		assert_null(lmtp_parse_path(&p, good[i].null_ok, addr));
		assert_string_equal(addr, good[i].addr);
		assert_string_equal(p, good[i].rest);
	}
	for (i = 0; i + 1 < MEM_COUNT(bad); i++) {
		const char *p = bad[i].in;

		assert_non_null(lmtp_parse_path(&p, bad[i].null_ok, addr));
	}
}

static void an_address_too_long_is_refused(void **state)
{
	char text[LMTP_PATH_MAX + 20], addr[LMTP_PATH_MAX];
	const char *p = text;

	memset(text, 'a', sizeof(text));
	text[0] = '<';
	text[sizeof(text) - 2] = '>';
	text[sizeof(text) - 1] = '\0';
	assert_non_null(lmtp_parse_path(&p, false, addr));
}

static void quoting_does_not_hide_a_user(void **state)
{
	char out[LMTP_PATH_MAX];

	lmtp_plain_address("\"joe\"@x", out);
	assert_string_equal(out, "joe@x");
	lmtp_plain_address("\"a\\\"b\"", out);
	assert_string_equal(out, "a\"b");
	lmtp_plain_address("joe@x", out);
	assert_string_equal(out, "joe@x");
}

static void parameters_are_checked(void **state)
{
	static const struct { const char *in, *code; } mail[] = {
		{ "", NULL }, { " ", NULL }, { " SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb", NULL }, { " size=0 body=binarymime", NULL },
		{ " SIZE", "501 5.5.4" }, { " SIZE=x", "501 5.5.4" }, { " SIZE=99999999999999999999", "501 5.5.4" }, { " BODY=9BIT", "501 5.5.4" },
		{ " SMTPUTF8=1", "501 5.5.4" }, { " RET=SOME", "501 5.5.4" }, { " ENVID=a+2", "501 5.5.4" }, { " ENVID=", "501 5.5.4" },
		{ "SIZE=1", "501 5.5.4" }, { " FOO=1", "555 5.5.4" }, { " =1", "501 5.5.4" }, { " SIZE=1=2", "501 5.5.4" },
	};
	static const struct { const char *in, *code; } rcpt[] = {
		{ "", NULL }, { " NOTIFY=NEVER", NULL }, { " NOTIFY=SUCCESS,DELAY,FAILURE ORCPT=rfc822;joe@x", NULL },
		{ " NOTIFY=", "501 5.5.4" }, { " NOTIFY=SUCCESS,", "501 5.5.4" }, { " NOTIFY=NEVER,DELAY", "501 5.5.4" },
		{ " ORCPT=joe", "501 5.5.4" }, { " ORCPT=;joe", "501 5.5.4" }, { " ORCPT=rfc822;a+zz", "501 5.5.4" }, { " SIZE=1", "555 5.5.4" },
	};
	struct lmtp_mail_params p;
	struct lmtp_reply why;
	size_t i;

	for (i = 0; i < MEM_COUNT(mail); i++) {
		int rc = lmtp_mail_params(mail[i].in, &p, &why);

		assert_int_equal(rc, mail[i].code ? -1 : 0);
		if (mail[i].code)
			assert_string_equal(why.code, mail[i].code);
	}
	for (i = 0; i < MEM_COUNT(rcpt); i++) {
		int rc = lmtp_rcpt_params(rcpt[i].in, &why);

		assert_int_equal(rc, rcpt[i].code ? -1 : 0);
		if (rcpt[i].code)
			assert_string_equal(why.code, rcpt[i].code);
	}
	assert_int_equal(lmtp_mail_params(" SIZE=12345 BODY=BINARYMIME", &p, &why), 0);
	assert_true(p.has_size && p.size == 12345 && p.body == LMTP_BINARYMIME && !p.smtputf8);
}

static void bdat_arguments_are_checked(void **state)
{
	static const struct { const char *in; int rc; uint64_t size; bool last; } t[] = {
		{ "0", 0, 0, false }, { "10 LAST", 0, 10, true }, { "10  last", 0, 10, true }, { "9223372036854775807", 0, INT64_MAX, false },
		{ "", -1, 0, false }, { "LAST", -1, 0, false }, { "-1", -1, 0, false }, { "10 LATE", -1, 0, false }, { "10 LAST x", -1, 0, false },
		{ "10x", -1, 0, false }, { "99999999999999999999999999", -1, 0, false },
	};
	uint64_t size;
	size_t i;
	bool last;

	for (i = 0; i < MEM_COUNT(t); i++) {
		assert_int_equal(lmtp_parse_bdat(t[i].in, &size, &last), t[i].rc);
		if (t[i].rc == 0)
			assert_true(size == t[i].size && last == t[i].last);
	}
}

static void sink(void *ctx, const void *data, size_t len)
{
	buf_add(ctx, data, len);
}

static void only_crlf_dot_crlf_ends_the_data_however_it_is_cut(void **state)
{
	static const struct { const char *in, *out; size_t used; } t[] = {
		{ ".\r\nrest", "", 3 }, { "a\r\n.\r\nrest", "a\r\n", 6 }, { "..a\r\n.\r\n", ".a\r\n", 8 }, { "a\n.\n\r\n.\r\n", "a\n.\n\r\n", 9 },
		{ "a\n.\r\n.\r\n", "a\n.\r\n", 8 }, { "a\r.\r\n.\r\n", "a\r.\r\n", 8 }, { ".\n\r\n.\r\n", "\n\r\n", 7 }, { ".\rx\r\n.\r\n", "\rx\r\n", 8 },
		{ "\r\n..\r\n.\r\n", "\r\n.\r\n", 9 }, { ".\r.\r\n.\r\n", "\r.\r\n", 8 }, { "a\r\r\n.\r\n", "a\r\r\n", 7 }, { ".a.\r\n.\r\n", "a.\r\n", 8 },
		{ ".\r\r\n.\r\n", "\r\r\n", 7 },
	};
	size_t i, step;

	for (i = 0; i < MEM_COUNT(t); i++) {
		for (step = 1; step <= strlen(t[i].in); step++) {
			struct lmtp_dot d = { DOT_LINE_START, false };
			struct buf out = BUF_INIT(0);
			size_t at = 0, len = strlen(t[i].in);

			while (at < len && d.state != DOT_END)
				at += lmtp_dot_feed(&d, t[i].in + at, len - at < step ? len - at : step, sink, &out);
			assert_int_equal(d.state, DOT_END);
			assert_int_equal(at, t[i].used);
			assert_string_equal(buf_str(&out), t[i].out);
			buf_free(&out);
		}
	}
}

/* --- dialogues --- */

static bool auth_away;

static int user_exists(struct conn_env *env, const char *address, char **user_r, struct err *err)
{
	static const char *const users[] = { "joe", "ann", "bob", "x+y" };
	size_t n = strcspn(address, "@"), i;

	*user_r = NULL;
	if (auth_away)
		return err_set(err, ERR_UNAVAILABLE, "away");
	for (i = 0; i < MEM_COUNT(users); i++) {
		if (strlen(users[i]) == n && !strncasecmp(users[i], address, n)) {
			*user_r = mem_strdup(users[i]);
			return 1;
		}
	}
	return 0;
}

static int setup(void **state)
{
	struct world *w = MEM_NEW(struct world);

	world_open(w);
	w->env.user_exists = user_exists;
	w->env.max_recipients = 5;
	w->env.max_message = 1000;
	auth_away = false;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	world_close(*state);
	free(*state);
	return 0;
}

/* Each code of want begins the next line of the replies, and there are no more. */
static void assert_codes(struct client *c, const char *want)
{
	char *got = engine_got(c), *line = got;

	while (*want) {
		size_t n = strcspn(want, "|");

		if (strncmp(line, want, n) || !strstr(line, "\r\n"))
			fail_msg("expected \"%s\", got \"%s\"", want, line);
		line = strstr(line, "\r\n") + 2;
		want += n + (want[n] == '|');
	}
	assert_string_equal(line, "");
	free(got);
}

static struct client *hello(struct world *w)
{
	struct client *c = engine_new(w, &lmtp_conn_ops, NULL);

	assert_codes(c, "220 test.example.org LMTP");
	engine_send(c, "LHLO me\r\n", 9, 0);
	assert_codes(c, "250-test.example.org|250-PIPELINING|250-ENHANCEDSTATUSCODES|250-8BITMIME|250-BINARYMIME|250-CHUNKING|250-SMTPUTF8|250 SIZE 1000");
	return c;
}

static void talk(struct client *c, const char *text, const char *codes)
{
	engine_send(c, text, strlen(text), 0);
	assert_codes(c, codes);
}

/* The messages of a mailbox, one behind the other, each with a "|" behind it. */
static char *stored(struct world *w, const char *user, const char *mailbox)
{
	struct obox_user *u = NULL;
	struct obox_view *v = NULL;
	struct obox_body *b = NULL;
	struct obox_msg m;
	struct err err = ERR_INIT;
	struct buf out = BUF_INIT(0);
	uint32_t seq;

	assert_int_equal(obox_user_open(w->obox, user, &u, &err), 0);
	assert_int_equal(obox_view_open(u, mailbox, true, NULL, NULL, &v, &err), 0);
	for (seq = 1; seq <= obox_view_count(v); seq++) {
		size_t len;

		assert_int_equal(obox_view_read(v, seq, &m, 1), 1);
		assert_int_equal(obox_body_open(u, &m, &b, &err), 0);
		len = (size_t)obox_body_size(b);
		assert_int_equal(obox_body_read(b, 0, buf_reserve(&out, len), len, &err), 0);
		out.len += len;
		buf_addc(&out, '|');
		obox_body_close(&b);
	}
	obox_view_close(&v);
	obox_user_close(&u);
	return buf_detach(&out);
}

static void assert_stored(struct world *w, const char *user, const char *mailbox, const char *want)
{
	char *got = stored(w, user, mailbox);

	assert_string_equal(got ? got : "", want);
	free(got);
}

static void a_pipelined_transaction_is_the_same_in_any_pieces(void **state)
{
	static const char text[] = "LHLO me\r\nMAIL FROM:<a@b> SIZE=20\r\nRCPT TO:<joe@x>\r\nRCPT TO:<nobody@x>\r\nRCPT TO:<ANN>\r\nDATA\r\n"
		"Subject: x\r\n\r\n..y\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<bob+z@x>\r\nBDAT 4\r\nab\r\nBDAT 3 LAST\r\nc.\nQUIT\r\nNOOP\r\n";
	struct world *w = *state;
	size_t step;

	for (step = 1; step < sizeof(text); step += step < 20 ? 1 : 37) {
		struct client *c = engine_new(w, &lmtp_conn_ops, NULL);
		char *got;

		assert_codes(c, "220");
		engine_send(c, text, sizeof(text) - 1, step);
		assert_true(c->closed);
		got = engine_got(c);
		assert_non_null(strstr(got, "\r\n250 SIZE 1000\r\n250 2.1.0 Sender ok\r\n250 2.1.5 Recipient ok\r\n"
			"550 5.1.1 <nobody@x> There is no such user here\r\n250 2.1.5 Recipient ok\r\n354 Send the message, end with <CRLF>.<CRLF>\r\n"
			"250 2.0.0 <joe@x> test Saved\r\n250 2.0.0 <ANN> test Saved\r\n"
			"250 2.1.0 Sender ok\r\n250 2.1.5 Recipient ok\r\n250 2.0.0 4 octets received\r\n250 2.0.0 <bob+z@x> test Saved\r\n221 2.0.0 "));
		free(got);
		client_free(&c);
		if (step == 1) {
			assert_stored(w, "joe", "INBOX", "Return-Path: <a@b>\r\nDelivered-To: joe@x\r\nSubject: x\r\n\r\n.y\r\n|");
			assert_stored(w, "ann", "INBOX", "Return-Path: <a@b>\r\nDelivered-To: ANN\r\nSubject: x\r\n\r\n.y\r\n|");
			assert_stored(w, "bob", "INBOX", "Return-Path: <>\r\nDelivered-To: bob+z@x\r\nab\r\nc.\n|");
		}
	}
}

static void commands_out_of_order_get_503(void **state)
{
	struct client *c = engine_new(*state, &lmtp_conn_ops, NULL);

	assert_codes(c, "220");
	talk(c, "MAIL FROM:<a@b>\r\nRCPT TO:<joe>\r\nDATA\r\nBDAT 3 LAST\r\nabcNOOP\r\n", "503 5.5.1|503 5.5.1|503 5.5.1|503 5.5.1|250 2.0.0");
	talk(c, "EHLO x\r\nHELO x\r\nLHLO\r\nFROB\r\nLHLOX\r\n", "500 5.5.1|500 5.5.1|501 5.5.4|500 5.5.1|500 5.5.1");
	client_free(&c);
	c = hello(*state);
	talk(c, "RCPT TO:<joe>\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\nRCPT TO:<none>\r\nDATA\r\n",
	     "503 5.5.1|250 2.1.0|503 5.5.1|503 5.5.1|550 5.1.1|503 5.5.1");
	talk(c, "RCPT TO:<joe>\r\nBDAT 1\r\nxDATA\r\nRCPT TO:<ann>\r\nRSET\r\n", "250 2.1.5|250 2.0.0|503 5.5.1|503 5.5.1|250 2.0.0");
	talk(c, "MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<joe>\r\nDATA\r\nDATA x\r\n", "250 2.1.0|250 2.1.5|503 5.5.1|501 5.5.4");
	talk(c, "LHLO again\r\nDATA\r\nVRFY joe\r\nVRFY\r\nHELP\r\nNOOP x\r\n", "250-|250-|250-|250-|250-|250-|250-|250 SIZE|503 5.5.1|252 2.5.0|501 5.5.4|214 2.0.0|250 2.0.0");
	client_free(&c);
	assert_stored(*state, "joe", "INBOX", "");
}

static void what_is_malformed_is_named(void **state)
{
	struct client *c = hello(*state);
	char *line = mem_alloc(LMTP_LINE_MAX + 100);

	talk(c, "MAIL\r\nMAIL TO:<x>\r\nMAIL FROM:x\r\nMAIL FROM:<x> FOO\r\nMAIL FROM:<\xc3\xb6@x>\r\n", "501 5.5.4|501 5.5.4|501 5.1.7|555 5.5.4|553 5.6.7");
	talk(c, "MAIL FROM:<\xc3\xb6@x> SMTPUTF8\r\nRCPT FROM:<x>\r\nRCPT TO:<x\r\nRCPT TO:<x> A=B\r\nBDAT\r\n", "250 2.1.0|501 5.5.4|501 5.1.3|555 5.5.4|501 5.5.4");
	engine_send(c, "NO\0OP\r\nN\rOP\r\nNOOP\n", 18, 0);
	assert_codes(c, "500 5.5.2|500 5.5.2|250 2.0.0");
	memset(line, 'x', LMTP_LINE_MAX + 98);
	memcpy(line + LMTP_LINE_MAX + 98, "\r\n", 2);
	engine_send(c, line, LMTP_LINE_MAX + 100, 1000);
	talk(c, "NOOP\r\n", "500 5.5.2|250 2.0.0");
	client_free(&c);
	free(line);
}

static void too_many_errors_end_the_session(void **state)
{
	struct client *c = hello(*state);
	int i;

	for (i = 0; i < 60 && !c->closed; i++)
		engine_send(c, "BAD\r\n", 5, 0);
	assert_true(c->closed && i < 60);
	client_free(&c);
}

static void a_message_too_large_is_refused_at_mail_or_at_its_end(void **state)
{
	struct client *c = hello(*state);
	char big[1400];

	talk(c, "MAIL FROM:<> SIZE=1001\r\n", "552 5.3.4");
	talk(c, "MAIL FROM:<> SIZE=999\r\nRCPT TO:<joe>\r\nRCPT TO:<ann>\r\nDATA\r\n", "250|250|250|354");
	memset(big, 'x', sizeof(big));
	engine_send(c, big, sizeof(big), 100);
	talk(c, "\r\n.\r\nNOOP\r\n", "552 5.3.4 <joe>|552 5.3.4 <ann>|250 2.0.0");
	talk(c, "MAIL FROM:<>\r\nRCPT TO:<joe>\r\nBDAT 1400\r\n", "250|250");
	engine_send(c, big, sizeof(big), 100);
	talk(c, "BDAT 2 LAST\r\nab", "552 5.3.4 The|552 5.3.4 <joe>");
	talk(c, "MAIL FROM:<>\r\nRCPT TO:<joe>\r\nBDAT 2 LAST\r\nab", "250|250|250 2.0.0 <joe>");
	client_free(&c);
	assert_stored(*state, "joe", "INBOX", "Return-Path: <>\r\nDelivered-To: joe\r\nab|");
}

static void recipients_have_a_limit(void **state)
{
	struct client *c = hello(*state);

	talk(c, "MAIL FROM:<>\r\nRCPT TO:<joe>\r\nRCPT TO:<joe>\r\nRCPT TO:<joe>\r\nRCPT TO:<joe>\r\nRCPT TO:<joe>\r\nRCPT TO:<joe>\r\n", "250|250|250|250|250|250|452 4.5.3");
	client_free(&c);
}

static void details_lead_to_their_mailbox_when_that_is_wanted_and_there(void **state)
{
	struct world *w = *state;
	struct client *c = hello(w);
	struct obox_user *u = NULL;
	struct err err = ERR_INIT;

	assert_int_equal(obox_user_open(w->obox, "joe", &u, &err), 0);
	assert_int_equal(obox_mailbox_create(u, "lists", 0, &err), 0);
	obox_user_close(&u);
	talk(c, "MAIL FROM:<>\r\nRCPT TO:<joe+lists@x>\r\nRCPT TO:<x+y@x>\r\nBDAT 1 LAST\r\n1", "250|250|250|250|250");
	w->env.detail_mailbox = true;
	talk(c, "MAIL FROM:<>\r\nRCPT TO:<joe+lists@x>\r\nRCPT TO:<joe+none>\r\nRCPT TO:<joe+>\r\nBDAT 1 LAST\r\n2", "250|250|250|250|250|250|250");
	assert_stored(w, "joe", "lists", "Return-Path: <>\r\nDelivered-To: joe+lists@x\r\n2|");
	assert_stored(w, "joe", "INBOX", "Return-Path: <>\r\nDelivered-To: joe+lists@x\r\n1|Return-Path: <>\r\nDelivered-To: joe+none\r\n2|"
		      "Return-Path: <>\r\nDelivered-To: joe+\r\n2|");
	assert_stored(w, "x+y", "INBOX", "Return-Path: <>\r\nDelivered-To: x+y@x\r\n1|");
	w->env.recipient_delimiter = "";
	talk(c, "MAIL FROM:<>\r\nRCPT TO:<joe+lists@x>\r\n", "250|550 5.1.1");
	client_free(&c);
}

static void what_cannot_be_stored_now_is_asked_for_again(void **state)
{
	struct world *w = *state;
	struct client *c = hello(w);

	talk(c, "MAIL FROM:<>\r\nRCPT TO:<joe>\r\n", "250|250");
	auth_away = true;
	talk(c, "RCPT TO:<ann>\r\n", "451 4.3.0");
	world_store_down(w, true);
	talk(c, "DATA\r\nx\r\n.\r\n", "354|451 4.3.0 <joe>");
	world_store_down(w, false);
	auth_away = false;
	talk(c, "MAIL FROM:<>\r\nRCPT TO:<joe>\r\nDATA\r\ny\r\n.\r\n", "250|250|354|250 2.0.0 <joe>");
	client_free(&c);
	assert_stored(w, "joe", "INBOX", "Return-Path: <>\r\nDelivered-To: joe\r\ny\r\n|");
}

static void a_connection_that_ends_in_the_message_stores_nothing(void **state)
{
	static const unsigned ends[] = { CONN_EV_EOF, CONN_EV_STOP, CONN_EV_TIMEOUT };
	size_t i;

	for (i = 0; i < MEM_COUNT(ends); i++) {
		struct client *c = hello(*state);

		talk(c, "MAIL FROM:<>\r\nRCPT TO:<joe>\r\nDATA\r\nsome\r\n.\r", "250|250|354");
		client_run(c, ends[i]);
		assert_true(c->closed);
		assert_codes(c, ends[i] == CONN_EV_EOF ? "" : ends[i] == CONN_EV_STOP ? "421 4.3.2" : "421 4.4.2");
		client_free(&c);
	}
	assert_stored(*state, "joe", "INBOX", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_are_read_as_rfc_5321_writes_them),
		cmocka_unit_test(an_address_too_long_is_refused),
		cmocka_unit_test(quoting_does_not_hide_a_user),
		cmocka_unit_test(parameters_are_checked),
		cmocka_unit_test(bdat_arguments_are_checked),
		cmocka_unit_test(only_crlf_dot_crlf_ends_the_data_however_it_is_cut),
		cmocka_unit_test_setup_teardown(a_pipelined_transaction_is_the_same_in_any_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(commands_out_of_order_get_503, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_malformed_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many_errors_end_the_session, setup, teardown),
		cmocka_unit_test_setup_teardown(a_message_too_large_is_refused_at_mail_or_at_its_end, setup, teardown),
		cmocka_unit_test_setup_teardown(recipients_have_a_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(details_lead_to_their_mailbox_when_that_is_wanted_and_there, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_stored_now_is_asked_for_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_connection_that_ends_in_the_message_stores_nothing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
