/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * haste.c - a library to preload into the shipped binary: for it all clocks run as many times as fast as the file HASTE
 * says at the moment (one octet), and it waits as much less. What takes a minute is over in seconds; nothing in the
 * program is another because of it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL

static const volatile unsigned char *speed;

static void __attribute__((constructor))
begin(void)
{
	const char *path = getenv("HASTE");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *at = fd < 0 ? MAP_FAILED : mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		abort();
	speed = at;
	close(fd);
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	static atomic_flag busy = ATOMIC_FLAG_INIT;
	static struct { int64_t seen, ahead; } clocks[2];
	int rc = (int)syscall(SYS_clock_gettime, clock, ts);
	int64_t ns;

	if (rc != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC))
		return rc;
	ns = ts->tv_sec * NS + ts->tv_nsec;
	while (atomic_flag_test_and_set(&busy))
		;
	if (clocks[clock].seen && ns > clocks[clock].seen)
		clocks[clock].ahead += (ns - clocks[clock].seen) * (*speed - 1);
	clocks[clock].seen = ns;
	ns += clocks[clock].ahead;
	atomic_flag_clear(&busy);
	ts->tv_sec = (time_t)(ns / NS);
	ts->tv_nsec = (long)(ns % NS);
	return 0;
}

int
epoll_wait(int fd, struct epoll_event *events, int room, int ms)
{
	return (int)syscall(SYS_epoll_pwait, fd, events, room, ms > 0 ? (ms + *speed - 1) / *speed : ms, NULL, 0);
}
