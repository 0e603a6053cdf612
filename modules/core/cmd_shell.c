/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cmd_shell.c - the terminal chat.
 *
 * One user interface, one protocol (control.c): connected to the daemon when one
 * runs on this database, else to the same agent code started inside this process
 * under the database lock, over a socket pair. With nothing configured it uses
 * the offline echo provider, says so, and keeps that talk in a chat of its own.
 *
 * On a terminal lines are edited and answers stream above the prompt; from a
 * pipe each line is one message, sent when the one before is answered, and only
 * answers are printed.
 */
#include "core.h"
#include "lineedit.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_MAX (MESSAGE_MAX + 4096u)
#define ANSWERS_MAX (16u << 20)
#define OPEN_MAX 64                     /* messages waited for at once; only a terminal has more than one */
#define ID_SIZE 32                      /* 12 random bytes in hex, and room */
#define LAST_TURNS 100                  /* loop turns of at most 10 ms before leaving */

struct shell {
	struct ev *ev;
	int fd;                         /* to the agent */
	int in_fd;
	bool tty, eof, failed, quitting;
	bool in_watched;
	struct lineedit *le;            /* NULL when not on a terminal */
	struct buf lines;               /* input not yet sent (pipe) */
	struct buf answers;             /* bytes from the agent */
	struct buf requests;            /* bytes to the agent that its socket had no room for */
	struct buf shown;               /* text of the running turn on the screen */
	int64_t turn;
	char open[OPEN_MAX][ID_SIZE];   /* ids of messages whose answer has not come */
	size_t n_open;
	bool plain;                     /* input is a regular file: always ready, not watchable */
	bool skip;                      /* the rest of a line that was too long */
	struct ev_defer more;           /* reads on from a regular file */
	const char *label;              /* prompt */
};

/* ---- printing --------------------------------------------------------------------------- */

static void
out(struct str s)
{
	if (s.n)
		fwrite(s.p, 1, s.n, stdout);
	fflush(stdout);
}

/* Control characters of what a model wrote may not move the cursor about: neither C0 nor C1
 * (U+0080 to U+009F, in UTF-8 C2 80 to C2 9F). */
static void
print_text(FILE *to, struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i], next = i + 1 < s.n ? (unsigned char)s.p[i + 1] : 0;

		if (c == 0xC2 && next >= 0x80 && next < 0xA0)
			i++;
		else if ((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t')
			putc(c, to);
	}
	fflush(to);
}

static void
out_text(struct str s)
{
	print_text(stdout, s);
}

static void
prompt(struct shell *sh)
{
	if (sh->le && !sh->quitting && lineedit_prompt(sh->le, sh->label) != OK)
		sh->failed = true;
}

static void on_stdin(void *arg, int fd, unsigned events);

static void
watch_input(struct shell *sh, bool on)
{
	if (on && sh->plain)
		ev_defer(sh->ev, &sh->more);
	if (on == sh->in_watched || sh->plain)
		return;
	sh->in_watched = on;
	if (!on) {
		ev_fd_del(sh->ev, sh->in_fd);
	} else if (ev_fd_set(sh->ev, sh->in_fd, EV_READ, on_stdin, sh) != OK) {
		sh->plain = true;       /* epoll refuses regular files; reading them never waits */
		sh->in_watched = false;
		ev_defer(sh->ev, &sh->more);
	}
}

static void
read_more(void *arg)
{
	struct shell *sh = arg;

	on_stdin(sh, sh->in_fd, EV_READ);
}

/* The message of this id is answered or refused; false when it is none of ours. */
static bool
close_id(struct shell *sh, struct str id)
{
	for (size_t i = 0; i < sh->n_open; i++)
		if (str_eqz(id, sh->open[i])) {
			memmove(sh->open[i], sh->open[i + 1], (--sh->n_open - i) * ID_SIZE);
			return true;
		}
	return false;
}

/* ---- to the agent ----------------------------------------------------------------------------- */

static void on_agent(void *arg, int fd, unsigned events);

/* Never waits: inside one process it is this very thread that reads the other end. */
static void
flush(struct shell *sh)
{
	ssize_t n = 1;

	while (n > 0 && sh->requests.n) {
		n = write(sh->fd, sh->requests.p, sh->requests.n);
		if (n > 0)
			buf_drop(&sh->requests, (size_t)n);
		else if (n < 0 && errno == EINTR)
			n = 1;
	}
	if ((n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) || ev_fd_set(sh->ev, sh->fd,
	    EV_READ | (sh->requests.n ? EV_WRITE : 0u), on_agent, sh) != OK) {
		sh->failed = true;
		ev_stop(sh->ev);
	}
}

static void
request(struct shell *sh, const char *cmd, struct str id, struct str text, int64_t item)
{
	struct buf b = BUF_INIT(INPUT_MAX * 2);
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kz(&w, "cmd", cmd);
	if (id.n) {
		jw_kstr(&w, "id", id);
		jw_kstr(&w, "text", text);
	}
	if (item)
		jw_ki64(&w, "item", item);
	jw_end_obj(&w);
	buf_putc(&b, '\n');
	buf_str(&sh->requests, buf_view(&b));
	if (b.err != OK || sh->requests.err != OK) {
		sh->failed = true;
		ev_stop(sh->ev);
	} else {
		flush(sh);
	}
	buf_free(&b);
}

static void
send_message(struct shell *sh, struct str text)
{
	struct buf id = BUF_INIT(64);
	unsigned char r[12];

	if (rand_bytes(r, sizeof(r)) != OK) {
		sh->failed = true;
		return;
	}
	enc_hex(&id, r, sizeof(r));
	snprintf(sh->open[sh->n_open++], ID_SIZE, "%s", buf_z(&id));
	request(sh, "message", buf_view(&id), text, 0);
	buf_free(&id);
}

static void
finish_if_over(struct shell *sh)
{
	if (sh->n_open == 0 && (sh->quitting || (sh->eof && sh->lines.n == 0)))
		ev_stop(sh->ev);
}

/* One line of the person: a local word, or a message. */
static void
say(struct shell *sh, struct str line)
{
	struct buf clean = BUF_INIT(INPUT_MAX * 3);

	line = str_trim(line);
	if (str_eqz(line, "/quit") || str_eqz(line, "/exit")) {
		sh->quitting = true;
	} else if (str_eqz(line, "/stop") && sh->n_open) {
		request(sh, "interrupt", STR_NONE, STR_NONE, 0);    /* the answer itself says that it stopped */
	} else if (sh->n_open == OPEN_MAX) {
		fprintf(stderr, "blufio: %d messages wait for their answers; next: wait for one\n", OPEN_MAX);
	} else if (line.n > MESSAGE_MAX) {
		fprintf(stderr, "blufio: a message has at most %u bytes; this one was not sent; next: split it\n",
		    MESSAGE_MAX);
	} else if (line.n) {
		utf8_clean(&clean, line);
		send_message(sh, buf_view(&clean));
	}
	buf_free(&clean);
}

/* From a pipe: the next line goes out when nothing is open. */
static void
pipe_next(struct shell *sh)
{
	while (sh->n_open == 0 && !sh->quitting && sh->lines.n) {
		size_t eol = str_chr(buf_view(&sh->lines), '\n');
		size_t n = eol == SIZE_MAX ? sh->lines.n : eol;

		if (eol == SIZE_MAX && !sh->eof && sh->lines.n < INPUT_MAX && !sh->skip)
			break;
		if (!sh->skip)
			say(sh, str_sub(buf_view(&sh->lines), 0, n));
		sh->skip = eol == SIZE_MAX && !sh->eof;         /* what follows belongs to the refused line */
		buf_drop(&sh->lines, eol == SIZE_MAX ? n : n + 1);
	}
	finish_if_over(sh);
	watch_input(sh, !sh->eof && !sh->quitting && sh->lines.n < INPUT_MAX);
}

/* ---- from the agent ------------------------------------------------------------------------------ */

/* Is m about a message of this process? A terminal shows everything of its chat, a pipe only what it asked. */
static bool
is_ours(const struct shell *sh, const struct json *m)
{
	struct str id = json_str(m, "answers", STR_NONE);

	for (size_t i = 0; i < sh->n_open; i++)
		if (str_eqz(id, sh->open[i]))
			return true;
	return false;
}

static void
on_reply(struct shell *sh, const struct json *m)
{
	struct str text = json_str(m, "text", STR_NONE), shown = buf_view(&sh->shown);
	bool ours = is_ours(sh, m), reply = str_eqz(json_str(m, "type", STR_NONE), "reply");
	bool same = json_i64(m, "turn", 0) == sh->turn && shown.n && str_starts(text, shown);
	FILE *to = sh->tty || ours ? stdout : stderr;

	if (to == stderr)
		fputs("(answer to an earlier message)\n", to);
	if (json_bool(m, "repeated", false))
		fputs("(This may be a repeat: I was interrupted while sending it.)\n", to);
	if (shown.n && !same)
		putc('\n', to);
	print_text(to, same ? str_sub(text, shown.n, text.n) : text);
	fputs(sh->tty ? "\n\n" : "\n", to);
	fflush(to);
	buf_reset(&sh->shown);
	sh->turn = 0;
	request(sh, "ack", STR_NONE, STR_NONE, json_i64(m, "item", 0));
	/* a notice about a turn ("busy") is not yet what its message waits for */
	if (reply || json_i64(m, "turn", 0) == 0)
		(void)close_id(sh, json_str(m, "answers", STR_NONE));
}

static void
on_error(struct shell *sh, const struct json *m)
{
	struct str id = json_str(m, "id", STR_NONE);

	fflush(stdout);
	fputs("blufio: ", stderr);
	print_text(stderr, json_str(m, "error", STR_NONE));
	fputs("\n", stderr);
	sh->failed = true;
	if (id.n == 0)
		sh->n_open = 0;         /* about all that was sent: none of it is sure to be answered */
	else
		(void)close_id(sh, id);
}

static void
on_message(struct shell *sh, const struct json *m)
{
	struct str type = json_str(m, "type", STR_NONE), text = json_str(m, "text", STR_NONE);

	if (str_eqz(type, "delta") && (sh->tty || is_ours(sh, m))) {
		sh->turn = json_i64(m, "turn", 0);
		buf_str(&sh->shown, text);
		out_text(text);
	} else if (str_eqz(type, "tool") && sh->tty) {
		if (sh->shown.n && !str_ends(buf_view(&sh->shown), S("\n")))
			out(S("\n"));
		out(S("\033[2m["));
		out_text(json_str(m, "tool", STR_NONE));
		out(S("]\033[0m\n"));
	} else if (str_eqz(type, "restart")) {
		if (sh->shown.n)
			out(S("\n(The answer was interrupted; it begins again.)\n"));
		buf_reset(&sh->shown);
	} else if (str_eqz(type, "reply") || str_eqz(type, "notice")) {
		on_reply(sh, m);
	} else if (json_at(m, "error")) {
		on_error(sh, m);
	}
}

static void
on_line(struct shell *sh, struct str line)
{
	struct arena ar = ARENA_INIT(line.n * 16 + 65536);
	const struct json *m;

	if (json_parse(&ar, line, &m, NULL) == OK)
		on_message(sh, m);
	arena_free(&ar);
}

static void
on_agent(void *arg, int fd, unsigned events)
{
	struct shell *sh = arg;
	char *room;
	ssize_t n;
	size_t eol;

	if (events & EV_WRITE)
		flush(sh);
	if (!(events & EV_READ))
		return;
	room = buf_room(&sh->answers, 65536);
	n = room ? read(fd, room, 65536) : -1;
	if (n <= 0) {
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			return;
		if (sh->le)
			lineedit_hide(sh->le);
		fprintf(stderr, "blufio: the daemon went away; what was stored will be answered after its next start;"
		    " next: `blufio status`\n");
		sh->failed = true;
		ev_stop(sh->ev);
		return;
	}
	sh->answers.n += (size_t)n;
	if (sh->le)
		lineedit_hide(sh->le);
	while ((eol = str_chr(buf_view(&sh->answers), '\n')) != SIZE_MAX) {
		on_line(sh, str_sub(buf_view(&sh->answers), 0, eol));
		buf_drop(&sh->answers, eol + 1);
	}
	if (sh->le && sh->shown.n == 0)
		lineedit_show(sh->le);
	if (!sh->tty)
		pipe_next(sh);
	else
		finish_if_over(sh);
}

/* ---- from the person --------------------------------------------------------------------------------- */

static void
on_edit(void *arg, enum lineedit_event event, struct str line)
{
	struct shell *sh = arg;

	switch (event) {
	case LINEEDIT_LINE:
		say(sh, line);
		break;
	case LINEEDIT_EOF:
		if (sh->quitting)
			ev_stop(sh->ev);
		sh->quitting = true;
		break;
	case LINEEDIT_INTERRUPT:
		if (sh->quitting)
			ev_stop(sh->ev);
		if (sh->n_open)           /* the answer stops; with nothing running, Ctrl-C leaves */
			request(sh, "interrupt", STR_NONE, STR_NONE, 0);
		else if (line.n == 0)
			sh->quitting = true;
		break;
	}
	prompt(sh);
}

static void
on_stdin(void *arg, int fd, unsigned events)
{
	struct shell *sh = arg;
	char bytes[16384];
	ssize_t n;

	(void)events;
	do
		n = read(fd, bytes, sizeof(bytes));
	while (n < 0 && errno == EINTR);
	if (sh->le) {
		if (n <= 0 || lineedit_feed(sh->le, str_make(bytes, (size_t)n), on_edit, sh) != OK)
			sh->quitting = true;
		if (n <= 0)
			watch_input(sh, false);
		if (sh->quitting && sh->n_open)
			request(sh, "interrupt", STR_NONE, STR_NONE, 0);
		finish_if_over(sh);
		return;
	}
	if (n > 0)
		buf_put(&sh->lines, bytes, (size_t)n);
	else
		sh->eof = true;
	pipe_next(sh);
}

static void
on_signal(void *arg)
{
	struct shell *sh = arg;

	if (sh->n_open && !sh->quitting) {
		sh->quitting = true;
		request(sh, "interrupt", STR_NONE, STR_NONE, 0);
	} else {
		ev_stop(sh->ev);
	}
}

/* ---- set-up --------------------------------------------------------------------------------------------- */

static void
history_path(const struct config *c, char *path, size_t n)
{
	snprintf(path, n, "%.*s.history", STR_ARG(config_str(c, "storage.database_path")));
}

static int
talk(struct shell *sh, const struct config *c, const char *chat, bool offline)
{
	char history[4200];
	struct fail f = FAIL_INIT;
	struct buf b = BUF_INIT(1024);
	struct jw w;
	enum err e = OK;

	history_path(c, history, sizeof(history));
	sh->in_fd = STDIN_FILENO;
	ev_defer_init(&sh->more, read_more, sh);
	sh->tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	sh->label = "you> ";
	buf_init(&sh->lines, INPUT_MAX * 2);
	buf_init(&sh->answers, ANSWERS_MAX);
	buf_init(&sh->shown, REPLY_MAX * 2);
	buf_init(&sh->requests, INPUT_MAX * 8);
	if (offline) {
		fprintf(stderr, "OFFLINE: no model is configured, so the built-in echo provider repeats what you say.\n"
		    "For a real model: blufio config set anthropic.api_key -\n");
	}
	if (sh->tty) {
		fprintf(stderr, "%.*s %s, terminal chat \"%s\". /help for commands, /quit or Ctrl-D to leave.\n",
		    STR_ARG(config_str(c, "agent.name")), BLUFIO_VERSION, chat);
		e = lineedit_new(STDIN_FILENO, STDOUT_FILENO, &sh->le);
		if (e == OK && lineedit_history_load(sh->le, history, &f) != OK)
			log_warn("shell", "%s", f.text);
	}
	jw_init(&w, &b);
	jw_obj(&w);
	jw_kz(&w, "cmd", "chat");
	jw_kz(&w, "chat", chat);
	jw_end_obj(&w);
	buf_putc(&b, '\n');
	if (e == OK)
		e = fd_write_all(sh->fd, b.p, b.n);
	if (e == OK)
		e = fd_nonblock(sh->fd);
	buf_free(&b);
	if (e == OK)
		e = ev_fd_set(sh->ev, sh->fd, EV_READ, on_agent, sh);
	if (e == OK)
		e = ev_signal(sh->ev, SIGINT, on_signal, sh);
	if (e == OK)
		e = ev_signal(sh->ev, SIGTERM, on_signal, sh);
	if (e == OK) {
		prompt(sh);
		watch_input(sh, true);
		e = ev_run(sh->ev);
	}
	if (sh->le) {
		lineedit_hide(sh->le);
		if (lineedit_history_save(sh->le, history, &f) != OK)
			log_warn("shell", "%s", f.text);
		lineedit_free(sh->le);
	}
	watch_input(sh, false);
	ev_defer_cancel(&sh->more);
	ev_fd_del(sh->ev, sh->fd);
	close(sh->fd);
	buf_free(&sh->lines);
	buf_free(&sh->answers);
	buf_free(&sh->requests);
	buf_free(&sh->shown);
	return e != OK ? EXIT_INTERNAL : sh->failed ? EXIT_IO : EXIT_OK;
}

/* The agent inside this process, the other end of a socket pair as its terminal. */
static int
talk_inside(const struct command_env *env, struct config *config, const char *chat, bool offline)
{
	struct shell sh = { .fd = -1 };
	struct fail f = FAIL_INIT;
	struct agent *a;
	int pair[2], code;

	if (agent_new(&a, config, env->spawner, false, &f) != OK) {
		config_free(config);
		return command_failed(&f);
	}
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
		agent_free(a);
		fprintf(stderr, "blufio: cannot make a socket pair: %s\n", strerror(errno));
		return EXIT_IO;
	}
	if (control_attach(a, pair[1]) != OK) {
		close(pair[0]);
		agent_free(a);
		return EXIT_INTERNAL;
	}
	sh.fd = pair[0];
	sh.ev = a->ev;
	code = talk(&sh, a->config, chat, offline);
	/* the last acknowledgement is still in the socket: let the agent note the delivery */
	for (int i = 0; i < LAST_TURNS && outbox_in_flight(a); i++)
		if (ev_once(a->ev, 10 * US_PER_MS) != OK)
			break;
	agent_free(a);
	return code;
}

static int
talk_to_daemon(struct config *config, int fd, const char *chat)
{
	struct shell sh = { .fd = fd };
	int code = EXIT_INTERNAL;

	if (ev_new(&sh.ev) == OK)
		code = talk(&sh, config, chat, false);
	else
		close(fd);
	ev_free(sh.ev);
	config_free(config);
	return code;
}

/* No file, no key: the echo provider, by the same door as any other setting. */
static bool
nothing_configured(const struct config *c)
{
	const struct feature *p = feature_find(FEATURE_PROVIDER, config_str(c, "providers.default"));
	struct fail why = FAIL_INIT;

	return config_path(c) == NULL && !config_has(c, "providers.default") &&
	    feature_find(FEATURE_PROVIDER, S("echo")) && p && !p->provider->configured(c, &why);
}

int
cmd_shell(const struct command_env *env, int argc, char **argv)
{
	struct config *config;
	struct fail f = FAIL_INIT;
	const char *chat = NULL;
	bool offline = false;
	int fd, code = command_config(env, LOG_ERROR, &config);

	if (code != EXIT_OK)
		return code;
	if (argc == 3 && strcmp(argv[1], "--chat") == 0) {
		chat = argv[2];
	} else if (argc > 1) {
		config_free(config);
		return command_usage("shell [--chat NAME]");
	}
	if (client_connect(config, &fd, &f) == OK)
		return talk_to_daemon(config, fd, chat ? chat : "main");
	if (nothing_configured(config)) {
		offline = true;
		config_free(config);
		if (setenv("BLUFIO__PROVIDERS__DEFAULT", "echo", 1) != 0)
			return EXIT_INTERNAL;
		code = command_config(env, LOG_ERROR, &config);
		if (code != EXIT_OK)
			return code;
	}
	return talk_inside(env, config, chat ? chat : offline ? "offline" : "main", offline);
}
