/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_enc.c - hex, base64, percent encoding and URLs: known answers, every
 * remainder length both ways, and that strictness is strict.
 */
#include "test.h"

typedef enum err decoder(struct str s, struct buf *out);

/* s decodes to want; or, when want is NULL, is refused and leaves out as it was. */
static void
check_dec(decoder *dec, const char *s, const char *want)
{
	struct buf b = BUF_INIT(1000);
	enum err e;

	buf_puts(&b, "keep");
	if (b.err == OK) {
		e = dec(str_z(s), &b);
		if (want ? e != OK : e != ERR_PARSE)
			printf("  input: %s\n", s);
		CHECK(e == (want ? OK : ERR_PARSE));
		CHECK(str_starts(buf_view(&b), S("keep")));
		CHECK_STR(str_sub(buf_view(&b), 4, b.n), want && e == OK ? want : "");
	}
	buf_free(&b);
}

typedef void encoder(struct buf *out, const void *p, size_t n);

/* All lengths 0..64 of every byte value there and back. */
static void
check_round(encoder *enc, decoder *dec)
{
	struct buf text = BUF_INIT(1000), back = BUF_INIT(1000);
	unsigned char bytes[64];

	for (size_t n = 0; n <= sizeof(bytes); n++) {
		for (size_t i = 0; i < n; i++)
			bytes[i] = (unsigned char)(i * 37 + n * 11);
		buf_reset(&text);
		buf_reset(&back);
		enc(&text, bytes, n);
		if (text.err != OK || dec(buf_view(&text), &back) != OK)
			break;
		CHECK(str_eq(buf_view(&back), str_make((char *)bytes, n)));
	}
	CHECK(text.err == OK && back.err == OK);
	buf_free(&text);
	buf_free(&back);
}

TEST(hex)
{
	struct buf b = BUF_INIT(100);

	enc_hex(&b, "\x00\x9f\xff", 3);
	if (b.err == OK)
		CHECK_STR(buf_view(&b), "009fff");
	buf_free(&b);
	check_dec(dec_hex, "", "");
	check_dec(dec_hex, "4a4B", "JK");
	check_dec(dec_hex, "4", NULL);
	check_dec(dec_hex, "4g", NULL);
	check_dec(dec_hex, "414 ", NULL);
	check_dec(dec_hex, "0x41", NULL);
	check_round(enc_hex, dec_hex);
}

/* RFC 4648 section 10. */
static const char *const base64_pairs[][2] = {
	{ "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" },
	{ "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" },
	{ "\xfb\xff\xfe", "+//+" }
};

TEST(base64)
{
	static const char *const bad[] = {
		"Z", "Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "Zm8 ", "Zm9v\n", "Zg==Zg==", "====",
		"=", "Z===", "Zm=v", "-__-", "Zm9vYg=a"
	};

	for (size_t i = 0; i < ARRAY_LEN(base64_pairs); i++) {
		struct buf b = BUF_INIT(100);

		enc_base64(&b, base64_pairs[i][0], strlen(base64_pairs[i][0]));
		if (b.err == OK)
			CHECK_STR(buf_view(&b), base64_pairs[i][1]);
		buf_free(&b);
		check_dec(dec_base64, base64_pairs[i][1], base64_pairs[i][0]);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		check_dec(dec_base64, bad[i], NULL);
	check_round(enc_base64, dec_base64);
}

TEST(base64url)
{
	static const char *const bad[] = { "Z", "Zg==", "Zh", "Zm9", "+//+", "Zm9vYgA ", "Zm9vY" };
	struct buf b = BUF_INIT(100);

	enc_base64url(&b, "\xfb\xff\xfe", 3);
	enc_base64url(&b, "f", 1);
	if (b.err == OK)
		CHECK_STR(buf_view(&b), "-__-Zg");
	buf_free(&b);
	check_dec(dec_base64url, "-__-", "\xfb\xff\xfe");
	check_dec(dec_base64url, "Zm8", "fo");
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		check_dec(dec_base64url, bad[i], NULL);
	check_round(enc_base64url, dec_base64url);
}

static void
enc_url_bytes(struct buf *out, const void *p, size_t n)
{
	enc_url(out, str_make(p, n));
}

TEST(percent)
{
	struct buf b = BUF_INIT(100);

	enc_url(&b, S("aZ09-._~ /?%+\xC3\xA9"));
	if (b.err == OK)
		CHECK_STR(buf_view(&b), "aZ09-._~%20%2F%3F%25%2B%C3%A9");
	buf_free(&b);
	check_dec(dec_url, "a%20b+c%2f%2F", "a b+c//");
	check_dec(dec_url, "%", NULL);
	check_dec(dec_url, "a%4", NULL);
	check_dec(dec_url, "a%4x", NULL);
	check_dec(dec_url, "%%41", NULL);
	check_round(enc_url_bytes, dec_url);
}

/* A decoder that meets the buffer's limit takes back what it wrote. */
TEST(limit)
{
	struct buf b = BUF_INIT(5);

	buf_puts(&b, "keep");
	if (b.err == OK) {
		CHECK_ERR(dec_hex(S("414243"), &b), ERR_LIMIT);
		CHECK_STR(buf_view(&b), "keep");
	}
	buf_free(&b);
}

TEST(url)
{
	static const struct {
		const char *text, *host;
		unsigned port;
		const char *path;
		bool tls, loopback;
	} t[] = {
		{ "http://a", "a", 80, "", false, false },
		{ "HTTPS://Api.Example.com/v1?x=1&y[]=%20:@", "Api.Example.com", 443,
		    "/v1?x=1&y[]=%20:@", true, false },
		{ "http://localhost:8080/", "localhost", 8080, "/", false, true },
		{ "http://LOCALHOST:1", "LOCALHOST", 1, "", false, true },
		{ "http://127.0.0.1:65535", "127.0.0.1", 65535, "", false, true },
		{ "http://127.255.1.2//", "127.255.1.2", 80, "//", false, true },
		{ "https://[::1]:9/x", "::1", 9, "/x", true, true },
		{ "http://[0:0:0:0:0:0:0:1]", "0:0:0:0:0:0:0:1", 80, "", false, true },
		{ "http://[2001:db8::7]", "2001:db8::7", 80, "", false, false },
		{ "http://[::ffff:127.0.0.1]", "::ffff:127.0.0.1", 80, "", false, false },
		{ "http://128.0.0.1", "128.0.0.1", 80, "", false, false },
		{ "http://127.0.0.1.example.com", "127.0.0.1.example.com", 80, "", false, false },
		{ "http://localhost.example.com", "localhost.example.com", 80, "", false, false },
		{ "http://2130706433", "2130706433", 80, "", false, false },
		{ "http://a_b-c.d.", "a_b-c.d.", 80, "", false, false }
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct url u;

		if (url_parse(str_z(t[i].text), &u) != OK) {
			printf("  input: %s\n", t[i].text);
			CHECK(false);
			continue;
		}
		CHECK_STR(u.host, t[i].host);
		CHECK_STR(u.path, t[i].path);
		CHECK(u.port == t[i].port && u.tls == t[i].tls);
		CHECK(url_is_loopback(&u) == t[i].loopback);
	}
}

TEST(url_bad)
{
	static const char *const bad[] = {
		"", "http", "http:", "http:/", "http://", "https://", "http:///x", "ftp://a",
		"httpx://a", "//a", "a/b", " http://a", "http://a ", "http://a b/", "http://a/b c",
		"http://user@a", "http://user:pw@a/", "http://a@127.0.0.1/", "http://a#f",
		"http://a/#f", "http://a?x=1", "http://a\\b", "http://a/\\b", "http://a/\r\nX: 1",
		"http://a:", "http://a:0", "http://a:65536", "http://a:+80", "http://a:-1",
		"http://a:8x", "http://a:080000", "http://a:1:2", "http://[::1", "http://::1",
		"http://[]", "http://[::1]x", "http://[::1]:", "http://[127.0.0.1]",
		"http://[::1%lo]",
		"http://[1::2::3]", "http://.a", "http://a..b", "http://-a", "http://a%2eb",
		"http://\xC3\xA9", "http://a/\xC3\xA9", "http://a/\x7f", "http://[g::1]"
	};
	char name[300];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct url u = { true, S("kept"), 1, S("") };
		enum err e = url_parse(str_z(bad[i]), &u);

		if (e != ERR_PARSE)
			printf("  input: %s\n", bad[i]);
		CHECK(e == ERR_PARSE);
		CHECK_STR(u.host, "kept");
	}
	memset(name, 'a', sizeof(name));
	memcpy(name, "http://", 7);
	for (size_t n = 250; n <= 270; n++) {
		struct url u;

		CHECK_ERR(url_parse(str_make(name, n), &u), n - 7 <= 253 ? OK : ERR_PARSE);
	}
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(hex);
	RUN(base64);
	RUN(base64url);
	RUN(percent);
	RUN(limit);
	RUN(url);
	RUN(url_bad);
	return TEST_END();
}
