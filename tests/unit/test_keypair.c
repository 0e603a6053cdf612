/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_keypair.c - who is let in: signatures, keys, the token, sessions of browsers, tickets,
 * lock-out, rates, and the routes that make and end all these. Heads come out of the real parser, rows are in a real
 * database; time and the listener are this file's.
 */
#define clock_us t_clock_us
#define clock_mono_us t_clock_mono_us
#define config_secret t_config_secret
#define config_origin t_config_origin
#define isatty t_isatty
#define request_agent t_request_agent
#define request_head t_request_head
#define request_object t_request_object
#define request_answer_raw t_request_answer_raw
#define request_principal t_request_principal
#define request_body t_request_body
#define request_segment t_request_segment
#define request_answer_buf t_request_answer_buf
#define request_failed t_request_failed
#define request_error t_request_error
#define request_revokes t_request_revokes
#define keypair_feature t_keypair_feature
#define keys_feature t_keys_feature
#define session_feature t_session_feature
#define ops keypair_ops
#include "auth/keypair.c"
#undef ops
#include "api/keys.c"
#define answer session_answer
#define mint session_mint
#include "api/session.c"
#undef answer
#undef mint
#undef isatty
#undef clock_us
#undef clock_mono_us
int64_t clock_us(void);
int64_t clock_mono_us(void);

#include "scratch.h"
#include "test.h"

#define START 1764160000LL                      /* unix seconds */
#define TOKEN "kQ3v9x0Zr5Tt1bYw8LmN2pAe"
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define NONCE "000102030405060708090a0b0c0d0e0f"
#define PEER "192.0.2.1"

/* A request of the routes, and what became of it. */
struct request {
	struct principal who;
	struct str body, segment;
	int status, answers;
	bool revokes;
	char type[32], param[32], text[256];
	struct buf json, fields;
	struct http_request head;
};

static struct {
	struct scratch sc;
	struct keypair *kp;
	struct secret token;
	int64_t now;                            /* microseconds since START */
	struct principal who;                   /* of the newest check */
	int64_t wait;
	struct fail fail;
	struct request req;
	struct arena ar;
	bool terminal;
	char cookie[65], csrf[65];              /* of the newest session */
} w;

int64_t t_clock_us(void) { return START * US_PER_S + w.now; }
int64_t t_clock_mono_us(void) { return 5 * US_PER_S + w.now; }

const struct secret *
t_config_secret(const struct config *c, const char *key)
{
	(void)c;
	CHECK(strcmp(key, "gateway.bearer_token") == 0);
	return w.token.p ? &w.token : NULL;
}

const char *t_config_origin(const struct config *c, const char *key) { (void)c; (void)key; return "test.toml:3"; }
struct agent *t_request_agent(const struct request *r) { (void)r; return &w.sc.a; }
const struct principal *t_request_principal(const struct request *r) { return &r->who; }
struct str t_request_body(const struct request *r) { return r->body; }
struct str t_request_segment(const struct request *r, size_t i) { CHECK(i == 0); return r->segment; }

const struct http_request *t_request_head(const struct request *r) { return &r->head; }
/* The listener ends its connections: tests/e2e/test_session.py. */
void t_request_revokes(struct request *r) { r->revokes = true; }
int t_isatty(int fd) { return w.terminal && fd == STDOUT_FILENO; }

/* The listener's own words for a body are in tests/e2e/test_gateway.py. */
const struct json *
t_request_object(struct request *r, struct arena *ar, const char *members)
{
	const struct json *o = NULL;

	CHECK(members[0] == '\0');
	if (json_parse(ar, r->body, &o, NULL) == OK && o->type == JSON_OBJECT && o->count == 0)
		return o;
	t_request_error(r, 400, "invalid_request", NULL, NULL, "no object without members");
	return NULL;
}

void
t_request_answer_raw(struct request *r, int status, const char *type, struct str fields, struct str body)
{
	CHECK((type == NULL) == (body.n == 0));
	buf_str(&r->fields, fields);
	r->answers++;
	r->status = status;
	buf_str(&r->json, body);
}

void
t_request_failed(struct request *r, enum err e)
{
	CHECK(e != OK);
	r->answers++;
	r->status = 503;
}

void
t_request_answer_buf(struct request *r, int status, enum err e, const struct buf *b)
{
	if (e != OK || b->err != OK) {
		t_request_failed(r, e != OK ? e : b->err);
		return;
	}
	r->answers++;
	r->status = status;
	buf_str(&r->json, buf_view(b));
}

void
t_request_error(struct request *r, int status, const char *type, const char *param, const char *hint, const char *fmt, ...)
{
	va_list ap;

	(void)hint;
	r->answers++;
	r->status = status;
	snprintf(r->type, sizeof(r->type), "%s", type);
	snprintf(r->param, sizeof(r->param), "%s", param ? param : "");
	va_start(ap, fmt);
	vsnprintf(r->text, sizeof(r->text), fmt, ap);
	va_end(ap);
}

static void
pass(int64_t s)
{
	w.now += s * US_PER_S;
}

static enum err
start(const char *token)
{
	enum err e = OK;

	if (w.kp)
		t_keypair_feature.auth->free(w.kp);
	w.kp = NULL;
	secret_free(&w.token);
	fail_clear(&w.fail);
	if (token)
		e = secret_set(&w.token, str_z(token));
	if (e == OK) {
		void *self = NULL;

		e = t_keypair_feature.auth->start(&w.sc.a, &self, &w.fail);
		w.kp = self;
	}
	return e;
}

static bool
begin(const char *token)
{
	enum err e;

	memset(&w, 0, sizeof(w));
	buf_init(&w.req.json, 2u << 20);
	buf_init(&w.req.fields, 4096);
	w.req.head.host = S("localhost:3000");
	arena_init(&w.ar, 8u << 20);
	e = scratch_begin(&w.sc, "", "echo");
	w.sc.a.after.tail = &w.sc.a.after.head;
	if (e == OK)
		e = start(token);
	CHECK_OK(e);
	return e == OK;
}

static void
end(void)
{
	if (w.kp)
		t_keypair_feature.auth->free(w.kp);
	secret_free(&w.token);
	buf_free(&w.req.json);
	buf_free(&w.req.fields);
	arena_free(&w.ar);
	scratch_end(&w.sc);
}

static int64_t
one(const char *sql)
{
	int64_t n = -1;

	CHECK_OK(db_get_i64(w.sc.a.db, sql, NULL, 0, -1, &n));
	return n;
}
#define ONE(sql, want) CHECK(one(sql) == (want) || FAULTED())

/* ---- asking ------------------------------------------------------------------------------ */

/* Request line and fields, through the listener's parser, to the one function. */
static enum err
ask(const char *peer, const char *line, const char *fields)
{
	struct buf text = BUF_INIT(HTTP_HEAD_MAX);
	struct http h;
	struct str in, body;
	enum err e = ERR_NOMEM;

	fail_clear(&w.fail);
	memset(&w.who, 0, sizeof(w.who));
	w.wait = 0;
	buf_fmt(&text, "%s HTTP/1.1\r\n%s%s\r\n", line, strncmp(fields, "Host:", 5) == 0 ? "" : "Host: localhost\r\n", fields);
	in = buf_view(&text);
	http_init(&h, 0);
	if (text.err == OK && http_next(&h, &in, &body) == HTTP_HEAD)
		e = t_keypair_feature.auth->check(w.kp, &h.req, str_z(peer), &w.who, &w.wait, &w.fail);
	else
		CHECK(FAULTED());
	http_free(&h);
	buf_free(&text);
	CHECK((e == OK) == (w.who.id != 0));
	CHECK(w.who.id || w.who.login == 0);
	CHECK((e == OK) == (w.fail.err == OK) || FAULTED());
	return e;
}

static enum err
bearer(const char *peer, const char *secret)
{
	char fields[512];

	snprintf(fields, sizeof(fields), "Authorization: Bearer %s\r\n", secret);
	return ask(peer, "GET /v1/tools", fields);
}

/* A key made as the command line makes it. */
static int64_t
mint(unsigned allowed, int64_t expires_s, int64_t rate, char out[96])
{
	const struct api_key_row k = { .name = S("k"), .scopes = allowed, .rate_per_minute = rate,
	    .expires_at = expires_s ? (START + expires_s) * US_PER_S : 0 };
	struct buf b = BUF_INIT(95);
	int64_t id = 0;

	CHECK_OK(store_api_key_mint(w.sc.a.db, &k, &b, &id));
	snprintf(out, 96, "%s", buf_z(&b));
	buf_free(&b);
	return id;
}

static int64_t
device(unsigned char seed, struct ed25519_key *k)
{
	const unsigned char bytes[ED25519_SEED_SIZE] = { seed };
	struct buf hex = BUF_INIT(64);
	struct api_key_row row = { .kind = API_KEY_DEVICE, .name = S("d"), .scopes = SCOPE_CHAT };
	int64_t id = 0;

	ed25519_key_init(k, bytes);
	enc_hex(&hex, k->public, sizeof(k->public));
	row.hash = buf_view(&hex);
	CHECK_OK(hex.err == OK ? store_api_key_add(w.sc.a.db, &row, &id) : hex.err);
	buf_free(&hex);
	return id;
}

/* What is signed, and (where not NULL) what is sent instead. */
struct signing {
	const struct ed25519_key *key, *send_key;
	const char *line, *send_line, *hash, *send_hash, *nonce, *send_nonce;
	int64_t at, send_at;
	int flip;                               /* this bit of the signature, from 1 */
	const char *signature;
};

static enum err
sign(const struct signing *s)
{
	unsigned char sig[ED25519_SIG_SIZE];
	struct buf text = BUF_INIT(1024), fields = BUF_INIT(1024);
	char *blank;
	enum err e;

	buf_fmt(&text, "%s\n%s\n%lld\n%s", s->line, s->hash, (long long)s->at, s->nonce);
	blank = text.p ? strchr(text.p, ' ') : NULL;
	if (blank)
		*blank = '\n';
	ed25519_sign(s->key, buf_view(&text), sig);
	if (s->flip)
		sig[(s->flip - 1) / 8] ^= (unsigned char)(1 << (s->flip - 1) % 8);
	buf_puts(&fields, "Blufio-Device: ");
	enc_hex(&fields, s->send_key ? s->send_key->public : s->key->public, ED25519_PUBLIC_SIZE);
	buf_fmt(&fields, "\r\nBlufio-Timestamp: %lld\r\nBlufio-Nonce: %s\r\nBlufio-Content-SHA256: %s\r\nBlufio-Signature: ",
	    (long long)(s->send_at ? s->send_at : s->at), s->send_nonce ? s->send_nonce : s->nonce,
	    s->send_hash ? s->send_hash : s->hash);
	if (s->signature)
		buf_puts(&fields, s->signature);
	else
		enc_base64(&fields, sig, sizeof(sig));
	buf_puts(&fields, "\r\n");
	e = text.err == OK ? ask(PEER, s->send_line ? s->send_line : s->line, buf_z(&fields)) : text.err;
	buf_free(&text);
	buf_free(&fields);
	return e;
}

static struct signing
plain(const struct ed25519_key *k, const char *nonce)
{
	return (struct signing){ .key = k, .line = "POST /v1/messages?x=1", .hash = EMPTY_SHA256, .nonce = nonce,
	    .at = START + w.now / US_PER_S };
}

static bool
told(const char *part)
{
	bool ok = strstr(w.fail.text, part) != NULL || FAULTED();

	if (!ok)
		printf("  told: %s\n", w.fail.text);
	return ok;
}

/* ---- devices ------------------------------------------------------------------------------- */

TEST(a_signed_request)
{
	struct ed25519_key k;
	struct signing s;
	int64_t id;

	if (begin(NULL)) {
		id = device(1, &k);
		s = plain(&k, NONCE);
		CHECK_OK(sign(&s));
		CHECK(FAULTED() || (w.who.id == id && w.who.scopes == SCOPE_CHAT && w.who.hashed));
		CHECK(FAULTED() || memcmp(w.who.body_hash, "\xE3\xB0\xC4\x42", 4) == 0);
		CHECK(FAULTED() || w.who.body_hash[31] == 0x55);
		/* openssl signed the same five lines with the same key */
		db_rollback(w.sc.a.db);
		CHECK(device(1, &k) == id || FAULTED());
		s.signature = "c25ZcIDazDeioMpKze0OVzFOLzAeTpKXjaWSmgkeq1PS3/oX3ufz2ek8vKMrKYoeXJYrAI5n3twWRdPPb3L4BQ==";
		CHECK_OK(sign(&s));
		s.signature = NULL;
		CHECK_OK(store_api_key_revoke(w.sc.a.db, id));
		s.nonce = "ff0102030405060708090a0b0c0d0e0f";
		CHECK_ERR(sign(&s), ERR_AUTH);
		CHECK(told("the signature does not fit"));
	}
	end();
}

/* Whatever of it is not as it was signed. */
TEST(a_changed_request)
{
	struct ed25519_key k, other, stranger;
	const unsigned char seed[ED25519_SEED_SIZE] = { 77 };
	struct signing s;

	if (begin(NULL)) {
		device(1, &k);
		device(2, &other);
		ed25519_key_init(&stranger, seed);
		s = plain(&k, NONCE);
#define CHANGED(member, value) do { \
		struct signing c = s; \
		c.member = value; \
		CHECK_ERR(sign(&c), ERR_AUTH); \
		CHECK(told("the signature does not fit")); \
		pass(400);  /* no lock-out in between */ \
		s.at += 400; \
	} while (0)
		CHANGED(send_line, "PUT /v1/messages?x=1");
		CHANGED(send_line, "POST /v1/messages?x=2");
		CHANGED(send_line, "POST /v1/messages");
		CHANGED(send_hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b854");
		CHANGED(send_at, s.at + 1);
		CHANGED(send_nonce, "010102030405060708090a0b0c0d0e0f");
		CHANGED(send_key, &other);
		CHANGED(send_key, &stranger);
		CHANGED(key, &stranger);
		CHANGED(flip, 1);
		CHANGED(flip, 512);
		s.send_nonce = NONCE;
		CHANGED(nonce, NONCE "\n");             /* signed with a newline at the end */
		ONE("SELECT count(*) FROM nonces", 0);
		CHECK_OK(sign(&s));
	}
	end();
}

TEST(headers_that_are_none)
{
	static const char rest[] = "Blufio-Timestamp: 1764160000\r\nBlufio-Nonce: " NONCE "\r\nBlufio-Content-SHA256: "
	    EMPTY_SHA256 "\r\nBlufio-Signature: AAAA\r\n";
	struct ed25519_key k;
	struct signing s;
	char fields[1024];

	if (begin(NULL)) {
		device(1, &k);
#define BAD(member, value, part) do { \
		s = plain(&k, NONCE); \
		s.member = value; \
		CHECK_ERR(sign(&s), ERR_AUTH); \
		CHECK(told(part)); \
		pass(400); \
	} while (0)
		BAD(send_nonce, "", "Blufio-Nonce");
		BAD(send_nonce, "000102030405060708090a0b0c0d0e", "Blufio-Nonce");
		BAD(send_nonce, "000102030405060708090A0B0C0D0E0F", "lower-case");
		BAD(send_hash, "e3b0", "Blufio-Content-SHA256");
		BAD(send_at, -1, "Blufio-Timestamp");
		BAD(signature, "", "Blufio-Signature");
		BAD(signature, "AAAA", "Blufio-Signature");
		BAD(signature, "!", "Blufio-Signature");
		BAD(signature, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
		    "AAAA", "Blufio-Signature");
		CHECK_ERR(ask(PEER, "GET /", rest), ERR_AUTH);
		CHECK(told("Blufio-Device"));
		pass(400);
		snprintf(fields, sizeof(fields), "Blufio-Device: x\r\nBlufio-Device: x\r\n%s", rest);
		CHECK_ERR(ask(PEER, "GET /", fields), ERR_AUTH);
		CHECK(told("Blufio-Device"));
		ONE("SELECT count(*) FROM nonces", 0);
	}
	end();
}

TEST(a_clock_that_is_wrong)
{
	static const int64_t off[] = { -60, 60 };
	struct ed25519_key k;
	struct signing s;
	char nonce[33] = NONCE;

	if (begin(NULL)) {
		device(1, &k);
		for (size_t i = 0; i < ARRAY_LEN(off); i++) {
			nonce[1]++;
			s = plain(&k, nonce);
			s.at += off[i];
			CHECK_OK(sign(&s));
			s.at += off[i] / 60;
			for (int n = 0; n <= TRIES_MAX; n++)    /* nobody is locked out for it */
				CHECK_ERR(sign(&s), ERR_AUTH);
			CHECK(told(i ? "is 61 s ahead of this server's clock (1764160000)" : "is 61 s behind"));
			CHECK(told("set the clock"));
		}
	}
	end();
}

static enum err
reopen(void)
{
	const struct feature *sqlite = feature_find(FEATURE_STORAGE, S("sqlite"));

	CHECK_OK(db_commit(w.sc.a.db));
	db_close(w.sc.a.db);
	w.sc.a.db = NULL;
	fail_clear(&w.fail);
	return db_open(&w.sc.a.db, sqlite->storage, w.sc.path, false, DB_PROCESS, &w.fail);
}

TEST(a_replay)
{
	struct ed25519_key k, other;
	struct signing s, s2;

	if (begin(NULL)) {
		device(1, &k);
		device(2, &other);
		CHECK_OK(db_commit(w.sc.a.db));
		s = plain(&k, NONCE);
		CHECK_OK(sign(&s));
		db_rollback(w.sc.a.db);         /* it never happened … */
		CHECK_OK(sign(&s));
		CHECK_ERR(sign(&s), ERR_AUTH);  /* … and now it did */
		CHECK(told("Blufio-Nonce was used before"));
		if (FAULTED() || reopen() != OK || start(NULL) != OK) {
			CHECK(FAULTED());
			end();
			return;
		}
		CHECK_ERR(sign(&s), ERR_AUTH);
		CHECK(told("Blufio-Nonce was used before"));
		s2 = plain(&other, NONCE);
		CHECK_OK(sign(&s2));            /* each device has its own */
		ONE("SELECT count(*) FROM nonces", 2);
		pass(181);
		s2 = plain(&other, "ff0102030405060708090a0b0c0d0e0f");
		CHECK_OK(sign(&s2));
		ONE("SELECT count(*) FROM nonces", 1);
	}
	end();
}

/* The row lives as long as the timestamp can be good: from a clock ahead of ours to a minute behind it. */
TEST(a_late_replay)
{
	struct ed25519_key k;
	struct signing ahead, other;

	if (begin(NULL)) {
		device(1, &k);
		ahead = plain(&k, NONCE);
		ahead.at += 60;
		CHECK_OK(sign(&ahead));
		pass(120);
		other = plain(&k, "ff0102030405060708090a0b0c0d0e0f");
		CHECK_OK(sign(&other));                 /* old rows go now */
		CHECK_ERR(sign(&ahead), ERR_AUTH);
		CHECK(told("Blufio-Nonce was used before"));
		pass(1);
		CHECK_ERR(sign(&ahead), ERR_AUTH);
		CHECK(told("61 s behind"));
	}
	end();
}

/* ---- keys and the token ------------------------------------------------------------------------ */

TEST(no_credential)
{
	char key[96];

	if (begin(TOKEN)) {
		mint(SCOPE_READ, 0, 0, key);
		for (int i = 0; i < 2 * TRIES_MAX; i++) {
			CHECK_ERR(ask(PEER, "GET /", ""), ERR_AUTH);
			CHECK(told("a credential is needed"));
		}
		CHECK_OK(bearer(PEER, key));
	}
	end();
}

TEST(a_key)
{
	char key[96], other[96], wrong[128];
	int64_t id;

	if (begin(NULL)) {
		id = mint(SCOPE_READ | SCOPE_CHAT, 100, 0, key);
		mint(SCOPE_ALL, 0, 0, other);
		CHECK(FAULTED() || (strlen(key) == 71 && str_starts(str_z(key), S("blf_sk_")) && strcmp(key, other) != 0));
		CHECK_OK(bearer(PEER, key));
		CHECK(FAULTED() || (w.who.id == id && w.who.scopes == (SCOPE_READ | SCOPE_CHAT) && !w.who.hashed &&
		    w.who.expires_at == (START + 100) * US_PER_S));
		snprintf(wrong, sizeof(wrong), "%s", key);
		wrong[70] = wrong[70] == '0' ? '1' : '0';
		CHECK_ERR(bearer(PEER, wrong), ERR_AUTH);
		CHECK(told("the credential is not valid"));
		snprintf(wrong, sizeof(wrong), "%.70s", key);
		CHECK_ERR(bearer(PEER, wrong), ERR_AUTH);
		CHECK_ERR(bearer(PEER, ""), ERR_AUTH);
		CHECK_ERR(bearer(PEER, EMPTY_SHA256), ERR_AUTH);
		snprintf(wrong, sizeof(wrong), "Authorization: bearer   %s\r\n", other);
		CHECK_OK(ask(PEER, "GET /", wrong));
		snprintf(wrong, sizeof(wrong), "Authorization: Basic %s\r\n", other);
		CHECK_ERR(ask(PEER, "GET /", wrong), ERR_AUTH);
		ONE("SELECT count(*) FROM api_keys WHERE hash LIKE '%blf%' OR length(hash) <> 64", 0);
		pass(99);
		CHECK_OK(bearer(PEER, key));
		pass(1);
		CHECK_ERR(bearer(PEER, key), ERR_AUTH);
		CHECK_OK(bearer(PEER, other));
		CHECK_OK(store_api_key_revoke(w.sc.a.db, id + 1));
		CHECK_ERR(bearer(PEER, other), ERR_AUTH);
		CHECK(told("the credential is not valid"));     /* and not what was wrong with it */
	}
	end();
}

/* The digest and a public key stand in the database: neither opens anything. */
TEST(what_is_stored_is_no_key)
{
	struct ed25519_key k;
	char digest[SECRET_HASH_SIZE];
	struct api_key_row row = { .kind = API_KEY_DEVICE, .name = S("d"), .scopes = SCOPE_ALL };
	struct buf hex = BUF_INIT(64);
	struct signing s;
	int64_t id = 0;

	if (begin(NULL)) {
		device(1, &k);
		enc_hex(&hex, k.public, sizeof(k.public));
		CHECK_ERR(bearer(PEER, buf_z(&hex)), ERR_AUTH);
		store_secret_hash(S("guess"), digest);  /* a "device" whose key is the digest of a known text */
		row.hash = str_z(digest);
		CHECK_OK(store_api_key_add(w.sc.a.db, &row, &id));
		CHECK_ERR(bearer(PEER, "guess"), ERR_AUTH);
		CHECK_OK(DB_EXEC(w.sc.a.db, "UPDATE api_keys SET kind = ?1", DBI(API_KEY_SECRET)));
		s = plain(&k, NONCE);                   /* nor is a digest a public key */
		CHECK_ERR(sign(&s), ERR_AUTH);
	}
	buf_free(&hex);
	end();
}

TEST(used_at)
{
	char key[96];

	if (begin(NULL)) {
		mint(SCOPE_READ, 0, 0, key);
		CHECK_OK(bearer(PEER, key));
		ONE("SELECT used_at FROM api_keys", START * US_PER_S);
		pass(59);
		CHECK_OK(bearer(PEER, key));
		ONE("SELECT used_at FROM api_keys", START * US_PER_S);
		pass(1);
		CHECK_OK(bearer(PEER, key));
		ONE("SELECT used_at FROM api_keys", (START + 60) * US_PER_S);
		pass(-3600);                            /* the clock is set back */
		CHECK_OK(bearer(PEER, key));
		ONE("SELECT used_at FROM api_keys", (START + 60 - 3600) * US_PER_S);
	}
	end();
}

TEST(the_token)
{
	int64_t id;

	if (begin(TOKEN)) {
		CHECK_OK(bearer(PEER, TOKEN));
		id = w.who.id;
		CHECK(FAULTED() || (w.who.scopes == SCOPE_ALL && w.who.expires_at == 0));
		CHECK_OK(bearer(PEER, TOKEN));
		CHECK(w.who.id == id || FAULTED());
		ONE("SELECT count(*) FROM api_keys WHERE kind = 2", 1);
		CHECK_ERR(bearer(PEER, "kQ3v9x0Zr5Tt1bYw8LmN2pAf"), ERR_AUTH);
		CHECK_OK(start("another0Zr5Tt1bYw8LmN2pAe"));   /* what is no longer configured opens nothing */
		CHECK_ERR(w.kp ? bearer(PEER, TOKEN) : ERR_AUTH, ERR_AUTH);
		CHECK_OK(start(NULL));
		CHECK_ERR(w.kp ? bearer(PEER, TOKEN) : ERR_AUTH, ERR_AUTH);
		CHECK_OK(start(TOKEN));
		CHECK_OK(w.kp ? bearer(PEER, TOKEN) : OK);
		CHECK_OK(store_api_key_revoke(w.sc.a.db, id));
		CHECK_ERR(w.kp ? bearer(PEER, TOKEN) : ERR_AUTH, ERR_AUTH);
	}
	end();
}

TEST(a_token_that_can_be_guessed)
{
	static const char *const weak[] = { "secret", "kQ3v9x0Zr5Tt1bYw8LmN2", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	    "abcabcabcabcabcabcabcabcabcabcabc" };

	if (begin(NULL)) {
		for (size_t i = 0; i < ARRAY_LEN(weak); i++) {
			CHECK_ERR(start(weak[i]), ERR_CONFIG);
			CHECK(told("gateway.bearer_token (test.toml:3)") && told("`openssl rand -base64 24 |"));
			CHECK(strstr(w.fail.text, weak[i]) == NULL);
		}
		CHECK_OK(start("kQ3v9x0Zr5Tt1bYw8LmN2p"));
	}
	end();
}

/* ---- too often ------------------------------------------------------------------------------------ */

static void
wrong(const char *peer, int n)
{
	for (int i = 0; i < n; i++)
		CHECK_ERR(bearer(peer, "wrong"), ERR_AUTH);
}

TEST(wrong_tries)
{
	static const int64_t waits[] = { 2, 4, 8, 16, 32, 64, 128, 256, 300, 300 };
	struct db *db;
	char key[96];

	if (begin(NULL)) {
		mint(SCOPE_READ, 0, 0, key);
		wrong(PEER, TRIES_MAX - 1);
		pass(61);
		wrong(PEER, TRIES_MAX - 1);             /* another minute */
		CHECK_OK(bearer(PEER, key));
		CHECK_ERR(bearer(PEER, "wrong"), ERR_AUTH);     /* a right one in between changes nothing */
		for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
			db = w.sc.a.db;
			if (!FAULTED())
				w.sc.a.db = NULL;       /* not looked at */
			CHECK_ERR(bearer(PEER, key), ERR_LIMIT);
			CHECK(w.wait == waits[i] || FAULTED());
			CHECK_ERR(ask(PEER, "GET /", ""), ERR_LIMIT);
			CHECK(told("too many wrong credentials came from 192.0.2.1"));
			pass(waits[i] - 1);
			CHECK_ERR(bearer(PEER, "wrong"), ERR_LIMIT);    /* does not make it longer */
			CHECK(w.wait == 1 || FAULTED());
			w.sc.a.db = db;
			CHECK_OK(bearer("192.0.2.2", key));
			pass(1);
			CHECK_OK(bearer(PEER, key));
			wrong(PEER, 1);
		}
		pass(300 + 61);
		wrong(PEER, TRIES_MAX);                 /* forgotten: from the start */
		CHECK_ERR(bearer(PEER, key), ERR_LIMIT);
		CHECK(w.wait == 2 || FAULTED());
	}
	end();
}

TEST(many_addresses)
{
	char key[96], peer[128];

	if (begin(NULL)) {
		mint(SCOPE_READ, 0, 0, key);
		wrong(PEER, TRIES_MAX);
		for (int i = 0; i < 3 * PEERS_MAX; i++) {
			snprintf(peer, sizeof(peer), "2001:db8::%d", i);
			wrong(peer, 1);
		}
		CHECK_ERR(bearer(PEER, key), ERR_LIMIT);        /* whoever is locked out stays it */
		memset(peer, 'x', sizeof(peer) - 1);            /* longer than any address is */
		peer[sizeof(peer) - 1] = '\0';
		wrong(peer, TRIES_MAX);
		CHECK_ERR(bearer(peer, key), ERR_LIMIT);
	}
	end();
}

TEST(the_rate_of_a_key)
{
	char slow[96], free_[96];

	if (begin(NULL)) {
		mint(SCOPE_READ, 0, 3, slow);
		mint(SCOPE_READ, 0, 0, free_);
		for (int round = 0; round < 2; round++) {
			for (int i = 0; i < 3; i++)
				CHECK_OK(bearer(PEER, slow));
			CHECK_ERR(bearer(PEER, slow), ERR_LIMIT);
			CHECK(w.wait == 20 || FAULTED());
			CHECK(told("3 requests a minute; next: again in 20 s"));
			pass(19);
			CHECK_ERR(bearer("192.0.2.9", slow), ERR_LIMIT);        /* wherever it comes from */
			CHECK(w.wait == 1 || FAULTED());
			pass(1);
			CHECK_OK(bearer(PEER, slow));
			CHECK_ERR(bearer(PEER, slow), ERR_LIMIT);
			for (int i = 0; i < 100; i++)
				CHECK_OK(bearer(PEER, free_));
			pass(3600);
		}
		/* more keys than places: who is not ahead of its pace gives way */
		for (int i = 0; i < 3; i++)
			CHECK_OK(bearer(PEER, slow));
		for (int64_t key = 1000; key < 1000 + 2 * RATES_MAX; key++)
			CHECK_OK(rate_take(w.kp, key, 60, &w.wait, NULL));
		CHECK_ERR(bearer(PEER, slow), ERR_LIMIT);
		CHECK_OK(bearer(PEER, free_));
	}
	end();
}

/* ---- /v1/api-keys ------------------------------------------------------------------------------------ */

/* What the listener does once the body is there; the answer's tree, NULL for an error. */
static const struct json *
call_at(const struct route *r, const char *method, const char *path, const char *body_or_id)
{
	const struct json *v = NULL;

	while (r->method && (strcmp(r->method, method) != 0 || !str_starts(str_z(r->path), str_z(path))))
		r++;
	w.req.body = str_z(body_or_id);
	w.req.segment = str_z(body_or_id);
	w.req.answers = w.req.status = 0;
	w.req.revokes = false;
	w.req.type[0] = w.req.param[0] = w.req.text[0] = '\0';
	buf_reset(&w.req.json);
	buf_reset(&w.req.fields);
	r->run(&w.req);
	CHECK(w.req.answers == 1);
	if (w.req.status >= 300)
		return NULL;
	arena_reset(&w.ar);
	return json_parse(&w.ar, buf_view(&w.req.json), &v, NULL) == OK ? v : NULL;
}

static const struct json *
call(const char *method, const char *body_or_id)
{
	return call_at(t_keys_feature.routes, method, "/v1/api-keys", body_or_id);
}

static void
as(int64_t id, unsigned allowed, int64_t expires_s)
{
	w.req.who = (struct principal){ .id = id, .scopes = allowed,
	    .expires_at = expires_s ? (START + expires_s) * US_PER_S : 0 };
}

static bool
refused(int status, const char *type, const char *param, const char *part)
{
	bool ok = (w.req.status == status && strcmp(w.req.type, type) == 0 && strcmp(w.req.param, param) == 0 &&
	    strstr(w.req.text, part)) || FAULTED();

	if (!ok)
		printf("  got: %d %s [%s] %s\n", w.req.status, w.req.type, w.req.param, w.req.text);
	return ok;
}

TEST(keys_are_made)
{
	char admin[96], key[96];
	const struct json *v;
	int64_t id;

	if (begin(NULL)) {
		as(mint(SCOPE_ALL, 0, 0, admin), SCOPE_ALL, 0);
		v = call("POST", "{\"name\":\"caf\\u00e9\",\"scopes\":[\"tools\",\"chat\",\"chat\"],\"expires_in_seconds\":50,"
		    "\"rate_limit_per_minute\":7}");
		CHECK(w.req.status == 201 || FAULTED());
		CHECK(FAULTED() || str_eqz(json_str(v, "name", STR_NONE), "caf\xC3\xA9"));
		CHECK(FAULTED() || str_eqz(json_at(v, "scopes")->raw, "[\"chat\",\"tools\"]"));
		CHECK(FAULTED() || json_i64(v, "expires_at", 0) == START + 50);
		CHECK(FAULTED() || json_i64(v, "rate_limit_per_minute", 0) == 7);
		CHECK(FAULTED() || json_i64(v, "created_at", 0) > 1700000000);
		CHECK(FAULTED() || json_at(v, "created_at")->s.n == 10);       /* seconds */
		id = json_i64(v, "id", 0);
		snprintf(key, sizeof(key), "%.*s", STR_ARG(json_str(v, "key", STR_NONE)));
		CHECK_OK(bearer(PEER, key));
		CHECK(FAULTED() || (w.who.id == id && w.who.scopes == (SCOPE_CHAT | SCOPE_TOOLS)));
		/* the list has all but the secrets */
		v = call("GET", "");
		CHECK(FAULTED() || (w.req.status == 200 && json_at(v, "api_keys")->count == 2));
		CHECK(FAULTED() || json_i64(v, "api_keys.1.minted_by", 0) == w.req.who.id);
		CHECK(FAULTED() || json_is(json_at(v, "api_keys.0.minted_by"), JSON_NULL));
		CHECK(FAULTED() || json_i64(v, "api_keys.1.used_at", 0) == START);
		CHECK(strstr(buf_z(&w.req.json), "blf_sk_") == NULL && strstr(buf_z(&w.req.json), "hash") == NULL);
		/* and a revoked one is no more */
		snprintf(admin, sizeof(admin), "%lld", (long long)id);
		v = call("DELETE", admin);
		CHECK(FAULTED() || (w.req.status == 200 && json_i64(v, "id", 0) == id && json_i64(v, "revoked_at", 0) > 0));
		id = json_i64(v, "revoked_at", -1);
		CHECK_ERR(bearer(PEER, key), ERR_AUTH);
		v = call("DELETE", admin);              /* again: it is so */
		CHECK(FAULTED() || (w.req.status == 200 && json_i64(v, "revoked_at", 0) == id));
		v = call("GET", "");
		CHECK(FAULTED() || json_at(v, "api_keys")->count == 1);
	}
	end();
}

TEST(devices_are_registered)
{
	const unsigned char seed[ED25519_SEED_SIZE] = { 9 };
	struct buf body = BUF_INIT(256);
	struct ed25519_key k;
	const struct json *v;
	char admin[96], id[32];

	if (begin(NULL)) {
		struct signing s;

		ed25519_key_init(&k, seed);
		as(mint(SCOPE_ALL, 0, 0, admin), SCOPE_ALL, 0);
		buf_puts(&body, "{\"name\":\"phone\",\"scopes\":[\"chat\"],\"device\":\"");
		enc_hex(&body, k.public, sizeof(k.public));
		buf_puts(&body, "\"}");
		v = call("POST", buf_z(&body));
		CHECK(FAULTED() || (w.req.status == 201 && json_at(v, "key") == NULL && json_str(v, "device", STR_NONE).n == 64));
		snprintf(id, sizeof(id), "%lld", (long long)json_i64(v, "id", 0));
		s = plain(&k, NONCE);
		CHECK_OK(sign(&s));
		call("POST", buf_z(&body));
		CHECK(refused(409, "conflict", "device", "is or was registered"));
		call("DELETE", id);
		s.nonce = "ff0102030405060708090a0b0c0d0e0f";
		CHECK_ERR(sign(&s), ERR_AUTH);
		call("POST", buf_z(&body));             /* does not bring it back */
		CHECK(refused(409, "conflict", "device", "is or was registered"));
		CHECK(w.sc.a.write_failed == false || FAULTED());
	}
	buf_free(&body);
	end();
}

TEST(a_key_never_exceeds_its_maker)
{
	static const char plain_wish[] = "{\"name\":\"n\",\"scopes\":[\"chat\"]}";
	const struct json *v;
	char key[96];

	if (begin(NULL)) {
		as(mint(SCOPE_ADMIN | SCOPE_CHAT, 100, 10, key), SCOPE_ADMIN | SCOPE_CHAT, 100);
		call("POST", "{\"name\":\"n\",\"scopes\":[\"chat\",\"read\"]}");
		CHECK(refused(403, "forbidden", "scopes", "no scope"));
		call("POST", "{\"name\":\"n\",\"scopes\":[\"chat\"],\"expires_in_seconds\":101}");
		CHECK(refused(403, "forbidden", "expires_in_seconds", "does not outlive"));
		call("POST", "{\"name\":\"n\",\"scopes\":[\"chat\"],\"rate_limit_per_minute\":11}");
		CHECK(refused(403, "forbidden", "rate_limit_per_minute", "not faster"));
		ONE("SELECT count(*) FROM api_keys", 1);
		v = call("POST", plain_wish);           /* what is not said is the maker's */
		CHECK(FAULTED() || (json_i64(v, "expires_at", 0) == START + 100 && json_i64(v, "rate_limit_per_minute", 0) == 10));
		v = call("POST", "{\"name\":\"n\",\"scopes\":[\"chat\",\"admin\"],\"expires_in_seconds\":100,"
		    "\"rate_limit_per_minute\":10}");
		CHECK(w.req.status == 201 || FAULTED());
		as(mint(SCOPE_ALL, 0, 0, key), SCOPE_ALL, 0);
		v = call("POST", plain_wish);
		CHECK(FAULTED() || (json_is(json_at(v, "expires_at"), JSON_NULL) &&
		    json_is(json_at(v, "rate_limit_per_minute"), JSON_NULL)));
	}
	end();
}

TEST(wishes_that_are_none)
{
	static const struct { const char *body, *param, *part; } bad[] = {
		{ "", "", "line 1, column 1" },
		{ "{\"name\":\"n\",\n \"scopes\":[\"chat\",]}", "", "line 2, column " },
		{ "[]", "", "not a JSON object" },
		{ "{}", "name", "needs a name" },
		{ "{\"name\":\"n\"}", "scopes", "needs a name and scopes" },
		{ "{\"scopes\":[\"chat\"]}", "name", "needs a name" },
		{ "{\"name\":7,\"scopes\":[\"chat\"]}", "name", "name: a text of 1 to 64 bytes" },
		{ "{\"name\":\" \",\"scopes\":[\"chat\"]}", "name", "name: a text" },
		{ "{\"name\":\"a\\nb\",\"scopes\":[\"chat\"]}", "name", "on one line" },
		{ "{\"name\":\"12345678901234567890123456789012345678901234567890123456789012345\",\"scopes\":[\"chat\"]}",
		  "name", "64 bytes" },
		{ "{\"name\":\"n\",\"scopes\":\"chat\"}", "scopes", "scopes: a list" },
		{ "{\"name\":\"n\",\"scopes\":[]}", "scopes", "scopes: a list" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\",1]}", "scopes", "scopes: a list" },
		{ "{\"name\":\"n\",\"scopes\":[\"chats\"]}", "scopes", "\"chat\", \"read\", \"tools\", \"admin\"" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"frob\":1}", "frob", "frob: there is no such member" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"expires_in_seconds\":\"1\"}", "expires_in_seconds", "whole number" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"expires_in_seconds\":0}", "expires_in_seconds", "whole number" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"expires_in_seconds\":1.5}", "expires_in_seconds", "whole number" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"expires_in_seconds\":1e18}", "expires_in_seconds", "whole number" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"rate_limit_per_minute\":-1}", "rate_limit_per_minute", "60000" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"rate_limit_per_minute\":60001}", "rate_limit_per_minute", "60000" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"device\":\"\"}", "device", "64 lower-case hex digits" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"device\":null}", "device", "64 lower-case hex digits" },
		{ "{\"name\":\"n\",\"scopes\":[\"chat\"],\"device\":"
		  "\"E3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}", "device", "64 lower-case hex digits" },
	};
	struct buf big = BUF_INIT(KEY_BODY_MAX + 64);
	const struct json *v;
	char admin[96];

	if (begin(NULL)) {
		as(mint(SCOPE_ALL, 0, 0, admin), SCOPE_ALL, 0);
		for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
			call("POST", bad[i].body);
			CHECK(refused(400, strncmp(bad[i].part, "line ", 5) == 0 ? "invalid_json" : "invalid_request", bad[i].param,
			    bad[i].part));
		}
		for (size_t i = 0; i <= KEY_BODY_MAX; i++)
			buf_putc(&big, ' ');
		call("POST", buf_z(&big));
		CHECK(refused(413, "too_large", "", "8192 bytes"));
		call("DELETE", "99");
		CHECK(refused(404, "not_found", "", "no such key"));
		call("DELETE", "-1");
		CHECK(refused(404, "not_found", "", "no such key"));
		call("DELETE", "frob");
		CHECK(refused(404, "not_found", "", "no such key"));
		ONE("SELECT count(*) FROM api_keys", 1);
		/* as many as there may be */
		CHECK_OK(db_script(w.sc.a.db, "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
		    " INSERT INTO api_keys(kind, name, hash, scopes, rate_per_minute, created_at, expires_at, minted_by)"
		    " SELECT 0, printf('%.64c', '\"'), i, 15, 60000, 1e15, 1e15, 1 FROM n"));
		call("POST", "{\"name\":\"n\",\"scopes\":[\"chat\"]}");
		CHECK(refused(409, "conflict", "", "1000 keys"));
		v = call("GET", "");
		CHECK(FAULTED() || json_at(v, "api_keys")->count == 1000);
	}
	buf_free(&big);
	end();
}

/* A maker's end is the end of all that came of it, and of nobody else. */
TEST(a_revoked_key_takes_those_it_made)
{
	char key[5][96], id[32];
	int64_t ids[5];

	if (begin(NULL)) {
		for (size_t i = 0; i < 5; i++)
			ids[i] = mint(SCOPE_ALL, 0, 0, key[i]);
		/* 0 made 1, which made 2, which made itself anew; 3 was made by nobody, 4 by 3 */
		CHECK_OK(DB_EXEC(w.sc.a.db, "UPDATE api_keys SET minted_by = CASE id WHEN ?2 THEN ?1 WHEN ?3 THEN ?2 WHEN ?5 THEN ?4"
		    " ELSE 0 END", DBI(ids[0]), DBI(ids[1]), DBI(ids[2]), DBI(ids[3]), DBI(ids[4])));
		CHECK_OK(DB_EXEC(w.sc.a.db, "UPDATE api_keys SET minted_by = ?2 WHERE id = ?1", DBI(ids[0]), DBI(ids[2])));
		CHECK_OK(DB_EXEC(w.sc.a.db, "UPDATE api_keys SET revoked_at = 7 WHERE id = ?1", DBI(ids[1])));
		as(ids[3], SCOPE_ALL, 0);
		snprintf(id, sizeof(id), "%lld", (long long)ids[0]);
		call("DELETE", id);
		CHECK(FAULTED() || (w.req.status == 200 && w.req.revokes));
		for (size_t i = 0; i < 3; i++)
			CHECK_ERR(bearer(PEER, key[i]), ERR_AUTH);
		CHECK_OK(bearer(PEER, key[3]));
		CHECK_OK(bearer(PEER, key[4]));
		ONE("SELECT count(*) FROM api_keys WHERE revoked_at = 7", 1);
		/* one that an earlier release revoked alone */
		snprintf(id, sizeof(id), "%lld", (long long)ids[3]);
		CHECK_OK(DB_EXEC(w.sc.a.db, "UPDATE api_keys SET revoked_at = 7 WHERE id = ?1", DBI(ids[3])));
		call("DELETE", id);
		CHECK_ERR(bearer(PEER, key[4]), ERR_AUTH);
	}
	end();
}

/* ---- pages ------------------------------------------------------------------------------------------- */

#define PAGE "Origin: http://localhost\r\n"

/* What the page of that principal gets: false under a fault. */
static bool
log_in(void)
{
	const struct json *v = call_at(session_routes, "POST", "/v1/session", "");
	const char *line = strstr(buf_z(&w.req.fields), "Set-Cookie: "), *value = line ? strchr(line, '=') : NULL;

	w.cookie[0] = w.csrf[0] = '\0';
	CHECK(FAULTED() || (w.req.status == 201 && w.req.revokes && v && value));
	if (v == NULL || value == NULL)
		return false;
	snprintf(w.cookie, sizeof(w.cookie), "%.64s", value + 1);
	snprintf(w.csrf, sizeof(w.csrf), "%.*s", STR_ARG(json_str(v, "csrf_token", STR_NONE)));
	return true;
}

static enum err
page(const char *line, const char *fields)
{
	char all[1024];

	snprintf(all, sizeof(all), "Cookie: blufio_session=%s\r\n%s", w.cookie, fields);
	return ask(PEER, line, all);
}

static enum err
page_with(const char *line, const char *csrf, const char *fields)
{
	char all[512];

	snprintf(all, sizeof(all), "X-CSRF-Token: %s\r\n%s", csrf, fields);
	return page(line, all);
}

TEST(a_session)
{
	char key[96], was;
	int64_t id;

	if (begin(NULL)) {
		id = mint(SCOPE_CHAT | SCOPE_READ, 0, 0, key);
		as(id, SCOPE_CHAT | SCOPE_READ, 0);
		CHECK(log_in() || FAULTED());
		CHECK(FAULTED() || strstr(w.req.fields.p, "; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict\r\n"));
		CHECK(FAULTED() || (strlen(w.csrf) == 64 && strcmp(w.csrf, w.cookie) != 0));
		CHECK(FAULTED() || one("SELECT count(*) FROM logins WHERE hash <> ''") == 1);
		CHECK_OK(page("GET /v1/sessions", ""));
		CHECK(FAULTED() || (w.who.id == id && w.who.login == 1 && w.who.scopes == (SCOPE_CHAT | SCOPE_READ) &&
		    w.who.expires_at == START * US_PER_S + SESSION_US && !w.who.hashed));
		CHECK_OK(page("HEAD /v1/sessions", PAGE));
		/* a page of somebody else's reads nothing, and changes nothing whatever it shows */
		CHECK_ERR(page("GET /v1/sessions", "Origin: http://evil.example\r\n"), ERR_DENIED);
		CHECK(told("the pages of its own address"));
		CHECK_ERR(page_with("POST /v1/messages", w.csrf, "Origin: http://localhost:1\r\n"), ERR_DENIED);
		CHECK_ERR(page_with("POST /v1/messages", w.csrf, "Origin: null\r\n"), ERR_DENIED);
		CHECK_ERR(page_with("POST /v1/messages", w.csrf, "Origin: http://localhost.evil.example\r\n"), ERR_DENIED);
		CHECK_ERR(page_with("POST /v1/messages", w.csrf, ""), ERR_DENIED);
		/* nor does ours without the token */
		CHECK_ERR(page("POST /v1/messages", PAGE), ERR_DENIED);
		CHECK(told("X-CSRF-Token"));
		CHECK_ERR(page_with("DELETE /v1/sessions/1", w.cookie, PAGE), ERR_DENIED);
		CHECK_ERR(page("GET /ws", PAGE "Connection: Upgrade\r\nUpgrade: websocket\r\n"), ERR_DENIED);
		for (size_t i = 0; i < 64; i++) {
			was = w.csrf[i];
			w.csrf[i] = was == '0' ? '1' : '0';
			CHECK_ERR(page_with("POST /v1/messages", w.csrf, PAGE), ERR_DENIED);
			w.csrf[i] = was;
		}
		CHECK_OK(page_with("POST /v1/messages", w.csrf, PAGE));
		CHECK_OK(page_with("DELETE /v1/sessions/1", w.csrf, PAGE));
		/* what is said goes before what is sent unasked */
		CHECK_ERR(page("GET /", "Authorization: Bearer x\r\n"), ERR_AUTH);
		CHECK_ERR(page("GET /", "Blufio-Device: x\r\n"), ERR_AUTH);
		for (int i = 0; i < 2 * TRIES_MAX; i++)         /* and is nobody's wrong try */
			CHECK_ERR(ask(PEER, "GET /", "Cookie: blufio_session=x\r\n"), ERR_AUTH);
		CHECK(told("the session is over"));
		pass(12 * 3600 - 1);
		CHECK_OK(page("GET /", ""));
		pass(1);
		CHECK_ERR(page("GET /", ""), ERR_AUTH);
		CHECK(log_in() || FAULTED());
		ONE("SELECT count(*) FROM logins", 1);          /* the old one is swept */
		CHECK_OK(page("GET /", ""));
		pass(-1);                                       /* the clock is set back: longer than it may live */
		CHECK_ERR(page("GET /", ""), ERR_AUTH);
	}
	end();
}

TEST(a_session_and_its_credential)
{
	char key[96], cookie[65];
	int64_t id;

	if (begin(TOKEN)) {
		id = mint(SCOPE_READ, 100, 2, key);
		as(id, SCOPE_READ, 100);
		CHECK(log_in() || FAULTED());
		CHECK(FAULTED() || strstr(w.req.fields.p, "Max-Age=100;"));
		CHECK_OK(page("GET /", ""));
		CHECK(w.who.expires_at == (START + 100) * US_PER_S || FAULTED());
		CHECK_OK(bearer(PEER, key));
		CHECK_ERR(page("GET /", ""), ERR_LIMIT);        /* one rate */
		pass(99);
		CHECK_OK(page("GET /", ""));
		pass(1);
		CHECK_ERR(page("GET /", ""), ERR_AUTH);
		as(mint(SCOPE_READ, 0, 0, key), SCOPE_READ, 0);
		CHECK(log_in() || FAULTED());
		CHECK_OK(page("GET /", ""));
		CHECK_OK(store_api_key_revoke(w.sc.a.db, w.req.who.id));
		CHECK_ERR(page("GET /", ""), ERR_AUTH);
		CHECK(told("the session is over"));
		/* of a token that is no longer configured */
		CHECK_OK(bearer(PEER, TOKEN));
		as(w.who.id, SCOPE_ALL, 0);
		CHECK(log_in() || FAULTED());
		CHECK_OK(page("GET /", ""));
		snprintf(cookie, sizeof(cookie), "%s", w.cookie);
		CHECK_OK(start("another0Zr5Tt1bYw8LmN2pAe"));
		CHECK_ERR(w.kp ? page("GET /", "") : ERR_AUTH, ERR_AUTH);
		CHECK_OK(start(NULL));
		CHECK_ERR(w.kp ? page("GET /", "") : ERR_AUTH, ERR_AUTH);
		CHECK_OK(start(TOKEN));
		CHECK_OK(w.kp ? page("GET /", "") : OK);
		/* what is stored opens nothing */
		CHECK(FAULTED() || one("SELECT count(*) FROM logins WHERE length(hash) <> 64") == 0);
		store_secret_hash(str_z(cookie), w.cookie);
		CHECK_ERR(w.kp ? page("GET /", "") : ERR_AUTH, ERR_AUTH);
		snprintf(w.cookie, sizeof(w.cookie), "%s", w.csrf);
		CHECK_ERR(w.kp ? page("GET /", "") : ERR_AUTH, ERR_AUTH);
	}
	end();
}

TEST(routes_of_a_session)
{
	char key[96], csrf[65];
	const struct json *v;
	struct buf cookie = BUF_INIT(256);

	if (begin(NULL)) {
		as(mint(SCOPE_ALL, 0, 0, key), SCOPE_ALL, 0);
		call_at(session_routes, "GET", "/v1/session", "");
		CHECK(refused(409, "conflict", "", "not in a session"));
		call_at(session_routes, "DELETE", "/v1/session", "");
		CHECK(refused(409, "conflict", "", "not in a session"));
		call_at(session_routes, "POST", "/v1/session", "{\"scopes\":1}");
		CHECK(refused(400, "invalid_request", "", "no object"));
		call_at(session_routes, "POST", "/v1/session/ticket", "[]");
		CHECK(refused(400, "invalid_request", "", "no object"));
		ONE("SELECT count(*) FROM logins", 0);
		CHECK(log_in() || FAULTED());
		CHECK_OK(page("GET /", ""));
		snprintf(csrf, sizeof(csrf), "%s", w.csrf);
		w.req.who = w.who;
		buf_fmt(&cookie, "Cookie: blufio_session=%s\r\n", w.cookie);
		w.req.head.fields = buf_view(&cookie);
		v = call_at(session_routes, "GET", "/v1/session", "");
		CHECK(FAULTED() || (w.req.status == 200 && str_eqz(json_str(v, "csrf_token", STR_NONE), csrf) &&
		    json_i64(v, "expires_at", 0) == START + 12 * 3600));
		CHECK(FAULTED() || strcmp(buf_z(&w.req.fields), "Cache-Control: no-store\r\n") == 0);
		call_at(session_routes, "POST", "/v1/session", "");
		CHECK(refused(403, "forbidden", "", "with the credential itself"));
		call_at(session_routes, "DELETE", "/v1/session", "");
		CHECK(FAULTED() || (w.req.status == 204 && w.req.revokes));
		CHECK(FAULTED() || strstr(buf_z(&w.req.fields), "Set-Cookie: blufio_session=; Path=/; Max-Age=0; HttpOnly;"));
		CHECK_ERR(page("GET /", ""), ERR_AUTH);
		w.req.who.login = 0;
		/* by a name that others can reach: for TLS, and nobody else's to set */
		w.req.head.host = S("agent.example");
		CHECK(log_in() || FAULTED());
		CHECK(FAULTED() || strstr(w.req.fields.p, "Set-Cookie: __Host-blufio_session="));
		CHECK(FAULTED() || strstr(w.req.fields.p, "; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure\r\n"));
		buf_reset(&cookie);
		buf_fmt(&cookie, "Host: agent.example\r\nCookie: __Host-blufio_session=%s\r\nX-CSRF-Token: %s\r\nOrigin: ", w.cookie,
		    w.csrf);
		buf_puts(&cookie, "https://agent.example\r\n");
		CHECK_OK(ask(PEER, "POST /", buf_z(&cookie)));
		buf_cut(&cookie, cookie.n > 23 ? cookie.n - 23 : 0);
		buf_puts(&cookie, "http://agent.example\r\n");
		CHECK_ERR(ask(PEER, "POST /", buf_z(&cookie)), ERR_DENIED);
		buf_reset(&cookie);
		buf_fmt(&cookie, "Host: agent.example\r\nCookie: blufio_session=%s\r\n", w.cookie);
		CHECK_ERR(ask(PEER, "GET /", buf_z(&cookie)), ERR_AUTH);
		CHECK_ERR(page("GET /", "Cookie: a=b\r\n"), ERR_AUTH);         /* two fields */
	}
	buf_free(&cookie);
	end();
}

static enum err
socket_with(const char *protocols)
{
	char fields[512];

	snprintf(fields, sizeof(fields), "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: %s\r\n", protocols);
	return ask(PEER, "GET /ws", fields);
}

/* "blufio.ticket.…" of that principal. */
static const char *
ticket(void)
{
	static char text[256];
	const struct json *v = call_at(session_routes, "POST", "/v1/session/ticket", "{}");

	CHECK(w.req.status == 201 || FAULTED());
	snprintf(text, sizeof(text), "blufio, blufio.ticket.%.*s", STR_ARG(json_str(v, "ticket", STR_NONE)));
	return text;
}

TEST(a_ticket)
{
	char key[96], two[512];
	const char *t;
	int64_t id;

	if (begin(NULL)) {
		id = mint(SCOPE_CHAT, 0, 0, key);
		as(id, SCOPE_CHAT, 0);
		CHECK_OK(db_commit(w.sc.a.db));
		t = ticket();
		CHECK_OK(db_commit(w.sc.a.db));
		CHECK_OK(socket_with(t));
		CHECK(FAULTED() || (w.who.id == id && w.who.login == 0 && w.who.expires_at == 0 && w.who.scopes == SCOPE_CHAT));
		db_rollback(w.sc.a.db);                         /* it never happened … */
		CHECK_OK(socket_with(t));                       /* … and now it did */
		CHECK_ERR(socket_with(t), ERR_AUTH);
		CHECK(told("the ticket is not valid: it is good for one socket and 30 s; next: POST /v1/session/ticket"));
		t = ticket();
		snprintf(two, sizeof(two), "%s, %s", t, t + 8);
		CHECK_ERR(socket_with(two), ERR_AUTH);          /* which of the two? */
		CHECK(told("a credential is needed"));
		snprintf(two, sizeof(two), "Sec-WebSocket-Protocol: %s\r\n", t);
		CHECK_ERR(ask(PEER, "GET /ws", two), ERR_AUTH);
		CHECK(told("a credential is needed"));
		snprintf(two, sizeof(two), "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: %s\r\n", t);
		CHECK_ERR(ask(PEER, "GET /v1/tools", two), ERR_AUTH);
		CHECK(told("a credential is needed"));
		pass(29);
		CHECK_OK(socket_with(t));
		t = ticket();
		pass(30);
		CHECK_ERR(socket_with(t), ERR_AUTH);
		t = ticket();
		pass(-1);                                       /* longer than it may live */
		CHECK_ERR(socket_with(t), ERR_AUTH);
		as(mint(SCOPE_CHAT, 10, 0, key), SCOPE_CHAT, 10);       /* not beyond its credential */
		pass(9 - w.now / US_PER_S);
		t = ticket();
		CHECK_OK(socket_with(t));
		CHECK(w.who.expires_at == (START + 10) * US_PER_S || FAULTED());
		t = ticket();
		pass(1);
		CHECK_ERR(socket_with(t), ERR_AUTH);
		pass(400);
		for (int i = 0; i < TRIES_MAX; i++)
			CHECK_ERR(socket_with("blufio.ticket.x"), ERR_AUTH);
		CHECK_ERR(socket_with("blufio.ticket.x"), ERR_LIMIT);
	}
	end();
}

/* A page's ticket is the page's: it ends with its session, as does what it opened. */
TEST(a_ticket_of_a_session)
{
	char key[96];
	const char *t;
	bool holds = false;

	if (begin(NULL)) {
		as(mint(SCOPE_CHAT, 0, 0, key), SCOPE_CHAT, 0);
		CHECK(log_in() || FAULTED());
		CHECK_OK(page("GET /", ""));
		w.req.who = w.who;
		t = ticket();
		CHECK_OK(socket_with(t));
		CHECK(FAULTED() || (w.who.login == 1 && w.who.expires_at == START * US_PER_S + SESSION_US));
		CHECK_OK(store_api_key_holds(w.sc.a.db, w.req.who.id, 1, &holds));
		CHECK(holds || FAULTED());
		t = ticket();
		CHECK_OK(store_login_end(w.sc.a.db, 1));
		CHECK_ERR(socket_with(t), ERR_AUTH);
		CHECK_OK(store_api_key_holds(w.sc.a.db, w.req.who.id, 1, &holds));
		CHECK(!holds || FAULTED());
		CHECK_OK(store_api_key_holds(w.sc.a.db, w.req.who.id, 0, &holds));
		CHECK(holds || FAULTED());
		/* the number of a session that is over is nobody's again */
		CHECK_OK(DB_EXEC(w.sc.a.db, "DELETE FROM logins WHERE id > ?1", DBI(0)));
		w.req.who.login = 0;
		CHECK(log_in() || FAULTED());
		CHECK(FAULTED() || one("SELECT max(id) FROM logins") > 3);
		CHECK_OK(store_api_key_revoke(w.sc.a.db, w.req.who.id));
		CHECK_OK(store_api_key_holds(w.sc.a.db, w.req.who.id, 0, &holds));
		CHECK(!holds || FAULTED());
	}
	end();
}

TEST(logins_are_limited)
{
	char key[96], first[65], second[65];

	if (begin(NULL)) {
		as(mint(SCOPE_CHAT, 0, 0, key), SCOPE_CHAT, 0);
		CHECK(log_in() || FAULTED());
		as(mint(SCOPE_CHAT, 0, 0, key), SCOPE_CHAT, 0);
		CHECK(log_in() || FAULTED());
		memcpy(first, w.cookie, sizeof(first));
		CHECK(log_in() || FAULTED());
		memcpy(second, w.cookie, sizeof(second));
		for (int i = 0; i < 2 * LOGINS_MAX; i++)
			ticket();
		for (int i = 2; i < LOGINS_MAX; i++)
			CHECK(log_in() || FAULTED());
		memcpy(w.cookie, first, sizeof(first));
		CHECK_OK(page("GET /", ""));
		CHECK(log_in() || FAULTED());
		CHECK_OK(page("GET /", ""));
		memcpy(w.cookie, first, sizeof(first));
		CHECK_ERR(page("GET /", ""), ERR_AUTH);
		memcpy(w.cookie, second, sizeof(second));
		CHECK_OK(page("GET /", ""));
		ONE("SELECT count(*) FROM logins WHERE kind = 0", LOGINS_MAX + 1);
		ONE("SELECT count(*) FROM logins WHERE kind = 1", LOGINS_MAX);
		ONE("SELECT count(*) FROM logins WHERE id = 1", 1);
	}
	end();
}

/* ---- the first key ------------------------------------------------------------------------------------- */

TEST(the_first_key)
{
	char key[96];

	if (begin(NULL)) {
		ONE("SELECT count(*) FROM api_keys", 0);        /* nobody saw it start */
		w.terminal = true;
		CHECK_OK(start(TOKEN));
		ONE("SELECT count(*) FROM api_keys", 0);
		CHECK_OK(start(NULL));
		ONE("SELECT count(*) FROM api_keys WHERE name = 'first' AND kind = 0 AND scopes = 15 AND minted_by = 0", 1);
		/* shown after the commit; here nothing commits */
		CHECK(FAULTED() || w.sc.a.after.head == &w.kp->show);
		snprintf(key, sizeof(key), "%s", w.kp ? buf_z(&w.kp->first) : "");
		CHECK_OK(w.kp ? bearer(PEER, key) : OK);
		CHECK_OK(start(NULL));
		CHECK(w.sc.a.after.head == NULL);
		ONE("SELECT count(*) FROM api_keys", 1);
		CHECK_OK(DB_EXEC(w.sc.a.db, "UPDATE api_keys SET revoked_at = ?1", DBI(1)));
		CHECK_OK(start(NULL));
		ONE("SELECT count(*) FROM api_keys", 1);
	}
	end();
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));       /* a fault may have met it */
	RUN(a_signed_request);
	RUN(a_changed_request);
	RUN(headers_that_are_none);
	RUN(a_clock_that_is_wrong);
	RUN(a_replay);
	RUN(a_late_replay);
	RUN(no_credential);
	RUN(a_key);
	RUN(what_is_stored_is_no_key);
	RUN(used_at);
	RUN(the_token);
	RUN(a_token_that_can_be_guessed);
	RUN(wrong_tries);
	RUN(many_addresses);
	RUN(the_rate_of_a_key);
	RUN(keys_are_made);
	RUN(devices_are_registered);
	RUN(a_key_never_exceeds_its_maker);
	RUN(wishes_that_are_none);
	RUN(a_revoked_key_takes_those_it_made);
	RUN(a_session);
	RUN(a_session_and_its_credential);
	RUN(routes_of_a_session);
	RUN(a_ticket);
	RUN(a_ticket_of_a_session);
	RUN(logins_are_limited);
	RUN(the_first_key);
	log_close();
	return TEST_END();
}
