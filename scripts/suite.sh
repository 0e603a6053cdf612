#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# suite.sh NAME PROGRAM... - runs test programs and sums what they counted.
#
# A test program ends with "file: N passed, N failed, N skipped". One that does
# not, or that fails without saying so, counts as one failure. A .py file runs
# under python3. WRAP is put before each command (valgrind), JOBS of them run
# at a time, each for at most LIMIT seconds. Logs: $B/log/NAME/.
# The last line is the sum; nothing run is a failure.
set -u
B=${B:-build}
LIMIT=${LIMIT:-900}

if [ "$1" = --one ]; then       # one program: log it, print its line or its end
	name=$2 prog=$3
	log=$B/log/$name/$(basename "$prog").log
	case $prog in
	*.py) set -- python3 "$prog" ;;
	*) set -- "$prog" ;;
	esac
	# WRAP is a command with its options: split it into words.
	timeout -k 10 "$LIMIT" ${WRAP:-} "$@" >"$log" 2>&1 </dev/null
	rc=$?
	line=$(grep -E '^[^ ]+: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
	case $line in
	*' 0 failed,'*) bad=$rc ;;
	'') bad=1 line="$(basename "$prog"): 0 passed, 1 failed, 0 skipped" ;;
	*) bad=1 ;;
	esac
	if [ "$bad" -ne 0 ]; then
		# A clean count with a bad exit (a leak, a sanitizer) is one failure more.
		case $line in
		*' 0 failed,'*) line=$(echo "$line" | sed 's/ 0 failed,/ 1 failed,/') ;;
		esac
		echo "---- $name: $prog (exit $rc), the end of $log:"
		tail -n 40 "$log" | sed 's/^/    /'
	fi
	echo "$line" >"$log.sum"
	echo "  $line"
	exit 0
fi

name=$1
shift
rm -rf "$B/log/$name"
mkdir -p "$B/log/$name"
if [ $# -gt 0 ]; then
	printf '%s\n' "$@" | xargs -n 1 -P "${JOBS:-1}" sh "$0" --one "$name"
fi
cat "$B/log/$name"/*.sum 2>/dev/null | awk -v name="$name" '
	{ passed += $(NF - 5); failed += $(NF - 3); skipped += $(NF - 1) }
	END {
		printf "%s: %d passed, %d failed, %d skipped\n", name, passed, failed, skipped
		exit failed > 0 || passed == 0
	}'
