/* S3's and STS's XML, the shared credentials file and the metadata JSON; the first octet chooses. */
#include "objstore/s3-cred.h"
#include "objstore/s3-xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void failed(void *ctx, const char *key, const char *code, const char *message)
{
	*(size_t *)ctx += strlen(key) + strlen(code) + strlen(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct s3_cred_set set;
	struct s3_xml_error e;
	struct s3_xml_list l;
	struct s3_xml_role role;
	char text[256];
	size_t n = 0;

	if (!len)
		return 0;
	data++;
	len--;
	switch (data[-1] % 8) {
	case 0:
		if (s3_xml_list(data, len, 100, &l, NULL) == 0)
			objstore_items_free(l.items, l.n);
		break;
	case 1:
		s3_xml_error(data, len, &e);
		break;
	case 2:
		s3_xml_deleted(data, len, failed, &n, NULL);
		break;
	case 3:
		s3_xml_upload_id(data, len, text, sizeof(text), NULL);
		break;
	case 4:
		s3_xml_etag(data, len, text, sizeof(text), NULL);
		break;
	case 5:
		s3_xml_role(data, len, &role, NULL);
		break;
	case 6:
		if (s3_cred_parse_file((const char *)data, len, "mail", &set, NULL) == 1)
			s3_cred_set_free(&set);
		break;
	default:
		if (s3_cred_parse_imds((const char *)data, len, &set, NULL) == 0)
			s3_cred_set_free(&set);
		break;
	}
	return 0;
}
