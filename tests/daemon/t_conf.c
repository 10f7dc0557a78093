/* Tests of the settings: mistakes and where they are, units, printing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/err.h"
#include "base/io.h"
#include "base/mem.h"
#include "daemon/conf.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/culver-conf-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static char *write_file(const char *name, const char *text)
{
	char *path = mem_printf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	return path;
}

/* Loads text from a file; the complaints, with the file's name cut to "F", must be want. */
static void assert_complaints(const char *text, const char *want)
{
	char *path = write_file("culver.conf", text), *p;
	struct buf complaints = BUF_INIT(0), got = BUF_INIT(0);
	struct conf c;
	int rc = conf_load(path, &c, &complaints);

	for (p = (char *)(uintptr_t)buf_str(&complaints); *p; ) {
		if (!strncmp(p, path, strlen(path))) {
			buf_addc(&got, 'F');
			p += strlen(path);
		} else {
			buf_addc(&got, *p++);
		}
	}
	assert_string_equal(buf_str(&got), want);
	assert_int_equal(rc, *want ? ERR_INVALID : 0);
	conf_free(&c);
	buf_free(&complaints);
	buf_free(&got);
	free(path);
}

static void an_empty_file_is_the_defaults(void **state)
{
	char *path = write_file("empty.conf", "# nothing\n");
	struct buf complaints = BUF_INIT(0);
	struct conf c;

	assert_int_equal(conf_load(path, &c, &complaints), 0);
	assert_true(c.flag_commit_delay == 1000 && c.grace_period == UINT64_C(7) * 86400000 && c.limits.message_size == 150 << 20);
	assert_true(c.worker_count >= 1 && c.listen.n == 3);
	assert_string_equal(conf_listener(&c, 0)->address.v[0], "127.0.0.1");
	assert_int_equal(conf_listener(&c, 2)->protocol, CONF_LMTP);
	assert_string_equal(c.recipient_delimiter, "+");
	conf_free(&c);
	buf_free(&complaints);
	free(path);
}

static void mistakes_are_told_with_their_line_and_a_suggestion(void **state)
{
	assert_complaints("\n\nworkr_count = 3\n", "F:3: unknown setting \"workr_count\": did you mean \"worker_count\"?\n");
	assert_complaints("limits {\n\tmesage_size = 3\n}\n", "F:2: unknown setting \"mesage_size\" in section \"limits\": did you mean \"message_size\"?\n");
	assert_complaints("message_size = 1M\n", "F:1: unknown setting \"message_size\": it belongs in the section \"limits\"\n");
	assert_complaints("mail_store {\n log = stderr\n}\n", "F:2: unknown setting \"log\" in section \"mail_store\": it belongs outside of any section\n");
	assert_complaints("zzz = 1\n", "F:1: unknown setting \"zzz\"\n");
	assert_complaints("worker_count = many\n", "F:1: worker_count = \"many\": write a whole number\n");
	assert_complaints("worker_count = 65\n", "F:1: worker_count = \"65\": it can be from 0 to 64\n");
	assert_complaints("grace_period = 7x\n", "F:1: grace_period = \"7x\": write a time like 250ms, 30s, 10m, 12h or 7d\n");
	assert_complaints("cache_size = \"5 bananas\"\n", "F:1: cache_size = \"5 bananas\": write a size like 512, 64K, 100M or 2G\n");
	assert_complaints("cache_size = 1K\n", "F:1: cache_size = \"1K\": it can be from 1M to 1T\n");
	assert_complaints("log_level = wran\n", "F:1: log_level = \"wran\": did you mean \"warn\"? It can be debug, info, warn or error\n");
	assert_complaints("lmtp_save_to_detail_mailbox = maybe\n", "F:1: lmtp_save_to_detail_mailbox = \"maybe\": write yes or no\n");
}

static void a_prefix_that_cannot_begin_a_name_is_told_at_once(void **state)
{
	static const char *const wrong[] = { "mail/", "/mail", "/", "a//b", ".", "a/../b", "a b" };
	char text[100], want[200];
	size_t i;

	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		snprintf(text, sizeof(text), "mail_store {\n prefix = \"%s\"\n}\n", wrong[i]);
		snprintf(want, sizeof(want), "mail_store: prefix = \"%s\": write it like mail or mail/culver, no slash at either end\n", wrong[i]);
		assert_complaints(text, want);
	}
	assert_complaints("mail_store {\n prefix = a/b..c/...\n}\n", "");
}

static void stores_for_messages_only_want_an_index_elsewhere(void **state)
{
	assert_complaints("mail_store {\n driver = sproxyd\n url = {http://a:81, http://b:81}\n}\nindex_store { driver = posix }\n", "");
	assert_complaints("mail_store {\n driver = sproxyd\n url = http://a:81\n service_id = 0xd1\n class = 1\n profile = bparc\n}\nindex_store { driver = posix }\n", "");
	assert_complaints("mail_store {\n driver = sproxyd\n url = http://a:81\n}\n",
			  "mail_store: driver = sproxyd keeps messages only, it has no conditional writes: add index_store { driver = posix } or one with s3\n");
	assert_complaints("index_store {\n driver = sproxyd\n url = http://a:81\n}\n",
			  "index_store: driver = sproxyd keeps messages only, it has no conditional writes: use posix or s3\n");
	assert_complaints("mail_store {\n driver = sproxyd\n}\nindex_store { driver = posix }\n", "mail_store: driver = sproxyd needs url, a list of connectors\n");
	assert_complaints("mail_store {\n driver = sproxyd\n url = a:81\n service_id = 0x59\n}\nindex_store { driver = posix }\n",
			  "mail_store: url = \"a:81\": write it like http://10.0.0.1:81\nmail_store: service_id = \"0x59\": it is 0xC1 to 0xFF and not 0xC3\n");
	assert_complaints("mail_store {\n class = 7\n}\n", "F:2: class = \"7\": it can be from 0 to 5\n");
	assert_complaints("mail_store {\n driver = libs3\n bucket = mail\n}\nindex_store { driver = posix }\n",
			  "mail_store: driver = libs3 needs endpoint, access_key and secret_key\n");
	assert_complaints("mail_store { prefix = a }\nindex_store {\n driver = posix\n prefix = b\n}\n",
			  "index_store: prefix = \"b\": it is that of mail_store: leave it out\n");
}

static void all_mistakes_are_told_at_once(void **state)
{
	assert_complaints("log_level = x\nhostnam = a\nworker_count = -1\nlimits { foo = 1 }\nbar { baz = 1 }\n",
			  "F:1: log_level = \"x\": It can be debug, info, warn or error\nF:3: worker_count = \"-1\": write a whole number\n"
			  "F:2: unknown setting \"hostnam\": did you mean \"hostname\"?\nF:4: unknown setting \"foo\" in section \"limits\"\nF:5: unknown setting \"bar\"\n");
}

static void listeners_are_checked(void **state)
{
	assert_complaints("listen imap { address = {127.0.0.1, \"::1\"} port = 1143 }\nlisten lmtp { address = lmtp.sock }\n", "");
	assert_complaints("\nlisten imapx { port = 1 }\n", "F:2: listen imapx: say protocol = imap, imaps, pop3, pop3s, lmtp or node (did you mean \"imap\"?)\n");
	assert_complaints("listen imap { address = example.org }\n", "F:1: listen imap: address \"example.org\" is not an IPv4 or IPv6 address, \"*\" or a path\n");
	assert_complaints("listen imaps { }\n", "F:1: listen imaps: tls = implicit needs ssl_cert\n");
	assert_complaints("listen lmtp { tls = starttls }\n", "F:1: listen lmtp: there is no TLS with LMTP yet: use tls = no on a trusted network or a unix socket\n");
	assert_complaints("listen node { address = \"::1\" port = 4000 }\nnode_address = \"2001:db8::1\"\n", "");
	assert_complaints("listen node { tls = starttls }\n", "F:1: listen node: nodes encrypt with the deployment's key: leave tls out\n");
	assert_complaints("worker_count = 4\nlisten node { port = 65533 }\n", "F:2: listen node: port = 65533: there must be one for each worker from there on\n");
	assert_complaints("node_address = \"host:4000/\"\n", "node_address = \"host:4000/\": is a host name or an address without a port\n");
	assert_complaints("listen a { protocol = pop3 port = 65536 }\n", "F:1: port = \"65536\": it can be from 0 to 65535\n");
	assert_complaints("listen a { protocol = pop3 mode = rw }\n", "F:1: listen a: mode = \"rw\": write permissions like 0660\n");
}

static size_t listeners_of(const char *text, const char **doubt_r)
{
	char *path = write_file("listen.conf", text);
	struct buf complaints = BUF_INIT(0);
	struct conf c;
	size_t n;

	assert_int_equal(conf_load(path, &c, &complaints), 0);
	n = c.listen.n;
	*doubt_r = conf_journal_doubt(&c);
	conf_free(&c);
	buf_free(&complaints);
	free(path);
	return n;
}

static void a_node_port_is_beside_the_listeners_for_clients(void **state)
{
	const char *doubt;

	assert_int_equal(listeners_of("journal = store\nlisten node { port = 4000 }\n", &doubt), 4);
	assert_int_equal(listeners_of("journal = store\nlisten inside { protocol = node port = 4000 }\n", &doubt), 4);
	assert_int_equal(listeners_of("journal = store\nlisten node { port = 4000 }\nlisten imap { address = 127.0.0.1 }\n", &doubt), 2);
}

static void a_local_journal_where_other_servers_may_be_is_refused_or_doubted(void **state)
{
	static const char s3[] = "mail_store { driver = s3 bucket = b access_key = a secret_key = s }\n";
	char *text = mem_printf("journal = local\n%s", s3);
	const char *doubt;

	assert_complaints("listen node { port = 4000 }\njournal = local\n", "journal = local: with \"listen node\" other servers share this store, and they would "
			  "take users over without what is in this server's journal: say journal = store\n");
	listeners_of(text, &doubt);
	assert_non_null(strstr(doubt, "Leave journal out"));
	listeners_of("listen node { port = 4000 }\n", &doubt);
	assert_non_null(strstr(doubt, "say journal = store"));
	listeners_of(s3, &doubt);
	assert_null(doubt);
	listeners_of("journal = store\nlisten node { port = 4000 }\n", &doubt);
	assert_null(doubt);
	listeners_of("", &doubt);
	assert_null(doubt);
	free(text);
}

static void mistakes_of_several_settings_are_found(void **state)
{
	assert_complaints("state_dir = var\n", "state_dir and run_dir must be absolute paths\n");
	assert_complaints("recipient_delimiter = \"+-\"\n", "recipient_delimiter = \"+-\": it is one character, like +\n");
	assert_complaints("log = somewhere\n", "log = \"somewhere\": it can be stderr, syslog or an absolute path\n");
	assert_complaints("hostname = \"a b\"\n", "hostname = \"a b\": is not a host name\n");
	assert_complaints("ssl_cert = /no/such/file\n", "ssl_cert /no/such/file: No such file or directory\nssl_key /no/such/file: No such file or directory\n");
}

static void includes_are_relative_to_their_file_and_counted_in_lines(void **state)
{
	char *inner, *sub = mem_printf("%s/sub", dir);

	assert_int_equal(mkdir(sub, 0700), 0);
	inner = write_file("sub/a.conf", "hostname = inner\ninclude(\"b.conf\")\n");
	free(write_file("sub/b.conf", "worker_count = 3\n"));
	assert_complaints("include(\"sub/a.conf\")\nhostname = outer\n", "");
	assert_complaints("include(\"sub/a.conf\")\nfoo = outer\n", "F:2: unknown setting \"foo\"\n");
	free(write_file("sub/b.conf", "\nworker_count = x\n"));
	{
		char *want = mem_printf("%s/b.conf:2: worker_count = \"x\": write a whole number\n", sub);

		assert_complaints("include(\"sub/a.conf\")\n", want);
		free(want);
	}
	{
		char *want = mem_printf("F:1: include: there is no file %s\n", sub);

		assert_complaints("include(\"sub\")\n", want);
		free(want);
	}
	free(inner);
	free(sub);
}

static void an_error_in_one_file_does_not_follow_into_the_next(void **state)
{
	free(write_file("bad.conf", "hostname = \"never ends\n"));
	assert_complaints("worker_count = 2\n", "");
	{
		char *path = write_file("culver2.conf", "include(\"bad.conf\")\n");
		struct buf complaints = BUF_INIT(0);
		struct conf c;

		assert_int_equal(conf_load(path, &c, &complaints), ERR_INVALID);
		conf_free(&c);
		buf_free(&complaints);
		free(path);
	}
	assert_complaints("worker_count = 2\n", "");
}

static void a_missing_file_is_told(void **state)
{
	struct buf complaints = BUF_INIT(0);
	struct conf c;

	assert_int_equal(conf_load("/no/such/culver.conf", &c, &complaints), ERR_INVALID);
	assert_string_equal(buf_str(&complaints), "open /no/such/culver.conf: No such file or directory\n");
	conf_free(&c);
	assert_int_equal(conf_load("/tmp", &c, &complaints), ERR_INVALID);
	assert_string_equal(buf_str(&complaints), "/tmp: is not a file\n");
	conf_free(&c);
	buf_free(&complaints);
}

static void what_is_printed_reads_back_the_same(void **state)
{
	char *path = write_file("full.conf", "hostname = h.example\nlog = \"/x/$HOME \\\\ \\\"y\\\"\\n\"\nworker_count = 7\nflag_commit_delay = 250ms\ncache_size = 3M\n"
		"listen imap { address = {1.2.3.4, \"::\"} port = 99 }\nlisten x { protocol = lmtp address = s.sock mode = 600 }\nauth { allow_plaintext = nowhere }\n");
	struct buf complaints = BUF_INIT(0), one = BUF_INIT(0), two = BUF_INIT(0);
	struct conf a, b;

	assert_int_equal(conf_load(path, &a, &complaints), 0);
	settings_print(conf_table, &a, false, &one);
	assert_int_equal(conf_parse(buf_str(&one), &b, &complaints), 0);
	settings_print(conf_table, &b, false, &two);
	assert_string_equal(buf_str(&one), buf_str(&two));
	assert_string_equal(a.log, "/x/$HOME \\ \"y\"\n");
	assert_string_equal(b.log, a.log);
	assert_true(b.worker_count == 7 && b.flag_commit_delay == 250 && b.cache_size == 3 << 20 && conf_listener(&b, 1)->address.n == 1);
	assert_null(conf_needs_restart(&a, &b));
	b.worker_count = 8;
	assert_string_equal(conf_needs_restart(&a, &b), "worker_count");
	conf_keep(&a, &b);
	assert_null(conf_needs_restart(&a, &b));
	buf_clear(&two);
	settings_print(conf_table, &a, true, &two);
	assert_non_null(strstr(buf_str(&two), "worker_count = 7\n"));
	assert_null(strstr(buf_str(&two), "grace_period"));
	conf_free(&a);
	conf_free(&b);
	buf_free(&complaints);
	buf_free(&one);
	buf_free(&two);
	free(path);
}

static void sizes_and_times_have_units(void **state)
{
	static const struct { const char *text; uint64_t n; } sizes[] = { { "0", 0 }, { "512", 512 }, { "64K", 65536 }, { "1 MB", 1 << 20 }, { "2g", UINT64_C(2) << 30 } };
	static const struct { const char *text; uint64_t ms; } times[] = { { "0", 0 }, { "30", 30000 }, { "250ms", 250 }, { "10m", 600000 }, { "7d", 604800000 }, { "2w", 1209600000 } };
	static const char *const bad[] = { "", "-1", "x", "1.5K", "99999999999999999999", "18446744073709551615T", "1KK", "1 day" };
	struct buf b = BUF_INIT(0);
	uint64_t n;
	size_t i;

	for (i = 0; i < MEM_COUNT(sizes); i++) {
		assert_int_equal(settings_parse_size(sizes[i].text, &n), 0);
		assert_true(n == sizes[i].n);
	}
	for (i = 0; i < MEM_COUNT(times); i++) {
		assert_int_equal(settings_parse_time(times[i].text, &n), 0);
		assert_true(n == times[i].ms);
	}
	for (i = 0; i < MEM_COUNT(bad); i++) {
		assert_int_equal(settings_parse_size(bad[i], &n), -1);
		assert_int_equal(settings_parse_time(bad[i], &n), -1);
	}
	settings_add_size(&b, 1536);
	settings_add_size(&b, 3 << 20);
	settings_add_time(&b, 90000);
	settings_add_time(&b, 1209600000);
	assert_string_equal(buf_str(&b), "15363M90s2w");
	buf_free(&b);
}

/* The page is written by hand around what "culverd --settings-reference" prints. */
static void the_manual_page_has_every_setting_as_it_is(void **state)
{
	const char *top = getenv("top_srcdir");
	char *path = mem_printf("%s/docs/culver.conf.5", top ? top : ".."), *page = NULL;
	struct buf ref = BUF_INIT(0);
	struct err err = ERR_INIT;
	size_t len;

	settings_doc(conf_table, &ref);
	if (io_read_file(path, 1 << 20, &page, &len, &err) < 0)
		fail_msg("%s", err.msg);
	if (!strstr(page, buf_str(&ref)))
		fail_msg("docs/culver.conf.5 is out of date: put the output of culverd --settings-reference into it");
	buf_free(&ref);
	free(page);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_file_is_the_defaults),
		cmocka_unit_test(mistakes_are_told_with_their_line_and_a_suggestion),
		cmocka_unit_test(a_prefix_that_cannot_begin_a_name_is_told_at_once),
		cmocka_unit_test(stores_for_messages_only_want_an_index_elsewhere),
		cmocka_unit_test(all_mistakes_are_told_at_once),
		cmocka_unit_test(listeners_are_checked),
		cmocka_unit_test(a_node_port_is_beside_the_listeners_for_clients),
		cmocka_unit_test(a_local_journal_where_other_servers_may_be_is_refused_or_doubted),
		cmocka_unit_test(mistakes_of_several_settings_are_found),
		cmocka_unit_test(includes_are_relative_to_their_file_and_counted_in_lines),
		cmocka_unit_test(an_error_in_one_file_does_not_follow_into_the_next),
		cmocka_unit_test(a_missing_file_is_told),
		cmocka_unit_test(what_is_printed_reads_back_the_same),
		cmocka_unit_test(sizes_and_times_have_units),
		cmocka_unit_test(the_manual_page_has_every_setting_as_it_is),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
