/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_control.c - whatever clients write on the control socket, in whatever
 * pieces: the daemon answers in lines of JSON and stays ready. One agent serves
 * many inputs.
 *
 * The input is lines. '@' in front of a line is short for a request: "@3" is the
 * fourth of the list below, the rest of the line goes in as its text. A line "!"
 * closes the connection, "?" switches to the other one, "~" turns the loop.
 */
#include "scratch.h"

#include <errno.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define WAITING_MAX 200                 /* replies that nobody took: then a new agent begins */

static const char *const requests[] = {
	"{\"cmd\":\"status\"}", "{\"cmd\":\"dump\"}", "{\"cmd\":\"pair\"}", "{\"cmd\":\"pair\",\"code\":\"%.*s\"}",
	"{\"cmd\":\"log\",\"level\":\"%.*s\"}", "{\"cmd\":\"chat\",\"chat\":\"%.*s\"}", "{\"cmd\":\"chat\"}",
	"{\"cmd\":\"message\",\"id\":\"%.*s\",\"text\":\"hi\"}", "{\"cmd\":\"message\",\"id\":\"1\",\"text\":\"%.*s\"}",
	"{\"cmd\":\"interrupt\"}", "{\"cmd\":\"ack\",\"item\":%.*s}", "{\"cmd\":\"message\",\"id\":\"2\",\"text\":\"/new\"}",
	"{\"cmd\":\"message\",\"id\":\"3\",\"text\":\"/stop\"}", "{\"cmd\":\"log\"}",
};

static struct scratch sc;
static struct agent *a;
static int fds[2] = { -1, -1 };

static void
must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

static void
end(void)
{
	if (a == NULL)
		return;
	agent_free(a);
	a = NULL;
	scratch_dir_end(&sc);
	log_close();
}

static void
begin(void)
{
	static const char *const env[] = { NULL };
	static bool once;
	struct fail f = FAIL_INIT;
	struct config *config;

	must(once || atexit(end) == 0, "no atexit");
	once = true;
	must(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", &f) == OK &&
	    scratch_dir(&sc, "[providers]\ndefault = \"echo\"\n") == OK &&
	    config_load(&config, sc.toml, env, &f) == OK && agent_new(&a, config, NULL, false, &f) == OK, f.text);
}

/* What came must be whole lines of JSON objects. Takes what there is. */
static void
drink(int i)
{
	static char bytes[1 << 16];
	struct arena ar = ARENA_INIT(64u << 20);
	struct buf in = BUF_INIT(64u << 20);
	struct str rest, line;
	const struct json *m;
	ssize_t n;

	while (fds[i] >= 0 && (n = recv(fds[i], bytes, sizeof(bytes), 0)) > 0)
		buf_put(&in, bytes, (size_t)n);
	must(in.n == 0 || in.p[in.n - 1] == '\n', "half a line");
	rest = buf_view(&in);
	while (rest.n) {
		(void)str_cut(&rest, '\n', &line);
		must(json_parse(&ar, line, &m, NULL) == OK && m->type == JSON_OBJECT, "not a JSON object");
		must(json_at(m, "ok") || json_at(m, "type"), "neither an answer nor an event");
	}
	buf_free(&in);
	arena_free(&ar);
}

static void
loop(int turns)
{
	for (int i = 0; i < turns; i++)
		must(ev_once(a->ev, 0) == OK, "the loop failed");
	drink(0);
	drink(1);
}

static void
hang_up(int i)
{
	if (fds[i] >= 0)
		close(fds[i]);
	fds[i] = -1;
}

static void
put(int i, struct str bytes)
{
	int sv[2];

	if (fds[i] < 0) {
		must(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0 && fd_nonblock(sv[0]) == OK &&
		    control_attach(a, sv[1]) == OK, "no connection");
		fds[i] = sv[0];
	}
	while (bytes.n) {
		ssize_t n = send(fds[i], bytes.p, bytes.n < 4000 ? bytes.n : 4000, MSG_NOSIGNAL);

		if (n > 0) {
			bytes = str_sub(bytes, (size_t)n, bytes.n);
		} else if (errno != EAGAIN) {
			hang_up(i);     /* they had enough of us */
			return;
		}
		loop(1);
		if (fds[i] < 0)
			return;
	}
}

/* One line of the input: what it stands for is written, or done. */
static void
act(int *at, struct str line, bool last)
{
	struct buf b = BUF_INIT(1u << 20);

	if (str_eqz(line, "!")) {
		hang_up(*at);
	} else if (str_eqz(line, "?")) {
		*at = !*at;
	} else if (str_eqz(line, "~")) {
		loop(3);
	} else if (line.n > 1 && line.p[0] == '@') {
		const char *r = requests[(unsigned char)line.p[1] % ARRAY_LEN(requests)], *hole = strstr(r, "%.*s");

		buf_str(&b, str_make(r, hole ? (size_t)(hole - r) : strlen(r)));
		if (hole) {
			buf_str(&b, str_sub(line, 2, line.n));
			buf_puts(&b, hole + 4);
		}
		buf_putc(&b, '\n');
	} else {
		buf_str(&b, line);
		if (!last)
			buf_putc(&b, '\n');
	}
	put(*at, buf_view(&b));
	buf_free(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str rest = str_make((const char *)data, size), line;
	int at = 0;

	if (a == NULL)
		begin();
	/* these two end the run, or read a file: their words are tested elsewhere */
	if (str_find(rest, S("stop\"")) != SIZE_MAX || str_find(rest, S("reload")) != SIZE_MAX ||
	    str_find(rest, S("\\u")) != SIZE_MAX)
		return 0;
	while (rest.n) {
		bool more = str_cut(&rest, '\n', &line);

		act(&at, line, !more);
	}
	loop(3);
	hang_up(0);
	hang_up(1);
	loop(6);
	must(a->phase == AGENT_READY && a->failed_commits == 0, "it is not ready any more");
	must(!outbox_in_flight(a), "something is being sent to nobody");
	must(sessions_loaded(a) <= outbox_waiting(a), "a turn without a reply");
	if (outbox_waiting(a) > WAITING_MAX)
		end();
	return 0;
}
