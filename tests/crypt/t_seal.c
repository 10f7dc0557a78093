/* Sealing: what goes in comes out, and nothing else is accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "crypt/seal.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static void bundles_open_under_their_own_name_only(void **state)
{
	struct seal_keys *k = seal_keys_ephemeral(), *other = seal_keys_ephemeral();
	struct buf sealed = BUF_INIT(0), plain = BUF_INIT(0);
	struct err err = ERR_INIT;
	size_t i;

	assert_int_equal(seal_bundle(k, "u/joe/root", "secret text", 11, &sealed, &err), 0);
	assert_int_equal(sealed.len, 11 + SEAL_BUNDLE_OVERHEAD);
	assert_null(memmem(sealed.data, sealed.len, "secret", 6));
	assert_int_equal(seal_bundle_open(k, "u/joe/root", sealed.data, sealed.len, &plain, &err), 0);
	assert_int_equal(plain.len, 11);
	assert_memory_equal(plain.data, "secret text", 11);
	assert_int_equal(seal_bundle_open(k, "u/ann/root", sealed.data, sealed.len, &plain, NULL), ERR_CORRUPT);
	assert_int_equal(seal_bundle_open(other, "u/joe/root", sealed.data, sealed.len, &plain, NULL), ERR_CORRUPT);
	for (i = 0; i < sealed.len; i++) {	/* every bit counts, every cut is noticed */
		sealed.data[i] ^= 1;
		assert_int_equal(seal_bundle_open(k, "u/joe/root", sealed.data, sealed.len, &plain, NULL), ERR_CORRUPT);
		sealed.data[i] ^= 1;
		assert_int_equal(seal_bundle_open(k, "u/joe/root", sealed.data, i, &plain, NULL), ERR_CORRUPT);
	}
	buf_free(&sealed);
	buf_free(&plain);
	seal_keys_free(&k);
	seal_keys_free(&other);
}

static void data_keys_unwrap_in_their_own_context_only(void **state)
{
	struct seal_keys *k = seal_keys_ephemeral(), *other = seal_keys_ephemeral();
	unsigned char w[SEAL_WRAP_BYTES], w2[SEAL_WRAP_BYTES];
	struct err err = ERR_INIT;
	struct seal_dkey d, got;
	size_t i;

	for (i = 0; i < 3000; i++) {	/* over several ephemeral keys */
		seal_dkey_random(&d);
		assert_int_equal(seal_wrap(k, "m/1-1", &d, w, &err), 0);
		assert_int_equal(seal_unwrap(k, "m/1-1", w, &got, &err), 0);
		assert_memory_equal(d.b, got.b, sizeof(d.b));
	}
	assert_int_equal(seal_wrap(k, "m/1-1", &d, w2, &err), 0);
	assert_memory_not_equal(w, w2, sizeof(w));
	assert_int_equal(seal_unwrap(k, "m/1-2", w, &got, NULL), ERR_CORRUPT);
	assert_int_equal(seal_unwrap(other, "m/1-1", w, &got, NULL), ERR_DENIED);
	for (i = 0; i < sizeof(w); i++) {
		w[i] ^= 0x40;
		assert_true(seal_unwrap(k, "m/1-1", w, &got, NULL) < 0);
		w[i] ^= 0x40;
	}
	seal_keys_free(&k);
	seal_keys_free(&other);
}

static void pieces_cannot_change_places(void **state)
{
	unsigned char out[64 + SEAL_CHUNK_OVERHEAD], plain[64], text[64] = "piece";
	struct err err = ERR_INIT;
	struct seal_dkey d;
	size_t i;

	seal_dkey_random(&d);
	assert_int_equal(seal_piece(&d, 3, "head", 4, text, sizeof(text), out, &err), 0);
	assert_int_equal(seal_piece_open(&d, 3, "head", 4, out, sizeof(out), plain, &err), 0);
	assert_memory_equal(text, plain, sizeof(text));
	assert_int_equal(seal_piece_open(&d, 4, "head", 4, out, sizeof(out), plain, NULL), ERR_CORRUPT);
	assert_int_equal(seal_piece_open(&d, 3, "HEAD", 4, out, sizeof(out), plain, NULL), ERR_CORRUPT);
	for (i = 0; i < sizeof(out); i++) {
		out[i] ^= 1;
		memset(plain, 'x', sizeof(plain));
		assert_int_equal(seal_piece_open(&d, 3, "head", 4, out, sizeof(out), plain, NULL), ERR_CORRUPT);
		assert_int_equal(plain[0], 0);	/* nothing is released */
		out[i] ^= 1;
	}
	assert_int_equal(seal_piece_open(&d, 3, "head", 4, out, 5, plain, NULL), ERR_CORRUPT);
	assert_int_equal(seal_piece(&d, 5, NULL, 0, "", 0, out, &err), 0);
	assert_int_equal(seal_piece_open(&d, 5, NULL, 0, out, SEAL_CHUNK_OVERHEAD, plain, &err), 0);
}

/* The vector of docs/format.md, so that the algorithm is what the document says. */
static void a_piece_has_the_documented_bytes(void **state)
{
	static const unsigned char want[] = {
		0x8a, 0x49, 0xee, 0x53, 0xcb, 0x90, 0x4c, 0x97, 0xf7, 0xf6, 0xfc, 0xd0, 0xe2, 0x27, 0xaf, 0x7e,
		0x72, 0x8b, 0x1b, 0x00, 0x85,
	};
	struct err err = ERR_INIT;
	unsigned char out[5 + SEAL_CHUNK_OVERHEAD];
	struct seal_dkey d;
	size_t i;

	for (i = 0; i < sizeof(d.b); i++)
		d.b[i] = (unsigned char)i;
	assert_int_equal(seal_piece(&d, 1, "culver", 6, "hello", 5, out, &err), 0);
	assert_int_equal(sizeof(want), sizeof(out));
	assert_memory_equal(out, want, sizeof(out));
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static void key_files_are_made_once_and_checked(void **state)
{
	char dir[] = "/tmp/t_seal.XXXXXX", path[64];
	struct seal_keys *a, *b;
	struct buf sealed = BUF_INIT(0), plain = BUF_INIT(0);
	struct err err = ERR_INIT;
	struct stat st;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/master.key", dir);
	assert_true(seal_keys_open(dir, false, &a, NULL) < 0);
	assert_int_equal(seal_keys_open(dir, true, &a, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(seal_keys_open(dir, true, &b, &err), 0);
	assert_int_equal(seal_bundle(a, "x", "y", 1, &sealed, &err), 0);
	assert_int_equal(seal_bundle_open(b, "x", sealed.data, sealed.len, &plain, &err), 0);
	seal_keys_free(&a);
	seal_keys_free(&b);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(seal_keys_open(dir, true, &a, &err), ERR_DENIED);
	assert_non_null(strstr(err.msg, "chmod 600"));
	assert_int_equal(chmod(path, 0600), 0);
	fd = open(path, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "nonsense\n", 9), 9);
	close(fd);
	err_clear(&err);
	assert_int_equal(seal_keys_open(dir, true, &a, &err), ERR_CORRUPT);
	assert_non_null(strstr(err.msg, "master.key:4"));
	buf_free(&sealed);
	buf_free(&plain);
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bundles_open_under_their_own_name_only),
		cmocka_unit_test(data_keys_unwrap_in_their_own_context_only),
		cmocka_unit_test(pieces_cannot_change_places),
		cmocka_unit_test(a_piece_has_the_documented_bytes),
		cmocka_unit_test(key_files_are_made_once_and_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
