/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config_key.c - the table of configuration keys, and how they are named in words.
 *
 * A key is a row of a table: the core's below, the features' in their own
 * files. Everything that speaks about keys is made from these rows: checks,
 * error texts, the nearest key for a misspelling, `blufio config keys` and
 * docs/CONFIG.md. A row is therefore all there is to do for a new key.
 *
 * Amounts of money are nano-dollars in 64 bits: 9 decimals exactly, never
 * floating point. Bounds stand in the value's own unit.
 */
#include <ctype.h>
#include <inttypes.h>

#include "core/config.h"

#define USD_MAX 1000000000000000        /* a million dollars: more is a typing error */
#define PRICE(leaf, what) { .name = "pricing.*." leaf, .type = CONFIG_USD, .max = USD_MAX, \
	.help = "US dollars per million " what " of this model.", .example = "\"3.00\"" }

static const struct config_key core_keys[] = {
	{ .name = "agent.name", .type = CONFIG_STRING, .dflt = "\"blufio\"", .min = 1, .max = 63,
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
	{ .name = "providers.default", .type = CONFIG_STRING, .dflt = "\"anthropic\"",
	  .help = "The model provider: a provider feature of this build." },
	{ .name = "storage.database_path", .type = CONFIG_PATH,
	  .dflt = "\"$XDG_DATA_HOME/blufio/blufio.db\"",
	  .help = "The one database file. Without XDG_DATA_HOME it lies in ~/.local/share, "
	  "without HOME in /var/lib.", .example = "\"/var/lib/blufio/blufio.db\"" },
	{ .name = "storage.durability", .type = CONFIG_ENUM, .dflt = "\"power\"",
	  .choices = "power|process", .help = "What a stored message survives: a power failure, "
	  "or only the death of the process (faster)." },
	{ .name = "cost.daily_budget_usd", .type = CONFIG_USD, .dflt = "1.00",
	  .max = USD_MAX, .help = "The most that may be spent in one day (UTC)." },
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

/* ---- keys ------------------------------------------------------------------ */

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

/* "pricing.*.input" -> "pricing.*" and "input". */
struct str
config_split(struct str name, struct str *leaf)
{
	size_t i = name.n;

	while (i > 0 && name.p[i - 1] != '.')
		i--;
	*leaf = str_sub(name, i, name.n);
	return str_sub(name, 0, i ? i - 1 : 0);
}

void
config_env_name(const struct config_key *k, char out[128])
{
	size_t n = (size_t)snprintf(out, 128, "BLUFIO__");
	const char *p;

	for (p = k->name; *p && n < 125; p++) {
		if (*p == '.')
			out[n++] = '_';
		out[n++] = *p == '.' ? '_' : (char)toupper((unsigned char)*p);
	}
	out[n] = '\0';
}

/* A printable start of s, for messages. */
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
config_quote_put(struct str s, struct buf *out)
{
	size_t i;
	unsigned char c;

	buf_putc(out, '"');
	for (i = 0; i < s.n; i++) {
		c = (unsigned char)s.p[i];
		if (c == '"' || c == '\\')
			buf_fmt(out, "\\%c", c);
		else if (c == '\n')
			buf_puts(out, "\\n");
		else if (c == '\t')
			buf_puts(out, "\\t");
		else if (c < 0x20 || c == 0x7f)
			buf_fmt(out, "\\u%04X", c);
		else
			buf_putc(out, (char)c);
	}
	buf_putc(out, '"');
}

void
config_segment_put(struct str s, struct buf *out)
{
	size_t i;

	for (i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '-' && s.p[i] != '_')
			break;
	if (s.n && i == s.n)
		buf_str(out, s);
	else
		config_quote_put(s, out);
}

void
config_name(const struct config_key *k, struct str segment, struct buf *out)
{
	const char *p;

	for (p = k->name; *p; p++) {
		if (*p == '*' && segment.n)
			config_segment_put(segment, out);
		else
			buf_putc(out, *p);
	}
}

void
config_usd_put(int64_t nano, struct buf *out)
{
	buf_fmt(out, "%" PRId64 ".%09" PRId64, nano / 1000000000, nano % 1000000000);
	while (out->err == OK && out->p[out->n - 1] == '0' && out->p[out->n - 3] != '.')
		buf_cut(out, out->n - 1);
}

static void
range_put(const struct config_key *k, const char *what, struct buf *out)
{
	buf_puts(out, what);
	if (k->min || k->max)
		buf_fmt(out, " from %" PRId64 " to %" PRId64, k->min, k->max);
}

void
config_want(const struct config_key *k, struct buf *out)
{
	const char *p;

	switch (k->type) {
	case CONFIG_STRING:
		buf_puts(out, "a string");
		if (k->max)
			buf_fmt(out, " of %" PRId64 " to %" PRId64 " bytes", k->min, k->max);
		return;
	case CONFIG_SECRET: buf_puts(out, "a string without blanks"); return;
	case CONFIG_PATH: buf_puts(out, "a path in quotes"); return;
	case CONFIG_INT: range_put(k, "a whole number", out); return;
	case CONFIG_SECONDS: range_put(k, "a whole number of seconds", out); return;
	case CONFIG_BOOL: buf_puts(out, "true or false"); return;
	case CONFIG_ENUM:
		buf_puts(out, "one of \"");
		for (p = k->choices; *p; p++)
			buf_puts(out, *p == '|' ? "\", \"" : (char[]){ *p, '\0' });
		buf_putc(out, '"');
		return;
	case CONFIG_USD:
		buf_fmt(out, "US dollars with at most %d decimals", config_is_wild(k) ? 3 : 9);
		if (k->max) {
			buf_puts(out, " from ");
			config_usd_put(k->min, out);
			buf_puts(out, " to ");
			config_usd_put(k->max, out);
		}
		return;
	case CONFIG_IDS: buf_puts(out, "a list of numeric ids"); return;
	case CONFIG_URL:
		buf_puts(out, "an https:// address (http:// only for this machine)");
		return;
	}
	UNREACHABLE();
}

/* Is the default's row written without the quotes that the file wants? */
static bool
bare(const struct config_key *k)
{
	return k->type != CONFIG_INT && k->type != CONFIG_SECONDS && k->type != CONFIG_BOOL &&
	    k->type != CONFIG_IDS && k->dflt[0] != '"';
}

void
config_default_put(const struct config_key *k, struct buf *out)
{
	const char *quote = bare(k) ? "\"" : "";

	buf_fmt(out, "%s%s%s", quote, k->dflt, quote);
}

const char *
config_example(const struct config_key *k)
{
	if (k->example)
		return k->example;
	if (k->dflt && !bare(k))
		return k->dflt;
	switch (k->type) {
	case CONFIG_STRING: case CONFIG_ENUM: return "\"text\"";
	case CONFIG_SECRET: return "\"the secret\"";
	case CONFIG_PATH: return "\"/path/to/file\"";
	case CONFIG_INT: case CONFIG_SECONDS: return "10";
	case CONFIG_BOOL: return "true";
	case CONFIG_USD: return "1.00";
	case CONFIG_IDS: return "[123456789]";
	case CONFIG_URL: return "\"https://example.com\"";
	}
	UNREACHABLE();
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
	struct str s, l;

	if (!k)
		return;
	s = config_split(str_z(k->name), &l);
	if (full || !str_eq(s, section))
		l = str_z(k->name);
	buf_fmt(out, "; did you mean \"%.*s\"?", STR_ARG(l));
}


/* A wildcard's part is what stands between the name's fixed ends, in quotes or not, so a model's
 * id may be typed with its dots. */
static bool
name_matches(const struct config_key *k, struct str name, struct str *segment)
{
	struct str after = str_z(k->name), before;

	if (!config_is_wild(k)) {
		*segment = STR_NONE;
		return str_eq(name, after);
	}
	(void)str_cut(&after, '*', &before);
	if (name.n <= before.n + after.n || !str_starts(name, before) || !str_ends(name, after))
		return false;
	name = str_sub(name, before.n, name.n - before.n - after.n);
	if (name.n > 2 && name.p[name.n - 1] == name.p[0] && (name.p[0] == '"' || name.p[0] == '\''))
		name = str_sub(name, 1, name.n - 2);
	*segment = name;
	return utf8_valid(name);
}

enum err
config_key_find(struct str name, const struct config_key **key, struct str *segment,
    struct fail *f)
{
	const struct config_key *k;
	struct buf hint = BUF_INIT(256);
	struct str section, leaf;
	char text[64];
	enum err e;
	size_t i;

	for (i = 0; (k = config_key_at(i)); i++) {
		if (!k->retired && name_matches(k, name, segment)) {
			*key = k;
			return OK;
		}
	}
	section = config_split(name, &leaf);
	config_hint(section, leaf, true, &hint);
	e = fail_set(f, ERR_CONFIG, "unknown key \"%s\"%s next: `blufio config keys` lists all",
	    config_shown(name, text), hint.n ? buf_z(&hint) : ";");
	buf_free(&hint);
	return e;
}

/* A section that no key has: a feature that is not in this build, or a misspelling. */
enum err
config_unknown_section(struct config_loader *l, struct str name)
{
	struct str head, rest, best = STR_NONE;
	const struct config_key *k;
	struct buf set = BUF_INIT(512);
	char text[64];
	enum err e;
	size_t i;
	bool adapter = false, built = false;

	for (i = 0; i < ARRAY_LEN(adapters); i++)
		adapter |= str_eqz(name, adapters[i]);
	for (i = 0; features[i]; i++) {
		built |= str_eqz(name, features[i]->name);
		buf_fmt(&set, "%s ", features[i]->name);
	}
	for (i = 0; (k = config_key_at(i)); i++) {
		rest = str_z(k->name);
		(void)str_cut(&rest, '.', &head);
		if (str_distance(head, name) < 3 && head.n > 2)
			best = head;
	}
	if (adapter && !built)
		e = config_refuse(l, "[%s]: the feature \"%s\" is not in this build; next: "
		    "make FEATURES=\"%s%s\"", config_shown(name, text), text, buf_z(&set), text);
	else if (best.n)
		e = config_refuse(l, "unknown section [%s]; did you mean [%.*s]? next: "
		    "`blufio config keys` lists all", config_shown(name, text), STR_ARG(best));
	else
		e = config_refuse(l, "unknown section [%s]; next: `blufio config keys` lists all",
		    config_shown(name, text));
	buf_free(&set);
	return e;
}

enum err
config_unknown_key(struct config_loader *l, const struct str *segs, size_t depth,
    bool table)
{
	struct buf name = BUF_INIT(4096), hint = BUF_INIT(256);
	size_t i, cut = 0;
	char text[64], section[64];
	enum err e;

	for (i = 0; i <= depth; i++) {
		cut = i == depth && i ? name.n : cut;
		buf_puts(&name, i ? "." : "");
		config_segment_put(segs[i], &name);
	}
	config_hint(depth > 1 ? S("pricing.*") : str_sub(buf_view(&name), 0, cut), segs[depth],
	    false, &hint);
	if (depth > 1 && table)
		buf_puts(&hint, "; a name with dots stands in quotes: [pricing.\"claude-x.1\"]");
	e = config_refuse(l, "unknown key \"%s\"%s%s%s%s next: `blufio config keys` lists all",
	    config_shown(buf_view(&name), text), depth ? " in [" : "", depth ?
	    config_shown(str_sub(buf_view(&name), 0, cut), section) : " outside of any section",
	    depth ? "]" : "", hint.n ? buf_z(&hint) : ";");
	buf_free(&name);
	buf_free(&hint);
	return e;
}
