/* The deployment's key file, and wrapping of data keys.
 *
 * master.key is text, mode 0600, one key a line:
 *     culver-keys 1
 *     index <base64 of 32 bytes>
 *     message active <base64 of the X25519 private key>
 *     message old <base64 ...>			any number
 *
 * A wrapped data key (version and byte order: docs/format.md):
 *     0  1   1 = X25519, BLAKE2b-256, XChaCha20-Poly1305
 *     1  8   key id: SHA-256 of the recipient's public key, first bytes
 *     9  32  ephemeral public key
 *    41  24  nonce, random
 *    65  48  data key, encrypted, with its tag; associated data: the context
 * under  BLAKE2b-256(key = shared point, "culver wrap 1" | ephemeral | recipient). */
#include "crypt/seal-private.h"

#include "base/b64.h"
#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRAP_X25519 = 1, EPHEMERAL_USES = 1024, EPHEMERAL_US = 3600 * 1000000LL, KEY_FILE_MAX = 64 * 1024 };

static void kek_of(const unsigned char shared[32], const unsigned char epk[32], const unsigned char pk[32], unsigned char kek[32])
{
	static const char label[] = "culver wrap 1";
	crypto_generichash_state st;

	crypto_generichash_init(&st, shared, 32, 32);
	crypto_generichash_update(&st, (const unsigned char *)label, sizeof(label) - 1);
	crypto_generichash_update(&st, epk, 32);
	crypto_generichash_update(&st, pk, 32);
	crypto_generichash_final(&st, kek, 32);
	sodium_memzero(&st, sizeof(st));
}

static void pair_init(struct seal_pair *p)
{
	unsigned char h[crypto_hash_sha256_BYTES];

	crypto_scalarmult_base(p->pk, p->sk);
	crypto_hash_sha256(h, p->pk, sizeof(p->pk));
	memcpy(p->id, h, sizeof(p->id));
}

static struct seal_keys *keys_new(void)
{
	struct seal_keys *k;

	if (sodium_init() < 0)
		abort();
	k = sodium_malloc(sizeof(*k));
	if (!k)
		abort();
	memset(k, 0, sizeof(*k));
	pthread_mutex_init(&k->lock, NULL);
	return k;
}

void seal_keys_free(struct seal_keys **k)
{
	if (*k) {
		pthread_mutex_destroy(&(*k)->lock);
		sodium_free(*k);	/* wipes */
	}
	*k = NULL;
}

struct seal_keys *seal_keys_ephemeral(void)
{
	struct seal_keys *k = keys_new();

	randombytes_buf(k->index_key, sizeof(k->index_key));
	randombytes_buf(k->pairs[0].sk, sizeof(k->pairs[0].sk));
	pair_init(&k->pairs[0]);
	k->n_pairs = 1;
	return k;
}

void seal_derive(const struct seal_keys *k, const char *label, unsigned char out[SEAL_KEY_BYTES])
{
	crypto_generichash(out, SEAL_KEY_BYTES, (const unsigned char *)label, strlen(label), k->index_key, sizeof(k->index_key));
}

static int take_key(const char *text, unsigned char out[32])
{
	struct buf b = BUF_INIT(64);
	int rc = b64_decode(&b, text, strlen(text));

	if (rc == 0 && b.len == 32)
		memcpy(out, b.data, 32);
	else
		rc = -1;
	if (b.data)
		sodium_memzero(b.data, b.cap);
	buf_free(&b);
	return rc;
}

static int parse_line(struct seal_keys *k, const char *line, int n, bool *has_index)
{
	bool active = !strncmp(line, "message active ", 15);

	if (n == 1)
		return strcmp(line, "culver-keys 1") ? -1 : 0;
	if (!*line || *line == '#')
		return 0;
	if (!strncmp(line, "index ", 6) && !*has_index) {
		*has_index = true;
		return take_key(line + 6, k->index_key);
	}
	if (!active && strncmp(line, "message old ", 12) != 0)
		return -1;
	if (k->n_pairs == SEAL_PAIRS_MAX || (active && k->n_pairs && k->has_active))
		return -1;
	if (take_key(line + (active ? 15 : 12), k->pairs[k->n_pairs].sk) < 0)
		return -1;
	pair_init(&k->pairs[k->n_pairs++]);
	if (active) {	/* the active one is always the first */
		struct seal_pair p = k->pairs[0];

		k->pairs[0] = k->pairs[k->n_pairs - 1];
		k->pairs[k->n_pairs - 1] = p;
		k->has_active = true;
		sodium_memzero(&p, sizeof(p));
	}
	return 0;
}

static int parse_file(struct seal_keys *k, const char *path, char *text, struct err *err)
{
	char *line = text, *end;
	bool has_index = false;
	int n = 0;

	for (; *line; line = end) {
		size_t len = strcspn(line, "\n");

		end = line + len + (line[len] == '\n');
		line[len] = '\0';
		if (parse_line(k, line, ++n, &has_index) < 0)
			return err_set(err, ERR_CORRUPT, "%s:%d: not a key line (\"index KEY\", \"message active KEY\" or \"message old KEY\")", path, n);
	}
	if (!has_index || !k->has_active)
		return err_set(err, ERR_CORRUPT, "%s: %s key is missing; restore the file from your backup: mail cannot be read without it",
			       path, has_index ? "the active message" : "the index");
	return 0;
}

static int create_file(const char *path, struct err *err)
{
	unsigned char raw[2][32];
	struct buf b = BUF_INIT(4096);
	int fd, rc;

	randombytes_buf(raw, sizeof(raw));
	buf_adds(&b, "culver-keys 1\nindex ");
	b64_encode(&b, raw[0], 32);
	buf_adds(&b, "\nmessage active ");
	b64_encode(&b, raw[1], 32);
	buf_adds(&b, "\n");
	sodium_memzero(raw, sizeof(raw));
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		rc = errno == EEXIST ? 0 : err_errno(err, "create key file", path);
	} else {
		rc = io_write_full(fd, b.data, b.len, err);
		if (rc == 0 && fsync(fd) < 0)
			rc = err_errno(err, "sync key file", path);
		close(fd);
	}
	sodium_memzero(b.data, b.cap);
	buf_free(&b);
	return rc;
}

/* Writes beside the final name and links, so that two first starts at once
 * agree and a crash leaves no half file. */
static int create_once(const char *dir, const char *path, struct err *err)
{
	char *tmp = mem_printf("%s/.master.key.%d", dir, (int)getpid());
	int rc = create_file(tmp, err), fd;

	if (rc == 0 && link(tmp, path) < 0 && errno != EEXIST)
		rc = err_errno(err, "create key file", path);
	unlink(tmp);
	free(tmp);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		if (fsync(fd) < 0 && rc == 0)
			rc = err_errno(err, "sync directory", dir);
		close(fd);
	}
	return rc;
}

int seal_keys_open(const char *dir, bool create, struct seal_keys **k_r, struct err *err)
{
	char *path = mem_printf("%s/master.key", dir), *text = NULL;
	struct seal_keys *k = keys_new();
	struct stat st;
	size_t len = 0;
	int rc = 0;

	*k_r = NULL;
	if (stat(path, &st) < 0 && errno == ENOENT && create) {
		rc = io_mkdirs(dir, 0700, err);
		if (rc == 0)
			rc = create_once(dir, path, err);
	}
	if (rc == 0 && access(path, F_OK) < 0 && errno == ENOENT)
		rc = err_set(err, ERR_NOTFOUND, "%s is missing; restore it from your backup: the mail in the store cannot be read without it", path);
	if (rc == 0)
		rc = io_read_file(path, KEY_FILE_MAX, &text, &len, err);
	if (rc == 0 && stat(path, &st) == 0 && (st.st_mode & 077))
		rc = err_set(err, ERR_DENIED, "%s: others may read it (mode %03o); run: chmod 600 %s", path, (unsigned)st.st_mode & 0777, path);
	if (rc == 0)
		rc = parse_file(k, path, text, err);
	if (text) {
		sodium_memzero(text, len);
		free(text);
	}
	free(path);
	if (rc < 0)
		seal_keys_free(&k);
	*k_r = k;
	return rc;
}

/* --- wrapping --- */

static int ephemeral_refresh(struct seal_keys *k, struct err *err)
{
	unsigned char esk[32], shared[32];
	int64_t now = clock_mono_us(&clock_system);
	int rc = 0;

	if (k->eph_uses > 0 && now < k->eph_until) {
		k->eph_uses--;
		return 0;
	}
	randombytes_buf(esk, sizeof(esk));
	crypto_scalarmult_base(k->eph_pk, esk);
	if (crypto_scalarmult(shared, esk, k->pairs[0].pk) != 0)
		rc = err_set(err, ERR_INVALID, "wrap: the message public key is not usable");
	else
		kek_of(shared, k->eph_pk, k->pairs[0].pk, k->eph_kek);
	sodium_memzero(esk, sizeof(esk));
	sodium_memzero(shared, sizeof(shared));
	k->eph_uses = rc == 0 ? EPHEMERAL_USES - 1 : 0;
	k->eph_until = now + EPHEMERAL_US;
	return rc;
}

int seal_wrap(const struct seal_keys *ck, const char *context, const struct seal_dkey *d, unsigned char out[SEAL_WRAP_BYTES], struct err *err)
{
	struct seal_keys *k = (struct seal_keys *)(uintptr_t)ck;	/* the cache inside is locked */
	unsigned char kek[32];
	int rc;

	pthread_mutex_lock(&k->lock);
	rc = ephemeral_refresh(k, err);
	memcpy(out + 9, k->eph_pk, 32);
	memcpy(kek, k->eph_kek, 32);
	pthread_mutex_unlock(&k->lock);
	if (rc < 0)
		return rc;
	out[0] = WRAP_X25519;
	memcpy(out + 1, k->pairs[0].id, SEAL_KEYID_BYTES);
	randombytes_buf(out + 41, 24);
	crypto_aead_xchacha20poly1305_ietf_encrypt(out + 65, NULL, d->b, sizeof(d->b), (const unsigned char *)context, strlen(context),
						   NULL, out + 41, kek);
	sodium_memzero(kek, sizeof(kek));
	return 0;
}

static const struct seal_pair *find_pair(const struct seal_keys *k, const unsigned char id[SEAL_KEYID_BYTES])
{
	size_t i;

	for (i = 0; i < k->n_pairs; i++)
		if (!memcmp(k->pairs[i].id, id, SEAL_KEYID_BYTES))
			return &k->pairs[i];
	return NULL;
}

/* The key-encryption key for one ephemeral key, from the cache or computed. */
static int unwrap_kek(struct seal_keys *k, const struct seal_pair *pair, const unsigned char epk[32], unsigned char kek[32])
{
	struct seal_kek *slot = &k->cache[(epk[0] | epk[1] << 8) % SEAL_KEK_CACHE];
	unsigned char shared[32];
	bool found;
	int rc;

	pthread_mutex_lock(&k->lock);
	found = slot->pair == pair && !memcmp(slot->epk, epk, 32);
	if (found)
		memcpy(kek, slot->kek, 32);
	pthread_mutex_unlock(&k->lock);
	if (found)
		return 0;
	rc = crypto_scalarmult(shared, pair->sk, epk);
	if (rc == 0) {
		kek_of(shared, epk, pair->pk, kek);
		pthread_mutex_lock(&k->lock);
		slot->pair = pair;
		memcpy(slot->epk, epk, 32);
		memcpy(slot->kek, kek, 32);
		pthread_mutex_unlock(&k->lock);
	}
	sodium_memzero(shared, sizeof(shared));
	return rc;
}

int seal_unwrap(const struct seal_keys *ck, const char *context, const unsigned char in[SEAL_WRAP_BYTES], struct seal_dkey *d_r, struct err *err)
{
	struct seal_keys *k = (struct seal_keys *)(uintptr_t)ck;
	const struct seal_pair *pair = find_pair(k, in + 1);
	unsigned char kek[32];
	char id[2 * SEAL_KEYID_BYTES + 1];
	int rc = 0;

	if (in[0] != WRAP_X25519)
		return err_set(err, ERR_CORRUPT, "%s: data key wrapped by unknown algorithm %d", context, in[0]);
	if (!pair) {
		hex_encode(id, in + 1, SEAL_KEYID_BYTES);
		return err_set(err, ERR_DENIED, "%s: needs message key %s, which master.key does not hold", context, id);
	}
	if (unwrap_kek(k, pair, in + 9, kek) < 0 ||
	    crypto_aead_xchacha20poly1305_ietf_decrypt(d_r->b, NULL, NULL, in + 65, SEAL_KEY_BYTES + 16, (const unsigned char *)context, strlen(context),
						       in + 41, kek) < 0)
		rc = err_set(err, ERR_CORRUPT, "%s: wrapped data key is damaged", context);
	sodium_memzero(kek, sizeof(kek));
	return rc;
}
