#include "objstore/sproxyd-text.h"

#include "base/b64.h"
#include "base/mem.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <sodium.h>

enum { KEY_BYTES = 20, PAYLOAD = 16, USERMD_MAX = 4096, DEPTH_MAX = 6 };
#define FIELD_NAME "culver-name"
#define FIELD_TOKEN "culver-put"

/* --- keys --- */

void sproxyd_key(const char *name, unsigned service, unsigned class, char out[SPROXYD_KEY])
{
	unsigned char key[KEY_BYTES], hash[32], reversed[PAYLOAD], md5[EVP_MAX_MD_SIZE];
	size_t i;

	crypto_generichash(hash, sizeof(hash), (const unsigned char *)name, strlen(name), NULL, 0);
	memcpy(key + 3, hash, 12);
	key[15] = (unsigned char)service;
	memcpy(key + 16, hash + 12, 3);
	key[19] = (unsigned char)(class << 4);
	/* little-endian payload, little-endian digest: the order of Scality's clients */
	for (i = 0; i < PAYLOAD; i++)
		reversed[i] = key[3 + PAYLOAD - 1 - i];
	EVP_Digest(reversed, sizeof(reversed), md5, NULL, EVP_md5(), NULL);
	for (i = 0; i < 3; i++)
		key[i] = md5[2 - i];
	for (i = 0; i < KEY_BYTES; i++)
		snprintf(out + 2 * i, 3, "%02X", key[i]);
}

/* --- user metadata --- */

static void put_length(struct buf *b, size_t n)
{
	unsigned char be[4] = { (unsigned char)(n >> 24), (unsigned char)(n >> 16), (unsigned char)(n >> 8), (unsigned char)n };

	buf_add(b, be, sizeof(be));
}

static void put_pair(struct buf *b, const char *key, const char *value)
{
	buf_addc(b, '\0');
	put_length(b, strlen(key));
	buf_adds(b, key);
	put_length(b, strlen(value));
	buf_adds(b, value);
}

void sproxyd_usermd_put(struct buf *out, const char *name, const char *token)
{
	struct buf raw = BUF_INIT(USERMD_MAX);

	put_pair(&raw, FIELD_NAME, name);
	put_pair(&raw, FIELD_TOKEN, token);
	b64_encode(out, raw.data, raw.len);
	buf_free(&raw);
}

static const char *get_blob(struct rd *r, size_t *len_r)
{
	const unsigned char *be = rd_bytes(r, 4);
	size_t n = be ? (size_t)be[0] << 24 | (size_t)be[1] << 16 | (size_t)be[2] << 8 | be[3] : 0;
	const char *p = be ? rd_bytes(r, n) : NULL;

	*len_r = p ? n : 0;
	return p;
}

static bool keep(char *out, size_t size, const char *value, size_t len)
{
	if (len == 0 || len >= size || memchr(value, '\0', len))
		return false;
	memcpy(out, value, len);
	out[len] = '\0';
	return true;
}

int sproxyd_usermd_parse(const char *b64, struct sproxyd_usermd *md)
{
	struct buf raw = BUF_INIT(USERMD_MAX);
	const char *key, *value;
	size_t n, m;
	struct rd r;
	bool good;

	memset(md, 0, sizeof(*md));
	good = strlen(b64) <= USERMD_MAX && b64_decode(&raw, b64, strlen(b64)) == 0 && !raw.failed;
	r = rd_init(raw.data, raw.len);
	while (good && rd_left(&r)) {
		good = rd_8(&r) == 0;
		key = get_blob(&r, &n);
		value = get_blob(&r, &m);
		if (!good || r.failed)
			break;
		if (n == strlen(FIELD_NAME) && !memcmp(key, FIELD_NAME, n))
			good = keep(md->name, sizeof(md->name), value, m);
		else if (n == strlen(FIELD_TOKEN) && !memcmp(key, FIELD_TOKEN, n))
			good = keep(md->token, sizeof(md->token), value, m);
	}
	good = good && !r.failed && md->name[0] && md->token[0];
	buf_free(&raw);
	return good ? 1 : 0;
}

/* --- batch delete --- */

void sproxyd_batch_body(struct buf *out, const char (*keys)[SPROXYD_KEY], size_t n)
{
	size_t i;

	buf_adds(out, "{\"keys\":[");
	for (i = 0; i < n; i++)
		buf_addf(out, "%s\"%s\"", i ? "," : "", keys[i]);
	buf_adds(out, "]}");
}

struct walk {
	void (*fn)(void *ctx, const char *key, int status);
	void *ctx;
};

static void walk(const struct walk *w, json_t *v, unsigned depth)
{
	const char *key = json_string_value(json_object_get(v, "key"));
	json_t *status = json_object_get(v, "status"), *child;
	const char *name;
	json_int_t n;
	size_t i;

	if (depth == DEPTH_MAX)
		return;
	if (key && json_is_integer(status)) {
		n = json_integer_value(status);
		if ((n < 200 || n > 299) && n != 404)
			w->fn(w->ctx, key, n > 0 && n < 1000 ? (int)n : 0);
		return;
	}
	if (json_is_object(v))
		json_object_foreach(v, name, child)
			walk(w, child, depth + 1);
	json_array_foreach(v, i, child)
		walk(w, child, depth + 1);
}

void sproxyd_batch_failed(const void *data, size_t len, void (*fn)(void *ctx, const char *key, int status), void *ctx)
{
	struct walk w = { fn, ctx };
	json_t *v = len ? json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL) : NULL;

	if (v)
		walk(&w, v, 0);
	json_decref(v);
}
