/* Summary blocks whose messages are mostly gone: what is left of them moves to
 * the block that is being filled, and the old block is given up.
 *
 * Blocks are derived, so this leaves no record in the log: indexes that point
 * at new places reach the store with the next snapshots, and only after that
 * may the old block's object be deleted (obox_gc sees to the order).  A crash
 * before finds the old snapshots and the old blocks. */
#include "obox/obox-private.h"

enum { SPARSE = 4 /* less than one in so many is live */, MOST_BLOCKS = 64 /* moved in one run */ };

struct live {
	uint32_t *by_block;	/* messages that need each block */
	size_t n_blocks;
};

static void count_msg(struct live *l, const struct obox_msg *msg)
{
	if (msg->sum_block < l->n_blocks)
		l->by_block[msg->sum_block]++;
}

/* All of a root's indexes, under u->lock. */
static int load_all(struct obox_user *u, struct err *err)
{
	size_t i;
	int rc = 0;

	for (i = 0; i < u->st.n_boxes && rc == 0; i++)
		rc = user_load_mbox(u, u->st.boxes[i], err);
	return rc;
}

static void count_all(struct obox_user *u, struct live *l)
{
	size_t i, j;

	l->n_blocks = u->st.n_blocks;
	l->by_block = mem_calloc(l->n_blocks, sizeof(*l->by_block));
	for (i = 0; i < u->st.n_boxes; i++)
		for (j = 0; j < u->st.boxes[i]->n; j++)
			count_msg(l, &u->st.boxes[i]->msgs[j]);
	for (i = 0; i < u->st.n_trash; i++)
		count_msg(l, &u->st.trash[i].msg);
}

/* --- moving --- */

struct moving {
	struct obox_user *u;
	struct sumslots *from;
	uint32_t block;
	struct { uint32_t block, slot; bool moved; } *to;	/* by old slot: copies share one */
};

static bool move_msg(struct moving *mv, struct obox_msg *msg)
{
	const void *summary;
	size_t len;

	if (msg->sum_block != mv->block || msg->sum_slot >= sumslots_count(mv->from))
		return false;
	if (!mv->to[msg->sum_slot].moved) {
		sumslots_get(mv->from, msg->sum_slot, &summary, &len);
		sum_add(&mv->u->st, summary, len, &mv->to[msg->sum_slot].block, &mv->to[msg->sum_slot].slot);
		mv->to[msg->sum_slot].moved = true;
	}
	msg->sum_block = mv->to[msg->sum_slot].block;
	msg->sum_slot = mv->to[msg->sum_slot].slot;
	return true;
}

static void give_up(struct sumblock *b)
{
	b->epoch = b->n = 0;
	b->count = b->bytes = 0;
}

static int move_block(struct obox_user *u, uint32_t at, struct err *err)
{
	struct sumblock *b = &u->st.blocks[at];
	struct moving mv = { .u = u, .block = at };
	size_t i, j;
	int rc = sumslots_open(u, b, &mv.from, err);

	if (rc < 0)
		return rc;
	mv.to = mem_calloc(sumslots_count(mv.from), sizeof(*mv.to));
	for (i = 0; i < u->st.n_boxes; i++) {
		struct mbox *m = u->st.boxes[i];

		for (j = 0; j < m->n; j++)
			m->dirty |= move_msg(&mv, &m->msgs[j]);
	}
	for (i = 0; i < u->st.n_trash; i++)
		move_msg(&mv, &u->st.trash[i].msg);
	sumslots_close(u, &mv.from);
	free(mv.to);
	give_up(&u->st.blocks[at]);	/* sum_add may have moved the array */
	return 0;
}

/* Once, before the first change: a record that changes nothing, so that the snapshots that follow have names of their own
 * whatever an upload that failed has already written. */
static int new_lsn(struct obox_user *u, bool *done, struct err *err)
{
	struct rec r = { .type = REC_PURGE, .time = 0 };
	uint64_t ticket;
	int rc = *done ? 0 : user_commit(u, &r, NULL, 1, &ticket, err);

	*done |= rc == 0;
	return rc;
}

int user_compact(struct obox_user *u, size_t *n_r, struct err *err)
{
	struct live l = { NULL, 0 };
	size_t i, moved = 0;
	bool named = false;
	int rc;

	*n_r = 0;
	pthread_mutex_lock(&u->lock);
	rc = load_all(u, err);
	if (rc == 0)
		count_all(u, &l);
	for (i = 0; i < l.n_blocks && rc == 0; i++) {
		struct sumblock *b = &u->st.blocks[i];

		if (b->open || !b->n)
			continue;	/* being filled or written; given up before */
		if (l.by_block[i] == 0) {
			rc = new_lsn(u, &named, err);
			if (rc < 0)
				break;
			give_up(b);
			++*n_r;
		} else if (l.by_block[i] < b->count / SPARSE && moved < MOST_BLOCKS) {
			rc = new_lsn(u, &named, err);
			if (rc == 0)
				rc = move_block(u, (uint32_t)i, err);
			if (rc == ERR_NOTFOUND || rc == ERR_CORRUPT) {	/* its messages are read from their objects already */
				err_clear(err);
				rc = 0;
				continue;
			}
			moved += rc == 0;
			*n_r += rc == 0;
		}
	}
	pthread_mutex_unlock(&u->lock);
	free(l.by_block);
	return rc;
}
