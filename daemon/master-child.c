/* Starting processes and introducing them to each other. */
#include "daemon/master.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LONG_ENOUGH_MS = 10000, BACKOFF_FIRST_MS = 100, BACKOFF_MAX_MS = 10000, START_FAILURES = 3, FD_ABOVE = 20 };

void child_tell(struct child *c, enum msg_type what, int fd)
{
	struct buf b = BUF_INIT(64);

	buf_put8(&b, (uint8_t)what);
	if (c->ctl)
		(void)chan_send(c->ctl, &b, fd);
	else
		io_close(&fd);
	buf_free(&b);
}

void child_tell_all(struct master *m, enum msg_role role, enum msg_type what)
{
	struct child *c;

	for (c = m->children; c; c = c->next)
		if (c->role == role)
			child_tell(c, what, -1);
}

void child_kill_all(struct master *m)
{
	struct child *c;

	for (c = m->children; c; c = c->next)
		(void)kill(c->pid, SIGKILL);
}

/* --- from master to a new process --- */

static int conf_memfd(struct master *m)
{
	struct buf text = BUF_INIT(0);
	int fd;

	settings_print(conf_table, &m->conf, false, &text);
	fd = proc_memfd("settings", text.data, text.len);
	buf_free(&text);
	return fd;
}

int master_cert(const struct conf *c, struct err *err)
{
	struct buf both = BUF_INIT(0);
	size_t len;
	char *text;
	int fd = -1, rc = io_read_file(c->ssl_cert, 1 << 19, &text, &len, err);

	if (rc < 0)
		return rc;
	buf_add(&both, text, len);
	buf_addc(&both, '\0');
	free(text);
	rc = io_read_file(c->ssl_key, 1 << 19, &text, &len, err);
	if (rc == 0) {
		buf_add(&both, text, len);
		explicit_bzero(text, len);
		free(text);
		fd = proc_memfd("certificate", both.data, both.len);
		if (fd < 0)
			rc = err_errno(err, "memfd", NULL);
	}
	explicit_bzero(both.data, both.len);
	buf_free(&both);
	return rc < 0 ? rc : fd;
}

/* The gates' or, to a worker, its node ports. */
static void give_listeners(struct child *c)
{
	const struct bound *b;

	for (b = c->role == ROLE_GATE ? c->m->bound : c->m->nodes; b; b = b->next) {
		struct buf msg = BUF_INIT(64);

		if (c->role == ROLE_WORKER && b->worker != c->index)
			continue;

		buf_put8(&msg, MSG_LISTEN);
		buf_put8(&msg, (uint8_t)b->protocol);
		buf_put8(&msg, (uint8_t)b->tls);
		(void)chan_send(c->ctl, &msg, dup(b->fd));
		buf_free(&msg);
	}
}

static bool talk_to_each_other(const struct child *a, const struct child *b)
{
	if (a->role == ROLE_WORKER)
		return b->slot || b->role == ROLE_GATE;
	return (a->role == ROLE_GATE && b->role == ROLE_AUTH && b->slot) || (a->role == ROLE_AUTH && b->role == ROLE_GATE) || b->role == ROLE_WORKER;
}

static void introduce_one(struct child *to, const struct child *who, int fd)
{
	struct buf msg = BUF_INIT(64);

	buf_put8(&msg, MSG_PEER);
	buf_put8(&msg, (uint8_t)who->role);
	buf_put32(&msg, who->index);
	(void)chan_send(to->ctl, &msg, fd);
	buf_free(&msg);
}

static void introduce(struct child *fresh)
{
	struct child *c;
	int sv[2];

	for (c = fresh->m->children; c; c = c->next) {
		if (c == fresh || !c->ctl || !talk_to_each_other(fresh, c))
			continue;
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
			log_event(LOG_ERROR, "socketpair failed", LF_S("why", strerror(errno)), LF_END);
			continue;
		}
		introduce_one(fresh, c, sv[0]);
		introduce_one(c, fresh, sv[1]);
	}
}

/* --- fork and exec --- */

/* In the new process: the descriptors of proc.h and no others. */
static void exec_child(const char *role, unsigned index, unsigned generation, const char *address, int ctl, int conf, int syslog)
{
	char arg_role[32], arg_index[32], arg_generation[32], arg_address[300];
	char *argv[] = { (char *)(uintptr_t)"culverd", arg_role, arg_index, arg_generation, *address ? arg_address : NULL, NULL };
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	snprintf(arg_role, sizeof(arg_role), "--role=%s", role);
	snprintf(arg_index, sizeof(arg_index), "--index=%u", index);
	snprintf(arg_generation, sizeof(arg_generation), "--generation=%u", generation);
	snprintf(arg_address, sizeof(arg_address), "--address=%s", address);
	ctl = fcntl(ctl, F_DUPFD, FD_ABOVE);
	conf = fcntl(conf, F_DUPFD, FD_ABOVE);
	syslog = syslog >= 0 ? fcntl(syslog, F_DUPFD, FD_ABOVE) : -1;
	if (dup2(null, 0) < 0 || dup2(2, 1) < 0 || dup2(ctl, FD_CTL) < 0 || dup2(conf, FD_CONF) < 0 || (syslog >= 0 && dup2(syslog, FD_SYSLOG) < 0))
		_exit(127);
	(void)close_range(syslog >= 0 ? FD_SYSLOG + 1 : FD_CONF + 1, ~0U, 0);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	execv("/proc/self/exe", argv);
	_exit(127);
}

static pid_t start_process(struct master *m, enum msg_role role, unsigned index, unsigned generation, int *ctl_r, struct err *err)
{
	int sv[2], conf = conf_memfd(m);
	char *address;
	pid_t pid;

	if (conf < 0)
		return err_errno(err, "memfd", NULL);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
		close(conf);
		return err_errno(err, "socketpair", NULL);
	}
	address = role == ROLE_WORKER ? listen_node_address(&m->conf, m->nodes, index) : mem_strdup("");
	pid = fork();
	if (pid == 0)
		exec_child(msg_role_name[role], index, generation, address, sv[1], conf, m->syslog_fd);
	free(address);
	close(conf);
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return err_errno(err, "fork", NULL);
	}
	*ctl_r = sv[0];
	return pid;
}

static void on_message(struct chan *ch, struct rd *r, int fd)
{
	struct child *c = ch->owner;
	unsigned type = rd_8(r);

	io_close(&fd);
	if (type == MSG_READY && c->state == CHILD_STARTING) {
		c->state = CHILD_READY;
		master_child_ready(c->m, c);
	} else if (type == MSG_IDLE) {
		c->state = CHILD_IDLE;
		master_check_idle(c->m);
	}
}

static void on_closed(struct chan *ch)
{
	struct child *c = ch->owner;

	chan_free(&c->ctl);	/* SIGCHLD tells the rest */
}

static const struct chan_ops ctl_ops = { on_message, on_closed };

int child_spawn(struct slot *slot, struct err *err)
{
	struct master *m = slot->m;
	struct child *c = MEM_NEW(struct child);
	int ctl = -1, cert;

	c->m = m;
	c->role = slot->role;
	c->index = slot->index;
	c->generation = ++m->next_generation;
	c->started_ms = m->loop.now_ms;
	c->pid = start_process(m, slot->role, slot->index, c->generation, &ctl, err);
	if (c->pid > 0)
		c->ctl = chan_new(&m->loop, ctl, &ctl_ops, c, 0);
	if (c->pid < 0 || !c->ctl) {
		int rc = c->pid < 0 ? (int)c->pid : err_errno(err, "control channel", NULL);

		free(c);
		return rc;
	}
	c->successor_of = slot->child;
	c->slot = slot;
	if (slot->child)
		slot->child->slot = NULL;
	slot->child = c;
	c->next = m->children;
	m->children = c;
	if (c->role == ROLE_GATE) {
		cert = *m->conf.ssl_cert ? master_cert(&m->conf, err) : -1;
		if (cert >= 0)
			child_tell(c, MSG_CERT, cert);
	}
	if (c->role != ROLE_AUTH)
		give_listeners(c);
	introduce(c);
	child_tell(c, MSG_GO, -1);
	return 0;
}

/* --- the end of a process --- */

static void on_restart(struct loop_timer *t)
{
	struct slot *slot = t->owner;
	struct err err = ERR_INIT;

	if (slot->m->stopping || slot->child)
		return;
	if (child_spawn(slot, &err) < 0) {
		log_event(LOG_ERROR, "a process cannot be started", LF_S("role", msg_role_name[slot->role]), LF_ERR(&err), LF_END);
		loop_timer_set(&slot->m->loop, t, BACKOFF_MAX_MS);
	}
}

static void schedule(struct slot *slot, int64_t lived_ms)
{
	int64_t delay = BACKOFF_FIRST_MS;
	unsigned i;

	slot->failures = lived_ms >= LONG_ENOUGH_MS ? 1 : slot->failures + 1;
	if (!slot->m->ready && slot->failures >= START_FAILURES) {
		log_event(LOG_ERROR, "culverd cannot start: see the errors above", LF_END);
		slot->m->failed = true;
		master_stop(slot->m);
		return;
	}
	for (i = 2; i < slot->failures && delay < BACKOFF_MAX_MS; i++)
		delay *= 2;
	if (slot->failures == 1)
		delay = 0;
	slot->restart.fire = on_restart;
	slot->restart.owner = slot;
	loop_timer_set(&slot->m->loop, &slot->restart, delay < BACKOFF_MAX_MS ? delay : BACKOFF_MAX_MS);
	if (!delay)
		on_restart(&slot->restart);
}

static void log_exit(const struct child *c, int status)
{
	bool expected = c->m->stopping || !c->slot;

	if (WIFSIGNALED(status))
		log_event(expected ? LOG_WARN : LOG_ERROR, "process was killed", LF_S("role", msg_role_name[c->role]), LF_U("index", c->index),
			  LF_D("child", c->pid), LF_D("signal", WTERMSIG(status)), LF_END);
	else
		log_event(expected && !WEXITSTATUS(status) ? LOG_DBG : LOG_ERROR, "process ended", LF_S("role", msg_role_name[c->role]),
			  LF_U("index", c->index), LF_D("child", c->pid), LF_D("status", WEXITSTATUS(status)), LF_END);
}

void child_exited(struct master *m, pid_t pid, int status)
{
	struct child **pc = &m->children, *c, *other;

	while (*pc && (*pc)->pid != pid)
		pc = &(*pc)->next;
	c = *pc;
	if (!c)
		return;
	log_exit(c, status);
	*pc = c->next;
	for (other = m->children; other; other = other->next)
		if (other->successor_of == c)
			other->successor_of = NULL;
	chan_free(&c->ctl);
	if (c->slot) {
		struct slot *slot = c->slot;

		slot->child = NULL;
		if (!m->stopping)
			schedule(slot, m->loop.now_ms - c->started_ms);
	}
	loop_free_later(&m->loop, c);
	master_check_idle(m);
}
