#include "daemon/lmtp/lmtp-private.h"

#include "base/mem.h"

#include <ctype.h>

static bool is_atext(unsigned char c)
{
	return c >= 0x80 || isalnum(c) || (c && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

bool lmtp_has_8bit(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s >= 0x80)
			return true;
	return false;
}

/* "@one,@two:" before the address is allowed and ignored (RFC 5321, appendix C). */
static const char *skip_route(const char *p)
{
	const char *q = p;

	if (*q != '@')
		return p;
	while (*q && *q != ':' && *q != '>' && *q != ' ')
		q++;
	return *q == ':' ? q + 1 : p;
}

static const char *local_part(const char *p, const char **why)
{
	const char *from = p;

	if (*p == '"') {
		for (p++; *p && *p != '"'; p++) {
			if ((unsigned char)*p < 0x20 || *p == 0x7f)
				break;
			if (*p == '\\' && p[1] && (unsigned char)p[1] >= 0x20)
				p++;
		}
		*why = *p == '"' ? NULL : "the quoted local part does not end";
		return *p == '"' ? p + 1 : p;
	}
	/* A dot may stand anywhere: such addresses exist, whatever the grammar says. */
	while (is_atext((unsigned char)*p) || *p == '.')
		p++;
	*why = p > from ? NULL : "the local part is missing";
	return p;
}

static const char *domain(const char *p, const char **why)
{
	const char *from = p;

	if (*p == '[') {
		while (*p && *p != ']' && (unsigned char)*p > ' ')
			p++;
		*why = *p == ']' ? NULL : "the address literal does not end";
		return *p == ']' ? p + 1 : p;
	}
	while ((unsigned char)*p >= 0x80 || isalnum((unsigned char)*p) || *p == '-' || *p == '.' || *p == '_')
		p++;
	*why = p > from ? NULL : "the domain is missing";
	return p;
}

const char *lmtp_parse_path(const char **pp, bool null_ok, char addr[LMTP_PATH_MAX])
{
	const char *p = *pp, *from, *why = NULL;

	while (*p == ' ')	/* "MAIL FROM: <a@b>" is wrong and everywhere */
		p++;
	if (*p != '<')
		return "the address must be in angle brackets";
	from = p = skip_route(p + 1);
	if (*p == '>') {
		if (!null_ok)
			return "the address is empty";
	} else {
		p = local_part(p, &why);
		if (!why && *p == '@')
			p = domain(p + 1, &why);
		if (why)
			return why;
	}
	if (*p != '>')
		return *p ? "there is a character in the address that cannot be" : "the closing angle bracket is missing";
	if (p - from >= LMTP_PATH_MAX)
		return "the address is too long";
	memcpy(addr, from, (size_t)(p - from));
	addr[p - from] = '\0';
	*pp = p + 1;
	return NULL;
}

void lmtp_plain_address(const char *addr, char out[LMTP_PATH_MAX])
{
	size_t n = 0;

	if (*addr != '"') {
		snprintf(out, LMTP_PATH_MAX, "%s", addr);
		return;
	}
	for (addr++; *addr && *addr != '"'; addr++) {
		if (*addr == '\\' && addr[1])
			addr++;
		out[n++] = *addr;
	}
	snprintf(out + n, LMTP_PATH_MAX - n, "%s", *addr ? addr + 1 : "");
}

/* --- parameters --- */

static int wrong(struct lmtp_reply *why, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int wrong(struct lmtp_reply *why, const char *code, const char *fmt, ...)
{
	va_list ap;

	why->code = code;
	va_start(ap, fmt);
	vsnprintf(why->text, sizeof(why->text), fmt, ap);
	va_end(ap);
	return -1;
}

struct param { char name[32]; char value[LMTP_ORCPT_MAX + 64]; bool has_value; };

/* 1 with the next parameter, 0 at the end, -1 bad. */
static int next_param(const char **pp, struct param *out, struct lmtp_reply *why)
{
	const char *p = *pp;
	size_t n = 0;

	if (!*p)
		return 0;
	if (*p != ' ')
		return wrong(why, "501 5.5.4", "There must be a space before each parameter");
	while (*p == ' ')
		p++;
	if (!*p) {
		*pp = p;
		return 0;
	}
	while ((isalnum((unsigned char)*p) || *p == '-') && n < sizeof(out->name) - 1)
		out->name[n++] = *p++;
	out->name[n] = '\0';
	out->has_value = *p == '=';
	n = 0;
	if (out->has_value)
		for (p++; (unsigned char)*p > ' ' && *p != '=' && *p != 0x7f && n < sizeof(out->value) - 1; p++)
			out->value[n++] = *p;
	out->value[n] = '\0';
	*pp = p;
	if (!out->name[0] || (*p && *p != ' '))
		return wrong(why, "501 5.5.4", "A parameter is malformed at \"%.40s\"", p);
	return 1;
}

static int parse_number(const char *s, uint64_t *out_r)
{
	uint64_t n = 0;
	size_t len = strlen(s);

	if (!len || len > 19 || strspn(s, "0123456789") != len)
		return -1;
	for (; *s; s++)
		n = n * 10 + (uint64_t)(*s - '0');
	*out_r = n;
	return 0;
}

/* RFC 3461 section 4: printable but "+" and "=", those as +XX. */
static bool is_xtext(const char *s, size_t max)
{
	if (!*s || strlen(s) > max)
		return false;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '+') {
			if (!s[1] || !s[2] || !strchr("0123456789ABCDEF", s[1]) || !strchr("0123456789ABCDEF", s[2]))
				return false;
			s += 2;
		} else if (c < 33 || c == '=' || c == 127) {
			return false;
		}
	}
	return true;
}

static int mail_param(const struct param *a, struct lmtp_mail_params *p, struct lmtp_reply *why)
{
	static const char *const bodies[] = { "7BIT", "8BITMIME", "BINARYMIME" };
	size_t i;

	if (!strcasecmp(a->name, "SIZE")) {
		p->has_size = true;
		return parse_number(a->value, &p->size) == 0 ? 0 : wrong(why, "501 5.5.4", "SIZE must be a number");
	}
	if (!strcasecmp(a->name, "BODY")) {
		for (i = 0; i < MEM_COUNT(bodies); i++) {
			if (!strcasecmp(a->value, bodies[i])) {
				p->body = (enum lmtp_body)i;
				return 0;
			}
		}
		return wrong(why, "501 5.5.4", "BODY must be 7BIT, 8BITMIME or BINARYMIME");
	}
	if (!strcasecmp(a->name, "SMTPUTF8")) {
		p->smtputf8 = true;
		return a->has_value ? wrong(why, "501 5.5.4", "SMTPUTF8 has no value") : 0;
	}
	if (!strcasecmp(a->name, "RET"))
		return !strcasecmp(a->value, "FULL") || !strcasecmp(a->value, "HDRS") ? 0 : wrong(why, "501 5.5.4", "RET must be FULL or HDRS");
	if (!strcasecmp(a->name, "ENVID"))
		return is_xtext(a->value, LMTP_ENVID_MAX) ? 0 : wrong(why, "501 5.5.4", "ENVID is not xtext of at most %d characters", LMTP_ENVID_MAX);
	return wrong(why, "555 5.5.4", "Unknown parameter %s", a->name);
}

int lmtp_mail_params(const char *text, struct lmtp_mail_params *p, struct lmtp_reply *why)
{
	struct param a;
	int rc;

	memset(p, 0, sizeof(*p));
	while ((rc = next_param(&text, &a, why)) == 1)
		if (mail_param(&a, p, why) < 0)
			return -1;
	return rc;
}

static bool is_notify(const char *s)
{
	static const char *const words[] = { "SUCCESS", "FAILURE", "DELAY" };
	size_t i, n;

	if (!strcasecmp(s, "NEVER"))
		return true;
	for (;; s += n + 1) {
		n = strcspn(s, ",");
		for (i = 0; i < MEM_COUNT(words); i++)
			if (n == strlen(words[i]) && !strncasecmp(s, words[i], n))
				break;
		if (i == MEM_COUNT(words))
			return false;
		if (!s[n])
			return true;
	}
}

int lmtp_rcpt_params(const char *text, struct lmtp_reply *why)
{
	struct param a;
	const char *semi;
	int rc;

	while ((rc = next_param(&text, &a, why)) == 1) {
		if (!strcasecmp(a.name, "NOTIFY")) {
			if (!is_notify(a.value))
				return wrong(why, "501 5.5.4", "NOTIFY must be NEVER or of SUCCESS,FAILURE,DELAY");
		} else if (!strcasecmp(a.name, "ORCPT")) {
			semi = strchr(a.value, ';');
			if (!semi || semi == a.value || strlen(a.value) > LMTP_ORCPT_MAX || (!is_xtext(semi + 1, LMTP_ORCPT_MAX) && strncasecmp(a.value, "utf-8;", 6)))
				return wrong(why, "501 5.5.4", "ORCPT must be type;address in xtext, at most %d characters", LMTP_ORCPT_MAX);
		} else {
			return wrong(why, "555 5.5.4", "Unknown parameter %s", a.name);
		}
	}
	return rc;
}

int lmtp_parse_bdat(const char *text, uint64_t *size_r, bool *last_r)
{
	char digits[24];
	size_t n;

	while (*text == ' ')
		text++;
	n = strspn(text, "0123456789");
	if (n >= sizeof(digits))
		return -1;
	memcpy(digits, text, n);
	digits[n] = '\0';
	text += n;
	*last_r = false;
	if (*text == ' ') {
		while (*text == ' ')
			text++;
		if (!strncasecmp(text, "LAST", 4)) {
			*last_r = true;
			text += 4;
		}
	}
	return *text ? -1 : parse_number(digits, size_r);
}

/* --- the dot --- */

size_t lmtp_dot_feed(struct lmtp_dot *d, const void *data, size_t len, void (*sink)(void *ctx, const void *data, size_t len), void *ctx)
{
	const unsigned char *p = data, *nl;
	size_t i = 0, from = 0;		/* p[from..i) is text that was not passed on yet */

	while (i < len && d->state != DOT_END) {
		switch (d->state) {
		case DOT_LINE_START:
			d->state = DOT_TEXT;
			d->cr = false;
			if (p[i] == '.') {
				sink(ctx, p + from, i - from);
				from = ++i;
				d->state = DOT_DOT;
			}
			break;
		case DOT_DOT:
			d->state = DOT_TEXT;
			if (p[i] == '\r') {
				from = ++i;
				d->state = DOT_DOT_CR;
			}
			break;
		case DOT_DOT_CR:
			d->state = p[i] == '\n' ? DOT_END : DOT_TEXT;
			if (d->state == DOT_END)
				from = ++i;
			else
				sink(ctx, "\r", 1);
			d->cr = d->state == DOT_TEXT && p[i] != '\n';
			break;
		default:
			nl = memchr(p + i, '\n', len - i);
			if (nl && (nl > p + i ? nl[-1] == '\r' : d->cr))
				d->state = DOT_LINE_START;
			d->cr = !nl && p[len - 1] == '\r';
			i = nl ? (size_t)(nl - p) + 1 : len;
		}
	}
	sink(ctx, p + from, i - from);
	return i;
}
