/* The engine beyond dialogues: slow readers, large messages, damaged
 * objects, a store that is away, input cut anywhere, memory of idle sessions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>

#include "base/b64.h"
#include "base/log.h"
#include "base/mem.h"
#include "tests/imap/harness.h"

static void send_text(struct client *c, const char *text)
{
	client_send(c, text, strlen(text));
}

/* Everything the server has said, forgotten by it. */
static char *take_all(struct client *c)
{
	return buf_detach(&c->got);
}

static void expect_in(const char *text, const char *part)
{
	if (!strstr(text, part)) {
		print_error("not found: %s\nin: %.2000s\n", part, text);
		fail();
	}
}

static void make_message(struct buf *b, unsigned n, size_t lines)
{
	buf_addf(b, "Subject: number %u\r\nFrom: a@example.org\r\n\r\n", n);
	while (lines--)
		buf_addf(b, "line %zu of message %u\r\n", lines, n);
}

static void deliver(struct world *w, unsigned n, size_t lines)
{
	struct buf b = BUF_INIT(0);

	make_message(&b, n, lines);
	world_deliver(w, "joe", "INBOX", b.data, b.len, 0);
	buf_free(&b);
}

static struct client *selected(struct world *w)
{
	struct client *c = client_new(w, "joe", "login");

	send_text(c, "s SELECT INBOX\r\n");
	free(take_all(c));
	return c;
}

static void a_slow_reader_costs_one_buffer_and_gets_everything(void **state)
{
	static const char *const cmds[] = { "x FETCH 1:* BODY.PEEK[]\r\n", "x FETCH 1:* (FLAGS ENVELOPE)\r\n", "x FETCH 1:* (BODY.PEEK[TEXT] UID)\r\n",
		"x UID SEARCH ALL\r\n", "x STORE 1:* +FLAGS (\\Seen)\r\n" };
	struct world w;
	struct client *fast, *slow;
	unsigned i;

	world_open(&w);
	for (i = 0; i < 700; i++)
		deliver(&w, i, 60);
	fast = selected(&w);
	slow = selected(&w);
	slow->slow = true;
	for (i = 0; i < MEM_COUNT(cmds); i++) {
		char *a, *b;

		slow->out_peak = 0;
		send_text(fast, cmds[i]);
		send_text(slow, cmds[i]);
		a = take_all(fast);
		b = take_all(slow);
		assert_true(slow->out_peak <= CONN_OUT_HIGH + 96 * 1024);
		if (i != 4)
			assert_string_equal(a, b);
		free(a);
		free(b);
	}
	assert_true(slow->drains > 10);
	client_free(&fast);
	client_free(&slow);
	world_close(&w);
}

/* A message of about 900 kB with a base64 part. */
static void big_message(struct buf *b, struct buf *decoded)
{
	unsigned i;

	buf_adds(b, "Subject: big\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"x\"\r\n\r\n--x\r\n"
		 "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n");
	for (i = 0; i < 12000; i++) {
		unsigned char raw[54];
		size_t k;

		for (k = 0; k < sizeof(raw); k++)
			raw[k] = (unsigned char)(i * 7 + k * 13);
		buf_add(decoded, raw, sizeof(raw));
		b64_encode(b, raw, sizeof(raw));
		buf_adds(b, "\r\n");
	}
	buf_adds(b, "--x--\r\n");
}

static void large_messages_are_streamed(void **state)
{
	struct buf m = BUF_INIT(0), decoded = BUF_INIT(0), want = BUF_INIT(0);
	struct world w;
	struct client *c;
	size_t len;
	char *line;

	big_message(&m, &decoded);
	world_open(&w);
	c = selected(&w);
	c->slow = true;
	buf_addf(&want, "x APPEND INBOX {%zu+}\r\n", m.len);
	buf_add(&want, m.data, m.len);
	buf_adds(&want, "\r\n");
	client_send(c, want.data, want.len);
	line = take_all(c);
	expect_in(line, "x OK [APPENDUID ");
	free(line);
	c->out_peak = 0;
	send_text(c, "x FETCH 1 (BODY.PEEK[] UID)\r\n");
	line = client_line(c, &len);
	buf_clear(&want);
	buf_addf(&want, "* 1 FETCH (BODY[] {%zu}\r\n", m.len);
	buf_add(&want, m.data, m.len);
	buf_adds(&want, " UID 1)");
	assert_int_equal(len, want.len);
	assert_memory_equal(line, want.data, len);
	free(line);
	free(take_all(c));
	send_text(c, "x FETCH 1 (BINARY.SIZE[1] BINARY.PEEK[1] BINARY.PEEK[1]<500000.7>)\r\n");
	line = client_line(c, &len);
	buf_clear(&want);
	buf_addf(&want, "* 1 FETCH (BINARY.SIZE[1] %zu BINARY[1] ~{%zu}\r\n", decoded.len, decoded.len);
	buf_add(&want, decoded.data, decoded.len);
	assert_true(len > want.len);
	assert_memory_equal(line, want.data, want.len);
	assert_memory_equal(line + len - 8, decoded.data + 500000, 7);
	free(line);
	free(take_all(c));
	assert_true(c->out_peak <= CONN_OUT_HIGH + 128 * 1024);
	client_free(&c);
	buf_free(&m);
	buf_free(&decoded);
	buf_free(&want);
	world_close(&w);
}

/* --- damage --- */

struct find {
	char *keys[64];
	uint64_t sizes[64];
	size_t n;
};

static int find_message(void *ctx, const struct objstore_list_item *item)
{
	struct find *f = ctx;

	if (strstr(item->key, "/m/") && f->n < MEM_COUNT(f->keys)) {
		f->sizes[f->n] = item->size;
		f->keys[f->n++] = mem_strdup(item->key);
	}
	return 0;
}

static void find_messages(struct world *w, struct find *f)
{
	struct err err = ERR_INIT;

	memset(f, 0, sizeof(*f));
	assert_int_equal(obox_flush(w->obox, NULL, &err), 0);
	assert_int_equal(objstore_each(w->store, "", find_message, f, &err), 0);
}

static void free_found(struct find *f)
{
	while (f->n)
		free(f->keys[--f->n]);
}

static int larger_first(const struct find *f)
{
	size_t i, best = 0;

	for (i = 1; i < f->n; i++)
		if (f->sizes[i] > f->sizes[best])
			best = i;
	return (int)best;
}

static void a_missing_object_damages_that_message_only(void **state)
{
	struct world w;
	struct client *c;
	struct find f;
	struct err err = ERR_INIT;
	char *out;

	world_open(&w);
	deliver(&w, 1, 3);
	deliver(&w, 2, 9);	/* the largest: that is how it is found */
	deliver(&w, 3, 3);
	find_messages(&w, &f);
	assert_int_equal(f.n, 3);
	world_reopen(&w);
	assert_int_equal(objstore_delete(w.store, f.keys[larger_first(&f)], &err), 0);
	c = selected(&w);
	send_text(c, "x FETCH 1:3 (UID BODY.PEEK[TEXT])\r\n");
	out = take_all(c);
	expect_in(out, "* 1 FETCH (UID 1 BODY[TEXT]");
	expect_in(out, "* 3 FETCH (UID 3 BODY[TEXT]");
	expect_in(out, "x NO [SERVERBUG] ");
	expect_in(out, "UID 2\r\n");
	assert_null(strstr(out, "* 2 FETCH"));
	free(out);
	send_text(c, "x SEARCH BODY message\r\n");
	out = take_all(c);
	expect_in(out, "* SEARCH 1 3\r\n");
	expect_in(out, "x OK Search completed, but messages could not be read: UID 2");
	free(out);
	send_text(c, "x FETCH 2 FLAGS\r\n");
	out = take_all(c);
	expect_in(out, "* 2 FETCH (FLAGS ())\r\nx OK ");
	free(out);
	client_free(&c);
	free_found(&f);
	world_close(&w);
}

static void damage_late_in_a_large_message_keeps_the_protocol_in_step(void **state)
{
	struct buf m = BUF_INIT(0), decoded = BUF_INIT(0), object = BUF_INIT(0);
	struct world w;
	struct client *c;
	struct find f;
	struct err err = ERR_INIT;
	char *line;
	size_t len;

	big_message(&m, &decoded);
	world_open(&w);
	world_deliver(&w, "joe", "INBOX", m.data, m.len, 0);
	deliver(&w, 2, 3);
	find_messages(&w, &f);
	world_reopen(&w);
	assert_int_equal(objstore_get(w.store, f.keys[larger_first(&f)], &object, NULL, &err), 0);
	object.data[object.len - 20] ^= 1;
	assert_int_equal(objstore_put(w.store, f.keys[larger_first(&f)], object.data, object.len, OBJ_ANY, NULL, &err), 0);
	c = selected(&w);
	c->slow = true;
	send_text(c, "x FETCH 1:2 (BODY.PEEK[] UID)\r\ny NOOP\r\n");
	line = client_line(c, &len);
	assert_true(len > m.len);
	assert_memory_equal(line + len - 7, " UID 1)", 7);	/* the literal had its length */
	free(line);
	line = take_all(c);
	expect_in(line, "* 2 FETCH (BODY[] {");
	expect_in(line, "x NO [SERVERBUG]");
	expect_in(line, "UID 1\r\n");
	expect_in(line, "y OK ");
	free(line);
	client_free(&c);
	free_found(&f);
	buf_free(&m);
	buf_free(&decoded);
	buf_free(&object);
	world_close(&w);
}

/* --- a store that is away --- */

static void login_works_while_the_store_is_away(void **state)
{
	struct world w;
	struct client *c;
	char *out;

	world_open(&w);
	world_store_down(&w, true);
	c = client_new(&w, "ann", "login");
	out = take_all(c);
	expect_in(out, "login OK [CAPABILITY IMAP4rev1 ");
	free(out);
	send_text(c, "a SELECT INBOX\r\nb LIST \"\" *\r\nc APPEND INBOX {3+}\r\nabc\r\nd STATUS INBOX (MESSAGES)\r\n");
	out = take_all(c);
	expect_in(out, "a NO [UNAVAILABLE] ");
	expect_in(out, "b NO [UNAVAILABLE] ");
	expect_in(out, "c NO [UNAVAILABLE] ");
	expect_in(out, "d NO [UNAVAILABLE] ");
	free(out);
	assert_false(c->closed);
	world_store_down(&w, false);
	send_text(c, "e SELECT INBOX\r\n");
	out = take_all(c);
	expect_in(out, "e OK [READ-WRITE]");
	free(out);
	client_free(&c);
	world_close(&w);
}

static void bodies_that_cannot_be_reached_now_are_answered_later(void **state)
{
	struct world w;
	struct client *c;
	struct find f;
	char *out;

	world_open(&w);
	deliver(&w, 1, 3);
	find_messages(&w, &f);
	world_reopen(&w);
	c = selected(&w);
	world_store_down(&w, true);
	send_text(c, "x FETCH 1 BODY.PEEK[TEXT]\r\n");
	out = take_all(c);
	expect_in(out, "x NO [UNAVAILABLE] ");
	free(out);
	send_text(c, "x UID SEARCH BODY line\r\n");
	out = take_all(c);
	expect_in(out, "x NO [UNAVAILABLE] ");
	free(out);
	world_store_down(&w, false);
	send_text(c, "x FETCH 1 BODY.PEEK[TEXT]\r\n");
	out = take_all(c);
	expect_in(out, "* 1 FETCH (BODY[TEXT] {");
	expect_in(out, "x OK ");
	free(out);
	client_free(&c);
	free_found(&f);
	world_close(&w);
}

/* --- input --- */

static const char dialogue[] =
	"a SELECT {5+}\r\nINBOX\r\nb APPEND INBOX (\\Seen) {24+}\r\nSubject: x\r\n\r\nsome text\r\n\n"
	"c APPEND nowhere {6+}\r\nabc\r\nx\r\nd FETCH 1 (FLAGS BODY[TEXT])\r\ne UID STORE 1 +FLAGS (\\Flagged)\r\n"
	"f NONSENSE {3+}\r\nxyz {2+}\r\nab\r\ng IDLE\r\nDONE\r\nh LIST {0+}\r\n \"*\"\r\ni SEARCH SUBJECT {1+}\r\nx\r\nj LOGOUT\r\n";

static char *say(size_t first, size_t step)
{
	struct world w;
	struct client *c;
	size_t at = 0, len = sizeof(dialogue) - 1;
	char *out;

	world_open(&w);
	c = client_new(&w, "joe", "login");
	while (at < len && !c->closed) {
		size_t n = at ? step : first;

		if (n > len - at)
			n = len - at;
		client_send(c, dialogue + at, n);
		at += n;
	}
	out = take_all(c);
	client_free(&c);
	world_close(&w);
	return out;
}

static void mask_uidvalidity(char *out)
{
	char *p = out;

	while ((p = strpbrk(p, "123456789")) != NULL)	/* UIDVALIDITY and mod-sequences differ from world to world */
		*p = '0';
}

static void input_may_be_cut_anywhere(void **state)
{
	char *whole = say(sizeof(dialogue), 1), *cut;
	size_t i;

	expect_in(whole, "b OK [APPENDUID ");
	expect_in(whole, "c NO [TRYCREATE]");
	expect_in(whole, "f BAD ");
	expect_in(whole, "g OK ");
	expect_in(whole, "i OK ");
	expect_in(whole, "j OK ");
	mask_uidvalidity(whole);
	cut = say(1, 1);
	mask_uidvalidity(cut);
	assert_string_equal(whole, cut);
	free(cut);
	for (i = 1; i < sizeof(dialogue) - 1; i += 5) {
		cut = say(i, sizeof(dialogue));
		mask_uidvalidity(cut);
		assert_string_equal(whole, cut);
		free(cut);
	}
	free(whole);
}

static void an_idle_session_is_small(void **state)
{
	enum { SESSIONS = 500, LIMIT = 6 * 1024 };
	struct client **c = mem_calloc(SESSIONS, sizeof(*c));
	struct mallinfo2 before, after;
	struct world w;
	size_t i, each;

	world_open(&w);
	deliver(&w, 1, 3);
	c[0] = selected(&w);
	before = mallinfo2();
	for (i = 1; i < SESSIONS; i++) {
		c[i] = selected(&w);
		send_text(c[i], "a FETCH 1 (ENVELOPE BODY[])\r\nb SEARCH BODY x\r\nc IDLE\r\n");
		buf_free(&c[i]->got);
		buf_free(&c[i]->conn.out);	/* the worker's business */
	}
	after = mallinfo2();
	each = (after.uordblks - before.uordblks) / (SESSIONS - 1);
	print_message("# an idle session: %zu bytes\n", each);
	assert_true(each < LIMIT);	/* 0 under a sanitizer's allocator */
	for (i = 0; i < SESSIONS; i++)
		client_free(&c[i]);
	free(c);
	world_close(&w);
}

/* --- threads --- */

static void *deliver_many(void *ctx)
{
	unsigned i;

	for (i = 0; i < 60; i++)
		deliver(ctx, i, 2);
	return NULL;
}

static void mail_arriving_meanwhile_wakes_an_idle_session(void **state)
{
	struct world w;
	struct client *c;
	pthread_t thread;
	char *out;
	int i;

	world_open(&w);
	c = selected(&w);
	send_text(c, "a IDLE\r\n");
	assert_int_equal(pthread_create(&thread, NULL, deliver_many, &w), 0);
	for (i = 0; i < 2000; i++)
		if (atomic_load(&c->woken))
			client_run(c, 0);
	pthread_join(thread, NULL);
	client_run(c, 0);
	out = take_all(c);
	expect_in(out, "* 60 EXISTS\r\n");
	free(out);
	send_text(c, "DONE\r\nb UID SEARCH RETURN (COUNT) ALL\r\n");
	out = take_all(c);
	expect_in(out, "COUNT 60\r\n");
	free(out);
	client_free(&c);
	world_close(&w);
}

struct toggler {
	struct client *c;
	atomic_bool stop;
};

static void *toggle_flagged(void *ctx)
{
	struct toggler *t = ctx;

	while (!atomic_load(&t->stop)) {
		send_text(t->c, "x STORE 1 +FLAGS.SILENT (\\Flagged)\r\nx STORE 1 -FLAGS.SILENT (\\Flagged)\r\n");
		buf_clear(&t->c->got);
	}
	return NULL;
}

struct told {
	unsigned long long modseq;
	char flags[100];
};

/* Each line with FLAGS and MODSEQ: one mod-sequence never has two sets of flags. */
static void check_told(const char *text, struct told *last)
{
	const char *flags, *modseq, *end;

	for (; (flags = strstr(text, "FLAGS (")) != NULL; text = end) {
		unsigned long long n;
		size_t len;

		end = strstr(flags, "\r\n");
		modseq = strstr(flags, "MODSEQ (");
		assert_true(end && modseq && modseq < end);
		len = strcspn(flags, ")");
		assert_true(len < sizeof(last->flags));
		n = strtoull(modseq + 8, NULL, 10);
		if (n == last->modseq && (strlen(last->flags) != len || memcmp(flags, last->flags, len) != 0)) {
			print_error("mod-sequence %llu: %s and %.*s\n", n, last->flags, (int)len, flags);
			fail();
		}
		last->modseq = n;
		memcpy(last->flags, flags, len);
		last->flags[len] = '\0';
	}
}

static void flags_told_with_seen_belong_to_their_mod_sequence(void **state)
{
	struct world w;
	struct client *c;
	struct toggler t;
	struct told last = { 0, "" };
	pthread_t thread;
	unsigned i;

	world_open(&w);
	deliver(&w, 1, 1);
	c = selected(&w);
	t.c = selected(&w);
	atomic_init(&t.stop, false);
	send_text(c, "a ENABLE CONDSTORE\r\n");
	assert_int_equal(pthread_create(&thread, NULL, toggle_flagged, &t), 0);
	for (i = 0; i < 5000; i++) {
		char *text;

		send_text(c, "a STORE 1 -FLAGS.SILENT (\\Seen)\r\nb NOOP\r\nc FETCH 1 (BODY[])\r\nd NOOP\r\n");
		text = take_all(c);
		check_told(strstr(text, "a OK"), &last);
		free(text);
	}
	atomic_store(&t.stop, true);
	pthread_join(thread, NULL);
	client_free(&c);
	client_free(&t.c);
	world_close(&w);
}

/* RFC 9051 section 6.3.2: a NO would mean that no mailbox is selected. */
static void select_with_qresync_succeeds_whatever_is_expunged_meanwhile(void **state)
{
	struct world w;
	struct client *c, *other;
	char *text, cmd[100];
	unsigned i;

	world_open(&w);
	for (i = 0; i < 4000; i++)
		deliver(&w, i, 1);
	other = selected(&w);
	c = client_new(&w, "joe", "login");
	send_text(c, "a ENABLE QRESYNC\r\nb SELECT INBOX\r\n");
	text = take_all(c);
	snprintf(cmd, sizeof(cmd), "c SELECT INBOX (QRESYNC (%lu 1))\r\n", strtoul(strstr(text, "UIDVALIDITY ") + 12, NULL, 10));
	free(text);
	c->slow = true;
	client_queue(c, cmd, strlen(cmd));
	assert_int_equal(c->conn.ops->run(&c->conn, CONN_EV_INPUT), CONN_WANT_DRAIN);
	send_text(other, "x UID STORE 1,4000 +FLAGS (\\Deleted)\r\nx EXPUNGE\r\n");
	client_run(c, CONN_EV_DRAINED);
	text = take_all(c);
	expect_in(text, "* 3999 FETCH ");
	assert_null(strstr(text, "* 4000 FETCH "));
	expect_in(text, "\r\nc OK ");
	free(text);
	send_text(c, "d NOOP\r\n");
	text = take_all(c);
	expect_in(text, "* VANISHED 1,4000\r\n");
	free(text);
	client_free(&c);
	client_free(&other);
	world_close(&w);
}

/* The client must know what a keyword is before it is told of it, and flags without one would be others. */
static void a_keyword_added_while_news_are_told_is_told_with_them(void **state)
{
	struct world w;
	struct client *c, *other;
	char *text, *at;
	unsigned i;

	world_open(&w);
	for (i = 0; i < 4000; i++)
		deliver(&w, i, 1);
	c = selected(&w);
	other = selected(&w);
	send_text(c, "a ENABLE CONDSTORE\r\n");
	free(take_all(c));
	send_text(other, "x STORE 1:* +FLAGS.SILENT (\\Flagged)\r\n");
	c->slow = true;
	client_queue(c, "a NOOP\r\n", 8);
	assert_int_equal(c->conn.ops->run(&c->conn, CONN_EV_INPUT), CONN_WANT_DRAIN);
	send_text(other, "x STORE 4000 +FLAGS.SILENT (fresh)\r\n");
	client_run(c, CONN_EV_DRAINED);
	text = take_all(c);
	at = strstr(text, "* 4000 FETCH ");
	assert_non_null(at);
	expect_in(at, "FLAGS (\\Flagged fresh)");
	at = strstr(text, "* FLAGS (");
	assert_true(at && at < strstr(text, "* 4000 FETCH ") && strstr(at, "fresh"));
	free(text);
	client_free(&c);
	client_free(&other);
	world_close(&w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_slow_reader_costs_one_buffer_and_gets_everything),
		cmocka_unit_test(large_messages_are_streamed),
		cmocka_unit_test(a_missing_object_damages_that_message_only),
		cmocka_unit_test(damage_late_in_a_large_message_keeps_the_protocol_in_step),
		cmocka_unit_test(login_works_while_the_store_is_away),
		cmocka_unit_test(bodies_that_cannot_be_reached_now_are_answered_later),
		cmocka_unit_test(input_may_be_cut_anywhere),
		cmocka_unit_test(an_idle_session_is_small),
		cmocka_unit_test(mail_arriving_meanwhile_wakes_an_idle_session),
		cmocka_unit_test(flags_told_with_seen_belong_to_their_mod_sequence),
		cmocka_unit_test(select_with_qresync_succeeds_whatever_is_expunged_meanwhile),
		cmocka_unit_test(a_keyword_added_while_news_are_told_is_told_with_them),
	};

	log_init("test", LOG_ERROR + 1, LOG_FMT_TEXT);
	return cmocka_run_group_tests_name("imap engine", tests, NULL, NULL);
}
