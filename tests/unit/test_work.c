/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_work.c - the worker thread: where run() and done() happen, limits, the end. */
#include "base/work.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "test.h"

#define WAIT_US (5 * US_PER_S)

struct job {
	struct work_job j;
	struct work *again;                   /* done() puts the job once more */
	pthread_t ran_on, done_on;
	int gate;                             /* read end: run() waits for a byte; -1 not */
	int runs, dones;
	int *order, place;                    /* when it was done among all */
	bool blocked;
};

static void
job_run(struct work_job *j)
{
	struct job *k = CONTAINER(j, struct job, j);
	sigset_t now;
	char byte;

	if (k->gate >= 0 && read(k->gate, &byte, 1) != 1)
		k->gate = -1;
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	k->blocked = sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGCHLD) == 1;
	k->ran_on = pthread_self();
	k->runs++;
}

static void
job_done(struct work_job *j)
{
	struct job *k = CONTAINER(j, struct job, j);
	struct work *again = k->again;

	k->done_on = pthread_self();
	k->dones++;
	k->place = (*k->order)++;
	k->again = NULL;
	if (again)
		CHECK_OK(work_put(again, j));
}

static void
job_init(struct job *k, int *order)
{
	memset(k, 0, sizeof(*k));
	k->j.run = job_run;
	k->j.done = job_done;
	k->gate = -1;
	k->order = order;
}

/* Turns until n jobs were done in all, or too long. */
static void
wait_for(struct ev *ev, const int *order, int n)
{
	int64_t end = clock_mono_us() + WAIT_US;

	while (*order < n && clock_mono_us() < end)
		if (ev_once(ev, 50 * US_PER_MS) != OK)
			return;
}

static bool
setup(struct ev **ev, struct work **w)
{
	*ev = NULL;
	*w = NULL;
	CHECK_OK(ev_new(ev));
	if (*ev)
		CHECK_OK(work_new(*ev, w));
	if (*w)
		return true;
	ev_free(*ev);
	return false;
}

TEST(runs_and_reports)
{
	struct ev *ev;
	struct work *w;
	struct job k[20];
	int order = 0, put = 0, i;

	if (!setup(&ev, &w))
		return;
	for (i = 0; i < 20; i++) {
		job_init(&k[i], &order);
		if (work_put(w, &k[i].j) == OK)
			put++;
	}
	CHECK(put == 20 && order == 0);       /* never from inside work_put */
	wait_for(ev, &order, put);
	for (i = 0; i < 20 && !FAULTED(); i++) {
		CHECK(k[i].runs == 1 && k[i].dones == 1 && k[i].place == i && k[i].blocked);
		CHECK(!pthread_equal(k[i].ran_on, pthread_self()));
		CHECK(pthread_equal(k[i].done_on, pthread_self()) && !k[i].j.queued);
	}
	k[0].again = w;                       /* and once more from done() */
	if (work_put(w, &k[0].j) == OK)
		wait_for(ev, &order, put + 2);
	CHECK(k[0].runs == 3 && k[0].dones == 3);
	work_free(w);
	ev_free(ev);
}

TEST(limits_and_free)
{
	struct ev *ev;
	struct work *w;
	struct job k[WORK_QUEUE_MAX + 1];
	int order = 0, gate[2], i;

	if (!setup(&ev, &w))
		return;
	if (pipe(gate) != 0) {
		work_free(w);
		ev_free(ev);
		return;
	}
	for (i = 0; i <= WORK_QUEUE_MAX; i++)
		job_init(&k[i], &order);
	k[0].gate = gate[0];
	for (i = 0; i < WORK_QUEUE_MAX; i++)
		CHECK_OK(work_put(w, &k[i].j));
	CHECK_ERR(work_put(w, &k[3].j), ERR_BUSY);
	CHECK_ERR(work_put(w, &k[WORK_QUEUE_MAX].j), ERR_LIMIT);
	close(gate[1]);                       /* k[0] goes on, now or while work_free waits */
	work_free(w);
	for (i = 0; i <= WORK_QUEUE_MAX; i++)
		CHECK(k[i].dones == 0 && !k[i].j.queued);
	CHECK(k[WORK_QUEUE_MAX].runs == 0);
	CHECK_OK(ev_once(ev, 0));
	close(gate[0]);
	work_free(NULL);
	ev_free(ev);
}

TEST(no_thread_without_a_job)
{
	struct ev *ev;
	struct work *w;

	if (!setup(&ev, &w))
		return;
	CHECK_OK(ev_once(ev, 0));
	work_free(w);
	ev_free(ev);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(runs_and_reports);
	RUN(limits_and_free);
	RUN(no_thread_without_a_job);
	return TEST_END();
}
