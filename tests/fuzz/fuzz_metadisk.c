/* A cache of indexes somebody wrote into: patches of its file, a file that ends early, a file of any bytes.  The first
 * byte chooses.  Whatever is there, what is read of the user's mailboxes is what the store has. */
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "metacache/metadisk.h"
#include "obox/obox.h"
#include "objstore/objstore.h"

#include <fcntl.h>
#include <ftw.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { MESSAGES = 300, BOXES = 5 };
static char dir[64];
static struct buf image = BUF_INIT(0), now = BUF_INIT(0);
static struct objstore *store;
static struct seal_keys *keys;
static struct obox_cache *cache;
static struct obox *ob;

static char *path_of(const char *name)
{
	return mem_printf("%s/%s", dir, name);
}

static void start(void)
{
	unsigned char key[METADISK_KEY_BYTES];
	char *sub = path_of("metacache"), *state = path_of("state");
	struct metadisk_config mc = { .dir = sub, .bytes = METADISK_BYTES_MIN, .key = key };
	struct obox_config cfg = { .state_dir = state, .mail_store = store, .index_store = store, .prefix = "", .node = "n", .keys = keys, .grace_s = UINT64_MAX };

	seal_derive(keys, METADISK_KEY_LABEL, key);
	if (metadisk_open(&mc, &cache, NULL) < 0)
		abort();
	cfg.cache = cache;
	if (obox_open(&cfg, &ob, NULL) < 0)
		abort();
	free(sub);
	free(state);
}

static void stop(void)
{
	obox_close(&ob);
	metadisk_close(&cache);
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static void clean_up(void)
{
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *box_name(unsigned i)
{
	static char name[16];

	snprintf(name, sizeof(name), i ? "box%u" : "INBOX", i);
	return name;
}

static void save_all(struct obox_user *u)
{
	struct obox_save s[MESSAGES];
	struct obox_msgin *in;
	unsigned i, k;

	if (obox_msgin_new(ob, &in, NULL) < 0 || obox_msgin_write(in, "Subject: x\r\n\r\ny\r\n", 17, NULL) < 0 || obox_msgin_finish(in, NULL) < 0)
		abort();
	for (i = 0; i < BOXES; i++) {
		for (k = 0; k < MESSAGES; k++)
			s[k] = (struct obox_save){ .msg = in, .idate = 1000 + (int64_t)(k * k * (i + 1)), .flags = k % 31 };
		if ((i && obox_mailbox_create(u, box_name(i), 0, NULL) < 0) || obox_save(u, box_name(i), s, MESSAGES, NULL, NULL) < 0)
			abort();
	}
	obox_msgin_free(&in);
}

/* A user with some mailboxes, and the cache as a node leaves it, kept in image. */
static void prepare(void)
{
	struct obox_user *u;
	char *path, *text;
	size_t len;

	log_set_level(LOG_ERROR + 1);
	snprintf(dir, sizeof(dir), "%s/fuzz_metadisk.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(dir))
		abort();
	atexit(clean_up);
	store = objstore_mem_new();
	keys = seal_keys_ephemeral();
	start();
	if (obox_user_open(ob, "joe", &u, NULL) < 0)
		abort();
	save_all(u);
	obox_user_close(&u);
	stop();
	path = path_of("metacache/metacache.db");
	if (io_read_file(path, 1 << 20, &text, &len, NULL) < 0)
		abort();
	buf_add(&image, text, len);
	free(text);
	free(path);
}

static void make_file(const uint8_t *data, size_t len)
{
	struct rd r = rd_init(data, len);
	char *path = path_of("metacache/metacache.db");
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	unsigned how = rd_8(&r) % 3;

	buf_clear(&now);
	if (how == 0)
		buf_add(&now, r.p, rd_left(&r));
	else
		buf_add(&now, image.data, image.len);
	if (how == 2)
		buf_truncate(&now, rd_32(&r) % image.len);
	while (how && now.len && rd_left(&r) >= 5) {
		uint32_t at = rd_32(&r);

		now.data[at % now.len] ^= rd_8(&r);
	}
	if (fd < 0 || io_write_full(fd, now.data, now.len, NULL) < 0)
		abort();
	close(fd);
	free(path);
}

static bool not_these(void *ctx, const char *name)
{
	return false;
}

static void read_all(void)
{
	struct obox_msg m[MESSAGES];
	struct obox_user *u;
	struct obox_view *v;
	unsigned i, k;

	if (obox_user_open(ob, "joe", &u, NULL) < 0)
		abort();
	for (i = 0; i < BOXES; i++) {
		if (obox_view_open(u, box_name(i), true, NULL, NULL, &v, NULL) < 0 || obox_view_read(v, 1, m, MESSAGES) != MESSAGES)
			abort();
		for (k = 0; k < MESSAGES; k++)
			if (m[k].uid != k + 1 || m[k].flags != k % 31 || m[k].idate != 1000 + (int64_t)(k * k * (i + 1)))
				abort();
		obox_view_close(&v);
	}
	obox_user_close(&u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct metadisk_stats st;

	if (!store)
		prepare();
	make_file(data, len);
	start();
	read_all();
	cache->ops->put(cache, "ann", "idx/user/1.1", data, len);
	cache->ops->tend(cache);
	cache->ops->keep(cache, "ann", not_these, NULL);
	metadisk_stats(cache, &st);
	stop();
	return 0;
}
