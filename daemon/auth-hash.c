#include "daemon/auth-db.h"

#include "base/err.h"
#include "base/mem.h"

#include <crypt.h>
#include <ctype.h>
#include <sodium.h>

int auth_hash_make(const char *password, char out[AUTH_HASH_MAX], struct err *err)
{
	size_t len = strlen(password);

	if (!len || len > AUTH_PASSWORD_MAX)
		return err_set(err, ERR_INVALID, "a password has 1 to %d bytes", AUTH_PASSWORD_MAX);
	if (crypto_pwhash_str_alg(out, password, len, crypto_pwhash_OPSLIMIT_INTERACTIVE, crypto_pwhash_MEMLIMIT_INTERACTIVE,
				  crypto_pwhash_ALG_ARGON2ID13) < 0)
		return err_set(err, ERR_LIMIT, "hashing the password: not enough memory");
	return 0;
}

/* "{ARGON2ID}$argon2id$..." is how other servers write it. */
static const char *without_scheme(const char *hash)
{
	static const char *const known[] = { "{ARGON2ID}", "{ARGON2I}", "{CRYPT}", "{BLF-CRYPT}", "{SHA512-CRYPT}", "{SHA256-CRYPT}", "{MD5-CRYPT}", "{DES-CRYPT}" };
	size_t i;

	for (i = 0; i < MEM_COUNT(known); i++)
		if (!strncasecmp(hash, known[i], strlen(known[i])))
			return hash + strlen(known[i]);
	return hash;
}

static bool is_argon2(const char *hash)
{
	return !strncmp(hash, "$argon2", 7);
}

bool auth_hash_known(const char *hash)
{
	const char *h = without_scheme(hash);

	if (strlen(hash) >= AUTH_HASH_MAX)
		return false;
	if (is_argon2(h))
		return strlen(h) < crypto_pwhash_STRBYTES && crypto_pwhash_str_needs_rehash(h, crypto_pwhash_OPSLIMIT_INTERACTIVE, crypto_pwhash_MEMLIMIT_INTERACTIVE) >= 0;
	return crypt_checksalt(h) == CRYPT_SALT_OK || crypt_checksalt(h) == CRYPT_SALT_METHOD_LEGACY;
}

/* The lengths are no secret: they tell the scheme alone. */
static int same(const char *a, const char *b)
{
	size_t len = strlen(a);

	return len == strlen(b) && sodium_memcmp(a, b, len) == 0;
}

int auth_hash_verify(const char *hash, const char *password, struct err *err)
{
	const char *h = without_scheme(hash), *got;
	struct crypt_data *data;
	int rc;

	if (is_argon2(h)) {
		char str[crypto_pwhash_STRBYTES] = { 0 };

		if (strlen(h) >= sizeof(str))
			return err_set(err, ERR_INVALID, "the password hash is too long");
		memcpy(str, h, strlen(h));
		return crypto_pwhash_str_verify(str, password, strlen(password)) == 0;
	}
	data = mem_alloc(sizeof(*data));
	got = crypt_rn(password, h, data, (int)sizeof(*data));
	rc = got ? same(got, h) : err_set(err, ERR_INVALID, "the password hash is of no scheme that is known here");
	sodium_memzero(data, sizeof(*data));
	free(data);
	return rc;
}

int auth_name(const char *in, char out[AUTH_NAME_MAX + 1], struct err *err)
{
	size_t i, len = strlen(in);

	if (!len || len > AUTH_NAME_MAX)
		return err_set(err, ERR_INVALID, "a user name has 1 to %d bytes", AUTH_NAME_MAX);
	for (i = 0; i < len; i++) {
		unsigned char c = (unsigned char)in[i];

		if (c <= ' ' || c == 0x7f)
			return err_set(err, ERR_INVALID, "a user name has no spaces and control characters");
		out[i] = (char)(c < 0x80 ? tolower(c) : c);
	}
	out[len] = '\0';
	return 0;
}
