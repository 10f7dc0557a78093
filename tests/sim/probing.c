/* The probe before a node begins (objstore/probe.c), and what it has to find.  On a
 * store that is good it may stay without a result as long as the network is bad, but
 * must never blame the store; on an odd one no node may begin. */
#include "tests/sim/sim.h"

#include "objstore/probe.h"

int sim_store = -1;
struct sim_probes sim_probes;

static void look_for_blame(struct life *l, const struct probe_result *r)
{
	int c;

	for (c = 0; c < PROBE_N; c++) {
		if (r->state[c] != PROBE_FAILS || c == PROBE_COPY)	/* which this store cannot */
			continue;
		trace("node %s: probe: %s: %s", l->node->name, probe_check_name((enum probe_check)c), r->text[c]);
		if (store_faults.kind == STORE_GOOD)
			violation(6, "the probe finds that a good store fails at %s: %s", probe_check_name((enum probe_check)c), r->text[c]);
	}
}

/* A probe that found no fault and came to its end. */
static void passed(const struct probe_result *r)
{
	struct err err = ERR_INIT;

	sim_probes.passed++;
	if (store_faults.kind != STORE_GOOD)
		violation(6, "the probe finds nothing wrong with a store of the kind %s", store_kinds[store_faults.kind]);
	else if (probe_judge(r, PROBE_FOR_MAIL, "mail_store", &err) < 0 || probe_judge(r, PROBE_FOR_INDEX, "index_store", &err) < 0)
		violation(6, "a probe that came to its end refuses a good store: %s", err.msg);
}

bool life_probes(struct life *l, unsigned rounds)
{
	struct probe_result *r = MEM_NEW(struct probe_result);
	struct err err = ERR_INIT;
	bool good = false;
	int rc;

	sim_task->may_list = true;
	rc = probe_run(l->store, "simulated", rounds, r, &err);
	sim_task->may_list = false;
	look_for_blame(l, r);
	if (probe_fails(r, PROBE_FOR_MAIL, "mail_store", NULL) < 0 || probe_fails(r, PROBE_FOR_INDEX, "index_store", NULL) < 0) {
		trace("node %s does not begin on this store", l->node->name);
		sim_probes.refused++;
	} else if (rc < 0) {
		trace("node %s could not try the store: %s", l->node->name, err.msg);
		sim_probes.unfinished++;
	} else {
		good = true;
		passed(r);
	}
	free(r);
	return good;
}
