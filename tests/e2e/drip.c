/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * drip.c - a library to preload into the shipped binary: from a TCP socket one octet is read at a time,
 * and one is sent, every other try none. So whatever comes is split at every octet, both ways, for certain:
 * a client that sends them one by one cannot know how many the server finds together.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool
is_tcp(int fd)
{
	int family = 0;
	socklen_t n = sizeof(family);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n) == 0 && family == AF_INET;
}

ssize_t
read(int fd, void *p, size_t n)
{
	int e = errno;

	if (n > 1 && is_tcp(fd))
		n = 1;
	errno = e;
	return syscall(SYS_read, fd, p, n);
}

ssize_t
send(int fd, const void *p, size_t n, int flags)
{
	static __thread bool none;
	int e = errno;

	if (n > 1 && is_tcp(fd)) {
		n = 1;
		if ((none = !none)) {
			errno = EAGAIN;
			return -1;
		}
	}
	errno = e;
	return syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
}
