/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config_file.c - where the configuration file lies, and the bytes in it.
 *
 * A path given by name (--config, BLUFIO_CONFIG) has to be there: a daemon
 * that starts with defaults because of a misspelt path would spend money under
 * rules nobody wrote. The places of the search list need not: the first file
 * that exists wins, alone; nothing is merged.
 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/config.h"

const char *
config_env_get(const char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return (*env)[n + 1] ? *env + n + 1 : NULL;
	return NULL;
}

static bool
exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

/* Adds a place to the search list; the first that exists is the file in use. */
static void
candidate(struct config_files *cf, const char *dir, const char *rest)
{
	struct buf path = BUF_INIT(4096);

	buf_fmt(&path, "%s%s", dir, rest);
	buf_fmt(&cf->searched, "%s\n", buf_z(&path));
	if (path.err == OK && cf->path.n == 0 && exists(buf_z(&path)))
		buf_str(&cf->path, buf_view(&path));
	if (path.err != OK)
		cf->path.err = path.err;
	buf_free(&path);
}

enum err
config_locate(const char *given, const char *const *env, struct config_files *out)
{
	const char *home = config_env_get(env, "HOME");
	const char *xdg = config_env_get(env, "XDG_CONFIG_HOME");

	*out = (struct config_files){ BUF_INIT(4096), BUF_INIT(4096), BUF_INIT(16384), false };
	if (!given)
		given = config_env_get(env, "BLUFIO_CONFIG");
	if (given) {
		out->named = true;
		buf_puts(&out->path, given);
		buf_puts(&out->create, given);
		buf_fmt(&out->searched, "%s\n", given);
	} else {
		candidate(out, "", "blufio.toml");
		if (xdg && xdg[0] == '/')
			buf_fmt(&out->create, "%s/blufio/blufio.toml", xdg);
		else if (home)
			buf_fmt(&out->create, "%s/.config/blufio/blufio.toml", home);
		if (out->create.n)
			candidate(out, buf_z(&out->create), "");
		candidate(out, "/etc", "/blufio/blufio.toml");
	}
	if (out->path.err != OK)
		return out->path.err;
	return out->create.err != OK ? out->create.err : out->searched.err;
}

void
config_files_free(struct config_files *cf)
{
	buf_free(&cf->path);
	buf_free(&cf->create);
	buf_free(&cf->searched);
}

/* Reads the file in use. Says why it cannot be, which a person has to know who named it. */
enum err
config_file_read(struct config_loader *l, struct buf *text, bool *readable)
{
	const char *path = l->c->path;
	struct stat st;

	if (stat(path, &st) != 0)
		return fail_set(l->f, ERR_CONFIG, "configuration file %s: %s; next: check the path, or "
		    "make the file: blufio --config %s config set agent.name blufio", path,
		    strerror(errno), path);
	if (S_ISDIR(st.st_mode))
		return fail_set(l->f, ERR_CONFIG, "configuration file %s: it is a directory; next: "
		    "name the file in it: blufio --config %s/blufio.toml config validate", path, path);
	if (access(path, R_OK) != 0)
		return fail_set(l->f, ERR_CONFIG, "configuration file %s: %s; next: ls -l %s", path,
		    strerror(errno), path);
	if (st.st_size > (off_t)CONFIG_BYTES_MAX)
		return fail_set(l->f, ERR_CONFIG, "configuration file %s: larger than %u bytes; next: "
		    "ls -l %s", path, CONFIG_BYTES_MAX, path);
	*readable = (st.st_mode & (S_IRGRP | S_IROTH)) != 0;
	return file_read(path, CONFIG_BYTES_MAX, text, l->f);
}
