/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cost_report.c - what was spent, and for what: /cost, `blufio cost`, GET /v1/cost.
 */
#include "core.h"

static void
report_line(void *arg, const struct cost_line *l)
{
	struct jw *w = arg;

	jw_obj(w);
	if (l->name.n)
		jw_kstr(w, "name", l->name);
	jw_ki64(w, "calls", l->calls);
	jw_ki64(w, "nano_usd", l->nano);
	jw_ki64(w, "prompt_tokens", l->prompt);
	jw_ki64(w, "cached_tokens", l->cached);
	jw_ki64(w, "output_tokens", l->output);
	jw_ki64(w, "estimated_calls", l->estimated);
	jw_end_obj(w);
}

static enum err
report_period(struct agent *a, struct jw *w, const char *name, int64_t from, int64_t to)
{
	static const struct { const char *name; enum cost_by by; } parts[] = {
		{ "total", COST_BY_NOTHING }, { "by_model", COST_BY_MODEL }, { "by_feature", COST_BY_FEATURE },
		{ "by_session", COST_BY_SESSION },
	};
	enum err e = OK;

	jw_key(w, name);
	jw_obj(w);
	for (size_t i = 0; i < ARRAY_LEN(parts) && e == OK; i++) {
		jw_key(w, parts[i].name);
		jw_arr(w);
		e = store_cost_report(a->db, parts[i].by, from, to, report_line, w);
		jw_end_arr(w);
	}
	jw_end_obj(w);
	return e;
}

/* Since the start: how much of a prompt is neither the person's words nor history. */
static void
report_prompts(struct agent *a, struct jw *w)
{
	jw_key(w, "prompts");
	jw_arr(w);
	for (size_t i = 0; i < metrics_series(a, METRIC_PROMPTS); i++) {
		jw_obj(w);
		jw_kstr(w, "tier", metrics_label(a, METRIC_PROMPTS, LABEL_TIER, i));
		jw_ki64(w, "prompts", metrics_value(a, METRIC_PROMPTS, i));
		jw_ki64(w, "overhead_tokens", metrics_value(a, METRIC_OVERHEAD, i));
		jw_end_obj(w);
	}
	jw_end_arr(w);
}

FALLIBLE
cost_report(struct agent *a, struct jw *w)
{
	int64_t day = clock_day_start(clock_us()), from, to;
	struct cost_room r;
	enum err e = OK;

	clock_month(clock_us(), &from, &to);
	jw_obj(w);
	jw_kbool(w, "paused", a->paused);
	jw_key(w, "caps");
	jw_arr(w);
	for (size_t i = 0; e == OK && (e = cost_cap(a, i, &r)) == OK; i++) {
		char iso[32];

		if (r.to == 0)
			continue;
		clock_iso(r.to, iso);
		jw_obj(w);
		jw_kz(w, "key", r.key);
		jw_kz(w, "name", r.what);
		jw_ki64(w, "cap_nano_usd", r.cap);
		jw_ki64(w, "spent_nano_usd", r.spent);
		jw_ki64(w, "reserved_nano_usd", r.reserved);
		jw_kz(w, "resets_at", iso);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	if (e == ERR_NOTFOUND)          /* there is no further cap */
		e = report_period(a, w, "today", day, day + US_PER_DAY);
	if (e == OK)
		e = report_period(a, w, "month", from, to);
	report_prompts(a, w);
	jw_end_obj(w);
	return e;
}

/* ---- for people ------------------------------------------------------------------------------- */

static void
text_lines(const struct json *lines, const char *title, struct buf *out)
{
	char usd[32];

	if (lines == NULL || lines->first == NULL)
		return;
	buf_fmt(out, "%s\n", title);
	for (const struct json *l = lines->first; l; l = l->next) {
		int64_t guessed = json_i64(l, "estimated_calls", 0);

		cost_usd(json_i64(l, "nano_usd", 0), usd);
		buf_fmt(out, "- %.*s: %s in %lld call%s", STR_ARG(json_str(l, "name", STR_NONE)), usd,
		    (long long)json_i64(l, "calls", 0), json_i64(l, "calls", 0) == 1 ? "" : "s");
		if (guessed)
			buf_fmt(out, " (%lld of them cut, and estimated)", (long long)guessed);
		buf_putc(out, '\n');
	}
}

static void
text_cap(const struct json *c, struct buf *out)
{
	struct str name = json_str(c, "name", STR_NONE);
	int64_t reserved = json_i64(c, "reserved_nano_usd", 0), resets;
	char spent[32], cap[32], held[32], left[32];

	if (!str_starts(json_str(c, "key", STR_NONE), S("cost.")) && json_i64(c, "spent_nano_usd", 0) + reserved == 0)
		return;                         /* of something that is not in use */
	cost_usd(json_i64(c, "spent_nano_usd", 0), spent);
	cost_usd(json_i64(c, "cap_nano_usd", 0), cap);
	cost_usd(reserved, held);
	if (clock_parse(json_str(c, "resets_at", STR_NONE), &resets) != OK)
		resets = clock_us();
	clock_span(resets - clock_us(), left);
	buf_fmt(out, "%c%.*s: %s of %s spent", name.n ? name.p[0] - 'a' + 'A' : '?', STR_ARG(str_sub(name, 1, name.n)), spent, cap);
	if (reserved)
		buf_fmt(out, ", up to %s in work", held);
	buf_fmt(out, "; resets in %s.\n", left);
}

static void
text_prompts(const struct json *tiers, struct buf *out)
{
	const char *before = "Beside what was said a prompt had, since the start: ";

	for (const struct json *t = tiers ? tiers->first : NULL; t; t = t->next) {
		int64_t n = json_i64(t, "prompts", 0);

		if (n == 0)
			continue;
		buf_fmt(out, "%s%lld tokens (%.*s, %lld)", before, (long long)(json_i64(t, "overhead_tokens", 0) / n),
		    STR_ARG(json_str(t, "tier", STR_NONE)), (long long)n);
		before = ", ";
	}
	if (before[0] == ',')
		buf_puts(out, ".\n");
}

void
cost_text(const struct json *report, struct buf *out)
{
	const struct json *caps = json_at(report, "caps"), *total = json_at(report, "month.total");
	int64_t prompt;

	if (json_bool(report, "paused", false))
		buf_puts(out, "Paused: nothing is asked of a model until /resume.\n");
	for (const struct json *c = caps ? caps->first : NULL; c; c = c->next)
		text_cap(c, out);
	text_lines(json_at(report, "today.by_model"), "Today, by model:", out);
	text_lines(json_at(report, "today.by_feature"), "Today, by purpose:", out);
	text_lines(json_at(report, "month.by_model"), "This month, by model:", out);
	total = total ? total->first : NULL;
	prompt = json_i64(total, "prompt_tokens", 0);
	if (prompt > 0)
		buf_fmt(out, "Of this month's prompts %lld %% came from the provider's cache.\n",
		    (long long)(json_i64(total, "cached_tokens", 0) * 100 / prompt));
	text_prompts(json_at(report, "prompts"), out);
}
