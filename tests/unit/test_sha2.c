/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_sha2.c - SHA-256: the vectors of RFC 6234, NIST's, and that neither the
 * way the input is cut nor where it lies matters.
 */
#include "test.h"

#include "crypto/sha2.h"

#define FILE_MAX ((size_t)1 << 20)
#define MONTE_COUNTS 100        /* NIST's */

static void
digest(const void *p, size_t n, unsigned char out[SHA256_SIZE])
{
	struct sha256 h;

	sha256_init(&h);
	sha256_update(&h, p, n);
	sha256_final(&h, out);
}

static void
check_hex(const unsigned char out[SHA256_SIZE], const char *want)
{
	struct buf hex = BUF_INIT(2 * SHA256_SIZE);

	enc_hex(&hex, out, SHA256_SIZE);
	CHECK_OK(hex.err);
	if (hex.err == OK)
		CHECK_STR(buf_view(&hex), want);
	buf_free(&hex);
}

/* RFC 6234 section 8.5: the tests of whole bytes, each text repeated. */
TEST(rfc6234)
{
	static const struct {
		struct str text;
		unsigned repeat;
		const char *want;
	} cases[] = {
		{ { "abc", 3 }, 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
		{ { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56 }, 1,
		    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
		{ { "a", 1 }, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0" },
		{ { "0123456701234567012345670123456701234567012345670123456701234567", 64 }, 10,
		    "594847328451bdfa85056225462cc1d867d877fb388df0ce35f25ab5562bfbb5" },
		{ { "\x19", 1 }, 1, "68aa2e2ee5dff96e3355e6c7ee373e3d6a4e17f75f9518d843709c0c9bc3e3d4" },
		{ { "\xe3\xd7\x25\x70\xdc\xdd\x78\x7c\xe3\x88\x7a\xb2\xcd\x68\x46\x52", 16 }, 1,
		    "175ee69b02ba9b58e2b0a5fd13819cea573f3940a94f825128cf4209beabb4e8" },
		{ { NULL, 0 }, 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		unsigned char out[SHA256_SIZE];
		struct sha256 h;

		sha256_init(&h);
		for (unsigned k = 0; k < cases[i].repeat; k++)
			sha256_update(&h, cases[i].text.p, cases[i].text.n);
		sha256_final(&h, out);
		check_hex(out, cases[i].want);
	}
}

/* Cut in two at every position, and byte by byte, from memory of exactly its size at any address. */
TEST(split)
{
	for (size_t n = 0; n <= 4 * SHA256_BLOCK + 1 && !FAULTED(); n += n < 130 ? 1 : 63) {
		unsigned char whole[SHA256_SIZE], out[SHA256_SIZE];
		unsigned char *p = malloc(n + 1 + n % 8), *text = p ? p + 1 + n % 8 : NULL;
		struct sha256 h;

		CHECK(p != NULL);
		if (!p)
			break;
		for (size_t i = 0; i < n; i++)
			text[i] = (unsigned char)(i * 7 + n);
		digest(text, n, whole);
		for (size_t cut = 0; cut <= n; cut++) {
			sha256_init(&h);
			sha256_update(&h, text, cut);
			sha256_update(&h, text + cut, n - cut);
			sha256_final(&h, out);
			CHECK(memcmp(out, whole, sizeof(out)) == 0);
		}
		sha256_init(&h);
		for (size_t i = 0; i < n; i++)
			sha256_update(&h, text + i, 1);
		sha256_final(&h, out);
		CHECK(memcmp(out, whole, sizeof(out)) == 0);
		free(p);
	}
}

/* A length whose bits do not fit in 32: the padding says so. (Checked against another program.) */
TEST(large)
{
	static const unsigned char zeros[1 << 16];
	unsigned char out[SHA256_SIZE];
	struct sha256 h;

	sha256_init(&h);
	/* As if 2^32 bytes had gone by and had left the state as it was. */
	h.n = (uint64_t)1 << 32;
	sha256_update(&h, zeros, 0);
	sha256_final(&h, out);
	check_hex(out, "7ccf0d399639597c6ac9bd868695ea3bdcba23e33da8cb4e089e20cdff2e3300");
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
check_messages(const char *path)
{
	struct buf text = BUF_INIT(FILE_MAX), msg = BUF_INIT(FILE_MAX), want = BUF_INIT(SHA256_SIZE);
	struct str rest, name, value;
	unsigned char out[SHA256_SIZE];
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
			digest(msg.p, msg.n, out);
			CHECK(FAULTED() || str_eq(buf_view(&want), str_make((const char *)out, sizeof(out))));
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
	static const struct { const char *sub; unsigned at_least; } files[] = {
		{ "crypto/cavp-sha2/SHA256ShortMsg.rsp", 40 }, { "crypto/cavp-sha2/SHA256LongMsg.rsp", 40 }
	};

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		const char *path = test_data(files[i].sub);
		unsigned cases;

		if (!path) {
			SKIP("no conformance data");
			return;
		}
		cases = check_messages(path);
		if (!FAULTED())
			printf("sha2: %u messages\n", cases);
		CHECK(cases >= files[i].at_least);
	}
}

/* One count of the SHA2 validation system's Monte Carlo test: a thousand digests of the last three. */
static void
monte(unsigned char seed[SHA256_SIZE])
{
	unsigned char md[3 * SHA256_SIZE], next[SHA256_SIZE];

	for (int i = 0; i < 3; i++)
		memcpy(md + (size_t)i * SHA256_SIZE, seed, SHA256_SIZE);
	for (int i = 0; i < 1000; i++) {
		digest(md, sizeof(md), next);
		memmove(md, md + SHA256_SIZE, 2 * SHA256_SIZE);
		memcpy(md + 2 * SHA256_SIZE, next, SHA256_SIZE);
	}
	memcpy(seed, next, SHA256_SIZE);
}

/* Not every count need be in the file; all are computed. */
TEST(nist_monte)
{
	const char *path = test_data("crypto/cavp-sha2/SHA256Monte.rsp");
	struct buf text = BUF_INIT(FILE_MAX), bytes = BUF_INIT(SHA256_SIZE);
	struct str rest, name, value;
	unsigned char seed[SHA256_SIZE] = { 0 };
	int64_t count = -1, done = -1;
	unsigned cases = 0;

	if (!path) {
		SKIP("no conformance data");
		return;
	}
	CHECK_OK(file_read(path, FILE_MAX, &text, NULL));
	rest = buf_view(&text);
	while (next_pair(&rest, &name, &value) && !FAULTED()) {
		if (str_eqz(name, "COUNT")) {
			CHECK_OK(str_i64(value, 0, MONTE_COUNTS - 1, &count));
		} else if (str_eqz(name, "Seed") || str_eqz(name, "MD")) {
			buf_reset(&bytes);
			CHECK_OK(dec_hex(value, &bytes));
			CHECK(bytes.n == SHA256_SIZE);
			if (bytes.n < SHA256_SIZE)
				break;
			for (; done < count; done++)
				monte(seed);
			if (name.n == 4)        /* "Seed" */
				memcpy(seed, bytes.p, SHA256_SIZE);
			CHECK(memcmp(bytes.p, seed, SHA256_SIZE) == 0);
			cases += name.n == 2;
		}
	}
	if (!FAULTED())
		printf("sha2: %u Monte Carlo counts\n", cases);
	CHECK(cases >= 50);
	buf_free(&bytes);
	buf_free(&text);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(rfc6234);
	RUN(split);
	RUN(large);
	RUN(nist_messages);
	RUN(nist_monte);
	return TEST_END();
}
