#include "tests/imap/harness.h"

#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "crypt/seal.h"

static void must(int rc, const struct err *err)
{
	if (rc < 0) {
		fprintf(stderr, "harness: %s\n", err->msg);
		abort();
	}
}

static void open_obox(struct world *w)
{
	struct obox_config cfg = { .state_dir = w->dir, .mail_store = w->store, .index_store = w->store, .prefix = "", .node = "test",
		.keys = w->keys, .flag_commit_delay_ms = 1000, .grace_s = UINT64_MAX };
	struct err err = ERR_INIT;

	must(obox_open(&cfg, &w->obox, &err), &err);
	w->env.obox = w->obox;
}

void world_open(struct world *w)
{
	static const struct objstore_faults none = { .seed = 1, .fail_after = -1 };

	memset(w, 0, sizeof(*w));
	snprintf(w->dir, sizeof(w->dir), "/tmp/culver-imap-XXXXXX");
	if (!mkdtemp(w->dir))
		abort();
	w->store = objstore_fault_new(objstore_mem_new(), &none);
	w->keys = seal_keys_ephemeral();
	w->env.hostname = "test.example.org";
	w->env.version = "1.2.3";
	w->env.max_message = 1 << 20;
	w->env.max_command = 65536;
	w->env.recipient_delimiter = "+";
	open_obox(w);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void world_reopen(struct world *w)
{
	obox_close(&w->obox);
	nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	open_obox(w);
}

void world_close(struct world *w)
{
	obox_close(&w->obox);
	seal_keys_free(&w->keys);
	objstore_close(&w->store);
	nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void world_store_down(struct world *w, bool down)
{
	struct objstore_faults f = { .seed = 1, .fail_after = down ? 0 : -1 };

	objstore_fault_set(w->store, &f);
}

struct client *client_new(struct world *w, const char *user, const char *tag)
{
	struct client *c = MEM_NEW(struct client);

	c->conn.ops = &imap_conn_ops;
	c->conn.env = &w->env;
	c->conn.user = mem_strdup(user);
	c->conn.tag = mem_strdup(tag);
	snprintf(c->conn.id, sizeof(c->conn.id), "test");
	client_run(c, CONN_EV_START);
	return c;
}

void client_free(struct client **cp)
{
	struct client *c = *cp;

	if (!c)
		return;
	c->conn.ops->free(&c->conn);
	free(c->conn.user);
	free(c->conn.tag);
	buf_free(&c->conn.in);
	buf_free(&c->conn.out);
	buf_free(&c->got);
	free(c);
	*cp = NULL;
}

void conn_wake(struct conn *conn)
{
	atomic_store(&((struct client *)conn)->woken, true);
}

static void take_out(struct client *c)
{
	if (c->conn.out.len > c->out_peak)
		c->out_peak = c->conn.out.len;
	buf_add(&c->got, c->conn.out.data, c->conn.out.len);
	buf_clear(&c->conn.out);
}

size_t conn_flush(struct conn *conn)
{
	struct client *c = (struct client *)conn;

	if (!c->slow)
		take_out(c);
	return conn->out.len;
}

void client_run(struct client *c, unsigned events)
{
	while (!c->closed) {
		enum conn_want want;

		if (atomic_exchange(&c->woken, false))
			events |= CONN_EV_WAKE;
		want = c->conn.ops->run(&c->conn, events);
		c->runs++;
		if (c->conn.out.len > c->out_peak)
			c->out_peak = c->conn.out.len;
		if (!c->slow || want != CONN_WANT_AGAIN)
			take_out(c);
		events = 0;
		switch (want) {
		case CONN_WANT_DRAIN:
			c->drains++;
			events = CONN_EV_DRAINED;
			break;
		case CONN_WANT_AGAIN:
			c->agains++;
			break;
		case CONN_CLOSE:
			c->closed = true;
			break;
		case CONN_WANT_WAKE:
		case CONN_WANT_INPUT:
			if (!atomic_load(&c->woken))
				return;
			break;
		}
	}
}

void client_queue(struct client *c, const void *data, size_t len)
{
	buf_add(&c->conn.in, data, len);
}

void client_send(struct client *c, const void *data, size_t len)
{
	const char *p = data;

	do {
		size_t n = len < CONN_IN_MAX ? len : CONN_IN_MAX;

		client_queue(c, p, n);
		client_run(c, CONN_EV_INPUT);
		p += n;
		len -= n;
	} while (len);
}

/* Length of the line at data with its literals, or 0 when it is not all there. */
static size_t response_length(const char *data, size_t len)
{
	size_t at = 0;

	for (;;) {
		const char *lf = memchr(data + at, '\n', len - at);
		size_t end, digits;
		unsigned long long n = 0;

		if (!lf)
			return 0;
		end = (size_t)(lf - data);
		if (end < 2 || data[end - 1] != '\r' || data[end - 2] != '}')
			return end + 1;
		for (digits = end - 2; digits > 0 && data[digits - 1] >= '0' && data[digits - 1] <= '9'; digits--)
			;
		if (digits == end - 2 || !digits || data[digits - 1] != '{')
			return end + 1;
		for (; digits < end - 2; digits++)
			n = n * 10 + (unsigned long long)(data[digits] - '0');
		if (end + 1 + n > len)
			return 0;
		at = end + 1 + (size_t)n;
	}
}

char *client_line(struct client *c, size_t *len_r)
{
	size_t n = c->got.len ? response_length((const char *)c->got.data, c->got.len) : 0;
	char *line;

	if (!n)
		return NULL;
	*len_r = n - 1 - (n > 1 && c->got.data[n - 2] == '\r');
	line = mem_strndup((const char *)c->got.data, *len_r);
	buf_consume(&c->got, n);
	return line;
}

uint32_t world_deliver(struct world *w, const char *user, const char *mailbox, const void *msg, size_t len, uint32_t flags)
{
	struct obox_save save = { .flags = flags, .idate = INT64_MIN };
	struct obox_user *u;
	struct err err = ERR_INIT;

	must(obox_user_open(w->obox, user, &u, &err), &err);
	must(obox_msgin_new(w->obox, &save.msg, &err), &err);
	must(obox_msgin_write(save.msg, msg, len, &err), &err);
	must(obox_msgin_finish(save.msg, &err), &err);
	must(obox_save(u, mailbox, &save, 1, NULL, &err), &err);
	obox_msgin_free(&save.msg);
	obox_user_close(&u);
	return save.uid_r;
}
