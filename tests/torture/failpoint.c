/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * failpoint.c - a library to preload into the shipped binary that makes its
 * n-th allocation or system call fail, when it is told to from outside.
 *
 *   FAILPOINT=file LD_PRELOAD=…/failpoint.so build/blufio serve
 *
 * The file holds one struct control, which the driver (turn.py) and the daemon
 * both map. The driver fills it, sets armed, and from then on every call of
 * the wanted kinds counts; the n-th fails, or, sticky, that and all after it
 * until armed is cleared again. So one daemon lives through many failures.
 * What was hit stands in the same struct: the function, the errno, the calls
 * that led to it (addresses, and for libraries the nearest exported name).
 *
 * Everything in the process counts: SQLite and libcurl have no allocator and
 * no system calls of their own. The C library's inner calls are not seen, save
 * for its allocations. Only the first process with this file counts; the
 * spawner it forks and what that starts have another pid.
 *
 * A call fails in place of being made; close alone closes and then says that it
 * failed, as the kernel does, else each injection would leak a descriptor. The
 * errno is one that this call can really give; "variant" chooses among them.
 *
 * Allocation goes to glibc's own names (__libc_malloc), so that nothing has to
 * be looked up before the first of them. This needs glibc.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FRAMES 24
#define NAME_SIZE 32

/* What a call is; the driver's mask says which of them count. */
enum kind {
	ALLOC = 1,              /* allocations */
	CALL = 2,               /* every system call */
	DISK = 4,               /* … that may need room on the disk, or syncs it */
	FILES = 8,              /* … that makes a descriptor */
	NET = 16                /* … that moves bytes or makes a connection */
};

struct control {                /* turn.py knows this layout */
	uint32_t armed, kinds, sticky, variant;         /* the driver's */
	uint64_t n;                                     /* 0: only count */
	int32_t pid, error;                             /* ours from here on */
	uint64_t count, hits;
	char name[NAME_SIZE];                           /* of the first hit */
	uint64_t frame[FRAMES];                         /* its callers, innermost first */
	char near[FRAMES][NAME_SIZE];                   /* and their names, where known */
};

static struct control *control;
static __thread bool inside __attribute__((tls_model("initial-exec")));  /* backtrace and dladdr call us */

__attribute__((constructor)) static void
setup(void)
{
	const char *path = getenv("FAILPOINT");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *warm[1], *page;
	int32_t none = 0;

	if (fd < 0)
		return;
	page = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (page == MAP_FAILED)
		return;
	(void)backtrace(warm, 1);       /* its first call loads a library */
	__atomic_compare_exchange_n(&((struct control *)page)->pid, &none, getpid(), false,
	    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	control = page;
}

static void
note(const char *name, int error)
{
	struct control *c = control;
	void *frame[FRAMES + 2];
	int n = backtrace(frame, FRAMES + 2) - 2;       /* without note and strike */
	Dl_info info;

	c->error = error;
	for (int i = 0; i < FRAMES; i++) {
		c->frame[i] = i < n ? (uint64_t)(uintptr_t)frame[i + 2] : 0;
		c->near[i][0] = '\0';
		if (i < n && dladdr(frame[i + 2], &info) != 0 && info.dli_sname != NULL)
			strncat(c->near[i], info.dli_sname, NAME_SIZE - 1);
	}
	strncpy(c->name, name, NAME_SIZE - 1);
}

/* Counts one call; the errno when it is to fail, else 0. errors ends with 0, the first is what
 * a lasting failure gives. */
static __attribute__((noinline)) int
strike(const char *name, unsigned kinds, const int *errors)
{
	struct control *c = control;
	uint64_t at;
	int n = 0, saved = errno, error;

	if (c == NULL || inside || !__atomic_load_n(&c->armed, __ATOMIC_ACQUIRE) || (c->kinds & kinds) == 0 ||
	    c->pid != getpid())
		return 0;
	at = __atomic_add_fetch(&c->count, 1, __ATOMIC_SEQ_CST);
	if (c->n == 0 || at < c->n || (at > c->n && !c->sticky))
		return 0;
	while (errors[n] != 0)
		n++;
	error = errors[c->sticky ? 0 : c->variant % (unsigned)n];
	if (at == c->n) {
		inside = true;
		note(name, error);
		inside = false;
	}
	__atomic_add_fetch(&c->hits, 1, __ATOMIC_SEQ_CST);
	errno = saved;
	return error;
}

#define ERRORS(...) (const int[]){ __VA_ARGS__, 0 }

/* ---- allocations --------------------------------------------------------------------- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

#define WRAP_ALLOC(name, params, args) \
	void * \
	name params \
	{ \
		if (strike(#name, ALLOC, ERRORS(ENOMEM)) == 0) \
			return __libc_##name args; \
		errno = ENOMEM; \
		return NULL; \
	}

WRAP_ALLOC(malloc, (size_t n), (n))
WRAP_ALLOC(calloc, (size_t n, size_t size), (n, size))
WRAP_ALLOC(realloc, (void *p, size_t n), (p, n))

/* ---- system calls --------------------------------------------------------------------- */

/* The function behind ours, found once. ISO C has no conversion from object to function pointer;
 * the bytes are the same in POSIX. */
#define REAL(ret, name, params) \
	static ret (*real) params; \
	if (real == NULL) { \
		void *found = dlsym(RTLD_NEXT, #name); \
		memcpy(&real, &found, sizeof(real)); \
	}

/* WRAP(result, name, (parameters), (arguments), what failure returns, kinds, errors...) */
#define WRAP(ret, name, params, args, failure, kinds, ...) \
	ret \
	name params \
	{ \
		REAL(ret, name, params) \
		int error = strike(#name, CALL | (kinds), ERRORS(__VA_ARGS__)); \
		if (error == 0) \
			return real args; \
		errno = error; \
		return failure; \
	}

WRAP(ssize_t, read, (int fd, void *p, size_t n), (fd, p, n), -1, 0, EIO, EINTR)
WRAP(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n), -1, 0, EIO)
WRAP(ssize_t, pread, (int fd, void *p, size_t n, off_t at), (fd, p, n, at), -1, 0, EIO, EINTR)
WRAP(ssize_t, pread64, (int fd, void *p, size_t n, off64_t at), (fd, p, n, at), -1, 0, EIO, EINTR)
WRAP(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n), -1, DISK, ENOSPC, EIO, EINTR)
WRAP(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), -1, DISK, ENOSPC, EIO)
WRAP(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at), -1, DISK, ENOSPC, EIO, EINTR)
WRAP(ssize_t, pwrite64, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at), -1, DISK, ENOSPC, EIO, EINTR)
WRAP(int, fsync, (int fd), (fd), -1, DISK, EIO, ENOSPC)
WRAP(int, fdatasync, (int fd), (fd), -1, DISK, EIO, ENOSPC)
WRAP(int, ftruncate, (int fd, off_t n), (fd, n), -1, DISK, EIO, EINTR)
WRAP(int, ftruncate64, (int fd, off64_t n), (fd, n), -1, DISK, EIO, EINTR)
WRAP(int, unlink, (const char *p), (p), -1, 0, EIO, EACCES)
WRAP(int, rename, (const char *a, const char *b), (a, b), -1, DISK, ENOSPC, EIO)
WRAP(int, mkdir, (const char *p, mode_t m), (p, m), -1, DISK, ENOSPC, EACCES)
WRAP(int, access, (const char *p, int m), (p, m), -1, 0, EIO, ENOMEM)
WRAP(int, stat, (const char *p, struct stat *s), (p, s), -1, 0, EIO, ENOMEM)
WRAP(int, stat64, (const char *p, struct stat64 *s), (p, s), -1, 0, EIO, ENOMEM)
WRAP(int, lstat, (const char *p, struct stat *s), (p, s), -1, 0, EIO, ENOMEM)
WRAP(int, lstat64, (const char *p, struct stat64 *s), (p, s), -1, 0, EIO, ENOMEM)
WRAP(int, fstat, (int fd, struct stat *s), (fd, s), -1, 0, EIO, ENOMEM)
WRAP(int, fstat64, (int fd, struct stat64 *s), (fd, s), -1, 0, EIO, ENOMEM)
WRAP(int, fchmod, (int fd, mode_t m), (fd, m), -1, 0, EIO, EPERM)
WRAP(int, fchown, (int fd, uid_t u, gid_t g), (fd, u, g), -1, 0, EIO, EPERM)
WRAP(ssize_t, readlink, (const char *p, char *to, size_t n), (p, to, n), -1, 0, EIO, ENOMEM)
WRAP(void *, mmap, (void *p, size_t n, int prot, int flags, int fd, off_t at), (p, n, prot, flags, fd, at),
    MAP_FAILED, 0, ENOMEM, EAGAIN)
WRAP(void *, mmap64, (void *p, size_t n, int prot, int flags, int fd, off64_t at), (p, n, prot, flags, fd, at),
    MAP_FAILED, 0, ENOMEM, EAGAIN)
WRAP(FILE *, fopen, (const char *p, const char *m), (p, m), NULL, FILES, EMFILE, ENOMEM, EIO)
WRAP(DIR *, opendir, (const char *p), (p), NULL, FILES, EMFILE, ENOMEM)

WRAP(int, socket, (int d, int t, int p), (d, t, p), -1, FILES | NET, EMFILE, ENOBUFS)
WRAP(int, socketpair, (int d, int t, int p, int fd[2]), (d, t, p, fd), -1, FILES, EMFILE, ENOBUFS)
WRAP(int, connect, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1, NET, ENETUNREACH,
    EADDRNOTAVAIL, ECONNREFUSED, EINTR)
WRAP(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1, 0, EADDRINUSE)
WRAP(int, listen, (int fd, int n), (fd, n), -1, 0, EADDRINUSE)
WRAP(int, accept, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1, FILES, EMFILE, ECONNABORTED, EINTR)
WRAP(int, accept4, (int fd, struct sockaddr *a, socklen_t *n, int f), (fd, a, n, f), -1, FILES, EMFILE,
    ECONNABORTED, EINTR)
WRAP(int, getsockopt, (int fd, int l, int o, void *v, socklen_t *n), (fd, l, o, v, n), -1, 0, ENOBUFS, EINVAL)
WRAP(int, setsockopt, (int fd, int l, int o, const void *v, socklen_t n), (fd, l, o, v, n), -1, 0, ENOBUFS, EINVAL)
WRAP(int, getsockname, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1, 0, ENOBUFS)
WRAP(int, getpeername, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1, 0, ENOTCONN)
WRAP(ssize_t, send, (int fd, const void *p, size_t n, int f), (fd, p, n, f), -1, NET, ECONNRESET, EPIPE, ENOBUFS,
    EINTR, EAGAIN)
WRAP(ssize_t, sendto, (int fd, const void *p, size_t n, int f, const struct sockaddr *a, socklen_t m),
    (fd, p, n, f, a, m), -1, NET, ECONNRESET, EPIPE, ENOBUFS)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *m, int f), (fd, m, f), -1, NET, ECONNRESET, EPIPE, ENOBUFS)
WRAP(ssize_t, recv, (int fd, void *p, size_t n, int f), (fd, p, n, f), -1, NET, ECONNRESET, EINTR, EAGAIN,
    ETIMEDOUT)
WRAP(ssize_t, recvfrom, (int fd, void *p, size_t n, int f, struct sockaddr *a, socklen_t *m), (fd, p, n, f, a, m),
    -1, NET, ECONNRESET, EINTR)
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *m, int f), (fd, m, f), -1, NET, ECONNRESET, EINTR)
WRAP(int, getaddrinfo, (const char *h, const char *s, const struct addrinfo *a, struct addrinfo **out),
    (h, s, a, out), EAI_AGAIN, NET, EMFILE)

WRAP(int, poll, (struct pollfd *p, nfds_t n, int ms), (p, n, ms), -1, 0, ENOMEM, EINTR)
WRAP(int, epoll_create1, (int f), (f), -1, FILES, EMFILE, ENOMEM)
WRAP(int, epoll_ctl, (int e, int op, int fd, struct epoll_event *v), (e, op, fd, v), -1, 0, ENOMEM, ENOSPC)
WRAP(int, epoll_wait, (int e, struct epoll_event *v, int n, int ms), (e, v, n, ms), -1, 0, EINTR)
WRAP(int, eventfd, (unsigned n, int f), (n, f), -1, FILES, EMFILE, ENOMEM)
WRAP(int, pipe, (int fd[2]), (fd), -1, FILES, EMFILE)
WRAP(int, pipe2, (int fd[2], int f), (fd, f), -1, FILES, EMFILE)
WRAP(int, dup2, (int a, int b), (a, b), -1, FILES, EMFILE)
WRAP(ssize_t, getrandom, (void *p, size_t n, unsigned f), (p, n, f), -1, 0, EINTR, EAGAIN)
WRAP(int, getentropy, (void *p, size_t n), (p, n), -1, 0, EIO)
WRAP(pid_t, fork, (void), (), -1, 0, EAGAIN, ENOMEM)

/* Two that answer with the error instead of setting errno. */

int
pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
	REAL(int, pthread_create, (pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
	int error = strike("pthread_create", CALL, ERRORS(EAGAIN));

	return error ? error : real(t, a, fn, arg);
}

int
close(int fd)
{
	REAL(int, close, (int))
	int error = strike("close", CALL, ERRORS(EIO, EINTR)), r = real(fd);

	if (error == 0)
		return r;
	errno = error;
	return -1;
}

/* And those with a third argument that may not be there. */

#define WRAP_OPEN(name) \
	int \
	name(const char *path, int flags, ...) \
	{ \
		REAL(int, name, (const char *, int, ...)) \
		va_list ap; \
		mode_t mode = 0; \
		int error; \
		va_start(ap, flags); \
		if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) \
			mode = va_arg(ap, mode_t); \
		va_end(ap); \
		error = strike(#name, CALL | FILES | ((flags & O_CREAT) ? DISK : 0), \
		    ERRORS(EMFILE, EIO, ENOSPC)); \
		if (error == 0) \
			return real(path, flags, mode); \
		errno = error; \
		return -1; \
	}

WRAP_OPEN(open)
WRAP_OPEN(open64)

/* int or pointer: either travels as a pointer-sized word */
#define WRAP_FCNTL(name, ...) \
	int \
	name(int fd, int cmd, ...) \
	{ \
		REAL(int, name, (int, int, ...)) \
		va_list ap; \
		void *arg; \
		int error; \
		va_start(ap, cmd); \
		arg = va_arg(ap, void *); \
		va_end(ap); \
		error = strike(#name, CALL, ERRORS(__VA_ARGS__)); \
		if (error == 0) \
			return real(fd, cmd, arg); \
		errno = error; \
		return -1; \
	}

WRAP_FCNTL(fcntl, ENOLCK, EAGAIN, EINTR)
WRAP_FCNTL(fcntl64, ENOLCK, EAGAIN, EINTR)
