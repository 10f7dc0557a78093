/* s3-xml - the XML answers of S3 and STS.
 *
 * Bytes in, values out.  A document with a DTD, deeper than a few levels or
 * with an overlong value is refused; elements not known are passed over;
 * namespaces do not matter.
 * Errors: <0 ERR_CORRUPT: not XML, not this document, or over a ceiling. */
#ifndef OBJSTORE_S3_XML_H
#define OBJSTORE_S3_XML_H
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "objstore/objstore.h"

struct s3_xml_error {
	char code[64], message[256], region[64], endpoint[128], request_id[128];
};
/* 1 an <Error> document (S3) or <ErrorResponse> (STS), 0 another or none. */
int s3_xml_error(const void *data, size_t len, struct s3_xml_error *e);

struct s3_xml_list {
	struct objstore_list_item *items;	/* the caller's: objstore_items_free; NULL after an error */
	size_t n;
	bool more;
};
/* ListBucketResult with encoding-type=url or without; at most max items are taken. */
int s3_xml_list(const void *data, size_t len, size_t max, struct s3_xml_list *l, struct err *err);

/* DeleteResult: fn is called for each <Error> in it (strings borrowed). */
int s3_xml_deleted(const void *data, size_t len, void (*fn)(void *ctx, const char *key, const char *code, const char *message), void *ctx, struct err *err);
/* InitiateMultipartUploadResult: the upload's id. */
int s3_xml_upload_id(const void *data, size_t len, char *id, size_t size, struct err *err);
/* CompleteMultipartUploadResult or CopyObjectResult (which may be an <Error> under status 200: try s3_xml_error first). */
int s3_xml_etag(const void *data, size_t len, char *etag, size_t size, struct err *err);

struct s3_xml_role {
	char access[160], secret[160], token[4096], expiration[40];
};
/* AssumeRoleWithWebIdentityResponse. */
int s3_xml_role(const void *data, size_t len, struct s3_xml_role *r, struct err *err);

/* Requests. */
void s3_xml_put_text(struct buf *out, const char *text);	/* escaped */
void s3_xml_delete(struct buf *out, const char *const *keys, size_t n);
void s3_xml_complete(struct buf *out, const char *const *etags, size_t n);
#endif
