/* Objects of nodes as text, for people: records, the ring, journal pieces and seals. */
#include "metacache/metacache-private.h"

#include <inttypes.h>
#include <jansson.h>

struct dump {
	bool json;
	struct buf *out;
	struct err *err;
	int rc;
};

/* One object as a line of JSON, or a line "name: value" for each member and an empty one. Steals o. */
static void put(const struct dump *d, json_t *o)
{
	const char *name;
	json_t *v;
	char *text;

	if (d->json) {
		text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
		buf_addf(d->out, "%s\n", text ? text : "{}");
		free(text);
	} else {
		json_object_foreach(o, name, v)
			if (json_is_string(v))
				buf_addf(d->out, "%s: %s\n", name, json_string_value(v));
			else if (json_is_boolean(v))
				buf_addf(d->out, "%s: %s\n", name, json_is_true(v) ? "yes" : "no");
			else
				buf_addf(d->out, "%s: %lld\n", name, (long long)json_integer_value(v));
		buf_addc(d->out, '\n');
	}
	json_decref(o);
}

/* Names are what somebody wrote into the store: never NULL. */
static json_t *text_of(const char *s)
{
	json_t *v = json_string(s);

	return v ? v : json_string("(not UTF-8)");
}

static int dump_node(struct dump *d, const struct buf *plain, const char *key)
{
	static const char *const states[] = { "live", "stopped", "claimed", "done" };
	struct node_record rec;
	char hex[17];
	json_t *o;
	int rc = node_decode(&rec, plain, key, d->err);

	if (rc < 0)
		return rc;
	snprintf(hex, sizeof(hex), "%016" PRIx64, rec.incarnation);
	o = json_pack("{s:s, s:o, s:s, s:s, s:b, s:o, s:I, s:I}", "kind", "node", "node", text_of(rec.node), "incarnation", hex, "state", states[rec.state],
		      "draining", rec.draining, "address", text_of(rec.address), "started", (json_int_t)rec.started, "ttl_ms", (json_int_t)rec.ttl_ms);
	json_object_set_new(o, "beat", json_integer((json_int_t)rec.beat));
	json_object_set_new(o, "beat_time", json_integer(rec.beat_time));
	json_object_set_new(o, "journal_floor", json_integer((json_int_t)rec.floor));
	json_object_set_new(o, "journal_objects", json_integer((json_int_t)rec.pieces));
	json_object_set_new(o, "users", json_integer((json_int_t)rec.users));
	json_object_set_new(o, "version", text_of(rec.version));
	if (*rec.claimer) {
		snprintf(hex, sizeof(hex), "%016" PRIx64, rec.claimer_incarnation);
		json_object_set_new(o, "claimer", text_of(rec.claimer));
		json_object_set_new(o, "claimer_incarnation", json_string(hex));
	}
	put(d, o);
	return 0;
}

static int dump_ring(struct dump *d, const struct buf *plain, const char *key)
{
	struct ring r;
	size_t i;
	int rc = ring_decode(&r, plain, key, d->err);

	if (rc < 0)
		return rc;
	put(d, json_pack("{s:s, s:I}", "kind", "ring", "nodes", (json_int_t)r.n));
	for (i = 0; i < r.n; i++)
		put(d, json_pack("{s:o}", "node", text_of(r.names[i])));
	ring_free(&r);
	return 0;
}

static void dump_entry(void *ctx, const struct journal_entry *e)
{
	struct dump *d = ctx;
	struct buf text = BUF_INIT(0);
	json_t *o = json_pack("{s:o, s:I, s:I}", "user", text_of(e->user), "epoch", (json_int_t)e->epoch, "record", (json_int_t)e->lsn), *what;

	if (d->rc == 0)
		d->rc = obox_record_text(e->rec, e->rec_len, d->json, &text, d->err);
	if (d->rc == 0 && !d->json) {
		buf_addf(d->out, "%s epoch %" PRIu64 " record %" PRIu64 ": %s", json_string_value(json_object_get(o, "user")), e->epoch, e->lsn, buf_str(&text));
	} else if (d->rc == 0) {
		what = json_loads(buf_str(&text), 0, NULL);
		json_object_set_new(o, "change", what ? what : text_of(buf_str(&text)));
		put(d, json_incref(o));
	}
	json_decref(o);
	buf_free(&text);
}

static void count(void *ctx, const struct journal_entry *e)
{
	json_int_t *n = ctx;

	*n += e->user != NULL;
}

static int dump_piece(struct dump *d, const struct buf *plain)
{
	enum piece_kind kind;
	json_int_t n = 0;
	int rc = piece_decode(plain, &kind, count, &n, d->err);

	if (rc < 0)
		return rc;
	put(d, json_pack("{s:s, s:I}", "kind", kind == PIECE_SEAL ? "journal seal" : "journal", "records", n));
	rc = piece_decode(plain, &kind, dump_entry, d, d->err);
	return rc < 0 ? rc : d->rc;
}

int metacache_dump(struct obox *ob, const char *key, bool json, struct buf *out, struct err *err)
{
	struct dump d = { .json = json, .out = out, .err = err };
	struct buf plain = BUF_INIT(512 << 20);
	int rc = obox_get_bundle(ob, key, &plain, err);

	if (rc == 0 && plain.len > 4 && !memcmp(plain.data, "CULN", 4))
		rc = dump_node(&d, &plain, key);
	else if (rc == 0 && plain.len > 4 && !memcmp(plain.data, "CULG", 4))
		rc = dump_ring(&d, &plain, key);
	else if (rc == 0 && plain.len > 4 && !memcmp(plain.data, "CULJ", 4))
		rc = dump_piece(&d, &plain);
	else if (rc == 0)
		rc = 1;
	buf_free(&plain);
	return rc < 0 ? rc : !rc;
}
