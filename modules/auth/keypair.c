/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * keypair.c - who a request of the gateway is from: a device that signs, a minted
 * key, or the token of the configuration. There is no fourth way.
 *
 * All three lead to a row of api_keys, which says what its holder may do and until
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
 * Wrong tries are counted by the address they come from; after TRIES_MAX in a minute
 * that address is not listened to for a while, whatever it has to show: the answer then
 * costs no look into the database and no arithmetic. A right one takes no wrong one
 * back. What is no guess (no credential at all, a wrong clock) is refused, not counted.
 */
#include "core/core.h"
#include "crypto/ed25519.h"
#include "crypto/hmac.h"

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
#define HEX_SHA256 (2 * SHA256_SIZE)
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
	bool has_token;
	unsigned char token[SHA256_SIZE];
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
	char hash[HEX_SHA256 + 1];
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

/* ERR_AUTH: no such row, or it may no longer be used. */
static FALLIBLE
holder_find(struct keypair *kp, struct str hash, struct holder *h)
{
	enum err e = store_api_key_find(kp->a->db, hash, on_row, h);

	if (e == ERR_NOTFOUND)
		return ERR_AUTH;
	if (e == OK && (strlen(h->hash) != hash.n || !hmac_equal(h->hash, hash.p, hash.n) || h->revoked_at ||
	    (h->who.expires_at && h->who.expires_at <= clock_us())))
		return ERR_AUTH;
	return e;
}

/* ---- a secret: a minted key or the configured token --------------------------------------------- */

static void
digest_of(struct str s, unsigned char out[SHA256_SIZE])
{
	struct sha256 h;

	sha256_init(&h);
	sha256_update(&h, s.p, s.n);
	sha256_final(&h, out);
}

static FALLIBLE
token_row(struct keypair *kp, struct str hash)
{
	const struct api_key_row k = { .kind = API_KEY_TOKEN, .name = S("gateway.bearer_token"), .hash = hash,
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
	unsigned char digest[SHA256_SIZE];
	struct buf hash = BUF_INIT(HEX_SHA256);
	bool token;
	enum err e;

	digest_of(secret, digest);
	token = hmac_equal(digest, kp->token, sizeof(digest)) && kp->has_token;
	enc_hex(&hash, digest, sizeof(digest));
	e = hash.err;
	if (e == OK && token && store_api_key_find(kp->a->db, buf_view(&hash), on_row, h) == ERR_NOTFOUND)
		e = token_row(kp, buf_view(&hash));
	if (e == OK)
		e = holder_find(kp, buf_view(&hash), h);
	if (e == OK && !(token || h->kind == API_KEY_SECRET))
		e = ERR_AUTH;           /* a former token, or somebody's public key */
	buf_free(&hash);
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

/* ---- the one function ---------------------------------------------------------------------------------- */

static FALLIBLE
identify(struct keypair *kp, const struct http_request *r, struct holder *h, bool *counts, struct fail *f)
{
	struct str bearer = http_field(r, "Authorization"), scheme;

	if (http_field(r, "Blufio-Device").n || http_field(r, "Blufio-Signature").n)
		return check_signature(kp, r, h, counts, f);
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
	if (e != OK && e != ERR_AUTH && e != ERR_LIMIT)
		e = fail_set(f, e, "who sent this cannot be looked up at the moment (%s); next: `blufio status`", err_str(e));
	return e;
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
	kp->has_token = secret != NULL;
	if (kp->has_token)
		digest_of(token, kp->token);
	*self = kp;
	return OK;
}

static const struct auth_ops ops = { .start = keypair_start, .free = free, .check = keypair_check };
const struct feature keypair_feature = {
	.name = "keypair", .kind = FEATURE_AUTH, .keys = keys, .auth = &ops,
	.summary = "who uses the gateway: signing devices, keys with scopes, one configured token"
};
