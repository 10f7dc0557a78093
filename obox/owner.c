/* Ownership: whose a root is, taking it, and what follows an unclean end.
 *
 * A root is taken by swapping it: epoch + 1, owner = this node and its
 * incarnation.  Who loses the swap looks again.  A root whose owner did not
 * release it is taken only when that owner's journal has been replayed, and
 * then a fence is put behind its log (tail.c) before anybody is served: the
 * old owner, should it still run, finds the slot taken and its root gone. */
#include "obox/obox-private.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

enum { OWNER_WAIT_MS = 5000, OWNER_POLL_MS = 50, OWN_TRIES = 20 };

int root_get(struct obox *ob, const char *prefix, struct manifest *man, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct buf b = BUF_INIT(8192);
	char *key = mem_printf("%sroot", prefix);
	struct err e = ERR_INIT;
	int rc = objstore_get(ob->cfg.index_store, key, &b, etag, &e);

	if (rc == 0)
		rc = manifest_decode(man, ob->cfg.keys, key, b.data, b.len, &e);
	buf_free(&b);
	free(key);
	if (rc == ERR_NOTFOUND)
		return 0;
	return rc < 0 ? err_set(err, rc, "%s", e.msg) : 1;
}

int root_put(struct obox *ob, const char *prefix, const struct manifest *man, char etag[OBJ_ETAG_MAX], struct err *err)
{
	struct buf b = BUF_INIT(8192);
	char *key = mem_printf("%sroot", prefix);
	int rc = manifest_encode(man, ob->cfg.keys, key, &b, err);

	if (rc == 0)
		rc = obox_swap(ob->cfg.index_store, key, b.data, b.len, etag, 0, err);
	buf_free(&b);
	free(key);
	return rc;
}

/* --- does the owner live? 1, 0 (and its journal is replayed), <0 --- */

/* A node that this machine knows nothing of may be one of several on this store; its journal is not here. */
static int of_a_cluster(struct obox *ob, const char *node, struct err *err)
{
	char *key = mem_printf("%s%snode/%s", ob->prefix, *ob->prefix ? "/" : "", node);
	int rc = objstore_key_valid(key) ? objstore_head(ob->cfg.index_store, key, NULL, err) : 0;

	free(key);
	return rc == 1 ? err_set(err, ERR_DENIED, "node %s shares this store with others: journal = store is needed to take its users", node) : rc;
}

/* On one machine: does a living process hold that node's lock file? */
static int settle_here(struct obox *ob, const char *node, struct err *err)
{
	char *dir = mem_printf("%s/nodes/%s", ob->state_dir, node), *path = mem_printf("%s/lock", dir);
	int fd = open(path, O_RDWR | O_CLOEXEC), rc = 0;

	if (fd < 0 && errno != ENOENT)
		rc = err_errno(err, "open", path);
	else if (fd < 0)
		rc = of_a_cluster(ob, node, err);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
		rc = 1;
	else if (fd >= 0)
		rc = obox_recover(ob, dir, err);
	io_close(&fd);
	free(path);
	free(dir);
	return rc;
}

static int settle_owner(struct obox *ob, const char *user, const struct manifest *man, struct obox_owner *o, struct err *err)
{
	bool self = !strcmp(man->node, ob->node);

	if (!man->incarnation || man->incarnation == ob->incarnation || (self && !ob->cfg.cluster))
		return 0;
	if (ob->cfg.cluster)
		return ob->cfg.cluster->ops->owner(ob->cfg.cluster, man->node, man->incarnation, user, o, err);
	return settle_here(ob, man->node, err);
}

bool obox_may_delete(struct obox_user *u)
{
	struct obox_cluster *c = u->ob->cfg.cluster;

	return !u->lost && (!c || c->ops->serving(c));
}

static void own(struct obox_user *u, struct manifest *man)
{
	man->epoch += !sim_broken("epoch-not-raised");
	snprintf(man->node, sizeof(man->node), "%s", u->ob->node);
	man->incarnation = u->ob->incarnation;
}

/* One try: 1 owned (u->man), 0 try again, ERR_BUSY a live node's. */
static int try_own(struct obox_user *u, bool *unclean_r, struct obox_owner *o, struct err *err)
{
	struct manifest man, again;
	int rc = root_get(u->ob, u->prefix, &man, u->etag, err);

	if (rc < 0)
		return rc;
	if (rc == 0) {
		memset(&man, 0, sizeof(man));
		u->etag[0] = '\0';
	}
	*unclean_r = man.incarnation || (man.epoch && !man.node[0]);	/* its owner's, or released by who replayed its journal */
	rc = settle_owner(u->ob, u->name, &man, o, err);
	if (rc != 0)
		return rc < 0 ? rc : err_set(err, ERR_BUSY, "user %s is served by node %s", u->name, o->node[0] ? o->node : man.node);
	if (u->ob->cfg.cluster && man.incarnation != u->ob->incarnation &&
	    u->ob->cfg.cluster->ops->elsewhere(u->ob->cfg.cluster, man.node, man.incarnation, u->name, o))
		return err_set(err, ERR_BUSY, "user %s: this node is being drained", u->name);
	if (man.incarnation && man.incarnation != u->ob->incarnation) {
		rc = root_get(u->ob, u->prefix, &again, u->etag, err);	/* the replay may have moved it */
		if (rc < 0)
			return rc;
		if (rc == 0 || again.epoch != man.epoch || again.log_seq != man.log_seq || again.incarnation != man.incarnation)
			return 0;
	}
	u->man = man;
	own(u, &u->man);
	rc = root_put(u->ob, u->prefix, &u->man, u->etag, err);
	if (rc == ERR_CONFLICT) {
		err_clear(err);
		return 0;
	}
	return rc < 0 ? rc : 1;
}

/* 1 fenced, 0 another one took the user meanwhile, <0. */
static int fence(struct obox_user *u, uint64_t old_epoch, struct err *err)
{
	int rc = log_extend(u->ob, u->prefix, &u->man, old_epoch, NULL, true, err);

	if (rc == 0)
		rc = root_put(u->ob, u->prefix, &u->man, u->etag, err);
	if (rc == ERR_CONFLICT) {
		err_clear(err);
		return 0;
	}
	return rc < 0 ? rc : 1;
}

static int take_root(struct obox_user *u, struct obox_owner *o, struct err *err)
{
	int64_t end = clock_mono_us(&clock_system) + OWNER_WAIT_MS * 1000LL;
	bool unclean = false;
	int rc, tries = 0;

	for (;;) {
		rc = try_own(u, &unclean, o, err);
		if (rc == 1 && unclean && u->ob->cfg.cluster && !sim_broken("no-fence"))
			rc = fence(u, u->man.epoch - 1, err);
		if (rc == 1)
			return 0;
		if (rc == ERR_BUSY && !u->ob->cfg.cluster && clock_mono_us(&clock_system) < end) {
			err_clear(err);	/* on one machine its process is about to end, or gives the user up soon */
			usleep(OWNER_POLL_MS * 1000);
			continue;
		}
		if (rc < 0)
			return rc;
		if (++tries == OWN_TRIES)
			return err_set(err, ERR_BUSY, "user %s: others are at its root", u->name);
	}
}

static int first_mailbox(struct obox_user *u, struct err *err)
{
	struct rec r = { .type = REC_MBOX_CREATE, .name = "INBOX" };
	uint64_t ticket;
	int rc;

	if (root_by_name(&u->st, "INBOX"))
		return 0;
	randombytes_buf(r.guid.b, sizeof(r.guid.b));
	r.uidvalidity = (uint32_t)clock_wall_s(u->ob->cfg.clock);
	if (r.uidvalidity <= u->st.last_uidvalidity)
		r.uidvalidity = u->st.last_uidvalidity + 1;
	r.modseq = modseq_first(u->st.epoch);
	pthread_mutex_lock(&u->lock);
	rc = user_commit(u, &r, NULL, 1, &ticket, err);
	pthread_mutex_unlock(&u->lock);
	if (rc < 0)
		return rc;
	rc = user_wait(u, ticket, err);
	if (rc == ERR_UNAVAILABLE && u->ob->cfg.cluster) {	/* it is on its way, and nothing that needs it is acknowledged before it */
		err_clear(err);
		rc = 0;
	}
	return rc;
}

int user_activate(struct obox_user *u, struct obox_owner *o, struct err *err)
{
	struct manifest man;
	int rc = take_root(u, o, err);

	if (rc < 0)
		return rc;
	man = u->man;
	u->cached = true;
	rc = user_load(u, &man, err);
	if (rc < 0)
		return rc;
	u->st.epoch = u->man.epoch;
	pthread_mutex_lock(&u->lock);
	cached_note(u);
	pthread_mutex_unlock(&u->lock);
	return first_mailbox(u, err);
}
