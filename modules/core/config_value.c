/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config_value.c - one value of the configuration: text in, checked value out.
 *
 * The file's typed values, variables of the environment, defaults and words of
 * the command line all arrive here as text and leave through one function,
 * config_value_set(). What a type refuses it refuses everywhere, and with the
 * same sentence: what is wanted, what was found, an example.
 *
 * The opposite direction is here too: a value as it would stand in the file,
 * for `config show` and for `config set`, which writes only what this file has
 * accepted. Money is read digit by digit, never through floating point.
 */
#include <inttypes.h>

#include "core/config.h"

#define IDS_MAX 1000                    /* entries of one list */
#define WILD_USD 1000000                /* nano-dollars per million tokens -> per token */

/* ---- messages -------------------------------------------------------------- */

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
enum err
config_mismatch(struct config_loader *l, const struct config_value *v)
{
	struct str leaf, section = config_split(str_z(v->key->name), &leaf);
	struct buf name = BUF_INIT(256), want = BUF_INIT(256);
	char got[64];
	enum err e;

	(void)section;
	config_name(v->key, v->segment, &name);
	config_want(v->key, &want);
	if (v->key->type == CONFIG_SECRET)
		snprintf(got, sizeof(got), "something else (not shown)");
	else
		config_shown(l->got, got);
	e = config_refuse(l, "%s wants %s, got %s; example: %.*s = %s; next: `blufio config set %s …`",
	    buf_z(&name), buf_z(&want), got, STR_ARG(leaf), config_example(v->key), buf_z(&name));
	buf_free(&name);
	buf_free(&want);
	return e;
}

/* ---- values: text -> value, by type ---------------------------------------- */

/* Dollars in decimal digits -> nano-dollars; never through floating point. */
static bool
usd_parse(struct str s, int64_t *nano)
{
	struct str whole;
	bool dot = str_cut(&s, '.', &whole);
	int64_t w, part = 0;
	size_t i;

	if (whole.n == 0 || whole.p[0] == '-' || str_i64(whole, 0, 1000000000, &w) != OK)
		return false;
	if (dot && (s.n == 0 || s.n > 9 || s.p[0] == '-' || str_i64(s, 0, 999999999, &part) != OK))
		return false;
	for (i = s.n; dot && i < 9; i++)
		part *= 10;
	*nano = w * 1000000000 + part;
	return true;
}

static bool
in_range(const struct config_key *k, int64_t i)
{
	return (k->min == 0 && k->max == 0) || (i >= k->min && i <= k->max);
}

/* "~/" and "$XDG_DATA_HOME/" are known; a relative path starts at the file it stands in. */
static struct str
path_expand(struct config_loader *l, struct str s)
{
	struct arena *ar = &l->c->arena;
	const char *home = config_env_get(l->env, "HOME");
	const char *xdg = config_env_get(l->env, "XDG_DATA_HOME");
	struct str rest;

	if (l->raw)
		return arena_str(ar, s);
	if (str_starts(s, S("~/")) && home)
		return arena_fmt(ar, "%s%.*s", home, STR_ARG(str_sub(s, 1, s.n)));
	if (str_starts(s, S("$XDG_DATA_HOME/"))) {
		rest = str_sub(s, sizeof("$XDG_DATA_HOME") - 1, s.n);
		if (xdg && xdg[0] == '/')
			return arena_fmt(ar, "%s%.*s", xdg, STR_ARG(rest));
		return arena_fmt(ar, "%s%s%.*s", home ? home : "",
		    home ? "/.local/share" : "/var/lib", STR_ARG(rest));
	}
	if (s.p[0] != '/')
		return arena_fmt(ar, "%.*s%.*s", STR_ARG(l->dir), STR_ARG(s));
	return arena_str(ar, s);
}

static enum err
set_secret(struct config_loader *l, struct config_value *v, struct str text)
{
	struct secret s = { NULL, 0 };
	size_t i;
	enum err e;

	for (i = 0; i < text.n; i++)
		if ((unsigned char)text.p[i] <= 0x20 || text.p[i] == 0x7f)
			return config_refuse(l, "%s holds a blank, a line break or a control character "
			    "(value not shown); next: copy it again, without what stands around it",
			    v->key->name);
	if ((e = secret_set(&s, text)) != OK)
		return fail_set(l->f, e, "%s: %s", l->where, err_str(e));
	secret_free(&v->secret);
	v->secret = s;
	return OK;
}

static enum err
set_url(struct config_loader *l, struct config_value *v, struct str text)
{
	struct url u;

	if (url_parse(text, &u) != OK || str_chr(text, '?') != SIZE_MAX ||
	    str_chr(text, '#') != SIZE_MAX)
		return config_mismatch(l, v);
	if (!u.tls && !url_is_loopback(&u))
		return config_refuse(l, "%s must begin with https://: plain http is for this machine "
		    "only (127.0.0.1, localhost); next: `blufio config set %s https://…`", v->key->name,
		    v->key->name);
	while (text.n && text.p[text.n - 1] == '/')     /* callers append "/v1/…" */
		text.n--;
	v->text = arena_str(&l->c->arena, text);
	return OK;
}

/* One entry of a list. Names are refused: they can be given up and taken over. */
enum err
config_id_add(struct config_loader *l, struct config_value *v, struct str text)
{
	int64_t id;
	char got[64];

	if (str_i64(text, INT64_MIN, INT64_MAX, &id) != OK || id == 0 || !in_range(v->key, id))
		return config_refuse(l, "%s holds \"%s\": only numeric ids count, because a username "
		    "can be given up and registered by somebody else; next: write to the bot, it "
		    "answers with your id, then `blufio config set %s 123456789`",
		    v->key->name, config_shown(text, got), v->key->name);
	if (v->n_ids == IDS_MAX)
		return config_refuse(l, "%s holds more than %d ids", v->key->name, IDS_MAX);
	v->ids[v->n_ids++] = id;
	return OK;
}

enum err
config_ids_begin(struct config_loader *l, struct config_value *v)
{
	v->n_ids = 0;
	if (!v->ids)
		v->ids = arena_array(&l->c->arena, IDS_MAX, sizeof(*v->ids));
	return v->ids ? OK : fail_set(l->f, ERR_NOMEM, "%s: out of memory", l->where);
}

/* "1,2,3" or "[1, 2, 3]". */
static enum err
set_ids(struct config_loader *l, struct config_value *v, struct str text)
{
	struct str item;
	enum err e = config_ids_begin(l, v);

	text = str_trim(text);
	if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']')
		text = str_trim(str_sub(text, 1, text.n - 2));
	while (e == OK && text.n) {
		(void)str_cut(&text, ',', &item);
		item = str_trim(item);
		if (item.n >= 2 && item.p[0] == '"' && item.p[item.n - 1] == '"')
			item = str_sub(item, 1, item.n - 2);
		e = config_id_add(l, v, item);
		text = str_trim(text);
	}
	return e;
}

static bool
is_choice(const char *choices, struct str text)
{
	struct str rest = str_z(choices), head;

	while (rest.n) {
		(void)str_cut(&rest, '|', &head);
		if (str_eq(head, text))
			return true;
	}
	return false;
}

/* The one door for values. */
enum err
config_value_set(struct config_loader *l, struct config_value *v, struct str text,
    const char *origin)
{
	const struct config_key *k = v->key;
	enum err e = OK;
	bool wild = config_is_wild(k);
	bool ok = utf8_valid(text) && str_chr(text, '\0') == SIZE_MAX;

	if (!ok)
		return config_mismatch(l, v);
	if (text.n == 0 &&
	    (k->type == CONFIG_SECRET || k->type == CONFIG_PATH || k->type == CONFIG_URL))
		return OK;              /* "" stands for "not set" */
	switch (k->type) {
	case CONFIG_STRING:
		ok = k->max == 0 || in_range(k, (int64_t)text.n);
		v->text = arena_str(&l->c->arena, text);
		break;
	case CONFIG_SECRET: e = set_secret(l, v, text); break;
	case CONFIG_PATH:
		ok = str_chr(text, '\n') == SIZE_MAX;
		v->text = path_expand(l, text);
		break;
	case CONFIG_INT: case CONFIG_SECONDS:
		ok = str_i64(text, INT64_MIN, INT64_MAX, &v->i) == OK && in_range(k, v->i);
		break;
	case CONFIG_BOOL:
		ok = is_choice("true|false", text);
		v->i = str_eqz(text, "true");
		break;
	case CONFIG_ENUM:
		ok = is_choice(k->choices, text);
		v->text = arena_str(&l->c->arena, text);
		break;
	case CONFIG_USD:
		ok = usd_parse(text, &v->i) && in_range(k, v->i) && (!wild || v->i % WILD_USD == 0);
		v->i = wild ? v->i / WILD_USD : v->i;
		break;
	case CONFIG_IDS: e = set_ids(l, v, text); break;
	case CONFIG_URL: e = set_url(l, v, text); break;
	}
	if (e == OK && !ok)
		e = config_mismatch(l, v);
	if (e == OK && l->c->arena.err != OK)
		e = fail_set(l->f, l->c->arena.err, "%s: %s", l->where, err_str(l->c->arena.err));
	if (e == OK)
		v->origin = origin;
	return e;
}


/* ---- value -> text --------------------------------------------------------- */

void
config_value_put(const struct config_value *v, bool reveal, struct buf *out)
{
	size_t i;

	switch (v->key->type) {
	case CONFIG_STRING: case CONFIG_PATH: case CONFIG_ENUM: case CONFIG_URL:
		config_quote_put(v->text, out);
		return;
	case CONFIG_SECRET:
		config_quote_put(reveal ? secret_reveal(&v->secret) : S("***"), out);
		return;
	case CONFIG_INT: case CONFIG_SECONDS:
		buf_fmt(out, "%" PRId64, v->i);
		return;
	case CONFIG_BOOL:
		buf_puts(out, v->i ? "true" : "false");
		return;
	case CONFIG_USD:
		config_usd_put(config_is_wild(v->key) ? v->i * WILD_USD : v->i, out);
		return;
	case CONFIG_IDS:
		buf_putc(out, '[');
		for (i = 0; i < v->n_ids; i++)
			buf_fmt(out, "%s%" PRId64, i ? ", " : "", v->ids[i]);
		buf_putc(out, ']');
		return;
	}
	UNREACHABLE();
}

enum err
config_value_text(const struct config_key *k, struct str segment, struct str text,
    struct buf *out, struct fail *f)
{
	struct config c = { .arena = ARENA_INIT(4 * CONFIG_BYTES_MAX) };
	struct config_loader l = { .c = &c, .f = f, .raw = true, .got = text,
	    .where = "new value" };
	struct config_value v = { .key = k, .segment = segment };
	enum err e;

	if (k->type != CONFIG_STRING && k->type != CONFIG_SECRET)
		text = str_trim(text);
	e = config_value_set(&l, &v, text, "new value");
	if (e == OK)
		config_value_put(&v, true, out);
	if (e == OK && out->err != OK)
		e = fail_set(f, out->err, "new value: %s", err_str(out->err));
	secret_free(&v.secret);
	arena_free(&c.arena);
	return e;
}
