/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * str.c - borrowed views of bytes.
 *
 * A view is a pointer and a length; it owns nothing, is never NUL-terminated
 * by promise, and may hold any bytes. That makes cutting free: a parser hands
 * out views into its input and copies only what must outlive it.
 *
 * The empty view may have a NULL pointer, and the C library may not be given
 * one even for zero bytes, so every function here looks at the length first.
 * Nothing depends on the locale: letters, digits and blanks are ASCII.
 */
#include "base/base.h"


#define DISTANCE_MAX 64u        /* bytes of a word that str_distance looks at */

bool
str_eq(struct str a, struct str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool
str_eqz(struct str a, const char *z)
{
	return str_eq(a, str_z(z));
}

static unsigned char
lower(char c)
{
	unsigned char u = (unsigned char)c;

	return u >= 'A' && u <= 'Z' ? (unsigned char)(u + ('a' - 'A')) : u;
}

bool
str_ieq(struct str a, struct str b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++) {
		if (lower(a.p[i]) != lower(b.p[i]))
			return false;
	}
	return true;
}

bool
str_starts(struct str s, struct str prefix)
{
	return s.n >= prefix.n && str_eq(str_sub(s, 0, prefix.n), prefix);
}

bool
str_ends(struct str s, struct str suffix)
{
	return s.n >= suffix.n && str_eq(str_sub(s, s.n - suffix.n, suffix.n), suffix);
}

int
str_cmp(struct str a, struct str b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;

	if (c != 0)
		return c;
	return (a.n > b.n) - (a.n < b.n);
}

static bool
blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str
str_trim(struct str s)
{
	size_t from = 0, to = s.n;

	while (from < to && blank(s.p[from]))
		from++;
	while (to > from && blank(s.p[to - 1]))
		to--;
	return str_sub(s, from, to - from);
}

struct str
str_sub(struct str s, size_t from, size_t n)
{
	if (from > s.n)
		from = s.n;
	if (n > s.n - from)
		n = s.n - from;
	return str_make(s.p ? s.p + from : NULL, n);
}

size_t
str_chr(struct str s, char c)
{
	const char *hit = s.n ? memchr(s.p, c, s.n) : NULL;

	return hit ? (size_t)(hit - s.p) : SIZE_MAX;
}

size_t
str_find(struct str s, struct str needle)
{
	size_t at = 0;

	if (needle.n == 0)
		return 0;
	while (s.n - at >= needle.n) {
		/* memchr finds candidates quickly; only those are compared. */
		size_t skip = str_chr(str_sub(s, at, s.n - at - needle.n + 1), needle.p[0]);

		if (skip == SIZE_MAX)
			return SIZE_MAX;
		at += skip;
		if (memcmp(s.p + at, needle.p, needle.n) == 0)
			return at;
		at++;
	}
	return SIZE_MAX;
}

bool
str_cut(struct str *s, char sep, struct str *head)
{
	struct str all = *s;
	size_t at = str_chr(all, sep);

	if (at == SIZE_MAX) {
		*head = all;
		*s = str_sub(all, all.n, 0);
		return false;
	}
	*head = str_sub(all, 0, at);
	*s = str_sub(all, at + 1, all.n - at - 1);
	return true;
}

enum err
str_i64(struct str s, int64_t min, int64_t max, int64_t *out)
{
	bool negative = s.n > 0 && s.p[0] == '-';
	int64_t v = 0;

	if (s.n == (negative ? 1u : 0u))
		return ERR_PARSE;
	for (size_t i = negative ? 1 : 0; i < s.n; i++) {
		int64_t digit = s.p[i] - '0';

		if (s.p[i] < '0' || s.p[i] > '9')
			return ERR_PARSE;
		/* Counting away from zero in the number's own sign reaches INT64_MIN too. */
		if (mul_i64(v, 10, &v) || add_i64(v, negative ? -digit : digit, &v))
			return ERR_LIMIT;
	}
	if (v < min || v > max)
		return ERR_LIMIT;
	*out = v;
	return OK;
}

static unsigned
least(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

unsigned
str_distance(struct str a, struct str b)
{
	unsigned row[DISTANCE_MAX + 1];        /* distances of a[0..i) to every prefix of b */

	a = str_sub(a, 0, DISTANCE_MAX);
	b = str_sub(b, 0, DISTANCE_MAX);
	for (unsigned j = 0; j <= b.n; j++)
		row[j] = j;
	for (unsigned i = 1; i <= a.n; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= b.n; j++) {
			unsigned above = row[j];
			unsigned change = lower(a.p[i - 1]) == lower(b.p[j - 1]) ? 0 : 1;

			row[j] = least(row[j - 1] + 1, above + 1, diagonal + change);
			diagonal = above;
		}
	}
	return row[b.n];
}
