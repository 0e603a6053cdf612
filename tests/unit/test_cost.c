/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_cost.c - prices, bands, the daily cap, and what is told when there is none or it is reached. */
#include "scratch.h"
#include "test.h"

extern const struct feature anthropic_feature;

static struct scratch sc;

static bool
begin(const char *toml)
{
	enum err e = scratch_begin(&sc, toml, "anthropic");

	CHECK_OK(e);
	return e == OK;
}

/* What is sold has a price for everything it can be billed for. */
TEST(table)
{
	const struct model_info *first = anthropic_feature.provider->models, *m;

	for (m = first; m->id; m++) {
		bool good = m->in > 0 && m->out > m->in && m->write_5m > m->in && m->write_1h > m->write_5m &&
		    m->read > 0 && m->read < m->in && m->window >= 200000 && m->max_output >= 4096 &&
		    m->max_output < m->window && m->band_factor >= 1 &&
		    (m->band_above == 0 || (m->band_above < m->window && m->band_factor > 1));

		/* PDFs and pictures; thinking by budget or adaptively, never both; what follows from what */
		good = good && m->cache_min >= 512 && m->images_max == (m->window < 1000000 ? 100 : 600) &&
		    (m->flags & MODEL_PDF) && !(m->flags & MODEL_BUDGET) == !!(m->flags & MODEL_ADAPTIVE) &&
		    (!(m->flags & MODEL_BOUND) || (m->flags & MODEL_SYSTEM_TURNS)) &&
		    !(m->flags & MODEL_SILENT) == !(m->flags & MODEL_ADAPTIVE) &&
		    !((m->flags & MODEL_BETWEEN_TOOLS) && (m->flags & MODEL_DISABLED));
		if (!good)
			test_bad_at_(__FILE__, __LINE__, m->id);
		for (const struct model_info *k = first; k != m; k++)
			CHECK(strcmp(k->id, m->id) != 0);
	}
	CHECK(m > first);
}

TEST(sums)
{
	struct model_info m = { .in = 2000, .out = 10000, .write_5m = 2500, .write_1h = 4000, .read = 200,
	    .band_factor = 1 };
	const struct usage u = { 1, 10, 100, 1000, 10000 }, none = { 0 };
	const int64_t sum = 2000 + 100000 + 20000 + 2500000 + 40000000;

	CHECK(cost_of(&m, &none) == 0);
	CHECK(cost_of(&m, &u) == sum);
	m.band_factor = 5;
	CHECK(cost_of(&m, &u) == sum);          /* no second band */
	m.band_above = 11101;                   /* the prompt, caches and all, not the answer */
	CHECK(cost_of(&m, &u) == sum);
	m.band_above = 11100;
	CHECK(cost_of(&m, &u) == 5 * sum);
}

TEST(model_prices)
{
	struct model_info m = { .id = NULL };
	struct fail f = FAIL_INIT;

	if (!begin("[pricing.\"own\"]\ninput = 4\noutput = \"8.5\"\n[pricing.\"own2\"]\ninput = 1\noutput = 2\n"
	    "cache_write_5m = 3\ncache_write_1h = 4\ncache_read = 5\ncontext_window = 6000\nmax_output = 700\n"
	    "[pricing.\"half\"]\ninput = 1\n[pricing.\"claude-haiku-5-5\"]\ninput = 9\n"
	    "[pricing.\"claude-opus-5\"]\nmax_output = 11\n")) {
		scratch_end(&sc);
		return;
	}
	if (cost_model(&sc.a, "claude-sonnet-5-5", &m, &f) == OK)
		CHECK(m.in == 2000 && m.out == 10000 && strcmp(m.id, "claude-sonnet-5-5") == 0);
	if (cost_model(&sc.a, "own", &m, &f) == OK)     /* unsaid cache prices are the usual multiples */
		CHECK(m.in == 4000 && m.out == 8500 && m.write_5m == 5000 && m.write_1h == 8000 && m.read == 400 &&
		    m.band_factor == 1 && m.window == 200000 && m.cache_min == 4096 && m.images_max == 100 &&
		    m.flags == MODEL_PDF);
	if (cost_model(&sc.a, "own2", &m, &f) == OK)
		CHECK(m.in == 1000 && m.out == 2000 && m.write_5m == 3000 && m.write_1h == 4000 && m.read == 5000 &&
		    m.window == 6000 && m.max_output == 700);
	if (cost_model(&sc.a, "claude-haiku-5-5", &m, &f) == OK)        /* an own price has no band */
		CHECK(m.in == 9000 && m.out == 500 && m.band_above == 0);
	if (cost_model(&sc.a, "claude-opus-5", &m, &f) == OK)           /* another limit is no price */
		CHECK(m.in == 5000 && m.max_output == 11);
	CHECK(f.err == OK);
	CHECK_ERR(cost_model(&sc.a, "half", &m, &f), ERR_NOTFOUND);
	fail_clear(&f);
	CHECK_ERR(cost_model(&sc.a, "claude-9.9", &m, &f), ERR_NOTFOUND);
	CHECK(strstr(f.text, "\n[pricing.\"claude-9.9\"]\ninput = ") && strstr(f.text, "next:"));
	/* what the message says to add is accepted */
	if (!FAULTED()) {
		struct fail g = FAIL_INIT;
		char *from = strchr(f.text, '\n') + 1, *to = strstr(from, "\n(US");

		CHECK(to != NULL);
		if (to)
			CHECK_OK(config_check(str_make(from, (size_t)(to - from)), "x.toml", &g));
	}
	scratch_end(&sc);
}

static int64_t
one(const char *sql)
{
	int64_t v = -1;

	CHECK_OK(db_get_i64(sc.a.db, sql, NULL, 0, -1, &v));
	return v;
}

static struct model_info sonnet;

/* 1,000 tokens of prompt at the price of a cache write (2.5 M nano-dollars), answers of 10,000 nano-dollars a token. */
static struct cost_order
order(int64_t answer)
{
	struct fail f = FAIL_INIT;

	CHECK_OK(cost_model(&sc.a, "claude-sonnet-5-5", &sonnet, &f));
	return (struct cost_order){ .feature = COST_MESSAGE, .session = 1, .turn = 2, .user = 3, .model = &sonnet, .input = 1000,
	    .answer = answer };
}

static int64_t
reserve(int64_t answer, enum err want, int64_t *granted)
{
	struct cost_order o = order(answer);
	struct fail f = FAIL_INIT;
	int64_t id = 0;

	CHECK_ERR(cost_reserve(&sc.a, &o, &id, &f), want);
	if (granted)
		*granted = o.answer;
	return id;
}

/* Spent and reserved reach the cap to the nano-dollar and never pass it. */
TEST(cap_exact)
{
	const struct usage all = { 0, 1750, 0, 1000, 0 };
	struct fail f = FAIL_INIT;
	struct cost_order o;
	int64_t id, granted;

	/* room for a prompt and 1,750 tokens */
	if (begin("[cost]\ndaily_budget_usd = 0.02\n")) {
		id = reserve(10000, OK, &granted);
		CHECK(FAULTED() || granted == 1750);
		CHECK(FAULTED() || one("SELECT sum(nano_usd) FROM reservations") == 20000000);
		(void)reserve(10000, ERR_BUSY, NULL);       /* it may yet cost less */
		CHECK_OK(cost_settle(&sc.a, id, &all, true, S("req_1")));
		CHECK(FAULTED() || (cost_today(&sc.a) == 20000000 && one("SELECT count(*) FROM reservations") == 0));
		CHECK(FAULTED() || one("SELECT count(*) FROM cost_ledger WHERE request_id = 'req_1' AND estimated = 0 AND user_id = 3"
		    " AND intended = 'claude-sonnet-5-5' AND feature = 'message'") == 1);
		(void)reserve(1, ERR_LIMIT, NULL);
		o = order(1024);
		o.input = 2000000;      /* $5.03: what is told to be typed is enough for it */
		CHECK_ERR(cost_reserve(&sc.a, &o, &id, &f), ERR_LIMIT);
		CHECK(FAULTED() || strstr(f.text, "blufio config set cost.daily_budget_usd 6`"));
	}
	scratch_end(&sc);
}

/* An answer gets shorter down to 1,024 tokens, no further; one that wants less gets that. */
TEST(floor)
{
	int64_t granted;

	if (begin("[cost]\ndaily_budget_usd = 0.01274\n")) {   /* 2.5 + 1,024 x 0.01 thousandths of a dollar */
		CHECK(FAULTED() || reserve(4096, OK, &granted) > 0);
		CHECK(FAULTED() || granted == 1024);
	}
	scratch_end(&sc);
	if (begin("[cost]\ndaily_budget_usd = 0.012739999\n")) {
		(void)reserve(4096, ERR_LIMIT, NULL);
		CHECK(FAULTED() || reserve(1000, OK, &granted) > 0);
		CHECK(FAULTED() || granted == 1000);
	}
	scratch_end(&sc);
}

/* Who has reserved what is left is waited for; what is spent is not. */
TEST(others)
{
	const struct usage little = { 10, 10, 0, 0, 0 };
	int64_t first;

	if (begin("[cost]\ndaily_budget_usd = 0.04\n")) {
		first = reserve(3000, OK, NULL);
		(void)reserve(3000, ERR_BUSY, NULL);
		CHECK_OK(cost_settle(&sc.a, first, &little, true, STR_NONE));
		CHECK(FAULTED() || reserve(3000, OK, NULL) > 0);
	}
	scratch_end(&sc);
}

/* A month, a person; yesterday and the others do not count. */
TEST(kinds_of_caps)
{
	struct fail f = FAIL_INIT;
	struct cost_order o;
	int64_t id;

	if (begin("[cost]\ndaily_budget_usd = 1\nmonthly_budget_usd = 0.05\nuser_daily_usd = 0.03\n")) {
		o = order(1024);
		CHECK_OK(cost_reserve(&sc.a, &o, &id, &f));
		CHECK_OK(cost_settle(&sc.a, id, &(struct usage){ 0, 1024, 0, 1000, 0 }, true, STR_NONE));
		o = order(1024);
		o.input = 4000;         /* 20.24 more: too much for this person, not for another */
		CHECK_ERR(cost_reserve(&sc.a, &o, &id, &f), ERR_LIMIT);
		CHECK(FAULTED() || (strstr(f.text, "budget for today") && strstr(f.text, "blufio config set cost.user_daily_usd 1")));
		o.user = 4;
		CHECK_OK(cost_reserve(&sc.a, &o, &id, &f));
		CHECK_OK(cost_settle(&sc.a, id, &(struct usage){ 0, 1024, 0, 4000, 0 }, true, STR_NONE));
		o.user = 5;
		fail_clear(&f);
		CHECK_ERR(cost_reserve(&sc.a, &o, &id, &f), ERR_LIMIT);
		CHECK(FAULTED() || (strstr(f.text, "This month's budget") && strstr(f.text, "on the first")));
		CHECK_OK(DB_EXEC(sc.a.db, "UPDATE cost_days SET day = day - ?1", DBI(40 * 86400 * US_PER_S)));
		CHECK_OK(cost_reserve(&sc.a, &o, &id, &f));
	}
	scratch_end(&sc);
}

/* What is left to one that asks: the least of its caps, which others' do not touch, and what is reserved neither. */
TEST(left)
{
	struct fail f = FAIL_INIT;
	struct cost_order o;
	int64_t id, left = 0;

	if (begin("[cost]\ndaily_budget_usd = 1\n[batch]\ndaily_usd = 0.02\n[jobs]\ndaily_usd = 0\n")) {
		CHECK_OK(cost_left(&sc.a, COST_BATCH, &left, &f));
		CHECK(FAULTED() || left == 20000000);
		CHECK_OK(cost_left(&sc.a, COST_MESSAGE, &left, &f));
		CHECK(FAULTED() || left == 1000000000);
		CHECK_ERR(cost_left(&sc.a, COST_JOB, &left, &f), ERR_DENIED);
		CHECK(FAULTED() || strstr(f.text, "jobs.daily_usd 1"));
		o = order(1024);
		o.feature = COST_BATCH;
		CHECK_OK(cost_reserve(&sc.a, &o, &id, &f));
		CHECK_OK(cost_left(&sc.a, COST_BATCH, &left, &f));
		CHECK(FAULTED() || left == 20000000);
		CHECK_OK(cost_settle(&sc.a, id, &(struct usage){ 0, 1024, 0, 0, 0 }, true, STR_NONE));
		CHECK_OK(cost_left(&sc.a, COST_BATCH, &left, &f));
		CHECK(FAULTED() || left == 20000000 - 10240000);
		CHECK_OK(cost_pause(&sc.a, true));
		fail_clear(&f);
		CHECK_ERR(cost_left(&sc.a, COST_BATCH, &left, &f), ERR_LIMIT);
		CHECK(FAULTED() || strstr(f.text, "paused"));
		CHECK_OK(cost_pause(&sc.a, false));
		CHECK_OK(DB_EXEC(sc.a.db, "UPDATE cost_days SET nano_usd = ?1", DBI(20000000)));
		fail_clear(&f);
		CHECK_ERR(cost_left(&sc.a, COST_BATCH, &left, &f), ERR_LIMIT);
		CHECK(FAULTED() || strstr(f.text, "Today's budget for batches is used up"));
	}
	scratch_end(&sc);
}

TEST(refusals)
{
	struct fail f = FAIL_INIT;
	struct cost_order o;
	int64_t id;

	if (begin("[cost]\ndaily_budget_usd = 0\n[pricing.\"free\"]\ninput = 0\noutput = 0\n[pricing.\"mad\"]\ninput = 1000000\n"
	    "output = 1000000\n")) {
		o = order(1024);
		CHECK_ERR(cost_reserve(&sc.a, &o, &id, &f), ERR_LIMIT);
		CHECK(FAULTED() || strstr(f.text, "Nothing may be spent"));
		fail_clear(&f);
		CHECK_OK(cost_model(&sc.a, "free", &sonnet, &f));       /* what costs nothing has no cap */
		o.model = &sonnet;
		CHECK_OK(cost_reserve(&sc.a, &o, &id, &f));
		CHECK_OK(cost_pause(&sc.a, true));
		CHECK_ERR(cost_reserve(&sc.a, &o, &id, &f), ERR_LIMIT);
		CHECK(FAULTED() || strstr(f.text, "paused"));
		CHECK_OK(cost_pause(&sc.a, false));
		CHECK_OK(cost_model(&sc.a, "mad", &sonnet, &f));
		o.input = o.answer = 100000000000;
		fail_clear(&f);
		CHECK_ERR(cost_reserve(&sc.a, &o, &id, &f), ERR_LIMIT);
		CHECK(FAULTED() || strstr(f.text, "beyond all bounds"));
		/* a ledger that cannot be read stops spending */
		o = order(1024);
		fail_clear(&f);
		if (!FAULTED() && db_commit(sc.a.db) == OK && db_script(sc.a.db, "ALTER TABLE cost_days RENAME TO gone") == OK) {
			CHECK(cost_reserve(&sc.a, &o, &id, &f) != OK);
			CHECK(strstr(f.text, "nothing is spent"));
		}
	}
	scratch_end(&sc);
}

/* The way to raise the cap that a message shows raises it. */
TEST(hint_raises)
{
	struct fail f = FAIL_INIT;
	struct cost_order o;
	const char *p;
	int64_t id;

	if (begin("[cost]\ndaily_budget_usd = 25\n")) {
		CHECK_OK(DB_EXEC(sc.a.db, "INSERT INTO cost_days VALUES(?1, 'message', 1, 25000000000)", DBI(clock_day_start(clock_us()))));
		o = order(1024);
		CHECK_ERR(cost_reserve(&sc.a, &o, &id, &f), ERR_LIMIT);
		p = strstr(f.text, "daily_budget_usd ");
		CHECK(FAULTED() || (p && strtol(p + 17, NULL, 10) > 25 && strstr(f.text, "$25.0000 spent of $25.0000")));
	}
	scratch_end(&sc);
}

/* A call that was cut is booked at no less than it may have cost, and no more than was reserved. */
TEST(cut_calls)
{
	const struct usage begun = { 100, 7, 900, 0, 0 }, absurd = { 5000000, 1000000, 0, 0, 0 };

	if (begin("[cost]\ndaily_budget_usd = 10\n")) {
		/* nothing came: the whole prompt as if written to the cache, and what may be on the way */
		CHECK_OK(cost_settle(&sc.a, reserve(1024, OK, NULL), NULL, false, STR_NONE));
		CHECK(FAULTED() || cost_today(&sc.a) == 2500000 + 256 * 10000);
		CHECK(FAULTED() || one("SELECT count(*) FROM cost_ledger WHERE estimated = 1 AND write_5m = 1000 AND output = 256") == 1);
		/* its beginning came */
		CHECK_OK(cost_settle(&sc.a, reserve(1024, OK, NULL), &begun, false, STR_NONE));
		CHECK(FAULTED() || one("SELECT nano_usd FROM cost_ledger ORDER BY id DESC LIMIT 1") == 200000 + 90000 + 2560000);
		/* never more than the answer might have had */
		CHECK_OK(cost_settle(&sc.a, reserve(100, OK, NULL), &begun, false, STR_NONE));
		CHECK(FAULTED() || one("SELECT output FROM cost_ledger ORDER BY id DESC LIMIT 1") == 100);
		/* it ran for ten seconds and thought, unseen */
		(void)reserve(100000, OK, NULL);
		CHECK_OK(DB_EXEC(sc.a.db, "UPDATE reservations SET at = at - ?1", DBI(10 * US_PER_S)));
		CHECK_OK(cost_load(&sc.a));     /* as after a death */
		CHECK(FAULTED() || one("SELECT output FROM cost_ledger ORDER BY id DESC LIMIT 1") == 256 + 1280);
		CHECK(FAULTED() || one("SELECT count(*) FROM reservations") == 0);
		/* what cannot be is not believed */
		CHECK_OK(cost_settle(&sc.a, reserve(1024, OK, NULL), &absurd, true, STR_NONE));
		CHECK(FAULTED() || one("SELECT nano_usd FROM cost_ledger WHERE estimated = 1 ORDER BY id DESC LIMIT 1") == 12740000);
		CHECK(FAULTED() || one("SELECT sum(nano_usd) FROM cost_ledger") == cost_today(&sc.a));
		CHECK_OK(cost_release(&sc.a, reserve(1024, OK, NULL)));
		CHECK(FAULTED() || one("SELECT count(*) FROM reservations") == 0);
	}
	scratch_end(&sc);
}

TEST(warned_once)
{
	const struct usage much = { 0, 0, 0, 1000, 0 };
	struct session *s;

	if (begin("[cost]\ndaily_budget_usd = 0.0156\n") && scratch_session(&sc.a, "main", &s) == OK) {
		for (int i = 0; i < 5 && !FAULTED(); i++) {
			CHECK_OK(cost_settle(&sc.a, reserve(1, OK, NULL), &much, true, STR_NONE));
			CHECK(one("SELECT count(*) FROM meta WHERE key = 'warned.cost.daily_budget_usd'") == (i == 4));
		}
	}
	scratch_end(&sc);
}

TEST(report)
{
	struct buf json = BUF_INIT(65536), text = BUF_INIT(65536);
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(65536));
	const struct json *r = NULL;
	struct jw w;

	if (begin("[cost]\ndaily_budget_usd = 1\n")) {
		CHECK_OK(cost_settle(&sc.a, reserve(1024, OK, NULL), &(struct usage){ 100, 10, 300, 0, 0 }, true, STR_NONE));
		(void)reserve(1024, OK, NULL);
		jw_init(&w, &json);
		CHECK_OK(cost_report(&sc.a, &w));
		CHECK_OK(jw_done(&w));
		if (!FAULTED() && json_parse(&ar, buf_view(&json), &r, NULL) == OK) {
			cost_text(r, &text);
			CHECK(strstr(buf_z(&text), "Today's budget: $0.0003 of $1.0000 spent, up to $0.0127 in work; resets in "));
			CHECK(strstr(buf_z(&text), "- claude-sonnet-5-5: $0.0003 in 1 call\n"));
			CHECK(strstr(buf_z(&text), "- message: $0.0003"));
			CHECK(strstr(buf_z(&text), "75 % came from"));
		}
	}
	buf_free(&json);
	buf_free(&text);
	arena_free(&ar);
	scratch_end(&sc);
}

TEST(dollars)
{
	static const struct { int64_t nano; const char *text; } table[] = {
		{ 0, "$0.0000" }, { 99999, "$0.0000" }, { 100000, "$0.0001" }, { 12345678, "$0.0123" },
		{ 999999999, "$0.9999" }, { 1000000000, "$1.0000" }, { 123456789012345, "$123456.7890" },
		{ INT64_MAX, "$9223372036.8547" },
	};
	char out[32];

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		cost_usd(table[i].nano, out);
		CHECK_STR(str_z(out), table[i].text);
	}
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));       /* a fault may have met it */
	RUN(table);
	RUN(sums);
	RUN(model_prices);
	RUN(cap_exact);
	RUN(floor);
	RUN(others);
	RUN(kinds_of_caps);
	RUN(left);
	RUN(refusals);
	RUN(hint_raises);
	RUN(cut_calls);
	RUN(warned_once);
	RUN(report);
	RUN(dollars);
	log_close();
	return TEST_END();
}
