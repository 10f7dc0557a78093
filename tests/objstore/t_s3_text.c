/* S3's XML and credentials as text, with nasty input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "objstore/s3-cred.h"
#include "objstore/s3-xml.h"

static int list(const char *xml, size_t max, struct s3_xml_list *l)
{
	return s3_xml_list(xml, strlen(xml), max, l, NULL);
}

static void listings_are_read_with_their_encoding(void **state)
{
	struct s3_xml_list l;

	assert_int_equal(list("<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Prefix>no%2Fkey</Prefix>"
			      "<Contents><Key>a%2Bb%2fc</Key><Size>12</Size><LastModified>2026-11-22T10:00:00.000Z</LastModified><Owner><ID>x</ID></Owner></Contents>"
			      "<Contents><Size>3</Size><Key>d+e</Key></Contents><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated></ListBucketResult>", 1000, &l), 0);
	assert_int_equal(l.n, 2);
	assert_string_equal(l.items[0].key, "a+b/c");
	assert_int_equal(l.items[0].size, 12);
	assert_int_equal(l.items[0].mtime, 1795341600);
	assert_string_equal(l.items[1].key, "d+e");
	assert_true(l.more);
	objstore_items_free(l.items, l.n);
	assert_int_equal(list("<ListBucketResult><Contents><Key>a%2Bb</Key><Size>1</Size></Contents></ListBucketResult>", 1000, &l), 0);
	assert_string_equal(l.items[0].key, "a%2Bb");
	objstore_items_free(l.items, l.n);
	assert_int_equal(list("<ListBucketResult><Name>b</Name></ListBucketResult>", 10, &l), 0);
	assert_int_equal(l.n, 0);
}

static void more_items_than_asked_for_are_not_kept(void **state)
{
	struct s3_xml_list l;

	assert_int_equal(list("<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents><Contents><Key>b</Key><Size>1</Size></Contents></ListBucketResult>", 1, &l), 0);
	assert_int_equal(l.n, 1);
	assert_true(l.more);
	objstore_items_free(l.items, l.n);
}

static void what_is_no_listing_is_refused(void **state)
{
	static const char *const bad[] = {
		"", "x", "<a/>", "<ListBucketResult>", "<Error><Code>x</Code></Error>", "<x><ListBucketResult/></x>",
		"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
		"<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%</Key></Contents></ListBucketResult>",
		"<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%00b</Key></Contents></ListBucketResult>",
		"<!DOCTYPE a [<!ENTITY b \"c\">]><ListBucketResult/>",
		"<ListBucketResult><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></ListBucketResult>",
	};
	struct s3_xml_list l;
	size_t i;

	for (i = 0; i < MEM_COUNT(bad); i++) {
		assert_int_equal(list(bad[i], 1000, &l), ERR_CORRUPT);
		assert_null(l.items);
	}
}

static void errors_are_read_from_s3_and_sts(void **state)
{
	static const char s3[] = "<?xml version=\"1.0\"?>\n<Error><Code> NoSuchKey </Code><Message>a &lt; b</Message><Region>eu-1</Region><RequestId>7</RequestId></Error>";
	static const char sts[] = "<ErrorResponse xmlns='x'><Error><Code>AccessDenied</Code></Error><RequestId>8</RequestId></ErrorResponse>";
	struct s3_xml_error e;

	assert_int_equal(s3_xml_error(s3, strlen(s3), &e), 1);
	assert_string_equal(e.code, "NoSuchKey");
	assert_string_equal(e.message, "a < b");
	assert_string_equal(e.region, "eu-1");
	assert_string_equal(e.request_id, "7");
	assert_int_equal(s3_xml_error(sts, strlen(sts), &e), 1);
	assert_string_equal(e.code, "AccessDenied");
	assert_string_equal(e.request_id, "8");
	assert_int_equal(s3_xml_error("<html>502</html>", 16, &e), 0);
	assert_int_equal(s3_xml_error("Bad Gateway", 11, &e), 0);
}

static void count_failed(void *ctx, const char *key, const char *code, const char *message)
{
	struct buf *b = ctx;

	buf_addf(b, "%s:%s ", key, code);
}

static void multi_delete_tells_of_each_failure(void **state)
{
	static const char xml[] = "<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error><Error><Code>InternalError</Code><Key>c</Key></Error></DeleteResult>";
	struct buf b = BUF_INIT(0);

	assert_int_equal(s3_xml_deleted(xml, strlen(xml), count_failed, &b, NULL), 0);
	assert_string_equal(buf_str(&b), "b:AccessDenied c:InternalError ");
	assert_int_equal(s3_xml_deleted("<Other/>", 8, count_failed, &b, NULL), ERR_CORRUPT);
	buf_free(&b);
}

static void requests_are_escaped(void **state)
{
	static const char *const keys[] = { "a&b<c>\"" };
	struct buf b = BUF_INIT(0);

	s3_xml_delete(&b, keys, 1);
	assert_non_null(strstr(buf_str(&b), "<Key>a&amp;b&lt;c&gt;&quot;</Key>"));
	buf_free(&b);
}

static int file(const char *text, const char *profile, struct s3_cred_set *s)
{
	return s3_cred_parse_file(text, strlen(text), profile, s, NULL);
}

static void a_profile_is_found_in_a_file_of_many(void **state)
{
	static const char text[] = "\xef\xbb\xbf# comment\n[other]\naws_access_key_id = X\n; x\n[ mail ]\r\n aws_secret_access_key=se=cr/et+ \r\nregion = x\naws_access_key_id=AK\n"
				   "aws_session_token = t\n[default]\naws_access_key_id=D\naws_secret_access_key=E";
	struct s3_cred_set s;

	assert_int_equal(file(text, "mail", &s), 1);
	assert_string_equal(s.access, "AK");
	assert_string_equal(s.secret, "se=cr/et+");
	assert_string_equal(s.token, "t");
	s3_cred_set_free(&s);
	assert_int_equal(file(text, "default", &s), 1);
	assert_string_equal(s.secret, "E");
	assert_null(s.token);
	s3_cred_set_free(&s);
	assert_int_equal(file(text, "none", &s), 0);
	assert_int_equal(file(text, "other", &s), ERR_INVALID);
}

static void files_that_are_none_do_no_harm(void **state)
{
	static const char *const bad[] = { "", "\n\n[", "[]", "[mail", "]", "=", "[mail]\n=\n==x\n", "[mail]\naws_access_key_id", "[mail]\naws_access_key_id=\naws_secret_access_key=x",
		"[mail]\naws_access_key_id=a b\naws_secret_access_key=x", "[mail]\naws_access_key_id=a\x01\naws_secret_access_key=x" };
	struct s3_cred_set s;
	size_t i;

	for (i = 0; i < MEM_COUNT(bad); i++) {
		assert_true(file(bad[i], "mail", &s) <= 0);
		assert_null(s.access);
		assert_null(s.secret);
	}
	assert_true(s3_cred_parse_file("[mail]\naws_access_key_id=\0a\n", 27, "mail", &s, NULL) <= 0);
}

static void metadata_gives_keys_with_an_end(void **state)
{
	static const char good[] = "{\"Code\":\"Success\",\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Token\":\"T\",\"Expiration\":\"2026-11-22T10:00:00Z\"}";
	static const char *const bad[] = { "", "{", "[]", "{}", "null", "{\"AccessKeyId\":1,\"SecretAccessKey\":\"x\"}", "{\"AccessKeyId\":\"a\\nb\",\"SecretAccessKey\":\"x\"}" };
	struct s3_cred_set s;
	size_t i;

	assert_int_equal(s3_cred_parse_imds(good, strlen(good), &s, NULL), 0);
	assert_string_equal(s.token, "T");
	assert_int_equal(s.expires_s, 1795341600);
	s3_cred_set_free(&s);
	for (i = 0; i < MEM_COUNT(bad); i++)
		assert_int_equal(s3_cred_parse_imds(bad[i], strlen(bad[i]), &s, NULL), ERR_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(listings_are_read_with_their_encoding),
		cmocka_unit_test(more_items_than_asked_for_are_not_kept),
		cmocka_unit_test(what_is_no_listing_is_refused),
		cmocka_unit_test(errors_are_read_from_s3_and_sts),
		cmocka_unit_test(multi_delete_tells_of_each_failure),
		cmocka_unit_test(requests_are_escaped),
		cmocka_unit_test(a_profile_is_found_in_a_file_of_many),
		cmocka_unit_test(files_that_are_none_do_no_harm),
		cmocka_unit_test(metadata_gives_keys_with_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
