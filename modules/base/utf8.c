/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * utf8.c - UTF-8 by RFC 3629, strictly.
 *
 * One decoder serves everything else. It accepts exactly the well-formed
 * sequences of Unicode table 3-7: no overlong forms, no surrogates, nothing
 * above U+10FFFF. What makes that short is that only the first continuation
 * byte has a range of its own, and that the lead byte alone decides it.
 *
 * Ill-formed input is measured in maximal subparts (Unicode 3.9, the WHATWG
 * practice): the longest prefix that could still have become a character
 * counts as one fault, and the byte that spoiled it is looked at afresh. So a
 * truncated character gives one U+FFFD and swallows nothing that follows it.
 *
 * UTF-16 units are counted here as well because Telegram measures text so.
 */
#include "base/base.h"

#include <assert.h>

#define IS_CONT(c) (((c) & 0xC0u) == 0x80u)

static unsigned char
byte_at(struct str s, size_t i)
{
	return (unsigned char)s.p[i];
}

uint32_t
utf8_decode(struct str s, size_t *len)
{
	unsigned char lead, lo = 0x80, hi = 0xBF;
	uint32_t cp;
	size_t more;

	assert(s.n > 0);
	lead = byte_at(s, 0);
	*len = 1;
	if (lead < 0x80)
		return lead;
	if (lead < 0xC2 || lead > 0xF4)         /* stray continuation, overlong, too big */
		return UTF8_BAD;
	more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
	cp = lead & (0x3Fu >> more);
	if (lead == 0xE0)
		lo = 0xA0;                      /* below: overlong */
	else if (lead == 0xED)
		hi = 0x9F;                      /* above: surrogates */
	else if (lead == 0xF0)
		lo = 0x90;                      /* below: overlong */
	else if (lead == 0xF4)
		hi = 0x8F;                      /* above: beyond U+10FFFF */
	for (size_t i = 1; i <= more; i++) {
		if (i >= s.n || byte_at(s, i) < lo || byte_at(s, i) > hi)
			return UTF8_BAD;
		cp = cp << 6 | (byte_at(s, i) & 0x3Fu);
		*len = i + 1;
		lo = 0x80;
		hi = 0xBF;
	}
	return cp;
}

/* How many bytes at the front of s are plain ASCII: most text is, and needs no decoding. */
static size_t
ascii_run(struct str s)
{
	size_t i = 0;
	uint64_t word;

	for (; s.n - i >= sizeof(word); i += sizeof(word)) {
		memcpy(&word, s.p + i, sizeof(word));
		if (word & 0x8080808080808080u)
			break;
	}
	while (i < s.n && byte_at(s, i) < 0x80)
		i++;
	return i;
}

size_t
utf8_run(struct str s)
{
	size_t at = 0, len;

	while (at < s.n) {
		at += ascii_run(str_sub(s, at, s.n));
		if (at == s.n || utf8_decode(str_sub(s, at, s.n), &len) == UTF8_BAD)
			break;
		at += len;
	}
	return at;
}

bool
utf8_valid(struct str s)
{
	return utf8_run(s) == s.n;
}

size_t
utf8_encode(uint32_t cp, char out[4])
{
	size_t n, i;

	assert(cp <= 0x10FFFF && (cp < 0xD800 || cp > 0xDFFF));
	if (cp < 0x80) {
		out[0] = (char)cp;
		return 1;
	}
	n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
	for (i = n - 1; i > 0; i--, cp >>= 6)
		out[i] = (char)(0x80 | (cp & 0x3F));
	out[0] = (char)(0xF00 >> n | cp);       /* as many ones in front as bytes */
	return n;
}

void
utf8_clean(struct buf *out, struct str s)
{
	size_t run, len;

	while (s.n) {
		run = utf8_run(s);
		buf_str(out, str_sub(s, 0, run));
		s = str_sub(s, run, s.n);
		if (s.n == 0)
			break;
		utf8_decode(s, &len);
		buf_str(out, S("\xEF\xBF\xBD"));
		s = str_sub(s, len, s.n);
	}
}

size_t
utf8_units(struct str s)
{
	size_t units = 0;

	/* A code point has one byte that is not a continuation; four-byte ones take two units. */
	for (size_t i = 0; i < s.n; i++) {
		if (!IS_CONT(byte_at(s, i)))
			units += byte_at(s, i) >= 0xF0 ? 2 : 1;
	}
	return units;
}

struct str
utf8_prefix_units(struct str s, size_t max)
{
	size_t at = 0, units = 0, len;

	while (at < s.n) {
		units += byte_at(s, at) >= 0xF0 ? 2 : 1;
		if (units > max)
			break;
		utf8_decode(str_sub(s, at, s.n), &len);
		at += len;
	}
	return str_sub(s, 0, at);
}

struct str
utf8_prefix(struct str s, size_t max)
{
	size_t cut = max, len;

	if (s.n <= max)
		return s;
	/* Back to a byte that can begin a code point; one is at most four bytes long. */
	while (cut > 0 && max - cut < 3 && IS_CONT(byte_at(s, cut)))
		cut--;
	utf8_decode(str_sub(s, cut, s.n), &len);
	return str_sub(s, 0, cut + len > max ? cut : max);
}
