/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * session.c - what a browser gets for a credential: /v1/session and its tickets.
 *
 * A page should keep no key: whatever runs in it could take it along. So it shows one
 * once, and gets a cookie that no script can read, bound to that credential (its scopes,
 * rate and end are the cookie's) and at most SESSION_US long; and a token that it shows
 * with every change, because a browser sends the cookie unasked. A page that is loaded
 * anew asks for the token again. A session opens no other, which would outlive it.
 *
 * A browser cannot send a header with a WebSocket. It asks for a ticket instead and
 * offers it as a protocol: good for one socket and TICKET_US, never part of an address.
 *
 * Both are rows of logins, by their hash; auth/keypair.c looks them up.
 */
#include "core/core.h"

#define FIELDS_MAX 512u
#define NO_STORE "Cache-Control: no-store\r\n"

/* What came with it is nothing or {}; false: it was answered. */
static bool
is_empty(struct request *r)
{
	struct str body = str_trim(request_body(r));
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(BODY_MAX_API));
	bool ok = body.n == 0 || request_object(r, &ar, "") != NULL;

	arena_free(&ar);
	return ok;
}

static void
put_cookie(const struct request *r, struct buf *b, struct str value, int64_t max_age_s)
{
	bool near = http_to_loopback(request_head(r));

	buf_fmt(b, NO_STORE "Set-Cookie: %s=%.*s; Path=/; Max-Age=%lld; HttpOnly; SameSite=Strict%s\r\n",
	    near ? SESSION_COOKIE_LOOPBACK : SESSION_COOKIE, STR_ARG(value), (long long)max_age_s, near ? "" : "; Secure");
}

/* Answers with fields and {name: value, "expires_at": …}. */
static void
answer(struct request *r, int status, enum err e, struct str fields, const char *name, struct str value, int64_t expires_at)
{
	struct buf b = BUF_INIT(512);
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kstr(&w, name, value);
	jw_ki64(&w, "expires_at", expires_at / US_PER_S);
	jw_end_obj(&w);
	if (e == OK)
		e = jw_done(&w);
	if (e == OK)
		request_answer_raw(r, status, "application/json", fields, buf_view(&b));
	else
		request_error(r, 503, "storage", NULL, "blufio status", "this cannot be stored at the moment: %s", err_str(e));
	if (b.p)
		secret_wipe(b.p, b.cap);
	buf_free(&b);
}

/* A row that is good for so long, or as long as what it stands for. */
static FALLIBLE
mint(struct request *r, struct login_row *l, int64_t life_us, struct buf *secret)
{
	struct agent *a = request_agent(r);
	const struct principal *who = request_principal(r);
	int64_t now = clock_us(), id;
	enum err e;

	l->key = who->id;
	l->session = who->login;
	l->expires_at = now + life_us;
	if (who->expires_at && who->expires_at < l->expires_at)
		l->expires_at = who->expires_at;
	l->ends_at = l->kind == LOGIN_SESSION ? l->expires_at : who->expires_at;
	e = store_login_mint(a->db, l, now, secret, &id);
	agent_wrote(a, e);
	if (e == OK)
		log_info("auth", "%s=%lld of key=%lld", l->kind == LOGIN_SESSION ? "session" : "ticket", (long long)id,
		    (long long)who->id);
	return e;
}

static void
post_session(struct request *r)
{
	struct login_row l = { .kind = LOGIN_SESSION };
	struct buf secret = BUF_INIT(2 * API_KEY_BYTES), fields = BUF_INIT(FIELDS_MAX);
	char csrf[SECRET_HASH_SIZE];
	enum err e;

	if (request_principal(r)->login) {
		request_error(r, 403, "forbidden", NULL, NULL, "a session is opened with the credential itself");
	} else if (is_empty(r)) {
		e = mint(r, &l, SESSION_US, &secret);
		store_login_csrf(buf_view(&secret), csrf);
		put_cookie(r, &fields, buf_view(&secret), (l.expires_at - clock_us() + US_PER_S - 1) / US_PER_S);
		if (e == OK)
			e = fields.err;
		if (e == OK)
			request_revokes(r);     /* the key's oldest may have given way */
		agent_wrote(request_agent(r), e);
		answer(r, 201, e, buf_view(&fields), "csrf_token", str_z(csrf), l.expires_at);
		if (secret.p)
			secret_wipe(secret.p, secret.cap);
		if (fields.p)
			secret_wipe(fields.p, fields.cap);
	}
	buf_free(&secret);
	buf_free(&fields);
}

static bool
has_session(struct request *r)
{
	if (request_principal(r)->login)
		return true;
	request_error(r, 409, "conflict", NULL, "POST /v1/session", "this was sent with a key, not in a session");
	return false;
}

static void
get_session(struct request *r)
{
	const struct http_request *h = request_head(r);
	char csrf[SECRET_HASH_SIZE];

	if (!has_session(r))
		return;
	store_login_csrf(http_cookie(h, http_to_loopback(h) ? SESSION_COOKIE_LOOPBACK : SESSION_COOKIE), csrf);
	answer(r, 200, OK, S(NO_STORE), "csrf_token", str_z(csrf), request_principal(r)->expires_at);
}

static void
delete_session(struct request *r)
{
	const struct principal *who = request_principal(r);
	struct agent *a = request_agent(r);
	struct buf fields = BUF_INIT(FIELDS_MAX);
	enum err e;

	if (!has_session(r))
		return;
	put_cookie(r, &fields, STR_NONE, 0);
	e = fields.err;
	if (e == OK)
		e = store_login_end(a->db, who->login);
	agent_wrote(a, e);
	if (e == OK) {
		request_revokes(r);
		log_info("auth", "ended session=%lld of key=%lld", (long long)who->login, (long long)who->id);
		request_answer_raw(r, 204, NULL, buf_view(&fields), STR_NONE);
	} else {
		request_error(r, 503, "storage", NULL, "blufio status", "this cannot be stored at the moment: %s", err_str(e));
	}
	buf_free(&fields);
}

static void
post_ticket(struct request *r)
{
	struct login_row l = { .kind = LOGIN_TICKET };
	struct buf secret = BUF_INIT(2 * API_KEY_BYTES);
	enum err e;

	if (is_empty(r)) {
		e = mint(r, &l, TICKET_US, &secret);
		answer(r, 201, e, S(NO_STORE), "ticket", buf_view(&secret), l.expires_at);
		if (secret.p)
			secret_wipe(secret.p, secret.cap);
	}
	buf_free(&secret);
}

static const struct route session_routes[] = {
	{ "POST", "/v1/session", 0, post_session, "Exchanges a credential for a cookie, and the token that changes need with it" },
	{ "GET", "/v1/session", 0, get_session, "The token of the session once more" },
	{ "DELETE", "/v1/session", 0, delete_session, "Ends the session, and what was opened in it" },
	{ "POST", "/v1/session/ticket", SCOPE_CHAT, post_ticket, "A ticket for one WebSocket, offered as a protocol" },
	{ .method = NULL },
};

const struct feature session_feature = {
	.name = "session", .kind = FEATURE_API, .routes = session_routes,
	.summary = "/v1/session: cookies and tickets for browsers"
};
