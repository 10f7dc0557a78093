/* What the gate gives up before it accepts the first connection: privileges,
 * the file system, and every system call it does not need. */
#include "daemon/gate.h"

#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <seccomp.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const int allowed[] = {
	SCMP_SYS(accept4), SCMP_SYS(brk), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(close), SCMP_SYS(dup3),
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_wait), SCMP_SYS(exit), SCMP_SYS(exit_group),
	SCMP_SYS(fcntl), SCMP_SYS(fstat), SCMP_SYS(futex), SCMP_SYS(getpeername), SCMP_SYS(getpid), SCMP_SYS(getrandom), SCMP_SYS(getsockname),
	SCMP_SYS(getsockopt), SCMP_SYS(gettid), SCMP_SYS(gettimeofday), SCMP_SYS(lseek), SCMP_SYS(madvise), SCMP_SYS(mmap), SCMP_SYS(mprotect),
	SCMP_SYS(mremap), SCMP_SYS(munmap), SCMP_SYS(newfstatat), SCMP_SYS(pread64), SCMP_SYS(read), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg),
	SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sendmsg), SCMP_SYS(sendto),
	SCMP_SYS(setsockopt), SCMP_SYS(shutdown), SCMP_SYS(socketpair), SCMP_SYS(tgkill), SCMP_SYS(time), SCMP_SYS(write), SCMP_SYS(writev),
	SCMP_SYS(poll), SCMP_SYS(rseq), SCMP_SYS(set_robust_list), SCMP_SYS(sigaltstack),
};

/* Other calls fail with EPERM: no new files, sockets, processes or programs. */
static int filter(struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	size_t i;
	int rc = ctx ? 0 : -ENOMEM;

	for (i = 0; rc == 0 && i < MEM_COUNT(allowed); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	if (rc == 0)
		rc = seccomp_load(ctx);
	seccomp_release(ctx);
	if (rc < 0)
		return err_set(err, ERR_UNAVAILABLE, "system call filter: %s", strerror(-rc));
	return 0;
}

/* The user must be looked up while there is a file system to do it in. */
static int imprison(const struct conf *c, struct err *err)
{
	char *dir = mem_printf("%s/empty", c->run_dir);
	struct passwd *pw = getpwnam(c->gate_user);
	int rc;

	if (!pw) {
		free(dir);
		return err_set(err, ERR_NOTFOUND, "gate_user: there is no user %s on this machine", c->gate_user);
	}
	rc = io_mkdirs(dir, 0755, err);
	if (rc == 0 && (chroot(dir) < 0 || chdir("/") < 0))
		rc = err_errno(err, "chroot", dir);
	free(dir);
	if (rc == 0 && (setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 || setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0))
		rc = err_errno(err, "becoming user", c->gate_user);
	return rc;
}

int gate_sandbox(const struct conf *c, struct err *err)
{
	struct err soft = ERR_INIT;
	int rc = 0;

	if (geteuid() == 0 && *c->gate_user) {
		if (setgroups(0, NULL) < 0)
			return err_errno(err, "setgroups", NULL);
		rc = imprison(c, err);
	}
	if (rc == 0)
		rc = proc_become(NULL, NULL, err);	/* no new privileges */
	/* A kernel without filters is no reason not to serve mail. */
	if (rc == 0 && !SANITIZED && filter(&soft) < 0)
		log_event(LOG_WARN, "the gate runs without a system call filter", LF_ERR(&soft), LF_END);
	return rc;
}
