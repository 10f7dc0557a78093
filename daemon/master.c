#include "daemon/master.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/gate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- the log --- */

static int syslog_open(struct err *err)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_errno(err, "socket", NULL);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		int rc = err_errno(err, "log = syslog:", sun.sun_path);

		close(fd);
		return rc;
	}
	return fd;
}

/* Opens where the settings want the log and writes there from now on. */
static int log_open(struct master *m, struct err *err)
{
	int fd;

	log_init("master", (enum log_level)m->conf.log_level, (enum log_format)m->conf.log_format);
	if (!strcmp(m->conf.log, "syslog")) {
		fd = syslog_open(err);
		if (fd < 0)
			return fd;
		io_close(&m->syslog_fd);
		m->syslog_fd = fd;
		log_set_syslog(fd);
		return 0;
	}
	log_set_syslog(-1);
	io_close(&m->syslog_fd);
	if (!strcmp(m->conf.log, "stderr"))
		return 0;
	fd = open(m->conf.log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0)
		return err_errno(err, "open", m->conf.log);
	(void)dup2(fd, 2);
	close(fd);
	return 0;
}

/* --- directories, lock, pid file --- */

static int give_to_user(const struct conf *c, const char *dir, struct err *err)
{
	struct passwd *pw;

	if (geteuid() != 0 || !*c->user)
		return 0;
	pw = getpwnam(c->user);
	if (!pw)
		return err_set(err, ERR_NOTFOUND, "user: there is no user %s on this machine", c->user);
	return chown(dir, pw->pw_uid, pw->pw_gid) < 0 ? err_errno(err, "chown", dir) : 0;
}

static int make_store_dir(const struct conf *c, const struct conf_store *cs, struct err *err)
{
	int rc;

	if (cs->driver != CONF_STORE_POSIX)
		return 0;
	rc = io_mkdirs(cs->path, 0700, err);
	return rc < 0 ? rc : give_to_user(c, cs->path, err);
}

static int make_dirs(const struct conf *c, struct err *err)
{
	int rc = io_mkdirs(c->state_dir, 0700, err);

	if (rc == 0)
		rc = io_mkdirs(c->run_dir, 0755, err);
	if (rc == 0)
		rc = give_to_user(c, c->state_dir, err);
	if (rc == 0)
		rc = make_store_dir(c, &c->mail_store, err);
	return rc == 0 ? make_store_dir(c, &c->index_store, err) : rc;
}

/* One master for a state directory. */
static int take_lock(struct master *m, struct err *err)
{
	char *path = mem_printf("%s/culverd.lock", m->conf.state_dir), text[32] = "";
	int rc = 0;

	m->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (m->lock_fd < 0) {
		rc = err_errno(err, "open", path);
	} else if (flock(m->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		(void)!pread(m->lock_fd, text, sizeof(text) - 1, 0);
		text[strcspn(text, "\n")] = '\0';
		rc = err_set(err, ERR_BUSY, "state_dir %s is in use by another culverd (process %s)", m->conf.state_dir, *text ? text : "unknown");
	}
	free(path);
	return rc;
}

static void write_pid(struct master *m)
{
	char *path = mem_printf("%s/culverd.pid", m->conf.run_dir), text[32];
	int n = snprintf(text, sizeof(text), "%d\n", (int)getpid()), fd;

	(void)!ftruncate(m->lock_fd, 0);
	(void)!pwrite(m->lock_fd, text, (size_t)n, 0);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		log_event(LOG_WARN, "the pid file cannot be written", LF_S("path", path), LF_S("why", strerror(errno)), LF_END);
	io_close(&fd);
	free(path);
}

static void remove_pid(struct master *m)
{
	char *path = mem_printf("%s/culverd.pid", m->conf.run_dir);

	(void)unlink(path);
	free(path);
}

/* --- ready, reload, stop --- */

static bool all_ready(const struct master *m)
{
	unsigned i;

	for (i = 0; i < m->n_slots; i++)
		if (!m->slots[i].child || m->slots[i].child->state != CHILD_READY)
			return false;
	return true;
}

void master_child_ready(struct master *m, struct child *c)
{
	if (c->successor_of) {
		child_tell(c->successor_of, MSG_DRAIN, -1);
		c->successor_of = NULL;
	}
	if (m->ready || !all_ready(m))
		return;
	m->ready = true;
	write_pid(m);
	log_event(LOG_INF, "culverd is ready", LF_S("version", PACKAGE_VERSION), LF_U("workers", m->conf.worker_count), LF_END);
	notify("READY=1\nMAINPID=%d\nSTATUS=Serving with %" PRIu64 " workers", (int)getpid(), m->conf.worker_count);
	if (m->ready_fd >= 0) {
		(void)!write(m->ready_fd, "", 1);
		io_close(&m->ready_fd);
	}
}

/* Would the gates be able to use certificate and key? */
static int check_cert(const struct conf *c, struct err *err)
{
	SSL_CTX *ctx = NULL;
	int rc;

	if (!*c->ssl_cert)
		return 0;
	rc = master_cert(c, err);
	if (rc >= 0)
		rc = gate_tls_context(c, rc, &ctx, err);
	SSL_CTX_free(ctx);
	return rc;
}

static void log_complaints(struct buf *complaints)
{
	const char *p = buf_str(complaints);

	while (*p) {
		size_t n = strcspn(p, "\n");
		char *line = mem_strndup(p, n);

		log_event(LOG_ERROR, "settings", LF_S("mistake", line), LF_END);
		free(line);
		p += n + (p[n] == '\n');
	}
}

static void send_conf(struct master *m)
{
	struct buf text = BUF_INIT(0);
	struct child *c;

	settings_print(conf_table, &m->conf, false, &text);
	for (c = m->children; c; c = c->next) {
		if (c->role == ROLE_WORKER)
			child_tell(c, MSG_CONF, proc_memfd("settings", text.data, text.len));
		child_tell(c, MSG_LOG, dup(m->syslog_fd >= 0 ? m->syslog_fd : 2));
	}
	buf_free(&text);
}

static void replace_slots(struct master *m)
{
	struct err err = ERR_INIT;
	unsigned i;

	for (i = 0; i < m->n_slots; i++) {
		if (m->slots[i].role == ROLE_WORKER)
			continue;
		err_clear(&err);
		loop_timer_clear(&m->loop, &m->slots[i].restart);
		if (child_spawn(&m->slots[i], &err) < 0)
			log_event(LOG_ERROR, "a process cannot be started: the old one stays", LF_S("role", msg_role_name[m->slots[i].role]), LF_ERR(&err), LF_END);
	}
}

/* SIGHUP.  New gates and a new auth process take over; workers and running
 * sessions go on. */
static void reload(struct master *m)
{
	struct buf complaints = BUF_INIT(0);
	struct bound *bound = NULL;
	struct err err = ERR_INIT;
	struct conf fresh;
	const char *later;
	int rc = conf_load(m->conf_path, &fresh, &complaints);

	log_event(LOG_INF, "reloading", LF_END);
	log_complaints(&complaints);
	if (rc < 0)
		err_set(&err, rc, "there are mistakes in the file");
	if (rc == 0 && (later = conf_needs_restart(&m->conf, &fresh)))
		log_event(LOG_WARN, "a setting has changed that counts at the next start only", LF_S("setting", later), LF_END);
	if (rc == 0) {
		conf_keep(&m->conf, &fresh);
		fresh.gate_count = m->conf.gate_count;
		rc = check_cert(&fresh, &err);
	}
	if (rc == 0)
		rc = listen_open(&fresh, m->bound, &bound, &err);
	if (rc < 0) {
		log_event(LOG_ERROR, "the settings stay as they were", LF_ERR(&err), LF_END);
		conf_free(&fresh);
	} else {
		conf_free(&m->conf);
		m->conf = fresh;
		listen_close(&m->bound, bound);
		m->bound = bound;
		if (log_open(m, &err) < 0)
			log_event(LOG_ERROR, "the log cannot be opened", LF_ERR(&err), LF_END);
		listen_log(m->bound);
		send_conf(m);
		replace_slots(m);
	}
	buf_free(&complaints);
}

static void out_of_time(struct loop_timer *t)
{
	log_event(LOG_ERROR, "processes did not end in time: killing them", LF_END);
	child_kill_all(t->owner);
}

void master_stop(struct master *m)
{
	unsigned i;

	if (m->stopping)
		return;
	m->stopping = true;
	log_event(LOG_INF, "stopping", LF_END);
	notify("STOPPING=1");
	for (i = 0; i < m->n_slots; i++)
		loop_timer_clear(&m->loop, &m->slots[i].restart);
	child_tell_all(m, ROLE_GATE, MSG_STOP);
	child_tell_all(m, ROLE_WORKER, MSG_STOP);
	loop_timer_set(&m->loop, &m->stop_timer, (int64_t)m->conf.stop_timeout);
	master_check_idle(m);
}

/* While stopping: workers end together, so that each could deliver to the
 * others to the last; auth ends when nobody is left to ask it. */
void master_check_idle(struct master *m)
{
	bool workers = false, busy = false, gates = false;
	struct child *c;

	if (!m->stopping)
		return;
	for (c = m->children; c; c = c->next) {
		workers |= c->role == ROLE_WORKER;
		busy |= c->role == ROLE_WORKER && c->state != CHILD_IDLE;
		gates |= c->role == ROLE_GATE;
	}
	if (workers && !busy && !m->workers_told) {
		m->workers_told = true;
		child_tell_all(m, ROLE_WORKER, MSG_STOP);
	}
	if (!workers && !gates)
		child_tell_all(m, ROLE_AUTH, MSG_STOP);
	if (!m->children)
		m->loop.stop = true;
}

static void reap(struct master *m)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		child_exited(m, pid, status);
}

static void on_signal(struct loop_src *src, uint32_t events)
{
	struct master *m = src->owner;
	struct signalfd_siginfo si;

	while (read(src->fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			reap(m);
		else if (si.ssi_signo == SIGHUP && m->ready && !m->stopping) {
			struct timespec ts;

			clock_gettime(CLOCK_MONOTONIC, &ts);
			notify("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
			reload(m);
			notify("READY=1");
		} else if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT) {
			master_stop(m);
		}
	}
}

/* --- start --- */

static int watch_signals(struct master *m, struct err *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return err_errno(err, "sigprocmask", NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	m->signals.ready = on_signal;
	m->signals.owner = m;
	if (fd < 0 || loop_add(&m->loop, &m->signals, fd, EPOLLIN) < 0)
		return err_errno(err, "signalfd", NULL);
	return 0;
}

/* Goes to the background; the parent waits until the server is ready, or not. */
static int background(struct master *m, struct err *err)
{
	char byte;
	int p[2];
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, "pipe", NULL);
	pid = fork();
	if (pid < 0)
		return err_errno(err, "fork", NULL);
	if (pid > 0) {
		close(p[1]);
		_exit(read(p[0], &byte, 1) == 1 ? 0 : 1);
	}
	close(p[0]);
	m->ready_fd = p[1];
	(void)setsid();
	(void)chdir("/");
	return 0;
}

static void add_slot(struct master *m, enum msg_role role, unsigned index)
{
	m->slots[m->n_slots++] = (struct slot){ .m = m, .role = role, .index = index };
}

static int start_children(struct master *m, struct err *err)
{
	unsigned i;
	int rc = 0;

	add_slot(m, ROLE_AUTH, 0);
	for (i = 0; i < m->conf.worker_count; i++)
		add_slot(m, ROLE_WORKER, i);
	for (i = 0; i < m->conf.gate_count; i++)
		add_slot(m, ROLE_GATE, i);
	for (i = 0; i < m->n_slots && rc == 0; i++)
		rc = child_spawn(&m->slots[i], err);
	return rc;
}

static int start(struct master *m, bool foreground, struct err *err)
{
	int rc = make_dirs(&m->conf, err);

	if (rc == 0)
		rc = take_lock(m, err);
	if (rc == 0)
		rc = check_cert(&m->conf, err);
	if (rc == 0)
		rc = log_open(m, err);
	if (rc == 0)
		rc = listen_open(&m->conf, NULL, &m->bound, err);
	if (rc == 0)
		rc = listen_nodes(&m->conf, &m->nodes, err);
	if (rc == 0 && !foreground)
		rc = background(m, err);
	if (rc == 0 && loop_init(&m->loop) < 0)
		rc = err_errno(err, "epoll", NULL);
	if (rc == 0)
		rc = watch_signals(m, err);
	if (rc == 0)
		rc = admin_open(m, err);
	if (rc == 0) {
		listen_log(m->bound);
		listen_log(m->nodes);
		if (conf_journal_doubt(&m->conf))
			log_event(LOG_WARN, conf_journal_doubt(&m->conf), LF_END);
		rc = start_children(m, err);
	}
	return rc;
}

static void master_release(struct master *m)
{
	const struct bound *b;
	int fd = m->signals.fd;

	for (b = m->bound; b; b = b->next)
		if (*b->where == '/')
			(void)unlink(b->where);
	listen_close(&m->bound, NULL);
	listen_close(&m->nodes, NULL);
	admin_close(m);
	loop_del(&m->loop, &m->signals);
	io_close(&fd);
	loop_release(&m->loop);
	remove_pid(m);
	io_close(&m->lock_fd);
	io_close(&m->syslog_fd);
	conf_free(&m->conf);
}

int master_main(const char *conf_path, bool foreground)
{
	static struct master m = { .lock_fd = -1, .ready_fd = -1, .syslog_fd = -1, .signals = { .fd = -1 } };
	struct buf complaints = BUF_INIT(0);
	struct err err = ERR_INIT;

	m.conf_path = conf_path;
	m.stop_timer.fire = out_of_time;
	m.stop_timer.owner = &m;
	if (conf_load(conf_path, &m.conf, &complaints) < 0) {
		fprintf(stderr, "%s", buf_str(&complaints));
		return 1;
	}
	buf_free(&complaints);
	proc_raise_fd_limit();
	if (start(&m, foreground, &err) < 0) {
		log_event(LOG_ERROR, "culverd cannot start", LF_ERR(&err), LF_END);
		child_kill_all(&m);
		return 1;
	}
	loop_run(&m.loop);
	log_event(LOG_INF, "culverd has stopped", LF_END);
	master_release(&m);
	return m.failed;
}
