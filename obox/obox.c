/* The node: opening and closing. */
#include "obox/obox-private.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

enum { SUMCACHE_BYTES = 64 << 20, USERS_BYTES = 256 << 20, LOCK_TRIES = 1500 /* of 20 ms */ };

static int lock_node(struct obox *ob, struct err *err)
{
	char *path = mem_printf("%s/lock", ob->node_dir);
	int rc = 0, i;

	ob->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (ob->lock_fd < 0)
		rc = err_errno(err, "open", path);
	/* a process that was killed a moment ago may still hold it, or another node that replays its journal */
	for (i = 0; rc == 0 && flock(ob->lock_fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (i == LOCK_TRIES)
			rc = err_set(err, ERR_BUSY, "%s is locked: another process runs as node %s", path, ob->node);
		usleep(20000);
	}
	free(path);
	return rc;
}

static int open_dirs(struct obox *ob, struct err *err)
{
	char *tmp = mem_printf("%s/tmp", ob->node_dir);
	int rc = io_mkdirs(tmp, 0700, err);

	if (rc == 0) {
		ob->tmp_fd = open(tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (ob->tmp_fd < 0)
			rc = err_errno(err, "open", tmp);
	}
	free(tmp);
	return rc == 0 ? lock_node(ob, err) : rc;
}

static void obox_free(struct obox *ob)
{
	size_t pos = 0;
	void *u;

	while (hmap_next(&ob->users, &pos, NULL, NULL, &u))	/* those that could not be released: the journal has their records */
		user_destroy(u);
	journal_close(&ob->journal);
	sumcache_free(&ob->sumcache);
	hmap_free(&ob->users);
	io_close(&ob->lock_fd);
	io_close(&ob->tmp_fd);
	pthread_rwlock_destroy(&ob->gate);
	pthread_mutex_destroy(&ob->upkeep_lock);
	pthread_mutex_destroy(&ob->lock);
	pthread_cond_destroy(&ob->cond);
	free(ob->state_dir);
	free(ob->node_dir);
	free(ob->prefix);
	free(ob->node);
	free(ob);
}

static int start_journal(struct obox *ob, struct err *err)
{
	char *dir;
	int rc;

	if (ob->cfg.cluster)
		return ob->cfg.cluster->ops->start(ob->cfg.cluster, ob, &ob->journal, &ob->incarnation, err);
	dir = mem_printf("%s/journal", ob->node_dir);
	rc = journal_open(dir, ob->cfg.keys, &ob->journal, err);
	free(dir);
	return rc;
}

int obox_open(const struct obox_config *cfg, struct obox **ob_r, struct err *err)
{
	struct obox *ob = MEM_NEW(struct obox);
	int rc;

	*ob_r = NULL;
	if (sodium_init() < 0)
		abort();
	ob->cfg = *cfg;
	if (!ob->cfg.clock)
		ob->cfg.clock = &clock_system;
	if (ob->cfg.grace_s == UINT64_MAX)
		ob->cfg.grace_s = 7 * 86400;
	if (!ob->cfg.cache_bytes)
		ob->cfg.cache_bytes = USERS_BYTES;
	if (!ob->cfg.max_message)
		ob->cfg.max_message = 150 << 20;
	ob->state_dir = mem_strdup(cfg->state_dir);
	ob->node = mem_strdup(cfg->node);
	ob->node_dir = mem_printf("%s/nodes/%s", cfg->state_dir, cfg->node);
	ob->prefix = mem_strdup(cfg->prefix ? cfg->prefix : "");
	ob->lock_fd = ob->tmp_fd = -1;
	pthread_mutex_init(&ob->lock, NULL);
	pthread_cond_init(&ob->cond, NULL);
	pthread_mutex_init(&ob->upkeep_lock, NULL);
	pthread_rwlock_init(&ob->gate, NULL);
	do {
		randombytes_buf(&ob->incarnation, sizeof(ob->incarnation));
	} while (!ob->incarnation);
	ob->sumcache = sumcache_new(ob->cfg.cache_bytes > SUMCACHE_BYTES ? ob->cfg.cache_bytes : SUMCACHE_BYTES);
	ob->last_sync_us = ob->last_checkpoint_us = clock_mono_us(ob->cfg.clock);
	rc = open_dirs(ob, err);
	if (rc == 0)
		rc = obox_recover(ob, ob->node_dir, err);
	if (rc == 0)
		rc = obox_recover_others(ob, err);
	if (rc == 0)
		rc = start_journal(ob, err);
	if (rc < 0) {
		obox_free(ob);
		return rc;
	}
	*ob_r = ob;
	return 0;
}

bool obox_fenced(struct obox *ob)
{
	return ob->cfg.cluster && ob->cfg.cluster->ops->fenced(ob->cfg.cluster);
}

void obox_abandon(struct obox **obp)
{
	struct obox *ob = *obp;

	if (!ob)
		return;
	*obp = NULL;
	if (ob->cfg.cluster)
		ob->cfg.cluster->ops->abandon(ob->cfg.cluster);
	obox_free(ob);
}

void obox_close(struct obox **obp)
{
	struct obox *ob = *obp;
	struct err e = ERR_INIT;
	uint64_t old = 0;
	bool all;

	if (!ob)
		return;
	*obp = NULL;
	/* a store that is away would only be waited for: the next start, or another node, reads the journal */
	if (!ob->cfg.cluster || ob->cfg.cluster->ops->serving(ob->cfg.cluster)) {
		if (!ob->cfg.cluster)	/* with one sync for all; otherwise each user's log goes along when it is released */
			obox_checkpoint(ob, NULL, &e);
		pthread_mutex_lock(&ob->upkeep_lock);
		obox_evict(ob, -1);
		pthread_mutex_unlock(&ob->upkeep_lock);
	}
	all = ob->users.n == 0;
	if (all && journal_rotate(ob->journal, &old, &e) == 0)
		journal_drop(ob->journal, old + 1);
	if (!all)
		log_event(LOG_WARN, "some users could not be released: the journal is kept for the next start", LF_U("users", ob->users.n), LF_ERR(&e), LF_END);
	if (ob->cfg.cluster)
		ob->cfg.cluster->ops->stop(ob->cfg.cluster, all);
	obox_free(ob);
}
