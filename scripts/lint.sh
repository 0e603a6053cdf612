#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# lint.sh - the rules of docs/STYLE.md that a machine can check, on a built tree
# (make lint). Every rule is one function that prints what breaks it; nothing
# printed is a pass. What a small build must not contain is checked by
# `make matrix`, the claims by scripts/claims.sh.
set -u
B=${B:-build}
CC=${CC:-cc}
passed=0 failed=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# Files of the project, built and foreign things left out.
find . \( -name .git -o -name build -o -name __pycache__ -o -name .venv \) -prune -o -type f -print |
    sed 's|^\./||' | grep -v -E '\.(pyc|db|db-wal|db-shm)$' | sort >"$tmp/files"
grep -E '^(blufio\.c$|modules/.*\.[ch]$)' "$tmp/files" >"$tmp/source"
grep -E '\.(c|h|py|sh|js|css|html|mk|yml)$|(^|/)Makefile$|^\.ci/run$' "$tmp/files" >"$tmp/code"
adapters='^modules/(channel|api|provider|storage|embedding|skill|observability|auth|tool)/[^/]*$'   # not its engines

# M2: nothing but the C library's own and the three packages.
needed() {
	readelf -d "$B/blufio" >"$tmp/dynamic" 2>&1 || { echo "no $B/blufio"; return; }
	sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p' "$tmp/dynamic" >"$tmp/needed"
	[ -s "$tmp/needed" ] || echo "no shared library found in $B/blufio"
	grep -v -E '^(lib(c|m|dl|rt|pthread|curl|sqlite3|z)\.so|libc\.musl-|ld-(linux|musl)|linux-vdso)' \
	    "$tmp/needed"
}

# The program cannot be moved in memory or have its tables overwritten.
hardened() {
	readelf -hldW "$B/blufio" >"$tmp/elf" 2>&1
	grep -q 'Type:.*DYN' "$tmp/elf" || echo "not position-independent"
	grep -q 'GNU_RELRO' "$tmp/elf" && grep -q 'BIND_NOW\|FLAGS.*NOW' "$tmp/elf" || echo "no full RELRO"
	grep 'GNU_STACK' "$tmp/elf" | grep -q 'RWE' && echo "executable stack"
}

spdx() {
	while read -r f; do
		head -n 3 "$f" | grep -q 'SPDX-License-Identifier: MIT OR Apache-2.0' || echo "$f"
	done <"$tmp/code"
}

# Every .c says what it is: "name.c - text" (printed by make features and the tour).
first_line() {
	grep '\.c$' "$tmp/source" | while read -r f; do
		head -n 6 "$f" | grep -q "$(basename "$f") - " || echo "$f: no '$(basename "$f") - what it is.'"
	done
}

one_includer() {
	for h in curl/curl.h sqlite3.h zlib.h sys/epoll.h; do
		xargs grep -l -E "^[ 	]*#[ 	]*include[ 	]*[<\"]$h" <"$tmp/source" >"$tmp/who"
		[ "$(wc -l <"$tmp/who")" -le 1 ] || echo "$h: $(tr '\n' ' ' <"$tmp/who")"
		grep '\.h$' "$tmp/who" | sed "s|^|$h is included by a header: |"
	done
}

# base < crypto < core < adapters; nobody includes a layer above or beside.
layers() {
	grep -E '^modules/(base|crypto)/' "$tmp/source" | xargs -r grep -n -E \
	    '#[ 	]*include[ 	]*"(.*/)?(blufio\.h|core/|channel/|provider/|storage/|tool/|api/|auth/)'
	grep -E '^modules/crypto/' "$tmp/source" | xargs -r grep -n -w -E '(malloc|calloc|realloc|fopen|open)\('
	grep -E "$adapters" "$tmp/source" | grep '\.h$' | sed 's/$/: an adapter has no header/'
	grep -E '^modules/(base|crypto|core)/' "$tmp/source" |
	    xargs -r grep -n -E '#[ 	]*include[ 	]*"(\.\./)?(channel|api|provider|storage|embedding|skill|observability|auth|tool)/'
}

headers_alone() {
	grep '\.h$' "$tmp/files" | grep -E '^(modules|tests)/' | while read -r h; do
		printf '#include "%s"\nint lint_nothing;\n' "$PWD/$h" >"$tmp/alone.c"
		$CC -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Werror -Imodules -Itests \
		    -fsyntax-only "$tmp/alone.c" >"$tmp/out" 2>&1 || { echo "$h:"; head -n 5 "$tmp/out"; }
	done
}

# What a file exports is declared for others and carries its name: store_x in store.c; or stands
# in base.h, in the header of that name, or under that file's banner in blufio.h. An adapter
# exports its descriptor and nothing else.
exports() {
	# "owner name" of every function or object declared in a header.
	grep '\.h$' "$tmp/source" | while read -r h; do
		awk -v owner="$(basename "$h" .h)" '
			/^\/\* (---- |[a-z_0-9]+\.c[ :])/ {
				section = match($0, /[a-z_0-9]+\.c/) ? substr($0, RSTART, RLENGTH - 2) : ""
			}
			{
				line = $0
				comment = line
				sub(/^[^\/]*/, "", comment)
				own = match(comment, /[a-z_0-9]+\.c/) ? substr(comment, RSTART, RLENGTH - 2) : ""
				sub(/\/\*.*/, "", line)
				while (match(line, /[a-z_][a-z_0-9]*[[(;]/)) {
					name = substr(line, RSTART, RLENGTH - 1)
					print owner, name
					if (section != "") print section, name
					if (own != "") print own, name
					line = substr(line, RSTART + RLENGTH)
				}
			}' "$h"
	done | sort -u >"$tmp/declared"
	grep '^modules/.*\.c$' "$tmp/source" | while read -r f; do
		o=$B/obj/${f%.c}.o
		[ -f "$o" ] || continue
		stem=$(basename "$f" .c)
		# The sanitizers' and the compiler's own symbols start with an underscore.
		nm -g --defined-only "$o" | awk '$2 != "U" && $3 !~ /^_/ { print $3 }' >"$tmp/exported"
		if echo "$f" | grep -q -E "$adapters"; then
			grep -v -x "${stem}_feature" "$tmp/exported" | sed "s|^|$f exports |"
			grep -q -x "${stem}_feature" "$tmp/exported" || echo "$f does not export ${stem}_feature"
			continue
		fi
		awk -v stem="$stem" -v file="$f" '
			function word(s) { sub(/_.*/, "", s); return s }
			NR == FNR { any[$2] = 1; by[$1 " " $2] = 1; next }
			!($1 in any) { print file " exports " $1 ", which no header declares"; next }
			word($1) != word(stem) && !((stem " " $1) in by) && !(("base " $1) in by) {
				print file " exports " $1 ", which carries another name"
			}' "$tmp/declared" "$tmp/exported"
	done
}

# The last letters are bracketed so that this file does not find itself.
banned_words() {
	xargs grep -n -E '\b(TOD[O]|FIXM[E]|XX[X])\b' <"$tmp/code"
	xargs grep -n -I -E '(^|[^[:alnum:]_.$}])/(wor[k]|roo[t]|far[m])/' <"$tmp/files"
	xargs grep -n -E '(^|[^[:alnum:]_.>])(syste[m]|pope[n])[ ]*\(' <"$tmp/source"
	grep -v '^modules/base/banned\.h$' "$tmp/source" |
	    xargs grep -n -w -i -E 'not (yet )?implemente[d]|unimplemente[d]'
}

# Few places may decide at compile time: guards and _GNU_SOURCE aside, at most 2 in 1,000 lines.
if_density() {
	xargs cat <"$tmp/source" | awk '
		/^[ \t]*#[ \t]*if/ && !/_H(_)?[ \t]*$/ && !/_GNU_SOURCE/ { n++ }
		END { if (NR && n * 1000 > 2 * NR) printf "%d #if in %d lines\n", n, NR }'
}

blanks() {
	xargs grep -n -I -E '[ 	]+$' <"$tmp/code"
}

# Columns with tabs of eight. The style page says 100; this is where nobody can argue any more.
long_lines() {
	while read -r f; do
		expand "$f" | awk -v f="$f" '
			{ gsub(/[\200-\277]/, "") }
			length($0) > 140 && !/^#pragma/ { print f ":" NR ": " length($0) " columns" }'
	done <"$tmp/source"
}

tracked() {
	for f in README.md Makefile blufio.c LICENSE-MIT LICENSE-APACHE CONTRIBUTING.md CODE_OF_CONDUCT.md \
	    SECURITY.md GOVERNANCE.md scripts/start.sh scripts/check.sh .ci/run docs/DESIGN.md docs/TOUR.md \
	    docs/STYLE.md docs/CLAIMS.md docs/CONFIG.md; do
		[ -f "$f" ] || echo "$f is missing"
	done
	for f in scripts/*.sh .ci/run; do sh -n "$f" || echo "$f: syntax"; done
}

rule() {
	"$1" >"$tmp/broken" 2>&1
	if [ -s "$tmp/broken" ]; then
		failed=$((failed + 1))
		echo "not ok $1: $2"
		head -n 30 "$tmp/broken" | sed 's/^/    /'
	else
		passed=$((passed + 1))
		echo "ok $1"
	fi
}

echo "$(wc -l <"$tmp/files") files, $(wc -l <"$tmp/source") of them C sources"
rule needed "a library that is not one of the three (M2)"
rule hardened "how the program is linked"
rule spdx "no licence line in the first three"
rule first_line "a source does not say what it is"
rule one_includer "a foreign header has two includers"
rule layers "a layer reaches up"
rule headers_alone "a header does not compile alone"
rule exports "exported names"
rule banned_words "words that have no place here"
rule if_density "decisions of the preprocessor"
rule blanks "blanks at the end of a line"
rule long_lines "lines longer than 140 columns"
rule tracked "files of the project"
claims() { sh scripts/claims.sh >"$tmp/claims" || cat "$tmp/claims"; }
rule claims "docs/CLAIMS.md"
sed -n '/requirements:/,$p' "$tmp/claims"
echo "lint: $passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
