/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_cron.c - what is understood and what is refused, in words; when it happens, over changes of the clocks. */
#include "core/cron.h"
#include "test.h"

#include <stdlib.h>
#include <time.h>

#define UTC "UTC0"
#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"             /* 2026: forward on 29 March at 01:00Z, back on 25 October at 01:00Z */
#define SYDNEY "AEST-10AEDT,M10.1.0,M4.1.0/3"           /* forward on 4 October at 16:00Z the day before, back on 5 April */
#define LORD_HOWE "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"        /* by half an hour */
#define NEW_YORK "EST5EDT,M3.2.0,M11.1.0"
#define CHATHAM "<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45"

static void
zone(const char *tz)
{
	if (setenv("TZ", tz, 1) != 0)
		abort();
	tzset();
}

static int64_t
utc(const char *iso)
{
	int64_t us = 0;

	CHECK_OK(clock_parse(str_z(iso), &us));
	return us;
}

/* The next moments, in local time, with a Z behind those that are another minute of the same name. */
static const struct { const char *zone, *schedule, *after, *want; } moments[] = {
	{ UTC, "* * * * *", "2026-03-01T12:00:59Z", "Sun 2026-03-01 12:01, Sun 2026-03-01 12:02, " },
	{ UTC, "*/20 8-10/2 * * *", "2026-03-01T08:39:00Z", "Sun 2026-03-01 08:40, Sun 2026-03-01 10:00, " },
	{ UTC, "0 9 * * 1-5", "2026-03-06T09:00:00Z", "Mon 2026-03-09 09:00, Tue 2026-03-10 09:00, " },
	{ UTC, "0 9 * * mon,Wed,FRI", "2026-03-06T09:00:00Z", "Mon 2026-03-09 09:00, Wed 2026-03-11 09:00, " },
	{ UTC, "0 9 * * fri-sun", "2026-03-06T09:00:00Z", "Sat 2026-03-07 09:00, Sun 2026-03-08 09:00, " },
	{ UTC, "0 9 * * 7-1", "2026-03-06T09:00:00Z", "Sun 2026-03-08 09:00, Mon 2026-03-09 09:00, " },
	{ UTC, "0\t9\t*  *\t mon", "2026-03-06T09:00:00Z", "Mon 2026-03-09 09:00, Mon 2026-03-16 09:00, " },
	{ UTC, "0 9 * * 7", "2026-03-06T09:00:00Z", "Sun 2026-03-08 09:00, Sun 2026-03-15 09:00, " },
	{ UTC, "0 9 * * 0", "2026-03-06T09:00:00Z", "Sun 2026-03-08 09:00, Sun 2026-03-15 09:00, " },
	{ UTC, "30 6 1,15 jan-feb,dec *", "2026-02-15T06:30:00Z", "Tue 2026-12-01 06:30, Tue 2026-12-15 06:30, " },
	/* both days given: either is enough; one with a star: both must fit */
	{ UTC, "0 0 13 * fri", "2026-03-01T00:00:00Z", "Fri 2026-03-06 00:00, Fri 2026-03-13 00:00, " },
	{ UTC, "0 0 */2 * fri", "2026-03-01T00:00:00Z", "Fri 2026-03-13 00:00, Fri 2026-03-27 00:00, " },
	{ UTC, "0 0 30 2 1", "2026-02-24T00:00:00Z", "Mon 2027-02-01 00:00, Mon 2027-02-08 00:00, " },
	{ UTC, "0 0 31 * *", "2026-03-31T00:00:00Z", "Sun 2026-05-31 00:00, Fri 2026-07-31 00:00, " },
	{ UTC, "0 0 29 2 *", "2026-03-01T00:00:00Z", "Tue 2028-02-29 00:00, Sun 2032-02-29 00:00, " },
	{ UTC, "0 0 29 2 *", "2096-03-01T00:00:00Z", "Fri 2104-02-29 00:00, Wed 2108-02-29 00:00, " },
	{ UTC, "0 0 29 2 */6", "2026-03-01T00:00:00Z", "Sun 2032-02-29 00:00, Sat 2048-02-29 00:00, " },
	{ UTC, "@hourly", "2026-03-01T12:00:00Z", "Sun 2026-03-01 13:00, Sun 2026-03-01 14:00, " },
	{ UTC, "@Daily", "2026-03-01T12:00:00Z", "Mon 2026-03-02 00:00, Tue 2026-03-03 00:00, " },
	{ UTC, "@weekly", "2026-03-01T12:00:00Z", "Sun 2026-03-08 00:00, Sun 2026-03-15 00:00, " },
	{ UTC, "@monthly", "2026-12-01T12:00:00Z", "Fri 2027-01-01 00:00, Mon 2027-02-01 00:00, " },
	{ UTC, "@yearly", "2026-12-01T12:00:00Z", "Fri 2027-01-01 00:00, Sat 2028-01-01 00:00, " },
	{ UTC, "2026-12-24 18:00", "2026-12-24T17:59:59Z", "Thu 2026-12-24 18:00, never" },
	{ UTC, "2026-12-24 18:00", "2026-12-24T18:00:00Z", "never" },
	{ UTC, "2096-02-29 00:00", "1970-01-01T00:00:00Z", "Wed 2096-02-29 00:00, never" },
	{ NEW_YORK, "2026-12-24 18:00", "2026-03-01T00:00:00Z", "Thu 2026-12-24 18:00, never" },
	/* forward: what is left out is done at once, and only once; hours that pass are counted */
	{ BERLIN, "30 2 * * *", "2026-03-27T12:00:00Z", "Sat 2026-03-28 02:30, Sun 2026-03-29 03:00, Mon 2026-03-30 02:30, " },
	{ BERLIN, "0,30 2,3 * * *", "2026-03-28T12:00:00Z", "Sun 2026-03-29 03:00, Sun 2026-03-29 03:30, Mon 2026-03-30 02:00, " },
	{ BERLIN, "0 3 * * *", "2026-03-28T12:00:00Z", "Sun 2026-03-29 03:00, Mon 2026-03-30 03:00, " },
	{ BERLIN, "30 * * * *", "2026-03-29T00:00:00Z", "Sun 2026-03-29 01:30, Sun 2026-03-29 03:30, Sun 2026-03-29 04:30, " },
	{ BERLIN, "*/30 2 * * *", "2026-03-28T12:00:00Z", "Mon 2026-03-30 02:00, Mon 2026-03-30 02:30, " },
	{ BERLIN, "2026-03-29 02:30", "2026-03-01T00:00:00Z", "Sun 2026-03-29 03:00, never" },
	{ NEW_YORK, "30 2 * 3 sun", "2026-03-07T12:00:00Z", "Sun 2026-03-08 03:00, Sun 2026-03-15 02:30, " },
	{ SYDNEY, "15 2 * * *", "2026-10-03T00:00:00Z", "Sun 2026-10-04 03:00, Mon 2026-10-05 02:15, " },
	{ LORD_HOWE, "15 2 * * *", "2026-10-03T00:00:00Z", "Sun 2026-10-04 02:30, Mon 2026-10-05 02:15, " },
	{ CHATHAM, "45 2 * * *", "2026-09-26T00:00:00Z", "Sun 2026-09-27 03:45, Mon 2026-09-28 02:45, " },
	/* back: a time of the day comes once, hours that pass are counted */
	{ BERLIN, "30 2 * * *", "2026-10-24T12:00:00Z", "Sun 2026-10-25 02:30, Mon 2026-10-26 02:30, " },
	{ BERLIN, "30 2 * * *", "2026-10-25T01:00:00Z", "Mon 2026-10-26 02:30, " },
	{ BERLIN, "30 * * * *", "2026-10-24T23:45:00Z", "Sun 2026-10-25 02:30, Sun 2026-10-25 02:30Z, Sun 2026-10-25 03:30, " },
	{ BERLIN, "2026-10-25 02:30", "2026-03-01T00:00:00Z", "Sun 2026-10-25 02:30, never" },
	{ SYDNEY, "59 2 * * *", "2026-04-04T12:00:00Z", "Sun 2026-04-05 02:59, Mon 2026-04-06 02:59, " },
	{ LORD_HOWE, "45 1 * * *", "2026-04-04T12:00:00Z", "Sun 2026-04-05 01:45, Mon 2026-04-06 01:45, " },
	{ LORD_HOWE, "45 * * * *", "2026-04-04T13:50:00Z", "Sun 2026-04-05 01:45, Sun 2026-04-05 01:45Z, Sun 2026-04-05 02:45, " },
};

TEST(next)
{
	for (size_t i = 0; i < ARRAY_LEN(moments); i++) {
		struct buf got = BUF_INIT(1024);
		struct cron c = { 0 };
		struct fail f = FAIL_INIT;
		char text[32], before[32] = "";
		int64_t at = utc(moments[i].after);
		size_t lines = 0;

		for (const char *p = moments[i].want; *p; p++)
			lines += *p == ',';
		zone(moments[i].zone);
		CHECK_OK(cron_parse(str_z(moments[i].schedule), &c, &f));
		for (size_t k = 0; k < lines; k++) {
			int64_t next = cron_next(&c, at);

			CHECK(next > at);
			at = next;
			cron_local(at, text);
			buf_fmt(&got, "%s%s, ", text, strcmp(text, before) == 0 ? "Z" : "");
			memcpy(before, text, sizeof(text));
		}
		if (cron_next(&c, at) == CRON_NEVER)
			buf_puts(&got, "never");
		CHECK(FAULTED() || str_eqz(buf_view(&got), moments[i].want));
		if (!FAULTED() && !str_eqz(buf_view(&got), moments[i].want))
			printf("  %s \"%s\"\n  got:  %s\n  want: %s\n", moments[i].zone, moments[i].schedule, buf_z(&got), moments[i].want);
		buf_free(&got);
	}
	zone(UTC);
}

static bool
fits(const struct cron *c, int64_t wall)
{
	time_t t = (time_t)wall;
	struct tm tm;
	bool day, weekday;

	gmtime_r(&t, &tm);
	day = c->days >> tm.tm_mday & 1;
	weekday = c->weekdays >> tm.tm_wday & 1;
	return c->minutes >> tm.tm_min & 1 && c->hours >> tm.tm_hour & 1 && c->months >> (tm.tm_mon + 1) & 1 &&
	    (c->either ? day || weekday : day && weekday);
}

static int64_t
wall(int64_t t)
{
	time_t clock = (time_t)t;
	struct tm tm;

	localtime_r(&clock, &tm);
	return clock_days(tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday) * 86400 + tm.tm_hour * 3600 + tm.tm_min * 60;
}

static uint64_t dice = 88172645463325252u;

static unsigned
roll(unsigned n)
{
	dice ^= dice << 13;
	dice ^= dice >> 7;
	dice ^= dice << 17;
	return (unsigned)(dice >> 24) % n;
}

/* Random schedules over each change of the clocks, against a walk from minute to minute that remembers the latest time
 * that a clock on the wall has shown. */
TEST(minute_by_minute)
{
	static const struct { const char *zone, *from; } changes[] = { { BERLIN, "2026-03-28T20:00:00Z" }, { BERLIN, "2026-10-24T20:00:00Z" },
	    { SYDNEY, "2026-10-03T08:00:00Z" }, { SYDNEY, "2026-04-04T08:00:00Z" }, { LORD_HOWE, "2026-10-03T08:00:00Z" },
	    { LORD_HOWE, "2026-04-04T08:00:00Z" }, { CHATHAM, "2026-09-26T08:00:00Z" }, { NEW_YORK, "2026-12-31T20:00:00Z" } };
	static const char *const minutes[] = { "*", "*/7", "*/30", "0", "30", "15,45", "0-29/10", "59" };
	static const char *const hours[] = { "*", "*/2", "0", "1", "2", "3", "1-3", "23" };
	static const char *const days[] = { "*", "1", "*/2", "25,29", "28-31" };
	static const char *const weekdays[] = { "*", "sun", "1-5", "*/3" };
	int bad = 0;

	for (size_t i = 0; i < 400 && bad == 0; i++) {
		size_t k = i % ARRAY_LEN(changes);
		struct fail f = FAIL_INIT;
		struct cron c = { 0 };
		char line[64];
		int64_t t = utc(changes[k].from) / US_PER_S, end = t + 30 * 3600, high, next;

		zone(changes[k].zone);
		snprintf(line, sizeof(line), "%s %s %s * %s", minutes[roll(8)], hours[roll(8)], days[roll(5)], weekdays[roll(4)]);
		CHECK_OK(cron_parse(str_z(line), &c, &f));
		high = wall(t);
		next = cron_next(&c, t * US_PER_S);
		for (t += 60; t < end && bad == 0; t += 60) {
			int64_t w = wall(t);
			bool fires = c.real && fits(&c, w);

			for (int64_t m = high + 60; !c.real && m <= w; m += 60)
				fires = fires || fits(&c, m);
			if (w > high)
				high = w;
			bad += fires != (next == t * US_PER_S);
			if (next <= t * US_PER_S)
				next = cron_next(&c, t * US_PER_S);
		}
		if (bad)
			printf("  \"%s\" in %s at %lld\n", line, changes[k].zone, (long long)t);
	}
	CHECK(bad == 0);
	zone(UTC);
}

/* Whatever the clock says, the next moment is later. */
TEST(strange_clocks)
{
	static const int64_t clocks[] = { INT64_MIN, -1, 0, 1, 253370764800 * US_PER_S, INT64_MAX };
	struct fail f = FAIL_INIT;
	struct cron c = { 0 };
	char text[32];

	CHECK_OK(cron_parse(S("0 9 * * *"), &c, &f));
	for (size_t i = 0; i < ARRAY_LEN(clocks); i++) {
		CHECK(cron_next(&c, clocks[i]) > clocks[i] || clocks[i] == INT64_MAX);
		cron_local(clocks[i], text);
		CHECK(strlen(text) == 20);
	}
}

TEST(refused)
{
	static const char *const bad[][2] = {
		{ "", "five fields are wanted" }, { "* * * *", "here are 4" }, { "* * * * * *", "\"*\" is too much" },
		{ "60 * * * *", "\"60\" is no minute (0 to 59)" }, { "-1 * * * *", "is no minute" }, { "* 24 * * *", "\"24\" is no hour" },
		{ "* * 0 * *", "is no day of the month" }, { "* * 32 * *", "is no day of the month" }, { "* * * 13 *", "is no month" },
		{ "* * * jann *", "\"jann\" is no month (1 to 12, or a name)" }, { "* * * * 8", "is no day of the week" },
		{ "*/0 * * * *", "the step is 1 to 59" }, { "*/60 * * * *", "the step is" }, { "*/x * * * *", "the step is" },
		{ "5/2 * * * *", "a step wants a range" }, { "1-x * * * *", "\"x\" is no minute" }, { "1- * * * *", "\"\" is no minute" },
		{ "* 22-2 * * *", "\"22-2\" runs backwards; write two ranges: 22-23,0-2" }, { "* * * * sat-mon", "runs backwards" },
		{ "1,,2 * * * *", "\"\" is no minute" }, { ", * * * *", "is no minute" }, { "** * * * *", "\"**\" is no minute" },
		{ "0 0 30 2 *", "it would never happen" }, { "0 0 31 4,6,9,11 *", "it would never happen" }, { "0 0 30-31 feb *", "never" },
		{ "@reboot", "\"@reboot\" is none of @hourly" }, { "@", "is none of" }, { "@daily please", "\"please\" is too much" },
		{ "2026-13-01 18:00", "\"2026-13-01\" is no date" }, { "2027-02-29 18:00", "is no date" }, { "2026-02-1 18:00", "is no date" },
		{ "2026-12-24", "\"\" is no time of the day" }, { "2026-12-24 24:00", "\"24:00\" is no time" }, { "2026-12-24 1:00", "is no time" },
		{ "2026-12-24 18:00:00", "is no time" }, { "2026-12-24 18:60", "is no time" }, { "1969-12-24 18:00", "is no date" },
		{ "2026-12-24x 18:00", "is no date" },
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct fail f = FAIL_INIT;
		struct cron c;

		CHECK_ERR(cron_parse(str_z(bad[i][0]), &c, &f), ERR_PARSE);
		CHECK(strstr(f.text, bad[i][1]));
		if (!strstr(f.text, bad[i][1]))
			printf("  \"%s\": %s\n", bad[i][0], f.text);
	}
}

/* What is longer than any use of it is not even looked at. */
TEST(long_field)
{
	struct buf b = BUF_INIT(1u << 20);
	struct fail f = FAIL_INIT;
	struct cron c;

	for (int i = 0; i < 100000; i++)
		buf_puts(&b, "1,");
	buf_puts(&b, "1 * * * *");
	CHECK_ERR(b.err != OK ? ERR_PARSE : cron_parse(buf_view(&b), &c, &f), ERR_PARSE);
	CHECK(FAULTED() || strstr(f.text, "at most 200 bytes"));
	buf_free(&b);
}

/* The text behind a schedule is left for others. */
TEST(taken_from_the_head)
{
	static const char *const heads[] = { "  0 9 * * 1-5   Remind  me", "@daily Remind  me", "2026-12-24 18:00  Remind  me " };
	struct fail f = FAIL_INIT;

	for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
		struct str text = str_z(heads[i]);
		struct cron c;

		CHECK_OK(cron_take(&text, &c, &f));
		CHECK_STR(text, "Remind  me");
	}
}

TEST(windows)
{
	static const char *const bad[] = { "", "22:00", "22:00-", "-07:00", "22:00-22:00", "22:00-7:00", "22-07", "25:00-07:00", "22:00-07:00 " };
	struct cron from = { 0 }, to = { 0 };
	struct fail f = FAIL_INIT;
	int64_t now = utc("2026-03-01T23:30:00Z");

	CHECK_OK(cron_window(S("22:00-07:00"), &from, &to, &f));
	CHECK(cron_next(&from, now) == utc("2026-03-02T22:00:00Z") && cron_next(&to, now) == utc("2026-03-02T07:00:00Z"));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		fail_clear(&f);
		CHECK_ERR(cron_window(str_z(bad[i]), &from, &to, &f), ERR_PARSE);
		CHECK(f.text[0] != '\0');
	}
}

TEST(zones)
{
	static const char *const good[] = { "UTC", "UTC0", BERLIN, CHATHAM, "EST5EDT" };
	static const char *const bad[] = { "", "Europe/Berlim", "Berlin", "../etc/passwd", "/etc/localtime", "CE-1", "CET-", "<+1-1", "CET-x", "." };
	struct fail f = FAIL_INIT;
	char text[32];

	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		CHECK_OK(cron_zone_check(str_z(good[i]), &f));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		fail_clear(&f);
		CHECK_ERR(cron_zone_check(str_z(bad[i]), &f), ERR_CONFIG);
		CHECK(strstr(f.text, "knows no time zone"));
	}
	CHECK_OK(cron_zone_use(S(BERLIN), &f));
	cron_local(utc("2026-07-01T12:00:00Z"), text);
	CHECK_STR(str_z(text), "Wed 2026-07-01 14:00");
	CHECK_OK(cron_zone_use(STR_NONE, &f));          /* the one that the system has stays */
	cron_local(utc("2026-07-01T12:00:00Z"), text);
	CHECK_STR(str_z(text), "Wed 2026-07-01 14:00");
	fail_clear(&f);
	if (cron_zone_check(S("Asia/Kolkata"), &f) == OK) {
		CHECK_OK(cron_zone_use(S("Asia/Kolkata"), &f));
		cron_local(utc("2026-07-01T12:00:00Z"), text);
		CHECK_STR(str_z(text), "Wed 2026-07-01 17:30");
	}
	zone(UTC);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	zone(UTC);
	RUN(next);
	RUN(minute_by_minute);
	RUN(strange_clocks);
	RUN(refused);
	RUN(long_field);
	RUN(taken_from_the_head);
	RUN(windows);
	RUN(zones);
	return TEST_END();
}
