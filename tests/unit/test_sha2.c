/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_sha2.c - SHA-256 and SHA-512: the vectors of RFC 6234, NIST's, and that
 * neither the way the input is cut nor where it lies matters.
 */
#include "test.h"

#include "crypto/sha2.h"

#define FILE_MAX ((size_t)2 << 20)
#define DIGEST_MAX SHA512_SIZE
#define MONTE_COUNTS 100        /* NIST's */

/* Both algorithms behind the same four words. */
union state {
	struct sha256 s256;
	struct sha512 s512;
};
struct hash {
	const char *name;
	size_t size, block;
	void (*init)(union state *h);
	void (*update)(union state *h, const void *p, size_t n);
	void (*final)(union state *h, unsigned char *out);
};
#define HASH(bits) \
	static void init##bits(union state *h) { sha##bits##_init(&h->s##bits); } \
	static void update##bits(union state *h, const void *p, size_t n) { sha##bits##_update(&h->s##bits, p, n); } \
	static void final##bits(union state *h, unsigned char *out) { sha##bits##_final(&h->s##bits, out); } \
	static const struct hash hash##bits = { "SHA" #bits, SHA##bits##_SIZE, SHA##bits##_BLOCK, \
	    init##bits, update##bits, final##bits }
HASH(256);
HASH(512);

static void
digest(const struct hash *a, const void *p, size_t n, unsigned char *out)
{
	union state h;

	a->init(&h);
	a->update(&h, p, n);
	a->final(&h, out);
}

static void
check_hex(const struct hash *a, const unsigned char *out, const char *want)
{
	struct buf hex = BUF_INIT(2 * DIGEST_MAX);

	enc_hex(&hex, out, a->size);
	CHECK_OK(hex.err);
	if (hex.err == OK)
		CHECK_STR(buf_view(&hex), want);
	buf_free(&hex);
}

/* RFC 6234 section 8.5: the tests of whole bytes, each text repeated. */
TEST(rfc6234)
{
	static const struct {
		const struct hash *hash;
		struct str text;
		unsigned repeat;
		const char *want;
	} cases[] = {
		{ &hash256, { "abc", 3 }, 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
		{ &hash256, { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56 }, 1,
		    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
		{ &hash256, { "a", 1 }, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0" },
		{ &hash256, { "0123456701234567012345670123456701234567012345670123456701234567", 64 }, 10,
		    "594847328451bdfa85056225462cc1d867d877fb388df0ce35f25ab5562bfbb5" },
		{ &hash256, { "\x19", 1 }, 1, "68aa2e2ee5dff96e3355e6c7ee373e3d6a4e17f75f9518d843709c0c9bc3e3d4" },
		{ &hash256, { "\xe3\xd7\x25\x70\xdc\xdd\x78\x7c\xe3\x88\x7a\xb2\xcd\x68\x46\x52", 16 }, 1,
		    "175ee69b02ba9b58e2b0a5fd13819cea573f3940a94f825128cf4209beabb4e8" },
		{ &hash256, { NULL, 0 }, 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
		{ &hash512, { "abc", 3 }, 1, "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
		    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f" },
		{ &hash512, { "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
		    "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu", 112 }, 1,
		    "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
		    "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909" },
		{ &hash512, { "a", 1 }, 1000000, "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
		    "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b" },
		{ &hash512, { "0123456701234567012345670123456701234567012345670123456701234567", 64 }, 10,
		    "89d05ba632c699c31231ded4ffc127d5a894dad412c0e024db872d1abd2ba814"
		    "1a0f85072a9be1e2aa04cf33c765cb510813a39cd5a84c4acaa64d3f3fb7bae9" },
		{ &hash512, { "\xd0", 1 }, 1, "9992202938e882e73e20f6b69e68a0a7149090423d93c81bab3f21678d4aceee"
		    "e50e4e8cafada4c85a54ea8306826c4ad6e74cece9631bfa8a549b4ab3fbba15" },
		{ &hash512, { "\x8d\x4e\x3c\x0e\x38\x89\x19\x14\x91\x81\x6e\x9d\x98\xbf\xf0\xa0", 16 }, 1,
		    "cb0b67a4b8712cd73c9aabc0b199e9269b20844afb75acbdd1c153c9828924c3"
		    "ddedaafe669c5fdd0bc66f630f6773988213eb1b16f517ad0de4b2f0c95c90f8" },
		{ &hash512, { NULL, 0 }, 1, "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
		    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		unsigned char out[DIGEST_MAX];
		union state h;

		cases[i].hash->init(&h);
		for (unsigned k = 0; k < cases[i].repeat; k++)
			cases[i].hash->update(&h, cases[i].text.p, cases[i].text.n);
		cases[i].hash->final(&h, out);
		check_hex(cases[i].hash, out, cases[i].want);
	}
}

/* Cut in two at every position, and byte by byte, from memory of exactly its size at any address. */
static void
check_split(const struct hash *a)
{
	for (size_t n = 0; n <= 4 * a->block + 1 && !FAULTED(); n += n < 2 * a->block + 2 ? 1 : a->block - 1) {
		unsigned char whole[DIGEST_MAX], out[DIGEST_MAX];
		unsigned char *p = malloc(n + 1 + n % 8), *text = p ? p + 1 + n % 8 : NULL;
		union state h;

		CHECK(p != NULL);
		if (!p)
			break;
		for (size_t i = 0; i < n; i++)
			text[i] = (unsigned char)(i * 7 + n);
		digest(a, text, n, whole);
		for (size_t cut = 0; cut <= n; cut++) {
			a->init(&h);
			a->update(&h, text, cut);
			a->update(&h, text + cut, n - cut);
			a->final(&h, out);
			CHECK(memcmp(out, whole, a->size) == 0);
		}
		a->init(&h);
		for (size_t i = 0; i < n; i++)
			a->update(&h, text + i, 1);
		a->final(&h, out);
		CHECK(memcmp(out, whole, a->size) == 0);
		free(p);
	}
}

TEST(split)
{
	check_split(&hash256);
	check_split(&hash512);
}

/* A length whose bits do not fit in 32, or 64: the padding says so. (Checked against other programs.) */
TEST(large)
{
	static const unsigned char zeros[1 << 16];
	unsigned char out[DIGEST_MAX];
	union state h;

	hash256.init(&h);
	/* As if so many bytes had gone by and had left the state as it was. */
	h.s256.n = (uint64_t)1 << 32;
	hash256.update(&h, zeros, 0);
	hash256.final(&h, out);
	check_hex(&hash256, out, "7ccf0d399639597c6ac9bd868695ea3bdcba23e33da8cb4e089e20cdff2e3300");
	hash512.init(&h);
	h.s512.n = (uint64_t)5 << 61;
	hash512.final(&h, out);
	check_hex(&hash512, out, "9727cac8f5ffce7f51404c755cac1598dac9baff78477afacd805a7a9d0757a1"
	    "02bfd7576d5e9716ca48e2e84070c978066b7ef5f4c11df66955b977acd34556");
}

/* Nothing of what was hashed stays behind. */
TEST(wiped)
{
	static const union state nothing;
	unsigned char out[DIGEST_MAX], secret[3 * SHA512_BLOCK / 2];
	union state h = nothing;

	memset(secret, 0xa5, sizeof(secret));
	hash256.init(&h);
	hash256.update(&h, secret, sizeof(secret));
	hash256.final(&h, out);
	CHECK(memcmp(&h.s256, &nothing, sizeof(h.s256)) == 0);
	hash512.init(&h);
	hash512.update(&h, secret, sizeof(secret));
	hash512.final(&h, out);
	CHECK(memcmp(&h.s512, &nothing, sizeof(h.s512)) == 0);
}

/* ---- NIST's response files: lines "name = value" ---------------------------------- */

static bool
next_pair(struct str *rest, struct str *name, struct str *value)
{
	while (rest->n) {
		struct str line;

		str_cut(rest, '\n', &line);
		if (line.n == 0 || line.p[0] == '#' || !str_cut(&line, '=', name))
			continue;
		*name = str_trim(*name);
		*value = str_trim(line);
		return true;
	}
	return false;
}

/* Messages with their digests; how many there were is counted. */
static unsigned
check_messages(const struct hash *a, const char *path)
{
	struct buf text = BUF_INIT(FILE_MAX), msg = BUF_INIT(FILE_MAX), want = BUF_INIT(DIGEST_MAX);
	struct str rest, name, value;
	unsigned char out[DIGEST_MAX];
	int64_t bits = 0;
	unsigned cases = 0;

	CHECK_OK(file_read(path, FILE_MAX, &text, NULL));
	rest = buf_view(&text);
	while (next_pair(&rest, &name, &value) && !FAULTED()) {
		if (str_eqz(name, "Len")) {
			CHECK_OK(str_i64(value, 0, 8 * (int64_t)FILE_MAX, &bits));
		} else if (str_eqz(name, "Msg")) {
			buf_reset(&msg);
			CHECK_OK(dec_hex(value, &msg));
			/* The empty message is written as "00". */
			CHECK(bits % 8 == 0 && msg.n >= (size_t)bits / 8);
			buf_cut(&msg, (size_t)bits / 8);
		} else if (str_eqz(name, "MD")) {
			buf_reset(&want);
			CHECK_OK(dec_hex(value, &want));
			digest(a, msg.p, msg.n, out);
			CHECK(FAULTED() || str_eq(buf_view(&want), str_make((const char *)out, a->size)));
			cases++;
		}
	}
	buf_free(&want);
	buf_free(&msg);
	buf_free(&text);
	return cases;
}

TEST(nist_messages)
{
	static const struct {
		const struct hash *hash;
		const char *sub;
		unsigned at_least;
	} files[] = {
		{ &hash256, "crypto/cavp-sha2/SHA256ShortMsg.rsp", 40 },
		{ &hash256, "crypto/cavp-sha2/SHA256LongMsg.rsp", 40 },
		{ &hash512, "crypto/cavp-sha2/SHA512ShortMsg.rsp", 80 },
		{ &hash512, "crypto/cavp-sha2/SHA512LongMsg.rsp", 80 },
	};

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		const char *path = test_data(files[i].sub);
		unsigned cases;

		if (!path) {
			SKIP("no conformance data");
			return;
		}
		cases = check_messages(files[i].hash, path);
		if (!FAULTED())
			printf("sha2: %s: %u messages\n", files[i].hash->name, cases);
		CHECK(cases >= files[i].at_least);
	}
}

/* One count of the SHA2 validation system's Monte Carlo test: a thousand digests of the last three. */
static void
monte(const struct hash *a, unsigned char *seed)
{
	unsigned char md[3 * DIGEST_MAX], next[DIGEST_MAX];

	for (size_t i = 0; i < 3; i++)
		memcpy(md + i * a->size, seed, a->size);
	for (int i = 0; i < 1000; i++) {
		digest(a, md, 3 * a->size, next);
		memmove(md, md + a->size, 2 * a->size);
		memcpy(md + 2 * a->size, next, a->size);
	}
	memcpy(seed, next, a->size);
}

/* Not every count need be in the file; all are computed. */
static void
check_monte(const struct hash *a, const char *path)
{
	struct buf text = BUF_INIT(FILE_MAX), bytes = BUF_INIT(DIGEST_MAX);
	struct str rest, name, value;
	unsigned char seed[DIGEST_MAX] = { 0 };
	int64_t count = -1, done = -1;
	unsigned cases = 0;

	CHECK_OK(file_read(path, FILE_MAX, &text, NULL));
	rest = buf_view(&text);
	while (next_pair(&rest, &name, &value) && !FAULTED()) {
		if (str_eqz(name, "COUNT")) {
			CHECK_OK(str_i64(value, 0, MONTE_COUNTS - 1, &count));
		} else if (str_eqz(name, "Seed") || str_eqz(name, "MD")) {
			buf_reset(&bytes);
			CHECK_OK(dec_hex(value, &bytes));
			CHECK(bytes.n == a->size);
			if (bytes.n < a->size)
				break;
			for (; done < count; done++)
				monte(a, seed);
			if (name.n == 4)        /* "Seed" */
				memcpy(seed, bytes.p, a->size);
			CHECK(memcmp(bytes.p, seed, a->size) == 0);
			cases += name.n == 2;
		}
	}
	if (!FAULTED())
		printf("sha2: %s: %u Monte Carlo counts\n", a->name, cases);
	CHECK(cases >= 50);
	buf_free(&bytes);
	buf_free(&text);
}

TEST(nist_monte)
{
	const char *path256 = test_data("crypto/cavp-sha2/SHA256Monte.rsp"), *path512;

	if (path256)
		check_monte(&hash256, path256);
	path512 = test_data("crypto/cavp-sha2/SHA512Monte.rsp");
	if (path512)
		check_monte(&hash512, path512);
	if (!path256 || !path512)
		SKIP("no conformance data");
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(rfc6234);
	RUN(split);
	RUN(large);
	RUN(wiped);
	RUN(nist_messages);
	RUN(nist_monte);
	return TEST_END();
}
