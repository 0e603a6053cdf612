/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_ed25519.c - Ed25519: the vectors of RFC 8032, of its author and of
 * Wycheproof, and what a verifier must refuse although the equation holds.
 *
 * Vectors "made for this" come from the formulas of RFC 8032 written down with
 * the big integers of another language.
 */
#include "test.h"

#include "base/json.h"
#include "crypto/ed25519.h"

#define FILE_MAX ((size_t)1 << 20)
#define MSG_MAX ((size_t)4 << 10)

/* The bytes of hex, of which there must be n. */
static bool
unhex(struct str hex, void *out, size_t n)
{
	struct buf b = BUF_INIT(MSG_MAX);
	bool ok = dec_hex(hex, &b) == OK && b.n == n;

	CHECK(ok);
	if (ok)
		memcpy(out, b.p, n);
	buf_free(&b);
	return ok;
}

static struct str
view(const unsigned char *p, size_t n)
{
	return str_make((const char *)p, n);
}

static enum err
verify(const unsigned char *public, struct str msg, const unsigned char *sig)
{
	return ed25519_verify(view(public, ED25519_PUBLIC_SIZE), msg, view(sig, ED25519_SIG_SIZE));
}

/* verify of what is written in hex. */
static enum err
verify_hex(const char *public, struct str msg, const char *sig)
{
	unsigned char a[ED25519_PUBLIC_SIZE], s[ED25519_SIG_SIZE];

	if (!unhex(str_z(public), a, sizeof(a)) || !unhex(str_z(sig), s, sizeof(s)))
		return ERR_NOMEM;
	return verify(a, msg, s);
}

/* Key and signature from seed and message, byte for byte. */
static void
check_sign(struct str seed_hex, struct str public_hex, struct str msg, struct str sig_hex)
{
	unsigned char seed[ED25519_SEED_SIZE], public[ED25519_PUBLIC_SIZE];
	unsigned char want[ED25519_SIG_SIZE], sig[ED25519_SIG_SIZE];
	struct ed25519_key k;

	if (!unhex(seed_hex, seed, sizeof(seed)) || !unhex(public_hex, public, sizeof(public)) ||
	    !unhex(sig_hex, want, sizeof(want)))
		return;
	ed25519_key_init(&k, seed);
	CHECK(memcmp(k.public, public, sizeof(public)) == 0);
	ed25519_sign(&k, msg, sig);
	CHECK(memcmp(sig, want, sizeof(sig)) == 0);
	CHECK_OK(verify(public, msg, sig));
}

/* RFC 8032 section 7.1: tests 1, 2, 3 and SHA(abc). */
TEST(rfc8032)
{
	static const struct {
		const char *seed, *public;
		struct str msg;
		const char *sig;
	} cases[] = {
		{ "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
		  "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", { NULL, 0 },
		  "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
		  "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b" },
		{ "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
		  "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", { "\x72", 1 },
		  "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
		  "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00" },
		{ "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
		  "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", { "\xaf\x82", 2 },
		  "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
		  "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a" },
		{ "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
		  "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
		  { "\xdd\xaf\x35\xa1\x93\x61\x7a\xba\xcc\x41\x73\x49\xae\x20\x41\x31"
		    "\x12\xe6\xfa\x4e\x89\xa9\x7e\xa2\x0a\x9e\xee\xe6\x4b\x55\xd3\x9a"
		    "\x21\x92\x99\x2a\x27\x4f\xc1\xa8\x36\xba\x3c\x23\xa3\xfe\xeb\xbd"
		    "\x45\x4d\x44\x23\x64\x3c\xe8\x0e\x2a\x9a\xc9\x4f\xa5\x4c\xa4\x9f", 64 },
		  "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
		  "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		check_sign(str_z(cases[i].seed), str_z(cases[i].public), cases[i].msg, str_z(cases[i].sig));
}

/* A key of small numbers, for what follows. */
static void
make_key(struct ed25519_key *k)
{
	unsigned char seed[ED25519_SEED_SIZE];

	for (unsigned i = 0; i < sizeof(seed); i++)
		seed[i] = (unsigned char)i;
	ed25519_key_init(k, seed);
}

/* No bit of key, message and signature may be another; no size either. */
TEST(flipped)
{
	char msg[] = "to be signed";
	unsigned char public[ED25519_PUBLIC_SIZE], sig[ED25519_SIG_SIZE], longer[ED25519_SIG_SIZE + 1] = { 0 };
	struct str text = str_make(msg, sizeof(msg) - 1), key = view(public, sizeof(public));
	struct ed25519_key k;

	make_key(&k);
	memcpy(public, k.public, sizeof(public));
	ed25519_sign(&k, text, sig);
	CHECK_OK(verify(public, text, sig));
	for (size_t bit = 0; bit < 8 * sizeof(sig); bit++) {
		sig[bit / 8] ^= (unsigned char)(1u << bit % 8);
		CHECK_ERR(verify(public, text, sig), ERR_AUTH);
		sig[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * sizeof(public); bit++) {
		public[bit / 8] ^= (unsigned char)(1u << bit % 8);
		CHECK_ERR(verify(public, text, sig), ERR_AUTH);
		public[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * text.n; bit++) {
		msg[bit / 8] = (char)(msg[bit / 8] ^ (char)(1u << bit % 8));
		CHECK_ERR(verify(public, text, sig), ERR_AUTH);
		msg[bit / 8] = (char)(msg[bit / 8] ^ (char)(1u << bit % 8));
	}
	memcpy(longer, sig, sizeof(sig));
	CHECK_ERR(ed25519_verify(key, text, view(longer, sizeof(longer))), ERR_AUTH);
	CHECK_ERR(ed25519_verify(key, text, view(sig, sizeof(sig) - 1)), ERR_AUTH);
	CHECK_ERR(ed25519_verify(key, text, STR_NONE), ERR_AUTH);
	memcpy(longer, public, sizeof(public));
	CHECK_ERR(ed25519_verify(view(longer, sizeof(public) + 1), text, view(sig, sizeof(sig))), ERR_AUTH);
	CHECK_ERR(ed25519_verify(view(public, sizeof(public) - 1), text, view(sig, sizeof(sig))), ERR_AUTH);
	CHECK_ERR(ed25519_verify(STR_NONE, text, view(sig, sizeof(sig))), ERR_AUTH);
	CHECK_OK(verify(public, text, sig));
}

/* S + n L fulfils the equation as S does; every one that 256 bits hold is refused. */
TEST(malleable)
{
	static const unsigned char order[32] = {
		0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
		[31] = 0x10
	};
	unsigned char sig[ED25519_SIG_SIZE];
	unsigned tried = 0, carry = 0;
	struct ed25519_key k;

	make_key(&k);
	ed25519_sign(&k, S("once"), sig);
	CHECK_OK(verify(k.public, S("once"), sig));
	while (carry == 0) {
		for (unsigned i = 0; i < sizeof(order); i++) {
			carry += sig[32 + i] + order[i];
			sig[32 + i] = (unsigned char)carry;
			carry >>= 8;
		}
		if (carry == 0) {
			CHECK_ERR(verify(k.public, S("once"), sig), ERR_AUTH);
			tried++;
		}
	}
	CHECK(tried >= 14);
}

/*
 * Under a public key A of small order, R = 0 and S = 0 is a signature of each
 * message whose hash is a multiple of that order: of every eighth at least. The
 * encodings: first the eight there are, then those that only a lenient reader takes.
 */
TEST(small_order)
{
	static const char *const keys[] = {
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"0100000000000000000000000000000000000000000000000000000000000080",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	};
	unsigned char public[ED25519_PUBLIC_SIZE], sig[ED25519_SIG_SIZE] = { 1 };

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (!unhex(str_z(keys[i]), public, sizeof(public)))
			return;
		for (unsigned char n = 0; n < 48; n++)
			CHECK_ERR(verify(public, view(&n, 1), sig), ERR_AUTH);
	}
}

/* Not a y of any point; y = 3 and y = p + 3, of which only the first is an encoding. */
TEST(no_point)
{
	static const char *const keys[] = {
		"0200000000000000000000000000000000000000000000000000000000000000",
		"0700000000000000000000000000000000000000000000000000000000000080",
		"f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	};

	for (size_t i = 0; i < ARRAY_LEN(keys) && !FAULTED(); i++) {
		unsigned char public[ED25519_PUBLIC_SIZE], sig[ED25519_SIG_SIZE] = { 1 };

		if (unhex(str_z(keys[i]), public, sizeof(public)))
			CHECK_ERR(verify(public, S("text"), sig), ERR_AUTH);
	}
}

/*
 * Made for this: R = 0 in its four spellings, S = k a, so that the equation holds
 * for whoever decodes R. Only the first spelling is R.
 */
TEST(spellings_of_r)
{
	static const char public[] = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
	static const char *const bad[] = {
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
		"1adff77ef4489ca3c7f4ba7af376c4204faf6191478cbab85d522f06f30a290d",
		"0100000000000000000000000000000000000000000000000000000000000080"
		"cf001ed323f10e3d7dbf5c02358e524640cf36e09c5cf34d6deeff907ca0c601",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
		"2dcf81fa1a5fb34ebd8b5653cfa3bd62ba1f408d723f6d699310f71931cff70c",
	};

	CHECK_OK(verify_hex(public, S("torsion"),
	    "0100000000000000000000000000000000000000000000000000000000000000"
	    "5e03ff0004dccac31a87cb4394472a8f282af34f4f630c5440610e4e4e7bc501"));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		CHECK_ERR(verify_hex(public, S("torsion"), bad[i]), ERR_AUTH);
}

/*
 * Made for this: a public key with a part of order 8. The factor 8 would make
 * both signatures good; without it the second is none (its k is no multiple of 8).
 */
TEST(no_cofactor)
{
	static const char public[] = "b502ff3d92e31d8190b4aa4ea0414005167fad089c4de9dac8a2fc850fed4f58";

	CHECK_OK(verify_hex(public, S("message 0"),
	    "ef4f62f8479733ad879cfaced3c89a9c39dd4fc795ef2efa1c3eafe4d729a081"
	    "a3bd9c97006d2117b3f495bc0f5114ef06b636bbd9ed973a6e531b94baaf600d"));
	CHECK_ERR(verify_hex(public, S("message 1"),
	    "ef4f62f8479733ad879cfaced3c89a9c39dd4fc795ef2efa1c3eafe4d729a081"
	    "5c35ff8c8fce3b4dee228d2ea0481d2f135ec1182588a301129742a5d6b5020f"), ERR_AUTH);
}

/* ---- files -------------------------------------------------------------------------- */

/* Lines of seed and key, key, message, signature and message: hex with ':' between. */
TEST(sign_input)
{
	const char *path = test_data("crypto/ed25519/sign.input");
	struct buf text = BUF_INIT(FILE_MAX), msg = BUF_INIT(MSG_MAX);
	struct str rest, line, field[4];
	unsigned cases = 0;

	if (!path) {
		SKIP("no conformance data");
		return;
	}
	CHECK_OK(file_read(path, FILE_MAX, &text, NULL));
	rest = buf_view(&text);
	while (rest.n && !FAULTED()) {
		str_cut(&rest, '\n', &line);
		if (line.n == 0)
			continue;
		for (unsigned i = 0; i < ARRAY_LEN(field); i++)
			str_cut(&line, ':', &field[i]);
		buf_reset(&msg);
		CHECK_OK(dec_hex(field[2], &msg));
		if (!FAULTED())
			check_sign(str_sub(field[0], 0, 64), field[1], buf_view(&msg), str_sub(field[3], 0, 128));
		cases++;
	}
	if (!FAULTED())
		printf("ed25519: %u signatures made and verified\n", cases);
	CHECK(cases >= 300);
	buf_free(&msg);
	buf_free(&text);
}

TEST(wycheproof)
{
	const char *path = test_data("crypto/wycheproof/ed25519_test.json");
	struct buf text = BUF_INIT(FILE_MAX), key = BUF_INIT(MSG_MAX), msg = BUF_INIT(MSG_MAX), sig = BUF_INIT(MSG_MAX);
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(FILE_MAX));
	const struct json *file = NULL, *groups;
	unsigned cases = 0;

	if (!path) {
		SKIP("no conformance data");
		return;
	}
	CHECK_OK(file_read(path, FILE_MAX, &text, NULL));
	CHECK_OK(json_parse(&ar, buf_view(&text), &file, NULL));
	groups = json_at(file, "testGroups");
	for (const struct json *g = groups ? groups->first : NULL; g && !FAULTED(); g = g->next) {
		const struct json *tests = json_at(g, "tests");

		buf_reset(&key);
		CHECK_OK(dec_hex(json_str(g, "publicKey.pk", STR_NONE), &key));
		for (const struct json *t = tests ? tests->first : NULL; t && !FAULTED(); t = t->next) {
			struct str result = json_str(t, "result", STR_NONE);
			enum err e;

			buf_reset(&msg);
			buf_reset(&sig);
			CHECK_OK(dec_hex(json_str(t, "msg", STR_NONE), &msg));
			CHECK_OK(dec_hex(json_str(t, "sig", STR_NONE), &sig));
			e = ed25519_verify(buf_view(&key), buf_view(&msg), buf_view(&sig));
			if (!FAULTED() && !str_eqz(result, "acceptable"))
				CHECK(e == (str_eqz(result, "valid") ? OK : ERR_AUTH));
			cases++;
		}
	}
	if (!FAULTED())
		printf("ed25519: %u signatures judged\n", cases);
	CHECK(cases >= 100);
	arena_free(&ar);
	buf_free(&sig);
	buf_free(&msg);
	buf_free(&key);
	buf_free(&text);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(rfc8032);
	RUN(flipped);
	RUN(malleable);
	RUN(small_order);
	RUN(no_point);
	RUN(spellings_of_r);
	RUN(no_cofactor);
	RUN(sign_input);
	RUN(wycheproof);
	return TEST_END();
}
