/* Checking: does every message of the index have its object, whole and
 * unchanged, and does every object have a message? */
#include "obox/obox-private.h"

#include <inttypes.h>
#include <openssl/evp.h>

enum { ORPHAN_AGE_S = 3600 };

struct checking {
	struct obox_user *u;
	struct obox_check *c;
	struct hmap seen;	/* object keys that are referred to */
	uint64_t total;
	struct err *err;
};

static void __attribute__((format(printf, 3, 4))) say(struct obox_check *c, bool damage, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (c->report)
		c->report(c->ctx, damage, text);
}

/* Every byte against the SHA-256 in the save record. */
int check_body(struct obox_user *u, const struct obox_msg *m, struct err *err)
{
	unsigned char *piece = mem_realloc(NULL, OBOX_CHUNK), sha[32];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	struct obox_body *b = NULL;
	struct obox_origin o = { 0 };
	uint64_t at, n;
	int rc = body_open_uncached(u, m, &b, err);

	if (rc == 0)
		obox_body_expect(b, 0, m->size);
	EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	for (at = 0; rc == 0 && at < m->size; at += n) {
		n = m->size - at < OBOX_CHUNK ? m->size - at : OBOX_CHUNK;
		rc = obox_body_read(b, at, piece, (size_t)n, err);
		if (rc == 0)
			EVP_DigestUpdate(md, piece, (size_t)n);
	}
	EVP_DigestFinal_ex(md, sha, NULL);
	if (rc == 0)
		rc = obox_origin(b, &o, err);
	if (rc == 0 && memcmp(sha, o.sha256, sizeof(sha)) != 0)
		rc = err_set(err, ERR_CORRUPT, "bytes do not give the SHA-256 of the save record");
	obox_origin_free(&o);
	obox_body_close(&b);
	EVP_MD_CTX_free(md);
	free(piece);
	return rc;
}

static int check_msg(struct checking *k, const char *mailbox, const struct obox_msg *m, struct seqset *bad)
{
	char *key = user_key(k->u, "m/%08" PRIx64 "-%08" PRIx64, m->oid.epoch, m->oid.n);
	struct err e = ERR_INIT;
	int rc = 1;

	k->c->messages++;
	hmap_put(&k->seen, key, strlen(key), k);
	if (k->c->bodies)
		rc = check_body(k->u, m, &e) < 0 ? e.code : 1;
	else
		rc = objstore_head(k->u->ob->cfg.mail_store, key, NULL, &e);
	if (rc == 0 || rc == ERR_NOTFOUND) {
		k->c->missing++;
		say(k->c, true, "user %s mailbox %s UID %u: object %s is missing", k->u->name, mailbox, m->uid, key);
		seqset_add(bad, m->uid, m->uid);
		rc = 0;
	} else if (rc == ERR_CORRUPT) {
		k->c->damaged++;
		say(k->c, true, "user %s mailbox %s UID %u: object %s is damaged: %s", k->u->name, mailbox, m->uid, key, e.msg);
		rc = 0;
	} else if (rc < 0) {
		err_set(k->err, rc, "%s", e.msg);
	}
	free(key);
	return rc < 0 ? rc : 0;
}

/* Messages without an object cannot come back: with repair the index forgets them. */
static int drop_missing(struct checking *k, struct obox_view *v, const struct seqset *bad)
{
	int rc = 0;

	if (k->c->repair && bad->n) {
		rc = obox_expunge(v, bad, true, NULL, k->err);
		if (rc == 0) {
			k->c->repaired += seqset_count(bad);
			k->c->forgotten += seqset_count(bad);
		}
	}
	return rc;
}

static int check_mailbox(struct checking *k, const char *name)
{
	struct seqset bad = SEQSET_INIT;
	struct obox_view *v;
	struct obox_msg m[64];
	uint32_t seq = 1;
	size_t n, i;
	int rc = obox_view_open(k->u, name, false, NULL, NULL, &v, k->err);

	if (rc == ERR_CORRUPT || rc == ERR_NOTFOUND) {
		k->c->damaged++;
		say(k->c, true, "user %s mailbox %s: index cannot be read (%s): run culverctl rebuild", k->u->name, name, k->err->msg);
		err_clear(k->err);
		return 0;
	}
	while (rc == 0 && (n = obox_view_read(v, seq, m, MEM_COUNT(m))) > 0) {
		for (i = 0; i < n && rc == 0; i++)
			rc = check_msg(k, name, &m[i], &bad);
		seq += (uint32_t)n;
		if (k->c->progress)
			k->c->progress(k->c->ctx, k->c->messages, k->total);
	}
	if (rc == 0)
		rc = drop_missing(k, v, &bad);
	if (v)
		obox_view_close(&v);
	seqset_free(&bad);
	return rc;
}

static int check_object(void *ctx, const struct objstore_list_item *item)
{
	struct checking *k = ctx;

	if (hmap_gets(&k->seen, item->key))
		return 0;
	/* one that is being saved now has no record yet */
	if (clock_wall_s(k->u->ob->cfg.clock) - item->mtime < ORPHAN_AGE_S)
		return 0;
	k->c->orphans++;
	say(k->c, false, "user %s: object %s (%" PRIu64 " bytes) belongs to no message", k->u->name, item->key, item->size);
	if (!k->c->repair || !obox_may_delete(k->u))
		return 0;
	k->c->repaired++;
	return objstore_delete(k->u->ob->cfg.mail_store, item->key, k->err);
}

static void see_trash(struct checking *k)
{
	size_t i;

	pthread_mutex_lock(&k->u->lock);
	for (i = 0; i < k->u->st.n_trash; i++) {
		const struct obox_oid *oid = &k->u->st.trash[i].msg.oid;
		char *key = user_key(k->u, "m/%08" PRIx64 "-%08" PRIx64, oid->epoch, oid->n);

		hmap_put(&k->seen, key, strlen(key), k);
		free(key);
	}
	pthread_mutex_unlock(&k->u->lock);
}

int obox_check(struct obox_user *u, struct obox_check *c, struct err *err)
{
	struct checking k = { .u = u, .c = c, .err = err };
	struct obox_mailbox *list;
	struct obox_status st;
	size_t n, i;
	char *prefix;
	int rc;

	c->messages = c->damaged = c->missing = c->orphans = c->repaired = c->forgotten = 0;
	rc = obox_mailboxes(u, &list, &n, err);
	for (i = 0; i < n && rc == 0; i++)
		if (list[i].exists && obox_mailbox_status(u, list[i].name, &st, err) == 0)
			k.total += st.messages;
	see_trash(&k);
	for (i = 0; i < n && rc == 0; i++)
		if (list[i].exists)
			rc = check_mailbox(&k, list[i].name);
	obox_mailboxes_free(list, n);
	if (rc == 0 && !(u->ob->cfg.mail_store->caps & OBJ_CAP_LIST)) {
		say(c, false, "user %s: the mail store cannot list: it was not searched for objects that belong to no message", u->name);
	} else if (rc == 0) {
		prefix = user_key(u, "m/");
		rc = objstore_each(u->ob->cfg.mail_store, prefix, check_object, &k, err);
		free(prefix);
	}
	hmap_free(&k.seen);
	if (rc == 0 && c->forgotten)	/* into the log, so that who looks at the store alone knows */
		rc = obox_flush(u->ob, u->name, err);
	return rc;
}
