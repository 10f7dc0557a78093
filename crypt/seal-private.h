/* seal-private - what the files of crypt/ share. */
#ifndef CRYPT_SEAL_PRIVATE_H
#define CRYPT_SEAL_PRIVATE_H
#include <pthread.h>
#include <sodium.h>

#include "base/clock.h"
#include "crypt/seal.h"

enum { SEAL_PAIRS_MAX = 64, SEAL_KEK_CACHE = 1024 };

struct seal_pair {
	unsigned char id[SEAL_KEYID_BYTES];
	unsigned char sk[32], pk[32];
};

struct seal_kek {	/* what ECDH gave for one ephemeral key */
	const struct seal_pair *pair;
	unsigned char epk[32], kek[32];
};

struct seal_keys {
	unsigned char index_key[SEAL_KEY_BYTES];
	struct seal_pair pairs[SEAL_PAIRS_MAX];	/* [0] is active */
	size_t n_pairs;
	bool has_active;
	pthread_mutex_t lock;	/* of all below */
	unsigned char eph_pk[32], eph_kek[32];
	int eph_uses;
	int64_t eph_until;
	struct seal_kek cache[SEAL_KEK_CACHE];
};
#endif
