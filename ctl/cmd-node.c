/* culverctl node, and user where|move|flush|evict: several backends on one store. */
#include "ctl/ctl.h"

#include "base/clock.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "daemon/stores.h"
#include "metacache/metacache.h"

#include <inttypes.h>

static json_int_t num(json_t *line, const char *key)
{
	return json_integer_value(json_object_get(line, key));
}

static const char *str(json_t *line, const char *key)
{
	const char *s = json_string_value(json_object_get(line, key));

	return s ? s : "";
}

/* --- node list: reads the store itself, so it works whether culverd runs here or not, and makes nobody a node --- */

static json_t *node_json(const struct metacache_node *n)
{
	char hex[17];
	json_t *o;

	snprintf(hex, sizeof(hex), "%016" PRIx64, n->incarnation);
	o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "node", n->node, "state", metacache_state_name(n->state), "incarnation", hex, "address", n->address,
		      "version", n->version, "users", (json_int_t)n->users, "journal_objects", (json_int_t)n->pieces, "journal_floor", (json_int_t)n->floor);
	json_object_set_new(o, "started", json_integer(n->started));
	json_object_set_new(o, "heartbeat", json_integer(n->beat_time));
	json_object_set_new(o, "ttl_ms", json_integer((json_int_t)n->ttl_ms));
	if (n->beat_time)
		json_object_set_new(o, "heartbeat_age", json_integer(clock_wall_s(&clock_system) - n->beat_time));
	if (*n->claimer)
		json_object_set_new(o, "claimer", json_string(n->claimer));
	if (*n->problem)
		json_object_set_new(o, "problem", json_string(n->problem));
	return o;
}

static void print_node(struct ctl *c, const struct metacache_node *n)
{
	json_t *o = node_json(n);
	char age[24] = "?";

	if (n->beat_time)
		snprintf(age, sizeof(age), "%" PRId64 "s", clock_wall_s(&clock_system) - n->beat_time);
	if (c->json)
		ctl_print(c, o);
	else if (n->state == METACACHE_DAMAGED)
		printf("%-18s damaged: %s; culverctl node adopt %s says what can be done\n", n->node, n->problem, n->node);
	else
		printf("%-18s %-21s %-24s beat %-5s users %-6" PRIu64 " journal %" PRIu64 "+%-4" PRIu64 " %016" PRIx64 " %s%s%s\n", n->node, metacache_state_name(n->state),
		       *n->address ? n->address : "-", age, n->users, n->floor, n->pieces, n->incarnation, *n->version ? n->version : "-", *n->claimer ? " by " : "", n->claimer);
	json_decref(o);
}

static int list_from(struct ctl *c, const struct stores *st, const struct seal_keys *keys, struct err *err)
{
	struct metacache_reader rd = { st->index, c->conf.mail_store.prefix, keys };
	struct metacache_node *list;
	size_t n, i;
	int rc = metacache_nodes(&rd, &list, &n, err);

	if (rc < 0)
		return rc;
	for (i = 0; i < n; i++)
		print_node(c, &list[i]);
	if (!n && !c->json && !c->quiet)
		fputs(conf_journal_in_store(&c->conf) ? "No node is there.\n" : "The journal is local: this server is alone with its store.\n", stderr);
	free(list);
	return CTL_OK;
}

static int node_list(struct ctl *c, struct err *err)
{
	char *dir = mem_printf("%s/keys", c->conf.state_dir);
	struct seal_keys *keys = NULL;
	struct stores st = { 0 };
	int rc = seal_keys_open(dir, false, &keys, err);

	free(dir);
	if (rc == 0)
		rc = stores_open(&c->conf, false, &st, err);
	if (rc == 0)
		rc = list_from(c, &st, keys, err);
	stores_close(&st);
	if (keys)
		seal_keys_free(&keys);
	return rc;
}

/* --- drain, adopt --- */

static void say_drained(struct ctl *c, json_t *line)
{
	if (json_object_get(line, "progress"))
		ctl_progress(c, "users", (uint64_t)num(line, "progress"), (uint64_t)num(line, "total"));
	else if (c->json)
		ctl_print(c, line);
	else if (json_is_true(json_object_get(line, "draining")))
		printf("node %s is drained: it has no users (%lld were given away) and takes no new ones; it can be stopped now\n", str(line, "node"), (long long)num(line, "users"));
	else
		printf("node %s takes users again\n", str(line, "node"));
}

static int node_drain(struct ctl *c, struct err *err)
{
	bool undo = ctl_flag(c, "--undo"), force = ctl_flag(c, "--force");
	json_t *req, *last;
	int rc;

	if (!ctl_words(c, 0, 1, "node drain [NODE] [--undo] [--force]"))
		return CTL_USAGE;
	req = json_pack("{s:s, s:b, s:b}", "op", "node.drain", "undo", undo, "force", force);
	if (!c->argc) {	/* all workers of this server, each a node */
		rc = ctl_each_worker_last(c, req, say_drained, err);
		json_decref(req);
	} else {
		json_object_set_new(req, "node", json_string(c->argv[0]));
		rc = ctl_run_long(c, "users", req, &last, err);
		if (rc == 0) {
			say_drained(c, last);
			json_decref(last);
		}
	}
	ctl_progress_end(c);
	return rc;
}

static int node_adopt(struct ctl *c, struct err *err)
{
	bool force = ctl_flag(c, "--force");
	json_t *last;
	int rc;

	if (!ctl_words(c, 1, 1, "node adopt NODE [--force]"))
		return CTL_USAGE;
	rc = ctl_run_long(c, "adopt", json_pack("{s:s, s:s, s:b}", "op", "node.adopt", "node", c->argv[0], "force", force), &last, err);
	if (rc < 0)
		return rc;
	if (c->json)
		ctl_print(c, last);
	json_decref(last);
	return CTL_OK;
}

int cmd_node(struct ctl *c)
{
	static const char usage[] = "node list | drain [NODE] [--undo] [--force] | adopt NODE [--force]";
	const char *verb = c->argc ? c->argv[0] : "";
	struct err err = ERR_INIT;
	int rc;

	if (strcmp(verb, "list") && strcmp(verb, "drain") && strcmp(verb, "adopt")) {
		fprintf(stderr, "usage: culverctl %s\n", usage);
		return CTL_USAGE;
	}
	memmove(c->argv, c->argv + 1, (size_t)c->argc * sizeof(*c->argv));
	c->argc--;
	if (!strcmp(verb, "list"))
		rc = ctl_words(c, 0, 0, "node list") ? node_list(c, &err) : CTL_USAGE;
	else
		rc = !strcmp(verb, "drain") ? node_drain(c, &err) : node_adopt(c, &err);
	return rc < 0 ? ctl_fail(&err) : rc;
}

/* --- user where, move, flush, evict --- */

static void print_where(struct ctl *c, json_t *line)
{
	char size[16];

	if (c->json) {
		ctl_print(c, line);
		return;
	}
	if (!strcmp(str(line, "state"), "released"))
		printf("%s: nobody serves it now; epoch %lld\n", str(line, "user"), (long long)num(line, "epoch"));
	else
		printf("%s: node %s (%s) at %s, incarnation %s, epoch %lld\n", str(line, "user"), str(line, "node"), str(line, "state"),
		       *str(line, "address") ? str(line, "address") : "no address", str(line, "incarnation"), (long long)num(line, "epoch"));
	if (json_object_get(line, "unreachable"))
		printf("  the node does not answer: %s\n", str(line, "unreachable"));
	else if (json_is_true(json_object_get(line, "loaded")))
		printf("  in memory there: %s, open %lld times, %lld bytes not in its log yet\n", ctl_size((uint64_t)num(line, "cached_bytes"), size),
		       (long long)num(line, "opened"), (long long)num(line, "tail_bytes"));
}

static int user_where(struct ctl *c, struct err *err)
{
	json_t *last;
	int rc;

	if (!ctl_words(c, 1, 1, "user where USER"))
		return CTL_USAGE;
	rc = ctl_call(c, json_pack("{s:s, s:s}", "op", "user.where", "user", c->argv[0]), &last, err);
	if (rc < 0)
		return rc;
	print_where(c, last);
	json_decref(last);
	return CTL_OK;
}

static int user_move(struct ctl *c, struct err *err)
{
	json_t *last;
	int rc;

	if (!ctl_words(c, 2, 2, "user move USER NODE"))
		return CTL_USAGE;
	rc = ctl_call(c, json_pack("{s:s, s:s, s:s}", "op", "user.move", "user", c->argv[0], "node", c->argv[1]), &last, err);
	if (rc < 0)
		return rc;
	if (c->json)
		ctl_print(c, last);
	else if (!c->quiet)
		printf("%s is served by node %s now\n", str(last, "user"), str(last, "node"));
	json_decref(last);
	return CTL_OK;
}

static void print_evicted(struct ctl *c, json_t *line)
{
	if (c->json)
		ctl_print(c, line);
	else if (json_object_get(line, "evicted") && !c->quiet)
		printf("%lld users written to the store and dropped from memory, %lld left\n", (long long)num(line, "evicted"), (long long)num(line, "left"));
}

/* One user, wherever it is served; or all that the workers of this server have. */
static int one_or_all(struct ctl *c, const char *verb, struct err *err)
{
	bool all = ctl_flag(c, "--all"), evict = !strcmp(verb, "evict");
	json_t *req, *last;
	int rc;

	if (!ctl_words(c, all ? 0 : 1, all ? 0 : 1, evict ? "user evict USER|--all" : "user flush USER|--all"))
		return CTL_USAGE;
	if (all) {
		req = json_pack("{s:s}", "op", evict ? "node.evict" : "node.flush");
		rc = ctl_each_worker_last(c, req, print_evicted, err);
		json_decref(req);
		return rc;
	}
	rc = ctl_call(c, json_pack("{s:s, s:s}", "op", evict ? "user.evict" : "user.flush", "user", c->argv[0]), &last, err);
	if (rc < 0)
		return rc;
	if (c->json)
		ctl_print(c, last);
	json_decref(last);
	return CTL_OK;
}

int cmd_user_place(struct ctl *c, const char *verb)
{
	struct err err = ERR_INIT;
	int rc;

	memmove(c->argv, c->argv + 1, (size_t)c->argc * sizeof(*c->argv));
	c->argc--;
	if (!strcmp(verb, "where"))
		rc = user_where(c, &err);
	else if (!strcmp(verb, "move"))
		rc = user_move(c, &err);
	else
		rc = one_or_all(c, verb, &err);
	return rc < 0 ? ctl_fail(&err) : rc;
}
