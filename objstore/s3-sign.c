#include "objstore/s3-sign.h"

#include "base/b64.h"
#include "base/mem.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

static const char hex_upper[] = "0123456789ABCDEF";

static bool unreserved(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

void s3_uri_encode(struct buf *out, const char *s, size_t len, int keep_slash)
{
	size_t i;

	for (i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];
		char esc[3] = { '%', hex_upper[c >> 4], hex_upper[c & 15] };

		if (unreserved(c) || (c == '/' && keep_slash))
			buf_addc(out, c);
		else
			buf_add(out, esc, 3);
	}
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void s3_query(struct buf *out, const struct s3_param *p, size_t n)
{
	char *parts[S3_QUERY_MAX];
	size_t i;

	/* '=' sorts behind '-', '.' and the digits, so names are compared with NUL behind them */
	if (n > S3_QUERY_MAX)
		n = S3_QUERY_MAX;
	for (i = 0; i < n; i++) {
		struct buf b = BUF_INIT(16 * 1024);

		s3_uri_encode(&b, p[i].name, strlen(p[i].name), 0);
		buf_addc(&b, '\1');
		s3_uri_encode(&b, p[i].value, strlen(p[i].value), 0);
		parts[i] = buf_detach(&b);
	}
	qsort(parts, n, sizeof(*parts), by_text);
	for (i = 0; i < n; i++) {
		*strchr(parts[i], '\1') = '=';
		if (i)
			buf_addc(out, '&');
		buf_adds(out, parts[i]);
		free(parts[i]);
	}
}

void s3_date(int64_t unix_s, char out[S3_DATE])
{
	time_t t = (time_t)unix_s;
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(out, S3_DATE, "%Y%m%dT%H%M%SZ", &tm);
}

void s3_sha256(const void *data, size_t len, unsigned char out[32])
{
	EVP_Digest(len ? data : "", len, out, NULL, EVP_sha256(), NULL);
}

void s3_sha256_hex(const void *data, size_t len, char out[S3_HASH_HEX])
{
	unsigned char h[32];

	s3_sha256(data, len, h);
	hex_encode(out, h, sizeof(h));
}

static void hmac(const void *key, size_t key_len, const void *data, size_t len, unsigned char out[32])
{
	unsigned n = 32;

	HMAC(EVP_sha256(), key, (int)key_len, data, len, out, &n);
}

static void derive(struct s3_signer *sg, const struct s3_keys *k, const struct s3_to_sign *t)
{
	char scope[sizeof(sg->scope)];
	unsigned char secret_hash[32], key[32];
	struct buf first = BUF_INIT(4096);

	snprintf(scope, sizeof(scope), "%.8s/%s/%s/aws4_request", t->date, t->region, t->service);
	s3_sha256(k->secret, strlen(k->secret), secret_hash);
	if (!strcmp(scope, sg->scope) && !memcmp(secret_hash, sg->secret_hash, 32))
		return;
	buf_adds(&first, "AWS4");
	buf_adds(&first, k->secret);
	hmac(first.data, first.len, t->date, 8, key);
	hmac(key, 32, t->region, strlen(t->region), key);
	hmac(key, 32, t->service, strlen(t->service), key);
	hmac(key, 32, "aws4_request", 12, sg->key);
	memcpy(sg->scope, scope, sizeof(scope));
	memcpy(sg->secret_hash, secret_hash, 32);
	OPENSSL_cleanse(key, sizeof(key));
	OPENSSL_cleanse(first.data, first.cap);
	buf_free(&first);
}

/* Leading and trailing blanks go, runs of them become one. */
static void add_value(struct buf *out, const char *v)
{
	bool blank = false, began = false;

	for (; *v; v++) {
		if (*v == ' ' || *v == '\t') {
			blank = began;
			continue;
		}
		if (blank)
			buf_addc(out, ' ');
		blank = false;
		began = true;
		buf_addc(out, *v);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct s3_param *const *)a)->name, (*(const struct s3_param *const *)b)->name);
}

static void canonical(const struct s3_to_sign *t, struct buf *out, struct buf *names)
{
	const struct s3_param *h[S3_HEADERS_MAX];
	size_t n = t->n_headers < S3_HEADERS_MAX ? t->n_headers : S3_HEADERS_MAX, i;

	for (i = 0; i < n; i++)
		h[i] = &t->headers[i];
	qsort(h, n, sizeof(h[0]), by_name);
	buf_addf(out, "%s\n%s\n%s\n", t->method, t->path, t->query);
	for (i = 0; i < n; i++) {
		buf_addf(out, "%s:", h[i]->name);
		add_value(out, h[i]->value);
		buf_addc(out, '\n');
		buf_addf(names, "%s%s", i ? ";" : "", h[i]->name);
	}
	buf_addf(out, "\n%s\n%s", buf_str(names), t->payload_hash);
}

void s3_sign(struct s3_signer *sg, const struct s3_keys *k, const struct s3_to_sign *t, struct buf *authorization)
{
	struct buf request = BUF_INIT(256 * 1024), names = BUF_INIT(8192), text = BUF_INIT(1024);
	char hash[S3_HASH_HEX], hex[S3_HASH_HEX];
	unsigned char mac[32];

	derive(sg, k, t);
	canonical(t, &request, &names);
	s3_sha256_hex(request.data, request.len, hash);
	buf_addf(&text, "AWS4-HMAC-SHA256\n%s\n%s\n%s", t->date, sg->scope, hash);
	hmac(sg->key, 32, text.data, text.len, mac);
	hex_encode(hex, mac, sizeof(mac));
	buf_addf(authorization, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s", k->access, sg->scope, buf_str(&names), hex);
	buf_free(&request);
	buf_free(&names);
	buf_free(&text);
}

void s3_signer_wipe(struct s3_signer *sg)
{
	OPENSSL_cleanse(sg, sizeof(*sg));
}
