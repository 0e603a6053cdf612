/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * keypair.c - who a request of the gateway is from: a device that signs, a minted
 * key, or the token of the configuration; or a page that one of these let in.
 *
 * All lead to a row of api_keys, which says what its holder may do and until
 * when. Of a secret the row has the SHA-256: whoever reads the database cannot
 * use what he finds, and looking a digest up tells by its time nothing of the
 * secret. The row of the configured token is made when it is first used; a token
 * that is no longer configured is no longer compared with.
 *
 * A device signs, with Ed25519, five lines joined by single "\n" (none after the last):
 *
 *   the method            POST
 *   the target as sent    /v1/messages?x=1     (path and query)
 *   Blufio-Content-SHA256 hex SHA-256 of the body; of no body, that of the empty string
 *   Blufio-Timestamp      unix seconds, at most 60 away from this clock
 *   Blufio-Nonce          16 bytes of chance in hex
 *
 * each header's value as sent, all hex in lower case. Blufio-Signature is its base64
 * (with padding), Blufio-Device the public key in hex. This is checked before the body
 * is read; that the body has the hash is for the listener to see as it arrives.
 *
 * Each accepted signature leaves its nonce as a row, in this loop turn's transaction:
 * nothing is answered before that is on disk, so the same request is refused after a
 * kill -9 as well. The row outlives the moment at which the timestamp grows too old.
 *
 * For pages, which should keep no key, a row of logins stands for a credential for a
 * while (modules/api/session.c makes them). A ticket opens one WebSocket: it is deleted
 * by its use, in the transaction that the answer waits for. A session's cookie comes with
 * whatever a browser sends here, also when a foreign page makes it do so: so it counts
 * only for our own pages, and what changes something has to show the token too that only
 * such a page can have read. Whatever is said beside a cookie goes before it.
 *
 * Wrong tries are counted by the address they come from; after TRIES_MAX in a minute
 * that address is not listened to for a while, whatever it has to show: the answer then
 * costs no look into the database and no arithmetic. A right one takes no wrong one
 * back. What is no guess is refused, not counted: no credential at all, a wrong clock, a
 * cookie, which a browser sends unasked for as long as it has it.
 *
 * On a terminal that sees a gateway without any credential start, the first one is made
 * and shown, once; never in a log.
 */
#include "core/core.h"
#include "crypto/ed25519.h"
#include "crypto/hmac.h"

#include <unistd.h>

#define SKEW_S 60                       /* between a device's clock and ours */
#define NONCE_BYTES 16u
#define NONCE_US (180 * US_PER_S)       /* a signature is good for 2 * SKEW_S at most */
#define TRIES_MAX 10                    /* wrong ones of an address within … */
#define TRIES_US (60 * US_PER_S)
#define LOCK_S 2                        /* then it waits, twice as long with each further one … */
#define LOCK_MAX_S 300
#define PEERS_MAX 256                   /* addresses remembered; then the one whose last wrong try is longest ago goes */
#define PEER_MAX 64                     /* bytes of an address */
#define RATES_MAX API_KEYS_MAX          /* keys with a rate limit */
#define USED_US (60 * US_PER_S)         /* used_at is no finer than this */
#define TOKEN_MIN 22u                   /* characters: 128 bits in base64 */
#define TOKEN_DISTINCT_MIN 8u           /* "aaaaaaaaaaaaaaaaaaaaaaaa" was not made by chance */
#define PROTOCOL_TICKET "blufio.ticket."        /* what a ticket is shown as in Sec-WebSocket-Protocol */
#define REFUSED "the credential is not valid"
#define SIGNATURE_REFUSED "the signature does not fit the request and a registered device"

/* An address with wrong tries. */
struct peer {
	char address[PEER_MAX];
	int64_t since;                  /* monotonic: their minute's begin; may lie ahead: locked until then */
	int wrong;                      /* 0: free place */
};
/* When a key that comes at its limit's pace would be due: ahead of now by what it used of its minute. */
struct rate {
	int64_t key, due;               /* monotonic */
};
struct keypair {
	struct agent *a;
	char token[SECRET_HASH_SIZE];   /* of gateway.bearer_token; empty: there is none */
	struct buf first;               /* the first key, until it is shown */
	struct effect show;
	struct peer peers[PEERS_MAX];
	struct rate rates[RATES_MAX];
};

static const struct config_key keys[] = {
	{ .name = "gateway.bearer_token", .type = CONFIG_SECRET, .fixed = true,
	  .help = "A secret that programs may show as \"Authorization: Bearer …\" in place of a key; it may do everything." },
	{ .name = NULL }
};

/* ---- wrong tries ---------------------------------------------------------------------- */

static struct peer *
peer_find(struct keypair *kp, struct str address)
{
	for (size_t i = 0; i < PEERS_MAX; i++)
		if (kp->peers[i].wrong && str_eqz(address, kp->peers[i].address))
			return &kp->peers[i];
	return NULL;
}

static void
peer_wrong(struct keypair *kp, struct str address, int64_t now)
{
	struct peer *p = peer_find(kp, address);

	if (p == NULL) {
		p = &kp->peers[0];      /* a free place, which has since 0, or the oldest */
		for (size_t i = 1; i < PEERS_MAX; i++)
			if (kp->peers[i].since < p->since)
				p = &kp->peers[i];
		*p = (struct peer){ .since = now };
		snprintf(p->address, sizeof(p->address), "%.*s", STR_ARG(address));
	}
	if (now - p->since > TRIES_US) {
		p->since = now;
		p->wrong = 0;
	}
	p->wrong++;
	if (p->wrong >= TRIES_MAX) {
		int64_t wait_s = LOCK_S;

		for (int i = TRIES_MAX; i < p->wrong && wait_s < LOCK_MAX_S; i++)
			wait_s *= 2;
		if (wait_s > LOCK_MAX_S)
			wait_s = LOCK_MAX_S;
		p->since = now + wait_s * US_PER_S;
		log_warn("auth", "locked peer=%s wrong=%d seconds=%lld", p->address, p->wrong, (long long)wait_s);
	}
}

/* ---- rates --------------------------------------------------------------------------------- */

/* A key may use its whole minute at once, then goes on at the pace of the limit. Gives the place that
 * remembers it; the one of whoever is due the earliest is taken for a new key: in the past it says nothing. */
static struct rate *
rate_of(struct keypair *kp, int64_t key)
{
	struct rate *oldest = &kp->rates[0];

	for (size_t i = 0; i < RATES_MAX; i++) {
		if (kp->rates[i].key == key)
			return &kp->rates[i];
		if (kp->rates[i].due < oldest->due)
			oldest = &kp->rates[i];
	}
	*oldest = (struct rate){ .key = key };
	return oldest;
}

static FALLIBLE
rate_take(struct keypair *kp, int64_t key, int64_t per_minute, int64_t *wait_s, struct fail *f)
{
	int64_t now = clock_mono_us(), pace, over;
	struct rate *r;

	if (per_minute <= 0)
		return OK;
	r = rate_of(kp, key);
	pace = 60 * US_PER_S / per_minute;
	if (r->due < now)
		r->due = now;
	over = r->due + pace - now - 60 * US_PER_S;
	if (over > 0) {
		*wait_s = (over + US_PER_S - 1) / US_PER_S;
		return fail_set(f, ERR_LIMIT, "this key may make %lld requests a minute; next: again in %lld s",
		    (long long)per_minute, (long long)*wait_s);
	}
	r->due += pace;
	return OK;
}

/* ---- the row ---------------------------------------------------------------------------------- */

/* What is needed of it beyond the call that reads it. */
struct holder {
	struct principal who;
	enum api_key_kind kind;
	int64_t rate_per_minute, revoked_at, used_at;
	char hash[SECRET_HASH_SIZE];
};

static void
on_row(void *arg, const struct api_key_row *k)
{
	struct holder *h = arg;

	h->who = (struct principal){ .id = k->id, .scopes = k->scopes, .expires_at = k->expires_at };
	h->kind = k->kind;
	h->rate_per_minute = k->rate_per_minute;
	h->revoked_at = k->revoked_at;
	h->used_at = k->used_at;
	snprintf(h->hash, sizeof(h->hash), "%.*s", STR_ARG(k->hash));
}

/* After e of a look for it. ERR_AUTH: no such row, or it may no longer be used. */
static FALLIBLE
holder_check(enum err e, const struct holder *h)
{
	if (e == ERR_NOTFOUND || (e == OK && (h->revoked_at || (h->who.expires_at && h->who.expires_at <= clock_us()))))
		return ERR_AUTH;
	return e;
}

static FALLIBLE
holder_find(struct keypair *kp, struct str hash, struct holder *h)
{
	enum err e = holder_check(store_api_key_find(kp->a->db, hash, on_row, h), h);

	return e == OK && (strlen(h->hash) != hash.n || !hmac_equal(h->hash, hash.p, hash.n)) ? ERR_AUTH : e;
}

static bool
is_token(const struct keypair *kp, const char *hash)
{
	return kp->token[0] && hmac_equal(hash, kp->token, SECRET_HASH_SIZE);
}

/* ---- a secret: a minted key or the configured token --------------------------------------------- */

static FALLIBLE
token_row(struct keypair *kp)
{
	const struct api_key_row k = { .kind = API_KEY_TOKEN, .name = S("gateway.bearer_token"), .hash = str_z(kp->token),
	    .scopes = SCOPE_ALL };
	int64_t id;
	enum err e = store_api_key_add(kp->a->db, &k, &id);

	if (e == ERR_EXISTS)
		return OK;
	agent_wrote(kp->a, e);
	return e;
}

static FALLIBLE
check_secret(struct keypair *kp, struct str secret, struct holder *h, struct fail *f)
{
	char hash[SECRET_HASH_SIZE];
	bool token;
	enum err e = OK;

	store_secret_hash(secret, hash);
	token = is_token(kp, hash);
	if (token && store_api_key_find(kp->a->db, str_z(hash), on_row, h) == ERR_NOTFOUND)
		e = token_row(kp);
	if (e == OK)
		e = holder_find(kp, str_z(hash), h);
	if (e == OK && !(token || h->kind == API_KEY_SECRET))
		e = ERR_AUTH;           /* a former token, or somebody's public key */
	return e == ERR_AUTH ? fail_set(f, e, REFUSED) : e;
}

/* ---- a device's signature ------------------------------------------------------------------------- */

/* Exactly n bytes in lower-case hex: one value has one spelling. */
static bool
is_hex(struct str s, size_t n)
{
	for (size_t i = 0; i < s.n; i++)
		if (hex_digit(s.p[i]) < 0 || (s.p[i] >= 'A' && s.p[i] <= 'F'))
			return false;
	return s.n == 2 * n;
}

struct signature {
	struct str device, hash, timestamp, nonce;      /* headers as sent */
	struct buf sig, public, body, signed_text;
	int64_t at;                                     /* unix seconds */
};

static FALLIBLE
signature_read(const struct http_request *r, struct signature *s, struct fail *f)
{
	enum err e;

	s->device = http_field(r, "Blufio-Device");
	s->hash = http_field(r, "Blufio-Content-SHA256");
	s->timestamp = http_field(r, "Blufio-Timestamp");
	s->nonce = http_field(r, "Blufio-Nonce");
	if (!is_hex(s->device, ED25519_PUBLIC_SIZE))
		return fail_set(f, ERR_AUTH, "Blufio-Device is not a public key: 64 lower-case hex digits, once");
	if (!is_hex(s->hash, SHA256_SIZE))
		return fail_set(f, ERR_AUTH, "Blufio-Content-SHA256 is not a SHA-256: 64 lower-case hex digits, once");
	if (!is_hex(s->nonce, NONCE_BYTES))
		return fail_set(f, ERR_AUTH, "Blufio-Nonce is not 16 bytes of chance: 32 lower-case hex digits, once");
	if (str_i64(s->timestamp, 0, INT64_MAX / US_PER_S, &s->at) != OK)
		return fail_set(f, ERR_AUTH, "Blufio-Timestamp is not a time: unix seconds in digits, once");
	e = dec_base64(http_field(r, "Blufio-Signature"), &s->sig);
	if (e == ERR_NOMEM)
		return e;
	if (e != OK || s->sig.n != ED25519_SIG_SIZE)
		return fail_set(f, ERR_AUTH, "Blufio-Signature is not 64 bytes in base64, once");
	IGNORE(dec_hex(s->device, &s->public));         /* they are hex; their errors stick */
	IGNORE(dec_hex(s->hash, &s->body));
	buf_str(&s->signed_text, r->method);
	buf_putc(&s->signed_text, '\n');
	buf_str(&s->signed_text, r->target);
	buf_fmt(&s->signed_text, "\n%.*s\n%.*s\n%.*s", STR_ARG(s->hash), STR_ARG(s->timestamp), STR_ARG(s->nonce));
	return s->public.err != OK ? s->public.err : s->body.err != OK ? s->body.err : s->signed_text.err;
}

static FALLIBLE
check_signature(struct keypair *kp, const struct http_request *r, struct holder *h, bool *counts, struct fail *f)
{
	struct signature s = { .sig = BUF_INIT(ED25519_SIG_SIZE + 2), .public = BUF_INIT(ED25519_PUBLIC_SIZE),
	    .body = BUF_INIT(SHA256_SIZE), .signed_text = BUF_INIT(HTTP_HEAD_MAX + 256) };
	int64_t now = clock_us() / US_PER_S;
	bool fresh = false;
	enum err e = signature_read(r, &s, f);

	if (e == OK && (s.at < now - SKEW_S || s.at > now + SKEW_S)) {
		*counts = false;
		e = fail_set(f, ERR_AUTH, "Blufio-Timestamp is %lld s %s this server's clock (%lld), at most %d are allowed;"
		    " next: set the clock", (long long)(s.at < now ? now - s.at : s.at - now), s.at < now ? "behind" : "ahead of",
		    (long long)now, SKEW_S);
	}
	if (e == OK)
		e = holder_find(kp, s.device, h);
	if (e == OK && h->kind != API_KEY_DEVICE)
		e = ERR_AUTH;
	if (e == OK)
		e = ed25519_verify(buf_view(&s.public), buf_view(&s.signed_text), buf_view(&s.sig));
	if (e == ERR_AUTH)
		e = fail_set(f, e, SIGNATURE_REFUSED);
	if (e == OK) {
		e = store_nonce_add(kp->a->db, h->who.id, s.nonce, clock_us(), NONCE_US, &fresh);
		agent_wrote(kp->a, e);
		if (e == OK && !fresh)
			e = fail_set(f, ERR_AUTH, "Blufio-Nonce was used before: each request needs a signature of its own");
	}
	if (e == OK) {
		h->who.hashed = true;
		memcpy(h->who.body_hash, s.body.p, sizeof(h->who.body_hash));
	}
	buf_free(&s.sig);
	buf_free(&s.public);
	buf_free(&s.body);
	buf_free(&s.signed_text);
	return e;
}

/* ---- a page: its session, or the ticket that it got for a socket ------------------------------------------- */

/* What a login stands for, with the end that it has itself. */
static FALLIBLE
check_login(struct keypair *kp, enum login_kind kind, struct str secret, struct holder *h, struct login_row *l)
{
	enum err e = store_login_find(kp->a->db, kind, secret, clock_us(), l);

	if (e == OK)
		e = store_api_key_get(kp->a->db, l->key, on_row, h);
	e = holder_check(e, h);
	if (e == OK && h->kind == API_KEY_TOKEN && !is_token(kp, h->hash))
		e = ERR_AUTH;           /* opened with a token that is no longer configured */
	if (e == OK) {
		h->who.login = kind == LOGIN_TICKET ? l->session : l->id;
		h->who.expires_at = l->ends_at;
	}
	return e;
}

/* The one ticket among the protocols that a page offers for its socket. */
static struct str
ticket_of(const struct http_request *r)
{
	struct str rest = http_field(r, "Sec-WebSocket-Protocol"), word, ticket = STR_NONE;
	unsigned n = 0;

	while (r->upgrade_websocket && str_eqz(r->path, "/ws") && rest.n) {
		str_cut(&rest, ',', &word);
		word = str_trim(word);
		if (str_starts(word, S(PROTOCOL_TICKET))) {
			ticket = str_sub(word, sizeof(PROTOCOL_TICKET) - 1, word.n);
			n++;
		}
	}
	return n == 1 ? ticket : STR_NONE;
}

static FALLIBLE
check_ticket(struct keypair *kp, struct str ticket, struct holder *h, struct fail *f)
{
	struct login_row l;
	enum err e = check_login(kp, LOGIN_TICKET, ticket, h, &l);

	if (e == OK) {
		e = store_login_end(kp->a->db, l.id);
		agent_wrote(kp->a, e);
	}
	return e == ERR_AUTH ? fail_set(f, e, "the ticket is not valid: it is good for one socket and %lld s; next: POST"
	    " /v1/session/ticket", (long long)(TICKET_US / US_PER_S)) : e;
}

/* Does a page of this very address ask? By a name that others can reach it has come over TLS. */
static bool
is_own_page(struct str origin, const struct http_request *r)
{
	size_t at = str_find(origin, S("://"));

	return at != SIZE_MAX && str_ieq(str_sub(origin, at + 3, origin.n), r->host) &&
	    (str_starts(origin, S("https://")) || http_to_loopback(r));
}

static FALLIBLE
check_session(struct keypair *kp, const struct http_request *r, struct str cookie, struct holder *h, struct fail *f)
{
	bool reads = (str_eqz(r->method, "GET") || str_eqz(r->method, "HEAD")) && !r->upgrade_websocket;
	struct str origin = http_field(r, "Origin"), csrf = http_field(r, "X-CSRF-Token");
	char wanted[SECRET_HASH_SIZE];
	struct login_row l;
	enum err e = check_login(kp, LOGIN_SESSION, cookie, h, &l);

	if (e == ERR_AUTH)
		return fail_set(f, e, "the session is over; next: POST /v1/session with a key");
	if (e != OK)
		return e;
	if ((origin.n || !reads) && !is_own_page(origin, r))
		return fail_set(f, ERR_DENIED, "a session is used by the pages of its own address alone");
	store_login_csrf(cookie, wanted);
	if (!reads && (csrf.n != SECRET_HASH_SIZE - 1 || !hmac_equal(csrf.p, wanted, csrf.n)))
		return fail_set(f, ERR_DENIED, "with a session's cookie this wants the header X-CSRF-Token, as GET /v1/session"
		    " tells it");
	return OK;
}

/* ---- the one function ---------------------------------------------------------------------------------- */

static FALLIBLE
identify(struct keypair *kp, const struct http_request *r, struct holder *h, bool *counts, struct fail *f)
{
	struct str bearer = http_field(r, "Authorization"), ticket = ticket_of(r), scheme;
	struct str cookie = http_cookie(r, http_to_loopback(r) ? SESSION_COOKIE_LOOPBACK : SESSION_COOKIE);

	if (http_field(r, "Blufio-Device").n || http_field(r, "Blufio-Signature").n)
		return check_signature(kp, r, h, counts, f);
	if (bearer.n == 0 && ticket.n)
		return check_ticket(kp, ticket, h, f);
	if (bearer.n == 0 && cookie.n) {
		*counts = false;
		return check_session(kp, r, cookie, h, f);
	}
	if (bearer.n == 0) {
		*counts = false;
		return fail_set(f, ERR_AUTH, "a credential is needed: one header \"Authorization: Bearer KEY\", or a device's"
		    " signature");
	}
	if (!str_cut(&bearer, ' ', &scheme) || !str_ieq(scheme, S("Bearer")))
		return fail_set(f, ERR_AUTH, "of the schemes of Authorization only \"Bearer KEY\" is known");
	return check_secret(kp, str_trim(bearer), h, f);
}

static FALLIBLE
keypair_check(void *self, const struct http_request *r, struct str peer, struct principal *out, int64_t *wait_s,
    struct fail *f)
{
	struct keypair *kp = self;
	struct holder h = { .kind = API_KEY_SECRET };
	int64_t now = clock_mono_us();
	struct peer *p;
	bool counts = true;
	enum err e;

	peer = str_sub(peer, 0, PEER_MAX - 1);
	p = peer_find(kp, peer);
	if (p && p->since > now) {
		*wait_s = (p->since - now + US_PER_S - 1) / US_PER_S;
		return fail_set(f, ERR_LIMIT, "too many wrong credentials came from %s; next: again in %lld s", p->address,
		    (long long)*wait_s);
	}
	e = identify(kp, r, &h, &counts, f);
	if (e == ERR_AUTH && counts)
		peer_wrong(kp, peer, now);
	if (e == OK)
		e = rate_take(kp, h.who.id, h.rate_per_minute, wait_s, f);
	if (e == OK && (h.used_at + USED_US <= clock_us() || h.used_at > clock_us())) {
		e = store_api_key_used(kp->a->db, h.who.id, clock_us());
		agent_wrote(kp->a, e);
	}
	if (e == OK)
		*out = h.who;
	if (e != OK && e != ERR_AUTH && e != ERR_DENIED && e != ERR_LIMIT)
		e = fail_set(f, e, "who sent this cannot be looked up at the moment (%s); next: `blufio status`", err_str(e));
	return e;
}

/* ---- starting ---------------------------------------------------------------------------------------------- */

/* It is stored. */
static void
on_show(struct effect *e)
{
	struct keypair *kp = CONTAINER(e, struct keypair, show);
	FILE *terminal = isatty(STDOUT_FILENO) ? stdout : stderr;

	if (fprintf(terminal, "\nThe gateway's first key. It may do everything and is shown this once; a program sends it as\n"
	    "the header \"Authorization: Bearer KEY\" (docs/API.md):\n\n  %s\n\n", buf_z(&kp->first)) < 0 || fflush(terminal) != 0)
		log_error("auth", "the first key could not be shown; next: `blufio pair --gateway`");
	secret_wipe(kp->first.p, kp->first.cap);
	buf_free(&kp->first);
}

/* Where there never was a credential: the first one on a terminal, else how to get it. */
static FALLIBLE
first_key(struct keypair *kp, struct fail *f)
{
	const struct api_key_row k = { .name = S("first"), .scopes = SCOPE_ALL };
	bool any = true;
	int64_t id;
	enum err e = store_api_key_any(kp->a->db, &any);

	if (e == OK && !any && !isatty(STDOUT_FILENO) && !isatty(STDERR_FILENO)) {
		log_info("auth", "nobody has a key of the gateway yet; next: `blufio pair --gateway`");
	} else if (e == OK && !any) {
		kp->show.run = on_show;
		e = store_api_key_mint(kp->a->db, &k, &kp->first, &id);
		agent_after(kp->a, &kp->show);
	}
	return e == OK ? OK : fail_set(f, e, "the keys of the gateway cannot be read or written (%s); next: `df -h %s`",
	    err_str(e), kp->a->database_path);
}

static void
keypair_free(void *self)
{
	struct keypair *kp = self;

	effect_cancel(&kp->show);
	if (kp->first.p)
		secret_wipe(kp->first.p, kp->first.cap);
	buf_free(&kp->first);
	free(kp);
}

static FALLIBLE
keypair_start(struct agent *a, void **self, struct fail *f)
{
	const struct secret *secret = config_secret(a->config, "gateway.bearer_token");
	struct str token = secret ? secret_reveal(secret) : STR_NONE;
	struct keypair *kp;
	unsigned distinct = 0;

	for (size_t i = 0; i < token.n; i++)
		distinct += str_chr(token, token.p[i]) == i;
	if (secret && (token.n < TOKEN_MIN || distinct < TOKEN_DISTINCT_MIN))
		return fail_set(f, ERR_CONFIG, "gateway.bearer_token (%s) can be guessed: wanted are 128 bits of chance, at least"
		    " %u characters; next: `openssl rand -base64 24 | blufio config set gateway.bearer_token -`",
		    config_origin(a->config, "gateway.bearer_token"), TOKEN_MIN);
	kp = calloc(1, sizeof(*kp));
	if (kp == NULL)
		return fail_set(f, ERR_NOMEM, "auth: out of memory");
	kp->a = a;
	buf_init(&kp->first, sizeof(API_KEY_PREFIX) + 2 * API_KEY_BYTES);
	if (secret) {
		store_secret_hash(token, kp->token);
	} else if (first_key(kp, f) != OK) {
		keypair_free(kp);
		return f->err;
	}
	*self = kp;
	return OK;
}

static const struct auth_ops ops = { .start = keypair_start, .free = keypair_free, .check = keypair_check };
const struct feature keypair_feature = {
	.name = "keypair", .kind = FEATURE_AUTH, .keys = keys, .auth = &ops,
	.summary = "who uses the gateway: signing devices, keys with scopes, one configured token"
};
