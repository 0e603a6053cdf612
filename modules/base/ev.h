/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ev.h - the event loop: descriptors, timers, deferred calls, signals.
 *
 * One loop turn: wait -> descriptor callbacks -> due timers -> deferred calls
 * (repeated while they schedule more, at most EV_DEFER_PASSES times) -> the
 * turn-end hook. Everything the callbacks of one turn write to the database is
 * one transaction, committed in that hook.
 *
 * Rules: a callback is never called from inside the function that registered
 * it; after a _cancel/_del returns it is never called again, even if its event
 * was already fetched in this turn. Timers and deferred calls are embedded in
 * their owner and cannot fail to be set.
 */
#ifndef BLUFIO_EV_H
#define BLUFIO_EV_H

#include "base.h"

enum { EV_READ = 1, EV_WRITE = 2 };           /* hang-up and error arrive as both, if asked for */
#define EV_FDS_MAX 65536                      /* highest descriptor number accepted */
#define EV_DEFER_PASSES 64                    /* then the loop turns once more with no wait */
#define EV_BATCH 256                          /* descriptor events taken in one turn */

struct ev;
typedef void ev_fd_fn(void *arg, int fd, unsigned events);
typedef void ev_fn(void *arg);

struct ev_timer {                             /* embed; zero-initialise, then ev_timer_init */
	ev_fn *fn;
	void *arg;
	int64_t at;                           /* monotonic us */
	struct ev_timer *child, *next, **prev; /* pairing heap; prev != NULL means armed */
};
struct ev_defer {                             /* embed */
	ev_fn *fn;
	void *arg;
	struct ev_defer *next, **prev;        /* prev != NULL means queued */
};

FALLIBLE ev_new(struct ev **out);
void ev_free(struct ev *ev);                  /* NULL ok; nothing registered is called */
const char *ev_backend(void);                 /* "epoll" or "poll" */

/* Sets (or changes) what fd is watched for; events = 0 is ev_fd_del. Level-triggered. */
FALLIBLE ev_fd_set(struct ev *ev, int fd, unsigned events, ev_fd_fn *fn, void *arg);
void ev_fd_del(struct ev *ev, int fd);        /* before close(fd); unknown fd ok */

void ev_timer_init(struct ev_timer *t, ev_fn *fn, void *arg);
void ev_timer_at(struct ev *ev, struct ev_timer *t, int64_t mono_us);  /* arms or re-arms */
void ev_timer_in(struct ev *ev, struct ev_timer *t, int64_t delay_us); /* from ev_now */
void ev_timer_cancel(struct ev *ev, struct ev_timer *t);

void ev_defer_init(struct ev_defer *d, ev_fn *fn, void *arg);
void ev_defer(struct ev *ev, struct ev_defer *d);       /* queued twice is queued once */
void ev_defer_cancel(struct ev_defer *d);

/* fn runs on the loop, not in signal context. One handler a signal; fn = NULL restores the default. */
FALLIBLE ev_signal(struct ev *ev, int signo, ev_fn *fn, void *arg);

void ev_turn_end(struct ev *ev, ev_fn *fn, void *arg);  /* the one hook */
int64_t ev_now(const struct ev *ev);          /* monotonic us, read once a turn */
uint64_t ev_turns(const struct ev *ev);       /* loop turns so far (wake-ups) */
/* Turns until ev_stop, or (once) exactly one turn that waits at most max_wait_us (-1 = no bound). */
FALLIBLE ev_run(struct ev *ev);
FALLIBLE ev_once(struct ev *ev, int64_t max_wait_us);
void ev_stop(struct ev *ev);

/* The backend (ev_epoll.c or ev_poll.c, chosen by the Makefile) */
struct ev_ready { int fd; unsigned events; };
struct ev_poller;
FALLIBLE ev_poller_new(struct ev_poller **out);
void ev_poller_free(struct ev_poller *p);
FALLIBLE ev_poller_set(struct ev_poller *p, int fd, unsigned old_events, unsigned events);
/* wait_us -1 = for ever. Rounds up to the backend's grain. EINTR gives *n = 0. */
FALLIBLE ev_poller_wait(struct ev_poller *p, int64_t wait_us, struct ev_ready *out, size_t max, size_t *n);

#endif
