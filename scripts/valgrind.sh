#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# valgrind.sh UNIT-PROGRAM... - nothing may be left at exit: no block of any
# kind ("reachable" included) and no descriptor that the program opened.
#
# First the detector is detected: tests/leak/planted leaks on purpose and has to
# be caught, and a clean run of it has to pass. Then every unit program, then
# one scripted day of the daemon (tests/e2e/test_day.py).
# The logs decide, not the exit status: older valgrinds print open descriptors
# without failing, and an exit status of valgrind's own would stand in for the one
# that a test's forked child means to give.
set -u
B=${B:-build}
logs=$B/log/valgrind
command -v valgrind >/dev/null || { echo "valgrind: not installed"; exit 1; }
rm -rf "$logs"
mkdir -p "$logs"
logs=$(cd "$logs" && pwd)
vg="valgrind --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all"
vg="$vg --track-fds=yes --num-callers=20"
[ -f tests/valgrind.supp ] && vg="$vg --suppressions=$PWD/tests/valgrind.supp"
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }

# Does a log speak of an error, or of a descriptor opened here and not inherited? (Its words follow.)
complains() {
	awk '
		/^==[0-9]+== Open (file descriptor|AF_)/ { open = 1; next }
		open && /<inherited from parent>/ { open = 0; next }
		open { bad = 1; open = 0 }
		/^==[0-9]+== ERROR SUMMARY: [1-9]/ { bad = 1 }
		END { exit !bad }' "$1"
}

# run NAME COMMAND...: true when it ended well and its own log (not those of children that
# it forked to die) is clean.
run() {
	dir=$logs/$1
	mkdir -p "$dir"
	shift
	$vg --log-file="$dir/%p.log" "$@" >"$dir/out" 2>&1 </dev/null &
	pid=$!
	wait $pid
	rc=$?
	grep -q 'ERROR SUMMARY' "$dir/$pid.log" 2>/dev/null || return 1
	! complains "$dir/$pid.log" && [ $rc -eq 0 ]
}

planted=$B/tests/leak/planted
[ -x "$planted" ] || { echo "valgrind: no $planted"; exit 1; }
if run planted-none "$planted" none; then ok; else bad "a clean program was called leaky"; fi
for kind in lost reachable descriptor; do
	if run planted-$kind "$planted" $kind; then
		bad "the planted leak ($kind) was not found"
	else
		ok
	fi
done
echo "planted leaks: $passed passed, $failed failed, 0 skipped"

for prog in "$@"; do
	name=$(basename "$prog")
	if MALLOC_PERTURB_=165 run "$name" "$prog"; then
		ok
	else
		bad "$name under valgrind (exit $rc)"
		{ tail -n 40 "$logs/$name/$pid.log"; tail -n 15 "$logs/$name/out"; } | sed 's/^/    /'
	fi
done

day=tests/e2e/test_day.py
if [ -f $day ] && command -v python3 >/dev/null; then
	mkdir -p "$logs/day"
	BLUFIO_WRAP="$vg --log-file=$logs/day/%p.log" E2E_SLOW=${E2E_SLOW:-20} \
	    python3 $day >"$logs/day/out" 2>&1 </dev/null
	rc=$?
	seen=0 dirty=
	for log in "$logs"/day/*.log; do
		[ -f "$log" ] || continue
		seen=$((seen + 1))
		complains "$log" && dirty="$dirty $log"
	done
	if [ $seen -eq 0 ]; then
		bad "$day did not run under valgrind"
	elif [ -n "$dirty" ] || [ $rc -ne 0 ]; then
		bad "$day under valgrind (exit $rc)$dirty"
		for log in $dirty; do tail -n 60 "$log" | sed 's/^/    /'; done
		tail -n 30 "$logs/day/out" | sed 's/^/    /'
	else
		ok
	fi
else
	skipped=$((skipped + 1))
	echo "skip: no $day"
fi
echo "valgrind: $passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
