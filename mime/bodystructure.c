/* BODY and BODYSTRUCTURE (RFC 9051 section 7.5.2) out of the pieces that were
 * rendered when each part's header was read. */
#include "mime/mime-private.h"

struct render {
	const struct part *parts;
	size_t n;
	const unsigned char *pool;
	struct buf *out;
	bool extended;
};

static size_t one(const struct render *r, size_t i);

/* A multipart must have a part (RFC 9051 section 9, body-type-mpart): one
 * without any is shown with an empty one. */
static const char empty_part[] = "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0";

static size_t multipart(const struct render *r, size_t i)
{
	const struct part *p = &r->parts[i];
	size_t next = i + 1;

	buf_addc(r->out, '(');
	if (next == r->n || r->parts[next].parent != i) {
		buf_adds(r->out, empty_part);
		buf_adds(r->out, r->extended ? " NIL NIL NIL NIL)" : ")");
	}
	while (next < r->n && r->parts[next].parent == i)
		next = one(r, next);
	buf_addc(r->out, ' ');
	buf_add(r->out, r->pool + p->basic, p->basic_len);
	return next;
}

static void number(const struct render *r, uint64_t v)
{
	buf_addc(r->out, ' ');
	buf_addu(r->out, v);
}

/* Renders part i and what is in it; gives the index behind. */
static size_t one(const struct render *r, size_t i)
{
	const struct part *p = &r->parts[i];
	size_t next = i + 1;

	if (p->kind == MIME_MULTIPART) {
		next = multipart(r, i);
	} else {
		buf_addc(r->out, '(');
		buf_add(r->out, r->pool + p->basic, p->basic_len);
		number(r, p->end - p->body_off);
		if (p->kind == MIME_MESSAGE) {
			buf_addc(r->out, ' ');
			buf_add(r->out, r->pool + p->envelope, p->envelope_len);
			buf_addc(r->out, ' ');
			next = one(r, i + 1);
		}
		if (p->kind == MIME_MESSAGE || p->is_text)
			number(r, p->lines);
	}
	if (r->extended) {
		buf_addc(r->out, ' ');
		buf_add(r->out, r->pool + p->ext, p->ext_len);
	}
	buf_addc(r->out, ')');
	return next;
}

void bodystructure_render(const struct part *parts, size_t n, const struct buf *pool, bool extended, struct buf *out)
{
	struct render r = { parts, n, pool->data, out, extended };

	one(&r, 0);
}
