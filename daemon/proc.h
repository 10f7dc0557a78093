/* proc - the child's side of a culverd process: what master gave it, and what
 * master tells it.
 *
 * A child is the same program, started as  culverd --role=gate --index=0
 * --generation=3  with FD_* open and nothing else.  All other descriptors
 * come in messages.
 * Threads: the loop's. */
#ifndef DAEMON_PROC_H
#define DAEMON_PROC_H
#include "daemon/chan.h"
#include "daemon/conf.h"
#include "daemon/loop.h"
#include "daemon/msg.h"

enum { FD_CTL = 3, FD_CONF = 4, FD_SYSLOG = 5 };

struct err;
struct proc;
/* What master says; any may be NULL.  A descriptor is the receiver's. */
struct proc_ops {
	void (*go)(struct proc *p);		/* the first peers have been given: begin */
	void (*stop)(struct proc *p);		/* end gracefully; also when master is gone */
	void (*drain)(struct proc *p);		/* a successor is there: finish what is under way, then end */
	void (*conf)(struct proc *p, struct conf *old);	/* p->conf is new; old is freed afterwards */
	void (*cert)(struct proc *p, int fd);
	void (*listen)(struct proc *p, struct rd *r, int fd);
	void (*peer)(struct proc *p, enum msg_role role, unsigned index, int fd);
	void (*conn)(struct proc *p, const struct msg_conn *m, int fd);
};
struct proc {
	struct conf conf;
	struct loop loop;
	struct chan *ctl;		/* NULL once master is gone */
	enum msg_role role;
	unsigned index, generation;
	const struct proc_ops *ops;
	void *owner;
};

/* Reads the settings, sets up the log and the control channel.  0 or <0. */
int proc_start(struct proc *p, enum msg_role role, unsigned index, unsigned generation, const struct proc_ops *ops, void *owner, struct err *err);
void proc_tell(struct proc *p, enum msg_type what);	/* MSG_READY, MSG_IDLE to master */
void proc_release(struct proc *p);
/* When root: becomes user (and group, or the user's own); with no_new_privs in any case. */
int proc_become(const char *user, const char *group, struct err *err);
/* An anonymous file with the text, for handing to another process. -1 with errno. */
int proc_memfd(const char *name, const void *data, size_t len);
/* Whole content of such a file, NUL-terminated; closes fd. */
int proc_memfd_read(int fd, size_t max, char **data_r, size_t *len_r, struct err *err);
void proc_raise_fd_limit(void);

/* The roles: each returns the exit status. */
int gate_main(unsigned index, unsigned generation);
int auth_main(unsigned index, unsigned generation);
int worker_main(unsigned index, unsigned generation, const char *address);	/* address: for other nodes, or "" */
int master_main(const char *conf_path, bool foreground);	/* conf_path NULL: the defaults */
#endif
