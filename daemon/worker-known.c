/* Who is known to exist: auth's last answers, kept for a second.
 *
 * A mailing to one user, or a client that delivers one message a connection,
 * then asks auth once and not each time (two processes woken, four context
 * switches).  Only "there is such a user" is kept: a new user gets mail at once. */
#include "daemon/worker.h"

#include "base/mem.h"

enum { KNOWN_MS = 1000, KNOWN_MAX = 4096 };

struct known {
	int64_t until_ms;
	char user[];
};

static void forget_all(struct worker_known *k)
{
	size_t pos = 0;
	void *v;

	while (hmap_next(&k->users, &pos, NULL, NULL, &v))
		free(v);
	hmap_free(&k->users);
}

void worker_known_init(struct worker_known *k)
{
	pthread_mutex_init(&k->lock, NULL);
	k->users = (struct hmap)HMAP_INIT;
}

void worker_known_free(struct worker_known *k)
{
	forget_all(k);
	pthread_mutex_destroy(&k->lock);
}

char *worker_known_get(struct worker_known *k, const char *address, int64_t now_ms)
{
	const struct known *e;
	char *user = NULL;

	pthread_mutex_lock(&k->lock);
	e = hmap_gets(&k->users, address);
	if (e && now_ms < e->until_ms)
		user = mem_strdup(e->user);
	pthread_mutex_unlock(&k->lock);
	return user;
}

void worker_known_put(struct worker_known *k, const char *address, const char *user, int64_t now_ms)
{
	size_t len = strlen(user) + 1;
	struct known *e = mem_alloc(sizeof(*e) + len);

	e->until_ms = now_ms + KNOWN_MS;
	memcpy(e->user, user, len);
	pthread_mutex_lock(&k->lock);
	if (k->users.n >= KNOWN_MAX)
		forget_all(k);
	free(hmap_put(&k->users, address, strlen(address), e));
	pthread_mutex_unlock(&k->lock);
}
