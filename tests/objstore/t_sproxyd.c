/* The sproxyd driver: keys and metadata as Scality's clients make them, and what a ring does on bad days. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/b64.h"
#include "base/log.h"
#include "objstore/probe.h"
#include "objstore/sproxyd-text.h"
#include "tests/objstore/sproxydfix.h"

#include <openssl/evp.h>
#include <pthread.h>

static struct sproxydfix ring;

struct fix {
	struct objstore *s;
	struct err err;
};

static struct fix *open_ring(const char *profile, size_t connectors, const char *odd)
{
	struct objstore_settings set = sproxydfix_settings(&ring, profile, connectors);
	struct fix *f = MEM_NEW(struct fix);

	sproxydfix_odd(&ring, odd);
	if (objstore_open(&set, &f->s, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	return f;
}

static void close_ring(struct fix *f)
{
	objstore_close(&f->s);
	free(f);
}

static int put(struct fix *f, const char *key, const char *text)
{
	err_clear(&f->err);
	return objstore_put(f->s, key, text, strlen(text), OBJ_CREATE, NULL, &f->err);
}

static void assert_reads(struct fix *f, const char *key, const char *text)
{
	struct buf b = BUF_INIT(1 << 20);

	err_clear(&f->err);
	if (objstore_get(f->s, key, &b, NULL, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	assert_string_equal(buf_str(&b), text);
	buf_free(&b);
}

static uint64_t requests(struct fix *f, enum objstore_verb v)
{
	struct objstore_stats st;

	objstore_stats(f->s, &st);
	return st.verb[v].requests;
}

/* --- texts --- */

/* The layout written down a second time: bits from the most significant one. */
static void keys_have_their_fields_where_the_ring_looks(void **state)
{
	unsigned char k[20], payload[16], md5[EVP_MAX_MD_SIZE];
	char key[SPROXYD_KEY], other[SPROXYD_KEY];
	size_t i;

	sproxyd_key("u/7f/joe/m/00000001-0000002a", 0xC4, 2, key);
	assert_int_equal(strlen(key), 40);
	assert_int_equal(strspn(key, "0123456789ABCDEF"), 40);
	assert_int_equal(hex_decode(k, 20, key), 0);
	assert_int_equal(k[15], 0xC4);		/* behind 24 + 64 + 32 bits */
	assert_int_equal(k[19], 0x20);		/* class 2, replica 0 */
	for (i = 0; i < 16; i++)
		payload[i] = k[18 - i];
	EVP_Digest(payload, 16, md5, NULL, EVP_md5(), NULL);
	assert_int_equal(k[2], md5[0]);
	assert_int_equal(k[1], md5[1]);
	assert_int_equal(k[0], md5[2]);
	sproxyd_key("u/7f/joe/m/00000001-0000002a", 0xC5, 2, other);
	assert_string_not_equal(key, other);
	sproxyd_key("u/7f/joe/m/00000001-0000002b", 0xC4, 2, other);
	assert_memory_not_equal(key + 6, other + 6, 24);
	sproxyd_key("u/7f/joe/m/00000001-0000002a", 0xC4, 3, other);
	assert_memory_equal(key, other, 38);	/* the class is not part of what is dispersed */
	assert_string_equal(other + 38, "30");
}

/* Old mail must be found for ever: this value may never change. */
static void a_name_gives_the_same_key_for_ever(void **state)
{
	char key[SPROXYD_KEY];

	sproxyd_key("u/7f/joe/m/00000001-0000002a", 0xC4, 2, key);
	assert_string_equal(key, "7C45E028DF461E9FBEE6731624C84BC433FDFA20");
}

static void metadata_comes_back_as_it_went(void **state)
{
	static const char *const foreign[] = { "", "!", "AAAA", "eyJhIjoxfQ==", "AAAAAAFhAAAAAWI=", "AP////9hAAAAAWI=" };
	char name[OBJ_KEY_MAX + 1];
	struct sproxyd_usermd md;
	struct buf b = BUF_INIT(8192);
	size_t i;

	memset(name, 'n', OBJ_KEY_MAX);
	for (i = 200; i < OBJ_KEY_MAX; i += 200)
		name[i] = '/';
	name[OBJ_KEY_MAX] = '\0';
	sproxyd_usermd_put(&b, name, "0123456789abcdef0123456789abcdef");
	assert_int_equal(sproxyd_usermd_parse(buf_str(&b), &md), 1);
	assert_string_equal(md.name, name);
	assert_string_equal(md.token, "0123456789abcdef0123456789abcdef");
	assert_true(b.len < 2048);	/* what such stores take */
	for (i = 0; i < b.len; i++) {
		char *cut = mem_strndup(buf_str(&b), i);

		assert_int_equal(sproxyd_usermd_parse(cut, &md), 0);
		free(cut);
	}
	for (i = 0; i < MEM_COUNT(foreign); i++)
		assert_int_equal(sproxyd_usermd_parse(foreign[i], &md), 0);
	buf_free(&b);
}

static void see_failed(void *ctx, const char *key, int status)
{
	buf_addf(ctx, "%s:%d ", key, status);
}

static void batch_answers_of_any_form_are_read(void **state)
{
	static const struct { const char *text, *failed; } cases[] = {
		{ "", "" }, { "{}", "" }, { "no JSON", "" }, { "[]", "" }, { "{\"key\":1,\"status\":500}", "" },
		{ "{\"keys\":[{\"key\":\"A\",\"status\":423},{\"key\":\"B\",\"status\":200},{\"key\":\"C\",\"status\":404}]}", "A:423 " },
		{ "[{\"key\":\"A\",\"status\":500}]", "A:500 " },
		{ "{\"a\":{\"b\":{\"c\":[{\"key\":\"A\",\"status\":-5}]}}}", "A:0 " },
		{ "[[[[[[[[[[[[{\"key\":\"A\",\"status\":500}]]]]]]]]]]]]", "" },
	};
	struct buf b = BUF_INIT(0);
	size_t i;

	for (i = 0; i < MEM_COUNT(cases); i++) {
		buf_clear(&b);
		sproxyd_batch_failed(cases[i].text, strlen(cases[i].text), see_failed, &b);
		assert_string_equal(buf_str(&b), cases[i].failed);
	}
	buf_free(&b);
}

static void settings_that_make_no_sense_are_refused_in_words(void **state)
{
	static const char *const no_scheme[] = { "10.0.0.1:81" };
	struct { struct objstore_settings set; const char *says; } cases[] = {
		{ { .driver = "sproxyd" }, "needs url" },
		{ { .driver = "sproxyd", .urls = no_scheme, .n_urls = 1 }, "write it like" },
		{ { .driver = "sproxyd", .urls = ring.urls, .n_urls = 1, .service_id = 0x59 }, "above 0xC0" },
		{ { .driver = "sproxyd", .urls = ring.urls, .n_urls = 1, .service_id = 0xC3 }, "not 0xC3" },
		{ { .driver = "sproxyd", .urls = ring.urls, .n_urls = 1, .copies = 8 }, "class 7" },
		{ { .driver = "sproxyd", .urls = ring.urls, .n_urls = 1, .profile = "a/b" }, "profile" },
	};
	struct objstore *s;
	size_t i;

	for (i = 0; i < MEM_COUNT(cases); i++) {
		struct err e = ERR_INIT;

		assert_int_equal(objstore_open(&cases[i].set, &s, &e), ERR_INVALID);
		assert_non_null(strstr(e.msg, cases[i].says));
	}
}

/* --- whose object is it? --- */

static void a_key_of_two_names_is_an_error_and_neither_is_harmed(void **state)
{
	struct fix *f = open_ring("chord", 1, "\"collide\": true");
	struct buf b = BUF_INIT(0);

	assert_int_equal(put(f, "alice/1", "mail of alice"), 0);
	assert_int_equal(put(f, "bob/1", "mail of bob"), ERR_CORRUPT);
	assert_non_null(strstr(f->err.msg, "alice/1"));
	assert_int_equal(objstore_put(f->s, "bob/1", "x", 1, OBJ_ANY, NULL, NULL), ERR_CORRUPT);
	assert_int_equal(objstore_get(f->s, "bob/1", &b, NULL, NULL), ERR_CORRUPT);
	assert_int_equal(b.len, 0);
	assert_int_equal(objstore_head(f->s, "bob/1", NULL, NULL), ERR_CORRUPT);
	assert_reads(f, "alice/1", "mail of alice");
	assert_int_equal(sproxydfix_seen(&ring, "\"DELETE\""), 0);
	buf_free(&b);
	close_ring(f);
}

static void an_object_of_another_program_is_left_alone(void **state)
{
	struct fix *f = open_ring("chord", 1, "");
	struct s3fix door = sproxydfix_door(&ring);
	char key[SPROXYD_KEY], *plant;
	struct buf b = BUF_INIT(0);

	sproxyd_key("theirs", 0xC4, 2, key);
	plant = mem_printf("{\"key\": \"%s\", \"data\": \"secret\"}", key);
	free(s3fix_ask(&door, "POST", "/-/plant", plant));
	free(plant);
	assert_int_equal(objstore_get(f->s, "theirs", &b, NULL, NULL), ERR_CORRUPT);
	assert_int_equal(put(f, "theirs", "x"), ERR_CORRUPT);
	assert_int_equal(objstore_put(f->s, "theirs", "x", 1, OBJ_ANY, NULL, NULL), ERR_CORRUPT);
	assert_int_equal(b.len, 0);
	buf_free(&b);
	close_ring(f);
}

/* --- puts in doubt --- */

static void a_lost_answer_to_a_put_is_read_back(void **state)
{
	static const char *const odds[] = { "\"drop_after\": {\"method\": \"PUT\", \"n\": 1}", "\"ring_error\": {\"method\": \"PUT\", \"n\": 1, \"done\": true}",
		"\"error_after\": {\"method\": \"PUT\", \"n\": 1}", "\"error_after\": {\"method\": \"PUT\", \"n\": 1, \"status\": 503}" };
	size_t i;

	for (i = 0; i < MEM_COUNT(odds); i++) {
		struct fix *f = open_ring("chord", 2, odds[i]);

		assert_int_equal(put(f, "doubt", "mine"), 0);
		assert_int_equal(requests(f, OBJ_PUT), 1);	/* it was seen that it is there */
		assert_reads(f, "doubt", "mine");
		assert_int_equal(sproxydfix_seen(&ring, "\"DELETE\""), 0);
		close_ring(f);
	}
}

static void a_put_that_did_not_happen_is_done_again(void **state)
{
	struct fix *f = open_ring("chord", 2, "\"drop_before\": {\"method\": \"PUT\", \"n\": 2}, \"ring_error\": {\"method\": \"PUT\", \"n\": 2}");

	assert_int_equal(put(f, "again", "mine"), 0);
	assert_true(requests(f, OBJ_PUT) >= 5);
	assert_reads(f, "again", "mine");
	close_ring(f);
}

static void the_same_bytes_of_another_put_are_not_ours(void **state)
{
	struct fix *f = open_ring("chord", 1, "");

	assert_int_equal(put(f, "same", "bytes"), 0);
	assert_int_equal(put(f, "same", "bytes"), ERR_EXISTS);
	close_ring(f);
}

static void a_put_nobody_knows_of_is_a_time_out_and_nothing_is_deleted(void **state)
{
	struct objstore_settings set = sproxydfix_settings(&ring, "chord", 1);
	struct fix *f = MEM_NEW(struct fix);

	sproxydfix_odd(&ring, "\"drop_after\": {\"method\": \"PUT\"}, \"error\": {\"method\": \"HEAD\"}");
	set.timeout_ms = 1500;
	assert_int_equal(objstore_open(&set, &f->s, &f->err), 0);
	assert_int_equal(put(f, "unknown", "mine"), ERR_TIMEOUT);
	assert_int_equal(sproxydfix_seen(&ring, "\"DELETE\""), 0);
	sproxydfix_more(&ring, "{\"drop_after\": false, \"error\": false}");
	usleep(1100000);
	assert_reads(f, "unknown", "mine");	/* so it was right not to say that it failed */
	close_ring(f);
}

/* --- 423, 422 --- */

static void a_delete_right_after_a_read_waits_until_the_ring_lets_go(void **state)
{
	struct fix *f = open_ring("chord", 1, "\"locked_ms\": 300");

	assert_int_equal(put(f, "locked", "x"), 0);
	assert_reads(f, "locked", "x");
	assert_int_equal(objstore_delete(f->s, "locked", &f->err), 0);
	assert_true(requests(f, OBJ_DELETE) >= 2 && requests(f, OBJ_DELETE) <= 8);
	assert_int_equal(objstore_head(f->s, "locked", NULL, NULL), 0);
	close_ring(f);
}

static void a_key_that_stays_locked_is_busy(void **state)
{
	struct objstore_settings set = sproxydfix_settings(&ring, "chord", 1);
	struct fix *f = MEM_NEW(struct fix);

	sproxydfix_odd(&ring, "\"locked\": {\"method\": \"DELETE\"}");
	set.timeout_ms = 3000;
	assert_int_equal(objstore_open(&set, &f->s, &f->err), 0);
	assert_int_equal(put(f, "locked", "x"), 0);
	assert_int_equal(objstore_delete(f->s, "locked", &f->err), ERR_BUSY);
	assert_non_null(strstr(f->err.msg, "423"));
	close_ring(f);
}

static void a_burst_of_ring_errors_is_outlasted_and_named(void **state)
{
	struct fix *f = open_ring("chord", 1, "");
	struct objstore_settings set = sproxydfix_settings(&ring, "chord", 1);
	struct objstore *hasty;
	struct buf b = BUF_INIT(0);

	assert_int_equal(put(f, "ring", "x"), 0);
	sproxydfix_more(&ring, "{\"ring_error\": {\"n\": 4}}");
	assert_reads(f, "ring", "x");
	assert_int_equal(requests(f, OBJ_GET), 5);
	sproxydfix_more(&ring, "{\"ring_error\": true}");
	set.timeout_ms = 500;
	assert_int_equal(objstore_open(&set, &hasty, &f->err), 0);
	assert_true(objstore_get(hasty, "ring", &b, NULL, &f->err) < 0);
	assert_non_null(strstr(f->err.msg, "RING_TRY_AGAIN"));
	objstore_close(&hasty);
	buf_free(&b);
	close_ring(f);
}

/* --- connectors --- */

static void one_connector_is_asked_until_it_fails(void **state)
{
	struct fix *f = open_ring("chord", 3, "");
	unsigned i, busy = 0;
	char key[16], name[32];

	for (i = 0; i < 12; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(put(f, key, "x"), 0);
	}
	for (i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "\"connector\": %u", i);
		busy += sproxydfix_seen(&ring, name) > 0;
	}
	assert_int_equal(busy, 1);
	close_ring(f);
}

static void connectors_that_fail_are_left_and_come_back(void **state)
{
	static const char *const ways[] = { "down", "dead" };
	size_t w;

	for (w = 0; w < MEM_COUNT(ways); w++) {
		struct fix *f = open_ring("chord", 3, "");
		char *odd = mem_printf("{\"%s\": [0, 1]}", ways[w]), key[16];
		unsigned i, before;

		sproxydfix_more(&ring, odd);
		free(odd);
		for (i = 0; i < 10; i++) {
			snprintf(key, sizeof(key), "k%u", i);
			assert_int_equal(put(f, key, "x"), 0);
		}
		assert_true(requests(f, OBJ_PUT) <= 12);	/* each bad one was asked once */
		odd = mem_printf("{\"%s\": [2], \"conf_fails\": [1]}", ways[w]);
		sproxydfix_more(&ring, odd);	/* .conf of 1 goes on to fail: only 0 may come back */
		free(odd);
		usleep(1600000);
		before = sproxydfix_seen(&ring, "\"connector\": 1");
		for (i = 10; i < 20; i++) {
			snprintf(key, sizeof(key), "k%u", i);
			assert_int_equal(put(f, key, "x"), 0);
		}
		assert_true(sproxydfix_seen(&ring, ".conf") > 0);
		assert_true(sproxydfix_seen(&ring, "\"connector\": 1") <= before + 1);	/* a check at most */
		close_ring(f);
	}
}

static void a_connector_nobody_listens_at_is_passed_over(void **state)
{
	const char *urls[] = { "http://127.0.0.1:1", ring.url[0] };
	struct objstore_settings set = sproxydfix_settings(&ring, "chord", 1);
	struct fix *f = MEM_NEW(struct fix);

	sproxydfix_odd(&ring, "");
	set.urls = urls;
	set.n_urls = 2;
	for (set.seed = 1; set.seed < 5; set.seed++) {	/* either may be the head */
		assert_int_equal(objstore_open(&set, &f->s, &f->err), 0);
		assert_int_equal(objstore_put(f->s, "x", "x", 1, OBJ_ANY, NULL, &f->err), 0);
		objstore_close(&f->s);
	}
	free(f);
}

static void all_connectors_away_is_unavailable_and_ends_in_time(void **state)
{
	struct objstore_settings set = sproxydfix_settings(&ring, "chord", 3);
	struct fix *f = MEM_NEW(struct fix);
	int64_t t = clock_mono_us(&clock_system);
	struct buf b = BUF_INIT(0);

	sproxydfix_odd(&ring, "\"down\": [0, 1, 2]");
	set.timeout_ms = 1500;
	assert_int_equal(objstore_open(&set, &f->s, &f->err), 0);
	assert_true(err_is_temporary(objstore_get(f->s, "x", &b, NULL, &f->err)));
	assert_true(clock_mono_us(&clock_system) - t < 4000000);
	sproxydfix_more(&ring, "{\"down\": []}");
	usleep(1500000);
	assert_int_equal(put(f, "x", "back"), 0);
	close_ring(f);
}

static void idle_connections_are_not_used_when_the_server_has_ended_them(void **state)
{
	struct fix *f = open_ring("chord", 1, "\"idle_seconds\": 0.3");

	assert_int_equal(put(f, "idle1", "x"), 0);
	usleep(600000);
	assert_int_equal(put(f, "idle2", "x"), 0);
	assert_reads(f, "idle2", "x");
	sproxydfix_more(&ring, "{\"idle_seconds\": 25}");
	close_ring(f);
}

/* --- reads --- */

static void ranges_and_split_objects_have_their_size(void **state)
{
	struct fix *f = open_ring("chord", 1, "\"split_threshold\": 1000");
	char *big = mem_alloc(100001);
	struct buf b = BUF_INIT(0);
	uint64_t size = 0;

	memset(big, 'x', 100000);
	memcpy(big + 50000, "middle", 6);
	assert_int_equal(put(f, "split", big), 0);
	assert_int_equal(objstore_head(f->s, "split", &size, &f->err), 1);
	assert_int_equal(size, 100000);
	assert_int_equal(objstore_get_range(f->s, "split", 50000, 6, &b, &size, &f->err), 0);
	assert_string_equal(buf_str(&b), "middle");
	assert_int_equal(size, 100000);
	buf_clear(&b);
	assert_int_equal(objstore_get_range(f->s, "split", 100000, 6, &b, &size, &f->err), 0);	/* 416 */
	assert_int_equal(b.len, 0);
	assert_int_equal(size, 100000);
	sproxydfix_more(&ring, "{\"no_ranges\": true}");	/* the whole comes instead */
	assert_int_equal(objstore_get_range(f->s, "split", 50000, 6, &b, &size, &f->err), 0);
	assert_string_equal(buf_str(&b), "middle");
	buf_free(&b);
	free(big);
	close_ring(f);
}

static void an_answer_cut_short_is_asked_again(void **state)
{
	struct fix *f = open_ring("chord", 2, "\"truncate\": {\"n\": 1}");

	assert_int_equal(put(f, "cut", "0123456789"), 0);
	assert_reads(f, "cut", "0123456789");
	close_ring(f);
}

static void lagging_replicas_are_not_believed(void **state)
{
	struct fix *f = open_ring("chord", 1, "\"lag_ms\": 5000");

	assert_int_equal(put(f, "lag", "new"), 0);
	assert_reads(f, "lag", "new");
	assert_int_equal(objstore_put(f->s, "lag", "newer", 5, OBJ_ANY, NULL, &f->err), 0);
	assert_reads(f, "lag", "newer");
	close_ring(f);
}

static void a_deleted_object_that_still_shows_is_gone(void **state)
{
	struct fix *f = open_ring("chord", 1, "\"ghosts\": true");
	struct buf b = BUF_INIT(0);

	assert_int_equal(put(f, "ghost", "x"), 0);
	assert_int_equal(objstore_delete(f->s, "ghost", &f->err), 0);
	assert_int_equal(objstore_get(f->s, "ghost", &b, NULL, NULL), ERR_NOTFOUND);
	assert_int_equal(objstore_head(f->s, "ghost", NULL, NULL), 0);
	assert_int_equal(objstore_delete(f->s, "ghost", &f->err), 0);	/* 404 by key */
	assert_int_equal(put(f, "ghost", "y"), 0);
	buf_free(&b);
	close_ring(f);
}

static void a_slow_answer_is_waited_for_and_a_slower_one_asked_again(void **state)
{
	struct objstore_settings set = sproxydfix_settings(&ring, "chord", 2);
	struct fix *f = MEM_NEW(struct fix);

	sproxydfix_odd(&ring, "");
	set.attempt_timeout_ms = 500;
	assert_int_equal(objstore_open(&set, &f->s, &f->err), 0);
	assert_int_equal(put(f, "slow", "x"), 0);
	sproxydfix_more(&ring, "{\"slow\": {\"method\": \"PUT\", \"seconds\": 1, \"n\": 1}}");
	assert_int_equal(put(f, "slow2", "x"), 0);	/* done twice on the way: late and again */
	assert_reads(f, "slow2", "x");
	usleep(700000);
	assert_reads(f, "slow2", "x");
	close_ring(f);
}

/* --- deleting many --- */

static void delete_thousands(const char *profile, const char *odd, unsigned least, unsigned most)
{
	enum { MANY = 2300, STORED = 60 };
	struct fix *f = open_ring(profile, 1, odd);
	const char **keys = mem_calloc(MANY, sizeof(*keys));
	uint64_t before;
	size_t i;

	for (i = 0; i < MANY; i++)
		keys[i] = mem_printf("many/%zu", i);
	for (i = 0; i < STORED; i++)
		assert_int_equal(put(f, keys[i * (MANY / STORED)], "x"), 0);
	before = requests(f, OBJ_DELETE);
	if (objstore_delete_many(f->s, keys, MANY, &f->err) < 0)
		fail_msg("%s", f->err.msg);
	assert_true(requests(f, OBJ_DELETE) - before >= least && requests(f, OBJ_DELETE) - before <= most);
	for (i = 0; i < STORED; i++)
		assert_int_equal(objstore_head(f->s, keys[i * (MANY / STORED)], NULL, NULL), 0);
	for (i = 0; i < MANY; i++)
		free((char *)(uintptr_t)keys[i]);
	free(keys);
	close_ring(f);
}

static void thousands_go_in_batches(void **state)
{
	delete_thousands("chord", "", 3, 3);
}

static void a_batch_done_in_part_is_sent_again(void **state)
{
	delete_thousands("chord", "\"key_error\": {\"n\": 3, \"status\": 423}", 4, 6);
}

static void without_batches_they_go_one_by_one(void **state)
{
	delete_thousands("chord", "\"no_batch\": 404", 2301, 2301);
	delete_thousands("bparc", "", 2300, 2300);
}

static void a_key_that_cannot_be_deleted_is_named(void **state)
{
	static const char *const keys[] = { "d/1", "d/2", "d/3" };
	char ring_key[SPROXYD_KEY], *odd;
	struct fix *f;

	sproxyd_key("d/2", 0xC4, 2, ring_key);
	odd = mem_printf("\"key_error\": {\"key\": \"%s\", \"status\": 403}", ring_key);
	f = open_ring("chord", 1, odd);
	assert_int_equal(put(f, "d/3", "x"), 0);
	assert_int_equal(objstore_delete_many(f->s, keys, 3, &f->err), ERR_DENIED);
	assert_non_null(strstr(f->err.msg, "d/2"));
	assert_int_equal(objstore_head(f->s, "d/3", NULL, NULL), 0);	/* the others went */
	free(odd);
	close_ring(f);
}

/* --- the rest --- */

static void requests_say_who_asks(void **state)
{
	struct fix *f = open_ring("chord", 1, "");

	assert_int_equal(put(f, "who", "x"), 0);
	assert_reads(f, "who", "x");
	assert_int_equal(sproxydfix_seen(&ring, "x-scal-request-uids"), 2);
	close_ring(f);
}

static void the_probe_takes_it_for_mail_and_refuses_it_as_index(void **state)
{
	struct probe_result *r = MEM_NEW(struct probe_result);
	struct fix *f = open_ring("chord", 2, "");
	struct s3fix door = sproxydfix_door(&ring);
	struct err e = ERR_INIT;
	char *seen;

	assert_int_equal(probe_run(f->s, "the ring", 2, r, &f->err), 0);
	assert_int_equal(r->caps, OBJ_CAP_CREATE | OBJ_CAP_RANGE | OBJ_CAP_DELETE_MANY | OBJ_CAP_REMOTE);
	assert_int_equal(probe_judge(r, PROBE_FOR_MAIL, "mail_store", &e), 0);
	assert_int_equal(probe_judge(r, PROBE_FOR_INDEX, "index_store", &e), ERR_INVALID);
	assert_non_null(strstr(e.msg, "compare-and-swap"));
	seen = s3fix_ask(&door, "GET", "/-/seen", "");
	assert_non_null(strstr(seen, "\"objects\": {}"));	/* nothing is left behind, though it cannot be listed */
	free(seen);
	free(r);
	close_ring(f);
}

static void never_done(struct objstore_op *op)
{
	*(volatile int *)op->ctx = op->rc ? op->rc : 1;
}

static void what_is_cancelled_ends_at_once(void **state)
{
	struct fix *f = open_ring("chord", 1, "\"slow\": {\"seconds\": 3}");
	struct buf b = BUF_INIT(0);
	volatile int rc = 0;
	struct objstore_op op = { .verb = OBJ_GET, .key = "c", .out = &b, .done = never_done, .ctx = (void *)(uintptr_t)&rc };
	int64_t t = clock_mono_us(&clock_system);

	objstore_submit(f->s, &op);
	usleep(100000);
	objstore_cancel(f->s, &op);
	close_ring(f);
	assert_true(clock_mono_us(&clock_system) - t < 1500000);
	assert_int_equal(rc, ERR_TIMEOUT);
	buf_free(&b);
}

struct crowd { struct fix *f; unsigned id; int failed; };

static void *come(void *p)
{
	struct crowd *c = p;
	char key[32];
	unsigned i;

	for (i = 0; i < 25; i++) {
		struct buf b = BUF_INIT(0);

		snprintf(key, sizeof(key), "crowd/%u/%u", c->id, i);
		if (objstore_put(c->f->s, key, key, strlen(key), OBJ_CREATE, NULL, NULL) < 0 || objstore_get(c->f->s, key, &b, NULL, NULL) < 0 ||
		    strcmp(buf_str(&b), key) || (i % 5 == 0 && objstore_delete(c->f->s, key, NULL) < 0))
			c->failed++;
		buf_free(&b);
	}
	return NULL;
}

static void many_threads_lose_nothing_while_connectors_come_and_go(void **state)
{
	struct fix *f = open_ring("chord", 3, "\"locked_ms\": 20, \"ring_error\": {\"every\": 23}, \"drop_after\": {\"every\": 31}, \"error\": {\"every\": 37}");
	struct crowd c[12];
	pthread_t t[12];
	unsigned i;

	for (i = 0; i < 12; i++) {
		c[i] = (struct crowd){ f, i, 0 };
		pthread_create(&t[i], NULL, come, &c[i]);
	}
	for (i = 0; i < 6; i++) {
		char *odd = mem_printf("{\"down\": [%u], \"dead\": [%u]}", i % 3, (i + 1) % 3);

		sproxydfix_more(&ring, odd);
		free(odd);
		usleep(150000);
	}
	sproxydfix_more(&ring, "{\"down\": [], \"dead\": []}");
	for (i = 0; i < 12; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(c[i].failed, 0);
	}
	close_ring(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_have_their_fields_where_the_ring_looks),
		cmocka_unit_test(a_name_gives_the_same_key_for_ever),
		cmocka_unit_test(metadata_comes_back_as_it_went),
		cmocka_unit_test(batch_answers_of_any_form_are_read),
		cmocka_unit_test(settings_that_make_no_sense_are_refused_in_words),
		cmocka_unit_test(a_key_of_two_names_is_an_error_and_neither_is_harmed),
		cmocka_unit_test(an_object_of_another_program_is_left_alone),
		cmocka_unit_test(a_lost_answer_to_a_put_is_read_back),
		cmocka_unit_test(a_put_that_did_not_happen_is_done_again),
		cmocka_unit_test(the_same_bytes_of_another_put_are_not_ours),
		cmocka_unit_test(a_put_nobody_knows_of_is_a_time_out_and_nothing_is_deleted),
		cmocka_unit_test(a_delete_right_after_a_read_waits_until_the_ring_lets_go),
		cmocka_unit_test(a_key_that_stays_locked_is_busy),
		cmocka_unit_test(a_burst_of_ring_errors_is_outlasted_and_named),
		cmocka_unit_test(one_connector_is_asked_until_it_fails),
		cmocka_unit_test(connectors_that_fail_are_left_and_come_back),
		cmocka_unit_test(a_connector_nobody_listens_at_is_passed_over),
		cmocka_unit_test(all_connectors_away_is_unavailable_and_ends_in_time),
		cmocka_unit_test(idle_connections_are_not_used_when_the_server_has_ended_them),
		cmocka_unit_test(ranges_and_split_objects_have_their_size),
		cmocka_unit_test(an_answer_cut_short_is_asked_again),
		cmocka_unit_test(lagging_replicas_are_not_believed),
		cmocka_unit_test(a_deleted_object_that_still_shows_is_gone),
		cmocka_unit_test(a_slow_answer_is_waited_for_and_a_slower_one_asked_again),
		cmocka_unit_test(thousands_go_in_batches),
		cmocka_unit_test(a_batch_done_in_part_is_sent_again),
		cmocka_unit_test(without_batches_they_go_one_by_one),
		cmocka_unit_test(a_key_that_cannot_be_deleted_is_named),
		cmocka_unit_test(requests_say_who_asks),
		cmocka_unit_test(the_probe_takes_it_for_mail_and_refuses_it_as_index),
		cmocka_unit_test(what_is_cancelled_ends_at_once),
		cmocka_unit_test(many_threads_lose_nothing_while_connectors_come_and_go),
	};
	int rc;

	log_set_level(LOG_ERROR);
	if (sproxydfix_start(&ring) < 0)
		return 99;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	sproxydfix_stop(&ring);
	return rc;
}
