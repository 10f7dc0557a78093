#include "tests/sim/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const m_names[M_NAMES] = { "INBOX", "A", "B", "C" };
struct m_user m_users[USERS];
struct sim_counts sim_counts;
enum { TROUBLE_LASTS_US = 3500000 };	/* a request waits so long for its answer */
static struct op *ops;
static uint64_t seq;
static uint32_t n_contents;
static struct { unsigned user; bool acked, removable; } contents[M_CONTENTS];

void model_reset(void)
{
	unsigned i;

	memset(m_users, 0, sizeof(m_users));
	memset(&sim_counts, 0, sizeof(sim_counts));
	memset(contents, 0, sizeof(contents));
	ops = NULL;
	seq = n_contents = 0;
	for (i = 0; i < USERS; i++) {
		m_users[i].n_dirs = 1;
		m_users[i].dirs[0].there[0] = true;
	}
}

uint32_t model_new_content(void)
{
	return n_contents < M_CONTENTS - 1 ? ++n_contents : 0;
}

bool model_lasting(unsigned user, uint32_t content)
{
	return contents[content].user == user && contents[content].acked && !contents[content].removable;
}

/* --- messages --- */

static size_t lower(const struct m_box *b, uint32_t uid)
{
	size_t lo = 0, hi = b->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (b->msgs[mid].uid < uid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct m_msg *model_msg(struct m_box *b, uint32_t uid)
{
	size_t i = lower(b, uid);

	return i < b->n && b->msgs[i].uid == uid ? &b->msgs[i] : NULL;
}

static const char *where(unsigned user, const struct m_box *b)
{
	static char text[80];

	snprintf(text, sizeof(text), "%s/%02x%02x%02x", user_name_of(user), b->guid.b[0], b->guid.b[1], b->guid.b[2]);
	return text;
}

/* A UID with its content, seen or acknowledged for the first time or again. */
static struct m_msg *know(unsigned user, struct m_box *b, uint32_t uid, uint32_t content)
{
	size_t i = lower(b, uid), k, n = 1;

	if (i < b->n && b->msgs[i].uid == uid) {
		if (b->msgs[i].content != content)
			violation(2, "%s: UID %u was message %u and is message %u", where(user, b), uid, b->msgs[i].content, content);
		return &b->msgs[i];
	}
	for (k = 0; k < b->n; k++)
		n += b->msgs[k].content == content;
	if (content >= M_CONTENTS || n > b->allowed[content])
		violation(2, "%s: message %u is there %zu times, saved or copied to there %u times (UID %u)", where(user, b), content, n,
			  content < M_CONTENTS ? b->allowed[content] : 0, uid);
	if (uid < b->uidnext)
		violation(2, "%s: UID %u (message %u) appears when UIDNEXT was %u already", where(user, b), uid, content, b->uidnext);
	mem_grow(&b->msgs, &b->cap, b->n + 1, sizeof(*b->msgs));
	memmove(b->msgs + i + 1, b->msgs + i, (b->n - i) * sizeof(*b->msgs));
	b->n++;
	memset(&b->msgs[i], 0, sizeof(b->msgs[i]));
	b->msgs[i].uid = uid;
	b->msgs[i].content = content;
	return &b->msgs[i];
}

struct m_box *model_box(unsigned user, const struct obox_guid *g, uint32_t uidvalidity)
{
	struct m_box *b;

	for (b = m_users[user].boxes; b; b = b->next)
		if (!memcmp(b->guid.b, g->b, sizeof(g->b)))
			break;
	if (b && b->uidvalidity != uidvalidity)
		violation(2, "%s: UIDVALIDITY was %u and is %u", where(user, b), b->uidvalidity, uidvalidity);
	if (!b) {
		b = MEM_NEW(struct m_box);
		b->guid = *g;
		b->uidvalidity = uidvalidity;
		b->next = m_users[user].boxes;
		m_users[user].boxes = b;
	}
	return b;
}

/* --- directories --- */

/* What a change makes of a directory; false: it cannot be done there. */
static bool dir_apply(struct m_dir *d, const struct op *op)
{
	int a = op->name, b = op->name2;

	if (op->kind == OP_CREATE ? d->there[a] : !d->there[a] || (op->kind == OP_RENAME && d->there[b]))
		return false;
	if (op->kind == OP_CREATE) {
		d->there[a] = true;
		d->box[a] = NULL;
		return true;
	}
	if (op->kind == OP_RENAME) {
		d->there[b] = true;
		d->box[b] = d->box[a];
	}
	d->box[a] = NULL;
	d->there[a] = op->kind == OP_RENAME && a == 0;	/* INBOX begins anew */
	return true;
}

/* What may be, and what is when op is done, too; up to max. */
static size_t dirs_extend(struct m_dir *dirs, size_t n, size_t max, const struct op *op, unsigned bit)
{
	size_t i, end = n;

	for (i = 0; i < n && end < max; i++) {
		dirs[end] = dirs[i];
		dirs[end].done |= bit;
		end += dir_apply(&dirs[end], op);
	}
	return end;
}

/* Of the directories that may be those stay in which op can be done. */
static size_t dirs_narrow(struct m_user *u, const struct op *op)
{
	struct m_dir d;
	size_t i, n = 0;

	for (i = 0; i < u->n_dirs; i++) {
		d = u->dirs[i];
		if (dir_apply(&d, op))
			u->dirs[n++] = d;
	}
	if (n)
		u->n_dirs = n;
	return n;
}

/* What an earlier owner had begun and is not answered (it stands still), its successor may have found in the journal. The
 * answer may still come, and then tells of what was before all that the successor did. */
static void dirs_of_sleepers(struct m_user *u, const struct op *op)
{
	struct op *o;

	for (o = ops; o; o = o->next)
		if (o->user == op->user && o->kind >= OP_CREATE && !o->settled && !o->slept && o->epoch < op->epoch) {
			u->n_dirs = dirs_extend(u->dirs, u->n_dirs, M_DIRS, o, 0);
			o->slept = true;
		}
}

static void dirs_acked(struct m_user *u, const struct op *op)
{
	size_t n = 0;

	if (op->slept && !op->settled)
		return;
	if (!op->settled)
		n = dirs_narrow(u, op);
	if (!op->settled && !n) {
		dirs_of_sleepers(u, op);
		n = dirs_narrow(u, op);
	}
	if (op->settled ? !op->happened : !n)
		violation(1, "%s: a change of mailbox %s was acknowledged that %s", user_name_of(op->user), m_names[op->name],
			  op->settled ? "did not happen" : "cannot be");
}

static void dirs_failed(struct m_user *u, const struct op *op)
{
	if (op->settled || op->slept || op->epoch < u->epoch)
		return;
	u->n_dirs = dirs_extend(u->dirs, u->n_dirs, M_DIRS, op, 0);
	if (op->epoch > u->dirs_epoch)
		u->dirs_epoch = op->epoch;
}

/* The first INBOX is shown while its record is on its way; nothing was acknowledged in it when it is lost, and another one made. */
static bool was_nothing(unsigned user, const struct m_box *b)
{
	size_t i;

	for (i = 0; i < m_users[user].n_durable; i++)
		if (m_users[user].durable[i].epoch == b->born)
			return false;
	return !b->n;
}

static bool same_dir(unsigned user, const struct m_dir *d, const struct obox_mailbox *list, size_t n, struct m_dir *now)
{
	size_t i;
	int k, found = 0;

	*now = *d;
	for (k = 0; k < M_NAMES; k++) {
		for (i = 0; i < n && (!list[i].exists || strcmp(list[i].name, m_names[k]) != 0); i++)
			;
		if (d->there[k] != (i < n))
			return false;
		if (i == n)
			continue;
		found++;
		if (d->box[k] && memcmp(d->box[k]->guid.b, list[i].guid.b, 16) != 0 && (k || !was_nothing(user, d->box[k])))
			return false;
		if (!d->box[k] || !k)
			now->box[k] = model_box(user, &list[i].guid, list[i].uidvalidity);
	}
	return found == (int)n;
}

static void describe(const struct m_dir *d, char *out, size_t size)
{
	int k, n = 0;

	for (k = 0; k < M_NAMES && n < (int)size; k++)
		if (d->there[k])
			n += snprintf(out + n, size - (size_t)n, " %s=%02x%02x", m_names[k], d->box[k] ? d->box[k]->guid.b[0] : 0,
				      d->box[k] ? d->box[k]->guid.b[1] : 0);
}

static void strange_dir(const struct view_of *v, const struct m_dir *may, size_t n_may, const struct obox_mailbox *list, size_t n)
{
	struct m_dir d = { .there = { false } };
	char text[100] = "";
	size_t i;
	int k;

	for (i = 0; i < n; i++)
		for (k = 0; k < M_NAMES; k++)
			if (!strcmp(list[i].name, m_names[k])) {
				d.there[k] = true;
				d.box[k] = model_box(v->user, &list[i].guid, list[i].uidvalidity);
			}
	for (i = 0; i < n_may; i++) {
		describe(&may[i], text, sizeof(text));
		trace("model: may be%s", text);
	}
	describe(&d, text, sizeof(text));
	violation(1, "%s: mailboxes are%s, in epoch %" PRIu64 "; not what was acknowledged", user_name_of(v->user), text, v->epoch);
}

/* This is what is in the store, for ever, but for changes of this epoch. */
static void settle_dir(const struct view_of *v, const struct m_dir *found)
{
	struct m_user *u = &m_users[v->user];
	unsigned bit = 1;
	struct op *op;

	for (op = ops; op; op = op->next) {
		if (op->user != v->user || op->kind < OP_CREATE)
			continue;
		if (!op->settled) {
			op->settled = true;
			op->happened = found->done & bit;
		}
		bit <<= 1;
	}
	u->dirs[0] = *found;
	u->dirs[0].done = 0;
	u->n_dirs = 1;
}

void model_see_dir(const struct view_of *v, const struct obox_mailbox *list, size_t n)
{
	struct m_user *u = &m_users[v->user];
	struct m_dir may[4 * M_DIRS], now, found;
	size_t i, n_may = u->n_dirs, is = 0;
	bool settled = v->epoch > u->dirs_epoch;
	unsigned bit = 1;
	struct op *op;

	if (!v->owner)
		return;
	memcpy(may, u->dirs, n_may * sizeof(*may));
	for (op = ops; op; op = op->next)
		if (op->user == v->user && op->kind >= OP_CREATE) {
			if (!op->settled)
				n_may = dirs_extend(may, n_may, MEM_COUNT(may), op, bit);
			settled &= op->settled || op->epoch < v->epoch;
			bit <<= 1;
		}
	for (i = 0; i < n_may; i++)
		if (same_dir(v->user, &may[i], list, n, &now)) {
			if (i < u->n_dirs)
				u->dirs[i] = now;
			found = now;
			is++;
		}
	if (!is) {
		strange_dir(v, may, n_may, list, n);
		return;
	}
	for (i = 0; i < n; i++) {
		struct m_box *b = model_box(v->user, &list[i].guid, list[i].uidvalidity);

		if (!b->born)
			b->born = v->epoch;
		if (b->gone)
			violation(1, "%s: mailbox %s was deleted and is there", user_name_of(v->user), list[i].name);
	}
	if (settled)
		settle_dir(v, &found);
	if (v->epoch > u->epoch)
		u->epoch = v->epoch;
}

/* --- changes --- */

void model_begin(struct op *op)
{
	unsigned i;

	op->seq = ++seq;
	op->next = ops;
	ops = op;
	for (i = 0; i < op->n; i++) {
		struct m_msg *m = op->kind != OP_SAVE ? model_msg(op->box, op->uids[i]) : NULL;

		if (m)
			op->contents[i] = m->content;
		if (op->kind == OP_SAVE) {
			op->box->allowed[op->contents[i]]++;
			contents[op->contents[i]].user = op->user;
		}
		if (op->kind == OP_COPY || op->kind == OP_MOVE)
			op->to->allowed[op->contents[i]]++;
		if (m && (op->kind == OP_EXPUNGE || op->kind == OP_MOVE) && op->epoch > m->maybe && op->epoch >= m_users[op->user].epoch)
			m->maybe = op->epoch;
		if (op->kind == OP_EXPUNGE)
			contents[op->contents[i]].removable = true;
		if (m && op->kind == OP_FLAGS) {
			mem_grow(&m->f, &m->cap_f, m->n_f + 1, sizeof(*m->f));
			if (!m->n_f)
				m->f[m->n_f++] = (struct m_flags){ .acked = true, .firm = true, .any = true };
			mem_grow(&m->f, &m->cap_f, m->n_f + 1, sizeof(*m->f));
			m->f[m->n_f++] = (struct m_flags){ op->value, op->epoch, op->seq, sim_now, op->life->id, false, false, false };
		}
	}
	if (op->kind == OP_DELETE && op->box) {
		for (i = 0; i < op->box->n; i++)
			contents[op->box->msgs[i].content].removable = true;
		for (i = 0; i < M_CONTENTS; i++)
			if (op->box->allowed[i])
				contents[i].removable = true;
	}
}

static void end(struct op *op)
{
	struct op **p;

	for (p = &ops; *p != op; p = &(*p)->next)
		;
	*p = op->next;
}

void model_failed(struct op *op)
{
	end(op);
	sim_counts.failed++;
	if (op->kind >= OP_CREATE)
		dirs_failed(&m_users[op->user], op);
}

void model_refused(struct op *op)
{
	end(op);
}

/* What was applied before op in its epoch is durable. */
static void note_durable(struct m_user *u, const struct op *op)
{
	size_t i;

	for (i = 0; i < u->n_durable && u->durable[i].epoch != op->epoch; i++)
		;
	if (i == MEM_COUNT(u->durable))
		return;
	if (i == u->n_durable) {
		u->durable[i].epoch = op->epoch;
		u->n_durable++;
	}
	if (op->seq > u->durable[i].seq)
		u->durable[i].seq = op->seq;
}

static void flags_acked(struct op *op)
{
	unsigned i;
	size_t k;

	for (i = 0; i < op->n; i++) {
		struct m_msg *m = model_msg(op->box, op->uids[i]);

		for (k = 0; k < m->n_f && !op->skip[i]; k++)
			if (m->f[k].seq == op->seq) {
				m->f[k].acked = true;
				m->f[k].firm = op->value >> 31;	/* synchronous */
				m->f[k].value &= OBOX_FLAGS_ALL;
				m->f[k].at = sim_now;
				m->f[k].seq = ++seq;
			}
	}
}

void model_acked(struct op *op, const uint32_t *uids)
{
	unsigned i;

	end(op);
	sim_counts.acked++;
	for (i = 0; i < op->n && uids; i++) {
		know(op->user, op->kind == OP_SAVE ? op->box : op->to, uids[i], op->contents[i]);
		contents[op->contents[i]].acked = true;
	}
	for (i = 0; i < op->n && (op->kind == OP_EXPUNGE || op->kind == OP_MOVE); i++) {
		struct m_msg *m = model_msg(op->box, op->uids[i]);

		m->gone = true;
	}
	if (op->kind == OP_FLAGS)
		flags_acked(op);
	else if (op->kind != OP_EXPUNGE && (op->n || op->kind >= OP_CREATE))	/* what changed nothing waited for nothing */
		note_durable(&m_users[op->user], op);
	if (op->kind == OP_DELETE && op->box)
		op->box->gone = true;
	if (op->kind >= OP_CREATE)
		dirs_acked(&m_users[op->user], op);
}

/* --- flags --- */

/* What was acknowledged in time, while the way to the store was as it should be, and no request without an answer was left. */
static void settle_time(struct life *l, struct m_msg *m, int64_t before)
{
	size_t i;

	for (i = 0; i < m->n_f; i++)
		if (m->f[i].acked && m->f[i].life == l->id && m->f[i].at < before && l->trouble + TROUBLE_LASTS_US < m->f[i].at)
			m->f[i].firm = true;
}

void model_life_over(struct life *l)
{
	int64_t before = l->fenced ? 0 : sim_now - sim_flag_delay() * 2 - 300000;	/* one that was taken over has not noticed at once */
	struct m_box *b;
	struct op *op;
	unsigned i;
	size_t k;

	for (i = 0; i < USERS; i++)
		for (b = m_users[i].boxes; b; b = b->next)
			for (k = 0; k < b->n; k++)
				settle_time(l, &b->msgs[k], before);
again:
	for (op = ops; op; op = op->next)
		if (op->life == l) {
			model_failed(op);
			goto again;
		}
}

static bool is_firm(const struct m_user *u, const struct m_flags *f)
{
	size_t i;

	for (i = 0; i < u->n_durable && !f->firm && f->acked; i++)
		if (u->durable[i].epoch == f->epoch)
			return f->seq < u->durable[i].seq;
	return f->firm;
}

static void see_flags(const struct view_of *v, const struct m_box *b, struct m_msg *m, uint32_t flags)
{
	struct m_user *u = &m_users[v->user];
	size_t i, min = 0;

	if (!m->n_f) {
		mem_grow(&m->f, &m->cap_f, 1, sizeof(*m->f));
		m->f[m->n_f++] = (struct m_flags){ .value = flags, .acked = true, .firm = true };
		return;
	}
	for (i = 0; i < m->n_f; i++)
		if (m->f[i].acked && (m->f[i].epoch == v->epoch || is_firm(u, &m->f[i])))
			min = i;
	for (i = m->n_f; i-- > min;)
		if (m->f[i].any || (m->f[i].value & OBOX_FLAGS_ALL) == flags)
			break;
	if (i + 1 == min || i == SIZE_MAX) {
		for (i = 0; i < m->n_f; i++)
			trace("model: UID %u flags %u, epoch %" PRIu64 ", %s%s", m->uid, m->f[i].value & OBOX_FLAGS_ALL, m->f[i].epoch,
			      m->f[i].acked ? "acknowledged" : "begun", is_firm(u, &m->f[i]) ? ", durable" : "");
		violation(1, "%s: UID %u has flags %u in epoch %" PRIu64 ": an acknowledged change is lost, or nobody set that", where(v->user, b), m->uid,
			  flags, v->epoch);
		return;
	}
	m->f[i].value = flags;
	m->f[i].any = false;
	/* what came behind in earlier epochs is lost for good, and this is what later epochs begin with */
	if (m->f[i].epoch < v->epoch) {
		m->f[i].firm = true;
		m->f[i].acked = true;
		m->f[0] = m->f[i];
		m->f[0].epoch = v->epoch;
		for (i++, min = 1; i < m->n_f; i++)
			if (m->f[i].epoch >= v->epoch)
				m->f[min++] = m->f[i];
		m->n_f = min;
	}
}

/* --- a mailbox is read --- */

static void see_change(const struct view_of *v, struct m_box *b, const struct obox_msg *msgs, size_t n, const struct seqset *vanished)
{
	size_t i, k = 0;

	for (i = 0; i < n; i++) {
		while (k < b->n_seen && b->seen[k].uid < msgs[i].uid) {
			if (!seqset_contains(vanished, b->seen[k].uid))
				violation(2, "%s: UID %u vanished and a client that knows modseq %" PRIu64 " is not told", where(v->user, b),
					  b->seen[k].uid, b->since);
			k++;
		}
		if (k < b->n_seen && b->seen[k].uid == msgs[i].uid) {
			if (b->seen[k].flags != msgs[i].flags && msgs[i].modseq <= b->since)
				violation(2, "%s: UID %u changed flags %u to %u, its modseq %" PRIx64 " is not above %" PRIx64, where(v->user, b),
					  msgs[i].uid, b->seen[k].flags, msgs[i].flags, msgs[i].modseq, b->since);
			k++;
		} else if (msgs[i].modseq <= b->since) {
			violation(2, "%s: UID %u is new, its modseq %" PRIx64 " is not above %" PRIx64, where(v->user, b), msgs[i].uid, msgs[i].modseq,
				  b->since);
		}
	}
	for (; k < b->n_seen; k++)
		if (!seqset_contains(vanished, b->seen[k].uid))
			violation(2, "%s: UID %u vanished and a client that knows modseq %" PRIu64 " is not told", where(v->user, b), b->seen[k].uid,
				  b->since);
}

static void remember(struct m_box *b, uint64_t since, const struct obox_msg *msgs, size_t n)
{
	size_t i;

	b->since = since;
	b->n_seen = 0;
	mem_grow(&b->seen, &b->cap_seen, n, sizeof(*b->seen));
	for (i = 0; i < n; i++)
		b->seen[b->n_seen++] = (struct m_seen){ msgs[i].uid, msgs[i].flags };
}

static void see_absent(const struct view_of *v, struct m_box *b, struct m_msg *m)
{
	if (m->gone)
		return;
	if (!m->maybe)
		violation(1, "%s: message %u (UID %u) is lost; epoch %" PRIu64, where(v->user, b), m->content, m->uid, v->epoch);
	if (m->maybe && m->maybe < v->epoch) {
		m->gone = true;
		m->maybe = 0;
	}
}

void model_see_box(const struct view_of *v, struct m_box *b, const struct obox_status *st, const struct obox_msg *msgs, size_t n, bool since_known,
		   const struct seqset *vanished)
{
	size_t i, k;

	sim_counts.checks++;
	for (i = 0; i < n; i++) {
		struct m_msg *m;

		if (i && msgs[i].uid <= msgs[i - 1].uid)
			violation(2, "%s: UID %u behind UID %u", where(v->user, b), msgs[i].uid, msgs[i - 1].uid);
		m = know(v->user, b, msgs[i].uid, (uint32_t)msgs[i].size - M_SIZE);
		if (violated_promise >= 0)
			return;
		if (!v->owner)
			continue;
		if (m->gone)
			violation(1, "%s: message %u (UID %u) was removed and is there; epoch %" PRIu64, where(v->user, b), m->content, m->uid, v->epoch);
		if (m->maybe && m->maybe < v->epoch)
			m->maybe = 0;
		see_flags(v, b, m, msgs[i].flags & OBOX_FLAGS_ALL);
	}
	if (v->owner) {
		if (v->epoch > m_users[v->user].epoch)
			m_users[v->user].epoch = v->epoch;
		for (i = k = 0; k < b->n; k++) {
			while (i < n && msgs[i].uid < b->msgs[k].uid)
				i++;
			if ((i == n || msgs[i].uid != b->msgs[k].uid) && !b->gone)
				see_absent(v, b, &b->msgs[k]);
		}
		if (st->uidnext < b->uidnext)
			violation(2, "%s: UIDNEXT was %u and is %u", where(v->user, b), b->uidnext, st->uidnext);
		b->uidnext = st->uidnext;
		if (st->highestmodseq < b->modseq)
			violation(2, "%s: HIGHESTMODSEQ was %" PRIx64 " and is %" PRIx64, where(v->user, b), b->modseq, st->highestmodseq);
		b->modseq = st->highestmodseq;
		if (b->since && since_known)
			see_change(v, b, msgs, n, vanished);
	}
	if (!b->since || rnd_below(2))
		remember(b, st->highestmodseq, msgs, n);
}
