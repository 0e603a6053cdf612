/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config_key.c - the table of configuration keys, and how they are named in words.
 *
 * A key is a row of a table: the core's below, the features' in their own
 * files; those of one section stand together. Everything that speaks about keys
 * is made from these rows: checks, error texts, the nearest key for a misspelling,
 * `blufio config keys` and docs/CONFIG.md. A row is therefore all there is to do
 * for a new key.
 *
 * Amounts of money are nano-dollars in 64 bits: 9 decimals exactly, never
 * floating point. Bounds stand in the value's own unit.
 */
#include <ctype.h>

#include "core/config.h"
#include "core/core.h"
#include "core/cron.h"

#define USD_MAX 1000000000000000        /* a million dollars: more is a typing error */
#define PRICE(leaf, what) { .name = "pricing.*." leaf, .type = CONFIG_USD, .max = USD_MAX, \
	.help = "US dollars per million " what " of this model.", .example = "\"3.00\"" }

static const struct config_key core_keys[] = {
	{ .name = "agent.name", .type = CONFIG_STRING, .fixed = true, .dflt = "\"blufio\"", .min = 1, .max = 63,
	  .help = "What the agent calls itself; conversations belong to this name." },
	{ .name = "agent.system_prompt", .type = CONFIG_STRING,
	  .help = "Instructions that stand before every conversation.",
	  .example = "\"You are a terse assistant.\"" },
	{ .name = "agent.system_prompt_file", .type = CONFIG_PATH,
	  .help = "Markdown file with those instructions; wins over `system_prompt`.",
	  .example = "\"persona.md\"" },
	{ .name = "agent.max_sessions", .type = CONFIG_INT, .dflt = "10", .min = 1, .max = 4096,
	  .help = "Conversations worked on at the same time; more wait their turn." },
	{ .name = "agent.drain_timeout", .type = CONFIG_SECONDS, .dflt = "25", .max = 3600,
	  .help = "How long running turns may finish after SIGTERM." },
	{ .name = "agent.timezone", .type = CONFIG_STRING, .fixed = true, .check = cron_zone_check, .example = "\"Europe/Berlin\"",
	  .help = "Where jobs and heartbeats have their times; unset: the system's zone." },
	{ .name = "providers.default", .type = CONFIG_STRING, .fixed = true, .dflt = "\"anthropic\"",
	  .help = "The model provider: a provider feature of this build, or NAME of a [providers.NAME]." },
	{ .name = "providers.fallback", .type = CONFIG_ARGV, .example = "[\"ollama/qwen3\"]",
	  .help = "Models that are asked, in this order, while a provider does not answer: \"claude-haiku-5-5\", \"NAME/model\"." },
	{ .name = "storage.database_path", .type = CONFIG_PATH, .fixed = true,
	  .dflt = "\"$XDG_DATA_HOME/blufio/blufio.db\"",
	  .help = "The one database file. Without XDG_DATA_HOME it lies in ~/.local/share, "
	  "without HOME in /var/lib.", .example = "\"/var/lib/blufio/blufio.db\"" },
	{ .name = "storage.durability", .type = CONFIG_ENUM, .fixed = true, .dflt = "\"power\"",
	  .choices = "power|process", .help = "What a stored message survives: a power failure, "
	  "or only the death of the process (faster)." },
	{ .name = "storage.media_quota", .type = CONFIG_INT, .dflt = "256", .min = 1, .max = 1000000,
	  .help = "Megabytes of pictures, documents and voice that are kept beside the database; "
	  "beyond it the oldest go." },
	{ .name = "cost.daily_budget_usd", .type = CONFIG_USD, .dflt = "\"1.00\"",
	  .max = USD_MAX, .example = "1.00",
	  .help = "The most that may be spent in one day (UTC); 0: nothing." },
	{ .name = "cost.monthly_budget_usd", .type = CONFIG_USD, .max = USD_MAX, .example = "20.00",
	  .help = "The most that may be spent in one month (UTC)." },
	{ .name = "cost.user_daily_usd", .type = CONFIG_USD, .max = USD_MAX, .example = "0.50",
	  .help = "The most that one person may spend in one day (UTC)." },
	{ .name = "context.budget", .type = CONFIG_INT, .dflt = "80000", .min = 4000, .max = 100000000,
	  .help = "The most tokens that one request may have; before, what was said earlier is condensed." },
	{ .name = "context.static_budget", .type = CONFIG_INT, .dflt = "3000", .min = 500, .max = 100000000,
	  .help = "The most tokens of what begins every request, instructions, tools and standing rules: beyond it no rule is added." },
	{ .name = "context.conditional_budget", .type = CONFIG_INT, .dflt = "8000", .min = 2000, .max = 100000000,
	  .help = "The most tokens that are told beside a message, as changed rules are; the rest is told beside the next." },
	{ .name = "context.compaction_model", .type = CONFIG_STRING, .example = "\"claude-haiku-5-5\"",
	  .help = "Who condenses a long conversation; \"\": no model, without it the cheapest of [routing]." },
	{ .name = "routing.enabled", .type = CONFIG_BOOL, .dflt = "true",
	  .help = "Let each message have the model that it needs: small, standard or large." },
	{ .name = "routing.simple_model", .type = CONFIG_STRING, .dflt = "\"claude-haiku-5-5\"",
	  .help = "For small talk and simple questions; \"\" switches routing off." },
	{ .name = "routing.standard_model", .type = CONFIG_STRING, .example = "\"claude-sonnet-5-5\"",
	  .help = "For most work; without it the provider's default model." },
	{ .name = "routing.complex_model", .type = CONFIG_STRING, .dflt = "\"claude-opus-5-5\"",
	  .help = "For proofs, analysis, hard bugs." },
	{ .name = "routing.force_model", .type = CONFIG_STRING, .example = "\"claude-sonnet-5-5\"",
	  .help = "One model for all messages of conversations that have chosen none of their own." },
	{ .name = "batch.daily_usd", .type = CONFIG_USD, .dflt = "\"0.50\"", .max = USD_MAX, .example = "2.00",
	  .help = "The most that batches of requests (POST /v1/batch) may spend in one day (UTC); what is left waits for the next." },
	{ .name = "jobs.daily_usd", .type = CONFIG_USD, .max = USD_MAX, .example = "0.25",
	  .help = "The most that scheduled jobs may spend in one day (UTC)." },
	{ .name = "jobs.*.schedule", .type = CONFIG_STRING, .check = cron_check, .example = "\"0 9 * * 1-5\"",
	  .help = "When: minute, hour, day of the month, month, day of the week; or @daily, or one moment: \"2026-12-24 18:00\"." },
	{ .name = "jobs.*.prompt", .type = CONFIG_STRING, .min = 1, .max = JOB_BYTES_MAX,
	  .help = "What the model is asked then.", .example = "\"What is on my list for today?\"" },
	{ .name = "jobs.*.chat", .type = CONFIG_STRING, .check = jobs_chat_check, .example = "\"telegram:123456789\"",
	  .help = "In which conversation: channel and chat." },
	{ .name = "jobs.*.missed", .type = CONFIG_ENUM, .choices = "run|report", .example = "\"report\"",
	  .help = "What becomes of times that passed while nothing ran: done once, late, or told in a line; unset: run." },
	{ .name = "heartbeat.enabled", .type = CONFIG_BOOL, .dflt = "false",
	  .help = "Look at a checklist on its own, and say what is due." },
	{ .name = "heartbeat.interval", .type = CONFIG_SECONDS, .dflt = "1800", .min = 60, .max = 86400,
	  .help = "Between two looks; what has a time is told at its time." },
	{ .name = "heartbeat.checklist", .type = CONFIG_PATH, .example = "\"checklist.md\"",
	  .help = "Markdown file with lines like \"- [ ] Call the dentist @2026-12-01 09:00\", \"@09:00\" (each day) or no time." },
	{ .name = "heartbeat.chat", .type = CONFIG_STRING, .check = jobs_chat_check, .example = "\"telegram:123456789\"",
	  .help = "Whom it is for: channel and chat. [heartbeat.NAME] has the same keys for another person." },
	{ .name = "heartbeat.delivery", .type = CONFIG_ENUM, .dflt = "\"immediate\"", .choices = "immediate|on_next_message",
	  .help = "Say it at once, or in front of the next answer." },
	{ .name = "heartbeat.quiet_hours", .type = CONFIG_STRING, .dflt = "\"22:00-07:00\"", .check = cron_window_check,
	  .help = "When nothing is said and nothing asked; \"\": never." },
	{ .name = "heartbeat.model", .type = CONFIG_STRING, .example = "\"claude-haiku-5-5\"",
	  .help = "The model that words it; unset: `routing.simple_model`." },
	{ .name = "heartbeat.daily_usd", .type = CONFIG_USD, .dflt = "\"0.10\"", .max = USD_MAX, .example = "0.10",
	  .help = "The most that heartbeats may spend in one day (UTC)." },
	{ .name = "heartbeat.monthly_usd", .type = CONFIG_USD, .dflt = "\"3.00\"", .max = USD_MAX, .example = "3.00",
	  .help = "The most that heartbeats may spend in one month (UTC)." },
	{ .name = "heartbeat.*.checklist", .type = CONFIG_PATH, .example = "\"ann.md\"", .help = "That person's checklist." },
	{ .name = "heartbeat.*.chat", .type = CONFIG_STRING, .check = jobs_chat_check, .example = "\"telegram:987654321\"",
	  .help = "That person's conversation: channel and chat." },
	{ .name = "heartbeat.*.delivery", .type = CONFIG_ENUM, .choices = "immediate|on_next_message", .example = "\"immediate\"",
	  .help = "Unset: as in [heartbeat]." },
	{ .name = "heartbeat.*.quiet_hours", .type = CONFIG_STRING, .check = cron_window_check, .example = "\"22:00-07:00\"",
	  .help = "Unset: as in [heartbeat]." },
	{ .name = "log.level", .type = CONFIG_ENUM, .dflt = "\"info\"",
	  .choices = "error|warn|info|debug|trace", .help = "The least important lines to log." },
	{ .name = "log.format", .type = CONFIG_ENUM, .dflt = "\"auto\"",
	  .choices = "auto|text|json",
	  .help = "Log lines as text or JSON; auto is text on a terminal, JSON elsewhere." },
	{ .name = "log.file", .type = CONFIG_PATH,
	  .help = "Where to log instead of standard error.", .example = "\"/var/log/blufio.log\"" },
	PRICE("input", "input tokens"),
	PRICE("output", "output tokens"),
	PRICE("cache_write_5m", "tokens written to the five-minute cache"),
	PRICE("cache_write_1h", "tokens written to the one-hour cache"),
	PRICE("cache_read", "tokens read from the cache"),
	{ .name = "pricing.*.context_window", .type = CONFIG_INT, .min = 1, .max = 1000000000,
	  .help = "Tokens that fit into one request of this model.", .example = "200000" },
	{ .name = "pricing.*.max_output", .type = CONFIG_INT, .min = 1, .max = 1000000000,
	  .help = "The longest answer of this model in tokens.", .example = "64000" },
};

/* Adapters of the project that bring a section: told apart from misspellings. */
static const char *const adapters[] = {
	"anthropic", "gateway", "openai", "prometheus", "telegram"
};

/* ---- finding keys ---------------------------------------------------------- */

const struct config_key *
config_key_at(size_t i)
{
	const struct config_key *k;
	size_t f;

	if (i < ARRAY_LEN(core_keys))
		return &core_keys[i];
	i -= ARRAY_LEN(core_keys);
	for (f = 0; features[f]; f++)
		for (k = features[f]->keys; k && k->name; k++)
			if (i-- == 0)
				return k;
	return NULL;
}

bool
config_is_wild(const struct config_key *k)
{
	return strchr(k->name, '*') != NULL;
}

struct str
config_split(struct str name, struct str *leaf)
{
	size_t i = name.n;

	while (i > 0 && name.p[i - 1] != '.')
		i--;
	*leaf = str_sub(name, i, name.n);
	return str_sub(name, 0, i ? i - 1 : 0);
}

size_t
config_segments(const struct config_key *k, struct str segment,
    struct str segs[CONFIG_SEGMENTS_MAX])
{
	struct str rest = str_z(k->name);
	size_t n = 0;

	while (rest.n && n < CONFIG_SEGMENTS_MAX) {
		(void)str_cut(&rest, '.', &segs[n]);
		if (str_eqz(segs[n], "*"))
			segs[n] = segment;
		n++;
	}
	return n;
}

const struct config_key *
config_find(const struct str *segs, size_t n, bool *section)
{
	struct str own[CONFIG_SEGMENTS_MAX];
	const struct config_key *k;
	size_t i, j, total;

	*section = false;
	for (i = 0; (k = config_key_at(i)); i++) {
		total = config_segments(k, n > 1 ? segs[1] : STR_NONE, own);
		for (j = 0; j < n && j < total && own[j].n && str_eq(own[j], segs[j]); j++)
			;
		if (j == n && n == total)
			return k;
		*section |= j == n;
	}
	return NULL;
}

/* A wildcard's part is what stands between the first and the last dot, in quotes or not, so a
 * model's id may be typed with its dots. */
enum err
config_key_find(struct str name, const struct config_key **key, struct str *segment, struct fail *f)
{
	struct str segs[CONFIG_SEGMENTS_MAX], leaf, section = config_split(name, &leaf);
	struct str middle = section;
	bool three = str_cut(&middle, '.', &segs[0]), partly;
	const struct config_key *k;
	struct buf hint = BUF_INIT(256);
	char text[64];
	enum err e;

	if (middle.n > 2 && middle.p[middle.n - 1] == middle.p[0] && strchr("\"'", middle.p[0]))
		middle = str_sub(middle, 1, middle.n - 2);
	segs[1] = three ? middle : leaf;
	segs[2] = leaf;
	k = utf8_valid(name) ? config_find(segs, three ? 3 : 2, &partly) : NULL;
	if (k && !k->retired) {
		*key = k;
		*segment = three ? middle : STR_NONE;
		return OK;
	}
	config_hint(section, leaf, true, &hint);
	e = fail_set(f, ERR_CONFIG, "unknown key \"%s\"%s" CONFIG_LIST, config_shown(name, text),
	    buf_z(&hint));
	buf_free(&hint);
	return e;
}

/* ---- names in words -------------------------------------------------------- */

const char *
config_shown(struct str s, char out[64])
{
	struct str head = utf8_prefix(s, 56);
	bool text = utf8_valid(head);
	unsigned char c;
	size_t i;

	for (i = 0; i < head.n; i++) {
		c = (unsigned char)head.p[i];
		out[i] = c < 0x20 || c == 0x7f || (c >= 0x80 && !text) ? '?' : head.p[i];
	}
	snprintf(out + i, 64 - i, "%s", head.n < s.n ? "..." : "");
	return out;
}

void
config_join(const struct str *segs, size_t n, struct buf *out)
{
	size_t i, j;
	bool bare;

	for (i = 0; i < n; i++) {
		bare = segs[i].n > 0;
		for (j = 0; j < segs[i].n; j++)
			bare &= isalnum((unsigned char)segs[i].p[j]) || segs[i].p[j] == '-' ||
			    segs[i].p[j] == '_';
		buf_puts(out, i ? "." : "");
		if (bare)
			buf_str(out, segs[i]);
		else
			json_quote(out, segs[i]);
	}
}

void
config_name(const struct config_key *k, struct str segment, struct buf *out)
{
	struct str segs[CONFIG_SEGMENTS_MAX];

	config_join(segs, config_segments(k, segment, segs), out);
}

/* The key most like section.leaf, or NULL. The right leaf in a wrong section is near, too. */
static const struct config_key *
nearest(struct str section, struct str leaf)
{
	const struct config_key *k, *best = NULL;
	struct str s, l;
	unsigned d, best_d = 4;
	size_t i;

	for (i = 0; (k = config_key_at(i)); i++) {
		s = config_split(str_z(k->name), &l);
		d = str_distance(l, leaf);
		if (d >= leaf.n || k->retired)
			continue;
		if (d != 0 || leaf.n < 4)
			d += str_distance(s, section);
		else
			d = str_eq(s, section) ? 0 : 2;
		if (d < best_d) {
			best_d = d;
			best = k;
		}
	}
	return best;
}

void
config_hint(struct str section, struct str leaf, bool full, struct buf *out)
{
	const struct config_key *k = nearest(section, leaf);
	struct str s, name = STR_NONE;

	if (k) {
		s = config_split(str_z(k->name), &name);
		if (full || !str_eq(s, section))
			name = str_z(k->name);
		buf_fmt(out, "; did you mean \"%.*s\"?", STR_ARG(name));
	} else {
		buf_putc(out, ';');
	}
}

/* The section most like name; empty when none is. */
static struct str
nearest_section(struct str name)
{
	struct str head, rest, best = STR_NONE;
	const struct config_key *k;
	size_t i;

	for (i = 0; (k = config_key_at(i)); i++) {
		rest = str_z(k->name);
		(void)str_cut(&rest, '.', &head);
		if (str_distance(head, name) < 3 && head.n > 2)
			best = head;
	}
	return best;
}

static enum err
unknown_section(struct config_loader *l, struct str name)
{
	struct str near = nearest_section(name);
	struct buf set = BUF_INIT(512);
	char text[64];
	enum err e;
	size_t i;

	for (i = 0; i < ARRAY_LEN(adapters) && !str_eqz(name, adapters[i]); i++)
		;
	config_shown(name, text);
	if (i < ARRAY_LEN(adapters)) {
		for (i = 0; features[i]; i++)
			buf_fmt(&set, "%s ", features[i]->name);
		e = config_refuse(l, "[%s]: the feature \"%s\" is not in this build; next: "
		    "make FEATURES=\"%s%s\"", text, text, buf_z(&set), text);
	} else {
		e = config_refuse(l, "unknown section [%s];%s%.*s%s" CONFIG_LIST, text,
		    near.n ? " did you mean [" : "", STR_ARG(near), near.n ? "]?" : "");
	}
	buf_free(&set);
	return e;
}

enum err
config_unknown(struct config_loader *l, const struct str *segs, size_t depth, bool table)
{
	struct buf name = BUF_INIT(4096), section = BUF_INIT(4096), hint = BUF_INIT(256);
	char shown[64], in[64];
	enum err e;

	if (depth == 0 && table)
		return unknown_section(l, segs[0]);
	if (depth == 1 && table && str_eqz(segs[0], "providers"))       /* what brings its keys was left out */
		return unknown_section(l, S("openai"));
	config_join(segs, depth + 1, &name);
	config_join(segs, depth, &section);
	if (depth > 1 && table)         /* [pricing.claude-x.1] */
		buf_puts(&hint, "; a name with dots stands in quotes: [pricing.\"claude-x.1\"]");
	else
		config_hint(depth < 2 ? buf_view(&section) : str_eqz(segs[0], "providers") ? S("providers.*") : S("pricing.*"),
		    segs[depth], false, &hint);
	e = config_refuse(l, "unknown key \"%s\"%s%s%s%s" CONFIG_LIST,
	    config_shown(buf_view(&name), shown), depth ? " in [" : " outside of any section",
	    config_shown(buf_view(&section), in), depth ? "]" : "", buf_z(&hint));
	buf_free(&name);
	buf_free(&section);
	buf_free(&hint);
	return e;
}
