#include "daemon/proc.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONF_MAX = 4 << 20 };

int proc_memfd(const char *name, const void *data, size_t len)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	struct err err = ERR_INIT;

	if (fd >= 0 && io_pwrite_full(fd, data, len, 0, &err) < 0) {
		close(fd);
		errno = err.sys ? err.sys : EIO;
		return -1;
	}
	return fd;
}

int proc_memfd_read(int fd, size_t max, char **data_r, size_t *len_r, struct err *err)
{
	struct stat st;
	int rc;

	*data_r = NULL;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size > max) {
		rc = err_set(err, ERR_LIMIT, "a message between processes is too large");
	} else {
		*data_r = mem_alloc((size_t)st.st_size + 1);
		*len_r = (size_t)st.st_size;
		rc = st.st_size ? io_pread_full(fd, *data_r, *len_r, 0, err) : 1;
		rc = rc == 1 ? 0 : rc < 0 ? rc : err_set(err, ERR_IO, "a message between processes is cut short");
		if (rc < 0) {
			free(*data_r);
			*data_r = NULL;
		}
	}
	close(fd);
	return rc;
}

void proc_raise_fd_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
}

int proc_become(const char *user, const char *group, struct err *err)
{
	struct passwd *pw;
	struct group *gr = NULL;
	gid_t gid;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(err, "no_new_privs", NULL);
	if (geteuid() != 0 || !user || !*user)
		return 0;
	pw = getpwnam(user);
	if (!pw)
		return err_set(err, ERR_NOTFOUND, "there is no user %s on this machine", user);
	if (group && *group && !(gr = getgrnam(group)))
		return err_set(err, ERR_NOTFOUND, "there is no group %s on this machine", group);
	gid = gr ? gr->gr_gid : pw->pw_gid;
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0)
		return err_errno(err, "becoming user", user);
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	return 0;
}

/* --- the control channel --- */

static void new_conf(struct proc *p, int fd)
{
	struct buf complaints = BUF_INIT(0);
	struct err err = ERR_INIT;
	struct conf old = p->conf, fresh;
	char *text;
	size_t len;

	if (proc_memfd_read(fd, CONF_MAX, &text, &len, &err) < 0) {
		log_event(LOG_ERROR, "cannot read new settings", LF_ERR(&err), LF_END);
		return;
	}
	if (conf_parse(text, &fresh, &complaints) < 0) {
		log_event(LOG_ERROR, "cannot use new settings", LF_S("why", buf_str(&complaints)), LF_END);
		conf_free(&fresh);
	} else {
		p->conf = fresh;
		log_set_level((enum log_level)p->conf.log_level);
		if (p->ops->conf)
			p->ops->conf(p, &old);
		conf_free(&old);
	}
	buf_free(&complaints);
	free(text);
}

static void new_log(struct proc *p, int fd)
{
	if (!strcmp(p->conf.log, "syslog")) {
		(void)dup3(fd, FD_SYSLOG, O_CLOEXEC);
		log_set_syslog(FD_SYSLOG);
	} else {
		(void)dup3(fd, 2, 0);
		log_set_syslog(-1);
	}
	close(fd);
}

static void new_peer(struct proc *p, struct rd *r, int fd)
{
	enum msg_role role = (enum msg_role)rd_8(r);
	unsigned index = rd_32(r);

	if (p->ops->peer && !r->failed)
		p->ops->peer(p, role, index, fd);
	else
		close(fd);
}

static void from_master(struct chan *ch, struct rd *r, int fd)
{
	struct proc *p = ch->owner;
	struct msg_conn m;
	unsigned type = rd_8(r);

	if (fd >= 0 && type == MSG_CONF)
		new_conf(p, fd);
	else if (fd >= 0 && type == MSG_LOG)
		new_log(p, fd);
	else if (fd >= 0 && type == MSG_PEER)
		new_peer(p, r, fd);
	else if (fd >= 0 && type == MSG_CERT && p->ops->cert)
		p->ops->cert(p, fd);
	else if (fd >= 0 && type == MSG_LISTEN && p->ops->listen)
		p->ops->listen(p, r, fd);
	else if (fd >= 0 && type == MSG_CONN && p->ops->conn && msg_conn_get(r, &m) == 0)
		p->ops->conn(p, &m, fd);
	else if (fd >= 0)
		close(fd);
	else if (type == MSG_GO && p->ops->go)
		p->ops->go(p);
	else if (type == MSG_STOP && p->ops->stop)
		p->ops->stop(p);
	else if (type == MSG_DRAIN && p->ops->drain)
		p->ops->drain(p);
}

static void master_gone(struct chan *ch)
{
	struct proc *p = ch->owner;

	log_event(LOG_ERROR, "the master process is gone: stopping", LF_END);
	chan_free(&p->ctl);
	if (p->ops->stop)
		p->ops->stop(p);
}

static const struct chan_ops ctl_ops = { from_master, master_gone };

static int read_conf(struct proc *p, struct err *err)
{
	struct buf complaints = BUF_INIT(0);
	char *text;
	size_t len;
	int rc = proc_memfd_read(FD_CONF, CONF_MAX, &text, &len, err);

	if (rc < 0)
		return rc;
	rc = conf_parse(text, &p->conf, &complaints);
	if (rc < 0) {
		err_set(err, rc, "settings: %s", buf_str(&complaints));
		conf_free(&p->conf);
	}
	buf_free(&complaints);
	free(text);
	return rc;
}

int proc_start(struct proc *p, enum msg_role role, unsigned index, unsigned generation, const struct proc_ops *ops, void *owner, struct err *err)
{
	char name[32];
	int rc;

	memset(p, 0, sizeof(*p));
	p->role = role;
	p->index = index;
	p->generation = generation;
	p->ops = ops;
	p->owner = owner;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);	/* both are for master; a terminal sends them to all */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	(void)fcntl(FD_CTL, F_SETFD, FD_CLOEXEC);
	rc = read_conf(p, err);
	if (rc < 0)
		return rc;
	snprintf(name, sizeof(name), role == ROLE_AUTH ? "%s" : "%s/%u", msg_role_name[role], index);
	log_init(name, (enum log_level)p->conf.log_level, (enum log_format)p->conf.log_format);
	if (!strcmp(p->conf.log, "syslog") && fcntl(FD_SYSLOG, F_SETFD, FD_CLOEXEC) == 0)
		log_set_syslog(FD_SYSLOG);
	proc_raise_fd_limit();
	if (loop_init(&p->loop) < 0)
		return err_errno(err, "epoll", NULL);
	p->ctl = chan_new(&p->loop, FD_CTL, &ctl_ops, p, 0);
	return p->ctl ? 0 : err_errno(err, "control channel", NULL);
}

void proc_tell(struct proc *p, enum msg_type what)
{
	struct buf b = BUF_INIT(64);

	buf_put8(&b, (uint8_t)what);
	if (p->ctl)
		(void)chan_send(p->ctl, &b, -1);
	buf_free(&b);
}

void proc_release(struct proc *p)
{
	chan_free(&p->ctl);
	loop_release(&p->loop);
	conf_free(&p->conf);
}
