/* gate - the process strangers talk to: its inner parts, for gate*.c and their
 * tests.
 *
 *   accepted --(implicit TLS)--> HANDSHAKE --> COMMAND <--> AUTH --> (DELAY) --> COMMAND
 *                                                 |           |
 *                                     STARTTLS: HANDSHAKE     +--> HANDOVER --> gone (plain: the descriptor went)
 *                                                                         +--> RELAY (TLS: a socketpair's end went)
 *   any state --> CLOSING (output is sent) --> gone
 *
 * One thread.  A silent connection is this struct and a descriptor; buffers
 * exist while there is something in them. */
#ifndef DAEMON_GATE_H
#define DAEMON_GATE_H
#include <openssl/ssl.h>
#include <sys/socket.h>

#include "base/hmap.h"
#include "daemon/proc.h"

enum {
	GATE_LINE_MAX = 8192,		/* one command before the login, with its literals */
	GATE_LITERAL_MAX = 1024,
	GATE_IN_MAX = 16384,
	GATE_OUT_MAX = 65536,
	GATE_WORKERS_MAX = 64
};

struct gate;
struct gconn;

enum gate_state { G_HANDSHAKE, G_COMMAND, G_AUTH, G_DELAY, G_HANDOVER, G_RELAY, G_CLOSING };
enum gate_sasl { SASL_NONE, SASL_PLAIN, SASL_LOGIN_USER, SASL_LOGIN_PASS };

/* How a protocol looks before the login. */
struct gate_proto {
	const char *name;
	unsigned proto;				/* enum msg_proto */
	void (*greet)(struct gconn *g);
	/* Runs one command of g->in; false: there is no whole one. */
	bool (*input)(struct gconn *g);
	void (*login_failed)(struct gconn *g, enum msg_answer why);
	void (*bye)(struct gconn *g, const char *why);	/* the server closes; why is for a person */
};
extern const struct gate_proto gate_imap, gate_pop3, gate_lmtp;

/* One address that connections come from (IPv6: a /64). */
struct gate_ip {
	unsigned char key[17];
	uint32_t connections;		/* not logged in */
	uint32_t failures;
	int64_t failed_ms;
};
struct gate_listener {
	struct loop_src src;
	struct gate *gate;
	struct gate_listener *next;
	const struct gate_proto *proto;
	enum conf_tls tls;
	int fd;
	bool paused;		/* not in the loop */
};
struct gate_relay;

struct gconn {
	struct loop_src src;
	struct loop_timer timer;
	struct gate *gate;
	struct gconn *next, *prev;
	const struct gate_proto *proto;
	struct gate_ip *ip;		/* until it is logged in; NULL for unix sockets */
	SSL *ssl;
	struct gate_relay *relay;
	struct buf in, out;
	char *user, *tag;	/* POP3, SASL LOGIN: a name that waits for its password */
	int64_t accepted_ms;
	uint32_t serial, auth_id;
	uint32_t literal_at;		/* IMAP: for the literal there the client was told to go on */
	uint8_t state, sasl, failures, bad;
	bool starttls_ok, starttls_now, tls, loopback, waiting, greeted;
	unsigned worker;
};

struct gate {
	struct proc p;
	SSL_CTX *tls;
	struct gate_listener *listeners;
	struct gconn *conns;
	size_t n_conns, n_relays;	/* a relay has a second descriptor */
	size_t max_conns, max_fds;
	struct hmap ips;		/* key to struct gate_ip */
	struct loop_timer sweep;
	struct chan *auth, *workers[GATE_WORKERS_MAX];
	struct hmap asking;		/* auth id to struct gconn */
	uint32_t next_serial, next_auth;
	uint32_t start;			/* seconds; part of session ids */
	unsigned next_lmtp;
	bool draining, stopping;
};

/* gate.c */
void gate_close(struct gconn *g);		/* now */
void gate_update(struct gconn *g);		/* sends output, watches for what the state needs; may close */
void gate_end(struct gconn *g);			/* closes when the output is sent */
void gate_pump(struct gconn *g);		/* runs commands that are there, reads more; may close */
void gate_bad(struct gconn *g);			/* counts a command that made no sense; too many end it */
void gate_id(const struct gconn *g, char out[24]);
void gate_address(const struct sockaddr_storage *a, char out[64]);
void gate_greet(struct gconn *g);
void gate_handshake(struct gconn *g);		/* goes on with it; may close */
void gate_on_client(struct loop_src *src, uint32_t events);
void gate_on_timer(struct loop_timer *t);
/* gate-accept.c */
void gate_on_listen(struct proc *p, struct rd *r, int fd);
void gate_close_listeners(struct gate *gate);
void gate_on_sweep(struct loop_timer *t);	/* every minute: begins listening, forgets addresses */
/* gate-login.c */
/* A name and a password arrived (password is wiped).  tag: NULL for POP3. */
void gate_login(struct gconn *g, const char *tag, const char *user, char *password);
/* A client's base64 line under g->sasl.  1 a login was begun, 0 the next prompt is due, -1 malformed. */
int gate_sasl_line(struct gconn *g, const char *tag, const char *line, size_t len);
bool gate_plaintext_ok(const struct gconn *g);	/* may a password be sent over this connection? */
void gate_on_auth(struct chan *ch, struct rd *r, int fd);
void gate_auth_gone(struct gate *gate);
void gate_fail_login(struct gconn *g, enum msg_answer why);	/* answers; G_DELAY is over */
void gate_handover(struct gconn *g);
void gate_handover_waiting(struct gate *gate, unsigned worker);
/* gate-tls.c */
/* fd (closed): the certificate file, a NUL, the key file.  Master checks them with this too. */
int gate_tls_context(const struct conf *c, int fd, SSL_CTX **ctx_r, struct err *err);
int gate_tls_begin(struct gconn *g);		/* 0 or -1 */
/* 1 done, 0 waits (for *events), -1 failed. */
int gate_tls_handshake(struct gconn *g, uint32_t *events);
ssize_t gate_read(struct gconn *g, void *data, size_t len);	/* as recv: -1 with EAGAIN */
ssize_t gate_write(struct gconn *g, const void *data, size_t len);
/* gate-relay.c */
int gate_relay_start(struct gconn *g, int fd);	/* takes fd, the worker's side */
void gate_relay_step(struct gconn *g);		/* moves what can be moved; may close */
void gate_relay_free(struct gconn *g);
/* gate-limit.c */
struct gate_ip *gate_ip_get(struct gate *gate, const struct sockaddr_storage *from);
void gate_ip_put(struct gate *gate, struct gconn *g);	/* g is logged in or gone */
bool gate_ip_full(const struct gate *gate, const struct gate_ip *ip);
int64_t gate_ip_failed(struct gate *gate, struct gate_ip *ip);	/* counts it; the delay in ms */
void gate_ip_sweep(struct gate *gate);		/* forgets old ones */
/* gate-sandbox.c */
int gate_sandbox(const struct conf *c, struct err *err);
#endif
