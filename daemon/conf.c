#include "daemon/conf.h"

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <sys/un.h>
#include <unistd.h>

#define SIZE_K UINT64_C(1024)
#define SIZE_M (SIZE_K * 1024)
#define SIZE_G (SIZE_M * 1024)
#define TIME_S UINT64_C(1000)
#define TIME_D (TIME_S * 86400)

static const char *const protocols[] = { "", "imap", "imaps", "pop3", "pop3s", "lmtp", "node", NULL };
static const char *const tls_modes[] = { "auto", "no", "starttls", "implicit", NULL };
static const char *const levels[] = { "debug", "info", "warn", "error", NULL };
static const char *const formats[] = { "text", "json", NULL };
static const char *const plaintexts[] = { "loopback", "nowhere", "anywhere", NULL };
static const char *const tls_versions[] = { "TLSv1.2", "TLSv1.3", NULL };
static const char *const journals[] = { "auto", "local", "store", NULL };
static const char *const mail_drivers[] = { "posix", "s3", "sproxyd", "libs3", NULL };
static const char *const index_drivers[] = { "posix", "s3", "sproxyd", "libs3", "mail_store", NULL };
static const char *const addressings[] = { "auto", "path", "virtual", NULL };
static const char *const credential_sources[] = { "auto", "settings", "environment", "file", "imds", "web-identity", NULL };
static const char *const sses[] = { "none", "AES256", "aws:kms", "customer", NULL };
static const char *const checksums[] = { "none", "sha256", "md5", NULL };
static const char *const etag_matches[] = { "auto", "quoted", "unquoted", NULL };

#define FIELD(f) .off = offsetof(struct conf, f)
#define LFIELD(f) .off = offsetof(struct conf_listen, f)
#define SFIELD(f) .off = offsetof(struct conf_store, f)

static const struct set_opt listen_table[] = {
	{ "protocol", SET_CHOICE, LFIELD(protocol), .def = "", .choices = protocols,
	  .doc = "What is spoken there. Left out, it is the section's NAME." },
	{ "address", SET_LIST, LFIELD(address), .def = "*",
	  .doc = "IPv4 or IPv6 addresses, * for all of this machine, or the path of a unix socket (not absolute: below run_dir)." },
	{ "port", SET_UINT, LFIELD(port), .def = "0", .min = 0, .max = 65535,
	  .doc = "0 is the protocol's own: imap 143, imaps 993, pop3 110, pop3s 995, lmtp 24; for node any free one. "
		 "With node it is the first worker's, the next worker has the next." },
	{ "tls", SET_CHOICE, LFIELD(tls), .def = "auto", .choices = tls_modes,
	  .doc = "auto is implicit for imaps and pop3s, starttls for imap and pop3 when ssl_cert is set, and no for lmtp and unix sockets." },
	{ "mode", SET_STRING, LFIELD(mode), .def = "0660", .doc = "Permissions of a unix socket, octal." },
	{ .type = SET_END }
};

static const struct set_opt auth_table[] = {
	{ "database", SET_STRING, FIELD(auth.database), .def = "",
	  .doc = "The SQLite database of users and their password hashes. Left out: users.db in state_dir." },
	{ "default_domain", SET_STRING, FIELD(auth.default_domain), .def = "",
	  .doc = "A name user@domain is looked up as it is, then, when domain is this one, as user; a name without a domain also with this one added. "
		 "While this is empty any domain is taken off." },
	{ "allow_plaintext", SET_CHOICE, FIELD(auth.allow_plaintext), .def = "loopback", .choices = plaintexts,
	  .doc = "From where passwords are taken over a connection without TLS." },
	{ "cache_ttl", SET_TIME, FIELD(auth.cache_ttl), .def = "1h", .min = 0, .max = 30 * TIME_D,
	  .doc = "How long a right password is remembered (as a keyed hash in memory), so that the next login costs no password hashing. "
		 "A changed password or user counts at once all the same. 0 switches it off." },
	{ "threads", SET_UINT, FIELD(auth.threads), .def = "2", .min = 1, .max = 64, .doc = "Threads that hash passwords." },
	{ .type = SET_END }
};

static const struct set_opt limits_table[] = {
	{ "connections", SET_UINT, FIELD(limits.connections), .def = "0",
	  .doc = "Connections at one time, for each gate (not logged in, or with TLS) and each worker. 0: as many as there are file descriptors for." },
	{ "prelogin_per_ip", SET_UINT, FIELD(limits.prelogin_per_ip), .def = "100",
	  .doc = "Connections that have not logged in, from one address (IPv6: from one /64) other than loopback. 0: any number." },
	{ "prelogin_timeout", SET_TIME, FIELD(limits.prelogin_timeout), .def = "1m", .min = 500, .max = TIME_D,
	  .doc = "How long a connection may last without a login." },
	{ "login_attempts", SET_UINT, FIELD(limits.login_attempts), .def = "5", .min = 1, .max = 1000,
	  .doc = "Failed logins after which a connection is closed." },
	{ "failure_delay_max", SET_TIME, FIELD(limits.failure_delay_max), .def = "15s", .min = 0, .max = 3600 * TIME_S,
	  .doc = "The answer to a failed login waits half a second, twice as long for each further failure from that address, and at most this." },
	{ "message_size", SET_SIZE, FIELD(limits.message_size), .def = "150M", .min = SIZE_K, .max = 16 * SIZE_G,
	  .doc = "Largest message taken by LMTP and APPEND." },
	{ "imap_command_size", SET_SIZE, FIELD(limits.imap_command_size), .def = "1M", .min = 8 * SIZE_K, .max = 64 * SIZE_M,
	  .doc = "Longest IMAP command, its literals other than messages included." },
	{ "lmtp_recipients", SET_UINT, FIELD(limits.lmtp_recipients), .def = "1000", .min = 100, .max = 100000,
	  .doc = "Recipients of one LMTP transaction." },
	{ .type = SET_END }
};

#define STORE_TABLE(name, drivers, driver_def, driver_doc) \
static const struct set_opt name[] = { \
	{ "driver", SET_CHOICE, SFIELD(driver), .def = driver_def, .choices = drivers, .doc = driver_doc }, \
	STORE_ROWS \
	{ .type = SET_END } \
}

#define STORE_ROWS \
	{ "path", SET_STRING, SFIELD(path), .def = "", \
	  .doc = "The directory of the posix driver. Left out: store in state_dir." }, \
	{ "prefix", SET_STRING, SFIELD(prefix), .def = "", \
	  .doc = "What every key in the store begins with, so that several installations can share one." }, \
	{ "url", SET_LIST, SFIELD(url), .def = "", \
	  .doc = "The connectors of sproxyd, like {http://10.0.0.1:81, http://10.0.0.2:81}. One is asked until it fails, then the next; one that failed is tried again about each second." }, \
	{ "class", SET_UINT, SFIELD(class), .def = "2", .min = 0, .max = 5, \
	  .doc = "The class of service in sproxyd's keys: the number of copies beside the first. Profiles with erasure coding (arc) want 2. It is part of an object's key: never change it while there is mail." }, \
	{ "service_id", SET_STRING, SFIELD(service_id), .def = "0xC4", \
	  .doc = "The service id in sproxyd's keys, 0xC1 to 0xFF but not 0xC3; others in the ring use others. Never change it while there is mail." }, \
	{ "endpoint", SET_STRING, SFIELD(endpoint), .def = "", \
	  .doc = "URL of the S3 service, like https://s3.example.org or http://10.0.0.1:8080. Left out: that of AWS for region." }, \
	{ "region", SET_STRING, SFIELD(region), .def = "us-east-1", \
	  .doc = "The region requests are signed for. Stores other than AWS mostly take any." }, \
	{ "bucket", SET_STRING, SFIELD(bucket), .def = "", \
	  .doc = "The bucket; it must be there." }, \
	{ "addressing", SET_CHOICE, SFIELD(addressing), .def = "auto", .choices = addressings, \
	  .doc = "Where the bucket's name goes: path is https://host/bucket/key, virtual is https://bucket.host/key; auto is virtual with AWS and path with an endpoint." }, \
	{ "credentials", SET_CHOICE, SFIELD(credentials), .def = "auto", .choices = credential_sources, \
	  .doc = "Where the access key comes from. auto takes the first that is there: access_key and secret_key here, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment, web identity, the credentials file, instance metadata. Keys that expire are renewed in time." }, \
	{ "access_key", SET_STRING, SFIELD(access_key), .def = "", \
	  .doc = "The access key." }, \
	{ "secret_key", SET_STRING, SFIELD(secret_key), .def = "", \
	  .doc = "Its secret. Whoever can read this file has it; a credentials file or an instance's role keeps it out of here." }, \
	{ "session_token", SET_STRING, SFIELD(session_token), .def = "", \
	  .doc = "The token that belongs to temporary keys." }, \
	{ "credentials_file", SET_STRING, SFIELD(credentials_file), .def = "", \
	  .doc = "A file with [profile] sections as AWS tools write it; it is read again when it changes. Left out: AWS_SHARED_CREDENTIALS_FILE, or ~/.aws/credentials." }, \
	{ "profile", SET_STRING, SFIELD(profile), .def = "", \
	  .doc = "With s3 the section of the credentials file; left out: AWS_PROFILE, or default. With sproxyd the name of the profile in its configuration: chord (which is the default) or arc by key, bpchord or bparc by path; whatever begins with bp is taken to be by path." }, \
	{ "role_arn", SET_STRING, SFIELD(role_arn), .def = "", \
	  .doc = "The role of web identity. Left out: AWS_ROLE_ARN." }, \
	{ "web_identity_token_file", SET_STRING, SFIELD(web_identity_token_file), .def = "", \
	  .doc = "The token of web identity. Left out: AWS_WEB_IDENTITY_TOKEN_FILE." }, \
	{ "imds_endpoint", SET_STRING, SFIELD(imds_endpoint), .def = "", \
	  .doc = "URL of the instance metadata service. Left out: http://169.254.169.254." }, \
	{ "sts_endpoint", SET_STRING, SFIELD(sts_endpoint), .def = "", \
	  .doc = "URL of the token service of web identity. Left out: that of AWS for region." }, \
	{ "ca_file", SET_STRING, SFIELD(ca_file), .def = "", \
	  .doc = "Certificates to trust, PEM, instead of the system's." }, \
	{ "cert_file", SET_STRING, SFIELD(cert_file), .def = "", \
	  .doc = "Our certificate, PEM, where the store wants one." }, \
	{ "key_file", SET_STRING, SFIELD(key_file), .def = "", \
	  .doc = "Its private key, PEM. Left out: it is in cert_file." }, \
	{ "proxy", SET_STRING, SFIELD(proxy), .def = "", \
	  .doc = "URL of a proxy (http, https, socks5, socks5h). The environment's proxies are not used." }, \
	{ "storage_class", SET_STRING, SFIELD(storage_class), .def = "", \
	  .doc = "Storage class of new objects. Left out: the bucket's." }, \
	{ "sse", SET_CHOICE, SFIELD(sse), .def = "none", .choices = sses, \
	  .doc = "Encryption by the store, beside our own: AES256 with its keys, aws:kms with a key of its key service, customer with a key of ours." }, \
	{ "sse_kms_key", SET_STRING, SFIELD(sse_kms_key), .def = "", \
	  .doc = "Id of the key for sse = aws:kms. Left out: the bucket's." }, \
	{ "sse_customer_key", SET_STRING, SFIELD(sse_customer_key), .def = "", \
	  .doc = "File with the key for sse = customer: 32 octets, or their base64. What it encrypted is lost without it." }, \
	{ "checksum", SET_CHOICE, SFIELD(checksum), .def = "none", .choices = checksums, \
	  .doc = "A checksum sent beside the signature, which covers the body already. A store that keeps sha256 gives it back, and whole objects are compared with it when they are read." }, \
	{ "etag_match", SET_CHOICE, SFIELD(etag_match), .def = "auto", .choices = etag_matches, \
	  .doc = "How If-Match is written. auto finds out; older Ceph wants it unquoted." }, \
	{ "concurrency", SET_UINT, SFIELD(concurrency), .def = "128", .min = 1, .max = 1024, \
	  .doc = "Most requests at one time for each process. Fewer are sent when the store asks to slow down." }, \
	{ "timeout", SET_TIME, SFIELD(timeout), .def = "30s", .min = 1000, .max = 600 * TIME_S, \
	  .doc = "Longest an operation may take with all its retries." }, \
	{ "attempt_timeout", SET_TIME, SFIELD(attempt_timeout), .def = "10s", .min = 100, .max = 600 * TIME_S, \
	  .doc = "Longest one request may take, a second added for each megabyte; then it is tried again." }, \
	{ "connect_timeout", SET_TIME, SFIELD(connect_timeout), .def = "3s", .min = 100, .max = 60 * TIME_S, \
	  .doc = "Longest making a connection may take." }, \
	{ "multipart_size", SET_SIZE, SFIELD(multipart_size), .def = "64M", .min = 5 * SIZE_M, .max = 5 * SIZE_G, \
	  .doc = "Unconditional writes larger than this go in parts. Conditional ones are always one request." }, \
	{ "part_size", SET_SIZE, SFIELD(part_size), .def = "16M", .min = 5 * SIZE_M, .max = 5 * SIZE_G, \
	  .doc = "Size of the parts." }, \
	{ "hedge", SET_BOOL, SFIELD(hedge), .def = "yes", \
	  .doc = "A read that is slower than most is asked for a second time; one in twenty at most." },

STORE_TABLE(mail_store_table, mail_drivers, "posix", "posix: a local directory. s3: a bucket of a store that speaks S3. sproxyd: Scality's REST proxy, for messages only. libs3: a bucket of an old appliance that knows Signature Version 2 only, for messages only, where Culver was built with libs3. The last two need an index_store of another kind.");
STORE_TABLE(index_store_table, index_drivers, "mail_store", "As in mail_store; mail_store is that store. sproxyd and libs3 have no conditional writes and are refused here.");

const struct set_opt conf_table[] = {
	{ "state_dir", SET_STRING, FIELD(state_dir), .def = LOCALSTATEDIR "/lib/culver", .doc_def = "usually /var/lib/culver", .doc = "Users, keys, journals, caches, and the store unless it is elsewhere." },
	{ "run_dir", SET_STRING, FIELD(run_dir), .def = RUNSTATEDIR "/culver", .doc_def = "usually /run/culver", .doc = "Sockets and the pid file." },
	{ "hostname", SET_STRING, FIELD(hostname), .def = "", .doc = "The name in greetings and of this node. Left out: that of the machine." },
	{ "user", SET_STRING, FIELD(user), .def = "",
	  .doc = "User the workers and the auth process become when culverd is started as root. Left out: they stay what they are." },
	{ "group", SET_STRING, FIELD(group), .def = "", .doc = "Group for user. Left out: that user's own." },
	{ "gate_user", SET_STRING, FIELD(gate_user), .def = "nobody", .doc = "User the gates become when culverd is started as root; they own nothing and see an empty directory." },
	{ "log", SET_STRING, FIELD(log), .def = "stderr", .doc = "stderr, syslog, or the absolute path of a file (opened again at reload)." },
	{ "log_level", SET_CHOICE, FIELD(log_level), .def = "info", .choices = levels, .doc = "What is logged: this and all that is worse." },
	{ "log_format", SET_CHOICE, FIELD(log_format), .def = "text", .choices = formats, .doc = "text is key=value; json is one object in a line." },
	{ "gate_count", SET_UINT, FIELD(gate_count), .def = "1", .min = 1, .max = 64, .doc = "Gate processes." },
	{ "worker_count", SET_UINT, FIELD(worker_count), .def = "0", .min = 0, .max = 64, .doc = "Worker processes. 0: one for each core, or with the journal in the store one for four cores. Users are spread over them by name." },
	{ "worker_threads_max", SET_UINT, FIELD(worker_threads_max), .def = "128", .min = 2, .max = 1024, .doc = "Most threads a worker runs sessions on; it has no more than it needs." },
	{ "stop_timeout", SET_TIME, FIELD(stop_timeout), .def = "30s", .min = TIME_S, .max = 3600 * TIME_S,
	  .doc = "How long a stop may take before what still runs is killed. Killing loses nothing that was acknowledged." },
	{ "ssl_cert", SET_STRING, FIELD(ssl_cert), .def = "", .doc = "Certificate with its chain, PEM. Without it there is no TLS." },
	{ "ssl_key", SET_STRING, FIELD(ssl_key), .def = "", .doc = "Its private key, PEM. Left out: it is in ssl_cert." },
	{ "ssl_min_protocol", SET_CHOICE, FIELD(ssl_min_protocol), .def = "TLSv1.2", .choices = tls_versions, .doc = "Oldest version of TLS that is spoken." },
	{ "ssl_cipher_list", SET_STRING, FIELD(ssl_cipher_list), .def = "", .doc = "Ciphers of TLS 1.2 in OpenSSL's notation. Left out: OpenSSL's own choice." },
	{ "ssl_ciphersuites", SET_STRING, FIELD(ssl_ciphersuites), .def = "", .doc = "Ciphers of TLS 1.3. Left out: OpenSSL's own choice." },
	{ "journal", SET_CHOICE, FIELD(journal), .def = "auto", .choices = journals,
	  .doc = "Where changes are first written. auto: local when the index store is a directory, else store. local: a file in state_dir; this must be and stay the only server on its store, as another one would lose acknowledged mail (with a \"listen node\" it is refused). "
		 "store: the store; any number of servers may share it, each with a \"listen node\", and what is lost with a server's disk was never acknowledged." },
	{ "node_address", SET_STRING, FIELD(node_address), .def = "",
	  .doc = "The name or address under which other servers that share the store reach this one's \"listen node\". Left out: the address of that section, or hostname when that is *." },
	{ "recipient_delimiter", SET_STRING, FIELD(recipient_delimiter), .def = "+", .doc = "In user+detail@domain: what parts the user from the detail. Empty: nothing does." },
	{ "lmtp_save_to_detail_mailbox", SET_BOOL, FIELD(lmtp_save_to_detail_mailbox), .def = "no",
	  .doc = "Mail for user+detail goes to the mailbox detail when there is one, otherwise to INBOX." },
	{ "flag_commit_delay", SET_TIME, FIELD(flag_commit_delay), .def = "1s", .min = 0, .max = 60 * TIME_S,
	  .doc = "Flag changes are durable after at most this; 0: before they are acknowledged." },
	{ "grace_period", SET_TIME, FIELD(grace_period), .def = "7d", .min = 0, .max = 3650 * TIME_D, .doc = "How long expunged mail can be brought back." },
	{ "cache_size", SET_SIZE, FIELD(cache_size), .def = "256M", .min = SIZE_M, .max = 1024 * SIZE_G,
	  .doc = "Memory in all workers together for users nobody is logged in as; and as much (but 64M for each worker at least) for what lists and searches read." },
	{ "fscache_size", SET_SIZE, FIELD(fscache_size), .def = "1G", .min = 0, .max = 1024 * 1024 * SIZE_G,
	  .doc = "Disk below state_dir in all workers together for copies of messages, sealed as they are in a store over the network; never more. 0: none. "
		 "With a directory as mail_store there are none." },
	{ "metacache_size", SET_SIZE, FIELD(metacache_size), .def = "1G", .min = 0, .max = 1024 * SIZE_G,
	  .doc = "Disk below state_dir in all workers together for copies of users' indexes and logs, sealed as they are in a store over the network, so that users who come back, or "
		 "a restart, cost it next to nothing; never more, and a quarter of a worker's part at most for one user. 0: none. With a directory as index_store there are none: "
		 "reading them there again is as quick." },
	{ "auth", SET_SECTION, .sub = auth_table, .doc = "Users and passwords." },
	{ "limits", SET_SECTION, .sub = limits_table, .doc = "What clients may use up." },
	{ "mail_store", SET_SECTION, FIELD(mail_store), .sub = mail_store_table, .doc = "Where messages are kept." },
	{ "index_store", SET_SECTION, FIELD(index_store), .sub = index_store_table,
	  .doc = "Where all the rest is kept: logs, snapshots, owners. It must have working conditional writes, which is tried at start." },
	{ "listen", SET_SECTIONS, FIELD(listen), .sub = listen_table, .sub_size = sizeof(struct conf_listen),
	  .doc = "A place to accept connections at. Without any such section there are imap and pop3 on loopback, with ssl_cert "
		 "imap, imaps, pop3 and pop3s on all addresses, and always the unix socket lmtp.sock in run_dir." },
	{ .type = SET_END }
};

/* Listeners for other nodes are beside those for clients, not in their place. */
static bool is_node_listener(const struct conf_listen *l)
{
	return l->protocol == CONF_NODE || (l->protocol == CONF_PROTO_BY_NAME && !strcmp(l->head.name, protocols[CONF_NODE]));
}

static bool serves_clients(const struct conf *c)
{
	size_t i;

	for (i = 0; i < c->listen.n; i++)
		if (!is_node_listener(conf_listener(c, i)))
			return true;
	return false;
}

static bool serves_nodes(const struct conf *c)
{
	size_t i;

	for (i = 0; i < c->listen.n; i++)
		if (is_node_listener(conf_listener(c, i)))
			return true;
	return false;
}

bool conf_journal_in_store(const struct conf *c)
{
	const struct conf_store *index = c->index_store.driver == CONF_STORE_MAIL ? &c->mail_store : &c->index_store;

	return c->journal == CONF_JOURNAL_STORE || (c->journal == CONF_JOURNAL_AUTO && index->driver != CONF_STORE_POSIX);
}

const char *conf_journal_doubt(const struct conf *c)
{
	const struct conf_store *index = c->index_store.driver == CONF_STORE_MAIL ? &c->mail_store : &c->index_store;

	if (conf_journal_in_store(c))
		return NULL;
	if (index->driver != CONF_STORE_POSIX)
		return "journal = local with a store that other servers can reach: a second server on it would lose acknowledged mail. "
		       "Leave journal out (auto), unless this is and stays the only server of this store";
	if (serves_nodes(c))
		return "\"listen node\" is of no use while the journal is local, and several servers on one directory would lose acknowledged mail: say journal = store on each of them";
	return NULL;
}

const char *conf_protocol_name(unsigned protocol)
{
	return protocols[protocol];
}

const char *conf_tls_name(unsigned tls)
{
	return tls_modes[tls];
}

const char *conf_driver_name(unsigned driver)
{
	return index_drivers[driver];
}

unsigned conf_service_id(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 0);

	return end == text || *end || n > 0xFFFF ? 0 : (unsigned)n;
}

const char *conf_addressing_name(unsigned addressing)
{
	return addressings[addressing];
}

const char *conf_credentials_name(unsigned credentials)
{
	return credential_sources[credentials];
}

const char *conf_sse_name(unsigned sse)
{
	return sses[sse];
}

const char *conf_checksum_name(unsigned checksum)
{
	return checksums[checksum];
}

const char *conf_etag_match_name(unsigned etag_match)
{
	return etag_matches[etag_match];
}

/* --- what options mean together --- */

static void complain_at(struct buf *out, const struct conf_listen *l, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void complain_at(struct buf *out, const struct conf_listen *l, const char *fmt, ...)
{
	va_list ap;

	if (l->head.line)
		buf_addf(out, "%s:%u: ", l->head.file, l->head.line);
	buf_addf(out, "listen %s: ", l->head.name);
	va_start(ap, fmt);
	buf_vaddf(out, fmt, ap);
	va_end(ap);
	buf_addc(out, '\n');
}

static void set_string(char **s, char *value)
{
	free(*s);
	*s = value;
}

static bool valid_mode(const char *mode)
{
	size_t n = strlen(mode);

	return n >= 3 && n <= 4 && strspn(mode, "01234567") == n;
}

static void check_address(struct conf *c, struct conf_listen *l, char **address, struct buf *out)
{
	unsigned char addr[16];

	if (strchr(*address, '/') || strstr(*address, ".sock")) {
		if (**address != '/')
			set_string(address, mem_printf("%s/%s", c->run_dir, *address));
		if (strlen(*address) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
			complain_at(out, l, "%s: too long a path for a unix socket", *address);
		if (l->tls == CONF_TLS_IMPLICIT || l->tls == CONF_TLS_STARTTLS)
			complain_at(out, l, "%s: TLS on a unix socket makes no sense: use tls = no", *address);
	} else if (strcmp(*address, "*") && inet_pton(AF_INET, *address, addr) != 1 && inet_pton(AF_INET6, *address, addr) != 1) {
		complain_at(out, l, "address \"%s\" is not an IPv4 or IPv6 address, \"*\" or a path", *address);
	}
}

static void resolve_tls(const struct conf *c, struct conf_listen *l, struct buf *out)
{
	bool secure = l->protocol == CONF_IMAPS || l->protocol == CONF_POP3S;
	bool path = l->address.n && strchr(l->address.v[0], '/');

	if (l->protocol == CONF_NODE) {
		if (l->tls == CONF_TLS_STARTTLS || l->tls == CONF_TLS_IMPLICIT)
			complain_at(out, l, "nodes encrypt with the deployment's key: leave tls out");
		l->tls = CONF_TLS_NO;
		return;
	}
	if (l->tls == CONF_TLS_AUTO)
		l->tls = l->protocol == CONF_LMTP || path ? CONF_TLS_NO : secure ? CONF_TLS_IMPLICIT : *c->ssl_cert ? CONF_TLS_STARTTLS : CONF_TLS_NO;
	if (l->protocol == CONF_LMTP && l->tls != CONF_TLS_NO)
		complain_at(out, l, "there is no TLS with LMTP yet: use tls = no on a trusted network or a unix socket");
	else if (l->tls != CONF_TLS_NO && !*c->ssl_cert)
		complain_at(out, l, "tls = %s needs ssl_cert", tls_modes[l->tls]);
}

static void check_listener(struct conf *c, struct conf_listen *l, struct buf *out)
{
	static const unsigned ports[] = { 0, 143, 993, 110, 995, 24, 0 };
	size_t i;

	for (i = 1; l->protocol == CONF_PROTO_BY_NAME && protocols[i]; i++)
		if (!strcmp(l->head.name, protocols[i]))
			l->protocol = (unsigned)i;
	if (l->protocol == CONF_PROTO_BY_NAME) {
		const char *near = settings_nearest(l->head.name, protocols + 1);

		complain_at(out, l, "say protocol = imap, imaps, pop3, pop3s, lmtp or node%s%s%s", near ? " (did you mean \"" : "", near ? near : "", near ? "\"?)" : "");
		return;
	}
	if (!l->port)
		l->port = ports[l->protocol];
	if (!valid_mode(l->mode))
		complain_at(out, l, "mode = \"%s\": write permissions like 0660", l->mode);
	if (!l->address.n)
		complain_at(out, l, "address is empty");
	resolve_tls(c, l, out);
	for (i = 0; i < l->address.n; i++)
		check_address(c, l, &l->address.v[i], out);
	for (i = 0; i < l->address.n && l->protocol == CONF_NODE; i++)
		if (*l->address.v[i] == '/')
			complain_at(out, l, "%s: other machines cannot reach a unix socket", l->address.v[i]);
	if (l->protocol == CONF_NODE && l->port && l->port + c->worker_count - 1 > 65535)
		complain_at(out, l, "port = %u: there must be one for each worker from there on", (unsigned)l->port);
}

static void add_listener(struct conf *c, unsigned protocol, const char *const *addresses)
{
	struct conf_listen *l;

	c->listen.v = mem_realloc(c->listen.v, (c->listen.n + 1) * sizeof(*l));
	l = conf_listener(c, c->listen.n++);
	memset(l, 0, sizeof(*l));
	l->head.name = mem_strdup(protocols[protocol]);
	l->head.file = mem_strdup("");
	l->protocol = protocol;
	l->mode = mem_strdup("0660");
	for (; *addresses; addresses++) {
		l->address.v = mem_realloc(l->address.v, (l->address.n + 1) * sizeof(char *));
		l->address.v[l->address.n++] = mem_strdup(*addresses);
	}
}

static void default_listeners(struct conf *c)
{
	static const char *const everywhere[] = { "*", NULL }, *const here[] = { "127.0.0.1", NULL }, *const sock[] = { "lmtp.sock", NULL };
	bool tls = *c->ssl_cert;

	add_listener(c, CONF_IMAP, tls ? everywhere : here);
	add_listener(c, CONF_POP3, tls ? everywhere : here);
	if (tls) {
		add_listener(c, CONF_IMAPS, everywhere);
		add_listener(c, CONF_POP3S, everywhere);
	}
	add_listener(c, CONF_LMTP, sock);
}

static void check_file(const char *option, const char *path, struct buf *out)
{
	struct err err = ERR_INIT;

	if (*path && access(path, R_OK) < 0) {
		err_errno(&err, option, path);
		buf_addf(out, "%s\n", err.msg);
	}
}

/* Each worker is a node with a journal and heartbeats of its own, which in a
 * store cost requests, and mail for another worker's user is handed over; one
 * worker's threads keep several cores busy. */
static unsigned default_workers(bool journal_in_store)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (journal_in_store)
		cores = (cores + 3) / 4;
	return cores < 1 ? 1 : cores > 64 ? 64 : (unsigned)cores;
}

static void fill_in(struct conf *c)
{
	char name[256];

	if (!*c->hostname) {
		if (gethostname(name, sizeof(name)) < 0 || !*name)
			snprintf(name, sizeof(name), "localhost");
		name[sizeof(name) - 1] = '\0';
		set_string(&c->hostname, mem_strdup(name));
	}
	if (!c->worker_count)
		c->worker_count = default_workers(conf_journal_in_store(c));
	if (!*c->auth.database)
		set_string(&c->auth.database, mem_printf("%s/users.db", c->state_dir));
	if (!*c->mail_store.path)
		set_string(&c->mail_store.path, mem_printf("%s/store", c->state_dir));
	if (!*c->index_store.path)
		set_string(&c->index_store.path, mem_printf("%s/index", c->state_dir));
	if (!*c->ssl_key)
		set_string(&c->ssl_key, mem_strdup(c->ssl_cert));
	if (!serves_clients(c))
		default_listeners(c);
}

static void check_sproxyd(const char *name, const struct conf_store *s, struct buf *out)
{
	unsigned id = conf_service_id(s->service_id);
	size_t i;

	if (!s->url.n)
		buf_addf(out, "%s: driver = sproxyd needs url, a list of connectors\n", name);
	for (i = 0; i < s->url.n; i++)
		if (strncmp(s->url.v[i], "http://", 7) && strncmp(s->url.v[i], "https://", 8))
			buf_addf(out, "%s: url = \"%s\": write it like http://10.0.0.1:81\n", name, s->url.v[i]);
	if (id <= 0xC0 || id > 0xFF || id == 0xC3)
		buf_addf(out, "%s: service_id = \"%s\": it is 0xC1 to 0xFF and not 0xC3\n", name, s->service_id);
}

/* What can stand before "/u/..." in an object's name. */
static bool is_prefix(const char *p)
{
	if (!*p)
		return true;
	if (strlen(p) > 200 || p[strspn(p, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._%=@+-/")])
		return false;
	for (;; p++) {
		size_t n = strcspn(p, "/");

		if (n == strspn(p, ".") && n < 3)
			return false;
		p += n;
		if (!*p)
			return true;
	}
}

static void check_store(const char *name, const struct conf_store *s, struct buf *out)
{
	if (!is_prefix(s->prefix))
		buf_addf(out, "%s: prefix = \"%s\": write it like mail or mail/culver, no slash at either end\n", name, s->prefix);
	if (s->driver == CONF_STORE_SPROXYD)
		check_sproxyd(name, s, out);
	if (s->driver != CONF_STORE_S3 && s->driver != CONF_STORE_LIBS3)
		return;
	if (!*s->bucket)
		buf_addf(out, "%s: driver = %s needs bucket\n", name, conf_driver_name(s->driver));
	if (s->driver == CONF_STORE_LIBS3 && (!*s->endpoint || !*s->access_key))
		buf_addf(out, "%s: driver = libs3 needs endpoint, access_key and secret_key\n", name);
	if (*s->endpoint && strncmp(s->endpoint, "http://", 7) && strncmp(s->endpoint, "https://", 8))
		buf_addf(out, "%s: endpoint = \"%s\": write it like https://s3.example.org\n", name, s->endpoint);
	if (!*s->access_key != !*s->secret_key)
		buf_addf(out, "%s: access_key and secret_key belong together\n", name);
	if (!strcmp(conf_sse_name(s->sse), "customer") && !*s->sse_customer_key)
		buf_addf(out, "%s: sse = customer needs sse_customer_key\n", name);
	if (!strcmp(conf_credentials_name(s->credentials), "settings") && !*s->access_key)
		buf_addf(out, "%s: credentials = settings needs access_key and secret_key\n", name);
}

static bool messages_only(unsigned driver)
{
	return driver == CONF_STORE_SPROXYD || driver == CONF_STORE_LIBS3;
}

static void check_stores(const struct conf *c, struct buf *out)
{
	check_store("mail_store", &c->mail_store, out);
	check_store("index_store", &c->index_store, out);
	if (messages_only(c->index_store.driver))
		buf_addf(out, "index_store: driver = %s keeps messages only, it has no conditional writes: use posix or s3\n", conf_driver_name(c->index_store.driver));
	if (messages_only(c->mail_store.driver) && c->index_store.driver == CONF_STORE_MAIL)
		buf_addf(out, "mail_store: driver = %s keeps messages only, it has no conditional writes: add index_store { driver = posix } or one with s3\n",
			 conf_driver_name(c->mail_store.driver));
	if (c->index_store.driver != CONF_STORE_MAIL && *c->index_store.prefix && strcmp(c->index_store.prefix, c->mail_store.prefix))
		buf_addf(out, "index_store: prefix = \"%s\": it is that of mail_store: leave it out\n", c->index_store.prefix);
}

static int check(struct conf *c, bool files, struct buf *out)
{
	size_t before = out->len, i;

	fill_in(c);
	check_stores(c, out);
	for (i = 0; i < c->listen.n; i++)
		check_listener(c, conf_listener(c, i), out);
	if (c->journal == CONF_JOURNAL_LOCAL && serves_nodes(c))
		buf_addf(out, "journal = local: with \"listen node\" other servers share this store, and they would take users over without what is in this server's journal: "
			 "say journal = store\n");
	if (c->state_dir[0] != '/' || c->run_dir[0] != '/')
		buf_addf(out, "state_dir and run_dir must be absolute paths\n");
	if (strcmp(c->log, "stderr") && strcmp(c->log, "syslog") && c->log[0] != '/')
		buf_addf(out, "log = \"%s\": it can be stderr, syslog or an absolute path\n", c->log);
	if (strlen(c->recipient_delimiter) > 1 || strchr("@\"\\<>", c->recipient_delimiter[0] ? c->recipient_delimiter[0] : '+'))
		buf_addf(out, "recipient_delimiter = \"%s\": it is one character, like +\n", c->recipient_delimiter);
	if (strlen(c->hostname) > 200 || strpbrk(c->hostname, " /\r\n\t"))
		buf_addf(out, "hostname = \"%s\": is not a host name\n", c->hostname);
	if (strlen(c->node_address) > 200 || strpbrk(c->node_address, "[]/ \r\n\t"))
		buf_addf(out, "node_address = \"%s\": is a host name or an address without a port\n", c->node_address);
	if (strlen(c->run_dir) > 80)
		buf_addf(out, "run_dir = \"%s\": too long for the sockets in it\n", c->run_dir);
	if (files) {
		check_file("ssl_cert", c->ssl_cert, out);
		check_file("ssl_key", c->ssl_key, out);
	}
	return out->len > before ? ERR_INVALID : 0;
}

int conf_load(const char *path, struct conf *c, struct buf *complaints)
{
	int rc;

	memset(c, 0, sizeof(*c));
	if (path)
		rc = settings_load(conf_table, path, c, complaints);
	else
		rc = settings_parse(conf_table, "defaults", "", c, complaints);
	if (check(c, true, complaints) < 0)
		rc = ERR_INVALID;
	return rc;
}

int conf_parse(const char *text, struct conf *c, struct buf *complaints)
{
	int rc;

	memset(c, 0, sizeof(*c));
	rc = settings_parse(conf_table, "settings", text, c, complaints);
	if (check(c, false, complaints) < 0)
		rc = ERR_INVALID;
	return rc;
}

void conf_free(struct conf *c)
{
	settings_free(conf_table, c);
}

static bool same_section(const struct set_opt *table, const void *a, const void *b)
{
	struct buf x = BUF_INIT(64 * 1024), y = BUF_INIT(64 * 1024);
	bool same;

	settings_print(table, a, false, &x);
	settings_print(table, b, false, &y);
	same = !strcmp(buf_str(&x), buf_str(&y));
	buf_free(&x);
	buf_free(&y);
	return same;
}

/* fresh gets what running has. */
static void keep_section(const struct set_opt *table, const void *running, void *fresh)
{
	struct buf text = BUF_INIT(64 * 1024), complaints = BUF_INIT(4096);

	settings_print(table, running, false, &text);
	settings_free(table, fresh);
	memset(fresh, 0, sizeof(struct conf_store));
	settings_parse(table, "settings", buf_str(&text), fresh, &complaints);
	buf_free(&text);
	buf_free(&complaints);
}

const char *conf_needs_restart(const struct conf *a, const struct conf *b)
{
	if (strcmp(a->state_dir, b->state_dir))
		return "state_dir";
	if (strcmp(a->run_dir, b->run_dir))
		return "run_dir";
	if (strcmp(a->hostname, b->hostname))
		return "hostname";
	if (strcmp(a->user, b->user) || strcmp(a->group, b->group))
		return "user";
	if (a->worker_count != b->worker_count)
		return "worker_count";
	if (!same_section(mail_store_table, &a->mail_store, &b->mail_store))
		return "mail_store";
	if (!same_section(index_store_table, &a->index_store, &b->index_store))
		return "index_store";
	if (a->journal != b->journal)
		return "journal";
	if (strcmp(a->node_address, b->node_address))
		return "node_address";
	if (a->flag_commit_delay != b->flag_commit_delay)
		return "flag_commit_delay";
	if (a->grace_period != b->grace_period)
		return "grace_period";
	if (a->cache_size != b->cache_size)
		return "cache_size";
	if (a->fscache_size != b->fscache_size)
		return "fscache_size";
	if (a->metacache_size != b->metacache_size)
		return "metacache_size";
	if (a->limits.message_size != b->limits.message_size)
		return "limits.message_size";
	if (strcmp(a->recipient_delimiter, b->recipient_delimiter))
		return "recipient_delimiter";
	return NULL;
}

void conf_keep(const struct conf *running, struct conf *fresh)
{
	set_string(&fresh->state_dir, mem_strdup(running->state_dir));
	set_string(&fresh->run_dir, mem_strdup(running->run_dir));
	set_string(&fresh->hostname, mem_strdup(running->hostname));
	set_string(&fresh->user, mem_strdup(running->user));
	set_string(&fresh->group, mem_strdup(running->group));
	keep_section(mail_store_table, &running->mail_store, &fresh->mail_store);
	keep_section(index_store_table, &running->index_store, &fresh->index_store);
	set_string(&fresh->node_address, mem_strdup(running->node_address));
	set_string(&fresh->recipient_delimiter, mem_strdup(running->recipient_delimiter));
	fresh->journal = running->journal;
	fresh->worker_count = running->worker_count;
	fresh->flag_commit_delay = running->flag_commit_delay;
	fresh->grace_period = running->grace_period;
	fresh->cache_size = running->cache_size;
	fresh->fscache_size = running->fscache_size;
	fresh->metacache_size = running->metacache_size;
	fresh->limits.message_size = running->limits.message_size;
}
