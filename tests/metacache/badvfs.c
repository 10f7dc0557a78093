#include "tests/metacache/badvfs.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <string.h>

struct bad_file {
	sqlite3_file base;
	int kind;		/* 0 database, 1 journal */
	sqlite3_file *real;
};

int64_t badvfs_peak;
int badvfs_fail_at, badvfs_fail_code, badvfs_calls;
static int64_t size_of[2];
static sqlite3_vfs *below, bad;

static int failing(void)
{
	return badvfs_fail_at && ++badvfs_calls >= badvfs_fail_at ? badvfs_fail_code : SQLITE_OK;
}

static void sized(int kind, int64_t to)
{
	size_of[kind] = to;
	if (size_of[0] + size_of[1] > badvfs_peak)
		badvfs_peak = size_of[0] + size_of[1];
}

static sqlite3_file *real(sqlite3_file *f)
{
	return ((struct bad_file *)f)->real;
}

static int bad_close(sqlite3_file *f)
{
	return real(f)->pMethods->xClose(real(f));
}

static int bad_read(sqlite3_file *f, void *p, int n, sqlite3_int64 off)
{
	int rc = failing();

	return rc ? SQLITE_IOERR_READ : real(f)->pMethods->xRead(real(f), p, n, off);
}

static int bad_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 off)
{
	int kind = ((struct bad_file *)f)->kind, rc = failing();

	if (rc)
		return rc;
	if (off + n > size_of[kind])
		sized(kind, off + n);
	return real(f)->pMethods->xWrite(real(f), p, n, off);
}

static int bad_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	int rc = failing();

	if (rc)
		return SQLITE_IOERR_TRUNCATE;
	sized(((struct bad_file *)f)->kind, size);
	return real(f)->pMethods->xTruncate(real(f), size);
}

static int bad_sync(sqlite3_file *f, int flags)
{
	return failing() ? SQLITE_IOERR_FSYNC : real(f)->pMethods->xSync(real(f), flags);
}

static int bad_size(sqlite3_file *f, sqlite3_int64 *size)
{
	return real(f)->pMethods->xFileSize(real(f), size);
}

static int bad_lock(sqlite3_file *f, int how)
{
	return real(f)->pMethods->xLock(real(f), how);
}

static int bad_unlock(sqlite3_file *f, int how)
{
	return real(f)->pMethods->xUnlock(real(f), how);
}

static int bad_reserved(sqlite3_file *f, int *out)
{
	return real(f)->pMethods->xCheckReservedLock(real(f), out);
}

static int bad_control(sqlite3_file *f, int op, void *arg)
{
	return real(f)->pMethods->xFileControl(real(f), op, arg);
}

static int bad_sector(sqlite3_file *f)
{
	return real(f)->pMethods->xSectorSize(real(f));
}

static int bad_traits(sqlite3_file *f)
{
	return real(f)->pMethods->xDeviceCharacteristics(real(f));
}

static const sqlite3_io_methods methods = { .iVersion = 1, .xClose = bad_close, .xRead = bad_read, .xWrite = bad_write, .xTruncate = bad_truncate,
	.xSync = bad_sync, .xFileSize = bad_size, .xLock = bad_lock, .xUnlock = bad_unlock, .xCheckReservedLock = bad_reserved,
	.xFileControl = bad_control, .xSectorSize = bad_sector, .xDeviceCharacteristics = bad_traits };

static int bad_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *f, int flags, int *out)
{
	struct bad_file *b = (struct bad_file *)f;
	sqlite3_int64 size = 0;
	int rc;

	memset(b, 0, sizeof(*b));
	b->real = (sqlite3_file *)(b + 1);
	b->kind = (flags & SQLITE_OPEN_MAIN_JOURNAL) != 0;
	rc = failing() ? SQLITE_CANTOPEN : below->xOpen(below, name, b->real, flags, out);
	if (rc == SQLITE_OK) {
		f->pMethods = &methods;
		b->real->pMethods->xFileSize(b->real, &size);
		sized(b->kind, size);
	}
	return rc;
}

void badvfs_install(void)
{
	below = sqlite3_vfs_find(NULL);
	bad = *below;
	bad.zName = "bad";
	bad.szOsFile = (int)sizeof(struct bad_file) + below->szOsFile;
	bad.xOpen = bad_open;
	bad.pNext = NULL;
	sqlite3_vfs_register(&bad, 1);
}

void badvfs_reset(void)
{
	badvfs_fail_at = badvfs_calls = 0;
	badvfs_peak = 0;
	size_of[0] = size_of[1] = 0;
}
