/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * basic.c - three harmless capabilities: the time, the conversation's own
 * figures, and counting text. They read nothing private and change nothing.
 */
#include "blufio.h"

static void
reply(struct invocation *inv, struct jw *w, struct buf *b)
{
	jw_end_obj(w);
	if (jw_done(w) != OK)
		invocation_done(inv, ERR_NOMEM, S("out of memory"));
	else
		invocation_done(inv, OK, buf_view(b));
	buf_free(b);
}

static void
time_now(struct invocation *inv, const struct json *input)
{
	static const char *const days[] = { "Thursday", "Friday", "Saturday", "Sunday", "Monday",
	    "Tuesday", "Wednesday" };       /* 1970-01-01 was a Thursday */
	int64_t offset = json_i64(input, "utc_offset_minutes", 0);
	int64_t now = clock_us(), local = now + offset * 60 * US_PER_S;
	struct buf b = BUF_INIT(512);
	struct jw w;
	char iso[32];

	jw_init(&w, &b);
	jw_obj(&w);
	clock_iso(now, iso);
	jw_kz(&w, "utc", iso);
	clock_iso(local, iso);
	jw_kstr(&w, "local", str_make(iso, 19));
	jw_kz(&w, "weekday", days[local / US_PER_DAY % 7]);
	jw_ki64(&w, "unix", now / US_PER_S);
	reply(inv, &w, &b);
}

static void
session_info(struct invocation *inv, const struct json *input)
{
	struct agent *a = invocation_agent(inv);
	struct buf b = BUF_INIT(1024);
	struct jw w;
	char usd[32];

	(void)input;
	jw_init(&w, &b);
	jw_obj(&w);
	jw_ki64(&w, "session", invocation_session(inv));
	jw_kz(&w, "agent", a->name);
	jw_kz(&w, "version", BLUFIO_VERSION);
	cost_usd(cost_today(a), usd);
	jw_kz(&w, "spent_today", usd);
	cost_usd(config_i64(a->config, "cost.daily_budget_usd"), usd);
	jw_kz(&w, "daily_budget", usd);
	reply(inv, &w, &b);
}

static void
text_count(struct invocation *inv, const struct json *input)
{
	struct str text = json_str(input, "text", STR_NONE);
	int64_t words = 0, lines = text.n > 0, characters = 0;
	bool in_word = false;
	struct buf b = BUF_INIT(512);
	struct jw w;

	for (size_t i = 0, n; i < text.n; i += n) {
		uint32_t cp = utf8_decode(str_sub(text, i, text.n), &n);
		bool blank = cp == ' ' || (cp >= '\t' && cp <= '\r') || cp == 0xA0 || cp == 0x3000;

		characters++;
		words += !blank && !in_word;
		in_word = !blank;
		lines += cp == '\n' && i + n < text.n;
	}
	jw_init(&w, &b);
	jw_obj(&w);
	jw_ki64(&w, "characters", characters);
	jw_ki64(&w, "words", words);
	jw_ki64(&w, "lines", lines);
	jw_ki64(&w, "bytes", (int64_t)text.n);
	reply(inv, &w, &b);
}

static const struct capability capabilities[] = {
	{ .id = "session.info",
	  .description = "Facts about this conversation: its number, the agent's name and version,"
	      " money spent today and the daily budget.",
	  .input = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}",
	  .output = "{\"type\":\"object\",\"required\":[\"session\",\"spent_today\"]}",
	  .deadline_us = 5 * US_PER_S, .flags = CAP_HARMLESS, .run = session_info },
	{ .id = "text.count",
	  .description = "Counts characters (Unicode code points), words, lines and bytes of a text exactly.",
	  .input = "{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\","
	      "\"description\":\"the text to count\"}},\"required\":[\"text\"],\"additionalProperties\":false}",
	  .output = "{\"type\":\"object\",\"required\":[\"characters\",\"words\",\"lines\",\"bytes\"]}",
	  .deadline_us = 5 * US_PER_S, .flags = CAP_HARMLESS, .run = text_count },
	{ .id = "time.now",
	  .description = "The current date, time and weekday, in UTC and at an offset from it.",
	  .input = "{\"type\":\"object\",\"properties\":{\"utc_offset_minutes\":{\"type\":\"integer\","
	      "\"minimum\":-840,\"maximum\":840,\"description\":\"minutes east of UTC of the place asked about\"}},"
	      "\"additionalProperties\":false}",
	  .output = "{\"type\":\"object\",\"required\":[\"utc\",\"local\",\"weekday\",\"unix\"]}",
	  .deadline_us = 5 * US_PER_S, .flags = CAP_HARMLESS, .run = time_now },
	{ .id = NULL },
};

const struct feature basic_feature = {
	.name = "basic",
	.kind = FEATURE_TOOL,
	.summary = "time.now, session.info, text.count",
	.capabilities = capabilities,
};
