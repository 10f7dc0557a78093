/* Objects as text, for people: what is in a root, a snapshot, a segment, a
 * block of summaries, a message object. */
#include "obox/obox-private.h"

#include "base/b64.h"

#include <inttypes.h>

struct dump { struct obox *ob; const char *key; bool json; struct buf *out; };

static void field(struct dump *d, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* One name and value; in JSON the caller puts the braces. */
static void field(struct dump *d, const char *name, const char *fmt, ...)
{
	char text[2048], *p;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!d->json) {
		buf_addf(d->out, "%s: %s\n", name, text);
		return;
	}
	buf_addf(d->out, "%s\"%s\":\"", d->out->len && d->out->data[d->out->len - 1] != '{' ? "," : "", name);
	for (p = text; *p; p++) {
		if (*p == '"' || *p == '\\')
			buf_addf(d->out, "\\%c", *p);
		else if ((unsigned char)*p < 0x20)
			buf_addf(d->out, "\\u%04x", *p);
		else
			buf_addc(d->out, *p);
	}
	buf_addc(d->out, '"');
}

static void open_object(struct dump *d)
{
	if (d->json)
		buf_addc(d->out, '{');
}

static void close_object(struct dump *d)
{
	buf_adds(d->out, d->json ? "}\n" : "\n");
}

static int dump_root(struct dump *d, struct err *err)
{
	struct buf b = BUF_INIT(8192);
	struct manifest m;
	char hex[65];
	int rc = objstore_get(d->ob->cfg.index_store, d->key, &b, NULL, err);

	if (rc == 0)
		rc = manifest_decode(&m, d->ob->cfg.keys, d->key, b.data, b.len, err);
	buf_free(&b);
	if (rc < 0)
		return rc;
	open_object(d);
	field(d, "kind", "root");
	field(d, "epoch", "%" PRIu64, m.epoch);
	field(d, "owner", "%s", m.incarnation ? m.node : "");
	field(d, "incarnation", "%016" PRIx64, m.incarnation);
	field(d, "log_segment", "%" PRIu64, m.log_seq);
	field(d, "log_record", "%" PRIu64, m.log_lsn);
	hex_encode(hex, m.log_hash, 32);
	field(d, "log_hash", "%s", hex);
	field(d, "snapshot", "%010" PRIx64 ".%08" PRIx64, m.snap.lsn, m.snap.epoch);
	field(d, "snapshot_covers_segment", "%" PRIu64, m.snap_seq);
	close_object(d);
	return 0;
}

static int dump_segment(struct dump *d, struct buf *plain, struct err *err)
{
	struct rd r = rd_init(plain->data, plain->len);
	uint64_t seq, epoch, first, count;
	const unsigned char *prev;
	struct rec rec;
	char hex[65];
	int rc = segment_decode_head(&r, &seq, &epoch, &first, &count, &prev, err);

	if (rc < 0)
		return rc;
	open_object(d);
	field(d, "kind", "log segment");
	field(d, "segment", "%" PRIu64, seq);
	field(d, "epoch", "%" PRIu64, epoch);
	field(d, "first_record", "%" PRIu64, first);
	field(d, "records", "%" PRIu64, count);
	hex_encode(hex, prev, 32);
	field(d, "previous_hash", "%s", hex);
	close_object(d);
	while ((rc = rec_decode(&r, &rec)) == 1) {
		rec_describe(&rec, d->json, d->out);
		rec_release(&rec);
	}
	return rc < 0 ? err_set(err, rc, "%s: record cannot be read", d->key) : 0;
}

static void dump_msg(struct dump *d, const struct obox_msg *m)
{
	open_object(d);
	field(d, "uid", "%u", m->uid);
	field(d, "object", "%08" PRIx64 "-%08" PRIx64, m->oid.epoch, m->oid.n);
	field(d, "size", "%" PRIu64, m->size);
	field(d, "flags", "%u", m->flags);
	field(d, "keywords", "%" PRIx64 "%016" PRIx64, m->kw[1], m->kw[0]);
	field(d, "modseq", "%" PRIu64, m->modseq);
	field(d, "internal_date", "%" PRId64, m->idate);
	field(d, "summary", "%u/%u", m->sum_block, m->sum_slot);
	close_object(d);
}

static int dump_mailbox(struct dump *d, struct buf *plain, struct err *err)
{
	struct mbox *m = mbox_new();
	size_t i;
	int rc;

	if (plain->len > 21)
		memcpy(m->guid.b, plain->data + 5, sizeof(m->guid.b));
	rc = mbox_decode(m, plain->data, plain->len, err);
	if (rc == 0) {
		open_object(d);
		field(d, "kind", "mailbox snapshot");
		field(d, "uidvalidity", "%u", m->uidvalidity);
		field(d, "uidnext", "%u", m->uidnext);
		field(d, "highestmodseq", "%" PRIu64, m->highestmodseq);
		field(d, "messages", "%u", m->n);
		close_object(d);
		for (i = 0; i < m->n_keywords; i++) {
			open_object(d);
			field(d, "keyword", "%zu %s", i, m->keywords[i]);
			close_object(d);
		}
		for (i = 0; i < m->n; i++)
			dump_msg(d, &m->msgs[i]);
	}
	mbox_free(&m);
	return rc;
}

static int dump_user(struct dump *d, struct buf *plain, struct err *err)
{
	struct root_state s;
	char hex[33];
	size_t i;
	int rc;

	root_init(&s, NULL);
	rc = root_decode(&s, plain->data, plain->len, err);
	if (rc == 0) {
		open_object(d);
		field(d, "kind", "user snapshot");
		field(d, "epoch", "%" PRIu64, s.epoch);
		field(d, "record", "%" PRIu64, s.lsn);
		field(d, "summary_blocks", "%zu", s.n_blocks);
		field(d, "shared_objects", "%zu", s.shared.n);
		field(d, "expunged", "%zu", s.n_trash);
		close_object(d);
		for (i = 0; i < s.n_boxes; i++) {
			const struct mbox *m = s.boxes[i];

			open_object(d);
			hex_encode(hex, m->guid.b, sizeof(m->guid.b));
			field(d, "mailbox", "%s", m->name);
			field(d, "guid", "%s", hex);
			field(d, "uidvalidity", "%u", m->uidvalidity);
			field(d, "uidnext", "%u", m->uidnext);
			field(d, "messages", "%u", m->n);
			field(d, "snapshot", "%010" PRIx64 ".%08" PRIx64, m->snap.lsn, m->snap.epoch);
			close_object(d);
		}
		for (i = 0; i < s.n_subs; i++) {
			open_object(d);
			field(d, "subscribed", "%s", s.subs[i]);
			close_object(d);
		}
	}
	root_release(&s);
	return rc;
}

static int dump_message(struct dump *d, struct err *err)
{
	struct buf head = BUF_INIT(256 << 20);
	struct obox_origin o;
	struct obox_guid guid;
	struct mobj_head h;
	char hex[65];
	size_t i;
	int rc = objstore_get_range(d->ob->cfg.mail_store, d->key, 0, MOBJ_FIRST_READ, &head, NULL, err);

	if (rc == 0)
		rc = mobj_parse_head(head.data, head.len, &h, err);
	if (rc == 0 && head.len < MOBJ_FIXED + 4 + h.record_len)
		rc = err_set(err, ERR_CORRUPT, "%s: object is cut", d->key);
	if (rc == 0)
		rc = mobj_open_record(d->ob, d->key, head.data, &h, &o, &guid, err);
	buf_free(&head);
	if (rc < 0)
		return rc;
	open_object(d);
	field(d, "kind", "message");
	field(d, "user", "%s", o.user);
	field(d, "mailbox", "%s", o.mailbox);
	hex_encode(hex, guid.b, sizeof(guid.b));
	field(d, "mailbox_guid", "%s", hex);
	field(d, "uidvalidity", "%u", o.uidvalidity);
	field(d, "uid", "%u", o.uid);
	field(d, "modseq", "%" PRIu64, o.modseq);
	field(d, "flags", "%u", o.flags);
	for (i = 0; i < o.n_keywords; i++)
		field(d, "keyword", "%s", o.keywords[i]);
	field(d, "internal_date", "%" PRId64, o.idate);
	field(d, "save_date", "%" PRId64, o.sdate);
	field(d, "envelope_from", "%s", o.env_from);
	field(d, "envelope_to", "%s", o.env_to);
	field(d, "pop3_uidl", "%s", o.pop3_uidl);
	hex_encode(hex, o.sha256, 32);
	field(d, "sha256", "%s", hex);
	field(d, "size", "%" PRIu64, h.size);
	field(d, "chunks", "%u", h.n_chunks);
	close_object(d);
	obox_origin_free(&o);
	return 0;
}

static int dump_sums(struct dump *d, struct buf *plain, struct err *err)
{
	struct rd r = rd_init(plain->data, plain->len);

	rd_bytes(&r, 5);
	open_object(d);
	field(d, "kind", "summary block");
	field(d, "summaries", "%" PRIu64, rd_v(&r));
	field(d, "bytes", "%zu", plain->len);
	close_object(d);
	return r.failed ? err_set(err, ERR_CORRUPT, "%s: summary block is cut", d->key) : 0;
}

int obox_dump(struct obox *ob, const char *key, bool json, struct buf *out, struct err *err)
{
	struct dump d = { ob, key, json, out };
	struct buf plain = BUF_INIT(OBOX_BUNDLE_MAX);
	const char *last = strrchr(key, '/');
	int rc;

	if (last && !strcmp(last, "/root"))
		return dump_root(&d, err);
	if (strstr(key, "/m/"))
		return dump_message(&d, err);
	rc = bundle_get(ob, key, &plain, NULL, err);
	if (rc == 0) {
		if (plain.len > 4 && !memcmp(plain.data, "CULL", 4))
			rc = dump_segment(&d, &plain, err);
		else if (plain.len > 4 && !memcmp(plain.data, "CULI", 4))
			rc = dump_mailbox(&d, &plain, err);
		else if (plain.len > 4 && !memcmp(plain.data, "CULU", 4))
			rc = dump_user(&d, &plain, err);
		else if (plain.len > 4 && !memcmp(plain.data, "CULS", 4))
			rc = dump_sums(&d, &plain, err);
		else
			rc = err_set(err, ERR_CORRUPT, "%s: a bundle of an unknown kind", key);
	}
	buf_free(&plain);
	return rc;
}

int obox_record_text(const void *data, size_t len, bool json, struct buf *out, struct err *err)
{
	struct buf b = BUF_INIT(OBOX_BUNDLE_MAX);
	struct rec rec;
	struct rd r;
	int rc;

	buf_putblob(&b, data, len);
	r = rd_init(b.data, b.len);
	rc = rec_decode(&r, &rec);
	if (rc == 1) {
		rec_describe(&rec, json, out);
		rec_release(&rec);
	}
	buf_free(&b);
	return rc == 1 ? 0 : err_set(err, ERR_CORRUPT, "record cannot be read");
}

/* --- who is there --- */

static char *unescape(const char *s, size_t len)
{
	char *out = mem_alloc(len + 1);
	size_t i, n = 0;
	unsigned char c;

	for (i = 0; i < len; i++) {
		if (s[i] == '%' && i + 2 < len && hex_decode(&c, 1, (char[]){ s[i + 1], s[i + 2], 0 }) == 0) {
			out[n++] = (char)c;
			i += 2;
		} else {
			out[n++] = s[i];
		}
	}
	return out;
}

/* The first key behind after, or NULL. */
static int next_key(struct objstore *s, const char *prefix, const char *after, char **key_r, struct err *err)
{
	struct objstore_list_item *items;
	size_t n;
	int rc = objstore_list(s, prefix, after, 1, &items, &n, err);

	*key_r = rc == 0 && n ? mem_strdup(items[0].key) : NULL;
	if (rc == 0)
		objstore_items_free(items, n);
	return rc;
}

int obox_users(struct obox *ob, const char *after_user, int (*fn)(void *ctx, const char *user), void *ctx, struct err *err)
{
	/* the mail store knows users whose index is lost too, but not every one can be listed */
	struct objstore *store = ob->cfg.mail_store->caps & OBJ_CAP_LIST ? ob->cfg.mail_store : ob->cfg.index_store;
	char *prefix = mem_printf("%s%su/", ob->prefix, *ob->prefix ? "/" : ""), *after = NULL;
	int rc;

	if (after_user) {
		char *last = obox_user_prefix(ob->prefix, after_user);

		after = mem_printf("%s~", last);
		free(last);
	}
	for (;;) {
		char *key = NULL, *user;
		const char *name, *end;

		rc = next_key(store, prefix, after, &key, err);
		if (rc < 0 || !key)
			break;
		name = strchr(key + strlen(prefix), '/');
		end = name ? strchr(name + 1, '/') : NULL;
		free(after);
		if (!end) {
			after = key;
			continue;
		}
		user = unescape(name + 1, (size_t)(end - name - 1));
		after = mem_printf("%.*s/~", (int)(end - key), key);	/* behind every key of this user */
		free(key);
		rc = fn(ctx, user);
		free(user);
		if (rc)
			break;
	}
	free(after);
	free(prefix);
	return rc;
}
