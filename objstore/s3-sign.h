/* s3-sign - AWS Signature Version 4 (header form), and the encodings it is
 * made over.
 *
 * The payload is signed by its hash as a whole, never in chunks.  Bytes in,
 * bytes out: no clock, no network. */
#ifndef OBJSTORE_S3_SIGN_H
#define OBJSTORE_S3_SIGN_H
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { S3_HASH_HEX = 65, S3_DATE = 17, S3_QUERY_MAX = 8 };

/* Everything but [A-Za-z0-9-._~] becomes %XX in upper case; '/' stays when keep_slash. */
void s3_uri_encode(struct buf *out, const char *s, size_t len, int keep_slash);

struct s3_param {
	const char *name, *value;	/* as they are meant, not encoded */
};
/* The canonical query: encoded, sorted by name (then value), "" for none. */
void s3_query(struct buf *out, const struct s3_param *p, size_t n);

struct s3_keys {
	const char *access, *secret;
	const char *token;		/* NULL or "": none.  It is the caller's to send and to sign as a header */
};
/* What makes the signing key; the derived key is kept for the day. */
struct s3_signer {
	char scope[160];		/* day/region/service/aws4_request */
	unsigned char secret_hash[32], key[32];
};
struct s3_to_sign {
	const char *method;
	const char *path;		/* encoded, begins with '/' */
	const char *query;		/* canonical */
	const struct s3_param *headers;	/* names in lower case, any order; all are signed; host and x-amz-date among them */
	size_t n_headers;		/* at most S3_HEADERS_MAX */
	const char *payload_hash;	/* hex, or UNSIGNED-PAYLOAD */
	const char *date;		/* 20130524T000000Z */
	const char *region, *service;
};
enum { S3_HEADERS_MAX = 40 };

/* Appends the value of the Authorization header. */
void s3_sign(struct s3_signer *sg, const struct s3_keys *k, const struct s3_to_sign *t, struct buf *authorization);
void s3_signer_wipe(struct s3_signer *sg);

void s3_date(int64_t unix_s, char out[S3_DATE]);
void s3_sha256(const void *data, size_t len, unsigned char out[32]);
void s3_sha256_hex(const void *data, size_t len, char out[S3_HASH_HEX]);
#endif
