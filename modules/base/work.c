/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * work.c - one thread for the few jobs that block.
 *
 * The loop owns everything; the thread is lent one job at a time and touches
 * nothing but that job's memory. Jobs travel as pointers, one a datagram, over
 * a pair of sockets, which is queue, lock and wake-up in one:
 *
 *   work_put -> ours ==> theirs -> (thread) run() -> theirs ==> ours -> (loop) done()
 *
 * The thread starts with the first job, because most runs of the program never
 * need it. It has every signal blocked, so that handlers run on the loop's
 * thread only and a system call of a job is not interrupted, and a small
 * stack, because what runs here is a few library calls deep.
 */
#include "base/work.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORK_STACK ((size_t)256 << 10)
#define WORK_TRIES 8                          /* a job that is lost is never reported */

struct work {
	struct ev *ev;
	int ours, theirs;                     /* ends of the pair: the loop's, the thread's */
	size_t count;                         /* jobs put and not yet reported */
	bool started;
	pthread_t thread;
};

static bool
send_job(int fd, struct work_job *j)
{
	for (int i = 0; i < WORK_TRIES; i++)
		if (send(fd, &j, sizeof(j), MSG_NOSIGNAL) == (ssize_t)sizeof(j))
			return true;
	return false;
}

/* The next job that has arrived at fd, or NULL. */
static struct work_job *
next_job(int fd)
{
	struct work_job *j = NULL;

	return recv(fd, &j, sizeof(j), MSG_DONTWAIT) == (ssize_t)sizeof(j) ? j : NULL;
}

static void *
work_main(void *arg)
{
	const struct work *w = arg;
	struct work_job *j;
	ssize_t n;

	for (int bad = 0; bad < WORK_TRIES; ) {
		n = recv(w->theirs, &j, sizeof(j), 0);
		if (n == 0)
			break;
		bad = n < 0 ? bad + 1 : 0;
		if (n != (ssize_t)sizeof(j))
			continue;
		j->run(j);
		if (!send_job(w->theirs, j))
			break;
	}
	return NULL;
}

/* Reports jobs that have ended; queued is clear before done(), so that it may put the job again
 * or free it. At most those there are now: one that is put again ends in a later turn. */
static void
work_readable(void *arg, int fd, unsigned events)
{
	struct work *w = arg;
	struct work_job *j;

	(void)events;
	for (size_t left = w->count; left > 0 && (j = next_job(fd)) != NULL; left--) {
		j->queued = false;
		w->count--;
		j->done(j);
	}
}

enum err
work_new(struct ev *ev, struct work **out)
{
	struct work *w = calloc(1, sizeof(*w));
	int fds[2] = { -1, -1 };
	enum err e;

	if (w == NULL)
		return ERR_NOMEM;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) != 0) {
		e = err_errno(errno);
		free(w);
		return e;
	}
	*w = (struct work){ .ev = ev, .ours = fds[0], .theirs = fds[1] };
	if ((e = fd_cloexec(fds[0])) != OK || (e = fd_cloexec(fds[1])) != OK ||
	    (e = ev_fd_set(ev, fds[0], EV_READ, work_readable, w)) != OK) {
		work_free(w);
		return e;
	}
	*out = w;
	return OK;
}

/* Starts the thread. It inherits the mask of its creator, so all signals are
 * blocked around the creation: not one can hit it before it could say so. */
static enum err
thread_start(struct work *w)
{
	size_t stack = WORK_STACK, least = (size_t)PTHREAD_STACK_MIN;
	pthread_attr_t attr;
	sigset_t all, old;
	int rc;

	rc = pthread_attr_init(&attr);
	if (rc != 0)
		return err_errno(rc);
	rc = pthread_attr_setstacksize(&attr, stack > least ? stack : least);
	if (rc == 0) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		rc = pthread_create(&w->thread, &attr, work_main, w);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	pthread_attr_destroy(&attr);
	w->started = rc == 0;
	return rc == 0 ? OK : err_errno(rc);
}

enum err
work_put(struct work *w, struct work_job *j)
{
	enum err e;

	assert(j->run != NULL && j->done != NULL);
	if (j->queued)
		return ERR_BUSY;
	if (w->count >= WORK_QUEUE_MAX)
		return ERR_LIMIT;
	if (!w->started && (e = thread_start(w)) != OK)
		return e;
	if (!send_job(w->ours, j))
		return err_errno(errno);
	j->queued = true;
	w->count++;
	return OK;
}

void
work_free(struct work *w)
{
	struct work_job *j;

	if (w == NULL)
		return;
	/* What the thread has not taken is taken back; then it finds the end. */
	while ((j = next_job(w->theirs)) != NULL)
		j->queued = false;
	shutdown(w->ours, SHUT_WR);
	if (w->started)
		pthread_join(w->thread, NULL);
	while ((j = next_job(w->ours)) != NULL)
		j->queued = false;
	ev_fd_del(w->ev, w->ours);
	close(w->ours);
	close(w->theirs);
	free(w);
}
