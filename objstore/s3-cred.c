#include "objstore/s3-cred.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "objstore/s3-xml.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

enum {
	EARLY_S = 300, LAST_S = 10, RETRY_S = 15, FILE_CHECK_S = 30, FILE_MAX = 1 << 20, TOKEN_MAX = 64 * 1024,
	FETCH_US = 5000000, IMDS_STEP_US = 2000000
};

struct s3_cred {
	struct http_engine *e;
	enum s3_cred_source source;	/* AUTO is resolved at the first get */
	char *access, *secret, *token, *file, *profile, *role_arn, *token_file, *imds, *sts;
	void (*changed)(void *ctx);
	void *ctx;
	struct s3_cred_set set;		/* in force */
	bool have, fetching;
	int64_t again_s;		/* not before: when they are renewed, after a failure, the next look at the file */
	struct timespec file_time;
	struct err err;			/* of the last try */
	/* the fetch under way */
	struct http_req req;
	char *url, *header, *body, *imds_token;
	struct iovec iov;
	const char *headers[2];
	int step;
};

static int64_t now_s(void)
{
	return clock_wall_s(&clock_system);
}

static char *setting(const char *value, const char *env)
{
	const char *s = value && *value ? value : env ? getenv(env) : NULL;

	return s && *s ? mem_strdup(s) : NULL;
}

static void wipe(char **s)
{
	if (*s)
		OPENSSL_cleanse(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

static char *default_file(void)
{
	const char *home = getenv("HOME");

	return home && *home ? mem_printf("%s/.aws/credentials", home) : NULL;
}

struct s3_cred *s3_cred_new(struct http_engine *e, const struct s3_cred_config *cfg, void (*changed)(void *ctx), void *ctx)
{
	struct s3_cred *c = MEM_NEW(struct s3_cred);

	c->e = e;
	c->source = cfg->source;
	c->changed = changed;
	c->ctx = ctx;
	c->access = setting(cfg->access, NULL);
	c->secret = setting(cfg->secret, NULL);
	c->token = setting(cfg->token, NULL);
	c->file = setting(cfg->file, "AWS_SHARED_CREDENTIALS_FILE");
	if (!c->file)
		c->file = default_file();
	c->profile = setting(cfg->profile, "AWS_PROFILE");
	if (!c->profile)
		c->profile = mem_strdup("default");
	c->role_arn = setting(cfg->role_arn, "AWS_ROLE_ARN");
	c->token_file = setting(cfg->token_file, "AWS_WEB_IDENTITY_TOKEN_FILE");
	c->imds = setting(cfg->imds_endpoint, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
	if (!c->imds)
		c->imds = mem_strdup("http://169.254.169.254");
	c->sts = setting(cfg->sts_endpoint, "AWS_ENDPOINT_URL_STS");
	if (!c->sts)
		c->sts = mem_printf("https://sts.%s.amazonaws.com", cfg->region);
	http_req_init(&c->req);
	return c;
}

static void fetch_release(struct s3_cred *c)
{
	if (c->req.body.data)
		OPENSSL_cleanse(c->req.body.data, c->req.body.cap);
	http_req_free(&c->req);
	free(c->url);
	c->url = NULL;
	wipe(&c->header);
	wipe(&c->body);
}

void s3_cred_free(struct s3_cred **cp)
{
	struct s3_cred *c = *cp;

	*cp = NULL;
	if (!c)
		return;
	fetch_release(c);
	wipe(&c->imds_token);
	s3_cred_set_free(&c->set);
	free(c->access);
	wipe(&c->secret);
	wipe(&c->token);
	free(c->file);
	free(c->profile);
	free(c->role_arn);
	free(c->token_file);
	free(c->imds);
	free(c->sts);
	free(c);
}

static void install(struct s3_cred *c, struct s3_cred_set *set)
{
	s3_cred_set_free(&c->set);
	c->set = *set;
	c->have = true;
	c->again_s = 0;
	if (set->expires_s) {
		int64_t now = now_s(), half = now + (set->expires_s - now) / 2;

		c->again_s = set->expires_s - EARLY_S > half ? set->expires_s - EARLY_S : half;
	}
	err_clear(&c->err);
}

static void failed(struct s3_cred *c)
{
	c->again_s = now_s() + RETRY_S;
	log_event(LOG_WARN, "no new credentials for the object store", LF_ERR(&c->err), LF_U("old_ones_usable", c->have), LF_END);
}

/* --- sources that answer at once --- */

static int from_words(struct s3_cred *c, const char *access, const char *secret, const char *token, const char *where)
{
	struct s3_cred_set set = { 0 };

	if (!access || !*access || !secret || !*secret) {
		c->again_s = now_s() + RETRY_S;
		return err_set(&c->err, ERR_DENIED, "no access key and secret key in %s", where);
	}
	set.access = mem_strdup(access);
	set.secret = mem_strdup(secret);
	set.token = token && *token ? mem_strdup(token) : NULL;
	install(c, &set);
	return 1;
}

static int from_file(struct s3_cred *c)
{
	struct s3_cred_set set;
	struct stat st;
	char *text = NULL;
	size_t len = 0;
	int rc;

	err_clear(&c->err);
	c->again_s = now_s() + FILE_CHECK_S;
	if (!c->file || stat(c->file, &st) < 0)
		return err_set(&c->err, ERR_DENIED, "%s: no such credentials file", c->file ? c->file : "~/.aws/credentials");
	if (c->have && st.st_mtim.tv_sec == c->file_time.tv_sec && st.st_mtim.tv_nsec == c->file_time.tv_nsec)
		return 1;
	rc = io_read_file(c->file, FILE_MAX, &text, &len, &c->err);
	if (rc == 0)
		rc = s3_cred_parse_file(text, len, c->profile, &set, &c->err);
	if (text)
		OPENSSL_cleanse(text, len);
	free(text);
	if (rc == 1) {
		install(c, &set);
		c->file_time = st.st_mtim;
		c->again_s = now_s() + FILE_CHECK_S;
		return 1;
	}
	if (rc == 0)
		return err_set(&c->err, ERR_DENIED, "%s: there is no [%s]", c->file, c->profile);
	return err_prefix(&c->err, "%s", c->file);
}

/* --- sources behind HTTP --- */

static void fetch_ended(struct s3_cred *c, struct s3_cred_set *set)
{
	c->fetching = false;
	fetch_release(c);
	if (set)
		install(c, set);
	else
		failed(c);
	c->changed(c->ctx);
}

static void request(struct s3_cred *c, enum http_method method, int64_t limit_us, bool direct, void (*done)(struct http_req *r))
{
	http_req_init(&c->req);
	c->req.method = method;
	c->req.url = c->url;
	c->headers[0] = c->header;
	c->req.headers = c->headers;
	c->req.n_headers = c->header ? 1 : 0;
	if (c->body) {
		c->iov = (struct iovec){ c->body, strlen(c->body) };
		c->req.iov = &c->iov;
		c->req.n_iov = 1;
	}
	c->req.deadline_us = http_now() + limit_us;
	c->req.direct = direct;
	c->req.done = done;
	c->req.ctx = c;
	http_submit(c->e, &c->req);
}

static bool answered(struct s3_cred *c, const char *who)
{
	if (c->req.fail != HTTP_ANSWERED) {
		err_set(&c->err, ERR_UNAVAILABLE, "%s: %s", who, c->req.err.msg);
		return false;
	}
	if (c->req.status == 200 && c->req.body.len)
		return true;
	err_set(&c->err, ERR_UNAVAILABLE, "%s: HTTP status %d", who, c->req.status);
	return false;
}

static void imds_step(struct s3_cred *c);

static void imds_done(struct http_req *r)
{
	static const char *const what[] = { "instance metadata (token)", "instance metadata (role)", "instance metadata (keys)" };
	struct s3_cred *c = r->ctx;
	struct s3_cred_set set;
	char *line;

	if (!answered(c, what[c->step])) {
		fetch_ended(c, NULL);
		return;
	}
	line = mem_strndup(buf_str(&r->body), strcspn(buf_str(&r->body), "\r\n"));
	if (c->step == 0) {
		wipe(&c->imds_token);
		c->imds_token = line;
	} else if (c->step == 1) {
		struct buf url = BUF_INIT(4096);

		fetch_release(c);
		buf_addf(&url, "%s/latest/meta-data/iam/security-credentials/", c->imds);
		s3_uri_encode(&url, line, strlen(line), 0);
		c->url = buf_detach(&url);
		free(line);
	} else {
		free(line);
		fetch_ended(c, s3_cred_parse_imds((const char *)r->body.data, r->body.len, &set, &c->err) == 0 ? &set : NULL);
		return;
	}
	c->step++;
	imds_step(c);
}

static void imds_step(struct s3_cred *c)
{
	char *url = c->step == 2 ? c->url : NULL;

	if (c->step == 2)
		c->url = NULL;
	fetch_release(c);
	if (c->step == 0) {
		c->url = mem_printf("%s/latest/api/token", c->imds);
		c->header = mem_strdup("X-aws-ec2-metadata-token-ttl-seconds: 21600");
		request(c, HTTP_PUT, IMDS_STEP_US, true, imds_done);
		return;
	}
	c->url = url ? url : mem_printf("%s/latest/meta-data/iam/security-credentials/", c->imds);
	c->header = mem_printf("X-aws-ec2-metadata-token: %s", c->imds_token);
	request(c, HTTP_GET, IMDS_STEP_US, true, imds_done);
}

static void sts_done(struct http_req *r)
{
	struct s3_cred *c = r->ctx;
	struct s3_xml_role role;
	struct s3_cred_set set = { 0 };
	struct s3_xml_error e;
	struct tm tm = { 0 };

	if (r->fail == HTTP_ANSWERED && r->status != 200 && s3_xml_error(r->body.data, r->body.len, &e) == 1)
		err_set(&c->err, ERR_DENIED, "STS does not give keys for %s: %s %s", c->role_arn, e.code, e.message);
	if (!answered(c, "STS") || s3_xml_role(r->body.data, r->body.len, &role, &c->err) < 0) {
		fetch_ended(c, NULL);
		return;
	}
	set.access = mem_strdup(role.access);
	set.secret = mem_strdup(role.secret);
	set.token = *role.token ? mem_strdup(role.token) : NULL;
	if (strptime(role.expiration, "%Y-%m-%dT%H:%M:%S", &tm))
		set.expires_s = (int64_t)timegm(&tm);
	OPENSSL_cleanse(&role, sizeof(role));
	fetch_ended(c, &set);
}

/* Everything for STS is in a form; the token file is read at each fetch, for it is rotated. */
static int sts_start(struct s3_cred *c)
{
	struct buf form = BUF_INIT(4 * TOKEN_MAX);
	char *token = NULL;
	size_t len = 0;

	if (!c->role_arn || !c->token_file)
		return err_set(&c->err, ERR_DENIED, "web identity needs role_arn and web_identity_token_file (or AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE)");
	if (io_read_file(c->token_file, TOKEN_MAX, &token, &len, &c->err) < 0)
		return c->err.code;
	while (len && (token[len - 1] == '\n' || token[len - 1] == '\r'))
		len--;
	buf_adds(&form, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=culver&RoleArn=");
	s3_uri_encode(&form, c->role_arn, strlen(c->role_arn), 0);
	buf_adds(&form, "&WebIdentityToken=");
	s3_uri_encode(&form, token, len, 0);
	OPENSSL_cleanse(token, len);
	free(token);
	c->url = mem_printf("%s/", c->sts);
	c->header = mem_strdup("Content-Type: application/x-www-form-urlencoded");
	c->body = buf_detach(&form);
	request(c, HTTP_POST, FETCH_US, false, sts_done);
	return 0;
}

/* 0 under way, <0 it could not begin. */
static int fetch(struct s3_cred *c)
{
	err_clear(&c->err);
	c->fetching = true;
	if (c->source == S3_CRED_IMDS) {
		c->step = 0;
		imds_step(c);
		return 0;
	}
	if (sts_start(c) == 0)
		return 0;
	c->fetching = false;
	failed(c);
	return c->err.code;
}

/* --- choosing --- */

static enum s3_cred_source choose(const struct s3_cred *c)
{
	struct stat st;

	if (c->access && c->secret)
		return S3_CRED_SETTINGS;
	if (getenv("AWS_ACCESS_KEY_ID") && getenv("AWS_SECRET_ACCESS_KEY"))
		return S3_CRED_ENVIRONMENT;
	if (c->role_arn && c->token_file)
		return S3_CRED_WEB_IDENTITY;
	if (c->file && stat(c->file, &st) == 0)
		return S3_CRED_FILE;
	return S3_CRED_IMDS;
}

static int none(const struct s3_cred *c, struct err *err)
{
	return err_set(err, c->err.code ? c->err.code : ERR_DENIED, "%s", c->err.msg[0] ? c->err.msg : "no credentials");
}

static int give(const struct s3_cred *c, struct s3_keys *k)
{
	*k = (struct s3_keys){ c->set.access, c->set.secret, c->set.token };
	return 1;
}

int s3_cred_get(struct s3_cred *c, struct s3_keys *k, struct err *err)
{
	int64_t now = now_s();
	bool usable, wanted;

	if (c->source == S3_CRED_AUTO)
		c->source = choose(c);
	usable = c->have && (!c->set.expires_s || c->set.expires_s - LAST_S > now);
	wanted = !c->have || c->set.expires_s || c->source == S3_CRED_FILE;	/* and not before again_s */
	if (wanted && !c->fetching && now >= c->again_s) {
		int rc = 0;

		if (c->source == S3_CRED_SETTINGS)
			rc = from_words(c, c->access, c->secret, c->token, "the settings");
		else if (c->source == S3_CRED_ENVIRONMENT)
			rc = from_words(c, getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY"), getenv("AWS_SESSION_TOKEN"), "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)");
		else if (c->source == S3_CRED_FILE)
			rc = from_file(c);
		else
			rc = fetch(c);
		usable |= rc == 1;
	}
	if (usable)
		return give(c, k);
	return c->fetching ? 0 : none(c, err);
}

bool s3_cred_refused(struct s3_cred *c, const char *access)
{
	if (c->have && strcmp(c->set.access, access))	/* renewed since */
		return true;
	if (c->source == S3_CRED_SETTINGS || c->source == S3_CRED_ENVIRONMENT || (!c->have && !c->fetching))
		return false;
	c->have = false;
	if (!c->fetching)
		c->again_s = 0;
	memset(&c->file_time, 0, sizeof(c->file_time));
	return true;
}
