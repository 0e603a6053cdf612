/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * router.c - how long the classifier takes: over each message of FILE (tests/data/messages.tsv, as it stands there),
 * and over one of a megabyte. Prints nanoseconds a message: mean, slowest, megabyte.
 */
#include "core/router.h"

#include <time.h>

#define ROUNDS 20

static int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The best of some rounds: what else the machine does is not of interest here. */
static int64_t
time_of(struct str text)
{
	struct router_message m = { .text = text };
	struct router_verdict v;
	int64_t best = INT64_MAX;

	for (int i = 0; i < ROUNDS; i++) {
		int64_t begin = now_ns(), took;

		router_classify(&m, &v);
		took = now_ns() - begin;
		best = took < best ? took : best;
	}
	return best;
}

int
main(int argc, char **argv)
{
	static char text[1 << 20];
	FILE *f = argc == 2 ? fopen(argv[1], "r") : NULL;
	struct str rest, line;
	int64_t sum = 0, slowest = 0;
	size_t n = 0;

	if (f == NULL)
		return 1;
	rest = str_make(text, fread(text, 1, sizeof(text), f));
	fclose(f);
	while (rest.n) {
		str_cut(&rest, '\n', &line);
		if (line.n && line.p[0] != '#') {
			int64_t took = time_of(str_sub(line, str_find(line, S("\t-\t")) == SIZE_MAX ? 0 :
			    str_find(line, S("\t-\t")) + 3, line.n));

			sum += took;
			slowest = took > slowest ? took : slowest;
			n++;
		}
	}
	if (n == 0)
		return 1;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = "the quick brown fox "[i % 20];
	printf("%lld %lld %lld\n", (long long)(sum / (int64_t)n), (long long)slowest, (long long)time_of(str_make(text, sizeof(text))));
	return 0;
}
