/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cmd_config.c - blufio config get|set|validate|show|keys.
 *
 * Everything that is printed comes from the keys' table and the one way values
 * are written (config_value_put), so what `show` prints can be pasted into a
 * file, and docs/CONFIG.md is what `keys --markdown` says. A secret leaves only
 * as "***".
 *
 * `set` never leaves a file that the daemon would refuse: the value is checked
 * by its type, the edited text as a whole, and only then is the file replaced
 * (atomically, keeping mode and owner). The daemon is not told: what it runs
 * with changes at `blufio reload`, when the person says so.
 */
#include <errno.h>
#include <termios.h>
#include <unistd.h>

#include "core/config.h"
#include "core/core.h"

#define OUTPUT_MAX (8u << 20)

extern char **environ;                  /* POSIX: the program declares it */

struct job {                            /* one command: what it has, what it prints or why not */
	const struct command_env *env;
	struct config *c;               /* loaded by those that need it */
	struct buf out;
	struct fail f;
};

static enum err
load(struct job *j, const char *path)
{
	return config_load(&j->c, path ? path : j->env->config_path, NULL, &j->f);
}

/* The value of a key as loaded; NULL when it has none. */
static const struct config_value *
value_of(const struct job *j, const struct config_key *k, struct str segment)
{
	const struct config_value *v = config_values(j->c);

	while (v && !(v->key == k && str_eq(v->segment, segment)))
		v = v->next;
	return v && v->origin ? v : NULL;
}

static enum err
get(struct job *j, const char *name)
{
	const struct config_key *k;
	const struct config_value *v;
	struct str segment;
	enum err e = config_key_find(str_z(name), &k, &segment, &j->f);

	if (e == OK)
		e = load(j, NULL);
	if (e != OK)
		return e;
	v = value_of(j, k, segment);
	if (v)
		config_value_plain(v, &j->out);
	else
		fprintf(stderr, "%s is not set; next: blufio config set %s VALUE\n", name, name);
	buf_putc(&j->out, '\n');
	return OK;
}

static enum err
validate(struct job *j, const char *path)
{
	const struct config_value *v;
	size_t n = 0;
	enum err e = load(j, path);

	if (e == OK)
		e = providers_check(j->c, &j->f);
	if (e != OK)
		return e;
	path = config_path(j->c);
	if (path) {
		for (v = config_values(j->c); v; v = v->next)
			n += v->given && str_starts(str_z(v->origin), str_z(path));
		buf_fmt(&j->out, "OK: %s (%zu keys)\n", path, n);
	} else {
		buf_puts(&j->out, "OK: no configuration file, defaults and environment are in "
		    "force; looked for:\n");
		config_searched(j->c, &j->out);
	}
	return OK;
}

/* ---- show, keys: what belongs to one section stands together in both lists ---------- */

/* Is the section of (k, segment) another one than *section, which then becomes it? */
static bool
enter(const struct config_key *k, struct str segment, struct buf *section)
{
	struct buf now = BUF_INIT(CONFIG_BYTES_MAX);
	struct str segs[CONFIG_SEGMENTS_MAX];
	bool other;

	config_join(segs, config_segments(k, segment, segs) - 1, &now);
	other = !str_eq(buf_view(&now), buf_view(section));
	buf_free(section);
	*section = now;
	return other;
}

static enum err
show(struct job *j, bool origin)
{
	struct buf section = BUF_INIT(0);
	const struct config_value *v;
	struct str leaf;
	enum err e = load(j, NULL);

	for (v = e == OK ? config_values(j->c) : NULL; v; v = v->next) {
		if (!v->origin)
			continue;
		if (enter(v->key, v->segment, &section))
			buf_fmt(&j->out, "%s[%s]\n", j->out.n ? "\n" : "", buf_z(&section));
		(void)config_split(str_z(v->key->name), &leaf);
		buf_fmt(&j->out, "%.*s = ", STR_ARG(leaf));
		config_value_put(v, false, &j->out);
		buf_fmt(&j->out, "%s%s\n", origin ? "  # " : "", origin ? v->origin : "");
	}
	buf_free(&section);
	return e;
}

static const char intro[] = "# Configuration\n\n"
    "Made by `blufio config keys --markdown`; do not edit.\n\n"
    "One TOML file. The first of these that exists is used, alone: the path given with\n"
    "`--config`, the path in `BLUFIO_CONFIG`, `./blufio.toml`,\n"
    "`$XDG_CONFIG_HOME/blufio/blufio.toml` (or `~/.config/blufio/blufio.toml`),\n"
    "`/etc/blufio/blufio.toml`. None is needed: every key has a default or may stay unset.\n\n"
    "A variable `BLUFIO__SECTION__KEY` (as `BLUFIO__COST__DAILY_BUDGET_USD`, or\n"
    "`BLUFIO__PROVIDERS__GROQ__API_KEY` for `[providers.groq]`) wins over the file; the file wins\n"
    "over a key's plain variable; an empty variable counts as unset.\n"
    "A relative path in the file starts at the file's directory; `~/` is your home.\n\n"
    "`blufio config set KEY VALUE` changes one value and keeps the rest of the file,\n"
    "`blufio config show --origin` prints what is in force and where it comes from,\n"
    "`blufio config validate` checks. An unknown key is an error.\n";

static void
markdown_row(const struct config_key *k, struct buf *section, struct buf *out)
{
	struct str leaf;

	(void)config_split(str_z(k->name), &leaf);
	if (enter(k, str_starts(str_z(k->name), S("pricing.")) ? S("model.id") : S("NAME"), section))
		buf_fmt(out, "\n## [%s]\n\n| key | type | default | value | meaning |\n"
		    "|---|---|---|---|---|\n", buf_z(section));
	buf_fmt(out, "| `%.*s` | %s | %s", STR_ARG(leaf), config_type_name(k), k->dflt ? "`" : "");
	if (k->dflt)
		config_default_put(k, out);
	buf_puts(out, k->dflt ? "` | " : " | ");
	config_want(k, out);
	buf_fmt(out, " | %s", k->help);
	if (k->env)
		buf_fmt(out, " The variable `%s` sets it, too.", k->env);
	buf_puts(out, k->fixed ? " Changes at the next start." : "");
	buf_puts(out, " |\n");
}

static enum err
keys(struct job *j, bool markdown)
{
	struct buf section = BUF_INIT(0);
	const struct config_key *k;
	size_t i;

	buf_puts(&j->out, markdown ? intro : "");
	for (i = 0; (k = config_key_at(i)); i++) {
		if (k->retired)
			continue;
		if (markdown) {
			markdown_row(k, &section, &j->out);
			continue;
		}
		buf_fmt(&j->out, "%-28s %-12s ", k->name, config_type_name(k));
		if (k->dflt)
			config_default_put(k, &j->out);
		buf_putc(&j->out, '\n');
	}
	buf_free(&section);
	return OK;
}

/* ---- set ----------------------------------------------------------------------------- */

struct change {
	const struct config_key *key;
	struct str segment, old;
	struct arena ar;
	struct config_files file;
	struct buf name, value, toml, before, after;
};

/* Standard input to its end; on a terminal one line, unseen when it is a secret. */
static enum err
read_value(const struct config_key *k, struct buf *out, struct fail *f)
{
	struct termios seen, unseen;
	bool tty = tcgetattr(STDIN_FILENO, &seen) == 0, hide = tty && k->type == CONFIG_SECRET;
	int c;

	if (tty)
		fprintf(stderr, "%s: ", k->name);
	if (hide) {
		unseen = seen;
		unseen.c_lflag &= ~(tcflag_t)ECHO;
		if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &unseen) != 0)
			return fail_set(f, ERR_IO, "terminal: %s", strerror(errno));
	}
	while ((c = getchar()) != EOF && !(tty && c == '\n'))
		buf_putc(out, (char)c);
	if (hide) {
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &seen);
		fputc('\n', stderr);
	}
	if (ferror(stdin))
		return fail_set(f, ERR_IO, "standard input: %s", strerror(errno));
	while (out->n && (out->p[out->n - 1] == '\n' || out->p[out->n - 1] == '\r'))
		buf_cut(out, out->n - 1);
	if (out->n == 0 && k->type == CONFIG_SECRET)
		return fail_set(f, ERR_CONFIG, "standard input: no value for %s came; nothing was changed;"
		    " next: `blufio config set %s -` and type or pipe it", k->name, k->name);
	return OK;
}

static enum err
change_file(struct change *ch, const struct command_env *env, struct fail *f)
{
	const char *path, *slash;
	enum err e = config_value_text(ch->key, ch->segment, buf_view(&ch->value), &ch->toml, f);

	if (e != OK)
		return e;
	config_name(ch->key, ch->segment, &ch->name);
	e = config_locate(&ch->ar, env->config_path, (const char *const *)environ, &ch->file);
	if (e != OK)
		return fail_set(f, e, "looking for blufio.toml: %s", err_str(e));
	path = ch->file.path;
	slash = strrchr(path, '/');
	if (!*path)
		return fail_set(f, ERR_CONFIG, "there is no configuration file and HOME is not "
		    "set; next: blufio --config FILE config set %s VALUE", buf_z(&ch->name));
	if (access(path, F_OK) == 0)
		e = config_read(path, &ch->before, f);
	else if (slash && slash != path)
		e = file_mkdirs(arena_z(&ch->ar, str_make(path, (size_t)(slash - path))), 0700, f);
	if (e == OK)
		e = config_edit(buf_view(&ch->before), path, ch->key, ch->segment,
		    buf_view(&ch->toml), &ch->after, &ch->old, f);
	if (e == OK)
		e = config_check(buf_view(&ch->after), path, f);
	return e == OK ? file_replace(path, buf_view(&ch->after), 0600, f) : e;
}

static void
tell(struct change *ch, struct job *j, bool typed)
{
	bool secret = ch->key->type == CONFIG_SECRET;
	const struct config_value *v;
	int fd;

	buf_fmt(&j->out, "%s = %s (was ", buf_z(&ch->name), secret ? "***" : buf_z(&ch->toml));
	if (ch->old.n)
		buf_str(&j->out, secret ? S("***") : ch->old);
	else
		buf_puts(&j->out, ch->key->dflt ? "the default " : "not set");
	if (!ch->old.n && ch->key->dflt)
		config_default_put(ch->key, &j->out);
	buf_fmt(&j->out, ") in %s\n", ch->file.path);
	if (secret && typed)
		fprintf(stderr, "note: the shell's history may keep what was typed; next time: "
		    "blufio config set %s -\n", ch->key->name);
	if (config_load(&j->c, j->env->config_path, NULL, NULL) != OK)
		return;                 /* some variable is wrong: its own command will say so */
	v = value_of(j, ch->key, ch->segment);
	if (v && str_starts(str_z(v->origin), S("BLUFIO__")))
		fprintf(stderr, "note: the environment variable %s is set and wins over the file\n",
		    v->origin);
	if (client_connect(j->c, &fd, NULL) == OK) {
		close(fd);
		buf_puts(&j->out, "next: `blufio reload` makes the running daemon use it\n");
	}
}

static enum err
set(struct job *j, const char *name, const char *value)
{
	struct change ch = { .ar = ARENA_INIT(65536), .name = BUF_INIT(4096),
	    .value = BUF_INIT(CONFIG_BYTES_MAX), .toml = BUF_INIT(8 * CONFIG_BYTES_MAX),
	    .before = BUF_INIT(CONFIG_BYTES_MAX), .after = BUF_INIT(8 * CONFIG_BYTES_MAX) };
	struct buf *texts[] = { &ch.name, &ch.value, &ch.toml, &ch.before, &ch.after };
	bool typed = strcmp(value, "-") != 0;
	enum err e = config_key_find(str_z(name), &ch.key, &ch.segment, &j->f);
	size_t i;

	if (e == OK && typed)
		buf_puts(&ch.value, value);
	else if (e == OK)
		e = read_value(ch.key, &ch.value, &j->f);
	if (e == OK && ch.value.err != OK)
		e = fail_set(&j->f, ch.value.err, "%s: %s", name, err_str(ch.value.err));
	if (e == OK)
		e = change_file(&ch, j->env, &j->f);
	if (e == OK)
		tell(&ch, j, typed);
	for (i = 0; i < ARRAY_LEN(texts); i++) {        /* they may hold a secret */
		if (texts[i]->p)
			secret_wipe(texts[i]->p, texts[i]->cap);
		buf_free(texts[i]);
	}
	arena_free(&ch.ar);
	return e;
}

int
cmd_config(const struct command_env *env, int argc, char **argv)
{
	struct job j = { .env = env, .out = BUF_INIT(OUTPUT_MAX), .f = FAIL_INIT };
	const char *what = argc > 1 ? argv[1] : "", *arg = argc > 2 ? argv[2] : NULL;
	bool one = argc == 3;
	int code = EXIT_OK;
	enum err e;

	if (env->json) {
		fprintf(stderr, "blufio: config has no --json; next: `blufio config show`\n");
		return EXIT_USAGE;
	}
	if (strcmp(what, "get") == 0 && one)
		e = get(&j, arg);
	else if (strcmp(what, "set") == 0 && argc == 4)
		e = set(&j, arg, argv[3]);
	else if (strcmp(what, "validate") == 0 && argc <= 3)
		e = validate(&j, arg);
	else if (strcmp(what, "show") == 0 && (!arg || (one && strcmp(arg, "--origin") == 0)))
		e = show(&j, arg != NULL);
	else if (strcmp(what, "keys") == 0 && (!arg || (one && strcmp(arg, "--markdown") == 0)))
		e = keys(&j, arg != NULL);
	else
		return command_usage("config get KEY\n"
		    "       blufio config set KEY VALUE      VALUE - reads it from standard input\n"
		    "       blufio config validate [FILE]\n"
		    "       blufio config show [--origin]    what is in force, secrets masked\n"
		    "       blufio config keys [--markdown]  every key there is");
	if (e == OK && j.out.err != OK)
		e = fail_set(&j.f, j.out.err, "standard output: %s", err_str(j.out.err));
	if (e == OK && (fputs(buf_z(&j.out), stdout) == EOF || fflush(stdout) != 0))
		e = fail_set(&j.f, ERR_IO, "standard output: %s", strerror(errno));
	if (e != OK)
		code = command_failed(&j.f);
	if (e == ERR_NOTFOUND || e == ERR_LIMIT)
		code = EXIT_CONFIG;     /* of the file; no daemon is missing, no bug was found */
	buf_free(&j.out);
	config_free(j.c);
	return code;
}
