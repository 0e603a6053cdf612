/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_utf8.c - the decoder against a second definition, cutting, and the
 * shared conformance data (skipped when that is not there).
 *
 * The second definition is the table of well-formed sequences written the
 * other way round: every code point is encoded by plain arithmetic, and all
 * byte strings of up to three bytes, with the fourth where it matters, must be
 * valid exactly when they are such an encoding.
 */
#include "test.h"

/* Every scalar value there and back; no other value of four bytes' reach decodes. */
TEST(round_trip)
{
	bool good = true;
	size_t len;

	for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
		char text[4];
		size_t n;

		if (cp >= 0xD800 && cp <= 0xDFFF)
			continue;
		n = utf8_encode(cp, text);
		good = good && n == (cp < 0x80 ? 1u : cp < 0x800 ? 2u : cp < 0x10000 ? 3u : 4u);
		good = good && utf8_decode(str_make(text, n), &len) == cp && len == n;
		good = good && utf8_units(str_make(text, n)) == (cp < 0x10000 ? 1u : 2u);
	}
	CHECK(good);
}

/* What the naive bit pattern gives; is it the shortest form of a scalar value? */
static bool
naive_valid(const unsigned char *p, size_t n)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t cp;

	if (n == 1)
		return p[0] < 0x80;
	if ((unsigned)p[0] >> (7 - n) != (1u << (n + 1)) - 2)
		return false;
	cp = p[0] & (0x7Fu >> n);
	for (size_t i = 1; i < n; i++) {
		if (p[i] >> 6 != 2)
			return false;
		cp = cp << 6 | (p[i] & 0x3Fu);
	}
	return cp >= least[n] && cp <= 0x10FFFF && (cp < 0xD800 || cp > 0xDFFF);
}

TEST(all_short_strings)
{
	static const unsigned char tail[] = { 0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF };
	bool good = true;
	size_t len;

	for (uint32_t x = 0; x < 1u << 24; x += x < 0x800000 ? 0x3FFF : 1) {
		unsigned char p[4] = { (unsigned char)(x >> 16), (unsigned char)(x >> 8),
		    (unsigned char)x, 0 };

		for (size_t i = 0; i < ARRAY_LEN(tail); i++) {
			bool naive = false;
			struct str s = str_make((char *)p, 4);

			p[3] = tail[i];
			for (size_t n = 1; n <= 4 && !naive; n++)
				naive = naive_valid(p, n);
			good = good && naive == (utf8_decode(s, &len) != UTF8_BAD);
			good = good && len >= 1 && len <= 4;
			if (p[0] < 0xF0)
				break;
		}
	}
	CHECK(good);
}

TEST(maximal_parts)
{
	static const struct {
		const char *text;
		size_t len;
	} t[] = {
		{ "\x80", 1 }, { "\xC0\x80", 1 }, { "\xC2", 1 }, { "\xC2 ", 1 }, { "\xE1\x80", 2 },
		{ "\xE1\x80\xE1", 2 }, { "\xE0\x80\x80", 1 }, { "\xED\xA0\x80", 1 },
		{ "\xF1\x80\x80", 3 }, { "\xF1\x80\x80 ", 3 }, { "\xF0\x80\x80\x80", 1 },
		{ "\xF4\x90\x80\x80", 1 }, { "\xF5\x80", 1 }, { "\xFF", 1 }
	};
	size_t len;

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		CHECK(utf8_decode(str_z(t[i].text), &len) == UTF8_BAD);
		CHECK(len == t[i].len);
		CHECK(!utf8_valid(str_z(t[i].text)));
	}
	CHECK(utf8_valid(STR_NONE));
}

TEST(cutting)
{
	/* 1, 2, 3 and 4 bytes; 1, 1, 1 and 2 units */
	struct str s = S("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
	static const size_t by_bytes[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10 };
	static const size_t by_units[] = { 0, 1, 3, 6, 6, 10, 10 };

	CHECK(utf8_units(s) == 5 && utf8_units(STR_NONE) == 0);
	for (size_t i = 0; i < ARRAY_LEN(by_bytes); i++)
		CHECK(utf8_prefix(s, i).n == by_bytes[i]);
	for (size_t i = 0; i < ARRAY_LEN(by_units); i++)
		CHECK(utf8_prefix_units(s, i).n == by_units[i]);
	CHECK(utf8_prefix(S("\x80\x80\x80\x80\x80\x80"), 5).n == 5);
	CHECK(utf8_prefix(s, SIZE_MAX).n == s.n && utf8_prefix_units(s, SIZE_MAX).n == s.n);
}

TEST(clean)
{
	struct buf b = BUF_INIT(100), tight = BUF_INIT(5);

	utf8_clean(&b, S("ok \xC3\xA9\xFF\xE1\x80z\xF0\x9F\x98"));
	if (b.err == OK)
		CHECK_STR(buf_view(&b), "ok \xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBDz\xEF\xBF\xBD");
	utf8_clean(&tight, S("\xFF\xFF"));
	CHECK(tight.err != OK && utf8_valid(buf_view(&tight)));
	buf_free(&b);
	buf_free(&tight);
}

/* ---- shared data --------------------------------------------------------------------- */

/* "E2 82AC" to bytes; "nothing" to none. */
static enum err
from_hex(struct str s, struct buf *out)
{
	struct buf digits = BUF_INIT(4096);
	enum err e = OK;

	if (!str_eqz(str_trim(s), "nothing")) {
		for (size_t i = 0; i < s.n; i++) {
			if (s.p[i] != ' ')
				buf_putc(&digits, s.p[i]);
		}
		e = digits.err == OK ? dec_hex(buf_view(&digits), out) : digits.err;
	}
	buf_free(&digits);
	return e;
}

/* num:kind:data[:skipped:replaced]; false when the line could not be read. */
static bool
check_line(struct str line)
{
	struct buf bytes = BUF_INIT(4096), want = BUF_INIT(4096), got = BUF_INIT(4096);
	struct str num, kind, data, skipped;
	bool valid, read = true;

	str_cut(&line, ':', &num);
	str_cut(&line, ':', &kind);
	kind = str_trim(kind);
	valid = str_starts(kind, S("valid"));
	if (str_eqz(kind, "valid")) {
		buf_str(&bytes, line);
		read = bytes.err == OK;
	} else {
		str_cut(&line, ':', &data);
		str_cut(&line, ':', &skipped);
		read = from_hex(data, &bytes) == OK && from_hex(line, &want) == OK;
	}
	utf8_clean(&got, buf_view(&bytes));
	if (read && got.err == OK) {
		bool good = utf8_valid(buf_view(&bytes)) == valid &&
		    str_eq(buf_view(&got), buf_view(valid ? &bytes : &want));

		if (!good)
			printf("  case %.*s\n", STR_ARG(num));
		CHECK(good);
	}
	buf_free(&bytes);
	buf_free(&want);
	buf_free(&got);
	return read;
}

TEST(conformance)
{
	const char *path = test_data("utf8/utf8tests.txt");
	struct buf b = BUF_INIT(1u << 20);
	struct str all, line;
	int cases = 0;

	if (!path) {
		SKIP("no conformance data");
		return;
	}
	if (file_read(path, b.max, &b, NULL) == OK) {
		all = buf_view(&b);
		while (all.n) {
			str_cut(&all, '\n', &line);
			if (str_trim(line).n == 0 || line.p[0] == '#')
				continue;
			CHECK(check_line(line));
			cases++;
		}
		CHECK(cases == 222);
	}
	buf_free(&b);
}

/* In the stress test a numbered line quotes its sample; the number says whether it is valid. */
static bool
stress_valid(struct str line)
{
	static const char *const invalid[] = {
		"2.1.5", "2.1.6", "2.2.4", "2.2.5", "2.2.6", "2.3.5", "3.", "4.", "5.1", "5.2"
	};

	for (size_t i = 0; i < ARRAY_LEN(invalid); i++) {
		if (str_starts(line, str_z(invalid[i])))
			return false;
	}
	return true;
}

/*
 * 4.1.2 U+002F = e0 80 af          = "..."
 * The quoted sample may have been through a cleaner already, as is the copy in
 * the shared data; U+FFFD then stands for what was ill-formed. The hex digits,
 * where a line has them, are the original.
 */
static int
check_stress(struct str line)
{
	struct buf raw = BUF_INIT(100);
	size_t open = str_chr(line, '"'), close = line.n - 1;
	bool valid = stress_valid(line), good;
	struct str label, sample, hex;
	int with_hex = 0;

	while (line.p[close] != '"')
		close--;
	label = str_sub(line, 0, open);
	sample = str_sub(line, open + 1, close - open - 1);
	good = valid == (utf8_valid(sample) && str_find(sample, S("\xEF\xBF\xBD")) == SIZE_MAX) ||
	    str_starts(line, S("2.3.3"));       /* whose sample is U+FFFD itself */
	if (str_cut(&label, '=', &hex) && str_cut(&label, '=', &hex) &&
	    from_hex(hex, &raw) == OK) {
		good = good && utf8_valid(buf_view(&raw)) == valid;
		with_hex = 1;
	}
	if (!good && !FAULTED())
		printf("  line %.*s\n", STR_ARG(line));
	CHECK(good);
	buf_free(&raw);
	return with_hex;
}

TEST(stress)
{
	const char *path = test_data("utf8/UTF-8-test.txt");
	struct buf b = BUF_INIT(1u << 20), clean = BUF_INIT(1u << 20);
	int cases = 0, with_hex = 0;
	struct str all, line;

	if (!path) {
		SKIP("no conformance data");
		return;
	}
	if (file_read(path, b.max, &b, NULL) == OK) {
		all = buf_view(&b);
		utf8_clean(&clean, all);
		CHECK(utf8_valid(buf_view(&clean)));
		while (all.n) {
			str_cut(&all, '\n', &line);
			if (line.n < 6 || line.p[0] < '1' || line.p[0] > '5' || line.p[1] != '.' ||
			    line.p[3] != '.' || str_chr(line, '"') == SIZE_MAX)
				continue;
			with_hex += check_stress(line);
			cases++;
		}
		CHECK(cases > 60 && with_hex > 30);
	}
	buf_free(&b);
	buf_free(&clean);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(round_trip);
	RUN(all_short_strings);
	RUN(maximal_parts);
	RUN(cutting);
	RUN(clean);
	RUN(conformance);
	RUN(stress);
	return TEST_END();
}
