/* load - what the parts of culverbench share: options, connections, made-up
 * messages, figures.
 *
 * The tool measures any IMAP, POP3 or LMTP server; it knows nothing of Culver.
 * A server that cannot be reached or talks nonsense ends the run with status
 * 2; a command that fails is counted and its answer shown once.
 * Threads: one connection and one generator belong to one thread. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

enum { LOAD_CONNS_MAX = 4096 };

struct load_opts {
	const char *label;	/* copied into every line of output */
	const char *host;	/* numeric address */
	const char *imap, *pop3, *lmtp;		/* port, or the path of a unix socket */
	const char *user;	/* "name%" : % becomes the user's number */
	const char *domain;	/* put behind recipients */
	const char *pass;
	const char *mailbox;
	const char *op;		/* name of the measurement */
	const char *pre;	/* IMAP commands before each repetition, separated by ';' */
	const char *command;	/* the IMAP command of cmd; @n@ is the repetition, from 1 */
	unsigned conns, users, first_user;
	unsigned size;		/* octets of a message; 0 = varied */
	unsigned msgs;		/* messages to fill in */
	unsigned multi;		/* messages in one APPEND */
	unsigned repeat;
	double secs;		/* how long to measure */
	double settle;		/* seconds to wait before looking */
	uint64_t seed;
	pid_t pid;		/* the server's main process; 0 = unknown */
	bool fresh;		/* a new connection for each repetition */
	bool nosel;		/* no SELECT before the command */
};

/* --- connections --- */
struct load_conn {
	int fd;
	size_t pos, len;
	unsigned tag;
	uint64_t bytes;		/* received */
	uint64_t untagged;	/* lines "* " received */
	char *line;		/* the last line, without CRLF, NUL-terminated; of a response line with literals its last piece */
	size_t line_len;
	char buf[256 * 1024];
};
struct load_conn *load_connect(const struct load_opts *o, const char *port);
void load_close(struct load_conn **c);
void load_send(struct load_conn *c, const void *data, size_t len);
void load_sendf(struct load_conn *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Next line into c->line; false at the end of the stream. */
bool load_line(struct load_conn *c);
/* Is there a whole line that can be had without waiting? */
bool load_line_ready(const struct load_conn *c);
/* Skips len octets. */
void load_skip(struct load_conn *c, uint64_t len);
/* Reads one reply of LMTP or POP3's status line; true when it begins with want. */
bool load_reply(struct load_conn *c, const char *want);
/* An IMAP line with the literals in it. */
void load_imap_line(struct load_conn *c);
/* Sends a command and reads its answer to the end; true for OK. */
bool load_imap(struct load_conn *c, const char *command);
/* Reads to the answer of the command sent last; true for OK. */
bool load_imap_answer(struct load_conn *c);
struct load_conn *load_login(const struct load_opts *o, unsigned user);
void load_logout(struct load_conn **c);
void load_user(const struct load_opts *o, unsigned user, char *out, size_t max);
void load_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* --- made-up messages --- */
struct load_gen {
	uint64_t state;
	uint64_t made;
};
void load_gen_init(struct load_gen *g, uint64_t seed);
uint64_t load_random(struct load_gen *g);
/* Appends a message to out: CRLF lines, none begins with a dot. size 0:
 * varied, most of them some kilobytes.  One in 1000 has "needle" in its
 * subject, one in 2000 "haystackpin" in its text. */
void load_message(struct load_gen *g, unsigned size, struct buf *out);
/* Puts n over the serial number in the Message-ID of a made message. */
void load_renumber(struct buf *message, uint64_t n);

/* --- figures --- */
struct load_stat {
	double *v;		/* seconds each */
	size_t n, cap;
	uint64_t bytes, errors;
};
double load_now(void);	/* seconds, monotonic */
void load_stat_add(struct load_stat *s, double seconds);
void load_stat_join(struct load_stat *to, struct load_stat *from);	/* empties from */

/* What the machine and the server did between two moments. */
struct load_usage {
	double when, self, server, busy;	/* seconds; the last three of CPU */
};
void load_usage(const struct load_opts *o, struct load_usage *u);
/* Sum over the server's process tree, octets; 0 when unknown. */
uint64_t load_tree_pss(pid_t root, unsigned *processes_r);
double load_tree_cpu(pid_t root);

/* Writes one line of JSON. extra: more members, each with a comma before it, or NULL. */
void load_report(const struct load_opts *o, const char *bench, struct load_stat *s, const struct load_usage *from, const struct load_usage *to, const char *extra);

/* Runs fn in conns threads, i = 0.. conns-1, waits for all; joins their figures into *all. */
void load_threads(unsigned conns, void (*fn)(void *ctx, unsigned i, struct load_stat *s), void *ctx, struct load_stat *all);

/* --- measurements: each returns the exit status --- */
int load_lmtp(const struct load_opts *o);
int load_logins(const struct load_opts *o);
int load_fill(const struct load_opts *o);
int load_cmd(const struct load_opts *o);
int load_pop3(const struct load_opts *o);
int load_idle(const struct load_opts *o);
int load_notify(const struct load_opts *o);
#endif
