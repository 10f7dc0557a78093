/* A cache directory somebody wrote into: patches of the catalogue and the
 * data, a catalogue of any bytes, rows of any values.  The first byte chooses.
 * Whatever is there, what is read are the store's bytes. */
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "fscache/fscache.h"

#include <fcntl.h>
#include <ftw.h>
#include <sqlite3.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { OBJECTS = 6 };
static const size_t sizes[OBJECTS] = { 1, 600, 5000, 32768, 40000, 100000 };
static char dir[64];
static struct buf image[2] = { BUF_INIT(0), BUF_INIT(0) };
static const char *const names[2] = { "catalogue.db", "data.00" };

static void object(unsigned n, char key[64], unsigned char *bytes)
{
	size_t i;

	snprintf(key, 64, "u/x/joe/m/%u", n);
	for (i = 0; i < sizes[n]; i++)
		bytes[i] = (unsigned char)(i * 31 + i / 253 + n);
}

static struct objstore *open_cache(void)
{
	static unsigned char bytes[100000];
	struct fscache_config cfg = { .dir = dir, .bytes = FSCACHE_BYTES_MIN, .cacheable = fscache_keys_mail };
	struct objstore *mem = objstore_mem_new(), *s;
	char key[64];
	unsigned n;

	for (n = 0; n < OBJECTS; n++) {
		object(n, key, bytes);
		if (objstore_put(mem, key, bytes, sizes[n], OBJ_CREATE, NULL, NULL) < 0)
			abort();
	}
	if (fscache_open(mem, &cfg, &s, NULL) < 0)
		abort();
	return s;
}

static void read_all(struct objstore *s)
{
	static unsigned char bytes[100000];
	char key[64];
	unsigned n;

	for (n = 0; n < OBJECTS; n++) {
		struct buf b = BUF_INIT(0);
		uint64_t size = 0;

		object(n, key, bytes);
		if (objstore_get_range(s, key, 0, 0, &b, &size, NULL) < 0 || size != sizes[n] || b.len != size || memcmp(b.data, bytes, b.len) != 0)
			abort();
		buf_free(&b);
	}
}

static void file_write(const char *name, const void *p, size_t len)
{
	char *path = mem_printf("%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	free(path);
	if (fd < 0 || io_write_full(fd, p, len, NULL) < 0)
		abort();
	close(fd);
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static void clean_up(void)
{
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A directory as a cache leaves it, kept in image. */
static void prepare(void)
{
	struct objstore *s;
	int i;

	log_init("fuzz", LOG_ERROR, LOG_FMT_TEXT);
	snprintf(dir, sizeof(dir), "%s/fuzz_fscache.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");	/* a clean stop syncs */
	if (!mkdtemp(dir))
		abort();
	atexit(clean_up);
	s = open_cache();
	read_all(s);
	objstore_close(&s);
	for (i = 0; i < 2; i++) {
		char *path = mem_printf("%s/%s", dir, names[i]), *text;
		size_t len;

		if (io_read_file(path, 8 << 20, &text, &len, NULL) < 0)
			abort();
		if (i == 1 && len > 400000)
			len = 400000;
		buf_add(&image[i], text, len);
		free(text);
		free(path);
	}
}

static void patched(struct rd *r)
{
	struct buf copy[2] = { BUF_INIT(0), BUF_INIT(0) };
	int i;

	for (i = 0; i < 2; i++)
		buf_add(&copy[i], image[i].data, image[i].len);
	while (rd_left(r) >= 6) {
		struct buf *b = &copy[rd_8(r) & 1];
		uint32_t at = rd_32(r);

		b->data[at % b->len] ^= rd_8(r);
	}
	for (i = 0; i < 2; i++) {
		file_write(names[i], copy[i].data, copy[i].len);
		buf_free(&copy[i]);
	}
}

/* Values of any kind into the columns of a row that is there. */
static void rows(struct rd *r)
{
	static const char *const columns[] = { "n", "obj", "block", "size", "len", "tag", "owner", "queue", "freq", "used", "at" };
	struct sqlite3 *db;
	char *path = mem_printf("%s/%s", dir, names[0]);

	file_write(names[0], image[0].data, image[0].len);
	file_write(names[1], image[1].data, image[1].len);
	if (sqlite3_open(path, &db) != SQLITE_OK)
		abort();
	while (rd_left(r) >= 3) {
		unsigned c = rd_8(r) % 11, row = rd_8(r) % 12, kind = rd_8(r) % 4;
		size_t len = rd_left(r) < 8 ? rd_left(r) : 8;
		uint64_t v = 0;
		const void *p = rd_bytes(r, len);
		char *sql = sqlite3_mprintf("UPDATE OR IGNORE block SET %s = ?1 WHERE rowid = (SELECT rowid FROM block LIMIT 1 OFFSET %u)", columns[c], row);
		sqlite3_stmt *st = NULL;

		memcpy(&v, p, len);
		if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK) {
			if (kind == 0)
				sqlite3_bind_int64(st, 1, (sqlite3_int64)v);
			else if (kind == 1)
				sqlite3_bind_int64(st, 1, (sqlite3_int64)(v % 300));
			else if (kind == 2)
				sqlite3_bind_blob(st, 1, p, (int)len, SQLITE_TRANSIENT);
			sqlite3_step(st);
		}
		sqlite3_finalize(st);
		sqlite3_free(sql);
	}
	sqlite3_close(db);
	free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct rd r = rd_init(data, len);
	struct objstore *s;
	int i;

	if (!dir[0])
		prepare();
	switch (rd_8(&r) % 3) {
	case 0:
		patched(&r);
		break;
	case 1:
		file_write(names[0], len ? data + 1 : data, len ? len - 1 : 0);
		break;
	default:
		rows(&r);
	}
	for (i = 0; i < 2; i++) {
		s = open_cache();
		read_all(s);
		read_all(s);
		objstore_close(&s);
	}
	return 0;
}
