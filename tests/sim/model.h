/* model - what clients were told, and what therefore must hold.
 *
 * Facts, per user: which message (content) has which UID in which mailbox,
 * whether its removal was acknowledged, is under way or may or may not have happened;
 * the flags a message can have; which directories of mailboxes are possible.
 *
 * What may or may not have happened is settled by what an owner of a later
 * epoch shows: it came from the store. */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H
#include "tests/sim/sim.h"

enum { M_NAMES = 4, M_TARGETS = 4, M_DIRS = 16, M_CONTENTS = 4096, M_SIZE = 300 /* octets of content 0; each next one is an octet longer */ };
extern const char *const m_names[M_NAMES];

struct m_flags { uint32_t value; uint64_t epoch, seq; int64_t at; unsigned life; bool acked, firm, any /* not known: what a copy began with */; };
struct m_msg {
	uint32_t uid, content;
	bool gone;			/* its removal was acknowledged */
	uint64_t maybe;			/* the epoch of a removal that may or may not happen; 0 none */
	struct m_flags *f;		/* what its flags may be, oldest first; none: not known yet */
	size_t n_f, cap_f;
};
struct m_seen { uint32_t uid, flags; };
struct m_box {
	struct m_box *next;
	struct obox_guid guid;
	uint32_t uidvalidity;
	struct m_msg *msgs;		/* by UID */
	size_t n, cap;
	bool gone;
	uint64_t born;			/* the epoch in which an owner listed it first */
	uint32_t uidnext;		/* an owner told: nothing new appears below */
	uint64_t modseq;		/* HIGHESTMODSEQ an owner told */
	uint16_t allowed[M_CONTENTS];	/* how many times content i may be here */
	uint64_t since;			/* a client's cache: as of this modseq (0: none) */
	struct m_seen *seen;
	size_t n_seen, cap_seen;
};
struct m_dir { bool there[M_NAMES]; struct m_box *box[M_NAMES]; /* NULL: not known yet */ unsigned done; /* scratch */ };
struct m_user {
	struct m_box *boxes;
	struct m_dir dirs[M_DIRS];
	size_t n_dirs;
	uint64_t dirs_epoch;		/* the latest epoch of an uncertain change */
	uint64_t epoch;			/* the latest one an owner was seen in */
	struct { uint64_t epoch, seq; } durable[64];	/* all before seq of that epoch is */
	size_t n_durable;
};
extern struct m_user m_users[USERS];

enum op_kind { OP_SAVE, OP_COPY, OP_MOVE, OP_EXPUNGE, OP_FLAGS, OP_CREATE, OP_DELETE, OP_RENAME };
struct op {	/* a change that a client asked for */
	struct op *next;
	enum op_kind kind;
	struct life *life;
	unsigned user;
	uint64_t epoch, seq;
	struct m_box *box, *to;
	uint32_t uids[M_TARGETS], contents[M_TARGETS];
	bool skip[M_TARGETS];
	unsigned n;
	uint32_t value;
	int name, name2;
	bool settled, happened;		/* of changes of the directory: a later epoch showed which */
	bool slept;			/* of the same: a later owner has made more of what may have come of it */
};
void model_begin(struct op *op);
void model_failed(struct op *op);
void model_refused(struct op *op);	/* it certainly did not happen */
void model_acked(struct op *op, const uint32_t *uids);	/* uids: the new ones of SAVE, COPY and MOVE */
uint32_t model_new_content(void);
/* Of the user's, acknowledged once, and no removal was ever begun but by moves: it has to be somewhere. */
bool model_lasting(unsigned user, uint32_t content);
struct m_msg *model_msg(struct m_box *b, uint32_t uid);
struct m_box *model_box(unsigned user, const struct obox_guid *g, uint32_t uidvalidity);	/* made when new */

/* A reading of one moment, on a node with an epoch; owner: the root in the store names just that. */
struct view_of { unsigned user; uint64_t epoch; bool owner; };
void model_see_dir(const struct view_of *v, const struct obox_mailbox *list, size_t n);
void model_see_box(const struct view_of *v, struct m_box *b, const struct obox_status *st, const struct obox_msg *msgs, size_t n, bool since_known,
		   const struct seqset *vanished);
#endif
