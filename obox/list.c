/* The mailbox directory: listing, creating, deleting, renaming, subscribing. */
#include "obox/obox-private.h"

enum { MAILBOXES_MAX = 20000 };

/* INBOX first, then by name with '/' before every other byte. */
static int compare_names(const char *a, const char *b)
{
	bool ia = !strcmp(a, "INBOX"), ib = !strcmp(b, "INBOX");

	if (ia || ib)
		return (int)ib - (int)ia;
	for (; *a && *a == *b; a++, b++)
		;
	return (*a == '/' ? 1 : (unsigned char)*a + (*a != 0)) - (*b == '/' ? 1 : (unsigned char)*b + (*b != 0));
}

static int by_name(const void *a, const void *b)
{
	return compare_names(((const struct obox_mailbox *)a)->name, ((const struct obox_mailbox *)b)->name);
}

struct lister {
	struct obox_mailbox *list;
	size_t n, cap;
	struct hmap seen;	/* name -> index + 1 */
};

static struct obox_mailbox *entry(struct lister *l, const char *name, size_t len)
{
	uintptr_t at = (uintptr_t)hmap_get(&l->seen, name, len);

	if (!at) {
		mem_grow(&l->list, &l->cap, l->n + 1, sizeof(*l->list));
		memset(&l->list[l->n], 0, sizeof(*l->list));
		l->list[l->n].name = mem_strndup(name, len);
		at = ++l->n;
		hmap_put(&l->seen, name, len, (void *)at);
	}
	return &l->list[at - 1];
}

/* An existing mailbox makes its parents known. */
static void mark_parents(struct lister *l, const char *name)
{
	const char *p;

	for (p = strchr(name, '/'); p; p = strchr(p + 1, '/'))
		entry(l, name, (size_t)(p - name))->has_children = true;
}

int obox_mailboxes(struct obox_user *u, struct obox_mailbox **list_r, size_t *n_r, struct err *err)
{
	struct lister l = { NULL, 0, 0, HMAP_INIT };
	struct obox_mailbox *e;
	size_t i;

	pthread_mutex_lock(&u->lock);
	for (i = 0; i < u->st.n_boxes; i++) {
		struct mbox *m = u->st.boxes[i];

		e = entry(&l, m->name, strlen(m->name));
		e->guid = m->guid;
		e->uidvalidity = m->uidvalidity;
		e->special = m->special;
		e->exists = true;
		mark_parents(&l, m->name);
	}
	for (i = 0; i < u->st.n_subs; i++)
		entry(&l, u->st.subs[i], strlen(u->st.subs[i]))->subscribed = true;
	pthread_mutex_unlock(&u->lock);
	hmap_free(&l.seen);
	if (l.n)
		qsort(l.list, l.n, sizeof(*l.list), by_name);
	*list_r = l.list;
	*n_r = l.n;
	return 0;
}

void obox_mailboxes_free(struct obox_mailbox *list, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		free(list[i].name);
	free(list);
}

uint64_t obox_mailboxes_version(struct obox_user *u)
{
	uint64_t v;

	pthread_mutex_lock(&u->lock);
	v = u->st.list_version;
	pthread_mutex_unlock(&u->lock);
	return v;
}

/* --- a change is a list of records committed together --- */

struct plan {
	struct rec *recs;
	size_t n, cap;
	char **names;		/* owned copies the records point at */
	size_t n_names, cap_names;
};

static struct rec *plan_add(struct plan *p, enum rec_type type, const char *name)
{
	struct rec *r;

	mem_grow(&p->recs, &p->cap, p->n + 1, sizeof(*p->recs));
	mem_grow(&p->names, &p->cap_names, p->n_names + 1, sizeof(*p->names));
	p->names[p->n_names] = mem_strdup(name);
	r = &p->recs[p->n++];
	memset(r, 0, sizeof(*r));
	r->type = type;
	r->name = p->names[p->n_names++];
	return r;
}

static void plan_create(struct plan *p, struct obox_user *u, const char *name, uint32_t special)
{
	struct rec *r = plan_add(p, REC_MBOX_CREATE, name);
	uint32_t now = (uint32_t)clock_wall_s(u->ob->cfg.clock), last = u->st.last_uidvalidity;
	size_t i;

	for (i = 0; i + 1 < p->n; i++)
		if (p->recs[i].type == REC_MBOX_CREATE && p->recs[i].uidvalidity > last)
			last = p->recs[i].uidvalidity;
	randombytes_buf(r->guid.b, sizeof(r->guid.b));
	r->uidvalidity = now > last ? now : last + 1;
	r->special = special;
	r->modseq = modseq_first(u->st.epoch);
}

static bool planned(const struct plan *p, const char *name)
{
	size_t i;

	for (i = 0; i < p->n; i++)
		if (p->recs[i].type != REC_SUBSCRIBE && !strcmp(p->recs[i].name, name))
			return true;
	return false;
}

/* Parents of name that do not exist (RFC 9051 section 6.3.4). */
static void plan_parents(struct plan *p, struct obox_user *u, const char *name)
{
	char *parent = mem_strdup(name), *s;

	for (s = strchr(parent, '/'); s; s = strchr(s + 1, '/')) {
		*s = '\0';
		if (!root_by_name(&u->st, parent) && !planned(p, parent))
			plan_create(p, u, parent, 0);
		*s = '/';
	}
	free(parent);
}

/* Commits the plan and releases it; u->lock is held and released. */
static int plan_run(struct plan *p, struct obox_user *u, int rc, struct err *err)
{
	uint64_t ticket = 0;
	size_t i;

	if (rc == 0 && u->st.n_boxes + p->n > MAILBOXES_MAX)
		rc = err_set(err, ERR_LIMIT, "user has %d mailboxes already", MAILBOXES_MAX);
	if (rc == 0 && p->n)
		rc = user_commit(u, p->recs, NULL, p->n, &ticket, err);
	pthread_cond_broadcast(&u->visible);	/* in a mailbox that is no more nothing is waited for */
	pthread_mutex_unlock(&u->lock);
	if (rc == 0 && p->n)
		rc = user_wait(u, ticket, err);
	for (i = 0; i < p->n_names; i++)
		free(p->names[i]);
	free(p->names);
	free(p->recs);
	return rc;
}

int obox_mailbox_create(struct obox_user *u, const char *name, uint32_t special, struct err *err)
{
	struct plan p = { 0 };
	char *norm;
	int rc = obox_name_normalise(name, &norm, err);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&u->lock);
	if (root_by_name(&u->st, norm))
		rc = err_set(err, ERR_EXISTS, "mailbox exists");
	if (rc == 0) {
		plan_parents(&p, u, norm);
		plan_create(&p, u, norm, special);
	}
	rc = plan_run(&p, u, rc, err);
	free(norm);
	return rc;
}

int obox_mailbox_delete(struct obox_user *u, const char *name, struct err *err)
{
	struct plan p = { 0 };
	struct mbox *m;
	struct rec *r;
	int rc;

	pthread_mutex_lock(&u->lock);
	rc = user_mbox(u, name, true, &m, err);
	if (rc == 0 && !strcmp(m->name, "INBOX"))
		rc = err_set(err, ERR_INVALID, "INBOX cannot be deleted");
	if (rc == 0) {
		r = plan_add(&p, REC_MBOX_DELETE, m->name);
		r->guid = m->guid;
		r->time = clock_wall_s(u->ob->cfg.clock);
	}
	return plan_run(&p, u, rc, err);
}

static void plan_rename(struct plan *p, struct obox_user *u, const char *from, const char *to)
{
	size_t len = strlen(from), i;
	struct rec *r;

	for (i = 0; i < u->st.n_boxes; i++) {
		struct mbox *m = u->st.boxes[i];
		char *name;

		if (strncmp(m->name, from, len) != 0 || (m->name[len] != '\0' && m->name[len] != '/'))
			continue;
		name = mem_printf("%s%s", to, m->name + len);
		r = plan_add(p, REC_MBOX_RENAME, name);
		r->guid = m->guid;
		free(name);
	}
}

/* INBOX gives its messages and identity to the new mailbox and begins anew,
 * under a new UIDVALIDITY; its children stay (RFC 3501 section 6.3.5). */
static void plan_rename_inbox(struct plan *p, struct obox_user *u, struct mbox *m, const char *to)
{
	struct rec *r = plan_add(p, REC_MBOX_RENAME, to);

	r->guid = m->guid;
	plan_create(p, u, "INBOX", 0);
}

static int check_rename(struct obox_user *u, const char *from, const char *to, struct mbox **m_r, struct err *err)
{
	size_t len = strlen(from), i;

	*m_r = root_by_name(&u->st, from);
	if (!*m_r)
		return err_set(err, ERR_NOTFOUND, "no such mailbox");
	if (root_by_name(&u->st, to))
		return err_set(err, ERR_EXISTS, "a mailbox with the new name exists");
	if (!strcmp(from, "INBOX"))
		return 0;
	if (!strncmp(to, from, len) && to[len] == '/')
		return err_set(err, ERR_INVALID, "a mailbox cannot become its own child");
	for (i = 0; i < u->st.n_boxes; i++) {
		const char *name = u->st.boxes[i]->name;
		char *renamed;
		bool taken;

		if (strncmp(name, from, len) != 0 || name[len] != '/')
			continue;
		if (strlen(to) + strlen(name + len) > OBOX_NAME_MAX)
			return err_set(err, ERR_INVALID, "the new name of %s is longer than %d bytes", name, OBOX_NAME_MAX);
		renamed = mem_printf("%s%s", to, name + len);
		taken = root_by_name(&u->st, renamed) != NULL;
		free(renamed);
		if (taken)
			return err_set(err, ERR_EXISTS, "a mailbox with the new name of a child exists");
	}
	return 0;
}

int obox_mailbox_rename(struct obox_user *u, const char *from, const char *to, struct err *err)
{
	char *nfrom = NULL, *nto = NULL;
	struct plan p = { 0 };
	struct mbox *m;
	int rc = obox_name_normalise(from, &nfrom, err);

	if (rc == 0)
		rc = obox_name_normalise(to, &nto, err);
	if (rc == 0) {
		pthread_mutex_lock(&u->lock);
		rc = check_rename(u, nfrom, nto, &m, err);
		if (rc == 0) {
			plan_parents(&p, u, nto);
			if (!strcmp(nfrom, "INBOX"))
				plan_rename_inbox(&p, u, m, nto);
			else
				plan_rename(&p, u, nfrom, nto);
		}
		rc = plan_run(&p, u, rc, err);
	}
	free(nfrom);
	free(nto);
	return rc;
}

int obox_mailbox_subscribe(struct obox_user *u, const char *name, bool on, struct err *err)
{
	struct plan p = { 0 };
	char *norm;
	size_t at;
	int rc = obox_name_normalise(name, &norm, err);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&u->lock);
	if ((root_subscription(&u->st, norm, &at) == 1) != on)
		plan_add(&p, REC_SUBSCRIBE, norm)->on = on;
	rc = plan_run(&p, u, rc, err);
	free(norm);
	return rc;
}
