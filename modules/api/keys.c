/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * keys.c - the gateway's credentials: POST, GET and DELETE /v1/api-keys.
 *
 * Whoever may do everything may let others do some of it. A credential never
 * exceeds the one that made it: not in its scopes, not in its time (one that says
 * nothing of it ends with its maker), not in its rate. The secret stands in the one
 * answer that tells of its making; what is stored is its digest. A revoked row
 * stays: its id and hash are never given to anybody else. Revoking a credential
 * revokes in the same commit all that it made, and that these made, and so on.
 *
 * Times are unix seconds in all answers, null where there is none.
 */
#include "core/core.h"

#define KEY_BODY_MAX (8u << 10)                 /* bytes of a request: a name and a few words */
#define KEY_LIFE_MAX_S (10 * 366 * 86400LL)     /* longer is "never" */
#define KEY_RATE_MAX 60000                      /* requests a minute */

static const struct { const char *word; unsigned scope; } scopes[] = {
	{ "chat", SCOPE_CHAT }, { "read", SCOPE_READ }, { "tools", SCOPE_TOOLS }, { "admin", SCOPE_ADMIN },
};

/* ---- writing ------------------------------------------------------------------------------ */

/* Members of an object that is open. */
static void
put_key(struct jw *w, const struct api_key_row *k)
{
	jw_ki64(w, "id", k->id);
	jw_kz(w, "kind", k->kind == API_KEY_DEVICE ? "device" : k->kind == API_KEY_TOKEN ? "token" : "key");
	jw_kstr(w, "name", k->name);
	if (k->kind == API_KEY_DEVICE)
		jw_kstr(w, "device", k->hash);
	jw_key(w, "scopes");
	jw_arr(w);
	for (size_t i = 0; i < ARRAY_LEN(scopes); i++)
		if (k->scopes & scopes[i].scope)
			jw_z(w, scopes[i].word);
	jw_end_arr(w);
	jw_ktime(w, "created_at", k->created_at);
	jw_ktime(w, "expires_at", k->expires_at);
	jw_key(w, "rate_limit_per_minute");
	if (k->rate_per_minute)
		jw_i64(w, k->rate_per_minute);
	else
		jw_null(w);
}

/* ---- POST ----------------------------------------------------------------------------------- */

/* What of the maker bounds what it makes. */
static void
on_maker(void *arg, const struct api_key_row *k)
{
	int64_t *rate = arg;

	*rate = k->rate_per_minute;
}

static const char *
scopes_wrong(const struct json *v, unsigned *out)
{
	static const char wanted[] = "a list of one or more of \"chat\", \"read\", \"tools\", \"admin\" is wanted";
	unsigned all = 0;

	if (v->type != JSON_ARRAY || v->count == 0)
		return wanted;
	for (const struct json *s = v->first; s; s = s->next) {
		size_t i = 0;

		while (i < ARRAY_LEN(scopes) && !(s->type == JSON_STRING && str_eqz(s->s, scopes[i].word)))
			i++;
		if (i == ARRAY_LEN(scopes))
			return wanted;
		all |= scopes[i].scope;
	}
	*out = all;
	return NULL;
}

static bool
number_in(const struct json *v, int64_t max, int64_t *out)
{
	return v->type == JSON_NUMBER && json_to_i64(v, out) == OK && *out >= 1 && *out <= max;
}

/* One member into k; NULL, or what is wanted in its place. */
static const char *
take_member(const struct json *v, struct api_key_row *k)
{
	int64_t n;

	if (str_eqz(v->key, "name")) {
		k->name = v->s;
		return v->type == JSON_STRING && store_api_key_name(v->s) ? NULL
		    : "a text of 1 to 64 bytes on one line is wanted";
	}
	if (str_eqz(v->key, "scopes"))
		return scopes_wrong(v, &k->scopes);
	if (str_eqz(v->key, "device")) {
		k->kind = API_KEY_DEVICE;
		k->hash = v->s;
		return v->type == JSON_STRING && store_api_key_device(v->s) ? NULL
		    : "an Ed25519 public key is wanted, as 64 lower-case hex digits";
	}
	if (str_eqz(v->key, "expires_in_seconds")) {
		if (!number_in(v, KEY_LIFE_MAX_S, &n))
			return "a whole number of seconds up to ten years is wanted; leave it out for none";
		k->expires_at = clock_us() + n * US_PER_S;
		return NULL;
	}
	if (str_eqz(v->key, "rate_limit_per_minute"))
		return number_in(v, KEY_RATE_MAX, &k->rate_per_minute) ? NULL
		    : "a whole number of 1 to 60000 is wanted; leave it out for none";
	return "there is no such member; name, scopes, device, expires_in_seconds, rate_limit_per_minute are known";
}

/* The request as a row; false: it was answered. k borrows ar and the body. */
static bool
read_wish(struct request *r, struct arena *ar, struct api_key_row *k)
{
	struct str body = request_body(r);
	struct json_error at = { .what = "" };
	const struct json *v;
	enum err e = body.n > KEY_BODY_MAX ? ERR_LIMIT : json_parse(ar, body, &v, &at);

	if (body.n > KEY_BODY_MAX) {
		request_error(r, 413, "too_large", NULL, NULL, "a key is asked for in at most %u bytes", KEY_BODY_MAX);
		return false;
	}
	if (e == ERR_NOMEM) {
		request_failed(r, e);
		return false;
	}
	if (e != OK) {
		request_error(r, 400, "invalid_json", NULL, NULL, "the body is not JSON: line %u, column %u: %s", at.line,
		    at.column, at.what);
		return false;
	}
	if (v->type != JSON_OBJECT) {
		request_error(r, 400, "invalid_request", NULL, NULL, "the body is not a JSON object");
		return false;
	}
	for (const struct json *m = v->first; m; m = m->next) {
		const char *wrong = take_member(m, k);

		if (wrong) {
			request_error(r, 400, "invalid_request", arena_z(ar, m->key), NULL, "%.*s: %s", STR_ARG(m->key), wrong);
			return false;
		}
	}
	if (k->name.n == 0 || k->scopes == 0) {
		request_error(r, 400, "invalid_request", k->name.n == 0 ? "name" : "scopes", NULL, "a key needs a name and scopes");
		return false;
	}
	return true;
}

/* Not more than its maker has; false: it was answered. */
static bool
within_maker(struct request *r, struct api_key_row *k)
{
	const struct principal *maker = request_principal(r);
	int64_t rate = 0;
	enum err e = store_api_key_get(request_agent(r)->db, maker->id, on_maker, &rate);

	if (e != OK) {
		request_failed(r, e);
		return false;
	}
	if (k->expires_at == 0)
		k->expires_at = maker->expires_at;
	if (k->rate_per_minute == 0)
		k->rate_per_minute = rate;
	k->minted_by = maker->id;
	if (k->scopes & ~maker->scopes)
		request_error(r, 403, "forbidden", "scopes", NULL, "a key has no scope that the one that makes it has not");
	else if (maker->expires_at && k->expires_at > maker->expires_at)
		request_error(r, 403, "forbidden", "expires_in_seconds", NULL, "a key does not outlive the one that makes it");
	else if (rate && k->rate_per_minute > rate)
		request_error(r, 403, "forbidden", "rate_limit_per_minute", NULL, "a key is not faster than the one that makes it");
	else
		return true;
	return false;
}

static void
on_made(void *arg, const struct api_key_row *k)
{
	put_key(arg, k);
}

static void
keys_post(struct request *r)
{
	struct agent *a = request_agent(r);
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(KEY_BODY_MAX));
	struct buf key = BUF_INIT(128), b = BUF_INIT(16u << 10);
	struct api_key_row k = { .kind = API_KEY_SECRET };
	int64_t n = 0, id = 0;
	struct jw w;
	enum err e;

	if (!read_wish(r, &ar, &k) || !within_maker(r, &k))
		goto out;
	e = store_api_key_count(a->db, &n);
	if (e == OK && n >= API_KEYS_MAX) {
		request_error(r, 409, "conflict", NULL, "DELETE /v1/api-keys/{id}", "there are %d keys, which is the most", API_KEYS_MAX);
		goto out;
	}
	if (e == OK)
		e = k.kind == API_KEY_DEVICE ? store_api_key_add(a->db, &k, &id) : store_api_key_mint(a->db, &k, &key, &id);
	if (e == ERR_EXISTS) {
		request_error(r, 409, "conflict", "device", NULL, "this public key is or was registered; a device that comes back"
		    " makes a new one");
		goto out;
	}
	jw_init(&w, &b);
	jw_obj(&w);
	if (e == OK)
		e = store_api_key_get(a->db, id, on_made, &w);
	if (key.n)
		jw_kstr(&w, "key", buf_view(&key));
	jw_end_obj(&w);
	if (e == OK)
		e = jw_done(&w);
	agent_wrote(a, e);              /* one that nobody was told of must not be there */
	if (e == OK)
		log_info("auth", "made key=%lld by=%lld scopes=%u", (long long)id, (long long)k.minted_by, k.scopes);
	request_answer_buf(r, 201, e, &b);
out:
	if (key.p)
		secret_wipe(key.p, key.cap);
	if (b.p)
		secret_wipe(b.p, b.cap);
	buf_free(&key);
	buf_free(&b);
	arena_free(&ar);
}

/* ---- GET and DELETE -------------------------------------------------------------------------------- */

static void
on_listed(void *arg, const struct api_key_row *k)
{
	struct jw *w = arg;

	jw_obj(w);
	put_key(w, k);
	jw_key(w, "minted_by");
	if (k->minted_by)
		jw_i64(w, k->minted_by);
	else
		jw_null(w);
	jw_ktime(w, "used_at", k->used_at);
	jw_end_obj(w);
}

static void
keys_get(struct request *r)
{
	struct buf b = BUF_INIT((API_KEYS_MAX + 1) * (6 * API_KEY_NAME_MAX + 512));
	struct jw w;
	enum err e;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_key(&w, "api_keys");
	jw_arr(&w);
	e = store_api_keys(request_agent(r)->db, on_listed, &w);
	jw_end_arr(&w);
	jw_end_obj(&w);
	request_answer_buf(r, 200, e == OK ? jw_done(&w) : e, &b);
	buf_free(&b);
}

static void
on_revoked(void *arg, const struct api_key_row *k)
{
	int64_t *at = arg;

	*at = k->revoked_at;
}

static void
keys_delete(struct request *r)
{
	struct agent *a = request_agent(r);
	struct buf b = BUF_INIT(256);
	int64_t id, at = 0;
	struct jw w;
	enum err e = str_i64(request_segment(r, 0), 1, INT64_MAX, &id) == OK ? OK : ERR_NOTFOUND;

	if (e == OK)
		e = store_api_key_get(a->db, id, on_revoked, &at);
	if (e == ERR_NOTFOUND) {
		request_error(r, 404, "not_found", NULL, "GET /v1/api-keys", "there is no such key");
		return;
	}
	if (e == OK) {                  /* of one that is revoked there may be children: an earlier release let them live */
		e = store_api_key_revoke(a->db, id);
		if (e == OK)
			e = store_api_key_get(a->db, id, on_revoked, &at);
		agent_wrote(a, e);
		if (e == OK) {
			request_revokes(r);
			log_info("auth", "revoked key=%lld by=%lld", (long long)id, (long long)request_principal(r)->id);
		}
	}
	jw_init(&w, &b);
	jw_obj(&w);
	jw_ki64(&w, "id", id);
	jw_ktime(&w, "revoked_at", at);
	jw_end_obj(&w);
	request_answer_buf(r, 200, e == OK ? jw_done(&w) : e, &b);
	buf_free(&b);
}

static const struct route routes[] = {
	{ "POST", "/v1/api-keys", SCOPE_ADMIN, keys_post,
	  "Makes a key, told in this answer alone, or registers a device; times are unix seconds" },
	{ "GET", "/v1/api-keys", SCOPE_ADMIN, keys_get, "The credentials that are not revoked, without their secrets" },
	{ "DELETE", "/v1/api-keys/{id}", SCOPE_ADMIN, keys_delete, "Revokes a credential, and those that it made" },
	{ .method = NULL },
};

const struct feature keys_feature = {
	.name = "keys", .kind = FEATURE_API, .routes = routes,
	.summary = "/v1/api-keys: keys and devices made, listed, revoked"
};
