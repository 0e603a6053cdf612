/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * start.c - starts a program again and again and takes the time from before the
 * exec to its READY=1 (NOTIFY_SOCKET), then stops it with SIGTERM.
 *
 *   start N PROGRAM ARGUMENTS...      nanoseconds, a line each
 *
 * An argument "%" is replaced by the number of the run.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/wait.h>

#define READY_MS 10000

extern char **environ;

static int
notify_socket(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char name[64];

	snprintf(name, sizeof(name), "@blufio-bench-%ld", (long)getpid());
	memcpy(sun.sun_path + 1, name + 1, strlen(name) - 1);
	if (bind(fd, (struct sockaddr *)&sun,
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))) != 0) {
		perror("bind");
		exit(1);
	}
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

/* Nanoseconds until READY=1; negative when it did not come. */
static long long
once(int notify, char **argv, pid_t *pid)
{
	struct pollfd p = { .fd = notify, .events = POLLIN };
	posix_spawn_file_actions_t io;
	long long t;
	char text[256];
	ssize_t n;

	posix_spawn_file_actions_init(&io);
	posix_spawn_file_actions_addopen(&io, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&io, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&io, 2, "/dev/null", O_WRONLY, 0);
	t = now_ns();
	if (posix_spawnp(pid, argv[0], &io, NULL, argv, environ) != 0)
		return -1;
	do {
		if (poll(&p, 1, READY_MS) <= 0)
			return -1;
		n = recv(notify, text, sizeof(text) - 1, 0);
		text[n > 0 ? n : 0] = '\0';
	} while (strstr(text, "READY=1") == NULL);
	t = now_ns() - t;
	posix_spawn_file_actions_destroy(&io);
	return t;
}

int
main(int argc, char **argv)
{
	int notify, runs = argc > 2 ? atoi(argv[1]) : 0;
	char number[16], **percent = NULL;

	if (runs <= 0) {
		fprintf(stderr, "start N PROGRAM ARGUMENTS...\n");
		return 2;
	}
	for (char **a = argv + 2; *a; a++)
		if (strcmp(*a, "%") == 0)
			percent = a;
	notify = notify_socket();
	for (int i = 0; i < runs; i++) {
		pid_t pid = -1;
		long long t;
		char drop[256];

		snprintf(number, sizeof(number), "%d", i);
		if (percent)
			*percent = number;
		t = once(notify, argv + 2, &pid);
		if (pid > 0) {
			kill(pid, SIGTERM);
			waitpid(pid, NULL, 0);
		}
		if (t < 0) {
			fprintf(stderr, "run %d was not ready\n", i);
			return 1;
		}
		while (recv(notify, drop, sizeof(drop), MSG_DONTWAIT) > 0)
			;
		printf("%lld\n", t);
	}
	return 0;
}
