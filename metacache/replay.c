/* What a dead node's journal had goes behind its users' logs.  Users who are
 * asked for come first, each in the thread that wants him; the others follow, many at a time.
 *
 * A tail belongs to the one who made it TAIL_DOING.  What could not be replayed now is TAIL_TODO again, and whoever waited for that
 * is told: nobody is served while his tail is not done. */
#include "metacache/metacache-private.h"

#include "base/log.h"

#include <stdatomic.h>

enum { REREADS = 2, FAR = 32, NEAR = 8, IDLE_PASSES = 5 };

void tail_add(struct takeover *t, const struct journal_entry *e)
{
	struct tail *tail = hmap_gets(&t->tails, e->user);

	if (!tail) {
		tail = MEM_NEW(struct tail);
		tail->records = obox_tail_new(e->user);
		hmap_put(&t->tails, e->user, strlen(e->user), tail);
		t->left++;
	}
	obox_tail_add(tail->records, e->epoch, e->lsn, e->landed, e->rec, e->rec_len);
}

void tails_free(struct takeover *t)
{
	size_t pos = 0;
	void *v;

	while (hmap_next(&t->tails, &pos, NULL, NULL, &v)) {
		struct tail *tail = v;

		obox_tail_free(&tail->records);
		free(tail);
	}
	hmap_free(&t->tails);
}

/* --- one user --- */

/* The tail is the caller's. */
static int replay_tail(struct takeover *t, struct tail *tail, struct err *err)
{
	struct metacache *mc = t->mc;
	int rc = ERR_CORRUPT, tries;

	for (tries = 0; rc == ERR_CORRUPT && tries <= REREADS; tries++) {
		err_clear(err);
		rc = obox_tail_replay(mc->ob, tail->records, t->node, t->incarnation, err);
	}
	if (rc == ERR_CORRUPT) {	/* this user has to be mended; the others are served */
		log_event(LOG_ERROR, "journal cannot be replayed for this user: run culverctl check", LF_S("user", obox_tail_user(tail->records)), LF_ERR(err), LF_END);
		t->damaged = true;
		err_clear(err);
		rc = 0;
	}
	if (rc == 0)
		obox_tail_free(&tail->records);
	pthread_mutex_lock(&mc->takeovers_lock);
	tail->rc = rc;
	tail->state = rc < 0 ? TAIL_TODO : TAIL_DONE;
	t->left -= rc == 0;
	pthread_cond_broadcast(&mc->takeovers_cond);
	pthread_mutex_unlock(&mc->takeovers_lock);
	mc->users_replayed += rc == 0;
	return rc;
}

int replay_user(struct takeover *t, const char *user, struct err *err)
{
	struct metacache *mc = t->mc;
	struct tail *tail = hmap_gets(&t->tails, user);
	struct err e = ERR_INIT;

	if (!tail || (tail->state == TAIL_TODO && sim_broken("served-before-replayed")))
		return 0;
	t->asking++;
	if (tail->state == TAIL_TODO) {
		tail->state = TAIL_DOING;
		t->asked++;
		pthread_mutex_unlock(&mc->takeovers_lock);
		replay_tail(t, tail, &e);
		pthread_mutex_lock(&mc->takeovers_lock);
	}
	while (tail->state == TAIL_DOING)	/* in other hands */
		pthread_cond_wait(&mc->takeovers_cond, &mc->takeovers_lock);
	t->asking--;
	pthread_cond_broadcast(&mc->takeovers_cond);
	if (tail->state == TAIL_DONE)
		return 0;
	return err_set(err, tail->rc, "user %s: what node %s acknowledged cannot be replayed now: %.250s", user, t->node, *e.msg ? e.msg : "tried a moment ago");
}

/* --- all --- */

struct crowd {
	struct takeover *t;
	struct tail **list;
	size_t n, next;		/* with takeovers_lock, as the rest */
	int rc;			/* of the first that failed */
	struct err err;
	size_t told;		/* how many were left when the claim was written last */
};

static bool ends(const struct takeover *t)
{
	return t->lost || atomic_load(&t->mc->quit) || atomic_load(&t->mc->fenced);
}

/* While somebody is asked for, only the first of the crowd goes on: the store's strength is for who waits. */
static struct tail *next_todo(struct crowd *c, bool first)
{
	struct metacache *mc = c->t->mc;
	struct tail *tail = NULL;

	pthread_mutex_lock(&mc->takeovers_lock);
	while (!first && c->t->asking && !ends(c->t))
		pthread_cond_wait(&mc->takeovers_cond, &mc->takeovers_lock);
	for (; !tail && c->next < c->n && !ends(c->t); c->next++)
		if (c->list[c->next]->state == TAIL_TODO)
			tail = c->list[c->next];
	if (tail)
		tail->state = TAIL_DOING;
	pthread_mutex_unlock(&mc->takeovers_lock);
	return tail;
}

/* A claim that changes says that somebody is getting on with it: others leave it to this node. */
static void keep_claim(struct crowd *c)
{
	struct takeover *t = c->t;
	struct metacache *mc = t->mc;
	struct err e = ERR_INIT;
	size_t left;
	int rc;

	pthread_mutex_lock(&mc->takeovers_lock);
	left = t->left;
	pthread_mutex_unlock(&mc->takeovers_lock);
	if (mc_now(mc) - t->claimed_us < mc_ttl_us(mc) || left == c->told)
		return;
	rc = node_claim(mc, &t->rec, t->etag, &e);
	t->claimed_us = mc_now(mc);
	c->told = left;
	pthread_mutex_lock(&mc->takeovers_lock);
	t->lost = rc == ERR_CONFLICT;
	pthread_mutex_unlock(&mc->takeovers_lock);
}

static void replay_some(struct crowd *c, bool first)
{
	struct metacache *mc = c->t->mc;
	struct tail *tail;

	while ((tail = next_todo(c, first)) != NULL) {
		struct err e = ERR_INIT;
		int rc = replay_tail(c->t, tail, &e);

		if (rc < 0) {
			pthread_mutex_lock(&mc->takeovers_lock);
			if (c->rc == 0)
				c->err = e;
			c->rc = c->err.code;
			pthread_mutex_unlock(&mc->takeovers_lock);
		}
		if (first)
			keep_claim(c);
	}
}

static void *one_more(void *arg)
{
	replay_some(arg, false);
	return NULL;
}

/* Each that is not done once; how many are left. */
static size_t pass(struct crowd *c)
{
	struct metacache *mc = c->t->mc;
	size_t width = mc->cfg.stepped ? 1 : mc->cfg.store->caps & OBJ_CAP_LAZY ? NEAR : FAR, started = 0, i;
	pthread_t threads[FAR];

	c->next = 0;
	c->rc = 0;
	while (started + 1 < width && started + 1 < c->n && pthread_create(&threads[started], NULL, one_more, c) == 0)
		started++;
	replay_some(c, true);
	while (started)
		pthread_join(threads[--started], NULL);
	pthread_mutex_lock(&mc->takeovers_lock);
	for (i = 0; i < c->n; i++)	/* those that were asked for are in other hands */
		while (c->list[i]->state == TAIL_DOING)
			pthread_cond_wait(&mc->takeovers_cond, &mc->takeovers_lock);
	i = c->t->left;
	pthread_mutex_unlock(&mc->takeovers_lock);
	return i;
}

/* False: there is no sense in another pass. */
static bool rest(struct takeover *t)
{
	struct metacache *mc = t->mc;
	struct timespec end = mc_deadline(mc_ttl_us(mc) / 10);
	bool on;

	pthread_mutex_lock(&mc->takeovers_lock);
	while (!ends(t) && pthread_cond_timedwait(&mc->takeovers_cond, &mc->takeovers_lock, &end) == 0)
		;
	on = !ends(t);
	pthread_mutex_unlock(&mc->takeovers_lock);
	return on;
}

/* What fails is tried again a few times as long as others succeed meanwhile; after that the takeover begins anew, here or elsewhere. */
int replay_all(struct takeover *t, struct err *err)
{
	struct crowd c = { .t = t, .list = mem_calloc(t->tails.n, sizeof(struct tail *)), .told = t->tails.n };
	size_t pos = 0, left = t->tails.n, before;
	unsigned idle = 0;
	void *v;

	pthread_mutex_lock(&t->mc->takeovers_lock);
	while (hmap_next(&t->tails, &pos, NULL, NULL, &v))
		c.list[c.n++] = v;
	pthread_mutex_unlock(&t->mc->takeovers_lock);
	do {
		before = left;
		left = pass(&c);
		idle = left < before ? 0 : idle + 1;
	} while (left && idle < IDLE_PASSES && !t->mc->cfg.stepped && rest(t));
	free(c.list);
	if (!left)
		return 0;
	if (t->lost)
		return err_set(err, ERR_CONFLICT, "another node has claimed it meanwhile");
	return err_set(err, c.rc < 0 ? c.rc : ERR_CLOSED, "%zu of its users are not replayed: %.300s", left, c.rc < 0 ? c.err.msg : "this node is about to end");
}
