/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * replay.c - days that run the same every time, and days in which time does not.
 *
 *   replay [NAME]       the tests, or those whose name has NAME in it
 *   replay --update     writes the record of golden/day.script anew
 *
 * A record is every request, every answer, every event with its time, and at the
 * end all rows. golden/day.record was written by --update and is read in reviews:
 * a change of it is a change of what the daemon says or stores.
 */
#include "replay/sim.h"
#include "test.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#define BASE (1772323200 * US_PER_S)    /* 2026-03-01 */
#define NOON (12 * 3600 * US_PER_S)
#define RECORD_MAX (64u << 20)
#define GOLDEN "tests/replay/golden/day"

/* ---- running ------------------------------------------------------------------------------ */

/* A day with its record, if one is wanted; without it nothing of it is left but the tables' text. */
struct run {
	const char *script;             /* or */
	struct str feed;                /* a record */
	const char *toml, *durability;
	int64_t base, begun;
	uint64_t seed;
	bool altered;                   /* the record was: rules may be broken */
	struct buf record, tables;      /* without meta */
};

static bool
begin(const struct run *r, size_t record_max)
{
	enum err e;

	sim_begin(r->base ? r->base : BASE, r->begun ? r->begun : NOON - 10 * US_PER_S, r->seed ? r->seed : 7, record_max);
	sim.feeding = r->feed.n > 0;
	e = day_begin(r->toml ? r->toml : "", r->durability ? r->durability : "process");
	CHECK_OK(e);
	return e == OK;
}

/* What must hold at the end of any day. */
static void
finish(bool altered)
{
	if (sim.broken && !altered)
		test_bad_at_(__FILE__, __LINE__, sim.broken);
	CHECK(telegram.refused == 0 || altered);
	CHECK(claude.refused == 0 || altered);
	day_end();
	sim_end();
}

static void
run_once(struct run *r)
{
	enum err e;

	buf_init(&r->record, RECORD_MAX);
	buf_init(&r->tables, RECORD_MAX);
	if (!begin(r, RECORD_MAX))
		return;
	e = r->script ? day_script(r->script) : day_feed(r->feed);
	CHECK_OK(e);
	if (e == OK && day.witness) {
		day_tables(&r->tables, false);
		sim_note("tables");
		day_tables(&sim.record, true);
	}
	buf_str(&r->record, buf_view(&sim.record));
	CHECK(r->record.n > 0 && r->tables.n > 0);
	finish(r->altered);
}

static void
run_free(struct run *r)
{
	buf_free(&r->record);
	buf_free(&r->tables);
}

/* Equal, or the first line that differs is printed. */
static bool
same(struct str got, struct str want)
{
	struct str a, b;

	if (str_eq(got, want))
		return true;
	for (int line = 1; got.n || want.n; line++) {
		(void)str_cut(&got, '\n', &a);
		(void)str_cut(&want, '\n', &b);
		if (!str_eq(a, b)) {
			printf("  line %d\n  got:  %.*s\n  want: %.*s\n", line, STR_ARG(a), STR_ARG(b));
			break;
		}
	}
	return false;
}

static bool
read_file(const char *path, struct buf *out)
{
	struct fail f = FAIL_INIT;

	buf_init(out, RECORD_MAX);
	if (file_read(path, RECORD_MAX, out, &f) == OK)
		return true;
	printf("  %s\n", f.text);
	return false;
}

/* ---- a recorded day -------------------------------------------------------------------------- */

static struct buf golden_script, golden_record;

static int
update(void)
{
	struct run r = { .script = buf_z(&golden_script) };
	struct fail f = FAIL_INIT;

	run_once(&r);
	if (file_replace(GOLDEN ".record", buf_view(&r.record), 0644, &f) != OK)
		printf("%s\n", f.text);
	run_free(&r);
	return f.err == OK && test_bad_ == 0 ? 0 : 1;
}

TEST(recorded_day)
{
	struct run r = { .script = buf_z(&golden_script) };

	run_once(&r);
	CHECK(same(buf_view(&r.record), buf_view(&golden_record)));
	run_free(&r);
}

TEST(same_with_either_durability)
{
	struct run r = { .script = buf_z(&golden_script), .durability = "power" };

	run_once(&r);
	CHECK(same(buf_view(&r.record), buf_view(&golden_record)));
	run_free(&r);
}

/* The answers come from the record, in its order; nobody is asked. */
TEST(record_fed_back)
{
	struct run r = { .feed = buf_view(&golden_record) };

	run_once(&r);
	CHECK(same(buf_view(&r.record), buf_view(&golden_record)));
	run_free(&r);
}

/* Another chance: other back-offs, the same conversations. And a change of one answer is seen. */
TEST(record_tells_apart)
{
	struct run r = { .script = buf_z(&golden_script), .seed = 8 };
	struct buf other = BUF_INIT(RECORD_MAX);
	size_t at = str_find(buf_view(&golden_record), S("You said: "));

	run_once(&r);
	CHECK(!str_eq(buf_view(&r.record), buf_view(&golden_record)));
	run_free(&r);
	buf_str(&other, buf_view(&golden_record));
	CHECK(at != SIZE_MAX);
	other.p[at] = 'W';
	r = (struct run){ .feed = buf_view(&other), .altered = true };
	run_once(&r);
	CHECK(!str_eq(buf_view(&r.record), buf_view(&golden_record)));
	run_free(&r);
	buf_free(&other);
}

static const char quiet_day[] =
    "12:00:00 user 1 says Hello.\n"
    "12:00:05 user 2 says Look. #tools\n"
    "12:00:20 user 1 says Slow. #slow\n"
    "12:01:00 %s\n"
    "12:02:00 user 1 says Do you remember?\n"
    "12:02:05 user 2 says You are busy. #busy\n"
    "12:02:30 user 1 says Cut. #cut\n"
    "12:03:00 end\n";

/* Stopped or killed while nothing is under way: every row is what it would have been. */
TEST(restart_changes_nothing)
{
	static const char *const events[] = { "restart", "crash", "drain", "stop 20" };
	char text[1024];
	struct run whole = { .script = text };

	snprintf(text, sizeof(text), quiet_day, "telegram lose 0");
	run_once(&whole);
	for (size_t i = 0; i < ARRAY_LEN(events); i++) {
		struct run r = { .script = text };

		snprintf(text, sizeof(text), quiet_day, events[i]);
		run_once(&r);
		CHECK(same(buf_view(&r.tables), buf_view(&whole.tables)));
		run_free(&r);
	}
	run_free(&whole);
}

/* ---- local time --------------------------------------------------------------------------------- */

static void
zone(const char *tz)
{
	if (setenv("TZ", tz, 1) != 0)
		abort();
	tzset();
}

/* Both changes of the year in zones that have them, and one that is 12 h 45 away: not a byte differs. */
TEST(local_time_is_nobodys_business)
{
	static const char *const zones[] = { "CET-1CEST,M3.5.0/2,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0",
	    "<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45" };
	static const int64_t days[] = { 1774742400, 1792886400 };       /* 2026-03-29, 2026-10-25 */
	static const char text[] =
	    "00:58:00 user 1 says Before. #tools\n"
	    "00:59:50 user 1 says Over the change. #slow\n"
	    "01:59:55 user 2 says An hour later. #wait #tools\n"
	    "02:30:00 user 1 says What does it cost?\n"
	    "23:59:50 user 1 says Over midnight. #slow\n"
	    "1+00:01:00 end\n";

	for (size_t d = 0; d < ARRAY_LEN(days); d++) {
		struct run utc = { .script = text, .base = days[d] * US_PER_S, .begun = 3400 * US_PER_S };

		zone("UTC0");
		run_once(&utc);
		for (size_t z = 0; z < ARRAY_LEN(zones); z++) {
			struct run r = { .script = text, .base = days[d] * US_PER_S, .begun = 3400 * US_PER_S };

			zone(zones[z]);
			run_once(&r);
			CHECK(same(buf_view(&r.record), buf_view(&utc.record)));
			run_free(&r);
		}
		run_free(&utc);
	}
	zone("UTC0");
}

int
main(int argc, char **argv)
{
	extern char **environ;
	static char *nothing[] = { NULL };
	int code = 1;

	if (getenv("REPLAY_LOG") == NULL)
		log_set_level(LOG_ERROR);
	environ = nothing;              /* whatever is set here has no part in it */
	zone("UTC0");
	TEST_BEGIN(argc, argv);
	if (!read_file(GOLDEN ".script", &golden_script))
		return 1;
	if (argc > 1 && strcmp(argv[1], "--update") == 0) {
		code = update();
	} else if (read_file(GOLDEN ".record", &golden_record)) {
		RUN(recorded_day);
		RUN(same_with_either_durability);
		RUN(record_fed_back);
		RUN(record_tells_apart);
		RUN(restart_changes_nothing);
		RUN(local_time_is_nobodys_business);
		test_file_ = "replay";
		code = TEST_END();
	}
	buf_free(&golden_script);
	buf_free(&golden_record);
	return code;
}
