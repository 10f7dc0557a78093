/* Packing: zstd where it makes data smaller.  One context a thread, freed with it. */
#include "obox/obox-private.h"

#include <zstd.h>

enum { ZSTD_LEVEL = 1 };

static pthread_key_t cctx_key, dctx_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_cctx(void *p)
{
	ZSTD_freeCCtx(p);
}

static void free_dctx(void *p)
{
	ZSTD_freeDCtx(p);
}

static void make_keys(void)
{
	if (pthread_key_create(&cctx_key, free_cctx) != 0 || pthread_key_create(&dctx_key, free_dctx) != 0)
		abort();
}

static ZSTD_CCtx *cctx(void)
{
	ZSTD_CCtx *c;

	pthread_once(&once, make_keys);
	c = pthread_getspecific(cctx_key);
	if (!c) {
		c = ZSTD_createCCtx();
		if (!c || pthread_setspecific(cctx_key, c) != 0)
			abort();
	}
	return c;
}

static ZSTD_DCtx *dctx(void)
{
	ZSTD_DCtx *c;

	pthread_once(&once, make_keys);
	c = pthread_getspecific(dctx_key);
	if (!c) {
		c = ZSTD_createDCtx();
		if (!c || pthread_setspecific(dctx_key, c) != 0)
			abort();
	}
	return c;
}

size_t pack_bound(size_t len)
{
	return ZSTD_compressBound(len);
}

bool pack_zstd(const void *data, size_t len, void *out, size_t cap, size_t *len_r)
{
	size_t n = ZSTD_compressCCtx(cctx(), out, cap, data, len, ZSTD_LEVEL);

	if (ZSTD_isError(n) || n >= len)
		return false;
	*len_r = n;
	return true;
}

int unpack_zstd(const void *data, size_t len, void *out, size_t plain_len, struct err *err)
{
	size_t n = ZSTD_decompressDCtx(dctx(), out, plain_len, data, len);

	if (ZSTD_isError(n) || n != plain_len)
		return err_set(err, ERR_CORRUPT, "packed data does not unpack to %zu bytes", plain_len);
	return 0;
}
