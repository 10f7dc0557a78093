/* ctl - the inside of culverctl: one connection to the admin engine, and what
 * every command needs.
 *
 * Commands return an exit status: CTL_OK...; they have said on stderr what is
 * wrong.  Blocks: everything.  Threads: the main one only. */
#ifndef CTL_CTL_H
#define CTL_CTL_H
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "daemon/conf.h"

enum ctl_status {
	CTL_OK = 0,
	CTL_FAILED = 1,		/* it did not work; the reason was printed */
	CTL_USAGE = 2,
	CTL_NOTFOUND = 3,	/* no such user, mailbox or message */
	CTL_DAMAGE = 4,		/* check found damage */
	CTL_TEMPORARY = 5	/* try again later: store or server is away */
};

struct ctl;			/* one run of culverctl */
struct ctl {
	struct conf conf;
	const char *config_path;
	bool json, quiet;
	int argc;		/* of the command, its own name excluded */
	char **argv;
	struct client *client;
};

/* --- options: --name, --name VALUE or --name=VALUE, taken out of argv --- */
bool ctl_flag(struct ctl *c, const char *name);
const char *ctl_option(struct ctl *c, const char *name);	/* NULL when absent */
/* Exactly min..max words left?  Complains about unknown options and counts. */
bool ctl_words(struct ctl *c, int min, int max, const char *usage);

/* --- talking to the engine (client.c) --- */
/* Sends a request (stolen) with payload; the answers come by ctl_next. 0/<0 */
int ctl_send(struct ctl *c, json_t *req, const void *payload, size_t len, struct err *err);
/* 1 a line (the caller's), 0 the last line (the caller's too), <0 the engine's error or a lost connection. */
int ctl_next(struct ctl *c, json_t **line, struct err *err);
/* Reads the bytes a line announced. */
int ctl_bytes(struct ctl *c, void *data, size_t len, struct err *err);
/* Request and only its last line (may be NULL). */
int ctl_call(struct ctl *c, json_t *req, json_t **last, struct err *err);
void ctl_disconnect(struct ctl *c);
/* Sends req (borrowed) to every worker in turn; fn sees each line of each. */
int ctl_each_worker(struct ctl *c, json_t *req, void (*fn)(struct ctl *c, json_t *line), struct err *err);
int ctl_each_worker_last(struct ctl *c, json_t *req, void (*fn)(struct ctl *c, json_t *line), struct err *err);	/* the last line, too */

/* Sends one request and shows its findings and progress; the last line is *last. */
int ctl_run_long(struct ctl *c, const char *what, json_t *req, json_t **last, struct err *err);
/* The names of all users in the store behind the one named (NULL: of all), in the order of their keys. */
int ctl_users(struct ctl *c, const char *after, json_t **users, struct err *err);

/* --- saying things (output.c) --- */
int ctl_fail(const struct err *err);			/* prints, gives the status for the error's class */
void ctl_print(struct ctl *c, json_t *line);		/* as JSON in one line; borrowed */
void ctl_progress(struct ctl *c, const char *what, uint64_t done, uint64_t total);	/* a bar on a terminal, nothing elsewhere */
void ctl_progress_end(struct ctl *c);
char *ctl_size(uint64_t bytes, char out[16]);		/* "1.4 MB" */
char *ctl_time(int64_t t, char out[32]);		/* "2026-11-22 10:00:00" local */
int ctl_parse_time(const char *text, int64_t *out);	/* "2h" ago, "2026-11-22", "2026-11-22 10:00", "@seconds"; 0 or -1 */

/* --- the engine in this process, when culverd does not run (local.c) --- */
int local_start(const struct conf *conf, int *fd_r, struct err *err);
void local_stop(void);

/* --- commands --- */
int cmd_user(struct ctl *c);
int cmd_user_place(struct ctl *c, const char *verb);	/* where, move, flush, evict (cmd-node.c) */
int cmd_node(struct ctl *c);
int cmd_mailbox(struct ctl *c);
int cmd_fetch(struct ctl *c);
int cmd_import(struct ctl *c);
int cmd_export(struct ctl *c);
int cmd_check(struct ctl *c);
int cmd_rebuild(struct ctl *c);
int cmd_scrub(struct ctl *c);
int cmd_log(struct ctl *c);
int cmd_gc(struct ctl *c);
int cmd_undelete(struct ctl *c);
int cmd_flush(struct ctl *c);
int cmd_who(struct ctl *c);
int cmd_dump(struct ctl *c);
int cmd_config(struct ctl *c);
int cmd_store(struct ctl *c);
int cmd_cache(struct ctl *c);
#endif
