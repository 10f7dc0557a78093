/* master - the first process: its inner parts, for master*.c.
 *
 * It binds, starts and restarts the others, introduces them to each other and
 * passes on signals.  It parses no byte from a client.  One thread. */
#ifndef DAEMON_MASTER_H
#define DAEMON_MASTER_H
#include "daemon/proc.h"

enum { SLOTS_MAX = 1 + 64 + 64 };

struct master;

enum child_state { CHILD_STARTING, CHILD_READY, CHILD_IDLE };
struct child {
	struct child *next;
	struct master *m;
	struct slot *slot;	/* NULL: draining, or of a stopped role */
	enum msg_role role;
	unsigned index, generation;
	pid_t pid;
	struct chan *ctl;
	enum child_state state;
	struct child *successor_of;	/* to drain when this is ready */
	int64_t started_ms;
};
/* A process that shall run. */
struct slot {
	struct master *m;
	enum msg_role role;
	unsigned index;
	struct child *child;		/* the one that does, or NULL */
	unsigned failures;		/* in a row */
	struct loop_timer restart;
};
struct bound {
	struct bound *next;
	char *where;		/* "127.0.0.1:143", or a path */
	unsigned worker;	/* protocol node: whose it is */
	unsigned protocol, tls;
	int fd;
};
struct admin {
	struct loop_src src;
	struct master *m;
	unsigned worker;
	char *path;
};
struct master {
	struct conf conf;
	const char *conf_path;
	struct loop loop;
	struct loop_src signals;
	struct slot slots[SLOTS_MAX];
	unsigned n_slots;
	struct child *children;
	struct bound *bound;
	struct bound *nodes;	/* the node ports: bound once, for running workers cannot change theirs */
	struct admin admin[1 + 64];
	unsigned n_admin, next_generation, next_admin;
	struct loop_timer stop_timer;
	int lock_fd, ready_fd, syslog_fd;
	bool ready, stopping, failed, workers_told;
};

/* master.c */
void master_stop(struct master *m);
void master_child_ready(struct master *m, struct child *c);
void master_check_idle(struct master *m);
/* master-child.c */
int child_spawn(struct slot *slot, struct err *err);	/* the slot's child is the new one */
void child_exited(struct master *m, pid_t pid, int status);
void child_tell(struct child *c, enum msg_type what, int fd);	/* takes fd, or -1 */
void child_tell_all(struct master *m, enum msg_role role, enum msg_type what);
void child_kill_all(struct master *m);
/* A memory file for the gates, who could not read it themselves: certificate file, a NUL, key file.  <0 on failure. */
int master_cert(const struct conf *c, struct err *err);
/* master-listen.c */
int listen_open(const struct conf *c, const struct bound *old, struct bound **bound_r, struct err *err);	/* reuses what is in old */
/* The ports for other nodes, one of each worker for each address. */
int listen_nodes(const struct conf *c, struct bound **bound_r, struct err *err);
/* Where others reach a worker: "host:port", owned by the caller; "" when nowhere. */
char *listen_node_address(const struct conf *c, const struct bound *nodes, unsigned worker);
void listen_close(struct bound **b, const struct bound *but);	/* not the descriptors that but has too */
void listen_log(const struct bound *b);
int admin_open(struct master *m, struct err *err);
void admin_close(struct master *m);
/* notify.c */
void notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#endif
