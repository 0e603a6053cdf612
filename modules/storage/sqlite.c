/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * sqlite.c - SQLite under db.h: one file, write-ahead log, checkpoints by its owner.
 *
 * The only file that includes sqlite3.h. It fills in struct db_ops and adds no
 * policy of its own: when to commit, what sticks and what is retried is db.c's.
 *
 * A commit appends to the -wal file and syncs it (power) or not (process). The
 * log is folded into the database only when its owner says so, because a
 * checkpoint in the middle of a loop turn costs milliseconds: on the worker
 * thread through a connection of its own (checkpoint_path), on the loop when the
 * log grew too long, and at close, so that at rest the one file is everything.
 *
 * Prepared statements are kept by the address of their text. A statement that
 * is being stepped is not shared: asking for the same text meanwhile prepares a
 * second one for the occasion, so a callback may query inside anybody's loop.
 *
 * Views returned by columns come without a terminating NUL: asking SQLite for
 * text would copy every value, asking for a blob hands out the row's own bytes.
 */
#include "blufio.h"

#include <assert.h>
#include <errno.h>
#include <sqlite3.h>
#include <sys/stat.h>

/* sqlite3_filename_wal and trusted_schema came with it. */
_Static_assert(SQLITE_VERSION_NUMBER >= 3031000, "blufio needs SQLite 3.31.0 or newer (docs/DEPENDENCIES.md)");

#define SLOTS (2u * DB_STMTS_MAX)       /* open addressing at most half full */
#define CACHE_KIB "1024"                /* page cache of a connection */
#define PRAGMAS "PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; " \
	"PRAGMA cache_size = -" CACHE_KIB "; PRAGMA synchronous = "
#define LOOKASIDE_SIZE 256              /* small-object pool: 16 KB instead of SQLite's 48 or 120 */
#define LOOKASIDE_COUNT 64

struct engine;
struct stmt {
	struct engine *engine;
	sqlite3_stmt *s;
	const char *sql;                // the caller's text: its address is the key
	enum err err;                   // a column could not be read
	bool busy, cached;
};

struct engine {
	sqlite3 *db;
	struct stmt *slots[SLOTS];
	size_t n_cached, n_busy;
	struct stmt *begin, *commit, *rollback;  // prepared at open: undoing needs no memory
	bool writable, power;
	/* The log file's methods with a sync of ours in front (see log_sync). */
	struct sqlite3_io_methods methods;
	int (*real_sync)(sqlite3_file *, int);
	int sync_errno;                 // why the last sync of the log failed
	bool light;                     // this commit does not wait for the disk
	bool unsynced;                  // light commits the disk may not have yet
	bool doubtful;                  // a sync of the log failed: a later one proves nothing (see mend)
	char why[256];
};

/* ---- errors -------------------------------------------------------------------- */

static enum err
map_code(int rc, int errnum)
{
	static const struct { int rc; enum err e; } map[] = {
		{ SQLITE_OK, OK }, { SQLITE_ROW, OK }, { SQLITE_DONE, OK },
		{ SQLITE_FULL, ERR_FULL }, { SQLITE_CANTOPEN, ERR_IO }, { SQLITE_NOMEM, ERR_NOMEM },
		{ SQLITE_CORRUPT, ERR_CORRUPT }, { SQLITE_NOTADB, ERR_CORRUPT },
		{ SQLITE_BUSY, ERR_BUSY }, { SQLITE_LOCKED, ERR_BUSY },
		{ SQLITE_READONLY, ERR_DENIED }, { SQLITE_PERM, ERR_DENIED },
		{ SQLITE_AUTH, ERR_DENIED }, { SQLITE_TOOBIG, ERR_LIMIT }, { SQLITE_NOLFS, ERR_LIMIT },
		{ SQLITE_INTERRUPT, ERR_CANCELLED }, { SQLITE_ABORT, ERR_CANCELLED },
		{ SQLITE_IOERR, ERR_IO },
	};
	/* SQL that is wrong, a constraint, misuse: ours to mend; and SQLITE_PROTOCOL: locks in disorder */
	enum err e = ERR_PROTO;

	if (rc == SQLITE_CONSTRAINT_UNIQUE || rc == SQLITE_CONSTRAINT_PRIMARYKEY ||
	    rc == SQLITE_CONSTRAINT_ROWID)
		return ERR_EXISTS;
	if (rc == SQLITE_IOERR_NOMEM)
		return ERR_NOMEM;
	for (size_t i = 0; i < ARRAY_LEN(map); i++)
		if (map[i].rc == (rc & 0xff))
			e = map[i].e;
	return e == ERR_IO && (errnum == ENOSPC || errnum == EDQUOT) ? ERR_FULL : e;
}

/* Keeps SQLite's words while they are fresh. */
static enum err
failed(struct engine *en, int rc)
{
	/* After a failed sync SQLite tidies up first, and asks for errno then. */
	int errnum = rc == SQLITE_IOERR_FSYNC && en->sync_errno != 0 ? en->sync_errno :
	    en->db != NULL ? sqlite3_system_errno(en->db) : 0;
	enum err e = map_code(rc, errnum);

	if ((e == ERR_IO || e == ERR_FULL) && errnum != 0)
		snprintf(en->why, sizeof(en->why), "%s (%s)", sqlite3_errmsg(en->db), strerror(errnum));
	else
		snprintf(en->why, sizeof(en->why), "%s", sqlite3_errmsg(en->db));
	return e;
}

static enum err
refused(struct engine *en, const char *why)
{
	snprintf(en->why, sizeof(en->why), "%.*s", (int)sizeof(en->why) - 1, why);
	return ERR_PROTO;
}

static const char *
sqlite_why(void *engine)
{
	return ((struct engine *)engine)->why;
}

/* ---- prepared statements --------------------------------------------------------- */

static void
discard(struct stmt *st)
{
	if (st == NULL)
		return;
	sqlite3_finalize(st->s);
	free(st);
}

static FALLIBLE
prepare(struct engine *en, const char *sql, bool keep, struct stmt **out)
{
	struct stmt *st = calloc(1, sizeof(*st));
	const char *tail = "";
	enum err e;
	int rc;

	if (st == NULL) {
		memcpy(en->why, "out of memory", sizeof("out of memory"));
		return ERR_NOMEM;
	}
	*st = (struct stmt){ .engine = en, .sql = sql, .cached = keep };
	rc = sqlite3_prepare_v3(en->db, sql, -1, keep ? SQLITE_PREPARE_PERSISTENT : 0, &st->s, &tail);
	e = rc == SQLITE_OK ? OK : failed(en, rc);
	/* A second statement behind the first would silently never run. */
	if (e == OK && (st->s == NULL || tail[strspn(tail, " \t\n;")] != '\0'))
		e = refused(en, "not exactly one statement");
	if (e != OK)
		discard(st);
	else
		*out = st;
	return e;
}

/* A statement for sql that nobody is stepping, marked busy. */
static FALLIBLE
take(struct engine *en, const char *sql, struct stmt **out)
{
	size_t i = (size_t)(((uintptr_t)sql * 2654435761u) >> 7) % SLOTS;
	struct stmt *st = NULL;
	bool keep;
	enum err e;

	while (en->slots[i] != NULL && en->slots[i]->sql != sql)
		i = (i + 1) % SLOTS;
	/* An address can be used again for another text; SQLite keeps a copy of the one it had. */
	if (en->slots[i] != NULL && !en->slots[i]->busy &&
	    strcmp(sqlite3_sql(en->slots[i]->s), sql) == 0)
		st = en->slots[i];
	if (st == NULL) {
		keep = en->slots[i] == NULL && en->n_cached < DB_STMTS_MAX;
		e = prepare(en, sql, keep, &st);
		if (e != OK)
			return e;
		if (keep) {
			en->slots[i] = st;
			en->n_cached++;
		}
	}
	st->busy = true;
	st->err = OK;
	en->n_busy++;
	*out = st;
	return OK;
}

static void
give_back(struct stmt *st)
{
	assert(st->busy);
	st->busy = false;
	st->engine->n_busy--;
	sqlite3_reset(st->s);           /* repeats the error that step reported */
	sqlite3_clear_bindings(st->s);
	if (!st->cached)
		discard(st);
}

static FALLIBLE
bind(struct stmt *st, const struct db_val *v, size_t n, sqlite3_destructor_type life)
{
	size_t i;
	int rc = SQLITE_OK;

	if (n != (size_t)sqlite3_bind_parameter_count(st->s))
		return refused(st->engine, "the number of values is not the number of parameters");
	for (i = 0; i < n && rc == SQLITE_OK; i++) {
		int at = (int)i + 1;

		if (v[i].n == DB_NULL)
			rc = sqlite3_bind_null(st->s, at);
		else if (v[i].n == DB_INT)
			rc = sqlite3_bind_int64(st->s, at, v[i].i);
		else
			rc = sqlite3_bind_text64(st->s, at, v[i].n ? v[i].text : "", v[i].n, life, SQLITE_UTF8);
	}
	return rc == SQLITE_OK ? OK : failed(st->engine, rc);
}

static FALLIBLE
sqlite_step(void *stmt, bool *row)
{
	struct stmt *st = stmt;
	int rc = sqlite3_step(st->s);

	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		return failed(st->engine, rc);
	*row = rc == SQLITE_ROW;
	return OK;
}

static FALLIBLE
sqlite_exec(void *engine, const char *sql, const struct db_val *v, size_t n, int64_t *last_id,
    int64_t *changes)
{
	struct engine *en = engine;
	struct stmt *st = NULL;
	bool row = true;
	enum err e = take(en, sql, &st);

	if (e != OK)
		return e;
	e = bind(st, v, n, SQLITE_STATIC);
	while (e == OK && row)
		e = sqlite_step(st, &row);
	if (e == OK && last_id != NULL)
		*last_id = sqlite3_last_insert_rowid(en->db);
	if (e == OK && changes != NULL)
		*changes = sqlite3_changes(en->db);
	give_back(st);
	return e;
}

/* Values are copied: the rows may be stepped long after the caller's views are gone. */
static FALLIBLE
sqlite_query(void *engine, const char *sql, const struct db_val *v, size_t n, void **stmt)
{
	struct stmt *st = NULL;
	enum err e = take(engine, sql, &st);

	if (e != OK)
		return e;
	e = bind(st, v, n, SQLITE_TRANSIENT);
	if (e == OK)
		*stmt = st;
	else
		give_back(st);
	return e;
}

static int64_t
sqlite_col_i64(void *stmt, int col)
{
	return sqlite3_column_int64(((struct stmt *)stmt)->s, col);
}

static struct str
sqlite_col_str(void *stmt, int col)
{
	struct stmt *st = stmt;
	int type = sqlite3_column_type(st->s, col);
	bool bytes = type == SQLITE_TEXT || type == SQLITE_BLOB;
	const void *p;
	int n;

	if (type == SQLITE_NULL)
		return STR_NONE;
	/* a number becomes its digits */
	p = bytes ? sqlite3_column_blob(st->s, col) : sqlite3_column_text(st->s, col);
	n = sqlite3_column_bytes(st->s, col);
	if (p != NULL)
		return str_make(p, (size_t)n);
	/* NULL is an empty text or blob; otherwise there was no memory for the bytes */
	if (n > 0 || !bytes)
		st->err = failed(st->engine, SQLITE_NOMEM);
	return S("");
}

static bool
sqlite_col_null(void *stmt, int col)
{
	return sqlite3_column_type(((struct stmt *)stmt)->s, col) == SQLITE_NULL;
}

static FALLIBLE
sqlite_end(void *stmt)
{
	enum err e = ((struct stmt *)stmt)->err;

	give_back(stmt);
	return e;
}

static FALLIBLE
sqlite_script(void *engine, const char *sql)
{
	struct engine *en = engine;
	int rc = sqlite3_exec(en->db, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? OK : failed(en, rc);
}

/* ---- transactions ------------------------------------------------------------------ */

static FALLIBLE
run(struct stmt *st)
{
	int rc = sqlite3_step(st->s);
	enum err e = rc == SQLITE_DONE ? OK : failed(st->engine, rc);

	sqlite3_reset(st->s);
	return e;
}

/* Some failures (disk full, I/O) make SQLite undo the transaction by itself:
 * then there is nothing left to roll back. */
static void
sqlite_rollback(void *engine)
{
	struct engine *en = engine;
	char why[sizeof(en->why)];

	if (sqlite3_get_autocommit(en->db))
		return;
	memcpy(why, en->why, sizeof(why));
	/* A failing ROLLBACK has still ended the transaction; the words worth
	 * keeping are those of the failure that led here. */
	IGNORE(run(en->rollback));
	memcpy(en->why, why, sizeof(why));
}

/* Stands before the log's own sync. SQLite decides whether a commit syncs when
 * its transaction begins, and we know it at the end; so its transactions always
 * sync, and a light one meets a sync that does nothing. That is what
 * synchronous = NORMAL would have done: checkpoints still sync the log first. */
static int
log_sync(sqlite3_file *file, int flags)
{
	const char *methods = (const char *)file->pMethods;
	struct engine *en = (struct engine *)(uintptr_t)(methods - offsetof(struct engine, methods));
	int rc;

	if (en->light)
		return SQLITE_OK;
	rc = en->real_sync(file, flags);
	if (rc == SQLITE_OK) {
		en->unsynced = false;
	} else {
		en->sync_errno = errno;
		en->doubtful = true;
	}
	return rc;
}

/* The open log file, with log_sync in place; NULL when there is none. */
static sqlite3_file *
log_file(struct engine *en)
{
	sqlite3_file *file = NULL;

	if (sqlite3_file_control(en->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file) != SQLITE_OK ||
	    file == NULL || file->pMethods == NULL)
		return NULL;
	if (file->pMethods != &en->methods) {
		en->real_sync = file->pMethods->xSync;
		en->methods = *file->pMethods;
		if (en->methods.iVersion > 3)   /* what a newer library adds we did not copy */
			en->methods.iVersion = 3;
		en->methods.xSync = log_sync;
		file->pMethods = &en->methods;
	}
	return file;
}

/* After a failed sync the kernel may take what it could not write for written, light
 * commits among it, and the next sync succeeds without them. So the log's bytes, which
 * can still be read, are written once more. Folding the log in would not do: a power
 * cut in the middle of it would find neither the log nor a whole file. */
static FALLIBLE
mend(struct engine *en)
{
	sqlite3_file *file = log_file(en);
	sqlite3_int64 size = 0, at;
	char part[4096];
	int rc = file != NULL ? file->pMethods->xFileSize(file, &size) : SQLITE_OK;

	for (at = 0; at < size && rc == SQLITE_OK; at += (int)sizeof(part)) {
		int n = size - at < (int)sizeof(part) ? (int)(size - at) : (int)sizeof(part);

		rc = file->pMethods->xRead(file, part, n, at);
		if (rc == SQLITE_OK)
			rc = file->pMethods->xWrite(file, part, n, at);
	}
	if (rc == SQLITE_OK && file != NULL)
		rc = file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
	if (rc == SQLITE_OK) {
		en->doubtful = false;
		return OK;
	}
	snprintf(en->why, sizeof(en->why), "the log could not be written again (%s)", strerror(errno));
	return map_code(rc, errno);
}

/* IMMEDIATE takes the write lock now: a foreign lock is met before the first write. */
static FALLIBLE
sqlite_begin(void *engine)
{
	struct engine *en = engine;
	enum err e;

	sqlite_rollback(en);            /* a script may have left one open */
	e = run(en->begin);
	if (e == OK)
		log_file(en);
	return e;
}

static FALLIBLE
sqlite_sync(void *engine)
{
	struct engine *en = engine;
	sqlite3_file *file = en->power && en->unsynced ? log_file(en) : NULL;
	int rc;

	if (file != NULL && en->doubtful)
		return mend(en);
	rc = file != NULL ? file->pMethods->xSync(file, SQLITE_SYNC_NORMAL) : SQLITE_OK;
	if (rc == SQLITE_OK)
		return OK;
	snprintf(en->why, sizeof(en->why), "the log could not be synced (%s)", strerror(en->sync_errno));
	return map_code(rc, en->sync_errno);
}

static FALLIBLE
sqlite_commit(void *engine, bool light)
{
	struct engine *en = engine;
	enum err e = en->doubtful ? mend(en) : OK;

	if (e != OK)
		return e;
	en->light = light;
	en->sync_errno = 0;
	e = run(en->commit);
	en->light = false;
	if (e == OK && light)
		en->unsynced = true;
	/* a transaction that changed no row has synced nothing either */
	if (e == OK && !light)
		e = sqlite_sync(en);
	return e;
}

/* ---- checkpoints and health ----------------------------------------------------------- */

static int
checkpoint(sqlite3 *db, int mode, int64_t *wal_pages, int64_t *done_pages)
{
	int wal = 0, done = 0;
	int rc = sqlite3_wal_checkpoint_v2(db, "main", mode, &wal, &done);

	if (rc == SQLITE_OK && wal_pages != NULL)
		*wal_pages = wal > 0 ? wal : 0;
	if (rc == SQLITE_OK && done_pages != NULL)
		*done_pages = done > 0 ? done : 0;
	return rc;
}

static FALLIBLE
sqlite_checkpoint(void *engine, bool truncate, int64_t *wal_pages, int64_t *done_pages)
{
	struct engine *en = engine;
	enum err e = en->doubtful ? mend(en) : OK;
	int rc;

	if (e != OK)
		return e;
	rc = checkpoint(en->db, truncate ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, wal_pages,
	    done_pages);
	return rc == SQLITE_OK ? OK : failed(en, rc);
}

/* On the worker thread. This connection must neither fold in nor delete the
 * log when it closes: the log belongs to the loop's connection. */
static FALLIBLE
sqlite_checkpoint_path(const char *path, int64_t *wal_pages, int64_t *done_pages)
{
	sqlite3 *db = NULL;
	enum err e;
	int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
	/* a connection that has read nothing does not know that there is a log */
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "PRAGMA schema_version", NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = checkpoint(db, SQLITE_CHECKPOINT_PASSIVE, wal_pages, done_pages);
	e = map_code(rc, sqlite3_system_errno(db));
	sqlite3_close(db);
	return e;
}

static int64_t
sqlite_wal_bytes(void *engine)
{
	struct engine *en = engine;
	struct stat st;

	if (stat(sqlite3_filename_wal(sqlite3_db_filename(en->db, "main")), &st) != 0)
		return 0;
	return (int64_t)st.st_size;
}

/* Stops at the first problem: one is enough to know. */
static FALLIBLE
sqlite_integrity(void *engine, struct fail *f)
{
	struct engine *en = engine;
	void *stmt = NULL;
	bool row = false;
	struct str text;
	enum err e = sqlite_query(en, "PRAGMA integrity_check(1)", NULL, 0, &stmt), end;

	if (e == OK) {
		e = sqlite_step(stmt, &row);
		text = e == OK && row ? sqlite_col_str(stmt, 0) : S("no answer");
		if (e == OK && !str_eqz(text, "ok")) {
			snprintf(en->why, sizeof(en->why), "%.*s", STR_ARG(text));
			e = ERR_CORRUPT;
		}
		end = sqlite_end(stmt);
		if (end != OK)
			e = end;
	}
	if (e == OK)
		return OK;
	return fail_set(f, e, "database %s: the integrity check found: %s. Stop blufio, move the "
	    "file away and put a backup in its place", sqlite3_db_filename(en->db, "main"), en->why);
}

static const char *
sqlite_version(void)
{
	return sqlite3_libversion();
}

/* ---- open and close ---------------------------------------------------------------------- */

/* The sentence for what SQLite said. */
static FALLIBLE
refuse_sqlite(struct fail *f, const char *path, const struct engine *en, enum err e)
{
	int errnum = en->db != NULL ? sqlite3_system_errno(en->db) : 0;

	if (e == ERR_CORRUPT)
		return fail_set(f, e, "database %s: %s. Move it away (`mv %s %s.bad`) to begin "
		    "anew, or put a backup in its place", path, en->why, path, path);
	if (e == ERR_BUSY)
		return fail_set(f, e, "database %s: %s; another program is using it. "
		    "`fuser %s` shows which", path, en->why, path);
	if ((e == ERR_IO || e == ERR_FULL) && errnum != 0)
		return db_refuse(f, path, errnum);
	return fail_set(f, e, "database %s: %s", path, en->why[0] != '\0' ? en->why : err_str(e));
}

static int
is_wal(void *arg, int n, char **values, char **names)
{
	bool *wal = arg;

	(void)names;
	*wal = n == 1 && values[0] != NULL && strcmp(values[0], "wal") == 0;
	return 0;
}

/* Settings of a connection. None of them changes the file, but the mode of the log. */
static FALLIBLE
configure(struct engine *en, enum db_durability durability)
{
	static const char no_wal[] = "the file system cannot hold a write-ahead log (a network share?); a local disk can";
	static const int switches[][2] = {
		{ SQLITE_DBCONFIG_DEFENSIVE, 1 },       /* no statement can damage the file */
		{ SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 },  /* nor a planted schema run functions */
		{ SQLITE_DBCONFIG_DQS_DML, 0 },         /* "x" is a name, never a text */
		{ SQLITE_DBCONFIG_DQS_DDL, 0 },
		{ SQLITE_DBCONFIG_ENABLE_FKEY, 1 },
	};
	size_t i;
	bool wal = false;
	int rc = SQLITE_OK;

	sqlite3_extended_result_codes(en->db, 1);
	sqlite3_busy_timeout(en->db, DB_BUSY_MS);
	for (i = 0; i < ARRAY_LEN(switches) && rc == SQLITE_OK; i++)
		rc = sqlite3_db_config(en->db, switches[i][0], switches[i][1], (int *)NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(en->db, durability == DB_POWER ? PRAGMAS "FULL" : PRAGMAS "NORMAL",
		    NULL, NULL, NULL);
	/* The first look into the file: here it turns out not to be a database. */
	if (rc == SQLITE_OK && !en->writable)
		rc = sqlite3_exec(en->db, "PRAGMA schema_version", NULL, NULL, NULL);
	else if (rc == SQLITE_OK)
		rc = sqlite3_exec(en->db, "PRAGMA journal_mode = WAL", is_wal, &wal, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_wal_autocheckpoint(en->db, 0);
	if (rc != SQLITE_OK)
		return failed(en, rc);
	if (en->writable && !wal) {
		memcpy(en->why, no_wal, sizeof(no_wal));
		return ERR_UNSUPPORTED;
	}
	return OK;
}

static void
sqlite_close(void *engine)
{
	struct engine *en = engine;
	size_t i;

	assert(en->n_busy == 0);        /* every db_query has its db_end */
	for (i = 0; i < SLOTS; i++)
		discard(en->slots[i]);
	discard(en->begin);
	discard(en->commit);
	discard(en->rollback);
	/* If the disk refuses, the log stays beside the file and is used at the next start. */
	if (en->db != NULL && en->writable)
		IGNORE(sqlite_checkpoint(en, true, NULL, NULL));
	sqlite3_close(en->db);
	free(en);
}

static FALLIBLE
sqlite_open(void **engine, const char *path, bool read_only, enum db_durability durability,
    struct fail *f)
{
	struct engine *en;
	int flags = SQLITE_OPEN_NOMUTEX |       /* one thread a connection */
	    (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
	int rc;
	enum err e = db_examine(path, read_only, f);

	if (e != OK)
		return e;
	en = calloc(1, sizeof(*en));
	if (en == NULL)
		return fail_set(f, ERR_NOMEM, "database %s: out of memory", path);
	/* These count only before the first connection of the process, and are
	 * refused without harm after it. */
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	sqlite3_config(SQLITE_CONFIG_URI, 0);
	sqlite3_config(SQLITE_CONFIG_LOOKASIDE, LOOKASIDE_SIZE, LOOKASIDE_COUNT);
	rc = sqlite3_open_v2(path, &en->db, flags, NULL);
	e = rc == SQLITE_OK ? OK : failed(en, rc);
	if (e == OK) {
		en->writable = !read_only;
		en->power = durability == DB_POWER;
		e = configure(en, durability);
	}
	if (e == OK)
		e = prepare(en, "BEGIN IMMEDIATE", true, &en->begin);
	if (e == OK)
		e = prepare(en, "COMMIT", true, &en->commit);
	if (e == OK)
		e = prepare(en, "ROLLBACK", true, &en->rollback);
	if (e != OK) {
		e = refuse_sqlite(f, path, en, e);
		en->writable = false;           /* nothing of ours to fold in */
		sqlite_close(en);
		return e;
	}
	*engine = en;
	return OK;
}

static const struct db_ops ops = {
	.name = "sqlite",
	.open = sqlite_open,
	.close = sqlite_close,
	.begin = sqlite_begin,
	.commit = sqlite_commit,
	.sync = sqlite_sync,
	.rollback = sqlite_rollback,
	.exec = sqlite_exec,
	.query = sqlite_query,
	.step = sqlite_step,
	.col_i64 = sqlite_col_i64,
	.col_str = sqlite_col_str,
	.col_null = sqlite_col_null,
	.end = sqlite_end,
	.script = sqlite_script,
	.checkpoint = sqlite_checkpoint,
	.checkpoint_path = sqlite_checkpoint_path,
	.wal_bytes = sqlite_wal_bytes,
	.integrity = sqlite_integrity,
	.why = sqlite_why,
	.version = sqlite_version,
};

extern const struct feature sqlite_feature;
const struct feature sqlite_feature = {
	.name = "sqlite",
	.kind = FEATURE_STORAGE,
	.summary = "one database file with a write-ahead log",
	.storage = &ops,
};
