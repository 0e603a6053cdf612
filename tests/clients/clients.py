# SPDX-License-Identifier: MIT OR Apache-2.0
"""clients.py - where the programs of others are that `make clients` points at the gateway.

scripts/deps.sh puts them into build/clients, each where it can be had: a Python of its own under python/, Debian's
packages unpacked beside it. A test of one that is not there is skipped, and says so.
"""
import importlib
import os
import shutil
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

from harness import Skip, binary  # noqa: E402

FOLDER = os.path.join(os.path.dirname(binary()), "clients")


def module(name):
    """A Python package."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Skip("no Python package %s" % name)


def program(name):
    found = shutil.which(name, path=os.path.join(FOLDER, "usr", "bin")) or shutil.which(name)
    if found is None:
        raise Skip("no %s" % name)
    return found
