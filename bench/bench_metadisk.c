/* bench_metadisk - what login and SELECT of a large mailbox cost, with and
 * without copies of its index on this machine's disk.
 *
 *   bench_metadisk [MESSAGES]     (default 100000)
 *
 * Each time a node starts anew, so nothing is in memory.  Stores: one in memory that takes 10 ms
 * for each request, as one over a network does, and a directory.  One line a measurement, the best of five. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "metacache/metadisk.h"
#include "obox/obox.h"
#include "objstore/objstore.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LATENCY_US = 10000, ROUNDS = 5, PART = 1000 };

static char dir[64];
static struct seal_keys *keys;

static _Noreturn void die(const struct err *err)
{
	fprintf(stderr, "bench_metadisk: %s\n", err->msg);
	exit(1);
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

/* --- a store that counts, and takes its time --- */

struct slow {
	struct objstore base;
	struct objstore *below;
	unsigned us, n;
};

static void slow_submit(struct objstore *base, struct objstore_op *op)
{
	struct slow *s = (struct slow *)base;

	s->n += op->verb != OBJ_SYNC;
	usleep(s->us);
	objstore_submit(s->below, op);
}

static const struct objstore_ops slow_ops = { .name = "slow", .submit = slow_submit };

/* --- a node --- */

static void node(struct slow *s, bool cached, void (*fn)(struct obox *ob, unsigned messages), unsigned messages)
{
	unsigned char key[METADISK_KEY_BYTES];
	char *sub = mem_printf("%s/metacache", dir), *state = mem_printf("%s/state", dir);
	struct metadisk_config mc = { .dir = sub, .bytes = UINT64_C(64) << 20, .key = key };
	struct obox_config cfg = { .state_dir = state, .mail_store = &s->base, .index_store = &s->base, .prefix = "", .node = "n", .keys = keys,
				   .grace_s = UINT64_MAX };
	struct err err = ERR_INIT;
	struct obox *ob;

	seal_derive(keys, METADISK_KEY_LABEL, key);
	if (cached && metadisk_open(&mc, &cfg.cache, &err) < 0)
		die(&err);
	if (obox_open(&cfg, &ob, &err) < 0)
		die(&err);
	fn(ob, messages);
	obox_close(&ob);
	metadisk_close(&cfg.cache);
	free(sub);
	free(state);
}

static void fill(struct obox *ob, unsigned messages)
{
	struct obox_save *s = mem_calloc(PART, sizeof(*s));
	struct obox_copy_result res;
	struct err err = ERR_INIT;
	struct obox_msgin *in;
	struct obox_user *u;
	struct obox_view *v;
	uint32_t x = 1, k, n = PART;

	if (obox_user_open(ob, "joe", &u, &err) < 0 || obox_msgin_new(ob, &in, &err) < 0 ||
	    obox_msgin_write(in, "Subject: x\r\n\r\ny\r\n", 17, &err) < 0 || obox_msgin_finish(in, &err) < 0)
		die(&err);
	for (k = 0; k < PART; k++) {
		x = x * 1664525 + 1013904223;
		s[k] = (struct obox_save){ .msg = in, .idate = 1700000000 + (x >> 8), .flags = x >> 28 & 1 };
	}
	if (obox_save(u, "INBOX", s, PART, NULL, &err) < 0)
		die(&err);
	for (; n < messages; n += k) {
		struct seqset uids = SEQSET_INIT;

		k = messages - n < n ? messages - n : n;
		seqset_add(&uids, 1, k);
		if (obox_view_open(u, "INBOX", false, NULL, NULL, &v, &err) < 0 || obox_copy(v, &uids, "INBOX", false, &res, &err) < 0)
			die(&err);
		obox_copy_result_free(&res);
		obox_view_close(&v);
		seqset_free(&uids);
	}
	obox_user_close(&u);
	obox_msgin_free(&in);
	free(s);
}

static double took;

static void login(struct obox *ob, unsigned messages)
{
	int64_t t = clock_mono_us(&clock_system);
	struct err err = ERR_INIT;
	struct obox_status st;
	struct obox_user *u;
	struct obox_view *v;

	if (obox_user_open(ob, "joe", &u, &err) < 0 || obox_view_open(u, "INBOX", false, NULL, NULL, &v, &err) < 0)
		die(&err);
	took = (double)(clock_mono_us(&clock_system) - t) / 1000;
	obox_view_status(v, &st);
	if (st.messages != messages)
		die(&(struct err){ .msg = "not all of them" });
	obox_view_close(&v);
	obox_user_close(&u);
}

static void nothing(struct obox *ob, unsigned messages)
{
}

static unsigned requests(struct slow *s, bool cached, void (*fn)(struct obox *ob, unsigned messages), unsigned messages)
{
	unsigned before = s->n;

	node(s, cached, fn, messages);
	return s->n - before;
}

static void measure(const char *what, struct slow *s, bool cached, unsigned messages)
{
	unsigned n = 0, i;
	double best = 0;

	for (i = 0; i < ROUNDS; i++) {
		n = requests(s, cached, login, messages) - requests(s, cached, nothing, messages) - 1;	/* the release */
		if (!i || took < best)
			best = took;
	}
	printf("%-44s %u requests  %8.2f ms\n", what, n, best);
}

static void store(const char *name, struct objstore *below, unsigned us, unsigned messages)
{
	struct slow s = { .base = { &slow_ops, below->caps }, .below = below };
	char what[64];

	node(&s, true, fill, messages);	/* and what it uploads is cached */
	s.us = us;
	snprintf(what, sizeof(what), "%s, nothing on the disk", name);
	measure(what, &s, false, messages);
	snprintf(what, sizeof(what), "%s, cached on the disk", name);
	measure(what, &s, true, messages);
}

int main(int argc, char **argv)
{
	long messages = argc > 1 ? strtol(argv[1], NULL, 10) : 100000;
	struct objstore *mem = objstore_mem_new(), *posix;
	struct err err = ERR_INIT;
	char *path;

	log_set_level(LOG_ERROR);
	snprintf(dir, sizeof(dir), "/var/tmp/bench_metadisk.XXXXXX");
	if (messages < PART || messages > 10000000 || !mkdtemp(dir)) {
		fputs("usage: bench_metadisk [MESSAGES], 1000 to 10000000\n", stderr);
		return 2;
	}
	keys = seal_keys_ephemeral();
	path = mem_printf("%s/store", dir);
	store("10 ms for each request", mem, LATENCY_US, (unsigned)messages);
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	if (mkdir(dir, 0700) < 0)
		return 1;
	if (objstore_posix_open(path, &posix, &err) < 0)
		die(&err);
	store("a directory", posix, 0, (unsigned)messages);
	objstore_close(&posix);
	objstore_close(&mem);
	seal_keys_free(&keys);
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	free(path);
	return 0;
}
