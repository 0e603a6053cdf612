/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * router_choose.c - which tier answers, given what the message wants: by money.
 *
 * Compared is what the coming turns are expected to cost on each tier that is good enough. A cache belongs to a model,
 * so a switch pays for the whole conversation once more, at the price of writing; and whoever leaves a warm one pays that
 * again to come back, which is as likely as not: counted by half. Where the tiers of messages come and go at random, to
 * follow each of them costs half as much again as this does (tests/unit/test_router.c); where they come in long runs, a tenth
 * less. No tier below the wanted one is taken because it is cheaper; only a day's budget that runs out lowers what is wanted.
 */
#include "core/router.h"

#define TOKENS_MAX 100000000    /* with the dearest price that can be configured, one turn stays within 64 bits */

static int64_t
within(int64_t v, int64_t min, int64_t max)
{
	return v < min ? min : v > max ? max : v;
}

static int64_t
plus(int64_t a, int64_t b)
{
	int64_t sum;

	return add_i64(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t
priced(const struct model_info *m, int64_t read, int64_t write, int64_t output, bool hour)
{
	struct usage u = { .output = output };

	if (read < m->cache_min) {              /* too short to be there */
		write += read;
		read = 0;
	}
	u.cache_read = read;
	*(write < m->cache_min && read == 0 ? &u.input : hour ? &u.write_1h : &u.write_5m) = write;
	return cost_of(m, &u);
}

/* What the coming turns cost on a tier. *prompt: tokens of the request after them. */
static int64_t
expected(const struct router_case *c, enum tier t, int64_t *prompt)
{
	int64_t prefix = within(c->prefix, 0, TOKENS_MAX), fresh = within(c->fresh, 0, TOKENS_MAX);
	int64_t output = within(c->output, 0, TOKENS_MAX), read = within(c->cached[t], 0, prefix);
	int64_t write = prefix - read + fresh, sum = 0;

	for (int64_t i = within(c->turns, 1, ROUTER_TURNS_MAX); i > 0; i--) {
		sum = plus(sum, priced(c->models[t], read, write, output, c->hour));
		read = within(read + write, 0, TOKENS_MAX);
		write = output + fresh;
	}
	*prompt = read;
	return sum;
}

static enum tier
affordable(const struct router_case *c)
{
	if (c->cap <= 0 || c->left >= c->cap / 100 * ROUTER_LOW_PERCENT)
		return c->need;
	return c->need <= TIER_STANDARD || c->left < c->cap / 100 * ROUTER_LAST_PERCENT ? TIER_SIMPLE : c->need - 1;
}

/* The cheapest of the tiers from need on, but for one; TIER_NONE: there is none. */
static enum tier
cheapest(const struct router_case *c, enum tier need, enum tier but, bool back, int64_t *cost)
{
	const struct model_info *now = c->models[c->now];
	enum tier best = TIER_NONE;

	for (enum tier t = need; t < TIER_COUNT; t++) {
		int64_t prompt, sum;

		if (t == but || c->models[t] == NULL)
			continue;
		sum = expected(c, t, &prompt);
		if (back && t < c->now)
			sum = plus(sum, within(priced(now, 0, prompt, 0, c->hour) - priced(now, prompt, 0, 0, c->hour), 0, INT64_MAX) / 2);
		if (best == TIER_NONE || sum < *cost) {
			best = t;
			*cost = sum;
		}
	}
	return best;
}

void
router_choose(const struct router_case *c, struct router_choice *out)
{
	enum tier need = affordable(c), now = c->now, other;
	bool here = now != TIER_NONE && c->models[now] != NULL, warm = here && c->cached[now] > 0;
	int64_t prompt;

	*out = (struct router_choice){ .tier = TIER_NONE, .stay = -1, .go = -1 };
	if (here)
		out->stay = expected(c, now, &prompt);
	/* while the budget lasts, one may want to come back */
	other = cheapest(c, need, here ? now : TIER_NONE, warm && need == c->need, &out->go);
	if (here && now >= need && (other == TIER_NONE || out->stay < out->go || (out->stay == out->go && warm)))
		out->tier = now;
	else
		out->tier = other;
	if (out->tier == TIER_NONE)             /* none is as good as that: the best there is */
		for (enum tier t = need - 1; t > TIER_NONE && out->tier == TIER_NONE; t--)
			out->tier = c->models[t] ? t : TIER_NONE;
	out->move = !warm ? ROUTER_OPEN : out->tier == now ? ROUTER_KEPT : now < need ? ROUTER_NEEDED : ROUTER_CHEAPER;
	out->lowered = need < c->need && out->tier < c->need;
}

void
router_why(const struct router_verdict *v, const struct router_choice *c, struct buf *out)
{
	static const char *const moves[] = {
		[ROUTER_OPEN] = "no cache to lose", [ROUTER_KEPT] = "kept while its cache is warm", [ROUTER_NEEDED] = "changed for it",
		[ROUTER_CHEAPER] = "changed, it is cheaper",
	};
	char stay[32], go[32];

	buf_fmt(out, "wants %s (%d", router_tier_name(v->tier), v->score);
	if (v->signs) {
		buf_puts(out, ": ");
		router_signs(v->signs, out);
	}
	buf_fmt(out, "), gets %s: %s", router_tier_name(c->tier), moves[c->move]);
	if (c->stay >= 0 && c->go >= 0) {
		cost_usd(c->stay, stay);
		cost_usd(c->go, go);
		buf_fmt(out, " (%s expected to stay, %s to change)", stay, go);
	}
	if (c->lowered)
		buf_fmt(out, "; less than %d %% of the day's budget is left", ROUTER_LOW_PERCENT);
}
