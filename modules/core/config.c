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
 * A path given by name (--config, BLUFIO_CONFIG) has to be there, for the same
 * reason. The places of the search list need not: the first file that exists
 * wins, alone. Precedence: BLUFIO__SECTION__KEY, then the file, then a key's
 * plain variable (ANTHROPIC_API_KEY), then the default.
 *
 * A configuration is read once and never changes: `blufio reload` loads a
 * second one and swaps. Secrets are never printed, not even when they are
 * refused; the bytes that were read are wiped before they are freed.
 */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/config.h"

extern char **environ;                  /* POSIX: the program declares it */

#define VALUES_MAX (16u << 20)          /* all texts kept */

/* ---- the file -------------------------------------------------------------- */

const char *
config_env_get(const char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return (*env)[n + 1] ? *env + n + 1 : NULL;
	return NULL;
}

enum err
config_locate(struct arena *ar, const char *given, const char *const *env,
    struct config_files *out)
{
	const char *home = config_env_get(env, "HOME");
	const char *xdg = config_env_get(env, "XDG_CONFIG_HOME");
	const char *places[] = { "blufio.toml", "", "/etc/blufio/blufio.toml" };
	struct config_files cf = { "", false, STR_NONE };
	struct stat st;
	size_t i;

	if (!given)
		given = config_env_get(env, "BLUFIO_CONFIG");
	if (given) {
		places[0] = places[2] = "";
		places[1] = arena_z(ar, str_z(given));
	} else if (xdg && xdg[0] == '/') {
		places[1] = arena_z(ar, arena_fmt(ar, "%s/blufio/blufio.toml", xdg));
	} else if (home) {
		places[1] = arena_z(ar, arena_fmt(ar, "%s/.config/blufio/blufio.toml", home));
	}
	cf.path = places[1];
	for (i = 0; i < ARRAY_LEN(places); i++) {
		if (!*places[i])
			continue;
		cf.searched = arena_fmt(ar, "%.*s%s\n", STR_ARG(cf.searched), places[i]);
		if (!cf.found && (given || stat(places[i], &st) == 0)) {
			cf.found = true;
			cf.path = places[i];
		}
	}
	if (ar->err == OK)
		*out = cf;
	return ar->err;
}

/* What the machine could not do is no mistake in the configuration. */
static enum err
read_err(void)
{
	return errno == EIO || errno == ENOMEM ? err_errno(errno) : ERR_CONFIG;
}

enum err
config_read(const char *path, struct buf *text, struct fail *f)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return fail_set(f, read_err(), "configuration file %s: %s; next: check the path, "
		    "or make the file: blufio --config %s config set agent.name blufio", path,
		    strerror(errno), path);
	if (S_ISDIR(st.st_mode))
		return fail_set(f, ERR_CONFIG, "configuration file %s: it is a directory; next: "
		    "name the file in it: blufio --config %s/blufio.toml config validate", path,
		    path);
	if (access(path, R_OK) != 0)
		return fail_set(f, read_err(), "configuration file %s: %s; next: ls -l %s", path,
		    strerror(errno), path);
	if (st.st_size > (off_t)CONFIG_BYTES_MAX)
		return fail_set(f, ERR_CONFIG, "configuration file %s: larger than %u bytes; next: "
		    "ls -l %s", path, CONFIG_BYTES_MAX, path);
	return file_read(path, CONFIG_BYTES_MAX, text, f);
}

/* The value a key and segment stand in; a new one for a wildcard. NULL: out of memory. */
static struct config_value *
slot(struct config *c, const struct config_key *k, struct str segment)
{
	struct config_value *v = c->values;

	while (v && (v->key != k || !str_eq(v->segment, segment)))
		v = v->next;
	if (v || !(v = arena_alloc(&c->arena, sizeof(*v))))
		return v;
	v->key = k;
	v->segment = arena_str(&c->arena, segment);
	*c->tail = v;
	c->tail = &v->next;
	return v;
}

static enum err
walk(struct config_loader *l, const struct toml *table, struct str *segs, size_t depth)
{
	const struct config_key *k;
	const struct toml *n;
	struct config_value *v;
	enum err e = OK;
	bool section;

	for (n = table->first; e == OK && n; n = n->next) {
		segs[depth] = n->key;
		config_at(l, n->line, n->column);
		k = config_find(segs, depth + 1, &section);
		if (k) {
			v = slot(l->c, k, config_is_wild(k) ? segs[1] : STR_NONE);
			e = v ? config_value_node(l, v, n) :
			    fail_set(l->f, ERR_NOMEM, "%s: out of memory", l->name);
		} else if (section && n->type == TOML_TABLE) {
			e = walk(l, n, segs, depth + 1);
		} else if (section) {
			e = config_refuse(l, "%.*s is a section and has no value of its own; "
			    "example: [%.*s];" CONFIG_LIST, STR_ARG(n->key), STR_ARG(n->key));
		} else {
			e = config_unknown(l, segs, depth, n->type == TOML_TABLE);
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
	struct arena ar = ARENA_INIT(CONFIG_TREE_MAX);
	struct str segs[CONFIG_SEGMENTS_MAX];
	struct toml_error te;
	struct toml *root;
	enum err e;

	l->text = text;
	e = toml_parse(&ar, text, &root, &te);
	if (e == ERR_PARSE) {
		config_at(l, te.line, te.column);
		e = config_refuse(l, "%s; next: correct that line, then `blufio config validate`",
		    !secret_line(text, te.line) ? te.what : "this is not TOML (not shown, the line "
		    "holds a secret); values stand in quotes");
	} else if (e != OK) {
		e = fail_set(l->f, e, "%s: %s", l->name, err_str(e));
	} else {
		e = walk(l, root, segs, 0);
	}
	arena_free(&ar);
	return e;
}

static enum err
load_file(struct config_loader *l)
{
	struct buf text = BUF_INIT(CONFIG_BYTES_MAX);
	const char *path = l->c->path, *slash = strrchr(path, '/');
	struct stat st;
	enum err e = config_read(path, &text, l->f);

	l->name = path;
	l->dir = str_make(path, slash ? (size_t)(slash - path) + 1 : 0);
	if (e == OK)
		e = load_text(l, buf_view(&text));
	l->dir = STR_NONE;
	if (l->secret && stat(path, &st) == 0 && (st.st_mode & (S_IRGRP | S_IROTH)))
		log_warn("config", "%s holds a secret and other users may read it; next: "
		    "chmod 600 %s", path, path);
	if (text.p)
		secret_wipe(text.p, text.cap);
	buf_free(&text);
	return e;
}

/* ---- environment, defaults, checks across keys ----------------------------- */

/* The value of a key without wildcard. */
static struct config_value *
find(const struct config *c, struct str name)
{
	struct config_value *v = c->values;

	while (v && !str_eqz(name, v->key->name))
		v = v->next;
	return v;
}

/* A value that does not stand in the file. */
static enum err
take_text(struct config_loader *l, struct config_value *v, struct str origin, struct str text)
{
	const char *z = arena_z(&l->c->arena, origin);

	snprintf(l->where, sizeof(l->where), "%s", z);
	l->got = text;
	v->n_ids = v->n_argv = 0;       /* the file's list is replaced, not continued */
	return config_value_set(l, v, text, z);
}

/* The value that a name in a variable stands for: "agent.name", "providers.groq.api_key"; NULL: none. */
static struct config_value *
variable_slot(struct config_loader *l, struct str name)
{
	struct str segs[CONFIG_SEGMENTS_MAX];
	const struct config_key *k;
	size_t n = 0;
	bool more = true, section;

	while (more && n < ARRAY_LEN(segs))
		more = str_cut(&name, '.', &segs[n++]);
	k = more ? NULL : config_find(segs, n, &section);
	if (k == NULL || !config_is_wild(k))
		return k ? slot(l->c, k, STR_NONE) : NULL;
	for (struct config_value *v = l->c->values; v; v = v->next)
		if (v->segment.n && str_ieq(v->segment, segs[1]))       /* as the file writes it: variables have no case */
			return slot(l->c, k, v->segment);
	return slot(l->c, k, segs[1]);
}

/* BLUFIO__AGENT__NAME=text; any other variable is none of ours. */
static enum err
take_variable(struct config_loader *l, struct str text)
{
	struct buf name = BUF_INIT(256), hint = BUF_INIT(256);
	struct str var, section, leaf;
	struct config_value *v;
	char shown[64];
	enum err e = OK;
	size_t i;

	if (!str_starts(text, S("BLUFIO__")) || !str_cut(&text, '=', &var) || text.n == 0)
		return OK;
	for (i = sizeof("BLUFIO__") - 1; i < var.n; i++) {
		if (str_starts(str_sub(var, i, 2), S("__")) && ++i)
			buf_putc(&name, '.');
		else
			buf_putc(&name, (char)tolower((unsigned char)var.p[i]));
	}
	v = variable_slot(l, buf_view(&name));
	if (v) {
		e = take_text(l, v, var, text);
		v->given = e == OK && v->origin;
	} else {
		section = config_split(buf_view(&name), &leaf);
		config_hint(section, leaf, true, &hint);
		log_warn("config", "the environment variable %s sets no known key%s" CONFIG_LIST,
		    config_shown(var, shown), buf_z(&hint));
	}
	buf_free(&name);
	buf_free(&hint);
	return e;
}

static enum err
apply_env_and_defaults(struct config_loader *l)
{
	const char *const *p;
	const char *plain;
	struct config_value *v;
	enum err e = OK;

	for (p = l->env; e == OK && *p; p++)
		e = take_variable(l, str_z(*p));
	for (v = l->c->values; e == OK && v; v = v->next) {
		plain = v->key->env && !v->given ? config_env_get(l->env, v->key->env) : NULL;
		if (plain)
			e = take_text(l, v, str_z(v->key->env), str_z(plain));
		v->given |= e == OK && plain && v->origin;
		if (e == OK && !v->origin && v->key->dflt && !v->key->retired)
			e = take_text(l, v, S("default"), config_default(v->key));
	}
	return e;
}

/* What no single value shows. A provider that was left out of the build is an error when it was asked for; as the
 * default another takes its place, best one that asks a model. So does the first [providers.NAME] when there is no
 * key for the default. */
static enum err
cross_check(struct config_loader *l)
{
	struct config_value *v = find(l->c, S("providers.default"));
	const struct config_value *file = find(l->c, S("agent.system_prompt_file"));
	const struct config_value *prompt = find(l->c, S("agent.system_prompt"));
	const struct feature *const *p, *best = NULL;
	struct str name, instance = STR_NONE;
	struct buf list = BUF_INIT(512);
	enum err e = OK;
	char got[64];
	bool known = false, usable = false;

	if (file->given && prompt->given)
		log_warn("config", "both agent.system_prompt (%s) and agent.system_prompt_file "
		    "(%s) are set: the file wins; next: remove one", prompt->origin, file->origin);
	for (p = features; *p; p++) {
		if (!(*p)->provider)
			continue;
		for (size_t i = 0; (*p)->provider->instances && config_segment(l->c, (*p)->provider->instances, i, &name); i++) {
			known |= str_eq(v->text, name);
			instance = instance.n ? instance : name;
			buf_fmt(&list, "%s%.*s", list.n ? ", " : "", STR_ARG(name));
		}
		if ((*p)->provider->instances)
			continue;
		if (str_eqz(v->text, (*p)->name)) {
			known = true;
			usable = (*p)->provider->configured(l->c, NULL);
		}
		if (!best || (best->provider->offline && !(*p)->provider->offline))
			best = *p;
		buf_fmt(&list, "%s%s", list.n ? ", " : "", (*p)->name);
	}
	if (!known && v->given) {
		snprintf(l->where, sizeof(l->where), "%s", v->origin);
		e = config_refuse(l, "providers.default names \"%s\", which is no provider of this "
		    "build; it has: %s; next: blufio config set providers.default NAME",
		    config_shown(v->text, got), buf_z(&list));
	} else if (!v->given && !usable && instance.n) {
		v->text = instance;
	} else if (!known && best) {
		v->text = str_z(best->name);
	}
	buf_free(&list);
	return e;
}

/* ---- the configuration ----------------------------------------------------- */

static enum err
config_new(struct config_loader *l)
{
	struct config *c = calloc(1, sizeof(*c));
	bool ok = c != NULL;
	size_t i;

	if (c) {
		arena_init(&c->arena, VALUES_MAX);
		c->tail = &c->values;
	}
	for (i = 0; ok && config_key_at(i); i++)
		ok = slot(c, config_key_at(i), STR_NONE) != NULL;
	l->c = c;
	return ok ? OK : fail_set(l->f, ERR_NOMEM, "configuration: out of memory");
}

void
config_free(struct config *c)
{
	struct config_value *v;

	if (!c)
		return;
	for (v = c->values; v; v = v->next)
		secret_free(&v->secret);
	arena_free(&c->arena);
	free(c);
}

enum err
config_load(struct config **out, const char *path, const char *const *env, struct fail *f)
{
	struct config_loader l = { .f = f, .env = env ? env : (const char *const *)environ };
	struct config_files files = { NULL, false, STR_NONE };
	enum err e = config_new(&l);

	if (e == OK && (e = config_locate(&l.c->arena, path, l.env, &files)) != OK)
		e = fail_set(f, e, "looking for blufio.toml: %s", err_str(e));
	if (e == OK) {
		l.c->path = files.found ? files.path : NULL;
		l.c->searched = files.searched;
	}
	if (e == OK && l.c->path)
		e = load_file(&l);
	if (e == OK)
		e = apply_env_and_defaults(&l);
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
	enum err e = config_new(&l);

	if (e == OK && toml.n > CONFIG_BYTES_MAX)
		e = fail_set(f, ERR_CONFIG, "%s: larger than %u bytes", name, CONFIG_BYTES_MAX);
	if (e == OK)
		e = load_text(&l, toml);
	if (e == OK)
		e = cross_check(&l);
	config_free(l.c);
	return e;
}

/* ---- asking it ------------------------------------------------------------- */

const char *
config_path(const struct config *c)
{
	return c->path;
}

void
config_searched(const struct config *c, struct buf *out)
{
	buf_str(out, c->searched);
}

const struct config_value *
config_values(const struct config *c)
{
	return c->values;
}

static const struct config_value *
lookup(const struct config *c, const char *key)
{
	const struct config_value *v = find(c, str_z(key));

	assert(v && "configuration key that is in no table");
	return v;
}

bool
config_has(const struct config *c, const char *key)
{
	return lookup(c, key)->given;
}

const char *
config_origin(const struct config *c, const char *key)
{
	const char *origin = lookup(c, key)->origin;

	return origin ? origin : "not set";
}

struct str
config_str(const struct config *c, const char *key)
{
	return lookup(c, key)->text;
}

const struct secret *
config_secret(const struct config *c, const char *key)
{
	const struct config_value *v = lookup(c, key);

	return v->secret.p ? &v->secret : NULL;
}

int64_t
config_i64(const struct config *c, const char *key)
{
	return lookup(c, key)->i;
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

	*ids = v->ids;
	return v->n_ids;
}

bool
config_lists(const struct config *c, const char *key, struct str word)
{
	const struct config_value *v = lookup(c, key);

	for (size_t i = 0; i < v->n_argv; i++)
		if (str_ieq(word, str_z(v->argv[i])))
			return true;
	return false;
}

const char *const *
config_argv(const struct config *c, const char *key)
{
	const struct config_value *v = lookup(c, key);

	return v->n_argv ? v->argv : NULL;
}

void
config_fixed(const struct config *now, const struct config *fresh, struct buf *names)
{
	for (const struct config_value *v = now->values; v; v = v->next) {
		const struct config_value *w = v->key->fixed ? lookup(fresh, v->key->name) : v;

		if (!str_eq(v->text, w->text) || v->i != w->i || !str_eq(secret_reveal(&v->secret), secret_reveal(&w->secret)))
			buf_fmt(names, "%s changes at the next start\n", v->key->name);
	}
}

/* The segment's own value, or the key's, which has none. */
static const struct config_value *
wild(const struct config *c, const char *key, struct str segment)
{
	const struct config_value *first = lookup(c, key), *v = first;

	while (v && !(v->key == first->key && str_eq(v->segment, segment)))
		v = v->next;
	return v ? v : first;
}

bool
config_wild(const struct config *c, const char *key, struct str segment, int64_t *v)
{
	const struct config_value *w = wild(c, key, segment);

	if (w->given)
		*v = w->i;
	return w->given;
}

struct str
config_wild_str(const struct config *c, const char *key, struct str segment)
{
	return wild(c, key, segment)->text;
}

const struct secret *
config_wild_secret(const struct config *c, const char *key, struct str segment)
{
	const struct config_value *w = wild(c, key, segment);

	return w->secret.p ? &w->secret : NULL;
}

bool
config_segment(const struct config *c, const char *key, size_t i, struct str *segment)
{
	const struct config_value *first = lookup(c, key);

	for (const struct config_value *v = first; v; v = v->next)
		if (v->key == first->key && v->given && v->segment.n && i-- == 0) {
			*segment = v->segment;
			return true;
		}
	return false;
}
