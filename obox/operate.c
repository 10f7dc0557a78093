/* What operators ask of a node about its users: where one is, that it leaves. */
#include "obox/obox-private.h"

#include "obox/cluster.h"

/* --- where --- */

/* The user in memory, with a reference, or NULL; waits for nobody. */
static struct obox_user *pin(struct obox *ob, const char *user)
{
	struct obox_user *u;

	pthread_mutex_lock(&ob->lock);
	u = hmap_gets(&ob->users, user);
	if (u && u->phase != USER_OPEN)
		u = NULL;
	if (u)
		u->refs++;
	pthread_mutex_unlock(&ob->lock);
	return u;
}

static void see_memory(struct obox *ob, const char *user, struct obox_where *w)
{
	struct obox_user *u = pin(ob, user);

	if (!u)
		return;
	w->loaded = true;
	w->bytes = user_bytes(u);
	pthread_mutex_lock(&u->lock);
	w->tail = u->tail.len;
	pthread_mutex_unlock(&u->lock);
	pthread_mutex_lock(&ob->lock);
	w->opened = --u->refs;
	pthread_mutex_unlock(&ob->lock);
}

int obox_user_where(struct obox *ob, const char *user, struct obox_where *w, struct err *err)
{
	char *prefix = obox_user_prefix(ob->prefix, user), etag[OBJ_ETAG_MAX];
	struct manifest man;
	int rc = root_get(ob, prefix, &man, etag, err);

	free(prefix);
	memset(w, 0, sizeof(*w));
	if (rc <= 0)
		return rc;
	snprintf(w->node, sizeof(w->node), "%s", man.node);
	w->incarnation = man.incarnation;
	w->epoch = man.epoch;
	w->log_seq = man.log_seq;
	w->log_lsn = man.log_lsn;
	w->mine = man.incarnation && man.incarnation == ob->incarnation;
	see_memory(ob, user, w);
	return 1;
}

size_t obox_users_held(struct obox *ob)
{
	size_t n;

	pthread_mutex_lock(&ob->lock);
	n = ob->users.n;
	pthread_mutex_unlock(&ob->lock);
	return n;
}

void obox_users_here(struct obox *ob, void (*fn)(void *ctx, const char *user), void *ctx)
{
	char **names = NULL;
	size_t cap = 0, n = 0, pos = 0, i;
	void *v;

	pthread_mutex_lock(&ob->lock);
	while (hmap_next(&ob->users, &pos, NULL, NULL, &v)) {
		mem_grow(&names, &cap, n + 1, sizeof(*names));
		names[n++] = mem_strdup(((struct obox_user *)v)->name);
	}
	pthread_mutex_unlock(&ob->lock);
	for (i = 0; i < n; i++) {
		fn(ctx, names[i]);
		free(names[i]);
	}
	free(names);
}

/* --- leaving --- */

void obox_user_leave(struct obox *ob, const char *user, bool on)
{
	struct obox_user *u;

	pthread_mutex_lock(&ob->lock);
	u = hmap_gets(&ob->users, user);
	if (u)
		u->leaving = on;
	pthread_cond_broadcast(&ob->cond);
	pthread_mutex_unlock(&ob->lock);
}

/* An opening that failed half-way leaves a root that names this node, and nobody here who knows of it. */
static int release_unloaded(struct obox *ob, const char *name, struct err *err)
{
	struct obox_user *u;
	struct obox_where w;
	bool here;
	int rc = obox_user_where(ob, name, &w, err);

	if (rc <= 0 || !w.mine)
		return rc < 0 ? rc : 0;
	rc = obox_user_open(ob, name, &u, err);
	if (rc < 0)
		return rc;
	obox_user_close(&u);
	rc = user_give_up(ob, name, &here);
	return rc < 0 ? err_set(err, rc, "user %s cannot be released now", name) : 0;
}

int obox_user_release(struct obox *ob, const char *user, struct err *err)
{
	bool here;
	int rc = user_give_up(ob, user, &here);

	if (!here)
		return release_unloaded(ob, user, err);
	return rc < 0 ? err_set(err, rc, rc == ERR_BUSY ? "user %s has sessions here" : "user %s cannot be released now", user) : 0;
}

int obox_user_evict(struct obox *ob, const char *user, size_t *n_r, struct err *err)
{
	size_t before = obox_users_held(ob), left;
	bool here;
	int rc;

	if (!user) {
		pthread_mutex_lock(&ob->upkeep_lock);
		obox_evict(ob, -1);
		pthread_mutex_unlock(&ob->upkeep_lock);
		left = obox_users_held(ob);
		*n_r = left < before ? before - left : 0;
		return 0;
	}
	rc = user_give_up(ob, user, &here);
	*n_r = here && rc == 0;
	return rc < 0 ? err_set(err, rc, rc == ERR_BUSY ? "user %s has sessions here" : "user %s cannot be written to the store now", user) : 0;
}
