/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fault.c - the n-th allocation or system call fails (fault.h has the knobs).
 *
 * The linker's --wrap sends every call our own objects make to the functions
 * below; calls inside shared libraries are not seen (tests hand SQLite and
 * libcurl allocators of ours where that matters). Without FAULT_ variables
 * everything passes through untouched.
 *
 * The counter lives in a page shared with forked children, so a whole family
 * of processes has one n-th call and the parent knows when a child was hit.
 * A call is failed in place of being made, with one exception: close() closes
 * and then says it failed, as the kernel does; else every injected failure
 * would leak a descriptor that the code under test gave up correctly.
 *
 * On 32-bit glibc open, fcntl and their like are called by other names (open64)
 * and pass by unseen; torture is for 64 bit.
 *
 * An atexit handler disarms, because coverage and sanitizer runtimes allocate
 * while they write their reports.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { KIND_ALLOC = 1, KIND_SYS = 2 };

struct shared {                 /* one page for the process and all it forks */
	uint64_t calls;
	bool hit;
};

static struct shared *shared;   /* NULL: dormant */
static uint64_t fault_at;       /* 0: only count */
static bool sticky, one_byte, verbose;
static unsigned kinds;
static int fail_errno;
static pid_t first_pid;

bool
fault_hit(void)
{
	return shared != NULL && __atomic_load_n(&shared->hit, __ATOMIC_SEQ_CST);
}

static void
disarm(void)
{
	struct shared *s = shared;

	shared = NULL;
	one_byte = false;
	if (s != NULL && verbose && getpid() == first_pid)
		fprintf(stderr, "fault: %llu calls\n", (unsigned long long)s->calls);
}

static bool
flag(const char *name)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' && strcmp(v, "0") != 0;
}

/* Before main, so that no counted call escapes. */
__attribute__((constructor)) static void
arm(void)
{
	static const struct { const char *name; int value; } errnos[] = {
		{ "EINTR", EINTR }, { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EMFILE", EMFILE },
	};
	const char *at = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND");
	const char *error = getenv("FAULT_ERRNO");
	void *page;
	size_t i;

	one_byte = flag("FAULT_SHORT");
	verbose = flag("FAULT_VERBOSE");
	if (at == NULL && !verbose)
		return;
	fault_at = at != NULL ? strtoull(at, NULL, 10) : 0;
	sticky = flag("FAULT_STICKY");
	kinds = KIND_ALLOC | KIND_SYS;
	if (kind != NULL && strcmp(kind, "alloc") == 0)
		kinds = KIND_ALLOC;
	if (kind != NULL && strcmp(kind, "sys") == 0)
		kinds = KIND_SYS;
	fail_errno = EIO;
	for (i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++)
		if (error != NULL && strcmp(error, errnos[i].name) == 0)
			fail_errno = errnos[i].value;
	page = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || atexit(disarm) != 0) {
		fprintf(stderr, "fault: cannot arm\n");
		_exit(99);
	}
	first_pid = getpid();
	shared = page;
}

/* Counts one call; true (and errno set) when it is to fail. */
static bool
strike(enum kind k)
{
	uint64_t n;

	if (shared == NULL || !(kinds & k))
		return false;
	n = __atomic_add_fetch(&shared->calls, 1, __ATOMIC_SEQ_CST);
	if (fault_at == 0 || n < fault_at || (n > fault_at && !sticky))
		return false;
	__atomic_store_n(&shared->hit, true, __ATOMIC_SEQ_CST);
	errno = k == KIND_ALLOC ? ENOMEM : fail_errno;
	return true;
}

/* One byte where the system may legally take fewer: streams and files, but no
 * datagrams and no counters (eventfd, timerfd, signalfd refuse a short read). */
static size_t
shorten(int fd, size_t n)
{
	struct stat st;
	int type = 0, saved = errno;
	socklen_t len = sizeof(type);
	bool cut;

	if (!one_byte || n < 2 || fstat(fd, &st) != 0) {
		errno = saved;
		return n;
	}
	cut = S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode) || (S_ISSOCK(st.st_mode) &&
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM);
	errno = saved;
	return cut ? 1 : n;
}

/* WRAP(result, name, (parameters), (arguments), what failure returns) */
#define WRAP(ret, name, params, args, failure) \
	ret __real_##name params; \
	ret __wrap_##name params; \
	ret __wrap_##name params \
	{ return strike(KIND_SYS) ? (failure) : __real_##name args; }

#define WRAP_ALLOC(name, params, args) \
	void *__real_##name params; \
	void *__wrap_##name params; \
	void *__wrap_##name params \
	{ return strike(KIND_ALLOC) ? NULL : __real_##name args; }

#define WRAP_SHORT(name, params, args) \
	ssize_t __real_##name params; \
	ssize_t __wrap_##name params; \
	ssize_t __wrap_##name params \
	{ \
		if (strike(KIND_SYS)) \
			return -1; \
		n = shorten(fd, n); \
		return __real_##name args; \
	}

WRAP_ALLOC(malloc, (size_t n), (n))
WRAP_ALLOC(calloc, (size_t n, size_t m), (n, m))
WRAP_ALLOC(realloc, (void *p, size_t n), (p, n))

WRAP_SHORT(read, (int fd, void *p, size_t n), (fd, p, n))
WRAP_SHORT(write, (int fd, const void *p, size_t n), (fd, p, n))
WRAP_SHORT(pread, (int fd, void *p, size_t n, off_t o), (fd, p, n, o))
WRAP_SHORT(pwrite, (int fd, const void *p, size_t n, off_t o), (fd, p, n, o))
WRAP_SHORT(recv, (int fd, void *p, size_t n, int f), (fd, p, n, f))
WRAP_SHORT(send, (int fd, const void *p, size_t n, int f), (fd, p, n, f))

WRAP(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n), -1)
WRAP(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), -1)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *m, int f), (fd, m, f), -1)
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *m, int f), (fd, m, f), -1)
WRAP(ssize_t, getrandom, (void *p, size_t n, unsigned f), (p, n, f), -1)

WRAP(int, fsync, (int fd), (fd), -1)
WRAP(int, fdatasync, (int fd), (fd), -1)
WRAP(int, ftruncate, (int fd, off_t n), (fd, n), -1)
WRAP(int, rename, (const char *a, const char *b), (a, b), -1)
WRAP(int, unlink, (const char *p), (p), -1)
WRAP(int, mkdir, (const char *p, mode_t m), (p, m), -1)
WRAP(int, fchmod, (int fd, mode_t m), (fd, m), -1)
WRAP(FILE *, fopen, (const char *p, const char *m), (p, m), NULL)
WRAP(DIR *, opendir, (const char *p), (p), NULL)

WRAP(int, pipe, (int fd[2]), (fd), -1)
WRAP(int, pipe2, (int fd[2], int f), (fd, f), -1)
WRAP(int, dup, (int fd), (fd), -1)
WRAP(int, dup2, (int a, int b), (a, b), -1)
WRAP(int, socket, (int d, int t, int p), (d, t, p), -1)
WRAP(int, socketpair, (int d, int t, int p, int fd[2]), (d, t, p, fd), -1)
WRAP(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)
WRAP(int, listen, (int fd, int n), (fd, n), -1)
WRAP(int, connect, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)
WRAP(int, accept, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)
WRAP(int, accept4, (int fd, struct sockaddr *a, socklen_t *n, int f), (fd, a, n, f), -1)

WRAP(int, poll, (struct pollfd *p, nfds_t n, int ms), (p, n, ms), -1)
WRAP(int, epoll_create1, (int f), (f), -1)
WRAP(int, epoll_ctl, (int e, int op, int fd, struct epoll_event *v), (e, op, fd, v), -1)
WRAP(int, epoll_wait, (int e, struct epoll_event *v, int n, int ms), (e, v, n, ms), -1)
WRAP(int, eventfd, (unsigned n, int f), (n, f), -1)
WRAP(int, signalfd, (int fd, const sigset_t *s, int f), (fd, s, f), -1)
WRAP(int, timerfd_create, (int c, int f), (c, f), -1)

WRAP(pid_t, fork, (void), (), -1)
WRAP(int, pthread_create, (pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg),
    (t, a, fn, arg), EAGAIN)

int __real_close(int fd);
int __wrap_close(int fd);

int
__wrap_close(int fd)
{
	int failed = strike(KIND_SYS) ? errno : 0;
	int r = __real_close(fd);

	if (failed == 0)
		return r;
	errno = failed;
	return -1;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

int
__wrap_open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode = 0;

	va_start(ap, flags);
	if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return strike(KIND_SYS) ? -1 : __real_open(path, flags, mode);
}

int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);

int
__wrap_openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode = 0;

	va_start(ap, flags);
	if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return strike(KIND_SYS) ? -1 : __real_openat(dir, path, flags, mode);
}

/* The third argument is an int or a pointer; either travels as a pointer-sized word. */
int __real_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);

int
__wrap_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return strike(KIND_SYS) ? -1 : __real_fcntl(fd, cmd, arg);
}
