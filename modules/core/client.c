/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * client.c - the command line's end of the control socket, and what every
 * command does on failure: one line that says what, where and what to type
 * next, and a documented exit code.
 */
#include "core.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENT_US (10 * US_PER_S)       /* a daemon that does not answer this long is told as such */
#define ANSWER_MAX (16u << 20)

int
command_failed(const struct fail *f)
{
	fprintf(stderr, "blufio: %s\n", f->text[0] ? f->text : err_str(f->err));
	switch (f->err) {
	case ERR_CONFIG: case ERR_UNSUPPORTED: case ERR_PARSE:
		return EXIT_CONFIG;
	case ERR_NOTFOUND: case ERR_CLOSED:
		return EXIT_NOT_RUNNING;
	case ERR_IO: case ERR_FULL: case ERR_BUSY: case ERR_DENIED: case ERR_CORRUPT: case ERR_TIMEOUT:
	case ERR_EXISTS:
		return EXIT_IO;
	case OK: case ERR_NOMEM: case ERR_LIMIT: case ERR_PROTO: case ERR_AUTH: case ERR_CANCELLED:
	case ERR_COUNT:
		break;
	}
	return EXIT_INTERNAL;
}

int
command_usage(const char *text)
{
	fprintf(stderr, "usage: blufio %s\n", text);
	return EXIT_USAGE;
}

int
command_config(const struct command_env *env, enum log_level level, struct config **out)
{
	struct fail f = FAIL_INIT;

	if (log_open(level, LOG_TEXT, NULL, &f) != OK || config_load(out, env->config_path, NULL, &f) != OK) {
		int code = command_failed(&f);

		return f.err == ERR_NOTFOUND ? EXIT_CONFIG : code;
	}
	return EXIT_OK;
}

FALLIBLE
client_connect(const struct config *c, int *fd, struct fail *f)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	const char *db = config_str(c, "storage.database_path").p;
	enum err e = control_socket_path(db, sun.sun_path, sizeof(sun.sun_path), f);
	int s;

	if (e != OK)
		return e;
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (s < 0 || fd_cloexec(s) != OK) {
		if (s >= 0)
			close(s);
		return fail_set(f, ERR_IO, "cannot make a socket: %s", strerror(errno));
	}
	if (connect(s, (const struct sockaddr *)(const void *)&sun, sizeof(sun)) != 0) {
		e = errno == ENOENT || errno == ECONNREFUSED ? ERR_NOTFOUND : ERR_IO;
		e = fail_set(f, e, e == ERR_NOTFOUND ? "no daemon is running on %s; next: `blufio serve`"
		    : "%s.sock: cannot connect to the daemon; next: run this as the daemon's user", db);
		close(s);
		return e;
	}
	*fd = s;
	return OK;
}

static enum err
read_line(int fd, struct buf *b)
{
	int64_t until = clock_mono_us() + CLIENT_US;

	while (str_chr(buf_view(b), '\n') == SIZE_MAX) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = until - clock_mono_us();
		char *room = buf_room(b, 16384);
		ssize_t n;

		if (room == NULL)
			return ERR_NOMEM;
		if (left <= 0)
			return ERR_TIMEOUT;
		if (poll(&p, 1, (int)(left / 1000 + 1)) <= 0)
			continue;
		n = read(fd, room, 16384);
		if (n == 0)
			return ERR_CLOSED;
		if (n < 0 && errno != EINTR)
			return ERR_IO;
		if (n > 0)
			b->n += (size_t)n;
	}
	buf_cut(b, str_chr(buf_view(b), '\n'));
	return OK;
}

FALLIBLE
client_request(int fd, struct str line, struct arena *ar, const struct json **answer, struct fail *f)
{
	struct buf b = BUF_INIT(ANSWER_MAX);
	enum err e = fd_write_all(fd, line.p, line.n);

	if (e == OK)
		e = fd_write_all(fd, "\n", 1);
	if (e == OK)
		e = read_line(fd, &b);
	if (e == OK)
		e = json_parse(ar, arena_str(ar, buf_view(&b)), answer, NULL);
	buf_free(&b);
	if (e != OK)
		return fail_set(f, e, "the daemon did not answer (%s); next: look at its log, or `blufio status`"
		    " again in a moment", err_str(e));
	if (!json_bool(*answer, "ok", false))
		return fail_set(f, ERR_DENIED, "%.*s", STR_ARG(json_str(*answer, "error", S("the daemon refused"))));
	return OK;
}
