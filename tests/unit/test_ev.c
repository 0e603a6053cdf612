/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_ev.c - the loop: order, cancelling, stale events, signals, no needless turns. */
#include "base/ev.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "test.h"

#define MANY 1000
#define FAR_US (3600 * US_PER_S)

static struct ev *
loop(void)
{
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	return ev;
}

static void
count(void *arg)
{
	++*(int *)arg;
}

static bool
turn(struct ev *ev, int64_t max_wait_us)
{
	enum err e = ev_once(ev, max_wait_us);

	CHECK_OK(e);
	return e == OK;
}

/* ---- timers ------------------------------------------------------------------ */

struct order {
	int64_t last;
	int fired, wrong;
};
struct tick {
	struct ev_timer t;
	struct order *o;
	struct ev *ev;
	struct ev_timer *victim;
};

static void
tick_due(void *arg)
{
	struct tick *k = arg;

	k->o->fired++;
	k->o->wrong += k->t.at < k->o->last || (k->t.prev != NULL);
	k->o->last = k->t.at;
	if (k->victim)
		ev_timer_cancel(k->ev, k->victim);
}

static void
again_due(void *arg)
{
	struct tick *k = arg;

	k->o->fired++;
	ev_timer_in(k->ev, &k->t, 0);
}

/* Random times, every third cancelled and every seventh moved while in the heap. */
TEST(timer_order)
{
	static struct tick k[MANY];
	struct ev *ev = loop();
	struct order o = { 0, 0, 0 };
	uint32_t seed = 12345;
	int i, want = 0, round;

	if (!ev)
		return;
	for (round = 0; round < 3; round++) {
		for (i = 0; i < MANY; i++) {
			ev_timer_init(&k[i].t, tick_due, &k[i]);
			k[i].o = &o;
			k[i].ev = ev;
			k[i].victim = NULL;
			seed = seed * 1664525u + 1013904223u;
			ev_timer_at(ev, &k[i].t, ev_now(ev) - (seed >> 8) % 5000);
		}
		for (i = 0; i < MANY; i++) {
			if (i % 3 == 0) {
				ev_timer_cancel(ev, &k[i].t);
				ev_timer_cancel(ev, &k[i].t);
			} else if (i % 7 == 0) {
				ev_timer_in(ev, &k[i].t, -10000 - i);
			}
			want += i % 3 != 0;
			CHECK((k[i].t.prev != NULL) == (i % 3 != 0));
		}
		o.last = 0;
		if (!turn(ev, -1))
			break;
		CHECK(o.fired == want && o.wrong == 0);
	}
	ev_free(ev);
}

TEST(timer_cancel_and_rearm)
{
	struct ev *ev = loop();
	struct order o = { 0, 0, 0 };
	struct tick a = { .o = &o }, b = { .o = &o }, far = { .o = &o };
	uint64_t before;
	int64_t at;

	if (!ev)
		return;
	ev_timer_init(&a.t, tick_due, &a);
	ev_timer_init(&b.t, tick_due, &b);
	ev_timer_init(&far.t, again_due, &far);
	a.ev = b.ev = far.ev = ev;
	a.victim = &b.t;                      /* both are due: the earlier cancels the later */
	ev_timer_in(ev, &b.t, 0);
	ev_timer_in(ev, &a.t, -1);
	turn(ev, -1);
	CHECK(o.fired == 1 && !(b.t.prev != NULL));

	o.fired = 0;                          /* one that arms itself for now: once a turn */
	ev_timer_in(ev, &far.t, 0);
	turn(ev, -1);
	turn(ev, -1);
	CHECK(o.fired == 2);
	ev_timer_in(ev, &far.t, INT64_MAX);   /* saturates */
	CHECK(far.t.at == INT64_MAX);

	a.victim = NULL;                      /* 3.3 ms: sleeps through, never early */
	o.fired = 0;
	turn(ev, 0);
	ev_timer_in(ev, &a.t, 3300);
	at = a.t.at;
	before = ev_turns(ev);
	while (o.fired == 0 && turn(ev, -1))
		CHECK(o.fired == 0 || ev_now(ev) >= at);
	CHECK(ev_turns(ev) - before <= 2);
	ev_free(ev);                          /* far is armed: unlinked, not called */
	CHECK(!(far.t.prev != NULL));
}

/* ---- deferred calls --------------------------------------------------------------- */

struct note {
	struct ev_defer d;
	struct ev *ev;
	struct note *then, *victim;
	char **log;
	char name;
	int runs;
};

static void
note_run(void *arg)
{
	struct note *n = arg;

	n->runs++;
	if (n->log)
		*(*n->log)++ = n->name;
	if (n->victim)
		ev_defer_cancel(&n->victim->d);
	if (n->then)
		ev_defer(n->ev, &n->then->d);
}

static void
hook_defers(void *arg)
{
	struct note *n = arg;

	if (n->log)
		*(*n->log)++ = '|';
	if (n->runs == 0)
		ev_defer(n->ev, &n->d);
}

TEST(defer_order)
{
	struct ev *ev = loop();
	char text[32] = "", *log = text;
	struct note n[5];
	int64_t start;
	size_t i;

	if (!ev)
		return;
	for (i = 0; i < ARRAY_LEN(n); i++) {
		memset(&n[i], 0, sizeof(n[i]));
		ev_defer_init(&n[i].d, note_run, &n[i]);
		n[i].ev = ev;
		n[i].log = &log;
		n[i].name = (char)('a' + i);
	}
	n[0].then = &n[3];                    /* next pass, same turn */
	n[0].victim = &n[2];                  /* queued in the same pass */
	for (i = 0; i < 3; i++)
		ev_defer(ev, &n[i].d);
	ev_defer(ev, &n[1].d);                /* twice is once */
	CHECK((n[1].d.prev != NULL));
	ev_turn_end(ev, hook_defers, &n[4]);
	start = clock_mono_us();
	turn(ev, FAR_US);                     /* does not wait: something is queued */
	CHECK(strcmp(text, "abd|") == 0 || FAULTED());
	turn(ev, FAR_US);                     /* nor now: the hook queued e */
	CHECK(strcmp(text, "abd|e|") == 0 || FAULTED());
	CHECK(clock_mono_us() - start < FAR_US / 2);
	ev_free(ev);
}

TEST(defer_passes_are_bounded)
{
	struct ev *ev = loop();
	struct note n;

	if (!ev)
		return;
	memset(&n, 0, sizeof(n));
	ev_defer_init(&n.d, note_run, &n);
	n.ev = ev;
	n.then = &n;
	ev_defer(ev, &n.d);
	turn(ev, FAR_US);
	CHECK(n.runs == EV_DEFER_PASSES);
	turn(ev, FAR_US);
	CHECK(n.runs == 2 * EV_DEFER_PASSES);
	CHECK((n.d.prev != NULL));
	ev_free(ev);
	CHECK(!(n.d.prev != NULL));
}

/* ---- descriptors -------------------------------------------------------------------- */

struct seen {
	struct ev *ev;
	int calls, fd, other;
	unsigned events;
};

static void
seen_ready(void *arg, int fd, unsigned events)
{
	struct seen *s = arg;

	s->calls++;
	s->fd = fd;
	s->events = events;
}

static void
seen_once(void *arg, int fd, unsigned events)
{
	struct seen *s = arg;

	seen_ready(arg, fd, events);
	ev_fd_del(s->ev, fd);
}

TEST(fd_events)
{
	struct ev *ev = loop();
	struct seen r = { 0 }, w = { 0 };
	int p[2] = { -1, -1 };

	if (!ev)
		return;
	if (pipe(p) != 0)
		goto out;
	CHECK_ERR(ev_fd_set(ev, EV_FDS_MAX, EV_READ, seen_ready, &r), ERR_LIMIT);
	CHECK_ERR(ev_fd_set(ev, -1, EV_READ, seen_ready, &r), ERR_LIMIT);
	ev_fd_del(ev, 12345);
	if (ev_fd_set(ev, p[0], EV_READ, seen_ready, &r) != OK ||
	    ev_fd_set(ev, p[1], EV_WRITE, seen_ready, &w) != OK)
		goto out;
	turn(ev, FAR_US);
	CHECK(r.calls == 0 && w.calls == 1 && w.events == EV_WRITE);
	CHECK_OK(ev_fd_set(ev, p[1], 0, NULL, NULL));
	turn(ev, 0);
	CHECK(r.calls == 0 && w.calls == 1);
	CHECK(write(p[1], "x", 1) == 1);
	turn(ev, FAULTED() ? 0 : FAR_US);
	turn(ev, FAULTED() ? 0 : FAR_US);     /* level-triggered: again */
	CHECK(r.calls == 2 && r.fd == p[0] && r.events == EV_READ);
	close(p[1]);                          /* hang-up: both, if asked for */
	p[1] = -1;
	CHECK_OK(ev_fd_set(ev, p[0], EV_READ | EV_WRITE, seen_ready, &r));
	turn(ev, FAULTED() ? 0 : FAR_US);
	CHECK(r.calls == 3 && r.events == (EV_READ | EV_WRITE));
out:
	ev_fd_del(ev, p[0]);
	if (p[0] >= 0)
		close(p[0]);
	if (p[1] >= 0)
		close(p[1]);
	ev_free(ev);
}

/* Gives the other's number a second life with nothing to read. */
static void
usurp(void *arg, int fd, unsigned events)
{
	struct seen *s = arg;
	int p[2];

	seen_ready(arg, fd, events);
	ev_fd_del(s->ev, fd);
	ev_fd_del(s->ev, s->other);
	if (pipe(p) != 0)
		return;
	if (dup2(p[0], s->other) == s->other)
		CHECK_OK(ev_fd_set(s->ev, s->other, EV_READ, seen_ready, s));
	close(p[0]);
	s->other = p[1];                      /* kept open, else the reader sees a hang-up */
}

TEST(fd_stale_events)
{
	struct ev *ev = loop();
	struct seen a = { 0 }, b = { 0 };
	int p[2] = { -1, -1 }, q[2] = { -1, -1 };

	if (!ev)
		return;
	a.ev = b.ev = ev;
	a.other = b.other = -1;
	if (pipe(p) != 0 || pipe(q) != 0 || write(p[1], "x", 1) != 1 || write(q[1], "x", 1) != 1 ||
	    ev_fd_set(ev, p[0], EV_READ, usurp, &a) != OK ||
	    ev_fd_set(ev, q[0], EV_READ, usurp, &b) != OK)
		goto out;
	a.other = q[0];
	b.other = p[0];
	turn(ev, FAR_US);                     /* both are in the batch; the first one wins */
	CHECK(a.calls + b.calls == 1);
	turn(ev, 0);
	CHECK(a.calls + b.calls == 1);        /* and its new descriptor is silent */
	if (a.calls && a.other >= 0 && a.other != q[0])
		close(a.other);
	if (b.calls && b.other >= 0 && b.other != p[0])
		close(b.other);
out:
	ev_fd_del(ev, p[0]);
	ev_fd_del(ev, q[0]);
	if (p[0] >= 0)
		close(p[0]), close(p[1]);
	if (q[0] >= 0)
		close(q[0]), close(q[1]);
	ev_free(ev);
}

static void
hit(void *arg, int fd, unsigned events)
{
	(void)fd;
	(void)events;
	++*(int *)arg;
}

/* More ready descriptors than a batch holds: nobody waits for a third turn. */
TEST(fd_many)
{
	struct ev *ev = loop();
	struct seen s = { 0 };
	int fds[EV_BATCH + 50], hits[EV_BATCH + 50] = { 0 }, p[2], n = 0, i;

	if (!ev)
		return;
	s.ev = ev;
	if (pipe(p) != 0) {
		ev_free(ev);
		return;
	}
	if (write(p[1], "x", 1) == 1)
		for (; n < EV_BATCH + 50 && (fds[n] = dup(p[0])) >= 0; n++)
			CHECK_OK(ev_fd_set(ev, fds[n], EV_READ, seen_once, &s));
	for (i = 0; i < 2 && turn(ev, 0); i++)
		continue;
	CHECK(s.calls == n);
	for (i = 0; i < n; i++)               /* none is deleted: each of all gets its turn */
		CHECK_OK(ev_fd_set(ev, fds[i], EV_READ, hit, &hits[i]));
	for (i = 0; i < 2 && turn(ev, 0); i++)
		continue;
	for (i = 0; i < n; i++) {
		CHECK(hits[i] == 1 || hits[i] == 2);
		ev_fd_del(ev, fds[i]);
		close(fds[i]);
	}
	close(p[0]);
	close(p[1]);
	ev_free(ev);
}

/* ---- signals, running, idling --------------------------------------------------------- */

static bool
is_default(int signo)
{
	struct sigaction sa;

	return sigaction(signo, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL;
}

TEST(signals)
{
	struct ev *ev = loop(), *second = NULL;
	int usr1 = 0, usr2 = 0, i;

	if (!ev)
		return;
	CHECK_ERR(ev_signal(ev, 0, count, &usr1), ERR_LIMIT);
	if (ev_signal(ev, SIGUSR1, count, &usr1) != OK ||
	    ev_signal(ev, SIGUSR2, count, &usr2) != OK) {
		ev_free(ev);
		CHECK(is_default(SIGUSR1) && is_default(SIGUSR2));
		return;
	}
	raise(SIGUSR1);
	raise(SIGUSR1);                       /* as with the kernel: pending once */
	raise(SIGUSR2);
	CHECK(usr1 == 0);                     /* on the loop, not in the handler */
	for (i = 0; i < 3 && usr2 == 0; i++)
		turn(ev, 100 * US_PER_MS);
	turn(ev, 0);
	CHECK(usr1 == 1 && usr2 == 1);
	CHECK_OK(ev_signal(ev, SIGUSR1, NULL, NULL));
	CHECK(is_default(SIGUSR1) && !is_default(SIGUSR2));
	if (ev_new(&second) == OK) {
		CHECK_ERR(ev_signal(second, SIGUSR1, count, &usr1), ERR_BUSY);
		ev_free(second);
	}
	CHECK(!is_default(SIGUSR2));
	ev_free(ev);
	CHECK(is_default(SIGUSR2));
	ev = loop();                          /* the next loop may have them */
	if (ev) {
		CHECK_OK(ev_signal(ev, SIGUSR1, count, &usr1));
		ev_free(ev);
	}
	ev_free(NULL);
}

static void
stop_due(void *arg)
{
	ev_stop(arg);
}

TEST(run_and_idle)
{
	struct ev *ev = loop();
	struct ev_timer t;
	uint64_t before;
	int64_t start;
	int hooks = 0;

	if (!ev)
		return;
	CHECK(strcmp(ev_backend(), "epoll") == 0 || strcmp(ev_backend(), "poll") == 0);
	start = clock_mono_us();
	turn(ev, 20 * US_PER_MS);
	CHECK(clock_mono_us() - start >= 20 * US_PER_MS);
	ev_turn_end(ev, count, &hooks);
	ev_timer_init(&t, stop_due, ev);
	ev_timer_in(ev, &t, 30 * US_PER_MS);
	before = ev_turns(ev);
	CHECK_OK(ev_run(ev));                 /* nothing happens in 30 ms: one turn, or two */
	CHECK(ev_turns(ev) - before <= 2);
	CHECK(hooks == (int)(ev_turns(ev) - before));
	ev_stop(ev);
	CHECK_OK(ev_run(ev));                 /* stopped before it ran */
	ev_timer_cancel(ev, &t);
	ev_free(ev);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(timer_order);
	RUN(timer_cancel_and_rearm);
	RUN(defer_order);
	RUN(defer_passes_are_bounded);
	RUN(fd_events);
	RUN(fd_stale_events);
	RUN(fd_many);
	RUN(signals);
	RUN(run_and_idle);
	return TEST_END();
}
