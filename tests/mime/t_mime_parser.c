/* Tests of the streaming pass and of summaries: parser.c, partinfo.c,
 * bodystructure.c, summary.c, preview.c */
#include "tests/mime/mimetest.h"

#include <dirent.h>
#include <malloc.h>

#define TEXT(n, l) "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" " #n " " #l ")"
#define NO_ENVELOPE "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"

struct row {
	const char *message, *body;
};

static void check_bodies(const struct row *r, size_t n)
{
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;
	size_t i, piece;

	for (i = 0; i < n; i++)
		for (piece = 0; piece < 5; piece++) {
			buf_clear(&sum);
			parse_message(NULL, r[i].message, strlen(r[i].message), piece, &sum);
			open_summary(&sum, &s);
			if (s.body_len != strlen(r[i].body) || memcmp(s.body, r[i].body, s.body_len))
				fail_msg("%s\nin pieces of %zu is\n%.*s", r[i].message, piece, (int)s.body_len, s.body);
		}
	buf_free(&sum);
}

static void leaves_have_their_size_and_lines(void **state)
{
	static const struct row rows[] = {
		{ "", TEXT(0, 0) }, { "\r\n", TEXT(0, 0) }, { "\n", TEXT(0, 0) }, { "A: b", TEXT(0, 0) }, { "A: b\r\n", TEXT(0, 0) },
		{ "A: b\r\n\r\n", TEXT(0, 0) }, { "A: b\r\n\r\nx", TEXT(1, 0) }, { "A: b\r\n\r\nx\r\n", TEXT(3, 1) }, { "A: b\n\nx\ny\n", TEXT(4, 2) },
		{ "A: b\r\n\r\n\r\n\r\n", TEXT(4, 2) }, { "\r\n\r\n", TEXT(2, 1) }, { "no colon\r\n\r\nx", TEXT(1, 0) }, { "A: b\r\r\n\r\nx", TEXT(1, 0) },
		{ "Content-Type: image/png\r\nContent-Transfer-Encoding: Base64\r\n\r\nxx", "(\"image\" \"png\" NIL NIL NIL \"Base64\" 2)" },
		{ "Content-Type: text/html; charset=x\r\n\r\nx", "(\"text\" \"html\" (\"charset\" \"x\") NIL NIL \"7bit\" 1 0)" },
		{ "Content-Transfer-Encoding: base64\r\n\r\n", TEXT(0, 0) },	/* without a sign of MIME */
		{ "Mime-Version: 1\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <i>\r\nContent-Description: d\r\n\r\n",
			"(\"text\" \"plain\" (\"charset\" \"us-ascii\") \"<i>\" \"d\" \"base64\" 0 0)" },
		{ "Content-Type: nonsense\r\n\r\nx", TEXT(1, 0) },		/* RFC 2045 section 5.2 */
		{ "Content-Type: text/html charset=x\r\n\r\n", "(\"text\" \"html\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)" },
		{ "Content-Type: text/html\r\nContent-Type: image/png\r\n\r\n", "(\"text\" \"html\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)" },
	};

	check_bodies(rows, MEM_COUNT(rows));
}

#define MIXED "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
static void multiparts_are_cut_at_their_delimiters(void **state)
{
	static const struct row rows[] = {
		{ MIXED "--b\r\n\r\nx\r\n--b--\r\n", "(" TEXT(1, 0) " \"mixed\")" },
		{ MIXED "pre\r\n--b\r\n\r\nx\r\n\r\n--b\r\n\r\ny\r\n--b--\r\nepi\r\n--b\r\n", "(" TEXT(3, 1) TEXT(1, 0) " \"mixed\")" },
		{ MIXED "--b\n\nx\n--b\n\ny\n--b--\n", "(" TEXT(1, 0) TEXT(1, 0) " \"mixed\")" },		/* bare LF */
		{ MIXED, "(" TEXT(0, 0) " \"mixed\")" }, { MIXED "no parts\r\n", "(" TEXT(0, 0) " \"mixed\")" },
		{ MIXED "--b\r\n\r\nx", "(" TEXT(1, 0) " \"mixed\")" },					/* never closed */
		{ MIXED "--b\r\n--b\r\n\r\n--b\r\n\r\n\r\n--b--", "(" TEXT(0, 0) TEXT(0, 0) TEXT(0, 0) " \"mixed\")" },
		{ MIXED "--bxyz\r\n\r\nx\r\n --b\r\n-b\r\n--c\r\n--b--", "(" TEXT(16, 3) " \"mixed\")" },		/* prefixes count, lookalikes do not */
		{ MIXED "--b\r\nContent-Type: text/html\r\n--b--\r\n", "((\"text\" \"html\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0) \"mixed\")" },
		{ MIXED "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c\r\n\r\ny\r\n--c--\r\n--b\r\n\r\nz\r\n--b--\r\n",
			"((" TEXT(1, 0) TEXT(1, 0) " \"alternative\")" TEXT(1, 0) " \"mixed\")" },
		{ MIXED "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--b\r\n\r\nz\r\n--c\r\n--b--\r\n",
			"((" TEXT(1, 0) " \"alternative\")" TEXT(6, 1) " \"mixed\")" },				/* the outer one ends both */
		{ MIXED "--b\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\r\nx\r\n--bb--\r\n--b--\r\n",
			"((" TEXT(1, 0) " \"mixed\") \"mixed\")" },					/* one is the beginning of the other */
		{ MIXED "--b\r\nContent-Type: multipart/mixed; boundary=b--\r\n\r\n--b--\r\n", "((" TEXT(0, 0) " \"mixed\") \"mixed\")" },
		{ "Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n", "(" TEXT(0, 0) " \"mixed\")" },
		{ "Content-Type: multipart/mixed; boundary*0=x; boundary*1=\"y z\"\r\n\r\n--xy z\r\n\r\nq\r\n--xy z--", "(" TEXT(1, 0) " \"mixed\")" },
		{ "Content-Type: MULTIPART/Report; BOUNDARY=\"b\"\r\n\r\n--b\r\n\r\nx\r\n--b--", "(" TEXT(1, 0) " \"Report\")" },
	};

	check_bodies(rows, MEM_COUNT(rows));
}

static void messages_in_messages_are_parsed(void **state)
{
	static const struct row rows[] = {
		{ "Content-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nx\r\n",
			"(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 17 (NIL \"s\" NIL NIL NIL NIL NIL NIL NIL NIL) " TEXT(3, 1) " 3)" },
		{ MIXED "--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: a@b\r\n\r\nx\r\n--b--",
			"((\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 14 (NIL NIL ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\"))"
			" NIL NIL NIL NIL NIL) " TEXT(1, 0) " 2) \"mixed\")" },
		{ MIXED "--b\r\nContent-Type: message/rfc822\r\n--b--", "((\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 0 " NO_ENVELOPE " " TEXT(0, 0) " 0) \"mixed\")" },
		{ "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nA: b\r\n\r\nx\r\n--b\r\nContent-Type: text/plain\r\n\r\ny\r\n--b--",
			"((\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 9 " NO_ENVELOPE " " TEXT(1, 0) " 2)" TEXT(1, 0) " \"digest\")" },
		{ "Content-Type: message/global\r\n\r\n", "(\"message\" \"global\" NIL NIL NIL \"7bit\" 0 " NO_ENVELOPE " " TEXT(0, 0) " 0)" },
		{ "Content-Type: message/partial\r\n\r\nx", "(\"message\" \"partial\" NIL NIL NIL \"7bit\" 1)" },
	};

	check_bodies(rows, MEM_COUNT(rows));
}

static void extension_data_is_complete(void **state)
{
	static const char m[] = "Content-Type: multipart/mixed; boundary=b; x=y\r\nContent-Language: en, de\r\nContent-Location: here\r\n\r\n--b\r\n"
		"Content-Type: image/png; name=n\r\nContent-MD5: m==\r\nContent-Disposition: attachment; filename=\"a b\"\r\n"
		"Content-Language: (c) fr\r\nContent-Location: \"l\"\r\n\r\n--b\r\nContent-Disposition: inline\r\n\r\n--b--\r\n";
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;

	parse_message(NULL, m, sizeof(m) - 1, 0, &sum);
	open_summary(&sum, &s);
	assert_view(s.bodystructure, s.bodystructure_len, "((\"image\" \"png\" (\"name\" \"n\") NIL NIL \"7bit\" 0 \"m==\" (\"attachment\" (\"filename\" \"a b\"))"
		" (\"fr\") \"\\\"l\\\"\")(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0 NIL (\"inline\" NIL) NIL NIL)"
		" \"mixed\" (\"boundary\" \"b\" \"x\" \"y\") NIL (\"en\" \"de\") \"here\")");
	assert_true(s.flags & MIME_F_HAS_ATTACHMENT);
	buf_free(&sum);
}

/* The example of RFC 3501 section 6.4.5: every section number, and none beside. */
static const char nested[] = "Content-Type: multipart/mixed; boundary=x\r\n\r\n"
	"--x\r\n\r\n1\r\n--x\r\nContent-Type: application/octet-stream\r\n\r\n2\r\n"
	"--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: 3\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n"
	"--y\r\n\r\n3.1\r\n--y\r\nContent-Type: application/octet-stream\r\n\r\n3.2\r\n--y--\r\n\r\n"
	"--x\r\nContent-Type: multipart/mixed; boundary=z\r\n\r\n--z\r\nContent-Type: image/gif\r\n\r\n4.1\r\n"
	"--z\r\nContent-Type: message/rfc822\r\n\r\nSubject: 4.2\r\nContent-Type: multipart/mixed; boundary=v\r\n\r\n"
	"--v\r\n\r\n4.2.1\r\n--v\r\nContent-Type: multipart/alternative; boundary=w\r\n\r\n--w\r\n\r\n4.2.2.1\r\n"
	"--w\r\nContent-Type: text/richtext\r\n\r\n4.2.2.2\r\n--w--\r\n--v--\r\n--z--\r\n--x--\r\n";

struct walked {
	struct buf text;
	const char *message;
};

static bool note_leaf(void *ctx, const struct mime_part *p, const uint32_t *path, size_t depth)
{
	struct walked *w = ctx;
	size_t i;

	for (i = 0; i < depth; i++)
		buf_addf(&w->text, "%s%u", i ? "." : "", path[i]);
	buf_addf(&w->text, "=%.*s ", (int)p->body_len, w->message + p->body_off);
	return true;
}

static void section_numbers_lead_to_their_parts(void **state)
{
	static const struct {
		uint32_t path[5];
		size_t depth;
		int found;
		enum mime_part_kind kind;
	} rows[] = {
		{ { 0 }, 0, 1, MIME_MULTIPART }, { { 1 }, 1, 1, MIME_LEAF }, { { 3 }, 1, 1, MIME_MESSAGE }, { { 4 }, 1, 1, MIME_MULTIPART }, { { 5 }, 1, 0, 0 },
		{ { 0 }, 1, 0, 0 }, { { 1, 1 }, 2, 0, 0 }, { { 3, 1 }, 2, 1, MIME_LEAF }, { { 3, 3 }, 2, 0, 0 }, { { 3, 0 }, 2, 0, 0 }, { { 4, 2 }, 2, 1, MIME_MESSAGE },
		{ { 4, 2, 2 }, 3, 1, MIME_MULTIPART }, { { 4, 2, 2, 2 }, 4, 1, MIME_LEAF }, { { 4, 2, 2, 3 }, 4, 0, 0 }, { { 4, 2, 2, 2, 1 }, 5, 0, 0 },
	};
	struct walked w = { BUF_INIT(0), nested };
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;
	struct mime_part p;
	size_t i;

	parse_message(NULL, nested, sizeof(nested) - 1, 0, &sum);
	open_summary(&sum, &s);
	mime_summary_each_leaf(&s, note_leaf, &w);
	assert_buf(&w.text, "1=1 2=2 3.1=3.1 3.2=3.2 4.1=4.1 4.2.1=4.2.1 4.2.2.1=4.2.2.1 4.2.2.2=4.2.2.2 ");
	for (i = 0; i < MEM_COUNT(rows); i++) {
		assert_int_equal(mime_summary_part(&s, rows[i].path, rows[i].depth, &p), rows[i].found);
		if (rows[i].found)
			assert_int_equal(p.kind, rows[i].kind);
	}
	assert_int_equal(mime_summary_part(&s, (const uint32_t[]){ 3 }, 1, &p), 1);
	assert_view(nested + p.inner_header_off, p.inner_header_len, "Subject: 3\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n");
	assert_int_equal(p.inner_body_off, p.inner_header_off + p.inner_header_len);
	assert_int_equal(p.inner_body_off + p.inner_body_len, p.body_off + p.body_len);
	assert_string_equal(p.type, "message");
	assert_string_equal(p.subtype, "rfc822");
	buf_free(&w.text);
	buf_free(&sum);
}

static void a_message_that_is_one_part_is_its_part_1(void **state)
{
	static const char one[] = "Content-Type: Text/X-Odd; Charset=\"X-Odd-Charset\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nbody";
	static const char inner[] = "Content-Type: message/rfc822\r\n\r\nContent-Type: message/rfc822\r\n\r\nA: b\r\n\r\nx";
	struct walked w = { BUF_INIT(0), inner };
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;
	struct mime_part p;

	parse_message(NULL, one, sizeof(one) - 1, 0, &sum);
	open_summary(&sum, &s);
	assert_int_equal(mime_summary_part(&s, (const uint32_t[]){ 1 }, 1, &p), 1);
	assert_view(one + p.body_off, p.body_len, "body");
	assert_int_equal(p.header_off, 0);
	assert_int_equal(p.header_len, s.header_size);
	assert_string_equal(p.type, "text");
	assert_string_equal(p.subtype, "x-odd");
	assert_string_equal(p.charset, "x-odd-charset");
	assert_int_equal(p.encoding, MIME_QP);
	assert_int_equal(mime_summary_part(&s, (const uint32_t[]){ 2 }, 1, &p), 0);
	assert_int_equal(mime_summary_part(&s, (const uint32_t[]){ 1, 1 }, 2, &p), 0);
	buf_clear(&sum);
	parse_message(NULL, inner, sizeof(inner) - 1, 0, &sum);
	open_summary(&sum, &s);
	mime_summary_each_leaf(&s, note_leaf, &w);
	assert_buf(&w.text, "1.1.1=x ");
	assert_int_equal(mime_summary_part(&s, (const uint32_t[]){ 1, 1, 1 }, 3, &p), 1);
	assert_int_equal(mime_summary_part(&s, (const uint32_t[]){ 1, 1, 1, 1 }, 4, &p), 0);
	buf_free(&w.text);
	buf_free(&sum);
}

static void flags_and_numbers_tell_of_the_message(void **state)
{
	static const struct {
		const char *m;
		size_t len;
		uint32_t flags;
	} rows[] = {
		{ "A: b\r\n\r\nx\r\n", 11, 0 }, { "A: b\n\nx", 7, MIME_F_BARE_LF }, { "A: b\r\n\r\nx\ny", 11, MIME_F_BARE_LF }, { "A: \xe4\r\n\r\n", 8, MIME_F_HAS_8BIT_HEADER },
		{ "A: b\r\n\r\n\xe4", 9, 0 }, { "A: b\r\n\r\n\0", 9, MIME_F_HAS_NUL }, { "Content-Disposition: attachment\r\nMIME-Version: 1.0\r\n\r\n", 54, MIME_F_HAS_ATTACHMENT },
		{ "Content-Type: image/png; name=x\r\n\r\n", 35, MIME_F_HAS_ATTACHMENT }, { "Content-Type: text/plain; name=x\r\n\r\n", 36, 0 },
		{ "Content-Type: application/pgp-signature; name=x\r\n\r\n", 51, 0 },
	};
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;
	size_t i;

	for (i = 0; i < MEM_COUNT(rows); i++) {
		buf_clear(&sum);
		parse_message(NULL, rows[i].m, rows[i].len, i % 3, &sum);
		open_summary(&sum, &s);
		assert_int_equal(s.flags, rows[i].flags);
		assert_true(s.size == rows[i].len);
	}
	assert_true(s.date == INT64_MIN);
	buf_clear(&sum);
	parse_message(NULL, "Date: Fri, 21 Nov 1997 09:55:06 -0600\r\n\r\n", 41, 0, &sum);
	open_summary(&sum, &s);
	assert_true(s.date == 880127706);
	assert_int_equal(s.date_zone, -360);
	assert_int_equal(s.header_size, 41);
	buf_free(&sum);
}

static void previews_show_the_first_words(void **state)
{
	static const char *const rows[][2] = {
		{ "A: b\r\n\r\nHello\r\n  there\t!\r\n", "Hello there !" }, { "A: b\r\n\r\n> quoted\r\nown words\r\n", "own words" }, { "A: b\r\n\r\n> all quoted\r\n", "> all quoted" },
		{ "A: b\r\n\r\nbody\r\n-- \r\nsignature\r\n", "body" }, { "A: b\r\n\r\n", "" },
		{ "Content-Type: text/html\r\n\r\n<html><head><title>T</title><style>p{}</style></head><body><!-- c --><p>H&auml;l<b>lo</b>&nbsp;&amp;&#8364;<br>x < y",
			"Hällo &€ x < y" },
		{ "Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>gr=FCn</p>", "grün" },
		{ MIXED "--b\r\nContent-Type: text/html\r\n\r\nhtml\r\n--b\r\n\r\nplain\r\n--b\r\n\r\nmore\r\n--b--", "plain" },
		{ MIXED "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nw6TDtg==\r\n--b--", "äö" },
		{ MIXED "--b\r\nContent-Disposition: attachment\r\n\r\nnot this\r\n--b\r\n\r\nthis\r\n--b--", "this" },
		{ "Content-Type: image/png\r\n\r\nxx", "" },
	};
	const struct mime_limits few = { .preview_chars = 5 };
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;
	size_t i;

	for (i = 0; i < MEM_COUNT(rows); i++) {
		buf_clear(&sum);
		parse_message(NULL, rows[i][0], strlen(rows[i][0]), 0, &sum);
		open_summary(&sum, &s);
		if (s.preview_len != strlen(rows[i][1]) || memcmp(s.preview, rows[i][1], s.preview_len))
			fail_msg("%s: %.*s", rows[i][0], (int)s.preview_len, s.preview);
	}
	buf_clear(&sum);
	parse_message(&few, "A: b\r\n\r\näöüäöü", 20, 0, &sum);
	open_summary(&sum, &s);
	assert_view(s.preview, s.preview_len, "äöüäö");
	buf_free(&sum);
}

/* The example of docs/format-summary.md, octet by octet: a change here is a new format. */
static void the_format_is_the_documented_one(void **state)
{
	static const char want[] = "MS\1\0\x0e\x0b\0\0\0\0\0\0\0\x80\0\0"
		"9(NIL NIL NIL NIL NIL ((NIL NIL \"a\" \"b\")) NIL NIL NIL NIL)"
		"J(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 3 1 NIL NIL NIL NIL)"
		":(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 3 1)"
		"\1x\x09To: a@b\r\n\x08\0\0\x0b\3\1\1\1\0";
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;

	parse_message(NULL, "To: a@b\r\n\r\nx\r\n", 14, 0, &sum);
	assert_int_equal(sum.len, sizeof(want) - 1);
	assert_memory_equal(sum.data, want, sum.len);
	buf_adds(&sum, "a later section");
	open_summary(&sum, &s);
	assert_int_equal(s.size, 14);
	buf_free(&sum);
}

/* --- the corpus --- */

static void each_file(void (*fn)(const char *name, const struct buf *m))
{
	static const char *const folders[] = { "messages", "mbox" };
	const char *top = getenv("top_srcdir");
	char path[4096];
	struct dirent *e;
	size_t i, n = 0;
	DIR *d;

	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/tests/corpus/%s", top ? top : ".", folders[i]);
		d = opendir(path);
		if (!d)
			fail_msg("%s is missing", path);
		while ((e = readdir(d))) {
			struct buf m = BUF_INIT(0);
			void *room;
			FILE *f;

			if (e->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%s/tests/corpus/%s/%s", top ? top : ".", folders[i], e->d_name);
			f = fopen(path, "rb");
			assert_non_null(f);
			while ((room = buf_reserve(&m, 65536))) {
				size_t got = fread(room, 1, 65536, f);

				if (!got)
					break;
				m.len += got;
			}
			fclose(f);
			fn(e->d_name, &m);
			buf_free(&m);
			n++;
		}
		closedir(d);
	}
	assert_in_range(n, 100, 10000);
}

static void same_in_pieces(const char *name, const struct buf *m)
{
	static const size_t pieces[] = { 1, 2, 3, 7, 64, 1000, 4096 };
	struct buf whole = BUF_INIT(0), sum = BUF_INIT(0);
	size_t i;

	parse_message(NULL, m->data, m->len, 0, &whole);
	for (i = 0; i < MEM_COUNT(pieces); i++) {
		buf_clear(&sum);
		parse_message(NULL, m->data, m->len, pieces[i], &sum);
		if (sum.len != whole.len || memcmp(sum.data, whole.data, sum.len))
			fail_msg("%s in pieces of %zu differs", name, pieces[i]);
	}
	buf_free(&whole);
	buf_free(&sum);
}

static void same_with_prefix(const char *name, const struct buf *m)
{
	static const char prefix[] = "Return-Path: <a@b>\r\nX-Other: c\r\nDelivered-To: d@e\r\n";
	struct buf all = BUF_INIT(0), sum = BUF_INIT(0), want = BUF_INIT(0), got = BUF_INIT(0);

	buf_add(&all, prefix, sizeof(prefix) - 1);
	buf_add(&all, m->data, m->len);
	parse_message(NULL, all.data, all.len, 0, &want);
	parse_message(NULL, m->data, m->len, 0, &sum);
	assert_int_equal(mime_summary_prepend(sum.data, sum.len, prefix, sizeof(prefix) - 1, &got), 0);
	if (got.len != want.len || memcmp(got.data, want.data, got.len))
		fail_msg("%s with a prefix differs", name);
	assert_int_equal(mime_summary_prepend(sum.data, sum.len - 1, prefix, sizeof(prefix) - 1, &got), -1);
	assert_int_equal(mime_summary_prepend(sum.data, sum.len, prefix, sizeof(prefix) - 2, &got), -1);
	buf_free(&all);
	buf_free(&sum);
	buf_free(&want);
	buf_free(&got);
}

static void prepending_equals_parsing_it_all(void **state)
{
	each_file(same_with_prefix);
}

static void any_cut_gives_the_same_summary(void **state)
{
	each_file(same_in_pieces);
}

static bool part_is_inside(void *ctx, const struct mime_part *p, const uint32_t *path, size_t depth)
{
	const struct mime_summary *s = ctx;
	struct mime_part q;

	assert_int_equal(mime_summary_part(s, path, depth, &q), 1);
	assert_true(q.header_off == p->header_off && q.body_off == p->body_off && q.body_len == p->body_len);
	assert_true(p->header_off + p->header_len == p->body_off && p->body_off + p->body_len <= s->size);
	return true;
}

/* Cut and bent summaries: nothing crashes, and what is answered is inside. */
static void bend(const char *name, const struct buf *m)
{
	struct buf sum = BUF_INIT(0), bent = BUF_INIT(0);
	struct mime_summary s;
	unsigned seed = 1, i;

	if (m->len > 20000)
		return;
	parse_message(NULL, m->data, m->len, 0, &sum);
	open_summary(&sum, &s);
	mime_summary_each_leaf(&s, part_is_inside, &s);
	for (i = 0; i < sum.len; i++)
		assert_int_equal(mime_summary_open(sum.data, i, &s), -1);
	for (i = 0; i < 300; i++) {
		unsigned char *at;

		buf_clear(&bent);
		buf_add(&bent, sum.data, sum.len);
		at = &bent.data[sum.len - 1 - (unsigned)rand_r(&seed) % (sum.len < 60 ? sum.len : 60)];
		*at = (unsigned char)rand_r(&seed);
		if (!mime_summary_open(bent.data, bent.len, &s))
			mime_summary_each_leaf(&s, part_is_inside, &s);
	}
	buf_free(&sum);
	buf_free(&bent);
}

static void damaged_summaries_are_safe_to_read(void **state)
{
	struct mime_summary s;

	each_file(bend);
	assert_int_equal(mime_summary_open(NULL, 0, &s), -1);
	assert_int_equal(mime_summary_open("MS\2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 38, &s), -1);
}

/* --- limits --- */

static size_t feed_many(struct mime_parser *p, const char *text, size_t times, struct buf *out)
{
	size_t before = mallinfo2().uordblks + mallinfo2().hblkhd, most = before, now, i;

	for (i = 0; i < times; i++) {
		mime_parser_feed(p, text, strlen(text));
		if (i % 1024 == 0) {
			now = mallinfo2().uordblks + mallinfo2().hblkhd;
			if (now > most)
				most = now;
		}
	}
	mime_parser_finish(p, out);
	return most - before;
}

static void a_million_parts_stay_bounded(void **state)
{
	struct mime_parser *p = mime_parser_new(NULL);
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;

	mime_parser_feed(p, MIXED, strlen(MIXED));
	assert_in_range(feed_many(p, "--b\r\n\r\nx\r\n", 1000000, &sum), 0, 8 << 20);
	open_summary(&sum, &s);
	assert_in_range(sum.len, 10000, 512 << 10);
	assert_true(s.bodystructure[s.bodystructure_len - 1] == ')');
	mime_parser_free(&p);
	buf_free(&sum);
}

static void depth_bombs_stay_bounded(void **state)
{
	static const char *const bombs[] = { "Content-Type: message/rfc822\r\n\r\n", "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
		"Content-Type: multipart/digest; boundary=x\r\n\r\n--x\r\n\r\n" };
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;
	size_t i, k, depth, most;

	for (i = 0; i < MEM_COUNT(bombs); i++) {
		struct mime_parser *p = mime_parser_new(NULL);

		buf_clear(&sum);
		mime_parser_feed(p, MIXED, i == 1 ? strlen(MIXED) : 0);
		assert_in_range(feed_many(p, bombs[i], 100000, &sum), 0, 8 << 20);
		open_summary(&sum, &s);
		for (k = depth = most = 0; k < s.body_len; k++) {
			depth += s.body[k] == '(';
			depth -= s.body[k] == ')';
			if (depth > most)
				most = depth;
		}
		assert_int_equal(depth, 0);
		assert_in_range(most, 50, 220);
		mime_parser_free(&p);
	}
	buf_free(&sum);
}

static void huge_header_lines_stay_bounded(void **state)
{
	static const char *const lines[] = { "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "a@b, ", "To: a@b\r\n",
		" ;a*0*=b\r\n", "((((((((((((((((" };
	struct buf sum = BUF_INIT(0);
	struct mime_summary s;
	size_t i;

	for (i = 0; i < MEM_COUNT(lines); i++) {
		struct mime_parser *p = mime_parser_new(NULL);

		buf_clear(&sum);
		mime_parser_feed(p, "From: a@b\r\nContent-Type: x/y\r\nTo: ", 34);
		assert_in_range(feed_many(p, lines[i], 1000000, &sum), 0, 16 << 20);
		open_summary(&sum, &s);
		assert_true(s.flags & MIME_F_TRUNCATED);
		assert_int_equal(s.headers_len, 0);
		assert_in_range(sum.len, 100, 512 << 10);
		assert_true(s.envelope[s.envelope_len - 1] == ')');
		mime_parser_free(&p);
	}
	buf_free(&sum);
}

/* Fields beyond their share are left out; the flag says that they are. */
static void many_recipients_are_told(void **state)
{
	struct buf m = BUF_INIT(0), sum = BUF_INIT(0);
	struct mime_summary s;
	size_t i;

	buf_adds(&m, "To: ");
	for (i = 0; i < 5000; i++)
		buf_addf(&m, "Recipient Number %zu <recipient.%zu@example.org>,\r\n ", i, i);
	buf_adds(&m, "x@y\r\n\r\n");
	parse_message(NULL, m.data, m.len, 0, &sum);
	open_summary(&sum, &s);
	assert_true(s.flags & MIME_F_TRUNCATED);
	assert_int_equal(s.headers_len, 0);
	assert_in_range(sum.len, 1000, 512 << 10);
	buf_free(&m);
	buf_free(&sum);
}

static void small_limits_hold(void **state)
{
	const struct mime_limits l = { .max_depth = 2, .max_parts = 3, .max_header = 64, .max_summary = 4096 };
	struct buf sum = BUF_INIT(0), want = BUF_INIT(0);
	const char *two = strstr(nested, "\r\n\r\n2\r\n") + 4;
	struct mime_summary s;

	buf_addf(&want, "(" TEXT(1, 0) "(\"application\" \"octet-stream\" NIL NIL NIL \"7bit\" %zu) \"mixed\")", strlen(two));
	parse_message(&l, nested, sizeof(nested) - 1, 0, &sum);
	open_summary(&sum, &s);
	assert_view(s.body, s.body_len, buf_str(&want));
	buf_free(&want);
	buf_free(&sum);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(leaves_have_their_size_and_lines),
		cmocka_unit_test(multiparts_are_cut_at_their_delimiters),
		cmocka_unit_test(messages_in_messages_are_parsed),
		cmocka_unit_test(extension_data_is_complete),
		cmocka_unit_test(section_numbers_lead_to_their_parts),
		cmocka_unit_test(a_message_that_is_one_part_is_its_part_1),
		cmocka_unit_test(flags_and_numbers_tell_of_the_message),
		cmocka_unit_test(previews_show_the_first_words),
		cmocka_unit_test(the_format_is_the_documented_one),
		cmocka_unit_test(any_cut_gives_the_same_summary),
		cmocka_unit_test(prepending_equals_parsing_it_all),
		cmocka_unit_test(damaged_summaries_are_safe_to_read),
		cmocka_unit_test(a_million_parts_stay_bounded),
		cmocka_unit_test(depth_bombs_stay_bounded),
		cmocka_unit_test(huge_header_lines_stay_bounded),
		cmocka_unit_test(many_recipients_are_told),
		cmocka_unit_test(small_limits_hold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
