/* Recovery of local journals: a dead node's records go into its users' logs, and
 * the message objects that its journal held into the store. */
#include "obox/obox-private.h"

#include "base/io.h"
#include "base/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>

/* --- recovery: a dead node's journal goes into the users' logs --- */

struct recovery {
	struct obox *ob;
	struct hmap users;	/* name -> struct obox_tail */
	uint64_t objects, records;
};

/* The object a frame holds must be in the store, byte for byte: a crash may
 * have left it missing, empty or torn. */
static int restore_object(struct obox *ob, const struct journal_object *o, struct err *err)
{
	struct buf there = BUF_INIT(OBOX_JOURNAL_OBJECT + 1);
	struct err quiet = ERR_INIT;
	struct iovec iov = { (void *)(uintptr_t)o->data, o->len };
	int rc = objstore_get(ob->cfg.mail_store, o->key, &there, NULL, &quiet);
	bool same = rc == 0 && there.len == o->len && (!o->len || !memcmp(there.data, o->data, o->len));

	buf_free(&there);
	if (same)
		return 0;
	if (rc == ERR_CORRUPT) {	/* the store knows that it is another's */
		log_event(LOG_ERROR, "message object cannot be restored from the journal", LF_S("object", o->key), LF_ERR(&quiet), LF_END);
		return 0;
	}
	if (rc != ERR_NOTFOUND)
		objstore_delete(ob->cfg.mail_store, o->key, NULL);
	rc = objstore_put_lazy(ob->cfg.mail_store, o->key, &iov, 1, err);
	return rc == ERR_EXISTS ? 0 : rc;
}

static int take_entry(void *ctx, const struct journal_entry *e)
{
	struct recovery *rec = ctx;
	struct obox_tail *t = hmap_gets(&rec->users, e->user);
	struct err err = ERR_INIT;
	int rc;

	if (e->object.key) {
		rec->objects++;
		rc = restore_object(rec->ob, &e->object, &err);
		if (rc < 0) {
			log_event(LOG_ERROR, "message object cannot be restored from the journal", LF_S("object", e->object.key), LF_ERR(&err), LF_END);
			return rc;
		}
	}
	if (!t) {
		t = obox_tail_new(e->user);
		hmap_put(&rec->users, e->user, strlen(e->user), t);
	}
	obox_tail_add(t, e->epoch, e->lsn, 0, e->rec, e->rec_len);
	rec->records++;
	return 0;
}

/* dir is nodes/<node>, whose lock the caller holds. Idempotent: a crash in the
 * middle is met by doing it again. */
int obox_recover(struct obox *ob, const char *dir, struct err *err)
{
	struct recovery rec = { .ob = ob };
	const char *node = strrchr(dir, '/') + 1;
	char *journal = mem_printf("%s/journal", dir);
	size_t pos = 0, users = 0;
	void *v;
	int rc;

	rc = journal_replay(journal, ob->cfg.keys, take_entry, &rec, err);
	if (rc == 0 && rec.objects)
		rc = objstore_sync(ob->cfg.mail_store, err);
	while (rc == 0 && hmap_next(&rec.users, &pos, NULL, NULL, &v)) {
		rc = obox_tail_replay(ob, v, node, 0, err);
		users++;
	}
	if (rc == 0)
		rc = journal_remove_all(journal, err);
	if (rec.records)
		log_event(rc == 0 ? LOG_INF : LOG_ERROR, rc == 0 ? "journal replayed" : "journal cannot be replayed", LF_S("node", node),
			  LF_U("records", rec.records), LF_U("objects", rec.objects), LF_U("users", users), LF_S("error", rc == 0 ? "" : err->msg), LF_END);
	for (pos = 0; hmap_next(&rec.users, &pos, NULL, NULL, &v);) {
		struct obox_tail *t = v;

		obox_tail_free(&t);
	}
	hmap_free(&rec.users);
	free(journal);
	return rc;
}

/* Journals of other nodes of this state directory whose processes are gone. */
int obox_recover_others(struct obox *ob, struct err *err)
{
	char *nodes = mem_printf("%s/nodes", ob->state_dir);
	struct dirent *de;
	DIR *d = opendir(nodes);
	int rc = 0;

	while (rc == 0 && d && (de = readdir(d)) != NULL) {
		char *dir, *path;
		int fd;

		if (de->d_name[0] == '.' || !strcmp(de->d_name, ob->node))
			continue;
		dir = mem_printf("%s/%s", nodes, de->d_name);
		path = mem_printf("%s/lock", dir);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			rc = obox_recover(ob, dir, err);
		io_close(&fd);
		free(path);
		free(dir);
	}
	if (d)
		closedir(d);
	free(nodes);
	return rc;
}

