/* Taking over a node that died.
 *
 *   claim    its record is swapped: whoever else wants it, itself included, loses
 *   seal     its journal is read from the floor up to the first missing name, and that name is created: what it
 *            may still send fails there, and what it sent behind that is void
 *   replay   the records go behind the logs of the users whose root still names it (obox_tail_replay)
 *   done     its record says so; roots that still name it are nobody's from then on
 *
 * Each step may be done again, by the same node or another, at any time: a
 * claim is taken from a claimer that died, a seal is found, a log has what it
 * has.  The seal stays for ever, so a node that sleeps through all of this and
 * wakes long after finds it, too; the rest of the journal is deleted. */
#include "metacache/metacache-private.h"

#include "base/log.h"

#include <stdatomic.h>

enum { AHEAD = 32, REREADS = 2, PIECE_MAX = 512 << 20, REPLAYERS = 8 };

struct takeover {
	struct metacache *mc;
	const struct node_record *rec;
	struct hmap tails;	/* user -> struct obox_tail */
	uint64_t seq;		/* the next to read; in the end the seal's */
	uint64_t records;
	bool sealed;
	atomic_bool damaged;	/* something of it could not be used: it is kept for who mends it */
};

static void take_record(void *ctx, const struct journal_entry *e)
{
	struct takeover *t = ctx;
	struct obox_tail *tail = hmap_gets(&t->tails, e->user);

	if (!tail) {
		tail = obox_tail_new(e->user);
		hmap_put(&t->tails, e->user, strlen(e->user), tail);
	}
	obox_tail_add(tail, e->epoch, e->lsn, e->landed, e->rec, e->rec_len);
	t->records++;
}

/* One piece, as it came from the store under the name of t->seq. */
static int take_piece(struct takeover *t, const char *key, const struct buf *sealed, struct err *err)
{
	struct buf plain = BUF_INIT(PIECE_MAX);
	enum piece_kind kind = PIECE_RECORDS;
	int rc = obox_unseal(t->mc->ob, key, sealed, &plain, err);

	if (rc == 0)
		rc = piece_decode(&plain, &kind, take_record, t, err);
	buf_free(&plain);
	if (rc == 0 && kind == PIECE_SEAL)
		t->sealed = true;
	else if (rc == 0)
		t->seq++;
	return rc;
}

/* A piece that stays damaged when it is read again is passed over: the records in it are lost, and its users
 * are told of a gap, but nobody else waits for it. */
static int take_or_pass(struct takeover *t, const char *key, const struct buf *sealed, struct err *err)
{
	struct buf again = BUF_INIT(PIECE_MAX);
	int rc = take_piece(t, key, sealed, err), i;

	for (i = 0; rc == ERR_CORRUPT && i < REREADS; i++) {
		buf_clear(&again);
		err_clear(err);
		rc = objstore_get_fresh(t->mc->cfg.store, key, 0, 0, &again, err);
		if (rc == 0)
			rc = take_piece(t, key, &again, err);
	}
	buf_free(&again);
	if (rc != ERR_CORRUPT)
		return rc;
	log_event(LOG_ERROR, "journal object is damaged: changes in it may be lost; it is kept", LF_S("object", key), LF_ERR(err), LF_END);
	err_clear(err);
	t->damaged = true;
	t->seq++;
	return 0;
}

static int seal(struct takeover *t, struct err *err)
{
	char *key = journal_key(t->mc, t->rec->node, t->rec->incarnation, t->seq);
	struct buf plain = BUF_INIT(256), sealed = BUF_INIT(4096), there = BUF_INIT(PIECE_MAX);
	int rc;

	piece_encode(PIECE_SEAL, 0, NULL, &plain);
	rc = obox_seal(t->mc->ob, key, &plain, &sealed, err);
	if (rc == 0)
		rc = obox_put_once(t->mc->cfg.store, key, sealed.data, sealed.len, &there, err);
	if (rc == 0) {
		t->sealed = true;
	} else if (rc == ERR_EXISTS) {	/* its last word came before ours, or another one sealed it */
		err_clear(err);
		rc = take_or_pass(t, key, &there, err);
	}
	buf_free(&plain);
	buf_free(&sealed);
	buf_free(&there);
	free(key);
	return rc;
}

/* The next few at once; stops behind the first that is missing, and seals there. */
static int read_ahead(struct takeover *t, struct err *err)
{
	struct objstore_op ops[AHEAD] = { { 0 } };
	struct buf sealed[AHEAD];
	bool missing = false;
	size_t i;
	int rc = 0;

	for (i = 0; i < AHEAD; i++) {
		buf_init(&sealed[i], PIECE_MAX);
		ops[i].verb = OBJ_GET;
		ops[i].key = journal_key(t->mc, t->rec->node, t->rec->incarnation, t->seq + i);
		ops[i].out = &sealed[i];
	}
	obox_run_many(t->mc->cfg.store, ops, AHEAD);
	for (i = 0; i < AHEAD && rc == 0 && !t->sealed && !missing; i++) {
		rc = ops[i].rc;
		missing = rc == ERR_NOTFOUND;
		if (missing && sim_broken("no-seal"))
			rc = 0;
		if (missing && sim_broken("no-seal"))
			t->sealed = true;
		else if (missing)
			rc = seal(t, err);
		else if (rc < 0)
			err_set(err, rc, "%s: %s", ops[i].key, ops[i].err.msg);
		else
			rc = take_or_pass(t, ops[i].key, &sealed[i], err);
	}
	for (i = 0; i < AHEAD; i++) {
		free((char *)(uintptr_t)ops[i].key);
		buf_free(&sealed[i]);
	}
	return rc;
}

/* --- replay, several users at once: each costs a few round trips --- */

struct replay {
	struct takeover *t;
	struct obox_tail **list;
	size_t n;
	atomic_size_t next;
	pthread_mutex_t lock;
	int rc;
	struct err err;
};

static void *replay_some(void *arg)
{
	struct replay *r = arg;
	struct takeover *t = r->t;
	size_t i;

	while ((i = atomic_fetch_add(&r->next, 1)) < r->n) {
		struct err e = ERR_INIT;
		int rc = ERR_CORRUPT, tries;

		for (tries = 0; rc == ERR_CORRUPT && tries <= REREADS; tries++) {
			err_clear(&e);
			rc = obox_tail_replay(t->mc->ob, r->list[i], t->rec->node, t->rec->incarnation, &e);
		}
		if (rc == ERR_CORRUPT) {	/* this user has to be mended; the others are served */
			log_event(LOG_ERROR, "journal cannot be replayed for this user: run culverctl check", LF_S("user", obox_tail_user(r->list[i])),
				  LF_ERR(&e), LF_END);
			t->damaged = true;
			continue;
		}
		pthread_mutex_lock(&r->lock);
		if (rc < 0 && r->rc == 0) {
			r->rc = rc;
			r->err = e;
		}
		pthread_mutex_unlock(&r->lock);
		if (rc < 0)
			break;
	}
	return NULL;
}

static int replay(struct takeover *t, struct err *err)
{
	struct replay r = { .t = t, .list = mem_calloc(t->tails.n, sizeof(struct obox_tail *)) };
	pthread_t threads[REPLAYERS];
	size_t pos = 0, started = 0;
	void *v;

	while (hmap_next(&t->tails, &pos, NULL, NULL, &v))
		r.list[r.n++] = v;
	pthread_mutex_init(&r.lock, NULL);
	if (!t->mc->cfg.stepped)
		while (started + 1 < REPLAYERS && started + 1 < r.n && pthread_create(&threads[started], NULL, replay_some, &r) == 0)
			started++;
	replay_some(&r);
	while (started)
		pthread_join(threads[--started], NULL);
	pthread_mutex_destroy(&r.lock);
	t->mc->users_replayed += r.n;
	free(r.list);
	return r.rc < 0 ? err_set(err, r.rc, "%s", r.err.msg) : 0;
}

int node_claim(struct metacache *mc, struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct node_record r = *rec;
	int rc;

	r.state = NODE_CLAIMED;
	r.beat++;
	snprintf(r.claimer, sizeof(r.claimer), "%s", mc->node);
	r.claimer_incarnation = mc->incarnation;
	rc = node_swap(mc, &r, etag, err);
	if (rc == 0)
		*rec = r;
	return rc;
}

static int finish(struct takeover *t, struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct err quiet = ERR_INIT;
	int rc;

	rec->state = NODE_DONE;
	rec->beat++;
	rc = node_swap(t->mc, rec, etag, err);
	if (rc < 0)
		return rc;
	t->mc->takeovers++;
	if (!t->damaged)
		journal_delete(t->mc, rec->node, rec->incarnation, rec->floor, t->seq);
	if (strcmp(rec->node, t->mc->node) != 0)
		ring_change(t->mc, rec->node, false, &quiet);	/* the watch does it otherwise */
	return 0;
}

int take_over(struct metacache *mc, struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct takeover t = { .mc = mc, .rec = rec, .seq = rec->floor };
	int64_t start = mc_now(mc);
	size_t pos = 0;
	void *v;
	int rc = node_claim(mc, rec, etag, err);

	while (rc == 0 && !t.sealed)
		rc = read_ahead(&t, err);
	if (rc == 0)
		rc = replay(&t, err);
	if (rc == 0)
		rc = finish(&t, rec, etag, err);
	log_event(rc == 0 ? LOG_INF : LOG_WARN, rc == 0 ? "node was taken over" : "node could not be taken over now", LF_S("node", rec->node),
		  LF_U("users", t.tails.n), LF_U("records", t.records), LF_U("objects", t.seq - rec->floor),
		  LF_D("ms", (mc_now(mc) - start) / 1000), LF_S("error", rc < 0 ? err->msg : ""), LF_END);
	while (hmap_next(&t.tails, &pos, NULL, NULL, &v)) {
		struct obox_tail *tail = v;

		obox_tail_free(&tail);
	}
	hmap_free(&t.tails);
	return rc;
}
