/* culverctl store stats: what the workers of the culverd that runs here have asked of the store since they started. */
#include "ctl/store.h"

#include "base/mem.h"

#include <stdio.h>

enum { STORES = 2, VERBS = 8 };
static const char *const stores[STORES] = { "mail_store", "index_store" };
static const char *const counters[] = { "operations", "failed", "requests", "retries", "hedges", "errors", "throttled", "octets_up", "octets_down", "us" };
enum { N_COUNTERS = MEM_COUNT(counters) };

/* All workers added up. */
static struct sum {
	char verb[16];
	json_int_t n[N_COUNTERS];
} sums[STORES][VERBS];
static bool any;

static void add_line(struct ctl *c, json_t *line)
{
	const char *store = json_string_value(json_object_get(line, "store")), *verb = json_string_value(json_object_get(line, "verb"));
	int s = store && !strcmp(store, stores[1]), v, k;

	any |= store != NULL;
	if (c->json) {
		ctl_print(c, line);
		return;
	}
	if (!store || !verb)
		return;
	for (v = 0; v < VERBS - 1 && sums[s][v].verb[0] && strcmp(sums[s][v].verb, verb) != 0; v++)
		;
	snprintf(sums[s][v].verb, sizeof(sums[s][v].verb), "%s", verb);
	for (k = 0; k < N_COUNTERS; k++)
		sums[s][v].n[k] += json_integer_value(json_object_get(line, counters[k]));
}

static void print_sum(const char *store, const struct sum *x)
{
	const json_int_t *n = x->n;
	char up[16], down[16];

	printf("%-11s %-6s %9lld requests (%lld retries, %lld hedges, %lld throttled, %lld errors) for %lld operations (%lld failed), %.1f ms each; %s up, %s down\n",
	       store, x->verb, (long long)n[2], (long long)n[3], (long long)n[4], (long long)n[6], (long long)n[5], (long long)n[0], (long long)n[1],
	       n[0] ? (double)n[9] / 1000.0 / (double)n[0] : 0.0, ctl_size((uint64_t)n[7], up), ctl_size((uint64_t)n[8], down));
}

int store_stats(struct ctl *c, struct err *err)
{
	json_t *req = json_pack("{s:s}", "op", "store.stats");
	int rc = ctl_words(c, 0, 0, "store stats") ? ctl_each_worker(c, req, add_line, err) : CTL_USAGE, s, v;

	json_decref(req);
	if (rc != 0 || c->json)
		return rc;
	for (s = 0; s < STORES; s++)
		for (v = 0; v < VERBS && sums[s][v].verb[0]; v++)
			print_sum(stores[s], &sums[s][v]);
	if (!any)
		printf("nothing is counted: the store is a directory\n");
	return CTL_OK;
}
