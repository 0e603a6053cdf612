#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# features.sh list FILE... - the adapters with their first comment line; '*' marks the set (SET).
# features.sh matrix       - links every kind of set of the adapters KNOWN, and looks that nothing of
#                            what was left out is inside; objects are compiled once for all.
set -u
MAKE=${MAKE:-make}
B=${B:-build/matrix}
KNOWN=${KNOWN:-}

list() {
	for f in "$@"; do
		name=$(basename "$f" .c)
		mark=' '
		case " ${SET:-} " in *" $name "*) mark='*' ;; esac
		text=$(sed -n "s|^[ /]*\* *$name\.c - ||p" "$f" | head -n 1)
		printf '%s %-12s %-14s %s\n' "$mark" "$name" "$(basename "$(dirname "$f")")" "$text"
	done
	echo "$# adapters"
	[ $# -gt 0 ]
}

passed=0 failed=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }

# links NAME ARGUMENT...: the set builds, and the program runs.
links() {
	what=$1
	shift
	if $MAKE -s --no-print-directory B="$B" "$@" "$B/blufio" >"$B.log" 2>&1 &&
	    "$B/blufio" version >>"$B.log" 2>&1 </dev/null; then
		ok
	else
		bad "$what"
		tail -n 15 "$B.log" | sed 's/^/    /'
		return 1
	fi
}

# Symbols (static ones too) and texts of an object, with those of nothing else in it.
symbols() { nm --defined-only "$@" 2>/dev/null | awk 'NF >= 3 { print $3 }' | sed 's/\.[0-9]*$//' | sort -u; }
texts() {
	for o in "$@"; do strip -g -o "$B.stripped" "$o" && strings -n 8 "$B.stripped"; done | sort -u
	rm -f "$B.stripped"
}

# lacks NAME: nothing of an adapter that is not in the set is left in the program just linked.
lacks() {
	linked=$(tr '\n' ' ' <"$B/blufio.list")
	symbols $linked >"$B.has" && symbols "$B/blufio" >"$B.in"
	texts $linked >"$B.has-text" && texts "$B/blufio" >"$B.in-text"
	left=
	for o in "$B"/obj/modules/*/*.o; do
		case $o in */base/* | */core/* | */crypto/*) continue ;; esac
		case " $linked " in *" $o "*) continue ;; esac
		left="$left $(symbols "$o" | comm -23 - "$B.has" | comm -12 - "$B.in")"
		left="$left $(texts "$o" | comm -23 - "$B.has-text" | comm -12 - "$B.in-text")"
	done
	left=$(echo $left)
	if [ -z "$left" ]; then ok; else bad "the set '$1' contains of what was left out: $left"; fi
	rm -f "$B".has* "$B".in*
}

# posix_alone: nothing that only Linux has is asked of the C library by what was just linked.
posix_alone() {
	only='epoll_|eventfd|signalfd|timerfd_|inotify_|prctl|pipe2|accept4|getrandom|memfd_|pidfd_|clone|unshare'
	nm -D --undefined-only "$B/blufio" >"$B.wants" || { bad "nm $B/blufio"; return; }
	left=$(awk '{ print $2 }' "$B.wants" | sed 's/@.*//' | grep -E "^($only|syscall$|setns$|sendfile)" | tr '\n' ' ')
	if [ -z "$left" ]; then ok; else bad "the POSIX bodies use what only Linux has: $left"; fi
	rm -f "$B.wants"
}

matrix() {
	mkdir -p "$(dirname "$B")"
	links "the standard set"
	links "no feature named" FEATURES=
	for f in $KNOWN; do
		links "$f alone" FEATURES="$f" && lacks "$f"
		links "the standard set without $f" FEATURES="-$f"
	done
	links "POSIX bodies alone" PORTABLE=1 && posix_alone
	# A misspelt name stops before anything is compiled, and names the known ones.
	rm -rf "$B.typo"
	if $MAKE -s --no-print-directory B="$B.typo" FEATURES=telegrm all >"$B.log" 2>&1; then
		bad "a misspelt feature was accepted"
	elif ! grep -q 'unknown feature: telegrm (known: .*telegram' "$B.log"; then
		bad "a misspelt feature is not explained"
		tail -n 5 "$B.log" | sed 's/^/    /'
	elif [ -d "$B.typo" ]; then
		bad "something was built for a misspelt feature"
	else
		ok
	fi
	echo "matrix: $passed passed, $failed failed, 0 skipped"
	[ $failed -eq 0 ] && [ $passed -gt 0 ]
}

case ${1:-} in
list) shift; list "$@" ;;
matrix) matrix ;;
*) echo "usage: features.sh list FILE... | matrix"; exit 2 ;;
esac
