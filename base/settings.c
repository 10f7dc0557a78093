#include "base/settings.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/settings-private.h"

#include <confuse.h>
#include <libgen.h>
#include <sys/stat.h>

/* libconfuse stops at the first name it does not know.  To tell all mistakes
 * at once such a name is noted, added to the options as one to be ignored,
 * and the text is read again. */
enum { UNKNOWN_MAX = 32, OPTIONS_MAX = 64, COMPLAINTS_MAX = 64 * 1024 };

struct unknown { char *section, *name; };

/* The load under way; see the header on threads. */
static struct {
	const struct set_opt *table;
	struct buf *complaints;		/* of this pass */
	struct buf told;		/* unknown names, of all passes */
	struct unknown unknown[UNKNOWN_MAX];
	size_t n_unknown;
	bool again, hopeless;
} P;

static const struct set_opt *row(const struct set_opt *table, const char *name)
{
	for (; table->type != SET_END; table++)
		if (!strcmp(table->name, name))
			return table;
	return NULL;
}

/* The table of the section cfg is. */
static const struct set_opt *table_of(const char *section)
{
	const struct set_opt *o = row(P.table, section);

	return o && o->sub ? o->sub : P.table;
}

static void complain(struct buf *out, cfg_t *cfg, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void complain(struct buf *out, cfg_t *cfg, const char *fmt, ...)
{
	va_list ap;

	if (out->len > COMPLAINTS_MAX)
		return;
	if (cfg->filename)
		buf_addf(out, "%s:%d: ", cfg->filename, cfg->line);
	va_start(ap, fmt);
	buf_vaddf(out, fmt, ap);
	va_end(ap);
	buf_addc(out, '\n');
}

static void suggest(struct buf *out, const char *section, const char *name)
{
	const struct set_opt *here = table_of(section), *o;
	const char *names[OPTIONS_MAX + 1], *near;
	size_t n = 0;

	if (here != P.table && row(P.table, name)) {
		buf_adds(out, ": it belongs outside of any section");
		return;
	}
	for (o = P.table; o->type != SET_END; o++) {
		if (o->sub && o->sub != here && row(o->sub, name)) {
			buf_addf(out, ": it belongs in the section \"%s\"", o->name);
			return;
		}
	}
	for (o = here; o->type != SET_END && n < OPTIONS_MAX; o++)
		names[n++] = o->name;
	names[n] = NULL;
	near = settings_nearest(name, names);
	if (near)
		buf_addf(out, ": did you mean \"%s\"?", near);
}

static bool is_unknown(const char *section, const char *name)
{
	size_t i;

	for (i = 0; i < P.n_unknown; i++)
		if (!strcmp(P.unknown[i].section, section) && !strcmp(P.unknown[i].name, name))
			return true;
	return false;
}

static void note_unknown(cfg_t *cfg, const char *name)
{
	struct buf hint = BUF_INIT(1024);
	bool root = table_of(cfg->name) == P.table;

	suggest(&hint, cfg->name, name);
	complain(&P.told, cfg, "unknown setting \"%s\"%s%s%s%s", name, root ? "" : " in section \"", root ? "" : cfg->name,
		 root ? "" : "\"", buf_str(&hint));
	buf_free(&hint);
	if (P.n_unknown < UNKNOWN_MAX && !is_unknown(cfg->name, name)) {
		P.unknown[P.n_unknown].section = mem_strdup(cfg->name);
		P.unknown[P.n_unknown++].name = mem_strdup(name);
		P.again = true;
	}
}

static void on_error(cfg_t *cfg, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	static const char unknown[] = "no such option '";
	char text[512], *end;
	size_t i;

	vsnprintf(text, sizeof(text), fmt, ap);
	end = strrchr(text, '\'');
	if (!strncmp(text, unknown, sizeof(unknown) - 1) && end && end >= text + sizeof(unknown) - 1) {
		*end = '\0';
		note_unknown(cfg, text + sizeof(unknown) - 1);
		return;
	}
	/* What libconfuse makes of an unknown section, taken for a value, helps nobody. */
	for (i = 0; i < P.n_unknown; i++) {
		char quoted[256];

		snprintf(quoted, sizeof(quoted), "'%s'", P.unknown[i].name);
		if (strstr(text, quoted))
			return;
	}
	complain(P.complaints, cfg, "%s", text);
}

static int on_include(cfg_t *cfg, cfg_opt_t *opt, int argc, const char **argv)
{
	char *dir, *path;
	struct stat st;
	int rc = -1;

	if (argc != 1) {
		complain(P.complaints, cfg, "include takes one file name: include(\"file\")");
		return 0;
	}
	if (argv[0][0] == '/' || !cfg->filename) {
		path = mem_strdup(argv[0]);
	} else {
		dir = mem_strdup(cfg->filename);
		path = mem_printf("%s/%s", dirname(dir), argv[0]);
		free(dir);
	}
	/* libconfuse expands a leading '~' and its lexer ends the process at a directory. */
	if (path[0] == '~' || stat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
		complain(P.complaints, cfg, "include: there is no file %s", path);
		rc = 0;
	} else {
		const char *arg[1] = { path };

		rc = cfg_include(cfg, opt, 1, arg);
	}
	free(path);
	return rc;
}

static void check_value(cfg_t *cfg, const struct set_opt *o, const char *text)
{
	struct buf why = BUF_INIT(2048);
	union set_value v;

	if (settings_value(o, text, &v, &why) < 0)
		complain(P.complaints, cfg, "%s = \"%s\": %s", o->name, text, buf_str(&why));
	buf_free(&why);
}

static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
	const struct set_opt *o = row(table_of(cfg->name), opt->name);
	unsigned n = cfg_opt_size(opt);
	const char *s = n ? cfg_opt_getnstr(opt, n - 1) : NULL;

	if (o && s)
		check_value(cfg, o, s);
	return 0;
}

/* Where a titled section began is the only thing libconfuse forgets. */
static int on_section(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned n = cfg_opt_size(opt);
	cfg_t *sec = n ? cfg_opt_getnsec(opt, n - 1) : NULL;

	if (sec && !sec->comment)
		sec->comment = mem_printf("%d %s", cfg->line, cfg->filename ? cfg->filename : "");
	return 0;
}

/* --- from the table to libconfuse --- */

static void options_add(cfg_opt_t *opts, size_t *n, cfg_opt_t o)
{
	if (*n < OPTIONS_MAX + UNKNOWN_MAX)
		opts[(*n)++] = o;
}

static void options_make(const struct set_opt *table, const char *section, cfg_opt_t *opts, cfg_opt_t *sub_room)
{
	cfg_opt_t include = CFG_FUNC("include", on_include), end = CFG_END();
	const struct set_opt *o;
	size_t n = 0, i;

	for (o = table; o->type != SET_END; o++) {
		cfg_opt_t str = CFG_STR(o->name, NULL, CFGF_NODEFAULT), list = CFG_STR_LIST(o->name, NULL, CFGF_NODEFAULT);
		cfg_opt_t sec = CFG_SEC(o->name, NULL, CFGF_NODEFAULT);

		if (o->sub) {
			options_make(o->sub, o->name, sub_room, NULL);
			sec.subopts = sub_room;
			sec.flags |= o->type == SET_SECTIONS ? CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES : 0;
			sec.validcb = on_section;
			sub_room += OPTIONS_MAX + UNKNOWN_MAX + 2;
			options_add(opts, &n, sec);
			continue;
		}
		str.validcb = list.validcb = on_value;
		options_add(opts, &n, o->type == SET_LIST ? list : str);
	}
	for (i = 0; i < P.n_unknown; i++) {
		cfg_opt_t str = CFG_STR_LIST(P.unknown[i].name, NULL, CFGF_NODEFAULT);

		if (!strcmp(P.unknown[i].section, section))
			options_add(opts, &n, str);
	}
	opts[n++] = include;
	opts[n] = end;
}

static size_t sections_in(const struct set_opt *table)
{
	size_t n = 0;

	for (; table->type != SET_END; table++)
		n += table->sub != NULL;
	return n;
}

/* One pass over path or text; the caller frees the result. */
static cfg_t *parse_once(const char *path, const char *text, bool *ok_r)
{
	size_t room = OPTIONS_MAX + UNKNOWN_MAX + 2;
	cfg_opt_t *opts = mem_calloc(room * (1 + sections_in(P.table)), sizeof(*opts));
	cfg_t *cfg;

	options_make(P.table, "root", opts, opts + room);
	cfg = cfg_init(opts, CFGF_NONE);
	free(opts);
	if (!cfg) {
		*ok_r = false;
		return NULL;
	}
	cfg_set_error_function(cfg, on_error);
	P.again = false;
	buf_clear(P.complaints);
	if (text) {
		free(cfg->filename);
		cfg->filename = strdup(path);
		*ok_r = cfg_parse_buf(cfg, text) == CFG_SUCCESS;
	} else {
		*ok_r = cfg_parse(cfg, path) == CFG_SUCCESS;
	}
	return cfg;
}

/* --- from libconfuse to the caller's struct --- */

static void fill(const struct set_opt *table, cfg_t *cfg, char *out);

static void fill_sections(const struct set_opt *o, cfg_t *cfg, struct set_sections *out)
{
	size_t n = cfg_size(cfg, o->name), i;

	out->v = n ? mem_calloc(n, o->sub_size) : NULL;
	out->n = n;
	for (i = 0; i < n; i++) {
		cfg_t *sec = cfg_getnsec(cfg, o->name, (unsigned)i);
		char *base = (char *)out->v + i * o->sub_size;
		struct set_head *h = (struct set_head *)(void *)base;
		char *rest = NULL;

		fill(o->sub, sec, base);
		h->name = mem_strdup(cfg_title(sec) ? cfg_title(sec) : "");
		if (sec->comment)
			h->line = (unsigned)strtoul(sec->comment, &rest, 10);
		h->file = mem_strdup(rest && *rest ? rest + 1 : "");
	}
}

static void list_add(struct set_list *l, const char *s)
{
	l->v = mem_realloc(l->v, (l->n + 1) * sizeof(*l->v));
	l->v[l->n++] = mem_strdup(s);
}

static void fill_list(const struct set_opt *o, cfg_t *cfg, struct set_list *l)
{
	cfg_opt_t *opt = cfg ? cfg_getopt(cfg, o->name) : NULL;
	unsigned i, n = opt ? cfg_opt_size(opt) : 0;

	for (i = 0; i < n; i++)
		list_add(l, cfg_opt_getnstr(opt, i));
	if (!n && !(opt && opt->flags & CFGF_MODIFIED) && o->def && *o->def)
		list_add(l, o->def);
}

static void fill_value(const struct set_opt *o, cfg_t *cfg, void *field)
{
	cfg_opt_t *opt = cfg ? cfg_getopt(cfg, o->name) : NULL;
	const char *text = opt && cfg_opt_size(opt) ? cfg_opt_getstr(opt) : NULL;
	union set_value v;

	if (!text || settings_value(o, text, &v, NULL) < 0)
		(void)settings_value(o, text = o->def, &v, NULL);
	switch (o->type) {
	case SET_BOOL:
		*(bool *)field = v.b;
		break;
	case SET_CHOICE:
		*(unsigned *)field = v.choice;
		break;
	case SET_STRING:
		*(char **)field = mem_strdup(text ? text : "");
		break;
	default:
		*(uint64_t *)field = v.n;
	}
}

/* cfg NULL: the defaults. */
static void fill(const struct set_opt *table, cfg_t *cfg, char *out)
{
	const struct set_opt *o;

	for (o = table; o->type != SET_END; o++) {
		void *field = out + o->off;

		if (o->type == SET_SECTION)
			fill(o->sub, cfg && cfg_size(cfg, o->name) ? cfg_getnsec(cfg, o->name, 0) : NULL, field);
		else if (o->type == SET_SECTIONS)
			cfg ? fill_sections(o, cfg, field) : (void)0;
		else if (o->type == SET_LIST)
			fill_list(o, cfg, field);
		else
			fill_value(o, cfg, field);
	}
}

static int load(const struct set_opt *table, const char *path, const char *text, void *out, struct buf *complaints)
{
	bool ok = false;
	cfg_t *cfg = NULL;
	size_t i;

	memset(&P, 0, sizeof(P));
	P.table = table;
	P.complaints = complaints;
	do {
		if (cfg)
			cfg_free(cfg);
		cfg = parse_once(path, text, &ok);
	} while (cfg && !ok && P.again);
	fill(table, ok ? cfg : NULL, out);
	if (cfg)
		cfg_free(cfg);
	buf_add(complaints, P.told.data, P.told.len);
	if (!ok && !complaints->len)
		buf_addf(complaints, "%s: cannot be read\n", path);
	for (i = 0; i < P.n_unknown; i++) {
		free(P.unknown[i].section);
		free(P.unknown[i].name);
	}
	buf_free(&P.told);
	return ok && !complaints->len ? 0 : ERR_INVALID;
}

int settings_load(const struct set_opt *table, const char *path, void *out, struct buf *complaints)
{
	struct err err = ERR_INIT;
	struct stat st;

	buf_clear(complaints);
	if (stat(path, &st) < 0)
		err_errno(&err, "open", path);
	else if (!S_ISREG(st.st_mode))
		err_set(&err, ERR_INVALID, "%s: is not a file", path);
	else
		return load(table, path, NULL, out, complaints);
	fill(table, NULL, out);
	buf_addf(complaints, "%s\n", err.msg);
	return ERR_INVALID;
}

int settings_parse(const struct set_opt *table, const char *name, const char *text, void *out, struct buf *complaints)
{
	buf_clear(complaints);
	return load(table, name, text, out, complaints);
}

void settings_free(const struct set_opt *table, void *out)
{
	const struct set_opt *o;
	size_t i;

	for (o = table; o->type != SET_END; o++) {
		char *field = (char *)out + o->off;

		if (o->type == SET_STRING) {
			free(*(char **)(void *)field);
			*(char **)(void *)field = NULL;
		} else if (o->type == SET_LIST) {
			struct set_list *l = (struct set_list *)(void *)field;

			for (i = 0; i < l->n; i++)
				free(l->v[i]);
			free(l->v);
			memset(l, 0, sizeof(*l));
		} else if (o->type == SET_SECTION) {
			settings_free(o->sub, field);
		} else if (o->type == SET_SECTIONS) {
			struct set_sections *s = (struct set_sections *)(void *)field;

			for (i = 0; i < s->n; i++) {
				struct set_head *h = (struct set_head *)(void *)((char *)s->v + i * o->sub_size);

				free(h->name);
				free(h->file);
				settings_free(o->sub, h);
			}
			free(s->v);
			memset(s, 0, sizeof(*s));
		}
	}
}
