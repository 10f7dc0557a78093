#include "base/settings.h"

#include "base/mem.h"
#include "base/settings-private.h"

#include <ctype.h>
#include <inttypes.h>

struct unit { const char *name; uint64_t factor; };

static const struct unit size_units[] = {
	{ "T", UINT64_C(1) << 40 }, { "G", 1 << 30 }, { "M", 1 << 20 }, { "K", 1 << 10 }, { "", 1 }, { NULL, 0 }
};
static const struct unit time_units[] = {
	{ "w", 604800000 }, { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 }, { NULL, 0 }
};

static int parse_unit(const char *text, const struct unit *units, const char *bare, uint64_t *out_r)
{
	const char *p = text;
	uint64_t n = 0;

	if (!isdigit((unsigned char)*p))
		return -1;
	for (; isdigit((unsigned char)*p); p++) {
		if (n > (UINT64_MAX - 9) / 10)
			return -1;
		n = n * 10 + (uint64_t)(*p - '0');
	}
	while (*p == ' ')
		p++;
	if (!*p)
		p = bare;
	for (; units->name; units++) {
		size_t len = strlen(units->name);

		if (strncasecmp(p, units->name, len) || (p[len] && !(units->factor >= 1024 && !strcasecmp(p + len, "B") && bare[0] == '\0')))
			continue;
		if (n > UINT64_MAX / units->factor)
			return -1;
		*out_r = n * units->factor;
		return 0;
	}
	return -1;
}

int settings_parse_size(const char *text, uint64_t *out_r)
{
	return parse_unit(text, size_units, "", out_r);
}

int settings_parse_time(const char *text, uint64_t *ms_r)
{
	return parse_unit(text, time_units, "s", ms_r);
}

static void add_unit(struct buf *out, uint64_t n, const struct unit *units, const char *zero)
{
	if (!n) {
		buf_adds(out, zero);
		return;
	}
	while (n % units->factor)
		units++;
	buf_addu(out, n / units->factor);
	buf_adds(out, units->name);
}

void settings_add_size(struct buf *out, uint64_t octets)
{
	add_unit(out, octets, size_units, "0");
}

void settings_add_time(struct buf *out, uint64_t ms)
{
	add_unit(out, ms, time_units, "0s");
}

/* Levenshtein distance, given up beyond 3; words longer than the row are far. */
static unsigned distance(const char *a, const char *b)
{
	unsigned prev[65], i, k, na = (unsigned)strlen(a), nb = (unsigned)strlen(b);

	if (na > 64 || nb > 64 || na > nb + 3 || nb > na + 3)
		return 99;
	for (k = 0; k <= nb; k++)
		prev[k] = k;
	for (i = 1; i <= na; i++) {
		unsigned diag = prev[0];

		prev[0] = i;
		for (k = 1; k <= nb; k++) {
			unsigned cost = diag + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[k - 1]));

			diag = prev[k];
			if (prev[k] + 1 < cost)
				cost = prev[k] + 1;
			if (prev[k - 1] + 1 < cost)
				cost = prev[k - 1] + 1;
			prev[k] = cost;
		}
	}
	return prev[nb];
}

const char *settings_nearest(const char *word, const char *const *names)
{
	unsigned best = strlen(word) < 4 ? 1 : strlen(word) < 6 ? 2 : 3, d;
	const char *near = NULL;

	for (; *names; names++) {
		d = distance(word, *names);
		if (d < best || (d == best && !near)) {
			best = d;
			near = *names;
		}
	}
	return near;
}

static int value_bool(const char *text, union set_value *v, struct buf *why)
{
	static const char *const yes[] = { "yes", "true", "on", NULL }, *const no[] = { "no", "false", "off", NULL };
	int i;

	for (i = 0; yes[i]; i++) {
		v->b = !strcasecmp(text, yes[i]);
		if (v->b || !strcasecmp(text, no[i]))
			return 0;
	}
	if (why)
		buf_adds(why, "write yes or no");
	return -1;
}

static int value_choice(const struct set_opt *o, const char *text, union set_value *v, struct buf *why)
{
	const char *near;
	unsigned i;

	for (i = 0; o->choices[i]; i++) {
		if (!strcmp(text, o->choices[i])) {
			v->choice = i;
			return 0;
		}
	}
	if (!why)
		return -1;
	near = settings_nearest(text, o->choices);
	if (near)
		buf_addf(why, "did you mean \"%s\"? ", near);
	buf_adds(why, "It can be");
	for (i = 0; o->choices[i]; i++)
		buf_addf(why, "%s %s", i ? (o->choices[i + 1] ? "," : " or") : "", o->choices[i]);
	return -1;
}

static void add_number(const struct set_opt *o, uint64_t n, struct buf *out)
{
	if (o->type == SET_SIZE)
		settings_add_size(out, n);
	else if (o->type == SET_TIME)
		settings_add_time(out, n);
	else
		buf_addu(out, n);
}

static int value_number(const struct set_opt *o, const char *text, union set_value *v, struct buf *why)
{
	static const struct unit none[] = { { "", 1 }, { NULL, 0 } };
	int rc;

	rc = parse_unit(text, o->type == SET_SIZE ? size_units : o->type == SET_TIME ? time_units : none, o->type == SET_TIME ? "s" : "", &v->n);
	if (rc < 0 && why)
		buf_adds(why, o->type == SET_SIZE ? "write a size like 512, 64K, 100M or 2G" :
			 o->type == SET_TIME ? "write a time like 250ms, 30s, 10m, 12h or 7d" : "write a whole number");
	if (rc < 0 || (!o->min && !o->max) || (v->n >= o->min && v->n <= o->max))
		return rc;
	if (why) {
		buf_adds(why, "it can be from ");
		add_number(o, o->min, why);
		buf_adds(why, " to ");
		add_number(o, o->max, why);
	}
	return -1;
}

int settings_value(const struct set_opt *o, const char *text, union set_value *v, struct buf *why)
{
	switch (o->type) {
	case SET_BOOL:
		return value_bool(text, v, why);
	case SET_CHOICE:
		return value_choice(o, text, v, why);
	case SET_UINT:
	case SET_SIZE:
	case SET_TIME:
		return value_number(o, text, v, why);
	default:
		return 0;
	}
}

/* --- printing --- */

static void add_quoted(struct buf *out, const char *s)
{
	buf_addc(out, '"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\' || c == '$')
			buf_addc(out, '\\');
		if (c < 0x20 || c == 0x7f)
			buf_addf(out, "\\x%02x", c);
		else
			buf_addc(out, c);
	}
	buf_addc(out, '"');
}

static void print_value(const struct set_opt *o, const void *field, struct buf *out)
{
	const struct set_list *l = field;
	size_t i;

	switch (o->type) {
	case SET_STRING:
		add_quoted(out, *(char *const *)field ? *(char *const *)field : "");
		break;
	case SET_LIST:
		buf_adds(out, "{");
		for (i = 0; i < l->n; i++) {
			buf_adds(out, i ? ", " : "");
			add_quoted(out, l->v[i]);
		}
		buf_adds(out, "}");
		break;
	case SET_BOOL:
		buf_adds(out, *(const bool *)field ? "yes" : "no");
		break;
	case SET_CHOICE:
		add_quoted(out, o->choices[*(const unsigned *)field]);
		break;
	default:
		add_number(o, *(const uint64_t *)field, out);
	}
}

static bool is_default(const struct set_opt *o, const void *field)
{
	const struct set_list *l = field;
	const char *def = o->def ? o->def : "";
	union set_value v = { 0 };

	(void)settings_value(o, def, &v, NULL);
	switch (o->type) {
	case SET_STRING:
		return !strcmp(*(char *const *)field ? *(char *const *)field : "", def);
	case SET_LIST:
		return l->n == (*def ? 1 : 0) && (!l->n || !strcmp(l->v[0], def));
	case SET_BOOL:
		return *(const bool *)field == v.b;
	case SET_CHOICE:
		return *(const unsigned *)field == v.choice;
	default:
		return *(const uint64_t *)field == v.n;
	}
}

static void print_table(const struct set_opt *table, const char *in, bool changed, const char *indent, struct buf *out);

static void print_section(const struct set_opt *o, const char *field, const char *title, bool changed, struct buf *out)
{
	struct buf inner = BUF_INIT(0);

	print_table(o->sub, field, changed, "\t", &inner);
	if (inner.len || title) {
		buf_addf(out, "%s ", o->name);
		if (title) {
			add_quoted(out, title);
			buf_addc(out, ' ');
		}
		buf_adds(out, "{\n");
		buf_add(out, inner.data, inner.len);
		buf_adds(out, "}\n");
	}
	buf_free(&inner);
}

static void print_table(const struct set_opt *table, const char *in, bool changed, const char *indent, struct buf *out)
{
	const struct set_opt *o;
	size_t i;

	for (o = table; o->type != SET_END; o++) {
		const char *field = in + o->off;

		if (o->type == SET_SECTIONS) {
			const struct set_sections *s = (const struct set_sections *)(const void *)field;

			for (i = 0; i < s->n; i++) {
				const char *base = (const char *)s->v + i * o->sub_size;

				print_section(o, base, ((const struct set_head *)(const void *)base)->name, changed, out);
			}
		} else if (o->type == SET_SECTION) {
			print_section(o, field, NULL, changed, out);
		} else if (!changed || !is_default(o, field)) {
			buf_addf(out, "%s%s = ", indent, o->name);
			print_value(o, field, out);
			buf_addc(out, '\n');
		}
	}
}

void settings_print(const struct set_opt *table, const void *in, bool changed, struct buf *out)
{
	print_table(table, in, changed, "", out);
}

/* --- the reference page --- */

static void doc_text(const char *s, struct buf *out)
{
	bool line_start = true;

	for (; *s; s++) {
		if (line_start && (*s == '.' || *s == '\''))
			buf_adds(out, "\\&");
		if (*s == '\\')
			buf_adds(out, "\\e");
		else if (*s == '-')
			buf_adds(out, "\\-");
		else
			buf_addc(out, *s);
		line_start = *s == '\n';
	}
}

static const char *type_name(const struct set_opt *o)
{
	static const char *const names[] = {
		[SET_STRING] = "text", [SET_LIST] = "list", [SET_UINT] = "number", [SET_SIZE] = "size", [SET_TIME] = "time", [SET_BOOL] = "yes or no",
	};

	return names[o->type] ? names[o->type] : "";
}

static void doc_option(const struct set_opt *o, struct buf *out)
{
	unsigned i;

	buf_addf(out, ".TP\n.B %s\n", o->name);
	if (o->type == SET_CHOICE) {
		for (i = 0; o->choices[i]; i++) {
			buf_adds(out, i ? ", " : "(");
			doc_text(o->choices[i], out);
		}
	} else {
		buf_addf(out, "(%s", type_name(o));
	}
	buf_adds(out, "; default ");
	doc_text(o->doc_def ? o->doc_def : o->def && *o->def ? o->def : "none", out);
	buf_adds(out, ")\n");
	doc_text(o->doc ? o->doc : "", out);
	buf_addc(out, '\n');
}

void settings_doc(const struct set_opt *table, struct buf *out)
{
	const struct set_opt *o;

	for (o = table; o->type != SET_END; o++)
		if (!o->sub)
			doc_option(o, out);
	for (o = table; o->type != SET_END; o++) {
		if (!o->sub)
			continue;
		buf_addf(out, ".SS \"%s%s { }\"\n", o->name, o->type == SET_SECTIONS ? " NAME" : "");
		doc_text(o->doc ? o->doc : "", out);
		buf_addc(out, '\n');
		settings_doc(o->sub, out);
	}
}
