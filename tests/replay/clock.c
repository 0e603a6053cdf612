/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * clock.c - time that moves only when the loop would wait, and chance with a seed.
 *
 * The loop's wait is the one place where true time goes on: to the earliest timer
 * or to the next event of the world, whichever comes first. The calendar is the
 * daemon's own (base/clock.c, with the four functions that ask the kernel renamed
 * out of the way). The world's events are delivered as a descriptor's would be:
 * the poller reports SIM_FD ready, and whoever watches it (net.c) runs them.
 */
#define clock_us kernel_us
#define clock_mono_us kernel_mono_us
#define rand_bytes kernel_bytes
#define rand_u32 kernel_u32
#include "base/clock.c"
#undef clock_us
#undef clock_mono_us
#undef rand_bytes
#undef rand_u32

int64_t clock_us(void);
int64_t clock_mono_us(void);
FALLIBLE rand_bytes(void *p, size_t n);
uint32_t rand_u32(void);

#include "replay/sim.h"

struct sim sim;

int64_t
clock_us(void)
{
	return sim.base + sim.now + sim.utc_skew;
}

int64_t
clock_mono_us(void)
{
	return sim.now + sim.mono_skew;
}

static uint64_t
roll(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed >> 24;
}

FALLIBLE
rand_bytes(void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((unsigned char *)p)[i] = (unsigned char)roll(&sim.seed);
	return OK;
}

uint32_t
rand_u32(void)
{
	return (uint32_t)roll(&sim.seed);
}

unsigned
sim_chance(unsigned n)
{
	return (unsigned)(roll(&sim.world_seed) % n);
}

/* ---- what is due ----------------------------------------------------------------- */

void
sim_cancel(struct sim_event *e)
{
	if (e->prev == NULL)
		return;
	*e->prev = e->next;
	if (e->next)
		e->next->prev = e->prev;
	e->prev = NULL;
}

void
sim_at(struct sim_event *e, int64_t at)
{
	struct sim_event **p = &sim.events;

	sim_cancel(e);
	e->at = at > sim.now ? at : sim.now;
	while (*p && (*p)->at <= e->at)
		p = &(*p)->next;
	e->next = *p;
	if (e->next)
		e->next->prev = &e->next;
	e->prev = p;
	*p = e;
}

void
sim_run_due(void)
{
	struct sim_event *e;

	while ((e = sim.events) && e->at <= sim.now) {
		sim_cancel(e);
		e->fn(e->arg);
	}
}

void
sim_begin(int64_t base, int64_t now, uint64_t seed, size_t record_max)
{
	sim = (struct sim){ .base = base, .now = now, .begun = now, .mono_skew = 1000 * US_PER_S, .seed = seed | 1,
	    .world_seed = (seed ^ 0x9E3779B97F4A7C15u) | 1 };
	buf_init(&sim.record, record_max);
}

void
sim_end(void)
{
	buf_free(&sim.record);
}

/* ---- the record ---------------------------------------------------------------------- */

void
sim_stamp(char out[32])
{
	char iso[32];

	clock_iso(sim.now, iso);
	snprintf(out, 32, "%d+%.8s.%06d", (int)(sim.now / SIM_DAY_US), iso + 11, (int)(sim.now % US_PER_S));
}

/* "0+12:00:00.000000", "1+08:00:00" or "12:00:00" */
int64_t
sim_stamp_parse(struct str s)
{
	static const struct { char end; int64_t unit; } parts[] = {
		{ ':', 3600 * US_PER_S }, { ':', 60 * US_PER_S }, { '.', US_PER_S }, { ' ', 1 },
	};
	struct str part;
	int64_t v, us = 0;

	if (str_chr(s, '+') != SIZE_MAX) {
		(void)str_cut(&s, '+', &part);
		if (str_i64(part, 0, 10000, &v) != OK)
			return -1;
		us = v * SIM_DAY_US;
	}
	for (size_t i = 0; i < ARRAY_LEN(parts) && (s.n || i < 3); i++) {
		(void)str_cut(&s, parts[i].end, &part);
		if (str_i64(part, 0, 999999, &v) != OK)
			return -1;
		us += v * parts[i].unit;
	}
	return us;
}

void
sim_note(const char *fmt, ...)
{
	char at[32];
	va_list ap;

	if (sim.record.max == 0)
		return;
	sim_stamp(at);
	buf_puts(&sim.record, at);
	buf_putc(&sim.record, ' ');
	va_start(ap, fmt);
	buf_vfmt(&sim.record, fmt, ap);
	va_end(ap);
	buf_putc(&sim.record, '\n');
}

void
sim_broken(const char *rule)
{
	sim_note("BROKEN %s", rule);
	if (sim.broken == NULL)
		sim.broken = rule;
}

/* ---- the loop's wait -------------------------------------------------------------------- */

struct ev_poller { bool unused; };

const char *
ev_backend(void)
{
	return "simulated";
}

enum err
ev_poller_new(struct ev_poller **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? OK : ERR_NOMEM;
}

void
ev_poller_free(struct ev_poller *p)
{
	free(p);
}

/* Real descriptors (the control socket) are never ready here. */
enum err
ev_poller_set(struct ev_poller *p, int fd, unsigned old_events, unsigned events)
{
	(void)p, (void)fd, (void)old_events, (void)events;
	return OK;
}

enum err
ev_poller_wait(struct ev_poller *p, int64_t wait_us, struct ev_ready *out, size_t max, size_t *n)
{
	int64_t due = sim.events ? sim.events->at : INT64_MAX, to;

	(void)p, (void)max;
	if (wait_us < 0 || add_i64(sim.now, wait_us, &to))
		to = INT64_MAX;
	if (due < to)
		to = due;
	if (to == INT64_MAX)
		return ERR_TIMEOUT;             /* nothing would ever wake it */
	if (to > sim.now) {
		sim.now = to;
		sim.spins = 0;
	} else if (++sim.spins > SIM_SPINS_MAX) {
		sim_broken("the loop spins: time stands still and it goes on turning");
		return ERR_LIMIT;
	}
	*n = 0;
	if (due <= sim.now) {
		out[0] = (struct ev_ready){ SIM_FD, EV_READ };
		*n = 1;
	}
	return OK;
}
