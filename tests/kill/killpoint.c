/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * killpoint.c - a library to preload into the dynamic binary that counts what
 * it does to the outside world and can kill it, or fail it, at any one of
 * these points.
 *
 *   gcc -shared -fPIC -O2 -o killpoint.so killpoint.c -ldl
 *   LD_PRELOAD=…/killpoint.so KP_LOG=/tmp/points build/blufio serve
 *
 * Points and their labels:
 *   step:SQL             sqlite3_step of a statement that writes (BEGIN, COMMIT too);
 *                        the first 60 characters of its text
 *   pwrite:SUFFIX        and pwrite64, write, fsync, fdatasync on a database file;
 *                        SUFFIX is the end of its name: db, db-wal, db-journal
 *   send:socket          and sendmsg, writev, write on a socket; recv:socket
 *   epoll                a return of epoll_wait or epoll_pwait
 *
 * Environment:
 *   KP_LOG=file          one line per point: "n label", with " !" behind it when it fails
 *   KP_DETAIL=1          … and behind it the peer's port and the first bytes for a socket, or
 *                        " worker" for a thread that is not the first (labels stay the same)
 *   KP_AT=label#k        SIGKILL before the k-th point whose label contains label
 *   KP_WHEN=after        … after it instead (the call was made, nobody heard of it)
 *   KP_FAIL=label#k:ERRNO[:count]   from the k-th such point on, count calls (default 1,
 *                        "inf" for ever) fail with the errno (name or number). With ENOSPC the
 *                        first write is cut short and the next ones fail, as on a full disk.
 *   KP_FAIL_WHILE=file   … only while this file exists (an outage that ends)
 *   KP_ARM=file          nothing counts, kills or fails unless this file exists
 *   KP_CLOCK=us          the time of day is so many microseconds ahead
 *
 * KP_AT and KP_FAIL count separately, each the points that match it. A k-th
 * point of a label that does not occur never happens: the test sees a daemon
 * that lived, and says so.
 *
 * Only the process that uses the database counts: the spawner is forked before
 * a database exists and inherits this library, so points begin to count in a
 * process with its first sqlite3_step or, before that, never. Counters are
 * atomic, and nothing here allocates: paths and numbers are formatted by hand
 * into buffers on the stack, because a point may lie inside malloc's own
 * callers or between fork and exec. stdio is not used for the same reason.
 * A second sqlite3_step inside a point cannot happen; a write of the log can,
 * and goes straight to the kernel by syscall(2).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define LABEL_MAX 96
#define DETAIL_MAX 1600        /* bytes of a transfer that a log line shows */
#define SQL_CHARS 60
#define SQLITE_FULL 13
#define SQLITE_IOERR 10
#define DISK_PAGE 512          /* a short write keeps this much */
#define FDS_MAX 4096           /* descriptors whose kind is cached */

typedef struct sqlite3_stmt sqlite3_stmt;

/* One of KP_AT and KP_FAIL: which points it means and how many it has seen. */
struct rule {
	bool set;
	char label[LABEL_MAX];
	long from;              /* the k of label#k, from 1 */
	long count;             /* calls that fail; LONG_MAX for ever */
	int error;
	atomic_long seen;
	atomic_bool cut;        /* the short write of a full disk was made; it is not one of count */
};

enum fd_kind { FD_UNKNOWN, FD_OTHER, FD_SOCKET, FD_DATABASE };

static struct {
	atomic_int log_fd;      /* -1 none */
	bool after, detail;
	const char *while_file, *arm_file;
	long long ahead;        /* microseconds */
	struct rule at, fail;
	atomic_long events;
	atomic_int pid;         /* the process that counts, 0 none yet */
	/* kind of a descriptor, forgotten when it is closed */
	atomic_uchar kind[FDS_MAX];
	atomic_uchar suffix[FDS_MAX];   /* index into suffixes */
} kp;

static const char *const suffixes[] = { "db-wal", "db-journal", "db-shm", "db", "sqlite" };

static struct {
	int (*sqlite3_step)(sqlite3_stmt *);
	const char *(*sqlite3_sql)(sqlite3_stmt *);
	int (*sqlite3_stmt_readonly)(sqlite3_stmt *);
	ssize_t (*pwrite)(int, const void *, size_t, off_t);
	ssize_t (*pwrite64)(int, const void *, size_t, off64_t);
	ssize_t (*write)(int, const void *, size_t);
	ssize_t (*writev)(int, const struct iovec *, int);
	ssize_t (*send)(int, const void *, size_t, int);
	ssize_t (*sendmsg)(int, const struct msghdr *, int);
	ssize_t (*recv)(int, void *, size_t, int);
	int (*fsync)(int);
	int (*fdatasync)(int);
	int (*close)(int);
	int (*epoll_wait)(int, struct epoll_event *, int, int);
	int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
	int (*clock_gettime)(clockid_t, struct timespec *);
} real;

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- set-up ------------------------------------------------------------------ */

static const struct { const char *name; int value; } errnos[] = {
	{ "ENOSPC", ENOSPC }, { "EIO", EIO }, { "EROFS", EROFS }, { "EDQUOT", EDQUOT },
	{ "EACCES", EACCES }, { "EPIPE", EPIPE }, { "ECONNRESET", ECONNRESET }, { "EINTR", EINTR },
	{ "EAGAIN", EAGAIN }, { "ENOMEM", ENOMEM }, { "EFBIG", EFBIG }, { "EBADF", EBADF },
};

static int
parse_errno(const char *s, size_t n)
{
	for (size_t i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++)
		if (strlen(errnos[i].name) == n && memcmp(errnos[i].name, s, n) == 0)
			return errnos[i].value;
	int v = (int)strtol(s, NULL, 10);
	return v > 0 ? v : EIO;
}

/* A rule that cannot be read must not pass for one that never matched. */
static _Noreturn void
unreadable(const char *text)
{
	(void)syscall(SYS_write, 2, "killpoint: bad rule ", 20);
	(void)syscall(SYS_write, 2, text, strlen(text));
	(void)syscall(SYS_write, 2, "\n", 1);
	_exit(99);
}

/* "label#k" and, for failures, ":ERRNO[:count]". */
static void
parse_rule(struct rule *r, const char *text, bool fails)
{
	const char *hash = text ? strrchr(text, '#') : NULL;
	char *end;

	if (text == NULL)
		return;
	if (hash == NULL || hash == text || (size_t)(hash - text) >= sizeof(r->label))
		unreadable(text);
	memcpy(r->label, text, (size_t)(hash - text));
	r->from = strtol(hash + 1, &end, 10);
	r->count = 1;
	r->error = EIO;
	if (r->from < 1 || (fails && *end != ':') || (!fails && *end != '\0'))
		unreadable(text);
	if (fails) {
		const char *e = end + 1, *colon = strchr(e, ':');

		r->error = parse_errno(e, colon ? (size_t)(colon - e) : strlen(e));
		if (colon)
			r->count = strcmp(colon + 1, "inf") == 0 ? LONG_MAX : strtol(colon + 1, NULL, 10);
	}
	r->set = true;
}

/* ISO C has no conversion from object to function pointer; the bytes are the same in POSIX. */
static void
find(void *slot, const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	memcpy(slot, &p, sizeof(p));
}

static void
setup(void)
{
	const char *log = getenv("KP_LOG"), *when = getenv("KP_WHEN"), *ahead = getenv("KP_CLOCK");

	find(&real.sqlite3_step, "sqlite3_step");
	find(&real.sqlite3_sql, "sqlite3_sql");
	find(&real.sqlite3_stmt_readonly, "sqlite3_stmt_readonly");
	find(&real.pwrite, "pwrite");
	find(&real.pwrite64, "pwrite64");
	find(&real.write, "write");
	find(&real.writev, "writev");
	find(&real.send, "send");
	find(&real.sendmsg, "sendmsg");
	find(&real.recv, "recv");
	find(&real.fsync, "fsync");
	find(&real.fdatasync, "fdatasync");
	find(&real.close, "close");
	find(&real.epoll_wait, "epoll_wait");
	find(&real.epoll_pwait, "epoll_pwait");
	find(&real.clock_gettime, "clock_gettime");
	kp.after = when != NULL && strcmp(when, "after") == 0;
	kp.detail = getenv("KP_DETAIL") != NULL;
	kp.while_file = getenv("KP_FAIL_WHILE");
	kp.arm_file = getenv("KP_ARM");
	kp.ahead = ahead != NULL ? strtoll(ahead, NULL, 10) : 0;
	parse_rule(&kp.at, getenv("KP_AT"), false);
	parse_rule(&kp.fail, getenv("KP_FAIL"), true);
	atomic_store(&kp.log_fd, -1);
	if (log != NULL)
		atomic_store(&kp.log_fd, open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
}

static void
ready(void)
{
	pthread_once(&once, setup);
}

/* ---- labels -------------------------------------------------------------------- */

static size_t
put(char *out, size_t at, size_t max, const char *text)
{
	while (*text != '\0' && at + 1 < max)
		out[at++] = *text++;
	out[at] = '\0';
	return at;
}

static void
label_sql(char out[LABEL_MAX], const char *sql)
{
	size_t n = put(out, 0, LABEL_MAX, "step:");
	size_t end = n + SQL_CHARS;

	while (*sql == ' ' || *sql == '\t' || *sql == '\n')
		sql++;
	for (; *sql != '\0' && n < end; sql++)
		out[n++] = *sql == '\n' || *sql == '\t' ? ' ' : *sql;
	out[n] = '\0';
}

/* The end of a database file's name, or SIZE_MAX. */
static size_t
suffix_of(const char *path, size_t n)
{
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		size_t m = strlen(suffixes[i]);

		if (n > m && path[n - m - 1] == '.' && memcmp(path + n - m, suffixes[i], m) == 0)
			return i;
	}
	return SIZE_MAX;
}

static enum fd_kind
kind_of(int fd, size_t *suffix)
{
	char proc[40] = "/proc/self/fd/", digits[12], path[PATH_MAX];
	struct stat st;
	enum fd_kind kind = FD_OTHER;
	size_t d = 0, at = strlen(proc);
	ssize_t n;

	*suffix = 0;
	if (fd < 0 || fd >= FDS_MAX)
		return FD_OTHER;
	if (atomic_load(&kp.kind[fd]) != FD_UNKNOWN) {
		*suffix = atomic_load(&kp.suffix[fd]);
		return (enum fd_kind)atomic_load(&kp.kind[fd]);
	}
	for (int v = fd; d == 0 || v > 0; v /= 10)
		digits[d++] = (char)('0' + v % 10);
	while (d > 0)
		proc[at++] = digits[--d];
	proc[at] = '\0';
	if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode)) {
		kind = FD_SOCKET;
	} else if (S_ISREG(st.st_mode) && (n = readlink(proc, path, sizeof(path))) > 0) {
		size_t i = suffix_of(path, (size_t)n);

		if (i != SIZE_MAX) {
			kind = FD_DATABASE;
			*suffix = i;
		}
	}
	atomic_store(&kp.suffix[fd], (unsigned char)*suffix);
	atomic_store(&kp.kind[fd], (unsigned char)kind);
	return kind;
}

/* ---- points ---------------------------------------------------------------------- */

static bool
exists(const char *path)
{
	int saved = errno;
	bool yes = access(path, F_OK) == 0;

	errno = saved;
	return yes;
}

/* Does anything count here and now? */
static bool
active(void)
{
	return atomic_load(&kp.pid) == getpid() && (kp.arm_file == NULL || exists(kp.arm_file));
}

static size_t
put_number(char *out, size_t at, long v)
{
	char digits[24];
	size_t d = 0;

	for (; d == 0 || v > 0; v /= 10)
		digits[d++] = (char)('0' + v % 10);
	while (d > 0)
		out[at++] = digits[--d];
	return at;
}

static void
note(const char *label, bool fails, const char *detail)
{
	char line[LABEL_MAX + DETAIL_MAX + 64];
	int fd = atomic_load(&kp.log_fd), saved = errno;
	size_t n = put_number(line, 0, atomic_fetch_add(&kp.events, 1) + 1);

	if (fd < 0)
		return;
	line[n++] = ' ';
	n = put(line, n, sizeof(line) - 2, label);
	if (fails)
		n = put(line, n, sizeof(line) - 2, " !");
	n = put(line, n, sizeof(line) - 2, detail);
	line[n++] = '\n';
	/* Not write(): this library stands in front of it. */
	(void)syscall(SYS_write, fd, line, n);
	errno = saved;
}

/* " :port first bytes" of a transfer, without line ends. */
static void
describe(char out[DETAIL_MAX], int fd, const void *data, size_t bytes)
{
	struct sockaddr_in to = { .sin_family = 0 };
	socklen_t size = sizeof(to);
	const unsigned char *p = data;
	int saved = errno;
	size_t n;

	out[0] = '\0';
	if (!kp.detail || p == NULL)
		return;
	n = put(out, 0, DETAIL_MAX, " :");
	if (getpeername(fd, (struct sockaddr *)&to, &size) == 0 && to.sin_family == AF_INET)
		n = put_number(out, n, ntohs(to.sin_port));
	out[n++] = ' ';
	for (size_t i = 0; i < bytes && n + 1 < DETAIL_MAX; i++)
		out[n++] = p[i] < ' ' || p[i] > '~' ? ' ' : (char)p[i];
	out[n] = '\0';
	errno = saved;
}

/* What is to happen at a point. */
struct point {
	bool kill;
	int error;              /* errno to fail with, 0 none */
};

static struct point
reach(const char *label, const char *detail)
{
	struct point p = { false, 0 };

	if (kp.at.set && strstr(label, kp.at.label) != NULL)
		p.kill = atomic_fetch_add(&kp.at.seen, 1) + 1 == kp.at.from;
	if (kp.fail.set && strstr(label, kp.fail.label) != NULL) {
		long k = atomic_fetch_add(&kp.fail.seen, 1) + 1;

		if (k >= kp.fail.from && (kp.fail.count == LONG_MAX ||
		    k - kp.fail.from < kp.fail.count + (atomic_load(&kp.fail.cut) ? 1 : 0)) &&
		    (kp.while_file == NULL || exists(kp.while_file)))
			p.error = kp.fail.error;
	}
	note(label, p.error != 0, detail);
	if (p.kill && !kp.after) {
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	}
	return p;
}

static void
leave(struct point p)
{
	if (!p.kill)
		return;
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

/* The point of a call on a descriptor; nothing happens for one that is of no interest. Only
 * calls that say what they transfer can be meant for a socket. */
static struct point
reach_fd(const char *call, int fd, const void *data, size_t bytes)
{
	struct point none = { false, 0 };
	char label[LABEL_MAX], detail[DETAIL_MAX] = "";
	size_t suffix, n;
	enum fd_kind kind;
	int saved = errno;

	if (!active())
		return none;
	kind = kind_of(fd, &suffix);
	errno = saved;
	if (kind != FD_DATABASE && !(data != NULL && kind == FD_SOCKET))
		return none;
	if (kind == FD_SOCKET)
		describe(detail, fd, data, bytes);
	else if (kp.detail && syscall(SYS_gettid) != getpid())
		put(detail, 0, sizeof(detail), " worker");
	n = put(label, 0, sizeof(label), call);
	n = put(label, n, sizeof(label), ":");
	put(label, n, sizeof(label), kind == FD_SOCKET ? "socket" : suffixes[suffix]);
	return reach(label, detail);
}

/* How much of a write of n bytes still fits on a disk that is just becoming full. */
static size_t
fits(struct point p, size_t n)
{
	if (p.error != ENOSPC || n <= DISK_PAGE || atomic_exchange(&kp.fail.cut, true))
		return 0;
	return DISK_PAGE;
}

/* ---- what stands in front of the C library and SQLite ------------------------------- */

int sqlite3_step(sqlite3_stmt *stmt);

int
sqlite3_step(sqlite3_stmt *stmt)
{
	struct point p = { false, 0 };
	char label[LABEL_MAX];
	const char *sql;
	int r, none = 0;

	ready();
	/* The first process that steps a statement is the daemon; its children never do. */
	atomic_compare_exchange_strong(&kp.pid, &none, (int)getpid());
	if (active() && stmt != NULL && (sql = real.sqlite3_sql(stmt)) != NULL) {
		label_sql(label, sql);
		/* BEGIN and COMMIT count as read-only to SQLite. */
		if (!real.sqlite3_stmt_readonly(stmt) || strncasecmp(label, "step:BEGIN", 10) == 0 ||
		    strncasecmp(label, "step:COMMIT", 11) == 0 || strncasecmp(label, "step:END", 8) == 0)
			p = reach(label, "");
	}
	if (p.error)
		return p.error == ENOSPC ? SQLITE_FULL : SQLITE_IOERR;
	r = real.sqlite3_step(stmt);
	leave(p);
	return r;
}

#define FAIL(p, value) do { if ((p).error) { errno = (p).error; return (value); } } while (0)

ssize_t
pwrite(int fd, const void *data, size_t n, off_t at)
{
	struct point p;
	ssize_t r;
	size_t part;

	ready();
	p = reach_fd("pwrite", fd, NULL, 0);
	if ((part = fits(p, n)) > 0)
		return real.pwrite(fd, data, part, at);
	FAIL(p, -1);
	r = real.pwrite(fd, data, n, at);
	leave(p);
	return r;
}

ssize_t
pwrite64(int fd, const void *data, size_t n, off64_t at)
{
	struct point p;
	ssize_t r;
	size_t part;

	ready();
	p = reach_fd("pwrite", fd, NULL, 0);
	if ((part = fits(p, n)) > 0)
		return real.pwrite64(fd, data, part, at);
	FAIL(p, -1);
	r = real.pwrite64(fd, data, n, at);
	leave(p);
	return r;
}

ssize_t
write(int fd, const void *data, size_t n)
{
	struct point p;
	ssize_t r;
	size_t part;

	ready();
	p = reach_fd("write", fd, data, n);
	if ((part = fits(p, n)) > 0)
		return real.write(fd, data, part);
	FAIL(p, -1);
	r = real.write(fd, data, n);
	leave(p);
	return r;
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
	struct point p;
	ssize_t r;

	ready();
	p = reach_fd("writev", fd, n > 0 ? v[0].iov_base : "", n > 0 ? v[0].iov_len : 0);
	FAIL(p, -1);
	r = real.writev(fd, v, n);
	leave(p);
	return r;
}

ssize_t
send(int fd, const void *data, size_t n, int flags)
{
	struct point p;
	ssize_t r;

	ready();
	p = reach_fd("send", fd, data, n);
	FAIL(p, -1);
	r = real.send(fd, data, n, flags);
	leave(p);
	return r;
}

ssize_t
sendmsg(int fd, const struct msghdr *m, int flags)
{
	struct point p;
	ssize_t r;

	ready();
	p = reach_fd("sendmsg", fd, m->msg_iovlen > 0 ? m->msg_iov[0].iov_base : "",
	    m->msg_iovlen > 0 ? m->msg_iov[0].iov_len : 0);
	FAIL(p, -1);
	r = real.sendmsg(fd, m, flags);
	leave(p);
	return r;
}

/* The point is the return, with what came. Peeks and ends of data are none. */
ssize_t
recv(int fd, void *data, size_t n, int flags)
{
	struct point p;
	ssize_t r;

	ready();
	r = real.recv(fd, data, n, flags);
	if (r <= 0 || (flags & MSG_PEEK) != 0)
		return r;
	p = reach_fd("recv", fd, data, (size_t)r);
	FAIL(p, -1);
	leave(p);
	return r;
}

int
fsync(int fd)
{
	struct point p;
	int r;

	ready();
	p = reach_fd("fsync", fd, NULL, 0);
	FAIL(p, -1);
	r = real.fsync(fd);
	leave(p);
	return r;
}

int
fdatasync(int fd)
{
	struct point p;
	int r;

	ready();
	p = reach_fd("fdatasync", fd, NULL, 0);
	FAIL(p, -1);
	r = real.fdatasync(fd);
	leave(p);
	return r;
}

/* A descriptor's number comes back as something else: forget what it was. */
int
close(int fd)
{
	ready();
	if (fd >= 0 && fd < FDS_MAX)
		atomic_store(&kp.kind[fd], FD_UNKNOWN);
	return real.close(fd);
}

/* The point is the return, before the loop handles anything: EINTR and errors are not events. */
static int
woke(int n)
{
	if (n >= 0 && active())
		leave(reach("epoll", ""));
	return n;
}

int
epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
	ready();
	return woke(real.epoll_wait(fd, events, max, timeout));
}

int
epoll_pwait(int fd, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
	ready();
	return woke(real.epoll_pwait(fd, events, max, timeout, mask));
}

/* ---- the time of day ------------------------------------------------------------- */

int
clock_gettime(clockid_t id, struct timespec *t)
{
	int r;

	ready();
	r = real.clock_gettime(id, t);
	if (r == 0 && id == CLOCK_REALTIME) {
		long long us = t->tv_nsec / 1000 + kp.ahead;

		t->tv_sec += us / 1000000;
		t->tv_nsec = us % 1000000 * 1000 + t->tv_nsec % 1000;
	}
	return r;
}
