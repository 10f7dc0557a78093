/* Types and charsets that fit into one byte of a part table.  Codes are part
 * of the format: only ever append. */
#include "mime/mime-private.h"

#include "base/mem.h"

static const struct {
	const char *type, *subtype;
} types[] = {
	{ "", "" },	/* 0: spelled out */
	{ "text", "plain" }, { "text", "html" }, { "text", "calendar" }, { "text", "x-amp-html" }, { "text", "enriched" },
	{ "text", "csv" }, { "text", "rfc822-headers" },
	{ "multipart", "mixed" }, { "multipart", "alternative" }, { "multipart", "related" }, { "multipart", "signed" },
	{ "multipart", "report" }, { "multipart", "digest" }, { "multipart", "encrypted" },
	{ "message", "rfc822" }, { "message", "global" }, { "message", "delivery-status" }, { "message", "partial" },
	{ "message", "disposition-notification" },
	{ "application", "octet-stream" }, { "application", "pdf" }, { "application", "zip" }, { "application", "ics" },
	{ "application", "pgp-signature" }, { "application", "pgp-encrypted" }, { "application", "pgp-keys" },
	{ "application", "pkcs7-signature" }, { "application", "x-pkcs7-signature" }, { "application", "pkcs7-mime" },
	{ "application", "msword" }, { "application", "ms-tnef" },
	{ "application", "vnd.openxmlformats-officedocument.wordprocessingml.document" },
	{ "application", "vnd.openxmlformats-officedocument.spreadsheetml.sheet" },
	{ "application", "vnd.openxmlformats-officedocument.presentationml.presentation" },
	{ "image", "png" }, { "image", "jpeg" }, { "image", "gif" }, { "image", "svg+xml" }, { "image", "webp" }, { "image", "heic" },
	{ "audio", "mpeg" }, { "audio", "wav" }, { "video", "mp4" }, { "video", "quicktime" },
};
static const char *const charsets[] = {
	"",	/* 0: spelled out */
	"", "utf-8", "us-ascii", "iso-8859-1", "iso-8859-2", "iso-8859-15", "windows-1252", "windows-1251", "windows-1250",
	"koi8-r", "gb2312", "gbk", "gb18030", "big5", "iso-2022-jp", "shift_jis", "euc-jp", "euc-kr", "ks_c_5601-1987",
	"utf-7", "utf-16",
};

uint8_t names_type_code(const char *type, size_t type_len, const char *sub, size_t sub_len)
{
	size_t i;

	for (i = 1; i < MEM_COUNT(types); i++)
		if (ascii_is(type, type_len, types[i].type) && ascii_is(sub, sub_len, types[i].subtype))
			return (uint8_t)i;
	return 0;
}

uint8_t names_charset_code(const char *charset, size_t len)
{
	size_t i;

	for (i = 1; i < MEM_COUNT(charsets); i++)
		if (ascii_is(charset, len, charsets[i]))
			return (uint8_t)i;
	return 0;
}

bool names_type(uint8_t code, const char **type_r, const char **subtype_r)
{
	if (!code || code >= MEM_COUNT(types))
		return false;
	*type_r = types[code].type;
	*subtype_r = types[code].subtype;
	return true;
}

bool names_charset(uint8_t code, const char **charset_r)
{
	if (!code || code >= MEM_COUNT(charsets))
		return false;
	*charset_r = charsets[code];
	return true;
}

enum mime_encoding encoding_from_name(const char *s, size_t len)
{
	static const struct {
		const char *name;
		enum mime_encoding enc;
	} known[] = {
		{ "7bit", MIME_7BIT }, { "8bit", MIME_8BIT }, { "binary", MIME_BINARY }, { "quoted-printable", MIME_QP },
		{ "base64", MIME_BASE64 }, { "x-uuencode", MIME_UUENCODE }, { "uuencode", MIME_UUENCODE }, { "x-uue", MIME_UUENCODE },
		{ "7-bit", MIME_7BIT }, { "8-bit", MIME_8BIT }, { "7bits", MIME_7BIT }, { "8bits", MIME_8BIT },
	};
	size_t i;

	for (i = 0; i < MEM_COUNT(known); i++)
		if (ascii_is(s, len, known[i].name))
			return known[i].enc;
	return MIME_ENC_UNKNOWN;
}
