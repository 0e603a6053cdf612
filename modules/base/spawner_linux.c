/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * spawner_linux.c - the spawner's system part with what Linux has.
 *
 * As a subreaper the spawner becomes the parent of every descendant whose own
 * parent dies, whatever session it has moved to: nothing started here can get
 * away. The kernel lists our children in /proc/self/task/N/children; where that
 * file is not compiled in, /proc is searched for processes that name us as
 * their parent. Directories are read with the bare system call, because
 * opendir() allocates and the spawner does not.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNK 4096
#define DESCRIPTORS_MAX 65536                   /* a limit on open files may be huge */

const char *
spawner_system(void)
{
	return "linux";
}

static void
close_range_slowly(int from, int to)
{
	int fd;

	for (fd = from; fd <= to; fd++)
		close(fd);
}

static void
close_all(unsigned from, unsigned to)
{
#ifdef SYS_close_range
	if (syscall(SYS_close_range, from, to, 0u) == 0)
		return;
#endif
	close_range_slowly((int)from, to > DESCRIPTORS_MAX ? DESCRIPTORS_MAX : (int)to);
}

void
spawner_system_begin(int keep)
{
	prctl(PR_SET_NAME, "blufio-spawner");
	/* Where this is refused (Linux before 3.4), setsid escapes. */
	prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L);
	if (keep > 3)
		close_all(3, (unsigned)keep - 1);
	close_all((unsigned)keep + 1, ~0u);
}

enum err
spawner_system_confine(int parent)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) != 0)
		return err_errno(errno);
	if (prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0L, 0L, 0L) != 0)
		return err_errno(errno);
	/* It may have died before it could count. */
	if (getppid() != (pid_t)parent)
		_exit(127);
	return OK;
}

/* ---- our children -------------------------------------------------------------------- */

struct hunt {
	bool (*known)(void *arg, int pid);
	void *arg;
};

static void
kill_unknown(const struct hunt *h, int pid)
{
	/* It is our child and not waited for: the number is still its own. */
	if (pid > 1 && !h->known(h->arg, pid))
		kill(pid, SIGKILL);
}

/* Numbers separated by blanks; one may be cut by the end of a chunk. */
static bool
hunt_by_list(const struct hunt *h)
{
	char path[64], chunk[CHUNK];
	ssize_t n, i;
	int fd, pid = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%ld/children", (long)getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while ((n = read(fd, chunk, sizeof(chunk))) > 0)
		for (i = 0; i < n; i++) {
			if (chunk[i] >= '0' && chunk[i] <= '9') {
				pid = pid * 10 + (chunk[i] - '0');
				continue;
			}
			kill_unknown(h, pid);
			pid = 0;
		}
	close(fd);
	return n == 0;
}

/* The parent of a process: the second field behind the last ')' of its stat line. */
static int
parent_of(const char *name)
{
	char path[64], line[512];
	const char *p;
	ssize_t n;
	int fd, parent = 0;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	line[n] = '\0';
	p = strrchr(line, ')');
	if (p == NULL || strlen(p) < 5)
		return 0;
	for (p += 4; *p >= '0' && *p <= '9'; p++)
		parent = parent * 10 + (*p - '0');
	return parent;
}

/* What the kernel writes for getdents64; the name follows the head. */
struct entry {
	uint64_t ino;
	int64_t off;
	unsigned short len;
	unsigned char type;
	char name[];
};

static void
hunt_by_search(const struct hunt *h)
{
	_Alignas(struct entry) char chunk[CHUNK];
	const struct entry *d;
	const char *p;
	long n, at;
	int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), pid, self = (int)getpid();

	if (fd < 0)
		return;
	while ((n = syscall(SYS_getdents64, fd, chunk, sizeof(chunk))) > 0)
		for (at = 0; at < n; at += d->len) {
			d = (const void *)(chunk + at);
			for (pid = 0, p = d->name; *p >= '0' && *p <= '9' && pid < 100000000; p++)
				pid = pid * 10 + (*p - '0');
			if (*p == '\0' && pid > 1 && parent_of(d->name) == self)
				kill_unknown(h, pid);
		}
	close(fd);
}

void
spawner_system_kill_orphans(bool (*known)(void *arg, int pid), void *arg)
{
	const struct hunt h = { known, arg };

	if (!hunt_by_list(&h))
		hunt_by_search(&h);
}
