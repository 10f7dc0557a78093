/* Tests of mime/header.c, envelope.c, address.c, params.c and imapstring.c */
#include "tests/mime/mimetest.h"

static void fields_are_walked_in_order(void **state)
{
	static const char h[] = "From x@y Mon Jan 5 2004\r\nA: one\r\nB :two\r\n\tfolded\r\nno colon\r\nC:\r\nD: bare\nE: end\r\n\r\nbody: no\r\n";
	static const char *const want[][2] = { { "From x@y Mon Jan 5 2004", NULL }, { "A", "one" }, { "B", "two\r\n\tfolded" }, { "", "" }, { "C", "" },
		{ "D", "bare" }, { "E", "end" } };
	struct mime_field f;
	size_t pos = 0, i, raw = 0;

	for (i = 0; mime_header_next(h, sizeof(h) - 1, &pos, &f); i++) {
		assert_in_range(i, 0, 6);
		assert_ptr_equal(f.raw, h + raw);
		raw += f.raw_len;
		if (!want[i][1])
			continue;
		assert_view(f.name, f.name_len, want[i][0]);
		assert_view(f.value, f.value_len, want[i][1]);
	}
	assert_int_equal(i, 7);
	assert_string_equal(h + raw, "\r\nbody: no\r\n");
	pos = 0;
	assert_int_equal(mime_header_next("", 0, &pos, &f), 0);
	pos = 0;
	assert_int_equal(mime_header_next("X: cut", 6, &pos, &f), 1);
	assert_view(f.value, f.value_len, "cut");
	assert_int_equal(mime_header_next("X: cut", 6, &pos, &f), 0);
}

static void filters_keep_fields_as_they_are(void **state)
{
	static const char h[] = "a: 1\r\nB:\r\n 2\r\nc: 3\nA: 4\r\n\r\nbody\r\n";
	static const char *const names[] = { "A", "x" };
	struct buf out = BUF_INIT(0);

	mime_header_filter(h, sizeof(h) - 1, names, 2, false, &out);
	assert_buf(&out, "a: 1\r\nA: 4\r\n\r\n");
	buf_clear(&out);
	mime_header_filter(h, sizeof(h) - 1, names, 2, true, &out);
	assert_buf(&out, "B:\r\n 2\r\nc: 3\n\r\n");
	buf_clear(&out);
	mime_header_filter("a: cut", 6, names, 1, false, &out);
	assert_buf(&out, "a: cut\r\n\r\n");
	buf_free(&out);
}

static void cached_fields_are_those_of_the_list(void **state)
{
	static const char *const needed[] = { "Date", "From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Subject", "Message-ID", "In-Reply-To", "References",
		"Newsgroups", "Return-Path", "Delivered-To", "X-Priority", "Importance", "Priority", "List-Id", "List-Unsubscribe", "List-Post",
		"Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "MIME-Version", "Disposition-Notification-To",
		"Auto-Submitted", "X-Spam-Flag", "X-Spam-Status", "message-id", "CC" };
	size_t i;

	for (i = 0; i < MEM_COUNT(needed); i++)
		if (!mime_header_is_cached(needed[i]))
			fail_msg("%s", needed[i]);
	for (i = 0; mime_cached_fields[i]; i++)
		assert_true(mime_header_is_cached(mime_cached_fields[i]));
	assert_false(mime_header_is_cached("Received"));
	assert_false(mime_header_is_cached("Content-ID"));
	assert_false(mime_header_is_cached(""));
	assert_false(mime_header_is_cached("Dat"));
	assert_false(mime_header_is_cached("Dates"));
}

/* Every name that is_cached knows is in the list: try all fields of a big header. */
static void summaries_hold_just_the_cached_fields(void **state)
{
	static const char *const more[] = { "Received", "Content-ID", "Content-MD5", "Content-Language", "Content-Location", "Content-Description",
		"X-Mailer", "DKIM-Signature", "To" };
	struct buf m = BUF_INIT(0), want = BUF_INIT(0), sum = BUF_INIT(0);
	struct mime_summary s;
	size_t i;

	for (i = 0; mime_cached_fields[i]; i++)
		buf_addf(&m, "%s: v%zu\r\n\tfold\r\n", mime_cached_fields[i], i);
	buf_add(&want, m.data, m.len);
	for (i = 0; i < MEM_COUNT(more); i++)
		buf_addf(&m, "%s: x\r\n", more[i]);
	buf_adds(&want, "To: x\r\n");
	buf_adds(&m, "\r\n");
	parse_message(NULL, m.data, m.len, 0, &sum);
	open_summary(&sum, &s);
	assert_view(s.headers, s.headers_len, buf_str(&want));
	buf_free(&m);
	buf_free(&want);
	buf_free(&sum);
}

/* Each: value of To, what ENVELOPE has for it. */
static void addresses_are_read(void **state)
{
	static const char *const rows[][2] = {
		{ "a@b", "((NIL NIL \"a\" \"b\"))" }, { "<a@b>", "((NIL NIL \"a\" \"b\"))" }, { "X Y <a@b>", "((\"X Y\" NIL \"a\" \"b\"))" },
		{ "\"X, Y\" <a@b>, c@d", "((\"X, Y\" NIL \"a\" \"b\")(NIL NIL \"c\" \"d\"))" }, { "a@b (X Y)", "((\"X Y\" NIL \"a\" \"b\"))" },
		{ "a@b (X (Y) \\) Z)", "((\"X (Y) ) Z\" NIL \"a\" \"b\"))" }, { "(c) a (c) @ (c) b . (c) c", "((\"c\" NIL \"a\" \"b.c\"))" },
		{ "g: a@b, c@d;, e@f", "((NIL NIL \"g\" NIL)(NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\")(NIL NIL NIL NIL)(NIL NIL \"e\" \"f\"))" },
		{ "undisclosed-recipients:;", "((NIL NIL \"undisclosed-recipients\" NIL)(NIL NIL NIL NIL))" },
		{ "<@r1,@r2:a@b>", "((NIL \"@r1,@r2\" \"a\" \"b\"))" }, { "\"a b\"@c", "((NIL NIL \"a b\" \"c\"))" },
		{ "\"a\\\"b\" <c@d>", "((\"a\\\"b\" NIL \"c\" \"d\"))" }, { "a@[192.0.2.1]", "((NIL NIL \"a\" \"[192.0.2.1]\"))" },
		{ "X\r\n Y <a@b>,\r\n\tc@d", "((\"X Y\" NIL \"a\" \"b\")(NIL NIL \"c\" \"d\"))" }, { "M. Q. Public <a@b>", "((\"M. Q. Public\" NIL \"a\" \"b\"))" },
		{ "=?utf-8?q?=C3=A4?= <a@b>", "((\"=?utf-8?q?=C3=A4?=\" NIL \"a\" \"b\"))" }, { "\xc3\xa4 <a@b>", "(({2}\r\n\xc3\xa4 NIL \"a\" \"b\"))" },
		/* obsolete forms of RFC 5322 section 4.4 */
		{ ", a@b, ,, c@d ,", "((NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\"))" }, { "a . b@c . d", "((NIL NIL \"a.b\" \"c.d\"))" },
		{ "\"a\".b@c", "((NIL NIL \"a.b\" \"c\"))" }, { "g:,,a@b,;", "((NIL NIL \"g\" NIL)(NIL NIL \"a\" \"b\")(NIL NIL NIL NIL))" },
		/* broken */
		{ "a", "((NIL NIL \"a\" \"MISSING_DOMAIN\"))" }, { "a b", "((\"a b\" NIL \"MISSING_MAILBOX\" \"MISSING_DOMAIN\"))" },
		{ "<>", "((NIL NIL \"MISSING_MAILBOX\" \"MISSING_DOMAIN\"))" }, { "<a@b", "((NIL NIL \"a\" \"SYNTAX_ERROR\"))" },
		{ "<@a c@d>", "((NIL \"INVALID_ROUTE\" \"c\" \"d\"))" }, { "\"open", "((NIL NIL \"MISSING_MAILBOX\" \"MISSING_DOMAIN\"))" },
		{ "a@", "((NIL NIL \"a\" \"MISSING_DOMAIN\"))" }, { "@b", "((NIL NIL \"MISSING_MAILBOX\" \"b\"))" }, { "g: a@b", "((NIL NIL \"g\" NIL)(NIL NIL \"a\" \"b\")(NIL NIL NIL NIL))" },
		{ "a..b@c", "((NIL NIL \"a..b\" \"c\"))" }, { "a.@b", "((NIL NIL \"a.\" \"b\"))" }, { "a@b(", "((NIL NIL \"a\" \"MISSING_DOMAIN\"))" },
		{ "", "NIL" }, { "(only a comment)", "NIL" }, { ",", "NIL" }, { "   ", "NIL" },
	};
	struct buf h = BUF_INIT(0), out = BUF_INIT(0), want = BUF_INIT(0);
	size_t i;

	for (i = 0; i < MEM_COUNT(rows); i++) {
		buf_clear(&h);
		buf_clear(&out);
		buf_clear(&want);
		buf_addf(&h, "To: %s\r\n\r\n", rows[i][0]);
		buf_addf(&want, "(NIL NIL NIL NIL NIL %s NIL NIL NIL NIL)", rows[i][1]);
		mime_envelope(h.data, h.len, &out);
		if (strcmp(buf_str(&out), buf_str(&want)))
			fail_msg("%s: %s", rows[i][0], buf_str(&out));
	}
	buf_free(&h);
	buf_free(&out);
	buf_free(&want);
}

static void envelopes_follow_the_rfc(void **state)
{
	static const char *const rows[][2] = {
		{ "", "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)" },
		{ "Date:\r\nSubject:\r\nIn-Reply-To: \r\nMessage-ID:\r\n", "(\"\" \"\" NIL NIL NIL NIL NIL NIL \"\" \"\")" },
		{ "From: a@b\r\n", "(NIL NIL ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) NIL NIL NIL NIL NIL)" },
		{ "From: a@b\r\nSender: \r\nReply-To: c@d\r\n",
			"(NIL NIL ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) ((NIL NIL \"c\" \"d\")) NIL NIL NIL NIL NIL)" },
		{ "To: a@b\r\nTO: c@d\r\n", "(NIL NIL NIL NIL NIL ((NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\")) NIL NIL NIL NIL)" },
		{ "Date: 21 Nov 97 (x)\r\nSubject: a\r\n\t b  c \r\nMessage-ID: <1@x>\r\nIn-Reply-To: <0@x>\r\n <9@x>\r\n",
			"(\"21 Nov 97 (x)\" \"a b c\" NIL NIL NIL NIL NIL NIL \"<0@x> <9@x>\" \"<1@x>\")" },
		{ "Subject: first\r\nSubject: last\r\n", "(NIL \"last\" NIL NIL NIL NIL NIL NIL NIL NIL)" },
		{ "Subject: \xe4\r\n", "(NIL {1}\r\n\xe4 NIL NIL NIL NIL NIL NIL NIL NIL)" },
		{ "Cc: a@b\r\nBcc: c@d\r\n", "(NIL NIL NIL NIL NIL NIL ((NIL NIL \"a\" \"b\")) ((NIL NIL \"c\" \"d\")) NIL NIL)" },
	};
	struct buf out = BUF_INIT(0);
	size_t i;

	for (i = 0; i < MEM_COUNT(rows); i++) {
		buf_clear(&out);
		mime_envelope(rows[i][0], strlen(rows[i][0]), &out);
		assert_buf(&out, rows[i][1]);
	}
	buf_free(&out);
}

static void strings_take_the_form_they_need(void **state)
{
	struct buf out = BUF_INIT(0);

	mime_imap_string(&out, NULL, 0);
	mime_imap_string(&out, "", 0);
	mime_imap_string(&out, "plain", 5);
	mime_imap_string(&out, "q\"b\\", 4);
	mime_imap_string(&out, "a\r", 2);
	mime_imap_string(&out, "a\n", 2);
	mime_imap_string(&out, "\xff", 1);
	mime_imap_string(&out, "\x01\x7f", 2);
	assert_buf(&out, "NIL\"\"\"plain\"\"q\\\"b\\\\\"{2}\r\na\r{2}\r\na\n{1}\r\n\xff\"\x01\x7f\"");
	buf_clear(&out);
	mime_imap_string(&out, "a\0b\0", 4);		/* no string may hold a NUL */
	assert_buf(&out, "{8}\r\na\xef\xbf\xbd" "b\xef\xbf\xbd");
	buf_free(&out);
}

static void parameters_are_found_and_decoded(void **state)
{
	static const char *const rows[][3] = {
		{ "text/plain; charset=utf-8", "charset", "utf-8" }, { "text/plain; Charset=\"utf-8\"", "CHARSET", "utf-8" }, { "text/plain", "charset", NULL },
		{ "attachment; filename=a.txt", "filename", "a.txt" }, { "attachment; filename=\"a b\\\".txt\"", "filename", "a b\".txt" },
		{ "attachment (c) ; (d) filename (e) = (f) \"x\" (g)", "filename", "x" },
		/* RFC 2231 */
		{ "message/external-body; access-type=URL; URL*0=\"ftp://\"; URL*1=\"cs.utk.edu/x\"", "url", "ftp://cs.utk.edu/x" },
		{ "application/x-stuff; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A", "title", "This is ***fun***" },
		{ "application/x-stuff; title*0*=us-ascii'en'This%20is%20even%20more%20; title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2=\"isn't it!\"",
			"title", "This is even more ***fun*** isn't it!" },
		{ "a; n*1=b; n*0=a", "n", "ab" }, { "a; n*=iso-8859-1''%E4", "n", "ä" }, { "a; n=x; n*=utf-8''y", "n", "y" }, { "a; n*=%zz", "n", "%zz" },
		{ "a; n*0*=utf-8''%E2%82; n*1*=%AC", "n", "€" },	/* cut inside a character */
		/* as met */
		{ "a; filename=\"=?utf-8?B?w6Q=?=.txt\"", "filename", "ä.txt" }, { "a; name==?utf-8?Q?=C3=A4?=", "name", "ä" }, { "a; name=\"\xe4\"", "name", "ä" },
		{ "a; junk; name=x", "name", "x" }, { "a; ;; name=x", "name", "x" }, { "a name=x; name=y", "name", "y" }, { "a; name=\"x", "name", NULL },
		{ "; name=x", "name", "x" }, { "a; name=", "name", "" }, { "", "name", NULL }, { "a; n*0=a; n*2=c", "n", NULL },
	};
	struct buf out = BUF_INIT(0);
	size_t i;

	for (i = 0; i < MEM_COUNT(rows); i++) {
		int found;

		buf_clear(&out);
		found = mime_param(rows[i][0], strlen(rows[i][0]), rows[i][1], &out);
		if (found != (rows[i][2] != NULL) || (found && strcmp(out.len ? buf_str(&out) : "", rows[i][2])))
			fail_msg("%s: %d %s", rows[i][0], found, buf_str(&out));
	}
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_walked_in_order),
		cmocka_unit_test(filters_keep_fields_as_they_are),
		cmocka_unit_test(cached_fields_are_those_of_the_list),
		cmocka_unit_test(summaries_hold_just_the_cached_fields),
		cmocka_unit_test(addresses_are_read),
		cmocka_unit_test(envelopes_follow_the_rfc),
		cmocka_unit_test(strings_take_the_form_they_need),
		cmocka_unit_test(parameters_are_found_and_decoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
