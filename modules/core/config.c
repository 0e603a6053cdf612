/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config.c - the configuration: one table of keys, one path for every value.
 *
 * Keys come from config_key.c and from the features compiled in. Every
 * value, wherever it stands (file, environment, default, command line), is
 * brought to text and goes through config_value_set(), so a rule holds everywhere
 * once it is written there. The file's tree is walked against the key names:
 * whatever is not in the table is an error with its place, because a
 * misspelt budget that is silently ignored costs money.
 *
 * Precedence: BLUFIO__SECTION__KEY, then the file, then a key's plain variable
 * (ANTHROPIC_API_KEY), then the default. An empty variable is no variable.
 *
 * A configuration is read once and never changes: `blufio reload` loads a
 * second one and swaps. Secrets are never printed, not even when they are
 * refused; the bytes that were read are wiped before they are freed.
 */
#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <unistd.h>

#include "core/config.h"

extern char **environ;                  /* POSIX: the program declares it */

#define VALUES_MAX (16u << 20)          /* all texts kept */
#define TREE_MAX (32u << 20)            /* the parsed tree of a file of 1 MB */
#define DEPTH_MAX 3                     /* segments of a key name */

/* ---- the file's tree ------------------------------------------------------- */

enum match { MATCH_NONE, MATCH_SECTION, MATCH_KEY };

/* Do the first n segments of a name in the file stand for key k, or for a part of it? */
static enum match
match(const struct config_key *k, const struct str *segs, size_t n)
{
	struct str rest = str_z(k->name), head;
	bool more = true;
	size_t i;

	for (i = 0; i < n; i++) {
		if (!more)
			return MATCH_NONE;
		more = str_cut(&rest, '.', &head);
		if (!str_eq(head, segs[i]) && !(str_eqz(head, "*") && segs[i].n))
			return MATCH_NONE;
	}
	return more ? MATCH_SECTION : MATCH_KEY;
}

/* The value's text when its TOML type suits the key. */
static bool
node_text(const struct config_key *k, const struct toml *n, struct str source, char num[32],
    struct str *text)
{
	switch (k->type) {
	case CONFIG_STRING: case CONFIG_SECRET: case CONFIG_PATH: case CONFIG_ENUM: case CONFIG_URL:
		*text = n->s;
		return n->type == TOML_STRING;
	case CONFIG_INT: case CONFIG_SECONDS:
		snprintf(num, 32, "%" PRId64, n->i);
		*text = str_z(num);
		return n->type == TOML_INTEGER;
	case CONFIG_BOOL:
		*text = n->boolean ? S("true") : S("false");
		return n->type == TOML_BOOL;
	case CONFIG_USD:
		*text = n->type == TOML_STRING ? n->s : source;
		return n->type == TOML_STRING || n->type == TOML_INTEGER || n->type == TOML_FLOAT;
	case CONFIG_IDS:
		return false;           /* is no single text */
	}
	UNREACHABLE();
}

static enum err
take_ids(struct config_loader *l, struct config_value *v, const struct toml *n, const char *origin)
{
	const struct toml *item;
	char num[32];
	enum err e;

	if (n->type != TOML_ARRAY || n->array_of_tables)
		return config_mismatch(l, v);
	e = config_ids_begin(l, v);
	for (item = n->first; e == OK && item; item = item->next) {
		config_at(l, item->vline, item->vcolumn);
		l->got = str_sub(l->text, item->off, item->len);
		if (item->type != TOML_INTEGER && item->type != TOML_STRING)
			return config_mismatch(l, v);
		snprintf(num, sizeof(num), "%" PRId64, item->i);
		e = config_id_add(l, v, item->type == TOML_STRING ? item->s : str_z(num));
	}
	if (e == OK)
		v->origin = origin;
	return e;
}

/* An unescaped copy of a secret lies in the parser's arena: not for long. */
static void
wipe_copy(const struct config_loader *l, struct str s)
{
	uintptr_t p = (uintptr_t)s.p, text = (uintptr_t)l->text.p;

	if (s.n && (p < text || p >= text + l->text.n))
		secret_wipe((void *)p, s.n);
}

static enum err
take_node(struct config_loader *l, const struct config_key *k, struct config_value *v,
    const struct toml *n)
{
	struct str source = str_sub(l->text, n->off, n->len), text = STR_NONE;
	struct str origin = arena_fmt(&l->c->arena, "%s:%u", l->name, n->line);
	const char *z = arena_z(&l->c->arena, origin);
	char num[32];
	enum err e;

	if (k->retired) {
		log_warn("config", "%s: %s is no longer used: %s", l->where, k->name, k->retired);
		return OK;
	}
	config_at(l, n->vline, n->vcolumn);
	l->got = n->type == TOML_TABLE ? S("a section") : source;
	if (k->type == CONFIG_IDS)
		e = take_ids(l, v, n, z);
	else if (node_text(k, n, source, num, &text))
		e = config_value_set(l, v, text, z);
	else
		e = config_mismatch(l, v);
	if (k->type == CONFIG_SECRET && n->type == TOML_STRING) {
		l->secret = true;
		wipe_copy(l, text);
	}
	v->given = e == OK && v->origin;
	return e;
}

/* The value a key and segment stand in; a new one for a wildcard. NULL: out of memory. */
static struct config_value *
slot(struct config *c, size_t i, struct str segment)
{
	const struct config_key *k = config_key_at(i);
	struct config_value *v;

	if (!config_is_wild(k))
		return &c->values[i];
	v = arena_alloc(&c->arena, sizeof(*v));
	if (v) {
		v->key = k;
		v->segment = arena_str(&c->arena, segment);
		*c->wild_tail = v;
		c->wild_tail = &v->next;
	}
	return v;
}

static enum err
walk(struct config_loader *l, const struct toml *table, struct str segs[DEPTH_MAX], size_t depth)
{
	const struct config_key *k;
	const struct toml *n;
	struct config_value *v;
	enum match m;
	enum err e = OK;
	size_t i;

	for (n = table->first; e == OK && n; n = n->next) {
		segs[depth] = n->key;
		config_at(l, n->line, n->column);
		for (i = 0, m = MATCH_NONE; (k = config_key_at(i)); i++)
			if ((m = match(k, segs, depth + 1)) != MATCH_NONE)
				break;
		if (m == MATCH_KEY) {
			v = slot(l->c, i, depth > 1 ? segs[1] : STR_NONE);
			e = v ? take_node(l, k, v, n) :
			    fail_set(l->f, ERR_NOMEM, "%s: out of memory", l->name);
		} else if (m == MATCH_SECTION && n->type == TOML_TABLE) {
			e = walk(l, n, segs, depth + 1);
		} else if (m == MATCH_SECTION) {
			e = config_refuse(l, "%.*s is a section and has no value of its own; "
			    "example: [%.*s]", STR_ARG(n->key), STR_ARG(n->key));
		} else if (depth == 0 && n->type == TOML_TABLE) {
			e = config_unknown_section(l, n->key);
		} else {
			e = config_unknown_key(l, segs, depth, n->type == TOML_TABLE);
		}
	}
	return e;
}

/* Does a line of the text that could not be parsed hold a secret? Then it may not be quoted. */
static bool
secret_line(struct str text, unsigned line)
{
	const struct config_key *k;
	struct str head = STR_NONE, leaf;
	size_t i;

	while (line-- > 0)
		(void)str_cut(&text, '\n', &head);
	for (i = 0; (k = config_key_at(i)); i++) {
		(void)config_split(str_z(k->name), &leaf);
		if (k->type == CONFIG_SECRET && str_find(head, leaf) != SIZE_MAX)
			return true;
	}
	return false;
}

static enum err
load_text(struct config_loader *l, struct str text)
{
	struct arena ar = ARENA_INIT(TREE_MAX);
	struct str segs[DEPTH_MAX];
	struct toml_error te;
	struct toml *root;
	enum err e;

	l->text = text;
	e = toml_parse(&ar, text, &root, &te);
	if (e == ERR_PARSE) {
		config_at(l, te.line, te.column);
		e = config_refuse(l, "%s; next: correct that line, then `blufio config validate`",
		    secret_line(text, te.line) ?
		    "this is not TOML (not shown, the line holds a secret); values stand in quotes" :
		    te.what);
	} else if (e != OK) {
		e = fail_set(l->f, e, "%s: %s", l->name, err_str(e));
	} else {
		e = walk(l, root, segs, 0);
	}
	arena_free(&ar);
	l->text = STR_NONE;
	return e;
}

/* ---- environment, defaults, checks across keys ----------------------------- */

static enum err
set_from_env(struct config_loader *l, size_t i, const char *var, struct str value)
{
	struct config_value *v = &l->c->values[i];
	const char *origin = arena_z(&l->c->arena, str_z(var));
	enum err e;

	snprintf(l->where, sizeof(l->where), "%s", var);
	if (v->key->retired) {
		log_warn("config", "%s: %s is no longer used: %s", var, v->key->name,
		    v->key->retired);
		return OK;
	}
	l->got = value;
	e = config_value_set(l, v, value, origin);
	if (e == OK && v->origin == origin)
		v->given = true;
	return e;
}

static void
warn_unknown(struct str var)
{
	struct buf dotted = BUF_INIT(256), hint = BUF_INIT(256);
	struct str section, leaf;
	char text[64];
	size_t i;

	for (i = sizeof("BLUFIO__") - 1; i < var.n; i++) {
		if (var.p[i] == '_' && i + 1 < var.n && var.p[i + 1] == '_' && ++i)
			buf_putc(&dotted, '.');
		else
			buf_putc(&dotted, (char)tolower((unsigned char)var.p[i]));
	}
	section = config_split(buf_view(&dotted), &leaf);
	config_hint(section, leaf, true, &hint);
	log_warn("config", "the environment variable %s sets no known key%s next: "
	    "`blufio config keys` lists all", config_shown(var, text), hint.n ? buf_z(&hint) : ";");
	buf_free(&dotted);
	buf_free(&hint);
}

static enum err
apply_env(struct config_loader *l)
{
	const char *const *p;
	const char *value;
	struct str rest, var;
	char name[128];
	enum err e = OK;
	size_t i;

	l->dir = STR_NONE;
	for (p = l->env; e == OK && p && *p; p++) {
		rest = str_z(*p);
		if (!str_starts(rest, S("BLUFIO__")) || !str_cut(&rest, '=', &var) || rest.n == 0)
			continue;
		for (i = 0; i < l->c->n; i++) {
			config_env_name(l->c->values[i].key, name);
			if (!config_is_wild(l->c->values[i].key) && str_eqz(var, name))
				break;
		}
		if (i < l->c->n)
			e = set_from_env(l, i, name, rest);
		else
			warn_unknown(var);
	}
	for (i = 0; e == OK && i < l->c->n; i++) {
		const struct config_value *v = &l->c->values[i];

		if (!v->given && v->key->env && (value = config_env_get(l->env, v->key->env)))
			e = set_from_env(l, i, v->key->env, str_z(value));
	}
	return e;
}

/* The built-in default, or what this build has when that one was left out. */
static struct str
provider_default(struct str dflt)
{
	const struct feature *first = NULL;
	size_t i;

	for (i = 0; features[i]; i++) {
		if (!features[i]->provider)
			continue;
		if (str_eqz(dflt, features[i]->name))
			return dflt;
		if (!first || (first->provider->offline && !features[i]->provider->offline))
			first = features[i];
	}
	return first ? str_z(first->name) : dflt;
}

static enum err
apply_defaults(struct config_loader *l)
{
	struct config_value *v;
	struct str text;
	enum err e = OK;
	size_t i;

	for (i = 0; e == OK && i < l->c->n; i++) {
		v = &l->c->values[i];
		if (v->origin || !v->key->dflt || v->key->retired || config_is_wild(v->key))
			continue;
		text = str_z(v->key->dflt);
		if (v->key->type != CONFIG_IDS && text.n >= 2 && text.p[0] == '"')
			text = str_sub(text, 1, text.n - 2);
		if (strcmp(v->key->name, "providers.default") == 0)
			text = provider_default(text);
		snprintf(l->where, sizeof(l->where), "default of %s", v->key->name);
		l->got = text;
		e = config_value_set(l, v, text, "default");
	}
	return e;
}

static struct config_value *
lookup(const struct config *c, const char *key)
{
	size_t i;

	for (i = 0; i < c->n; i++)
		if (strcmp(c->values[i].key->name, key) == 0)
			return &c->values[i];
	assert(false && "configuration key that is in no table");
	UNREACHABLE();
}

/* What no single value shows. */
static enum err
cross_check(struct config_loader *l)
{
	const struct config_value *v = lookup(l->c, "providers.default");
	const struct config_value *file = lookup(l->c, "agent.system_prompt_file");
	struct buf list = BUF_INIT(512);
	enum err e = OK;
	char got[64];
	size_t i;
	bool known = false;

	if (file->given && lookup(l->c, "agent.system_prompt")->given)
		log_warn("config", "both agent.system_prompt (%s) and agent.system_prompt_file (%s) "
		    "are set: the file wins; next: remove one",
		    config_origin(l->c, "agent.system_prompt"), file->origin);
	for (i = 0; features[i]; i++) {
		if (!features[i]->provider)
			continue;
		known |= str_eqz(v->text, features[i]->name);
		buf_fmt(&list, "%s%s", list.n ? ", " : "", features[i]->name);
	}
	if (v->given && !known) {
		snprintf(l->where, sizeof(l->where), "%s", v->origin);
		e = config_refuse(l, "providers.default names \"%s\", which is no provider of this "
		    "build; it has: %s; next: blufio config set providers.default NAME",
		    config_shown(v->text, got), buf_z(&list));
	}
	buf_free(&list);
	return e;
}

/* ---- the configuration ----------------------------------------------------- */

static enum err
load_file(struct config_loader *l)
{
	struct config *c = l->c;
	struct buf text = BUF_INIT(CONFIG_BYTES_MAX);
	const char *slash = strrchr(c->path, '/');
	bool readable = false;
	enum err e;

	l->name = c->path;
	l->dir = str_make(c->path, slash ? (size_t)(slash - c->path) + 1 : 0);
	e = config_file_read(l, &text, &readable);
	if (e == OK)
		e = load_text(l, buf_view(&text));
	if (e == OK && l->secret && readable)
		log_warn("config", "%s holds a secret and other users may read it; next: "
		    "chmod 600 %s", c->path, c->path);
	if (text.p)
		secret_wipe(text.p, text.cap);
	buf_free(&text);
	return e;
}

static struct config *
config_new(void)
{
	struct config *c = calloc(1, sizeof(*c));
	size_t i;

	if (!c)
		return NULL;
	arena_init(&c->arena, VALUES_MAX);
	buf_init(&c->searched, 16384);
	c->wild_tail = &c->wild;
	while (config_key_at(c->n))
		c->n++;
	c->values = arena_array(&c->arena, c->n, sizeof(*c->values));
	if (!c->values) {
		config_free(c);
		return NULL;
	}
	for (i = 0; i < c->n; i++)
		c->values[i].key = config_key_at(i);
	return c;
}

void
config_free(struct config *c)
{
	struct config_value *v;
	size_t i;

	if (!c)
		return;
	for (i = 0; c->values && i < c->n; i++)
		secret_free(&c->values[i].secret);
	for (v = c->wild; v; v = v->next)
		secret_free(&v->secret);
	buf_free(&c->searched);
	arena_free(&c->arena);
	free(c);
}

static enum err
find_file(struct config_loader *l, const char *path)
{
	struct config_files cf;
	struct config *c = l->c;
	enum err e = config_locate(path, l->env, &cf);

	if (e == OK && cf.path.n)
		c->path = arena_z(&c->arena, buf_view(&cf.path));
	buf_str(&c->searched, buf_view(&cf.searched));
	if (e == OK)
		e = c->arena.err != OK ? c->arena.err : c->searched.err;
	config_files_free(&cf);
	return e == OK ? OK : fail_set(l->f, e, "looking for blufio.toml: %s", err_str(e));
}

enum err
config_load(struct config **out, const char *path, const char *const *env, struct fail *f)
{
	struct config_loader l = { .f = f, .env = env ? env : (const char *const *)environ };
	enum err e;

	l.c = config_new();
	if (!l.c)
		return fail_set(f, ERR_NOMEM, "configuration: out of memory");
	e = find_file(&l, path);
	if (e == OK && l.c->path)
		e = load_file(&l);
	if (e == OK)
		e = apply_env(&l);
	if (e == OK)
		e = apply_defaults(&l);
	if (e == OK)
		e = cross_check(&l);
	if (e != OK)
		config_free(l.c);
	else
		*out = l.c;
	return e;
}

enum err
config_check(struct str toml, const char *name, struct fail *f)
{
	struct config_loader l = { .f = f, .name = name, .raw = true };
	enum err e;

	l.c = config_new();
	if (!l.c)
		return fail_set(f, ERR_NOMEM, "%s: out of memory", name);
	if (toml.n > CONFIG_BYTES_MAX)
		e = fail_set(f, ERR_CONFIG, "%s: larger than %u bytes", name, CONFIG_BYTES_MAX);
	else
		e = load_text(&l, toml);
	if (e == OK)
		e = cross_check(&l);
	config_free(l.c);
	return e;
}

const char *
config_path(const struct config *c)
{
	return c->path;
}

void
config_searched(const struct config *c, struct buf *out)
{
	buf_str(out, buf_view(&c->searched));
}

bool
config_has(const struct config *c, const char *key)
{
	return lookup(c, key)->given;
}

struct str
config_str(const struct config *c, const char *key)
{
	const struct config_value *v = lookup(c, key);

	assert(v->key->type == CONFIG_STRING || v->key->type == CONFIG_PATH ||
	    v->key->type == CONFIG_ENUM || v->key->type == CONFIG_URL);
	return v->text;
}

const struct secret *
config_secret(const struct config *c, const char *key)
{
	const struct config_value *v = lookup(c, key);

	assert(v->key->type == CONFIG_SECRET);
	return v->secret.p ? &v->secret : NULL;
}

int64_t
config_i64(const struct config *c, const char *key)
{
	const struct config_value *v = lookup(c, key);

	assert(v->key->type == CONFIG_INT || v->key->type == CONFIG_SECONDS ||
	    v->key->type == CONFIG_USD || v->key->type == CONFIG_BOOL);
	return v->i;
}

bool
config_bool(const struct config *c, const char *key)
{
	return config_i64(c, key) != 0;
}

size_t
config_ids(const struct config *c, const char *key, const int64_t **ids)
{
	const struct config_value *v = lookup(c, key);

	assert(v->key->type == CONFIG_IDS);
	*ids = v->ids;
	return v->n_ids;
}

static const struct config_value *
wild(const struct config *c, const char *key, struct str segment)
{
	const struct config_value *v;

	assert(config_is_wild(lookup(c, key)->key));
	for (v = c->wild; v; v = v->next)
		if (v->given && strcmp(v->key->name, key) == 0 && str_eq(v->segment, segment))
			return v;
	return NULL;
}

bool
config_wild(const struct config *c, const char *key, struct str segment, int64_t *v)
{
	const struct config_value *w = wild(c, key, segment);

	if (w)
		*v = w->i;
	return w != NULL;
}

struct str
config_wild_str(const struct config *c, const char *key, struct str segment)
{
	const struct config_value *w = wild(c, key, segment);

	return w ? w->text : STR_NONE;
}

const char *
config_origin(const struct config *c, const char *key)
{
	const char *origin = lookup(c, key)->origin;

	return origin ? origin : "not set";
}

const struct config_value *
config_value_at(const struct config *c, size_t i)
{
	const struct config_value *v;

	if (i < c->n)
		return &c->values[i];
	for (i -= c->n, v = c->wild; v && i > 0; i--)
		v = v->next;
	return v;
}
