#include "daemon/lmtp/lmtp.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "daemon/conn.h"
#include "obox/obox.h"

static int save(struct obox_user *u, const char *mailbox, struct obox_save *s, struct err *err)
{
	int rc = ERR_NOTFOUND;

	if (mailbox)
		rc = obox_save(u, mailbox, s, 1, NULL, err);
	if (mailbox && rc < 0 && rc != ERR_NOTFOUND && rc != ERR_INVALID)
		return rc;
	if (rc < 0) {
		err_clear(err);
		rc = obox_save(u, "INBOX", s, 1, NULL, err);
	}
	return rc;
}

void lmtp_deliver_one(struct conn_env *env, struct obox_msgin *msg, const char *from, struct lmtp_target *t)
{
	struct obox_save s = { .msg = msg, .idate = INT64_MIN, .env_from = from, .env_to = t->address, .prepend = t->prepend };
	int64_t start = clock_mono_us(&clock_system);
	struct obox_user *u = NULL;
	struct err err = ERR_INIT;

	t->rc = obox_user_open(env->obox, t->user, &u, &err);
	if (t->rc == 0) {
		t->rc = save(u, t->mailbox, &s, &err);
		obox_user_close(&u);
	}
	if (t->rc < 0)
		log_event(err_is_temporary(t->rc) ? LOG_WARN : LOG_ERROR, "mail could not be stored", LF_S("user", t->user), LF_S("from", from), LF_S("to", t->address),
			  LF_S("class", err_code_name(t->rc)), LF_ERR(&err), LF_END);
	else
		log_event(LOG_INF, "mail stored", LF_S("user", t->user), LF_S("from", from), LF_S("to", t->address), LF_U("uid", s.uid_r),
			  LF_U("size", obox_msgin_size(msg)), LF_D("ms", (clock_mono_us(&clock_system) - start) / 1000), LF_END);
}

void lmtp_deliver_here(struct conn_env *env, struct lmtp_delivery *d)
{
	size_t i;

	for (i = 0; i < d->n; i++)
		lmtp_deliver_one(env, d->msg, d->from, &d->to[i]);
}
