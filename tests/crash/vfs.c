/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vfs.c - what SQLite asks of the disk, written down in order; test only.
 *
 * Linked with the daemon's own objects, this becomes the default VFS right before
 * the first sqlite3_open_v2 (wrapped by the linker, because the daemon configures
 * SQLite just before and that must stay first). It is the "unix" VFS with four
 * methods of the database, its log and its rollback journal exchanged: each call
 * is done and then appended to a file, so that images.py can build every state a
 * power failure could leave. The -shm file is memory and not looked at.
 *
 *     CRASH_LOG=path          where the records go; without it nothing is recorded
 *     CRASH_FAIL=write:7:FULL the 7th write fails, half of it done (or IOERR, or sync)
 *     CRASH_NOSYNC=1          a planted bug: a sync reports success and does nothing
 *
 * One mutex is held over the call and its record: the checkpoint thread has its
 * place in the order, and a record's time is one at which nothing of it had begun.
 */
#include <errno.h>
#include <pthread.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum op { OP_WRITE, OP_TRUNCATE, OP_SYNC, OP_DELETE, OP_SWALLOWED };
enum kind { KIND_DB, KIND_WAL, KIND_JOURNAL, KIND_OTHER };

/* What images.py reads: this, then n bytes. */
struct record {
	uint64_t ns;            /* CLOCK_MONOTONIC before the call */
	uint8_t op, kind, failed, pad;
	uint32_t n;             /* bytes that reached the file */
	int64_t at;             /* offset, or the new size */
};
_Static_assert(sizeof(struct record) == 24, "images.py reads it so");

int sqlite3_open_v2_real(const char *, sqlite3 **, int, const char *) __asm__("__real_sqlite3_open_v2");
int sqlite3_open_v2_wrap(const char *, sqlite3 **, int, const char *) __asm__("__wrap_sqlite3_open_v2");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static sqlite3_vfs vfs, *unix_vfs;
static struct {
	const sqlite3_io_methods *real;
	sqlite3_io_methods mine;
} kinds[KIND_OTHER];
static int log_fd = -1, nosync;
static struct { int op, code, err; long left; } fault = { .op = -1 };

/* The kind of a file stands behind the bytes that the unix VFS wants for it. The
 * daemon puts methods of its own before those of the log: pMethods does not tell. */
static enum kind
kind_of(sqlite3_file *file)
{
	return ((const unsigned char *)file)[unix_vfs->szOsFile];
}

static void
give_up(const char *what)
{
	fprintf(stderr, "crash vfs: %s: %s\n", what, strerror(errno));
	abort();
}

static struct record
begin(enum op op, enum kind kind, int64_t at)
{
	struct timespec t;

	if (pthread_mutex_lock(&lock) != 0 || clock_gettime(CLOCK_MONOTONIC, &t) != 0)
		give_up("begin");
	return (struct record){ .ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec,
	    .op = (uint8_t)op, .kind = (uint8_t)kind, .at = at };
}

static int
end(struct record *r, int rc, const void *p, size_t n)
{
	int err = errno;

	r->failed = rc != SQLITE_OK;
	r->n = (uint32_t)n;
	if (log_fd >= 0 && (write(log_fd, r, sizeof(*r)) != (ssize_t)sizeof(*r) ||
	    (n > 0 && write(log_fd, p, n) != (ssize_t)n)))
		give_up("the log");
	if (pthread_mutex_unlock(&lock) != 0)
		give_up("end");
	errno = err;
	return rc;
}

/* Under the lock: whether this call is the one that fails. */
static int
fails(enum op op)
{
	if ((int)op != fault.op || --fault.left != 0)
		return SQLITE_OK;
	errno = fault.err;
	return fault.code;
}

static int
do_write(sqlite3_file *file, const void *p, int n, sqlite3_int64 at)
{
	enum kind kind = kind_of(file);
	struct record r = begin(OP_WRITE, kind, at);
	int rc = fails(OP_WRITE), done = rc == SQLITE_OK ? n : n / 2;
	int real = kinds[kind].real->xWrite(file, p, done, at);

	if (rc == SQLITE_OK)
		rc = real;
	else
		errno = fault.err;
	return end(&r, rc, p, real == SQLITE_OK ? (size_t)done : 0);
}

static int
do_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	enum kind kind = kind_of(file);
	struct record r = begin(OP_TRUNCATE, kind, size);

	return end(&r, kinds[kind].real->xTruncate(file, size), NULL, 0);
}

static int
do_sync(sqlite3_file *file, int flags)
{
	enum kind kind = kind_of(file);
	struct record r = begin(nosync ? OP_SWALLOWED : OP_SYNC, kind, 0);
	int rc = nosync ? SQLITE_OK : fails(OP_SYNC);

	if (rc == SQLITE_OK && !nosync)
		rc = kinds[kind].real->xSync(file, flags);
	return end(&r, rc, NULL, 0);
}

static int
do_delete(sqlite3_vfs *v, const char *name, int sync_dir)
{
	size_t n = strlen(name);
	struct record r = begin(OP_DELETE, n > 4 && strcmp(name + n - 4, "-wal") == 0 ? KIND_WAL :
	    n > 8 && strcmp(name + n - 8, "-journal") == 0 ? KIND_JOURNAL : KIND_OTHER, sync_dir);

	(void)v;
	return end(&r, unix_vfs->xDelete(unix_vfs, name, sync_dir), NULL, 0);
}

static int
do_open(sqlite3_vfs *v, const char *name, sqlite3_file *file, int flags, int *out)
{
	int rc = unix_vfs->xOpen(unix_vfs, name, file, flags, out);
	enum kind kind = flags & SQLITE_OPEN_MAIN_DB ? KIND_DB : flags & SQLITE_OPEN_WAL ? KIND_WAL :
	    flags & SQLITE_OPEN_MAIN_JOURNAL ? KIND_JOURNAL : KIND_OTHER;

	(void)v;
	if (rc != SQLITE_OK || kind == KIND_OTHER || flags & SQLITE_OPEN_READONLY)
		return rc;
	if (pthread_mutex_lock(&lock) != 0)
		give_up("open");
	if (kinds[kind].real == NULL) {
		kinds[kind].real = file->pMethods;
		kinds[kind].mine = *file->pMethods;
		kinds[kind].mine.xWrite = do_write;
		kinds[kind].mine.xTruncate = do_truncate;
		kinds[kind].mine.xSync = do_sync;
	}
	/* one kind, one set of methods: else a call would go to a stranger's */
	if (kinds[kind].real != file->pMethods)
		give_up("two sets of methods");
	((unsigned char *)file)[unix_vfs->szOsFile] = (unsigned char)kind;
	file->pMethods = &kinds[kind].mine;
	if (pthread_mutex_unlock(&lock) != 0)
		give_up("open");
	return rc;
}

static void
install(void)
{
	const char *path = getenv("CRASH_LOG"), *fail = getenv("CRASH_FAIL");
	char op[8], code[8];

	nosync = getenv("CRASH_NOSYNC") != NULL;
	if (path != NULL && (log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0)
		give_up(path);
	if (fail != NULL) {
		int full;

		if (sscanf(fail, "%7[a-z]:%ld:%7[A-Z]", op, &fault.left, code) != 3)
			give_up(fail);
		full = strcmp(code, "FULL") == 0;
		fault.op = strcmp(op, "sync") == 0 ? OP_SYNC : OP_WRITE;
		fault.err = full ? ENOSPC : EIO;
		fault.code = full ? SQLITE_FULL : fault.op == OP_SYNC ? SQLITE_IOERR_FSYNC : SQLITE_IOERR_WRITE;
	}
	unix_vfs = sqlite3_vfs_find(NULL);
	if (unix_vfs == NULL)
		give_up("no VFS");
	vfs = *unix_vfs;
	vfs.zName = "crash";
	vfs.pNext = NULL;
	vfs.szOsFile++;
	vfs.xOpen = do_open;
	vfs.xDelete = do_delete;
	if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK)
		give_up("not registered");
}

int
sqlite3_open_v2_wrap(const char *path, sqlite3 **db, int flags, const char *name)
{
	if (pthread_once(&once, install) != 0)
		give_up("once");
	return sqlite3_open_v2_real(path, db, flags, name);
}
