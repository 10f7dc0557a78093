/* What the object stores were asked by this worker since it started. */
#include "daemon/admin/admin-private.h"

#include "base/mem.h"
#include "objstore/objstore.h"

static void store_lines(struct admin *a, const char *name, struct objstore *s)
{
	static const char *const verbs[OBJ_N_VERBS] = { "put", "get", "head", "delete", "list", "copy", "sync" };
	struct objstore_stats st;
	int i;

	if (!s || !objstore_stats(s, &st))
		return;
	for (i = 0; i < OBJ_N_VERBS; i++) {
		const struct objstore_verb_stats *v = &st.verb[i];

		if (v->ops || v->requests)
			admin_line(a, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "store", name, "verb", verbs[i],
						"operations", (json_int_t)v->ops, "failed", (json_int_t)v->failed, "requests", (json_int_t)v->requests,
						"retries", (json_int_t)v->retries, "hedges", (json_int_t)v->hedges, "errors", (json_int_t)v->errors,
						"throttled", (json_int_t)v->throttled, "octets_up", (json_int_t)v->up, "octets_down", (json_int_t)v->down,
						"us", (json_int_t)v->us));
	}
	admin_line(a, json_pack("{s:s, s:I, s:I}", "store", name, "breaker_opened", (json_int_t)st.breaker_opened, "read_backs", (json_int_t)st.read_backs));
}

int admin_store_stats(struct admin *a, struct err *err)
{
	const struct conn_env *env = a->c->env;

	store_lines(a, "mail_store", env->mail_store);
	if (env->index_store != env->mail_store)
		store_lines(a, "index_store", env->index_store);
	admin_done(a, NULL);
	return 0;
}
