# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_build.py - a bare machine: one core, 512 MB, a compiler, make and the three -dev packages."""
import os
import resource
import shutil
import subprocess
import tempfile
import time

import memgroup
from harness import ROOT, Skip, main
from test_gateway import world

MEMORY = 512 << 20
TIME_MAX = 900
# All that a build asks for: make, the compiler and its parts, and what every POSIX system has.
TOOLS = ("make", "cc", "as", "ld", "ar", "strip", "sh", "cat", "cmp", "cp", "echo", "grep", "mkdir", "mv", "printf", "rm", "sed", "touch",
         "tr", "uname", "wc")


def clone(place):
    """The tracked files as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if listed.returncode != 0:
        raise Skip("this is no clone")
    for name in listed.stdout.decode().split("\0")[:-1]:
        os.makedirs(os.path.join(place, os.path.dirname(name)), exist_ok=True)
        shutil.copy2(os.path.join(ROOT, name), os.path.join(place, name))


def build(place):
    """Compiles in there as on such a machine; says how long it took and how much memory."""
    tools = os.path.join(place, "only")
    os.mkdir(tools)
    for name in TOOLS:
        if shutil.which(name):
            os.symlink(shutil.which(name), os.path.join(tools, name))
    group, core = memgroup.group(MEMORY), min(os.sched_getaffinity(0))

    def enter():
        os.sched_setaffinity(0, {core})
        if group:
            group.join()
        else:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    begin = time.monotonic()
    done = subprocess.run(["make", "FEATURES=telegram gateway"], cwd=place, env={"PATH": tools}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIME_MAX, preexec_fn=enter)
    took, used = time.monotonic() - begin, group.end() if group else 0
    assert done.returncode == 0 and "warning" not in done.stdout, done.stdout[-2000:]
    print("built in %.1f s on one core%s" % (took, ", %.0f MB at most" % (used / 2**20) if used else ""))


def test_a_bare_machine_builds_a_complete_agent():
    if os.environ.get("E2E_MEMORY") == "0" or os.environ.get("BLUFIO_WRAP"):
        raise Skip("another program is under test")
    given = os.environ.get("BLUFIO_BIN", "")
    with tempfile.TemporaryDirectory(prefix="blufio-e2e-") as place:
        clone(place)
        build(place)
        os.environ["BLUFIO_BIN"] = os.path.join(place, "build/blufio")
        try:
            with world() as w:
                assert w.g.say("say one")["content"] == "one"
                assert w.say("say two") == "two"
        finally:
            os.environ["BLUFIO_BIN"] = given


if __name__ == "__main__":
    main(globals())
