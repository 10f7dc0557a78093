/* Scrubbing: the store compared with the logs, without taking users over, so
 * that it can run anywhere and at any time, on all users.
 *
 * What is read is the state that a user's root names: it may be behind what
 * the owner has in its journal, by minutes.  So an object that nobody refers
 * to is judged only when it is old, and deleted only when nobody serves the
 * user; a message whose object is not there is lost whatever the journal says,
 * since objects outlive the expunge by the grace period. */
#include "obox/obox-private.h"

#include <inttypes.h>

enum { YOUNG_S = 3600, DELETE_AGE_S = 86400, LOADS = 5 };

struct ref {
	const struct mbox *m;		/* NULL: expunged, within the grace period */
	const struct obox_msg *msg;
	size_t next;			/* a copy, as index in refs + 1 */
	bool there, copy;
};

struct scrubbing {
	struct obox *ob;
	struct obox_user *u;		/* a copy of the root, never shown to anybody */
	struct obox_scrub *s;
	struct manifest man;
	struct ref *refs;
	size_t n, cap, n_objects;
	struct hmap by_oid;		/* oid -> index in refs + 1, of the one that is no copy */
	uint64_t done;
	struct err *err;
};

static void __attribute__((format(printf, 3, 4))) say(struct scrubbing *k, bool damage, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (k->s->report)
		k->s->report(k->s->ctx, damage, text);
}

static void step(struct scrubbing *k)
{
	k->done++;
	if (k->s->progress)
		k->s->progress(k->s->ctx, k->done, k->n_objects > k->done ? k->n_objects : k->done);
}

static void add_ref(struct scrubbing *k, const struct mbox *m, const struct obox_msg *msg)
{
	size_t first = (size_t)(uintptr_t)hmap_get(&k->by_oid, &msg->oid, sizeof(msg->oid));

	mem_grow(&k->refs, &k->cap, k->n + 1, sizeof(*k->refs));
	k->refs[k->n++] = (struct ref){ .m = m, .msg = msg, .copy = first != 0 };
	if (first) {	/* the object is looked at once */
		k->refs[k->n - 1].next = k->refs[first - 1].next;
		k->refs[first - 1].next = k->n;
		return;
	}
	k->n_objects++;
	hmap_put(&k->by_oid, &msg->oid, sizeof(msg->oid), (void *)(uintptr_t)k->n);
}

static void unload(struct scrubbing *k)
{
	free(k->refs);
	hmap_free(&k->by_oid);
	user_destroy(k->u);
	k->refs = NULL;
	k->u = NULL;
	k->n = k->cap = k->n_objects = 0;
}

/* root, and all that it names.  ERR_NOTFOUND, ERR_CORRUPT: what *bad_r says cannot be read. */
static int load_all(struct scrubbing *k, const char *user, char etag[OBJ_ETAG_MAX], const struct mbox **bad_r, struct err *e)
{
	struct buf b = BUF_INIT(8192);
	size_t i, j;
	char *key;
	int rc;

	k->u = user_new(k->ob, user);
	key = user_key(k->u, "root");
	rc = objstore_get(k->ob->cfg.index_store, key, &b, etag, e);
	if (rc == 0)
		rc = manifest_decode(&k->man, k->ob->cfg.keys, key, b.data, b.len, e);
	buf_free(&b);
	free(key);
	if (rc == 0)
		rc = user_load(k->u, &k->man, e);
	for (i = 0; rc == 0 && i < k->u->st.n_boxes; i++) {
		struct mbox *m = k->u->st.boxes[i];

		rc = user_load_mbox(k->u, m, e);
		if (rc < 0)
			*bad_r = m;
		for (j = 0; rc == 0 && j < m->n; j++)
			add_ref(k, m, &m->msgs[j]);
	}
	for (i = 0; rc == 0 && i < k->u->st.n_trash; i++)
		add_ref(k, NULL, &k->u->st.trash[i].msg);
	return rc;
}

/* An owner replaces snapshots and then deletes the old ones: was root swapped while they were read? */
static bool root_moved(struct scrubbing *k, const char *etag)
{
	char *key = user_key(k->u, "root"), now[OBJ_ETAG_MAX] = "";
	struct buf b = BUF_INIT(8192);
	int rc = objstore_get(k->ob->cfg.index_store, key, &b, now, NULL);

	buf_free(&b);
	free(key);
	return rc == 0 && strcmp(now, etag) != 0;
}

/* 1 loaded, 0 nothing to compare with (said), <0 the store. */
static int load(struct scrubbing *k, const char *user)
{
	const struct mbox *bad = NULL;
	char etag[OBJ_ETAG_MAX] = "";
	struct err e = ERR_INIT;
	int rc, i;

	for (i = 0; (rc = load_all(k, user, etag, &bad, &e)) < 0; i++) {
		if ((rc != ERR_NOTFOUND && rc != ERR_CORRUPT) || i == LOADS || !root_moved(k, etag))
			break;
		unload(k);
		err_clear(&e);
		bad = NULL;
		*etag = '\0';
	}
	if (rc == ERR_NOTFOUND || rc == ERR_CORRUPT) {	/* without a mailbox its messages would look like nobody's */
		k->s->bundles++;
		say(k, true, "user %s%s%s: %s cannot be read (%s): run culverctl rebuild %s%s", user, bad ? " mailbox " : "", bad ? bad->name : "",
		    bad ? "index" : "root or log", e.msg[0] ? e.msg : err_code_name(rc), user, *etag ? " --force" : "");
		return 0;
	}
	if (rc < 0)
		return err_set(k->err, rc, "%s", e.msg);
	for (i = 0; i < (int)k->n; i++)
		k->s->messages += k->refs[i].m != NULL;
	k->s->served = k->man.incarnation != 0;
	return 1;
}

/* --- objects against references --- */

static int orphan(struct scrubbing *k, const struct objstore_list_item *item)
{
	int64_t age = clock_wall_s(k->ob->cfg.clock) - item->mtime;

	if (age < YOUNG_S)
		return 0;	/* its record may still be in the owner's journal */
	k->s->orphans++;
	say(k, false, "user %s: object %s (%" PRIu64 " bytes) belongs to no message", k->u->name, item->key, item->size);
	if (!k->s->repair || age < DELETE_AGE_S)
		return 0;
	if (k->s->served) {
		say(k, false, "user %s is served by node %s: deleting it is left to that node (culverctl check %s --repair)", k->u->name, k->man.node, k->u->name);
		return 0;
	}
	k->s->repaired++;
	return objstore_delete(k->ob->cfg.mail_store, item->key, k->err);
}

static int on_object(void *ctx, const struct objstore_list_item *item)
{
	struct scrubbing *k = ctx;
	const char *name = item->key + strlen(k->u->prefix) + 2;	/* behind "m/" */
	struct obox_oid oid;
	size_t at;
	char *end;

	k->s->objects++;
	k->s->bytes += item->size;
	step(k);
	oid.epoch = strtoull(name, &end, 16);
	oid.n = *end == '-' ? strtoull(end + 1, &end, 16) : 0;
	at = *end ? 0 : (size_t)(uintptr_t)hmap_get(&k->by_oid, &oid, sizeof(oid));
	if (!at)
		return orphan(k, item);
	k->refs[at - 1].there = true;
	return 0;
}

/* A message and all its copies; of an expunged one only the way back is lost. */
static void lost(struct scrubbing *k, const struct ref *r, uint64_t *count, const char *key, const char *why)
{
	for (;; r = &k->refs[r->next - 1]) {
		if (r->m) {
			++*count;
			say(k, true, "user %s mailbox %s UID %u: object %s %s", k->u->name, r->m->name, r->msg->uid, key, why);
		} else {
			say(k, false, "user %s: expunged message with UID %u cannot be undeleted: object %s %s", k->u->name, r->msg->uid, key, why);
		}
		if (!r->next)
			return;
	}
}

/* A list may be behind: what it did not name is asked for by name. */
static int look(struct scrubbing *k, struct ref *r)
{
	char *key = user_key(k->u, "m/%08" PRIx64 "-%08" PRIx64, r->msg->oid.epoch, r->msg->oid.n);
	struct err e = ERR_INIT;
	int rc = r->there ? 1 : objstore_head(k->ob->cfg.mail_store, key, NULL, &e);

	if (rc == 1 && k->s->bodies && r->m)
		rc = check_body(k->u, r->msg, &e) < 0 ? e.code : 1;
	if (rc == 0 || rc == ERR_NOTFOUND) {
		lost(k, r, &k->s->missing, key, "is missing");
		rc = 1;
	} else if (rc == ERR_CORRUPT) {
		char *why = mem_printf("is damaged: %s", e.msg);

		lost(k, r, &k->s->damaged, key, why);
		free(why);
		rc = 1;
	}
	free(key);
	return rc < 0 ? err_set(k->err, rc, "%s", e.msg) : 0;
}

/* --- summary blocks: their loss costs speed, not mail --- */

static int look_at_block(struct scrubbing *k, const struct sumblock *b)
{
	char *key = user_key(k->u, "sum/%08" PRIx64 "-%08" PRIx64, b->epoch, b->n);
	int rc = b->open || !b->n ? 1 : objstore_head(k->ob->cfg.index_store, key, NULL, k->err);

	if (rc == 0) {
		k->s->bundles++;
		say(k, false, "user %s: summary block %s is missing: %u messages are answered from their objects, slowly", k->u->name, key, b->count);
	}
	free(key);
	return rc < 0 ? rc : 0;
}

int obox_scrub(struct obox *ob, const char *user, struct obox_scrub *s, struct err *err)
{
	struct scrubbing k = { .ob = ob, .s = s, .err = err };
	char *prefix;
	size_t i;
	int rc;

	s->messages = s->objects = s->bytes = s->missing = s->damaged = s->orphans = s->bundles = s->repaired = 0;
	s->served = false;
	rc = load(&k, user);
	if (rc == 1) {
		if (ob->cfg.mail_store->caps & OBJ_CAP_LIST) {
			prefix = user_key(k.u, "m/");
			rc = objstore_each(ob->cfg.mail_store, prefix, on_object, &k, err);
			free(prefix);
		} else {	/* each is asked for by its name */
			rc = 0;
			say(&k, false, "user %s: the mail store cannot list: it was not searched for objects that belong to no message", user);
		}
		for (i = 0; i < k.n && rc == 0; i++) {
			if (k.refs[i].copy)
				continue;
			if (!k.refs[i].there || s->bodies)
				step(&k);
			rc = look(&k, &k.refs[i]);
		}
		for (i = 0; i < k.u->st.n_blocks && rc == 0; i++)
			rc = look_at_block(&k, &k.u->st.blocks[i]);
	}
	unload(&k);
	return rc;
}
