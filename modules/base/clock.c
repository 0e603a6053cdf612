/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * clock.c - the only sources of time and chance.
 *
 * Everything that asks what time it is or wants a random number comes through
 * here, so a simulation can replace this one file. Time is a signed count of
 * microseconds: UTC since 1970 for what is stored or shown, monotonic for what
 * is waited for.
 *
 * Dates are computed here and not by the C library: no time zone files, no
 * locale, no hidden allocation, and years beyond 2038 on 32-bit machines. The
 * method counts days in 400-year eras that begin on 1 March, which puts the
 * leap day at the end of a year, where it disturbs nothing.
 *
 * Randomness is the kernel's. If it has none the caller is told, because a weak
 * random number is worse than none.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/base.h"

#include <assert.h>
#include <errno.h>
#include <unistd.h>

#define ENTROPY_MAX ((size_t)256)       /* what getentropy gives at once */
#define DAYS_PER_ERA 146097             /* 400 years */
#define DAY_ZERO_US (-719468 * US_PER_DAY)      /* 0000-03-01, where the eras begin */
#define ISO_MAX_US (2932897 * US_PER_DAY - 1)   /* the end of 9999 */

static int64_t
read_clock(clockid_t id)
{
	struct timespec ts;
	int failed = clock_gettime(id, &ts);

	assert(failed == 0);            /* both clocks are required by POSIX */
	return (int64_t)ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
}

int64_t
clock_us(void)
{
	return read_clock(CLOCK_REALTIME);
}

int64_t
clock_mono_us(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

enum err
rand_bytes(void *p, size_t n)
{
	for (size_t at = 0, part; at < n; at += part) {
		part = n - at < ENTROPY_MAX ? n - at : ENTROPY_MAX;
		if (getentropy((char *)p + at, part) != 0)
			return err_errno(errno);
	}
	return OK;
}

uint32_t
rand_u32(void)
{
	uint32_t v;

	return rand_bytes(&v, sizeof(v)) == OK ? v : 0;
}

int64_t
clock_day_start(int64_t us)
{
	int64_t into = us % US_PER_DAY, start;

	if (into < 0)
		into += US_PER_DAY;
	/* Only the first hours of all time have no midnight before them. */
	return add_i64(us, -into, &start) ? INT64_MIN : start;
}

void
clock_month(int64_t us, int64_t *from, int64_t *to)
{
	char iso[32];
	int month;

	clock_iso(us, iso);
	memcpy(iso + 8, "01T00:00:00.000Z", 17);
	if (clock_parse(str_z(iso), from) != OK)
		*from = clock_day_start(us);    /* never: clock_iso gives what clock_parse takes */
	month = (iso[5] - '0') * 10 + iso[6] - '0';
	*to = *from + 31 * US_PER_DAY;
	clock_iso(*to, iso);
	if ((iso[5] - '0') * 10 + iso[6] - '0' != month % 12 + 1 || clock_parse(str_z(iso), to) != OK)
		return;
	memcpy(iso + 8, "01T00:00:00.000Z", 17);
	if (clock_parse(str_z(iso), to) != OK)
		*to = *from + 31 * US_PER_DAY;
}

static void
put_digits(char *at, int width, int64_t v)
{
	for (; width > 0; v /= 10)
		at[--width] = (char)('0' + v % 10);
}

void
clock_iso(int64_t us, char out[32])
{
	int64_t into, day, of_era, year_of_era, of_year, month5, year;

	/* Four digits of year is what the format has; no real time is outside. */
	if (us < DAY_ZERO_US)
		us = DAY_ZERO_US;
	if (us > ISO_MAX_US)
		us = ISO_MAX_US;
	day = (clock_day_start(us) - DAY_ZERO_US) / US_PER_DAY;
	into = us - clock_day_start(us);
	of_era = day % DAYS_PER_ERA;
	/* Takes out the leap days of 4, 100 and 400 years, then years are 365 days. */
	year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	month5 = (5 * of_year + 2) / 153;       /* 0 is March: 153 days in any five months */
	year = day / DAYS_PER_ERA * 400 + year_of_era + (month5 >= 10 ? 1 : 0);
	memcpy(out, "0000-00-00T00:00:00.000Z", 25);
	put_digits(out, 4, year);
	put_digits(out + 5, 2, month5 < 10 ? month5 + 3 : month5 - 9);
	put_digits(out + 8, 2, of_year - (153 * month5 + 2) / 5 + 1);
	put_digits(out + 11, 2, into / (3600 * US_PER_S));
	put_digits(out + 14, 2, into / (60 * US_PER_S) % 60);
	put_digits(out + 17, 2, into / US_PER_S % 60);
	put_digits(out + 20, 3, into / US_PER_MS % 1000);
}

/* The number that the first n bytes are, all digits; -1: they are not. */
static int64_t
take_digits(struct str *s, size_t n)
{
	int64_t v = 0;

	if (s->n < n)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (s->p[i] < '0' || s->p[i] > '9')
			return -1;
		v = v * 10 + s->p[i] - '0';
	}
	*s = str_sub(*s, n, s->n);
	return v;
}

static bool
take(struct str *s, const char *text)
{
	bool there = str_starts(*s, str_z(text));

	if (there)
		*s = str_sub(*s, strlen(text), s->n);
	return there;
}

int64_t
clock_days(int64_t year, int64_t month, int64_t day)
{
	int64_t of_era, y = month > 2 ? year : year - 1;

	if (year < 1 || month < 1 || month > 12 || day < 1 || day > 31)
		return INT64_MIN;
	of_era = y % 400 * 365 + y % 400 / 4 - y % 400 / 100 + (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	return y / 400 * DAYS_PER_ERA + of_era + DAY_ZERO_US / US_PER_DAY;
}

/* "12:34:56" */
static int64_t
take_time(struct str *s)
{
	int64_t h = take_digits(s, 2), m = take(s, ":") ? take_digits(s, 2) : -1, sec = take(s, ":") ? take_digits(s, 2) : -1;

	return h < 0 || h > 23 || m < 0 || m > 59 || sec < 0 || sec > 60 ? -1 : h * 3600 + m * 60 + sec;
}

static int64_t
take_month(struct str *s)
{
	static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	size_t at = s->n < 3 ? SIZE_MAX : str_find(str_z(names), str_sub(*s, 0, 3));

	if (at == SIZE_MAX || at % 3 != 0)
		return -1;
	*s = str_sub(*s, 3, s->n);
	return (int64_t)at / 3 + 1;
}

/* clock_iso backwards */
FALLIBLE
clock_parse(struct str s, int64_t *us)
{
	bool http = s.n > 5 && s.p[3] == ',';
	int64_t year, month, day, time, date, part = US_PER_S, more = 0, offset = 0;

	if (http) {
		s = str_sub(s, 4, s.n);
		day = take(&s, " ") ? take_digits(&s, 2) : -1;
		month = take(&s, " ") ? take_month(&s) : -1;
		year = take(&s, " ") ? take_digits(&s, 4) : -1;
	} else {
		year = take_digits(&s, 4);
		month = take(&s, "-") ? take_digits(&s, 2) : -1;
		day = take(&s, "-") ? take_digits(&s, 2) : -1;
	}
	date = clock_days(year, month, day);
	time = take(&s, http ? " " : "T") ? take_time(&s) : -1;
	if (date == INT64_MIN || time < 0)
		return ERR_PARSE;
	if (!http && take(&s, "."))
		for (int64_t d; (d = take_digits(&s, 1)) >= 0;)
			more += d * (part /= 10);
	if (!take(&s, http ? " GMT" : "Z")) {
		bool east = take(&s, "+");
		int64_t h, m;

		if (http || (!east && !take(&s, "-")))
			return ERR_PARSE;
		h = take_digits(&s, 2);
		m = take(&s, ":") ? take_digits(&s, 2) : -1;
		if (h < 0 || h > 23 || m < 0 || m > 59)
			return ERR_PARSE;
		offset = (h * 3600 + m * 60) * (east ? 1 : -1);
	}
	if (s.n)
		return ERR_PARSE;
	*us = date * US_PER_DAY + (time - offset) * US_PER_S + more;
	return OK;
}

void
clock_span(int64_t us, char out[32])
{
	static const struct {
		int64_t us;
		const char *name;
	} unit[] = {
		{ US_PER_DAY, "d" }, { 3600 * US_PER_S, "h" }, { 60 * US_PER_S, "min" },
		{ US_PER_S, "s" }, { US_PER_MS, "ms" }
	};
	size_t i = 0;
	int many, rest;

	if (us < US_PER_MS) {           /* a span that a clock set back made negative is none */
		snprintf(out, 32, "%d s", 0);
		return;
	}
	while (us < unit[i].us)
		i++;
	many = (int)(us / unit[i].us);
	/* Milliseconds are told only alone: "3 s 12 ms" is more than anybody asked. */
	rest = i < 3 ? (int)(us % unit[i].us / unit[i + 1].us) : 0;
	if (rest)
		snprintf(out, 32, "%d %s %d %s", many, unit[i].name, rest, unit[i + 1].name);
	else
		snprintf(out, 32, "%d %s", many, unit[i].name);
}
