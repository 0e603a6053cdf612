#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# budget.sh - physical lines a ring against the goals of docs/DESIGN.md.
#
# They guide cutting and are never a reason to compress code or drop a check:
# being over a goal is printed, not failed. Counting nothing is a failure.
set -u

count() { [ $# -gt 0 ] && cat "$@" | wc -l || echo 0; }
exist() { for f in "$@"; do [ -f "$f" ] && echo "$f"; done; }

show() {        # show WHAT GOAL LINES
	mark=
	[ "$3" -gt "$2" ] && mark="over by $(($3 - $2))"
	printf '%-44s %7d of %6d  %s\n' "$1" "$3" "$2" "$mark"
}

headers=$(exist modules/*.h modules/base/*.h modules/core/*.h modules/crypto/*.h)
afternoon=$headers
for name in ev ev_epoll config agent session turn context llm router bus store; do
	afternoon="$afternoon $(exist modules/base/$name.c modules/core/$name.c modules/core/${name}_*.c)"
done
afternoon="$afternoon $(exist blufio.c modules/channel/telegram.c modules/channel/gateway.c \
    modules/provider/anthropic.c)"

# What FEATURES="telegram gateway" compiles: as the Makefile sees it.
set=
for f in telegram gateway; do [ -f modules/channel/$f.c ] && set="$set $f"; done
build=$(${MAKE:-make} -s --no-print-directory B=build/budget FEATURES="$set" print-sources 2>/dev/null)
whole=$(exist blufio.c modules/*.h modules/*/*.[ch])
tests=$(find tests -name '*.[ch]' -o -name '*.py' -o -name '*.sh' | sort)

show "afternoon list (docs/TOUR.md)" 8500 "$(count $afternoon)"
show "FEATURES=\"telegram gateway\", with headers" 15000 "$(count $build $headers)"
show "whole tree without tests" 24000 "$(count $whole)"
echo
for ring in base crypto core channel api provider storage embedding skill observability auth tool; do
	lines=$(count $(exist modules/$ring/*.[ch]))
	[ "$lines" -gt 0 ] && printf '%-44s %7d\n' "  modules/$ring" "$lines"
done
printf '%-44s %7d\n' "  tests" "$(count $tests)"
echo
for f in $(exist modules/channel/*.c modules/api/*.c modules/provider/*.c modules/storage/*.c \
    modules/embedding/*.c modules/skill/*.c modules/observability/*.c modules/auth/*.c \
    modules/tool/*.c); do
	n=$(count "$f")
	[ "$n" -gt 500 ] && show "  $f" 500 "$n"
	[ "$n" -gt 750 ] && echo "    an adapter of more than 750 lines is no ten-minute file"
done
n=$(count $whole)
echo "budget: $(echo $whole | wc -w) files, $n lines"
[ "$n" -gt 0 ]
