/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config_value.c - one value of the configuration: text in, checked value out.
 *
 * The file's typed values, variables of the environment, defaults and words of
 * the command line all arrive here as text and leave through one function,
 * config_value_set(), which asks the table of types. What a type refuses it
 * refuses everywhere, and with the same sentence: what is wanted, what was
 * found, an example.
 * A parser leaves the value twice: as what the program needs, and as the text
 * a person would type, which is all that printing takes.
 */
#include <inttypes.h>

#include "core/config.h"

#define IDS_MAX 1000                    /* entries of one list */
#define NANO 1000000000                 /* nano-dollars of a dollar */
#define WILD_USD 1000000                /* nano-dollars per million tokens -> per token */

typedef enum err parse_fn(struct config_loader *l, struct config_value *v, struct str text);
static parse_fn parse_string, parse_secret, parse_path, parse_number, parse_choice, parse_usd,
    parse_ids, parse_argv, parse_url;

#define BIT(type) (1u << (type))
static const struct type {
	const char *name;               /* in `blufio config keys` */
	char quote;                     /* stands around it in the file: '"', '[' or nothing */
	unsigned nodes;                 /* TOML types that are taken, of a list's items */
	parse_fn *parse;
	const char *want, *example;
} types[] = {
	[CONFIG_STRING] = { "string", '"', BIT(TOML_STRING), parse_string, "a string", "\"text\"" },
	[CONFIG_SECRET] = { "secret", '"', BIT(TOML_STRING), parse_secret,
	    "a string without blanks", "\"the secret\"" },
	[CONFIG_PATH] = { "path", '"', BIT(TOML_STRING), parse_path,
	    "a path in quotes", "\"/path/to/file\"" },
	[CONFIG_INT] = { "integer", 0, BIT(TOML_INTEGER), parse_number, "a whole number", "10" },
	[CONFIG_BOOL] = { "boolean", 0, BIT(TOML_BOOL), parse_choice, "true or false", "true" },
	[CONFIG_ENUM] = { "choice", '"', BIT(TOML_STRING), parse_choice, "one of", "\"text\"" },
	[CONFIG_USD] = { "dollars", 0, BIT(TOML_STRING) | BIT(TOML_INTEGER) | BIT(TOML_FLOAT),
	    parse_usd, "US dollars with at most", "1.00" },
	[CONFIG_SECONDS] = { "seconds", 0, BIT(TOML_INTEGER), parse_number,
	    "a whole number of seconds", "10" },
	[CONFIG_IDS] = { "list of ids", '[', BIT(TOML_STRING) | BIT(TOML_INTEGER), parse_ids,
	    "a list of numeric ids", "[123456789]" },
	[CONFIG_ARGV] = { "list of strings", '[', BIT(TOML_STRING), parse_argv,
	    "a list of strings, a program and its arguments", "[\"/usr/bin/program\", \"{file}\"]" },
	[CONFIG_URL] = { "URL", '"', BIT(TOML_STRING), parse_url,
	    "an https:// address (http:// only for this machine)", "\"https://example.com\"" },
};

/* ---- words ----------------------------------------------------------------- */

const char *
config_type_name(const struct config_key *k)
{
	return types[k->type].name;
}

/* At least two decimals. */
static const char *
usd_text(int64_t nano, char out[48])
{
	int n = snprintf(out, 48, "%" PRId64 ".%09" PRId64, nano / NANO, nano % NANO);

	while (out[n - 1] == '0' && out[n - 3] != '.')
		out[--n] = '\0';
	return out;
}

void
config_want(const struct config_key *k, struct buf *out)
{
	struct str rest = str_z(k->choices), word;
	char min[48], max[48];

	buf_puts(out, types[k->type].want);
	while (rest.n) {
		(void)str_cut(&rest, '|', &word);
		buf_fmt(out, " \"%.*s\"%s", STR_ARG(word), rest.n ? "," : "");
	}
	if (k->type == CONFIG_USD)
		buf_fmt(out, " %d decimals", config_is_wild(k) ? 3 : 9);
	if (k->min == 0 && k->max == 0)
		return;
	if (k->type == CONFIG_USD)
		buf_fmt(out, " from %s to %s", usd_text(k->min, min), usd_text(k->max, max));
	else if (k->type == CONFIG_STRING)
		buf_fmt(out, " of %" PRId64 " to %" PRId64 " bytes", k->min, k->max);
	else
		buf_fmt(out, " from %" PRId64 " to %" PRId64, k->min, k->max);
}

struct str
config_default(const struct config_key *k)
{
	struct str s = str_z(k->dflt);

	return str_starts(s, S("\"")) ? str_sub(s, 1, s.n - 2) : s;
}

/* Is the default's row written without the quotes that the file wants? */
static bool
bare(const struct config_key *k)
{
	return types[k->type].quote == '"' && k->dflt[0] != '"';
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
	return k->dflt && !bare(k) ? k->dflt : types[k->type].example;
}

void
config_value_plain(const struct config_value *v, struct buf *out)
{
	size_t i;

	buf_str(out, v->text);
	for (i = 0; i < v->n_ids; i++)
		buf_fmt(out, "%s%" PRId64, i ? ", " : "", v->ids[i]);
	for (i = 0; i < v->n_argv; i++) {
		buf_puts(out, i ? ", " : "");
		json_quote(out, str_z(v->argv[i]));
	}
}

void
config_value_put(const struct config_value *v, bool reveal, struct buf *out)
{
	char quote = types[v->key->type].quote;

	if (quote == '"') {
		json_quote(out, reveal && v->secret.n ? secret_reveal(&v->secret) : v->text);
		return;
	}
	buf_puts(out, quote ? "[" : "");
	config_value_plain(v, out);
	buf_puts(out, quote ? "]" : "");
}

enum err
config_refuse(struct config_loader *l, const char *fmt, ...)
{
	char text[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return fail_set(l->f, ERR_CONFIG, "%s: %s", l->where, text);
}

void
config_at(struct config_loader *l, unsigned line, unsigned column)
{
	snprintf(l->where, sizeof(l->where), "%s:%u:%u", l->name, line, column);
}

/* "agent.max_sessions wants …, got …; example: …". */
static enum err
mismatch(struct config_loader *l, const struct config_value *v)
{
	struct buf name = BUF_INIT(4096), want = BUF_INIT(256);
	struct str leaf;
	char got[64];
	enum err e;

	(void)config_split(str_z(v->key->name), &leaf);
	config_name(v->key, v->segment, &name);
	config_want(v->key, &want);
	if (v->key->type == CONFIG_SECRET)
		memcpy(got, "something else (not shown)", sizeof("something else (not shown)"));
	else
		config_shown(l->got, got);
	e = config_refuse(l, "%s wants %s, got %s; example: %.*s = %s; next: "
	    "`blufio config set %s …`", buf_z(&name), buf_z(&want), got, STR_ARG(leaf),
	    config_example(v->key), buf_z(&name));
	buf_free(&name);
	buf_free(&want);
	return e;
}

/* ---- the types' parsers ---------------------------------------------------- */

static bool
in_range(const struct config_key *k, int64_t i)
{
	return (k->min == 0 && k->max == 0) || (i >= k->min && i <= k->max);
}

static enum err
parse_string(struct config_loader *l, struct config_value *v, struct str text)
{
	v->text = arena_str(&l->c->arena, text);
	return v->key->max == 0 || in_range(v->key, (int64_t)text.n) ? OK : mismatch(l, v);
}

static enum err
parse_secret(struct config_loader *l, struct config_value *v, struct str text)
{
	struct secret s = { NULL, 0 };
	size_t i;
	enum err e;

	for (i = 0; i < text.n; i++)
		if ((unsigned char)text.p[i] <= 0x20 || text.p[i] == 0x7f)
			return config_refuse(l, "%s holds a blank, a line break or a control "
			    "character (value not shown); next: copy it again, without what stands "
			    "around it, into `blufio config set %s -`", v->key->name, v->key->name);
	if ((e = secret_set(&s, text)) != OK)
		return fail_set(l->f, e, "%s: %s", l->where, err_str(e));
	secret_free(&v->secret);
	v->secret = s;
	v->text = S("***");
	return OK;
}

/* "~/" and "$XDG_DATA_HOME/" are known; a relative path starts at the file it stands in. */
static enum err
parse_path(struct config_loader *l, struct config_value *v, struct str text)
{
	const char *home = config_env_get(l->env, "HOME");
	const char *xdg = config_env_get(l->env, "XDG_DATA_HOME");
	struct str begin = STR_NONE, rest = text;

	if (str_chr(text, '\n') != SIZE_MAX)
		return mismatch(l, v);
	if (str_starts(text, S("~/")) && home && !l->raw) {
		begin = str_z(home);
		rest = str_sub(text, 1, text.n);
	} else if (str_starts(text, S("$XDG_DATA_HOME/")) && !l->raw) {
		rest = str_sub(text, sizeof("$XDG_DATA_HOME") - 1, text.n);
		if (xdg && xdg[0] == '/')
			begin = str_z(xdg);
		else if (home)
			begin = arena_fmt(&l->c->arena, "%s/.local/share", home);
		else
			begin = S("/var/lib");
	} else if (text.p[0] != '/') {
		begin = l->dir;
	}
	v->text = arena_fmt(&l->c->arena, "%.*s%.*s", STR_ARG(begin), STR_ARG(rest));
	return OK;
}

static enum err
parse_number(struct config_loader *l, struct config_value *v, struct str text)
{
	if (str_i64(text, INT64_MIN, INT64_MAX, &v->i) != OK || !in_range(v->key, v->i))
		return mismatch(l, v);
	v->text = arena_fmt(&l->c->arena, "%" PRId64, v->i);
	return OK;
}

static enum err
parse_choice(struct config_loader *l, struct config_value *v, struct str text)
{
	struct str rest = str_z(v->key->type == CONFIG_BOOL ? "true|false" : v->key->choices), word;

	while (rest.n) {
		(void)str_cut(&rest, '|', &word);
		if (str_eq(word, text)) {
			v->i = str_eqz(text, "true");
			v->text = word;
			return OK;
		}
	}
	return mismatch(l, v);
}

/* Digit by digit, never through floating point. */
static enum err
parse_usd(struct config_loader *l, struct config_value *v, struct str text)
{
	struct str whole, part = text;
	bool dot = str_cut(&part, '.', &whole), wild = config_is_wild(v->key);
	int64_t dollars, nano = 0;
	char out[48];
	size_t i;

	if (str_i64(whole, 0, NANO, &dollars) != OK || text.p[0] == '-')
		return mismatch(l, v);
	if (dot && (part.n > 9 || part.p[0] == '-' || str_i64(part, 0, NANO, &nano) != OK))
		return mismatch(l, v);
	for (i = part.n; i < 9; i++)
		nano *= 10;
	nano += dollars * NANO;
	if (!in_range(v->key, nano) || (wild && nano % WILD_USD != 0))
		return mismatch(l, v);
	v->i = wild ? nano / WILD_USD : nano;
	v->text = arena_str(&l->c->arena, str_z(usd_text(nano, out)));
	return OK;
}

/* One id, or "1,2,3", or "[1, 2, 3]". Names are refused: they can be given up and taken over. */
static enum err
parse_ids(struct config_loader *l, struct config_value *v, struct str text)
{
	struct str item;
	bool more = true;
	int64_t id;
	char got[64];

	if (!v->ids)
		v->ids = arena_array(&l->c->arena, IDS_MAX, sizeof(*v->ids));
	text = str_trim(text);
	if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']') {
		text = str_trim(str_sub(text, 1, text.n - 2));
		more = text.n > 0;
	}
	while (v->ids && more) {
		more = str_cut(&text, ',', &item);
		item = str_trim(item);
		if (str_i64(item, INT64_MIN, INT64_MAX, &id) != OK || id == 0 ||
		    !in_range(v->key, id))
			return config_refuse(l, "%s holds \"%s\": only numeric ids count, because "
			    "a username can be given up and registered by somebody else; next: "
			    "write to the bot, it answers with your id, then `blufio config set %s "
			    "123456789`", v->key->name, config_shown(item, got), v->key->name);
		if (v->n_ids == IDS_MAX)
			return config_refuse(l, "%s holds more than %d ids", v->key->name, IDS_MAX);
		v->ids[v->n_ids++] = id;
	}
	return OK;
}

static enum err
argv_add(struct config_loader *l, struct config_value *v, struct str word)
{
	if (!v->argv)
		v->argv = arena_array(&l->c->arena, PROC_ARGS_MAX, sizeof(*v->argv));
	if (v->n_argv + 1 >= PROC_ARGS_MAX)
		return config_refuse(l, "%s holds more than %d words", v->key->name, PROC_ARGS_MAX - 1);
	if (v->argv)
		v->argv[v->n_argv++] = arena_z(&l->c->arena, word);
	return OK;
}

/* An item of the file's list; or, as one text, ["/bin/x", "a b"] or words between blanks. */
static enum err
parse_argv(struct config_loader *l, struct config_value *v, struct str text)
{
	const struct json *list = NULL, *item;
	struct str word;
	enum err e = OK;

	if (l->item)
		return argv_add(l, v, text);
	text = str_trim(text);
	if (str_starts(text, S("["))) {
		if (json_parse(&l->c->arena, text, &list, NULL) != OK)
			return mismatch(l, v);
		for (item = list->first; item && e == OK; item = item->next)
			e = item->type == JSON_STRING ? argv_add(l, v, item->s) : mismatch(l, v);
		return e;
	}
	while (text.n && e == OK) {
		(void)str_cut(&text, ' ', &word);
		if (word.n)
			e = argv_add(l, v, word);
	}
	return e;
}

static enum err
parse_url(struct config_loader *l, struct config_value *v, struct str text)
{
	struct url u;

	if (url_parse(text, &u) != OK || str_chr(text, '?') != SIZE_MAX ||
	    str_chr(text, '#') != SIZE_MAX)
		return mismatch(l, v);
	if (!u.tls && !url_is_loopback(&u))
		return config_refuse(l, "%s must begin with https://: plain http is for this "
		    "machine only (127.0.0.1, localhost); next: `blufio config set %s https://…`",
		    v->key->name, v->key->name);
	while (text.n && text.p[text.n - 1] == '/')     /* callers append "/v1/…" */
		text.n--;
	v->text = arena_str(&l->c->arena, text);
	return OK;
}

/* ---- the one door ---------------------------------------------------------- */

enum err
config_value_set(struct config_loader *l, struct config_value *v, struct str text,
    const char *origin)
{
	const struct config_key *k = v->key;
	enum err e;

	if (k->retired) {
		log_warn("config", "%s: %s is no longer used: %s", l->where, k->name, k->retired);
		return OK;
	}
	if (!utf8_valid(text) || str_chr(text, '\0') != SIZE_MAX)
		return mismatch(l, v);
	if (text.n == 0 && !l->item &&
	    (k->type == CONFIG_SECRET || k->type == CONFIG_ARGV || k->type == CONFIG_PATH || k->type == CONFIG_URL))
		return OK;              /* "" stands for "not set" */
	e = types[k->type].parse(l, v, text);
	if (e == OK && l->c->arena.err != OK)
		e = fail_set(l->f, l->c->arena.err, "%s: %s", l->where, err_str(l->c->arena.err));
	if (e == OK)
		v->origin = origin;
	return e;
}

enum err
config_value_node(struct config_loader *l, struct config_value *v, const struct toml *n)
{
	bool listed = types[v->key->type].quote == '[';
	bool list = listed && n->type == TOML_ARRAY && !n->array_of_tables;
	struct str place = arena_fmt(&l->c->arena, "%s:%u", l->name, n->line);
	const char *origin = arena_z(&l->c->arena, place);
	const struct toml *item;
	struct str text;
	char num[32];
	enum err e = OK;

	if (list)
		v->origin = origin;             /* of an empty one, too */
	for (item = list ? n->first : n; e == OK && item; item = list ? item->next : NULL) {
		config_at(l, item->vline, item->vcolumn);
		text = str_sub(l->text, item->off, item->len);
		l->got = item->type == TOML_TABLE ? S("a section") : text;
		if ((listed && !list) ||
		    !(types[v->key->type].nodes & BIT(item->type)))
			return mismatch(l, v);
		if (item->type == TOML_INTEGER) {
			snprintf(num, sizeof(num), "%" PRId64, item->i);
			text = str_z(num);
		} else if (item->type == TOML_STRING) {
			text = item->s;
		}
		l->item = list;
		e = config_value_set(l, v, text, origin);
		l->item = false;
	}
	if (v->key->type == CONFIG_SECRET) {    /* the copy in the parser's arena: not for long */
		l->secret = true;
		secret_wipe((void *)(uintptr_t)n->s.p, n->s.n);
	}
	v->given = e == OK && v->origin;
	return e;
}

enum err
config_value_text(const struct config_key *k, struct str segment, struct str text,
    struct buf *out, struct fail *f)
{
	struct config c = { .arena = ARENA_INIT(4 * CONFIG_BYTES_MAX) };
	struct config_loader l = { .c = &c, .f = f, .raw = true, .where = "new value" };
	struct config_value v = { .key = k, .segment = segment };
	enum err e;

	if (k->type != CONFIG_STRING && k->type != CONFIG_SECRET)
		text = str_trim(text);
	l.got = text;
	e = config_value_set(&l, &v, text, "new value");
	if (e == OK)
		config_value_put(&v, true, out);
	if (e == OK && out->err != OK)
		e = fail_set(f, out->err, "new value: %s", err_str(out->err));
	secret_free(&v.secret);
	arena_free(&c.arena);
	return e;
}
