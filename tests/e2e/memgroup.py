# SPDX-License-Identifier: MIT OR Apache-2.0
"""memgroup.py - a daemon and all that it starts under a memory limit.

E2E_MEMORY=32 in the environment of the tests gives every daemon a memory control group
of its own (cgroup v1 or v2), its children and the page cache it uses included, without swap.
What does not fit is ended by the kernel, and the test fails. Where no group can be made, a
line says so once and the tests run without.
"""
import itertools
import os

LIMIT = int(os.environ.get("E2E_MEMORY") or 0) << 20
V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
_number = itertools.count()
_said = False
peak = 0            # bytes, of all groups so far


def _write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


def _read(path):
    with open(path, encoding="ascii") as f:
        return f.read()


def _place():
    """Where groups are made, and the names of limit and peak there."""
    if os.path.exists(V1 + "/memory.limit_in_bytes"):
        return V1, "memory.limit_in_bytes", "memory.max_usage_in_bytes"
    if "memory" in _read(V2 + "/cgroup.subtree_control").split():
        return V2, "memory.max", "memory.peak"
    raise OSError("no memory controller")


class Group:
    """join() is for preexec_fn; end() removes the group once its processes are gone, and says the most they had."""

    def __init__(self, most):
        place, limit, self.peak_file = _place()
        self.most = most
        self.path = os.path.join(place, "blufio-%d-%d" % (os.getpid(), next(_number)))
        os.mkdir(self.path)
        try:
            _write(os.path.join(self.path, limit), str(most))
            for name, value in (("memory.swap.max", "0"), ("memory.swappiness", "0")):
                if os.path.exists(os.path.join(self.path, name)):
                    _write(os.path.join(self.path, name), value)
        except OSError:
            os.rmdir(self.path)
            raise

    def join(self):
        _write(os.path.join(self.path, "cgroup.procs"), "0")

    def end(self):
        global peak
        used = 0
        try:
            used = int(_read(os.path.join(self.path, self.peak_file)))
            os.rmdir(self.path)
        except OSError:
            pass                # a process that is still ending; the group goes with the machine
        if self.most == LIMIT:
            peak = max(peak, used)
        return used


def group(most=LIMIT):
    """A new group, or None without a limit or where none can be made."""
    global _said
    if not most:
        return None
    try:
        return Group(most)
    except OSError as e:
        if not _said:
            print("skipped the memory limit: %s" % e)
        _said = True
        return None
