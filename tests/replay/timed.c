/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * timed.c - what is done at its time: idle days, jobs and checklists over changes of
 * the clocks, jumps, deaths, caps and pauses.
 *
 *   timed [NAME]        the tests, or those whose name has NAME in it
 *
 * With REPLAY_LOG set the log goes to standard error, and the record of a day that failed.
 *
 * User n of the world writes in the chat 1000 + n; the daemon may write there once
 * that has happened, so every day begins with a word of theirs.
 */
#include "replay/sim.h"
#include "test.h"

#include <time.h>

#define BASE_S 1772323200               /* 2026-03-01, a Sunday */
#define SPRING_S 1774742400             /* 2026-03-29 */
#define AUTUMN_S 1792886400             /* 2026-10-25 */
#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"
#define RECORD_MAX (64u << 20)
#define BEAT(more) "[heartbeat]\nenabled = true\nchat = \"telegram:1001\"\nchecklist = \"list.md\"\nmodel = \"claude-sonnet-5-5\"\n" more
#define AWAKE "quiet_hours = \"\"\n"

/* Minutes since noon of the first day. */
#define MINUTE(column, base) "(" column " / 60000000 - " base " / 60 - 720)"

static bool loud;                       /* a day that failed is printed */

static void
zone(const char *tz)
{
	if (setenv("TZ", tz, 1) != 0)
		abort();
	tzset();
}

static void
write_list(const char *name, const char *text)
{
	char path[160];
	struct fail f = FAIL_INIT;

	snprintf(path, sizeof(path), "%s/%s", day.sc.dir, name);
	CHECK_OK(file_replace(path, str_z(text), 0600, &f));
}

static void
remove_list(const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", day.sc.dir, name);
	(void)remove(path);             /* not every day has one */
}

static bool
begin_at(int64_t base_s, const char *toml, const char *list)
{
	enum err e;

	sim_begin(base_s * US_PER_S, 12 * 3600 * US_PER_S - 10 * US_PER_S, 7, RECORD_MAX);
	e = day_begin(toml, "process");
	CHECK_OK(e);
	telegram_say(1, false, S("/help"));
	if (list)
		write_list("list.md", list);
	return e == OK;
}

static bool
begin(const char *toml, const char *list)
{
	return begin_at(BASE_S, toml, list);
}

/* Nothing is left open; each time was taken by one message at most. */
static void
finish(void)
{
	if (sim.broken)
		test_bad_at_(__FILE__, __LINE__, sim.broken);
	CHECK(telegram.refused == 0 && claude.refused == 0);
	CHECK(day_one("SELECT count(*) FROM turns WHERE state < 5") == 0);
	CHECK(day_one("SELECT count(*) FROM inbound WHERE state < 2") == 0);
	CHECK(day_one("SELECT count(*) FROM outbox WHERE state < 2") == 0);
	CHECK(day_one("SELECT count(*) FROM reservations") == 0);
	CHECK(day_one("SELECT count(*) FROM inbound WHERE kind = 1") <= day_one("SELECT count(*) FROM job_runs"));
	remove_list("list.md");
	remove_list("two.md");
	day_end();
	if (test_bad_ && loud)
		fprintf(stderr, "%s\n", buf_z(&sim.record));
	sim_end();
}

#define SAID(user, text, times) \
	do { if (telegram_count(telegram_chat(user), S(text), NULL) != (times)) { \
		test_bad_at_(__FILE__, __LINE__, "\"" text "\" is not said " #times " time(s)"); \
		printf("  after \"%s\": %zu\n", day.jump ? day.jump : "", telegram_count(telegram_chat(user), S(text), NULL)); \
	} } while (0)

/* How often a text stood in what left the machine for the model. */
static size_t
asked(const char *text)
{
	struct str rest = buf_view(&sim.record), line;
	size_t n = 0;

	while (str_cut(&rest, '\n', &line))
		n += str_find(line, S(" > api.anthropic.com ")) != SIZE_MAX && str_find(line, str_z(text)) != SIZE_MAX;
	return n;
}

/* ---- idle ------------------------------------------------------------------------------------------ */

/* Twenty-four hours in which nothing is due, for whatever reason. */
TEST(idle_day_costs_nothing)
{
	static const char *const lists[] = { "", "# List\n\n- [x] Done\n- [X] Done too\n- no box\n[ ] no dash\n- [ ]\n- [ ]   \n",
	    "- [ ] Later @2026-12-01 09:00\n- [ ] Tomorrow @2026-03-02 12:01\n", NULL, "\xFF\xFE", "dir", "large" };
	static const char config[] = BEAT(AWAKE) "[jobs.later]\nschedule = \"0 0 1 6 *\"\nprompt = \"Later.\"\nchat = \"telegram:1001\"\n";

	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		char path[160];

		if (!begin(config, lists[i] && strlen(lists[i]) > 5 ? lists[i] : NULL))
			return;
		snprintf(path, sizeof(path), "%s/list.md", day.sc.dir);
		if (lists[i] && strcmp(lists[i], "dir") == 0) {
			struct fail f = FAIL_INIT;

			CHECK_OK(file_mkdirs(path, 0700, &f));
		} else if (lists[i] && strcmp(lists[i], "large") == 0) {
			struct buf b = BUF_INIT(1u << 20);

			for (int k = 0; k < 8000; k++)
				buf_puts(&b, "- [ ] Much\n");
			write_list("list.md", buf_z(&b));
			buf_free(&b);
		} else if (lists[i]) {
			write_list("list.md", lists[i]);
		}
		CHECK_OK(day_script("1+12:00:00 end\n"));
		CHECK(claude.calls == 0);
		CHECK(telegram.sends == 1);
		if (claude.calls)
			printf("  list %zu: %lld calls\n", i, (long long)claude.calls);
		finish();
	}
}

/* ---- a checklist ------------------------------------------------------------------------------------- */

#define THREE "# Mine\n- [ ] Buy milk\n  - [ ] Dentist @2026-03-01 15:07\n* [ ] Vitamins @09:30 every day\n- [x] Old @2026-03-01 13:00\n"

/* Each of three items at its time, whatever ends the daemon in between; nothing else is asked or said. */
TEST(three_items)
{
	static const char *const events[] = { "utc 0", "restart", "crash", "drain", "stop 600" };

	for (size_t i = 0; i < ARRAY_LEN(events); i++) {
		if (!begin(BEAT(AWAKE), THREE))
			return;
		day.jump = events[i];
		CHECK_OK(day_script("12:00:20 jump\n15:00:00 jump\n15:20:00 jump\n1+09:10:00 jump\n1+09:40:00 jump\n1+12:00:00 end\n"));
		CHECK(claude.calls == 3 && claude.values == 3);
		SAID(1, "You wanted: - Buy milk", 1);
		SAID(1, "You wanted: - Dentist @2026-03-01 15:07", 1);
		SAID(1, "You wanted: - Vitamins @09:30 every day", 1);
		CHECK(telegram.sends == 4);
		CHECK(day_one("SELECT " MINUTE("created_at", "1772323200") " FROM outbox WHERE text LIKE '%milk%'") <= 0);
		CHECK(day_one("SELECT " MINUTE("created_at", "1772323200") " FROM outbox WHERE text LIKE '%Dentist%'") == 3 * 60 + (i == 4 ? 10 : 7));
		CHECK(day_one("SELECT " MINUTE("created_at", "1772323200") " FROM outbox WHERE text LIKE '%Vitamins%'") == 21 * 60 + 30);
		CHECK(day_one("SELECT sum(nano_usd) FROM cost_ledger WHERE feature = 'heartbeat'") == claude.nano);
		finish();
	}
}

/* Two at one time are one question. Words that change are a new item; a box that is ticked ends one. */
TEST(items_of_one_time)
{
	if (!begin(BEAT(AWAKE), "- [ ] One @2026-03-01 13:00\n- [ ] Two @2026-03-01 13:00\n- [ ] Three @2026-03-01\n"))
		return;
	CHECK_OK(day_script("14:00:00 end\n"));
	CHECK(claude.calls == 2);
	SAID(1, "You wanted: - Three @2026-03-01", 1);
	SAID(1, "You wanted: - One @2026-03-01 13:00\n- Two @2026-03-01 13:00", 1);
	write_list("list.md", "- [x] One @2026-03-01 13:00\n- [ ] Two @2026-03-01 18:00\n- [ ] Three @2026-03-01\n");
	CHECK_OK(day_script("+0 restart\n23:59:00 end\n"));
	CHECK(claude.calls == 3);
	SAID(1, "You wanted: - Two @2026-03-01 18:00", 1);
	finish();
}

TEST(quiet_hours)
{
	if (!begin(BEAT("quiet_hours = \"22:00-07:10\"\n"), "- [ ] Late @2026-03-01 23:15\n- [ ] Early @06:00\n- [ ] At seven @2026-03-02 07:00\n"))
		return;
	CHECK_OK(day_script("1+12:00:00 end\n"));
	CHECK(claude.calls == 1);
	SAID(1, "You wanted: - Late @2026-03-01 23:15\n- Early @06:00\n- At seven", 1);
	CHECK(day_one("SELECT " MINUTE("created_at", "1772323200") " FROM outbox WHERE text LIKE '%Late%'") == 19 * 60 + 10);
	finish();
}

/* It waits in front of the next answer, once, and the model of the conversation knows of it. */
TEST(on_next_message)
{
	struct str last = STR_NONE;

	if (!begin(BEAT(AWAKE "delivery = \"on_next_message\"\n"), "- [ ] One @2026-03-01 13:00\n- [ ] Two @2026-03-01 14:00\n"))
		return;
	CHECK_OK(day_script("15:00:00 restart\n15:00:10 end\n"));
	CHECK(telegram.sends == 1 && claude.calls == 2);
	CHECK_OK(day_script("+0 user 1 says Good morning.\n+60 crash\n+10 user 1 says And on.\n+60 end\n"));
	CHECK(telegram.sends == 3);
	CHECK(telegram_count(telegram_chat(1), S("You said: Good morning."), &last) == 1);
	CHECK(str_starts(last, S("You wanted: - One @2026-03-01 13:00\n\n---\n\nYou wanted: - Two @2026-03-01 14:00\n\n---\n\nYou said: ")));
	CHECK(telegram_count(telegram_chat(1), S("You said: And on."), &last) == 1 && str_starts(last, S("You said: ")));
	CHECK(asked("{\\\"role\\\":\\\"system\\\"") == 2 || asked("\"role\":\"system\"") == 2);
	CHECK(asked("unasked, you have told this person: You wanted: - One") == 2);
	finish();
}

/* A value that says no, an answer that is no value, a provider that fails: silence; tried three times at most. */
TEST(answers_without_a_word)
{
	if (!begin(BEAT(AWAKE), "- [ ] Never mind #silent @2026-03-01 13:00\n- [ ] Odd #garbage @2026-03-01 16:00\n"))
		return;
	CHECK_OK(day_script("1+12:00:00 end\n"));
	CHECK(telegram.sends == 1);
	CHECK(claude.calls == 4);
	CHECK(day_one("SELECT count(*) FROM heartbeat_items WHERE told") == 2);
	finish();
	if (!begin(BEAT(AWAKE), "- [ ] One @2026-03-01 13:00\n"))
		return;
	CHECK_OK(day_script("12:59:00 claude fail 2 529\n1+12:00:00 end\n"));
	CHECK(claude.calls == 3 && telegram.sends == 2);
	SAID(1, "You wanted: - One", 1);
	CHECK(day_one("SELECT " MINUTE("created_at", "1772323200") " FROM outbox WHERE text LIKE 'You wanted: - One%'") == 120);
	finish();
}

/* Killed while the model words it: it is asked once more and said once; a question that kills is not asked for ever. */
TEST(deaths_while_asking)
{
	if (!begin(BEAT(AWAKE), "- [ ] One #slow @2026-03-01 13:00\n"))
		return;
	CHECK_OK(day_script("13:00:02 crash\n14:00:00 end\n"));
	CHECK(claude.calls == 2);
	SAID(1, "You wanted: - One", 1);
	CHECK(day_one("SELECT count(*) FROM cost_ledger WHERE estimated") == 1);
	CHECK_OK(day_script("+0 end\n"));
	finish();
	if (!begin(BEAT(AWAKE), "- [ ] One #slow @2026-03-01 13:00\n"))
		return;
	CHECK_OK(day_script("13:00:02 crash\n13:00:04 crash\n13:00:06 crash\n13:00:08 crash\n13:00:10 crash\n16:00:00 end\n"));
	CHECK(claude.calls == 3);
	finish();
}

/* Each person's items, conversation and quiet hours are his own. */
TEST(two_people)
{
	static const char config[] = BEAT(AWAKE) "[heartbeat.two]\nchat = \"telegram:1002\"\nchecklist = \"two.md\"\n"
	    "quiet_hours = \"12:00-14:00\"\n";

	if (!begin(config, "- [ ] First's secret @2026-03-01 13:00\n"))
		return;
	write_list("two.md", "- [ ] Second's secret @2026-03-01 13:00\n");
	CHECK_OK(day_script("12:01:00 user 2 says A second word\n12:02:00 user 1 says A first word\n20:00:00 end\n"));
	CHECK(claude.values == 2);
	SAID(1, "First's secret", 1);
	SAID(1, "Second", 0);
	SAID(2, "Second's secret", 1);
	SAID(2, "First", 0);
	CHECK(day_one("SELECT " MINUTE("created_at", "1772323200") " FROM outbox WHERE text LIKE '%Second''s%'") == 120);
	CHECK(asked("First's secret") == 1 && asked("Second's secret") == 1);
	finish();
}

/* Beyond its caps there is silence and one word about it; the day after, what waited is said. */
TEST(cap)
{
	if (!begin(BEAT(AWAKE "daily_usd = 0.02\n"), "- [ ] One #long @2026-03-01 13:00\n- [ ] Two @2026-03-01 14:00\n- [ ] Three @2026-03-01 15:00\n"))
		return;
	CHECK_OK(day_script("20:00:00 restart\n23:59:00 end\n"));
	CHECK(claude.calls == 1);
	SAID(1, "You wanted: - One #long", 1);
	SAID(1, "Today's budget for heartbeats does not reach", 1);
	CHECK(telegram.sends == 3);
	CHECK(day_one("SELECT sum(nano_usd) FROM cost_ledger") < 20000000);
	CHECK_OK(day_script("1+01:00:00 end\n"));
	SAID(1, "You wanted: - Two @2026-03-01 14:00\n- Three", 1);
	finish();
	if (!begin(BEAT(AWAKE "daily_usd = 0\n"), "- [ ] One\n"))
		return;
	CHECK_OK(day_script("23:00:00 end\n"));
	CHECK(claude.calls == 0);
	SAID(1, "Nothing may be spent: today's budget for heartbeats is $0", 1);
	finish();
}

/* ---- clocks ---------------------------------------------------------------------------------------------- */

/* Local times over both changes of the year; an hourly job runs every real hour. */
TEST(changes_of_the_clocks)
{
	static const char config[] = BEAT(AWAKE) "[jobs.night]\nschedule = \"30 2 * * *\"\nprompt = \"Night.\"\nchat = \"telegram:1001\"\n"
	    "[jobs.hourly]\nschedule = \"5 * * * *\"\nprompt = \"Hour.\"\nchat = \"telegram:1001\"\n";

	zone(BERLIN);
	if (begin_at(SPRING_S - 86400, config, "- [ ] Pill @02:30\n- [ ] Wake @2026-03-29 02:15\n")) {
		CHECK_OK(day_script("1+12:00:00 end\n"));
		SAID(1, "Night.", 1);
		CHECK(day_one("SELECT job_runs.due_at / 1000000 - 1774742400 FROM job_runs JOIN jobs ON jobs.id = job_id WHERE name = 'night'") == 3600);
		CHECK(day_one("SELECT count(*) FROM job_runs JOIN jobs ON jobs.id = job_id WHERE name = 'hourly'") == 24);
		SAID(1, "Hour.", 24);
		SAID(1, "You wanted: - Pill @02:30\n- Wake", 1);
		CHECK(day_one("SELECT created_at / 1000000 - 1774742400 FROM outbox WHERE text LIKE '%Pill%'") < 3610);
		finish();
	}
	if (begin_at(AUTUMN_S - 86400, config, "- [ ] Pill @02:30\n- [ ] Wake @2026-10-25 02:15\n")) {
		CHECK_OK(day_script("1+12:00:00 end\n"));
		SAID(1, "Night.", 1);
		CHECK(day_one("SELECT job_runs.due_at / 1000000 - 1792886400 FROM job_runs JOIN jobs ON jobs.id = job_id WHERE name = 'night'") == 1800);
		CHECK(day_one("SELECT count(*) FROM job_runs JOIN jobs ON jobs.id = job_id WHERE name = 'hourly'") == 24);
		SAID(1, "You wanted: - Pill", 1);
		SAID(1, "You wanted: - Wake", 1);
		finish();
	}
	zone("UTC0");
}

/* How many times pass with the jump, and come in the day after it. */
static const struct { const char *how; int64_t missed, come; } jumps[] = { { "utc 0", 0, 2 }, { "utc 86400", 1, 2 },
    { "utc -86400", 0, 2 }, { "utc -900", 0, 2 }, { "utc -43210", 0, 1 }, { "utc 31536000", 1, 2 }, { "utc -31536000", 0, 2 },
    { "suspend 3600", 1, 1 }, { "suspend 86400", 1, 2 }, { "freeze 86400", 1, 2 } };

/* The clock jumps, before a time and after it, and back again: no time is taken twice, none that passed is forgotten, and
 * the next one comes. */
TEST(jumps_of_the_clock)
{
	static const char config[] = "[jobs.noon]\nschedule = \"30 12 * * *\"\nprompt = \"Noon.\"\nchat = \"telegram:1001\"\n"
	    "[jobs.told]\nschedule = \"40 12 * * *\"\nprompt = \"Told.\"\nchat = \"telegram:1001\"\nmissed = \"report\"\n";

	for (size_t i = 0; i < ARRAY_LEN(jumps); i++) {
		int64_t runs;

		if (!begin(config, NULL))
			return;
		day.jump = jumps[i].how;
		CHECK_OK(day_script("+600 jump\n+120 end\n"));
		/* what passed is done, or told, within a minute; else nothing was */
		SAID(1, "this time.\n\nNoon.", (size_t)jumps[i].missed);
		SAID(1, "this time.\n\nTold.", 0);
		SAID(1, "Missed while nothing ran: job 2, due Sun 2026-03-01 12:40", (size_t)jumps[i].missed);
		CHECK_OK(day_script("+89400 end\n"));
		runs = day_one("SELECT count(*) FROM job_runs WHERE job_id = 1");
		CHECK(runs == jumps[i].missed + jumps[i].come);
		CHECK(day_one("SELECT count(*) FROM job_runs WHERE job_id = 2") == runs);
		SAID(1, "this time.\n\nNoon.", (size_t)runs);
		SAID(1, "this time.\n\nTold.", (size_t)jumps[i].come);
		/* and back: what was done is not done again */
		CHECK_OK(day_script("+0 utc -5400\n+7200 restart\n+60 end\n"));
		CHECK(day_one("SELECT count(*) FROM job_runs") == 2 * runs);
		if (test_bad_)
			printf("  after \"%s\": %lld\n", jumps[i].how, (long long)runs);
		finish();
	}
}

/* ---- jobs ---------------------------------------------------------------------------------------------------- */

/* By chat, in the same second, over deaths around it; a moment comes once. */
TEST(jobs_once_each)
{
	static const char *const events[] = { "utc 0", "crash", "restart", "commits 3" };

	for (size_t i = 0; i < ARRAY_LEN(events); i++) {
		if (!begin("", NULL))
			return;
		day.jump = events[i];
		CHECK_OK(day_script("12:00:00 user 1 says /job add 10 12 * * * First of all\n+1 user 1 says /job add */10 12-13 * * * Second\n"
		    "+1 user 1 says /job at 2026-03-01 12:10 Third\n12:05:00 jump\n12:09:59.9 jump\n12:10:00 jump\n12:10:00.5 jump\n"
		    "+300 jump\n12:35:00 end\n"));
		SAID(1, "this time.\n\nFirst of all.", 1);
		SAID(1, "this time.\n\nSecond.", 3);
		SAID(1, "this time.\n\nThird.", 1);
		CHECK(day_one("SELECT count(*) FROM job_runs") == 5);
		CHECK(day_one("SELECT count(*) FROM jobs WHERE over") == 1);
		CHECK(day_one("SELECT count(*) FROM cost_ledger WHERE feature <> 'job'") == 0);
		CHECK(day_one("SELECT count(*) FROM cost_ledger WHERE NOT estimated") == 5);
		finish();
	}
}

/* The daemon is away: done once, late, and the model knows; or told. */
TEST(missed_while_away)
{
	static const char config[] = "[jobs.a]\nschedule = \"5 * * * *\"\nprompt = \"Run it.\"\nchat = \"telegram:1001\"\n"
	    "[jobs.b]\nschedule = \"5 * * * *\"\nprompt = \"Tell it.\\nMore.\"\nchat = \"telegram:1001\"\nmissed = \"report\"\n"
	    "[jobs.c]\nschedule = \"2026-03-01 14:00\"\nprompt = \"Once.\"\nchat = \"telegram:1001\"\n";

	if (!begin(config, NULL))
		return;
	CHECK_OK(day_script("12:02:00 stop 19800\n17:32:10 end\n"));
	SAID(1, "this time.\n\nRun it.", 1);
	SAID(1, "Missed while nothing ran: job 2, due Sun 2026-03-01 12:05 and 5 times since: Tell it.", 1);
	SAID(1, "More.", 0);
	SAID(1, "this time.\n\nOnce.", 1);
	CHECK(asked("job 1, due Sun 2026-03-01 12:05 and 5 times since; nothing ran then, and it is now Sun 2026-03-01 17:32") >= 1);
	CHECK_OK(day_script("18:06:00 restart\n18:10:00 end\n"));
	SAID(1, "this time.\n\nRun it.", 2);
	SAID(1, "this time.\n\nTell it.", 1);
	SAID(1, "this time.\n\nOnce.", 1);
	/* a few minutes late is not missed */
	CHECK_OK(day_script("19:04:00 stop 240\n19:10:00 end\n"));
	SAID(1, "this time.\n\nTell it.", 2);
	finish();
}

/* Neither what a job says nor what it gets for an answer is acted on. */
TEST(words_of_a_job)
{
	if (!begin("", NULL))
		return;
	CHECK_OK(day_script("12:00:00 user 1 says /job add 10 12 * * * /job add * * * * * again\n+1 user 1 says /job add 20 12 * * * /pause\n"
	    "+1 user 1 says /job add 30 12 * * * /new\n13:00:00 end\n"));
	CHECK(day_one("SELECT count(*) FROM jobs") == 3);
	CHECK(day_one("SELECT count(*) FROM job_runs") == 3 && claude.calls == 3);
	SAID(1, "this time.\n\n/job add * * * * * again.", 1);
	SAID(1, "this time.\n\n/pause.", 1);
	CHECK(day_one("SELECT value FROM meta WHERE key = 'paused'") <= 0);
	CHECK(day_one("SELECT count(*) FROM sessions WHERE history_seq > 0") == 0);
	finish();
}

/* Paused, nothing is asked and nothing said; afterwards what waited is done once. */
TEST(pause)
{
	if (!begin(BEAT(AWAKE) "[jobs.a]\nschedule = \"5 * * * *\"\nprompt = \"Hour.\"\nchat = \"telegram:1001\"\n", "- [ ] One @2026-03-01 13:00\n"))
		return;
	CHECK_OK(day_script("12:04:00 user 1 says /pause\n20:10:00 crash\n1+11:30:00 end\n"));
	CHECK(claude.calls == 0 && telegram.sends == 2);
	CHECK_OK(day_script("+0 user 1 says /resume\n+120 end\n"));
	SAID(1, "this time.\n\nHour.", 1);
	SAID(1, "You wanted: - One", 1);
	CHECK(claude.calls == 2);
	finish();
}

/* Beyond the cap of jobs what was to be said is said without the model. */
TEST(cap_of_jobs)
{
	if (!begin("[jobs]\ndaily_usd = 0.001\n[jobs.a]\nschedule = \"0 13 * * *\"\nprompt = \"Stretch!\"\nchat = \"telegram:1001\"\n", NULL))
		return;
	CHECK_OK(day_script("13:10:00 user 1 says Hello.\n14:00:00 end\n"));
	SAID(1, "Stretch!\n\n(Today's budget for jobs does not reach", 1);
	SAID(1, "Scheduled job", 0);
	SAID(1, "You said: Hello.", 1);
	finish();
}

/* What the configuration takes away or changes. */
TEST(configured_jobs)
{
	static const char one[] = "[storage]\ndatabase_path = \"%s\"\n[telegram]\nbot_token = \"" TELEGRAM_TOKEN "\"\nallowed_users = [1001]\n"
	    "[routing]\nenabled = false\n[anthropic]\napi_key = \"sk-simulated-key\"\n%s";
	char text[2048];

	if (!begin("[jobs.a]\nschedule = \"0 13 * * *\"\nprompt = \"One.\"\nchat = \"telegram:1001\"\n[jobs.half]\nschedule = \"0 13 * * *\"\n", NULL))
		return;
	CHECK_OK(day_script("13:10:00 end\n"));
	SAID(1, "this time.\n\nOne.", 1);
	snprintf(text, sizeof(text), one, day.sc.path, "[jobs.a]\nschedule = \"0 14 * * *\"\nprompt = \"Two.\"\nchat = \"telegram:1001\"\n");
	write_list("a.toml", text);
	CHECK_OK(day_script("+0 restart\n13:30:00 user 1 says /jobs\n+1 user 1 says /job remove 1\n14:10:00 end\n"));
	SAID(1, "1. next Sun 2026-03-01 14:00, `0 14 * * *` (a, of the configuration): Two.", 1);
	SAID(1, "Job 1 stands in the configuration", 1);
	SAID(1, "this time.\n\nTwo.", 1);
	snprintf(text, sizeof(text), one, day.sc.path, "");
	write_list("a.toml", text);
	CHECK_OK(day_script("+0 restart\n1+14:10:00 user 1 says /jobs\n+10 end\n"));
	SAID(1, "There are no jobs here.", 1);
	CHECK(day_one("SELECT count(*) FROM job_runs") == 2);
	finish();
}

int
main(int argc, char **argv)
{
	extern char **environ;
	static char *nothing[] = { NULL };
	struct fail f = FAIL_INIT;

	loud = getenv("REPLAY_LOG") != NULL;
	if (!loud && log_open(LOG_ERROR, LOG_TEXT, "/dev/null", &f) != OK)
		return 1;
	environ = nothing;              /* whatever is set here has no part in it */
	zone("UTC0");
	TEST_BEGIN(argc, argv);
	RUN(idle_day_costs_nothing);
	RUN(three_items);
	RUN(items_of_one_time);
	RUN(quiet_hours);
	RUN(on_next_message);
	RUN(answers_without_a_word);
	RUN(deaths_while_asking);
	RUN(two_people);
	RUN(cap);
	RUN(changes_of_the_clocks);
	RUN(jumps_of_the_clock);
	RUN(jobs_once_each);
	RUN(missed_while_away);
	RUN(words_of_a_job);
	RUN(pause);
	RUN(cap_of_jobs);
	RUN(configured_jobs);
	log_close();
	return TEST_END();
}
