#include "daemon/msg.h"

const char *const msg_role_name[ROLE_COUNT] = { "master", "gate", "auth", "worker" };

void msg_put_str(struct buf *out, const char *s)
{
	buf_putblob(out, s ? s : "", (s ? strlen(s) : 0) + 1);
}

const char *msg_get_str(struct rd *r)
{
	size_t len;
	const char *s = rd_blob(r, &len);

	if (!len || s[len - 1]) {
		r->failed = true;
		return "";
	}
	return s;
}

void msg_conn_put(struct buf *out, const struct msg_conn *m)
{
	buf_put8(out, MSG_CONN);
	buf_put8(out, (uint8_t)m->proto);
	buf_put8(out, (uint8_t)(m->tls | m->loopback << 1));
	msg_put_str(out, m->id);
	msg_put_str(out, m->peer);
	msg_put_str(out, m->local);
	msg_put_str(out, m->user);
	msg_put_str(out, m->tag);
	buf_putblob(out, m->in, m->in_len);
}

int msg_conn_get(struct rd *r, struct msg_conn *m)
{
	unsigned flags;

	m->proto = rd_8(r);
	flags = rd_8(r);
	m->tls = flags & 1;
	m->loopback = flags & 2;
	m->id = msg_get_str(r);
	m->peer = msg_get_str(r);
	m->local = msg_get_str(r);
	m->user = msg_get_str(r);
	m->tag = msg_get_str(r);
	m->in = rd_blob(r, &m->in_len);
	return r->failed ? -1 : 0;
}

/* FNV-1a: stable for ever and the same in culverctl. */
unsigned msg_worker_of(const char *user, unsigned n_workers)
{
	uint64_t h = UINT64_C(14695981039346656037);

	for (; *user; user++)
		h = (h ^ (unsigned char)*user) * UINT64_C(1099511628211);
	return (unsigned)((h ^ h >> 32) % (n_workers ? n_workers : 1));
}
