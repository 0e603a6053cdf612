/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * db.c - the loop turn's transaction over whatever engine is below.
 *
 * The idea: callbacks of a loop turn write as if nothing could fail, and the
 * end of the turn learns whether it did. So the transaction opens by itself at
 * the first write, the first failure of the storage sticks in tx_err, every
 * later statement is refused with the same error, and db_commit turns all of it
 * into one answer: everything is on disk, or nothing is.
 *
 *      in_tx  tx_err      state
 *      no     OK          idle: reads see the last commit
 *      yes    OK          open: reads see the turn's own writes
 *      yes    an error    lost: nothing is read or written until commit or rollback
 *
 * A transaction that could not even be begun is in the third state too, or the
 * turn's other writes would be committed without the one that failed to begin.
 *
 * Reads stick as well while a transaction is open: a turn that decided on rows
 * it could not read must not be committed, and SQLite may have undone the
 * transaction on its own after such a failure.
 */
#include "db.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIR_MAX 512             /* of a directory's name in an error sentence */
#define HINT_PATH "`blufio config set storage.database_path /some/where/blufio.db`"

/* Failures of the storage, after which nothing of the transaction can be trusted.
 * What concerns one statement only stays with its caller (db.h). */
static bool
is_sticky(enum err e)
{
	return e == ERR_IO || e == ERR_FULL || e == ERR_NOMEM || e == ERR_CORRUPT ||
	    e == ERR_BUSY || e == ERR_DENIED;
}

/* Keeps the engine's words and, inside a transaction, the error. Returns e. */
static enum err
note(struct db *db, enum err e, const char *sql)
{
	if (e == OK)
		return OK;
	snprintf(db->why, sizeof(db->why), "%s", db->ops->why(db->engine));
	if (db->in_tx && is_sticky(e))
		db->tx_err = e;
	db->refused |= e == ERR_PROTO && !db->in_tx;
	if (e == ERR_PROTO || e == ERR_LIMIT || e == ERR_UNSUPPORTED)
		log_error("db", "statement refused: %s: %.80s", db->why, sql);
	return e;
}

/* ---- a file for the engine --------------------------------------------------- */

/* The directory path stands in. */
static void
dir_of(const char *path, char out[DIR_MAX])
{
	const char *slash = strrchr(path, '/');

	if (slash == NULL)
		snprintf(out, DIR_MAX, "%c", '.');
	else
		snprintf(out, DIR_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

enum err
db_refuse(struct fail *f, const char *path, int errnum)
{
	char dir[DIR_MAX];
	struct stat st;

	dir_of(path, dir);
	if ((errnum == ENOENT || errnum == ENOTDIR) && stat(dir, &st) != 0)
		return fail_set(f, ERR_NOTFOUND, "database %s: there is no directory %s. Make it with "
		    "`mkdir -p -m 700 %s`, or name another place with " HINT_PATH, path, dir, dir);
	if (errnum == EACCES || errnum == EPERM)
		return fail_set(f, ERR_DENIED, "database %s: permission denied. `ls -ld %s %s` shows "
		    "who may; as that user start blufio, or name another place with " HINT_PATH,
		    path, dir, path);
	if (errnum == EROFS)
		return fail_set(f, ERR_DENIED, "database %s: the file system is read-only. Name another "
		    "place with " HINT_PATH, path);
	if (errnum == ENOSPC || errnum == EDQUOT)
		return fail_set(f, ERR_FULL, "database %s: no space left. `df -h %s` shows how much; free "
		    "some, or name another place with " HINT_PATH, path, dir);
	return fail_set(f, err_errno(errnum), "database %s: %s. `ls -ld %s %s` shows what is there; "
	    "name another place with " HINT_PATH, path, strerror(errnum), dir, path);
}

/* The file is made here and not by the engine, which would make it readable for all;
 * -wal and -shm take their mode from it. An existing file is never opened by us:
 * closing it again would drop the locks other connections of this process hold. */
static FALLIBLE
create(struct fail *f, const char *path)
{
	int fd;

	do
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return db_refuse(f, path, errno);
	close(fd);
	return OK;
}

enum err
db_examine(const char *path, bool read_only, struct fail *f)
{
	char dir[DIR_MAX];
	struct stat st;

	dir_of(path, dir);
	if (path[0] == '\0' || path[0] == ':')  /* ":memory:" would forget everything */
		return fail_set(f, ERR_CONFIG, "database '%s': not the name of a file. Give one with "
		    HINT_PATH, path);
	if (stat(path, &st) != 0) {
		if (errno == ENOENT && read_only && stat(dir, &st) == 0)
			return fail_set(f, ERR_NOTFOUND, "database %s: there is none yet. "
			    "`blufio serve` makes it", path);
		return errno == ENOENT && !read_only ? create(f, path) : db_refuse(f, path, errno);
	}
	if (S_ISDIR(st.st_mode))
		return fail_set(f, ERR_CONFIG, "database %s: this is a directory, a file is wanted. "
		    "Type `blufio config set storage.database_path %s/blufio.db`", path, path);
	if (!S_ISREG(st.st_mode))
		return fail_set(f, ERR_CONFIG, "database %s: not a regular file. Name another place "
		    "with " HINT_PATH, path);
	if (access(path, R_OK) != 0)
		return db_refuse(f, path, errno);
	if (read_only)
		return OK;
	if (access(path, W_OK) != 0 && errno == EACCES)
		return fail_set(f, ERR_DENIED, "database %s: the file may be read but not written. "
		    "Type `chmod u+w %s` (`ls -l %s` shows its owner)", path, path, path);
	if (access(path, W_OK) != 0)
		return db_refuse(f, path, errno);
	if (access(dir, W_OK | X_OK) != 0)      /* the log is created beside the file */
		return fail_set(f, ERR_DENIED, "database %s: nothing may be created in %s, and the "
		    "database keeps its log there. Type `chmod u+wx %s` (`ls -ld %s` shows its owner)",
		    path, dir, dir, dir);
	return OK;
}

/* ---- open and close ------------------------------------------------------------ */

enum err
db_open(struct db **out, const struct db_ops *ops, const char *path, bool read_only,
    enum db_durability durability, struct fail *f)
{
	struct db *db = calloc(1, sizeof(*db));
	enum err e;

	if (db == NULL)
		return fail_set(f, ERR_NOMEM, "cannot open the database %s: out of memory", path);
	db->ops = ops;
	e = ops->open(&db->engine, path, read_only, durability, f);
	if (e != OK) {
		free(db);
		return e;
	}
	*out = db;
	return OK;
}

void
db_close(struct db *db)
{
	if (db == NULL)
		return;
	db_rollback(db);
	db->ops->close(db->engine);
	free(db);
}

/* ---- transactions --------------------------------------------------------------- */

enum err
db_begin(struct db *db)
{
	enum err e;

	if (db->in_tx)
		return db->tx_err;
	e = db->ops->begin(db->engine);
	db->in_tx = true;
	/* Whatever the reason, there is no transaction to write into. */
	if (note(db, e, "BEGIN") != OK)
		db->tx_err = e;
	return e;
}

static enum err
commit(struct db *db, bool light)
{
	enum err e = db->tx_err;

	if (!db->in_tx)
		return OK;
	if (e == OK)
		e = note(db, db->ops->commit(db->engine, light), "COMMIT");
	if (e != OK)
		db->ops->rollback(db->engine);
	else
		db->commits++;
	db->in_tx = false;
	db->tx_err = OK;
	return e;
}

enum err
db_commit(struct db *db)
{
	return commit(db, false);
}

enum err
db_commit_light(struct db *db)
{
	return commit(db, true);
}

enum err
db_sync(struct db *db)
{
	return note(db, db->ops->sync(db->engine), "sync");
}

void
db_rollback(struct db *db)
{
	if (!db->in_tx)
		return;
	db->ops->rollback(db->engine);
	db->in_tx = false;
	db->tx_err = OK;
}

/* ---- statements ------------------------------------------------------------------ */

enum err
db_exec(struct db *db, const char *sql, const struct db_val *v, size_t n, int64_t *last_id,
    int64_t *changes)
{
	enum err e = db_begin(db);

	if (e != OK)
		return e;
	e = note(db, db->ops->exec(db->engine, sql, v, n, last_id, changes), sql);
	if (e == OK)
		db->writes++;
	return e;
}

enum err
db_script(struct db *db, const char *sql)
{
	enum err e = db->tx_err;

	if (e != OK)
		return e;
	e = note(db, db->ops->script(db->engine, sql), sql);
	if (e == OK)
		db->writes++;
	return e;
}

void
db_query(struct db *db, struct db_row *r, const char *sql, const struct db_val *v, size_t n)
{
	*r = (struct db_row){ .db = db, .err = db->tx_err };
	if (r->err != OK)
		return;
	r->err = note(db, db->ops->query(db->engine, sql, v, n, &r->stmt), sql);
	r->open = r->err == OK;
}

bool
db_step(struct db_row *r)
{
	bool row = false;

	r->row = false;
	if (!r->open || r->err != OK)
		return false;
	r->err = note(r->db, r->db->ops->step(r->stmt, &row), "step");
	r->row = r->err == OK && row;
	return r->row;
}

int64_t
db_i64(struct db_row *r, int col)
{
	return r->row ? r->db->ops->col_i64(r->stmt, col) : 0;
}

struct str
db_str(struct db_row *r, int col)
{
	return r->row ? r->db->ops->col_str(r->stmt, col) : STR_NONE;
}

bool
db_is_null(struct db_row *r, int col)
{
	return !r->row || r->db->ops->col_null(r->stmt, col);
}

enum err
db_end(struct db_row *r)
{
	enum err e;

	if (r->open) {
		e = note(r->db, r->db->ops->end(r->stmt), "end");
		if (r->err == OK)
			r->err = e;
	}
	r->open = r->row = false;
	r->stmt = NULL;
	return r->err;
}

enum err
db_get_i64(struct db *db, const char *sql, const struct db_val *v, size_t n, int64_t dflt,
    int64_t *out)
{
	struct db_row r;
	int64_t value = dflt;
	enum err e;

	db_query(db, &r, sql, v, n);
	if (db_step(&r) && !db_is_null(&r, 0))
		value = db_i64(&r, 0);
	e = db_end(&r);
	if (e == OK)
		*out = value;
	return e;
}
