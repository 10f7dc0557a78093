/* The state machine: what a root is after its records, applied in order.
 *
 * Deterministic: the same records give the same state, whoever applies them:
 * live serving, replay after a crash, rebuilding.  Only the place of a summary
 * (block and slot) differs between two runs; it is not part of what a client
 * can see. */
#include "obox/obox-private.h"

#include "mime/mime.h"

#include <strings.h>

void root_init(struct root_state *s, struct obox_user *u)
{
	memset(s, 0, sizeof(*s));
	s->user = u;
}

void root_release(struct root_state *s)
{
	size_t i;

	for (i = 0; i < s->n_boxes; i++)
		mbox_free(&s->boxes[i]);
	for (i = 0; i < s->n_subs; i++)
		free(s->subs[i]);
	for (i = 0; i < s->n_dead; i++)
		free(s->dead[i].name);
	free(s->dead);
	for (i = 0; i < s->n_blocks; i++)
		sumblock_release(&s->blocks[i]);
	free(s->boxes);
	free(s->subs);
	free(s->trash);
	free(s->blocks);
	hmap_free(&s->shared);
	memset(s, 0, sizeof(*s));
}

struct mbox *root_by_name(struct root_state *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->n_boxes; i++)
		if (!strcmp(s->boxes[i]->name, name))
			return s->boxes[i];
	return NULL;
}

struct mbox *root_by_guid(struct root_state *s, const struct obox_guid *g)
{
	size_t i;

	for (i = 0; i < s->n_boxes; i++)
		if (!memcmp(s->boxes[i]->guid.b, g->b, sizeof(g->b)))
			return s->boxes[i];
	return NULL;
}

uint64_t root_next_modseq(const struct root_state *s, const struct mbox *m)
{
	uint64_t first = modseq_first(s->epoch);

	return m->highestmodseq >= first ? modseq_after(m->highestmodseq) : first;
}

/* --- references to objects: one is the rule, more are counted --- */

static uint64_t shared_count(struct root_state *s, const struct obox_oid *oid)
{
	return (uint64_t)(uintptr_t)hmap_get(&s->shared, oid, sizeof(*oid));
}

static void add_ref(struct root_state *s, const struct obox_oid *oid)
{
	uint64_t n = shared_count(s, oid);

	hmap_put(&s->shared, oid, sizeof(*oid), (void *)(uintptr_t)(n ? n + 1 : 2));
}

void root_drop_ref(struct root_state *s, const struct obox_oid *oid, bool *last_r)
{
	uint64_t n = shared_count(s, oid);

	*last_r = n == 0;
	if (n > 2)
		hmap_put(&s->shared, oid, sizeof(*oid), (void *)(uintptr_t)(n - 1));
	else if (n)
		hmap_del(&s->shared, oid, sizeof(*oid));
}

uint64_t root_refs(struct root_state *s, const struct obox_oid *oid)
{
	uint64_t n = shared_count(s, oid);

	return n ? n : 1;
}

/* --- mailboxes --- */

static int corrupt(struct err *err, const char *what)
{
	return err_set(err, ERR_CORRUPT, "log: %s", what);
}

static struct mbox *load(struct root_state *s, const struct obox_guid *g, int *rc_r, struct err *err)
{
	struct mbox *m = root_by_guid(s, g);

	*rc_r = m ? (m->loaded ? 0 : user_load_mbox(s->user, m, err)) : corrupt(err, "record of a mailbox that does not exist");
	return *rc_r == 0 ? m : NULL;
}

static int apply_create(struct root_state *s, const struct rec *r, struct err *err)
{
	struct mbox *m;

	if (root_by_name(s, r->name) || root_by_guid(s, &r->guid))
		return corrupt(err, "mailbox is created twice");
	m = mbox_new();
	m->guid = r->guid;
	m->name = mem_strdup(r->name);
	m->uidvalidity = r->uidvalidity;
	m->special = r->special;
	m->uidnext = 1;
	m->loaded = m->dirty = true;
	mbox_note_modseq(m, r->modseq);
	m->gone_floor = 0;
	if (r->uidvalidity > s->last_uidvalidity)
		s->last_uidvalidity = r->uidvalidity;
	mem_grow(&s->boxes, &s->cap_boxes, s->n_boxes + 1, sizeof(*s->boxes));
	s->boxes[s->n_boxes++] = m;
	s->list_version++;
	return 0;
}

struct to_trash { struct root_state *s; struct obox_guid guid; int64_t time; bool keep_nothing; };

static void put_in_trash(void *ctx, const struct obox_msg *msg)
{
	struct to_trash *t = ctx;
	struct root_state *s = t->s;
	bool last;

	if (t->keep_nothing) {
		root_drop_ref(s, &msg->oid, &last);
		return;
	}
	mem_grow(&s->trash, &s->cap_trash, s->n_trash + 1, sizeof(*s->trash));
	s->trash[s->n_trash++] = (struct trash){ t->guid, t->time, *msg };
}

/* The name is kept while mail of the mailbox can be brought back. */
static void remember_dead(struct root_state *s, const struct mbox *m)
{
	if (!m->n)
		return;
	mem_grow(&s->dead, &s->cap_dead, s->n_dead + 1, sizeof(*s->dead));
	s->dead[s->n_dead++] = (struct dead){ m->guid, mem_strdup(m->name) };
}

static void forget_dead(struct root_state *s)
{
	size_t i, k, n = 0;

	for (i = 0; i < s->n_dead; i++) {
		for (k = 0; k < s->n_trash; k++)
			if (!memcmp(s->trash[k].guid.b, s->dead[i].guid.b, sizeof(s->dead[i].guid.b)))
				break;
		if (k < s->n_trash)
			s->dead[n++] = s->dead[i];
		else
			free(s->dead[i].name);
	}
	s->n_dead = n;
}

static int apply_delete(struct root_state *s, const struct rec *r, struct err *err)
{
	struct to_trash t = { s, r->guid, r->time, false };
	struct mbox *m;
	size_t i;
	int rc;

	m = load(s, &r->guid, &rc, err);
	if (!m)
		return rc;
	for (i = 0; i < m->n; i++)
		put_in_trash(&t, &m->msgs[i]);
	remember_dead(s, m);
	for (i = 0; s->boxes[i] != m; i++)
		;
	memmove(s->boxes + i, s->boxes + i + 1, (s->n_boxes - i - 1) * sizeof(*s->boxes));
	s->n_boxes--;
	s->list_version++;
	m->deleted = true;
	view_mailbox_deleted(m);
	if (!m->views && !m->pins)
		mbox_free(&m);	/* else the last view or call does */
	return 0;
}

static int apply_rename(struct root_state *s, const struct rec *r, struct err *err)
{
	struct mbox *m = root_by_guid(s, &r->guid);

	if (!m || root_by_name(s, r->name))
		return corrupt(err, "rename of a missing mailbox or onto another one");
	free(m->name);
	m->name = mem_strdup(r->name);
	s->list_version++;
	return 0;
}

int root_subscription(const struct root_state *s, const char *name, size_t *at_r)
{
	size_t lo = 0, hi = s->n_subs;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(s->subs[mid], name);

		if (c == 0) {
			*at_r = mid;
			return 1;
		}
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*at_r = lo;
	return 0;
}

static void apply_subscribe(struct root_state *s, const struct rec *r)
{
	size_t at;
	bool there = root_subscription(s, r->name, &at);

	if (there == r->on)
		return;
	s->list_version++;
	if (!r->on) {
		free(s->subs[at]);
		memmove(s->subs + at, s->subs + at + 1, (s->n_subs - at - 1) * sizeof(*s->subs));
		s->n_subs--;
		return;
	}
	mem_grow(&s->subs, &s->cap_subs, s->n_subs + 1, sizeof(*s->subs));
	memmove(s->subs + at + 1, s->subs + at, (s->n_subs - at) * sizeof(*s->subs));
	s->subs[at] = mem_strdup(r->name);
	s->n_subs++;
}

/* --- messages --- */

static int apply_save(struct root_state *s, const struct rec *r, struct err *err)
{
	struct obox_msg msg = r->msg;
	struct mbox *m;
	int rc;

	m = load(s, &r->guid, &rc, err);
	if (!m)
		return rc;
	if (msg.uid < m->uidnext)
		return corrupt(err, "UID of a save is not new");
	sum_add(s, r->summary, r->summary_len, &msg.sum_block, &msg.sum_slot);
	mbox_append(m, &msg);
	return 0;
}

static int apply_keyword(struct root_state *s, const struct rec *r, struct err *err)
{
	struct mbox *m;
	int rc;

	m = load(s, &r->guid, &rc, err);
	if (!m)
		return rc;
	if (r->bit != m->n_keywords || m->n_keywords == OBOX_KEYWORDS_MAX)
		return corrupt(err, "keyword out of order");
	m->keywords[m->n_keywords++] = mem_strdup(r->name);
	m->dirty = true;
	return 0;
}

static void new_flags(const struct rec *r, const struct obox_msg *msg, uint32_t *flags, uint64_t kw[2])
{
	int i;

	*flags = r->how == OBOX_FLAGS_ADD ? msg->flags | r->flags : r->how == OBOX_FLAGS_REMOVE ? msg->flags & ~r->flags : r->flags;
	for (i = 0; i < 2; i++)
		kw[i] = r->how == OBOX_FLAGS_ADD ? msg->kw[i] | r->kw[i] : r->how == OBOX_FLAGS_REMOVE ? msg->kw[i] & ~r->kw[i] : r->kw[i];
}

static int apply_flags(struct root_state *s, const struct rec *r, struct err *err)
{
	struct mbox *m;
	uint64_t kw[2];
	uint32_t flags;
	size_t i, k;
	int rc;

	m = load(s, &r->guid, &rc, err);
	if (!m)
		return rc;
	for (k = 0; k < r->uids->n; k++) {
		for (i = mbox_lower(m, r->uids->r[k].lo); i < m->n && m->msgs[i].uid <= r->uids->r[k].hi; i++) {
			new_flags(r, &m->msgs[i], &flags, kw);
			mbox_set_flags(m, &m->msgs[i], flags, kw, r->modseq);
		}
	}
	mbox_note_modseq(m, r->modseq);
	mbox_note_change(m, r->modseq, r->uids);
	m->dirty = true;
	return 0;
}

/* Keywords travel by name; those that do not fit the destination's table are lost. */
static void map_keywords(const struct mbox *from, struct mbox *to, uint64_t map_r[OBOX_KEYWORDS_MAX][2], const uint64_t used[2])
{
	size_t i;
	int bit;

	for (i = 0; i < from->n_keywords; i++) {
		map_r[i][0] = map_r[i][1] = 0;
		if (!(used[i / 64] >> (i % 64) & 1))
			continue;
		bit = mbox_keyword(to, from->keywords[i]);
		if (bit < 0 && to->n_keywords < OBOX_KEYWORDS_MAX) {
			bit = (int)to->n_keywords;
			to->keywords[to->n_keywords++] = mem_strdup(from->keywords[i]);
		}
		if (bit >= 0)
			map_r[i][bit / 64] |= UINT64_C(1) << (bit % 64);
	}
}

static void mapped_copy(struct root_state *s, const struct rec *r, const struct mbox *from, struct mbox *to)
{
	uint64_t map[OBOX_KEYWORDS_MAX][2], used[2] = { 0, 0 }, any;
	uint32_t uid = r->to_uid;
	size_t i, k, b;

	for (k = 0; k < r->uids->n; k++)
		for (i = mbox_lower(from, r->uids->r[k].lo); i < from->n && from->msgs[i].uid <= r->uids->r[k].hi; i++) {
			used[0] |= from->msgs[i].kw[0];
			used[1] |= from->msgs[i].kw[1];
		}
	any = used[0] | used[1];
	if (any)
		map_keywords(from, to, map, used);
	for (k = 0; k < r->uids->n; k++) {
		/* from may be to: its array then grows behind the range */
		for (i = mbox_lower(from, r->uids->r[k].lo); i < from->n && from->msgs[i].uid <= r->uids->r[k].hi; i++) {
			struct obox_msg msg = from->msgs[i];

			msg.uid = uid++;
			msg.modseq = r->to_modseq;
			msg.sdate = r->time;
			if (any) {
				uint64_t kw[2] = { 0, 0 };

				for (b = 0; b < from->n_keywords; b++)
					if (msg.kw[b / 64] >> (b % 64) & 1) {
						kw[0] |= map[b][0];
						kw[1] |= map[b][1];
					}
				msg.kw[0] = kw[0];
				msg.kw[1] = kw[1];
			}
			if (!r->on)
				add_ref(s, &msg.oid);
			mbox_append(to, &msg);
		}
	}
}

static int apply_copy(struct root_state *s, const struct rec *r, struct err *err)
{
	struct mbox *from, *to = NULL;
	int rc;

	from = load(s, &r->guid, &rc, err);
	if (from)
		to = load(s, &r->to, &rc, err);
	if (!to)
		return rc;
	if (r->to_uid < to->uidnext)
		return corrupt(err, "UID of a copy is not new");
	mapped_copy(s, r, from, to);
	if (r->on)	/* a move: the reference goes along */
		mbox_remove(s->user, from, r->uids, r->modseq, NULL, NULL);
	to->dirty = true;
	return 0;
}

static int apply_expunge(struct root_state *s, const struct rec *r, struct err *err)
{
	struct to_trash t = { s, r->guid, r->time, r->on };
	struct mbox *m;
	int rc;

	m = load(s, &r->guid, &rc, err);
	if (!m)
		return rc;
	mbox_remove(s->user, m, r->uids, r->modseq, put_in_trash, &t);
	return 0;
}

static void apply_purge(struct root_state *s, const struct rec *r)
{
	size_t i, n = 0;
	bool last;

	for (i = 0; i < s->n_trash; i++) {
		if (s->trash[i].time > r->time)
			s->trash[n++] = s->trash[i];
		else
			root_drop_ref(s, &s->trash[i].msg.oid, &last);
	}
	s->n_trash = n;
	forget_dead(s);
}

static int apply_undelete(struct root_state *s, const struct rec *r, struct err *err)
{
	uint32_t uid = r->to_uid;
	struct mbox *to;
	size_t i, n = 0;
	int rc;

	to = load(s, &r->to, &rc, err);
	if (!to)
		return rc;
	if (uid < to->uidnext)
		return corrupt(err, "UID of an undelete is not new");
	for (i = 0; i < s->n_trash; i++) {
		struct trash t = s->trash[i];

		if (memcmp(t.guid.b, r->guid.b, sizeof(t.guid.b)) != 0 || !seqset_contains(r->uids, t.msg.uid)) {
			s->trash[n++] = t;
			continue;
		}
		t.msg.uid = uid++;
		t.msg.modseq = r->to_modseq;
		t.msg.sdate = r->time;
		t.msg.flags &= ~(uint32_t)OBOX_DELETED;
		if (memcmp(r->to.b, r->guid.b, sizeof(r->to.b)) != 0)
			t.msg.kw[0] = t.msg.kw[1] = 0;	/* bits of another mailbox's table */
		mbox_append(to, &t.msg);
	}
	s->n_trash = n;
	return 0;
}

int root_apply(struct root_state *s, const struct rec *r, struct err *err)
{
	int rc = 0;

	switch (r->type) {
	case REC_MBOX_CREATE:
		rc = apply_create(s, r, err);
		break;
	case REC_MBOX_DELETE:
		rc = apply_delete(s, r, err);
		break;
	case REC_MBOX_RENAME:
		rc = apply_rename(s, r, err);
		break;
	case REC_SUBSCRIBE:
		apply_subscribe(s, r);
		break;
	case REC_SAVE:
		rc = apply_save(s, r, err);
		break;
	case REC_KEYWORD:
		rc = apply_keyword(s, r, err);
		break;
	case REC_FLAGS:
		rc = apply_flags(s, r, err);
		break;
	case REC_COPY:
		rc = apply_copy(s, r, err);
		break;
	case REC_EXPUNGE:
		rc = apply_expunge(s, r, err);
		break;
	case REC_PURGE:
		apply_purge(s, r);
		break;
	case REC_UNDELETE:
		rc = apply_undelete(s, r, err);
		break;
	case REC_FENCE:
		break;
	}
	if (rc == 0)
		s->lsn++;
	return rc;
}
