/* What a dead node left: records go behind a user's log, by whoever comes.
 *
 * (1) The next free slot of the log is taken by creating it.  A slot that is
 *     taken holds what the dead node, or another taker of it, was about to add:
 *     when it is of the epoch that is replayed and follows the log (previous
 *     hash, first record) it is adopted, and what is left goes behind it.  Any
 *     other is void, and the next slot is tried.  One of an epoch before is
 *     void even where it would follow: the owner of this epoch began at root
 *     and has given its record numbers to other changes.  Readers void by
 *     following the hashes back from root (load.c).
 * (2) Only the root makes a segment part of the log, so all of this may be
 *     repeated, and done by several at once: the root is swapped by one.
 * (3) A saved message whose object is not in the store was never acknowledged.
 *     Its record stays, so that the numbers of later records are right, and an
 *     expunge that keeps nothing follows.  A tombstone is created in the
 *     object's place first, so that a put which is still on its way cannot
 *     bring an acknowledgement after all.
 * (4) A fence is a segment of the new owner's epoch without changes: what the
 *     old owner may still send to that slot then fails. */
#include "obox/obox-private.h"

#include "base/log.h"

#include <inttypes.h>

enum { SLOTS_MAX = 64, ROOT_TRIES = 8 };
static const char tombstone[] = "CULT\1";

struct entry { uint64_t epoch, lsn, landed; size_t off, len; };

struct obox_tail {
	char *user;
	struct buf bytes;
	struct entry *list;
	size_t n, cap;
	bool sorted;
};

struct obox_tail *obox_tail_new(const char *user)
{
	struct obox_tail *t = MEM_NEW(struct obox_tail);

	t->user = mem_strdup(user);
	buf_init(&t->bytes, OBOX_BUNDLE_MAX);
	return t;
}

const char *obox_tail_user(const struct obox_tail *t)
{
	return t->user;
}

void obox_tail_add(struct obox_tail *t, uint64_t epoch, uint64_t lsn, uint64_t landed, const void *rec, size_t len)
{
	mem_grow(&t->list, &t->cap, t->n + 1, sizeof(*t->list));
	t->list[t->n++] = (struct entry){ epoch, lsn, landed, t->bytes.len, len };
	buf_add(&t->bytes, rec, len);
	t->sorted = false;
}

void obox_tail_free(struct obox_tail **tp)
{
	struct obox_tail *t = *tp;

	if (!t)
		return;
	buf_free(&t->bytes);
	free(t->list);
	free(t->user);
	free(t);
	*tp = NULL;
}

static int by_lsn(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	return x->lsn < y->lsn ? -1 : x->lsn > y->lsn;
}

/* The records of this epoch that the log does not have, as far as they have no gap; how many.  *landed_r: saves below need not be
 * looked for, as what is taken says (what is behind a gap says nothing). */
static uint64_t missing_records(struct obox_tail *t, uint64_t epoch, const struct manifest *man, struct buf *out, uint64_t *landed_r)
{
	uint64_t n = 0;
	size_t i;

	if (!t->sorted && t->n)
		qsort(t->list, t->n, sizeof(*t->list), by_lsn);
	t->sorted = true;
	for (i = 0; i < t->n; i++) {
		const struct entry *e = &t->list[i];

		if (e->epoch != epoch)
			continue;
		if (e->lsn <= man->log_lsn + n + 1 && e->landed > *landed_r)
			*landed_r = e->landed;
		if (e->lsn < man->log_lsn + n + 1)
			continue;	/* it is there, or was taken from another copy */
		if (e->lsn > man->log_lsn + n + 1) {
			log_event(LOG_ERROR, "journal has a gap: changes behind it are lost; run culverctl check", LF_S("user", t->user),
				  LF_U("record", man->log_lsn + n + 1), LF_U("next", e->lsn), LF_END);
			break;
		}
		buf_putblob(out, t->bytes.data + e->off, e->len);
		n++;
	}
	return n;
}

/* --- (3) --- */

struct touched {	/* a mailbox that records are about */
	struct obox_guid guid;
	uint64_t modseq;	/* the highest they name */
	struct seqset lost;
	bool deleted;
};

struct saves {
	struct hmap boxes;	/* guid -> struct touched */
	struct save { struct obox_oid oid; uint32_t uid; struct touched *box; char *key; } *list;
	size_t n, cap;
};

static struct touched *touch(struct saves *s, const struct obox_guid *g, uint64_t modseq)
{
	struct touched *t = hmap_get(&s->boxes, g->b, sizeof(g->b));

	if (!t) {
		t = MEM_NEW(struct touched);
		t->guid = *g;
		hmap_put(&s->boxes, g->b, sizeof(g->b), t);
	}
	if (modseq > t->modseq)
		t->modseq = modseq;
	return t;
}

/* The first has that lsn; saves below landed are known to have their objects. */
static int note_records(struct saves *s, const struct buf *records, uint64_t lsn, uint64_t landed, struct err *err)
{
	struct rd r = rd_init(records->data, records->len);
	struct touched *t;
	struct rec rec;
	int rc;

	while ((rc = rec_decode(&r, &rec)) == 1) {
		if (rec.type != REC_SUBSCRIBE && rec.type != REC_PURGE && rec.type != REC_FENCE) {
			t = touch(s, &rec.guid, rec.type == REC_SAVE ? rec.msg.modseq : rec.modseq);
			if (rec.type == REC_MBOX_DELETE)
				t->deleted = true;
			if (rec.type == REC_SAVE && lsn >= landed) {
				mem_grow(&s->list, &s->cap, s->n + 1, sizeof(*s->list));
				s->list[s->n++] = (struct save){ rec.msg.oid, rec.msg.uid, t, NULL };
			}
		}
		if (rec.type == REC_COPY || rec.type == REC_UNDELETE)
			touch(s, &rec.to, rec.to_modseq);
		rec_release(&rec);
		lsn++;
	}
	return rc < 0 ? err_set(err, rc, "log: record cannot be read") : 0;
}

static void saves_free(struct saves *s)
{
	size_t pos = 0, i;
	void *v;

	while (hmap_next(&s->boxes, &pos, NULL, NULL, &v)) {
		struct touched *t = v;

		seqset_free(&t->lost);
		free(t);
	}
	hmap_free(&s->boxes);
	for (i = 0; i < s->n; i++)
		free(s->list[i].key);
	free(s->list);
}

static void drop_saves(struct saves *s)	/* they were looked at */
{
	while (s->n)
		free(s->list[--s->n].key);
}

/* 1 the object is there, 0 it is not and will not be. */
static int settle_object(struct obox *ob, const char *key, struct err *err)
{
	struct buf there = BUF_INIT(OBOX_BUNDLE_MAX);
	int rc;

	if (!(ob->cfg.mail_store->caps & OBJ_CAP_CREATE) || sim_broken("no-tombstone"))
		return 0;
	rc = obox_put_once(ob->cfg.mail_store, key, tombstone, sizeof(tombstone) - 1, &there, err);
	buf_free(&there);
	if (rc == ERR_EXISTS) {
		err_clear(err);
		return 1;
	}
	return rc;
}

static int look_for_objects(struct obox *ob, const char *prefix, struct saves *s, struct err *err)
{
	struct objstore_op *ops = mem_calloc(s->n, sizeof(*ops));
	size_t i;
	int rc = 0;

	for (i = 0; i < s->n; i++) {
		s->list[i].key = mem_printf("%sm/%08" PRIx64 "-%08" PRIx64, prefix, s->list[i].oid.epoch, s->list[i].oid.n);
		ops[i].verb = OBJ_HEAD;
		ops[i].key = s->list[i].key;
	}
	obox_run_many(ob->cfg.mail_store, ops, s->n);
	for (i = 0; i < s->n && rc >= 0; i++) {
		struct save *v = &s->list[i];

		rc = ops[i].rc;
		if (rc == ERR_NOTFOUND)
			rc = settle_object(ob, v->key, err);
		else if (rc == 0)
			rc = ops[i].size >= MOBJ_FIXED;
		else
			err_set(err, rc, "%s", ops[i].err.msg);
		if (rc == 0 && !sim_broken("lost-save-kept"))
			seqset_add(&v->box->lost, v->uid, v->uid);
	}
	free(ops);
	drop_saves(s);
	return rc < 0 ? rc : 0;
}

/* Expunges of what is lost; how many records. */
static uint64_t expunge_lost(struct saves *s, uint64_t epoch, int64_t now, struct buf *out)
{
	uint64_t n = 0, first = modseq_first(epoch);
	size_t pos = 0;
	void *v;

	while (hmap_next(&s->boxes, &pos, NULL, NULL, &v)) {
		struct touched *t = v;
		struct rec r = { .type = REC_EXPUNGE, .guid = t->guid, .on = true, .uids = &t->lost, .time = now };

		if (!t->lost.n || t->deleted)
			continue;
		r.modseq = modseq_after(t->modseq) > first ? modseq_after(t->modseq) : first;
		rec_encode(&r, out);
		n++;
	}
	return n;
}

/* --- (1) --- */

struct epochs { uint64_t writer, replayed; };	/* of what is put there; whose records may be adopted */

static int segment_parse(struct buf *plain, struct rd *r, uint64_t *seq, uint64_t *epoch, uint64_t *first, uint64_t *count, const unsigned char **prev, struct err *err)
{
	*r = rd_init(plain->data, plain->len);
	return segment_decode_head(r, seq, epoch, first, count, prev, err);
}

/* What is in the slot behind the log: 1 adopted, 0 void, <0. */
static int adopt(struct obox *ob, const char *key, const struct buf *sealed, const struct epochs *of, struct manifest *man, struct saves *s, struct err *err)
{
	struct buf plain = BUF_INIT(OBOX_BUNDLE_MAX), records = BUF_INIT(OBOX_BUNDLE_MAX);
	uint64_t seq, epoch, first, count;
	const unsigned char *prev;
	unsigned char hash[32];
	struct rd r;
	int rc = bundle_unseal(ob, key, sealed, &plain, hash, err);

	if (rc == 0)
		rc = segment_parse(&plain, &r, &seq, &epoch, &first, &count, &prev, err);
	if (rc == 0 && epoch > of->writer)
		rc = err_set(err, ERR_CONFLICT, "%s: of a later owner", key);
	if (rc == 0 && (epoch == of->replayed || sim_broken("older-epoch-adopted")) && seq == man->log_seq + 1 && first == man->log_lsn + 1 &&
	    !memcmp(prev, man->log_hash, 32)) {
		buf_add(&records, r.p, rd_left(&r));
		rc = note_records(s, &records, first, 0, err);
		if (rc == 0) {
			man->log_lsn += count;
			memcpy(man->log_hash, hash, 32);
			rc = 1;
		}
	}
	if (rc == ERR_CORRUPT && ob->cfg.cluster) {	/* whatever it was, the journal has it, too, or nobody was told */
		log_event(LOG_WARN, "log slot holds what cannot be read: it is passed over", LF_S("object", key), LF_ERR(err), LF_END);
		err_clear(err);
		rc = 0;
	}
	man->log_seq++;
	buf_free(&plain);
	buf_free(&records);
	return rc;
}

/* A lazy put that a power loss tore; only the local store has any, and nobody else is at it. */
static bool torn(struct obox *ob, int rc)
{
	return rc == ERR_CORRUPT && !ob->cfg.cluster;
}

/* Takes the next slot for the segment. 0, ERR_EXISTS (adopted or void: look again), <0. */
static int take_slot(struct obox *ob, const char *prefix, const struct buf *seg, const struct epochs *of, uint64_t n, struct manifest *man, struct saves *s, struct err *err)
{
	char *key = mem_printf("%slog/%010" PRIu64, prefix, man->log_seq + 1);
	struct buf sealed = BUF_INIT(OBOX_BUNDLE_MAX), there = BUF_INIT(OBOX_BUNDLE_MAX);
	int rc = bundle_seal(ob, key, seg->data, seg->len, &sealed, err), r;

	if (rc == 0)
		rc = obox_put_once(ob->cfg.index_store, key, sealed.data, sealed.len, &there, err);
	if (rc == 0) {
		man->log_seq++;
		man->log_lsn += n;
		crypto_generichash(man->log_hash, 32, seg->data, seg->len, NULL, 0);
	} else if (rc == ERR_EXISTS) {
		err_clear(err);
		r = adopt(ob, key, &there, of, man, s, err);
		if (torn(ob, r)) {
			err_clear(err);
			man->log_seq--;
			r = objstore_delete(ob->cfg.index_store, key, err);
		}
		rc = r < 0 ? r : rc;
	}
	buf_free(&sealed);
	buf_free(&there);
	free(key);
	return rc;
}

int log_extend(struct obox *ob, const char *prefix, struct manifest *man, uint64_t epoch, struct obox_tail *t, bool fence, struct err *err)
{
	struct epochs of = { fence ? man->epoch : epoch, epoch };
	uint64_t n, slots, landed;
	struct rec mark = { .type = REC_FENCE, .modseq = man->epoch };
	struct buf records = BUF_INIT(OBOX_BUNDLE_MAX), seg = BUF_INIT(OBOX_BUNDLE_MAX);
	struct saves s = { .n = 0 };
	int rc = ERR_EXISTS;

	for (slots = 0; rc == ERR_EXISTS && slots < SLOTS_MAX; slots++) {
		buf_clear(&records);
		buf_clear(&seg);
		landed = 0;
		n = t ? missing_records(t, epoch, man, &records, &landed) : 0;
		rc = note_records(&s, &records, man->log_lsn + 1, landed, err);
		if (rc == 0)
			rc = look_for_objects(ob, prefix, &s, err);
		if (rc < 0)
			break;
		n += expunge_lost(&s, of.writer, clock_wall_s(ob->cfg.clock), &records);
		if (fence) {
			rec_encode(&mark, &records);
			n++;
		}
		if (!n)
			break;
		segment_encode_head(man->log_seq + 1, of.writer, man->log_lsn + 1, n, man->log_hash, &seg);
		buf_add(&seg, records.data, records.len);
		rc = take_slot(ob, prefix, &seg, &of, n, man, &s, err);
	}
	if (rc == ERR_EXISTS)
		err_set(err, rc, "%slog: no free slot behind %" PRIu64, prefix, man->log_seq);
	saves_free(&s);
	buf_free(&records);
	buf_free(&seg);
	return rc;
}

/* One go: 1 done, 0 the root was swapped by somebody else meanwhile. */
static int replay_once(struct obox *ob, struct obox_tail *t, const char *prefix, const char *node, uint64_t incarnation, struct err *err)
{
	char etag[OBJ_ETAG_MAX];
	struct manifest man;
	uint64_t before;
	int rc = root_get(ob, prefix, &man, etag, err);

	if (rc <= 0)
		return rc < 0 ? rc : 1;	/* its first put never happened: nothing was acknowledged */
	if (strcmp(man.node, node) != 0 || !man.incarnation || (incarnation && man.incarnation != incarnation))
		return 1;
	before = man.log_lsn;
	rc = log_extend(ob, prefix, &man, man.epoch, t, false, err);
	if (rc == ERR_CONFLICT) {
		err_clear(err);
		return 0;
	}
	if (rc < 0 || man.log_lsn == before)
		return rc < 0 ? rc : 1;
	man.incarnation = 0;
	man.node[0] = '\0';	/* not by its owner: a slower taker may still put a segment into the next slot, so a fence has to follow */
	man.epoch++;	/* so that the dead one, should it look, does not take this for its own release */
	rc = root_put(ob, prefix, &man, etag, err);
	if (rc == ERR_CONFLICT) {
		err_clear(err);
		return 0;
	}
	return rc < 0 ? rc : 1;
}

int obox_tail_replay(struct obox *ob, struct obox_tail *t, const char *node, uint64_t incarnation, struct err *err)
{
	char *prefix = obox_user_prefix(ob->prefix, t->user);
	int rc = 0, i;

	for (i = 0; i < ROOT_TRIES && rc == 0; i++)
		rc = replay_once(ob, t, prefix, node, incarnation, err);
	free(prefix);
	return rc < 0 ? rc : rc == 0 ? err_set(err, ERR_BUSY, "user %s: others are at its root", t->user) : 0;
}
