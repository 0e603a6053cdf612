#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# check.sh - the second command: installs what testing needs and runs every test.
#
# First everything is built (gcc, clang, sanitizers, fuzzers), then the parts run
# in two lanes side by side. A part that prints "…: N passed, N failed, N skipped"
# counts as that, any other as one. The last line is the sum of all, and nothing
# else; the exit status is 1 when something failed or nothing passed.
#
# TORTURE_MAX (points a program), STEP_MAX (deaths of a turn), CRASH_MAX (images a
# day), T (seconds a fuzz target) and LIMIT (seconds a part) can be given; logs are
# in build/log/check/.
set -u
export TORTURE_MAX="${TORTURE_MAX:-30}" STEP_MAX="${STEP_MAX:-240}" CRASH_MAX="${CRASH_MAX:-1500}"
cd "$(dirname "$0")/.." || exit 1
unset FEATURES PORTABLE SAN CFLAGS LDFLAGS CC B V ONLY MAKEFLAGS MFLAGS BLUFIO BLUFIO_CONFIG 2>/dev/null
exec </dev/null

logs=build/log/check
begin=$(date +%s)
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

if ! sh scripts/deps.sh install test; then
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
fi
rm -rf "$logs"
mkdir -p "$logs"

# Sums the lines of counts it reads; nothing for no line.
total() {
	awk '{ p += $(NF - 5); f += $(NF - 3); s += $(NF - 1) }
		END { if (NR) printf "%d passed, %d failed, %d skipped\n", p, f, s }'
}

# step NAME COMMAND...: runs it, logs it, counts it, shows the end of a failure.
step() {
	name=$1
	shift
	from=$(date +%s)
	timeout -k 20 "${LIMIT:-1200}" "$@" >"$logs/$name.log" 2>&1
	rc=$?
	took=$(($(date +%s) - from))
	# The counts that stand at the start of a line; a failure that counted none is one.
	sum=$(grep -E '^[^ ]+: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$logs/$name.log" | total)
	case $rc:$sum in
	0:*' 0 failed,'*) ;;
	0:) sum="1 passed, 0 failed, 0 skipped" ;;
	0:*) rc=1 ;;
	*:*' 0 failed,'*) sum=$(echo "$sum" | sed 's/ 0 failed,/ 1 failed,/') ;;
	*:) sum="0 passed, 1 failed, 0 skipped" ;;
	esac
	echo "$sum" >"$logs/$name.sum"
	if [ $rc -ne 0 ]; then
		echo "---- $name failed (exit $rc), the end of $logs/$name.log:"
		tail -n "${TAIL:-60}" "$logs/$name.log" | sed 's/^/    /'
	fi
	printf '%-14s %s  (%d s)\n' "$name" "$sum" "$took"
}

skip() {
	echo "0 passed, 0 failed, 1 skipped" >"$logs/$1.sum"
	echo "$1: skipped: $2"
}

have() { [ -e "$1" ]; }
m="make --no-print-directory"
san="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"

# ---- build: from nothing, so that every warning is an error again ----------------
rm -rf build/obj build/clang/obj
step build $m -j"$jobs" WERROR=1 all unit-programs
step build-clang $m -j"$jobs" CC=clang WERROR=1 B=build/clang all unit-programs
step build-asan $m -j"$jobs" B=build/asan SAN="$san" CFLAGS="-O1 -g" all unit-programs

# ---- two lanes -------------------------------------------------------------------
lane_one() {
	step unit $m unit
	step e2e $m e2e
	if have tests/kill/campaign.py; then
		step kill $m kill
	else
		skip kill "no campaign"
	fi
	step crash $m crash
	step replay $m replay
	step valgrind $m valgrind
}

lane_two() {
	step lint $m lint
	step audit $m audit
	step clients $m clients
	step budget $m budget
	step matrix $m matrix
	step portable $m portable
	step cross $m cross
	step asan $m asan
	if have scripts/torture.sh; then
		step torture $m torture
	else
		skip torture "no scripts/torture.sh"
	fi
	if sh scripts/deps.sh fuzzer; then
		step fuzz $m -j"$jobs" fuzz T="${T:-5}"
	else
		skip fuzz "this clang has no libFuzzer"
	fi
}

lane_one &
one=$!
lane_two &
two=$!
wait $one
wait $two

echo "$(($(date +%s) - begin)) s in all"
sum=$(cat "$logs"/*.sum | total)
echo "$sum"
case $sum in
'0 passed'* | '') exit 1 ;;
*' 0 failed,'*) exit 0 ;;
esac
exit 1
