/* culver-sim: worlds by their seeds, each in a process of its own (so that a crash of the
 * code under test is a finding like any other, and memory is bounded), one a processor at a time. */
#include "tests/sim/model.h"

#include "base/io.h"

#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { JOBS_MAX = 64, TRACE_LINES = 60 };
extern char sim_dir[64];

static struct options {
	uint64_t from, to;
	unsigned steps, jobs, seconds;
	bool trace, keep_going, quiet;
	size_t lines;
} opt = { 1, 100, 500, 0, 0, false, false, false, TRACE_LINES };

struct job { pid_t pid; int fd; uint64_t seed; };

#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0:detect_stack_use_after_return=0";	/* the dead leave everything behind */
}
#endif

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static void child(uint64_t seed, int fd)
{
	struct sim_result r;

	snprintf(sim_dir, sizeof(sim_dir), "/tmp/culver-sim.%d", (int)getpid());
	mkdir(sim_dir, 0700);
	trace_live = opt.trace;
	world_run(seed, opt.steps, &r);
	if (r.promise >= 0 && !opt.quiet && !opt.trace)
		trace_print(2, opt.lines);
	(void)!write(fd, &r, sizeof(r));
	nftw(sim_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}

static void start_job(struct job *j, uint64_t seed)
{
	int fds[2];

	if (pipe(fds) < 0)
		exit(2);
	fflush(stdout);
	j->seed = seed;
	j->pid = fork();
	if (j->pid < 0)
		exit(2);
	if (j->pid == 0) {
		close(fds[0]);
		child(seed, fds[1]);
	}
	close(fds[1]);
	j->fd = fds[0];
}

static void crashed(struct job *j, int status, struct sim_result *r)
{
	char dir[64];

	memset(r, 0, sizeof(*r));
	r->promise = 0;
	snprintf(r->text, sizeof(r->text), "the code crashed (%s %d)", WIFSIGNALED(status) ? "signal" : "status",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	snprintf(dir, sizeof(dir), "/tmp/culver-sim.%d", (int)j->pid);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Waits for any job; its result. */
static void finish_job(struct job *jobs, size_t n, struct sim_result *r, uint64_t *seed)
{
	int status;
	pid_t pid = wait(&status);
	size_t i;

	for (i = 0; i < n && jobs[i].pid != pid; i++)
		;
	if (i == n)
		exit(2);
	if (read(jobs[i].fd, r, sizeof(*r)) != (ssize_t)sizeof(*r))
		crashed(&jobs[i], status, r);
	close(jobs[i].fd);
	*seed = jobs[i].seed;
	jobs[i].pid = 0;
}

static void add(struct sim_result *sum, const struct sim_result *r)
{
	sum->steps += r->steps;
	sum->switches += r->switches;
	sum->requests += r->requests;
	sum->faults += r->faults;
	sum->acked += r->acked;
	sum->failed += r->failed;
	sum->checks += r->checks;
	sum->lives += r->lives;
	sum->virtual_us += r->virtual_us;
	sum->probes.passed += r->probes.passed;
	sum->probes.refused += r->probes.refused;
	sum->probes.unfinished += r->probes.unfinished;
}

static void tell(const struct sim_result *r, uint64_t seed)
{
	printf("seed %" PRIu64 " step %" PRIu64 ": promise %d: %s\n", seed, r->steps, r->promise, r->text);
	printf("  again: tests/sim/culver-sim --seeds %" PRIu64 " --steps %u%s%s%s%s --trace\n", seed, opt.steps, sim_break ? " --break " : "", sim_break ? sim_break : "",
	       sim_store < 0 ? "" : " --store ", sim_store < 0 ? "" : sim_store == STORE_KINDS ? "any" : store_kinds[sim_store]);
	fflush(stdout);
}

/* The number of seeds with a violation; *first: how many were run until then. */
static uint64_t run(struct sim_result *sum, uint64_t *seeds)
{
	struct job jobs[JOBS_MAX] = { { 0 } };
	int64_t end = opt.seconds ? time(NULL) + opt.seconds : INT64_MAX;
	uint64_t next = opt.from, bad = 0, seed;
	struct sim_result r;
	size_t running = 0, i;

	while (running || next <= opt.to) {
		for (i = 0; i < opt.jobs && next <= opt.to && time(NULL) < end && (!bad || opt.keep_going); i++)
			if (!jobs[i].pid) {
				start_job(&jobs[i], next++);
				running++;
			}
		if (!running)
			break;
		finish_job(jobs, opt.jobs, &r, &seed);
		running--;
		(*seeds)++;
		add(sum, &r);
		if (r.promise >= 0) {
			bad++;
			tell(&r, seed);
		}
	}
	return bad;
}

static int usage(void)
{
	fprintf(stderr, "usage: culver-sim [--seeds A-B] [--steps N] [--break NAME] [--store KIND|any] [--trace] [--keep-going] [--jobs N] [--seconds N] [--lines N] [--quiet]\n");
	return 2;
}

static int kind_named(const char *name)
{
	int i = 0;

	while (store_kinds[i] && strcmp(store_kinds[i], name) != 0)
		i++;
	return store_kinds[i] || !strcmp(name, "any") ? i : -1;	/* any: the number of kinds */
}

static int parse(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++) {
		const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
		char *rest;

		if (!strcmp(a, "--trace")) {
			opt.trace = true;
		} else if (!strcmp(a, "--keep-going")) {
			opt.keep_going = true;
		} else if (!strcmp(a, "--quiet")) {
			opt.quiet = true;
		} else if (!v) {
			return -1;
		} else {
			i++;
			if (!strcmp(a, "--seeds")) {
				opt.from = opt.to = strtoull(v, &rest, 10);
				if (*rest == '-')
					opt.to = strtoull(rest + 1, NULL, 10);
			} else if (!strcmp(a, "--steps")) {
				opt.steps = (unsigned)strtoul(v, NULL, 10);
			} else if (!strcmp(a, "--break")) {
				sim_break = v;
			} else if (!strcmp(a, "--store")) {
				sim_store = kind_named(v);
				if (sim_store < 0)
					return -1;
			} else if (!strcmp(a, "--jobs")) {
				opt.jobs = (unsigned)strtoul(v, NULL, 10);
			} else if (!strcmp(a, "--seconds")) {
				opt.seconds = (unsigned)strtoul(v, NULL, 10);
			} else if (!strcmp(a, "--lines")) {
				opt.lines = strtoul(v, NULL, 10);
			} else {
				return -1;
			}
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct sim_result sum = { .steps = 0 };
	uint64_t bad, seeds = 0;
	int64_t start = time(NULL);

	if (parse(argc, argv) < 0)
		return usage();
	if (!opt.jobs)
		opt.jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	if (opt.jobs > JOBS_MAX || opt.trace)
		opt.jobs = opt.trace ? 1 : JOBS_MAX;
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 4096, 4096 });
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	rnd_install();	/* before anything is random, hash tables too */
	rnd_seed(0);
	bad = run(&sum, &seeds);
	printf("%" PRIu64 " seeds, %" PRIu64 " steps in %d s: %" PRIu64 " with a violation\n", seeds, sum.steps, (int)(time(NULL) - start), bad);
	if (seeds)
		printf("  %" PRIu64 " changes acknowledged, %" PRIu64 " failed, %" PRIu64 " readings, %" PRIu64 " requests (%" PRIu64 " with faults), %" PRIu64
		       " lives, %" PRIu64 " switches, %.1f h of virtual time\n", sum.acked, sum.failed, sum.checks, sum.requests, sum.faults, sum.lives,
		       sum.switches, (double)sum.virtual_us / 3.6e9);
	if (seeds)
		printf("  probes: %" PRIu64 " passed the store, %" PRIu64 " refused it, %" PRIu64 " could not be finished\n", sum.probes.passed, sum.probes.refused, sum.probes.unfinished);
	return bad ? 1 : 0;
}
