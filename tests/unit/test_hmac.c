/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_hmac.c - HMAC: vectors of RFC 4231 and of Wycheproof, what a key's length means, wiping. */
#include "test.h"

#include "base/json.h"
#include "crypto/hmac.h"

#define FILE_MAX ((size_t)1 << 20)
#define TAG_MAX SHA512_SIZE

/* Both, in one call. */
struct mac {
	const char *name;
	size_t size, block;
	void (*mac)(struct str key, struct str msg, unsigned char *tag);
	void (*digest)(struct str msg, unsigned char *out);
};
#define MAC(bits) \
	static void mac##bits(struct str key, struct str msg, unsigned char *tag) \
	{ \
		struct hmac##bits m; \
		hmac##bits##_init(&m, key.p, key.n); \
		hmac##bits##_update(&m, msg.p, msg.n); \
		hmac##bits##_final(&m, tag); \
	} \
	static void digest##bits(struct str msg, unsigned char *out) \
	{ \
		struct sha##bits h; \
		sha##bits##_init(&h); \
		sha##bits##_update(&h, msg.p, msg.n); \
		sha##bits##_final(&h, out); \
	} \
	static const struct mac hmac##bits = { "HMAC-SHA-" #bits, SHA##bits##_SIZE, SHA##bits##_BLOCK, \
	    mac##bits, digest##bits }
MAC(256);
MAC(512);
static const struct mac *const both[] = { &hmac256, &hmac512 };

/* Test cases 1, 2, 5 (the shortened tag) and 6 of RFC 4231; no key and no data (checked against another program). */
TEST(rfc4231)
{
	char pad_0b[20], pad_0c[20], pad_aa[131];
	const struct {
		struct str key, msg;
		const char *want[2];    /* a tag may be shortened: its beginning is compared */
	} cases[] = {
		{ { pad_0b, sizeof(pad_0b) }, S("Hi There"), {
		    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
		    "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
		    "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854" } },
		{ S("Jefe"), S("what do ya want for nothing?"), {
		    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
		    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
		    "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737" } },
		{ { pad_0c, sizeof(pad_0c) }, S("Test With Truncation"), {
		    "a3b6167473100ee06e0c796c2955552b", "415fad6271580a531d4179bc891d87a6" } },
		{ { pad_aa, sizeof(pad_aa) }, S("Test Using Larger Than Block-Size Key - Hash Key First"), {
		    "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
		    "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
		    "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598" } },
		{ STR_NONE, STR_NONE, {
		    "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad",
		    "b936cee86c9f87aa5d3c6f2e84cb5a4239a5fe50480a6ec66b70ab5b1f4ac673"
		    "0c6c515421b327ec1d69402e53dfb49ad7381eb067b338fd7b0cb22247225d47" } },
	};
	unsigned char tag[TAG_MAX];

	memset(pad_0b, 0x0b, sizeof(pad_0b));
	memset(pad_0c, 0x0c, sizeof(pad_0c));
	memset(pad_aa, 0xaa, sizeof(pad_aa));
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		for (size_t k = 0; k < ARRAY_LEN(both); k++) {
			struct buf hex = BUF_INIT(2 * TAG_MAX);

			both[k]->mac(cases[i].key, cases[i].msg, tag);
			enc_hex(&hex, tag, strlen(cases[i].want[k]) / 2);
			CHECK_OK(hex.err);
			if (hex.err == OK)
				CHECK_STR(buf_view(&hex), cases[i].want[k]);
			buf_free(&hex);
		}
}

/* A key up to a block is the same with a zero behind it; one beyond is its digest. */
TEST(key_length)
{
	char key[2 * SHA512_BLOCK + 2] = { 0 };

	for (size_t k = 0; k < ARRAY_LEN(both); k++) {
		const struct mac *m = both[k];

		for (size_t n = 0; n <= 2 * m->block; n++) {
			unsigned char tag[TAG_MAX], other[TAG_MAX], digest[TAG_MAX];

			memset(key, 0, sizeof(key));
			memset(key, 'k', n);
			m->mac(str_make(key, n), S("text"), tag);
			m->mac(str_make(key, n + 1), S("text"), other);
			CHECK(hmac_equal(tag, other, m->size) == (n < m->block));
			m->digest(str_make(key, n), digest);
			m->mac(str_make((char *)digest, m->size), S("text"), other);
			CHECK(hmac_equal(tag, other, m->size) == (n > m->block));
		}
	}
}

/* In pieces as at once, and nothing of the key stays behind. */
TEST(pieces_and_wipe)
{
	static const struct hmac256 none256;
	static const struct hmac512 none512;
	struct hmac256 m = none256;
	struct hmac512 w = none512;
	unsigned char tag[TAG_MAX], want[TAG_MAX];

	mac256(S("a key"), S("one two three"), want);
	hmac256_init(&m, "a key", 5);
	hmac256_update(&m, "one ", 4);
	hmac256_update(&m, NULL, 0);
	hmac256_update(&m, "two three", 9);
	hmac256_final(&m, tag);
	CHECK(memcmp(tag, want, SHA256_SIZE) == 0);
	CHECK(memcmp(&m, &none256, sizeof(m)) == 0);

	mac512(S("a key"), S("one two three"), want);
	hmac512_init(&w, "a key", 5);
	hmac512_update(&w, "one ", 4);
	hmac512_update(&w, "two three", 9);
	hmac512_final(&w, tag);
	CHECK(memcmp(tag, want, SHA512_SIZE) == 0);
	CHECK(memcmp(&w, &none512, sizeof(w)) == 0);
}

TEST(equal)
{
	unsigned char a[TAG_MAX], b[TAG_MAX];

	for (size_t i = 0; i < sizeof(a); i++)
		a[i] = b[i] = (unsigned char)(i * 37);
	CHECK(hmac_equal(a, b, sizeof(a)) && hmac_equal(a, b, 0) && hmac_equal(NULL, NULL, 0));
	for (size_t bit = 0; bit < 8 * sizeof(a); bit++) {
		b[bit / 8] ^= (unsigned char)(1u << bit % 8);
		CHECK(!hmac_equal(a, b, sizeof(a)));
		CHECK(hmac_equal(a, b, bit / 8));       /* what is beyond n does not count */
		b[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
}

/* ---- files ------------------------------------------------------------------------ */

/* "name = value" lines: a case is over at its MD. */
static unsigned
check_rfc_file(const struct mac *m, const char *path)
{
	struct buf text = BUF_INIT(FILE_MAX), key = BUF_INIT(FILE_MAX), msg = BUF_INIT(FILE_MAX), md = BUF_INIT(TAG_MAX);
	struct str rest, line, name;
	unsigned char tag[TAG_MAX];
	unsigned cases = 0;

	CHECK_OK(file_read(path, FILE_MAX, &text, NULL));
	rest = buf_view(&text);
	while (rest.n && !FAULTED()) {
		struct buf *b;

		str_cut(&rest, '\n', &line);
		if (line.n == 0 || line.p[0] == '#' || !str_cut(&line, '=', &name))
			continue;
		name = str_trim(name);
		b = str_eqz(name, "Key") ? &key : str_eqz(name, "Msg") ? &msg : str_eqz(name, "MD") ? &md : NULL;
		if (!b)
			continue;
		buf_reset(b);
		CHECK_OK(dec_hex(str_trim(line), b));
		if (b == &md && !FAULTED()) {
			m->mac(buf_view(&key), buf_view(&msg), tag);
			CHECK(str_eq(buf_view(&md), str_make((char *)tag, m->size)));
			cases++;
		}
	}
	buf_free(&md);
	buf_free(&msg);
	buf_free(&key);
	buf_free(&text);
	return cases;
}

/* A tag is the first tagSize bits; an invalid one must differ there. */
static unsigned
check_wycheproof_file(const struct mac *m, const char *path)
{
	struct buf text = BUF_INIT(FILE_MAX), key = BUF_INIT(FILE_MAX), msg = BUF_INIT(FILE_MAX), want = BUF_INIT(TAG_MAX);
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(FILE_MAX));
	const struct json *file = NULL, *groups;
	unsigned char tag[TAG_MAX];
	unsigned cases = 0;

	CHECK_OK(file_read(path, FILE_MAX, &text, NULL));
	CHECK_OK(json_parse(&ar, buf_view(&text), &file, NULL));
	groups = json_at(file, "testGroups");
	for (const struct json *g = groups ? groups->first : NULL; g && !FAULTED(); g = g->next) {
		const struct json *tests = json_at(g, "tests");
		size_t n = (size_t)json_i64(g, "tagSize", 0) / 8;

		CHECK(n > 0 && n <= m->size);
		for (const struct json *t = tests ? tests->first : NULL; t && n <= m->size; t = t->next) {
			bool valid = str_eqz(json_str(t, "result", STR_NONE), "valid");

			buf_reset(&key);
			buf_reset(&msg);
			buf_reset(&want);
			CHECK_OK(dec_hex(json_str(t, "key", STR_NONE), &key));
			CHECK_OK(dec_hex(json_str(t, "msg", STR_NONE), &msg));
			CHECK_OK(dec_hex(json_str(t, "tag", STR_NONE), &want));
			if (FAULTED())
				break;
			m->mac(buf_view(&key), buf_view(&msg), tag);
			CHECK((want.n == n && hmac_equal(want.p, tag, n)) == valid);
			cases++;
		}
	}
	arena_free(&ar);
	buf_free(&want);
	buf_free(&msg);
	buf_free(&key);
	buf_free(&text);
	return cases;
}

TEST(files)
{
	static const struct {
		const struct mac *mac;
		unsigned (*check)(const struct mac *m, const char *path);
		const char *sub;
		unsigned at_least;
	} files[] = {
		{ &hmac256, check_rfc_file, "crypto/rfc/rfc-4231-sha256.txt", 6 },
		{ &hmac512, check_rfc_file, "crypto/rfc/rfc-4231-sha512.txt", 6 },
		{ &hmac256, check_wycheproof_file, "crypto/wycheproof/hmac_sha256_test.json", 110 },
		{ &hmac512, check_wycheproof_file, "crypto/wycheproof/hmac_sha512_test.json", 110 },
	};

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		const char *path = test_data(files[i].sub);
		unsigned cases;

		if (!path) {
			SKIP("no conformance data");
			return;
		}
		cases = files[i].check(files[i].mac, path);
		if (!FAULTED())
			printf("hmac: %s: %u cases\n", files[i].mac->name, cases);
		CHECK(cases >= files[i].at_least);
	}
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(rfc4231);
	RUN(key_length);
	RUN(pieces_and_wipe);
	RUN(equal);
	RUN(files);
	return TEST_END();
}
