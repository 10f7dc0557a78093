/* Tests of what the processes are made of: timers, thread pool, channels, messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "daemon/chan.h"
#include "daemon/loop.h"
#include "daemon/msg.h"
#include "daemon/pool.h"
#include "daemon/worker.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- timers --- */

static int64_t fired_at[3];
static int n_fired;

static void fire(struct loop_timer *t)
{
	struct loop *l = t->owner;

	fired_at[n_fired++] = l->now_ms;
	if (n_fired == 3)
		l->stop = true;
}

static void again(struct loop_timer *t)
{
	loop_timer_set(t->owner, t, 0);	/* must not keep the others from firing */
}

static void timers_fire_in_time_and_not_when_cleared(void **state)
{
	struct loop l;
	struct loop_timer t[4] = { { .fire = fire, .owner = &l }, { .fire = fire, .owner = &l }, { .fire = fire, .owner = &l }, { .fire = fire, .owner = &l } };
	struct loop_timer busy = { .fire = again, .owner = &l };
	int64_t start;

	n_fired = 0;
	assert_int_equal(loop_init(&l), 0);
	start = l.now_ms;
	loop_timer_set(&l, &t[0], 350);
	loop_timer_set(&l, &t[1], 50);
	loop_timer_set(&l, &t[2], 100000);
	loop_timer_set(&l, &t[2], 200);		/* moved */
	loop_timer_set(&l, &t[3], 100);
	loop_timer_set(&l, &busy, 0);
	loop_timer_clear(&l, &t[3]);
	loop_run(&l);
	assert_in_range(fired_at[0] - start, 50, 50 + 4 * LOOP_TICK_MS);
	assert_in_range(fired_at[1] - start, 200, 200 + 4 * LOOP_TICK_MS);
	assert_in_range(fired_at[2] - start, 350, 350 + 4 * LOOP_TICK_MS);
	loop_timer_clear(&l, &busy);
	assert_int_equal(l.n_timers, 0);
	loop_release(&l);
}

/* --- the pool --- */

static atomic_int done;
struct counting { struct pool_task task; struct pool *pool; };

static void count_one(struct pool_task *t)
{
	usleep(100);
	atomic_fetch_add(&done, 1);
}

static void nested(void *ctx, size_t i)
{
	atomic_fetch_add(&done, 1);
}

static void outer(void *ctx, size_t i)
{
	pool_each(ctx, 10, nested, NULL);
}

static void a_pool_runs_everything_and_ends(void **state)
{
	struct pool *p = pool_new(8);
	struct counting c[500];
	size_t i;

	atomic_store(&done, 0);
	for (i = 0; i < MEM_COUNT(c); i++) {
		c[i].task.run = count_one;
		pool_add(p, &c[i].task);
	}
	pool_free(&p);
	assert_int_equal(atomic_load(&done), MEM_COUNT(c));
}

static void pool_each_nests_without_a_deadlock_on_a_pool_of_two(void **state)
{
	struct pool *p = pool_new(2);

	atomic_store(&done, 0);
	pool_each(p, 50, outer, p);
	assert_int_equal(atomic_load(&done), 500);
	pool_each(p, 0, outer, p);
	pool_free(&p);
}

/* --- channels --- */

struct end { struct chan *ch; unsigned next, fds; bool closed; };

static void on_message(struct chan *ch, struct rd *r, int fd)
{
	struct end *e = ch->owner;

	assert_int_equal(rd_32(r), e->next++);
	assert_int_equal(rd_left(r), 10000);
	if (fd >= 0) {
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		e->fds++;
		close(fd);
	}
}

static void on_closed(struct chan *ch)
{
	struct end *e = ch->owner;

	e->closed = true;
	ch->loop->stop = true;
	chan_free(&e->ch);
}

static const struct chan_ops ops = { on_message, on_closed };

static void a_channel_queues_what_does_not_fit_and_keeps_order_and_descriptors(void **state)
{
	struct loop l;
	struct end a = { 0 }, b = { 0 };
	struct buf msg = BUF_INIT(0);
	unsigned i, k;
	int sv[2];

	assert_int_equal(loop_init(&l), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	a.ch = chan_new(&l, sv[0], &ops, &a, 0);
	b.ch = chan_new(&l, sv[1], &ops, &b, 0);
	for (i = 0; i < 200; i++) {
		buf_clear(&msg);
		buf_put32(&msg, i);
		for (k = 0; k < 10000; k++)
			buf_put8(&msg, (uint8_t)k);
		assert_int_equal(chan_send(a.ch, &msg, i % 3 == 0 ? dup(0) : -1), 0);
	}
	assert_true(a.ch->queued > 0);
	buf_reserve(&msg, CHAN_MSG_MAX + 1);
	msg.len = CHAN_MSG_MAX + 1;
	assert_int_equal(chan_send(a.ch, &msg, dup(0)), -1);
	while (b.next < 200) {
		struct loop_timer t = { .fire = fire, .owner = &l };

		n_fired = 2;	/* the timer ends the run */
		l.stop = false;
		loop_timer_set(&l, &t, 50);
		loop_run(&l);
	}
	assert_int_equal(b.fds, 67);
	assert_int_equal(a.ch->queued, 0);
	l.stop = false;
	chan_free(&a.ch);
	loop_run(&l);
	assert_true(b.closed);
	loop_release(&l);
	buf_free(&msg);
}

/* --- messages --- */

static void a_connection_survives_its_message_and_every_cut_is_noticed(void **state)
{
	struct msg_conn in = { .proto = PROTO_POP3, .tls = true, .id = "id", .peer = "1.2.3.4:5", .local = "", .user = "joe", .tag = NULL, .in = "rest\0", .in_len = 5 }, out;
	struct buf b = BUF_INIT(0);
	struct rd r;
	size_t i;

	msg_conn_put(&b, &in);
	r = rd_init(b.data, b.len);
	assert_int_equal(rd_8(&r), MSG_CONN);
	assert_int_equal(msg_conn_get(&r, &out), 0);
	assert_true(out.proto == PROTO_POP3 && out.tls && !out.loopback && out.in_len == 5);
	assert_string_equal(out.user, "joe");
	assert_string_equal(out.tag, "");
	for (i = 1; i < b.len; i++) {
		r = rd_init(b.data + 1, i - 1);
		assert_int_equal(msg_conn_get(&r, &out), -1);
	}
	buf_free(&b);
}

static void users_are_spread_over_workers(void **state)
{
	unsigned n[4] = { 0 }, i;
	char name[32];

	for (i = 0; i < 4000; i++) {
		snprintf(name, sizeof(name), "user%u@example.org", i);
		n[msg_worker_of(name, 4)]++;
	}
	for (i = 0; i < 4; i++)
		assert_in_range(n[i], 850, 1150);
	assert_int_equal(msg_worker_of("joe", 1), 0);
}

/* --- who is known --- */

static void assert_known(struct worker_known *k, const char *address, int64_t now_ms, const char *user)
{
	char *u = worker_known_get(k, address, now_ms);

	if (user)
		assert_string_equal(u, user);
	else
		assert_null(u);
	free(u);
}

static void a_user_is_known_for_a_second_and_the_memory_bounded(void **state)
{
	struct worker_known k;
	char address[32];
	int i;

	(void)state;
	worker_known_init(&k);
	assert_known(&k, "joe@example.org", 0, NULL);
	worker_known_put(&k, "joe@example.org", "joe", 1000);
	assert_known(&k, "joe@example.org", 1999, "joe");
	assert_known(&k, "joe@example.org", 2000, NULL);
	assert_known(&k, "JOE@example.org", 1500, NULL);	/* auth decides what is the same */
	worker_known_put(&k, "joe@example.org", "jim", 2000);
	assert_known(&k, "joe@example.org", 2500, "jim");
	for (i = 0; i < 20000; i++) {
		snprintf(address, sizeof(address), "u%d", i);
		worker_known_put(&k, address, address, 3000);
		assert_true(k.users.n <= 4096);
	}
	assert_known(&k, "u19999", 3000, "u19999");
	worker_known_free(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timers_fire_in_time_and_not_when_cleared),
		cmocka_unit_test(a_pool_runs_everything_and_ends),
		cmocka_unit_test(pool_each_nests_without_a_deadlock_on_a_pool_of_two),
		cmocka_unit_test(a_channel_queues_what_does_not_fit_and_keeps_order_and_descriptors),
		cmocka_unit_test(a_connection_survives_its_message_and_every_cut_is_noticed),
		cmocka_unit_test(users_are_spread_over_workers),
		cmocka_unit_test(a_user_is_known_for_a_second_and_the_memory_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
