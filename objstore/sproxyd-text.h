/* sproxyd-text - what the sproxyd driver makes and reads: keys, user
 * metadata, the answers of batch deletes.
 *
 * Bytes in, bytes out: no clock, no network. */
#ifndef OBJSTORE_SPROXYD_TEXT_H
#define OBJSTORE_SPROXYD_TEXT_H
#include <stddef.h>

#include "base/buf.h"
#include "objstore/objstore.h"

enum { SPROXYD_KEY = 41, SPROXYD_TOKEN = 33, SPROXYD_BATCH_MAX = 1000 };
enum { SPROXYD_SERVICE_MIN = 0xC1, SPROXYD_SERVICE_BY_PATH = 0xC3, SPROXYD_SERVICE_MAX = 0xFF, SPROXYD_CLASS_MAX = 5 };

/* The 160 bits of a ring key as 40 upper-case digits, most significant first:
 *
 *   24 dispersion | 64 object id | 32 volume id | 8 service id | 24 of the application | 4 class | 4 replica (0)
 *
 * Object, volume and application bits are the first 120 of BLAKE2b-256 of the
 * name; dispersion is the MD5 of those and the service id, as Scality's own
 * clients compute it, so that keys spread over the ring. */
void sproxyd_key(const char *name, unsigned service, unsigned class, char out[SPROXYD_KEY]);

/* The name the object has with us and the token of the put that made it. */
struct sproxyd_usermd {
	char name[OBJ_KEY_MAX + 1], token[SPROXYD_TOKEN];
};
/* Appends the value of X-Scal-Usermd: base64 of (0, length, key, length, value)..., lengths of 32 bits, big-endian. */
void sproxyd_usermd_put(struct buf *out, const char *name, const char *token);
/* 1 understood; 0 it is not one of ours (another program's, or broken). */
int sproxyd_usermd_parse(const char *b64, struct sproxyd_usermd *md);

/* {"keys":[...]} */
void sproxyd_batch_body(struct buf *out, const char (*keys)[SPROXYD_KEY], size_t n);
/* Calls fn for each key that the answer says was not deleted.  The form of
 * this answer is not published: any object in it with a "key" and a "status"
 * other than 2xx and 404 counts; an empty answer, or one in another form, is
 * no complaint. */
void sproxyd_batch_failed(const void *data, size_t len, void (*fn)(void *ctx, const char *key, int status), void *ctx);
#endif
