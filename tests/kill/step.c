// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * step.c - runs a program under ptrace and kills it at its n-th system call.
 *
 *     step ARMFILE N MODE COMMAND…        MODE is "before" or "after"
 *
 * Calls count from the moment ARMFILE exists. MODE "before" counts them as they
 * are entered: the N-th kills, and is never made. MODE "after" counts them as
 * they return. All threads are stepped through; processes that are forked are
 * let go, so that what a dead daemon leaves behind is on its own, as in life.
 * N 0 kills at no call. SIGTERM to this program kills as well, whatever N is.
 *
 * When the command has ended one line says how: "step: 812 calls, killed at
 * write (1)", or "ended" with its exit code. Exit status: 0 killed at the N-th
 * call or by SIGTERM, 3 the command ended by itself, 77 ptrace is not permitted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/ptrace.h>     /* struct ptrace_syscall_info has this name only there */

#define SYSCALL_STOP (SIGTRAP | 0x80)   /* what TRACESYSGOOD makes of SIGTRAP */
#define THREADS_MAX 64
#define OPTIONS \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)
#define EXIT_ENDED 3
#define EXIT_NOT_PERMITTED 77

/* The calls of this machine by name, listed by the compiler (Makefile). */
static const struct { const char *name; uint64_t number; } calls[] = {
#include "syscalls.h"
};

static const struct {
	const char *text;
	uint8_t op;
} modes[] = { { "before", PTRACE_SYSCALL_INFO_ENTRY }, { "after", PTRACE_SYSCALL_INFO_EXIT } };

static volatile pid_t daemon_pid;

static struct {
	pid_t tid;
	uint64_t number;        /* of the call that the thread is in */
} threads[THREADS_MAX];

static const char *
name_of(uint64_t number)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (calls[i].number == number)
			return calls[i].name;
	return "unknown";
}

/* Which call a thread is in; a return does not say so itself. */
static uint64_t *
number_in(pid_t tid)
{
	for (size_t i = 0; i < THREADS_MAX; i++) {
		if (threads[i].tid == 0)
			threads[i].tid = tid;
		if (threads[i].tid == tid)
			return &threads[i].number;
	}
	fprintf(stderr, "step: more than %d threads\n", THREADS_MAX);
	_exit(1);
}

static void
on_term(int signo)
{
	(void)signo;
	(void)kill(daemon_pid, SIGKILL);
}

static _Noreturn void
child(char **command)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
		_exit(EXIT_NOT_PERMITTED);
	(void)raise(SIGSTOP);           /* until the options are set */
	execvp(command[0], command);
	perror(command[0]);
	_exit(127);
}

/* Is this stop one that counts? */
static bool
counts(pid_t tid, uint8_t op)
{
	struct ptrace_syscall_info info;
	uint64_t *number = number_in(tid);

	/* glibc takes an enum, musl an int */
	if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, (void *)sizeof(info), &info) <= 0)
		return false;           /* it has been killed meanwhile */
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
		*number = info.entry.nr;
	return info.op == op;
}

static int
report(uint64_t count, bool killed, uint64_t at, int status)
{
	if (killed)
		printf("step: %llu calls, killed at %s (%llu)\n", (unsigned long long)count, name_of(at),
		    (unsigned long long)at);
	else if (WIFSIGNALED(status))
		printf("step: %llu calls, signal %d\n", (unsigned long long)count, WTERMSIG(status));
	else
		printf("step: %llu calls, ended with %d\n", (unsigned long long)count, WEXITSTATUS(status));
	return killed || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ? 0 : EXIT_ENDED;
}

/* Lets one thread go on after a stop, with the signal that stopped it if that is one: not our
 * own stops, nor the one that a thread begins with. */
static void
go_on(pid_t tid, int status)
{
	int signo = WSTOPSIG(status);

	if (signo == SYSCALL_STOP || status >> 16 != 0 || signo == SIGSTOP)
		signo = 0;
	/* Fails when the thread has been killed, which the next wait tells. */
	(void)ptrace(PTRACE_SYSCALL, tid, NULL, (void *)(intptr_t)signo);
}

static int
step(const char *arm_file, uint64_t n, uint8_t op)
{
	uint64_t count = 0, at = 0;
	bool armed = false, killed = false;
	int status;

	for (;;) {
		pid_t tid = waitpid(-1, &status, __WALL);

		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0) {
			perror("step: waitpid");
			return 1;
		}
		if (!WIFSTOPPED(status)) {
			if (tid == daemon_pid)
				return report(count, killed, at, status);
			continue;
		}
		if (WSTOPSIG(status) == SYSCALL_STOP && !killed) {
			armed = armed || access(arm_file, F_OK) == 0;
			if (counts(tid, op) && armed && ++count == n) {
				at = *number_in(tid);
				killed = true;
				(void)kill(daemon_pid, SIGKILL);
				continue;
			}
		}
		go_on(tid, status);
	}
}

int
main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_term };
	int status;

	for (size_t i = 0; argc > 4 && i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(argv[3], modes[i].text) != 0)
			continue;
		if ((daemon_pid = fork()) == 0)
			child(argv + 4);
		if (daemon_pid < 0 || waitpid(daemon_pid, &status, 0) != daemon_pid)
			return 1;
		if (!WIFSTOPPED(status) ||
		    ptrace(PTRACE_SETOPTIONS, daemon_pid, NULL, (void *)OPTIONS) != 0) {
			(void)kill(daemon_pid, SIGKILL);
			printf("step: ptrace is not permitted here\n");
			return EXIT_NOT_PERMITTED;
		}
		(void)sigaction(SIGTERM, &sa, NULL);
		(void)ptrace(PTRACE_SYSCALL, daemon_pid, NULL, NULL);
		return step(argv[1], strtoull(argv[2], NULL, 10), modes[i].op);
	}
	fprintf(stderr, "usage: step ARMFILE N before|after COMMAND…\n");
	return 2;
}
