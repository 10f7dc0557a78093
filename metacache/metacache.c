/* This node's life among the others: start, heartbeat, watch, end.
 *
 *   live -> stopped                      by itself, with nothing left to replay
 *   live -> claimed by X -> done         by others, after a TTL without a sign
 *        claimed by X -> claimed by Y    when X dies, too
 *
 * The lease: who observes this node must see its record unchanged for a whole
 * TTL before claiming it, and a swap happens after it was begun; so until one
 * TTL after the begin of the last swap that succeeded nobody has claimed this
 * node, whatever the clocks say.  Without a lease the node acknowledges nothing and
 * begins no user, reads on, and goes on with the next swap that succeeds. */
#include "metacache/metacache-private.h"

#include "base/b64.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <time.h>
#include <unistd.h>

enum { TTL_MS = 10000, COMMIT_TIMEOUT_MS = 5000, CLAIM_TRIES = 10, ID_BYTES = 6 };

static struct metacache *mc_of(struct obox_cluster *c)
{
	return (struct metacache *)c;
}

void mc_fence(struct metacache *mc, const char *why)
{
	if (atomic_exchange(&mc->fenced, true))
		return;
	log_event(LOG_ERROR, "this node was taken over by another: nothing more is acknowledged; it has to start anew", LF_S("node", mc->node),
		  LF_S("why", why), LF_END);
	if (mc->journal)
		store_journal_wake(mc->journal);
	if (mc->cfg.fenced)
		mc->cfg.fenced(mc->cfg.ctx);
}

/* --- heartbeat --- */

/* The record is not what this node wrote last: 0 it was, after all (an answer was lost), <0. */
static int look_at_self(struct metacache *mc, struct err *err)
{
	struct node_record now;
	char etag[OBJ_ETAG_MAX];
	int rc = node_get(mc, mc->node, &now, etag, err);

	if (rc < 0)
		return rc;
	if (rc == 0 || now.incarnation != mc->incarnation || now.state != NODE_LIVE) {
		mc_fence(mc, "its record was claimed");
		return err_set(err, ERR_FENCED, "node %s was taken over", mc->node);
	}
	mc->rec = now;
	memcpy(mc->etag, etag, sizeof(etag));
	return 0;
}

static void tell_more(struct metacache *mc, struct node_record *next)
{
	next->floor = store_journal_floor(mc->journal);
	next->pieces = store_journal_pieces(mc->journal);
	next->users = obox_users_held(mc->ob);
	next->draining = atomic_load(&mc->draining);
	next->beat_time = clock_wall_s(mc->cfg.clock);
}

static int beat(struct metacache *mc, struct err *err)
{
	struct node_record next;
	int64_t start = mc_now(mc);
	int rc, i;

	for (i = 0; i < 3; i++) {
		next = mc->rec;
		next.beat++;
		if (mc->journal)
			tell_more(mc, &next);
		err_clear(err);
		start = mc_now(mc);
		rc = node_swap(mc, &next, mc->etag, err);
		if (rc != ERR_CONFLICT)
			break;
		err_clear(err);
		rc = look_at_self(mc, err);
		if (rc < 0)
			return rc;
		rc = ERR_CONFLICT;
	}
	if (rc < 0)
		return rc;
	mc->rec = next;
	if (mc_now(mc) >= atomic_load(&mc->lease_until_us) && mc->beats)
		log_event(LOG_INF, "heartbeat is written again", LF_S("node", mc->node), LF_END);
	atomic_store(&mc->lease_until_us, start + mc_ttl_us(mc));
	mc->beats++;
	return 0;
}

void mc_beat_soon(struct metacache *mc)
{
	pthread_mutex_lock(&mc->sleep_lock);
	atomic_store(&mc->beat_soon, true);
	pthread_cond_broadcast(&mc->sleep_cond);
	pthread_mutex_unlock(&mc->sleep_lock);
}

int mc_beat(struct metacache *mc, struct err *err)
{
	int rc;

	pthread_mutex_lock(&mc->beat_lock);
	rc = beat(mc, err);
	pthread_mutex_unlock(&mc->beat_lock);
	return rc;
}

/* When it is due; in us until the next. */
static int64_t beat_step(struct metacache *mc)
{
	struct err e = ERR_INIT;
	int64_t now;
	int rc;

	pthread_mutex_lock(&mc->beat_lock);
	now = mc_now(mc);
	if ((atomic_exchange(&mc->beat_soon, false) || now >= mc->next_beat_us) && !atomic_load(&mc->fenced)) {
		rc = beat(mc, &e);
		if (rc < 0 && rc != ERR_FENCED) {
			mc->beats_failed++;
			log_event(LOG_WARN, "heartbeat cannot be written now", LF_S("node", mc->node), LF_ERR(&e), LF_END);
		} else if (rc == 0) {
			atomic_store(&mc->floor_told, mc->rec.floor);
		}
		mc->next_beat_us = rc == 0 ? now + mc_ttl_us(mc) / 3 : mc_now(mc) + mc_ttl_us(mc) / 20;
	}
	now = mc->next_beat_us - mc_now(mc);
	pthread_mutex_unlock(&mc->beat_lock);
	return now > 0 ? now : 0;
}

/* Journal objects that nobody needs any more.  There may be thousands, and a store may take its time: no heartbeat waits for that. */
static int64_t sweep_step(struct metacache *mc)
{
	while (mc->journal && !atomic_load(&mc->fenced) && store_journal_published(mc->journal, atomic_load(&mc->floor_told)) && !atomic_load(&mc->quit))
		;
	return mc_ttl_us(mc) / 3;
}

/* --- threads --- */

static void *journal_thread(void *arg)
{
	struct metacache *mc = arg;

	while (!atomic_load(&mc->quit))
		store_journal_sleep(mc->journal, store_journal_step(mc->journal, 200000));
	return NULL;
}

struct timespec mc_deadline(int64_t us)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	us += t.tv_nsec / 1000;
	t.tv_sec += us / 1000000;
	t.tv_nsec = us % 1000000 * 1000;
	return t;
}

static void nap(struct metacache *mc, int64_t us, bool beats)
{
	struct timespec t = mc_deadline(us);

	pthread_mutex_lock(&mc->sleep_lock);
	while (!atomic_load(&mc->quit) && !(beats && atomic_load(&mc->beat_soon)) && pthread_cond_timedwait(&mc->sleep_cond, &mc->sleep_lock, &t) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&mc->sleep_lock);
}

static void *beat_thread(void *arg)
{
	struct metacache *mc = arg;

	while (!atomic_load(&mc->quit) && !atomic_load(&mc->fenced))
		nap(mc, beat_step(mc), true);
	return NULL;
}

static void *watch_thread(void *arg)
{
	struct metacache *mc = arg;

	while (!atomic_load(&mc->quit) && !atomic_load(&mc->fenced))
		nap(mc, watch_step(mc), false);
	return NULL;
}

static void *sweep_thread(void *arg)
{
	struct metacache *mc = arg;

	while (!atomic_load(&mc->quit) && !atomic_load(&mc->fenced))
		nap(mc, sweep_step(mc), false);
	return NULL;
}

static void *takeover_thread(void *arg)
{
	takeover_work(arg);
	return NULL;
}

static int start_threads(struct metacache *mc, struct err *err)
{
	/* a server that dies takes the nodes of all its workers along */
	void *(*const fn[])(void *) = { journal_thread, beat_thread, watch_thread, sweep_thread, takeover_thread, takeover_thread, takeover_thread, takeover_thread };

	_Static_assert(MEM_COUNT(fn) <= MEM_COUNT(mc->threads), "room for all threads");
	for (mc->n_threads = 0; mc->n_threads < MEM_COUNT(fn); mc->n_threads++)
		if (pthread_create(&mc->threads[mc->n_threads], NULL, fn[mc->n_threads], mc) != 0)
			return err_set(err, ERR_LIMIT, "node %s: no threads", mc->node);
	return 0;
}

static void stop_threads(struct metacache *mc)
{
	pthread_mutex_lock(&mc->sleep_lock);
	atomic_store(&mc->quit, true);
	pthread_cond_broadcast(&mc->sleep_cond);
	pthread_mutex_unlock(&mc->sleep_lock);
	pthread_mutex_lock(&mc->takeovers_lock);
	pthread_cond_broadcast(&mc->takeovers_cond);
	pthread_mutex_unlock(&mc->takeovers_lock);
	if (mc->journal)
		store_journal_wake(mc->journal);
	while (mc->n_threads)
		pthread_join(mc->threads[--mc->n_threads], NULL);
}

void metacache_step(struct obox_cluster *c)
{
	struct metacache *mc = mc_of(c);

	beat_step(mc);
	if (mc->journal)
		store_journal_step(mc->journal, 0);
	sweep_step(mc);
	watch_step(mc);
}

/* --- start and end --- */

/* The earlier life of this name is over: its journal is replayed.  Its record under *etag ("" = none). */
static int settle_self(struct metacache *mc, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct node_record rec;
	int rc = ERR_CONFLICT, i;

	for (i = 0; i < CLAIM_TRIES && rc == ERR_CONFLICT; i++) {
		err_clear(err);
		rc = node_get(mc, mc->node, &rec, etag, err);
		if (rc == 0)
			etag[0] = '\0';
		else if (rc == 1 && (rec.state == NODE_LIVE || rec.state == NODE_CLAIMED))
			rc = take_over(mc, &rec, etag, err);
	}
	return rc < 0 ? rc : 0;
}

static int enter(struct metacache *mc, struct err *err)
{
	int64_t start;
	int rc = settle_self(mc, mc->etag, err);

	if (rc < 0)
		return rc;
	memset(&mc->rec, 0, sizeof(mc->rec));
	snprintf(mc->rec.node, sizeof(mc->rec.node), "%s", mc->node);
	snprintf(mc->rec.address, sizeof(mc->rec.address), "%s", mc->address);
	mc->rec.incarnation = mc->incarnation;
	mc->rec.started = mc->rec.beat_time = clock_wall_s(mc->cfg.clock);
	snprintf(mc->rec.version, sizeof(mc->rec.version), "%s", PACKAGE_VERSION);
	mc->rec.ttl_ms = mc->cfg.ttl_ms;
	mc->rec.beat = 1;
	mc->rec.floor = 1;
	start = mc_now(mc);
	rc = node_swap(mc, &mc->rec, mc->etag, err);
	if (rc < 0)
		return rc;
	atomic_store(&mc->lease_until_us, start + mc_ttl_us(mc));
	mc->next_beat_us = start + mc_ttl_us(mc) / 3;
	return ring_change(mc, mc->node, true, err);
}

static int mc_start(struct obox_cluster *c, struct obox *ob, struct journal **j_r, uint64_t *incarnation_r, struct err *err)
{
	struct metacache *mc = mc_of(c);
	int rc;

	*j_r = NULL;
	mc->ob = ob;
	mc->keys = obox_keys(ob);
	do {
		randombytes_buf(&mc->incarnation, sizeof(mc->incarnation));
	} while (!mc->incarnation);
	*incarnation_r = mc->incarnation;
	rc = enter(mc, err);
	if (rc < 0)
		return rc;
	mc->journal = store_journal_new(mc);
	*j_r = store_journal_base(mc->journal);
	if (!mc->cfg.stepped)
		rc = start_threads(mc, err);
	if (rc < 0)
		stop_threads(mc);
	return rc;
}

static int mc_owner(struct obox_cluster *c, const char *node, uint64_t incarnation, const char *user, struct obox_owner *o, struct err *err)
{
	return watch_owner(mc_of(c), node, incarnation, user, o, err);
}

static bool mc_fenced(struct obox_cluster *c)
{
	return atomic_load(&mc_of(c)->fenced);
}

static bool mc_serving(struct obox_cluster *c)
{
	struct metacache *mc = mc_of(c);

	return !atomic_load(&mc->fenced) && mc->journal && !store_journal_degraded(mc->journal);
}

static void mc_abandon(struct obox_cluster *c)
{
	stop_threads(mc_of(c));
}

static void mc_stop(struct obox_cluster *c, bool clean)
{
	struct metacache *mc = mc_of(c);
	struct err e = ERR_INIT;
	uint64_t floor;
	int rc;

	stop_threads(mc);
	if (!clean || !mc->journal || atomic_load(&mc->fenced))
		return;
	floor = store_journal_floor(mc->journal);
	mc->rec.state = NODE_STOPPED;
	rc = beat(mc, &e);
	if (rc == 0) {
		while (store_journal_published(mc->journal, floor))
			;
		rc = ring_change(mc, mc->node, false, &e);
	}
	if (rc < 0)
		log_event(LOG_WARN, "the node's end could not be written: others find out by themselves", LF_S("node", mc->node), LF_ERR(&e), LF_END);
}

static bool mc_elsewhere(struct obox_cluster *c, const char *node, uint64_t incarnation, const char *user, struct obox_owner *o)
{
	return operate_elsewhere(mc_of(c), node, incarnation, user, o);
}

static const struct obox_cluster_ops mc_ops = { mc_start, mc_owner, mc_elsewhere, mc_fenced, mc_serving, mc_stop, mc_abandon };

static int check_config(const struct metacache_config *cfg, struct err *err)
{
	static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";
	size_t len = strlen(cfg->node);

	if (!len || len > 63 || strspn(cfg->node, plain) != len)
		return err_set(err, ERR_INVALID, "node name \"%s\" must be 1 to 63 letters, digits, - or _", cfg->node);
	if (cfg->address && strlen(cfg->address) > 255)
		return err_set(err, ERR_INVALID, "address of node %s is longer than 255 bytes", cfg->node);
	if ((cfg->store->caps & (OBJ_CAP_CREATE | OBJ_CAP_MATCH)) != (OBJ_CAP_CREATE | OBJ_CAP_MATCH))
		return err_set(err, ERR_INVALID, "the index store does not keep conditions on writes: several nodes cannot share it (journal = local serves one)");
	return 0;
}

int metacache_new(const struct metacache_config *cfg, struct obox_cluster **c_r, struct err *err)
{
	struct metacache *mc;
	pthread_condattr_t attr;
	int rc = check_config(cfg, err);

	*c_r = NULL;
	if (rc < 0)
		return rc;
	mc = MEM_NEW(struct metacache);
	mc->base.ops = &mc_ops;
	mc->base.single = cfg->stepped;
	mc->cfg = *cfg;
	mc->prefix = mem_strdup(cfg->prefix ? cfg->prefix : "");
	mc->node = mem_strdup(cfg->node);
	mc->address = mem_strdup(cfg->address ? cfg->address : "");
	if (!mc->cfg.clock)
		mc->cfg.clock = &clock_system;
	if (!mc->cfg.ttl_ms)
		mc->cfg.ttl_ms = TTL_MS;
	if (!mc->cfg.commit_timeout_ms)
		mc->cfg.commit_timeout_ms = COMMIT_TIMEOUT_MS;
	pthread_mutex_init(&mc->beat_lock, NULL);
	pthread_mutex_init(&mc->peers_lock, NULL);
	pthread_mutex_init(&mc->takeovers_lock, NULL);
	pthread_mutex_init(&mc->sleep_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&mc->sleep_cond, &attr);
	pthread_cond_init(&mc->takeovers_cond, &attr);
	pthread_condattr_destroy(&attr);
	*c_r = &mc->base;
	return 0;
}

void metacache_free(struct obox_cluster **c)
{
	struct metacache *mc = *c ? mc_of(*c) : NULL;
	size_t pos = 0;
	void *v;

	if (!mc)
		return;
	while (hmap_next(&mc->peers, &pos, NULL, NULL, &v))
		free(v);
	hmap_free(&mc->peers);
	ring_free(&mc->ring);
	pthread_mutex_destroy(&mc->beat_lock);
	pthread_mutex_destroy(&mc->peers_lock);
	takeovers_free(mc);
	pthread_cond_destroy(&mc->takeovers_cond);
	pthread_mutex_destroy(&mc->takeovers_lock);
	free(mc->others);
	pthread_mutex_destroy(&mc->sleep_lock);
	pthread_cond_destroy(&mc->sleep_cond);
	free(mc->prefix);
	free(mc->node);
	free(mc->address);
	free(mc);
	*c = NULL;
}

int metacache_node_name(const char *state_dir, unsigned index, char **name_r, struct err *err)
{
	char *path = mem_printf("%s/node.id", state_dir), hex[2 * ID_BYTES + 1], *text = NULL, *tmp = NULL;
	unsigned char id[ID_BYTES];
	size_t len = 0;
	int fd, rc;

	*name_r = NULL;
	randombytes_buf(id, sizeof(id));
	hex_encode(hex, id, sizeof(id));
	tmp = mem_printf("%s.%s", path, hex);
	rc = io_mkdirs(state_dir, 0700, err);
	/* written aside and linked, so that of several workers one makes it, whole */
	if (rc == 0 && access(path, F_OK) < 0) {
		fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		rc = fd < 0 ? err_errno(err, "create", tmp) : io_write_full(fd, hex, 2 * ID_BYTES, err);
		if (rc == 0 && fsync(fd) < 0)
			rc = err_errno(err, "sync", tmp);
		io_close(&fd);
		if (rc == 0 && link(tmp, path) < 0 && errno != EEXIST)
			rc = err_errno(err, "create", path);
		unlink(tmp);
	}
	if (rc == 0)
		rc = io_read_file(path, 64, &text, &len, err);
	if (rc == 0 && (len != 2 * ID_BYTES || strspn(text, "0123456789abcdef") != len))
		rc = err_set(err, ERR_CORRUPT, "%s does not hold a node's identity: delete it", path);
	if (rc == 0)
		*name_r = mem_printf("%s-w%u", text, index);
	free(text);
	free(tmp);
	free(path);
	return rc;
}

void metacache_stats(struct obox_cluster *c, struct metacache_stats *st)
{
	struct metacache *mc = mc_of(c);

	memset(st, 0, sizeof(*st));
	if (mc->journal)
		store_journal_stats(mc->journal, st);
	st->beats = mc->beats;
	st->beats_failed = mc->beats_failed;
	st->takeovers = mc->takeovers;
	st->users_replayed = mc->users_replayed;
	st->fenced = atomic_load(&mc->fenced);
}
