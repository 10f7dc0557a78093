/* Credentials as text: the shared file and the metadata service's JSON. */
#include "objstore/s3-cred.h"

#include "base/mem.h"

#include <jansson.h>
#include <openssl/crypto.h>

static void wipe(char **s)
{
	if (*s)
		OPENSSL_cleanse(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

void s3_cred_set_free(struct s3_cred_set *s)
{
	free(s->access);
	s->access = NULL;
	wipe(&s->secret);
	wipe(&s->token);
}

/* --- the shared file: [profile], key = value, # and ; comments on lines of their own --- */

static void trim(const char **p, const char **end)
{
	while (*p < *end && (**p == ' ' || **p == '\t'))
		++*p;
	while (*end > *p && ((*end)[-1] == ' ' || (*end)[-1] == '\t' || (*end)[-1] == '\r'))
		--*end;
}

static bool equals(const char *p, const char *end, const char *word)
{
	return (size_t)(end - p) == strlen(word) && !memcmp(p, word, (size_t)(end - p));
}

static bool in_profile(const char *p, const char *end, const char *profile)
{
	p++;
	end--;
	trim(&p, &end);
	return equals(p, end, profile);
}

/* Values go into header fields: no control characters. */
static bool usable(const char *p, const char *end)
{
	for (; p < end; p++)
		if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 127)
			return false;
	return true;
}

static int take_value(const char *p, const char *end, struct s3_cred_set *out, struct err *err)
{
	const char *eq = memchr(p, '=', (size_t)(end - p)), *value;
	char **field = NULL;

	if (!eq)
		return 0;
	value = eq + 1;
	trim(&value, &end);
	trim(&p, &eq);
	if (equals(p, eq, "aws_access_key_id"))
		field = &out->access;
	else if (equals(p, eq, "aws_secret_access_key"))
		field = &out->secret;
	else if (equals(p, eq, "aws_session_token"))
		field = &out->token;
	if (!field)
		return 0;
	if (!usable(value, end) || value == end)
		return err_set(err, ERR_INVALID, "%.*s is empty or has characters that no key has", (int)(eq - p), p);
	wipe(field);
	*field = mem_strndup(value, (size_t)(end - value));
	return 0;
}

int s3_cred_parse_file(const char *text, size_t len, const char *profile, struct s3_cred_set *out, struct err *err)
{
	const char *p = text, *stop = text + len, *line, *end;
	bool here = false, seen = false;
	int rc = 0;

	memset(out, 0, sizeof(*out));
	while (p < stop && rc == 0) {
		line = p;
		end = memchr(p, '\n', (size_t)(stop - p));
		p = end ? end + 1 : stop;
		end = end ? end : stop;
		trim(&line, &end);
		if (line == end || *line == '#' || *line == ';')
			continue;
		if (*line == '[' && end[-1] == ']' && end - line >= 2) {
			here = in_profile(line, end, profile);
			seen |= here;
		} else if (here) {
			rc = take_value(line, end, out, err);
		}
	}
	if (rc == 0 && !seen)
		return 0;
	if (rc == 0 && (!out->access || !out->secret))
		rc = err_set(err, ERR_INVALID, "[%s] lacks aws_access_key_id or aws_secret_access_key", profile);
	if (rc < 0)
		s3_cred_set_free(out);
	return rc < 0 ? rc : 1;
}

/* --- instance metadata --- */

static char *json_word(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s && *s && usable(s, s + strlen(s)) ? mem_strdup(s) : NULL;
}

static int64_t iso_time(const char *text)
{
	struct tm tm = { 0 };
	const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;

	return rest ? (int64_t)timegm(&tm) : 0;
}

int s3_cred_parse_imds(const char *text, size_t len, struct s3_cred_set *out, struct err *err)
{
	json_t *o = len ? json_loadb(text, len, 0, NULL) : NULL;

	memset(out, 0, sizeof(*out));
	out->access = json_word(o, "AccessKeyId");
	out->secret = json_word(o, "SecretAccessKey");
	out->token = json_word(o, "Token");
	out->expires_s = iso_time(json_string_value(json_object_get(o, "Expiration")));
	json_decref(o);
	if (out->access && out->secret)
		return 0;
	s3_cred_set_free(out);
	return err_set(err, ERR_CORRUPT, "instance metadata: no keys in the answer");
}
