/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_utf8.c - properties of UTF-8 handling that hold for any bytes:
 * cleaning gives valid text and is idempotent, valid text is left alone, the
 * decoder always advances, what decodes encodes back to the same bytes, and
 * every cut is within its limit and as long as it can be.
 */
#include "base/base.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_decode(struct str s)
{
	bool valid = true;
	size_t len;

	for (struct str rest = s; rest.n; rest = str_sub(rest, len, rest.n)) {
		uint32_t cp = utf8_decode(rest, &len);
		char text[4];

		assert(len >= 1 && len <= 4 && len <= rest.n);
		if (cp == UTF8_BAD)
			valid = false;
		else
			assert(utf8_encode(cp, text) == len && memcmp(text, rest.p, len) == 0);
	}
	assert(valid == utf8_valid(s));
}

static void
check_cuts(struct str s, size_t max)
{
	struct str bytes = utf8_prefix(s, max), units = utf8_prefix_units(s, max);
	size_t len;

	assert(utf8_valid(bytes) && bytes.n <= max);
	assert(utf8_valid(units) && utf8_units(units) <= max);
	if (bytes.n < s.n) {
		utf8_decode(str_sub(s, bytes.n, s.n), &len);
		assert(bytes.n + len > max);
	}
	if (units.n < s.n) {
		utf8_decode(str_sub(s, units.n, s.n), &len);
		assert(utf8_units(str_sub(s, 0, units.n + len)) > max);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf once = BUF_INIT(1u << 24), twice = BUF_INIT(1u << 24);
	struct str s = str_make((const char *)data, size);
	size_t max = size ? data[0] : 0;

	check_decode(s);
	utf8_clean(&once, s);
	utf8_clean(&twice, buf_view(&once));
	assert(once.err == OK && twice.err == OK);
	assert(utf8_valid(buf_view(&once)) && str_eq(buf_view(&once), buf_view(&twice)));
	if (utf8_valid(s))
		assert(str_eq(s, buf_view(&once)));
	check_cuts(buf_view(&once), max);
	utf8_prefix(s, max);
	utf8_prefix_units(s, max);
	buf_free(&once);
	buf_free(&twice);
	return 0;
}
