/* bench_mime - how fast messages are read and summaries are answered from.
 *
 *   bench_mime [FILE...]     (default: a made-up 4 KB message and a 20 MB one)
 *
 * Prints one line per measurement. */
#include "base/buf.h"
#include "mime/mime.h"

#include <errno.h>

enum { CHUNK = 65536 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void parse(const struct buf *m, struct buf *out)
{
	struct mime_parser *p = mime_parser_new(NULL);
	size_t pos, n;

	for (pos = 0; pos < m->len; pos += n) {
		n = m->len - pos < CHUNK ? m->len - pos : CHUNK;
		mime_parser_feed(p, m->data + pos, n);
	}
	buf_clear(out);
	mime_parser_finish(p, out);
	mime_parser_free(&p);
}

/* Runs for about a second. */
static void measure(const char *name, const struct buf *m)
{
	struct buf out = BUF_INIT(0);
	double start = now(), t;
	size_t rounds = 0;

	do {
		parse(m, &out);
		rounds++;
		t = now() - start;
	} while (t < 1);
	printf("%-28s %9zu octets, summary %6zu: %9.2f us/message, %8.1f MB/s\n", name, m->len, out.len, t / (double)rounds * 1e6,
		(double)m->len * (double)rounds / t / 1e6);
	buf_free(&out);
}

static void measure_reading(const struct buf *m)
{
	static const char *const wanted[] = { "From", "To", "Subject", "Date", "Message-ID", "References", "Content-Type" };
	struct buf summary = BUF_INIT(0), out = BUF_INIT(0);
	struct mime_summary s;
	struct mime_part part;
	uint32_t path[] = { 2 };
	double start;
	size_t i, n = 1000000;

	parse(m, &summary);
	start = now();
	for (i = 0; i < n; i++)
		mime_summary_open(summary.data, summary.len, &s);
	printf("%-28s %9.3f us\n", "mime_summary_open", (now() - start) / (double)n * 1e6);
	start = now();
	for (i = 0; i < n; i++)
		mime_summary_part(&s, path, 1, &part);
	printf("%-28s %9.3f us\n", "mime_summary_part", (now() - start) / (double)n * 1e6);
	start = now();
	for (i = 0; i < n; i++) {
		buf_clear(&out);
		mime_header_filter(s.headers, s.headers_len, wanted, sizeof(wanted) / sizeof(*wanted), false, &out);
	}
	printf("%-28s %9.3f us\n", "mime_header_filter", (now() - start) / (double)n * 1e6);
	buf_free(&summary);
	buf_free(&out);
}

static void measure_decoding(void)
{
	static const char qp[] = "Gr=C3=BC=C3=9Fe aus M=C3=BCnchen, und so weiter und so fort, bis die Zeile=\r\n voll ist.\r\n";
	static const char b64[] = "SGVsbG8gV29ybGQhIFRoaXMgaXMgYSBsaW5lIG9mIGJhc2U2NCBkYXRhIGZvciBhIHRlc3QhISEh\r\n";
	static const struct {
		const char *name, *line;
		enum mime_encoding enc;
	} kinds[] = { { "quoted-printable", qp, MIME_QP }, { "base64", b64, MIME_BASE64 } };
	struct mime_needle *n = mime_needle_new("never there", 11);
	struct buf in = BUF_INIT(0), out = BUF_INIT(0);
	double start, t;
	size_t i, k, rounds;

	for (k = 0; k < 2; k++) {
		struct mime_cte *c = mime_cte_new(kinds[k].enc);

		buf_clear(&in);
		for (i = 0; i < 20000; i++)
			buf_adds(&in, kinds[k].line);
		start = now();
		for (rounds = 0; rounds < 100; rounds++) {
			buf_clear(&out);
			mime_cte_feed(c, in.data, in.len, &out);
		}
		t = now() - start;
		printf("%-28s %8.1f MB/s\n", kinds[k].name, (double)in.len * 100 / t / 1e6);
		mime_cte_free(&c);
	}
	start = now();
	for (rounds = 0; rounds < 100; rounds++)
		if (mime_needle_in(n, (const char *)out.data, out.len))
			puts("found what is not there");
	t = now() - start;
	printf("%-28s %8.1f MB/s\n", "search, ASCII", (double)out.len * 100 / t / 1e6);
	mime_needle_free(&n);
	buf_free(&in);
	buf_free(&out);
}

static void header(struct buf *m, const char *type)
{
	buf_adds(m, "Return-Path: <ada@example.org>\r\nDelivered-To: charles@example.com\r\n"
		"Received: from mx.example.org (mx.example.org [192.0.2.1])\r\n\tby mail.example.com with ESMTPS id 4ABCDEF;\r\n"
		"\tTue, 3 Mar 2026 09:15:02 +0100 (CET)\r\nDKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org;\r\n"
		"\ts=mail; t=1772525702; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n\th=From:To:Subject:Date:Message-ID;\r\n"
		"\tb=abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopq\r\n\t abcdefghijklmnopqrstuvwxyz==\r\n"
		"Date: Tue, 3 Mar 2026 09:15:00 +0100\r\nFrom: \"Ada Lovelace\" <ada@example.org>\r\n"
		"To: Charles Babbage <charles@example.com>, \"Difference, Inc.\" <office@example.com>\r\n"
		"Subject: Re: =?UTF-8?Q?Notizen_f=C3=BCr_die_Maschine?=\r\nMessage-ID: <5d8b1a2c.4e5f6071@example.org>\r\n"
		"In-Reply-To: <1b2c3d4e@example.com>\r\nReferences: <0a1b2c3d@example.com>\r\n\t<1b2c3d4e@example.com>\r\nMIME-Version: 1.0\r\n");
	buf_addf(m, "Content-Type: %s\r\n", type);
}

static void body(struct buf *m, size_t len)
{
	size_t end = m->len + len;

	while (m->len < end)
		buf_adds(m, "The engine might compose elaborate and scientific pieces of music of any\r\n");
}

static void made_up(void)
{
	struct buf small = BUF_INIT(0), simple = BUF_INIT(0), large = BUF_INIT(0);

	header(&simple, "text/plain; charset=utf-8; format=flowed\r\nContent-Transfer-Encoding: 8bit\r\n");
	body(&simple, 2700);
	header(&small, "multipart/alternative; boundary=\"=-lkjhgfdsa\"\r\n");
	buf_adds(&small, "--=-lkjhgfdsa\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n");
	body(&small, 1000);
	buf_adds(&small, "--=-lkjhgfdsa\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n<html><body>");
	body(&small, 1200);
	buf_adds(&small, "--=-lkjhgfdsa--\r\n");
	header(&large, "multipart/mixed; boundary=\"=-lkjhgfdsa\"\r\n");
	buf_adds(&large, "--=-lkjhgfdsa\r\n\r\nSee there.\r\n--=-lkjhgfdsa\r\nContent-Type: application/pdf; name=x.pdf\r\n"
		"Content-Transfer-Encoding: base64\r\n\r\n");
	while (large.len < 20u << 20)
		buf_adds(&large, "SGVsbG8gV29ybGQhIFRoaXMgaXMgYSBsaW5lIG9mIGJhc2U2NCBkYXRhIGZvciBhIHRlc3QhISEh\r\n");
	buf_adds(&large, "--=-lkjhgfdsa--\r\n");
	measure("simple message", &simple);
	measure("multipart/alternative", &small);
	measure("20 MB attachment", &large);
	measure_reading(&small);
	measure_decoding();
	buf_free(&simple);
	buf_free(&small);
	buf_free(&large);
}

static int file(const char *name)
{
	struct buf m = BUF_INIT(0);
	FILE *f = fopen(name, "rb");
	void *room;
	size_t n;

	if (!f) {
		fprintf(stderr, "bench_mime: %s: %s\n", name, strerror(errno));
		return 1;
	}
	while ((room = buf_reserve(&m, CHUNK)) && (n = fread(room, 1, CHUNK, f)) > 0)
		m.len += n;
	fclose(f);
	measure(name, &m);
	buf_free(&m);
	return 0;
}

int main(int argc, char **argv)
{
	int i, ret = 0;

	if (argc == 1)
		made_up();
	for (i = 1; i < argc; i++)
		ret |= file(argv[i]);
	return ret;
}
