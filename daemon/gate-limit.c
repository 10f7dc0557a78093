#include "daemon/gate.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <netinet/in.h>

enum { FORGET_MS = 15 * 60 * 1000, FIRST_DELAY_MS = 500, IPS_MAX = 200000 };

/* The first byte tells the family, so that no IPv4 address is like a /64. */
static size_t key_of(const struct sockaddr_storage *from, unsigned char key[17])
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;

	memset(key, 0, 17);
	if (from->ss_family == AF_INET) {
		key[0] = 4;
		memcpy(key + 1, &in->sin_addr, 4);
	} else if (from->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		key[0] = 4;
		memcpy(key + 1, in6->sin6_addr.s6_addr + 12, 4);
	} else if (from->ss_family == AF_INET6) {
		key[0] = 6;
		memcpy(key + 1, &in6->sin6_addr, 8);
		if (IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr))
			key[16] = 1;
	} else {
		return 0;
	}
	return 17;
}

static bool is_loopback(const unsigned char key[17])
{
	return (key[0] == 4 && key[1] == 127) || (key[0] == 6 && key[16] == 1);
}

struct gate_ip *gate_ip_get(struct gate *gate, const struct sockaddr_storage *from)
{
	unsigned char key[17];
	struct gate_ip *ip;

	if (!key_of(from, key))
		return NULL;
	ip = hmap_get(&gate->ips, key, sizeof(key));
	if (!ip) {
		if (gate->ips.n >= IPS_MAX)
			gate_ip_sweep(gate);
		ip = MEM_NEW(struct gate_ip);
		memcpy(ip->key, key, sizeof(key));
		hmap_put(&gate->ips, key, sizeof(key), ip);
	}
	ip->connections++;
	return ip;
}

void gate_ip_put(struct gate *gate, struct gconn *g)
{
	struct gate_ip *ip = g->ip;

	g->ip = NULL;
	if (!ip || --ip->connections || ip->failures)
		return;
	hmap_del(&gate->ips, ip->key, sizeof(ip->key));
	free(ip);
}

bool gate_ip_full(const struct gate *gate, const struct gate_ip *ip)
{
	uint64_t max = gate->p.conf.limits.prelogin_per_ip;

	return ip && max && ip->connections > max && !is_loopback(ip->key);
}

int64_t gate_ip_failed(struct gate *gate, struct gate_ip *ip)
{
	int64_t max = (int64_t)gate->p.conf.limits.failure_delay_max, delay = FIRST_DELAY_MS;
	uint32_t i;

	if (!ip)
		return delay < max ? delay : max;
	if (ip->failures < 100)
		ip->failures++;
	ip->failed_ms = gate->p.loop.now_ms;
	for (i = 1; i < ip->failures && delay < max; i++)
		delay *= 2;
	return delay < max ? delay : max;
}

void gate_ip_sweep(struct gate *gate)
{
	struct hmap keep = HMAP_INIT;
	size_t pos = 0;
	void *v;

	while (hmap_next(&gate->ips, &pos, NULL, NULL, &v)) {
		struct gate_ip *ip = v;

		if (!ip->connections && gate->p.loop.now_ms - ip->failed_ms > FORGET_MS)
			free(ip);
		else
			hmap_put(&keep, ip->key, sizeof(ip->key), ip);
	}
	hmap_free(&gate->ips);
	gate->ips = keep;
}
