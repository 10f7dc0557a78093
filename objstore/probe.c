#include "objstore/probe-private.h"

#include "base/b64.h"
#include "base/mem.h"

#include <openssl/rand.h>
#include <unistd.h>

/* PATIENCE: so many requests in a row without an answer, or so long none, and the store cannot be tried now. */
enum { ROUNDS = 5, TIMED = 5, READS = 5, REFUSALS = 3, PATIENCE = 6, PATIENCE_US = 10000000, PAUSE_US = 20000, IN_A_ROW = 4, TRIES_MAX = 100 };

/* --- asking --- */

enum probe_shown probe_bad(struct probe *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->why, sizeof(p->why), fmt, ap);
	va_end(ap);
	return PROBE_SHOWED_BAD;
}

bool probe_holds(const struct probe *p, enum probe_check c)
{
	return p->r->state[c] == PROBE_HOLDS;
}

const char *probe_key(struct probe *p, const char *name)
{
	size_t i;

	snprintf(p->key, sizeof(p->key), "culver-probe/%s/%u-%s", p->id, p->turn, name);
	for (i = 0; i < p->n_used && strcmp(p->used[i], p->key); i++)
		;
	if (i == p->n_used && *name && name[strlen(name) - 1] != '/') {
		mem_grow(&p->used, &p->cap_used, p->n_used + 1, sizeof(*p->used));
		p->used[p->n_used++] = mem_strdup(p->key);
	}
	return p->key;
}

size_t probe_body(struct probe *p, char out[64])
{
	return (size_t)snprintf(out, 64, "culver probe %s %u", p->id, p->serial++);
}

bool probe_answered(struct probe *p, int rc, const struct err *e)
{
	int64_t now = clock_mono_us(&clock_system);
	bool later = rc == ERR_UNAVAILABLE || rc == ERR_TIMEOUT || rc == ERR_BUSY;

	if ((!later && rc != ERR_IO && rc != ERR_CLOSED) || sim_broken("probe-takes-silence-for-an-answer")) {
		p->unanswered = 0;
		p->heard_us = now;
		return true;
	}
	if (!later || ++p->unanswered == PATIENCE || now - p->heard_us > PATIENCE_US) {
		if (!p->rc)
			p->rc = err_set(p->err, rc, "%s", e->msg);
	} else {
		usleep(p->unanswered * PAUSE_US);
	}
	return false;
}

bool probe_tolerates(struct probe *p)
{
	if (++p->conflicts == PATIENCE || sim_broken("probe-tolerates-no-conflict"))
		return false;
	usleep(p->conflicts * PAUSE_US);
	return true;
}

bool probe_denied(struct probe *p, int rc, const struct err *e)
{
	if (rc == ERR_DENIED && !p->rc)
		p->rc = err_set(p->err, rc, "%s", e->msg);
	return rc == ERR_DENIED;
}

int probe_put(struct probe *p, const char *name, enum objstore_cond cond, char *etag, char text[64], struct err *e)
{
	size_t len = probe_body(p, text);
	int rc;

	err_clear(e);
	rc = objstore_put(p->s, probe_key(p, name), text, len, cond, etag, e);
	if (rc == 0)
		p->conflicts = 0;
	probe_denied(p, rc, e);
	return rc;
}

enum probe_shown probe_reads(struct probe *p, const char *name, const char *text, char *etag)
{
	struct buf b = BUF_INIT(4096);
	struct err e = ERR_INIT;
	int rc = objstore_get(p->s, probe_key(p, name), &b, etag, &e);
	bool yes = text ? rc == 0 && !strcmp(buf_str(&b), text) : rc == ERR_NOTFOUND;

	buf_free(&b);
	if (probe_denied(p, rc, &e) || !probe_answered(p, rc, &e))
		return PROBE_SHOWED_NOTHING;
	return yes ? PROBE_SHOWED_GOOD : PROBE_SHOWED_BAD;
}

/* A conditional put was refused.  By itself, carried out a moment ago (GOOD), or for nothing (NOTHING, as long as that is tolerated)? */
static enum probe_shown refused(struct probe *p, const char *name, const char *text, char *etag)
{
	enum probe_shown mine = probe_reads(p, name, text, etag);

	return mine == PROBE_SHOWED_BAD && probe_tolerates(p) ? PROBE_SHOWED_NOTHING : mine;
}

enum probe_shown probe_make(struct probe *p, const char *name, char *etag, char text[64])
{
	struct err e = ERR_INIT;
	int rc = probe_put(p, name, probe_holds(p, PROBE_CREATE) ? OBJ_CREATE : OBJ_ANY, etag, text, &e);

	if (rc == 0)
		return PROBE_SHOWED_GOOD;
	if (!probe_answered(p, rc, &e))
		return PROBE_SHOWED_NOTHING;
	if ((rc == ERR_EXISTS || rc == ERR_CONFLICT) && refused(p, name, text, etag) != PROBE_SHOWED_BAD)
		return PROBE_SHOWED_NOTHING;	/* another one is made, of which all is known */
	return probe_bad(p, "put: %.200s", e.msg);
}

enum probe_shown probe_swap(struct probe *p, const char *name, char *etag, char text[64])
{
	struct err e = ERR_INIT;
	int rc = probe_put(p, name, OBJ_MATCH, etag, text, &e);
	enum probe_shown mine;

	if (rc == 0)
		return PROBE_SHOWED_GOOD;
	if (!probe_answered(p, rc, &e))
		return PROBE_SHOWED_NOTHING;
	if (rc != ERR_CONFLICT)
		return probe_bad(p, "writes with If-Match are refused: %.180s", e.msg);
	mine = refused(p, name, text, etag);
	return mine == PROBE_SHOWED_BAD ? probe_bad(p, "If-Match with the current ETag is refused, with quotes and without") : mine;
}

/* --- a check --- */

/* Tried until it was well so many times, or bad so often in a row that it is no chance: 1 where nothing but the store explains it. */
static void check(struct probe *p, enum probe_check c, probe_try *try, unsigned good, unsigned bad)
{
	unsigned well = 0, ill = 0, tries = 0;

	while (!p->rc && p->r->state[c] == PROBE_NOT_TRIED) {
		enum probe_shown shown;

		if (tries++ == TRIES_MAX) {
			p->rc = err_set(p->err, ERR_UNAVAILABLE, "object store: \"%s\" cannot be tried: too few requests are answered", probe_check_title(c));
			break;
		}
		p->turn++;
		shown = try(p, c);
		if (p->rc || shown == PROBE_SHOWED_NOTHING)
			continue;
		ill = shown == PROBE_SHOWED_GOOD ? 0 : ill + 1;
		well += shown == PROBE_SHOWED_GOOD;
		if (ill == bad) {
			p->r->state[c] = PROBE_FAILS;
			memcpy(p->r->text[c], p->why, sizeof(p->r->text[c]));
		} else if (well == good) {
			p->r->state[c] = PROBE_HOLDS;
		}
	}
}

static void check_all(struct probe *p, unsigned rounds)
{
	check(p, PROBE_CREATE, probe_try_create, 1, 1);
	check(p, PROBE_MATCH, probe_try_match, 1, 1);
	if (probe_holds(p, PROBE_MATCH))
		check(p, PROBE_STALE, probe_try_stale, REFUSALS, 1);	/* one conflict may be of another kind */
	/* without conditions an older put may come late and again */
	check(p, PROBE_READ, probe_try_read, READS, probe_holds(p, PROBE_CREATE) && probe_holds(p, PROBE_STALE) ? 1 : IN_A_ROW);
	if (probe_holds(p, PROBE_CREATE))
		check(p, PROBE_CREATE_RACE, probe_try_race, rounds, 1);
	if (probe_holds(p, PROBE_STALE))
		check(p, PROBE_MATCH_RACE, probe_try_race, rounds, 1);
	check(p, PROBE_RANGE, probe_try_range, 1, 1);
	check(p, PROBE_LIST, probe_try_list, 1, 1);
	/* what is put once more, late, is there again */
	check(p, PROBE_DELETE, probe_try_delete, 1, IN_A_ROW);
	check(p, PROBE_DELETE_MANY, probe_try_delete_many, 1, IN_A_ROW);
	check(p, PROBE_COPY, probe_try_copy, 1, 1);
}

/* --- times --- */

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void measure(struct probe *p)
{
	uint64_t put_us[TIMED], get_us[TIMED];
	struct buf b = BUF_INIT(4096);
	char text[64];
	int64_t t;
	int i;

	p->turn++;
	for (i = 0; i < TIMED; i++) {
		t = clock_mono_us(&clock_system);
		objstore_put(p->s, probe_key(p, "time"), text, probe_body(p, text), OBJ_ANY, NULL, NULL);
		put_us[i] = (uint64_t)(clock_mono_us(&clock_system) - t);
		t = clock_mono_us(&clock_system);
		objstore_get(p->s, probe_key(p, "time"), &b, NULL, NULL);
		get_us[i] = (uint64_t)(clock_mono_us(&clock_system) - t);
		buf_clear(&b);
	}
	buf_free(&b);
	qsort(put_us, TIMED, sizeof(*put_us), by_number);
	qsort(get_us, TIMED, sizeof(*get_us), by_number);
	p->r->put_us = put_us[TIMED / 2];
	p->r->get_us = get_us[TIMED / 2];
}

/* --- the whole --- */

static void clean(struct probe *p)
{
	size_t i;

	if (p->n_used)
		objstore_delete_many(p->s, (const char *const *)p->used, p->n_used, NULL);
	for (i = 0; i < p->n_used; i++)
		free(p->used[i]);
	free(p->used);
}

static unsigned caps(const struct probe *p)
{
	return (probe_holds(p, PROBE_CREATE) && probe_holds(p, PROBE_CREATE_RACE) ? OBJ_CAP_CREATE : 0) |
	       (probe_holds(p, PROBE_MATCH) && probe_holds(p, PROBE_STALE) && probe_holds(p, PROBE_MATCH_RACE) ? OBJ_CAP_MATCH : 0) |
	       (probe_holds(p, PROBE_RANGE) ? OBJ_CAP_RANGE : 0) | (probe_holds(p, PROBE_LIST) ? OBJ_CAP_LIST : 0) |
	       (probe_holds(p, PROBE_COPY) ? OBJ_CAP_COPY : 0) | (probe_holds(p, PROBE_DELETE_MANY) ? p->s->caps & OBJ_CAP_DELETE_MANY : 0) |
	       (p->s->caps & (OBJ_CAP_LAZY | OBJ_CAP_LOCK | OBJ_CAP_REMOTE));
}

int probe_run(struct objstore *s, const char *store, unsigned rounds, struct probe_result *r, struct err *err)
{
	struct probe p = { .s = s, .r = r, .err = err, .heard_us = clock_mono_us(&clock_system) };
	struct objstore_stats st;
	unsigned char id[8];

	memset(r, 0, sizeof(*r));
	snprintf(r->store, sizeof(r->store), "%s", store);
	r->time = clock_wall_s(&clock_system);
	RAND_bytes(id, sizeof(id));
	hex_encode(p.id, id, sizeof(id));
	check_all(&p, rounds ? rounds : ROUNDS);
	if (!p.rc)
		measure(&p);
	clean(&p);
	if (objstore_stats(s, &st))
		r->etag_form = st.etag_form;
	if (r->etag_form == 2 && probe_holds(&p, PROBE_MATCH))
		snprintf(r->text[PROBE_MATCH], sizeof(r->text[PROBE_MATCH]), "the ETag goes without quotes");
	r->caps = caps(&p);
	return p.rc;
}
