#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# limit.sh MEGABYTES COMMAND... - runs a command in a memory control group of its
# own, children and page cache included, without swap. The kernel ends what does
# not fit. limit.sh MEGABYTES alone says whether that is possible here (exit 0).
#
# As a prefix of the daemon in the end-to-end tests: BLUFIO_WRAP="sh scripts/limit.sh 32"
set -u
bytes=$(($1 * 1048576))
shift

if [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
	root=/sys/fs/cgroup/memory max=memory.limit_in_bytes
elif grep -q memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
	root=/sys/fs/cgroup max=memory.max
else
	echo "limit.sh: no memory control groups that can be used here" >&2
	exit 77
fi
# those of earlier commands, as far as they are empty
for old in "$root"/blufio-limit-*; do [ -d "$old" ] && rmdir "$old" 2>/dev/null; done
group=$root/blufio-limit-$$
if ! mkdir "$group" 2>/dev/null || ! echo $bytes >"$group/$max"; then
	rmdir "$group" 2>/dev/null
	echo "limit.sh: not permitted to make a memory control group" >&2
	exit 77
fi
[ -f "$group/memory.swap.max" ] && echo 0 >"$group/memory.swap.max"
[ -f "$group/memory.swappiness" ] && echo 0 >"$group/memory.swappiness"
if [ $# -eq 0 ]; then
	rmdir "$group"
	exit 0
fi
echo $$ >"$group/cgroup.procs" || exit 77
exec "$@"
