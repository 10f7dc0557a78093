#include "daemon/stores.h"

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

enum { SHARED_S = 60 };		/* so old a result is of this start */

void stores_settings(const struct conf_store *cs, struct objstore_settings *set)
{
	*set = (struct objstore_settings){
		.driver = conf_driver_name(cs->driver), .path = cs->path, .endpoint = cs->endpoint, .region = cs->region, .bucket = cs->bucket,
		.addressing = conf_addressing_name(cs->addressing), .credentials = conf_credentials_name(cs->credentials),
		.access_key = cs->access_key, .secret_key = cs->secret_key, .session_token = cs->session_token,
		.credentials_file = cs->credentials_file, .profile = cs->profile, .role_arn = cs->role_arn,
		.web_identity_token_file = cs->web_identity_token_file, .imds_endpoint = cs->imds_endpoint, .sts_endpoint = cs->sts_endpoint,
		.ca_file = cs->ca_file, .cert_file = cs->cert_file, .key_file = cs->key_file, .proxy = cs->proxy, .storage_class = cs->storage_class,
		.sse = conf_sse_name(cs->sse), .sse_kms_key = cs->sse_kms_key, .sse_customer_key = cs->sse_customer_key,
		.checksum = conf_checksum_name(cs->checksum), .etag_match = conf_etag_match_name(cs->etag_match),
		.concurrency = cs->concurrency, .timeout_ms = cs->timeout, .attempt_timeout_ms = cs->attempt_timeout,
		.connect_timeout_ms = cs->connect_timeout, .multipart_size = cs->multipart_size, .part_size = cs->part_size, .no_hedge = !cs->hedge,
		.urls = (const char *const *)cs->url.v, .n_urls = cs->url.n, .service_id = conf_service_id(cs->service_id), .copies = (unsigned)cs->class + 1,
	};
}

void stores_describe(const struct conf_store *cs, struct buf *out)
{
	if (cs->driver == CONF_STORE_S3)
		buf_addf(out, "s3 bucket %s at %s (%s)", cs->bucket, *cs->endpoint ? cs->endpoint : "AWS", cs->region);
	else if (cs->driver == CONF_STORE_LIBS3)
		buf_addf(out, "bucket %s at %s, by libs3", cs->bucket, cs->endpoint);
	else if (cs->driver == CONF_STORE_SPROXYD)
		buf_addf(out, "sproxyd profile %s at %s%s (service id %s, class %u)", *cs->profile ? cs->profile : "chord", cs->url.n ? cs->url.v[0] : "",
			 cs->url.n > 1 ? " and others" : "", cs->service_id, (unsigned)cs->class);
	else
		buf_addf(out, "directory %s", cs->path);
}

static int open_one(const struct conf_store *cs, struct objstore **s, struct err *err)
{
	struct objstore_settings set;

	stores_settings(cs, &set);
	return objstore_open(&set, s, err);
}

/* --- new or not --- */

static bool posix_is_new(const struct conf_store *cs)
{
	char *path = mem_printf("%s/.culver", cs->path);	/* the driver's own */
	bool fresh = access(path, F_OK) < 0 && errno == ENOENT;

	free(path);
	return fresh;
}

static bool has_keys(const struct conf *c)
{
	char *path = mem_printf("%s/keys", c->state_dir);
	DIR *d = opendir(path);
	struct dirent *e;
	bool some = false;

	while (d && !some && (e = readdir(d)) != NULL)
		some = e->d_name[0] != '.';
	if (d)
		closedir(d);
	free(path);
	return some;
}

static int see_key(void *ctx, const struct objstore_list_item *item)
{
	return strncmp(item->key, "culver-probe/", 13) != 0;
}

static int remote_is_new(const struct conf_store *cs, struct err *err)
{
	struct objstore *s;
	int rc = open_one(cs, &s, err);

	if (rc < 0)
		return rc;
	rc = objstore_each(s, cs->prefix, see_key, NULL, err);
	objstore_close(&s);
	return rc < 0 ? rc : rc == 0;
}

static int one_is_new(const struct conf *c, const struct conf_store *cs, struct err *err)
{
	if (cs->driver == CONF_STORE_POSIX)
		return posix_is_new(cs);
	return has_keys(c) ? 0 : remote_is_new(cs, err);
}

int stores_are_new(const struct conf *c, struct err *err)
{
	/* a ring cannot be listed: what its index says counts */
	int rc = c->mail_store.driver == CONF_STORE_SPROXYD ? 1 : one_is_new(c, &c->mail_store, err);

	if (rc != 1 || c->index_store.driver == CONF_STORE_MAIL)
		return rc;
	return one_is_new(c, &c->index_store, err);
}

/* --- the probe --- */

static int take_lock(const char *path, struct err *err)
{
	int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_errno(err, "open", path);
	while (flock(fd, LOCK_EX) < 0) {
		if (errno != EINTR) {
			err_errno(err, "lock", path);
			close(fd);
			return err ? err->code : ERR_IO;
		}
	}
	return fd;
}

int stores_probe(const struct conf *c, const char *name, const struct conf_store *cs, struct objstore *s, unsigned rounds, struct probe_result *r, struct err *err)
{
	char *path = mem_printf("%s/probe-%s.json", c->state_dir, name);
	struct buf where = BUF_INIT(2048);
	int rc;

	stores_describe(cs, &where);
	rc = probe_run(s, buf_str(&where), rounds, r, err);
	if (rc == 0)
		rc = probe_save(r, path, err);
	buf_free(&where);
	free(path);
	return rc;
}

static int judge(const struct probe_result *r, const char *name, bool for_index, struct err *err)
{
	int rc = probe_judge(r, PROBE_FOR_MAIL, name, err);

	return rc == 0 && for_index ? probe_judge(r, PROBE_FOR_INDEX, "index_store", err) : rc;
}

/* Also a probe that was cut short may have seen enough. */
static bool refused(const struct probe_result *r, const char *name, bool for_index)
{
	return probe_fails(r, PROBE_FOR_MAIL, name, NULL) < 0 || (for_index && probe_fails(r, PROBE_FOR_INDEX, name, NULL) < 0);
}

/* From the file when it is good and of this very start, otherwise tried; when the store is away, what is known of it. */
static int known_or_probe(const struct conf *c, const char *name, const struct conf_store *cs, struct objstore *s, bool for_index, struct probe_result *r, struct err *err)
{
	int64_t now = clock_wall_s(&clock_system);
	char *path = mem_printf("%s/probe-%s.json", c->state_dir, name);
	struct probe_result *kept = MEM_NEW(struct probe_result);
	struct buf where = BUF_INIT(2048);
	struct err why = ERR_INIT;
	bool same;
	int rc;

	stores_describe(cs, &where);
	same = probe_load(kept, path, NULL) == 1 && !strcmp(kept->store, buf_str(&where));
	if (same && now - kept->time < SHARED_S && kept->time <= now && judge(kept, name, for_index, NULL) == 0) {
		*r = *kept;
		rc = 0;
	} else {
		rc = stores_probe(c, name, cs, s, 0, r, &why);
		if (rc < 0 && refused(r, name, for_index)) {
			rc = 0;
		} else if (rc < 0 && same && err_is_temporary(rc)) {
			log_event(LOG_WARN, "the object store could not be tried; what was found before counts", LF_S("section", name), LF_ERR(&why), LF_END);
			*r = *kept;
			rc = 0;
		}
		if (rc < 0)
			err_set(err, rc, "%s: %.200s cannot be used: %.250s", name, buf_str(&where), why.msg);
	}
	free(kept);
	buf_free(&where);
	free(path);
	return rc;
}

static int probe_one(const struct conf *c, const char *name, const struct conf_store *cs, struct objstore *s, bool for_index, struct err *err)
{
	struct probe_result *r;
	char *lock;
	int fd, rc;

	if (cs->driver == CONF_STORE_POSIX)	/* what it promises does not depend on the place */
		return 0;
	r = MEM_NEW(struct probe_result);
	lock = mem_printf("%s/probe.lock", c->state_dir);
	fd = take_lock(lock, err);
	rc = fd < 0 ? fd : known_or_probe(c, name, cs, s, for_index, r, err);
	io_close(&fd);
	if (rc == 0)
		rc = judge(r, name, for_index, err);
	if (rc == 0)
		s->caps &= r->caps | OBJ_CAP_REMOTE;	/* results kept by an older culverd do not know of that */
	free(lock);
	free(r);
	return rc;
}

/* --- life --- */

int stores_open(const struct conf *c, bool probe, struct stores *s, struct err *err)
{
	bool one = c->index_store.driver == CONF_STORE_MAIL;
	int rc;

	memset(s, 0, sizeof(*s));
	rc = open_one(&c->mail_store, &s->mail, err);
	if (rc == 0 && one)
		s->index = s->mail;
	if (rc == 0 && !one)
		rc = open_one(&c->index_store, &s->index, err);
	if (rc == 0 && probe)
		rc = probe_one(c, "mail_store", &c->mail_store, s->mail, one, err);
	if (rc == 0 && probe && !one)
		rc = probe_one(c, "index_store", &c->index_store, s->index, true, err);
	return rc;
}

void stores_close(struct stores *s)
{
	if (s->index != s->mail)
		objstore_close(&s->index);
	s->index = NULL;
	objstore_close(&s->mail);
}
