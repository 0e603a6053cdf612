#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# torture.sh - every failure a test can meet, one at a time.
#
# usage: scripts/torture.sh BIN...
#
# Counts the allocations and system calls of each test binary (tests/fault.h),
# then runs it once for each of them with that call failing, and once with that
# call and all after it failing. A test may fail its checks then; it may not
# crash, hang, or upset a sanitizer. One more run has every read and write
# transfer a single byte: that is legal, so there the test has to pass.
#
# Then the same for the shipped binary ($BLUFIO) over one whole turn, once for
# each call, preloaded with $FAILPOINT_SO: tests/torture/turn.py.
#
#   TORTURE_MAX=n    at most n points of each binary, evenly spread
#   TORTURE_JOBS=n   programs under test at once (4: most of a run is waiting)
#   TORTURE_TIME=s   seconds before a run counts as hung (30)
#   TORTURE_WRAP=c   run under c ("valgrind -q --error-exitcode=99 ...")
#   FAULT_ERRNO, FAULT_KIND   passed on; EINTR runs are never sticky, because
#                    retrying for ever is then the correct behaviour

set -u
max=${TORTURE_MAX:-0}
limit=${TORTURE_TIME:-30}
wrap=${TORTURE_WRAP:-}
modes="0 1"
[ "${FAULT_ERRNO:-}" = EINTR ] && modes="0"
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1}:exitcode=99:allocator_may_return_null=1"
export LSAN_OPTIONS="exitcode=99"
export UBSAN_OPTIONS="halt_on_error=1:exitcode=99"

log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 1' INT TERM

# run "NAME=value ..." BIN [SECONDS]: exit status in $code; a leftover child cannot hold us
# up, because the output goes to a file
run() {
	timeout -k 1 "${3:-$limit}" env $1 $wrap "$2" >"$log" 2>&1 </dev/null
	code=$?
}

# judge BIN WORDS: tells what failed; 99 is a sanitizer's or valgrind's verdict, 124 a
# hang, 126 and 127 no program at all, above 128 a signal
judge() {
	echo "FAIL ($code): $2 $1"
	tail -n 30 "$log" | sed 's/^/    /'
}

# count BIN: without faults and a byte at a time, then a line "point BIN N STICKY" for each to come.
count() {
	bin=$1 n=0 i=0
	run FAULT_VERBOSE=1 "$bin" $((limit * 6))
	calls=$(sed -n 's/^fault: \([0-9]*\) calls$/\1/p' "$log" | tail -n 1)
	calls=${calls:-0}
	if [ "$code" -ne 0 ]; then
		judge "$bin" "without faults"
	elif [ "$calls" -eq 0 ]; then
		echo "FAIL: $bin: nothing to fail (linked without tests/fault.flags?)"
	else
		run FAULT_SHORT=1 "$bin" $((limit * 6))         # a byte at a time takes its time
		[ "$code" -eq 0 ] || judge "$bin" "FAULT_SHORT=1"
		n=$calls
		[ "$max" -gt 0 ] && [ "$n" -gt "$max" ] && n=$max
	fi
	while [ "$i" -lt "$n" ]; do
		for sticky in $modes; do
			echo "point $bin $((1 + i * calls / n)) $sticky"
		done
		i=$((i + 1))
	done
	echo "torture: $bin: $n of $calls points"
}

# point BIN N STICKY
point() {
	run "FAULT_AT=$2 FAULT_STICKY=$3" "$1"
	[ "$code" -lt 99 ] || judge "$1" "FAULT_AT=$2 FAULT_STICKY=$3"
	echo "done $*"
}

case ${TORTURE_PART:-} in
count) count "$@"; exit 0 ;;
point) shift; point "$@"; exit 0 ;;
esac

all=$(mktemp) && ran=$(mktemp) || exit 1
trap 'rm -f "$log" "$all" "$ran"' EXIT
jobs=${TORTURE_JOBS:-4}
printf '%s\n' "$@" | TORTURE_PART=count xargs -n 1 -P "$jobs" sh "$0" >"$all"
grep -v '^point' "$all"
grep '^point' "$all" | TORTURE_PART=point xargs -n 4 -P "$jobs" sh "$0" >"$ran"
grep -v '^done' "$ran"
points=$(sed -n 's/^torture: .*: \([0-9]*\) of [0-9]* points$/\1/p' "$all" | awk '{ n += $1 } END { print n + 0 }')
bad=$(cat "$all" "$ran" | grep -c '^FAIL')
wanted=$(grep -c '^point' "$all") done=$(grep -c '^done' "$ran")
if [ "$done" -ne "$wanted" ] || [ "$(grep -c '^torture: ' "$all")" -ne "$#" ]; then
	bad=$((bad + 1))
	echo "FAIL: $done of $wanted points of $# programs came to their end"
fi
echo "torture: $points points of unit tests, $bad bad"
echo "torture: $((points > bad ? points - bad : 0)) passed, $bad failed, 0 skipped"

turn=0 turn_bad=0
if [ -z "${FAILPOINT_SO:-}" ]; then
	echo "turn.py: not run, FAILPOINT_SO names no library (type \`make torture\`)"
elif ! LD_PRELOAD="$FAILPOINT_SO" "$BLUFIO" version >/dev/null 2>&1; then
	echo "turn.py: 0 passed, 0 failed, 1 skipped"
	echo "(tests/torture/failpoint.c needs glibc and a dynamic binary)"
else
	python3 tests/torture/turn.py >"$log" 2>&1 || turn_bad=1
	cat "$log"
	turn=$(sed -n 's/^turn: \([0-9]*\) points.*/\1/p' "$log")
fi
echo "$((points + ${turn:-0})) points in all"
[ "$points" -gt 0 ] && [ "$bad" -eq 0 ] && [ "$turn_bad" -eq 0 ]
