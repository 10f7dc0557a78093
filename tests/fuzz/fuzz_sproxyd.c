/* What sproxyd sends: user metadata and the answers of batch deletes.  The
 * first octet chooses; what is understood is written again and must come back. */
#include "base/mem.h"
#include "objstore/sproxyd-text.h"

#include <sodium.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void usermd(const char *text)
{
	struct sproxyd_usermd md, again;
	struct buf b = BUF_INIT(16 * 1024);
	char key[SPROXYD_KEY];

	if (sproxyd_usermd_parse(text, &md) == 1) {
		sproxyd_usermd_put(&b, md.name, md.token);
		if (sproxyd_usermd_parse(buf_str(&b), &again) != 1 || strcmp(md.name, again.name) || strcmp(md.token, again.token))
			abort();
		sproxyd_key(md.name, 0xC4, 2, key);
		if (strlen(key) != SPROXYD_KEY - 1)
			abort();
	}
	buf_free(&b);
}

static void failed(void *ctx, const char *key, int status)
{
	if (!key || status < 0 || status > 999 || status == 404 || (status >= 200 && status <= 299))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text;

	if (len == 0 || sodium_init() < 0)
		return 0;
	text = mem_strndup((const char *)data + 1, len - 1);
	if (*data & 1)
		usermd(text);
	else
		sproxyd_batch_failed(data + 1, len - 1, failed, NULL);
	free(text);
	return 0;
}
