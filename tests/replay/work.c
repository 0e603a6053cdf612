/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * work.c - the worker without its thread: a job runs on the loop, in the deferred
 * calls of the loop turn that queued it, so that two runs do the same.
 */
#include "base/work.h"

struct work {
	struct ev *ev;
	struct ev_defer run;
	struct work_job *jobs[WORK_QUEUE_MAX];
	size_t n;
};

static void
run(void *arg)
{
	struct work *w = arg;
	struct work_job *j;

	while (w->n) {
		j = w->jobs[0];
		memmove(w->jobs, w->jobs + 1, --w->n * sizeof(w->jobs[0]));
		j->queued = false;
		j->run(j);
		j->done(j);
	}
}

enum err
work_new(struct ev *ev, struct work **out)
{
	struct work *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return ERR_NOMEM;
	w->ev = ev;
	ev_defer_init(&w->run, run, w);
	*out = w;
	return OK;
}

void
work_free(struct work *w)
{
	if (w)
		ev_defer_cancel(&w->run);
	free(w);
}

enum err
work_put(struct work *w, struct work_job *j)
{
	if (j->queued)
		return ERR_BUSY;
	if (w->n == WORK_QUEUE_MAX)
		return ERR_LIMIT;
	j->queued = true;
	w->jobs[w->n++] = j;
	ev_defer(w->ev, &w->run);
	return OK;
}
