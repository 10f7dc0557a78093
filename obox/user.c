/* One user's root on this node: ownership, the commit of records, names. */
#include "obox/obox-private.h"

#include "base/b64.h"
#include "base/io.h"
#include "base/log.h"
#include "mime/mime.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <strings.h>
#include <sys/file.h>
#include <unistd.h>

enum { OWNER_WAIT_MS = 5000, OWNER_POLL_MS = 50 };

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

int user_commit(struct obox_user *u, const struct rec *r, const struct journal_object *objs, size_t n, uint64_t *ticket_r, struct err *err)
{
	struct journal_entry one, *e = n == 1 ? &one : mem_calloc(n, sizeof(*e));
	size_t before = u->tail.len, i;
	struct rd rd;
	int rc;

	if (u->broken) {
		rc = err_set(err, ERR_FENCED, "user %s: an earlier error stopped writing", u->name);
		goto out;
	}
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
		e[i].rec = rd_blob(&rd, &e[i].rec_len);
		if (objs)
			e[i].object = objs[i];
	}
	rc = journal_append(u->ob->journal, e, n, ticket_r, err);
	if (rc < 0) {
		buf_truncate(&u->tail, before);
		goto out;
	}
	rc = apply_all(u, r, n, err);
out:
	if (e != &one)
		free(e);
	return rc;
}

int user_wait(struct obox_user *u, uint64_t ticket, struct err *err)
{
	return journal_wait(u->ob->journal, ticket, err);
}

/* --- ownership --- */

/* Does a living process hold that node's lock file?  Its journal is replayed when not. */
static int settle_owner(struct obox *ob, const char *node, bool *alive_r, struct err *err)
{
	char *dir = mem_printf("%s/nodes/%s", ob->state_dir, node), *path = mem_printf("%s/lock", dir);
	int fd = open(path, O_RDWR | O_CLOEXEC), rc = 0;

	*alive_r = false;
	if (fd < 0 && errno != ENOENT)
		rc = err_errno(err, "open", path);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
		*alive_r = true;
	else if (fd >= 0)
		rc = obox_recover(ob, dir, err);
	io_close(&fd);
	free(path);
	free(dir);
	return rc;
}

static int put_root(struct obox_user *u, const struct manifest *man, enum objstore_cond cond, struct err *err)
{
	struct buf b = BUF_INIT(8192);
	char *key = user_key(u, "root");
	int rc = manifest_encode(man, u->ob->cfg.keys, key, &b, err);

	if (rc == 0)
		rc = objstore_put(u->ob->cfg.index_store, key, b.data, b.len, cond, u->etag, err);
	buf_free(&b);
	free(key);
	return rc;
}

/* 1 with the root and its etag in u, 0 absent. */
static int get_root(struct obox_user *u, struct manifest *man, struct err *err)
{
	struct buf b = BUF_INIT(8192);
	char *key = user_key(u, "root");
	struct err e = ERR_INIT;
	int rc = objstore_get(u->ob->cfg.index_store, key, &b, u->etag, &e);

	if (rc == 0)
		rc = manifest_decode(man, u->ob->cfg.keys, key, b.data, b.len, &e);
	buf_free(&b);
	free(key);
	if (rc == ERR_NOTFOUND)
		return 0;
	return rc < 0 ? err_set(err, rc, "%s", e.msg) : 1;
}

static void own(struct obox_user *u, struct manifest *man)
{
	man->epoch++;
	snprintf(man->node, sizeof(man->node), "%s", u->ob->node);
	man->incarnation = u->ob->incarnation;
}

/* One try: 1 owned (man is the root as found, u->man as it is now), 0 try again, <0. */
static int try_own(struct obox_user *u, struct manifest *man, struct err *err)
{
	bool alive = false;
	int rc = get_root(u, man, err);

	if (rc < 0)
		return rc;
	if (rc == 0) {
		memset(man, 0, sizeof(*man));
		u->man = *man;
		own(u, &u->man);
		rc = put_root(u, &u->man, OBJ_CREATE, NULL);
		if (rc == 0)
			return 1;
		return rc == ERR_EXISTS ? 0 : err_set(err, rc, "cannot create the root of %s: %s", u->name, err_code_name(rc));
	}
	if (man->incarnation && man->incarnation != u->ob->incarnation && strcmp(man->node, u->ob->node) != 0) {
		struct manifest again;

		rc = settle_owner(u->ob, man->node, &alive, err);
		if (rc < 0)
			return rc;
		if (alive)
			return 0;
		rc = get_root(u, &again, err);	/* the replay may have moved it */
		if (rc != 1 || again.log_seq != man->log_seq || again.incarnation != man->incarnation)
			return rc < 0 ? rc : 0;
	}
	u->man = *man;
	own(u, &u->man);
	rc = put_root(u, &u->man, OBJ_MATCH, err);
	if (rc == ERR_CONFLICT) {
		err_clear(err);
		return 0;
	}
	return rc < 0 ? rc : 1;
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
	r.modseq = u->st.epoch << 32 | 1;
	pthread_mutex_lock(&u->lock);
	rc = user_commit(u, &r, NULL, 1, &ticket, err);
	pthread_mutex_unlock(&u->lock);
	return rc == 0 ? user_wait(u, ticket, err) : rc;
}

int user_activate(struct obox_user *u, struct err *err)
{
	int64_t end = clock_mono_us(&clock_system) + OWNER_WAIT_MS * 1000LL;
	struct manifest man;
	int rc;

	for (;;) {
		rc = try_own(u, &man, err);
		if (rc != 0)
			break;
		if (clock_mono_us(&clock_system) > end)
			return err_set(err, ERR_BUSY, "user %s is served by node %s", u->name, man.node);
		usleep(OWNER_POLL_MS * 1000);
	}
	if (rc < 0)
		return rc;
	rc = user_load(u, &man, err);
	if (rc < 0)
		return rc;
	/* man's chain hash came from the root; loading proved it when there were segments */
	memcpy(u->man.log_hash, man.log_hash, sizeof(man.log_hash));
	u->st.epoch = u->man.epoch;
	return first_mailbox(u, err);
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

int obox_user_open(struct obox *ob, const char *user, struct obox_user **u_r, struct err *err)
{
	struct obox_user *u;
	int rc = check_name(user, err);

	*u_r = NULL;
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&ob->lock);
	while ((u = hmap_gets(&ob->users, user)) != NULL && u->phase != USER_OPEN)
		pthread_cond_wait(&ob->cond, &ob->lock);
	if (u) {
		u->refs++;
		pthread_mutex_unlock(&ob->lock);
		*u_r = u;
		return 0;
	}
	u = user_new(ob, user);
	hmap_put(&ob->users, u->name, strlen(u->name), u);
	pthread_mutex_unlock(&ob->lock);
	rc = user_activate(u, err);
	pthread_mutex_lock(&ob->lock);
	if (rc == 0) {
		u->phase = USER_OPEN;
		u->refs = 1;
	} else {
		hmap_del(&ob->users, u->name, strlen(u->name));
	}
	pthread_cond_broadcast(&ob->cond);
	pthread_mutex_unlock(&ob->lock);
	if (rc < 0) {
		log_event(LOG_ERROR, "user cannot be opened", LF_S("user", user), LF_ERR(err), LF_END);
		user_destroy(u);
		return rc;
	}
	*u_r = u;
	return 0;
}

void obox_user_close(struct obox_user **up)
{
	struct obox_user *u = *up;

	if (!u)
		return;
	*up = NULL;
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
