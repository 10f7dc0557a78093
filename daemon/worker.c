/* The worker process: opening its node, its threads, what master tells it. */
#include "daemon/worker.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "daemon/node-link.h"
#include "fscache/fscache.h"
#include "metacache/metacache.h"
#include "metacache/metadisk.h"
#include "obox/obox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LOCK_TRIES = 600, LOCK_WAIT_US = 100000, FD_RESERVE = 128 };

/* Holds path's lock, waiting for a predecessor that still writes. */
static int take_lock(const char *path, struct err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), tries;

	if (fd < 0)
		return err_errno(err, "open", path);
	for (tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
		if (errno != EWOULDBLOCK || tries == LOCK_TRIES) {
			int rc = err_set(err, ERR_BUSY, "%s: another process holds it", path);

			close(fd);
			return rc;
		}
		usleep(LOCK_WAIT_US);
	}
	return fd;
}

/* All workers start at once; one of them makes the keys. */
static int open_keys(struct worker *w, struct err *err)
{
	char *lock = mem_printf("%s/keys.lock", w->p.conf.state_dir), *dir = mem_printf("%s/keys", w->p.conf.state_dir);
	int fd = take_lock(lock, err), rc = fd < 0 ? fd : io_mkdirs(dir, 0700, err);

	if (rc >= 0)
		rc = stores_are_new(&w->p.conf, err);
	if (rc >= 0)
		rc = seal_keys_open(dir, rc == 1, &w->keys, err);
	io_close(&fd);
	free(lock);
	free(dir);
	return rc;
}

/* A store over the network gets a cache on this worker's part of the disk. */
static int open_cache(struct worker *w, struct err *err)
{
	const struct conf *c = &w->p.conf;
	struct fscache_config fc = { .bytes = c->fscache_size / c->worker_count, .cacheable = fscache_keys_mail };
	char *base, *dir;
	int rc;

	if (c->mail_store.driver == CONF_STORE_POSIX || !c->fscache_size)
		return 0;
	if (fc.bytes < FSCACHE_BYTES_MIN)
		return err_set(err, ERR_INVALID, "fscache_size must be 0, or at least 4M for each of the %u workers", (unsigned)c->worker_count);
	base = mem_printf("%s/fscache", c->state_dir);
	dir = mem_printf("%s/%u", base, w->p.index);
	fc.dir = dir;
	if (w->p.index == 0)
		(void)fscache_trim(base, (unsigned)c->worker_count, NULL);	/* what cannot be deleted is in nobody's way */
	rc = fscache_open(w->stores.mail, &fc, &w->env.fscache, err);
	if (rc == 0 && w->stores.index == w->stores.mail)
		w->stores.index = w->env.fscache;
	if (rc == 0)
		w->stores.mail = w->env.fscache;	/* owns the store below */
	free(dir);
	free(base);
	return rc;
}

/* The same for users' indexes and logs, where those are in a store over the network. */
static int open_metadisk(struct worker *w, struct err *err)
{
	const struct conf *c = &w->p.conf;
	unsigned driver = c->index_store.driver == CONF_STORE_MAIL ? c->mail_store.driver : c->index_store.driver;
	unsigned char key[SEAL_KEY_BYTES];
	struct metadisk_config mc = { .bytes = c->metacache_size / c->worker_count, .key = key };
	char *base, *dir;
	int rc;

	if (driver == CONF_STORE_POSIX || !c->metacache_size)
		return 0;
	if (mc.bytes < METADISK_BYTES_MIN)
		return err_set(err, ERR_INVALID, "metacache_size must be 0, or at least 1M for each of the %u workers", (unsigned)c->worker_count);
	base = mem_printf("%s/metacache", c->state_dir);
	dir = mem_printf("%s/%u", base, w->p.index);
	mc.dir = dir;
	if (w->p.index == 0)
		(void)fscache_trim(base, (unsigned)c->worker_count, NULL);	/* what cannot be deleted is in nobody's way */
	seal_derive(w->keys, METADISK_KEY_LABEL, key);
	rc = metadisk_open(&mc, &w->env.metadisk, err);
	free(dir);
	free(base);
	return rc;
}

/* Another node took over: nothing that is done here counts any more. Master starts a new incarnation. */
static void fenced(void *ctx)
{
	log_event(LOG_ERROR, "another node has taken this one's users over: starting anew", LF_END);
	/* at once, whatever the other threads are at: not even what looks at a process at its end (leak checkers) has a say */
	syscall(SYS_exit_group, 1);
	_exit(1);
}

/* With journal = store: other nodes may be there. */
static int join_cluster(struct worker *w, struct obox_config *cfg, struct err *err)
{
	const struct conf *c = &w->p.conf;
	struct metacache_config mc = {
		.store = w->stores.index, .prefix = c->mail_store.prefix, .node = w->node.name, .address = *w->node.address ? w->node.address : NULL,
		.flag_commit_delay_ms = (unsigned)c->flag_commit_delay, .fenced = fenced,
	};
	int rc;

	if (!conf_journal_in_store(c))
		return 0;
	w->registry = (struct metacache_reader){ w->stores.index, mem_strdup(c->mail_store.prefix), w->keys };
	rc = metacache_new(&mc, &w->cluster, err);
	cfg->cluster = w->cluster;
	return rc;
}

static int open_node(struct worker *w, struct err *err)
{
	const struct conf *c = &w->p.conf;
	char *lock = mem_printf("%s/worker%u.lock", c->state_dir, w->p.index);
	struct obox_config cfg = {
		.state_dir = c->state_dir, .prefix = c->mail_store.prefix, .node = w->node.name,
		.flag_commit_delay_ms = (unsigned)c->flag_commit_delay, .grace_s = c->grace_period / 1000,
		.max_message = c->limits.message_size, .cache_bytes = c->cache_size / c->worker_count,
	};
	int rc = w->lock_fd = take_lock(lock, err);

	if (rc >= 0 && conf_journal_in_store(c)) {
		free(w->node.name);
		w->node.name = NULL;
		rc = metacache_node_name(c->state_dir, w->p.index, &w->node.name, err);
		cfg.node = w->node.name;
	}
	if (rc >= 0)
		rc = open_keys(w, err);
	if (rc >= 0)
		rc = stores_open(c, true, &w->stores, err);
	if (rc >= 0)
		rc = open_cache(w, err);
	if (rc >= 0)
		rc = open_metadisk(w, err);
	if (rc >= 0) {
		cfg.cache = w->env.metadisk;
		cfg.mail_store = w->env.mail_store = w->stores.mail;
		cfg.index_store = w->env.index_store = w->stores.index;
		cfg.keys = w->keys;
		seal_derive(w->keys, NODE_KEY_LABEL, w->node.key);
		rc = join_cluster(w, &cfg, err);
	}
	if (rc >= 0)
		rc = obox_open(&cfg, &w->env.obox, err);
	free(lock);
	return rc < 0 ? rc : 0;
}

static void close_node(struct worker *w)
{
	if (w->env.obox)
		obox_close(&w->env.obox);
	if (w->cluster)
		metacache_free(&w->cluster);
	metadisk_close(&w->env.metadisk);
	free((char *)(uintptr_t)w->registry.prefix);
	stores_close(&w->stores);
	if (w->keys)
		seal_keys_free(&w->keys);
	io_close(&w->lock_fd);
}

/* For conn_env.each: as many threads as there are cores take one after the other. */
struct slices {
	atomic_size_t next;
	size_t n;
	void (*fn)(void *ctx, size_t i);
	void *ctx;
};

static void slice(void *ctx, size_t nth)
{
	struct slices *sl = ctx;
	size_t i;

	while ((i = atomic_fetch_add(&sl->next, 1)) < sl->n)
		sl->fn(sl->ctx, i);
}

static void each(struct conn_env *env, size_t n, void (*fn)(void *ctx, size_t i), void *ctx)
{
	struct worker *w = env->worker;
	struct slices sl = { .n = n, .fn = fn, .ctx = ctx };

	pool_each(w->deliveries, n < w->cores ? n : w->cores, slice, &sl);
}

static bool stopping(struct conn_env *env)
{
	struct worker *w = env->worker;

	return atomic_load(&w->stopping);
}

/* The strings are p.conf's. */
static void fill_env(struct worker *w)
{
	w->env.hostname = w->p.conf.hostname;
	w->env.version = PACKAGE_VERSION;
	w->env.max_message = w->p.conf.limits.message_size;
	w->env.max_command = (uint32_t)w->p.conf.limits.imap_command_size;
	w->env.recipient_delimiter = w->p.conf.recipient_delimiter;
	w->env.max_recipients = (uint32_t)w->p.conf.limits.lmtp_recipients;
	w->env.detail_mailbox = w->p.conf.lmtp_save_to_detail_mailbox;
	w->env.user_exists = worker_user_exists;
	w->env.deliver = worker_deliver;
	w->env.owner = worker_owns;
	w->env.each_session = session_each;
	w->env.each = each;
	w->env.cluster = w->cluster;
	w->env.registry = w->cluster ? &w->registry : NULL;
	w->env.node_name = w->node.name;
	w->env.node_key = w->cluster ? w->node.key : NULL;
	w->env.end_sessions = session_end_user;
	w->env.stopping = stopping;
	w->env.worker = w;
}

/* --- two threads of its own: what must not be late, and what may take long --- */

static void every_second(struct worker *w, void (*fn)(struct obox *ob))
{
	struct timespec until;

	pthread_mutex_lock(&w->lock);
	while (!w->quit) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec++;
		while (!w->quit && pthread_cond_timedwait(&w->changed, &w->lock, &until) != ETIMEDOUT)
			;
		if (w->quit)
			break;
		pthread_mutex_unlock(&w->lock);
		fn(w->env.obox);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
}

static void *upkeep_thread(void *arg)
{
	every_second(arg, obox_upkeep);
	return NULL;
}

static void *tend_thread(void *arg)
{
	every_second(arg, obox_tend);
	return NULL;
}

/* --- the loop thread's jobs --- */

void worker_post(struct worker *w, struct worker_job *j)
{
	uint64_t one = 1;
	bool first;

	j->next = NULL;
	pthread_mutex_lock(&w->lock);
	first = !w->jobs;
	*w->jobs_tail = j;
	w->jobs_tail = &j->next;
	pthread_mutex_unlock(&w->lock);
	if (first)
		(void)!write(w->wake_src.fd, &one, sizeof(one));
}

static void run_jobs(struct worker *w)
{
	struct worker_job *j, *next;

	pthread_mutex_lock(&w->lock);
	j = w->jobs;
	w->jobs = NULL;
	w->jobs_tail = &w->jobs;
	pthread_mutex_unlock(&w->lock);
	for (; j; j = next) {
		next = j->next;
		j->run(w, j);
	}
}

/* --- whose users --- */

int worker_user_open(struct worker *w, const char *user, struct obox_user **u_r, struct obox_owner *owner_r, struct err *err)
{
	memset(owner_r, 0, sizeof(*owner_r));
	return obox_user_locate(w->env.obox, user, u_r, owner_r, err);
}

/* --- master's messages --- */

static void on_go(struct proc *p)
{
	proc_tell(p, MSG_READY);
}

static void check_end(struct loop *l)
{
	struct worker *w = l->owner;

	run_jobs(w);
	session_bury(w);
	if (!w->stopping || w->n_sessions || w->idle)
		return;
	/* Other workers may still deliver to this one: master says when all are done. */
	w->idle = true;
	if (w->p.ctl)
		proc_tell(&w->p, MSG_IDLE);
	else
		l->stop = true;
}

static void out_of_time(struct loop_timer *t)
{
	struct worker *w = t->owner;

	log_event(LOG_WARN, "sessions did not end in time: cutting them off", LF_U("sessions", w->n_sessions), LF_END);
	session_stop_all(w, true);
}

static void on_stop(struct proc *p)
{
	struct worker *w = p->owner;

	if (w->idle)
		p->loop.stop = true;
	if (w->stopping)
		return;
	w->stopping = true;
	session_stop_all(w, false);
	loop_timer_set(&p->loop, &w->stop_timer, (int64_t)p->conf.stop_timeout / 3);
}

/* What sessions hold pointers to never changes here (conf_keep saw to that);
 * the old strings go on being used. */
static void on_conf(struct proc *p, struct conf *old)
{
	struct worker *w = p->owner;
	char *hostname = p->conf.hostname, *delimiter = p->conf.recipient_delimiter;

	p->conf.hostname = old->hostname;
	p->conf.recipient_delimiter = old->recipient_delimiter;
	old->hostname = hostname;
	old->recipient_delimiter = delimiter;
	fill_env(w);
}

static void on_peer(struct proc *p, enum msg_role role, unsigned index, int fd)
{
	worker_peer_set(p->owner, role, index, fd);
}

static void on_conn(struct proc *p, const struct msg_conn *m, int fd)
{
	session_new(p->owner, m, fd);
}

static void on_listen(struct proc *p, struct rd *r, int fd)
{
	node_listen(p->owner, fd);
}

static const struct proc_ops worker_ops = { .listen = on_listen, .go = on_go, .stop = on_stop, .conf = on_conf, .peer = on_peer, .conn = on_conn };

static void on_wake(struct loop_src *src, uint32_t events)
{
	uint64_t n;

	(void)!read(src->fd, &n, sizeof(n));	/* the loop's idle call does the work */
}

static size_t session_limit(const struct conf *c)
{
	struct rlimit rl = { 1024, 1024 };

	(void)getrlimit(RLIMIT_NOFILE, &rl);
	if (c->limits.connections)
		return c->limits.connections;
	return rl.rlim_cur > FD_RESERVE * 2 ? rl.rlim_cur - FD_RESERVE : FD_RESERVE;
}

static int start_threads(struct worker *w, struct err *err)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	w->wake_src.ready = on_wake;
	if (fd < 0 || loop_add(&w->p.loop, &w->wake_src, fd, EPOLLIN) < 0)
		return err_errno(err, "eventfd", NULL);
	w->pool = pool_new(w->p.conf.worker_threads_max);
	w->deliveries = pool_new(w->p.conf.worker_threads_max);
	w->upkeep_on = pthread_create(&w->upkeep, NULL, upkeep_thread, w) == 0;
	w->tend_on = pthread_create(&w->tend, NULL, tend_thread, w) == 0;
	return w->upkeep_on && w->tend_on ? 0 : err_set(err, ERR_LIMIT, "cannot start a thread");
}

static void stop_threads(struct worker *w)
{
	int fd = w->wake_src.fd;

	pthread_mutex_lock(&w->lock);
	w->quit = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pool_free(&w->pool);
	pool_free(&w->deliveries);
	if (w->env.obox)
		obox_stop_tending(w->env.obox);
	if (w->upkeep_on)
		pthread_join(w->upkeep, NULL);
	if (w->tend_on)
		pthread_join(w->tend, NULL);
	loop_del(&w->p.loop, &w->wake_src);
	io_close(&fd);
}

static void worker_init(struct worker *w)
{
	pthread_condattr_t attr;

	memset(w, 0, sizeof(*w));
	w->lock_fd = -1;
	w->jobs_tail = &w->jobs;
	w->wake_src.fd = -1;
	pthread_mutex_init(&w->lock, NULL);
	pthread_rwlock_init(&w->peers, NULL);
	worker_known_init(&w->known);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
	w->stop_timer.fire = out_of_time;
	w->stop_timer.owner = w;
}

static int serve(struct worker *w, struct err *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int rc = start_threads(w, err);

	if (rc < 0)
		return rc;
	fill_env(w);
	w->max_sessions = session_limit(&w->p.conf);
	w->cores = cores > 1 ? (size_t)cores : 1;
	w->p.loop.owner = w;
	w->p.loop.idle = check_end;
	loop_run(&w->p.loop);
	return 0;
}

int worker_main(unsigned index, unsigned generation, const char *address)
{
	static struct worker w;
	struct err err = ERR_INIT;
	int rc;

	worker_init(&w);
	rc = proc_start(&w.p, ROLE_WORKER, index, generation, &worker_ops, &w, &err);
	if (rc < 0) {
		log_event(LOG_ERROR, "worker cannot start", LF_ERR(&err), LF_END);
		return 1;
	}
	node_init(&w, address);
	rc = proc_become(w.p.conf.user, w.p.conf.group, &err);
	if (rc == 0)
		rc = open_node(&w, &err);
	if (rc == 0)
		rc = serve(&w, &err);
	if (rc < 0)
		log_event(LOG_ERROR, "worker cannot start", LF_ERR(&err), LF_END);
	stop_threads(&w);
	run_jobs(&w);
	session_bury(&w);
	close_node(&w);
	node_release(&w);
	worker_peers_close(&w);
	worker_known_free(&w.known);
	hmap_free(&w.calls);
	proc_release(&w.p);
	return rc < 0;
}
