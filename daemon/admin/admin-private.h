/* admin-private - one admin session, for the files of daemon/admin/. */
#ifndef DAEMON_ADMIN_PRIVATE_H
#define DAEMON_ADMIN_PRIVATE_H
#include <jansson.h>

#include "base/err.h"
#include "daemon/conn.h"
#include "obox/obox.h"

enum { ADMIN_LINE_MAX = 60 * 1024, ADMIN_FETCH_MAX = 1 << 20, ADMIN_LIST_MAX = 1000 };

struct admin {
	struct conn *c;
	json_t *req;
	struct obox_user *user;		/* of the request, when it names one */
	struct obox_msgin *in;		/* message.append under way */
	uint64_t left;			/* payload bytes still to come */
	struct err payload_err;
	int64_t last_progress;
};

typedef int (*admin_fn)(struct admin *a, struct err *err);

/* Answers: steals line. */
void admin_line(struct admin *a, json_t *line);
void admin_done(struct admin *a, json_t *extra /* stolen; NULL = none */);
const char *admin_str(struct admin *a, const char *key);	/* NULL when absent */
int admin_need_str(struct admin *a, const char *key, const char **out, struct err *err);
int64_t admin_int(struct admin *a, const char *key, int64_t absent);
bool admin_bool(struct admin *a, const char *key);

/* daemon/admin/admin-forward.c */
/* The request goes to that node (and on to where it says the user is), its answers to our client.  0; <0: to be told. Blocks. */
int admin_forward(struct admin *a, const struct obox_owner *to, struct err *err);
/* A request of our own (stolen); each may be NULL: gets the lines before the last, which is *last_r (may be NULL). ERR_UNAVAILABLE, ERR_TIMEOUT: it
 * is not reached; else its own errors. */
int admin_ask(struct admin *a, const struct obox_owner *to, json_t *req, void (*each)(struct admin *a, json_t *line), json_t **last_r, struct err *err);
int admin_unreachable(const struct obox_owner *o, const char *what, const struct err *why, struct err *err);	/* ERR_UNAVAILABLE, with what to do */
/* Who owns the user: 1 another node that says it lives (*o), 0 this node or nobody, <0. */
int admin_owner(struct admin *a, const char *user, struct obox_where *w, struct obox_owner *o, struct err *err);
void admin_moved(struct admin *a, const struct obox_owner *o);	/* the answer to a node that asked the wrong one */
/* daemon/admin/admin-node.c */
int admin_node_drain(struct admin *a, struct err *err);
int admin_node_adopt(struct admin *a, struct err *err);
int admin_user_where(struct admin *a, struct err *err);
int admin_user_move(struct admin *a, struct err *err);
int admin_user_release(struct admin *a, struct err *err);
int admin_user_take(struct admin *a, struct err *err);
int admin_user_evict(struct admin *a, struct err *err);
/* daemon/admin/admin-mailbox.c */
int admin_mailbox_list(struct admin *a, struct err *err);
int admin_mailbox_status(struct admin *a, struct err *err);
int admin_mailbox_create(struct admin *a, struct err *err);
int admin_mailbox_delete(struct admin *a, struct err *err);
int admin_mailbox_rename(struct admin *a, struct err *err);
int admin_mailbox_subscribe(struct admin *a, struct err *err);
/* daemon/admin/admin-message.c */
int admin_message_list(struct admin *a, struct err *err);
int admin_message_fetch(struct admin *a, struct err *err);
int admin_message_info(struct admin *a, struct err *err);
int admin_message_append(struct admin *a, struct err *err);	/* when the payload is complete */
/* daemon/admin/admin-upkeep.c */
int admin_user_check(struct admin *a, struct err *err);
int admin_user_scrub(struct admin *a, struct err *err);
int admin_user_log(struct admin *a, struct err *err);
int admin_user_rebuild(struct admin *a, struct err *err);
int admin_user_gc(struct admin *a, struct err *err);
int admin_user_flush(struct admin *a, struct err *err);
int admin_user_expunged(struct admin *a, struct err *err);
int admin_user_undelete(struct admin *a, struct err *err);
int admin_users(struct admin *a, struct err *err);
int admin_cache_status(struct admin *a, struct err *err);
int admin_cache_clean(struct admin *a, struct err *err);
int admin_dump(struct admin *a, struct err *err);
int admin_who(struct admin *a, struct err *err);
int admin_ping(struct admin *a, struct err *err);
#endif
