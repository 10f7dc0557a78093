/* Rebuilding a root from nothing but its message objects: each holds its save
 * record, so mailboxes, UIDs, UIDVALIDITY and the flags of the time it was
 * saved come back.  Copies (references in the lost log), later flag changes
 * and moves do not; expunged mail within its grace period does.
 *
 * UIDs given out after the last message that is left are not known, so each
 * mailbox's UIDNEXT jumps by UID_GAP and a UID never names two messages. */
#include "obox/obox-private.h"

#include "base/log.h"

#include <inttypes.h>

enum { UID_GAP = 1 << 20 };

struct found {
	struct obox_origin o;
	struct obox_guid guid;
	struct obox_msg msg;
	struct buf summary;
};

struct rebuild {
	struct obox *ob;
	struct obox_user *u;
	struct obox_check *c;
	struct err *err;
	struct found *list;
	size_t n, cap;
	uint64_t max_epoch, max_seq;
};

static void __attribute__((format(printf, 2, 3))) damage(struct rebuild *r, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r->c->damaged++;
	if (r->c->report)
		r->c->report(r->c->ctx, true, text);
}

static int parse_oid(const char *name, struct obox_oid *oid)
{
	char *end;

	oid->epoch = strtoull(name, &end, 16);
	if (*end != '-')
		return -1;
	oid->n = strtoull(end + 1, &end, 16);
	return *end ? -1 : 0;
}

static int read_object(struct rebuild *r, const char *key, struct found *f, struct err *err)
{
	struct buf head = BUF_INIT(256 << 20);
	struct mobj_head h;
	int rc = objstore_get_range(r->ob->cfg.mail_store, key, 0, MOBJ_FIRST_READ, &head, NULL, err);

	if (rc == 0)
		rc = mobj_parse_head(head.data, head.len, &h, err);
	if (rc == 0 && h.header_len > head.len)
		rc = objstore_get_range(r->ob->cfg.mail_store, key, head.len, h.header_len - head.len, &head, NULL, err);
	if (rc == 0 && head.len < h.header_len)
		rc = err_set(err, ERR_CORRUPT, "%s: object is cut", key);
	if (rc == 0)
		rc = mobj_open_summary(r->ob, key, head.data, &h, &f->summary, err);
	if (rc == 0)
		rc = mobj_open_record(r->ob, key, head.data, &h, &f->o, &f->guid, err);
	f->msg.size = h.size;
	buf_free(&head);
	return rc;
}

static int take_object(void *ctx, const struct objstore_list_item *item)
{
	struct rebuild *r = ctx;
	struct err e = ERR_INIT;
	struct found f;
	int rc;

	memset(&f, 0, sizeof(f));
	buf_init(&f.summary, 0);
	if (parse_oid(strrchr(item->key, '/') + 1, &f.msg.oid) < 0)
		return 0;
	if (f.msg.oid.epoch > r->max_epoch)
		r->max_epoch = f.msg.oid.epoch;
	rc = read_object(r, item->key, &f, &e);
	if (rc < 0) {
		buf_free(&f.summary);
		if (err_is_temporary(rc))
			return err_set(r->err, rc, "%s", e.msg);
		damage(r, "object %s: %s", item->key, e.msg);
		return 0;
	}
	f.msg.uid = f.o.uid;
	f.msg.flags = f.o.flags;
	f.msg.modseq = f.o.modseq;
	f.msg.idate = f.o.idate;
	f.msg.sdate = f.o.sdate;
	mem_grow(&r->list, &r->cap, r->n + 1, sizeof(*r->list));
	r->list[r->n++] = f;
	r->c->messages++;
	if (r->c->progress)
		r->c->progress(r->c->ctx, r->c->messages, 0);
	return 0;
}

static int take_seq(void *ctx, const struct objstore_list_item *item)
{
	struct rebuild *r = ctx;
	uint64_t n = strtoull(strrchr(item->key, '/') + 1, NULL, 10);

	if (n > r->max_seq)
		r->max_seq = n;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct found *x = a, *y = b;
	int c = memcmp(x->guid.b, y->guid.b, sizeof(x->guid.b));

	if (c)
		return c;
	if (x->msg.uid != y->msg.uid)
		return x->msg.uid < y->msg.uid ? -1 : 1;
	/* the newer object first: it is the one that was acknowledged */
	if (x->msg.oid.epoch != y->msg.oid.epoch)
		return x->msg.oid.epoch > y->msg.oid.epoch ? -1 : 1;
	return x->msg.oid.n > y->msg.oid.n ? -1 : x->msg.oid.n < y->msg.oid.n;
}

/* Applies a record and puts it into the new log, without a journal: nothing is
 * served meanwhile, and a crash means doing it again. */
static int add(struct rebuild *r, const struct rec *rec)
{
	rec_encode(rec, &r->u->tail);
	return root_apply(&r->u->st, rec, r->err);
}

static int add_mailbox(struct rebuild *r, const struct found *f, struct mbox **m_r)
{
	struct rec rec = { .type = REC_MBOX_CREATE, .guid = f->guid, .uidvalidity = f->o.uidvalidity, .modseq = modseq_first(r->u->st.epoch) };
	char *name = NULL;
	int n, rc = obox_name_normalise(f->o.mailbox, &name, NULL);

	if (rc < 0)
		name = mem_strdup("Recovered");
	for (n = 2; root_by_name(&r->u->st, name); n++) {	/* the name went to another mailbox since */
		free(name);
		name = mem_printf("%s-%d", rc < 0 ? "Recovered" : f->o.mailbox, n);
	}
	rec.name = name;
	rc = add(r, &rec);
	free(name);
	*m_r = root_by_guid(&r->u->st, &f->guid);
	return rc;
}

static int add_message(struct rebuild *r, struct mbox *m, struct found *f)
{
	struct rec rec = { .type = REC_SAVE, .guid = m->guid, .msg = f->msg, .summary = f->summary.data, .summary_len = f->summary.len };
	size_t i;
	int rc = 0, bit;

	for (i = 0; i < f->o.n_keywords && rc == 0; i++) {
		bit = mbox_keyword(m, f->o.keywords[i]);
		if (bit < 0 && m->n_keywords < OBOX_KEYWORDS_MAX) {
			struct rec k = { .type = REC_KEYWORD, .guid = m->guid, .name = f->o.keywords[i], .bit = (uint32_t)m->n_keywords };

			bit = (int)m->n_keywords;
			rc = add(r, &k);
		}
		if (bit >= 0)
			rec.msg.kw[bit / 64] |= UINT64_C(1) << (bit % 64);
	}
	rec.msg.modseq = root_next_modseq(&r->u->st, m);
	return rc == 0 ? add(r, &rec) : rc;
}

/* One mailbox: list[0..n) by UID. Two objects with one UID: the older one was never acknowledged and goes behind the others. */
static int add_group(struct rebuild *r, struct found *list, size_t n)
{
	struct mbox *m;
	int pass, rc = add_mailbox(r, &list[0], &m);
	size_t i;

	for (pass = 0; pass < 2 && rc == 0; pass++) {
		for (i = 0; i < n && rc == 0; i++) {
			bool twin = i > 0 && list[i].o.uid == list[i - 1].o.uid;

			if (twin != (pass == 1))
				continue;
			if (twin)
				list[i].msg.uid = m->uidnext;
			rc = add_message(r, m, &list[i]);
		}
	}
	if (rc == 0 && m->uidnext < UINT32_MAX - UID_GAP)
		m->uidnext += UID_GAP;	/* reaches the store with the snapshot below */
	return rc;
}

static int take_root(struct rebuild *r, bool force, struct err *err)
{
	struct buf b = BUF_INIT(8192);
	char *key = user_key(r->u, "root");
	struct manifest old = { 0 };
	struct err e = ERR_INIT;
	int rc = objstore_get(r->ob->cfg.index_store, key, &b, r->u->etag, &e);
	bool there = rc == 0;

	if (rc == 0 && manifest_decode(&old, r->ob->cfg.keys, key, b.data, b.len, &e) == 0 && !force &&
	    user_load(r->u, &old, &e) == 0)
		rc = err_set(err, ERR_EXISTS, "user %s has a readable root: say --force to replace it", r->u->name);
	else if (rc < 0 && rc != ERR_NOTFOUND)
		err_set(err, rc, "%s", e.msg);
	else
		rc = 0;
	root_release(&r->u->st);
	root_init(&r->u->st, r->u);
	memset(&r->u->man, 0, sizeof(r->u->man));
	r->u->man.epoch = (old.epoch > r->max_epoch ? old.epoch : r->max_epoch) + 1;
	r->u->man.log_seq = r->max_seq;
	r->u->man.snap_seq = r->max_seq;
	r->u->man.incarnation = r->ob->incarnation;
	snprintf(r->u->man.node, sizeof(r->u->man.node), "%s", r->ob->node);
	r->u->st.epoch = r->u->man.epoch;
	buf_clear(&b);
	if (rc == 0)
		rc = manifest_encode(&r->u->man, r->ob->cfg.keys, key, &b, err);
	if (rc == 0)
		rc = objstore_put(r->ob->cfg.index_store, key, b.data, b.len, there ? OBJ_MATCH : OBJ_CREATE, r->u->etag, err);
	buf_free(&b);
	free(key);
	return rc;
}

static int write_root(struct rebuild *r, struct err *err)
{
	struct upload up;
	size_t i;
	int rc;

	for (i = 0; i < r->u->st.n_boxes; i++)
		r->u->st.boxes[i]->dirty = true;
	rc = upload_prepare(r->u, true, true, &up, err);
	if (rc < 0)
		return rc;
	rc = objstore_sync(r->ob->cfg.index_store, err);
	if (rc < 0) {
		upload_abandon(&up);
		return rc;
	}
	return upload_commit(&up, err);
}

static int run(struct rebuild *r, bool force)
{
	char *prefix = user_key(r->u, "m/"), *logs = user_key(r->u, "log/");
	size_t i, k;
	int rc;

	rc = objstore_each(r->ob->cfg.mail_store, prefix, take_object, r, r->err);
	if (rc == 0)
		rc = objstore_each(r->ob->cfg.index_store, logs, take_seq, r, r->err);
	if (rc == 0)
		rc = take_root(r, force, r->err);
	if (r->n)
		qsort(r->list, r->n, sizeof(*r->list), by_place);
	for (i = 0; rc == 0 && i < r->n; i = k) {
		for (k = i + 1; k < r->n && !memcmp(r->list[i].guid.b, r->list[k].guid.b, sizeof(r->list[i].guid.b)); k++)
			;
		rc = add_group(r, r->list + i, k - i);
	}
	if (rc == 0 && !root_by_name(&r->u->st, "INBOX")) {
		struct found f = { .o = { .mailbox = (char *)(uintptr_t)"INBOX", .uidvalidity = (uint32_t)clock_wall_s(r->ob->cfg.clock) } };
		struct mbox *m;

		randombytes_buf(f.guid.b, sizeof(f.guid.b));
		rc = add_mailbox(r, &f, &m);
	}
	if (rc == 0)
		rc = write_root(r, r->err);
	free(prefix);
	free(logs);
	return rc;
}

int obox_rebuild(struct obox *ob, const char *user, bool force, struct obox_check *c, struct err *err)
{
	struct rebuild r = { .ob = ob, .c = c, .err = err };
	size_t i;
	int rc;

	c->messages = c->damaged = c->missing = c->orphans = c->repaired = 0;
	if (!(ob->cfg.mail_store->caps & OBJ_CAP_LIST))
		return err_set(err, ERR_INVALID, "the mail store cannot list: which messages user %s has can be learnt from the index alone", user);
	obox_evict_user(ob, user);
	pthread_mutex_lock(&ob->lock);
	if (hmap_gets(&ob->users, user)) {
		pthread_mutex_unlock(&ob->lock);
		return err_set(err, ERR_BUSY, "user %s is in use here: log out its sessions first", user);
	}
	r.u = user_new(ob, user);	/* its phase keeps others waiting */
	hmap_put(&ob->users, user, strlen(user), r.u);
	pthread_mutex_unlock(&ob->lock);
	rc = run(&r, force);
	for (i = 0; i < r.n; i++) {
		obox_origin_free(&r.list[i].o);
		buf_free(&r.list[i].summary);
	}
	free(r.list);
	if (rc == 0)
		log_event(LOG_INF, "user was rebuilt from message objects", LF_S("user", user), LF_U("messages", c->messages),
			  LF_U("damaged", c->damaged), LF_END);
	user_retire(r.u, true);
	return rc;
}
