/* read_message MASTER.KEY OBJECT KEY - a reader of message objects written from docs/format.md
 * alone: it uses nothing of Culver.  The message goes to standard output. */
#include <openssl/evp.h>
#include <sodium.h>
#include <stdint.h>
#include <zstd.h>

enum { CHUNK = 131072 };

static void die(const char *why)
{
	fprintf(stderr, "read_message: %s\n", why);
	exit(1);
}

static unsigned char *slurp(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	unsigned char *p = NULL;
	size_t n;

	for (*len = 0; f; *len += n) {
		p = realloc(p, *len + 65536);
		if (!p || !(n = fread(p + *len, 1, 65535, f)))
			break;
	}
	if (!f || !p)
		die("cannot read a file");
	p[*len] = '\0';
	fclose(f);
	return p;
}

static uint32_t le32(const unsigned char *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Section 1: the active message key, then the data key. */
static void unwrap(const char *keys, const char *name, const unsigned char *w, unsigned char dkey[32])
{
	unsigned char sk[32], pk[32], id[32], shared[32], kek[32];
	const char *line = strstr(keys, "message active ");
	crypto_generichash_state st;
	size_t n;

	if (!line || sodium_base642bin(sk, 32, line + 15, 44, NULL, &n, NULL, sodium_base64_VARIANT_ORIGINAL) || n != 32)
		die("no active message key");
	crypto_scalarmult_base(pk, sk);
	crypto_hash_sha256(id, pk, 32);
	if (w[0] != 1 || memcmp(w + 1, id, 8) || crypto_scalarmult(shared, sk, w + 9))
		die("wrapped for another key");
	crypto_generichash_init(&st, shared, 32, 32);
	crypto_generichash_update(&st, (const unsigned char *)"culver wrap 1", 13);
	crypto_generichash_update(&st, w + 9, 32);
	crypto_generichash_update(&st, pk, 32);
	crypto_generichash_final(&st, kek, 32);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(dkey, NULL, NULL, w + 65, 48, (const unsigned char *)name, strlen(name), w + 41, kek))
		die("data key is damaged");
}

static void open_piece(const unsigned char dkey[32], uint64_t n, const unsigned char *aad, const unsigned char *in, size_t len, unsigned char *out)
{
	unsigned char nonce[12] = { 0 }, tag[16];
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int i, got;

	for (i = 0; i < 8; i++)
		nonce[i] = (unsigned char)(n >> (8 * i));
	memcpy(tag, in + len - 16, 16);
	if (EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, dkey, nonce) != 1 || EVP_DecryptUpdate(c, NULL, &got, aad, 36) != 1 ||
	    EVP_DecryptUpdate(c, out, &got, in, (int)len - 16) != 1 || EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, 16, tag) != 1 ||
	    EVP_DecryptFinal_ex(c, out + got, &i) != 1)
		die("a piece is damaged");
	EVP_CIPHER_CTX_free(c);
}

int main(int argc, char **argv)
{
	static unsigned char sealed[CHUNK + 64], plain[CHUNK];
	const unsigned char *table, *at;
	unsigned char *keys, *o, dkey[32];
	size_t len;
	uint32_t i, n;

	if (argc != 4 || sodium_init() < 0)
		die("usage: read_message MASTER.KEY OBJECT KEY");
	keys = slurp(argv[1], &len);
	o = slurp(argv[2], &len);
	if (len < 153 || memcmp(o, "CULM\1\1", 6))
		die("not a message object of version 1");
	unwrap((const char *)keys, argv[3], o + 36, dkey);
	n = le32(o + 16);
	table = o + 153 + le32(o + 149) + le32(o + 24);
	at = table + 8 * (size_t)n;
	for (i = 0; i < n; i++) {
		uint32_t want = le32(table + 8 * i), stored = le32(table + 8 * i + 4), size = want & 0x3fffffff;

		if (stored > CHUNK + 16 || at + stored > o + len)
			die("a chunk is cut");
		open_piece(dkey, i, o, at, stored, sealed);
		if (!(want & 0x40000000))
			memcpy(plain, sealed, size);
		else if (ZSTD_decompress(plain, CHUNK, sealed, stored - 16) != size)
			die("a chunk does not unpack");
		fwrite(plain, 1, size, stdout);
		at += stored;
	}
	free(keys);
	free(o);
	return 0;
}
