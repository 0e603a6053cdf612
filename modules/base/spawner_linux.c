/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * spawner_linux.c - the spawner's system part with what Linux has.
 *
 * As a subreaper the spawner becomes the parent of every descendant whose own
 * parent dies, whatever session it has moved to: nothing started here can get
 * away. /proc is searched for processes that name us as their parent; the
 * kernel's list of a process's children would be shorter, but many are built
 * without it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

const char *
spawner_system(void)
{
	return "linux";
}

/* Asked of the kernel: Linux before 3.4, some emulators and sandboxes have no subreapers. */
const char *
spawner_lacks(void)
{
	int is = 0;

	return prctl(PR_GET_CHILD_SUBREAPER, &is, 0L, 0L, 0L) == 0 ? "" :
	    "a child that calls setsid outlives its job (no subreaper)";
}

void
spawner_system_begin(void)
{
	prctl(PR_SET_NAME, "blufio-spawner");
	/* Where this is refused, setsid escapes, and spawner_lacks says so. */
	prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L);
}

enum err
spawner_system_confine(int parent)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) != 0 ||
	    prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0L, 0L, 0L) != 0)
		return err_errno(errno);
	/* It may have died before it could count. */
	if (getppid() != (pid_t)parent)
		_exit(127);
	return OK;
}

/* The parent of a process: the second field behind the last ')' of its stat line. */
static int
parent_of(const char *pid)
{
	char path[64], line[512];
	const char *p;
	size_t at = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	while (at < sizeof(line) - 1 && (n = read(fd, line + at, sizeof(line) - 1 - at)) > 0)
		at += (size_t)n;
	close(fd);
	line[at] = '\0';
	p = strrchr(line, ')');
	return p != NULL && strlen(p) > 4 ? (int)strtol(p + 4, NULL, 10) : 0;
}

void
spawner_system_kill_orphans(const int *known, size_t n)
{
	DIR *proc = opendir("/proc");
	const struct dirent *d;
	size_t i;
	int pid;

	while (proc != NULL && (d = readdir(proc)) != NULL) {
		pid = (int)strtol(d->d_name, NULL, 10);
		if (pid <= 1 || parent_of(d->d_name) != (int)getpid())
			continue;
		for (i = 0; i < n && known[i] != pid; i++)
			;
		/* It is our child and not waited for: the number is still its own. */
		if (i == n)
			kill(pid, SIGKILL);
	}
	if (proc != NULL)
		closedir(proc);
}
