/* The S3 driver: large and many objects, headers, keys, networks, the probe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "objstore/probe.h"
#include "tests/objstore/s3fix.h"

#include <fcntl.h>
#include <ftw.h>

static struct s3fix server;
static char dir[] = "/tmp/t_s3_more.XXXXXX";

static int setup(void **state)
{
	*state = NULL;
	free(s3fix_ask(&server, "POST", "/-/odd", "{\"reset\": true, \"empty\": true}"));
	return 0;
}

static int teardown(void **state)
{
	struct objstore *s = *state;

	s3fix_odd(&server, "");
	objstore_close(&s);
	return 0;
}

static struct objstore *open_with(void **state, const struct objstore_settings *set)
{
	struct objstore *s = NULL;
	struct err err = ERR_INIT;

	if (objstore_open(set, &s, &err) < 0)
		fail_msg("%s", err.msg);
	*state = s;
	return s;
}

static struct objstore *plain(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);

	return open_with(state, &set);
}

static int put(struct objstore *s, const char *key, const char *text)
{
	return objstore_put(s, key, text, strlen(text), OBJ_ANY, NULL, NULL);
}

static struct objstore_verb_stats stats(struct objstore *s, enum objstore_verb v)
{
	struct objstore_stats st;

	assert_true(objstore_stats(s, &st));
	return st.verb[v];
}

static bool seen(const char *text)
{
	return s3fix_seen(&server, text) > 0;
}

/* --- many --- */

static void thousands_are_deleted_in_thousands(void **state)
{
	struct objstore *s = plain(state);
	const char **keys = mem_calloc(2100, sizeof(*keys));
	int i;

	for (i = 0; i < 2100; i++)
		keys[i] = mem_printf("d/%d", i);
	assert_int_equal(put(s, "d/0", "x"), 0);
	assert_int_equal(put(s, "d/2099", "x"), 0);
	s3fix_odd(&server, "\"key_error\": {\"n\": 1, \"key\": \"d/1500\", \"code\": \"InternalError\"}");
	assert_int_equal(objstore_delete_many(s, keys, 2100, NULL), 0);
	assert_int_equal(stats(s, OBJ_DELETE).requests, 4);	/* one again, for one key was not deleted */
	assert_int_equal(objstore_head(s, "d/0", NULL, NULL), 0);
	assert_int_equal(objstore_head(s, "d/2099", NULL, NULL), 0);
	s3fix_odd(&server, "\"key_error\": {\"n\": 1, \"key\": \"d/7\", \"code\": \"AccessDenied\"}");
	assert_int_equal(objstore_delete_many(s, keys, 20, NULL), ERR_DENIED);
	for (i = 0; i < 2100; i++)
		free((char *)(uintptr_t)keys[i]);
	free(keys);
}

static void without_multi_delete_each_is_deleted(void **state)
{
	static const char *const keys[] = { "e/1", "e/2", "e/3", "e/4", "e/5", "e/6", "e/7", "e/8", "e/9", "e/10" };
	struct objstore *s = plain(state);
	size_t i;

	for (i = 0; i < MEM_COUNT(keys); i++)
		assert_int_equal(put(s, keys[i], "x"), 0);
	s3fix_odd(&server, "\"no_multi_delete\": true");
	assert_int_equal(objstore_delete_many(s, keys, 9, NULL), 0);
	for (i = 0; i < 9; i++)
		assert_int_equal(objstore_head(s, keys[i], NULL, NULL), 0);
	assert_int_equal(objstore_head(s, keys[9], NULL, NULL), 1);
	assert_int_equal(objstore_delete_many(s, keys, MEM_COUNT(keys), NULL), 0);
	assert_int_equal(stats(s, OBJ_DELETE).requests, 1 + 9 + 10);	/* remembered */
}

static int count(void *ctx, const struct objstore_list_item *item)
{
	unsigned *n = ctx;
	char key[32];

	snprintf(key, sizeof(key), "l/%%2B+%03u=@", (*n)++);
	assert_string_equal(item->key, key);
	assert_int_equal(item->size, 1);
	assert_true(item->mtime > 1000000);
	return 0;
}

static void lists_go_on_over_pages(void **state)
{
	struct objstore *s = plain(state);
	unsigned i, n = 0;
	char key[32];

	for (i = 0; i < 40; i++) {
		snprintf(key, sizeof(key), "l/%%2B+%03u=@", i);
		assert_int_equal(put(s, key, "x"), 0);
	}
	s3fix_odd(&server, "\"page\": 7");
	assert_int_equal(objstore_each(s, "l/", count, &n, NULL), 0);
	assert_int_equal(n, 40);
	assert_int_equal(stats(s, OBJ_LIST).requests, 6);
}

/* --- large --- */

static int put_large(struct objstore *s, size_t len, enum objstore_cond cond)
{
	unsigned char *data = mem_alloc(len);
	struct buf b = BUF_INIT(0);
	size_t i;
	int rc;

	for (i = 0; i < len; i++)
		data[i] = (unsigned char)(i * 7 + i / 4099);
	rc = objstore_put(s, "large", data, len, cond, NULL, NULL);
	if (rc == 0) {
		assert_int_equal(objstore_get(s, "large", &b, NULL, NULL), 0);
		assert_int_equal(b.len, len);
		assert_memory_equal(b.data, data, len);
	}
	buf_free(&b);
	free(data);
	return rc;
}

static struct objstore *multipart(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);

	set.multipart_size = 5 << 20;
	set.part_size = 5 << 20;
	return open_with(state, &set);
}

static void large_objects_go_in_parts(void **state)
{
	struct objstore *s = multipart(state);

	s3fix_odd(&server, "\"throttle\": {\"n\": 1, \"method\": \"PUT\", \"skip\": 1}");
	assert_int_equal(put_large(s, 12 << 20, OBJ_ANY), 0);
	assert_int_equal(s3fix_seen(&server, "\"partNumber\""), 4);
	assert_int_equal(stats(s, OBJ_PUT).requests, 6);
	assert_int_equal(stats(s, OBJ_PUT).ops, 1);
	assert_true(seen("\"uploads\": 0"));
}

static void conditional_ones_are_one_request(void **state)
{
	struct objstore *s = multipart(state);

	assert_int_equal(put_large(s, 12 << 20, OBJ_CREATE), 0);
	assert_int_equal(put_large(s, 12 << 20, OBJ_CREATE), ERR_EXISTS);
	assert_int_equal(s3fix_seen(&server, "\"partNumber\""), 0);
}

static void a_failed_upload_is_aborted(void **state)
{
	struct objstore *s = multipart(state);

	s3fix_odd(&server, "\"error\": {\"n\": 100, \"method\": \"PUT\", \"status\": 403, \"code\": \"AccessDenied\"}");
	assert_int_equal(put_large(s, 12 << 20, OBJ_ANY), ERR_DENIED);
	assert_true(seen("\"method\": \"DELETE\""));
	assert_true(seen("\"uploads\": 0"));
	assert_int_equal(objstore_head(s, "large", NULL, NULL), 0);
}

static void a_completion_whose_answer_was_lost_is_no_failure(void **state)
{
	struct objstore *s = multipart(state);

	s3fix_odd(&server, "\"drop_after\": {\"n\": 1, \"method\": \"POST\", \"skip\": 1}");
	assert_int_equal(put_large(s, 6 << 20, OBJ_ANY), 0);
}

static void a_completion_without_an_etag_is_looked_up(void **state)
{
	struct objstore *s = multipart(state);

	s3fix_odd(&server, "\"no_complete_etag\": true");
	assert_int_equal(put_large(s, 6 << 20, OBJ_ANY), 0);
	assert_int_equal(stats(s, OBJ_HEAD).requests, 1);
}

static void a_store_without_ranges_gives_ranges_all_the_same(void **state)
{
	struct objstore *s = plain(state);
	struct buf b = BUF_INIT(100);
	uint64_t size = 0;

	assert_int_equal(put(s, "k", "0123456789"), 0);
	s3fix_odd(&server, "\"no_ranges\": true");
	assert_int_equal(objstore_get_range(s, "k", 3, 4, &b, &size, NULL), 0);
	assert_string_equal(buf_str(&b), "3456");
	assert_int_equal(size, 10);
	buf_clear(&b);
	assert_int_equal(objstore_get_range(s, "k", 8, 0, &b, &size, NULL), 0);
	assert_string_equal(buf_str(&b), "89");
	buf_free(&b);
}

static void copies_fail_late_and_are_made_again(void **state)
{
	struct objstore *s = plain(state);
	struct buf b = BUF_INIT(100);

	assert_int_equal(put(s, "from/%a+b", "bytes"), 0);
	s3fix_odd(&server, "\"error_in_200\": {\"n\": 1}");
	assert_int_equal(objstore_copy(s, "from/%a+b", "to", NULL), 0);
	assert_int_equal(stats(s, OBJ_COPY).requests, 2);
	assert_int_equal(objstore_get(s, "to", &b, NULL, NULL), 0);
	assert_string_equal(buf_str(&b), "bytes");
	assert_int_equal(objstore_copy(s, "none", "to", NULL), ERR_NOTFOUND);
	buf_free(&b);
}

/* --- headers --- */

static void done_nothing(struct objstore_op *op)
{
	*(int *)op->ctx = 1;
}

static void an_objects_class_encryption_lock_and_checksum_are_sent(void **state)
{
	struct objstore_put_opts opts = { .storage_class = "STANDARD_IA", .retain_until = 1795341600, .legal_hold = true };
	struct objstore_settings set = s3fix_settings(&server);
	struct iovec iov = { (char *)(uintptr_t)"x", 1 };
	int done = 0;
	struct objstore_op op = { .verb = OBJ_PUT, .key = "k", .iov = &iov, .n_iov = 1, .put = &opts, .done = done_nothing, .ctx = &done };
	struct objstore *s;

	set.sse = "aws:kms";
	set.sse_kms_key = "key-1";
	set.checksum = "sha256";
	s = open_with(state, &set);
	objstore_submit(s, &op);
	objstore_close(&s);
	*state = NULL;
	assert_int_equal(op.rc, 0);
	assert_true(seen("\"x-amz-storage-class\": \"STANDARD_IA\""));
	assert_true(seen("\"x-amz-object-lock-mode\": \"COMPLIANCE\""));
	assert_true(seen("\"x-amz-object-lock-retain-until-date\": \"2026-11-22T10:00:00Z\""));
	assert_true(seen("\"x-amz-object-lock-legal-hold\": \"ON\""));
	assert_true(seen("\"x-amz-server-side-encryption\": \"aws:kms\""));
	assert_true(seen("\"x-amz-server-side-encryption-aws-kms-key-id\": \"key-1\""));
	assert_true(seen("\"x-amz-checksum-sha256\": \"LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=\""));
	assert_true(seen("\"content-md5\": "));
}

static void damaged_bytes_are_noticed_by_the_stores_checksum(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct buf b = BUF_INIT(100);
	struct objstore *s;

	set.checksum = "sha256";
	s = open_with(state, &set);
	assert_int_equal(put(s, "k", "0123456789"), 0);
	s3fix_odd(&server, "\"flip\": {\"n\": 1, \"method\": \"GET\"}");
	assert_int_equal(objstore_get(s, "k", &b, NULL, NULL), 0);
	assert_string_equal(buf_str(&b), "0123456789");
	assert_int_equal(stats(s, OBJ_GET).requests, 2);
	buf_free(&b);
}

static char *file(const char *name, const char *text)
{
	char *path = mem_printf("%s/%s", dir, name);
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	return path;
}

static void a_key_of_ours_goes_with_every_request(void **state)
{
	char *path = file("ssec", "0123456789abcdef0123456789abcdef");
	struct objstore_settings set = s3fix_settings(&server);
	struct buf b = BUF_INIT(10);
	struct objstore *s;

	set.sse = "customer";
	set.sse_customer_key = path;
	s = open_with(state, &set);
	assert_int_equal(put(s, "k", "x"), 0);
	assert_int_equal(objstore_get(s, "k", &b, NULL, NULL), 0);
	assert_int_equal(objstore_head(s, "k", NULL, NULL), 1);
	assert_int_equal(s3fix_seen(&server, "\"x-amz-server-side-encryption-customer-key\": \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\""), 3 + 1);	/* and as the object's own */
	buf_free(&b);
	free(path);
}

/* --- answers that name the mistake --- */

static void expect_error(struct objstore *s, int code, const char *text)
{
	struct buf b = BUF_INIT(10);
	struct err err = ERR_INIT;

	assert_int_equal(objstore_get(s, "k", &b, NULL, &err), code);
	if (!strstr(err.msg, text))
		fail_msg("\"%s\" lacks \"%s\"", err.msg, text);
	buf_free(&b);
}

static void mistakes_in_the_settings_are_named(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct err err = ERR_INIT;
	struct objstore *s;

	s = open_with(state, &set);
	s3fix_odd(&server, "\"region\": \"eu-central-9\"");
	expect_error(s, ERR_DENIED, "region eu-central-9");
	objstore_close(&s);
	s3fix_odd(&server, "");
	set.bucket = "no-such-bucket";
	s = open_with(state, &set);
	expect_error(s, ERR_UNAVAILABLE, "make the bucket");	/* never "no such object" */
	objstore_close(&s);
	set.bucket = "testbucket";
	set.secret_key = "wrong";
	s = open_with(state, &set);
	expect_error(s, ERR_DENIED, "secret_key");
	objstore_close(&s);
	*state = NULL;
	set.endpoint = "ftp://x";
	assert_int_equal(objstore_open(&set, &s, &err), ERR_INVALID);
	assert_non_null(strstr(err.msg, "ftp://x"));
}

static void a_wrong_clock_is_made_up_for(void **state)
{
	struct objstore *s = plain(state);

	s3fix_odd(&server, "\"skew\": 7200");
	assert_int_equal(put(s, "k", "x"), 0);
	assert_int_equal(put(s, "k", "x"), 0);
	assert_int_equal(stats(s, OBJ_PUT).requests, 3);
}

/* --- keys --- */

static struct objstore_settings without_keys(const char *source)
{
	struct objstore_settings set = s3fix_settings(&server);

	set.access_key = set.secret_key = NULL;
	set.credentials = source;
	return set;
}

static void keys_come_from_the_environment(void **state)
{
	struct objstore_settings set = without_keys("auto");
	struct objstore *s;

	setenv("AWS_ACCESS_KEY_ID", "ASIATEMP", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "tempSecret", 1);
	setenv("AWS_SESSION_TOKEN", "temp-token/+=", 1);
	s = open_with(state, &set);
	assert_int_equal(put(s, "k", "x"), 0);
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	unsetenv("AWS_SESSION_TOKEN");
	assert_true(seen("\"x-amz-security-token\": \"temp-token/+=\""));
}

static void keys_come_from_a_file_and_are_read_again_when_refused(void **state)
{
	char *path = file("credentials", "[default]\naws_access_key_id = AKIDOLD\naws_secret_access_key = x\n");
	struct objstore_settings set = without_keys("file");
	struct objstore *s;

	set.credentials_file = path;
	s = open_with(state, &set);
	assert_int_equal(put(s, "k", "x"), ERR_DENIED);
	free(file("credentials", "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = fileSecret\n"));
	assert_int_equal(put(s, "k", "x"), 0);
	free(path);
}

static void keys_come_from_instance_metadata_and_are_renewed(void **state)
{
	struct objstore_settings set = without_keys("imds");
	struct objstore *s;

	set.imds_endpoint = server.endpoint;
	s = open_with(state, &set);
	assert_int_equal(put(s, "k", "x"), 0);
	assert_true(seen("Credential=ASIATEMP/"));
	s3fix_odd(&server, "\"expired\": \"ASIATEMP\"");
	assert_int_equal(put(s, "k", "x"), 0);
	assert_true(seen("Credential=ASIAROLE/"));
}

static void keys_with_a_short_life_are_not_fetched_for_each_request(void **state)
{
	struct objstore_settings set = without_keys("imds");
	struct objstore *s;
	int i;

	set.imds_endpoint = server.endpoint;
	s3fix_odd(&server, "\"lifetime\": 100");
	s = open_with(state, &set);
	for (i = 0; i < 5; i++)
		assert_int_equal(put(s, "k", "x"), 0);
	assert_int_equal(s3fix_seen(&server, "/latest/api/token"), 1);
}

static void keys_that_end_too_soon_are_not_used(void **state)
{
	struct objstore_settings set = without_keys("imds");
	struct objstore *s;

	set.imds_endpoint = server.endpoint;
	set.timeout_ms = 2000;
	s3fix_odd(&server, "\"lifetime\": 5");
	s = open_with(state, &set);
	assert_true(put(s, "k", "x") < 0);
	assert_false(seen("Credential=ASIATEMP/"));
}

static void keys_come_from_web_identity(void **state)
{
	char *path = file("token", "web/identity+token\n");
	struct objstore_settings set = without_keys("web-identity");
	struct objstore *s;

	set.sts_endpoint = server.endpoint;
	set.role_arn = "arn:aws:iam::1:role/mail";
	set.web_identity_token_file = path;
	s = open_with(state, &set);
	assert_int_equal(put(s, "k", "x"), 0);
	assert_true(seen("Credential=ASIAROLE/"));
	objstore_close(&s);
	set.role_arn = "arn:aws:iam::1:role/other";
	s = open_with(state, &set);
	expect_error(s, ERR_DENIED, "not you");
	free(path);
}

static void without_keys_it_is_told_where_they_were_looked_for(void **state)
{
	struct objstore_settings set = without_keys("file");
	struct objstore *s;

	set.credentials_file = "/nonexistent/credentials";
	s = open_with(state, &set);
	expect_error(s, ERR_DENIED, "/nonexistent/credentials");
}

/* --- networks --- */

static void the_bucket_can_stand_in_the_hosts_name(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	char *endpoint = mem_printf("http://localhost:%u", server.port), *host = mem_printf("\"host\": \"testbucket.localhost:%u\"", server.port);
	struct objstore *s;

	set.endpoint = endpoint;
	set.addressing = "virtual";
	s = open_with(state, &set);
	assert_int_equal(put(s, "k/1", "x"), 0);
	assert_int_equal(objstore_head(s, "k/1", NULL, NULL), 1);
	assert_true(seen(host));
	free(host);
	free(endpoint);
}

static void a_proxy_is_asked(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct objstore *s;

	set.proxy = server.endpoint;
	set.endpoint = "http://store.invalid:8080";
	s = open_with(state, &set);
	assert_int_equal(put(s, "k", "x"), 0);
	assert_true(seen("\"host\": \"store.invalid:8080\""));
}

static void run(const char *command)
{
	assert_int_equal(system(command), 0);
}

static void make_cert(const char *name)
{
	char *command = mem_printf("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=%s "
				   "-addext subjectAltName=IP:127.0.0.1 -keyout %s/%s.key -out %s/%s.crt 2>/dev/null", name, dir, name, dir, name);

	run(command);
	free(command);
}

static void certificates_of_both_sides_are_checked(void **state)
{
	char *crt = mem_printf("%s/server.crt", dir), *key = mem_printf("%s/server.key", dir);
	char *our_crt = mem_printf("%s/client.crt", dir), *our_key = mem_printf("%s/client.key", dir);
	const char *args[] = { crt, key, our_crt, NULL };
	struct objstore_settings set;
	struct s3fix tls;
	struct objstore *s;

	make_cert("server");
	make_cert("client");
	assert_int_equal(s3fix_start(&tls, args), 0);
	set = s3fix_settings(&tls);
	set.timeout_ms = 4000;
	set.ca_file = crt;
	set.cert_file = our_crt;
	set.key_file = our_key;
	s = open_with(state, &set);
	assert_int_equal(put(s, "k", "x"), 0);
	objstore_close(&s);
	set.ca_file = our_crt;	/* not who signed the server's */
	s = open_with(state, &set);
	expect_error(s, ERR_UNAVAILABLE, "ca_file");
	objstore_close(&s);
	set.ca_file = crt;
	set.cert_file = set.key_file = NULL;
	s = open_with(state, &set);
	assert_int_equal(put(s, "k", "x") < 0, 1);
	objstore_close(&s);
	*state = NULL;
	s3fix_stop(&tls);
	free(crt);
	free(key);
	free(our_crt);
	free(our_key);
}

static int by_number(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* radosgw's default: Nagle's algorithm, and head and body written apart. */
static void no_get_waits_for_a_delayed_acknowledgement(void **state)
{
	struct objstore *s = plain(state);
	int64_t us[20], t;
	int i;

	assert_int_equal(put(s, "k", "0123456789"), 0);
	s3fix_odd(&server, "\"split_body\": true, \"nagle\": true");
	for (i = 0; i < 20; i++) {
		struct buf b = BUF_INIT(100);

		t = clock_mono_us(&clock_system);
		assert_int_equal(objstore_get(s, "k", &b, NULL, NULL), 0);
		us[i] = clock_mono_us(&clock_system) - t;
		buf_free(&b);
	}
	qsort(us, 20, sizeof(us[0]), by_number);
	assert_true(us[5] < 35000);	/* with the delay not one is below 40 ms */
}

/* --- the probe --- */

static void probe(struct objstore *s, struct probe_result *r)
{
	struct err err = ERR_INIT;

	if (probe_run(s, "test", 2, r, &err) < 0)
		fail_msg("%s", err.msg);
}

static void a_good_store_passes(void **state)
{
	struct probe_result *r = MEM_NEW(struct probe_result), *kept = MEM_NEW(struct probe_result);
	char *path = mem_printf("%s/probe.json", dir);
	struct objstore *s = plain(state);
	int i;

	probe(s, r);
	for (i = 0; i < PROBE_N; i++)
		assert_int_equal(r->state[i], PROBE_HOLDS);
	assert_int_equal(r->etag_form, 1);
	assert_int_equal(probe_judge(r, PROBE_FOR_INDEX, "index_store", NULL), 0);
	assert_int_equal(probe_save(r, path, NULL), 0);
	assert_int_equal(probe_load(kept, path, NULL), 1);
	assert_memory_equal(kept->state, r->state, sizeof(r->state));
	assert_int_equal(kept->caps, r->caps);
	assert_true(seen("\"objects\": {}"));	/* it cleans up */
	free(r);
	free(kept);
	free(path);
}

static void refused(void **state, const char *odd, enum probe_check check, const char *text)
{
	struct probe_result *r = MEM_NEW(struct probe_result);
	struct objstore *s = plain(state);
	struct err err = ERR_INIT;

	s3fix_odd(&server, odd);
	probe(s, r);
	assert_int_equal(r->state[check], PROBE_FAILS);
	assert_int_equal(probe_judge(r, PROBE_FOR_MAIL, "mail_store", NULL), 0);
	assert_int_equal(probe_judge(r, PROBE_FOR_INDEX, "index_store", &err), ERR_INVALID);
	if (!strstr(err.msg, text) || !strstr(err.msg, "Use a store with conditional writes"))
		fail_msg("%s", err.msg);
	assert_int_equal(r->caps & (OBJ_CAP_CREATE | OBJ_CAP_MATCH), 0);
	free(r);
}

static void a_store_that_ignores_conditions_is_refused(void **state)
{
	refused(state, "\"ignore_conditions\": true", PROBE_CREATE, "ignored");
}

static void a_store_that_knows_no_conditions_is_refused(void **state)
{
	refused(state, "\"no_conditions\": true", PROBE_CREATE, "refuse");
}

static void a_store_that_checks_and_then_writes_is_refused(void **state)
{
	refused(state, "\"not_atomic\": true", PROBE_CREATE_RACE, "racing writers");
}

static void an_unquoting_store_passes_and_is_remarked(void **state)
{
	struct probe_result *r = MEM_NEW(struct probe_result);
	struct objstore *s = plain(state);

	s3fix_odd(&server, "\"unquoted\": true, \"lost_cas_status\": 500");
	probe(s, r);
	assert_int_equal(r->etag_form, 2);
	assert_int_equal(r->state[PROBE_MATCH_RACE], PROBE_HOLDS);
	assert_non_null(strstr(r->text[PROBE_MATCH], "without quotes"));
	assert_int_equal(probe_judge(r, PROBE_FOR_INDEX, "index_store", NULL), 0);
	free(r);
}

static void a_store_that_cannot_be_reached_is_not_judged(void **state)
{
	struct objstore_settings set = s3fix_settings(&server);
	struct probe_result *r = MEM_NEW(struct probe_result);
	struct err err = ERR_INIT;
	struct objstore *s;

	set.secret_key = "wrong";
	s = open_with(state, &set);
	assert_int_equal(probe_run(s, "test", 1, r, &err), ERR_DENIED);
	assert_non_null(strstr(err.msg, "SignatureDoesNotMatch"));
	free(r);
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(thousands_are_deleted_in_thousands), T(without_multi_delete_each_is_deleted), T(lists_go_on_over_pages),
		T(large_objects_go_in_parts), T(conditional_ones_are_one_request), T(a_failed_upload_is_aborted),
		T(a_completion_whose_answer_was_lost_is_no_failure), T(a_completion_without_an_etag_is_looked_up), T(a_store_without_ranges_gives_ranges_all_the_same),
		T(copies_fail_late_and_are_made_again), T(an_objects_class_encryption_lock_and_checksum_are_sent),
		T(damaged_bytes_are_noticed_by_the_stores_checksum), T(a_key_of_ours_goes_with_every_request), T(mistakes_in_the_settings_are_named), T(a_wrong_clock_is_made_up_for),
		T(keys_come_from_the_environment), T(keys_come_from_a_file_and_are_read_again_when_refused),
		T(keys_come_from_instance_metadata_and_are_renewed), T(keys_with_a_short_life_are_not_fetched_for_each_request), T(keys_that_end_too_soon_are_not_used),
		T(keys_come_from_web_identity), T(without_keys_it_is_told_where_they_were_looked_for),
		T(the_bucket_can_stand_in_the_hosts_name), T(a_proxy_is_asked), T(certificates_of_both_sides_are_checked),
		T(no_get_waits_for_a_delayed_acknowledgement),
		T(a_good_store_passes), T(a_store_that_ignores_conditions_is_refused), T(a_store_that_knows_no_conditions_is_refused),
		T(a_store_that_checks_and_then_writes_is_refused), T(an_unquoting_store_passes_and_is_remarked),
		T(a_store_that_cannot_be_reached_is_not_judged),
	};
	int rc;

	log_init("t_s3_more", LOG_ERROR, LOG_FMT_TEXT);
	log_set_level(LOG_ERROR);
	if (!mkdtemp(dir) || s3fix_start(&server, NULL) < 0)
		return 99;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	s3fix_stop(&server);
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	return rc;
}
