/* Sealed bundles and message pieces.
 *
 * A bundle: 1 | nonce (24, random) | XChaCha20-Poly1305 ciphertext and tag,
 * with the object's own key name as associated data: no bundle can be taken
 * for another.
 *
 * A piece of a message: AES-256-GCM under the message's data key; the nonce is
 * the piece's number (8 bytes, little-endian) and four zero bytes.  Each
 * number is used once under a data key, which is random for each message. */
#include "crypt/seal-private.h"

#include <limits.h>
#include <openssl/evp.h>

enum { BUNDLE_XCHACHA = 1 };

int seal_bundle(const struct seal_keys *k, const char *aad, const void *plain, size_t len, struct buf *out, struct err *err)
{
	unsigned char *p = buf_reserve(out, len + SEAL_BUNDLE_OVERHEAD);

	if (!p)
		return err_set(err, ERR_LIMIT, "%s: bundle of %zu bytes is too large", aad, len);
	p[0] = BUNDLE_XCHACHA;
	randombytes_buf(p + 1, 24);
	crypto_aead_xchacha20poly1305_ietf_encrypt(p + 25, NULL, plain, len, (const unsigned char *)aad, strlen(aad), NULL, p + 1, k->index_key);
	out->len += len + SEAL_BUNDLE_OVERHEAD;
	return 0;
}

int seal_bundle_open(const struct seal_keys *k, const char *aad, const void *sealed, size_t len, struct buf *plain_r, struct err *err)
{
	const unsigned char *s = sealed;
	unsigned char *p;

	if (len < SEAL_BUNDLE_OVERHEAD || s[0] != BUNDLE_XCHACHA)
		return err_set(err, ERR_CORRUPT, "%s: not a sealed bundle", aad);
	p = buf_reserve(plain_r, len - SEAL_BUNDLE_OVERHEAD);
	if (!p)
		return err_set(err, ERR_LIMIT, "%s: bundle of %zu bytes is too large", aad, len);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(p, NULL, NULL, s + 25, len - 25, (const unsigned char *)aad, strlen(aad), s + 1, k->index_key) < 0)
		return err_set(err, ERR_CORRUPT, "%s: seal is broken (damaged, not this object, or another index key)", aad);
	plain_r->len += len - SEAL_BUNDLE_OVERHEAD;
	return 0;
}

void seal_dkey_random(struct seal_dkey *d)
{
	randombytes_buf(d->b, sizeof(d->b));
}

void seal_dkey_wipe(struct seal_dkey *d)
{
	sodium_memzero(d->b, sizeof(d->b));
}

/* --- pieces --- */

static pthread_key_t ctx_key;
static pthread_once_t ctx_once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *gcm;

static void free_ctx(void *ctx)
{
	EVP_CIPHER_CTX_free(ctx);
}

static void make_ctx_key(void)
{
	gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	if (!gcm || pthread_key_create(&ctx_key, free_ctx) != 0)
		abort();
}

/* One cipher context a thread: making one costs more than sealing a small piece. */
static EVP_CIPHER_CTX *thread_ctx(void)
{
	EVP_CIPHER_CTX *ctx;

	pthread_once(&ctx_once, make_ctx_key);
	ctx = pthread_getspecific(ctx_key);
	if (!ctx) {
		ctx = EVP_CIPHER_CTX_new();
		if (!ctx || pthread_setspecific(ctx_key, ctx) != 0)
			abort();
	}
	return ctx;
}

static void piece_nonce(uint64_t n, unsigned char nonce[12])
{
	int i;

	memset(nonce, 0, 12);
	for (i = 0; i < 8; i++)
		nonce[i] = (unsigned char)(n >> (8 * i));
}

int seal_piece(const struct seal_dkey *d, uint64_t n, const void *aad, size_t aad_len, const void *plain, size_t len, void *out, struct err *err)
{
	EVP_CIPHER_CTX *ctx = thread_ctx();
	unsigned char nonce[12], *o = out;
	int got = 0, fin = 0;

	piece_nonce(n, nonce);
	if (len > INT_MAX || aad_len > INT_MAX)
		return err_set(err, ERR_LIMIT, "seal: piece is too large");
	if (EVP_EncryptInit_ex2(ctx, gcm, d->b, nonce, NULL) != 1 ||
	    (aad_len && EVP_EncryptUpdate(ctx, NULL, &got, aad, (int)aad_len) != 1) ||
	    (len && EVP_EncryptUpdate(ctx, o, &got, plain, (int)len) != 1) ||
	    EVP_EncryptFinal_ex(ctx, o + len, &fin) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, SEAL_CHUNK_OVERHEAD, o + len) != 1)
		return err_set(err, ERR_INVALID, "seal: AES-256-GCM failed");
	return 0;
}

int seal_piece_open(const struct seal_dkey *d, uint64_t n, const void *aad, size_t aad_len, const void *sealed, size_t len, void *plain_r, struct err *err)
{
	EVP_CIPHER_CTX *ctx = thread_ctx();
	const unsigned char *s = sealed;
	unsigned char nonce[12], tag[SEAL_CHUNK_OVERHEAD], *o = plain_r;
	size_t body;
	int got = 0, fin = 0;

	if (len < SEAL_CHUNK_OVERHEAD || len > INT_MAX || aad_len > INT_MAX)
		return err_set(err, ERR_CORRUPT, "sealed piece has an impossible length");
	body = len - SEAL_CHUNK_OVERHEAD;
	memcpy(tag, s + body, sizeof(tag));
	piece_nonce(n, nonce);
	if (EVP_DecryptInit_ex2(ctx, gcm, d->b, nonce, NULL) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, SEAL_CHUNK_OVERHEAD, tag) != 1 ||
	    (aad_len && EVP_DecryptUpdate(ctx, NULL, &got, aad, (int)aad_len) != 1) ||
	    (body && EVP_DecryptUpdate(ctx, o, &got, s, (int)body) != 1) ||
	    EVP_DecryptFinal_ex(ctx, o + body, &fin) != 1) {
		sodium_memzero(o, body);	/* nothing is released before its tag was checked */
		return err_set(err, ERR_CORRUPT, "sealed piece is damaged");
	}
	return 0;
}
