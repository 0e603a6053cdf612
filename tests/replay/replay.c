/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * replay.c - days that run the same every time, and days in which time does not.
 *
 *   replay [NAME]       the tests, or those whose name has NAME in it
 *   replay --update     writes the record of golden/day.script anew
 *
 * With REPLAY_LOG set the daemon's log goes to standard error, in simulated time.
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
	    "02:30:00 user 1 says Too much already.\n"
	    "23:30:00 user 2 says Too much still.\n"
	    "1+00:00:01 user 1 says A new day. #slow\n"
	    "1+00:01:00 end\n";
	static const char cap[] = "max_tokens = 100\n[cost]\ndaily_budget_usd = \"0.006\"\n";

	for (size_t d = 0; d < ARRAY_LEN(days); d++) {
		struct run utc = { .script = text, .toml = cap, .base = days[d] * US_PER_S, .begun = 3400 * US_PER_S };

		zone("UTC0");
		run_once(&utc);
		CHECK(str_find(buf_view(&utc.record), S("Today's budget")) != SIZE_MAX);
		CHECK(str_find(buf_view(&utc.record), S("You said: A new day.")) != SIZE_MAX);
		for (size_t z = 0; z < ARRAY_LEN(zones); z++) {
			struct run r = { .script = text, .toml = cap, .base = days[d] * US_PER_S, .begun = 3400 * US_PER_S };

			zone(zones[z]);
			run_once(&r);
			CHECK(same(buf_view(&r.record), buf_view(&utc.record)));
			run_free(&r);
		}
		run_free(&utc);
	}
	zone("UTC0");
}

/* ---- clocks that jump ---------------------------------------------------------------------------- */

static const char *const jumps[] = { "utc 0", "utc 86400", "utc -86400", "utc -1800", "utc -43210", "utc 31536000",
    "utc -31536000", "suspend 3600", "suspend 86400", "freeze 86400" };

/* Plays a script with one of the jumps in it; the caller looks, then calls jumped. */
static bool
jump(const char *how, const char *script)
{
	struct run r = { .script = script };

	if (!begin(&r, 0))
		return false;
	day.jump = how;
	CHECK_OK(day_script(script));
	return true;
}

static void
jumped(void)
{
	const char *how = day.jump;
	int before = test_bad_;

	/* nothing is left open */
	CHECK(day_one("SELECT count(*) FROM turns WHERE state < 5") == 0);
	CHECK(day_one("SELECT count(*) FROM inbound WHERE state < 2") == 0);
	CHECK(day_one("SELECT count(*) FROM outbox WHERE state < 2") == 0);
	CHECK(day_one("SELECT count(*) FROM steps WHERE state < 2") == 0);
	finish(false);
	if (test_bad_ > before)
		printf("  after \"%s\"\n", how);
}

#define SAID(user, text, times) \
	do { if (telegram_count(telegram_chat(user), S("You said: " text), NULL) != (times)) { \
		test_bad_at_(__FILE__, __LINE__, "\"" text "\" is not said " #times " time(s)"); \
		printf("  after \"%s\": %zu\n", day.jump, telegram_count(telegram_chat(user), S("You said: " text), NULL)); \
	} } while (0)

/* Where the monotonic clock goes on while the machine is suspended, a turn under way has had its time. */
#define FROZEN (strncmp(day.jump, "freeze", 6) == 0)
#define TOLD(user, text) do { \
	SAID(user, text, FROZEN ? 0u : 1u); \
	CHECK(!FROZEN || telegram_count(telegram_chat(user), S("this took longer than 30 minutes"), NULL) > 0); \
} while (0)

/* In the middle of an answer, and in a long poll. */
TEST(jump_in_mid_turn)
{
	for (size_t i = 0; i < ARRAY_LEN(jumps); i++) {
		if (!jump(jumps[i], "12:00:00 user 1 says A slow one. #slow\n+3 jump\n+1 user 2 says Two. #tools\n"
		    "+60 jump\n+10 user 1 says Three.\n+90 end\n"))
			return;
		TOLD(1, "A slow one.");
		SAID(2, "Two.", 1);
		SAID(1, "Three.", 1);
		jumped();
	}
}

/* While a back-off is waited for, our own and one that was asked for: no wait becomes longer. */
TEST(jump_in_back_off)
{
	for (size_t i = 0; i < ARRAY_LEN(jumps); i++) {
		if (!jump(jumps[i], "12:00:00 user 1 says Busy. #busy\n+0.4 jump\n+5 claude fail 1 429 100\n"
		    "+1 user 1 says Later.\n+30 jump\n+80 end\n"))
			return;
		TOLD(1, "Busy.");
		TOLD(1, "Later.");
		CHECK(claude.calls == (FROZEN ? 2 : 4));
		jumped();
	}
}

/* While a reply waits for Telegram, half a minute or hours: sent when they are over, and not before. */
TEST(jump_in_the_outbox)
{
	for (size_t i = 0; i < ARRAY_LEN(jumps); i++) {
		if (!jump(jumps[i], "12:00:00 telegram limit 28 30\n+1 user 1 says Half a minute.\n+20 jump\n+15 telegram limit 8990 9000\n"
		    "+1 user 1 says Hours.\n+3 jump\n+9005 end\n"))
			return;
		SAID(1, "Half a minute.", 1);
		SAID(1, "Hours.", 1);
		CHECK(telegram.tries == 4);
		jumped();
	}
}

/* The same over a restart: the wait is a column. */
TEST(jump_in_the_outbox_and_restart)
{
	for (size_t i = 0; i < ARRAY_LEN(jumps); i++) {
		if (!jump(jumps[i], "12:00:00 telegram limit 590 600\n+1 user 1 says Patience.\n+20 jump\n+1 restart\n+605 end\n"))
			return;
		SAID(1, "Patience.", 1);
		jumped();
	}
}

/* A pairing code is good for ten minutes, whatever the clock says; a new one is given after it. */
TEST(jump_while_a_code_is_open)
{
	for (size_t i = 0; i < ARRAY_LEN(jumps); i++) {
		if (!jump(jumps[i], "12:00:00 user 50 says Hello?\n+1 jump\n+660 pair\n+1 user 50 says Am I in?\n+5 pair\n"
		    "+5 user 50 says Now?\n+5 end\n"))
			return;
		CHECK(telegram_count(telegram_chat(50), S("your pairing code is"), NULL) == 2);
		CHECK(telegram_count(telegram_chat(50), S("You are paired now"), NULL) == 1);
		SAID(50, "Am I in?", 0);
		SAID(50, "Now?", 1);
		jumped();
	}
}

/* The acknowledgement of an update fails for hours; then the daemon is started anew and gets it again. */
TEST(jump_in_the_dedup_window)
{
	for (size_t i = 0; i < ARRAY_LEN(jumps); i++) {
		if (!jump(jumps[i], "12:00:00 user 1 says Once.\n+0 telegram deaf 7200\n+30 jump\n+7000 jump\n+300 restart\n"
		    "+60 user 1 says And on.\n+30 end\n"))
			return;
		SAID(1, "Once.", 1);
		SAID(1, "And on.", 1);
		CHECK(telegram_updates() == 0);
		jumped();
	}
}

/* A day's money: what is booked counts for one day, the one it was booked on. */
TEST(each_day_has_its_cap)
{
	static const struct run with_cap = { .toml = "max_tokens = 20\n[cost]\ndaily_budget_usd = \"0.0030\"\n", .script = "" };
	static const struct { const char *what, *script; size_t first, second, refusals; } days[] = {
		{ "midnight", "23:50:00 user 1 says A.\n+5 user 1 says B.\n+5 user 1 says C.\n1+00:00:01 user 1 says D.\n"
		    "+5 end\n", 2, 1, 1 },
		{ "a year ahead, and back", "23:50:00 utc 31536000\n+1 user 1 says A.\n+1 user 1 says B.\n+1 utc -31536000\n"
		    "+5 user 1 says C.\n1+00:00:01 user 1 says D.\n+5 end\n", 3, 1, 0 },
		{ "back over midnight", "1+00:00:05 user 1 says A.\n+1 user 1 says B.\n+5 utc -60\n+1 user 1 says C.\n"
		    "1+00:01:30 user 1 says D.\n+5 end\n", 3, 0, 1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(days); i++) {
		if (!begin(&with_cap, 0))
			return;
		day.jump = days[i].what;
		CHECK_OK(day_script(days[i].script));
		CHECK(telegram_count(telegram_chat(1), S("You said: "), NULL) == days[i].first + days[i].second);
		SAID(1, "D.", days[i].second);
		CHECK(telegram_count(telegram_chat(1), S("Today's budget"), NULL) == days[i].refusals);
		jumped();
	}
}

/* After a week without an update its ids begin anew, perhaps lower: nothing of that is lost. */
TEST(silence_of_a_week)
{
	static const char *const during[] = { "utc 0", "utc -864000", "utc 864000", "suspend 864000" };

	for (size_t i = 0; i < ARRAY_LEN(during); i++) {
		if (!jump(during[i], "12:00:00 user 1 says Bye.\n+3600 jump\n+600000 telegram ids 77\n+1 user 1 says Back.\n"
		    "+60 user 1 says Still here.\n+600 end\n"))
			return;
		SAID(1, "Bye.", 1);
		SAID(1, "Back.", 1);
		SAID(1, "Still here.", 1);
		CHECK(telegram_updates() == 0);
		jumped();
	}
}

/* ---- three days ------------------------------------------------------------------------------------------ */

#define PEOPLE 12
#define GAP_S 260                       /* between two messages of one person, on average half more */
#define QUIET_FROM (4 * 3600 * US_PER_S)        /* of each day, for an hour, everybody sleeps */
#define QUIET_UNTIL (5 * 3600 * US_PER_S)

struct person { unsigned number; int64_t said; struct sim_event event, second_thought; };
static int64_t said;                    /* messages of all */
static struct { unsigned who; int64_t number; } asked[PEOPLE * 86400 / GAP_S];  /* since the last look */
static size_t n_asked;

static void
speak(void *arg)
{
	static const char *const wishes[] = { "#tools", "#think", "#slow", "#cut", "#busy", "#wait", "#error", "#torn",
	    "#slow #think", "#pause", "#refuse", "#limit", "#empty" };
	struct person *p = arg;
	int64_t of_day = sim.now % SIM_DAY_US;
	char text[64];

	sim_at(&p->event, sim.now + (GAP_S + (int64_t)sim_chance(GAP_S)) * US_PER_S + (int64_t)sim_chance(1000) * US_PER_MS);
	if (of_day >= QUIET_FROM && of_day < QUIET_UNTIL)
		return;
	if (++p->said % 20 == 0) {
		telegram_say(p->number, false, S("/new"));
		return;
	}
	if (n_asked == ARRAY_LEN(asked))
		abort();
	snprintf(text, sizeof(text), "number %lld of all %s", (long long)++said,
	    sim_chance(3) ? "" : wishes[sim_chance(ARRAY_LEN(wishes))]);
	asked[n_asked].who = p->number;
	asked[n_asked++].number = said;
	telegram_say(p->number, false, str_z(text));
	if (sim_chance(20) == 0)
		sim_at(&p->second_thought, sim.now + (int64_t)sim_chance(6000) * US_PER_MS);
}

/* Not that, after all. */
static void
stop(void *arg)
{
	struct person *p = arg;

	if (sim_chance(2))
		telegram_press_stop(p->number);
	else
		telegram_say(p->number, false, S("/stop"));
}

static struct sim_event trouble_event;

static void
trouble(void *arg)
{
	(void)arg;
	sim_at(&trouble_event, sim.now + (1 + (int64_t)sim_chance(4)) * 3600 * US_PER_S);
	switch (sim_chance(4)) {
	case 0: telegram.down_until = sim.now + 600 * US_PER_S; break;
	case 1: telegram.silent_until = sim.now + 200 * US_PER_S; break;
	case 2:
		telegram.limit_s = 40;
		telegram.limit_until = sim.now + 60 * US_PER_S;
		break;
	default: claude.down_until = sim.now + 300 * US_PER_S; break;
	}
}

/* Bytes that are allocated; 0: nobody can tell. */
static size_t
allocated(void)
{
#ifdef __GLIBC__
	return mallinfo2().uordblks;
#else
	return 0;
#endif
}

/* Everybody has an answer, and one only: of two the later says that it may be a repeat. */
static void
look(void)
{
	int before = test_bad_;
	char text[64];

	for (size_t i = 0; i < n_asked; i++) {
		int64_t chat = telegram_chat(asked[i].who);

		snprintf(text, sizeof(text), "You said: number %lld of all", (long long)asked[i].number);
		if (telegram_count_sure(chat, str_z(text)) > 1 && test_bad_ < before + 5) {
			printf("  %s\n", text);
			test_bad_at_(__FILE__, __LINE__, "said twice");
		}
	}
	CHECK(day_one("SELECT count(*) FROM turns WHERE state < 5") == 0);
	CHECK(day_one("SELECT count(*) FROM inbound WHERE state < 2") == 0);
	CHECK(day_one("SELECT count(*) FROM outbox WHERE state < 2") == 0);
	CHECK(day_one("SELECT count(*) FROM steps WHERE state < 2") == 0);
	CHECK(day_one("SELECT count(*) FROM outbox WHERE state = 3") == 0);
	n_asked = 0;
	telegram_forget();
}

#define CAP_NANO "3000000000"

/* Thousands of messages, outages, limits, the cap and its midnight; the bill, the rows and the memory at the end. */
TEST(three_days)
{
	static const struct run days = { .toml = "[cost]\ndaily_budget_usd = \"3.00\"\n", .begun = QUIET_UNTIL };
	static struct person people[PEOPLE];
	size_t bytes[4];

	if (!begin(&days, 0))
		return;
	said = 0;
	n_asked = 0;
	telegram.chaos = claude.chaos = 30;
	for (unsigned i = 0; i < PEOPLE; i++) {
		people[i] = (struct person){ .number = i + 1, .event = { .fn = speak, .arg = &people[i] },
		    .second_thought = { .fn = stop, .arg = &people[i] } };
		sim_at(&people[i].event, sim.now + i * US_PER_S);
	}
	trouble_event = (struct sim_event){ .fn = trouble };
	sim_at(&trouble_event, sim.now + 3600 * US_PER_S);
	for (int64_t d = 0; d < 4; d++) {
		CHECK_OK(day_run(d * SIM_DAY_US + QUIET_UNTIL));
		look();
		bytes[d] = allocated();
	}
	/* a turn for each message, a reply for each turn, and every answer in its place */
	CHECK(said > 5000);
	CHECK(day_one("SELECT count(*) FROM turns") == said);
	CHECK(day_one("SELECT count(*) FROM (SELECT 1 FROM turns LEFT JOIN outbox ON turn_id = turns.id AND kind = 0"
	    " GROUP BY turns.id HAVING count(turn_id) <> 1)") == 0);
	CHECK(day_one("SELECT count(*) FROM turns WHERE outcome IN (0, 6)") == 0);
	CHECK(day_one("SELECT count(*) FROM turns WHERE outcome = 1") > said / 2);
	CHECK(day_one("SELECT count(*) FROM (SELECT CAST(external_id AS INTEGER) AS e, lag(CAST(external_id AS INTEGER))"
	    " OVER (PARTITION BY session_id ORDER BY id) AS before FROM outbox WHERE kind = 0) WHERE before >= e") == 0);
	/* the bill */
	CHECK(day_one("SELECT count(*) FROM cost_ledger WHERE NOT estimated") == claude.answers);
	CHECK(day_one("SELECT sum(input) FROM cost_ledger WHERE NOT estimated") == claude.input);
	CHECK(day_one("SELECT sum(output) FROM cost_ledger WHERE NOT estimated") == claude.output);
	CHECK(day_one("SELECT sum(nano_usd) FROM cost_ledger") >= claude.nano);
	CHECK(day_one("SELECT sum(nano_usd) FROM cost_days") == day_one("SELECT sum(nano_usd) FROM cost_ledger"));
	CHECK(day_one("SELECT count(*) FROM reservations") == 0);
	/* the cap: reached every evening, never exceeded, gone at midnight */
	CHECK(day_one("SELECT count(DISTINCT created_at / 86400000000) FROM turns WHERE outcome = 5") >= 2);
	CHECK(day_one("SELECT count(*) FROM (SELECT sum(nano_usd) AS n FROM cost_ledger GROUP BY at / 86400000000)"
	    " WHERE n > " CAP_NANO) == 0);
	CHECK(day_one("SELECT count(*) FROM turns WHERE outcome = 5 AND created_at % 86400000000 < 3600000000") == 0);
	/* the third day left nothing behind; until then the page cache of the database grows to its size */
	CHECK(bytes[3] <= bytes[2] + 16384);
	printf("  %lld messages, %lld calls, %zu KB in use after a day, %zu after two, %zu after three\n",
	    (long long)said, (long long)claude.calls, bytes[1] >> 10, bytes[2] >> 10, bytes[3] >> 10);
	for (unsigned i = 0; i < PEOPLE; i++) {
		sim_cancel(&people[i].event);
		sim_cancel(&people[i].second_thought);
	}
	sim_cancel(&trouble_event);
	finish(false);
}

int
main(int argc, char **argv)
{
	extern char **environ;
	static char *nothing[] = { NULL };
	struct fail f = FAIL_INIT;
	int code = 1;

	if (getenv("REPLAY_LOG") == NULL && log_open(LOG_ERROR, LOG_TEXT, "/dev/null", &f) != OK)
		return 1;
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
		RUN(jump_in_mid_turn);
		RUN(jump_in_back_off);
		RUN(jump_in_the_outbox);
		RUN(jump_in_the_outbox_and_restart);
		RUN(jump_while_a_code_is_open);
		RUN(jump_in_the_dedup_window);
		RUN(each_day_has_its_cap);
		RUN(silence_of_a_week);
		RUN(three_days);
		test_file_ = "replay";
		code = TEST_END();
	}
	log_close();
	buf_free(&golden_script);
	buf_free(&golden_record);
	return code;
}
