/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_request.c - whatever a connection of the gateway says, to a whole agent with
 * the offline provider: answers are well-formed and never 500, nothing is stored or
 * made for whoever has not the credential, and at the end nothing is left: no
 * connection, no transaction, no message without its answer.
 *
 * The first byte of an input says in which pieces the rest arrives. An agent lives
 * for many inputs, as it does outside; its database begins anew with it.
 */
#include "channel/gateway/gateway.h"
#include "scratch.h"

#include <errno.h>
#include <sys/socket.h>

#define TOKEN "q7Vx2LkP9sZtR4mWb8NcYd3HfJ6aGe"
#define LIFE 400                        /* inputs of one agent */
#define REST_TURNS_MAX 20000            /* loop turns until all is quiet */
#define OUT_MAX ((size_t)64 << 20)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct scratch sc;
static struct agent *agent;
static struct gateway *gateway;
static unsigned inputs;

#define require(good) do { if (!(good)) { fprintf(stderr, "line %d: %s\n", __LINE__, #good); abort(); } } while (0)

static void
turn(int64_t wait_us)
{
	require(ev_once(agent->ev, wait_us) == OK && agent->phase == AGENT_READY);
}

static void
up(void)
{
	static const char *const env[] = { NULL };
	struct config *config;
	struct fail f = FAIL_INIT;

	require(scratch_dir(&sc, "[providers]\ndefault = \"echo\"\n[gateway]\nenabled = true\nport = 0\nbearer_token = \"" TOKEN
	    "\"\n") == OK);
	require(config_load(&config, sc.toml, env, &f) == OK);
	require(agent_new(&agent, config, NULL, true, &f) == OK);
	gateway = agent_channel(agent, S("gateway"))->self;
	turn(0);
}

static void
down(void)
{
	agent_free(agent);
	scratch_dir_end(&sc);
	agent = NULL;
}

static int64_t
one(const char *sql)
{
	int64_t n = -1;

	require(db_get_i64(agent->db, sql, NULL, 0, -1, &n) == OK);
	return n;
}

/* ---- what comes back ---------------------------------------------------------------- */

static int64_t
number(struct str head, const char *name)
{
	size_t at = str_find(head, str_z(name));
	struct str rest = at == SIZE_MAX ? STR_NONE : str_sub(head, at + strlen(name), head.n), line;
	int64_t n;

	str_cut(&rest, '\r', &line);
	return str_i64(line, 0, (int64_t)OUT_MAX, &n) == OK ? n : -1;
}

/* Behind a chunked body. */
static struct str
skip_chunks(struct str s)
{
	for (size_t n = 1; n > 0;) {
		size_t digits = 0;

		for (n = 0; digits < s.n && hex_digit(s.p[digits]) >= 0; digits++)
			n = n * 16 + (size_t)hex_digit(s.p[digits]);
		require(digits > 0 && digits < 9 && s.n >= digits + 4 + n);
		s = str_sub(s, digits, s.n);
		require(str_starts(s, S("\r\n")) && str_eqz(str_sub(s, 2 + n, 2), "\r\n"));
		s = str_sub(s, 4 + n, s.n);
	}
	return s;
}

static void
check_answers(struct str s)
{
	while (s.n) {
		size_t end = str_find(s, S("\r\n\r\n"));
		struct str head = str_sub(s, 0, end == SIZE_MAX ? s.n : end + 4);
		int64_t status = -1, length = number(head, "\r\nContent-Length: ");

		require(end != SIZE_MAX && str_starts(s, S("HTTP/1.1 ")));
		require(str_i64(str_sub(head, 9, 3), 100, 599, &status) == OK && status != 500);
		s = str_sub(s, head.n, s.n);
		if (status == 101)
			return;         /* frames */
		if (str_starts(s, S("HTTP/1.1 ")))
			continue;       /* to HEAD; or it has no body */
		if (str_find(head, S("\r\nTransfer-Encoding: chunked\r\n")) != SIZE_MAX)
			s = skip_chunks(s);
		else if (length > 0 && s.n) {
			require(s.n >= (size_t)length);
			s = str_sub(s, (size_t)length, s.n);
		} else if (length < 0) {
			return;         /* ends with the connection: HTTP/1.0 */
		}
	}
}

/* ---- a connection --------------------------------------------------------------------- */

static void
receive(int fd, struct buf *out)
{
	char *room;
	ssize_t n;

	do {
		room = buf_room(out, 65536);
		require(room != NULL);
		n = recv(fd, room, 65536, MSG_DONTWAIT);
		out->n += n > 0 ? (size_t)n : 0;
	} while (n > 0);
}

static bool
is_quiet(void)
{
	return gateway->n_conns == 0 && sessions_loaded(agent) == 0 && outbox_waiting(agent) == 0 && !agent->db->in_tx &&
	    !agent->after.head;
}

static void
talk(struct str in, size_t piece, struct buf *out)
{
	char peer[32];
	int fd[2];

	require(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
	snprintf(peer, sizeof(peer), "peer %u", inputs);        /* nobody is locked out for what another did */
	conn_new(&gateway->listeners[0], fd[0], peer, false);
	while (in.n) {
		ssize_t n = send(fd[1], in.p, in.n < piece ? in.n : piece, MSG_DONTWAIT | MSG_NOSIGNAL);

		in = str_sub(in, n > 0 ? (size_t)n : 0, in.n);
		turn(0);
		receive(fd[1], out);
		if (n < 0 && errno != EAGAIN)
			break;          /* it was hung up on */
	}
	shutdown(fd[1], SHUT_WR);
	for (int i = 0; !is_quiet(); i++) {
		require(i < REST_TURNS_MAX);
		turn(100);
		receive(fd[1], out);
	}
	receive(fd[1], out);
	close(fd[1]);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct fail f = FAIL_INIT;

	(void)argc, (void)argv;
	require(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", &f) == OK);
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t pieces[] = { 1u << 20, 4096, 100, 7, 1 };
	struct str in = str_sub(str_make((const char *)data, size), 1, size);
	struct buf out = BUF_INIT(OUT_MAX);
	int64_t before;

	if (size == 0)
		return 0;
	if (agent == NULL)
		up();
	before = one("SELECT (SELECT count(*) FROM inbound) + (SELECT count(*) FROM api_keys)");
	talk(in, pieces[data[0] % ARRAY_LEN(pieces)], &out);
	check_answers(buf_view(&out));
	if (str_find(in, S(TOKEN)) == SIZE_MAX)
		require(one("SELECT (SELECT count(*) FROM inbound) + (SELECT count(*) FROM api_keys)") == before);
	require(one("SELECT count(*) FROM inbound i WHERE state < 2 OR NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id ="
	    " i.session_id)") == 0);
	require(one("SELECT (SELECT count(*) FROM turns WHERE state < 5) + (SELECT count(*) FROM outbox WHERE state < 2)") == 0);
	buf_free(&out);
	if (++inputs % LIFE == 0)
		down();
	return 0;
}
