# SPDX-License-Identifier: MIT OR Apache-2.0
"""harness.py - the real binary between the two fakes.

    def test_answers():
        with World() as w:
            w.tg.send_text(OWNER, "say hello")
            w.wait(lambda: w.tg.texts(OWNER) == ["hello"], "the reply")

    if __name__ == "__main__":
        main(globals())

A World is a temporary directory, both fakes and a running daemon. When it
ends, the daemon must end with exit code 0, neither fake may have refused
anything that the test did not declare (w.tg.expect_refusal("text")), and every
conversation must have gone on from the octets that were sent before
(w.ai.prefix_violations).

Environment: BLUFIO_BIN or BLUFIO the binary (build/blufio); BLUFIO_WRAP a command in
front of it ("valgrind -q …", which must exec it in place); E2E_SLOW a factor
for every timeout; E2E_KEEP=1 keeps the directories; E2E_MEMORY a limit in megabytes (memgroup.py). Waiting is always for a
condition; no test sleeps to let something happen.
"""
import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import billing
import memgroup
from fake_anthropic import FakeAnthropic
from fake_telegram import FakeTelegram

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SLOW = float(os.environ.get("E2E_SLOW", "1"))
OWNER = 1001            # the user that the default configuration allows
LOG_TAIL = 40

_alive = []             # things to clean up after each test, newest last


class Skip(Exception):
    """raise Skip("why"): the test cannot run here."""


def binary():
    name = os.environ.get("BLUFIO_BIN") or os.environ.get("BLUFIO") or "build/blufio"
    return os.path.join(ROOT, name)


def built(name):
    """A file of the build that is under test, beside its program."""
    path = os.path.join(os.path.dirname(binary()), name)
    if not os.path.exists(path):
        raise Skip("no %s; make e2e builds it" % path)
    return path


def wait_for(predicate, timeout=20.0, what="condition"):
    """The predicate's first true value, or AssertionError."""
    end = time.monotonic() + timeout * SLOW
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError("waited %.0f s for %s" % (timeout * SLOW, what))
        time.sleep(0.01)        # the grain of polling, not a synchronisation


# ---- configuration -----------------------------------------------------------------------


def toml_value(v):
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (int, float)):
        return repr(v)
    if isinstance(v, (list, tuple)):
        return "[" + ", ".join(toml_value(x) for x in v) + "]"
    out = "".join("\\u%04x" % ord(c) if ord(c) < 32 or ord(c) == 127 else
                  "\\" + c if c in '"\\' else c for c in v)
    return '"%s"' % out


def toml_key(k):
    return k if re.match(r"[A-Za-z0-9_-]+\Z", k) else toml_value(k)


def toml(config, path=()):
    """A dict of tables as TOML; a list of dicts is an array of tables."""
    lines, later = [], []
    for k, v in config.items():
        if isinstance(v, dict):
            later.append("\n[%s]\n%s"
                         % (".".join(toml_key(p) for p in path + (k,)), toml(v, path + (k,))))
        elif isinstance(v, list) and v and isinstance(v[0], dict):
            later += ["\n[[%s]]\n%s"
                      % (".".join(toml_key(p) for p in path + (k,)), toml(x, path + (k,)))
                      for x in v]
        else:
            lines.append("%s = %s\n" % (toml_key(k), toml_value(v)))
    return "".join(lines + later)


def merge(base, over):
    """over wins; None removes a key."""
    out = dict(base)
    for k, v in over.items():
        if v is None:
            out.pop(k, None)
        elif isinstance(v, dict) and isinstance(out.get(k), dict):
            out[k] = merge(out[k], v)
        else:
            out[k] = v
    return out


# ---- the daemon -----------------------------------------------------------------------------


class Blufio:
    """One data directory and the processes that run in it."""

    def __init__(self, config=None, tg=None, ai=None, env=None, preload=None, program=None):
        self.dir = tempfile.mkdtemp(prefix="blufio-e2e-")
        self.config_path = os.path.join(self.dir, "blufio.toml")
        self.db_path = os.path.join(self.dir, "blufio.db")
        self.log_path = os.path.join(self.dir, "log")
        self.env = dict(env or {})      # for every process of this directory
        self.preload = preload          # for the daemon alone
        self.program = program or binary()
        self.process = None
        self.groups = []                # memory groups of the daemons so far
        self.sessions = []              # session ids of the daemons so far
        self.copies = 0
        self.logged = 0                 # size of the log before the running daemon
        base = {"agent": {"name": "blufio"}, "routing": {"enabled": False}, "storage": {"database_path": self.db_path},
                "log": {"level": "debug", "format": "json"}}
        if tg is not None:
            base["telegram"] = {"bot_token": tg.token, "api_base": tg.url, "allowed_users": [OWNER],
                                "poll_timeout": 20}
        if ai is not None:
            base["anthropic"] = {"api_key": ai.api_key, "base_url": ai.url}
        self.config = merge(base, config or {})
        self.write_config()
        _alive.append(self)

    def write_config(self, text=None):
        with open(self.config_path, "w", encoding="utf-8") as f:
            f.write(toml(self.config) if text is None else text)
        os.chmod(self.config_path, 0o600)

    def configure(self, **sections):
        """Changes sections of the file; a running daemon does not know yet."""
        self.config = merge(self.config, sections)
        self.write_config()

    def environment(self, extra=None, preload=None):
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": self.dir, "LANG": "C.UTF-8",
               "TZ": "UTC", "BLUFIO_CONFIG": self.config_path}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "GCOV_ERROR_FILE"):
            if name in os.environ:
                env[name] = os.environ[name]
        if preload:
            env["LD_PRELOAD"] = preload
        env.update(self.env)
        env.update(extra or {})
        return {k: v for k, v in env.items() if v is not None}

    def command(self, *args):
        return shlex.split(os.environ.get("BLUFIO_WRAP", "")) + [self.program] + list(args)

    # -- life --------------------------------------------------------------------------

    def start(self, wait=True, env=None):
        if not os.access(self.program, os.X_OK):
            raise Skip("no %s; build it first" % self.program)
        if self.process is not None:
            raise AssertionError("it runs already")
        self.logged = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        group = None if os.environ.get("BLUFIO_WRAP") else memgroup.group()
        self.groups += [group] if group else []
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command("serve"), cwd=self.dir, env=self.environment(env, self.preload),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=group.join if group else None)
        self.sessions.append(self.process.pid)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=20.0):
        def ready():
            if any(re.search(r"\bready\b", self.message(line)) for line
                   in self.log_lines(running=True)):
                return True
            if self.process.poll() is not None:
                raise AssertionError("daemon ended with %d before it was ready"
                                     % self.process.returncode)
            return False
        wait_for(ready, timeout, "the daemon to be ready")

    @staticmethod
    def message(line):
        """The text of a log line; the level word or a component named ready does not count."""
        try:
            entry = json.loads(line)
        except ValueError:
            return line
        return str(entry.get("msg", entry.get("message", line))) if isinstance(entry,
                                                                               dict) else line

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def wait_exit(self, timeout=40.0):
        """The exit code; negative for a signal."""
        code = self.process.wait(timeout * SLOW)
        self.process = None
        return code

    def stop(self, timeout=40.0):
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout)

    def kill9(self):
        if self.running():
            self.signal(signal.SIGKILL)
        code = self.wait_exit()
        self.wait_no_orphans()
        return code

    def restart(self, hard=False, env=None):
        """Stop (which must succeed) or kill -9, then start on the same data."""
        if hard:
            self.kill9()
        else:
            code = self.stop()
            if code != 0:
                raise AssertionError("exit code %d on stop" % code)
        return self.start(env=env)

    def processes(self):
        """Ids of processes in the sessions of daemons of this directory (spawner, children)."""
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open("/proc/%s/stat" % name, encoding="latin-1") as f:
                    fields = f.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) in self.sessions and fields[0] != "Z":
                found.append(int(name))
        return found

    def wait_no_orphans(self, timeout=10.0):
        """After the daemon's end nothing that it started is left."""
        wait_for(lambda: not self.processes(), timeout, "children of the daemon to end")

    def cleanup(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = None
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        for group in self.groups:
            group.end()
        if not os.environ.get("E2E_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    # -- looking at it --------------------------------------------------------------------

    def log_lines(self, running=False):
        """Lines of standard output and error; running: only those of the newest daemon."""
        if not os.path.exists(self.log_path):
            return []
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            if running:
                f.seek(self.logged)
            return f.read().splitlines()

    def logs(self, running=False):
        """Parsed JSON lines; others are left out."""
        out = []
        for line in self.log_lines(running):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                out.append(entry)
        return out

    def wait_log(self, substring, timeout=20.0, running=True):
        return wait_for(lambda: [x for x in self.log_lines(running) if substring in x], timeout,
                        "a log line with %r" % substring)

    def log_size(self):
        return os.path.getsize(self.log_path)

    def rss_kb(self, pid=None):
        with open("/proc/%d/status" % (pid or self.pid)) as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    @contextlib.contextmanager
    def bounded(self, kb=4096):
        """Gives a function to call after each attack: at no moment since the last call was there more memory
        than at the beginning, and so much more. A sanitizer keeps what is freed: not measured there."""
        base = self.rss_kb()

        def forget():
            with open("/proc/%d/clear_refs" % self.pid, "w") as f:
                f.write("5")

        def check(what=""):
            with open("/proc/%d/status" % self.pid) as f:
                peak = int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))
            assert peak <= base + kb or os.environ.get("E2E_MEMORY") == "0", "%s: %d KB from %d" % (what, peak, base)
            forget()
        forget()
        yield check
        check("in all")

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def db(self):
        """A connection to a copy of the database; the live file is only read as bytes.

        The log is copied before the file it is folded into, and the pair is
        taken again when a checkpoint ran meanwhile: never a mixture."""
        def stamp():
            out = []
            for path in (self.db_path, self.db_path + "-wal"):
                try:
                    st = os.stat(path)
                    with open(path, "rb") as f:
                        out.append((st.st_size, st.st_mtime_ns, f.read(32)))
                except FileNotFoundError:
                    out.append(None)
            return out
        for _ in range(200):
            before = stamp()
            self.copies += 1
            copy = os.path.join(self.dir, "copy-%d.db" % self.copies)
            if before[1] is not None:
                try:
                    shutil.copyfile(self.db_path + "-wal", copy + "-wal")
                except FileNotFoundError:
                    continue
            shutil.copyfile(self.db_path, copy)
            if stamp() == before:
                break
        connection = sqlite3.connect(copy)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA query_only = 1")
        return connection

    def query(self, sql, *values):
        """Rows of one SELECT on a fresh copy."""
        connection = self.db()
        try:
            return [tuple(r) for r in connection.execute(sql, values)]
        finally:
            connection.close()

    def ledger(self):
        connection = self.db()
        try:
            return connection.execute("SELECT * FROM cost_ledger ORDER BY id").fetchall()
        finally:
            connection.close()

    # -- other ways in ------------------------------------------------------------------------

    def cli(self, *args, input=None, timeout=60.0, env=None):
        """Runs `blufio ARGS`: (exit code, output, errors)."""
        if not os.access(self.program, os.X_OK):
            raise Skip("no %s; build it first" % self.program)
        done = subprocess.run(self.command(*args), cwd=self.dir, env=self.environment(env),
                              input=None if input is None else input.encode(),
                              stdin=subprocess.DEVNULL if input is None else None,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout * SLOW)
        return (done.returncode, done.stdout.decode("utf-8", "replace"),
                done.stderr.decode("utf-8", "replace"))

    def shell(self, *args, terminal=True, env=None):
        """`blufio shell` on a terminal of its own, or on pipes."""
        s = Shell(self.command("shell", *args), self.dir, self.environment(env), terminal)
        _alive.append(s)
        return s


class Shell:
    """A program that is talked to: send a line, expect a text."""

    def __init__(self, command, cwd, env, terminal):
        self.text = ""
        self.seen = 0                   # what expect has consumed
        self.cond = threading.Condition()
        self.ended = False
        if terminal:
            self.fd, slave = pty.openpty()
            env = dict(env, TERM="xterm", COLUMNS="100", LINES="30")
            self.process = subprocess.Popen(command, cwd=cwd, env=env, stdin=slave, stdout=slave,
                                            stderr=slave, start_new_session=True,
                                            preexec_fn=_take_terminal)
            os.close(slave)
            self.out = self.fd
        else:
            self.process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                            start_new_session=True)
            self.fd, self.out = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.terminal = terminal
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        pending = b""
        while True:
            try:
                data = os.read(self.out, 65536)
            except OSError:
                data = b""
            with self.cond:
                if not data:
                    self.ended = True
                    self.cond.notify_all()
                    return
                pending += data
                try:
                    text, pending = pending.decode("utf-8"), b""
                except UnicodeDecodeError as e:     # a character may be cut at the end of a read
                    if len(pending) - e.start > 3:
                        text, pending = pending.decode("utf-8", "replace"), b""
                    else:
                        text, pending = pending[:e.start].decode("utf-8"), pending[e.start:]
                self.text += text
                self.cond.notify_all()

    def send(self, line):
        self.write(line + "\n")

    def write(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self.fd, data):]

    def interrupt(self):
        """Ctrl-C."""
        self.write("\x03") if self.terminal else self.process.send_signal(signal.SIGINT)

    def expect(self, what, timeout=20.0):
        """Waits for a text (or compiled pattern) behind what was expected before; returns it."""
        pattern = what if hasattr(what, "search") else re.compile(re.escape(what))
        end = time.monotonic() + timeout * SLOW
        with self.cond:
            while True:
                m = pattern.search(self.text, self.seen)
                if m:
                    self.seen = m.end()
                    return m
                left = end - time.monotonic()
                if self.ended or left <= 0:
                    raise AssertionError("%s without %r; since then came %r" % (
                        "ended" if self.ended else "waited %.0f s" % (timeout * SLOW), what,
                        self.text[self.seen:][-2000:]))
                self.cond.wait(min(left, 0.1))

    def eof(self):
        """End of input: Ctrl-D, or the pipe is closed."""
        if self.terminal:
            self.write("\x04")
        else:
            self.process.stdin.close()

    def wait_exit(self, timeout=20.0):
        code = self.process.wait(timeout * SLOW)
        self.reader.join(5)
        return code

    def cleanup(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)
        if self.terminal and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        elif not self.terminal:
            for pipe in (self.process.stdin, self.process.stdout):
                try:
                    pipe.close()
                except OSError:
                    pass


def _take_terminal():
    import fcntl
    import termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


# ---- a whole world -----------------------------------------------------------------------------


class World:
    """Both fakes and a daemon; ends with the checks that every test wants."""

    def __init__(self, config=None, start=True, tg=None, ai=None, **options):
        self.tg = tg or FakeTelegram(seed=11)
        self.ai = ai or FakeAnthropic()
        try:
            self.b = Blufio(config, self.tg, self.ai, **options)
            _alive.append(self)
            self.tg.add_chat(OWNER)
            if start:
                self.b.start()
        except BaseException:
            self.cleanup()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            return False
        if self.b.running():
            code = self.b.stop()
            if code != 0:
                raise AssertionError("daemon ended with %d" % code)
            self.b.wait_no_orphans()
        self.check()
        self.cleanup()
        return False

    def check(self):
        """Nothing was refused, and no prefix changed, that the test did not declare."""
        problems = self.tg.unexpected() + self.ai.unexpected()
        if problems:
            raise AssertionError("the fakes refused:\n  " + "\n  ".join(problems))

    def wait(self, predicate, what="condition", timeout=20.0):
        return wait_for(predicate, timeout, what)

    def settle_up(self, **options):
        """What is wrong with the ledger by the provider's log (billing.reconcile); every call must be over."""
        self.wait(lambda: not self.ai.book.open, "the end of every call")
        return billing.reconcile(self.b.ledger(), self.ai.log, **options)

    def say(self, text, user=OWNER, timeout=20.0, **more):
        """Sends a text and returns the bot's next message in that chat as a person reads it."""
        chat = more.get("chat_id") or user
        n = len(self.tg.messages(chat))
        self.tg.send_text(user, text, **more)
        self.wait(lambda: len(self.tg.messages(chat)) > n and self.settled() and self.quiet(chat),
                  "the reply to %r" % text, timeout)
        return self.tg.messages(chat)[-1]["text"]

    def quiet(self, chat):
        """Nothing is on its way to that chat: what stands there is final, no placeholder."""
        return not self.b.query(
            "SELECT 1 FROM outbox WHERE state < 2 AND chat = ?1 UNION ALL SELECT 1 FROM turns t"
            " JOIN sessions s ON s.id = t.session_id WHERE t.state < 5 AND s.chat = ?1", str(chat))

    def settled(self):
        """Every update is confirmed, so whatever it caused is on disk."""
        return not self.tg.unconfirmed

    def cleanup(self):
        self.tg.close()
        self.ai.close()


def clean_up():
    while _alive:
        try:
            _alive.pop().cleanup()
        except Exception:       # one stubborn thing must not keep the others alive
            traceback.print_exc()


def main(names):
    """Runs every test_* function (those whose name contains an argument, if any is given)."""
    words = sys.argv[1:]
    name = os.path.basename(names.get("__file__", "tests"))
    passed = failed = skipped = 0
    tests = [(k, v) for k, v in names.items() if k.startswith("test_") and callable(v)]
    for test, function in tests:
        if words and not any(w in test for w in words):
            continue
        begin = time.monotonic()
        try:
            function()
            passed += 1
            print("ok %s (%.2f s)" % (test, time.monotonic() - begin))
        except Skip as e:
            skipped += 1
            print("skipped %s: %s" % (test, e))
        except KeyboardInterrupt:
            clean_up()
            raise
        except BaseException:
            failed += 1
            print("not ok %s (%.2f s)" % (test, time.monotonic() - begin))
            print("".join("    " + x + "\n" for x in traceback.format_exc().rstrip().split("\n")),
                  end="")
            for daemon in [x for x in _alive if isinstance(x, Blufio)]:
                print("    --- the daemon's last lines (%s)" % daemon.log_path)
                for line in daemon.log_lines()[-LOG_TAIL:]:
                    print("    " + line)
            for world in [x for x in _alive if isinstance(x, World)]:
                for problem in world.tg.unexpected() + world.ai.unexpected():
                    print("    --- refused: " + problem)
        finally:
            clean_up()
            sys.stdout.flush()
    if memgroup.peak:
        print("most memory of a daemon with all it started: %.1f of %d MB"
              % (memgroup.peak / 2**20, memgroup.LIMIT >> 20))
    print("%s: %d passed, %d failed, %d skipped" % (name, passed, failed, skipped))
    sys.exit(1 if failed else 0)
