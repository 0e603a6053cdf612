/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_url.c - url_parse and the decoders of enc.c on any bytes.
 *
 * An accepted URL put together again from its parts must be the input, up to
 * the case of the scheme, brackets and the port; its parts hold no byte that
 * could end a request line. What a decoder accepts must encode to a text that
 * decodes to the same bytes, and the strict ones to the very input.
 */
#include "base/base.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BYTES_MAX (1u << 24)

static void
check_url(struct str s)
{
	struct buf again = BUF_INIT(BYTES_MAX);
	struct url u, v;

	if (url_parse(s, &u) != OK)
		return;
	assert(u.host.n > 0 && u.port >= 1 && u.port <= 65535);
	assert(u.path.n == 0 || u.path.p[0] == '/');
	for (size_t i = 0; i < s.n; i++)
		assert(s.p[i] > ' ' && s.p[i] < 0x7F);
	assert(str_chr(u.host, '@') == SIZE_MAX && str_chr(u.host, '/') == SIZE_MAX);
	assert(str_ends(s, u.path));
	buf_puts(&again, u.tls ? "https://" : "http://");
	buf_fmt(&again, str_chr(u.host, ':') == SIZE_MAX ? "%.*s:%u" : "[%.*s]:%u",
	    STR_ARG(u.host), u.port);
	buf_str(&again, u.path);
	assert(again.err == OK && url_parse(buf_view(&again), &v) == OK);
	assert(str_eq(u.host, v.host) && str_eq(u.path, v.path));
	assert(u.port == v.port && u.tls == v.tls);
	assert(url_is_loopback(&u) == url_is_loopback(&v));
	buf_free(&again);
}

static void
check_percent(struct str s)
{
	struct buf plain = BUF_INIT(BYTES_MAX), text = BUF_INIT(BYTES_MAX);
	struct buf back = BUF_INIT(BYTES_MAX);

	if (dec_url(s, &plain) == OK) {
		assert(plain.n <= s.n);
		enc_url(&text, buf_view(&plain));
		assert(dec_url(buf_view(&text), &back) == OK);
		assert(str_eq(buf_view(&plain), buf_view(&back)));
	} else {
		assert(plain.n == 0);
	}
	buf_free(&plain);
	buf_free(&text);
	buf_free(&back);
}

static void
check_strict(struct str s)
{
	struct buf plain = BUF_INIT(BYTES_MAX), text = BUF_INIT(BYTES_MAX);

	if (dec_base64(s, &plain) == OK) {
		enc_base64(&text, plain.p, plain.n);
		assert(str_eq(buf_view(&text), s));
	}
	buf_reset(&plain);
	buf_reset(&text);
	if (dec_base64url(s, &plain) == OK) {
		enc_base64url(&text, plain.p, plain.n);
		assert(str_eq(buf_view(&text), s));
	}
	buf_reset(&plain);
	buf_reset(&text);
	if (dec_hex(s, &plain) == OK) {
		enc_hex(&text, plain.p, plain.n);
		assert(str_ieq(buf_view(&text), s));
	}
	buf_free(&plain);
	buf_free(&text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str s = str_make((const char *)data, size);

	check_url(s);
	check_percent(s);
	check_strict(s);
	return 0;
}
