/* The nodes as anybody with the keys can see them: nothing is written, and who looks is no node. */
#include "metacache/metacache-private.h"

#include <unistd.h>

enum { SLACK_S = 2, READ_TTL_MS = 30000 /* a third of it is a read's deadline */ };

const char *metacache_state_name(enum metacache_state s)
{
	static const char *const names[] = { "live", "draining", "silent", "dead-being-taken-over", "released", "damaged" };

	return names[s];
}

/* What node.c needs of a metacache for reading. */
static void reader_init(struct metacache *mc, const struct metacache_reader *rd)
{
	memset(mc, 0, sizeof(*mc));
	mc->cfg.store = rd->store;
	mc->cfg.ttl_ms = READ_TTL_MS;
	mc->cfg.clock = &clock_system;
	mc->prefix = (char *)(uintptr_t)(rd->prefix ? rd->prefix : "");
	mc->keys = rd->keys;
}

static void fill(struct metacache_node *n, const struct node_record *rec)
{
	memcpy(n->address, rec->address, sizeof(n->address));
	memcpy(n->version, rec->version, sizeof(n->version));
	n->incarnation = rec->incarnation;
	n->ttl_ms = rec->ttl_ms;
	n->beat = rec->beat;
	n->floor = rec->floor;
	n->pieces = rec->pieces;
	n->users = rec->users;
	n->started = rec->started;
	n->beat_time = rec->beat_time;
	n->state = rec->state == NODE_CLAIMED ? METACACHE_TAKEN : rec->state != NODE_LIVE ? METACACHE_RELEASED :
		   rec->draining ? METACACHE_DRAINING : METACACHE_LIVE;
	if (rec->state == NODE_CLAIMED)
		memcpy(n->claimer, rec->claimer, sizeof(n->claimer));
}

/* 1, 0 there is none, <0; a damaged one is 1, too. */
static int see(struct metacache *mc, const char *node, struct metacache_node *n, struct err *err)
{
	char etag[OBJ_ETAG_MAX];
	struct node_record rec;
	int rc = node_get(mc, node, &rec, etag, err);

	memset(n, 0, sizeof(*n));
	snprintf(n->node, sizeof(n->node), "%s", node);
	if (rc == ERR_CORRUPT) {
		n->state = METACACHE_DAMAGED;
		snprintf(n->problem, sizeof(n->problem), "%.255s", err ? err->msg : "");
		err_clear(err);
		return 1;
	}
	if (rc == 1)
		fill(n, &rec);
	return rc;
}

static bool is_up(const struct metacache_node *n)
{
	return n->state == METACACHE_LIVE || n->state == METACACHE_DRAINING;
}

/* By the clocks alone, which may be wrong. */
static bool looks_old(const struct metacache_node *n)
{
	int64_t age = clock_wall_s(&clock_system) - n->beat_time;

	return is_up(n) && (!n->beat_time || age > (int64_t)(n->ttl_ms / 3000) + SLACK_S || age < -SLACK_S);
}

/* Those that look old are live when they give a sign within a third of their TTL, which is when it is due. */
static int look_again(struct metacache *mc, struct metacache_node *list, size_t n, struct err *err)
{
	uint64_t wait_ms = 0;
	struct metacache_node again;
	size_t i;
	int rc = 0;

	for (i = 0; i < n; i++)
		if (looks_old(&list[i]) && list[i].ttl_ms / 3 > wait_ms)
			wait_ms = list[i].ttl_ms / 3;
	if (!wait_ms)
		return 0;
	usleep((useconds_t)(wait_ms < 20000 ? wait_ms + 1000 : 21000) * 1000);
	for (i = 0; i < n && rc >= 0; i++) {
		if (!looks_old(&list[i]))
			continue;
		rc = see(mc, list[i].node, &again, err);
		if (rc < 0 || (rc == 1 && is_up(&again) && again.incarnation == list[i].incarnation && again.beat == list[i].beat))
			list[i].state = METACACHE_SILENT;
		else if (rc == 1)
			list[i] = again;
	}
	return rc < 0 ? rc : 0;
}

int metacache_nodes(const struct metacache_reader *rd, struct metacache_node **list_r, size_t *n_r, struct err *err)
{
	char etag[OBJ_ETAG_MAX];
	struct metacache mc;
	struct ring ring;
	size_t i;
	int rc;

	reader_init(&mc, rd);
	*list_r = NULL;
	*n_r = 0;
	rc = ring_get(&mc, &ring, etag, err);
	if (rc < 0)
		return rc;
	*list_r = mem_calloc(ring.n + 1, sizeof(**list_r));
	for (i = 0; i < ring.n && rc >= 0; i++) {
		struct metacache_node *n = &(*list_r)[*n_r];

		rc = see(&mc, ring.names[i], n, err);
		if (rc == 0)	/* it starts, or its record was deleted by hand */
			n->state = METACACHE_RELEASED;
		*n_r += rc >= 0;
	}
	ring_free(&ring);
	if (rc >= 0)
		rc = look_again(&mc, *list_r, *n_r, err);
	if (rc < 0) {
		free(*list_r);
		*list_r = NULL;
		*n_r = 0;
	}
	return rc < 0 ? rc : 0;
}

int metacache_node(const struct metacache_reader *rd, const char *node, struct metacache_node *out, struct err *err)
{
	struct metacache mc;

	reader_init(&mc, rd);
	return see(&mc, node, out, err);
}
