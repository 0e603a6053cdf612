/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * day.c - the daemon in its world: started, told a script, watched.
 *
 * A script is lines of a time and an event. Events that touch the daemon itself
 * (restart, crash, clocks, failing commits, pairing) stand in the record behind
 * "!", those of its peers behind "~": when a record is fed back the first happen
 * again, the second are only written down, for their answers are in the record.
 *
 * At every request a second connection, which sees committed rows and nothing
 * else, tells whether the request was allowed to leave: no effect precedes its
 * commit. Every change of a turn's state passes by here, too.
 */
#include "replay/sim.h"

#define TABLES_MAX 32
#define TURNS_MAX 65536

struct day day;

static unsigned char state_of[TURNS_MAX], written[TURNS_MAX];   /* committed; in the transaction */
static int64_t touched[TURNS_MAX];
static size_t n_touched;

/* ---- what must hold -------------------------------------------------------------------- */

int64_t
day_one(const char *sql)
{
	int64_t n = -1;

	return day.witness && db_get_i64(day.witness, sql, NULL, 0, -1, &n) == OK ? n : -1;
}

static const unsigned char allowed[TURN_STATE_COUNT] = {
	[TURN_PREPARE] = 1 << TURN_PREPARE | 1 << TURN_CALL | 1 << TURN_REPLY,
	[TURN_CALL] = 1 << TURN_CALL | 1 << TURN_STREAM | 1 << TURN_REPLY,
	[TURN_STREAM] = 1 << TURN_CALL | 1 << TURN_TOOLS | 1 << TURN_REPLY,
	[TURN_TOOLS] = 1 << TURN_TOOLS | 1 << TURN_CALL | 1 << TURN_REPLY,
	[TURN_REPLY] = 1 << TURN_REPLY | 1 << TURN_DONE,
	[TURN_DONE] = 0,
};

static void
state_written(int64_t turn, int64_t state)
{
	if (turn < 1 || turn >= TURNS_MAX || state < 0 || state >= TURN_STATE_COUNT) {
		sim_broken("a turn or a state that cannot be");
		return;
	}
	if (!(allowed[written[turn]] >> state & 1))
		sim_broken("a turn went from one state to another that does not follow it");
	if (n_touched < TURNS_MAX)
		touched[n_touched++] = turn;
	written[turn] = (unsigned char)state;
}

static void
states_settle(bool committed)
{
	for (size_t i = 0; i < n_touched; i++) {
		if (committed)
			state_of[touched[i]] = written[touched[i]];
		else
			written[touched[i]] = state_of[touched[i]];
	}
	n_touched = 0;
}

static void
take_state(struct db_row *r)
{
	int64_t id = db_i64(r, 0);

	if (id > 0 && id < TURNS_MAX)
		state_of[id] = written[id] = (unsigned char)db_i64(r, 1);
}

/* A message whose update is acknowledged has its row. */
static void
watch_poll(const struct exchange *x)
{
	struct arena ar = ARENA_INIT(1u << 20);
	const struct json *v = NULL;
	int64_t offset = 0, id, n;
	char key[64];

	if (json_parse(&ar, buf_view(&x->body), &v, NULL) == OK)
		offset = json_i64(v, "offset", 0);
	arena_free(&ar);
	for (size_t i = 0; i < telegram_updates() && !sim.feeding; i++) {
		const char *json = telegram_update(i, &id);

		if (id >= offset || !strstr(json, "\"message\":") || strstr(json, "\"first_name\":\"Stranger\""))
			continue;
		snprintf(key, sizeof(key), "%lld:%%", (long long)id);
		if (db_get_i64(day.witness, "SELECT count(*) FROM inbound WHERE dedup LIKE ?1",
		    (struct db_val[]){ DBZ(key) }, 1, 0, &n) != OK || n != 1)
			sim_broken("an update was acknowledged and its message is not stored once");
	}
}

static void
watch(struct exchange *x)
{
	if (day.a == NULL || day.witness == NULL)
		return;                         /* agent_new: nothing was said yet */
	if (str_eqz(x->what, "/v1/messages/count_tokens"))
		return;                         /* a question that changes nothing */
	if (day.a->durable_owed || day.a->write_failed)
		sim_broken("a request left though its commit is owed or failed");
	if (x->peer == &claude_peer && str_find(buf_view(&x->body), S("\"output_config\"")) != SIZE_MAX) {
		if (day_one("SELECT count(*) FROM reservations WHERE feature = 'heartbeat'") != 1 ||
		    day_one("SELECT count(*) FROM heartbeat_items WHERE tries > 0 AND NOT told") < 1)
			sim_broken("a heartbeat asked and no row says so");
	} else if (x->peer == &claude_peer && (++day.asked > day_one("SELECT count(*) FROM steps WHERE kind = 0") ||
	    day_one("SELECT count(*) FROM turns WHERE state = 2") < 1))
		sim_broken("the model was asked and no row says so");
	if (x->peer == &telegram_peer && str_starts(x->what, S("send")) && !str_ends(x->what, S("Draft")) &&
	    !str_ends(x->what, S("Action")) &&
	    (int64_t)(net_open(&telegram_peer, "sendMessage") + net_open(&telegram_peer, "sendRichMessage")) >
	    day_one("SELECT (SELECT count(*) FROM outbox WHERE state = 1) + (SELECT count(*) FROM turns"
	    " WHERE ref = '?' AND state < 5)"))
		sim_broken("a message was sent and no row says so");
	if (str_eqz(x->what, "getUpdates"))
		watch_poll(x);
}

/* ---- storage that fails when told ----------------------------------------------------------- */

static enum err
on_begin(void *en)
{
	return day.dead ? ERR_IO : day.real->begin(en);
}

static enum err
on_commit(void *en, bool light)
{
	enum err e = day.dead ? ERR_IO : OK;

	if (e == OK && day.fail_commits > 0) {
		day.fail_commits--;
		e = ERR_FULL;
	}
	if (e == OK)
		e = day.real->commit(en, light);
	states_settle(e == OK);
	return e;
}

static void
on_rollback(void *en)
{
	states_settle(false);
	day.real->rollback(en);
}

static enum err
on_exec(void *en, const char *sql, const struct db_val *v, size_t n, int64_t *id, int64_t *changes)
{
	static const char update[] = "UPDATE turns SET state = ?2";
	enum err e = day.dead ? ERR_IO : day.real->exec(en, sql, v, n, id, changes);

	if (e == OK && strncmp(sql, update, strlen(update)) == 0)
		state_written(v[0].i, v[1].i);
	return e;
}

/* ---- up and down ------------------------------------------------------------------------------ */

FALLIBLE
day_up(void)
{
	struct config *config;
	struct fail f = FAIL_INIT;
	struct db_row r;
	enum err e = config_load(&config, day.sc.toml, day.env, &f);

	if (e == OK) {
		e = agent_new(&day.a, config, NULL, true, &f);
		if (e != OK)
			config_free(config);
	}
	if (e != OK) {
		printf("  %s\n", f.text);
		day.a = NULL;
		return e;
	}
	day.dead = false;
	day.real = day.a->db->ops;
	day.ops = *day.real;
	day.ops.begin = on_begin;
	day.ops.commit = on_commit;
	day.ops.rollback = on_rollback;
	day.ops.exec = on_exec;
	day.a->db->ops = &day.ops;
	e = db_open(&day.witness, day.real, day.sc.path, true, DB_PROCESS, &f);
	if (e != OK)
		return e;
	n_touched = 0;
	db_query(day.witness, &r, "SELECT id, state FROM turns WHERE state < 5", NULL, 0);
	while (db_step(&r))
		take_state(&r);
	e = db_end(&r);
	ev_timer_in(day.a->ev, &day.a->housekeeping_timer, US_PER_S);   /* as agent_run does */
	return e;
}

void
day_down(bool killed)
{
	struct agent *a = day.a;

	day.dead = killed;              /* a dead one cannot even write that it stopped */
	day.a = NULL;
	db_close(day.witness);
	day.witness = NULL;
	if (a)
		agent_free(a);
	day.dead = false;
}

static void line_due(void *arg);

static void
rise(void *arg)
{
	(void)arg;
	if (day.a == NULL && day_up() != OK)
		sim_broken("it does not start again");
}

FALLIBLE
day_begin(const char *toml, const char *durability)
{
	static char setting[64];
	char text[4096];
	int n = snprintf(text, sizeof(text), "[telegram]\nbot_token = \"" TELEGRAM_TOKEN "\"\nallowed_users = [");
	enum err e;

	for (unsigned i = 0; i < STRANGERS; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%s%d", i ? ", " : "", (int)telegram_chat(i));
	snprintf(text + n, sizeof(text) - (size_t)n, "]\n[routing]\nenabled = false\n[anthropic]\napi_key = \"sk-simulated-key\"\n%s", toml);
	memset(&day, 0, sizeof(day));
	memset(state_of, 0, sizeof(state_of));
	memset(written, 0, sizeof(written));
	snprintf(setting, sizeof(setting), "BLUFIO__STORAGE__DURABILITY=%s", durability);
	day.env[0] = setting;
	day.rise.fn = rise;
	day.line.fn = line_due;
	telegram_begin();
	claude_begin();
	sim.watch = watch;
	e = scratch_dir(&day.sc, text);
	return e == OK ? day_up() : e;
}

void
day_end(void)
{
	day_down(false);
	sim_cancel(&day.rise);
	sim_cancel(&day.line);
	scratch_dir_end(&day.sc);
	telegram_end();
}

static enum err
fulfil(void)
{
	enum wish wish = day.wish;
	enum err e = OK;

	day.wish = WISH_NONE;
	if (wish == WISH_NONE || day.a == NULL)
		return OK;
	if (wish == WISH_DRAIN) {
		agent_drain(day.a);
		e = ev_run(day.a->ev);
	}
	day_down(wish == WISH_CRASH);
	if (wish == WISH_STOP)
		sim_at(&day.rise, day.rise_at);
	else if (e == OK)
		e = day_up();
	return e;
}

FALLIBLE
day_turn(int64_t until)
{
	enum err e = OK;

	if (day.a) {
		e = ev_once(day.a->ev, until > sim.now ? until - sim.now : 0);
	} else {
		if (sim.events && sim.events->at < until)
			until = sim.events->at;
		sim.now = until > sim.now ? until : sim.now;
		sim_run_due();
	}
	return e == OK ? fulfil() : e;
}

FALLIBLE
day_run(int64_t until)
{
	enum err e = OK;

	while (e == OK && sim.now < until)
		e = day_turn(until);
	return e;
}

/* ---- the words of a script ------------------------------------------------------------------------ */

static int64_t
number(struct str *s)
{
	struct str word;
	int64_t v = 0;
	bool minus;

	(void)str_cut(s, ' ', &word);
	minus = word.n && word.p[0] == '-';
	if (str_i64(str_sub(word, minus, word.n), 0, INT64_MAX / US_PER_S, &v) != OK)
		sim_broken("a number is missing in the script");
	return minus ? -v : v;
}

static void
command_user(struct str s)
{
	unsigned user = (unsigned)number(&s);
	struct str word, text;

	(void)str_cut(&s, ' ', &word);
	if (str_eqz(word, "says")) {
		telegram_say(user, false, s);
	} else if (str_eqz(word, "in")) {
		(void)str_cut(&s, ' ', &text);          /* "group says" */
		(void)str_cut(&s, ' ', &text);
		telegram_say(user, true, s);
	} else if (str_eqz(word, "edits")) {
		telegram_edit(user, s);
	} else if (str_eqz(word, "stops")) {
		telegram_press_stop(user);
	} else {
		sim_broken("a user does what the script does not know");
	}
}

static void
command_telegram(struct str s)
{
	struct str word;
	int64_t n;

	(void)str_cut(&s, ' ', &word);
	n = number(&s);
	if (str_eqz(word, "down")) {
		telegram.down_until = sim.now + n * US_PER_S;
	} else if (str_eqz(word, "deaf")) {
		telegram.deaf_until = sim.now + n * US_PER_S;
	} else if (str_eqz(word, "silent")) {
		telegram.silent_until = sim.now + n * US_PER_S;
	} else if (str_eqz(word, "limit")) {
		telegram.limit_until = sim.now + n * US_PER_S;
		telegram.limit_s = number(&s);
	} else if (str_eqz(word, "lose")) {
		telegram.lose = n;
	} else if (str_eqz(word, "fail")) {
		telegram.fail = n;
	} else if (str_eqz(word, "reset")) {
		telegram.reset = n;
	} else if (str_eqz(word, "refuse")) {
		telegram.refuse = n;
	} else if (str_eqz(word, "ids")) {
		telegram.update = n;
	} else {
		sim_broken("telegram does what the script does not know");
	}
}

static void
command_claude(struct str s)
{
	struct str word;
	int64_t n;

	(void)str_cut(&s, ' ', &word);
	n = number(&s);
	if (str_eqz(word, "down")) {
		claude.down_until = sim.now + n * US_PER_S;
	} else if (str_eqz(word, "cut")) {
		claude.cut = n;
	} else if (str_eqz(word, "fail")) {
		claude.fail = n;
		claude.fail_status = number(&s);
		claude.retry_after_s = s.n ? number(&s) : -1;
	} else {
		sim_broken("claude does what the script does not know");
	}
}

/* As the owner would with the newest code. */
static void
pair(void)
{
	struct buf told = BUF_INIT(4096);
	struct fail f = FAIL_INIT;
	struct db_row r;
	char code[16] = "";

	if (day.a == NULL)
		return;
	db_query(day.witness, &r, "SELECT code FROM pairings ORDER BY expires_at DESC LIMIT 1", NULL, 0);
	if (db_step(&r))
		snprintf(code, sizeof(code), "%.*s", STR_ARG(db_str(&r, 0)));
	if (db_end(&r) != OK || pair_code(day.a, str_z(code), &told, &f) != OK)
		sim_note("  not paired");
	buf_free(&told);
}

/* Events that touch the daemon; false: this is none of them. */
static bool
command_own(struct str word, struct str s)
{
	if (str_eqz(word, "utc")) {
		sim.utc_skew += number(&s) * US_PER_S;
	} else if (str_eqz(word, "suspend")) {          /* Linux: the monotonic clock stands still */
		int64_t us = number(&s) * US_PER_S;

		sim.now += us;
		sim.mono_skew -= us;
	} else if (str_eqz(word, "freeze")) {           /* elsewhere it goes on */
		sim.now += number(&s) * US_PER_S;
	} else if (str_eqz(word, "restart")) {
		day.wish = WISH_RESTART;
	} else if (str_eqz(word, "crash")) {
		day.wish = WISH_CRASH;
	} else if (str_eqz(word, "drain")) {
		day.wish = WISH_DRAIN;
	} else if (str_eqz(word, "stop")) {
		day.wish = WISH_STOP;
		day.rise_at = sim.now + number(&s) * US_PER_S;
	} else if (str_eqz(word, "commits")) {
		day.fail_commits = number(&s);
	} else if (str_eqz(word, "pair")) {
		pair();
	} else if (str_eqz(word, "jump")) {             /* what a test puts there */
		struct str jump = str_z(day.jump);

		(void)str_cut(&jump, ' ', &word);
		return command_own(word, jump);
	} else if (str_eqz(word, "end")) {
		day.over = true;
	} else {
		return false;
	}
	return true;
}

void
day_command(struct str line)
{
	static const char *const own[] = { "utc", "suspend", "freeze", "restart", "crash", "drain", "stop", "commits",
	    "pair", "jump", "end" };
	struct str s = line, word;
	bool ours = false;

	(void)str_cut(&s, ' ', &word);
	for (size_t i = 0; i < ARRAY_LEN(own); i++)
		ours = ours || str_eqz(word, own[i]);
	sim_note("%s %.*s", ours ? "!" : "~", STR_ARG(line));
	if (command_own(word, s) || sim.feeding)
		return;
	if (str_eqz(word, "user"))
		command_user(s);
	else if (str_eqz(word, "telegram"))
		command_telegram(s);
	else if (str_eqz(word, "claude"))
		command_claude(s);
	else
		sim_broken("a word that the script does not know");
}

/* ---- scripts and records ------------------------------------------------------------------------------- */

/* "2.5" */
static int64_t
seconds(struct str s)
{
	struct str whole;
	int64_t n = 0, tenths = 0;

	(void)str_cut(&s, '.', &whole);
	if (str_i64(whole, 0, INT64_MAX / US_PER_S, &n) != OK || (s.n && str_i64(s, 0, 9, &tenths) != OK))
		sim_broken("a time that makes no sense in the script");
	return n * US_PER_S + tenths * US_PER_S / 10;
}

/* Takes the next line's time, absolute or from the end of the line before; schedules it. */
static void
line_next(void)
{
	struct str line, stamp;
	int64_t at = -1;

	while (day.rest.n && !day.over) {
		struct str peek = day.rest;

		(void)str_cut(&peek, '\n', &line);
		(void)str_cut(&line, ' ', &stamp);
		at = stamp.n == 0 ? -1 : stamp.p[0] == '+' ? sim.now + seconds(str_sub(stamp, 1, stamp.n)) :
		    sim_stamp_parse(stamp);
		if (at >= 0) {
			sim_at(&day.line, at);
			return;
		}
		day.rest = peek;                /* a blank line or a comment */
	}
}

static void
line_due(void *arg)
{
	struct str line, stamp, mark;
	const char *problem;

	(void)arg;
	(void)str_cut(&day.rest, '\n', &line);
	(void)str_cut(&line, ' ', &stamp);
	if (!sim.feeding) {
		day_command(line);
	} else if (line.n > 2 && (line.p[0] == '!' || line.p[0] == '~')) {
		day_command(str_sub(line, 2, line.n));
	} else if (line.n && line.p[0] == '#') {
		struct str rest = line;

		(void)str_cut(&rest, ' ', &mark);
		if (rest.n && rest.p[0] == '<' && !net_feed(line, &problem))
			sim_broken(problem);
	}
	line_next();
}

static enum err
play(void)
{
	enum err e = OK;

	day.over = false;
	line_next();
	while (e == OK && !day.over)
		e = day_turn(INT64_MAX);
	return e;
}

FALLIBLE
day_script(const char *text)
{
	day.rest = str_z(text);
	return play();
}

FALLIBLE
day_feed(struct str record)
{
	day.rest = record;
	return play();
}

/* ---- the tables ---------------------------------------------------------------------------------------------- */

static void
table_rows(struct buf *out, const char *name, const char *columns_sql, const char *rows_sql)
{
	struct buf columns = BUF_INIT(4096);
	struct db_row r;
	struct str rest, column;

	db_query(day.witness, &r, columns_sql, NULL, 0);
	while (db_step(&r)) {
		buf_str(&columns, db_str(&r, 0));
		buf_putc(&columns, ' ');
	}
	if (db_end(&r) != OK)
		abort();
	db_query(day.witness, &r, rows_sql, NULL, 0);
	while (db_step(&r)) {
		buf_puts(out, name);
		rest = buf_view(&columns);
		for (int i = 0; str_cut(&rest, ' ', &column); i++) {
			buf_fmt(out, " %.*s=", STR_ARG(column));
			if (db_is_null(&r, i))
				buf_puts(out, "null");
			else
				json_quote(out, db_str(&r, i));
		}
		buf_putc(out, '\n');
	}
	if (db_end(&r) != OK)
		abort();
	buf_free(&columns);
}

/* Every row of every table, in the order of their keys. Statements are known by their address. */
void
day_tables(struct buf *out, bool meta)
{
	static char names[TABLES_MAX][64], columns[TABLES_MAX][128], rows[TABLES_MAX][128];
	struct db_row r;
	size_t n = 0;

	db_query(day.witness, &r, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name", NULL, 0);
	while (db_step(&r) && n < TABLES_MAX)
		snprintf(names[n++], sizeof(names[0]), "%.*s", STR_ARG(db_str(&r, 0)));
	if (db_end(&r) != OK)
		abort();
	for (size_t i = 0; i < n; i++) {
		if (!meta && strcmp(names[i], "meta") == 0)
			continue;
		snprintf(columns[i], sizeof(columns[i]), "SELECT name FROM pragma_table_info('%.63s') ORDER BY cid", names[i]);
		snprintf(rows[i], sizeof(rows[i]), "SELECT * FROM %.63s ORDER BY 1, 2", names[i]);
		table_rows(out, names[i], columns[i], rows[i]);
	}
}
