#include "tests/metacache/cluster.h"

#include "obox/cluster.h"

#include <ftw.h>
#include <pthread.h>
#include <unistd.h>

/* --- the gate --- */

struct gate {
	struct objstore base;
	struct objstore *below;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool cut, hold, hold_deletes;
	int64_t fail_after;
	struct gate_count n;
	char *fail_part;	/* of a key: such an operation fails once, */
	int64_t fail_nth;	/* when so many have passed */
	bool fail_all, failed;
	int64_t delay_us;
	struct slow { struct slow *next; struct objstore_op *op; int64_t at; } *first, **last;
	pthread_t thread;	/* of those that wait for their delay */
	bool threaded, quit;
};

/* All wait equally long, so they go on in the order in which they came. */
static void *delayed(void *arg)
{
	struct gate *g = arg;
	struct slow *s;

	pthread_mutex_lock(&g->lock);
	while (!g->quit || g->first) {
		int64_t wait = g->first ? g->first->at - clock_mono_us(&clock_system) : 0;

		if (!g->first) {
			pthread_cond_wait(&g->cond, &g->lock);
			continue;
		}
		s = wait <= 0 ? g->first : NULL;
		if (s && !(g->first = s->next))
			g->last = &g->first;
		pthread_mutex_unlock(&g->lock);
		if (s)
			objstore_submit(g->below, s->op);
		else
			usleep((useconds_t)wait);
		free(s);
		pthread_mutex_lock(&g->lock);
	}
	pthread_mutex_unlock(&g->lock);
	return NULL;
}

/* g->lock is held. */
static bool put_off(struct gate *g, struct objstore_op *op)
{
	struct slow *s;

	if (!g->delay_us)
		return false;
	s = mem_dup(&(struct slow){ NULL, op, clock_mono_us(&clock_system) + g->delay_us }, sizeof(*s));
	*g->last = s;
	g->last = &s->next;
	pthread_cond_broadcast(&g->cond);
	return true;
}

/* g->lock is held. */
static bool is_chosen(struct gate *g, const struct objstore_op *op)
{
	bool chosen = g->fail_part && op->key && strstr(op->key, g->fail_part) && (g->fail_all || g->fail_nth-- == 0);

	g->failed |= chosen;
	return chosen;
}

static void gate_submit(struct objstore *base, struct objstore_op *op)
{
	struct gate *g = (struct gate *)base;
	bool fail, later;

	pthread_mutex_lock(&g->lock);
	while ((g->hold || (g->hold_deletes && op->verb == OBJ_DELETE && strstr(op->key, "/journal/"))) && !g->cut)
		pthread_cond_wait(&g->cond, &g->lock);
	g->n.total += op->verb != OBJ_SYNC;
	g->n.put += op->verb == OBJ_PUT;
	g->n.get += op->verb == OBJ_GET;
	g->n.head += op->verb == OBJ_HEAD;
	g->n.del += op->verb == OBJ_DELETE;
	g->n.list += op->verb == OBJ_LIST;
	fail = g->cut || (g->fail_after >= 0 && g->fail_after-- == 0);
	if (fail && !g->cut)
		g->fail_after = 0;	/* and every one from now on */
	fail |= is_chosen(g, op);
	later = !fail && put_off(g, op);
	pthread_mutex_unlock(&g->lock);
	if (later)
		return;
	if (fail) {
		op->rc = err_set(&op->err, ERR_UNAVAILABLE, "gate is closed");
		op->done(op);
		return;
	}
	objstore_submit(g->below, op);
}

static void gate_close(struct objstore *s)
{
}

static const struct objstore_ops gate_ops = { .name = "gate", .submit = gate_submit, .close = gate_close };

struct gate *gate_new(struct objstore *below)
{
	struct gate *g = MEM_NEW(struct gate);

	g->base.ops = &gate_ops;
	g->base.caps = below->caps & ~(unsigned)OBJ_CAP_LAZY;	/* as stores over the network */
	g->below = below;
	g->fail_after = -1;
	g->last = &g->first;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->cond, NULL);
	return g;
}

struct objstore *gate_store(struct gate *g)
{
	return &g->base;
}

static void set(struct gate *g, bool *what, bool on)
{
	pthread_mutex_lock(&g->lock);
	*what = on;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
}

void gate_free(struct gate **g)
{
	if (!*g)
		return;
	set(*g, &(*g)->quit, true);
	if ((*g)->threaded)
		pthread_join((*g)->thread, NULL);
	free((*g)->fail_part);
	pthread_cond_destroy(&(*g)->cond);
	pthread_mutex_destroy(&(*g)->lock);
	free(*g);
	*g = NULL;
}

void gate_cut(struct gate *g, bool on)
{
	set(g, &g->cut, on);
}

void gate_hold(struct gate *g, bool on)
{
	set(g, &g->hold, on);
}

void gate_hold_journal_deletes(struct gate *g, bool on)
{
	set(g, &g->hold_deletes, on);
}

void gate_fail_after(struct gate *g, int64_t n)
{
	pthread_mutex_lock(&g->lock);
	g->fail_after = n;
	pthread_mutex_unlock(&g->lock);
}

void gate_fail_key(struct gate *g, const char *part, int64_t n)
{
	pthread_mutex_lock(&g->lock);
	free(g->fail_part);
	g->fail_part = mem_strdup(part);
	g->fail_nth = n;
	g->fail_all = n < 0;
	g->failed = false;
	pthread_mutex_unlock(&g->lock);
}

bool gate_failed(struct gate *g)
{
	bool failed;

	pthread_mutex_lock(&g->lock);
	failed = g->failed;
	pthread_mutex_unlock(&g->lock);
	return failed;
}

void gate_delay(struct gate *g, int64_t us)
{
	pthread_mutex_lock(&g->lock);
	g->delay_us = us;
	if (!g->threaded && pthread_create(&g->thread, NULL, delayed, g) != 0)
		abort();
	g->threaded = true;
	pthread_mutex_unlock(&g->lock);
}

void gate_reset(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	memset(&g->n, 0, sizeof(g->n));
	pthread_mutex_unlock(&g->lock);
}

struct gate_count gate_count(struct gate *g)
{
	struct gate_count n;

	pthread_mutex_lock(&g->lock);
	n = g->n;
	pthread_mutex_unlock(&g->lock);
	return n;
}

/* --- nodes --- */

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static int64_t virtual_mono(void *ctx)
{
	return ((struct cluster *)ctx)->now_us;
}

static int64_t virtual_wall(void *ctx)
{
	return INT64_C(1800000000000000) + ((struct cluster *)ctx)->now_us;
}

int cluster_setup(void **state)
{
	struct cluster *c = MEM_NEW(struct cluster);

	log_set_level(LOG_ERROR + 1);
	snprintf(c->dir, sizeof(c->dir), "%s/t_cluster.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(c->dir))
		return -1;
	c->mem = c->between = objstore_mem_new();
	c->keys = seal_keys_ephemeral();
	c->ttl_ms = 900;
	c->timeout_ms = 400;
	c->flag_ms = 200;
	c->now_us = 1000000;
	c->clock = (struct clock){ virtual_wall, virtual_mono, c };
	*state = c;
	return 0;
}

int cluster_setup_stepped(void **state)
{
	int rc = cluster_setup(state);

	((struct cluster *)*state)->stepped = true;
	return rc;
}

int cluster_teardown(void **state)
{
	struct cluster *c = *state;
	int i;

	for (i = 0; i < NODES; i++) {
		if (c->node[i].gate) {	/* a test that failed may have left it so */
			gate_hold(c->node[i].gate, false);
			gate_hold_journal_deletes(c->node[i].gate, false);
		}
		if (c->node[i].ob)
			node_close(c, i);
		gate_free(&c->node[i].gate);	/* of one that could not be opened */
	}
	if (c->mail)
		objstore_close(&c->mail);
	if (c->between != c->mem)
		objstore_close(&c->between);	/* takes what is below along */
	else
		objstore_close(&c->mem);
	seal_keys_free(&c->keys);
	nftw(c->dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	free(c);
	return 0;
}

static void open_cache(struct cluster *c, struct node *n, const char *dir)
{
	unsigned char key[METADISK_KEY_BYTES];
	char *sub = mem_printf("%s/metacache", dir);
	struct metadisk_config cfg = { .dir = sub, .bytes = c->disk, .key = key };

	seal_derive(c->keys, METADISK_KEY_LABEL, key);
	if (c->disk && metadisk_open(&cfg, &n->cache, &c->err) < 0)
		abort();
	free(sub);
}

int node_open(struct cluster *c, int i)
{
	struct node *n = &c->node[i];
	char *dir = mem_printf("%s/%d", c->dir, i), name[16], address[32];
	struct metacache_config m = { .tail_pieces = 64, .prefix = "t", .node = name, .address = address, .ttl_ms = c->ttl_ms, .commit_timeout_ms = c->timeout_ms,
				      .flag_commit_delay_ms = c->flag_ms, .stepped = c->stepped, .clock = c->stepped ? &c->clock : NULL };
	struct obox_config cfg = { .state_dir = dir, .prefix = "t", .node = name, .keys = c->keys, .flag_commit_delay_ms = c->flag_ms,
				   .grace_s = UINT64_MAX, .clock = m.clock };
	int rc;

	snprintf(name, sizeof(name), "n%d", i);
	snprintf(address, sizeof(address), "host%d:4190", i);
	if (!n->gate)
		n->gate = gate_new(c->between);
	m.store = cfg.mail_store = cfg.index_store = gate_store(n->gate);
	if (c->mail)
		cfg.mail_store = c->mail;
	err_clear(&c->err);
	rc = metacache_new(&m, &n->mc, &c->err);
	cfg.cluster = n->mc;
	open_cache(c, n, dir);
	cfg.cache = n->cache;
	if (rc == 0)
		rc = obox_open(&cfg, &n->ob, &c->err);
	if (rc < 0) {
		metacache_free(&n->mc);
		metadisk_close(&n->cache);
	}
	free(dir);
	return rc;
}

void node_close(struct cluster *c, int i)
{
	struct node *n = &c->node[i];

	obox_close(&n->ob);
	metacache_free(&n->mc);
	metadisk_close(&n->cache);
	gate_free(&n->gate);
}

void node_kill(struct cluster *c, int i)
{
	struct node *n = &c->node[i];

	gate_cut(n->gate, true);
	obox_abandon(&n->ob);
	metacache_free(&n->mc);
	metadisk_abandon(&n->cache);
	gate_free(&n->gate);
}

int64_t real_ms(void)
{
	return clock_mono_us(&clock_system) / 1000;
}

void cluster_pass(struct cluster *c, int64_t ms)
{
	int64_t end = c->now_us + ms * 1000;
	int i;

	if (!c->stepped) {
		usleep((useconds_t)ms * 1000);
		return;
	}
	while (c->now_us < end) {
		c->now_us += c->ttl_ms * 1000 / 20;
		for (i = 0; i < NODES; i++)
			if (c->node[i].ob)
				metacache_step(c->node[i].mc);
	}
}

/* --- clients --- */

int do_open(struct cluster *c, int i, const char *user, struct obox_user **u_r)
{
	err_clear(&c->err);
	return obox_user_open(c->node[i].ob, user, u_r, &c->err);
}

static char *text_of(int number)
{
	return mem_printf("From: a@example.org\r\nSubject: number %d\r\n\r\nbody of number %d\r\n", number, number);
}

int do_save(struct cluster *c, int i, struct obox_user *u, const char *box, int number, uint32_t *uid_r)
{
	struct obox_save s = { .idate = 1000 };
	char *text = text_of(number);
	struct err err = ERR_INIT;
	int rc = obox_msgin_new(c->node[i].ob, &s.msg, &err);

	if (rc == 0)
		rc = obox_msgin_write(s.msg, text, strlen(text), &err);
	if (rc == 0)
		rc = obox_msgin_finish(s.msg, &err);
	if (rc == 0)
		rc = obox_save(u, box, &s, 1, NULL, &err);
	obox_msgin_free(&s.msg);
	free(text);
	if (uid_r)
		*uid_r = s.uid_r;
	return rc;
}

static int with_view(struct obox_user *u, const char *box, uint32_t lo, uint32_t hi, struct obox_view **v_r, struct seqset *set_r)
{
	struct err err = ERR_INIT;

	seqset_add(set_r, lo, hi);
	return obox_view_open(u, box, false, NULL, NULL, v_r, &err);
}

int do_copy(struct obox_user *u, const char *from, uint32_t lo, uint32_t hi, const char *to, bool move)
{
	struct seqset s = SEQSET_INIT;
	struct obox_copy_result res;
	struct err err = ERR_INIT;
	struct obox_view *v;
	int rc = with_view(u, from, lo, hi, &v, &s);

	if (rc == 0) {
		rc = obox_copy(v, &s, to, move, &res, &err);
		obox_copy_result_free(&res);
		obox_view_close(&v);
	}
	seqset_free(&s);
	return rc;
}

int do_expunge(struct obox_user *u, const char *box, uint32_t lo, uint32_t hi)
{
	struct seqset s = SEQSET_INIT;
	struct err err = ERR_INIT;
	struct obox_view *v;
	int rc = with_view(u, box, lo, hi, &v, &s);

	if (rc == 0) {
		rc = obox_expunge(v, &s, true, NULL, &err);
		obox_view_close(&v);
	}
	seqset_free(&s);
	return rc;
}

int do_flag(struct obox_user *u, const char *box, uint32_t uid, uint32_t flags)
{
	struct obox_flag_change add = { .how = OBOX_FLAGS_ADD, .flags = flags, .unchangedsince = UINT64_MAX };
	struct seqset s = SEQSET_INIT;
	struct err err = ERR_INIT;
	struct obox_view *v;
	int rc = with_view(u, box, uid, uid, &v, &s);

	if (rc == 0) {
		rc = obox_store(v, &s, &add, NULL, NULL, NULL, &err);
		obox_view_close(&v);
	}
	seqset_free(&s);
	return rc;
}

uint32_t count_of(struct obox_user *u, const char *box)
{
	struct obox_status st;
	struct err err = ERR_INIT;

	return obox_mailbox_status(u, box, &st, &err) == 0 ? st.messages : UINT32_MAX;
}

bool has_message(struct cluster *c, struct obox_user *u, const char *box, uint32_t uid, int number)
{
	struct err err = ERR_INIT;
	char *want = text_of(number), got[512];
	struct obox_body *b = NULL;
	struct obox_view *v;
	struct obox_msg m;
	bool ok = false;

	if (obox_view_open(u, box, true, NULL, NULL, &v, &err) == 0) {
		uint32_t seq = obox_view_seq(v, uid, false);

		if (seq && obox_view_read(v, seq, &m, 1) == 1 && obox_body_open(u, &m, &b, &err) == 0) {
			ok = obox_body_size(b) == strlen(want) && obox_body_read(b, 0, got, strlen(want), &err) == 0 &&
			     !memcmp(got, want, strlen(want));
			obox_body_close(&b);
		}
		obox_view_close(&v);
	}
	free(want);
	return ok;
}
