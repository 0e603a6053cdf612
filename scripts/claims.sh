#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# claims.sh - docs/CLAIMS.md has a row for every requirement, and every row names
# a proof that exists: `path/to/test:name`, the name being a word of that file
# (a test function), or "open (topic)". Prints the open ones.
set -u
claims=docs/CLAIMS.md
bad=0

complain() {
	bad=$((bad + 1))
	echo "$claims: $*"
}

ids=$(awk 'BEGIN {
	for (i = 1; i <= 9; i++) print "M" i
	n = split("CORE 8 LLM 8 CHAN 4 PERS 5 MEM 5 SEC 10 COST 6 SKILL 6 PLUG 4 CLI 8 INFRA 6", f, " ")
	for (k = 1; k < n; k += 2)
		for (i = 1; i <= f[k + 1]; i++) printf "%s-%02d\n", f[k], i
}')
proven=0 open='' total=0
for id in $ids; do
	total=$((total + 1))
	rows=$(grep -c "^| $id |" $claims)
	[ "$rows" -eq 1 ] || { complain "$rows rows for $id"; continue; }
	proof=$(grep "^| $id |" $claims | awk -F '|' '{ print $4 }')
	tests=$(echo "$proof" | grep -o '`[^`]*:[^`]*`' | tr -d '`')
	is_open=$(echo "$proof" | grep -c 'open ([a-z, ]*)')
	if [ -z "$tests" ] && [ "$is_open" -eq 0 ]; then
		complain "$id has neither a test nor 'open (topic)'"
	fi
	if [ "$is_open" -gt 0 ]; then open="$open $id"; else proven=$((proven + 1)); fi
done
extra=$(grep -o -E '^\| [A-Z]+-?[0-9]+ \|' $claims | tr -d '| ' | sort | uniq)
for id in $extra; do
	echo "$ids" | grep -q -x "$id" || complain "unknown id $id"
done
# Of every row, those of other tables too.
for t in $(grep '^|' $claims | grep -o '`[a-z0-9_./]*:[^` ]*`' | tr -d '`' | sort -u); do
	file=${t%%:*} name=${t##*:}
	if [ ! -f "$file" ]; then
		complain "$file is named, and does not exist"
	elif ! grep -q -w -e "$name" "$file"; then
		complain "$name is named, and is not in $file"
	fi
done
echo "$total requirements: $proven proven, $(echo "$open" | wc -w) open"
echo "open:$open" | fold -s -w 100
[ $bad -eq 0 ]
