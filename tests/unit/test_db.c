/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_db.c - db.c over storage/sqlite.c, with the disk failing and the process
 * dying under it.
 *
 * SQLite is a shared library that --wrap does not reach, so its allocator and
 * its system calls are replaced by functions of this file: they obey a plan
 * (fail from the n-th write on, die at the n-th) and are counted by tests/fault.c.
 * fsync and fdatasync are not in SQLite's table; the definitions below take the
 * place of libc's for the whole program.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blufio.h"
#include "test.h"

extern const struct feature sqlite_feature;

/* ---- the plan ------------------------------------------------------------------ */

static int syncs;               // asked for so far

static struct plan {
	int writes;             // seen so far
	int fail_at;            // this write and all after it fail (0 = none)
	int die_at;             // the process is killed instead of this write (0 = never)
	int fail_sync;          // every sync fails
	int errnum;
	bool no_sync;           // syncs are skipped: only the process dies, not the machine
} plan;

static bool
planned(void)
{
	plan.writes++;
	if (plan.die_at != 0 && plan.writes == plan.die_at)
		kill(getpid(), SIGKILL);
	errno = plan.errnum;
	return plan.fail_at != 0 && plan.writes >= plan.fail_at;
}

int
fsync(int fd)
{
	syncs++;
	errno = plan.errnum;
	return plan.fail_sync ? -1 : plan.no_sync ? 0 : (int)syscall(SYS_fsync, fd);
}

int
fdatasync(int fd)
{
	syncs++;
	errno = plan.errnum;
	return plan.fail_sync ? -1 : plan.no_sync ? 0 : (int)syscall(SYS_fdatasync, fd);
}

static ssize_t
my_pwrite(int fd, const void *p, size_t n, off_t at)
{
	return planned() ? -1 : pwrite(fd, p, n, at);
}

static ssize_t
my_write(int fd, const void *p, size_t n)
{
	return planned() ? -1 : write(fd, p, n);
}

static ssize_t
my_pread(int fd, void *p, size_t n, off_t at)
{
	return pread(fd, p, n, at);
}

static int
my_ftruncate(int fd, off_t n)
{
	return planned() ? -1 : ftruncate(fd, n);
}

static int
my_open(const char *path, int flags, int mode)
{
	return open(path, flags, mode);
}

/* Waiting for a lock takes no time here. */
static int
no_sleep(sqlite3_vfs *vfs, int us)
{
	(void)vfs;
	return us;
}

/* Allocations with their size in front, 16 bytes to stay aligned. */
static void *
mem_malloc(int n)
{
	char *p = malloc((size_t)n + 16);

	if (p == NULL)
		return NULL;
	memcpy(p, &n, sizeof(n));
	return p + 16;
}

static void
mem_free(void *p)
{
	if (p != NULL)
		free((char *)p - 16);
}

static void *
mem_realloc(void *p, int n)
{
	char *q = realloc((char *)p - 16, (size_t)n + 16);

	if (q == NULL)
		return NULL;
	memcpy(q, &n, sizeof(n));
	return q + 16;
}

static int
mem_size(void *p)
{
	int n = 0;

	if (p != NULL)
		memcpy(&n, (char *)p - 16, sizeof(n));
	return n;
}

static int mem_roundup(int n) { return (n + 7) & ~7; }
static int mem_init(void *arg) { (void)arg; return SQLITE_OK; }
static void mem_shutdown(void *arg) { (void)arg; }

static void
replace_calls(void)
{
	static const struct { const char *name; sqlite3_syscall_ptr fn; } calls[] = {
		{ "write", (sqlite3_syscall_ptr)my_write },
		{ "pwrite", (sqlite3_syscall_ptr)my_pwrite },
		{ "pwrite64", (sqlite3_syscall_ptr)my_pwrite },
		{ "pread", (sqlite3_syscall_ptr)my_pread },
		{ "pread64", (sqlite3_syscall_ptr)my_pread },
		{ "ftruncate", (sqlite3_syscall_ptr)my_ftruncate },
		{ "open", (sqlite3_syscall_ptr)my_open },
	};
	static const struct sqlite3_mem_methods mem = {
		mem_malloc, mem_free, mem_realloc, mem_size, mem_roundup, mem_init, mem_shutdown, NULL
	};
	sqlite3_vfs *vfs;
	size_t i;

	/* as sqlite.c does, which comes too late after the vfs lookup below */
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	sqlite3_config(SQLITE_CONFIG_URI, 0);
	sqlite3_config(SQLITE_CONFIG_MALLOC, &mem);
	vfs = sqlite3_vfs_find(NULL);
	if (vfs == NULL)
		return;
	vfs->xSleep = no_sleep;
	for (i = 0; i < ARRAY_LEN(calls); i++)
		vfs->xSetSystemCall(vfs, calls[i].name, calls[i].fn);
}

/* ---- a database in a directory of its own ----------------------------------------- */

static char dir[256], path[300];

static bool
make_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	plan = (struct plan){ .errnum = EIO };
	snprintf(dir, sizeof(dir), "%s/blufio-db-XXXXXX", tmp != NULL && *tmp != '\0' ? tmp : "/tmp");
	if (mkdtemp(dir) == NULL) {
		test_bad_at_(__FILE__, __LINE__, "mkdtemp");
		return false;
	}
	snprintf(path, sizeof(path), "%s/test.db", dir);
	return true;
}

static void
remove_dir(void)
{
	static const char *const ends[] = { "", "-wal", "-shm", "-journal" };
	char name[320];
	size_t i;

	plan = (struct plan){ .errnum = EIO };
	for (i = 0; i < ARRAY_LEN(ends); i++) {
		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		remove(name);           /* not unlink, which may be made to fail */
	}
	rmdir(dir);
}

static bool
exists(const char *end)
{
	char name[320];

	snprintf(name, sizeof(name), "%s%s", path, end);
	return access(name, F_OK) == 0;
}

/* Injected faults run the whole file thousands of times: leave out what is slow
 * or what has its own faults. */
static bool
tortured(void)
{
	return getenv("FAULT_AT") != NULL || getenv("FAULT_VERBOSE") != NULL ||
	    getenv("FAULT_SHORT") != NULL;
}

static struct db *
open_as(bool read_only, enum db_durability durability)
{
	struct db *db = NULL;
	struct fail f = FAIL_INIT;

	if (db_open(&db, sqlite_feature.storage, path, read_only, durability, &f) != OK) {
		if (!FAULTED())
			printf("  %s\n", f.text);
		test_bad_at_(__FILE__, __LINE__, "db_open");
		return NULL;
	}
	return db;
}

/* A fresh database with table t(id, k UNIQUE, v); NULL when a fault came between. */
static struct db *
open_new(void)
{
	struct db *db;

	if (!make_dir())
		return NULL;
	db = open_as(false, DB_POWER);
	if (db != NULL && db_script(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, "
	    "k INTEGER UNIQUE, v TEXT NOT NULL)") == OK)
		return db;
	test_bad_at_(__FILE__, __LINE__, "open_new");
	db_close(db);
	remove_dir();
	return NULL;
}

static void
done(struct db *db)
{
	plan = (struct plan){ .errnum = EIO };
	db_close(db);
	remove_dir();
}

static const char put[] = "INSERT INTO t(k, v) VALUES(?1, ?2)";

static int64_t
count(struct db *db)
{
	int64_t n = -1;

	CHECK_OK(db_get_i64(db, "SELECT count(*) FROM t", NULL, 0, 0, &n));
	return n;
}

static int64_t
pragma(struct db *db, const char *sql)
{
	int64_t n = -1;

	CHECK_OK(db_get_i64(db, sql, NULL, 0, -2, &n));
	return n;
}

/* ---- tests ---------------------------------------------------------------------------- */

TEST(values_come_back)
{
	struct db *db = open_new();
	struct db_row r;
	struct stat st;
	int64_t id = 0, changed = 0, n = 0;
	static const char q[] = "SELECT ?1, ?2, ?3, ?4, ?5, x''";
	const struct db_val v[] = { DBI(INT64_MIN), DBS(S("a\0b")), DBS(STR_NONE), DBN, DBI(-1) };
	const struct db_val row[] = { DBI(7), DBZ("seven") };

	if (db == NULL)
		return;
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	db_query(db, &r, q, v, ARRAY_LEN(v));
	if (db_step(&r)) {
		CHECK(db_i64(&r, 0) == INT64_MIN);
		CHECK_STR(db_str(&r, 0), FAULTED() ? "" : "-9223372036854775808");
		CHECK(str_eq(db_str(&r, 1), S("a\0b")));
		CHECK(db_str(&r, 2).n == 0 && !db_is_null(&r, 2));
		CHECK(db_is_null(&r, 3) && db_str(&r, 3).p == NULL && db_i64(&r, 3) == 0);
		CHECK(db_i64(&r, 4) == -1);
		CHECK(db_str(&r, 5).n == 0 && !db_is_null(&r, 5));
		CHECK(!db_step(&r));
		CHECK(db_i64(&r, 0) == 0 && db_is_null(&r, 0) && db_str(&r, 1).n == 0);
	}
	CHECK_OK(db_end(&r));
	CHECK_OK(db_exec(db, put, row, ARRAY_LEN(row), &id, &changed));
	CHECK(id == 1 && changed == 1 && db->in_tx);
	CHECK_OK(db_commit(db));
	CHECK_OK(db_commit(db));        /* nothing open: nothing to do */
	CHECK(!db->in_tx && db->commits == 1 && db->writes == 2);
	CHECK_OK(db_get_i64(db, "SELECT k FROM t WHERE v = ?1", &row[1], 1, 0, &n));
	CHECK(n == 7);
	CHECK_OK(db_get_i64(db, "SELECT k FROM t WHERE k = 99", NULL, 0, -5, &n));
	CHECK(n == -5);
	done(db);
}

TEST(connection_is_set_up)
{
	struct db *db = open_new();
	struct db_row r;

	if (db == NULL)
		return;
	CHECK(pragma(db, "PRAGMA synchronous") == 2);
	CHECK(pragma(db, "PRAGMA foreign_keys") == 1);
	CHECK(pragma(db, "PRAGMA wal_autocheckpoint") == 0);
	CHECK(pragma(db, "PRAGMA busy_timeout") == DB_BUSY_MS);
	CHECK(pragma(db, "PRAGMA temp_store") == 2);
	CHECK(pragma(db, "PRAGMA cache_size") == -1024);
	CHECK(pragma(db, "PRAGMA trusted_schema") == 0);
	db_query(db, &r, "PRAGMA journal_mode", NULL, 0);
	if (db_step(&r))
		CHECK_STR(db_str(&r, 0), "wal");
	CHECK_OK(db_end(&r));
	db_close(db);
	db = open_as(false, DB_PROCESS);
	if (db != NULL)
		CHECK(pragma(db, "PRAGMA synchronous") == 1);
	done(db);
}

TEST(one_statement_fails_alone)
{
	struct db *db = open_new();
	int64_t n;

	if (db == NULL)
		return;
	CHECK_OK(DB_EXEC(db, put, DBI(1), DBZ("one")));
	CHECK_ERR(DB_EXEC(db, put, DBI(1), DBZ("again")), ERR_EXISTS);
	CHECK(strstr(db->why, "UNIQUE") != NULL);
	CHECK_ERR(DB_EXEC(db, "INSERT INTO t(id, v) VALUES(?1, 'x')", DBI(1)), ERR_EXISTS);
	CHECK_ERR(DB_EXEC(db, put, DBI(2), DBN), ERR_PROTO);            /* NOT NULL */
	CHECK_ERR(DB_EXEC(db, put, DBI(2)), ERR_PROTO);                 /* a value too few */
	CHECK_ERR(DB_EXEC(db, "INSERT INTO nowhere VALUES(?1)", DBI(2)), ERR_PROTO);
	CHECK_ERR(DB_EXEC(db, "DELETE FROM t WHERE k = ?1; DELETE FROM t", DBI(5)), ERR_PROTO);
	CHECK_ERR(DB_EXEC(db, "INSERT INTO t(k, v) VALUES(?1, \"v\")", DBI(3)), ERR_PROTO);
	CHECK_OK(DB_EXEC(db, put, DBI(2), DBZ("two")));
	CHECK_OK(db_commit(db));
	CHECK(count(db) == 2 && !db->refused);
	CHECK_ERR(db_get_i64(db, "SELECT count(*) FROM nowhere", NULL, 0, 0, &n), ERR_PROTO);
	CHECK(db->refused);
	done(db);
}

TEST(rollback_undoes_the_turn)
{
	struct db *db = open_new();

	if (db == NULL)
		return;
	CHECK_OK(DB_EXEC(db, put, DBI(1), DBZ("kept")));
	CHECK_OK(db_commit(db));
	CHECK_OK(db_begin(db));
	CHECK_OK(db_begin(db));
	CHECK_OK(DB_EXEC(db, put, DBI(2), DBZ("lost")));
	CHECK(count(db) == 2);
	db_rollback(db);
	db_rollback(db);
	CHECK(count(db) == 1 && !db->in_tx);
	CHECK_OK(DB_EXEC(db, put, DBI(3), DBZ("lost at close")));
	db_close(db);
	db = open_as(false, DB_POWER);
	if (db != NULL)
		CHECK(count(db) == 1);
	done(db);
}

TEST(queries_nest)
{
	struct db *db = open_new();
	struct db_row a, b;
	static const char all[] = "SELECT k FROM t ORDER BY k";
	int64_t pairs = 0;
	int i;

	if (db == NULL)
		return;
	for (i = 0; i < 4; i++)
		CHECK_OK(DB_EXEC(db, put, DBI(i), DBZ("x")));
	CHECK_OK(db_commit(db));
	db_query(db, &a, all, NULL, 0);
	while (db_step(&a)) {
		db_query(db, &b, all, NULL, 0);
		while (db_step(&b))
			pairs += db_i64(&a, 0) * 10 + db_i64(&b, 0);
		CHECK_OK(db_end(&b));
		/* writing inside somebody's loop, the transaction opens here */
		CHECK_OK(DB_EXEC(db, "UPDATE t SET v = v || 'y' WHERE k = ?1", DBI(db_i64(&a, 0))));
	}
	CHECK_OK(db_end(&a));
	CHECK_OK(db_end(&a));
	CHECK(pairs == 264);
	CHECK_OK(db_commit(db));
	CHECK(pragma(db, "SELECT count(*) FROM t WHERE v = 'xy'") == 4);
	/* a loop that is open while its transaction is undone ends with an error */
	CHECK_OK(DB_EXEC(db, put, DBI(9), DBZ("x")));
	db_query(db, &a, all, NULL, 0);
	CHECK(db_step(&a));
	db_rollback(db);
	while (db_step(&a))
		;
	CHECK(a.err == OK || a.err == ERR_CANCELLED || FAULTED());
	IGNORE(db_end(&a));     /* judged above */
	done(db);
}

TEST(statement_cache)
{
	struct db *db = open_new();
	char sql[64];
	static char many[DB_STMTS_MAX + 40][32];
	int64_t n = 0;
	int i, pass;

	if (db == NULL)
		return;
	/* one address, several texts: never the wrong statement */
	for (i = 0; i < 3; i++) {
		snprintf(sql, sizeof(sql), "SELECT %d", i);
		CHECK(pragma(db, sql) == i);
	}
	snprintf(sql, sizeof(sql), "SELECT 25");
	CHECK(pragma(db, sql) == 25);
	if (tortured()) {
		done(db);
		return;
	}
	for (pass = 0; pass < 2; pass++)
		for (i = 0; i < (int)ARRAY_LEN(many); i++) {
			snprintf(many[i], sizeof(many[i]), "SELECT %d + ?1", i);
			CHECK_OK(db_get_i64(db, many[i], (struct db_val[]){ DBI(pass) }, 1, 0, &n));
			CHECK(n == i + pass);
		}
	done(db);
}

TEST(at_rest_one_file)
{
	struct db *db = open_new();

	if (db == NULL)
		return;
	CHECK_OK(DB_EXEC(db, put, DBI(1), DBZ("x")));
	CHECK_OK(db_commit(db));
	CHECK(exists("-wal"));
	CHECK(db->ops->wal_bytes(db->engine) > 0);
	db_close(db);
	if (!FAULTED())
		CHECK(!exists("-wal") && !exists("-shm"));
	db = open_as(true, DB_POWER);
	if (db != NULL) {
		CHECK(count(db) == 1);
		CHECK_ERR(DB_EXEC(db, put, DBI(2), DBZ("y")), ERR_DENIED);
		CHECK_ERR(db_commit(db), ERR_DENIED);
		CHECK_OK(db->ops->integrity(db->engine, NULL));
		CHECK(db->ops->version()[0] == '3');
	}
	done(db);
}

TEST(checkpoints)
{
	struct db *db = open_new();
	int64_t wal = -1, folded = -1;
	int i;

	if (db == NULL)
		return;
	for (i = 0; i < 20; i++) {
		CHECK_OK(DB_EXEC(db, put, DBI(i), DBZ("x")));
		CHECK_OK(db_commit(db));
	}
	/* another connection folds in while the owner has a transaction open */
	CHECK_OK(DB_EXEC(db, put, DBI(100), DBZ("open")));
	CHECK_OK(db->ops->checkpoint_path(path, &wal, &folded));
	CHECK(wal >= 20 && folded == wal);
	CHECK(exists("-wal"));
	CHECK_OK(db_commit(db));
	CHECK(count(db) == 21);
	CHECK_OK(db->ops->checkpoint(db->engine, true, &wal, &folded));
	CHECK(db->ops->wal_bytes(db->engine) == 0);
	CHECK_OK(DB_EXEC(db, put, DBI(101), DBZ("x")));
	CHECK_OK(db_commit(db));
	CHECK_OK(db->ops->checkpoint(db->engine, false, &wal, &folded));
	CHECK(wal > 0 && folded == wal && db->ops->wal_bytes(db->engine) > 0);
	done(db);
}

/* The commit itself fails: nothing of the turn is seen by anybody, and when the
 * disk works again so does the database. */
static void
commit_fails(struct plan trouble, enum err want)
{
	struct db *db = open_new(), *reader;

	if (db == NULL)
		return;
	CHECK_OK(DB_EXEC(db, put, DBI(1), DBZ("before")));
	CHECK_OK(db_commit(db));
	reader = open_as(true, DB_POWER);
	if (reader != NULL) {
		CHECK_OK(DB_EXEC(db, put, DBI(2), DBZ("lost")));
		CHECK_OK(DB_EXEC(db, put, DBI(3), DBZ("lost")));
		plan = trouble;
		CHECK_ERR(db_commit(db), want);
		CHECK(db->why[0] != '\0' && !db->in_tx && db->tx_err == OK);
		CHECK(count(db) == 1 && count(reader) == 1);
		CHECK_OK(DB_EXEC(db, put, DBI(2), DBZ("lost")));
		CHECK_ERR(db_commit(db), want);
		plan = (struct plan){ .errnum = EIO };
		CHECK(count(db) == 1 && count(reader) == 1);
		CHECK_OK(DB_EXEC(db, put, DBI(2), DBZ("after")));
		CHECK_OK(db_commit(db));
		CHECK(count(db) == 2 && count(reader) == 2);
		CHECK_OK(db->ops->integrity(db->engine, NULL));
	}
	db_close(reader);
	db_close(db);
	db = open_as(false, DB_POWER);
	if (db != NULL)
		CHECK(count(db) == 2);
	done(db);
}

TEST(commit_disk_full)
{
	commit_fails((struct plan){ .fail_at = 1, .errnum = ENOSPC }, ERR_FULL);
}

TEST(commit_write_error)
{
	commit_fails((struct plan){ .fail_at = 1, .errnum = EIO }, ERR_IO);
}

TEST(commit_sync_fails)
{
	commit_fails((struct plan){ .fail_sync = 1, .errnum = EIO }, ERR_IO);
	commit_fails((struct plan){ .fail_sync = 1, .errnum = ENOSPC }, ERR_FULL);
}

/* A light commit is seen and survives the process, and waits for no disk; the next
 * full one, or db_sync, does. */
TEST(light_commits)
{
	struct db *db = open_new();
	int before;

	if (db == NULL)
		return;
	CHECK_OK(DB_EXEC(db, put, DBI(1), DBZ("a")));
	CHECK_OK(db_commit(db));        /* the log's header is written and synced */
	before = syncs;
	plan.fail_sync = true;
	CHECK_OK(DB_EXEC(db, put, DBI(2), DBZ("b")));
	CHECK_OK(db_commit_light(db));
	CHECK(count(db) == 2 && syncs == before);
	CHECK_ERR(db_sync(db), ERR_IO);
	plan.fail_sync = false;
	before = syncs;
	CHECK_OK(db_sync(db));
	CHECK(syncs == before + 1);
	CHECK_OK(db_sync(db));          /* nothing left to do */
	CHECK(syncs == before + 1);
	CHECK_OK(DB_EXEC(db, put, DBI(3), DBZ("c")));
	CHECK_OK(db_commit_light(db));
	CHECK_OK(DB_EXEC(db, put, DBI(4), DBZ("d")));
	CHECK_OK(db_commit(db));        /* one sync for both */
	CHECK(syncs == before + 2);
	CHECK_OK(db_sync(db));
	CHECK(syncs == before + 2);
	CHECK_OK(DB_EXEC(db, put, DBI(5), DBZ("e")));
	CHECK_OK(db_commit_light(db));
	CHECK_OK(DB_EXEC(db, "DELETE FROM t WHERE k = ?1", DBI(99)));
	CHECK_OK(db_commit(db));        /* changes nothing, and still keeps its promise */
	CHECK(syncs == before + 3);
	CHECK(count(db) == 5);
	done(db);
}

/* A big turn spills into the log before its commit: the failure meets a statement
 * and has to stick from there. */
TEST(failure_sticks)
{
	struct db *db = open_new();
	static const char big[] = "INSERT INTO t(k, v) VALUES(?1, hex(zeroblob(100000)))";
	struct db_row r;
	enum err e = OK;
	int64_t n = 77;
	int i;

	if (db == NULL)
		return;
	plan = (struct plan){ .fail_at = 1, .errnum = ENOSPC };
	for (i = 0; i < 20 && e == OK; i++)
		e = DB_EXEC(db, big, DBI(i));
	CHECK_ERR(e, ERR_FULL);
	plan = (struct plan){ .errnum = EIO };   /* space returns, but this turn is lost */
	CHECK_ERR(DB_EXEC(db, put, DBI(50), DBZ("x")), ERR_FULL);
	CHECK_ERR(db_begin(db), ERR_FULL);
	CHECK_ERR(db_script(db, "DELETE FROM t"), ERR_FULL);
	CHECK_ERR(db_get_i64(db, "SELECT 1", NULL, 0, 0, &n), ERR_FULL);
	CHECK(n == 77);
	db_query(db, &r, "SELECT 1", NULL, 0);
	CHECK(!db_step(&r) && db_i64(&r, 0) == 0);
	CHECK_ERR(db_end(&r), ERR_FULL);
	CHECK_ERR(db_commit(db), ERR_FULL);
	CHECK(count(db) == 0);
	CHECK_OK(DB_EXEC(db, put, DBI(50), DBZ("x")));
	CHECK_OK(db_commit(db));
	CHECK(count(db) == 1);
	done(db);
}

/* A foreign lock: the turn that could not begin is lost as a whole. */
TEST(busy)
{
	struct db *db = open_new(), *other;

	if (db == NULL)
		return;
	other = open_as(false, DB_POWER);
	if (other != NULL) {
		CHECK_OK(DB_EXEC(other, put, DBI(1), DBZ("theirs")));
		CHECK_ERR(DB_EXEC(db, put, DBI(2), DBZ("ours")), ERR_BUSY);
		CHECK_OK(db_commit(other));
		CHECK_ERR(DB_EXEC(db, put, DBI(2), DBZ("ours")), ERR_BUSY);
		CHECK_ERR(db_commit(db), ERR_BUSY);
		CHECK_OK(DB_EXEC(db, put, DBI(2), DBZ("ours")));
		CHECK_OK(db_commit(db));
		CHECK(count(other) == 2);
	}
	db_close(other);
	done(db);
}

/* ---- what a person reads ------------------------------------------------------------------ */

/* Opening p fails with want, in words that name p and hold hint. */
static void
refuses(const char *p, bool read_only, enum err want, const char *hint)
{
	struct db *db = NULL;
	struct fail f = FAIL_INIT;
	enum err e = db_open(&db, sqlite_feature.storage, p, read_only, DB_POWER, &f);

	CHECK_ERR(e, want);
	CHECK(db == NULL && f.err == e);
	CHECK(strstr(f.text, p) != NULL && strstr(f.text, hint) != NULL);
	if ((strstr(f.text, hint) == NULL || e != want) && !FAULTED())
		printf("  said: %s\n", f.text);
	db_close(db);
}

static bool
write_file(const char *name, const char *text, unsigned mode)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	bool good;

	if (fd < 0)
		return false;
	good = fd_write_all(fd, text, strlen(text)) == OK;
	close(fd);
	return good;
}

TEST(sentences)
{
	char name[400];

	if (!make_dir())
		return;
	snprintf(name, sizeof(name), "%s/no/such.db", dir);
	refuses(name, false, ERR_NOTFOUND, "mkdir -p -m 700");
	refuses(dir, false, ERR_CONFIG, "this is a directory");
	refuses("/dev/null", false, ERR_CONFIG, "not a regular file");
	refuses(":memory:", false, ERR_CONFIG, "not the name of a file");
	refuses("", false, ERR_CONFIG, "config set storage.database_path");
	refuses(path, true, ERR_NOTFOUND, "blufio serve");
	CHECK(!exists(""));
	if (write_file(path, "this is a diary, not a database, and of good length\n", 0600))
		refuses(path, false, ERR_CORRUPT, "file is not a database");
	refuses(path, true, ERR_CORRUPT, ".bad");
	remove_dir();
}

/* Permissions bind nobody who is root: look through the eyes of somebody else. */
static void
sentences_of_nobody(void)
{
	char name[400];

	if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
		return;
	refuses(path, false, ERR_DENIED, "chmod u+w");
	snprintf(name, sizeof(name), "%s/new.db", dir);
	refuses(name, false, ERR_DENIED, "permission denied");
	snprintf(name, sizeof(name), "%s/writable.db", dir);
	refuses(name, false, ERR_DENIED, "nothing may be created");
	snprintf(name, sizeof(name), "%s/secret.db", dir);
	refuses(name, false, ERR_DENIED, "ls -ld");
	if (access("/proc/version", R_OK) == 0)
		refuses("/proc/blufio.db", false, ERR_NOTFOUND, "ls -ld");
}

TEST(sentences_about_permission)
{
	char name[400];
	int status = -1;
	pid_t pid;

	if (tortured()) {
		SKIP("has nothing to fail");
		return;
	}
	if (!make_dir())
		return;
	CHECK(write_file(path, "", 0644) && chmod(path, 0444) == 0);
	snprintf(name, sizeof(name), "%s/secret.db", dir);
	CHECK(write_file(name, "", 0600) && chmod(name, 0) == 0);
	snprintf(name, sizeof(name), "%s/writable.db", dir);
	CHECK(write_file(name, "", 0666) && chmod(name, 0666) == 0);
	CHECK(chmod(dir, 0555) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		test_bad_ = 0;
		sentences_of_nobody();
		fflush(stdout);
		_exit(test_bad_ ? 1 : 0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	chmod(dir, 0700);
	unlink(name);
	snprintf(name, sizeof(name), "%s/secret.db", dir);
	unlink(name);
	remove_dir();
}

TEST(damage_is_found)
{
	struct db *db = open_new();
	struct fail f = FAIL_INIT;
	char junk[4096];
	int fd, i;

	if (db == NULL)
		return;
	for (i = 0; i < 50; i++)
		CHECK_OK(DB_EXEC(db, "INSERT INTO t(k, v) VALUES(?1, hex(zeroblob(500)))", DBI(i)));
	CHECK_OK(db_commit(db));
	CHECK_OK(db->ops->integrity(db->engine, &f));
	db_close(db);
	memset(junk, 0xa5, sizeof(junk));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		CHECK(lseek(fd, 4096 * 4, SEEK_SET) > 0);
		CHECK_OK(fd_write_all(fd, junk, sizeof(junk)));
		close(fd);
	}
	db = open_as(false, DB_POWER);
	if (db != NULL && !FAULTED()) {
		CHECK_ERR(db->ops->integrity(db->engine, &f), ERR_CORRUPT);
		CHECK(strstr(f.text, path) != NULL && strstr(f.text, "backup") != NULL);
	}
	done(db);
}

/* ---- death at every write ----------------------------------------------------------------- */

#define TURNS 5
#define ROWS 3

struct seen { int writes, committed; };         // shared between the dying and the living

/* Five turns of three rows and a checkpoint after each. Without transactions each
 * row is committed by itself: the planted mistake. */
static void
live(struct seen *seen, int die_at, bool transactions)
{
	struct db *db = NULL;
	int turn, row;

	plan = (struct plan){ .die_at = die_at, .errnum = EIO, .no_sync = true };
	if (db_open(&db, sqlite_feature.storage, path, false, DB_POWER, NULL) != OK ||
	    db_script(db, "CREATE TABLE IF NOT EXISTS c(turn INTEGER, row INTEGER, "
	    "pad TEXT DEFAULT(hex(zeroblob(3000))), UNIQUE(turn, row))") != OK)
		_exit(1);
	for (turn = 1; turn <= TURNS; turn++) {
		for (row = 1; row <= ROWS; row++) {
			IGNORE(DB_EXEC(db, "INSERT INTO c(turn, row) VALUES(?1, ?2)",
			    DBI(turn), DBI(row)));      /* sticks until the commit */
			if (!transactions && db_commit(db) != OK)
				_exit(1);
		}
		if (db_commit(db) != OK || db->ops->checkpoint(db->engine, false, NULL, NULL) != OK)
			_exit(1);
		seen->committed = turn;
	}
	db_close(db);
	seen->writes = plan.writes;
	kill(getpid(), SIGKILL);
}

/* Turns that are stored in part, or missing though they were committed; -1 when
 * the file is damaged. */
static int
autopsy(const struct seen *seen)
{
	struct db *db;
	int64_t n, table = 0;
	int turn, bad = 0;

	plan = (struct plan){ .errnum = EIO, .no_sync = true };
	db = open_as(false, DB_POWER);
	if (db == NULL)
		return -1;
	if (db->ops->integrity(db->engine, NULL) != OK ||
	    db_get_i64(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'c'", NULL, 0, 0,
	    &table) != OK)
		bad = -1;
	for (turn = 1; turn <= TURNS && bad >= 0 && table == 1; turn++) {
		n = -1;
		CHECK_OK(db_get_i64(db, "SELECT count(*) FROM c WHERE turn = ?1",
		    (struct db_val[]){ DBI(turn) }, 1, 0, &n));
		if ((n != 0 && n != ROWS) || (n == 0 && turn <= seen->committed))
			bad++;
	}
	if (table == 0 && seen->committed > 0)
		bad = -1;
	db_close(db);
	return bad;
}

/* How many of the deaths leave something bad behind. */
static int
deaths(struct seen *seen, bool transactions, int *points)
{
	int at, bad = 0, writes = 1, status;
	pid_t pid;

	for (at = 0; at <= writes; at++) {      /* 0 counts the writes of a whole life */
		if (!make_dir())
			return -1;
		*seen = (struct seen){ 0, 0 };
		fflush(stdout);
		pid = fork();
		if (pid == 0)
			live(seen, at, transactions);
		if (pid < 0 || waitpid(pid, &status, 0) != pid) {
			remove_dir();
			return -1;
		}
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		if (at == 0)
			writes = seen->writes;
		if (autopsy(seen) != 0)
			bad++;
		remove_dir();
	}
	*points = writes;
	return bad;
}

TEST(death_at_every_write)
{
	struct seen *seen;
	int points = 0;

	if (tortured()) {
		SKIP("has its own faults");
		return;
	}
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (seen == MAP_FAILED) {
		test_bad_at_(__FILE__, __LINE__, "mmap");
		return;
	}
	CHECK(deaths(seen, true, &points) == 0);
	CHECK(points > 30);
	CHECK(deaths(seen, false, &points) > 0);        /* the check would notice */
	munmap(seen, sizeof(*seen));
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	log_set_level(LOG_ERROR);
	replace_calls();
	RUN(values_come_back);
	RUN(connection_is_set_up);
	RUN(one_statement_fails_alone);
	RUN(rollback_undoes_the_turn);
	RUN(queries_nest);
	RUN(statement_cache);
	RUN(at_rest_one_file);
	RUN(checkpoints);
	RUN(commit_disk_full);
	RUN(commit_write_error);
	RUN(commit_sync_fails);
	RUN(light_commits);
	RUN(failure_sticks);
	RUN(busy);
	RUN(sentences);
	RUN(sentences_about_permission);
	RUN(damage_is_found);
	RUN(death_at_every_write);
	sqlite3_shutdown();
	return TEST_END();
}
