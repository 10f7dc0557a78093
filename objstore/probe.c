#include "objstore/probe.h"

#include "base/b64.h"
#include "base/mem.h"

#include <openssl/rand.h>
#include <pthread.h>

enum { ROUNDS = 5, TIMED = 5, ID = 17 };

struct probe {
	struct objstore *s;
	struct probe_result *r;
	struct err *err;
	char id[ID];			/* of this run */
	unsigned serial;		/* makes every body its own */
	char key[128];
	char **used;			/* keys of objects there may be: not every store can list them */
	size_t n_used, cap_used;
	int rc;				/* <0: the store cannot be tried */
};

/* --- small things --- */

static const char *key(struct probe *p, const char *name)
{
	size_t i;

	snprintf(p->key, sizeof(p->key), "culver-probe/%s/%s", p->id, name);
	for (i = 0; i < p->n_used && strcmp(p->used[i], p->key); i++)
		;
	if (i == p->n_used && *name && name[strlen(name) - 1] != '/') {
		mem_grow(&p->used, &p->cap_used, p->n_used + 1, sizeof(*p->used));
		p->used[p->n_used++] = mem_strdup(p->key);
	}
	return p->key;
}

static void holds(struct probe *p, enum probe_check c)
{
	if (p->r->state[c] == PROBE_NOT_TRIED)
		p->r->state[c] = PROBE_HOLDS;
}

static void fails(struct probe *p, enum probe_check c, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void fails(struct probe *p, enum probe_check c, const char *fmt, ...)
{
	va_list ap;

	if (p->r->state[c] == PROBE_FAILS)
		return;
	p->r->state[c] = PROBE_FAILS;
	va_start(ap, fmt);
	vsnprintf(p->r->text[c], sizeof(p->r->text[c]), fmt, ap);
	va_end(ap);
}

/* An error that says nothing of the capability ends the probe. */
static bool unusable(struct probe *p, int rc, const struct err *e)
{
	if (rc != ERR_UNAVAILABLE && rc != ERR_TIMEOUT && rc != ERR_DENIED && rc != ERR_BUSY && rc != ERR_IO && rc != ERR_CLOSED)
		return false;
	if (!p->rc)
		p->rc = err_set(p->err, rc, "%s", e->msg);
	return true;
}

static size_t body(struct probe *p, char out[64])
{
	return (size_t)snprintf(out, 64, "culver probe %s %u", p->id, p->serial++);
}

static int put(struct probe *p, const char *name, enum objstore_cond cond, char *etag, char text[64], struct err *e)
{
	size_t len = body(p, text);
	int rc;

	err_clear(e);
	rc = objstore_put(p->s, key(p, name), text, len, cond, etag, e);
	unusable(p, rc, e);
	return rc;
}

/* Does the object hold text?  NULL: is it absent? */
static bool reads(struct probe *p, const char *name, const char *text)
{
	struct buf b = BUF_INIT(4096);
	struct err e = ERR_INIT;
	int rc = objstore_get(p->s, key(p, name), &b, NULL, &e);
	bool yes = text ? rc == 0 && !strcmp(buf_str(&b), text) : rc == ERR_NOTFOUND;

	unusable(p, rc, &e);
	buf_free(&b);
	return yes;
}

/* --- the checks --- */

static void check_read(struct probe *p)
{
	char text[64], name[16];
	struct err e = ERR_INIT;
	int i;

	for (i = 0; i < 5 && !p->rc; i++) {
		snprintf(name, sizeof(name), "read%d", i);
		if (!reads(p, name, NULL))
			fails(p, PROBE_READ, "an object that was never put is there");
		if (put(p, name, OBJ_ANY, NULL, text, &e) < 0)
			fails(p, PROBE_READ, "put: %.200s", e.msg);
		else if (!reads(p, name, text))
			fails(p, PROBE_READ, "an object is not there right after it was put: the store answers from a cache");
		if (put(p, name, OBJ_ANY, NULL, text, &e) == 0 && !reads(p, name, text))
			fails(p, PROBE_READ, "an overwritten object still reads as before");
	}
	holds(p, PROBE_READ);
}

static void refused(struct probe *p, enum probe_check c, const char *header, const struct err *e)
{
	fails(p, c, "writes with %s are refused: %.180s", header, e->msg);
}

static void check_create(struct probe *p)
{
	char first[64], second[64], etag[OBJ_ETAG_MAX] = "";
	struct err e = ERR_INIT;
	int rc = put(p, "create", OBJ_CREATE, etag, first, &e);

	if (rc < 0) {
		refused(p, PROBE_CREATE, "If-None-Match: *", &e);
		return;
	}
	rc = put(p, "create", OBJ_CREATE, NULL, second, &e);
	if (rc == 0)
		fails(p, PROBE_CREATE, "If-None-Match: * is ignored: an object could be created twice");
	else if (rc != ERR_EXISTS)
		fails(p, PROBE_CREATE, "a second create is answered with: %.180s", e.msg);
	else if (!reads(p, "create", first))
		fails(p, PROBE_CREATE, "a create that was refused changed the object");
	holds(p, PROBE_CREATE);
}

static void check_match(struct probe *p)
{
	char text[64], other[64], etag[OBJ_ETAG_MAX] = "", old[OBJ_ETAG_MAX];
	struct err e = ERR_INIT;
	int rc;

	if (put(p, "match", OBJ_ANY, etag, text, &e) < 0 || !*etag) {
		fails(p, PROBE_MATCH, "put gives no ETag");
		return;
	}
	memcpy(old, etag, sizeof(old));
	rc = put(p, "match", OBJ_MATCH, etag, text, &e);
	if (rc == ERR_CONFLICT)
		fails(p, PROBE_MATCH, "If-Match with the current ETag is refused, with quotes and without");
	else if (rc < 0)
		refused(p, PROBE_MATCH, "If-Match", &e);
	holds(p, PROBE_MATCH);
	if (rc < 0)
		return;
	rc = put(p, "match", OBJ_MATCH, old, other, &e);
	if (rc == 0)
		fails(p, PROBE_STALE, "If-Match is ignored: a write with an old ETag was taken");
	else if (rc != ERR_CONFLICT)
		fails(p, PROBE_STALE, "a write with an old ETag is answered with: %.160s", e.msg);
	else if (!reads(p, "match", text))
		fails(p, PROBE_STALE, "a write that was refused changed the object");
	memcpy(old, etag, sizeof(old));
	rc = put(p, "match-absent", OBJ_MATCH, old, other, &e);
	if (rc == 0 || !reads(p, "match-absent", NULL))
		fails(p, PROBE_STALE, "If-Match on an absent object creates it");
	holds(p, PROBE_STALE);
}

/* --- races --- */

struct racer {
	struct probe *p;
	const char *key;
	pthread_mutex_t *gate;		/* shut until all are there */
	enum objstore_cond cond;
	char etag[OBJ_ETAG_MAX], text[64];
	int rc;
	struct err err;
};

static void *race(void *arg)
{
	struct racer *r = arg;

	pthread_mutex_lock(r->gate);
	pthread_mutex_unlock(r->gate);
	r->rc = objstore_put(r->p->s, r->key, r->text, strlen(r->text), r->cond, r->etag, &r->err);
	return NULL;
}

static void judge_round(struct probe *p, enum probe_check c, const struct racer *r, const char *name)
{
	int i, won = 0, who = -1;

	for (i = 0; i < PROBE_RACERS; i++) {
		if (r[i].rc == 0) {
			won++;
			who = i;
		} else if (r[i].rc != ERR_EXISTS && r[i].rc != ERR_CONFLICT && r[i].rc != ERR_TIMEOUT && r[i].rc != ERR_BUSY) {
			if (!unusable(p, r[i].rc, &r[i].err))
				fails(p, c, "one of %d racing writers is answered with: %.140s", PROBE_RACERS, r[i].err.msg);
		}
	}
	if (won > 1)
		fails(p, c, "%d of %d racing writers were told that they had won: the store checks and then writes", won, PROBE_RACERS);
	else if (won == 1 && !reads(p, name, r[who].text))
		fails(p, c, "the object is not that of the writer who was told that it had won");
}

static void race_round(struct probe *p, enum probe_check c, unsigned round)
{
	struct racer *r = mem_calloc(PROBE_RACERS, sizeof(*r));
	char name[32], own_key[128], etag[OBJ_ETAG_MAX] = "", text[64];
	pthread_t thread[PROBE_RACERS];
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	struct err e = ERR_INIT;
	int i, n = 0;

	snprintf(name, sizeof(name), "race%d-%u", (int)c, round);
	if (c == PROBE_MATCH_RACE)
		put(p, name, OBJ_ANY, etag, text, &e);
	snprintf(own_key, sizeof(own_key), "%s", key(p, name));
	pthread_mutex_lock(&gate);
	for (i = 0; i < PROBE_RACERS; i++) {
		r[i] = (struct racer){ .p = p, .key = own_key, .gate = &gate, .cond = c == PROBE_MATCH_RACE ? OBJ_MATCH : OBJ_CREATE };
		memcpy(r[i].etag, etag, sizeof(etag));
		body(p, r[i].text);
	}
	while (n < PROBE_RACERS && pthread_create(&thread[n], NULL, race, &r[n]) == 0)
		n++;
	pthread_mutex_unlock(&gate);
	for (i = n; i < PROBE_RACERS; i++)	/* no threads left */
		race(&r[i]);
	for (i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
	judge_round(p, c, r, name);
	free(r);
}

static void check_race(struct probe *p, enum probe_check c, unsigned rounds)
{
	unsigned i;

	for (i = 0; i < rounds && !p->rc && p->r->state[c] == PROBE_NOT_TRIED; i++)
		race_round(p, c, i);
	holds(p, c);
}

/* --- the rest of the checks --- */

static void check_range(struct probe *p)
{
	struct buf b = BUF_INIT(4096);
	struct err e = ERR_INIT;
	uint64_t size = 0;
	char text[64];

	put(p, "range", OBJ_ANY, NULL, text, &e);
	if (objstore_get_range(p->s, key(p, "range"), 7, 5, &b, &size, &e) < 0)
		fails(p, PROBE_RANGE, "a ranged get is answered with: %.180s", e.msg);
	else if (b.len != 5 || memcmp(b.data, "probe", 5) != 0 || size != strlen(text))
		fails(p, PROBE_RANGE, "a ranged get gives other bytes");
	buf_clear(&b);
	if (objstore_get_range(p->s, key(p, "range"), 4000, 5, &b, &size, &e) < 0 || b.len)
		fails(p, PROBE_RANGE, "a range behind the end is not answered as it should be: %.150s", e.msg);
	buf_free(&b);
	holds(p, PROBE_RANGE);
}

static void check_list(struct probe *p)
{
	struct objstore_list_item *items = NULL;
	char text[64], prefix[128], after[128];
	struct err e = ERR_INIT;
	size_t n = 0;

	put(p, "list/b", OBJ_ANY, NULL, text, &e);
	put(p, "list/a+1", OBJ_ANY, NULL, text, &e);
	put(p, "list/c", OBJ_ANY, NULL, text, &e);
	snprintf(after, sizeof(after), "%s", key(p, "list/a+1"));
	snprintf(prefix, sizeof(prefix), "%s", key(p, "list/"));
	if (objstore_list(p->s, prefix, after, 10, &items, &n, &e) < 0)
		fails(p, PROBE_LIST, "listing is answered with: %.180s", e.msg);
	else if (n != 2 || strcmp(items[0].key + strlen(prefix), "b") || strcmp(items[1].key + strlen(prefix), "c"))
		fails(p, PROBE_LIST, "a listing lacks objects that were just put, or is not in order");
	objstore_items_free(items, n);
	holds(p, PROBE_LIST);
}

static void check_delete(struct probe *p)
{
	char text[64], a[128], b[128];
	const char *both[2] = { a, b };
	struct err e = ERR_INIT;

	put(p, "delete", OBJ_ANY, NULL, text, &e);
	if (objstore_delete(p->s, key(p, "delete"), &e) < 0)
		fails(p, PROBE_DELETE, "delete is answered with: %.180s", e.msg);
	else if (!reads(p, "delete", NULL))
		fails(p, PROBE_DELETE, "a deleted object can still be read");
	holds(p, PROBE_DELETE);
	put(p, "delete1", OBJ_ANY, NULL, text, &e);
	put(p, "delete2", OBJ_ANY, NULL, text, &e);
	snprintf(a, sizeof(a), "%s", key(p, "delete1"));
	snprintf(b, sizeof(b), "%s", key(p, "delete2"));
	err_clear(&e);
	if (objstore_delete_many(p->s, both, 2, &e) < 0)
		fails(p, PROBE_DELETE_MANY, "deleting many is answered with: %.180s", e.msg);
	else if (!reads(p, "delete1", NULL) || !reads(p, "delete2", NULL))
		fails(p, PROBE_DELETE_MANY, "after deleting many some can still be read");
	holds(p, PROBE_DELETE_MANY);
}

static void check_copy(struct probe *p)
{
	char text[64], from[128], to[128];
	struct err e = ERR_INIT;
	int rc;

	put(p, "copy", OBJ_ANY, NULL, text, &e);
	snprintf(from, sizeof(from), "%s", key(p, "copy"));
	snprintf(to, sizeof(to), "%s", key(p, "copied"));
	rc = objstore_copy(p->s, from, to, &e);
	if (rc < 0)
		fails(p, PROBE_COPY, "copy is answered with: %.180s", e.msg);
	else if (!reads(p, "copied", text))
		fails(p, PROBE_COPY, "a copy has other bytes");
	holds(p, PROBE_COPY);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void measure(struct probe *p)
{
	uint64_t put_us[TIMED], get_us[TIMED];
	struct err e = ERR_INIT;
	int64_t t;
	char text[64];
	int i;

	for (i = 0; i < TIMED; i++) {
		t = clock_mono_us(&clock_system);
		put(p, "time", OBJ_ANY, NULL, text, &e);
		put_us[i] = (uint64_t)(clock_mono_us(&clock_system) - t);
		t = clock_mono_us(&clock_system);
		reads(p, "time", text);
		get_us[i] = (uint64_t)(clock_mono_us(&clock_system) - t);
	}
	qsort(put_us, TIMED, sizeof(*put_us), by_number);
	qsort(get_us, TIMED, sizeof(*get_us), by_number);
	p->r->put_us = put_us[TIMED / 2];
	p->r->get_us = get_us[TIMED / 2];
}

static void clean(struct probe *p)
{
	size_t i;

	if (p->n_used)
		objstore_delete_many(p->s, (const char *const *)p->used, p->n_used, NULL);
	for (i = 0; i < p->n_used; i++)
		free(p->used[i]);
	free(p->used);
}

static bool ok(const struct probe_result *r, enum probe_check c)
{
	return r->state[c] == PROBE_HOLDS;
}

int probe_run(struct objstore *s, const char *store, unsigned rounds, struct probe_result *r, struct err *err)
{
	struct probe p = { .s = s, .r = r, .err = err };
	struct objstore_stats st;
	unsigned char id[8];

	memset(r, 0, sizeof(*r));
	snprintf(r->store, sizeof(r->store), "%s", store);
	r->time = clock_wall_s(&clock_system);
	RAND_bytes(id, sizeof(id));
	hex_encode(p.id, id, sizeof(id));
	if (!rounds)
		rounds = ROUNDS;
	check_read(&p);
	if (!p.rc)
		check_create(&p);
	if (!p.rc && ok(r, PROBE_CREATE))
		check_race(&p, PROBE_CREATE_RACE, rounds);
	if (!p.rc)
		check_match(&p);
	if (!p.rc && ok(r, PROBE_STALE))
		check_race(&p, PROBE_MATCH_RACE, rounds);
	if (!p.rc) {
		check_range(&p);
		check_list(&p);
		check_delete(&p);
		check_copy(&p);
		measure(&p);
	}
	clean(&p);
	if (objstore_stats(s, &st))
		r->etag_form = st.etag_form;
	if (r->etag_form == 2 && ok(r, PROBE_MATCH))
		snprintf(r->text[PROBE_MATCH], sizeof(r->text[PROBE_MATCH]), "the ETag goes without quotes");
	r->caps = (ok(r, PROBE_CREATE) && ok(r, PROBE_CREATE_RACE) ? OBJ_CAP_CREATE : 0) |
		  (ok(r, PROBE_MATCH) && ok(r, PROBE_STALE) && ok(r, PROBE_MATCH_RACE) ? OBJ_CAP_MATCH : 0) |
		  (ok(r, PROBE_RANGE) ? OBJ_CAP_RANGE : 0) | (ok(r, PROBE_LIST) ? OBJ_CAP_LIST : 0) | (ok(r, PROBE_COPY) ? OBJ_CAP_COPY : 0) |
		  (ok(r, PROBE_DELETE_MANY) ? s->caps & OBJ_CAP_DELETE_MANY : 0) | (s->caps & (OBJ_CAP_LAZY | OBJ_CAP_LOCK | OBJ_CAP_REMOTE));
	return p.rc;
}
