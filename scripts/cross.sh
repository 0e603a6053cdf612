#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# cross.sh [TARGET...] - the program for other machines: built with every warning an error, and tried.
#
#   musl    another C library, on this machine
#   i386    32 bits, little endian, floats of x87
#   arm64   64 bits, under qemu-user
#   s390x   64 bits, big endian, under qemu-user
#
# The libraries of a foreign machine are Debian's packages for it, fetched with an
# apt state of their own and unpacked to $B/cross/TARGET/sysroot: the packages of
# this machine stay as they are, and nobody needs to be root. Nothing of Debian is
# built for musl: there the test programs run that need neither libcurl nor SQLite.
#
# What cannot be had is a line "skipped: ..." and counts as one. LIMIT is seconds a test program.
set -u
B=${B:-build}
MAKE=${MAKE:-make}
here=$(pwd)
passed=0 failed=0 skipped=0
units=$(for f in tests/unit/test_*.c; do basename "$f" .c; done)

ok() { passed=$((passed + 1)); echo "ok $*"; }
bad() { failed=$((failed + 1)); echo "not ok $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }

# suite WHAT NAME PROGRAM...: runs them and adds what they counted.
suite() {
	what=$1
	shift
	B=$dir JOBS=2 LIMIT=${LIMIT:-200} sh scripts/suite.sh "$@" >"$dir/suite.log" 2>&1
	sed 's/^/    /' "$dir/suite.log"
	set -- $(tail -n 1 "$dir/suite.log" | grep -E ': [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$')
	[ $# -eq 7 ] || { bad "$what: its tests did not run"; return; }
	passed=$((passed + $2)) failed=$((failed + $4)) skipped=$((skipped + $6))
}

# sysroot ARCH: the three libraries and libc for it, in $dir/sysroot.
sysroot() {
	root=$here/$dir/sysroot apt=$here/$dir/apt
	[ -f "$root.ok" ] && return 0
	command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
	rm -rf "$root" "$apt"
	mkdir -p "$root" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/log" && : >"$apt/status"
	set -- -q -o APT::Architecture="$1" -o APT::Architectures="$1" -o Dir::State="$apt" \
	    -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" -o Dir::Log="$apt/log" \
	    -o APT::Sandbox::User= -o Debug::NoLocking=1 -o Acquire::Languages=none
	# A source without this architecture makes the update fail, not the packages.
	{
		apt-get "$@" update
		apt-get "$@" install --download-only --yes --no-install-recommends \
		    libc6-dev libcurl4-openssl-dev libsqlite3-dev zlib1g-dev
	} >"$dir/apt.log" 2>&1 </dev/null || return 1
	for deb in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$root" || return 1; done
	# Links from / mean the sysroot's /.
	find "$root" -type l -lname '/*' -exec sh -c 'for l; do ln -sfn "$0$(readlink "$l")" "$l"; done' "$root" {} +
	rm -rf "$apt"
	touch "$root.ok"
}

# build ARGUMENT...: make in $dir; the first lines that went wrong otherwise.
build() {
	$MAKE -s -O -j2 --no-print-directory B="$dir" WERROR=1 "$@" >"$dir/make.log" 2>&1 </dev/null && return 0
	grep -E -A 3 'error|undefined reference|\*\*\*' "$dir/make.log" | head -n 40 | sed 's/^/    /'
	return 1
}

# foreign ARCH TRIPLET EMULATOR E2E-TESTS
foreign() {
	arch=$1 dir=$B/cross/$1
	set -- "$1" "$2-gcc" "$3" "$(echo "$2" | sed 's/^i686/i386/')" "$4"
	mkdir -p "$dir"
	command -v "$2" >/dev/null || { skip "$arch: there is no $2"; return; }
	sysroot "$arch" || { skip "$arch: its libraries cannot be fetched (see $dir/apt.log)"; return; }
	root=$here/$dir/sysroot run="$3 -L $root" left_out=
	lib=$root/usr/lib/$4
	# The compiler may have a C library of its own for this machine: ours comes first.
	if build CFLAGS=-O2 CC="$2 --sysroot=$root -B$lib -isystem $root/usr/include/$4 -isystem $root/usr/include" \
	    LDFLAGS="-L$lib -L$root/lib/$4" "$dir/blufio" unit-programs; then
		ok "$arch: blufio and $(echo $units | wc -w) test programs"
	else
		bad "$arch: does not build"
		return
	fi
	if [ "$arch:$(uname -m)" = i386:x86_64 ]; then
		run="$root/lib/$4/ld-linux.so.2 --library-path $root/lib/$4:$lib"
	elif ! command -v "$3" >/dev/null; then
		skip "$arch: there is no $3 to try it with"
		return
	else
		left_out=" surroundings_are_clean "
		echo "$arch: without$left_out(RLIMIT_AS does nothing under $3)"
	fi
	# Is it what it is called, and does it start?
	if ! $run "$dir/blufio" version >"$dir/version" 2>&1; then
		bad "$arch: blufio version"
		sed 's/^/    /' "$dir/version"
		return
	fi
	WRAP=$run TEST_SKIP=$left_out suite "$arch" unit $(for u in $units; do echo "$dir/tests/unit/$u"; done)
	BLUFIO=$here/$dir/blufio BLUFIO_WRAP=$run E2E_SLOW=${E2E_SLOW:-6} suite "$arch" e2e $(for t in $5; do echo "tests/e2e/test_$t.py"; done)
}

musl() {
	dir=$B/cross/musl
	mkdir -p "$dir/include"
	command -v musl-gcc >/dev/null || { skip "musl: there is no musl-gcc"; return; }
	# The three headers without glibc's, which lie in the same folder.
	for h in curl sqlite3.h zlib.h zconf.h; do
		at=$(printf '#include <%s>\n' "$h" | sed 's|<curl>|<curl/curl.h>|' | cc -M -x c - 2>/dev/null |
		    tr ' ' '\n' | grep -E "/$h(/curl\.h)?\$" | head -n 1)
		ln -sfn "${at%/curl.h}" "$dir/include/$h"
	done
	objects=$(for u in $units; do echo "$dir/obj/tests/unit/$u.o"; done)
	# musl's own FD_SET and CMSG_NXTHDR mix signs.
	set -- CC="musl-gcc -isystem $here/$dir/include" CFLAGS="-O2 -Wno-sign-conversion" LIBS=-lm
	if build "$@" "$dir/obj/blufio.o" "$dir/libblufio.a" $objects; then
		ok "musl: every source compiles"
	else
		bad "musl: does not compile"
		return
	fi
	build -k "$@" unit-programs >/dev/null
	strange=$(grep -o 'undefined reference to .[a-zA-Z_].*' "$dir/make.log" | sed "s/.* .//; s/'.*//" |
	    grep -v -E '^(curl_|sqlite3_|deflate|inflate)' | sort -u | tr '\n' ' ')
	[ -z "$strange" ] || bad "musl: does not link: $strange"
	there=
	for u in $units; do
		if [ -x "$dir/tests/unit/$u" ]; then
			there="$there $dir/tests/unit/$u"
		else
			skip "musl: $u wants libcurl, SQLite or zlib, which nobody built for musl here"
		fi
	done
	suite musl unit $there
}

sh scripts/deps.sh install cross
for target in ${*:-musl i386 arm64 s390x}; do
	case $target in
	musl) musl ;;
	i386) foreign i386 i686-linux-gnu qemu-i386 "day answers" ;;
	arm64) foreign arm64 aarch64-linux-gnu qemu-aarch64 day ;;
	s390x) foreign s390x s390x-linux-gnu qemu-s390x "day answers" ;;
	*) bad "no target is called $target" ;;
	esac
done
echo "cross: $passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
