/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_turn.c - whatever happens to the turn machine, in whatever order: messages,
 * corrections, stops; answers that are garbled, cut, refused; a Telegram that fails;
 * commits that fail; clocks that jump; drains, restarts and crashes.
 *
 * An input is a list of events, two bytes each, and runs in the world of
 * tests/replay. What must hold is looked at after every loop turn (here, and in
 * day.c and the peers at each request and each commit); at the end all trouble
 * ends, and everything must come to rest: each message has its turn, each turn its
 * one reply, delivered or given up for a reason.
 */
#include "replay/sim.h"

#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BASE (1772323200 * US_PER_S)
#define NOON (12 * 3600 * US_PER_S)
#define EVENTS_MAX 100
#define REST_TURNS_MAX 60000            /* loop turns until all is quiet */
#define REST_US (6 * 3600 * US_PER_S)   /* or so much time */
#define PEOPLE 4                        /* the last one in the group */

static const char toml[] = "[agent]\nmax_sessions = 2\n[cost]\ndaily_budget_usd = 5\n";
static int64_t said, words;             /* messages; control words */
static bool jumped;                     /* the clocks did */

static void
die(const char *why)
{
	struct buf b = BUF_INIT(16u << 20);

	if (day.witness)
		day_tables(&b, true);
	fprintf(stderr, "%s\n%s\n%s\n", why, buf_z(&sim.record), buf_z(&b));
	abort();
}

#define MUST(x) do { if (!(x)) die(#x); } while (0)

/* ---- after every loop turn ------------------------------------------------------------ */

static void
consistent(void)
{
	size_t it = 0, slots = 0, waiting = 0, turns = 0;
	struct session *s;

	if (sim.broken)
		die(sim.broken);
	MUST(telegram.refused == 0 && claude.refused == 0);
	if (day.a == NULL)
		return;
	while (sessions_next(day.a, &it, &s)) {
		turns += s->turn != NULL;
		slots += s->turn && s->turn->slot;
		waiting += s->turn && s->turn->waiting;
	}
	MUST(slots == turns_running(day.a) && waiting == turns_waiting(day.a));
	MUST(day.a->phase != AGENT_READY || !waiting || slots);
	MUST(day_one("SELECT count(*) FROM (SELECT 1 FROM turns WHERE state < 5 GROUP BY session_id HAVING count(*) > 1)") == 0);
	if (day.a->phase == AGENT_READY && !day.a->db->in_tx && !day.a->write_failed)
		MUST(day_one("SELECT count(*) FROM turns WHERE state < 5") == (int64_t)turns);
}

static void
turn(int64_t until)
{
	if (day_turn(until) != OK)
		die("the loop failed");
	consistent();
}

static void
pass(int64_t us)
{
	int64_t until = sim.now + us;

	do
		turn(until);
	while (sim.now < until);
}

/* ---- memory and rows -------------------------------------------------------------------- */

/* Dies suddenly; what the next start loads is what was there. */
static void
crash(void)
{
	struct buf before = BUF_INIT(1u << 20), after = BUF_INIT(1u << 20);
	struct agent *a = day.a;
	bool whole;

	if (a == NULL)
		return;
	whole = a->phase == AGENT_READY && !a->db->in_tx && !a->write_failed && !a->durable_owed && !a->after.head &&
	    !a->soon.head && day_one("SELECT count(*) FROM turns WHERE state < 5 AND deaths > 1") == 0;
	status_dump(a, &before);
	day.wish = WISH_CRASH;
	day_down(true);
	day.wish = WISH_NONE;
	if (day_up() != OK)
		die("it does not start again");
	status_dump(day.a, &after);
	if (jumped) {           /* then a start may find a reply's wait over, or all of it yet to come */
		before.n = str_find(buf_view(&before), S("\"outbox\""));
		after.n = str_find(buf_view(&after), S("\"outbox\""));
	}
	if (whole && !str_eq(buf_view(&before), buf_view(&after))) {
		fprintf(stderr, "before %s\nafter  %s\n", buf_z(&before), buf_z(&after));
		die("a start loads something else than what was there");
	}
	buf_free(&before);
	buf_free(&after);
	consistent();
}

static void
reload(unsigned arg)
{
	struct buf text = BUF_INIT(65536), told = BUF_INIT(65536);
	struct fail f = FAIL_INIT;
	FILE *file;

	if (day.a == NULL || file_read(day.sc.toml, 65536, &text, &f) != OK)
		return;
	file = fopen(day.sc.toml, "w");
	if (file == NULL)
		abort();
	text.n = str_find(buf_view(&text), S("[agent]"));
	fprintf(file, "%.*s[agent]\nmax_sessions = %u\n[cost]\ndaily_budget_usd = %s\n", (int)text.n, text.p, 1 + arg % 4,
	    arg & 8 ? "\"0.01\"" : "5");
	fclose(file);
	if (agent_reload(day.a, &told, &f) != OK)
		die(f.text);
	buf_free(&text);
	buf_free(&told);
}

/* ---- events --------------------------------------------------------------------------------- */

static void
say(unsigned arg)
{
	static const char *const wishes[] = { "", "", "#tools", "#think #tools", "#slow", "#loop", "#long", "#pause",
	    "#refuse", "#limit", "#empty", "#busy", "#wait", "#cut", "#error", "#torn" };
	unsigned who = arg % PEOPLE;
	char text[64];

	snprintf(text, sizeof(text), "m%lld; %s", (long long)++said, wishes[arg / PEOPLE % ARRAY_LEN(wishes)]);
	telegram_say(who + 1, who == PEOPLE - 1, str_z(text));
}

static void
control(unsigned arg)
{
	static const char *const control_words[] = { "/stop", "/new", "/help", "/stop" };

	words++;
	telegram_say(1 + arg % (PEOPLE - 1), false, str_z(control_words[arg / PEOPLE % ARRAY_LEN(control_words)]));
}

static void
trouble_telegram(unsigned arg)
{
	int64_t n = 1 + arg / 8 % 4;

	switch (arg % 8) {
	case 0: telegram.lose = n; break;
	case 1: telegram.fail = n; break;
	case 2: telegram.reset = n; break;
	case 3: telegram.refuse = 1; break;
	case 4:
		telegram.limit_s = n * 3;
		telegram.limit_until = sim.now + n * 2 * US_PER_S;
		break;
	case 5: telegram.down_until = sim.now + n * 10 * US_PER_S; break;
	case 6: telegram.silent_until = sim.now + n * 30 * US_PER_S; break;
	case 7: telegram.deaf_until = sim.now + n * 20 * US_PER_S; break;
	}
}

static void
trouble_claude(unsigned arg)
{
	static const int64_t statuses[] = { 529, 429, 500, 400, 401, 413, 403, 404 };

	claude.fail = 1 + arg / 8 % 6;
	claude.fail_status = statuses[arg % 8];
	claude.retry_after_s = arg & 64 ? (int64_t)(arg / 8) * 8 : -1;
	if (arg & 128) {
		claude.fail = 0;
		claude.down_until = sim.now + (1 + arg % 16) * US_PER_S;
	}
}

static void
jump(unsigned arg)
{
	static const int64_t by[] = { 1, 3600, 86400, 7 * 86400 };
	int64_t us = by[arg / 4 % 4] * US_PER_S;

	jumped = true;
	switch (arg % 4) {
	case 0: sim.utc_skew += us; break;
	case 1: sim.utc_skew -= us; break;
	case 2:
		sim.now += us;
		sim.mono_skew -= us;
		break;
	case 3: sim.now += us; break;
	}
}

static void
event(struct str *rest)
{
	unsigned op = (unsigned char)rest->p[0], arg = rest->n > 1 ? (unsigned char)rest->p[1] : 0;
	static const int64_t spans[] = { 1, 20, 50, 100, 300, 1000, 5000, 60000 };

	*rest = str_sub(*rest, 2, rest->n);
	sim_note("event %u %u", op % 16, arg);
	switch (op % 16) {
	case 0: case 1: case 2: say(arg); break;
	case 3: control(arg); break;
	case 4:
		telegram_edit(1 + arg % (PEOPLE - 1), S("corrected"));
		break;
	case 5: telegram_press_stop(1 + arg % (PEOPLE - 1)); break;
	case 6: trouble_telegram(arg); break;
	case 7: trouble_claude(arg); break;
	case 8: day.fail_commits = 1 + arg % 3; break;
	case 9: jump(arg); break;
	case 10: crash(); break;
	case 11:
		day.wish = arg % 2 ? WISH_DRAIN : arg % 4 ? WISH_STOP : WISH_RESTART;
		day.rise_at = sim.now + arg * US_PER_S;
		break;
	case 12: reload(arg); break;
	case 13:
		claude.garble = str_sub(*rest, 0, arg % 24);
		*rest = str_sub(*rest, arg % 24, rest->n);
		break;
	case 14:
		for (unsigned i = 0; i <= arg % 32; i++)
			turn(sim.now + US_PER_S);
		break;
	case 15: pass(spans[arg % ARRAY_LEN(spans)] * US_PER_MS); break;
	}
	consistent();
}

/* ---- the end ------------------------------------------------------------------------------------ */

static bool
quiet(void)
{
	return day.a && day.a->phase == AGENT_READY && sessions_loaded(day.a) == 0 && outbox_waiting(day.a) == 0 &&
	    telegram_updates() == 0 && !day.a->db->in_tx && !day.a->after.head && net_open(&claude_peer, NULL) == 0;
}

static void
come_to_rest(void)
{
	int64_t until = sim.now + REST_US;

	telegram.down_until = telegram.silent_until = telegram.deaf_until = telegram.limit_until = 0;
	telegram.lose = telegram.fail = telegram.reset = telegram.refuse = 0;
	claude.down_until = claude.fail = 0;
	day.fail_commits = 0;
	for (int i = 0; !quiet(); i++) {
		if (i == REST_TURNS_MAX || sim.now > until)
			die("it does not come to rest");
		turn(until);
	}
	MUST(day_one("SELECT count(*) FROM inbound") == said + words);
	MUST(day_one("SELECT count(*) FROM inbound WHERE state < 2") == 0);
	MUST(day_one("SELECT count(*) FROM turns") == said);
	MUST(day_one("SELECT count(*) FROM turns WHERE state < 5 OR outcome = 0") == 0);
	MUST(day_one("SELECT count(*) FROM steps WHERE state < 2") == 0);
	MUST(day_one("SELECT count(*) FROM outbox WHERE state < 2") == 0);
	/* one reply a turn; a message that was set aside may have given up an earlier one */
	MUST(day_one("SELECT count(*) FROM (SELECT 1 FROM turns LEFT JOIN outbox ON turn_id = turns.id AND kind = 0"
	    " AND (outcome <> 6 OR why <> 'set aside') GROUP BY turns.id HAVING count(turn_id) <> 1)") == 0);
	MUST(day_one("SELECT count(*) FROM (SELECT CAST(external_id AS INTEGER) AS e, lag(CAST(external_id AS INTEGER))"
	    " OVER (PARTITION BY session_id ORDER BY id) AS before FROM outbox WHERE kind = 0 AND state = 2)"
	    " WHERE before >= e") == 0);
	for (int64_t i = 1; i <= said; i++) {
		char text[64];

		snprintf(text, sizeof(text), "You said: m%lld;", (long long)i);
		for (unsigned who = 0; who < PEOPLE; who++)
			if (telegram_count_sure(who == PEOPLE - 1 ? GROUP_CHAT : telegram_chat(who + 1), str_z(text)) > 1)
				die("the same is said twice");
	}
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct fail f = FAIL_INIT;

	(void)argc, (void)argv;
	if (log_open(LOG_ERROR, LOG_TEXT, "/dev/null", &f) != OK)
		abort();
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str rest = str_make((const char *)data, size);

	said = words = 0;
	jumped = false;
	sim_begin(BASE, NOON, 7, getenv("FUZZ_RECORD") ? 64u << 20 : 0);
	if (day_begin(toml, "process") != OK)
		abort();
	pass(US_PER_S);
	for (int i = 0; i < EVENTS_MAX && rest.n; i++)
		event(&rest);
	come_to_rest();
	day_end();
	sim_end();
	return 0;
}
