/* The admin engine in this process: when culverd does not run, culverctl is a
 * node of its own on the same store, and drives the engine over a socket pair
 * from a second thread. */
#include "ctl/ctl.h"

#include "base/io.h"
#include "base/mem.h"
#include "crypt/seal.h"
#include "daemon/conn.h"
#include "daemon/node-link.h"
#include "daemon/stores.h"
#include "metacache/metacache.h"
#include "obox/obox.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NODE_INDEX = 9999 };	/* in the place of a worker's number */

static struct {
	struct conn_env env;
	struct stores stores;
	struct seal_keys *keys;
	struct obox_cluster *cluster;	/* where other nodes may be, this is one among them */
	char *node;
	unsigned char node_key[NODE_KEY_BYTES];
	struct metacache_reader registry;
	int fd;			/* the engine's end */
	pthread_t thread;
	bool running;
} L = { .fd = -1 };

void conn_wake(struct conn *c)
{
	/* no engine here waits for anybody */
}

size_t conn_flush(struct conn *c)
{
	struct err e = ERR_INIT;

	if (c->out.len)
		io_write_full(L.fd, c->out.data, c->out.len, &e);	/* a client that is gone is noticed by the read */
	buf_clear(&c->out);
	return 0;
}

static void *drive(void *arg)
{
	struct conn c = { .ops = &admin_conn_ops, .env = &L.env, .id = "local", .peer = "local", .loopback = true };
	unsigned events = CONN_EV_START;
	enum conn_want want;

	buf_init(&c.in, CONN_IN_MAX);
	for (;;) {
		want = c.ops->run(&c, events);
		conn_flush(&c);
		if (want == CONN_CLOSE)
			break;
		events = CONN_EV_DRAINED;
		if (want == CONN_WANT_INPUT) {
			size_t room = CONN_IN_MAX - c.in.len - 1;
			void *p = buf_reserve(&c.in, room);
			ssize_t n = p ? read(L.fd, p, room) : 0;

			if (n < 0 && errno == EINTR)
				continue;
			if (n > 0)
				c.in.len += (size_t)n;
			events = n > 0 ? CONN_EV_INPUT : CONN_EV_EOF;
		}
	}
	c.ops->free(&c);
	buf_free(&c.in);
	buf_free(&c.out);
	io_close(&L.fd);
	return NULL;
}

static void fenced(void *ctx)
{
	fputs("culverctl: another node has taken this one's users over: what was not said to be done is not done; run it again\n", stderr);
	_exit(CTL_TEMPORARY);
}

static int join_cluster(const struct conf *conf, struct obox_config *cfg, struct err *err)
{
	struct metacache_config mc = { .store = L.stores.index, .prefix = conf->mail_store.prefix, .flag_commit_delay_ms = (unsigned)conf->flag_commit_delay,
				       .fenced = fenced };
	int rc;

	if (!conf_journal_in_store(conf))
		return 0;
	rc = metacache_node_name(conf->state_dir, NODE_INDEX, &L.node, err);
	cfg->node = mc.node = L.node;
	if (rc == 0)
		rc = metacache_new(&mc, &L.cluster, err);
	cfg->cluster = L.cluster;
	return rc;
}

static int open_node(const struct conf *conf, struct err *err)
{
	char *keys = mem_printf("%s/keys", conf->state_dir);
	struct obox_config cfg = {
		.state_dir = conf->state_dir, .prefix = conf->mail_store.prefix, .node = "ctl",
		.flag_commit_delay_ms = (unsigned)conf->flag_commit_delay, .grace_s = conf->grace_period / 1000,
		.max_message = conf->limits.message_size, .cache_bytes = conf->cache_size,
	};
	int rc = stores_are_new(conf, err);

	if (rc >= 0)
		rc = seal_keys_open(keys, rc == 1, &L.keys, err);
	free(keys);
	if (rc == 0)
		rc = stores_open(conf, true, &L.stores, err);
	if (rc == 0) {
		cfg.mail_store = L.stores.mail;
		cfg.index_store = L.stores.index;
		cfg.keys = L.keys;
		rc = join_cluster(conf, &cfg, err);
	}
	if (rc == 0)
		rc = obox_open(&cfg, &L.env.obox, err);
	return rc;
}

int local_start(const struct conf *conf, int *fd_r, struct err *err)
{
	int sv[2], rc;

	rc = open_node(conf, err);
	if (rc < 0) {
		local_stop();
		return rc;
	}
	L.env.max_message = conf->limits.message_size;
	L.env.version = PACKAGE_VERSION;
	L.registry = (struct metacache_reader){ L.stores.index, conf->mail_store.prefix, L.keys };
	seal_derive(L.keys, NODE_KEY_LABEL, L.node_key);
	if (L.cluster) {
		L.env.cluster = L.cluster;
		L.env.registry = &L.registry;
		L.env.node_name = L.node;
		L.env.node_key = L.node_key;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return err_errno(err, "socketpair", NULL);
	L.fd = sv[1];
	if (pthread_create(&L.thread, NULL, drive, NULL) != 0)
		return err_set(err, ERR_LIMIT, "no thread to be had");
	L.running = true;
	*fd_r = sv[0];
	return 0;
}

void local_stop(void)
{
	if (L.running)
		pthread_join(L.thread, NULL);
	L.running = false;
	obox_close(&L.env.obox);
	if (L.cluster)
		metacache_free(&L.cluster);
	free(L.node);
	L.node = NULL;
	stores_close(&L.stores);
	seal_keys_free(&L.keys);
}
