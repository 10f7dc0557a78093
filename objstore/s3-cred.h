/* s3-cred - where the access key comes from, and getting a new one in time.
 *
 * Sources: settings, environment (AWS_ACCESS_KEY_ID...), web identity
 * (AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE), shared credentials file,
 * instance metadata (IMDSv2).  "auto" takes the first in that order that is
 * configured; instance metadata is then the last resort.
 * Keys that expire are fetched again five minutes before they do (after half
 * of a shorter life), while the old ones stay in use; the file is read again when it changed.
 *
 * Threads: all but new and free on the engine's event thread. */
#ifndef OBJSTORE_S3_CRED_H
#define OBJSTORE_S3_CRED_H
#include "objstore/http.h"
#include "objstore/s3-sign.h"

enum s3_cred_source { S3_CRED_AUTO, S3_CRED_SETTINGS, S3_CRED_ENVIRONMENT, S3_CRED_FILE, S3_CRED_IMDS, S3_CRED_WEB_IDENTITY };

struct s3_cred_config {
	enum s3_cred_source source;
	const char *access, *secret, *token;	/* settings */
	const char *file, *profile;		/* NULL or "": AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials; AWS_PROFILE or "default" */
	const char *role_arn, *token_file;	/* web identity; NULL or "": from the environment */
	const char *imds_endpoint, *sts_endpoint;	/* NULL or "": http://169.254.169.254, https://sts.REGION.amazonaws.com */
	const char *region;
};

struct s3_cred;
/* changed() comes after a fetch ended, well or badly: s3_cred_get again. */
struct s3_cred *s3_cred_new(struct http_engine *e, const struct s3_cred_config *cfg, void (*changed)(void *ctx), void *ctx);
void s3_cred_free(struct s3_cred **c);	/* after the engine's thread ended */

/* 1 keys, borrowed until this thread returns to the engine; 0 they are being
 * fetched: changed() will come; <0 there are none (ERR_DENIED: and will not be; ERR_UNAVAILABLE). */
int s3_cred_get(struct s3_cred *c, struct s3_keys *k, struct err *err);
/* The store did not take the keys of this access key; true when there are, or may come, others. */
bool s3_cred_refused(struct s3_cred *c, const char *access);

struct s3_cred_set {
	char *access, *secret, *token;
	int64_t expires_s;	/* 0 = never */
};
void s3_cred_set_free(struct s3_cred_set *s);
/* [profile] of a shared credentials file. 1 found with both keys, 0 not there, <0 there but unusable. */
int s3_cred_parse_file(const char *text, size_t len, const char *profile, struct s3_cred_set *out, struct err *err);
/* The JSON of instance metadata. 0/<0 */
int s3_cred_parse_imds(const char *text, size_t len, struct s3_cred_set *out, struct err *err);
#endif
