/* auth - the process that knows the password hashes.
 *
 * Its thread answers what the database and the cache can answer at once;
 * password hashing is given to a few threads and answered when they are done.
 * A user that does not exist costs the same hashing as a wrong password. */
#include "daemon/proc.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/auth-cache.h"
#include "daemon/auth-db.h"

#include <pthread.h>
#include <sodium.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { CACHE_MAX = 200000, JOBS_MAX = 4096 };

struct job {
	struct job *next;
	uint64_t peer;			/* serial of the channel to answer on */
	uint32_t id;
	bool real;			/* there is such a user, and it may log in */
	int rc;				/* of auth_hash_verify */
	char name[AUTH_NAME_MAX + 1], hash[AUTH_HASH_MAX], password[AUTH_PASSWORD_MAX + 1];
};
struct auth_peer {
	struct auth_peer *next;
	struct chan *ch;
	uint64_t serial;
	enum msg_role role;
};
struct auth {
	struct proc p;
	struct auth_db *db;
	struct auth_cache *cache;
	struct auth_peer *peers;
	uint64_t serial;
	char dummy[AUTH_HASH_MAX];
	bool draining;
	struct loop_src done_src;
	size_t jobs;			/* under way, the thread's own count */
	pthread_t threads[64];
	unsigned n_threads;
	pthread_mutex_t lock;		/* of what follows */
	pthread_cond_t more;
	struct job *todo, **todo_tail, *done;
	bool quit;
};

static void job_free(struct job *j)
{
	sodium_memzero(j, sizeof(*j));
	free(j);
}

static void answer(struct auth *a, uint64_t serial, uint32_t id, enum msg_answer result, const char *name)
{
	struct auth_peer *peer = a->peers;
	struct buf b = BUF_INIT(1024);

	while (peer && peer->serial != serial)
		peer = peer->next;
	if (!peer)
		return;
	buf_put8(&b, MSG_ANSWER);
	buf_put32(&b, id);
	buf_put8(&b, (uint8_t)result);
	msg_put_str(&b, name);
	(void)chan_send(peer->ch, &b, -1);
	buf_free(&b);
}

/* --- the hashing threads --- */

static void *hash_thread(void *arg)
{
	struct auth *a = arg;
	struct err err = ERR_INIT;
	struct job *j;
	uint64_t one = 1;

	pthread_mutex_lock(&a->lock);
	while (!a->quit) {
		j = a->todo;
		if (!j) {
			pthread_cond_wait(&a->more, &a->lock);
			continue;
		}
		a->todo = j->next;
		if (!a->todo)
			a->todo_tail = &a->todo;
		pthread_mutex_unlock(&a->lock);
		err_clear(&err);
		j->rc = auth_hash_verify(j->hash, j->password, &err);
		if (j->rc < 0)
			log_event(LOG_ERROR, "a user's password cannot be checked", LF_S("user", j->name), LF_ERR(&err), LF_END);
		pthread_mutex_lock(&a->lock);
		j->next = a->done;
		a->done = j;
		(void)!write(a->done_src.fd, &one, sizeof(one));
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

static void maybe_end(struct auth *a)
{
	struct auth_peer *peer;

	if (!a->draining || a->jobs)
		return;
	for (peer = a->peers; peer; peer = peer->next)
		if (peer->role == ROLE_GATE)
			return;
	a->p.loop.stop = true;
}

static void on_done(struct loop_src *src, uint32_t events)
{
	struct auth *a = src->owner;
	struct job *j, *next;
	uint64_t n;

	(void)!read(src->fd, &n, sizeof(n));
	pthread_mutex_lock(&a->lock);
	j = a->done;
	a->done = NULL;
	pthread_mutex_unlock(&a->lock);
	for (; j; j = next) {
		bool right = j->rc == 1 && j->real;

		next = j->next;
		if (right)
			auth_cache_put(a->cache, j->name, j->password, j->hash, a->p.loop.now_ms);
		answer(a, j->peer, j->id, right ? ANSWER_YES : j->rc < 0 && j->real ? ANSWER_LATER : ANSWER_NO, j->name);
		job_free(j);
		a->jobs--;
	}
	maybe_end(a);
}

/* --- requests --- */

static void enqueue(struct auth *a, struct job *j)
{
	j->next = NULL;
	a->jobs++;
	pthread_mutex_lock(&a->lock);
	*a->todo_tail = j;
	a->todo_tail = &j->next;
	pthread_cond_signal(&a->more);
	pthread_mutex_unlock(&a->lock);
}

static void verify(struct auth *a, struct auth_peer *peer, uint32_t id, const char *user, const char *password)
{
	struct err err = ERR_INIT;
	struct auth_user u;
	struct job *j;
	int rc = auth_db_resolve(a->db, user, a->p.conf.auth.default_domain, &u, &err);

	if (rc < 0) {
		log_event(LOG_ERROR, "the user database cannot be asked", LF_ERR(&err), LF_END);
		answer(a, peer->serial, id, ANSWER_LATER, "");
		return;
	}
	if (rc == 1 && u.enabled && auth_cache_has(a->cache, u.name, password, u.hash, a->p.loop.now_ms)) {
		answer(a, peer->serial, id, ANSWER_YES, u.name);
		return;
	}
	if (a->jobs >= JOBS_MAX || strlen(password) > AUTH_PASSWORD_MAX) {
		answer(a, peer->serial, id, a->jobs >= JOBS_MAX ? ANSWER_LATER : ANSWER_NO, "");
		return;
	}
	j = MEM_NEW(struct job);
	j->peer = peer->serial;
	j->id = id;
	j->real = rc == 1 && u.enabled;
	snprintf(j->name, sizeof(j->name), "%s", rc == 1 ? u.name : "");
	snprintf(j->hash, sizeof(j->hash), "%s", rc == 1 ? u.hash : a->dummy);
	snprintf(j->password, sizeof(j->password), "%s", password);
	enqueue(a, j);
}

static void exists(struct auth *a, struct auth_peer *peer, uint32_t id, const char *address)
{
	struct err err = ERR_INIT;
	struct auth_user u = { .name = "" };
	int rc = auth_db_resolve(a->db, address, a->p.conf.auth.default_domain, &u, &err);

	if (rc < 0)
		log_event(LOG_ERROR, "the user database cannot be asked", LF_ERR(&err), LF_END);
	answer(a, peer->serial, id, rc < 0 ? ANSWER_LATER : rc ? ANSWER_YES : ANSWER_NO, u.name);
}

static void on_message(struct chan *ch, struct rd *r, int fd)
{
	struct auth_peer *peer = ch->owner;
	struct auth *a = ch->loop->owner;
	unsigned type = rd_8(r);
	uint32_t id = rd_32(r);
	const char *user = msg_get_str(r), *password = type == MSG_VERIFY ? msg_get_str(r) : "";

	io_close(&fd);
	if (r->failed)
		return;
	if (type == MSG_VERIFY)
		verify(a, peer, id, user, password);
	else if (type == MSG_EXISTS)
		exists(a, peer, id, user);
	if (type == MSG_VERIFY)
		sodium_memzero((void *)(uintptr_t)password, strlen(password));
}

static void on_closed(struct chan *ch)
{
	struct auth_peer *peer = ch->owner, **pp;
	struct auth *a = ch->loop->owner;

	for (pp = &a->peers; *pp != peer; pp = &(*pp)->next)
		;
	*pp = peer->next;
	chan_free(&peer->ch);
	free(peer);
	maybe_end(a);
}

static const struct chan_ops peer_ops = { on_message, on_closed };

/* --- the process --- */

static void on_peer(struct proc *p, enum msg_role role, unsigned index, int fd)
{
	struct auth *a = p->owner;
	struct auth_peer *peer = MEM_NEW(struct auth_peer);

	peer->serial = ++a->serial;
	peer->role = role;
	peer->ch = chan_new(&p->loop, fd, &peer_ops, peer, index);
	if (!peer->ch) {
		free(peer);
		return;
	}
	peer->next = a->peers;
	a->peers = peer;
}

static void on_go(struct proc *p)
{
	proc_tell(p, MSG_READY);
}

static void on_stop(struct proc *p)
{
	p->loop.stop = true;
}

static void on_drain(struct proc *p)
{
	struct auth *a = p->owner;

	a->draining = true;
	maybe_end(a);
}

static const struct proc_ops auth_ops = { .go = on_go, .stop = on_stop, .drain = on_drain, .peer = on_peer };

static int start(struct auth *a, struct err *err)
{
	unsigned char random[16];
	char text[2 * sizeof(random) + 1];
	int fd, rc;

	rc = proc_become(a->p.conf.user, a->p.conf.group, err);
	if (rc == 0)
		rc = auth_db_open(a->p.conf.auth.database, true, &a->db, err);
	if (rc < 0)
		return rc;
	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(text, sizeof(text), random, sizeof(random));
	rc = auth_hash_make(text, a->dummy, err);
	if (rc < 0)
		return rc;
	a->cache = auth_cache_new(a->p.conf.auth.cache_ttl, CACHE_MAX);
	a->todo_tail = &a->todo;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	a->done_src.ready = on_done;
	a->done_src.owner = a;
	if (fd < 0 || loop_add(&a->p.loop, &a->done_src, fd, EPOLLIN) < 0)
		return err_errno(err, "eventfd", NULL);
	while (a->n_threads < a->p.conf.auth.threads && a->n_threads < MEM_COUNT(a->threads)) {
		if (pthread_create(&a->threads[a->n_threads], NULL, hash_thread, a) != 0)
			return err_set(err, ERR_LIMIT, "cannot start a hashing thread");
		a->n_threads++;
	}
	return 0;
}

static void release(struct auth *a)
{
	struct auth_peer *peer;
	struct job *j;
	int fd = a->done_src.fd;

	pthread_mutex_lock(&a->lock);
	a->quit = true;
	pthread_cond_broadcast(&a->more);
	pthread_mutex_unlock(&a->lock);
	while (a->n_threads)
		pthread_join(a->threads[--a->n_threads], NULL);
	while ((j = a->todo ? a->todo : a->done)) {
		*(a->todo ? &a->todo : &a->done) = j->next;
		job_free(j);
	}
	while ((peer = a->peers)) {
		a->peers = peer->next;
		chan_free(&peer->ch);
		free(peer);
	}
	loop_del(&a->p.loop, &a->done_src);
	io_close(&fd);
	auth_cache_free(&a->cache);
	auth_db_close(&a->db);
}

int auth_main(unsigned index, unsigned generation)
{
	struct auth a = { .done_src = { .fd = -1 }, .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };
	struct err err = ERR_INIT;
	int rc = proc_start(&a.p, ROLE_AUTH, index, generation, &auth_ops, &a, &err);

	if (rc < 0) {
		log_event(LOG_ERROR, "auth cannot start", LF_ERR(&err), LF_END);
		return 1;
	}
	a.p.loop.owner = &a;
	rc = start(&a, &err);
	if (rc < 0)
		log_event(LOG_ERROR, "auth cannot start", LF_ERR(&err), LF_END);
	else
		loop_run(&a.p.loop);
	release(&a);
	proc_release(&a.p);
	return rc < 0;
}
