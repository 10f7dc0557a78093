/* Address lists of RFC 5322 section 3.4 with the obsolete forms of section
 * 4.4, as the address structures of ENVELOPE (RFC 9051 section 7.5.2).
 *
 * Mail is full of addresses that are none.  What can be read is kept; the
 * rest is named as such (MISSING_MAILBOX, MISSING_DOMAIN, SYNTAX_ERROR,
 * INVALID_ROUTE), so that a client can tell it from an address and never
 * replies to a guess. */
#include "mime/mime-private.h"

struct text {
	struct buf b;
	bool set;
};

struct address {
	struct tok t;
	struct text name, route, mailbox, domain;
	struct buf word, comment;
	struct buf *out;
	size_t max;		/* ceiling of out->len, 0 = none */
	bool invalid, full;
};

static void text_set(struct text *x, const struct buf *b)
{
	buf_clear(&x->b);
	buf_add(&x->b, b->data, b->len);
	x->set = true;
}

static void text_puts(struct text *x, const char *s)
{
	buf_clear(&x->b);
	buf_adds(&x->b, s);
	x->set = true;
}

static void put(struct buf *out, const struct text *x, bool human)
{
	const void *s = x->b.len ? x->b.data : (const unsigned char *)"";

	if (!x->set)
		buf_add(out, "NIL", 3);
	else if (human)
		imap_for_humans(out, s, x->b.len);
	else
		imap_unfolded(out, s, x->b.len);
}

/* Writes the address out and starts the next one. */
static void add(struct address *a)
{
	size_t before = a->out->len;

	buf_addc(a->out, '(');
	put(a->out, &a->name, true);
	buf_addc(a->out, ' ');
	put(a->out, &a->route, false);
	buf_addc(a->out, ' ');
	put(a->out, &a->mailbox, false);
	buf_addc(a->out, ' ');
	put(a->out, &a->domain, false);
	buf_addc(a->out, ')');
	if (a->max && a->out->len > a->max) {
		buf_truncate(a->out, before);
		a->full = true;
	}
	a->name.set = a->route.set = a->mailbox.set = a->domain.set = false;
	a->invalid = false;
}

static void add_mailbox(struct address *a)
{
	if (!a->mailbox.set)
		text_puts(&a->mailbox, "MISSING_MAILBOX");
	if (!a->domain.set || !a->domain.b.len)
		text_puts(&a->domain, "MISSING_DOMAIN");
	add(a);
}

/* A local-part of the obsolete form, which takes its "@" to be believed: words
 * with dots and blanks are a name more often. */
static int obs_local_part(struct address *a, const unsigned char *start)
{
	const unsigned char *stopped = a->t.p;
	struct buf word = BUF_INIT(0);
	int ret;

	a->t.p = start;
	ret = tok_obs_local_part(&a->t, &word);
	if (ret > 0 && *a->t.p == '@') {
		text_set(&a->mailbox, &word);
	} else {
		a->t.p = stopped;
		ret = -1;
	}
	buf_free(&word);
	return ret;
}

static int local_part(struct address *a)
{
	const unsigned char *start = a->t.p;
	int ret, obs;

	buf_clear(&a->word);
	ret = *start == '"' ? tok_quoted(&a->t, &a->word) : tok_local_part(&a->t, &a->word);
	if (ret < 0 || (ret > 0 && *a->t.p == '.')) {
		obs = obs_local_part(a, start);
		if (obs > 0 || ret < 0)
			return obs;
	}
	text_set(&a->mailbox, &a->word);
	return ret;
}

static int domain(struct address *a)
{
	int ret;

	buf_clear(&a->word);
	ret = tok_domain(&a->t, &a->word);
	if (ret >= 0)
		text_set(&a->domain, &a->word);
	return ret;
}

/* obs-route: "@" domain *("," "@" domain), the cursor on the first "@". */
static bool route(struct address *a)
{
	struct buf *w = &a->word;

	buf_clear(w);
	while (*a->t.p == '@') {
		if (w->len)
			buf_addc(w, ',');
		buf_addc(w, '@');
		if (tok_domain(&a->t, w) <= 0)
			return false;
		while (*a->t.p == ',') {
			a->t.p++;
			if (tok_cfws(&a->t) <= 0)
				return false;
		}
	}
	text_set(&a->route, w);
	return *a->t.p == ':';
}

/* "<" [route ":"] local-part ["@" domain] ">", the cursor on "<". */
static int angle(struct address *a)
{
	a->t.p++;
	if (tok_cfws(&a->t) <= 0)
		return -1;
	if (*a->t.p == '@') {
		if (route(a))
			a->t.p++;
		else
			text_puts(&a->route, "INVALID_ROUTE");
		if (tok_cfws(&a->t) <= 0)
			return -1;
	}
	if (*a->t.p != '>') {
		if (local_part(a) <= 0)
			return -1;
		if (*a->t.p == '@' && domain(a) <= 0)
			return -1;
		if (*a->t.p != '>')
			return -1;
	}
	a->t.p++;
	return tok_cfws(&a->t);
}

/* [phrase] "<...>"; -1 and nothing read when it is not one. */
static int name_addr(struct address *a)
{
	buf_clear(&a->word);
	if (tok_phrase(&a->t, &a->word) <= 0 || *a->t.p != '<')
		return -1;
	if (a->word.len)
		text_set(&a->name, &a->word);
	if (angle(a) < 0) {
		text_puts(&a->domain, "SYNTAX_ERROR");
		a->invalid = true;
	}
	return a->t.p < a->t.end;
}

/* A local-part with neither a domain nor a comment: words behind it make it a
 * display name, otherwise it is a mailbox. */
static void lone_word(struct address *a, bool quoted)
{
	size_t len;

	buf_addc(&a->word, ' ');
	len = a->word.len;
	(void)tok_phrase(&a->t, &a->word);
	if (a->word.len != len) {
		a->mailbox.set = false;
		text_set(&a->name, &a->word);
	} else if (!quoted) {
		text_puts(&a->domain, "");
	}
	a->invalid = true;
}

/* local-part "@" domain (display name), the oldest form. */
static int addr_spec(struct address *a)
{
	bool quoted = *a->t.p == '"', no_domain = true;
	int ret, ret2;

	buf_clear(&a->comment);
	ret = local_part(a);
	if (ret <= 0)
		a->invalid = true;
	if (ret != 0 && a->t.p < a->t.end && *a->t.p == '@') {
		no_domain = false;
		ret2 = domain(a);
		if (ret2 <= 0)
			ret = ret2;
	}
	if (a->comment.len) {
		text_set(&a->name, &a->comment);
	} else if (no_domain) {
		lone_word(a, quoted);
		ret = -1;
	}
	return ret;
}

static int mailbox(struct address *a)
{
	const unsigned char *start = a->t.p;
	int ret = name_addr(a);

	if (ret < 0) {
		a->t.p = start;
		ret = addr_spec(a);
		if (a->invalid && !a->name.set && a->mailbox.set && !a->domain.set) {
			text_set(&a->name, &a->mailbox.b);
			a->mailbox.set = false;
		}
	}
	add_mailbox(a);
	return ret;
}

/* Jumps over empty members (obs-addr-list, obs-mbox-list); as tok_cfws. */
static int skip_empty(struct address *a)
{
	int ret = 1;

	while (ret > 0 && *a->t.p == ',') {
		a->t.p++;
		ret = tok_cfws(&a->t);
	}
	return ret;
}

/* phrase ":" [mailboxes] ";" ; -1 when it is not a group, else 1 or 0 (end). */
static int group(struct address *a)
{
	int ret;

	buf_clear(&a->word);
	if (tok_phrase(&a->t, &a->word) <= 0 || *a->t.p != ':')
		return -1;
	a->t.p++;
	ret = tok_cfws(&a->t);
	text_set(&a->mailbox, &a->word);
	add(a);
	if (ret > 0)
		ret = skip_empty(a);
	while (ret > 0 && *a->t.p != ';' && !a->full) {
		(void)mailbox(a);
		if (a->t.p == a->t.end || *a->t.p != ',')
			break;
		ret = skip_empty(a);
	}
	if (ret > 0 && a->t.p < a->t.end && *a->t.p == ';') {
		a->t.p++;
		ret = tok_cfws(&a->t);
	}
	add(a);
	return ret != 0;
}

/* The cursor is on something. */
static void list(struct address *a)
{
	const unsigned char *start;
	int ret = skip_empty(a);

	while (ret > 0 && !a->full) {
		start = a->t.p;
		ret = group(a);
		if (ret < 0) {
			a->t.p = start;
			ret = mailbox(a);
		}
		if (!ret || a->t.p == a->t.end || *a->t.p != ',')
			return;
		ret = skip_empty(a);
	}
	if (ret < 0)
		add_mailbox(a);		/* ends in garbage */
}

bool address_render(const void *value, size_t len, struct buf *out, size_t max)
{
	struct address a = { .t = tok_init(value, len), .out = out, .max = max };

	a.t.comment = &a.comment;
	if (tok_cfws(&a.t) > 0)
		list(&a);
	buf_free(&a.name.b);
	buf_free(&a.route.b);
	buf_free(&a.mailbox.b);
	buf_free(&a.domain.b);
	buf_free(&a.word);
	buf_free(&a.comment);
	return !a.full;
}
