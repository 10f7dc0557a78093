#include "daemon/gate.h"

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { PEM_MAX = 1 << 20 };

static int tls_error(struct err *err, const char *what)
{
	char text[256];

	ERR_error_string_n(ERR_peek_last_error(), text, sizeof(text));
	ERR_clear_error();
	return err_set(err, ERR_INVALID, "TLS: %s: %s", what, text);
}

/* The leaf first, then the chain. */
static int use_certificates(SSL_CTX *ctx, const char *pem, struct err *err)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *x = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
	int rc = 0;

	if (!x || SSL_CTX_use_certificate(ctx, x) != 1)
		rc = tls_error(err, "ssl_cert");
	X509_free(x);
	while (rc == 0 && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
		if (SSL_CTX_add0_chain_cert(ctx, x) != 1) {
			X509_free(x);
			rc = tls_error(err, "ssl_cert: its chain");
		}
	ERR_clear_error();	/* the end of the file is one */
	BIO_free(bio);
	return rc;
}

static int use_key(SSL_CTX *ctx, const char *pem, struct err *err)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)(uintptr_t)"");
	int rc = 0;

	if (!key || SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
		rc = tls_error(err, "ssl_key");
	EVP_PKEY_free(key);
	BIO_free(bio);
	return rc;
}

static int configure(SSL_CTX *ctx, const struct conf *c, struct err *err)
{
	SSL_CTX_set_min_proto_version(ctx, c->ssl_min_protocol == CONF_TLS13 ? TLS1_3_VERSION : TLS1_2_VERSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);	/* tickets do it */
	SSL_CTX_set_num_tickets(ctx, 1);
	SSL_CTX_set_dh_auto(ctx, 1);
	if (*c->ssl_cipher_list && SSL_CTX_set_cipher_list(ctx, c->ssl_cipher_list) != 1)
		return tls_error(err, "ssl_cipher_list");
	if (*c->ssl_ciphersuites && SSL_CTX_set_ciphersuites(ctx, c->ssl_ciphersuites) != 1)
		return tls_error(err, "ssl_ciphersuites");
	return 0;
}

int gate_tls_context(const struct conf *c, int fd, SSL_CTX **ctx_r, struct err *err)
{
	SSL_CTX *ctx;
	size_t len = 0;
	char *pem;
	int rc = proc_memfd_read(fd, PEM_MAX, &pem, &len, err);

	if (rc < 0)
		return rc;
	ctx = SSL_CTX_new(TLS_server_method());
	rc = ctx ? configure(ctx, c, err) : tls_error(err, "setting up");
	if (rc == 0)
		rc = use_certificates(ctx, pem, err);
	if (rc == 0)
		rc = use_key(ctx, strlen(pem) < len ? pem + strlen(pem) + 1 : "", err);
	OPENSSL_cleanse(pem, len);
	free(pem);
	if (rc < 0) {
		SSL_CTX_free(ctx);
		ctx = NULL;
	}
	*ctx_r = ctx;
	return rc;
}

int gate_tls_begin(struct gconn *g)
{
	if (!g->gate->tls)
		return -1;
	g->ssl = SSL_new(g->gate->tls);
	if (!g->ssl || SSL_set_fd(g->ssl, g->src.fd) != 1) {
		ERR_clear_error();
		return -1;
	}
	SSL_set_accept_state(g->ssl);
	g->state = G_HANDSHAKE;
	return 0;
}

int gate_tls_handshake(struct gconn *g, uint32_t *events)
{
	int rc, why;

	ERR_clear_error();
	rc = SSL_do_handshake(g->ssl);
	if (rc == 1) {
		g->tls = true;
		return 1;
	}
	why = SSL_get_error(g->ssl, rc);
	*events = why == SSL_ERROR_WANT_WRITE ? EPOLLOUT : EPOLLIN;
	if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
		return 0;
	if (log_enabled(LOG_DBG)) {
		char text[256];

		ERR_error_string_n(ERR_peek_last_error(), text, sizeof(text));
		log_event(LOG_DBG, "TLS handshake failed", LF_S("why", text), LF_END);
	}
	ERR_clear_error();
	return -1;
}

/* OpenSSL's answer in recv's terms.  Renegotiation is off, so reading never
 * waits for writing nor the other way round. */
static ssize_t result(struct gconn *g, int ok, size_t n)
{
	int why;

	if (ok == 1)
		return (ssize_t)n;
	why = SSL_get_error(g->ssl, ok);
	ERR_clear_error();
	if (why == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
	return -1;
}

ssize_t gate_read(struct gconn *g, void *data, size_t len)
{
	size_t n = 0;
	ssize_t got;
	int ok;

	if (!g->tls) {
		do {
			got = recv(g->src.fd, data, len, MSG_DONTWAIT);
		} while (got < 0 && errno == EINTR);
		return got;
	}
	ERR_clear_error();
	ok = SSL_read_ex(g->ssl, data, len, &n);
	return result(g, ok, n);
}

ssize_t gate_write(struct gconn *g, const void *data, size_t len)
{
	size_t n = 0;
	ssize_t put;
	int ok;

	if (!g->tls) {
		do {
			put = send(g->src.fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		} while (put < 0 && errno == EINTR);
		return put;
	}
	ERR_clear_error();
	ok = SSL_write_ex(g->ssl, data, len, &n);
	return result(g, ok, n);
}
