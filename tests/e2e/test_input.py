# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_input.py - bad input: each refusal says what is wrong, where, and what to type next.

The messages are compared with tests/e2e/golden/NAME.txt, in which {DIR} stands
for the test's directory, {PID} for a process and {EXIT n} is the exit code.
GOLDEN=write writes them anew; look at the difference before keeping it.
"""
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import tempfile
import threading
import time

import harness
from harness import (HERE, OWNER, ROOT, SLOW, Blufio, FakeAnthropic, FakeTelegram, Skip, World,
                     binary, main, wait_for)

GOLDEN = os.path.join(HERE, "golden")
EXIT_USAGE, EXIT_INTERNAL, EXIT_IO, EXIT_CONFIG, EXIT_NOT_RUNNING = 64, 70, 74, 78, 3
KEY = '[anthropic]\napi_key = "sk-ant-test-0123456789abcdef"\n'
TOKEN = '[telegram]\nbot_token = "123456:TEST-TOKEN_abcdefghijklmnopqrstuvwxyz012"\n'
NOBODY = 65534


class Place:
    """A directory with a configuration, and commands run in it."""

    def __init__(self, text=None):
        if not os.access(binary(), os.X_OK):
            raise Skip("no %s; build it first" % binary())
        self.program = binary()         # as harness.Blufio has it
        self.dir = tempfile.mkdtemp(prefix="blufio-in-")
        self.mounted = []
        harness._alive.append(self)
        os.chmod(self.dir, 0o755)
        self.home = os.path.join(self.dir, "home")
        os.mkdir(self.home)
        if text is not None:
            self.config(text)

    def config(self, text, name="blufio.toml"):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as f:
            f.write(text.encode() if isinstance(text, str) else text)
        os.chmod(path, 0o600)
        return path

    def database(self, path):
        """A complete configuration with this database."""
        self.config(KEY + '[storage]\ndatabase_path = "%s"\n' % path)
        return path

    def run(self, *args, env=None, input=b"", as_nobody=False, timeout=60):
        command = Blufio.command(self, *args)
        if as_nobody:
            if os.getuid() != 0 or not shutil.which("setpriv"):
                raise Skip("root and setpriv are needed to become somebody else")
            os.chown(self.home, NOBODY, NOBODY)
            for path in (os.path.join(self.dir, "blufio.toml"),):
                if os.path.exists(path) and os.stat(path).st_uid == 0:
                    os.chown(path, NOBODY, NOBODY)
            command = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY),
                       "--clear-groups"] + command
        whole = {"PATH": os.environ["PATH"], "HOME": self.home, "LANG": "C.UTF-8", "TZ": "UTC"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if name in os.environ:
                whole[name] = os.environ[name]
        whole.update(env or {})
        done = subprocess.run(command, cwd=self.dir, env=whole, input=input,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout * SLOW)
        return (done.returncode, done.stdout.decode("utf-8", "replace"),
                done.stderr.decode("utf-8", "replace"))

    def tmpfs(self, size):
        """A small file system of its own; removed with the place."""
        path = os.path.join(self.dir, "small")
        os.mkdir(path)
        if os.getuid() != 0 or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=" + size, "none", path],
                stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip("a small file system cannot be mounted here")
        self.mounted.append(path)
        return path

    def cleanup(self):
        for path in self.mounted:
            subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.dir, ignore_errors=True)


def plain(text, place):
    """Without what differs from run to run."""
    lines = []
    for line in text.splitlines():
        if line.startswith("{") or re.match(r"\d{4}-\d\d-\d\d[T ]|==\d+==", line):
            continue                    # log lines, valgrind's
        lines.append(line)
    text = "\n".join(lines) + "\n" if lines else ""
    text = text.replace(os.path.realpath(place.dir), "{DIR}").replace(place.dir, "{DIR}")
    return re.sub(r"\bprocess \d+", "process {PID}", text)


def golden(name, result, place, code):
    """Compares with the golden file, and sees that the message is worth its place."""
    rc, out, err = result
    assert rc == code, (name, rc, out, err)
    seen = plain(out + err, place) + "{EXIT %d}\n" % rc
    # something to type, and where it went wrong
    assert re.search(r"`[^`\n]+`|usage: blufio|next: (blufio|ls|chmod|.*: blufio) |\n  blufio ",
                     seen), (name, "no command", seen)
    assert re.search(r"\{DIR\}|/proc|/[a-z]|[a-z]+\.[a-z_]+|BLUFIO__|\"[^\"]+\"|usage: blufio|blufio: config ",
                     seen), (name, "no place", seen)
    assert "sk-ant-test" not in seen and "TEST-TOKEN" not in seen, (name, "a secret", seen)
    for bad in ("(null)", "Success", "Segmentation", "ERROR: "):
        assert bad not in seen, (name, seen)
    path = os.path.join(GOLDEN, name + ".txt")
    if os.environ.get("GOLDEN") == "write":
        with open(path, "w", encoding="utf-8") as f:
            f.write(seen)
        return
    with open(path, encoding="utf-8") as f:
        want = f.read()
    assert seen == want, "%s: wanted\n%s\nbut it said\n%s" % (name, want, seen)


def cases(code, table, command=("serve",), **options):
    """name -> configuration text: each is refused."""
    for name, text in table.items():
        place = Place(text)
        golden(name, place.run(*command, **options), place, code)
        place.cleanup()


# ---- the command line -------------------------------------------------------------------------------


def test_command_line():
    place = Place(KEY)
    for name, args in {
        "command-none": (), "command-unknown": ("frobnicate",), "command-near": ("sttus",),
        "option-unknown": ("--frob",), "option-without-value": ("--config",),
        "serve-argument": ("serve", "now"), "serve-option": ("serve", "--frob"),
        "status-argument": ("status", "all"), "shell-option": ("shell", "--frob"),
        "shell-without-name": ("shell", "--chat"), "dump-option": ("dump", "--frob"),
        "pair-arguments": ("pair", "a", "b"), "pair-option": ("pair", "--frob"),
        "pair-gateway-arguments": ("pair", "--gateway", "a", "b"), "log-arguments": ("log", "a", "b"),
        "stop-argument": ("stop", "it"), "reload-argument": ("reload", "it"),
        "config-nothing": ("config",), "config-unknown": ("config", "frob"),
        "config-get-nothing": ("config", "get"), "config-set-nothing": ("config", "set", "a.b"),
        "config-json": ("config", "show", "--json"),
    }.items():
        golden(name, place.run(*args), place, EXIT_USAGE)


def test_says_which_protection_is_absent():
    """POSIX alone cannot hold children as Linux does: `version` and the log say what is missing."""
    with World() as w:
        version = w.b.cli("version")[1]
        children = re.search(r"^children: (.*)$", version, re.M).group(1)
        said = [line["msg"] for line in w.b.logs(running=True) if line.get("component") == "proc"]
        if "event loop: poll" in version:
            assert children.startswith("posix; absent: "), children
            for word in ("setsid", "setuid", "outlive a spawner"):
                assert word in children, children
        assert said == (["children: " + children] if "absent" in children else []), said


def test_no_daemon():
    place = Place()
    place.database(os.path.join(place.dir, "blufio.db"))
    for name in ("status", "stop", "reload", "dump", "pair", "log"):
        golden("no-daemon-" + name, place.run(name), place, EXIT_NOT_RUNNING)
    golden("no-daemon-pair-gateway", place.run("pair", "--gateway"), place, EXIT_NOT_RUNNING)


def test_a_key_of_the_gateway():
    """`pair --gateway` prints the key alone on its output, once; what is stored does not hold it."""
    with World() as w:
        rc, out, err = w.b.cli("pair", "--gateway")
        if "gateway" not in w.b.cli("version")[1].split():
            assert rc != 0 and "built without the gateway; next: `make" in err, (rc, err)
            return
        if rc != 0:                     # off unless it is asked for
            assert "`blufio config set gateway.enabled true`" in err, err
            for key, value in (("gateway.enabled", "true"), ("gateway.port", "0")):
                assert w.b.cli("config", "set", key, value)[0] == 0
            w.b.restart()
            rc, out, err = w.b.cli("pair", "--gateway", "laptop")
        assert rc == 0 and re.fullmatch("blf_sk_[0-9a-f]{64}\n", out), (rc, out, err)
        assert "shown this once" in err and out.strip() not in err
        assert w.b.cli("pair", "--gateway")[1] != out
        rc, _, err = w.b.cli("pair", "--gateway", "two\nlines")
        assert rc != 0 and "on one line; next: `blufio pair --gateway laptop`" in err, err
        stored = w.b.query("SELECT name, scopes, hash FROM api_keys WHERE name IN ('laptop', 'owner')")
        assert len(stored) == 2 and all(r[1] == 15 and len(r[2]) == 64 for r in stored), stored
        assert out.strip() not in "\n".join(w.b.log_lines())


# ---- configuration ------------------------------------------------------------------------------------


def test_configuration_refused():
    cases(EXIT_CONFIG, {
        "toml-no-value": "[agent]\nname =\n",
        "toml-open-string": '[agent]\nname = "x\n',
        "toml-open-table": "[agent\n",
        "toml-no-equals": "[agent]\nname blufio\n",
        "toml-twice": '[agent]\nname = "a"\nname = "b"\n',
        "toml-not-utf8": b'[agent]\nname = "\xff\xfe"\n',
        "toml-nul": b'[agent]\nname = "a\0b"\n',
        "toml-secret-line": '[telegram]\nbot_token = 123:SECRETSECRET\n',
        "key-unknown": '[agent]\nnmae = "x"\n',
        "key-unknown-far": '[agent]\nxyzzy = 1\n',
        "key-unknown-top": 'name = "x"\n',
        "section-unknown": '[agnet]\nname = "x"\n',
        "section-as-value": 'agent = 5\n',
        "value-is-section": '[agent.name]\nx = 1\n',
        "type-int": '[agent]\nmax_sessions = "ten"\n',
        "type-float": '[agent]\nmax_sessions = 1.5\n',
        "type-bool": '[telegram]\nrich = "yes"\n',
        "type-string": '[agent]\nname = 5\n',
        "type-secret": '[anthropic]\napi_key = 5\n',
        "type-ids": '[telegram]\nallowed_users = ["@ann"]\n',
        "type-usd": '[cost]\ndaily_budget_usd = "lots"\n',
        "range-int": '[agent]\nmax_sessions = 0\n',
        "range-usd": '[cost]\ndaily_budget_usd = -1\n',
        "range-usd-decimals": '[cost]\ndaily_budget_usd = 0.0000000001\n',
        "range-name": '[agent]\nname = ""\n',
        "choice": '[log]\nlevel = "loud"\n',
        "url-plain-http": '[telegram]\napi_base = "http://example.org"\n',
        "url-nonsense": '[anthropic]\nbase_url = "nonsense"\n',
        "provider-unknown": '[providers]\ndefault = "openia"\n',
        "too-big": b"# " + b"x" * (2 << 20) + b"\n",
    })


def test_configuration_file():
    place = Place()
    golden("file-missing", place.run("--config", place.dir + "/no.toml", "serve"), place,
           EXIT_CONFIG)
    golden("file-missing-behind", place.run("status", "--config", place.dir + "/no.toml"), place,
           EXIT_CONFIG)
    golden("file-missing-env", place.run("serve", env={"BLUFIO_CONFIG": place.dir + "/no.toml"}),
           place, EXIT_CONFIG)
    golden("file-directory", place.run("--config", place.dir, "serve"), place, EXIT_CONFIG)
    golden("file-validate", place.run("config", "validate", place.dir + "/no.toml"), place,
           EXIT_CONFIG)


def test_configuration_not_readable():
    place = Place(KEY)
    os.chmod(os.path.join(place.dir, "blufio.toml"), 0)
    golden("file-unreadable", place.run("serve", as_nobody=True), place, EXIT_CONFIG)


def test_environment_refused():
    place = Place(KEY)
    golden("env-type", place.run("serve", env={"BLUFIO__AGENT__MAX_SESSIONS": "many"}), place,
           EXIT_CONFIG)
    golden("env-choice", place.run("serve", env={"BLUFIO__LOG__LEVEL": "loud"}), place, EXIT_CONFIG)
    golden("env-secret", place.run("serve", env={"BLUFIO__TELEGRAM__BOT_TOKEN":
                                                 "123456:TEST-TOKEN\nabc"}), place, EXIT_CONFIG)


def test_keys_and_tokens():
    place = Place()
    golden("nothing-configured", place.run("serve"), place, EXIT_CONFIG)
    golden("no-token", place.run("serve", env={"ANTHROPIC_API_KEY": "sk-ant-test-x"}), place,
           EXIT_CONFIG)
    golden("key-with-newline", place.run("serve", env={"ANTHROPIC_API_KEY": "sk-ant-test\nx: y"}),
           place, EXIT_CONFIG)
    cases(EXIT_CONFIG, {
        "no-key": TOKEN,
        "no-key-at-all": "[agent]\nname = \"x\"\n",
        "token-newline": KEY + '[telegram]\nbot_token = "123456:TEST-TOKEN\\nabc"\n',
        "token-blank": KEY + '[telegram]\nbot_token = "123456:TEST TOKEN"\n',
        "token-short": KEY + '[telegram]\nbot_token = "123456:short"\n',
        "token-no-colon": KEY + '[telegram]\nbot_token = "abcdefghijklmnopqrstuvwxyz0123456789"\n',
    })
    place.config(TOKEN)
    golden("shell-no-key", place.run("shell"), place, EXIT_CONFIG)


def test_config_set_refuses():
    place = Place('# mine\n[agent]\nname = "kept"   # here\n')
    path = os.path.join(place.dir, "blufio.toml")
    with open(path) as f:
        before = f.read()
    for name, args in {
        "set-range": ("agent.max_sessions", "0"), "set-type": ("agent.max_sessions", "ten"),
        "set-unknown": ("agent.max_sesions", "5"), "set-section": ("agent", "5"),
        "set-url": ("telegram.api_base", "http://example.org"), "set-choice": ("log.level", "loud"),
        "set-usd": ("cost.daily_budget_usd", "1,50"), "set-ids": ("telegram.allowed_users", "ann"),
        "set-bool": ("telegram.rich", "maybe"), "set-provider": ("providers.default", "openia"),
        "set-secret": ("telegram.bot_token", "a b"), "set-empty": ("agent.name", ""),
        "set-not-utf8": ("agent.name", b"\xff"),
    }.items():
        golden(name, place.run("config", "set", *args), place, EXIT_CONFIG)
    golden("get-unknown", place.run("config", "get", "agent.nmae"), place, EXIT_CONFIG)
    with open(path) as f:
        assert f.read() == before       # nothing of it reached the file
    place.config("[agent\n")
    golden("set-broken-file", place.run("config", "set", "agent.name", "x"), place, EXIT_CONFIG)
    with open(path) as f:
        assert f.read() == "[agent\n"


# ---- the database ------------------------------------------------------------------------------------


def database_case(name, make, code, command="serve", **options):
    place = Place()
    path = place.database(os.path.join(place.dir, "blufio.db"))
    path = make(place, path) or path
    before = None
    if os.path.isfile(path):
        with open(path, "rb") as f:
            before = f.read()
    golden(name, place.run(command, **options), place, code)
    if before is not None:
        with open(path, "rb") as f:
            assert f.read() == before, name     # what cannot be read is left as it was
    place.cleanup()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def test_database_refused():
    def is_directory(place, path):
        os.mkdir(path)

    def random_bytes(place, path):
        write(path, bytes((i * 7919 + 13) % 256 for i in range(20000)))

    def truncated(place, path):
        c = sqlite3.connect(path)
        c.executescript("PRAGMA page_size = 4096; CREATE TABLE t(x); PRAGMA user_version = 1;")
        c.executemany("INSERT INTO t VALUES (?)", [("x" * 900,)] * 100)
        c.commit()
        c.close()
        with open(path, "r+b") as f:
            f.truncate(60)

    def newer(place, path):
        c = sqlite3.connect(path)
        c.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(x); PRAGMA user_version = 999;")
        c.close()

    def fifo(place, path):
        os.mkfifo(path)

    def below_a_file(place, path):
        write(path, b"")
        place.database(os.path.join(path, "deeper", "blufio.db"))

    def in_proc(place, path):
        place.database("/proc/nowhere/blufio.db")

    def too_long(place, path):
        deep = os.path.join(place.dir, "d" * 60, "e" * 60)
        os.makedirs(deep)
        place.database(os.path.join(deep, "blufio.db"))

    database_case("db-directory", is_directory, EXIT_CONFIG)
    database_case("db-random", random_bytes, EXIT_IO)
    database_case("db-truncated", truncated, EXIT_IO)
    database_case("db-newer", newer, EXIT_CONFIG)
    database_case("db-fifo", fifo, EXIT_CONFIG)
    database_case("db-below-a-file", below_a_file, EXIT_IO)
    database_case("db-in-proc", in_proc, EXIT_IO)
    database_case("socket-path-long", too_long, EXIT_CONFIG)
    database_case("socket-path-long-status", too_long, EXIT_CONFIG, "status")


def test_database_not_writable():
    def file_only(place, path):
        sqlite3.connect(path).execute("PRAGMA user_version = 0").connection.close()
        write(path, b"")
        os.chmod(path, 0o444)
        os.chmod(place.dir, 0o777)

    def directory(place, path):
        os.mkdir(os.path.join(place.dir, "locked"))
        os.chmod(os.path.join(place.dir, "locked"), 0o555)
        return place.database(os.path.join(place.dir, "locked", "blufio.db"))
    database_case("db-read-only", file_only, EXIT_IO, as_nobody=True)
    database_case("db-read-only-directory", directory, EXIT_IO, as_nobody=True)


def test_database_read_only_file_system():
    place = Place()
    small = place.tmpfs("1m")
    place.database(small + "/blufio.db")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    golden("db-read-only-file-system", place.run("serve"), place, EXIT_IO)


def test_database_disk_full_at_start():
    place = Place()
    small = place.tmpfs("64k")
    place.database(small + "/blufio.db")
    write(small + "/lock", b"")
    with open(small + "/filler", "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"x" * 4096)
        except OSError:
            pass
    golden("db-disk-full", place.run("serve"), place, EXIT_IO)
    os.unlink(small + "/filler")


def test_second_serve():
    with World() as w:
        place = Place()
        place.dir, real = w.b.dir, place.dir
        golden("second-serve", w.b.cli("serve"), place, EXIT_IO)
        place.dir = real
        assert w.say("say undisturbed") == "undisturbed"


def test_foreign_lock_at_start():
    with World(start=False) as w:
        w.b.start()
        w.b.stop()
        c = sqlite3.connect(w.b.db_path, isolation_level=None)
        c.execute("BEGIN EXCLUSIVE")
        place = Place()
        place.dir, real = w.b.dir, place.dir
        golden("db-locked", w.b.cli("serve"), place, EXIT_IO)
        place.dir = real
        c.execute("ROLLBACK")
        c.close()
        w.b.start()
        assert w.say("say free again") == "free again"


# ---- storage that fails while running ---------------------------------------------------------------


def fill(path):
    """Leaves no byte on path's file system."""
    with open(path, "wb", buffering=0) as f:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    if f.write(b"x" * size) < size:
                        break
            except OSError:
                pass


def test_disk_fills_up_and_empties():
    """Nothing is acknowledged that is not stored; it says why; it goes on by itself."""
    place = Place()
    small = place.tmpfs("16m")
    with World({"storage": {"database_path": small + "/blufio.db"},
                "telegram": {"poll_timeout": 2}}) as w:
        w.b.db_path = small + "/blufio.db"
        assert w.say("say before") == "before"
        fill(small + "/filler")
        for i in range(3):
            w.tg.send_text(OWNER, "say %s" % ("y" * 30000))
        w.b.wait_log("nothing of it left the process")
        status = json.loads(w.b.cli("status", "--json")[1])
        assert status["state"] == "storage failed" and status["storage"]["problem"], status
        assert status["storage"]["failed_commits"] > 0
        code, out, _ = w.b.cli("status")
        assert code == 0 and "storage problem" in out
        w.b.wait_log("df -h")
        s = w.b.shell("--chat", "x", terminal=False)
        s.send("say refused")
        s.expect("nothing was stored")
        s.expect("`blufio status`")
        os.unlink(small + "/filler")
        w.b.wait_log("works again")
        w.wait(lambda: w.tg.texts(OWNER)[1:] == ["y" * 30000] * 3 and w.settled(),
               "all answers once", 40)
        assert w.say("say after") == "after"
        assert json.loads(w.b.cli("status", "--json")[1])["storage"]["problem"] == ""
        w.b.restart()
        assert w.say("say again") == "again"
        assert len(w.ai.requests) <= 2 + 3 + 6      # a question may have been lost in the failure


def test_stop_while_the_disk_is_full():
    place = Place()
    small = place.tmpfs("16m")
    os.mkdir(small + "/a")
    with World({"storage": {"database_path": small + "/a/blufio.db"},
                "telegram": {"poll_timeout": 2}}) as w:
        w.b.db_path = small + "/a/blufio.db"
        assert w.say("say before") == "before"
        fill(small + "/filler")
        w.tg.send_text(OWNER, "say %s" % ("z" * 30000))
        w.b.wait_log("nothing of it left the process")
        code = w.b.stop()               # a stop while the storage fails does not hang
        assert code in (0, EXIT_IO)
        os.unlink(small + "/filler")
        w.b.start()
        w.wait(lambda: w.tg.texts(OWNER)[-1] == "z" * 30000, "the answer", 30)


# ---- what is typed ------------------------------------------------------------------------------------


def test_shell_input():
    place = Place()
    code, out, err = place.run("shell", input=b"caf\xc3\xa9 \xff\xfe\xc0\x80 end\n")
    assert code == 0 and "caf\u00e9" in out and "end" in out and "\ufffd" in out, (code, out, err)
    code, out, err = place.run("shell", input=b"\n   \n\t\n\0\n/quit\n")
    assert code == 0, (code, out, err)
    code, out, err = place.run("shell", input=b"x" * ((1 << 20) + 1) + b"\nsay small\n")
    assert code == 0 and "say small" in out, (code, out[-300:], err)
    assert "at most 1048576 bytes" in err and "next: split it" in err, err
    code, out, err = place.run("shell", input=b"no newline at the end", env={
        "BLUFIO__PROVIDERS__DEFAULT": "echo"})
    assert code == 0 and "no newline at the end" in out, (code, out, err)


def test_message_of_a_megabyte_in_the_shell():
    """Larger than any socket's buffer: neither end may wait for the other."""
    place = Place()
    code, out, err = place.run("shell", input=b"z" * (1 << 20) + b"\nshort\n", timeout=20)
    assert code == 0 and "short" in out, (code, out[-200:], err)
    c = sqlite3.connect(os.path.join(place.home, ".local/share/blufio/blufio.db"))
    assert c.execute("SELECT length(text) FROM inbound ORDER BY id").fetchall() == [(1 << 20,), (5,)]
    c.close()


# ---- a clock that jumps ---------------------------------------------------------------------------------

SHIM = """
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void)
{
	const char *path = getenv("CLOCK_OFFSET");
	char text[32] = "";
	FILE *f = path ? fopen(path, "r") : NULL;

	if (f == NULL)
		return 0;
	if (fgets(text, sizeof(text), f) == NULL)
		text[0] = 0;
	fclose(f);
	return atol(text);
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int rc = (int)syscall(SYS_clock_gettime, id, ts);

	if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		ts->tv_sec += offset();
	return rc;
}

time_t time(time_t *out)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (out)
		*out = ts.tv_sec;
	return ts.tv_sec;
}
"""


def clock_shim():
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise Skip("no compiler for the clock")
    place = Place()
    write(place.dir + "/shim.c", SHIM.encode())
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", place.dir + "/shim.so",
                           place.dir + "/shim.c"], stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise Skip("the clock cannot be compiled: %s" % done.stderr.decode()[-200:])
    if subprocess.run([binary(), "version"], env={"LD_PRELOAD": place.dir + "/shim.so", "CLOCK_OFFSET": "/dev/null"},
                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        raise Skip("this build does not take a preloaded library (a sanitizer?)")
    return place


def jump(days):
    """A turn waits in back-off while the clock jumps; then a reply waits for its retry."""
    place = clock_shim()
    offset = place.dir + "/offset"
    write(offset, b"0")

    def set_clock(seconds):
        write(offset + ".new", b"%d" % seconds)
        os.rename(offset + ".new", offset)
    with World({"telegram": {"poll_timeout": 2}}, preload=place.dir + "/shim.so",
               env={"CLOCK_OFFSET": offset}) as w:
        assert w.say("say before") == "before"
        w.ai.fail_next("529", retry_after=3)
        w.tg.send_text(OWNER, "say waits")
        w.wait(lambda: w.b.query("SELECT 1 FROM turns WHERE attempt = 1"), "the back-off")
        set_clock(days * 86400)
        w.wait(lambda: w.tg.texts(OWNER)[-1] == "waits", "the answer", 15)
        w.tg.fail_next("sendRichMessage", "429", retry_after=2)
        w.tg.send_text(OWNER, "say delivered")
        w.wait(lambda: w.b.query("SELECT 1 FROM outbox WHERE attempts = 1"), "the retry")
        set_clock(0)
        w.wait(lambda: w.tg.texts(OWNER)[-1] == "delivered", "the delivery", 15)
        set_clock(days * 86400)
        assert w.say("say there") == "there"
        today = json.loads(w.b.cli("status", "--json")[1])["cost"]["today_nano_usd"]
        n, spent = w.b.query("SELECT count(*), sum(nano_usd) FROM cost_ledger")[0]
        assert n == 4 and 0 < today <= spent, (n, today, spent)
        assert json.loads(w.b.cli("status", "--json")[1])["uptime_secs"] < 10 * 86400
        w.b.restart()
        assert w.say("say still") == "still"
        set_clock(0)
        assert w.say("say home again") == "home again"


def test_clock_jumps_ahead():
    jump(1)


def test_clock_jumps_back():
    jump(-1)


if __name__ == "__main__":
    main(globals())
