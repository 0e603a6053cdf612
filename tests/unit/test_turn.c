/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_turn.c - the whole agent in this process: a provider that follows a script,
 * terminals on socket pairs, storage that fails by chance.
 *
 * The scripted day ends the loop turns in every way there is (answers, tools, all
 * failures, stops, lost terminals, failed commits, sudden deaths) and looks at
 * what must hold after each loop turn and at the end of the day.
 */
#include "scratch.h"
#include "test.h"

#include <errno.h>
#include <sys/socket.h>

#define CLIENTS 4

/* ---- chance: the same in every run --------------------------------------------------------- */

static uint64_t seed;

static unsigned
chance(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)(seed >> 33) % n;
}

/* ---- storage that fails ---------------------------------------------------------------------- */

static const struct db_ops *real;
static struct db_ops flaky;
static unsigned bad_of_1000;            /* statements that fail; 1000 = the disk is gone */
static bool bad_commits;                /* only those, and all of them */

static bool
fails(void)
{
	return bad_of_1000 && chance(1000) < bad_of_1000;
}

static enum err
flaky_begin(void *en)
{
	return fails() ? ERR_BUSY : real->begin(en);
}

static enum err
flaky_commit(void *en, bool light)
{
	return bad_commits || fails() ? ERR_FULL : real->commit(en, light);
}

static enum err
flaky_exec(void *en, const char *sql, const struct db_val *v, size_t n, int64_t *id, int64_t *changes)
{
	if (!fails())
		return real->exec(en, sql, v, n, id, changes);
	if (chance(2))
		real->rollback(en);     /* SQLite does that by itself when the disk is full */
	return ERR_IO;
}

static enum err
flaky_query(void *en, const char *sql, const struct db_val *v, size_t n, void **stmt)
{
	return fails() ? ERR_NOMEM : real->query(en, sql, v, n, stmt);
}

static enum err
flaky_step(void *stmt, bool *row)
{
	return fails() ? ERR_IO : real->step(stmt, row);
}

/* ---- a provider with a script ------------------------------------------------------------------- */

enum plan {
	TEXT, TOOLS, RETRY, PAUSE, REFUSE, CUT, EMPTY, THINKING_REFUSED, BAD, BUSY_LONG, PLANS_BY_CHANCE,
	MANY_TOOLS = PLANS_BY_CHANCE, WIDE_TOOL, NEVER, STOP_AT_END
};
static enum plan plans[8];              /* of the next calls; then TEXT, or by chance */
static size_t n_plans, next_plan, n_calls;
static bool by_chance;
static const char *refused_rule;        /* the first rule that a request broke */
static struct target stop_target;

struct op {
	struct agent *a;
	struct llm_call *call;
	enum plan plan;
	unsigned steps;
	struct ev_timer timer;
};

static void
op_free(void *arg)
{
	struct op *op = arg;

	ev_timer_cancel(op->a->ev, &op->timer);
	free(op);
}

static void
feed_tool(struct llm_call *c, size_t index, const char *name, const char *input)
{
	char id[32];

	snprintf(id, sizeof(id), "call_%zu_%zu", n_calls, index);
	llm_feed_block(c, index, S("tool_use"), str_z(id), str_z(name), STR_NONE);
	llm_feed_input(c, index, str_z(input));
	llm_feed_block_end(c, index);
}

static void
feed_tools(struct op *op)
{
	struct buf b = BUF_INIT(1u << 20);

	feed_tool(op->call, 2, "time_now", "{}");
	feed_tool(op->call, 3, "text_count", "{\"text\":\"a b\"}");
	if (op->plan == TOOLS && chance(2))
		feed_tool(op->call, 4, "no_such_tool", "{\"x\":[]}");
	if (op->plan == TOOLS && chance(2))
		feed_tool(op->call, 5, "text_count", "{\"text\":1}");
	for (size_t i = 6; op->plan == MANY_TOOLS && i < TOOL_CALLS_MAX + 6; i++)
		feed_tool(op->call, i, "time_now", "{}");
	if (op->plan == WIDE_TOOL) {
		buf_puts(&b, "{\"n\":[0");
		for (int i = 0; i < 20000; i++)
			buf_puts(&b, ",0");
		buf_puts(&b, "]}");
		feed_tool(op->call, 6, "no_such_tool", buf_z(&b));
	}
	buf_free(&b);
}

static void
feed_text(struct llm_call *c, const char *text)
{
	llm_feed_block(c, 0, S("thinking"), STR_NONE, STR_NONE, STR_NONE);
	llm_feed_thinking(c, 0, S("hm"));
	llm_feed_signature(c, 0, S("sig"));
	llm_feed_block_end(c, 0);
	llm_feed_block(c, 1, S("text"), STR_NONE, STR_NONE, STR_NONE);
	llm_feed_text(c, 1, str_z(text));
}

/* The end of the answer; op is gone then. */
static void
feed_end(struct op *op)
{
	static const struct { enum llm_stop stop; enum llm_class class; int64_t again; } ends[] = {
		[TEXT] = { LLM_STOP_END, LLM_OK, -1 }, [TOOLS] = { LLM_STOP_TOOLS, LLM_OK, -1 },
		[RETRY] = { LLM_STOP_NONE, LLM_RETRY, 0 }, [PAUSE] = { LLM_STOP_PAUSE, LLM_OK, -1 },
		[REFUSE] = { LLM_STOP_REFUSAL, LLM_OK, -1 }, [CUT] = { LLM_STOP_MAX_TOKENS, LLM_OK, -1 },
		[EMPTY] = { LLM_STOP_END, LLM_OK, -1 }, [THINKING_REFUSED] = { LLM_STOP_NONE, LLM_THINKING, -1 },
		[BAD] = { LLM_STOP_NONE, LLM_BAD_REQUEST, -1 },
		[BUSY_LONG] = { LLM_STOP_NONE, LLM_RETRY, LLM_RETRY_AFTER_MAX_US + 1 },
		[MANY_TOOLS] = { LLM_STOP_TOOLS, LLM_OK, -1 }, [WIDE_TOOL] = { LLM_STOP_TOOLS, LLM_OK, -1 },
		[NEVER] = { LLM_STOP_END, LLM_OK, -1 }, [STOP_AT_END] = { LLM_STOP_END, LLM_OK, -1 },
	};
	const struct usage u = { .input = 100, .output = 20, .cache_read = -1, .write_5m = -1, .write_1h = -1 };
	struct llm_call *call = op->call;
	struct agent *a = op->a;
	enum plan plan = op->plan;

	if (ends[plan].stop == LLM_STOP_TOOLS)
		feed_tools(op);
	llm_feed_usage(call, &u, true);
	llm_feed_block_end(call, 1);
	if (ends[plan].stop != LLM_STOP_NONE)
		llm_feed_stop(call, ends[plan].stop, STR_NONE);
	op_free(op);
	llm_feed_end(call, ends[plan].class, 200, ends[plan].again, S("scripted"), STR_NONE);
	if (plan == STOP_AT_END)
		session_stop(a, &stop_target);
}

static void
on_op(void *arg)
{
	struct op *op = arg;

	if (op->plan == NEVER)
		return;
	if (op->steps == 0 && op->plan != EMPTY)
		feed_text(op->call, "An ");
	else if (op->plan != EMPTY)
		llm_feed_text(op->call, 1, S("answer. "));
	if (++op->steps < 1 + chance(4))
		ev_timer_in(op->a->ev, &op->timer, 0);
	else
		feed_end(op);
}

static enum err
script_call(void *self, const struct llm_request *r, struct llm_call *call, void **out)
{
	struct op *op = calloc(1, sizeof(*op));
	const char *why = rules_broken(r);

	if (op == NULL)
		return ERR_NOMEM;
	if (why && refused_rule == NULL)
		refused_rule = why;
	op->a = self;
	op->call = call;
	op->plan = next_plan < n_plans ? plans[next_plan++] : !by_chance || chance(3) == 0 ? TEXT :
	    (enum plan)chance(PLANS_BY_CHANCE);
	n_calls++;
	ev_timer_init(&op->timer, on_op, op);
	ev_timer_in(op->a->ev, &op->timer, 0);
	*out = op;
	return OK;
}

static void
script_nothing(void *self)
{
	(void)self;
}

static void
script_pause(void *op, bool paused)
{
	(void)op;
	(void)paused;
}

static const struct model_info script_models[] = {
	{ .id = "script", .window = 1000000, .max_output = 1000, .in = 1000, .out = 1000, .read = 1, .write_5m = 1,
	  .write_1h = 1, .band_factor = 1 },
	{ .id = NULL },
};
static const struct provider_ops script_ops = { .models = script_models, .free = script_nothing, .call = script_call,
    .cancel = op_free, .pause = script_pause };
static const struct feature script = { .name = "script", .kind = FEATURE_PROVIDER, .provider = &script_ops };

/* ---- the agent ------------------------------------------------------------------------------------- */

static struct scratch sc;
static struct agent *a;

static enum err
agent_up(void)
{
	static const char *const env[] = { NULL };
	struct config *config;
	struct fail f = FAIL_INIT;
	enum err e = config_load(&config, sc.toml, env, &f);

	bad_of_1000 = 0;
	if (e != OK)
		return e;
	e = agent_new(&a, config, NULL, false, &f);
	if (e != OK) {
		if (!FAULTED())
			printf("  %s\n", f.text);
		a = NULL;
		config_free(config);
		return e;
	}
	real = a->db->ops;
	flaky = *real;
	flaky.begin = flaky_begin;
	flaky.commit = flaky_commit;
	flaky.exec = flaky_exec;
	flaky.query = flaky_query;
	flaky.step = flaky_step;
	a->db->ops = &flaky;
	a->provider->feature->provider->free(a->provider->self);
	a->provider->feature = &script;
	a->provider->self = a;
	providers_read(a);
	return OK;
}

static void
agent_down(bool killed)
{
	bad_of_1000 = killed ? 1000 : 0;        /* a dead one cannot write that it stopped */
	if (a)
		agent_free(a);
	a = NULL;
	bad_of_1000 = 0;
}

static bool
begin(const char *toml)
{
	char text[512];

	memset(&sc, 0, sizeof(sc));
	n_plans = next_plan = n_calls = 0;
	by_chance = bad_commits = false;
	refused_rule = NULL;
	snprintf(text, sizeof(text), "[providers]\ndefault = \"echo\"\n[cost]\ndaily_budget_usd = 1000\n%s", toml);
	if (scratch_dir(&sc, text) == OK && agent_up() == OK)
		return true;
	CHECK(FAULTED());
	return false;
}

static void
finish(void)
{
	if (refused_rule)
		test_bad_at_(__FILE__, __LINE__, refused_rule);
	agent_down(false);
	scratch_dir_end(&sc);
}

static int64_t
one(const char *sql)
{
	unsigned bad = bad_of_1000;
	int64_t n = -1;

	bad_of_1000 = 0;
	if (db_get_i64(a->db, sql, NULL, 0, -1, &n) != OK)
		CHECK(FAULTED());
	bad_of_1000 = bad;
	return n;
}
#define ONE(sql, want) CHECK(FAULTED() || one(sql) == (want))

/* What holds after every loop turn. */
static bool
consistent(int line)
{
	size_t it = 0, slots = 0, waiting = 0, turns = 0;
	struct session *s;
	const char *why = NULL;

	while (sessions_next(a, &it, &s)) {
		turns += s->turn != NULL;
		slots += s->turn && s->turn->slot;
		waiting += s->turn && s->turn->waiting;
	}
	if (slots != turns_running(a) || waiting != turns_waiting(a))
		why = "places or waiters are miscounted";
	else if ((int64_t)slots > config_i64(a->config, "agent.max_sessions"))
		why = "more conversations than places";
	else if (waiting && !slots && a->phase == AGENT_READY)
		why = "somebody waits for a free place";
	else if (a->db->tx_err != OK)
		return true;            /* an effect could not write: the next turn undoes it */
	else if (one("SELECT count(*) FROM (SELECT 1 FROM turns WHERE state < 5 GROUP BY session_id HAVING count(*) > 1)"))
		why = "two open turns in one conversation";
	else if (a->phase == AGENT_READY && !a->db->in_tx && !a->write_failed &&
	    one("SELECT count(*) FROM turns WHERE state < 5") != (int64_t)turns)
		why = "memory and rows differ";
	else if (one("SELECT coalesce(sum(nano_usd), 0) FROM cost_ledger") != one("SELECT coalesce(sum(nano_usd), 0) FROM cost_days"))
		why = "the days' sums differ from the ledger";
	else if (a->phase == AGENT_READY && !a->db->in_tx && !a->write_failed &&
	    one("SELECT count(*) FROM reservations") != one("SELECT count(*) FROM turns WHERE state = 2"))
		why = "money is reserved for a call that does not run, or none for one that does";
	else if (refused_rule)
		why = refused_rule;
	if (why == NULL || FAULTED())
		return true;
	test_bad_at_(__FILE__, line, why);
	return false;
}

/* One loop turn; storage that failed is tried again at once. */
static bool
turn_loop(int64_t wait)
{
	if (a->phase == AGENT_STORAGE_FAILED)
		ev_timer_in(a->ev, &a->retry_timer, 0);
	if (ev_once(a->ev, wait) != OK) {
		CHECK(FAULTED());
		return false;
	}
	return true;
}

/* ---- terminals ----------------------------------------------------------------------------------------- */

struct client {
	int fd;
	int number;
	unsigned sent;                  /* messages so far; the newest is waiting when… */
	bool waiting;                   /* … nobody said yet that it is stored */
	bool asked;
	const char *text;
	int64_t item;                   /* to be acknowledged */
	unsigned replies, repeated, errors, answers;
	struct buf in;
};
static struct client clients[CLIENTS];

static void
client_write(struct client *c, const char *line)
{
	for (size_t n = strlen(line); n && c->fd >= 0;) {
		ssize_t sent = send(c->fd, line, n, MSG_NOSIGNAL);

		if (sent < 0) {
			CHECK(errno == EPIPE || FAULTED());
			return;
		}
		line += sent;
		n -= (size_t)sent;
	}
}

static void
client_down(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->item = 0;
	c->asked = false;
	buf_free(&c->in);
}

static bool
client_up(struct client *c)
{
	int sv[2];
	char line[64];

	if (c->fd >= 0)
		return true;
	buf_init(&c->in, 1u << 20);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) != 0)
		return false;
	c->fd = sv[0];
	if (fd_nonblock(c->fd) != OK || control_attach(a, sv[1]) != OK) {
		client_down(c);
		return false;
	}
	snprintf(line, sizeof(line), "{\"cmd\":\"chat\",\"chat\":\"c%d\"}\n", c->number);
	client_write(c, line);
	return true;
}

static void
client_line(struct client *c, struct str line)
{
	struct arena ar = ARENA_INIT(8u << 20);
	const struct json *m;
	struct str type;

	if (json_parse(&ar, line, &m, NULL) == OK) {
		type = json_str(m, "type", STR_NONE);
		if (str_eqz(type, "reply") || str_eqz(type, "notice")) {
			c->item = json_i64(m, "item", 0);
			c->replies += str_eqz(type, "reply");
			c->repeated += json_bool(m, "repeated", false);
		} else if (str_eqz(json_str(m, "text", STR_NONE), "stored")) {
			c->waiting = c->asked = false;
		} else if (json_at(m, "error")) {
			c->asked = false;       /* asked again */
			c->errors++;
		} else if (type.n == 0 && json_at(m, "text")) {
			c->answers++;
		}
	} else {
		CHECK(FAULTED());
	}
	arena_free(&ar);
}

static void
client_read(struct client *c)
{
	size_t eol;
	char *room = c->fd >= 0 ? buf_room(&c->in, 65536) : NULL;
	ssize_t n = room ? recv(c->fd, room, 65536, 0) : 0;

	if (n > 0)
		c->in.n += (size_t)n;
	else if (c->fd >= 0 && (n == 0 || (errno != EAGAIN && errno != EINTR)))
		client_down(c);
	while ((eol = str_chr(buf_view(&c->in), '\n')) != SIZE_MAX) {
		client_line(c, str_sub(buf_view(&c->in), 0, eol));
		buf_drop(&c->in, eol + 1);
	}
}

static void
client_ask(struct client *c)
{
	char line[128];

	if (!c->waiting || c->asked || !client_up(c))
		return;
	c->asked = true;
	snprintf(line, sizeof(line), "{\"cmd\":\"message\",\"id\":\"m%d-%u\",\"text\":\"%s\"}\n", c->number, c->sent,
	    c->text);
	client_write(c, line);
}

static void
client_ack(struct client *c)
{
	char line[64];

	if (c->item == 0)
		return;
	snprintf(line, sizeof(line), "{\"cmd\":\"ack\",\"item\":%lld}\n", (long long)c->item);
	c->item = 0;
	client_write(c, line);
}

static void
say(struct client *c, const char *text)
{
	if (c->waiting)
		return;
	c->sent++;
	c->waiting = true;
	c->asked = false;
	c->text = text;
	client_ask(c);
}

static void
clients_begin(void)
{
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = (struct client){ .fd = -1, .number = i };
}

static void
clients_down(void)
{
	for (int i = 0; i < CLIENTS; i++)
		client_down(&clients[i]);
}

static bool
quiet(void)
{
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i].waiting)
			return false;
	return a->phase == AGENT_READY && sessions_loaded(a) == 0 && outbox_waiting(a) == 0 && !a->db->in_tx;
}

/* Loop turns that should be enough; more, when each takes one byte. */
static int
enough(int turns)
{
	return getenv("FAULT_SHORT") ? turns * 100 : turns;
}

/* Until everything said is answered and taken, or for max loop turns. */
static bool
settle(int max)
{
	for (int i = 0; i < enough(max) && !quiet() && !FAULTED(); i++) {
		for (int k = 0; k < CLIENTS; k++) {
			client_read(&clients[k]);
			if (clients[k].sent)
				IGNORE(client_up(&clients[k]) ? OK : ERR_LIMIT);        /* again in the next turn */
			client_ack(&clients[k]);
			client_ask(&clients[k]);
		}
		if (!turn_loop(i % 8 ? 0 : 2000) || !consistent(__LINE__))
			return false;
	}
	return quiet();
}

/* ---- the table of docs/DESIGN.md ------------------------------------------------------------------------- */

TEST(states_are_documented)
{
	struct buf text = BUF_INIT(4u << 20);
	struct fail f = FAIL_INIT;
	struct str rest, line, cell;
	int next = 0;

	if (access("docs/DESIGN.md", R_OK) != 0) {
		SKIP("no docs/DESIGN.md");
		return;
	}
	CHECK_OK(file_read("docs/DESIGN.md", 4u << 20, &text, &f));
	rest = buf_view(&text);
	while (rest.n) {
		(void)str_cut(&rest, '\n', &line);
		if (!str_starts(line, S("| `")))
			continue;
		line = str_sub(line, 3, line.n);
		(void)str_cut(&line, '`', &cell);
		if (next == 0 && !str_eqz(cell, turn_state_name(TURN_PREPARE)))
			continue;               /* another table */
		if (next < TURN_STATE_COUNT) {
			CHECK_STR(cell, turn_state_name((enum turn_state)next));
			next++;
		}
	}
	CHECK(FAULTED() || next == TURN_STATE_COUNT);
	CHECK(strcmp(turn_state_name(TURN_STATE_COUNT), "?") == 0);
	CHECK(strcmp(turn_outcome_name(OUTCOME_COUNT), "?") == 0);
	CHECK(strcmp(turn_outcome_name(OUTCOME_SET_ASIDE), "set_aside") == 0);
	buf_free(&text);
}

/* ---- single turns ------------------------------------------------------------------------------------------- */

/* One message whose calls go by the plans; true when it was answered. */
static bool
play(const enum plan *p, size_t n)
{
	memcpy(plans, p, n * sizeof(*p));
	n_plans = n;
	next_plan = 0;
	clients_begin();
	say(&clients[0], "hello");
	return settle(2000);
}
#define PLAY(...) play((const enum plan[]){ __VA_ARGS__ }, sizeof((const enum plan[]){ __VA_ARGS__ }) / sizeof(enum plan))

/* The ends of a turn, and what stays in the history then. */
TEST(outcomes)
{
	static const struct { enum plan plan[3]; size_t n; enum turn_outcome outcome; int64_t rounds, messages; } table[] = {
		{ { TEXT }, 1, OUTCOME_ANSWERED, 0, 2 }, { { TOOLS, TEXT }, 2, OUTCOME_ANSWERED, 1, 4 },
		{ { TOOLS, TOOLS, CUT }, 3, OUTCOME_ANSWERED, 2, 6 }, { { RETRY, RETRY, TEXT }, 3, OUTCOME_ANSWERED, 0, 2 },
		{ { PAUSE, TEXT }, 2, OUTCOME_ANSWERED, 1, 3 }, { { EMPTY }, 1, OUTCOME_ANSWERED, 0, 1 },
		{ { BAD }, 1, OUTCOME_FAILED, 0, 1 }, { { BUSY_LONG }, 1, OUTCOME_FAILED, 0, 1 },
		{ { THINKING_REFUSED, TEXT }, 2, OUTCOME_ANSWERED, 0, 2 },
		{ { TOOLS, THINKING_REFUSED, TEXT }, 3, OUTCOME_ANSWERED, 1, 4 },
		{ { TOOLS, REFUSE }, 2, OUTCOME_REFUSED, 1, 0 },
		{ { THINKING_REFUSED, THINKING_REFUSED }, 2, OUTCOME_FAILED, 0, 1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (begin("")) {
			CHECK(play(table[i].plan, table[i].n) || FAULTED());
			ONE("SELECT outcome FROM turns", table[i].outcome);
			ONE("SELECT round FROM turns", table[i].rounds);
			ONE("SELECT count(*) FROM messages WHERE void = 0", table[i].messages);
			ONE("SELECT count(*) FROM steps WHERE state < 2", 0);
			ONE("SELECT sum(input) FROM cost_ledger", (int64_t)n_calls * 100);
			CHECK(FAULTED() || (clients[0].replies == 1 && n_calls == table[i].n && a->failed_commits == 0));
		}
		clients_down();
		finish();
		if (FAULTED())
			return;
	}
}

/* A model may ask for more calls than are made, or with an input of many values: no storage failure,
 * and no endless asking. */
TEST(answers_that_are_too_much)
{
	static const enum plan table[] = { MANY_TOOLS, WIDE_TOOL };

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (begin("")) {
			CHECK(PLAY(table[i], TEXT) || FAULTED());
			CHECK(FAULTED() || (a->failed_commits == 0 && n_calls <= 2 && clients[0].replies == 1));
		}
		clients_down();
		finish();
	}
}

/* The answer was complete and its price known when the stop came: it is booked all the same. */
TEST(stop_at_the_end)
{
	if (begin("")) {
		stop_target = (struct target){ S("shell"), S("c0"), STR_NONE, STR_NONE };
		CHECK(PLAY(STOP_AT_END) || FAULTED());
		ONE("SELECT outcome FROM turns", OUTCOME_STOPPED);
		ONE("SELECT sum(input) FROM cost_ledger", 100);
	}
	clients_down();
	finish();
}

/* Two stops in one loop turn: of the one that works and of the first that waits. The next one goes on. */
TEST(waiters_are_woken)
{
	const struct target first = { S("shell"), S("c0"), STR_NONE, STR_NONE };
	const struct target second = { S("shell"), S("c1"), STR_NONE, STR_NONE };

	if (begin("[agent]\nmax_sessions = 1\n")) {
		clients_begin();
		plans[0] = NEVER;
		n_plans = 1;
		next_plan = 0;
		for (int i = 0; i < 3 && !FAULTED(); i++) {
			say(&clients[i], "hello");
			for (int k = 0; k < enough(10) && turn_loop(0); k++)
				client_read(&clients[i]);
		}
		CHECK(FAULTED() || (turns_running(a) == 1 && turns_waiting(a) == 2));
		if (!FAULTED()) {
			session_stop(a, &first);
			session_stop(a, &second);
			CHECK(settle(1000));
			CHECK(clients[2].replies == 1);
		}
	}
	clients_down();
	finish();
}

/* Three deaths in a row: the message is set aside, told once and not as a repeat. */
TEST(set_aside)
{
	bool up = begin("");

	clients_begin();
	for (int i = 0; i < TURN_DEATHS_MAX && up && !FAULTED(); i++) {
		plans[0] = NEVER;
		n_plans = 1;
		next_plan = 0;
		if (i == 0)
			say(&clients[0], "poison");
		for (int k = 0; k < enough(10) && turn_loop(0); k++)
			client_read(&clients[0]);
		CHECK(FAULTED() || n_calls == (size_t)i + 1);
		clients_down();
		agent_down(true);
		up = agent_up() == OK;
		CHECK(up || FAULTED());
	}
	if (up && !FAULTED()) {
		CHECK(settle(1000));
		ONE("SELECT outcome FROM turns", OUTCOME_SET_ASIDE);
		ONE("SELECT count(*) FROM outbox", 1);
		CHECK(clients[0].replies == 1 && clients[0].repeated == 0 && n_calls == TURN_DEATHS_MAX);
	}
	clients_down();
	finish();
}

/* While commits fail, a terminal that asks for something gets an answer, and never one that says that
 * something is stored; nor is anything left in memory of what was undone. */
TEST(answers_without_storage)
{
	if (begin("")) {
		clients_begin();
		say(&clients[0], "hello");
		CHECK(settle(1000) || FAULTED());
		CHECK_OK(store_pairing_add(a->db, S("AAAA-AAAA"), S("shell"), S("c0"), S("Ann"), clock_us() + PAIR_CODE_US));
		CHECK_OK(db_commit(a->db));
		if (!FAULTED()) {
			bad_commits = true;
			say(&clients[0], "again");
			for (int i = 0; i < enough(10) && ev_once(a->ev, 0) == OK; i++)
				client_read(&clients[0]);
			CHECK(a->phase == AGENT_STORAGE_FAILED && clients[0].waiting && clients[0].errors > 0);
			clients[0].errors = clients[0].answers = 0;
			client_write(&clients[0], "{\"cmd\":\"pair\",\"code\":\"AAAA-AAAA\"}\n{\"cmd\":\"log\"}\n");
			for (int i = 0; i < enough(10) && ev_once(a->ev, 0) == OK; i++)
				client_read(&clients[0]);
			CHECK(clients[0].errors == 1 && clients[0].answers == 1);
			bad_commits = false;
			CHECK(settle(1000));
			CHECK(clients[0].replies == 2);
			ONE("SELECT used FROM pairings", 0);
		}
	}
	clients_down();
	finish();
}

/* ---- a scripted day ---------------------------------------------------------------------------------------------- */

static void
something_happens(struct client *c, unsigned left)
{
	static const char *const texts[] = { "hello", "what time is it?", "/stop", "/new", "/help", "/nonsense",
	    "and now?", "go on" };
	const char *line = "{\"cmd\":\"interrupt\"}\n";

	switch (chance(16)) {
	case 0: case 1: case 2: case 3:
		if (c->sent < left)
			say(c, texts[chance(ARRAY_LEN(texts))]);
		break;
	case 4: case 5: case 6: case 7:
		client_ack(c);
		break;
	case 8:
		if (c->fd >= 0 && chance(2))
			client_write(c, line);
		break;
	case 9:
		if (chance(8) == 0)
			client_down(c);
		break;
	default:
		client_read(c);
		client_ask(c);
		break;
	}
}

/* True when the day could be played to its end. */
static bool
play_day(int turns, unsigned messages, unsigned bad)
{
	for (int i = 0; i < turns && !FAULTED(); i++) {
		for (int k = 0; k < CLIENTS; k++)
			something_happens(&clients[k], messages);
		bad_of_1000 = i % 50 < 10 ? bad : 0;
		if (!turn_loop(i % 4 ? 0 : 500) || !consistent(__LINE__))
			return false;
		bad_of_1000 = 0;
		if (chance(150) == 0) {
			clients_down();
			agent_down(chance(4) != 0);
			if (agent_up() != OK)
				return false;
		}
	}
	return true;
}

static void
day(uint64_t s, int turns, unsigned messages, unsigned bad)
{
	bool played = false;

	seed = s;
	clients_begin();
	if (begin("[agent]\nmax_sessions = 2\n")) {
		by_chance = true;
		played = play_day(turns, messages, bad);
		by_chance = false;
		CHECK(played || FAULTED());
	}
	if (a && played && !FAULTED()) {
		CHECK(settle(20000));
		ONE("SELECT count(*) FROM inbound WHERE state <> 2", 0);
		ONE("SELECT count(*) FROM turns WHERE state <> 5", 0);
		ONE("SELECT count(*) FROM outbox WHERE state < 2", 0);
		ONE("SELECT count(*) FROM inbound WHERE text NOT LIKE '/%' AND"
		    " (SELECT count(*) FROM turns WHERE inbound_id = inbound.id) <> 1", 0);
		ONE("SELECT count(*) FROM turns WHERE"
		    " (SELECT count(*) FROM outbox WHERE turn_id = turns.id AND kind = 0 AND state = 2) <> 1", 0);
		ONE("SELECT count(*) FROM steps WHERE state = 1", 0);
		ONE("SELECT count(*) FROM inbound", clients[0].sent + clients[1].sent + clients[2].sent + clients[3].sent);
		CHECK(n_calls > 0);
	}
	clients_down();
	finish();
}

TEST(days)
{
	/* with faults every allocation is a run of its own: a short day */
	bool faults = getenv("FAULT_AT") || getenv("FAULT_VERBOSE") || getenv("FAULT_SHORT");

	if (faults) {
		day(7, enough(60), 3, 0);
		return;
	}
	day(1, 1500, 60, 0);            /* a disk that works */
	for (uint64_t i = 2; i < 8; i++)
		day(i * 0x9E3779B97F4A7C15u, 1500, 60, 15);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	seed = 88172645463325252u;
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));       /* a fault may have met it */
	RUN(states_are_documented);
	RUN(outcomes);
	RUN(answers_that_are_too_much);
	RUN(stop_at_the_end);
	RUN(waiters_are_woken);
	RUN(set_aside);
	RUN(answers_without_storage);
	RUN(days);
	log_close();
	return TEST_END();
}
