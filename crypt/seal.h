/* seal - authenticated encryption at rest: keys, wrapped data keys, sealed
 * bundles and message chunks.
 *
 * Prefix seal_, because the system owns crypt*().  No algorithm knobs: the
 * algorithm is a tag in the format.  Nothing is released before its tag was
 * checked.  Nonces are this room's business alone.
 * Threads: handles are read-only after they were made; any thread. */
#ifndef CRYPT_SEAL_H
#define CRYPT_SEAL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum {
	SEAL_KEY_BYTES = 32,		/* data keys, index keys */
	SEAL_KEYID_BYTES = 8,		/* first bytes of SHA-256 of the public key */
	SEAL_BUNDLE_OVERHEAD = 1 + 24 + 16,
	SEAL_CHUNK_OVERHEAD = 16,
	SEAL_WRAP_BYTES = 1 + 8 + 32 + 24 + 32 + 16	/* algorithm, key id, ephemeral public key, nonce, data key, tag */
};

/* The deployment's keys: index key (symmetric) and message keypairs (X25519),
 * one active and any number of old ones.  Secrets are locked and wiped. */
struct seal_keys;
/* Reads dir/master.key (mode 0600), creating a fresh one when the directory
 * holds none and create is set. */
int seal_keys_open(const char *dir, bool create, struct seal_keys **k_r, struct err *err);
struct seal_keys *seal_keys_ephemeral(void);	/* random, for tests */
void seal_keys_free(struct seal_keys **k);
/* A key for another purpose, named by label (at most 32 bytes): BLAKE2b-256(key = index key, label). */
void seal_derive(const struct seal_keys *k, const char *label, unsigned char out[SEAL_KEY_BYTES]);

/* --- bundles: everything but message objects --- */
/* Appends tag | nonce | ciphertext | tag to out.  aad: the object's own key name. */
int seal_bundle(const struct seal_keys *k, const char *aad, const void *plain, size_t len, struct buf *out, struct err *err);
int seal_bundle_open(const struct seal_keys *k, const char *aad, const void *sealed, size_t len, struct buf *plain_r, struct err *err);

/* --- messages --- */
struct seal_dkey { unsigned char b[SEAL_KEY_BYTES]; };	/* one message's data key */
void seal_dkey_random(struct seal_dkey *d);
void seal_dkey_wipe(struct seal_dkey *d);
/* Wraps d to the active public key (ECDH with an ephemeral key); context (the
 * object's key name) is bound in.  An ephemeral key serves up to an hour or
 * 1024 wraps, each with a random nonce of its own, so that a delivery does not
 * cost two point multiplications; its private half is wiped at once. */
int seal_wrap(const struct seal_keys *k, const char *context, const struct seal_dkey *d, unsigned char out[SEAL_WRAP_BYTES], struct err *err);
int seal_unwrap(const struct seal_keys *k, const char *context, const unsigned char in[SEAL_WRAP_BYTES], struct seal_dkey *d_r, struct err *err);
/* Piece n of what is under d: chunks of the body are 0.., the summary is SEAL_PIECE_SUMMARY.
 * out has room for len + SEAL_CHUNK_OVERHEAD; each (d, n) is sealed once in its life. */
#define SEAL_PIECE_SUMMARY UINT64_C(0xffffffff00000000)
int seal_piece(const struct seal_dkey *d, uint64_t n, const void *aad, size_t aad_len, const void *plain, size_t len, void *out, struct err *err);
int seal_piece_open(const struct seal_dkey *d, uint64_t n, const void *aad, size_t aad_len, const void *sealed, size_t len, void *plain_r, struct err *err);
#endif
