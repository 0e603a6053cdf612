/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * file.c - whole files: read, replace, lock; and the fd helpers.
 *
 * The program touches ordinary files in four ways only. It reads small ones
 * whole, with a cap. It makes one that must not be there yet. It replaces them so that a crash at any moment leaves
 * either the old or the new text, never half of one: the new text goes to a
 * temporary file in the same directory, is forced to the disk, renamed over
 * the old, and the directory is forced as well. And it holds one lock, so that
 * two daemons never share a state directory.
 *
 * The lock is fcntl's because the kernel drops it when the process dies, tells
 * who holds it, and it works over NFS. Its known trap: it belongs to the
 * process, so closing any other descriptor of that file drops it. Nobody else
 * opens the lock file.
 *
 * Every error names the path and the system's reason. No allocation is needed
 * for any path; they are bounded by PATH_MAX.
 */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700       /* realpath */
#endif
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_CHUNK ((size_t)64 << 10)   /* one read(2) */
#define TMP_SUFFIX 12u                  /* ".tmp" and 8 hex digits */
#define TMP_TRIES 16                    /* random names tried before giving up */
#define LOCK_TRIES 8                    /* the holder may leave between asking and being told */
#define PATH_BYTES ((size_t)PATH_MAX)

/* Reports errno: "cannot read /etc/x: Permission denied". */
static enum err
fail_errno(struct fail *f, const char *what, const char *path)
{
	int saved = errno;

	return fail_set(f, err_errno(saved), "%s %s: %s", what, path, strerror(saved));
}

/* ---- descriptors ------------------------------------------------------------- */

enum err
fd_cloexec(int fd)
{
	int flags = fcntl(fd, F_GETFD);

	if (flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0)
		return err_errno(errno);
	return OK;
}

enum err
fd_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_errno(errno);
	return OK;
}

enum err
fd_pipe(int fds[2])
{
	enum err e = OK;

	if (pipe(fds) != 0) {
		e = err_errno(errno);
	} else if ((e = fd_cloexec(fds[0])) != OK || (e = fd_cloexec(fds[1])) != OK) {
		close(fds[0]);
		close(fds[1]);
	}
	if (e != OK)
		fds[0] = fds[1] = -1;
	return e;
}

/* Removes a socket that nobody listens on. */
static enum err
clear_socket(const struct sockaddr_un *sun, struct fail *f)
{
	struct stat st;
	int fd, why;

	if (lstat(sun->sun_path, &st) != 0)
		return errno == ENOENT ? OK : fail_set(f, err_errno(errno), "%s", strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return fail_set(f, ERR_EXISTS, "it is there and is no socket");
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	why = fd < 0 || fd_nonblock(fd) != OK || connect(fd, (const struct sockaddr *)(const void *)sun, sizeof(*sun)) == 0 ?
	    0 : errno;
	if (fd >= 0)
		close(fd);
	if (why != ECONNREFUSED)        /* in doubt it is somebody's */
		return fail_set(f, ERR_BUSY, "another process listens there");
	return unlink(sun->sun_path) == 0 || errno == ENOENT ? OK : fail_set(f, err_errno(errno), "%s", strerror(errno));
}

enum err
fd_listen(const char *path, int backlog, int *out, struct fail *f)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	enum err e;
	mode_t mask;
	int fd, rc = -1;

	if ((size_t)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path) >= sizeof(sun.sun_path))
		return fail_set(f, ERR_LIMIT, "longer than a socket's path may be (%zu bytes)", sizeof(sun.sun_path) - 1);
	e = clear_socket(&sun, f);
	if (e != OK)
		return e;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd >= 0 && fd_cloexec(fd) == OK && fd_nonblock(fd) == OK) {
		mask = umask(0177);
		rc = bind(fd, (const struct sockaddr *)(const void *)&sun, sizeof(sun));
		umask(mask);
	}
	if (rc != 0 || listen(fd, backlog) != 0) {
		e = fail_set(f, err_errno(errno), "%s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return e;
	}
	*out = fd;
	return OK;
}

enum err
fd_write_all(int fd, const void *p, size_t n)
{
	const char *from = p;

	while (n > 0) {
		ssize_t wrote = write(fd, from, n);

		if (wrote > 0) {
			from += wrote;
			n -= (size_t)wrote;
		} else if (wrote == 0) {
			errno = EIO;    /* would be repeated for ever */
			return ERR_IO;
		} else if (errno != EINTR) {
			return err_errno(errno);
		}
	}
	return OK;
}

static int
open_retry(const char *path, int flags, mode_t mode)
{
	int fd;

	do
		fd = open(path, flags | O_CLOEXEC | O_NOCTTY, mode);
	while (fd < 0 && errno == EINTR);
	return fd;
}

/* ---- reading --------------------------------------------------------------------- */

/* Appends everything up to the end of fd; ERR_LIMIT when it is more than max bytes. */
static enum err
read_all(int fd, size_t max, struct buf *out, const char *path, struct fail *f)
{
	size_t got = 0;

	for (;;) {
		size_t want = max - got < READ_CHUNK ? max - got : READ_CHUNK;
		char probe, *room = want ? buf_room(out, want) : &probe;
		ssize_t n;

		if (!room)
			return fail_set(f, out->err, "cannot read %s: %s", path, err_str(out->err));
		/* With the room used up, one byte more tells whether the end was reached. */
		n = read(fd, room, want ? want : 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(f, "cannot read", path);
		if (n == 0)
			return OK;
		if (want == 0)
			return fail_set(f, ERR_LIMIT, "%s is larger than the %zu bytes allowed",
			    path, max);
		got += (size_t)n;
		out->n += (size_t)n;
	}
}

enum err
file_read(const char *path, size_t max, struct buf *out, struct fail *f)
{
	size_t before = out->n;
	struct stat st;
	enum err e;
	int fd;

	if (out->err != OK)
		return fail_set(f, out->err, "cannot read %s: %s", path, err_str(out->err));
	if (max > out->max - out->n)
		max = out->max - out->n;
	/* O_NONBLOCK: opening a FIFO that nobody writes to must not hang. */
	fd = open_retry(path, O_RDONLY | O_NONBLOCK, 0);
	if (fd < 0)
		return fail_errno(f, "cannot open", path);
	if (fstat(fd, &st) != 0)
		e = fail_errno(f, "cannot read", path);
	else if (!S_ISREG(st.st_mode))
		e = fail_set(f, ERR_UNSUPPORTED, "cannot read %s: it is not a regular file", path);
	else
		e = read_all(fd, max, out, path, f);
	close(fd);
	if (e != OK)
		buf_cut(out, before);
	buf_z(out);                     /* ends the bytes read into its room with a NUL */
	return e;
}

/* ---- replacing --------------------------------------------------------------------- */

struct replacement {
	char path[PATH_BYTES];          /* the file itself, symbolic links resolved */
	char tmp[PATH_BYTES + TMP_SUFFIX];
	bool exists;
	struct stat old;                /* valid when it exists */
	mode_t mode;
};

/* Finds out what is to be replaced: fills path, exists, old, mode. */
static enum err
look(struct replacement *r, const char *path, unsigned mode, struct fail *f)
{
	struct stat st;

	r->exists = realpath(path, r->path) != NULL;
	if (!r->exists) {
		if (errno != ENOENT)
			return fail_errno(f, "cannot write", path);
		if (lstat(path, &st) == 0)
			return fail_set(f, ERR_NOTFOUND,
			    "cannot write %s: it is a link to a file that is not there", path);
		if ((size_t)snprintf(r->path, sizeof(r->path), "%s", path) >= sizeof(r->path))
			return fail_set(f, ERR_LIMIT, "cannot write %s: name too long", path);
		r->mode = (mode_t)(mode & 0777);
		return OK;
	}
	if (stat(r->path, &r->old) != 0)
		return fail_errno(f, "cannot write", path);
	if (!S_ISREG(r->old.st_mode))
		return fail_set(f, ERR_UNSUPPORTED,
		    "cannot write %s: it is not a regular file", path);
	r->mode = r->old.st_mode & 0777;
	return OK;
}

/* A new file beside the old one that only we can read; -1 with errno. */
static int
open_tmp(struct replacement *r)
{
	for (int try = 0; try < TMP_TRIES; try++) {
		int fd;

		snprintf(r->tmp, sizeof(r->tmp), "%s.tmp%08x", r->path, (unsigned)rand_u32());
		fd = open_retry(r->tmp, O_WRONLY | O_CREAT | O_EXCL, 0600);
		if (fd >= 0 || errno != EEXIST)
			return fd;
	}
	return -1;
}

/* Gives the new file the owner and mode of the old one, as far as we may. */
static int
copy_rights(struct replacement *r, int fd)
{
	mode_t mode = r->mode;
	struct stat now;

	if (fstat(fd, &now) != 0)
		return -1;
	if (r->exists && (now.st_uid != r->old.st_uid || now.st_gid != r->old.st_gid) &&
	    fchown(fd, r->old.st_uid, r->old.st_gid) != 0 &&
	    fchown(fd, (uid_t)-1, r->old.st_gid) != 0) {
		/* The group's rights were meant for another group than ours. */
		mode &= (mode_t)~(mode_t)070;
	}
	return fchmod(fd, mode);
}

/* Makes the rename itself survive a power cut. */
static enum err
sync_directory(const char *path, struct fail *f)
{
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;
	char dir[PATH_BYTES];
	enum err e = OK;
	int fd;

	/* "/x" is in "/", "x" is in "." */
	if (n == 0)
		snprintf(dir, sizeof(dir), "%c", slash ? '/' : '.');
	else
		snprintf(dir, sizeof(dir), "%.*s", (int)n, path);
	fd = open_retry(dir, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return fail_errno(f, "cannot sync the directory", dir);
	/* Some file systems cannot sync a directory and say EINVAL: nothing is to be done. */
	if (fsync(fd) != 0 && errno != EINVAL)
		e = fail_errno(f, "cannot sync the directory", dir);
	close(fd);
	return e;
}

enum err
file_replace(const char *path, struct str bytes, unsigned mode, struct fail *f)
{
	struct replacement r;
	enum err e = look(&r, path, mode, f);
	int fd;

	if (e != OK)
		return e;
	fd = open_tmp(&r);
	if (fd < 0)
		return fail_errno(f, "cannot create a file beside", path);
	e = fd_write_all(fd, bytes.p, bytes.n);
	if (e != OK || copy_rights(&r, fd) != 0 || fsync(fd) != 0)
		e = fail_errno(f, "cannot write", path);
	if (close(fd) != 0 && e == OK && errno != EINTR)
		e = fail_errno(f, "cannot write", path);
	if (e == OK && rename(r.tmp, r.path) != 0)
		e = fail_errno(f, "cannot replace", path);
	if (e != OK) {
		unlink(r.tmp);
		return e;
	}
	return sync_directory(r.path, f);
}

enum err
file_create(const char *path, struct str bytes, struct fail *f)
{
	int fd = open_retry(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	enum err e = OK;

	if (fd < 0)
		return fail_errno(f, "cannot create", path);
	if (fd_write_all(fd, bytes.p, bytes.n) != OK || fsync(fd) != 0)
		e = fail_errno(f, "cannot write", path);
	if (close(fd) != 0 && e == OK && errno != EINTR)
		e = fail_errno(f, "cannot write", path);
	if (e == OK)
		e = sync_directory(path, f);
	if (e != OK)
		unlink(path);
	return e;
}

/* ---- directories and locks ------------------------------------------------------------ */

enum err
file_mkdirs(const char *path, unsigned mode, struct fail *f)
{
	char part[PATH_BYTES];
	size_t n = strlen(path);
	struct stat st;
	int why;

	if (n == 0 || n >= sizeof(part))
		return fail_set(f, n ? ERR_LIMIT : ERR_NOTFOUND,
		    "cannot create the directory %s: the name is %s", path,
		    n ? "too long" : "empty");
	memcpy(part, path, n + 1);
	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		part[i] = '\0';
		/* mkdir may be refused for a directory that is there (read-only, automounted). */
		why = mkdir(part, (mode_t)mode) == 0 ? 0 : errno;
		if (why && (stat(part, &st) != 0 || !S_ISDIR(st.st_mode))) {
			errno = why == EEXIST ? ENOTDIR : why;
			return fail_errno(f, "cannot create the directory", part);
		}
		part[i] = path[i];
	}
	return OK;
}

/* OK and the lock, ERR_BUSY and *pid, or ERR_IO with errno. */
static enum err
try_lock(int fd, int *pid)
{
	for (int try = 0; try < LOCK_TRIES; try++) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

		if (fcntl(fd, F_SETLK, &lock) == 0)
			return OK;
		if (errno == EINTR)
			continue;
		if (errno != EACCES && errno != EAGAIN)
			return ERR_IO;
		if (fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK)
			continue;
		/* A holder in another container or machine has no number here. */
		*pid = lock.l_pid > 0 ? (int)lock.l_pid : 0;
		break;
	}
	return ERR_BUSY;
}

static enum err
write_pid(int fd)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	return ftruncate(fd, 0) != 0 ? ERR_IO : fd_write_all(fd, text, (size_t)n);
}

enum err
file_lock(const char *path, int *fd, int *holder, struct fail *f)
{
	int got = open_retry(path, O_RDWR | O_CREAT, 0600), pid = 0;
	enum err e;

	if (got < 0)
		return fail_errno(f, "cannot open the lock file", path);
	e = try_lock(got, &pid);
	if (e == OK && write_pid(got) == OK) {
		*fd = got;
		return OK;
	}
	if (e == ERR_BUSY) {
		*holder = pid;
		if (pid)
			e = fail_set(f, e, "%s is locked by process %d", path, pid);
		else
			e = fail_set(f, e, "%s is locked by another process", path);
	} else {
		e = fail_errno(f, "cannot lock", path);
	}
	close(got);
	return e;
}
