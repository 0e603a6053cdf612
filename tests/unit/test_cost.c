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

/* One nano-dollar under the cap may go on, the cap itself may not. */
TEST(daily_cap)
{
	const struct usage u = { 1, 1, 0, 0, 0 };
	struct fail f = FAIL_INIT;
	struct db *db;

	if (!begin("[cost]\ndaily_budget_usd = 0.5\n")) {
		scratch_end(&sc);
		return;
	}
	db = sc.a.db;
	CHECK_OK(cost_check(&sc.a, &f));
	CHECK_OK(store_cost_add(db, 1, 1, "message", "anthropic", "m", &u, 499999999, false));
	sc.a.cost_day = 0;              /* the rows are read anew */
	CHECK(FAULTED() || cost_today(&sc.a) == 499999999);
	CHECK_OK(cost_check(&sc.a, &f));
	CHECK_OK(store_cost_add(db, 1, 1, "message", "anthropic", "m", &u, 1, true));
	sc.a.cost_day = 0;
	fail_clear(&f);
	CHECK_ERR(cost_check(&sc.a, &f), ERR_LIMIT);
	if (!FAULTED())
		CHECK(strstr(f.text, "$0.5000 spent of $0.5000") && strstr(f.text, "blufio config set cost.daily_budget_usd") &&
		    strstr(f.text, "00:00 UTC"));
	/* yesterday does not count, and who never leaves the machine has no cap */
	CHECK_OK(DB_EXEC(db, "UPDATE cost_ledger SET at = ?1", DBI(clock_day_start(clock_us()) - 1)));
	sc.a.cost_day = 0;
	CHECK(FAULTED() || (cost_today(&sc.a) == 0 && cost_check(&sc.a, &f) == OK));
	CHECK_OK(DB_EXEC(db, "UPDATE cost_ledger SET at = ?1", DBI(clock_day_start(clock_us()))));
	sc.a.cost_day = 0;
	CHECK(FAULTED() || cost_today(&sc.a) == 500000000);
	sc.a.provider = feature_find(FEATURE_PROVIDER, S("echo"));
	CHECK_OK(cost_check(&sc.a, &f));
	sc.a.provider = &anthropic_feature;
	/* a ledger that cannot be read stops spending */
	fail_clear(&f);
	sc.a.cost_day = 0;
	if (!FAULTED() && db_commit(db) == OK && db_script(db, "ALTER TABLE cost_ledger RENAME TO gone") == OK) {
		CHECK(cost_check(&sc.a, &f) != OK);
		CHECK(strstr(f.text, "nothing is spent"));
	}
	scratch_end(&sc);
}

/* The way to raise the cap that a message shows raises it. */
TEST(hint_raises)
{
	const struct usage u = { 1, 1, 0, 0, 0 };
	struct fail f = FAIL_INIT;
	const char *p;

	if (begin("[cost]\ndaily_budget_usd = 25\n")) {
		CHECK_OK(store_cost_add(sc.a.db, 1, 1, "message", "anthropic", "m", &u, 25000000000, false));
		CHECK_ERR(cost_check(&sc.a, &f), ERR_LIMIT);
		p = strstr(f.text, "daily_budget_usd ");
		CHECK(FAULTED() || (p && strtol(p + 17, NULL, 10) > 25));
	}
	scratch_end(&sc);
}

TEST(booking)
{
	const struct usage u = { 1000, 10, 0, 0, 0 };

	if (begin("")) {
		CHECK_OK(cost_book(&sc.a, 1, 2, "message", "claude-sonnet-5-5", &u, false));
		CHECK(FAULTED() || cost_today(&sc.a) == 2100000);
		CHECK_OK(cost_book(&sc.a, 1, 2, "tool", "unknown", &u, true));   /* its tokens still count */
		CHECK_OK(cost_book(&sc.a, 1, 2, "tool", "claude-sonnet-5-5", &u, true));
		CHECK(FAULTED() || cost_today(&sc.a) == 4200000);
		sc.a.cost_day = 0;              /* the sum that is kept is the sum of the rows */
		CHECK(FAULTED() || cost_today(&sc.a) == 4200000);
	}
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
	RUN(daily_cap);
	RUN(hint_raises);
	RUN(booking);
	RUN(dollars);
	log_close();
	return TEST_END();
}
