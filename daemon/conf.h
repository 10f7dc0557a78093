/* conf - culverd's settings: what the options are, and what they mean
 * together.  base/settings reads the file.
 *
 * Errors:  mistakes go to complaints, one "file:line: text" line each.
 * Threads: a struct conf is read-only once loaded. */
#ifndef DAEMON_CONF_H
#define DAEMON_CONF_H
#include "base/settings.h"

enum conf_protocol { CONF_PROTO_BY_NAME, CONF_IMAP, CONF_IMAPS, CONF_POP3, CONF_POP3S, CONF_LMTP, CONF_NODE };
enum conf_tls { CONF_TLS_AUTO, CONF_TLS_NO, CONF_TLS_STARTTLS, CONF_TLS_IMPLICIT };
enum conf_plaintext { CONF_PLAIN_LOOPBACK, CONF_PLAIN_NOWHERE, CONF_PLAIN_ANYWHERE };
enum conf_journal { CONF_JOURNAL_AUTO, CONF_JOURNAL_LOCAL, CONF_JOURNAL_STORE };
enum conf_ssl_min { CONF_TLS12, CONF_TLS13 };

struct conf_listen {
	struct set_head head;
	unsigned protocol;		/* enum conf_protocol; never BY_NAME after loading */
	struct set_list address;
	uint64_t port;			/* 0 = the protocol's own */
	unsigned tls;			/* enum conf_tls; never AUTO after loading */
	char *mode;			/* of a unix socket, octal */
};

enum conf_driver { CONF_STORE_POSIX, CONF_STORE_S3, CONF_STORE_SPROXYD, CONF_STORE_LIBS3, CONF_STORE_MAIL };
struct conf_store {
	unsigned driver;		/* enum conf_driver; MAIL (index_store only): mail_store is it */
	char *path, *prefix;
	char *endpoint, *region, *bucket, *access_key, *secret_key, *session_token, *credentials_file, *profile, *role_arn;
	char *web_identity_token_file, *imds_endpoint, *sts_endpoint, *ca_file, *cert_file, *key_file, *proxy, *storage_class, *sse_kms_key, *sse_customer_key;
	unsigned addressing, credentials, sse, checksum, etag_match;
	uint64_t concurrency, timeout, attempt_timeout, connect_timeout, multipart_size, part_size;
	bool hedge;
	struct set_list url;		/* sproxyd's connectors */
	char *service_id;
	uint64_t class;
};

struct conf {
	char *state_dir, *run_dir, *hostname;
	char *user, *group, *gate_user;
	char *log;
	unsigned log_level, log_format;	/* enum log_level, log_format */
	uint64_t gate_count, worker_count, worker_threads_max;
	uint64_t stop_timeout;
	struct set_sections listen;	/* of struct conf_listen */
	char *ssl_cert, *ssl_key, *ssl_cipher_list, *ssl_ciphersuites;
	unsigned ssl_min_protocol;	/* enum conf_ssl_min */
	char *node_address;
	unsigned journal;		/* enum conf_journal */
	char *recipient_delimiter;
	bool lmtp_save_to_detail_mailbox;
	uint64_t flag_commit_delay, grace_period, cache_size, fscache_size;
	struct {
		char *database, *default_domain;
		unsigned allow_plaintext;
		uint64_t cache_ttl, threads;
	} auth;
	struct {
		uint64_t connections, prelogin_per_ip, prelogin_timeout, login_attempts, failure_delay_max;
		uint64_t message_size, imap_command_size, lmtp_recipients;
	} limits;
	struct conf_store mail_store, index_store;
};

extern const struct set_opt conf_table[];

/* Reads and checks path (NULL: the defaults alone).  0 or ERR_INVALID; what
 * was left open in the file is filled in.  conf_free either way. */
int conf_load(const char *path, struct conf *c, struct buf *complaints);
/* The same from the text settings_print made. */
int conf_parse(const char *text, struct conf *c, struct buf *complaints);
void conf_free(struct conf *c);

static inline struct conf_listen *conf_listener(const struct conf *c, size_t i)
{
	return (struct conf_listen *)c->listen.v + i;
}
/* Does a change from a to b need a restart of the workers?  The name of the first such setting, or NULL. */
const char *conf_needs_restart(const struct conf *a, const struct conf *b);
/* Gives those settings in fresh the values they have in running. */
void conf_keep(const struct conf *running, struct conf *fresh);
/* Does the journal go into the store (and are there other nodes)?  auto: when the index store is over the network. */
bool conf_journal_in_store(const struct conf *c);
/* What is allowed, but safe with one server only: in words that say what to do, or NULL. */
const char *conf_journal_doubt(const struct conf *c);
/* The words of conf_store's choices, as objstore_settings takes them. */
const char *conf_driver_name(unsigned driver);
unsigned conf_service_id(const char *text);	/* 0: no number */
const char *conf_addressing_name(unsigned addressing);
const char *conf_credentials_name(unsigned credentials);
const char *conf_sse_name(unsigned sse);
const char *conf_checksum_name(unsigned checksum);
const char *conf_etag_match_name(unsigned etag_match);
const char *conf_protocol_name(unsigned protocol);
const char *conf_tls_name(unsigned tls);
#endif
