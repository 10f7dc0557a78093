/* The single tries.  Each has names of its own (probe_key) and says what it showed;
 * how often it has to show that is check() in probe.c. */
#include "objstore/probe-private.h"

#include "base/mem.h"

#include <pthread.h>

enum { LOOKS = 6 };	/* at what was overwritten or deleted: copies may be behind, one of several */

/* Ends a try that did not show what it has to. */
#define NEEDS(shown) do { enum probe_shown shown_ = (shown); if (shown_ != PROBE_SHOWED_GOOD) return shown_; } while (0)
/* The same with the reason for BAD. */
#define NEEDS_OR(shown, ...) do { \
	enum probe_shown shown_ = (shown); \
	if (shown_ != PROBE_SHOWED_GOOD) \
		return shown_ == PROBE_SHOWED_BAD ? probe_bad(p, __VA_ARGS__) : shown_; \
} while (0)

/* --- what is put is there --- */

static enum probe_shown overwrite(struct probe *p, const char *name, char *etag, char text[64])
{
	struct err e = ERR_INIT;
	int rc;

	if (probe_holds(p, PROBE_CREATE) && probe_holds(p, PROBE_STALE)) {
		enum probe_shown shown = probe_swap(p, name, etag, text);

		return shown == PROBE_SHOWED_BAD ? PROBE_SHOWED_NOTHING : shown;
	}
	rc = probe_put(p, name, OBJ_ANY, NULL, text, &e);
	if (rc == 0)
		return PROBE_SHOWED_GOOD;
	return probe_answered(p, rc, &e) ? probe_bad(p, "put: %.200s", e.msg) : PROBE_SHOWED_NOTHING;
}

enum probe_shown probe_try_read(struct probe *p, enum probe_check c)
{
	char text[64], etag[OBJ_ETAG_MAX] = "";
	int i;

	NEEDS_OR(probe_reads(p, "read", NULL, NULL), "an object that was never put is there");
	NEEDS(probe_make(p, "read", etag, text));
	NEEDS_OR(probe_reads(p, "read", text, NULL), "an object is not there right after it was put: the store answers from a cache");
	if (sim_broken("probe-never-overwrites"))
		return PROBE_SHOWED_GOOD;
	NEEDS(overwrite(p, "read", etag, text));
	for (i = 0; i < LOOKS; i++)
		NEEDS_OR(probe_reads(p, "read", text, NULL), "an overwritten object still reads as before");
	return PROBE_SHOWED_GOOD;
}

/* --- conditions --- */

enum probe_shown probe_try_create(struct probe *p, enum probe_check c)
{
	char first[64], second[64];
	struct err e = ERR_INIT;
	int rc = probe_put(p, "create", OBJ_CREATE, NULL, first, &e);

	if (rc < 0 && !probe_answered(p, rc, &e))
		return PROBE_SHOWED_NOTHING;
	if (rc == ERR_EXISTS && probe_reads(p, "create", first, NULL) != PROBE_SHOWED_BAD)
		return PROBE_SHOWED_NOTHING;	/* carried out twice: it met itself */
	if (rc == ERR_CONFLICT && probe_tolerates(p))
		return PROBE_SHOWED_NOTHING;
	if (rc < 0)
		return probe_bad(p, "writes with If-None-Match: * are refused: %.180s", e.msg);
	rc = probe_put(p, "create", OBJ_CREATE, NULL, second, &e);
	if (rc == 0)
		return probe_bad(p, "If-None-Match: * is ignored: an object could be created twice");
	if (!probe_answered(p, rc, &e) || (rc == ERR_CONFLICT && probe_tolerates(p)))
		return PROBE_SHOWED_NOTHING;
	if (rc != ERR_EXISTS)
		return probe_bad(p, "a second create is answered with: %.180s", e.msg);
	NEEDS_OR(probe_reads(p, "create", first, NULL), "a create that was refused changed the object");
	return PROBE_SHOWED_GOOD;
}

enum probe_shown probe_try_match(struct probe *p, enum probe_check c)
{
	char text[64], etag[OBJ_ETAG_MAX] = "";

	NEEDS(probe_make(p, "match", etag, text));
	if (!*etag)
		return probe_bad(p, "put gives no ETag");
	return probe_swap(p, "match", etag, text);
}

enum probe_shown probe_try_stale(struct probe *p, enum probe_check c)
{
	char text[64], other[64], etag[OBJ_ETAG_MAX] = "", old[OBJ_ETAG_MAX];
	struct err e = ERR_INIT;
	int rc;

	NEEDS(probe_make(p, "match", etag, text));
	memcpy(old, etag, sizeof(old));
	NEEDS(probe_swap(p, "match", etag, text));
	memcpy(etag, old, sizeof(etag));
	rc = probe_put(p, "match", OBJ_MATCH, etag, other, &e);
	if (rc == 0)
		return probe_bad(p, "If-Match is ignored: a write with an old ETag was taken");
	if (!probe_answered(p, rc, &e))
		return PROBE_SHOWED_NOTHING;
	if (rc != ERR_CONFLICT)
		return probe_bad(p, "a write with an old ETag is answered with: %.160s", e.msg);
	NEEDS_OR(probe_reads(p, "match", text, NULL), "after a write that was refused the object does not read as before it");
	memcpy(etag, old, sizeof(etag));
	rc = probe_put(p, "match-absent", OBJ_MATCH, etag, other, &e);
	if (rc == 0)
		return probe_bad(p, "If-Match on an absent object creates it");
	if (!probe_answered(p, rc, &e))
		return PROBE_SHOWED_NOTHING;
	NEEDS_OR(probe_reads(p, "match-absent", NULL, NULL), "If-Match on an absent object creates it");
	return PROBE_SHOWED_GOOD;
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

static bool heard_of(const struct racer *r)
{
	return r->rc != ERR_TIMEOUT && r->rc != ERR_BUSY && r->rc != ERR_UNAVAILABLE;
}

static enum probe_shown judge_race(struct probe *p, const struct racer *r)
{
	int i, won = 0, who = -1, heard = 0, silent = -1;

	for (i = 0; i < PROBE_RACERS; i++) {
		if (!heard_of(&r[i])) {
			silent = i;
			continue;
		}
		heard++;
		if (r[i].rc == 0) {
			won++;
			who = i;
		} else if (r[i].rc != ERR_EXISTS && r[i].rc != ERR_CONFLICT) {
			if (probe_denied(p, r[i].rc, &r[i].err) || !probe_answered(p, r[i].rc, &r[i].err))
				return PROBE_SHOWED_NOTHING;
			return probe_bad(p, "one of %d racing writers is answered with: %.140s", PROBE_RACERS, r[i].err.msg);
		}
	}
	if (won > 1 && !sim_broken("probe-sees-no-race"))
		return probe_bad(p, "%d of %d racing writers were told that they had won: the store checks and then writes", won, PROBE_RACERS);
	if (won == 1)
		NEEDS_OR(probe_reads(p, "race", r[who].text, NULL), "the object is not that of the writer who was told that it had won");
	if (heard >= PROBE_RACERS / 2)
		return PROBE_SHOWED_GOOD;
	probe_answered(p, r[silent].rc, &r[silent].err);	/* so few of them were no race */
	return PROBE_SHOWED_NOTHING;
}

static void run_race(struct probe *p, struct racer *r, enum objstore_cond cond, const char *etag)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	pthread_t thread[PROBE_RACERS];
	char key[128];
	int i, n = 0;

	snprintf(key, sizeof(key), "%s", probe_key(p, "race"));
	pthread_mutex_lock(&gate);
	for (i = 0; i < PROBE_RACERS; i++) {
		r[i] = (struct racer){ .p = p, .key = key, .gate = &gate, .cond = cond };
		snprintf(r[i].etag, sizeof(r[i].etag), "%s", etag);
		probe_body(p, r[i].text);
	}
	while (n < PROBE_RACERS && pthread_create(&thread[n], NULL, race, &r[n]) == 0)
		n++;
	pthread_mutex_unlock(&gate);
	for (i = n; i < PROBE_RACERS; i++)	/* no threads left */
		race(&r[i]);
	for (i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
}

enum probe_shown probe_try_race(struct probe *p, enum probe_check c)
{
	char etag[OBJ_ETAG_MAX] = "", text[64];
	enum probe_shown shown;
	struct racer *r;

	if (c == PROBE_MATCH_RACE)
		NEEDS(probe_make(p, "race", etag, text));
	r = mem_calloc(PROBE_RACERS, sizeof(*r));
	run_race(p, r, c == PROBE_MATCH_RACE ? OBJ_MATCH : OBJ_CREATE, etag);
	shown = judge_race(p, r);
	free(r);
	return shown;
}

/* --- the rest --- */

enum probe_shown probe_try_range(struct probe *p, enum probe_check c)
{
	struct buf b = BUF_INIT(4096);
	struct err e = ERR_INIT;
	uint64_t size = 0;
	char text[64];
	bool same;
	int rc;

	NEEDS(probe_make(p, "range", NULL, text));
	rc = objstore_get_range(p->s, probe_key(p, "range"), 7, 5, &b, &size, &e);
	same = b.len == 5 && memcmp(b.data, "probe", 5) == 0 && size == strlen(text);
	buf_free(&b);
	if (rc < 0)
		return probe_answered(p, rc, &e) ? probe_bad(p, "a ranged get is answered with: %.180s", e.msg) : PROBE_SHOWED_NOTHING;
	if (!same)
		return probe_bad(p, "a ranged get gives other bytes");
	rc = objstore_get_range(p->s, probe_key(p, "range"), 4000, 5, &b, &size, &e);
	same = b.len == 0;
	buf_free(&b);
	if (rc < 0 && !probe_answered(p, rc, &e))
		return PROBE_SHOWED_NOTHING;
	return rc == 0 && same ? PROBE_SHOWED_GOOD : probe_bad(p, "a range behind the end is not answered as it should be: %.150s", e.msg);
}

enum probe_shown probe_try_list(struct probe *p, enum probe_check c)
{
	struct objstore_list_item *items = NULL;
	char text[64], prefix[128], after[128];
	struct err e = ERR_INIT;
	bool right;
	size_t n = 0;
	int rc;

	NEEDS(probe_make(p, "list/b", NULL, text));
	NEEDS(probe_make(p, "list/a+1", NULL, text));
	NEEDS(probe_make(p, "list/c", NULL, text));
	snprintf(after, sizeof(after), "%s", probe_key(p, "list/a+1"));
	snprintf(prefix, sizeof(prefix), "%s", probe_key(p, "list/"));
	rc = objstore_list(p->s, prefix, after, 10, &items, &n, &e);
	right = rc == 0 && n == 2 && !strcmp(items[0].key + strlen(prefix), "b") && !strcmp(items[1].key + strlen(prefix), "c");
	objstore_items_free(items, n);
	if (rc < 0)
		return probe_answered(p, rc, &e) ? probe_bad(p, "listing is answered with: %.180s", e.msg) : PROBE_SHOWED_NOTHING;
	return right ? PROBE_SHOWED_GOOD : probe_bad(p, "a listing lacks objects that were just put, or is not in order");
}

enum probe_shown probe_try_delete(struct probe *p, enum probe_check c)
{
	char text[64];
	struct err e = ERR_INIT;
	int rc, i;

	NEEDS(probe_make(p, "delete", NULL, text));
	rc = objstore_delete(p->s, probe_key(p, "delete"), &e);
	if (rc < 0)
		return probe_answered(p, rc, &e) ? probe_bad(p, "delete is answered with: %.180s", e.msg) : PROBE_SHOWED_NOTHING;
	for (i = 0; i < LOOKS; i++)
		NEEDS_OR(probe_reads(p, "delete", NULL, NULL), "a deleted object can still be read");
	return PROBE_SHOWED_GOOD;
}

enum probe_shown probe_try_delete_many(struct probe *p, enum probe_check c)
{
	char text[64], a[128], b[128];
	const char *both[2] = { a, b };
	struct err e = ERR_INIT;
	int rc;

	NEEDS(probe_make(p, "delete1", NULL, text));
	NEEDS(probe_make(p, "delete2", NULL, text));
	snprintf(a, sizeof(a), "%s", probe_key(p, "delete1"));
	snprintf(b, sizeof(b), "%s", probe_key(p, "delete2"));
	rc = objstore_delete_many(p->s, both, 2, &e);
	if (rc < 0)
		return probe_answered(p, rc, &e) ? probe_bad(p, "deleting many is answered with: %.180s", e.msg) : PROBE_SHOWED_NOTHING;
	NEEDS_OR(probe_reads(p, "delete1", NULL, NULL), "after deleting many some can still be read");
	NEEDS_OR(probe_reads(p, "delete2", NULL, NULL), "after deleting many some can still be read");
	return PROBE_SHOWED_GOOD;
}

enum probe_shown probe_try_copy(struct probe *p, enum probe_check c)
{
	char text[64], from[128], to[128];
	struct err e = ERR_INIT;
	int rc;

	NEEDS(probe_make(p, "copy", NULL, text));
	snprintf(from, sizeof(from), "%s", probe_key(p, "copy"));
	snprintf(to, sizeof(to), "%s", probe_key(p, "copied"));
	rc = objstore_copy(p->s, from, to, &e);
	if (rc < 0)
		return probe_answered(p, rc, &e) ? probe_bad(p, "copy is answered with: %.180s", e.msg) : PROBE_SHOWED_NOTHING;
	NEEDS_OR(probe_reads(p, "copied", text, NULL), "a copy has other bytes");
	return PROBE_SHOWED_GOOD;
}
