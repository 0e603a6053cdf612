#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# deps.sh check build|test   - is everything there? If not: what, and the command that installs it.
# deps.sh install build|test - installs it with apt-get when that is possible, else says the command.
# deps.sh install cross|audit|clients - the same for what is good to have: where it cannot be had, a line says so.
#
# build: a compiler, make, the headers of libcurl, sqlite3 and zlib.
# test:  these, and clang, valgrind, python3, binutils; fuzzing needs clang's runtime.
# cross: compilers for musl, i386, arm64 and s390x, and an emulator; audit: debsecan.
# clients: programs of others that speak to the gateway, in $B/clients (make clients).
set -u
CC=${CC:-cc}

has() { command -v "$1" >/dev/null 2>&1; }
header() { echo "#include <$1>" | $CC -E - >/dev/null 2>&1; }

# The names of what is missing, in our own words.
missing() {
	if has "${CC%% *}"; then
		header stdio.h || echo libc
		header curl/curl.h || echo curl
		header sqlite3.h || echo sqlite
		header zlib.h || echo zlib
	else
		printf '%s\n' cc libc curl sqlite zlib
	fi
	has make || echo make
	[ "$1" = test ] || return 0
	has clang || echo clang
	has valgrind || echo valgrind
	has python3 || echo python
	has readelf && has nm || echo binutils
}

# What a package manager calls it: package MANAGER NAME.
package() {
	case $1:$2 in
	apt:cc | dnf:cc | apk:cc | pacman:cc) echo gcc ;;
	apt:libc) echo libc6-dev ;;
	dnf:libc) echo glibc-devel ;;
	apk:libc) echo musl-dev linux-headers ;;
	pacman:libc) echo glibc ;;
	apt:curl) echo libcurl4-openssl-dev ;;
	dnf:curl) echo libcurl-devel ;;
	apk:curl) echo curl-dev ;;
	apt:sqlite) echo libsqlite3-dev ;;
	dnf:sqlite) echo sqlite-devel ;;
	apk:sqlite) echo sqlite-dev ;;
	apt:zlib) echo zlib1g-dev ;;
	dnf:zlib) echo zlib-devel ;;
	apk:zlib) echo zlib-dev ;;
	dnf:clang) echo clang compiler-rt ;;
	apk:clang) echo clang compiler-rt ;;
	apt:python | dnf:python | apk:python) echo python3 ;;
	*) echo "$2" ;;
	esac
}

packages() {
	manager=$1
	shift
	for name in "$@"; do package "$manager" "$name"; done | tr '\n' ' ' | sed 's/ $//'
}

# How to become root, if at all.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif has sudo && sudo -n true 2>/dev/null; then
		sudo -n "$@"
	else
		return 1
	fi
}

tell() {
	become=
	[ "$(id -u)" = 0 ] || become='sudo '
	echo "missing: $*"
	# One line where the system is known, all of them where it is not.
	if has apt-get; then
		echo "  ${become}apt-get install -y $(packages apt "$@")"
	elif has dnf; then
		echo "  ${become}dnf install -y $(packages dnf "$@")"
	elif has apk; then
		echo "  ${become}apk add $(packages apk "$@")"
	elif has pacman; then
		echo "  ${become}pacman -S --needed $(packages pacman "$@")"
	else
		echo "  Debian, Ubuntu:  apt-get install -y $(packages apt "$@")"
		echo "  Fedora:          dnf install -y $(packages dnf "$@")"
		echo "  Alpine:          apk add $(packages apk "$@")"
		echo "  Arch:            pacman -S --needed $(packages pacman "$@")"
	fi
	has "${CC%% *}" || [ "$CC" = cc ] || echo "  (there is no compiler called $CC)"
}

check() {
	lacking=$(missing "$1" | tr '\n' ' ')
	[ -z "$lacking" ] && return 0
	# Words on purpose: one argument a name.
	tell $lacking
	return 1
}

apt_install() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" \
	    </dev/null
}

install() {
	lacking=$(missing "$1" | tr '\n' ' ')
	# TLS needs the certificates of the authorities; a bare system has none.
	[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] ||
	    ! has apt-get || lacking="$lacking ca-certificates"
	if [ -n "$lacking" ]; then
		if ! has apt-get || ! as_root true; then
			tell $lacking
			return 1
		fi
		echo "installing:" $lacking
		as_root apt-get update -q </dev/null
		apt_install $(packages apt $lacking) || { tell $lacking; return 1; }
		check "$1" || return 1
	fi
	# Fuzzing's runtime has a package of its own, and may well be absent.
	if [ "$1" = test ] && has apt-get && ! fuzzer; then
		major=$(clang -dumpversion | cut -d . -f 1)
		apt_install "libclang-rt-$major-dev" >/dev/null 2>&1 || true
	fi
	# What the client of docs/API.md signs with.
	if [ "$1" = test ] && has apt-get && ! /usr/bin/python3 -c 'import cryptography' 2>/dev/null; then
		apt_install python3-cryptography >/dev/null 2>&1 || true
	fi
	# The readers of GET /metrics. promtool is used where it is: its package would start a server here.
	if [ "$1" = test ] && has apt-get && ! /usr/bin/python3 -c 'import prometheus_client' 2>/dev/null; then
		apt_install python3-prometheus-client >/dev/null 2>&1 || true
	fi
	return 0
}

# optional COMMAND:PACKAGE...: each package by itself, because one may well be absent.
optional() {
	want=
	for pair in "$@"; do has "${pair%%:*}" || want="$want ${pair#*:}"; done
	[ -n "$want" ] || return 0
	if has apt-get && as_root true; then
		as_root apt-get update -q </dev/null >/dev/null 2>&1
		for p in $want; do apt_install "$p" >/dev/null 2>&1 || echo "not installable: $p"; done
	else
		echo "good to have, on Debian:  apt-get install -y$want"
	fi
}

# Python's packages into an environment of their own; Debian's of Prometheus and of node's ws are unpacked, not
# installed: the one would start a server, the other wants all of npm.
clients() {
	into=${B:-build}/clients
	mkdir -p "$into"
	optional curl:curl node:nodejs
	python3 -c 'import ensurepip' 2>/dev/null || optional ensurepip:python3-venv
	[ -x "$into/python/bin/pip" ] || python3 -m venv "$into/python" || echo "not installable: a Python environment"
	for p in websockets==15.0.1 websocket-client==1.9.0 kosoku==0.1.0 openai==3.57.0; do
		[ -e "$into/$p" ] && continue
		if "$into/python/bin/pip" install -q --disable-pip-version-check "$p" >/dev/null 2>&1; then
			touch "$into/$p"
		else
			echo "not installable: $p"
		fi
	done
	# the newest that Debian's node runs
	[ -e "$into/node-openai" ] ||
	    (has npm && npm install --silent --no-audit --no-fund --prefix "$into/openai" openai@6.49.0 && touch "$into/node-openai") \
	    >/dev/null 2>&1 || echo "not installable: npm's openai"
	[ -e "$into/prometheus" ] && [ -e "$into/node-ws" ] || as_root apt-get update -q </dev/null >/dev/null 2>&1
	for p in prometheus node-ws; do
		[ -e "$into/$p" ] ||
		    (cd "$into" && apt-get download -q "$p" && dpkg -x "$p"_*.deb . && rm "$p"_*.deb && touch "$p") >/dev/null 2>&1 ||
		    echo "not installable: $p"
	done
}

# Can clang link a fuzz target?
fuzzer() {
	tmp=$(mktemp -d) || return 1
	printf 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n);\n%s\n' \
	    'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return !p && n; }' >"$tmp/f.c"
	clang -fsanitize=fuzzer,address "$tmp/f.c" -o "$tmp/f" >/dev/null 2>&1
	rc=$?
	rm -rf "$tmp"
	return $rc
}

case ${1:-}:${2:-} in
check:build | check:test) check "$2" ;;
install:build | install:test) install "$2" ;;
install:cross)
	optional musl-gcc:musl-tools i686-linux-gnu-gcc:gcc-i686-linux-gnu \
	    aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu s390x-linux-gnu-gcc:gcc-s390x-linux-gnu \
	    qemu-s390x:qemu-user
	;;
install:audit) optional debsecan:debsecan ;;
install:clients) clients ;;
fuzzer:) fuzzer ;;
*) echo "usage: deps.sh check|install build|test | install cross|audit|clients | fuzzer"; exit 2 ;;
esac
