/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cron.c - when something is to happen: cron lines, single moments, windows.
 *
 * cron_next walks local time in the largest steps that pass nothing by: to the
 * next month, day, hour or minute. A step is taken when both of its ends have the
 * same offset from UTC; else a smaller one is, so that it goes minute by minute
 * over a change of the clocks, and sees it.
 *
 * What happens at such a change is what Vixie's cron does. A schedule whose minute
 * or hour begins with a star counts real time: an hourly one runs every real
 * hour, twice in the hour that comes twice, and not in one that is left out. Any
 * other names a time of the day: what the clocks leave out is done in the first
 * minute after it, what comes twice is done the first time.
 *
 * As there, too: when day of the month and day of the week are both given (neither
 * begins with a star), either of them is enough.
 */
#include "core/cron.h"

#include <stdlib.h>
#include <time.h>

#define DAY_S 86400
#define FIELD_MAX 200                   /* bytes: all minutes by number have 169 */
#define STEPS_MAX 40000                 /* 50 years of 29 February on a Monday */
#define LATEST_S 253370764800           /* 9999: no clock goes beyond */
#define SHIFT_MAX_S (3 * 3600)          /* no clock is set back further at once */

/* ---- local time ---------------------------------------------------------------------------------- */

/* Its fields; returns its offset from UTC. */
static int64_t
local(int64_t t, struct tm *tm)
{
	time_t clock = (time_t)t;

	if (localtime_r(&clock, tm) == NULL && gmtime_r(&clock, tm) == NULL)
		*tm = (struct tm){ .tm_year = 70, .tm_mday = 1, .tm_wday = 4 };         /* never: t is within bounds */
	return clock_days(tm->tm_year + 1900, tm->tm_mon + 1, tm->tm_mday) * DAY_S + tm->tm_hour * 3600 + tm->tm_min * 60 +
	    tm->tm_sec - t;
}

static int64_t
seconds(int64_t us)
{
	int64_t t = us / US_PER_S;

	return us < 0 ? 0 : t > LATEST_S ? LATEST_S : t;
}

void
cron_local(int64_t us, char out[32])
{
	struct tm tm;

	(void)local(seconds(us), &tm);
	if (strftime(out, 32, "%a %Y-%m-%d %H:%M", &tm) == 0)
		out[0] = '\0';
}

/* ---- what is written ------------------------------------------------------------------------------- */

static const struct field {
	const char *name;
	int64_t min, max;
	int64_t all;                    /* where a star ends: Sunday is 0 and 7 */
	const char *names;              /* three letters each */
} fields[] = {
	{ "minute", 0, 59, 59, "" }, { "hour", 0, 23, 23, "" }, { "day of the month", 1, 31, 31, "" },
	{ "month", 1, 12, 12, "janfebmaraprmayjunjulaugsepoctnovdec" }, { "day of the week", 0, 7, 6, "sunmontuewedthufrisat" },
};
enum { MINUTE, HOUR, DAY, MONTH, WEEKDAY, FIELDS };

static enum err
take_value(struct str text, const struct field *d, int64_t *v, struct fail *f)
{
	size_t names = strlen(d->names) / 3;

	for (size_t i = 0; i < names; i++)
		if (str_ieq(text, str_make(d->names + 3 * i, 3))) {
			*v = d->min + (int64_t)i;
			return OK;
		}
	return str_i64(text, d->min, d->max, v) == OK ? OK : fail_set(f, ERR_PARSE, "\"%.*s\" is no %s (%d to %d%s)",
	    STR_ARG(utf8_prefix(text, 40)), d->name, (int)d->min, (int)d->max, names ? ", or a name" : "");
}

/* "5", "1-5", "*", and the last two with "/2". */
static enum err
take_item(struct str text, const struct field *d, uint64_t *bits, struct fail *f)
{
	struct str range, first, step = text, last, shown = utf8_prefix(text, 40);
	bool stepped = str_cut(&step, '/', &range), star = str_eqz(range, "*"), ranged;
	int64_t from = d->min, to = d->all, by = 1;
	enum err e = OK;

	last = range;
	ranged = str_cut(&last, '-', &first);
	if (!star)
		e = take_value(first, d, &from, f);
	if (!star && e == OK && ranged)
		e = take_value(last, d, &to, f);
	if (e != OK)
		return e;
	if (!star && !ranged && stepped)
		return fail_set(f, ERR_PARSE, "\"%.*s\": a step wants a range in front of it, as in */%.*s", STR_ARG(shown),
		    STR_ARG(utf8_prefix(step, 20)));
	if (!star && !ranged)
		to = from;
	if (to == 0 && from > 0 && d->all < d->max)     /* up to Sunday */
		to = d->max;
	if (stepped && str_i64(step, 1, d->max, &by) != OK)
		return fail_set(f, ERR_PARSE, "\"%.*s\": the step is 1 to %d", STR_ARG(shown), (int)d->max);
	if (from > d->all && from > to)         /* from Sunday on */
		from = d->min;
	if (from > to)
		return fail_set(f, ERR_PARSE, "\"%.*s\" runs backwards; write two ranges: %d-%d,%d-%d", STR_ARG(shown), (int)from,
		    (int)d->all, (int)d->min, (int)to);
	for (; from <= to; from += by)
		*bits |= (uint64_t)1 << from;
	return OK;
}

static enum err
take_field(struct str text, const struct field *d, uint64_t *bits, struct fail *f)
{
	struct str item;
	enum err e = text.n <= FIELD_MAX ? OK : fail_set(f, ERR_PARSE, "a field has at most %d bytes", FIELD_MAX);

	for (bool more = true; more && e == OK;) {
		more = str_cut(&text, ',', &item);
		e = take_item(item, d, bits, f);
	}
	return e;
}

static int64_t
month_days(int64_t year, int64_t month)
{
	return (month == 12 ? clock_days(year + 1, 1, 1) : clock_days(year, month + 1, 1)) - clock_days(year, month, 1);
}

/* Is there such a day in one of these months? 29 February counts. */
static bool
can_be(const struct cron *c)
{
	for (int64_t m = 1; m <= 12; m++)
		for (int64_t d = 1; d <= month_days(2000, m); d++)
			if (c->months >> m & 1 && c->days >> d & 1)
				return true;
	return c->either;
}

/* Up to the next blank; *text is what is behind it. */
static struct str
take_blank(struct str *text)
{
	size_t n = 0;
	struct str word;

	while (n < text->n && text->p[n] != ' ' && text->p[n] != '\t')
		n++;
	word = str_sub(*text, 0, n);
	*text = str_sub(*text, n, text->n);
	return word;
}

static enum err
take_fields(struct str *text, struct cron *out, struct fail *f)
{
	uint64_t bits[FIELDS] = { 0 };
	bool star[FIELDS];
	struct str word;
	enum err e = OK;

	for (size_t i = 0; i < FIELDS && e == OK; i++) {
		*text = str_trim(*text);
		if (text->n == 0)
			return fail_set(f, ERR_PARSE, "five fields are wanted (minute, hour, day of the month, month, day of the week);"
			    " here are %zu", i);
		word = take_blank(text);
		star[i] = word.p[0] == '*';
		e = take_field(word, &fields[i], &bits[i], f);
	}
	if (e != OK)
		return e;
	*out = (struct cron){ .minutes = bits[MINUTE], .hours = (uint32_t)bits[HOUR], .days = (uint32_t)bits[DAY],
	    .months = (uint32_t)bits[MONTH], .weekdays = (uint32_t)(bits[WEEKDAY] | bits[WEEKDAY] >> 7),
	    .either = !star[DAY] && !star[WEEKDAY], .real = star[MINUTE] || star[HOUR] };
	return can_be(out) ? OK : fail_set(f, ERR_PARSE, "none of these months has such a day: it would never happen");
}

static enum err
take_word(struct str word, struct cron *out, struct fail *f)
{
	static const char *const words[][2] = { { "@hourly", "0 * * * *" }, { "@daily", "0 0 * * *" }, { "@midnight", "0 0 * * *" },
	    { "@weekly", "0 0 * * 0" }, { "@monthly", "0 0 1 * *" }, { "@yearly", "0 0 1 1 *" }, { "@annually", "0 0 1 1 *" } };

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (str_ieq(word, str_z(words[i][0]))) {
			struct str line = str_z(words[i][1]);

			return take_fields(&line, out, f);
		}
	return fail_set(f, ERR_PARSE, "\"%.*s\" is none of @hourly, @daily, @weekly, @monthly, @yearly", STR_ARG(utf8_prefix(word, 40)));
}

/* n digits and the sign behind them; -1: not that. */
static int64_t
digits(struct str *s, size_t n, char end)
{
	struct str head;
	int64_t v;

	(void)str_cut(s, end, &head);
	return head.n == n && head.p[0] >= '0' && head.p[0] <= '9' && str_i64(head, 0, 9999, &v) == OK ? v : -1;
}

FALLIBLE
cron_daily(struct str text, struct cron *out, struct fail *f)
{
	struct str rest = text;
	int64_t h = digits(&rest, 2, ':'), m = digits(&rest, 2, ' ');

	if (h < 0 || h > 23 || m < 0 || m > 59 || text.n != 5)
		return fail_set(f, ERR_PARSE, "\"%.*s\" is no time of the day, as in 09:00", STR_ARG(utf8_prefix(text, 40)));
	*out = (struct cron){ .minutes = (uint64_t)1 << m, .hours = (uint32_t)1 << h, .days = ~1u, .months = ~1u, .weekdays = ~0u };
	return OK;
}

static enum err
take_moment(struct str *text, struct cron *out, struct fail *f)
{
	struct str date, time, rest;
	int64_t year, month, day;
	enum err e;

	date = take_blank(text);
	*text = str_trim(*text);
	time = take_blank(text);
	rest = date;
	year = digits(&rest, 4, '-');
	month = digits(&rest, 2, '-');
	day = digits(&rest, 2, ' ');
	if (year < 1970 || month < 1 || month > 12 || day < 1 || day > month_days(year, month) || date.n != 10)
		return fail_set(f, ERR_PARSE, "\"%.*s\" is no date, as in 2026-12-24", STR_ARG(utf8_prefix(date, 40)));
	e = cron_daily(time, out, f);
	out->days = e == OK ? (uint32_t)1 << day : 0;
	out->months = (uint32_t)1 << month;
	out->year = (int)year;
	return e;
}

FALLIBLE
cron_take(struct str *text, struct cron *out, struct fail *f)
{
	struct str rest = str_trim(*text), word;
	struct cron c = { 0 };
	int64_t year;
	enum err e;

	*text = rest;
	word = take_blank(&rest);
	if (word.n && word.p[0] == '@') {
		*text = rest;
		e = take_word(word, &c, f);
	} else if (word.n > 4 && word.p[4] == '-' && str_i64(str_sub(word, 0, 4), 0, 9999, &year) == OK) {
		e = take_moment(text, &c, f);
	} else {
		e = take_fields(text, &c, f);
	}
	*text = str_trim(*text);
	if (e == OK)
		*out = c;
	return e;
}

FALLIBLE
cron_parse(struct str text, struct cron *out, struct fail *f)
{
	enum err e = cron_take(&text, out, f);

	return e == OK && text.n ? fail_set(f, ERR_PARSE, "\"%.*s\" is too much: a schedule has five fields",
	    STR_ARG(utf8_prefix(text, 40))) : e;
}

FALLIBLE
cron_window(struct str text, struct cron *from, struct cron *to, struct fail *f)
{
	struct str first, last = text;
	enum err e;

	if (!str_cut(&last, '-', &first))
		return fail_set(f, ERR_PARSE, "\"%.*s\" is no window, as in 22:00-07:00", STR_ARG(utf8_prefix(text, 40)));
	e = cron_daily(first, from, f);
	if (e == OK)
		e = cron_daily(last, to, f);
	return e == OK && str_eq(first, last) ? fail_set(f, ERR_PARSE, "a window wants two different times") : e;
}

FALLIBLE
cron_check(struct str text, struct fail *f)
{
	struct cron c;

	return cron_parse(text, &c, f);
}

FALLIBLE
cron_window_check(struct str text, struct fail *f)
{
	struct cron from, to;

	return cron_window(text, &from, &to, f);
}

/* ---- the next moment ----------------------------------------------------------------------------- */

static bool
day_fits(const struct cron *c, const struct tm *tm)
{
	bool day = c->days >> tm->tm_mday & 1, weekday = c->weekdays >> tm->tm_wday & 1;

	return c->either ? day || weekday : day && weekday;
}

static bool
month_fits(const struct cron *c, const struct tm *tm)
{
	return c->months >> (tm->tm_mon + 1) & 1 && (c->year == 0 || c->year == tm->tm_year + 1900);
}

static bool
fits(const struct cron *c, const struct tm *tm)
{
	return c->minutes >> tm->tm_min & 1 && c->hours >> tm->tm_hour & 1 && month_fits(c, tm) && day_fits(c, tm);
}

/* The clocks are set forward at t: is one of the minutes that they leave out meant? */
static bool
left_out(const struct cron *c, int64_t t, int64_t was, int64_t now)
{
	struct tm tm;

	for (int64_t at = t + was; at < t + now; at += 60) {
		time_t clock = (time_t)at;

		if (gmtime_r(&clock, &tm) && fits(c, &tm))
			return true;
	}
	return false;
}

/* Did the clocks on the wall show this minute before? */
static bool
comes_again(int64_t t, int64_t off)
{
	struct tm tm;
	int64_t before = t > SHIFT_MAX_S ? local(t - SHIFT_MAX_S, &tm) : off;

	return before > off && local(t - (before - off), &tm) == before;
}

/* From t to the next minute that may be meant. */
static int64_t
step(const struct cron *c, int64_t t, int64_t off, const struct tm *tm)
{
	int64_t wall = t + off, year = tm->tm_year + 1900, month = tm->tm_mon + 1;
	const int64_t to[] = { (month == 12 ? clock_days(year + 1, 1, 1) : clock_days(year, month + 1, 1)) * DAY_S,
	    (wall / DAY_S + 1) * DAY_S, (wall / 3600 + 1) * 3600 };
	size_t i = !month_fits(c, tm) ? 0 : !day_fits(c, tm) ? 1 : !(c->hours >> tm->tm_hour & 1) ? 2 : 3;
	struct tm there;

	for (; i < ARRAY_LEN(to); i++)
		if (local(to[i] - off, &there) == off)
			return to[i] - off;
	return t + 60;
}

int64_t
cron_next(const struct cron *c, int64_t after)
{
	int64_t t = seconds(after) / 60 * 60, off, was;
	struct tm tm;

	was = local(t, &tm);
	t += 60;
	for (int i = 0; i < STEPS_MAX && t < LATEST_S; i++) {
		off = local(t, &tm);
		if (!c->real && off > was && left_out(c, t, was, off))
			return t * US_PER_S;
		if (fits(c, &tm) && (c->real || !comes_again(t, off)))
			return t * US_PER_S;
		if (c->year && tm.tm_year + 1900 > c->year)
			return CRON_NEVER;
		t = step(c, t, off, &tm);
		was = off;
	}
	return CRON_NEVER;
}

/* ---- zones ----------------------------------------------------------------------------------------- */

/* Where it begins with its name, as in "CET-1CEST,M3.5.0,M10.5.0/3". */
static bool
is_rule(struct str s)
{
	size_t n = 0;

	if (s.n && s.p[0] == '<') {
		n = str_chr(s, '>');
		n = n == SIZE_MAX || n < 4 ? 0 : n + 1;
	} else {
		while (n < s.n && ((s.p[n] | 0x20) >= 'a' && (s.p[n] | 0x20) <= 'z'))
			n++;
	}
	if (n < 3)
		return false;
	n += n < s.n && (s.p[n] == '-' || s.p[n] == '+');
	return n < s.n && s.p[n] >= '0' && s.p[n] <= '9';
}

static bool
is_file(const char *dir, struct str name)
{
	char path[256], magic[5] = "";
	FILE *s = NULL;

	if ((size_t)snprintf(path, sizeof(path), "%s/%.*s", dir, STR_ARG(name)) < sizeof(path))
		s = fopen(path, "r");
	if (s == NULL)
		return false;
	if (fgets(magic, sizeof(magic), s) == NULL)
		magic[0] = '\0';
	fclose(s);
	return strcmp(magic, "TZif") == 0;
}

FALLIBLE
cron_zone_check(struct str name, struct fail *f)
{
	const char *const dirs[] = { getenv("TZDIR"), "/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo" };
	bool known = str_eqz(name, "UTC") || is_rule(name);

	for (size_t i = 0; i < ARRAY_LEN(dirs) && name.n && name.p[0] != '/' && str_find(name, S("..")) == SIZE_MAX; i++)
		known = known || (dirs[i] && is_file(dirs[i], name));
	return known ? OK : fail_set(f, ERR_CONFIG, "this system knows no time zone \"%.*s\"; `ls /usr/share/zoneinfo` shows those it"
	    " has (package tzdata), and a rule works without them: \"CET-1CEST,M3.5.0,M10.5.0/3\"", STR_ARG(utf8_prefix(name, 60)));
}

FALLIBLE
cron_zone_use(struct str name, struct fail *f)
{
	enum err e = name.n ? cron_zone_check(name, f) : OK;
	char zone[128];

	if (e == OK && name.n) {
		snprintf(zone, sizeof(zone), "%.*s", STR_ARG(name));
		if (setenv("TZ", zone, 1) != 0)
			e = fail_set(f, ERR_NOMEM, "out of memory");
	}
	tzset();
	return e;
}
