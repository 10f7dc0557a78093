#include "bench/load.h"

#include "base/mem.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

double load_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void load_stat_add(struct load_stat *s, double seconds)
{
	mem_grow(&s->v, &s->cap, s->n + 1, sizeof(*s->v));
	s->v[s->n++] = seconds;
}

void load_stat_join(struct load_stat *to, struct load_stat *from)
{
	size_t i;

	for (i = 0; i < from->n; i++)
		load_stat_add(to, from->v[i]);
	to->bytes += from->bytes;
	to->errors += from->errors;
	free(from->v);
	memset(from, 0, sizeof(*from));
}

/* --- the server's processes --- */
struct proc {
	pid_t pid, parent;
	bool in;
	double cpu;	/* its own and that of children it has waited for */
};

static bool read_proc(pid_t pid, struct proc *p)
{
	char path[64], text[1024], *at;
	unsigned long long ut, st, cut, cst;
	int parent;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	at = strrchr(text, ')');	/* the name may hold anything */
	if (!at || sscanf(at + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu", &parent, &ut, &st, &cut, &cst) != 5)
		return false;
	p->pid = pid;
	p->parent = parent;
	p->in = false;
	p->cpu = (double)(ut + st + cut + cst) / (double)sysconf(_SC_CLK_TCK);
	return true;
}

/* All processes; those below root are marked. */
static size_t read_tree(pid_t root, struct proc **procs_r)
{
	DIR *d = opendir("/proc");
	struct proc *v = NULL, p;
	size_t n = 0, cap = 0, i, k;
	struct dirent *e;
	bool again = true;

	while (d && (e = readdir(d))) {
		long pid = strtol(e->d_name, NULL, 10);

		if (pid > 0 && read_proc((pid_t)pid, &p)) {
			mem_grow(&v, &cap, n + 1, sizeof(*v));
			v[n++] = p;
		}
	}
	if (d)
		closedir(d);
	for (i = 0; i < n; i++)
		v[i].in = v[i].pid == root;
	while (again) {
		again = false;
		for (i = 0; i < n; i++)
			for (k = 0; !v[i].in && k < n; k++)
				if (v[k].in && v[k].pid == v[i].parent)
					again = v[i].in = true;
	}
	*procs_r = v;
	return n;
}

static uint64_t read_pss(pid_t pid)
{
	char path[64], line[256];
	unsigned long long kb = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "Pss:", 4))
			kb = strtoull(line + 4, NULL, 10);
	fclose(f);
	return kb * 1024;
}

uint64_t load_tree_pss(pid_t root, unsigned *processes_r)
{
	struct proc *v = NULL;
	size_t n = root ? read_tree(root, &v) : 0, i;
	uint64_t sum = 0;

	*processes_r = 0;
	for (i = 0; i < n; i++)
		if (v[i].in) {
			sum += read_pss(v[i].pid);
			++*processes_r;
		}
	free(v);
	return sum;
}

double load_tree_cpu(pid_t root)
{
	struct proc *v = NULL;
	size_t n = root ? read_tree(root, &v) : 0, i;
	double sum = 0;

	for (i = 0; i < n; i++)
		if (v[i].in)
			sum += v[i].cpu;
	free(v);
	return sum;
}

static double machine_busy(void)
{
	unsigned long long v[8] = { 0 };
	FILE *f = fopen("/proc/stat", "re");
	int n;

	if (!f)
		return 0;
	n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]);
	fclose(f);
	return n == 8 ? (double)(v[0] + v[1] + v[2] + v[5] + v[6]) / (double)sysconf(_SC_CLK_TCK) : 0;
}

void load_usage(const struct load_opts *o, struct load_usage *u)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	u->self = (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
	u->server = load_tree_cpu(o->pid);
	u->busy = machine_busy();
	u->when = load_now();
}

/* --- output --- */
static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double percentile(const struct load_stat *s, double p)
{
	return s->n ? s->v[(size_t)(p * (double)(s->n - 1) + 0.5)] * 1000 : 0;
}

static void add_text(struct buf *b, const char *name, const char *s)
{
	buf_addf(b, ",\"%s\":\"", name);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_addc(b, '\\');
		if ((unsigned char)*s >= ' ')
			buf_addc(b, *s);
	}
	buf_addc(b, '"');
}

void load_report(const struct load_opts *o, const char *bench, struct load_stat *s, const struct load_usage *from, const struct load_usage *to, const char *extra)
{
	struct buf b = BUF_INIT(0);
	double secs = to->when - from->when, self = to->self - from->self, server = to->server - from->server, other = to->busy - from->busy - self - server;

	if (s->n)
		qsort(s->v, s->n, sizeof(*s->v), by_value);
	buf_addf(&b, "{\"bench\":\"%s\"", bench);
	add_text(&b, "label", o->label);
	add_text(&b, "op", *o->op ? o->op : bench);
	buf_addf(&b, ",\"conns\":%u,\"users\":%u,\"size\":%u,\"n\":%zu,\"errors\":%llu,\"secs\":%.4f,\"rate\":%.2f,\"mb_s\":%.3f",
		 o->conns, o->users, o->size, s->n, (unsigned long long)s->errors, secs, secs > 0 ? (double)s->n / secs : 0,
		 secs > 0 ? (double)s->bytes / secs / 1e6 : 0);
	buf_addf(&b, ",\"min_ms\":%.4f,\"p50_ms\":%.4f,\"p95_ms\":%.4f,\"p99_ms\":%.4f,\"max_ms\":%.4f", percentile(s, 0), percentile(s, .5),
		 percentile(s, .95), percentile(s, .99), percentile(s, 1));
	buf_addf(&b, ",\"client_cpu\":%.2f,\"other_cpu\":%.2f", self, other > 0 ? other : 0);
	if (o->pid)
		buf_addf(&b, ",\"server_cpu\":%.2f", server);
	buf_addf(&b, "%s}\n", extra ? extra : "");
	fputs(buf_str(&b), stdout);
	fflush(stdout);
	buf_free(&b);
}

/* --- threads --- */
struct thread {
	pthread_t id;
	void (*fn)(void *ctx, unsigned i, struct load_stat *s);
	void *ctx;
	unsigned i;
	struct load_stat stat;
};

static void *thread_main(void *ctx)
{
	struct thread *t = (struct thread *)ctx;

	t->fn(t->ctx, t->i, &t->stat);
	return NULL;
}

void load_threads(unsigned conns, void (*fn)(void *ctx, unsigned i, struct load_stat *s), void *ctx, struct load_stat *all)
{
	struct thread *t = (struct thread *)mem_calloc(conns, sizeof(*t));
	unsigned i;

	for (i = 0; i < conns; i++) {
		t[i].fn = fn;
		t[i].ctx = ctx;
		t[i].i = i;
		if (pthread_create(&t[i].id, NULL, thread_main, &t[i]))
			load_fail("no more threads");
	}
	for (i = 0; i < conns; i++) {
		pthread_join(t[i].id, NULL);
		load_stat_join(all, &t[i].stat);
	}
	free(t);
}
