/* mime_dump - what this library says of one message, for comparisons.
 *
 *   mime_dump FILE            ENVELOPE, BODY, BODYSTRUCTURE and one line per part
 *   mime_dump -s < LIST       the same for every file named on standard input
 *
 * Output per file: "FILE name", then "KEY length" lines, each followed by that
 * many bytes and a line end; "END". */
#include "base/buf.h"
#include "mime/mime.h"

#include <errno.h>

static bool read_file(const char *name, struct buf *out)
{
	FILE *f = fopen(name, "rb");
	char chunk[65536];
	size_t n;

	if (!f) {
		fprintf(stderr, "mime_dump: %s: %s\n", name, strerror(errno));
		return false;
	}
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		buf_add(out, chunk, n);
	fclose(f);
	return true;
}

static void say(const char *key, const void *data, size_t len)
{
	printf("%s %zu\n", key, len);
	fwrite(data, 1, len, stdout);
	putchar('\n');
}

static bool leaf(void *ctx, const struct mime_part *p, const uint32_t *path, size_t depth)
{
	struct mime_summary *s = ctx;
	struct mime_part found;
	struct buf line = BUF_INIT(0);
	size_t i;

	for (i = 0; i < depth; i++)
		buf_addf(&line, "%s%u", i ? "." : "", path[i]);
	/* the walk and the look-up must agree */
	if (mime_summary_part(s, path, depth, &found) != 1 || found.body_off != p->body_off || found.body_len != p->body_len ||
		found.header_off != p->header_off)
		buf_adds(&line, " DISAGREES");
	buf_addf(&line, " %llu %llu %llu %llu %s/%s %s", (unsigned long long)p->header_off, (unsigned long long)p->header_len,
		(unsigned long long)p->body_off, (unsigned long long)p->body_len, p->type, p->subtype, p->charset);
	say("PART", line.data, line.len);
	buf_free(&line);
	return true;
}

static int dump(const char *name)
{
	struct mime_parser *p = mime_parser_new(NULL);
	struct buf message = BUF_INIT(0), summary = BUF_INIT(0), env = BUF_INIT(0);
	struct mime_summary s;
	int ret = 1;

	if (read_file(name, &message)) {
		mime_parser_feed(p, buf_str(&message), message.len);
		mime_parser_finish(p, &summary);
		printf("FILE %s\n", name);
		if (!mime_summary_open(summary.data, summary.len, &s)) {
			say("ENVELOPE", s.envelope, s.envelope_len);
			say("BODY", s.body, s.body_len);
			say("BODYSTRUCTURE", s.bodystructure, s.bodystructure_len);
			say("PREVIEW", s.preview, s.preview_len);
			say("HEADERS", s.headers, s.headers_len);
			mime_envelope(buf_str(&message), s.header_size, &env);
			say("ENVELOPE2", env.data, env.len);
			mime_summary_each_leaf(&s, leaf, &s);
			printf("FLAGS %u\nSUMMARY %zu\nEND\n", s.flags, summary.len);
			ret = 0;
		}
	}
	mime_parser_free(&p);
	buf_free(&message);
	buf_free(&summary);
	buf_free(&env);
	return ret;
}

int main(int argc, char **argv)
{
	char name[4096];
	int ret = 0;

	if (argc == 2 && strcmp(argv[1], "-s"))
		return dump(argv[1]);
	while (fgets(name, sizeof(name), stdin)) {
		name[strcspn(name, "\n")] = '\0';
		ret |= dump(name);
		fflush(stdout);
	}
	return ret;
}
