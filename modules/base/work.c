/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * work.c - one thread for the few jobs that block.
 *
 * The loop owns everything; the thread is lent one job at a time and touches
 * nothing but that job's memory and the two lists here, under the mutex.
 *
 *   work_put -> todo -> (thread) run() -> ended -> byte in the pipe -> (loop) done()
 *
 * The thread starts with the first job, because most runs of the program never
 * need it. It has every signal blocked, so that handlers run on the loop's
 * thread only and a system call of a job is not interrupted, and a small
 * stack, because what runs here is a few library calls deep.
 *
 * A byte is written only when the list of ended jobs was empty, so the pipe
 * cannot fill up. The loop takes the whole list at once and clears queued
 * before done(), so that done() may put the job again or free it.
 */
#include "base/work.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define WORK_STACK ((size_t)256 << 10)
#define WORK_WAKE_TRIES 8                     /* a lost byte would be a job never reported */

struct work_list {
	struct work_job *head, **end;
};

struct work {
	struct ev *ev;
	int rd, wr;                           /* the pipe; bytes mean "look at ended" */
	size_t count;                         /* jobs put and not yet reported; loop only */
	bool started;                         /* loop only */
	pthread_t thread;
	pthread_mutex_t lock;                 /* for all below */
	pthread_cond_t more;
	struct work_list todo, ended;
	bool stop;
};

static void
list_init(struct work_list *l)
{
	l->head = NULL;
	l->end = &l->head;
}

static void
list_add(struct work_list *l, struct work_job *j)
{
	j->next = NULL;
	*l->end = j;
	l->end = &j->next;
}

static struct work_job *
list_take(struct work_list *l)
{
	struct work_job *j = l->head;

	if (j)
		l->head = j->next;
	if (l->head == NULL)
		l->end = &l->head;
	return j;
}

static void
wake_loop(struct work *w)
{
	int tries;

	for (tries = 0; tries < WORK_WAKE_TRIES; tries++)
		if (write(w->wr, "", 1) == 1 || errno == EAGAIN)
			return;
}

static void *
work_main(void *arg)
{
	struct work *w = arg;
	struct work_job *j;
	bool first;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->stop && w->todo.head == NULL)
			pthread_cond_wait(&w->more, &w->lock);
		if (w->stop)
			break;
		j = list_take(&w->todo);
		pthread_mutex_unlock(&w->lock);
		j->run(j);
		pthread_mutex_lock(&w->lock);
		first = w->ended.head == NULL;
		list_add(&w->ended, j);
		if (first)
			wake_loop(w);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* Reports the jobs that have ended. One that done() puts again ends in a later turn. */
static void
work_readable(void *arg, int fd, unsigned events)
{
	struct work *w = arg;
	struct work_job *j, *next;
	char bytes[16];
	ssize_t n;

	(void)events;
	n = read(fd, bytes, sizeof(bytes));   /* on failure the byte stays and wakes us again */
	(void)n;
	pthread_mutex_lock(&w->lock);
	j = w->ended.head;
	list_init(&w->ended);
	pthread_mutex_unlock(&w->lock);
	for (; j; j = next) {
		next = j->next;
		j->next = NULL;
		j->queued = false;
		w->count--;
		j->done(j);
	}
}

static enum err
pipe_open(struct work *w)
{
	int fds[2];
	enum err e = fd_pipe(fds);

	if (e != OK)
		return e;
	if ((e = fd_nonblock(fds[0])) != OK || (e = fd_nonblock(fds[1])) != OK ||
	    (e = ev_fd_set(w->ev, fds[0], EV_READ, work_readable, w)) != OK) {
		close(fds[0]);
		close(fds[1]);
		return e;
	}
	w->rd = fds[0];
	w->wr = fds[1];
	return OK;
}

enum err
work_new(struct ev *ev, struct work **out)
{
	struct work *w = calloc(1, sizeof(*w));
	enum err e;
	int rc;

	if (w == NULL)
		return ERR_NOMEM;
	w->ev = ev;
	list_init(&w->todo);
	list_init(&w->ended);
	rc = pthread_mutex_init(&w->lock, NULL);
	if (rc != 0) {
		free(w);
		return err_errno(rc);
	}
	rc = pthread_cond_init(&w->more, NULL);
	e = rc != 0 ? err_errno(rc) : pipe_open(w);
	if (e != OK) {
		if (rc == 0)
			pthread_cond_destroy(&w->more);
		pthread_mutex_destroy(&w->lock);
		free(w);
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
	if (rc != 0)
		return err_errno(rc);
	w->started = true;
	return OK;
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
	j->queued = true;
	w->count++;
	pthread_mutex_lock(&w->lock);
	list_add(&w->todo, j);
	pthread_cond_signal(&w->more);
	pthread_mutex_unlock(&w->lock);
	return OK;
}

void
work_free(struct work *w)
{
	struct work_job *j;

	if (w == NULL)
		return;
	if (w->started) {
		pthread_mutex_lock(&w->lock);
		w->stop = true;
		pthread_cond_signal(&w->more);
		pthread_mutex_unlock(&w->lock);
		pthread_join(w->thread, NULL);
	}
	while ((j = list_take(&w->todo)) != NULL || (j = list_take(&w->ended)) != NULL)
		j->queued = false;
	ev_fd_del(w->ev, w->rd);
	close(w->rd);
	close(w->wr);
	pthread_cond_destroy(&w->more);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
