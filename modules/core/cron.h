/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cron.h - when something is to happen: cron lines, single moments, windows of a
 * day, all in the process's time zone.
 */
#ifndef BLUFIO_CRON_H
#define BLUFIO_CRON_H

#include "base/base.h"

#define CRON_NEVER INT64_MAX

struct cron {
	uint64_t minutes;               /* bit n: minute n; the same below */
	uint32_t hours, days, months, weekdays;         /* days and months from 1; Sunday is 0 */
	bool either;                    /* day of the month and day of the week: one is enough */
	bool real;                      /* counts minutes as they pass, not what clocks on the wall show */
	int year;                       /* of a single moment; 0: every year */
};
/* Takes a schedule from the head of text: five fields, @daily and its like, or "2026-12-24 18:00". On ERR_PARSE f says
 * in words what is wrong. */
FALLIBLE cron_take(struct str *text, struct cron *out, struct fail *f);
FALLIBLE cron_parse(struct str text, struct cron *out, struct fail *f);        /* all of it */
/* The first moment after that one, UTC us, or CRON_NEVER. */
int64_t cron_next(const struct cron *c, int64_t after);
/* "22:00-07:00", of each day: that begin it, that end it. */
FALLIBLE cron_window(struct str text, struct cron *from, struct cron *to, struct fail *f);
/* The same for a config_key. */
FALLIBLE cron_check(struct str text, struct fail *f);
FALLIBLE cron_window_check(struct str text, struct fail *f);
/* "09:00", each day. */
FALLIBLE cron_daily(struct str text, struct cron *out, struct fail *f);
void cron_local(int64_t us, char out[32]);      /* "Thu 2026-12-24 18:00" */

/* Is there such a zone: "Europe/Berlin", or a rule in POSIX form? */
FALLIBLE cron_zone_check(struct str name, struct fail *f);
/* From here on local time is that zone's; empty: the system's. Before any thread is started. */
FALLIBLE cron_zone_use(struct str name, struct fail *f);

#endif
