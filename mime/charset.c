/* Charsets to UTF-8 by iconv, with the names and the confusions of mail:
 * "iso-8859-1" holds windows-1252, "gb2312" GB 18030, "us-ascii" anything. */
#include "mime/mime-private.h"

#include "base/mem.h"

#include <errno.h>
#include <iconv.h>
#include <pthread.h>

enum how { UTF8, GUESS, LATIN, ICONV };
enum { PENDING_MAX = 16, CACHE = 8, NAME_CAP = 48 };

struct converter {
	char name[NAME_CAP];
	iconv_t cd;
	bool busy;
};

struct mime_charset {
	enum how how;
	struct converter *conv;		/* NULL: own_cd */
	iconv_t cd;
	unsigned char pending[PENDING_MAX];	/* a character that was cut */
	size_t n_pending;
};

static const struct {
	const char *mail, *iconv;	/* "": one of the other ways */
	enum how how;
} aliases[] = {
	{ "utf-8", "", UTF8 }, { "utf8", "", UTF8 }, { "unicode-1-1-utf-8", "", UTF8 }, { "x-unicode-2-0-utf-8", "", UTF8 },
	{ "", "", GUESS }, { "us-ascii", "", GUESS }, { "ascii", "", GUESS }, { "ansi_x3.4-1968", "", GUESS }, { "646", "", GUESS },
	{ "unknown-8bit", "", GUESS }, { "x-unknown", "", GUESS }, { "default", "", GUESS }, { "unknown", "", GUESS },
	{ "iso-8859-1", "", LATIN }, { "latin1", "", LATIN }, { "iso8859-1", "", LATIN }, { "iso_8859-1", "", LATIN },
	{ "windows-1252", "", LATIN }, { "cp1252", "", LATIN }, { "cp-1252", "", LATIN }, { "x-ansi", "", LATIN },
	{ "gb2312", "gb18030", ICONV }, { "gbk", "gb18030", ICONV }, { "x-gbk", "gb18030", ICONV }, { "cp936", "gb18030", ICONV },
	{ "gb_2312-80", "gb18030", ICONV }, { "euc-cn", "gb18030", ICONV }, { "chinesebig5", "big5-hkscs", ICONV },
	{ "big5", "big5-hkscs", ICONV }, { "ks_c_5601-1987", "cp949", ICONV }, { "ks_c_5601", "cp949", ICONV }, { "euc-kr", "cp949", ICONV },
	{ "ksc5601", "cp949", ICONV }, { "shift_jis", "cp932", ICONV }, { "shift-jis", "cp932", ICONV }, { "sjis", "cp932", ICONV },
	{ "x-sjis", "cp932", ICONV }, { "windows-31j", "cp932", ICONV }, { "iso-2022-jp", "iso-2022-jp-3", ICONV },
	{ "cp50220", "iso-2022-jp-3", ICONV }, { "cp50221", "iso-2022-jp-3", ICONV }, { "euc-jp", "euc-jp-ms", ICONV },
	{ "iso-8859-8-i", "iso-8859-8", ICONV }, { "iso-8859-8-e", "iso-8859-8", ICONV }, { "iso-8859-9", "windows-1254", ICONV },
	{ "windows-874", "cp874", ICONV }, { "tis-620", "cp874", ICONV }, { "iso-8859-11", "cp874", ICONV },
	{ "x-mac-roman", "macintosh", ICONV }, { "x-mac-cyrillic", "mac-cyrillic", ICONV }, { "unicode-1-1-utf-7", "utf-7", ICONV },
	{ "x-user-defined", "", LATIN }, { "cp-850", "cp850", ICONV }, { "cp-866", "cp866", ICONV },
};

/* --- a few open converters per thread --- */

struct cache {
	struct converter c[CACHE];
};

static pthread_key_t cache_key;
static pthread_once_t cache_once = PTHREAD_ONCE_INIT;

static void cache_free(void *v)
{
	struct cache *c = v;
	size_t i;

	for (i = 0; i < CACHE; i++)
		if (c->c[i].name[0])
			iconv_close(c->c[i].cd);
	free(c);
}

static void cache_start(void)
{
	if (pthread_key_create(&cache_key, cache_free))
		abort();
}

static struct cache *cache_mine(void)
{
	struct cache *c;

	pthread_once(&cache_once, cache_start);
	c = pthread_getspecific(cache_key);
	if (!c) {
		c = MEM_NEW(struct cache);
		pthread_setspecific(cache_key, c);
	}
	return c;
}

/* A converter for the iconv name; false when there is none. */
static bool converter_get(const char *name, struct mime_charset *cs)
{
	struct cache *c = cache_mine();
	struct converter *slot = NULL;
	size_t i;

	for (i = 0; i < CACHE; i++) {
		if (c->c[i].busy)
			continue;
		if (!strcmp(c->c[i].name, name)) {
			slot = &c->c[i];
			iconv(slot->cd, NULL, NULL, NULL, NULL);
			break;
		}
		if (!slot || !c->c[i].name[0])
			slot = &c->c[i];
	}
	if (i == CACHE) {
		iconv_t cd = iconv_open("UTF-8", name);

		if (cd == (iconv_t)-1)
			return false;
		if (!slot) {	/* all in use: one that is not kept */
			cs->cd = cd;
			return true;
		}
		if (slot->name[0])
			iconv_close(slot->cd);
		slot->cd = cd;
		snprintf(slot->name, sizeof(slot->name), "%s", name);
	}
	slot->busy = true;
	cs->conv = slot;
	cs->cd = slot->cd;
	return true;
}

/* --- names --- */

/* Lower case into name; false for what cannot be one ("//TRANSLIT" must not
 * reach iconv). */
static bool clean_name(const char *charset, char name[NAME_CAP])
{
	size_t i;

	for (i = 0; charset[i]; i++) {
		unsigned char c = ascii_lower((unsigned char)charset[i]);

		if (i + 1 >= NAME_CAP || !((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("-_.:+()", c)))
			return false;
		name[i] = (char)c;
	}
	name[i] = '\0';
	return true;
}

static enum how resolve(const char *charset, char name[NAME_CAP])
{
	size_t i;

	if (!clean_name(charset, name))
		return GUESS;
	for (i = 0; i < MEM_COUNT(aliases); i++) {
		if (strcmp(name, aliases[i].mail))
			continue;
		snprintf(name, NAME_CAP, "%s", aliases[i].iconv);
		return aliases[i].how;
	}
	return ICONV;
}

struct mime_charset *mime_charset_new(const char *charset)
{
	struct mime_charset *cs = MEM_NEW(struct mime_charset);
	char name[NAME_CAP];

	cs->how = resolve(charset, name);
	if (cs->how == ICONV && !converter_get(name, cs))
		cs->how = GUESS;
	return cs;
}

void mime_charset_free(struct mime_charset **csp)
{
	struct mime_charset *cs = *csp;

	if (!cs)
		return;
	if (cs->conv)
		cs->conv->busy = false;
	else if (cs->how == ICONV)
		iconv_close(cs->cd);
	free(cs);
	*csp = NULL;
}

bool mime_charset_known(const char *charset)
{
	struct mime_charset cs = { .how = GUESS };
	char name[NAME_CAP];
	enum how how;

	if (!charset[0] || !clean_name(charset, name))
		return false;
	how = resolve(charset, name);
	if (how != ICONV)
		return how != GUESS || !strcmp(charset, "646") || strcasestr(charset, "ascii") || strcasestr(charset, "ansi_x3.4");
	if (!converter_get(name, &cs))
		return false;
	if (cs.conv)
		cs.conv->busy = false;
	else
		iconv_close(cs.cd);
	return true;
}

/* --- conversion --- */

static const char replacement[] = "\xef\xbf\xbd";

static size_t feed_utf8(struct mime_charset *cs, const unsigned char *s, size_t len, struct buf *out, bool last)
{
	const unsigned char *end = s + len, *start = s, *first = s;
	size_t n;

	while ((s = utf8_skip_ascii(s, end)) < end) {
		n = utf8_length(s, (size_t)(end - s));
		if (n) {
			s += n;
			continue;
		}
		if (!last && utf8_cut(s, (size_t)(end - s)))
			break;
		buf_add(out, start, (size_t)(s - start));
		if (cs->how == UTF8)
			buf_add(out, replacement, 3);
		else
			utf8_put(out, *s < 0xa0 ? windows_1252[*s - 0x80] : *s);
		start = ++s;
	}
	buf_add(out, start, (size_t)(s - start));
	return (size_t)(s - first);
}

static void feed_latin(const unsigned char *s, size_t len, struct buf *out)
{
	const unsigned char *end = s + len, *start = s;

	while ((s = utf8_skip_ascii(s, end)) < end) {
		buf_add(out, start, (size_t)(s - start));
		utf8_put(out, *s < 0xa0 ? windows_1252[*s - 0x80] : *s);
		start = ++s;
	}
	buf_add(out, start, (size_t)(s - start));
}

/* Adds what iconv made.  It writes whole characters, but for some charsets
 * also such as lie beyond Unicode. */
static void add_converted(struct buf *out, const char *chunk, size_t len)
{
	const unsigned char *s = (const unsigned char *)chunk, *end = s + len;
	size_t n;

	if (mime_utf8_valid(chunk, len)) {
		buf_add(out, chunk, len);
		return;
	}
	for (; s < end; s += n) {
		n = utf8_length(s, (size_t)(end - s));
		if (n)
			buf_add(out, s, n);
		else
			buf_add(out, replacement, 3);
		n += !n;
	}
}

static size_t feed_iconv(struct mime_charset *cs, const unsigned char *s, size_t len, struct buf *out, bool last)
{
	char chunk[1024], *in = (char *)(uintptr_t)s, *o;
	size_t left = len, room;

	while (left) {
		o = chunk;
		room = sizeof(chunk);
		if (iconv(cs->cd, &in, &left, &o, &room) != (size_t)-1) {
			add_converted(out, chunk, (size_t)(o - chunk));
			continue;
		}
		add_converted(out, chunk, (size_t)(o - chunk));
		if (errno == E2BIG)
			continue;
		if (errno == EINVAL && !last && left < PENDING_MAX)
			break;
		buf_add(out, replacement, 3);
		in++;
		left--;
	}
	return len - left;
}

/* Gives how many bytes were taken; the rest is a cut character. */
static size_t convert(struct mime_charset *cs, const unsigned char *s, size_t len, struct buf *out, bool last)
{
	switch (cs->how) {
	case UTF8:
	case GUESS:
		return feed_utf8(cs, s, len, out, last);
	case LATIN:
		feed_latin(s, len, out);
		return len;
	default:
		return feed_iconv(cs, s, len, out, last);
	}
}

void mime_charset_feed(struct mime_charset *cs, const void *data, size_t len, struct buf *out)
{
	const unsigned char *s = data;
	size_t n;

	while (cs->n_pending && len) {		/* byte by byte until the cut character is whole */
		cs->pending[cs->n_pending++] = *s++;
		len--;
		n = convert(cs, cs->pending, cs->n_pending, out, cs->n_pending == PENDING_MAX);
		memmove(cs->pending, cs->pending + n, cs->n_pending - n);
		cs->n_pending -= n;
	}
	if (!len)
		return;
	n = convert(cs, s, len, out, false);
	cs->n_pending = len - n;
	memcpy(cs->pending, s + n, cs->n_pending);
}

void mime_charset_finish(struct mime_charset *cs, struct buf *out)
{
	char chunk[64], *o = chunk;
	size_t room = sizeof(chunk);

	if (cs->n_pending)
		convert(cs, cs->pending, cs->n_pending, out, true);
	cs->n_pending = 0;
	if (cs->how != ICONV)
		return;
	if (iconv(cs->cd, NULL, NULL, &o, &room) != (size_t)-1)
		add_converted(out, chunk, (size_t)(o - chunk));
}
