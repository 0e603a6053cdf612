/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * spawner_posix.c - the spawner's system part with POSIX alone.
 *
 * What is absent here: a child that leaves its group with setsid survives its
 * job, because nobody but init is told of it; programs that gain rights when
 * they start (setuid) are not held back; and a child survives a spawner that is
 * killed by itself. Groups are killed as everywhere.
 */
#include "proc.h"

#include <unistd.h>

#define DESCRIPTORS_MAX 65536                   /* a limit on open files may be huge */

const char *
spawner_system(void)
{
	return "posix";
}

void
spawner_system_begin(int keep)
{
	long max = sysconf(_SC_OPEN_MAX);
	int fd;

	if (max < 0 || max > DESCRIPTORS_MAX)
		max = DESCRIPTORS_MAX;
	for (fd = 3; fd < (int)max; fd++)
		if (fd != keep)
			close(fd);
}

enum err
spawner_system_confine(int parent)
{
	(void)parent;
	return OK;
}

void
spawner_system_kill_orphans(bool (*known)(void *arg, int pid), void *arg)
{
	(void)known;
	(void)arg;
}
