#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# audit.sh [PROGRAM] - what the program is linked with, against docs/DEPENDENCIES.md: licences,
# oldest versions, functions that are not called, vulnerabilities with a fix.
#
# Licences are read from Debian's copyright files, versions from the program itself or from dpkg.
# What cannot be found out on this system is a line "skipped: ..." and counts as one. First the
# audit is audited: each kind of failure is planted and has to be found.
#
#   AUDIT_DOC=file    another page than docs/DEPENDENCIES.md
#   AUDIT_OPEN=file   lines as debsecan prints them, instead of asking it
set -u
bin=${1:-build/blufio}
doc=${AUDIT_DOC:-docs/DEPENDENCIES.md}
passed=0 failed=0 skipped=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

ok() { passed=$((passed + 1)); echo "ok $*"; }
bad() { failed=$((failed + 1)); echo "not ok $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }

# cell LIBRARY COLUMN: of its row in the page; nothing when it has none.
cell() { awk -F ' *[|] *' -v name="$1" -v n="$2" '$2 == name { print $(n + 1); exit }' "$doc"; }

# The package a file belongs to; with merged /usr the database may know it by its older name.
package_of() {
	command -v dpkg-query >/dev/null || return 1
	{ dpkg-query -S "$1" || dpkg-query -S "${1#/usr}"; } 2>/dev/null | head -n 1 | sed 's/: .*//'
}

# licence_of PACKAGE: of all its files, as its copyright file says.
licence_of() {
	text=/usr/share/doc/${1%%:*}/copyright
	if grep -q '^Files: \*' "$text" 2>/dev/null; then
		awk '/^Files: \*/ { on = 1 } on && /^License:/ { print $2; exit }' "$text"
	elif tr -s ' \n' ' ' <"$text" 2>/dev/null |
	    grep -q 'C library .*GNU Lesser General Public License .*version 2.1 of the License, or .*later'; then
		echo LGPL-2.1+
	fi
}

# version_of LIBRARY PACKAGE: what the program says that it runs with, else what dpkg installed.
version_of() {
	v=$("$bin" version 2>/dev/null </dev/null | sed -n "s/^sqlite:/libsqlite3:/; s/^$1: //p")
	[ -n "$v" ] || v=$(dpkg-query -W -f '${Version}\n' "$2" 2>/dev/null | sed 's/^[0-9]*://; s/-[^-]*$//; s/[+~].*//; s/\.dfsg.*//')
	echo "$v"
}

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

library() {     # library SONAME PATH
	name=${1%%.so*}
	oldest=$(cell "$name" 3)
	[ -n "$oldest" ] || { bad "$1 is linked, but $doc has no row for $name"; return; }
	package=$(package_of "$2")
	licence=$(licence_of "$package") version=$(version_of "$name" "$package")
	echo "$1: ${package:-no package}, version ${version:-unknown}, licence ${licence:-unknown}"
	echo "${package%%:*}" >>"$tmp/packages"
	if [ -z "$licence" ]; then
		skip "$name: its licence is unknown: no package manager that I know"
	elif grep -q -E "^- $(echo "$licence" | sed 's/[.+]/\\&/g')( |\$)" "$doc"; then
		ok "$name: licence $licence"
	else
		bad "$name: licence $licence is not on the list of $doc"
	fi
	if [ "$oldest" = any ]; then
		ok "$name: any version"
	elif [ -z "$version" ]; then
		skip "$name: its version is unknown"
	elif at_least "$oldest" "$version"; then
		ok "$name: version $version, at least $oldest"
	else
		bad "$name: version $version is older than $oldest"
	fi
}

libraries() {
	readelf -d "$bin" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p' >"$tmp/needed"
	[ -s "$tmp/needed" ] || { bad "$bin: no shared library found in it"; return; }
	ldd "$bin" >"$tmp/ldd" 2>/dev/null
	while read -r so; do
		path=$(awk -v so="$so" '$1 == so && $2 == "=>" { print $3 }' "$tmp/ldd")
		library "$so" "$(readlink -f "${path:-/nowhere}")"
	done <"$tmp/needed"
	for name in libcurl libsqlite3 libz; do
		grep -q "^$name\.so" "$tmp/needed" || echo "$name: not linked (nothing of it is called)"
	done
}

# The compiler may have put a checking variant in the place of a name.
banned() {
	names=$({ sed -n 's/^#pragma GCC poison//p' modules/base/banned.h; sed -n 's/^    \([a-z]\)/\1/p' "$doc"; } | tr -s ' \n' '|')
	nm -D --undefined-only "$bin" >"$tmp/nm" 2>&1 || { bad "nm cannot read $bin"; return; }
	found=$(awk '{ print $2 }' "$tmp/nm" | sed 's/@.*//; s/^__\(.*\)_chk$/\1/' | grep -x -E "(${names#|}nothing)" | tr '\n' ' ')
	if [ -z "$found" ]; then
		ok "none of $(echo "$names" | tr '|' '\n' | grep -c .) banned functions"
	else
		bad "banned functions are called: $found"
	fi
}

# A vulnerability that has a fix is a failure; one without is told.
vulnerabilities() {
	suite=$(. /etc/os-release 2>/dev/null; [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}")
	if [ -n "${AUDIT_OPEN:-}" ]; then
		cp "$AUDIT_OPEN" "$tmp/open"
	elif [ -z "$suite" ]; then
		skip "vulnerabilities: this is not Debian"; return
	elif ! command -v debsecan >/dev/null; then
		skip "vulnerabilities: debsecan is not installed"; return
	elif ! timeout 120 debsecan --suite "$suite" >"$tmp/open" 2>"$tmp/why"; then
		skip "vulnerabilities: debsecan has no data: $(tail -n 1 "$tmp/why")"; return
	fi
	sort -u "$tmp/packages" | grep . | while read -r p; do awk -v p="$p" '$2 == p' "$tmp/open"; done >"$tmp/ours"
	grep 'fixed' "$tmp/ours" >"$tmp/fixed"
	grep -v 'fixed' "$tmp/ours" | sed 's/^/without a fix so far: /'
	if [ -s "$tmp/fixed" ]; then
		bad "$(wc -l <"$tmp/fixed") vulnerabilities have a fix that is not installed; next: apt-get upgrade"
		sed 's/^/    /' "$tmp/fixed"
	else
		ok "no vulnerability of $(sort -u "$tmp/packages" | grep -c .) packages that has a fix"
	fi
}

# planted WHAT WORDS NAME=value... [PROGRAM]: the audit has to fail, in these words.
planted() {
	what=$1 words=$2
	shift 2
	if env AUDIT_PLANTED=1 AUDIT_OPEN=/dev/null "$@" >"$tmp/out" 2>&1; then
		bad "planted $what: not found"
	elif grep -q "^not ok $words" "$tmp/out"; then
		ok "planted $what: found"
	else
		bad "planted $what: another failure"
		sed 's/^/    /' "$tmp/out"
	fi
}

plant() {
	me="sh scripts/audit.sh"
	sed '/^- public-domain$/d' "$doc" >"$tmp/licence.md"
	sed 's/^| libcurl | curl | [0-9.]*/| libcurl | curl | 99.0.0/' "$doc" >"$tmp/version.md"
	sed '/^| libsqlite3 /d' "$doc" >"$tmp/row.md"
	echo 'CVE-0000-0001 libcurl4 (remotely exploitable, fixed)' >"$tmp/open.txt"
	printf '#include <string.h>\nint main(int n, char **v) { strcpy(v[0], v[n - 1]); return system(v[0]); }\n' |
	    sed '1i #include <stdlib.h>' >"$tmp/bad.c"
	${CC:-cc} -O1 -fno-builtin -w -o "$tmp/bad" "$tmp/bad.c"
	if [ -n "$(package_of "$(readlink -f "$(ldd "$bin" | awk '/libsqlite3/ { print $3 }')")")" ]; then
		planted "licence" "libsqlite3: licence public-domain is not" AUDIT_DOC="$tmp/licence.md" $me "$bin"
		planted "vulnerability" "1 vulnerabilities have a fix" AUDIT_OPEN="$tmp/open.txt" $me "$bin"
	else
		skip "planted licence, planted vulnerability: no package manager that I know"
	fi
	planted "version" "libcurl: version .* is older than 99" AUDIT_DOC="$tmp/version.md" $me "$bin"
	planted "library" "libsqlite3.so.0 is linked, but" AUDIT_DOC="$tmp/row.md" $me "$bin"
	planted "function" "banned functions are called: \(strcpy system\|system strcpy\)" $me "$tmp/bad"
}

: >"$tmp/packages"
[ -n "${AUDIT_PLANTED:-}" ] || plant
libraries
banned
vulnerabilities
echo "audit: $passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
