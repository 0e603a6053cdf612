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
#include <inttypes.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "core/config.h"
#include "core/core.h"

#define OUTPUT_MAX (8u << 20)

extern char **environ;                  /* POSIX: the program declares it */

static int
complain(const struct fail *f)
{
	fprintf(stderr, "blufio: %s\n", f->text);
	switch ((int)f->err) {
	case ERR_CONFIG: case ERR_PARSE: case ERR_LIMIT: case ERR_NOTFOUND: return EXIT_CONFIG;
	case ERR_IO: case ERR_FULL: case ERR_DENIED: return EXIT_IO;
	default: return EXIT_INTERNAL;
	}
}

static int
usage(void)
{
	fprintf(stderr, "usage: blufio config get KEY\n"
	    "       blufio config set KEY VALUE      VALUE - reads it from standard input\n"
	    "       blufio config validate [FILE]\n"
	    "       blufio config show [--origin]    what is in force, secrets masked\n"
	    "       blufio config keys [--markdown]  every key there is\n");
	return EXIT_USAGE;
}

/* Prints what was built, or says why not. */
static int
print(struct buf *b)
{
	struct fail f = FAIL_INIT;

	if (b->err == OK && fwrite(buf_z(b), 1, b->n, stdout) == b->n && fflush(stdout) == 0)
		return EXIT_OK;
	IGNORE(fail_set(&f, b->err != OK ? b->err : ERR_IO, "standard output: %s",
	    b->err != OK ? err_str(b->err) : strerror(errno)));
	return complain(&f);
}

/* ---- get, validate, show ------------------------------------------------------- */

static int
get(const struct command_env *env, const char *name)
{
	const struct config_key *k;
	const struct config_value *v;
	struct config *c = NULL;
	struct fail f = FAIL_INIT;
	struct buf out = BUF_INIT(OUTPUT_MAX), text = BUF_INIT(OUTPUT_MAX);
	struct str segment, value;
	size_t i;
	int code;

	if (config_key_find(str_z(name), &k, &segment, &f) != OK ||
	    config_load(&c, env->config_path, NULL, &f) != OK)
		return complain(&f);
	for (i = 0; (v = config_value_at(c, i)); i++)
		if (v->key == k && str_eq(v->segment, segment))
			break;
	if (v && v->origin) {
		config_value_put(v, false, &text);
		value = buf_view(&text);
		if (v->text.n)
			value = v->text;
		else if (value.n >= 2 && (value.p[0] == '"' || value.p[0] == '['))
			value = str_sub(value, 1, value.n - 2);
		buf_str(&out, value);
		out.err = out.err != OK ? out.err : text.err;
	} else {
		fprintf(stderr, "%s is not set; next: blufio config set %s VALUE\n", name, name);
	}
	buf_putc(&out, '\n');
	code = print(&out);
	buf_free(&out);
	buf_free(&text);
	config_free(c);
	return code;
}

static int
validate(const struct command_env *env, const char *path)
{
	const struct config_value *v;
	struct config *c = NULL;
	struct fail f = FAIL_INIT;
	struct buf out = BUF_INIT(OUTPUT_MAX);
	size_t i, n = 0;
	int code;

	if (config_load(&c, path ? path : env->config_path, NULL, &f) != OK)
		return complain(&f);
	path = config_path(c);
	for (i = 0; path && (v = config_value_at(c, i)); i++)
		n += v->given && strncmp(v->origin, path, strlen(path)) == 0;
	if (path) {
		buf_fmt(&out, "OK: %s (%zu keys)\n", path, n);
	} else {
		buf_puts(&out, "OK: no configuration file, defaults and environment are in force; "
		    "looked for:\n");
		config_searched(c, &out);
	}
	code = print(&out);
	buf_free(&out);
	config_free(c);
	return code;
}

/* The section as a header line names it: pricing."claude-x.1". */
static void
section_put(const struct config_key *k, struct str segment, struct buf *out)
{
	struct buf name = BUF_INIT(4096);
	struct str leaf, all = str_z(k->name);

	(void)config_split(all, &leaf);
	config_name(k, segment, &name);
	out->err = out->err != OK ? out->err : name.err;
	buf_str(out, str_sub(buf_view(&name), 0, name.n > leaf.n ? name.n - leaf.n - 1 : 0));
	buf_free(&name);
}

static bool
same_section(const struct config_value *a, const struct config_value *b)
{
	struct str leaf;

	return str_eq(a->segment, b->segment) &&
	    str_eq(config_split(str_z(a->key->name), &leaf), config_split(str_z(b->key->name), &leaf));
}

static bool
first_of_section(const struct config *c, size_t i)
{
	const struct config_value *v = config_value_at(c, i);
	size_t k;

	for (k = 0; k < i; k++)
		if (same_section(config_value_at(c, k), v))
			return false;
	return true;
}

static void
show_section(const struct config *c, size_t i, bool origin, struct buf *out)
{
	const struct config_value *head = config_value_at(c, i), *v;
	struct str leaf;
	bool begun = false;

	for (; (v = config_value_at(c, i)); i++) {
		if (!v->origin || !same_section(v, head))
			continue;
		if (!begun) {
			buf_puts(out, out->n ? "\n[" : "[");
			section_put(v->key, v->segment, out);
			buf_puts(out, "]\n");
			begun = true;
		}
		(void)config_split(str_z(v->key->name), &leaf);
		buf_fmt(out, "%.*s = ", STR_ARG(leaf));
		config_value_put(v, false, out);
		buf_fmt(out, "%s%s\n", origin ? "  # " : "", origin ? v->origin : "");
	}
}

static int
show(const struct command_env *env, bool origin)
{
	struct config *c = NULL;
	struct fail f = FAIL_INIT;
	struct buf out = BUF_INIT(OUTPUT_MAX);
	size_t i;
	int code;

	if (config_load(&c, env->config_path, NULL, &f) != OK)
		return complain(&f);
	for (i = 0; config_value_at(c, i); i++)
		if (first_of_section(c, i))
			show_section(c, i, origin, &out);
	code = print(&out);
	buf_free(&out);
	config_free(c);
	return code;
}

/* ---- keys -------------------------------------------------------------------------- */

static const char *
type_name(enum config_type t)
{
	switch (t) {
	case CONFIG_STRING: return "string";
	case CONFIG_SECRET: return "secret";
	case CONFIG_PATH: return "path";
	case CONFIG_INT: return "integer";
	case CONFIG_BOOL: return "boolean";
	case CONFIG_ENUM: return "choice";
	case CONFIG_USD: return "dollars";
	case CONFIG_SECONDS: return "seconds";
	case CONFIG_IDS: return "list of ids";
	case CONFIG_URL: return "URL";
	}
	UNREACHABLE();
}

static void
row(const struct config_key *k, struct buf *out)
{
	struct str leaf;

	(void)config_split(str_z(k->name), &leaf);
	buf_fmt(out, "| `%.*s` | %s | %s", STR_ARG(leaf), type_name(k->type), k->dflt ? "`" : "");
	if (k->dflt)
		config_default_put(k, out);
	buf_puts(out, k->dflt ? "` | " : " | ");
	config_want(k, out);
	buf_fmt(out, " | %s%s%s%s |\n", k->help ? k->help : "",
	    k->env ? " The variable `" : "", k->env ? k->env : "", k->env ? "` sets it, too." : "");
}

static bool
first_key_of_section(size_t i)
{
	struct str leaf, section = config_split(str_z(config_key_at(i)->name), &leaf);
	size_t k;

	for (k = 0; k < i; k++)
		if (str_eq(section, config_split(str_z(config_key_at(k)->name), &leaf)))
			return false;
	return true;
}

static void
markdown(struct buf *out)
{
	const struct config_key *k;
	struct str leaf, section;
	size_t i, j;

	buf_puts(out, "# Configuration\n\n"
	    "Made by `blufio config keys --markdown`; do not edit.\n\n"
	    "One TOML file. The first of these that exists is used, alone: the path given with\n"
	    "`--config`, the path in `BLUFIO_CONFIG`, `./blufio.toml`,\n"
	    "`$XDG_CONFIG_HOME/blufio/blufio.toml` (or `~/.config/blufio/blufio.toml`),\n"
	    "`/etc/blufio/blufio.toml`. None is needed: every key has a default or may stay unset.\n\n"
	    "A variable `BLUFIO__SECTION__KEY` (as `BLUFIO__COST__DAILY_BUDGET_USD`) wins over the\n"
	    "file; the file wins over a key's plain variable; an empty variable counts as unset.\n"
	    "A relative path in the file starts at the file's directory; `~/` is your home.\n\n"
	    "`blufio config set KEY VALUE` changes one value and keeps the rest of the file,\n"
	    "`blufio config show --origin` prints what is in force and where it comes from,\n"
	    "`blufio config validate` checks. An unknown key is an error.\n");
	for (i = 0; (k = config_key_at(i)); i++) {
		if (!first_key_of_section(i))
			continue;
		section = config_split(str_z(k->name), &leaf);
		buf_puts(out, "\n## [");
		section_put(k, config_is_wild(k) ? S("model.id") : STR_NONE, out);
		buf_puts(out, "]\n\n| key | type | default | value | meaning |\n|---|---|---|---|---|\n");
		for (j = i; (k = config_key_at(j)); j++)
			if (str_eq(section, config_split(str_z(k->name), &leaf)) && !k->retired)
				row(k, out);
	}
	for (i = j = 0; (k = config_key_at(i)); i++)
		if (k->retired)
			buf_fmt(out, "%s- `%s`: %s\n", j++ ? "" : "\n## Keys of earlier releases\n\n",
			    k->name, k->retired);
}

static int
keys(bool as_markdown)
{
	struct buf out = BUF_INIT(OUTPUT_MAX);
	const struct config_key *k;
	size_t i;
	int code;

	for (i = 0; !as_markdown && (k = config_key_at(i)); i++) {
		if (k->retired)
			continue;
		buf_fmt(&out, "%-28s %-12s ", k->name, type_name(k->type));
		if (k->dflt)
			config_default_put(k, &out);
		buf_putc(&out, '\n');
	}
	if (as_markdown)
		markdown(&out);
	code = print(&out);
	buf_free(&out);
	return code;
}

/* ---- set ----------------------------------------------------------------------------- */

/* Standard input to its end; on a terminal one line, unseen when it is a secret. */
static enum err
read_value(const struct config_key *k, struct buf *out, struct fail *f)
{
	struct termios seen, unseen;
	bool tty = tcgetattr(STDIN_FILENO, &seen) == 0;
	char *room;
	ssize_t n;

	if (tty) {
		fprintf(stderr, "%s: ", k->name);
		unseen = seen;
		unseen.c_lflag &= ~(tcflag_t)ECHO;
		if (k->type == CONFIG_SECRET && tcsetattr(STDIN_FILENO, TCSAFLUSH, &unseen) != 0)
			return fail_set(f, ERR_IO, "terminal: %s", strerror(errno));
	}
	while ((room = buf_room(out, 4096))) {
		n = read(STDIN_FILENO, room, 4096);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		out->n += (size_t)n;
		if (tty && out->p[out->n - 1] == '\n')
			break;
	}
	if (tty && k->type == CONFIG_SECRET) {
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &seen);
		fputc('\n', stderr);
	}
	if (!room)
		return fail_set(f, out->err, "standard input: %s", err_str(out->err));
	if (n < 0)
		return fail_set(f, ERR_IO, "standard input: %s", strerror(errno));
	if (out->n && out->p[out->n - 1] == '\n')
		buf_cut(out, out->n - 1);
	if (out->n && out->p[out->n - 1] == '\r')
		buf_cut(out, out->n - 1);
	return OK;
}

/* Writes the edited text where it was read from, or where a first file belongs. */
static enum err
write_file(const char *path, struct str text, bool fresh, struct fail *f)
{
	const char *slash = strrchr(path, '/');
	struct buf dir = BUF_INIT(4096);
	enum err e = OK;

	if (fresh && slash && slash != path) {
		buf_put(&dir, path, (size_t)(slash - path));
		e = dir.err == OK ? file_mkdirs(buf_z(&dir), 0700, f) :
		    fail_set(f, dir.err, "%s: %s", path, err_str(dir.err));
	}
	if (e == OK)
		e = file_replace(path, text, 0600, f);
	buf_free(&dir);
	return e;
}

static bool
daemon_runs(const struct command_env *env)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct config *c = NULL;
	bool runs = false;
	int fd;

	if (config_load(&c, env->config_path, NULL, NULL) != OK)
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd >= 0 && control_socket_path(config_str(c, "storage.database_path").p, sa.sun_path,
	    sizeof(sa.sun_path), NULL) == OK)
		runs = connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0;
	if (fd >= 0)
		close(fd);
	config_free(c);
	return runs;
}

struct change {                         /* one `config set` */
	const struct config_key *key;
	struct str segment, old;
	struct config_files files;
	struct buf name, value, toml, before, after;
	const char *path;
};

static enum err
change_file(struct change *ch, const struct command_env *env, struct fail *f)
{
	struct stat st;
	enum err e;

	config_name(ch->key, ch->segment, &ch->name);
	e = config_value_text(ch->key, ch->segment, buf_view(&ch->value), &ch->toml, f);
	if (e == OK && (e = config_locate(env->config_path, (const char *const *)environ,
	    &ch->files)) != OK)
		e = fail_set(f, e, "looking for blufio.toml: %s", err_str(e));
	if (e != OK)
		return e;
	ch->path = buf_z(ch->files.path.n ? &ch->files.path : &ch->files.create);
	if (!*ch->path)
		return fail_set(f, ERR_CONFIG, "there is no configuration file and HOME is not set; "
		    "next: blufio --config FILE config set %s VALUE", buf_z(&ch->name));
	if (stat(ch->path, &st) == 0)
		e = file_read(ch->path, CONFIG_BYTES_MAX, &ch->before, f);
	if (e == OK)
		e = config_edit(buf_view(&ch->before), ch->path, ch->key, ch->segment,
		    buf_view(&ch->toml), &ch->after, &ch->old, f);
	if (e == OK)
		e = config_check(buf_view(&ch->after), ch->path, f);
	if (e == OK)
		e = write_file(ch->path, buf_view(&ch->after), ch->before.n == 0, f);
	return e;
}

static int
tell(struct change *ch, const struct command_env *env, bool typed)
{
	bool secret = ch->key->type == CONFIG_SECRET;
	struct buf out = BUF_INIT(OUTPUT_MAX);
	char var[128];
	int code;

	buf_fmt(&out, "%s = %s (was ", buf_z(&ch->name), secret ? "***" : buf_z(&ch->toml));
	if (ch->old.n)
		buf_str(&out, secret ? S("***") : ch->old);
	else
		buf_puts(&out, ch->key->dflt ? "the default " : "not set");
	if (!ch->old.n && ch->key->dflt)
		config_default_put(ch->key, &out);
	buf_fmt(&out, ") in %s\n", ch->path);
	if (daemon_runs(env))
		buf_puts(&out, "next: `blufio reload` makes the running daemon use it\n");
	code = print(&out);
	config_env_name(ch->key, var);
	if (config_env_get((const char *const *)environ, var))
		fprintf(stderr, "note: the environment variable %s is set and wins over the file\n", var);
	if (secret && typed)
		fprintf(stderr, "note: the shell's history may keep what was typed; next time: "
		    "blufio config set %s -\n", ch->key->name);
	buf_free(&out);
	return code;
}

static void
forget(struct buf *b)
{
	if (b->p)
		secret_wipe(b->p, b->cap);
	buf_free(b);
}

static int
set(const struct command_env *env, const char *name, const char *value)
{
	struct change ch = { .files = { BUF_INIT(0), BUF_INIT(0), BUF_INIT(0), false },
	    .name = BUF_INIT(4096), .value = BUF_INIT(CONFIG_BYTES_MAX),
	    .toml = BUF_INIT(8 * CONFIG_BYTES_MAX), .before = BUF_INIT(CONFIG_BYTES_MAX),
	    .after = BUF_INIT(8 * CONFIG_BYTES_MAX) };
	bool typed = strcmp(value, "-") != 0;
	struct fail f = FAIL_INIT;
	enum err e = config_key_find(str_z(name), &ch.key, &ch.segment, &f);
	int code;

	if (e == OK && typed)
		buf_puts(&ch.value, value);
	else if (e == OK)
		e = read_value(ch.key, &ch.value, &f);
	if (e == OK && ch.value.err != OK)
		e = fail_set(&f, ch.value.err, "%s: %s", name, err_str(ch.value.err));
	if (e == OK)
		e = change_file(&ch, env, &f);
	code = e == OK ? tell(&ch, env, typed) : complain(&f);
	config_files_free(&ch.files);
	buf_free(&ch.name);
	forget(&ch.value);
	forget(&ch.toml);
	forget(&ch.before);
	forget(&ch.after);
	return code;
}

int
cmd_config(const struct command_env *env, int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "", *arg = argc > 2 ? argv[2] : NULL;

	if (env->json) {
		fprintf(stderr, "blufio: config has no --json\n");
		return EXIT_USAGE;
	}
	if (strcmp(what, "get") == 0 && argc == 3)
		return get(env, arg);
	if (strcmp(what, "set") == 0 && argc == 4)
		return set(env, arg, argv[3]);
	if (strcmp(what, "validate") == 0 && argc <= 3)
		return validate(env, arg);
	if (strcmp(what, "show") == 0 && (argc == 2 || (argc == 3 && strcmp(arg, "--origin") == 0)))
		return show(env, argc == 3);
	if (strcmp(what, "keys") == 0 && (argc == 2 || (argc == 3 && strcmp(arg, "--markdown") == 0)))
		return keys(argc == 3);
	return usage();
}
