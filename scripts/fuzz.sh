#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# fuzz.sh PROGRAM... - each libFuzzer program for T seconds (default 60).
#
# Seeds: tests/fuzz/corpus/NAME of the tree, and the shared conformance seeds
# where they are present. What is found stays in $B/corpus/NAME between runs; a
# crashing input is kept as $B/crash/NAME-*.
set -u
B=${B:-build/fuzz}
T=${T:-60}
data=${CONFORMANCE:-../shared/conformance}/fuzz
passed=0 failed=0

# The shared seeds are lines {"id": …, "hex": …}: one file each.
seeds() {
	[ -f "$1" ] && command -v python3 >/dev/null || return 0
	python3 - "$1" "$2" <<'PY'
import json, sys
for i, line in enumerate(open(sys.argv[1])):
    with open(f"{sys.argv[2]}/seed-{i}", "wb") as f:
        f.write(bytes.fromhex(json.loads(line)["hex"]))
PY
}

mkdir -p "$B/crash" "$B/log"
for prog in "$@"; do
	name=$(basename "$prog" | sed 's/^fuzz_//')
	corpus=$B/corpus/$name
	if [ ! -d "$corpus" ]; then
		mkdir -p "$corpus"
		case $name in
		http*) seeds "$data/seeds-httpreq.jsonl" "$corpus" ;;
		ws*) seeds "$data/seeds-websocketserver.jsonl" "$corpus" ;;
		*) seeds "$data/seeds-$name.jsonl" "$corpus" ;;
		esac
	fi
	set -- -max_total_time="$T" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	    -artifact_prefix="$B/crash/$name-" "$corpus"
	[ -d "tests/fuzz/corpus/$name" ] && set -- "$@" "tests/fuzz/corpus/$name"
	[ -f "$data/dictionaries/$name.dict" ] && set -- "-dict=$data/dictionaries/$name.dict" "$@"
	log=$B/log/fuzz-$name.log
	if "$prog" "$@" >"$log" 2>&1 </dev/null; then
		passed=$((passed + 1))
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
		echo "  fuzz_$name: ${runs:-?} inputs in $T s"
	else
		failed=$((failed + 1))
		echo "---- fuzz_$name failed, the end of $log:"
		tail -n 40 "$log" | sed 's/^/    /'
	fi
done
echo "fuzz: $passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
