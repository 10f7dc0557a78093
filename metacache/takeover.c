/* Taking over a node that died.
 *
 *   claim    its record is swapped: whoever else wants it, itself included, loses
 *   seal     its journal is read from the floor up to the first missing name, and that name is created: what it
 *            may still send fails there, and what it sent behind that is void
 *   replay   the records go behind the logs of the users whose root still names it (replay.c): from here on each of its users
 *            can be served by this process as soon as his own records are there
 *   done     its record says so; roots that still name it are nobody's from then on
 *
 * Each step may be done again, by the same node or another, at any time: a
 * claim is taken from a claimer that died, a seal is found, a log has what it
 * has.  The seal stays for ever, so a node that sleeps through all of this and
 * wakes long after finds it, too; the rest of the journal is deleted. */
#include "metacache/metacache-private.h"

#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>

enum { AHEAD = 32, REREADS = 2, PIECE_MAX = 512 << 20, SEAL_WAIT_US = 2000000 };

static void take_record(void *ctx, const struct journal_entry *e)
{
	struct takeover *t = ctx;

	tail_add(t, e);
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
	char *key = journal_key(t->mc, t->node, t->incarnation, t->seq);
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
		ops[i].key = journal_key(t->mc, t->node, t->incarnation, t->seq + i);
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

/* --- its record --- */

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

static int claim(struct takeover *t, struct err *err)
{
	int rc = node_claim(t->mc, &t->rec, t->etag, err);

	t->claimed_us = mc_now(t->mc);
	return rc;
}

static int mark_done(struct takeover *t, struct err *err)
{
	int rc;

	t->rec.state = NODE_DONE;
	t->rec.beat++;
	rc = node_swap(t->mc, &t->rec, t->etag, err);
	t->mc->takeovers += rc == 0;
	return rc;
}

static void tidy(struct takeover *t)
{
	struct err quiet = ERR_INIT;

	if (!t->damaged)
		journal_delete(t->mc, t->node, t->incarnation, t->rec.floor, t->seq);
	if (strcmp(t->node, t->mc->node) != 0)
		ring_change(t->mc, t->node, false, &quiet);	/* the watch does it otherwise */
}

/* --- those that this process is at --- */

static struct takeover *find(struct metacache *mc, const char *node, uint64_t incarnation)
{
	struct takeover *t = mc->taking;

	while (t && (t->incarnation != incarnation || strcmp(t->node, node) != 0))
		t = t->next;
	return t;
}

/* A new one, the caller's and the list's; NULL: there is one. */
static struct takeover *enlist(struct metacache *mc, const struct node_record *rec, const char *etag, bool working)
{
	struct takeover *t = NULL;

	pthread_mutex_lock(&mc->takeovers_lock);
	if (!find(mc, rec->node, rec->incarnation)) {
		t = MEM_NEW(struct takeover);
		t->mc = mc;
		memcpy(t->node, rec->node, sizeof(t->node));
		t->incarnation = rec->incarnation;
		t->rec = *rec;
		memcpy(t->etag, etag, OBJ_ETAG_MAX);
		t->seq = rec->floor;
		t->begun_us = mc_now(mc);
		t->working = working;
		t->refs = 2;
		t->next = mc->taking;
		mc->taking = t;
		pthread_cond_broadcast(&mc->takeovers_cond);
	}
	pthread_mutex_unlock(&mc->takeovers_lock);
	return t;
}

static void drop(struct takeover *t)
{
	bool last;

	pthread_mutex_lock(&t->mc->takeovers_lock);
	last = !--t->refs;
	pthread_mutex_unlock(&t->mc->takeovers_lock);
	if (!last)
		return;
	tails_free(t);
	free(t);
}

/* It is open, or over: then it is the list's no more. */
static void enter_phase(struct takeover *t, int rc)
{
	struct metacache *mc = t->mc;
	struct takeover **p = &mc->taking;

	pthread_mutex_lock(&mc->takeovers_lock);
	t->phase = rc == 0 ? TAKEOVER_OPEN : TAKEOVER_OVER;
	while (rc < 0 && *p != t)
		p = &(*p)->next;
	if (rc < 0)
		*p = t->next;
	pthread_cond_broadcast(&mc->takeovers_cond);
	pthread_mutex_unlock(&mc->takeovers_lock);
	if (rc < 0)
		drop(t);
}

void takeovers_free(struct metacache *mc)
{
	while (mc->taking)
		enter_phase(mc->taking, ERR_CLOSED);
}

bool takeover_runs(struct metacache *mc, const char *node, uint64_t incarnation)
{
	bool runs;

	pthread_mutex_lock(&mc->takeovers_lock);
	runs = find(mc, node, incarnation) != NULL;
	pthread_mutex_unlock(&mc->takeovers_lock);
	return runs;
}

/* --- all steps --- */

static void tell(const struct takeover *t, int rc, const struct err *err)
{
	enum log_level level = rc == 0 ? LOG_INF : rc == ERR_CONFLICT ? LOG_DBG : LOG_WARN;	/* conflict: another one was faster */
	uint64_t asked;

	pthread_mutex_lock(&t->mc->takeovers_lock);
	asked = t->asked;
	pthread_mutex_unlock(&t->mc->takeovers_lock);
	log_event(level, rc == 0 ? "node was taken over" : "node could not be taken over now", LF_S("node", t->node),
		  LF_U("users", t->tails.n), LF_U("asked", asked), LF_U("records", t->records), LF_U("objects", t->seq - t->rec.floor),
		  LF_D("sealed_ms", t->sealed_us ? (t->sealed_us - t->begun_us) / 1000 : -1), LF_D("ms", (mc_now(t->mc) - t->begun_us) / 1000),
		  LF_S("error", rc < 0 ? err->msg : ""), LF_END);
}

/* Until its users may be asked for.  The takeover is the caller's (working) in this and the next. */
static int begin(struct takeover *t, struct err *err)
{
	int rc = claim(t, err);

	while (rc == 0 && !t->sealed)
		rc = read_ahead(t, err);
	if (rc == 0)
		t->sealed_us = mc_now(t->mc);
	if (rc < 0)
		tell(t, rc, err);
	else if (t->left)
		log_event(LOG_INF, "node is sealed: its users are served from here on, those first who are asked for", LF_S("node", t->node), LF_U("users", t->left),
			  LF_D("ms", (t->sealed_us - t->begun_us) / 1000), LF_END);
	enter_phase(t, rc);
	return rc;
}

/* The replay of all, to the end. */
static int complete(struct takeover *t, struct err *err)
{
	int rc = replay_all(t, err);

	if (rc == 0)
		rc = mark_done(t, err);
	tell(t, rc, err);
	enter_phase(t, rc < 0 ? rc : ERR_CLOSED);
	if (rc == 0)
		tidy(t);
	return rc;
}

int take_over(struct metacache *mc, struct node_record *rec, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct takeover *t = enlist(mc, rec, etag, true);
	int rc;

	if (!t)
		return err_set(err, ERR_BUSY, "node %s is being taken over", rec->node);
	rc = begin(t, err);
	if (rc == 0)
		rc = complete(t, err);
	*rec = t->rec;
	memcpy(etag, t->etag, OBJ_ETAG_MAX);
	drop(t);
	return rc;
}

void take_over_soon(struct metacache *mc, const struct node_record *rec, const char *etag)
{
	struct takeover *t = enlist(mc, rec, etag, false);

	if (t)
		drop(t);
}

static struct takeover *next_idle(struct metacache *mc)
{
	struct takeover *t = mc->taking;

	while (t && t->working)
		t = t->next;
	return t;
}

void takeover_work(struct metacache *mc)
{
	struct takeover *t;

	pthread_mutex_lock(&mc->takeovers_lock);
	while (!atomic_load(&mc->quit)) {
		struct err e = ERR_INIT;

		t = next_idle(mc);
		if (!t) {
			pthread_cond_wait(&mc->takeovers_cond, &mc->takeovers_lock);
			continue;
		}
		t->working = true;
		t->refs++;
		pthread_mutex_unlock(&mc->takeovers_lock);
		if (t->sealed || begin(t, &e) == 0)
			complete(t, &e);
		drop(t);
		pthread_mutex_lock(&mc->takeovers_lock);
	}
	pthread_mutex_unlock(&mc->takeovers_lock);
}

/* --- one user --- */

/* Nobody has begun: all who might are at other nodes' users. */
static void begin_now(struct takeover *t)
{
	struct err e = ERR_INIT;

	t->working = true;
	pthread_mutex_unlock(&t->mc->takeovers_lock);
	begin(t, &e);
	pthread_mutex_lock(&t->mc->takeovers_lock);
	t->working = false;	/* the rest is for the background */
	pthread_cond_broadcast(&t->mc->takeovers_cond);
}

/* 1 open, 0 over, ERR_BUSY still reading; takeovers_lock is held. */
static int wait_for_seal(struct takeover *t, struct err *err)
{
	struct timespec end = mc_deadline(SEAL_WAIT_US);

	if (sim_broken("served-before-sealed"))
		return 1;
	if (t->phase == TAKEOVER_READING && !t->working)
		begin_now(t);

	while (t->phase == TAKEOVER_READING)
		if (pthread_cond_timedwait(&t->mc->takeovers_cond, &t->mc->takeovers_lock, &end) == ETIMEDOUT)
			break;
	if (t->phase == TAKEOVER_READING)
		return err_set(err, ERR_BUSY, "node %s is being taken over: its journal is read", t->node);
	return t->phase == TAKEOVER_OPEN;
}

int takeover_user(struct metacache *mc, const char *node, uint64_t incarnation, const char *user, struct err *err)
{
	struct takeover *t;
	int rc = 0;

	pthread_mutex_lock(&mc->takeovers_lock);
	t = find(mc, node, incarnation);
	if (t) {
		t->refs++;
		rc = wait_for_seal(t, err);
		if (rc == 1) {
			rc = replay_user(t, user, err);
			rc = rc < 0 ? rc : 1;
		}
	}
	pthread_mutex_unlock(&mc->takeovers_lock);
	if (t)
		drop(t);
	return rc;
}
