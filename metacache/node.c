/* What nodes tell of themselves: a record each, and the ring of their names.
 * Byte tables: docs/format.md, 10 and 11. */
#include "metacache/metacache-private.h"

#include <inttypes.h>

enum { DRAINING = 1 /* bit of the record */, RECORD_MAX = 16384, RING_MAX = 1 << 20, RING_NODES_MAX = 10000, RING_TRIES = 20 };

static const char *slash(const struct metacache *mc)
{
	return *mc->prefix ? "/" : "";
}

char *node_key(const struct metacache *mc, const char *node)
{
	return mem_printf("%s%snode/%s", mc->prefix, slash(mc), node);
}

char *journal_key(const struct metacache *mc, const char *node, uint64_t incarnation, uint64_t seq)
{
	return mem_printf("%s%sjournal/%s/%016" PRIx64 "/%010" PRIu64, mc->prefix, slash(mc), node, incarnation, seq);
}

void journal_delete(struct metacache *mc, const char *node, uint64_t incarnation, uint64_t from, uint64_t to)
{
	size_t n = from < to ? (size_t)(to - from) : 0, i;
	struct objstore_op *ops;
	const char **keys;

	if (!n)
		return;
	keys = mem_calloc(n, sizeof(*keys));
	ops = mem_calloc(n, sizeof(*ops));
	for (i = 0; i < n; i++) {
		keys[i] = journal_key(mc, node, incarnation, from + i);
		ops[i].verb = OBJ_DELETE;
		ops[i].key = keys[i];
	}
	if (mc->cfg.store->caps & OBJ_CAP_DELETE_MANY)
		objstore_delete_many(mc->cfg.store, keys, n, NULL);
	else
		obox_run_many(mc->cfg.store, ops, n);
	while (n)
		free((char *)(uintptr_t)keys[--n]);
	free(keys);
	free(ops);
}

static void get_text(struct rd *r, char *out, size_t size)
{
	size_t len;
	const char *p = rd_blob(r, &len);

	if (len >= size || memchr(p, 0, len))
		r->failed = true;
	else
		memcpy(out, p, len);
}

int node_decode(struct node_record *rec, const struct buf *plain, const char *key, struct err *err)
{
	struct rd r = rd_init(plain->data, plain->len);
	const void *magic = rd_bytes(&r, 4);

	memset(rec, 0, sizeof(*rec));
	if (!magic || memcmp(magic, "CULN", 4) != 0 || rd_8(&r) != 1)
		return err_set(err, ERR_CORRUPT, "%s: not a node of a known version", key);
	get_text(&r, rec->node, sizeof(rec->node));
	rec->incarnation = rd_64(&r);
	get_text(&r, rec->address, sizeof(rec->address));
	rec->started = (int64_t)rd_64(&r);
	rec->ttl_ms = rd_v(&r);
	rec->beat = rd_v(&r);
	rec->floor = rd_v(&r);
	rec->state = rd_8(&r);
	get_text(&r, rec->claimer, sizeof(rec->claimer));
	rec->claimer_incarnation = rd_64(&r);
	if (rd_left(&r) && !r.failed) {	/* what the first version did not have */
		rec->draining = rd_v(&r) & DRAINING;
		rec->users = rd_v(&r);
		rec->pieces = rd_v(&r);
		rec->beat_time = (int64_t)rd_64(&r);
		get_text(&r, rec->version, sizeof(rec->version));
	}
	if (r.failed || rec->state > NODE_DONE || !rec->floor)
		return err_set(err, ERR_CORRUPT, "%s: node record is cut", key);
	return 0;
}

void node_encode(const struct node_record *rec, struct buf *out)
{
	buf_adds(out, "CULN");
	buf_put8(out, 1);
	buf_putstr(out, rec->node);
	buf_put64(out, rec->incarnation);
	buf_putstr(out, rec->address);
	buf_put64(out, (uint64_t)rec->started);
	buf_putv(out, rec->ttl_ms);
	buf_putv(out, rec->beat);
	buf_putv(out, rec->floor);
	buf_put8(out, (uint8_t)rec->state);
	buf_putstr(out, rec->claimer);
	buf_put64(out, rec->claimer_incarnation);
	buf_putv(out, rec->draining ? DRAINING : 0);
	buf_putv(out, rec->users);
	buf_putv(out, rec->pieces);
	buf_put64(out, (uint64_t)rec->beat_time);
	buf_putstr(out, rec->version);
}

/* 1 there, 0 not. */
static int get_object(struct metacache *mc, const char *key, size_t max, struct buf *plain, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct buf sealed = BUF_INIT(max);
	struct objstore_op op = { .verb = OBJ_GET, .key = key, .out = &sealed, .want_etag = true };
	struct err e = ERR_INIT;
	int rc = obox_run_one(mc->cfg.store, &op, mc_ttl_us(mc) / 3);

	if (rc < 0)
		e = op.err;
	memcpy(etag, op.etag, sizeof(op.etag));
	if (rc == 0)
		rc = obox_unseal_with(mc->keys, key, &sealed, plain, &e);
	buf_free(&sealed);
	if (rc == ERR_NOTFOUND)
		return 0;
	return rc < 0 ? err_set(err, rc, "%s", e.msg) : 1;
}

static int swap_object(struct metacache *mc, const char *key, const struct buf *plain, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct buf sealed = BUF_INIT(RING_MAX);
	int rc = obox_seal(mc->ob, key, plain, &sealed, err);

	if (rc == 0)
		rc = obox_swap(mc->cfg.store, key, sealed.data, sealed.len, etag, mc_ttl_us(mc) / 3, err);
	buf_free(&sealed);
	return rc;
}

int node_get(struct metacache *mc, const char *node, struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct buf plain = BUF_INIT(RECORD_MAX);
	char *key = node_key(mc, node);
	int rc = get_object(mc, key, RECORD_MAX, &plain, etag, err), r;

	if (rc == 1) {
		r = node_decode(rec, &plain, key, err);
		rc = r < 0 ? r : 1;
	}
	buf_free(&plain);
	free(key);
	return rc;
}

int node_swap(struct metacache *mc, const struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct buf plain = BUF_INIT(RECORD_MAX);
	char *key = node_key(mc, rec->node);
	int rc;

	node_encode(rec, &plain);
	rc = swap_object(mc, key, &plain, etag, err);
	buf_free(&plain);
	free(key);
	return rc;
}

/* --- the ring --- */

void ring_free(struct ring *r)
{
	while (r->n)
		free(r->names[--r->n]);
	free(r->names);
	r->names = NULL;
}

static char *ring_key(const struct metacache *mc)
{
	return mem_printf("%s%snodes", mc->prefix, slash(mc));
}

int ring_decode(struct ring *r, const struct buf *plain, const char *key, struct err *err)
{
	struct rd in = rd_init(plain->data, plain->len);
	const void *magic = rd_bytes(&in, 4);
	uint64_t n = magic && !memcmp(magic, "CULG", 4) && rd_8(&in) == 1 ? rd_v(&in) : UINT64_MAX;
	size_t cap = 0;

	memset(r, 0, sizeof(*r));
	if (n > RING_NODES_MAX)
		in.failed = true;
	for (; n > 0 && !in.failed; n--) {
		mem_grow(&r->names, &cap, r->n + 1, sizeof(char *));
		r->names[r->n++] = rd_strdup(&in);
	}
	if (!in.failed)
		return 0;
	ring_free(r);
	return err_set(err, ERR_CORRUPT, "%s: not a ring of a known version", key);
}

/* An absent one is empty, with etag "". */
int ring_get(struct metacache *mc, struct ring *r, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct buf plain = BUF_INIT(RING_MAX);
	char *key = ring_key(mc);
	int rc = get_object(mc, key, RING_MAX, &plain, etag, err);

	memset(r, 0, sizeof(*r));
	if (rc == 0)
		etag[0] = '\0';
	else if (rc == 1)
		rc = ring_decode(r, &plain, key, err);
	buf_free(&plain);
	free(key);
	return rc < 0 ? rc : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Is there anything to change?  Then r is changed. */
static bool change(struct ring *r, const char *node, bool in)
{
	size_t i;

	for (i = 0; i < r->n && strcmp(r->names[i], node) != 0; i++)
		;
	if ((i < r->n) == in)
		return false;
	if (in) {
		r->names = mem_realloc(r->names, (r->n + 1) * sizeof(char *));
		r->names[r->n++] = mem_strdup(node);
		qsort(r->names, r->n, sizeof(char *), by_name);
	} else {
		free(r->names[i]);
		r->names[i] = r->names[--r->n];
		qsort(r->names, r->n, sizeof(char *), by_name);
	}
	return true;
}

int ring_change(struct metacache *mc, const char *node, bool in, struct err *err)
{
	char etag[OBJ_ETAG_MAX], *key = ring_key(mc);
	struct buf plain = BUF_INIT(RING_MAX);
	int rc = ERR_CONFLICT, i;
	struct ring r;
	size_t k;

	for (i = 0; i < RING_TRIES && rc == ERR_CONFLICT; i++) {
		err_clear(err);
		rc = ring_get(mc, &r, etag, err);
		if (rc < 0)
			break;
		if (change(&r, node, in)) {
			buf_clear(&plain);
			buf_adds(&plain, "CULG");
			buf_put8(&plain, 1);
			buf_putv(&plain, r.n);
			for (k = 0; k < r.n; k++)
				buf_putstr(&plain, r.names[k]);
			rc = swap_object(mc, key, &plain, etag, err);
		}
		ring_free(&r);
	}
	buf_free(&plain);
	free(key);
	return rc;
}
