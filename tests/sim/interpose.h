/* Put before the sources of obox/ and metacache/ when they are compiled for
 * the simulator: threads, locks, sleeping and clocks become the scheduler's
 * (threads.c), so that everything runs on one real thread, in an order and at a time
 * that the seed decides. */
#ifndef TESTS_SIM_INTERPOSE_H
#define TESTS_SIM_INTERPOSE_H
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int simt_mutex_init(pthread_mutex_t *m);
int simt_mutex_lock(pthread_mutex_t *m);
int simt_mutex_unlock(pthread_mutex_t *m);
int simt_cond_init(pthread_cond_t *c);
int simt_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int simt_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t);	/* on the node's monotonic clock */
int simt_cond_signal(pthread_cond_t *c);
int simt_cond_broadcast(pthread_cond_t *c);
int simt_rwlock_init(pthread_rwlock_t *l);
int simt_rwlock_rdlock(pthread_rwlock_t *l);
int simt_rwlock_wrlock(pthread_rwlock_t *l);
int simt_rwlock_unlock(pthread_rwlock_t *l);
int simt_create(pthread_t *t, void *(*fn)(void *), void *arg);
int simt_join(pthread_t t);
int simt_usleep(useconds_t us);
int simt_clock_gettime(clockid_t id, struct timespec *t);
int simt_random(unsigned char *out, int n);	/* libsodium's: rnd_install() */

#include "base/wake.h"

void simt_wake_init(struct wake *w);
void simt_wake_up(struct wake *w);
bool simt_wake_wait(struct wake *w, int ms);

#define wake_init(w) simt_wake_init(w)
#define wake_up(w) simt_wake_up(w)
#define wake_wait(w, ms) simt_wake_wait(w, ms)
#define pthread_mutex_init(m, a) simt_mutex_init(m)
#define pthread_mutex_destroy(m) ((void)(m))
#define pthread_mutex_lock(m) simt_mutex_lock(m)
#define pthread_mutex_unlock(m) simt_mutex_unlock(m)
#define pthread_cond_init(c, a) simt_cond_init(c)
#define pthread_cond_destroy(c) ((void)(c))
#define pthread_cond_wait(c, m) simt_cond_wait(c, m)
#define pthread_cond_timedwait(c, m, t) simt_cond_timedwait(c, m, t)
#define pthread_cond_signal(c) simt_cond_signal(c)
#define pthread_cond_broadcast(c) simt_cond_broadcast(c)
#define pthread_rwlock_init(l, a) simt_rwlock_init(l)
#define pthread_rwlock_destroy(l) ((void)(l))
#define pthread_rwlock_rdlock(l) simt_rwlock_rdlock(l)
#define pthread_rwlock_wrlock(l) simt_rwlock_wrlock(l)
#define pthread_rwlock_unlock(l) simt_rwlock_unlock(l)
#define pthread_create(t, a, fn, arg) simt_create(t, fn, arg)
#define pthread_join(t, r) simt_join(t)
#define usleep(us) simt_usleep(us)
#define clock_gettime(id, t) simt_clock_gettime(id, t)
#define RAND_bytes(p, n) simt_random(p, n)
#endif
