#include "daemon/imap/reader.h"

#include "base/mem.h"

enum { CMD_KEEP = 2048 };	/* a buffer up to this size is kept between commands */

void reader_init(struct reader *r, size_t max)
{
	memset(r, 0, sizeof(*r));
	r->max = max;
	buf_init(&r->cmd, max + 1);
}

void reader_free(struct reader *r)
{
	buf_free(&r->cmd);
}

bool reader_idle(const struct reader *r)
{
	return r->state == READER_LINE && r->cmd.len == 0;
}

void reader_reset(struct reader *r)
{
	if (r->cmd.cap > CMD_KEEP)
		buf_free(&r->cmd);
	else
		buf_clear(&r->cmd);
	r->state = READER_LINE;
	r->line = 0;
	r->has_nul = false;
	r->left = 0;
	r->tail_len = 0;
}

/* Does a line (without its end) announce a literal? */
static bool announces_literal(struct reader *r, const char *line, size_t len)
{
	size_t i = len;
	uint64_t n = 0;
	bool sync = true;

	if (!i || line[--i] != '}')
		return false;
	if (i && line[i - 1] == '+') {
		sync = false;
		i--;
	}
	len = i;
	while (i && line[i - 1] >= '0' && line[i - 1] <= '9')
		i--;
	if (i == len || len - i > 19 || !i || line[i - 1] != '{')
		return false;
	for (size_t d = i; d < len; d++)
		n = n * 10 + (uint64_t)(line[d] - '0');
	r->literal_size = n;
	r->literal_sync = sync;
	r->literal8 = i >= 2 && line[i - 2] == '~';
	return true;
}

static size_t trim_cr(const char *line, size_t len)
{
	return len && line[len - 1] == '\r' ? len - 1 : len;
}

/* Nothing of in is taken: skipping goes over it again.  A piece of it is kept
 * for the tag; the end of what was read before may be the begin of a literal. */
static enum reader_event too_long(struct reader *r, const unsigned char *in)
{
	size_t have = r->cmd.len - r->line, keep = have < sizeof(r->tail) ? have : sizeof(r->tail);

	if (keep)
		memcpy(r->tail, r->cmd.data + r->cmd.len - keep, keep);
	r->tail_len = keep;
	buf_add(&r->cmd, in, r->cmd.len < r->max ? r->max - r->cmd.len : 0);
	r->state = READER_SKIP_LINE;
	return READER_TOO_LONG;
}

/* READER_LINE: up to and with the next LF. */
static enum reader_event feed_line(struct reader *r, const unsigned char *in, size_t len, size_t *used)
{
	const unsigned char *lf = memchr(in, '\n', len);
	size_t n = lf ? (size_t)(lf - in) + 1 : len;
	const char *line;
	size_t line_len;

	if (n > r->max || r->cmd.len > r->max - n)
		return too_long(r, in);
	if (memchr(in, '\0', n))
		r->has_nul = true;
	buf_add(&r->cmd, in, n);
	*used += n;
	if (!lf)
		return READER_MORE;
	line = (const char *)r->cmd.data + r->line;
	line_len = trim_cr(line, r->cmd.len - r->line - 1);
	if (announces_literal(r, line, line_len)) {
		r->state = READER_DECIDE;
		return READER_LITERAL;
	}
	buf_truncate(&r->cmd, r->line + line_len);
	return READER_COMMAND;
}

/* READER_SKIP_LINE */
static enum reader_event feed_skip_line(struct reader *r, const unsigned char *in, size_t len, size_t *used)
{
	const unsigned char *lf = memchr(in, '\n', len);
	size_t n = lf ? (size_t)(lf - in) : len, keep = n < sizeof(r->tail) ? n : sizeof(r->tail), drop;

	drop = r->tail_len + keep > sizeof(r->tail) ? r->tail_len + keep - sizeof(r->tail) : 0;
	memmove(r->tail, r->tail + drop, r->tail_len - drop);
	r->tail_len -= drop;
	memcpy(r->tail + r->tail_len, in + n - keep, keep);
	r->tail_len += keep;
	*used += lf ? n + 1 : n;
	if (!lf)
		return READER_MORE;
	n = trim_cr(r->tail, r->tail_len);
	r->tail_len = 0;
	if (announces_literal(r, r->tail, n) && !r->literal_sync) {
		r->left = r->literal_size;
		r->state = READER_SKIP_LITERAL;
		return READER_MORE;
	}
	return READER_SKIPPED;
}

static enum reader_event feed_literal(struct reader *r, const unsigned char *in, size_t len, size_t *used)
{
	size_t n = r->left < len ? (size_t)r->left : len;

	r->left -= n;
	*used += n;
	switch (r->state) {
	case READER_IN_LITERAL:
		buf_add(&r->cmd, in, n);
		break;
	case READER_IN_STREAM:
		r->data = in;
		r->data_len = n;
		break;
	default:
		break;
	}
	if (r->state == READER_IN_STREAM) {
		if (!r->left) {
			r->state = READER_LINE;
			r->line = r->cmd.len;
		}
		return READER_DATA;
	}
	if (!r->left) {
		r->line = r->cmd.len;
		r->state = r->state == READER_IN_LITERAL ? READER_LINE : READER_SKIP_LINE;
	}
	return READER_MORE;
}

enum reader_event reader_feed(struct reader *r, const unsigned char *in, size_t len, size_t *used_r)
{
	enum reader_event ev = READER_MORE;

	*used_r = 0;
	while (ev == READER_MORE && *used_r < len) {
		const unsigned char *p = in + *used_r;
		size_t left = len - *used_r;

		switch (r->state) {
		case READER_LINE:
			ev = feed_line(r, p, left, used_r);
			break;
		case READER_SKIP_LINE:
			ev = feed_skip_line(r, p, left, used_r);
			break;
		case READER_IN_LITERAL:
		case READER_IN_STREAM:
		case READER_SKIP_LITERAL:
			ev = feed_literal(r, p, left, used_r);
			break;
		case READER_DECIDE:
			return READER_LITERAL;
		}
	}
	return ev;
}

bool reader_collect(struct reader *r)
{
	if (r->literal_size > r->max || r->cmd.len > r->max - (size_t)r->literal_size)
		return false;
	r->left = r->literal_size;
	r->line = r->cmd.len;
	r->state = r->left ? READER_IN_LITERAL : READER_LINE;
	return true;
}

void reader_stream(struct reader *r)
{
	r->left = r->literal_size;
	r->line = r->cmd.len;
	r->state = r->left ? READER_IN_STREAM : READER_LINE;
}

bool reader_refuse(struct reader *r)
{
	if (r->literal_sync) {
		reader_reset(r);
		return false;
	}
	r->left = r->literal_size;
	r->tail_len = 0;
	r->state = r->left ? READER_SKIP_LITERAL : READER_SKIP_LINE;
	return true;
}
