/* Admin: mailboxes. */
#include "daemon/admin/admin-private.h"

#include "base/b64.h"
#include "base/mem.h"

#include <strings.h>

static const struct { const char *name; uint32_t bit; } uses[] = {
	{ "\\All", OBOX_USE_ALL }, { "\\Archive", OBOX_USE_ARCHIVE }, { "\\Drafts", OBOX_USE_DRAFTS }, { "\\Flagged", OBOX_USE_FLAGGED },
	{ "\\Important", OBOX_USE_IMPORTANT }, { "\\Junk", OBOX_USE_JUNK }, { "\\Sent", OBOX_USE_SENT }, { "\\Trash", OBOX_USE_TRASH },
};

static json_t *special_uses(uint32_t special)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < MEM_COUNT(uses); i++)
		if (special & uses[i].bit)
			json_array_append_new(list, json_string(uses[i].name));
	return list;
}

static void add_status(json_t *line, const struct obox_status *st)
{
	char guid[33];

	hex_encode(guid, st->guid.b, sizeof(st->guid.b));
	json_object_set_new(line, "guid", json_string(guid));
	json_object_set_new(line, "uidvalidity", json_integer(st->uidvalidity));
	json_object_set_new(line, "uidnext", json_integer(st->uidnext));
	json_object_set_new(line, "messages", json_integer(st->messages));
	json_object_set_new(line, "unseen", json_integer(st->unseen));
	json_object_set_new(line, "deleted", json_integer(st->deleted));
	json_object_set_new(line, "highestmodseq", json_integer((json_int_t)st->highestmodseq));
	json_object_set_new(line, "size", json_integer((json_int_t)st->size));
}

int admin_mailbox_list(struct admin *a, struct err *err)
{
	struct obox_mailbox *list;
	struct obox_status st;
	size_t n, i;
	int rc = obox_mailboxes(a->user, &list, &n, err);

	if (rc < 0)
		return rc;
	for (i = 0; i < n; i++) {
		json_t *line = json_pack("{s:s, s:b, s:b, s:o}", "mailbox", list[i].name, "exists", list[i].exists, "subscribed", list[i].subscribed,
					 "special_use", special_uses(list[i].special));

		if (list[i].exists && obox_mailbox_status(a->user, list[i].name, &st, err) == 0)
			add_status(line, &st);
		admin_line(a, line);
	}
	obox_mailboxes_free(list, n);
	admin_done(a, NULL);
	return 0;
}

int admin_mailbox_status(struct admin *a, struct err *err)
{
	struct obox_status st;
	const char *name;
	json_t *line;
	int rc = admin_need_str(a, "mailbox", &name, err);

	if (rc == 0)
		rc = obox_mailbox_status(a->user, name, &st, err);
	if (rc < 0)
		return rc;
	line = json_pack("{s:s}", "mailbox", name);
	add_status(line, &st);
	admin_done(a, line);
	return 0;
}

int admin_mailbox_create(struct admin *a, struct err *err)
{
	const char *name, *use = admin_str(a, "special_use");
	uint32_t special = 0;
	size_t i;
	int rc = admin_need_str(a, "mailbox", &name, err);

	for (i = 0; use && i < MEM_COUNT(uses); i++)
		if (!strcasecmp(use, uses[i].name) || !strcasecmp(use, uses[i].name + 1))
			special = uses[i].bit;
	if (rc == 0 && use && !special)
		rc = err_set(err, ERR_INVALID, "unknown special use \"%s\"", use);
	if (rc == 0)
		rc = obox_mailbox_create(a->user, name, special, err);
	if (rc == 0 && admin_bool(a, "subscribe"))
		rc = obox_mailbox_subscribe(a->user, name, true, err);
	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}

int admin_mailbox_delete(struct admin *a, struct err *err)
{
	const char *name;
	int rc = admin_need_str(a, "mailbox", &name, err);

	if (rc == 0)
		rc = obox_mailbox_delete(a->user, name, err);
	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}

int admin_mailbox_rename(struct admin *a, struct err *err)
{
	const char *name, *to;
	int rc = admin_need_str(a, "mailbox", &name, err);

	if (rc == 0)
		rc = admin_need_str(a, "to", &to, err);
	if (rc == 0)
		rc = obox_mailbox_rename(a->user, name, to, err);
	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}

int admin_mailbox_subscribe(struct admin *a, struct err *err)
{
	const char *name;
	int rc = admin_need_str(a, "mailbox", &name, err);

	if (rc == 0)
		rc = obox_mailbox_subscribe(a->user, name, admin_bool(a, "on"), err);
	if (rc == 0)
		admin_done(a, NULL);
	return rc;
}
