#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# coverage.sh - lines run and branches taken, per file, over unit and e2e tests (make coverage).
#
# Built apart with gcc's counters; processes that are killed on purpose write none, so the true figures are a
# little higher. UNCOVERED=file.c prints, after a run, the branches of that file that
# were never taken, with their lines. docs/TOUR.md says what is left in core/ and why.
set -u
B=${B:-build}
command -v gcov >/dev/null || { echo "skipped: coverage: gcov is not installed"; exit 0; }

# Branches that were never taken, from the counts of the last run.
if [ -n "${UNCOVERED:-}" ]; then
	o=$(find "$B/cov/obj" -name "${UNCOVERED%.c}.gcno" 2>/dev/null | head -n 1)
	[ -n "$o" ] || { echo "coverage: no counts for $UNCOVERED yet; type: make coverage"; exit 1; }
	gcov -t -b -c -o "$o" "$o" 2>/dev/null | awk '
		/^ *[0-9#=-]+\*?: *[0-9]+:/ { line = $0 }
		/^branch .*taken 0/ || /^branch .*never/ { if (line != last) print line; last = line }'
	exit 0
fi

find "$B/cov" -name '*.gcda' -delete 2>/dev/null
# A process that may not write its counts (the tests run some as nobody) must not say so among its words.
GCOV_ERROR_FILE=/dev/null E2E_MEMORY=0 E2E_SLOW=2 ${MAKE:-make} -k --no-print-directory B="$B/cov" SAN=--coverage \
    CFLAGS='-O0 -g' BLUFIO="$PWD/$B/cov/blufio" check >"$B/coverage.log" 2>&1 ||
    echo "some tests failed: the end of $B/coverage.log says which"

# "File 'x'", "Lines executed:p% of n", "Branches executed…", "Taken at least once:p% of n"
find "$B/cov/obj/modules" "$B/cov/obj/blufio.gcno" -name '*.gcno' | while read -r f; do
	gcov -b -n -o "$f" "$f" 2>/dev/null
done | awk -F "[:%]" '
	/^File / { split($0, q, "\047"); file = q[2] }
	/^Lines executed/ { lines[file] = $2; split($3, n, " of "); of[file] = n[2] }
	/^Taken at least once/ { taken[file] = $2; split($3, n, " of "); branches[file] = n[2] }
	END {
		for (f in lines) {
			if (f !~ /^(modules\/.*|blufio)\.c$/) continue
			printf "%-34s %6.1f %% of %5d lines   %6.1f %% of %5d branches\n", f, lines[f], of[f], taken[f], branches[f]
			l += lines[f] * of[f]; ln += of[f]; b += taken[f] * branches[f]; bn += branches[f]
		}
		if (ln && bn) printf "%-34s %6.1f %% of %5d lines   %6.1f %% of %5d branches\n", "~ all", l / ln, ln, b / bn, bn
	}' | sort
