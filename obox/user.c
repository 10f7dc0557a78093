/* One user's root on this node: ownership, the commit of records, names. */
#include "obox/obox-private.h"

#include "base/log.h"
#include "mime/mime.h"

#include <ctype.h>
#include <strings.h>

char *obox_user_prefix(const char *prefix, const char *user)
{
	static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_@+-";
	unsigned char h[crypto_generichash_BYTES_MIN];
	struct buf b = BUF_INIT(0);
	const char *p;

	crypto_generichash(h, sizeof(h), (const unsigned char *)user, strlen(user), NULL, 0);
	buf_addf(&b, "%s%su/%02x%x/", prefix, *prefix ? "/" : "", h[0], h[1] >> 4);
	for (p = user; *p; p++) {
		if (strchr(plain, *p) || (*p == '.' && p > user))
			buf_addc(&b, *p);
		else
			buf_addf(&b, "%%%02X", (unsigned char)*p);
	}
	buf_addc(&b, '/');
	return buf_detach(&b);
}

char *user_key(const struct obox_user *u, const char *fmt, ...)
{
	struct buf b = BUF_INIT(OBJ_KEY_MAX * 2);
	va_list ap;

	buf_adds(&b, u->prefix);
	va_start(ap, fmt);
	buf_vaddf(&b, fmt, ap);
	va_end(ap);
	return buf_detach(&b);
}

/* --- names --- */

int obox_name_normalise(const char *name, char **out_r, struct err *err)
{
	struct buf b = BUF_INIT(4 * OBOX_NAME_MAX);
	const unsigned char *p;
	size_t len = strlen(name);

	*out_r = NULL;
	if (len == 0 || len > OBOX_NAME_MAX)
		return err_set(err, ERR_INVALID, len ? "mailbox name is longer than %d bytes" : "mailbox name is empty", OBOX_NAME_MAX);
	if (mime_utf8_nfc(name, len, &b) < 0) {
		buf_free(&b);
		return err_set(err, ERR_INVALID, "mailbox name is not valid UTF-8");
	}
	if (b.len >= 5 && !strncasecmp((char *)b.data, "inbox", 5) && (b.len == 5 || b.data[5] == '/'))
		memcpy(b.data, "INBOX", 5);
	for (p = b.data; p < b.data + b.len; p++) {
		if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)) {
			buf_free(&b);
			return err_set(err, ERR_INVALID, "mailbox name holds a control character");
		}
	}
	if (b.data[0] == '/' || b.data[b.len - 1] == '/' || memmem(b.data, b.len, "//", 2)) {
		buf_free(&b);
		return err_set(err, ERR_INVALID, "mailbox name has an empty part: \"/\" stands between two names");
	}
	*out_r = buf_detach(&b);
	return 0;
}

int user_mbox(struct obox_user *u, const char *name, bool load, struct mbox **m_r, struct err *err)
{
	char *norm;
	int rc = obox_name_normalise(name, &norm, err);

	*m_r = NULL;
	if (rc < 0)
		return rc;
	*m_r = root_by_name(&u->st, norm);
	free(norm);
	if (!*m_r)
		return err_set(err, ERR_NOTFOUND, "no such mailbox");
	return load ? user_load_mbox(u, *m_r, err) : 0;
}

/* --- committing --- */

static int apply_all(struct obox_user *u, const struct rec *r, size_t n, struct err *err)
{
	struct err e = ERR_INIT;
	size_t i;
	int rc = 0;

	for (i = 0; i < n && rc == 0; i++)
		rc = root_apply(&u->st, &r[i], &e);
	if (rc == 0)
		return 0;
	/* a bug, or an index that cannot be loaded: the log is right, this memory is not */
	u->broken = true;
	log_event(LOG_ERROR, "record cannot be applied: user is closed until restart; run culverctl check", LF_S("user", u->name), LF_ERR(&e), LF_END);
	return err_set(err, rc, "%s", e.msg);
}

uint64_t user_landed(const struct obox_user *u)
{
	uint64_t lsn = u->st.lsn + 1;
	size_t i;

	for (i = 0; i < u->n_flying && !sim_broken("landed-too-early"); i++)
		if (!u->flying[i].undone && u->flying[i].lsn < lsn)
			lsn = u->flying[i].lsn;
	return lsn;
}

static int commit(struct obox_user *u, const struct rec *r, const struct journal_object *objs, size_t n, bool force, uint64_t *ticket_r, struct err *err)
{
	struct journal_entry one, *e = n == 1 ? &one : mem_calloc(n, sizeof(*e));
	size_t before = u->tail.len, i;
	uint64_t landed = user_landed(u);
	struct rd rd;
	int rc;

	if (u->broken) {
		rc = err_set(err, ERR_FENCED, "user %s: an earlier error stopped writing", u->name);
		goto out;
	}
	if (u->limbo) {
		rc = err_set(err, ERR_UNAVAILABLE, "user %s: the store did not say whose it is; it is asked again", u->name);
		goto out;
	}
	if (!before)
		u->dirty_us = clock_mono_us(u->ob->cfg.clock);
	for (i = 0; i < n; i++)
		rec_encode(&r[i], &u->tail);
	if (u->tail.failed) {
		u->tail.failed = false;
		buf_truncate(&u->tail, before);
		rc = err_set(err, ERR_LIMIT, "user %s: log tail is full: the store takes no uploads", u->name);
		goto out;
	}
	rd = rd_init(u->tail.data + before, u->tail.len - before);
	for (i = 0; i < n; i++) {
		memset(&e[i], 0, sizeof(e[i]));
		e[i].user = u->name;
		e[i].epoch = u->man.epoch;
		e[i].lsn = u->st.lsn + 1 + i;
		e[i].landed = landed;
		e[i].rec = rd_blob(&rd, &e[i].rec_len);
		if (objs)
			e[i].object = objs[i];
	}
	rc = (force ? journal_append_forced : journal_append)(u->ob->journal, e, n, ticket_r, err);
	if (rc < 0) {
		buf_truncate(&u->tail, before);
		goto out;
	}
	u->applying = *ticket_r;
	rc = apply_all(u, r, n, err);
	u->applying = 0;
	if (!before)
		cached_note(u);
out:
	if (e != &one)
		free(e);
	return rc;
}

int user_commit(struct obox_user *u, const struct rec *r, const struct journal_object *objs, size_t n, uint64_t *ticket_r, struct err *err)
{
	return commit(u, r, objs, n, false, ticket_r, err);
}

int user_commit_forced(struct obox_user *u, const struct rec *r, uint64_t *ticket_r, struct err *err)
{
	return commit(u, r, NULL, 1, true, ticket_r, err);
}

int user_wait(struct obox_user *u, uint64_t ticket, struct err *err)
{
	return journal_wait(u->ob->journal, ticket, err);
}

/* --- what became durable late --- */

void user_late(struct obox_user *u, uint64_t ticket, const struct obox_guid *g, uint32_t lo, uint32_t hi)
{
	mem_grow(&u->late, &u->cap_late, u->n_late + 1, sizeof(*u->late));
	u->late[u->n_late++] = (struct late){ ticket, *g, lo, hi };
	pthread_cond_broadcast(&u->visible);	/* who waits to be shown behind them waits for the journal from now on */
}

void user_settle_late(struct obox_user *u)
{
	struct late done;
	struct mbox *m;
	size_t i;

	for (i = 0; i < u->n_late;) {
		if (!journal_done(u->ob->journal, u->late[i].ticket)) {
			i++;
			continue;
		}
		done = u->late[i];
		u->late[i] = u->late[--u->n_late];
		m = root_by_guid(&u->st, &done.guid);
		if (!m)
			continue;
		if (done.hi)
			seqset_remove(&m->pending, done.lo, done.hi);
		view_mailbox_changed(m, NULL);
		pthread_cond_broadcast(&u->visible);
	}
}

/* --- the table of users --- */

struct obox_user *user_new(struct obox *ob, const char *name)
{
	struct obox_user *u = MEM_NEW(struct obox_user);

	u->ob = ob;
	u->name = mem_strdup(name);
	u->prefix = obox_user_prefix(ob->prefix, name);
	pthread_mutex_init(&u->lock, NULL);
	pthread_mutex_init(&u->upload_lock, NULL);
	pthread_cond_init(&u->visible, NULL);
	root_init(&u->st, u);
	buf_init(&u->tail, OBOX_BUNDLE_MAX);
	return u;
}

void user_destroy(struct obox_user *u)
{
	root_release(&u->st);
	buf_free(&u->tail);
	free(u->flying);
	free(u->late);
	pthread_cond_destroy(&u->visible);
	pthread_mutex_destroy(&u->upload_lock);
	pthread_mutex_destroy(&u->lock);
	free(u->name);
	free(u->prefix);
	free(u);
}

static int check_name(const char *user, struct err *err)
{
	const unsigned char *p = (const unsigned char *)user;

	if (!*p || strlen(user) > 255)
		return err_set(err, ERR_INVALID, "user name must have 1 to 255 bytes");
	for (; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			return err_set(err, ERR_INVALID, "user name holds a control character");
	return 0;
}

/* The user in memory, with a reference, or NULL; ob->lock is held and may be released meanwhile. */
static struct obox_user *find_open(struct obox *ob, const char *user)
{
	struct obox_user *u;

	while ((u = hmap_gets(&ob->users, user)) != NULL && (u->phase != USER_OPEN || u->leaving))
		pthread_cond_wait(&ob->cond, &ob->lock);
	if (u)
		u->refs++;
	return u;
}

static int open_new(struct obox *ob, struct obox_user *u, struct obox_owner *o, struct err *err)
{
	const struct obox_cluster *c = ob->cfg.cluster;
	int rc = 0;

	/* nothing would come of it but a queue of those who wait */
	if (c && !c->ops->serving(ob->cfg.cluster))
		rc = err_set(err, c->ops->fenced(ob->cfg.cluster) ? ERR_FENCED : ERR_UNAVAILABLE, "user %s: the store cannot be used now", u->name);
	if (rc == 0)
		rc = user_activate(u, o, err);
	pthread_mutex_lock(&ob->lock);
	if (rc == 0) {
		u->phase = USER_OPEN;
		u->refs = 1;
	} else {
		hmap_del(&ob->users, u->name, strlen(u->name));
	}
	pthread_cond_broadcast(&ob->cond);
	pthread_mutex_unlock(&ob->lock);
	if (rc < 0 && !(rc == ERR_BUSY && o->node[0]))
		log_event(err_is_temporary(rc) ? LOG_WARN : LOG_ERROR, "user cannot be opened", LF_S("user", u->name), LF_ERR(err), LF_END);
	if (rc < 0)
		user_destroy(u);
	return rc;
}

int obox_user_locate(struct obox *ob, const char *user, struct obox_user **u_r, struct obox_owner *o, struct err *err)
{
	struct obox_user *u;
	int rc = check_name(user, err);

	*u_r = NULL;
	memset(o, 0, sizeof(*o));
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&ob->lock);
	u = find_open(ob, user);
	if (u && u->lost) {	/* what is in memory is of the past */
		u->refs--;
		pthread_mutex_unlock(&ob->lock);
		obox_evict_user(ob, user);
		pthread_mutex_lock(&ob->lock);
		u = find_open(ob, user);
		if (u && u->lost) {
			u->refs--;
			pthread_mutex_unlock(&ob->lock);
			return err_set(err, ERR_BUSY, "user %s went to another node: sessions here have to end first", user);
		}
	}
	if (!u) {
		u = user_new(ob, user);
		hmap_put(&ob->users, u->name, strlen(u->name), u);
		pthread_mutex_unlock(&ob->lock);
		rc = open_new(ob, u, o, err);
	} else {
		pthread_mutex_unlock(&ob->lock);
	}
	if (rc == 0)
		*u_r = u;
	return rc;
}

int obox_user_open(struct obox *ob, const char *user, struct obox_user **u_r, struct err *err)
{
	struct obox_owner o;

	return obox_user_locate(ob, user, u_r, &o, err);
}

void obox_user_close(struct obox_user **up)
{
	struct obox_user *u = *up;

	if (!u)
		return;
	*up = NULL;
	cached_used(u);
	pthread_mutex_lock(&u->ob->lock);
	u->refs--;
	u->last_use = clock_mono_us(u->ob->cfg.clock);
	pthread_mutex_unlock(&u->ob->lock);
}

const char *obox_user_name(const struct obox_user *u)
{
	return u->name;
}

/* Gives a user back: phase is USER_CLOSING and nobody holds a reference. */
void user_retire(struct obox_user *u, bool clean)
{
	struct obox *ob = u->ob;

	if (clean) {	/* a lost one, too: what is in memory is not this node's to upload any more */
		pthread_mutex_lock(&u->lock);
		cached_note(u);
		pthread_mutex_unlock(&u->lock);
	}
	pthread_mutex_lock(&ob->lock);
	if (clean)
		hmap_del(&ob->users, u->name, strlen(u->name));
	else
		u->phase = USER_OPEN;	/* still dirty: another try later */
	pthread_cond_broadcast(&ob->cond);
	pthread_mutex_unlock(&ob->lock);
	if (clean)
		user_destroy(u);
}
