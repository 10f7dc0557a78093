/* Clients: each opens a user, does one thing and leaves.  What it was told goes
 * into the model at the moment it was told, before anybody else runs. */
#include "tests/sim/model.h"

#include "metacache/metacache.h"
#include "obox/obox-private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct client { struct life *l; unsigned user; bool final, collect; bool *ok; const char *node; bool force; };

const char *user_name_of(unsigned user)
{
	static const char *const names[USERS] = { "joe", "ann", "bob@example.org" };

	return names[user];
}

/* --- messages --- */

static void text_of(uint32_t content, char *out)	/* M_SIZE + content octets */
{
	size_t size = M_SIZE + content, n;
	unsigned k = content * 2654435761u;

	n = (size_t)snprintf(out, size, "From: a@example.org\r\nSubject: message %u\r\nMessage-ID: <%u@example.org>\r\n\r\n", content, content);
	for (; n < size; n++) {
		k = k * 1664525u + 1013904223u;
		out[n] = (char)('a' + (k >> 24) % 26);
	}
}

static int message(struct life *l, uint32_t content, struct obox_msgin **in_r, struct err *err)
{
	char text[M_SIZE + M_CONTENTS];
	int rc = obox_msgin_new(l->ob, in_r, err);

	text_of(content, text);
	if (rc == 0)
		rc = obox_msgin_write(*in_r, text, M_SIZE + content, err);
	if (rc == 0)
		rc = obox_msgin_finish(*in_r, err);
	return rc;
}

/* --- who owns it --- */

/* A node that knows that it was taken over shows what it has, and no more. */
static bool owns(const struct client *c, const struct obox_user *u)
{
	struct buf b = BUF_INIT(65536);
	char *key = mem_printf("%sroot", u->prefix);
	struct manifest man;
	struct err e = ERR_INIT;
	bool is = store_peek(key, &b) && manifest_decode(&man, c->l->ob->cfg.keys, key, b.data, b.len, &e) == 0 &&
		  man.epoch == u->man.epoch && man.incarnation == c->l->ob->incarnation && !u->broken && !c->l->fenced;

	buf_free(&b);
	free(key);
	return is;
}

/* Is it there, given up, and all in its snapshots?  Its epoch, or 0. */
static uint64_t is_cold(const struct client *c)
{
	char *prefix = obox_user_prefix("s", user_name_of(c->user)), *key = mem_printf("%sroot", prefix);
	struct buf b = BUF_INIT(65536);
	struct manifest man;
	struct err e = ERR_INIT;
	bool is = c->l->trouble < sim_now && store_peek(key, &b) && manifest_decode(&man, c->l->ob->cfg.keys, key, b.data, b.len, &e) == 0 && !man.incarnation &&
		  man.log_seq == man.snap_seq && !hmap_gets(&c->l->ob->users, user_name_of(c->user));

	buf_free(&b);
	free(key);
	free(prefix);
	return is ? man.epoch : 0;
}

/* --- changes --- */

static void begin(const struct client *c, struct obox_user *u, struct op *op, enum op_kind kind)
{
	op->kind = kind;
	op->life = c->l;
	op->user = c->user;
	op->epoch = u->man.epoch;
	model_begin(op);
}

static void ended(struct op *op, const char *what, int rc, const struct err *err, const uint32_t *uids)
{
	char list[100] = "";
	unsigned i;
	int n = 0;

	for (i = 0; i < op->n && n < 80; i++)
		n += snprintf(list + n, sizeof(list) - (size_t)n, " %u=%u%s%.0u", op->contents[i], op->uids[i], uids ? "->" : "", uids ? uids[i] : 0);
	trace("%s %s %s%s in epoch %" PRIu64 " (op %" PRIu64 "): %s", what, user_name_of(op->user), m_names[op->name], list, op->epoch, op->seq,
	      rc < 0 ? err->msg : "OK");
	if (rc == 0)
		model_acked(op, uids);
	else if (op->kind >= OP_CREATE && (rc == ERR_NOTFOUND || rc == ERR_EXISTS || rc == ERR_INVALID))
		model_refused(op);
	else
		model_failed(op);
}

/* The mailbox of a name now; NULL: none. */
static struct m_box *box_of(const struct client *c, struct obox_user *u, int name)
{
	struct err e = ERR_INIT;
	struct obox_status st;

	if (obox_mailbox_status(u, m_names[name], &st, &e) < 0)
		return NULL;
	return model_box(c->user, &st.guid, st.uidvalidity);
}

static int some_name(void)
{
	return rnd_below(2) ? 0 : (int)rnd_below(M_NAMES);
}

static void do_save(const struct client *c, struct obox_user *u)
{
	struct op *op = MEM_NEW(struct op);
	struct obox_save sv[M_TARGETS];
	uint32_t uids[M_TARGETS], uidvalidity = 0;
	struct err err = ERR_INIT;
	unsigned i, n = rnd_below(4) ? 1 : 1 + (unsigned)rnd_below(3);
	int rc = 0;

	memset(sv, 0, sizeof(sv));
	op->name = some_name();
	op->box = box_of(c, u, op->name);
	for (i = 0; op->box && i < n; i++) {
		op->contents[i] = model_new_content();
		if (!op->contents[i] || message(c->l, op->contents[i], &sv[i].msg, &err) < 0)
			break;
		sv[i].idate = INT64_MIN;
		op->n++;
	}
	if (op->n && op->n == n) {
		begin(c, u, op, OP_SAVE);
		rc = obox_save(u, m_names[op->name], sv, n, &uidvalidity, &err);
		for (i = 0; i < n; i++)
			op->uids[i] = uids[i] = sv[i].uid_r;
		ended(op, "save", rc, &err, uids);
		if (rc == 0 && uidvalidity != op->box->uidvalidity)
			violation(2, "save into %s says UIDVALIDITY %u, it is %u", m_names[op->name], uidvalidity, op->box->uidvalidity);
	}
	for (i = 0; i < n; i++)
		obox_msgin_free(&sv[i].msg);
}

/* Some messages that the view shows. */
static unsigned pick_uids(const struct m_box *b, struct obox_view *v, uint32_t *uids, struct seqset *set)
{
	unsigned n = 0, want = 1 + (unsigned)rnd_below(3), tries;

	for (tries = 0; b->n && tries < 12 && seqset_count(set) < want; tries++) {
		const struct m_msg m = b->msgs[rnd_below(b->n)];	/* a copy: others may go on, and add messages, while a lock is taken */
		struct obox_msg got;
		uint32_t seq;

		if (m.gone || seqset_contains(set, m.uid))
			continue;
		seq = obox_view_seq(v, m.uid, false);
		if (seq && obox_view_read(v, seq, &got, 1) == 1 && got.uid == m.uid && !(got.flags & OBOX_GONE))
			seqset_add(set, m.uid, m.uid);
	}
	for (tries = 0; tries < set->n; tries++) {
		uint32_t uid = set->r[tries].lo;

		for (; uid <= set->r[tries].hi; uid++)
			uids[n++] = uid;
	}
	return n;
}

static void note_pairs(struct op *op, const struct obox_copy_result *res, uint32_t *uids)
{
	uint32_t s = 0, d = 0;
	unsigned i, n = 0;

	for (i = 0; i < seqset_count(&res->src); i++) {
		s = seqset_next(&res->src, s + 1);
		d = seqset_next(&res->dst, d + 1);
		op->contents[n] = model_msg(op->box, s)->content;
		op->uids[n] = s;
		uids[n++] = d;
	}
	op->n = n;
}

static void do_copy(const struct client *c, struct obox_user *u, struct obox_view *v, struct op *op, const struct seqset *set, bool move)
{
	uint32_t uids[M_TARGETS] = { 0 };
	struct obox_copy_result res;
	struct err err = ERR_INIT;
	int rc;

	op->name2 = some_name();
	op->to = box_of(c, u, op->name2);
	if (!op->to)
		return;
	begin(c, u, op, move ? OP_MOVE : OP_COPY);
	rc = obox_copy(v, set, m_names[op->name2], move, &res, &err);
	if (rc == 0)
		note_pairs(op, &res, uids);
	ended(op, move ? "move" : "copy", rc, &err, rc == 0 ? uids : NULL);
	if (rc == 0 && res.uidvalidity && res.uidvalidity != op->to->uidvalidity)
		violation(2, "copy to %s says UIDVALIDITY %u, it is %u", m_names[op->name2], res.uidvalidity, op->to->uidvalidity);
	obox_copy_result_free(&res);
}

static void do_flags(const struct client *c, struct obox_user *u, struct obox_view *v, struct op *op, const struct seqset *set)
{
	struct obox_flag_change ch = { .how = OBOX_FLAGS_REPLACE, .unchangedsince = UINT64_MAX };
	struct oplock *lock = &c->l->locks[c->user];
	struct seqset changed = SEQSET_INIT;
	struct err err = ERR_INIT;
	unsigned i;
	int rc;

	if (lock->flags)
		return;
	lock->flags = true;
	ch.flags = (uint32_t)rnd_below(32) & ~(uint32_t)OBOX_DELETED;
	op->value = ch.flags | (sim_flag_delay() ? 0 : UINT32_C(1) << 31);
	begin(c, u, op, OP_FLAGS);
	rc = obox_store(v, set, &ch, NULL, &changed, NULL, &err);
	lock->flags = false;
	for (i = 0; rc == 0 && i < op->n; i++)	/* what had these flags already was not changed, and nothing is promised about it */
		op->skip[i] = !seqset_contains(&changed, op->uids[i]);
	seqset_free(&changed);
	ended(op, "flags", rc, &err, NULL);
}

static void do_with_view(const struct client *c, struct obox_user *u, unsigned what)
{
	struct op *op = MEM_NEW(struct op);
	struct seqset set = SEQSET_INIT;
	struct err err = ERR_INIT;
	struct obox_view *v;
	int rc;

	op->name = some_name();
	op->box = box_of(c, u, op->name);
	if (!op->box || obox_view_open(u, m_names[op->name], false, NULL, NULL, &v, &err) < 0)
		return;
	op->n = pick_uids(op->box, v, op->uids, &set);
	if (op->n && what < 2) {
		do_copy(c, u, v, op, &set, what == 1);
	} else if (op->n && what == 2) {
		begin(c, u, op, OP_EXPUNGE);
		rc = obox_expunge(v, &set, true, NULL, &err);
		ended(op, "expunge", rc, &err, NULL);
	} else if (op->n) {
		do_flags(c, u, v, op, &set);
	}
	obox_view_close(&v);
	seqset_free(&set);
}

static void do_structure(const struct client *c, struct obox_user *u)
{
	struct op *op = MEM_NEW(struct op);
	enum op_kind kind = OP_CREATE + (enum op_kind)rnd_below(3);
	struct err err = ERR_INIT;
	int rc;

	op->name = kind == OP_RENAME ? (int)rnd_below(M_NAMES) : 1 + (int)rnd_below(M_NAMES - 1);
	op->name2 = 1 + (int)rnd_below(M_NAMES - 1);
	if (m_users[c->user].n_dirs > M_DIRS / 2)
		return;
	op->box = kind == OP_DELETE ? box_of(c, u, op->name) : NULL;
	begin(c, u, op, kind);
	if (kind == OP_CREATE)
		rc = obox_mailbox_create(u, m_names[op->name], 0, &err);
	else if (kind == OP_DELETE)
		rc = obox_mailbox_delete(u, m_names[op->name], &err);
	else
		rc = obox_mailbox_rename(u, m_names[op->name], m_names[op->name2], &err);
	ended(op, kind == OP_CREATE ? "create" : kind == OP_DELETE ? "delete" : op->name2 == 1 ? "rename to A" : op->name2 == 2 ? "rename to B" : "rename to C",
	      rc, &err, NULL);
}

static void change(const struct client *c, struct obox_user *u)
{
	struct oplock *lock = &c->l->locks[c->user];
	unsigned what = (unsigned)rnd_below(100), i;

	if (what < 8) {
		for (i = 0; (lock->structure || lock->others) && i < 50; i++)
			sched_sleep(5000);
		if (lock->structure || lock->others)
			return;
		lock->structure = true;
		do_structure(c, u);
		lock->structure = false;
		return;
	}
	if (lock->structure)
		return;
	lock->others++;
	if (what < 45)
		do_save(c, u);
	else
		do_with_view(c, u, what < 55 ? 0 : what < 65 ? 1 : what < 76 ? 2 : 3);
	lock->others--;
}

/* --- reading --- */

static void read_body(const struct client *c, struct obox_user *u, struct m_box *b, const struct obox_msg *m)
{
	char want[M_SIZE + M_CONTENTS], got[M_SIZE + M_CONTENTS];
	struct obox_body *body = NULL;
	struct err err = ERR_INIT;
	struct m_msg *known;
	int rc = obox_body_open(u, m, &body, &err);
	bool same = false;

	if (rc == 0 && m->size < sizeof(got) && obox_body_size(body) == m->size) {
		text_of((uint32_t)m->size - M_SIZE, want);
		rc = obox_body_read(body, 0, got, (size_t)m->size, &err);
		same = rc == 0 && !memcmp(got, want, (size_t)m->size);
	}
	obox_body_close(&body);
	known = model_msg(b, m->uid);
	if (!known || known->gone || known->maybe || b->gone)
		return;
	if (rc == 0 && !same)
		violation(2, "UID %u is not the bytes of message %u", m->uid, known->content);
	if ((rc == ERR_NOTFOUND || rc == ERR_CORRUPT || (rc < 0 && c->final)) && owns(c, u))
		violation(1, "%s: UID %u, message %u cannot be read: %s", user_name_of(c->user), m->uid, known->content, err.msg);
}

static int check_box(const struct client *c, struct obox_user *u, const char *name, bool *found)
{
	struct obox_msg *msgs = mem_calloc(M_CONTENTS, sizeof(*msgs));
	struct seqset vanished = SEQSET_INIT;
	struct obox_status st, again;
	struct err err = ERR_INIT;
	struct view_of of = { .user = c->user };
	struct obox_view *v;
	struct m_box *b;
	bool known = false;
	uint64_t highest;
	size_t n, i, k;
	int rc = obox_view_open(u, name, true, NULL, NULL, &v, &err);

	if (rc < 0) {
		if (rc == ERR_CORRUPT)
			violation(1, "%s: mailbox %s cannot be opened: %s", user_name_of(c->user), name, err.msg);
		free(msgs);
		return rc == ERR_NOTFOUND && !c->final ? 0 : rc;
	}
	sim_task->nopreempt++;
	do {	/* one moment; the lock may have to be waited for */
		struct obox_sync sync;

		obox_view_sync(v, true, &sync);
		highest = sync.highestmodseq;
		obox_sync_free(&sync);
		obox_view_status(v, &st);
		b = model_box(c->user, &st.guid, st.uidvalidity);
		n = obox_view_read(v, 1, msgs, M_CONTENTS);
		if (b->since) {
			known = obox_view_modseq_known(v, b->since);
			obox_view_vanished(v, b->since, NULL, &vanished);
		}
		obox_view_status(v, &again);
		for (i = k = 0; i < n; i++)	/* what the view was not told of yet is not there any more */
			if (!(msgs[i].flags & OBOX_GONE))
				msgs[k++] = msgs[i];
		n = k;
	} while (again.highestmodseq != st.highestmodseq || again.uidnext != st.uidnext || again.messages != st.messages);
	st.highestmodseq = highest;
	of.epoch = u->man.epoch;
	of.owner = owns(c, u) && !obox_view_deleted(v);
	trace("reads %s %s: %zu messages, UIDNEXT %u, epoch %" PRIu64 "%s", user_name_of(c->user), name, n, st.uidnext, of.epoch, of.owner ? "" : " (not the owner)");
	model_see_box(&of, b, &st, msgs, n, known, &vanished);
	sim_task->nopreempt--;
	for (i = 0; i < n && violated_promise < 0; i++) {
		found[msgs[i].size - M_SIZE] = true;
		if (c->final || rnd_below(6) == 0)
			read_body(c, u, b, &msgs[i]);
	}
	obox_view_close(&v);
	seqset_free(&vanished);
	free(msgs);
	return 0;
}

static int check_user(const struct client *c, struct obox_user *u)
{
	bool *found = mem_calloc(M_CONTENTS, sizeof(*found));
	struct view_of of = { .user = c->user };
	struct obox_mailbox *list = NULL;
	struct err err = ERR_INIT;
	uint32_t k;
	size_t n = 0, i;
	int rc;

	sim_task->nopreempt++;
	rc = obox_mailboxes(u, &list, &n, &err);
	of.epoch = u->man.epoch;
	of.owner = owns(c, u);
	model_see_dir(&of, list, n);
	sim_task->nopreempt--;
	for (i = 0; i < n && rc == 0; i++)
		rc = check_box(c, u, list[i].name, found);
	obox_mailboxes_free(list, n);
	for (k = 1; rc == 0 && c->final && k < M_CONTENTS && violated_promise < 0; k++)
		if (model_lasting(c->user, k) && !found[k])
			violation(1, "%s: message %u was acknowledged, never expunged, and is nowhere", user_name_of(c->user), k);
	free(found);
	return rc;
}

/* --- tasks --- */

static int open_user(const struct client *c, struct obox_user **u_r)
{
	uint64_t trips = sim_task->trips, requests = sim_task->requests;
	int64_t start = sim_now;
	uint64_t cold = is_cold(c);
	struct err err = ERR_INIT;
	struct obox_owner o;
	struct obox_view *v;
	int rc = obox_user_locate(c->l->ob, user_name_of(c->user), u_r, &o, &err);

	if (rc == 0)
		world_served(c->user, c->l->node->name);
	else
		trace("%s is not served here: %s", user_name_of(c->user), err.msg);
	if (rc == 0 && cold && (*u_r)->man.epoch == cold + 1 && obox_view_open(*u_r, "INBOX", true, NULL, NULL, &v, &err) == 0) {
		trips = sim_task->trips - trips;
		requests = sim_task->requests - requests;
		if (c->l->trouble < start && c->l->cache_lied < start && (trips > 4 || requests > 5))
			violation(4, "opening %s cold took %" PRIu64 " requests, %" PRIu64 " trips", user_name_of(c->user), requests, trips);
		obox_view_close(&v);
	}
	if (rc == ERR_BUSY && o.node[0]) {
		world_served(c->user, o.node);
		if (c->final || rnd_below(3) == 0)
			world_release(c->user);
	}
	return rc;
}

static void *change_main(void *arg)
{
	struct client *c = arg;
	struct obox_user *u;
	unsigned n = 1 + (unsigned)rnd_below(2);

	if (open_user(c, &u) == 0) {
		for (; n && !c->l->closing; n--)
			change(c, u);
		obox_user_close(&u);
	}
	c->l->clients--;
	return NULL;
}

static void *check_main(void *arg)
{
	struct client *c = arg;
	struct obox_user *u;

	if (open_user(c, &u) == 0) {
		if (check_user(c, u) == 0 && c->final && owns(c, u))
			*c->ok = true;
		obox_user_close(&u);
	}
	c->l->clients--;
	return NULL;
}

static void *release_main(void *arg)
{
	struct client *c = arg;
	struct err err = ERR_INIT;
	int rc = obox_user_release(c->l->ob, user_name_of(c->user), &err);

	trace("release of %s: %s", user_name_of(c->user), rc < 0 ? err.msg : "OK");
	c->l->clients--;
	return NULL;
}

static void hear(void *ctx, const char *text)
{
	trace("adopting: %s", text);
}

static void *operate_main(void *arg)
{
	struct client *c = arg;
	struct err err = ERR_INIT;
	bool on = !metacache_draining(c->l->mc);
	int rc;

	if (c->node) {
		rc = metacache_adopt(c->l->mc, c->node, c->force, hear, NULL, &err);
		trace("adopt %s%s: %s", c->node, c->force ? " by force" : "", rc < 0 ? err.msg : "OK");
	} else {
		rc = metacache_drain(c->l->mc, on, false, &err);
		trace("drain %s: %s", on ? "on" : "off", rc < 0 ? err.msg : "OK");
	}
	c->l->clients--;
	return NULL;
}

static void *flush_main(void *arg)
{
	struct client *c = arg;
	struct obox_gc_stats st;
	struct err err = ERR_INIT;
	struct obox_user *u;

	if (!c->collect) {
		obox_flush(c->l->ob, rnd_below(3) ? user_name_of(c->user) : NULL, &err);
	} else if (open_user(c, &u) == 0) {
		sim_task->may_list = true;
		obox_gc(u, false, &st, &err);
		trace("collected %s: %s", user_name_of(c->user), err.code ? err.msg : "OK");
		obox_user_close(&u);
	}
	c->l->clients--;
	return NULL;
}

static void spawn(struct life *l, unsigned user, const char *name, void *(*fn)(void *), struct client c)
{
	c.l = l;
	c.user = user;
	l->clients++;
	sched_task(l, name, fn, mem_dup(&c, sizeof(c)));
}

void client_start(struct life *l, unsigned user)
{
	spawn(l, user, "client", change_main, (struct client){ .ok = NULL });
}

void client_check(struct life *l, unsigned user, bool final, bool *ok)
{
	spawn(l, user, "reader", check_main, (struct client){ .final = final, .ok = ok });
}

void client_release(struct life *l, unsigned user)
{
	spawn(l, user, "release", release_main, (struct client){ .ok = NULL });
}

void client_operate(struct life *l, const char *node, bool force)
{
	spawn(l, 0, "operator", operate_main, (struct client){ .node = node, .force = force });
}

void client_flush(struct life *l, unsigned user, bool collect)
{
	spawn(l, user, "flush", flush_main, (struct client){ .collect = collect });
}
