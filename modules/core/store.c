/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * store.c - the schema and every SQL statement of the program.
 *
 * State is rows: what the daemon knows is what stands here, and a start (or a
 * failed commit) rebuilds memory from these functions alone. Ids are INTEGER
 * PRIMARY KEY, times integer microseconds UTC, the order inside a conversation
 * is messages.seq. Nothing here opens or ends a transaction: the first write of
 * a loop turn opens it, the turn's end commits it (db.h, agent.c).
 *
 * A row callback receives views that are valid during the call only, and must
 * not run the same statement again.
 */
#include "core.h"
#include "crypto/hmac.h"

static const char schema_1[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT NOT NULL, created_at INTEGER NOT NULL);"
    "CREATE TABLE identities(channel TEXT NOT NULL, external_id TEXT NOT NULL,"
    " user_id INTEGER NOT NULL REFERENCES users(id), paired_at INTEGER,"
    " PRIMARY KEY(channel, external_id)) WITHOUT ROWID;"
    "CREATE TABLE pairings(code TEXT PRIMARY KEY, channel TEXT NOT NULL, external_id TEXT NOT NULL,"
    " name TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
    "CREATE INDEX pairings_who ON pairings(channel, external_id);"
    "CREATE TABLE sessions(id INTEGER PRIMARY KEY, agent TEXT NOT NULL, channel TEXT NOT NULL, chat TEXT NOT NULL,"
    " thread TEXT NOT NULL, user_id INTEGER NOT NULL REFERENCES users(id), history_seq INTEGER NOT NULL DEFAULT 0,"
    " thinking_seq INTEGER NOT NULL DEFAULT 0, prompt TEXT, created_at INTEGER NOT NULL, UNIQUE(agent, channel, chat, thread));"
    /* state: 0 queued, 1 taken by a turn, 2 done */
    "CREATE TABLE inbound(id INTEGER PRIMARY KEY, session_id INTEGER NOT NULL REFERENCES sessions(id),"
    " channel TEXT NOT NULL, dedup TEXT NOT NULL, ref TEXT NOT NULL, sender TEXT NOT NULL, reply_to TEXT NOT NULL,"
    " text TEXT NOT NULL, state INTEGER NOT NULL, sent_at INTEGER NOT NULL, received_at INTEGER NOT NULL,"
    " UNIQUE(channel, dedup));"
    "CREATE INDEX inbound_open ON inbound(session_id, id) WHERE state = 0;"
    "CREATE INDEX inbound_age ON inbound(received_at) WHERE state = 2;"
    "CREATE TABLE messages(id INTEGER PRIMARY KEY, session_id INTEGER NOT NULL REFERENCES sessions(id),"
    " seq INTEGER NOT NULL, turn_id INTEGER NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL,"
    " void INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL, UNIQUE(session_id, seq));"
    "CREATE INDEX messages_turn ON messages(turn_id);"
    /* state and outcome: enum turn_state, enum turn_outcome of blufio.h */
    "CREATE TABLE turns(id INTEGER PRIMARY KEY, session_id INTEGER NOT NULL REFERENCES sessions(id),"
    " inbound_id INTEGER NOT NULL REFERENCES inbound(id), state INTEGER NOT NULL DEFAULT 0,"
    " outcome INTEGER NOT NULL DEFAULT 0, round INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0,"
    " next_at INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, told INTEGER NOT NULL DEFAULT 0,"
    " waiting INTEGER NOT NULL DEFAULT 0, answer TEXT NOT NULL DEFAULT '', partial TEXT NOT NULL DEFAULT '', ref TEXT NOT NULL DEFAULT '',"
    " created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL);"
    "CREATE INDEX turns_open ON turns(id) WHERE state < 5;";
static const char schema_1b[] =
    /* the journal: kind 0 model call, 1 tool call; state: enum step_state */
    "CREATE TABLE steps(id INTEGER PRIMARY KEY, turn_id INTEGER NOT NULL REFERENCES turns(id), round INTEGER NOT NULL,"
    " idx INTEGER NOT NULL, kind INTEGER NOT NULL, name TEXT NOT NULL, call_id TEXT NOT NULL, input TEXT NOT NULL,"
    " output TEXT NOT NULL DEFAULT '', failed INTEGER NOT NULL DEFAULT 0, state INTEGER NOT NULL,"
    " estimate INTEGER NOT NULL DEFAULT 0, started_at INTEGER NOT NULL, ended_at INTEGER);"
    "CREATE INDEX steps_turn ON steps(turn_id, round, idx);"
    /* state: enum outbox_state; kind: enum outbox_kind */
    "CREATE TABLE outbox(id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, session_id INTEGER NOT NULL, turn_id INTEGER NOT NULL,"
    " channel TEXT NOT NULL, chat TEXT NOT NULL, thread TEXT NOT NULL, reply_to TEXT NOT NULL, text TEXT NOT NULL,"
    " edit_ref TEXT NOT NULL, format TEXT NOT NULL DEFAULT '', part INTEGER NOT NULL DEFAULT 0,"
    " state INTEGER NOT NULL, repeated INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,"
    " next_at INTEGER NOT NULL DEFAULT 0, external_id TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '',"
    " created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL);"
    "CREATE INDEX outbox_open ON outbox(id) WHERE state < 2;"
    "CREATE INDEX outbox_turn ON outbox(turn_id) WHERE state < 2;"
    "CREATE TABLE cost_ledger(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, session_id INTEGER NOT NULL, turn_id INTEGER NOT NULL,"
    " feature TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,"
    " cache_read INTEGER NOT NULL, write_5m INTEGER NOT NULL, write_1h INTEGER NOT NULL, nano_usd INTEGER NOT NULL,"
    " estimated INTEGER NOT NULL);"
    "CREATE INDEX cost_ledger_at ON cost_ledger(at);";

/* Attachments, and the files they became; a model of one's own; buttons. */
static const char schema_2[] =
    "ALTER TABLE sessions ADD COLUMN model TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE outbox ADD COLUMN buttons TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE inbound ADD COLUMN album TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE inbound ADD COLUMN hold_until INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX inbound_album ON inbound(session_id, album) WHERE album <> '' AND state < 2;"
    /* kind: enum attachment_kind; state: enum attachment_state */
    "CREATE TABLE attachments(id INTEGER PRIMARY KEY, inbound_id INTEGER NOT NULL REFERENCES inbound(id),"
    " channel TEXT NOT NULL, position INTEGER NOT NULL, kind INTEGER NOT NULL, source TEXT NOT NULL, name TEXT NOT NULL,"
    " bytes INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,"
    " next_at INTEGER NOT NULL DEFAULT 0, hash TEXT NOT NULL DEFAULT '', text TEXT NOT NULL DEFAULT '', created_at INTEGER NOT NULL);"
    "CREATE INDEX attachments_inbound ON attachments(inbound_id);"
    "CREATE INDEX attachments_wanted ON attachments(id) WHERE state = 0;"
    "CREATE INDEX attachments_hash ON attachments(hash);"
    /* the files beside the database, by their SHA-256; gone: beyond the quota, the row is the note */
    "CREATE TABLE media(hash TEXT PRIMARY KEY, type TEXT NOT NULL, bytes INTEGER NOT NULL, width INTEGER NOT NULL,"
    " height INTEGER NOT NULL, gone INTEGER NOT NULL DEFAULT 0, used_at INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX media_age ON media(used_at) WHERE gone = 0;"
    "CREATE TABLE media_uses(hash TEXT NOT NULL REFERENCES media(hash), session_id INTEGER NOT NULL REFERENCES sessions(id),"
    " seq INTEGER NOT NULL, PRIMARY KEY(hash, session_id, seq)) WITHOUT ROWID;";

/* Credentials of the gateway, and the signatures that must not be accepted again. */
static const char schema_3[] =
    /* kind: enum api_key_kind; scopes: SCOPE_ bits; rate_per_minute, expires_at, revoked_at, minted_by, used_at: 0 none */
    "CREATE TABLE api_keys(id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL UNIQUE,"
    " scopes INTEGER NOT NULL, rate_per_minute INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,"
    " revoked_at INTEGER NOT NULL DEFAULT 0, minted_by INTEGER NOT NULL, used_at INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE nonces(device INTEGER NOT NULL REFERENCES api_keys(id), nonce TEXT NOT NULL, at INTEGER NOT NULL,"
    " PRIMARY KEY(device, nonce)) WITHOUT ROWID;"
    "CREATE INDEX nonces_at ON nonces(at);"
    /* a program asks for the answer to its message later */
    "CREATE INDEX turns_inbound ON turns(inbound_id);"
    "CREATE INDEX outbox_reply ON outbox(turn_id) WHERE kind = 0;";

/* What stands for a credential for a while: a browser's session, a ticket for one WebSocket. Ids are never given again:
 * a connection, or a ticket, knows its session by it. */
static const char schema_4[] =
    "CREATE TABLE logins(id INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER NOT NULL REFERENCES api_keys(id),"
    /* kind: enum login_kind; session: of a ticket, the login that asked for it; ends_at: of what it opens; both 0 none */
    " kind INTEGER NOT NULL, hash TEXT NOT NULL UNIQUE, session INTEGER NOT NULL, expires_at INTEGER NOT NULL,"
    " ends_at INTEGER NOT NULL);"
    "CREATE INDEX logins_key ON logins(key, kind);"
    "CREATE INDEX logins_age ON logins(expires_at);"
    "CREATE INDEX api_keys_minted_by ON api_keys(minted_by);";

/* What a program asks for beside its words, and a hash of all that it told of the conversation. */
static const char schema_5[] =
    "ALTER TABLE inbound ADD COLUMN options TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE inbound ADD COLUMN digest TEXT NOT NULL DEFAULT '';"
    "CREATE INDEX inbound_digest ON inbound(digest) WHERE digest <> '';";

/* What calls to a provider may cost while they run, and what they did cost, by day. */
static const char schema_6[] =
    "ALTER TABLE cost_ledger ADD COLUMN user_id INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE cost_ledger ADD COLUMN intended TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE cost_ledger ADD COLUMN request_id TEXT NOT NULL DEFAULT '';"
    "UPDATE cost_ledger SET intended = model,"
    " user_id = coalesce((SELECT user_id FROM sessions WHERE sessions.id = cost_ledger.session_id), 0);"
    "CREATE TABLE reservations(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, feature TEXT NOT NULL, session_id INTEGER NOT NULL,"
    " turn_id INTEGER NOT NULL, user_id INTEGER NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, intended TEXT NOT NULL,"
    " input INTEGER NOT NULL, answer INTEGER NOT NULL, hour INTEGER NOT NULL, nano_usd INTEGER NOT NULL);"
    /* sums of the ledger: day is its first microsecond (UTC) */
    "CREATE TABLE cost_days(day INTEGER NOT NULL, feature TEXT NOT NULL, user_id INTEGER NOT NULL, nano_usd INTEGER NOT NULL,"
    " PRIMARY KEY(day, feature, user_id)) WITHOUT ROWID;"
    "INSERT INTO cost_days SELECT at - at % 86400000000, feature, user_id, sum(nano_usd) FROM cost_ledger GROUP BY 1, 2, 3;"
    /* what the provider last said a conversation's prompt has, how far it went, for which model */
    "ALTER TABLE sessions ADD COLUMN prompt_tokens INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE sessions ADD COLUMN prompt_seq INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE sessions ADD COLUMN prompt_model TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE sessions ADD COLUMN cached_until INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE sessions ADD COLUMN tier INTEGER NOT NULL DEFAULT 0;"     /* enum tier of its newest message */
    /* number: as its person calls it; change: the newest of a person's changes that a history was told */
    "CREATE TABLE rules(id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users(id), number INTEGER NOT NULL,"
    " text TEXT NOT NULL, change INTEGER NOT NULL, removed INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL,"
    " UNIQUE(user_id, number));"
    "ALTER TABLE sessions ADD COLUMN rules_change INTEGER NOT NULL DEFAULT 0;";

/* Compaction: what stands in messages beside what was said, and the tries that failed. */
static const char schema_6b[] =
    "ALTER TABLE messages ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;"    /* enum message_kind */
    "ALTER TABLE sessions ADD COLUMN compact_tries INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE sessions ADD COLUMN compact_at INTEGER NOT NULL DEFAULT 0;"      /* not before */
    "ALTER TABLE sessions ADD COLUMN compact_seq INTEGER NOT NULL DEFAULT 0;";    /* tried up to here, not included */

/* What is done at its time, and what was said unasked. */
static const char schema_7[] =
    "ALTER TABLE inbound ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;"      /* enum inbound_kind */
    /* name: of the configuration, else empty; due_at: 0 to be found; over: it was taken away or has no more times */
    "CREATE TABLE jobs(id INTEGER PRIMARY KEY, session_id INTEGER NOT NULL REFERENCES sessions(id),"
    " user_id INTEGER NOT NULL REFERENCES users(id), name TEXT NOT NULL, schedule TEXT NOT NULL, text TEXT NOT NULL,"
    " report INTEGER NOT NULL, due_at INTEGER NOT NULL, over INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL);"
    "CREATE UNIQUE INDEX jobs_name ON jobs(name) WHERE name <> '';"
    "CREATE INDEX jobs_due ON jobs(due_at) WHERE over = 0;"
    /* each of a job's times once; missed: how many passed with it */
    "CREATE TABLE job_runs(id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL REFERENCES jobs(id), due_at INTEGER NOT NULL,"
    " at INTEGER NOT NULL, missed INTEGER NOT NULL, UNIQUE(job_id, due_at));"
    /* name: whose checklist; due_at: 0 without a time; tries: calls that were made for it; told: nothing more is to be done */
    "CREATE TABLE heartbeat_items(name TEXT NOT NULL, item TEXT NOT NULL, due_at INTEGER NOT NULL, tries INTEGER NOT NULL,"
    " told INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY(name, item, due_at)) WITHOUT ROWID;"
    /* shown: to the person; known: to the model of the conversation */
    "CREATE TABLE heartbeat_notes(id INTEGER PRIMARY KEY, session_id INTEGER NOT NULL REFERENCES sessions(id), text TEXT NOT NULL,"
    " shown INTEGER NOT NULL, known INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL);"
    "CREATE INDEX heartbeat_notes_open ON heartbeat_notes(session_id) WHERE shown = 0 OR known = 0;";

/* Requests that programs left to be answered. */
static const char schema_7b[] =
    "CREATE TABLE batches(id INTEGER PRIMARY KEY, key INTEGER NOT NULL REFERENCES api_keys(id), name TEXT NOT NULL,"
    " digest TEXT NOT NULL, total INTEGER NOT NULL, created_at INTEGER NOT NULL, completed_at INTEGER NOT NULL DEFAULT 0);"
    "CREATE UNIQUE INDEX batches_name ON batches(key, name) WHERE name <> '';"
    "CREATE INDEX batches_key ON batches(key);"
    "CREATE INDEX batches_age ON batches(completed_at) WHERE completed_at > 0;"
    /* state: enum batch_state; room: of one that the caps refused, what they left then, else -1 */
    "CREATE TABLE batch_items(id INTEGER PRIMARY KEY, batch_id INTEGER NOT NULL REFERENCES batches(id), number INTEGER NOT NULL,"
    " state INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0, round INTEGER NOT NULL DEFAULT 0,"
    " next_at INTEGER NOT NULL DEFAULT 0, room INTEGER NOT NULL DEFAULT -1, request TEXT NOT NULL, answer TEXT NOT NULL DEFAULT '',"
    " UNIQUE(batch_id, number));"
    "CREATE INDEX batch_items_open ON batch_items(tries, id) WHERE state < 2;";

/* migrations[v] takes a database of version v to v + 1 (in parts: C99 promises strings of 4095 bytes) */
static const char *const migrations[SCHEMA_VERSION][2] = { { schema_1, schema_1b }, { schema_2, "" }, { schema_3, "" },
    { schema_4, "" }, { schema_5, "" }, { schema_6, schema_6b }, { schema_7, schema_7b } };

#define ROWS(db, r, sql, ...) \
	db_query((db), (r), (sql), (const struct db_val[]){ __VA_ARGS__ }, \
	    sizeof((const struct db_val[]){ __VA_ARGS__ }) / sizeof(struct db_val))

static enum err
get_i64(struct db *db, const char *sql, struct db_val v, int64_t dflt, int64_t *out)
{
	return db_get_i64(db, sql, &v, 1, dflt, out);
}

FALLIBLE
store_migrate(struct db *db, const char *path, struct fail *f)
{
	int64_t version;
	enum err e = db_get_i64(db, "PRAGMA user_version", NULL, 0, 0, &version);

	if (e != OK)
		return fail_set(f, e, "%s: cannot read the database (%s); next: check the file with"
		    " `ls -l %s`, or restore a backup", path, db->why, path);
	if (version > SCHEMA_VERSION)
		return fail_set(f, ERR_UNSUPPORTED, "%s: the database has schema version %lld, this"
		    " blufio (%s) knows up to %d; next: run the newer blufio that wrote it, or name"
		    " another file with `blufio config set storage.database_path /another/blufio.db`", path, (long long)version,
		    BLUFIO_VERSION, SCHEMA_VERSION);
	for (; version < SCHEMA_VERSION; version++) {
		char done[64];

		snprintf(done, sizeof(done), "PRAGMA user_version = %d", (int)version + 1);
		e = db_begin(db);
		for (size_t i = 0; i < ARRAY_LEN(migrations[0]) && e == OK; i++)
			e = db_script(db, migrations[version][i]);
		if (e == OK)
			e = db_script(db, done);
		if (e == OK)
			e = db_commit(db);
		if (e != OK) {
			db_rollback(db);
			return fail_set(f, e, "%s: cannot bring the database from schema version %lld"
			    " to %lld (%s); nothing was changed; next: free space or permissions on"
			    " that disk, `df -h %s`", path, (long long)version,
			    (long long)version + 1, db->why, path);
		}
	}
	return OK;
}

FALLIBLE
store_meta_set(struct db *db, const char *key, int64_t value)
{
	return DB_EXEC(db, "INSERT INTO meta(key, value) VALUES(?1, ?2)"
	    " ON CONFLICT(key) DO UPDATE SET value = ?2", DBZ(key), DBI(value));
}

FALLIBLE
store_meta_get(struct db *db, const char *key, int64_t dflt, int64_t *out)
{
	return get_i64(db, "SELECT value FROM meta WHERE key = ?1", DBZ(key), dflt, out);
}

/* ---- people ------------------------------------------------------------------ */

FALLIBLE
store_user_for(struct db *db, struct str channel, struct str sender, struct str name, int64_t *user)
{
	const struct db_val who[] = { DBS(channel), DBS(sender) };
	int64_t id;
	enum err e = db_get_i64(db, "SELECT user_id FROM identities WHERE channel = ?1 AND external_id = ?2",
	    who, 2, 0, &id);

	if (e == OK && id == 0) {
		const struct db_val v[] = { DBS(name), DBI(clock_us()) };

		e = db_exec(db, "INSERT INTO users(name, created_at) VALUES(?1, ?2)", v, 2, &id, NULL);
		if (e == OK)
			e = DB_EXEC(db, "INSERT INTO identities(channel, external_id, user_id) VALUES(?1, ?2, ?3)",
			    DBS(channel), DBS(sender), DBI(id));
	}
	if (e == OK)
		*user = id;
	return e;
}

FALLIBLE
store_paired(struct db *db, struct str channel, struct str sender, bool *paired)
{
	const struct db_val who[] = { DBS(channel), DBS(sender) };
	int64_t at;
	enum err e = db_get_i64(db, "SELECT paired_at FROM identities WHERE channel = ?1 AND external_id = ?2",
	    who, 2, 0, &at);

	if (e == OK)
		*paired = at != 0;
	return e;
}

FALLIBLE
store_pair(struct db *db, struct str channel, struct str sender, struct str name)
{
	int64_t user;
	enum err e = store_user_for(db, channel, sender, name, &user);

	if (e != OK)
		return e;
	return DB_EXEC(db, "UPDATE identities SET paired_at = ?3 WHERE channel = ?1 AND external_id = ?2",
	    DBS(channel), DBS(sender), DBI(clock_us()));
}

/* One that would be alive for longer than a code is was made before the clock was set back: it counts
 * no more. */
FALLIBLE
store_pairing_add(struct db *db, struct str code, struct str channel, struct str sender, struct str name, int64_t expires)
{
	enum err e = DB_EXEC(db, "DELETE FROM pairings WHERE expires_at < ?1 OR expires_at > ?2",
	    DBI(clock_us() - 3600 * US_PER_S), DBI(clock_us() + PAIR_CODE_US));

	if (e != OK)
		return e;
	return DB_EXEC(db, "INSERT INTO pairings(code, channel, external_id, name, created_at, expires_at)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6)", DBS(code), DBS(channel), DBS(sender), DBS(name),
	    DBI(clock_us()), DBI(expires));
}

FALLIBLE
store_pairing_open(struct db *db, struct str channel, struct str sender, int64_t now, bool *open)
{
	const struct db_val v[] = { DBS(channel), DBS(sender), DBI(now), DBI(now + PAIR_CODE_US) };
	int64_t n;
	enum err e = db_get_i64(db, "SELECT count(*) FROM pairings WHERE channel = ?1 AND external_id = ?2"
	    " AND expires_at > ?3 AND expires_at <= ?4 AND used = 0", v, 4, 0, &n);

	if (e == OK)
		*open = n > 0;
	return e;
}

FALLIBLE
store_pairing_count(struct db *db, int64_t since, int64_t *n)
{
	const struct db_val v[] = { DBI(since), DBI(clock_us() + PAIR_CODE_US) };

	return db_get_i64(db, "SELECT count(*) FROM pairings WHERE created_at > ?1 AND expires_at <= ?2", v, 2, 0, n);
}

FALLIBLE
store_pairing_take(struct db *db, struct str code, int64_t now, struct pairing *out)
{
	struct db_row r;
	bool found;
	enum err e;

	ROWS(db, &r, "SELECT channel, external_id, name FROM pairings WHERE code = ?1 AND expires_at > ?2 AND expires_at <= ?3"
	    " AND used = 0", DBS(code), DBI(now), DBI(now + PAIR_CODE_US));
	found = db_step(&r);
	if (found) {
		buf_str(&out->channel, db_str(&r, 0));
		buf_str(&out->sender, db_str(&r, 1));
		buf_str(&out->name, db_str(&r, 2));
	}
	e = db_end(&r);
	if (e == OK && !found)
		return ERR_NOTFOUND;
	if (e == OK)
		e = DB_EXEC(db, "UPDATE pairings SET used = 1 WHERE code = ?1", DBS(code));
	if (e == OK && (out->channel.err != OK || out->sender.err != OK || out->name.err != OK))
		e = ERR_NOMEM;
	return e;
}

FALLIBLE
store_pairing_list(struct db *db, int64_t now, pairing_fn *fn, void *arg)
{
	struct db_row r;

	ROWS(db, &r, "SELECT code, channel, external_id, name, expires_at FROM pairings"
	    " WHERE expires_at > ?1 AND expires_at <= ?2 AND used = 0 ORDER BY created_at", DBI(now), DBI(now + PAIR_CODE_US));
	while (db_step(&r))
		fn(arg, db_str(&r, 0), db_str(&r, 1), db_str(&r, 2), db_str(&r, 3), db_i64(&r, 4));
	return db_end(&r);
}

/* ---- conversations ------------------------------------------------------------- */

FALLIBLE
store_session_known(struct db *db, const char *agent, const struct target *to, int64_t *id)
{
	const struct db_val v[] = { DBZ(agent), DBS(to->channel), DBS(to->chat), DBS(to->thread) };

	return db_get_i64(db, "SELECT id FROM sessions WHERE agent = ?1 AND channel = ?2 AND chat = ?3"
	    " AND thread = ?4", v, 4, 0, id);
}

FALLIBLE
store_session_find(struct db *db, const char *agent, const struct target *to, int64_t user, int64_t *id)
{
	const struct db_val v[] = { DBZ(agent), DBS(to->channel), DBS(to->chat), DBS(to->thread),
	    DBI(user), DBI(clock_us()) };
	enum err e = store_session_known(db, agent, to, id);

	if (e != OK || *id != 0)
		return e;
	return db_exec(db, "INSERT INTO sessions(agent, channel, chat, thread, user_id, created_at)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6)", v, 6, id, NULL);
}

FALLIBLE
store_session_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct session_row *r), void *arg)
{
	struct db_row r;
	bool found;
	enum err e;

	ROWS(db, &r, "SELECT id, user_id, history_seq, thinking_seq,"
	    " (SELECT coalesce(max(seq), 0) + 1 FROM messages WHERE session_id = sessions.id),"
	    " channel, chat, thread, model, prompt_tokens, prompt_seq, prompt_model,"
	    " cached_until, tier FROM sessions WHERE id = ?1", DBI(id));
	found = db_step(&r);
	if (found) {
		const struct session_row row = { db_i64(&r, 0), db_i64(&r, 1), db_i64(&r, 2),
		    db_i64(&r, 3), db_i64(&r, 4), { db_str(&r, 5), db_str(&r, 6), db_str(&r, 7), STR_NONE },
		    db_str(&r, 8), db_i64(&r, 9), db_i64(&r, 10), db_str(&r, 11), db_i64(&r, 12), db_i64(&r, 13) };

		fn(arg, &row);
	}
	e = db_end(&r);
	return e != OK ? e : found ? OK : ERR_NOTFOUND;
}

FALLIBLE
store_session_set_model(struct db *db, int64_t id, struct str model)
{
	return DB_EXEC(db, "UPDATE sessions SET model = ?2 WHERE id = ?1", DBI(id), DBS(model));
}

FALLIBLE
store_session_prompt_size(struct db *db, int64_t id, int64_t tokens, int64_t seq, struct str model, int64_t cached_until)
{
	return DB_EXEC(db, "UPDATE sessions SET prompt_tokens = ?2, prompt_seq = ?3, prompt_model = ?4, cached_until = ?5 WHERE id = ?1",
	    DBI(id), DBI(tokens), DBI(seq), DBS(model), DBI(cached_until));
}

FALLIBLE
store_session_tier(struct db *db, int64_t id, int64_t tier)
{
	return DB_EXEC(db, "UPDATE sessions SET tier = ?2 WHERE id = ?1", DBI(id), DBI(tier));
}

FALLIBLE
store_session_why(struct db *db, int64_t id, struct buf *model, struct buf *why)
{
	struct db_row r;

	ROWS(db, &r, "SELECT steps.name, steps.input FROM steps JOIN turns ON turns.id = steps.turn_id WHERE turns.id ="
	    " (SELECT max(id) FROM turns WHERE session_id = ?1) AND steps.kind = 0 ORDER BY steps.id DESC LIMIT 1", DBI(id));
	if (db_step(&r)) {
		buf_str(model, db_str(&r, 0));
		buf_str(why, db_str(&r, 1));
	}
	return db_end(&r);
}

FALLIBLE
store_session_pauses(struct db *db, int64_t id, int64_t from_seq, int64_t short_us, int64_t long_us, int64_t *n_short,
    int64_t *n_long)
{
	struct db_row r;

	*n_short = *n_long = 0;
	/* a turn's first row is the person's, its last one the answer */
	ROWS(db, &r, "SELECT count(*) FILTER (WHERE pause <= ?3), count(*) FILTER (WHERE pause > ?3 AND pause <= ?4) FROM"
	    " (SELECT min(created_at) - lag(max(created_at)) OVER (ORDER BY min(seq)) AS pause FROM messages"
	    " WHERE session_id = ?1 AND seq >= ?2 AND turn_id > 0 GROUP BY turn_id ORDER BY min(seq) DESC LIMIT 20)"
	    " WHERE pause IS NOT NULL",
	    DBI(id), DBI(from_seq), DBI(short_us), DBI(long_us));
	if (db_step(&r)) {
		*n_short = db_i64(&r, 0);
		*n_long = db_i64(&r, 1);
	}
	return db_end(&r);
}

FALLIBLE
store_session_new_history(struct db *db, int64_t id, int64_t seq)
{
	return DB_EXEC(db, "UPDATE sessions SET history_seq = ?2, prompt = NULL WHERE id = ?1", DBI(id), DBI(seq));
}

FALLIBLE
store_session_compact_state(struct db *db, int64_t id, int64_t *tries, int64_t *at, int64_t *seq)
{
	struct db_row r;

	*tries = *at = *seq = 0;
	ROWS(db, &r, "SELECT compact_tries, compact_at, compact_seq FROM sessions WHERE id = ?1", DBI(id));
	if (db_step(&r)) {
		*tries = db_i64(&r, 0);
		*at = db_i64(&r, 1);
		*seq = db_i64(&r, 2);
	}
	return db_end(&r);
}

FALLIBLE
store_session_compact_try(struct db *db, int64_t id, int64_t tries, int64_t at, int64_t seq)
{
	return DB_EXEC(db, "UPDATE sessions SET compact_tries = ?2, compact_at = ?3, compact_seq = ?4 WHERE id = ?1", DBI(id),
	    DBI(tries), DBI(at), DBI(seq));
}

FALLIBLE
store_session_drop_thinking(struct db *db, int64_t id, int64_t seq)
{
	return DB_EXEC(db, "UPDATE sessions SET thinking_seq = CASE ?2 WHEN 0 THEN (SELECT coalesce(max(seq), 0) + 1"
	    " FROM messages WHERE session_id = ?1) ELSE ?2 END WHERE id = ?1", DBI(id), DBI(seq));
}

FALLIBLE
store_session_prompt(struct db *db, int64_t id, struct buf *out)
{
	struct db_row r;
	bool found;
	enum err e;

	ROWS(db, &r, "SELECT prompt FROM sessions WHERE id = ?1 AND prompt IS NOT NULL", DBI(id));
	found = db_step(&r);
	if (found)
		buf_str(out, db_str(&r, 0));
	e = db_end(&r);
	return e != OK ? e : found ? out->err : ERR_NOTFOUND;
}

FALLIBLE
store_session_rules(struct db *db, int64_t id, int64_t *seen, int64_t *newest)
{
	struct db_row r;

	*seen = *newest = 0;
	ROWS(db, &r, "SELECT rules_change, (SELECT coalesce(max(change), 0) FROM rules WHERE rules.user_id = sessions.user_id)"
	    " FROM sessions WHERE id = ?1", DBI(id));
	if (db_step(&r)) {
		*seen = db_i64(&r, 0);
		*newest = db_i64(&r, 1);
	}
	return db_end(&r);
}

FALLIBLE
store_session_rules_told(struct db *db, int64_t id, int64_t change)
{
	return DB_EXEC(db, "UPDATE sessions SET rules_change = ?2 WHERE id = ?1", DBI(id), DBI(change));
}

FALLIBLE
store_rules(struct db *db, int64_t user, int64_t after, void (*fn)(void *arg, const struct rule_row *r), void *arg)
{
	struct db_row r;

	ROWS(db, &r, "SELECT number, text, removed FROM rules WHERE user_id = ?1 AND change > ?2 AND (?2 > 0 OR NOT removed)"
	    " ORDER BY CASE WHEN ?2 > 0 THEN change ELSE number END", DBI(user), DBI(after));
	while (db_step(&r)) {
		const struct rule_row row = { db_i64(&r, 0), db_str(&r, 1), db_i64(&r, 2) != 0 };

		fn(arg, &row);
	}
	return db_end(&r);
}

FALLIBLE
store_rules_count(struct db *db, int64_t user, int64_t *n)
{
	return get_i64(db, "SELECT count(*) FROM rules WHERE user_id = ?1 AND NOT removed", DBI(user), 0, n);
}

/* A number is never given twice. */
FALLIBLE
store_rule_add(struct db *db, int64_t user, struct str text, int64_t *number)
{
	enum err e = get_i64(db, "SELECT coalesce(max(number), 0) + 1 FROM rules WHERE user_id = ?1", DBI(user), 1, number);

	return e != OK ? e : DB_EXEC(db, "INSERT INTO rules(user_id, number, text, change, created_at) VALUES(?1, ?2, ?3,"
	    " (SELECT coalesce(max(change), 0) + 1 FROM rules WHERE user_id = ?1), ?4)", DBI(user), DBI(*number), DBS(text),
	    DBI(clock_us()));
}

FALLIBLE
store_rule_remove(struct db *db, int64_t user, int64_t number, bool *found)
{
	const struct db_val v[] = { DBI(user), DBI(number) };
	int64_t changed = 0;
	enum err e = db_exec(db, "UPDATE rules SET removed = 1, change = (SELECT max(change) + 1 FROM rules WHERE user_id = ?1)"
	    " WHERE user_id = ?1 AND number = ?2 AND NOT removed", v, 2, NULL, &changed);

	*found = e == OK && changed > 0;
	return e;
}

/* ---- what is done at its time --------------------------------------------------------- */

#define JOB_COLUMNS "SELECT id, session_id, user_id, name, schedule, text, report, due_at FROM jobs "

static void
job_rows(struct db_row *r, void (*fn)(void *arg, const struct job_row *j), void *arg)
{
	while (db_step(r)) {
		const struct job_row j = { db_i64(r, 0), db_i64(r, 1), db_i64(r, 2), db_str(r, 3), db_str(r, 4), db_str(r, 5),
		    db_i64(r, 6) != 0, db_i64(r, 7) };

		fn(arg, &j);
	}
}

FALLIBLE
store_jobs(struct db *db, int64_t session, void (*fn)(void *arg, const struct job_row *j), void *arg)
{
	struct db_row r;

	ROWS(db, &r, JOB_COLUMNS "WHERE over = 0 AND (?1 = 0 OR session_id = ?1) ORDER BY id", DBI(session));
	job_rows(&r, fn, arg);
	return db_end(&r);
}

FALLIBLE
store_job_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct job_row *j), void *arg)
{
	struct db_row r;

	ROWS(db, &r, JOB_COLUMNS "WHERE id = ?1", DBI(id));
	job_rows(&r, fn, arg);
	return db_end(&r);
}

FALLIBLE
store_jobs_due(struct db *db, int64_t now, int64_t limit, void (*fn)(void *arg, int64_t id), void *arg)
{
	struct db_row r;

	ROWS(db, &r, "SELECT id FROM jobs WHERE over = 0 AND due_at <= ?1 ORDER BY due_at, id LIMIT ?2", DBI(now), DBI(limit));
	while (db_step(&r))
		fn(arg, db_i64(&r, 0));
	return db_end(&r);
}

FALLIBLE
store_jobs_next(struct db *db, int64_t *id, int64_t *due_at)
{
	struct db_row r;

	*id = *due_at = 0;
	db_query(db, &r, "SELECT id, due_at FROM jobs WHERE over = 0 ORDER BY due_at, id LIMIT 1", NULL, 0);
	if (db_step(&r)) {
		*id = db_i64(&r, 0);
		*due_at = db_i64(&r, 1);
	}
	return db_end(&r);
}

FALLIBLE
store_jobs_count(struct db *db, int64_t user, int64_t *n)
{
	return get_i64(db, "SELECT count(*) FROM jobs WHERE over = 0 AND (?1 = 0 OR user_id = ?1)", DBI(user), 0, n);
}

FALLIBLE
store_job_add(struct db *db, const struct job_row *j, int64_t *id)
{
	const struct db_val v[] = { DBI(j->session), DBI(j->user), DBS(j->name), DBS(j->schedule), DBS(j->text), DBI(j->report),
	    DBI(j->due_at), DBI(clock_us()) };

	return db_exec(db, "INSERT INTO jobs(session_id, user_id, name, schedule, text, report, due_at, created_at)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", v, ARRAY_LEN(v), id, NULL);
}

FALLIBLE
store_job_put(struct db *db, const struct job_row *j)
{
	return DB_EXEC(db, "INSERT INTO jobs(session_id, user_id, name, schedule, text, report, due_at, created_at)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, 0, ?7) ON CONFLICT(name) WHERE name <> '' DO UPDATE SET session_id = ?1, user_id = ?2,"
	    " text = ?5, report = ?6, due_at = CASE WHEN schedule = ?4 AND over = 0 THEN due_at ELSE 0 END, schedule = ?4, over = 0",
	    DBI(j->session), DBI(j->user), DBS(j->name), DBS(j->schedule), DBS(j->text), DBI(j->report), DBI(clock_us()));
}

FALLIBLE
store_job_due(struct db *db, int64_t id, int64_t due_at)
{
	return DB_EXEC(db, "UPDATE jobs SET due_at = ?2, over = ?2 = 0 WHERE id = ?1", DBI(id), DBI(due_at));
}

FALLIBLE
store_job_run(struct db *db, int64_t id, int64_t due_at, int64_t missed, bool *fresh)
{
	const struct db_val v[] = { DBI(id), DBI(due_at), DBI(missed), DBI(clock_us()) };
	int64_t changes = 0;
	enum err e = db_exec(db, "INSERT INTO job_runs(job_id, due_at, missed, at) VALUES(?1, ?2, ?3, ?4)"
	    " ON CONFLICT(job_id, due_at) DO NOTHING", v, ARRAY_LEN(v), NULL, &changes);

	*fresh = e == OK && changes > 0;
	return e;
}

FALLIBLE
store_job_runs_expire(struct db *db, int64_t before, int64_t newest_kept)
{
	return DB_EXEC(db, "DELETE FROM job_runs WHERE at < ?1 AND id <= (SELECT max(id) FROM job_runs) - ?2", DBI(before),
	    DBI(newest_kept));
}

FALLIBLE
store_heartbeat_item(struct db *db, const char *name, struct str item, int64_t due_at, struct heartbeat_item *out)
{
	struct db_row r;
	bool found;
	enum err e;

	ROWS(db, &r, "SELECT due_at, tries, told FROM heartbeat_items WHERE name = ?1 AND item = ?2 AND (?3 = -1 OR due_at = ?3)"
	    " ORDER BY at DESC LIMIT 1", DBZ(name), DBS(item), DBI(due_at));
	found = db_step(&r);
	if (found)
		*out = (struct heartbeat_item){ db_i64(&r, 0), db_i64(&r, 1), db_i64(&r, 2) != 0 };
	e = db_end(&r);
	return e == OK && !found ? ERR_NOTFOUND : e;
}

/* Of what comes daily the newest are kept: enough for any clock that is set back. */
FALLIBLE
store_heartbeat_item_put(struct db *db, const char *name, struct str item, const struct heartbeat_item *i)
{
	enum err e = DB_EXEC(db, "INSERT INTO heartbeat_items(name, item, due_at, tries, told, at) VALUES(?1, ?2, ?3, ?4, ?5, ?6)"
	    " ON CONFLICT(name, item, due_at) DO UPDATE SET tries = ?4, told = ?5, at = ?6", DBZ(name), DBS(item), DBI(i->due_at),
	    DBI(i->tries), DBI(i->told), DBI(clock_us()));

	return e != OK ? e : DB_EXEC(db, "DELETE FROM heartbeat_items WHERE name = ?1 AND item = ?2 AND due_at NOT IN (SELECT due_at"
	    " FROM heartbeat_items WHERE name = ?1 AND item = ?2 ORDER BY at DESC LIMIT ?3)", DBZ(name), DBS(item),
	    DBI(HEARTBEAT_DAYS_KEPT));
}

FALLIBLE
store_heartbeat_note_add(struct db *db, int64_t session, struct str text, bool shown)
{
	return DB_EXEC(db, "INSERT INTO heartbeat_notes(session_id, text, shown, created_at) VALUES(?1, ?2, ?3, ?4)", DBI(session),
	    DBS(text), DBI(shown), DBI(clock_us()));
}

/* A person is shown the newest of them; there are more when nobody was here for weeks. */
FALLIBLE
store_heartbeat_notes(struct db *db, int64_t session, bool to_model, bool (*fn)(void *arg, struct str text), void *arg)
{
	static const char *const sql[][2] = {
		{ "SELECT text, id FROM (SELECT id, text FROM heartbeat_notes WHERE session_id = ?1 AND shown = 0 ORDER BY id DESC"
		  " LIMIT ?2) ORDER BY id",
		  "UPDATE heartbeat_notes SET shown = 1 WHERE session_id = ?1 AND id <= ?2" },
		{ "SELECT text, id FROM heartbeat_notes WHERE session_id = ?1 AND known = 0 ORDER BY id LIMIT ?2",
		  "UPDATE heartbeat_notes SET known = 1 WHERE session_id = ?1 AND id <= ?2" },
	};
	struct db_val v[] = { DBI(session), DBI(HEARTBEAT_NOTES_MAX) };
	struct db_row r;
	int64_t last = 0;
	enum err e;

	db_query(db, &r, sql[to_model][0], v, 2);
	while (db_step(&r) && fn(arg, db_str(&r, 0)))
		last = db_i64(&r, 1);
	e = db_end(&r);
	if (e != OK || last == 0)
		return e;
	v[1] = DBI(last);
	e = db_exec(db, sql[to_model][1], v, 2, NULL, NULL);
	return e != OK ? e : DB_EXEC(db, "DELETE FROM heartbeat_notes WHERE shown = 1 AND known = 1 AND session_id = ?1", DBI(session));
}

FALLIBLE
store_session_set_prompt(struct db *db, int64_t id, struct str prompt)
{
	return DB_EXEC(db, "UPDATE sessions SET prompt = ?2 WHERE id = ?1", DBI(id), DBS(prompt));
}

FALLIBLE
store_session_count(struct db *db, int64_t *n)
{
	return db_get_i64(db, "SELECT count(*) FROM sessions", NULL, 0, 0, n);
}

/* ---- incoming messages ------------------------------------------------------------ */

/* Not begun: still queued, or its turn is in PREPARE. */
#define NOT_BEGUN "(state = 0 OR (state = 1 AND id IN (SELECT inbound_id FROM turns WHERE session_id = ?1 AND state = 0)))"

FALLIBLE
store_inbound_add(struct db *db, int64_t session, const struct inbound *in, enum inbound_state state, int64_t *id)
{
	const struct db_val v[] = { DBI(session), DBS(in->to.channel), DBS(in->dedup), DBS(in->ref),
	    DBS(in->sender), DBS(in->to.reply_to), DBS(in->text), DBI(state), DBI(in->sent_at), DBI(clock_us()),
	    DBS(in->album), DBS(in->options), DBS(in->digest), DBI(in->kind) };
	int64_t changes;
	enum err e = db_exec(db, "INSERT INTO inbound(session_id, channel, dedup, ref, sender, reply_to, text,"
	    " state, sent_at, received_at, album, options, digest, kind)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
	    " ON CONFLICT(channel, dedup) DO NOTHING", v, ARRAY_LEN(v), id, &changes);

	if (e == OK && changes == 0)
		*id = 0;
	return e;
}

static enum err
inbound_row(struct db_row *r, void (*fn)(void *arg, const struct inbound_row *r), void *arg, bool *found)
{
	*found = db_step(r);
	if (*found && fn) {
		const struct inbound_row row = { db_i64(r, 0), db_i64(r, 1), db_str(r, 2), db_str(r, 3), db_str(r, 4),
		    db_i64(r, 5), db_i64(r, 6), db_i64(r, 7), db_str(r, 8), (enum inbound_kind)db_i64(r, 9) };

		fn(arg, &row);
	}
	return db_end(r);
}

#define INBOUND_COLUMNS "SELECT id, session_id, text, reply_to, sender, hold_until," \
	" (SELECT count(*) FROM attachments WHERE inbound_id = inbound.id), received_at, options, kind FROM inbound "

FALLIBLE
store_inbound_next(struct db *db, int64_t session, void (*fn)(void *arg, const struct inbound_row *r), void *arg, bool *found)
{
	struct db_row r;

	ROWS(db, &r, INBOUND_COLUMNS "WHERE session_id = ?1 AND state = 0 ORDER BY id LIMIT 1", DBI(session));
	return inbound_row(&r, fn, arg, found);
}

FALLIBLE
store_inbound_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct inbound_row *r), void *arg)
{
	struct db_row r;
	bool found;
	enum err e;

	ROWS(db, &r, INBOUND_COLUMNS "WHERE id = ?1", DBI(id));
	e = inbound_row(&r, fn, arg, &found);
	return e != OK ? e : found ? OK : ERR_NOTFOUND;
}

FALLIBLE
store_inbound_known(struct db *db, struct str channel, struct str dedup, int64_t *id)
{
	const struct db_val v[] = { DBS(channel), DBS(dedup) };

	return db_get_i64(db, "SELECT id FROM inbound WHERE channel = ?1 AND dedup = ?2", v, 2, 0, id);
}

FALLIBLE
store_inbound_digest(struct db *db, struct str digest, void (*fn)(void *arg, int64_t id), void *arg)
{
	struct db_row r;

	ROWS(db, &r, "SELECT id FROM inbound WHERE digest = ?1 AND digest <> '' ORDER BY id DESC LIMIT 16", DBS(digest));
	while (db_step(&r))
		fn(arg, db_i64(&r, 0));
	return db_end(&r);
}

FALLIBLE
store_inbound_turn(struct db *db, int64_t id, int64_t *turn)
{
	return get_i64(db, "SELECT max(id) FROM turns WHERE inbound_id = ?1", DBI(id), 0, turn);
}

FALLIBLE
store_reply(struct db *db, int64_t turn, struct buf *text, bool *found, bool *told)
{
	struct db_row r;
	enum err e;

	ROWS(db, &r, "SELECT text, external_id <> '' FROM outbox WHERE turn_id = ?1 AND kind = 0 ORDER BY id DESC LIMIT 1",
	    DBI(turn));
	*found = db_step(&r);
	if (*found)
		buf_str(text, db_str(&r, 0));
	if (told)
		*told = *found && db_i64(&r, 1) != 0;
	e = db_end(&r);
	return e != OK ? e : text->err;
}

FALLIBLE
store_notice(struct db *db, int64_t inbound, struct buf *text, bool *found)
{
	struct db_row r;
	enum err e;

	ROWS(db, &r, "SELECT coalesce((SELECT o.text FROM outbox o WHERE o.session_id = i.session_id AND o.reply_to = i.reply_to"
	    " AND o.kind = 1 ORDER BY o.id DESC LIMIT 1), '') FROM inbound i WHERE i.id = ?1 AND i.state = 2", DBI(inbound));
	*found = db_step(&r);
	if (*found)
		buf_str(text, db_str(&r, 0));
	e = db_end(&r);
	return e != OK ? e : text->err;
}

#define SESSION_LIST "SELECT s.id, s.created_at, coalesce((SELECT max(created_at) FROM messages m WHERE m.session_id = s.id)," \
    " s.created_at), s.chat, coalesce((SELECT external_id FROM identities i WHERE i.user_id = s.user_id AND" \
    " i.channel = s.channel), '') FROM sessions s WHERE s.channel = ?1 AND substr(s.chat, 1, length(?2)) = ?2 AND "

FALLIBLE
store_session_list(struct db *db, const char *channel, struct str prefix, const struct page *p,
    bool (*fn)(void *arg, const struct session_list_row *r), void *arg)
{
	struct db_row r;

	ROWS(db, &r, p->newest_first ? SESSION_LIST "s.id < ?3 ORDER BY s.id DESC" : SESSION_LIST "s.id > ?3 ORDER BY s.id",
	    DBZ(channel), DBS(prefix), DBI(p->after || !p->newest_first ? p->after : INT64_MAX));
	while (db_step(&r)) {
		const struct session_list_row row = { db_i64(&r, 0), db_i64(&r, 1), db_i64(&r, 2), db_str(&r, 3), db_str(&r, 4) };

		if (!fn(arg, &row))
			break;
	}
	return db_end(&r);
}

FALLIBLE
store_session_tip(struct db *db, int64_t id, struct turn_row *out)
{
	struct db_row r;

	*out = (struct turn_row){ .id = 0 };
	ROWS(db, &r, "SELECT t.id, t.inbound_id, t.round, t.outcome FROM messages m JOIN turns t ON t.id = m.turn_id"
	    " WHERE m.session_id = ?1 AND m.void = 0 AND m.seq >= (SELECT history_seq FROM sessions WHERE id = ?1)"
	    " ORDER BY m.seq DESC LIMIT 1", DBI(id));
	if (db_step(&r))
		*out = (struct turn_row){ .id = db_i64(&r, 0), .session = id, .inbound = db_i64(&r, 1), .round = db_i64(&r, 2),
		    .outcome = (enum turn_outcome)db_i64(&r, 3) };
	return db_end(&r);
}

FALLIBLE
store_session_branch(struct db *db, int64_t from, int64_t inbound, int64_t to)
{
	enum err e = DB_EXEC(db, "INSERT INTO messages(session_id, seq, turn_id, role, content, created_at, kind)"
	    " SELECT ?3, m.seq, m.turn_id, m.role, m.content, m.created_at, m.kind FROM messages m LEFT JOIN turns t ON t.id = m.turn_id"
	    " WHERE m.session_id = ?1 AND m.void = 0 AND m.seq >= (SELECT history_seq FROM sessions WHERE id = ?1)"
	    " AND coalesce(t.inbound_id, 0) <= ?2", DBI(from), DBI(inbound), DBI(to));

	if (e == OK)
		e = DB_EXEC(db, "INSERT INTO media_uses(hash, session_id, seq) SELECT hash, ?2, seq FROM media_uses"
		    " WHERE session_id = ?1", DBI(from), DBI(to));
	return e != OK ? e : DB_EXEC(db, "UPDATE sessions SET (prompt, model, thinking_seq) = (SELECT prompt, model, thinking_seq"
	    " FROM sessions WHERE id = ?1) WHERE id = ?2", DBI(from), DBI(to));
}

FALLIBLE
store_session_erase(struct db *db, int64_t id)
{
	enum err e = DB_EXEC(db, "DELETE FROM messages WHERE session_id = ?1", DBI(id));

	if (e == OK)
		e = DB_EXEC(db, "DELETE FROM media_uses WHERE session_id = ?1", DBI(id));
	if (e == OK)
		e = DB_EXEC(db, "UPDATE inbound SET text = '', options = '', digest = '' WHERE session_id = ?1", DBI(id));
	if (e == OK)
		e = DB_EXEC(db, "UPDATE outbox SET text = '' WHERE session_id = ?1", DBI(id));
	if (e == OK)
		e = DB_EXEC(db, "UPDATE steps SET input = '', output = '' WHERE turn_id IN (SELECT id FROM turns WHERE session_id = ?1)",
		    DBI(id));
	if (e == OK)
		e = DB_EXEC(db, "UPDATE turns SET answer = '', partial = '' WHERE session_id = ?1", DBI(id));
	if (e == OK)
		e = DB_EXEC(db, "UPDATE jobs SET text = '', over = 1 WHERE session_id = ?1", DBI(id));
	if (e == OK)
		e = DB_EXEC(db, "DELETE FROM heartbeat_notes WHERE session_id = ?1", DBI(id));
	return e != OK ? e : DB_EXEC(db, "UPDATE sessions SET channel = 'erased', chat = id, prompt = NULL WHERE id = ?1", DBI(id));
}

FALLIBLE
store_inbound_set(struct db *db, int64_t id, enum inbound_state state)
{
	return DB_EXEC(db, "UPDATE inbound SET state = ?2 WHERE id = ?1", DBI(id), DBI(state));
}

FALLIBLE
store_inbound_edit(struct db *db, int64_t session, struct str ref, struct str text, bool *applied)
{
	const struct db_val v[] = { DBI(session), DBS(ref), DBS(text) };
	int64_t changes;
	enum err e = db_exec(db, "UPDATE inbound SET text = ?3 WHERE session_id = ?1 AND ref = ?2 AND " NOT_BEGUN,
	    v, 3, NULL, &changes);

	if (e == OK)
		*applied = changes > 0;
	return e;
}

FALLIBLE
store_inbound_sessions(struct db *db, int64_t limit, void (*fn)(void *arg, int64_t session), void *arg)
{
	struct db_row r;

	ROWS(db, &r, "SELECT session_id FROM inbound WHERE state = 0 GROUP BY session_id ORDER BY min(id) LIMIT ?1",
	    DBI(limit));
	while (db_step(&r))
		fn(arg, db_i64(&r, 0));
	return db_end(&r);
}

FALLIBLE
store_chat_moved(struct db *db, struct str channel, struct str from, struct str to, bool *changed)
{
	const struct db_val v[] = { DBS(channel), DBS(from), DBS(to) };
	int64_t n[3] = { 0 };
	/* rows of conversations whose new chat has one already go on there */
#define MOVE(table, open) "UPDATE " table " SET session_id = (SELECT n.id FROM sessions o JOIN sessions n ON n.agent = o.agent" \
	" AND n.channel = o.channel AND n.thread = o.thread AND n.chat = ?3 WHERE o.id = " table ".session_id)" \
	" WHERE " open " AND session_id IN (SELECT o.id FROM sessions o JOIN sessions n ON n.agent = o.agent" \
	" AND n.channel = o.channel AND n.thread = o.thread AND n.chat = ?3 WHERE o.channel = ?1 AND o.chat = ?2)"
	enum err e = db_exec(db, "UPDATE outbox SET chat = ?3 WHERE channel = ?1 AND chat = ?2 AND state < 2", v, 3, NULL, &n[0]);

	if (e == OK)
		e = db_exec(db, MOVE("inbound", "state = 0"), v, 3, NULL, &n[1]);
	if (e == OK)
		e = db_exec(db, MOVE("jobs", "over = 0"), v, 3, NULL, NULL);
	if (e == OK)
		e = db_exec(db, "UPDATE OR IGNORE sessions SET chat = ?3 WHERE channel = ?1 AND chat = ?2", v, 3, NULL, &n[2]);
	if (e == OK)
		*changed = n[0] + n[1] + n[2] > 0;
	return e;
}

FALLIBLE
store_inbound_queued(struct db *db, int64_t *n)
{
	return db_get_i64(db, "SELECT count(*) FROM inbound WHERE state = 0", NULL, 0, 0, n);
}

FALLIBLE
store_inbound_expire(struct db *db, int64_t before, int64_t newest_kept)
{
	/* the message itself lives on in messages; turns keep their inbound row's text elsewhere */
	return DB_EXEC(db, "UPDATE inbound SET dedup = 'expired:' || id, text = '', options = '' WHERE state = 2"
	    " AND received_at < ?1 AND id <= (SELECT max(id) FROM inbound) - ?2 AND substr(dedup, 1, 8) <> 'expired:'",
	    DBI(before), DBI(newest_kept));
}

/* ---- albums and attachments ------------------------------------------------------------- */

FALLIBLE
store_album_find(struct db *db, int64_t session, struct str album, int64_t *inbound)
{
	const struct db_val v[] = { DBI(session), DBS(album) };

	return db_get_i64(db, "SELECT id FROM inbound WHERE session_id = ?1 AND album = ?2 AND album <> '' AND state < 2"
	    " AND " NOT_BEGUN " ORDER BY id DESC LIMIT 1", v, 2, 0, inbound);
}

FALLIBLE
store_album_join(struct db *db, int64_t inbound, struct str text, int64_t hold_until)
{
	return DB_EXEC(db, "UPDATE inbound SET hold_until = ?3, text = CASE WHEN ?2 = '' THEN text WHEN text = '' THEN ?2"
	    " ELSE text || char(10) || ?2 END WHERE id = ?1", DBI(inbound), DBS(text), DBI(hold_until));
}

FALLIBLE
store_inbound_hold(struct db *db, int64_t inbound, int64_t hold_until)
{
	return DB_EXEC(db, "UPDATE inbound SET hold_until = ?2 WHERE id = ?1", DBI(inbound), DBI(hold_until));
}

FALLIBLE
store_attachment_add(struct db *db, int64_t inbound, struct str channel, int64_t position, const struct attachment *at)
{
	return DB_EXEC(db, "INSERT INTO attachments(inbound_id, channel, position, kind, source, name, bytes, created_at, text)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)", DBI(inbound), DBS(channel), DBI(position), DBI(at->kind),
	    DBS(at->source), DBS(at->name), DBI(at->bytes), DBI(clock_us()), DBS(at->data));
}

FALLIBLE
store_attachment_data(struct db *db, int64_t id, void (*fn)(void *arg, struct str data), void *arg)
{
	struct db_row r;

	ROWS(db, &r, "SELECT text FROM attachments WHERE id = ?1 AND state = 0", DBI(id));
	if (db_step(&r))
		fn(arg, db_str(&r, 0));
	return db_end(&r);
}

FALLIBLE
store_attachments(struct db *db, int64_t inbound, void (*fn)(void *arg, const struct attachment_row *r), void *arg)
{
	struct db_row r;

	if (inbound)
		ROWS(db, &r, "SELECT id, kind, source, name, bytes, inbound_id, state, attempts, next_at, channel, hash,"
		    " CASE state WHEN 0 THEN '' ELSE text END FROM attachments WHERE inbound_id = ?1 ORDER BY position, id", DBI(inbound));
	else
		db_query(db, &r, "SELECT id, kind, source, name, bytes, inbound_id, state, attempts, next_at, channel, hash,"
		    " '' FROM attachments WHERE state = 0 ORDER BY id", NULL, 0);
	while (db_step(&r)) {
		const struct attachment_row row = {
			.at = { db_i64(&r, 0), (enum attachment_kind)db_i64(&r, 1), db_str(&r, 2), db_str(&r, 3), db_i64(&r, 4), STR_NONE },
			.inbound = db_i64(&r, 5), .state = (enum attachment_state)db_i64(&r, 6), .attempts = db_i64(&r, 7),
			.next_at = db_i64(&r, 8), .channel = db_str(&r, 9), .hash = db_str(&r, 10), .text = db_str(&r, 11),
		};

		fn(arg, &row);
	}
	return db_end(&r);
}

FALLIBLE
store_attachment_set(struct db *db, int64_t id, enum attachment_state state, struct str hash, struct str text)
{
	return DB_EXEC(db, "UPDATE attachments SET state = ?2, hash = ?3, text = ?4 WHERE id = ?1", DBI(id), DBI(state),
	    DBS(hash), DBS(text));
}

FALLIBLE
store_attachment_retry(struct db *db, int64_t id, int64_t attempts, int64_t next_at)
{
	return DB_EXEC(db, "UPDATE attachments SET attempts = ?2, next_at = ?3 WHERE id = ?1", DBI(id), DBI(attempts),
	    DBI(next_at));
}

FALLIBLE
store_attachments_drop(struct db *db, int64_t inbound, struct str why)
{
	return DB_EXEC(db, "UPDATE attachments SET state = ?3, text = ?2 WHERE inbound_id = ?1 AND state = 0", DBI(inbound),
	    DBS(why), DBI(ATTACHMENT_FAILED));
}

FALLIBLE
store_media_put(struct db *db, struct str hash, const struct media_row *m)
{
	return DB_EXEC(db, "INSERT INTO media(hash, type, bytes, width, height, used_at) VALUES(?1, ?2, ?3, ?4, ?5, ?6)"
	    " ON CONFLICT(hash) DO UPDATE SET gone = 0, used_at = ?6", DBS(hash), DBS(m->type), DBI(m->bytes), DBI(m->width),
	    DBI(m->height), DBI(clock_us()));
}

FALLIBLE
store_media_get(struct db *db, struct str hash, void (*fn)(void *arg, const struct media_row *m), void *arg, bool *found)
{
	struct db_row r;

	ROWS(db, &r, "SELECT type, bytes, width, height, gone FROM media WHERE hash = ?1", DBS(hash));
	*found = db_step(&r);
	if (*found && fn) {
		const struct media_row m = { db_str(&r, 0), db_i64(&r, 1), db_i64(&r, 2), db_i64(&r, 3), db_i64(&r, 4) != 0 };

		fn(arg, &m);
	}
	return db_end(&r);
}

/* Every file but ?1 and those of messages that are not answered yet. */
#define MAY_GO "gone = 0 AND hash <> ?1 AND NOT EXISTS (SELECT 1 FROM attachments a" \
    " JOIN inbound i ON i.id = a.inbound_id WHERE a.hash = media.hash AND i.state < 2)"

FALLIBLE
store_media_bytes(struct db *db, struct str keep, int64_t *sum, int64_t *can_go)
{
	enum err e = db_get_i64(db, "SELECT coalesce(sum(bytes), 0) FROM media WHERE gone = 0", NULL, 0, 0, sum);

	return e != OK ? e : get_i64(db, "SELECT coalesce(sum(bytes), 0) FROM media WHERE " MAY_GO, DBS(keep), 0, can_go);
}

FALLIBLE
store_media_oldest(struct db *db, struct str keep, struct buf *hash, int64_t *bytes)
{
	struct db_row r;
	enum err e;

	ROWS(db, &r, "SELECT hash, bytes FROM media WHERE " MAY_GO " ORDER BY EXISTS (SELECT 1 FROM"
	    " media_uses u JOIN sessions s ON s.id = u.session_id WHERE u.hash = media.hash"
	    " AND u.seq >= s.history_seq), used_at LIMIT 1", DBS(keep));
	buf_reset(hash);
	if (db_step(&r)) {
		buf_str(hash, db_str(&r, 0));
		*bytes = db_i64(&r, 1);
	}
	e = db_end(&r);
	return e != OK ? e : hash->err;
}

FALLIBLE
store_media_gone(struct db *db, struct str hash)
{
	return DB_EXEC(db, "UPDATE media SET gone = 1 WHERE hash = ?1", DBS(hash));
}

FALLIBLE
store_media_use(struct db *db, struct str hash, int64_t session, int64_t seq)
{
	return DB_EXEC(db, "INSERT INTO media_uses(hash, session_id, seq) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
	    DBS(hash), DBI(session), DBI(seq));
}

FALLIBLE
store_media_sessions(struct db *db, struct str hash, void (*fn)(void *arg, int64_t session), void *arg)
{
	struct db_row r;

	ROWS(db, &r, "SELECT DISTINCT session_id FROM media_uses u JOIN sessions s ON s.id = u.session_id WHERE hash = ?1"
	    " AND seq >= history_seq", DBS(hash));
	while (db_step(&r))
		fn(arg, db_i64(&r, 0));
	return db_end(&r);
}

/* ---- turns --------------------------------------------------------------------------- */

FALLIBLE
store_turn_add(struct db *db, int64_t session, int64_t inbound, int64_t *id)
{
	const struct db_val v[] = { DBI(session), DBI(inbound), DBI(clock_us()) };

	return db_exec(db, "INSERT INTO turns(session_id, inbound_id, created_at, updated_at) VALUES(?1, ?2, ?3, ?3)",
	    v, 3, id, NULL);
}

FALLIBLE
store_turn_save(struct db *db, const struct turn_row *t)
{
	return DB_EXEC(db, "UPDATE turns SET state = ?2, outcome = ?3, round = ?4, attempt = ?5, next_at = ?6,"
	    " deaths = ?7, told = ?8, waiting = ?9, updated_at = ?10 WHERE id = ?1", DBI(t->id), DBI(t->state),
	    DBI(t->outcome), DBI(t->round), DBI(t->attempt), DBI(t->next_at), DBI(t->deaths), DBI(t->told),
	    DBI(t->waiting), DBI(clock_us()));
}

FALLIBLE
store_turn_answer(struct db *db, int64_t id, struct str answer, struct str partial)
{
	return DB_EXEC(db, "UPDATE turns SET answer = ?2, partial = ?3 WHERE id = ?1", DBI(id), DBS(answer), DBS(partial));
}

FALLIBLE
store_turn_partial(struct db *db, int64_t id, struct str partial)
{
	return DB_EXEC(db, "UPDATE turns SET partial = ?2 WHERE id = ?1", DBI(id), DBS(partial));
}

FALLIBLE
store_turn_ref(struct db *db, int64_t id, struct str ref)
{
	return DB_EXEC(db, "UPDATE turns SET ref = ?2 WHERE id = ?1", DBI(id), DBS(ref));
}

FALLIBLE
store_turn_partial_bytes(struct db *db, int64_t id, int64_t *n)
{
	return get_i64(db, "SELECT length(CAST(partial AS BLOB)) FROM turns WHERE id = ?1", DBI(id), 0, n);
}

FALLIBLE
store_turns_open(struct db *db, void (*fn)(void *arg, int64_t id), void *arg)
{
	struct db_row r;

	db_query(db, &r, "SELECT id FROM turns WHERE state < 5 ORDER BY id", NULL, 0);
	while (db_step(&r))
		fn(arg, db_i64(&r, 0));
	return db_end(&r);
}

FALLIBLE
store_turn_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct turn_row *t), void *arg)
{
	struct db_row r;
	bool found;
	enum err e;

	ROWS(db, &r, "SELECT id, session_id, inbound_id, next_at, round, attempt, deaths, state, outcome, told,"
	    " answer, ref FROM turns WHERE id = ?1", DBI(id));
	found = db_step(&r);
	if (found) {
		const struct turn_row t = { .id = db_i64(&r, 0), .session = db_i64(&r, 1), .inbound = db_i64(&r, 2),
		    .next_at = db_i64(&r, 3), .round = db_i64(&r, 4), .attempt = db_i64(&r, 5), .deaths = db_i64(&r, 6),
		    .state = (enum turn_state)db_i64(&r, 7), .outcome = (enum turn_outcome)db_i64(&r, 8),
		    .told = db_i64(&r, 9) != 0, .answer = db_str(&r, 10), .ref = db_str(&r, 11) };

		fn(arg, &t);
	}
	e = db_end(&r);
	return e != OK ? e : found ? OK : ERR_NOTFOUND;
}

FALLIBLE
store_turns_died(struct db *db)
{
	/* one that waited, for admission, for its next try or a file's, or for its channel to take the reply, was not being
	 * worked on */
	return DB_EXEC(db, "UPDATE turns SET deaths = deaths + 1 WHERE state < 5 AND ((state < ?1 AND waiting = 0 AND next_at <= ?4"
	    " AND (state > 0 OR coalesce((SELECT min(next_at) FROM attachments WHERE inbound_id = turns.inbound_id"
	    " AND state = 0), 0) <= ?4))"
	    " OR EXISTS (SELECT 1 FROM outbox WHERE turn_id = turns.id AND kind = ?2 AND state < 2 AND state = ?3))",
	    DBI(TURN_REPLY), DBI(OUTBOX_REPLY), DBI(OUTBOX_SENDING), DBI(clock_us()));
}

FALLIBLE
store_outbox_give_up(struct db *db, int64_t turn)
{
	return DB_EXEC(db, "UPDATE outbox SET state = ?2, why = 'set aside' WHERE turn_id = ?1 AND state < 2",
	    DBI(turn), DBI(OUTBOX_FAILED));
}

/* ---- history ----------------------------------------------------------------------------- */

FALLIBLE
store_message_put(struct db *db, int64_t session, const struct message_row *m)
{
	return DB_EXEC(db, "INSERT INTO messages(session_id, seq, turn_id, role, content, created_at, kind)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)", DBI(session), DBI(m->seq), DBI(m->turn), DBS(m->role), DBS(m->content),
	    DBI(m->created_at), DBI(m->kind));
}

FALLIBLE
store_message_add(struct db *db, int64_t session, int64_t seq, int64_t turn, const char *role, struct str content)
{
	const struct message_row m = { seq, turn, MESSAGE_SAID, str_z(role), content, clock_us() };

	return store_message_put(db, session, &m);
}

FALLIBLE
store_messages_void(struct db *db, int64_t turn)
{
	return DB_EXEC(db, "UPDATE messages SET void = 1 WHERE turn_id = ?1", DBI(turn));
}

FALLIBLE
store_messages_count(struct db *db, int64_t session, int64_t *n)
{
	return get_i64(db, "SELECT count(*) FROM messages WHERE session_id = ?1 AND kind = 0 AND void = 0", DBI(session), 0, n);
}

#define MESSAGE_COLUMNS "seq, turn_id, kind, role, content, created_at"

static enum err
message_rows(struct db_row *r, bool (*fn)(void *arg, const struct message_row *m), void *arg)
{
	while (db_step(r)) {
		const struct message_row m = { db_i64(r, 0), db_i64(r, 1), (enum message_kind)db_i64(r, 2), db_str(r, 3), db_str(r, 4),
		    db_i64(r, 5) };

		if (!fn(arg, &m))
			break;
	}
	return db_end(r);
}

FALLIBLE
store_messages(struct db *db, int64_t session, int64_t from_seq, bool (*fn)(void *arg, const struct message_row *m), void *arg)
{
	return store_message_page(db, session, &(struct page){ .after = from_seq - 1 }, fn, arg);
}

#define MESSAGES "SELECT " MESSAGE_COLUMNS " FROM messages WHERE session_id = ?1 AND void = 0 AND "

FALLIBLE
store_message_page(struct db *db, int64_t session, const struct page *p,
    bool (*fn)(void *arg, const struct message_row *m), void *arg)
{
	struct db_row r;

	ROWS(db, &r, p->newest_first ? MESSAGES "seq < ?2 ORDER BY seq DESC" : MESSAGES "seq > ?2 ORDER BY seq", DBI(session),
	    DBI(p->after || !p->newest_first ? p->after : INT64_MAX));
	return message_rows(&r, fn, arg);
}

FALLIBLE
store_messages_said(struct db *db, int64_t session, int64_t newest, bool (*fn)(void *arg, const struct message_row *m), void *arg)
{
	struct db_row r;

	ROWS(db, &r, "SELECT * FROM (SELECT " MESSAGE_COLUMNS " FROM messages WHERE session_id = ?1 AND kind = 0 AND void = 0"
	    " ORDER BY seq DESC LIMIT ?2) ORDER BY seq", DBI(session), DBI(newest));
	return message_rows(&r, fn, arg);
}

/* ---- the journal of model and tool calls ---------------------------------------------------- */

FALLIBLE
store_step_add(struct db *db, int64_t turn, int64_t round, const struct step_row *s, int64_t *id)
{
	const struct db_val v[] = { DBI(turn), DBI(round), DBI(s->idx), DBI(s->tool), DBS(s->name), DBS(s->call_id),
	    DBS(s->input), DBI(s->state), DBI(s->estimate), DBI(clock_us()) };

	return db_exec(db, "INSERT INTO steps(turn_id, round, idx, kind, name, call_id, input, state, estimate, started_at)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)", v, ARRAY_LEN(v), id, NULL);
}

FALLIBLE
store_step_set(struct db *db, int64_t id, enum step_state state, bool failed, struct str output)
{
	return DB_EXEC(db, "UPDATE steps SET state = ?2, failed = ?3, output = ?4, ended_at = ?5 WHERE id = ?1",
	    DBI(id), DBI(state), DBI(failed), DBS(output), DBI(clock_us()));
}

FALLIBLE
store_steps(struct db *db, int64_t turn, int64_t round, void (*fn)(void *arg, const struct step_row *s), void *arg)
{
	struct db_row r;

	ROWS(db, &r, "SELECT id, idx, estimate, kind, state, name, call_id, input, output, failed FROM steps"
	    " WHERE turn_id = ?1 AND round = ?2 ORDER BY idx, id", DBI(turn), DBI(round));
	while (db_step(&r)) {
		const struct step_row s = { db_i64(&r, 0), db_i64(&r, 1), db_i64(&r, 2), db_i64(&r, 3) != 0,
		    (enum step_state)db_i64(&r, 4), db_str(&r, 5), db_str(&r, 6), db_str(&r, 7), db_str(&r, 8),
		    db_i64(&r, 9) != 0 };

		fn(arg, &s);
	}
	return db_end(&r);
}

FALLIBLE
store_steps_interrupt(struct db *db, int64_t turn)
{
	return DB_EXEC(db, "UPDATE steps SET state = ?2, failed = 1, ended_at = ?4 WHERE turn_id = ?1 AND state = ?3",
	    DBI(turn), DBI(STEP_INTERRUPTED), DBI(STEP_RUNNING), DBI(clock_us()));
}

/* ---- replies on their way out --------------------------------------------------------------- */

FALLIBLE
store_outbox_add(struct db *db, enum outbox_kind kind, int64_t session, int64_t turn, const struct target *to,
    struct str text, struct str edit_ref, bool repeated, struct str buttons, int64_t *id)
{
	const struct db_val v[] = { DBI(kind), DBI(session), DBI(turn), DBS(to->channel), DBS(to->chat), DBS(to->thread),
	    DBS(to->reply_to), DBS(text), DBS(edit_ref), DBI(repeated), DBI(OUTBOX_READY), DBI(clock_us()),
	    DBS(buttons) };

	return db_exec(db, "INSERT INTO outbox(kind, session_id, turn_id, channel, chat, thread, reply_to, text, edit_ref,"
	    " repeated, state, created_at, updated_at, buttons)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13)",
	    v, ARRAY_LEN(v), id, NULL);
}

FALLIBLE
store_outbox_state(struct db *db, int64_t id, enum outbox_state state, int64_t next_at, struct str why)
{
	return DB_EXEC(db, "UPDATE outbox SET state = ?2, next_at = ?3, why = ?4, updated_at = ?5 WHERE id = ?1",
	    DBI(id), DBI(state), DBI(next_at), DBS(why), DBI(clock_us()));
}

FALLIBLE
store_outbox_progress(struct db *db, int64_t id, int64_t part, struct str format, struct str external_id)
{
	return DB_EXEC(db, "UPDATE outbox SET part = ?2, format = CASE ?3 WHEN '' THEN format ELSE ?3 END,"
	    " external_id = ?4, repeated = 0, attempts = 0, updated_at = ?5 WHERE id = ?1", DBI(id), DBI(part),
	    DBS(format), DBS(external_id), DBI(clock_us()));
}

FALLIBLE
store_outbox_retry(struct db *db, int64_t id, int64_t next_at, enum doubt doubt, struct str format, struct str why)
{
	return DB_EXEC(db, "UPDATE outbox SET state = ?2, next_at = ?3, attempts = attempts + 1,"
	    " repeated = CASE ?4 WHEN 2 THEN 0 ELSE max(repeated, ?4) END, format = CASE ?5 WHEN '' THEN format ELSE ?5 END,"
	    " why = ?6, updated_at = ?7"
	    " WHERE id = ?1", DBI(id), DBI(OUTBOX_READY), DBI(next_at), DBI(doubt), DBS(format), DBS(why), DBI(clock_us()));
}

FALLIBLE
store_outbox_interrupted(struct db *db)
{
	return DB_EXEC(db, "UPDATE outbox SET state = ?1, repeated = 1, next_at = 0, updated_at = ?3 WHERE state = ?2",
	    DBI(OUTBOX_READY), DBI(OUTBOX_SENDING), DBI(clock_us()));
}

#define OUTBOX_COLUMNS "SELECT id, turn_id, session_id, channel, chat, thread, reply_to, text, edit_ref, format, part," \
	" repeated, attempts, kind, state, next_at, updated_at, buttons FROM outbox "

static void
outbox_rows(struct db_row *r, void (*fn)(void *arg, const struct outbox_row *r), void *arg)
{
	while (db_step(r)) {
		const struct outbox_row row = {
			.item = { .id = db_i64(r, 0), .turn = db_i64(r, 1), .session = db_i64(r, 2),
			    .to = { db_str(r, 3), db_str(r, 4), db_str(r, 5), db_str(r, 6) },
			    .text = db_str(r, 7), .edit_ref = db_str(r, 8), .format = db_str(r, 9),
			    .part = db_i64(r, 10), .repeated = db_i64(r, 11) != 0, .attempts = db_i64(r, 12),
			    .kind = (enum outbox_kind)db_i64(r, 13), .buttons = db_str(r, 17) },
			.state = (enum outbox_state)db_i64(r, 14), .next_at = db_i64(r, 15), .updated_at = db_i64(r, 16),
		};

		fn(arg, &row);
	}
}

FALLIBLE
store_outbox_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct outbox_row *r), void *arg)
{
	struct db_row r;

	ROWS(db, &r, OUTBOX_COLUMNS "WHERE id = ?1", DBI(id));
	outbox_rows(&r, fn, arg);
	return db_end(&r);
}

FALLIBLE
store_outbox_open(struct db *db, void (*fn)(void *arg, const struct outbox_row *r), void *arg)
{
	struct db_row r;

	db_query(db, &r, OUTBOX_COLUMNS "WHERE state < 2 ORDER BY id", NULL, 0);
	outbox_rows(&r, fn, arg);
	return db_end(&r);
}

/* ---- money ------------------------------------------------------------------------------------ */

FALLIBLE
store_reserve(struct db *db, const struct reservation_row *r, int64_t *id)
{
	const struct db_val v[] = { DBI(r->at), DBS(r->feature), DBI(r->session), DBI(r->turn), DBI(r->user), DBS(r->provider),
	    DBS(r->model), DBS(r->intended), DBI(r->input), DBI(r->answer), DBI(r->hour), DBI(r->nano) };

	return db_exec(db, "INSERT INTO reservations(at, feature, session_id, turn_id, user_id, provider, model, intended, input, answer,"
	    " hour, nano_usd) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)", v, ARRAY_LEN(v), id, NULL);
}

FALLIBLE
store_cost_turn(struct db *db, int64_t turn, struct usage *out)
{
	struct db_row r;

	*out = (struct usage){ 0 };
	ROWS(db, &r, "SELECT coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(cache_read), 0),"
	    " coalesce(sum(write_5m), 0), coalesce(sum(write_1h), 0) FROM cost_ledger WHERE turn_id = ?1"
	    " AND at >= (SELECT created_at FROM turns WHERE id = ?1)", DBI(turn));
	if (db_step(&r))
		*out = (struct usage){ db_i64(&r, 0), db_i64(&r, 1), db_i64(&r, 2), db_i64(&r, 3), db_i64(&r, 4) };
	return db_end(&r);
}

FALLIBLE
store_reservation_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct reservation_row *r), void *arg)
{
	struct db_row r;
	bool found;
	enum err e;

	ROWS(db, &r, "SELECT id, at, feature, session_id, turn_id, user_id, provider, model, intended, input, answer, hour, nano_usd"
	    " FROM reservations WHERE id = ?1", DBI(id));
	found = db_step(&r);
	if (found) {
		const struct reservation_row row = { db_i64(&r, 0), db_i64(&r, 1), db_str(&r, 2), db_i64(&r, 3), db_i64(&r, 4),
		    db_i64(&r, 5), db_str(&r, 6), db_str(&r, 7), db_str(&r, 8), db_i64(&r, 9), db_i64(&r, 10), db_i64(&r, 11) != 0,
		    db_i64(&r, 12) };

		fn(arg, &row);
	}
	e = db_end(&r);
	return e == OK && !found ? ERR_NOTFOUND : e;
}

FALLIBLE
store_reservations(struct db *db, void (*fn)(void *arg, int64_t id), void *arg)
{
	struct db_row r;

	db_query(db, &r, "SELECT id FROM reservations ORDER BY id", NULL, 0);
	while (db_step(&r))
		fn(arg, db_i64(&r, 0));
	return db_end(&r);
}

FALLIBLE
store_reservation_end(struct db *db, int64_t id)
{
	return DB_EXEC(db, "DELETE FROM reservations WHERE id = ?1", DBI(id));
}

FALLIBLE
store_reservation_received(struct db *db, int64_t id, int64_t *bytes)
{
	return get_i64(db, "SELECT coalesce((SELECT length(CAST(t.partial AS BLOB)) FROM turns t WHERE t.id = r.turn_id), 0)"
	    " FROM reservations r WHERE r.id = ?1", DBI(id), 0, bytes);
}

FALLIBLE
store_reserved(struct db *db, struct str feature, int64_t user, int64_t *nano)
{
	const struct db_val v[] = { DBS(feature), DBI(user) };

	return db_get_i64(db, "SELECT coalesce(sum(nano_usd), 0) FROM reservations WHERE (?1 = '' OR feature = ?1)"
	    " AND (?2 = 0 OR user_id = ?2)", v, 2, 0, nano);
}

FALLIBLE
store_cost_add(struct db *db, const struct reservation_row *r, const struct usage *u, int64_t nano, bool estimated,
    struct str request_id)
{
	int64_t now = clock_us();
	enum err e = DB_EXEC(db, "INSERT INTO cost_ledger(at, session_id, turn_id, feature, provider, model, input, output,"
	    " cache_read, write_5m, write_1h, nano_usd, estimated, user_id, intended, request_id)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)", DBI(now), DBI(r->session),
	    DBI(r->turn), DBS(r->feature), DBS(r->provider), DBS(r->model), DBI(u->input), DBI(u->output), DBI(u->cache_read),
	    DBI(u->write_5m), DBI(u->write_1h), DBI(nano), DBI(estimated), DBI(r->user), DBS(r->intended), DBS(request_id));

	if (e == OK && nano)
		e = DB_EXEC(db, "INSERT INTO cost_days(day, feature, user_id, nano_usd) VALUES(?1, ?2, ?3, ?4)"
		    " ON CONFLICT(day, feature, user_id) DO UPDATE SET nano_usd = nano_usd + ?4", DBI(clock_day_start(now)),
		    DBS(r->feature), DBI(r->user), DBI(nano));
	return e;
}

FALLIBLE
store_spent(struct db *db, int64_t from, int64_t to, struct str feature, int64_t user, int64_t *nano)
{
	const struct db_val v[] = { DBI(from), DBI(to), DBS(feature), DBI(user) };

	return db_get_i64(db, "SELECT coalesce(sum(nano_usd), 0) FROM cost_days WHERE day >= ?1 AND day < ?2"
	    " AND (?3 = '' OR feature = ?3) AND (?4 = 0 OR user_id = ?4)", v, 4, 0, nano);
}

FALLIBLE
store_cost_report(struct db *db, enum cost_by by, int64_t from, int64_t to,
    void (*fn)(void *arg, const struct cost_line *l), void *arg)
{
	/* whole statements: a column's name cannot be a parameter */
#define REPORT(column) "SELECT " column ", count(*), coalesce(sum(nano_usd), 0), sum(input + cache_read + write_5m + write_1h)," \
	" sum(cache_read), sum(output), sum(estimated) FROM cost_ledger WHERE at >= ?1 AND at < ?2 GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT 100"
	static const char *const sql[] = { REPORT("''"), REPORT("model"), REPORT("feature"), REPORT("session_id") };
	const struct db_val v[] = { DBI(from), DBI(to) };
	struct db_row r;

	db_query(db, &r, sql[by], v, 2);
	while (db_step(&r)) {
		const struct cost_line l = { db_str(&r, 0), db_i64(&r, 1), db_i64(&r, 2), db_i64(&r, 3), db_i64(&r, 4), db_i64(&r, 5),
		    db_i64(&r, 6) };

		fn(arg, &l);
	}
	return db_end(&r);
}

/* ---- credentials of the gateway ---------------------------------------------------------------- */

bool
store_api_key_name(struct str name)
{
	for (size_t i = 0; i < name.n; i++)
		if ((unsigned char)name.p[i] < ' ' || name.p[i] == 0x7F)
			return false;
	return str_trim(name).n > 0 && name.n <= API_KEY_NAME_MAX;
}

bool
store_api_key_device(struct str public)
{
	for (size_t i = 0; i < public.n; i++)
		if (str_chr(S("0123456789abcdef"), public.p[i]) == SIZE_MAX)
			return false;
	return public.n == API_KEY_DEVICE_HEX;
}

static void
put_hex(const unsigned char digest[SHA256_SIZE], char out[SECRET_HASH_SIZE])
{
	for (size_t i = 0; i < SHA256_SIZE; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

void
store_secret_hash(struct str secret, char out[SECRET_HASH_SIZE])
{
	unsigned char digest[SHA256_SIZE];
	struct sha256 h;

	sha256_init(&h);
	sha256_update(&h, secret.p, secret.n);
	sha256_final(&h, digest);
	put_hex(digest, out);
}

/* API_KEY_BYTES of chance in hex behind what secret holds, and the hash of it all. */
static FALLIBLE
make_secret(struct buf *secret, char hash[SECRET_HASH_SIZE])
{
	unsigned char chance[API_KEY_BYTES];
	enum err e = rand_bytes(chance, sizeof(chance));

	if (e == OK) {
		enc_hex(secret, chance, sizeof(chance));
		e = secret->err;
	}
	secret_wipe(chance, sizeof(chance));
	if (e == OK)
		store_secret_hash(buf_view(secret), hash);
	return e;
}

FALLIBLE
store_api_key_add(struct db *db, const struct api_key_row *k, int64_t *id)
{
	const struct db_val v[] = { DBI(k->kind), DBS(k->name), DBS(k->hash), DBI(k->scopes), DBI(k->rate_per_minute),
	    DBI(clock_us()), DBI(k->expires_at), DBI(k->minted_by) };

	return db_exec(db, "INSERT INTO api_keys(kind, name, hash, scopes, rate_per_minute, created_at, expires_at, minted_by)"
	    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", v, ARRAY_LEN(v), id, NULL);
}

FALLIBLE
store_api_key_mint(struct db *db, const struct api_key_row *k, struct buf *key, int64_t *id)
{
	struct api_key_row row = *k;
	char hash[SECRET_HASH_SIZE];
	enum err e;

	buf_puts(key, API_KEY_PREFIX);
	e = make_secret(key, hash);
	if (e != OK)
		return e;
	row.kind = API_KEY_SECRET;
	row.hash = str_z(hash);
	return store_api_key_add(db, &row, id);
}

#define API_KEY_COLUMNS "SELECT id, kind, name, hash, scopes, rate_per_minute, created_at, expires_at, revoked_at," \
	" minted_by, used_at FROM api_keys "

static int64_t
api_key_rows(struct db_row *r, api_key_fn *fn, void *arg)
{
	int64_t n = 0;

	for (; db_step(r); n++) {
		const struct api_key_row k = { .id = db_i64(r, 0), .kind = (enum api_key_kind)db_i64(r, 1), .name = db_str(r, 2),
		    .hash = db_str(r, 3), .scopes = (unsigned)db_i64(r, 4), .rate_per_minute = db_i64(r, 5),
		    .created_at = db_i64(r, 6), .expires_at = db_i64(r, 7), .revoked_at = db_i64(r, 8),
		    .minted_by = db_i64(r, 9), .used_at = db_i64(r, 10) };

		fn(arg, &k);
	}
	return n;
}

FALLIBLE
store_api_key_find(struct db *db, struct str hash, api_key_fn *fn, void *arg)
{
	struct db_row r;
	int64_t n;
	enum err e;

	ROWS(db, &r, API_KEY_COLUMNS "WHERE hash = ?1", DBS(hash));
	n = api_key_rows(&r, fn, arg);
	e = db_end(&r);
	return e != OK ? e : n > 0 ? OK : ERR_NOTFOUND;
}

FALLIBLE
store_api_key_get(struct db *db, int64_t id, api_key_fn *fn, void *arg)
{
	struct db_row r;
	int64_t n;
	enum err e;

	ROWS(db, &r, API_KEY_COLUMNS "WHERE id = ?1", DBI(id));
	n = api_key_rows(&r, fn, arg);
	e = db_end(&r);
	return e != OK ? e : n > 0 ? OK : ERR_NOTFOUND;
}

FALLIBLE
store_api_keys(struct db *db, api_key_fn *fn, void *arg)
{
	struct db_row r;

	db_query(db, &r, API_KEY_COLUMNS "WHERE revoked_at = 0 ORDER BY id", NULL, 0);
	(void)api_key_rows(&r, fn, arg);
	return db_end(&r);
}

FALLIBLE
store_api_key_count(struct db *db, int64_t *n)
{
	return db_get_i64(db, "SELECT count(*) FROM api_keys WHERE revoked_at = 0", NULL, 0, 0, n);
}

FALLIBLE
store_api_key_any(struct db *db, bool *any)
{
	int64_t n;
	enum err e = db_get_i64(db, "SELECT EXISTS(SELECT 1 FROM api_keys)", NULL, 0, 0, &n);

	if (e == OK)
		*any = n != 0;
	return e;
}

FALLIBLE
store_api_key_revoke(struct db *db, int64_t id)
{
	return DB_EXEC(db, "UPDATE api_keys SET revoked_at = ?2 WHERE revoked_at = 0 AND id IN (WITH RECURSIVE made(id) AS"
	    " (SELECT ?1 UNION SELECT k.id FROM api_keys k JOIN made ON k.minted_by = made.id) SELECT id FROM made)",
	    DBI(id), DBI(clock_us()));
}

FALLIBLE
store_api_key_holds(struct db *db, int64_t id, int64_t login, bool *holds)
{
	const struct db_val v[] = { DBI(id), DBI(login) };
	int64_t n;
	enum err e = db_get_i64(db, "SELECT EXISTS(SELECT 1 FROM api_keys WHERE id = ?1 AND revoked_at = 0)"
	    " AND (?2 = 0 OR EXISTS(SELECT 1 FROM logins WHERE id = ?2))", v, ARRAY_LEN(v), 0, &n);

	if (e == OK)
		*holds = n != 0;
	return e;
}

FALLIBLE
store_api_key_used(struct db *db, int64_t id, int64_t at)
{
	return DB_EXEC(db, "UPDATE api_keys SET used_at = ?2 WHERE id = ?1", DBI(id), DBI(at));
}

FALLIBLE
store_nonce_add(struct db *db, int64_t device, struct str nonce, int64_t now, int64_t keep_us, bool *fresh)
{
	const struct db_val v[] = { DBI(device), DBS(nonce), DBI(now) };
	int64_t changes;
	enum err e = db_exec(db, "INSERT INTO nonces(device, nonce, at) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
	    v, ARRAY_LEN(v), NULL, &changes);

	if (e == OK)
		e = DB_EXEC(db, "DELETE FROM nonces WHERE at < ?1", DBI(now - keep_us));
	if (e == OK)
		*fresh = changes > 0;
	return e;
}

/* ---- batches ---------------------------------------------------------------------------------------- */

FALLIBLE
store_batch_add(struct db *db, int64_t key, struct str name, struct str digest, int64_t total, int64_t *id)
{
	const struct db_val v[] = { DBI(key), DBS(name), DBS(digest), DBI(total), DBI(clock_us()) };

	return db_exec(db, "INSERT INTO batches(key, name, digest, total, created_at) VALUES(?1, ?2, ?3, ?4, ?5)", v, ARRAY_LEN(v), id,
	    NULL);
}

FALLIBLE
store_batch_item_add(struct db *db, int64_t batch, int64_t number, struct str request)
{
	return DB_EXEC(db, "INSERT INTO batch_items(batch_id, number, request) VALUES(?1, ?2, ?3)", DBI(batch), DBI(number),
	    DBS(request));
}

FALLIBLE
store_batch_known(struct db *db, int64_t key, struct str name, struct str digest, int64_t *id, bool *same)
{
	struct db_row r;

	*id = 0;
	ROWS(db, &r, "SELECT id, digest = ?3 FROM batches WHERE key = ?1 AND name = ?2 AND name <> ''", DBI(key), DBS(name), DBS(digest));
	if (db_step(&r)) {
		*id = db_i64(&r, 0);
		*same = db_i64(&r, 1) != 0;
	}
	return db_end(&r);
}

#define BATCH_COLUMNS "SELECT id, key, total, (SELECT count(*) FROM batch_items WHERE batch_id = b.id AND state = 2)," \
	" (SELECT count(*) FROM batch_items WHERE batch_id = b.id AND state = 3), created_at, completed_at FROM batches b "

static struct batch_row
batch_row(struct db_row *r)
{
	return (struct batch_row){ db_i64(r, 0), db_i64(r, 1), db_i64(r, 2), db_i64(r, 3), db_i64(r, 4), db_i64(r, 5), db_i64(r, 6) };
}

FALLIBLE
store_batch_get(struct db *db, int64_t id, int64_t key, struct batch_row *out)
{
	struct db_row r;
	bool found;
	enum err e;

	ROWS(db, &r, BATCH_COLUMNS "WHERE id = ?1 AND (?2 = 0 OR key = ?2)", DBI(id), DBI(key));
	found = db_step(&r);
	if (found)
		*out = batch_row(&r);
	e = db_end(&r);
	return e == OK && !found ? ERR_NOTFOUND : e;
}

FALLIBLE
store_batches(struct db *db, int64_t key, const struct page *p, bool (*fn)(void *arg, const struct batch_row *b), void *arg)
{
	bool more = true;
	struct db_row r;

	ROWS(db, &r, p->newest_first ? BATCH_COLUMNS "WHERE (?1 = 0 OR key = ?1) AND id < ?2 ORDER BY id DESC" :
	    BATCH_COLUMNS "WHERE (?1 = 0 OR key = ?1) AND id > ?2 ORDER BY id", DBI(key),
	    DBI(p->after || !p->newest_first ? p->after : INT64_MAX));
	while (more && db_step(&r)) {
		const struct batch_row b = batch_row(&r);

		more = fn(arg, &b);
	}
	return db_end(&r);
}

#define BATCH_ITEM_COLUMNS "SELECT i.id, batch_id, key, number, created_at, state, tries, round, next_at, request, answer" \
	" FROM batch_items i JOIN batches b ON b.id = batch_id WHERE "

static struct batch_item_row
batch_item_row(struct db_row *r)
{
	return (struct batch_item_row){ db_i64(r, 0), db_i64(r, 1), db_i64(r, 2), db_i64(r, 3), db_i64(r, 4),
	    (enum batch_state)db_i64(r, 5), db_i64(r, 6), db_i64(r, 7), db_i64(r, 8), db_str(r, 9), db_str(r, 10) };
}

FALLIBLE
store_batch_items(struct db *db, int64_t batch, const struct page *p, bool (*fn)(void *arg, const struct batch_item_row *i),
    void *arg)
{
	bool more = true;
	struct db_row r;

	ROWS(db, &r, p->newest_first ? BATCH_ITEM_COLUMNS "batch_id = ?1 AND i.id < ?2 ORDER BY i.id DESC" :
	    BATCH_ITEM_COLUMNS "batch_id = ?1 AND i.id > ?2 ORDER BY i.id", DBI(batch),
	    DBI(p->after || !p->newest_first ? p->after : INT64_MAX));
	while (more && db_step(&r)) {
		const struct batch_item_row i = batch_item_row(&r);

		more = fn(arg, &i);
	}
	return db_end(&r);
}

FALLIBLE
store_batch_why(struct db *db, int64_t batch, struct buf *out)
{
	struct db_row r;

	ROWS(db, &r, "SELECT answer FROM batch_items WHERE batch_id = ?1 AND state = 0 AND answer <> '' ORDER BY id LIMIT 1", DBI(batch));
	if (db_step(&r))
		buf_str(out, db_str(&r, 0));
	return db_end(&r);
}

FALLIBLE
store_batch_open(struct db *db, int64_t key, int64_t *n)
{
	return get_i64(db, "SELECT count(*) FROM batch_items WHERE state < 2 AND CASE WHEN ?1 = 0 THEN state = 0 ELSE"
	    " (SELECT key FROM batches WHERE id = batch_id) = ?1 END", DBI(key), 0, n);
}

/* A time that is farther away than any wait was set by a clock that was wrong. */
FALLIBLE
store_batch_next(struct db *db, int64_t now, int64_t room, void (*fn)(void *arg, const struct batch_item_row *i), void *arg)
{
	struct db_row r;

	ROWS(db, &r, BATCH_ITEM_COLUMNS "state < 2 AND state = 0 AND (next_at <= ?1 OR next_at > ?1 + 86400000000"
	    " OR (room >= 0 AND room < ?2)) ORDER BY tries, i.id LIMIT 1", DBI(now), DBI(room));
	if (db_step(&r)) {
		const struct batch_item_row i = batch_item_row(&r);

		fn(arg, &i);
	}
	return db_end(&r);
}

FALLIBLE
store_batch_item_put(struct db *db, const struct batch_item_row *i, int64_t room)
{
	return DB_EXEC(db, "UPDATE batch_items SET state = ?2, tries = ?3, round = ?4, next_at = ?5, answer = ?6, room = ?7"
	    " WHERE id = ?1", DBI(i->id), DBI(i->state), DBI(i->tries), DBI(i->round), DBI(i->next_at), DBS(i->answer), DBI(room));
}

FALLIBLE
store_batch_item_ends(struct db *db, const struct batch_item_row *i, enum batch_state state, struct str answer)
{
	enum err e = DB_EXEC(db, "UPDATE batch_items SET request = '', state = ?2, answer = ?3 WHERE id = ?1", DBI(i->id), DBI(state),
	    DBS(answer));

	return e != OK ? e : DB_EXEC(db, "UPDATE batches SET completed_at = ?2 WHERE id = ?1"
	    " AND NOT EXISTS(SELECT 1 FROM batch_items WHERE batch_id = ?1 AND state < 2)", DBI(i->batch), DBI(clock_us()));
}

FALLIBLE
store_batches_load(struct db *db)
{
	return db_exec(db, "UPDATE batch_items SET state = 0 WHERE state < 2 AND state = 1", NULL, 0, NULL, NULL);
}

FALLIBLE
store_batches_expire(struct db *db, int64_t before)
{
	enum err e = DB_EXEC(db, "DELETE FROM batch_items WHERE batch_id IN (SELECT id FROM batches WHERE completed_at > 0"
	    " AND completed_at < ?1)", DBI(before));

	return e != OK ? e : DB_EXEC(db, "DELETE FROM batches WHERE completed_at > 0 AND completed_at < ?1", DBI(before));
}

/* ---- what stands for a credential for a while ---------------------------------------------------- */

FALLIBLE
store_login_mint(struct db *db, const struct login_row *l, int64_t now, struct buf *secret, int64_t *id)
{
	char hash[SECRET_HASH_SIZE];
	enum err e = make_secret(secret, hash);

	if (e == OK)
		e = DB_EXEC(db, "DELETE FROM logins WHERE expires_at <= ?1", DBI(now));
	if (e == OK)
		e = DB_EXEC(db, "DELETE FROM logins WHERE id IN (SELECT id FROM logins WHERE key = ?1 AND kind = ?2"
		    " ORDER BY id DESC LIMIT -1 OFFSET ?3)", DBI(l->key), DBI(l->kind), DBI(LOGINS_MAX - 1));
	if (e == OK) {
		const struct db_val v[] = { DBI(l->key), DBI(l->kind), DBZ(hash), DBI(l->session),
		    DBI(l->expires_at), DBI(l->ends_at) };

		e = db_exec(db, "INSERT INTO logins(key, kind, hash, session, expires_at, ends_at)"
		    " VALUES(?1, ?2, ?3, ?4, ?5, ?6)", v, ARRAY_LEN(v), id, NULL);
	}
	return e;
}

FALLIBLE
store_login_find(struct db *db, enum login_kind kind, struct str secret, int64_t now, struct login_row *out)
{
	char hash[SECRET_HASH_SIZE];
	struct db_row r;
	bool found;
	enum err e;

	store_secret_hash(secret, hash);
	ROWS(db, &r, "SELECT id, key, session, expires_at, ends_at FROM logins l WHERE hash = ?1 AND kind = ?2"
	    " AND expires_at > ?3 AND expires_at <= ?4"
	    " AND (session = 0 OR EXISTS(SELECT 1 FROM logins WHERE id = l.session))", DBZ(hash), DBI(kind),
	    DBI(now), DBI(now + (kind == LOGIN_TICKET ? TICKET_US : SESSION_US)));
	found = db_step(&r);
	if (found)
		*out = (struct login_row){ .id = db_i64(&r, 0), .key = db_i64(&r, 1), .kind = kind, .session = db_i64(&r, 2),
		    .expires_at = db_i64(&r, 3), .ends_at = db_i64(&r, 4) };
	e = db_end(&r);
	return e != OK ? e : found ? OK : ERR_NOTFOUND;
}

FALLIBLE
store_login_end(struct db *db, int64_t id)
{
	return DB_EXEC(db, "DELETE FROM logins WHERE id = ?1", DBI(id));
}

void
store_login_csrf(struct str secret, char out[SECRET_HASH_SIZE])
{
	unsigned char tag[SHA256_SIZE];
	struct hmac256 m;

	hmac256_init(&m, secret.p, secret.n);
	hmac256_update(&m, "csrf", 4);
	hmac256_final(&m, tag);
	put_hex(tag, out);
}
