/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_base.c - errors, views, buffers, arenas, map, clock, files, secrets, log.
 *
 * The limits are tested from both sides, and what is promised about failures
 * (nothing half done, out-parameters untouched) as much as what is promised
 * about success. Files live in a directory of their own that is removed.
 */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700       /* nftw */
#endif
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- errors ------------------------------------------------------------------ */

TEST(err)
{
	for (int e = 0; e < ERR_COUNT; e++)
		CHECK(err_str((enum err)e) && err_str((enum err)e)[0]);
	CHECK(strcmp(err_str((enum err)999), "unknown error") == 0);
	CHECK(err_errno(ENOMEM) == ERR_NOMEM);
	CHECK(err_errno(ENOSPC) == ERR_FULL);
	CHECK(err_errno(ENOENT) == ERR_NOTFOUND);
	CHECK(err_errno(EAGAIN) == ERR_BUSY);
	CHECK(err_errno(EIO) == ERR_IO);
	CHECK(err_errno(0) == ERR_IO);
}

TEST(fail)
{
	struct fail f = FAIL_INIT;
	char big[2000];

	CHECK_ERR(fail_set(NULL, ERR_IO, "nobody listens"), ERR_IO);
	CHECK_ERR(fail_set(&f, ERR_PARSE, "%s:%d", "x.toml", 3), ERR_PARSE);
	CHECK_ERR(fail_set(&f, ERR_IO, "later"), ERR_IO);
	CHECK(f.err == ERR_PARSE);
	CHECK_STR(str_z(f.text), "x.toml:3");
	fail_clear(&f);
	CHECK(f.err == OK && f.text[0] == '\0');
	/* 1 + 999 * 2 bytes: the cut after 767 lies inside a two-byte character, or does not */
	for (size_t i = 0; i + 2 < sizeof(big); i += 2)
		memcpy(big + i, "\xC3\xA9", 3);
	errno = ENOTDIR;
	CHECK_ERR(fail_set(&f, ERR_LIMIT, "%s", big), ERR_LIMIT);
	CHECK(errno == ENOTDIR);
	CHECK(FAULTED() || strlen(f.text) == sizeof(f.text) - 2);
	CHECK(utf8_valid(str_z(f.text)));
}

/* ---- views ------------------------------------------------------------------- */

TEST(str)
{
	struct str s = S(" a:bb:: "), head;

	CHECK(str_eq(STR_NONE, S("")) && !str_eq(S("a"), S("b")) && !str_eq(S("a"), S("ab")));
	CHECK(str_eqz(str_z(NULL), "") && str_z(NULL).p == NULL);
	CHECK(str_ieq(S("HosT9"), S("hOSt9")) && !str_ieq(S("@"), S("`")));
	CHECK(!str_ieq(S("a"), S("ab")));
	CHECK(str_starts(S("abc"), S("ab")) && !str_starts(S("a"), S("ab")));
	CHECK(str_ends(S("abc"), S("bc")) && !str_ends(S("c"), S("bc")) && str_ends(s, STR_NONE));
	CHECK(str_cmp(S("a"), S("b")) < 0 && str_cmp(S("ab"), S("a")) > 0);
	CHECK(str_cmp(S("\x80"), S("a")) > 0 && str_cmp(STR_NONE, S("")) == 0);
	CHECK_STR(str_trim(S("\t x y\r\n")), "x y");
	CHECK_STR(str_trim(S(" \v\f ")), "");
	CHECK_STR(str_sub(S("abcdef"), 2, 3), "cde");
	CHECK_STR(str_sub(S("abcdef"), 4, SIZE_MAX), "ef");
	CHECK(str_sub(S("abc"), 9, 1).n == 0 && str_sub(STR_NONE, 1, 1).p == NULL);
	CHECK(str_chr(S("abca"), 'a') == 0 && str_chr(S("abc"), 'x') == SIZE_MAX);
	CHECK(str_chr(STR_NONE, 'a') == SIZE_MAX);
	CHECK(str_find(S("aabaabb"), S("abb")) == 4 && str_find(S("ab"), S("abc")) == SIZE_MAX);
	CHECK(str_find(S("aaa"), S("ab")) == SIZE_MAX && str_find(STR_NONE, S("x")) == SIZE_MAX);
	CHECK(str_find(S("abc"), STR_NONE) == 0 && str_find(S("abc"), S("c")) == 2);
	s = str_trim(s);
	CHECK(str_cut(&s, ':', &head) && str_eqz(head, "a"));
	CHECK(str_cut(&s, ':', &head) && str_eqz(head, "bb"));
	CHECK(str_cut(&s, ':', &head) && str_eqz(head, "") && s.n == 0);
	CHECK(!str_cut(&s, ':', &head) && head.n == 0);
}

TEST(str_i64)
{
	static const struct {
		const char *text;
		enum err e;
		int64_t v;
	} t[] = {
		{ "0", OK, 0 }, { "-0", OK, 0 }, { "007", OK, 7 }, { "-12", OK, -12 },
		{ "9223372036854775807", OK, INT64_MAX }, { "-9223372036854775808", OK, INT64_MIN },
		{ "9223372036854775808", ERR_LIMIT, 0 }, { "-9223372036854775809", ERR_LIMIT, 0 },
		{ "99999999999999999999999", ERR_LIMIT, 0 },
		{ "", ERR_PARSE, 0 }, { "-", ERR_PARSE, 0 }, { "+1", ERR_PARSE, 0 },
		{ " 1", ERR_PARSE, 0 }, { "1 ", ERR_PARSE, 0 }, { "0x1", ERR_PARSE, 0 },
		{ "--1", ERR_PARSE, 0 }, { "1.0", ERR_PARSE, 0 }
	};
	int64_t v;

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		v = 77;
		CHECK_ERR(str_i64(str_z(t[i].text), INT64_MIN, INT64_MAX, &v), t[i].e);
		CHECK(v == (t[i].e == OK ? t[i].v : 77));
	}
	CHECK_ERR(str_i64(S("5"), 1, 4, &v), ERR_LIMIT);
	CHECK_ERR(str_i64(S("0"), 1, 4, &v), ERR_LIMIT);
	CHECK_OK(str_i64(S("4"), 1, 4, &v));
	CHECK(v == 4);
}

TEST(str_distance)
{
	char a[200], b[200];

	CHECK(str_distance(S("kitten"), S("sitting")) == 3);
	CHECK(str_distance(S(""), S("abc")) == 3 && str_distance(STR_NONE, STR_NONE) == 0);
	CHECK(str_distance(S("daily_budget"), S("daily_buget")) == 1);
	CHECK(str_distance(S("flaw"), S("lawn")) == 2);
	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	CHECK(str_distance(str_make(a, sizeof(a)), str_make(b, sizeof(b))) == 64);
}

/* ---- buf --------------------------------------------------------------------- */

TEST(buf)
{
	struct buf b = BUF_INIT(1000);
	char *room;

	CHECK(strcmp(buf_z(&b), "") == 0 && buf_view(&b).n == 0);
	buf_put(&b, NULL, 0);
	CHECK(b.p == NULL && b.err == OK);
	buf_puts(&b, "ab");
	buf_putc(&b, 'c');
	buf_str(&b, S("de"));
	buf_fmt(&b, "%d-%s", 42, "f");
	if (b.err == OK)
		CHECK_STR(buf_view(&b), "abcde42-f");
	buf_drop(&b, 2);
	buf_cut(&b, 4);
	if (b.err == OK)
		CHECK(strcmp(buf_z(&b), "cde4") == 0 && b.p[b.n] == '\0');
	room = buf_room(&b, 3);
	if (room) {
		memcpy(room, "xyz", 3);
		b.n += 3;
		CHECK(strcmp(buf_z(&b), "cde4xyz") == 0);
	}
	buf_drop(&b, 99);
	CHECK(b.n == 0);
	buf_cut(&b, 99);
	CHECK(b.n == 0);
	buf_fmt(&b, "%099d", 7);        /* more than has room: it grows */
	if (b.err == OK)
		CHECK(b.n == 99 && strlen(b.p) == 99 && b.p[0] == '0' && b.p[98] == '7');
	buf_free(&b);
	CHECK(b.p == NULL && b.max == 1000);
}

TEST(buf_limit)
{
	struct buf b;
	char text[300];

	memset(text, 'x', sizeof(text));
	buf_init(&b, 200);
	for (int i = 0; i < 200; i++)
		buf_putc(&b, 'y');
	CHECK(b.err == OK && b.n == 200 && b.cap == 201 && b.p[200] == '\0');
	buf_putc(&b, 'z');
	CHECK(b.err == ERR_LIMIT || FAULTED());
	buf_cut(&b, 10);
	buf_fmt(&b, "%d", 1);
	CHECK(b.n <= 10 && b.err != OK);         /* the error sticks: there is no hole */
	buf_reset(&b);
	CHECK(b.err == OK && b.n == 0);
	buf_put(&b, text, 201);
	CHECK(b.n == 0 && b.err == ERR_LIMIT);   /* all or nothing */
	buf_reset(&b);
	buf_fmt(&b, "%.*s", 201, text);
	CHECK(b.n == 0 && b.err == ERR_LIMIT && (!b.p || b.p[0] == '\0'));
	buf_reset(&b);
	CHECK(buf_room(&b, SIZE_MAX) == NULL && b.err == ERR_LIMIT);
	buf_free(&b);
	buf_init(&b, SIZE_MAX);
	CHECK(buf_room(&b, SIZE_MAX) == NULL && b.err == ERR_LIMIT);
	buf_free(&b);
	buf_init(&b, 0);
	CHECK(buf_room(&b, 0) != NULL || FAULTED());
	buf_putc(&b, 'a');
	CHECK(b.err != OK && b.n == 0);
	buf_free(&b);
}

/* ---- arena ------------------------------------------------------------------- */

TEST(arena)
{
	struct arena a = ARENA_INIT(1u << 20);
	unsigned char *p[200];
	bool good = true;
	struct str s;

	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		size_t n = i * 7 % 100 + (i % 50 == 0 ? 5000 : 0);

		arena_str(&a, S("odd"));
		p[i] = arena_alloc(&a, n);
		if (!p[i])
			break;
		good = good && (uintptr_t)p[i] % _Alignof(max_align_t) == 0;
		for (size_t j = 0; j < n; j++)
			good = good && p[i][j] == 0;
		if (n)
			memset(p[i], (int)i, n);
	}
	CHECK(good);
	if (a.err == OK) {
		for (size_t i = 1; i < ARRAY_LEN(p); i++)
			good = good && (i * 7 % 100 == 0 || p[i][0] == (unsigned char)i);
		CHECK(good);
	}
	s = arena_str(&a, S("a\0b"));
	CHECK(a.err != OK || (s.n == 3 && memcmp(s.p, "a\0b", 3) == 0));
	CHECK(a.err != OK || strcmp(arena_z(&a, S("text")), "text") == 0 || a.err != OK);
	CHECK(a.err != OK || arena_str(&a, STR_NONE).p || a.err != OK);
	s = arena_fmt(&a, "%s=%d", "x", 5);
	if (a.err == OK)
		CHECK_STR(s, "x=5");
	arena_reset(&a);
	CHECK(a.used == 0 && a.err == OK && a.head == NULL);
	CHECK(arena_alloc(&a, 0) || FAULTED());
	arena_free(&a);
}

TEST(arena_limit)
{
	char odd[5001] = { 0 };
	struct arena a;

	/* A chunk that a long text filled to an odd end has no room for an aligned object. */
	arena_init(&a, 10000);
	arena_str(&a, str_make(odd, sizeof(odd)));
	CHECK(arena_alloc(&a, 16) || FAULTED());
	arena_free(&a);

	arena_init(&a, 100);
	CHECK(arena_alloc(&a, 60) || FAULTED());
	CHECK(arena_alloc(&a, 40) || FAULTED());
	CHECK(arena_alloc(&a, 1) == NULL && (a.err == ERR_LIMIT || FAULTED()));
	CHECK(arena_str(&a, S("x")).p == NULL);
	CHECK(strcmp(arena_z(&a, S("x")), "") == 0);
	CHECK(arena_fmt(&a, "%d", 1).p == NULL);
	arena_reset(&a);
	CHECK(arena_array(&a, SIZE_MAX / 2, 3) == NULL && a.err == ERR_LIMIT);
	arena_reset(&a);
	CHECK(arena_alloc(&a, SIZE_MAX) == NULL && a.err == ERR_LIMIT);
	arena_free(&a);
	arena_init(&a, SIZE_MAX);
	CHECK(arena_alloc(&a, SIZE_MAX) == NULL && a.err == ERR_NOMEM);
	arena_free(&a);
}

/* ---- map --------------------------------------------------------------------- */

static struct str
number_key(char text[24], unsigned i)
{
	return str_make(text, (size_t)snprintf(text, 24, "key%u", i));
}

/* A churn against a plain array as the model: finds a broken probe run. */
TEST(map)
{
	static int present[400];
	size_t count = 0, it = 0, seen = 0;
	struct map *m = NULL;
	uint32_t x = 12345;
	struct str key;
	char text[24];
	void *v;

	memset(present, 0, sizeof(present));
	if (map_new(&m, 1000) != OK) {
		CHECK(FAULTED());
		return;
	}
	for (int step = 0; step < 4000; step++) {
		unsigned k;

		x = x * 1664525u + 1013904223u;
		k = x >> 16 & 0xFFF;
		k %= ARRAY_LEN(present);
		key = number_key(text, k);
		CHECK(map_get(m, key) == (present[k] ? &present[k] : NULL));
		if (x >> 31) {
			if (map_put(m, key, &present[k]) != OK)
				break;
			count += present[k] ? 0 : 1;
			present[k] = 1;
		} else {
			CHECK(map_del(m, key) == (present[k] ? &present[k] : NULL));
			count -= present[k] ? 1 : 0;
			present[k] = 0;
		}
		CHECK(map_count(m) == count);
	}
	while (map_next(m, &it, &key, &v)) {
		CHECK(*(int *)v == 1);
		seen++;
	}
	CHECK(seen == count);
	map_free(m);
	map_free(NULL);
}

TEST(map_limit)
{
	struct map *m = NULL;
	int a = 1, b = 2;

	if (map_new(&m, 2) != OK)
		return;
	CHECK(map_get(m, S("x")) == NULL && map_del(m, S("x")) == NULL);
	CHECK_OK(map_put(m, STR_NONE, &a));
	CHECK_OK(map_put(m, S("a\0b"), &a));
	CHECK(map_put(m, S("c"), &a) != OK || FAULTED());
	CHECK_OK(map_put(m, S("a\0b"), &b));     /* replacing needs no room */
	if (!FAULTED()) {
		CHECK(map_get(m, S("")) == &a && map_get(m, S("a\0b")) == &b);
		CHECK(map_get(m, S("a\0c")) == NULL && map_count(m) == 2);
		CHECK(map_del(m, S("")) == &a && map_get(m, S("")) == NULL);
	}
	map_free(m);
}

/* ---- clock ------------------------------------------------------------------- */

TEST(clock)
{
	static const struct {
		int64_t us;
		const char *iso;
	} t[] = {
		{ 0, "1970-01-01T00:00:00.000Z" }, { -1, "1969-12-31T23:59:59.999Z" },
		{ 951782400 * US_PER_S, "2000-02-29T00:00:00.000Z" },
		{ 1795253400123456, "2026-11-21T09:30:00.123Z" },
		{ 4107542400 * US_PER_S, "2100-03-01T00:00:00.000Z" },
		{ 4102444799999999, "2099-12-31T23:59:59.999Z" },
		{ INT64_MAX, "9999-12-31T23:59:59.999Z" }, { INT64_MIN, "0000-03-01T00:00:00.000Z" }
	};
	int64_t a = clock_mono_us(), b = clock_mono_us();
	char text[32];

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		clock_iso(t[i].us, text);
		CHECK_STR(str_z(text), t[i].iso);
	}
	CHECK(b >= a && clock_us() > 1700000000 * US_PER_S);
	CHECK(clock_day_start(1795253400123456) == 1795219200 * US_PER_S);
	CHECK(clock_day_start(-1) == -86400 * US_PER_S && clock_day_start(0) == 0);
	CHECK(clock_day_start(INT64_MIN) == INT64_MIN);
}

/* Every day of 800 years against counting on the fingers. */
TEST(clock_calendar)
{
	static const int days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int64_t us = -135140 * (86400 * US_PER_S);      /* 1600-01-01 */
	char text[32], want[64];
	bool good = true;

	for (int y = 1600; y < 2400; y++) {
		bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;

		for (int m = 0; m < 12; m++) {
			int last = days[m] + (m == 1 && leap ? 1 : 0);

			for (int d = 1; d <= last; d++, us += 86400 * US_PER_S) {
				snprintf(want, sizeof(want), "%04d-%02d-%02dT00:00:00.000Z",
				    y, m + 1, d);
				clock_iso(us, text);
				good = good && strcmp(text, want) == 0;
			}
		}
	}
	CHECK(good);
}

TEST(clock_span)
{
	static const struct {
		int64_t us;
		const char *text;
	} t[] = {
		{ -5, "0 s" }, { 999, "0 s" }, { 340 * US_PER_MS, "340 ms" }, { US_PER_S, "1 s" },
		{ 45999 * US_PER_MS, "45 s" }, { 60 * US_PER_S, "1 min" },
		{ 90 * US_PER_S, "1 min 30 s" },
		{ 11520 * US_PER_S, "3 h 12 min" }, { 3659 * US_PER_S, "1 h" },
		{ 187200 * US_PER_S, "2 d 4 h" }, { INT64_MAX, "106751991 d 4 h" }
	};
	char text[32];

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		clock_span(t[i].us, text);
		CHECK_STR(str_z(text), t[i].text);
	}
}

TEST(rand)
{
	unsigned char a[300] = { 0 }, b[300] = { 0 };

	if (rand_bytes(a, sizeof(a)) != OK || rand_bytes(b, sizeof(b)) != OK) {
		CHECK(FAULTED());
		return;
	}
	CHECK(memcmp(a, b, sizeof(a)) != 0);
	CHECK_OK(rand_bytes(NULL, 0));
	CHECK(rand_u32() != rand_u32() || rand_u32() != rand_u32() || FAULTED());
}

/* ---- files ------------------------------------------------------------------- */

static char dir[PATH_MAX];

/* dir/name in one of four places that are used in turn. */
static const char *
in_dir(const char *name)
{
	static char path[4][PATH_MAX + 64];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static bool
dir_make(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/base-test-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(dir) != NULL;
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* The test has removed what it made; anything else is a temporary file left behind. */
static void
dir_end(void)
{
	bool empty = rmdir(dir) == 0;

	CHECK(empty || FAULTED());
	if (!empty)
		nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static unsigned
mode_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

/* On 32-bit machines this is a choice (WIDE in the Makefile): without it a log of 2 GB, a file
 * system with large inode numbers and the year 2038 are errors. */
TEST(files_and_times_are_wide)
{
	CHECK(sizeof(off_t) == 8 && sizeof(ino_t) == 8 && sizeof(time_t) == 8);
}

TEST(file_replace)
{
	struct buf b = BUF_INIT(100);
	struct fail f = FAIL_INIT;

	if (!dir_make())
		return;
	CHECK_OK(file_replace(in_dir("a"), S("one"), 0640, &f));
	CHECK(mode_of(in_dir("a")) == 0640 || FAULTED());
	CHECK(chmod(in_dir("a"), 0604) == 0 || FAULTED());
	CHECK(symlink("a", in_dir("link")) == 0);
	CHECK_OK(file_replace(in_dir("link"), S("two"), 0600, &f));
	if (!FAULTED()) {
		struct stat st;

		CHECK(mode_of(in_dir("a")) == 0604);
		CHECK(lstat(in_dir("link"), &st) == 0 && S_ISLNK(st.st_mode));
		CHECK_OK(file_read(in_dir("a"), 3, &b, &f));
		CHECK_STR(buf_view(&b), "two");
	}
	CHECK_OK(file_replace(in_dir("a"), STR_NONE, 0600, &f));
	CHECK(symlink("nowhere", in_dir("dangling")) == 0);
	CHECK_ERR(file_replace(in_dir("dangling"), S("x"), 0600, NULL), ERR_NOTFOUND);
	CHECK_ERR(file_replace(dir, S("x"), 0600, NULL), ERR_UNSUPPORTED);
	fail_clear(&f);
	CHECK_ERR(file_replace(in_dir("no/such"), S("x"), 0600, &f), ERR_NOTFOUND);
	CHECK(strstr(f.text, "no/such: No such file or directory") || FAULTED());
	remove(in_dir("a"));
	remove(in_dir("link"));
	remove(in_dir("dangling"));
	dir_end();
	buf_free(&b);
}

/* A file size limit stands for the full disk: the old text stays, nothing is left beside it. */
TEST(file_replace_fails)
{
	struct rlimit old, tight;
	struct buf b = BUF_INIT(100);
	char text[100] = { 0 };
	void (*was)(int);

	if (getrlimit(RLIMIT_FSIZE, &old) != 0 || !dir_make())
		return;
	was = signal(SIGXFSZ, SIG_IGN);
	CHECK_OK(file_replace(in_dir("a"), S("old"), 0600, NULL));
	tight = old;
	tight.rlim_cur = 50;
	CHECK(setrlimit(RLIMIT_FSIZE, &tight) == 0);
	CHECK(file_replace(in_dir("a"), str_make(text, sizeof(text)), 0600, NULL) == ERR_LIMIT ||
	    FAULTED());
	CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
	signal(SIGXFSZ, was);
	if (file_read(in_dir("a"), 50, &b, NULL) == OK && !FAULTED())
		CHECK_STR(buf_view(&b), "old");
	remove(in_dir("a"));
	dir_end();
	buf_free(&b);
}

TEST(file_create)
{
	struct buf b = BUF_INIT(100);
	struct fail f = FAIL_INIT;
	mode_t mask = umask(0);

	if (dir_make()) {
		CHECK_OK(file_create(in_dir("a"), S("one"), &f));
		CHECK(mode_of(in_dir("a")) == 0600 || FAULTED());
		if (file_read(in_dir("a"), 50, &b, NULL) == OK && !FAULTED())
			CHECK_STR(buf_view(&b), "one");
		fail_clear(&f);
		CHECK_ERR(file_create(in_dir("a"), S("two"), &f), FAULTED() ? f.err : ERR_EXISTS);
		CHECK(strstr(f.text, "/a: File exists") || FAULTED());
		CHECK(symlink("nowhere", in_dir("link")) == 0);
		CHECK(file_create(in_dir("link"), S("x"), NULL) == ERR_EXISTS || FAULTED());
		CHECK(access(in_dir("nowhere"), F_OK) != 0);
		CHECK(file_create(in_dir("no/such"), S("x"), NULL) == ERR_NOTFOUND || FAULTED());
		remove(in_dir("a"));
		remove(in_dir("link"));
		dir_end();                      /* fails on whatever else is left */
	}
	umask(mask);
	buf_free(&b);
}

TEST(file_read)
{
	struct buf b = BUF_INIT(200000);
	struct fail f = FAIL_INIT;
	char big[150000];

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i % 251);
	if (!dir_make())
		return;
	buf_puts(&b, "head");
	CHECK_OK(file_replace(in_dir("a"), str_make(big, sizeof(big)), 0600, &f));
	if (!FAULTED()) {
		CHECK_ERR(file_read(in_dir("a"), sizeof(big) - 1, &b, &f), ERR_LIMIT);
		CHECK(strstr(f.text, "/a is larger than"));
		CHECK_STR(buf_view(&b), "head");
	}
	if (file_read(in_dir("a"), sizeof(big), &b, NULL) == OK)
		CHECK(b.n == sizeof(big) + 4 && memcmp(b.p + 4, big, sizeof(big)) == 0);
	else
		CHECK(FAULTED() && b.n <= 4);
	/* The buffer's own maximum counts as well, and is not left exceeded. */
	CHECK(file_read(in_dir("a"), sizeof(big), &b, NULL) != OK || FAULTED());
	CHECK(b.err == OK || FAULTED());
	fail_clear(&f);
	CHECK_ERR(file_read(in_dir("none"), 10, &b, &f), ERR_NOTFOUND);
	CHECK_ERR(file_read(dir, 10, &b, NULL), ERR_UNSUPPORTED);
	CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
	CHECK_ERR(file_read(in_dir("fifo"), 10, &b, NULL), ERR_UNSUPPORTED);
	remove(in_dir("fifo"));
	remove(in_dir("a"));
	dir_end();
	buf_free(&b);
}

TEST(file_mkdirs)
{
	struct fail f = FAIL_INIT;
	char longer[PATH_MAX + 10];

	if (!dir_make())
		return;
	CHECK_OK(file_mkdirs(in_dir("x//y/z/"), 0700, &f));
	CHECK_OK(file_mkdirs(in_dir("x/y/z"), 0700, &f));
	CHECK(mode_of(in_dir("x/y/z")) == 0700);
	CHECK_OK(file_replace(in_dir("x/file"), S("1"), 0600, NULL));
	if (!FAULTED()) {
		CHECK_ERR(file_mkdirs(in_dir("x/file"), 0700, &f), ERR_IO);
		CHECK(strstr(f.text, "x/file: Not a directory"));
		CHECK_ERR(file_mkdirs(in_dir("x/file/y"), 0700, NULL), ERR_IO);
	}
	CHECK_ERR(file_mkdirs("", 0700, NULL), ERR_NOTFOUND);
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	CHECK_ERR(file_mkdirs(longer, 0700, NULL), ERR_LIMIT);
	remove(in_dir("x/file"));
	rmdir(in_dir("x/y/z"));
	rmdir(in_dir("x/y"));
	rmdir(in_dir("x"));
	dir_end();
}

/* In a child, because a process does not conflict with itself: 0 = as it should be. */
static int
lock_in_child(const char *path, int held, enum err want, int holder)
{
	struct fail f = FAIL_INIT;
	int status = -1, fd = -1, who = -1;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		enum err e;

		if (held >= 0)
			close(held);
		e = file_lock(path, &fd, &who, &f);
		if (e == OK)
			close(fd);
		_exit(e == want && who == holder ? 0 : 1);
	}
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	return status;
}

TEST(file_lock)
{
	struct buf b = BUF_INIT(100);
	int fd = -1, holder = -1;
	char pid[32];

	if (!dir_make())
		return;
	if (file_lock(in_dir("lock"), &fd, &holder, NULL) != OK) {
		CHECK(FAULTED() && fd == -1 && holder == -1);
	} else {
		CHECK(lock_in_child(in_dir("lock"), fd, ERR_BUSY, (int)getpid()) == 0 || FAULTED());
		CHECK(mode_of(in_dir("lock")) == 0600);
		snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
		close(fd);
		if (file_read(in_dir("lock"), 50, &b, NULL) == OK)
			CHECK_STR(buf_view(&b), pid);
		buf_free(&b);           /* a child that exits would leak it */
		CHECK(lock_in_child(in_dir("lock"), -1, OK, -1) == 0 || FAULTED());
	}
	CHECK_ERR(file_lock(in_dir("no/such"), &fd, &holder, NULL), ERR_NOTFOUND);
	remove(in_dir("lock"));
	dir_end();
}

TEST(fd)
{
	char text[16];
	size_t n = 0;
	ssize_t got;
	int p[2];

	if (pipe(p) != 0)
		return;
	CHECK_OK(fd_cloexec(p[0]));
	CHECK(fcntl(p[0], F_GETFD) & FD_CLOEXEC);
	if (fd_nonblock(p[0]) == OK)
		CHECK(read(p[0], text, 1) == -1);       /* and does not hang */
	else
		CHECK(FAULTED());
	CHECK_OK(fd_write_all(p[1], "hello", 5));
	CHECK_OK(fd_write_all(p[1], NULL, 0));
	close(p[1]);
	while (n < sizeof(text) && (got = read(p[0], text + n, sizeof(text) - n)) > 0)
		n += (size_t)got;
	close(p[0]);
	if (!FAULTED())
		CHECK_STR(str_make(text, n), "hello");
	CHECK(fd_write_all(-1, "x", 1) != OK);
	CHECK(fd_cloexec(-1) != OK && fd_nonblock(-1) != OK);
}

TEST(fd_listen)
{
	struct fail f = FAIL_INIT;
	struct stat st;
	char longer[200];
	int fd = -1, other = -1, file;

	if (!dir_make())
		return;
	CHECK_OK(fd_listen(in_dir("s"), 4, &fd, &f));
	if (fd >= 0) {
		CHECK(lstat(in_dir("s"), &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600);
		CHECK(FAULTED() || (fcntl(fd, F_GETFD) & FD_CLOEXEC));
		CHECK_ERR(fd_listen(in_dir("s"), 4, &other, &f), ERR_BUSY);     /* whatever fails meanwhile, it is not taken */
		CHECK(other == -1);
		close(fd);              /* as a process that is killed: the name stays */
		fd = -1;
		fail_clear(&f);
		CHECK_OK(fd_listen(in_dir("s"), 4, &fd, &f));
		CHECK(fd < 0 || lstat(in_dir("s"), &st) == 0);
	}
	if (fd >= 0)
		close(fd);
	remove(in_dir("s"));
	file = open(in_dir("f"), O_CREAT | O_WRONLY, 0600);
	if (file >= 0) {
		close(file);
		CHECK_ERR(fd_listen(in_dir("f"), 4, &other, &f), ERR_EXISTS);
		CHECK(lstat(in_dir("f"), &st) == 0);
	}
	remove(in_dir("f"));
	CHECK_ERR(fd_listen(in_dir("no/such"), 4, &other, &f), ERR_NOTFOUND);
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	CHECK_ERR(fd_listen(longer, 4, &other, &f), ERR_LIMIT);
	CHECK(other == -1);
	dir_end();
}

/* ---- secrets ----------------------------------------------------------------- */

static void
check_scrub(const char *from, const char *to)
{
	char text[256];
	size_t n = strlen(from);

	memcpy(text, from, n);
	n = secret_scrub(text, n);
	CHECK_STR(str_make(text, n), to);
}

TEST(secret)
{
	static const char *const value[] = { "sk-abcd", "sk-abcdef123", "123XYZ", "abc", "aaaa" };
	struct secret s[ARRAY_LEN(value)];
	struct fail f = FAIL_INIT;
	char wiped[4] = "key";

	memset(s, 0, sizeof(s));
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		CHECK_OK(secret_set(&s[i], str_z(value[i])));
	if (!FAULTED()) {
		CHECK_STR(secret_reveal(&s[0]), "sk-abcd");
		check_scrub("key=sk-abcd.", "key=***.");
		check_scrub("sk-abcdef123", "***");             /* the longest, not the first */
		check_scrub("<sk-abcdef123XYZ>", "<***>");      /* overlapping */
		check_scrub("sk-abcdsk-abcd", "******");
		check_scrub("aaaaaaa", "***");
		check_scrub("sk-abc abc 12 XYZ", "sk-abc abc 12 XYZ");
		check_scrub("", "");
		CHECK_ERR(fail_set(&f, ERR_AUTH, "bad key sk-abcd, %s", "123XYZ"), ERR_AUTH);
		CHECK_STR(str_z(f.text), "bad key ***, ***");
	}
	secret_free(&s[1]);
	if (!FAULTED())
		check_scrub("sk-abcdef123", "***ef123");
	for (size_t i = 0; i < ARRAY_LEN(s); i++)
		secret_free(&s[i]);
	CHECK(s[0].p == NULL && secret_reveal(&s[0]).n == 0);
	check_scrub("sk-abcd", "sk-abcd");
	secret_wipe(wiped, 3);
	CHECK(memcmp(wiped, "\0\0\0", 4) == 0);
}

/* ---- log --------------------------------------------------------------------- */

static size_t
log_file_lines(struct buf *b)
{
	size_t lines = 0;

	buf_reset(b);
	if (file_read(in_dir("log"), b->max, b, NULL) != OK)
		return 0;
	for (size_t i = 0; i < b->n; i++)
		lines += b->p[i] == '\n' ? 1 : 0;
	return lines;
}

/* The nth line without its time stamp. */
static struct str
log_line(const struct buf *b, int n, size_t skip)
{
	struct str all = buf_view(b), line = STR_NONE;

	for (int i = 0; i <= n; i++)
		str_cut(&all, '\n', &line);
	return str_sub(line, skip, line.n);
}

#define JSON_SKIP 32u   /* {"ts":"2026-11-21T09:30:00.123Z" */

TEST(log_json)
{
	struct buf b = BUF_INIT(100000);
	struct secret s = { NULL, 0 };
	enum log_level before = log_get_level();
	int64_t at = 0;

	if (!dir_make())
		return;
	CHECK_OK(secret_set(&s, S("hunter22")));
	CHECK_OK(log_open(LOG_INFO, LOG_AUTO, in_dir("log"), NULL));
	if (!FAULTED()) {
		errno = EDOM;
		log_info("test", "plain %d", 1);
		CHECK(errno == EDOM);
		log_ids(3, 7, "0af7651916cd43dd8448eb211c80319c");
		log_warn("test", "\"q\" \\ \n\x1b[2J\xff" "\xE2\x80\xAE hunter22");
		log_debug("test", "not at this level");
		log_set_level(LOG_DEBUG);
		log_debug("test", "now it is");
		CHECK(log_file_lines(&b) == 3 && mode_of(in_dir("log")) == 0600);
		CHECK_STR(log_line(&b, 0, JSON_SKIP),
		    ",\"level\":\"info\",\"component\":\"test\",\"msg\":\"plain 1\"}");
		CHECK_STR(log_line(&b, 1, JSON_SKIP),
		    ",\"level\":\"warn\",\"component\":\"test\",\"session\":3,\"turn\":7,"
		    "\"trace\":\"0af7651916cd43dd8448eb211c80319c\",\"msg\":"
		    "\"\\\"q\\\" \\\\ \\n\\u001b[2J\xEF\xBF\xBD\\u202e ***\"}");
		CHECK_STR(str_z(log_last_problem(&at)),
		    "WARN  test: \"q\" \\ \\n\\u001b[2J\xEF\xBF\xBD\\u202e *** session=3 turn=7 trace=0af7651916cd43dd8448eb211c80319c");
		CHECK(at > 0);
	}
	log_ids(0, 0, NULL);
	log_close();
	log_set_level(before);
	secret_free(&s);
	remove(in_dir("log"));
	dir_end();
	buf_free(&b);
}

/* The cases of the W3C's own test suite that a single header can show. */
TEST(traces)
{
	static const struct { const char *header, *id; unsigned flags; } good[] = {
		{ "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c", 1 },
		{ "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "0af7651916cd43dd8448eb211c80319c", 0 },
		{ "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", "0af7651916cd43dd8448eb211c80319c", 3 },
		{ "cc-12345678901234567890123456789012-1234567890123456-01", "12345678901234567890123456789012", 1 },
		{ "cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like",
		    "12345678901234567890123456789012", 1 },
	};
	static const char *const bad[] = { "", "00", "00-", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
	    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
	    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
	    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331.01",
	    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-.0", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
	    "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-B7ad6b7169203331-01",
	    "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
	    "00-.af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
	    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0f7-af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	    ".0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	    "cc-12345678901234567890123456789012-1234567890123456-01.what", "00 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 01",
	    "0F-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" };
	struct trace t = { "", 0 }, two = { "", 0 };
	char a[TRACE_HEADER_SIZE], b[TRACE_HEADER_SIZE];

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		CHECK_OK(trace_parse(str_z(good[i].header), &t));
		CHECK_STR(str_z(t.id), good[i].id);
		CHECK(t.flags == good[i].flags);
	}
	t.id[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		CHECK(trace_parse(str_z(bad[i]), &t) == ERR_PARSE && t.id[0] == '\0');
	CHECK_OK(trace_parse(str_z(good[0].header), &t));
	CHECK_OK(trace_header(&t, a));
	CHECK_OK(trace_header(&t, b));
	if (!FAULTED()) {               /* the same trace, another span */
		CHECK(memcmp(a, good[0].header, 36) == 0 && strcmp(a + 52, "-01") == 0 && memcmp(a + 36, b + 36, 16) != 0);
		CHECK_OK(trace_parse(str_z(a), &two));
	}
	CHECK_OK(trace_new(&t));
	CHECK_OK(trace_new(&two));
	CHECK(FAULTED() || (strlen(t.id) == 32 && strcmp(t.id, two.id) != 0 && t.flags == 0));
}

TEST(log_long)
{
	struct buf b = BUF_INIT(100000);
	enum log_level before = log_get_level();
	struct secret s = { NULL, 0 };
	char big[6000];

	if (!dir_make())
		return;
	for (size_t i = 0; i + 3 < sizeof(big); i += 3)
		memcpy(big + i, "\xE2\x82\xAC", 4);
	CHECK_OK(secret_set(&s, S("hunter22")));
	CHECK_OK(log_open(LOG_INFO, LOG_JSON, in_dir("log"), NULL));
	log_error("test", "%s", big);
	memset(big, '"', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_error("test", "%s", big);
	/* Where the line is cut stood a secret: it must not come through in half. */
	memset(big, 'x', 1019);
	memcpy(big + 1019, "hunter22", 9);
	log_error("test", "%s", big);
	if (!FAULTED()) {
		CHECK(log_file_lines(&b) == 3);
		for (int i = 0; i < 2; i++) {
			struct str line = log_line(&b, i, 0);

			CHECK(line.n < 4096 && line.n > 4000 && utf8_valid(line));
			CHECK(str_ends(line, S("\xE2\x80\xA6\"}")));
			CHECK(i == 0 || str_ends(line, S("\\\"\xE2\x80\xA6\"}")));
		}
		CHECK(str_ends(log_line(&b, 2, 0), S("xx***\"}")));
		CHECK(strlen(log_last_problem(NULL)) < 512);
	}
	log_close();
	log_set_level(before);
	secret_free(&s);
	remove(in_dir("log"));
	dir_end();
	buf_free(&b);
}

TEST(log_text)
{
	struct buf b = BUF_INIT(1000);
	enum log_level before = log_get_level(), level = LOG_TRACE;
	struct fail f = FAIL_INIT;

	if (!dir_make())
		return;
	CHECK_OK(log_open(LOG_ERROR, LOG_TEXT, in_dir("log"), &f));
	log_ids(3, 0, NULL);
	log_error("test", "one");
	log_warn("test", "only remembered");
	if (!FAULTED()) {
		CHECK(log_file_lines(&b) == 1);
		CHECK_STR(log_line(&b, 0, 24), " ERROR test: one session=3");
		CHECK_STR(str_z(log_last_problem(NULL)), "WARN  test: only remembered session=3");
		CHECK(remove(in_dir("log")) == 0);
		CHECK_OK(log_reopen());
		log_error("test", "two");
		CHECK(log_file_lines(&b) == 1 || FAULTED());
	}
	CHECK_ERR(log_open(LOG_INFO, LOG_AUTO, in_dir("no/such"), &f), ERR_NOTFOUND);
	CHECK(strstr(f.text, "no/such") || FAULTED());
	log_ids(0, 0, NULL);
	log_close();
	log_set_level(before);
	CHECK_OK(log_level_parse(S("Debug"), &level));
	CHECK(level == LOG_DEBUG && strcmp(log_level_name(LOG_TRACE), "trace") == 0);
	CHECK_ERR(log_level_parse(S("loud"), &level), ERR_PARSE);
	remove(in_dir("log"));
	dir_end();
	buf_free(&b);
}

TEST(fatal)
{
	char text[200];
	int p[2], status = 0;
	size_t n = 0;
	ssize_t got;
	pid_t child;

	if (pipe(p) != 0)
		return;
	fflush(stdout);
	child = fork();
	if (child == 0) {
		dup2(p[1], STDERR_FILENO);
		close(p[0]);
		close(p[1]);
		fatal(EXIT_CONFIG, "no key in %s\ntype: blufio\x1b setup", "x.toml");
	}
	close(p[1]);
	while ((got = read(p[0], text + n, sizeof(text) - n)) > 0)
		n += (size_t)got;
	close(p[0]);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	if (!FAULTED()) {
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CONFIG);
		CHECK_STR(str_make(text, n),
		    "blufio: no key in x.toml\ntype: blufio\\u001b setup\n");
	}
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(fatal);
	RUN(err);
	RUN(fail);
	RUN(str);
	RUN(str_i64);
	RUN(str_distance);
	RUN(buf);
	RUN(buf_limit);
	RUN(arena);
	RUN(arena_limit);
	RUN(map);
	RUN(map_limit);
	RUN(clock);
	RUN(clock_calendar);
	RUN(clock_span);
	RUN(rand);
	RUN(files_and_times_are_wide);
	RUN(file_replace);
	RUN(file_replace_fails);
	RUN(file_create);
	RUN(file_read);
	RUN(file_mkdirs);
	RUN(file_lock);
	RUN(fd);
	RUN(fd_listen);
	RUN(secret);
	RUN(log_json);
	RUN(traces);
	RUN(log_long);
	RUN(log_text);
	return TEST_END();
}
