/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ev.c - the event loop: one thread, one wait, everything else follows.
 *
 * Timers and deferred calls are nodes embedded in their owners, so setting one
 * allocates nothing and cannot fail. Each node knows the pointer that points
 * at it (prev), hence unlinking needs neither a search nor the list's head:
 * that is what makes "after cancel it is never called" a local operation,
 * whether the node sits in the heap, in the list of timers due in this turn,
 * or in a queue that is being run.
 *
 * Timers form a pairing heap: arming is O(1), which is what happens most
 * (every byte that arrives re-arms an idle timeout); taking the earliest is
 * O(log n) amortised. The due ones are moved to a list before the first of
 * them is called, so a timer that arms itself for "now" waits for the next
 * turn and cannot starve the descriptors.
 *
 * Deferred calls are pushed on a stack and reversed when a pass begins. So
 * they run in the order they were queued, and no tail pointer has to be
 * repaired by a cancel.
 *
 * A descriptor number can be closed and given out again while events for its
 * former life still stand in the batch. A slot therefore remembers the turn in
 * which it was taken, and events of that same turn are not for it: the wait is
 * level-triggered, so nothing is lost, it is reported again.
 *
 * Signals are process-wide, so the bit of state that the handler touches is
 * too: one loop at a time may own it. The handler sets a flag, which cannot
 * overflow, and writes a byte, which only has to wake the loop.
 */
#include "base/ev.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#define EV_SIGNALS 65                         /* highest signal number of Linux, and one */
#define EV_SLOTS_MIN 64                       /* first size of the descriptor table */

struct ev_slot {
	ev_fd_fn *fn;
	void *arg;
	uint64_t born;                        /* the turn that took the slot */
	unsigned events;                      /* 0: free */
};
struct ev_sig {
	ev_fn *fn;                            /* NULL: not ours */
	void *arg;
};

struct ev {
	struct ev_poller *poller;
	struct ev_slot *slots;                /* indexed by descriptor */
	size_t slot_count;
	struct ev_timer *heap;                /* earliest at the root */
	struct ev_timer *due;                 /* taken from the heap in this turn */
	struct ev_defer *queued;              /* newest first */
	struct ev_defer *running;             /* oldest first, the pass under way */
	ev_fn *hook;
	void *hook_arg;
	int64_t now;
	uint64_t turns;
	bool stop;
	int sig_rd, sig_wr;                   /* self-pipe; -1 until the first ev_signal */
	struct ev_sig sigs[EV_SIGNALS];
	struct ev_ready batch[EV_BATCH];
};

/* What a signal handler can reach: whose signals these are, and which came. */
static struct ev *sig_owner;
static volatile sig_atomic_t sig_fd = -1;
static volatile sig_atomic_t sig_seen[EV_SIGNALS];

/* ---- timers -------------------------------------------------------------- */

/* Joins two heaps (either may be NULL); the root's prev is for the caller to set. */
static struct ev_timer *
heap_meld(struct ev_timer *a, struct ev_timer *b)
{
	if (a == NULL || b == NULL)
		return a ? a : b;
	if (b->at < a->at)
		return heap_meld(b, a);
	b->next = a->child;
	if (b->next)
		b->next->prev = &b->next;
	b->prev = &a->child;
	a->child = b;
	a->next = NULL;
	return a;
}

/* Takes the first of a list of siblings as a heap of its own. */
static struct ev_timer *
heap_shift(struct ev_timer **list)
{
	struct ev_timer *t = *list;

	if (t) {
		*list = t->next;
		t->next = NULL;
	}
	return t;
}

/* Joins a list of siblings into one heap: in pairs, then the pairs from the
 * last to the first. Loops, not recursion: the list can be as long as there
 * are timers. */
static struct ev_timer *
heap_join(struct ev_timer *list)
{
	struct ev_timer *pairs = NULL, *root = NULL, *t;

	while ((t = heap_shift(&list)) != NULL) {
		t = heap_meld(t, heap_shift(&list));
		t->next = pairs;
		pairs = t;
	}
	while ((t = heap_shift(&pairs)) != NULL)
		root = heap_meld(root, t);
	return root;
}

static void
heap_add(struct ev *ev, struct ev_timer *t)
{
	ev->heap = heap_meld(ev->heap, t);
	ev->heap->prev = &ev->heap;
}

void
ev_timer_init(struct ev_timer *t, ev_fn *fn, void *arg)
{
	*t = (struct ev_timer){ .fn = fn, .arg = arg };
}

void
ev_timer_cancel(struct ev *ev, struct ev_timer *t)
{
	struct ev_timer *orphans = t->child;

	if (t->prev == NULL)
		return;
	*t->prev = t->next;
	if (t->next)
		t->next->prev = t->prev;
	t->child = t->next = NULL;
	t->prev = NULL;
	if (orphans)
		heap_add(ev, heap_join(orphans));
}

void
ev_timer_at(struct ev *ev, struct ev_timer *t, int64_t mono_us)
{
	assert(t->fn != NULL);
	ev_timer_cancel(ev, t);
	t->at = mono_us;
	heap_add(ev, t);
}

void
ev_timer_in(struct ev *ev, struct ev_timer *t, int64_t delay_us)
{
	int64_t at;

	if (add_i64(ev->now, delay_us, &at))
		at = INT64_MAX;
	ev_timer_at(ev, t, at);
}

static void
timers_run(struct ev *ev)
{
	struct ev_timer **end = &ev->due, *t;

	while ((t = ev->heap) != NULL && t->at <= ev->now) {
		ev_timer_cancel(ev, t);
		*end = t;
		t->prev = end;
		end = &t->next;
	}
	while ((t = ev->due) != NULL) {
		ev_timer_cancel(ev, t);
		t->fn(t->arg);
	}
}

/* ---- deferred calls -------------------------------------------------------- */

void
ev_defer_init(struct ev_defer *d, ev_fn *fn, void *arg)
{
	*d = (struct ev_defer){ .fn = fn, .arg = arg };
}

static void
defer_push(struct ev_defer **head, struct ev_defer *d)
{
	d->next = *head;
	if (d->next)
		d->next->prev = &d->next;
	d->prev = head;
	*head = d;
}

void
ev_defer(struct ev *ev, struct ev_defer *d)
{
	assert(d->fn != NULL);
	if (d->prev == NULL)
		defer_push(&ev->queued, d);
}

void
ev_defer_cancel(struct ev_defer *d)
{
	if (d->prev == NULL)
		return;
	*d->prev = d->next;
	if (d->next)
		d->next->prev = d->prev;
	d->next = NULL;
	d->prev = NULL;
}

static void
defers_run(struct ev *ev)
{
	struct ev_defer *d;

	for (int pass = 0; pass < EV_DEFER_PASSES && ev->queued; pass++) {
		while ((d = ev->queued) != NULL) {
			ev_defer_cancel(d);
			defer_push(&ev->running, d);
		}
		while ((d = ev->running) != NULL) {
			ev_defer_cancel(d);
			d->fn(d->arg);
		}
	}
}

/* ---- descriptors ------------------------------------------------------------- */

static enum err
slots_grow(struct ev *ev, size_t need)
{
	struct ev_slot *slots;
	size_t count = ev->slot_count ? ev->slot_count : EV_SLOTS_MIN;

	while (count < need)
		count *= 2;
	slots = realloc(ev->slots, count * sizeof(*slots));
	if (slots == NULL)
		return ERR_NOMEM;
	memset(slots + ev->slot_count, 0, (count - ev->slot_count) * sizeof(*slots));
	ev->slots = slots;
	ev->slot_count = count;
	return OK;
}

enum err
ev_fd_set(struct ev *ev, int fd, unsigned events, ev_fd_fn *fn, void *arg)
{
	struct ev_slot *slot;
	enum err e = OK;

	if (events == 0) {
		ev_fd_del(ev, fd);
		return OK;
	}
	assert(fn != NULL && (events & ~(unsigned)(EV_READ | EV_WRITE)) == 0);
	if (fd < 0 || fd >= EV_FDS_MAX)
		return ERR_LIMIT;
	if ((size_t)fd >= ev->slot_count && (e = slots_grow(ev, (size_t)fd + 1)) != OK)
		return e;
	slot = &ev->slots[fd];
	if (slot->events != events)
		e = ev_poller_set(ev->poller, fd, slot->events, events);
	if (e != OK)
		return e;
	if (slot->events == 0 || slot->fn != fn || slot->arg != arg)
		slot->born = ev->turns;
	*slot = (struct ev_slot){ fn, arg, slot->born, events };
	return OK;
}

void
ev_fd_del(struct ev *ev, int fd)
{
	struct ev_slot *slot;

	if (fd < 0 || (size_t)fd >= ev->slot_count)
		return;
	slot = &ev->slots[fd];
	if (slot->events == 0)
		return;
	/* It can fail only if fd was closed too early, and then it is gone anyway. */
	IGNORE(ev_poller_set(ev->poller, fd, slot->events, 0));
	memset(slot, 0, sizeof(*slot));
}

static void
fds_run(struct ev *ev, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		/* Looked up anew each time: the callback before may have moved the table. */
		const struct ev_slot *slot = &ev->slots[ev->batch[i].fd];
		unsigned events = ev->batch[i].events & slot->events;

		if (events != 0 && slot->born != ev->turns)
			slot->fn(slot->arg, ev->batch[i].fd, events);
	}
}

/* ---- signals -------------------------------------------------------------------- */

static void
sig_handler(int signo)
{
	int saved = errno;
	ssize_t n;

	if (signo > 0 && signo < EV_SIGNALS)
		sig_seen[signo] = 1;
	/* A full pipe is as good as a written byte. */
	n = write((int)sig_fd, "", 1);
	(void)n;
	errno = saved;
}

static void
sig_readable(void *arg, int fd, unsigned events)
{
	struct ev *ev = arg;
	char bytes[64];

	(void)events;
	while (read(fd, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes))
		continue;
	for (int i = 1; i < EV_SIGNALS; i++) {
		if (!sig_seen[i])
			continue;
		sig_seen[i] = 0;
		if (ev->sigs[i].fn)
			ev->sigs[i].fn(ev->sigs[i].arg);
	}
}

/* Makes the pipe and takes the process's signal state, once a loop. */
static enum err
sig_open(struct ev *ev)
{
	int fds[2];
	enum err e;

	if (sig_owner == ev)
		return OK;
	if (sig_owner != NULL)
		return ERR_BUSY;
	if ((e = fd_pipe(fds)) != OK)
		return e;
	if ((e = fd_nonblock(fds[0])) != OK || (e = fd_nonblock(fds[1])) != OK ||
	    (e = ev_fd_set(ev, fds[0], EV_READ, sig_readable, ev)) != OK) {
		close(fds[0]);
		close(fds[1]);
		return e;
	}
	ev->sig_rd = fds[0];
	ev->sig_wr = fds[1];
	sig_fd = fds[1];
	sig_owner = ev;
	return OK;
}

enum err
ev_signal(struct ev *ev, int signo, ev_fn *fn, void *arg)
{
	struct sigaction sa = { .sa_handler = fn ? sig_handler : SIG_DFL, .sa_flags = SA_RESTART };
	enum err e;

	if (signo <= 0 || signo >= EV_SIGNALS)
		return ERR_LIMIT;
	if (fn == NULL && ev->sigs[signo].fn == NULL)
		return OK;
	if (fn && (e = sig_open(ev)) != OK)
		return e;
	if (sigaction(signo, &sa, NULL) != 0)
		return err_errno(errno);
	if (fn == NULL)
		sig_seen[signo] = 0;
	ev->sigs[signo] = (struct ev_sig){ fn, arg };
	return OK;
}

static void
sig_close(struct ev *ev)
{
	if (sig_owner != ev)
		return;
	for (int i = 1; i < EV_SIGNALS; i++)
		IGNORE(ev_signal(ev, i, NULL, NULL));   /* it took the handler, so it gives it up */
	sig_owner = NULL;
	sig_fd = -1;
	close(ev->sig_rd);
	close(ev->sig_wr);
}

/* ---- the loop --------------------------------------------------------------------- */

enum err
ev_new(struct ev **out)
{
	struct ev *ev = calloc(1, sizeof(*ev));
	enum err e;

	if (ev == NULL)
		return ERR_NOMEM;
	e = ev_poller_new(&ev->poller);
	if (e != OK) {
		free(ev);
		return e;
	}
	ev->sig_rd = ev->sig_wr = -1;
	ev->now = clock_mono_us();
	*out = ev;
	return OK;
}

void
ev_free(struct ev *ev)
{
	if (ev == NULL)
		return;
	sig_close(ev);
	/* Nodes outlive the loop in their owners: none may keep pointing into it. */
	while (ev->heap)
		ev_timer_cancel(ev, ev->heap);
	while (ev->due)
		ev_timer_cancel(ev, ev->due);
	while (ev->queued)
		ev_defer_cancel(ev->queued);
	while (ev->running)
		ev_defer_cancel(ev->running);
	ev_poller_free(ev->poller);
	free(ev->slots);
	free(ev);
}

void
ev_turn_end(struct ev *ev, ev_fn *fn, void *arg)
{
	ev->hook = fn;
	ev->hook_arg = arg;
}

int64_t
ev_now(const struct ev *ev)
{
	return ev->now;
}

uint64_t
ev_turns(const struct ev *ev)
{
	return ev->turns;
}

/* How long the wait may last: not at all while deferred calls are left over
 * (from the hook, or beyond the passes), else until the earliest timer. */
static int64_t
wait_span(const struct ev *ev, int64_t max_wait_us)
{
	int64_t left;

	if (ev->queued || ev->stop)
		return 0;
	if (ev->heap == NULL)
		return max_wait_us;
	left = ev->heap->at - clock_mono_us();
	if (left < 0)
		left = 0;
	return max_wait_us >= 0 && max_wait_us < left ? max_wait_us : left;
}

enum err
ev_once(struct ev *ev, int64_t max_wait_us)
{
	size_t n = 0;
	enum err e = ev_poller_wait(ev->poller, wait_span(ev, max_wait_us), ev->batch, EV_BATCH, &n);

	if (e != OK)
		return e;
	ev->turns++;
	ev->now = clock_mono_us();
	fds_run(ev, n);
	timers_run(ev);
	defers_run(ev);
	if (ev->hook)
		ev->hook(ev->hook_arg);
	return OK;
}

enum err
ev_run(struct ev *ev)
{
	enum err e = OK;

	while (e == OK && !ev->stop)
		e = ev_once(ev, -1);
	ev->stop = false;
	return e;
}

void
ev_stop(struct ev *ev)
{
	ev->stop = true;
}
