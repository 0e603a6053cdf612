/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * work.h - one worker thread for the few jobs that block (a WAL checkpoint).
 * A job's run() sees only its own memory; done() is called on the loop.
 * The thread starts with the first job and ends with work_free.
 */
#ifndef BLUFIO_WORK_H
#define BLUFIO_WORK_H

#include "ev.h"

#define WORK_QUEUE_MAX 64

struct work;
struct work_job {                     /* embed; the caller keeps it until done() */
	void (*run)(struct work_job *j);      /* on the thread */
	void (*done)(struct work_job *j);     /* on the loop */
	bool queued;
};
FALLIBLE work_new(struct ev *ev, struct work **out);
void work_free(struct work *w);       /* waits for the running job; queued jobs are dropped, done() not called */
FALLIBLE work_put(struct work *w, struct work_job *j);   /* ERR_LIMIT when full, ERR_BUSY when already queued */

#endif
