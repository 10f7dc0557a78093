/* Made-up messages: the same seed gives the same mail on every machine.
 * What matters to a server varies as in real mail: who writes, how long the
 * subject is, plain text, text beside HTML, attachments in base64. */
#include "bench/load.h"

#include "base/mem.h"

enum { WORDS = 2048, SERIAL = 12, LINE = 72 };

static char words[WORDS][12];
static unsigned char word_len[WORDS];

void load_gen_init(struct load_gen *g, uint64_t seed)
{
	g->state = seed * 0x9e3779b97f4a7c15 + 1;
	g->made = 0;
}

uint64_t load_random(struct load_gen *g)
{
	uint64_t z = g->state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static unsigned below(struct load_gen *g, unsigned n)
{
	return (unsigned)(load_random(g) % n);
}

/* The vocabulary: pronounceable, of two to ten letters, the same for every seed. */
__attribute__((constructor)) static void make_words(void)
{
	static const char *const syllables[] = { "ba", "ce", "di", "fo", "gu", "la", "me", "ni", "ro", "su", "ta", "ve", "an", "er", "is", "on", "ur", "st", "ch", "pl" };
	struct load_gen g;
	unsigned i, k;

	load_gen_init(&g, 7);
	for (i = 0; i < WORDS; i++) {
		unsigned n = 1 + below(&g, 4);

		for (k = 0; k <= n; k++)
			memcpy(words[i] + 2 * k, syllables[below(&g, MEM_COUNT(syllables))], 2);
		word_len[i] = (unsigned char)(2 * (n + 1));
	}
}

/* Common words come more often, as in a language. */
static unsigned pick(struct load_gen *g)
{
	uint64_t r = load_random(g);
	unsigned a = (unsigned)(r % WORDS), b = (unsigned)(r >> 32) % WORDS;

	return (unsigned)((uint64_t)a * b / WORDS);
}

static void add_word(struct load_gen *g, struct buf *out)
{
	unsigned w = pick(g);

	buf_add(out, words[w], word_len[w]);
}

static void add_words(struct load_gen *g, struct buf *out, unsigned n)
{
	while (n--) {
		add_word(g, out);
		if (n)
			buf_addc(out, ' ');
	}
}

/* len octets of text lines, more or less, and the odd number and comma. */
static void add_text(struct load_gen *g, struct buf *out, size_t len, const char *wrap, bool pin)
{
	size_t end = out->len + len, line = out->len;

	if (pin)
		buf_adds(out, "haystackpin ");
	while (out->len < end) {
		add_word(g, out);
		if (out->len - line > LINE) {
			buf_adds(out, wrap);
			line = out->len;
		} else if (!below(g, 16)) {
			buf_addf(out, ", %u ", below(g, 10000));
		} else {
			buf_addc(out, ' ');
		}
	}
	buf_adds(out, wrap);
}

static void add_base64(struct load_gen *g, struct buf *out, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t end = out->len + len;

	while (out->len < end) {
		char line[78];
		unsigned i;

		for (i = 0; i < 76; i += 4) {
			uint64_t r = load_random(g);
			unsigned k;

			for (k = 0; k < 4; k++, r >>= 6)
				line[i + k] = digits[r & 63];
		}
		line[76] = '\r';
		line[77] = '\n';
		buf_add(out, line, sizeof(line));
	}
}

static void add_address(struct load_gen *g, struct buf *out)
{
	static const char *const hosts[] = { "example.org", "example.com", "mail.example.net", "lists.example.org", "bench.example" };
	unsigned who = below(g, 400);

	if (!below(g, 12))
		buf_addf(out, "=?utf-8?q?J=C3=B6rg_%s?=", words[who]);
	else
		buf_addf(out, "\"%s %s\"", words[who], words[WORDS - 1 - who]);
	buf_addf(out, " <%s.%u@%s>", words[who], who, hosts[who % MEM_COUNT(hosts)]);
}

static void add_date(struct load_gen *g, struct buf *out)
{
	time_t t = 1704067200 + (time_t)below(g, 60000000);
	struct tm tm;
	char text[64];

	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S +0000", &tm);
	buf_adds(out, text);
}

static void add_head(struct load_gen *g, struct buf *out)
{
	unsigned i, n = 1 + below(g, 4);

	for (i = 0; i < n; i++) {
		buf_addf(out, "Received: from %s.example.org (%s [192.0.2.%u])\r\n\tby mx%u.bench.example with ESMTPS id %08x;\r\n\t",
			 words[below(g, WORDS)], words[below(g, WORDS)], below(g, 255), below(g, 9), (unsigned)load_random(g));
		add_date(g, out);
		buf_adds(out, "\r\n");
	}
	buf_addf(out, "Message-ID: <%0*llu.%016llx@bench.example>\r\nFrom: ", SERIAL, (unsigned long long)g->made, (unsigned long long)load_random(g));
	add_address(g, out);
	buf_adds(out, "\r\nTo: ");
	for (i = 1 + (below(g, 8) ? 0 : below(g, 6)); i; i--) {
		add_address(g, out);
		buf_adds(out, i > 1 ? ",\r\n\t" : "\r\n");
	}
	buf_addf(out, "Subject: %s", below(g, 3) ? "" : "Re: ");
	if (g->made % 1000 == 77)
		buf_adds(out, "needle ");
	add_words(g, out, 2 + below(g, 8));
	buf_adds(out, "\r\nDate: ");
	add_date(g, out);
	if (!below(g, 2)) {
		n = 1 + below(g, 3);
		buf_addf(out, "\r\nIn-Reply-To: <%016llx@bench.example>\r\nReferences:", (unsigned long long)load_random(g));
		while (n--)
			buf_addf(out, " <%016llx@bench.example>", (unsigned long long)load_random(g));
	}
	if (!below(g, 3))
		buf_adds(out, "\r\nX-Mailer: Made-up 1.0\r\nList-Id: <lists.example.org>\r\nList-Unsubscribe: <mailto:leave@lists.example.org>");
	buf_adds(out, "\r\nMIME-Version: 1.0\r\n");
}

static unsigned varied_size(struct load_gen *g)
{
	unsigned r = below(g, 100);

	if (r < 60)
		return 1500 + below(g, 3000);
	if (r < 90)
		return 4000 + below(g, 8000);
	if (r < 99)
		return 12000 + below(g, 30000);
	return 40000 + below(g, 160000);
}

static void add_alternative(struct load_gen *g, struct buf *out, const char *boundary, size_t room, bool pin)
{
	buf_addf(out, "Content-Type: multipart/alternative; boundary=\"%s\"\r\n\r\n--%s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", boundary, boundary);
	add_text(g, out, room / 3, "\r\n", pin);
	buf_addf(out, "--%s\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>", boundary);
	add_text(g, out, room - room / 3, "</p>\r\n<p>", false);
	buf_addf(out, "</p></body></html>\r\n--%s--\r\n", boundary);
}

void load_message(struct load_gen *g, unsigned size, struct buf *out)
{
	size_t start = out->len, head, room;
	char boundary[40];
	unsigned kind = below(g, 10);
	bool pin = g->made % 2000 == 777;

	if (!size)
		size = varied_size(g);
	add_head(g, out);
	head = out->len - start;
	room = size > head + 500 ? size - head - 500 : 100;
	snprintf(boundary, sizeof(boundary), "=_%016llx", (unsigned long long)load_random(g));
	if (kind < 5) {
		buf_adds(out, "Content-Type: text/plain; charset=utf-8\r\n\r\n");
		add_text(g, out, room + 400, "\r\n", pin);
	} else if (kind < 8 || room < 2000) {
		add_alternative(g, out, boundary, room, pin);
	} else {
		buf_addf(out, "Content-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n--%s\r\nContent-Type: text/plain\r\n\r\n", boundary, boundary);
		add_text(g, out, room / 8, "\r\n", pin);
		buf_addf(out, "--%s\r\nContent-Type: application/pdf; name=\"%s.pdf\"\r\nContent-Transfer-Encoding: base64\r\n"
			 "Content-Disposition: attachment; filename=\"%s.pdf\"\r\n\r\n", boundary, words[kind], words[kind]);
		add_base64(g, out, room - room / 8);
		buf_addf(out, "--%s--\r\n", boundary);
	}
	g->made++;
}

void load_renumber(struct buf *message, uint64_t n)
{
	char serial[SERIAL + 1];
	char *at = (char *)memmem(message->data, message->len, "Message-ID: <", 13);

	snprintf(serial, sizeof(serial), "%0*llu", SERIAL, (unsigned long long)(n % 1000000000000));
	if (at)
		memcpy(at + 13, serial, SERIAL);
}
