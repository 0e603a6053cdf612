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

const char *
spawner_system(void)
{
	return "posix";
}

const char *
spawner_lacks(void)
{
	return "a child that calls setsid outlives its job (no subreaper), setuid programs are not held back, "
	    "children outlive a spawner that is killed by itself";
}

void
spawner_system_begin(void)
{
}

enum err
spawner_system_confine(int parent)
{
	(void)parent;
	return OK;
}

void
spawner_system_kill_orphans(const int *known, size_t n)
{
	(void)known;
	(void)n;
}
