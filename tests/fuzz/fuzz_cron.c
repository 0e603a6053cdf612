/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_cron.c - any text is a schedule or refused in words, in any zone and at any time; what it names next is later, a
 * moment of it, and the same for whoever asks in between.
 */
#include "core/cron.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const zones[] = { "UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "AEST-10AEDT,M10.1.0,M4.1.0/3",
	    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0" };
	struct fail f = FAIL_INIT;
	struct cron c, from, to;
	struct str text;
	int64_t after, next;

	if (size < 9)
		return 0;
	if (setenv("TZ", zones[data[0] % ARRAY_LEN(zones)], 1) != 0)
		abort();
	tzset();
	memcpy(&after, data + 1, sizeof(after));
	if (data[0] & 64)               /* of our times */
		after = (after & 0x7FFFFFFFFFFFF) % (100LL * 365 * 86400 * US_PER_S);
	text = str_make((const char *)data + 9, size - 9);
	(void)(cron_zone_check(text, &f) == OK);
	fail_clear(&f);
	(void)(cron_window(text, &from, &to, &f) == OK);
	fail_clear(&f);
	if (cron_take(&text, &c, &f) != OK) {
		assert(f.text[0]);
		return 0;
	}
	next = cron_next(&c, after);
	assert(next > after || next == CRON_NEVER);
	if (next == CRON_NEVER)
		return 0;
	assert(c.minutes && c.hours && next % (60 * US_PER_S) == 0);
	assert(cron_next(&c, next - 1) == next);
	if (after > 0)
		assert(cron_next(&c, after + (next - after) / 2) == next);
	return 0;
}
