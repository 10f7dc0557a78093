/* deliver - a delivery between processes and nodes: what is in the requests and
 * in the answers, and running one that came.
 *
 * Results: count (16 bits), then for each target a byte: 0 it is stored, an
 * enum err_code without its sign, DELIVER_MOVED and the owner, or DELIVER_AGAIN. */
#ifndef DAEMON_DELIVER_H
#define DAEMON_DELIVER_H
#include "daemon/lmtp/lmtp.h"
#include "daemon/worker.h"

enum { DELIVER_MOVED = 255, DELIVER_AGAIN = 254 };
enum deliver_form {
	DELIVER_PACKED = 1,	/* obox_msgin_export: the receiver must be of the same version */
	DELIVER_RAW		/* the message's bytes */
};
enum deliver_state {
	DELIVER_HERE,		/* to be tried on this machine */
	DELIVER_AWAY,		/* owner has the user */
	DELIVER_DONE		/* the target's rc says how it went */
};
struct deliver_place {
	enum deliver_state state;
	struct obox_owner *owner;
};
struct deliver_message {
	bool made, failed;
	struct buf head;
	int fd;			/* of a large one, or -1 */
	uint64_t file_len;
};
/* A request that came. */
struct deliver_in {
	unsigned char *text;	/* what the targets point into */
	struct rd message;
	bool raw;
	int fd;
	struct lmtp_delivery d;
	struct deliver_place *place;
};

/* worker-deliver.c: to users of this worker; which NULL: all. */
void deliver_here(struct worker *w, struct lmtp_delivery *d, struct deliver_place *place, const size_t *which, size_t n);
/* deliver.c */
void deliver_moved(struct deliver_place *p, const struct obox_owner *owner);
/* A message of at most max bytes goes into m->head, a larger one into a file. */
int deliver_raw(struct obox_msgin *msg, size_t max, struct deliver_message *m, struct err *err);
/* Takes text and fd in any case; 0 or -1.  text: sender, count, targets, the message or what comes before the file. */
int deliver_in_parse(struct deliver_in *in, unsigned char *text, size_t len, bool raw, int fd);
void deliver_in_run(struct worker *w, struct deliver_in *in);	/* blocks */
void deliver_in_free(struct deliver_in *in);
void deliver_results_put(struct buf *out, const struct deliver_in *in);
/* Sets rc and place of which[0..n); those the answer lacks stay as they are. */
void deliver_results_get(struct rd *r, struct lmtp_delivery *d, struct deliver_place *place, const size_t *which, size_t n);
#endif
