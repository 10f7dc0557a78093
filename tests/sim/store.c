/* The store: keys and bytes in memory, exact conditions, and everything that
 * can go wrong on the way to it and back.  What is decided for a request when it is
 * sent (its fate) comes from the seed alone; what a network did to it while it was
 * on its way (link.c of the node) is added. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEADLINE_US = 3000000, LATE_US = 8000000, TROUBLE_US = 100000, CHECK_US = 2000, STALE_US = 300000 };

struct object {
	void *data;
	size_t len;
	char etag[24];
	int64_t mtime;
	struct object *before;		/* a store that reads stale: what was overwritten, until then */
	int64_t before_until;
};

struct net {	/* a life's connection */
	struct objstore base;
	struct life *life;
	struct task *task;
	bool idle;
	struct req *head, **end;	/* answers that arrived */
};

struct req {
	struct req *next;
	struct life *life;
	struct task *task;
	struct objstore_op *op;
	enum objstore_verb verb;
	char *key, *after;
	size_t max;
	enum objstore_cond cond;
	char etag[OBJ_ETAG_MAX], etag_now[24];
	void *data;
	size_t len;
	uint64_t off, want;
	int64_t deadline;
	bool executed, answered;
	/* the answer */
	int rc;
	void *got;
	size_t got_len;
	uint64_t size;
	int64_t mtime;
	struct objstore_list_item *items;
	size_t n_items;
	bool more;
};

struct store_faults store_faults;
uint64_t store_requests, store_faulted;
static struct hmap objects;

void store_reset(void)
{
	memset(&objects, 0, sizeof(objects));
	memset(&store_faults, 0, sizeof(store_faults));
	store_requests = store_faulted = 0;
}

bool store_peek(const char *key, struct buf *out)
{
	struct object *o = hmap_gets(&objects, key);

	if (o)
		buf_add(out, o->data, o->len);
	return o != NULL;
}

/* --- what the store does --- */

static void set_etag(struct object *o)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	size_t i;

	for (i = 0; i < o->len; i++)
		h = (h ^ ((unsigned char *)o->data)[i]) * UINT64_C(0x100000001b3);
	snprintf(o->etag, sizeof(o->etag), "%016" PRIx64, h);
}

const char *const store_kinds[] = { "good", "ignores-create", "ignores-match", "ignores-both", "checks-then-writes", "refuses-conditions", "swaps-nothing", "stale", NULL };

/* What the store makes of a put's condition. */
static int check(const struct req *r)
{
	const struct object *o = hmap_gets(&objects, r->key);
	enum store_kind kind = store_faults.kind;

	if (r->cond == OBJ_ANY)
		return 0;
	if (kind == STORE_REFUSES_CONDITIONS)
		return ERR_INVALID;	/* as the S3 driver says of 501 */
	if (kind == STORE_IGNORES_BOTH || kind == (r->cond == OBJ_CREATE ? STORE_IGNORES_CREATE : STORE_IGNORES_MATCH))
		return 0;
	if (r->cond == OBJ_CREATE)
		return o ? ERR_EXISTS : 0;
	if (!o)
		return kind == STORE_SWAPS_NOTHING ? 0 : ERR_CONFLICT;
	return strcmp(o->etag, r->etag) != 0 ? ERR_CONFLICT : 0;
}

static void write_object(struct req *r)
{
	struct object *o = hmap_gets(&objects, r->key);

	if (!o) {
		o = MEM_NEW(struct object);
		hmap_put(&objects, r->key, strlen(r->key), o);
	} else if (store_faults.kind == STORE_STALE) {
		o->before = mem_dup(o, sizeof(*o));
		o->before->data = mem_dup(o->data, o->len);
		o->before_until = sim_now + rnd_exp(STALE_US);
	}
	free(o->data);
	o->data = mem_dup(r->data, r->len);
	o->len = r->len;
	o->mtime = sim_now / 1000000 + 1800000000;
	set_etag(o);
	snprintf(r->etag_now, sizeof(r->etag_now), "%s", o->etag);
}

static void put(struct req *r)
{
	r->rc = check(r);
	if (r->rc == 0)
		write_object(r);
}

static void get(struct req *r)
{
	struct object *o = hmap_gets(&objects, r->key);

	r->rc = o ? 0 : ERR_NOTFOUND;
	if (!o)
		return;
	if (o->before && sim_now < o->before_until && rnd_below(2))
		o = o->before;
	r->size = o->len;
	r->mtime = o->mtime;
	snprintf(r->etag_now, sizeof(r->etag_now), "%s", o->etag);
	if (r->verb == OBJ_GET && r->off < o->len) {
		r->got_len = o->len - (size_t)r->off;
		if (r->want && r->got_len > r->want)
			r->got_len = (size_t)r->want;
		r->got = mem_dup((char *)o->data + r->off, r->got_len);
	}
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct objstore_list_item *)a)->key, ((const struct objstore_list_item *)b)->key);
}

static void list(struct req *r)
{
	size_t pos = 0, len, cap = 0, max = r->max ? r->max : 1000;
	const void *key;
	void *v;

	r->items = NULL;
	r->n_items = 0;
	while (hmap_next(&objects, &pos, &key, &len, &v)) {
		struct object *o = v;
		char *k = mem_strndup(key, len);

		if (strncmp(k, r->key, strlen(r->key)) != 0 || (r->after && strcmp(k, r->after) <= 0)) {
			free(k);
			continue;
		}
		mem_grow(&r->items, &cap, r->n_items + 1, sizeof(*r->items));
		r->items[r->n_items++] = (struct objstore_list_item){ k, o->len, o->mtime };
	}
	if (r->n_items)
		qsort(r->items, r->n_items, sizeof(*r->items), by_key);
	r->more = r->n_items > max;
	while (r->n_items > max)
		free(r->items[--r->n_items].key);
	r->rc = 0;
}

static void drop(struct req *r)
{
	struct object *o = hmap_del(&objects, r->key, strlen(r->key));

	if (o)
		free(o->data);
	free(o);
	r->rc = 0;
}

static const char *verb_name(const struct req *r)
{
	static const char *const names[] = { "PUT", "GET", "HEAD", "DELETE", "LIST", "COPY", "SYNC" };

	if (r->verb == OBJ_PUT)
		return r->cond == OBJ_CREATE ? "CREATE" : r->cond == OBJ_MATCH ? "SWAP" : "PUT";
	return names[r->verb];
}

static void carry_out(struct req *r)
{
	if (r->verb == OBJ_PUT)
		put(r);
	else if (r->verb == OBJ_GET || r->verb == OBJ_HEAD)
		get(r);
	else if (r->verb == OBJ_DELETE)
		drop(r);
	else if (r->verb == OBJ_LIST)
		list(r);
	if (r->verb == OBJ_PUT || r->verb == OBJ_DELETE || r->executed)
		trace("store: %s %s of %s%s -> %s", verb_name(r), r->key, r->life->dead ? "the dead" : r->life->node->name,
		      r->executed ? " (again)" : r->answered ? " (late)" : "", r->rc < 0 ? err_code_name(r->rc) : "done");
	r->executed = true;
}

/* --- the way back --- */

static bool waited_for(const struct req *r)
{
	return !r->life->dead && !r->answered;
}

static void deliver(struct req *r)
{
	struct net *n;

	if (!waited_for(r))
		return;
	r->answered = true;
	n = r->life->net;
	r->next = NULL;
	*n->end = r;
	n->end = &r->next;
	if (n->idle)
		sched_ready(n->task);
}

static void no_answer(void *arg)
{
	struct req *r = arg;

	if (!waited_for(r))
		return;
	r->rc = ERR_TIMEOUT;
	trace("store: no answer to %s %s of %s", verb_name(r), r->key, r->life->node->name);
	life_trouble(r->life);
	deliver(r);
}

static void broken_off(void *arg)
{
	struct req *r = arg;

	if (!waited_for(r))
		return;
	r->rc = ERR_UNAVAILABLE;
	life_trouble(r->life);
	deliver(r);
}

static void answer(void *arg)
{
	struct req *r = arg;

	if (r->life->node->link == LINK_UP)
		deliver(r);	/* else no_answer() comes */
}

static int64_t latency(struct req *r)
{
	int64_t us = 500 + rnd_exp(rnd_permille(store_faults.slow) ? store_faults.slow_us : store_faults.latency_us);

	if (us > TROUBLE_US / 2)
		life_trouble(r->life);
	return us;
}

static void carried_out(struct req *r)
{
	if (waited_for(r))
		sched_at(sim_now + latency(r), answer, r);
}

struct checked { struct req *r; int rc; };

static void write_checked(void *arg)
{
	struct checked *c = arg;

	c->r->rc = c->rc;
	if (c->rc == 0)
		write_object(c->r);
	trace("store: %s %s of %s, checked before -> %s", verb_name(c->r), c->r->key, c->r->life->node->name, c->rc < 0 ? err_code_name(c->rc) : "done");
	c->r->executed = true;
	carried_out(c->r);
	free(c);
}

static void arrive(void *arg)
{
	struct req *r = arg;

	if (r->life->dead ? rnd_permille(300) : !r->answered && r->life->node->link == LINK_DOWN)
		return;
	if (store_faults.kind == STORE_CHECKS_THEN_WRITES && r->verb == OBJ_PUT && r->cond != OBJ_ANY) {
		struct checked c = { r, check(r) };

		sched_at(sim_now + rnd_exp(CHECK_US), write_checked, mem_dup(&c, sizeof(c)));
		return;
	}
	carry_out(r);
	carried_out(r);
}

static void arrive_unheard(void *arg)	/* and nobody gets the answer */
{
	struct req *r = arg;
	struct req *copy = mem_dup(r, sizeof(*r));

	carry_out(copy);
	r->executed = true;
}

/* --- the way there --- */

static void fault(struct req *r, const char *what)
{
	store_faulted++;
	life_trouble(r->life);
	trace("store: %s: %s %s", what, verb_name(r), r->key);
}

/* Some of the kinds are certain for nothing: rates are of all requests. */
static void send(struct req *r, int64_t there)
{
	const struct store_faults *f = &store_faults;
	unsigned x = (unsigned)rnd_below(1000);
	int64_t soon = sim_now + there + rnd_exp(20000), late = r->deadline + rnd_exp(LATE_US);

	sched_at(r->deadline, no_answer, r);
#define CHANCE(kind) (x < f->kind || (x -= f->kind, false))
	if (CHANCE(lost)) {
		fault(r, "lost");
		if (rnd_below(2))
			sched_at(soon, broken_off, r);
	} else if (CHANCE(lost_answer)) {
		fault(r, "answer lost");
		sched_at(sim_now + there, arrive_unheard, r);
		if (rnd_below(2))
			sched_at(soon, broken_off, r);
	} else if (CHANCE(late)) {
		fault(r, "late");
		sched_at(rnd_below(2) ? late : sim_now + rnd_exp(LATE_US), arrive_unheard, r);
		if (rnd_below(2))
			sched_at(soon, broken_off, r);
	} else if (CHANCE(duplicate)) {
		fault(r, "doubled");
		sched_at(sim_now + there, rnd_below(3) ? arrive : arrive_unheard, r);
		sched_at(sim_now + there + rnd_exp(rnd_below(2) ? 50000 : LATE_US), rnd_below(2) ? arrive : arrive_unheard, r);
	} else if (CHANCE(throttle)) {
		fault(r, "throttled");
		r->rc = ERR_BUSY;
		sched_at(soon, answer, r);
	} else if (CHANCE(error)) {
		fault(r, "refused");
		sched_at(soon, broken_off, r);
	} else if (CHANCE(error_after)) {
		fault(r, "done and failed");
		sched_at(sim_now + there, arrive_unheard, r);
		sched_at(soon, broken_off, r);
	} else if (r->verb == OBJ_PUT && r->cond != OBJ_ANY && CHANCE(conflict)) {
		fault(r, "conflict of two requests");
		r->rc = ERR_CONFLICT;
		sched_at(soon, answer, r);
	} else {
		sched_at(sim_now + there, arrive, r);
	}
#undef CHANCE
}

static struct req *request(struct life *l, struct objstore_op *op)
{
	struct req *r = MEM_NEW(struct req);
	int64_t left = op->deadline_us ? op->deadline_us - clock_mono_us(&clock_system) : DEADLINE_US;
	unsigned char *p;
	int i;

	r->life = l;
	r->task = sim_task;
	r->op = op;
	r->verb = op->verb;
	r->key = mem_strdup(op->key);
	r->after = mem_strdup(op->start_after);
	r->max = op->max_keys;
	r->cond = op->cond;
	memcpy(r->etag, op->etag, sizeof(r->etag));
	for (i = 0; op->verb == OBJ_PUT && i < op->n_iov; i++)
		r->len += op->iov[i].iov_len;
	r->data = p = mem_alloc(r->len);
	for (i = 0; op->verb == OBJ_PUT && i < op->n_iov; i++) {
		memcpy(p, op->iov[i].iov_base, op->iov[i].iov_len);
		p += op->iov[i].iov_len;
	}
	r->off = op->off;
	r->want = op->len;
	r->deadline = sim_now + (left > 1000 ? left : 1000);
	return r;
}

static void store_submit(struct objstore *s, struct objstore_op *op)
{
	struct net *n = (struct net *)s;
	struct life *l = n->life;
	struct req *r;

	sched_preempt();
	store_requests++;
	if (sim_task->outstanding++ == 0)
		sim_task->trips++;
	sim_task->requests++;
	if (op->verb == OBJ_LIST && !sim_task->may_list)
		violation(4, "LIST of %s by %s", op->key, sim_task->name);
	if (l->crash_in == 0 && !l->crash_after)
		life_crash(l);
	r = request(l, op);
	send(r, latency(r));
	if (l->crash_in >= 0 && l->crash_in-- == 0)
		life_crash(l);
}

/* --- a life's side --- */

static void give(struct req *r)
{
	struct objstore_op *op = r->op;

	op->rc = r->rc;
	if (r->rc < 0) {
		err_set(&op->err, r->rc, "%s %s: %s", verb_name(r), r->key, err_code_name(r->rc));
	} else {
		snprintf(op->etag, sizeof(op->etag), "%s", r->etag_now);
		op->size = r->size;
		op->mtime = r->mtime;
		op->items = r->items;
		op->n_items = r->n_items;
		op->more = r->more;
		if (r->got && op->out) {
			buf_add(op->out, r->got, r->got_len);
			if (op->out->failed)
				op->rc = err_set(&op->err, ERR_LIMIT, "%s: too large", r->key);
		}
	}
	r->task->outstanding--;
	op->done(op);
}

static void *net_main(void *arg)
{
	struct net *n = arg;
	struct req *r;

	for (;;) {
		while ((r = n->head) != NULL) {
			n->head = r->next;
			if (!n->head)
				n->end = &n->head;
			give(r);
		}
		n->idle = true;
		sched_block();
		n->idle = false;
	}
	return NULL;
}

static void nothing(struct objstore *s)
{
}

struct objstore *store_of_life(struct life *l)
{
	static const struct objstore_ops ops = { .name = "simulated", .submit = store_submit, .close = nothing };
	struct net *n = MEM_NEW(struct net);

	n->base.ops = &ops;
	n->base.caps = OBJ_CAP_CREATE | OBJ_CAP_MATCH | OBJ_CAP_RANGE | OBJ_CAP_LIST;
	n->life = l;
	n->end = &n->head;
	l->net = n;
	n->task = sched_task(l, "net", net_main, n);
	return &n->base;
}
