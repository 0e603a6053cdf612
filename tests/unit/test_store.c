/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_store.c - the schema, and what every statement of the program does to the rows. */
#include "scratch.h"
#include "crypto/sha2.h"
#include "test.h"

static struct scratch sc;
static struct db *db;
static const struct target chat_a = { { "shell", 5 }, { "a", 1 }, { NULL, 0 }, { "r1", 2 } };

static bool
begin(void)
{
	enum err e = scratch_begin(&sc, "", "echo");

	db = sc.a.db;
	CHECK_OK(e);
	return e == OK;
}

/* A number out of the rows; -1 when there is none. */
static int64_t
one(const char *sql)
{
	int64_t n = -1;

	CHECK_OK(db_get_i64(db, sql, NULL, 0, -1, &n));
	return n;
}
#define ONE(sql, want) CHECK(one(sql) == (want) || FAULTED())

/* A conversation with a user; 0 when a fault met it. */
static int64_t
session(const char *chat)
{
	const struct target to = { S("shell"), str_z(chat), STR_NONE, STR_NONE };
	int64_t user = 0, id = 0;

	CHECK_OK(store_user_for(db, S("shell"), S("local"), S("N"), &user));
	CHECK_OK(user ? store_session_find(db, "test", &to, user, &id) : ERR_NOMEM);
	return id;
}

static int64_t
inbound(int64_t session_id, const char *dedup, const char *text)
{
	const struct inbound in = { .to = chat_a, .sender = S("local"), .dedup = str_z(dedup), .ref = str_z(dedup),
	    .text = str_z(text) };
	int64_t id = -1;

	CHECK_OK(session_id ? store_inbound_add(db, session_id, &in, INBOUND_QUEUED, &id) : ERR_NOMEM);
	return id;
}

/* What a row callback saw, as words. */
static struct buf seen = BUF_INIT(65536);

static void
see_id(void *arg, int64_t id)
{
	(void)arg;
	buf_fmt(&seen, "%lld;", (long long)id);
}

static void
see_inbound(void *arg, const struct inbound_row *r)
{
	(void)arg;
	buf_fmt(&seen, "%.*s/%.*s/%.*s;", STR_ARG(r->text), STR_ARG(r->reply_to), STR_ARG(r->sender));
}

static void
see_turn(void *arg, const struct turn_row *t)
{
	(void)arg;
	buf_fmt(&seen, "%lld,%s,%s,%lld,%lld,%lld,%lld,%d,%.*s,%.*s;", (long long)t->id, turn_state_name(t->state),
	    turn_outcome_name(t->outcome), (long long)t->round, (long long)t->attempt, (long long)t->next_at,
	    (long long)t->deaths, t->told, STR_ARG(t->answer), STR_ARG(t->ref));
}

static bool
see_message(void *arg, const struct message_row *m)
{
	buf_fmt(&seen, "%lld%.*s%.*s;", (long long)m->seq, STR_ARG(m->role), STR_ARG(m->content));
	return arg == NULL;
}

static void
see_step(void *arg, const struct step_row *s)
{
	(void)arg;
	buf_fmt(&seen, "%lld,%d,%d,%.*s,%.*s,%.*s,%.*s,%d;", (long long)s->idx, s->tool, (int)s->state, STR_ARG(s->name),
	    STR_ARG(s->call_id), STR_ARG(s->input), STR_ARG(s->output), s->failed);
}

static void
see_outbox(void *arg, const struct outbox_row *r)
{
	(void)arg;
	buf_fmt(&seen, "%s,%.*s,%.*s,part %lld,again %d,tries %lld,at %lld,%.*s;", outbox_state_name(r->state),
	    STR_ARG(r->item.text), STR_ARG(r->item.edit_ref), (long long)r->item.part, r->item.repeated,
	    (long long)r->item.attempts, (long long)r->next_at, STR_ARG(r->item.format));
}

static void
see_pairing(void *arg, struct str code, struct str channel, struct str sender, struct str name, int64_t expires)
{
	(void)arg;
	buf_fmt(&seen, "%.*s,%.*s,%.*s,%.*s,%lld;", STR_ARG(code), STR_ARG(channel), STR_ARG(sender), STR_ARG(name),
	    (long long)expires);
}

static void
see_session(void *arg, const struct session_row *r)
{
	(void)arg;
	buf_fmt(&seen, "%lld,%lld,%lld,%.*s;", (long long)r->history_seq, (long long)r->thinking_seq,
	    (long long)r->next_seq, STR_ARG(r->to.chat));
}

static void
saw(int line, enum err e, const char *want)
{
	if (e != OK || (!FAULTED() && !str_eqz(buf_view(&seen), want))) {
		test_bad_at_(__FILE__, line, want);
		if (!FAULTED())
			printf("  got: %s (%s)\n", buf_z(&seen), err_str(e));
	}
	buf_free(&seen);
}
#define SAW(call, want) saw(__LINE__, call, want)

/* ---- the schema ----------------------------------------------------------------------------- */

TEST(schema)
{
	struct fail f = FAIL_INIT;

	if (begin()) {
		ONE("PRAGMA user_version", SCHEMA_VERSION);
		CHECK_OK(store_migrate(db, sc.path, &f));        /* again: nothing to do */
		ONE("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", 26);
		CHECK_OK(db_script(db, "PRAGMA user_version = 99"));
		CHECK_ERR(store_migrate(db, sc.path, &f), ERR_UNSUPPORTED);
		CHECK(FAULTED() || (strstr(f.text, sc.path) && strstr(f.text, "schema version 99") &&
		    strstr(f.text, "up to 7; next: ")));
		ONE("PRAGMA user_version", 99);
	}
	scratch_end(&sc);
}

#define BACK_TO_6 "DROP TABLE job_runs; DROP TABLE jobs; DROP TABLE heartbeat_items; DROP TABLE heartbeat_notes;" \
	"DROP TABLE batch_items; DROP TABLE batches;" \
	"ALTER TABLE inbound DROP COLUMN kind;"
#define BACK_TO_5 BACK_TO_6 "DROP TABLE rules; ALTER TABLE sessions DROP COLUMN rules_change; DROP TABLE reservations; DROP TABLE cost_days;" \
	"ALTER TABLE cost_ledger DROP COLUMN user_id; ALTER TABLE cost_ledger DROP COLUMN intended;" \
	"ALTER TABLE cost_ledger DROP COLUMN request_id; ALTER TABLE sessions DROP COLUMN prompt_tokens;" \
	"ALTER TABLE sessions DROP COLUMN prompt_seq; ALTER TABLE sessions DROP COLUMN prompt_model;" \
	"ALTER TABLE sessions DROP COLUMN cached_until; ALTER TABLE sessions DROP COLUMN tier;" \
	"ALTER TABLE messages DROP COLUMN kind; ALTER TABLE sessions DROP COLUMN compact_tries;" \
	"ALTER TABLE sessions DROP COLUMN compact_at; ALTER TABLE sessions DROP COLUMN compact_seq;"
#define BACK_TO_4 BACK_TO_5 "DROP INDEX inbound_digest; ALTER TABLE inbound DROP COLUMN digest; ALTER TABLE inbound DROP COLUMN options;"
#define BACK_TO_3 BACK_TO_4 "DROP TABLE logins; DROP INDEX api_keys_minted_by;"
#define BACK_TO_2 BACK_TO_3 "DROP TABLE nonces; DROP TABLE api_keys; DROP INDEX turns_inbound; DROP INDEX outbox_reply;"

/* What version 1 stored is there in today's version, with the new columns empty. */
TEST(from_version_1)
{
	static const char back[] = BACK_TO_2 "DROP TABLE media_uses; DROP TABLE media; DROP TABLE attachments; DROP INDEX inbound_album;"
	    "ALTER TABLE inbound DROP COLUMN hold_until; ALTER TABLE inbound DROP COLUMN album;"
	    "ALTER TABLE outbox DROP COLUMN buttons; ALTER TABLE sessions DROP COLUMN model; PRAGMA user_version = 1;"
	    "INSERT INTO users VALUES(1, 'P', 1); INSERT INTO sessions(id, agent, channel, chat, thread, user_id, created_at)"
	    " VALUES(1, 'a', 'c', '1', '', 1, 1); INSERT INTO inbound VALUES(1, 1, 'c', 'd', '', 's', '', 'text', 0, 1, 1);";
	struct fail f = FAIL_INIT;

	if (begin()) {
		CHECK_OK(db_script(db, back));
		CHECK_OK(store_migrate(db, sc.path, &f));
		ONE("PRAGMA user_version", SCHEMA_VERSION);
		ONE("SELECT count(*) FROM inbound WHERE text = 'text' AND album = '' AND hold_until = 0", 1);
		ONE("SELECT count(*) FROM sessions WHERE model = ''", 1);
		ONE("SELECT count(*) FROM attachments", 0);
	}
	scratch_end(&sc);
}

static bool
see_listed(void *arg, const struct session_list_row *r)
{
	struct buf *b = arg;

	buf_fmt(b, "%lld,%.*s,%.*s;", (long long)r->id, STR_ARG(r->chat), STR_ARG(r->user));
	return b->n < 100;
}

/* Whose conversations, in which order, from where; n of them. */
static void
check_list(const char *prefix, bool newest_first, int64_t after, const char *want)
{
	const struct page p = { newest_first, after };
	struct buf text = BUF_INIT(1000);

	CHECK_OK(store_session_list(db, "gateway", str_z(prefix), &p, see_listed, &text));
	CHECK(FAULTED() || str_eqz(buf_view(&text), want));
	buf_free(&text);
}

TEST(pages)
{
	static const char rows[] = "INSERT INTO users VALUES(1, 'P', 1);"
	    "INSERT INTO sessions(id, agent, channel, chat, thread, user_id, created_at) VALUES(1, 'a', 'gateway', '7/x', '', 1, 1),"
	    " (2, 'a', 'gateway', '77/x', '', 1, 1), (3, 'a', 'gateway', '7/y', '', 1, 1), (4, 'a', 'telegram', '7/z', '', 1, 1),"
	    " (5, 'a', 'gateway', '7/z', '', 1, 1);";

	if (begin()) {
		CHECK_OK(db_script(db, rows));
		check_list("", true, 0, "5,7/z,;3,7/y,;2,77/x,;1,7/x,;");
		check_list("", false, 0, "1,7/x,;2,77/x,;3,7/y,;5,7/z,;");
		check_list("7/", true, 0, "5,7/z,;3,7/y,;1,7/x,;");
		check_list("7/", true, 5, "3,7/y,;1,7/x,;");
		check_list("7/", true, 1, "");
		check_list("7/", false, 1, "3,7/y,;5,7/z,;");
		check_list("8/", true, 0, "");
	}
	scratch_end(&sc);
}

/* What a program asks for: its message again, the answer, its conversations; and that one is erased. */
TEST(of_the_gateway)
{
	static const char rows[] = "INSERT INTO users VALUES(1, 'P', 1); INSERT INTO identities VALUES('gateway', '7/ann', 1, NULL);"
	    "INSERT INTO sessions(id, agent, channel, chat, thread, user_id, created_at)"
	    " VALUES(1, 'a', 'gateway', '7/x', '', 1, 1), (2, 'a', 'telegram', '5', '', 1, 1);"
	    "INSERT INTO inbound(id, session_id, channel, dedup, ref, sender, reply_to, text, state, sent_at, received_at)"
	    " VALUES(3, 1, 'gateway', '7/k', '', 's', 'k', 'hello', 2, 1, 1);"
	    "INSERT INTO turns(id, session_id, inbound_id, answer, created_at, updated_at) VALUES(4, 1, 3, 'so', 1, 1);"
	    "INSERT INTO messages VALUES(1, 1, 1, 4, 'user', 'hello', 0, 1, 0);"
	    "INSERT INTO outbox(id, kind, session_id, turn_id, channel, chat, thread, reply_to, text, edit_ref, state, created_at,"
	    " updated_at) VALUES(1, 1, 1, 4, 'gateway', '7/x', '', 'k', 'busy', '', 2, 1, 1),"
	    " (2, 0, 1, 4, 'gateway', '7/x', '', 'k', 'the answer', '', 2, 1, 1);";
	struct buf text = BUF_INIT(1000);
	int64_t id = -1;
	bool found = false, told = true;

	if (begin()) {
		CHECK_OK(db_script(db, rows));
		CHECK_OK(store_inbound_known(db, S("gateway"), S("7/k"), &id));
		CHECK(id == 3 || FAULTED());
		CHECK_OK(store_inbound_known(db, S("telegram"), S("7/k"), &id));
		CHECK(id == 0 || FAULTED());
		CHECK_OK(store_inbound_turn(db, 3, &id));
		CHECK(id == 4 || FAULTED());
		CHECK_OK(store_reply(db, 4, &text, &found, &told));
		CHECK((found && !told && str_eqz(buf_view(&text), "the answer")) || FAULTED());
		CHECK_OK(store_reply(db, 5, &text, &found, NULL));
		CHECK(!found || FAULTED());
		buf_reset(&text);
		check_list("", true, 0, "1,7/x,7/ann;");
		CHECK_OK(store_session_erase(db, 1));
		check_list("", true, 0, "");
		ONE("SELECT count(*) FROM messages", 0);
		ONE("SELECT count(*) FROM inbound WHERE text <> ''", 0);
		ONE("SELECT count(*) FROM outbox WHERE text <> ''", 0);
		ONE("SELECT count(*) FROM turns WHERE answer <> ''", 0);
		ONE("SELECT count(*) FROM sessions", 2);
	}
	buf_free(&text);
	scratch_end(&sc);
}

static void
add_id(void *arg, int64_t id)
{
	*(int64_t *)arg = *(int64_t *)arg * 100 + id;
}

static void
see_job(void *arg, const struct job_row *j)
{
	buf_fmt(arg, "%lld %lld %.*s %.*s %lld; ", (long long)j->id, (long long)j->session, STR_ARG(j->name), STR_ARG(j->text),
	    (long long)j->due_at);
}

static bool
see_text(void *arg, struct str text)
{
	buf_fmt(arg, "%.*s; ", STR_ARG(text));
	return true;
}

static bool
see_first(void *arg, struct str text)
{
	return ((struct buf *)arg)->n == 0 && see_text(arg, text);
}

/* A time is taken once; what has a name keeps its row; jobs and notes move and end with their conversation. */
TEST(jobs)
{
	const struct target to = { S("c"), S("1"), STR_NONE, STR_NONE }, there = { S("c"), S("2"), STR_NONE, STR_NONE };
	struct job_row j = { .schedule = S("@daily"), .text = S("x"), .due_at = 5 };
	struct buf text = BUF_INIT(1024);
	int64_t user = 0, s1 = 0, s2 = 0, id = 0, n = 0, due = 0;
	bool fresh = false, changed = false;

	if (begin()) {
		CHECK_OK(store_user_for(db, S("c"), S("1"), S("P"), &user));
		CHECK_OK(store_session_find(db, "a", &to, user, &s1));
		CHECK_OK(store_session_find(db, "a", &there, user, &s2));
		j.session = s1;
		j.user = user;
		CHECK_OK(store_job_add(db, &j, &id));
		j.name = S("n");
		CHECK_OK(store_job_put(db, &j));
		CHECK_OK(store_job_due(db, 2, 7));
		CHECK_OK(store_job_put(db, &j));        /* as it was */
		CHECK_OK(store_jobs(db, s1, see_job, &text));
		CHECK(FAULTED() || str_eqz(buf_view(&text), "1 1  x 5; 2 1 n x 7; "));
		CHECK_OK(store_jobs_due(db, 6, 10, add_id, &n));
		CHECK(FAULTED() || n == 1);
		CHECK_OK(store_jobs_next(db, &id, &due));
		CHECK(FAULTED() || (id == 1 && due == 5));
		CHECK_OK(store_job_run(db, 1, 5, 1, &fresh));
		CHECK(FAULTED() || fresh);
		CHECK_OK(store_job_run(db, 1, 5, 1, &fresh));
		CHECK(!fresh);
		CHECK_OK(store_job_run(db, 1, 6, 1, &fresh));
		CHECK(FAULTED() || fresh);
		CHECK_OK(store_job_runs_expire(db, INT64_MAX, 1));
		ONE("SELECT min(due_at) FROM job_runs", 6);
		CHECK_OK(store_job_due(db, 2, 0));
		CHECK_OK(store_jobs_count(db, user, &n));
		CHECK(FAULTED() || n == 1);
		CHECK_OK(store_job_put(db, &j));        /* it was over: its time is to be found anew */
		ONE("SELECT due_at FROM jobs WHERE id = 2 AND over = 0", 0);
		CHECK_OK(store_job_due(db, 2, 7));
		j.schedule = S("@weekly");
		CHECK_OK(store_job_put(db, &j));
		ONE("SELECT due_at FROM jobs WHERE id = 2 AND schedule = '@weekly'", 0);
		ONE("SELECT count(*) FROM jobs", 2);
		CHECK_OK(store_chat_moved(db, S("c"), S("1"), S("2"), &changed));
		ONE("SELECT count(*) FROM jobs WHERE session_id = 2", 2);
		CHECK_OK(store_heartbeat_note_add(db, s2, S("one"), false));
		CHECK_OK(store_heartbeat_note_add(db, s2, S("two"), true));
		buf_reset(&text);
		CHECK_OK(store_heartbeat_notes(db, s2, false, see_text, &text));
		CHECK(FAULTED() || str_eqz(buf_view(&text), "one; "));
		CHECK_OK(store_heartbeat_notes(db, s2, true, see_text, &text));
		CHECK(FAULTED() || str_eqz(buf_view(&text), "one; one; two; "));
		CHECK_OK(store_heartbeat_note_add(db, s2, S("more"), true));
		CHECK_OK(store_heartbeat_note_add(db, s2, S("yet more"), true));
		for (int i = 0; i < 3; i++) {           /* one at a time, the oldest first, none lost */
			static const char *const want[] = { "more; ", "yet more; ", "" };

			buf_reset(&text);
			CHECK_OK(store_heartbeat_notes(db, s2, true, see_first, &text));
			CHECK(FAULTED() || str_eqz(buf_view(&text), want[i]));
		}
		CHECK_OK(store_heartbeat_notes(db, s2, true, see_text, &text));
		CHECK_OK(store_heartbeat_notes(db, s2, false, see_text, &text));
		CHECK(FAULTED() || text.n == 0);
		ONE("SELECT count(*) FROM heartbeat_notes", 0);
		CHECK_OK(store_heartbeat_note_add(db, s2, S("three"), false));
		CHECK_OK(store_session_erase(db, s2));
		ONE("SELECT count(*) FROM jobs WHERE text <> '' OR over = 0", 0);
		ONE("SELECT count(*) FROM heartbeat_notes", 0);
	}
	buf_free(&text);
	scratch_end(&sc);
}

/* Of what comes daily the newest are kept, by when they were written. */
TEST(heartbeat_items)
{
	struct heartbeat_item i = { 0 }, got = { 0 };

	if (begin()) {
		CHECK_ERR(store_heartbeat_item(db, "c:1", S("x"), -1, &got), FAULTED() ? ERR_NOMEM : ERR_NOTFOUND);
		for (i.due_at = 1; i.due_at <= HEARTBEAT_DAYS_KEPT + 5; i.due_at++)
			CHECK_OK(store_heartbeat_item_put(db, "c:1", S("x"), &i));
		ONE("SELECT count(*) FROM heartbeat_items", HEARTBEAT_DAYS_KEPT);
		i = (struct heartbeat_item){ HEARTBEAT_DAYS_KEPT + 5, 2, true };
		CHECK_OK(store_heartbeat_item_put(db, "c:1", S("x"), &i));
		CHECK_OK(store_heartbeat_item(db, "c:1", S("x"), i.due_at, &got));
		CHECK(FAULTED() || (got.tries == 2 && got.told));
		CHECK_ERR(store_heartbeat_item(db, "c:2", S("x"), i.due_at, &got), FAULTED() ? ERR_NOMEM : ERR_NOTFOUND);
	}
	scratch_end(&sc);
}

static void
take_batch_item(void *arg, const struct batch_item_row *i)
{
	*(int64_t *)arg = i->id;
}

/* Which is next, by the clock and by what the caps leave: its id, or 0. */
static int64_t
next_of_batch(int64_t now, int64_t room)
{
	int64_t id = 0;

	CHECK_OK(store_batch_next(db, now, room, take_batch_item, &id));
	return id;
}

TEST(batches)
{
	const int64_t day = 86400 * US_PER_S;
	const struct api_key_row key = { .name = S("k"), .hash = S("h") };
	struct batch_item_row i = { .id = 1, .state = BATCH_WAITS, .answer = S("why") };
	struct batch_row b = { .id = 0 };
	struct buf why = BUF_INIT(64);
	int64_t k = 0, id = 0, n = 0;
	bool same = true;

	if (begin()) {
		CHECK_OK(store_api_key_add(db, &key, &k));
		CHECK_OK(store_batch_add(db, k, S("name"), S("digest"), 2, &id));
		CHECK_OK(store_batch_item_add(db, id, 0, S("{}")));
		CHECK_OK(store_batch_item_add(db, id, 1, S("{}")));
		CHECK_OK(store_batch_known(db, k, S("name"), S("other"), &n, &same));
		CHECK(FAULTED() || (n == id && !same));
		CHECK_OK(store_batch_known(db, k, STR_NONE, S("digest"), &n, &same));
		CHECK(FAULTED() || n == 0);
		CHECK_ERR(store_batch_get(db, id, k + 1, &b), ERR_NOTFOUND);
		CHECK(next_of_batch(0, 0) == 1 || FAULTED());
		i.batch = id;
		i.next_at = day;                /* the caps refused it when they left 5 */
		CHECK_OK(store_batch_item_put(db, &i, 5));
		CHECK(next_of_batch(1, 5) == 2 || FAULTED());
		CHECK(next_of_batch(1, 6) == 1 || FAULTED());
		CHECK(next_of_batch(day, 0) == 1 || FAULTED());
		CHECK(next_of_batch(-1, 0) == 1 || FAULTED());  /* no wait is that long: the clock was set back */
		CHECK_OK(store_batch_why(db, id, &why));
		CHECK(FAULTED() || str_eqz(buf_view(&why), "why"));
		i.tries = 1;                    /* what was begun before comes behind what was not */
		i.next_at = 0;
		CHECK_OK(store_batch_item_put(db, &i, -1));
		CHECK(next_of_batch(1, 9) == 2 || FAULTED());
		i.state = BATCH_RUNS;
		CHECK_OK(store_batch_item_put(db, &i, -1));
		CHECK_OK(store_batch_open(db, 0, &n));
		CHECK(FAULTED() || n == 1);
		CHECK_OK(store_batch_open(db, k, &n));
		CHECK(FAULTED() || n == 2);
		CHECK_OK(store_batches_load(db));
		ONE("SELECT count(*) FROM batch_items WHERE state = 0", 2);
		CHECK_OK(store_batch_item_ends(db, &i, BATCH_FAILED, S("{}")));
		CHECK_OK(store_batch_get(db, id, 0, &b));
		CHECK(FAULTED() || (b.key == k && b.total == 2 && b.done == 0 && b.failed == 1 && b.completed_at == 0));
		i.id = 2;
		CHECK_OK(store_batches_expire(db, INT64_MAX));  /* it is not complete */
		CHECK_OK(store_batch_item_ends(db, &i, BATCH_DONE, S("{}")));
		CHECK_OK(store_batch_get(db, id, k, &b));
		CHECK(FAULTED() || (b.done == 1 && b.failed == 1 && b.completed_at > 0));
		CHECK_OK(store_batches_expire(db, b.completed_at));
		ONE("SELECT count(*) FROM batch_items WHERE request = ''", 2);
		CHECK_OK(store_batches_expire(db, INT64_MAX));
		ONE("SELECT (SELECT count(*) FROM batches) + (SELECT count(*) FROM batch_items)", 0);
	}
	buf_free(&why);
	scratch_end(&sc);
}

TEST(from_version_2)
{
	struct fail f = FAIL_INIT;

	if (begin()) {
		CHECK_OK(db_script(db, BACK_TO_2 "PRAGMA user_version = 2;"
		    " INSERT INTO users VALUES(1, 'P', 1)"));
		CHECK_OK(store_migrate(db, sc.path, &f));
		ONE("PRAGMA user_version", SCHEMA_VERSION);
		ONE("SELECT count(*) FROM users", 1);
		ONE("SELECT count(*) FROM api_keys", 0);
		ONE("SELECT count(*) FROM nonces", 0);
	}
	scratch_end(&sc);
}

TEST(from_version_3)
{
	struct fail f = FAIL_INIT;

	if (begin()) {
		CHECK_OK(db_script(db, BACK_TO_3 "PRAGMA user_version = 3; INSERT INTO api_keys VALUES(7, 0, 'n', 'h', 1, 0, 1, 0, 0, 0, 0)"));
		CHECK_OK(store_migrate(db, sc.path, &f));
		ONE("PRAGMA user_version", SCHEMA_VERSION);
		ONE("SELECT count(*) FROM api_keys WHERE id = 7", 1);
		ONE("SELECT count(*) FROM logins", 0);
		ONE("SELECT count(*) FROM sqlite_master WHERE name IN ('api_keys_minted_by', 'logins_key', 'logins_age')", 3);
	}
	scratch_end(&sc);
}

TEST(from_version_4)
{
	struct fail f = FAIL_INIT;

	if (begin()) {
		CHECK_OK(db_script(db, BACK_TO_4 "PRAGMA user_version = 4; INSERT INTO users VALUES(1, 'P', 1);"
		    "INSERT INTO sessions(id, agent, channel, chat, thread, user_id, created_at) VALUES(1, 'a', 'c', '1', '', 1, 1);"
		    "INSERT INTO inbound(session_id, channel, dedup, ref, sender, reply_to, text, state, sent_at, received_at)"
		    " VALUES(1, 'c', 'd', '', 's', '', 'text', 0, 1, 1)"));
		CHECK_OK(store_migrate(db, sc.path, &f));
		ONE("PRAGMA user_version", SCHEMA_VERSION);
		ONE("SELECT count(*) FROM inbound WHERE text = 'text' AND options = '' AND digest = ''", 1);
	}
	scratch_end(&sc);
}

/* What programs that tell the whole conversation each time are found by, and what becomes of it. */
TEST(conversations_of_programs)
{
	static const char rows[] = "INSERT INTO users VALUES(1, 'P', 1);"
	    "INSERT INTO sessions(id, agent, channel, chat, thread, user_id, prompt, model, thinking_seq, created_at)"
	    " VALUES(1, 'a', 'gateway', '7/x', '', 1, 'be kind', 'm', 2, 1), (2, 'a', 'gateway', '7/y', '', 1, NULL, '', 0, 1);"
	    "INSERT INTO inbound(id, session_id, channel, dedup, ref, sender, reply_to, text, state, sent_at, received_at, options, digest)"
	    " VALUES(3, 1, 'gateway', 'k', '', 's', 'k', 'one', 2, 1, 1, '{}', 'd1'),"
	    " (4, 1, 'gateway', 'l', '', 's', 'l', 'two', 2, 1, 1, '{}', 'd2'), (5, 1, 'gateway', 'm', '', 's', 'm', 'x', 2, 1, 1, '', 'd2'),"
	    " (6, 1, 'gateway', 'n', '', 's', 'n', 'y', 2, 1, 1, '', '');"
	    "INSERT INTO turns(id, session_id, inbound_id, outcome, round, created_at, updated_at) VALUES(10, 1, 3, 1, 2, 1, 1),"
	    " (11, 1, 4, 7, 0, 1, 1), (12, 1, 5, 3, 0, 1, 1);"
	    "INSERT INTO messages(id, session_id, seq, turn_id, role, content, void, created_at)"
	    " VALUES(1, 1, 1, 0, 'user', 'told', 0, 1), (2, 1, 2, 10, 'user', 'one', 0, 1),"
	    " (3, 1, 3, 10, 'assistant', 'ONE', 0, 1), (4, 1, 4, 11, 'user', 'two', 0, 1), (5, 1, 5, 12, 'user', 'void', 1, 1);"
	    "INSERT INTO media VALUES('h', 'image/png', 1, 1, 1, 0, 1); INSERT INTO media_uses VALUES('h', 1, 2);";
	struct usage u = { .input = 1, .output = 2, .cache_read = 3, .write_5m = 4, .write_1h = 5 };
	struct turn_row tip = { .id = 0 };

	if (begin()) {
		CHECK_OK(db_script(db, rows));
		SAW(store_inbound_digest(db, S("d2"), see_id, NULL), "5;4;");
		SAW(store_inbound_digest(db, S(""), see_id, NULL), "");
		CHECK_OK(store_session_tip(db, 1, &tip));
		CHECK((tip.id == 11 && tip.inbound == 4 && tip.outcome == OUTCOME_LENGTH) || FAULTED());
		CHECK_OK(store_session_tip(db, 2, &tip));
		CHECK(tip.id == 0 || FAULTED());
		CHECK_OK(store_session_branch(db, 1, 3, 2));
		SAW(store_messages(db, 2, 0, see_message, NULL), "1usertold;2userone;3assistantONE;");
		ONE("SELECT count(*) FROM sessions WHERE prompt = 'be kind' AND model = 'm' AND thinking_seq = 2", 2);
		ONE("SELECT count(*) FROM media_uses WHERE session_id = 2", 1);
		CHECK_OK(store_session_tip(db, 2, &tip));
		CHECK((tip.id == 10 && tip.inbound == 3 && tip.round == 2) || FAULTED());
		CHECK_OK(store_session_new_history(db, 1, 6));
		CHECK_OK(store_session_tip(db, 1, &tip));
		CHECK(tip.id == 0 || FAULTED());
		for (size_t i = 0; i < 3; i++)
			CHECK_OK(store_cost_add(db, &(struct reservation_row){ .feature = S("message"), .session = 1, .turn = i < 2 ? 10 : 11,
			    .provider = S("p"), .model = S("m"), .intended = S("m") }, &u, 1, false, STR_NONE));
		CHECK_OK(store_cost_turn(db, 10, &u));
		CHECK((u.input == 2 && u.output == 4 && u.cache_read == 6 && u.write_5m == 8 && u.write_1h == 10) || FAULTED());
		CHECK_OK(store_session_erase(db, 1));
		ONE("SELECT count(*) FROM inbound WHERE options <> '' OR digest <> ''", 0);
	}
	scratch_end(&sc);
}

/* An engine that fails at a chosen place of a migration. */
static const struct db_ops *real;
static bool fail_script, fail_commit;

static enum err
bad_script(void *engine, const char *sql)
{
	enum err e = real->script(engine, "CREATE TABLE IF NOT EXISTS half(x); INSERT INTO half VALUES(1)");

	if (!fail_script)
		return e == OK ? real->script(engine, sql) : e;
	return ERR_FULL;
}

static enum err
bad_commit(void *engine, bool light)
{
	return fail_commit ? ERR_IO : real->commit(engine, light);
}

TEST(migration_is_whole_or_not_at_all)
{
	const struct feature *sqlite = feature_find(FEATURE_STORAGE, S("sqlite"));
	struct db_ops ops = *sqlite->storage;
	struct fail f = FAIL_INIT;

	real = sqlite->storage;
	ops.script = bad_script;
	ops.commit = bad_commit;
	memset(&sc, 0, sizeof(sc));
	if (scratch_dir(&sc, "") == OK && db_open(&db, &ops, sc.path, false, DB_PROCESS, &f) == OK) {
		for (int i = 0; i < 2; i++) {
			fail_script = i == 0;
			fail_commit = i == 1;
			fail_clear(&f);
			CHECK(store_migrate(db, sc.path, &f) != OK);
			CHECK(FAULTED() || (strstr(f.text, sc.path) && strstr(f.text, "nothing was changed; next:")));
			ONE("PRAGMA user_version", 0);
			ONE("SELECT count(*) FROM sqlite_master", 0);
		}
		fail_commit = false;
		fail_clear(&f);
		CHECK_OK(store_migrate(db, sc.path, &f));
		ONE("SELECT count(*) > 0 FROM half", 1);
		db_close(db);
	} else {
		CHECK(FAULTED());
	}
	scratch_dir_end(&sc);
}

/* ---- people ------------------------------------------------------------------------------------- */

TEST(people)
{
	int64_t u1 = 0, u2 = 0, u3 = 0;
	bool paired = true;

	if (begin()) {
		CHECK_OK(store_user_for(db, S("telegram"), S("1"), S("Ann"), &u1));
		CHECK_OK(store_user_for(db, S("telegram"), S("1"), S("Another name"), &u2));
		CHECK_OK(store_user_for(db, S("shell"), S("1"), S("Ann"), &u3));
		CHECK(FAULTED() || (u1 > 0 && u1 == u2 && u3 != u1));
		CHECK_OK(store_paired(db, S("telegram"), S("1"), &paired));
		CHECK(!paired || FAULTED());
		CHECK_OK(store_pair(db, S("telegram"), S("1"), S("Ann")));
		CHECK_OK(store_pair(db, S("telegram"), S("2"), S("Bob")));      /* never wrote before */
		CHECK_OK(store_paired(db, S("telegram"), S("2"), &paired));
		CHECK(paired || FAULTED());
		CHECK_OK(store_paired(db, S("telegram"), S("3"), &paired));
		CHECK(!paired || FAULTED());
	}
	scratch_end(&sc);
}

TEST(pairing_codes)
{
	struct pairing p = { BUF_INIT(64), BUF_INIT(64), BUF_INIT(64) };
	int64_t now = clock_us(), n = 0;
	bool open = false;

	if (begin()) {
		CHECK_OK(store_pairing_add(db, S("A"), S("tg"), S("1"), S("Ann"), now + 10));
		CHECK_OK(store_pairing_add(db, S("B"), S("tg"), S("2"), S("Bob"), now + 20));
		CHECK_OK(store_pairing_open(db, S("tg"), S("1"), now + 9, &open));
		CHECK(open || FAULTED());
		CHECK_OK(store_pairing_open(db, S("tg"), S("1"), now + 10, &open));
		CHECK(!open || FAULTED());
		CHECK_OK(store_pairing_count(db, now - 1, &n));
		CHECK(n == 2 || FAULTED());
		CHECK_ERR(store_pairing_take(db, S("A"), now + 10, &p), ERR_NOTFOUND);     /* expired */
		CHECK_ERR(store_pairing_take(db, S("C"), now, &p), ERR_NOTFOUND);
		CHECK_OK(store_pairing_take(db, S("A"), now + 9, &p));
		CHECK(FAULTED() || (str_eqz(buf_view(&p.channel), "tg") && str_eqz(buf_view(&p.sender), "1") &&
		    str_eqz(buf_view(&p.name), "Ann")));
		CHECK_ERR(store_pairing_take(db, S("A"), now, &p), ERR_NOTFOUND);          /* used up */
		CHECK_OK(store_pairing_open(db, S("tg"), S("1"), now, &open));
		CHECK(!open || FAULTED());
		if (!FAULTED()) {
			char want[64];

			snprintf(want, sizeof(want), "B,tg,2,Bob,%lld;", (long long)now + 20);
			SAW(store_pairing_list(db, now, see_pairing, NULL), want);
		}
		CHECK_ERR(store_pairing_add(db, S("B"), S("tg"), S("3"), S("C"), now + 9), ERR_EXISTS);
		CHECK_OK(DB_EXEC(db, "UPDATE pairings SET expires_at = 1 WHERE code = ?1", DBZ("A")));
		CHECK_OK(store_pairing_add(db, S("D"), S("tg"), S("3"), S("C"), now + 9));
		ONE("SELECT count(*) FROM pairings WHERE code = 'A'", 0);        /* long gone ones are swept */
	}
	buf_free(&p.channel);
	buf_free(&p.sender);
	buf_free(&p.name);
	scratch_end(&sc);
}

TEST(facts)
{
	int64_t v = 0;

	if (begin()) {
		CHECK_OK(store_meta_get(db, "k", -5, &v));
		CHECK(v == -5 || FAULTED());
		CHECK_OK(store_meta_set(db, "k", INT64_MAX));
		CHECK_OK(store_meta_set(db, "k", INT64_MIN));
		CHECK_OK(store_meta_get(db, "k", 0, &v));
		CHECK(v == INT64_MIN || FAULTED());
	}
	scratch_end(&sc);
}

/* ---- conversations and messages ----------------------------------------------------------------- */

TEST(sessions)
{
	struct target to = chat_a;
	struct buf b = BUF_INIT(64);
	int64_t s1, s2 = -1, n = 0;

	if (begin()) {
		s1 = session("a");
		CHECK(s1 == session("a") || FAULTED());
		CHECK(s1 != session("b") || FAULTED());
		CHECK_OK(store_session_known(db, "test", &to, &s2));
		CHECK(s2 == s1 || FAULTED());
		to.thread = S("t");
		CHECK_OK(store_session_known(db, "test", &to, &s2));
		CHECK(s2 == 0 || FAULTED());
		CHECK_OK(store_session_count(db, &n));
		CHECK(n == 2 || FAULTED());
		SAW(store_session_get(db, s1, see_session, NULL), "0,0,1,a;");
		CHECK_ERR(store_session_get(db, 99, see_session, NULL), ERR_NOTFOUND);
		CHECK_ERR(store_session_prompt(db, s1, &b), ERR_NOTFOUND);
		CHECK_OK(store_session_set_prompt(db, s1, S("p")));
		CHECK_OK(store_session_prompt(db, s1, &b));
		CHECK(FAULTED() || str_eqz(buf_view(&b), "p"));
		CHECK_OK(store_message_add(db, s1, 4, 1, "user", S("[]")));
		CHECK_ERR(store_message_add(db, s1, 4, 1, "user", S("[]")), ERR_EXISTS);
		CHECK_OK(store_session_drop_thinking(db, s1, 3));
		CHECK_OK(store_session_new_history(db, s1, 5));
		CHECK_ERR(store_session_prompt(db, s1, &b), ERR_NOTFOUND);       /* the next history has the new one */
		SAW(store_session_get(db, s1, see_session, NULL), "5,3,5,a;");
	}
	buf_free(&b);
	scratch_end(&sc);
}

TEST(incoming)
{
	int64_t s1, s2, i1, i2, turn = 0, n = 0;
	bool found = false, applied = false;

	if (begin()) {
		s1 = session("a");
		s2 = session("b");
		i1 = inbound(s1, "d1", "one");
		i2 = inbound(s2, "d2", "two");
		CHECK(i1 > 0 && i2 > i1);
		CHECK(FAULTED() || inbound(s1, "d1", "repeat") == 0);
		inbound(s1, "d3", "three");
		CHECK_OK(store_inbound_queued(db, &n));
		CHECK(n == 3 || FAULTED());
		SAW(store_inbound_sessions(db, 10, see_id, NULL), "1;2;");
		SAW(store_inbound_sessions(db, 1, see_id, NULL), "1;");
		SAW(store_inbound_next(db, s1, see_inbound, NULL, &found), "one/r1/local;");
		CHECK(found || FAULTED());
		/* a correction reaches what has not begun */
		CHECK_OK(store_inbound_edit(db, s1, S("d1"), S("uno"), &applied));
		CHECK(applied || FAULTED());
		CHECK_OK(store_turn_add(db, s1, i1, &turn));
		CHECK_OK(store_inbound_set(db, i1, INBOUND_TAKEN));
		CHECK_OK(store_inbound_edit(db, s1, S("d1"), S("eins"), &applied));
		CHECK(applied || FAULTED());
		CHECK_OK(store_turn_save(db, &(struct turn_row){ .id = turn, .state = TURN_CALL }));
		CHECK_OK(store_inbound_edit(db, s1, S("d1"), S("late"), &applied));
		CHECK(!applied || FAULTED());
		CHECK_OK(store_inbound_edit(db, s2, S("d3"), S("another's"), &applied));
		CHECK(!applied || FAULTED());
		SAW(store_inbound_get(db, i1, see_inbound, NULL), "eins/r1/local;");
		CHECK_ERR(store_inbound_get(db, 99, see_inbound, NULL), ERR_NOTFOUND);
		SAW(store_inbound_next(db, s1, see_inbound, NULL, &found), "three/r1/local;");
		CHECK_OK(store_inbound_set(db, i2, INBOUND_DONE));
		CHECK_OK(store_inbound_next(db, s2, NULL, NULL, &found));
		CHECK(!found || FAULTED());
		/* what is done and old is forgotten, if it is not among the newest; its repeat is a new message then */
		CHECK_OK(store_inbound_expire(db, clock_us() + US_PER_S, 100));
		ONE("SELECT count(*) FROM inbound WHERE text = ''", 0);
		CHECK_OK(store_inbound_expire(db, clock_us() + US_PER_S, 0));
		ONE("SELECT count(*) FROM inbound WHERE text = ''", 1);
		CHECK(FAULTED() || inbound(s2, "d2", "much later") > 0);
		CHECK_OK(store_inbound_expire(db, clock_us() + US_PER_S, 0));
		ONE("SELECT count(*) FROM inbound WHERE text = ''", 1);
	}
	scratch_end(&sc);
}

/* ---- turns, history, journal ------------------------------------------------------------------------ */

TEST(turns)
{
	int64_t s, t1 = 0, t2 = 0, t3 = 0, n = 0;

	if (begin()) {
		s = session("a");
		CHECK_OK(store_turn_add(db, s, inbound(s, "1", "x"), &t1));
		CHECK_OK(store_turn_add(db, s, inbound(s, "2", "y"), &t2));
		CHECK_OK(store_turn_add(db, s, inbound(s, "3", "z"), &t3));
		SAW(store_turns_open(db, see_id, NULL), "1;2;3;");
		SAW(store_turn_get(db, t1, see_turn, NULL), "1,PREPARE,none,0,0,0,0,0,,;");
		CHECK_ERR(store_turn_get(db, 99, see_turn, NULL), ERR_NOTFOUND);
		CHECK_OK(store_turn_save(db, &(struct turn_row){ .id = t1, .state = TURN_STREAM, .round = 2, .attempt = 3,
		    .next_at = 44 }));
		CHECK_OK(store_turn_answer(db, t1, S("said"), S("part")));
		CHECK_OK(store_turn_partial(db, t1, S("parts\xC3\xA9")));
		CHECK_OK(store_turn_ref(db, t1, S("ref")));
		CHECK_OK(store_turn_partial_bytes(db, t1, &n));
		CHECK(n == 7 || FAULTED());        /* bytes, not characters */
		CHECK_OK(store_turn_save(db, &(struct turn_row){ .id = t2, .told = true, .waiting = true }));
		CHECK_OK(store_turn_save(db, &(struct turn_row){ .id = t3, .state = TURN_DONE, .outcome = OUTCOME_ANSWERED }));
		/* who only waited to be admitted was not being worked on */
		CHECK_OK(store_turns_died(db));
		SAW(store_turns_open(db, see_id, NULL), "1;2;");
		SAW(store_turn_get(db, t1, see_turn, NULL), "1,STREAM,none,2,3,44,1,0,said,ref;");
		SAW(store_turn_get(db, t2, see_turn, NULL), "2,PREPARE,none,0,0,0,0,1,,;");
		ONE("SELECT deaths FROM turns WHERE id = 3", 0);
	}
	scratch_end(&sc);
}

TEST(history)
{
	int64_t s, n = 0;

	if (begin()) {
		s = session("a");
		CHECK_OK(store_message_add(db, s, 3, 1, "user", S("c")));
		CHECK_OK(store_message_add(db, s, 1, 1, "user", S("a")));
		CHECK_OK(store_message_add(db, s, 2, 2, "assistant", S("b")));
		CHECK_OK(store_message_add(db, session("b"), 1, 3, "user", S("x")));
		SAW(store_messages(db, s, 0, see_message, NULL), "1usera;2assistantb;3userc;");
		SAW(store_messages(db, s, 2, see_message, NULL), "2assistantb;3userc;");
		SAW(store_message_page(db, s, &(struct page){ false, 1 }, see_message, NULL), "2assistantb;3userc;");
		SAW(store_message_page(db, s, &(struct page){ true, 0 }, see_message, NULL), "3userc;2assistantb;1usera;");
		SAW(store_message_page(db, s, &(struct page){ true, 3 }, see_message, NULL), "2assistantb;1usera;");
		SAW(store_messages(db, s, 0, see_message, &sc), "1usera;");     /* stopped by the callback */
		/* what compaction says again was not said */
		CHECK_OK(store_message_put(db, s, &(struct message_row){ 4, 1, MESSAGE_COPY, S("user"), S("c"), 7 }));
		SAW(store_messages(db, s, 3, see_message, NULL), "3userc;4userc;");
		SAW(store_messages_said(db, s, 2, see_message, NULL), "2assistantb;3userc;");
		CHECK_OK(store_messages_count(db, s, &n));
		CHECK(FAULTED() || n == 3);
		CHECK_OK(store_messages_void(db, 1));
		SAW(store_messages(db, s, 0, see_message, NULL), "2assistantb;");
		SAW(store_messages_said(db, s, 9, see_message, NULL), "2assistantb;");
		SAW(store_session_get(db, s, see_session, NULL), "0,0,5,a;");   /* its numbers are not used again */
	}
	scratch_end(&sc);
}

/* Tries of a compaction. */
TEST(compaction)
{
	int64_t s, tries = 9, at = 9, seq = 9;

	if (begin()) {
		s = session("a");
		CHECK_OK(store_session_compact_state(db, s, &tries, &at, &seq));
		CHECK(FAULTED() || (tries == 0 && at == 0 && seq == 0));
		CHECK_OK(store_session_compact_try(db, s, 2, 77, 5));
		CHECK_OK(store_session_compact_state(db, s, &tries, &at, &seq));
		CHECK(FAULTED() || (tries == 2 && at == 77 && seq == 5));
	}
	scratch_end(&sc);
}

TEST(journal)
{
	struct step_row m = { .state = STEP_RUNNING, .name = S("model"), .estimate = 9 };
	struct step_row t = { .idx = 2, .tool = true, .name = S("b"), .call_id = S("c2"), .input = S("{}") };
	int64_t s, turn = 0, id = 0, id2 = 0;

	if (begin()) {
		s = session("a");
		CHECK_OK(store_turn_add(db, s, inbound(s, "1", "x"), &turn));
		CHECK_OK(store_step_add(db, turn, 0, &t, &id));
		t.idx = 1;
		t.name = S("a");
		CHECK_OK(store_step_add(db, turn, 0, &t, &id2));
		CHECK_OK(store_step_add(db, turn, 1, &t, &id2));
		CHECK_OK(store_step_add(db, turn, 0, &m, &id2));
		SAW(store_steps(db, turn, 0, see_step, NULL), "0,0,1,model,,,,0;1,1,0,a,c2,{},,0;2,1,0,b,c2,{},,0;");
		CHECK_OK(store_step_set(db, id, STEP_DONE, true, S("out")));
		CHECK_OK(store_steps_interrupt(db, turn));
		SAW(store_steps(db, turn, 0, see_step, NULL), "0,0,3,model,,,,1;1,1,0,a,c2,{},,0;2,1,2,b,c2,{},out,1;");
	}
	scratch_end(&sc);
}

/* ---- outbox and money ----------------------------------------------------------------------------------- */

TEST(outbox)
{
	int64_t a = 0, b = 0, c = 0;

	if (begin()) {
		CHECK_OK(store_outbox_add(db, OUTBOX_REPLY, 1, 5, &chat_a, S("hello"), S("ph"), false, STR_NONE, &a));
		CHECK_OK(store_outbox_add(db, OUTBOX_NOTICE, 1, 0, &chat_a, S("busy"), STR_NONE, true, STR_NONE, &b));
		CHECK_OK(store_outbox_add(db, OUTBOX_REPLY, 1, 6, &chat_a, S("done"), STR_NONE, false, STR_NONE, &c));
		SAW(store_outbox_open(db, see_outbox, NULL), "ready,hello,ph,part 0,again 0,tries 0,at 0,;"
		    "ready,busy,,part 0,again 1,tries 0,at 0,;ready,done,,part 0,again 0,tries 0,at 0,;");
		CHECK_OK(store_outbox_state(db, a, OUTBOX_SENDING, 0, STR_NONE));
		CHECK_OK(store_outbox_retry(db, a, 77, DOUBT_AS_BEFORE, S("plain"), S("503")));
		SAW(store_outbox_get(db, a, see_outbox, NULL), "ready,hello,ph,part 0,again 0,tries 1,at 77,plain;");
		CHECK_OK(store_outbox_state(db, a, OUTBOX_SENDING, 0, STR_NONE));
		CHECK_OK(store_outbox_retry(db, a, 78, DOUBT_MAYBE_SENT, STR_NONE, S("lost")));
		CHECK_OK(store_outbox_retry(db, a, 79, DOUBT_AS_BEFORE, STR_NONE, S("503")));     /* once unsure stays unsure */
		SAW(store_outbox_get(db, a, see_outbox, NULL), "ready,hello,ph,part 0,again 1,tries 3,at 79,plain;");
		CHECK_OK(store_outbox_retry(db, a, 79, DOUBT_NONE, STR_NONE, S("moved")));      /* … or its channel knows */
		SAW(store_outbox_get(db, a, see_outbox, NULL), "ready,hello,ph,part 0,again 0,tries 4,at 79,plain;");
		CHECK_OK(store_outbox_retry(db, a, 79, DOUBT_MAYBE_SENT, STR_NONE, S("lost")));
		CHECK_OK(store_outbox_progress(db, a, 1, STR_NONE, S("m1")));           /* … until a part is confirmed */
		SAW(store_outbox_get(db, a, see_outbox, NULL), "ready,hello,ph,part 1,again 0,tries 0,at 79,plain;");
		CHECK_OK(store_outbox_state(db, b, OUTBOX_SENT, 0, STR_NONE));
		CHECK_OK(store_outbox_state(db, c, OUTBOX_SENDING, 55, STR_NONE));
		CHECK_OK(store_outbox_interrupted(db));
		SAW(store_outbox_open(db, see_outbox, NULL), "ready,hello,ph,part 1,again 0,tries 0,at 79,plain;"
		    "ready,done,,part 0,again 1,tries 0,at 0,;");
		CHECK_OK(store_outbox_give_up(db, 5));
		SAW(store_outbox_open(db, see_outbox, NULL), "ready,done,,part 0,again 1,tries 0,at 0,;");
		ONE("SELECT state FROM outbox WHERE id = 1", OUTBOX_FAILED);
		ONE("SELECT state FROM outbox WHERE id = 2", OUTBOX_SENT);
		SAW(store_outbox_get(db, 99, see_outbox, NULL), "");
	}
	scratch_end(&sc);
}

TEST(ledger)
{
	const struct usage u = { 1, 2, 3, 4, 5 };
	const struct reservation_row r = { .at = 7, .feature = S("message"), .session = 1, .turn = 2, .user = 3, .provider = S("p"),
	    .model = S("m"), .intended = S("n"), .input = 10, .answer = 20, .hour = true, .nano = 1000000000000 };
	struct reservation_row tool = r;
	int64_t nano = -1, id = 0, day = clock_day_start(clock_us());

	tool.feature = S("tool");
	tool.user = 4;
	if (begin()) {
		CHECK_OK(store_spent(db, 0, INT64_MAX, STR_NONE, 0, &nano));
		CHECK(nano == 0 || FAULTED());
		CHECK_OK(store_cost_add(db, &r, &u, 1000000000000, false, S("req")));
		CHECK_OK(store_cost_add(db, &tool, &u, 1, true, STR_NONE));
		CHECK_OK(store_cost_add(db, &tool, &u, 2, true, STR_NONE));
		ONE("SELECT count(*) FROM cost_days", 2);
		CHECK_OK(store_spent(db, day, day + 1, STR_NONE, 0, &nano));
		CHECK(nano == 1000000000003 || FAULTED());
		CHECK_OK(store_spent(db, day, day + 1, S("tool"), 0, &nano));
		CHECK(nano == 3 || FAULTED());
		CHECK_OK(store_spent(db, day, day + 1, STR_NONE, 3, &nano));
		CHECK(nano == 1000000000000 || FAULTED());
		CHECK_OK(store_spent(db, 0, day, STR_NONE, 0, &nano));
		CHECK(nano == 0 || FAULTED());
		CHECK_OK(store_spent(db, day + 1, INT64_MAX, STR_NONE, 0, &nano));
		CHECK(nano == 0 || FAULTED());
		CHECK_OK(store_reserve(db, &r, &id));
		CHECK_OK(store_reserve(db, &tool, &id));
		CHECK_OK(store_reserved(db, STR_NONE, 4, &nano));
		CHECK(nano == 1000000000000 || FAULTED());
		CHECK_OK(store_reserved(db, S("message"), 4, &nano));
		CHECK(nano == 0 || FAULTED());
		CHECK_OK(store_reservation_end(db, id));
		CHECK_OK(store_reserved(db, STR_NONE, 0, &nano));
		CHECK(nano == 1000000000000 || FAULTED());
		ONE("SELECT input + 10 * output + 100 * cache_read + 1000 * write_5m + 10000 * write_1h FROM cost_ledger"
		    " WHERE estimated AND nano_usd = 1", 54321);
	}
	scratch_end(&sc);
}

/* ---- credentials of the gateway ---------------------------------------------------------------------------- */

static void
see_key(void *arg, const struct api_key_row *k)
{
	(void)arg;
	buf_fmt(&seen, "%lld,%d,%.*s,%.*s,%u,%lld,%d,%lld,%d,%lld,%lld;", (long long)k->id, (int)k->kind, STR_ARG(k->name),
	    STR_ARG(k->hash), k->scopes, (long long)k->rate_per_minute, k->created_at > 0, (long long)k->expires_at,
	    k->revoked_at > 0, (long long)k->minted_by, (long long)k->used_at);
}

TEST(credentials)
{
	const struct api_key_row a = { .kind = API_KEY_DEVICE, .name = S("phone"), .hash = S("aa"), .scopes = SCOPE_CHAT,
	    .rate_per_minute = 6, .expires_at = 77, .minted_by = 5 };
	const struct api_key_row b = { .kind = API_KEY_TOKEN, .name = S("t"), .hash = S("bb"), .scopes = SCOPE_ALL };
	int64_t id = 0, n = -1, at = -1;

	if (begin()) {
		CHECK_ERR(store_api_key_find(db, S("aa"), see_key, NULL), ERR_NOTFOUND);
		CHECK_OK(store_api_key_add(db, &a, &id));
		CHECK(id == 1 || FAULTED());
		CHECK_OK(store_api_key_add(db, &b, &id));
		CHECK_ERR(store_api_key_add(db, &b, &id), ERR_EXISTS);
		SAW(store_api_key_find(db, S("aa"), see_key, NULL), "1,1,phone,aa,1,6,1,77,0,5,0;");
		SAW(store_api_key_get(db, 2, see_key, NULL), "2,2,t,bb,15,0,1,0,0,0,0;");
		CHECK_ERR(store_api_key_get(db, 3, see_key, NULL), ERR_NOTFOUND);
		CHECK_OK(store_api_key_used(db, 2, 99));
		SAW(store_api_keys(db, see_key, NULL), "1,1,phone,aa,1,6,1,77,0,5,0;2,2,t,bb,15,0,1,0,0,0,99;");
		CHECK_OK(store_api_key_count(db, &n));
		CHECK(n == 2 || FAULTED());
		CHECK_OK(store_api_key_revoke(db, 1));
		at = one("SELECT revoked_at FROM api_keys WHERE id = 1");
		CHECK_OK(DB_EXEC(db, "UPDATE api_keys SET revoked_at = 5 WHERE id = ?1", DBI(1)));
		CHECK_OK(store_api_key_revoke(db, 1));           /* the first time stays */
		ONE("SELECT revoked_at FROM api_keys WHERE id = 1", 5);
		CHECK(at > 5 || FAULTED());
		SAW(store_api_keys(db, see_key, NULL), "2,2,t,bb,15,0,1,0,0,0,99;");
		SAW(store_api_key_find(db, S("aa"), see_key, NULL), "1,1,phone,aa,1,6,1,77,1,5,0;");
		CHECK_OK(store_api_key_count(db, &n));
		CHECK(n == 1 || FAULTED());
		CHECK_ERR(store_api_key_add(db, &a, &id), ERR_EXISTS);   /* nor comes its hash back */
	}
	scratch_end(&sc);
}

TEST(minted_keys)
{
	const struct api_key_row k = { .kind = API_KEY_TOKEN, .name = S("n"), .hash = S("x"), .scopes = SCOPE_READ };
	struct buf a = BUF_INIT(71), b = BUF_INIT(71), small = BUF_INIT(70);
	struct sha256 h;
	unsigned char digest[SHA256_SIZE];
	struct buf hex = BUF_INIT(64);
	int64_t id = 0;

	if (begin()) {
		CHECK_OK(store_api_key_mint(db, &k, &a, &id));
		CHECK_OK(store_api_key_mint(db, &k, &b, &id));
		CHECK(FAULTED() || (a.n == 71 && str_starts(buf_view(&a), S("blf_sk_")) && !str_eq(buf_view(&a), buf_view(&b))));
		sha256_init(&h);
		sha256_update(&h, b.p, b.n);
		sha256_final(&h, digest);
		enc_hex(&hex, digest, sizeof(digest));
		CHECK_OK(store_api_key_find(db, buf_view(&hex), see_key, NULL));
		CHECK(FAULTED() || str_starts(buf_view(&seen), S("2,0,n,")));   /* kind and hash are its own */
		buf_free(&seen);
		CHECK(store_api_key_mint(db, &k, &small, &id) != OK);    /* a key that nobody gets is not stored */
		ONE("SELECT count(*) FROM api_keys", 2);
		CHECK(store_api_key_name(S("laptop")) && store_api_key_name(S("caf\xC3\xA9 2")));
		CHECK(!store_api_key_name(S("")) && !store_api_key_name(S("  ")) && !store_api_key_name(S("a\tb")));
		CHECK(!store_api_key_name(S("a\x7F")));
		CHECK(store_api_key_name(str_make(a.p, a.n > 64 ? 64 : a.n)) || FAULTED());
		CHECK(!store_api_key_name(str_make(a.p, a.n > 65 ? 65 : a.n)) || FAULTED());
	}
	buf_free(&a);
	buf_free(&b);
	buf_free(&small);
	buf_free(&hex);
	scratch_end(&sc);
}

TEST(nonces)
{
	const struct api_key_row k = { .kind = API_KEY_DEVICE, .hash = S("aa") }, k2 = { .kind = API_KEY_DEVICE, .hash = S("bb") };
	int64_t d1 = 0, d2 = 0;
	bool fresh = false;

	if (begin()) {
		CHECK_OK(store_api_key_add(db, &k, &d1));
		CHECK_OK(store_api_key_add(db, &k2, &d2));
		CHECK_OK(store_nonce_add(db, d1, S("n"), 1000, 180, &fresh));
		CHECK(fresh || FAULTED());
		CHECK_OK(store_nonce_add(db, d2, S("n"), 1001, 180, &fresh));
		CHECK(fresh || FAULTED());
		CHECK_OK(store_nonce_add(db, d1, S("n"), 1180, 180, &fresh));
		CHECK(!fresh || FAULTED());
		CHECK_OK(store_nonce_add(db, d1, S("m"), 1181, 180, &fresh));    /* the first is older than 180 now */
		ONE("SELECT count(*) FROM nonces", 2);
		CHECK_OK(store_nonce_add(db, d1, S("n"), 1181, 180, &fresh));
		CHECK(fresh || FAULTED());
	}
	scratch_end(&sc);
}

/* Nothing is written when the turn's transaction is undone. */
TEST(undone)
{
	int64_t n = -1;

	if (begin()) {
		CHECK_OK(db_commit(db));
		inbound(session("a"), "d", "t");
		db_rollback(db);
		CHECK_OK(store_inbound_queued(db, &n));
		CHECK(n == 0 || FAULTED());
		CHECK_OK(store_session_count(db, &n));
		CHECK(n == 0 || FAULTED());
		CHECK(inbound(session("a"), "d", "t") > 0);      /* and no repeat of what never was */
	}
	scratch_end(&sc);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));       /* a fault may have met it */
	RUN(schema);
	RUN(from_version_1);
	RUN(pages);
	RUN(jobs);
	RUN(heartbeat_items);
	RUN(batches);
	RUN(from_version_2);
	RUN(from_version_3);
	RUN(from_version_4);
	RUN(of_the_gateway);
	RUN(conversations_of_programs);
	RUN(migration_is_whole_or_not_at_all);
	RUN(people);
	RUN(pairing_codes);
	RUN(facts);
	RUN(sessions);
	RUN(incoming);
	RUN(turns);
	RUN(history);
	RUN(compaction);
	RUN(journal);
	RUN(outbox);
	RUN(ledger);
	RUN(credentials);
	RUN(minted_keys);
	RUN(nonces);
	RUN(undone);
	log_close();
	return TEST_END();
}
