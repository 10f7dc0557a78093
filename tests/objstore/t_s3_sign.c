/* Signature V4 against the vectors AWS published: the examples of the S3
 * manual ("Authenticating Requests: Using the Authorization Header") and of
 * the aws-sig-v4-test-suite. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "objstore/s3-sign.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void expect(struct s3_to_sign *t, const struct s3_keys *k, const char *signature)
{
	struct s3_signer sg = { .scope = "" };
	struct buf b = BUF_INIT(0);
	int again;

	for (again = 0; again < 2; again++) {	/* the second time with the derived key kept */
		buf_clear(&b);
		s3_sign(&sg, k, t, &b);
		assert_string_equal(strstr(buf_str(&b), "Signature=") + 10, signature);
	}
	buf_free(&b);
}

static void s3_example(const char *method, const char *path, const struct s3_param *query, size_t n_query, const struct s3_param *extra, size_t n_extra,
		       const char *hash, const char *signature)
{
	static const struct s3_keys keys = { "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", NULL };
	struct s3_param h[8] = { { "host", "examplebucket.s3.amazonaws.com" }, { "x-amz-date", "20130524T000000Z" }, { "x-amz-content-sha256", hash } };
	struct buf q = BUF_INIT(0), p = BUF_INIT(0);
	struct s3_to_sign t = { .method = method, .headers = h, .n_headers = 3 + n_extra, .payload_hash = hash, .date = "20130524T000000Z", .region = "us-east-1", .service = "s3" };

	if (n_extra)
		memcpy(h + 3, extra, n_extra * sizeof(*extra));
	s3_query(&q, query, n_query);
	s3_uri_encode(&p, path, strlen(path), 1);
	t.path = buf_str(&p);
	t.query = buf_str(&q);
	expect(&t, &keys, signature);
	buf_free(&q);
	buf_free(&p);
}

static void the_manuals_requests_have_the_manuals_signatures(void **state)
{
	static const struct s3_param range[] = { { "range", "bytes=0-9" } };
	static const struct s3_param put[] = { { "x-amz-storage-class", "REDUCED_REDUNDANCY" }, { "date", "Fri, 24 May 2013 00:00:00 GMT" } };
	static const struct s3_param lifecycle[] = { { "lifecycle", "" } }, list[] = { { "prefix", "J" }, { "max-keys", "2" } };

	s3_example("GET", "/test.txt", NULL, 0, range, 1, EMPTY, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
	s3_example("PUT", "/test$file.text", NULL, 0, put, 2, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
		   "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
	s3_example("GET", "/", lifecycle, 1, NULL, 0, EMPTY, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	s3_example("GET", "/", list, 2, NULL, 0, EMPTY, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void suite(const char *method, const char *path, const char *query, const struct s3_param *extra, size_t n_extra, const char *body, const char *signature)
{
	static const struct s3_keys keys = { "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", NULL };
	struct s3_param h[6] = { { "host", "example.amazonaws.com" }, { "x-amz-date", "20150830T123600Z" } };
	char hash[S3_HASH_HEX];
	struct s3_to_sign t = { .method = method, .path = path, .query = query, .headers = h, .n_headers = 2 + n_extra, .payload_hash = hash,
		.date = "20150830T123600Z", .region = "us-east-1", .service = "service" };

	if (n_extra)
		memcpy(h + 2, extra, n_extra * sizeof(*extra));
	s3_sha256_hex(body, strlen(body), hash);
	expect(&t, &keys, signature);
}

static void the_suites_requests_have_the_suites_signatures(void **state)
{
	static const struct s3_param form[] = { { "content-type", "application/x-www-form-urlencoded" } };
	struct buf b = BUF_INIT(0);

	suite("GET", "/", "", NULL, 0, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
	suite("POST", "/", "", NULL, 0, "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
	suite("POST", "/", "", form, 1, "Param1=value1", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a");
	suite("GET", "/", "Param1=value1&Param2=value2", NULL, 0, "", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
	s3_uri_encode(&b, "/\xe1\x88\xb4", 4, 1);
	assert_string_equal(buf_str(&b), "/%E1%88%B4");
	suite("GET", buf_str(&b), "", NULL, 0, "", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
	buf_clear(&b);
	s3_uri_encode(&b, "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", 67, 1);
	suite("GET", buf_str(&b), "", NULL, 0, "", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f");
	buf_free(&b);
}

static void values_lose_blanks_at_their_ends_and_double_ones(void **state)
{
	static const struct s3_param plain[] = { { "my-header1", "a b c" } }, blanks[] = { { "my-header1", "  a  b \t c  " } };
	static const struct s3_keys keys = { "A", "B", NULL };
	struct s3_signer sg = { .scope = "" };
	struct buf a = BUF_INIT(0), b = BUF_INIT(0);
	struct s3_to_sign t = { .method = "GET", .path = "/", .query = "", .headers = plain, .n_headers = 1, .payload_hash = EMPTY, .date = "20150830T123600Z", .region = "r", .service = "s" };

	s3_sign(&sg, &keys, &t, &a);
	t.headers = blanks;
	s3_sign(&sg, &keys, &t, &b);
	assert_string_equal(buf_str(&a), buf_str(&b));
	buf_free(&a);
	buf_free(&b);
}

static void another_day_region_or_secret_gives_another_key(void **state)
{
	struct s3_param h[] = { { "host", "h" } };
	struct s3_to_sign t = { .method = "GET", .path = "/", .query = "", .headers = h, .n_headers = 1, .payload_hash = EMPTY, .date = "20150830T123600Z", .region = "r", .service = "s" };
	struct s3_signer kept = { .scope = "" };
	struct buf a = BUF_INIT(0), b = BUF_INIT(0);
	int i;

	for (i = 0; i < 4; i++) {
		struct s3_keys keys = { "A", i == 1 ? "C" : "B", NULL };
		struct s3_signer fresh = { .scope = "" };

		t.date = i == 2 ? "20150831T123600Z" : "20150830T123600Z";
		t.region = i == 3 ? "q" : "r";
		buf_clear(&a);
		buf_clear(&b);
		s3_sign(&kept, &keys, &t, &a);	/* the key kept from the round before must not be used */
		s3_sign(&fresh, &keys, &t, &b);
		assert_string_equal(buf_str(&a), buf_str(&b));
	}
	buf_free(&a);
	buf_free(&b);
}

static void queries_are_sorted_after_encoding(void **state)
{
	static const struct s3_param p[] = { { "uploads", "" }, { "a-b", "1" }, { "a", "x/y z+~" }, { "prefix", "\xc3\xa9=&" } };
	struct buf b = BUF_INIT(0);

	s3_query(&b, p, MEM_COUNT(p));
	assert_string_equal(buf_str(&b), "a=x%2Fy%20z%2B~&a-b=1&prefix=%C3%A9%3D%26&uploads=");
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_manuals_requests_have_the_manuals_signatures),
		cmocka_unit_test(the_suites_requests_have_the_suites_signatures),
		cmocka_unit_test(values_lose_blanks_at_their_ends_and_double_ones),
		cmocka_unit_test(another_day_region_or_secret_gives_another_key),
		cmocka_unit_test(queries_are_sorted_after_encoding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
