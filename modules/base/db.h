/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * db.h - the one interface to SQL. An engine (storage/sqlite.c) fills in
 * struct db_ops; everybody else sees only this.
 *
 * One connection, owned by the loop, is the only writer. A writing statement
 * opens the loop turn's transaction by itself; db_commit ends it. Errors of the
 * storage itself (ERR_IO, ERR_FULL, ERR_NOMEM, ERR_CORRUPT, ERR_BUSY, ERR_DENIED)
 * are sticky in the transaction: after the first one every later statement of it
 * fails with the same error and db_commit rolls back and returns it, so callers
 * need not check each write for them (they may). Errors of the one statement are
 * not sticky: a duplicate key (ERR_EXISTS) is an answer to its caller, anything
 * else the engine refuses (ERR_PROTO, ERR_LIMIT) is a mistake of ours and logged.
 */
#ifndef BLUFIO_DB_H
#define BLUFIO_DB_H

#include "base.h"

#define DB_STMTS_MAX 256              /* prepared statements kept */
#define DB_BUSY_MS 5000               /* wait for a foreign lock (a backup's reader never takes one) */

enum db_durability { DB_POWER, DB_PROCESS };   /* survives power loss | survives the death of the process */

struct db_ops;
struct db {
	const struct db_ops *ops;
	void *engine;
	bool in_tx;
	enum err tx_err;              /* sticky within the transaction */
	char why[256];                /* the engine's words for tx_err or the last failure */
	bool refused;                 /* a read outside of a transaction gave ERR_PROTO; the caller clears it */
	uint64_t commits, writes;     /* counters for status and tests */
};

/* A bound value, small because there are a thousand places where one is made: text of n bytes, or what n says else.
 * An empty text is one wherever it points to. */
struct db_val {
	union { const char *text; int64_t i; };
	size_t n;
};
#define DB_INT SIZE_MAX
#define DB_NULL (SIZE_MAX - 1)
#define DBI(x) ((struct db_val){ .i = (int64_t)(x), .n = DB_INT })
#define DBS(x) db_text(x)
#define DBZ(x) db_text(str_z(x))
#define DBN    ((struct db_val){ .n = DB_NULL })
static inline struct db_val
db_text(struct str s)
{
	return (struct db_val){ .text = s.p, .n = s.n };
}

/* A running query. Views are valid until the next db_step or db_end. */
struct db_row { struct db *db; void *stmt; enum err err; bool open, row; };

/* Engine table: what storage/sqlite.c provides. sql strings are static and are the
 * cache key by address; values are bound in order to ?1, ?2 … */
struct db_ops {
	const char *name;
	FALLIBLE (*open)(void **engine, const char *path, bool read_only, enum db_durability, struct fail *f);
	void (*close)(void *engine);                       /* checkpoints (TRUNCATE) when writable */
	FALLIBLE (*begin)(void *engine);
	FALLIBLE (*commit)(void *engine, bool light);      /* light: SQLite's synchronous = NORMAL for this one */
	FALLIBLE (*sync)(void *engine);                    /* light commits reach the disk, if the durability asks for it */
	void (*rollback)(void *engine);
	FALLIBLE (*exec)(void *engine, const char *sql, const struct db_val *v, size_t n, int64_t *last_id, int64_t *changes);
	FALLIBLE (*query)(void *engine, const char *sql, const struct db_val *v, size_t n, void **stmt);
	FALLIBLE (*step)(void *stmt, bool *row);
	int64_t (*col_i64)(void *stmt, int col);
	struct str (*col_str)(void *stmt, int col);
	bool (*col_null)(void *stmt, int col);
	FALLIBLE (*end)(void *stmt);                       /* reset, back to the cache; fails if a column could not be read */
	FALLIBLE (*script)(void *engine, const char *sql); /* several statements: migrations */
	FALLIBLE (*checkpoint)(void *engine, bool truncate, int64_t *wal_pages, int64_t *done_pages);
	/* For the worker thread: checkpoints path (PASSIVE) through a connection of its own. */
	FALLIBLE (*checkpoint_path)(const char *path, int64_t *wal_pages, int64_t *done_pages);
	int64_t (*wal_bytes)(void *engine);                /* size of the log now */
	FALLIBLE (*integrity)(void *engine, struct fail *f);
	const char *(*why)(void *engine);                  /* words for the newest failure */
	const char *(*version)(void);
};

/* path's directory must exist (f says how to make it). Wrong file kinds, damage, read-only media,
 * no permission: a sentence in f that names the path and what to do. Creates the file 0600. */
FALLIBLE db_open(struct db **out, const struct db_ops *ops, const char *path, bool read_only,
    enum db_durability durability, struct fail *f);
void db_close(struct db *db);                              /* NULL ok; an open transaction is rolled back */
/* A write (INSERT, UPDATE, DELETE): opens the transaction when none is open. last_id, changes may be NULL. */
FALLIBLE db_exec(struct db *db, const char *sql, const struct db_val *v, size_t n, int64_t *last_id, int64_t *changes);
#define DB_EXEC(db, sql, ...) \
	db_exec((db), (sql), (const struct db_val[]){ __VA_ARGS__ }, \
	    sizeof((const struct db_val[]){ __VA_ARGS__ }) / sizeof(struct db_val), NULL, NULL)
/* A read. Then while (db_step(&r)) …; end with db_end, which returns the sticky error. */
void db_query(struct db *db, struct db_row *r, const char *sql, const struct db_val *v, size_t n);
bool db_step(struct db_row *r);
int64_t db_i64(struct db_row *r, int col);
struct str db_str(struct db_row *r, int col);
bool db_is_null(struct db_row *r, int col);
FALLIBLE db_end(struct db_row *r);
/* One integer from a query that gives at most one row; absent or NULL gives dflt. */
FALLIBLE db_get_i64(struct db *db, const char *sql, const struct db_val *v, size_t n, int64_t dflt, int64_t *out);
FALLIBLE db_script(struct db *db, const char *sql);        /* outside or inside a transaction */
FALLIBLE db_begin(struct db *db);                          /* explicit; no-op when open */
/* Ends the loop turn's transaction: OK at once when none is open. On any failure everything
 * since begin is undone and the error returned; db->why has the words. */
FALLIBLE db_commit(struct db *db);
/* The same without waiting for the disk, whatever the durability setting: it survives the death of
 * the process and becomes durable with the next db_commit. */
FALLIBLE db_commit_light(struct db *db);
/* Makes earlier light commits durable when there is nothing else to write (as durable as the
 * setting says: nothing happens with DB_PROCESS). */
FALLIBLE db_sync(struct db *db);
void db_rollback(struct db *db);

/* For engines that keep a file. Examines path in better words than an engine has, and creates
 * a missing file 0600; never opens one that exists. */
FALLIBLE db_examine(const char *path, bool read_only, struct fail *f);
/* The sentence for what the system said about path. */
FALLIBLE db_refuse(struct fail *f, const char *path, int errnum);

#endif
