/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cost.c - the ledger: the one door to a provider's bill.
 *
 * Every model call is one row with the exact model id, priced at the time of the
 * call in integer nano-dollars (1 USD per million tokens is 1000 a token). A
 * model without a price is refused with the line that would price it: what
 * cannot be counted is not spent. The daily cap is checked before each call; the
 * day is UTC.
 */
#include "core.h"

#define DAY_US (86400 * US_PER_S)

FALLIBLE
cost_model(struct agent *a, const char *model, struct model_info *out, struct fail *f)
{
	static const struct { const char *key; size_t field; } prices[] = {
		{ "pricing.*.input", offsetof(struct model_info, in) },
		{ "pricing.*.output", offsetof(struct model_info, out) },
		{ "pricing.*.cache_write_5m", offsetof(struct model_info, write_5m) },
		{ "pricing.*.cache_write_1h", offsetof(struct model_info, write_1h) },
		{ "pricing.*.cache_read", offsetof(struct model_info, read) },
		{ "pricing.*.context_window", offsetof(struct model_info, window) },
		{ "pricing.*.max_output", offsetof(struct model_info, max_output) },
	};
	/* one that is not in the table is taken for the least that is sold: what it refuses costs nothing */
	struct model_info m = { .id = NULL, .window = 200000, .max_output = 64000, .cache_min = 4096, .images_max = 100,
	    .in = -1, .out = -1, .write_5m = -1, .write_1h = -1, .read = -1, .band_factor = 1, .flags = MODEL_PDF };
	int64_t v;

	for (const struct model_info *k = a->provider->provider->models; k && k->id; k++)
		if (strcmp(k->id, model) == 0)
			m = *k;
	for (size_t i = 0; i < ARRAY_LEN(prices); i++)
		if (config_wild(a->config, prices[i].key, str_z(model), &v)) {
			memcpy((char *)&m + prices[i].field, &v, sizeof(v));
			if (i < 5)
				m.band_above = 0;   /* an own price has no second band */
		}
	if (m.in < 0 || m.out < 0)
		return fail_set(f, ERR_NOTFOUND, "model \"%s\" has no price, so its cost cannot be"
		    " bounded; next: add to the configuration\n[pricing.\"%s\"]\ninput = 2.00\n"
		    "output = 10.00\n(US dollars per million tokens), or choose another with"
		    " `blufio config set anthropic.default_model claude-sonnet-5-5`", model, model);
	/* unsaid cache prices are the usual multiples of the input price */
	if (m.write_5m < 0)
		m.write_5m = m.in * 5 / 4;
	if (m.write_1h < 0)
		m.write_1h = m.in * 2;
	if (m.read < 0)
		m.read = m.in / 10;
	m.id = model;
	*out = m;
	return OK;
}

int64_t
cost_of(const struct model_info *m, const struct usage *u)
{
	int64_t prompt = u->input + u->cache_read + u->write_5m + u->write_1h;
	int64_t sum = u->input * m->in + u->output * m->out + u->cache_read * m->read +
	    u->write_5m * m->write_5m + u->write_1h * m->write_1h;

	return m->band_above && prompt > m->band_above ? sum * m->band_factor : sum;
}

/* The day's sum is read once and then kept: a query over the day's rows before every call would
 * make the hundredth call of a day dearer than the first. */
static enum err
spent_today(struct agent *a, int64_t now, int64_t *nano)
{
	int64_t day = clock_day_start(now);
	enum err e = OK;

	if (a->cost_day != day) {
		/* rows of a later day are there when the clock was ahead: they are that day's */
		e = store_cost_between(a->db, day, day + DAY_US, &a->cost_spent);
		a->cost_day = e == OK ? day : 0;
	}
	if (e == OK)
		*nano = a->cost_spent;
	return e;
}

int64_t
cost_today(struct agent *a)
{
	int64_t nano;

	return spent_today(a, clock_us(), &nano) == OK ? nano : 0;
}

void
cost_usd(int64_t nano, char out[32])
{
	snprintf(out, 32, "$%lld.%04lld", (long long)(nano / 1000000000),
	    (long long)(nano % 1000000000 / 100000));
}

FALLIBLE
cost_check(struct agent *a, struct fail *f)
{
	int64_t cap = config_i64(a->config, "cost.daily_budget_usd"), now = clock_us(), spent;
	enum err e = spent_today(a, now, &spent);
	char s[32], c[32], left[32];

	if (e != OK)
		return fail_set(f, e, "the ledger cannot be read (%s), so nothing is spent;"
		    " next: `blufio status`", a->db->why);
	if (a->provider->provider->offline || spent < cap)
		return OK;
	cost_usd(spent, s);
	cost_usd(cap, c);
	clock_span(clock_day_start(now) + DAY_US - now, left);
	return fail_set(f, ERR_LIMIT, "Today's budget is used up: %s spent of %s. It resets at 00:00 UTC,"
	    " in %s. To raise it now: `blufio config set cost.daily_budget_usd %lld`, then `blufio reload`.",
	    s, c, left, (long long)(cap / 500000000 + 1));      /* about twice as much */
}

FALLIBLE
cost_book(struct agent *a, int64_t session, int64_t turn, const char *feature, const char *model,
    const struct usage *u, bool estimated)
{
	struct model_info m;
	struct fail f = FAIL_INIT;
	/* a call was made, so its price was known; should it be gone since, tokens still count */
	int64_t nano = cost_model(a, model, &m, &f) == OK ? cost_of(&m, u) : 0, spent;
	enum err e = spent_today(a, clock_us(), &spent);

	if (e == OK)
		e = store_cost_add(a->db, session, turn, feature, a->provider->name, model, u, nano, estimated);
	if (e == OK) {
		a->cost_spent = spent + nano;
		metrics_owe_usage(a, model, u, nano);
	}
	return e;
}
