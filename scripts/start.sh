#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# start.sh - the first command: installs what the build lacks, builds, runs.
#
# With a configuration (a file, or a key and a token in the environment) it
# runs the daemon; without one it opens a chat in this terminal with the
# offline provider, which needs no key. It asks nothing.
set -u
cd "$(dirname "$0")/.." || exit 1

sh scripts/deps.sh install build || exit 1
make -j"$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)" || exit 1

configured() {
	[ -n "${BLUFIO_CONFIG:-}" ] && return 0
	[ -n "${ANTHROPIC_API_KEY:-}" ] && [ -n "${BLUFIO__TELEGRAM__BOT_TOKEN:-}" ] && return 0
	for file in ./blufio.toml "${XDG_CONFIG_HOME:-${HOME:-/nonexistent}/.config}/blufio/blufio.toml" \
	    /etc/blufio/blufio.toml; do
		[ -f "$file" ] && return 0
	done
	return 1
}

if configured; then
	exec build/blufio serve
fi
exec build/blufio shell
